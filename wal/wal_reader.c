/* wal_reader.c - the scan: reads records from a known boundary, groups them into transactions, and collects the evidence
 * about the end (wal_recovery.h decides). One segment at a time is in memory; of an incomplete transaction only metas are kept. */
#include "wal_reader.h"

#include <string.h>

#include "alloc.h"
#include "bytes.h"
#include "error.h"
#include "wal_recovery.h"

#define READ_SIZE (256u * 1024u)

void npk_wal_loaded_release(npk_wal_loaded *loaded)
{
    if (loaded->file)
        loaded->wal->io->close(loaded->wal->io, loaded->file);
    loaded->file = NULL;
    npk_buffer_release(&loaded->bytes);
}

npk_status npk_wal_load(npk_wal *wal, const npk_wal_entry *entry, npk_wal_loaded *loaded, npk_error *err)
{
    if (loaded->file)
        loaded->wal->io->close(loaded->wal->io, loaded->file);
    loaded->file = NULL;
    loaded->wal = wal;
    loaded->header = entry->header;
    loaded->is_short = entry->file_size < entry->header.segment_size;
    npk_buffer_clear(&loaded->bytes);
    npk_segment_name(entry->seq, loaded->name);
    int rc = wal->io->open(wal->io, wal->directory, loaded->name, NPK_OPEN_READ, &loaded->file);
    if (rc)
        return npk_fail_errno(err, rc, "could not open segment \"%s\"", loaded->name);
    uint64_t end = npk_segment_area_end(entry->header.segment_size);
    if (entry->header.cut_epoch)
        end = NPK_WAL_HEADER_SIZE + (entry->header.cut_lsn - entry->header.first_lsn);
    /* Bounded by the file's size, so the header's claim is never allocated without bytes behind it; whole units of 8, and never below
     * the header: a file that is too short has no records. */
    loaded->end_offset = npk_max_u64(npk_min_u64(end, entry->file_size & ~(uint64_t)7), NPK_WAL_HEADER_SIZE);
    if (!npk_buffer_reserve(&loaded->bytes, (size_t)loaded->end_offset))
        return npk_fail(err, NPK_NO_MEMORY, "no memory for segment \"%s\"", loaded->name);
    return npk_wal_loaded_need(loaded, NPK_WAL_HEADER_SIZE, err);
}

npk_status npk_wal_loaded_need(npk_wal_loaded *loaded, uint64_t end, npk_error *err)
{
    size_t have = loaded->bytes.size;
    if (end <= have)
        return NPK_OK;
    size_t size = (size_t)npk_min_u64(npk_max_u64(end - have, READ_SIZE), loaded->end_offset - have);
    size_t done = 0;
    npk_status status = npk_io_read_full(loaded->wal->io, loaded->file, have, loaded->bytes.data + have, size, &done,
                                         loaded->name, err);
    if (status != NPK_OK)
        return status;
    loaded->bytes.size += done;
    if (done == size)
        return NPK_OK;
    /* Shortened since its size was asked. */
    if (loaded->bytes.size < NPK_WAL_HEADER_SIZE)
        return npk_fail(err, NPK_CORRUPT, "segment \"%s\": file too short for a header", loaded->name);
    loaded->end_offset = loaded->bytes.size & ~(size_t)7;
    loaded->is_short = true;
    return NPK_OK;
}

npk_status npk_wal_loaded_check(npk_wal_loaded *loaded, uint64_t offset, npk_record_header *header, npk_record_fault *fault,
                                npk_error *err)
{
    npk_record_bounds bounds = npk_wal_loaded_bounds(loaded, offset);
    uint64_t end = npk_min_u64(offset + NPK_RECORD_HEADER_SIZE, loaded->end_offset);
    npk_status status = npk_wal_loaded_need(loaded, end, err);
    if (status == NPK_OK)
        *fault = offset > loaded->end_offset ? NPK_RECORD_FAULT_SIZE
                                             : npk_record_header_decode(loaded->bytes.data + offset, loaded->end_offset - offset,
                                                                        &bounds, header);
    if (status != NPK_OK || *fault)
        return status;
    status = npk_wal_loaded_need(loaded, offset + npk_record_size(header->meta_size, header->data_size), err);
    if (status == NPK_OK)
        *fault = npk_record_check(loaded->bytes.data + offset, loaded->end_offset - offset, &bounds, header);
    return status;
}

