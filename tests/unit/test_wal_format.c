/* test_wal_format.c - the bytes of the log: what is encoded is decoded, what is damaged is refused, nothing is read past its size. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "checksum.h"
#include "rng.h"
#include "wal_format.h"

static npk_segment_header sample_header(void)
{
    npk_segment_header h = {.seq = 7,
                            .segment_size = 1 << 20,
                            .first_lsn = 123456,
                            .epoch = 3,
                            .cut_epoch = 5,
                            .cut_lsn = 200000,
                            .previous_seq = 6,
                            .previous_end_lsn = 123456,
                            .previous_end_checksum = 0x1122334455667788u,
                            .created_us = 1790000000000000u};
    for (unsigned i = 0; i < 16; i++)
        h.uuid[i] = (uint8_t)(i + 1);
    return h;
}

START_TEST(segment_header_survives_the_way_to_disk_and_back)
{
    uint8_t bytes[NPK_WAL_HEADER_SIZE];
    npk_segment_header in = sample_header(), out;
    npk_segment_header_encode(&in, bytes);
    ck_assert_int_eq(npk_segment_header_decode(bytes, sizeof bytes, &out, NULL), NPK_OK);
    ck_assert_mem_eq(in.uuid, out.uuid, 16);
    ck_assert_uint_eq(out.seq, 7);
    ck_assert_uint_eq(out.segment_size, 1 << 20);
    ck_assert_uint_eq(out.first_lsn, 123456);
    ck_assert_uint_eq(out.epoch, 3);
    ck_assert_uint_eq(out.cut_epoch, 5);
    ck_assert_uint_eq(out.cut_lsn, 200000);
    ck_assert_uint_eq(out.previous_seq, 6);
    ck_assert_uint_eq(out.previous_end_lsn, 123456);
    ck_assert_uint_eq(out.previous_end_checksum, 0x1122334455667788u);
    ck_assert_uint_eq(out.created_us, 1790000000000000u);
    ck_assert_mem_eq(bytes, "NPKWAL\r\n", 8);
    ck_assert_uint_eq(npk_get_u64(bytes + 32), 7);
    ck_assert_uint_eq(npk_get_u32(bytes + 60), 5);
}
END_TEST

START_TEST(every_flipped_bit_of_a_segment_header_is_refused)
{
    uint8_t bytes[NPK_WAL_HEADER_SIZE];
    npk_segment_header in = sample_header(), out;
    npk_segment_header_encode(&in, bytes);
    for (size_t bit = 0; bit < sizeof bytes * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        const char *reason = NULL;
        ck_assert_int_eq(npk_segment_header_decode(bytes, sizeof bytes, &out, &reason), NPK_CORRUPT);
        ck_assert_ptr_nonnull(reason);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t size = 0; size < sizeof bytes; size += 97)
        ck_assert_int_eq(npk_segment_header_decode(bytes, size, &out, NULL), NPK_CORRUPT);
}
END_TEST

START_TEST(newer_version_with_a_fitting_checksum_is_a_format_error)
{
    uint8_t bytes[NPK_WAL_HEADER_SIZE];
    npk_segment_header in = sample_header(), out;
    npk_segment_header_encode(&in, bytes);
    npk_put_u32(bytes + 8, 2);
    ck_assert_int_eq(npk_segment_header_decode(bytes, sizeof bytes, &out, NULL), NPK_CORRUPT);
    npk_put_u64(bytes + 4088, npk_checksum(bytes, 4088));
    ck_assert_int_eq(npk_segment_header_decode(bytes, sizeof bytes, &out, NULL), NPK_FORMAT);
}
END_TEST

static void refuse(npk_segment_header h)
{
    uint8_t bytes[NPK_WAL_HEADER_SIZE];
    npk_segment_header out;
    npk_segment_header_encode(&h, bytes);
    ck_assert_int_eq(npk_segment_header_decode(bytes, sizeof bytes, &out, NULL), NPK_CORRUPT);
}

START_TEST(headers_whose_numbers_could_leave_the_file_are_refused_in_spite_of_their_checksum)
{
    npk_segment_header h;
    h = sample_header(), h.seq = 0, refuse(h);
    h = sample_header(), h.previous_seq = 7, refuse(h);
    h = sample_header(), h.segment_size = 4096, refuse(h);
    h = sample_header(), h.segment_size = (1u << 20) + 1, refuse(h);
    h = sample_header(), h.segment_size = UINT64_MAX - 4095, refuse(h);
    h = sample_header(), h.first_lsn = 8, h.previous_end_lsn = 8, refuse(h);
    h = sample_header(), h.first_lsn = 123457, h.previous_end_lsn = 123457, refuse(h);
    h = sample_header(), h.first_lsn = h.previous_end_lsn = UINT64_MAX - 7, refuse(h);
    h = sample_header(), h.previous_end_lsn += 8, refuse(h);
    h = sample_header(), h.epoch = 0, refuse(h);
    h = sample_header(), h.cut_epoch = 3, refuse(h);
    h = sample_header(), h.cut_epoch = 0, refuse(h);
    h = sample_header(), h.cut_lsn = 123448, refuse(h);
    h = sample_header(), h.cut_lsn = 123456 + (1 << 20), refuse(h);
    h = sample_header(), h.cut_lsn = 200001, refuse(h);
}
END_TEST

START_TEST(mark_survives_and_its_damage_is_noticed)
{
    uint8_t bytes[NPK_SEGMENT_MARK_SIZE];
    npk_segment_mark in = {9, 777776, 4}, out = {0};
    npk_segment_mark_encode(&in, bytes);
    ck_assert(npk_segment_mark_decode(bytes, sizeof bytes, &out));
    ck_assert_uint_eq(out.seq, 9);
    ck_assert_uint_eq(out.first_lsn, 777776);
    ck_assert_uint_eq(out.epoch, 4);
    for (size_t bit = 0; bit < 40 * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        ck_assert(!npk_segment_mark_decode(bytes, sizeof bytes, &out));
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    ck_assert(!npk_segment_mark_decode(bytes, 39, &out));
    memset(bytes, 0, sizeof bytes);
    ck_assert(!npk_segment_mark_decode(bytes, sizeof bytes, &out));
}
END_TEST

/* A record with 5 bytes of meta and 11 of data, sealed: 64 + 8 + 16 bytes. */
static size_t sample_record(uint8_t *bytes)
{
    npk_record_header h = {.type = 16, .meta_size = 5, .lsn = 8192, .epoch = 2, .data_size = 11, .transaction = 77,
                           .watermark = 4096, .raw_data_size = 11};
    size_t size = (size_t)npk_record_size(5, 11);
    memset(bytes, 0, size);
    npk_record_header_encode(&h, bytes);
    memcpy(bytes + 64, "hello", 5);
    memcpy(bytes + npk_record_data_offset(5), "abcdefghijk", 11);
    npk_record_seal(bytes, size);
    return size;
}

