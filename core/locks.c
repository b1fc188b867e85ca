/* locks.c - taking byte ranges of LOCK, at once or with patience. */
#include "locks.h"

#include <errno.h>

#include "bytes.h"
#include "error.h"
#include "store_files.h"

enum { PAUSE_FIRST_US = 20, PAUSE_MAX_US = 2000, INTERRUPT_EVERY_US = 20 * 1000 };

npk_status npk_locks_try(const npk_io *io, npk_file *lock_file, uint64_t byte, npk_lock_kind kind, bool *got,
                         npk_error *err)
{
    int rc;
    do
        rc = io->lock(io, lock_file, byte, 1, kind);
    while (rc == EINTR);
    if (rc && rc != EAGAIN && rc != EACCES)
        return npk_fail_errno(err, rc, "could not lock byte %llu of \"%s\"", (unsigned long long)byte, NPK_FILE_LOCK);
    *got = rc == 0;
    return NPK_OK;
}

npk_status npk_locks_wait(const npk_io *io, npk_file *lock_file, uint64_t byte, npk_lock_kind kind, const npk_wait *wait,
                          npk_error *err)
{
    uint64_t start = io->monotonic_us(io);
    uint64_t asked = start; /* when interrupt was called last */
    uint64_t pause = PAUSE_FIRST_US;
    for (;;) {
        bool got = false;
        npk_status status = npk_locks_try(io, lock_file, byte, kind, &got, err);
        if (status != NPK_OK || got)
            return status;
        uint64_t now = io->monotonic_us(io);
        uint64_t waited = now - start;
        if (waited >= wait->timeout_us)
            return npk_fail(err, NPK_BUSY, "another process holds the lock, %llu ms waited",
                            (unsigned long long)(waited / 1000));
        if (wait->interrupt && now - asked >= INTERRUPT_EVERY_US) {
            asked = now;
            if (wait->interrupt(wait->context))
                return npk_fail(err, NPK_INTERRUPTED, "interrupted while waiting for a lock");
        }
        io->sleep_us(io, npk_min_u64(pause, wait->timeout_us - waited));
        pause = npk_min_u64(pause * 2, PAUSE_MAX_US);
    }
}

void npk_locks_release(const npk_io *io, npk_file *lock_file, uint64_t byte)
{
    (void)io->lock(io, lock_file, byte, 1, NPK_LOCK_NONE);
}

npk_status npk_locks_check_name(const npk_io *io, npk_file *directory, const npk_file_info *opened, npk_error *err)
{
    npk_file_info named;
    int rc = io->info_at(io, directory, NPK_FILE_LOCK, &named);
    if (rc && rc != ENOENT)
        return npk_fail_errno(err, rc, "could not examine \"%s\"", NPK_FILE_LOCK);
    bool same = rc == 0 && named.is_regular && named.device == opened->device && named.inode == opened->inode;
    return same ? NPK_OK : npk_fail(err, NPK_MISUSE, "the store was removed, moved or replaced while it was open");
}
