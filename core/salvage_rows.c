/* salvage_rows.c - rows at their places, only where a checksum proves them. Column files are read by block: neither their header nor their size needs
 * to be whole. Rows in the log need their whole record. */
#include "salvage_rows.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "alloc.h"
#include "bytes.h"
#include "checksum.h"
#include "error.h"
#include "gather.h"
#include "store_files.h"

#define COLUMN_COUNT 16   /* column files kept open */
#define RECORD_COUNT 1024 /* log records remembered as good or bad; a power of two */

typedef struct open_column {
    uint64_t id, used;
    npk_file *file;         /* NULL: missing */
    int open_errno;
    uint64_t data_offset, data_size;
    npk_buffer sums;        /* u64[] */
    uint8_t *block;         /* NPK_SUM_BLOCK bytes: the block read last */
    uint64_t block_index;   /* of it; UINT64_MAX: none */
    bool block_is_good;
} open_column;

typedef struct known_record {
    uint64_t seq, offset;
    bool is_good;
} known_record;

struct npk_salvage_rows {
    const npk_io *io;
    npk_file *directory;
    npk_wal *wal;
    uint64_t tick;
    open_column columns[COLUMN_COUNT];
    known_record records[RECORD_COUNT];
};

npk_status npk_salvage_rows_open(const npk_io *io, npk_file *columns_directory, npk_wal *wal, npk_salvage_rows **out, npk_error *err)
{
    npk_salvage_rows *rows = npk_calloc(1, sizeof *rows);
    if (!rows)
        return npk_fail(err, NPK_NO_MEMORY, "could not allocate a reader of rows");
    rows->io = io;
    rows->directory = columns_directory;
    rows->wal = wal;
    *out = rows;
    return NPK_OK;
}

static void close_column(npk_salvage_rows *rows, open_column *column)
{
    rows->io->close(rows->io, column->file);
    npk_buffer_release(&column->sums);
    npk_free(column->block);
    memset(column, 0, sizeof *column);
}

void npk_salvage_rows_close(npk_salvage_rows *rows)
{
    if (!rows)
        return;
    for (size_t i = 0; i < COLUMN_COUNT; i++)
        close_column(rows, &rows->columns[i]);
    npk_free(rows);
}

/* ---- column files ---------------------------------------------------------------------------------------------------- */

static npk_status add_sums(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size, bool *stop,
                           npk_error *err)
{
    npk_buffer *sums = context;
    (void)err;
    /* A hole ends what is known: blocks without a checksum prove nothing. */
    if (key_size != 16 || value_size % 8 != 0 || npk_get_be64(key + 8) != sums->size / 8) {
        *stop = true;
        return NPK_OK;
    }
    for (size_t i = 0; i < value_size; i += 8) {
        uint64_t sum = npk_get_u64(value + i);
        npk_buffer_put(sums, &sum, sizeof sum);
    }
    return sums->failed ? npk_fail(err, NPK_NO_MEMORY, "could not allocate checksums") : NPK_OK;
}

static npk_status get_column(npk_salvage_rows *rows, npk_kv *kv, uint64_t id, open_column **out, npk_error *err)
{
    open_column *oldest = &rows->columns[0];
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        open_column *column = &rows->columns[i];
        if (column->used && column->id == id) {
            column->used = ++rows->tick;
            *out = column;
            return NPK_OK;
        }
        if (column->used < oldest->used)
            oldest = column;
    }
    close_column(rows, oldest);
    npk_container container = {0};
    bool found = false;
    uint8_t prefix[8];
    npk_buffer_init(&oldest->sums);
    oldest->block_index = UINT64_MAX;
    npk_status status = npk_catalog_get_container(kv, NPK_CONTAINER_COLUMN, id, &container, &found, err);
    if (status == NPK_OK)
        status = npk_kv_scan(kv, NPK_TABLE_SUMS, prefix, npk_key_u64(prefix, id), NULL, 0, add_sums, &oldest->sums, err);
    oldest->block = status == NPK_OK ? npk_alloc(NPK_SUM_BLOCK) : NULL;
    if (status == NPK_OK && !oldest->block)
        status = npk_fail(err, NPK_NO_MEMORY, "could not allocate a block");
    if (status != NPK_OK) {
        close_column(rows, oldest);
        return status;
    }
    oldest->id = id;
    oldest->used = ++rows->tick;
    oldest->data_offset = container.data_offset;
    if (container.size > container.data_offset)
        oldest->data_size = container.size - container.data_offset;
    char name[NPK_FILE_NAME_SIZE];
    npk_store_files_encode_column(id, name);
    oldest->open_errno = rows->directory ? rows->io->open(rows->io, rows->directory, name, NPK_OPEN_READ, &oldest->file) : ENOENT;
    if (oldest->open_errno)
        oldest->file = NULL;
    *out = oldest;
    return NPK_OK;
}