START_TEST(record_is_valid_only_at_its_own_position_epoch_and_size)
{
    uint8_t bytes[128];
    size_t size = sample_record(bytes);
    ck_assert_uint_eq(size, 88);
    npk_record_header h;
    npk_record_bounds good = {8192, 2, 0};
    ck_assert_int_eq(npk_record_check(bytes, size, &good, &h), NPK_RECORD_FAULT_NONE);
    ck_assert_uint_eq(h.transaction, 77);
    ck_assert_uint_eq(h.watermark, 4096);
    ck_assert_uint_eq(h.raw_data_size, 11);
    npk_record_bounds elsewhere = {8200, 2, 0}, newer = {8192, 3, 0}, cut = {8192, 1, 2}, between = {8192, 1, 3};
    ck_assert_int_eq(npk_record_check(bytes, size, &elsewhere, &h), NPK_RECORD_FAULT_LSN);
    ck_assert_int_eq(npk_record_check(bytes, size, &newer, &h), NPK_RECORD_FAULT_EPOCH);
    ck_assert_int_eq(npk_record_check(bytes, size, &cut, &h), NPK_RECORD_FAULT_EPOCH);
    ck_assert_int_eq(npk_record_check(bytes, size, &between, &h), NPK_RECORD_FAULT_NONE);
    for (size_t room = 0; room < size; room++)
        ck_assert_int_eq(npk_record_check(bytes, room, &good, &h), NPK_RECORD_FAULT_SIZE);
}
END_TEST

