/* reserve.h - the file "reserve": preallocated bytes that are given up on a full disk, so that drop, checkpoint and reclaim get through. */
#ifndef NPK_CORE_RESERVE_H
#define NPK_CORE_RESERVE_H

#include "core.h"

/* Create it when it is not there and the disk has room. Best effort: a store without a reserve works. */
void npk_reserve_ensure(npk_core *core);
/* Unlink it. */
void npk_reserve_release(npk_core *core);

#endif
