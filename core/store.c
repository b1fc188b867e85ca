/* store.c - the public calls on a store handle: open, close, position, flush, stats. */
#include <stdio.h>
#include <string.h>

#include "alloc.h"
#include "catalog.h"
#include "compact.h"
#include "error.h"
#include "opening.h"
#include "reclaim.h"
#include "recover.h"
#include "view.h"
#include "worker.h"
#include "writer.h"

const char *npk_version(void)
{
    return "0.1.0";
}

/* ---- settings ---------------------------------------------------------------------------------------------------------- */

#define OPTION(field) (options && options->struct_size >= offsetof(npk_options, field) + sizeof options->field ? options->field : 0)
#define OPTION_OR(field, fallback) (OPTION(field) ? OPTION(field) : (fallback))

static npk_status read_options(const npk_options *options, npk_settings *settings, npk_error *err)
{
    memset(settings, 0, sizeof *settings);
    settings->mode = OPTION(mode);
    settings->sync = OPTION(sync);
    settings->sync_interval_ms = OPTION_OR(sync_interval_ms, 100);
    settings->busy_timeout_ms = OPTION_OR(busy_timeout_ms, 60000);
    settings->segment_size = OPTION_OR(segment_size, NPK_DEFAULT_SEGMENT_SIZE);
    settings->checkpoint_log_size = OPTION_OR(checkpoint_log_size, NPK_DEFAULT_CHECKPOINT_LOG_SIZE);
    settings->pending_limit = OPTION_OR(pending_limit, NPK_DEFAULT_PENDING_LIMIT);
    settings->bulk_size = OPTION_OR(bulk_size, NPK_DEFAULT_BULK_SIZE);
    settings->background = !OPTION(no_background);
    settings->network = OPTION(network) != 0;
    settings->interrupt = OPTION(interrupt);
    settings->interrupt_context = OPTION(interrupt_context);
    if (OPTION(program))
        (void)snprintf(settings->program, sizeof settings->program, "%s", options->program);
    if ((unsigned)settings->mode > NPK_MODE_EXCLUSIVE || (unsigned)settings->sync > NPK_SYNC_NEVER)
        return npk_fail(err, NPK_INVALID, "unknown mode or sync level");
    if (settings->segment_size < NPK_WAL_SEGMENT_SIZE_MIN || settings->segment_size > NPK_WAL_SEGMENT_SIZE_MAX ||
        settings->segment_size % 4096 != 0)
        return npk_fail(err, NPK_INVALID, "a segment size is a multiple of 4096 from %u to %u bytes, not %llu",
                        NPK_WAL_SEGMENT_SIZE_MIN, NPK_WAL_SEGMENT_SIZE_MAX, (unsigned long long)settings->segment_size);
    return NPK_OK;
}

/* ---- open and close ------------------------------------------------------------------------------------------------------ */

npk_status npk_store_open(const char *path, const npk_options *options, npk_store **out, npk_error *err)
{
    npk_settings settings;
    npk_status status = read_options(options, &settings, err);
    if (status != NPK_OK)
        return status;
    if (!path || path[0] == '\0')
        return npk_fail(err, NPK_INVALID, "an empty path names no store");
    const npk_io *io = OPTION_OR(io, npk_io_posix());
    npk_store *store = npk_calloc(1, sizeof *store);
    if (!store)
        return npk_fail(err, NPK_NO_MEMORY, "could not allocate a store handle");
    store->settings = settings;
    status = npk_opening_open(io, path, &settings, &store->core, err);
    if (status != NPK_OK) {
        npk_free(store);
        return status;
    }
    atomic_store(&store->seen_lost_count, atomic_load(&store->core->control->poison_lost_count));
    *out = store;
    return NPK_OK;
}

npk_status npk_store_close(npk_store *store, npk_error *err)
{
    if (!store)
        return NPK_OK;
    if (__atomic_load_n(&store->open_transaction_count, __ATOMIC_SEQ_CST) && !atomic_load(&store->core->is_forked))
        return npk_fail(err, NPK_MISUSE, "a transaction of this handle is open");
    npk_status status = npk_core_release(store->core, err);
    npk_free(store);
    return status;
}

int npk_store_is_forked(const npk_store *store)
{
    return atomic_load(&store->core->is_forked);
}

static npk_status check_usable(const npk_store *store, npk_error *err)
{
    if (atomic_load(&store->core->is_forked))
        return npk_fail(err, NPK_MISUSE, "the store was opened by a parent process; open it again in this one");
    return NPK_OK;
}

