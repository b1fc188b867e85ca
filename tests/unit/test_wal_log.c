/* test_wal_log.c - appending, reading back, rolling, undoing, packing, spares, reclaim. Ends and damage: test_wal_tail.c. */
#include "test_wal_fixture.h"

#include "thread.h"

START_TEST(new_log_is_empty_and_clean)
{
    fixture f;
    fixture_create(&f);
    ck_assert_uint_eq(f.end.lsn, 4096);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "");
    ck_assert_uint_eq(f.scan.end.lsn, 4096);
    ck_assert_uint_eq(f.scan.end.seq, 1);
    ck_assert_uint_eq(f.scan.highest_epoch, 1);
    ck_assert_uint_eq(f.scan.oldest_seq, 1);
    ck_assert_uint_eq(f.scan.segment_count, 1);
    ck_assert_uint_eq(file_count(&f), 1);
    fixture_close(&f);
}
END_TEST

START_TEST(committed_transactions_are_read_back_in_order_and_appending_goes_on_in_place)
{
    fixture f;
    fixture_create(&f);
    transact(&f, "a b", 10);
    transact(&f, "c", 0);
    reopen(&f);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a b ;c ;");
    ck_assert_uint_eq(f.scan.end.lsn, f.end.lsn);
    ck_assert_uint_eq(f.scan.end.last_checksum, f.end.last_checksum);
    ck_assert_uint_eq(f.scan.transaction_count, 2);
    ck_assert_uint_eq(f.scan.last_transaction, 2);
    ck_assert_uint_eq(f.scan.last_commit_us, 1002);
    ck_assert_uint_eq(f.scan.tail_size, 0);
    OK(&f, npk_wal_start(f.wal, &f.scan.end, &f.err));
    transact(&f, "d", 3);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a b ;c ;d ;");
    ck_assert_uint_eq(f.scan.end.seq, 1);
    ck_assert_uint_eq(f.scan.end.epoch, 1);
    fixture_close(&f);
}
END_TEST

START_TEST(creating_over_records_is_refused_and_over_an_unfinished_creation_allowed)
{
    fixture f;
    fixture_create(&f);
    npk_wal_end end;
    OK(&f, npk_wal_create(f.wal, &end, &f.err));
    OK(&f, npk_wal_start(f.wal, &end, &f.err));
    transact(&f, "a", 1);
    ck_assert_int_eq(npk_wal_create(f.wal, &end, &f.err), NPK_EXISTS);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a ;");
    fixture_close(&f);
}
END_TEST

/* Words "0", "1", ... in transactions of one record each; the trace of all of them. */
static void transact_many(fixture *f, unsigned first, unsigned count, size_t size, char *trace, size_t trace_size)
{
    for (unsigned i = first; i < first + count; i++) {
        char word[16];
        (void)snprintf(word, sizeof word, "%u", i);
        transact(f, word, size);
        size_t used = strlen(trace);
        (void)snprintf(trace + used, trace_size - used, "%s ;", word);
    }
}

START_TEST(log_rolls_and_a_scan_walks_over_the_segments_from_any_boundary)
{
    fixture f;
    char trace[2048] = "";
    fixture_create(&f);
    uint64_t boundaries[40];
    for (unsigned i = 0; i < 40; i++) {
        boundaries[i] = f.end.lsn;
        transact_many(&f, i, 1, 9000, trace, sizeof trace);
    }
    ck_assert_uint_gt(f.end.seq, 5);
    ck_assert_uint_eq(npk_wal_count(f.wal).rolls, f.end.seq - 1);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, trace);
    ck_assert_uint_eq(f.scan.end.lsn, f.end.lsn);
    ck_assert_uint_eq(f.scan.end.seq, f.end.seq);
    ck_assert_uint_eq(f.scan.end.first_lsn, f.end.first_lsn);
    ck_assert_uint_eq(f.scan.end.last_checksum, f.end.last_checksum);
    ck_assert_uint_eq(f.scan.durable_lsn, f.end.first_lsn > boundaries[39] ? f.end.first_lsn : boundaries[39]);
    const char *rest = trace;
    for (unsigned i = 0; i < 40; i++) {
        ck_assert_int_eq(scan_with(&f, boundaries[i], boundaries[i], 0), NPK_WAL_CLEAN);
        ck_assert_str_eq(f.trace, rest);
        ck_assert_uint_eq(f.scan.end.last_checksum, f.end.last_checksum);
        rest = strchr(rest, ';') + 1;
    }
    ck_assert_int_eq(scan_with(&f, f.end.lsn, f.end.lsn, 0), NPK_WAL_CLEAN);
    ck_assert_uint_eq(f.scan.end.last_checksum, f.end.last_checksum);
    f.scan.from_lsn = boundaries[1] + 8;
    ck_assert_int_eq(npk_wal_scan_log(f.wal, &f.scan, &f.err), NPK_CORRUPT);
    fixture_close(&f);
}
END_TEST

