/* wal_salvage.c - reading what is left of a damaged log: on past bytes that hold no record, past segments that are missing, and into
 * segments whose header is damaged. The scan (wal_reader.c) stops where proof ends; this goes on where it can and says what it passed over.
 *
 * Believed is what the scan believes: records whose checksum, position and epoch fit, and transactions that are whole. Below the floor (what is
 * proven to have been synced) a position without a valid record is a gap, and reading goes on at the next valid record; at or above it such a
 * position is the end, since what lies behind may be the remnants of an append that never was. */
#include "wal_salvage.h"

#include <string.h>

#include "alloc.h"
#include "bytes.h"
#include "error.h"
#include "wal_reader.h"

/* ---- segments without a header --------------------------------------------------------------------------------------- */

/* What the header must have said, from the first valid record: its LSN field and its offset give the segment's first LSN. */
static bool guess_from_records(const uint8_t *bytes, uint64_t size, npk_segment_header *header)
{
    uint64_t budget = 16 * size; /* as npk_wal_search: forged bytes do not make this quadratic */
    for (uint64_t offset = NPK_WAL_HEADER_SIZE; offset + NPK_RECORD_HEADER_SIZE <= size; offset += 8) {
        uint64_t lsn = npk_get_u64(bytes + offset + 16);
        if (lsn < offset || lsn % 8 || lsn > INT64_MAX)
            continue;
        npk_record_bounds bounds = {lsn, 0, 0};
        npk_record_header record;
        npk_record_fault fault = npk_record_check(bytes + offset, size - offset, &bounds, &record);
        if (fault == NPK_RECORD_FAULT_NONE) {
            header->first_lsn = header->previous_end_lsn = lsn - (offset - NPK_WAL_HEADER_SIZE);
            header->epoch = record.epoch;
            return true;
        }
        if (fault == NPK_RECORD_FAULT_CHECKSUM) {
            uint64_t hashed = npk_record_size(record.meta_size, record.data_size);
            if (hashed > budget)
                return false;
            budget -= hashed;
        }
    }
    return false;
}

npk_status npk_wal_guess_header(npk_wal *wal, npk_file *file, uint64_t seq, npk_segment_header *header, bool *guessed,
                                npk_error *err)
{
    const npk_io *io = wal->io;
    char name[NPK_WAL_NAME_SIZE];
    npk_segment_name(seq, name);
    *guessed = false;
    npk_file_info info;
    int rc = io->info(io, file, &info);
    if (rc)
        return npk_fail_errno(err, rc, "could not examine segment \"%s\"", name);
    uint64_t size = info.size & ~(uint64_t)4095;
    if (size < NPK_WAL_SEGMENT_SIZE_MIN || size > NPK_WAL_SEGMENT_SIZE_MAX)
        return NPK_OK;
    uint8_t *bytes = npk_alloc((size_t)size);
    if (!bytes)
        return npk_fail(err, NPK_NO_MEMORY, "no memory for segment \"%s\"", name);
    size_t done = 0;
    npk_status status = npk_io_read_full(io, file, 0, bytes, (size_t)size, &done, name, err);
    memset(header, 0, sizeof *header);
    memcpy(header->uuid, wal->uuid, sizeof header->uuid);
    header->seq = seq;
    header->segment_size = size;
    /* A header that can be read is not this store's or not this segment's: then nor are its records. */
    npk_segment_header read;
    if (status == NPK_OK && done == size && npk_segment_header_decode(bytes, done, &read, NULL) == NPK_CORRUPT)
        *guessed = guess_from_records(bytes, npk_segment_area_end(size), header);
    npk_free(bytes);
    return status;
}

npk_status npk_wal_open_headless(npk_wal *wal, uint64_t seq, npk_segment **segment, npk_error *err)
{
    char name[NPK_WAL_NAME_SIZE];
    npk_segment_name(seq, name);
    npk_file *file = NULL;
    int rc = wal->io->open(wal->io, wal->directory, name, NPK_OPEN_READ, &file);
    if (rc)
        return npk_fail(err, NPK_CORRUPT, "segment \"%s\": missing", name);
    npk_segment_header header;
    bool guessed = false;
    npk_status status = npk_wal_guess_header(wal, file, seq, &header, &guessed, err);
    if (status == NPK_OK && !guessed)
        status = npk_fail(err, NPK_CORRUPT, "segment \"%s\": header is damaged and no record is valid", name);
    if (status == NPK_OK)
        status = npk_segment_wrap(wal->io, file, header.segment_size, &header, segment, err);
    if (status != NPK_OK)
        wal->io->close(wal->io, file);
    return status;
}

/* ---- reading ---------------------------------------------------------------------------------------------------------- */

