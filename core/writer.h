/* writer.h - being the one writer: the lock, what a dead predecessor left, and the order log, sync, publish. */
#ifndef NPK_CORE_WRITER_H
#define NPK_CORE_WRITER_H

#include "catalog.h"
#include "core.h"

/* Take the writer lock of process and store, repair what lies behind the published end, and get the log ready for appending.
 * On success *state is the published state. BUSY names the holder. The lock is not held when it fails. */
npk_status npk_writer_acquire(npk_core *core, const npk_wait *wait, npk_store_state *state, npk_error *err);
/* Give it up. clean: nothing of ours lies behind the published end. */
void npk_writer_release(npk_core *core, bool clean);

/* use_reserve: on a full disk the reserve is given up for it. Append the commit record for what kv collected and was logged since acquire (or the
 * last commit), sync at level COMMIT, publish. The view's changes are consumed. On success the transaction is committed. On error it is not, whatever
 * happened on disk: the tail was made void. POISONED: it may be; the next writer or open decides. interval_ms: within which somebody syncs, at level
 * INTERVAL. */
npk_status npk_writer_commit(npk_core *core, npk_kv *kv, uint64_t transaction, uint32_t record_count, npk_sync sync,
                             uint32_t interval_ms, bool use_reserve, npk_position *position, npk_error *err);
/* Undo everything logged since begin_lsn, the published end at acquire. */
npk_status npk_writer_abort(npk_core *core, npk_kv *kv, uint64_t begin_lsn, uint64_t transaction, npk_error *err);

/* Make everything published durable: sync the column files that were linked unsynced, then the current segment (older ones were synced when the log
 * rolled) and raise the watermark. Needs no writer lock. A failure poisons the store. */
npk_status npk_writer_flush(npk_core *core, npk_error *err);
/* Did somebody, in any process, commit at level INTERVAL what is not synced yet, and is the time up? */
bool npk_writer_sync_due(npk_core *core, uint64_t now_us);
/* Append a watermark record, sync and publish, unless the log ends with one. Under the writer lock taken by try; *done false: busy. */
npk_status npk_writer_mark(npk_core *core, bool *done, npk_error *err);

#endif
