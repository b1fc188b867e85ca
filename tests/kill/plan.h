/* plan.h - the transactions of the kill test. Transaction j is a function of the seed, j and the row counts before it, so that
 * any process can go on from what the store holds, and the model can follow without being told. */
#ifndef KILL_PLAN_H
#define KILL_PLAN_H

#include <stdint.h>

enum { ARRAY_COUNT = 4, PLAN_OPS_MAX = 6, PLAN_ROWS_MAX = 64 };

extern const uint32_t row_sizes[ARRAY_COUNT];
extern const char *const array_names[ARRAY_COUNT];
extern const char *const array_descrs[ARRAY_COUNT];

typedef enum op_kind {
    OP_SAVE,        /* the whole array: count rows */
    OP_APPEND,      /* count rows */
    OP_REPLACE,     /* count scattered rows, duplicates possible */
    OP_REPLACE_RUN, /* count rows from first on */
    OP_DROP_ROWS,   /* count scattered rows, duplicates possible */
    OP_DROP_OLDEST, /* rows 0 .. count */
    OP_DROP_ARRAY,
    OP_NOTE,        /* the attribute "note" of the store: count bytes */
    OP_UNDONE       /* count rows appended behind a savepoint and rolled back */
} op_kind;

typedef struct op {
    op_kind kind;
    int array;
    uint64_t first, count;
    uint64_t data_seed;
    int64_t rows[PLAN_ROWS_MAX];
} op;

typedef struct plan {
    int count;
    op ops[PLAN_OPS_MAX];
    int64_t rows_after[ARRAY_COUNT]; /* -1: no such array */
} plan;

/* SplitMix64 (Steele, Lea, Flood 2014). */
uint64_t random_next(uint64_t *state);
uint64_t random_below(uint64_t *state, uint64_t limit);
void fill_data(uint64_t data_seed, uint8_t *out, uint64_t size);

/* rows: row counts before the transaction, -1 for no such array. */
void plan_make(uint64_t seed, uint64_t j, const int64_t rows[ARRAY_COUNT], plan *out);

#endif
