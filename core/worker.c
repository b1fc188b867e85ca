/* worker.c - the background thread. */
#include "worker.h"

#include <stdio.h>
#include <string.h>

#include "error.h"
#include "upkeep.h"
#include "reclaim.h"
#include "writer.h"

#define TICK_US 50000u          /* how often it looks when nothing is asked */
#define WORK_EVERY_US 200000u   /* how often it considers folding and checkpoints */
#define IDLE_US 1000000u        /* without a commit for so long: append a watermark record */

static void say(npk_core *core, const char *reason)
{
    (void)pthread_mutex_lock(&core->worker_mutex);
    (void)snprintf(core->worker_reason, sizeof core->worker_reason, "%s", reason);
    (void)pthread_mutex_unlock(&core->worker_mutex);
}

void npk_worker_explain(npk_core *core, char *text, size_t size)
{
    (void)pthread_mutex_lock(&core->worker_mutex);
    (void)snprintf(text, size, "%s", core->worker_running ? core->worker_reason : "no background thread");
    (void)pthread_mutex_unlock(&core->worker_mutex);
}

/* Failures here are not lost: the same call fails for the next writer, flush or close, which reports it. */
static void note_failure(npk_core *core, const char *what, const npk_error *err)
{
    char text[128];
    (void)snprintf(text, sizeof text, "%s failed: %.90s", what, err->message);
    say(core, text);
}

static void tick(npk_core *core, uint64_t *next_work_us)
{
    const npk_io *io = core->io;
    uint64_t now = io->monotonic_us(io);
    npk_error err = {0};
    if (npk_locks_check_name(io, core->root, &core->lock_info, NULL) != NPK_OK) {
        say(core, "the store directory is gone");
        return;
    }
    /* For whoever asked for it, in this process or another, whatever the level of this store handle is. */
    if (npk_writer_sync_due(core, now) && npk_writer_flush(core, &err) != NPK_OK)
        note_failure(core, "sync", &err);
    uint64_t last_commit = atomic_load(&core->last_commit_us_monotonic);
    if (last_commit && !npk_wal_has_spare(core->wal) && npk_wal_prepare_spare(core->wal, &err) != NPK_OK)
        note_failure(core, "preparing a segment", &err);
    npk_position position = {0};
    if (last_commit && now - last_commit > IDLE_US && core->settings.sync != NPK_SYNC_NEVER &&
        npk_reclaim_position(core, &position, NULL) == NPK_OK && position.lsn != atomic_load(&core->control->marked_lsn)) {
        bool done = false;
        if (npk_writer_mark(core, &done, &err) != NPK_OK)
            note_failure(core, "writing a watermark", &err);
    }
    if (now >= *next_work_us) {
        char reason[128] = "";
        *next_work_us = now + WORK_EVERY_US;
        if (npk_upkeep_work(core, reason, sizeof reason, &err) != NPK_OK)
            note_failure(core, "compaction", &err);
        else
            say(core, reason);
    }
}

static void *run(void *context)
{
    npk_core *core = context;
    uint64_t next_work_us = 0;
    (void)pthread_mutex_lock(&core->worker_mutex);
    while (!core->worker_stop) {
        uint64_t wait = TICK_US, interval = atomic_load(&core->control->interval_ms);
        if (interval && interval * 500 < wait)
            wait = interval * 500 + 1;
        (void)npk_cond_wait_us(&core->worker_wake, &core->worker_mutex, wait);
        if (core->worker_stop)
            break;
        (void)pthread_mutex_unlock(&core->worker_mutex);
        tick(core, &next_work_us);
        (void)pthread_mutex_lock(&core->worker_mutex);
    }
    (void)pthread_mutex_unlock(&core->worker_mutex);
    return NULL;
}

void npk_worker_start(npk_core *core, const npk_settings *settings)
{
    if (!settings->background || core->read_only || settings->mode == NPK_MODE_READ)
        return;
    (void)pthread_mutex_lock(&core->worker_mutex);
    if (!core->worker_running)
        core->worker_running = npk_thread_start(&core->worker_thread, run, core) == 0;
    (void)pthread_mutex_unlock(&core->worker_mutex);
}

bool npk_worker_is_running(npk_core *core)
{
    (void)pthread_mutex_lock(&core->worker_mutex);
    bool running = core->worker_running;
    (void)pthread_mutex_unlock(&core->worker_mutex);
    return running;
}

void npk_worker_stop(npk_core *core)
{
    if (!npk_worker_is_running(core))
        return;
    (void)pthread_mutex_lock(&core->worker_mutex);
    core->worker_stop = true;
    (void)pthread_cond_signal(&core->worker_wake);
    (void)pthread_mutex_unlock(&core->worker_mutex);
    (void)pthread_join(core->worker_thread, NULL);
    (void)pthread_mutex_lock(&core->worker_mutex);
    core->worker_running = false;
    (void)pthread_mutex_unlock(&core->worker_mutex);
}
