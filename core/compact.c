/* compact.c - folding. Step numbers are those of compact.h. */
#include "compact.h"

#include "alloc.h"
#include "array.h"
#include "bytes.h"
#include "error.h"
#include "orphans.h"
#include "reclaim.h"
#include "recover.h"
#include "row_index.h"
#include "txn.h"
#include "unsynced.h"
#include "view.h"

#define COPY_SIZE (1u << 20)          /* bytes read and written at a time */
#define WHOLE_BELOW (8u << 20)        /* smaller arrays are always folded whole: one file, one piece */
#define PIECES_MAX 64u                /* more pieces than this: fold whole */
#define TIER_MAX ((uint64_t)1 << 30)  /* files are merged up to about this size */

/* What a fold does with one array. All slots and rows are those of the state at lsn. */
struct fold {
    npk_core *core;
    npk_array *array;
    npk_map_run *map;
    size_t map_count;
    uint64_t lsn;           /* S */
    uint32_t epoch;         /* of S: after a cut the same LSNs mean other records */
    uint64_t first_row;     /* rows from here on are copied; the row count: none */
    bool renumber;
    npk_column_writer *writer;
    npk_column_summary summary;
    npk_buffer rows;        /* COPY_SIZE or one row */
};

/* ---- step 1 ------------------------------------------------------------------------------------------------------------- */

static npk_status look(struct fold *fold, const char *name, npk_error *err)
{
    for (int tries = 0;; tries++) {
        npk_kv *kv = NULL;
        npk_status status = npk_view_begin(fold->core, &kv, err);
        if (status != NPK_OK)
            return status;
        bool missing = false;
        npk_array_sources sources = npk_view_sources(fold->core);
        status = npk_array_build(kv, name, &sources, &fold->array, &missing, err);
        npk_store_state state;
        bool found = false;
        if (status == NPK_OK)
            status = npk_catalog_get_state(kv, &state, &found, err);
        if (status == NPK_OK)
            status = npk_row_index_load_map(kv, fold->array->info.id, &fold->map, &fold->map_count, err);
        npk_view_end(fold->core, kv);
        if (status == NPK_OK) {
            fold->lsn = state.end.lsn;
            fold->epoch = state.end.epoch;
            return NPK_OK;
        }
        npk_array_release(fold->array);
        fold->array = NULL;
        if (!missing || tries >= 3) /* we hold COMPACTOR, so nobody reclaims: what is missing is missing */
            return status == NPK_NOT_FOUND && missing ? npk_context(err, NPK_CORRUPT, "a file is missing") : status;
    }
}

static bool is_pending_source(const npk_array *array, uint32_t source)
{
    return npk_place_is_pending(&array->sources[source].place);
}

/* From which row on the array is to be copied. Everything pending must be covered; column files in front of it are taken along while
 * they are not larger than what is copied anyway, so that each byte is written a number of times that grows with the logarithm of the size. */
static uint64_t choose_first_row(const npk_array *array)
{
    uint64_t rows = array->info.row_count, row_size = array->info.row_size;
    uint64_t size = rows * row_size;
    if (size <= WHOLE_BELOW || array->piece_count > PIECES_MAX)
        return 0;
    uint64_t first = rows;
    for (uint64_t i = array->piece_count; i-- > 0;)
        if (is_pending_source(array, array->pieces[i].source))
            first = array->pieces[i].first_row;
    if (array->overlay_count)
        first = npk_min_u64(first, array->overlay[0].row);
    /* Scattered over most of the array, with little pending: still one rewrite; the worker waits until enough is pending. */
    for (uint64_t i = array->piece_count; i-- > 0;) {
        const npk_piece *piece = &array->pieces[i];
        if (piece->first_row >= first)
            continue;
        if (piece->first_row + piece->count > first) { /* the boundary lies inside: a piece is taken whole */
            first = piece->first_row;
            continue;
        }
        uint64_t copied = (rows - first) * row_size, piece_size = piece->count * row_size;
        if (piece_size > 2 * copied || copied + piece_size > TIER_MAX)
            break;
        first = piece->first_row;
    }
    return first;
}