START_TEST(scan_from_the_seam_of_two_segments_gives_the_current_one)
{
    fixture f;
    fixture_create(&f);
    put(&f, "a", 50000);
    commit(&f);
    uint64_t seam = f.end.lsn;
    put(&f, "b", 50000); /* rolls, then lies in the buffer only */
    ck_assert_uint_eq(npk_wal_get_end(f.wal).seq, 2);
    OK(&f, npk_wal_undo(f.wal, seam, 2, 0, &f.err));
    f.count = 0;
    ck_assert_int_eq(scan_with(&f, seam, seam, 0), NPK_WAL_CLEAN);
    ck_assert_uint_eq(f.scan.end.seq, 2);
    ck_assert_uint_eq(f.scan.end.lsn, seam);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a ;");
    ck_assert_uint_eq(f.scan.end.seq, 2);
    bool has_tail;
    OK(&f, npk_wal_has_tail(f.wal, &f.end, &has_tail, &f.err)); /* f.end is in segment 1 */
    ck_assert(has_tail);
    OK(&f, npk_wal_has_tail(f.wal, &f.scan.end, &has_tail, &f.err));
    ck_assert(!has_tail);
    transact(&f, "c", 1);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a ;c ;");
    fixture_close(&f);
}
END_TEST

START_TEST(transaction_may_span_segments)
{
    fixture f;
    char trace[1024] = "";
    fixture_create(&f);
    for (unsigned i = 0; i < 30; i++) {
        char word[8];
        (void)snprintf(word, sizeof word, "%u", i);
        put(&f, word, 20000);
        size_t used = strlen(trace);
        (void)snprintf(trace + used, sizeof trace - used, "%s ", word);
    }
    commit(&f);
    strcat(trace, ";");
    ck_assert_uint_gt(f.end.seq, 8);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, trace);
    fixture_close(&f);
}
END_TEST

START_TEST(undo_in_the_buffer_leaves_no_trace)
{
    fixture f;
    fixture_create(&f);
    transact(&f, "a", 100);
    npk_wal_end before = npk_wal_get_end(f.wal);
    put(&f, "x", 100);
    npk_wal_end between = npk_wal_get_end(f.wal);
    put(&f, "y", 100);
    ck_assert_int_eq(npk_wal_undo(f.wal, between.lsn + 8, 2, 0, &f.err), NPK_MISUSE);
    OK(&f, npk_wal_undo(f.wal, between.lsn, 2, 0, &f.err));
    npk_wal_end after = npk_wal_get_end(f.wal);
    ck_assert_uint_eq(after.lsn, between.lsn);
    ck_assert_uint_eq(after.last_checksum, between.last_checksum);
    OK(&f, npk_wal_undo(f.wal, before.lsn, 2, 0, &f.err));
    after = npk_wal_get_end(f.wal);
    ck_assert_uint_eq(after.last_checksum, before.last_checksum);
    ck_assert_int_eq(npk_wal_undo(f.wal, after.lsn + 64, 2, 0, &f.err), NPK_MISUSE);
    f.count = 0;
    transact(&f, "b", 100);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a ;b ;");
    fixture_close(&f);
}
END_TEST

