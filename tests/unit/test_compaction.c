/* test_compaction.c - folds and reclaim against what happens meanwhile: transactions between a fold's reading and its publishing, a log that is cut
 * there, drops, damage; and that reference counts and pending counts are exact after every step of random histories. */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bytes.h"
#include "catalog.h"
#include "check_main.h"
#include "compact.h"
#include "core.h"
#include "memory_io.h"
#include "model.h"
#include "reclaim.h"
#include "row_index.h"
#include "view.h"

static npk_error err;
static char directory[64];
static uint64_t seed;

#define OK(call) ck_assert_msg((call) == NPK_OK, "seed %llu: %s: %s", (unsigned long long)seed, #call, err.message)

static const npk_array_spec words = {"<u4", 4, 0, NULL, 0};

static void setup(void)
{
    (void)snprintf(directory, sizeof directory, "/tmp/npk-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
}

static void teardown(void)
{
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", directory);
    ck_assert_int_eq(system(command), 0);
}

static npk_store *open_with(npk_options options)
{
    options.struct_size = sizeof options;
    options.mode = NPK_MODE_CREATE;
    options.no_background = 1;
    npk_store *store = NULL;
    OK(npk_store_open(directory, &options, &store, &err));
    return store;
}

static void save(npk_store *store, const char *name, uint64_t count, const uint32_t *rows)
{
    npk_txn *txn = NULL;
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_save(txn, name, &words, count, rows, &err));
    OK(npk_txn_commit(txn, NPK_SYNC_NEVER, NULL, &err));
}

static void pause_ms(long ms)
{
    struct timespec pause = {0, ms * 1000000};
    (void)nanosleep(&pause, NULL);
}

static npk_stats stats_of(npk_store *store)
{
    npk_stats stats = {.struct_size = sizeof stats};
    OK(npk_store_stats(store, &stats, &err));
    return stats;
}

/* ---- named cases -------------------------------------------------------------------------------------------------------- */

START_TEST(test_a_half_dropped_run_does_not_keep_its_segment)
{
    static uint32_t rows[250000];
    rng r = rng_seeded(1);
    rng_fill(&r, rows, sizeof rows);
    npk_store *store = open_with((npk_options){.segment_size = 1 << 20, .checkpoint_log_size = 2 << 20, .pending_limit = 4 << 20,
                                               .bulk_size = 1 << 30});
    save(store, "cold", 1000, rows);
    int64_t gone[980];
    for (int i = 0; i < 980; i++)
        gone[i] = 10 + i;
    npk_txn *txn = NULL;
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_drop_rows(txn, "cold", 980, gone, &err));
    OK(npk_txn_commit(txn, NPK_SYNC_NEVER, NULL, &err));
    for (int i = 0; i < 60; i++)
        save(store, "hot", 200000, rows);
    ck_assert_uint_lt(stats_of(store).log_segment_count, 20);
    OK(npk_store_close(store, &err));
}
END_TEST

START_TEST(test_one_damaged_array_does_not_stop_the_others)
{
    static uint32_t rows[250000];
    npk_store *store = open_with((npk_options){.pending_limit = 4 << 20, .bulk_size = 1 << 30});
    save(store, "A", 1000, rows);
    OK(npk_store_compact(store, NULL, &err));
    char columns[128], path[512];
    (void)snprintf(columns, sizeof columns, "%s/columns", directory);
    DIR *listing = opendir(columns);
    for (struct dirent *entry; (entry = readdir(listing));)
        if (strstr(entry->d_name, ".npy")) {
            (void)snprintf(path, sizeof path, "%s/%s", columns, entry->d_name);
            FILE *file = fopen(path, "r+");
            ck_assert_ptr_nonnull(file);
            (void)fseek(file, 4096 + 100, SEEK_SET);
            (void)fputc('!', file);
            (void)fclose(file);
        }
    (void)closedir(listing);
    npk_txn *txn = NULL;
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_append(txn, "A", 1, rows, &err));
    OK(npk_txn_commit(txn, NPK_SYNC_NEVER, NULL, &err));
    rng r = rng_seeded(1);
    rng_fill(&r, rows, sizeof rows);
    for (int i = 0; i < 12; i++) {
        char name[8];
        (void)snprintf(name, sizeof name, "B%d", i);
        save(store, name, 250000, rows);
    }
    ck_assert_uint_gt(stats_of(store).folds, 1);
    ck_assert_int_eq(npk_store_compact(store, "A", &err), NPK_CORRUPT); /* damage is never folded into a clean file */
    ck_assert_str_eq(err.array, "A");
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_drop_array(txn, "A", &err));
    OK(npk_txn_commit(txn, NPK_SYNC_NEVER, NULL, &err));
    OK(npk_store_compact(store, NULL, &err));
    OK(npk_store_close(store, &err));
}
END_TEST

