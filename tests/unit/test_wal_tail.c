/* test_wal_tail.c - ends of the log: torn, cut, damaged. A log in doubt: test_wal_doubt.c; crashes: test_wal_crash.c. */
#include "test_wal_fixture.h"

/* ---- torn tails ---------------------------------------------------------------------------------------------------- */

START_TEST(uncommitted_records_are_cut_and_the_log_goes_on_in_a_new_epoch)
{
    fixture f;
    fixture_create(&f);
    transact(&f, "a", 100);
    npk_wal_end kept = f.end;
    put(&f, "x", 100);
    OK(&f, npk_wal_write(f.wal, &f.err));
    reopen(&f);
    bool has_tail = false;
    OK(&f, npk_wal_has_tail(f.wal, &f.end, &has_tail, &f.err));
    ck_assert(has_tail);
    ASSERT_SCAN(&f, NPK_WAL_TORN, "a ;");
    ck_assert_str_eq(f.scan.case_name, "uncommitted records");
    ck_assert_uint_eq(f.scan.end.lsn, kept.lsn);
    ck_assert_uint_eq(f.scan.tail_size, 64 + 8 + 104);
    npk_wal_end end;
    OK(&f, npk_wal_cut(f.wal, &f.scan, &end, &f.err));
    ck_assert_uint_eq(end.lsn, kept.lsn);
    ck_assert_uint_eq(end.epoch, 2);
    ck_assert_uint_eq(end.seq, 2);
    ck_assert_uint_eq(end.first_lsn, kept.lsn);
    ck_assert_uint_eq(end.last_checksum, kept.last_checksum);
    ck_assert_uint_eq(file_count(&f), 2);
    OK(&f, npk_wal_has_tail(f.wal, &kept, &has_tail, &f.err));
    ck_assert(has_tail);
    OK(&f, npk_wal_has_tail(f.wal, &end, &has_tail, &f.err));
    ck_assert(!has_tail);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a ;");
    OK(&f, npk_wal_start(f.wal, &end, &f.err));
    f.count = 0;
    transact(&f, "b", 100);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a ;b ;");
    ck_assert_uint_eq(f.scan.highest_epoch, 2);
    ck_assert_int_eq(npk_wal_start(f.wal, &kept, &f.err), NPK_CORRUPT); /* nothing is appended to a cut segment */
    ck_assert(npk_wal_in_doubt(f.wal));
    fixture_close(&f);
}
END_TEST

START_TEST(torn_bytes_of_every_length_are_cut)
{
    /* The last 4 of the 352 bytes are padding behind the commit's meta: zeros anyway. */
    for (unsigned length = 1; length <= 352 - 5; length += length < 80 ? 1 : 37) {
        fixture f;
        fixture_create(&f);
        transact(&f, "a", 100);
        npk_wal_end kept = f.end;
        transact(&f, "bb", 200); /* its own commit is what gets torn off */
        uint64_t size = f.end.lsn - kept.lsn;
        ck_assert_uint_eq(size, 352);
        static uint8_t zeros[1024];
        damage(&f, 1, offset_in_segment(&kept) + length, zeros, (size_t)(size - length));
        npk_wal_verdict verdict = scan(&f);
        ck_assert_str_eq(f.trace, "a ;");
        ck_assert_msg(verdict == NPK_WAL_TORN, "length %u: %s", length, f.scan.case_name);
        ck_assert_uint_eq(f.scan.end.lsn, kept.lsn);
        recover(&f);
        transact(&f, "c", 50);
        ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a ;c ;");
        fixture_close(&f);
    }
}
END_TEST

START_TEST(remnants_behind_zeros_are_cut)
{
    fixture f;
    fixture_create(&f);
    transact(&f, "a", 100);
    damage(&f, 1, offset_in_segment(&f.end) + 4096, "x", 1);
    ASSERT_SCAN(&f, NPK_WAL_TORN, "a ;");
    ck_assert_str_eq(f.scan.case_name, "remnants behind zeros");
    ck_assert_uint_eq(f.scan.tail_size, 4096 + 8);
    recover(&f);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a ;");
    fixture_close(&f);
}
END_TEST

