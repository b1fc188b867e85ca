/* column.c - column files: streaming rows into a new one, and the open ones of a process. */
#include "column.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "alloc.h"
#include "bytes.h"
#include "catalog.h"
#include "checksum.h"
#include "column_format.h"
#include "error.h"
#include "thread.h"

#define WRITE_SIZE (1024u * 1024u)
#define MAP_ALIGNMENT 65536u         /* the largest page of the systems we run on */
/* How rows get into a new file, 40 MB each (new file, ext4, medians of 15): writes of 1 MiB 9.4 ms, of 64 KiB with their checksums 16.3, of 4 MiB
 * 8.8; fallocate before them 7.2, as every page then has its block; writeback started behind each write 1.5 more, so only where a
 * sync is to follow; checksums 1.0. An overwritten file, truncated and written with one call, takes 14.5 to 19.5. */
#define SUM_APART_MIN (8u * 1024u * 1024u) /* a thread costs some 50 us */
#define ALLOCATE_SIZE_MIN (4u * 1024u * 1024u)

/* A file that nobody uses stays open while it is small: opening costs about 10 us (open, fstat, read of the header), nothing against
 * the copy of a larger one. An idle descriptor holds the space of a removed file, so at most 64 x 4 MiB are held this way. */
#define IDLE_COUNT_MAX 64u
#define IDLE_SIZE_MAX (4u * 1024u * 1024u)

/* ---- writing ------------------------------------------------------------------------------------------------------ */

struct npk_column_writer {
    const npk_io *io;
    npk_file *directory; /* borrowed */
    npk_file *file;
    uint64_t id;
    uint8_t uuid[16];
    npk_column_spec spec; /* descr and shape owned */
    uint64_t data_offset;
    uint64_t row_count;   /* appended */
    uint64_t data_size;   /* appended, row_count * row_size */
    uint64_t written;     /* data bytes in the file; the rest is in buffer */
    uint8_t *buffer;      /* WRITE_SIZE */
    size_t buffered;
    uint64_t *sums;       /* of complete blocks; the last one is added by finish */
    uint64_t sum_count, sum_capacity;
    npk_checksum_stream *stream; /* the block that is not complete */
    size_t stream_size;
    bool allocate_works, write_behind;
    bool failed, finished;
};

static void writer_path(const npk_column_writer *writer, char path[NPK_COLUMN_NAME_SIZE])
{
    npk_column_name(path, writer->id, writer->finished);
}

/* Create a file under a random name that is free as .tmp and as .npy (a rename would replace the latter). */
static npk_status create_file(npk_column_writer *writer, npk_error *err)
{
    for (unsigned attempt = 0; attempt < 16; attempt++) {
        uint8_t bytes[8];
        int rc = writer->io->random(writer->io, bytes, sizeof bytes);
        if (rc)
            return npk_fail_errno(err, rc, "could not get a random file id");
        writer->id = npk_get_u64(bytes);
        if (writer->id == 0)
            continue;
        char name[NPK_COLUMN_NAME_SIZE];
        npk_column_name(name, writer->id, true);
        npk_file_info info;
        rc = writer->io->info_at(writer->io, writer->directory, name, &info);
        if (rc == 0)
            continue;
        npk_column_name(name, writer->id, false);
        if (rc != ENOENT)
            return npk_fail_errno(err, rc, "could not look for file \"columns/%s\"", name);
        rc = writer->io->open(writer->io, writer->directory, name,
                              NPK_OPEN_WRITE | NPK_OPEN_CREATE | NPK_OPEN_EXCLUSIVE, &writer->file);
        if (rc == EEXIST)
            continue;
        if (rc)
            return npk_fail_errno(err, rc, "could not create file \"columns/%s\"", name);
        return NPK_OK;
    }
    return npk_fail(err, NPK_IO, "could not find a free random file id");
}