/* ---- steps 2 and 3 -------------------------------------------------------------------------------------------------------- */

static int note_bad(void *context, uint64_t offset, uint64_t size)
{
    uint64_t *bad = context;
    bad[0] = offset;
    bad[1] = size;
    return 1;
}

struct sum_list {
    npk_buffer sums; /* u64 in memory order */
    uint64_t next_block;
};

static npk_status visit_sums(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size,
                             bool *stop, npk_error *err)
{
    (void)stop;
    struct sum_list *list = context;
    if (key_size != 16 || value_size % 8 != 0 || npk_get_be64(key + 8) != list->next_block)
        return npk_catalog_fail(err, NPK_TABLE_SUMS);
    for (size_t i = 0; i < value_size; i += 8) {
        uint64_t sum = npk_get_u64(value + i);
        npk_buffer_put(&list->sums, &sum, sizeof sum);
        list->next_block++;
    }
    return list->sums.failed ? npk_fail(err, NPK_NO_MEMORY, "could not allocate checksums") : NPK_OK;
}

/* Column files that rows are copied from are checked whole: their checksums cover blocks, not rows. */
static npk_status check_columns(struct fold *fold, npk_error *err)
{
    const npk_array *array = fold->array;
    for (uint32_t s = 0; s < array->source_count; s++) {
        if (!array->sources[s].column)
            continue;
        bool used = false;
        for (uint64_t i = 0; i < array->piece_count && !used; i++)
            used = array->pieces[i].source == s && array->pieces[i].first_row + array->pieces[i].count > fold->first_row;
        for (uint64_t i = 0; i < array->overlay_count && !used; i++)
            used = array->overlay[i].source == s;
        if (!used)
            continue;
        struct sum_list list = {0};
        npk_buffer_init(&list.sums);
        npk_kv *kv = NULL;
        npk_status status = npk_view_begin(fold->core, &kv, err);
        if (status == NPK_OK) {
            uint8_t prefix[8];
            status = npk_kv_scan(kv, NPK_TABLE_SUMS, prefix, npk_key_u64(prefix, array->sources[s].place.container), NULL, 0,
                                 visit_sums, &list, err);
            npk_view_end(fold->core, kv);
        }
        uint64_t bad[2] = {0, 0};
        if (status == NPK_OK)
            status = npk_column_check(array->sources[s].column, (const uint64_t *)(const void *)list.sums.data,
                                      list.next_block, note_bad, bad, err);
        if (status == NPK_CORRUPT && bad[1])
            status = npk_fail(err, NPK_CORRUPT, "column file %016llx is damaged at data offset %llu",
                              (unsigned long long)array->sources[s].place.container, (unsigned long long)bad[0]);
        npk_buffer_release(&list.sums);
        if (status != NPK_OK) {
            npk_error_set_array(err, array->info.name);
            return status;
        }
    }
    return NPK_OK;
}

static npk_status copy_rows(struct fold *fold, npk_error *err)
{
    npk_array *array = fold->array;
    const npk_array_info *info = &array->info;
    npk_column_spec spec = {info->descr, info->row_size, info->ndim, info->shape, info->zero_dim};
    uint64_t count = info->row_count - fold->first_row;
    npk_status status = npk_column_create(fold->core->io, fold->core->columns_directory, fold->core->uuid, &spec, count,
                                          true, &fold->writer, err);
    uint64_t step = npk_max_u64(1, COPY_SIZE / info->row_size);
    uint8_t *bytes = status == NPK_OK ? npk_buffer_grow(&fold->rows, (size_t)(npk_min_u64(step, count) * info->row_size)) : NULL;
    if (status == NPK_OK && !bytes)
        status = npk_fail(err, NPK_NO_MEMORY, "could not allocate a copy buffer");
    for (uint64_t row = fold->first_row; row < info->row_count && status == NPK_OK; row += step) {
        uint64_t part = npk_min_u64(step, info->row_count - row);
        status = npk_array_read_checked(array, row, part, bytes, err);
        if (status == NPK_OK)
            status = npk_column_append(fold->writer, bytes, part, err);
        atomic_fetch_add(&fold->core->bytes_folded, part * info->row_size);
    }
    if (status == NPK_OK)
        status = npk_column_finish(fold->writer, true, &fold->summary, err);
    if (status == NPK_OK)
        status = npk_unsynced_sync_names(fold->core, err);
    return status;
}

