/* kv.h - the index as its users see it: sorted tables of bytes; pending changes in memory over a base that may be an LMDB index.
 *
 * A reader has a view with a base and no changes; a transaction and recovery collect changes; npk-recover has changes and no
 * base. All of them run the same code above this line (row_index, apply, array). Changes are kept sorted by (table, key), last
 * one wins, and go to the base in its own order at publishing. Not thread-safe: a view belongs to one thread at a time. */
#ifndef NPK_CORE_KV_H
#define NPK_CORE_KV_H

#include <stdbool.h>
#include "buffer.h"
#include "npk.h"

typedef enum npk_table {
    NPK_TABLE_STORE, NPK_TABLE_ARRAYS, NPK_TABLE_NAMES, NPK_TABLE_MAP, NPK_TABLE_ROWS, NPK_TABLE_PLACES, NPK_TABLE_SUMS,
    NPK_TABLE_ATTRS, NPK_TABLE_COUNT
} npk_table;

#define NPK_KEY_MAX 300 /* bytes: array id, then a name of at most 255 */

typedef struct npk_kv npk_kv;
typedef struct npk_index npk_index;

/* base NULL: memory only. The base outlives the view. NO_MEMORY. */
npk_status npk_kv_open(npk_index *base, npk_kv **kv, npk_error *err);
void npk_kv_close(npk_kv *kv);
npk_index *npk_kv_base(const npk_kv *kv);

/* Hold one committed state of the base, that of the first look into it, from begin to end; nests. Without it each call sees the newest state by
 * itself. */
void npk_kv_begin_read(npk_kv *kv);
void npk_kv_end_read(npk_kv *kv);

/* Only between begin_read and end_read: the value where it lies, good until the view changes or the reading ends. */
npk_status npk_kv_find(npk_kv *kv, npk_table table, const void *key, size_t key_size, const uint8_t **value, size_t *value_size,
                       bool *found, npk_error *err);
/* *value is cleared and filled. found = false: no such key, value empty. */
npk_status npk_kv_get(npk_kv *kv, npk_table table, const void *key, size_t key_size, npk_buffer *value, bool *found,
                      npk_error *err);
/* The first entry with key >= the given one (at_or_after), the last with key <= it (at_or_before). */
npk_status npk_kv_at_or_after(npk_kv *kv, npk_table table, const void *key, size_t key_size, npk_buffer *found_key,
                              npk_buffer *value, bool *found, npk_error *err);
npk_status npk_kv_at_or_before(npk_kv *kv, npk_table table, const void *key, size_t key_size, npk_buffer *found_key,
                               npk_buffer *value, bool *found, npk_error *err);
/* Every entry whose key starts with prefix, from the first key >= from on (from NULL: the prefix itself). The bytes are valid during the
 * visit; visit must not change the view. *stop = true ends early. */
npk_status npk_kv_scan(npk_kv *kv, npk_table table, const void *prefix, size_t prefix_size, const void *from,
                       size_t from_size,
                       npk_status (*visit)(void *context, const uint8_t *key, size_t key_size, const uint8_t *value,
                                           size_t value_size, bool *stop, npk_error *err),
                       void *context, npk_error *err);

npk_status npk_kv_put(npk_kv *kv, npk_table table, const void *key, size_t key_size, const void *value, size_t value_size,
                      npk_error *err);
/* Put every entry that a table has in from into to. */
npk_status npk_kv_copy_table(npk_kv *from, npk_table table, npk_kv *to, npk_error *err);
/* Deleting what is not there is no error. */
npk_status npk_kv_delete(npk_kv *kv, npk_table table, const void *key, size_t key_size, npk_error *err);
/* Delete every key that starts with prefix. */
npk_status npk_kv_delete_prefix(npk_kv *kv, npk_table table, const void *prefix, size_t prefix_size, npk_error *err);

/* Savepoints: a mark is a position in the undo list. rollback restores the changes as they were at the mark and cannot fail. */
uint64_t npk_kv_mark(const npk_kv *kv);
void npk_kv_rollback(npk_kv *kv, uint64_t mark);
/* No mark is needed any more: the undo list is dropped, its memory given back. */
void npk_kv_forget_marks(npk_kv *kv);

size_t npk_kv_change_count(const npk_kv *kv);
size_t npk_kv_change_size(const npk_kv *kv); /* bytes of keys and values */
/* Changes in the order of the index: tables as npk_index_order has them, then keys. value NULL: deleted. */
npk_status npk_kv_changes(npk_kv *kv,
                          npk_status (*visit)(void *context, npk_table table, const uint8_t *key, size_t key_size,
                                              const uint8_t *value, size_t value_size, npk_error *err),
                          void *context, npk_error *err);
/* Drop all changes (after publishing, or an abort). */
void npk_kv_clear(npk_kv *kv);

#endif
