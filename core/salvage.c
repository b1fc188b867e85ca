/* salvage.c - writing everything that can still be proven into a new store, or into .npy files.
 *
 * 1. Keep the store closed: GATE shared, nobody holds OPEN.
 * 2. Whose store it is: FORMAT, or the segment headers.
 * 3. The state (salvage_state.h); what it lacks is reported.
 * 4. Array by array: rows from their newest place, else from an older one that holds the same bytes, else zeros and a report.
 * 5. The target: one transaction of a new store, or one file per array. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "alloc.h"
#include "array.h"
#include "bytes.h"
#include "column_format.h"
#include "core.h"
#include "error.h"
#include "locks.h"
#include "opening.h"
#include "salvage_rows.h"
#include "salvage_state.h"
#include "store_files.h"

#define CHUNK_SIZE (8u << 20) /* bytes of rows in memory at a time */
#define OLDER_MAX (NPK_SALVAGE_CHECKPOINTS + 1)

typedef struct older_view {
    bool tried;
    npk_kv *kv;       /* NULL: there is none, or it proves nothing */
    npk_array *array; /* of the array being written; NULL: not built yet, or not there */
    bool built;
} older_view;

typedef struct salvage {
    const npk_salvage_options *options;
    npk_salvage_summary *summary;
    const npk_io *io;
    npk_file *root, *lock, *wal_directory, *columns_directory, *checkpoint_directory;
    npk_wal *wal;
    npk_salvage_source source;
    npk_salvage_state state;
    npk_salvage_rows *rows;
    older_view older[OLDER_MAX];
    uint64_t done_size, total_size;
    /* the target */
    const char *target;
    npk_store *store;
    npk_txn *txn;
    npk_file *directory; /* as_npy */
} salvage;

/* ---- reports ---------------------------------------------------------------------------------------------------------- */

static void report_loss(void *context, const npk_loss *loss)
{
    salvage *s = context;
    s->summary->loss_count++;
    if (s->options->loss)
        s->options->loss(s->options->context, loss);
}

static npk_status progress(salvage *s, uint64_t size, npk_error *err)
{
    s->done_size += size;
    if (s->options->progress && s->options->progress(s->options->context, s->done_size, s->total_size))
        return npk_fail(err, NPK_INTERRUPTED, "salvage was interrupted");
    return NPK_OK;
}

/* ---- the source ------------------------------------------------------------------------------------------------------- */

static npk_status keep_closed(salvage *s, const char *path, npk_error *err)
{
    int rc = s->io->open(s->io, s->root, NPK_FILE_LOCK, NPK_OPEN_READ, &s->lock);
    if (rc) {
        s->lock = NULL; /* who opens the store makes it anew; nobody has it open */
        return rc == ENOENT ? NPK_OK : npk_fail_errno(err, rc, "could not open file \"%s\"", NPK_FILE_LOCK);
    }
    bool got = false;
    npk_status status = npk_locks_try(s->io, s->lock, NPK_LOCK_GATE, NPK_LOCK_SHARED, &got, err);
    if (status == NPK_OK && (!got || s->io->lock_test(s->io, s->lock, NPK_LOCK_OPEN, 1, NPK_LOCK_EXCLUSIVE) == EAGAIN))
        status = npk_fail(err, NPK_BUSY, "store \"%s\" is open; it can be salvaged only when nobody uses it", path);
    return status;
}

static npk_status open_part(salvage *s, const char *name, npk_file **directory, npk_error *err)
{
    int rc = s->io->open(s->io, s->root, name, NPK_OPEN_READ | NPK_OPEN_DIRECTORY, directory);
    if (rc == 0)
        return NPK_OK;
    *directory = NULL;
    return rc == ENOENT || rc == ENOTDIR ? NPK_OK : npk_fail_errno(err, rc, "could not open directory \"%s\"", name);
}

