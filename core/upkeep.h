/* upkeep.h - limits that hold without the background thread: the writer itself folds and checkpoints before it takes the writer lock. */
#ifndef NPK_CORE_UPKEEP_H
#define NPK_CORE_UPKEEP_H

#include "core.h"

/* Bytes that one pending entry of the row index stands for when it is decided whether to fold: with one row to an entry the entries are what
 * costs, in memory and in time. The usual limit of 256 MiB is thus one of 65,536 entries as well. */
#define NPK_PENDING_ENTRY_WEIGHT 4096u

/* Log since the last checkpoint beyond twice checkpoint_log_size, or pending bytes beyond pending_limit: do the worker's work now, in this
 * thread. Cheap when nothing is due. On a full disk it gives the reserve up and tries again, then reports NO_SPACE. */
npk_status npk_upkeep_enforce(npk_core *core, npk_error *err);
/* The same with the worker's thresholds, one try at the locks; reason says what was done or is waited for. */
npk_status npk_upkeep_work(npk_core *core, char *reason, size_t reason_size, npk_error *err);
/* The last process closes (GATE and OPEN exclusive): fold what the worker would, so that processes that live shortly do not leave it to each
 * other for ever. A full disk is no failure. */
npk_status npk_upkeep_close(npk_core *core, npk_error *err);

#endif
