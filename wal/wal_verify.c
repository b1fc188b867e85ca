/* wal_verify.c - check every record of every segment that is there, and go on behind damage. */
#include <string.h>

#include "bytes.h"
#include "error.h"
#include "wal_reader.h"

typedef struct verifier {
    uint64_t until_lsn; /* 0: none */
    void (*report)(void *context, uint64_t seq, uint64_t offset, uint64_t size, uint64_t lsn, const char *reason);
    void *context;
} verifier;

/* Where the segment's records must reach, as an offset; *is_known: proven by what comes behind, so that zeros before it are a finding. */
static uint64_t find_end(const npk_wal_entries *entries, size_t index, const npk_wal_loaded *loaded, uint64_t until_lsn,
                         bool *is_known)
{
    const npk_wal_entry *entry = &entries->items[index];
    uint64_t first_lsn = entry->header.first_lsn;
    uint64_t end_lsn = npk_wal_loaded_lsn(loaded, npk_segment_area_end(entry->header.segment_size));
    size_t next = npk_wal_entries_next(entries, index);
    *is_known = true;
    if (entry->header.cut_epoch)
        end_lsn = entry->header.cut_lsn;
    else if (next < entries->count && entries->items[next].header.previous_seq == entry->seq)
        end_lsn = npk_min_u64(end_lsn, entries->items[next].header.first_lsn);
    else if (entry->has_mark)
        end_lsn = npk_min_u64(end_lsn, entry->mark.first_lsn);
    else
        *is_known = false;
    if (until_lsn && until_lsn <= end_lsn) {
        end_lsn = until_lsn;
        *is_known = true;
    }
    return NPK_WAL_HEADER_SIZE + (npk_max_u64(end_lsn, first_lsn) - first_lsn);
}

static npk_status verify_segment(const verifier *v, const npk_wal_entries *entries, size_t index, npk_wal_loaded *loaded,
                                 npk_error *err)
{
    uint64_t seq = entries->items[index].seq;
    bool is_known;
    uint64_t end = find_end(entries, index, loaded, v->until_lsn, &is_known);
    uint64_t limit = npk_min_u64(end, loaded->end_offset);
    uint64_t offset = NPK_WAL_HEADER_SIZE;
    while (offset < limit && offset < loaded->end_offset) {
        npk_record_header header;
        npk_record_fault fault;
        npk_status status = npk_wal_loaded_check(loaded, offset, &header, &fault, err);
        if (status != NPK_OK)
            return status;
        if (fault == NPK_RECORD_FAULT_NONE) {
            offset += npk_record_size(header.meta_size, header.data_size);
            continue;
        }
        status = npk_wal_loaded_need(loaded, loaded->end_offset, err);
        if (status != NPK_OK)
            return status;
        limit = npk_min_u64(limit, loaded->end_offset);
        if (offset >= limit)
            break;
        uint64_t next = npk_wal_search(loaded, npk_min_u64(offset + 8, limit), limit, &header);
        if (next >= limit && !is_known)
            return NPK_OK; /* the tail: a scan's matter */
        v->report(v->context, seq, offset, next - offset, npk_wal_loaded_lsn(loaded, offset), npk_record_fault_text(fault));
        offset = next;
    }
    if (is_known && loaded->end_offset < end)
        v->report(v->context, seq, loaded->end_offset, end - loaded->end_offset,
                  npk_wal_loaded_lsn(loaded, loaded->end_offset), "file is too short");
    return NPK_OK;
}

npk_status npk_wal_verify(npk_wal *wal, uint64_t until_lsn,
                          void (*report)(void *context, uint64_t seq, uint64_t offset, uint64_t size, uint64_t lsn,
                                         const char *reason),
                          int (*progress)(void *context, uint64_t done_size), void *context, npk_error *err)
{
    npk_wal_entries entries;
    npk_status status = npk_wal_entries_load(wal, &entries, err);
    if (status != NPK_OK)
        return npk_context(err, status, "verify log");
    verifier v = {until_lsn, report, context};
    npk_wal_loaded loaded = {0};
    npk_buffer_init(&loaded.bytes);
    uint64_t done_size = 0;
    for (size_t i = 0; i < entries.count && status == NPK_OK; i++) {
        const npk_wal_entry *entry = &entries.items[i];
        if (entry->status != NPK_OK)
            report(context, entry->seq, 0, npk_min_u64(entry->file_size, NPK_WAL_HEADER_SIZE), 0, entry->reason);
        if (!npk_wal_entry_is_live(entry) || (until_lsn && entry->header.first_lsn >= until_lsn))
            continue;
        status = npk_wal_load(wal, entry, &loaded, err);
        if (status == NPK_OK)
            status = verify_segment(&v, &entries, i, &loaded, err);
        if (status == NPK_IO || status == NPK_CORRUPT) { /* a device that cannot read it: a finding like any other */
            report(context, entry->seq, 0, entry->file_size, entry->header.first_lsn, "segment cannot be read");
            status = NPK_OK;
        } else if (status == NPK_NOT_FOUND) { /* reclaimed meanwhile */
            status = NPK_OK;
        }
        done_size += entry->file_size;
        if (status == NPK_OK && progress && progress(context, done_size))
            status = npk_fail(err, NPK_INTERRUPTED, "verification was interrupted");
    }
    npk_wal_loaded_release(&loaded);
    npk_wal_entries_release(&entries);
    return status;
}