static npk_status open_source(salvage *s, const char *path, npk_error *err)
{
    bool created = false;
    int rc = s->io->open_root(s->io, path, false, &s->root, &created);
    if (rc)
        return npk_fail_errno(err, rc, "could not open directory \"%s\"", path);
    npk_status status = open_part(s, NPK_DIRECTORY_WAL, &s->wal_directory, err);
    if (status == NPK_OK)
        status = open_part(s, NPK_DIRECTORY_COLUMNS, &s->columns_directory, err);
    if (status == NPK_OK)
        status = open_part(s, NPK_DIRECTORY_CHECKPOINT, &s->checkpoint_directory, err);
    bool from_log = false;
    uint64_t created_us = 0;
    if (status == NPK_OK)
        status = npk_format_find(s->io, s->root, s->wal_directory, s->source.uuid, &created_us, &from_log, err);
    if (status != NPK_OK)
        return npk_context(err, status, "\"%s\" is not a store", path);
    status = keep_closed(s, path, err);
    npk_wal_options options = {.io = s->io, .segment_size = NPK_DEFAULT_SEGMENT_SIZE, .salvage = true};
    memcpy(options.uuid, s->source.uuid, 16);
    if (status == NPK_OK && s->wal_directory) {
        status = npk_wal_open(s->wal_directory, &options, &s->wal, err);
        if (status == NPK_OK)
            s->wal_directory = NULL; /* the log closes it */
    }
    if (status != NPK_OK)
        return status;
    s->source.io = s->io;
    s->source.checkpoint_directory = s->checkpoint_directory;
    s->source.wal = s->wal;
    s->source.until_lsn = s->options->until_lsn;
    s->source.until_us = s->options->until_us;
    s->source.loss = report_loss;
    s->source.context = s;
    status = npk_salvage_state_build(&s->source, &s->state, err);
    return status == NPK_OK ? npk_salvage_rows_open(s->io, s->columns_directory, s->wal, &s->rows, err) : status;
}

static void forget_older_arrays(salvage *s)
{
    for (size_t i = 0; i < OLDER_MAX; i++) {
        npk_array_release(s->older[i].array);
        s->older[i].array = NULL;
        s->older[i].built = false;
    }
}

static void close_all(salvage *s)
{
    forget_older_arrays(s);
    for (size_t i = 0; i < OLDER_MAX; i++)
        npk_kv_close(s->older[i].kv);
    npk_txn_abort(s->txn);
    (void)npk_store_close(s->store, NULL);
    npk_salvage_rows_close(s->rows);
    npk_salvage_state_release(&s->state);
    npk_wal_close(s->wal);
    s->io->close(s->io, s->directory);
    s->io->close(s->io, s->wal_directory);
    s->io->close(s->io, s->columns_directory);
    s->io->close(s->io, s->checkpoint_directory);
    s->io->close(s->io, s->lock);
    s->io->close(s->io, s->root);
}

/* ---- rows --------------------------------------------------------------------------------------------------------------- */

/* The array as the older view number which has it, if its rows are the same ones. */
static npk_status get_older(salvage *s, size_t which, const npk_array *array, older_view **out, bool *more, npk_error *err)
{
    *out = NULL;
    *more = which < OLDER_MAX;
    if (!*more)
        return NPK_OK;
    older_view *view = &s->older[which];
    if (!view->tried) {
        view->tried = true;
        npk_status status = npk_salvage_older_places(&s->source, &s->state, which, &view->kv, more, err);
        if (status != NPK_OK)
            return status;
    }
    *more = which < s->state.checkpoint_count;
    if (view->kv && !view->built) {
        view->built = true;
        npk_array_sources places = {.io = s->io, .only_places = true};
        bool missing = false;
        npk_error reason = {.row = -1};
        npk_status status = npk_array_build(view->kv, array->info.name, &places, &view->array, &missing, &reason);
        if (status == NPK_NO_MEMORY)
            return npk_fail(err, status, "%s", reason.message);
        if (status == NPK_OK && (view->array->info.id != array->info.id || view->array->info.row_count != array->info.row_count ||
                                 view->array->info.row_size != array->info.row_size)) {
            npk_array_release(view->array);
            view->array = NULL;
        }
    }
    if (view->kv && view->array)
        *out = view;
    return NPK_OK;
}