START_TEST(tail_that_spans_segments_is_cut_in_the_segment_that_holds_the_end)
{
    fixture f;
    fixture_create(&f);
    transact(&f, "a", 100);
    npk_wal_end kept = f.end;
    for (unsigned i = 0; i < 6; i++)
        put(&f, "x", 30000);
    OK(&f, npk_wal_write(f.wal, &f.err));
    uint64_t last_seq = npk_wal_get_end(f.wal).seq;
    ck_assert_uint_gt(last_seq, 3);
    reopen(&f);
    ASSERT_SCAN(&f, NPK_WAL_TORN, "a ;");
    ck_assert_uint_eq(f.scan.end.seq, 1);
    ck_assert_uint_eq(f.scan.end.lsn, kept.lsn);
    ck_assert_uint_eq(f.scan.end.first_lsn, kept.first_lsn);
    ck_assert_uint_eq(f.scan.end.last_checksum, kept.last_checksum);
    ck_assert_uint_eq(f.scan.highest_seq, last_seq);
    ck_assert_uint_gt(f.scan.tail_size, 180000);
    recover(&f);
    ck_assert_uint_eq(f.end.seq, last_seq + 1);
    ck_assert_uint_eq(file_count(&f), 2);
    transact(&f, "b", 1);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a ;b ;");
    fixture_close(&f);
}
END_TEST

/* ---- damage ------------------------------------------------------------------------------------------------------- */

START_TEST(damage_below_a_watermark_seen_further_on_is_refused)
{
    fixture f;
    fixture_create(&f);
    transact(&f, "a", 100);
    npk_wal_end before = f.end;
    transact(&f, "b", 100);
    uint64_t durable = f.end.lsn;
    transact(&f, "c", 100); /* its records carry the watermark behind b */
    damage(&f, 1, offset_in_segment(&before) + 70, "\xff", 1);
    ASSERT_SCAN(&f, NPK_WAL_DAMAGED, "a ;");
    ck_assert_str_eq(f.scan.case_name, "durable bytes are missing");
    ck_assert_uint_eq(f.scan.damaged_lsn, before.lsn);
    ck_assert_uint_eq(f.scan.damaged_until_lsn, durable);
    npk_wal_end end;
    ck_assert_int_eq(npk_wal_cut(f.wal, &f.scan, &end, &f.err), NPK_MISUSE);
    fixture_close(&f);
}
END_TEST

START_TEST(damage_in_the_last_commit_is_refused_only_when_something_proves_it_durable)
{
    fixture f;
    fixture_create(&f);
    transact(&f, "a", 100);
    npk_wal_end before = f.end;
    transact(&f, "b", 100);
    damage(&f, 1, offset_in_segment(&before) + 70, "\xff", 1);
    ASSERT_SCAN(&f, NPK_WAL_TORN, "a ;");
    ck_assert_int_eq(scan_with(&f, NPK_WAL_FIRST_LSN, f.end.lsn, 0), NPK_WAL_DAMAGED); /* a checkpoint */
    OK(&f, npk_wal_append(f.wal, NPK_RECORD_WATERMARK, 0, f.end.lsn, NULL, 0, NULL, 0, false, NULL, &f.err));
    OK(&f, npk_wal_sync(f.wal, &f.err));
    ASSERT_SCAN(&f, NPK_WAL_DAMAGED, "a ;");
    fixture_close(&f);
}
END_TEST

/* Two segments; returns the end of the first. */
static npk_wal_end make_two_segments(fixture *f)
{
    fixture_create(f);
    f->durable = 0; /* no watermark: the segments alone prove */
    put(f, "a", 50000);
    commit(f);
    npk_wal_end seam = f->end;
    f->durable = 0;
    put(f, "b", 50000);
    commit(f);
    ck_assert_uint_eq(f->end.seq, 2);
    ck_assert_uint_eq(f->end.first_lsn, seam.lsn);
    return seam;
}

START_TEST(damage_below_a_later_segment_is_refused)
{
    fixture f;
    npk_wal_end seam = make_two_segments(&f);
    damage(&f, 1, offset_in_segment(&seam) - 10, "\xff", 1);
    ASSERT_SCAN(&f, NPK_WAL_DAMAGED, "");
    ck_assert_uint_eq(f.scan.damaged_until_lsn, seam.lsn);
    fixture_close(&f);
}
END_TEST

