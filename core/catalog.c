/* catalog.c - keys and values of the index tables: encode and decode pairs, and the lookups every user needs.
 *
 * Decoders are total: any bytes give either a value that fits its table or false. */
#include "catalog.h"

#include <assert.h>

#include "alloc.h"
#include "bytes.h"
#include "error.h"

static const char *const table_names[NPK_TABLE_COUNT] = {
    "store", "arrays", "names", "map", "rows", "places", "sums", "attrs",
};

npk_status npk_catalog_fail(npk_error *err, npk_table table)
{
    return npk_fail(err, NPK_CORRUPT, "index table \"%s\" holds an entry that cannot be decoded",
                    (unsigned)table < NPK_TABLE_COUNT ? table_names[table] : "?");
}

/* A value was built in buffer: put it, unless memory ran out on the way. */
static npk_status put_value(npk_kv *kv, npk_table table, const void *key, size_t key_size, const npk_buffer *value,
                            npk_error *err)
{
    if (value->failed)
        return npk_fail(err, NPK_NO_MEMORY, "could not allocate an entry of index table \"%s\"", table_names[table]);
    return npk_kv_put(kv, table, key, key_size, value->data, value->size, err);
}

/* ---- keys ------------------------------------------------------------------------------------------------------- */

size_t npk_key_u64(uint8_t *key, uint64_t a)
{
    npk_put_be64(key, a);
    return 8;
}

size_t npk_key_u64_u64(uint8_t *key, uint64_t a, uint64_t b)
{
    npk_put_be64(key, a);
    npk_put_be64(key + 8, b);
    return 16;
}

size_t npk_key_rows_prefix(uint8_t *key, uint64_t array, uint8_t kind)
{
    npk_put_be64(key, array);
    key[8] = kind;
    return 9;
}

enum { ROWS_RUN = 0, ROWS_SET = 1 }; /* the u8 in keys of the table rows */

size_t npk_key_run(uint8_t *key, uint64_t array, uint64_t first_slot)
{
    size_t size = npk_key_rows_prefix(key, array, ROWS_RUN);
    npk_put_be64(key + size, first_slot);
    return size + 8;
}

size_t npk_key_set(uint8_t *key, uint64_t array, uint64_t block, uint64_t lsn)
{
    size_t size = npk_key_rows_prefix(key, array, ROWS_SET);
    npk_put_be64(key + size, block);
    npk_put_be64(key + size + 8, lsn);
    return size + 16;
}

size_t npk_key_place(uint8_t *key, uint8_t container_kind, uint64_t id)
{
    key[0] = container_kind;
    npk_put_be64(key + 1, id);
    return 9;
}

size_t npk_key_attr(uint8_t *key, uint64_t array, const char *name, size_t name_size)
{
    assert(name_size <= NPK_NAME_MAX);
    npk_put_be64(key, array);
    if (name_size)
        memcpy(key + 8, name, name_size);
    return 8 + name_size;
}

/* ---- store ------------------------------------------------------------------------------------------------------ */

static const char state_key[] = "state";

enum { STATE_SIZE = 8 + 4 + 7 * 8 };

static void state_encode(const npk_store_state *state, uint8_t bytes[STATE_SIZE])
{
    npk_put_u64(bytes, state->end.lsn);
    npk_put_u32(bytes + 8, state->end.epoch);
    npk_put_u64(bytes + 12, state->end.seq);
    npk_put_u64(bytes + 20, state->end.first_lsn);
    npk_put_u64(bytes + 28, state->end.segment_size);
    npk_put_u64(bytes + 36, state->end.last_checksum);
    npk_put_u64(bytes + 44, state->next_array_id);
    npk_put_u64(bytes + 52, state->next_transaction);
    npk_put_u64(bytes + 60, state->last_commit_us);
}

static bool state_decode(const uint8_t *bytes, size_t size, npk_store_state *state)
{
    if (size != STATE_SIZE)
        return false;
    state->end.lsn = npk_get_u64(bytes);
    state->end.epoch = npk_get_u32(bytes + 8);
    state->end.seq = npk_get_u64(bytes + 12);
    state->end.first_lsn = npk_get_u64(bytes + 20);
    state->end.segment_size = npk_get_u64(bytes + 28);
    state->end.last_checksum = npk_get_u64(bytes + 36);
    state->next_array_id = npk_get_u64(bytes + 44);
    state->next_transaction = npk_get_u64(bytes + 52);
    state->last_commit_us = npk_get_u64(bytes + 60);
    return true;
}