static uint64_t count_lost(const uint32_t *lost, uint64_t count)
{
    uint64_t found = 0;
    for (uint64_t i = 0; i < count; i++)
        found += lost[i] != 0;
    return found;
}

/* Rows first .. + count of array into out; what is left in lost is zero bytes. again: scratch as large as lost. */
static npk_status read_rows(salvage *s, npk_array *array, uint64_t first, uint64_t count, uint8_t *out, uint32_t *lost, uint32_t *again,
                            npk_error *err)
{
    for (uint64_t i = 0; i < count; i++)
        lost[i] = 1;
    npk_status status = npk_salvage_rows_read(s->rows, s->state.kv, array, first, count, out, lost, err);
    uint64_t lost_count = status == NPK_OK ? count_lost(lost, count) : 0;
    bool more = true;
    for (size_t which = 0; lost_count && more && status == NPK_OK; which++) {
        older_view *view = NULL;
        status = get_older(s, which, array, &view, &more, err);
        if (status != NPK_OK || !view)
            continue;
        memcpy(again, lost, (size_t)count * sizeof *again);
        status = npk_salvage_rows_read(s->rows, view->kv, view->array, first, count, out, again, err);
        for (uint64_t i = 0; i < count && status == NPK_OK; i++)
            if (lost[i] && !again[i])
                lost[i] = 0;
        uint64_t left = count_lost(lost, count);
        s->summary->restored_row_count += lost_count - left;
        lost_count = left;
    }
    for (uint64_t i = 0; i < count && lost_count; i++)
        if (lost[i])
            memset(out + i * array->info.row_size, 0, (size_t)array->info.row_size);
    return status;
}

/* Lost rows come in chunks and from many places; neighbours with one reason make one report. */
typedef struct lost_range {
    uint64_t first, count;
    uint32_t source;
    npk_loss loss; /* row_count 0: none is held back */
} lost_range;

static void report_held(salvage *s, lost_range *range)
{
    if (range->loss.row_count)
        report_loss(s, &range->loss);
    range->loss.row_count = 0;
}

static void end_range(salvage *s, const npk_array *array, lost_range *range)
{
    if (range->count == 0)
        return;
    npk_loss *held = &range->loss;
    npk_loss loss = {.kind = NPK_LOSS_ROWS, .first_row = (int64_t)range->first, .row_count = (int64_t)range->count};
    (void)snprintf(loss.array, sizeof loss.array, "%s", array->info.name);
    npk_salvage_rows_explain(s->rows, array, range->source, loss.file, loss.reason);
    if (held->row_count && held->first_row + held->row_count == loss.first_row && strcmp(held->file, loss.file) == 0 &&
        strcmp(held->reason, loss.reason) == 0) {
        held->row_count += loss.row_count;
    } else {
        report_held(s, range);
        *held = loss;
    }
    range->count = 0;
}

static void note_lost(salvage *s, const npk_array *array, uint64_t first, uint64_t count, const uint32_t *lost, lost_range *range)
{
    for (uint64_t i = 0; i < count; i++) {
        if (!lost[i])
            continue;
        if (range->count == 0 || range->source != lost[i] - 1 || range->first + range->count != first + i) {
            end_range(s, array, range);
            range->first = first + i;
            range->source = lost[i] - 1;
        }
        range->count++;
    }
}

/* ---- the target ----------------------------------------------------------------------------------------------------------- */

static int stop_at_any(void *context, const char *name)
{
    (void)name;
    *(bool *)context = true;
    return 1;
}

