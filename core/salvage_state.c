/* salvage_state.c - applying what is left of a log to what is left of the checkpoints. */
#include "salvage_state.h"

#include <stdio.h>
#include <string.h>

#include "alloc.h"
#include "apply.h"
#include "array.h"
#include "bytes.h"
#include "checkpoint.h"
#include "error.h"
#include "op.h"
#include "row_index.h"
#include "snapshot.h"

/* How a log record is taken. */
typedef enum replay_kind {
    REPLAY_STATE,  /* as recovery does */
    REPLAY_PLACES, /* without folds: rows stay where their last change put them */
    REPLAY_ROWS    /* only where changes put rows, without a state to begin with */
} replay_kind;

typedef struct replay {
    const npk_salvage_source *source;
    npk_kv *kv;
    replay_kind kind;
    npk_kv *arrays;      /* REPLAY_ROWS: the arrays as they are in the end */
    bool reports;        /* losses go to source->loss */
    uint64_t mark;       /* before the transaction */
    bool left_out;       /* the transaction could not be applied */
    uint64_t gap_count, lost_count;
    npk_buffer older;    /* older_rows[]: changes that are lost, translated to rows in the end */
} replay;

typedef struct older_rows {
    uint64_t array, first_slot, count, lsn;
} older_rows;

static npk_loss make_loss(npk_loss_kind kind, uint64_t lsn, uint64_t end_lsn, const char *reason)
{
    npk_loss loss = {.kind = kind, .first_row = -1, .row_count = -1, .lsn = lsn, .end_lsn = end_lsn};
    (void)snprintf(loss.reason, sizeof loss.reason, "%.*s", (int)sizeof loss.reason - 1, reason);
    return loss;
}

static void report(replay *r, const npk_loss *loss)
{
    if (r->reports && r->source->loss)
        r->source->loss(r->source->context, loss);
}

/* ---- slots that were given out in what is lost ------------------------------------------------------------------------- */

/* Give the array rows up to the slot end, in no place: what appended them is lost, but later records prove that they were there. */
static npk_status fill_slots(npk_kv *kv, const npk_record *record, uint64_t id, uint64_t end, npk_error *err)
{
    npk_array_record array;
    bool found = false;
    npk_status status = npk_catalog_get_array(kv, id, &array, &found, err);
    if (status != NPK_OK || !found)
        return status;
    if (end > array.next_slot) {
        npk_row_change change = {kv, id, record->place.lsn, array.row_size, 0};
        uint64_t count = end - array.next_slot;
        npk_run run = {.first_slot = array.next_slot, .count = count, .lsn = 0, .place = {.kind = NPK_PLACE_SEGMENT}};
        status = npk_row_index_map_append(&change, array.row_count, array.next_slot, count, err);
        if (status == NPK_OK && array.row_size)
            status = npk_row_index_put_run(&change, &run, false, err);
        array.next_slot = end;
        array.row_count += count;
        array.pending_row_count += (uint64_t)change.pending_delta;
        if (status == NPK_OK)
            status = npk_catalog_put_array(kv, id, &array, err);
    }
    npk_array_record_release(&array);
    return status;
}

/* The slot behind those that op expects to be there before it. */
static uint64_t needed_slots(const npk_op *op)
{
    uint64_t end;
    switch ((npk_op_type)op->type) {
    case NPK_OP_APPEND: return op->first;
    case NPK_OP_LINK_RUN:
        if (op->mode == NPK_LINK_APPEND)
            return op->first;
        return npk_add_overflow(op->first, op->count, &end) ? 0 : end;
    case NPK_OP_REPLACE_RUN: return npk_add_overflow(op->first, op->count, &end) ? 0 : end;
    case NPK_OP_REPLACE_SET:
    case NPK_OP_LINK_SET:
        return op->list_count == 0 || op->block > INT64_MAX / NPK_SET_BLOCK
                   ? 0
                   : op->block * NPK_SET_BLOCK + npk_get_u16(op->list + 2 * (size_t)(op->list_count - 1)) + 1;
    default: return 0;
    }
}

/* ---- renumbering that leaves rows where they are --------------------------------------------------------------------------- */

