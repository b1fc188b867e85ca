/* gather.c - copying rows of an array: ranges and single rows in any order.
 *
 * A range is read piece by piece straight into the caller's memory, then overlay rows are put over it. Rows that lie in the log and are
 * wanted one by one are fetched in the order in which they lie, several with one read: a packed record is then decoded once. */
#include "gather.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "alloc.h"
#include "bytes.h"
#include "error.h"
#include "thread.h"

/* ---- finding rows ---------------------------------------------------------------------------------------------------- */

void npk_overlay_bits_release(npk_overlay_bits *bits)
{
    if (!bits)
        return;
    npk_free(bits->bits);
    npk_free(bits->before);
    npk_free(bits);
}

uint64_t npk_array_find_overlay(const npk_array *array, uint64_t row)
{
    uint64_t low = 0, high = array->overlay_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (array->overlay[middle].row < row)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint64_t npk_array_find_piece(const npk_array *array, uint64_t row)
{
    uint64_t low = 0, high = array->piece_count; /* the last piece with first_row <= row */
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        if (array->pieces[middle].first_row <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Overlay rows over a mapped file cost a private page each. 38 MB, rows of 40 bytes all over it: 2.3 us a page to patch and 0.4 to unmap, and as
 * much again where a batch compares them; a copy of everything 2.6 ms into recycled memory and 3.3 to compare. */
#define PATCH_PAGE 4096u
#define PATCH_SHARE 10u /* one page of so many at most */

bool npk_array_is_mappable(const npk_array *array, uint64_t first, uint64_t count, bool *patch)
{
    const npk_piece *piece = &array->pieces[npk_array_find_piece(array, first)];
    const npk_row_source *source = &array->sources[piece->source];
    *patch = false;
    if (!source->column || first + count > piece->first_row + piece->count)
        return false;
    uint64_t row_size = array->info.row_size;
    /* Of the first row in its page: a file's data starts at a page. */
    uint64_t offset = (source->place.row + piece->source_row + (first - piece->first_row)) * row_size % PATCH_PAGE;
    uint64_t limit = (offset + count * row_size + PATCH_PAGE - 1) / PATCH_PAGE / PATCH_SHARE, touched = 0, next_page = 0;
    for (uint64_t i = npk_array_find_overlay(array, first);
         i < array->overlay_count && array->overlay[i].row < first + count; i++) {
        uint64_t begin = offset + (array->overlay[i].row - first) * row_size;
        uint64_t page = npk_max_u64(begin / PATCH_PAGE, next_page); /* rows ascend: pages below this are counted */
        next_page = (begin + row_size - 1) / PATCH_PAGE + 1;
        touched += next_page - page;
        if (touched > limit)
            return false;
        *patch = true;
    }
    return true;
}

npk_status npk_array_check_range(const npk_array *array, uint64_t first, uint64_t count, npk_error *err)
{
    uint64_t row_count = array->info.row_count;
    if (first <= row_count && count <= row_count - first)
        return NPK_OK;
    npk_status status = npk_fail(err, NPK_RANGE, "rows %llu .. %llu are not in array \"%s\" of %llu rows",
                                 (unsigned long long)first, (unsigned long long)(first + count), array->info.name,
                                 (unsigned long long)row_count);
    if (err)
        err->row = (int64_t)npk_max_u64(npk_min_u64(first, INT64_MAX), row_count);
    npk_error_set_array(err, array->info.name);
    return status;
}

/* The bits, when they pay: a search among few rows is fast, and few rows in a huge array would need too many bits.
 * A search costs more than putting 16 rows in (10,000 of a million rows, a tenth of them in the log: 0.8 ms with bits, 2.3 without), so
 * they are made once the searches of all gathers together have cost as much. */
static const npk_overlay_bits *get_overlay_bits(npk_array *array, uint64_t wanted_count)
{
    npk_overlay_bits *bits = atomic_load_explicit(&array->overlay_bits, memory_order_acquire);
    if (bits || array->overlay_count < 64 || array->info.row_count / 256 > array->overlay_count)
        return bits;
    uint64_t before_this = atomic_fetch_add_explicit(&array->gathered_count, wanted_count, memory_order_relaxed);
    if (before_this + wanted_count < array->overlay_count / 16)
        return NULL;
    uint64_t word_count = array->info.row_count / 64 + 1;
    bits = npk_calloc(1, sizeof *bits);
    if (!bits)
        return NULL; /* it is faster with them, not more right */
    bits->bits = npk_calloc((size_t)word_count, sizeof *bits->bits);
    bits->before = npk_alloc((size_t)word_count * sizeof *bits->before);
    if (!bits->bits || !bits->before) {
        npk_overlay_bits_release(bits);
        return NULL;
    }
    for (uint64_t i = 0; i < array->overlay_count; i++)
        bits->bits[array->overlay[i].row / 64] |= (uint64_t)1 << array->overlay[i].row % 64;
    uint64_t before = 0;
    for (uint64_t i = 0; i < word_count; i++) {
        bits->before[i] = before;
        before += (uint64_t)__builtin_popcountll(bits->bits[i]);
    }
    npk_overlay_bits *other = NULL;
    if (!atomic_compare_exchange_strong_explicit(&array->overlay_bits, &other, bits, memory_order_acq_rel,
                                                 memory_order_acquire)) {
        npk_overlay_bits_release(bits);
        bits = other;
    }
    return bits;
}

/* ---- errors ------------------------------------------------------------------------------------------------------------ */

static npk_status name_rows(const npk_array *array, npk_status status, uint64_t first, uint64_t count, npk_error *err)
{
    if (status == NPK_OK || status == NPK_RANGE)
        return status;
    if (count == 1)
        (void)npk_context(err, status, "read row %llu of array \"%s\"", (unsigned long long)first, array->info.name);
    else
        (void)npk_context(err, status, "read rows %llu .. %llu of array \"%s\"", (unsigned long long)first,
                          (unsigned long long)(first + count), array->info.name);
    if (err && err->row < 0)
        err->row = (int64_t)first;
    npk_error_set_array(err, array->info.name);
    return status;
}

/* ---- rows of one source --------------------------------------------------------------------------------------------------- */

/* Above this a column read is shared by threads; each gets at least half of it. 40 MB from the page cache on 2 cores, 1, 2, 4 threads, best of
 * five runs: fresh memory 4.8, 3.3, 3.2 ms, recycled memory 2.3, 1.2, 1.6 ms. With both cores busy elsewhere threads gain nothing and
 * lose little: they only take turns. */
#define PARALLEL_SIZE_MIN (8u * 1024u * 1024u)
#define PARALLEL_MAX 4u

typedef struct part_read {
    npk_column *column;
    uint64_t first, count;
    char *out;
    pthread_t thread;
    npk_status status;
    npk_error error;
} part_read;

static void *run_part(void *context)
{
    part_read *part = context;
    part->error.message[0] = '\0';
    part->status = npk_column_read(part->column, part->first, part->count, part->out, &part->error);
    return NULL;
}

static npk_status read_column(npk_column *column, uint64_t first, uint64_t count, uint64_t row_size, char *out,
                              npk_error *err)
{
    uint64_t size = count * row_size;
    uint64_t part_count = npk_min_u64(npk_min_u64(size / (PARALLEL_SIZE_MIN / 2), PARALLEL_MAX), count);
    if (size < PARALLEL_SIZE_MIN || part_count < 2)
        return npk_column_read(column, first, count, out, err);
    part_read *parts = npk_alloc((size_t)part_count * sizeof *parts);
    if (!parts)
        return npk_column_read(column, first, count, out, err);
    uint64_t each = count / part_count;
    uint64_t started = 0;
    for (uint64_t i = 0; i < part_count; i++) {
        parts[i].column = column;
        parts[i].first = first + i * each;
        parts[i].count = i + 1 < part_count ? each : count - i * each;
        parts[i].out = out + i * each * row_size;
    }
    while (started + 1 < part_count && npk_thread_start(&parts[started].thread, run_part, &parts[started]) == 0)
        started++;
    for (uint64_t i = started; i < part_count; i++) /* the last one, and what got no thread */
        (void)run_part(&parts[i]);
    npk_status status = NPK_OK;
    for (uint64_t i = 0; i < part_count; i++) {
        if (i < started)
            (void)pthread_join(parts[i].thread, NULL);
        if (parts[i].status != NPK_OK && status == NPK_OK) {
            status = parts[i].status;
            if (err)
                *err = parts[i].error;
        }
    }
    npk_free(parts);
    return status;
}

/* count rows that lie back to back in one source. */
static npk_status read_source(const npk_array *array, uint32_t index, uint64_t source_row, uint64_t count, bool check,
                              char *out, npk_error *err)
{
    const npk_row_source *source = &array->sources[index];
    uint64_t row_size = array->info.row_size;
    source_row += source->place.row;
    if (source->column)
        return read_column(source->column, source_row, count, row_size, out, err);
    size_t size = (size_t)(count * row_size);
    if (check || source->place.kind == NPK_PLACE_PACKED)
        return npk_segment_read_data(source->segment, source->place.record_offset, source_row * row_size, out, size, check,
                                     err);
    return npk_segment_read(source->segment,
                            source->place.record_offset + source->place.data_delta + source_row * row_size, out, size, err);
}

#define PACKED_BLOCK_SIZE 65536u /* what is unpacked at a time, and for one row */

/* ---- rows in memory --------------------------------------------------------------------------------------------------------- */

/* Unpacked records that all arrays of the process keep, at most UNPACKED_SIZE_MAX bytes: 100 rows of a million, a tenth of them in packed records:
 * 165 us when each one's block is unpacked for it, 4 us from here. */
#define UNPACKED_SIZE_MAX (64u * 1024u * 1024u)
static _Atomic uint64_t unpacked_size;

static size_t unpacked_size_of(const npk_array *array, const npk_row_source *source)
{
    return (size_t)((source->end_row - source->place.row) * array->info.row_size); /* of a record: below NPK_WAL_PAYLOAD_MAX */
}

/* Unpack what the array uses of a packed record, once its rows have been wanted so often that their blocks cost as much. NULL: not yet, no
 * room, or it cannot be read, which the read of the row will tell. */
static const char *unpack_rows(const npk_array *array, npk_row_source *source, uint64_t *count)
{
    uint64_t touched = atomic_fetch_add_explicit(&source->touched, 1, memory_order_relaxed) + (uint64_t)1;
    uint64_t row_size = array->info.row_size, row_count = source->end_row - source->place.row;
    if (row_count > NPK_WAL_PAYLOAD_MAX / row_size || touched * PACKED_BLOCK_SIZE < row_count * row_size)
        return NULL;
    size_t size = unpacked_size_of(array, source);
    if (atomic_fetch_add(&unpacked_size, size) > UNPACKED_SIZE_MAX - size) {
        atomic_fetch_sub(&unpacked_size, size);
        return NULL;
    }
    char *rows = npk_alloc(size);
    if (rows && npk_segment_read_data(source->segment, source->place.record_offset, source->place.row * row_size, rows, size, false,
                                      NULL) == NPK_OK) {
        const char *other = NULL;
        *count = row_count;
        atomic_store_explicit(&source->mapped_count, row_count, memory_order_relaxed);
        if (atomic_compare_exchange_strong(&source->rows, &other, rows))
            return rows;
        npk_free(rows); /* another thread was faster */
        atomic_fetch_sub(&unpacked_size, size);
        return other;
    }
    npk_free(rows);
    atomic_fetch_sub(&unpacked_size, size);
    return NULL;
}

uint64_t npk_array_unpacked_size(void)
{
    return atomic_load(&unpacked_size);
}

void npk_array_release_unpacked(npk_array *array, uint32_t index)
{
    npk_row_source *source = &array->sources[index];
    const char *rows = atomic_load(&source->rows);
    if (source->place.kind != NPK_PLACE_PACKED || !rows)
        return;
    npk_free((void *)(uintptr_t)rows);
    atomic_fetch_sub(&unpacked_size, unpacked_size_of(array, source));
}

/* Rows of a source from its row 0 on: of a column file or of the log, mapped, or unpacked. *count says how many have an address; the
 * others have to be read (packed ones rarely wanted, no maps here, or behind the end of a segment: the read then says what is wrong). A
 * file that could not be mapped is not tried again by this array. */
static const char *rows_in_memory(const npk_array *array, uint32_t index, uint64_t *count)
{
    static const char nowhere[1];
    npk_row_source *source = &array->sources[index];
    const char *rows = atomic_load_explicit(&source->rows, memory_order_acquire);
    if (rows) { /* of two threads one may have got a map and the other none: the count may be the one's, the address the other's */
        *count = rows == nowhere ? 0 : atomic_load_explicit(&source->mapped_count, memory_order_relaxed);
        return rows;
    }
    uint64_t row_size = array->info.row_size;
    *count = 0;
    if (source->place.kind == NPK_PLACE_PACKED) {
        rows = unpack_rows(array, source, count);
        return rows ? rows : nowhere;
    }
    rows = nowhere;
    if (source->column) {
        const void *base = NULL;
        if (npk_column_rows(source->column, &base, NULL) == NPK_OK) {
            rows = (const char *)base + source->place.row * row_size;
            *count = npk_column_row_count(source->column) - source->place.row;
        }
    } else {
        uint64_t size;
        const uint8_t *bytes = npk_segment_bytes(source->segment, &size);
        uint64_t offset = source->place.record_offset + source->place.data_delta + source->place.row * row_size;
        if (bytes && offset < size) {
            rows = (const char *)bytes + offset;
            *count = (size - offset) / row_size;
        }
    }
    atomic_store_explicit(&source->mapped_count, *count, memory_order_relaxed);
    atomic_store_explicit(&source->rows, rows, memory_order_release);
    return rows;
}

/* The bytes of one row, NULL: to be read. */
static inline const char *row_in_memory(const npk_array *array, uint32_t source, uint64_t source_row)
{
    uint64_t count;
    const char *rows = rows_in_memory(array, source, &count);
    return source_row < count ? rows + source_row * array->info.row_size : NULL;
}

/* Rows that are found and asked for before they are copied, so that the memory works on several at a time. */
#define AHEAD 32u

static inline void copy_row(char *to, const char *from, size_t row_size)
{
    switch (row_size) { /* a call of memcpy costs more than these copies */
    case 4: memcpy(to, from, 4); break;
    case 8: memcpy(to, from, 8); break;
    case 16: memcpy(to, from, 16); break;
    case 40: memcpy(to, from, 40); break;
    default: memcpy(to, from, row_size);
    }
}

/* ---- single rows ------------------------------------------------------------------------------------------------------------ */

/* A row to fetch: from a source to a row of the caller's memory. */
typedef struct fetch {
    uint32_t source;
    uint64_t source_row;
    uint64_t out_row;
    uint64_t row; /* logical, for messages */
} fetch;

typedef struct fetch_list {
    fetch *items;
    size_t count, capacity;
    bool sorted;
} fetch_list;

static npk_status fetch_add(fetch_list *list, fetch item, npk_error *err)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 256;
        fetch *items = npk_realloc(list->items, capacity * sizeof *items);
        if (!items)
            return npk_fail(err, NPK_NO_MEMORY, "could not allocate a list of %zu rows", capacity);
        list->items = items;
        list->capacity = capacity;
    }
    if (list->count == 0) {
        list->sorted = true;
    } else {
        const fetch *last = &list->items[list->count - 1];
        if (last->source > item.source || (last->source == item.source && last->source_row > item.source_row))
            list->sorted = false;
    }
    list->items[list->count++] = item;
    return NPK_OK;
}

static int compare_fetch(const void *a, const void *b)
{
    const fetch *x = a, *y = b;
    if (x->source != y->source)
        return x->source < y->source ? -1 : 1;
    if (x->source_row != y->source_row)
        return x->source_row < y->source_row ? -1 : 1;
    return (x->out_row > y->out_row) - (x->out_row < y->out_row);
}

/* Mostly the rows of each source come in its order, among those of others: dealt out by source they are in order. (100,000 of a million rows from
 * 16 sets: a load takes 10 ms instead of 20 with qsort.) Else, and without memory, they are sorted. */
static void sort_fetches(const npk_array *array, fetch_list *list)
{
    uint64_t *place = npk_calloc((size_t)array->source_count + 1, sizeof *place);
    fetch *dealt = place ? npk_alloc(list->count * sizeof *dealt) : NULL;
    if (dealt) {
        for (size_t i = 0; i < list->count; i++)
            place[list->items[i].source + 1]++;
        for (uint64_t i = 0; i < array->source_count; i++)
            place[i + 1] += place[i];
        for (size_t i = 0; i < list->count; i++)
            dealt[place[list->items[i].source]++] = list->items[i];
        npk_free(list->items);
        list->items = dealt;
        list->capacity = list->count;
        list->sorted = true;
        for (size_t i = 1; i < list->count && list->sorted; i++)
            list->sorted = compare_fetch(&dealt[i - 1], &dealt[i]) <= 0;
    }
    npk_free(place);
    if (!list->sorted)
        qsort(list->items, list->count, sizeof *list->items, compare_fetch);
}

/* One read covers rows up to SPAN_SIZE apart as long as no gap between two of them is larger than what a read call costs: about 4 KiB
 * of copy; in packed records decoding is done by blocks of 64 KiB anyway. */
#define SPAN_SIZE (256u * 1024u)
#define GAP_SIZE 4096u
#define GAP_SIZE_PACKED PACKED_BLOCK_SIZE

static npk_status fetch_rows(const npk_array *array, fetch_list *list, bool check, char *out, npk_error *err)
{
    if (list->count == 0)
        return NPK_OK;
    if (!list->sorted)
        sort_fetches(array, list);
    uint64_t row_size = array->info.row_size;
    char *buffer = NULL;
    npk_status status = NPK_OK;
    for (size_t first = 0, end; first < list->count && status == NPK_OK; first = end) {
        const fetch *items = &list->items[first];
        uint8_t kind = array->sources[items->source].place.kind;
        uint64_t gap = kind == NPK_PLACE_PACKED || (check && kind == NPK_PLACE_SEGMENT) ? GAP_SIZE_PACKED : GAP_SIZE;
        bool in_order = true; /* the rows go to the caller's memory as they lie */
        uint64_t row_count = 1;
        for (end = first + 1; end < list->count; end++) {
            const fetch *last = &list->items[end - 1], *next = &list->items[end];
            uint64_t step = next->source_row - last->source_row;
            if (next->source != last->source || step > 1 + gap / row_size)
                break;
            bool follows = in_order && step == 1 && next->out_row == last->out_row + 1;
            if (!follows && (row_count + step) * row_size > SPAN_SIZE)
                break;
            in_order = follows;
            row_count += step;
        }
        size_t size = (size_t)(row_count * row_size);
        if (in_order || row_count == 1) {
            char *to = out + items->out_row * row_size;
            status = read_source(array, items->source, items->source_row, row_count, check, to, err);
            for (size_t i = 1; row_count == 1 && i < end - first && status == NPK_OK; i++)
                memcpy(out + items[i].out_row * row_size, to, size); /* duplicates */
        } else {
            if (!buffer && !(buffer = npk_alloc(SPAN_SIZE))) {
                status = npk_fail(err, NPK_NO_MEMORY, "could not allocate a buffer for rows");
                break;
            }
            /* size <= SPAN_SIZE: checked above for every row since the order was left */
            status = read_source(array, items->source, items->source_row, row_count, check, buffer, err);
            for (size_t i = 0; i < end - first && status == NPK_OK; i++)
                memcpy(out + items[i].out_row * row_size, buffer + (items[i].source_row - items->source_row) * row_size,
                       (size_t)row_size);
        }
        if (status != NPK_OK)
            status = name_rows(array, status, items->row, 1, err);
    }
    npk_free(buffer);
    return status;
}

/* ---- ranges -------------------------------------------------------------------------------------------------------------------- */

/* The overlay rows among first .. first + count over what out holds. use_maps: of files; unpacked rows are memory anyway. */
static npk_status put_overlay(npk_array *array, uint64_t first, uint64_t count, bool check, bool use_maps, char *out, npk_error *err)
{
    size_t row_size = (size_t)array->info.row_size;
    uint64_t begin = npk_array_find_overlay(array, first), end = begin;
    while (end < array->overlay_count && array->overlay[end].row < first + count)
        end++;
    fetch_list list = {NULL, 0, 0, true};
    npk_status status = NPK_OK;
    for (uint64_t part; begin < end && status == NPK_OK; begin += part) {
        const char *from[AHEAD];
        part = npk_min_u64(end - begin, AHEAD);
        for (uint64_t i = 0; i < part && status == NPK_OK; i++) {
            const npk_overlay_row *over = &array->overlay[begin + i];
            bool by_address = !check && (use_maps || array->sources[over->source].place.kind == NPK_PLACE_PACKED);
            from[i] = by_address ? row_in_memory(array, over->source, over->source_row) : NULL;
            if (from[i]) {
                __builtin_prefetch(from[i]);
                __builtin_prefetch(out + (over->row - first) * row_size, 1);
            } else {
                fetch item = {over->source, over->source_row, over->row - first, over->row};
                status = fetch_add(&list, item, err);
            }
        }
        for (uint64_t i = 0; i < part && status == NPK_OK; i++)
            if (from[i])
                copy_row(out + (array->overlay[begin + i].row - first) * row_size, from[i], row_size);
    }
    if (status == NPK_OK)
        status = fetch_rows(array, &list, check, out, err);
    npk_free(list.items);
    return status;
}

npk_status npk_array_put_overlay(npk_array *array, uint64_t first, uint64_t count, void *out, npk_error *err)
{
    return put_overlay(array, first, count, false, true, out, err);
}

static npk_status read_range(npk_array *array, uint64_t first, uint64_t count, bool check, void *out, npk_error *err)
{
    npk_status status = npk_array_check_range(array, first, count, err);
    uint64_t row_size = array->info.row_size;
    if (status != NPK_OK || count == 0 || row_size == 0)
        return status;
    uint64_t end = first + count;
    for (uint64_t p = npk_array_find_piece(array, first); p < array->piece_count; p++) {
        const npk_piece *piece = &array->pieces[p];
        if (piece->first_row >= end)
            break;
        uint64_t row = npk_max_u64(piece->first_row, first);
        uint64_t part = npk_min_u64(piece->first_row + piece->count, end) - row;
        status = read_source(array, piece->source, piece->source_row + (row - piece->first_row), part, check,
                             (char *)out + (row - first) * row_size, err);
        if (status != NPK_OK)
            return name_rows(array, status, row, part, err);
    }
    return put_overlay(array, first, count, check, false, out, err); /* a device error is an error here, and a signal in a map */
}

npk_status npk_array_read(npk_array *array, uint64_t first, uint64_t count, void *out, npk_error *err)
{
    return read_range(array, first, count, false, out, err);
}

npk_status npk_array_read_checked(npk_array *array, uint64_t first, uint64_t count, void *out, npk_error *err)
{
    return read_range(array, first, count, true, out, err);
}

/* ---- rows in any order ------------------------------------------------------------------------------------------------------------ */

/* One piece of a column file without overlay rows: the common case. bad is the first row outside. The caller's row numbers are looked at once
 * each: another thread may be writing them. */
static bool gather_plain(const char *rows, uint64_t row_count, size_t row_size, uint64_t count, const int64_t *wanted,
                         char *out, uint64_t *bad)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t row = (uint64_t)wanted[i];
        if (row >= row_count) {
            *bad = row;
            return false;
        }
        /* Rows are all over the file: ask for some of the next ones early. */
        if (i + 16 < count) {
            uint64_t later = (uint64_t)wanted[i + 16];
            if (later < row_count)
                __builtin_prefetch(rows + later * row_size);
        }
        copy_row(out + i * row_size, rows + row * row_size, row_size);
    }
    return true;
}

