/* test_store.c - the whole path through npk.h on a real directory: commit, read, reopen, fold, checkpoint, recover. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "npk.h"

static char directory[64];
static npk_error err;

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

#define OK(call) ck_assert_msg((call) == NPK_OK, "%s", err.message)

static npk_store *open_store(void)
{
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE, .no_background = 1,
                           .segment_size = 1 << 20};
    npk_store *store = NULL;
    OK(npk_store_open(directory, &options, &store, &err));
    return store;
}

static void fill(int32_t *rows, int count, int first)
{
    for (int i = 0; i < count; i++)
        for (int k = 0; k < 4; k++)
            rows[i * 4 + k] = (first + i) * 10 + k;
}

static const uint64_t four = 4;
static const npk_array_spec spec = {"<i4", 16, 1, &four, 0};

static void expect(npk_store *store, const char *name, const int32_t *rows, uint64_t count)
{
    npk_source source = {.store = store};
    npk_array *array = NULL;
    OK(npk_array_open(&source, name, &array, &err));
    ck_assert_uint_eq(npk_array_describe(array)->row_count, count);
    int32_t *out = malloc(count * 16 + 1);
    OK(npk_array_read(array, 0, count, out, &err));
    ck_assert_mem_eq(out, rows, count * 16);
    free(out);
    npk_array_release(array);
}

START_TEST(test_rows_survive_commit_close_and_reopen)
{
    int32_t rows[400];
    fill(rows, 100, 0);
    npk_store *store = open_store();
    npk_txn *txn = NULL;
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_save(txn, "a", &spec, 50, rows, &err));
    OK(npk_txn_append(txn, "a", 50, rows + 200, &err));
    OK(npk_txn_set_attr(txn, NULL, "offset", "7", 1, &err));
    npk_position position;
    OK(npk_txn_commit(txn, NPK_SYNC_COMMIT, &position, &err));
    expect(store, "a", rows, 100);

    int64_t which[3] = {5, 99, 42};
    int32_t news[12];
    fill(news, 3, 1000);
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_replace(txn, "a", 3, which, news, &err));
    int64_t gone[2] = {0, 50};
    OK(npk_txn_drop_rows(txn, "a", 2, gone, &err));
    OK(npk_txn_commit(txn, NPK_SYNC_COMMIT, &position, &err));
    int32_t model[400];
    memcpy(model, rows, sizeof rows);
    for (int i = 0; i < 3; i++)
        memcpy(model + which[i] * 4, news + i * 4, 16);
    memmove(model + 200, model + 204, 49 * 16);
    memmove(model, model + 4, 98 * 16);
    expect(store, "a", model, 98);
    OK(npk_store_close(store, &err));

    store = open_store();
    expect(store, "a", model, 98);
    OK(npk_store_compact(store, "a", &err));
    expect(store, "a", model, 98);
    npk_source source = {.store = store};
    npk_array *array = NULL;
    OK(npk_array_open(&source, "a", &array, &err));
    npk_region *region = NULL;
    OK(npk_array_map(array, 0, 98, NPK_MAP_READ, &region, &err));
    ck_assert_int_eq(npk_region_is_mapped(region), 1);
    npk_array_release(array);
    OK(npk_store_close(store, &err));
    ck_assert_mem_eq(npk_region_address(region), model, 98 * 16);
    npk_region_release(region);

    store = open_store();
    expect(store, "a", model, 98);
    OK(npk_store_checkpoint(store, &err));
    OK(npk_store_close(store, &err));
}
END_TEST

START_TEST(test_rollback_and_savepoints_undo_exactly_what_they_cover)
{
    int32_t rows[400];
    fill(rows, 100, 0);
    npk_store *store = open_store();
    npk_txn *txn = NULL;
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_save(txn, "a", &spec, 10, rows, &err));
    uint64_t point;
    OK(npk_txn_savepoint(txn, &point, &err));
    OK(npk_txn_append(txn, "a", 10, rows, &err));
    OK(npk_txn_rollback_to(txn, point, &err));
    OK(npk_txn_append(txn, "a", 5, rows + 40, &err));
    uint64_t inner;
    OK(npk_txn_savepoint(txn, &inner, &err));
    OK(npk_txn_release_savepoint(txn, inner, &err));
    ck_assert_int_eq(npk_txn_rollback_to(txn, inner, &err), NPK_MISUSE);
    OK(npk_txn_release_savepoint(txn, point, &err));
    OK(npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err));
    expect(store, "a", rows, 15);
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_drop_array(txn, "a", &err));
    npk_txn_abort(txn);
    expect(store, "a", rows, 15);
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    ck_assert_int_eq(npk_txn_append(txn, "none", 1, rows, &err), NPK_NOT_FOUND);
    ck_assert_str_eq(err.array, "none");
    int64_t far = 15;
    ck_assert_int_eq(npk_txn_replace(txn, "a", 1, &far, rows, &err), NPK_RANGE);
    OK(npk_txn_append(txn, "a", 1, rows + 60, &err));
    OK(npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err));
    expect(store, "a", rows, 16);
    OK(npk_store_close(store, &err));
    store = open_store();
    expect(store, "a", rows, 16);
    OK(npk_store_close(store, &err));
}
END_TEST

START_TEST(test_large_rows_go_straight_into_a_column_file)
{
    uint64_t count = 600000;
    int32_t *rows = malloc(count * 16);
    fill(rows, (int)count, 0);
    npk_store *store = open_store();
    npk_txn *txn = NULL;
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_save(txn, "a", &spec, count / 2, rows, &err));
    npk_source own = {.txn = txn};
    npk_array *array = NULL;
    OK(npk_array_open(&own, "a", &array, &err));
    int32_t last[4];
    OK(npk_array_read(array, count / 2 - 1, 1, last, &err));
    ck_assert_mem_eq(last, rows + (count / 2 - 1) * 4, 16);
    npk_array_release(array);
    OK(npk_txn_append(txn, "a", count - count / 2, rows + count / 2 * 4, &err));
    OK(npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err));
    expect(store, "a", rows, count);
    npk_stats stats = {.struct_size = sizeof stats};
    OK(npk_store_stats(store, &stats, &err));
    ck_assert_uint_eq(stats.column_file_count, 1);
    ck_assert_uint_eq(stats.pending_size, 0);
    OK(npk_store_close(store, &err));
    store = open_store();
    expect(store, "a", rows, count);
    OK(npk_store_close(store, &err));
    free(rows);
}
END_TEST

static void note_attr(void *context, const char *key, const void *value, size_t size)
{
    char *text = context;
    (void)snprintf(text + strlen(text), 200 - strlen(text), "%s=%.*s;", key, (int)size, (const char *)value);
}

static void expect_attrs(const npk_array *array, const char *expected)
{
    char text[200] = "";
    npk_array_list_attrs(array, note_attr, text);
    ck_assert_str_eq(text, expected);
}

static npk_array *open_array(const npk_source *source, const char *name)
{
    npk_array *array = NULL;
    OK(npk_array_open(source, name, &array, &err));
    return array;
}

START_TEST(test_an_array_keeps_the_attributes_of_its_moment)
{
    int32_t rows[40];
    fill(rows, 10, 0);
    npk_store *store = open_store();
    npk_source source = {.store = store};
    npk_txn *txn = NULL;
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_save(txn, "a", &spec, 10, rows, &err));
    OK(npk_txn_save(txn, "b", &spec, 10, rows, &err));
    OK(npk_txn_set_attr(txn, "b", "u", "9", 1, &err));
    OK(npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err));
    npk_array *none = open_array(&source, "a");
    expect_attrs(none, "");

    /* The cached array is not taken for the new one. */
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_set_attr(txn, "a", "u", "1", 1, &err));
    OK(npk_txn_set_attr(txn, "a", "v", "", 0, &err));
    npk_array *own = open_array(&(npk_source){.txn = txn}, "a");
    expect_attrs(own, "u=1;v=;");
    npk_array *before = open_array(&source, "a");
    expect_attrs(before, "");
    OK(npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err));
    npk_array *one = open_array(&source, "a");
    expect_attrs(one, "u=1;v=;");
    npk_snapshot *snapshot = NULL;
    OK(npk_snapshot_take(store, &snapshot, &err));

    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_set_attr(txn, "a", "u", "2", 1, &err));
    OK(npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err));
    npk_array *two = open_array(&source, "a"); /* as many bytes as before */
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_drop_array(txn, "a", &err));
    OK(npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err));
    npk_array *past = open_array(&(npk_source){.snapshot = snapshot}, "a");
    npk_snapshot_release(snapshot);
    OK(npk_store_close(store, &err));
    expect_attrs(none, "");
    expect_attrs(own, "u=1;v=;");
    expect_attrs(one, "u=1;v=;");
    expect_attrs(two, "u=2;v=;");
    expect_attrs(past, "u=1;v=;");
    npk_array *all[] = {none, own, before, one, two, past};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        npk_array_release(all[i]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("store");
    TCase *tcase = tcase_create("path");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_rows_survive_commit_close_and_reopen);
    tcase_add_test(tcase, test_rollback_and_savepoints_undo_exactly_what_they_cover);
    tcase_add_test(tcase, test_large_rows_go_straight_into_a_column_file);
    tcase_add_test(tcase, test_an_array_keeps_the_attributes_of_its_moment);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
