/* reserve.h - the file "reserve": preallocated bytes that are given up on a full disk, so that drop, checkpoint and reclaim get through. */
#ifndef NPK_CORE_RESERVE_H
#define NPK_CORE_RESERVE_H

#include "core.h"

/* Create it when it is not there and the disk has room. Best effort: a store without a reserve works. */
void npk_reserve_ensure(npk_core *core);
/* Unlink it. From then on no rows are added (npk_reserve_require) until it could be made again, or the next append would eat what an
 * open, a drop and a checkpoint need. */
void npk_reserve_release(npk_core *core);
/* Before rows are added: NO_SPACE while the reserve is given up and cannot be made again. */
npk_status npk_reserve_require(npk_core *core, npk_error *err);

#endif
