/* test_named.c - scenarios that broke earlier drafts of the design, each a test with that name. README.md says where the others are. */
#define _GNU_SOURCE
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check_main.h"
#include "core.h"
#include "fault_io.h"
#include "npk.h"
#include "rng.h"

static char directory[64], path[96], copy[96];
static npk_error err;

#define OK(call) ck_assert_msg((call) == NPK_OK, "%s: %s", #call, err.message)

static void setup(void)
{
    (void)snprintf(directory, sizeof directory, "/tmp/npk-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    (void)snprintf(path, sizeof path, "%s/store", directory);
    (void)snprintf(copy, sizeof copy, "%s/copy", directory);
}

static void shell(const char *program, const char *a, const char *b)
{
    char command[400];
    (void)snprintf(command, sizeof command, "%s %s %s", program, a, b);
    ck_assert_int_eq(system(command), 0);
}

static void teardown(void)
{
    shell("rm -rf", directory, "");
}

static npk_status try_open(const char *where, const npk_io *io, npk_store **store)
{
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE, .no_background = 1, .io = io,
                           .segment_size = 64 << 10, .checkpoint_log_size = 128 << 10, .pending_limit = 256 << 10,
                           .bulk_size = 32 << 10, .busy_timeout_ms = 5000};
    return npk_store_open(where, &options, store, &err);
}

static npk_store *open_at(const char *where)
{
    npk_store *store = NULL;
    OK(try_open(where, NULL, &store));
    return store;
}

static const npk_array_spec spec = {"<i8", 8, 0, NULL, 0};

static npk_txn *begin(npk_store *store)
{
    npk_txn *txn = NULL;
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    return txn;
}

static void commit(npk_txn *txn)
{
    OK(npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err));
}

/* A list of numbers beside the store. */
typedef struct list {
    int64_t rows[20000];
    uint64_t count;
} list;

static list *new_list(void)
{
    list *l = calloc(1, sizeof *l);
    ck_assert_ptr_nonnull(l);
    return l;
}

static int64_t next_value = 1;

static void grow(list *l, uint64_t count)
{
    ck_assert_uint_le(l->count + count, 20000);
    for (uint64_t i = 0; i < count; i++)
        l->rows[l->count++] = next_value++;
}

static void put(npk_txn *txn, const char *name, list *l, uint64_t count)
{
    uint64_t old = l->count;
    grow(l, count);
    if (old)
        OK(npk_txn_append(txn, name, count, l->rows + old, &err));
    else
        OK(npk_txn_save(txn, name, &spec, count, l->rows, &err));
}

static void drop_run(npk_txn *txn, const char *name, list *l, uint64_t first, uint64_t count)
{
    int64_t *which = malloc(count * sizeof *which);
    for (uint64_t i = 0; i < count; i++)
        which[i] = (int64_t)(first + i);
    OK(npk_txn_drop_rows(txn, name, count, which, &err));
    free(which);
    memmove(l->rows + first, l->rows + first + count, (l->count - first - count) * 8);
    l->count -= count;
}

static void replace_run(npk_txn *txn, const char *name, list *l, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        l->rows[first + i] = next_value++;
    OK(npk_txn_replace_run(txn, name, first, count, l->rows + first, &err));
}

static void expect_in(const npk_source *source, const char *name, const list *l, const char *when)
{
    npk_array *array = NULL;
    OK(npk_array_open(source, name, &array, &err));
    ck_assert_msg(npk_array_describe(array)->row_count == l->count, "%s: %llu rows instead of %llu", when,
                  (unsigned long long)npk_array_describe(array)->row_count, (unsigned long long)l->count);
    int64_t *rows = malloc(l->count * 8 + 8);
    OK(npk_array_read(array, 0, l->count, rows, &err));
    for (uint64_t i = 0; i < l->count; i++)
        ck_assert_msg(rows[i] == l->rows[i], "%s: row %llu is %lld instead of %lld", when, (unsigned long long)i,
                      (long long)rows[i], (long long)l->rows[i]);
    free(rows);
    npk_array_release(array);
}

static void expect(npk_store *store, const char *name, const list *l, const char *when)
{
    npk_source source = {.store = store};
    expect_in(&source, name, l, when);
}

