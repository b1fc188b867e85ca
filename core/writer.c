/* writer.c - being the one writer. */
#include "writer.h"

#include <errno.h>

#include "apply.h"
#include "bytes.h"
#include "error.h"
#include "recover.h"
#include "reserve.h"
#include "thread.h"
#include "view.h"

/* ---- the lock --------------------------------------------------------------------------------------------------------- */

#define WAIT_SLICE_US 20000u

/* Name the holder in a busy error, from what control says: a hint, but a good one. */
static npk_status fail_busy(npk_core *core, npk_error *err)
{
    char host[64], program[64];
    memcpy(host, core->control->writer_host, sizeof host);
    memcpy(program, core->control->writer_program, sizeof program);
    host[sizeof host - 1] = program[sizeof program - 1] = '\0';
    uint64_t since = atomic_load(&core->control->writer_since_us), now = core->io->now_us(core->io);
    return npk_fail(err, NPK_BUSY, "store \"%s\" is being written by process %llu (%s on %s) since %.1f s; try again later",
                    core->path, (unsigned long long)atomic_load(&core->control->writer_pid), program, host,
                    now > since ? (double)(now - since) / 1e6 : 0.0);
}

/* The threads of this process in turn. */
static npk_status take_mutex(npk_core *core, const npk_wait *wait, uint64_t deadline_us, npk_error *err)
{
    npk_status status = NPK_OK;
    (void)pthread_mutex_lock(&core->writer_mutex);
    while (core->writer_held && status == NPK_OK) {
        uint64_t now = core->io->monotonic_us(core->io);
        if (now >= deadline_us) {
            status = fail_busy(core, err);
            break;
        }
        uint64_t slice = npk_min_u64(WAIT_SLICE_US, deadline_us - now);
        (void)npk_cond_wait_us(&core->writer_free, &core->writer_mutex, slice);
        if (core->writer_held && wait->interrupt) {
            (void)pthread_mutex_unlock(&core->writer_mutex);
            if (wait->interrupt(wait->context))
                status = npk_fail(err, NPK_INTERRUPTED, "interrupted while waiting for the writer lock");
            (void)pthread_mutex_lock(&core->writer_mutex);
        }
    }
    if (status == NPK_OK)
        core->writer_held = true;
    (void)pthread_mutex_unlock(&core->writer_mutex);
    return status;
}

static void give_mutex(npk_core *core)
{
    (void)pthread_mutex_lock(&core->writer_mutex);
    core->writer_held = false;
    (void)pthread_cond_signal(&core->writer_free);
    (void)pthread_mutex_unlock(&core->writer_mutex);
}

static npk_status take_lock(npk_core *core, const npk_wait *wait, npk_error *err)
{
    uint64_t deadline = core->io->monotonic_us(core->io);
    if (npk_add_overflow(deadline, wait->timeout_us, &deadline))
        deadline = UINT64_MAX;
    npk_status status = take_mutex(core, wait, deadline, err);
    if (status != NPK_OK)
        return status;
    uint64_t now = core->io->monotonic_us(core->io);
    npk_wait rest = *wait;
    rest.timeout_us = now < deadline ? deadline - now : 0;
    status = npk_locks_wait(core->io, core->lock_file, NPK_LOCK_WRITER, NPK_LOCK_EXCLUSIVE, &rest, err);
    if (status == NPK_BUSY)
        status = fail_busy(core, err);
    if (status != NPK_OK)
        give_mutex(core);
    return status;
}

/* The names were asked for once, at open: this is on the path of every commit. */
static void say_who_writes(npk_core *core)
{
    if (atomic_load(&core->control->writer_pid) != core->process.pid ||
        memcmp(core->control->writer_host, core->process.host, sizeof core->process.host) != 0) {
        memcpy(core->control->writer_host, core->process.host, sizeof core->process.host);
        memcpy(core->control->writer_program, core->process.program, sizeof core->process.program);
        atomic_store(&core->control->writer_pid, core->process.pid);
    }
}

static bool same_end(const npk_wal_end *a, const npk_wal_end *b)
{
    return a->lsn == b->lsn && a->epoch == b->epoch && a->seq == b->seq;
}