START_TEST(every_flipped_bit_of_a_record_is_noticed)
{
    uint8_t bytes[128];
    size_t size = sample_record(bytes);
    npk_record_header h;
    npk_record_bounds good = {8192, 2, 0};
    for (size_t bit = 0; bit < size * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        ck_assert_int_ne(npk_record_check(bytes, size, &good, &h), NPK_RECORD_FAULT_NONE);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}
END_TEST

START_TEST(sealed_record_with_reserved_bytes_or_unfitting_sizes_is_invalid)
{
    uint8_t bytes[128];
    npk_record_header h;
    npk_record_bounds good = {8192, 2, 0};
    const size_t reserved[] = {10, 11, 52, 56, 63};
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++) {
        size_t size = sample_record(bytes);
        bytes[reserved[i]] = 1;
        npk_record_seal(bytes, size);
        ck_assert_int_eq(npk_record_check(bytes, size, &good, &h), NPK_RECORD_FAULT_RESERVED);
    }
    size_t size = sample_record(bytes);
    bytes[9] = 2;
    npk_record_seal(bytes, size);
    ck_assert_int_eq(npk_record_check(bytes, size, &good, &h), NPK_RECORD_FAULT_RESERVED);
    size = sample_record(bytes);
    npk_put_u32(bytes + 48, 12); /* raw size differs without the lz4 flag */
    npk_record_seal(bytes, size);
    ck_assert_int_eq(npk_record_check(bytes, size, &good, &h), NPK_RECORD_FAULT_SIZE);
    size = sample_record(bytes);
    npk_put_u32(bytes + 12, UINT32_MAX);
    npk_put_u32(bytes + 28, UINT32_MAX);
    ck_assert_int_eq(npk_record_check(bytes, size, &good, &h), NPK_RECORD_FAULT_SIZE);
}
END_TEST

static void fill_compressible(uint8_t *bytes, size_t size, uint64_t seed)
{
    rng r = rng_seeded(seed);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i / 97 + rng_below(&r, 2));
}

START_TEST(packed_data_decodes_block_by_block)
{
    const size_t sizes[] = {1024, 65535, 65536, 65537, 200000, NPK_WAL_PAYLOAD_MAX};
    uint8_t *raw = malloc(NPK_WAL_PAYLOAD_MAX), *packed = malloc(NPK_WAL_PAYLOAD_MAX), *out = malloc(NPK_PACK_BLOCK_SIZE);
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        size_t size = sizes[k];
        fill_compressible(raw, size, k);
        if (size > 150000) { /* one block in the middle that does not compress */
            rng r = rng_seeded(k);
            rng_fill(&r, raw + 65536, 65536);
        }
        size_t stored = npk_pack_encode(raw, size, packed, size - size / 8);
        ck_assert_uint_gt(stored, 0);
        npk_pack_table table;
        ck_assert(npk_pack_table_decode(packed, stored, stored, size, &table));
        ck_assert_uint_eq(table.count, (size + 65535) / 65536);
        size_t begin = 0;
        for (size_t i = 0; i < table.count; i++) {
            ck_assert(npk_pack_block_decode(&table.blocks[i], packed + table.blocks[i].offset, out));
            ck_assert_mem_eq(out, raw + begin, table.blocks[i].raw_size);
            begin += table.blocks[i].raw_size;
        }
        ck_assert_uint_eq(begin, size);
        if (size > 150000)
            ck_assert(table.blocks[1].is_raw);
    }
    free(raw), free(packed), free(out);
}
END_TEST

START_TEST(random_data_does_not_pay)
{
    uint8_t raw[70000], out[70000];
    rng r = rng_seeded(5);
    rng_fill(&r, raw, sizeof raw);
    ck_assert_uint_eq(npk_pack_encode(raw, sizeof raw, out, sizeof raw - sizeof raw / 8), 0);
    ck_assert_uint_eq(npk_pack_encode(raw, 0, out, 100), 0);
}
END_TEST

