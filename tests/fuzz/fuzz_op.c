/* fuzz_op.c - operation records: decoded, printed, encoded anew, and applied one after another to an empty state.
 *
 * The input is a row of records: u8 type, u16 meta size, u16 raw data size, meta. */
#include "fuzz.h"

#include <string.h>

#include "apply.h"
#include "bytes.h"
#include "catalog.h"
#include "op.h"

static void decode(uint8_t type, const uint8_t *meta, size_t size)
{
    npk_op op;
    if (!npk_op_decode(type, meta, size, &op))
        return;
    char text[200];
    npk_op_print(&op, text, sizeof text);
    FUZZ_CHECK(memchr(text, 0, sizeof text));
    fuzz_touch(op.list, op.list_count * (type == NPK_OP_CREATE ? 8 : npk_op_list_item_size(type)));
    fuzz_touch(op.name, op.name_size);
    fuzz_touch(op.descr, op.descr_size);
    fuzz_touch(op.value, op.value_size);
    npk_buffer again;
    npk_buffer_init(&again);
    npk_op_encode(&op, &again);
    FUZZ_CHECK(!again.failed && again.size == size && memcmp(again.data, meta, size) == 0);
    npk_buffer_release(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    npk_error err = {0};
    npk_kv *kv = NULL;
    npk_wal_end start = {.lsn = NPK_WAL_FIRST_LSN, .epoch = 1, .seq = 1, .first_lsn = NPK_WAL_FIRST_LSN, .segment_size = 65536};
    FUZZ_CHECK(npk_kv_open(NULL, &kv, &err) == NPK_OK && npk_apply_end(kv, &start, NULL, &err) == NPK_OK);
    uint64_t lsn = NPK_WAL_FIRST_LSN;
    npk_status status = NPK_OK;
    for (int count = 0; size >= 5 && status == NPK_OK && count < 64; count++) {
        uint8_t type = input[0];
        size_t meta_size = npk_min_u64(npk_get_u16(input + 1), size - 5);
        npk_record record = {.type = type, .transaction = 1, .meta = input + 5, .meta_size = meta_size,
                             .raw_data_size = npk_get_u16(input + 3)};
        record.place = (npk_wal_place){lsn, 1 + (uint64_t)count / 8, 4096 + lsn % 32768, 4096 + lsn % 32768 + 64 + meta_size, count % 5 == 4};
        decode(type, record.meta, meta_size);
        status = npk_apply(kv, &record, &err);
        FUZZ_CHECK(status == NPK_OK || status == NPK_CORRUPT);
        lsn += 64 + ((meta_size + 7) & ~(size_t)7);
        input += 5 + meta_size;
        size -= 5 + meta_size;
    }
    /* What apply took must be in order; what it refused half-way is rolled back by the caller. */
    fuzz_look_at_arrays(kv, status == NPK_OK);
    npk_kv_close(kv);
    return 0;
}