npk_status npk_column_create(const npk_io *io, npk_file *columns, const uint8_t uuid[16], const npk_column_spec *spec,
                             uint64_t expected_row_count, bool write_behind, npk_column_writer **out, npk_error *err)
{
    assert(spec->row_size > 0);
    npk_column_writer *writer = npk_calloc(1, sizeof *writer);
    if (!writer)
        return npk_fail(err, NPK_NO_MEMORY, "could not allocate a column writer");
    npk_status status;
    writer->io = io;
    writer->directory = columns;
    memcpy(writer->uuid, uuid, sizeof writer->uuid);
    writer->spec = *spec;
    writer->spec.descr = npk_strdup(spec->descr);
    uint64_t *shape = npk_alloc(spec->ndim * sizeof *shape);
    writer->spec.shape = shape;
    writer->buffer = npk_alloc(WRITE_SIZE);
    writer->stream = npk_checksum_open();
    writer->allocate_works = true;
    writer->write_behind = write_behind;
    uint64_t expected_size;
    if (npk_mul_overflow(expected_row_count, spec->row_size, &expected_size))
        expected_size = 0;
    /* A hint: a wrong one costs nothing but this table. */
    writer->sum_capacity = npk_min_u64(expected_size / NPK_SUM_BLOCK + 1, 65536);
    writer->sums = npk_alloc((size_t)writer->sum_capacity * sizeof *writer->sums);
    if (!writer->spec.descr || !shape || !writer->buffer || !writer->stream || !writer->sums) {
        status = npk_fail(err, NPK_NO_MEMORY, "could not allocate a column writer");
        goto fail;
    }
    if (spec->ndim)
        memcpy(shape, spec->shape, spec->ndim * sizeof *shape);
    npk_checksum_reset(writer->stream);
    writer->data_offset = npk_column_header_size(&writer->spec);
    if (!writer->data_offset) {
        status = npk_fail(err, NPK_INVALID, "the dtype description cannot be written into a column file");
        goto fail;
    }
    status = create_file(writer, err);
    if (status != NPK_OK)
        goto fail;
    *out = writer;
    return NPK_OK;
fail:
    npk_column_writer_release(writer);
    return status;
}

uint64_t npk_column_writer_id(const npk_column_writer *writer)
{
    return writer->id;
}

uint64_t npk_column_writer_row_count(const npk_column_writer *writer)
{
    return writer->row_count;
}

/* Room for count more. */
static npk_status reserve_sums(npk_column_writer *writer, uint64_t count, npk_error *err)
{
    if (count > writer->sum_capacity - writer->sum_count) {
        uint64_t capacity = npk_max_u64(writer->sum_capacity * 2, writer->sum_count + count);
        uint64_t *sums = npk_realloc(writer->sums, (size_t)capacity * sizeof *sums);
        if (!sums)
            return npk_fail(err, NPK_NO_MEMORY, "could not allocate %llu checksums", (unsigned long long)capacity);
        writer->sums = sums;
        writer->sum_capacity = capacity;
    }
    return NPK_OK;
}

static npk_status add_sum(npk_column_writer *writer, uint64_t sum, npk_error *err)
{
    npk_status status = reserve_sums(writer, 1, err);
    if (status == NPK_OK)
        writer->sums[writer->sum_count++] = sum;
    return status;
}

/* Checksums of the bytes that follow what was summed before. */
static npk_status add_to_sums(npk_column_writer *writer, const uint8_t *bytes, size_t size, npk_error *err)
{
    npk_status status = NPK_OK;
    while (size && status == NPK_OK) {
        size_t part = NPK_SUM_BLOCK - writer->stream_size;
        if (part > size)
            part = size;
        if (part == NPK_SUM_BLOCK) {
            status = add_sum(writer, npk_checksum(bytes, part), err);
        } else {
            npk_checksum_add(writer->stream, bytes, part);
            writer->stream_size += part;
            if (writer->stream_size == NPK_SUM_BLOCK) {
                status = add_sum(writer, npk_checksum_digest(writer->stream), err);
                npk_checksum_reset(writer->stream);
                writer->stream_size = 0;
            }
        }
        bytes += part;
        size -= part;
    }
    return status;
}

static npk_status write_data(npk_column_writer *writer, const uint8_t *bytes, size_t size, npk_error *err)
{
    char name[NPK_COLUMN_NAME_SIZE];
    writer_path(writer, name);
    uint64_t offset = writer->data_offset + writer->written;
    npk_status status = npk_io_write_full(writer->io, writer->file, offset, bytes, size, name, err);
    if (status != NPK_OK)
        return npk_context(err, status, "write column file");
    writer->written += size;
    if (writer->write_behind)
        (void)writer->io->start_writeback(writer->io, writer->file, offset, size); /* a hint */
    return NPK_OK;
}

