/* reclaim.c - checkpoints, and removing what nobody needs. */
#include "reclaim.h"

#include <errno.h>
#include <string.h>

#include "alloc.h"
#include "bytes.h"
#include "catalog.h"
#include "checkpoint.h"
#include "error.h"
#include "orphans.h"
#include "recover.h"
#include "reserve.h"
#include "snapshot.h"
#include "store_files.h"
#include "txn.h"
#include "view.h"
#include "writer.h"

static npk_status read_state(npk_kv *kv, npk_store_state *state, npk_error *err)
{
    bool found = false;
    npk_status status = npk_catalog_get_state(kv, state, &found, err);
    if (status == NPK_OK && !found)
        status = npk_catalog_fail(err, NPK_TABLE_STORE);
    return status;
}

npk_status npk_reclaim_position(npk_core *core, npk_position *position, npk_error *err)
{
    npk_store_state state;
    npk_status status = npk_view_state(core, &state, err);
    if (status == NPK_OK) {
        position->epoch = state.end.epoch;
        position->lsn = state.end.lsn;
    }
    return status;
}

void npk_reclaim_note_checkpoints(npk_core *core)
{
    uint64_t lsns[2] = {0, 0};
    size_t count = 0;
    if (npk_checkpoint_list(core->io, core->checkpoint_directory, lsns, 2, &count, NULL) != NPK_OK)
        return;
    atomic_store(&core->checkpoint_lsn, lsns[0]);
    atomic_store(&core->older_checkpoint_lsn, lsns[1]);
}

/* The threads of this process: no one waits longer than it said, or deaf to its interrupt function. */
static npk_status take_compactor_mutex(npk_core *core, const npk_wait *wait, npk_error *err)
{
    const npk_io *io = core->io;
    uint64_t start = io->monotonic_us(io), pause = 20, asked = start;
    while (pthread_mutex_trylock(&core->compactor_mutex) != 0) {
        uint64_t now = io->monotonic_us(io);
        if (now - start >= wait->timeout_us)
            return npk_fail(err, NPK_BUSY, "another thread is compacting the store");
        if (wait->interrupt && now - asked >= 20000) {
            asked = now;
            if (wait->interrupt(wait->context))
                return npk_fail(err, NPK_INTERRUPTED, "interrupted while waiting for another thread that compacts");
        }
        io->sleep_us(io, npk_min_u64(pause, wait->timeout_us - (now - start)));
        pause = npk_min_u64(pause * 2, 2000);
    }
    return NPK_OK;
}

npk_status npk_compactor_acquire(npk_core *core, const npk_wait *wait, npk_error *err)
{
    static const npk_wait at_once = {0};
    if (!wait)
        wait = &at_once;
    uint64_t start = core->io->monotonic_us(core->io);
    npk_status status = take_compactor_mutex(core, wait, err);
    if (status != NPK_OK)
        return status;
    uint64_t waited = core->io->monotonic_us(core->io) - start;
    npk_wait rest = *wait;
    rest.timeout_us = waited < wait->timeout_us ? wait->timeout_us - waited : 0;
    status = npk_locks_wait(core->io, core->lock_file, NPK_LOCK_COMPACTOR, NPK_LOCK_EXCLUSIVE, &rest, err);
    if (status != NPK_OK) {
        (void)pthread_mutex_unlock(&core->compactor_mutex);
        if (status == NPK_BUSY)
            status = npk_fail(err, NPK_BUSY, "another process is compacting store \"%s\"", core->path);
    }
    return status;
}

npk_wait npk_compactor_wait(const npk_store *store)
{
    npk_wait wait = {(uint64_t)store->settings.busy_timeout_ms * 1000, store->settings.interrupt,
                     store->settings.interrupt_context};
    return wait;
}

void npk_compactor_release(npk_core *core)
{
    npk_locks_release(core->io, core->lock_file, NPK_LOCK_COMPACTOR);
    (void)pthread_mutex_unlock(&core->compactor_mutex);
}

/* ---- checkpoint ------------------------------------------------------------------------------------------------------- */

/* A copy of the published state, all of it durable. The view itself is not held while a file is written: an index cannot give pages back, nor
 * grow, while somebody reads. */
static npk_status copy_durable_state(npk_core *core, npk_kv **copy, npk_store_state *state, npk_error *err)
{
    for (;;) {
        /* A checkpoint may say only what the log holds durably: sync first, then copy a state that is not newer. */
        npk_kv *kv = NULL;
        npk_status status = npk_writer_flush(core, err);
        if (status == NPK_OK)
            status = npk_view_begin(core, &kv, err);
        if (status != NPK_OK)
            return status;
        status = read_state(kv, state, err);
        bool durable = status == NPK_OK && state->end.lsn <= atomic_load(&core->control->durable_lsn);
        if (durable)
            status = npk_snapshot_copy(kv, true, copy, err);
        npk_view_end(core, kv);
        if (status != NPK_OK || durable)
            return status;
        /* Published meanwhile at a lower level: sync again. */
    }
}