/* May the target be written to? It must not be the source or lie in one of its directories. */
static npk_status check_target(salvage *s, npk_error *err)
{
    npk_file *directory = NULL;
    bool created = false, any = false;
    int rc = s->io->open_root(s->io, s->target, false, &directory, &created);
    if (rc == ENOENT)
        return NPK_OK;
    if (rc)
        return rc == ENOTDIR ? npk_fail(err, NPK_EXISTS, "\"%s\" is not a directory", s->target)
                             : npk_fail_errno(err, rc, "could not open directory \"%s\"", s->target);
    npk_file_info info, other;
    npk_status status = NPK_OK;
    static const char *const parts[] = {NPK_DIRECTORY_WAL, NPK_DIRECTORY_COLUMNS, NPK_DIRECTORY_CHECKPOINT, NPK_DIRECTORY_INDEX};
    rc = s->io->info(s->io, directory, &info);
    bool is_source = !rc && s->io->info(s->io, s->root, &other) == 0 && other.device == info.device && other.inode == info.inode;
    for (size_t i = 0; i < sizeof parts / sizeof *parts && !rc; i++)
        is_source |= s->io->info_at(s->io, s->root, parts[i], &other) == 0 && other.device == info.device && other.inode == info.inode;
    if (is_source)
        status = npk_fail(err, NPK_INVALID, "\"%s\" is the damaged store itself; it is never written to", s->target);
    if (!rc && status == NPK_OK && !s->options->force) {
        rc = s->io->list(s->io, directory, stop_at_any, &any);
        if (any) {
            rc = 0;
            status = npk_fail(err, NPK_EXISTS, "directory \"%s\" is not empty", s->target);
        }
    }
    s->io->close(s->io, directory);
    return rc ? npk_fail_errno(err, rc, "could not examine directory \"%s\"", s->target) : status;
}

static npk_status open_target(salvage *s, npk_error *err)
{
    npk_status status = check_target(s, err);
    if (status != NPK_OK)
        return status;
    if (s->options->as_npy) {
        bool created = false;
        int rc = s->io->open_root(s->io, s->target, true, &s->directory, &created);
        return rc ? npk_fail_errno(err, rc, "could not create directory \"%s\"", s->target) : NPK_OK;
    }
    npk_options options = {.struct_size = sizeof options, .mode = s->options->force ? NPK_MODE_CREATE : NPK_MODE_EXCLUSIVE,
                           .no_background = 1, .program = "npk-recover"};
    status = npk_store_open(s->target, &options, &s->store, err);
    if (status == NPK_OK)
        status = npk_txn_begin(s->store, UINT32_MAX, &s->txn, err);
    if (status == NPK_OK && s->options->force)
        status = npk_txn_reset(s->txn, err);
    return status;
}

/* The array's name as a file name: letters, digits, "-", "_", "." inside and what is not ASCII stay, the rest is %XX. */
static void npy_name(const npk_array_info *info, char out[256])
{
    static const char digits[] = "0123456789ABCDEF";
    size_t size = 0;
    for (const char *p = info->name; *p; p++) {
        unsigned char c = (unsigned char)*p;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c >= 0x80 ||
                     (c == '.' && size);
        if (size + 3 > 240) {
            (void)snprintf(out, 256, "array-%llu.npy", (unsigned long long)info->id);
            return;
        }
        if (plain) {
            out[size++] = (char)c;
        } else {
            out[size++] = '%';
            out[size++] = digits[c >> 4];
            out[size++] = digits[c & 15];
        }
    }
    (void)snprintf(out + size, 256 - size, ".npy");
}

typedef struct output { /* one array being written */
    npk_file *file;     /* as_npy */
    char name[256], temp[256];
    uint64_t offset;
    uint64_t written_count;
} output;

