/* wal.h - the log: an append-only sequence of records, grouped into transactions by commit records, in segment files.
 *
 * In one sentence: what was appended before a sync that succeeded is read back in order after any crash, and what is read back
 * is always a prefix of what was appended, cut at the end of a committed transaction.
 *
 * The log never learns what an array is: a record is (type, meta bytes, data bytes). core/op.h gives types from
 * NPK_RECORD_FIRST_OP on their meaning. Format: FORMAT.md. All functions that write need the store's writer lock, held by
 * the caller; reading of what is below the published end needs none. */
#ifndef NPK_WAL_H
#define NPK_WAL_H

#include <stdbool.h>
#include "buffer.h"
#include "io.h"
#include "npk.h"

#define NPK_WAL_FIRST_LSN 4096u
#define NPK_WAL_PAYLOAD_MAX (1024u * 1024u)      /* meta + data of one record, raw */
#define NPK_WAL_SEGMENT_SIZE_MIN (64u * 1024u)
#define NPK_WAL_SEGMENT_SIZE_MAX (1024u * 1024u * 1024u)
#define NPK_WAL_HEADER_SIZE 4096u

enum { NPK_RECORD_COMMIT = 1, NPK_RECORD_VOID = 2, NPK_RECORD_WATERMARK = 3, NPK_RECORD_FIRST_OP = 16 };

/* Where a record lies; everything needed to read its data again. Stays valid through cuts and recovery. */
typedef struct npk_wal_place {
    uint64_t lsn;         /* of the record */
    uint64_t seq;         /* segment */
    uint64_t offset;      /* of the record in the segment file */
    uint64_t data_offset; /* of its stored data in the segment file */
    bool packed;          /* data is lz4 blocks: read through npk_wal_read_data */
} npk_wal_place;

/* Where the log ends and the next record goes. Kept by the store in its index, so that any process can go on. */
typedef struct npk_wal_end {
    uint64_t lsn;               /* end of the last record */
    uint32_t epoch;
    uint64_t seq;               /* current segment */
    uint64_t first_lsn;         /* of that segment */
    uint64_t segment_size;
    uint64_t last_checksum;     /* checksum field of the record that ends at lsn, 0: none */
} npk_wal_end;

typedef struct npk_record {
    uint8_t type;
    npk_wal_place place;
    uint64_t transaction;
    uint64_t watermark;
    const uint8_t *meta;   /* valid during the visit only */
    size_t meta_size;
    uint64_t raw_data_size;
} npk_record;

/* ---- a log segment opened for reading; shared, counted ---------------------------------------------------------- */

typedef struct npk_segment npk_segment;
npk_segment *npk_segment_retain(npk_segment *segment);
void npk_segment_release(npk_segment *segment); /* accepts NULL; the last one closes the file */
/* Raw bytes of the file (rows that are not packed). */
npk_status npk_segment_read(npk_segment *segment, uint64_t offset, void *out, size_t size, npk_error *err);
/* size bytes of the raw data of the record at record_offset, from data byte first on: works for packed and raw records. Checks sizes
 * against the record header; with check = true also the record's checksum. CORRUPT, IO, NO_MEMORY. */
npk_status npk_segment_read_data(npk_segment *segment, uint64_t record_offset, uint64_t first, void *out, size_t size,
                                 bool check, npk_error *err);

/* The whole file as mapped memory of *size bytes, mapped once and kept until the segment is closed: for many single rows. NULL when it cannot be
 * mapped; the caller reads then. Only bytes of published records may be looked at: they never change, and the file was allocated to its full size
 * before it got its name and is never shortened, so that none of them is behind its end. */
const uint8_t *npk_segment_bytes(npk_segment *segment, uint64_t *size);

/* ---- the log of a store ----------------------------------------------------------------------------------------- */

typedef struct npk_wal npk_wal;

