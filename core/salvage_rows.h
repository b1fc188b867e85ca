/* salvage_rows.h - rows at their places, only where a checksum proves them. */
#ifndef NPK_CORE_SALVAGE_ROWS_H
#define NPK_CORE_SALVAGE_ROWS_H

#include "array.h"

typedef struct npk_salvage_rows npk_salvage_rows;

/* columns_directory NULL: missing; wal NULL: missing. Both outlive it. */
npk_status npk_salvage_rows_open(const npk_io *io, npk_file *columns_directory, npk_wal *wal, npk_salvage_rows **rows, npk_error *err);
void npk_salvage_rows_close(npk_salvage_rows *rows); /* accepts NULL */

/* Read rows first .. + count of an array that was built with only_places from kv; checksums of column files are taken from kv. Only rows whose
 * lost[i] is not 0 are read; lost[i] becomes 0 when row first + i was read to out + i * row_size, else one more than the index of its source. IO is
 * for the target; a source that cannot be read is lost. NO_MEMORY, INVALID. */
npk_status npk_salvage_rows_read(npk_salvage_rows *rows, npk_kv *kv, const npk_array *array, uint64_t first, uint64_t count,
                                 uint8_t *out, uint32_t *lost, npk_error *err);

/* Why rows of this source are lost: the file relative to the store (64 bytes) and a reason (192 bytes). */
void npk_salvage_rows_explain(npk_salvage_rows *rows, const npk_array *array, uint32_t source, char *file, char *reason);

#endif