START_TEST(undo_of_spilled_records_writes_a_void_record)
{
    fixture f;
    fixture_create(&f);
    put(&f, "keep", 100);
    uint64_t savepoint = npk_wal_get_end(f.wal).lsn;
    for (unsigned i = 0; i < 10; i++)
        put(&f, "spilled", 30000); /* rolls several times, and is written by that */
    ck_assert_uint_gt(npk_wal_written_lsn(f.wal), savepoint);
    OK(&f, npk_wal_undo(f.wal, savepoint, f.transaction + 1, 0, &f.err));
    f.count = 1;
    put(&f, "more", 10);
    commit(&f);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "keep more ;");
    /* A whole transaction undone, then another one. */
    uint64_t begin = npk_wal_get_end(f.wal).lsn;
    put(&f, "gone", 100);
    OK(&f, npk_wal_write(f.wal, &f.err));
    OK(&f, npk_wal_undo(f.wal, begin, f.transaction + 1, 0, &f.err));
    f.count = 0;
    f.transaction++;
    OK(&f, npk_wal_write(f.wal, &f.err));
    ASSERT_SCAN(&f, NPK_WAL_TORN, "keep more ;");
    ck_assert_str_eq(f.scan.case_name, "uncommitted records");
    transact(&f, "next", 1);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "keep more ;next ;");
    fixture_close(&f);
}
END_TEST

START_TEST(buffer_is_written_out_above_four_mebibytes_without_a_sync)
{
    fixture f;
    fixture_open(&f, memory_io_create(NULL));
    npk_wal_close(f.wal);
    npk_file *directory;
    bool created;
    ck_assert_int_eq(f.io->open_root(f.io, ROOT, true, &directory, &created), 0);
    npk_wal_options options = {.io = f.io, .segment_size = 16u << 20};
    OK(&f, npk_wal_open(directory, &options, &f.wal, &f.err));
    ck_assert_uint_eq(npk_wal_payload_max(f.wal), NPK_WAL_PAYLOAD_MAX);
    OK(&f, npk_wal_create(f.wal, &f.end, &f.err));
    OK(&f, npk_wal_start(f.wal, &f.end, &f.err));
    uint64_t syncs = npk_wal_count(f.wal).syncs;
    for (unsigned i = 0; i < 4; i++)
        put(&f, "m", 1000000);
    ck_assert_uint_eq(npk_wal_written_lsn(f.wal), f.end.lsn);
    put(&f, "n", 1000000);
    ck_assert_uint_eq(npk_wal_written_lsn(f.wal), npk_wal_get_end(f.wal).lsn);
    ck_assert_uint_eq(npk_wal_count(f.wal).syncs, syncs);
    commit(&f);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "m m m m n ;");
    fixture_close(&f);
}
END_TEST

START_TEST(record_as_large_as_a_segment_fits_and_a_larger_one_is_invalid)
{
    fixture f;
    fixture_create(&f);
    transact(&f, "a", 100);
    npk_wal_end before = npk_wal_get_end(f.wal);
    size_t max = npk_wal_payload_max(f.wal);
    static uint8_t data[NPK_WAL_PAYLOAD_MAX + 1];
    npk_wal_place place;
    ck_assert_int_eq(npk_wal_append(f.wal, 16, 2, 0, "x", 1, data, max, false, &place, &f.err), NPK_INVALID);
    ck_assert_int_eq(npk_wal_append(f.wal, 16, 2, 0, data, max + 1, NULL, 0, false, &place, &f.err), NPK_INVALID);
    ck_assert_int_eq(npk_wal_append(f.wal, 16, 2, before.lsn + 8, "x", 1, NULL, 0, false, &place, &f.err), NPK_INVALID);
    ck_assert_uint_eq(npk_wal_get_end(f.wal).lsn, before.lsn);
    ck_assert(!npk_wal_in_doubt(f.wal));
    put(&f, "b", max - 1);
    commit(&f);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a ;b ;");
    fixture_close(&f);
}
END_TEST