/* Block index of the file, or NULL when it cannot be had or proven. */
static const uint8_t *get_block(npk_salvage_rows *rows, open_column *column, uint64_t index)
{
    if (index == column->block_index)
        return column->block_is_good ? column->block : NULL;
    column->block_index = index;
    column->block_is_good = false;
    uint64_t offset = index * NPK_SUM_BLOCK;
    if (!column->file || offset >= column->data_size || index >= column->sums.size / 8)
        return NULL;
    size_t done = 0, size = (size_t)npk_min_u64(NPK_SUM_BLOCK, column->data_size - offset);
    uint64_t sum;
    memcpy(&sum, column->sums.data + 8 * index, sizeof sum);
    column->block_is_good =
        npk_io_read_full(rows->io, column->file, column->data_offset + offset, column->block, size, &done, "column file", NULL) == NPK_OK &&
        done == size && npk_checksum(column->block, size) == sum;
    return column->block_is_good ? column->block : NULL;
}

/* Rows file_row .. + count of the file; a row whose blocks are not all good stays lost. */
static void read_column(npk_salvage_rows *rows, open_column *column, uint64_t file_row, uint64_t count, uint64_t row_size,
                        uint8_t *out, uint32_t *lost)
{
    uint64_t begin, size, end;
    if (npk_mul_overflow(file_row, row_size, &begin) || npk_mul_overflow(count, row_size, &size) || npk_add_overflow(begin, size, &end))
        return;
    uint64_t lost_until = 0; /* rows below are settled as lost */
    for (uint64_t i = 0; i < count; i++)
        lost[i] = lost[i] ? UINT32_MAX : 0; /* wanted */
    for (uint64_t at = begin; at < end;) {
        uint64_t index = at / NPK_SUM_BLOCK, skip = at % NPK_SUM_BLOCK;
        uint64_t part = npk_min_u64(NPK_SUM_BLOCK - skip, end - at);
        const uint8_t *block = get_block(rows, column, index);
        if (block && skip + part <= npk_min_u64(NPK_SUM_BLOCK, column->data_size - index * NPK_SUM_BLOCK)) {
            for (uint64_t row = (at - begin) / row_size; row * row_size < at - begin + part; row++) {
                if (!lost[row])
                    continue; /* had from elsewhere */
                uint64_t low = npk_max_u64(row * row_size, at - begin), high = npk_min_u64((row + 1) * row_size, at - begin + part);
                memcpy(out + low, block + skip + (low - (at - begin)), (size_t)(high - low));
                if (high == (row + 1) * row_size && row >= lost_until)
                    lost[row] = 0;
            }
        } else {
            lost_until = (at - begin + part + row_size - 1) / row_size;
        }
        at += part;
    }
}

/* ---- the log ------------------------------------------------------------------------------------------------------------ */

static void read_record(npk_salvage_rows *rows, const npk_place *place, uint64_t source_row, uint64_t count, uint64_t row_size, uint8_t *out,
                        uint32_t *lost)
{
    known_record *known = &rows->records[(place->container * 31 + place->record_offset / 8) % RECORD_COUNT];
    bool is_known = known->seq == place->container && known->offset == place->record_offset;
    if (place->container == 0 || !rows->wal || (is_known && !known->is_good))
        return;
    npk_segment *segment = NULL;
    if (npk_wal_segment(rows->wal, place->container, &segment, NULL) != NPK_OK)
        return;
    uint8_t one[1];
    if (!is_known) {
        *known = (known_record){place->container, place->record_offset,
                                npk_segment_read_data(segment, place->record_offset, 0, one, 1, true, NULL) == NPK_OK};
        is_known = known->is_good;
    }
    for (uint64_t at = 0; is_known && at < count;) {
        uint64_t part = 0;
        while (at + part < count && lost[at + part])
            part++;
        if (part && npk_segment_read_data(segment, place->record_offset, (source_row + at) * row_size, out + at * row_size,
                                          (size_t)(part * row_size), false, NULL) == NPK_OK)
            memset(lost + at, 0, (size_t)part * sizeof *lost);
        at += part ? part : 1;
    }
    npk_segment_release(segment);
}