static npk_status put_moved(npk_row_change *change, uint64_t slot, uint64_t count, uint64_t lsn, const npk_row_source *source,
                            uint64_t source_row, npk_error *err)
{
    npk_run run = {slot, count, lsn, source->place};
    run.place.row += source_row;
    return npk_row_index_put_run(change, &run, false, err);
}

/* A renumbering gives rows new slots, in one new file; here they get the slots and stay where they are. */
static npk_status renumber(npk_kv *kv, const npk_record *record, const npk_op *op, npk_error *err)
{
    npk_array_record array;
    bool found = false, missing = false;
    npk_status status = npk_catalog_get_array(kv, op->array, &array, &found, err);
    if (status != NPK_OK)
        return status;
    if (!found)
        return npk_fail(err, NPK_CORRUPT, "an array is renumbered that is not there");
    npk_array_sources places = {.only_places = true};
    npk_array *before = NULL;
    if (op->count != array.row_count || op->first != array.next_slot)
        status = npk_fail(err, NPK_CORRUPT, "rows are renumbered that are not there");
    if (status == NPK_OK)
        status = npk_array_build(kv, array.name, &places, &before, &missing, err);
    npk_row_change change = {kv, op->array, record->place.lsn, array.row_size, 0};
    if (status == NPK_OK)
        status = npk_row_index_drop_array(&change, err);
    if (status == NPK_OK)
        status = npk_row_index_map_append(&change, 0, op->first, op->count, err);
    for (uint64_t i = 0; before && i < before->piece_count && status == NPK_OK; i++) {
        const npk_piece *piece = &before->pieces[i];
        status = put_moved(&change, op->first + piece->first_row, piece->count, piece->lsn, &before->sources[piece->source],
                           piece->source_row, err);
    }
    for (uint64_t i = 0; before && i < before->overlay_count && status == NPK_OK; i++) {
        const npk_overlay_row *row = &before->overlay[i];
        status = put_moved(&change, op->first + row->row, 1, record->place.lsn, &before->sources[row->source], row->source_row,
                           err);
    }
    npk_array_release(before);
    array.next_slot += op->count;
    array.pending_row_count += (uint64_t)change.pending_delta;
    if (status == NPK_OK)
        status = npk_catalog_put_array(kv, op->array, &array, err);
    npk_array_record_release(&array);
    return status;
}

/* ---- one record -------------------------------------------------------------------------------------------------------------- */

static bool is_link(const npk_op *op)
{
    return op->type == NPK_OP_LINK_RUN || op->type == NPK_OP_LINK_SET;
}

/* It announces a column file, or more checksums of one, and changes no row. */
static bool is_file(const npk_op *op)
{
    return op->type == NPK_OP_FILE || op->type == NPK_OP_UNSYNCED_FILE || op->type == NPK_OP_SUMS;
}

/* Places without a state: what a change did to which slots. Arrays that are gone in the end do not matter. */
static npk_status apply_row_places(replay *r, const npk_record *record, const npk_op *op, npk_error *err)
{
    if (is_file(op))
        return npk_apply(r->kv, record, err);
    bool is_rows = op->type == NPK_OP_APPEND || op->type == NPK_OP_REPLACE_RUN || op->type == NPK_OP_REPLACE_SET;
    if (!is_rows && !is_link(op))
        return NPK_OK;
    npk_array_record array;
    bool found = false;
    npk_status status = npk_catalog_get_array(r->arrays, op->array, &array, &found, err);
    if (status != NPK_OK || !found)
        return status;
    bool is_set = op->type == NPK_OP_REPLACE_SET || op->type == NPK_OP_LINK_SET;
    uint64_t size, count = is_set ? op->list_count : op->count;
    bool fits = array.row_size && (is_link(op) || (!npk_mul_overflow(count, array.row_size, &size) && size == record->raw_data_size));
    npk_array_record_release(&array);
    if (!fits)
        return NPK_OK;
    npk_place place = {.kind = record->place.packed ? NPK_PLACE_PACKED : NPK_PLACE_SEGMENT,
                       .container = record->place.seq,
                       .record_offset = record->place.offset,
                       .data_delta = (uint32_t)(record->place.data_offset - record->place.offset)};
    if (is_link(op)) {
        npk_container container;
        status = npk_catalog_get_container(r->kv, NPK_CONTAINER_COLUMN, op->other, &container, &found, err);
        if (status != NPK_OK)
            return status;
        /* A file that was announced before this log begins: the rows changed, and where to is not known here. */
        place = found ? (npk_place){.kind = NPK_PLACE_COLUMN, .container = op->other, .row = op->file_row}
                      : (npk_place){.kind = NPK_PLACE_SEGMENT};
    }
    npk_row_change change = {.kv = r->kv, .array = op->array, .lsn = record->place.lsn};
    if (is_set) {
        npk_set set = {op->block, record->place.lsn, place, op->list_count, op->list};
        return npk_row_index_put_set(&change, &set, false, err);
    }
    npk_run run = {op->first, op->count, record->place.lsn, place};
    return npk_row_index_put_run(&change, &run, false, err);
}