START_TEST(data_is_read_again_whole_and_in_parts_packed_or_not)
{
    fixture f;
    static uint8_t data[60000], out[60000];
    fixture_create(&f);
    for (unsigned k = 0; k < 3; k++) {
        rng r = rng_seeded(k);
        bool compressible = k < 2; /* last: a failure makes the next attempts be skipped */
        for (size_t i = 0; i < sizeof data; i++)
            data[i] = compressible ? (uint8_t)(i / 50) : (uint8_t)rng_next(&r);
        npk_wal_place place = put_data(&f, "meta", data, k == 1 ? 1000 : sizeof data - 10000, true);
        commit(&f);
        size_t size = k == 1 ? 1000 : sizeof data - 10000;
        ck_assert_int_eq(place.packed, k == 0);
        npk_segment *segment;
        OK(&f, npk_wal_segment(f.wal, place.seq, &segment, &f.err));
        for (unsigned round = 0; round < 50; round++) {
            size_t first = (size_t)rng_below(&r, size), part = (size_t)rng_below(&r, size - first + 1);
            memset(out, 0, sizeof out);
            OK(&f, npk_segment_read_data(segment, place.offset, first, out, part, round % 2, &f.err));
            ck_assert_mem_eq(out, data + first, part);
        }
        if (!place.packed) {
            OK(&f, npk_segment_read(segment, place.data_offset, out, size, &f.err));
            ck_assert_mem_eq(out, data, size);
        }
        ck_assert_int_eq(npk_segment_read_data(segment, place.offset, 1, out, size, false, &f.err), NPK_CORRUPT);
        ck_assert_int_eq(npk_segment_read_data(segment, place.offset + 8, 0, out, 1, false, &f.err), NPK_CORRUPT);
        ck_assert_int_eq(npk_segment_read_data(segment, UINT64_MAX - 7, 0, out, 1, false, &f.err), NPK_CORRUPT);
        ck_assert_int_eq(npk_segment_read(segment, SEGMENT_SIZE - 4, out, 8, &f.err), NPK_CORRUPT);
        ck_assert_int_eq(npk_segment_read(segment, UINT64_MAX, out, 8, &f.err), NPK_CORRUPT);
        npk_segment_release(segment);
    }
    fixture_close(&f);
}
END_TEST

START_TEST(damaged_data_is_found_by_the_checksum)
{
    fixture f;
    static uint8_t data[20000], out[20000];
    fixture_create(&f);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i / 50);
    npk_wal_place raw = put_data(&f, "raw", data, sizeof data, false);
    npk_wal_place packed = put_data(&f, "packed", data, sizeof data, true);
    ck_assert(packed.packed);
    commit(&f);
    uint8_t bad[3] = {0xA5, 0x5A, 0xFF};
    damage(&f, 1, raw.data_offset + 10000, bad, 3);
    damage(&f, 1, packed.data_offset + 40, bad, 3);
    npk_segment *segment;
    OK(&f, npk_wal_segment(f.wal, 1, &segment, &f.err));
    ck_assert_int_eq(npk_segment_read_data(segment, raw.offset, 0, out, 10, true, &f.err), NPK_CORRUPT);
    char expected[128];
    (void)snprintf(expected, sizeof expected, "segment \"0000000000000001.wal\": offset %u: checksum mismatch",
                   (unsigned)raw.offset);
    ck_assert_str_eq(f.err.message, expected);
    ck_assert_int_eq(npk_segment_read_data(segment, packed.offset, 0, out, 10, true, &f.err), NPK_CORRUPT);
    for (uint64_t offset = packed.data_offset; offset < packed.data_offset + 12; offset++) { /* the table */
        damage(&f, 1, offset, bad + 2, 1);
        ck_assert_int_eq(npk_segment_read_data(segment, packed.offset, 0, out, 10, false, &f.err), NPK_CORRUPT);
    }
    npk_segment_release(segment);
    fixture_close(&f);
}
END_TEST

