/* salvage_state.h - the state of a damaged store: what checkpoints and log still say, past what they do not say any more; and older places of rows
 * whose newest place is gone. */
#ifndef NPK_CORE_SALVAGE_STATE_H
#define NPK_CORE_SALVAGE_STATE_H

#include "catalog.h"
#include "kv.h"
#include "npk.h"
#include "wal.h"

#define NPK_SALVAGE_CHECKPOINTS 16

typedef struct npk_salvage_source {
    const npk_io *io;
    npk_file *checkpoint_directory; /* NULL: missing */
    npk_wal *wal;                   /* opened for salvage; NULL: missing */
    uint8_t uuid[16];
    uint64_t until_lsn, until_us;
    void (*loss)(void *context, const npk_loss *loss);
    void *context;
} npk_salvage_source;

/* Built by npk_salvage_state_build, given back by release (also after an error). */
typedef struct npk_salvage_state {
    npk_kv *kv;                   /* the state; memory only */
    npk_position position;
    uint64_t base_lsn;            /* of its checkpoint; 0: the beginning of the log */
    uint64_t lsns[NPK_SALVAGE_CHECKPOINTS]; /* checkpoints that may serve older places, newest first */
    size_t checkpoint_count;
    uint64_t oldest_lsn;          /* where the log that is there begins; 0: no segment */
    uint64_t gap_count, lost_count; /* of the log behind base_lsn: gaps, and transactions left out */
} npk_salvage_state;

/* RANGE: until lies before everything that is there. NO_MEMORY, IO, FORMAT. */
npk_status npk_salvage_state_build(const npk_salvage_source *source, npk_salvage_state *state, npk_error *err);
void npk_salvage_state_release(npk_salvage_state *state);

/* The same rows at older places: folds are left out, so that each row lies where its last change put it, or where a checkpoint knew it. which = 0, 1,
 * ..: *older = NULL when there is no such view or it proves nothing; *more = false behind the last. Arrays have the ids and row numbers of state. */
npk_status npk_salvage_older_places(const npk_salvage_source *source, const npk_salvage_state *state, size_t which, npk_kv **older,
                                    bool *more, npk_error *err);

#endif