static npk_status apply(replay *r, const npk_record *record, npk_error *err)
{
    npk_op op;
    if (!npk_op_decode(record->type, record->meta, record->meta_size, &op))
        return npk_fail(err, NPK_CORRUPT, "it is no operation that this version knows");
    bool is_fold = is_link(&op) && op.mode == NPK_LINK_FOLD;
    if (r->kind != REPLAY_STATE && (is_fold || op.type == NPK_OP_RETIRE))
        return NPK_OK;
    if (r->kind == REPLAY_ROWS)
        return apply_row_places(r, record, &op, err);
    if (r->kind == REPLAY_PLACES && op.type == NPK_OP_RENUMBER)
        return renumber(r->kv, record, &op, err);
    npk_status status = NPK_OK;
    uint64_t mark = npk_kv_mark(r->kv);
    if (r->gap_count + r->lost_count && !is_fold)
        status = fill_slots(r->kv, record, op.array, needed_slots(&op), err);
    if (status == NPK_OK)
        status = npk_apply(r->kv, record, err);
    /* Folds move rows and retirements forget files: where they do not fit what is left, nothing is lost without them. */
    if (status == NPK_CORRUPT && (is_fold || op.type == NPK_OP_RETIRE)) {
        npk_kv_rollback(r->kv, mark);
        status = NPK_OK;
    }
    return status;
}

/* ---- what is lost ---------------------------------------------------------------------------------------------------------------- */

static npk_status note_older(replay *r, uint64_t array, uint64_t first_slot, uint64_t count, uint64_t lsn, npk_error *err)
{
    if (r->older.size) { /* the numbers of a set, mostly neighbours */
        older_rows *last = (older_rows *)(void *)r->older.data + (r->older.size / sizeof *last - 1);
        if (last->array == array && last->lsn == lsn && last->first_slot + last->count == first_slot) {
            last->count += count;
            return NPK_OK;
        }
    }
    older_rows rows = {array, first_slot, count, lsn};
    npk_buffer_put(&r->older, &rows, sizeof rows);
    return r->older.failed ? npk_fail(err, NPK_NO_MEMORY, "no memory for the list of what is lost") : NPK_OK;
}

/* A record of a transaction that is left out. */
static npk_status note_lost_record(replay *r, const npk_record *record, const char *why, npk_error *err)
{
    npk_op op;
    if (!r->reports || !npk_op_decode(record->type, record->meta, record->meta_size, &op) || op.type == NPK_OP_RETIRE || is_file(&op) ||
        (is_link(&op) && op.mode == NPK_LINK_FOLD))
        return NPK_OK;
    char text[96], reason[192];
    npk_op_print(&op, text, sizeof text);
    (void)snprintf(reason, sizeof reason, "left out: %s (%.80s)", text, why);
    npk_loss loss = make_loss(NPK_LOSS_TRANSACTION, record->place.lsn, 0, reason);
    (void)snprintf(loss.file, sizeof loss.file, "wal/%016llx.wal", (unsigned long long)record->place.seq);
    npk_array_record array;
    bool found = false;
    npk_status status = npk_catalog_get_array(r->kv, op.array, &array, &found, err);
    if (status != NPK_OK)
        return status;
    if (found) {
        (void)snprintf(loss.array, sizeof loss.array, "%s", array.name);
        npk_array_record_release(&array);
    }
    report(r, &loss);
    if (op.type == NPK_OP_REPLACE_RUN || (op.type == NPK_OP_LINK_RUN && op.mode == NPK_LINK_REPLACE))
        return note_older(r, op.array, op.first, op.count, record->place.lsn, err);
    if (op.type != NPK_OP_REPLACE_SET && op.type != NPK_OP_LINK_SET)
        return NPK_OK;
    for (uint32_t i = 0; i < op.list_count && status == NPK_OK; i++)
        status = note_older(r, op.array, op.block * NPK_SET_BLOCK + npk_get_u16(op.list + 2 * (size_t)i), 1, record->place.lsn, err);
    return status;
}