static npk_status outside(const npk_array *array, int64_t row, npk_error *err)
{
    npk_status status = npk_fail(err, NPK_RANGE, "row %lld is not in array \"%s\" of %llu rows", (long long)row,
                                 array->info.name, (unsigned long long)array->info.row_count);
    if (err)
        err->row = row;
    npk_error_set_array(err, array->info.name);
    return status;
}

/* Bytes compared at a time, and read where they have no address. */
#define COMPARE_SIZE (64u * 1024u)

/* Where the bytes of a row are. piece: of the row before, a good guess for the next one. */
static void find_row(const npk_array *array, const npk_overlay_bits *bits, uint64_t row, uint64_t *piece, fetch *item)
{
    if (array->overlay_count) {
        uint64_t index = array->overlay_count;
        if (bits) {
            uint64_t word = bits->bits[row / 64], bit = (uint64_t)1 << row % 64;
            if (word & bit)
                index = bits->before[row / 64] + (uint64_t)__builtin_popcountll(word & (bit - 1));
        } else {
            index = npk_array_find_overlay(array, row);
        }
        if (index < array->overlay_count && array->overlay[index].row == row) {
            item->source = array->overlay[index].source;
            item->source_row = array->overlay[index].source_row;
            return;
        }
    }
    const npk_piece *p = &array->pieces[*piece];
    if (row < p->first_row || row - p->first_row >= p->count) {
        *piece = npk_array_find_piece(array, row);
        p = &array->pieces[*piece];
    }
    item->source = p->source;
    item->source_row = p->source_row + (row - p->first_row);
}

