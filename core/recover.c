/* recover.c - index = f(checkpoint, log), and the tail procedure. Step numbers are those of recover.h. */
#include "recover.h"

#include <string.h>
#include <inttypes.h>

#include "apply.h"
#include "catalog.h"
#include "checkpoint.h"
#include "error.h"
#include "reserve.h"
#include "store_files.h"
#include "view.h"

#define FLUSH_SIZE (64u << 20) /* bytes of changes above which replay publishes what it has */

/* ---- replay ------------------------------------------------------------------------------------------------------- */

struct replay_context {
    npk_kv *kv;
    bool any_base;
};

static npk_status publish_changes(npk_kv *kv, npk_error *err)
{
    npk_index *index = npk_kv_base(kv);
    if (!index || npk_kv_change_count(kv) == 0)
        return NPK_OK;
    npk_status status = npk_index_reserve(index, npk_kv_change_count(kv), npk_kv_change_size(kv), err);
    if (status == NPK_OK)
        status = npk_index_publish(index, kv, NULL, err);
    if (status == NPK_OK)
        npk_kv_clear(kv);
    return status;
}

static npk_status flush_when_large(void *context, npk_error *err)
{
    npk_kv *kv = context;
    return npk_kv_change_size(kv) > FLUSH_SIZE ? publish_changes(kv, err) : NPK_OK;
}

static npk_status replay_record(void *context, const npk_record *record, npk_error *err)
{
    npk_kv *kv = context;
    npk_status status;
    if (record->type == NPK_RECORD_COMMIT) {
        status = npk_apply_commit(kv, record, err);
        npk_kv_forget_marks(kv);
        return status == NPK_OK ? flush_when_large(kv, err) : status;
    }
    status = npk_apply(kv, record, err);
    return status == NPK_OK ? NPK_OK : npk_context(err, status, "replay the log");
}

#define CHECKPOINTS_LOOKED_AT 16

/* Steps 1 and 2. The kv is empty when it returns an lsn of 0. */
static npk_status load_newest_checkpoint(const npk_io *io, npk_file *directory, const uint8_t uuid[16], npk_kv *kv,
                                         npk_replay *replay, npk_error *err)
{
    uint64_t lsns[CHECKPOINTS_LOOKED_AT];
    npk_status status = npk_checkpoint_list(io, directory, lsns, CHECKPOINTS_LOOKED_AT, &replay->checkpoint_count, err);
    if (status != NPK_OK)
        return status;
    size_t count = replay->checkpoint_count < CHECKPOINTS_LOOKED_AT ? replay->checkpoint_count : CHECKPOINTS_LOOKED_AT;
    /* A name is given only after the log was synced to it, so even a damaged checkpoint proves how far the log must reach. */
    replay->newest_checkpoint_lsn = count ? lsns[0] : 0;
    for (size_t i = 0; i < count; i++) {
        /* Damage is found in the first pass over the file, before anything is put: the next older one starts empty. */
        status = npk_checkpoint_load(io, directory, uuid, lsns[i], kv, npk_kv_base(kv) ? flush_when_large : NULL, kv, err);
        if (status == NPK_OK) {
            npk_kv_forget_marks(kv);
            replay->checkpoint_lsn = lsns[i];
            return NPK_OK;
        }
        if (status != NPK_CORRUPT && status != NPK_NOT_FOUND)
            return status;
        replay->bad_checkpoint_count++;
    }
    return NPK_OK;
}

npk_status npk_recover_replay(const npk_io *io, npk_file *checkpoint_directory, npk_wal *wal, const uint8_t uuid[16],
                              npk_kv *kv, uint64_t stop_lsn, npk_replay *replay, npk_error *err)
{
    memset(replay, 0, sizeof *replay);
    npk_status status = load_newest_checkpoint(io, checkpoint_directory, uuid, kv, replay, err);
    if (status != NPK_OK)
        return status;
    if (replay->checkpoint_lsn == 0) { /* an empty state, so that the first record finds one */
        npk_wal_end start = {.lsn = NPK_WAL_FIRST_LSN};
        status = npk_apply_end(kv, &start, NULL, err);
    }
    if (status != NPK_OK)
        return status;
    replay->scan.from_lsn = replay->checkpoint_lsn ? replay->checkpoint_lsn : NPK_WAL_FIRST_LSN;
    replay->scan.durable_floor = replay->newest_checkpoint_lsn;
    npk_store_state state;
    bool found = false;
    status = npk_catalog_get_state(kv, &state, &found, err);
    if (status != NPK_OK)
        return status;
    if (found && state.end.lsn == replay->scan.from_lsn)
        replay->scan.from_checksum = state.end.last_checksum;
    replay->scan.stop_lsn = stop_lsn;
    replay->scan.visit = replay_record;
    replay->scan.context = kv;
    status = npk_wal_scan_log(wal, &replay->scan, err);
    if (status == NPK_CORRUPT && replay->bad_checkpoint_count)
        return npk_context(err, status, "%zu damaged checkpoints", replay->bad_checkpoint_count);
    return status;
}