/* With the lock held: the state to go on from, and the log positioned behind it. */
static npk_status prepare(npk_core *core, npk_store_state *state, npk_error *err)
{
    npk_status status = npk_locks_check_name(core->io, core->root, &core->lock_info, err);
    if (status == NPK_OK)
        status = npk_view_state(core, state, err);
    bool tail = false;
    if (status == NPK_OK)
        tail = atomic_load(&core->control->poison) || atomic_load(&core->control->writer_active);
    /* A writer that died left writer_active behind. Where somebody else wrote since, the log itself is asked too. */
    bool known = atomic_load(&core->control->generation) == core->log_generation && same_end(&core->log_end, &state->end);
    if (status == NPK_OK && !tail && !known)
        status = npk_wal_has_tail(core->wal, &state->end, &tail, err);
    if (status == NPK_OK && tail) {
        status = npk_recover_tail(core, false, err);
        if (status == NPK_OK)
            status = npk_view_state(core, state, err);
    }
    if (status != NPK_OK)
        return status;
    atomic_store(&core->seen_lsn, state->end.lsn);
    uint64_t generation = atomic_load(&core->control->generation);
    if (generation != core->log_generation || !same_end(&core->log_end, &state->end)) {
        if (generation != core->log_generation)
            npk_wal_forget_segments(core->wal);
        status = npk_wal_start(core->wal, &state->end, err);
        if (status != NPK_OK)
            return status;
        core->log_generation = generation;
        core->log_end = state->end;
    }
    return NPK_OK;
}

npk_status npk_writer_acquire(npk_core *core, const npk_wait *wait, npk_store_state *state, npk_error *err)
{
    if (core->read_only)
        return npk_fail(err, NPK_READ_ONLY, "store \"%s\" is open for reading only", core->path);
    npk_status status = take_lock(core, wait, err);
    if (status != NPK_OK)
        return status;
    status = prepare(core, state, err);
    if (status != NPK_OK) {
        npk_writer_release(core, false);
        return status;
    }
    say_who_writes(core);
    atomic_store(&core->control->writer_since_us, core->io->now_us(core->io));
    atomic_store(&core->control->writer_active, 1);
    return NPK_OK;
}

void npk_writer_release(npk_core *core, bool clean)
{
    if (clean)
        atomic_store(&core->control->writer_active, 0);
    npk_locks_release(core->io, core->lock_file, NPK_LOCK_WRITER);
    give_mutex(core);
}

/* ---- log, sync, publish ------------------------------------------------------------------------------------------------ */

/* The log and the index part ways: whatever of the transaction reached the disk must become void before the lock is given up. */
static void discard_tail(npk_core *core)
{
    core->log_generation = UINT64_MAX; /* the log must be positioned again */
    (void)npk_recover_tail(core, true, NULL); /* poisons the store when it fails */
}

/* The watermark that records carry: never above the log's own end, whatever was raised while the log was repaired. */
static uint64_t known_watermark(npk_core *core)
{
    return npk_min_u64(atomic_load(&core->control->durable_lsn), npk_wal_get_end(core->wal).lsn);
}

/* Publish with the log's end. The transaction is committed already when the log is synced, so a failing index is rebuilt. */
static npk_status publish(npk_core *core, npk_kv *kv, npk_error *err)
{
    npk_wal_end end = npk_wal_get_end(core->wal);
    npk_store_state state;
    npk_status status = npk_apply_end(kv, &end, &state, err);
    uint64_t version = 0;
    if (status == NPK_OK)
        status = npk_index_publish(core->index, kv, &version, err);
    npk_kv_clear(kv);
    if (status == NPK_OK) {
        core->log_end = end;
        npk_view_published(core, &state, version);
        return NPK_OK;
    }
    npk_status rebuilt = npk_recover_build_index(core, 0, err);
    core->log_generation = UINT64_MAX;
    return rebuilt;
}

static void raise_durable(npk_core *core, uint64_t lsn)
{
    atomic_store(&core->control->synced_us, core->io->monotonic_us(core->io));
    uint64_t known = atomic_load(&core->control->durable_lsn);
    while (known < lsn && !atomic_compare_exchange_weak(&core->control->durable_lsn, &known, lsn)) {
    }
}

/* Whoever has a background thread sees it and syncs in time: this process may die. Under the writer lock. */
static void ask_for_sync(npk_core *core, uint64_t lsn, uint64_t interval_ms)
{
    npk_control *control = core->control;
    uint64_t known = atomic_load(&control->interval_ms);
    if (known == 0 || interval_ms < known)
        atomic_store(&control->interval_ms, interval_ms);
    if (atomic_load(&control->interval_lsn) < lsn)
        atomic_store(&control->interval_lsn, lsn);
}

bool npk_writer_sync_due(npk_core *core, uint64_t now_us)
{
    const npk_control *control = core->control;
    return atomic_load(&control->interval_lsn) > atomic_load(&control->durable_lsn) &&
           now_us - atomic_load(&control->synced_us) >= atomic_load(&control->interval_ms) * 1000;
}

