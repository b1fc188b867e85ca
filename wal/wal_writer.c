/* wal_writer.c - appending: buffer, write, sync, roll, undo. All of it under the store's writer lock. */
#include "wal_writer.h"

#include <errno.h>
#include <string.h>

#include "alloc.h"
#include "bytes.h"
#include "error.h"

static npk_status check_usable(npk_wal *wal, npk_error *err)
{
    if (npk_wal_is_in_doubt(wal))
        return npk_fail(err, NPK_POISONED, "an earlier write or sync of the log failed");
    if (!wal->current)
        return npk_fail(err, NPK_MISUSE, "the log was not started for writing");
    return NPK_OK;
}

/* File offset of an LSN of the current segment. */
static uint64_t offset_of(const npk_wal *wal, uint64_t lsn)
{
    return NPK_WAL_HEADER_SIZE + (lsn - wal->end.first_lsn);
}

/* Everything buffered is written or forgotten: written and end are one. */
static void set_end(npk_wal *wal, const npk_wal_end *end)
{
    wal->end = *end;
    wal->written_lsn = end->lsn;
    wal->written_checksum = end->last_checksum;
    npk_buffer_clear(&wal->buffer);
}

/* ---- start ---------------------------------------------------------------------------------------------------------- */

/* A crash inside a roll, or inside the tail procedure, can leave a successor without the mark in its predecessor. The log is whole
 * without it, but the loss of the successor would go unseen: write it now. */
static npk_status complete_mark(npk_wal *wal, const npk_segment_header *header, npk_error *err)
{
    npk_segment *predecessor = NULL;
    if (header->previous_seq == 0)
        return NPK_OK;
    npk_status status = npk_segment_open(wal->io, wal->directory, wal->uuid, header->previous_seq, true, &predecessor, err);
    if (status == NPK_CORRUPT)
        return NPK_OK; /* reclaimed, or unreadable: not this writer's matter */
    if (status != NPK_OK)
        return status;
    const npk_segment_header *h = &predecessor->header;
    uint8_t bytes[64];
    npk_segment_mark mark = {header->seq, header->first_lsn, header->epoch}, found;
    if (predecessor->file_size < h->segment_size || h->first_lsn > header->first_lsn)
        goto end;
    status = npk_segment_read(predecessor, npk_segment_area_end(h->segment_size), bytes, sizeof bytes, err);
    if (status != NPK_OK || npk_segment_mark_decode(bytes, sizeof bytes, &found))
        goto end;
    status = npk_wal_sync_directory(wal, err); /* the mark may only say what is true after a power loss */
    if (status == NPK_OK)
        status = npk_segment_write_mark(predecessor, &mark, err);
    if (status == NPK_OK) {
        npk_wal_count_syncs(wal, 1);
        int rc = wal->io->sync(wal->io, predecessor->file);
        if (rc)
            status = npk_fail_errno(err, rc, "could not sync segment \"%s\"", predecessor->name);
    }
end:
    npk_segment_release(predecessor);
    return status;
}

static npk_status open_current(npk_wal *wal, const npk_wal_end *end, npk_segment **segment, npk_error *err)
{
    npk_segment *opened = NULL;
    npk_status status = npk_segment_open(wal->io, wal->directory, wal->uuid, end->seq, true, &opened, err);
    if (status != NPK_OK)
        return status;
    const npk_segment_header *h = &opened->header;
    const char *reason = NULL;
    if (h->cut_epoch)
        reason = "was cut and takes no more records";
    else if (h->epoch != end->epoch || h->first_lsn != end->first_lsn || h->segment_size != end->segment_size)
        reason = "is not the segment that was left";
    else if (opened->file_size < h->segment_size)
        reason = "is shorter than its header says";
    if (reason)
        status = npk_fail(err, NPK_CORRUPT, "segment \"%s\": %s", opened->name, reason);
    else
        status = complete_mark(wal, h, err);
    if (status == NPK_OK) {
        *segment = opened;
        opened = NULL;
    }
    npk_segment_release(opened);
    return status;
}

