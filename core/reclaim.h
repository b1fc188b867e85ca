/* reclaim.h - keeping recovery short and the disk small: checkpoints, and removing what no checkpoint, no pin and no row needs. */
#ifndef NPK_CORE_RECLAIM_H
#define NPK_CORE_RECLAIM_H

#include "core.h"

/* End of the published state. */
npk_status npk_reclaim_position(npk_core *core, npk_position *position, npk_error *err);
/* Learn which checkpoints are there (at open). Best effort. */
void npk_reclaim_note_checkpoints(npk_core *core);

/* Take COMPACTOR, for this process and store. BUSY when somebody compacts for longer than wait says, with NULL at once; INTERRUPTED. */
npk_status npk_compactor_acquire(npk_core *core, const npk_wait *wait, npk_error *err);
/* How long and how a call on this handle waits. */
npk_wait npk_compactor_wait(const npk_store *store);
void npk_compactor_release(npk_core *core);

/* Make the published state durable and dump it. Keeps the newest two. Takes COMPACTOR unless the caller is the last process (GATE and OPEN
 * exclusive) or holds it: these functions do not take it themselves. */
npk_status npk_reclaim_checkpoint(npk_core *core, npk_error *err);
/* Unlink column files and segments whose last reference went at an LSN below every kept checkpoint and every pin. hard: the disk is
 * full: one checkpoint is enough. COMPACTOR held (or the last process). */
npk_status npk_reclaim_run(npk_core *core, bool hard, npk_error *err);

#endif
