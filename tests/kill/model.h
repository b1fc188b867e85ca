/* model.h - what the store must hold after transaction j, computed without it. */
#ifndef KILL_MODEL_H
#define KILL_MODEL_H

#include "plan.h"

typedef struct model {
    uint64_t seed, j;
    int64_t rows[ARRAY_COUNT]; /* -1: no such array */
    uint8_t *data[ARRAY_COUNT];
    uint8_t note[4096];
    int64_t note_size; /* -1: none */
} model;

void model_init(model *it, uint64_t seed); /* an empty store: j = 0 */
void model_release(model *it);
void model_advance(model *it, uint64_t j); /* j at least it->j */

#endif