npk_status npk_catalog_get_state(npk_kv *kv, npk_store_state *state, bool *found, npk_error *err)
{
    npk_kv_begin_read(kv);
    const uint8_t *value = NULL;
    size_t size = 0;
    bool there = false;
    npk_status status = npk_kv_find(kv, NPK_TABLE_STORE, state_key, sizeof state_key - 1, &value, &size, &there, err);
    if (status == NPK_OK && there) {
        npk_store_state decoded;
        if (state_decode(value, size, &decoded))
            *state = decoded;
        else
            status = npk_catalog_fail(err, NPK_TABLE_STORE);
    }
    npk_kv_end_read(kv);
    if (status == NPK_OK)
        *found = there;
    return status;
}

npk_status npk_catalog_put_state(npk_kv *kv, const npk_store_state *state, npk_error *err)
{
    uint8_t value[STATE_SIZE];
    state_encode(state, value);
    return npk_kv_put(kv, NPK_TABLE_STORE, state_key, sizeof state_key - 1, value, sizeof value, err);
}

/* ---- arrays ----------------------------------------------------------------------------------------------------- */

void npk_array_record_release(npk_array_record *record)
{
    npk_free(record->descr);
    record->descr = NULL;
}

static void record_encode(const npk_array_record *record, npk_buffer *value)
{
    npk_buffer_put_string(value, record->name, strlen(record->name));
    npk_buffer_put_string(value, record->descr, strlen(record->descr));
    npk_buffer_put_u8(value, record->zero_dim);
    npk_buffer_put_u8(value, (uint8_t)record->ndim);
    for (uint32_t i = 0; i < record->ndim; i++)
        npk_buffer_put_u64(value, record->shape[i]);
    npk_buffer_put_u64(value, record->row_size);
    npk_buffer_put_u64(value, record->row_count);
    npk_buffer_put_u64(value, record->next_slot);
    npk_buffer_put_u64(value, record->created_us);
    npk_buffer_put_u64(value, record->modified_us);
    npk_buffer_put_u64(value, record->change_lsn);
    npk_buffer_put_u64(value, record->layout_lsn);
    npk_buffer_put_u64(value, record->pending_row_count);
}

/* descr is borrowed from the bytes, not terminated. */
static bool record_decode(const uint8_t *bytes, size_t size, npk_array_record *record, const char **descr,
                          size_t *descr_size)
{
    npk_cursor cursor = npk_cursor_over(bytes, size);
    size_t name_size = 0;
    const char *name = npk_cursor_string(&cursor, &name_size);
    *descr = npk_cursor_string(&cursor, descr_size);
    uint8_t zero_dim = npk_cursor_u8(&cursor);
    uint8_t ndim = npk_cursor_u8(&cursor);
    if (cursor.failed || name_size == 0 || name_size > NPK_NAME_MAX || memchr(name, 0, name_size) ||
        *descr_size == 0 || *descr_size > NPK_DESCR_MAX || memchr(*descr, 0, *descr_size) || zero_dim > 1 ||
        ndim >= NPK_NDIM_MAX || (zero_dim && ndim))
        return false;
    memset(record, 0, sizeof *record);
    memcpy(record->name, name, name_size);
    record->zero_dim = zero_dim;
    record->ndim = ndim;
    for (uint32_t i = 0; i < ndim; i++)
        record->shape[i] = npk_cursor_u64(&cursor);
    record->row_size = npk_cursor_u64(&cursor);
    record->row_count = npk_cursor_u64(&cursor);
    record->next_slot = npk_cursor_u64(&cursor);
    record->created_us = npk_cursor_u64(&cursor);
    record->modified_us = npk_cursor_u64(&cursor);
    record->change_lsn = npk_cursor_u64(&cursor);
    record->layout_lsn = npk_cursor_u64(&cursor);
    record->pending_row_count = npk_cursor_u64(&cursor);
    return npk_cursor_is_done(&cursor);
}