START_TEST(packing_backs_off_when_it_does_not_pay_and_comes_back)
{
    fixture f;
    static uint8_t noise[2000], zeros[2000];
    fixture_create(&f);
    rng r = rng_seeded(1);
    rng_fill(&r, noise, sizeof noise);
    ck_assert(put_data(&f, "z", zeros, sizeof zeros, true).packed);
    ck_assert(!put_data(&f, "n", noise, sizeof noise, true).packed);
    ck_assert(!put_data(&f, "z", zeros, sizeof zeros, true).packed); /* skipped twice */
    ck_assert(!put_data(&f, "z", zeros, sizeof zeros, true).packed);
    ck_assert(put_data(&f, "z", zeros, sizeof zeros, true).packed);
    ck_assert(!put_data(&f, "z", zeros, sizeof zeros, false).packed);
    ck_assert(!put_data(&f, "z", zeros, 1000, true).packed);
    commit(&f);
    fixture_close(&f);
}
END_TEST

static int find_spare(void *context, const char *name)
{
    if (strncmp(name, "spare-", 6) == 0)
        strcpy(context, name);
    return 0;
}

START_TEST(spare_is_used_by_the_next_roll)
{
    fixture f;
    fixture_create(&f);
    ck_assert(!npk_wal_has_spare(f.wal));
    ck_assert_uint_eq(npk_wal_count(f.wal).spares, 1); /* the first segment was one */
    OK(&f, npk_wal_prepare_spare(f.wal, &f.err));
    OK(&f, npk_wal_prepare_spare(f.wal, &f.err));
    ck_assert(npk_wal_has_spare(f.wal));
    ck_assert_uint_eq(file_count(&f), 2);
    uint64_t allocations = memory_io_count(f.disk, IO_CALL_ALLOCATE);
    put(&f, "a", 50000);
    put(&f, "b", 50000);
    commit(&f);
    ck_assert_uint_eq(memory_io_count(f.disk, IO_CALL_ALLOCATE), allocations);
    ck_assert(!npk_wal_has_spare(f.wal));
    ck_assert_uint_eq(file_count(&f), 2);
    ck_assert_uint_eq(npk_wal_count(f.wal).spares, 2);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a b ;");
    OK(&f, npk_wal_prepare_spare(f.wal, &f.err));
    OK(&f, npk_wal_remove_leftovers(f.wal, &f.err)); /* its own stays */
    ck_assert_uint_eq(file_count(&f), 3);
    fixture g;
    fixture_open(&g, f.disk);
    OK(&g, npk_wal_remove_leftovers(g.wal, &g.err)); /* and that of a living neighbour */
    ck_assert_uint_eq(file_count(&f), 3);
    char name[NPK_WAL_NAME_SIZE];
    ck_assert_int_eq(f.io->list(f.io, g.wal->directory, find_spare, name), 0);
    ck_assert_int_eq(f.io->unlink(f.io, g.wal->directory, name), 0);
    npk_wal_close(g.wal);
    ck_assert_uint_eq(file_count(&f), 2);
    put(&f, "c", 50000); /* the spare is gone: made anew */
    put(&f, "d", 50000);
    commit(&f);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a b ;c d ;");
    OK(&f, npk_wal_prepare_spare(f.wal, &f.err));
    size_t count = file_count(&f);
    reopen(&f);
    ck_assert_uint_eq(file_count(&f), count - 1); /* close takes its spare along */
    fixture_close(&f);
}
END_TEST

START_TEST(spare_of_a_wrong_size_is_not_used)
{
    fixture f;
    char name[64] = "";
    fixture_create(&f);
    OK(&f, npk_wal_prepare_spare(f.wal, &f.err));
    npk_file *root;
    bool created;
    ck_assert_int_eq(f.io->open_root(f.io, ROOT, false, &root, &created), 0);
    ck_assert_int_eq(f.io->list(f.io, root, find_spare, name), 0);
    f.io->close(f.io, root);
    ck_assert_int_eq(memory_io_set_size(f.disk, ROOT, name, SEGMENT_SIZE - 4096), 0);
    put(&f, "a", 50000);
    put(&f, "b", 50000);
    commit(&f);
    ck_assert_uint_eq(file_count(&f), 2);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a b ;");
    fixture_close(&f);
}
END_TEST

