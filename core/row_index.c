/* row_index.c - changing the tables map, rows and places. */
#include "row_index.h"

#include "alloc.h"
#include "bytes.h"
#include "error.h"

/* ---- places ------------------------------------------------------------------------------------------------------ */

static npk_status count_reference(npk_row_change *change, const npk_place *place, int delta, npk_error *err)
{
    uint8_t kind = npk_place_container_kind(place);
    npk_container container = {0};
    bool found = false;
    npk_status status = npk_catalog_get_container(change->kv, kind, place->container, &container, &found, err);
    if (status != NPK_OK)
        return status;
    if (!found && (kind != NPK_CONTAINER_SEGMENT || delta < 0))
        return npk_fail(err, NPK_CORRUPT, "array %llu refers to file %016llx, which is not known",
                        (unsigned long long)change->array, (unsigned long long)place->container);
    if (delta < 0 && container.reference_count == 0)
        return npk_fail(err, NPK_CORRUPT, "file %016llx has fewer references than users",
                        (unsigned long long)place->container);
    container.reference_count = delta < 0 ? container.reference_count - 1 : container.reference_count + 1;
    container.dead_lsn = container.reference_count ? 0 : change->lsn;
    return npk_catalog_put_container(change->kv, kind, place->container, &container, err);
}

static void count_pending(npk_row_change *change, const npk_place *place, uint64_t count, int sign)
{
    if (npk_place_is_pending(place))
        change->pending_delta += sign * (int64_t)count;
}

/* ---- runs -------------------------------------------------------------------------------------------------------- */

static npk_status write_run(npk_row_change *change, const npk_run *run, npk_error *err)
{
    uint8_t key[NPK_KEY_MAX], value[16 + NPK_PLACE_SIZE];
    size_t key_size = npk_key_run(key, change->array, run->first_slot);
    npk_put_u64(value, run->count);
    npk_put_u64(value + 8, run->lsn);
    npk_place_encode(&run->place, value + 16);
    npk_status status = npk_kv_put(change->kv, NPK_TABLE_ROWS, key, key_size, value, sizeof value, err);
    if (status == NPK_OK)
        status = count_reference(change, &run->place, +1, err);
    if (status == NPK_OK)
        count_pending(change, &run->place, run->count, +1);
    return status;
}

static npk_status remove_run(npk_row_change *change, const npk_run *run, npk_error *err)
{
    uint8_t key[NPK_KEY_MAX];
    size_t key_size = npk_key_run(key, change->array, run->first_slot);
    npk_status status = npk_kv_delete(change->kv, NPK_TABLE_ROWS, key, key_size, err);
    if (status == NPK_OK)
        status = count_reference(change, &run->place, -1, err);
    if (status == NPK_OK)
        count_pending(change, &run->place, run->count, -1);
    return status;
}

/* The part of run that covers slots first .. end. */
static npk_run part_of(const npk_run *run, uint64_t first, uint64_t end)
{
    npk_run part = *run;
    part.first_slot = first;
    part.count = end - first;
    part.place.row += first - run->first_slot;
    return part;
}

struct run_list {
    npk_run *runs;
    size_t count, capacity;
};

static npk_status run_list_add(struct run_list *list, const npk_run *run, npk_error *err)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 8;
        npk_run *runs = npk_realloc(list->runs, capacity * sizeof *runs);
        if (!runs)
            return npk_fail(err, NPK_NO_MEMORY, "could not allocate %zu runs", capacity);
        list->runs = runs;
        list->capacity = capacity;
    }
    list->runs[list->count++] = *run;
    return NPK_OK;
}

struct overlap_search {
    struct run_list *list;
    uint64_t first, end;
};

static npk_status visit_overlap(void *context, const uint8_t *key, size_t key_size, const uint8_t *value,
                                size_t value_size, bool *stop, npk_error *err)
{
    struct overlap_search *search = context;
    npk_run run;
    if (!npk_run_decode(key, key_size, value, value_size, &run))
        return npk_catalog_fail(err, NPK_TABLE_ROWS);
    if (run.first_slot >= search->end) {
        *stop = true;
        return NPK_OK;
    }
    if (run.first_slot + run.count <= search->first)
        return NPK_OK;
    return run_list_add(search->list, &run, err);
}