START_TEST(loss_of_the_last_segment_is_proven_by_the_mark)
{
    fixture f;
    npk_wal_end seam = make_two_segments(&f);
    ck_assert_int_eq(memory_io_remove(f.disk, ROOT, "0000000000000002.wal"), 0);
    ASSERT_SCAN(&f, NPK_WAL_DAMAGED, "a ;");
    ck_assert_str_eq(f.scan.case_name, "marked successor is missing");
    ck_assert_uint_eq(f.scan.damaged_lsn, seam.lsn);
    fixture_close(&f);
}
END_TEST

START_TEST(loss_of_a_segment_in_the_middle_is_refused)
{
    fixture f;
    npk_wal_end seam = make_two_segments(&f);
    f.durable = 0;
    put(&f, "c", 50000);
    commit(&f);
    uint8_t zeros[64] = {0}; /* even without the mark */
    damage(&f, 1, SEGMENT_SIZE - 4096, zeros, sizeof zeros);
    ck_assert_int_eq(memory_io_remove(f.disk, ROOT, "0000000000000002.wal"), 0);
    ASSERT_SCAN(&f, NPK_WAL_DAMAGED, "a ;");
    ck_assert_uint_eq(f.scan.damaged_lsn, seam.lsn);
    ck_assert_uint_gt(f.scan.damaged_until_lsn, seam.lsn);
    fixture_close(&f);
}
END_TEST

START_TEST(unreadable_header_of_the_last_segment_is_refused)
{
    fixture f;
    (void)make_two_segments(&f);
    damage(&f, 2, 50, "\xff", 1);
    ASSERT_SCAN(&f, NPK_WAL_DAMAGED, "a ;");
    uint8_t zeros[64] = {0};
    damage(&f, 1, SEGMENT_SIZE - 4096, zeros, sizeof zeros);
    ASSERT_SCAN(&f, NPK_WAL_DAMAGED, "a ;");
    fixture_close(&f);
}
END_TEST

static void rewrite_header(fixture *f, uint64_t seq, void (*change)(npk_segment_header *header))
{
    uint8_t bytes[NPK_WAL_HEADER_SIZE];
    npk_segment *segment;
    OK(f, npk_wal_segment(f->wal, seq, &segment, &f->err));
    OK(f, npk_segment_read(segment, 0, bytes, sizeof bytes, &f->err));
    npk_segment_release(segment);
    npk_segment_header header;
    ck_assert_int_eq(npk_segment_header_decode(bytes, sizeof bytes, &header, NULL), NPK_OK);
    change(&header);
    npk_segment_header_encode(&header, bytes);
    damage(f, seq, 0, bytes, sizeof bytes);
}

static void change_previous_checksum(npk_segment_header *h) { h->previous_end_checksum ^= 1; }
static void change_previous_seq(npk_segment_header *h) { h->previous_seq = 0; }
static void change_epoch(npk_segment_header *h) { h->epoch = 9; }
static void change_first_lsn(npk_segment_header *h) { h->first_lsn = h->previous_end_lsn = h->first_lsn - 8; }

START_TEST(successor_that_does_not_fit_the_chain_is_refused)
{
    void (*const changes[])(npk_segment_header *) = {change_previous_checksum, change_previous_seq, change_epoch,
                                                     change_first_lsn};
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        fixture f;
        (void)make_two_segments(&f);
        rewrite_header(&f, 2, changes[i]);
        npk_wal_verdict verdict = scan(&f);
        ck_assert_msg(verdict == NPK_WAL_DAMAGED, "change %zu: %s", i, f.scan.case_name);
        fixture_close(&f);
    }
}
END_TEST

START_TEST(segment_of_another_store_is_refused)
{
    fixture f;
    fixture_create(&f);
    transact(&f, "a", 1);
    npk_wal_close(f.wal);
    npk_file *directory;
    bool created;
    ck_assert_int_eq(f.io->open_root(f.io, ROOT, false, &directory, &created), 0);
    npk_wal_options options = {.io = f.io, .segment_size = SEGMENT_SIZE};
    memcpy(options.uuid, "another store...", 16);
    OK(&f, npk_wal_open(directory, &options, &f.wal, &f.err));
    npk_wal_scan s = {.from_lsn = NPK_WAL_FIRST_LSN};
    ck_assert_int_eq(npk_wal_scan_log(f.wal, &s, &f.err), NPK_CORRUPT);
    npk_segment *segment;
    ck_assert_int_eq(npk_wal_segment(f.wal, 1, &segment, &f.err), NPK_CORRUPT);
    fixture_close(&f);
}
END_TEST

