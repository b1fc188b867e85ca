/* view.c - views of the newest committed state, the cache of arrays, and pins. */
#include "view.h"

#include <string.h>
#include <errno.h>

#include "alloc.h"
#include "error.h"
#include "store_files.h"

/* ---- views ---------------------------------------------------------------------------------------------------------- */

npk_status npk_view_open_index(npk_core *core, uint64_t *name, npk_index **index, npk_error *err)
{
    for (;;) {
        char text[NPK_FILE_NAME_SIZE];
        *name = atomic_load(&core->control->index_name);
        npk_store_files_encode_index(*name, text);
        npk_status status = npk_index_open(core->io, core->index_directory, text, false, 0, index, err);
        /* Replaced, and removed under our hands: look again. */
        if (status == NPK_OK || atomic_load(&core->control->index_name) == *name)
            return status;
    }
}

/* Another process rebuilt the index: open the one that control names. */
static npk_status follow_index(npk_core *core, npk_error *err)
{
    (void)pthread_rwlock_wrlock(&core->index_lock);
    npk_status status = NPK_OK;
    uint64_t name = atomic_load(&core->control->index_name);
    if (name != core->index_name) {
        npk_index *index = NULL;
        status = npk_view_open_index(core, &name, &index, err);
        if (status == NPK_OK) {
            npk_index *old = core->index;
            core->index = index; /* first: a child of fork gives up what stands here */
            core->index_name = name;
            npk_index_close(old);
            npk_wal_forget_segments(core->wal);
            npk_columns_renew(core->columns); /* it may have replaced column files, too */
        }
    }
    (void)pthread_rwlock_unlock(&core->index_lock);
    if (status == NPK_OK)
        npk_view_forget_arrays(core);
    return status;
}

npk_status npk_view_begin(npk_core *core, npk_kv **kv, npk_error *err)
{
    for (;;) {
        (void)pthread_rwlock_rdlock(&core->index_lock);
        if (atomic_load_explicit(&core->control->index_name, memory_order_acquire) == core->index_name)
            break;
        (void)pthread_rwlock_unlock(&core->index_lock);
        npk_status status = follow_index(core, err);
        if (status != NPK_OK)
            return status;
    }
    npk_status status = npk_kv_open(core->index, kv, err);
    if (status == NPK_OK)
        npk_kv_begin_read(*kv);
    else
        (void)pthread_rwlock_unlock(&core->index_lock);
    return status;
}

void npk_view_end(npk_core *core, npk_kv *kv)
{
    npk_kv_end_read(kv);
    npk_kv_close(kv);
    (void)pthread_rwlock_unlock(&core->index_lock);
}

/* A moment of the store: which index, and which state of it. A rebuilt index counts anew, and after a loss the same LSNs may be given
 * again, so nothing of another index is compared. */
struct moment {
    uint64_t index_name, version; /* version 0: not to be trusted */
};

static struct moment moment_now(npk_core *core)
{
    (void)pthread_rwlock_rdlock(&core->index_lock);
    struct moment now = {.index_name = core->index_name};
    if (atomic_load(&core->control->index_name) == core->index_name)
        now.version = npk_index_version(core->index);
    (void)pthread_rwlock_unlock(&core->index_lock);
    return now;
}

static void know_state(npk_core *core, const npk_store_state *state, struct moment when)
{
    (void)pthread_mutex_lock(&core->cache_mutex);
    core->known_state = *state;
    core->known_index = when.index_name;
    core->known_version = when.version;
    (void)pthread_mutex_unlock(&core->cache_mutex);
}

npk_status npk_view_state(npk_core *core, npk_store_state *state, npk_error *err)
{
    struct moment now = moment_now(core);
    (void)pthread_mutex_lock(&core->cache_mutex);
    bool known = now.version && core->known_version == now.version && core->known_index == now.index_name;
    if (known)
        *state = core->known_state;
    (void)pthread_mutex_unlock(&core->cache_mutex);
    if (known)
        return NPK_OK;
    npk_kv *kv = NULL;
    npk_status status = npk_view_begin(core, &kv, err);
    if (status != NPK_OK)
        return status;
    bool found = false;
    status = npk_catalog_get_state(kv, state, &found, err);
    npk_view_end(core, kv);
    if (status == NPK_OK && !found)
        status = npk_catalog_fail(err, NPK_TABLE_STORE);
    if (status == NPK_OK)
        know_state(core, state, now); /* the moment was asked before: at worst the state looks older than it is */
    return status;
}