static void note_finding(void *context, const npk_finding *finding)
{
    (void)context;
    ck_abort_msg("verify: %s: %s", finding->file, finding->reason);
}

static void verify(npk_store *store)
{
    OK(npk_store_verify(store, note_finding, NULL, NULL, &err));
}

/* What a process that died now would leave. */
static npk_store *open_copy(void)
{
    shell("rm -rf", copy, "");
    shell("cp -r", path, copy);
    return open_at(copy);
}

/* The newest log segment. */
static void last_segment(const char *store, char name[300])
{
    char wal[128], best[200] = "";
    (void)snprintf(wal, sizeof wal, "%s/wal", store);
    DIR *dir = opendir(wal);
    ck_assert_ptr_nonnull(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strlen(entry->d_name) == 20 && strcmp(entry->d_name, best) > 0)
            (void)snprintf(best, sizeof best, "%.100s", entry->d_name);
    (void)closedir(dir);
    (void)snprintf(name, 300, "%s/%.40s", wal, best);
}

/* ---- tests -------------------------------------------------------------------------------------------------------------- */

START_TEST(test_copied_store_with_a_half_written_index)
{
    list *l = new_list();
    npk_store *store = open_at(path);
    for (int i = 0; i < 20; i++) {
        npk_txn *txn = begin(store);
        put(txn, "a", l, 50);
        commit(txn);
    }
    shell("cp -r", path, copy);
    OK(npk_store_close(store, &err));
    char command[300]; /* every second page of the copied index is garbage */
    (void)snprintf(command, sizeof command,
                   "for f in $(find %s/index -type f); do for i in 0 2 4 6; do dd if=/dev/urandom of=$f bs=4096 count=1 seek=$i "
                   "conv=notrunc status=none; done; done",
                   copy);
    ck_assert_int_eq(system(command), 0);
    store = open_at(copy);
    expect(store, "a", l, "in the copy");
    verify(store);
    OK(npk_store_close(store, &err));
    free(l);
}
END_TEST

START_TEST(test_open_transactions_column_file_seen_as_an_orphan_by_another_process)
{
    int ready[2], go[2];
    ck_assert_int_eq(pipe(ready) | pipe(go), 0);
    list *l = new_list();
    grow(l, 8000);
    pid_t child = fork();
    if (child == 0) {
        char byte = 0;
        npk_store *store = NULL;
        npk_txn *txn = NULL;
        bool good = try_open(path, NULL, &store) == NPK_OK && npk_txn_begin(store, 1000, &txn, &err) == NPK_OK &&
                    npk_txn_save(txn, "a", &spec, l->count, l->rows, &err) == NPK_OK; /* 64 KB: a column file */
        good = good && write(ready[1], &byte, 1) == 1 && read(go[0], &byte, 1) == 1;
        good = good && npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err) == NPK_OK && npk_store_close(store, &err) == NPK_OK;
        _exit(good ? 0 : 1);
    }
    char byte;
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_UPDATE, .no_background = 1, .busy_timeout_ms = 100};
    npk_store *store = NULL;
    OK(npk_store_open(path, &options, &store, &err));
    ck_assert_int_eq(npk_store_compact(store, NULL, &err), NPK_BUSY);
    ck_assert_int_eq(write(go[1], &byte, 1), 1);
    int how;
    ck_assert_int_eq(waitpid(child, &how, 0), child);
    ck_assert_int_eq(how, 0);
    OK(npk_store_compact(store, NULL, &err));
    expect(store, "a", l, "after the other process committed");
    verify(store);
    OK(npk_store_close(store, &err));
    free(l);
}
END_TEST

/* _i: 0: the rebuild works, so the commit succeeds; 1: it fails, so the commit is in doubt until the next writer; 2: the same, and the
 * process dies. */
