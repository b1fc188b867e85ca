/* test_catalog.c - keys and values of the index tables come back as they went in, and wrong bytes are refused. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "bytes.h"
#include "catalog.h"

static npk_kv *kv;

static void open_view(void) { ck_assert_int_eq(npk_kv_open(NULL, &kv, NULL), NPK_OK); }
static void close_view(void) { npk_kv_close(kv); }

START_TEST(state_comes_back)
{
    npk_store_state in = {.end = {1, 2, 3, 4, 5, 6}, .next_array_id = 7, .next_transaction = 8, .last_commit_us = 9}, out;
    bool found = true;
    ck_assert_int_eq(npk_catalog_get_state(kv, &out, &found, NULL), NPK_OK);
    ck_assert(!found);
    ck_assert_int_eq(npk_catalog_put_state(kv, &in, NULL), NPK_OK);
    ck_assert_int_eq(npk_catalog_get_state(kv, &out, &found, NULL), NPK_OK);
    ck_assert(found);
    ck_assert_uint_eq(out.end.lsn, 1);
    ck_assert_uint_eq(out.end.epoch, 2);
    ck_assert_uint_eq(out.end.seq, 3);
    ck_assert_uint_eq(out.end.first_lsn, 4);
    ck_assert_uint_eq(out.end.segment_size, 5);
    ck_assert_uint_eq(out.end.last_checksum, 6);
    ck_assert_uint_eq(out.next_array_id, 7);
    ck_assert_uint_eq(out.next_transaction, 8);
    ck_assert_uint_eq(out.last_commit_us, 9);
    ck_assert_int_eq(npk_kv_put(kv, NPK_TABLE_STORE, "state", 5, "short", 5, NULL), NPK_OK);
    npk_error err;
    ck_assert_int_eq(npk_catalog_get_state(kv, &out, &found, &err), NPK_CORRUPT);
    ck_assert_ptr_nonnull(strstr(err.message, "\"store\""));
}
END_TEST

static npk_array_record sample(void)
{
    npk_array_record record = {.name = "weights", .descr = (char *)(uintptr_t)"<f4", .ndim = 2, .shape = {3, 5},
                               .row_size = 60, .row_count = 11, .next_slot = 12, .created_us = 13, .modified_us = 14,
                               .change_lsn = 15, .layout_lsn = 16, .pending_row_count = 17};
    return record;
}

START_TEST(array_record_comes_back)
{
    npk_array_record in = sample(), out;
    bool found = false;
    ck_assert_int_eq(npk_catalog_put_array(kv, 42, &in, NULL), NPK_OK);
    ck_assert_int_eq(npk_catalog_get_array(kv, 41, &out, &found, NULL), NPK_OK);
    ck_assert(!found);
    ck_assert_int_eq(npk_catalog_get_array(kv, 42, &out, &found, NULL), NPK_OK);
    ck_assert(found);
    ck_assert_str_eq(out.name, "weights");
    ck_assert_str_eq(out.descr, "<f4");
    ck_assert_uint_eq(out.ndim, 2);
    ck_assert_uint_eq(out.shape[0], 3);
    ck_assert_uint_eq(out.shape[1], 5);
    ck_assert(!out.zero_dim);
    ck_assert_uint_eq(out.row_size, 60);
    ck_assert_uint_eq(out.row_count, 11);
    ck_assert_uint_eq(out.next_slot, 12);
    ck_assert_uint_eq(out.created_us, 13);
    ck_assert_uint_eq(out.modified_us, 14);
    ck_assert_uint_eq(out.change_lsn, 15);
    ck_assert_uint_eq(out.layout_lsn, 16);
    ck_assert_uint_eq(out.pending_row_count, 17);
    npk_array_record_release(&out);
}
END_TEST

START_TEST(names_are_found)
{
    uint8_t value[8];
    uint64_t id = 0;
    bool found = true;
    char longest[NPK_NAME_MAX + 2];
    memset(longest, 'x', sizeof longest);
    longest[NPK_NAME_MAX + 1] = '\0';
    npk_put_u64(value, 99);
    ck_assert_int_eq(npk_kv_put(kv, NPK_TABLE_NAMES, "a", 1, value, 8, NULL), NPK_OK);
    ck_assert_int_eq(npk_catalog_find_array(kv, "a", &id, &found, NULL), NPK_OK);
    ck_assert(found);
    ck_assert_uint_eq(id, 99);
    const char *const absent[] = {"", "b", "ab", longest};
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        ck_assert_int_eq(npk_catalog_find_array(kv, absent[i], &id, &found, NULL), NPK_OK);
        ck_assert(!found);
    }
}
END_TEST

/* Every cut and every single wrong byte of an array record is refused or gives a record that fits its limits. */
START_TEST(damaged_records_are_never_believed)
{
    npk_array_record in = sample(), out;
    npk_buffer value;
    npk_buffer_init(&value);
    uint8_t key[8];
    bool found;
    size_t key_size = npk_key_u64(key, 1);
    ck_assert_int_eq(npk_catalog_put_array(kv, 1, &in, NULL), NPK_OK);
    ck_assert_int_eq(npk_kv_get(kv, NPK_TABLE_ARRAYS, key, key_size, &value, &found, NULL), NPK_OK);
    for (size_t size = 0; size < value.size; size++) {
        ck_assert_int_eq(npk_kv_put(kv, NPK_TABLE_ARRAYS, key, key_size, value.data, size, NULL), NPK_OK);
        ck_assert_int_eq(npk_catalog_get_array(kv, 1, &out, &found, NULL), NPK_CORRUPT);
    }
    for (size_t i = 0; i < value.size; i++)
        for (unsigned v = 0; v < 256; v++) {
            uint8_t was = value.data[i];
            value.data[i] = (uint8_t)v;
            ck_assert_int_eq(npk_kv_put(kv, NPK_TABLE_ARRAYS, key, key_size, value.data, value.size, NULL), NPK_OK);
            npk_status status = npk_catalog_get_array(kv, 1, &out, &found, NULL);
            if (status == NPK_OK) {
                ck_assert(out.ndim < NPK_NDIM_MAX);
                ck_assert(!out.zero_dim || out.ndim == 0);
                ck_assert(out.name[0] != '\0' && out.descr[0] != '\0');
                npk_array_record_release(&out);
            } else {
                ck_assert_int_eq(status, NPK_CORRUPT);
            }
            value.data[i] = was;
        }
    npk_buffer_release(&value);
}
END_TEST