npk_status npk_store_position(npk_store *store, npk_position *position, npk_error *err)
{
    npk_status status = check_usable(store, err);
    return status == NPK_OK ? npk_reclaim_position(store->core, position, err) : status;
}

npk_status npk_store_flush(npk_store *store, npk_error *err)
{
    npk_status status = check_usable(store, err);
    if (status == NPK_OK)
        status = npk_recover_tell_loss(store, err);
    return status == NPK_OK ? npk_writer_flush(store->core, err) : status;
}

/* ---- stats ----------------------------------------------------------------------------------------------------------------- */

static npk_status tally_container(void *context, const uint8_t *key, size_t key_size, const uint8_t *value,
                                  size_t value_size, bool *stop, npk_error *err)
{
    (void)stop;
    npk_stats *stats = context;
    npk_container container;
    if (key_size != 9 || !npk_container_decode(value, value_size, &container))
        return npk_catalog_fail(err, NPK_TABLE_PLACES);
    if (key[0] != NPK_CONTAINER_COLUMN)
        return NPK_OK;
    stats->column_file_count++;
    stats->column_file_size += container.size;
    if (container.reference_count == 0)
        stats->dead_file_count++;
    return NPK_OK;
}

static npk_status count_entry(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size,
                              bool *stop, npk_error *err)
{
    (void)key;
    (void)key_size;
    (void)value;
    (void)value_size;
    (void)stop;
    (void)err;
    ++*(uint64_t *)context;
    return NPK_OK;
}

static void tally_segment(void *context, const npk_segment_info *info)
{
    npk_stats *stats = context;
    stats->log_segment_count++;
    stats->log_file_size += info->size;
}

npk_status npk_store_stats(npk_store *store, npk_stats *out, npk_error *err)
{
    npk_core *core = store->core;
    npk_status status = check_usable(store, err);
    npk_stats stats;
    memset(&stats, 0, sizeof stats);
    npk_kv *kv = NULL;
    if (status == NPK_OK)
        status = npk_view_begin(core, &kv, err);
    if (status != NPK_OK)
        return status;
    npk_store_state state = {0};
    bool found = false;
    status = npk_catalog_get_state(kv, &state, &found, err);
    if (status == NPK_OK)
        status = npk_kv_scan(kv, NPK_TABLE_PLACES, NULL, 0, NULL, 0, tally_container, &stats, err);
    if (status == NPK_OK)
        status = npk_kv_scan(kv, NPK_TABLE_NAMES, NULL, 0, NULL, 0, count_entry, &stats.array_count, err);
    npk_view_end(core, kv);
    if (status == NPK_OK)
        status = npk_compact_pending(core, &stats.pending_size, &stats.pending_row_count, NULL, err);
    if (status == NPK_OK)
        status = npk_wal_list(core->wal, tally_segment, &stats, err);
    uint64_t pinned = UINT64_MAX;
    if (status == NPK_OK)
        status = npk_pin_oldest(core, &pinned, err);
    if (status != NPK_OK)
        return status;
    npk_reclaim_note_checkpoints(core); /* another process may have written one */
    stats.position.epoch = state.end.epoch;
    stats.position.lsn = state.end.lsn;
    stats.durable_lsn = atomic_load(&core->control->durable_lsn);
    stats.checkpoint_lsn = atomic_load(&core->checkpoint_lsn);
    stats.log_size = state.end.lsn > stats.checkpoint_lsn ? state.end.lsn - stats.checkpoint_lsn : 0;
    stats.pin_lsn = pinned == UINT64_MAX ? 0 : pinned;
    npk_wal_counters counters = npk_wal_count(core->wal);
    stats.commits = atomic_load(&core->commits);
    stats.syncs = counters.syncs;
    stats.bytes_logged = counters.bytes;
    stats.segment_rolls = counters.rolls;
    stats.bytes_folded = atomic_load(&core->bytes_folded);
    stats.folds = atomic_load(&core->folds);
    stats.checkpoints = atomic_load(&core->checkpoints);
    stats.reclaims = atomic_load(&core->reclaims);
    stats.recoveries = atomic_load(&core->recoveries);
    stats.last_fold_us = atomic_load(&core->last_fold_us);
    stats.last_checkpoint_us = atomic_load(&core->last_checkpoint_us);
    npk_worker_explain(core, stats.worker_reason, sizeof stats.worker_reason);
    size_t size = out->struct_size && out->struct_size < sizeof stats ? out->struct_size : sizeof stats;
    stats.struct_size = size;
    memcpy(out, &stats, size);
    return NPK_OK;
}
