/* region.h - rows as memory: mapped files, gathered copies, and whole loads in recycled memory. */
#ifndef NPK_CORE_REGION_H
#define NPK_CORE_REGION_H

#include "io.h"
#include "npk.h"

/* Unmap recycled blocks that were released more than NPK_REGION_IDLE_US before now_us (npk_io monotonic_us; UINT64_MAX: all of them). Loads
 * and releases do it by themselves; a background thread calls it so that memory goes back when nobody loads any more. */
#define NPK_REGION_IDLE_US 1500000u
void npk_region_trim(uint64_t now_us);

/* Blocks and bytes that wait for the next load. */
void npk_region_idle(uint64_t *block_count, uint64_t *size);

#endif
