/* test_io_faults.c - every I/O call of every scenario fails once, in each way: the call says so with a documented status, the store stays
 * usable in the same process, and nothing is lost or half there, whatever happens next. NPK_FAULT_STRIDE=1 visits every case. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check_main.h"
#include "world.h"

static const struct way {
    const char *name;
    fault_effect effect;
    int sys_errno;
    bool forever;
    unsigned stride; /* of the calls that are hit; all of them when 1 */
} ways[] = {
    {"EIO once", FAULT_ERRNO, EIO, false, 3},
    {"EIO for good", FAULT_ERRNO, EIO, true, 5},
    {"ENOSPC once", FAULT_ERRNO, ENOSPC, false, 7},
    {"ENOSPC for good", FAULT_ERRNO, ENOSPC, true, 7},
    {"EDQUOT for good", FAULT_ERRNO, EDQUOT, true, 13},
    {"EINTR once", FAULT_ERRNO, EINTR, false, 11},
    {"EINTR again and again", FAULT_ERRNO, EINTR, true, 11},
    {"short once", FAULT_SHORT, 0, false, 3},
    {"short for good", FAULT_SHORT, 0, true, 23},
    {"short, then ENOSPC", FAULT_SHORT_THEN_ERRNO, ENOSPC, true, 5},
};
enum { WAY_COUNT = sizeof ways / sizeof ways[0] };

static void note_fault(void *context, io_call_kind kind, uint64_t index)
{
    world *w = context;
    size_t used = strlen(w->label);
    if (used < 150)
        (void)snprintf(w->label + used, sizeof w->label - used, ", %s %llu", io_call_name(kind), (unsigned long long)index);
}

static bool is_documented(npk_status status)
{
    switch (status) {
    case NPK_OK:
    case NPK_IO:
    case NPK_NO_SPACE:
    case NPK_POISONED:
    case NPK_NO_MEMORY:
    case NPK_INTERRUPTED: return true;
    default: return false;
    }
}

/* One case; false: nothing fired any more. */
static bool one_case(const world_scenario *scenario, const fault_plan *plan, const char *way, uint64_t *fired,
                     uint64_t *present)
{
    world *w = world_create(world_get_base(scenario->base));
    w->go_on = plan->index % 2;
    (void)snprintf(w->label, sizeof w->label, "%s: %s at %llu", scenario->name, way, (unsigned long long)plan->index);
    if (scenario->opened)
        ck_assert_msg(world_open(w) == NPK_OK, "%s: %s", w->label, w->err.message);
    fault_plan now = *plan;
    now.memory = w->memory;
    w->only_syncs_fail = plan->kinds == IO_CALL_BIT(SYNC);
    w->cache_shows_old = w->only_syncs_fail && plan->sync_failure % 2;
    fault_io_set_hook(w->fault, note_fault, w);
    fault_io_plan(w->fault, &now);
    npk_status status = scenario->run(w);
    uint64_t count = fault_io_fired(w->fault);
    fault_io_plan(w->fault, NULL);
    *fired += count;
    ck_assert_msg(is_documented(status), "%s: %s: %s", w->label, npk_status_kind(status), w->err.message);
    ck_assert_msg(count || status == NPK_OK, "%s: %s without a fault: %s", w->label, npk_status_kind(status), w->err.message);
    if (count) {
        uint64_t turn = plan->index + (uint64_t)scenario->base;
        if (w->only_syncs_fail || turn % 4 == 0)
            world_survive(w, MEMORY_IO_NONE, 0);
        if (w->only_syncs_fail || turn % 4 == 1)
            world_survive(w, MEMORY_IO_PROCESS_DIED, 0);
        if (w->only_syncs_fail || turn % 4 == 2)
            world_survive(w, MEMORY_IO_RANDOM, plan->index);
        if (!w->only_syncs_fail && turn % 4 == 3)
            world_survive(w, MEMORY_IO_ALL, 0);
    }
    world_settle(w);
    *present += w->present_after_error;
    if (w->snapshot) {
        npk_snapshot_release(w->snapshot);
        w->snapshot = NULL;
    }
    world_destroy(w);
    return count != 0;
}