npk_status npk_wal_start(npk_wal *wal, const npk_wal_end *end, npk_error *err)
{
    bool was_in_doubt = npk_wal_is_in_doubt(wal);
    npk_segment *current = wal->current;
    bool is_same = current && !was_in_doubt && current->header.seq == end->seq && current->header.epoch == end->epoch &&
                   current->header.first_lsn == end->first_lsn && current->header.segment_size == end->segment_size;
    npk_wal_set_in_doubt(wal); /* until this has succeeded */
    if (end->lsn < end->first_lsn || end->lsn % 8 || end->segment_size < NPK_WAL_SEGMENT_SIZE_MIN ||
        end->segment_size > NPK_WAL_SEGMENT_SIZE_MAX ||
        end->lsn - end->first_lsn > npk_segment_area_end(end->segment_size) - NPK_WAL_HEADER_SIZE)
        return npk_fail(err, NPK_CORRUPT, "log end %llu lies outside its segment", (unsigned long long)end->lsn);
    npk_segment *opened = NULL;
    if (!is_same) {
        npk_status status = open_current(wal, end, &opened, err);
        if (status != NPK_OK)
            return npk_context(err, status, "go on with log");
        npk_wal_set_current(wal, opened);
    }
    set_end(wal, end);
    (void)pthread_mutex_lock(&wal->mutex);
    wal->generation++;
    wal->in_doubt = false;
    (void)pthread_mutex_unlock(&wal->mutex);
    return NPK_OK;
}

npk_wal_end npk_wal_get_end(const npk_wal *wal)
{
    return wal->end;
}

uint64_t npk_wal_written_lsn(const npk_wal *wal)
{
    return wal->written_lsn;
}

/* ---- write, sync, roll ---------------------------------------------------------------------------------------------- */

npk_status npk_wal_write(npk_wal *wal, npk_error *err)
{
    npk_status status = check_usable(wal, err);
    if (status != NPK_OK || wal->buffer.size == 0)
        return status;
    status = npk_io_write_full(wal->io, wal->current->file, offset_of(wal, wal->written_lsn), wal->buffer.data, wal->buffer.size,
                               wal->current->name, err);
    if (status != NPK_OK) {
        npk_wal_set_in_doubt(wal);
        return status;
    }
    (void)pthread_mutex_lock(&wal->mutex);
    wal->counters.bytes += wal->buffer.size;
    (void)pthread_mutex_unlock(&wal->mutex);
    wal->written_lsn = wal->end.lsn;
    wal->written_checksum = wal->end.last_checksum;
    npk_buffer_clear(&wal->buffer);
    return NPK_OK;
}

npk_status npk_wal_sync(npk_wal *wal, npk_error *err)
{
    npk_status status = npk_wal_write(wal, err);
    if (status != NPK_OK)
        return status;
    (void)pthread_mutex_lock(&wal->mutex);
    uint64_t generation = wal->generation;
    (void)pthread_mutex_unlock(&wal->mutex);
    return npk_wal_sync_file(wal, wal->current, generation, err);
}