static npk_status flush_buffer(npk_column_writer *writer, npk_error *err)
{
    if (!writer->buffered)
        return NPK_OK;
    npk_status status = write_data(writer, writer->buffer, writer->buffered, err);
    if (status == NPK_OK)
        writer->buffered = 0;
    return status;
}

/* Write and, when sum, add to the sums meanwhile. Writes end where multiples of WRITE_SIZE lie in the file: the page cache then takes whole large
 * pieces of memory. */
static npk_status write_rows(npk_column_writer *writer, const uint8_t *bytes, size_t left, bool sum, npk_error *err)
{
    npk_status status = NPK_OK;
    while (left && status == NPK_OK) {
        size_t piece = WRITE_SIZE - (size_t)((writer->data_offset + writer->written) % WRITE_SIZE);
        size_t part = piece - writer->buffered;
        if (part > left)
            part = left;
        if (sum)
            status = add_to_sums(writer, bytes, part, err);
        if (status != NPK_OK)
            break;
        if (part == piece) { /* nothing buffered: straight from the caller's memory */
            status = write_data(writer, bytes, part, err);
        } else {
            memcpy(writer->buffer + writer->buffered, bytes, part);
            writer->buffered += part;
            if (writer->buffered == piece)
                status = flush_buffer(writer, err);
        }
        bytes += part;
        left -= part;
    }
    return status;
}

/* The whole blocks of many rows, summed by a thread of its own while the others are written: writing is bound by memory, summing is not. */
struct summing {
    const uint8_t *bytes; /* of the call: head, count blocks, tail */
    size_t head, count;
    uint64_t *sums;
    pthread_t thread;
    bool is_running;
};

static void *sum_blocks(void *context)
{
    struct summing *summing = context;
    for (size_t i = 0; i < summing->count; i++)
        summing->sums[i] = npk_checksum(summing->bytes + summing->head + i * NPK_SUM_BLOCK, NPK_SUM_BLOCK);
    return NULL;
}

/* Not running, and nothing summed, when there can be no thread: the caller sums as it writes. */
static npk_status start_summing(npk_column_writer *writer, const uint8_t *bytes, size_t size, struct summing *summing,
                                npk_error *err)
{
    summing->bytes = bytes;
    summing->head = writer->stream_size ? NPK_SUM_BLOCK - writer->stream_size : 0;
    summing->count = (size - summing->head) / NPK_SUM_BLOCK;
    npk_status status = reserve_sums(writer, summing->count + 1, err); /* the one of the block that the head completes comes first */
    if (status != NPK_OK)
        return status;
    summing->sums = writer->sums + writer->sum_count + (summing->head != 0);
    summing->is_running = npk_thread_start(&summing->thread, sum_blocks, summing) == 0;
    return summing->is_running ? add_to_sums(writer, bytes, summing->head, err) : NPK_OK;
}

static npk_status finish_summing(npk_column_writer *writer, const struct summing *summing, size_t size, npk_status status,
                                 npk_error *err)
{
    (void)pthread_join(summing->thread, NULL);
    size_t done = summing->head + summing->count * NPK_SUM_BLOCK;
    writer->sum_count += summing->count;
    return status == NPK_OK ? add_to_sums(writer, summing->bytes + done, size - done, err) : status;
}

npk_status npk_column_append(npk_column_writer *writer, const void *rows, uint64_t row_count, npk_error *err)
{
    if (writer->failed || writer->finished)
        return npk_fail(err, NPK_MISUSE, "the column writer has failed or is finished");
    uint64_t size, end, file_end;
    if (npk_mul_overflow(row_count, writer->spec.row_size, &size) ||
        npk_add_overflow(writer->data_size, size, &end) || npk_add_overflow(writer->data_offset, end, &file_end) ||
        file_end > INT64_MAX || size > SIZE_MAX)
        return npk_fail(err, NPK_INVALID, "%llu rows of %llu bytes are too many for a column file",
                        (unsigned long long)row_count, (unsigned long long)writer->spec.row_size);
    npk_status status = NPK_OK;
    writer->failed = true; /* until all of it is done */
    if (size >= ALLOCATE_SIZE_MIN && writer->allocate_works) {
        /* Just what this call writes: a file is never truncated, so nothing is allocated on a guess. */
        int rc = writer->io->allocate(writer->io, writer->file, writer->data_offset + writer->data_size, size);
        if (rc == EOPNOTSUPP || rc == ENOSYS || rc == EINVAL || rc == EINTR) {
            writer->allocate_works = rc == EINTR;
        } else if (rc) {
            char name[NPK_COLUMN_NAME_SIZE];
            writer_path(writer, name);
            return npk_fail_errno(err, rc, "could not allocate %llu bytes for file \"columns/%s\"",
                                  (unsigned long long)size, name);
        }
    }
    struct summing summing = {0};
    if (size >= SUM_APART_MIN)
        status = start_summing(writer, rows, (size_t)size, &summing, err);
    if (status == NPK_OK)
        status = write_rows(writer, rows, (size_t)size, !summing.is_running, err);
    if (summing.is_running)
        status = finish_summing(writer, &summing, (size_t)size, status, err);
    if (status != NPK_OK)
        return status;
    writer->row_count += row_count;
    writer->data_size = end;
    writer->failed = false;
    return NPK_OK;
}

