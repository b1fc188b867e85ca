/* model.h - what a store must contain, kept in plain memory: the oracle of the random, crash, fault and kill tests.
 *
 * A model is a value: copy it before a transaction, change the copy along with the transaction, keep the one whose transaction
 * was committed. */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

#include "npk.h"
#include "rng.h"

#define MODEL_ARRAYS 8
#define MODEL_ATTRS 8

typedef struct model_array {
    char name[32];          /* "": no such array */
    uint64_t row_size, row_count;
    uint8_t *rows;          /* owned */
} model_array;

typedef struct model {
    model_array arrays[MODEL_ARRAYS];
    int64_t attrs[MODEL_ATTRS]; /* store attribute "k<i>"; -1: none */
} model;

void model_init(model *m);
void model_release(model *m);
void model_copy(model *to, const model *from); /* to is released first; both initialised */
uint64_t model_hash(const model *m);

/* Do one random operation in the transaction and on the model. The row bytes are made from the generator. Returns the status of the store's call:
 * on OK both changed, otherwise neither. big: sometimes rows enough for the bulk path. */
npk_status model_step(model *m, npk_txn *txn, rng *r, bool big, npk_error *err);

/* Compare all arrays, all rows and all attributes, by whole reads and by gathers. false: text says what differs. */
bool model_matches(const model *m, const npk_source *source, char *text, size_t text_size);

#endif
