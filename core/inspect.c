/* inspect.c - looking at a store that is not open: the state in memory from checkpoint and log, and what is wrong with it. Never touches
 * the index, writes nothing. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "alloc.h"
#include "bytes.h"
#include "catalog.h"
#include "checkpoint.h"
#include "error.h"
#include "locks.h"
#include "opening.h"
#include "recover.h"
#include "store_files.h"
#include "unsynced.h"
#include "verify.h"

struct look { /* what is open while inspecting */
    const npk_io *io;
    npk_file *root, *wal_directory, *columns_directory, *checkpoint_directory;
    uint8_t uuid[16];
    npk_wal *wal;
    npk_columns *columns;
    npk_kv *kv;
    npk_replay replay;
};

static void close_look(struct look *look)
{
    npk_replay_release(&look->replay);
    npk_kv_close(look->kv);
    npk_columns_close(look->columns);
    npk_wal_close(look->wal);
    look->io->close(look->io, look->wal_directory);
    look->io->close(look->io, look->columns_directory);
    look->io->close(look->io, look->checkpoint_directory);
    look->io->close(look->io, look->root);
}

static void add_finding(npk_inspection *inspection, const npk_inspection_visitor *visitor, const char *file,
                        const char *reason)
{
    npk_finding finding = {.first_row = -1, .row_count = -1};
    (void)snprintf(finding.file, sizeof finding.file, "%.63s", file);
    (void)snprintf(finding.reason, sizeof finding.reason, "%.127s", reason);
    inspection->finding_count++;
    if (visitor && visitor->finding)
        visitor->finding(visitor->context, &finding);
}

/* A directory that is missing is a finding; what it held is gone. */
static bool open_directory(struct look *look, const char *name, npk_file **directory, npk_inspection *inspection,
                           const npk_inspection_visitor *visitor)
{
    int rc = look->io->open(look->io, look->root, name, NPK_OPEN_READ | NPK_OPEN_DIRECTORY, directory);
    if (rc) {
        *directory = NULL;
        add_finding(inspection, visitor, name, rc == ENOENT ? "the directory is missing" : "the directory cannot be opened");
    }
    return rc == 0;
}

static void note_uuid(const uint8_t uuid[16], char text[37])
{
    static const char digits[] = "0123456789abcdef";
    char *out = text;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *out++ = '-';
        *out++ = digits[uuid[i] >> 4];
        *out++ = digits[uuid[i] & 15];
    }
    *out = '\0';
}

static bool is_in_use(struct look *look)
{
    npk_file *lock = NULL;
    if (look->io->open(look->io, look->root, NPK_FILE_LOCK, NPK_OPEN_READ, &lock) != 0)
        return false;
    /* A shared lock on our own descriptor would need no write permission, but asking is enough. */
    int rc = look->io->lock_test(look->io, lock, NPK_LOCK_OPEN, 1, NPK_LOCK_EXCLUSIVE);
    look->io->close(look->io, lock);
    return rc == EAGAIN;
}

/* ---- what is there ------------------------------------------------------------------------------------------------------ */

struct tally {
    struct look *look;
    npk_inspection *inspection;
    const npk_inspection_visitor *visitor;
    npk_buffer ids;
};

static npk_status note_array(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size,
                             bool *stop, npk_error *err)
{
    (void)value;
    (void)value_size;
    (void)stop;
    struct tally *tally = context;
    if (key_size != 8)
        return npk_catalog_fail(err, NPK_TABLE_ARRAYS);
    uint64_t id = npk_get_be64(key);
    npk_buffer_put(&tally->ids, &id, sizeof id);
    return tally->ids.failed ? npk_fail(err, NPK_NO_MEMORY, "could not list arrays") : NPK_OK;
}

static npk_status tally_arrays(struct tally *tally, npk_error *err)
{
    npk_status status =
        npk_kv_scan(tally->look->kv, NPK_TABLE_ARRAYS, NULL, 0, NULL, 0, note_array, tally, err);
    for (size_t at = 0; at < tally->ids.size && status == NPK_OK; at += sizeof(uint64_t)) {
        uint64_t id;
        memcpy(&id, tally->ids.data + at, sizeof id);
        npk_array_record record;
        bool found = false;
        status = npk_catalog_get_array(tally->look->kv, id, &record, &found, err);
        if (status != NPK_OK || !found)
            continue;
        /* The record counts a row for each place it has in the log; here it is one row. */
        npk_array_sources places = {.io = tally->look->io, .only_places = true};
        npk_array *built = NULL;
        bool missing = false;
        if (npk_array_build(tally->look->kv, record.name, &places, &built, &missing, NULL) == NPK_OK)
            record.pending_row_count = built->info.pending_row_count;
        npk_array_release(built);
        tally->inspection->array_count++;
        tally->inspection->row_count += record.row_count;
        tally->inspection->pending_row_count += record.pending_row_count;
        if (tally->visitor && tally->visitor->array) {
            npk_inspection_array array = {record.name, record.descr, record.row_count, record.row_size,
                                          record.pending_row_count, record.ndim, record.shape, record.zero_dim};
            tally->visitor->array(tally->visitor->context, &array);
        }
        npk_array_record_release(&record);
    }
    return status;
}

