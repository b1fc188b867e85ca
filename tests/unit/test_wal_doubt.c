/* test_wal_doubt.c - a write or sync that failed: never tried again, nothing appended until the tail procedure has run; a full disk. */
#include "test_wal_fixture.h"

#include <errno.h>

/* Functions of the system table that fail at will. The memory disk finds itself through its table, so the functions are put into that
 * very table, one at a time, and what was there is called with it. */
static struct faulting {
    npk_io real; /* the functions as they were */
    int fail_sync, fail_write, fail_allocate; /* errno, 0: pass */
    unsigned sync_count;
} faulting;

static int faulting_sync(const npk_io *io, npk_file *file)
{
    faulting.sync_count++;
    return faulting.fail_sync ? faulting.fail_sync : faulting.real.sync(io, file);
}

static int faulting_write(const npk_io *io, npk_file *file, uint64_t offset, const void *bytes, size_t size, size_t *done)
{
    return faulting.fail_write ? faulting.fail_write : faulting.real.write(io, file, offset, bytes, size, done);
}

static int faulting_allocate(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size)
{
    return faulting.fail_allocate ? faulting.fail_allocate : faulting.real.allocate(io, file, offset, size);
}

static void fixture_create_faulting(fixture *f)
{
    fixture_create(f);
    memset(&faulting, 0, sizeof faulting);
    npk_io *table = (npk_io *)f->io;
    faulting.real = *table;
    table->sync = faulting_sync;
    table->write = faulting_write;
    table->allocate = faulting_allocate;
}

START_TEST(failed_sync_is_never_retried_and_leaves_the_log_in_doubt)
{
    for (memory_io_sync_failure failure = MEMORY_IO_CLEAN_NEW; failure <= MEMORY_IO_DIRTY_OLD; failure++) {
        fixture f;
        fixture_create_faulting(&f);
        transact(&f, "a", 100);
        npk_wal_end published = f.end;
        put(&f, "b", 600);
        append_commit(&f);
        OK(&f, npk_wal_write(f.wal, &f.err));
        /* The failure is played on the file, and the log is told so by the table. */
        faulting.fail_sync = EIO;
        faulting.sync_count = 0;
        ck_assert_int_eq(npk_wal_sync(f.wal, &f.err), NPK_IO);
        ck_assert_int_eq(f.err.sys_errno, EIO);
        memory_io_fail_sync(f.disk, f.wal->current->file, failure);
        ck_assert(npk_wal_in_doubt(f.wal));
        ck_assert_int_eq(npk_wal_sync(f.wal, &f.err), NPK_POISONED);
        bool sync_failed;
        ck_assert_int_eq(npk_wal_sync_segment(f.wal, 1, &sync_failed, &f.err), NPK_POISONED);
        ck_assert_int_eq(npk_wal_sync_segment(f.wal, 99, &sync_failed, &f.err), NPK_CORRUPT);
        ck_assert(!sync_failed);
        ck_assert_int_eq(npk_wal_write(f.wal, &f.err), NPK_POISONED);
        ck_assert_int_eq(npk_wal_append(f.wal, 16, 9, 0, "x", 1, NULL, 0, false, NULL, &f.err), NPK_POISONED);
        ck_assert_int_eq(npk_wal_undo(f.wal, published.lsn, 9, 0, &f.err), NPK_POISONED);
        ck_assert_uint_eq(faulting.sync_count, 1);
        faulting.fail_sync = 0;
        /* Only what was published is kept, whatever the cache shows. */
        npk_wal_verdict verdict = scan_with(&f, NPK_WAL_FIRST_LSN, 0, published.lsn);
        ck_assert_msg(verdict == NPK_WAL_TORN, "%s", f.scan.case_name);
        ck_assert_str_eq(f.trace, "a ;");
        OK(&f, npk_wal_cut(f.wal, &f.scan, &f.end, &f.err));
        ck_assert_int_eq(npk_wal_append(f.wal, 16, 9, 0, "x", 1, NULL, 0, false, NULL, &f.err), NPK_POISONED);
        OK(&f, npk_wal_start(f.wal, &f.end, &f.err));
        f.durable = f.end.lsn;
        f.count = 0;
        transact(&f, "c", 100);
        ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a ;c ;");
        memory_snapshot *snapshot = memory_io_snapshot(f.disk);
        memory_io_selection none = {.select = MEMORY_IO_NONE};
        fixture g;
        fixture_open(&g, memory_io_materialize(snapshot, &none, NULL));
        ASSERT_SCAN(&g, NPK_WAL_CLEAN, "a ;c ;");
        fixture_close(&g);
        memory_snapshot_release(snapshot);
        fixture_close(&f);
    }
}
END_TEST

