/* verify.h - comparing everything a state refers to with its checksums, and saying which rows of which arrays are hit. */
#ifndef NPK_CORE_VERIFY_H
#define NPK_CORE_VERIFY_H

#include "array.h"
#include "npk.h"

typedef struct npk_verify {
    npk_kv *kv;                     /* a view whose reading has begun, or a memory-only one */
    npk_array_sources sources;
    uint64_t until_lsn;             /* the log is checked to here */
    void (*report)(void *context, const npk_finding *finding);
    int (*progress)(void *context, uint64_t done_size, uint64_t total_size);
    void *context;
    /* filled */
    uint64_t finding_count, done_size, total_size;
} npk_verify;

/* Check row index, column files and, with log = true, every record of the log. Findings go to report and are counted; the status is about being
 * able to look: IO, NO_MEMORY, INTERRUPTED. */
npk_status npk_verify_run(npk_verify *verify, bool log, npk_error *err);

/* The quick part: row index, and that every file is there with the right header and size. */
npk_status npk_verify_files(npk_verify *verify, npk_error *err);

#endif