START_TEST(test_publishing_fails_after_the_sync)
{
    list *l = new_list();
    fault_io *fault = fault_io_create(npk_io_posix());
    npk_store *store = NULL;
    OK(try_open(path, fault_io_table(fault), &store));
    npk_txn *txn = begin(store);
    put(txn, "a", l, 10);
    commit(txn);
    npk_index_fail_next_publish(store->core->index);
    fault_plan plan = {.kinds = IO_CALL_BIT(RANDOM), .forever = true, .sys_errno = EIO};
    txn = begin(store);
    put(txn, "a", l, 5);
    if (_i)
        fault_io_plan(fault, &plan);
    npk_status status = npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err);
    fault_io_plan(fault, NULL);
    ck_assert_msg(status == (_i ? NPK_POISONED : NPK_OK), "%s: %s", npk_status_kind(status), err.message);
    if (_i == 2) {
        npk_store *other = open_copy();
        expect(other, "a", l, "after the process died");
        OK(npk_store_close(other, &err));
    }
    txn = begin(store);
    put(txn, "a", l, 1);
    commit(txn);
    expect(store, "a", l, "after the next writer");
    verify(store);
    OK(npk_store_close(store, &err));
    store = open_at(path);
    expect(store, "a", l, "after reopening");
    OK(npk_store_close(store, &err));
    fault_io_destroy(fault);
    free(l);
}
END_TEST

static void act(npk_store *store, int what, list *a, list *b, bool *cloned)
{
    npk_txn *txn = what == 3 ? NULL : begin(store);
    switch (what) {
    case 0:
        OK(npk_txn_clone(txn, "a", "b", &err));
        *b = *a;
        *cloned = true;
        break;
    case 1: drop_run(txn, "a", a, a->count - 5, 5); break;
    case 2: put(txn, "a", a, 7); break;
    default: OK(npk_store_compact(store, NULL, &err)); break;
    }
    if (txn)
        commit(txn);
}

/* _i: one of the 24 orders; done twice over, so that each meets each. */
START_TEST(test_clone_drop_of_the_last_rows_append_and_fold_in_every_order)
{
    int order[4] = {0, 1, 2, 3};
    for (int i = 0, rest = _i; i < 3; i++) {
        int pick = i + rest % (4 - i), kept = order[pick];
        rest /= 4 - i;
        memmove(order + i + 1, order + i, (size_t)(pick - i) * sizeof *order);
        order[i] = kept;
    }
    list *a = new_list(), *b = new_list();
    bool cloned = false;
    npk_store *store = open_at(path);
    npk_txn *txn = begin(store);
    put(txn, "a", a, 100);
    commit(txn);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 4; i++) {
            act(store, order[i], a, b, &cloned);
            expect(store, "a", a, "a");
            if (cloned)
                expect(store, "b", b, "the clone");
        }
        npk_store *other = open_copy();
        expect(other, "a", a, "a, replayed");
        expect(other, "b", b, "the clone, replayed");
        verify(other);
        OK(npk_store_close(other, &err));
        txn = begin(store);
        OK(npk_txn_drop_array(txn, "b", &err));
        commit(txn);
        cloned = false;
    }
    OK(npk_store_close(store, &err));
    free(a);
    free(b);
}
END_TEST

static _Atomic bool stop;
static _Atomic uint64_t fold_count;

static void *fold_for_ever(void *context)
{
    npk_store *store = context;
    npk_error mine;
    while (!atomic_load(&stop)) {
        npk_status status = npk_store_compact(store, atomic_load(&fold_count) % 3 ? "a" : NULL, &mine);
        ck_assert_msg(status == NPK_OK, "compact: %s", mine.message);
        atomic_fetch_add(&fold_count, 1);
    }
    return NULL;
}

/* Replaces and appends come in between too: a renumbering is published only over what it read. */
START_TEST(test_fold_racing_with_a_drop_of_row_0_and_replaces)
{
    rng r = rng_seeded(4);
    list *l = new_list();
    npk_store *store = open_at(path);
    npk_txn *txn = begin(store);
    put(txn, "a", l, 3000);
    commit(txn);
    pthread_t thread;
    atomic_store(&stop, false);
    ck_assert_int_eq(pthread_create(&thread, NULL, fold_for_ever, store), 0);
    for (int i = 0; i < 400 || (atomic_load(&fold_count) < 20 && i < 4000); i++) {
        txn = begin(store);
        drop_run(txn, "a", l, 0, 1);
        replace_run(txn, "a", l, rng_below(&r, l->count - 10), 10);
        put(txn, "a", l, 1);
        OK(npk_txn_commit(txn, NPK_SYNC_NEVER, NULL, &err));
        if (i % 8 == 0)
            expect(store, "a", l, "while folding");
    }
    atomic_store(&stop, true);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    npk_store *other = open_copy();
    expect(other, "a", l, "replayed");
    verify(other);
    OK(npk_store_close(other, &err));
    expect(store, "a", l, "at the end");
    verify(store);
    OK(npk_store_close(store, &err));
    free(l);
}
END_TEST

