/* explorer_check.c - the oracle: what must hold in every state a crash can leave. Numbers are those of explorer.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explorer_parts.h"

typedef struct check {
    explorer *x;
    const explorer_history *history;
    const explorer_point *point;
    bool process_died;
    memory_io *disk;
    npk_store *store;
    explorer_history *nested;
    unsigned first_seen; /* nested points recorded before the open had returned */
    model after;         /* models[j] and the transaction of 4 */
    char *text;
    size_t text_size;
} check;

static bool bad(check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool bad(check *c, const char *format, ...)
{
    if (c->text[0])
        return false; /* the first reason counts */
    va_list args;
    va_start(args, format);
    (void)vsnprintf(c->text, c->text_size, format, args);
    va_end(args);
    return false;
}

int explorer_match(const explorer_history *history, unsigned low, unsigned high, npk_store *store, char *text,
                   size_t text_size)
{
    npk_source source = {.store = store};
    char reason[512] = "";
    for (unsigned j = high + 1; j-- > low;) {
        if (model_matches(&history->models[j], &source, reason, sizeof reason))
            return (int)j;
        if (j == high)
            (void)snprintf(text, text_size, "content is of no transaction from %u to %u (%u: %s)", low, high, high, reason);
    }
    char other[512];
    for (unsigned j = 0; j < history->model_count; j++)
        if (model_matches(&history->models[j], &source, other, sizeof other)) {
            size_t used = strlen(text);
            (void)snprintf(text + used, text_size - used, "; it is that of %u", j);
            break;
        }
    return -1;
}

static npk_status open_disk(check *c, memory_io *disk, npk_mode mode, npk_store **store, npk_error *err)
{
    npk_options options;
    explorer_options(c->x, disk, mode, &options);
    return npk_store_open(EXPLORER_ROOT, &options, store, err);
}

/* 1 */
static bool open_first(check *c)
{
    npk_error err = {0};
    npk_status status = open_disk(c, c->disk, NPK_MODE_UPDATE, &c->store, &err);
    if (status == NPK_NOT_FOUND && !c->point->created)
        status = open_disk(c, c->disk, NPK_MODE_CREATE, &c->store, &err);
    return status == NPK_OK || bad(c, "it does not open: %s: %s", npk_status_kind(status), err.message);
}

struct findings {
    unsigned count;
    char first[256];
};

static void note_finding(void *context, const npk_finding *finding)
{
    struct findings *findings = context;
    if (findings->count++ == 0)
        (void)snprintf(findings->first, sizeof findings->first, "%s at %llu: %s", finding->file,
                       (unsigned long long)finding->offset, finding->reason);
}

/* 3 */
static bool verify(check *c)
{
    struct findings findings = {0};
    npk_error err = {0};
    npk_status status = npk_store_verify(c->store, note_finding, NULL, &findings, &err);
    return (status == NPK_OK && findings.count == 0) ||
           bad(c, "verify: %s: %u findings: %s", err.message, findings.count, findings.first);
}

/* 4 */
static bool write_more(check *c)
{
    npk_error err = {0};
    npk_txn *txn = NULL;
    npk_status status = npk_txn_begin(c->store, UINT32_MAX, &txn, &err);
    if (status == NPK_OK) {
        status = explorer_grow(&c->after, txn, &err);
        if (c->nested) {
            explorer_history_push(c->nested, &c->after);
            c->nested->started++;
        }
        if (status != NPK_OK)
            npk_txn_abort(txn);
        else
            status = npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err);
    }
    if (status != NPK_OK)
        return bad(c, "no further transaction: %s: %s", npk_status_kind(status), err.message);
    if (c->nested)
        c->nested->durable = c->nested->acknowledged = c->nested->started;
    return true;
}

struct tally {
    uint64_t columns, others;
};

static int count_column(void *context, const char *name)
{
    struct tally *tally = context;
    size_t size = strlen(name);
    if (size == 20 && strcmp(name + 16, ".npy") == 0)
        tally->columns++;
    else
        tally->others++;
    return 0;
}

