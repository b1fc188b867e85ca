/* index.c - the only file that knows LMDB.
 *
 * Inside a process:
 *   - Readers come from a pool of read transactions that are reset and renewed; an idle one keeps its slot in the reader table.
 *   - "Active" counts the transactions of this process. The map may only be replaced while there are none: remap waits for that and holds
 *     new ones back meanwhile - but only for a moment until it really starts, so that a thread that already reads may begin again.
 *
 * Between processes LMDB does everything but this:
 *   - lock.mdb: each process keeps a second open description (guard) with two shared OFD locks, closed after the environment. Byte 0: while
 *     anyone holds it, no opener believes to be alone and initialises the reader table, even after a stray open + close in this
 *     process dropped LMDB's own POSIX locks. Byte ALIVE_BASE + pid: see check_readers.
 *   - data.mdb: preallocated through a second description, whose size LMDB does not look at. */
#include "index.h"

#include <errno.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "bytes.h"
#include "error.h"
#include "overlay.h"
#include "thread.h"

enum {
    READER_COUNT_MAX = 1024,
    IDLE_READER_COUNT_MAX = 64,
    LOCK_FILE_SIZE = 65536 + 4096, /* LMDB's header and 64 bytes for each reader, and some more readers */
    TREE_DEPTH_MAX = 6,            /* pages from root to leaf; 4 hold 20 million entries of the usual size */
    ENTRY_OVERHEAD = 16,           /* bytes LMDB adds to an entry in a page */
    REMAP_WAIT_US = 10 * 1000 * 1000,
    REMAP_HOLD_US = 20 * 1000, /* how long a waiting remap holds new transactions back */
    RETRY_COUNT = 8
};

#define MAP_SIZE_DEFAULT ((uint64_t)256 << 20)
#define MAP_SIZE_MIN ((uint64_t)1 << 20)
#define ALLOCATION_STEP_MIN ((uint64_t)64 << 10)
#define ALLOCATION_STEP_MAX ((uint64_t)1 << 20)
#define ALIVE_BASE ((uint64_t)1 << 40) /* in lock.mdb, far behind every pid */

/* All tables lie in one tree, the environment's own: the first byte of a key is the place of its table in this order. A commit changes an entry
 * or two in each of five tables; with a tree each that is eight pages to copy and write, in the one tree of a usual store three or four.
 * What an append touches lies side by side at the end of the tree, so that most commits change one leaf. Measured for a durable one-row
 * commit, the sync of 87 us included: 130 us with a tree for each table, 115 us with one, another 2 us less in this order. */
const npk_table npk_index_order[NPK_TABLE_COUNT] = {
    NPK_TABLE_NAMES, NPK_TABLE_ATTRS, NPK_TABLE_SUMS, NPK_TABLE_ROWS, NPK_TABLE_PLACES, NPK_TABLE_MAP, NPK_TABLE_ARRAYS, NPK_TABLE_STORE,
};
static const uint8_t place_in_order[NPK_TABLE_COUNT] = {
    [NPK_TABLE_NAMES] = 0, [NPK_TABLE_ATTRS] = 1, [NPK_TABLE_SUMS] = 2, [NPK_TABLE_ROWS] = 3,
    [NPK_TABLE_PLACES] = 4, [NPK_TABLE_MAP] = 5, [NPK_TABLE_ARRAYS] = 6, [NPK_TABLE_STORE] = 7,
};

typedef struct table_key {
    uint8_t bytes[1 + NPK_KEY_MAX];
    MDB_val value;
} table_key;

/* false: longer than any key. */
static bool make_key(table_key *made, npk_table table, const void *key, size_t key_size)
{
    if (key_size > NPK_KEY_MAX)
        return false;
    made->bytes[0] = place_in_order[table];
    if (key_size)
        memcpy(made->bytes + 1, key, key_size);
    made->value.mv_data = made->bytes;
    made->value.mv_size = 1 + key_size;
    return true;
}

static bool is_in_table(const MDB_val *key, npk_table table)
{
    return key->mv_size >= 1 && *(const uint8_t *)key->mv_data == place_in_order[table];
}

struct npk_index_reader {
    npk_index *index;
    MDB_txn *txn; /* reset while idle */
    MDB_cursor *cursors[NPK_TABLE_COUNT];   /* opened when first needed, kept */
    bool cursor_ready[NPK_TABLE_COUNT];     /* renewed in this transaction */
    bool cursor_placed[NPK_TABLE_COUNT];
    npk_index_reader *next;
};

