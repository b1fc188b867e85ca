/* apply.c - the one function that turns log records into index changes. */
#include "apply.h"

#include <string.h>

#include "bytes.h"
#include "catalog.h"
#include "error.h"
#include "row_index.h"

static npk_status fail_misfit(npk_error *err, const npk_record *record, const char *why)
{
    npk_status status = npk_fail(err, NPK_CORRUPT, "log record at %llu does not fit the store: %s",
                                 (unsigned long long)record->place.lsn, why);
    if (err)
        err->lsn = record->place.lsn;
    return status;
}

/* Where the data of the record lies. */
static npk_place place_of(const npk_record *record)
{
    npk_place place = {0};
    place.kind = record->place.packed ? NPK_PLACE_PACKED : NPK_PLACE_SEGMENT;
    place.container = record->place.seq;
    place.record_offset = record->place.offset;
    place.data_delta = (uint32_t)(record->place.data_offset - record->place.offset);
    return place;
}

static npk_place place_in_file(uint64_t file, uint64_t row)
{
    npk_place place = {0};
    place.kind = NPK_PLACE_COLUMN;
    place.container = file;
    place.row = row;
    return place;
}

/* ---- arrays ------------------------------------------------------------------------------------------------------ */

struct target { /* the array an operation changes */
    npk_array_record array;
    npk_row_change change;
};

static npk_status open_target(npk_kv *kv, const npk_record *record, uint64_t id, struct target *target, npk_error *err)
{
    bool found = false;
    npk_status status = npk_catalog_get_array(kv, id, &target->array, &found, err);
    if (status != NPK_OK)
        return status;
    if (!found)
        return fail_misfit(err, record, "it names an array that does not exist");
    npk_row_change change = {kv, id, record->place.lsn, 0};
    target->change = change;
    return NPK_OK;
}

/* Write the array's record back. content: its rows changed, not only where they lie. */
static npk_status close_target(struct target *target, npk_status status, bool content, uint64_t time_us, npk_error *err)
{
    if (status == NPK_OK) {
        target->array.pending_row_count += (uint64_t)target->change.pending_delta;
        target->array.layout_lsn = target->change.lsn;
        if (content) {
            target->array.change_lsn = target->change.lsn;
            target->array.modified_us = time_us;
        }
        status = npk_catalog_put_array(target->change.kv, target->change.array, &target->array, err);
    }
    npk_array_record_release(&target->array);
    return status;
}

static npk_status put_name(npk_kv *kv, const char *name, size_t name_size, uint64_t id, npk_error *err)
{
    uint8_t value[8];
    npk_put_u64(value, id);
    return npk_kv_put(kv, NPK_TABLE_NAMES, name, name_size, value, sizeof value, err);
}

/* Remove the rows, the record and the name; attributes are the caller's. */
static npk_status remove_array(npk_kv *kv, const npk_record *record, uint64_t id, npk_error *err)
{
    struct target target;
    npk_status status = open_target(kv, record, id, &target, err);
    if (status != NPK_OK)
        return status;
    status = npk_row_index_drop_array(&target.change, err);
    if (status == NPK_OK)
        status = npk_kv_delete(kv, NPK_TABLE_NAMES, target.array.name, strlen(target.array.name), err);
    npk_array_record_release(&target.array);
    uint8_t key[8];
    if (status == NPK_OK)
        status = npk_kv_delete(kv, NPK_TABLE_ARRAYS, key, npk_key_u64(key, id), err);
    return status;
}

static npk_status drop_attrs(npk_kv *kv, uint64_t id, npk_error *err)
{
    uint8_t key[8];
    return npk_kv_delete_prefix(kv, NPK_TABLE_ATTRS, key, npk_key_u64(key, id), err);
}