typedef struct kept_record {
    npk_record record; /* meta is set at the visit: the buffer moves while it grows */
    size_t meta_offset;
} kept_record;

typedef struct reader {
    npk_wal *wal;
    npk_wal_salvage *salvage;
    npk_error *err;
    npk_wal_entries entries;
    npk_wal_loaded loaded;
    uint64_t position;   /* LSN: everything below was read or passed over */
    uint64_t floor;
    uint64_t last_gap_end;
    npk_buffer kept;     /* kept_record[], of transactions that have no commit record yet */
    npk_buffer metas;
    bool stopped;
} reader;

static npk_status visit_kept(reader *r, kept_record *kept, bool whole)
{
    kept->record.meta = r->metas.data + kept->meta_offset;
    return r->salvage->visit(r->salvage->context, &kept->record, whole, r->err);
}

static npk_status pass_over(reader *r, uint64_t end, uint64_t seq, uint64_t offset, const char *reason)
{
    uint64_t first = r->position;
    if (end <= first)
        return NPK_OK;
    r->position = r->last_gap_end = end;
    r->salvage->gap_count++;
    return r->salvage->gap(r->salvage->context, first, end, seq, offset, reason, r->err);
}

static npk_status keep(reader *r, const npk_record_header *header, uint64_t offset)
{
    kept_record kept = {.record = {.type = header->type,
                                   .place = {header->lsn, r->loaded.header.seq, offset,
                                             offset + npk_record_data_offset(header->meta_size),
                                             (header->flags & NPK_RECORD_FLAG_PACKED) != 0},
                                   .transaction = header->transaction,
                                   .watermark = header->watermark,
                                   .meta_size = header->meta_size,
                                   .raw_data_size = header->raw_data_size},
                        .meta_offset = r->metas.size};
    npk_buffer_put(&r->metas, r->loaded.bytes.data + offset + NPK_RECORD_HEADER_SIZE, header->meta_size);
    npk_buffer_put(&r->kept, &kept, sizeof kept);
    return r->metas.failed || r->kept.failed ? npk_fail(r->err, NPK_NO_MEMORY, "no memory for an incomplete transaction")
                                             : NPK_OK;
}

static void undo(reader *r, uint64_t transaction, uint64_t first_lsn)
{
    kept_record *kept = (kept_record *)(void *)r->kept.data;
    size_t count = r->kept.size / sizeof *kept;
    while (count && kept[count - 1].record.place.lsn >= first_lsn && kept[count - 1].record.transaction == transaction)
        r->metas.size = kept[--count].meta_offset;
    r->kept.size = count * sizeof *kept;
}

static npk_status commit(reader *r, const npk_record_header *header, uint64_t offset)
{
    npk_wal_salvage *salvage = r->salvage;
    const uint8_t *meta = r->loaded.bytes.data + offset + NPK_RECORD_HEADER_SIZE;
    uint64_t commit_us, end = header->lsn + npk_record_size(header->meta_size, header->data_size);
    uint32_t record_count, own_count = 0;
    if (!npk_commit_decode(meta, header->meta_size, &commit_us, &record_count))
        return pass_over(r, end, r->loaded.header.seq, offset, "a commit record that cannot be read");
    if ((salvage->stop_lsn && end > salvage->stop_lsn) || (salvage->stop_us && commit_us > salvage->stop_us)) {
        r->stopped = true;
        return NPK_OK;
    }
    kept_record *kept = (kept_record *)(void *)r->kept.data;
    size_t count = r->kept.size / sizeof *kept;
    for (size_t i = 0; i < count; i++)
        own_count += kept[i].record.transaction == header->transaction;
    bool whole = own_count == record_count;
    npk_status status = NPK_OK;
    /* What belongs to other transactions lost its commit record. */
    for (size_t i = 0; i < count && status == NPK_OK; i++)
        status = visit_kept(r, &kept[i], whole && kept[i].record.transaction == header->transaction);
    r->kept.size = 0;
    npk_buffer_clear(&r->metas);
    if (status != NPK_OK)
        return status;
    npk_record record = {.type = NPK_RECORD_COMMIT,
                         .place = {header->lsn, r->loaded.header.seq, offset,
                                   offset + npk_record_data_offset(header->meta_size), false},
                         .transaction = header->transaction,
                         .watermark = header->watermark,
                         .meta = meta,
                         .meta_size = header->meta_size,
                         .raw_data_size = header->raw_data_size};
    status = salvage->visit(salvage->context, &record, whole, r->err);
    if (whole) {
        const npk_segment_header *h = &r->loaded.header;
        salvage->end = (npk_wal_end){end, header->epoch, h->seq, h->first_lsn, h->segment_size, header->checksum};
        salvage->last_commit_us = commit_us;
        salvage->transaction_count++;
    } else {
        salvage->lost_transaction_count++;
    }
    return status;
}