/* Room first: nothing may stop the publishing of what the log has committed. On a full disk the reserve makes a drop possible. */
static npk_status make_room(npk_core *core, npk_kv *kv, bool use_reserve, npk_error *err)
{
    size_t count = npk_kv_change_count(kv) + 1, size = npk_kv_change_size(kv) + 256;
    npk_status status = npk_index_reserve(core->index, count, size, err);
    if (status == NPK_NO_SPACE && use_reserve) {
        npk_reserve_release(core);
        status = npk_index_reserve(core->index, count, size, err);
    }
    return status;
}

static npk_status commit(npk_core *core, npk_kv *kv, uint64_t transaction, uint32_t record_count, npk_sync sync,
                         uint32_t interval_ms, bool use_reserve, npk_position *position, npk_error *err)
{
    uint8_t meta[12];
    npk_put_u64(meta, core->io->now_us(core->io));
    npk_put_u32(meta + 8, record_count);
    npk_wal_place place;
    npk_record record = {.type = NPK_RECORD_COMMIT, .transaction = transaction, .meta = meta, .meta_size = sizeof meta};
    npk_status status = npk_apply_commit(kv, &record, err);
    if (status == NPK_OK)
        status = make_room(core, kv, use_reserve, err);
    if (status != NPK_OK)
        return status; /* the caller aborts */
    status = npk_wal_append(core->wal, NPK_RECORD_COMMIT, transaction, known_watermark(core), meta, sizeof meta, NULL, 0,
                            false, &place, err);
    if (status == NPK_NO_SPACE && use_reserve && !npk_wal_in_doubt(core->wal)) {
        npk_reserve_release(core);
        status = npk_wal_append(core->wal, NPK_RECORD_COMMIT, transaction, known_watermark(core), meta, sizeof meta, NULL, 0,
                                false, &place, err);
    }
    if (status != NPK_OK && !npk_wal_in_doubt(core->wal)) /* no part of the commit record was written: the caller aborts */
        return npk_context(err, status, "commit");
    if (status == NPK_OK)
        status = sync == NPK_SYNC_COMMIT ? npk_wal_sync(core->wal, err) : npk_wal_write(core->wal, err);
    if (status != NPK_OK) {
        if (!npk_wal_in_doubt(core->wal)) /* nothing of the commit record left the buffer: the caller aborts */
            return npk_context(err, status, "commit");
        npk_kv_clear(kv);
        discard_tail(core);
        if (atomic_load(&core->control->poison)) /* whole, part or nothing of it may be on disk, and that could not be changed */
            return npk_context(err, NPK_POISONED, "commit: not known to be undone; the next writer or open decides");
        return npk_context(err, status, "commit");
    }
    npk_wal_end end = npk_wal_get_end(core->wal);
    if (sync == NPK_SYNC_INTERVAL)
        ask_for_sync(core, end.lsn, interval_ms);
    if (core->pause_before_publish_us)
        core->io->sleep_us(core->io, core->pause_before_publish_us);
    if (atomic_load(&core->control->poison)) {
        /* Another process's sync failed meanwhile: the system reports that once, so ours proves nothing. */
        npk_kv_clear(kv);
        discard_tail(core);
        if (atomic_load(&core->control->poison))
            return npk_fail(err, NPK_POISONED, "commit: a sync failed meanwhile; the next writer or open decides");
        return npk_fail(err, NPK_IO, "commit: a sync of another process failed meanwhile; the transaction was undone");
    }
    status = publish(core, kv, err);
    if (status != NPK_OK) /* in the log, not in the index: writer_active stays set, and the next writer publishes it */
        return npk_context(err, NPK_POISONED, "commit: in the log, but not visible before the next writer repairs the index");
    if (sync == NPK_SYNC_COMMIT)
        raise_durable(core, end.lsn);
    if (position) {
        position->epoch = end.epoch;
        position->lsn = end.lsn;
    }
    atomic_fetch_add(&core->commits, 1);
    atomic_store(&core->last_commit_us_monotonic, core->io->monotonic_us(core->io));
    return NPK_OK;
}

npk_status npk_writer_commit(npk_core *core, npk_kv *kv, uint64_t transaction, uint32_t record_count, npk_sync sync,
                             uint32_t interval_ms, bool use_reserve, npk_position *position, npk_error *err)
{
    npk_thread_hold_file_size_signal(); /* once, for the log and the index */
    npk_status status = commit(core, kv, transaction, record_count, sync, interval_ms, use_reserve, position, err);
    npk_thread_release_file_size_signal(false);
    return status;
}

