/* wal.c - the log handle: opening, the cache of open segments, syncs and doubt, spares, and removal of what is not needed. */
#include "wal.h"

#include <errno.h>
#include <string.h>

#include "alloc.h"
#include "bytes.h"
#include "error.h"
#include "wal_directory.h"
#include "wal_handle.h"
#include "wal_salvage.h"

static void lock(npk_wal *wal)
{
    (void)pthread_mutex_lock(&wal->mutex);
}

static void unlock(npk_wal *wal)
{
    (void)pthread_mutex_unlock(&wal->mutex);
}

npk_status npk_wal_open(npk_file *directory, const npk_wal_options *options, npk_wal **wal, npk_error *err)
{
    if (options->segment_size < NPK_WAL_SEGMENT_SIZE_MIN || options->segment_size > NPK_WAL_SEGMENT_SIZE_MAX ||
        options->segment_size % 4096)
        return npk_fail(err, NPK_INVALID, "log segment size %llu is not a multiple of 4096 between %u and %u",
                        (unsigned long long)options->segment_size, NPK_WAL_SEGMENT_SIZE_MIN, NPK_WAL_SEGMENT_SIZE_MAX);
    npk_wal *made = npk_calloc(1, sizeof *made);
    if (!made)
        return npk_fail(err, NPK_NO_MEMORY, "no memory for the log");
    int rc = pthread_mutex_init(&made->mutex, NULL);
    if (rc) {
        npk_free(made);
        return npk_fail_errno(err, rc, "could not make a mutex");
    }
    made->io = options->io;
    made->directory = directory;
    memcpy(made->uuid, options->uuid, sizeof made->uuid);
    made->segment_size = options->segment_size;
    made->salvage = options->salvage;
    npk_buffer_init(&made->buffer);
    *wal = made;
    return NPK_OK;
}

void npk_wal_close(npk_wal *wal)
{
    if (!wal)
        return;
    char spare[NPK_WAL_NAME_SIZE];
    npk_file *spare_file = NULL;
    if (npk_wal_take_spare(wal, spare, &spare_file))
        (void)wal->io->unlink(wal->io, wal->directory, spare);
    wal->io->close(wal->io, spare_file);
    npk_wal_set_current(wal, NULL);
    npk_wal_forget_segments(wal);
    npk_buffer_release(&wal->buffer);
    wal->io->close(wal->io, wal->directory);
    (void)pthread_mutex_destroy(&wal->mutex);
    npk_free(wal);
}

/* ---- doubt, syncs, counters --------------------------------------------------------------------------------------- */

bool npk_wal_is_in_doubt(npk_wal *wal)
{
    lock(wal);
    bool in_doubt = wal->in_doubt;
    unlock(wal);
    return in_doubt;
}

bool npk_wal_in_doubt(const npk_wal *wal)
{
    return npk_wal_is_in_doubt((npk_wal *)wal); /* the mutex inside is no part of what const promises */
}

void npk_wal_set_in_doubt(npk_wal *wal)
{
    lock(wal);
    wal->in_doubt = true;
    unlock(wal);
}

void npk_wal_count_syncs(npk_wal *wal, uint64_t count)
{
    lock(wal);
    wal->counters.syncs += count;
    unlock(wal);
}

npk_wal_counters npk_wal_count(const npk_wal *wal)
{
    npk_wal *shared = (npk_wal *)wal;
    lock(shared);
    npk_wal_counters counters = shared->counters;
    unlock(shared);
    return counters;
}

npk_status npk_wal_sync_directory(npk_wal *wal, npk_error *err)
{
    npk_wal_count_syncs(wal, 1);
    int rc = wal->io->sync(wal->io, wal->directory);
    return rc ? npk_fail_errno(err, rc, "could not sync the log's directory") : NPK_OK;
}

static npk_status poisoned(npk_error *err)
{
    return npk_fail(err, NPK_POISONED, "an earlier write or sync of the log failed");
}

/* Is the log in doubt for who began at generation? */
static bool is_doubted(npk_wal *wal, uint64_t generation)
{
    lock(wal);
    bool doubted = wal->in_doubt && wal->generation == generation;
    unlock(wal);
    return doubted;
}

