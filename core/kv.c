/* kv.c - the merged view: pending changes (overlay.c) over an optional index. */
#include "kv.h"

#include <string.h>

#include "alloc.h"
#include "error.h"
#include "index.h"
#include "overlay.h"

struct npk_kv {
    npk_index *base;      /* borrowed, may be NULL */
    npk_overlay *overlay; /* owned */
    npk_index_reader *reader; /* from the first look into the base on, while read_depth > 0 */
    unsigned read_depth;
    uint64_t base_moves[NPK_TABLE_COUNT]; /* searches in the base: the reader has one position per table */
};

static npk_status no_memory(npk_error *err)
{
    return npk_fail(err, NPK_NO_MEMORY, "could not allocate memory for changes of the index");
}

npk_status npk_kv_open(npk_index *base, npk_kv **kv, npk_error *err)
{
    npk_kv *opened = npk_calloc(1, sizeof *opened);
    npk_overlay *overlay = npk_overlay_open();
    if (!opened || !overlay) {
        npk_overlay_close(overlay);
        npk_free(opened);
        return no_memory(err);
    }
    opened->base = base;
    opened->overlay = overlay;
    *kv = opened;
    return NPK_OK;
}

void npk_kv_close(npk_kv *kv)
{
    if (!kv)
        return;
    if (kv->reader)
        npk_index_end(kv->reader);
    npk_overlay_close(kv->overlay);
    npk_free(kv);
}

npk_index *npk_kv_base(const npk_kv *kv)
{
    return kv->base;
}

void npk_kv_begin_read(npk_kv *kv)
{
    kv->read_depth++;
}

static npk_status need_reader(npk_kv *kv, npk_error *err)
{
    return kv->reader ? NPK_OK : npk_index_begin(kv->base, &kv->reader, err);
}

void npk_kv_end_read(npk_kv *kv)
{
    if (kv->read_depth == 0 || --kv->read_depth > 0)
        return;
    if (kv->reader)
        npk_index_end(kv->reader);
    kv->reader = NULL;
}

/* ---- the base; between begin_read and end_read ------------------------------------------------------------------ */

typedef struct base_entry {
    const uint8_t *key, *value;
    size_t key_size, value_size;
    bool found;
} base_entry;

static npk_status base_at_or_after(npk_kv *kv, npk_table table, const void *key, size_t key_size, base_entry *entry,
                                   npk_error *err)
{
    entry->found = false;
    if (!kv->base)
        return NPK_OK;
    npk_status status = need_reader(kv, err);
    if (status != NPK_OK)
        return status;
    kv->base_moves[table]++;
    return npk_index_at_or_after(kv->reader, table, key, key_size, &entry->key, &entry->key_size, &entry->value,
                                 &entry->value_size, &entry->found, err);
}

static npk_status base_at_or_before(npk_kv *kv, npk_table table, const void *key, size_t key_size, base_entry *entry,
                                    npk_error *err)
{
    entry->found = false;
    if (!kv->base)
        return NPK_OK;
    npk_status status = need_reader(kv, err);
    if (status != NPK_OK)
        return status;
    kv->base_moves[table]++;
    return npk_index_at_or_before(kv->reader, table, key, key_size, &entry->key, &entry->key_size, &entry->value,
                                  &entry->value_size, &entry->found, err);
}

/* The entry behind *entry, also when others have searched since (then moves tells) and the reader stands elsewhere. */
static npk_status base_next(npk_kv *kv, npk_table table, uint64_t *moves, base_entry *entry, npk_error *err)
{
    if (*moves != kv->base_moves[table]) {
        npk_status status = base_at_or_after(kv, table, entry->key, entry->key_size, entry, err);
        if (status != NPK_OK || !entry->found)
            return status;
    }
    *moves = ++kv->base_moves[table];
    return npk_index_next(kv->reader, table, &entry->key, &entry->key_size, &entry->value, &entry->value_size,
                          &entry->found, err);
}

