/* wal_handle.h - the log handle as data, for the files of this folder only. */
#ifndef NPK_WAL_HANDLE_H
#define NPK_WAL_HANDLE_H

#include "thread.h"
#include "wal.h"
#include "wal_format.h"
#include "wal_segment.h"

enum { NPK_WAL_CACHE_COUNT = 16 };

typedef enum npk_spare_state { NPK_SPARE_NONE, NPK_SPARE_IN_WORK, NPK_SPARE_READY } npk_spare_state;

struct npk_wal {
    /* constant after open */
    const npk_io *io;
    npk_file *directory; /* owned */
    uint8_t uuid[16];
    uint64_t segment_size;
    bool salvage; /* segments whose header is damaged are read as far as their records tell what it said */

    pthread_mutex_t mutex; /* guards what follows, to the next comment; held for moments, never over a call to the system */
    npk_segment *cache[NPK_WAL_CACHE_COUNT]; /* last used first; each holds one reference */
    uint64_t cache_generation;               /* grows with every forgetting, so that an open begun before it is not kept */
    npk_segment *current;   /* open for writing, one reference; replaced by the writer only */
    bool in_doubt;          /* a write or sync failed: nothing may be appended */
    uint64_t generation;    /* grows with every npk_wal_start: a late failure of an older one does not count */
    npk_spare_state spare_state;
    char spare_name[NPK_WAL_NAME_SIZE];
    npk_file *spare_file;   /* READY: keeps byte 0 of the spare locked, so that others know that it has an owner */
    npk_wal_counters counters;

    /* guarded by the store's writer lock */
    npk_wal_end end;           /* behind the last buffered record */
    uint64_t written_lsn;      /* buffer holds the bytes from here to end.lsn */
    uint64_t written_checksum; /* of the record that ends at written_lsn */
    npk_buffer buffer;
    unsigned pack_skip;    /* attempts to pack left out from here on */
    unsigned pack_backoff; /* the next failure skips 2^this */
};

bool npk_wal_is_in_doubt(npk_wal *wal); /* with the mutex free */
void npk_wal_set_in_doubt(npk_wal *wal);
void npk_wal_count_syncs(npk_wal *wal, uint64_t count);
npk_status npk_wal_sync_directory(npk_wal *wal, npk_error *err);
/* Sync a segment, one at a time. POISONED without a sync when the log is in doubt; a failure puts it in doubt unless the writer has started
 * anew since generation. */
npk_status npk_wal_sync_file(npk_wal *wal, npk_segment *segment, uint64_t generation, npk_error *err);
/* Replace the writer's segment (NULL: none); takes over the reference. */
void npk_wal_set_current(npk_wal *wal, npk_segment *segment);
/* The prepared spare's name and the file that keeps it locked (to be closed), which are the caller's from here on; false: none. */
bool npk_wal_take_spare(npk_wal *wal, char name[NPK_WAL_NAME_SIZE], npk_file **file);

/* EXISTS when the log holds records; without any, its first segment was left by a creation that did not finish. Needs io and directory only. */
npk_status npk_wal_check_unused(npk_wal *wal, npk_error *err);

/* Roll steps 2 to 4: make the segment, then mark and sync its predecessor (NULL: none), which is open for writing. *renamed as
 * in npk_segment_create. */
npk_status npk_wal_make_segment(npk_wal *wal, const npk_segment_header *header, npk_segment *predecessor, bool *renamed,
                                npk_segment **segment, npk_error *err);

#endif
