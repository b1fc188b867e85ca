/* txn.c - begin, commit, abort, savepoints; logging operations. What the operations are: txn_ops.c. */
#include "txn.h"

#include "alloc.h"
#include "apply.h"
#include "bytes.h"
#include "error.h"
#include "upkeep.h"
#include "recover.h"
#include "reserve.h"
#include "unsynced.h"
#include "view.h"
#include "worker.h"
#include "writer.h"

/* ---- begin and end ------------------------------------------------------------------------------------------------- */

npk_status npk_txn_begin_core(npk_core *core, const npk_wait *wait, npk_txn **txn, npk_error *err)
{
    npk_txn *made = npk_calloc(1, sizeof *made);
    if (!made)
        return npk_fail(err, NPK_NO_MEMORY, "could not allocate a transaction");
    npk_store_state state;
    npk_status status = npk_writer_acquire(core, wait, &state, err);
    if (status != NPK_OK) {
        npk_free(made);
        return status;
    }
    status = npk_view_begin_write(core, &made->kv, err);
    if (status != NPK_OK) {
        npk_writer_release(core, true);
        npk_free(made);
        return status;
    }
    made->core = core;
    made->id = state.next_transaction;
    made->begin_lsn = state.end.lsn;
    npk_buffer_init(&made->meta);
    npk_buffer_init(&made->rows);
    *txn = made;
    return NPK_OK;
}

npk_status npk_txn_begin(npk_store *store, uint32_t timeout_ms, npk_txn **txn, npk_error *err)
{
    if (atomic_load(&store->core->is_forked))
        return npk_fail(err, NPK_MISUSE, "the store was opened by a parent process; open it again in this one");
    if (store->settings.mode == NPK_MODE_READ)
        return npk_fail(err, NPK_READ_ONLY, "store \"%s\" is open for reading only", store->core->path);
    npk_status status = npk_recover_tell_loss(store, err);
    if (status == NPK_OK)
        status = npk_upkeep_enforce(store->core, err);
    if (status != NPK_OK)
        return status;
    if (timeout_ms == UINT32_MAX)
        timeout_ms = store->settings.busy_timeout_ms;
    npk_wait wait = {(uint64_t)timeout_ms * 1000, store->settings.interrupt, store->settings.interrupt_context};
    npk_txn *made = NULL;
    status = npk_txn_begin_core(store->core, &wait, &made, err);
    if (status == NPK_OK) {
        status = npk_recover_tell_loss(store, err); /* the repair may have happened in there */
        if (status != NPK_OK)
            npk_txn_abort(made);
    }
    if (status == NPK_OK) {
        *txn = made;
        made->store = store;
        __atomic_fetch_add(&store->open_transaction_count, 1, __ATOMIC_SEQ_CST);
    }
    return status;
}

static void drop_bulks(npk_txn *txn, bool discard)
{
    while (txn->bulks) {
        npk_bulk *bulk = txn->bulks;
        txn->bulks = bulk->next;
        if (discard)
            npk_column_discard(bulk->writer);
        else
            npk_column_writer_release(bulk->writer);
        npk_free(bulk);
    }
}

/* A child of fork has the parent's transaction: its log, files and locks are the parent's, and the view's index is gone. */
static bool is_inherited(const npk_txn *txn)
{
    return atomic_load(&txn->core->is_forked);
}

static npk_status fail_inherited(npk_error *err)
{
    return npk_fail(err, NPK_MISUSE, "the transaction belongs to a parent process");
}

static void finish(npk_txn *txn, bool clean)
{
    npk_core *core = txn->core;
    if (txn->full)
        atomic_store(&core->control->space_short, 1);
    npk_view_end_write(core, txn->kv);
    npk_writer_release(core, clean && !atomic_load(&core->control->poison));
    if (txn->store)
        __atomic_fetch_sub(&txn->store->open_transaction_count, 1, __ATOMIC_SEQ_CST);
    npk_buffer_release(&txn->meta);
    npk_buffer_release(&txn->rows);
    npk_array_record_release(&txn->described);
    npk_free(txn->savepoints);
    npk_free(txn);
}

/* Files first: at level commit durable with their names before the commit record that links them. At the others whoever raises the watermark
 * syncs them: noted before the transaction is published, so that no one overlooks it. */
static npk_status finish_bulks(npk_txn *txn, npk_sync sync, npk_error *err)
{
    npk_status status = NPK_OK;
    bool any = false, synced = sync == NPK_SYNC_COMMIT;
    for (npk_bulk *bulk = txn->bulks; bulk && status == NPK_OK; bulk = bulk->next) {
        npk_column_summary summary;
        status = npk_column_finish(bulk->writer, synced, &summary, err);
        if (status == NPK_OK)
            status = npk_txn_log_file(txn, &summary, synced, err);
        any = true;
    }
    if (any && !synced)
        npk_unsynced_note(txn->core, npk_wal_get_end(txn->core->wal).lsn);
    if (status == NPK_OK && any && synced)
        status = npk_unsynced_sync_names(txn->core, err);
    return status;
}