struct npk_index {
    const npk_io *io;
    MDB_env *env;
    MDB_dbi tree;
    uint64_t page_size;
    uint64_t pid;
    npk_file *data;  /* for preallocation */
    npk_file *guard; /* lock.mdb; closed after env */
    uint64_t allocated_size; /* of data.mdb as far as known; writer lock */
    bool fail_next_publish;  /* writer lock */

    pthread_mutex_t mutex; /* guards everything below */
    pthread_cond_t changed;
    npk_index_reader *idle;
    unsigned idle_count;
    unsigned active;
    unsigned remap_waiting; /* threads that wait for active == 0 */
    bool remapping;
    bool broken; /* the old map is gone and no new one could be made */
};

static npk_status fail_lmdb(npk_error *err, int rc, const char *what)
{
    npk_status status;
    switch (rc) {
    case MDB_MAP_FULL: status = NPK_NO_SPACE; break;
    case MDB_READERS_FULL: status = NPK_BUSY; break;
    case MDB_BAD_VALSIZE: status = NPK_INVALID; break;
    case MDB_TXN_FULL:
    case MDB_MAP_RESIZED:
    case MDB_BAD_TXN:
    case MDB_BAD_RSLOT:
    case MDB_BAD_DBI:
    case MDB_DBS_FULL:
    case MDB_TLS_FULL: status = NPK_IO; break;
    default:
        if (rc > 0)
            return npk_fail_errno(err, rc, "could not %s the index", what);
        status = NPK_CORRUPT; /* CORRUPTED, PAGE_NOTFOUND, PANIC, INVALID, VERSION_MISMATCH, NOTFOUND where something must be ... */
    }
    return npk_fail(err, status, "could not %s the index: %s", what, mdb_strerror(rc));
}

/* ---- transactions of this process and the map ------------------------------------------------------------------------ */

/* mutex held. Wait while the map is replaced, and a moment while somebody waits to do it. */
static void wait_for_remap(npk_index *index)
{
    bool held = false;
    while (index->remapping || (index->remap_waiting && !held))
        if (!npk_cond_wait_us(&index->changed, &index->mutex, REMAP_HOLD_US))
            held = true;
}

static npk_status enter(npk_index *index, npk_error *err)
{
    (void)pthread_mutex_lock(&index->mutex);
    if (index->remapping || index->remap_waiting)
        wait_for_remap(index);
    bool broken = index->broken;
    if (!broken)
        index->active++;
    (void)pthread_mutex_unlock(&index->mutex);
    return broken ? npk_fail(err, NPK_NO_MEMORY, "the index could not be mapped again") : NPK_OK;
}

/* mutex held */
static void leave_locked(npk_index *index)
{
    if (--index->active == 0 && index->remap_waiting)
        (void)pthread_cond_broadcast(&index->changed);
}

static void leave(npk_index *index)
{
    (void)pthread_mutex_lock(&index->mutex);
    leave_locked(index);
    (void)pthread_mutex_unlock(&index->mutex);
}

/* Replace the map while no transaction of this process is active. size 0: as large as other processes made it. */
static npk_status remap(npk_index *index, uint64_t size, npk_error *err)
{
    uint64_t deadline = index->io->monotonic_us(index->io) + REMAP_WAIT_US;
    (void)pthread_mutex_lock(&index->mutex);
    index->remap_waiting++;
    bool free_to_go = true;
    while (index->active > 0 || index->remapping) {
        uint64_t now = index->io->monotonic_us(index->io);
        if (now >= deadline) {
            free_to_go = false;
            break;
        }
        (void)npk_cond_wait_us(&index->changed, &index->mutex, deadline - now);
    }
    index->remap_waiting--;
    if (free_to_go)
        index->remapping = true;
    bool broken = index->broken;
    (void)pthread_cond_broadcast(&index->changed);
    (void)pthread_mutex_unlock(&index->mutex);
    if (!free_to_go)
        return npk_fail(err, NPK_BUSY, "the index cannot grow: a reader of this process does not end");

    npk_status status = NPK_OK;
    int rc = 0;
    if (broken) {
        status = npk_fail(err, NPK_NO_MEMORY, "the index could not be mapped again");
        goto done;
    }
    /* LMDB takes the old map away first. Is there room for the new one? */
    npk_file_info info;
    rc = index->io->info(index->io, index->data, &info);
    if (rc) {
        status = npk_fail_errno(err, rc, "could not examine the index");
        goto done;
    }
    uint64_t probe_size = npk_max_u64(size, npk_max_u64(info.size, index->page_size));
    void *probe = NULL;
    rc = probe_size > SIZE_MAX ? ENOMEM
                               : index->io->map(index->io, index->data, 0, (size_t)probe_size, NPK_MAPPING_READ, &probe);
    if (rc) {
        status = npk_fail_errno(err, rc, "could not map %llu bytes of the index", (unsigned long long)probe_size);
        goto done;
    }
    index->io->unmap(index->io, probe, (size_t)probe_size);
    rc = mdb_env_set_mapsize(index->env, (size_t)size);
    if (rc) {
        broken = true;
        status = fail_lmdb(err, rc, "map");
    }
done:
    (void)pthread_mutex_lock(&index->mutex);
    index->remapping = false;
    index->broken = broken;
    (void)pthread_cond_broadcast(&index->changed);
    (void)pthread_mutex_unlock(&index->mutex);
    return status;
}

