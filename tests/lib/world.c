/* world.c - a store on a crashable disk behind a faulting table, together with the history of its contents. */
#include "world.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char directory[48];
static world_base bases[WORLD_BASE_COUNT];

/* ---- history ---------------------------------------------------------------------------------------------------------- */

static void history_copy(model *to, const model *from, int count)
{
    for (int i = 0; i < count; i++)
        model_copy(&to[i], &from[i]);
}

static void history_init(model *history)
{
    for (int i = 0; i < WORLD_HISTORY; i++)
        model_init(&history[i]);
}

static void history_release(model *history)
{
    for (int i = 0; i < WORLD_HISTORY; i++)
        model_release(&history[i]);
}

/* now becomes the state after the newest transaction (committed) or the one that may be (not). */
static void history_push(world *w, const model *now, bool committed)
{
    ck_assert_int_lt(w->newest + 2, WORLD_HISTORY);
    model_copy(&w->history[w->newest + 1], now);
    if (committed)
        w->newest++;
    w->in_doubt = !committed && model_hash(now) != model_hash(&w->history[w->newest]);
}

/* ---- making worlds ------------------------------------------------------------------------------------------------------ */

static world *make_world(memory_io *memory, const char *real_path)
{
    world *w = calloc(1, sizeof *w);
    ck_assert_ptr_nonnull(w);
    history_init(w->history);
    w->memory = memory;
    w->fault = fault_io_create(memory_io_table(memory));
    w->random = rng_seeded(7);
    (void)snprintf(w->real_path, sizeof w->real_path, "%s", real_path);
    return w;
}

static void real_path_of(const char *which, char path[64])
{
    (void)snprintf(path, 64, "%s/%s", directory, which);
}

static memory_io *fresh_disk(const char *real_path)
{
    memory_io_options options = {.seed = 3, .real_path = real_path};
    memory_io *memory = memory_io_create(&options);
    memory_io_set_clock(memory, 1700000000000000u, 1);
    return memory;
}

world *world_create(const world_base *base)
{
    char real_path[64];
    real_path_of("live", real_path);
    memory_io_selection whole = {.select = MEMORY_IO_PROCESS_DIED};
    memory_io *memory = base->disk ? memory_io_materialize(base->disk, &whole, real_path) : fresh_disk(real_path);
    world *w = make_world(memory, real_path);
    history_copy(w->history, base->history, base->newest + 1);
    w->newest = base->newest;
    w->durable = base->durable;
    return w;
}

void world_destroy(world *w)
{
    if (w->store)
        (void)world_close(w);
    npk_snapshot_release(w->snapshot);
    w->snapshot = NULL;
    ck_assert_msg(memory_io_open_count(w->memory) == 0, "%s: %zu files are still open", w->label,
                  memory_io_open_count(w->memory));
    ck_assert_msg(memory_io_map_count(w->memory) == 0, "%s: %lld maps are left", w->label,
                  (long long)memory_io_map_count(w->memory));
    fault_io_destroy(w->fault);
    memory_io_destroy(w->memory);
    history_release(w->history);
    free(w);
}

/* ---- steps ---------------------------------------------------------------------------------------------------------------- */

npk_status world_open(world *w)
{
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE, .no_background = 1,
                           .segment_size = 64 << 10, .checkpoint_log_size = 512 << 10, .pending_limit = 512 << 10,
                           .bulk_size = 64 << 10, .busy_timeout_ms = 200, .io = fault_io_table(w->fault)};
    return npk_store_open(WORLD_STORE, &options, &w->store, &w->err);
}

npk_status world_close(world *w)
{
    npk_status status = npk_store_close(w->store, &w->err);
    w->store = NULL;
    if (status == NPK_OK && !w->in_doubt)
        w->durable = w->newest;
    return status;
}

static npk_status flush(world *w)
{
    int newest = w->newest;
    npk_status status = npk_store_flush(w->store, &w->err);
    if (status == NPK_OK)
        w->durable = newest;
    return status;
}

static npk_status checkpoint(world *w)
{
    int newest = w->newest;
    npk_status status = npk_store_checkpoint(w->store, &w->err);
    if (status == NPK_OK)
        w->durable = newest;
    return status;
}

static npk_status compact(world *w, const char *name)
{
    return npk_store_compact(w->store, name, &w->err);
}

