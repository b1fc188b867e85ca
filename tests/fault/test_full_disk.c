/* test_full_disk.c - a disk that fills up: the error is NO_SPACE, nothing is half done, and drop + checkpoint + reclaim make room again with
 * the help of the reserve; a file size limit of the process gives an error, not a signal. */
#define _GNU_SOURCE
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check_main.h"
#include "memory_io.h"
#include "npk.h"
#include "rng.h"

static char directory[64];
static npk_error err;

#define OK(call) ck_assert_msg((call) == NPK_OK, "%s: %s", #call, err.message)

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

enum { ROW = 512, CHUNK = 40 };
static const uint64_t width = ROW;
static const npk_array_spec spec = {"|u1", ROW, 1, &width, 0};
static uint8_t rows[CHUNK * ROW * 8], part[CHUNK * ROW];

static npk_store *open_on(const npk_io *io, const char *path, uint64_t bulk_size)
{
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE, .no_background = 1, .io = io,
                           .segment_size = 64 << 10, .checkpoint_log_size = 256 << 10, .pending_limit = 256 << 10,
                           .bulk_size = bulk_size};
    npk_store *store = NULL;
    OK(npk_store_open(path, &options, &store, &err));
    return store;
}

static npk_status append_rows(npk_store *store, const char *name, const uint8_t *data, uint64_t count, npk_sync level)
{
    npk_txn *txn = NULL;
    npk_status status = npk_txn_begin(store, UINT32_MAX, &txn, &err);
    if (status != NPK_OK)
        return status;
    status = npk_txn_append(txn, name, count, data, &err);
    if (status == NPK_NOT_FOUND)
        status = npk_txn_save(txn, name, &spec, count, data, &err);
    if (status != NPK_OK) {
        npk_txn_abort(txn);
        return status;
    }
    return npk_txn_commit(txn, level, NULL, &err);
}

static npk_status append(npk_store *store, const char *name, uint64_t count, npk_sync level)
{
    return append_rows(store, name, rows, count, level);
}

static npk_status drop(npk_store *store, const char *name)
{
    npk_txn *txn = NULL;
    npk_status status = npk_txn_begin(store, UINT32_MAX, &txn, &err);
    if (status != NPK_OK)
        return status;
    status = npk_txn_drop_array(txn, name, &err);
    if (status != NPK_OK) {
        npk_txn_abort(txn);
        return status;
    }
    return npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err);
}

static uint64_t count_rows(npk_store *store, const char *name)
{
    npk_source source = {.store = store};
    npk_array *array = NULL;
    OK(npk_array_open(&source, name, &array, &err));
    uint64_t count = npk_array_describe(array)->row_count;
    uint8_t *bytes = malloc(count * ROW + 1);
    OK(npk_array_read(array, 0, count, bytes, &err));
    for (uint64_t i = 0; i < count; i++)
        ck_assert_mem_eq(bytes + i * ROW, rows + i % CHUNK * ROW, ROW);
    free(bytes);
    npk_array_release(array);
    return count;
}

static void note_finding(void *context, const npk_finding *finding)
{
    (void)context;
    ck_abort_msg("verify: %s: %s", finding->file, finding->reason);
}

static const char *describe(npk_store *store)
{
    static char text[300];
    npk_stats s = {.struct_size = sizeof s};
    npk_error ignored;
    if (npk_store_stats(store, &s, &ignored) != NPK_OK)
        return "no stats";
    (void)snprintf(text, sizeof text, "%llu segments, %llu column files of %llu bytes, %llu dead, %llu pending, %llu checkpoints, "
                   "%llu reclaims", (unsigned long long)s.log_segment_count, (unsigned long long)s.column_file_count,
                   (unsigned long long)s.column_file_size, (unsigned long long)s.dead_file_count,
                   (unsigned long long)s.pending_size, (unsigned long long)s.checkpoints, (unsigned long long)s.reclaims);
    return text;
}

