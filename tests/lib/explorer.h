/* explorer.h - power cuts and process deaths at every step of the real library, in every choice of what survives.
 *
 * A scenario drives a store on a crashable disk (memory_io.h) through the verbs below, which keep models (model.h) along: models[k] is the content
 * after transaction k. While it records, each call that changes the disk gives a point: a snapshot of the disk together with
 *
 *   durable       transactions that must survive a power cut (acknowledged at level commit, or covered by a flush, checkpoint, close)
 *   acknowledged  transactions that were committed at any level: a process crash must keep them
 *   started       transactions whose commit was asked for: none beyond may appear
 *   created       the store was opened once: from then on it must be there
 *
 * explorer_explore walks over the states that each point can leave, and asks the oracle (explorer_check.c) about each:
 *
 *  1. it opens; before `created` "no store" is fine as well, and then creating it is;
 *  2. its content is models[j] for one j, durable (acknowledged, if only the process died) <= j <= started;
 *  3. verify finds nothing;
 *  4. one more transaction goes through; after a compaction columns/ holds the files the store knows, at most dead ones (linked unsynced) missing;
 *  5. closed and reopened, it holds models[j] and the added transaction;
 *  6. had the process died, or the power gone, right after 1, the next recovery finds models[j] again;
 *  7. after 5 the newest of its checkpoints can be lost, and nothing is missing.
 *
 * Depth 2: while 1, 4 and 5 run on a state, its disk is recorded in turn, and the states of those points are asked the same. */
#ifndef NPK_TESTS_EXPLORER_H
#define NPK_TESTS_EXPLORER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory_io.h"
#include "model.h"
#include "npk.h"

#define EXPLORER_CASE_MAX 256

typedef struct explorer explorer;

typedef struct explorer_scenario {
    const char *name;
    uint64_t segment_size, bulk_size;         /* 0: 64 KiB; never */
    uint64_t checkpoint_log_size, pending_limit; /* 0: those of the library */
    npk_sync sync;   /* of the store */
    bool has_faults; /* explorer_fault is used */
    void (*run)(explorer *x);
} explorer_scenario;

typedef struct explorer_settings {
    uint64_t seed;
    bool names_follow_sync; /* the model of fsync: ext4-like or strict */
    uint64_t state_count;   /* distinct states to check; 0: all there are */
    uint64_t nested_count;  /* states inside recoveries to check */
    const char *run_path, *state_path; /* existing directories for the real index; emptied */
    char *now;              /* EXPLORER_CASE_MAX bytes that always name the case being checked; may be NULL */
} explorer_settings;

typedef struct explorer_totals {
    uint64_t points;
    uint64_t tried;      /* states made */
    uint64_t distinct;   /* states asked: tree and bounds were new */
    uint64_t nested_points, nested;
    uint64_t violations;
} explorer_totals;

/* Run the scenario, recording. Ends the test when the library fails without any crash. */
explorer *explorer_run(const explorer_scenario *scenario, const explorer_settings *settings);
void explorer_release(explorer *x);
/* Visit states; violations are printed to stderr with the case that replays them. */
void explorer_explore(explorer *x, explorer_totals *totals);
/* Check the one state that a case names behind scenario, seed and fsync model: "point/selection[/point/selection]". false: it violates, or
 * there is no such state. */
bool explorer_replay(explorer *x, const char *place);

/* ---- faults ------------------------------------------------------------------------------------------------------------ */

/* From the next call on, the index-th of these kinds of call fails (fault_io.h), once or with all that follow. Until explorer_settle, commits,
 * flushes, checkpoints and compactions may fail. A transaction whose commit failed must not be there, unless the store says that it is poisoned: then
 * it may be until the next transaction begins. */
void explorer_fault(explorer *x, uint32_t kinds, uint64_t index, bool forever, int sys_errno,
                    memory_io_sync_failure failure);
/* No fault from here on; a transaction goes through. How many calls failed. */
uint64_t explorer_settle(explorer *x);

/* ---- verbs of scenarios ---------------------------------------------------------------------------------------------- */

void explorer_record(explorer *x, bool on); /* off at the start */
rng *explorer_random(explorer *x);
const model *explorer_now(const explorer *x); /* committed content, with the open transaction's changes */
npk_store *explorer_store(const explorer *x);

void explorer_open(explorer *x);
void explorer_close(explorer *x);
void explorer_flush(explorer *x);
void explorer_checkpoint(explorer *x);
void explorer_compact(explorer *x, int array); /* below 0: all */
/* The disk loses what the selection loses, an open transaction goes; the library starts anew. The content found must be allowed. */
void explorer_crash(explorer *x, const memory_io_selection *selection);

void explorer_begin(explorer *x);
void explorer_commit(explorer *x, npk_sync sync);
void explorer_abort(explorer *x);
uint64_t explorer_savepoint(explorer *x);
void explorer_rollback(explorer *x, uint64_t savepoint); /* to the newest one taken */

void explorer_save(explorer *x, int array, uint64_t row_size, uint64_t row_count);
void explorer_append(explorer *x, int array, uint64_t row_count);
void explorer_replace(explorer *x, int array, uint64_t count); /* scattered, random rows */
void explorer_replace_run(explorer *x, int array, uint64_t first, uint64_t count);
void explorer_drop_rows(explorer *x, int array, uint64_t first, uint64_t count);
void explorer_drop_array(explorer *x, int array);
void explorer_clone(explorer *x, int from, int to);
void explorer_rename(explorer *x, int array, const char *name);
void explorer_reset(explorer *x);
void explorer_attr(explorer *x, int key, int64_t value); /* below 0: deleted */
void explorer_step(explorer *x); /* model_step */

#endif