static int note_file(void *context, const char *name)
{
    struct tally *tally = context;
    uint64_t id;
    bool known = false, temporary = npk_store_files_decode_column_temp(name, &id);
    if (!temporary && !npk_store_files_decode_column(name, &id))
        return 0;
    npk_container container;
    if (!temporary && npk_catalog_get_container(tally->look->kv, NPK_CONTAINER_COLUMN, id, &container, &known, NULL) != NPK_OK)
        return EIO;
    npk_file_info info;
    if (!known && tally->look->io->info_at(tally->look->io, tally->look->columns_directory, name, &info) == 0) {
        tally->inspection->orphan_count++;
        tally->inspection->orphan_size += info.size;
    }
    return 0;
}

static void forward_finding(void *context, const npk_finding *finding)
{
    struct tally *tally = context;
    if (tally->visitor && tally->visitor->finding)
        tally->visitor->finding(tally->visitor->context, finding);
}

static int forward_progress(void *context, uint64_t done_size, uint64_t total_size)
{
    struct tally *tally = context;
    return tally->visitor && tally->visitor->progress ?
               tally->visitor->progress(tally->visitor->context, done_size, total_size) : 0;
}

/* A state that was cut short by damage is still shown; only a state that holds together can be verified. */
static npk_status verify_state(struct tally *tally, int deep, npk_error *err)
{
    npk_verify verify = {.kv = tally->look->kv,
                         .sources = {.io = tally->look->io, .wal = tally->look->wal, .columns = tally->look->columns},
                         .until_lsn = tally->look->replay.scan.end.lsn,
                         .report = forward_finding,
                         .progress = forward_progress,
                         .context = tally};
    npk_status status = deep ? npk_verify_run(&verify, true, err) : npk_verify_files(&verify, err);
    tally->inspection->finding_count += verify.finding_count;
    return status;
}

/* ---- the whole look --------------------------------------------------------------------------------------------------------- */

static npk_status replay_state(struct look *look, npk_inspection *inspection, const npk_inspection_visitor *visitor,
                               uint64_t stop_lsn, npk_error *err)
{
    npk_error reason = {0};
    npk_status status = npk_recover_replay(look->io, look->checkpoint_directory, look->wal, look->uuid, look->kv, stop_lsn,
                                           &look->replay, &reason);
    if (status == NPK_CORRUPT || status == NPK_NOT_FOUND) {
        add_finding(inspection, visitor, NPK_DIRECTORY_WAL, reason.message);
        (void)snprintf(inspection->reason, sizeof inspection->reason, "%.255s", reason.message);
        return NPK_OK;
    }
    if (status != NPK_OK)
        return npk_fail(err, status, "%s", reason.message);
    const npk_wal_scan *scan = &look->replay.scan;
    if (scan->verdict == NPK_WAL_DAMAGED) {
        (void)npk_recover_refuse(scan, &reason);
        add_finding(inspection, visitor, NPK_DIRECTORY_WAL, reason.message);
    }
    (void)snprintf(inspection->reason, sizeof inspection->reason, "%s", scan->case_name ? scan->case_name : "");
    return NPK_OK;
}

/* Files that were linked unsynced decide with the log where it ends: what the next open would cut is shown as cut. Nothing is asked while the store
 * is in use: its processes sync files, and remove them, meanwhile. */
static npk_status check_files(struct look *look, npk_inspection *inspection, const npk_inspection_visitor *visitor,
                              npk_error *err)
{
    const npk_wal_scan *scan = &look->replay.scan;
    uint64_t log_end_lsn = scan->end.lsn, end_lsn = log_end_lsn;
    npk_link_check check = {.io = look->io,
                            .directory = look->columns_directory,
                            .columns = look->columns,
                            .kv = look->kv,
                            .links = &look->replay.links,
                            .watermark_lsn = scan->watermark_lsn,
                            .trusted_lsn = scan->watermark_lsn,
                            .action = NPK_LINK_CHECK};
    if (look->replay.links.size == 0 || scan->verdict == NPK_WAL_DAMAGED)
        return NPK_OK;
    npk_status status = npk_unsynced_find_end(&check, &end_lsn, err);
    if (status != NPK_OK || end_lsn == log_end_lsn)
        return status;
    npk_kv_close(look->kv);
    look->kv = NULL;
    npk_replay_release(&look->replay);
    status = npk_kv_open(NULL, &look->kv, err);
    if (status == NPK_OK)
        status = replay_state(look, inspection, visitor, end_lsn, err);
    if (status == NPK_OK && scan->verdict == NPK_WAL_TORN) {
        look->replay.scan.tail_size = npk_max_u64(scan->tail_size, log_end_lsn - scan->end.lsn);
        (void)snprintf(inspection->reason, sizeof inspection->reason, "a column file linked unsynced is missing or wrong");
    }
    return status;
}