START_TEST(shortened_last_segment_is_refused)
{
    const uint64_t sizes[] = {0, 100, 4095, 4096, 4100, 4200, 8192, SEGMENT_SIZE - 4096, SEGMENT_SIZE - 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        fixture f;
        fixture_create(&f);
        transact(&f, "a", 100);
        ck_assert_int_eq(memory_io_set_size(f.disk, ROOT, "0000000000000001.wal", sizes[i]), 0);
        npk_wal_scan s = {.from_lsn = NPK_WAL_FIRST_LSN};
        npk_status status = npk_wal_scan_log(f.wal, &s, &f.err);
        if (sizes[i] < 4096)
            ck_assert_int_eq(status, NPK_CORRUPT);
        else
            ck_assert(status == NPK_OK && s.verdict == NPK_WAL_DAMAGED);
        fixture_close(&f);
    }
}
END_TEST

START_TEST(commit_record_that_does_not_count_its_records_is_refused)
{
    fixture f;
    fixture_create(&f);
    transact(&f, "a", 10);
    put(&f, "b", 10);
    f.count = 2;
    commit(&f);
    ASSERT_SCAN(&f, NPK_WAL_DAMAGED, "a ;");
    ck_assert_str_eq(f.scan.case_name, "record contradicts the log");
    fixture_close(&f);
}
END_TEST

START_TEST(every_damaged_sector_is_detected_or_harmless)
{
    fixture f;
    char good[2048];
    fixture_create(&f);
    for (unsigned i = 0; i < 12; i++)
        transact(&f, i % 3 ? "p q" : "r", 4500);
    OK(&f, npk_wal_append(f.wal, NPK_RECORD_WATERMARK, 0, f.end.lsn, NULL, 0, NULL, 0, false, NULL, &f.err));
    OK(&f, npk_wal_sync(f.wal, &f.err));
    ck_assert_int_eq(scan(&f), NPK_WAL_CLEAN);
    strcpy(good, f.trace);
    uint64_t last_seq = f.scan.end.seq;
    uint64_t full = f.scan.transaction_count;
    ck_assert_uint_gt(last_seq, 1);
    static uint8_t bytes[SEGMENT_SIZE], sector[512];
    rng r = rng_seeded(3);
    for (uint64_t seq = 1; seq <= last_seq; seq++) {
        npk_segment *segment;
        OK(&f, npk_wal_segment(f.wal, seq, &segment, &f.err));
        OK(&f, npk_segment_read(segment, 0, bytes, sizeof bytes, &f.err));
        npk_segment_release(segment);
        for (uint64_t offset = 0; offset < SEGMENT_SIZE; offset += 512)
            for (unsigned kind = 0; kind < 3; kind++) {
                memcpy(sector, bytes + offset, 512);
                if (kind == 0)
                    memset(sector, 0, 512);
                else if (kind == 1)
                    rng_fill(&r, sector, 512);
                else
                    sector[rng_below(&r, 512)] ^= (uint8_t)(1u << rng_below(&r, 8));
                damage(&f, seq, offset, sector, 512);
                npk_wal_scan s = {.from_lsn = NPK_WAL_FIRST_LSN, .visit = visit_record, .context = &f};
                f.trace[0] = '\0';
                npk_status status = npk_wal_scan_log(f.wal, &s, &f.err);
                ck_assert(status == NPK_OK || status == NPK_CORRUPT);
                ck_assert_msg(strncmp(good, f.trace, strlen(f.trace)) == 0, "wrong content");
                /* The last commit and the watermark behind it lie in one sector: then only a checkpoint can tell. */
                bool takes_both = seq == last_seq && offset + 512 > offset_in_segment(&f.end);
                if (status == NPK_OK && s.verdict != NPK_WAL_DAMAGED && !takes_both)
                    ck_assert_msg(s.transaction_count == full, "segment %u offset %u: lost in silence: %s", (unsigned)seq,
                                  (unsigned)offset, s.case_name);
                s.durable_floor = f.end.lsn;
                s.visit = NULL;
                status = npk_wal_scan_log(f.wal, &s, &f.err);
                if (status == NPK_OK && s.verdict != NPK_WAL_DAMAGED)
                    ck_assert_uint_eq(s.transaction_count, full);
                damage(&f, seq, offset, bytes + offset, 512);
            }
    }
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, good);
    fixture_close(&f);
}
END_TEST

