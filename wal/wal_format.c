/* wal_format.c - the bytes of the log; see FORMAT.md. */
#include "wal_format.h"

#include <assert.h>
#include <inttypes.h>
#include <lz4.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "checksum.h"

enum {
    HEADER_MAGIC = 0,
    HEADER_VERSION = 8,
    HEADER_SIZE = 12,
    HEADER_UUID = 16,
    HEADER_SEQ = 32,
    HEADER_SEGMENT_SIZE = 40,
    HEADER_FIRST_LSN = 48,
    HEADER_EPOCH = 56,
    HEADER_CUT_EPOCH = 60,
    HEADER_CUT_LSN = 64,
    HEADER_PREVIOUS_SEQ = 72,
    HEADER_PREVIOUS_END_LSN = 80,
    HEADER_PREVIOUS_END_CHECKSUM = 88,
    HEADER_CREATED = 96,
    HEADER_ZERO = 104,
    HEADER_CHECKSUM = 4088
};

enum {
    MARK_MAGIC = 0,
    MARK_SEQ = 8,
    MARK_FIRST_LSN = 16,
    MARK_EPOCH = 24,
    MARK_ZERO = 28,
    MARK_CHECKSUM = 32,
    MARK_END = 40
};

enum {
    RECORD_CHECKSUM = 0,
    RECORD_TYPE = 8,
    RECORD_FLAGS = 9,
    RECORD_ZERO_A = 10,
    RECORD_META_SIZE = 12,
    RECORD_LSN = 16,
    RECORD_EPOCH = 24,
    RECORD_DATA_SIZE = 28,
    RECORD_TRANSACTION = 32,
    RECORD_WATERMARK = 40,
    RECORD_RAW_DATA_SIZE = 48,
    RECORD_ZERO_B = 52,
    RECORD_END = 64
};

enum { PACK_BLOCK_SIZE = 0, PACK_BLOCK_COUNT = 4, PACK_STORED_SIZES = 8 };

#define FORMAT_VERSION 1u
#define PACK_RAW_BIT 0x80000000u

static const uint8_t header_magic[8] = {'N', 'P', 'K', 'W', 'A', 'L', '\r', '\n'};
static const uint8_t mark_magic[8] = {'N', 'P', 'K', 'N', 'E', 'X', 'T', '\n'};

static_assert((int)RECORD_END == NPK_RECORD_HEADER_SIZE, "record header layout");
static_assert(HEADER_CHECKSUM + 8 == NPK_WAL_HEADER_SIZE, "segment header layout");
static_assert(NPK_WAL_PAYLOAD_MAX % NPK_PACK_BLOCK_SIZE == 0, "the pack table holds every block");

/* ---- segment ---------------------------------------------------------------------------------------------------- */

void npk_segment_header_encode(const npk_segment_header *header, uint8_t *bytes)
{
    memset(bytes, 0, NPK_WAL_HEADER_SIZE);
    memcpy(bytes + HEADER_MAGIC, header_magic, sizeof header_magic);
    npk_put_u32(bytes + HEADER_VERSION, FORMAT_VERSION);
    npk_put_u32(bytes + HEADER_SIZE, NPK_WAL_HEADER_SIZE);
    memcpy(bytes + HEADER_UUID, header->uuid, sizeof header->uuid);
    npk_put_u64(bytes + HEADER_SEQ, header->seq);
    npk_put_u64(bytes + HEADER_SEGMENT_SIZE, header->segment_size);
    npk_put_u64(bytes + HEADER_FIRST_LSN, header->first_lsn);
    npk_put_u32(bytes + HEADER_EPOCH, header->epoch);
    npk_put_u32(bytes + HEADER_CUT_EPOCH, header->cut_epoch);
    npk_put_u64(bytes + HEADER_CUT_LSN, header->cut_lsn);
    npk_put_u64(bytes + HEADER_PREVIOUS_SEQ, header->previous_seq);
    npk_put_u64(bytes + HEADER_PREVIOUS_END_LSN, header->previous_end_lsn);
    npk_put_u64(bytes + HEADER_PREVIOUS_END_CHECKSUM, header->previous_end_checksum);
    npk_put_u64(bytes + HEADER_CREATED, header->created_us);
    npk_put_u64(bytes + HEADER_CHECKSUM, npk_checksum(bytes, HEADER_CHECKSUM));
}