static npk_status write_checkpoint(npk_core *core, npk_error *err)
{
    npk_position position;
    npk_status status = npk_reclaim_position(core, &position, err);
    if (status != NPK_OK || position.lsn == atomic_load(&core->checkpoint_lsn))
        return status;
    npk_kv *copy = NULL;
    npk_store_state state;
    status = copy_durable_state(core, &copy, &state, err);
    if (status != NPK_OK)
        return status;
    status = npk_checkpoint_write(core->io, core->checkpoint_directory, core->uuid, copy, state.end.lsn, state.end.epoch, err);
    npk_kv_close(copy);
    if (status == NPK_OK) {
        atomic_fetch_add(&core->checkpoints, 1);
        atomic_store(&core->last_checkpoint_us, core->io->now_us(core->io));
    }
    return status;
}

npk_status npk_reclaim_checkpoint(npk_core *core, npk_error *err)
{
    npk_status status = write_checkpoint(core, err);
    if (status == NPK_NO_SPACE) { /* what the reserve is for */
        npk_reserve_release(core);
        status = write_checkpoint(core, err);
    }
    if (status == NPK_OK)
        status = npk_checkpoint_trim(core->io, core->checkpoint_directory, 2, err);
    if (status == NPK_OK)
        npk_reclaim_note_checkpoints(core);
    return status == NPK_OK ? NPK_OK : npk_context(err, status, "checkpoint");
}

/* ---- reclaim ---------------------------------------------------------------------------------------------------------- */

struct dead_list {
    npk_buffer items;       /* u8 kind, u64 id: as RETIRE has them */
    uint32_t count;
    uint64_t limit;         /* what died below it goes */
    uint64_t first_live_segment; /* lowest seq that rows or a checkpoint or pin still need */
};

static npk_status visit_container(void *context, const uint8_t *key, size_t key_size, const uint8_t *value,
                                  size_t value_size, bool *stop, npk_error *err)
{
    (void)stop;
    struct dead_list *list = context;
    npk_container container;
    if (key_size != 9 || !npk_container_decode(value, value_size, &container))
        return npk_catalog_fail(err, NPK_TABLE_PLACES);
    uint64_t id = npk_get_be64(key + 1);
    if (container.reference_count == 0 && container.dead_lsn < list->limit) {
        npk_buffer_put_u8(&list->items, key[0]);
        npk_buffer_put_u64(&list->items, id);
        list->count++;
        if (list->items.failed)
            return npk_fail(err, NPK_NO_MEMORY, "could not list dead files");
    } else if (key[0] == NPK_CONTAINER_SEGMENT && id < list->first_live_segment) {
        list->first_live_segment = id;
    }
    return NPK_OK;
}

struct segment_search {
    uint64_t limit;         /* LSN */
    uint64_t keep_from;     /* lowest seq whose records are needed for replay from limit */
    uint64_t last_first_lsn, last_seq;
    uint64_t lowest_seq;
};

static void visit_segment(void *context, const npk_segment_info *info)
{
    struct segment_search *search = context;
    if (!info->valid)
        return;
    if (search->lowest_seq == 0)
        search->lowest_seq = info->seq;
    /* The segment before this one ends where this one begins. */
    if (search->last_seq && info->first_lsn <= search->limit)
        search->keep_from = info->seq;
    search->last_seq = info->seq;
}

/* Of the items that were dead when the view was read, keep those that still are: a writer may have used the segment it writes to again. */
static npk_status keep_dead(npk_txn *txn, struct dead_list *list, npk_error *err)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        uint8_t *item = list->items.data + 9 * (size_t)i;
        npk_container container;
        bool found = false;
        npk_status status = npk_catalog_get_container(txn->kv, item[0], npk_get_u64(item + 1), &container, &found, err);
        if (status != NPK_OK)
            return status;
        if (found && container.reference_count == 0 && container.dead_lsn < list->limit)
            memmove(list->items.data + 9 * (size_t)kept++, item, 9);
        else if (found && item[0] == NPK_CONTAINER_SEGMENT)
            list->first_live_segment = npk_min_u64(list->first_live_segment, npk_get_u64(item + 1));
    }
    list->count = kept;
    return NPK_OK;
}

/* One transaction that forgets the dead files. Done before they are unlinked: a crash between leaves orphans, never dangling entries. */
static npk_status retire(npk_core *core, struct dead_list *list, npk_error *err)
{
    const uint32_t most = 4096; /* items in one record */
    npk_wait wait = {(uint64_t)core->settings.busy_timeout_ms * 1000, NULL, NULL};
    npk_txn *txn = NULL;
    npk_status status = npk_txn_begin_core(core, &wait, &txn, err);
    if (status != NPK_OK)
        return status;
    status = keep_dead(txn, list, err);
    for (uint32_t at = 0; at < list->count && status == NPK_OK; at += most) {
        uint32_t part = list->count - at < most ? list->count - at : most;
        npk_op op = {.type = NPK_OP_RETIRE, .list = list->items.data + 9 * (size_t)at, .list_count = part};
        status = npk_txn_log(txn, &op, NULL, 0, err);
    }
    if (status != NPK_OK) {
        npk_txn_abort(txn);
        return status;
    }
    return npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, err);
}