npk_status npk_writer_abort(npk_core *core, npk_kv *kv, uint64_t begin_lsn, uint64_t transaction, npk_error *err)
{
    npk_kv_clear(kv);
    if (core->log_generation == UINT64_MAX)
        return NPK_OK; /* the tail was discarded already */
    npk_status status = npk_wal_undo(core->wal, begin_lsn, transaction, known_watermark(core), err);
    npk_wal_end end = npk_wal_get_end(core->wal);
    if (status == NPK_OK && end.lsn == begin_lsn && end.seq == core->log_end.seq)
        return NPK_OK; /* nothing had left the buffer */
    /* A void record was needed, or the log has rolled: publish the new end. Otherwise another process would go on in the old segment, before a
     * successor that is there already. */
    if (status == NPK_OK)
        status = npk_index_reserve(core->index, 1, 256, err);
    if (status == NPK_OK)
        status = npk_wal_write(core->wal, err);
    if (status == NPK_OK)
        return publish(core, kv, err);
    discard_tail(core);
    return status;
}

/* ---- the watermark ------------------------------------------------------------------------------------------------------ */

#define FLUSH_TRIES 200
#define FLUSH_PAUSE_US 500u

npk_status npk_writer_flush(npk_core *core, npk_error *err)
{
    for (int tries = 0;; tries++) {
        uint64_t generation = atomic_load(&core->control->generation);
        npk_store_state state;
        npk_status status = npk_view_state(core, &state, err);
        if (status != NPK_OK || state.end.lsn <= atomic_load(&core->control->durable_lsn))
            return status;
        npk_error reason = {0};
        bool sync_failed = false;
        status = npk_wal_sync_segment(core->wal, state.end.seq, &sync_failed, &reason);
        if (status != NPK_OK && !sync_failed && tries < FLUSH_TRIES) {
            /* Others wrote on, checkpointed and reclaimed the segment since the state was read, or a writer of this process is about to start:
             * look again. */
            core->io->sleep_us(core->io, FLUSH_PAUSE_US);
            continue;
        }
        if (status != NPK_OK) {
            if (sync_failed) {
                atomic_store(&core->control->poison, 1);
                atomic_fetch_add(&core->control->generation, 1);
            }
            if (err)
                *err = reason;
            return npk_context(err, status, "flush");
        }
        /* The system reports a failed write-back once: another thread or process may have been told instead of us. */
        if (atomic_load(&core->control->poison))
            return npk_fail(err, NPK_POISONED, "flush: a sync failed meanwhile; the next writer repairs the log");
        if (atomic_load(&core->control->generation) == generation) {
            raise_durable(core, state.end.lsn);
            return NPK_OK;
        }
        /* The log was cut meanwhile: what was synced may not be the file that counts. Look again. */
    }
}

static npk_status append_mark(npk_core *core, npk_error *err)
{
    return npk_wal_append(core->wal, NPK_RECORD_WATERMARK, 0, known_watermark(core), NULL, 0, NULL, 0, false, NULL, err);
}

npk_status npk_writer_mark(npk_core *core, bool *done, npk_error *err)
{
    *done = false;
    npk_store_state state;
    npk_wait wait = {0};
    npk_status status = npk_writer_acquire(core, &wait, &state, err);
    if (status == NPK_BUSY)
        return NPK_OK;
    if (status != NPK_OK)
        return status;
    if (state.end.lsn == atomic_load(&core->control->marked_lsn) && state.end.lsn <= atomic_load(&core->control->durable_lsn)) {
        *done = true; /* the log ends with one, whoever wrote it */
        npk_writer_release(core, true);
        return NPK_OK;
    }
    npk_kv *kv = NULL;
    status = npk_view_begin_write(core, &kv, err);
    if (status != NPK_OK) {
        npk_writer_release(core, true);
        return status;
    }
    status = npk_index_reserve(core->index, 1, 256, err);
    if (status == NPK_OK) {
        /* Durable up to the record itself: first the sync that proves it. */
        status = npk_writer_flush(core, err);
        if (status == NPK_OK)
            status = append_mark(core, err);
        if (status == NPK_NO_SPACE && !npk_wal_in_doubt(core->wal)) {
            npk_reserve_release(core); /* it is for this: with a checkpoint behind the mark the next open needs no room */
            status = append_mark(core, err);
        }
        if (status == NPK_OK)
            status = npk_wal_sync(core->wal, err);
        if (status != NPK_OK)
            discard_tail(core);
        else
            status = publish(core, kv, err);
    }
    npk_view_end_write(core, kv);
    bool clean = status == NPK_OK;
    if (clean) {
        raise_durable(core, core->log_end.lsn);
        atomic_store(&core->control->marked_lsn, core->log_end.lsn);
        *done = true;
    }
    npk_writer_release(core, clean && !atomic_load(&core->control->poison));
    return status;
}