npk_status npk_wal_sync_file(npk_wal *wal, npk_segment *segment, uint64_t generation, npk_error *err)
{
    npk_status status = NPK_OK;
    (void)pthread_mutex_lock(&segment->sync_mutex);
    if (is_doubted(wal, generation)) {
        status = poisoned(err);
    } else {
        npk_wal_count_syncs(wal, 1);
        int rc = wal->io->sync(wal->io, segment->file);
        if (rc) {
            status = npk_fail_errno(err, rc, "could not sync segment \"%s\"", segment->name);
            lock(wal);
            if (wal->generation == generation)
                wal->in_doubt = true;
            unlock(wal);
        } else if (is_doubted(wal, generation)) {
            /* Another sync or write failed meanwhile: the system tells only one of us, so this success proves nothing. */
            status = poisoned(err);
        }
    }
    (void)pthread_mutex_unlock(&segment->sync_mutex);
    return status;
}

npk_status npk_wal_sync_segment(npk_wal *wal, uint64_t seq, bool *sync_failed, npk_error *err)
{
    npk_segment *segment = NULL;
    *sync_failed = false;
    lock(wal);
    uint64_t generation = wal->generation;
    if (wal->current && wal->current->header.seq == seq)
        segment = npk_segment_retain(wal->current);
    unlock(wal);
    if (!segment) {
        npk_status status = npk_wal_segment(wal, seq, &segment, err);
        if (status != NPK_OK)
            return status;
    }
    npk_status status = npk_wal_sync_file(wal, segment, generation, err);
    *sync_failed = status != NPK_OK && status != NPK_POISONED;
    npk_segment_release(segment);
    return status;
}

void npk_wal_set_current(npk_wal *wal, npk_segment *segment)
{
    lock(wal);
    npk_segment *before = wal->current;
    wal->current = segment;
    unlock(wal);
    npk_segment_release(before);
}

/* ---- the cache of segments open for reading ----------------------------------------------------------------------- */

/* Find seq, move it to the front, take a reference. The mutex is held. */
static npk_segment *cache_find(npk_wal *wal, uint64_t seq)
{
    for (size_t i = 0; i < NPK_WAL_CACHE_COUNT && wal->cache[i]; i++) {
        npk_segment *segment = wal->cache[i];
        if (segment->header.seq != seq)
            continue;
        memmove(wal->cache + 1, wal->cache, i * sizeof wal->cache[0]);
        wal->cache[0] = segment;
        return npk_segment_retain(segment);
    }
    return NULL;
}

npk_status npk_wal_segment(npk_wal *wal, uint64_t seq, npk_segment **segment, npk_error *err)
{
    lock(wal);
    npk_segment *found = cache_find(wal, seq);
    uint64_t generation = wal->cache_generation;
    unlock(wal);
    if (found) {
        *segment = found;
        return NPK_OK;
    }
    npk_segment *opened = NULL;
    npk_status status = npk_segment_open(wal->io, wal->directory, wal->uuid, seq, false, &opened, err);
    if (status == NPK_CORRUPT && wal->salvage)
        status = npk_wal_open_headless(wal, seq, &opened, err);
    if (status != NPK_OK)
        return status;
    npk_segment *dropped = NULL;
    lock(wal);
    found = cache_find(wal, seq); /* another thread may have been faster */
    if (!found && generation == wal->cache_generation) {
        dropped = wal->cache[NPK_WAL_CACHE_COUNT - 1];
        memmove(wal->cache + 1, wal->cache, (NPK_WAL_CACHE_COUNT - 1) * sizeof wal->cache[0]);
        wal->cache[0] = npk_segment_retain(opened);
    }
    unlock(wal);
    npk_segment_release(dropped);
    if (found) {
        npk_segment_release(opened);
        opened = found;
    }
    *segment = opened;
    return NPK_OK;
}

