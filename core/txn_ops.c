/* txn_ops.c - the operations of a transaction: checked, turned from rows into slots, logged and applied.
 *
 * Each public operation is whole or undone: begin_op notes where the transaction stands, end_op goes back there on failure. */
#include <stdlib.h>

#include "alloc.h"
#include "bytes.h"
#include "error.h"
#include "reserve.h"
#include "row_index.h"
#include "txn.h"

/* ---- the frame of an operation --------------------------------------------------------------------------------------- */

static npk_status begin_op(npk_txn *txn, npk_savepoint *start, npk_error *err)
{
    if (atomic_load(&txn->core->is_forked))
        return npk_fail(err, NPK_MISUSE, "the transaction belongs to a parent process");
    if (txn->broken != NPK_OK)
        return npk_fail(err, txn->broken, "an earlier failure broke this transaction; it can only be rolled back");
    *start = npk_txn_here(txn);
    npk_kv_begin_read(txn->kv); /* one reading for all look-ups of the operation: nobody else publishes meanwhile */
    return NPK_OK;
}

static npk_status end_op(npk_txn *txn, const npk_savepoint *start, npk_status status, const char *array, npk_error *err)
{
    npk_kv_end_read(txn->kv);
    if (status != NPK_OK) {
        npk_error_set_array(err, array);
        txn->full |= status == NPK_NO_SPACE;
        if (txn->broken == NPK_OK)
            (void)npk_txn_undo_to(txn, start, NULL); /* breaks the transaction when it fails */
        else
            npk_kv_rollback(txn->kv, start->mark);
    }
    if (txn->savepoint_count == 0)
        npk_kv_forget_marks(txn->kv);
    return status;
}

/* Before rows are added or replaced. The reserve is for transactions that do neither. */
static npk_status require_room(npk_txn *txn, npk_error *err)
{
    txn->adds_rows = true;
    return npk_reserve_require(txn->core, err);
}

static uint64_t now_us(const npk_txn *txn)
{
    return txn->core->io->now_us(txn->core->io);
}

/* ---- names ------------------------------------------------------------------------------------------------------------ */