static void fill_from_replay(const struct look *look, npk_inspection *inspection)
{
    const npk_replay *replay = &look->replay;
    const npk_wal_scan *scan = &replay->scan;
    npk_store_state state;
    bool found = false;
    inspection->position.epoch = scan->end.epoch;
    inspection->position.lsn = scan->end.lsn;
    inspection->last_commit_us = scan->last_commit_us;
    if (npk_catalog_get_state(look->kv, &state, &found, NULL) == NPK_OK && found && state.last_commit_us)
        inspection->last_commit_us = state.last_commit_us;
    inspection->durable_lsn = npk_max_u64(scan->durable_lsn, replay->newest_checkpoint_lsn);
    inspection->checkpoint_lsn = replay->checkpoint_lsn;
    inspection->checkpoint_count = replay->checkpoint_count;
    inspection->bad_checkpoint_count = replay->bad_checkpoint_count;
    inspection->segment_count = scan->segment_count;
    inspection->void_segment_count = scan->void_segment_count;
    inspection->tail_size = scan->tail_size;
    inspection->replayed_transaction_count = scan->transaction_count;
}

static npk_status inspect_open(struct look *look, const char *path, int deep, const npk_inspection_visitor *visitor,
                               npk_inspection *inspection, npk_error *err)
{
    uint64_t created_us = 0;
    bool from_log = false;
    npk_file *wal = NULL;
    if (look->io->open(look->io, look->root, NPK_DIRECTORY_WAL, NPK_OPEN_READ | NPK_OPEN_DIRECTORY, &wal) != 0)
        wal = NULL;
    npk_status status = npk_format_find(look->io, look->root, wal, look->uuid, &created_us, &from_log, err);
    look->io->close(look->io, wal);
    if (status != NPK_OK)
        return npk_context(err, status, "\"%s\" is not a store", path);
    if (from_log)
        add_finding(inspection, visitor, NPK_FILE_FORMAT, "missing or damaged; the log says whose store it is: --repair writes it anew");
    inspection->format_version = 1;
    note_uuid(look->uuid, inspection->uuid);
    bool in_use = is_in_use(look);
    bool whole = open_directory(look, NPK_DIRECTORY_CHECKPOINT, &look->checkpoint_directory, inspection, visitor);
    whole &= open_directory(look, NPK_DIRECTORY_COLUMNS, &look->columns_directory, inspection, visitor);
    whole &= open_directory(look, NPK_DIRECTORY_WAL, &look->wal_directory, inspection, visitor);
    if (!whole) {
        inspection->verdict = NPK_STORE_DAMAGED;
        return NPK_OK;
    }
    npk_wal_options options = {.io = look->io, .segment_size = NPK_DEFAULT_SEGMENT_SIZE};
    memcpy(options.uuid, look->uuid, 16);
    status = npk_wal_open(look->wal_directory, &options, &look->wal, err);
    if (status != NPK_OK)
        return status;
    look->wal_directory = NULL; /* the log closes it */
    status = npk_columns_open(look->io, look->columns_directory, look->uuid, &look->columns, err);
    if (status == NPK_OK)
        status = npk_kv_open(NULL, &look->kv, err);
    if (status == NPK_OK)
        status = replay_state(look, inspection, visitor, 0, err);
    if (status == NPK_OK && !in_use)
        status = check_files(look, inspection, visitor, err);
    if (status != NPK_OK)
        return status;
    fill_from_replay(look, inspection);
    struct tally tally = {look, inspection, visitor, {0}};
    npk_buffer_init(&tally.ids);
    status = tally_arrays(&tally, err);
    int rc = status == NPK_OK ? look->io->list(look->io, look->columns_directory, note_file, &tally) : 0;
    if (rc)
        status = npk_fail_errno(err, rc, "could not list the column directory");
    if (status == NPK_OK)
        status = verify_state(&tally, deep, err);
    npk_buffer_release(&tally.ids);
    if (inspection->bad_checkpoint_count)
        add_finding(inspection, visitor, NPK_DIRECTORY_CHECKPOINT, "a damaged checkpoint; an older one or the log serves instead");
    const npk_wal_scan *scan = &look->replay.scan;
    if (in_use)
        inspection->verdict = NPK_STORE_IN_USE;
    else if (inspection->finding_count)
        inspection->verdict = NPK_STORE_DAMAGED;
    else if (scan->verdict == NPK_WAL_TORN || scan->end.lsn != inspection->checkpoint_lsn)
        inspection->verdict = NPK_STORE_TORN;
    else
        inspection->verdict = NPK_STORE_CLEAN;
    return status;
}