static void expect_model(world *w, const model *m, const npk_source *source, const char *when)
{
    char text[512] = "";
    ck_assert_msg(model_matches(m, source, text, sizeof text), "%s: %s: %s", w->label, when, text);
}

/* Which of history[lowest .. highest] the store shows; the first failing comparison is what is said when none does. */
static int find_state(world *w, const npk_source *source, int lowest, int highest, const char *when)
{
    char text[512] = "", first[512] = "";
    for (int i = highest; i >= lowest; i--) {
        if (model_matches(&w->history[i], source, text, sizeof text))
            return i;
        size_t used = strlen(first);
        (void)snprintf(first + used, sizeof first - used, "%s%.150s", used ? "; " : "", text);
    }
    int other = WORLD_HISTORY - 1;
    while (other >= 0 && !model_matches(&w->history[other], source, text, sizeof text))
        other--;
    ck_abort_msg("%s: %s: no state from %d to %d but %d: %s", w->label, when, lowest, highest, other, first);
    return -1;
}

/* What the faulty transaction became is seen now, and stays. */
static void settle_doubt(world *w, int seen)
{
    if (w->in_doubt && seen == w->newest + 1) {
        ck_assert_msg(w->doubt_status == NPK_POISONED, "%s: a transaction whose commit failed with %s is there", w->label,
                      npk_status_kind(w->doubt_status));
        w->newest = seen;
        w->present_after_error++;
    }
    if (seen < w->newest)
        w->newest = seen;
    w->in_doubt = false;
}

/* What a transaction does; now is the model that goes along. */
typedef npk_status operations(world *w, model *now, npk_txn *txn);

static npk_status transact(world *w, npk_sync level, operations *run)
{
    if (w->in_doubt && !w->only_syncs_fail)
        return NPK_POISONED; /* first see what became of the last one, without faults */
    npk_txn *txn = NULL;
    npk_status status = npk_txn_begin(w->store, UINT32_MAX, &txn, &w->err);
    if (status != NPK_OK)
        return status;
    if (w->only_syncs_fail) {
        npk_source own = {.txn = txn};
        settle_doubt(w, find_state(w, &own, w->cache_shows_old ? w->durable : w->newest, w->newest + w->in_doubt, "inside a transaction"));
    }
    model now;
    model_init(&now);
    model_copy(&now, &w->history[w->newest]);
    status = run(w, &now, txn);
    if (status != NPK_OK && !w->go_on) {
        npk_txn_abort(txn);
        model_release(&now);
        return status;
    }
    npk_status committed = npk_txn_commit(txn, level, NULL, &w->err);
    history_push(w, &now, committed == NPK_OK);
    w->doubt_status = committed;
    if (committed == NPK_OK && level == NPK_SYNC_COMMIT)
        w->durable = w->newest;
    model_release(&now);
    return status != NPK_OK ? status : committed;
}

static npk_status mixed(world *w, model *now, npk_txn *txn)
{
    for (int i = 0; i < 4; i++) {
        npk_status status = model_step(now, txn, &w->random, false, &w->err);
        if (status != NPK_OK)
            return status;
    }
    return NPK_OK;
}

/* Append count rows of row_size random bytes to array i of the model, made when absent. */
static npk_status put_rows(world *w, model *now, npk_txn *txn, int i, uint64_t row_size, uint64_t count)
{
    model_array *array = &now->arrays[i];
    bool fresh = !array->name[0];
    if (!fresh)
        row_size = array->row_size;
    size_t old = row_size * (fresh ? 0 : array->row_count), size = row_size * count;
    uint8_t *rows = realloc(array->rows, old + size + 1);
    ck_assert_ptr_nonnull(rows);
    array->rows = rows;
    rng_fill(&w->random, rows + old, size);
    char name[32];
    (void)snprintf(name, sizeof name, "array %d", i);
    npk_array_spec spec = {"|u1", row_size, 1, &row_size, 0};
    npk_status status = fresh ? npk_txn_save(txn, name, &spec, count, rows, &w->err)
                              : npk_txn_append(txn, name, count, rows + old, &w->err);
    if (status == NPK_OK) {
        memcpy(array->name, name, sizeof name);
        array->row_size = row_size;
        array->row_count = (fresh ? 0 : array->row_count) + count;
    } else if (fresh) {
        free(rows);
        array->rows = NULL;
    }
    return status;
}

static npk_status small(world *w, model *now, npk_txn *txn)
{
    return put_rows(w, now, txn, 6, 8, 3);
}

