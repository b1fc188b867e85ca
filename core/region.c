/* region.c - rows as memory, and the list of memory that released loads leave for the next ones.
 *
 * Fresh memory costs as much as the copy into it (the kernel zeroes every page), so large private blocks are kept for a moment. Two
 * loads of one size alternate between two blocks at most: the list holds BLOCK_COUNT_MAX blocks and LIST_SIZE_MAX bytes, the oldest
 * are given up first. A larger block than LIST_SIZE_MAX is never kept. */
#include "region.h"

#include <pthread.h>

#include "alloc.h"
#include "array.h"
#include "bytes.h"
#include "error.h"
#include "gather.h"

#define BLOCK_UNIT (2u * 1024u * 1024u)  /* a huge page */
#define MAP_SIZE_MIN (1024u * 1024u)     /* smaller ones come from the heap, which recycles by itself */
#define PAGE_UNIT 4096u
#define BLOCK_COUNT_MAX 8u
#define LIST_SIZE_MAX ((uint64_t)2 << 30)

typedef enum region_kind {
    REGION_EMPTY,
    REGION_HEAP,   /* npk_alloc */
    REGION_BLOCK,  /* map_memory in whole BLOCK_UNITs; goes to the list */
    REGION_PAGES,  /* map_memory, made read-only */
    REGION_MAPPED  /* a column file */
} region_kind;

struct npk_region {
    const npk_io *io;
    void *address;
    size_t size;
    region_kind kind;
    void *base; /* what is unmapped or freed */
    size_t base_size;
    npk_column *column; /* MAPPED: retained */
};

static _Alignas(64) char empty[64]; /* the address of no bytes */

/* ---- recycled blocks -------------------------------------------------------------------------------------------------- */

typedef struct block {
    const npk_io *io;
    void *base;
    size_t size;
    uint64_t released_us;
} block;

static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the three below; never held in a system call */
static block list[BLOCK_COUNT_MAX];                             /* oldest first */
static size_t list_count;
static uint64_t list_size;

static block list_remove(size_t i)
{
    block removed = list[i];
    list_count--;
    memmove(&list[i], &list[i + 1], (list_count - i) * sizeof list[0]);
    list_size -= removed.size;
    return removed;
}

static void unmap_all(const block *blocks, size_t count)
{
    for (size_t i = 0; i < count; i++)
        blocks[i].io->unmap(blocks[i].io, blocks[i].base, blocks[i].size);
}

/* Take out what has idled long enough. The mutex is held; the caller unmaps after it. */
static size_t take_idle(uint64_t now_us, block out[BLOCK_COUNT_MAX])
{
    size_t count = 0;
    while (list_count && (now_us == UINT64_MAX ||
                          (now_us > list[0].released_us && now_us - list[0].released_us > NPK_REGION_IDLE_US)))
        out[count++] = list_remove(0);
    return count;
}

void npk_region_trim(uint64_t now_us)
{
    block out[BLOCK_COUNT_MAX];
    (void)pthread_mutex_lock(&list_mutex);
    size_t count = take_idle(now_us, out);
    (void)pthread_mutex_unlock(&list_mutex);
    unmap_all(out, count);
}

void npk_region_idle(uint64_t *block_count, uint64_t *size)
{
    (void)pthread_mutex_lock(&list_mutex);
    *block_count = list_count;
    *size = list_size;
    (void)pthread_mutex_unlock(&list_mutex);
}

/* Memory in whole units: the smallest block that fits and wastes at most a quarter, else fresh memory. */
static int block_get(const npk_io *io, size_t wanted, void **base, size_t *size)
{
    block out[BLOCK_COUNT_MAX];
    uint64_t now_us = io->monotonic_us(io);
    (void)pthread_mutex_lock(&list_mutex);
    size_t best = list_count;
    for (size_t i = 0; i < list_count; i++)
        if (list[i].io == io && list[i].size >= wanted && list[i].size - wanted <= wanted / 4 &&
            (best == list_count || list[i].size <= list[best].size))
            best = i;
    bool found = best < list_count;
    if (found) {
        block b = list_remove(best);
        *base = b.base;
        *size = b.size;
    }
    size_t count = take_idle(now_us, out);
    (void)pthread_mutex_unlock(&list_mutex);
    unmap_all(out, count);
    if (found)
        return 0;
    *size = wanted;
    return io->map_memory(io, wanted, base);
}

static void block_put(const npk_io *io, void *base, size_t size)
{
    block out[BLOCK_COUNT_MAX];
    size_t count = 0;
    block b = {io, base, size, io->monotonic_us(io)};
    if (size > LIST_SIZE_MAX) {
        unmap_all(&b, 1);
        return;
    }
    (void)pthread_mutex_lock(&list_mutex);
    count = take_idle(b.released_us, out);
    while (list_count && (list_count == BLOCK_COUNT_MAX || list_size + size > LIST_SIZE_MAX))
        out[count++] = list_remove(0);
    list[list_count++] = b;
    list_size += size;
    (void)pthread_mutex_unlock(&list_mutex);
    unmap_all(out, count);
}

/* ---- regions ------------------------------------------------------------------------------------------------------------ */

void *npk_region_address(const npk_region *region)
{
    return region->address;
}

size_t npk_region_size(const npk_region *region)
{
    return region->size;
}

int npk_region_is_mapped(const npk_region *region)
{
    return region->kind == REGION_MAPPED;
}

