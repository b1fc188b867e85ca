/* wal_segment.h - one segment file: opened (for reading, or for appending by the writer), created, marked.
 *
 * npk_segment itself and reading through it are in wal.h. */
#ifndef NPK_WAL_SEGMENT_H
#define NPK_WAL_SEGMENT_H

#include <stdatomic.h>

#include "thread.h"
#include "wal.h"
#include "wal_format.h"

struct npk_segment {
    const npk_io *io;
    npk_file *file;            /* owned */
    uint64_t file_size;        /* when opened; segments never change their size */
    npk_segment_header header; /* when opened; a cut replaces the file, the records below it stay the same */
    char name[NPK_WAL_NAME_SIZE];
    atomic_uint reference_count;
    _Atomic(void *) bytes;     /* the file mapped for reading, or NULL: made by the first who wants it */
    pthread_mutex_t sync_mutex; /* one sync at a time: the system reports a failed write-back only once */
};

/* Open segment seq of the directory; writable for the writer. CORRUPT when it is missing or its header does not fit (name, uuid),
 * FORMAT, IO, NO_MEMORY. The header may name a size that the file does not have: see file_size. */
npk_status npk_segment_open(const npk_io *io, npk_file *directory, const uint8_t uuid[16], uint64_t seq, bool writable,
                            npk_segment **segment, npk_error *err);

/* Wrap an open file whose header is known; on error the file stays the caller's. */
npk_status npk_segment_wrap(const npk_io *io, npk_file *file, uint64_t file_size, const npk_segment_header *header,
                            npk_segment **segment, npk_error *err);

/* Fill size bytes of a new file with zeros: allocated when quick, written in 1 MiB pieces when not (or not supported). */
npk_status npk_segment_fill(const npk_io *io, npk_file *file, uint64_t size, bool quick, const char *name, npk_error *err);

/* Roll steps 2 and 3 (FORMAT.md): a file of header->segment_size zero bytes with the header, synced, under its seq name, the
 * directory synced. spare: name of a prepared file to use, or NULL; when it does not serve, a new file is made. *renamed tells (also on
 * error) whether the seq name was touched: without that the log is as it was. *sync_count grows by the syncs done. On error
 * nothing is left behind, as far as unlinking succeeds. */
npk_status npk_segment_create(const npk_io *io, npk_file *directory, const npk_segment_header *header, const char *spare,
                              bool *renamed, uint64_t *sync_count, npk_segment **segment, npk_error *err);

/* Write the successor mark of a segment opened writable; the caller syncs it. */
npk_status npk_segment_write_mark(npk_segment *segment, const npk_segment_mark *mark, npk_error *err);

#endif