static bool leaves_no_orphan(check *c)
{
    npk_error err = {0};
    npk_stats stats = {.struct_size = sizeof stats};
    npk_status status = npk_store_compact(c->store, NULL, &err);
    if (status == NPK_OK)
        status = npk_store_stats(c->store, &stats, &err);
    if (status != NPK_OK)
        return bad(c, "compaction: %s: %s", npk_status_kind(status), err.message);
    const npk_io *io = memory_io_table(c->disk);
    npk_file *root = NULL, *columns = NULL;
    bool created;
    struct tally tally = {0, 0};
    int rc = io->open_root(io, EXPLORER_ROOT, false, &root, &created);
    if (!rc)
        rc = io->open(io, root, "columns", NPK_OPEN_READ | NPK_OPEN_DIRECTORY, &columns);
    if (!rc)
        rc = io->list(io, columns, count_column, &tally);
    io->close(io, columns);
    io->close(io, root);
    if (rc)
        return bad(c, "columns/ cannot be listed: errno %d", rc);
    /* A file that died unsynced was never made durable: it is known until it is retired, and may be gone. */
    uint64_t needed = stats.column_file_count - stats.dead_file_count;
    return (tally.columns <= stats.column_file_count && tally.columns >= needed && tally.others == 0) ||
           bad(c, "after compaction columns/ holds %llu files and %llu others, the store knows %llu",
               (unsigned long long)tally.columns, (unsigned long long)tally.others,
               (unsigned long long)stats.column_file_count);
}

static bool holds(check *c, npk_store *store, const model *m, const char *when)
{
    npk_source source = {.store = store};
    char reason[512] = "";
    return model_matches(m, &source, reason, sizeof reason) || bad(c, "%s: %s", when, reason);
}

static bool close_store(check *c)
{
    npk_error err = {0};
    npk_store *store = c->store;
    c->store = NULL;
    npk_status status = npk_store_close(store, &err);
    return status == NPK_OK || bad(c, "close: %s: %s", npk_status_kind(status), err.message);
}

/* 5 */
static bool reopens(check *c)
{
    npk_error err = {0};
    npk_status status = open_disk(c, c->disk, NPK_MODE_UPDATE, &c->store, &err);
    if (status != NPK_OK)
        return bad(c, "it does not open again: %s: %s", npk_status_kind(status), err.message);
    return holds(c, c->store, &c->after, "after reopening") && verify(c) && close_store(c);
}

static int note_newest(void *context, const char *name)
{
    char *newest = context;
    if (strlen(name) == 21 && strcmp(name + 16, ".ckpt") == 0 && strcmp(name, newest) > 0)
        memcpy(newest, name, 22);
    return 0;
}

/* 7 */
static bool does_without_checkpoint(check *c)
{
    const npk_io *io = memory_io_table(c->disk);
    npk_file *root = NULL, *directory = NULL;
    bool created;
    char newest[32] = "", path[64];
    int rc = io->open_root(io, EXPLORER_ROOT, false, &root, &created);
    if (!rc)
        rc = io->open(io, root, "checkpoint", NPK_OPEN_READ | NPK_OPEN_DIRECTORY, &directory);
    if (!rc)
        rc = io->list(io, directory, note_newest, newest);
    io->close(io, directory);
    io->close(io, root);
    if (rc || !newest[0])
        return bad(c, "no checkpoint after a close: errno %d", rc);
    (void)snprintf(path, sizeof path, "checkpoint/%s", newest);
    rc = memory_io_remove(c->disk, EXPLORER_ROOT, path);
    if (rc)
        return bad(c, "%s cannot be removed: errno %d", path, rc);
    npk_error err = {0};
    npk_status status = open_disk(c, c->disk, NPK_MODE_UPDATE, &c->store, &err);
    if (status != NPK_OK)
        return bad(c, "without its newest checkpoint it does not open: %s: %s", npk_status_kind(status), err.message);
    return holds(c, c->store, &c->after, "without the newest checkpoint") && verify(c) && close_store(c);
}

static void watch(void *context, const memory_io_call *call)
{
    check *c = context;
    explorer_history_note(c->nested, c->disk, call);
}

/* The bounds of what was recorded before j was known. A power cut in the recovery of a durable state must find the same; in that of a dead
 * process's it may still lose what was not durable. */