uint64_t npk_wal_search(const npk_wal_loaded *loaded, uint64_t offset, uint64_t limit, npk_record_header *header)
{
    /* A record's LSN field is its position, so nearly every position is out after one comparison. Forged bytes could make the rest
     * quadratic: what is hashed in vain is bounded. Honest remnants do not overlap and stay far below. */
    uint64_t budget = 16 * loaded->header.segment_size;
    for (; offset + NPK_RECORD_HEADER_SIZE <= limit; offset += 8) {
        const uint8_t *bytes = loaded->bytes.data + offset;
        if (npk_get_u64(bytes + 16) != npk_wal_loaded_lsn(loaded, offset))
            continue;
        npk_record_bounds bounds = npk_wal_loaded_bounds(loaded, offset);
        npk_record_fault fault = npk_record_check(bytes, loaded->end_offset - offset, &bounds, header);
        if (fault == NPK_RECORD_FAULT_NONE)
            return offset;
        if (fault == NPK_RECORD_FAULT_CHECKSUM) {
            uint64_t size = npk_record_size(header->meta_size, header->data_size);
            if (size > budget)
                break;
            budget -= size;
        }
    }
    return limit;
}

/* ---- the scan ------------------------------------------------------------------------------------------------------ */

typedef struct pending_record {
    npk_record record; /* meta is set at the visit: the buffer moves while it grows */
    size_t meta_offset;
} pending_record;

typedef struct scanner {
    npk_wal *wal;
    npk_wal_scan *scan;
    npk_error *err;
    npk_wal_entries entries;
    size_t index; /* of the segment in memory */
    npk_wal_loaded loaded;
    uint64_t offset;        /* the position, in that segment */
    uint64_t last_checksum; /* of the record that ends at the position */
    bool contradiction;
    bool misfit; /* the successor does not fit */
    bool ends_in_zeros; /* nothing but zeros from the position to the end of the record area; they are not all in memory then */
    pending_record *pending; /* operation records since the last boundary that are not voided */
    size_t pending_count, pending_capacity;
    npk_buffer metas;
} scanner;

static uint64_t position_of(const scanner *s)
{
    return npk_wal_loaded_lsn(&s->loaded, s->offset);
}

/* The position is a transaction boundary: the log is kept up to here. */
static void set_boundary(scanner *s)
{
    const npk_segment_header *h = &s->loaded.header;
    s->scan->end = (npk_wal_end){position_of(s), h->epoch, h->seq, h->first_lsn, h->segment_size, s->last_checksum};
    s->pending_count = 0;
    npk_buffer_clear(&s->metas);
}

static bool is_behind_stop(const scanner *s, uint64_t lsn)
{
    return s->scan->stop_lsn && lsn > s->scan->stop_lsn;
}

static npk_status no_memory(scanner *s)
{
    return npk_fail(s->err, NPK_NO_MEMORY, "no memory for an incomplete transaction");
}