static npk_status some_log(world *w, model *now, npk_txn *txn)
{
    return put_rows(w, now, txn, 5, 300, 80); /* 24 KB: a segment holds two */
}

static npk_status attribute(world *w, model *now, npk_txn *txn)
{
    int64_t number = (int64_t)rng_below(&w->random, 1000);
    char text[24];
    int size = snprintf(text, sizeof text, "%lld", (long long)number);
    npk_status status = npk_txn_set_attr(txn, NULL, "k0", text, (size_t)size, &w->err);
    if (status == NPK_OK)
        now->attrs[0] = number;
    return status;
}

/* Three segments' worth in one transaction, some of it undone after it had left the buffer. */
static npk_status spilled(world *w, model *now, npk_txn *txn)
{
    uint64_t point;
    npk_status status = some_log(w, now, txn);
    if (status == NPK_OK)
        status = some_log(w, now, txn);
    if (status == NPK_OK)
        status = npk_txn_savepoint(txn, &point, &w->err);
    if (status != NPK_OK)
        return status;
    model undone;
    model_init(&undone);
    model_copy(&undone, now);
    for (int i = 0; i < 3 && status == NPK_OK; i++)
        status = some_log(w, &undone, txn);
    model_release(&undone);
    npk_error err = {0};
    npk_status back = npk_txn_rollback_to(txn, point, &err);
    if (status == NPK_OK) {
        w->err = err;
        status = back;
    }
    if (status == NPK_OK)
        status = some_log(w, now, txn);
    return status == NPK_OK ? attribute(w, now, txn) : status;
}

static npk_status give_up(world *w)
{
    npk_txn *txn = NULL;
    npk_status status = npk_txn_begin(w->store, UINT32_MAX, &txn, &w->err);
    if (status != NPK_OK)
        return status;
    model now;
    model_init(&now);
    model_copy(&now, &w->history[w->newest]);
    status = spilled(w, &now, txn);
    npk_txn_abort(txn);
    model_release(&now);
    return status;
}

static npk_status bulk(world *w, model *now, npk_txn *txn)
{
    npk_status status = put_rows(w, now, txn, 3, 4096, 20);
    if (status == NPK_OK)
        status = small(w, now, txn);
    if (status == NPK_OK)
        status = put_rows(w, now, txn, 3, 4096, 17); /* the same file */
    model_array *array = &now->arrays[3];
    if (status != NPK_OK)
        return status;
    uint8_t *rows = malloc(18 * 4096);
    ck_assert_ptr_nonnull(rows);
    rng_fill(&w->random, rows, 18 * 4096);
    status = npk_txn_replace_run(txn, array->name, 2, 18, rows, &w->err);
    if (status == NPK_OK)
        memcpy(array->rows + 2 * 4096, rows, 18 * 4096);
    free(rows);
    return status;
}

/* Rows of the front, in the middle and at the end go. */
static npk_status drop(world *w, model *now, npk_txn *txn)
{
    for (int i = 0; i < MODEL_ARRAYS; i++) {
        model_array *array = &now->arrays[i];
        if (!array->name[0] || array->row_count < 8)
            continue;
        int64_t which[3] = {0, (int64_t)array->row_count / 2, (int64_t)array->row_count - 1};
        npk_status status = npk_txn_drop_rows(txn, array->name, 3, which, &w->err);
        if (status != NPK_OK)
            return status;
        uint64_t kept = 0;
        for (uint64_t row = 0; row < array->row_count; row++)
            if ((int64_t)row != which[0] && (int64_t)row != which[1] && (int64_t)row != which[2])
                memmove(array->rows + kept++ * array->row_size, array->rows + row * array->row_size, array->row_size);
        array->row_count = kept;
    }
    return NPK_OK;
}

/* ---- looking -------------------------------------------------------------------------------------------------------------- */

static void note_finding(void *context, const npk_finding *finding)
{
    world *w = context;
    ck_abort_msg("%s: verify: %s at %llu: array \"%s\" row %lld: %s", w->label, finding->file,
                 (unsigned long long)finding->offset, finding->array, (long long)finding->first_row, finding->reason);
}

static void verify(world *w, const char *when)
{
    npk_status status = npk_store_verify(w->store, note_finding, NULL, w, &w->err);
    ck_assert_msg(status == NPK_OK, "%s: %s: verify: %s", w->label, when, w->err.message);
}

