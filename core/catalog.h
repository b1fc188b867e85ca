/* catalog.h - keys and values of the index tables (FORMAT.md, "Index tables"): adjacent encode and decode pairs without I/O, and
 * the few lookups every user needs. */
#ifndef NPK_CORE_CATALOG_H
#define NPK_CORE_CATALOG_H

#include <stdbool.h>
#include "kv.h"
#include "npk.h"
#include "wal.h"

/* ---- store ----------------------------------------------------------------------------------------------------- */

typedef struct npk_store_state {
    npk_wal_end end;          /* end.lsn is the applied LSN: the published end */
    uint64_t next_array_id;   /* from 1 */
    uint64_t next_transaction; /* from 1 */
    uint64_t last_commit_us;
} npk_store_state;

npk_status npk_catalog_get_state(npk_kv *kv, npk_store_state *state, bool *found, npk_error *err);
npk_status npk_catalog_put_state(npk_kv *kv, const npk_store_state *state, npk_error *err);

/* ---- arrays ---------------------------------------------------------------------------------------------------- */

typedef struct npk_array_record {
    char name[NPK_NAME_MAX + 1];
    char *descr;                   /* owned */
    uint64_t shape[NPK_NDIM_MAX];  /* behind the row axis */
    uint32_t ndim;
    bool zero_dim;
    uint64_t row_size, row_count, next_slot, created_us, modified_us, change_lsn, layout_lsn, pending_row_count;
} npk_array_record;

void npk_array_record_release(npk_array_record *record);
/* found = false and nothing to release when there is no such array. */
npk_status npk_catalog_find_array(npk_kv *kv, const char *name, uint64_t *id, bool *found, npk_error *err);
npk_status npk_catalog_get_array(npk_kv *kv, uint64_t id, npk_array_record *record, bool *found, npk_error *err);
npk_status npk_catalog_put_array(npk_kv *kv, uint64_t id, const npk_array_record *record, npk_error *err);

/* ---- copies of entries ------------------------------------------------------------------------------------------ */

/* Append every entry of a table whose key begins with prefix to copy, without the prefix, so that the caller's functions run without the view. */
npk_status npk_catalog_copy(npk_kv *kv, npk_table table, const uint8_t *prefix, size_t prefix_size, npk_buffer *copy, npk_error *err);
/* The next entry of such a copy; false at its end. key is NUL terminated; both are borrowed from the copy. */
bool npk_catalog_next(npk_cursor *copy, const char **key, const uint8_t **value, size_t *value_size);
/* The attributes of an array (0: of the store). */
npk_status npk_catalog_copy_attrs(npk_kv *kv, uint64_t array, npk_buffer *copy, npk_error *err);

/* ---- places, map, rows ------------------------------------------------------------------------------------------ */

enum { NPK_PLACE_SEGMENT = 1, NPK_PLACE_PACKED = 2, NPK_PLACE_COLUMN = 3 }; /* kinds of npk_place */
enum { NPK_CONTAINER_SEGMENT = 1, NPK_CONTAINER_COLUMN = 2 };               /* kinds of the table places */
#define NPK_PLACE_SIZE 29

typedef struct npk_place {
    uint8_t kind;
    uint64_t container;     /* segment seq or file id */
    uint64_t record_offset; /* in the segment; 0 in a column file */
    uint32_t data_delta;    /* from the record to its stored data; 0 in a column file */
    uint64_t row;           /* first row, counted in the record's data or the file */
} npk_place;

void npk_place_encode(const npk_place *place, uint8_t bytes[NPK_PLACE_SIZE]);
bool npk_place_decode(npk_cursor *cursor, npk_place *place); /* false: not a place */
static inline bool npk_place_is_pending(const npk_place *place) { return place->kind != NPK_PLACE_COLUMN; }
static inline uint8_t npk_place_container_kind(const npk_place *place)
{
    return place->kind == NPK_PLACE_COLUMN ? NPK_CONTAINER_COLUMN : NPK_CONTAINER_SEGMENT;
}

typedef struct npk_map_run { /* logical rows first_row .. + count are slots first_slot .. + count */
    uint64_t first_row, first_slot, count;
} npk_map_run;

typedef struct npk_run {
    uint64_t first_slot, count, lsn;
    npk_place place;
} npk_run;

#define NPK_SET_BLOCK 65536u /* slots in the block of a packed set */

typedef struct npk_set {
    uint64_t block, lsn;
    npk_place place;
    uint32_t count;
    const uint8_t *slots; /* count sorted little-endian u16; borrowed from the decoded bytes */
} npk_set;

size_t npk_key_u64(uint8_t *key, uint64_t a);             /* 8 bytes */
size_t npk_key_u64_u64(uint8_t *key, uint64_t a, uint64_t b); /* 16 bytes */
size_t npk_key_run(uint8_t *key, uint64_t array, uint64_t first_slot);           /* 17 bytes */
size_t npk_key_set(uint8_t *key, uint64_t array, uint64_t block, uint64_t lsn);  /* 25 bytes */
size_t npk_key_rows_prefix(uint8_t *key, uint64_t array, uint8_t kind);          /* 9 bytes: all runs (0) or sets (1) */
size_t npk_key_place(uint8_t *key, uint8_t container_kind, uint64_t id);         /* 9 bytes */
size_t npk_key_attr(uint8_t *key, uint64_t array, const char *name, size_t name_size);

bool npk_map_run_decode(const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size, npk_map_run *run);
bool npk_run_decode(const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size, npk_run *run);
/* npk_set_decode without looking at the slots themselves: that they are sorted is left to npk_set_is_sorted. */
bool npk_set_decode_place(const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size, npk_set *set);
bool npk_set_is_sorted(const npk_set *set);
bool npk_set_decode(const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size, npk_set *set);

typedef struct npk_container {
    uint64_t reference_count, dead_lsn, size, row_count, row_size, data_offset;
    uint64_t unsynced_lsn; /* of the UNSYNCED_FILE record, 0: synced before it was linked */
} npk_container;
npk_status npk_catalog_get_container(npk_kv *kv, uint8_t kind, uint64_t id, npk_container *container, bool *found,
                                     npk_error *err);
npk_status npk_catalog_put_container(npk_kv *kv, uint8_t kind, uint64_t id, const npk_container *container,
                                     npk_error *err);
bool npk_container_decode(const uint8_t *value, size_t size, npk_container *container);
/* The checksums of a column file, one u64 in memory order for each block, appended to sums (initialised by the caller, released by it). */
npk_status npk_catalog_get_sums(npk_kv *kv, uint64_t file_id, npk_buffer *sums, npk_error *err);

#define NPK_SUM_BLOCK 65536u  /* bytes of column data behind one checksum */
#define NPK_SUMS_PER_ENTRY 512u

/* The index is damaged (its bytes do not decode): the one message for it. */
npk_status npk_catalog_fail(npk_error *err, npk_table table);

#endif
