/* wal_directory.h - which segments are there, which are void, and what their headers and marks say. */
#ifndef NPK_WAL_DIRECTORY_H
#define NPK_WAL_DIRECTORY_H

#include "wal_handle.h"

typedef struct npk_wal_entry {
    uint64_t seq; /* from the file name */
    uint64_t file_size;
    npk_status status; /* OK: header is readable and fits; CORRUPT; FORMAT: newer */
    const char *reason; /* constant text when status is not OK */
    npk_segment_header header;
    bool is_void; /* a segment with a lower seq has a cut epoch above this one's epoch */
    bool has_mark;
    npk_segment_mark mark;
} npk_wal_entry;

typedef struct npk_wal_entries {
    npk_wal_entry *items; /* by seq */
    size_t count;
    uint64_t highest_seq;   /* marks included, void or not */
    uint32_t highest_epoch; /* likewise */
} npk_wal_entries;

/* The sequence numbers of all segment files, sorted; reads names only. Released by npk_free. */
npk_status npk_wal_list_seqs(npk_wal *wal, uint64_t **seqs, size_t *count, npk_error *err);

/* Read names, headers and marks. A file that vanishes meanwhile (reclaimed by another process) is left out. */
npk_status npk_wal_entries_load(npk_wal *wal, npk_wal_entries *entries, npk_error *err);
void npk_wal_entries_release(npk_wal_entries *entries);

/* Index of the next live (readable, not void) entry behind index; count when there is none. */
size_t npk_wal_entries_next(const npk_wal_entries *entries, size_t index);
static inline bool npk_wal_entry_is_live(const npk_wal_entry *entry)
{
    return entry->status == NPK_OK && !entry->is_void;
}

#endif
