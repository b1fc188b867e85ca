/* opening.c - opening, creating and closing a store. Step numbers are those of opening.h. */
#include "opening.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "alloc.h"
#include "bytes.h"
#include "checkpoint.h"
#include "checksum.h"
#include "error.h"
#include "orphans.h"
#include "recover.h"
#include "reclaim.h"
#include "reserve.h"
#include "store_files.h"
#include "upkeep.h"
#include "view.h"
#include "worker.h"
#include "writer.h"

/* ---- FORMAT ---------------------------------------------------------------------------------------------------------- */

#define WAIT_SLICE_US 20000u

#define FORMAT_MAGIC "NPKSTOR\n"
#define FORMAT_VERSION 1u
#define RUST_METADATA "metadata.npkm" /* what a directory of the Rust package holds */
enum { FORMAT_AT_VERSION = 8, FORMAT_AT_UUID = 16, FORMAT_AT_CREATED = 32, FORMAT_AT_CHECKSUM = 56, FORMAT_SIZE = 64 };

npk_status npk_format_read(const npk_io *io, npk_file *root, uint8_t uuid[16], uint64_t *created_us, npk_error *err)
{
    npk_file *file = NULL;
    int rc = io->open(io, root, NPK_FILE_FORMAT, NPK_OPEN_READ, &file);
    if (rc)
        return npk_fail_errno(err, rc, "could not open file \"%s\"", NPK_FILE_FORMAT);
    uint8_t bytes[FORMAT_SIZE];
    size_t done = 0;
    npk_status status = npk_io_read_full(io, file, 0, bytes, sizeof bytes, &done, NPK_FILE_FORMAT, err);
    io->close(io, file);
    if (status != NPK_OK)
        return status;
    if (done < 8 || memcmp(bytes, FORMAT_MAGIC, 8) != 0)
        return npk_fail(err, NPK_FORMAT, "file \"%s\" is not that of a store", NPK_FILE_FORMAT);
    if (done < FORMAT_SIZE)
        return npk_fail(err, NPK_CORRUPT, "file \"%s\" is too short: %zu bytes", NPK_FILE_FORMAT, done);
    /* Before the version: a flipped bit in the version is damage, not a newer program's work. */
    if (!npk_checksum_matches(bytes, FORMAT_AT_CHECKSUM, npk_get_u64(bytes + FORMAT_AT_CHECKSUM)))
        return npk_fail(err, NPK_CORRUPT, "file \"%s\": checksum mismatch", NPK_FILE_FORMAT);
    uint32_t version = npk_get_u32(bytes + FORMAT_AT_VERSION);
    if (version > FORMAT_VERSION)
        return npk_fail(err, NPK_FORMAT, "the store has format version %u, this library knows versions up to %u; use a newer one", version,
                        FORMAT_VERSION);
    if (version != FORMAT_VERSION)
        return npk_fail(err, NPK_CORRUPT, "file \"%s\": impossible version %u", NPK_FILE_FORMAT, version);
    memcpy(uuid, bytes + FORMAT_AT_UUID, 16);
    *created_us = npk_get_u64(bytes + FORMAT_AT_CREATED);
    return NPK_OK;
}

npk_status npk_format_write(const npk_io *io, npk_file *root, const uint8_t uuid[16], uint64_t created_us, npk_error *err)
{
    uint8_t bytes[FORMAT_SIZE] = {0};
    memcpy(bytes, FORMAT_MAGIC, 8);
    npk_put_u32(bytes + FORMAT_AT_VERSION, FORMAT_VERSION);
    memcpy(bytes + FORMAT_AT_UUID, uuid, 16);
    npk_put_u64(bytes + FORMAT_AT_CREATED, created_us);
    npk_put_u64(bytes + FORMAT_AT_CHECKSUM, npk_checksum(bytes, FORMAT_AT_CHECKSUM));
    (void)io->unlink(io, root, NPK_FILE_FORMAT_TEMP); /* of a creation that died here */
    return npk_io_replace_file(io, root, NPK_FILE_FORMAT_TEMP, NPK_FILE_FORMAT, bytes, sizeof bytes, err);
}

npk_status npk_format_find(const npk_io *io, npk_file *root, npk_file *wal, uint8_t uuid[16], uint64_t *created_us, bool *from_log,
                           npk_error *err)
{
    npk_status status = npk_format_read(io, root, uuid, created_us, err);
    *from_log = false;
    if (status != NPK_NOT_FOUND && status != NPK_FORMAT && status != NPK_CORRUPT)
        return status;
    /* A store of a newer format has newer segments, which say nothing here. */
    npk_status found = wal ? npk_wal_find_uuid(io, wal, uuid, created_us, NULL) : NPK_NOT_FOUND;
    *from_log = found == NPK_OK;
    return *from_log ? NPK_OK : status;
}