static npk_status write_header(npk_column_writer *writer, npk_error *err)
{
    npk_buffer header;
    npk_buffer_init(&header);
    npk_status status;
    char name[NPK_COLUMN_NAME_SIZE];
    writer_path(writer, name);
    if (!npk_column_header_encode(&writer->spec, writer->row_count, writer->id, writer->uuid, &header))
        status = npk_fail(err, NPK_NO_MEMORY, "could not allocate the header of file \"columns/%s\"", name);
    else
        status = npk_io_write_full(writer->io, writer->file, 0, header.data, header.size, name, err);
    npk_buffer_release(&header);
    return status;
}

npk_status npk_column_finish(npk_column_writer *writer, bool synced, npk_column_summary *summary, npk_error *err)
{
    if (writer->failed || writer->finished)
        return npk_fail(err, NPK_MISUSE, "the column writer has failed or is finished");
    if (writer->spec.zero_dim && writer->row_count != 1)
        return npk_fail(err, NPK_INVALID, "a 0-d array has one row, not %llu", (unsigned long long)writer->row_count);
    const npk_io *io = writer->io;
    char temp_name[NPK_COLUMN_NAME_SIZE], name[NPK_COLUMN_NAME_SIZE];
    npk_column_name(temp_name, writer->id, false);
    npk_column_name(name, writer->id, true);
    writer->failed = true;
    npk_status status = flush_buffer(writer, err);
    if (status == NPK_OK && writer->stream_size) {
        status = add_sum(writer, npk_checksum_digest(writer->stream), err);
        writer->stream_size = 0;
    }
    if (status == NPK_OK)
        status = write_header(writer, err);
    if (status != NPK_OK)
        return status;
    int rc = synced ? io->sync(io, writer->file) : 0;
    if (rc)
        return npk_fail_errno(err, rc, "could not sync file \"columns/%s\"", temp_name);
    rc = io->rename(io, writer->directory, temp_name, name);
    if (rc)
        return npk_fail_errno(err, rc, "could not rename file \"columns/%s\" to \"%s\"", temp_name, name);
    writer->finished = true; /* the name has changed: discard and view look there */
    writer->failed = false;
    summary->id = writer->id;
    summary->file_size = writer->data_offset + writer->data_size;
    summary->row_count = writer->row_count;
    summary->row_size = writer->spec.row_size;
    summary->data_offset = writer->data_offset;
    summary->sum_count = writer->sum_count;
    summary->sums = writer->sums;
    return NPK_OK;
}

void npk_column_writer_release(npk_column_writer *writer)
{
    if (!writer)
        return;
    if (writer->file)
        writer->io->close(writer->io, writer->file);
    npk_checksum_close(writer->stream);
    npk_free(writer->buffer);
    npk_free(writer->sums);
    npk_free((void *)(uintptr_t)writer->spec.descr);
    npk_free((void *)(uintptr_t)writer->spec.shape);
    npk_free(writer);
}

