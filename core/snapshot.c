/* snapshot.c - snapshots, and the public calls that read: lists, attributes, arrays. */
#include "snapshot.h"

#include "alloc.h"
#include "bytes.h"
#include "error.h"
#include "opening.h"
#include "txn.h"

struct npk_snapshot {
    npk_core *core;         /* retained: the pin outlives close */
    npk_kv *kv;             /* mutex: a view belongs to one thread at a time */
    pthread_mutex_t mutex;
    npk_position position;
};

/* ---- taking one ------------------------------------------------------------------------------------------------------- */

npk_status npk_snapshot_copy(npk_kv *from, bool with_sums, npk_kv **out, npk_error *err)
{
    npk_kv *to = NULL;
    npk_status status = npk_kv_open(NULL, &to, err);
    if (status != NPK_OK)
        return status;
    for (npk_table table = 0; table < NPK_TABLE_COUNT && status == NPK_OK; table++) {
        if (with_sums || table != NPK_TABLE_SUMS)
            status = npk_kv_copy_table(from, table, to, err);
        npk_kv_forget_marks(to);
    }
    if (status != NPK_OK) {
        npk_kv_close(to);
        return status;
    }
    *out = to;
    return NPK_OK;
}

static npk_status fail_forked(npk_error *err)
{
    return npk_fail(err, NPK_MISUSE, "the store was opened by a parent process; open it again in this one");
}

npk_status npk_snapshot_take_copy(npk_store *store, bool with_sums, npk_snapshot **out, npk_error *err)
{
    npk_core *core = store->core;
    if (atomic_load(&core->is_forked))
        return fail_forked(err);
    npk_snapshot *snapshot = npk_calloc(1, sizeof *snapshot);
    if (!snapshot)
        return npk_fail(err, NPK_NO_MEMORY, "could not allocate a snapshot");
    npk_status status;
    do {
        npk_kv *kv = NULL;
        status = npk_view_begin(core, &kv, err);
        if (status != NPK_OK)
            break;
        npk_store_state state;
        bool found = false;
        status = npk_catalog_get_state(kv, &state, &found, err);
        if (status == NPK_OK && !found)
            status = npk_catalog_fail(err, NPK_TABLE_STORE);
        if (status == NPK_OK)
            status = npk_pin_take(core, state.end.lsn, err);
        if (status == NPK_OK) {
            snapshot->position.epoch = state.end.epoch;
            snapshot->position.lsn = state.end.lsn;
            status = npk_snapshot_copy(kv, with_sums, &snapshot->kv, err);
            if (status != NPK_OK)
                npk_pin_release(core, state.end.lsn);
        }
        npk_view_end(core, kv);
    } while (status == NPK_CONFLICT); /* reclaim passed between looking and pinning */
    if (status != NPK_OK) {
        npk_free(snapshot);
        return status;
    }
    (void)pthread_mutex_init(&snapshot->mutex, NULL);
    snapshot->core = core;
    npk_core_retain(core);
    *out = snapshot;
    return NPK_OK;
}

npk_status npk_snapshot_take(npk_store *store, npk_snapshot **snapshot, npk_error *err)
{
    return npk_snapshot_take_copy(store, false, snapshot, err);
}

npk_kv *npk_snapshot_view(npk_snapshot *snapshot)
{
    return snapshot->kv;
}

void npk_snapshot_release(npk_snapshot *snapshot)
{
    if (!snapshot)
        return;
    npk_kv_close(snapshot->kv);
    if (!atomic_load(&snapshot->core->is_forked)) {
        npk_pin_release(snapshot->core, snapshot->position.lsn);
        (void)npk_core_release(snapshot->core, NULL);
    }
    (void)pthread_mutex_destroy(&snapshot->mutex);
    npk_free(snapshot);
}

npk_position npk_snapshot_position(const npk_snapshot *snapshot)
{
    return snapshot->position;
}

/* ---- reading from a source ---------------------------------------------------------------------------------------------- */

npk_status npk_source_begin(const npk_source *source, npk_source_view *view, npk_error *err)
{
    memset(view, 0, sizeof *view);
    if ((source->store != NULL) + (source->txn != NULL) + (source->snapshot != NULL) != 1)
        return npk_fail(err, NPK_INVALID, "exactly one of store, txn and snapshot is the source");
    if (source->store)
        view->core = source->store->core;
    else
        view->core = source->txn ? source->txn->core : source->snapshot->core;
    if (atomic_load(&view->core->is_forked))
        return fail_forked(err);
    if (source->store) {
        view->from_store = true;
        return npk_view_begin(view->core, &view->kv, err);
    }
    if (source->txn) {
        if (source->txn->broken != NPK_OK)
            return npk_fail(err, source->txn->broken, "an earlier failure broke this transaction; it can only be rolled back");
        view->kv = source->txn->kv;
    } else {
        view->snapshot = source->snapshot;
        (void)pthread_mutex_lock(&view->snapshot->mutex);
        view->kv = source->snapshot->kv;
    }
    npk_kv_begin_read(view->kv);
    return NPK_OK;
}