npk_status npk_recover_refuse(const npk_wal_scan *scan, npk_error *err)
{
    npk_status status = npk_fail(err, NPK_CORRUPT,
                                 "the log is damaged below its durable watermark: it breaks at %" PRIu64
                                 ", but is proven to reach %" PRIu64 " (%s); nothing was changed; run npk-recover",
                                 scan->damaged_lsn, scan->damaged_until_lsn, scan->case_name ? scan->case_name : "");
    if (err)
        err->lsn = scan->damaged_lsn;
    return status;
}

/* ---- building an index ---------------------------------------------------------------------------------------------- */

/* Step 4. On success *end is where the log goes on. */
static npk_status settle_end(npk_core *core, const npk_replay *replay, npk_wal_end *end, npk_error *err)
{
    if (replay->scan.verdict == NPK_WAL_DAMAGED)
        return npk_recover_refuse(&replay->scan, err);
    /* Only a checkpoint at the very end proves that what is read is what the disk holds: after a kill the bytes may be in the page
     * cache alone, even after a failed sync. Cutting copies them into a file of its own and syncs that. */
    uint64_t proven = replay->checkpoint_lsn ? replay->checkpoint_lsn : NPK_WAL_FIRST_LSN; /* an empty log proves itself */
    if (replay->scan.verdict == NPK_WAL_CLEAN && replay->scan.end.lsn == proven) {
        *end = replay->scan.end;
        return NPK_OK;
    }
    atomic_fetch_add(&core->recoveries, 1);
    npk_status status = npk_wal_cut(core->wal, &replay->scan, end, err);
    if (status == NPK_NO_SPACE) { /* give the reserve up: opening must work on a full disk */
        npk_reserve_release(core);
        status = npk_wal_cut(core->wal, &replay->scan, end, err);
    }
    return status == NPK_OK ? NPK_OK : npk_context(err, status, "cut the tail of the log");
}

static npk_status fill_index(npk_core *core, npk_index *index, uint64_t stop_lsn, npk_wal_end *end, npk_error *err)
{
    npk_kv *kv = NULL;
    npk_status status = npk_kv_open(index, &kv, err);
    if (status != NPK_OK)
        return status;
    npk_replay replay;
    status = npk_recover_replay(core->io, core->checkpoint_directory, core->wal, core->uuid, kv, stop_lsn, &replay, err);
    if (status == NPK_OK)
        status = settle_end(core, &replay, end, err);
    if (status == NPK_OK)
        status = npk_apply_end(kv, end, NULL, err);
    if (status == NPK_OK)
        status = publish_changes(kv, err);
    npk_kv_close(kv);
    if (status == NPK_OK) {
        atomic_store(&core->checkpoint_lsn, replay.checkpoint_lsn);
        /* The cut synced everything that is left. In place: the checkpoint proves it. */
        atomic_store(&core->control->durable_lsn, end->lsn);
    }
    return status;
}

npk_status npk_recover_build_index(npk_core *core, uint64_t stop_lsn, npk_error *err)
{
    uint64_t name = 0;
    int rc = core->io->random(core->io, &name, sizeof name);
    if (rc)
        return npk_fail_errno(err, rc, "could not get a random number");
    name |= 1; /* never 0 */
    char text[NPK_FILE_NAME_SIZE];
    npk_store_files_encode_index(name, text);
    npk_index *index = NULL;
    npk_status status = npk_index_open(core->io, core->index_directory, text, true, 0, &index, err);
    npk_wal_end end;
    if (status == NPK_OK)
        status = fill_index(core, index, stop_lsn, &end, err);
    if (status != NPK_OK) { /* a repair may be tried again and again */
        npk_index_close(index);
        (void)npk_index_remove(core->io, core->index_directory, text);
        return status;
    }
    /* Step 5: complete is set last; readers compare the name each time they begin. Under the lock, so that no thread of this process sees
     * one name here and another there, and takes its own index for another process's. */
    (void)pthread_rwlock_wrlock(&core->index_lock);
    npk_index *old = core->index;
    core->index = index;
    core->index_name = name;
    npk_wal_forget_segments(core->wal);
    uint64_t old_name = atomic_exchange(&core->control->index_name, name);
    (void)pthread_rwlock_unlock(&core->index_lock);
    npk_index_close(old);
    npk_view_forget_arrays(core);
    if (old_name) { /* other processes have it open, or find the new name when they look again */
        npk_store_files_encode_index(old_name, text);
        (void)npk_index_remove(core->io, core->index_directory, text);
    }
    atomic_fetch_add(&core->control->generation, 1);
    atomic_store(&core->control->complete, 1);
    return NPK_OK;
}