void npk_view_published(npk_core *core, const npk_store_state *state, uint64_t version)
{
    struct moment now = {core->index_name, version}; /* only a holder of the writer lock swaps the index */
    know_state(core, state, now);
}

npk_status npk_view_begin_write(npk_core *core, npk_kv **kv, npk_error *err)
{
    if (atomic_load(&core->control->index_name) != core->index_name) {
        npk_status status = follow_index(core, err);
        if (status != NPK_OK)
            return status;
    }
    npk_kv *kept = core->writer_kv;
    core->writer_kv = NULL;
    if (kept && npk_kv_base(kept) == core->index) {
        *kv = kept;
        return NPK_OK;
    }
    npk_kv_close(kept);
    return npk_kv_open(core->index, kv, err);
}

void npk_view_end_write(npk_core *core, npk_kv *kv)
{
    npk_kv_clear(kv);
    npk_kv_close(core->writer_kv);
    core->writer_kv = kv; /* with its memory */
}

/* ---- arrays --------------------------------------------------------------------------------------------------------- */

npk_array_sources npk_view_sources(npk_core *core)
{
    npk_array_sources sources = {.io = core->io, .wal = core->wal, .columns = core->columns};
    return sources;
}

static npk_array *cache_find(npk_core *core, const char *name, struct moment now)
{
    npk_array *array = NULL;
    (void)pthread_mutex_lock(&core->cache_mutex);
    for (size_t i = 0; i < NPK_ARRAY_CACHE_SIZE && !array; i++) {
        npk_cached_array *entry = &core->cache[i];
        if (entry->array && now.version && entry->version == now.version && entry->index_name == now.index_name &&
            strcmp(entry->array->record.name, name) == 0) {
            entry->used = ++core->cache_tick;
            array = npk_array_retain(entry->array);
        }
    }
    (void)pthread_mutex_unlock(&core->cache_mutex);
    return array;
}

/* The cached array of this name, whatever its version in this index. */
static npk_array *cache_find_any(npk_core *core, const char *name, uint64_t index_name)
{
    npk_array *array = NULL;
    (void)pthread_mutex_lock(&core->cache_mutex);
    for (size_t i = 0; i < NPK_ARRAY_CACHE_SIZE && !array; i++)
        if (core->cache[i].array && core->cache[i].index_name == index_name &&
            strcmp(core->cache[i].array->record.name, name) == 0)
            array = npk_array_retain(core->cache[i].array);
    (void)pthread_mutex_unlock(&core->cache_mutex);
    return array;
}

static void cache_put(npk_core *core, npk_array *array, struct moment when)
{
    npk_array *old = NULL;
    (void)pthread_mutex_lock(&core->cache_mutex);
    npk_cached_array *place = &core->cache[0];
    for (size_t i = 0; i < NPK_ARRAY_CACHE_SIZE; i++) {
        npk_cached_array *entry = &core->cache[i];
        if (entry->array && strcmp(entry->array->record.name, array->record.name) == 0) {
            place = entry;
            break;
        }
        if (place->array && (!entry->array || entry->used < place->used))
            place = entry;
    }
    old = place->array;
    place->array = npk_array_retain(array);
    place->index_name = when.index_name;
    place->version = when.version;
    place->used = ++core->cache_tick;
    (void)pthread_mutex_unlock(&core->cache_mutex);
    npk_array_release(old);
}

void npk_view_forget_arrays(npk_core *core)
{
    for (size_t i = 0; i < NPK_ARRAY_CACHE_SIZE; i++) {
        (void)pthread_mutex_lock(&core->cache_mutex);
        npk_array *old = core->cache[i].array;
        core->cache[i].array = NULL;
        (void)pthread_mutex_unlock(&core->cache_mutex);
        npk_array_release(old);
    }
}

