/* explorer.c - the recorded run: history, and the verbs that scenarios are written in. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "explorer_parts.h"

/* ---- history ---------------------------------------------------------------------------------------------------------- */

void explorer_history_init(explorer_history *history)
{
    memset(history, 0, sizeof *history);
}

void explorer_history_release(explorer_history *history)
{
    for (size_t i = 0; i < history->model_count; i++)
        model_release(&history->models[i]);
    for (size_t i = 0; i < history->point_count; i++)
        memory_snapshot_release(history->points[i].snapshot);
    free(history->models);
    free(history->points);
    explorer_history_init(history);
}

/* Room for one more. */
static void *grow(void *items, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return items;
    *capacity = *capacity ? *capacity * 2 : 16;
    void *grown = realloc(items, *capacity * size);
    ck_assert_ptr_nonnull(grown);
    return grown;
}

void explorer_history_push(explorer_history *history, const model *m)
{
    history->models = grow(history->models, history->model_count, &history->model_capacity, sizeof *history->models);
    model *place = &history->models[history->model_count++];
    model_init(place);
    model_copy(place, m);
}

void explorer_history_note(explorer_history *history, memory_io *disk, const memory_io_call *call)
{
    /* The disk before a call is the disk after the one before: look again only if other bounds hold. */
    if (history->point_count && !(call && call->is_after)) {
        const explorer_point *last = &history->points[history->point_count - 1];
        if (last->durable == history->durable && last->acknowledged == history->acknowledged &&
            last->started == history->started && last->created == history->created)
            return;
    }
    history->points = grow(history->points, history->point_count, &history->point_capacity, sizeof *history->points);
    explorer_point *point = &history->points[history->point_count++];
    *point = (explorer_point){memory_io_snapshot(disk), history->durable, history->acknowledged, history->started,
                              history->created, "at the end"};
    if (call)
        (void)snprintf(point->call, sizeof point->call, "%s %s %.24s %llu+%llu", call->is_after ? "after" : "before",
                       io_call_name(call->kind), call->name ? call->name : "", (unsigned long long)call->offset,
                       (unsigned long long)call->size);
}

/* ---- the run ------------------------------------------------------------------------------------------------------------- */

void explorer_fail(const explorer *x, const char *what, const npk_error *err)
{
    ck_abort_msg("scenario \"%s\", seed %llu, without any crash: %s: %s", x->scenario->name,
                 (unsigned long long)x->settings.seed, what, err ? err->message : "");
}