static uint32_t sync_interval_ms(const npk_txn *txn)
{
    return txn->store ? txn->store->settings.sync_interval_ms : txn->core->settings.sync_interval_ms;
}

npk_status npk_txn_commit(npk_txn *txn, npk_sync sync, npk_position *position, npk_error *err)
{
    npk_core *core = txn->core;
    if (is_inherited(txn))
        return fail_inherited(err); /* the memory stays: giving it back would touch what the parent had locked */
    npk_status status = txn->broken;
    bool reached_log = false;
    if (status == NPK_OK && (unsigned)sync > NPK_SYNC_NEVER)
        status = npk_fail(err, NPK_INVALID, "unknown sync level %d", (int)sync);
    else if (status != NPK_OK)
        (void)npk_fail(err, status, "an earlier failure broke this transaction; it was rolled back");
    if (status == NPK_OK && txn->record_count == 0) { /* nothing to commit; what was rolled back may have left a void */
        status = npk_writer_abort(core, txn->kv, txn->begin_lsn, txn->id, err);
        if (status == NPK_OK && position) {
            position->epoch = core->log_end.epoch;
            position->lsn = core->log_end.lsn;
        }
        drop_bulks(txn, true);
        finish(txn, status == NPK_OK);
        return status;
    }
    if (status == NPK_OK)
        status = finish_bulks(txn, sync, err);
    if (status == NPK_OK) {
        status = npk_writer_commit(core, txn->kv, txn->id, txn->record_count, sync, sync_interval_ms(txn),
                                   !txn->adds_rows, position, err);
        reached_log = true;
    }
    if (status == NPK_OK || (status == NPK_POISONED && reached_log)) { /* perhaps committed in the log: its files stay */
        drop_bulks(txn, false);
        finish(txn, status == NPK_OK);
        /* Without a background thread nobody else may do it. It is committed in any case: a failure poisons, and is said to whoever
         * comes next. */
        if (status == NPK_OK && sync == NPK_SYNC_INTERVAL && !npk_worker_is_running(core) &&
            npk_writer_sync_due(core, core->io->monotonic_us(core->io)))
            (void)npk_writer_flush(core, NULL);
        return status;
    }
    txn->full |= status == NPK_NO_SPACE;
    bool clean = npk_writer_abort(core, txn->kv, txn->begin_lsn, txn->id, NULL) == NPK_OK;
    /* A poisoned store may still hold the commit record: then the files it links must stay. */
    drop_bulks(txn, !atomic_load(&core->control->poison));
    finish(txn, clean);
    return status;
}

void npk_txn_abort(npk_txn *txn)
{
    if (!txn || is_inherited(txn))
        return;
    bool clean = npk_writer_abort(txn->core, txn->kv, txn->begin_lsn, txn->id, NULL) == NPK_OK;
    drop_bulks(txn, true); /* no commit record was ever written */
    finish(txn, clean);
}

/* ---- savepoints ------------------------------------------------------------------------------------------------------ */

npk_savepoint npk_txn_here(const npk_txn *txn)
{
    npk_savepoint point = {npk_kv_mark(txn->kv), npk_wal_get_end(txn->core->wal).lsn, txn->record_count};
    return point;
}

npk_status npk_txn_undo_to(npk_txn *txn, const npk_savepoint *to, npk_error *err)
{
    npk_kv_rollback(txn->kv, to->mark);
    txn->record_count = to->record_count;
    for (npk_bulk **link = &txn->bulks; *link;) {
        npk_bulk *bulk = *link;
        bulk->sealed = true;
        if (bulk->announced_lsn >= to->lsn) { /* the file itself is undone */
            *link = bulk->next;
            npk_column_discard(bulk->writer);
            npk_free(bulk);
        } else {
            link = &bulk->next;
        }
    }
    if (npk_wal_get_end(txn->core->wal).lsn == to->lsn)
        return NPK_OK;
    npk_status status =
        npk_wal_undo(txn->core->wal, to->lsn, txn->id,
                     npk_min_u64(atomic_load(&txn->core->control->durable_lsn), to->lsn), err);
    if (status != NPK_OK)
        txn->broken = status; /* what was to be undone is still there */
    return status;
}

npk_status npk_txn_savepoint(npk_txn *txn, uint64_t *savepoint, npk_error *err)
{
    if (is_inherited(txn))
        return fail_inherited(err);
    if (txn->savepoint_count == txn->savepoint_capacity) {
        uint64_t capacity = txn->savepoint_capacity ? txn->savepoint_capacity * 2 : 8;
        npk_savepoint *points = npk_realloc(txn->savepoints, capacity * sizeof *points);
        if (!points)
            return npk_fail(err, NPK_NO_MEMORY, "could not allocate a savepoint");
        txn->savepoints = points;
        txn->savepoint_capacity = capacity;
    }
    txn->savepoints[txn->savepoint_count] = npk_txn_here(txn);
    *savepoint = txn->savepoint_count++;
    return NPK_OK;
}