void npk_view_trim_arrays(npk_core *core)
{
    for (size_t i = 0; i < NPK_ARRAY_CACHE_SIZE; i++) {
        (void)pthread_mutex_lock(&core->cache_mutex);
        npk_array *array = core->cache[i].array ? npk_array_retain(core->cache[i].array) : NULL;
        (void)pthread_mutex_unlock(&core->cache_mutex);
        if (!array)
            continue;
        npk_kv *kv = NULL;
        bool stale = true;
        if (npk_view_begin(core, &kv, NULL) == NPK_OK) {
            npk_array_record now;
            bool found = false;
            if (npk_catalog_get_array(kv, array->info.id, &now, &found, NULL) == NPK_OK && found) {
                stale = now.layout_lsn != array->record.layout_lsn;
                npk_array_record_release(&now);
            }
            npk_view_end(core, kv);
        }
        npk_array *old = NULL;
        if (stale) {
            (void)pthread_mutex_lock(&core->cache_mutex);
            if (core->cache[i].array == array) {
                old = core->cache[i].array;
                core->cache[i].array = NULL;
            }
            (void)pthread_mutex_unlock(&core->cache_mutex);
        }
        npk_array_release(old);
        npk_array_release(array);
    }
}

/* The cached array is still the current one: nothing of it changed between its version and this view. */
static bool still_current(npk_kv *kv, const char *name, const npk_array *cached)
{
    uint64_t id;
    bool found = false;
    if (npk_catalog_find_array(kv, name, &id, &found, NULL) != NPK_OK || !found || id != cached->info.id)
        return false;
    npk_array_record now;
    if (npk_catalog_get_array(kv, id, &now, &found, NULL) != NPK_OK || !found)
        return false;
    bool same = now.layout_lsn == cached->record.layout_lsn && now.change_lsn == cached->record.change_lsn;
    npk_array_record_release(&now);
    return same;
}

#define MISSING_FILE_TRIES 50

npk_status npk_view_array(npk_core *core, const char *name, npk_array **array, npk_error *err)
{
    uint64_t last_layout = 0;
    int same_layout = 0;
    for (int tries = 0;; tries++) {
        struct moment before = moment_now(core);
        npk_array *cached = cache_find(core, name, before);
        if (cached) {
            *array = cached;
            return NPK_OK;
        }
        npk_kv *kv = NULL;
        npk_status status = npk_view_begin(core, &kv, err);
        if (status != NPK_OK)
            return status;
        cached = cache_find_any(core, name, core->index_name); /* the view holds the lock */
        if (cached && still_current(kv, name, cached)) {
            npk_view_end(core, kv);
            cache_put(core, cached, before);
            *array = cached;
            return NPK_OK;
        }
        npk_array_release(cached);
        bool missing = false;
        npk_array_sources sources = npk_view_sources(core);
        status = npk_array_build(kv, name, &sources, array, &missing, err);
        uint64_t layout = 0;
        if (status != NPK_OK && missing) {
            npk_store_state state;
            bool found = false;
            if (npk_catalog_get_state(kv, &state, &found, NULL) == NPK_OK && found)
                layout = state.end.lsn;
        }
        npk_view_end(core, kv);
        if (status == NPK_OK) {
            /* The moment was asked before the view began: at worst the entry looks older than it is. */
            cache_put(core, *array, before);
            return NPK_OK;
        }
        /* A file was reclaimed between reading the index and opening it: look again. If nothing was published meanwhile,
         * the index names a file that is not there: that is damage. */
        same_layout = layout == last_layout ? same_layout + 1 : 0;
        last_layout = layout;
        if (!missing || same_layout >= 2 || tries >= MISSING_FILE_TRIES)
            return status == NPK_NOT_FOUND && missing ? npk_context(err, NPK_CORRUPT, "a file is missing") : status;
    }
}

/* ---- pins ----------------------------------------------------------------------------------------------------------- */

