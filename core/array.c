/* array.c - building an array from the index: map runs over runs give pieces, packed sets over them give overlay rows.
 *
 * Everything is read from the view first and worked on afterwards, in ascending slot order, which is ascending row order too. */
#include "array.h"

#include <stdatomic.h>

#include "alloc.h"
#include "bytes.h"
#include "error.h"
#include "gather.h"

/* ---- what is read from the view ------------------------------------------------------------------------------------ */

typedef struct build {
    npk_kv *kv;
    const npk_array_sources *from;
    npk_array *array;
    uint64_t id;
    npk_buffer map;        /* npk_map_run[], in row and slot order */
    npk_buffer runs;       /* npk_run[], in slot order */
    npk_buffer sets;       /* set_entry[], by block, then LSN */
    npk_buffer set_slots;  /* their slot numbers */
    uint64_t mapped_rows, last_slot_end;
    npk_buffer pieces, overlay, sources; /* become the array's */
    uint32_t *table;       /* open hash of sources: index + 1 */
    size_t table_size;     /* a power of two */
    bool missing;
} build;

typedef struct set_entry {
    uint64_t block, lsn;
    npk_place place;
    uint32_t count;
    size_t slots_offset; /* in set_slots */
} set_entry;

static npk_status no_memory(const build *b, npk_error *err)
{
    return npk_fail(err, NPK_NO_MEMORY, "could not allocate the places of array \"%s\"", b->array->record.name);
}

static npk_status visit_map(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size,
                            bool *stop, npk_error *err)
{
    build *b = context;
    (void)stop;
    npk_map_run run;
    if (!npk_map_run_decode(key, key_size, value, value_size, &run))
        return npk_catalog_fail(err, NPK_TABLE_MAP);
    if (run.first_row != b->mapped_rows || run.first_slot < b->last_slot_end)
        return npk_fail(err, NPK_CORRUPT, "the map of array \"%s\" is not in order at row %llu", b->array->record.name,
                        (unsigned long long)run.first_row);
    b->mapped_rows += run.count;
    b->last_slot_end = run.first_slot + run.count;
    npk_buffer_put(&b->map, &run, sizeof run);
    return b->map.failed ? no_memory(b, err) : NPK_OK;
}

static npk_status visit_run(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size,
                            bool *stop, npk_error *err)
{
    build *b = context;
    (void)stop;
    npk_run run;
    if (!npk_run_decode(key, key_size, value, value_size, &run))
        return npk_catalog_fail(err, NPK_TABLE_ROWS);
    npk_buffer_put(&b->runs, &run, sizeof run);
    return b->runs.failed ? no_memory(b, err) : NPK_OK;
}

static npk_status visit_set(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size,
                            bool *stop, npk_error *err)
{
    build *b = context;
    (void)stop;
    npk_set set;
    if (!npk_set_decode(key, key_size, value, value_size, &set))
        return npk_catalog_fail(err, NPK_TABLE_ROWS);
    set_entry entry = {set.block, set.lsn, set.place, set.count, b->set_slots.size};
    npk_buffer_put(&b->set_slots, set.slots, 2 * (size_t)set.count);
    npk_buffer_put(&b->sets, &entry, sizeof entry);
    return b->sets.failed || b->set_slots.failed ? no_memory(b, err) : NPK_OK;
}

static npk_status collect(build *b, npk_error *err)
{
    uint8_t key[NPK_KEY_MAX];
    size_t size = npk_key_u64(key, b->id);
    npk_status status = npk_kv_scan(b->kv, NPK_TABLE_MAP, key, size, NULL, 0, visit_map, b, err);
    if (status == NPK_OK && b->mapped_rows != b->array->record.row_count)
        status = npk_fail(err, NPK_CORRUPT, "the map of array \"%s\" has %llu rows instead of %llu", b->array->record.name,
                          (unsigned long long)b->mapped_rows, (unsigned long long)b->array->record.row_count);
    size = npk_key_rows_prefix(key, b->id, 0);
    if (status == NPK_OK)
        status = npk_kv_scan(b->kv, NPK_TABLE_ROWS, key, size, NULL, 0, visit_run, b, err);
    size = npk_key_rows_prefix(key, b->id, 1);
    if (status == NPK_OK)
        status = npk_kv_scan(b->kv, NPK_TABLE_ROWS, key, size, NULL, 0, visit_set, b, err);
    return status;
}

