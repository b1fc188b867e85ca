/* recover.h - index = f(checkpoint, log): building the index at the first open, after a failed publish, and for inspection; and the
 * tail procedure for what a dead or failed writer left in the log.
 *
 * Steps of a recovery, referred to by number in the code and in core/README.md:
 *  1. take the newest checkpoint that is whole (an older one when it is not; none: the beginning of the log);
 *  2. load it;
 *  3. scan the log from its LSN: apply each complete transaction; refuse damage below what is proven durable; check column files that were linked
 *     unsynced, and when one that is needed is missing or wrong, begin again and end before its transaction (FORMAT.md, "Unsynced files");
 *  4. unless the log ends exactly there with nothing behind: cut the tail and go on in a fresh segment under a new epoch;
 *  5. note the end, publish, and only then name the index as complete. */
#ifndef NPK_CORE_RECOVER_H
#define NPK_CORE_RECOVER_H

#include "core.h"

/* What a replay found. */
typedef struct npk_replay {
    npk_wal_scan scan;              /* result of step 3 */
    uint64_t checkpoint_lsn;        /* used; 0: none */
    uint64_t newest_checkpoint_lsn; /* seen by name */
    size_t checkpoint_count, bad_checkpoint_count;
    npk_buffer links;               /* npk_link (unsynced.h), one for each UNSYNCED_FILE record */
} npk_replay;

/* Steps 1 to 3 into a view. With a base, changes are published to it whenever they grow large. stop_lsn as in npk_wal_scan. The verdict is in
 * replay->scan; a damaged log is not an error here. CORRUPT when records do not fit the state. Files are not looked at. The replay is to be
 * released whatever is returned. */
npk_status npk_recover_replay(const npk_io *io, npk_file *checkpoint_directory, npk_wal *wal, const uint8_t uuid[16],
                              npk_kv *kv, uint64_t stop_lsn, npk_replay *replay, npk_error *err);

void npk_replay_release(npk_replay *replay);

/* Steps 1 to 5 into a fresh index/<random> environment, which replaces core->index. Called with GATE and OPEN exclusive, or (publish failed,
 * poison) with the writer lock. On error the old index, if any, stays in place. The directory of
 * the one that is not needed goes: other processes that have it open follow the name in control. */
npk_status npk_recover_build_index(npk_core *core, uint64_t stop_lsn, npk_error *err);

/* Under the writer lock: something lies, or may lie, behind the published end. Keeps complete transactions (none when discard: the
 * writer failed and its transaction is to be void), cuts, applies, publishes. Poisons the store when it cannot. */
npk_status npk_recover_tail(npk_core *core, bool discard, npk_error *err);

/* What a failed sync took of the published transactions is said once to each handle: POISONED, then OK. */
npk_status npk_recover_tell_loss(npk_store *store, npk_error *err);

/* The message for a damaged log. */
npk_status npk_recover_refuse(const npk_wal_scan *scan, npk_error *err);

#endif