/* NPK_FAULT_ONLY=25 runs that turn of each loop alone. */
static bool is_left_out(int turn)
{
    const char *given = getenv("NPK_FAULT_ONLY");
    return given && atoi(given) != turn;
}

static unsigned stride_of(const struct way *way)
{
    const char *given = getenv("NPK_FAULT_STRIDE");
    return given && atoi(given) > 0 ? (unsigned)atoi(given) : way->stride;
}

START_TEST(test_every_io_call_fails_in_every_way)
{
    if (is_left_out(_i))
        return;
    const world_scenario *scenario = &world_scenarios[_i / WAY_COUNT];
    const struct way *way = &ways[_i % WAY_COUNT];
    unsigned stride = stride_of(way);
    uint64_t fired = 0, cases = 0, present = 0;
    for (uint64_t k = (uint64_t)(_i % (int)stride);; k += stride) {
        fault_plan plan = {.index = k, .effect = way->effect, .sys_errno = way->sys_errno, .forever = way->forever};
        if (way->effect != FAULT_ERRNO)
            plan.kinds = IO_CALL_BIT(READ) | IO_CALL_BIT(WRITE);
        if (!one_case(scenario, &plan, way->name, &fired, &present))
            break;
        cases++;
    }
    printf("%s: %s: %llu cases, %llu faults, %llu present after an error\n", scenario->name, way->name,
           (unsigned long long)cases, (unsigned long long)fired, (unsigned long long)present);
}
END_TEST

START_TEST(test_failed_syncs_lose_nothing_acknowledged_and_keep_nothing_halfway)
{
    static const char *const flavours[4] = {"pages clean, cache new", "pages clean, cache old", "pages dirty, cache new",
                                            "pages dirty, cache old"};
    if (is_left_out(_i))
        return;
    const world_scenario *scenario = &world_scenarios[_i / 8];
    memory_io_sync_failure flavour = (memory_io_sync_failure)(_i % 4);
    bool forever = _i / 4 % 2;
    uint64_t fired = 0, cases = 0, present = 0;
    for (uint64_t k = 0;; k++, cases++) { /* all of them: they are few */
        fault_plan plan = {.kinds = IO_CALL_BIT(SYNC), .index = k, .sys_errno = EIO, .forever = forever, .sync_failure = flavour};
        char name[64];
        (void)snprintf(name, sizeof name, "sync fails%s, %s", forever ? " for good" : "", flavours[flavour]);
        if (!one_case(scenario, &plan, name, &fired, &present))
            break;
    }
    printf("%s: %s%s: %llu cases, %llu failed syncs, %llu present after an error\n", scenario->name, flavours[flavour],
           forever ? " for good" : "", (unsigned long long)cases, (unsigned long long)fired, (unsigned long long)present);
}
END_TEST

/* ---- recovery of files linked unsynced ------------------------------------------------------------------------------------ */

static char real_paths[3][64];

static npk_status open_on(const npk_io *io, npk_mode mode, npk_store **store)
{
    npk_options options = {.struct_size = sizeof options, .mode = mode, .sync = NPK_SYNC_NEVER, .no_background = 1, .io = io,
                           .bulk_size = 4 << 10, .segment_size = 64 << 10};
    return npk_store_open("store", &options, store, NULL);
}

