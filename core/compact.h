/* compact.h - folding: rows move from the log, packed sets and small files into new column files. Contents never change by it.
 *
 * Steps of a fold, which needs COMPACTOR but not the writer lock until step 4:
 *  1. look at the array as it is published at some LSN S;
 *  2. read the rows chosen, checking their checksums: damage is never folded into a clean file;
 *  3. write them into one new column file, durable with its name;
 *  4. under the writer lock log FILE and LINK records with the LSN S - 1, commit, publish. Rows replaced since S have higher LSNs and win;
 *     rows dropped since stay dropped; an array dropped since: the file is removed again. */
#ifndef NPK_CORE_COMPACT_H
#define NPK_CORE_COMPACT_H

#include "core.h"

typedef enum npk_fold_extent {
    NPK_FOLD_CHEAP, /* what is pending, and small files behind it: cost follows the pending bytes */
    NPK_FOLD_WHOLE  /* the whole array into one file; slots are renumbered when rows were dropped */
} npk_fold_extent;

/* Fold one array. Nothing to do is no error. COMPACTOR held. NOT_FOUND: no such array. */
npk_status npk_compact_array(npk_core *core, const char *name, npk_fold_extent extent, npk_error *err);
/* Fold every array that has something pending (or, WHOLE, is not one piece already). COMPACTOR held. */
npk_status npk_compact_all(npk_core *core, npk_fold_extent extent, npk_error *err);

/* Pending bytes and rows of all arrays, as published; *entry_count, unless NULL: in how many entries of the row index. */
npk_status npk_compact_pending(npk_core *core, uint64_t *size, uint64_t *row_count, uint64_t *entry_count, npk_error *err);

#endif
