/* wal_salvage.h - what salvage needs inside the log; its interface is in wal.h. */
#ifndef NPK_WAL_SALVAGE_H
#define NPK_WAL_SALVAGE_H

#include "wal_handle.h"

/* A segment file without a readable header: what the header must have said, as its valid records tell. *guessed = false: they tell nothing.
 * A cut is not known from records. Reads the whole file. */
npk_status npk_wal_guess_header(npk_wal *wal, npk_file *file, uint64_t seq, npk_segment_header *header, bool *guessed,
                                npk_error *err);
/* Open such a segment for reading. CORRUPT when nothing can be told. */
npk_status npk_wal_open_headless(npk_wal *wal, uint64_t seq, npk_segment **segment, npk_error *err);

#endif
