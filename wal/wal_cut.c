/* wal_cut.c - the tail procedure, step by step as FORMAT.md numbers it, and the question whether it is needed.
 *
 * A crash after any step leaves a log for which a scan says "torn" again (or, after the last step but one, "clean"), so that the same
 * procedure finishes it. */
#include <errno.h>
#include <string.h>

#include "alloc.h"
#include "bytes.h"
#include "error.h"
#include "wal_directory.h"

#define COPY_SIZE (1024u * 1024u)

static npk_status copy_bytes(npk_wal *wal, npk_segment *from, npk_file *to, const char *to_name, uint64_t end, npk_error *err)
{
    uint8_t *bytes = npk_alloc(COPY_SIZE);
    if (!bytes)
        return npk_fail(err, NPK_NO_MEMORY, "no memory to copy a segment");
    npk_status status = NPK_OK;
    for (uint64_t offset = NPK_WAL_HEADER_SIZE; offset < end && status == NPK_OK; offset += COPY_SIZE) {
        size_t size = (size_t)npk_min_u64(COPY_SIZE, end - offset);
        status = npk_segment_read(from, offset, bytes, size, err);
        if (status == NPK_OK)
            status = npk_io_write_full(wal->io, to, offset, bytes, size, to_name, err);
    }
    npk_free(bytes);
    return status;
}

/* Steps 1 and 2. from stays open on the old file. */
static npk_status replace_by_copy(npk_wal *wal, npk_segment *from, const npk_segment_header *header, npk_error *err)
{
    const npk_io *io = wal->io;
    char name[NPK_WAL_NAME_SIZE];
    npk_segment_cut_name(header->seq, name);
    uint8_t *bytes = npk_alloc(NPK_WAL_HEADER_SIZE);
    if (!bytes)
        return npk_fail(err, NPK_NO_MEMORY, "no memory for a segment header");
    npk_file *file = NULL;
    npk_status status = NPK_OK;
    int rc = io->unlink(io, wal->directory, name); /* left by an interrupted cut */
    if (rc == 0 || rc == ENOENT)
        rc = io->open(io, wal->directory, name, NPK_OPEN_WRITE | NPK_OPEN_CREATE | NPK_OPEN_EXCLUSIVE, &file);
    if (rc) {
        npk_free(bytes);
        return npk_fail_errno(err, rc, "could not create file \"%s\"", name);
    }
    status = npk_segment_fill(io, file, header->segment_size, true, name, err);
    if (status == NPK_OK) {
        npk_segment_header_encode(header, bytes);
        status = npk_io_write_full(io, file, 0, bytes, NPK_WAL_HEADER_SIZE, name, err);
    }
    if (status == NPK_OK)
        status = copy_bytes(wal, from, file, name, NPK_WAL_HEADER_SIZE + (header->cut_lsn - header->first_lsn), err);
    if (status == NPK_OK) {
        npk_wal_count_syncs(wal, 1);
        rc = io->sync(io, file);
        if (rc)
            status = npk_fail_errno(err, rc, "could not sync file \"%s\"", name);
    }
    io->close(io, file);
    npk_free(bytes);
    if (status == NPK_OK) {
        rc = io->rename(io, wal->directory, name, from->name);
        if (rc)
            status = npk_fail_errno(err, rc, "could not rename \"%s\" to \"%s\"", name, from->name);
    }
    if (status != NPK_OK) {
        (void)io->unlink(io, wal->directory, name);
        return status;
    }
    return npk_wal_sync_directory(wal, err);
}

/* Step 3. Files behind the cut whose header cannot be read go as well: a segment gets its name only with a durable header, so they
 * are remains of what was cut. */
static npk_status unlink_void(npk_wal *wal, const npk_wal_entries *entries, uint64_t cut_seq, npk_error *err)
{
    bool unlinked = false;
    for (size_t i = 0; i < entries->count; i++) {
        const npk_wal_entry *entry = &entries->items[i];
        if (entry->seq <= cut_seq && !entry->is_void)
            continue;
        char name[NPK_WAL_NAME_SIZE];
        npk_segment_name(entry->seq, name);
        int rc = wal->io->unlink(wal->io, wal->directory, name);
        if (rc && rc != ENOENT)
            return npk_fail_errno(err, rc, "could not remove segment \"%s\"", name);
        unlinked = true;
    }
    return unlinked ? npk_wal_sync_directory(wal, err) : NPK_OK;
}