static npk_status begin_npy(salvage *s, const npk_array_info *info, output *to, npk_error *err)
{
    npk_column_spec spec = {info->descr, info->row_size, info->ndim, info->shape, info->zero_dim != 0};
    npk_buffer header;
    npk_buffer_init(&header);
    npk_status status = npk_column_header_encode(&spec, info->row_count, info->id, s->source.uuid, &header) ? NPK_OK
                        : header.failed ? npk_fail(err, NPK_NO_MEMORY, "could not allocate a header")
                                        : npk_fail(err, NPK_CORRUPT, "its description cannot be the header of a .npy file");
    npy_name(info, to->name);
    (void)snprintf(to->temp, sizeof to->temp, "array-%llu.npy.tmp", (unsigned long long)info->id);
    if (status == NPK_OK) {
        if (s->options->force)
            (void)s->io->unlink(s->io, s->directory, to->temp); /* of a salvage that was stopped */
        int rc = s->io->open(s->io, s->directory, to->temp, NPK_OPEN_WRITE | NPK_OPEN_CREATE | NPK_OPEN_EXCLUSIVE, &to->file);
        if (rc)
            status = npk_fail_errno(err, rc, "could not create file \"%s\"", to->temp);
    }
    if (status == NPK_OK)
        status = npk_io_write_full(s->io, to->file, 0, header.data, header.size, to->temp, err);
    to->offset = header.size;
    npk_buffer_release(&header);
    return status;
}

static npk_status begin_array(salvage *s, const npk_array_info *info, output *to, npk_error *err)
{
    if (s->options->as_npy)
        return begin_npy(s, info, to, err);
    /* A 0-d array is saved with its one row; others grow chunk by chunk. */
    npk_array_spec spec = {info->descr, info->row_size, info->ndim, info->shape, info->zero_dim};
    if (info->zero_dim && info->row_size)
        return NPK_OK;
    return npk_txn_save(s->txn, info->name, &spec, info->row_size ? 0 : info->row_count, NULL, err);
}

static npk_status put_rows(salvage *s, const npk_array_info *info, output *to, const uint8_t *rows, uint64_t count, npk_error *err)
{
    npk_array_spec spec = {info->descr, info->row_size, info->ndim, info->shape, info->zero_dim};
    npk_status status;
    if (s->options->as_npy) {
        status = npk_io_write_full(s->io, to->file, to->offset, rows, (size_t)(count * info->row_size), to->temp, err);
        to->offset += count * info->row_size;
        return status;
    }
    return info->zero_dim ? npk_txn_save(s->txn, info->name, &spec, 1, rows, err) : npk_txn_append(s->txn, info->name, count, rows, err);
}

static npk_status end_array(salvage *s, output *to, npk_status status, npk_error *err)
{
    if (!to->file)
        return status;
    int rc = status == NPK_OK ? s->io->sync(s->io, to->file) : 0;
    s->io->close(s->io, to->file);
    if (status == NPK_OK && !rc)
        rc = s->io->rename(s->io, s->directory, to->temp, to->name);
    if (rc)
        status = npk_fail_errno(err, rc, "could not write file \"%s\"", to->name);
    if (status != NPK_OK)
        (void)s->io->unlink(s->io, s->directory, to->temp);
    return status;
}

/* ---- one array after the other -------------------------------------------------------------------------------------------- */

static npk_status copy_rows(salvage *s, npk_array *array, output *to, uint64_t *lost_count, npk_error *err)
{
    const npk_array_info *info = &array->info;
    if (info->row_size == 0 || info->row_count == 0)
        return NPK_OK;
    uint64_t most = npk_max_u64(1, npk_min_u64(CHUNK_SIZE / info->row_size, info->row_count));
    uint8_t *rows = npk_alloc((size_t)(most * info->row_size));
    uint32_t *lost = npk_calloc((size_t)most, 2 * sizeof *lost);
    npk_status status = rows && lost ? NPK_OK : npk_fail(err, NPK_NO_MEMORY, "could not allocate a chunk of rows");
    lost_range range = {0};
    for (uint64_t first = 0; first < info->row_count && status == NPK_OK; first += most) {
        uint64_t count = npk_min_u64(most, info->row_count - first);
        status = read_rows(s, array, first, count, rows, lost, lost + most, err);
        if (status != NPK_OK)
            break;
        *lost_count += count_lost(lost, count);
        note_lost(s, array, first, count, lost, &range);
        status = put_rows(s, info, to, rows, count, err);
        if (status == NPK_OK)
            status = progress(s, count * info->row_size, err);
    }
    end_range(s, array, &range);
    report_held(s, &range);
    npk_free(rows);
    npk_free(lost);
    return status;
}

