/* checkpoint.h - checkpoint files: a checksummed dump of the whole index at one LSN (FORMAT.md, "Checkpoint"). */
#ifndef NPK_CORE_CHECKPOINT_H
#define NPK_CORE_CHECKPOINT_H

#include <stdbool.h>
#include "io.h"
#include "kv.h"
#include "npk.h"

/* Write the state of a view (reading begun) as checkpoint/<lsn>.ckpt: temp file, write, sync, rename, sync directory. The log must be
 * synced to lsn before. An existing checkpoint of that LSN is replaced. */
npk_status npk_checkpoint_write(const npk_io *io, npk_file *directory, const uint8_t uuid[16], npk_kv *kv, uint64_t lsn,
                                uint32_t epoch, npk_error *err);

/* Read a checkpoint, checking everything before it is believed (two passes: first the checksums, then the entries). Each entry is put into
 * kv in order; flush (may be NULL) is called after each chunk so that the caller can publish and clear. CORRUPT when it is damaged. */
npk_status npk_checkpoint_load(const npk_io *io, npk_file *directory, const uint8_t uuid[16], uint64_t lsn, npk_kv *kv,
                               npk_status (*flush)(void *context, npk_error *err), void *context, npk_error *err);

/* LSNs of the files in the directory, newest first; at most max. *count is how many there are. Nothing is opened. */
npk_status npk_checkpoint_list(const npk_io *io, npk_file *directory, uint64_t *lsns, size_t max, size_t *count,
                               npk_error *err);

/* Unlink all but the newest keep checkpoints and all temporary files; the directory is synced when something went. */
npk_status npk_checkpoint_trim(const npk_io *io, npk_file *directory, size_t keep, npk_error *err);

#endif
