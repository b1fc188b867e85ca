/* wal_format.h - the bytes of the log (FORMAT.md): encode and decode of headers, marks, records and packed data.
 *
 * Pure functions without I/O. Every decoder is total: any bytes give an answer, none is read past the size that was passed. */
#ifndef NPK_WAL_FORMAT_H
#define NPK_WAL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "npk.h"
#include "wal.h"

enum {
    NPK_SEGMENT_MARK_SIZE = 4096,
    NPK_RECORD_HEADER_SIZE = 64,
    NPK_COMMIT_META_SIZE = 12,
    NPK_VOID_META_SIZE = 8,
    NPK_PACK_BLOCK_SIZE = 65536,
    NPK_PACK_BLOCK_COUNT_MAX = NPK_WAL_PAYLOAD_MAX / NPK_PACK_BLOCK_SIZE,
    NPK_PACK_TABLE_SIZE_MAX = 8 + 4 * NPK_PACK_BLOCK_COUNT_MAX,
    NPK_RECORD_FLAG_PACKED = 1
};

/* ---- segment ---------------------------------------------------------------------------------------------------- */

typedef struct npk_segment_header {
    uint8_t uuid[16];
    uint64_t seq;
    uint64_t segment_size;
    uint64_t first_lsn;
    uint32_t epoch;
    uint32_t cut_epoch;
    uint64_t cut_lsn;
    uint64_t previous_seq;
    uint64_t previous_end_lsn;
    uint64_t previous_end_checksum;
    uint64_t created_us;
} npk_segment_header;

typedef struct npk_segment_mark {
    uint64_t seq;
    uint64_t first_lsn;
    uint32_t epoch;
} npk_segment_mark;

/* bytes has NPK_WAL_HEADER_SIZE bytes. */
void npk_segment_header_encode(const npk_segment_header *header, uint8_t *bytes);
/* NPK_OK, NPK_FORMAT (a newer version whose checksum fits) or NPK_CORRUPT. *reason (may be NULL) gets a constant text when not OK. */
npk_status npk_segment_header_decode(const uint8_t *bytes, size_t size, npk_segment_header *header, const char **reason);

/* bytes has NPK_SEGMENT_MARK_SIZE bytes. */
void npk_segment_mark_encode(const npk_segment_mark *mark, uint8_t *bytes);
/* false: no valid mark (zeros, or torn). */
bool npk_segment_mark_decode(const uint8_t *bytes, size_t size, npk_segment_mark *mark);

/* End of the record area as a file offset. */
static inline uint64_t npk_segment_area_end(uint64_t segment_size)
{
    return segment_size - NPK_SEGMENT_MARK_SIZE;
}

/* ---- record ----------------------------------------------------------------------------------------------------- */

typedef struct npk_record_header {
    uint64_t checksum;
    uint8_t type;
    uint8_t flags;
    uint32_t meta_size;
    uint64_t lsn;
    uint32_t epoch;
    uint32_t data_size; /* as stored */
    uint64_t transaction;
    uint64_t watermark;
    uint32_t raw_data_size;
} npk_record_header;

typedef enum npk_record_fault {
    NPK_RECORD_FAULT_NONE,
    NPK_RECORD_FAULT_SIZE,     /* its sizes do not fit there, or not together */
    NPK_RECORD_FAULT_LSN,      /* its LSN field is not its position */
    NPK_RECORD_FAULT_EPOCH,
    NPK_RECORD_FAULT_RESERVED, /* bytes or flags that must be zero are not */
    NPK_RECORD_FAULT_CHECKSUM
} npk_record_fault;
const char *npk_record_fault_text(npk_record_fault fault); /* never NULL */

/* Where a record is expected, and which epochs may stand there. */
typedef struct npk_record_bounds {
    uint64_t lsn;
    uint32_t epoch_min;
    uint32_t epoch_end; /* first epoch that may not, 0: none (the cut epoch) */
} npk_record_bounds;