/* Forget cached segments with seq < before_seq. */
static void forget_before(npk_wal *wal, uint64_t before_seq)
{
    npk_segment *dropped[NPK_WAL_CACHE_COUNT];
    size_t dropped_count = 0, kept = 0;
    lock(wal);
    for (size_t i = 0; i < NPK_WAL_CACHE_COUNT; i++) {
        npk_segment *segment = wal->cache[i];
        wal->cache[i] = NULL;
        if (segment && segment->header.seq >= before_seq)
            wal->cache[kept++] = segment;
        else if (segment)
            dropped[dropped_count++] = segment;
    }
    wal->cache_generation++;
    unlock(wal);
    while (dropped_count)
        npk_segment_release(dropped[--dropped_count]); /* may close files: not under the mutex */
}

void npk_wal_forget_segments(npk_wal *wal)
{
    forget_before(wal, UINT64_MAX);
}

/* ---- spares ------------------------------------------------------------------------------------------------------- */

/* On success the file stays open. */
static npk_status write_spare(npk_wal *wal, const char *name, npk_file **spare_file, npk_error *err)
{
    const npk_io *io = wal->io;
    npk_file *file = NULL;
    int rc = io->open(io, wal->directory, name, NPK_OPEN_WRITE | NPK_OPEN_CREATE | NPK_OPEN_EXCLUSIVE, &file);
    if (rc)
        return npk_fail_errno(err, rc, "could not create file \"%s\"", name);
    /* Without the lock somebody may remove it, which costs no more than the spare. */
    (void)io->lock(io, file, 0, 1, NPK_LOCK_EXCLUSIVE);
    /* Written, not only allocated: a later sync of records then changes no file-system metadata. */
    npk_status status = npk_segment_fill(io, file, wal->segment_size, false, name, err);
    if (status == NPK_OK) {
        npk_wal_count_syncs(wal, 1);
        rc = io->sync(io, file);
        if (rc)
            status = npk_fail_errno(err, rc, "could not sync file \"%s\"", name);
    }
    if (status == NPK_OK)
        status = npk_wal_sync_directory(wal, err);
    if (status == NPK_OK) {
        *spare_file = file;
    } else {
        (void)io->unlink(io, wal->directory, name);
        io->close(io, file);
    }
    return status;
}

npk_status npk_wal_prepare_spare(npk_wal *wal, npk_error *err)
{
    lock(wal);
    bool is_mine = wal->spare_state == NPK_SPARE_NONE;
    if (is_mine)
        wal->spare_state = NPK_SPARE_IN_WORK;
    unlock(wal);
    if (!is_mine)
        return NPK_OK;
    char name[NPK_WAL_NAME_SIZE] = "";
    npk_file *file = NULL;
    uint64_t random = 0;
    int rc = wal->io->random(wal->io, &random, sizeof random);
    npk_status status = rc ? npk_fail_errno(err, rc, "could not get a random number") : NPK_OK;
    if (status == NPK_OK) {
        npk_segment_spare_name(random, name);
        status = write_spare(wal, name, &file, err);
    }
    lock(wal);
    wal->spare_state = status == NPK_OK ? NPK_SPARE_READY : NPK_SPARE_NONE;
    memcpy(wal->spare_name, name, sizeof name);
    wal->spare_file = file;
    if (status == NPK_OK)
        wal->counters.spares++;
    unlock(wal);
    return status;
}

bool npk_wal_has_spare(const npk_wal *wal)
{
    npk_wal *shared = (npk_wal *)wal;
    lock(shared);
    bool has_spare = shared->spare_state == NPK_SPARE_READY;
    unlock(shared);
    return has_spare;
}

bool npk_wal_take_spare(npk_wal *wal, char name[NPK_WAL_NAME_SIZE], npk_file **file)
{
    lock(wal);
    bool has_spare = wal->spare_state == NPK_SPARE_READY;
    if (has_spare) {
        memcpy(name, wal->spare_name, NPK_WAL_NAME_SIZE);
        *file = wal->spare_file;
        wal->spare_file = NULL;
        wal->spare_state = NPK_SPARE_NONE;
    }
    unlock(wal);
    return has_spare;
}

/* ---- creating and removing segments ----------------------------------------------------------------------------- */

