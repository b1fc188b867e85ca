/* test_op.c - operations: encode and decode give the same back; short, long and random bytes never decode into nonsense. */
#include <check.h>
#include <string.h>

#include "apply.h"
#include "buffer.h"
#include "check_main.h"
#include "op.h"
#include "rng.h"

static void random_op(rng *r, uint8_t type, npk_op *op, uint8_t list[4096])
{
    static const char text[] = "abcdefghijklmnopqrstuvwxyz";
    memset(op, 0, sizeof *op);
    rng_fill(r, list, 4096);
    op->type = type;
    op->mode = (uint8_t)rng_below(r, 3);
    op->zero_dim = (uint8_t)rng_below(r, 2);
    op->ndim = (uint8_t)rng_below(r, 8);
    op->array = rng_next(r);
    op->other = rng_next(r);
    op->time_us = rng_next(r);
    op->first = rng_next(r) >> 2;
    op->count = rng_next(r) >> 2;
    op->block = rng_next(r) >> 20;
    op->lsn = rng_next(r);
    op->file_row = rng_next(r);
    op->row_size = rng_next(r);
    op->file_size = rng_next(r);
    op->data_offset = rng_next(r);
    op->name = text;
    op->name_size = 1 + rng_below(r, 20);
    op->descr = text + 3;
    op->descr_size = 3;
    op->list = list;
    op->list_count = type == NPK_OP_CREATE ? op->ndim : (uint32_t)rng_below(r, 200);
    op->value = list;
    op->value_size = (uint32_t)rng_below(r, 4096);
}

START_TEST(test_every_operation_comes_back_as_it_was)
{
    rng r = rng_seeded((uint64_t)_i);
    uint8_t list[4096];
    for (uint8_t type = NPK_OP_CREATE; type <= NPK_OP_UNSYNCED_FILE; type++) {
        npk_op op, back;
        random_op(&r, type, &op, list);
        npk_buffer once, twice;
        npk_buffer_init(&once);
        npk_buffer_init(&twice);
        npk_op_encode(&op, &once);
        ck_assert(!once.failed);
        ck_assert_msg(npk_op_decode(type, once.data, once.size, &back), "type %d", type);
        npk_op_encode(&back, &twice);
        ck_assert_uint_eq(once.size, twice.size);
        ck_assert_mem_eq(once.data, twice.data, once.size);
        char text[200] = "";
        npk_op_print(&back, text, sizeof text);
        ck_assert_uint_gt(strlen(text), 2);
        /* Every shorter and every longer size is refused. */
        for (size_t size = 0; size < once.size; size++)
            ck_assert_msg(!npk_op_decode(type, once.data, size, &back), "type %d cut to %zu", type, size);
        npk_buffer_put_u8(&once, 0);
        ck_assert(!npk_op_decode(type, once.data, once.size, &back));
        npk_buffer_release(&once);
        npk_buffer_release(&twice);
    }
}
END_TEST

START_TEST(test_random_bytes_never_read_past_their_end)
{
    rng r = rng_seeded(1000 + (uint64_t)_i);
    for (int n = 0; n < 20000; n++) {
        uint8_t *bytes = (uint8_t[256]){0};
        size_t size = rng_below(&r, 256);
        rng_fill(&r, bytes, size);
        npk_op op;
        (void)npk_op_decode((uint8_t)rng_below(&r, 40), bytes, size, &op);
    }
}
END_TEST

START_TEST(test_unknown_types_are_refused)
{
    npk_op op;
    ck_assert(!npk_op_decode(0, (const uint8_t *)"", 0, &op));
    ck_assert(!npk_op_decode(15, (const uint8_t *)"", 0, &op));
    ck_assert(!npk_op_decode(NPK_OP_UNSYNCED_FILE + 1, (const uint8_t *)"", 0, &op));
    ck_assert(!npk_op_decode(255, (const uint8_t *)"", 0, &op));
}
END_TEST

static npk_status apply_op(npk_kv *kv, const npk_op *op, npk_error *err)
{
    static uint64_t lsn = NPK_WAL_FIRST_LSN;
    npk_buffer meta;
    npk_buffer_init(&meta);
    npk_op_encode(op, &meta);
    lsn += 64;
    npk_record record = {.type = op->type, .place = {.lsn = lsn, .seq = 1, .offset = lsn}, .meta = meta.data, .meta_size = meta.size};
    npk_status status = npk_apply(kv, &record, err);
    npk_buffer_release(&meta);
    return status;
}

/* Records with a fitting checksum that no writer writes: what they would put into the index could not be read back. */
START_TEST(test_links_to_places_that_cannot_be_are_refused)
{
    npk_error err = {0};
    npk_kv *kv = NULL;
    npk_wal_end start = {.lsn = NPK_WAL_FIRST_LSN};
    ck_assert(npk_kv_open(NULL, &kv, &err) == NPK_OK && npk_apply_end(kv, &start, NULL, &err) == NPK_OK);
    npk_op op = {.type = NPK_OP_CREATE, .array = 1, .name = "a", .name_size = 1, .descr = "|u1", .descr_size = 3, .row_size = 8};
    ck_assert_int_eq(apply_op(kv, &op, &err), NPK_OK);
    op = (npk_op){.type = NPK_OP_FILE, .other = 5, .file_size = 4096 + 800, .count = 100, .row_size = 8, .data_offset = 4096};
    ck_assert_int_eq(apply_op(kv, &op, &err), NPK_OK);
    op = (npk_op){.type = NPK_OP_LINK_RUN, .array = 1, .count = 100, .other = 5, .file_row = UINT64_MAX - 8};
    ck_assert_int_eq(apply_op(kv, &op, &err), NPK_CORRUPT);
    op.file_row = 0;
    ck_assert_int_eq(apply_op(kv, &op, &err), NPK_OK);
    static const uint8_t falling[] = {4, 0, 3, 0}, twice[] = {3, 0, 3, 0}, rising[] = {3, 0, 4, 0};
    op = (npk_op){.type = NPK_OP_LINK_SET, .mode = NPK_LINK_REPLACE, .array = 1, .other = 5, .list = falling, .list_count = 2};
    ck_assert_int_eq(apply_op(kv, &op, &err), NPK_CORRUPT);
    op.list = twice;
    ck_assert_int_eq(apply_op(kv, &op, &err), NPK_CORRUPT);
    op.list = rising;
    op.file_row = UINT64_MAX - 1;
    ck_assert_int_eq(apply_op(kv, &op, &err), NPK_CORRUPT);
    op.file_row = 7;
    ck_assert_int_eq(apply_op(kv, &op, &err), NPK_OK);
    npk_kv_close(kv);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("op");
    TCase *tcase = tcase_create("op");
    tcase_add_loop_test(tcase, test_every_operation_comes_back_as_it_was, 0, 20);
    tcase_add_loop_test(tcase, test_random_bytes_never_read_past_their_end, 0, 4);
    tcase_add_test(tcase, test_unknown_types_are_refused);
    tcase_add_test(tcase, test_links_to_places_that_cannot_be_are_refused);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