static npk_status roll(npk_wal *wal, npk_error *err)
{
    npk_status status = npk_wal_sync(wal, err); /* step 1; a failure puts the log in doubt by itself */
    if (status != NPK_OK)
        return status;
    npk_segment_header header = {.seq = wal->end.seq + 1,
                                 .segment_size = wal->segment_size,
                                 .first_lsn = wal->end.lsn,
                                 .epoch = wal->end.epoch,
                                 .previous_seq = wal->end.seq,
                                 .previous_end_lsn = wal->end.lsn,
                                 .previous_end_checksum = wal->end.last_checksum,
                                 .created_us = wal->io->now_us(wal->io)};
    memcpy(header.uuid, wal->uuid, sizeof header.uuid);
    char name[NPK_WAL_NAME_SIZE];
    npk_segment_name(header.seq, name);
    npk_file_info info;
    bool renamed = false;
    npk_segment *segment = NULL;
    int rc = wal->io->info_at(wal->io, wal->directory, name, &info);
    if (rc == 0)
        status = npk_fail(err, NPK_CORRUPT, "segment \"%s\" is there already", name);
    else if (rc != ENOENT)
        status = npk_fail_errno(err, rc, "could not examine segment \"%s\"", name);
    else
        status = npk_wal_make_segment(wal, &header, wal->current, &renamed, &segment, err);
    if (status != NPK_OK) {
        /* Without room for the next segment nothing has changed but that the buffer is on disk: the log stays usable. */
        if (renamed || (status != NPK_NO_SPACE && status != NPK_NO_MEMORY))
            npk_wal_set_in_doubt(wal);
        return npk_context(err, status, "start the next log segment");
    }
    npk_wal_set_current(wal, segment);
    npk_wal_end end = wal->end;
    end.seq = header.seq;
    end.first_lsn = header.first_lsn;
    end.segment_size = header.segment_size;
    set_end(wal, &end);
    (void)pthread_mutex_lock(&wal->mutex);
    wal->counters.rolls++;
    (void)pthread_mutex_unlock(&wal->mutex);
    return NPK_OK;
}

/* ---- append and undo ------------------------------------------------------------------------------------------------ */

size_t npk_wal_payload_max(const npk_wal *wal)
{
    uint64_t room = npk_segment_area_end(wal->segment_size) - NPK_WAL_HEADER_SIZE;
    uint64_t overhead = npk_record_size(0, 0) + 2 * 7 + NPK_WAL_VOID_ROOM; /* padding of meta and of data */
    return (size_t)npk_min_u64(NPK_WAL_PAYLOAD_MAX, room - overhead);
}

/* Pack into out when it pays; 0: store raw. out has room for data_size bytes. */
static size_t try_pack(npk_wal *wal, const void *data, size_t data_size, uint8_t *out)
{
    if (data_size < NPK_WAL_PACK_SIZE_MIN)
        return 0;
    if (wal->pack_skip) {
        wal->pack_skip--;
        return 0;
    }
    size_t packed = npk_pack_encode(data, data_size, out, data_size - data_size / 8);
    if (packed) {
        wal->pack_backoff = 0;
    } else {
        if (wal->pack_backoff < NPK_WAL_PACK_BACKOFF_MAX)
            wal->pack_backoff++;
        wal->pack_skip = 1u << wal->pack_backoff;
    }
    return packed;
}

static bool fits(const npk_wal *wal, uint8_t type, uint64_t record_size)
{
    uint64_t room = npk_segment_area_end(wal->end.segment_size) - offset_of(wal, wal->end.lsn);
    return record_size + (type == NPK_RECORD_VOID ? 0 : NPK_WAL_VOID_ROOM) <= room;
}

