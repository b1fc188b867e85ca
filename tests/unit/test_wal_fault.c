/* test_wal_fault.c - the k-th call to the system, or the k-th allocation, fails, for every k: nothing acknowledged is lost, nothing leaks, and the
 * log is usable again after what the store does then. */
#include "test_wal_fixture.h"

#include <errno.h>

#include "alloc.h"

/* Counts down over all calls that can fail; at zero the call fails with what errno_value says. */
static struct faults {
    npk_io real;
    int64_t countdown; /* negative: never */
    int errno_value;
    bool lasting; /* every later call fails too */
    unsigned fired;
} faults;

static int fault(void)
{
    if (faults.countdown < 0 || faults.countdown-- > 0)
        return 0;
    faults.countdown = faults.lasting ? 0 : -1;
    faults.fired++;
    return faults.errno_value;
}

#define FAULTY(name, parameters, arguments)                                                                                   \
    static int faulty_##name parameters                                                                                       \
    {                                                                                                                         \
        int rc = fault();                                                                                                     \
        return rc ? rc : faults.real.name arguments;                                                                          \
    }
FAULTY(open, (const npk_io *io, npk_file *directory, const char *name, unsigned flags, npk_file **file),
       (io, directory, name, flags, file))
FAULTY(read, (const npk_io *io, npk_file *file, uint64_t offset, void *bytes, size_t size, size_t *done),
       (io, file, offset, bytes, size, done))
FAULTY(write, (const npk_io *io, npk_file *file, uint64_t offset, const void *bytes, size_t size, size_t *done),
       (io, file, offset, bytes, size, done))
FAULTY(sync, (const npk_io *io, npk_file *file), (io, file))
FAULTY(allocate, (const npk_io *io, npk_file *file, uint64_t offset, uint64_t size), (io, file, offset, size))
FAULTY(info, (const npk_io *io, npk_file *file, npk_file_info *info), (io, file, info))
FAULTY(info_at, (const npk_io *io, npk_file *directory, const char *name, npk_file_info *info), (io, directory, name, info))
FAULTY(rename, (const npk_io *io, npk_file *directory, const char *from, const char *to), (io, directory, from, to))
FAULTY(unlink, (const npk_io *io, npk_file *directory, const char *name), (io, directory, name))
FAULTY(list, (const npk_io *io, npk_file *directory, int (*visit)(void *, const char *), void *context),
       (io, directory, visit, context))
FAULTY(random, (const npk_io *io, void *bytes, size_t size), (io, bytes, size))

static void put_faults_in(fixture *f)
{
    npk_io *table = (npk_io *)f->io; /* the memory disk finds itself through this very table */
    faults.real = *table;
    faults.countdown = -1;
    table->open = faulty_open;
    table->read = faulty_read;
    table->write = faulty_write;
    table->sync = faulty_sync;
    table->allocate = faulty_allocate;
    table->info = faulty_info;
    table->info_at = faulty_info_at;
    table->rename = faulty_rename;
    table->unlink = faulty_unlink;
    table->list = faulty_list;
    table->random = faulty_random;
}

static int fail_allocation(void *context, size_t size)
{
    (void)context, (void)size;
    return fault();
}

/* One record with its commit record, synced. */
static npk_status commit_one(fixture *f, const char *word, size_t size)
{
    static uint8_t data[50000];
    uint8_t meta[NPK_COMMIT_META_SIZE];
    npk_commit_encode(1, 1, meta);
    npk_status status = npk_wal_append(f->wal, 16, 7, f->durable, word, 1, data, size, false, NULL, &f->err);
    if (status == NPK_OK)
        status = npk_wal_append(f->wal, NPK_RECORD_COMMIT, 7, f->durable, meta, sizeof meta, NULL, 0, false, NULL, &f->err);
    return status == NPK_OK ? npk_wal_sync(f->wal, &f->err) : status;
}

