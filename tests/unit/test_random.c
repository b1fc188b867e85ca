/* test_random.c - long random histories on a real directory against the model: transactions, savepoints, rollbacks, folds, checkpoints,
 * reopening, snapshots; every committed state is compared whole. Prints its seed; NPK_SEED repeats one. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_main.h"
#include "model.h"

static char directory[64];
static npk_error err;
static uint64_t seed;

#define OK(call) ck_assert_msg((call) == NPK_OK, "seed %llu: %s: %s", (unsigned long long)seed, #call, err.message)

static npk_store *open_store(int background)
{
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE, .no_background = !background,
                           .segment_size = 128 << 10, .checkpoint_log_size = 256 << 10, .pending_limit = 1 << 20,
                           .bulk_size = 64 << 10, .sync_interval_ms = 5, .sync = NPK_SYNC_INTERVAL};
    npk_store *store = NULL;
    OK(npk_store_open(directory, &options, &store, &err));
    return store;
}

static void expect(const model *m, const npk_source *source, const char *when)
{
    char text[512] = "";
    ck_assert_msg(model_matches(m, source, text, sizeof text), "seed %llu: %s: %s", (unsigned long long)seed, when, text);
}

static void note(void *context, const npk_finding *finding)
{
    (void)context;
    ck_abort_msg("seed %llu: verify: %s: array \"%s\" rows %lld: %s", (unsigned long long)seed, finding->file,
                 finding->array, (long long)finding->first_row, finding->reason);
}

static void one_transaction(npk_store *store, model *m, rng *r)
{
    model now, point;
    model_init(&now);
    model_init(&point);
    model_copy(&now, m);
    npk_txn *txn = NULL;
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    uint64_t steps = 1 + rng_below(r, 6), savepoint = 0;
    bool have_point = false;
    for (uint64_t i = 0; i < steps; i++) {
        if (rng_chance(r, 1, 5)) {
            OK(npk_txn_savepoint(txn, &savepoint, &err));
            model_copy(&point, &now);
            have_point = true;
        }
        OK(model_step(&now, txn, r, true, &err));
        if (have_point && rng_chance(r, 1, 5)) {
            OK(npk_txn_rollback_to(txn, savepoint, &err));
            model_copy(&now, &point);
        }
        if (rng_chance(r, 1, 6)) {
            npk_source own = {.txn = txn};
            expect(&now, &own, "inside a transaction");
        }
    }
    if (rng_chance(r, 1, 6)) {
        npk_txn_abort(txn);
    } else {
        OK(npk_txn_commit(txn, (npk_sync)rng_below(r, 3), NULL, &err));
        model_copy(m, &now);
    }
    model_release(&now);
    model_release(&point);
}

static void history(uint64_t transactions, int background)
{
    rng r = rng_seeded(seed);
    model m, old;
    model_init(&m);
    model_init(&old);
    npk_snapshot *snapshot = NULL;
    (void)snprintf(directory, sizeof directory, "/tmp/npk-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    npk_store *store = open_store(background);
    for (uint64_t i = 0; i < transactions; i++) {
        one_transaction(store, &m, &r);
        npk_source source = {.store = store};
        if (rng_chance(&r, 1, 3))
            expect(&m, &source, "after a transaction");
        switch (rng_below(&r, 40)) {
        case 0: OK(npk_store_compact(store, NULL, &err)); break;
        case 1: OK(npk_store_checkpoint(store, &err)); break;
        case 2: OK(npk_store_flush(store, &err)); break;
        case 3:
            npk_snapshot_release(snapshot);
            OK(npk_snapshot_take(store, &snapshot, &err));
            model_copy(&old, &m);
            break;
        case 4:
            npk_snapshot_release(snapshot);
            snapshot = NULL;
            OK(npk_store_close(store, &err));
            store = open_store(background);
            break;
        case 5: {
            int which = (int)rng_below(&r, MODEL_ARRAYS);
            if (m.arrays[which].name[0])
                OK(npk_store_compact(store, m.arrays[which].name, &err));
            break;
        }
        case 6: OK(npk_store_verify(store, note, NULL, NULL, &err)); break;
        default: break;
        }
        if (snapshot && rng_chance(&r, 1, 10)) {
            npk_source held = {.snapshot = snapshot};
            expect(&old, &held, "in a snapshot");
        }
    }
    npk_source source = {.store = store};
    expect(&m, &source, "at the end");
    npk_snapshot_release(snapshot);
    OK(npk_store_verify(store, note, NULL, NULL, &err));
    OK(npk_store_close(store, &err));
    store = open_store(background);
    source.store = store;
    expect(&m, &source, "after the last reopen");
    OK(npk_store_close(store, &err));
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", directory);
    ck_assert_int_eq(system(command), 0);
    model_release(&m);
    model_release(&old);
}

START_TEST(test_random_histories_match_the_model)
{
    const char *given = getenv("NPK_SEED");
    seed = given ? strtoull(given, NULL, 10) : (uint64_t)_i + 1;
    history(300, _i % 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("random");
    TCase *tcase = tcase_create("histories");
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, test_random_histories_match_the_model, 0, 12);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
