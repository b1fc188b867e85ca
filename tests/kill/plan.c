/* plan.c - the transactions of the kill test. */
#include "plan.h"

#include <string.h>

/* Rows smaller than, about and above a page, and one that divides nothing. */
const uint32_t row_sizes[ARRAY_COUNT] = {8, 100, 4096, 24};
const char *const array_names[ARRAY_COUNT] = {"counts", "odd", "pages", "vectors"};
const char *const array_descrs[ARRAY_COUNT] = {"<f8", "|V100", "|V4096", "|V24"};

enum { ARRAY_SIZE_MAX = 512 * 1024 }; /* keeps a full comparison in the milliseconds */

uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t random_below(uint64_t *state, uint64_t limit)
{
    return limit ? random_next(state) % limit : 0;
}

void fill_data(uint64_t data_seed, uint8_t *out, uint64_t size)
{
    uint64_t state = data_seed;
    /* Half of the data compresses well: both forms of a record get written. */
    int dull = (int)(data_seed & 1);
    uint64_t word = random_next(&state);
    for (uint64_t at = 0; at < size; at += 8) {
        if (!dull || (at & 1023) == 0)
            word = random_next(&state);
        memcpy(out + at, &word, size - at < 8 ? size - at : 8);
    }
}

static uint64_t some_rows(uint64_t *state, uint32_t row_size)
{
    /* Mostly small; one in sixteen is large enough to go straight into a column file. */
    if (random_below(state, 16) == 0)
        return (96u * 1024) / row_size + random_below(state, (96u * 1024) / row_size + 1);
    return 1 + random_below(state, 24);
}

static void scatter(uint64_t *state, op *it, uint64_t limit)
{
    it->count = 1 + random_below(state, PLAN_ROWS_MAX);
    for (uint64_t i = 0; i < it->count; i++)
        it->rows[i] = (int64_t)random_below(state, limit);
}

static void make_op(uint64_t *state, int64_t rows[ARRAY_COUNT], op *it)
{
    memset(it, 0, sizeof *it);
    it->array = (int)random_below(state, ARRAY_COUNT);
    it->data_seed = random_next(state);
    uint32_t row_size = row_sizes[it->array];
    int64_t *have = &rows[it->array];
    uint64_t choice = random_below(state, 32);

    if (*have < 0) {
        it->kind = OP_SAVE;
        it->count = random_below(state, 4) ? some_rows(state, row_size) : 0;
        *have = (int64_t)it->count;
    } else if ((uint64_t)*have * row_size > ARRAY_SIZE_MAX) {
        it->kind = OP_DROP_OLDEST;
        it->count = (uint64_t)*have / 2;
        *have -= (int64_t)it->count;
    } else if (choice < 14 || *have == 0) {
        it->kind = OP_APPEND;
        it->count = some_rows(state, row_size);
        *have += (int64_t)it->count;
    } else if (choice < 19) {
        it->kind = OP_REPLACE;
        scatter(state, it, (uint64_t)*have);
    } else if (choice < 22) {
        it->kind = OP_REPLACE_RUN;
        it->first = random_below(state, (uint64_t)*have);
        it->count = 1 + random_below(state, (uint64_t)*have - it->first);
    } else if (choice < 25) {
        it->kind = OP_DROP_ROWS;
        scatter(state, it, (uint64_t)*have);
        uint64_t distinct = 0;
        for (uint64_t i = 0; i < it->count; i++) {
            uint64_t k = 0;
            while (k < i && it->rows[k] != it->rows[i])
                k++;
            distinct += k == i;
        }
        *have -= (int64_t)distinct;
    } else if (choice < 27) {
        it->kind = OP_DROP_OLDEST;
        it->count = 1 + random_below(state, (uint64_t)*have);
        *have -= (int64_t)it->count;
    } else if (choice == 27) {
        it->kind = OP_DROP_ARRAY;
        *have = -1;
    } else if (choice == 28) {
        it->kind = OP_SAVE;
        it->count = some_rows(state, row_size);
        *have = (int64_t)it->count;
    } else if (choice == 29) {
        it->kind = OP_NOTE;
        it->count = random_below(state, 3000);
    } else {
        it->kind = OP_UNDONE;
        it->count = some_rows(state, row_size);
    }
}

void plan_make(uint64_t seed, uint64_t j, const int64_t rows[ARRAY_COUNT], plan *out)
{
    uint64_t state = seed ^ (j * UINT64_C(0xd1342543de82ef95));
    memcpy(out->rows_after, rows, sizeof out->rows_after);
    out->count = 1 + (int)random_below(&state, PLAN_OPS_MAX);
    for (int i = 0; i < out->count; i++)
        make_op(&state, out->rows_after, &out->ops[i]);
}