/* Well-formed UTF-8 of 1 to max bytes: no surrogates, nothing overlong (RFC 3629). */
static bool is_utf8(const char *text, size_t size)
{
    const uint8_t *p = (const uint8_t *)text, *end = p + size;
    while (p < end) {
        uint32_t c = *p++, least;
        int more = 0;
        if (c < 0x80)
            continue;
        if (c >= 0xc2 && c < 0xe0) {
            more = 1;
            least = 0x80;
            c &= 0x1f;
        } else if (c >= 0xe0 && c < 0xf0) {
            more = 2;
            least = 0x800;
            c &= 0x0f;
        } else if (c >= 0xf0 && c < 0xf5) {
            more = 3;
            least = 0x10000;
            c &= 0x07;
        } else {
            return false;
        }
        while (more--) {
            if (p == end || (*p & 0xc0) != 0x80)
                return false;
            c = c << 6 | (*p++ & 0x3fu);
        }
        if (c < least || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
            return false;
    }
    return true;
}

static npk_status check_name(const char *name, const char *what, npk_error *err)
{
    size_t size = name ? strlen(name) : 0;
    if (size == 0)
        return npk_fail(err, NPK_INVALID, "an empty string is no %s", what);
    if (size > NPK_NAME_MAX)
        return npk_fail(err, NPK_INVALID, "a %s has at most %d bytes, this one has %zu", what, NPK_NAME_MAX, size);
    if (!is_utf8(name, size))
        return npk_fail(err, NPK_INVALID, "a %s must be well-formed UTF-8", what);
    return NPK_OK;
}

/* The array of this name as the transaction sees it. release the record. */
static npk_status find_array(npk_txn *txn, const char *name, uint64_t *id, npk_array_record *array, npk_error *err)
{
    npk_status status = check_name(name, "array name", err);
    bool found = false;
    if (status == NPK_OK)
        status = npk_catalog_find_array(txn->kv, name, id, &found, err);
    if (status == NPK_OK && !found)
        status = npk_fail(err, NPK_NOT_FOUND, "no array \"%s\"", name);
    if (status == NPK_OK)
        status = npk_catalog_get_array(txn->kv, *id, array, &found, err);
    if (status == NPK_OK && !found)
        status = npk_catalog_fail(err, NPK_TABLE_ARRAYS);
    return status;
}

npk_status npk_txn_describe(npk_txn *txn, const char *name, npk_array_spec *spec, uint64_t *row_count, npk_error *err)
{
    npk_savepoint start;
    uint64_t id;
    npk_status status = begin_op(txn, &start, err);
    if (status != NPK_OK)
        return status;
    npk_array_record array;
    status = end_op(txn, &start, find_array(txn, name, &id, &array, err), name, err);
    if (status != NPK_OK)
        return status;
    npk_array_record_release(&txn->described);
    txn->described = array;
    spec->descr = txn->described.descr;
    spec->row_size = txn->described.row_size;
    spec->ndim = txn->described.ndim;
    spec->shape = txn->described.shape;
    spec->zero_dim = txn->described.zero_dim;
    *row_count = txn->described.row_count;
    return NPK_OK;
}

static npk_status next_array_id(npk_txn *txn, uint64_t *id, npk_error *err)
{
    npk_store_state state;
    bool found = false;
    npk_status status = npk_catalog_get_state(txn->kv, &state, &found, err);
    if (status == NPK_OK && !found)
        status = npk_catalog_fail(err, NPK_TABLE_STORE);
    *id = status == NPK_OK ? state.next_array_id : 0;
    return status;
}

/* ---- bulk rows --------------------------------------------------------------------------------------------------------- */

/* Rows go straight into a column file when there are many bytes of them, or when one does not fit into a log record. */
static bool is_bulk(const npk_txn *txn, uint64_t row_size, uint64_t count)
{
    uint64_t size;
    return row_size && count &&
           (row_size > npk_wal_payload_max(txn->core->wal) / 2 || npk_mul_overflow(row_size, count, &size) ||
            size >= txn->core->settings.bulk_size);
}

/* The column file that takes this array's bulk rows, announced in the log. */
static npk_status get_bulk(npk_txn *txn, uint64_t id, const npk_array_record *array, uint64_t expected, npk_bulk **out,
                           npk_error *err)
{
    for (npk_bulk *bulk = txn->bulks; bulk; bulk = bulk->next) {
        if (bulk->array == id && !bulk->sealed) {
            *out = bulk;
            return NPK_OK;
        }
    }
    npk_bulk *bulk = npk_calloc(1, sizeof *bulk);
    if (!bulk)
        return npk_fail(err, NPK_NO_MEMORY, "could not allocate a column writer");
    npk_column_spec spec = {array->descr, array->row_size, array->ndim, array->shape, array->zero_dim};
    /* At level never nobody is about to sync it. A commit may ask for another level than the handle has: a hint is all this is. */
    bool write_behind = !txn->store || txn->store->settings.sync != NPK_SYNC_NEVER;
    npk_status status = npk_column_create(txn->core->io, txn->core->columns_directory, txn->core->uuid, &spec, expected,
                                          write_behind, &bulk->writer, err);
    if (status != NPK_OK) {
        npk_free(bulk);
        return status;
    }
    bulk->array = id;
    bulk->announced_lsn = npk_wal_get_end(txn->core->wal).lsn;
    bulk->next = txn->bulks;
    txn->bulks = bulk;
    npk_op op = {.type = NPK_OP_FILE, .other = npk_column_writer_id(bulk->writer), .row_size = array->row_size};
    *out = bulk;
    return npk_txn_log(txn, &op, NULL, 0, err);
}

/* ---- appending ---------------------------------------------------------------------------------------------------------- */

static npk_status append_rows(npk_txn *txn, uint64_t id, npk_array_record *array, uint64_t count, const void *data,
                              npk_error *err)
{
    const uint8_t *rows = data;
    uint64_t end;
    if (npk_add_overflow(array->row_count, count, &end) || end > INT64_MAX ||
        npk_add_overflow(array->next_slot, count, &end) || npk_mul_overflow(array->row_size, count, &end))
        return npk_fail(err, NPK_SHAPE, "array \"%s\" cannot have so many rows", array->name);
    npk_op op = {.type = NPK_OP_APPEND, .array = id, .time_us = now_us(txn), .first = array->next_slot};
    npk_status status = require_room(txn, err);
    if (status != NPK_OK)
        return status;
    if (is_bulk(txn, array->row_size, count)) {
        npk_bulk *bulk = NULL;
        status = get_bulk(txn, id, array, count, &bulk, err);
        if (status != NPK_OK)
            return status;
        op.type = NPK_OP_LINK_RUN;
        op.mode = NPK_LINK_APPEND;
        op.count = count;
        op.other = npk_column_writer_id(bulk->writer);
        op.file_row = npk_column_writer_row_count(bulk->writer);
        status = npk_column_append(bulk->writer, rows, count, err);
        if (status != NPK_OK) {
            txn->broken = status; /* the column file cannot be finished any more */
            return status;
        }
        return npk_txn_log(txn, &op, NULL, 0, err);
    }
    uint64_t most = array->row_size ? (npk_wal_payload_max(txn->core->wal) - 64) / array->row_size : count;
    while (count && status == NPK_OK) {
        op.count = npk_min_u64(count, most);
        status = npk_txn_log(txn, &op, rows, (size_t)(op.count * array->row_size), err);
        if (rows)
            rows += op.count * array->row_size;
        op.first += op.count;
        count -= op.count;
    }
    return status;
}

static npk_status check_spec(const npk_array_spec *spec, uint64_t row_count, npk_error *err)
{
    size_t descr_size = spec->descr ? strlen(spec->descr) : 0;
    if (descr_size == 0 || descr_size > NPK_DESCR_MAX)
        return npk_fail(err, NPK_INVALID, "a dtype description has 1 to %d bytes, this one has %zu", NPK_DESCR_MAX,
                        descr_size);
    if (spec->ndim >= NPK_NDIM_MAX)
        return npk_fail(err, NPK_INVALID, "an array has at most %d dimensions", NPK_NDIM_MAX);
    if (spec->zero_dim && (spec->ndim != 0 || row_count != 1 || spec->row_size == 0))
        return npk_fail(err, NPK_SHAPE, "a 0-d array is exactly one value");
    uint64_t elements = 1, unused;
    for (uint32_t i = 0; i < spec->ndim; i++)
        if (spec->shape[i] > INT64_MAX || npk_mul_overflow(elements, spec->shape[i], &elements))
            return npk_fail(err, NPK_SHAPE, "the shape is too large");
    if (elements ? spec->row_size == 0 || spec->row_size % elements != 0 : spec->row_size != 0)
        return npk_fail(err, NPK_SHAPE, "a row size of %llu does not fit the shape", (unsigned long long)spec->row_size);
    if (spec->row_size > INT64_MAX || row_count > INT64_MAX || npk_mul_overflow(spec->row_size, row_count, &unused))
        return npk_fail(err, NPK_SHAPE, "the array is too large");
    return NPK_OK;
}

npk_status npk_txn_save(npk_txn *txn, const char *name, const npk_array_spec *spec, uint64_t row_count, const void *data,
                        npk_error *err)
{
    npk_savepoint start;
    npk_status status = begin_op(txn, &start, err);
    if (status != NPK_OK)
        return status;
    npk_array_record array;
    memset(&array, 0, sizeof array);
    npk_buffer shape;
    npk_buffer_init(&shape);
    npk_op op = {.type = NPK_OP_CREATE};
    bool found = false;
    status = check_name(name, "array name", err);
    if (status == NPK_OK)
        status = check_spec(spec, row_count, err);
    if (status == NPK_OK)
        status = npk_catalog_find_array(txn->kv, name, &op.other, &found, err);
    if (status == NPK_OK)
        status = next_array_id(txn, &op.array, err);
    if (status == NPK_OK) {
        op.other = found ? op.other : 0;
        op.time_us = now_us(txn);
        op.name = name;
        op.name_size = strlen(name);
        op.descr = spec->descr;
        op.descr_size = strlen(spec->descr);
        op.zero_dim = spec->zero_dim != 0;
        op.ndim = (uint8_t)spec->ndim;
        op.row_size = spec->row_size;
        for (uint32_t i = 0; i < spec->ndim; i++)
            npk_buffer_put_u64(&shape, spec->shape[i]);
        op.list = shape.data;
        status = shape.failed ? npk_fail(err, NPK_NO_MEMORY, "could not allocate a shape") : npk_txn_log(txn, &op, NULL, 0, err);
    }
    bool have = false;
    if (status == NPK_OK)
        status = npk_catalog_get_array(txn->kv, op.array, &array, &have, err);
    if (status == NPK_OK)
        status = append_rows(txn, op.array, &array, row_count, data, err);
    if (have)
        npk_array_record_release(&array);
    npk_buffer_release(&shape);
    return end_op(txn, &start, status, name, err);
}

npk_status npk_txn_append(npk_txn *txn, const char *name, uint64_t row_count, const void *data, npk_error *err)
{
    npk_savepoint start;
    npk_status status = begin_op(txn, &start, err);
    if (status != NPK_OK)
        return status;
    uint64_t id = 0;
    npk_array_record array;
    status = find_array(txn, name, &id, &array, err);
    if (status == NPK_OK) {
        if (array.zero_dim)
            status = npk_fail(err, NPK_SHAPE, "array \"%s\" is 0-d: it has no rows to append to", name);
        else
            status = append_rows(txn, id, &array, row_count, data, err);
        npk_array_record_release(&array);
    }
    return end_op(txn, &start, status, name, err);
}

/* ---- replacing ---------------------------------------------------------------------------------------------------------- */

/* One row to replace: its slot, and which row of the input it gets. */
struct target {
    uint64_t slot, input;
};

/* Sort by slot, the equal ones in the order they came: by digits of 8 bits from the lowest up to the highest in which slots
 * differ. other has room for as many; returns where the sorted ones are. (10,000 of 1,000,000 rows: 45 us, qsort 700.) */
static struct target *sort_targets(struct target *targets, struct target *other, uint64_t count)
{
    uint64_t differ = 0;
    for (uint64_t i = 1; i < count; i++)
        differ |= targets[i].slot ^ targets[0].slot;
    for (unsigned shift = 0; shift < 64 && differ >> shift; shift += 8) {
        uint64_t place[256] = {0}, sum = 0;
        for (uint64_t i = 0; i < count; i++)
            place[targets[i].slot >> shift & 255]++;
        for (unsigned digit = 0; digit < 256; digit++) {
            uint64_t number = place[digit];
            place[digit] = sum;
            sum += number;
        }
        for (uint64_t i = 0; i < count; i++)
            other[place[targets[i].slot >> shift & 255]++] = targets[i];
        struct target *sorted = other;
        other = targets;
        targets = sorted;
    }
    return targets;
}

/* Fewer neighbouring rows than this go into packed sets: a run splits the run under it in three. */
#define RUN_MIN 16u

/* The bytes of targets in order, in the transaction's scratch buffer, or directly from the input when they lie there in order. */
static const uint8_t *gather_input(npk_txn *txn, const struct target *targets, uint64_t count, const uint8_t *data,
                                   uint64_t row_size)
{
    if (row_size == 0)
        return (const uint8_t *)""; /* rows without bytes */
    if (targets[count - 1].input - targets[0].input == count - 1) {
        uint64_t i = 1;
        while (i < count && targets[i].input == targets[i - 1].input + 1)
            i++;
        if (i == count)
            return data + targets[0].input * row_size;
    }
    npk_buffer_clear(&txn->rows);
    uint8_t *out = npk_buffer_grow(&txn->rows, (size_t)(count * row_size));
    for (uint64_t i = 0; out && i < count; i++)
        memcpy(out + i * row_size, data + targets[i].input * row_size, (size_t)row_size);
    return out;
}

struct replacement {
    npk_txn *txn;
    uint64_t id, row_size;
    const uint8_t *data;
    npk_bulk *bulk;         /* not NULL: bytes go into this column file and are linked */
    npk_op op;
};

/* count rows of bytes for the slots that r->op names. */
static npk_status log_part(struct replacement *r, const uint8_t *bytes, uint64_t count, npk_error *err)
{
    if (!r->bulk)
        return npk_txn_log(r->txn, &r->op, bytes, (size_t)(count * r->row_size), err);
    r->op.other = npk_column_writer_id(r->bulk->writer);
    r->op.file_row = npk_column_writer_row_count(r->bulk->writer);
    npk_status status = npk_column_append(r->bulk->writer, bytes, count, err);
    if (status != NPK_OK) {
        r->txn->broken = status; /* the column file cannot be finished any more */
        return status;
    }
    return npk_txn_log(r->txn, &r->op, NULL, 0, err);
}

/* Rows that one record, or a small scratch buffer, holds. */
static uint64_t rows_per_part(const struct replacement *r, uint64_t count)
{
    if (r->row_size == 0)
        return count;
    if (!r->bulk)
        return (npk_wal_payload_max(r->txn->core->wal) - 64) / (r->row_size + 2);
    return npk_max_u64(1, (4u << 20) / r->row_size);
}

static npk_status log_run(struct replacement *r, uint64_t first_slot, const uint8_t *bytes, uint64_t count, npk_error *err)
{
    r->op.type = r->bulk ? NPK_OP_LINK_RUN : NPK_OP_REPLACE_RUN;
    r->op.mode = NPK_LINK_REPLACE;
    r->op.first = first_slot;
    r->op.count = count;
    r->op.list = NULL;
    r->op.list_count = 0;
    return log_part(r, bytes, count, err);
}

/* Neighbouring slots whose bytes lie anywhere in the input. */
static npk_status log_run_of_targets(struct replacement *r, const struct target *targets, uint64_t count, npk_error *err)
{
    uint64_t most = rows_per_part(r, count);
    npk_status status = NPK_OK;
    for (uint64_t at = 0; at < count && status == NPK_OK; at += most) {
        uint64_t part = npk_min_u64(most, count - at);
        const uint8_t *bytes = gather_input(r->txn, targets + at, part, r->data, r->row_size);
        if (!bytes)
            return npk_fail(err, NPK_NO_MEMORY, "could not allocate %llu rows", (unsigned long long)part);
        status = log_run(r, targets[at].slot, bytes, part, err);
    }
    return status;
}

/* Targets of one block. */
static npk_status log_set(struct replacement *r, const struct target *targets, uint64_t count, npk_error *err)
{
    uint64_t most = rows_per_part(r, count);
    npk_status status = NPK_OK;
    for (uint64_t at = 0; at < count && status == NPK_OK; at += most) {
        uint64_t part = npk_min_u64(most, count - at);
        const uint8_t *bytes = gather_input(r->txn, targets + at, part, r->data, r->row_size);
        uint8_t *slots = npk_alloc((size_t)part * 2);
        if (!bytes || !slots) {
            npk_free(slots);
            return npk_fail(err, NPK_NO_MEMORY, "could not allocate a packed set");
        }
        for (uint64_t i = 0; i < part; i++)
            npk_put_u16(slots + 2 * i, (uint16_t)(targets[at + i].slot % NPK_SET_BLOCK));
        r->op.type = r->bulk ? NPK_OP_LINK_SET : NPK_OP_REPLACE_SET;
        r->op.mode = NPK_LINK_REPLACE;
        r->op.block = targets[at].slot / NPK_SET_BLOCK;
        r->op.list = slots;
        r->op.list_count = (uint32_t)part;
        r->op.first = r->op.count = 0;
        status = log_part(r, bytes, part, err);
        npk_free(slots);
    }
    return status;
}

/* Sorted targets: long stretches of neighbours as runs, the rest as packed sets by block. */
static npk_status log_targets(struct replacement *r, const struct target *targets, uint64_t count, npk_error *err)
{
    npk_status status = NPK_OK;
    uint64_t set_start = 0, at = 0;
    while (at < count && status == NPK_OK) {
        uint64_t stretch = 1;
        while (at + stretch < count && targets[at + stretch].slot == targets[at].slot + stretch)
            stretch++;
        bool as_run = stretch >= RUN_MIN || (stretch == count && count > 1);
        bool new_block = at > set_start && targets[at].slot / NPK_SET_BLOCK != targets[set_start].slot / NPK_SET_BLOCK;
        if (at > set_start && (as_run || new_block)) {
            status = log_set(r, targets + set_start, at - set_start, err);
            set_start = at;
        }
        if (status == NPK_OK && as_run) {
            status = log_run_of_targets(r, targets + at, stretch, err);
            set_start = at + stretch;
        } else if (!as_run) { /* a short stretch may cross a block: only its part in this block */
            uint64_t left = NPK_SET_BLOCK - targets[at].slot % NPK_SET_BLOCK;
            stretch = npk_min_u64(stretch, left);
        }
        at += stretch;
    }
    if (status == NPK_OK && count > set_start)
        status = log_set(r, targets + set_start, count - set_start, err);
    return status;
}

/* Turn rows into slots in place. Rows need not be sorted. */
static npk_status rows_to_slots(npk_txn *txn, uint64_t id, struct target *targets, uint64_t count, npk_error *err)
{
    npk_map_run *map = NULL;
    size_t map_count = 0;
    npk_status status = npk_row_index_load_map(txn->kv, id, &map, &map_count, err);
    size_t at = 0;
    for (uint64_t i = 0; i < count && status == NPK_OK; i++) {
        uint64_t row = targets[i].slot;
        if (at >= map_count || row < map[at].first_row || row - map[at].first_row >= map[at].count) {
            size_t low = 0, high = map_count;
            while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (map[middle].first_row + map[middle].count <= row)
                    low = middle + 1;
                else
                    high = middle;
            }
            at = low;
        }
        if (at >= map_count)
            status = npk_catalog_fail(err, NPK_TABLE_MAP);
        else
            targets[i].slot = map[at].first_slot + (row - map[at].first_row);
    }
    npk_free(map);
    return status;
}

