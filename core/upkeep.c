/* upkeep.c - when to fold, checkpoint and reclaim. */
#include "upkeep.h"

#include <stdio.h>

#include "bytes.h"
#include "catalog.h"
#include "compact.h"
#include "error.h"
#include "reclaim.h"

#define FOLD_LEAST (4u << 20) /* a store with less pending is left alone */

/* Old segments that only a few cold rows keep: fold them too, so that the log does not grow for ever. */
static void find_oldest(void *context, const npk_segment_info *info)
{
    uint64_t *oldest = context;
    if (info->valid && info->first_lsn < *oldest)
        *oldest = info->first_lsn;
}

struct due {
    bool fold, checkpoint;
    uint64_t pending_size, log_size;
    uint64_t weight; /* pending bytes, and those that the entries of the index stand for */
};

static npk_status look(npk_core *core, uint64_t fold_above, uint64_t checkpoint_above, struct due *due, npk_error *err)
{
    npk_position position = {0};
    uint64_t rows = 0, entries = 0;
    npk_status status = npk_reclaim_position(core, &position, err);
    uint64_t guess = atomic_load(&core->logged_since_fold);
    if (status == NPK_OK && guess > fold_above / 2) {
        status = npk_compact_pending(core, &due->pending_size, &rows, &entries, err);
        due->weight = due->pending_size + entries * NPK_PENDING_ENTRY_WEIGHT;
        if (status == NPK_OK && due->weight <= fold_above) /* go on from the truth; what was logged meanwhile stays on top */
            (void)atomic_fetch_add(&core->logged_since_fold, due->weight - guess);
    }
    uint64_t checkpoint = atomic_load(&core->checkpoint_lsn);
    due->log_size = position.lsn > checkpoint ? position.lsn - checkpoint : 0;
    due->fold = due->weight > fold_above;
    due->checkpoint = due->log_size > checkpoint_above;
    if (status == NPK_OK && due->checkpoint && !due->fold) {
        uint64_t oldest = UINT64_MAX;
        status = npk_wal_list(core->wal, find_oldest, &oldest, err);
        due->fold = oldest < position.lsn && position.lsn - oldest > 3 * checkpoint_above;
    }
    return status;
}

/* Damage in one array, or a disk too full to fold, must not stop checkpoints and reclaim: these are what makes room. */
static npk_status work(npk_core *core, const struct due *due, npk_error *err)
{
    npk_status folded = due->fold ? npk_compact_all(core, NPK_FOLD_CHEAP, err) : NPK_OK;
    if (folded != NPK_OK && folded != NPK_CORRUPT && folded != NPK_NO_SPACE)
        return folded;
    npk_status status = NPK_OK;
    if (due->checkpoint || folded == NPK_NO_SPACE) {
        status = npk_reclaim_checkpoint(core, folded == NPK_OK ? err : NULL);
        if (status == NPK_OK)
            status = npk_reclaim_run(core, false, folded == NPK_OK ? err : NULL);
    }
    return folded != NPK_OK ? folded : status;
}

npk_status npk_upkeep_enforce(npk_core *core, npk_error *err)
{
    /* On the path of every transaction. The end of the log as this process saw it last is one transaction old at most: the limits are no sharp
     * ones. */
    uint64_t end = atomic_load(&core->seen_lsn), checkpoint = atomic_load(&core->checkpoint_lsn);
    if (atomic_load(&core->logged_since_fold) <= core->settings.pending_limit / 2 &&
        (end <= checkpoint || end - checkpoint <= 2 * core->settings.checkpoint_log_size))
        return NPK_OK;
    struct due due = {0};
    npk_status status = look(core, core->settings.pending_limit, 2 * core->settings.checkpoint_log_size, &due, err);
    if (status != NPK_OK || (!due.fold && !due.checkpoint))
        return status;
    status = npk_compactor_acquire(core, NULL, err);
    if (status == NPK_BUSY)
        return NPK_OK; /* somebody is at it */
    if (status != NPK_OK)
        return status;
    status = work(core, &due, err);
    if (status == NPK_NO_SPACE || status == NPK_CORRUPT)
        status = NPK_OK; /* the transaction finds out by itself whether it is concerned; a drop still gets through */
    npk_compactor_release(core);
    return status;
}

/* Pending bytes above which there is a fold without need. */
static uint64_t worth_folding(const npk_core *core)
{
    return npk_min_u64(core->settings.pending_limit, npk_max_u64(core->settings.pending_limit / 4, FOLD_LEAST));
}

npk_status npk_upkeep_close(npk_core *core, npk_error *err)
{
    uint64_t size = 0, rows = 0;
    npk_status status = npk_compact_pending(core, &size, &rows, NULL, err);
    if (status == NPK_OK && size > worth_folding(core))
        status = npk_compact_all(core, NPK_FOLD_CHEAP, err);
    return status == NPK_NO_SPACE ? NPK_OK : status; /* they stay in the log */
}

npk_status npk_upkeep_work(npk_core *core, char *reason, size_t reason_size, npk_error *err)
{
    struct due due = {0};
    npk_status status = look(core, worth_folding(core), core->settings.checkpoint_log_size, &due, err);
    if (status != NPK_OK)
        return status;
    if (due.pending_size <= FOLD_LEAST && !due.checkpoint)
        due.fold = false; /* many entries of few bytes: the writer sees to it when there are too many */
    if (!due.fold && !due.checkpoint) {
        (void)snprintf(reason, reason_size, "idle: %llu bytes of log since the checkpoint, %llu bytes pending",
                       (unsigned long long)due.log_size, (unsigned long long)due.pending_size);
        return NPK_OK;
    }
    status = npk_compactor_acquire(core, NULL, err);
    if (status == NPK_BUSY) {
        (void)snprintf(reason, reason_size, "waiting: another process compacts");
        return NPK_OK;
    }
    if (status != NPK_OK)
        return status;
    status = work(core, &due, err);
    (void)snprintf(reason, reason_size, "%s%s: %llu bytes of log since the checkpoint, %llu bytes pending",
                   due.fold ? "folded " : "", due.checkpoint ? "checkpoint" : "", (unsigned long long)due.log_size,
                   (unsigned long long)due.pending_size);
    npk_compactor_release(core);
    return status;
}