static npk_status unlink_columns(npk_core *core, const struct dead_list *list, uint64_t *removed, npk_error *err)
{
    int rc = 0;
    for (uint32_t i = 0; i < list->count && !rc; i++) {
        const uint8_t *item = list->items.data + 9 * (size_t)i;
        if (item[0] != NPK_CONTAINER_COLUMN)
            continue;
        char name[NPK_FILE_NAME_SIZE];
        npk_store_files_encode_column(npk_get_u64(item + 1), name);
        rc = core->io->unlink(core->io, core->columns_directory, name);
        if (rc == ENOENT) /* an orphan search was faster */
            rc = 0;
        ++*removed;
    }
    if (rc)
        return npk_fail_errno(err, rc, "could not remove a dead column file");
    return NPK_OK;
}

npk_status npk_reclaim_run(npk_core *core, bool hard, npk_error *err)
{
    hard = hard || atomic_load(&core->control->reserve_gone); /* one kept checkpoint suffices until there is room */
    npk_status status = NPK_OK;
    if (hard) /* the older checkpoint needs what is about to go */
        status = npk_checkpoint_trim(core->io, core->checkpoint_directory, 1, err);
    if (status != NPK_OK)
        return status;
    npk_reclaim_note_checkpoints(core);
    uint64_t limit = atomic_load(hard ? &core->checkpoint_lsn : &core->older_checkpoint_lsn);
    if (limit == 0)
        return NPK_OK; /* without two checkpoints the log from its beginning is what recovery falls back to */
    /* Raise the floor first, then read the pins; who pins does it the other way round. */
    if (limit > atomic_load(&core->control->floor_lsn))
        atomic_store(&core->control->floor_lsn, limit);
    uint64_t pinned = UINT64_MAX;
    status = npk_pin_oldest(core, &pinned, err);
    if (status != NPK_OK)
        return status;
    if (pinned < limit)
        atomic_store(&core->control->floor_lsn, pinned); /* a pin at this LSN may be taken again */
    struct dead_list list = {.limit = npk_min_u64(limit, pinned), .first_live_segment = UINT64_MAX};
    npk_buffer_init(&list.items);
    npk_kv *kv = NULL;
    npk_store_state state = {0};
    status = npk_view_begin(core, &kv, err);
    if (status != NPK_OK)
        return status;
    status = read_state(kv, &state, err);
    if (status == NPK_OK)
        status = npk_kv_scan(kv, NPK_TABLE_PLACES, NULL, 0, NULL, 0, visit_container, &list, err);
    npk_view_end(core, kv);
    struct segment_search search = {.limit = list.limit};
    if (status == NPK_OK)
        status = npk_wal_list(core->wal, visit_segment, &search, err);
    uint64_t removed = 0, before = 0;
    if (status == NPK_OK && list.count) {
        status = retire(core, &list, err);
        npk_view_trim_arrays(core);
        npk_columns_forget(core->columns); /* idle files kept open would hold the space of what is unlinked */
        if (status == NPK_OK)
            status = unlink_columns(core, &list, &removed, err);
    }
    if (status == NPK_OK) {
        before = npk_min_u64(npk_min_u64(search.keep_from, list.first_live_segment), state.end.seq);
        uint64_t segments = 0;
        if (before > search.lowest_seq && search.lowest_seq)
            status = npk_wal_reclaim(core->wal, before, &segments, err);
        removed += segments;
    }
    npk_buffer_release(&list.items);
    if (status == NPK_OK && removed)
        atomic_fetch_add(&core->reclaims, 1);
    if (status == NPK_OK && hard)
        npk_reserve_ensure(core);
    return status == NPK_OK ? NPK_OK : npk_context(err, status, "reclaim");
}

/* ---- public ------------------------------------------------------------------------------------------------------------- */

npk_status npk_store_checkpoint(npk_store *store, npk_error *err)
{
    npk_core *core = store->core;
    if (atomic_load(&core->is_forked))
        return npk_fail(err, NPK_MISUSE, "the store was opened by a parent process; open it again in this one");
    if (store->settings.mode == NPK_MODE_READ)
        return npk_fail(err, NPK_READ_ONLY, "store \"%s\" is open for reading only", core->path);
    npk_status status = npk_recover_tell_loss(store, err);
    npk_wait wait = npk_compactor_wait(store);
    if (status == NPK_OK)
        status = npk_compactor_acquire(core, &wait, err);
    if (status != NPK_OK)
        return status;
    status = npk_reclaim_checkpoint(core, err);
    if (status == NPK_OK)
        status = npk_reclaim_run(core, false, err);
    if (status == NPK_NO_SPACE) {
        npk_reserve_release(core); /* it is for this */
        status = npk_reclaim_checkpoint(core, err);
    }
    if (status == NPK_OK && (atomic_load(&core->control->reserve_gone) || atomic_exchange(&core->control->space_short, 0))) {
        status = npk_reclaim_run(core, true, err); /* one kept checkpoint suffices until there is room */
        npk_reserve_ensure(core);
    }
    npk_compactor_release(core);
    return status;
}