/* All runs of the array that overlap slots first .. end. */
static npk_status find_overlaps(npk_row_change *change, uint64_t first, uint64_t end, struct run_list *list,
                                npk_error *err)
{
    uint8_t prefix[NPK_KEY_MAX], key[NPK_KEY_MAX];
    size_t prefix_size = npk_key_rows_prefix(prefix, change->array, 0);
    size_t key_size = npk_key_run(key, change->array, first);
    npk_buffer found_key, value;
    npk_buffer_init(&found_key);
    npk_buffer_init(&value);
    bool found = false;
    npk_status status =
        npk_kv_at_or_before(change->kv, NPK_TABLE_ROWS, key, key_size, &found_key, &value, &found, err);
    /* The run that begins at or before first, when it belongs to this array. */
    if (status == NPK_OK && found && found_key.size == key_size && memcmp(found_key.data, prefix, prefix_size) == 0)
        memcpy(key, found_key.data, key_size);
    npk_buffer_release(&found_key);
    npk_buffer_release(&value);
    if (status != NPK_OK)
        return status;
    struct overlap_search search = {list, first, end};
    return npk_kv_scan(change->kv, NPK_TABLE_ROWS, prefix, prefix_size, key, key_size, visit_overlap, &search, err);
}

/* ---- sets -------------------------------------------------------------------------------------------------------- */

static npk_status remove_set(npk_row_change *change, const npk_set *set, npk_error *err)
{
    uint8_t key[NPK_KEY_MAX];
    size_t key_size = npk_key_set(key, change->array, set->block, set->lsn);
    npk_status status = npk_kv_delete(change->kv, NPK_TABLE_ROWS, key, key_size, err);
    if (status == NPK_OK)
        status = count_reference(change, &set->place, -1, err);
    if (status == NPK_OK)
        count_pending(change, &set->place, set->count, -1);
    return status;
}

static uint64_t set_first_slot(const npk_set *set)
{
    return set->block * NPK_SET_BLOCK + npk_get_u16(set->slots);
}

static uint64_t set_last_slot(const npk_set *set)
{
    return set->block * NPK_SET_BLOCK + npk_get_u16(set->slots + 2 * (size_t)(set->count - 1));
}

/* Sets chosen for removal. Their slots are not kept: only what remove_set needs. */
struct set_search {
    npk_set *sets;
    size_t count, capacity;
    uint64_t last_block;
    uint64_t lsn;                              /* sets above it stay */
    bool (*chosen)(const npk_set *set, const void *context);
    const void *context;
};

static npk_status visit_set(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size,
                            bool *stop, npk_error *err)
{
    struct set_search *search = context;
    npk_set set;
    if (!npk_set_decode_place(key, key_size, value, value_size, &set))
        return npk_catalog_fail(err, NPK_TABLE_ROWS);
    if (set.block > search->last_block) {
        *stop = true;
        return NPK_OK;
    }
    /* A block may have hundreds of sets, and a change of it looks at each: most are decided by a slot or two, and only the slots of those that
     * go are looked through. */
    if (set.lsn > search->lsn || !search->chosen(&set, search->context))
        return NPK_OK;
    if (!npk_set_is_sorted(&set))
        return npk_catalog_fail(err, NPK_TABLE_ROWS);
    if (search->count == search->capacity) {
        size_t capacity = search->capacity ? search->capacity * 2 : 8;
        npk_set *sets = npk_realloc(search->sets, capacity * sizeof *sets);
        if (!sets)
            return npk_fail(err, NPK_NO_MEMORY, "could not allocate %zu sets", capacity);
        search->sets = sets;
        search->capacity = capacity;
    }
    set.slots = NULL;
    search->sets[search->count++] = set;
    return NPK_OK;
}

/* Remove the chosen sets of blocks first .. last with LSNs up to lsn; those of the first block below first_lsn are passed over. */
static npk_status remove_sets(npk_row_change *change, uint64_t first_block, uint64_t first_lsn, uint64_t last_block, uint64_t lsn,
                              bool (*chosen)(const npk_set *set, const void *context), const void *context,
                              npk_error *err)
{
    struct set_search search = {NULL, 0, 0, last_block, lsn, chosen, context};
    uint8_t prefix[NPK_KEY_MAX], from[NPK_KEY_MAX];
    size_t prefix_size = npk_key_rows_prefix(prefix, change->array, 1);
    size_t from_size = npk_key_set(from, change->array, first_block, first_lsn);
    npk_status status =
        npk_kv_scan(change->kv, NPK_TABLE_ROWS, prefix, prefix_size, from, from_size, visit_set, &search, err);
    for (size_t i = 0; i < search.count && status == NPK_OK; i++)
        status = remove_set(change, &search.sets[i], err);
    npk_free(search.sets);
    return status;
}