npk_status npk_array_gather(npk_array *array, uint64_t count, const int64_t *rows, void *out_bytes, npk_error *err)
{
    char *out = out_bytes;
    size_t row_size = (size_t)array->info.row_size;
    uint64_t row_count = array->info.row_count;
    if (row_size == 0) {
        for (uint64_t i = 0; i < count; i++)
            if ((uint64_t)rows[i] >= row_count)
                return outside(array, rows[i], err);
        return NPK_OK;
    }
    if (count && array->piece_count == 1 && array->overlay_count == 0 && array->sources[array->pieces[0].source].column) {
        const npk_piece *piece = &array->pieces[0];
        const void *base = NULL;
        if (npk_column_rows(array->sources[piece->source].column, &base, NULL) == NPK_OK) {
            uint64_t bad = 0;
            if (!gather_plain((const char *)base + piece->source_row * row_size, row_count, row_size, count, rows, out, &bad))
                return outside(array, (int64_t)bad, err);
            return NPK_OK;
        }
    }
    const npk_overlay_bits *bits = get_overlay_bits(array, count);
    fetch_list list = {NULL, 0, 0, true};
    npk_status status = NPK_OK;
    uint64_t piece = 0;
    for (uint64_t first = 0; first < count && status == NPK_OK; first += AHEAD) {
        const char *from[AHEAD];
        uint64_t part = npk_min_u64(count - first, AHEAD);
        for (uint64_t i = 0; i < part && status == NPK_OK; i++) {
            fetch item = {.out_row = first + i, .row = (uint64_t)rows[first + i]};
            if (item.row >= row_count) {
                status = outside(array, (int64_t)item.row, err);
                break;
            }
            find_row(array, bits, item.row, &piece, &item);
            from[i] = row_in_memory(array, item.source, item.source_row);
            if (from[i])
                __builtin_prefetch(from[i]);
            else
                status = fetch_add(&list, item, err);
        }
        for (uint64_t i = 0; i < part && status == NPK_OK; i++)
            if (from[i])
                copy_row(out + (first + i) * row_size, from[i], row_size);
    }
    if (status == NPK_OK)
        status = fetch_rows(array, &list, false, out, err);
    npk_free(list.items);
    return status;
}

