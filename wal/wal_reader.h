/* wal_reader.h - what reading shares between the scan and verification. The scan's interface is in wal.h. */
#ifndef NPK_WAL_READER_H
#define NPK_WAL_READER_H

#include "wal_directory.h"

/* One segment in memory, read in pieces as far as it was needed, so that bytes are hashed while they are still in the cache. */
typedef struct npk_wal_loaded {
    npk_wal *wal;
    npk_file *file; /* owned */
    char name[NPK_WAL_NAME_SIZE];
    npk_buffer bytes;      /* size: how far it was read; from the header on */
    npk_segment_header header;
    uint64_t end_offset; /* records end here at the latest: the record area's end, the cut, or the file's end */
    bool is_short;       /* the file is shorter than its header says */
} npk_wal_loaded;

/* Start with all zeros (bytes initialised); load closes what was loaded before. NOT_FOUND when the file is gone. */
npk_status npk_wal_load(npk_wal *wal, const npk_wal_entry *entry, npk_wal_loaded *loaded, npk_error *err);
void npk_wal_loaded_release(npk_wal_loaded *loaded);
/* Read on, so that everything below end (at most end_offset) is in memory. A file that turns out shorter lowers end_offset. */
npk_status npk_wal_loaded_need(npk_wal_loaded *loaded, uint64_t end, npk_error *err);
/* Check the record at offset, reading what it takes. */
npk_status npk_wal_loaded_check(npk_wal_loaded *loaded, uint64_t offset, npk_record_header *header, npk_record_fault *fault,
                                npk_error *err);

static inline uint64_t npk_wal_loaded_lsn(const npk_wal_loaded *loaded, uint64_t offset)
{
    return loaded->header.first_lsn + (offset - NPK_WAL_HEADER_SIZE);
}
static inline npk_record_bounds npk_wal_loaded_bounds(const npk_wal_loaded *loaded, uint64_t offset)
{
    npk_record_bounds bounds = {npk_wal_loaded_lsn(loaded, offset), loaded->header.epoch, loaded->header.cut_epoch};
    return bounds;
}

/* The next valid record at or behind offset and below limit; its offset, or limit when there is none. offset <= limit <= end_offset.
 * Everything must have been read (npk_wal_loaded_need). */
uint64_t npk_wal_search(const npk_wal_loaded *loaded, uint64_t offset, uint64_t limit, npk_record_header *header);

#endif