/* Everything a store does with its log; stops at the first failure. *acknowledged counts commits. */
static npk_status work(fixture *f, unsigned *acknowledged)
{
    static const char *const words[] = {"a", "b", "c", "d"};
    npk_status status = npk_wal_start(f->wal, &f->end, &f->err);
    for (unsigned i = 0; i < 4 && status == NPK_OK; i++) {
        if (i == 2)
            status = npk_wal_prepare_spare(f->wal, &f->err);
        if (status == NPK_OK)
            status = commit_one(f, words[i], 45000); /* each rolls */
        if (status == NPK_OK)
            ++*acknowledged;
    }
    bool has_tail;
    npk_segment *segment = NULL;
    uint64_t removed;
    uint8_t bytes[16];
    npk_wal_end end = npk_wal_get_end(f->wal);
    if (status == NPK_OK)
        status = npk_wal_has_tail(f->wal, &end, &has_tail, &f->err);
    if (status == NPK_OK)
        status = npk_wal_segment(f->wal, 1, &segment, &f->err);
    if (status == NPK_OK)
        status = npk_segment_read_data(segment, NPK_WAL_HEADER_SIZE, 5, bytes, sizeof bytes, true, &f->err);
    npk_segment_release(segment);
    npk_wal_scan s = {.from_lsn = NPK_WAL_FIRST_LSN, .visit = visit_record, .context = f};
    if (status == NPK_OK)
        status = npk_wal_scan_log(f->wal, &s, &f->err);
    if (status == NPK_OK)
        status = npk_wal_cut(f->wal, &s, &end, &f->err);
    if (status == NPK_OK)
        status = npk_wal_remove_leftovers(f->wal, &f->err);
    if (status == NPK_OK)
        status = npk_wal_reclaim(f->wal, 1, &removed, &f->err);
    return status;
}

static void run(int kind, bool lasting)
{
    static const int errnos[] = {EIO, ENOSPC, EINTR};
    unsigned rounds = 0;
    for (int64_t k = 0;; k++) {
        fixture f;
        fixture_create(&f);
        put_faults_in(&f);
        faults.fired = 0;
        faults.lasting = lasting;
        faults.errno_value = kind < 3 ? errnos[kind] : ENOMEM;
        if (kind == 3) { /* allocations: the table itself does not fail */
            *(npk_io *)f.io = faults.real;
            npk_alloc_set_hook(fail_allocation, NULL);
        }
        unsigned acknowledged = 0;
        faults.countdown = k;
        npk_status status = work(&f, &acknowledged);
        bool fired = faults.fired > 0;
        faults.countdown = -1;
        npk_alloc_set_hook(NULL, NULL);
        if (status != NPK_OK)
            ck_assert_msg(f.err.status == status && f.err.message[0] != '\0', "call %d: status without a message", (int)k);
        reopen(&f);
        recover(&f);
        ck_assert_msg(f.scan.transaction_count >= acknowledged, "call %d: %u acknowledged, %u left", (int)k, acknowledged,
                      (unsigned)f.scan.transaction_count);
        ck_assert(strncmp(f.trace, "a ;b ;c ;d ;", strlen(f.trace)) == 0);
        OK(&f, npk_wal_remove_leftovers(f.wal, &f.err));
        f.transaction = 7;
        transact(&f, "z", 100);
        ck_assert_int_eq(scan(&f), NPK_WAL_CLEAN);
        ck_assert_uint_eq(file_count(&f), f.scan.segment_count); /* no junk */
        *(npk_io *)f.io = faults.real;
        fixture_close(&f); /* finds files left open */
        rounds++;
        if (!fired)
            break;
    }
    ck_assert_uint_gt(rounds, 10);
}

START_TEST(any_call_that_fails_once_leaves_a_usable_log) { run(_i, false); }
END_TEST
START_TEST(calls_that_fail_for_good_leave_a_usable_log)
{
    if (_i != 2) /* EINTR for good would never return */
        run(_i, true);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wal_fault");
    TCase *tc = tcase_create("fault");
    suite_add_tcase(suite, tc);
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, any_call_that_fails_once_leaves_a_usable_log, 0, 4);
    tcase_add_loop_test(tc, calls_that_fail_for_good_leave_a_usable_log, 0, 4);
    return run_suite(suite);
}