static npk_status fail_row(npk_error *err, const npk_array_record *array, int64_t row)
{
    npk_status status = npk_fail(err, NPK_RANGE, "row %lld is out of range for array \"%s\" with %llu rows", (long long)row,
                                 array->name, (unsigned long long)array->row_count);
    if (err)
        err->row = row;
    return status;
}

/* targets has room for twice as many: sorting needs it. */
static npk_status replace_targets(npk_txn *txn, uint64_t id, const npk_array_record *array, struct target *targets,
                                  uint64_t count, const void *data, npk_error *err)
{
    npk_status status = npk_reserve_require(txn->core, err);
    if (status == NPK_OK)
        status = rows_to_slots(txn, id, targets, count, err);
    if (status != NPK_OK)
        return status;
    bool sorted = true;
    for (uint64_t i = 1; i < count && sorted; i++)
        sorted = targets[i - 1].slot < targets[i].slot;
    if (!sorted) {
        targets = sort_targets(targets, targets + count, count);
        uint64_t kept = 0;
        for (uint64_t i = 0; i < count; i++) /* of equal slots the last input wins */
            if (i + 1 == count || targets[i + 1].slot != targets[i].slot)
                targets[kept++] = targets[i];
        count = kept;
    }
    struct replacement r = {.txn = txn, .id = id, .row_size = array->row_size, .data = data};
    r.op.array = id;
    r.op.time_us = now_us(txn);
    if (is_bulk(txn, array->row_size, count)) {
        status = get_bulk(txn, id, array, count, &r.bulk, err);
        if (status != NPK_OK)
            return status;
    }
    return log_targets(&r, targets, count, err);
}