npk_status npk_catalog_find_array(npk_kv *kv, const char *name, uint64_t *id, bool *found, npk_error *err)
{
    size_t name_size = strlen(name);
    if (name_size == 0 || name_size > NPK_NAME_MAX) { /* never a key */
        *found = false;
        return NPK_OK;
    }
    npk_kv_begin_read(kv);
    const uint8_t *value = NULL;
    size_t size = 0;
    bool there = false;
    npk_status status = npk_kv_find(kv, NPK_TABLE_NAMES, name, name_size, &value, &size, &there, err);
    if (status == NPK_OK && there) {
        if (size == 8)
            *id = npk_get_u64(value);
        else
            status = npk_catalog_fail(err, NPK_TABLE_NAMES);
    }
    npk_kv_end_read(kv);
    if (status == NPK_OK)
        *found = there;
    return status;
}

npk_status npk_catalog_get_array(npk_kv *kv, uint64_t id, npk_array_record *record, bool *found, npk_error *err)
{
    uint8_t key[8];
    size_t key_size = npk_key_u64(key, id);
    npk_kv_begin_read(kv);
    const uint8_t *value = NULL;
    size_t size = 0;
    bool there = false;
    npk_status status = npk_kv_find(kv, NPK_TABLE_ARRAYS, key, key_size, &value, &size, &there, err);
    if (status == NPK_OK && there) {
        npk_array_record decoded;
        const char *descr = NULL;
        size_t descr_size = 0;
        if (!record_decode(value, size, &decoded, &descr, &descr_size)) {
            status = npk_catalog_fail(err, NPK_TABLE_ARRAYS);
        } else if (!(decoded.descr = npk_alloc(descr_size + 1))) {
            status = npk_fail(err, NPK_NO_MEMORY, "could not allocate the record of array \"%s\"", decoded.name);
        } else {
            memcpy(decoded.descr, descr, descr_size);
            decoded.descr[descr_size] = '\0';
            *record = decoded;
        }
    }
    npk_kv_end_read(kv);
    if (status == NPK_OK)
        *found = there;
    return status;
}

npk_status npk_catalog_put_array(npk_kv *kv, uint64_t id, const npk_array_record *record, npk_error *err)
{
    assert(record->ndim < NPK_NDIM_MAX);
    uint8_t key[8];
    size_t key_size = npk_key_u64(key, id);
    npk_buffer value;
    npk_buffer_init(&value);
    record_encode(record, &value);
    npk_status status = put_value(kv, NPK_TABLE_ARRAYS, key, key_size, &value, err);
    npk_buffer_release(&value);
    return status;
}

/* ---- places, map, rows ------------------------------------------------------------------------------------------- */

void npk_place_encode(const npk_place *place, uint8_t bytes[NPK_PLACE_SIZE])
{
    bytes[0] = place->kind;
    npk_put_u64(bytes + 1, place->container);
    npk_put_u64(bytes + 9, place->record_offset);
    npk_put_u32(bytes + 17, place->data_delta);
    npk_put_u64(bytes + 21, place->row);
}

bool npk_place_decode(npk_cursor *cursor, npk_place *place)
{
    const uint8_t *bytes = npk_cursor_take(cursor, NPK_PLACE_SIZE);
    if (!bytes)
        return false;
    place->kind = bytes[0];
    place->container = npk_get_u64(bytes + 1);
    place->record_offset = npk_get_u64(bytes + 9);
    place->data_delta = npk_get_u32(bytes + 17);
    place->row = npk_get_u64(bytes + 21);
    uint64_t data_offset;
    switch (place->kind) {
    case NPK_PLACE_SEGMENT:
    case NPK_PLACE_PACKED: return !npk_add_overflow(place->record_offset, place->data_delta, &data_offset);
    case NPK_PLACE_COLUMN: return place->container && place->record_offset == 0 && place->data_delta == 0;
    default: return false;
    }
}

static bool is_range(uint64_t first, uint64_t count)
{
    uint64_t end;
    return count && !npk_add_overflow(first, count, &end);
}