/* ---- rows of an array ------------------------------------------------------------------------------------------------------ */

static npk_status read_source(npk_salvage_rows *rows, npk_kv *kv, const npk_array *array, uint32_t source, uint64_t source_row,
                              uint64_t count, uint8_t *out, uint32_t *lost, npk_error *err)
{
    const npk_place *place = &array->sources[source].place;
    bool any = false;
    for (uint64_t i = 0; i < count && !any; i++)
        any = lost[i] != 0;
    if (!any)
        return NPK_OK;
    npk_status status = NPK_OK;
    if (place->kind == NPK_PLACE_COLUMN) {
        open_column *column = NULL;
        status = get_column(rows, kv, place->container, &column, err);
        if (status == NPK_OK)
            read_column(rows, column, place->row + source_row, count, array->info.row_size, out, lost);
    } else {
        read_record(rows, place, place->row + source_row, count, array->info.row_size, out, lost);
    }
    for (uint64_t i = 0; i < count; i++)
        if (lost[i])
            lost[i] = source + 1;
    return status;
}

npk_status npk_salvage_rows_read(npk_salvage_rows *rows, npk_kv *kv, const npk_array *array, uint64_t first, uint64_t count,
                                 uint8_t *out, uint32_t *lost, npk_error *err)
{
    npk_status status = npk_array_check_range(array, first, count, err);
    uint64_t row_size = array->info.row_size, at = 0;
    uint64_t over = status == NPK_OK && count ? npk_array_find_overlay(array, first) : 0;
    while (at < count && status == NPK_OK) {
        uint64_t row = first + at, part;
        uint32_t source;
        uint64_t source_row;
        if (over < array->overlay_count && array->overlay[over].row == row) {
            source = array->overlay[over].source;
            source_row = array->overlay[over++].source_row;
            part = 1;
        } else {
            const npk_piece *piece = &array->pieces[npk_array_find_piece(array, row)];
            uint64_t end = npk_min_u64(first + count, piece->first_row + piece->count);
            if (over < array->overlay_count)
                end = npk_min_u64(end, array->overlay[over].row);
            source = piece->source;
            source_row = piece->source_row + (row - piece->first_row);
            part = end - row;
        }
        status = read_source(rows, kv, array, source, source_row, part, out + at * row_size, lost + at, err);
        at += part;
    }
    return status;
}

void npk_salvage_rows_explain(npk_salvage_rows *rows, const npk_array *array, uint32_t source, char *file, char *reason)
{
    const npk_place *place = &array->sources[source].place;
    file[0] = '\0';
    if (place->container == 0) {
        (void)snprintf(reason, 192, "what wrote them is lost with the log");
    } else if (place->kind == NPK_PLACE_COLUMN) {
        char name[NPK_FILE_NAME_SIZE];
        npk_file_info info;
        npk_store_files_encode_column(place->container, name);
        (void)snprintf(file, 64, "%s/%s", NPK_DIRECTORY_COLUMNS, name);
        bool is_there = rows->directory && rows->io->info_at(rows->io, rows->directory, name, &info) == 0;
        (void)snprintf(reason, 192, "%s", is_there ? "their block of the file is damaged" : "the file is missing");
    } else {
        npk_error why = {.row = -1};
        npk_segment *segment = NULL;
        uint8_t one[1];
        npk_status status = rows->wal ? npk_wal_segment(rows->wal, place->container, &segment, &why)
                                      : npk_fail(&why, NPK_CORRUPT, "the log is missing");
        if (status == NPK_OK)
            status = npk_segment_read_data(segment, place->record_offset, 0, one, 1, true, &why);
        npk_segment_release(segment);
        (void)snprintf(file, 64, "%s/%016llx.wal", NPK_DIRECTORY_WAL, (unsigned long long)place->container);
        (void)snprintf(reason, 192, "%.191s", status == NPK_OK ? "the record holds less" : why.message);
    }
}