/* Step 4. */
static npk_status make_next(npk_wal *wal, const npk_segment_header *cut, uint64_t seq, uint64_t last_checksum,
                            npk_wal_end *end, npk_error *err)
{
    npk_segment *predecessor = NULL, *segment = NULL;
    npk_status status = npk_segment_open(wal->io, wal->directory, wal->uuid, cut->seq, true, &predecessor, err);
    if (status != NPK_OK)
        return status;
    npk_segment_header header = {.seq = seq,
                                 .segment_size = wal->segment_size,
                                 .first_lsn = cut->cut_lsn,
                                 .epoch = cut->cut_epoch,
                                 .previous_seq = cut->seq,
                                 .previous_end_lsn = cut->cut_lsn,
                                 .previous_end_checksum = last_checksum,
                                 .created_us = wal->io->now_us(wal->io)};
    memcpy(header.uuid, wal->uuid, sizeof header.uuid);
    bool renamed;
    status = npk_wal_make_segment(wal, &header, predecessor, &renamed, &segment, err);
    npk_segment_release(predecessor);
    if (status != NPK_OK)
        return status;
    npk_segment_release(segment); /* npk_wal_start opens it */
    *end = (npk_wal_end){cut->cut_lsn, cut->cut_epoch, seq, cut->cut_lsn, wal->segment_size, last_checksum};
    return NPK_OK;
}

static npk_status cut(npk_wal *wal, const npk_wal_entries *entries, const npk_wal_scan *scan, npk_wal_end *end,
                      npk_error *err)
{
    uint64_t highest_seq = npk_max_u64(entries->highest_seq, scan->highest_seq);
    uint64_t highest_epoch = npk_max_u64(entries->highest_epoch, scan->highest_epoch);
    if (highest_epoch >= UINT32_MAX || highest_seq >= UINT64_MAX - 1)
        return npk_fail(err, NPK_CORRUPT, "no epoch or sequence number is left");
    npk_segment *from = NULL;
    npk_status status = npk_segment_open(wal->io, wal->directory, wal->uuid, scan->end.seq, false, &from, err);
    if (status != NPK_OK)
        return status;
    npk_segment_header header = from->header;
    if (header.first_lsn != scan->end.first_lsn || header.segment_size != scan->end.segment_size ||
        scan->end.lsn < header.first_lsn || scan->end.lsn % 8 ||
        scan->end.lsn - header.first_lsn > npk_segment_area_end(header.segment_size) - NPK_WAL_HEADER_SIZE) {
        status = npk_fail(err, NPK_CORRUPT, "segment \"%s\": is not the one that was scanned", from->name);
    } else {
        header.cut_lsn = scan->end.lsn;
        header.cut_epoch = (uint32_t)highest_epoch + 1;
        status = replace_by_copy(wal, from, &header, err);
    }
    npk_segment_release(from);
    if (status == NPK_OK)
        status = unlink_void(wal, entries, header.seq, err);
    if (status == NPK_OK)
        status = make_next(wal, &header, highest_seq + 1, scan->end.last_checksum, end, err);
    return status;
}

npk_status npk_wal_cut(npk_wal *wal, const npk_wal_scan *scan, npk_wal_end *end, npk_error *err)
{
    if (scan->verdict == NPK_WAL_DAMAGED)
        return npk_fail(err, NPK_MISUSE, "a damaged log is not to be cut");
    npk_wal_set_in_doubt(wal); /* until the writer starts at the new end */
    npk_wal_set_current(wal, NULL);
    npk_wal_entries entries;
    npk_status status = npk_wal_entries_load(wal, &entries, err);
    if (status == NPK_OK) {
        status = cut(wal, &entries, scan, end, err);
        npk_wal_entries_release(&entries);
    }
    npk_wal_forget_segments(wal); /* whatever came of it: a name may stand for another file now */
    return status == NPK_OK ? NPK_OK : npk_context(err, status, "cut the log's tail");
}

npk_status npk_wal_has_tail(npk_wal *wal, const npk_wal_end *end, bool *has_tail, npk_error *err)
{
    uint64_t *seqs = NULL;
    size_t count = 0;
    npk_status status = npk_wal_list_seqs(wal, &seqs, &count, err);
    if (status != NPK_OK)
        return status;
    bool found = count > 0 && seqs[count - 1] > end->seq;
    npk_free(seqs);
    if (found) {
        *has_tail = true;
        return NPK_OK;
    }
    /* By name, not through the writer's open file: another process may have cut, that is replaced it. */
    npk_segment *segment = NULL;
    status = npk_segment_open(wal->io, wal->directory, wal->uuid, end->seq, false, &segment, err);
    if (status != NPK_OK)
        return status;
    const npk_segment_header *h = &segment->header;
    uint8_t bytes[NPK_RECORD_HEADER_SIZE];
    if (h->cut_epoch || h->epoch != end->epoch || h->first_lsn != end->first_lsn || h->segment_size != end->segment_size ||
        end->lsn < h->first_lsn) {
        found = true; /* a tail procedure that did not finish, or another log than was left: let the scan say which */
    } else {
        uint64_t offset = NPK_WAL_HEADER_SIZE + (end->lsn - h->first_lsn);
        uint64_t area_end = npk_min_u64(npk_segment_area_end(h->segment_size), segment->file_size);
        size_t size = offset < area_end ? (size_t)npk_min_u64(sizeof bytes, area_end - offset) : 0;
        status = npk_segment_read(segment, offset, bytes, size, err);
        found = status == NPK_OK && !npk_is_zero(bytes, size);
    }
    npk_segment_release(segment);
    if (status == NPK_OK)
        *has_tail = found;
    return status;
}