START_TEST(keys_sort_like_numbers)
{
    uint8_t a[NPK_KEY_MAX], b[NPK_KEY_MAX];
    ck_assert_uint_eq(npk_key_u64_u64(a, 1, 255), 16);
    ck_assert_uint_eq(npk_key_u64_u64(b, 1, 256), 16);
    ck_assert_int_lt(memcmp(a, b, 16), 0);
    ck_assert_uint_eq(npk_key_run(a, 1, UINT64_MAX), 17);
    ck_assert_uint_eq(npk_key_set(b, 1, 0, 0), 25);
    ck_assert_int_lt(memcmp(a, b, 17), 0); /* runs before sets */
    ck_assert_uint_eq(npk_key_rows_prefix(a, 1, 1), 9);
    ck_assert_int_eq(memcmp(a, b, 9), 0);
    ck_assert_uint_eq(npk_key_set(a, 1, 7, 255), 25);
    ck_assert_uint_eq(npk_key_set(b, 1, 7, 256), 25);
    ck_assert_int_lt(memcmp(a, b, 25), 0);
    ck_assert_uint_eq(npk_key_place(a, 2, 5), 9);
    ck_assert_uint_eq(npk_key_attr(a, 3, "unit", 4), 12);
    ck_assert_int_eq(memcmp(a + 8, "unit", 4), 0);
}
END_TEST

static size_t encode_run(uint8_t *value, const npk_run *run)
{
    npk_put_u64(value, run->count);
    npk_put_u64(value + 8, run->lsn);
    npk_place_encode(&run->place, value + 16);
    return 16 + NPK_PLACE_SIZE;
}

START_TEST(runs_come_back_and_wrong_ones_do_not)
{
    uint8_t key[NPK_KEY_MAX], value[64];
    npk_run in = {5, 6, 7, {NPK_PLACE_PACKED, 8, 9, 10, 11}}, out;
    size_t key_size = npk_key_run(key, 1, 5), size = encode_run(value, &in);
    ck_assert(npk_run_decode(key, key_size, value, size, &out));
    ck_assert_uint_eq(out.first_slot, 5);
    ck_assert_uint_eq(out.count, 6);
    ck_assert_uint_eq(out.lsn, 7);
    ck_assert_uint_eq(out.place.kind, NPK_PLACE_PACKED);
    ck_assert_uint_eq(out.place.container, 8);
    ck_assert_uint_eq(out.place.record_offset, 9);
    ck_assert_uint_eq(out.place.data_delta, 10);
    ck_assert_uint_eq(out.place.row, 11);
    ck_assert(!npk_run_decode(key, key_size, value, size - 1, &out));
    ck_assert(!npk_run_decode(key, key_size - 1, value, size, &out));
    ck_assert(!npk_run_decode(key, npk_key_set(key, 1, 5, 0), value, size, &out));
    key_size = npk_key_run(key, 1, 5);
    npk_run wrong[] = {in, in, in, in, in, in};
    wrong[0].count = 0;
    wrong[1].count = UINT64_MAX;
    wrong[2].place.kind = 4;
    wrong[3].place.row = UINT64_MAX;
    wrong[4].place.kind = NPK_PLACE_COLUMN; /* with an offset in a segment */
    wrong[5].place.record_offset = UINT64_MAX;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        size = encode_run(value, &wrong[i]);
        ck_assert_msg(!npk_run_decode(key, key_size, value, size, &out), "case %zu", i);
    }
}
END_TEST

