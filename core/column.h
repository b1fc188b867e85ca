/* column.h - column files: rows in a plain .npy file that is never written again once it is linked.
 *
 * Format: FORMAT.md, "Column file" (header encode and decode: column_format.h). A writer streams rows into columns/<id>.tmp and keeps one
 * checksum per block of NPK_SUM_BLOCK bytes; finish gives it its name, durable or not. An open column file is shared and counted; its
 * descriptor keeps the bytes alive after the name is gone. */
#ifndef NPK_CORE_COLUMN_H
#define NPK_CORE_COLUMN_H

#include <stdbool.h>
#include "io.h"
#include "npk.h"

typedef struct npk_column npk_column; /* a column file opened for reading; shared, counted */

/* ---- writing ----------------------------------------------------------------------------------------------------- */

typedef struct npk_column_spec {
    const char *descr;
    uint64_t row_size;      /* > 0 */
    uint32_t ndim;          /* behind the row axis */
    const uint64_t *shape;
    bool zero_dim;
} npk_column_spec;

typedef struct npk_column_writer npk_column_writer;

/* Create columns/<random id>.tmp. expected_row_count: a hint for preallocation, 0: unknown. write_behind: the file is to be synced soon, so
 * writeback is started behind each write. NO_SPACE, IO, NO_MEMORY. */
npk_status npk_column_create(const npk_io *io, npk_file *columns, const uint8_t uuid[16], const npk_column_spec *spec,
                             uint64_t expected_row_count, bool write_behind, npk_column_writer **writer, npk_error *err);
uint64_t npk_column_writer_id(const npk_column_writer *writer);
uint64_t npk_column_writer_row_count(const npk_column_writer *writer);
/* Add rows, by writes of 1 MiB. After an error only discard is left. */
npk_status npk_column_append(npk_column_writer *writer, const void *rows, uint64_t row_count, npk_error *err);
/* The rows appended so far as a readable column, retained for the caller: a transaction that reads its own bulk rows. Buffered bytes are
 * written first. The column stays readable whatever becomes of the writer. */
npk_status npk_column_writer_view(npk_column_writer *writer, npk_column **column, npk_error *err);

typedef struct npk_column_summary {
    uint64_t id, file_size, row_count, row_size, data_offset;
    uint64_t sum_count;
    const uint64_t *sums;   /* owned by the writer */
} npk_column_summary;
/* Write the header, sync the file, rename it to its name. The name is the caller's to sync: several files share one sync of the directory. Not
 * synced: neither file nor name are durable, and unsynced.h says who syncs them. The summary is valid until release. After an error only
 * discard is left. */
npk_status npk_column_finish(npk_column_writer *writer, bool synced, npk_column_summary *summary, npk_error *err);
/* Give the writer back; the file stays as it is. */
void npk_column_writer_release(npk_column_writer *writer);
/* Give the writer back and unlink its file, finished or not (best effort). Only for files that were never linked. */
void npk_column_discard(npk_column_writer *writer);

/* ---- reading ----------------------------------------------------------------------------------------------------- */

typedef struct npk_columns npk_columns; /* the open column files of a store in this process, by id; thread-safe */

npk_status npk_columns_open(const npk_io *io, npk_file *directory, const uint8_t uuid[16], npk_columns **columns,
                            npk_error *err);
void npk_columns_close(npk_columns *columns); /* files in use stay open for their users; the directory handle is not closed */

/* Close files that are only kept in case they are wanted again (a few small ones); a file removed meanwhile gives its space back. */
void npk_columns_forget(npk_columns *columns);
/* Names may have been given to other files: who comes now opens them anew. Those who have one open keep it. */
void npk_columns_renew(npk_columns *columns);

/* Open columns/<id>.npy, or share it. Id, size, data offset and row size are checked against the file and its header before anything is believed.
 * NOT_FOUND when the name is absent (the caller decides whether that is damage), CORRUPT, IO. */
npk_status npk_columns_get(npk_columns *columns, uint64_t id, uint64_t file_size, uint64_t row_count, uint64_t row_size,
                           uint64_t data_offset, npk_column **column, npk_error *err);
npk_column *npk_column_retain(npk_column *column);
void npk_column_release(npk_column *column);
uint64_t npk_column_row_count(const npk_column *column);
npk_status npk_column_read(npk_column *column, uint64_t first_row, uint64_t row_count, void *out, npk_error *err);
/* The whole data as mapped memory, mapped once and kept until the column is closed: for many single rows. */
npk_status npk_column_rows(npk_column *column, const void **rows, npk_error *err);
/* Map whole pages around the rows (row_count > 0); *rows points at first_row; *base and *size are for io->unmap. */
npk_status npk_column_map(npk_column *column, uint64_t first_row, uint64_t row_count, npk_map_kind kind, void **base,
                          size_t *size, void **rows, npk_error *err);
/* Compare every block with its checksum: CORRUPT when one differs. bad (may be NULL) gets each damaged byte range of the data and stops with
 * non-zero; it is called for all of them before the result is returned. buffer of 1 MiB inside. */
npk_status npk_column_check(npk_column *column, const uint64_t *sums, uint64_t sum_count,
                            int (*bad)(void *context, uint64_t data_offset, uint64_t size), void *context, npk_error *err);

#endif