/* ---- the registry ------------------------------------------------------------------------------------------------------ */

/* Held for moments only, never over a call to the system, a wait or a function of the caller's: fork waits for it. */
static pthread_mutex_t registry_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t registry_changed; /* a core's state changed, or it went */
static npk_core *registry;              /* registry_mutex; cores in all states */
/* A leaf. Fork waits for it too: while LOCK is opened, and while LOCK and the index are taken out of a core, so that a child knows of each
 * that is open. */
static pthread_mutex_t fork_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t registry_once = PTHREAD_ONCE_INIT;

static void before_fork(void)
{
    (void)pthread_mutex_lock(&registry_mutex);
    (void)pthread_mutex_lock(&fork_mutex);
}

static void after_fork_in_parent(void)
{
    (void)pthread_mutex_unlock(&fork_mutex);
    (void)pthread_mutex_unlock(&registry_mutex);
}

/* The child has the parent's descriptors. Closing LOCK here takes no lock from the parent: an OFD lock goes with the last descriptor of
 * the open file. Mutexes and the LMDB environment may be in any state and are left alone. So may be a core that another thread of the
 * parent was opening or closing, or whose index it was replacing: of each core only these two are used, which change at once. */
static void after_fork_in_child(void)
{
    (void)pthread_mutex_init(&fork_mutex, NULL);
    (void)npk_cond_init(&registry_changed);
    for (npk_core *core = registry; core; core = core->next) {
        atomic_store(&core->is_forked, true);
        core->io->close(core->io, core->lock_file);
        core->lock_file = NULL;
        npk_index_abandon(core->index);
        core->index = NULL;
    }
    registry = NULL;
    (void)pthread_mutex_init(&registry_mutex, NULL);
}

