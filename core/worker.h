/* worker.h - the background thread of a process that may write: syncs at level interval, prepares segments, folds, checkpoints, reclaims.
 * Stopping it at any point loses nothing; upkeep.h says what happens without it. */
#ifndef NPK_CORE_WORKER_H
#define NPK_CORE_WORKER_H

#include "core.h"

/* Start it, unless it runs, or the settings of the handle that comes or a read-only store say no. A system without threads left works
 * without it. */
void npk_worker_start(npk_core *core, const npk_settings *settings);
bool npk_worker_is_running(npk_core *core);
/* Stop and join. */
void npk_worker_stop(npk_core *core);
/* What it did last or waits for; text of size bytes. */
void npk_worker_explain(npk_core *core, char *text, size_t size);

#endif
