/* test_replace.c - replacing many rows: any order, duplicates, block borders, dropped rows, savepoints; against a plain array. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_main.h"
#include "npk.h"
#include "rng.h"

enum { COUNT = 200000, BLOCK = 65536, MOST = 4000 };

static char directory[64];
static npk_error err;
static npk_store *store;
static uint32_t *model;
static uint64_t model_count;
static rng random_numbers;
static uint64_t seed;
static const npk_array_spec spec = {"<u4", 4, 0, NULL, 0};

/* Check notes each assertion in a file, also one that holds: too slow for loops. */
#define EXPECT(holds, ...) \
    do { \
        if (!(holds)) \
            ck_abort_msg(__VA_ARGS__); \
    } while (0)
#define OK(call) EXPECT((call) == NPK_OK, "seed %llu: %s: %s", (unsigned long long)seed, #call, err.message)

static void open_store(void)
{
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE, .no_background = 1, .sync = NPK_SYNC_NEVER,
                           .bulk_size = 256u << 10, .segment_size = 1u << 20};
    OK(npk_store_open(directory, &options, &store, &err));
}

static npk_txn *begin(void)
{
    npk_txn *txn = NULL;
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    return txn;
}

static void commit(npk_txn *txn)
{
    OK(npk_txn_commit(txn, NPK_SYNC_NEVER, NULL, &err));
}

