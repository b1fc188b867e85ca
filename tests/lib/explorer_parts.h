/* explorer_parts.h - what the files of the explorer share; internal to tests/lib. */
#ifndef NPK_TESTS_EXPLORER_PARTS_H
#define NPK_TESTS_EXPLORER_PARTS_H

#include "explorer.h"
#include "fault_io.h"

#define EXPLORER_ROOT "store" /* spelling of the path on every disk */
#define EXPLORER_SAVEPOINTS 8

typedef struct explorer_point {
    memory_snapshot *snapshot;
    unsigned durable, acknowledged, started;
    bool created;
    char call[80]; /* "after write 4096+512" */
} explorer_point;

/* A run as the oracle needs it: the points of a scenario, or of the recovery of one state. */
typedef struct explorer_history {
    model *models; /* 0 .. model_count - 1 */
    size_t model_count, model_capacity;
    explorer_point *points;
    size_t point_count, point_capacity;
    /* bounds of the next point */
    unsigned durable, acknowledged, started;
    bool created;
} explorer_history;

void explorer_history_init(explorer_history *history);
void explorer_history_release(explorer_history *history);
void explorer_history_push(explorer_history *history, const model *m); /* a copy becomes the newest model */
/* Take a snapshot unless it would repeat the newest point. call NULL: at the end. */
void explorer_history_note(explorer_history *history, memory_io *disk, const memory_io_call *call);

struct explorer {
    const explorer_scenario *scenario;
    explorer_settings settings;
    explorer_history history;
    memory_io *disk;
    fault_io *fault; /* NULL: the disk itself is used */
    npk_store *store;
    npk_txn *txn;
    bool may_fail;   /* between fault and settle */
    size_t fault_point;  /* points from here on were made while faults happen, or after */
    uint64_t lost_count; /* of control, as far as it was dealt with */
    bool is_broken;  /* an operation of txn failed: it can only be aborted */
    model now;
    model points[EXPLORER_SAVEPOINTS]; /* by savepoint */
    rng random;
    bool recording;
};

void explorer_options(const explorer *x, const memory_io *disk, npk_mode mode, npk_options *options);
void explorer_fail(const explorer *x, const char *what, const npk_error *err); /* ends the test */
/* Save a fresh array, or append to the first one when there is no number left. On the model too. */
npk_status explorer_grow(model *m, npk_txn *txn, npk_error *err);

/* Ask the oracle about the state of point and selection. nested: record the recovery into it (initialised, empty); may be NULL. false: text says
 * why. */
bool explorer_check(explorer *x, const explorer_history *history, const explorer_point *point,
                    const memory_io_selection *selection, explorer_history *nested, char *text, size_t text_size);
/* Highest j in low .. high whose model the source holds, or -1: text says how the highest differs. */
int explorer_match(const explorer_history *history, unsigned low, unsigned high, npk_store *store, char *text,
                   size_t text_size);

#endif