npk_status npk_wal_make_segment(npk_wal *wal, const npk_segment_header *header, npk_segment *predecessor, bool *renamed,
                                npk_segment **segment, npk_error *err)
{
    char spare[NPK_WAL_NAME_SIZE];
    npk_file *spare_file = NULL;
    bool has_spare = npk_wal_take_spare(wal, spare, &spare_file);
    uint64_t sync_count = 0;
    npk_segment *made = NULL;
    npk_status status = npk_segment_create(wal->io, wal->directory, header, has_spare ? spare : NULL, renamed, &sync_count,
                                           &made, err);
    wal->io->close(wal->io, spare_file);
    npk_wal_count_syncs(wal, sync_count);
    if (status != NPK_OK)
        return status;
    if (predecessor) {
        npk_segment_mark mark = {header->seq, header->first_lsn, header->epoch};
        status = npk_segment_write_mark(predecessor, &mark, err);
        if (status == NPK_OK) {
            (void)pthread_mutex_lock(&predecessor->sync_mutex);
            npk_wal_count_syncs(wal, 1);
            int rc = wal->io->sync(wal->io, predecessor->file);
            (void)pthread_mutex_unlock(&predecessor->sync_mutex);
            if (rc)
                status = npk_fail_errno(err, rc, "could not sync segment \"%s\"", predecessor->name);
        }
        if (status != NPK_OK) { /* the new file stays: the mark may be on disk already */
            npk_segment_release(made);
            return status;
        }
    }
    *segment = made;
    return NPK_OK;
}

npk_status npk_wal_check_unused(npk_wal *wal, npk_error *err)
{
    uint64_t *seqs = NULL;
    size_t count = 0;
    npk_status status = npk_wal_list_seqs(wal, &seqs, &count, err);
    bool is_used = status == NPK_OK && count > 0 && seqs[count - 1] != 1;
    npk_free(seqs);
    if (status != NPK_OK)
        return status;
    char name[NPK_WAL_NAME_SIZE];
    npk_segment_name(1, name);
    npk_file *file = NULL;
    int rc = wal->io->open(wal->io, wal->directory, name, NPK_OPEN_READ, &file);
    if (rc && rc != ENOENT)
        return npk_fail_errno(err, rc, "could not open segment \"%s\"", name);
    if (rc == 0) {
        uint8_t bytes[NPK_RECORD_HEADER_SIZE];
        size_t done = 0;
        status = npk_io_read_full(wal->io, file, NPK_WAL_HEADER_SIZE, bytes, sizeof bytes, &done, name, err);
        wal->io->close(wal->io, file);
        if (status != NPK_OK)
            return status;
        is_used = is_used || !npk_is_zero(bytes, done);
    }
    return is_used ? npk_fail(err, NPK_EXISTS, "the log holds records already") : NPK_OK;
}

npk_status npk_wal_create(npk_wal *wal, npk_wal_end *end, npk_error *err)
{
    npk_status status = npk_wal_check_unused(wal, err);
    if (status != NPK_OK)
        return status;
    npk_segment_header header = {.seq = 1,
                                 .segment_size = wal->segment_size,
                                 .first_lsn = NPK_WAL_FIRST_LSN,
                                 .epoch = 1,
                                 .previous_end_lsn = NPK_WAL_FIRST_LSN,
                                 .created_us = wal->io->now_us(wal->io)};
    memcpy(header.uuid, wal->uuid, sizeof header.uuid);
    npk_segment *segment = NULL;
    bool renamed;
    /* Zero-filled, as the later ones are that the background thread prepares: into space that is only allocated, each sync of a commit would write
     * metadata as well. Most stores live in their first segment. What fails here fails again below, or can be done without. */
    (void)npk_wal_prepare_spare(wal, NULL);
    status = npk_wal_make_segment(wal, &header, NULL, &renamed, &segment, err);
    if (status != NPK_OK)
        return npk_context(err, status, "create log");
    npk_segment_release(segment);
    npk_wal_set_current(wal, NULL); /* what is open may be the file that an unfinished creation left under this name */
    npk_wal_forget_segments(wal);
    *end = (npk_wal_end){NPK_WAL_FIRST_LSN, 1, 1, NPK_WAL_FIRST_LSN, wal->segment_size, 0};
    return NPK_OK;
}