static void count_segments(void *context, const npk_segment_info *info)
{
    ck_assert(info->valid);
    ck_assert_uint_eq(info->size, SEGMENT_SIZE);
    ++*(size_t *)context;
}

START_TEST(reclaim_removes_the_oldest_segments_and_the_rest_is_readable)
{
    fixture f;
    char trace[1024] = "";
    fixture_create(&f);
    transact_many(&f, 0, 20, 9000, trace, sizeof trace);
    size_t count = 0;
    OK(&f, npk_wal_list(f.wal, count_segments, &count, &f.err));
    ck_assert_uint_eq(count, f.end.seq);
    npk_segment *held;
    OK(&f, npk_wal_segment(f.wal, 1, &held, &f.err));
    uint64_t removed = 0;
    OK(&f, npk_wal_reclaim(f.wal, 3, &removed, &f.err));
    ck_assert_uint_eq(removed, 2);
    ck_assert(!file_exists(&f, 1) && !file_exists(&f, 2) && file_exists(&f, 3));
    uint8_t bytes[8];
    OK(&f, npk_segment_read(held, 0, bytes, 8, &f.err)); /* in use: stays open */
    npk_segment_release(held);
    ck_assert_int_eq(npk_wal_segment(f.wal, 1, &held, &f.err), NPK_CORRUPT);
    npk_wal_scan s = {.from_lsn = NPK_WAL_FIRST_LSN};
    ck_assert_int_eq(npk_wal_scan_log(f.wal, &s, &f.err), NPK_CORRUPT);
    OK(&f, npk_wal_segment(f.wal, 3, &held, &f.err));
    npk_segment_release(held);
    ck_assert_int_eq(scan_with(&f, f.end.lsn, f.end.lsn, 0), NPK_WAL_CLEAN);
    ck_assert_uint_eq(f.scan.oldest_seq, 3);
    ck_assert_int_eq(scan_with(&f, f.scan.oldest_first_lsn, 0, 0), NPK_WAL_CLEAN);
    ck_assert_uint_gt(f.scan.transaction_count, 5);
    fixture_close(&f);
}
END_TEST

START_TEST(cache_keeps_few_segments_open_and_hands_out_the_same_one)
{
    fixture f;
    char trace[4096] = "";
    fixture_create(&f);
    transact_many(&f, 0, 25, 40000, trace, sizeof trace);
    npk_segment *a, *b;
    OK(&f, npk_wal_segment(f.wal, 1, &a, &f.err));
    OK(&f, npk_wal_segment(f.wal, 1, &b, &f.err));
    ck_assert_ptr_eq(a, b);
    npk_segment_release(b);
    npk_wal_forget_segments(f.wal);
    OK(&f, npk_wal_segment(f.wal, 1, &b, &f.err));
    ck_assert_ptr_ne(a, b);
    npk_segment_release(a);
    npk_segment_release(b);
    for (uint64_t seq = 1; seq <= f.end.seq; seq++) {
        OK(&f, npk_wal_segment(f.wal, seq, &a, &f.err));
        npk_segment_release(a);
    }
    ck_assert_uint_gt(f.end.seq, NPK_WAL_CACHE_COUNT);
    ck_assert_uint_le(memory_io_open_count(f.disk), NPK_WAL_CACHE_COUNT + 2);
    fixture_close(&f);
}
END_TEST

START_TEST(watermark_record_moves_the_end_and_is_not_visited)
{
    fixture f;
    fixture_create(&f);
    transact(&f, "a", 10);
    OK(&f, npk_wal_append(f.wal, NPK_RECORD_WATERMARK, 0, f.end.lsn, NULL, 0, NULL, 0, false, NULL, &f.err));
    OK(&f, npk_wal_sync(f.wal, &f.err));
    npk_wal_end end = npk_wal_get_end(f.wal);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a ;");
    ck_assert_uint_eq(f.scan.end.lsn, end.lsn);
    ck_assert_uint_eq(f.scan.durable_lsn, f.end.lsn);
    ck_assert_uint_eq(f.scan.transaction_count, 1);
    fixture_close(&f);
}
END_TEST