/* What a header with a fitting checksum must still fulfil so that no later sum can overflow or leave the file. */
static const char *header_contradiction(const npk_segment_header *h)
{
    if (h->seq == 0 || h->previous_seq >= h->seq)
        return "impossible sequence number";
    if (h->segment_size < NPK_WAL_SEGMENT_SIZE_MIN || h->segment_size > NPK_WAL_SEGMENT_SIZE_MAX ||
        h->segment_size % 4096)
        return "impossible segment size";
    if (h->first_lsn < NPK_WAL_FIRST_LSN || h->first_lsn % 8 || h->first_lsn > UINT64_MAX / 2)
        return "impossible first lsn";
    if (h->previous_end_lsn != h->first_lsn)
        return "first lsn is not the end of the previous segment";
    if (h->epoch == 0)
        return "impossible epoch";
    if (h->cut_epoch == 0)
        return h->cut_lsn ? "cut lsn without a cut epoch" : NULL;
    if (h->cut_epoch <= h->epoch)
        return "impossible cut epoch";
    if (h->cut_lsn < h->first_lsn || h->cut_lsn % 8 ||
        h->cut_lsn - h->first_lsn > npk_segment_area_end(h->segment_size) - NPK_WAL_HEADER_SIZE)
        return "cut lsn outside the segment";
    return NULL;
}

npk_status npk_segment_header_decode(const uint8_t *bytes, size_t size, npk_segment_header *header, const char **reason)
{
    const char *ignored;
    if (!reason)
        reason = &ignored;
    if (size < NPK_WAL_HEADER_SIZE) {
        *reason = "file too short for a header";
        return NPK_CORRUPT;
    }
    if (memcmp(bytes + HEADER_MAGIC, header_magic, sizeof header_magic) != 0) {
        *reason = "not a log segment";
        return NPK_CORRUPT;
    }
    /* Before the version: a flipped bit in the version is damage, not a newer program's work. */
    if (!npk_checksum_matches(bytes, HEADER_CHECKSUM, npk_get_u64(bytes + HEADER_CHECKSUM))) {
        *reason = "header checksum mismatch";
        return NPK_CORRUPT;
    }
    if (npk_get_u32(bytes + HEADER_VERSION) > FORMAT_VERSION) {
        *reason = "newer format version";
        return NPK_FORMAT;
    }
    if (npk_get_u32(bytes + HEADER_VERSION) != FORMAT_VERSION || npk_get_u32(bytes + HEADER_SIZE) != NPK_WAL_HEADER_SIZE ||
        !npk_is_zero(bytes + HEADER_ZERO, HEADER_CHECKSUM - HEADER_ZERO)) {
        *reason = "impossible header";
        return NPK_CORRUPT;
    }
    memcpy(header->uuid, bytes + HEADER_UUID, sizeof header->uuid);
    header->seq = npk_get_u64(bytes + HEADER_SEQ);
    header->segment_size = npk_get_u64(bytes + HEADER_SEGMENT_SIZE);
    header->first_lsn = npk_get_u64(bytes + HEADER_FIRST_LSN);
    header->epoch = npk_get_u32(bytes + HEADER_EPOCH);
    header->cut_epoch = npk_get_u32(bytes + HEADER_CUT_EPOCH);
    header->cut_lsn = npk_get_u64(bytes + HEADER_CUT_LSN);
    header->previous_seq = npk_get_u64(bytes + HEADER_PREVIOUS_SEQ);
    header->previous_end_lsn = npk_get_u64(bytes + HEADER_PREVIOUS_END_LSN);
    header->previous_end_checksum = npk_get_u64(bytes + HEADER_PREVIOUS_END_CHECKSUM);
    header->created_us = npk_get_u64(bytes + HEADER_CREATED);
    const char *contradiction = header_contradiction(header);
    if (contradiction) {
        *reason = contradiction;
        return NPK_CORRUPT;
    }
    return NPK_OK;
}

