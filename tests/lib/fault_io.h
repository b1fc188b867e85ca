/* fault_io.h - wraps another implementation of the system table and makes chosen calls fail.
 *
 * For k = 0, 1, 2, ...: plan a fault at the k-th matching call, run the scenario, look at the outcome, until
 * fault_io_fired says that nothing fired any more.
 *
 * Open files pass through untouched, so one opened through the wrapped table can be used with the wrapper and the other way.
 */
#ifndef NPK_TESTS_FAULT_IO_H
#define NPK_TESTS_FAULT_IO_H

#include <stdbool.h>
#include <stdint.h>

#include "io.h"
#include "io_calls.h"
#include "memory_io.h"

typedef struct fault_io fault_io;

typedef enum fault_effect {
    FAULT_ERRNO,           /* the call does nothing and returns sys_errno */
    FAULT_SHORT,           /* read and write do half of what was asked (at least one byte); other calls pass */
    FAULT_SHORT_THEN_ERRNO /* half, and the next matching call fails: a disk that fills up. Later ones as forever says */
} fault_effect;

typedef struct fault_plan {
    uint32_t kinds;  /* IO_CALL_BIT(WRITE) | ...; 0: every kind that can fail */
    uint64_t index;  /* matching calls that pass first */
    bool forever;    /* also every matching call after it. EINTR then hits every other call, or nothing would ever end */
    fault_effect effect;
    int sys_errno;
    /* What a failing sync does to the pages, when the wrapped table is that of memory. NULL: the sync is just not done. */
    memory_io *memory;
    memory_io_sync_failure sync_failure;
} fault_plan;

fault_io *fault_io_create(const npk_io *inner);
void fault_io_destroy(fault_io *fault); /* accepts NULL; the wrapped table stays */
const npk_io *fault_io_table(fault_io *fault);
/* Start counting from 0; plan NULL: only count. */
void fault_io_plan(fault_io *fault, const fault_plan *plan);
uint64_t fault_io_fired(fault_io *fault);   /* calls changed since the plan */
uint64_t fault_io_matched(fault_io *fault); /* calls the plan could have hit since then */
uint64_t fault_io_count(fault_io *fault, io_call_kind kind); /* calls since the plan */
/* Called for each fault just before it happens, for messages; NULL: none. */
void fault_io_set_hook(fault_io *fault, void (*hook)(void *context, io_call_kind kind, uint64_t index), void *context);

#endif