static bool lies_in_run(const npk_set *set, const void *context)
{
    const npk_run *run = context;
    return set_first_slot(set) >= run->first_slot && set_last_slot(set) < run->first_slot + run->count;
}

static bool any_set(const npk_set *set, const void *context)
{
    (void)set;
    (void)context;
    return true;
}

/* The slots of a new set, a bit each. */
struct newer_set {
    uint32_t count;
    uint64_t bits[NPK_SET_BLOCK / 64];
};

static void fill_newer_set(struct newer_set *newer, const npk_set *set)
{
    memset(newer->bits, 0, sizeof newer->bits);
    newer->count = set->count;
    for (uint32_t i = 0; i < set->count; i++) {
        uint16_t slot = npk_get_u16(set->slots + 2 * (size_t)i);
        newer->bits[slot / 64] |= (uint64_t)1 << slot % 64;
    }
}

/* Every slot of set is in the newer set. */
static bool lies_in_set(const npk_set *set, const void *context)
{
    const struct newer_set *newer = context;
    if (set->count > newer->count)
        return false;
    for (uint32_t i = 0; i < set->count; i++) {
        uint16_t slot = npk_get_u16(set->slots + 2 * (size_t)i);
        if (!(newer->bits[slot / 64] >> slot % 64 & 1))
            return false;
    }
    return true;
}

/* Every slot of set has newer bytes in a run, or is no slot of the array any more. */
static bool is_superseded(const npk_set *set, const void *context)
{
    const struct run_list *runs = context;
    size_t at = 0;
    for (uint32_t i = 0; i < set->count; i++) {
        uint64_t slot = set->block * NPK_SET_BLOCK + npk_get_u16(set->slots + 2 * (size_t)i);
        while (at < runs->count && runs->runs[at].first_slot + runs->runs[at].count <= slot)
            at++;
        if (at < runs->count && runs->runs[at].first_slot <= slot && runs->runs[at].lsn < set->lsn)
            return false; /* a live slot (dropped ones are in no run) whose newest bytes may be here */
    }
    return true;
}

/* After a fold: sets that lie over several runs are pointless only when all of these are newer. */
static npk_status remove_superseded(npk_row_change *change, uint64_t first_block, uint64_t last_block, uint64_t lsn,
                                    npk_error *err)
{
    struct run_list runs = {0};
    npk_status status =
        find_overlaps(change, first_block * NPK_SET_BLOCK, (last_block + 1) * NPK_SET_BLOCK, &runs, err);
    if (status == NPK_OK)
        status = remove_sets(change, first_block, 0, last_block, lsn, is_superseded, &runs, err);
    npk_free(runs.runs);
    return status;
}

/* ---- putting ----------------------------------------------------------------------------------------------------- */

/* From which LSN on older sets are compared with new rows, to go when these cover them: as far back in the log as some hundred changes of their
 * size, so that the cost of a change does not grow with what is pending. What stays behind does no harm and goes with the next fold, which is
 * due by the number of entries as well (upkeep.c). 10,000 scattered rows at a time with 700 sets in each block: 0.44 ms instead of 0.96; one row
 * with 3,000 sets in its block: 22 us instead of 100. Part of what the log means: the same on every replay. */
#define COMPARED_CHANGES 256u
#define COMPARED_SIZE_MIN (16u << 10)

static uint64_t compared_from(const npk_row_change *change, const npk_place *place, uint64_t count, uint64_t lsn)
{
    uint64_t distance;
    if (!npk_place_is_pending(place)) /* no fold would come this way again */
        return 0;
    if (npk_mul_overflow(change->row_size, count, &distance) || npk_mul_overflow(distance, COMPARED_CHANGES, &distance))
        return 0;
    distance = npk_max_u64(distance, COMPARED_SIZE_MIN);
    return lsn > distance ? lsn - distance : 0;
}