/* ---- step 4 --------------------------------------------------------------------------------------------------------------- */

/* Link the copied rows, one run per stretch of neighbouring slots. */
static npk_status log_runs(struct fold *fold, npk_txn *txn, npk_error *err)
{
    npk_status status = NPK_OK;
    for (size_t i = 0; i < fold->map_count && status == NPK_OK; i++) {
        const npk_map_run *run = &fold->map[i];
        uint64_t end = run->first_row + run->count, first = npk_max_u64(run->first_row, fold->first_row);
        if (first >= end)
            continue;
        npk_op op = {.type = NPK_OP_LINK_RUN,
                     .mode = NPK_LINK_FOLD,
                     .array = fold->array->info.id,
                     .lsn = fold->lsn - 1,
                     .first = run->first_slot + (first - run->first_row),
                     .count = end - first,
                     .other = fold->summary.id,
                     .file_row = first - fold->first_row};
        status = npk_txn_log(txn, &op, NULL, 0, err);
    }
    return status;
}

typedef enum fold_result {
    FOLD_DONE,
    FOLD_GONE,  /* the array was dropped: there is nothing to publish */
    FOLD_AGAIN  /* the log was cut since S, or the slots of a changed array could not be renumbered */
} fold_result;

static npk_status log_fold(struct fold *fold, npk_txn *txn, fold_result *result, npk_error *err)
{
    npk_store_state state;
    npk_array_record now;
    bool found = false;
    npk_status status = npk_catalog_get_state(txn->kv, &state, &found, err);
    if (status == NPK_OK && (!found || state.end.epoch != fold->epoch)) {
        *result = FOLD_AGAIN;
        return NPK_OK;
    }
    if (status == NPK_OK)
        status = npk_catalog_get_array(txn->kv, fold->array->info.id, &now, &found, err);
    if (status == NPK_OK && !found)
        *result = FOLD_GONE;
    if (status != NPK_OK || !found)
        return status;
    bool unchanged = now.layout_lsn == fold->array->record.layout_lsn;
    uint64_t next_slot = now.next_slot;
    npk_array_record_release(&now);
    if (fold->renumber && !unchanged) {
        *result = FOLD_AGAIN;
        return NPK_OK;
    }
    status = npk_txn_log_file(txn, &fold->summary, true, err);
    if (status != NPK_OK)
        return status;
    if (!fold->renumber)
        return log_runs(fold, txn, err);
    npk_op op = {.type = NPK_OP_RENUMBER,
                 .array = fold->array->info.id,
                 .first = next_slot,
                 .count = fold->array->info.row_count,
                 .other = fold->summary.id};
    return npk_txn_log(txn, &op, NULL, 0, err);
}

/* held: a transaction that was begun before step 1, so that nothing can have changed; else NULL. Consumed. */
static npk_status publish_fold(struct fold *fold, npk_txn *held, fold_result *result, npk_error *err)
{
    npk_txn *txn = held;
    npk_status status = NPK_OK;
    if (!txn) {
        npk_wait wait = {(uint64_t)fold->core->settings.busy_timeout_ms * 1000, NULL, NULL};
        status = npk_txn_begin_core(fold->core, &wait, &txn, err);
        if (status != NPK_OK)
            return status;
    }
    status = log_fold(fold, txn, result, err);
    if (status != NPK_OK || *result != FOLD_DONE) {
        npk_txn_abort(txn);
        return status;
    }
    status = npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, err);
    if (status == NPK_OK) {
        atomic_fetch_add(&fold->core->folds, 1);
        atomic_store(&fold->core->last_fold_us, fold->core->io->now_us(fold->core->io));
    }
    return status;
}

/* ---- arrays ------------------------------------------------------------------------------------------------------------------ */