void npk_region_release(npk_region *region)
{
    if (!region)
        return;
    switch (region->kind) {
    case REGION_EMPTY: break;
    case REGION_HEAP: npk_free(region->base); break;
    case REGION_BLOCK: block_put(region->io, region->base, region->base_size); break;
    case REGION_PAGES:
    case REGION_MAPPED: region->io->unmap(region->io, region->base, region->base_size); break;
    }
    npk_column_release(region->column);
    npk_free(region);
}

/* Memory for size > 0 bytes. pages: in pages of its own, to be made read-only. */
static npk_status get_memory(npk_region *region, bool pages, npk_error *err)
{
    size_t unit = pages ? PAGE_UNIT : BLOCK_UNIT;
    int rc = 0;
    if (region->size > SIZE_MAX - unit) {
        return npk_fail(err, NPK_NO_MEMORY, "could not allocate %zu bytes", region->size);
    } else if (pages || region->size >= MAP_SIZE_MIN) {
        region->base_size = (size_t)npk_align_up(region->size, unit);
        rc = pages ? region->io->map_memory(region->io, region->base_size, &region->base)
                   : block_get(region->io, region->base_size, &region->base, &region->base_size);
        if (rc)
            return npk_fail_errno(err, rc, "could not allocate %zu bytes", region->size);
        region->kind = pages ? REGION_PAGES : REGION_BLOCK;
    } else {
        region->base = npk_alloc(region->size);
        if (!region->base)
            return npk_fail(err, NPK_NO_MEMORY, "could not allocate %zu bytes", region->size);
        region->kind = REGION_HEAP;
    }
    region->address = region->base;
    return NPK_OK;
}

/* An empty region for count rows, to be given memory. */
static npk_status region_create(npk_array *array, uint64_t first, uint64_t count, npk_region **region, npk_error *err)
{
    npk_status status = npk_array_check_range(array, first, count, err);
    if (status != NPK_OK)
        return status;
    npk_region *created = npk_calloc(1, sizeof *created);
    if (!created) {
        status = npk_fail(err, NPK_NO_MEMORY, "could not allocate a region of array \"%s\"", array->info.name);
        npk_error_set_array(err, array->info.name);
        return status;
    }
    created->io = array->io;
    created->size = (size_t)(count * array->info.row_size); /* row_count * row_size was checked */
    created->address = empty;
    created->kind = REGION_EMPTY;
    *region = created;
    return NPK_OK;
}

static npk_status fill(npk_region *region, npk_array *array, uint64_t first, uint64_t count, bool read_only, npk_error *err)
{
    npk_status status = get_memory(region, read_only, err);
    if (status == NPK_OK)
        status = npk_array_read(array, first, count, region->address, err);
    if (status == NPK_OK && read_only) {
        int rc = region->io->protect_read(region->io, region->base, region->base_size);
        if (rc)
            status = npk_fail_errno(err, rc, "could not make memory read-only");
    }
    if (status != NPK_OK)
        npk_error_set_array(err, array->info.name);
    return status;
}

/* Zero-copy, where the rows are one stretch of a column file, with overlay rows in private pages of it. False: they are not, there are
 * too many of those, or the file system cannot map. */
static bool map_rows(npk_region *region, npk_array *array, uint64_t first, uint64_t count, npk_map_mode mode)
{
    bool patch = false;
    if (!npk_array_is_mappable(array, first, count, &patch))
        return false;
    const npk_piece *piece = &array->pieces[npk_array_find_piece(array, first)];
    npk_column *column = array->sources[piece->source].column;
    uint64_t file_row = array->sources[piece->source].place.row + piece->source_row + (first - piece->first_row);
    void *base = NULL, *address = NULL;
    size_t base_size = 0;
    if (npk_column_map(column, file_row, count, mode == NPK_MAP_READ && !patch ? NPK_MAPPING_READ : NPK_MAPPING_PRIVATE, &base,
                       &base_size, &address, NULL) != NPK_OK)
        return false;
    if (patch && (npk_array_put_overlay(array, first, count, address, NULL) != NPK_OK ||
                  (mode == NPK_MAP_READ && region->io->protect_read(region->io, base, base_size) != 0))) {
        region->io->unmap(region->io, base, base_size);
        return false; /* the copy meets the same error, and says so */
    }
    region->base = base;
    region->base_size = base_size;
    region->address = address;
    region->kind = REGION_MAPPED;
    region->column = npk_column_retain(column);
    return true;
}

npk_status npk_array_map(npk_array *array, uint64_t first, uint64_t count, npk_map_mode mode, npk_region **region,
                         npk_error *err)
{
    if (mode != NPK_MAP_READ && mode != NPK_MAP_COPY_ON_WRITE)
        return npk_fail(err, NPK_INVALID, "there is no map mode %d", (int)mode);
    npk_region *created = NULL;
    npk_status status = region_create(array, first, count, &created, err);
    if (status != NPK_OK)
        return status;
    if (created->size && !map_rows(created, array, first, count, mode))
        status = fill(created, array, first, count, mode == NPK_MAP_READ, err);
    if (status == NPK_OK)
        *region = created;
    else
        npk_region_release(created);
    return status;
}

npk_status npk_array_load(npk_array *array, npk_region **region, npk_error *err)
{
    npk_region *created = NULL;
    npk_status status = region_create(array, 0, array->info.row_count, &created, err);
    if (status == NPK_OK && created->size)
        status = fill(created, array, 0, array->info.row_count, false, err);
    if (status == NPK_OK)
        *region = created;
    else
        npk_region_release(created);
    return status;
}