/* ---- sources -------------------------------------------------------------------------------------------------------- */

static size_t hash_place(const npk_place *place)
{
    uint64_t h = place->container * 0x9e3779b97f4a7c15u;
    h = (h ^ place->record_offset) * 0xbf58476d1ce4e5b9u;
    h = (h ^ place->kind ^ place->row) * 0x94d049bb133111ebu;
    return (size_t)(h ^ h >> 31);
}

static bool same_source(const npk_place *a, const npk_place *b)
{
    return a->kind == b->kind && a->container == b->container && a->record_offset == b->record_offset && a->row == b->row;
}

static void table_add(build *b, const npk_row_source *sources, uint32_t index)
{
    size_t at = hash_place(&sources[index].place) & (b->table_size - 1);
    while (b->table[at])
        at = (at + 1) & (b->table_size - 1);
    b->table[at] = index + 1;
}

static bool table_grow(build *b, uint32_t count)
{
    size_t size = b->table_size ? b->table_size * 2 : 64;
    uint32_t *table = npk_calloc(size, sizeof *table);
    if (!table)
        return false;
    npk_free(b->table);
    b->table = table;
    b->table_size = size;
    for (uint32_t i = 0; i < count; i++)
        table_add(b, (const npk_row_source *)(void *)b->sources.data, i);
    return true;
}

static npk_status open_column(build *b, npk_row_source *source, npk_error *err)
{
    uint64_t id = source->place.container;
    if (b->from->unfinished) {
        source->column = b->from->unfinished(b->from->context, id);
        if (source->column)
            return NPK_OK;
    }
    npk_container container;
    bool found = false;
    npk_status status = npk_catalog_get_container(b->kv, NPK_CONTAINER_COLUMN, id, &container, &found, err);
    if (status != NPK_OK)
        return status;
    if (!found || container.row_size != b->array->record.row_size)
        return npk_fail(err, NPK_CORRUPT, found ? "file \"columns/%016llx.npy\" has rows of another size"
                                                : "the index does not know file \"columns/%016llx.npy\"",
                        (unsigned long long)id);
    status = npk_columns_get(b->from->columns, id, container.size, container.row_count, container.row_size,
                             container.data_offset, &source->column, err);
    if (status == NPK_NOT_FOUND)
        b->missing = true;
    return status;
}

static npk_status open_segment(build *b, npk_row_source *source, const npk_row_source *sources, uint32_t count,
                               npk_error *err)
{
    /* Neighbours mostly lie in the same segment. */
    if (count && sources[count - 1].segment && sources[count - 1].place.container == source->place.container) {
        source->segment = npk_segment_retain(sources[count - 1].segment);
        return NPK_OK;
    }
    npk_status status = npk_wal_segment(b->from->wal, source->place.container, &source->segment, err);
    if (status == NPK_NOT_FOUND || status == NPK_CORRUPT)
        b->missing = true;
    return status;
}

