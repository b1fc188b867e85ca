/* row_index.h - changing the tables map, rows and places: which slots an array's rows are, and where each slot's bytes lie.
 *
 * Invariants, checked by npk_row_index_check:
 *  1. the runs of an array do not overlap;
 *  2. map runs are sorted by row without gaps, their slots grow, and every live slot lies in one run (arrays whose row size is 0 have none);
 *  3. places counts the entries of rows for each segment and file, and dead LSN is 0 exactly when the count is not 0. */
#ifndef NPK_CORE_ROW_INDEX_H
#define NPK_CORE_ROW_INDEX_H

#include "catalog.h"
#include "kv.h"

/* A change of one array at log position lsn. pending_delta collects how the number of pending rows changed. */
typedef struct npk_row_change {
    npk_kv *kv;
    uint64_t array;
    uint64_t lsn;
    uint64_t row_size; /* bytes */
    int64_t pending_delta;
} npk_row_change;

/* Put a run: it wins over older runs and loses to newer ones, slot by slot. fold: only where a run is already (slots that were
 * dropped meanwhile stay gone). Packed sets it makes pointless go. */
npk_status npk_row_index_put_run(npk_row_change *change, const npk_run *run, bool fold, npk_error *err);
/* The same for slots that were never given out before, as those of an append: nothing can lie there. */
npk_status npk_row_index_put_new_run(npk_row_change *change, const npk_run *run, npk_error *err);
/* Put a packed set. Older sets whose slots it all holds go (as far back as row_index.c says); with fold, all sets of the block up to
 * its LSN. */
npk_status npk_row_index_put_set(npk_row_change *change, const npk_set *set, bool fold, npk_error *err);
/* Slots first_slot .. + count become the last rows. */
npk_status npk_row_index_map_append(npk_row_change *change, uint64_t row_count, uint64_t first_slot, uint64_t count,
                                    npk_error *err);
/* Remove logical rows: ranges of (first row u64, count u64), little-endian, ascending, disjoint. Runs and sets without a live slot go.
 * Returns how many rows went. */
npk_status npk_row_index_drop_rows(npk_row_change *change, const uint8_t *ranges, uint32_t range_count,
                                   uint64_t *dropped_count, npk_error *err);
/* Forget everything about the rows of the array. */
npk_status npk_row_index_drop_array(npk_row_change *change, npk_error *err);
/* Give the array target the same rows. */
npk_status npk_row_index_clone(npk_row_change *change, uint64_t target, npk_error *err);

/* The map runs of an array, sorted. *runs is owned by the caller (npk_free). */
npk_status npk_row_index_load_map(npk_kv *kv, uint64_t array, npk_map_run **runs, size_t *count, npk_error *err);

/* Check the invariants of one array; CORRUPT says which is broken. */
npk_status npk_row_index_check(npk_kv *kv, uint64_t array, uint64_t row_count, uint64_t row_size, npk_error *err);

#endif