static npk_status keep_record(scanner *s, const npk_record_header *header, const uint8_t *bytes)
{
    if (s->pending_count == s->pending_capacity) {
        size_t capacity = s->pending_capacity ? 2 * s->pending_capacity : 64;
        pending_record *grown =
            capacity > SIZE_MAX / sizeof *grown ? NULL : npk_realloc(s->pending, capacity * sizeof *grown);
        if (!grown)
            return no_memory(s);
        s->pending = grown;
        s->pending_capacity = capacity;
    }
    pending_record *kept = &s->pending[s->pending_count];
    *kept = (pending_record){
        .record = {.type = header->type,
                   .place = {header->lsn, s->loaded.header.seq, s->offset,
                             s->offset + npk_record_data_offset(header->meta_size),
                             (header->flags & NPK_RECORD_FLAG_PACKED) != 0},
                   .transaction = header->transaction,
                   .watermark = header->watermark,
                   .meta_size = header->meta_size,
                   .raw_data_size = header->raw_data_size},
        .meta_offset = s->metas.size};
    npk_buffer_put(&s->metas, bytes + NPK_RECORD_HEADER_SIZE, header->meta_size);
    if (s->metas.failed)
        return no_memory(s);
    s->pending_count++;
    return NPK_OK;
}

/* Is the commit record one of exactly these records? */
static bool commit_fits(const scanner *s, const npk_record_header *header, uint32_t record_count)
{
    if (record_count != s->pending_count)
        return false;
    for (size_t i = 0; i < s->pending_count; i++)
        if (s->pending[i].record.transaction != header->transaction)
            return false;
    return true;
}

static npk_status visit_transaction(scanner *s, const npk_record_header *commit, const uint8_t *bytes)
{
    npk_wal_scan *scan = s->scan;
    if (!scan->visit)
        return NPK_OK;
    npk_status status = NPK_OK;
    for (size_t i = 0; i < s->pending_count && status == NPK_OK; i++) {
        npk_record *record = &s->pending[i].record;
        record->meta = s->metas.data + s->pending[i].meta_offset;
        status = scan->visit(scan->context, record, s->err);
    }
    if (status != NPK_OK)
        return status;
    npk_record record = {.type = NPK_RECORD_COMMIT,
                         .place = {commit->lsn, s->loaded.header.seq, s->offset,
                                   s->offset + npk_record_data_offset(commit->meta_size), false},
                         .transaction = commit->transaction,
                         .watermark = commit->watermark,
                         .meta = bytes + NPK_RECORD_HEADER_SIZE,
                         .meta_size = commit->meta_size,
                         .raw_data_size = commit->raw_data_size};
    return scan->visit(scan->context, &record, s->err);
}

/* Take in the valid record at the position. *stop: the scan ends before it. */
static npk_status take_record(scanner *s, const npk_record_header *header, const uint8_t *bytes, bool *stop)
{
    npk_wal_scan *scan = s->scan;
    const uint8_t *meta = bytes + NPK_RECORD_HEADER_SIZE;
    uint64_t size = npk_record_size(header->meta_size, header->data_size);
    uint64_t record_end = header->lsn + size;
    uint64_t commit_us, first_lsn;
    uint32_t record_count;
    npk_status status = NPK_OK;
    bool is_boundary = false;
    *stop = false;
    if (header->type >= NPK_RECORD_FIRST_OP) {
        status = keep_record(s, header, bytes);
    } else if (header->type == NPK_RECORD_COMMIT) {
        if (is_behind_stop(s, record_end)) {
            *stop = true;
            return NPK_OK;
        }
        if (!npk_commit_decode(meta, header->meta_size, &commit_us, &record_count) || header->data_size ||
            !commit_fits(s, header, record_count)) {
            s->contradiction = *stop = true;
            return NPK_OK;
        }
        status = visit_transaction(s, header, bytes);
        is_boundary = true;
        scan->transaction_count++;
        scan->last_transaction = npk_max_u64(scan->last_transaction, header->transaction);
        scan->last_commit_us = commit_us;
    } else if (header->type == NPK_RECORD_VOID) {
        if (!npk_void_decode(meta, header->meta_size, &first_lsn) || first_lsn > header->lsn ||
            first_lsn < scan->end.lsn) { /* it would undo what was committed */
            s->contradiction = *stop = true;
            return NPK_OK;
        }
        while (s->pending_count && s->pending[s->pending_count - 1].record.place.lsn >= first_lsn)
            s->metas.size = s->pending[--s->pending_count].meta_offset;
    } else if (header->type == NPK_RECORD_WATERMARK) {
        if (s->pending_count == 0 && is_behind_stop(s, record_end)) {
            *stop = true;
            return NPK_OK;
        }
        is_boundary = s->pending_count == 0;
    } else {
        s->contradiction = *stop = true;
        return NPK_OK;
    }
    if (status != NPK_OK)
        return status;
    /* A record knows of no sync of bytes that were not there when it was written. */
    uint64_t watermark = npk_min_u64(header->watermark, header->lsn);
    scan->durable_lsn = npk_max_u64(scan->durable_lsn, watermark);
    scan->watermark_lsn = npk_max_u64(scan->watermark_lsn, watermark);
    s->offset += size;
    s->last_checksum = header->checksum;
    if (is_boundary)
        set_boundary(s);
    return NPK_OK;
}