/* The source for rows of place; opens it when it is new. base: its place.row. */
static npk_status get_source(build *b, const npk_place *place, uint64_t base, uint32_t *index, npk_error *err)
{
    npk_row_source source = {.place = *place};
    source.place.row = base;
    npk_row_source *sources = (npk_row_source *)(void *)b->sources.data;
    uint32_t count = (uint32_t)(b->sources.size / sizeof source);
    if (count && same_source(&sources[count - 1].place, &source.place)) {
        *index = count - 1;
        return NPK_OK;
    }
    if (b->table_size) {
        size_t at = hash_place(&source.place) & (b->table_size - 1);
        for (; b->table[at]; at = (at + 1) & (b->table_size - 1))
            if (same_source(&sources[b->table[at] - 1].place, &source.place)) {
                *index = b->table[at] - 1;
                return NPK_OK;
            }
    }
    if (count == UINT32_MAX - 1)
        return npk_fail(err, NPK_CORRUPT, "array \"%s\" has too many places", b->array->record.name);
    /* Room first: what is open is never lost. */
    if (!npk_buffer_reserve(&b->sources, sizeof source) ||
        ((size_t)count * 2 >= b->table_size && !table_grow(b, count)))
        return no_memory(b, err);
    sources = (npk_row_source *)(void *)b->sources.data;
    npk_status status = NPK_OK;
    if (!b->from->only_places)
        status = place->kind == NPK_PLACE_COLUMN ? open_column(b, &source, err) : open_segment(b, &source, sources, count, err);
    if (status != NPK_OK)
        return status;
    npk_buffer_put(&b->sources, &source, sizeof source);
    table_add(b, (const npk_row_source *)(void *)b->sources.data, count);
    *index = count;
    return NPK_OK;
}

/* Do rows first .. + count of the source's data have addresses at all, and exist in a column file? Then they count as used. */
static npk_status check_rows(build *b, const npk_place *place, uint32_t source, uint64_t first, uint64_t count,
                             npk_error *err)
{
    npk_row_source *sources = (npk_row_source *)(void *)b->sources.data;
    uint64_t end, size, offset;
    bool fits = !npk_add_overflow(first, count, &end) && !npk_mul_overflow(end, b->array->record.row_size, &size) &&
                !npk_add_overflow(size, place->record_offset, &offset) &&
                !npk_add_overflow(offset, place->data_delta, &offset) && offset <= INT64_MAX &&
                (!sources[source].column || end <= npk_column_row_count(sources[source].column));
    if (fits)
        sources[source].end_row = npk_max_u64(sources[source].end_row, end);
    return fits ? NPK_OK
                : npk_fail(err, NPK_CORRUPT, "they would lie behind the end of %s %llx",
                           place->kind == NPK_PLACE_COLUMN ? "column file" : "log segment", (unsigned long long)place->container);
}

/* ---- pieces ---------------------------------------------------------------------------------------------------------- */

static npk_status no_place(const build *b, uint64_t row, npk_error *err)
{
    npk_status status = npk_fail(err, NPK_CORRUPT, "row %llu of array \"%s\" has no place", (unsigned long long)row,
                                 b->array->record.name);
    if (err)
        err->row = (int64_t)row;
    return status;
}

/* Where rows first .. + count would lie cannot be opened or cannot be. */
static npk_status name_rows(const build *b, npk_status status, uint64_t first, uint64_t count, npk_error *err)
{
    if (err)
        err->row = (int64_t)first;
    if (count == 1)
        return npk_context(err, status, "row %llu of array \"%s\"", (unsigned long long)first, b->array->record.name);
    return npk_context(err, status, "rows %llu .. %llu of array \"%s\"", (unsigned long long)first, (unsigned long long)(first + count),
                       b->array->record.name);
}

/* Rows whose place is not known any more (salvage): in segment 0, which no log has. */
static npk_status add_nowhere(build *b, uint64_t row, uint64_t count, uint64_t slot, npk_error *err)
{
    const npk_place nowhere = {.kind = NPK_PLACE_SEGMENT};
    npk_piece piece = {.first_row = row, .count = count, .first_slot = slot};
    npk_status status = get_source(b, &nowhere, 0, &piece.source, err);
    if (status != NPK_OK)
        return status;
    npk_buffer_put(&b->pieces, &piece, sizeof piece);
    return b->pieces.failed ? no_memory(b, err) : NPK_OK;
}