static npk_status lose_array(salvage *s, const char *name, const npk_error *why)
{
    npk_loss loss = {.kind = NPK_LOSS_ARRAY, .first_row = -1, .row_count = -1};
    (void)snprintf(loss.array, sizeof loss.array, "%s", name);
    (void)snprintf(loss.reason, sizeof loss.reason, "%.191s", why->message);
    report_loss(s, &loss);
    return NPK_OK;
}

static npk_status salvage_array(salvage *s, const char *name, npk_error *err)
{
    npk_array_sources places = {.io = s->io, .only_places = true};
    bool missing = false;
    npk_array *array = NULL;
    npk_error why = {.row = -1};
    npk_status status = npk_array_build(s->state.kv, name, &places, &array, &missing, &why);
    if (status != NPK_OK)
        return status == NPK_CORRUPT ? lose_array(s, name, &why) : npk_fail(err, status, "%s", why.message);
    forget_older_arrays(s);
    output to = {0};
    uint64_t lost_count = 0;
    status = begin_array(s, &array->info, &to, &why);
    if (status == NPK_OK)
        status = copy_rows(s, array, &to, &lost_count, &why);
    status = end_array(s, &to, status, &why);
    if (status == NPK_OK) {
        s->summary->array_count++;
        s->summary->row_count += array->info.row_count;
        s->summary->lost_row_count += lost_count;
        npk_salvaged_array told = {.array = {array->info.name, array->info.descr, array->info.row_count, array->info.row_size, 0,
                                             array->info.ndim, array->info.shape, array->info.zero_dim},
                                   .lost_row_count = lost_count,
                                   .file = s->options->as_npy ? to.name : NULL};
        if (s->options->array)
            s->options->array(s->options->context, &told);
    } else if (status == NPK_CORRUPT || status == NPK_INVALID) { /* damage that no checksum told of: a description that cannot be */
        status = lose_array(s, name, &why);
    } else {
        status = npk_fail(err, status, "%s", why.message);
        npk_error_set_array(err, name);
    }
    npk_array_release(array);
    return status;
}

static npk_status add_name(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size, bool *stop,
                           npk_error *err)
{
    (void)value;
    (void)value_size;
    (void)stop;
    npk_buffer *names = context;
    npk_buffer_put(names, key, key_size);
    npk_buffer_put_u8(names, 0);
    return names->failed ? npk_fail(err, NPK_NO_MEMORY, "could not list arrays") : NPK_OK;
}

static npk_status add_size(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size, bool *stop,
                           npk_error *err)
{
    (void)value;
    (void)value_size;
    (void)stop;
    salvage *s = context;
    npk_array_record record;
    bool found = false;
    uint64_t size;
    npk_status status = key_size == 8 ? npk_catalog_get_array(s->state.kv, npk_get_be64(key), &record, &found, err) : NPK_OK;
    if (status == NPK_OK && found) {
        if (!npk_mul_overflow(record.row_count, record.row_size, &size) && size < INT64_MAX)
            s->total_size += size;
        npk_array_record_release(&record);
    }
    return status;
}

