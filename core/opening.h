/* opening.h - opening, creating and closing a store: the GATE and OPEN protocol, and the registry of open stores of this process.
 *
 * The index is valid only while processes have held LOCK:OPEN without a gap since it was built. Opening, and closing as the last, hold GATE
 * exclusive throughout. Steps of an open, referred to by number in the code:
 *  1. open the directory; share the core if this process has it open; wait while another thread opens or closes it;
 *  2. take GATE;
 *  3. try OPEN exclusive. Got it: nobody else has the store open;
 *  4.   create the store if FORMAT is missing and it may be; throw away index, make control anew, build the index (recover.h), remove orphans;
 *  5.   convert OPEN to shared;
 *  6. not got it: take OPEN shared and trust the index that control marks complete;
 *  7. give GATE up.
 * A close takes GATE, tries OPEN exclusive, and if it is the last, folds, writes watermark and checkpoint, best effort, and reports failures. */
#ifndef NPK_CORE_OPENING_H
#define NPK_CORE_OPENING_H

#include "core.h"

/* Get the core of the store at path, opening it if need be. Counts one more user. */
npk_status npk_opening_open(const npk_io *io, const char *path, const npk_settings *settings, npk_core **core,
                            npk_error *err);
/* One more user (a snapshot), one user less; the last one closes. */
void npk_core_retain(npk_core *core);
npk_status npk_core_release(npk_core *core, npk_error *err);

/* Throw away the indexes and the shared page in index/; files of others stay. OPEN must be held exclusive: nobody uses it. */
npk_status npk_index_directory_clear(const npk_io *io, npk_file *directory, npk_error *err);

/* Whose store this is: what FORMAT says, or, when it is missing or damaged, what the segment headers in wal (NULL: missing) say; *from_log tells
 * which. The error is that of FORMAT when neither is readable. */
npk_status npk_format_find(const npk_io *io, npk_file *root, npk_file *wal, uint8_t uuid[16], uint64_t *created_us, bool *from_log,
                           npk_error *err);

/* Write FORMAT, or replace it: durable when it returns OK. */
npk_status npk_format_write(const npk_io *io, npk_file *root, const uint8_t uuid[16], uint64_t created_us, npk_error *err);

/* Read FORMAT. NOT_FOUND when it is absent, FORMAT when it is not ours or newer, CORRUPT. */
npk_status npk_format_read(const npk_io *io, npk_file *root, uint8_t uuid[16], uint64_t *created_us, npk_error *err);

#endif