/* ---- the cut ------------------------------------------------------------------------------------------------------ */

START_TEST(cut_without_a_successor_is_torn_until_it_is_cut_again)
{
    fixture f;
    fixture_create(&f);
    transact(&f, "a", 100);
    put(&f, "x", 100);
    OK(&f, npk_wal_write(f.wal, &f.err));
    f.count = 0;
    recover(&f);
    /* As if the crash came before the mark and the new segment. */
    uint8_t zeros[64] = {0};
    damage(&f, 1, SEGMENT_SIZE - 4096, zeros, sizeof zeros);
    ck_assert_int_eq(memory_io_remove(f.disk, ROOT, "0000000000000002.wal"), 0);
    ASSERT_SCAN(&f, NPK_WAL_TORN, "a ;");
    ck_assert_str_eq(f.scan.case_name, "cut without a successor");
    bool has_tail = false;
    f.scan.end.epoch = 1;
    OK(&f, npk_wal_has_tail(f.wal, &f.scan.end, &has_tail, &f.err));
    ck_assert(has_tail);
    recover(&f);
    ck_assert_uint_eq(f.end.epoch, 3);
    transact(&f, "b", 1);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a ;b ;");
    fixture_close(&f);
}
END_TEST

START_TEST(void_segments_and_stale_records_behind_a_cut_are_ignored)
{
    fixture f;
    fixture_create(&f);
    transact(&f, "a", 100);
    npk_wal_end kept = f.end;
    for (unsigned i = 0; i < 3; i++)
        put(&f, "x", 30000);
    commit(&f); /* ends in segment 2 or later */
    ck_assert_uint_gt(f.end.seq, 1);
    uint64_t old_count = file_count(&f);
    static npk_segment_header cut_header;
    uint8_t bytes[NPK_WAL_HEADER_SIZE];
    npk_segment *segment;
    OK(&f, npk_wal_segment(f.wal, 1, &segment, &f.err));
    OK(&f, npk_segment_read(segment, 0, bytes, sizeof bytes, &f.err));
    npk_segment_release(segment);
    ck_assert_int_eq(npk_segment_header_decode(bytes, sizeof bytes, &cut_header, NULL), NPK_OK);
    cut_header.cut_epoch = 2;
    cut_header.cut_lsn = kept.lsn;
    npk_segment_header_encode(&cut_header, bytes);
    damage(&f, 1, 0, bytes, sizeof bytes); /* records stay behind the cut; the mark is gone as in a copy */
    uint8_t zeros[64] = {0};
    damage(&f, 1, SEGMENT_SIZE - 4096, zeros, sizeof zeros);
    ASSERT_SCAN(&f, NPK_WAL_TORN, "a ;");
    ck_assert_uint_eq(f.scan.end.lsn, kept.lsn);
    ck_assert_uint_eq(f.scan.void_segment_count, old_count - 1);
    recover(&f);
    ck_assert_uint_eq(file_count(&f), 2);
    transact(&f, "b", 1);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a ;b ;");
    fixture_close(&f);
}
END_TEST

START_TEST(cuts_follow_each_other)
{
    fixture f;
    char trace[256] = "";
    fixture_create(&f);
    for (unsigned i = 0; i < 8; i++) {
        transact(&f, "k", 10000);
        strcat(trace, "k ;");
        put(&f, "x", 10000);
        OK(&f, npk_wal_write(f.wal, &f.err));
        if (i % 2)
            reopen(&f);
        recover(&f);
        ck_assert_uint_eq(f.end.epoch, i + 2);
        ASSERT_SCAN(&f, NPK_WAL_CLEAN, trace);
    }
    fixture_close(&f);
}
END_TEST

START_TEST(missing_mark_of_a_predecessor_is_written_by_the_next_start)
{
    fixture f;
    (void)make_two_segments(&f);
    uint8_t zeros[64] = {0};
    damage(&f, 1, SEGMENT_SIZE - 4096, zeros, sizeof zeros);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a ;b ;");
    reopen(&f);
    OK(&f, npk_wal_start(f.wal, &f.end, &f.err));
    ck_assert_int_eq(memory_io_remove(f.disk, ROOT, "0000000000000002.wal"), 0);
    ASSERT_SCAN(&f, NPK_WAL_DAMAGED, "a ;");
    fixture_close(&f);
}
END_TEST