/* Attributes of from become those of to; keep: from has them too afterwards. */
static npk_status copy_attrs(npk_kv *kv, uint64_t from, uint64_t to, bool keep, npk_error *err)
{
    uint8_t prefix[8];
    size_t prefix_size = npk_key_u64(prefix, from);
    npk_buffer key, value;
    npk_buffer_init(&key);
    npk_buffer_init(&value);
    uint8_t at[NPK_KEY_MAX];
    memcpy(at, prefix, prefix_size);
    size_t at_size = prefix_size;
    npk_status status = NPK_OK;
    for (;;) {
        bool found = false;
        status = npk_kv_at_or_after(kv, NPK_TABLE_ATTRS, at, at_size, &key, &value, &found, err);
        if (status != NPK_OK || !found || key.size < 8 || key.size >= NPK_KEY_MAX ||
            memcmp(key.data, prefix, prefix_size) != 0)
            break;
        memcpy(at, key.data, key.size);
        at_size = key.size;
        at[at_size++] = 0; /* the next key in order */
        uint8_t copy[NPK_KEY_MAX];
        memcpy(copy, key.data, key.size);
        npk_put_be64(copy, to);
        status = npk_kv_put(kv, NPK_TABLE_ATTRS, copy, key.size, value.data, value.size, err);
        if (status != NPK_OK)
            break;
    }
    npk_buffer_release(&key);
    npk_buffer_release(&value);
    if (status == NPK_OK && !keep)
        status = drop_attrs(kv, from, err);
    return status;
}

static npk_status take_array_id(npk_kv *kv, const npk_record *record, uint64_t id, npk_error *err)
{
    npk_store_state state;
    bool found = false;
    npk_status status = npk_catalog_get_state(kv, &state, &found, err);
    if (status != NPK_OK)
        return status;
    if (!found || id < state.next_array_id)
        return fail_misfit(err, record, "it gives an array id out a second time");
    state.next_array_id = id + 1;
    return npk_catalog_put_state(kv, &state, err);
}

static npk_status name_is_free(npk_kv *kv, const npk_record *record, const char *name, npk_error *err)
{
    uint64_t other;
    bool found = false;
    npk_status status = npk_catalog_find_array(kv, name, &other, &found, err);
    if (status == NPK_OK && found)
        return fail_misfit(err, record, "it gives a name out a second time");
    return status;
}

static npk_status apply_create(npk_kv *kv, const npk_record *record, const npk_op *op, npk_error *err)
{
    npk_array_record array;
    memset(&array, 0, sizeof array);
    if (op->name_size == 0 || memchr(op->name, 0, op->name_size))
        return fail_misfit(err, record, "an array without a proper name");
    memcpy(array.name, op->name, op->name_size);
    npk_status status = take_array_id(kv, record, op->array, err);
    uint64_t created_us = op->time_us;
    if (status == NPK_OK && op->other) {
        npk_array_record old;
        bool found = false;
        status = npk_catalog_get_array(kv, op->other, &old, &found, err);
        if (status == NPK_OK && !found)
            return fail_misfit(err, record, "it replaces an array that does not exist");
        if (status == NPK_OK) {
            created_us = old.created_us;
            npk_array_record_release(&old);
            status = remove_array(kv, record, op->other, err);
        }
        if (status == NPK_OK)
            status = copy_attrs(kv, op->other, op->array, false, err);
    }
    if (status == NPK_OK)
        status = name_is_free(kv, record, array.name, err);
    if (status != NPK_OK)
        return status;
    npk_buffer descr;
    npk_buffer_init(&descr);
    npk_buffer_put(&descr, op->descr, op->descr_size);
    npk_buffer_put_u8(&descr, 0);
    if (descr.failed) {
        npk_buffer_release(&descr);
        return npk_fail(err, NPK_NO_MEMORY, "could not allocate a dtype description");
    }
    array.descr = (char *)descr.data;
    array.ndim = op->ndim;
    for (uint32_t i = 0; i < op->ndim; i++)
        array.shape[i] = npk_get_u64(op->list + 8 * (size_t)i);
    array.zero_dim = op->zero_dim;
    array.row_size = op->row_size;
    array.created_us = created_us;
    array.modified_us = op->time_us;
    array.change_lsn = array.layout_lsn = record->place.lsn;
    status = npk_catalog_put_array(kv, op->array, &array, err);
    if (status == NPK_OK)
        status = put_name(kv, op->name, op->name_size, op->array, err);
    npk_array_record_release(&array);
    return status;
}

static npk_status apply_drop_array(npk_kv *kv, const npk_record *record, uint64_t id, npk_error *err)
{
    npk_status status = remove_array(kv, record, id, err);
    return status == NPK_OK ? drop_attrs(kv, id, err) : status;
}