npk_status npk_inspect(const char *path, int deep, const npk_inspection_visitor *visitor, npk_inspection *out,
                       npk_error *err)
{
    npk_inspection inspection;
    memset(&inspection, 0, sizeof inspection);
    struct look look = {.io = npk_io_posix()};
    bool created = false;
    int rc = look.io->open_root(look.io, path, false, &look.root, &created);
    if (rc)
        return npk_fail_errno(err, rc, "could not open directory \"%s\"", path);
    npk_status status = inspect_open(&look, path, deep, visitor, &inspection, err);
    close_look(&look);
    if (status != NPK_OK)
        return status;
    size_t size = out->struct_size && out->struct_size < sizeof inspection ? out->struct_size : sizeof inspection;
    inspection.struct_size = size;
    memcpy(out, &inspection, size);
    return NPK_OK;
}

/* ---- repairs of a store that nobody has open -------------------------------------------------------------------------- */

typedef struct closed_store {
    const npk_io *io;
    npk_file *root, *lock;
} closed_store;

static void release_closed(closed_store *store)
{
    store->io->close(store->io, store->lock);
    store->io->close(store->io, store->root);
}

/* Hold GATE and OPEN exclusive: nobody has the store open, and who wants to waits. Released also after an error. */
static npk_status hold_closed(closed_store *store, const char *path, npk_error *err)
{
    const npk_io *io = store->io = npk_io_posix();
    bool created = false, got = false;
    int rc = io->open_root(io, path, false, &store->root, &created);
    if (rc)
        return npk_fail_errno(err, rc, "could not open directory \"%s\"", path);
    uint8_t uuid[16];
    uint64_t created_us;
    bool from_log = false;
    npk_file *wal = NULL;
    if (io->open(io, store->root, NPK_DIRECTORY_WAL, NPK_OPEN_READ | NPK_OPEN_DIRECTORY, &wal) != 0)
        wal = NULL;
    npk_status status = npk_format_find(io, store->root, wal, uuid, &created_us, &from_log, err); /* no LOCK is left in what is no store */
    io->close(io, wal);
    if (status == NPK_OK && (rc = io->open(io, store->root, NPK_FILE_LOCK, NPK_OPEN_WRITE | NPK_OPEN_CREATE, &store->lock)) != 0)
        status = npk_fail_errno(err, rc, "could not open file \"%s\"", NPK_FILE_LOCK);
    if (status == NPK_OK)
        status = npk_locks_try(io, store->lock, NPK_LOCK_GATE, NPK_LOCK_EXCLUSIVE, &got, err);
    if (status == NPK_OK && got)
        status = npk_locks_try(io, store->lock, NPK_LOCK_OPEN, NPK_LOCK_EXCLUSIVE, &got, err);
    if (status == NPK_OK && !got)
        status = npk_fail(err, NPK_BUSY, "store \"%s\" is open; it can be repaired only when nobody uses it", path);
    return status;
}

/* The index is thrown away by every first opener; holding OPEN exclusive for a moment proves that there is one to come. */
npk_status npk_drop_index(const char *path, npk_error *err)
{
    closed_store store = {0};
    npk_file *index = NULL;
    npk_status status = hold_closed(&store, path, err);
    if (status == NPK_OK) {
        int rc = store.io->open(store.io, store.root, NPK_DIRECTORY_INDEX, NPK_OPEN_READ | NPK_OPEN_DIRECTORY, &index);
        if (rc == 0)
            status = npk_index_directory_clear(store.io, index, err);
        else if (rc != ENOENT)
            status = npk_fail_errno(err, rc, "could not open the index directory");
    }
    store.io->close(store.io, index);
    release_closed(&store);
    return status;
}

npk_status npk_restore_format(const char *path, npk_error *err)
{
    closed_store store = {0};
    uint8_t uuid[16];
    uint64_t created_us = 0;
    bool from_log = false;
    npk_file *wal = NULL;
    npk_status status = hold_closed(&store, path, err);
    if (status == NPK_OK && store.io->open(store.io, store.root, NPK_DIRECTORY_WAL, NPK_OPEN_READ | NPK_OPEN_DIRECTORY, &wal) != 0)
        wal = NULL;
    if (status == NPK_OK)
        status = npk_format_find(store.io, store.root, wal, uuid, &created_us, &from_log, err);
    if (status == NPK_OK && from_log)
        status = npk_format_write(store.io, store.root, uuid, created_us, err);
    store.io->close(store.io, wal);
    release_closed(&store);
    return status;
}