npk_status npk_txn_replace(npk_txn *txn, const char *name, uint64_t count, const int64_t *rows, const void *data,
                           npk_error *err)
{
    npk_savepoint start;
    npk_status status = begin_op(txn, &start, err);
    if (status != NPK_OK)
        return status;
    uint64_t id = 0;
    npk_array_record array;
    status = require_room(txn, err);
    if (status == NPK_OK)
        status = find_array(txn, name, &id, &array, err);
    if (status != NPK_OK)
        return end_op(txn, &start, status, name, err);
    struct target *targets = NULL;
    if (array.zero_dim)
        status = npk_fail(err, NPK_SHAPE, "array \"%s\" is 0-d: it has no rows to replace", name);
    else if (count > SIZE_MAX / 2 / sizeof *targets || !(targets = npk_alloc((size_t)count * 2 * sizeof *targets)))
        status = npk_fail(err, NPK_NO_MEMORY, "could not allocate %llu row numbers", (unsigned long long)count);
    for (uint64_t i = 0; i < count && status == NPK_OK; i++) {
        if (rows[i] < 0 || (uint64_t)rows[i] >= array.row_count) {
            status = fail_row(err, &array, rows[i]);
        } else {
            targets[i].slot = (uint64_t)rows[i];
            targets[i].input = i;
        }
    }
    if (status == NPK_OK && count)
        status = replace_targets(txn, id, &array, targets, count, data, err);
    npk_free(targets);
    npk_array_record_release(&array);
    return end_op(txn, &start, status, name, err);
}