/* Whole size of a record on disk, padding included. Cannot overflow: both arguments are 32 bits wide on disk. */
static inline uint64_t npk_record_size(uint64_t meta_size, uint64_t data_size)
{
    return NPK_RECORD_HEADER_SIZE + ((meta_size + 7) & ~(uint64_t)7) + ((data_size + 7) & ~(uint64_t)7);
}
/* Offset of the data from the record's start. */
static inline uint64_t npk_record_data_offset(uint64_t meta_size)
{
    return NPK_RECORD_HEADER_SIZE + ((meta_size + 7) & ~(uint64_t)7);
}

/* Write the 64 header bytes but for the checksum; meta, data and padding follow, then npk_record_seal. */
void npk_record_header_encode(const npk_record_header *header, uint8_t *bytes);
/* Compute and store the checksum of a record of size bytes (as npk_record_size gives); returns it. */
uint64_t npk_record_seal(uint8_t *bytes, size_t size);

/* Read the header and check all but the checksum. room: bytes from here to the end of the record area. *header is filled when
 * room >= 64, whatever is returned. */
npk_record_fault npk_record_header_decode(const uint8_t *bytes, uint64_t room, const npk_record_bounds *bounds,
                                          npk_record_header *header);
/* Checks it all: "a record is valid if and only if" of FORMAT.md. bytes holds room bytes. */
npk_record_fault npk_record_check(const uint8_t *bytes, uint64_t room, const npk_record_bounds *bounds,
                                  npk_record_header *header);

/* ---- meta of the log's own records --------------------------------------------------------------------------------- */

/* record_count: operation records of the transaction that no void record covers. */
void npk_commit_encode(uint64_t commit_us, uint32_t record_count, uint8_t meta[NPK_COMMIT_META_SIZE]);
bool npk_commit_decode(const uint8_t *meta, size_t meta_size, uint64_t *commit_us, uint32_t *record_count);
void npk_void_encode(uint64_t first_lsn, uint8_t meta[NPK_VOID_META_SIZE]);
bool npk_void_decode(const uint8_t *meta, size_t meta_size, uint64_t *first_lsn);

/* ---- packed data ---------------------------------------------------------------------------------------------------- */

typedef struct npk_pack_block {
    uint32_t offset;      /* from the start of the stored data */
    uint32_t stored_size;
    uint32_t raw_size;
    bool is_raw;
} npk_pack_block;

typedef struct npk_pack_table {
    uint32_t count;
    npk_pack_block blocks[NPK_PACK_BLOCK_COUNT_MAX];
} npk_pack_table;

/* Pack size bytes (at most NPK_WAL_PAYLOAD_MAX) into out; 0 when the result needs more than capacity bytes. */
size_t npk_pack_encode(const uint8_t *raw, size_t size, uint8_t *out, size_t capacity);
/* bytes: the first size bytes of the stored data, all of it or at least NPK_PACK_TABLE_SIZE_MAX. false: does not fit stored_size and
 * raw_size. Every block of a table that was returned lies inside stored_size. */
bool npk_pack_table_decode(const uint8_t *bytes, size_t size, uint64_t stored_size, uint64_t raw_size,
                           npk_pack_table *table);
/* out has block->raw_size bytes, stored block->stored_size. */
bool npk_pack_block_decode(const npk_pack_block *block, const uint8_t *stored, uint8_t *out);

/* ---- file names ----------------------------------------------------------------------------------------------------- */

enum { NPK_WAL_NAME_SIZE = 32 }; /* holds every name below */
void npk_segment_name(uint64_t seq, char name[NPK_WAL_NAME_SIZE]);     /* "0000000000000001.wal" */
void npk_segment_cut_name(uint64_t seq, char name[NPK_WAL_NAME_SIZE]); /* "cut-0000000000000001.tmp" */
void npk_segment_spare_name(uint64_t random, char name[NPK_WAL_NAME_SIZE]);
bool npk_segment_name_decode(const char *name, uint64_t *seq); /* exactly what npk_segment_name writes; seq is not 0 */
bool npk_segment_name_is_spare(const char *name);
bool npk_wal_name_is_leftover(const char *name);               /* a spare or a temporary file */

#endif