npk_status npk_row_index_put_run(npk_row_change *change, const npk_run *run, bool fold, npk_error *err)
{
    if (run->count == 0)
        return NPK_OK;
    struct run_list old = {0}, fresh = {0};
    uint64_t end = run->first_slot + run->count;
    npk_status status = find_overlaps(change, run->first_slot, end, &old, err);
    uint64_t at = run->first_slot; /* slots of the new run below this are decided */
    for (size_t i = 0; i < old.count && status == NPK_OK; i++) {
        const npk_run *other = &old.runs[i];
        uint64_t other_end = other->first_slot + other->count;
        uint64_t low = npk_max_u64(other->first_slot, run->first_slot), high = npk_min_u64(other_end, end);
        bool newer_stays = other->lsn > run->lsn;
        if (at < low && !fold) {
            npk_run part = part_of(run, at, low);
            status = run_list_add(&fresh, &part, err);
        }
        if (!newer_stays && status == NPK_OK) {
            npk_run part = part_of(run, low, high);
            status = run_list_add(&fresh, &part, err);
        }
        at = high;
        if (newer_stays || status != NPK_OK)
            continue;
        status = remove_run(change, other, err);
        if (status == NPK_OK && other->first_slot < low) {
            npk_run left = part_of(other, other->first_slot, low);
            status = write_run(change, &left, err);
        }
        if (status == NPK_OK && high < other_end) {
            npk_run right = part_of(other, high, other_end);
            status = write_run(change, &right, err);
        }
    }
    if (at < end && !fold && status == NPK_OK) {
        npk_run part = part_of(run, at, end);
        status = run_list_add(&fresh, &part, err);
    }
    /* Neighbouring parts become one run again: they lie back to back at the place. */
    for (size_t i = 0; i < fresh.count && status == NPK_OK;) {
        npk_run whole = fresh.runs[i++];
        while (i < fresh.count && fresh.runs[i].first_slot == whole.first_slot + whole.count)
            whole.count += fresh.runs[i++].count;
        status = write_run(change, &whole, err);
    }
    uint64_t first_block = run->first_slot / NPK_SET_BLOCK, last_block = (end - 1) / NPK_SET_BLOCK;
    if (status == NPK_OK && fold)
        status = remove_superseded(change, first_block, last_block, run->lsn, err);
    else if (status == NPK_OK)
        status = remove_sets(change, first_block, compared_from(change, &run->place, run->count, run->lsn), last_block, run->lsn, lies_in_run, run, err);
    npk_free(old.runs);
    npk_free(fresh.runs);
    return status;
}

npk_status npk_row_index_put_new_run(npk_row_change *change, const npk_run *run, npk_error *err)
{
    return run->count ? write_run(change, run, err) : NPK_OK;
}

npk_status npk_row_index_put_set(npk_row_change *change, const npk_set *set, bool fold, npk_error *err)
{
    if (set->count == 0)
        return NPK_OK;
    struct newer_set newer;
    if (!fold)
        fill_newer_set(&newer, set);
    npk_status status = remove_sets(change, set->block, fold ? 0 : compared_from(change, &set->place, set->count, set->lsn), set->block, set->lsn,
                                    fold ? any_set : lies_in_set, &newer, err);
    if (status != NPK_OK)
        return status;
    uint8_t key[NPK_KEY_MAX];
    size_t key_size = npk_key_set(key, change->array, set->block, set->lsn);
    npk_buffer value;
    npk_buffer_init(&value);
    uint8_t *place = npk_buffer_grow(&value, NPK_PLACE_SIZE);
    if (place)
        npk_place_encode(&set->place, place);
    npk_buffer_put(&value, set->slots, 2 * (size_t)set->count);
    if (value.failed)
        status = npk_fail(err, NPK_NO_MEMORY, "could not allocate a packed set of %u rows", set->count);
    else
        status = npk_kv_put(change->kv, NPK_TABLE_ROWS, key, key_size, value.data, value.size, err);
    npk_buffer_release(&value);
    if (status == NPK_OK)
        status = count_reference(change, &set->place, +1, err);
    if (status == NPK_OK)
        count_pending(change, &set->place, set->count, +1);
    return status;
}