static uint64_t lowest_pin(const npk_core *core)
{
    uint64_t lowest = 0;
    for (const npk_pin *pin = core->pins; pin; pin = pin->next)
        if (lowest == 0 || pin->lsn < lowest)
            lowest = pin->lsn;
    return lowest;
}

/* pin_mutex held. A slot is ours while its byte of LOCK is. */
static npk_status take_slot(npk_core *core, npk_error *err)
{
    for (int64_t i = 0; i < NPK_PIN_SLOT_COUNT && core->pin_slot < 0; i++) {
        bool got = false;
        npk_status status = npk_locks_try(core->io, core->lock_file, (uint64_t)(NPK_LOCK_PIN_BASE + i),
                                          NPK_LOCK_EXCLUSIVE, &got, err);
        if (status != NPK_OK)
            return status;
        if (got) {
            atomic_store(&core->control->pin_lsn[i], 0);
            core->pin_slot = i;
        }
    }
    if (core->pin_slot < 0)
        return npk_fail(err, NPK_BUSY, "all %d pin slots of the store are taken by other processes", NPK_PIN_SLOT_COUNT);
    return NPK_OK;
}

npk_status npk_pin_take(npk_core *core, uint64_t lsn, npk_error *err)
{
    npk_pin *pin = npk_alloc(sizeof *pin);
    if (!pin)
        return npk_fail(err, NPK_NO_MEMORY, "could not allocate a pin");
    (void)pthread_mutex_lock(&core->pin_mutex);
    npk_status status = core->pin_slot >= 0 ? NPK_OK : take_slot(core, err);
    if (status == NPK_OK) {
        pin->lsn = lsn;
        pin->next = core->pins;
        core->pins = pin;
        /* Store first, then look at the floor; reclaim raises the floor first, then reads the pins: one of the two sees the other. */
        atomic_store(&core->control->pin_lsn[core->pin_slot], lowest_pin(core));
        if (atomic_load(&core->control->floor_lsn) > lsn) {
            core->pins = pin->next;
            atomic_store(&core->control->pin_lsn[core->pin_slot], lowest_pin(core));
            status = npk_fail(err, NPK_CONFLICT, "the state at %llu was reclaimed", (unsigned long long)lsn);
        } else {
            pin = NULL;
        }
    }
    (void)pthread_mutex_unlock(&core->pin_mutex);
    npk_free(pin);
    return status;
}

void npk_pin_release(npk_core *core, uint64_t lsn)
{
    (void)pthread_mutex_lock(&core->pin_mutex);
    for (npk_pin **link = &core->pins; *link; link = &(*link)->next) {
        if ((*link)->lsn == lsn) {
            npk_pin *pin = *link;
            *link = pin->next;
            npk_free(pin);
            break;
        }
    }
    if (core->pin_slot >= 0)
        atomic_store(&core->control->pin_lsn[core->pin_slot], lowest_pin(core));
    (void)pthread_mutex_unlock(&core->pin_mutex);
}

npk_status npk_pin_oldest(npk_core *core, uint64_t *lsn, npk_error *err)
{
    *lsn = UINT64_MAX;
    for (int64_t i = 0; i < NPK_PIN_SLOT_COUNT; i++) {
        uint64_t pinned = atomic_load(&core->control->pin_lsn[i]);
        if (pinned == 0)
            continue;
        (void)pthread_mutex_lock(&core->pin_mutex);
        bool ours = i == core->pin_slot;
        (void)pthread_mutex_unlock(&core->pin_mutex);
        int rc = ours ? EAGAIN
                      : core->io->lock_test(core->io, core->lock_file, (uint64_t)(NPK_LOCK_PIN_BASE + i), 1,
                                            NPK_LOCK_EXCLUSIVE);
        if (rc == 0) /* nobody holds the byte: its process died. The slot's next owner clears it. */
            continue;
        if (rc != EAGAIN)
            return npk_fail_errno(err, rc, "could not examine a pin");
        if (pinned < *lsn)
            *lsn = pinned;
    }
    return NPK_OK;
}