void npk_source_end(npk_source_view *view)
{
    if (view->from_store) {
        npk_view_end(view->core, view->kv);
        return;
    }
    npk_kv_end_read(view->kv);
    if (view->snapshot)
        (void)pthread_mutex_unlock(&view->snapshot->mutex);
}

/* ---- lists ---------------------------------------------------------------------------------------------------------------- */

npk_status npk_list_arrays(const npk_source *source, void (*visit)(void *context, const char *name), void *context,
                           npk_error *err)
{
    npk_source_view view;
    npk_status status = npk_source_begin(source, &view, err);
    if (status != NPK_OK)
        return status;
    npk_buffer copy;
    npk_buffer_init(&copy);
    status = npk_catalog_copy(view.kv, NPK_TABLE_NAMES, NULL, 0, &copy, err);
    npk_source_end(&view);
    npk_cursor cursor = npk_cursor_over(copy.data, copy.size);
    const char *name;
    const uint8_t *value;
    size_t value_size;
    while (status == NPK_OK && npk_catalog_next(&cursor, &name, &value, &value_size))
        visit(context, name);
    npk_buffer_release(&copy);
    return status;
}

static void visit_attrs(const npk_buffer *copy, void (*visit)(void *context, const char *key, const void *value, size_t size), void *context)
{
    npk_cursor cursor = npk_cursor_over(copy->data, copy->size);
    const char *key;
    const uint8_t *value;
    size_t value_size;
    while (npk_catalog_next(&cursor, &key, &value, &value_size))
        visit(context, key, value, value_size);
}

npk_status npk_list_attrs(const npk_source *source, const char *array,
                          void (*visit)(void *context, const char *key, const void *value, size_t size), void *context,
                          npk_error *err)
{
    npk_source_view view;
    npk_status status = npk_source_begin(source, &view, err);
    if (status != NPK_OK)
        return status;
    npk_buffer copy;
    npk_buffer_init(&copy);
    uint64_t id = 0;
    bool found = true;
    if (array)
        status = npk_catalog_find_array(view.kv, array, &id, &found, err);
    if (status == NPK_OK && !found) {
        status = npk_fail(err, NPK_NOT_FOUND, "no array \"%s\"", array);
        npk_error_set_array(err, array);
    }
    if (status == NPK_OK)
        status = npk_catalog_copy_attrs(view.kv, id, &copy, err);
    npk_source_end(&view);
    if (status == NPK_OK)
        visit_attrs(&copy, visit, context);
    npk_buffer_release(&copy);
    return status;
}

void npk_array_list_attrs(const npk_array *array, void (*visit)(void *context, const char *key, const void *value, size_t size), void *context)
{
    visit_attrs(&array->attrs, visit, context);
}

/* ---- arrays ---------------------------------------------------------------------------------------------------------------- */

/* A transaction that logged nothing sees the newest commit, and nobody else can make a newer one: the cache has it. */
static bool is_unchanged(const npk_source *source)
{
    const npk_txn *txn = source->txn;
    return txn && !source->store && !source->snapshot && txn->record_count == 0 && txn->broken == NPK_OK &&
           !atomic_load(&txn->core->is_forked);
}

npk_status npk_array_open(const npk_source *source, const char *name, npk_array **array, npk_error *err)
{
    npk_status status = NPK_OK;
    if (!name || name[0] == '\0' || strlen(name) > NPK_NAME_MAX)
        return npk_fail(err, NPK_NOT_FOUND, "no array \"%.300s\"", name ? name : "");
    if (source->store && !source->txn && !source->snapshot) {
        if (atomic_load(&source->store->core->is_forked))
            return fail_forked(err);
        status = npk_view_array(source->store->core, name, array, err);
    } else if (is_unchanged(source)) {
        status = npk_view_array(source->txn->core, name, array, err);
    } else {
        npk_source_view view;
        status = npk_source_begin(source, &view, err);
        if (status != NPK_OK)
            return status;
        npk_array_sources sources = npk_view_sources(view.core);
        if (source->txn) { /* its own rows: in the log's buffer, and in column files that are not finished */
            status = npk_wal_write(view.core->wal, err);
            if (status != NPK_OK)
                source->txn->broken = status;
            sources.unfinished = npk_txn_unfinished;
            sources.context = source->txn;
        }
        bool missing = false;
        if (status == NPK_OK)
            status = npk_array_build(view.kv, name, &sources, array, &missing, err);
        if (status == NPK_NOT_FOUND && missing)
            status = npk_context(err, NPK_CORRUPT, "a file is missing");
        npk_source_end(&view);
    }
    if (status != NPK_OK)
        npk_error_set_array(err, name);
    return status;
}
