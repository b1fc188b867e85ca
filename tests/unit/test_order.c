/* test_order.c - log, sync, publish: seen from inside the sync itself. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_main.h"
#include "io.h"
#include "npk.h"

static npk_error err;
static char directory[64];
static npk_io table;
static npk_store *store;
static int watching, syncs, visible_in_sync, written_before_sync;
static uint64_t row_count_seen;

#define OK(call) ck_assert_msg((call) == NPK_OK, "%s: %s", #call, err.message)

static uint64_t rows_now(void)
{
    npk_source source = {.store = store};
    npk_array *array = NULL;
    npk_error mine;
    if (npk_array_open(&source, "a", &array, &mine) != NPK_OK)
        return 0;
    uint64_t count = npk_array_describe(array)->row_count;
    npk_array_release(array);
    return count;
}

static int watching_sync(const npk_io *io, npk_file *file)
{
    if (watching) {
        watching = 0; /* looking may sync nothing */
        syncs++;
        row_count_seen = rows_now();
        visible_in_sync += row_count_seen != 0;
        watching = 1;
    }
    return npk_io_posix()->sync(io, file);
}

static int watching_write(const npk_io *io, npk_file *file, uint64_t offset, const void *bytes, size_t size, size_t *done)
{
    if (watching && syncs == 0)
        written_before_sync++;
    return npk_io_posix()->write(io, file, offset, bytes, size, done);
}

static void setup(void)
{
    (void)snprintf(directory, sizeof directory, "/tmp/npk-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    table = *npk_io_posix();
    table.sync = watching_sync;
    table.write = watching_write;
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE, .no_background = 1, .io = &table};
    OK(npk_store_open(directory, &options, &store, &err));
    syncs = visible_in_sync = written_before_sync = 0;
}

static void teardown(void)
{
    char command[128];
    OK(npk_store_close(store, &err));
    (void)snprintf(command, sizeof command, "rm -rf %s", directory);
    ck_assert_int_eq(system(command), 0);
}

static void commit_one(npk_sync sync)
{
    static const npk_array_spec spec = {"<u4", 4, 0, NULL, 0};
    uint32_t row = 1;
    npk_txn *txn = NULL;
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_save(txn, "a", &spec, 1, &row, &err));
    watching = 1;
    OK(npk_txn_commit(txn, sync, NULL, &err));
    watching = 0;
}

START_TEST(test_a_commit_is_written_then_synced_once_then_visible)
{
    commit_one(NPK_SYNC_COMMIT);
    ck_assert_int_eq(written_before_sync, 1);
    ck_assert_int_eq(syncs, 1);
    ck_assert_int_eq(visible_in_sync, 0);
    ck_assert_uint_eq(rows_now(), 1);
    npk_stats stats = {.struct_size = sizeof stats};
    OK(npk_store_stats(store, &stats, &err));
    ck_assert_uint_eq(stats.durable_lsn, stats.position.lsn);
}
END_TEST

START_TEST(test_lower_levels_write_without_a_sync_and_flush_makes_up_for_it)
{
    commit_one(NPK_SYNC_NEVER);
    ck_assert_int_eq(syncs, 0);
    ck_assert_int_gt(written_before_sync, 0);
    ck_assert_uint_eq(rows_now(), 1);
    npk_stats stats = {.struct_size = sizeof stats};
    OK(npk_store_stats(store, &stats, &err));
    ck_assert_uint_lt(stats.durable_lsn, stats.position.lsn);
    OK(npk_store_flush(store, &err));
    OK(npk_store_stats(store, &stats, &err));
    ck_assert_uint_eq(stats.durable_lsn, stats.position.lsn);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("order");
    TCase *tcase = tcase_create("order");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_a_commit_is_written_then_synced_once_then_visible);
    tcase_add_test(tcase, test_lower_levels_write_without_a_sync_and_flush_makes_up_for_it);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