/* ---- the reader table ------------------------------------------------------------------------------------------------- */

typedef struct audit {
    npk_index *index;
    bool doubtful;
} audit;

static int audit_line(const char *line, void *context)
{
    audit *a = context;
    char *end;
    long pid = strtol(line, &end, 10);
    if (end == line || pid <= 0 || (uint64_t)pid == a->index->pid) /* the heading, or ourselves */
        return 0;
    const npk_io *io = a->index->io;
    bool alive = io->lock_test(io, a->index->guard, ALIVE_BASE + (uint64_t)pid, 1, NPK_LOCK_EXCLUSIVE) != 0;
    bool lmdb_sees_it = io->lock_test(io, a->index->guard, (uint64_t)pid, 1, NPK_LOCK_EXCLUSIVE) != 0;
    if (alive && !lmdb_sees_it)
        a->doubtful = true;
    return 0;
}

/* Free the slots of dead processes. LMDB knows the living by a POSIX lock on the byte of their pid in lock.mdb, which a stray
 * open + close in that process drops: it would then take the slots of a living reader away and let its pages be overwritten.
 * Hence our own mark, an OFD lock: when somebody lives whom LMDB takes for dead, nothing is freed. */
static void check_readers(npk_index *index)
{
    audit a = {index, false};
    int dead = 0;
    if (mdb_reader_list(index->env, audit_line, &a) >= 0 && !a.doubtful)
        (void)mdb_reader_check(index->env, &dead);
}

/* ---- open and close ---------------------------------------------------------------------------------------------------- */

static npk_status open_tree(npk_index *index, bool create, npk_error *err)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(index->env, NULL, create ? 0 : MDB_RDONLY, &txn);
    if (rc == MDB_READERS_FULL) {
        check_readers(index);
        rc = mdb_txn_begin(index->env, NULL, MDB_RDONLY, &txn);
    }
    for (unsigned i = 0; rc == MDB_MAP_RESIZED && i < RETRY_COUNT; i++) { /* somebody grew it since it was opened */
        npk_status status = remap(index, 0, err);
        if (status != NPK_OK)
            return status;
        rc = mdb_txn_begin(index->env, NULL, create ? 0 : MDB_RDONLY, &txn);
    }
    if (rc)
        return fail_lmdb(err, rc, "open");
    rc = mdb_dbi_open(txn, NULL, 0, &index->tree);
    if (rc) {
        mdb_txn_abort(txn);
    } else {
        npk_thread_hold_file_size_signal();
        rc = mdb_txn_commit(txn); /* keeps the handle, also when it only read */
        npk_thread_release_file_size_signal(rc != 0);
    }
    return rc ? fail_lmdb(err, rc, create ? "create the tree of" : "open the tree of") : NPK_OK;
}

/* The reader table is a shared mapping: without blocks on the disk, touching it on a full one would kill. */
static npk_status create_lock_file(const npk_io *io, npk_file *directory, npk_error *err)
{
    npk_file *file = NULL;
    int rc = io->open(io, directory, "lock.mdb", NPK_OPEN_WRITE | NPK_OPEN_CREATE | NPK_OPEN_EXCLUSIVE, &file);
    if (rc == 0)
        rc = io->allocate(io, file, 0, LOCK_FILE_SIZE);
    io->close(io, file);
    return rc ? npk_fail_errno(err, rc, "could not create the reader table of the index") : NPK_OK;
}