/* Attributes are small: they are copied last, all at once. */
static npk_status copy_attr(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size, bool *stop,
                            npk_error *err)
{
    (void)stop;
    salvage *s = context;
    if (key_size < 8)
        return NPK_OK;
    char name[NPK_NAME_MAX + 1], array[NPK_NAME_MAX + 1] = "";
    (void)snprintf(name, sizeof name, "%.*s", (int)(key_size - 8), (const char *)key + 8);
    uint64_t id = npk_get_be64(key);
    if (id) {
        npk_array_record record;
        bool found = false;
        npk_status status = npk_catalog_get_array(s->state.kv, id, &record, &found, err);
        if (status != NPK_OK || !found)
            return status;
        memcpy(array, record.name, sizeof array);
        npk_array_record_release(&record);
    }
    s->summary->attr_count++;
    if (s->options->attr)
        s->options->attr(s->options->context, array, name, value, value_size);
    if (!s->txn)
        return NPK_OK;
    npk_error why = {.row = -1};
    npk_status status = npk_txn_set_attr(s->txn, id ? array : NULL, name, value, value_size, &why);
    if (status == NPK_NOT_FOUND) /* its array could not be written, which was reported */
        return NPK_OK;
    return status == NPK_INVALID ? lose_array(s, array, &why) : status == NPK_OK ? NPK_OK : npk_fail(err, status, "%s", why.message);
}

static npk_status write_target(salvage *s, npk_error *err)
{
    npk_buffer names;
    npk_buffer_init(&names);
    npk_status status = npk_kv_scan(s->state.kv, NPK_TABLE_ARRAYS, NULL, 0, NULL, 0, add_size, s, err);
    if (status == NPK_OK)
        status = npk_kv_scan(s->state.kv, NPK_TABLE_NAMES, NULL, 0, NULL, 0, add_name, &names, err);
    for (size_t at = 0; at < names.size && status == NPK_OK; at += strlen((const char *)names.data + at) + 1)
        status = salvage_array(s, (const char *)names.data + at, err);
    npk_buffer_release(&names);
    if (status == NPK_OK)
        status = npk_kv_scan(s->state.kv, NPK_TABLE_ATTRS, NULL, 0, NULL, 0, copy_attr, s, err);
    if (status != NPK_OK)
        return status;
    if (s->directory) {
        int rc = s->io->sync(s->io, s->directory);
        if (!rc)
            rc = s->io->sync_parent(s->io, s->directory, s->target);
        return rc ? npk_fail_errno(err, rc, "could not sync directory \"%s\"", s->target) : NPK_OK;
    }
    npk_txn *txn = s->txn;
    s->txn = NULL;
    status = npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, err);
    npk_store *store = s->store;
    if (status == NPK_OK) {
        s->store = NULL;
        status = npk_store_close(store, err);
    }
    return status;
}

npk_status npk_salvage(const char *path, const char *target, const npk_salvage_options *options, npk_salvage_summary *out,
                       npk_error *err)
{
    npk_salvage_options given = {0};
    if (options)
        memcpy(&given, options, options->struct_size && options->struct_size < sizeof given ? options->struct_size : sizeof given);
    npk_salvage_summary summary;
    memset(&summary, 0, sizeof summary);
    salvage s = {.options = &given, .summary = &summary, .io = npk_io_posix(), .target = target};
    if (!path || !path[0] || !target || !target[0])
        return npk_fail(err, NPK_INVALID, "an empty path names no directory");
    npk_status status = open_source(&s, path, err);
    if (status == NPK_OK)
        status = open_target(&s, err);
    if (status == NPK_OK) {
        npk_store_state state;
        bool found = false;
        status = npk_catalog_get_state(s.state.kv, &state, &found, err);
        if (found)
            summary.last_commit_us = state.last_commit_us;
        summary.position = s.state.position;
    }
    if (status == NPK_OK)
        status = write_target(&s, err);
    close_all(&s);
    if (status != NPK_OK || !out)
        return status;
    size_t size = out->struct_size && out->struct_size < sizeof summary ? out->struct_size : sizeof summary;
    summary.struct_size = size;
    memcpy(out, &summary, size);
    return NPK_OK;
}