static npk_status load_segment(scanner *s, size_t index)
{
    npk_status status = npk_wal_load(s->wal, &s->entries.items[index], &s->loaded, s->err);
    s->index = index;
    s->offset = NPK_WAL_HEADER_SIZE;
    s->scan->highest_epoch = (uint32_t)npk_max_u64(s->scan->highest_epoch, s->loaded.header.epoch);
    return status;
}

/* Does the chain lead from the position, where the segment in memory ends, into next? */
static bool successor_fits(const scanner *s, const npk_wal_entry *next)
{
    const npk_wal_entry *entry = &s->entries.items[s->index];
    const npk_segment_header *h = &next->header;
    uint64_t position = position_of(s);
    if (h->previous_seq != entry->seq || h->previous_end_lsn != position || h->previous_end_checksum != s->last_checksum)
        return false;
    if (entry->header.cut_epoch ? entry->header.cut_lsn != position || h->epoch < entry->header.cut_epoch
                                : h->epoch != entry->header.epoch)
        return false;
    return !entry->has_mark ||
           (entry->mark.seq == next->seq && entry->mark.first_lsn == position && entry->mark.epoch == h->epoch);
}

/* From the segment's first record to from_lsn: only where the records lie, and the last one's checksum. Who knows that checksum starts right
 * there: what lies before is not read at all (a clean open of a full segment: 11 ms with the walk, 4 ms without). */
static npk_status go_to_start(scanner *s)
{
    uint64_t from_lsn = s->scan->from_lsn;
    uint64_t offset = NPK_WAL_HEADER_SIZE + (from_lsn - s->loaded.header.first_lsn);
    if (s->scan->from_checksum && from_lsn > s->loaded.header.first_lsn && offset % 8 == 0 && offset <= s->loaded.end_offset) {
        if (s->loaded.bytes.size < offset)
            s->loaded.bytes.size = (size_t)offset; /* reserved up to end_offset; never looked at */
        s->offset = offset;
        s->last_checksum = s->scan->from_checksum;
        set_boundary(s);
        return NPK_OK;
    }
    s->last_checksum = s->loaded.header.previous_end_checksum;
    set_boundary(s);
    while (position_of(s) < from_lsn && s->offset < s->loaded.end_offset) {
        npk_status status = npk_wal_loaded_need(
            &s->loaded, npk_min_u64(s->offset + NPK_RECORD_HEADER_SIZE, s->loaded.end_offset), s->err);
        if (status != NPK_OK)
            return status;
        if (s->offset >= s->loaded.end_offset)
            break; /* shortened meanwhile */
        const uint8_t *bytes = s->loaded.bytes.data + s->offset;
        npk_record_bounds bounds = npk_wal_loaded_bounds(&s->loaded, s->offset);
        npk_record_header header;
        if (npk_record_header_decode(bytes, s->loaded.end_offset - s->offset, &bounds, &header))
            return NPK_OK; /* from_lsn is a floor: the table says "damaged" */
        s->offset += npk_record_size(header.meta_size, header.data_size);
        s->last_checksum = header.checksum;
        set_boundary(s);
    }
    if (position_of(s) > from_lsn)
        return npk_fail(s->err, NPK_CORRUPT, "lsn %llu is not the start of a record", (unsigned long long)from_lsn);
    return NPK_OK;
}