START_TEST(reported_failure_is_never_clean_and_evidence_behind_the_published_end_is_void)
{
    fixture f;
    fixture_create(&f);
    transact(&f, "a", 100);
    npk_wal_end published = f.end;
    ck_assert_int_eq(scan_with(&f, NPK_WAL_FIRST_LSN, 0, published.lsn), NPK_WAL_TORN);
    ck_assert_str_eq(f.scan.case_name, "failed sync was reported");
    for (unsigned i = 0; i < 8; i++)
        transact(&f, "x", 20000); /* rolls: segments, marks and watermarks behind the published end */
    ck_assert_int_eq(scan_with(&f, NPK_WAL_FIRST_LSN, 0, published.lsn), NPK_WAL_TORN);
    ck_assert_str_eq(f.trace, "a ;");
    ck_assert_uint_eq(f.scan.end.lsn, published.lsn);
    ck_assert_uint_eq(f.scan.end.seq, 1);
    /* Below the published end damage is seen, or lost when nothing proves that it was durable. */
    damage(&f, 1, offset_in_segment(&published) - 10, "\xff", 1);
    ck_assert_int_eq(scan_with(&f, NPK_WAL_FIRST_LSN, 0, published.lsn), NPK_WAL_TORN);
    ck_assert_str_eq(f.trace, "");
    ck_assert_int_eq(scan_with(&f, NPK_WAL_FIRST_LSN, published.lsn, published.lsn), NPK_WAL_DAMAGED);
    fixture_close(&f);
}
END_TEST

START_TEST(failed_write_leaves_the_log_in_doubt)
{
    fixture f;
    fixture_create_faulting(&f);
    transact(&f, "a", 100);
    put(&f, "b", 100);
    faulting.fail_write = EIO;
    ck_assert_int_eq(npk_wal_write(f.wal, &f.err), NPK_IO);
    faulting.fail_write = 0;
    ck_assert_int_eq(npk_wal_write(f.wal, &f.err), NPK_POISONED);
    f.count = 0;
    recover(&f);
    transact(&f, "c", 100);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a ;c ;");
    fixture_close(&f);
}
END_TEST

START_TEST(full_disk_at_a_roll_appends_nothing_and_leaves_the_log_usable)
{
    fixture f;
    fixture_create_faulting(&f);
    transact(&f, "a", 100);
    uint64_t begin = f.end.lsn;
    faulting.fail_allocate = ENOSPC;
    static uint8_t data[8192];
    npk_status status = NPK_OK;
    unsigned count = 0;
    while (status == NPK_OK && count < 100) {
        status = npk_wal_append(f.wal, 16, f.transaction + 1, 0, "x", 1, data, 3000, false, NULL, &f.err);
        count += status == NPK_OK;
    }
    ck_assert_int_eq(status, NPK_NO_SPACE);
    ck_assert(!npk_wal_in_doubt(f.wal));
    /* Fill it up to the last record that fits: the void record still does. */
    while (npk_wal_append(f.wal, 16, f.transaction + 1, 0, "", 0, NULL, 0, false, NULL, &f.err) == NPK_OK)
        ;
    OK(&f, npk_wal_undo(f.wal, begin, f.transaction + 1, 0, &f.err));
    OK(&f, npk_wal_sync(f.wal, &f.err));
    ck_assert_uint_eq(npk_wal_get_end(f.wal).seq, 1);
    ck_assert_uint_eq(file_count(&f), 1);
    f.transaction++;
    ck_assert_int_eq(npk_wal_append(f.wal, 16, f.transaction + 1, 0, "x", 1, NULL, 0, false, NULL, &f.err), NPK_NO_SPACE);
    faulting.fail_allocate = 0;
    transact(&f, "b", 100);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a ;b ;");
    fixture_close(&f);
}
END_TEST

START_TEST(allocation_that_is_not_supported_is_replaced_by_zeros)
{
    fixture f;
    fixture_create_faulting(&f);
    faulting.fail_allocate = EOPNOTSUPP;
    put(&f, "a", 50000);
    put(&f, "b", 50000);
    commit(&f);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, "a b ;");
    ck_assert_uint_eq(f.scan.end.seq, 2);
    fixture_close(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wal_doubt");
    TCase *tc = tcase_create("doubt");
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, failed_sync_is_never_retried_and_leaves_the_log_in_doubt);
    tcase_add_test(tc, reported_failure_is_never_clean_and_evidence_behind_the_published_end_is_void);
    tcase_add_test(tc, failed_write_leaves_the_log_in_doubt);
    tcase_add_test(tc, full_disk_at_a_roll_appends_nothing_and_leaves_the_log_usable);
    tcase_add_test(tc, allocation_that_is_not_supported_is_replaced_by_zeros);
    return run_suite(suite);
}