static npk_status apply_rename(npk_kv *kv, const npk_record *record, const npk_op *op, npk_error *err)
{
    struct target target;
    npk_status status = open_target(kv, record, op->array, &target, err);
    if (status != NPK_OK)
        return status;
    status = npk_kv_delete(kv, NPK_TABLE_NAMES, target.array.name, strlen(target.array.name), err);
    if (op->name_size == 0 || memchr(op->name, 0, op->name_size))
        status = fail_misfit(err, record, "an array without a proper name");
    if (status == NPK_OK) {
        memset(target.array.name, 0, sizeof target.array.name);
        memcpy(target.array.name, op->name, op->name_size);
        status = name_is_free(kv, record, target.array.name, err);
    }
    if (status == NPK_OK)
        status = put_name(kv, op->name, op->name_size, op->array, err);
    return close_target(&target, status, true, op->time_us, err);
}

static npk_status apply_clone(npk_kv *kv, const npk_record *record, const npk_op *op, npk_error *err)
{
    struct target target;
    npk_status status = take_array_id(kv, record, op->array, err);
    if (status == NPK_OK)
        status = open_target(kv, record, op->other, &target, err);
    if (status != NPK_OK)
        return status;
    if (op->name_size == 0 || memchr(op->name, 0, op->name_size))
        status = fail_misfit(err, record, "an array without a proper name");
    if (status == NPK_OK)
        status = npk_row_index_clone(&target.change, op->array, err);
    if (status == NPK_OK)
        status = copy_attrs(kv, op->other, op->array, true, err);
    if (status == NPK_OK) {
        memset(target.array.name, 0, sizeof target.array.name);
        memcpy(target.array.name, op->name, op->name_size);
        status = name_is_free(kv, record, target.array.name, err);
    }
    if (status == NPK_OK)
        status = put_name(kv, op->name, op->name_size, op->array, err);
    target.array.created_us = op->time_us;
    target.change.array = op->array;
    return close_target(&target, status, true, op->time_us, err);
}