static npk_status allocate_data(npk_index *index, uint64_t size, npk_error *err)
{
    if (size <= index->allocated_size)
        return NPK_OK;
    /* A step more than asked, so that most calls find it done, in proportion: an index is made by each first open. On a nearly full disk
     * what is asked. */
    uint64_t step = npk_min_u64(npk_max_u64(size / 2, ALLOCATION_STEP_MIN), ALLOCATION_STEP_MAX);
    uint64_t wanted = npk_align_up(size + step, ALLOCATION_STEP_MIN);
    int rc = index->io->allocate(index->io, index->data, index->allocated_size, wanted - index->allocated_size);
    if (rc) {
        wanted = size;
        rc = index->io->allocate(index->io, index->data, index->allocated_size, wanted - index->allocated_size);
    }
    if (rc)
        return npk_fail_errno(err, rc, "could not reserve %llu bytes for the index", (unsigned long long)size);
    index->allocated_size = wanted;
    return NPK_OK;
}

static void free_reader(npk_index_reader *reader)
{
    for (unsigned i = 0; i < NPK_TABLE_COUNT; i++)
        if (reader->cursors[i])
            mdb_cursor_close(reader->cursors[i]);
    if (reader->txn)
        mdb_txn_abort(reader->txn);
    npk_free(reader);
}

npk_status npk_index_open(const npk_io *io, npk_file *index_directory, const char *name, bool create, uint64_t map_size,
                          npk_index **index, npk_error *err)
{
    npk_file *directory = NULL;
    npk_index *opened = npk_calloc(1, sizeof *opened);
    if (!opened)
        return npk_fail(err, NPK_NO_MEMORY, "could not allocate memory for the index");
    opened->io = io;
    int rc = pthread_mutex_init(&opened->mutex, NULL);
    if (rc) {
        npk_free(opened);
        return npk_fail_errno(err, rc, "could not create a mutex");
    }
    rc = npk_cond_init(&opened->changed);
    if (rc) {
        (void)pthread_mutex_destroy(&opened->mutex);
        npk_free(opened);
        return npk_fail_errno(err, rc, "could not create a condition variable");
    }
    npk_process process;
    io->process(io, &process);
    opened->pid = process.pid;

    npk_status status = NPK_OK;
    if (create) {
        rc = io->make_directory(io, index_directory, name);
        if (rc) {
            status = npk_fail_errno(err, rc, "could not create the index \"%s\"", name);
            goto fail;
        }
    }
    rc = io->open(io, index_directory, name, NPK_OPEN_READ | NPK_OPEN_DIRECTORY, &directory);
    npk_file_info info;
    if (rc == 0 && !create)
        rc = io->info_at(io, directory, "data.mdb", &info); /* LMDB would make a new one */
    if (rc == ENOENT || rc == ENOTDIR) {
        status = npk_fail(err, NPK_CORRUPT, "the index \"%s\" is missing", name);
        goto fail;
    }
    if (rc) {
        status = npk_fail_errno(err, rc, "could not open the index \"%s\"", name);
        goto fail;
    }
    if (create) {
        status = create_lock_file(io, directory, err);
        if (status != NPK_OK)
            goto fail;
    }
    char path[4096];
    rc = io->real_path(io, directory, path, sizeof path);
    if (rc) {
        status = npk_fail_errno(err, rc, "could not find the path of the index \"%s\"", name);
        goto fail;
    }

    rc = mdb_env_create(&opened->env);
    if (rc == 0)
        rc = mdb_env_set_maxreaders(opened->env, READER_COUNT_MAX);
    if (rc == 0 && create) { /* else what the creator and those who grew it wrote down */
        uint64_t size = map_size ? npk_max_u64(map_size, MAP_SIZE_MIN) : MAP_SIZE_DEFAULT;
        size = npk_align_up(npk_min_u64(size, SIZE_MAX / 4), MAP_SIZE_MIN);
        rc = mdb_env_set_mapsize(opened->env, (size_t)size);
    }
    if (rc == 0) {
        npk_thread_hold_file_size_signal();
        rc = mdb_env_open(opened->env, path, MDB_NOSYNC | MDB_NOMETASYNC | MDB_NOTLS, 0666);
        npk_thread_release_file_size_signal(rc != 0);
    }
    if (rc) {
        status = fail_lmdb(err, rc, "open");
        goto fail;
    }
    MDB_stat stat;
    rc = mdb_env_stat(opened->env, &stat);
    if (rc) {
        status = fail_lmdb(err, rc, "examine");
        goto fail;
    }
    opened->page_size = stat.ms_psize;

    rc = io->open(io, directory, "lock.mdb", NPK_OPEN_READ, &opened->guard);
    if (rc == 0)
        rc = io->lock(io, opened->guard, 0, 1, NPK_LOCK_SHARED);
    if (rc == 0)
        rc = io->lock(io, opened->guard, ALIVE_BASE + opened->pid, 1, NPK_LOCK_SHARED);
    if (rc == 0)
        rc = io->open(io, directory, "data.mdb", NPK_OPEN_WRITE, &opened->data);
    if (rc == 0)
        rc = io->info(io, opened->data, &info);
    if (rc) {
        status = npk_fail_errno(err, rc, "could not open the files of the index \"%s\"", name);
        goto fail;
    }
    opened->allocated_size = info.size;
    if (create)
        status = allocate_data(opened, 32 * opened->page_size, err);
    if (status == NPK_OK)
        status = open_tree(opened, create, err);
    if (status != NPK_OK)
        goto fail;
    io->close(io, directory);
    *index = opened;
    return NPK_OK;
fail:
    npk_index_close(opened);
    io->close(io, directory);
    return status;
}

