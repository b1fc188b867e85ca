/* model.c - what the store must hold after transaction j, computed without it. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void model_init(model *it, uint64_t seed)
{
    memset(it, 0, sizeof *it);
    it->seed = seed;
    it->note_size = -1;
    for (int i = 0; i < ARRAY_COUNT; i++)
        it->rows[i] = -1;
}

void model_release(model *it)
{
    for (int i = 0; i < ARRAY_COUNT; i++)
        free(it->data[i]);
}

static void resize(model *it, int array, int64_t rows)
{
    size_t size = rows > 0 ? (size_t)rows * row_sizes[array] : 1;
    uint8_t *data = realloc(it->data[array], size);
    if (!data) {
        fprintf(stderr, "out of memory\n");
        exit(2);
    }
    it->data[array] = data;
    it->rows[array] = rows;
}

static void drop_rows(model *it, const op *step)
{
    size_t row_size = row_sizes[step->array];
    int64_t kept = 0;
    for (int64_t row = 0; row < it->rows[step->array]; row++) {
        int gone = 0;
        for (uint64_t i = 0; i < step->count && !gone; i++)
            gone = step->rows[i] == row;
        if (!gone) {
            memmove(it->data[step->array] + (size_t)kept * row_size, it->data[step->array] + (size_t)row * row_size,
                    row_size);
            kept++;
        }
    }
    it->rows[step->array] = kept;
}

static void apply(model *it, const op *step)
{
    size_t row_size = row_sizes[step->array];
    int64_t rows = it->rows[step->array];
    switch (step->kind) {
    case OP_SAVE:
        resize(it, step->array, (int64_t)step->count);
        fill_data(step->data_seed, it->data[step->array], step->count * row_size);
        break;
    case OP_APPEND:
        resize(it, step->array, rows + (int64_t)step->count);
        fill_data(step->data_seed, it->data[step->array] + (size_t)rows * row_size, step->count * row_size);
        break;
    case OP_REPLACE: {
        uint8_t *rows_data = malloc(step->count * row_size);
        if (!rows_data)
            exit(2);
        fill_data(step->data_seed, rows_data, step->count * row_size);
        for (uint64_t i = 0; i < step->count; i++)
            memcpy(it->data[step->array] + (size_t)step->rows[i] * row_size, rows_data + i * row_size, row_size);
        free(rows_data);
        break;
    }
    case OP_REPLACE_RUN:
        fill_data(step->data_seed, it->data[step->array] + step->first * row_size, step->count * row_size);
        break;
    case OP_DROP_ROWS:
        drop_rows(it, step);
        break;
    case OP_DROP_OLDEST:
        memmove(it->data[step->array], it->data[step->array] + step->count * row_size,
                ((size_t)rows - step->count) * row_size);
        it->rows[step->array] = rows - (int64_t)step->count;
        break;
    case OP_DROP_ARRAY:
        it->rows[step->array] = -1;
        break;
    case OP_NOTE:
        fill_data(step->data_seed, it->note, step->count);
        it->note_size = (int64_t)step->count;
        break;
    case OP_UNDONE:
        break;
    }
}

void model_advance(model *it, uint64_t j)
{
    while (it->j < j) {
        plan next;
        plan_make(it->seed, ++it->j, it->rows, &next);
        for (int i = 0; i < next.count; i++)
            apply(it, &next.ops[i]);
    }
}