/* ---- map --------------------------------------------------------------------------------------------------------- */

struct map_list {
    npk_map_run *runs;
    size_t count, capacity;
};

static npk_status map_list_add(struct map_list *list, uint64_t first_row, uint64_t first_slot, uint64_t count,
                               npk_error *err)
{
    if (count == 0)
        return NPK_OK;
    if (list->count) {
        npk_map_run *last = &list->runs[list->count - 1];
        if (last->first_row + last->count == first_row && last->first_slot + last->count == first_slot) {
            last->count += count;
            return NPK_OK;
        }
    }
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 8;
        npk_map_run *runs = npk_realloc(list->runs, capacity * sizeof *runs);
        if (!runs)
            return npk_fail(err, NPK_NO_MEMORY, "could not allocate %zu map runs", capacity);
        list->runs = runs;
        list->capacity = capacity;
    }
    npk_map_run run = {first_row, first_slot, count};
    list->runs[list->count++] = run;
    return NPK_OK;
}

static npk_status visit_map(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size,
                            bool *stop, npk_error *err)
{
    (void)stop;
    npk_map_run run;
    if (!npk_map_run_decode(key, key_size, value, value_size, &run))
        return npk_catalog_fail(err, NPK_TABLE_MAP);
    return map_list_add(context, run.first_row, run.first_slot, run.count, err);
}

npk_status npk_row_index_load_map(npk_kv *kv, uint64_t array, npk_map_run **runs, size_t *count, npk_error *err)
{
    struct map_list list = {0};
    uint8_t prefix[8];
    npk_status status = npk_kv_scan(kv, NPK_TABLE_MAP, prefix, npk_key_u64(prefix, array), NULL, 0, visit_map, &list, err);
    if (status != NPK_OK) {
        npk_free(list.runs);
        return status;
    }
    *runs = list.runs;
    *count = list.count;
    return NPK_OK;
}

static npk_status write_map_run(npk_row_change *change, const npk_map_run *run, npk_error *err)
{
    uint8_t key[16], value[16];
    npk_put_u64(value, run->first_slot);
    npk_put_u64(value + 8, run->count);
    return npk_kv_put(change->kv, NPK_TABLE_MAP, key, npk_key_u64_u64(key, change->array, run->first_row), value,
                      sizeof value, err);
}

npk_status npk_row_index_map_append(npk_row_change *change, uint64_t row_count, uint64_t first_slot, uint64_t count,
                                    npk_error *err)
{
    if (count == 0)
        return NPK_OK;
    npk_map_run run = {row_count, first_slot, count};
    uint8_t key[16];
    npk_buffer found_key, value;
    npk_buffer_init(&found_key);
    npk_buffer_init(&value);
    bool found = false;
    npk_status status = npk_kv_at_or_before(change->kv, NPK_TABLE_MAP, key,
                                            npk_key_u64_u64(key, change->array, UINT64_MAX), &found_key, &value, &found,
                                            err);
    if (status == NPK_OK && found && found_key.size == 16 && npk_get_be64(found_key.data) == change->array) {
        npk_map_run last;
        if (!npk_map_run_decode(found_key.data, found_key.size, value.data, value.size, &last) ||
            last.first_row + last.count != row_count || last.first_slot + last.count > first_slot)
            status = npk_catalog_fail(err, NPK_TABLE_MAP);
        else if (last.first_slot + last.count == first_slot) {
            run = last;
            run.count += count;
        }
    } else if (status == NPK_OK && row_count != 0) {
        status = npk_catalog_fail(err, NPK_TABLE_MAP);
    }
    npk_buffer_release(&found_key);
    npk_buffer_release(&value);
    return status == NPK_OK ? write_map_run(change, &run, err) : status;
}

/* Is this slot still a row? The map is sorted by slot as well. */
static bool is_live(const struct map_list *map, uint64_t slot)
{
    size_t low = 0, high = map->count;
    while (low < high) { /* first run that ends behind the slot */
        size_t middle = low + (high - low) / 2;
        if (map->runs[middle].first_slot + map->runs[middle].count <= slot)
            low = middle + 1;
        else
            high = middle;
    }
    return low < map->count && map->runs[low].first_slot <= slot;
}