void npk_index_close(npk_index *index)
{
    if (!index)
        return;
    while (index->idle) {
        npk_index_reader *reader = index->idle;
        index->idle = reader->next;
        free_reader(reader);
    }
    if (index->env)
        mdb_env_close(index->env);
    index->io->close(index->io, index->guard);
    index->io->close(index->io, index->data);
    (void)pthread_cond_destroy(&index->changed);
    (void)pthread_mutex_destroy(&index->mutex);
    npk_free(index);
}

struct content {
    bool data, lock, other;
};

static int examine_content(void *context, const char *name)
{
    struct content *content = context;
    if (strcmp(name, "data.mdb") == 0)
        content->data = true;
    else if (strcmp(name, "lock.mdb") == 0)
        content->lock = true;
    else
        content->other = true;
    return 0;
}

int npk_index_remove(const npk_io *io, npk_file *index_directory, const char *name)
{
    npk_file *directory = NULL;
    int rc = io->open(io, index_directory, name, NPK_OPEN_READ | NPK_OPEN_DIRECTORY, &directory);
    if (rc)
        return rc == ENOENT || rc == ENOTDIR || rc == ELOOP ? 0 : rc;
    struct content content = {0};
    rc = io->list(io, directory, examine_content, &content);
    if (!rc && !content.other && content.data)
        rc = io->unlink(io, directory, "data.mdb");
    if (!rc && !content.other && content.lock)
        rc = io->unlink(io, directory, "lock.mdb");
    io->close(io, directory);
    return rc || content.other ? rc : io->remove_directory(io, index_directory, name);
}

/* LMDB's own memory, its map and its two descriptors stay: it offers no way to give them back that leaves the shared table alone. So does
 * the struct: the mutex may be held by a thread that does not exist here, in the middle of a change. */