/* Walk map runs and runs side by side. */
static npk_status make_pieces(build *b, npk_error *err)
{
    const npk_map_run *map = (const npk_map_run *)(const void *)b->map.data;
    size_t map_count = b->map.size / sizeof *map;
    const npk_run *runs = (const npk_run *)(const void *)b->runs.data;
    size_t run_count = b->runs.size / sizeof *runs, r = 0;
    uint64_t run_end = 0; /* of the run before: runs do not overlap */
    for (size_t i = 0; i < run_count; i++) {
        if (runs[i].first_slot < run_end)
            return npk_fail(err, NPK_CORRUPT, "places of array \"%s\" overlap at slot %llu", b->array->record.name,
                            (unsigned long long)runs[i].first_slot);
        run_end = runs[i].first_slot + runs[i].count;
    }
    for (size_t m = 0; m < map_count; m++) {
        uint64_t slot = map[m].first_slot, end = slot + map[m].count;
        while (slot < end) {
            while (r < run_count && runs[r].first_slot + runs[r].count <= slot)
                r++;
            uint64_t row = map[m].first_row + (slot - map[m].first_slot);
            if (r == run_count || runs[r].first_slot > slot) {
                if (!b->from->only_places)
                    return no_place(b, row, err);
                uint64_t count = npk_min_u64(end, r == run_count ? end : runs[r].first_slot) - slot;
                npk_status status = add_nowhere(b, row, count, slot, err);
                if (status != NPK_OK)
                    return status;
                slot += count;
                continue;
            }
            uint64_t skipped = slot - runs[r].first_slot;
            npk_piece piece = {.first_row = row, .count = npk_min_u64(end - slot, runs[r].count - skipped),
                               .lsn = runs[r].lsn, .first_slot = slot, .source_row = runs[r].place.row + skipped};
            npk_status status = get_source(b, &runs[r].place, 0, &piece.source, err);
            if (status == NPK_OK)
                status = check_rows(b, &runs[r].place, piece.source, piece.source_row, piece.count, err);
            if (status != NPK_OK)
                return name_rows(b, status, piece.first_row, piece.count, err);
            npk_buffer_put(&b->pieces, &piece, sizeof piece);
            if (b->pieces.failed)
                return no_memory(b, err);
            slot += piece.count;
        }
    }
    return NPK_OK;
}

/* After the LSNs of single pieces are no longer needed. */
static void merge_pieces(build *b)
{
    npk_piece *pieces = (npk_piece *)(void *)b->pieces.data;
    size_t count = b->pieces.size / sizeof *pieces, kept = 0;
    for (size_t i = 0; i < count; i++) {
        npk_piece *last = kept ? &pieces[kept - 1] : NULL;
        if (last && last->source == pieces[i].source && last->source_row + last->count == pieces[i].source_row) {
            last->count += pieces[i].count;
            last->lsn = npk_max_u64(last->lsn, pieces[i].lsn);
        } else {
            pieces[kept++] = pieces[i];
        }
    }
    b->pieces.size = kept * sizeof *pieces;
}

/* ---- overlay rows ------------------------------------------------------------------------------------------------------ */

/* The newest set of each slot in one block. Left over from block to block: a bit says what is of this one. */
typedef struct block_winners {
    uint64_t bits[NPK_SET_BLOCK / 64];
    uint32_t set[NPK_SET_BLOCK];
    uint32_t index[NPK_SET_BLOCK]; /* of the slot in its set */
} block_winners;

typedef struct overlay_walk { /* where the ascending slots have got to */
    size_t map_run, piece;
} overlay_walk;

/* Add the row of slot, unless it is dead or its run is newer. */
static npk_status add_overlay_row(build *b, overlay_walk *walk, uint64_t slot, const set_entry *set, uint32_t index,
                                  npk_error *err)
{
    const npk_map_run *map = (const npk_map_run *)(const void *)b->map.data;
    size_t map_count = b->map.size / sizeof *map;
    while (walk->map_run < map_count && map[walk->map_run].first_slot + map[walk->map_run].count <= slot)
        walk->map_run++;
    if (walk->map_run == map_count || map[walk->map_run].first_slot > slot)
        return NPK_OK; /* dead */
    npk_overlay_row over = {.row = map[walk->map_run].first_row + (slot - map[walk->map_run].first_slot)};
    const npk_piece *pieces = (const npk_piece *)(const void *)b->pieces.data;
    while (pieces[walk->piece].first_row + pieces[walk->piece].count <= over.row)
        walk->piece++; /* pieces cover all rows */
    if (set->lsn <= pieces[walk->piece].lsn)
        return NPK_OK; /* a fold took the row with it */
    uint64_t source_row = set->place.row + index;
    over.source_row = (uint32_t)source_row;
    npk_status status = get_source(b, &set->place, source_row & ~(uint64_t)UINT32_MAX, &over.source, err);
    if (status == NPK_OK)
        status = check_rows(b, &set->place, over.source, source_row, 1, err);
    if (status != NPK_OK)
        return name_rows(b, status, over.row, 1, err);
    npk_buffer_put(&b->overlay, &over, sizeof over);
    return b->overlay.failed ? no_memory(b, err) : NPK_OK;
}

