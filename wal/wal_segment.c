/* wal_segment.c - one segment file: opened, read, created, marked. */
#include "wal_segment.h"

#include <errno.h>
#include <string.h>

#include "alloc.h"
#include "bytes.h"
#include "checksum.h"
#include "error.h"

/* Segments are filled a page at a time: the page cache keeps what is written in pieces as large as the write, and each later append and sync walks
 * over all blocks of its piece. A one-row commit of 432 bytes took 120 us in pieces of 1 MiB and 110 us in pages; filling 16 MiB takes 6 ms
 * more, in the background. */
#define WRITE_SIZE 4096u

npk_status npk_segment_wrap(const npk_io *io, npk_file *file, uint64_t file_size, const npk_segment_header *header,
                            npk_segment **segment, npk_error *err)
{
    npk_segment *made = npk_calloc(1, sizeof *made);
    if (!made)
        return npk_fail(err, NPK_NO_MEMORY, "no memory for a log segment");
    int rc = pthread_mutex_init(&made->sync_mutex, NULL);
    if (rc) {
        npk_free(made);
        return npk_fail_errno(err, rc, "could not make a mutex");
    }
    made->io = io;
    made->file = file;
    made->file_size = file_size;
    made->header = *header;
    npk_segment_name(header->seq, made->name);
    atomic_init(&made->reference_count, 1);
    atomic_init(&made->bytes, NULL);
    *segment = made;
    return NPK_OK;
}

npk_segment *npk_segment_retain(npk_segment *segment)
{
    (void)atomic_fetch_add(&segment->reference_count, 1);
    return segment;
}

void npk_segment_release(npk_segment *segment)
{
    if (!segment || atomic_fetch_sub(&segment->reference_count, 1) != 1)
        return;
    void *bytes = atomic_load(&segment->bytes);
    if (bytes)
        segment->io->unmap(segment->io, bytes, (size_t)segment->file_size);
    segment->io->close(segment->io, segment->file);
    (void)pthread_mutex_destroy(&segment->sync_mutex);
    npk_free(segment);
}