static npk_status read_records(scanner *s)
{
    npk_wal_scan *scan = s->scan;
    for (;;) {
        uint64_t position = position_of(s);
        if (scan->stop_lsn && position >= scan->stop_lsn)
            return NPK_OK;
        size_t next = npk_wal_entries_next(&s->entries, s->index);
        if (next < s->entries.count && s->entries.items[next].header.first_lsn <= position) {
            if (!successor_fits(s, &s->entries.items[next])) {
                s->misfit = true;
                return NPK_OK;
            }
            bool is_boundary = scan->end.lsn == position;
            npk_status status = load_segment(s, next);
            if (status != NPK_OK)
                return status;
            if (is_boundary)
                set_boundary(s); /* the next record goes into the new segment */
            continue;
        }
        if (s->offset >= s->loaded.end_offset)
            return NPK_OK;
        npk_record_header header;
        npk_record_fault fault;
        npk_status status = npk_wal_loaded_check(&s->loaded, s->offset, &header, &fault, s->err);
        if (status != NPK_OK || fault)
            return status;
        bool stop;
        status = take_record(s, &header, s->loaded.bytes.data + s->offset, &stop);
        if (status != NPK_OK || stop)
            return status;
    }
}

/* ---- the end: evidence -------------------------------------------------------------------------------------------- */

/* The highest LSN proven durable, from everywhere but the bytes at the position. After a reported sync failure what lies behind
 * stop_lsn proves nothing: it is void. */
static uint64_t find_floor(const scanner *s)
{
    const npk_wal_entry *entry = &s->entries.items[s->index];
    const npk_wal_loaded *loaded = &s->loaded;
    uint64_t floor = npk_max_u64(s->scan->durable_floor, s->scan->from_lsn);
    for (size_t i = npk_wal_entries_next(&s->entries, s->index); i < s->entries.count;
         i = npk_wal_entries_next(&s->entries, i)) {
        uint64_t lsn = s->entries.items[i].header.previous_end_lsn;
        if (!is_behind_stop(s, lsn))
            floor = npk_max_u64(floor, lsn);
    }
    if (entry->has_mark && !is_behind_stop(s, entry->mark.first_lsn))
        floor = npk_max_u64(floor, entry->mark.first_lsn);
    if (entry->header.cut_epoch && !is_behind_stop(s, entry->header.cut_lsn))
        floor = npk_max_u64(floor, entry->header.cut_lsn);

    if (s->ends_in_zeros)
        return floor;
    uint64_t limit = loaded->end_offset;
    if (s->scan->stop_lsn)
        limit = npk_min_u64(limit, NPK_WAL_HEADER_SIZE + (npk_max_u64(s->scan->stop_lsn, loaded->header.first_lsn) -
                                                          loaded->header.first_lsn));
    npk_record_header header;
    for (uint64_t offset = s->offset; offset < limit;) {
        offset = npk_wal_search(loaded, offset, limit, &header);
        if (offset == limit)
            break;
        uint64_t watermark = npk_min_u64(header.watermark, header.lsn);
        floor = npk_max_u64(floor, watermark);
        s->scan->watermark_lsn = npk_max_u64(s->scan->watermark_lsn, watermark);
        offset += npk_record_size(header.meta_size, header.data_size);
    }
    return floor;
}