static npk_status visit(void *context, const npk_record *record, bool whole, npk_error *err)
{
    replay *r = context;
    npk_error reason = {.row = -1};
    if (!whole && record->type == NPK_RECORD_COMMIT) {
        r->lost_count++;
        return NPK_OK;
    }
    if (!whole)
        return note_lost_record(r, record, "a part of its transaction is lost", err);
    if (record->type == NPK_RECORD_COMMIT) {
        npk_status status = r->left_out ? NPK_OK : npk_apply_commit(r->kv, record, &reason);
        npk_kv_forget_marks(r->kv);
        r->mark = npk_kv_mark(r->kv);
        r->lost_count += r->left_out;
        r->left_out = false;
        return status == NPK_CORRUPT ? NPK_OK : status == NPK_OK ? NPK_OK : npk_fail(err, status, "%s", reason.message);
    }
    npk_status status = r->left_out ? NPK_CORRUPT : apply(r, record, &reason);
    if (status == NPK_OK)
        return NPK_OK;
    if (status != NPK_CORRUPT)
        return npk_fail(err, status, "%s", reason.message);
    if (!r->left_out)
        npk_kv_rollback(r->kv, r->mark);
    r->left_out = true;
    return note_lost_record(r, record, reason.message[0] ? reason.message : "another operation of its transaction does not fit", err);
}

static npk_status gap(void *context, uint64_t first_lsn, uint64_t end_lsn, uint64_t seq, uint64_t offset, const char *why,
                      npk_error *err)
{
    (void)err;
    replay *r = context;
    r->gap_count++;
    npk_loss loss = make_loss(NPK_LOSS_LOG, first_lsn, end_lsn, why);
    if (seq) {
        (void)snprintf(loss.file, sizeof loss.file, "wal/%016llx.wal", (unsigned long long)seq);
        (void)snprintf(loss.reason, sizeof loss.reason, "offset %llu: %s", (unsigned long long)offset, why);
    }
    report(r, &loss);
    return NPK_OK;
}

/* Which rows are the slots first .. + count now? Each run of them is a loss. */
static npk_status report_older(replay *r, npk_error *err)
{
    const older_rows *all = (const older_rows *)(const void *)r->older.data;
    npk_status status = NPK_OK;
    for (size_t i = 0; i < r->older.size / sizeof *all && status == NPK_OK; i++) {
        npk_array_record array;
        bool found = false;
        status = npk_catalog_get_array(r->kv, all[i].array, &array, &found, err);
        if (status != NPK_OK || !found)
            continue;
        npk_map_run *runs = NULL;
        size_t run_count = 0;
        status = npk_row_index_load_map(r->kv, all[i].array, &runs, &run_count, err);
        for (size_t k = 0; k < run_count && status == NPK_OK; k++) {
            uint64_t first = npk_max_u64(all[i].first_slot, runs[k].first_slot);
            uint64_t end = npk_min_u64(all[i].first_slot + all[i].count, runs[k].first_slot + runs[k].count);
            if (first >= end)
                continue;
            npk_loss loss = make_loss(NPK_LOSS_OLDER_ROWS, all[i].lsn, 0, "a change of these rows is lost; they may hold an older value");
            (void)snprintf(loss.array, sizeof loss.array, "%s", array.name);
            loss.first_row = (int64_t)(runs[k].first_row + (first - runs[k].first_slot));
            loss.row_count = (int64_t)(end - first);
            report(r, &loss);
        }
        npk_free(runs);
        npk_array_record_release(&array);
    }
    return status;
}

/* ---- checkpoints and log ------------------------------------------------------------------------------------------------------------ */