npk_status npk_segment_open(const npk_io *io, npk_file *directory, const uint8_t uuid[16], uint64_t seq, bool writable,
                            npk_segment **segment, npk_error *err)
{
    char name[NPK_WAL_NAME_SIZE];
    npk_segment_name(seq, name);
    npk_file *file = NULL;
    int rc = io->open(io, directory, name, writable ? NPK_OPEN_WRITE : NPK_OPEN_READ, &file);
    if (rc == ENOENT)
        return npk_fail(err, NPK_CORRUPT, "segment \"%s\": missing", name);
    if (rc)
        return npk_fail_errno(err, rc, "could not open segment \"%s\"", name);

    uint8_t *bytes = npk_alloc(NPK_WAL_HEADER_SIZE);
    npk_status status = bytes ? NPK_OK : npk_fail(err, NPK_NO_MEMORY, "no memory for a segment header");
    npk_file_info info = {0};
    size_t done = 0;
    npk_segment_header header;
    const char *reason = NULL;
    if (status == NPK_OK) {
        rc = io->info(io, file, &info);
        if (rc)
            status = npk_fail_errno(err, rc, "could not examine segment \"%s\"", name);
    }
    if (status == NPK_OK)
        status = npk_io_read_full(io, file, 0, bytes, NPK_WAL_HEADER_SIZE, &done, name, err);
    if (status == NPK_OK) {
        status = npk_segment_header_decode(bytes, done, &header, &reason);
        if (status == NPK_OK && header.seq != seq) {
            status = NPK_CORRUPT;
            reason = "header names another sequence number";
        }
        if (status == NPK_OK && memcmp(header.uuid, uuid, sizeof header.uuid) != 0) {
            status = NPK_CORRUPT;
            reason = "belongs to another store";
        }
        if (status != NPK_OK)
            status = npk_fail(err, status, "segment \"%s\": %s", name, reason);
    }
    if (status == NPK_OK)
        status = npk_segment_wrap(io, file, info.size, &header, segment, err);
    if (status != NPK_OK)
        io->close(io, file);
    npk_free(bytes);
    return status;
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

npk_status npk_segment_read(npk_segment *segment, uint64_t offset, void *out, size_t size, npk_error *err)
{
    if (offset > segment->file_size || size > segment->file_size - offset)
        return npk_fail(err, NPK_CORRUPT, "segment \"%s\": offset %llu: %llu bytes reach behind the file's end", segment->name,
                        (unsigned long long)offset, (unsigned long long)size);
    return npk_io_read_full(segment->io, segment->file, offset, out, size, NULL, segment->name, err);
}

const uint8_t *npk_segment_bytes(npk_segment *segment, uint64_t *size)
{
    *size = segment->file_size;
    void *bytes = atomic_load_explicit(&segment->bytes, memory_order_acquire);
    if (bytes || segment->file_size == 0 || segment->file_size > SIZE_MAX)
        return bytes;
    void *mapped = NULL;
    if (segment->io->map(segment->io, segment->file, 0, (size_t)segment->file_size, NPK_MAPPING_READ, &mapped) != 0)
        return NULL;
    if (atomic_compare_exchange_strong(&segment->bytes, &bytes, mapped))
        return mapped;
    segment->io->unmap(segment->io, mapped, (size_t)segment->file_size); /* another thread was faster */
    return bytes;
}

static npk_status bad_record(const npk_segment *segment, uint64_t offset, const char *reason, npk_error *err)
{
    return npk_fail(err, NPK_CORRUPT, "segment \"%s\": offset %llu: %s", segment->name, (unsigned long long)offset, reason);
}

/* Bytes of one record's stored data: from memory when the record was read whole for its checksum, else from the file. */
typedef struct stored_data {
    npk_segment *segment;
    uint64_t offset;       /* in the file */
    const uint8_t *memory; /* NULL: read the file */
} stored_data;

static npk_status stored_read(const stored_data *stored, uint64_t first, void *out, size_t size, npk_error *err)
{
    if (!stored->memory)
        return npk_segment_read(stored->segment, stored->offset + first, out, size, err);
    memcpy(out, stored->memory + first, size);
    return NPK_OK;
}

/* Decode the blocks that cover [first, first + size). */
static npk_status read_packed(const stored_data *stored, uint64_t record_offset, const npk_record_header *header,
                              uint64_t first, uint8_t *out, size_t size, npk_error *err)
{
    uint8_t table_bytes[NPK_PACK_TABLE_SIZE_MAX];
    size_t table_size = (size_t)npk_min_u64(sizeof table_bytes, header->data_size);
    npk_pack_table table;
    npk_status status = stored_read(stored, 0, table_bytes, table_size, err);
    if (status != NPK_OK)
        return status;
    if (!npk_pack_table_decode(table_bytes, table_size, header->data_size, header->raw_data_size, &table))
        return bad_record(stored->segment, record_offset, "impossible table of packed blocks", err);

    uint8_t *scratch = npk_alloc(2 * (size_t)NPK_PACK_BLOCK_SIZE);
    if (!scratch)
        return npk_fail(err, NPK_NO_MEMORY, "no memory to unpack a record");
    uint8_t *unpacked = scratch + NPK_PACK_BLOCK_SIZE;
    while (size && status == NPK_OK) {
        const npk_pack_block *block = &table.blocks[first / NPK_PACK_BLOCK_SIZE];
        size_t skip = (size_t)(first % NPK_PACK_BLOCK_SIZE);
        size_t part = (size_t)npk_min_u64(size, block->raw_size - skip);
        if (block->stored_size > NPK_PACK_BLOCK_SIZE) { /* lz4 is kept only where it is smaller than the block */
            status = bad_record(stored->segment, record_offset, "packed block is too large", err);
            break;
        }
        status = stored_read(stored, block->offset, scratch, block->stored_size, err);
        if (status != NPK_OK)
            break;
        if (!npk_pack_block_decode(block, scratch, unpacked)) {
            status = bad_record(stored->segment, record_offset, "packed block cannot be decoded", err);
            break;
        }
        memcpy(out, unpacked + skip, part);
        out += part;
        first += part;
        size -= part;
    }
    npk_free(scratch);
    return status;
}

npk_status npk_segment_read_data(npk_segment *segment, uint64_t record_offset, uint64_t first, void *out, size_t size,
                                 bool check, npk_error *err)
{
    const npk_segment_header *h = &segment->header;
    uint64_t end = npk_min_u64(npk_segment_area_end(h->segment_size), segment->file_size);
    if (record_offset < NPK_WAL_HEADER_SIZE || record_offset % 8 || record_offset > end ||
        end - record_offset < NPK_RECORD_HEADER_SIZE)
        return bad_record(segment, record_offset, "no record can lie here", err);
    uint64_t room = end - record_offset;
    uint8_t header_bytes[NPK_RECORD_HEADER_SIZE];
    npk_status status = npk_segment_read(segment, record_offset, header_bytes, sizeof header_bytes, err);
    if (status != NPK_OK)
        return status;
    /* The epoch is not checked above its minimum: this header may be older than a cut, and the caller's place is a kept one. */
    npk_record_bounds bounds = {h->first_lsn + (record_offset - NPK_WAL_HEADER_SIZE), h->epoch, 0};
    npk_record_header header;
    npk_record_fault fault = npk_record_header_decode(header_bytes, room, &bounds, &header);
    if (fault)
        return bad_record(segment, record_offset, npk_record_fault_text(fault), err);
    if (first > header.raw_data_size || size > header.raw_data_size - first)
        return bad_record(segment, record_offset, "the record holds less data", err);

    stored_data stored = {segment, record_offset + npk_record_data_offset(header.meta_size), NULL};
    uint8_t *record = NULL;
    if (check) {
        size_t record_size = (size_t)npk_record_size(header.meta_size, header.data_size);
        record = npk_alloc(record_size);
        if (!record)
            return npk_fail(err, NPK_NO_MEMORY, "no memory to check a record");
        status = npk_segment_read(segment, record_offset, record, record_size, err);
        if (status == NPK_OK) {
            fault = npk_record_check(record, record_size, &bounds, &header);
            if (fault)
                status = bad_record(segment, record_offset, npk_record_fault_text(fault), err);
        }
        stored.memory = record + npk_record_data_offset(header.meta_size);
        /* Read twice, and the second header was checked anew: its sizes decide from here on. */
        if (status == NPK_OK && (first > header.raw_data_size || size > header.raw_data_size - first))
            status = bad_record(segment, record_offset, "the record holds less data", err);
    }
    if (status == NPK_OK && size)
        status = header.flags & NPK_RECORD_FLAG_PACKED
                     ? read_packed(&stored, record_offset, &header, first, out, size, err)
                     : stored_read(&stored, first, out, size, err);
    npk_free(record);
    return status;
}

/* ---- creating --------------------------------------------------------------------------------------------------- */

npk_status npk_segment_fill(const npk_io *io, npk_file *file, uint64_t size, bool quick, const char *name, npk_error *err)
{
    if (quick) {
        int rc = io->allocate(io, file, 0, size);
        if (rc == 0)
            return NPK_OK;
        if (rc != EOPNOTSUPP && rc != ENOSYS)
            return npk_fail_errno(err, rc, "could not allocate %llu bytes for file \"%s\"", (unsigned long long)size, name);
    }
    uint8_t *zeros = npk_calloc(1, WRITE_SIZE);
    if (!zeros)
        return npk_fail(err, NPK_NO_MEMORY, "no memory to fill file \"%s\"", name);
    npk_status status = NPK_OK;
    for (uint64_t offset = 0; offset < size && status == NPK_OK; offset += WRITE_SIZE)
        status = npk_io_write_full(io, file, offset, zeros, (size_t)npk_min_u64(WRITE_SIZE, size - offset), name, err);
    npk_free(zeros);
    return status;
}

/* Open the prepared file if it serves: it may have been removed, or made for another segment size. */
static npk_file *open_spare(const npk_io *io, npk_file *directory, const char *spare, uint64_t size)
{
    npk_file *file = NULL;
    npk_file_info info;
    if (io->open(io, directory, spare, NPK_OPEN_WRITE, &file) != 0)
        return NULL;
    if (io->info(io, file, &info) == 0 && info.size == size)
        return file;
    io->close(io, file);
    (void)io->unlink(io, directory, spare);
    return NULL;
}

static npk_status make_file(const npk_io *io, npk_file *directory, uint64_t size, char name[NPK_WAL_NAME_SIZE],
                            npk_file **file, npk_error *err)
{
    uint64_t random;
    int rc = io->random(io, &random, sizeof random);
    if (rc)
        return npk_fail_errno(err, rc, "could not get a random number");
    npk_segment_spare_name(random, name);
    rc = io->open(io, directory, name, NPK_OPEN_WRITE | NPK_OPEN_CREATE | NPK_OPEN_EXCLUSIVE, file);
    if (rc)
        return npk_fail_errno(err, rc, "could not create file \"%s\"", name);
    npk_status status = npk_segment_fill(io, *file, size, true, name, err);
    if (status != NPK_OK) {
        io->close(io, *file);
        *file = NULL;
        (void)io->unlink(io, directory, name);
    }
    return status;
}

static npk_status write_and_sync_header(const npk_io *io, npk_file *file, const npk_segment_header *header,
                                        const char *name, uint64_t *sync_count, npk_error *err)
{
    uint8_t *bytes = npk_alloc(NPK_WAL_HEADER_SIZE);
    if (!bytes)
        return npk_fail(err, NPK_NO_MEMORY, "no memory for a segment header");
    npk_segment_header_encode(header, bytes);
    npk_status status = npk_io_write_full(io, file, 0, bytes, NPK_WAL_HEADER_SIZE, name, err);
    npk_free(bytes);
    if (status != NPK_OK)
        return status;
    (*sync_count)++;
    int rc = io->sync(io, file);
    return rc ? npk_fail_errno(err, rc, "could not sync file \"%s\"", name) : NPK_OK;
}

npk_status npk_segment_create(const npk_io *io, npk_file *directory, const npk_segment_header *header, const char *spare,
                              bool *renamed, uint64_t *sync_count, npk_segment **segment, npk_error *err)
{
    char seq_name[NPK_WAL_NAME_SIZE], name[NPK_WAL_NAME_SIZE];
    npk_segment_name(header->seq, seq_name);
    *renamed = false;
    npk_file *file = NULL;
    npk_status status = NPK_OK;
    int rc = ENOENT;
    if (spare) {
        file = open_spare(io, directory, spare, header->segment_size);
        if (file) {
            memcpy(name, spare, strlen(spare) + 1);
            status = write_and_sync_header(io, file, header, name, sync_count, err);
            if (status != NPK_OK)
                goto fail;
            rc = io->rename(io, directory, name, seq_name);
            if (rc) { /* removed by somebody meanwhile */
                io->close(io, file);
                file = NULL;
                (void)io->unlink(io, directory, name);
            }
        }
    }
    if (!file) {
        status = make_file(io, directory, header->segment_size, name, &file, err);
        if (status != NPK_OK)
            return status;
        status = write_and_sync_header(io, file, header, name, sync_count, err);
        if (status != NPK_OK)
            goto fail;
        rc = io->rename(io, directory, name, seq_name);
        if (rc) {
            status = npk_fail_errno(err, rc, "could not rename \"%s\" to \"%s\"", name, seq_name);
            goto fail;
        }
    }
    *renamed = true;
    memcpy(name, seq_name, sizeof name);
    (*sync_count)++;
    rc = io->sync(io, directory);
    if (rc) {
        status = npk_fail_errno(err, rc, "could not sync the directory of \"%s\"", seq_name);
        goto fail;
    }
    status = npk_segment_wrap(io, file, header->segment_size, header, segment, err);
    if (status == NPK_OK)
        return NPK_OK;
fail:
    io->close(io, file);
    (void)io->unlink(io, directory, name);
    return status;
}

npk_status npk_segment_write_mark(npk_segment *segment, const npk_segment_mark *mark, npk_error *err)
{
    uint8_t *bytes = npk_alloc(NPK_SEGMENT_MARK_SIZE);
    if (!bytes)
        return npk_fail(err, NPK_NO_MEMORY, "no memory for a successor mark");
    npk_segment_mark_encode(mark, bytes);
    npk_status status = npk_io_write_full(segment->io, segment->file, npk_segment_area_end(segment->header.segment_size), bytes,
                                          NPK_SEGMENT_MARK_SIZE, segment->name, err);
    npk_free(bytes);
    return status;
}