static void settle_nested(check *c, unsigned j)
{
    explorer_history *nested = c->nested;
    for (unsigned i = 0; i <= j; i++)
        explorer_history_push(nested, &c->history->models[i]);
    for (size_t i = 0; i < nested->point_count; i++) {
        nested->points[i].durable = c->process_died ? c->point->durable : j;
        nested->points[i].acknowledged = nested->points[i].started = j;
    }
    nested->durable = nested->acknowledged = nested->started = j;
    nested->created = true;
}

/* 1 to 5, and 7; *right_after: the disk when the open had returned */
static bool examine(check *c, unsigned *found, memory_snapshot **right_after)
{
    if (c->nested) {
        c->nested->created = c->point->created;
        memory_io_set_hook(c->disk, watch, c);
    }
    if (!open_first(c))
        return false;
    char reason[1024] = "";
    unsigned low = c->process_died ? c->point->acknowledged : c->point->durable;
    int j = explorer_match(c->history, low, c->point->started, c->store, reason, sizeof reason);
    if (j < 0)
        return bad(c, "%s", reason);
    *found = (unsigned)j;
    if (c->nested)
        settle_nested(c, *found);
    *right_after = memory_io_snapshot(c->disk);
    model_copy(&c->after, &c->history->models[j]);
    bool good = verify(c) && write_more(c);
    /* The compaction writes a checkpoint, so only half of the states go on without one. */
    if (good && memory_snapshot_sequence(c->point->snapshot) % 2 == 0)
        good = leaves_no_orphan(c);
    good = good && holds(c, c->store, &c->after, "after one more transaction") && close_store(c);
    if (c->nested) {
        explorer_history_note(c->nested, c->disk, NULL);
        memory_io_set_hook(c->disk, NULL, NULL);
    }
    good = good && reopens(c);
    if (good && memory_snapshot_sequence(c->point->snapshot) % 3 == 0)
        good = does_without_checkpoint(c);
    return good;
}

/* 6 */
static bool recovers_twice(check *c, const memory_snapshot *right_after, unsigned j)
{
    static const memory_io_select ways[] = {MEMORY_IO_PROCESS_DIED, MEMORY_IO_NONE};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        memory_io_selection selection = {.select = ways[i]};
        npk_error err = {0};
        c->disk = memory_io_materialize(right_after, &selection, c->x->settings.state_path);
        npk_status status = open_disk(c, c->disk, NPK_MODE_UPDATE, &c->store, &err);
        const char *what = i ? "power cut right after recovery" : "process death right after recovery";
        bool good = status == NPK_OK || bad(c, "%s: it does not open: %s: %s", what, npk_status_kind(status), err.message);
        good = good && holds(c, c->store, &c->history->models[j], what) && close_store(c);
        if (c->store)
            (void)npk_store_close(c->store, NULL);
        c->store = NULL;
        memory_io_destroy(c->disk);
        if (!good)
            return false;
    }
    return true;
}

bool explorer_check(explorer *x, const explorer_history *history, const explorer_point *point,
                    const memory_io_selection *selection, explorer_history *nested, char *text, size_t text_size)
{
    check c = {.x = x, .history = history, .point = point, .nested = nested, .text = text, .text_size = text_size,
               .process_died = selection->select == MEMORY_IO_PROCESS_DIED};
    unsigned j = 0;
    memory_snapshot *right_after = NULL;
    text[0] = '\0';
    model_init(&c.after);
    c.disk = memory_io_materialize(point->snapshot, selection, x->settings.state_path);
    bool good = examine(&c, &j, &right_after);
    if (c.store)
        (void)npk_store_close(c.store, NULL);
    c.store = NULL;
    if (good && (memory_io_open_count(c.disk) || memory_io_map_count(c.disk)))
        good = bad(&c, "%zu files and %lld maps are left open", memory_io_open_count(c.disk),
                   (long long)memory_io_map_count(c.disk));
    memory_io_destroy(c.disk);
    good = good && recovers_twice(&c, right_after, j);
    memory_snapshot_release(right_after);
    model_release(&c.after);
    return good;
}