#define DO(x, call)                                     \
    do {                                                \
        npk_error do_err = {0}, *err = &do_err;         \
        if ((call) != NPK_OK)                           \
            explorer_fail((x), #call, err);             \
    } while (0)

/* Like DO, but a failure is fine while faults happen. Whether it went well. */
#define TRY(x, call) try_it((x), #call, (call))

static npk_error try_error;

static bool try_it(const explorer *x, const char *what, npk_status status)
{
    if (status != NPK_OK && !x->may_fail)
        explorer_fail(x, what, &try_error);
    return status == NPK_OK;
}

static void watch(void *context, const memory_io_call *call)
{
    explorer *x = context;
    if (x->recording)
        explorer_history_note(&x->history, x->disk, call);
}

explorer *explorer_run(const explorer_scenario *scenario, const explorer_settings *settings)
{
    explorer *x = calloc(1, sizeof *x);
    ck_assert_ptr_nonnull(x);
    x->scenario = scenario;
    x->settings = *settings;
    x->random = rng_seeded(settings->seed);
    model_init(&x->now);
    for (int i = 0; i < EXPLORER_SAVEPOINTS; i++)
        model_init(&x->points[i]);
    explorer_history_init(&x->history);
    explorer_history_push(&x->history, &x->now);
    memory_io_options options = {.seed = settings->seed, .names_follow_sync = settings->names_follow_sync,
                                 .real_path = settings->run_path};
    x->disk = memory_io_create(&options);
    if (scenario->has_faults)
        x->fault = fault_io_create(memory_io_table(x->disk));
    memory_io_set_clock(x->disk, UINT64_C(1700000000000000), 3);
    memory_io_set_hook(x->disk, watch, x);
    scenario->run(x);
    if (x->recording)
        explorer_history_note(&x->history, x->disk, NULL);
    x->recording = false;
    memory_io_set_hook(x->disk, NULL, NULL);
    if (x->txn)
        explorer_abort(x);
    if (x->store)
        explorer_close(x);
    fault_io_destroy(x->fault);
    memory_io_destroy(x->disk);
    x->fault = NULL;
    x->disk = NULL;
    return x;
}

void explorer_release(explorer *x)
{
    explorer_history_release(&x->history);
    model_release(&x->now);
    for (int i = 0; i < EXPLORER_SAVEPOINTS; i++)
        model_release(&x->points[i]);
    free(x);
}

void explorer_options(const explorer *x, const memory_io *disk, npk_mode mode, npk_options *options)
{
    *options = (npk_options){.struct_size = sizeof *options, .mode = mode, .sync = x->scenario->sync, .no_background = 1,
                             .io = memory_io_table((memory_io *)(uintptr_t)disk), .busy_timeout_ms = 1000};
    options->segment_size = x->scenario->segment_size ? x->scenario->segment_size : 64 << 10;
    options->bulk_size = x->scenario->bulk_size ? x->scenario->bulk_size : 1 << 30;
    options->checkpoint_log_size = x->scenario->checkpoint_log_size;
    options->pending_limit = x->scenario->pending_limit;
    if (x->fault && disk == x->disk)
        options->io = fault_io_table(x->fault);
}

/* ---- verbs: the store ------------------------------------------------------------------------------------------------------ */

void explorer_record(explorer *x, bool on)
{
    x->recording = on;
}

rng *explorer_random(explorer *x)
{
    return &x->random;
}

const model *explorer_now(const explorer *x)
{
    return &x->now;
}

npk_store *explorer_store(const explorer *x)
{
    return x->store;
}

static void all_durable(explorer *x)
{
    x->history.durable = x->history.acknowledged;
}

void explorer_open(explorer *x)
{
    npk_options options;
    explorer_options(x, x->disk, NPK_MODE_CREATE, &options);
    DO(x, npk_store_open(EXPLORER_ROOT, &options, &x->store, err));
    x->lost_count = 0;
    x->history.created = true;
}

void explorer_close(explorer *x)
{
    npk_store *store = x->store;
    x->store = NULL;
    DO(x, npk_store_close(store, err));
    all_durable(x);
}

void explorer_flush(explorer *x)
{
    if (TRY(x, npk_store_flush(x->store, &try_error)))
        all_durable(x);
}

void explorer_checkpoint(explorer *x)
{
    if (TRY(x, npk_store_checkpoint(x->store, &try_error)))
        all_durable(x);
}

void explorer_compact(explorer *x, int array)
{
    if (TRY(x, npk_store_compact(x->store, array < 0 ? NULL : x->now.arrays[array].name, &try_error)) && array < 0)
        all_durable(x);
}

void explorer_crash(explorer *x, const memory_io_selection *selection)
{
    memory_snapshot *snapshot = memory_io_snapshot(x->disk);
    memory_io_set_hook(x->disk, NULL, NULL);
    if (x->txn)
        explorer_abort(x);
    if (x->store)
        DO(x, npk_store_close(x->store, err));
    x->store = NULL;
    memory_io_destroy(x->disk);
    x->disk = memory_io_materialize(snapshot, selection, x->settings.run_path);
    memory_snapshot_release(snapshot);
    memory_io_set_hook(x->disk, watch, x);
    explorer_history *history = &x->history;
    unsigned low = selection->select == MEMORY_IO_PROCESS_DIED ? history->acknowledged : history->durable;
    size_t first = history->point_count;
    npk_options options;
    explorer_options(x, x->disk, NPK_MODE_UPDATE, &options);
    if (!history->created)
        options.mode = NPK_MODE_CREATE;
    DO(x, npk_store_open(EXPLORER_ROOT, &options, &x->store, err));
    x->lost_count = 0;
    char text[512] = "";
    int j = explorer_match(history, low, history->started, x->store, text, sizeof text);
    ck_assert_msg(j >= 0, "scenario \"%s\": after its crash: %s", x->scenario->name, text);
    /* What the recovery found is what the next one must find; only what was not durable before the process died may still go. */
    for (size_t i = first; i < history->point_count; i++) {
        history->points[i].durable = selection->select == MEMORY_IO_PROCESS_DIED ? history->durable : (unsigned)j;
        history->points[i].acknowledged = history->points[i].started = (unsigned)j;
    }
    for (size_t i = 0; i < first; i++)
        ck_assert_uint_le(history->points[i].started, (unsigned)j); /* its models must stay */
    while (history->model_count > (size_t)j + 1)
        model_release(&history->models[--history->model_count]);
    history->durable = history->acknowledged = history->started = (unsigned)j;
    history->created = true;
    model_copy(&x->now, &history->models[j]);
}

/* ---- verbs: transactions ------------------------------------------------------------------------------------------------------ */

/* What was started and failed is void from here on: the state before it is there again, as one more model. */
static void note_void(explorer *x)
{
    explorer_history *history = &x->history;
    explorer_history_push(history, &history->models[history->acknowledged]);
    bool all_was_durable = history->durable == history->acknowledged;
    history->acknowledged = ++history->started;
    if (all_was_durable)
        history->durable = history->started;
    model_copy(&x->now, &history->models[history->started]);
}

static bool is_poisoned(const explorer *x)
{
    return atomic_load(&x->store->core->control->poison) != 0;
}

static void commit_failed(explorer *x)
{
    if (!is_poisoned(x)) {
        note_void(x);
        return;
    }
    /* Repaired by the next transaction, which finds it or not. */
    explorer_begin(x);
    if (x->txn)
        explorer_abort(x);
}

/* A failed sync took transactions that were acknowledged and not durable, and the store was repaired. What is left is there from here on, as
 * one more model. A process that dies while it is repaired keeps that little too. */
static void note_loss(explorer *x)
{
    explorer_history *history = &x->history;
    char text[512] = "";
    int j = explorer_match(history, history->durable, history->started, x->store, text, sizeof text);
    ck_assert_msg(j >= 0, "scenario \"%s\": after a failed sync: %s", x->scenario->name, text);
    for (size_t i = x->fault_point; i < history->point_count; i++)
        history->points[i].acknowledged = history->points[i].durable;
    explorer_history_push(history, &history->models[j]);
    history->durable = history->acknowledged = ++history->started;
    model_copy(&x->now, &history->models[history->started]);
}

void explorer_begin(explorer *x)
{
    explorer_history *history = &x->history;
    x->is_broken = false;
    npk_status status = npk_txn_begin(x->store, UINT32_MAX, &x->txn, &try_error);
    uint64_t lost_count = atomic_load(&x->store->core->control->poison_lost_count);
    bool lost = lost_count != x->lost_count;
    if (lost && status == NPK_POISONED && !is_poisoned(x)) /* that was to say so */
        status = npk_txn_begin(x->store, UINT32_MAX, &x->txn, &try_error);
    if (!TRY(x, status)) {
        x->txn = NULL;
        return;
    }
    if (lost) {
        x->lost_count = lost_count;
        note_loss(x);
    }
    if (history->started == history->acknowledged)
        return;
    char text[512] = "";
    int j = explorer_match(history, history->acknowledged, history->started, x->store, text, sizeof text);
    ck_assert_msg(j >= 0, "scenario \"%s\": after a failed commit: %s", x->scenario->name, text);
    if ((unsigned)j == history->started)
        history->durable = history->acknowledged = (unsigned)j; /* it is there after all */
    else
        note_void(x);
}

void explorer_commit(explorer *x, npk_sync sync)
{
    npk_txn *txn = x->txn;
    if (!txn && x->may_fail)
        return; /* it did not begin */
    if (x->is_broken) {
        explorer_abort(x);
        return;
    }
    x->txn = NULL;
    explorer_history_push(&x->history, &x->now);
    x->history.started++;
    if (!TRY(x, npk_txn_commit(txn, sync, NULL, &try_error))) {
        commit_failed(x);
        return;
    }
    x->history.acknowledged = x->history.started;
    if (sync == NPK_SYNC_COMMIT)
        all_durable(x);
}

void explorer_abort(explorer *x)
{
    npk_txn_abort(x->txn);
    x->txn = NULL;
    x->is_broken = false;
    model_copy(&x->now, &x->history.models[x->history.model_count - 1]);
}

/* ---- faults --------------------------------------------------------------------------------------------------------------------- */

void explorer_fault(explorer *x, uint32_t kinds, uint64_t index, bool forever, int sys_errno,
                    memory_io_sync_failure failure)
{
    ck_assert_ptr_nonnull(x->fault);
    fault_plan plan = {.kinds = kinds, .index = index, .forever = forever, .effect = FAULT_ERRNO, .sys_errno = sys_errno, .memory = x->disk,
                       .sync_failure = failure};
    fault_io_plan(x->fault, &plan);
    x->fault_point = x->history.point_count;
    x->may_fail = true;
}

uint64_t explorer_settle(explorer *x)
{
    uint64_t fired = fault_io_fired(x->fault);
    fault_io_plan(x->fault, NULL);
    x->may_fail = false;
    explorer_begin(x);
    npk_error err = {0};
    if (explorer_grow(&x->now, x->txn, &err) != NPK_OK)
        explorer_fail(x, "after a fault", &err);
    explorer_commit(x, NPK_SYNC_COMMIT);
    return fired;
}

uint64_t explorer_savepoint(explorer *x)
{
    uint64_t savepoint = 0;
    DO(x, npk_txn_savepoint(x->txn, &savepoint, err));
    ck_assert_uint_lt(savepoint, EXPLORER_SAVEPOINTS);
    model_copy(&x->points[savepoint], &x->now);
    return savepoint;
}

void explorer_rollback(explorer *x, uint64_t savepoint)
{
    DO(x, npk_txn_rollback_to(x->txn, savepoint, err));
    model_copy(&x->now, &x->points[savepoint]);
}

/* An operation that may fail while faults happen: then the transaction is only good for being aborted. */
#define OPERATION(x, call)                              \
    do {                                                \
        if ((x)->txn && !(x)->is_broken)                \
            (x)->is_broken = !TRY((x), call);           \
    } while (0)

/* ---- verbs: operations ---------------------------------------------------------------------------------------------------------- */

static uint8_t *make_rows(rng *r, uint64_t size)
{
    uint8_t *rows = malloc(size ? size : 1);
    ck_assert_ptr_nonnull(rows);
    rng_fill(r, rows, size);
    return rows;
}

static npk_status save(model *m, npk_txn *txn, int array, uint64_t row_size, uint64_t row_count, uint8_t *rows,
                       npk_error *err)
{
    model_array *place = &m->arrays[array];
    npk_array_spec spec = {"|u1", row_size, 1, &row_size, 0};
    char name[32];
    (void)snprintf(name, sizeof name, "array %d", array);
    npk_status status = npk_txn_save(txn, name, &spec, row_count, rows, err);
    if (status != NPK_OK) {
        free(rows);
        return status;
    }
    free(place->rows);
    *place = (model_array){.row_size = row_size, .row_count = row_count, .rows = rows};
    memcpy(place->name, name, sizeof name);
    return NPK_OK;
}

static npk_status append(model *m, npk_txn *txn, int array, uint64_t row_count, const uint8_t *rows, npk_error *err)
{
    model_array *place = &m->arrays[array];
    npk_status status = npk_txn_append(txn, place->name, row_count, rows, err);
    if (status != NPK_OK)
        return status;
    place->rows = realloc(place->rows, place->row_size * (place->row_count + row_count) + 1);
    ck_assert_ptr_nonnull(place->rows);
    memcpy(place->rows + place->row_size * place->row_count, rows, place->row_size * row_count);
    place->row_count += row_count;
    return NPK_OK;
}

npk_status explorer_grow(model *m, npk_txn *txn, npk_error *err)
{
    rng r = rng_seeded(m->arrays[0].row_count + 77);
    for (int i = 0; i < MODEL_ARRAYS; i++)
        if (!m->arrays[i].name[0])
            return save(m, txn, i, 16, 3, make_rows(&r, 48), err);
    uint8_t *rows = make_rows(&r, m->arrays[0].row_size);
    npk_status status = append(m, txn, 0, 1, rows, err);
    free(rows);
    return status;
}

void explorer_save(explorer *x, int array, uint64_t row_size, uint64_t row_count)
{
    OPERATION(x, save(&x->now, x->txn, array, row_size, row_count, make_rows(&x->random, row_size * row_count), &try_error));
}

void explorer_append(explorer *x, int array, uint64_t row_count)
{
    uint8_t *rows = make_rows(&x->random, x->now.arrays[array].row_size * row_count);
    OPERATION(x, append(&x->now, x->txn, array, row_count, rows, &try_error));
    free(rows);
}

void explorer_replace(explorer *x, int array, uint64_t count)
{
    model_array *place = &x->now.arrays[array];
    uint8_t *rows = make_rows(&x->random, place->row_size * count);
    int64_t *which = calloc(count, sizeof *which);
    ck_assert_ptr_nonnull(which);
    for (uint64_t i = 0; i < count; i++)
        which[i] = (int64_t)rng_below(&x->random, place->row_count);
    DO(x, npk_txn_replace(x->txn, place->name, count, which, rows, err));
    for (uint64_t i = 0; i < count; i++)
        memcpy(place->rows + (uint64_t)which[i] * place->row_size, rows + i * place->row_size, place->row_size);
    free(which);
    free(rows);
}

void explorer_replace_run(explorer *x, int array, uint64_t first, uint64_t count)
{
    model_array *place = &x->now.arrays[array];
    uint8_t *rows = make_rows(&x->random, place->row_size * count);
    DO(x, npk_txn_replace_run(x->txn, place->name, first, count, rows, err));
    memcpy(place->rows + first * place->row_size, rows, place->row_size * count);
    free(rows);
}

void explorer_drop_rows(explorer *x, int array, uint64_t first, uint64_t count)
{
    model_array *place = &x->now.arrays[array];
    int64_t *which = calloc(count, sizeof *which);
    ck_assert_ptr_nonnull(which);
    for (uint64_t i = 0; i < count; i++)
        which[i] = (int64_t)(first + i);
    DO(x, npk_txn_drop_rows(x->txn, place->name, count, which, err));
    memmove(place->rows + first * place->row_size, place->rows + (first + count) * place->row_size,
            (place->row_count - first - count) * place->row_size);
    place->row_count -= count;
    free(which);
}

void explorer_drop_array(explorer *x, int array)
{
    model_array *place = &x->now.arrays[array];
    DO(x, npk_txn_drop_array(x->txn, place->name, err));
    free(place->rows);
    memset(place, 0, sizeof *place);
}

void explorer_clone(explorer *x, int from, int to)
{
    model_array *place = &x->now.arrays[to], *source = &x->now.arrays[from];
    char name[32];
    (void)snprintf(name, sizeof name, "array %d", to);
    DO(x, npk_txn_clone(x->txn, source->name, name, err));
    *place = *source;
    memcpy(place->name, name, sizeof name);
    uint64_t size = source->row_size * source->row_count;
    place->rows = malloc(size + 1);
    ck_assert_ptr_nonnull(place->rows);
    memcpy(place->rows, source->rows, size);
}

void explorer_rename(explorer *x, int array, const char *name)
{
    model_array *place = &x->now.arrays[array];
    DO(x, npk_txn_rename(x->txn, place->name, name, err));
    memset(place->name, 0, sizeof place->name);
    (void)snprintf(place->name, sizeof place->name, "%s", name);
}

void explorer_reset(explorer *x)
{
    DO(x, npk_txn_reset(x->txn, err));
    model_release(&x->now);
}

void explorer_attr(explorer *x, int key, int64_t value)
{
    char name[8], text[24];
    (void)snprintf(name, sizeof name, "k%d", key);
    int size = snprintf(text, sizeof text, "%lld", (long long)value);
    if (value < 0)
        DO(x, npk_txn_delete_attr(x->txn, NULL, name, err));
    else
        DO(x, npk_txn_set_attr(x->txn, NULL, name, text, (size_t)size, err));
    x->now.attrs[key] = value < 0 ? -1 : value;
}

void explorer_step(explorer *x)
{
    DO(x, model_step(&x->now, x->txn, &x->random, true, err));
}