static int note_leftover(void *context, const char *name)
{
    npk_buffer *names = context;
    if (npk_wal_name_is_leftover(name))
        npk_buffer_put(names, name, strlen(name) + 1);
    return names->failed ? ENOMEM : 0;
}

/* A spare that its owner may still use: it is locked. Others have no owner: temporary files belong to holders of the writer lock. */
static bool has_owner(npk_wal *wal, const char *name)
{
    const npk_io *io = wal->io;
    npk_file *file = NULL;
    if (!npk_segment_name_is_spare(name) || io->open(io, wal->directory, name, NPK_OPEN_READ, &file) != 0)
        return false;
    bool locked = io->lock_test(io, file, 0, 1, NPK_LOCK_SHARED) != 0;
    io->close(io, file);
    lock(wal);
    bool own = wal->spare_state == NPK_SPARE_READY && strcmp(name, wal->spare_name) == 0;
    unlock(wal);
    return locked || own;
}

npk_status npk_wal_remove_leftovers(npk_wal *wal, npk_error *err)
{
    npk_buffer names;
    npk_buffer_init(&names);
    int rc = wal->io->list(wal->io, wal->directory, note_leftover, &names); /* unlinked only when they are all listed */
    npk_status status = rc ? npk_fail_errno(err, rc, "could not list the log's directory") : NPK_OK;
    bool removed = false;
    for (size_t at = 0; status == NPK_OK && at < names.size; at += strlen((const char *)names.data + at) + 1) {
        const char *name = (const char *)names.data + at;
        if (has_owner(wal, name))
            continue;
        rc = wal->io->unlink(wal->io, wal->directory, name);
        if (rc && rc != ENOENT)
            status = npk_fail_errno(err, rc, "could not remove file \"%s\"", name);
        removed = true;
    }
    npk_buffer_release(&names);
    return status == NPK_OK && removed ? npk_wal_sync_directory(wal, err) : status;
}

bool npk_wal_owns_name(const char *name)
{
    uint64_t seq;
    return npk_segment_name_decode(name, &seq) || npk_wal_name_is_leftover(name);
}

npk_status npk_wal_reclaim(npk_wal *wal, uint64_t before_seq, uint64_t *removed_count, npk_error *err)
{
    uint64_t *seqs = NULL;
    size_t count = 0;
    npk_status status = npk_wal_list_seqs(wal, &seqs, &count, err);
    if (status != NPK_OK)
        return status;
    uint64_t removed = 0;
    for (size_t i = 0; i < count && seqs[i] < before_seq; i++) {
        char name[NPK_WAL_NAME_SIZE];
        npk_segment_name(seqs[i], name);
        int rc = wal->io->unlink(wal->io, wal->directory, name);
        if (rc && rc != ENOENT) {
            status = npk_fail_errno(err, rc, "could not remove segment \"%s\"", name);
            break;
        }
        removed += rc == 0;
    }
    npk_free(seqs);
    forget_before(wal, before_seq);
    if (removed) {
        npk_error ignored;
        npk_status sync_status = npk_wal_sync_directory(wal, status == NPK_OK ? err : &ignored);
        if (status == NPK_OK)
            status = sync_status;
    }
    if (status == NPK_OK)
        *removed_count = removed;
    return status;
}

npk_status npk_wal_list(npk_wal *wal, void (*visit)(void *context, const npk_segment_info *info), void *context,
                        npk_error *err)
{
    npk_wal_entries entries;
    npk_status status = npk_wal_entries_load(wal, &entries, err);
    if (status != NPK_OK)
        return status;
    for (size_t i = 0; i < entries.count; i++) {
        const npk_wal_entry *entry = &entries.items[i];
        const npk_segment_header *h = &entry->header;
        npk_segment_info info = {.seq = entry->seq, .size = entry->file_size};
        if (entry->status == NPK_OK)
            info = (npk_segment_info){entry->seq, h->first_lsn, h->segment_size, h->epoch, h->cut_epoch, h->cut_lsn, true};
        visit(context, &info);
    }
    npk_wal_entries_release(&entries);
    return NPK_OK;
}