static npk_status take(reader *r, const npk_record_header *header, uint64_t offset)
{
    npk_status status = NPK_OK;
    uint64_t first_lsn;
    if (header->type == NPK_RECORD_COMMIT)
        status = commit(r, header, offset);
    else if (header->type == NPK_RECORD_VOID &&
             npk_void_decode(r->loaded.bytes.data + offset + NPK_RECORD_HEADER_SIZE, header->meta_size, &first_lsn))
        undo(r, header->transaction, first_lsn);
    else if (header->type >= NPK_RECORD_FIRST_OP)
        status = keep(r, header, offset);
    if (status == NPK_OK && !r->stopped)
        r->position = npk_max_u64(r->position, header->lsn + npk_record_size(header->meta_size, header->data_size));
    return status;
}

/* Watermarks of the valid records from offset on prove what was synced before them. */
static void raise_floor(reader *r, uint64_t offset)
{
    npk_record_header header;
    while (offset < r->loaded.end_offset) {
        offset = npk_wal_search(&r->loaded, offset, r->loaded.end_offset, &header);
        if (offset >= r->loaded.end_offset)
            break;
        r->floor = npk_max_u64(r->floor, npk_min_u64(header.watermark, header.lsn));
        offset += npk_record_size(header.meta_size, header.data_size);
    }
}

static npk_status read_segment(reader *r, size_t index)
{
    const npk_wal_entry *entry = &r->entries.items[index];
    size_t next = npk_wal_entries_next(&r->entries, index);
    bool is_last = next == r->entries.count;
    npk_status status = npk_wal_load(r->wal, entry, &r->loaded, r->err);
    if (status == NPK_NOT_FOUND)
        return NPK_OK; /* passed over by the segment behind it */
    if (status != NPK_OK)
        return status;
    const npk_segment_header *h = &r->loaded.header;
    status = pass_over(r, h->first_lsn, entry->seq, 0, "log segments are missing");
    bool searched = false;
    while (status == NPK_OK && !r->stopped) {
        uint64_t offset = NPK_WAL_HEADER_SIZE + (r->position - h->first_lsn);
        uint64_t limit = is_last ? UINT64_MAX : r->entries.items[next].header.first_lsn;
        if (r->position >= limit || (r->salvage->stop_lsn && r->position >= r->salvage->stop_lsn))
            return NPK_OK;
        npk_record_header header;
        npk_record_fault fault = NPK_RECORD_FAULT_SIZE;
        if (offset < r->loaded.end_offset)
            status = npk_wal_loaded_check(&r->loaded, offset, &header, &fault, r->err);
        if (status != NPK_OK)
            return status;
        if (fault == NPK_RECORD_FAULT_NONE) {
            status = take(r, &header, offset);
            continue;
        }
        status = npk_wal_loaded_need(&r->loaded, r->loaded.end_offset, r->err);
        if (status != NPK_OK)
            return status;
        uint64_t found = offset < r->loaded.end_offset ? npk_wal_search(&r->loaded, offset, r->loaded.end_offset, &header)
                                                       : r->loaded.end_offset;
        bool is_there = found < r->loaded.end_offset && npk_wal_loaded_lsn(&r->loaded, found) < limit;
        if (is_last && !searched) {
            raise_floor(r, offset);
            searched = true;
        }
        const char *reason = offset < r->loaded.end_offset ? npk_record_fault_text(fault) : "the segment ends early";
        if (is_last && r->position >= r->floor)
            return NPK_OK; /* the end */
        if (is_there)
            status = pass_over(r, npk_wal_loaded_lsn(&r->loaded, found), entry->seq, offset, reason);
        else
            return pass_over(r, is_last ? r->floor : limit, entry->seq, offset, reason);
    }
    return status;
}

/* What is known without looking at records. */
static void find_floor(reader *r)
{
    r->floor = npk_max_u64(r->salvage->durable_floor, r->salvage->from_lsn);
    for (size_t i = 0; i < r->entries.count; i++) {
        const npk_wal_entry *entry = &r->entries.items[i];
        if (!npk_wal_entry_is_live(entry))
            continue;
        r->floor = npk_max_u64(r->floor, entry->header.first_lsn);
        if (entry->has_mark)
            r->floor = npk_max_u64(r->floor, entry->mark.first_lsn);
        if (entry->header.cut_epoch)
            r->floor = npk_max_u64(r->floor, entry->header.cut_lsn);
    }
}

/* Is a segment known of that comes behind all that can be read? Its mark in the last one, or its name, says that it was there; nothing says how long
 * it was. */