static bool is_dead_set(const npk_set *set, const void *context)
{
    for (uint32_t i = 0; i < set->count; i++)
        if (is_live(context, set->block * NPK_SET_BLOCK + npk_get_u16(set->slots + 2 * (size_t)i)))
            return false;
    return true;
}

/* Slots first .. end are no rows any more: runs are cut around them, so that what they alone refer to can go; sets that hold no live slot go. A
 * drop splits no more runs than map runs. */
static npk_status remove_dead(npk_row_change *change, const struct map_list *map, uint64_t first, uint64_t end,
                              npk_error *err)
{
    struct run_list runs = {0};
    npk_status status = find_overlaps(change, first, end, &runs, err);
    for (size_t i = 0; i < runs.count && status == NPK_OK; i++) {
        const npk_run *run = &runs.runs[i];
        uint64_t run_end = run->first_slot + run->count;
        status = remove_run(change, run, err);
        if (status == NPK_OK && run->first_slot < first) {
            npk_run left = part_of(run, run->first_slot, first);
            status = write_run(change, &left, err);
        }
        if (status == NPK_OK && end < run_end) {
            npk_run right = part_of(run, end, run_end);
            status = write_run(change, &right, err);
        }
    }
    npk_free(runs.runs);
    if (status == NPK_OK)
        status = remove_sets(change, first / NPK_SET_BLOCK, 0, (end - 1) / NPK_SET_BLOCK, UINT64_MAX, is_dead_set, map, err);
    return status;
}

/* What is left of one map run when the ranges from *at on are cut out; rows move up by *gone. */
static npk_status cut_map_run(const npk_map_run *run, const uint8_t *ranges, uint32_t range_count, uint32_t *at,
                              uint64_t *gone, struct map_list *kept, struct map_list *dropped, npk_error *err)
{
    uint64_t row = run->first_row, end = run->first_row + run->count;
    npk_status status = NPK_OK;
    while (status == NPK_OK && row < end) {
        uint64_t first = UINT64_MAX, past = UINT64_MAX;
        if (*at < range_count) {
            first = npk_get_u64(ranges + 16 * (size_t)*at);
            past = first + npk_get_u64(ranges + 16 * (size_t)*at + 8);
        }
        uint64_t keep_end = npk_min_u64(end, npk_max_u64(row, first));
        status = map_list_add(kept, row - *gone, run->first_slot + (row - run->first_row), keep_end - row, err);
        row = keep_end;
        if (status != NPK_OK || row == end)
            break;
        uint64_t cut_end = npk_min_u64(end, past); /* row lies in the range */
        status = map_list_add(dropped, 0, run->first_slot + (row - run->first_row), cut_end - row, err);
        *gone += cut_end - row;
        row = cut_end;
        if (row == past)
            (*at)++;
    }
    return status;
}

npk_status npk_row_index_drop_rows(npk_row_change *change, const uint8_t *ranges, uint32_t range_count,
                                   uint64_t *dropped_count, npk_error *err)
{
    uint64_t least = 0; /* ranges ascend and do not touch what is behind the array (the caller checked the array's end) */
    for (uint32_t i = 0; i < range_count; i++) {
        uint64_t first = npk_get_u64(ranges + 16 * (size_t)i), count = npk_get_u64(ranges + 16 * (size_t)i + 8), past;
        if (first < least || count == 0 || npk_add_overflow(first, count, &past))
            return npk_fail(err, NPK_CORRUPT, "the row ranges of a drop are not in order");
        least = past;
    }
    struct map_list old = {0}, kept = {0}, dropped = {0};
    npk_status status = npk_row_index_load_map(change->kv, change->array, &old.runs, &old.count, err);
    uint64_t gone = 0;
    uint32_t at = 0;
    for (size_t i = 0; i < old.count && status == NPK_OK; i++)
        status = cut_map_run(&old.runs[i], ranges, range_count, &at, &gone, &kept, &dropped, err);
    if (status == NPK_OK && at < range_count)
        status = npk_fail(err, NPK_CORRUPT, "a drop names rows behind the end of array %llu",
                          (unsigned long long)change->array);
    /* Write only what differs: a shared front part of the list stays. */
    size_t same = 0;
    while (status == NPK_OK && same < old.count && same < kept.count &&
           memcmp(&old.runs[same], &kept.runs[same], sizeof old.runs[same]) == 0)
        same++;
    for (size_t i = same; i < old.count && status == NPK_OK; i++) {
        uint8_t key[16];
        status = npk_kv_delete(change->kv, NPK_TABLE_MAP, key, npk_key_u64_u64(key, change->array, old.runs[i].first_row),
                               err);
    }
    for (size_t i = same; i < kept.count && status == NPK_OK; i++)
        status = write_map_run(change, &kept.runs[i], err);
    for (size_t i = 0; i < dropped.count && status == NPK_OK; i++)
        status = remove_dead(change, &kept, dropped.runs[i].first_slot,
                             dropped.runs[i].first_slot + dropped.runs[i].count, err);
    *dropped_count = gone;
    npk_free(old.runs);
    npk_free(kept.runs);
    npk_free(dropped.runs);
    return status;
}