/* The last entry of the base with a key strictly below this one. */
static npk_status base_before(npk_kv *kv, npk_table table, const uint8_t *key, size_t key_size, base_entry *entry,
                              npk_error *err)
{
    entry->found = false;
    if (key_size == 0 || key_size > NPK_KEY_MAX)
        return NPK_OK;
    uint8_t below[NPK_KEY_MAX]; /* the greatest key below it: without a last 0, or the last byte one less and then only 255 */
    memcpy(below, key, key_size);
    if (below[key_size - 1]-- == 0)
        return base_at_or_before(kv, table, below, key_size - 1, entry, err);
    memset(below + key_size, 0xff, sizeof below - key_size);
    return base_at_or_before(kv, table, below, sizeof below, entry, err);
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static npk_status fill(npk_buffer *buffer, const uint8_t *bytes, size_t size, npk_error *err)
{
    npk_buffer_clear(buffer);
    npk_buffer_put(buffer, bytes, size);
    return buffer->failed ? npk_fail(err, NPK_NO_MEMORY, "could not allocate %zu bytes for an index entry", size) : NPK_OK;
}

npk_status npk_kv_find(npk_kv *kv, npk_table table, const void *key, size_t key_size, const uint8_t **value, size_t *value_size,
                       bool *found, npk_error *err)
{
    const npk_overlay_entry *changed = npk_overlay_find(kv->overlay, table, key, key_size);
    if (changed || !kv->base) {
        *found = changed && changed->state == NPK_OVERLAY_PUT;
        if (*found) {
            *value = changed->value;
            *value_size = changed->value_size;
        }
        return NPK_OK;
    }
    npk_status status = need_reader(kv, err);
    return status == NPK_OK ? npk_index_get(kv->reader, table, key, key_size, value, value_size, found, err) : status;
}

npk_status npk_kv_get(npk_kv *kv, npk_table table, const void *key, size_t key_size, npk_buffer *value, bool *found,
                      npk_error *err)
{
    npk_buffer_clear(value);
    npk_kv_begin_read(kv);
    const uint8_t *bytes = NULL;
    size_t size = 0;
    bool there = false;
    npk_status status = npk_kv_find(kv, table, key, key_size, &bytes, &size, &there, err);
    if (status == NPK_OK && there)
        status = fill(value, bytes, size, err);
    npk_kv_end_read(kv);
    if (status == NPK_OK)
        *found = there;
    return status;
}

static bool starts_with(const uint8_t *key, size_t key_size, const void *prefix, size_t prefix_size)
{
    return key_size >= prefix_size && (prefix_size == 0 || memcmp(key, prefix, prefix_size) == 0);
}

npk_status npk_kv_scan(npk_kv *kv, npk_table table, const void *prefix, size_t prefix_size, const void *from,
                       size_t from_size,
                       npk_status (*visit)(void *context, const uint8_t *key, size_t key_size, const uint8_t *value,
                                           size_t value_size, bool *stop, npk_error *err),
                       void *context, npk_error *err)
{
    if (!from || npk_overlay_compare(from, from_size, prefix, prefix_size) < 0) {
        from = prefix;
        from_size = prefix_size;
    }
    npk_kv_begin_read(kv);
    base_entry old = {0};
    npk_status status = base_at_or_after(kv, table, from, from_size, &old, err);
    uint64_t moves = kv->base_moves[table];
    npk_overlay_place place;
    const npk_overlay_entry *changed = npk_overlay_at_or_after(kv->overlay, table, from, from_size, &place);
    bool stop = false;
    while (status == NPK_OK && !stop && (old.found || changed)) {
        int order = !changed ? -1 : !old.found ? 1
                  : npk_overlay_compare(old.key, old.key_size, changed->key, changed->key_size);
        const uint8_t *key = order < 0 ? old.key : changed->key;
        size_t key_size = order < 0 ? old.key_size : changed->key_size;
        if (!starts_with(key, key_size, prefix, prefix_size))
            break;
        if (order < 0)
            status = visit(context, old.key, old.key_size, old.value, old.value_size, &stop, err);
        else if (changed->state == NPK_OVERLAY_PUT)
            status = visit(context, changed->key, changed->key_size, changed->value, changed->value_size, &stop, err);
        if (status != NPK_OK || stop)
            break;
        if (order >= 0)
            changed = npk_overlay_next(&place);
        if (order <= 0)
            status = base_next(kv, table, &moves, &old, err);
    }
    npk_kv_end_read(kv);
    return status;
}

typedef struct first_entry {
    npk_buffer *key, *value;
    bool found;
} first_entry;

static npk_status keep_first(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size,
                             bool *stop, npk_error *err)
{
    first_entry *first = context;
    first->found = *stop = true;
    npk_status status = fill(first->key, key, key_size, err);
    return status == NPK_OK ? fill(first->value, value, value_size, err) : status;
}

npk_status npk_kv_at_or_after(npk_kv *kv, npk_table table, const void *key, size_t key_size, npk_buffer *found_key,
                              npk_buffer *value, bool *found, npk_error *err)
{
    npk_buffer_clear(found_key);
    npk_buffer_clear(value);
    first_entry first = {found_key, value, false};
    npk_status status = npk_kv_scan(kv, table, "", 0, key, key_size, keep_first, &first, err);
    if (status == NPK_OK)
        *found = first.found;
    return status;
}

npk_status npk_kv_at_or_before(npk_kv *kv, npk_table table, const void *key, size_t key_size, npk_buffer *found_key,
                               npk_buffer *value, bool *found, npk_error *err)
{
    npk_buffer_clear(found_key);
    npk_buffer_clear(value);
    npk_kv_begin_read(kv);
    base_entry old = {0};
    npk_status status = base_at_or_before(kv, table, key, key_size, &old, err);
    npk_overlay_place place;
    const npk_overlay_entry *changed = npk_overlay_at_or_before(kv->overlay, table, key, key_size, &place);
    bool there = false;
    while (status == NPK_OK && (old.found || changed)) {
        int order = !changed ? 1 : !old.found ? -1
                  : npk_overlay_compare(old.key, old.key_size, changed->key, changed->key_size);
        if (order > 0) {
            there = true;
            status = fill(found_key, old.key, old.key_size, err);
            if (status == NPK_OK)
                status = fill(value, old.value, old.value_size, err);
            break;
        }
        if (changed->state == NPK_OVERLAY_PUT) {
            there = true;
            status = fill(found_key, changed->key, changed->key_size, err);
            if (status == NPK_OK)
                status = fill(value, changed->value, changed->value_size, err);
            break;
        }
        if (order == 0)
            status = base_before(kv, table, old.key, old.key_size, &old, err);
        changed = npk_overlay_previous(&place);
    }
    npk_kv_end_read(kv);
    if (status == NPK_OK)
        *found = there;
    return status;
}

/* ---- changing --------------------------------------------------------------------------------------------------- */

static npk_status check_key(size_t key_size, npk_error *err)
{
    if (key_size == 0 || key_size > NPK_KEY_MAX)
        return npk_fail(err, NPK_INVALID, "an index key of %zu bytes is outside 1 to %d", key_size, NPK_KEY_MAX);
    return NPK_OK;
}

npk_status npk_kv_put(npk_kv *kv, npk_table table, const void *key, size_t key_size, const void *value, size_t value_size,
                      npk_error *err)
{
    npk_status status = check_key(key_size, err);
    if (status != NPK_OK)
        return status;
    if (value_size > UINT32_MAX)
        return npk_fail(err, NPK_INVALID, "an index value of %zu bytes is too large", value_size);
    return npk_overlay_set(kv->overlay, table, key, key_size, NPK_OVERLAY_PUT, value, value_size) ? NPK_OK : no_memory(err);
}

struct table_copy {
    npk_kv *to;
    npk_table table;
};

static npk_status copy_entry(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size,
                             bool *stop, npk_error *err)
{
    (void)stop;
    struct table_copy *copy = context;
    return npk_kv_put(copy->to, copy->table, key, key_size, value, value_size, err);
}

npk_status npk_kv_copy_table(npk_kv *from, npk_table table, npk_kv *to, npk_error *err)
{
    struct table_copy copy = {to, table};
    return npk_kv_scan(from, table, NULL, 0, NULL, 0, copy_entry, &copy, err);
}

/* Over no base nothing is left of a deleted key: the changes of such a view are exactly its content. */
static npk_overlay_state deleted_state(const npk_kv *kv)
{
    return kv->base ? NPK_OVERLAY_DELETED : NPK_OVERLAY_NONE;
}

npk_status npk_kv_delete(npk_kv *kv, npk_table table, const void *key, size_t key_size, npk_error *err)
{
    npk_status status = check_key(key_size, err);
    if (status != NPK_OK)
        return status;
    return npk_overlay_set(kv->overlay, table, key, key_size, deleted_state(kv), NULL, 0) ? NPK_OK : no_memory(err);
}

npk_status npk_kv_delete_prefix(npk_kv *kv, npk_table table, const void *prefix, size_t prefix_size, npk_error *err)
{
    npk_status status = NPK_OK;
    npk_kv_begin_read(kv);
    uint64_t mark = npk_kv_mark(kv);
    /* What is pending: no key is new to the overlay, so that the iteration stays good. */
    npk_overlay_place place;
    const npk_overlay_entry *changed = npk_overlay_at_or_after(kv->overlay, table, prefix, prefix_size, &place);
    while (changed && starts_with(changed->key, changed->key_size, prefix, prefix_size)) {
        if (!npk_overlay_set(kv->overlay, table, changed->key, changed->key_size, deleted_state(kv), NULL, 0)) {
            status = no_memory(err);
            goto done;
        }
        changed = npk_overlay_next(&place);
    }
    base_entry old = {0};
    status = base_at_or_after(kv, table, prefix, prefix_size, &old, err);
    uint64_t moves = kv->base_moves[table];
    while (status == NPK_OK && old.found && starts_with(old.key, old.key_size, prefix, prefix_size)) {
        if (!npk_overlay_set(kv->overlay, table, old.key, old.key_size, NPK_OVERLAY_DELETED, NULL, 0))
            status = no_memory(err);
        else
            status = base_next(kv, table, &moves, &old, err);
    }
done:
    if (status != NPK_OK)
        npk_kv_rollback(kv, mark);
    npk_kv_end_read(kv);
    return status;
}

uint64_t npk_kv_mark(const npk_kv *kv)
{
    return npk_overlay_mark(kv->overlay);
}

void npk_kv_rollback(npk_kv *kv, uint64_t mark)
{
    npk_overlay_rollback(kv->overlay, mark);
}

void npk_kv_forget_marks(npk_kv *kv)
{
    npk_overlay_forget_marks(kv->overlay);
}

size_t npk_kv_change_count(const npk_kv *kv)
{
    return npk_overlay_count(kv->overlay);
}

size_t npk_kv_change_size(const npk_kv *kv)
{
    return npk_overlay_size(kv->overlay);
}

npk_status npk_kv_changes(npk_kv *kv,
                          npk_status (*visit)(void *context, npk_table table, const uint8_t *key, size_t key_size,
                                              const uint8_t *value, size_t value_size, npk_error *err),
                          void *context, npk_error *err)
{
    for (unsigned i = 0; i < NPK_TABLE_COUNT; i++) {
        npk_table table = npk_index_order[i];
        npk_overlay_place place;
        const npk_overlay_entry *changed = npk_overlay_at_or_after(kv->overlay, table, "", 0, &place);
        for (; changed; changed = npk_overlay_next(&place)) {
            npk_status status = visit(context, table, changed->key, changed->key_size, changed->value,
                                      changed->value_size, err);
            if (status != NPK_OK)
                return status;
        }
    }
    return NPK_OK;
}

void npk_kv_clear(npk_kv *kv)
{
    npk_overlay_clear(kv->overlay);
}