void npk_index_abandon(npk_index *index)
{
    if (!index)
        return;
    index->io->close(index->io, index->guard);
    index->io->close(index->io, index->data);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

npk_status npk_index_begin(npk_index *index, npk_index_reader **reader, npk_error *err)
{
    bool checked = false;
    for (unsigned attempt = 0;; attempt++) {
        (void)pthread_mutex_lock(&index->mutex);
        if (index->remapping || index->remap_waiting)
            wait_for_remap(index);
        if (index->broken) {
            (void)pthread_mutex_unlock(&index->mutex);
            return npk_fail(err, NPK_NO_MEMORY, "the index could not be mapped again");
        }
        index->active++;
        npk_index_reader *taken = index->idle;
        if (taken) {
            index->idle = taken->next;
            index->idle_count--;
        }
        (void)pthread_mutex_unlock(&index->mutex);

        int rc;
        if (taken) {
            rc = mdb_txn_renew(taken->txn);
        } else {
            taken = npk_calloc(1, sizeof *taken);
            if (!taken) {
                leave(index);
                return npk_fail(err, NPK_NO_MEMORY, "could not allocate memory for a reader of the index");
            }
            taken->index = index;
            rc = mdb_txn_begin(index->env, NULL, MDB_RDONLY, &taken->txn);
            if (rc)
                taken->txn = NULL;
        }
        if (rc == 0) {
            memset(taken->cursor_ready, 0, sizeof taken->cursor_ready);
            memset(taken->cursor_placed, 0, sizeof taken->cursor_placed);
            *reader = taken;
            return NPK_OK;
        }
        free_reader(taken);
        leave(index);
        if (rc == MDB_MAP_RESIZED && attempt < RETRY_COUNT) {
            npk_status status = remap(index, 0, err);
            if (status != NPK_OK)
                return status;
        } else if (rc == MDB_READERS_FULL && !checked) {
            checked = true;
            check_readers(index);
        } else {
            return fail_lmdb(err, rc, "read");
        }
    }
}

void npk_index_end(npk_index_reader *reader)
{
    npk_index *index = reader->index;
    mdb_txn_reset(reader->txn);
    (void)pthread_mutex_lock(&index->mutex);
    bool keep = index->idle_count < IDLE_READER_COUNT_MAX;
    if (keep) {
        reader->next = index->idle;
        index->idle = reader;
        index->idle_count++;
    }
    leave_locked(index);
    (void)pthread_mutex_unlock(&index->mutex);
    if (!keep)
        free_reader(reader);
}

uint64_t npk_index_version(npk_index *index)
{
    npk_index_reader *reader;
    if (npk_index_begin(index, &reader, NULL) != NPK_OK)
        return 0;
    uint64_t version = mdb_txn_id(reader->txn);
    npk_index_end(reader);
    return version;
}

npk_status npk_index_get(npk_index_reader *reader, npk_table table, const void *key, size_t key_size,
                         const uint8_t **value, size_t *value_size, bool *found, npk_error *err)
{
    table_key k;
    MDB_val v;
    int rc = key_size == 0 || !make_key(&k, table, key, key_size) ? MDB_NOTFOUND
                                                                  : mdb_get(reader->txn, reader->index->tree, &k.value, &v);
    if (rc && rc != MDB_NOTFOUND)
        return fail_lmdb(err, rc, "read");
    *found = rc == 0;
    if (rc == 0) {
        *value = v.mv_data;
        *value_size = v.mv_size;
    }
    return NPK_OK;
}

static npk_status ready_cursor(npk_index_reader *reader, npk_table table, MDB_cursor **cursor, npk_error *err)
{
    if (!reader->cursor_ready[table]) {
        int rc = reader->cursors[table]
                     ? mdb_cursor_renew(reader->txn, reader->cursors[table])
                     : mdb_cursor_open(reader->txn, reader->index->tree, &reader->cursors[table]);
        if (rc)
            return fail_lmdb(err, rc, "read");
        reader->cursor_ready[table] = true;
    }
    *cursor = reader->cursors[table];
    return NPK_OK;
}

/* What a cursor operation gave: an entry of another table is none. */
static npk_status give_entry(npk_index_reader *reader, npk_table table, int rc, const MDB_val *k, const MDB_val *v,
                             const uint8_t **found_key, size_t *found_key_size, const uint8_t **value,
                             size_t *value_size, bool *found, npk_error *err)
{
    if (rc && rc != MDB_NOTFOUND) {
        reader->cursor_placed[table] = false;
        return fail_lmdb(err, rc, "read");
    }
    reader->cursor_placed[table] = *found = rc == 0 && is_in_table(k, table);
    if (*found) {
        *found_key = (const uint8_t *)k->mv_data + 1;
        *found_key_size = k->mv_size - 1;
        *value = v->mv_data;
        *value_size = v->mv_size;
    }
    return NPK_OK;
}

npk_status npk_index_at_or_after(npk_index_reader *reader, npk_table table, const void *key, size_t key_size,
                                 const uint8_t **found_key, size_t *found_key_size, const uint8_t **value,
                                 size_t *value_size, bool *found, npk_error *err)
{
    MDB_cursor *cursor;
    npk_status status = ready_cursor(reader, table, &cursor, err);
    if (status != NPK_OK)
        return status;
    table_key made;
    MDB_val k = {0, NULL}, v = {0, NULL};
    int rc = MDB_NOTFOUND;
    if (make_key(&made, table, key, key_size)) {
        k = made.value;
        rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    }
    return give_entry(reader, table, rc, &k, &v, found_key, found_key_size, value, value_size, found, err);
}

npk_status npk_index_at_or_before(npk_index_reader *reader, npk_table table, const void *key, size_t key_size,
                                  const uint8_t **found_key, size_t *found_key_size, const uint8_t **value,
                                  size_t *value_size, bool *found, npk_error *err)
{
    MDB_cursor *cursor;
    npk_status status = ready_cursor(reader, table, &cursor, err);
    if (status != NPK_OK)
        return status;
    table_key made;
    MDB_val k = {0, NULL}, v = {0, NULL};
    int rc = MDB_NOTFOUND;
    if (key_size && make_key(&made, table, key, key_size)) {
        k = made.value;
        rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
        if (rc == MDB_NOTFOUND)
            rc = mdb_cursor_get(cursor, &k, &v, MDB_LAST);
        else if (rc == 0 && npk_overlay_compare(k.mv_data, k.mv_size, made.bytes, 1 + key_size) > 0)
            rc = mdb_cursor_get(cursor, &k, &v, MDB_PREV);
    }
    return give_entry(reader, table, rc, &k, &v, found_key, found_key_size, value, value_size, found, err);
}

npk_status npk_index_next(npk_index_reader *reader, npk_table table, const uint8_t **found_key, size_t *found_key_size,
                          const uint8_t **value, size_t *value_size, bool *found, npk_error *err)
{
    MDB_val k = {0, NULL}, v = {0, NULL};
    int rc = reader->cursor_placed[table] ? mdb_cursor_get(reader->cursors[table], &k, &v, MDB_NEXT) : MDB_NOTFOUND;
    return give_entry(reader, table, rc, &k, &v, found_key, found_key_size, value, value_size, found, err);
}

/* ---- writing ------------------------------------------------------------------------------------------------------------ */

static npk_status examine(npk_index *index, uint64_t *page_count, uint64_t *map_size, npk_error *err)
{
    npk_status status = enter(index, err);
    if (status != NPK_OK)
        return status;
    MDB_envinfo info;
    int rc = mdb_env_info(index->env, &info);
    leave(index);
    if (rc)
        return fail_lmdb(err, rc, "examine");
    *page_count = (uint64_t)info.me_last_pgno + 1;
    *map_size = info.me_mapsize;
    return NPK_OK;
}

npk_status npk_index_reserve(npk_index *index, size_t change_count, size_t change_size, npk_error *err)
{
    uint64_t used, map_size;
    npk_status status = examine(index, &used, &map_size, err);
    if (status != NPK_OK)
        return status;
    if (change_count > SIZE_MAX / 64 || change_size > SIZE_MAX / 64)
        return npk_fail(err, NPK_NO_SPACE, "the change is too large for the index");
    /* Nothing freed can be used again (a reader may hold it). Each change copies its own path, but no page twice, and splits its
     * leaf and a node above; new bytes fill pages by a third at least; the list of freed pages. */
    uint64_t count = change_count;
    uint64_t copied = npk_min_u64(count * TREE_DEPTH_MAX, used) + npk_min_u64(count * 2, used);
    uint64_t added = 3 * ((uint64_t)change_size + count * ENTRY_OVERHEAD) / index->page_size;
    uint64_t needed = copied + added + (copied + added + used) / 256 + 32;
    uint64_t wanted = (used + needed) * index->page_size;
    status = allocate_data(index, wanted, err);
    if (status != NPK_OK || wanted <= map_size)
        return status;
    uint64_t size = map_size * 2;
    return remap(index, npk_align_up(npk_max_u64(size, wanted), MAP_SIZE_MIN), err);
}

typedef struct publisher {
    npk_index *index;
    MDB_txn *txn;
    MDB_cursor *cursor; /* NULL until the first change */
    bool at_end;        /* every key from here on lies behind the last one of the tree */
    uint8_t last_key[1 + NPK_KEY_MAX];
    size_t last_key_size;
    int rc; /* LMDB's */
} publisher;

static int start(publisher *p)
{
    int rc = mdb_cursor_open(p->txn, p->index->tree, &p->cursor);
    if (rc) {
        p->cursor = NULL;
        return rc;
    }
    MDB_val k, v;
    rc = mdb_cursor_get(p->cursor, &k, &v, MDB_LAST);
    p->at_end = rc == MDB_NOTFOUND;
    if (rc)
        return rc == MDB_NOTFOUND ? 0 : rc;
    if (k.mv_size > sizeof p->last_key)
        return MDB_CORRUPTED;
    memcpy(p->last_key, k.mv_data, k.mv_size);
    p->last_key_size = k.mv_size;
    return 0;
}

static npk_status publish_change(void *context, npk_table table, const uint8_t *key, size_t key_size,
                                 const uint8_t *value, size_t value_size, npk_error *err)
{
    publisher *p = context;
    table_key made;
    int rc = make_key(&made, table, key, key_size) ? 0 : MDB_BAD_VALSIZE;
    if (rc == 0 && !p->cursor)
        rc = start(p);
    if (rc == 0 && !p->at_end)
        p->at_end = npk_overlay_compare(made.bytes, 1 + key_size, p->last_key, p->last_key_size) > 0;
    MDB_val k = made.value;
    if (rc == 0 && value) {
        MDB_val v = {value_size, (void *)(uintptr_t)value};
        rc = mdb_cursor_put(p->cursor, &k, &v, p->at_end ? MDB_APPEND : 0);
    } else if (rc == 0 && !p->at_end) {
        rc = mdb_cursor_get(p->cursor, &k, NULL, MDB_SET);
        if (rc == 0)
            rc = mdb_cursor_del(p->cursor, 0);
        else if (rc == MDB_NOTFOUND)
            rc = 0;
    }
    p->rc = rc;
    return rc ? fail_lmdb(err, rc, "change") : NPK_OK;
}

/* One attempt. *lmdb_rc: why it failed, for what the caller can do about it. */
static npk_status try_publish(npk_index *index, npk_kv *changes, uint64_t *version, int *lmdb_rc, npk_error *err)
{
    publisher p = {.index = index};
    npk_status status = enter(index, err);
    if (status != NPK_OK)
        return status;
    p.rc = mdb_txn_begin(index->env, NULL, 0, &p.txn);
    if (p.rc) {
        status = fail_lmdb(err, p.rc, "change");
        goto done;
    }
    status = npk_kv_changes(changes, publish_change, &p, err);
    if (p.cursor)
        mdb_cursor_close(p.cursor);
    if (status == NPK_OK && index->fail_next_publish)
        status = npk_fail(err, NPK_IO, "could not change the index: a test asked for it");
    index->fail_next_publish = false;
    if (status != NPK_OK) {
        mdb_txn_abort(p.txn);
        goto done;
    }
    if (version)
        *version = mdb_txn_id(p.txn);
    p.rc = mdb_txn_commit(p.txn); /* frees the transaction in any case */
    if (p.rc)
        status = fail_lmdb(err, p.rc, "change");
done:
    leave(index);
    *lmdb_rc = p.rc;
    return status;
}

npk_status npk_index_publish(npk_index *index, npk_kv *changes, uint64_t *version, npk_error *err)
{
    if (npk_kv_change_count(changes) == 0)
        return NPK_OK;
    for (unsigned attempt = 0;; attempt++) {
        int rc = 0;
        npk_thread_hold_file_size_signal(); /* a large change is written before the commit already */
        npk_status status = try_publish(index, changes, version, &rc, err);
        npk_thread_release_file_size_signal(status != NPK_OK);
        if (status == NPK_OK || (rc != MDB_MAP_RESIZED && rc != MDB_MAP_FULL) || attempt >= RETRY_COUNT)
            return status;
        uint64_t used, map_size;
        status = examine(index, &used, &map_size, err);
        if (status == NPK_OK)
            status = remap(index, rc == MDB_MAP_FULL ? map_size * 2 : 0, err);
        if (status != NPK_OK)
            return status;
    }
}

void npk_index_sizes(npk_index *index, uint64_t *used_size, uint64_t *file_size)
{
    uint64_t page_count = 0, map_size;
    npk_file_info info;
    *used_size = examine(index, &page_count, &map_size, NULL) == NPK_OK ? page_count * index->page_size : 0;
    *file_size = index->io->info(index->io, index->data, &info) == 0 ? info.size : 0;
}

void npk_index_fail_next_publish(npk_index *index)
{
    index->fail_next_publish = true;
}