/* ---- whole arrays ------------------------------------------------------------------------------------------------- */

struct entry_list {
    npk_buffer keys; /* keys back to back: u16 size, bytes */
    npk_buffer values; /* u32 size, bytes */
};

static npk_status visit_entry(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size,
                              bool *stop, npk_error *err)
{
    (void)stop;
    struct entry_list *list = context;
    npk_buffer_put_u16(&list->keys, (uint16_t)key_size);
    npk_buffer_put(&list->keys, key, key_size);
    npk_buffer_put_u32(&list->values, (uint32_t)value_size);
    npk_buffer_put(&list->values, value, value_size);
    if (list->keys.failed || list->values.failed)
        return npk_fail(err, NPK_NO_MEMORY, "could not copy the row index of an array");
    return NPK_OK;
}

/* Copies of all entries of the array in a table, so that they can be changed while walking. */
static npk_status copy_entries(npk_kv *kv, npk_table table, uint64_t array, struct entry_list *list, npk_error *err)
{
    npk_buffer_clear(&list->keys);
    npk_buffer_clear(&list->values);
    uint8_t prefix[8];
    return npk_kv_scan(kv, table, prefix, npk_key_u64(prefix, array), NULL, 0, visit_entry, list, err);
}

static bool next_entry(npk_cursor *keys, npk_cursor *values, const uint8_t **key, size_t *key_size,
                       const uint8_t **value, size_t *value_size)
{
    if (npk_cursor_left(keys) == 0)
        return false;
    *key_size = npk_cursor_u16(keys);
    *key = npk_cursor_take(keys, *key_size);
    *value_size = npk_cursor_u32(values);
    *value = npk_cursor_take(values, *value_size);
    return *key && *value;
}

/* The place and row count of an entry of rows, run or set. */
static bool entry_place(const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size, npk_place *place,
                        uint64_t *count)
{
    npk_run run;
    npk_set set;
    if (npk_run_decode(key, key_size, value, value_size, &run)) {
        *place = run.place;
        *count = run.count;
        return true;
    }
    if (npk_set_decode(key, key_size, value, value_size, &set)) {
        *place = set.place;
        *count = set.count;
        return true;
    }
    return false;
}

npk_status npk_row_index_drop_array(npk_row_change *change, npk_error *err)
{
    struct entry_list list;
    npk_buffer_init(&list.keys);
    npk_buffer_init(&list.values);
    npk_status status = copy_entries(change->kv, NPK_TABLE_ROWS, change->array, &list, err);
    npk_cursor keys = npk_cursor_over(list.keys.data, list.keys.size);
    npk_cursor values = npk_cursor_over(list.values.data, list.values.size);
    const uint8_t *key, *value;
    size_t key_size, value_size;
    while (status == NPK_OK && next_entry(&keys, &values, &key, &key_size, &value, &value_size)) {
        npk_place place;
        uint64_t count;
        if (!entry_place(key, key_size, value, value_size, &place, &count)) {
            status = npk_catalog_fail(err, NPK_TABLE_ROWS);
            break;
        }
        status = count_reference(change, &place, -1, err);
        count_pending(change, &place, count, -1);
    }
    uint8_t prefix[8];
    size_t prefix_size = npk_key_u64(prefix, change->array);
    if (status == NPK_OK)
        status = npk_kv_delete_prefix(change->kv, NPK_TABLE_ROWS, prefix, prefix_size, err);
    if (status == NPK_OK)
        status = npk_kv_delete_prefix(change->kv, NPK_TABLE_MAP, prefix, prefix_size, err);
    npk_buffer_release(&list.keys);
    npk_buffer_release(&list.values);
    return status;
}