static npk_store *shared;
static _Atomic int stage;

static void *append_while_reclaim_waits(void *unused)
{
    (void)unused;
    npk_error mine = {0};
    npk_txn *txn = NULL;
    uint32_t row = 7;
    if (npk_txn_begin(shared, UINT32_MAX, &txn, &mine) != NPK_OK)
        return "begin";
    stage = 1;
    pause_ms(200); /* reclaim has looked and waits for the writer lock */
    if (npk_txn_append(txn, "a", 1, &row, &mine) != NPK_OK || npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &mine) != NPK_OK)
        return "append";
    return NULL;
}

START_TEST(test_reclaim_leaves_a_segment_that_is_written_again)
{
    uint32_t rows[10] = {0};
    shared = open_with((npk_options){.busy_timeout_ms = 5000});
    for (int i = 0; i < 3; i++) { /* each round the segment's rows are folded away: it is dead at two checkpoints */
        save(shared, "a", 10, rows);
        OK(npk_store_compact(shared, NULL, &err));
    }
    pthread_t writer;
    stage = 0;
    ck_assert_int_eq(pthread_create(&writer, NULL, append_while_reclaim_waits, NULL), 0);
    while (!stage)
        pause_ms(1);
    OK(npk_store_checkpoint(shared, &err));
    void *failed = NULL;
    ck_assert_int_eq(pthread_join(writer, &failed), 0);
    ck_assert_ptr_null(failed);
    OK(npk_store_verify(shared, NULL, NULL, NULL, &err));
    OK(npk_store_close(shared, &err));
}
END_TEST

/* ---- a cut between reading and publishing ------------------------------------------------------------------------------------ */

static npk_io table;             /* a copy of the inner table with some calls replaced */
static const npk_io *inner;
static memory_io *disk;
static npk_store *hooked;
static int armed, fail_next_sync;

static int failing_sync(const npk_io *io, npk_file *file)
{
    if (fail_next_sync) {
        fail_next_sync = 0;
        (void)memory_io_fail_sync(disk, file, MEMORY_IO_CLEAN_OLD);
        return EIO;
    }
    return inner->sync(io, file);
}

static void replace_row(uint32_t value, npk_sync sync)
{
    npk_txn *txn = NULL;
    while (npk_txn_begin(hooked, UINT32_MAX, &txn, &err) != NPK_OK)
        ck_assert_int_eq(err.status, NPK_POISONED); /* says once what the failed sync took */
    OK(npk_txn_replace_run(txn, "a", 5, 1, &value, &err));
    OK(npk_txn_commit(txn, sync, NULL, &err));
}

static int renaming_cuts(const npk_io *io, npk_file *folder, const char *from, const char *to)
{
    if (armed && strstr(to, ".npy")) { /* the fold has read its rows and is about to publish them */
        armed = 0;
        fail_next_sync = 1;
        ck_assert_int_ne(npk_store_flush(hooked, &err), NPK_OK);
        replace_row(777, NPK_SYNC_COMMIT);
    }
    return inner->rename(io, folder, from, to);
}