typedef struct npk_wal_options {
    const npk_io *io;
    uint8_t uuid[16];
    uint64_t segment_size; /* of segments created from now on */
    bool salvage;          /* reading only: a segment with a damaged header is read all the same, as its records tell what it said */
} npk_wal_options;

/* Take over the open directory "wal" (closed by npk_wal_close). Reads nothing yet. */
npk_status npk_wal_open(npk_file *directory, const npk_wal_options *options, npk_wal **wal, npk_error *err);
void npk_wal_close(npk_wal *wal);
/* Create the first segment of a new store, durable with its name, and describe its end. EXISTS when the log holds records. */
npk_status npk_wal_create(npk_wal *wal, npk_wal_end *end, npk_error *err);

/* Segment seq for reading, from a small cache. Thread-safe. CORRUPT when missing or its header does not fit. */
npk_status npk_wal_segment(npk_wal *wal, uint64_t seq, npk_segment **segment, npk_error *err);
/* Forget cached segments (after a cut by any process: the epoch changed). Segments in use stay open for their users. */
void npk_wal_forget_segments(npk_wal *wal);

/* ---- scanning ---------------------------------------------------------------------------------------------------- */

/* How a scan ended; the cases of the table in wal_recovery.h. */
typedef enum npk_wal_verdict {
    NPK_WAL_CLEAN,   /* ends at a transaction end with nothing but zeros behind, or at a segment's end */
    NPK_WAL_TORN,    /* bytes behind the last complete transaction: torn, uncommitted or void; to be cut */
    NPK_WAL_DAMAGED  /* bytes proven durable are damaged or missing: refuse */
} npk_wal_verdict;

typedef struct npk_wal_scan {
    /* in */
    uint64_t from_lsn;      /* a transaction boundary: a checkpoint's LSN, the published end, or NPK_WAL_FIRST_LSN */
    uint64_t from_checksum; /* checksum field of the record that ends at from_lsn, when the caller kept it: reading then starts right
                             * there instead of walking the segment's records up to it. 0: not known */
    uint64_t durable_floor; /* everything below was synced (newest checkpoint's LSN); 0: unknown */
    uint64_t stop_lsn;      /* 0, or: keep no transaction that ends behind this (failed sync: the published end; or what a later one refers to is
                             * missing) */
    /* Called for each operation record of each complete transaction, in order, after its commit record was seen; then once with type
     * NPK_RECORD_COMMIT. Voided records are left out. A status other than OK ends the scan and is returned. May be NULL. */
    npk_status (*visit)(void *context, const npk_record *record, npk_error *err);
    void *context;
    /* out */
    npk_wal_verdict verdict;
    const char *case_name;      /* of the recovery table */
    npk_wal_end end;            /* end of the last complete transaction (or watermark record), which a cut keeps */
    uint64_t damaged_lsn;       /* DAMAGED: the first position that does not hold what it must */
    uint64_t damaged_until_lsn; /* DAMAGED: the floor that proves it */
    uint64_t tail_size;         /* bytes behind end that hold something */
    uint64_t durable_lsn;       /* highest watermark or floor seen: log below was synced */
    uint64_t watermark_lsn;     /* highest watermark seen, from_lsn or durable_floor: rolls, which speak for the log alone, left out */
    uint64_t last_commit_us;    /* 0: none seen */
    uint64_t last_transaction;  /* highest transaction id seen in complete transactions */
    uint64_t transaction_count;
    uint32_t highest_epoch;     /* anywhere, void segments included */
    uint64_t highest_seq;       /* anywhere */
    uint64_t segment_count, void_segment_count;
    uint64_t oldest_seq, oldest_first_lsn; /* oldest segment that is there; 0: none */
} npk_wal_scan;

/* Read the log from from_lsn to its end and classify the end. Writes nothing. The result is in scan; returns OK for all three
 * verdicts, CORRUPT only when from_lsn cannot be found at all (its segment is missing or not readable), FORMAT for a newer
 * version, IO, NO_MEMORY. Memory: one segment at a time, and of an incomplete transaction its metas.
 * What was found need not be on disk: a writer may have died between its write and its sync. After CLEAN, npk_wal_start and npk_wal_sync
 * come before anything found is published or end.lsn is used as a watermark; after TORN npk_wal_cut has synced it. */