static npk_status make_overlay(build *b, npk_error *err)
{
    const set_entry *sets = (const set_entry *)(const void *)b->sets.data;
    size_t set_count = b->sets.size / sizeof *sets;
    if (set_count == 0 || b->array->record.row_count == 0)
        return NPK_OK;
    block_winners *winners = npk_alloc(sizeof *winners);
    if (!winners)
        return no_memory(b, err);
    npk_status status = NPK_OK;
    overlay_walk walk = {0, 0};
    for (size_t first = 0, end; first < set_count && status == NPK_OK; first = end) {
        memset(winners->bits, 0, sizeof winners->bits);
        for (end = first; end < set_count && sets[end].block == sets[first].block; end++) { /* ascending LSN */
            const uint8_t *slots = b->set_slots.data + sets[end].slots_offset;
            for (uint32_t i = 0; i < sets[end].count; i++) {
                uint16_t slot = npk_get_u16(slots + 2 * (size_t)i);
                winners->bits[slot / 64] |= (uint64_t)1 << slot % 64;
                winners->set[slot] = (uint32_t)end;
                winners->index[slot] = i;
            }
        }
        for (uint32_t word = 0; word < NPK_SET_BLOCK / 64 && status == NPK_OK; word++)
            for (uint64_t bits = winners->bits[word]; bits && status == NPK_OK; bits &= bits - 1) {
                uint32_t slot = word * 64 + (uint32_t)__builtin_ctzll(bits);
                status = add_overlay_row(b, &walk, sets[first].block * NPK_SET_BLOCK + slot, &sets[winners->set[slot]],
                                         winners->index[slot], err);
            }
    }
    npk_free(winners);
    return status;
}

/* ---- the array ----------------------------------------------------------------------------------------------------------- */

static void describe(npk_array *array, uint64_t id)
{
    const npk_array_record *record = &array->record;
    uint64_t pending = 0;
    for (uint64_t i = 0; i < array->piece_count; i++)
        if (npk_place_is_pending(&array->sources[array->pieces[i].source].place))
            pending += array->pieces[i].count;
    uint64_t piece = 0;
    for (uint64_t i = 0; i < array->overlay_count; i++) {
        while (array->pieces[piece].first_row + array->pieces[piece].count <= array->overlay[i].row)
            piece++;
        bool was_pending = npk_place_is_pending(&array->sources[array->pieces[piece].source].place);
        bool is_pending = npk_place_is_pending(&array->sources[array->overlay[i].source].place);
        pending = pending - was_pending + is_pending;
    }
    npk_array_info info = {
        .name = record->name, .descr = record->descr, .id = id, .row_count = record->row_count,
        .row_size = record->row_size, .ndim = record->ndim, .shape = record->shape, .zero_dim = record->zero_dim,
        .created_us = record->created_us, .modified_us = record->modified_us, .change_lsn = record->change_lsn,
        .pending_row_count = pending, .pending_size = pending * record->row_size,
        .piece_count = array->piece_count,
    };
    array->info = info;
    bool patch;
    if (array->overlay_count && !npk_array_is_mappable(array, 0, info.row_count, &patch))
        array->info.piece_count += array->overlay_count;
}