npk_status npk_wal_append(npk_wal *wal, uint8_t type, uint64_t transaction, uint64_t watermark, const void *meta,
                          size_t meta_size, const void *data, size_t data_size, bool pack, npk_wal_place *place,
                          npk_error *err)
{
    npk_status status = check_usable(wal, err);
    if (status != NPK_OK)
        return status;
    size_t payload_max = npk_wal_payload_max(wal);
    if (meta_size > payload_max || data_size > payload_max - meta_size)
        return npk_fail(err, NPK_INVALID, "log record of %llu bytes is larger than %llu bytes",
                        (unsigned long long)meta_size + (unsigned long long)data_size, (unsigned long long)payload_max);
    if (watermark > wal->end.lsn)
        return npk_fail(err, NPK_INVALID, "watermark %llu lies behind the end of the log %llu",
                        (unsigned long long)watermark, (unsigned long long)wal->end.lsn);

    uint8_t *bytes = npk_buffer_reserve(&wal->buffer, (size_t)npk_record_size(meta_size, data_size));
    if (!bytes) {
        wal->buffer.failed = false; /* what was buffered is intact */
        return npk_fail(err, NPK_NO_MEMORY, "no memory for a log record");
    }
    size_t data_offset = (size_t)npk_record_data_offset(meta_size);
    size_t stored = pack ? try_pack(wal, data, data_size, bytes + data_offset) : 0;
    bool packed = stored != 0;
    if (!packed) {
        stored = data_size;
        if (data_size)
            memcpy(bytes + data_offset, data, data_size);
    }
    size_t record_size = (size_t)npk_record_size(meta_size, stored);
    memset(bytes + data_offset + stored, 0, record_size - data_offset - stored);
    if (meta_size)
        memcpy(bytes + NPK_RECORD_HEADER_SIZE, meta, meta_size);
    memset(bytes + NPK_RECORD_HEADER_SIZE + meta_size, 0, data_offset - NPK_RECORD_HEADER_SIZE - meta_size);

    if (!fits(wal, type, record_size)) {
        status = roll(wal, err);
        if (status != NPK_OK)
            return status;
        /* The roll wrote and emptied the buffer but kept its memory, with the new record somewhere behind. */
        memmove(wal->buffer.data, bytes, record_size);
        bytes = wal->buffer.data;
    }
    npk_record_header header = {.type = type,
                                .flags = packed ? NPK_RECORD_FLAG_PACKED : 0,
                                .meta_size = (uint32_t)meta_size,
                                .lsn = wal->end.lsn,
                                .epoch = wal->end.epoch,
                                .data_size = (uint32_t)stored,
                                .transaction = transaction,
                                .watermark = watermark,
                                .raw_data_size = (uint32_t)data_size};
    npk_record_header_encode(&header, bytes);
    uint64_t checksum = npk_record_seal(bytes, record_size);
    uint64_t offset = offset_of(wal, wal->end.lsn);
    npk_wal_place made = {header.lsn, wal->end.seq, offset, offset + data_offset, packed};
    wal->buffer.size += record_size;
    wal->end.lsn += record_size;
    wal->end.last_checksum = checksum;
    if (wal->buffer.size > NPK_WAL_BUFFER_MAX) {
        status = npk_wal_write(wal, err);
        if (status != NPK_OK)
            return status;
    }
    if (place)
        *place = made;
    return NPK_OK;
}

npk_status npk_wal_undo(npk_wal *wal, uint64_t lsn, uint64_t transaction, uint64_t watermark, npk_error *err)
{
    npk_status status = check_usable(wal, err);
    if (status != NPK_OK || lsn == wal->end.lsn)
        return status;
    if (lsn > wal->end.lsn || lsn % 8)
        return npk_fail(err, NPK_MISUSE, "lsn %llu was never the end of the log", (unsigned long long)lsn);

    /* Walk over what is buffered to the record that ends at lsn: its checksum is the last one again. */
    uint64_t position = wal->written_lsn;
    uint64_t checksum = wal->written_checksum;
    while (position < lsn) {
        const uint8_t *bytes = wal->buffer.data + (position - wal->written_lsn);
        npk_record_bounds bounds = {position, wal->end.epoch, 0};
        npk_record_header header;
        if (npk_record_header_decode(bytes, wal->end.lsn - position, &bounds, &header))
            break;
        position += npk_record_size(header.meta_size, header.data_size);
        checksum = header.checksum;
    }
    if (lsn >= wal->written_lsn && position != lsn)
        return npk_fail(err, NPK_MISUSE, "lsn %llu was never the end of the log", (unsigned long long)lsn);
    wal->buffer.size = (size_t)(position - wal->written_lsn);
    wal->end.lsn = position;
    wal->end.last_checksum = checksum;
    if (lsn >= wal->written_lsn)
        return NPK_OK;
    uint8_t meta[NPK_VOID_META_SIZE];
    npk_void_encode(lsn, meta);
    return npk_wal_append(wal, NPK_RECORD_VOID, transaction, npk_min_u64(watermark, wal->end.lsn), meta, sizeof meta, NULL, 0,
                          false, NULL, err);
}