static npk_status load_checkpoint(const npk_salvage_source *source, uint64_t lsn, npk_kv **out, npk_store_state *state, npk_error *err)
{
    npk_kv *kv = NULL;
    bool found = false;
    npk_status status = npk_kv_open(NULL, &kv, err);
    if (status == NPK_OK)
        status = npk_checkpoint_load(source->io, source->checkpoint_directory, source->uuid, lsn, kv, NULL, NULL, err);
    if (status == NPK_OK)
        status = npk_catalog_get_state(kv, state, &found, err);
    if (status == NPK_OK && !found)
        status = npk_fail(err, NPK_CORRUPT, "checkpoint %llu has no state", (unsigned long long)lsn);
    if (status != NPK_OK) {
        npk_kv_close(kv);
        return status;
    }
    npk_kv_forget_marks(kv);
    *out = kv;
    return NPK_OK;
}

static npk_status open_empty(npk_kv **out, npk_error *err)
{
    npk_kv *kv = NULL;
    npk_wal_end start = {.lsn = NPK_WAL_FIRST_LSN};
    npk_status status = npk_kv_open(NULL, &kv, err);
    if (status == NPK_OK)
        status = npk_apply_end(kv, &start, NULL, err);
    if (status != NPK_OK) {
        npk_kv_close(kv);
        return status;
    }
    npk_kv_forget_marks(kv);
    *out = kv;
    return NPK_OK;
}

/* Apply the log from from_lsn on. *end as npk_wal_salvage.end. */
static npk_status read_log(replay *r, uint64_t from_lsn, uint64_t floor, npk_wal_end *end, npk_error *err)
{
    const npk_salvage_source *source = r->source;
    memset(end, 0, sizeof *end);
    if (!source->wal)
        return NPK_OK;
    npk_wal_salvage salvage = {.from_lsn = from_lsn, .durable_floor = floor, .stop_lsn = source->until_lsn,
                               .stop_us = source->until_us, .visit = visit, .gap = gap, .context = r};
    r->mark = npk_kv_mark(r->kv);
    npk_status status = npk_wal_read_damaged(source->wal, &salvage, err);
    if (status == NPK_OK && r->left_out)
        npk_kv_rollback(r->kv, r->mark);
    *end = salvage.end;
    return status;
}

static void note_oldest(void *context, const npk_segment_info *info)
{
    npk_salvage_state *state = context;
    if (info->valid && (state->oldest_lsn == 0 || info->first_lsn < state->oldest_lsn))
        state->oldest_lsn = info->first_lsn;
}

static npk_status find_base(const npk_salvage_source *source, npk_salvage_state *state, uint64_t *newest_lsn, npk_store_state *base,
                            npk_error *err)
{
    uint64_t lsns[NPK_SALVAGE_CHECKPOINTS];
    size_t count = 0;
    npk_status status = NPK_OK;
    *newest_lsn = 0;
    if (source->checkpoint_directory)
        status = npk_checkpoint_list(source->io, source->checkpoint_directory, lsns, NPK_SALVAGE_CHECKPOINTS, &count, err);
    if (status != NPK_OK)
        return status;
    *newest_lsn = count ? lsns[0] : 0;
    for (size_t i = 0; i < count && i < NPK_SALVAGE_CHECKPOINTS; i++) {
        npk_kv *kv = NULL;
        npk_store_state of_checkpoint;
        if (source->until_lsn && lsns[i] > source->until_lsn)
            continue;
        status = load_checkpoint(source, lsns[i], &kv, &of_checkpoint, err);
        if (status == NPK_NO_MEMORY || status == NPK_IO || status == NPK_FORMAT)
            return status;
        if (status != NPK_OK || (source->until_us && of_checkpoint.last_commit_us > source->until_us)) {
            npk_kv_close(kv);
            continue;
        }
        state->lsns[state->checkpoint_count++] = lsns[i];
        if (!state->kv) {
            state->kv = kv;
            state->base_lsn = lsns[i];
            *base = of_checkpoint;
        } else {
            npk_kv_close(kv);
        }
    }
    return NPK_OK;
}