npk_status npk_wal_scan_log(npk_wal *wal, npk_wal_scan *scan, npk_error *err);

/* The tail procedure (FORMAT.md) for the end that a scan found. On success *end is where the next record goes: a fresh segment with
 * a new epoch. */
npk_status npk_wal_cut(npk_wal *wal, const npk_wal_scan *scan, npk_wal_end *end, npk_error *err);

/* Is anything behind end: a non-zero byte where the next record's header would be, or a later segment? Cheap: asked by each new writer. */
npk_status npk_wal_has_tail(npk_wal *wal, const npk_wal_end *end, bool *has_tail, npk_error *err);

/* ---- salvage: reading a log that a scan refuses ------------------------------------------------------------------- */

typedef struct npk_wal_salvage {
    /* in */
    uint64_t from_lsn;      /* a transaction boundary */
    uint64_t durable_floor; /* as for a scan */
    uint64_t stop_lsn;      /* 0, or: no transaction that ends behind this */
    uint64_t stop_us;       /* 0, or: nothing from the first transaction on that was committed after this */
    /* For each transaction, in log order, its operation records and then its commit record. whole = false: other records of the transaction are lost,
     * or its commit record is (then none follows). */
    npk_status (*visit)(void *context, const npk_record *record, bool whole, npk_error *err);
    /* No valid record was found at first_lsn .. end_lsn, though bytes there were synced once. seq and offset: where; seq 0: behind the last segment
     * that is left. end_lsn 0: there was a further segment, and nothing tells how much it held. */
    npk_status (*gap)(void *context, uint64_t first_lsn, uint64_t end_lsn, uint64_t seq, uint64_t offset, const char *reason,
                      npk_error *err);
    void *context;
    /* out */
    npk_wal_end end; /* of the last whole transaction; lsn 0: none */
    uint64_t gap_count, transaction_count, lost_transaction_count, last_commit_us;
} npk_wal_salvage;

/* Read everything that is left, from from_lsn on, past damage. IO, NO_MEMORY, what a callback returned. On a whole log this visits what a scan
 * visits. */
npk_status npk_wal_read_damaged(npk_wal *wal, npk_wal_salvage *salvage, npk_error *err);

/* The store's uuid and the log's age, from the segment headers in this directory: for a store that lost its FORMAT. NOT_FOUND (also when the log
 * holds no record: such a store was not created whole), CORRUPT (segments of
 * two stores), IO, NO_MEMORY. */
npk_status npk_wal_find_uuid(const npk_io *io, npk_file *directory, uint8_t uuid[16], uint64_t *created_us, npk_error *err);

/* Check every record of every segment that is there, from the oldest on, up to until_lsn (0: as far as records go; a torn tail is no finding
 * then). Each finding names a byte range of a segment. Segments that are not there are no finding: a reclaim may have been interrupted, and
 * a scan proves the chain from the checkpoint on. progress (may be NULL): non-zero stops with INTERRUPTED. */
npk_status npk_wal_verify(npk_wal *wal, uint64_t until_lsn,
                          void (*report)(void *context, uint64_t seq, uint64_t offset, uint64_t size, uint64_t lsn,
                                         const char *reason),
                          int (*progress)(void *context, uint64_t done_size), void *context, npk_error *err);

/* ---- writing (under the writer lock) ------------------------------------------------------------------------------ */

/* Go on at end: opens the segment for writing when it is another one than before. Drops whatever was buffered. */
npk_status npk_wal_start(npk_wal *wal, const npk_wal_end *end, npk_error *err);