START_TEST(test_a_fold_over_a_cut_log_does_not_win_over_later_commits)
{
    char index[] = "/dev/shm/npk-test-XXXXXX", command[64];
    ck_assert_ptr_nonnull(mkdtemp(index));
    memory_io_options memory = {.seed = 1, .real_clock = true, .real_path = index};
    disk = memory_io_create(&memory);
    inner = memory_io_table(disk);
    npk_io *live = (npk_io *)(uintptr_t)inner;
    table = *inner;
    inner = &table;
    live->sync = failing_sync;
    live->rename = renaming_cuts;
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE, .no_background = 1, .io = live};
    OK(npk_store_open("/store", &options, &hooked, &err));
    uint32_t rows[100] = {0}, value = 0;
    save(hooked, "a", 100, rows);
    OK(npk_store_flush(hooked, &err));
    replace_row(555, NPK_SYNC_INTERVAL);
    armed = 1;
    OK(npk_store_compact(hooked, "a", &err));
    ck_assert_int_eq(armed, 0);
    npk_source source = {.store = hooked};
    npk_array *array = NULL;
    OK(npk_array_open(&source, "a", &array, &err));
    OK(npk_array_read(array, 5, 1, &value, &err));
    npk_array_release(array);
    ck_assert_uint_eq(value, 777);
    OK(npk_store_close(hooked, &err));
    memory_io_destroy(disk);
    (void)snprintf(command, sizeof command, "rm -rf %s", index);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

/* ---- random histories with transactions inside folds ---------------------------------------------------------------------------- */

static model now;
static rng random_numbers;
static int inside;

static void one_transaction(void)
{
    model after;
    model_init(&after);
    model_copy(&after, &now);
    npk_txn *txn = NULL;
    if (npk_txn_begin(hooked, 0, &txn, &err) != NPK_OK) { /* the last try of a fold holds the writer lock */
        ck_assert_int_eq(err.status, NPK_BUSY);
        model_release(&after);
        return;
    }
    for (uint64_t steps = 1 + rng_below(&random_numbers, 4); steps; steps--)
        OK(model_step(&after, txn, &random_numbers, false, &err));
    if (rng_chance(&random_numbers, 1, 8)) {
        npk_txn_abort(txn);
    } else {
        OK(npk_txn_commit(txn, NPK_SYNC_NEVER, NULL, &err));
        model_copy(&now, &after);
    }
    model_release(&after);
}

static int renaming_writes(const npk_io *io, npk_file *folder, const char *from, const char *to)
{
    if (inside && strstr(to, ".npy")) {
        inside = 0;
        for (uint64_t i = rng_below(&random_numbers, 3); i; i--)
            one_transaction();
        inside = 1;
    }
    return npk_io_posix()->rename(io, folder, from, to);
}

/* Nothing is killed here: the disk need not be waited for. */
static int no_sync(const npk_io *io, npk_file *file)
{
    (void)io;
    (void)file;
    return 0;
}

struct tally {
    uint64_t key[4096], count[4096]; /* container kind and id folded into one number */
    size_t used;
    uint64_t pending;                /* rows of the array looked at */
};

static npk_status count_places(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size,
                               bool *stop, npk_error *unused)
{
    (void)stop;
    (void)unused;
    struct tally *tally = context;
    npk_run run;
    npk_set set;
    npk_place place;
    if (npk_run_decode(key, key_size, value, value_size, &run)) {
        place = run.place;
        tally->pending += npk_place_is_pending(&place) ? run.count : 0;
    } else {
        ck_assert(npk_set_decode(key, key_size, value, value_size, &set));
        place = set.place;
        tally->pending += npk_place_is_pending(&place) ? set.count : 0;
    }
    uint64_t wanted = place.container * 4 + npk_place_container_kind(&place);
    size_t i = 0;
    while (i < tally->used && tally->key[i] != wanted)
        i++;
    if (i == tally->used) {
        ck_assert_uint_lt(i, 4096);
        tally->key[tally->used++] = wanted;
        tally->count[i] = 0;
    }
    tally->count[i]++;
    return NPK_OK;
}

static npk_status compare_container(void *context, const uint8_t *key, size_t key_size, const uint8_t *value,
                                    size_t value_size, bool *stop, npk_error *unused)
{
    (void)stop;
    (void)unused;
    struct tally *tally = context;
    npk_container container;
    ck_assert(key_size == 9 && npk_container_decode(value, value_size, &container));
    uint64_t wanted = npk_get_be64(key + 1) * 4 + key[0], count = 0;
    for (size_t i = 0; i < tally->used; i++)
        if (tally->key[i] == wanted) {
            count = tally->count[i];
            tally->count[i] = 0;
        }
    ck_assert_msg(container.reference_count == count, "seed %llu: a file has %llu references, not %llu",
                  (unsigned long long)seed, (unsigned long long)count, (unsigned long long)container.reference_count);
    ck_assert_int_eq(container.dead_lsn != 0, count == 0);
    return NPK_OK;
}