npk_status npk_salvage_state_build(const npk_salvage_source *source, npk_salvage_state *state, npk_error *err)
{
    memset(state, 0, sizeof *state);
    uint64_t newest_lsn;
    npk_store_state base = {.end = {.lsn = NPK_WAL_FIRST_LSN}};
    npk_status status = find_base(source, state, &newest_lsn, &base, err);
    if (status == NPK_OK && source->wal)
        status = npk_wal_list(source->wal, note_oldest, state, err);
    if (status != NPK_OK)
        return status;
    if (!state->kv) {
        if ((source->until_lsn || source->until_us) && state->oldest_lsn != NPK_WAL_FIRST_LSN)
            return npk_fail(err, NPK_RANGE, "neither a checkpoint nor the log reaches back to there: the log begins at lsn %llu",
                            (unsigned long long)state->oldest_lsn);
        status = open_empty(&state->kv, err);
        if (status != NPK_OK)
            return status;
    }
    replay r = {.source = source, .kv = state->kv, .kind = REPLAY_STATE, .reports = true};
    npk_buffer_init(&r.older);
    npk_wal_end end;
    status = read_log(&r, state->base_lsn ? state->base_lsn : NPK_WAL_FIRST_LSN, newest_lsn, &end, err);
    if (status == NPK_OK && !source->wal) {
        npk_loss loss = make_loss(NPK_LOSS_LOG, state->base_lsn, 0, "the log is missing");
        r.gap_count++;
        report(&r, &loss);
    }
    if (status == NPK_OK)
        status = report_older(&r, err);
    npk_buffer_release(&r.older);
    npk_wal_end reached = end.lsn ? end : base.end;
    state->position = (npk_position){reached.epoch, reached.lsn};
    state->gap_count = r.gap_count;
    state->lost_count = r.lost_count;
    return status;
}

void npk_salvage_state_release(npk_salvage_state *state)
{
    npk_kv_close(state->kv);
    memset(state, 0, sizeof *state);
}

/* ---- older places ---------------------------------------------------------------------------------------------------------------------- */

/* Rows by slot get the arrays and row numbers that state has. */
static npk_status copy_arrays(npk_kv *from, npk_kv *to, npk_error *err)
{
    static const npk_table tables[] = {NPK_TABLE_STORE, NPK_TABLE_ARRAYS, NPK_TABLE_NAMES, NPK_TABLE_MAP};
    npk_status status = NPK_OK;
    for (size_t i = 0; i < sizeof tables / sizeof *tables && status == NPK_OK; i++)
        status = npk_kv_copy_table(from, tables[i], to, err);
    npk_kv_forget_marks(to);
    return status;
}

npk_status npk_salvage_older_places(const npk_salvage_source *source, const npk_salvage_state *state, size_t which, npk_kv **older,
                                    bool *more, npk_error *err)
{
    *older = NULL;
    *more = which < state->checkpoint_count;
    if (which > state->checkpoint_count || (which == state->checkpoint_count && (!source->wal || !state->oldest_lsn)))
        return NPK_OK;
    replay r = {.source = source, .kind = REPLAY_PLACES};
    npk_buffer_init(&r.older);
    npk_store_state base;
    npk_status status;
    uint64_t from_lsn;
    /* The oldest checkpoint leaves most rows where they were first; behind all of them, the log alone. */
    if (which < state->checkpoint_count) {
        from_lsn = state->lsns[state->checkpoint_count - 1 - which];
        status = load_checkpoint(source, from_lsn, &r.kv, &base, err);
    } else {
        from_lsn = state->oldest_lsn;
        r.kind = from_lsn == NPK_WAL_FIRST_LSN ? REPLAY_PLACES : REPLAY_ROWS;
        r.arrays = state->kv;
        status = open_empty(&r.kv, err);
    }
    npk_wal_end end;
    if (status == NPK_OK)
        status = read_log(&r, from_lsn, 0, &end, err);
    if (status == NPK_OK && r.kind == REPLAY_ROWS)
        status = copy_arrays(state->kv, r.kv, err);
    npk_buffer_release(&r.older);
    /* Where more of the log is lost than state lacks too, a row may have changed unseen. The log alone may begin inside a transaction: what changed
     * in it has no older place here that could be taken for the newer. */
    bool proves = r.gap_count == state->gap_count && r.lost_count <= state->lost_count + (r.kind == REPLAY_ROWS);
    if (status != NPK_OK || !proves) {
        npk_kv_close(r.kv);
        return status == NPK_CORRUPT ? NPK_OK : status;
    }
    *older = r.kv;
    return NPK_OK;
}