static void must(world *w, npk_status status, const char *what)
{
    ck_assert_msg(status == NPK_OK, "%s: %s: %s: %s", w->label, what, npk_status_kind(status), w->err.message);
}

void world_settle(world *w)
{
    fault_io_plan(w->fault, NULL);
    if (!w->store)
        must(w, world_open(w), "opening after the fault");
    /* A transaction repairs what needs repair. */
    npk_txn *txn = NULL;
    npk_status status = npk_txn_begin(w->store, UINT32_MAX, &txn, &w->err);
    bool told = status == NPK_POISONED && w->cache_shows_old;
    if (told) /* once */
        status = npk_txn_begin(w->store, UINT32_MAX, &txn, &w->err);
    must(w, status, "beginning after the fault");
    npk_txn_abort(txn);
    npk_source source = {.store = w->store};
    int lowest = w->cache_shows_old ? w->durable : w->newest;
    settle_doubt(w, find_state(w, &source, lowest, w->newest + w->in_doubt, "in the same process"));
    verify(w, "in the same process");
    if (w->snapshot) {
        npk_snapshot_release(w->snapshot);
        w->snapshot = NULL;
    }
    must(w, transact(w, NPK_SYNC_COMMIT, small), "a transaction after the fault");
    must(w, world_close(w), "closing after the fault");
    ck_assert_msg(memory_io_open_count(w->memory) == 0, "%s: %zu files are still open", w->label,
                  memory_io_open_count(w->memory));
    must(w, world_open(w), "reopening");
    source.store = w->store;
    expect_model(w, &w->history[w->newest], &source, "after reopening");
    verify(w, "after reopening");
    must(w, world_close(w), "closing again");
}

void world_survive(world *w, memory_io_select select, uint64_t seed)
{
    static const char *const names[] = {[MEMORY_IO_NONE] = "power loss", [MEMORY_IO_ALL] = "power loss, all kept",
                                        [MEMORY_IO_RANDOM] = "power loss, some kept",
                                        [MEMORY_IO_PROCESS_DIED] = "process death"};
    memory_snapshot *disk = memory_io_snapshot(w->memory);
    memory_io_selection selection = {.select = select, .seed = seed};
    char real_path[64];
    real_path_of("after", real_path);
    world *after = make_world(memory_io_materialize(disk, &selection, real_path), real_path);
    memory_snapshot_release(disk);
    int highest = w->newest + w->in_doubt;
    history_copy(after->history, w->history, highest + 1);
    (void)snprintf(after->label, sizeof after->label, "%.180s; %s", w->label, names[select]);
    npk_status status = world_open(after);
    must(after, status, "opening");
    int lowest = select == MEMORY_IO_PROCESS_DIED && !w->cache_shows_old ? w->newest : w->durable;
    npk_source source = {.store = after->store};
    after->newest = find_state(after, &source, lowest, highest, "after recovery");
    after->durable = after->newest; /* what an open has shown is durable: recovery rewrote and synced it */
    verify(after, "after recovery");
    must(after, transact(after, NPK_SYNC_COMMIT, small), "a transaction after recovery");
    if (select == MEMORY_IO_PROCESS_DIED) {
        /* The page cache may have shown what the disk never got. */
        memory_snapshot *again = memory_io_snapshot(after->memory);
        must(after, world_close(after), "closing");
        memory_io_selection none = {.select = MEMORY_IO_NONE};
        real_path_of("later", real_path);
        world *later = make_world(memory_io_materialize(again, &none, real_path), real_path);
        memory_snapshot_release(again);
        history_copy(later->history, after->history, after->newest + 1);
        later->newest = after->newest;
        (void)snprintf(later->label, sizeof later->label, "%.200s; then power loss", after->label);
        must(later, world_open(later), "opening");
        source.store = later->store;
        expect_model(later, &later->history[later->newest], &source, "after the second recovery");
        verify(later, "after the second recovery");
        world_destroy(later);
    }
    world_destroy(after);
}

/* ---- scenarios -------------------------------------------------------------------------------------------------------------- */

#define STEP(call)                                                                                                          \
    do {                                                                                                                    \
        npk_status step_status = (call);                                                                                    \
        if (step_status != NPK_OK && status == NPK_OK)                                                                      \
            status = step_status;                                                                                           \
    } while (0)

/* Later steps run after a failed one too: the process goes on as if it had handled the error. */