/* A contiguous range of rows: long stretches of slots go as they lie in the input, short ones by way of targets. */
static npk_status replace_range(npk_txn *txn, uint64_t id, const npk_array_record *array, uint64_t first, uint64_t count,
                                const uint8_t *data, npk_error *err)
{
    struct replacement r = {.txn = txn, .id = id, .row_size = array->row_size, .data = data};
    r.op.array = id;
    r.op.time_us = now_us(txn);
    npk_map_run *map = NULL;
    size_t map_count = 0;
    npk_status status = npk_reserve_require(txn->core, err);
    if (status == NPK_OK)
        status = npk_row_index_load_map(txn->kv, id, &map, &map_count, err);
    if (status == NPK_OK && is_bulk(txn, array->row_size, count))
        status = get_bulk(txn, id, array, count, &r.bulk, err);
    uint64_t end = first + count;
    for (size_t i = 0; i < map_count && status == NPK_OK; i++) {
        uint64_t low = npk_max_u64(first, map[i].first_row), high = npk_min_u64(end, map[i].first_row + map[i].count);
        uint64_t most = rows_per_part(&r, count);
        for (uint64_t row = low; row < high && status == NPK_OK; row += most) {
            uint64_t part = npk_min_u64(most, high - row);
            const uint8_t *bytes = data ? data + (row - first) * array->row_size : data;
            status = log_run(&r, map[i].first_slot + (row - map[i].first_row), bytes, part, err);
        }
    }
    npk_free(map);
    return status;
}