static void setup(void)
{
    (void)snprintf(directory, sizeof directory, "/tmp/npk-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    model = malloc(COUNT * sizeof *model);
    for (uint32_t i = 0; i < COUNT; i++)
        model[i] = i;
    model_count = COUNT;
    open_store();
    npk_txn *txn = begin();
    OK(npk_txn_save(txn, "a", &spec, COUNT, model, &err));
    commit(txn);
}

static void teardown(void)
{
    char command[128];
    free(model);
    OK(npk_store_close(store, &err));
    (void)snprintf(command, sizeof command, "rm -rf %s", directory);
    ck_assert_int_eq(system(command), 0);
}

static void expect_in(const npk_source *source)
{
    npk_array *array = NULL;
    OK(npk_array_open(source, "a", &array, &err));
    ck_assert_uint_eq(npk_array_describe(array)->row_count, model_count);
    uint32_t *out = malloc(COUNT * sizeof *out);
    OK(npk_array_read(array, 0, model_count, out, &err));
    for (uint64_t i = 0; i < model_count; i++)
        EXPECT(out[i] == model[i], "seed %llu: row %llu is %u, not %u", (unsigned long long)seed, (unsigned long long)i,
               (unsigned)out[i], (unsigned)model[i]);
    free(out);
    npk_array_release(array);
}

static void expect_everywhere(void)
{
    expect_in(&(npk_source){.store = store});
    OK(npk_store_verify(store, NULL, NULL, NULL, &err));
    OK(npk_store_close(store, &err));
    open_store();
    expect_in(&(npk_source){.store = store});
}

static void replace(npk_txn *txn, uint64_t count, const int64_t *rows)
{
    uint32_t *data = malloc((count + 1) * sizeof *data);
    for (uint64_t i = 0; i < count; i++)
        model[rows[i]] = data[i] = (uint32_t)rng_next(&random_numbers);
    OK(npk_txn_replace(txn, "a", count, rows, data, &err));
    free(data);
}

static void replace_alone(uint64_t count, const int64_t *rows)
{
    npk_txn *txn = begin();
    replace(txn, count, rows);
    commit(txn);
}

static uint64_t pending(void)
{
    npk_stats stats = {.struct_size = sizeof stats};
    OK(npk_store_stats(store, &stats, &err));
    return stats.pending_row_count;
}

START_TEST(test_of_equal_rows_the_last_wins_in_any_order)
{
    random_numbers = rng_seeded(seed = 1);
    static const int64_t cases[][8] = {
        {5, 5, 5, 5, 5, 5, 5, 5},
        {9, 8, 7, 6, 5, 4, 3, 2},
        {3, 1, 3, 1, 2, 3, 1, 2},
        {BLOCK, BLOCK - 1, BLOCK, BLOCK - 1, 2 * BLOCK, 2 * BLOCK - 1, 0, COUNT - 1},
        {COUNT - 1, 256, 0, 65535, 256, 65536, 131072, 0},
        {0, 1, 2, 3, 4, 5, 6, 6},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        replace_alone(8, cases[i]);
        expect_in(&(npk_source){.store = store});
    }
    int64_t *rows = malloc(MOST * sizeof *rows); /* the same few rows many times over, in both directions across a border */
    for (int i = 0; i < MOST; i++)
        rows[i] = BLOCK - 50 + (i % 2 ? i % 101 : 100 - i % 101);
    replace_alone(MOST, rows);
    free(rows);
    expect_everywhere();
}
END_TEST

static uint64_t logged_by(uint64_t count, const int64_t *rows)
{
    npk_position from, to;
    OK(npk_store_position(store, &from, &err));
    replace_alone(count, rows);
    OK(npk_store_position(store, &to, &err));
    return to.lsn - from.lsn;
}

START_TEST(test_the_order_of_rows_makes_no_difference_to_what_is_logged)
{
    random_numbers = rng_seeded(seed = 5);
    int64_t sorted[999], shuffled[999];
    for (int i = 0; i < 999; i++)
        sorted[i] = shuffled[i] = 200 * i + 7;
    for (int i = 998; i > 0; i--) {
        uint64_t other = rng_below(&random_numbers, (uint64_t)i + 1);
        int64_t row = shuffled[i];
        shuffled[i] = shuffled[other];
        shuffled[other] = row;
    }
    ck_assert_uint_eq(logged_by(999, sorted), logged_by(999, shuffled));
    expect_everywhere();
}
END_TEST

START_TEST(test_a_row_outside_leaves_everything_as_it_was)
{
    random_numbers = rng_seeded(seed = 2);
    int64_t rows[3] = {7, COUNT, 9};
    uint32_t data[3] = {1, 2, 3};
    npk_txn *txn = begin();
    ck_assert_int_eq(npk_txn_replace(txn, "a", 3, rows, data, &err), NPK_RANGE);
    ck_assert_int_eq(err.row, COUNT);
    ck_assert_str_eq(err.array, "a");
    rows[1] = -1;
    ck_assert_int_eq(npk_txn_replace(txn, "a", 3, rows, data, &err), NPK_RANGE);
    ck_assert_int_eq(err.row, -1);
    rows[1] = 8;
    replace(txn, 3, rows);
    commit(txn);
    expect_everywhere();
}
END_TEST

START_TEST(test_a_layout_is_told_as_the_transaction_sees_it)
{
    npk_txn *txn = begin();
    npk_array_spec told;
    uint64_t count = 0, tail[2] = {2, 3};
    OK(npk_txn_describe(txn, "a", &told, &count, &err));
    ck_assert_str_eq(told.descr, "<u4");
    ck_assert(told.row_size == 4 && told.ndim == 0 && !told.zero_dim && count == COUNT);
    npk_array_spec other = {"<f4", 24, 2, tail, 0};
    float data[12] = {0};
    OK(npk_txn_save(txn, "b", &other, 2, data, &err));
    OK(npk_txn_describe(txn, "b", &told, &count, &err));
    ck_assert_str_eq(told.descr, "<f4");
    ck_assert(told.row_size == 24 && told.ndim == 2 && told.shape[0] == 2 && told.shape[1] == 3 && count == 2);
    OK(npk_txn_append(txn, "b", 1, data, &err));
    OK(npk_txn_describe(txn, "b", &told, &count, &err));
    ck_assert_uint_eq(count, 3);
    ck_assert_int_eq(npk_txn_describe(txn, "none", &told, &count, &err), NPK_NOT_FOUND);
    ck_assert_str_eq(err.array, "none");
    npk_txn_abort(txn);
    expect_in(&(npk_source){.store = store});
}
END_TEST

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Rows of one change: anywhere, in a narrow place, or a stretch; sorted or not; with or without duplicates. */
static uint64_t choose_rows(int64_t *rows)
{
    uint64_t count = 1 + rng_below(&random_numbers, rng_below(&random_numbers, 2) ? 40 : MOST);
    uint64_t kind = rng_below(&random_numbers, 4), width = kind == 1 ? least(model_count, 300) : model_count;
    uint64_t low = rng_below(&random_numbers, model_count - width + 1);
    if (kind == 2) { /* around the border of a block */
        width = least(model_count, 2 * MOST);
        low = least(model_count - width, BLOCK - MOST);
    }
    for (uint64_t i = 0; i < count; i++) {
        rows[i] = (int64_t)(low + rng_below(&random_numbers, width));
        if (kind == 3 && i && rows[i - 1] + 1 < (int64_t)model_count && rng_below(&random_numbers, 30))
            rows[i] = rows[i - 1] + 1; /* stretches, long and short */
    }
    return count;
}

static void drop_some(npk_txn *txn)
{
    int64_t rows[3];
    for (int i = 0; i < 3; i++)
        rows[i] = (int64_t)rng_below(&random_numbers, model_count);
    OK(npk_txn_drop_rows(txn, "a", 3, rows, &err));
    char *gone = calloc(1, COUNT);
    for (int i = 0; i < 3; i++)
        gone[rows[i]] = 1;
    uint64_t kept = 0;
    for (uint64_t i = 0; i < model_count; i++)
        if (!gone[i])
            model[kept++] = model[i];
    model_count = kept;
    free(gone);
}

START_TEST(test_random_changes_match_a_plain_array)
{
    seed = getenv("NPK_SEED") ? strtoull(getenv("NPK_SEED"), NULL, 10) : (uint64_t)_i + 1;
    random_numbers = rng_seeded(seed);
    int64_t *rows = malloc(MOST * sizeof *rows);
    uint32_t *before = malloc(COUNT * sizeof *before);
    for (int step = 0; step < 40; step++) {
        npk_txn *txn = begin();
        replace(txn, choose_rows(rows), rows);
        if (rng_below(&random_numbers, 3) == 0)
            drop_some(txn);
        if (rng_below(&random_numbers, 3) == 0) { /* what a rollback undoes, and what comes after it */
            memcpy(before, model, COUNT * sizeof *before);
            uint64_t count_before = model_count, point;
            OK(npk_txn_savepoint(txn, &point, &err));
            replace(txn, choose_rows(rows), rows);
            drop_some(txn);
            replace(txn, choose_rows(rows), rows);
            if (rng_below(&random_numbers, 2))
                expect_in(&(npk_source){.txn = txn});
            OK(npk_txn_rollback_to(txn, point, &err));
            memcpy(model, before, COUNT * sizeof *before);
            model_count = count_before;
            replace(txn, choose_rows(rows), rows);
        }
        if (rng_below(&random_numbers, 4) == 0)
            expect_in(&(npk_source){.txn = txn});
        commit(txn);
        if (rng_below(&random_numbers, 12) == 0)
            OK(npk_store_compact(store, "a", &err));
        if (step % 20 == 10)
            expect_everywhere();
    }
    free(before);
    free(rows);
    expect_everywhere();
}
END_TEST

/* count rows, 50 apart, from first on: no stretches, one set in each block. */
static void spread(int64_t *rows, int count, int64_t first)
{
    for (int i = 0; i < count; i++)
        rows[i] = first + 50 * i;
}

START_TEST(test_sets_that_are_covered_go_whatever_their_size)
{
    random_numbers = rng_seeded(seed = 3);
    int64_t rows[1000];
    ck_assert_uint_eq(pending(), 0);
    for (int i = 0; i < 3; i++) {
        spread(rows, 1000, 0);
        replace_alone(1000, rows);
        ck_assert_uint_eq(pending(), 1000);
    }
    for (int i = 0; i < 10; i++) {
        spread(rows, 10, 100000);
        replace_alone(10, rows);
        ck_assert_uint_eq(pending(), 1010);
    }
    rows[10] = 1; /* covers the ten and is unlike them */
    replace_alone(11, rows);
    ck_assert_uint_eq(pending(), 1012 - 1);
    replace_alone(5, rows); /* covers a part: both stay */
    ck_assert_uint_eq(pending(), 1016);
    expect_everywhere();
}
END_TEST

START_TEST(test_a_set_looks_back_a_bounded_way)
{
    random_numbers = rng_seeded(seed = 4);
    int64_t large[1000], small[10], other[1000];
    spread(large, 1000, 0);
    spread(small, 10, 30);
    replace_alone(1000, large);
    replace_alone(10, small);
    uint64_t sum = 1010;
    for (int i = 0; i < 300; i++) { /* about 6 KiB of log each, all different: 1000 * 4 * 256 bytes are far behind then */
        spread(other, 1000, 1);
        other[999] = 60000 + i;
        replace_alone(1000, other);
        sum += 1000;
        ck_assert_uint_eq(pending(), sum);
    }
    replace_alone(10, small);
    replace_alone(1000, large);
    sum += 1010;
    ck_assert_uint_eq(pending(), sum); /* the first ones are too far back */
    replace_alone(10, small);
    ck_assert_uint_eq(pending(), sum); /* its predecessor went */
    replace_alone(1000, large);
    ck_assert_uint_eq(pending(), sum);
    expect_everywhere();
    ck_assert_uint_eq(pending(), sum); /* the same after a replay */
    OK(npk_store_compact(store, "a", &err));
    ck_assert_uint_eq(pending(), 0);
    expect_everywhere();
}
END_TEST

START_TEST(test_rows_replaced_one_at_a_time_do_not_pile_up)
{
    random_numbers = rng_seeded(seed = 5);
    uint64_t most = 0;
    for (int i = 0; i < 70000; i++) { /* 256 MiB of 4,096 for each entry: 65,536 */
        int64_t row = (int64_t)rng_below(&random_numbers, COUNT);
        replace_alone(1, &row);
        if (i % 1000 == 0)
            most = pending() > most ? pending() : most;
    }
    ck_assert_uint_gt(most, 50000);
    ck_assert_uint_lt(pending(), 10000); /* folded by the writer itself */
    expect_everywhere();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("replace");
    TCase *tcase = tcase_create("rows");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, test_of_equal_rows_the_last_wins_in_any_order);
    tcase_add_test(tcase, test_the_order_of_rows_makes_no_difference_to_what_is_logged);
    tcase_add_test(tcase, test_a_row_outside_leaves_everything_as_it_was);
    tcase_add_test(tcase, test_a_layout_is_told_as_the_transaction_sees_it);
    tcase_add_loop_test(tcase, test_random_changes_match_a_plain_array, 0, 4);
    tcase_add_test(tcase, test_sets_that_are_covered_go_whatever_their_size);
    tcase_add_test(tcase, test_a_set_looks_back_a_bounded_way);
    tcase_add_test(tcase, test_rows_replaced_one_at_a_time_do_not_pile_up);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