static unsigned find_link(const scanner *s)
{
    const npk_wal_entry *entry = &s->entries.items[s->index];
    uint64_t stop_lsn = s->scan->stop_lsn;
    if (s->misfit)
        return NPK_LINK_MISFIT;
    if (npk_wal_entries_next(&s->entries, s->index) < s->entries.count)
        return NPK_LINK_NONE; /* it starts further on: a floor, or behind stop_lsn */
    if (entry->has_mark)
        return stop_lsn && entry->mark.first_lsn >= stop_lsn ? NPK_LINK_NONE : NPK_LINK_MISSING;
    if (entry->header.cut_epoch)
        return NPK_LINK_CUT;
    if (stop_lsn && position_of(s) >= stop_lsn)
        return NPK_LINK_NONE;
    for (size_t i = s->index + 1; i < s->entries.count; i++)
        if (s->entries.items[i].status != NPK_OK)
            return NPK_LINK_MISSING; /* it has its name, so it had a durable header once */
    return NPK_LINK_NONE;
}

static unsigned find_here(const scanner *s, uint64_t *remnant_size)
{
    const npk_wal_loaded *loaded = &s->loaded;
    uint64_t end = loaded->end_offset;
    bool is_stopped = s->scan->stop_lsn && position_of(s) >= s->scan->stop_lsn;
    if (s->ends_in_zeros)
        end = s->offset;
    while (end > s->offset && npk_is_zero(loaded->bytes.data + end - 8, 8))
        end -= 8;
    *remnant_size = end > s->offset ? end - s->offset : 0;
    if (s->contradiction || (loaded->is_short && !is_stopped))
        return NPK_HERE_CONTRADICTION;
    if (s->offset >= loaded->end_offset)
        return NPK_HERE_SEGMENT_END;
    if (s->ends_in_zeros)
        return NPK_HERE_ZEROS;
    uint64_t header_size = npk_min_u64(NPK_RECORD_HEADER_SIZE, loaded->end_offset - s->offset);
    return npk_is_zero(loaded->bytes.data + s->offset, (size_t)header_size) ? NPK_HERE_ZEROS : NPK_HERE_OTHER;
}

/* The usual end of a log is a segment's worth of zeros. They are read through one piece of memory: a fresh page for each page of the file costs
 * more than the reading. */
static npk_status look_for_zeros(scanner *s)
{
    npk_wal_loaded *loaded = &s->loaded;
    uint64_t have = loaded->bytes.size;
    if (loaded->is_short || s->offset > have || !npk_is_zero(loaded->bytes.data + s->offset, (size_t)(have - s->offset)))
        return NPK_OK;
    uint8_t *piece = loaded->bytes.data + have; /* reserved up to end_offset; overwritten when it is loaded after all */
    for (uint64_t offset = have; offset < loaded->end_offset;) {
        size_t size = (size_t)npk_min_u64(READ_SIZE, loaded->end_offset - offset), done = 0;
        npk_status status = npk_io_read_full(loaded->wal->io, loaded->file, offset, piece, size, &done, loaded->name, s->err);
        if (status != NPK_OK)
            return status;
        if (done < size || !npk_is_zero(piece, size))
            return NPK_OK;
        offset += size;
    }
    s->ends_in_zeros = true;
    return NPK_OK;
}

static npk_status decide(scanner *s)
{
    npk_wal_scan *scan = s->scan;
    npk_status status = look_for_zeros(s);
    if (status == NPK_OK && !s->ends_in_zeros)
        status = npk_wal_loaded_need(&s->loaded, s->loaded.end_offset, s->err);
    if (status != NPK_OK)
        return status;
    uint64_t position = position_of(s);
    uint64_t remnant_size;
    uint64_t floor = find_floor(s);
    npk_wal_evidence evidence = {
        .here = find_here(s, &remnant_size),
        .link = find_link(s),
        .floor = floor > position ? NPK_FLOOR_ABOVE : NPK_FLOOR_REACHED,
        .behind = remnant_size ? NPK_BEHIND_OTHER : NPK_BEHIND_ZEROS,
        .open_records = position > scan->end.lsn ? NPK_OPEN_RECORDS_SOME : NPK_OPEN_RECORDS_NONE,
        .failure = scan->stop_lsn ? NPK_FAILURE_REPORTED : NPK_FAILURE_NONE};
    const npk_wal_case *found = npk_wal_case_find(&evidence);
    scan->verdict = found ? found->verdict : NPK_WAL_DAMAGED; /* the table is complete: a test walks over it */
    scan->case_name = found ? found->name : "no case";
    scan->durable_lsn = npk_max_u64(scan->durable_lsn, floor);
    scan->tail_size = position - scan->end.lsn + remnant_size;
    if (scan->verdict == NPK_WAL_DAMAGED) {
        scan->damaged_lsn = position;
        scan->damaged_until_lsn = npk_max_u64(floor, position);
    }
    return NPK_OK;
}

