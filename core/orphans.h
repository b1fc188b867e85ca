/* orphans.h - column files that nothing refers to: left by a writer or fold that died, or unlinked too late. */
#ifndef NPK_CORE_ORPHANS_H
#define NPK_CORE_ORPHANS_H

#include "core.h"

/* Unlink every file in columns/ that the published state does not know, temporary ones included; names that are not ours stay. Only with OPEN
 * exclusive, or with COMPACTOR and WRITER held after the writer's tail repair: then no transaction or fold is filling a file. removed may be NULL. */
npk_status npk_orphans_remove(npk_core *core, uint64_t *removed, npk_error *err);

#endif