START_TEST(test_spilled_inner_block_rolled_back_outer_committed_and_replayed)
{
    list *l = new_list(), *undone = new_list();
    npk_store *store = open_at(path);
    npk_txn *txn = begin(store);
    uint64_t point, inner;
    for (int i = 0; i < 5; i++) /* 20 KB each: below the bulk size, a segment holds three */
        put(txn, "a", l, 2500);
    OK(npk_txn_savepoint(txn, &point, &err));
    *undone = *l;
    drop_run(txn, "a", undone, 0, 5000);
    put(txn, "a", undone, 2500);
    OK(npk_txn_savepoint(txn, &inner, &err));
    put(txn, "a", undone, 2500);
    OK(npk_txn_rollback_to(txn, inner, &err));
    put(txn, "a", undone, 2400);
    OK(npk_txn_rollback_to(txn, point, &err));
    put(txn, "a", l, 2000);
    npk_source own = {.txn = txn};
    expect_in(&own, "a", l, "in the transaction");
    commit(txn);
    expect(store, "a", l, "after the commit");
    npk_store *other = open_copy();
    expect(other, "a", l, "replayed");
    verify(other);
    OK(npk_store_close(other, &err));
    OK(npk_store_close(store, &err));
    free(l);
    free(undone);
}
END_TEST

START_TEST(test_snapshot_reads_its_second_array_after_compaction_and_reclaim)
{
    list *a = new_list(), *b = new_list(), *now = new_list();
    npk_store *store = open_at(path);
    npk_txn *txn = begin(store);
    put(txn, "a", a, 1000);
    put(txn, "b", b, 1000);
    commit(txn);
    npk_snapshot *snapshot = NULL;
    OK(npk_snapshot_take(store, &snapshot, &err));
    npk_source source = {.snapshot = snapshot};
    expect_in(&source, "a", a, "before");
    *now = *b;
    for (int i = 0; i < 5; i++) {
        txn = begin(store);
        replace_run(txn, "b", now, 100, 800);
        commit(txn);
        OK(npk_store_compact(store, NULL, &err));
        OK(npk_store_checkpoint(store, &err));
    }
    txn = begin(store);
    OK(npk_txn_reset(txn, &err));
    commit(txn);
    for (int i = 0; i < 3; i++)
        OK(npk_store_compact(store, NULL, &err));
    expect_in(&source, "b", b, "afterwards");
    npk_snapshot_release(snapshot);
    OK(npk_store_close(store, &err));
    free(a);
    free(b);
    free(now);
}
END_TEST