/* Hand what was collected over to the array, also when the build failed: its release then closes the sources. */
static void take_results(build *b)
{
    npk_array *array = b->array;
    array->pieces = (npk_piece *)(void *)b->pieces.data;
    array->piece_count = b->pieces.size / sizeof(npk_piece);
    array->overlay = (npk_overlay_row *)(void *)b->overlay.data;
    array->overlay_count = b->overlay.size / sizeof(npk_overlay_row);
    array->sources = (npk_row_source *)(void *)b->sources.data;
    array->source_count = (uint32_t)(b->sources.size / sizeof(npk_row_source));
}

npk_status npk_array_build(npk_kv *kv, const char *name, const npk_array_sources *sources, npk_array **out, bool *missing,
                           npk_error *err)
{
    npk_status status;
    build b = {.kv = kv, .from = sources};
    *missing = false;
    npk_array *array = npk_calloc(1, sizeof *array);
    if (!array)
        return npk_fail(err, NPK_NO_MEMORY, "could not allocate array \"%s\"", name);
    b.array = array;
    atomic_init(&array->overlay_bits, NULL);
    atomic_init(&array->gathered_count, 0);
    atomic_init(&array->references, 1);
    array->io = sources->io;
    npk_buffer_init(&array->attrs);
    bool found = false;
    status = npk_catalog_find_array(kv, name, &b.id, &found, err);
    if (status == NPK_OK && !found)
        status = npk_fail(err, NPK_NOT_FOUND, "there is no array \"%s\"", name);
    if (status != NPK_OK)
        goto done;
    status = npk_catalog_get_array(kv, b.id, &array->record, &found, err);
    if (status == NPK_OK && !found)
        status = npk_fail(err, NPK_CORRUPT, "the index has the name of array \"%s\" but not the array", name);
    if (status != NPK_OK)
        goto done;
    npk_store_state state;
    status = npk_catalog_get_state(kv, &state, &found, err);
    if (status == NPK_OK)
        status = npk_catalog_copy_attrs(kv, b.id, &array->attrs, err);
    if (status != NPK_OK)
        goto done;
    if (found)
        array->position = (npk_position){state.end.epoch, state.end.lsn};
    uint64_t size;
    if (npk_mul_overflow(array->record.row_count, array->record.row_size, &size) || size > INT64_MAX ||
        array->record.row_count > INT64_MAX || (array->record.zero_dim && array->record.row_count != 1)) {
        status = npk_fail(err, NPK_CORRUPT, "array \"%s\" cannot have %llu rows of %llu bytes", name,
                          (unsigned long long)array->record.row_count, (unsigned long long)array->record.row_size);
        goto done;
    }
    if (size) {
        status = collect(&b, err);
        if (status == NPK_OK)
            status = make_pieces(&b, err);
        if (status == NPK_OK)
            status = make_overlay(&b, err);
        if (status == NPK_OK)
            merge_pieces(&b);
    }
done:
    take_results(&b);
    npk_free(b.table);
    npk_buffer_release(&b.map);
    npk_buffer_release(&b.runs);
    npk_buffer_release(&b.sets);
    npk_buffer_release(&b.set_slots);
    if (status == NPK_OK) {
        describe(array, b.id);
        *out = array;
    } else {
        npk_error_set_array(err, name);
        *missing = b.missing;
        npk_array_release(array);
    }
    return status;
}

npk_array *npk_array_retain(npk_array *array)
{
    (void)atomic_fetch_add_explicit(&array->references, 1, memory_order_relaxed);
    return array;
}

void npk_array_release(npk_array *array)
{
    if (!array || atomic_fetch_sub_explicit(&array->references, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < array->source_count; i++) {
        npk_array_release_unpacked(array, i);
        npk_segment_release(array->sources[i].segment);
        npk_column_release(array->sources[i].column);
    }
    npk_free(array->sources);
    npk_free(array->pieces);
    npk_free(array->overlay);
    npk_overlay_bits_release(atomic_load(&array->overlay_bits));
    npk_buffer_release(&array->attrs);
    npk_array_record_release(&array->record);
    npk_free(array);
}

const npk_array_info *npk_array_describe(const npk_array *array)
{
    return &array->info;
}