npk_status npk_txn_rollback_to(npk_txn *txn, uint64_t savepoint, npk_error *err)
{
    if (is_inherited(txn))
        return fail_inherited(err);
    if (txn->broken != NPK_OK)
        return npk_fail(err, txn->broken, "an earlier failure broke this transaction; it can only be rolled back whole");
    if (savepoint >= txn->savepoint_count)
        return npk_fail(err, NPK_MISUSE, "the savepoint is gone");
    npk_savepoint to = txn->savepoints[savepoint];
    txn->savepoint_count = savepoint + 1; /* later ones go; this one stays usable */
    npk_status status = npk_txn_undo_to(txn, &to, err);
    /* A void record moved the log on: the savepoint's place is behind it now. */
    txn->savepoints[savepoint] = npk_txn_here(txn);
    return status;
}

npk_status npk_txn_release_savepoint(npk_txn *txn, uint64_t savepoint, npk_error *err)
{
    if (is_inherited(txn))
        return fail_inherited(err);
    if (savepoint >= txn->savepoint_count)
        return npk_fail(err, NPK_MISUSE, "the savepoint is gone");
    txn->savepoint_count = savepoint;
    if (savepoint == 0)
        npk_kv_forget_marks(txn->kv);
    return NPK_OK;
}

/* ---- logging --------------------------------------------------------------------------------------------------------- */

npk_status npk_txn_log(npk_txn *txn, const npk_op *op, const void *data, size_t data_size, npk_error *err)
{
    npk_core *core = txn->core;
    npk_buffer_clear(&txn->meta);
    npk_op_encode(op, &txn->meta);
    if (txn->meta.failed)
        return npk_fail(err, NPK_NO_MEMORY, "could not encode an operation");
    npk_record record = {.type = op->type,
                         .transaction = txn->id,
                         .watermark = npk_min_u64(atomic_load(&core->control->durable_lsn), npk_wal_get_end(core->wal).lsn),
                         .meta = txn->meta.data,
                         .meta_size = txn->meta.size,
                         .raw_data_size = data_size};
    npk_status status = npk_wal_append(core->wal, record.type, record.transaction, record.watermark, record.meta,
                                       record.meta_size, data, data_size, true, &record.place, err);
    if (status == NPK_NO_SPACE && !txn->adds_rows && !npk_wal_in_doubt(core->wal)) {
        npk_reserve_release(core); /* dropping gets through on a full disk */
        status = npk_wal_append(core->wal, record.type, record.transaction, record.watermark, record.meta, record.meta_size,
                                data, data_size, true, &record.place, err);
    }
    if (status != NPK_OK && npk_wal_in_doubt(core->wal))
        txn->broken = status;
    if (status == NPK_OK) {
        txn->record_count++;
        status = npk_apply(txn->kv, &record, err);
        atomic_fetch_add(&core->logged_since_fold, record.meta_size + data_size + (data_size ? NPK_PENDING_ENTRY_WEIGHT : 0));
    }
    return status;
}

npk_status npk_txn_log_file(npk_txn *txn, const npk_column_summary *summary, bool synced, npk_error *err)
{
    size_t most = (npk_wal_payload_max(txn->core->wal) - 64) / 8; /* sums in one record, a multiple of an index entry's */
    most -= most % NPK_SUMS_PER_ENTRY;
    npk_status status = NPK_OK;
    uint64_t at = 0;
    do {
        uint64_t part = npk_min_u64(most, summary->sum_count - at);
        npk_buffer_clear(&txn->rows);
        for (uint64_t i = 0; i < part; i++)
            npk_buffer_put_u64(&txn->rows, summary->sums[at + i]);
        if (txn->rows.failed)
            return npk_fail(err, NPK_NO_MEMORY, "could not allocate checksums");
        npk_op op = {.type = at ? NPK_OP_SUMS : synced ? NPK_OP_FILE : NPK_OP_UNSYNCED_FILE,
                     .other = summary->id,
                     .file_size = summary->file_size,
                     .count = summary->row_count,
                     .row_size = summary->row_size,
                     .data_offset = summary->data_offset,
                     .first = at,
                     .list = txn->rows.data,
                     .list_count = (uint32_t)part};
        status = npk_txn_log(txn, &op, NULL, 0, err);
        at += part;
    } while (status == NPK_OK && at < summary->sum_count);
    return status;
}

npk_column *npk_txn_unfinished(void *context, uint64_t file_id)
{
    npk_txn *txn = context;
    for (npk_bulk *bulk = txn->bulks; bulk; bulk = bulk->next) {
        npk_column *column = NULL;
        if (npk_column_writer_id(bulk->writer) == file_id && npk_column_writer_view(bulk->writer, &column, NULL) == NPK_OK)
            return column;
    }
    return NULL;
}