/* _i: 0: the last segment is gone; else a bit of its last bytes is flipped. Never fewer or other rows without an error. */
START_TEST(test_bit_rot_in_the_very_last_commit_and_loss_of_the_last_segment)
{
    list *l = new_list();
    npk_store *store = open_at(path);
    for (int i = 0; i < 10; i++) {
        npk_txn *txn = begin(store);
        put(txn, "a", l, 20);
        commit(txn);
    }
    OK(npk_store_close(store, &err));
    char name[300];
    last_segment(path, name);
    if (_i == 0) {
        ck_assert_int_eq(unlink(name), 0);
    } else {
        FILE *file = fopen(name, "r+b");
        static uint8_t bytes[64 << 10];
        ck_assert_uint_eq(fread(bytes, 1, sizeof bytes, file), sizeof bytes);
        long end = (60 << 10) - 1;
        while (end > 4096 && !bytes[end])
            end--;
        long at = end - 12 * (_i - 1);
        ck_assert_int_gt(at, 4096);
        uint8_t flipped = bytes[at] ^ (uint8_t)(1 << _i % 8);
        ck_assert_int_eq(fseek(file, at, SEEK_SET), 0);
        ck_assert_uint_eq(fwrite(&flipped, 1, 1, file), 1);
        ck_assert_int_eq(fclose(file), 0);
    }
    npk_status status = try_open(path, NULL, &store);
    if (status == NPK_OK) {
        npk_source source = {.store = store};
        npk_array *array = NULL;
        status = npk_array_open(&source, "a", &array, &err);
        if (status == NPK_OK) {
            ck_assert_uint_eq(npk_array_describe(array)->row_count, l->count);
            static int64_t rows[200];
            status = npk_array_read(array, 0, l->count, rows, &err);
            /* A plain read does not compare checksums: what it gives is checked by verify, which must find it. */
            if (status == NPK_OK && memcmp(rows, l->rows, l->count * 8) != 0)
                ck_assert_int_eq(npk_store_verify(store, NULL, NULL, NULL, &err), NPK_CORRUPT);
            npk_array_release(array);
        }
        ck_assert_msg(status == NPK_OK || status == NPK_CORRUPT, "%s", err.message);
        (void)npk_store_close(store, &err);
    } else {
        ck_assert_msg(status == NPK_CORRUPT, "%s", err.message);
    }
    free(l);
}
END_TEST

START_TEST(test_a_holder_of_open_dies_while_it_rebuilds)
{
    list *l = new_list();
    npk_store *store = open_at(path);
    for (int i = 0; i < 100; i++) {
        npk_txn *txn = begin(store);
        put(txn, "a", l, 100);
        OK(npk_txn_commit(txn, NPK_SYNC_NEVER, NULL, &err));
    }
    shell("cp -r", path, copy); /* needs recovery */
    OK(npk_store_close(store, &err));
    rng r = rng_seeded(8);
    for (int i = 0; i < 30; i++) {
        pid_t child = fork();
        if (child == 0) {
            npk_store *mine = NULL;
            (void)try_open(copy, NULL, &mine);
            (void)pause();
        }
        struct timespec time = {0, (long)rng_below(&r, 6000000)};
        (void)nanosleep(&time, NULL);
        ck_assert_int_eq(kill(child, SIGKILL), 0);
        ck_assert_int_eq(waitpid(child, NULL, 0), child);
    }
    store = open_at(copy);
    expect(store, "a", l, "after thirty deaths");
    verify(store);
    OK(npk_store_close(store, &err));
    free(l);
}
END_TEST

START_TEST(test_an_old_overlay_entry_against_a_newer_direct_column_file)
{
    list *l = new_list();
    npk_store *store = open_at(path);
    npk_txn *txn = begin(store);
    put(txn, "a", l, 8000);
    commit(txn);
    txn = begin(store);
    for (uint64_t i = 0; i < 50; i++)
        replace_run(txn, "a", l, i * 150, 1); /* scattered, in the log */
    commit(txn);
    txn = begin(store);
    replace_run(txn, "a", l, 1000, 6000); /* 48 KB: a column file */
    commit(txn);
    txn = begin(store);
    replace_run(txn, "a", l, 3000, 3);
    commit(txn);
    expect(store, "a", l, "before the fold");
    npk_store *other = open_copy();
    expect(other, "a", l, "replayed");
    OK(npk_store_close(other, &err));
    OK(npk_store_compact(store, "a", &err));
    expect(store, "a", l, "after the fold");
    verify(store);
    OK(npk_store_close(store, &err));
    free(l);
}
END_TEST

START_TEST(test_thousands_of_short_lived_writers_with_no_background_time)
{
    list *l = new_list();
    for (int i = 0; i < 1000; i++) {
        npk_store *store = open_at(path);
        npk_txn *txn = begin(store);
        put(txn, "a", l, 10);
        commit(txn);
        OK(npk_store_close(store, &err));
    }
    npk_store *store = open_at(path);
    expect(store, "a", l, "at the end");
    npk_stats stats = {.struct_size = sizeof stats};
    OK(npk_store_stats(store, &stats, &err));
    ck_assert_uint_le(stats.log_segment_count, 16); /* the limits hold without a thread */
    OK(npk_store_close(store, &err));
    free(l);
}
END_TEST