static npk_status refuse_visit(void *context, const npk_record *record, npk_error *err)
{
    (void)context, (void)record;
    if (err)
        err->status = NPK_INTERRUPTED;
    return NPK_INTERRUPTED;
}

START_TEST(status_of_the_visitor_ends_the_scan)
{
    fixture f;
    fixture_create(&f);
    transact(&f, "a", 10);
    npk_wal_scan s = {.from_lsn = NPK_WAL_FIRST_LSN, .visit = refuse_visit};
    ck_assert_int_eq(npk_wal_scan_log(f.wal, &s, &f.err), NPK_INTERRUPTED);
    fixture_close(&f);
}
END_TEST

typedef struct sync_thread {
    npk_wal *wal;
    uint64_t rounds;
} sync_thread;

static void *sync_often(void *context)
{
    sync_thread *t = context;
    npk_error err;
    bool sync_failed;
    for (uint64_t i = 0; i < t->rounds; i++)
        if (npk_wal_sync_segment(t->wal, 1 + i % 3, &sync_failed, &err) != NPK_OK && err.status != NPK_CORRUPT)
            return (void *)t;
    return NULL;
}

START_TEST(segments_are_synced_and_spares_prepared_while_the_writer_appends)
{
    fixture f;
    fixture_create(&f);
    pthread_t thread;
    sync_thread t = {f.wal, 300};
    ck_assert_int_eq(npk_thread_start(&thread, sync_often, &t), 0);
    for (unsigned i = 0; i < 100; i++) {
        transact(&f, "w", 3000);
        OK(&f, npk_wal_prepare_spare(f.wal, &f.err));
    }
    void *result;
    ck_assert_int_eq(pthread_join(thread, &result), 0);
    ck_assert_ptr_null(result);
    ck_assert_int_eq(scan(&f), NPK_WAL_CLEAN);
    ck_assert_uint_eq(f.scan.transaction_count, 100);
    fixture_close(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wal_log");
    TCase *tc = tcase_create("log");
    suite_add_tcase(suite, tc);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, new_log_is_empty_and_clean);
    tcase_add_test(tc, committed_transactions_are_read_back_in_order_and_appending_goes_on_in_place);
    tcase_add_test(tc, creating_over_records_is_refused_and_over_an_unfinished_creation_allowed);
    tcase_add_test(tc, log_rolls_and_a_scan_walks_over_the_segments_from_any_boundary);
    tcase_add_test(tc, scan_from_the_seam_of_two_segments_gives_the_current_one);
    tcase_add_test(tc, transaction_may_span_segments);
    tcase_add_test(tc, undo_in_the_buffer_leaves_no_trace);
    tcase_add_test(tc, undo_of_spilled_records_writes_a_void_record);
    tcase_add_test(tc, buffer_is_written_out_above_four_mebibytes_without_a_sync);
    tcase_add_test(tc, record_as_large_as_a_segment_fits_and_a_larger_one_is_invalid);
    tcase_add_test(tc, data_is_read_again_whole_and_in_parts_packed_or_not);
    tcase_add_test(tc, damaged_data_is_found_by_the_checksum);
    tcase_add_test(tc, packing_backs_off_when_it_does_not_pay_and_comes_back);
    tcase_add_test(tc, spare_is_used_by_the_next_roll);
    tcase_add_test(tc, spare_of_a_wrong_size_is_not_used);
    tcase_add_test(tc, reclaim_removes_the_oldest_segments_and_the_rest_is_readable);
    tcase_add_test(tc, cache_keeps_few_segments_open_and_hands_out_the_same_one);
    tcase_add_test(tc, watermark_record_moves_the_end_and_is_not_visited);
    tcase_add_test(tc, status_of_the_visitor_ends_the_scan);
    tcase_add_test(tc, segments_are_synced_and_spares_prepared_while_the_writer_appends);
    return run_suite(suite);
}