static npk_status run_create(world *w)
{
    npk_status status = world_open(w);
    if (status != NPK_OK)
        return status;
    STEP(transact(w, NPK_SYNC_COMMIT, mixed));
    STEP(world_close(w));
    return status;
}

static npk_status run_recover(world *w)
{
    npk_status status = world_open(w);
    if (status != NPK_OK)
        return status;
    STEP(transact(w, NPK_SYNC_COMMIT, mixed));
    STEP(world_close(w));
    return status;
}

static npk_status run_levels(world *w)
{
    npk_status status = NPK_OK;
    STEP(transact(w, NPK_SYNC_COMMIT, mixed));
    STEP(transact(w, NPK_SYNC_INTERVAL, mixed));
    STEP(transact(w, NPK_SYNC_NEVER, mixed));
    STEP(flush(w));
    STEP(transact(w, NPK_SYNC_NEVER, drop));
    STEP(transact(w, NPK_SYNC_COMMIT, small));
    return status;
}

static npk_status run_spilled(world *w)
{
    npk_status status = NPK_OK;
    STEP(transact(w, NPK_SYNC_COMMIT, spilled));
    STEP(give_up(w));
    STEP(transact(w, NPK_SYNC_NEVER, spilled));
    STEP(transact(w, NPK_SYNC_COMMIT, small));
    return status;
}

static npk_status run_roll(world *w)
{
    npk_status status = NPK_OK;
    for (int i = 0; i < 6; i++)
        STEP(transact(w, i % 3 == 2 ? NPK_SYNC_COMMIT : NPK_SYNC_NEVER, some_log));
    return status;
}

static npk_status run_bulk(world *w)
{
    npk_status status = NPK_OK;
    STEP(transact(w, NPK_SYNC_COMMIT, bulk));
    STEP(transact(w, NPK_SYNC_NEVER, bulk));
    STEP(transact(w, NPK_SYNC_COMMIT, small));
    return status;
}

static npk_status run_compact(world *w)
{
    npk_status status = NPK_OK;
    STEP(transact(w, NPK_SYNC_COMMIT, some_log));
    STEP(transact(w, NPK_SYNC_NEVER, drop));
    STEP(compact(w, "array 5"));
    STEP(compact(w, NULL));
    STEP(transact(w, NPK_SYNC_COMMIT, small));
    return status;
}

static npk_status run_reclaim(world *w)
{
    npk_status status = NPK_OK;
    STEP(compact(w, NULL));
    for (int i = 0; i < 3; i++) {
        STEP(transact(w, NPK_SYNC_NEVER, some_log));
        STEP(transact(w, NPK_SYNC_NEVER, drop));
        STEP(checkpoint(w));
    }
    STEP(compact(w, NULL));
    return status;
}

static npk_status run_close(world *w)
{
    npk_status status = NPK_OK;
    STEP(transact(w, NPK_SYNC_NEVER, mixed));
    STEP(world_close(w));
    return status;
}

/* The limits fold and checkpoint by themselves when a transaction begins. */
static npk_status run_limits(world *w)
{
    npk_status status = NPK_OK;
    for (int i = 0; i < 4; i++) {
        STEP(transact(w, NPK_SYNC_NEVER, spilled));
        STEP(transact(w, NPK_SYNC_COMMIT, some_log));
    }
    return status;
}

/* Reading under faults gives an error or the right bytes. */
static npk_status run_read(world *w)
{
    npk_status status = npk_snapshot_take(w->store, &w->snapshot, &w->err);
    npk_source sources[2] = {{.store = w->store}, {.snapshot = w->snapshot}};
    for (int s = 0; s < (w->snapshot ? 2 : 1); s++)
        for (int i = 0; i < MODEL_ARRAYS; i++) {
            const model_array *want = &w->history[w->newest].arrays[i];
            npk_array *array = NULL;
            if (!want->name[0])
                continue;
            npk_status one = npk_array_open(&sources[s], want->name, &array, &w->err);
            ck_assert_msg(one != NPK_NOT_FOUND && one != NPK_CORRUPT, "%s: %s", w->label, w->err.message);
            STEP(one);
            if (one != NPK_OK)
                continue;
            size_t size = want->row_size * want->row_count;
            uint8_t *rows = malloc(size + 1);
            one = npk_array_read(array, 0, want->row_count, rows, &w->err);
            ck_assert_msg(one != NPK_OK || memcmp(rows, want->rows, size) == 0, "%s: wrong rows", w->label);
            STEP(one);
            free(rows);
            npk_region *region = NULL;
            for (int mode = 0; mode < 3; mode++) {
                one = mode == 2 ? npk_array_load(array, &region, &w->err)
                                : npk_array_map(array, 0, want->row_count, (npk_map_mode)mode, &region, &w->err);
                if (one == NPK_OK) {
                    ck_assert_msg(size == 0 || memcmp(npk_region_address(region), want->rows, size) == 0,
                                  "%s: wrong mapped rows", w->label);
                    npk_region_release(region);
                }
                STEP(one);
            }
            npk_array_release(array);
        }
    return status;
}