/* ---- verification --------------------------------------------------------------------------------------------------- */

typedef struct findings {
    unsigned count;
    uint64_t seq, offset, size, lsn;
} findings;

static void note_finding(void *context, uint64_t seq, uint64_t offset, uint64_t size, uint64_t lsn, const char *reason)
{
    findings *found = context;
    ck_assert_ptr_nonnull(reason);
    if (found->count++ == 0)
        found->seq = seq, found->offset = offset, found->size = size, found->lsn = lsn;
}

static findings verify(fixture *f, uint64_t until_lsn)
{
    findings found = {0};
    OK(f, npk_wal_verify(f->wal, until_lsn, note_finding, NULL, &found, &f->err));
    return found;
}

static int stop_at_once(void *context, uint64_t done_size)
{
    (void)context;
    return done_size > 0;
}

START_TEST(verification_names_what_is_damaged_and_nothing_else)
{
    fixture f;
    npk_wal_end seam = make_two_segments(&f);
    ck_assert_uint_eq(verify(&f, 0).count, 0);
    ck_assert_uint_eq(verify(&f, f.end.lsn).count, 0);
    put(&f, "x", 100);
    OK(&f, npk_wal_write(f.wal, &f.err));
    ck_assert_uint_eq(verify(&f, 0).count, 0); /* a tail is no finding */
    uint64_t commit_offset = offset_in_segment(&seam) - 80;
    damage(&f, 1, 5000, "\xff", 1);
    findings found = verify(&f, 0);
    ck_assert_uint_eq(found.count, 1);
    ck_assert_uint_eq(found.seq, 1);
    ck_assert_uint_eq(found.offset, 4096);
    ck_assert_uint_eq(found.size, commit_offset - 4096);
    ck_assert_uint_eq(found.lsn, 4096);
    damage(&f, 1, commit_offset, "\xff", 1);
    found = verify(&f, 0);
    ck_assert_uint_eq(found.count, 1);
    ck_assert_uint_eq(found.size, offset_in_segment(&seam) - 4096);
    damage(&f, 2, 100, "\xff", 1);
    ck_assert_uint_eq(verify(&f, 0).count, 2);
    findings ignored = {0};
    ck_assert_int_eq(npk_wal_verify(f.wal, 0, note_finding, stop_at_once, &ignored, &f.err), NPK_INTERRUPTED);
    fixture_close(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wal_tail");
    TCase *tc = tcase_create("tail");
    suite_add_tcase(suite, tc);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, uncommitted_records_are_cut_and_the_log_goes_on_in_a_new_epoch);
    tcase_add_test(tc, torn_bytes_of_every_length_are_cut);
    tcase_add_test(tc, remnants_behind_zeros_are_cut);
    tcase_add_test(tc, tail_that_spans_segments_is_cut_in_the_segment_that_holds_the_end);
    tcase_add_test(tc, damage_below_a_watermark_seen_further_on_is_refused);
    tcase_add_test(tc, damage_in_the_last_commit_is_refused_only_when_something_proves_it_durable);
    tcase_add_test(tc, damage_below_a_later_segment_is_refused);
    tcase_add_test(tc, loss_of_the_last_segment_is_proven_by_the_mark);
    tcase_add_test(tc, loss_of_a_segment_in_the_middle_is_refused);
    tcase_add_test(tc, unreadable_header_of_the_last_segment_is_refused);
    tcase_add_test(tc, successor_that_does_not_fit_the_chain_is_refused);
    tcase_add_test(tc, segment_of_another_store_is_refused);
    tcase_add_test(tc, shortened_last_segment_is_refused);
    tcase_add_test(tc, commit_record_that_does_not_count_its_records_is_refused);
    tcase_add_test(tc, every_damaged_sector_is_detected_or_harmless);
    tcase_add_test(tc, cut_without_a_successor_is_torn_until_it_is_cut_again);
    tcase_add_test(tc, void_segments_and_stale_records_behind_a_cut_are_ignored);
    tcase_add_test(tc, cuts_follow_each_other);
    tcase_add_test(tc, missing_mark_of_a_predecessor_is_written_by_the_next_start);
    tcase_add_test(tc, verification_names_what_is_damaged_and_nothing_else);
    return run_suite(suite);
}