/* The live segment with the greatest first LSN at or below from_lsn; of several (empty ones before it) the last. */
static size_t find_start(const npk_wal_entries *entries, uint64_t from_lsn)
{
    size_t start = entries->count;
    for (size_t i = 0; i < entries->count; i++)
        if (npk_wal_entry_is_live(&entries->items[i]) && entries->items[i].header.first_lsn <= from_lsn)
            start = i;
    return start;
}

static npk_status describe_directory(scanner *s)
{
    npk_wal_scan *scan = s->scan;
    npk_wal_entries *entries = &s->entries;
    scan->segment_count = entries->count;
    scan->highest_epoch = entries->highest_epoch;
    scan->highest_seq = entries->highest_seq;
    for (size_t i = 0; i < entries->count; i++) {
        const npk_wal_entry *entry = &entries->items[i];
        if (entry->status == NPK_FORMAT)
            return npk_fail(s->err, NPK_FORMAT, "segment %llu: %s", (unsigned long long)entry->seq, entry->reason);
        scan->void_segment_count += entry->is_void;
        if (!scan->oldest_seq && npk_wal_entry_is_live(entry)) {
            scan->oldest_seq = entry->seq;
            scan->oldest_first_lsn = entry->header.first_lsn;
        }
    }
    return NPK_OK;
}

/* Results are written whole, so that nothing of an earlier scan with the same struct stays. */
static void clear_results(npk_wal_scan *scan)
{
    npk_wal_scan cleared = {.from_lsn = scan->from_lsn,
                            .from_checksum = scan->from_checksum,
                            .durable_floor = scan->durable_floor,
                            .stop_lsn = scan->stop_lsn,
                            .visit = scan->visit,
                            .context = scan->context,
                            .case_name = ""};
    *scan = cleared;
}

npk_status npk_wal_scan_log(npk_wal *wal, npk_wal_scan *scan, npk_error *err)
{
    clear_results(scan);
    if (scan->stop_lsn && scan->stop_lsn < scan->from_lsn)
        return npk_fail(err, NPK_INVALID, "scan stops at %llu before it starts at %llu", (unsigned long long)scan->stop_lsn,
                        (unsigned long long)scan->from_lsn);
    scan->watermark_lsn = npk_max_u64(scan->from_lsn, scan->durable_floor);
    scanner s = {.wal = wal, .scan = scan, .err = err};
    npk_buffer_init(&s.loaded.bytes);
    npk_buffer_init(&s.metas);
    npk_status status = npk_wal_entries_load(wal, &s.entries, err);
    if (status != NPK_OK)
        return npk_context(err, status, "scan log");
    status = describe_directory(&s);
    if (status != NPK_OK)
        goto end;
    size_t start = find_start(&s.entries, scan->from_lsn);
    if (start == s.entries.count) {
        status = npk_fail(err, NPK_CORRUPT, "no readable segment holds lsn %llu", (unsigned long long)scan->from_lsn);
        goto end;
    }
    status = load_segment(&s, start);
    if (status == NPK_OK)
        status = go_to_start(&s);
    if (status == NPK_OK && position_of(&s) == scan->from_lsn)
        status = read_records(&s);
    if (status == NPK_OK)
        status = decide(&s);
end:
    npk_wal_entries_release(&s.entries);
    npk_wal_loaded_release(&s.loaded);
    npk_buffer_release(&s.metas);
    npk_free(s.pending);
    return status;
}
