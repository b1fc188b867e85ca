/* wal_directory.c - which segments are there, and what their headers and marks say. */
#include "wal_directory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "bytes.h"
#include "error.h"
#include "wal_salvage.h"

typedef struct seq_list {
    uint64_t *seqs;
    size_t count, capacity;
} seq_list;

static int collect_seq(void *context, const char *name)
{
    seq_list *list = context;
    uint64_t seq;
    if (!npk_segment_name_decode(name, &seq))
        return 0;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 32;
        uint64_t *seqs = capacity > SIZE_MAX / sizeof *seqs ? NULL : npk_realloc(list->seqs, capacity * sizeof *seqs);
        if (!seqs)
            return ENOMEM;
        list->seqs = seqs;
        list->capacity = capacity;
    }
    list->seqs[list->count++] = seq;
    return 0;
}

static int compare_seqs(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

npk_status npk_wal_list_seqs(npk_wal *wal, uint64_t **seqs, size_t *count, npk_error *err)
{
    seq_list list = {0};
    int rc = wal->io->list(wal->io, wal->directory, collect_seq, &list);
    if (rc) {
        npk_free(list.seqs);
        return npk_fail_errno(err, rc, "could not list the log's directory");
    }
    if (list.count)
        qsort(list.seqs, list.count, sizeof *list.seqs, compare_seqs);
    *seqs = list.seqs;
    *count = list.count;
    return NPK_OK;
}

/* bytes: scratch of NPK_WAL_HEADER_SIZE bytes. ENOENT gives NOT_FOUND. */
static npk_status load_entry(npk_wal *wal, uint64_t seq, uint8_t *bytes, npk_wal_entry *entry, npk_error *err)
{
    const npk_io *io = wal->io;
    char name[NPK_WAL_NAME_SIZE];
    npk_segment_name(seq, name);
    memset(entry, 0, sizeof *entry);
    entry->seq = seq;
    npk_file *file = NULL;
    int rc = io->open(io, wal->directory, name, NPK_OPEN_READ, &file);
    if (rc)
        return npk_fail_errno(err, rc, "could not open segment \"%s\"", name);
    npk_file_info info;
    size_t done = 0;
    npk_status status = NPK_OK;
    rc = io->info(io, file, &info);
    if (rc)
        status = npk_fail_errno(err, rc == ENOENT ? EIO : rc, "could not examine segment \"%s\"", name);
    if (status == NPK_OK)
        status = npk_io_read_full(io, file, 0, bytes, NPK_WAL_HEADER_SIZE, &done, name, err);
    if (status != NPK_OK)
        goto end;
    entry->file_size = info.size;
    entry->status = npk_segment_header_decode(bytes, done, &entry->header, &entry->reason);
    if (entry->status == NPK_OK && entry->header.seq != seq) {
        entry->status = NPK_CORRUPT;
        entry->reason = "header names another sequence number";
    }
    if (entry->status == NPK_OK && memcmp(entry->header.uuid, wal->uuid, sizeof wal->uuid) != 0) {
        entry->status = NPK_CORRUPT;
        entry->reason = "belongs to another store";
    }
    if (entry->status == NPK_CORRUPT && wal->salvage) {
        bool guessed = false;
        status = npk_wal_guess_header(wal, file, seq, &entry->header, &guessed, err);
        if (status != NPK_OK)
            goto end;
        if (guessed)
            entry->status = NPK_OK;
    }
    if (entry->status != NPK_OK || info.size < entry->header.segment_size)
        goto end;
    status = npk_io_read_full(io, file, npk_segment_area_end(entry->header.segment_size), bytes, NPK_SEGMENT_MARK_SIZE, &done,
                              name, err);
    if (status == NPK_OK)
        entry->has_mark = npk_segment_mark_decode(bytes, done, &entry->mark);
end:
    io->close(io, file);
    return status;
}

npk_status npk_wal_entries_load(npk_wal *wal, npk_wal_entries *entries, npk_error *err)
{
    memset(entries, 0, sizeof *entries);
    uint64_t *seqs = NULL;
    size_t count = 0;
    npk_status status = npk_wal_list_seqs(wal, &seqs, &count, err);
    if (status != NPK_OK)
        return status;
    uint8_t *bytes = npk_alloc(NPK_WAL_HEADER_SIZE);
    entries->items = npk_calloc(count, sizeof *entries->items);
    if (!bytes || !entries->items)
        status = npk_fail(err, NPK_NO_MEMORY, "no memory for the list of segments");

    uint32_t highest_cut = 0;
    for (size_t i = 0; i < count && status == NPK_OK; i++) {
        npk_wal_entry *entry = &entries->items[entries->count];
        status = load_entry(wal, seqs[i], bytes, entry, err);
        if (status == NPK_NOT_FOUND) {
            status = NPK_OK;
            continue;
        }
        if (status != NPK_OK)
            break;
        entries->count++;
        entries->highest_seq = npk_max_u64(entries->highest_seq, entry->seq);
        if (entry->status != NPK_OK)
            continue;
        entry->is_void = highest_cut > entry->header.epoch;
        if (entry->header.cut_epoch > highest_cut)
            highest_cut = entry->header.cut_epoch;
        uint64_t epoch = npk_max_u64(entry->header.epoch, entry->header.cut_epoch);
        if (entry->has_mark) {
            epoch = npk_max_u64(epoch, entry->mark.epoch);
            entries->highest_seq = npk_max_u64(entries->highest_seq, entry->mark.seq);
        }
        entries->highest_epoch = (uint32_t)npk_max_u64(entries->highest_epoch, epoch);
    }
    npk_free(bytes);
    npk_free(seqs);
    if (status != NPK_OK)
        npk_wal_entries_release(entries);
    return status;
}

void npk_wal_entries_release(npk_wal_entries *entries)
{
    npk_free(entries->items);
    memset(entries, 0, sizeof *entries);
}

size_t npk_wal_entries_next(const npk_wal_entries *entries, size_t index)
{
    for (index++; index < entries->count; index++)
        if (npk_wal_entry_is_live(&entries->items[index]))
            break;
    return index;
}