/* Append a record to the buffer and say where it will lie. Data is tried with lz4 when pack is true. When the record does not fit into the
 * current segment the log rolls (buffered records are written first). When the buffer is above 4 MiB it is written out (not synced).
 * watermark: the durable LSN known now, at most the end. INVALID when the record is too large for a segment or the watermark lies
 * behind the end; nothing is changed then. NO_MEMORY, and NO_SPACE where no next segment can be made, append nothing and may leave
 * the log usable: npk_wal_in_doubt says so, and npk_wal_undo then still works (room for its record is kept in each segment).
 * After any other error the log is in doubt: only npk_wal_scan_log + npk_wal_cut + npk_wal_start make it usable, and everything that
 * writes returns POISONED until then. */
npk_status npk_wal_append(npk_wal *wal, uint8_t type, uint64_t transaction, uint64_t watermark, const void *meta,
                          size_t meta_size, const void *data, size_t data_size, bool pack, npk_wal_place *place,
                          npk_error *err);
/* Did a write or sync fail since npk_wal_start, in whatever thread? Thread-safe. */
bool npk_wal_in_doubt(const npk_wal *wal);
/* Largest meta + data that surely fits into one record of the current segment size. */
size_t npk_wal_payload_max(const npk_wal *wal);
/* Where the next record goes / up to where records were written to the file. written <= end. */
npk_wal_end npk_wal_get_end(const npk_wal *wal);
uint64_t npk_wal_written_lsn(const npk_wal *wal);
/* Write the buffer to the file, without a sync. */
npk_status npk_wal_write(npk_wal *wal, npk_error *err);
/* Write the buffer, then one fdatasync of the current segment. */
npk_status npk_wal_sync(npk_wal *wal, npk_error *err);
/* Forget buffered records at or behind lsn, which was the end at an earlier time. When some of them were already written, the
 * rest is forgotten and a void record [lsn, here) is appended. MISUSE when lsn was never the end; nothing is changed then. */
npk_status npk_wal_undo(npk_wal *wal, uint64_t lsn, uint64_t transaction, uint64_t watermark, npk_error *err);

/* Sync segment seq up to what is in it, from any thread, without the writer lock (interval level). One sync, never retried. *sync_failed tells a
 * failed sync from what proves nothing either way: the segment could not be opened (CORRUPT: perhaps it was reclaimed meanwhile), or the log of this
 * process is in doubt (POISONED: its writer deals with that, or is just about to start). */
npk_status npk_wal_sync_segment(npk_wal *wal, uint64_t seq, bool *sync_failed, npk_error *err);

/* Prepare one zero-filled spare segment, synced with its name, if there is none. Background thread; no lock needed. */
npk_status npk_wal_prepare_spare(npk_wal *wal, npk_error *err);
bool npk_wal_has_spare(const npk_wal *wal);

/* May a file of this name in the log's directory be the log's? */
bool npk_wal_owns_name(const char *name);
/* Remove leftovers: temporary files, and spares of dead processes (those of living ones are locked). Under the writer lock, or while nobody
 * else has the store open. */
npk_status npk_wal_remove_leftovers(npk_wal *wal, npk_error *err);
/* Unlink segments with seq < before_seq. The directory is synced. Counts what was removed. */
npk_status npk_wal_reclaim(npk_wal *wal, uint64_t before_seq, uint64_t *removed_count, npk_error *err);

/* Visit the segments that are there, in seq order: header fields as they are. */
typedef struct npk_segment_info {
    uint64_t seq, first_lsn, size;
    uint32_t epoch, cut_epoch;
    uint64_t cut_lsn;
    bool valid; /* header readable */
} npk_segment_info;
npk_status npk_wal_list(npk_wal *wal, void (*visit)(void *context, const npk_segment_info *info), void *context,
                        npk_error *err);

/* Counters since open, for stats. */
typedef struct npk_wal_counters {
    uint64_t syncs, bytes, rolls, spares;
} npk_wal_counters;
npk_wal_counters npk_wal_count(const npk_wal *wal);

#endif