START_TEST(damaged_packed_data_never_reaches_outside)
{
    static uint8_t raw[200000], packed[200000], copy[200000], out[NPK_PACK_BLOCK_SIZE];
    fill_compressible(raw, sizeof raw, 3);
    size_t stored = npk_pack_encode(raw, sizeof raw, packed, sizeof raw);
    ck_assert_uint_gt(stored, 0);
    rng r = rng_seeded(11);
    for (unsigned round = 0; round < 3000; round++) {
        memcpy(copy, packed, stored);
        size_t where = (size_t)rng_below(&r, round % 2 ? 24 : stored);
        copy[where] ^= (uint8_t)(1 + rng_below(&r, 255));
        size_t size = (size_t)rng_below(&r, stored + 1);
        npk_pack_table table;
        uint8_t *exact = malloc(size + 1); /* the sanitizer sees a read past size */
        memcpy(exact, copy, size);
        (void)npk_pack_table_decode(exact, size, stored, sizeof raw, &table);
        free(exact);
        if (!npk_pack_table_decode(copy, stored, stored, sizeof raw, &table))
            continue;
        for (size_t i = 0; i < table.count; i++) {
            ck_assert_uint_le((uint64_t)table.blocks[i].offset + table.blocks[i].stored_size, stored);
            uint8_t *block = malloc(table.blocks[i].stored_size);
            memcpy(block, copy + table.blocks[i].offset, table.blocks[i].stored_size);
            (void)npk_pack_block_decode(&table.blocks[i], block, out);
            free(block);
        }
    }
}
END_TEST

START_TEST(file_names_go_both_ways)
{
    char name[NPK_WAL_NAME_SIZE];
    uint64_t seq = 0;
    npk_segment_name(0xABCDEF, name);
    ck_assert_str_eq(name, "0000000000abcdef.wal");
    ck_assert(npk_segment_name_decode(name, &seq));
    ck_assert_uint_eq(seq, 0xABCDEF);
    const char *const bad[] = {"", "1.wal", "0000000000ABCDEF.wal", "0000000000abcdef.wa", "0000000000abcdef.wal2",
                               "0000000000000000.wal", "000000000000000g.wal", "0000000000000001"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(!npk_segment_name_decode(bad[i], &seq), "%s", bad[i]);
    npk_segment_spare_name(5, name);
    ck_assert_str_eq(name, "spare-0000000000000005");
    ck_assert(npk_wal_name_is_leftover(name));
    npk_segment_cut_name(5, name);
    ck_assert_str_eq(name, "cut-0000000000000005.tmp");
    ck_assert(npk_wal_name_is_leftover(name));
    ck_assert(!npk_wal_name_is_leftover("0000000000000005.wal"));
    ck_assert(!npk_wal_name_is_leftover("cut-.tm"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wal_format");
    TCase *tc = tcase_create("format");
    tcase_set_timeout(tc, 60); /* a sanitizer on a busy machine */
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, segment_header_survives_the_way_to_disk_and_back);
    tcase_add_test(tc, every_flipped_bit_of_a_segment_header_is_refused);
    tcase_add_test(tc, newer_version_with_a_fitting_checksum_is_a_format_error);
    tcase_add_test(tc, headers_whose_numbers_could_leave_the_file_are_refused_in_spite_of_their_checksum);
    tcase_add_test(tc, mark_survives_and_its_damage_is_noticed);
    tcase_add_test(tc, record_is_valid_only_at_its_own_position_epoch_and_size);
    tcase_add_test(tc, every_flipped_bit_of_a_record_is_noticed);
    tcase_add_test(tc, sealed_record_with_reserved_bytes_or_unfitting_sizes_is_invalid);
    tcase_add_test(tc, packed_data_decodes_block_by_block);
    tcase_add_test(tc, random_data_does_not_pay);
    tcase_add_test(tc, damaged_packed_data_never_reaches_outside);
    tcase_add_test(tc, file_names_go_both_ways);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