void npk_segment_mark_encode(const npk_segment_mark *mark, uint8_t *bytes)
{
    memset(bytes, 0, NPK_SEGMENT_MARK_SIZE);
    memcpy(bytes + MARK_MAGIC, mark_magic, sizeof mark_magic);
    npk_put_u64(bytes + MARK_SEQ, mark->seq);
    npk_put_u64(bytes + MARK_FIRST_LSN, mark->first_lsn);
    npk_put_u32(bytes + MARK_EPOCH, mark->epoch);
    npk_put_u64(bytes + MARK_CHECKSUM, npk_checksum(bytes, MARK_CHECKSUM));
}

bool npk_segment_mark_decode(const uint8_t *bytes, size_t size, npk_segment_mark *mark)
{
    if (size < MARK_END || memcmp(bytes + MARK_MAGIC, mark_magic, sizeof mark_magic) != 0 ||
        !npk_checksum_matches(bytes, MARK_CHECKSUM, npk_get_u64(bytes + MARK_CHECKSUM)) || npk_get_u32(bytes + MARK_ZERO) != 0)
        return false;
    mark->seq = npk_get_u64(bytes + MARK_SEQ);
    mark->first_lsn = npk_get_u64(bytes + MARK_FIRST_LSN);
    mark->epoch = npk_get_u32(bytes + MARK_EPOCH);
    return true;
}

/* ---- record ----------------------------------------------------------------------------------------------------- */

const char *npk_record_fault_text(npk_record_fault fault)
{
    switch (fault) {
    case NPK_RECORD_FAULT_NONE: return "valid";
    case NPK_RECORD_FAULT_SIZE: return "impossible record size";
    case NPK_RECORD_FAULT_LSN: return "lsn mismatch";
    case NPK_RECORD_FAULT_EPOCH: return "epoch mismatch";
    case NPK_RECORD_FAULT_RESERVED: return "reserved bytes are not zero";
    case NPK_RECORD_FAULT_CHECKSUM: return "checksum mismatch";
    }
    return "unknown fault";
}

void npk_record_header_encode(const npk_record_header *header, uint8_t *bytes)
{
    memset(bytes, 0, RECORD_END);
    bytes[RECORD_TYPE] = header->type;
    bytes[RECORD_FLAGS] = header->flags;
    npk_put_u32(bytes + RECORD_META_SIZE, header->meta_size);
    npk_put_u64(bytes + RECORD_LSN, header->lsn);
    npk_put_u32(bytes + RECORD_EPOCH, header->epoch);
    npk_put_u32(bytes + RECORD_DATA_SIZE, header->data_size);
    npk_put_u64(bytes + RECORD_TRANSACTION, header->transaction);
    npk_put_u64(bytes + RECORD_WATERMARK, header->watermark);
    npk_put_u32(bytes + RECORD_RAW_DATA_SIZE, header->raw_data_size);
}

uint64_t npk_record_seal(uint8_t *bytes, size_t size)
{
    uint64_t checksum = npk_checksum(bytes + RECORD_TYPE, size - RECORD_TYPE);
    npk_put_u64(bytes + RECORD_CHECKSUM, checksum);
    return checksum;
}

static bool sizes_fit(const npk_record_header *h, uint64_t room)
{
    if (npk_record_size(h->meta_size, h->data_size) > room)
        return false;
    if ((uint64_t)h->meta_size + h->raw_data_size > NPK_WAL_PAYLOAD_MAX)
        return false;
    return h->flags & NPK_RECORD_FLAG_PACKED ? h->data_size < h->raw_data_size : h->data_size == h->raw_data_size;
}