/* A process died with a file in doubt; in the recovery one sync finds no room. When it goes on nevertheless, what it says is durable must be. */
static bool recover_with_full_sync(const memory_snapshot *died, uint64_t k)
{
    memory_io_selection process_died = {.select = MEMORY_IO_PROCESS_DIED}, none = {.select = MEMORY_IO_NONE};
    memory_io *disk = memory_io_materialize(died, &process_died, real_paths[1]);
    fault_io *fault = fault_io_create(memory_io_table(disk));
    fault_plan plan = {.kinds = IO_CALL_BIT(SYNC), .index = k, .effect = FAULT_ERRNO, .sys_errno = ENOSPC, .memory = disk};
    fault_io_plan(fault, &plan);
    npk_store *store = NULL;
    npk_status status = open_on(fault_io_table(fault), NPK_MODE_UPDATE, &store);
    bool fired = fault_io_fired(fault) != 0;
    fault_io_plan(fault, NULL);
    if (status != NPK_OK)
        ck_assert_int_eq(open_on(fault_io_table(fault), NPK_MODE_UPDATE, &store), NPK_OK);
    memory_snapshot *cut = memory_io_snapshot(disk);
    ck_assert_int_eq(npk_store_close(store, NULL), NPK_OK);
    memory_io *after = memory_io_materialize(cut, &none, real_paths[2]);
    memory_snapshot_release(cut);
    ck_assert_int_eq(open_on(memory_io_table(after), NPK_MODE_UPDATE, &store), NPK_OK);
    npk_source source = {.store = store};
    npk_array *array = NULL;
    npk_error err = {0};
    npk_status opened = npk_array_open(&source, "a", &array, &err);
    ck_assert_msg(opened == NPK_OK, "sync %llu of the recovery had no room: %s", (unsigned long long)k, err.message);
    npk_array_release(array);
    ck_assert_int_eq(npk_store_close(store, NULL), NPK_OK);
    memory_io_destroy(after);
    fault_io_destroy(fault);
    memory_io_destroy(disk);
    return fired;
}

START_TEST(test_a_sync_of_names_without_room_is_not_taken_for_one_that_succeeded)
{
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(real_paths[i], sizeof real_paths[i], "%s/npk_full_sync_%zu_XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", i);
        ck_assert_ptr_nonnull(mkdtemp(real_paths[i]));
    }
    memory_io_options options = {.seed = 1, .real_path = real_paths[0]};
    memory_io *disk = memory_io_create(&options);
    npk_store *store = NULL;
    npk_txn *txn = NULL;
    static uint8_t rows[100 * 100];
    npk_array_spec spec = {.descr = "|u1", .row_size = 100, .ndim = 1, .shape = (const uint64_t[]){100}};
    ck_assert_int_eq(open_on(memory_io_table(disk), NPK_MODE_CREATE, &store), NPK_OK);
    ck_assert_int_eq(npk_txn_begin(store, UINT32_MAX, &txn, NULL), NPK_OK);
    ck_assert_int_eq(npk_txn_save(txn, "a", &spec, 100, rows, NULL), NPK_OK);
    ck_assert_int_eq(npk_txn_commit(txn, NPK_SYNC_NEVER, NULL, NULL), NPK_OK);
    memory_snapshot *died = memory_io_snapshot(disk);
    ck_assert_int_eq(npk_store_close(store, NULL), NPK_OK);
    uint64_t k = 0;
    while (recover_with_full_sync(died, k))
        k++;
    ck_assert_uint_ge(k, 4);
    memory_snapshot_release(died);
    memory_io_destroy(disk);
    char command[256];
    (void)snprintf(command, sizeof command, "rm -rf %s %s %s", real_paths[0], real_paths[1], real_paths[2]);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("io faults");
    TCase *calls = tcase_create("calls");
    tcase_add_unchecked_fixture(calls, world_setup, world_teardown);
    tcase_set_timeout(calls, 300);
    tcase_add_loop_test(calls, test_every_io_call_fails_in_every_way, 0, (int)world_scenario_count * WAY_COUNT);
    suite_add_tcase(suite, calls);
    TCase *syncs = tcase_create("syncs");
    tcase_add_unchecked_fixture(syncs, world_setup, world_teardown);
    tcase_set_timeout(syncs, 300);
    tcase_add_loop_test(syncs, test_failed_syncs_lose_nothing_acknowledged_and_keep_nothing_halfway, 0,
                        (int)world_scenario_count * 8);
    suite_add_tcase(suite, syncs);
    TCase *recovery = tcase_create("recovery");
    tcase_set_timeout(recovery, 60);
    tcase_add_test(recovery, test_a_sync_of_names_without_room_is_not_taken_for_one_that_succeeded);
    suite_add_tcase(suite, recovery);
    return check_main(suite);
}