static void check_counts(void)
{
    static struct tally tally;
    npk_kv *kv = NULL;
    tally.used = 0;
    OK(npk_view_begin(hooked->core, &kv, &err));
    OK(npk_kv_scan(kv, NPK_TABLE_ROWS, NULL, 0, NULL, 0, count_places, &tally, &err));
    OK(npk_kv_scan(kv, NPK_TABLE_PLACES, NULL, 0, NULL, 0, compare_container, &tally, &err));
    for (size_t i = 0; i < tally.used; i++)
        ck_assert_msg(tally.count[i] == 0, "seed %llu: rows refer to a file that is not known", (unsigned long long)seed);
    for (int i = 0; i < MODEL_ARRAYS; i++) {
        if (!now.arrays[i].name[0])
            continue;
        uint64_t id;
        bool found;
        npk_array_record record;
        uint8_t prefix[8];
        OK(npk_catalog_find_array(kv, now.arrays[i].name, &id, &found, &err));
        OK(npk_catalog_get_array(kv, id, &record, &found, &err));
        tally.pending = 0;
        OK(npk_kv_scan(kv, NPK_TABLE_ROWS, prefix, npk_key_u64(prefix, id), NULL, 0, count_places, &tally, &err));
        ck_assert_msg(tally.pending == record.pending_row_count, "seed %llu: %s: %llu pending rows, not %llu",
                      (unsigned long long)seed, record.name, (unsigned long long)tally.pending,
                      (unsigned long long)record.pending_row_count);
        OK(npk_row_index_check(kv, id, record.row_count, record.row_size, &err));
        npk_array_record_release(&record);
    }
    npk_view_end(hooked->core, kv);
}

START_TEST(test_transactions_inside_folds_are_neither_lost_nor_undone)
{
    seed = getenv("NPK_SEED") ? strtoull(getenv("NPK_SEED"), NULL, 10) : (uint64_t)_i + 1;
    random_numbers = rng_seeded(seed);
    model_init(&now);
    table = *npk_io_posix();
    table.rename = renaming_writes;
    table.sync = no_sync;
    hooked = open_with((npk_options){.io = &table, .segment_size = 64u << 10, .bulk_size = _i % 2 ? 2000 : 1 << 20,
                                     .busy_timeout_ms = 1000});
    for (int step = 0; step < 150; step++) {
        char name[32], text[512] = "";
        (void)snprintf(name, sizeof name, "array %d", (int)rng_below(&random_numbers, MODEL_ARRAYS));
        npk_status status = NPK_OK;
        inside = 1;
        switch (rng_below(&random_numbers, 8)) {
        case 0: status = npk_store_compact(hooked, name, &err); break;
        case 1:
            OK(npk_compactor_acquire(hooked->core, false, &err));
            status = npk_compact_all(hooked->core, NPK_FOLD_CHEAP, &err);
            npk_compactor_release(hooked->core);
            break;
        case 2: status = npk_store_checkpoint(hooked, &err); break;
        default: inside = 0; one_transaction(); break;
        }
        inside = 0;
        ck_assert_msg(status == NPK_OK || status == NPK_NOT_FOUND, "seed %llu: %s", (unsigned long long)seed, err.message);
        npk_source source = {.store = hooked};
        ck_assert_msg(model_matches(&now, &source, text, sizeof text), "seed %llu: step %d: %s", (unsigned long long)seed, step,
                      text);
        check_counts();
    }
    OK(npk_store_verify(hooked, NULL, NULL, NULL, &err));
    OK(npk_store_close(hooked, &err));
    model_release(&now);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("compaction");
    TCase *tcase = tcase_create("compaction");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, test_a_half_dropped_run_does_not_keep_its_segment);
    tcase_add_test(tcase, test_one_damaged_array_does_not_stop_the_others);
    tcase_add_test(tcase, test_reclaim_leaves_a_segment_that_is_written_again);
    tcase_add_test(tcase, test_a_fold_over_a_cut_log_does_not_win_over_later_commits);
    tcase_add_loop_test(tcase, test_transactions_inside_folds_are_neither_lost_nor_undone, 0, 20);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