bool npk_map_run_decode(const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size, npk_map_run *run)
{
    if (key_size != 16 || value_size != 16)
        return false;
    run->first_row = npk_get_be64(key + 8);
    run->first_slot = npk_get_u64(value);
    run->count = npk_get_u64(value + 8);
    return is_range(run->first_row, run->count) && is_range(run->first_slot, run->count);
}

bool npk_run_decode(const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size, npk_run *run)
{
    if (key_size != 17 || key[8] != ROWS_RUN)
        return false;
    npk_cursor cursor = npk_cursor_over(value, value_size);
    run->first_slot = npk_get_be64(key + 9);
    run->count = npk_cursor_u64(&cursor);
    run->lsn = npk_cursor_u64(&cursor);
    return npk_place_decode(&cursor, &run->place) && npk_cursor_is_done(&cursor) &&
           is_range(run->first_slot, run->count) && is_range(run->place.row, run->count);
}

bool npk_set_decode(const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size, npk_set *set)
{
    if (key_size != 25 || key[8] != ROWS_SET)
        return false;
    npk_cursor cursor = npk_cursor_over(value, value_size);
    set->block = npk_get_be64(key + 9);
    set->lsn = npk_get_be64(key + 17);
    if (!npk_place_decode(&cursor, &set->place) || set->block > UINT64_MAX / NPK_SET_BLOCK - 1)
        return false;
    size_t slots_size = npk_cursor_left(&cursor);
    if (slots_size == 0 || slots_size % 2 || slots_size / 2 > NPK_SET_BLOCK)
        return false;
    set->count = (uint32_t)(slots_size / 2);
    set->slots = npk_cursor_take(&cursor, slots_size);
    for (uint32_t i = 1; i < set->count; i++)
        if (npk_get_u16(set->slots + 2 * (size_t)i) <= npk_get_u16(set->slots + 2 * (size_t)(i - 1)))
            return false;
    return is_range(set->place.row, set->count);
}

/* ---- segments and column files ------------------------------------------------------------------------------------ */

enum { CONTAINER_SIZE = 6 * 8 };

bool npk_container_decode(const uint8_t *value, size_t size, npk_container *container)
{
    if (size != CONTAINER_SIZE)
        return false;
    container->reference_count = npk_get_u64(value);
    container->dead_lsn = npk_get_u64(value + 8);
    container->size = npk_get_u64(value + 16);
    container->row_count = npk_get_u64(value + 24);
    container->row_size = npk_get_u64(value + 32);
    container->data_offset = npk_get_u64(value + 40);
    return true;
}

npk_status npk_catalog_get_container(npk_kv *kv, uint8_t kind, uint64_t id, npk_container *container, bool *found,
                                     npk_error *err)
{
    uint8_t key[9];
    size_t key_size = npk_key_place(key, kind, id);
    npk_kv_begin_read(kv);
    const uint8_t *value = NULL;
    size_t size = 0;
    bool there = false;
    npk_status status = npk_kv_find(kv, NPK_TABLE_PLACES, key, key_size, &value, &size, &there, err);
    if (status == NPK_OK && there) {
        npk_container decoded;
        if (npk_container_decode(value, size, &decoded))
            *container = decoded;
        else
            status = npk_catalog_fail(err, NPK_TABLE_PLACES);
    }
    npk_kv_end_read(kv);
    if (status == NPK_OK)
        *found = there;
    return status;
}

npk_status npk_catalog_put_container(npk_kv *kv, uint8_t kind, uint64_t id, const npk_container *container,
                                     npk_error *err)
{
    uint8_t key[9];
    size_t key_size = npk_key_place(key, kind, id);
    uint8_t value[CONTAINER_SIZE];
    npk_put_u64(value, container->reference_count);
    npk_put_u64(value + 8, container->dead_lsn);
    npk_put_u64(value + 16, container->size);
    npk_put_u64(value + 24, container->row_count);
    npk_put_u64(value + 32, container->row_size);
    npk_put_u64(value + 40, container->data_offset);
    return npk_kv_put(kv, NPK_TABLE_PLACES, key, key_size, value, sizeof value, err);
}