static bool is_one_piece(const npk_array *array)
{
    return array->overlay_count == 0 &&
           (array->piece_count == 0 || (array->piece_count == 1 && array->sources[array->pieces[0].source].column));
}

static bool has_pending(const npk_array *array)
{
    for (uint64_t i = 0; i < array->piece_count; i++)
        if (is_pending_source(array, array->pieces[i].source))
            return true;
    return array->overlay_count != 0;
}

/* Steps 1 to 4 once. locked: under the writer lock from the beginning. */
static npk_status try_fold(npk_core *core, const char *name, npk_fold_extent extent, bool locked, fold_result *result,
                           npk_error *err)
{
    struct fold fold = {.core = core};
    npk_buffer_init(&fold.rows);
    npk_txn *held = NULL;
    npk_status status = NPK_OK;
    if (locked) {
        npk_wait wait = {(uint64_t)core->settings.busy_timeout_ms * 1000, NULL, NULL};
        status = npk_txn_begin_core(core, &wait, &held, err);
    }
    if (status == NPK_OK)
        status = look(&fold, name, err);
    bool needed = false;
    if (status == NPK_OK && fold.array->info.row_size && fold.array->info.row_count) {
        if (extent == NPK_FOLD_WHOLE) {
            fold.renumber = fold.map_count > 1;
            needed = fold.renumber || !is_one_piece(fold.array);
        } else if (has_pending(fold.array)) {
            fold.first_row = choose_first_row(fold.array);
            needed = fold.first_row < fold.array->info.row_count;
        }
    }
    *result = FOLD_DONE;
    if (needed) {
        status = check_columns(&fold, err);
        if (status == NPK_OK)
            status = copy_rows(&fold, err);
        bool published = false;
        if (status == NPK_OK) {
            status = publish_fold(&fold, held, result, err);
            held = NULL;
            published = status == NPK_OK && *result == FOLD_DONE;
        }
        /* A poisoned store may still hold the commit record that links the file. */
        if (published || status == NPK_POISONED)
            npk_column_writer_release(fold.writer);
        else
            npk_column_discard(fold.writer);
    }
    npk_txn_abort(held);
    npk_array_release(fold.array);
    npk_free(fold.map);
    npk_buffer_release(&fold.rows);
    return status;
}

#define TRIES_UNLOCKED 2

npk_status npk_compact_array(npk_core *core, const char *name, npk_fold_extent extent, npk_error *err)
{
    npk_status status;
    fold_result result;
    int tries = 0;
    do
        status = try_fold(core, name, extent, tries >= TRIES_UNLOCKED, &result, err);
    while (status == NPK_OK && result == FOLD_AGAIN && tries++ < TRIES_UNLOCKED);
    return status == NPK_OK ? NPK_OK : npk_context(err, status, "fold array \"%s\"", name);
}

struct array_list {
    npk_buffer ids;   /* u64 in memory order */
    npk_buffer names; /* strings, each with its NUL */
    uint64_t pending_size, pending_rows, pending_entries;
};

static npk_status visit_array(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size,
                              bool *stop, npk_error *err)
{
    (void)value;
    (void)value_size;
    (void)stop;
    struct array_list *list = context;
    if (key_size != 8)
        return npk_catalog_fail(err, NPK_TABLE_ARRAYS);
    uint64_t id = npk_get_be64(key);
    npk_buffer_put(&list->ids, &id, sizeof id);
    return list->ids.failed ? npk_fail(err, NPK_NO_MEMORY, "could not list arrays") : NPK_OK;
}

static void release_list(struct array_list *list)
{
    npk_buffer_release(&list->ids);
    npk_buffer_release(&list->names);
}

/* Segments count the entries of rows that refer to them. */
static npk_status visit_segment(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size, bool *stop,
                                npk_error *err)
{
    (void)key;
    (void)key_size;
    (void)stop;
    npk_container container;
    if (!npk_container_decode(value, value_size, &container))
        return npk_catalog_fail(err, NPK_TABLE_PLACES);
    *(uint64_t *)context += container.reference_count;
    return NPK_OK;
}