npk_record_fault npk_record_header_decode(const uint8_t *bytes, uint64_t room, const npk_record_bounds *bounds,
                                          npk_record_header *header)
{
    memset(header, 0, sizeof *header);
    if (room < RECORD_END)
        return NPK_RECORD_FAULT_SIZE;
    header->checksum = npk_get_u64(bytes + RECORD_CHECKSUM);
    header->type = bytes[RECORD_TYPE];
    header->flags = bytes[RECORD_FLAGS];
    header->meta_size = npk_get_u32(bytes + RECORD_META_SIZE);
    header->lsn = npk_get_u64(bytes + RECORD_LSN);
    header->epoch = npk_get_u32(bytes + RECORD_EPOCH);
    header->data_size = npk_get_u32(bytes + RECORD_DATA_SIZE);
    header->transaction = npk_get_u64(bytes + RECORD_TRANSACTION);
    header->watermark = npk_get_u64(bytes + RECORD_WATERMARK);
    header->raw_data_size = npk_get_u32(bytes + RECORD_RAW_DATA_SIZE);
    if (header->lsn != bounds->lsn)
        return NPK_RECORD_FAULT_LSN;
    if (header->epoch < bounds->epoch_min || (bounds->epoch_end && header->epoch >= bounds->epoch_end))
        return NPK_RECORD_FAULT_EPOCH;
    if (npk_get_u16(bytes + RECORD_ZERO_A) != 0 || !npk_is_zero(bytes + RECORD_ZERO_B, RECORD_END - RECORD_ZERO_B) ||
        header->flags & ~NPK_RECORD_FLAG_PACKED)
        return NPK_RECORD_FAULT_RESERVED;
    return sizes_fit(header, room) ? NPK_RECORD_FAULT_NONE : NPK_RECORD_FAULT_SIZE;
}

npk_record_fault npk_record_check(const uint8_t *bytes, uint64_t room, const npk_record_bounds *bounds,
                                  npk_record_header *header)
{
    npk_record_fault fault = npk_record_header_decode(bytes, room, bounds, header);
    if (fault)
        return fault;
    size_t size = (size_t)npk_record_size(header->meta_size, header->data_size);
    return npk_checksum_matches(bytes + RECORD_TYPE, size - RECORD_TYPE, header->checksum) ? NPK_RECORD_FAULT_NONE
                                                                                          : NPK_RECORD_FAULT_CHECKSUM;
}

/* ---- meta of the log's own records --------------------------------------------------------------------------------- */

void npk_commit_encode(uint64_t commit_us, uint32_t record_count, uint8_t meta[NPK_COMMIT_META_SIZE])
{
    npk_put_u64(meta, commit_us);
    npk_put_u32(meta + 8, record_count);
}

bool npk_commit_decode(const uint8_t *meta, size_t meta_size, uint64_t *commit_us, uint32_t *record_count)
{
    if (meta_size != NPK_COMMIT_META_SIZE)
        return false;
    *commit_us = npk_get_u64(meta);
    *record_count = npk_get_u32(meta + 8);
    return true;
}

void npk_void_encode(uint64_t first_lsn, uint8_t meta[NPK_VOID_META_SIZE])
{
    npk_put_u64(meta, first_lsn);
}

bool npk_void_decode(const uint8_t *meta, size_t meta_size, uint64_t *first_lsn)
{
    if (meta_size != NPK_VOID_META_SIZE)
        return false;
    *first_lsn = npk_get_u64(meta);
    return true;
}

/* ---- packed data ---------------------------------------------------------------------------------------------------- */

static size_t block_count_of(size_t raw_size)
{
    return (raw_size + NPK_PACK_BLOCK_SIZE - 1) / NPK_PACK_BLOCK_SIZE;
}

size_t npk_pack_encode(const uint8_t *raw, size_t size, uint8_t *out, size_t capacity)
{
    if (size == 0 || size > NPK_WAL_PAYLOAD_MAX)
        return 0;
    size_t count = block_count_of(size);
    size_t used = PACK_STORED_SIZES + 4 * count;
    if (used >= capacity)
        return 0;
    npk_put_u32(out + PACK_BLOCK_SIZE, NPK_PACK_BLOCK_SIZE);
    npk_put_u32(out + PACK_BLOCK_COUNT, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        size_t begin = i * NPK_PACK_BLOCK_SIZE;
        size_t raw_size = size - begin < NPK_PACK_BLOCK_SIZE ? size - begin : NPK_PACK_BLOCK_SIZE;
        size_t left = capacity - used;
        size_t room = raw_size - 1 < left ? raw_size - 1 : left; /* a block that saves nothing is stored raw */
        int packed = room ? LZ4_compress_default((const char *)raw + begin, (char *)out + used, (int)raw_size, (int)room) : 0;
        uint32_t stored = (uint32_t)packed;
        if (packed <= 0) {
            if (raw_size > left)
                return 0;
            memcpy(out + used, raw + begin, raw_size);
            stored = (uint32_t)raw_size | PACK_RAW_BIT;
        }
        npk_put_u32(out + PACK_STORED_SIZES + 4 * i, stored);
        used += stored & ~PACK_RAW_BIT;
    }
    return used;
}