const world_scenario world_scenarios[] = {
    {"create", WORLD_EMPTY, false, run_create},
    {"recover", WORLD_KILLED, false, run_recover},
    {"open a clean store", WORLD_CLOSED, false, run_recover},
    {"commit at each level", WORLD_CLOSED, true, run_levels},
    {"spilled transactions", WORLD_CLOSED, true, run_spilled},
    {"segment roll", WORLD_CLOSED, true, run_roll},
    {"bulk rows", WORLD_CLOSED, true, run_bulk},
    {"compact", WORLD_KILLED, true, run_compact},
    {"checkpoint and reclaim", WORLD_CLOSED, true, run_reclaim},
    {"close", WORLD_CLOSED, true, run_close},
    {"limits", WORLD_CLOSED, true, run_limits},
    {"read", WORLD_KILLED, true, run_read},
};
const size_t world_scenario_count = sizeof world_scenarios / sizeof world_scenarios[0];

/* ---- bases ------------------------------------------------------------------------------------------------------------------- */

static void keep_base(world *w, int which)
{
    world_base *base = &bases[which];
    base->disk = memory_io_snapshot(w->memory);
    history_copy(base->history, w->history, w->newest + 1);
    base->newest = w->newest;
    base->durable = w->durable;
}

void world_setup(void)
{
    const char *place = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    (void)snprintf(directory, sizeof directory, "%s/npk-test-XXXXXX", place);
    ck_assert_ptr_nonnull(mkdtemp(directory));
    char command[256];
    (void)snprintf(command, sizeof command, "mkdir %s/live %s/after %s/later", directory, directory, directory);
    ck_assert_int_eq(system(command), 0);
    for (int i = 0; i < WORLD_BASE_COUNT; i++)
        history_init(bases[i].history);
    world *w = world_create(&bases[WORLD_EMPTY]);
    (void)snprintf(w->label, sizeof w->label, "making the bases");
    w->random = rng_seeded(11);
    must(w, world_open(w), "open");
    for (int i = 0; i < 4; i++)
        must(w, transact(w, NPK_SYNC_COMMIT, mixed), "mixed");
    must(w, transact(w, NPK_SYNC_COMMIT, bulk), "bulk");
    must(w, compact(w, NULL), "compact");
    must(w, transact(w, NPK_SYNC_COMMIT, some_log), "log");
    must(w, checkpoint(w), "checkpoint");
    must(w, transact(w, NPK_SYNC_COMMIT, mixed), "mixed");
    must(w, world_close(w), "close");
    keep_base(w, WORLD_CLOSED);
    must(w, world_open(w), "open");
    must(w, transact(w, NPK_SYNC_COMMIT, mixed), "mixed");
    must(w, transact(w, NPK_SYNC_COMMIT, some_log), "log");
    must(w, transact(w, NPK_SYNC_INTERVAL, drop), "drop");
    must(w, transact(w, NPK_SYNC_NEVER, mixed), "mixed");
    npk_txn *txn = NULL; /* dies in the middle of a large one */
    must(w, npk_txn_begin(w->store, UINT32_MAX, &txn, &w->err), "begin");
    model now;
    model_init(&now);
    model_copy(&now, &w->history[w->newest]);
    must(w, spilled(w, &now, txn), "spilled");
    keep_base(w, WORLD_KILLED);
    npk_txn_abort(txn);
    model_release(&now);
    world_destroy(w);
}

void world_teardown(void)
{
    for (int i = 0; i < WORLD_BASE_COUNT; i++) {
        memory_snapshot_release(bases[i].disk);
        bases[i].disk = NULL;
        history_release(bases[i].history);
    }
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", directory);
    ck_assert_int_eq(system(command), 0);
}

const world_base *world_get_base(int which)
{
    return &bases[which];
}
