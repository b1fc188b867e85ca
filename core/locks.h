/* locks.h - byte ranges of the LOCK file. Order: GATE, COMPACTOR, WRITER, then LMDB's own.
 *
 * OFD locks belong to the open file; a process has one open LOCK per store (registry in opening.c), so threads of one process need the
 * mutexes of the store in addition. A dead process gives its locks up. */
#ifndef NPK_CORE_LOCKS_H
#define NPK_CORE_LOCKS_H

#include <stdbool.h>
#include "io.h"
#include "npk.h"

enum { NPK_LOCK_GATE = 0, NPK_LOCK_OPEN = 1, NPK_LOCK_WRITER = 2, NPK_LOCK_COMPACTOR = 3, NPK_LOCK_READERS = 4,
       NPK_LOCK_PRIVATE = 5, NPK_LOCK_PIN_BASE = 4096 };

/* How long and how to wait. interrupt may be NULL; called at least every 50 ms. */
typedef struct npk_wait {
    uint64_t timeout_us;
    int (*interrupt)(void *context);
    void *context;
} npk_wait;

/* Try once: *got tells. IO errors are reported. */
npk_status npk_locks_try(const npk_io *io, npk_file *lock_file, uint64_t byte, npk_lock_kind kind, bool *got,
                         npk_error *err);
/* Poll with short backoff (20 us doubling to 2 ms). BUSY at the timeout (the message is the caller's to complete), INTERRUPTED. */
npk_status npk_locks_wait(const npk_io *io, npk_file *lock_file, uint64_t byte, npk_lock_kind kind, const npk_wait *wait,
                          npk_error *err);
void npk_locks_release(const npk_io *io, npk_file *lock_file, uint64_t byte);
/* Is the name LOCK in directory still the file that was opened, of which opened was asked then? Otherwise the store was moved or replaced
 * under us: MISUSE. The open file keeps its inode from being used again. */
npk_status npk_locks_check_name(const npk_io *io, npk_file *directory, const npk_file_info *opened, npk_error *err);

#endif