/* Fewer rows than this are replaced by way of targets, which puts a single row or a few split ones into packed sets. */
#define RANGE_MIN 1024u

npk_status npk_txn_replace_run(npk_txn *txn, const char *name, uint64_t first, uint64_t count, const void *data,
                               npk_error *err)
{
    npk_savepoint start;
    npk_status status = begin_op(txn, &start, err);
    if (status != NPK_OK)
        return status;
    uint64_t id = 0;
    npk_array_record array;
    status = require_room(txn, err);
    if (status == NPK_OK)
        status = find_array(txn, name, &id, &array, err);
    if (status != NPK_OK)
        return end_op(txn, &start, status, name, err);
    struct target targets[2 * RANGE_MIN];
    if (array.zero_dim)
        status = npk_fail(err, NPK_SHAPE, "array \"%s\" is 0-d: it has no rows to replace", name);
    else if (first > array.row_count || count > array.row_count - first)
        status = fail_row(err, &array, (int64_t)npk_max_u64(first, array.row_count));
    else if (count >= RANGE_MIN)
        status = replace_range(txn, id, &array, first, count, data, err);
    else if (count) {
        for (uint64_t i = 0; i < count; i++) {
            targets[i].slot = first + i;
            targets[i].input = i;
        }
        status = replace_targets(txn, id, &array, targets, count, data, err);
    }
    npk_array_record_release(&array);
    return end_op(txn, &start, status, name, err);
}