bool npk_pack_table_decode(const uint8_t *bytes, size_t size, uint64_t stored_size, uint64_t raw_size,
                           npk_pack_table *table)
{
    if (raw_size == 0 || raw_size > NPK_WAL_PAYLOAD_MAX || stored_size > NPK_WAL_PAYLOAD_MAX)
        return false;
    size_t count = block_count_of((size_t)raw_size);
    uint64_t used = PACK_STORED_SIZES + 4 * count;
    if (used > size || used > stored_size)
        return false;
    if (npk_get_u32(bytes + PACK_BLOCK_SIZE) != NPK_PACK_BLOCK_SIZE || npk_get_u32(bytes + PACK_BLOCK_COUNT) != count)
        return false;
    table->count = (uint32_t)count;
    for (size_t i = 0; i < count; i++) {
        npk_pack_block *block = &table->blocks[i];
        uint32_t stored = npk_get_u32(bytes + PACK_STORED_SIZES + 4 * i);
        block->is_raw = (stored & PACK_RAW_BIT) != 0;
        block->stored_size = stored & ~PACK_RAW_BIT;
        block->raw_size = i + 1 < count ? NPK_PACK_BLOCK_SIZE : (uint32_t)(raw_size - i * NPK_PACK_BLOCK_SIZE);
        block->offset = (uint32_t)used;
        if (block->stored_size > stored_size - used)
            return false;
        if (block->is_raw ? block->stored_size != block->raw_size : block->stored_size == 0)
            return false;
        used += block->stored_size;
    }
    return used == stored_size;
}

bool npk_pack_block_decode(const npk_pack_block *block, const uint8_t *stored, uint8_t *out)
{
    if (block->is_raw) {
        memcpy(out, stored, block->raw_size);
        return true;
    }
    return LZ4_decompress_safe((const char *)stored, (char *)out, (int)block->stored_size, (int)block->raw_size) ==
           (int)block->raw_size;
}

/* ---- file names ----------------------------------------------------------------------------------------------------- */

void npk_segment_name(uint64_t seq, char name[NPK_WAL_NAME_SIZE])
{
    (void)snprintf(name, NPK_WAL_NAME_SIZE, "%016" PRIx64 ".wal", seq);
}

void npk_segment_cut_name(uint64_t seq, char name[NPK_WAL_NAME_SIZE])
{
    (void)snprintf(name, NPK_WAL_NAME_SIZE, "cut-%016" PRIx64 ".tmp", seq);
}

void npk_segment_spare_name(uint64_t random, char name[NPK_WAL_NAME_SIZE])
{
    (void)snprintf(name, NPK_WAL_NAME_SIZE, "spare-%016" PRIx64, random);
}

bool npk_segment_name_decode(const char *name, uint64_t *seq)
{
    uint64_t value = 0;
    for (size_t i = 0; i < 16; i++) {
        char c = name[i];
        if (c >= '0' && c <= '9')
            value = value << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value << 4 | (uint64_t)(c - 'a' + 10);
        else
            return false; /* the terminating zero as well */
    }
    if (strcmp(name + 16, ".wal") != 0 || value == 0)
        return false;
    *seq = value;
    return true;
}

bool npk_segment_name_is_spare(const char *name)
{
    return strncmp(name, "spare-", 6) == 0;
}

bool npk_wal_name_is_leftover(const char *name)
{
    size_t size = strlen(name);
    return npk_segment_name_is_spare(name) ||
           (strncmp(name, "cut-", 4) == 0 && size > 8 && strcmp(name + size - 4, ".tmp") == 0);
}