static npk_status apply_reset(npk_kv *kv, const npk_record *record, npk_error *err)
{
    npk_buffer key, value;
    npk_buffer_init(&key);
    npk_buffer_init(&value);
    npk_status status = NPK_OK;
    for (;;) {
        uint8_t from[8] = {0};
        bool found = false;
        status = npk_kv_at_or_after(kv, NPK_TABLE_ARRAYS, from, sizeof from, &key, &value, &found, err);
        if (status != NPK_OK || !found || key.size != 8)
            break;
        status = apply_drop_array(kv, record, npk_get_be64(key.data), err);
        if (status != NPK_OK)
            break;
    }
    npk_buffer_release(&key);
    npk_buffer_release(&value);
    return status == NPK_OK ? drop_attrs(kv, 0, err) : status;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* Slots first .. + count become rows, if they are the next ones. */
static npk_status append_slots(struct target *target, const npk_record *record, const npk_op *op, npk_error *err)
{
    if (op->first != target->array.next_slot)
        return fail_misfit(err, record, "appended slots are not the next ones");
    npk_status status =
        npk_row_index_map_append(&target->change, target->array.row_count, op->first, op->count, err);
    target->array.row_count += op->count;
    target->array.next_slot += op->count;
    return status;
}

static npk_status apply_rows(npk_kv *kv, const npk_record *record, const npk_op *op, npk_error *err)
{
    struct target target;
    npk_status status = open_target(kv, record, op->array, &target, err);
    if (status != NPK_OK)
        return status;
    bool linked = op->type == NPK_OP_LINK_RUN || op->type == NPK_OP_LINK_SET;
    bool fold = linked && op->mode == NPK_LINK_FOLD;
    bool is_set = op->type == NPK_OP_REPLACE_SET || op->type == NPK_OP_LINK_SET;
    bool is_append = op->type == NPK_OP_APPEND || (op->type == NPK_OP_LINK_RUN && op->mode == NPK_LINK_APPEND);
    uint64_t count = is_set ? op->list_count : op->count;
    npk_place place = linked ? place_in_file(op->other, op->file_row) : place_of(record);
    uint64_t need;
    if (!linked && (npk_mul_overflow(count, target.array.row_size, &need) || need != record->raw_data_size))
        status = fail_misfit(err, record, "its data is not as long as its rows");
    else if (is_append)
        status = append_slots(&target, record, op, err);
    else if (!is_set && op->first + op->count > target.array.next_slot)
        status = fail_misfit(err, record, "its slots were never given out");
    uint64_t lsn = fold ? op->lsn : record->place.lsn;
    if (status == NPK_OK && target.array.row_size != 0 && !is_set) {
        npk_run run = {op->first, op->count, lsn, place};
        status = is_append ? npk_row_index_put_new_run(&target.change, &run, err)
                           : npk_row_index_put_run(&target.change, &run, fold, err);
    } else if (status == NPK_OK && target.array.row_size != 0) {
        npk_set set = {op->block, lsn, place, op->list_count, op->list};
        status = npk_row_index_put_set(&target.change, &set, fold, err);
    }
    return close_target(&target, status, !fold, op->time_us, err);
}

static npk_status apply_drop_rows(npk_kv *kv, const npk_record *record, const npk_op *op, npk_error *err)
{
    struct target target;
    npk_status status = open_target(kv, record, op->array, &target, err);
    if (status != NPK_OK)
        return status;
    uint64_t gone = 0;
    status = npk_row_index_drop_rows(&target.change, op->list, op->list_count, &gone, err);
    target.array.row_count -= gone;
    return close_target(&target, status, true, op->time_us, err);
}

static npk_status apply_renumber(npk_kv *kv, const npk_record *record, const npk_op *op, npk_error *err)
{
    struct target target;
    npk_status status = open_target(kv, record, op->array, &target, err);
    if (status != NPK_OK)
        return status;
    if (op->count != target.array.row_count || op->first != target.array.next_slot)
        status = fail_misfit(err, record, "it renumbers rows that are not there");
    if (status == NPK_OK)
        status = npk_row_index_drop_array(&target.change, err);
    if (status == NPK_OK)
        status = npk_row_index_map_append(&target.change, 0, op->first, op->count, err);
    if (status == NPK_OK) {
        npk_run run = {op->first, op->count, record->place.lsn, place_in_file(op->other, 0)};
        status = npk_row_index_put_run(&target.change, &run, false, err);
    }
    target.array.next_slot += op->count;
    return close_target(&target, status, false, 0, err);
}

/* ---- files and attributes ------------------------------------------------------------------------------------------ */

/* Store count sums (u64, little-endian) of file from first_block on. Entries hold NPK_SUMS_PER_ENTRY and begin at multiples of it. */
static npk_status put_sums(npk_kv *kv, const npk_record *record, uint64_t file, uint64_t first_block, const uint8_t *sums,
                           uint32_t count, npk_error *err)
{
    if (first_block % NPK_SUMS_PER_ENTRY != 0)
        return fail_misfit(err, record, "checksums that do not begin where they must");
    npk_status status = NPK_OK;
    for (uint32_t at = 0; at < count && status == NPK_OK; at += NPK_SUMS_PER_ENTRY) {
        uint8_t key[16];
        size_t part = count - at < NPK_SUMS_PER_ENTRY ? count - at : NPK_SUMS_PER_ENTRY;
        status = npk_kv_put(kv, NPK_TABLE_SUMS, key, npk_key_u64_u64(key, file, first_block + at),
                            sums + 8 * (size_t)at, 8 * part, err);
    }
    return status;
}

static npk_status apply_file(npk_kv *kv, const npk_record *record, const npk_op *op, npk_error *err)
{
    npk_container container;
    memset(&container, 0, sizeof container);
    bool found = false;
    npk_status status = npk_catalog_get_container(kv, NPK_CONTAINER_COLUMN, op->other, &container, &found, err);
    if (status != NPK_OK)
        return status;
    if ((found && container.size) || op->other == 0)
        return fail_misfit(err, record, "it gives a file id out a second time");
    /* A file that a transaction is still filling is announced with size 0, so that rows can be linked to it as they come. */
    if (!found)
        container.dead_lsn = record->place.lsn; /* until something refers to it */
    container.size = op->file_size;
    container.row_count = op->count;
    container.row_size = op->row_size;
    container.data_offset = op->data_offset;
    status = npk_catalog_put_container(kv, NPK_CONTAINER_COLUMN, op->other, &container, err);
    if (status == NPK_OK)
        status = put_sums(kv, record, op->other, 0, op->list, op->list_count, err);
    return status;
}

static npk_status apply_retire(npk_kv *kv, const npk_record *record, const npk_op *op, npk_error *err)
{
    npk_status status = NPK_OK;
    for (uint32_t i = 0; i < op->list_count && status == NPK_OK; i++) {
        const uint8_t *item = op->list + 9 * (size_t)i;
        uint64_t id = npk_get_u64(item + 1);
        npk_container container;
        bool found = false;
        status = npk_catalog_get_container(kv, item[0], id, &container, &found, err);
        if (status == NPK_OK && found && container.reference_count)
            return fail_misfit(err, record, "it retires a file that is in use");
        uint8_t key[16];
        if (status == NPK_OK)
            status = npk_kv_delete(kv, NPK_TABLE_PLACES, key, npk_key_place(key, item[0], id), err);
        if (status == NPK_OK && item[0] == NPK_CONTAINER_COLUMN)
            status = npk_kv_delete_prefix(kv, NPK_TABLE_SUMS, key, npk_key_u64(key, id), err);
    }
    return status;
}

static npk_status apply_attr(npk_kv *kv, const npk_record *record, const npk_op *op, npk_error *err)
{
    if (op->array) {
        struct target target;
        npk_status status = open_target(kv, record, op->array, &target, err);
        if (status == NPK_OK)
            status = close_target(&target, status, true, op->time_us, err);
        if (status != NPK_OK)
            return status;
    }
    uint8_t key[NPK_KEY_MAX];
    size_t key_size = npk_key_attr(key, op->array, op->name, op->name_size);
    if (op->type == NPK_OP_SET_ATTR)
        return npk_kv_put(kv, NPK_TABLE_ATTRS, key, key_size, op->value, op->value_size, err);
    return npk_kv_delete(kv, NPK_TABLE_ATTRS, key, key_size, err);
}

npk_status npk_apply(npk_kv *kv, const npk_record *record, npk_error *err)
{
    npk_op op;
    if (!npk_op_decode(record->type, record->meta, record->meta_size, &op))
        return fail_misfit(err, record, "it is no operation that this version knows");
    switch ((npk_op_type)op.type) {
    case NPK_OP_CREATE: return apply_create(kv, record, &op, err);
    case NPK_OP_DROP_ARRAY: return apply_drop_array(kv, record, op.array, err);
    case NPK_OP_RENAME: return apply_rename(kv, record, &op, err);
    case NPK_OP_APPEND:
    case NPK_OP_REPLACE_RUN:
    case NPK_OP_REPLACE_SET:
    case NPK_OP_LINK_RUN:
    case NPK_OP_LINK_SET: return apply_rows(kv, record, &op, err);
    case NPK_OP_FILE: return apply_file(kv, record, &op, err);
    case NPK_OP_SUMS: return put_sums(kv, record, op.other, op.first, op.list, op.list_count, err);
    case NPK_OP_DROP_ROWS: return apply_drop_rows(kv, record, &op, err);
    case NPK_OP_SET_ATTR:
    case NPK_OP_DELETE_ATTR: return apply_attr(kv, record, &op, err);
    case NPK_OP_CLONE: return apply_clone(kv, record, &op, err);
    case NPK_OP_RESET: return apply_reset(kv, record, err);
    case NPK_OP_RENUMBER: return apply_renumber(kv, record, &op, err);
    case NPK_OP_RETIRE: return apply_retire(kv, record, &op, err);
    }
    return fail_misfit(err, record, "unknown operation");
}

npk_status npk_apply_commit(npk_kv *kv, const npk_record *record, npk_error *err)
{
    npk_store_state state;
    bool found = false;
    npk_status status = npk_catalog_get_state(kv, &state, &found, err);
    if (status != NPK_OK)
        return status;
    if (!found || record->meta_size < 8 || record->transaction < state.next_transaction)
        return fail_misfit(err, record, "a commit record out of order");
    state.next_transaction = record->transaction + 1;
    state.last_commit_us = npk_get_u64(record->meta);
    return npk_catalog_put_state(kv, &state, err);
}

npk_status npk_apply_end(npk_kv *kv, const npk_wal_end *end, npk_store_state *result, npk_error *err)
{
    npk_store_state state;
    bool found = false;
    npk_status status = npk_catalog_get_state(kv, &state, &found, err);
    if (status != NPK_OK)
        return status;
    if (!found) {
        memset(&state, 0, sizeof state);
        state.next_array_id = 1;
        state.next_transaction = 1;
    }
    state.end = *end;
    if (result)
        *result = state;
    return npk_catalog_put_state(kv, &state, err);
}