/* ---- dropping ------------------------------------------------------------------------------------------------------------ */

static int by_row(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

/* Ranges of sorted rows, at most what a record holds per operation, the highest rows first so that numbers stay valid. */
static npk_status drop_sorted(npk_txn *txn, uint64_t id, const int64_t *rows, uint64_t count, npk_error *err)
{
    size_t most = (npk_wal_payload_max(txn->core->wal) - 64) / 16;
    npk_buffer ranges;
    npk_buffer_init(&ranges);
    npk_status status = NPK_OK;
    uint64_t end = count; /* rows behind this are gone */
    while (end && status == NPK_OK) {
        npk_buffer_clear(&ranges);
        uint64_t begin = end;
        size_t range_count = 0;
        while (begin && range_count < most) { /* collect ranges backwards; find how far one record reaches */
            begin--;
            while (begin && (rows[begin - 1] == rows[begin] || rows[begin - 1] + 1 == rows[begin]))
                begin--;
            range_count++;
        }
        for (uint64_t i = begin; i < end;) {
            uint64_t first = (uint64_t)rows[i], last = first;
            while (i < end && (uint64_t)rows[i] - last <= 1)
                last = (uint64_t)rows[i++];
            npk_buffer_put_u64(&ranges, first);
            npk_buffer_put_u64(&ranges, last - first + 1);
        }
        npk_op op = {.type = NPK_OP_DROP_ROWS, .array = id, .time_us = now_us(txn), .list = ranges.data,
                     .list_count = (uint32_t)range_count};
        status = ranges.failed ? npk_fail(err, NPK_NO_MEMORY, "could not allocate row ranges")
                               : npk_txn_log(txn, &op, NULL, 0, err);
        end = begin;
    }
    npk_buffer_release(&ranges);
    return status;
}

npk_status npk_txn_drop_rows(npk_txn *txn, const char *name, uint64_t count, const int64_t *rows, npk_error *err)
{
    npk_savepoint start;
    npk_status status = begin_op(txn, &start, err);
    if (status != NPK_OK)
        return status;
    uint64_t id = 0;
    npk_array_record array;
    status = find_array(txn, name, &id, &array, err);
    if (status != NPK_OK)
        return end_op(txn, &start, status, name, err);
    int64_t *sorted = NULL;
    if (array.zero_dim)
        status = npk_fail(err, NPK_SHAPE, "array \"%s\" is 0-d: it has no rows to drop", name);
    else if (count > SIZE_MAX / sizeof *sorted || !(sorted = npk_alloc((size_t)count * sizeof *sorted)))
        status = npk_fail(err, NPK_NO_MEMORY, "could not allocate %llu row numbers", (unsigned long long)count);
    for (uint64_t i = 0; i < count && status == NPK_OK; i++) {
        if (rows[i] < 0 || (uint64_t)rows[i] >= array.row_count)
            status = fail_row(err, &array, rows[i]);
        else
            sorted[i] = rows[i];
    }
    if (status == NPK_OK && count) {
        qsort(sorted, (size_t)count, sizeof *sorted, by_row);
        status = drop_sorted(txn, id, sorted, count, err);
    }
    npk_free(sorted);
    npk_array_record_release(&array);
    return end_op(txn, &start, status, name, err);
}

/* ---- whole arrays and attributes ------------------------------------------------------------------------------------------ */

npk_status npk_txn_drop_array(npk_txn *txn, const char *name, npk_error *err)
{
    npk_savepoint start;
    npk_status status = begin_op(txn, &start, err);
    if (status != NPK_OK)
        return status;
    npk_array_record array;
    npk_op op = {.type = NPK_OP_DROP_ARRAY, .time_us = now_us(txn)};
    status = find_array(txn, name, &op.array, &array, err);
    if (status == NPK_OK) {
        npk_array_record_release(&array);
        status = npk_txn_log(txn, &op, NULL, 0, err);
    }
    return end_op(txn, &start, status, name, err);
}

static npk_status check_free_name(npk_txn *txn, const char *name, npk_error *err)
{
    uint64_t other;
    bool found = false;
    npk_status status = check_name(name, "array name", err);
    if (status == NPK_OK)
        status = npk_catalog_find_array(txn->kv, name, &other, &found, err);
    if (status == NPK_OK && found) {
        status = npk_fail(err, NPK_EXISTS, "array \"%s\" is there already", name);
        npk_error_set_array(err, name); /* this one is in the way, not the one that the operation starts from */
    }
    return status;
}

npk_status npk_txn_rename(npk_txn *txn, const char *from, const char *to, npk_error *err)
{
    npk_savepoint start;
    npk_status status = begin_op(txn, &start, err);
    if (status != NPK_OK)
        return status;
    npk_array_record array;
    npk_op op = {.type = NPK_OP_RENAME, .time_us = now_us(txn), .name = to};
    status = find_array(txn, from, &op.array, &array, err);
    if (status == NPK_OK) {
        npk_array_record_release(&array);
        status = check_free_name(txn, to, err);
    }
    if (status == NPK_OK) {
        op.name_size = strlen(to);
        status = npk_txn_log(txn, &op, NULL, 0, err);
    }
    return end_op(txn, &start, status, from, err);
}

npk_status npk_txn_clone(npk_txn *txn, const char *from, const char *to, npk_error *err)
{
    npk_savepoint start;
    npk_status status = begin_op(txn, &start, err);
    if (status != NPK_OK)
        return status;
    npk_array_record array;
    npk_op op = {.type = NPK_OP_CLONE, .time_us = now_us(txn), .name = to};
    status = find_array(txn, from, &op.other, &array, err);
    if (status == NPK_OK) {
        npk_array_record_release(&array);
        status = check_free_name(txn, to, err);
    }
    if (status == NPK_OK)
        status = next_array_id(txn, &op.array, err);
    if (status == NPK_OK) {
        op.name_size = strlen(to);
        status = npk_txn_log(txn, &op, NULL, 0, err);
    }
    return end_op(txn, &start, status, from, err);
}

npk_status npk_txn_reset(npk_txn *txn, npk_error *err)
{
    npk_savepoint start;
    npk_status status = begin_op(txn, &start, err);
    if (status != NPK_OK)
        return status;
    npk_op op = {.type = NPK_OP_RESET, .time_us = now_us(txn)};
    return end_op(txn, &start, npk_txn_log(txn, &op, NULL, 0, err), "", err);
}

/* The id that attributes of array (NULL: of the store) are kept under. */
static npk_status attr_owner(npk_txn *txn, const char *array, uint64_t *id, npk_error *err)
{
    *id = 0;
    if (!array)
        return NPK_OK;
    npk_array_record record;
    npk_status status = find_array(txn, array, id, &record, err);
    if (status == NPK_OK)
        npk_array_record_release(&record);
    return status;
}

npk_status npk_txn_set_attr(npk_txn *txn, const char *array, const char *key, const void *value, size_t size,
                            npk_error *err)
{
    npk_savepoint start;
    npk_status status = begin_op(txn, &start, err);
    if (status != NPK_OK)
        return status;
    npk_op op = {.type = NPK_OP_SET_ATTR, .time_us = now_us(txn), .name = key, .value = value};
    status = check_name(key, "attribute key", err);
    if (status == NPK_OK && (size > NPK_ATTR_MAX || size + 512 > npk_wal_payload_max(txn->core->wal)))
        status = npk_fail(err, NPK_INVALID, "attribute \"%s\" has %zu bytes, %d are allowed", key, size, NPK_ATTR_MAX);
    if (status == NPK_OK)
        status = attr_owner(txn, array, &op.array, err);
    if (status == NPK_OK) {
        op.name_size = strlen(key);
        op.value_size = (uint32_t)size;
        status = npk_txn_log(txn, &op, NULL, 0, err);
    }
    return end_op(txn, &start, status, array ? array : "", err);
}

npk_status npk_txn_delete_attr(npk_txn *txn, const char *array, const char *key, npk_error *err)
{
    npk_savepoint start;
    npk_status status = begin_op(txn, &start, err);
    if (status != NPK_OK)
        return status;
    npk_op op = {.type = NPK_OP_DELETE_ATTR, .time_us = now_us(txn), .name = key};
    npk_buffer value;
    npk_buffer_init(&value);
    bool found = false;
    status = check_name(key, "attribute key", err);
    if (status == NPK_OK)
        status = attr_owner(txn, array, &op.array, err);
    if (status == NPK_OK) {
        uint8_t attr[NPK_KEY_MAX];
        op.name_size = strlen(key);
        size_t attr_size = npk_key_attr(attr, op.array, key, op.name_size);
        status = npk_kv_get(txn->kv, NPK_TABLE_ATTRS, attr, attr_size, &value, &found, err);
    }
    if (status == NPK_OK && !found)
        status = npk_fail(err, NPK_NOT_FOUND, "no attribute \"%s\"", key);
    if (status == NPK_OK)
        status = npk_txn_log(txn, &op, NULL, 0, err);
    npk_buffer_release(&value);
    return end_op(txn, &start, status, array ? array : "", err);
}