static bool is_successor_lost(const reader *r)
{
    const npk_wal_entry *last = NULL;
    bool unreadable = false;
    for (size_t i = 0; i < r->entries.count; i++) {
        if (npk_wal_entry_is_live(&r->entries.items[i])) {
            last = &r->entries.items[i];
            unreadable = false;
        } else if (r->entries.items[i].status != NPK_OK) {
            unreadable = true;
        }
    }
    return unreadable || (last && last->has_mark);
}

/* Transactions whose commit record may lie in the last gap are lost; those that merely were never committed are not. */
static npk_status finish(reader *r)
{
    npk_status status = NPK_OK;
    if (!r->stopped && (!r->salvage->stop_lsn || r->position < r->salvage->stop_lsn)) {
        status = pass_over(r, r->floor, 0, 0, "log segments are missing");
        if (status == NPK_OK && is_successor_lost(r)) {
            r->last_gap_end = UINT64_MAX;
            r->salvage->gap_count++;
            status = r->salvage->gap(r->salvage->context, r->position, 0, 0, 0, "the last log segment is missing or cannot be read", r->err);
        }
    }
    kept_record *kept = (kept_record *)(void *)r->kept.data;
    for (size_t i = 0; i < r->kept.size / sizeof *kept && status == NPK_OK && !r->stopped; i++)
        if (kept[i].record.place.lsn < r->last_gap_end)
            status = visit_kept(r, &kept[i], false);
    return status;
}

npk_status npk_wal_read_damaged(npk_wal *wal, npk_wal_salvage *salvage, npk_error *err)
{
    salvage->gap_count = salvage->transaction_count = salvage->lost_transaction_count = salvage->last_commit_us = 0;
    memset(&salvage->end, 0, sizeof salvage->end);
    reader r = {.wal = wal, .salvage = salvage, .err = err, .position = salvage->from_lsn};
    npk_buffer_init(&r.loaded.bytes);
    npk_buffer_init(&r.kept);
    npk_buffer_init(&r.metas);
    npk_status status = npk_wal_entries_load(wal, &r.entries, err);
    if (status != NPK_OK)
        return npk_context(err, status, "read the log");
    find_floor(&r);
    for (size_t i = 0; i < r.entries.count && status == NPK_OK && !r.stopped; i++) {
        size_t next = npk_wal_entries_next(&r.entries, i);
        if (npk_wal_entry_is_live(&r.entries.items[i]) &&
            (next == r.entries.count || r.entries.items[next].header.first_lsn > r.position))
            status = read_segment(&r, i);
    }
    if (status == NPK_OK)
        status = finish(&r);
    npk_wal_entries_release(&r.entries);
    npk_wal_loaded_release(&r.loaded);
    npk_buffer_release(&r.kept);
    npk_buffer_release(&r.metas);
    return status;
}

npk_status npk_wal_find_uuid(const npk_io *io, npk_file *directory, uint8_t uuid[16], uint64_t *created_us, npk_error *err)
{
    npk_wal wal = {.io = io, .directory = directory};
    uint64_t *seqs = NULL;
    size_t count = 0;
    npk_status status = npk_wal_list_seqs(&wal, &seqs, &count, err);
    if (status != NPK_OK)
        return status;
    uint8_t *bytes = npk_alloc(NPK_WAL_HEADER_SIZE);
    if (!bytes)
        status = npk_fail(err, NPK_NO_MEMORY, "no memory for a segment header");
    bool found = false;
    for (size_t i = 0; i < count && status == NPK_OK; i++) {
        char name[NPK_WAL_NAME_SIZE];
        npk_file *file = NULL;
        npk_segment_header header;
        size_t done = 0;
        npk_segment_name(seqs[i], name);
        if (io->open(io, directory, name, NPK_OPEN_READ, &file) != 0)
            continue;
        if (npk_io_read_full(io, file, 0, bytes, NPK_WAL_HEADER_SIZE, &done, name, NULL) == NPK_OK &&
            npk_segment_header_decode(bytes, done, &header, NULL) == NPK_OK && header.seq == seqs[i]) {
            if (found && memcmp(uuid, header.uuid, 16) != 0)
                status = npk_fail(err, NPK_CORRUPT, "log segments of two stores lie in one directory");
            if (!found) {
                memcpy(uuid, header.uuid, 16);
                *created_us = header.created_us;
            }
            found = true;
        }
        io->close(io, file);
    }
    npk_free(bytes);
    npk_free(seqs);
    if (status != NPK_OK)
        return status;
    if (!found)
        return npk_fail(err, NPK_NOT_FOUND, "no log segment has a readable header");
    status = npk_wal_check_unused(&wal, err);
    if (status == NPK_OK)
        return npk_fail(err, NPK_NOT_FOUND, "the log was never used: a store was being created");
    return status == NPK_EXISTS ? NPK_OK : status;
}