npk_status npk_row_index_clone(npk_row_change *change, uint64_t target, npk_error *err)
{
    static const npk_table tables[] = {NPK_TABLE_MAP, NPK_TABLE_ROWS};
    struct entry_list list;
    npk_buffer_init(&list.keys);
    npk_buffer_init(&list.values);
    npk_status status = NPK_OK;
    for (size_t t = 0; t < 2 && status == NPK_OK; t++) {
        status = copy_entries(change->kv, tables[t], change->array, &list, err);
        npk_cursor keys = npk_cursor_over(list.keys.data, list.keys.size);
        npk_cursor values = npk_cursor_over(list.values.data, list.values.size);
        const uint8_t *key, *value;
        size_t key_size, value_size;
        while (status == NPK_OK && next_entry(&keys, &values, &key, &key_size, &value, &value_size)) {
            uint8_t copy[NPK_KEY_MAX];
            memcpy(copy, key, key_size);
            npk_put_be64(copy, target);
            status = npk_kv_put(change->kv, tables[t], copy, key_size, value, value_size, err);
            npk_place place;
            uint64_t count;
            if (status == NPK_OK && tables[t] == NPK_TABLE_ROWS) {
                if (!entry_place(key, key_size, value, value_size, &place, &count))
                    status = npk_catalog_fail(err, NPK_TABLE_ROWS);
                else
                    status = count_reference(change, &place, +1, err);
            }
        }
    }
    npk_buffer_release(&list.keys);
    npk_buffer_release(&list.values);
    return status;
}

/* ---- checking ------------------------------------------------------------------------------------------------------ */

npk_status npk_row_index_check(npk_kv *kv, uint64_t array, uint64_t row_count, uint64_t row_size, npk_error *err)
{
    struct map_list map = {0};
    struct run_list runs = {0};
    npk_row_change change = {kv, array, 0, row_size, 0};
    npk_status status = npk_row_index_load_map(kv, array, &map.runs, &map.count, err);
    if (status == NPK_OK)
        status = find_overlaps(&change, 0, UINT64_MAX, &runs, err);
    uint64_t row = 0, slot = 0;
    for (size_t i = 0; i < map.count && status == NPK_OK; i++) {
        if (map.runs[i].first_row != row || map.runs[i].first_slot < slot)
            status = npk_fail(err, NPK_CORRUPT, "the row map of array %llu is not in order at row %llu",
                              (unsigned long long)array, (unsigned long long)row);
        row = map.runs[i].first_row + map.runs[i].count;
        slot = map.runs[i].first_slot + map.runs[i].count;
    }
    if (status == NPK_OK && row != row_count)
        status = npk_fail(err, NPK_CORRUPT, "the row map of array %llu ends at row %llu of %llu",
                          (unsigned long long)array, (unsigned long long)row, (unsigned long long)row_count);
    for (size_t i = 1; i < runs.count && status == NPK_OK; i++)
        if (runs.runs[i - 1].first_slot + runs.runs[i - 1].count > runs.runs[i].first_slot)
            status = npk_fail(err, NPK_CORRUPT, "runs of array %llu overlap at slot %llu", (unsigned long long)array,
                              (unsigned long long)runs.runs[i].first_slot);
    size_t at = 0;
    for (size_t i = 0; i < map.count && status == NPK_OK && row_size; i++) {
        uint64_t need = map.runs[i].first_slot, end = need + map.runs[i].count;
        while (need < end) {
            while (at < runs.count && runs.runs[at].first_slot + runs.runs[at].count <= need)
                at++;
            if (at == runs.count || runs.runs[at].first_slot > need) {
                status = npk_fail(err, NPK_CORRUPT, "row %llu of array %llu has no place",
                                  (unsigned long long)(map.runs[i].first_row + (need - map.runs[i].first_slot)),
                                  (unsigned long long)array);
                break;
            }
            need = npk_min_u64(end, runs.runs[at].first_slot + runs.runs[at].count);
        }
    }
    npk_free(map.runs);
    npk_free(runs.runs);
    return status;
}