/* ---- the tail ------------------------------------------------------------------------------------------------------- */

static void poison(npk_core *core)
{
    atomic_store(&core->control->poison, 1);
    atomic_fetch_add(&core->control->generation, 1);
}

/* A reported sync failure may have dropped pages that were published but not durable: the scan starts at the newest
 * checkpoint, and when it does not reach the published end any more, the index is rebuilt from what is left. */
static npk_status repair_after_failed_sync(npk_core *core, const npk_store_state *published, npk_error *err)
{
    npk_status status = npk_recover_build_index(core, published->end.lsn, err);
    if (status != NPK_OK)
        return status;
    npk_store_state now;
    status = npk_view_state(core, &now, err);
    /* Not by LSN: the published end may lie behind the void record of an aborted transaction, which is nobody's loss. */
    if (status == NPK_OK && now.next_transaction < published->next_transaction) {
        atomic_store(&core->control->poison_lost_lsn, now.end.lsn);
        atomic_fetch_add(&core->control->poison_lost_count, 1);
    }
    return status;
}

npk_status npk_recover_tell_loss(npk_store *store, npk_error *err)
{
    npk_core *core = store->core;
    uint64_t count = atomic_load(&core->control->poison_lost_count);
    if (atomic_exchange(&store->seen_lost_count, count) == count)
        return NPK_OK;
    uint64_t lsn = atomic_load(&core->control->poison_lost_lsn);
    npk_status status = npk_fail(err, NPK_POISONED,
                                 "a sync failed and took transactions that were committed but not durable: those behind %" PRIu64
                                 " are gone; the store is repaired and can be used",
                                 lsn);
    if (err)
        err->lsn = lsn;
    return status;
}

static npk_status keep_transactions(npk_core *core, const npk_store_state *published, npk_error *err)
{
    npk_kv *kv = NULL;
    npk_status status = npk_view_begin_write(core, &kv, err);
    if (status != NPK_OK)
        return status;
    npk_wal_scan scan = {.from_lsn = published->end.lsn,
                         .from_checksum = published->end.last_checksum,
                         .durable_floor = atomic_load(&core->control->durable_lsn),
                         .visit = replay_record,
                         .context = kv};
    npk_wal_end end;
    status = npk_wal_scan_log(core->wal, &scan, err);
    if (status == NPK_OK && scan.verdict == NPK_WAL_DAMAGED)
        status = npk_recover_refuse(&scan, err);
    bool nothing_there = status == NPK_OK && scan.verdict == NPK_WAL_CLEAN && scan.end.lsn == published->end.lsn &&
                         scan.end.seq == published->end.seq && scan.highest_seq == published->end.seq;
    if (status == NPK_OK && !nothing_there) {
        atomic_fetch_add(&core->recoveries, 1);
        status = npk_wal_cut(core->wal, &scan, &end, err);
        if (status == NPK_NO_SPACE) {
            npk_reserve_release(core);
            status = npk_wal_cut(core->wal, &scan, &end, err);
        }
        if (status == NPK_OK)
            status = npk_apply_end(kv, &end, NULL, err);
        if (status == NPK_OK)
            status = publish_changes(kv, err);
        if (status == NPK_OK) {
            atomic_fetch_add(&core->control->generation, 1);
            atomic_store(&core->control->durable_lsn, end.lsn);
            npk_wal_forget_segments(core->wal);
        }
    }
    npk_view_end_write(core, kv);
    return status;
}

npk_status npk_recover_tail(npk_core *core, bool discard, npk_error *err)
{
    npk_store_state published;
    npk_status status = npk_view_state(core, &published, err);
    if (status != NPK_OK)
        return status;
    if (discard || atomic_load(&core->control->poison))
        status = repair_after_failed_sync(core, &published, err);
    else
        status = keep_transactions(core, &published, err);
    if (status != NPK_OK) {
        poison(core);
        return npk_context(err, status, "repair the log");
    }
    atomic_store(&core->control->poison, 0);
    atomic_store(&core->control->writer_active, 0);
    return NPK_OK;
}