START_TEST(sets_must_be_sorted)
{
    uint8_t key[NPK_KEY_MAX], value[64];
    npk_place place = {NPK_PLACE_SEGMENT, 1, 2, 3, 4};
    npk_set set;
    size_t key_size = npk_key_set(key, 1, 5, 6);
    npk_place_encode(&place, value);
    npk_put_u16(value + NPK_PLACE_SIZE, 3);
    npk_put_u16(value + NPK_PLACE_SIZE + 2, 65535);
    ck_assert(npk_set_decode(key, key_size, value, NPK_PLACE_SIZE + 4, &set));
    ck_assert_uint_eq(set.block, 5);
    ck_assert_uint_eq(set.lsn, 6);
    ck_assert_uint_eq(set.count, 2);
    ck_assert_uint_eq(npk_get_u16(set.slots + 2), 65535);
    ck_assert(!npk_set_decode(key, key_size, value, NPK_PLACE_SIZE, &set));
    ck_assert(!npk_set_decode(key, key_size, value, NPK_PLACE_SIZE + 3, &set));
    npk_put_u16(value + NPK_PLACE_SIZE + 2, 3);
    ck_assert(!npk_set_decode(key, key_size, value, NPK_PLACE_SIZE + 4, &set));
    npk_put_u16(value + NPK_PLACE_SIZE + 2, 9);
    key_size = npk_key_set(key, 1, UINT64_MAX / NPK_SET_BLOCK, 6);
    ck_assert(!npk_set_decode(key, key_size, value, NPK_PLACE_SIZE + 4, &set));
}
END_TEST

START_TEST(map_runs_and_containers_come_back)
{
    uint8_t key[NPK_KEY_MAX], value[16];
    npk_map_run run;
    size_t key_size = npk_key_u64_u64(key, 1, 10);
    npk_put_u64(value, 20);
    npk_put_u64(value + 8, 30);
    ck_assert(npk_map_run_decode(key, key_size, value, 16, &run));
    ck_assert_uint_eq(run.first_row, 10);
    ck_assert_uint_eq(run.first_slot, 20);
    ck_assert_uint_eq(run.count, 30);
    npk_put_u64(value + 8, 0);
    ck_assert(!npk_map_run_decode(key, key_size, value, 16, &run));
    npk_container in = {1, 2, 3, 4, 5, 6, 0}, unsynced = {1, 2, 3, 4, 5, 6, 7}, out;
    bool found = false;
    ck_assert_int_eq(npk_catalog_put_container(kv, NPK_CONTAINER_COLUMN, 78, &unsynced, NULL), NPK_OK);
    ck_assert_int_eq(npk_catalog_get_container(kv, NPK_CONTAINER_COLUMN, 78, &out, &found, NULL), NPK_OK);
    ck_assert_int_eq(memcmp(&unsynced, &out, sizeof out), 0);
    ck_assert_int_eq(npk_catalog_put_container(kv, NPK_CONTAINER_COLUMN, 77, &in, NULL), NPK_OK);
    ck_assert_int_eq(npk_catalog_get_container(kv, NPK_CONTAINER_COLUMN, 77, &out, &found, NULL), NPK_OK);
    ck_assert(found);
    ck_assert_int_eq(memcmp(&in, &out, sizeof in), 0);
    ck_assert_int_eq(npk_catalog_get_container(kv, NPK_CONTAINER_SEGMENT, 77, &out, &found, NULL), NPK_OK);
    ck_assert(!found);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("catalog");
    TCase *tests = tcase_create("tables");
    tcase_add_checked_fixture(tests, open_view, close_view);
    tcase_add_test(tests, state_comes_back);
    tcase_add_test(tests, array_record_comes_back);
    tcase_add_test(tests, names_are_found);
    tcase_add_test(tests, damaged_records_are_never_believed);
    tcase_add_test(tests, keys_sort_like_numbers);
    tcase_add_test(tests, runs_come_back_and_wrong_ones_do_not);
    tcase_add_test(tests, sets_must_be_sorted);
    tcase_add_test(tests, map_runs_and_containers_come_back);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