/* _i: size of the disk and of a change, so that it fills up in the log, in column files, in checkpoints. */
START_TEST(test_a_full_disk_refuses_and_dropping_makes_room)
{
    if (getenv("NPK_FAULT_ONLY") && atoi(getenv("NPK_FAULT_ONLY")) != _i)
        return;
    rng r = rng_seeded(5);
    rng_fill(&r, rows, sizeof rows);
    memory_io_options options = {.seed = 9, .real_path = directory, .capacity = (uint64_t)(1200 + 37 * _i) << 10};
    memory_io *memory = memory_io_create(&options);
    memory_io_set_clock(memory, 1700000000000000u, 1);
    npk_store *store = open_on(memory_io_table(memory), "store", _i % 2 ? 16 << 10 : 64 << 10);
    npk_sync level = (npk_sync)(_i % 3);
    uint64_t big = 0, keep = 0;
    OK(append(store, "keep", CHUNK, NPK_SYNC_COMMIT));
    keep += CHUNK;
    npk_status status;
    while ((status = append(store, "big", CHUNK, level)) == NPK_OK) {
        big += CHUNK;
        ck_assert_uint_lt(big, 100000);
    }
    ck_assert_msg(status == NPK_NO_SPACE, "disk %d: %s: %s", _i, npk_status_kind(status), err.message);
    ck_assert_int_ne(err.sys_errno, 0);
    /* Refused again and again, and nothing of it stays; small ones may get in where large ones do not, but must leave the reserve. */
    for (int i = 0; i < 400; i++) {
        uint64_t count = i % 4 == 0 ? CHUNK : 1, there = big % CHUNK;
        if (there + count > CHUNK)
            count = CHUNK - there;
        memmove(part, rows + there * ROW, count * ROW);
        status = append_rows(store, "big", part, count, level);
        if (status == NPK_OK)
            big += count;
        else
            ck_assert_msg(status == NPK_NO_SPACE, "disk %d: %s: %s", _i, npk_status_kind(status), err.message);
    }
    ck_assert_uint_eq(count_rows(store, "keep"), keep);
    ck_assert_uint_eq(count_rows(store, "big"), big);
    if (_i % 4 == 3) { /* what is full can be closed and opened */
        (void)npk_store_close(store, &err);
        store = open_on(memory_io_table(memory), "store", 64 << 10);
        ck_assert_uint_eq(count_rows(store, "keep"), keep);
        ck_assert_uint_eq(count_rows(store, "big"), big);
    }
    ck_assert_msg(drop(store, "big") == NPK_OK, "disk %d: drop: %s", _i, err.message);
    for (int i = 0; i < 3; i++) { /* two checkpoints must lie behind the drop */
        ck_assert_msg(npk_store_checkpoint(store, &err) == NPK_OK, "disk %d: checkpoint: %s; %s", _i, err.message,
                      describe(store));
        status = append(store, "keep", 1, NPK_SYNC_COMMIT);
        ck_assert_msg(status == NPK_OK, "disk %d: append: %s", _i, err.message);
        (void)keep;
    }
    for (uint64_t i = 0; i < 8; i++)
        ck_assert_msg(append(store, "new", CHUNK, NPK_SYNC_COMMIT) == NPK_OK, "disk %d: append: %s; %s", _i,
                      err.message, describe(store));
    ck_assert_uint_eq(count_rows(store, "new"), 8 * CHUNK);
    OK(npk_store_verify(store, note_finding, NULL, NULL, &err));
    OK(npk_store_close(store, &err));
    ck_assert_uint_eq(memory_io_open_count(memory), 0);
    store = open_on(memory_io_table(memory), "store", 64 << 10);
    ck_assert_uint_eq(count_rows(store, "new"), 8 * CHUNK);
    OK(npk_store_close(store, &err));
    memory_io_destroy(memory);
}
END_TEST

/* A write above RLIMIT_FSIZE raises SIGXFSZ, which kills unless somebody prevents it. */
START_TEST(test_a_file_size_limit_is_an_error_and_no_signal)
{
    rng r = rng_seeded(5);
    rng_fill(&r, rows, sizeof rows);
    npk_store *store = open_on(NULL, directory, 16 << 10);
    OK(append(store, "a", CHUNK, NPK_SYNC_COMMIT));
    struct rlimit old, limit;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = old;
    limit.rlim_cur = (rlim_t)1 << (12 + _i); /* 4 KiB .. 256 KiB */
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    uint64_t count = CHUNK;
    int refused = 0;
    for (int i = 0; i < 10; i++) {
        npk_status status = append(store, "a", i % 2 ? CHUNK * 8 : 1, (npk_sync)(i % 3));
        if (status == NPK_OK)
            count += i % 2 ? CHUNK * 8 : 1;
        else
            refused++;
        ck_assert_msg(status == NPK_OK || status == NPK_NO_SPACE || status == NPK_IO || status == NPK_POISONED, "%s: %s",
                      npk_status_kind(status), err.message);
    }
    (void)npk_store_checkpoint(store, &err);
    (void)npk_store_compact(store, NULL, &err);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
    npk_source source = {.store = store};
    npk_array *array = NULL;
    OK(append(store, "b", 1, NPK_SYNC_COMMIT)); /* repairs what needs repair */
    OK(npk_array_open(&source, "a", &array, &err));
    ck_assert_uint_eq(npk_array_describe(array)->row_count, count);
    npk_array_release(array);
    OK(npk_store_verify(store, note_finding, NULL, NULL, &err));
    OK(npk_store_close(store, &err));
    if (_i < 4)
        ck_assert_int_gt(refused, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("full disk");
    TCase *tcase = tcase_create("space");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, test_a_full_disk_refuses_and_dropping_makes_room, 0, 40);
    tcase_add_loop_test(tcase, test_a_file_size_limit_is_an_error_and_no_signal, 0, 7);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