void npk_column_discard(npk_column_writer *writer)
{
    if (!writer)
        return;
    char name[NPK_COLUMN_NAME_SIZE];
    writer_path(writer, name);
    (void)writer->io->unlink(writer->io, writer->directory, name);
    npk_column_writer_release(writer);
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

struct npk_column {
    _Atomic uint64_t references; /* the step to and from 0 is made under columns->mutex when the column belongs to one */
    const npk_io *io;
    npk_columns *columns;        /* NULL: on its own (a writer's view) */
    npk_file *file;
    uint64_t id, file_size, row_count, row_size, data_offset;
    npk_column *next;            /* in its bucket; under the mutex, as are the three below */
    bool is_listed;              /* in its bucket, for others to share */
    npk_column *idle_newer, *idle_older;
    pthread_mutex_t map_mutex;   /* guards the making of the map */
    _Atomic(void *) rows;        /* all data mapped, or NULL */
    void *map_base;
    size_t map_size;
    bool finished;               /* for the name in messages */
};

enum { BUCKET_COUNT = 256 };

struct npk_columns {
    const npk_io *io;
    npk_file *directory; /* borrowed until close */
    uint8_t uuid[16];
    pthread_mutex_t mutex;
    npk_column *buckets[BUCKET_COUNT];
    npk_column *idle_newest, *idle_oldest;
    size_t idle_count;
    uint64_t user_count; /* columns with references, and 1 until close */
    uint64_t renewals;
    bool closed;
};

npk_status npk_columns_open(const npk_io *io, npk_file *directory, const uint8_t uuid[16], npk_columns **out,
                            npk_error *err)
{
    npk_columns *columns = npk_calloc(1, sizeof *columns);
    if (!columns)
        return npk_fail(err, NPK_NO_MEMORY, "could not allocate the table of column files");
    int rc = pthread_mutex_init(&columns->mutex, NULL);
    if (rc) {
        npk_free(columns);
        return npk_fail_errno(err, rc, "could not create a mutex");
    }
    columns->io = io;
    columns->directory = directory;
    memcpy(columns->uuid, uuid, sizeof columns->uuid);
    columns->user_count = 1;
    *out = columns;
    return NPK_OK;
}

static void column_close(npk_column *column)
{
    if (column->map_base)
        column->io->unmap(column->io, column->map_base, column->map_size);
    column->io->close(column->io, column->file);
    (void)pthread_mutex_destroy(&column->map_mutex);
    npk_free(column);
}

static npk_column **bucket_of(npk_columns *columns, uint64_t id)
{
    return &columns->buckets[id % BUCKET_COUNT]; /* ids are random */
}

static npk_column *find(npk_columns *columns, uint64_t id)
{
    npk_column *column = *bucket_of(columns, id);
    while (column && column->id != id)
        column = column->next;
    return column;
}

static void remove_from_bucket(npk_columns *columns, npk_column *column)
{
    npk_column **link = bucket_of(columns, column->id);
    while (*link != column)
        link = &(*link)->next;
    *link = column->next;
    column->is_listed = false;
}

static void idle_remove(npk_columns *columns, npk_column *column)
{
    *(column->idle_newer ? &column->idle_newer->idle_older : &columns->idle_newest) = column->idle_older;
    *(column->idle_older ? &column->idle_older->idle_newer : &columns->idle_oldest) = column->idle_newer;
    column->idle_newer = column->idle_older = NULL;
    columns->idle_count--;
}

static void idle_add(npk_columns *columns, npk_column *column)
{
    column->idle_newer = NULL;
    column->idle_older = columns->idle_newest;
    *(columns->idle_newest ? &columns->idle_newest->idle_newer : &columns->idle_oldest) = column;
    columns->idle_newest = column;
    columns->idle_count++;
}

/* Close idle files until at most keep are left. The mutex is held. */
static void trim_idle(npk_columns *columns, size_t keep)
{
    while (columns->idle_count > keep) {
        npk_column *column = columns->idle_oldest;
        idle_remove(columns, column);
        remove_from_bucket(columns, column);
        column_close(column);
    }
}

static void columns_free(npk_columns *columns)
{
    (void)pthread_mutex_destroy(&columns->mutex);
    npk_free(columns);
}

void npk_columns_forget(npk_columns *columns)
{
    (void)pthread_mutex_lock(&columns->mutex);
    trim_idle(columns, 0);
    (void)pthread_mutex_unlock(&columns->mutex);
}

void npk_columns_renew(npk_columns *columns)
{
    (void)pthread_mutex_lock(&columns->mutex);
    columns->renewals++;
    trim_idle(columns, 0);
    for (size_t i = 0; i < BUCKET_COUNT; i++)
        while (columns->buckets[i])
            remove_from_bucket(columns, columns->buckets[i]);
    (void)pthread_mutex_unlock(&columns->mutex);
}

void npk_columns_close(npk_columns *columns)
{
    if (!columns)
        return;
    (void)pthread_mutex_lock(&columns->mutex);
    trim_idle(columns, 0);
    columns->closed = true;
    bool last = --columns->user_count == 0;
    (void)pthread_mutex_unlock(&columns->mutex);
    if (last)
        columns_free(columns);
}

/* Open a file and, unless it is one being written, check it against its header. */
static npk_status column_open(const npk_io *io, npk_file *directory, const uint8_t uuid[16], npk_column wanted,
                              npk_column **out, npk_error *err)
{
    char name[NPK_COLUMN_NAME_SIZE];
    npk_column_name(name, wanted.id, wanted.finished);
    npk_column *column = npk_alloc(sizeof *column);
    if (!column)
        return npk_fail(err, NPK_NO_MEMORY, "could not allocate column file \"columns/%s\"", name);
    *column = wanted;
    column->io = io;
    column->references = 1;
    npk_buffer header;
    npk_buffer_init(&header);
    npk_status status;
    int rc = io->open(io, directory, name, NPK_OPEN_READ, &column->file);
    if (rc) {
        npk_free(column);
        return npk_fail_errno(err, rc, "could not open file \"columns/%s\"", name);
    }
    if (column->finished) {
        npk_file_info info;
        rc = io->info(io, column->file, &info);
        if (rc) {
            status = npk_fail_errno(err, rc, "could not look at file \"columns/%s\"", name);
            goto fail;
        }
        if (info.size != column->file_size) {
            status = npk_fail(err, NPK_CORRUPT, "file \"columns/%s\" has %llu bytes instead of %llu", name,
                              (unsigned long long)info.size, (unsigned long long)column->file_size);
            goto fail;
        }
        uint8_t *bytes = npk_buffer_grow(&header, (size_t)column->data_offset);
        if (!bytes) {
            status = npk_fail(err, NPK_NO_MEMORY, "could not allocate the header of file \"columns/%s\"", name);
            goto fail;
        }
        status = npk_io_read_full(io, column->file, 0, bytes, header.size, NULL, name, err);
        if (status != NPK_OK)
            goto fail;
        npk_column_header found;
        if (!npk_column_header_decode(bytes, header.size, &found) || found.header_size != column->data_offset) {
            status = npk_fail(err, NPK_CORRUPT, "the header of file \"columns/%s\" is damaged", name);
            goto fail;
        }
        if (found.id != column->id || memcmp(found.uuid, uuid, 16) != 0) {
            status = npk_fail(err, NPK_CORRUPT, "file \"columns/%s\" is a file of another name or store", name);
            goto fail;
        }
    }
    rc = pthread_mutex_init(&column->map_mutex, NULL);
    if (rc) {
        status = npk_fail_errno(err, rc, "could not create a mutex");
        goto fail;
    }
    npk_buffer_release(&header);
    *out = column;
    return NPK_OK;
fail:
    npk_buffer_release(&header);
    io->close(io, column->file);
    npk_free(column);
    return status;
}

npk_status npk_column_writer_view(npk_column_writer *writer, npk_column **column, npk_error *err)
{
    if (writer->failed)
        return npk_fail(err, NPK_MISUSE, "the column writer has failed");
    writer->failed = true;
    npk_status status = flush_buffer(writer, err);
    if (status != NPK_OK)
        return status;
    writer->failed = false;
    /* By name rather than through the writer's descriptor: nothing is shared with the writer then. */
    npk_column wanted = {.id = writer->id, .file_size = writer->data_offset + writer->data_size,
                         .row_count = writer->row_count, .row_size = writer->spec.row_size,
                         .data_offset = writer->data_offset, .finished = writer->finished};
    return column_open(writer->io, writer->directory, writer->uuid, wanted, column, err);
}

/* The mutex is held. */
static npk_status share(npk_columns *columns, npk_column *column, const npk_column *wanted, npk_error *err)
{
    if (column->file_size != wanted->file_size || column->row_count != wanted->row_count ||
        column->row_size != wanted->row_size || column->data_offset != wanted->data_offset)
        return npk_fail(err, NPK_CORRUPT, "the index does not agree with itself about file \"columns/%016llx.npy\"",
                        (unsigned long long)wanted->id);
    if (atomic_fetch_add(&column->references, 1) == 0) {
        idle_remove(columns, column);
        columns->user_count++;
    }
    return NPK_OK;
}

npk_status npk_columns_get(npk_columns *columns, uint64_t id, uint64_t file_size, uint64_t row_count, uint64_t row_size,
                           uint64_t data_offset, npk_column **out, npk_error *err)
{
    uint64_t data_size, end;
    if (row_size == 0 || npk_mul_overflow(row_count, row_size, &data_size) ||
        npk_add_overflow(data_offset, data_size, &end) || end != file_size || file_size > INT64_MAX ||
        data_offset == 0 || data_offset % NPK_COLUMN_ALIGNMENT || data_offset > NPK_COLUMN_HEADER_MAX)
        return npk_fail(err, NPK_CORRUPT, "the index describes file \"columns/%016llx.npy\" in a way that cannot be",
                        (unsigned long long)id);
    npk_column wanted = {.id = id, .file_size = file_size, .row_count = row_count, .row_size = row_size,
                         .data_offset = data_offset, .finished = true};
    npk_status status;
again:
    (void)pthread_mutex_lock(&columns->mutex);
    uint64_t renewals = columns->renewals;
    npk_column *column = find(columns, id);
    if (column) {
        status = share(columns, column, &wanted, err);
        (void)pthread_mutex_unlock(&columns->mutex);
        if (status == NPK_OK)
            *out = column;
        return status;
    }
    (void)pthread_mutex_unlock(&columns->mutex);

    /* The disk is asked without the mutex; when two threads open the same file, the second one's is dropped. */
    npk_column *opened = NULL;
    status = column_open(columns->io, columns->directory, columns->uuid, wanted, &opened, err);
    if (status != NPK_OK)
        return status;
    (void)pthread_mutex_lock(&columns->mutex);
    if (columns->renewals != renewals) { /* perhaps opened before its name was given to another file */
        (void)pthread_mutex_unlock(&columns->mutex);
        column_close(opened);
        goto again;
    }
    column = find(columns, id);
    if (column) {
        status = share(columns, column, &wanted, err);
    } else {
        column = opened;
        opened = NULL;
        column->columns = columns;
        npk_column **bucket = bucket_of(columns, id);
        column->next = *bucket;
        *bucket = column;
        column->is_listed = true;
        columns->user_count++;
    }
    (void)pthread_mutex_unlock(&columns->mutex);
    if (opened)
        column_close(opened);
    if (status == NPK_OK)
        *out = column;
    return status;
}

npk_column *npk_column_retain(npk_column *column)
{
    (void)atomic_fetch_add(&column->references, 1);
    return column;
}

void npk_column_release(npk_column *column)
{
    if (!column)
        return;
    npk_columns *columns = column->columns;
    uint64_t references = atomic_load(&column->references);
    if (!columns) {
        if (atomic_fetch_sub(&column->references, 1) == 1)
            column_close(column);
        return;
    }
    while (references > 1)
        if (atomic_compare_exchange_weak(&column->references, &references, references - 1))
            return;
    /* Perhaps the last one: get may be looking at it, so the step to 0 is made under the mutex. */
    (void)pthread_mutex_lock(&columns->mutex);
    bool last = false;
    if (atomic_fetch_sub(&column->references, 1) == 1) {
        if (!columns->closed && column->is_listed && column->file_size <= IDLE_SIZE_MAX) {
            idle_add(columns, column);
            trim_idle(columns, IDLE_COUNT_MAX);
        } else {
            if (column->is_listed)
                remove_from_bucket(columns, column);
            column_close(column);
        }
        last = --columns->user_count == 0;
    }
    (void)pthread_mutex_unlock(&columns->mutex);
    if (last)
        columns_free(columns);
}

uint64_t npk_column_row_count(const npk_column *column)
{
    return column->row_count;
}

/* first_row .. + row_count as a byte range of the file. */
static npk_status locate(const npk_column *column, uint64_t first_row, uint64_t row_count, uint64_t *offset,
                         uint64_t *size, npk_error *err)
{
    if (first_row > column->row_count || row_count > column->row_count - first_row)
        return npk_fail(err, NPK_RANGE, "file \"columns/%016llx.npy\" has %llu rows, not %llu and %llu more",
                        (unsigned long long)column->id, (unsigned long long)column->row_count,
                        (unsigned long long)first_row, (unsigned long long)row_count);
    *offset = column->data_offset + first_row * column->row_size;
    *size = row_count * column->row_size;
    return NPK_OK;
}

npk_status npk_column_read(npk_column *column, uint64_t first_row, uint64_t row_count, void *out, npk_error *err)
{
    uint64_t offset = 0, size = 0;
    npk_status status = locate(column, first_row, row_count, &offset, &size, err);
    if (status != NPK_OK)
        return status;
    char name[NPK_COLUMN_NAME_SIZE];
    npk_column_name(name, column->id, column->finished);
    return npk_io_read_full(column->io, column->file, offset, out, (size_t)size, NULL, name, err);
}

npk_status npk_column_map(npk_column *column, uint64_t first_row, uint64_t row_count, npk_map_kind kind, void **base,
                          size_t *size, void **rows, npk_error *err)
{
    uint64_t offset = 0, data_size = 0;
    npk_status status = locate(column, first_row, row_count, &offset, &data_size, err);
    if (status != NPK_OK)
        return status;
    if (data_size == 0)
        return npk_fail(err, NPK_INVALID, "no rows to map");
    uint64_t start = offset & ~(uint64_t)(MAP_ALIGNMENT - 1);
    size_t map_size = (size_t)(offset - start + data_size);
    void *address = NULL;
    int rc = column->io->map(column->io, column->file, start, map_size, kind, &address);
    if (rc)
        return npk_fail_errno(err, rc, "could not map file \"columns/%016llx.npy\"", (unsigned long long)column->id);
    *base = address;
    *size = map_size;
    *rows = (char *)address + (offset - start);
    return NPK_OK;
}

npk_status npk_column_rows(npk_column *column, const void **rows, npk_error *err)
{
    void *address = atomic_load_explicit(&column->rows, memory_order_acquire);
    npk_status status = NPK_OK;
    if (!address) {
        (void)pthread_mutex_lock(&column->map_mutex);
        address = atomic_load_explicit(&column->rows, memory_order_relaxed);
        if (!address) {
            status = npk_column_map(column, 0, column->row_count, NPK_MAPPING_READ, &column->map_base,
                                    &column->map_size, &address, err);
            if (status == NPK_OK)
                atomic_store_explicit(&column->rows, address, memory_order_release);
        }
        (void)pthread_mutex_unlock(&column->map_mutex);
    }
    if (status == NPK_OK)
        *rows = address;
    return status;
}

npk_status npk_column_check(npk_column *column, const uint64_t *sums, uint64_t sum_count,
                            int (*bad)(void *context, uint64_t data_offset, uint64_t size), void *context, npk_error *err)
{
    uint64_t data_size = column->row_count * column->row_size;
    char name[NPK_COLUMN_NAME_SIZE];
    npk_column_name(name, column->id, column->finished);
    if (sum_count != data_size / NPK_SUM_BLOCK + (data_size % NPK_SUM_BLOCK != 0))
        return npk_fail(err, NPK_CORRUPT, "file \"columns/%s\" has %llu checksums for %llu bytes", name,
                        (unsigned long long)sum_count, (unsigned long long)data_size);
    uint8_t *buffer = npk_alloc(WRITE_SIZE);
    if (!buffer)
        return npk_fail(err, NPK_NO_MEMORY, "could not allocate a buffer to check file \"columns/%s\"", name);
    npk_status status = NPK_OK;
    uint64_t bad_count = 0, first_bad = 0;
    bool stopped = false;
    for (uint64_t offset = 0; offset < data_size && !stopped; offset += WRITE_SIZE) {
        size_t size = (size_t)npk_min_u64(WRITE_SIZE, data_size - offset);
        status = npk_io_read_full(column->io, column->file, column->data_offset + offset, buffer, size, NULL, name, err);
        if (status != NPK_OK)
            break;
        for (size_t at = 0; at < size && !stopped; at += NPK_SUM_BLOCK) {
            size_t part = size - at < NPK_SUM_BLOCK ? size - at : NPK_SUM_BLOCK;
            if (npk_checksum_matches(buffer + at, part, sums[(offset + at) / NPK_SUM_BLOCK]))
                continue;
            if (bad_count++ == 0)
                first_bad = offset + at;
            stopped = bad && bad(context, offset + at, part) != 0;
        }
    }
    npk_free(buffer);
    if (status == NPK_OK && bad_count)
        status = npk_fail(err, NPK_CORRUPT, "file \"columns/%s\": data offset %llu: checksum mismatch (%llu damaged blocks%s)",
                          name, (unsigned long long)first_bad, (unsigned long long)bad_count,
                          stopped ? " so far" : "");
    return status;
}