/* Arrays with pending rows, or all of them, and what is pending in sum. */
static npk_status list_arrays(npk_core *core, bool all, struct array_list *list, npk_error *err)
{
    memset(list, 0, sizeof *list);
    npk_kv *kv = NULL;
    npk_status status = npk_view_begin(core, &kv, err);
    if (status != NPK_OK)
        return status;
    status = npk_kv_scan(kv, NPK_TABLE_ARRAYS, NULL, 0, NULL, 0, visit_array, list, err);
    const uint8_t segments = NPK_CONTAINER_SEGMENT; /* the first byte of their keys */
    if (status == NPK_OK)
        status = npk_kv_scan(kv, NPK_TABLE_PLACES, &segments, 1, NULL, 0, visit_segment, &list->pending_entries, err);
    for (size_t at = 0; at < list->ids.size && status == NPK_OK; at += sizeof(uint64_t)) {
        uint64_t id;
        memcpy(&id, list->ids.data + at, sizeof id);
        npk_array_record record;
        bool found = false;
        status = npk_catalog_get_array(kv, id, &record, &found, err);
        if (status != NPK_OK || !found)
            continue;
        list->pending_rows += record.pending_row_count;
        list->pending_size += record.pending_row_count * record.row_size;
        if (all || record.pending_row_count)
            npk_buffer_put(&list->names, record.name, strlen(record.name) + 1);
        npk_array_record_release(&record);
        if (list->names.failed)
            status = npk_fail(err, NPK_NO_MEMORY, "could not list arrays");
    }
    npk_view_end(core, kv);
    return status;
}

npk_status npk_compact_pending(npk_core *core, uint64_t *size, uint64_t *row_count, uint64_t *entry_count, npk_error *err)
{
    struct array_list list;
    npk_status status = list_arrays(core, false, &list, err);
    release_list(&list);
    *size = list.pending_size;
    *row_count = list.pending_rows;
    if (entry_count)
        *entry_count = list.pending_entries;
    return status;
}

npk_status npk_compact_all(npk_core *core, npk_fold_extent extent, npk_error *err)
{
    struct array_list list;
    atomic_store(&core->logged_since_fold, 0);
    npk_status status = list_arrays(core, extent == NPK_FOLD_WHOLE, &list, err), first_damage = NPK_OK;
    const char *name = (const char *)list.names.data;
    for (size_t at = 0; at < list.names.size && status == NPK_OK; at += strlen(name + at) + 1) {
        npk_status folded = npk_compact_array(core, name + at, extent, first_damage == NPK_OK ? err : NULL);
        if (folded == NPK_CORRUPT)
            first_damage = NPK_CORRUPT; /* one damaged array must not keep the others from being folded */
        else if (folded != NPK_NOT_FOUND) /* dropped meanwhile */
            status = folded;
    }
    release_list(&list);
    return status == NPK_OK ? first_damage : status;
}

/* ---- public -------------------------------------------------------------------------------------------------------------------- */

/* Nothing that is left over outlives a compaction. */
static npk_status remove_orphans(npk_core *core, npk_error *err)
{
    npk_wait wait = {(uint64_t)core->settings.busy_timeout_ms * 1000, NULL, NULL};
    npk_txn *txn = NULL; /* holds the writer lock: no transaction is filling a file */
    npk_status status = npk_txn_begin_core(core, &wait, &txn, err);
    if (status != NPK_OK)
        return status;
    status = npk_orphans_remove(core, NULL, err);
    npk_txn_abort(txn);
    return status;
}

npk_status npk_store_compact(npk_store *store, const char *name, npk_error *err)
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
    status = name ? npk_compact_array(core, name, NPK_FOLD_WHOLE, err) : npk_compact_all(core, NPK_FOLD_WHOLE, err);
    if (!name && (status == NPK_OK || status == NPK_NO_SPACE)) /* a full disk: reclaiming may make the room */
        status = npk_reclaim_checkpoint(core, err);
    if (status == NPK_OK)
        status = npk_reclaim_run(core, false, err);
    if (status == NPK_OK)
        status = remove_orphans(core, err);
    npk_compactor_release(core);
    return status;
}