static void start_registry(void)
{
    (void)npk_cond_init(&registry_changed);
    (void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

static npk_core *find_core(const npk_io *io, const npk_file_info *root)
{
    for (npk_core *core = registry; core; core = core->next)
        if (core->io == io && core->device == root->device && core->inode == root->inode)
            return core;
    return NULL;
}

/* registry_mutex held; given up meanwhile. For another thread to get on with opening or closing the store. */
static npk_status wait_for_registry(const npk_io *io, const npk_settings *settings, uint64_t deadline_us, const char *path,
                                    npk_error *err)
{
    uint64_t now = io->monotonic_us(io);
    if (now >= deadline_us)
        return npk_fail(err, NPK_BUSY, "store \"%s\" is being opened or closed by another thread", path);
    (void)npk_cond_wait_us(&registry_changed, &registry_mutex, npk_min_u64(WAIT_SLICE_US, deadline_us - now));
    if (!settings->interrupt)
        return NPK_OK;
    (void)pthread_mutex_unlock(&registry_mutex);
    bool stop = settings->interrupt(settings->interrupt_context) != 0;
    (void)pthread_mutex_lock(&registry_mutex);
    return stop ? npk_fail(err, NPK_INTERRUPTED, "interrupted while waiting for another thread") : NPK_OK;
}

static void enter_registry(npk_core *core) /* registry_mutex held */
{
    core->next = registry;
    registry = core;
}

static void leave_registry(npk_core *core)
{
    (void)pthread_mutex_lock(&registry_mutex);
    for (npk_core **link = &registry; *link; link = &(*link)->next) {
        if (*link == core) {
            *link = core->next;
            break;
        }
    }
    (void)pthread_cond_broadcast(&registry_changed);
    (void)pthread_mutex_unlock(&registry_mutex);
}

static void set_state(npk_core *core, npk_core_state state)
{
    (void)pthread_mutex_lock(&registry_mutex);
    core->state = state;
    (void)pthread_cond_broadcast(&registry_changed);
    (void)pthread_mutex_unlock(&registry_mutex);
}

/* ---- making and freeing a core ------------------------------------------------------------------------------------------ */

/* Close what is open. Who has the store open waits for the state of the core, so it is done before it leaves the registry: there is
 * never a second environment or LOCK of one store. */
static void close_files(npk_core *core)
{
    const npk_io *io = core->io;
    npk_view_forget_arrays(core);
    if (core->lock_file) { /* a child of fork that comes now may keep the descriptor, but no lock */
        npk_locks_release(io, core->lock_file, NPK_LOCK_OPEN);
        if (core->pin_slot >= 0)
            npk_locks_release(io, core->lock_file, (uint64_t)(NPK_LOCK_PIN_BASE + core->pin_slot));
    }
    (void)pthread_mutex_lock(&fork_mutex);
    npk_index *index = core->index;
    npk_file *lock_file = core->lock_file;
    core->index = NULL;
    core->lock_file = NULL;
    (void)pthread_mutex_unlock(&fork_mutex);
    npk_kv_close(core->writer_kv);
    core->writer_kv = NULL;
    npk_index_close(index);
    npk_control_close(io, core->control);
    npk_columns_close(core->columns);
    npk_wal_close(core->wal);
    io->close(io, core->columns_directory);
    io->close(io, core->checkpoint_directory);
    io->close(io, core->index_directory);
    io->close(io, lock_file); /* gives every lock of this process up */
    io->close(io, core->root);
}

static void free_core(npk_core *core)
{
    while (core->pins) {
        npk_pin *pin = core->pins;
        core->pins = pin->next;
        npk_free(pin);
    }
    (void)pthread_rwlock_destroy(&core->index_lock);
    (void)pthread_mutex_destroy(&core->writer_mutex);
    (void)pthread_cond_destroy(&core->writer_free);
    (void)pthread_mutex_destroy(&core->compactor_mutex);
    (void)pthread_mutex_destroy(&core->pin_mutex);
    (void)pthread_mutex_destroy(&core->cache_mutex);
    (void)pthread_mutex_destroy(&core->worker_mutex);
    (void)pthread_cond_destroy(&core->worker_wake);
    npk_free(core->path);
    npk_free(core);
}

/* "before_publish:<ms>": a test wants time to kill the process between sync and publish. */
static uint64_t pause_from_environment(void)
{
    static const char prefix[] = "before_publish:";
    const char *text = getenv("NPK_TEST_PAUSE");
    if (!text || strncmp(text, prefix, sizeof prefix - 1) != 0)
        return 0;
    return strtoull(text + sizeof prefix - 1, NULL, 10) * 1000;
}

/* Takes root over. */
static npk_status make_core(const npk_io *io, npk_file *root, const npk_file_info *info, const char *path,
                            const npk_settings *settings, npk_core **out, npk_error *err)
{
    npk_core *core = npk_calloc(1, sizeof *core);
    char *copy = npk_strdup(path);
    if (!core || !copy) {
        npk_free(core);
        npk_free(copy);
        io->close(io, root);
        return npk_fail(err, NPK_NO_MEMORY, "could not allocate a store");
    }
    core->io = io;
    core->settings = *settings;
    core->root = root;
    core->device = info->device;
    core->inode = info->inode;
    core->path = copy;
    core->pin_slot = -1;
    core->state = NPK_CORE_OPENING;
    core->handle_count = 1;
    core->log_generation = UINT64_MAX;
    core->logged_since_fold = UINT64_MAX / 2; /* unknown: the first look is an exact one */
    core->pause_before_publish_us = pause_from_environment();
    io->process(io, &core->process);
    if (settings->program[0])
        memcpy(core->process.program, settings->program, sizeof core->process.program);
    (void)pthread_rwlock_init(&core->index_lock, NULL);
    (void)pthread_mutex_init(&core->writer_mutex, NULL);
    (void)npk_cond_init(&core->writer_free);
    (void)pthread_mutex_init(&core->compactor_mutex, NULL);
    (void)pthread_mutex_init(&core->pin_mutex, NULL);
    (void)pthread_mutex_init(&core->cache_mutex, NULL);
    (void)pthread_mutex_init(&core->worker_mutex, NULL);
    (void)npk_cond_init(&core->worker_wake);
    *out = core;
    return NPK_OK;
}

/* ---- directories ----------------------------------------------------------------------------------------------------------- */

static npk_status open_directory(npk_core *core, const char *name, npk_file **directory, npk_error *err)
{
    const npk_io *io = core->io;
    int rc = io->open(io, core->root, name, NPK_OPEN_READ | NPK_OPEN_DIRECTORY, directory);
    if (rc == ENOENT && !core->read_only) {
        rc = io->make_directory(io, core->root, name);
        if (rc == 0 || rc == EEXIST)
            rc = io->open(io, core->root, name, NPK_OPEN_READ | NPK_OPEN_DIRECTORY, directory);
    }
    if (rc)
        return npk_fail_errno(err, rc, "could not open directory \"%s\"", name);
    return NPK_OK;
}

static npk_status open_directories(npk_core *core, npk_error *err)
{
    npk_file *wal = NULL;
    npk_status status = open_directory(core, NPK_DIRECTORY_COLUMNS, &core->columns_directory, err);
    if (status == NPK_OK)
        status = open_directory(core, NPK_DIRECTORY_CHECKPOINT, &core->checkpoint_directory, err);
    if (status == NPK_OK)
        status = open_directory(core, NPK_DIRECTORY_INDEX, &core->index_directory, err);
    if (status == NPK_OK)
        status = open_directory(core, NPK_DIRECTORY_WAL, &wal, err);
    if (status != NPK_OK)
        return status;
    npk_wal_options options = {.io = core->io, .segment_size = core->settings.segment_size};
    memcpy(options.uuid, core->uuid, 16);
    status = npk_wal_open(wal, &options, &core->wal, err);
    if (status != NPK_OK) {
        core->io->close(core->io, wal);
        return status;
    }
    return npk_columns_open(core->io, core->columns_directory, core->uuid, &core->columns, err);
}

struct name_list { /* names of a directory, copied so that they can be removed */
    char (*names)[NPK_FILE_NAME_SIZE];
    size_t count, capacity;
};

static int note_name(void *context, const char *name)
{
    struct name_list *list = context;
    size_t size = strlen(name) + 1;
    if (size > NPK_FILE_NAME_SIZE)
        return 0; /* not one of ours */
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 16;
        char(*names)[NPK_FILE_NAME_SIZE] = npk_realloc(list->names, capacity * sizeof *names);
        if (!names)
            return ENOMEM;
        list->names = names;
        list->capacity = capacity;
    }
    memcpy(list->names[list->count++], name, size);
    return 0;
}

npk_status npk_index_directory_clear(const npk_io *io, npk_file *directory, npk_error *err)
{
    struct name_list list = {0};
    int rc = io->list(io, directory, note_name, &list);
    for (size_t i = 0; i < list.count && !rc; i++) {
        uint64_t number;
        if (npk_store_files_decode_index(list.names[i], &number))
            rc = npk_index_remove(io, directory, list.names[i]);
        else if (strcmp(list.names[i], NPK_FILE_CONTROL) == 0 || strcmp(list.names[i], NPK_FILE_CONTROL_TEMP) == 0)
            rc = io->unlink(io, directory, list.names[i]);
    }
    npk_free(list.names);
    if (rc)
        return npk_fail_errno(err, rc, "could not clear the index directory");
    return NPK_OK;
}

/* ---- creating --------------------------------------------------------------------------------------------------------------- */

static int count_name(void *context, const char *name)
{
    (void)name;
    ++*(size_t *)context;
    return 0;
}

static npk_status count_files(npk_core *core, npk_file *directory, size_t *count, npk_error *err)
{
    *count = 0;
    int rc = core->io->list(core->io, directory, count_name, count);
    if (rc)
        return npk_fail_errno(err, rc, "could not list a directory of the store");
    return NPK_OK;
}

static void count_segments(void *context, const npk_segment_info *info)
{
    uint64_t *highest = context;
    if (info->seq > *highest)
        *highest = info->seq;
}

/* FORMAT is missing. A creation that died leaves at most one segment without records; anything more is a store that lost the file. */
static npk_status refuse_lost_format(npk_core *core, npk_error *err)
{
    size_t columns = 0, checkpoints = 0;
    uint64_t highest = 0;
    npk_status status = count_files(core, core->columns_directory, &columns, err);
    if (status == NPK_OK)
        status = count_files(core, core->checkpoint_directory, &checkpoints, err);
    if (status == NPK_OK)
        status = npk_wal_list(core->wal, count_segments, &highest, err);
    if (status != NPK_OK)
        return status;
    bool used = columns || checkpoints || highest > 1;
    if (!used && highest == 1) {
        npk_wal_scan scan = {.from_lsn = NPK_WAL_FIRST_LSN};
        used = npk_wal_scan_log(core->wal, &scan, NULL) == NPK_OK &&
               (scan.transaction_count || scan.tail_size || scan.end.lsn > NPK_WAL_FIRST_LSN);
    }
    if (used)
        return npk_fail(err, NPK_CORRUPT, "store \"%s\" has lost its file \"%s\"; nothing was changed; run npk-recover",
                        core->path, NPK_FILE_FORMAT);
    return NPK_OK;
}

/* Directories of an unfinished creation go too: a sync of their names may have failed, and only a name that is made anew is written by
 * the next one. One that cannot be removed is used as it is. */
static void remove_directories(npk_core *core)
{
    static const char *const names[] = {NPK_DIRECTORY_WAL, NPK_DIRECTORY_COLUMNS, NPK_DIRECTORY_CHECKPOINT};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        (void)core->io->remove_directory(core->io, core->root, names[i]);
}

/* What an unfinished creation left of the log. */
static npk_status remove_log(npk_core *core, npk_error *err)
{
    uint64_t removed = 0;
    npk_status status = npk_wal_remove_leftovers(core->wal, err);
    if (status == NPK_OK)
        status = npk_wal_reclaim(core->wal, UINT64_MAX, &removed, err);
    return status == NPK_OK ? NPK_OK : npk_context(err, status, "clear the log of an unfinished creation");
}

/* The store's own name first, FORMAT last: before that the directory is not a store. */
static npk_status finish_creation(npk_core *core, npk_error *err)
{
    int rc = core->io->sync_parent(core->io, core->root, core->path);
    if (rc)
        return npk_fail_errno(err, rc, "could not sync the directory that holds the store");
    return npk_format_write(core->io, core->root, core->uuid, core->created_us, err);
}

static npk_status create_store(npk_core *core, npk_error *err)
{
    const npk_io *io = core->io;
    npk_status status = open_directories(core, err); /* with a uuid of zeros: to look at what is there */
    if (status == NPK_OK)
        status = refuse_lost_format(core, err);
    if (status == NPK_OK)
        status = remove_log(core, err);
    if (status != NPK_OK)
        return status;
    npk_columns_close(core->columns);
    npk_wal_close(core->wal);
    io->close(io, core->columns_directory);
    io->close(io, core->checkpoint_directory);
    io->close(io, core->index_directory);
    core->columns = NULL;
    core->wal = NULL;
    core->columns_directory = core->checkpoint_directory = core->index_directory = NULL;
    remove_directories(core);
    int rc = io->random(io, core->uuid, sizeof core->uuid);
    if (rc)
        return npk_fail_errno(err, rc, "could not get a random number");
    core->created_us = io->now_us(io);
    status = open_directories(core, err);
    npk_wal_end end;
    if (status == NPK_OK)
        status = npk_wal_create(core->wal, &end, err);
    if (status == NPK_OK) {
        rc = io->sync(io, core->root); /* the names of the directories */
        if (rc)
            status = npk_fail_errno(err, rc, "could not sync the store directory");
    }
    return status == NPK_OK ? finish_creation(core, err) : status;
}

/* ---- opening ------------------------------------------------------------------------------------------------------------------ */

static bool is_column_name(const char *name)
{
    uint64_t id;
    return npk_store_files_decode_column(name, &id) || npk_store_files_decode_column_temp(name, &id);
}

static bool is_checkpoint_name(const char *name)
{
    uint64_t lsn;
    return npk_store_files_decode_checkpoint(name, &lsn) || npk_store_files_decode_checkpoint_temp(name, &lsn);
}

static bool is_index_name(const char *name)
{
    uint64_t number;
    return npk_store_files_decode_index(name, &number) || strcmp(name, NPK_FILE_CONTROL) == 0 ||
           strcmp(name, NPK_FILE_CONTROL_TEMP) == 0;
}

struct foreign_search {
    bool (*owns)(const char *name);
    char found[256];
};

static int find_foreign(void *context, const char *name)
{
    struct foreign_search *search = context;
    if (search->owns(name))
        return 0;
    (void)snprintf(search->found, sizeof search->found, "%s", name);
    return -1;
}

/* A store takes directories of four names for its own and removes what it finds there. Not what somebody else put there: other files may
 * lie beside them, but not in them. */
static npk_status refuse_foreign(npk_core *core, npk_error *err)
{
    static const struct {
        const char *name;
        bool (*owns)(const char *name);
    } directories[] = {{NPK_DIRECTORY_WAL, npk_wal_owns_name},
                       {NPK_DIRECTORY_COLUMNS, is_column_name},
                       {NPK_DIRECTORY_CHECKPOINT, is_checkpoint_name},
                       {NPK_DIRECTORY_INDEX, is_index_name}};
    const npk_io *io = core->io;
    for (size_t i = 0; i < sizeof directories / sizeof directories[0]; i++) {
        npk_file *directory = NULL;
        int rc = io->open(io, core->root, directories[i].name, NPK_OPEN_READ | NPK_OPEN_DIRECTORY, &directory);
        if (rc == ENOENT)
            continue;
        if (rc == ENOTDIR || rc == ELOOP)
            return npk_fail(err, NPK_EXISTS, "no store can be made in directory \"%s\": \"%s\" is not a directory", core->path,
                            directories[i].name);
        if (rc)
            return npk_fail_errno(err, rc, "could not open directory \"%s\"", directories[i].name);
        struct foreign_search search = {directories[i].owns, ""};
        rc = io->list(io, directory, find_foreign, &search);
        io->close(io, directory);
        if (rc > 0)
            return npk_fail_errno(err, rc, "could not list directory \"%s\"", directories[i].name);
        if (search.found[0])
            return npk_fail(err, NPK_EXISTS, "no store can be made in directory \"%s\": file \"%s/%s\" is not of a store",
                            core->path, directories[i].name, search.found);
    }
    return NPK_OK;
}

static npk_status may_create(npk_core *core, npk_error *err)
{
    npk_file_info info;
    if (core->io->info_at(core->io, core->root, RUST_METADATA, &info) == 0)
        return npk_fail(err, NPK_FORMAT,
                        "directory \"%s\" belongs to the Rust package of this name (it holds %s); convert it with python -m "
                        "numpack.migrate",
                        core->path, RUST_METADATA);
    if (core->settings.mode == NPK_MODE_READ || core->settings.mode == NPK_MODE_UPDATE)
        return npk_fail(err, NPK_NOT_FOUND, "no store in directory \"%s\": file \"%s\" is missing", core->path,
                        NPK_FILE_FORMAT);
    return refuse_foreign(core, err);
}

/* The disk is full and recovery had to use the reserve: take back what the log holds needlessly, or a few more recoveries could not. */
static void find_room(npk_core *core)
{
    npk_reserve_ensure(core);
    if (!atomic_load(&core->control->reserve_gone))
        return;
    if (npk_reclaim_checkpoint(core, NULL) == NPK_OK && npk_reclaim_run(core, true, NULL) == NPK_OK)
        npk_reserve_ensure(core);
}

/* Steps 3 (got it) to 5. */
static npk_status open_first(npk_core *core, npk_error *err)
{
    npk_status status = npk_format_read(core->io, core->root, core->uuid, &core->created_us, err);
    bool created = status == NPK_NOT_FOUND;
    if (created) {
        status = may_create(core, err);
        if (status == NPK_OK)
            status = create_store(core, err);
    } else if (status == NPK_OK) {
        if (core->settings.mode == NPK_MODE_EXCLUSIVE)
            return npk_fail(err, NPK_EXISTS, "there is a store in directory \"%s\" already", core->path);
        status = open_directories(core, err);
    }
    if (status == NPK_OK)
        status = npk_wal_remove_leftovers(core->wal, err);
    if (status == NPK_OK)
        status = npk_index_directory_clear(core->io, core->index_directory, err);
    if (status == NPK_OK)
        status = npk_control_create(core->io, core->index_directory, &core->control, err);
    if (status == NPK_OK)
        npk_reclaim_note_checkpoints(core);
    /* Without a checkpoint the creation may have failed where FORMAT has its name but the disk does not know it: give it anew. */
    if (status == NPK_OK && !created && atomic_load(&core->checkpoint_lsn) == 0) {
        status = finish_creation(core, err);
        if (status == NPK_NO_SPACE) {
            npk_reserve_release(core);
            status = finish_creation(core, err);
        }
    }
    if (status == NPK_OK)
        status = npk_recover_build_index(core, 0, err);
    if (status == NPK_OK)
        status = npk_orphans_remove(core, NULL, err);
    if (status != NPK_OK)
        return status;
    npk_reclaim_note_checkpoints(core);
    find_room(core);
    bool got = false;
    status = npk_locks_try(core->io, core->lock_file, NPK_LOCK_OPEN, NPK_LOCK_SHARED, &got, err);
    if (status == NPK_OK && !got)
        status = npk_fail(err, NPK_BUSY, "could not share the lock of store \"%s\"", core->path);
    return status;
}

/* Step 6. */
static npk_status open_along(npk_core *core, npk_error *err)
{
    npk_status status = npk_format_read(core->io, core->root, core->uuid, &core->created_us, err);
    if (status != NPK_OK)
        return status;
    if (core->settings.mode == NPK_MODE_EXCLUSIVE)
        return npk_fail(err, NPK_EXISTS, "there is a store in directory \"%s\" already", core->path);
    status = open_directories(core, err);
    if (status == NPK_OK)
        status = npk_control_open(core->io, core->index_directory, &core->control, err);
    if (status != NPK_OK)
        return status;
    if (!atomic_load(&core->control->complete))
        return npk_fail(err, NPK_CORRUPT, "the index of store \"%s\" is not complete although it is in use", core->path);
    status = npk_view_open_index(core, &core->index_name, &core->index, err);
    if (status == NPK_OK)
        npk_reclaim_note_checkpoints(core);
    return status;
}

static npk_status open_lock_file(npk_core *core, npk_error *err)
{
    const npk_io *io = core->io;
    npk_file_info info;
    /* Do not leave a LOCK file in a directory that is no store and must not become one. */
    if (io->info_at(io, core->root, NPK_FILE_FORMAT, &info) == ENOENT) {
        npk_status status = may_create(core, err);
        if (status != NPK_OK)
            return status;
    }
    (void)pthread_mutex_lock(&fork_mutex);
    int rc = io->open(io, core->root, NPK_FILE_LOCK, NPK_OPEN_WRITE | NPK_OPEN_CREATE, &core->lock_file);
    (void)pthread_mutex_unlock(&fork_mutex);
    if (rc == 0)
        rc = io->info(io, core->lock_file, &core->lock_info);
    if (rc)
        return npk_fail_errno(err, rc, "could not open file \"%s\" of store \"%s\"", NPK_FILE_LOCK, core->path);
    return NPK_OK;
}

/* Steps 2 to 7. */
static npk_status open_core(npk_core *core, npk_error *err)
{
    if (!core->settings.network && core->io->is_network(core->io, core->root))
        return npk_fail(err, NPK_OTHER_HOST,
                        "store \"%s\" lies on a network file system, where locks of other hosts are not seen; network=True "
                        "opens it all the same",
                        core->path);
    npk_status status = open_lock_file(core, err);
    if (status != NPK_OK)
        return status;
    npk_wait wait = {(uint64_t)core->settings.busy_timeout_ms * 1000, core->settings.interrupt,
                     core->settings.interrupt_context};
    status = npk_locks_wait(core->io, core->lock_file, NPK_LOCK_GATE, NPK_LOCK_EXCLUSIVE, &wait, err);
    if (status == NPK_BUSY)
        return npk_fail(err, NPK_BUSY, "store \"%s\" is being opened or closed by another process", core->path);
    if (status != NPK_OK)
        return status;
    bool got = false;
    status = npk_locks_check_name(core->io, core->root, &core->lock_info, err);
    if (status == NPK_OK)
        status = npk_locks_try(core->io, core->lock_file, NPK_LOCK_OPEN, NPK_LOCK_EXCLUSIVE, &got, err);
    if (status == NPK_OK && got) {
        status = open_first(core, err);
    } else if (status == NPK_OK) {
        status = npk_locks_try(core->io, core->lock_file, NPK_LOCK_OPEN, NPK_LOCK_SHARED, &got, err);
        if (status == NPK_OK && !got)
            status = npk_fail(err, NPK_BUSY, "store \"%s\" is locked by another process", core->path);
        if (status == NPK_OK)
            status = open_along(core, err);
    }
    if (status != NPK_OK)
        npk_locks_release(core->io, core->lock_file, NPK_LOCK_OPEN); /* before GATE, as at close */
    npk_locks_release(core->io, core->lock_file, NPK_LOCK_GATE);
    return status;
}

static npk_status open_root(const npk_io *io, const char *path, const npk_settings *settings, npk_file **root,
                            npk_file_info *info, npk_error *err)
{
    bool create = settings->mode == NPK_MODE_CREATE || settings->mode == NPK_MODE_EXCLUSIVE, created = false;
    int rc = io->open_root(io, path, create, root, &created);
    if (rc == ENOTDIR)
        return npk_fail(err, NPK_EXISTS, "\"%s\" is not a directory", path);
    if (rc)
        return npk_fail_errno(err, rc, "could not open directory \"%s\"", path);
    rc = io->info(io, *root, info);
    if (rc) {
        io->close(io, *root);
        return npk_fail_errno(err, rc, "could not examine directory \"%s\"", path);
    }
    return NPK_OK;
}

/* Step 1. The core of this directory: one that is open, with one more user, or a new one that is being opened by us (*is_new).
 * Takes root over. */
static npk_status find_or_make_core(const npk_io *io, npk_file *root, const npk_file_info *info, const char *path,
                                    const npk_settings *settings, npk_core **out, bool *is_new, npk_error *err)
{
    uint64_t deadline;
    if (npk_add_overflow(io->monotonic_us(io), (uint64_t)settings->busy_timeout_ms * 1000, &deadline))
        deadline = UINT64_MAX;
    npk_core *made = NULL, *core = NULL;
    npk_status status = NPK_OK;
    *is_new = false;
    (void)pthread_mutex_lock(&registry_mutex);
    while (status == NPK_OK && !core) {
        npk_core *found = find_core(io, info);
        if (found && found->state != NPK_CORE_OPEN) {
            status = wait_for_registry(io, settings, deadline, path, err);
        } else if (found && settings->mode == NPK_MODE_EXCLUSIVE) {
            status = npk_fail(err, NPK_EXISTS, "there is a store in directory \"%s\" already", path);
        } else if (found) {
            core = found;
            (void)atomic_fetch_add(&core->handle_count, 1);
        } else if (made) {
            core = made;
            *is_new = true;
            enter_registry(core);
        } else {
            (void)pthread_mutex_unlock(&registry_mutex);
            status = make_core(io, root, info, path, settings, &made, err);
            root = NULL;
            (void)pthread_mutex_lock(&registry_mutex);
        }
    }
    (void)pthread_mutex_unlock(&registry_mutex);
    if (made && !*is_new) {
        close_files(made);
        free_core(made);
    }
    io->close(io, root);
    *out = core;
    return status;
}

npk_status npk_opening_open(const npk_io *io, const char *path, const npk_settings *settings, npk_core **out,
                            npk_error *err)
{
    (void)pthread_once(&registry_once, start_registry);
    npk_file *root = NULL;
    npk_file_info info;
    npk_status status = open_root(io, path, settings, &root, &info, err);
    if (status != NPK_OK)
        return status;
    npk_core *core = NULL;
    bool is_new = false;
    status = find_or_make_core(io, root, &info, path, settings, &core, &is_new, err);
    if (status == NPK_OK && is_new)
        status = open_core(core, err);
    if (status == NPK_OK) {
        npk_worker_start(core, settings); /* those before may only read, or want none */
        if (is_new)
            set_state(core, NPK_CORE_OPEN);
        *out = core;
        return NPK_OK;
    }
    if (is_new) {
        close_files(core);
        leave_registry(core);
        free_core(core);
    }
    if (status == NPK_READ_ONLY)
        return npk_fail(err, NPK_READ_ONLY,
                        "store \"%s\" cannot be opened without permission to write into its directory: reading takes locks and an index too",
                        path);
    return status == NPK_EXISTS ? status : npk_context(err, status, "open store \"%s\"", path);
}

/* ---- closing -------------------------------------------------------------------------------------------------------------------- */

/* The last process: fold, and leave the log with a watermark and a checkpoint at its end, so that the next open has nothing to do. */
static npk_status close_last(npk_core *core, npk_error *err)
{
    npk_position position = {0};
    npk_status status = npk_reclaim_position(core, &position, err);
    if (status != NPK_OK || position.lsn == atomic_load(&core->checkpoint_lsn))
        return status;
    npk_status folded = npk_upkeep_close(core, err);
    bool done = false;
    status = npk_writer_mark(core, &done, folded == NPK_OK ? err : NULL);
    if (status == NPK_OK)
        status = npk_reclaim_checkpoint(core, folded == NPK_OK ? err : NULL);
    if (status == NPK_OK)
        status = npk_reclaim_run(core, false, folded == NPK_OK ? err : NULL);
    return folded == NPK_OK ? status : folded;
}

static npk_status close_core(npk_core *core, npk_error *err)
{
    npk_worker_stop(core);
    npk_view_forget_arrays(core);
    /* The directory may be gone: then there is nothing to leave in order, and nothing to complain about. */
    npk_status status = npk_locks_check_name(core->io, core->root, &core->lock_info, err);
    if (status != NPK_OK)
        return status == NPK_MISUSE ? NPK_OK : status;
    npk_wait wait = {(uint64_t)core->settings.busy_timeout_ms * 1000, NULL, NULL};
    status = npk_locks_wait(core->io, core->lock_file, NPK_LOCK_GATE, NPK_LOCK_EXCLUSIVE, &wait, err);
    if (status != NPK_OK)
        return status == NPK_BUSY ? NPK_OK : status; /* others are at the gate: they are not gone, so we are not the last */
    bool last = false;
    status = npk_locks_try(core->io, core->lock_file, NPK_LOCK_OPEN, NPK_LOCK_EXCLUSIVE, &last, err);
    if (status == NPK_OK && last) {
        status = close_last(core, err);
        if (status == NPK_OK)
            npk_reserve_ensure(core);
    }
    npk_locks_release(core->io, core->lock_file, NPK_LOCK_OPEN); /* before GATE: whoever passes it next must be able to take OPEN */
    npk_locks_release(core->io, core->lock_file, NPK_LOCK_GATE);
    return status;
}

void npk_core_retain(npk_core *core)
{
    (void)atomic_fetch_add(&core->handle_count, 1); /* the caller has one, so it is open */
}

/* One user less; true: it was the last one, and the core is ours to close. */
static bool give_handle_up(npk_core *core)
{
    uint64_t count = atomic_load(&core->handle_count);
    while (count > 1)
        if (atomic_compare_exchange_weak(&core->handle_count, &count, count - 1))
            return false;
    (void)pthread_mutex_lock(&registry_mutex);
    bool last = atomic_fetch_sub(&core->handle_count, 1) == 1;
    if (last)
        core->state = NPK_CORE_CLOSING;
    (void)pthread_mutex_unlock(&registry_mutex);
    return last;
}

npk_status npk_core_release(npk_core *core, npk_error *err)
{
    if (atomic_load(&core->is_forked)) {
        /* The parent's: its mutexes and maps may be in any state here. The descriptors that matter are closed; the rest is left. */
        return NPK_OK;
    }
    if (!give_handle_up(core))
        return NPK_OK;
    npk_status status = close_core(core, err);
    if (status != NPK_OK)
        status = npk_context(err, status, "close store \"%s\"", core->path);
    close_files(core);
    leave_registry(core);
    free_core(core);
    return status;
}