START_TEST(test_a_thousand_drops_of_row_0_before_a_crash)
{
    list *l = new_list();
    npk_store *store = open_at(path);
    npk_txn *txn = begin(store);
    put(txn, "a", l, 5000);
    commit(txn);
    for (int i = 0; i < 1000; i++) {
        txn = begin(store);
        drop_run(txn, "a", l, 0, 1);
        OK(npk_txn_commit(txn, NPK_SYNC_NEVER, NULL, &err));
    }
    npk_store *other = open_copy();
    expect(other, "a", l, "replayed");
    verify(other);
    OK(npk_store_close(other, &err));
    OK(npk_store_close(store, &err));
    free(l);
}
END_TEST

static void read_file(const char *name)
{
    FILE *file = fopen(name, "rb");
    static char bytes[1 << 16];
    while (file && fread(bytes, 1, sizeof bytes, file) == sizeof bytes)
        ;
    if (file)
        (void)fclose(file); /* gives every POSIX lock of this process on the file up */
}

static void read_tree(const char *where)
{
    DIR *dir = opendir(where);
    if (!dir) {
        read_file(where);
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir));) {
        char name[600];
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(name, sizeof name, "%.300s/%.250s", where, entry->d_name);
        read_tree(name);
    }
    (void)closedir(dir);
}

START_TEST(test_copytree_of_a_live_store_in_process_loses_no_lock)
{
    list *l = new_list();
    npk_store *store = open_at(path);
    npk_txn *txn = begin(store);
    put(txn, "a", l, 100);
    commit(txn);
    npk_snapshot *snapshot = NULL;
    OK(npk_snapshot_take(store, &snapshot, &err));
    txn = begin(store);
    read_tree(path);
    pid_t child = fork();
    if (child == 0) {
        npk_store *mine = NULL;
        npk_txn *other = NULL;
        npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_UPDATE, .no_background = 1};
        bool good = npk_store_open(path, &options, &mine, &err) == NPK_OK && npk_txn_begin(mine, 20, &other, &err) == NPK_BUSY;
        _exit(good ? 0 : 1);
    }
    int how;
    ck_assert_int_eq(waitpid(child, &how, 0), child);
    ck_assert_int_eq(how, 0); /* it joined the live index and found the writer lock held */
    list *more = new_list();
    *more = *l;
    put(txn, "a", more, 10);
    commit(txn);
    npk_source source = {.snapshot = snapshot};
    expect_in(&source, "a", l, "in the snapshot");
    expect(store, "a", more, "now");
    npk_snapshot_release(snapshot);
    OK(npk_store_close(store, &err));
    free(l);
    free(more);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("named scenarios");
    TCase *tcase = tcase_create("named");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, test_copied_store_with_a_half_written_index);
    tcase_add_test(tcase, test_open_transactions_column_file_seen_as_an_orphan_by_another_process);
    tcase_add_loop_test(tcase, test_publishing_fails_after_the_sync, 0, 3);
    tcase_add_loop_test(tcase, test_clone_drop_of_the_last_rows_append_and_fold_in_every_order, 0, 24);
    tcase_add_test(tcase, test_fold_racing_with_a_drop_of_row_0_and_replaces);
    tcase_add_test(tcase, test_spilled_inner_block_rolled_back_outer_committed_and_replayed);
    tcase_add_test(tcase, test_snapshot_reads_its_second_array_after_compaction_and_reclaim);
    tcase_add_loop_test(tcase, test_bit_rot_in_the_very_last_commit_and_loss_of_the_last_segment, 0, 40);
    tcase_add_test(tcase, test_a_holder_of_open_dies_while_it_rebuilds);
    tcase_add_test(tcase, test_an_old_overlay_entry_against_a_newer_direct_column_file);
    tcase_add_test(tcase, test_thousands_of_short_lived_writers_with_no_background_time);
    tcase_add_test(tcase, test_a_thousand_drops_of_row_0_before_a_crash);
    tcase_add_test(tcase, test_copytree_of_a_live_store_in_process_loses_no_lock);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