/* ---- comparing ------------------------------------------------------------------------------------------------------------------- */

/* By one thread: 38 MB take 3.2 ms, and 3.0 by two on two cores, which memory holds up. */
npk_status npk_array_compare(npk_array *array, uint64_t first, uint64_t count, const void *bytes, int64_t *rows,
                             uint64_t *changed_count, npk_error *err)
{
    *changed_count = 0;
    npk_status status = npk_array_check_range(array, first, count, err);
    size_t row_size = (size_t)array->info.row_size;
    if (status != NPK_OK || row_size == 0)
        return status;
    uint64_t part_max = npk_max_u64(1, COMPARE_SIZE / row_size);
    char *buffer = NULL;
    uint64_t over = npk_array_find_overlay(array, first), p = npk_array_find_piece(array, first);
    for (uint64_t row = first, part; row < first + count && status == NPK_OK; row += part) {
        while (array->pieces[p].first_row + array->pieces[p].count <= row)
            p++;
        const npk_piece *piece = &array->pieces[p];
        part = npk_min_u64(npk_min_u64(first + count, piece->first_row + piece->count) - row, part_max);
        /* An overlay row, or rows up to the next one. */
        const char *before;
        if (over < array->overlay_count && array->overlay[over].row == row) {
            part = 1;
            before = row_in_memory(array, array->overlay[over].source, array->overlay[over].source_row);
            over++;
        } else {
            if (over < array->overlay_count)
                part = npk_min_u64(part, array->overlay[over].row - row);
            uint64_t mapped, source_row = piece->source_row + (row - piece->first_row);
            before = rows_in_memory(array, piece->source, &mapped);
            before = source_row < mapped && part <= mapped - source_row ? before + source_row * row_size : NULL;
        }
        if (!before) {
            if (!buffer && !(buffer = npk_alloc((size_t)part_max * row_size)))
                status = npk_fail(err, NPK_NO_MEMORY, "could not allocate a buffer for rows");
            else
                status = npk_array_read(array, row, part, buffer, err);
            before = buffer;
        }
        const char *now = (const char *)bytes + (row - first) * row_size;
        if (status != NPK_OK || memcmp(before, now, (size_t)part * row_size) == 0)
            continue;
        for (uint64_t i = 0; i < part; i++)
            if (memcmp(before + i * row_size, now + i * row_size, row_size) != 0)
                rows[(*changed_count)++] = (int64_t)(row + i);
    }
    npk_free(buffer);
    return status;
}
