/* test_opening.c - a store opened, closed, inherited and left behind: by one process, by several, by children of fork. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "array.h"
#include "check_main.h"
#include "core.h"
#include "npk.h"

static char directory[64];
static npk_error err;

static void setup(void)
{
    (void)snprintf(directory, sizeof directory, "/tmp/npk-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
}

static void teardown(void)
{
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", directory);
    ck_assert_int_eq(system(command), 0);
}

#define OK(call) ck_assert_msg((call) == NPK_OK, "%s", err.message)

static const npk_array_spec spec = {"<u4", 4, 0, NULL, 0};
static uint32_t rows[3 << 20]; /* 12 MiB: a bulk append, and more than the log buffers */

static npk_store *open_with(npk_options options)
{
    npk_store *store = NULL;
    options.struct_size = sizeof options;
    OK(npk_store_open(directory, &options, &store, &err));
    return store;
}

static npk_store *open_quiet(npk_mode mode)
{
    return open_with((npk_options){.mode = mode, .no_background = 1});
}

static void save(npk_store *store, uint64_t count)
{
    npk_txn *txn = NULL;
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_save(txn, "a", &spec, count, rows, &err));
    OK(npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err));
}

static void append(npk_store *store, uint64_t count, npk_sync sync)
{
    npk_txn *txn = NULL;
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_append(txn, "a", count, rows, &err));
    OK(npk_txn_commit(txn, sync, NULL, &err));
}

static uint64_t count_rows(npk_store *store)
{
    npk_source source = {.store = store};
    npk_array *array = NULL;
    OK(npk_array_open(&source, "a", &array, &err));
    uint64_t count = npk_array_describe(array)->row_count;
    npk_array_release(array);
    return count;
}

/* Run in a child of fork; what it returns is its exit code. */
static int in_child(int (*run)(void *context), void *context)
{
    (void)fflush(NULL);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        _exit(run(context));
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status), "the child died of signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

/* ---- fork ------------------------------------------------------------------------------------------------------------ */

static int refuse_all(void *context)
{
    npk_txn *txn = context;
    uint64_t savepoint = 0;
    if (npk_txn_savepoint(txn, &savepoint, NULL) != NPK_MISUSE || npk_txn_rollback_to(txn, 0, NULL) != NPK_MISUSE ||
        npk_txn_release_savepoint(txn, 0, NULL) != NPK_MISUSE)
        return 1;
    return npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, NULL) == NPK_MISUSE ? 0 : 2;
}

static int abort_it(void *context)
{
    npk_txn_abort(context);
    return 0;
}

START_TEST(test_a_child_cannot_end_its_parents_transaction)
{
    const uint64_t count = sizeof rows / sizeof rows[0];
    npk_store *store = open_quiet(NPK_MODE_CREATE);
    save(store, 10);
    npk_txn *txn = NULL;
    uint64_t savepoint = 0;
    OK(npk_txn_begin(store, 1000, &txn, &err));
    OK(npk_txn_savepoint(txn, &savepoint, &err));
    OK(npk_txn_append(txn, "a", count, rows, &err)); /* into a column file */
    for (int i = 0; i < 6; i++)
        OK(npk_txn_append(txn, "a", 250000, rows, &err)); /* into the log, some of it written */
    ck_assert_int_eq(in_child(refuse_all, txn), 0);
    ck_assert_int_eq(in_child(abort_it, txn), 0);
    ck_assert_uint_eq(atomic_load(&store->core->control->writer_active), 1);
    OK(npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err));
    ck_assert_uint_eq(count_rows(store), 10 + count + 6 * 250000);
    OK(npk_store_verify(store, 0, NULL, NULL, &err));
    OK(npk_store_close(store, &err));
    store = open_quiet(NPK_MODE_UPDATE);
    ck_assert_uint_eq(count_rows(store), 10 + count + 6 * 250000);
    OK(npk_store_close(store, &err));
}
END_TEST

static pthread_mutex_t big_lock = PTHREAD_MUTEX_INITIALIZER; /* as an interpreter has one */

static int take_big_lock(void *context)
{
    (void)context;
    (void)pthread_mutex_lock(&big_lock);
    (void)pthread_mutex_unlock(&big_lock);
    return 0;
}

static npk_status open_briefly(uint32_t timeout_ms, int (*interrupt)(void *context))
{
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_UPDATE, .no_background = 1,
                           .busy_timeout_ms = timeout_ms, .interrupt = interrupt};
    npk_store *store = NULL;
    npk_error ignored;
    npk_status status = npk_store_open(directory, &options, &store, &ignored);
    if (status == NPK_OK)
        (void)npk_store_close(store, NULL);
    return status;
}

static void *open_at_the_gate(void *context)
{
    *(npk_status *)context = open_briefly(1500, take_big_lock);
    return NULL;
}

static int interrupt_at_once(void *context)
{
    (void)context;
    return 1;
}

static void pause_ms(unsigned ms)
{
    struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
    (void)nanosleep(&time, NULL);
}

START_TEST(test_nobody_waits_for_who_waits_at_the_gate)
{
    npk_store *store = open_quiet(NPK_MODE_CREATE);
    OK(npk_store_close(store, &err));
    char other[80];
    (void)snprintf(other, sizeof other, "%s/other", directory);
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE, .no_background = 1};
    OK(npk_store_open(other, &options, &store, &err));
    const npk_io *io = npk_io_posix();
    npk_file *root = NULL, *lock_file = NULL;
    ck_assert_int_eq(io->open_root(io, directory, false, &root, NULL), 0);
    ck_assert_int_eq(io->open(io, root, "LOCK", NPK_OPEN_WRITE, &lock_file), 0);
    ck_assert_int_eq(io->lock(io, lock_file, NPK_LOCK_GATE, 1, NPK_LOCK_EXCLUSIVE), 0); /* as who opens in another process */

    pthread_t thread;
    npk_status opened = NPK_OK;
    ck_assert_int_eq(pthread_create(&thread, NULL, open_at_the_gate, &opened), 0);
    pause_ms(100);
    (void)pthread_mutex_lock(&big_lock);
    pause_ms(100);
    npk_snapshot *snapshot = NULL;
    OK(npk_snapshot_take(store, &snapshot, &err)); /* of another store */
    npk_snapshot_release(snapshot);
    ck_assert_int_eq(open_briefly(50, NULL), NPK_BUSY); /* of the same one */
    ck_assert_int_eq(open_briefly(5000, interrupt_at_once), NPK_INTERRUPTED);
    pid_t child = fork(); /* while the other thread waits for big_lock */
    ck_assert_int_ge(child, 0);
    if (child == 0)
        _exit(0);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    (void)pthread_mutex_unlock(&big_lock);
    (void)pthread_join(thread, NULL);
    ck_assert_int_eq(opened, NPK_BUSY);
    io->close(io, lock_file);
    io->close(io, root);
    OK(npk_store_close(store, &err));
    ck_assert_int_eq(open_briefly(1000, NULL), NPK_OK);
}
END_TEST

static atomic_bool enough;

static void *open_and_close(void *context)
{
    int *failures = context;
    while (!atomic_load(&enough)) {
        npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_UPDATE};
        npk_store *store = NULL;
        npk_snapshot *snapshot = NULL;
        npk_error ignored;
        if (npk_store_open(directory, &options, &store, &ignored) != NPK_OK ||
            npk_snapshot_take(store, &snapshot, &ignored) != NPK_OK)
            ++*failures;
        if (store && npk_store_close(store, &ignored) != NPK_OK)
            ++*failures;
        npk_snapshot_release(snapshot);
    }
    return NULL;
}

static int append_in_child(void *context)
{
    (void)context;
    /* No thread in a child of several: sanitizers do not know that. */
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_UPDATE, .no_background = 1};
    npk_store *store = NULL;
    npk_txn *txn = NULL;
    if (npk_store_open(directory, &options, &store, NULL) != NPK_OK)
        return 1;
    if (npk_txn_begin(store, UINT32_MAX, &txn, NULL) != NPK_OK || npk_txn_append(txn, "a", 1, rows, NULL) != NPK_OK ||
        npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, NULL) != NPK_OK)
        return 2;
    return npk_store_close(store, NULL) == NPK_OK ? 0 : 3;
}

START_TEST(test_fork_while_threads_open_and_close)
{
    enum { THREADS = 3, CHILDREN = 40 };
    npk_store *store = open_quiet(NPK_MODE_CREATE);
    save(store, 10);
    OK(npk_store_close(store, &err));
    atomic_store(&enough, false);
    pthread_t threads[THREADS];
    int failures[THREADS] = {0};
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, open_and_close, &failures[i]), 0);
    for (int i = 0; i < CHILDREN; i++)
        ck_assert_int_eq(in_child(append_in_child, NULL), 0);
    atomic_store(&enough, true);
    for (int i = 0; i < THREADS; i++) {
        (void)pthread_join(threads[i], NULL);
        ck_assert_int_eq(failures[i], 0);
    }
    store = open_quiet(NPK_MODE_UPDATE);
    ck_assert_uint_eq(count_rows(store), 10 + CHILDREN);
    OK(npk_store_close(store, &err));
}
END_TEST

/* ---- level interval -------------------------------------------------------------------------------------------------- */

/* Bytes that a power cut would take now. */
static uint64_t not_durable(npk_store *store)
{
    npk_stats stats = {.struct_size = sizeof stats};
    OK(npk_store_stats(store, &stats, &err));
    return stats.position.lsn > stats.durable_lsn ? stats.position.lsn - stats.durable_lsn : 0;
}

START_TEST(test_a_commit_at_interval_is_synced_whatever_the_level_of_the_handle)
{
    npk_store *store = open_with((npk_options){.mode = NPK_MODE_CREATE});
    save(store, 10);
    append(store, 100, NPK_SYNC_INTERVAL);
    pause_ms(500);
    ck_assert_uint_eq(not_durable(store), 0);
    OK(npk_store_close(store, &err));
}
END_TEST

START_TEST(test_a_writer_behind_a_reader_gets_a_background_thread)
{
    npk_store *store = open_quiet(NPK_MODE_CREATE);
    save(store, 10);
    OK(npk_store_close(store, &err));
    npk_store *reader = open_with((npk_options){.mode = NPK_MODE_READ});
    store = open_with((npk_options){.mode = NPK_MODE_UPDATE, .sync = NPK_SYNC_INTERVAL});
    append(store, 100, NPK_SYNC_INTERVAL);
    pause_ms(500);
    ck_assert_uint_eq(not_durable(store), 0);
    OK(npk_store_close(store, &err));
    OK(npk_store_close(reader, &err));
}
END_TEST

START_TEST(test_without_a_background_thread_commits_keep_the_interval)
{
    npk_store *store = open_with((npk_options){.mode = NPK_MODE_CREATE, .no_background = 1, .sync = NPK_SYNC_INTERVAL});
    save(store, 10);
    npk_stats before = {.struct_size = sizeof before}, after = before;
    OK(npk_store_stats(store, &before, &err));
    append(store, 100, NPK_SYNC_INTERVAL);
    ck_assert_uint_ne(not_durable(store), 0); /* within the interval nobody waits for the disk */
    pause_ms(150);
    append(store, 100, NPK_SYNC_INTERVAL);
    ck_assert_uint_eq(not_durable(store), 0);
    OK(npk_store_stats(store, &after, &err));
    ck_assert_uint_eq(after.syncs, before.syncs + 1);
    OK(npk_store_close(store, &err));
}
END_TEST

static int commit_and_die(void *context)
{
    (void)context;
    npk_store *store = open_with((npk_options){.mode = NPK_MODE_UPDATE, .sync = NPK_SYNC_INTERVAL, .sync_interval_ms = 50,
                                               .no_background = 1});
    append(store, 100, NPK_SYNC_COMMIT);
    append(store, 100, NPK_SYNC_INTERVAL);
    return not_durable(store) > 0 ? 0 : 1;
}

START_TEST(test_what_a_dead_process_committed_at_interval_is_synced_by_the_others)
{
    npk_store *store = open_with((npk_options){.mode = NPK_MODE_CREATE});
    save(store, 10);
    ck_assert_int_eq(in_child(commit_and_die, NULL), 0);
    pause_ms(500);
    ck_assert_uint_eq(not_durable(store), 0);
    OK(npk_store_close(store, &err));
}
END_TEST

/* ---- files of others ---------------------------------------------------------------------------------------------------- */

static void shell(const char *command)
{
    char text[512];
    (void)snprintf(text, sizeof text, "cd %s && %s", directory, command);
    ck_assert_msg(system(text) == 0, "%s", command);
}

START_TEST(test_creation_refuses_directories_with_files_of_others)
{
    static const char *const files[] = {"wal/notes.txt", "columns/a.npy", "checkpoint/model.ckpt", "index/page.html",
                                        "index/sub/image.png"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char command[128];
        (void)snprintf(command, sizeof command, "mkdir -p $(dirname %s) && echo mine > %s", files[i], files[i]);
        shell(command);
        npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE, .no_background = 1};
        npk_store *store = NULL;
        ck_assert_int_eq(npk_store_open(directory, &options, &store, &err), NPK_EXISTS);
        ck_assert_ptr_nonnull(strstr(err.message, i == 4 ? "\"index/sub\"" : files[i]));
        (void)snprintf(command, sizeof command, "test -f %s && test ! -e LOCK && rm -r $(dirname %s)", files[i], files[i]);
        shell(command);
    }
    shell("rmdir index && echo mine > notes.txt && mkdir other && ln -s /etc index");
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE, .no_background = 1};
    npk_store *store = NULL;
    ck_assert_int_eq(npk_store_open(directory, &options, &store, &err), NPK_EXISTS);
    shell("rm index");
    OK(npk_store_close(open_quiet(NPK_MODE_CREATE), &err)); /* beside them they may lie */
    shell("test -f notes.txt && test -d other");
}
END_TEST

/* Killed just before FORMAT: a log that was never used says nothing about a store that lost something. */
START_TEST(test_a_creation_that_did_not_finish_is_no_damaged_store)
{
    OK(npk_store_close(open_quiet(NPK_MODE_CREATE), &err));
    char command[400];
    (void)snprintf(command, sizeof command, "cd %s && head -c 4096 wal/0000000000000001.wal > header && rm -rf FORMAT checkpoint/* index/* wal/*"
                   " && mv header wal/0000000000000001.wal && truncate -s 65536 wal/0000000000000001.wal && touch FORMAT.tmp", directory);
    ck_assert_int_eq(system(command), 0);
    npk_inspection seen = {.struct_size = sizeof seen};
    ck_assert_int_eq(npk_inspect(directory, 0, NULL, &seen, &err), NPK_NOT_FOUND);
    npk_store *store = open_quiet(NPK_MODE_CREATE); /* which finishes it */
    save(store, 3);
    ck_assert_uint_eq(count_rows(store), 3);
    OK(npk_store_close(store, &err));
    (void)snprintf(command, sizeof command, "rm %s/FORMAT", directory);
    ck_assert_int_eq(system(command), 0);
    OK(npk_inspect(directory, 0, NULL, &seen, &err)); /* this one did lose it */
    ck_assert_int_eq(seen.verdict, NPK_STORE_DAMAGED);
}
END_TEST

START_TEST(test_opening_leaves_files_of_others_alone)
{
    OK(npk_store_close(open_quiet(NPK_MODE_CREATE), &err));
    shell("echo mine > index/page.html && mkdir -p index/0123456789abcdef index/sub && echo mine > index/sub/image.png && "
          "echo mine > index/0123456789abcdef/note && echo mine > wal/notes.txt && "
          "mkdir index/00000000000000ff && touch index/00000000000000ff/data.mdb");
    OK(npk_store_close(open_quiet(NPK_MODE_UPDATE), &err));
    shell("test -f index/page.html && test -f index/sub/image.png && test -f index/0123456789abcdef/note && "
          "test -f wal/notes.txt && test ! -e index/00000000000000ff");
}
END_TEST

/* ---- closing -------------------------------------------------------------------------------------------------------------- */

static npk_stats stats_of(npk_store *store)
{
    npk_stats stats = {.struct_size = sizeof stats};
    OK(npk_store_stats(store, &stats, &err));
    return stats;
}

START_TEST(test_writers_that_live_shortly_fold_in_the_end)
{
    for (int background = 0; background < 2; background++) {
        uint64_t folded = 0;
        for (int i = 0; i < 12; i++) {
            npk_store *store = open_with((npk_options){.mode = NPK_MODE_CREATE, .no_background = !background,
                                                       .pending_limit = 8 << 20});
            if (i == 0)
                save(store, 10);
            append(store, 250000, NPK_SYNC_COMMIT); /* 1 MB; worth folding are 4 MiB */
            folded = stats_of(store).column_file_count;
            npk_stats stats = stats_of(store);
            ck_assert_uint_le(stats.pending_size, 6 << 20);
            OK(npk_store_close(store, &err));
        }
        ck_assert_uint_gt(folded, 0);
    }
}
END_TEST

static int write_and_idle(void *context)
{
    (void)context;
    npk_store *store = open_with((npk_options){.mode = NPK_MODE_UPDATE});
    append(store, 1, NPK_SYNC_COMMIT);
    pause_ms(2500);
    npk_stats before = stats_of(store);
    pause_ms(3000);
    npk_stats after = stats_of(store);
    return after.position.lsn == before.position.lsn ? 0 : 1;
}

START_TEST(test_idle_writers_let_the_log_rest)
{
    npk_store *store = open_quiet(NPK_MODE_CREATE);
    save(store, 10);
    OK(npk_store_close(store, &err));
    pid_t other = fork();
    ck_assert_int_ge(other, 0);
    if (other == 0)
        _exit(write_and_idle(NULL));
    ck_assert_int_eq(in_child(write_and_idle, NULL), 0);
    int status = 0;
    ck_assert_int_eq(waitpid(other, &status, 0), other);
    ck_assert_int_eq(status, 0);
}
END_TEST

static int close_at_once(void *context)
{
    (void)context;
    OK(npk_store_close(open_quiet(NPK_MODE_UPDATE), &err));
    return 0;
}

START_TEST(test_one_of_those_who_close_at_once_is_the_last)
{
    for (int round = 0; round < 20; round++) {
        npk_store *store = open_quiet(NPK_MODE_CREATE);
        if (round == 0)
            save(store, 10);
        append(store, 1, NPK_SYNC_COMMIT);
        pid_t children[4];
        for (int i = 0; i < 4; i++) {
            children[i] = fork();
            ck_assert_int_ge(children[i], 0);
            if (children[i] == 0)
                _exit(close_at_once(NULL));
        }
        OK(npk_store_close(store, &err));
        for (int i = 0; i < 4; i++)
            ck_assert_int_eq(waitpid(children[i], NULL, 0), children[i]);
        store = open_quiet(NPK_MODE_READ);
        npk_stats stats = stats_of(store);
        ck_assert_uint_eq(stats.checkpoint_lsn, stats.position.lsn);
        ck_assert_uint_eq(stats.recoveries, 0);
        OK(npk_store_close(store, &err));
    }
}
END_TEST

static int prepare_a_spare(void *context)
{
    (void)context;
    npk_store *store = open_with((npk_options){.mode = NPK_MODE_UPDATE, .segment_size = 1 << 20});
    append(store, 1, NPK_SYNC_COMMIT);
    for (int i = 0; i < 100 && !npk_wal_has_spare(store->core->wal); i++)
        pause_ms(20);
    return npk_wal_has_spare(store->core->wal) ? 0 : 1; /* and dies */
}

START_TEST(test_compaction_removes_spares_of_the_dead)
{
    npk_store *quiet = open_with((npk_options){.mode = NPK_MODE_CREATE, .no_background = 1, .segment_size = 1 << 20});
    save(quiet, 10);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(in_child(prepare_a_spare, NULL), 0);
    npk_store *store = open_with((npk_options){.mode = NPK_MODE_UPDATE, .segment_size = 1 << 20});
    append(store, 1, NPK_SYNC_COMMIT);
    for (int i = 0; i < 100 && !npk_wal_has_spare(store->core->wal); i++)
        pause_ms(20);
    shell("test $(ls wal | grep -c spare) = 4");
    OK(npk_store_compact(store, NULL, &err));
    shell("test $(ls wal | grep -c spare) = 1");
    OK(npk_store_close(store, &err));
    OK(npk_store_close(quiet, &err));
    shell("test $(ls wal | grep -c spare) = 0");
}
END_TEST

static int compact_it(void *context)
{
    (void)context;
    npk_store *store = open_quiet(NPK_MODE_UPDATE);
    OK(npk_store_compact(store, NULL, &err));
    OK(npk_store_close(store, &err));
    return 0;
}

START_TEST(test_compaction_leaves_spares_of_the_living)
{
    npk_store *store = open_with((npk_options){.mode = NPK_MODE_CREATE, .segment_size = 1 << 20});
    save(store, 10);
    for (int i = 0; i < 100 && !npk_wal_has_spare(store->core->wal); i++)
        pause_ms(20);
    ck_assert_int_eq(in_child(compact_it, NULL), 0);
    shell("test $(ls wal | grep -c spare) = 1");
    OK(npk_store_close(store, &err));
}
END_TEST

/* What an open reads, in one piece and in sum, and reserves. */
static npk_io counting;
static uint64_t largest_read, reserved;

static int count_read(const npk_io *io, npk_file *file, uint64_t offset, void *bytes, size_t size, size_t *done)
{
    (void)io;
    if (size > largest_read)
        largest_read = size;
    return npk_io_posix()->read(npk_io_posix(), file, offset, bytes, size, done);
}

static int count_allocate(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size)
{
    (void)io;
    reserved += size;
    return npk_io_posix()->allocate(npk_io_posix(), file, offset, size);
}

START_TEST(test_an_open_after_a_clean_close_is_cheap)
{
    counting = *npk_io_posix();
    counting.read = count_read;
    counting.allocate = count_allocate;
    npk_store *store = open_quiet(NPK_MODE_CREATE);
    save(store, 1000);
    OK(npk_store_close(store, &err));
    largest_read = reserved = 0;
    store = open_with((npk_options){.mode = NPK_MODE_UPDATE, .no_background = 1, .io = &counting});
    ck_assert_uint_eq(count_rows(store), 1000);
    ck_assert_uint_le(largest_read, 256 << 10); /* of a segment of 16 MiB, nearly all zeros */
    ck_assert_uint_le(reserved, 1 << 20);
    ck_assert_uint_eq(stats_of(store).recoveries, 0);
    OK(npk_store_close(store, &err));
}
END_TEST

static int open_refused(const npk_io *io, npk_file *where, const char *name, unsigned flags, npk_file **file)
{
    (void)io;
    return flags & NPK_OPEN_WRITE ? EACCES : npk_io_posix()->open(npk_io_posix(), where, name, flags, file);
}

START_TEST(test_a_directory_that_cannot_be_written_is_named)
{
    OK(npk_store_close(open_quiet(NPK_MODE_CREATE), &err));
    counting = *npk_io_posix();
    counting.open = open_refused;
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_READ, .io = &counting};
    npk_store *store = NULL;
    ck_assert_int_eq(npk_store_open(directory, &options, &store, &err), NPK_READ_ONLY);
    ck_assert_ptr_nonnull(strstr(err.message, directory));
    ck_assert_ptr_nonnull(strstr(err.message, "permission to write"));
}
END_TEST

static void *compact_in_thread(void *context)
{
    npk_store *store = context;
    npk_error ignored;
    return (void *)(uintptr_t)npk_store_compact(store, NULL, &ignored);
}

START_TEST(test_waiting_for_a_compaction_ends)
{
    npk_store *store = open_with((npk_options){.mode = NPK_MODE_CREATE, .no_background = 1, .busy_timeout_ms = 100});
    npk_store *hasty = open_with((npk_options){.mode = NPK_MODE_UPDATE, .no_background = 1, .interrupt = interrupt_at_once});
    save(store, 10);
    (void)pthread_mutex_lock(&store->core->compactor_mutex); /* another thread compacts */
    pthread_t threads[2];
    ck_assert_int_eq(pthread_create(&threads[0], NULL, compact_in_thread, store), 0);
    ck_assert_int_eq(pthread_create(&threads[1], NULL, compact_in_thread, hasty), 0);
    void *status = NULL;
    (void)pthread_join(threads[0], &status);
    ck_assert_int_eq((int)(uintptr_t)status, NPK_BUSY);
    (void)pthread_join(threads[1], &status);
    ck_assert_int_eq((int)(uintptr_t)status, NPK_INTERRUPTED);
    (void)pthread_mutex_unlock(&store->core->compactor_mutex);
    OK(npk_store_compact(store, NULL, &err));
    OK(npk_store_close(hasty, &err));
    OK(npk_store_close(store, &err));
}
END_TEST

/* ---- the index replaced under live processes ----------------------------------------------------------------------------- */

static npk_io faulty; /* the system, but: */
static bool cuts_fail;
static int syncs_fail;

static int open_faulty(const npk_io *io, npk_file *where, const char *name, unsigned flags, npk_file **file)
{
    (void)io;
    if (cuts_fail && strncmp(name, "cut-", 4) == 0)
        return EIO;
    return npk_io_posix()->open(npk_io_posix(), where, name, flags, file);
}

static int sync_faulty(const npk_io *io, npk_file *file)
{
    (void)io;
    if (syncs_fail > 0) {
        syncs_fail--;
        return EIO;
    }
    return npk_io_posix()->sync(npk_io_posix(), file);
}

static npk_store *open_faulty_store(void)
{
    faulty = *npk_io_posix();
    faulty.open = open_faulty;
    faulty.sync = sync_faulty;
    return open_with((npk_options){.mode = NPK_MODE_CREATE, .no_background = 1, .io = &faulty});
}

static void fail_one_commit(npk_store *store)
{
    npk_txn *txn = NULL;
    OK(npk_txn_begin(store, 1000, &txn, &err));
    OK(npk_txn_append(txn, "a", 10, rows, &err));
    syncs_fail = 1;
    ck_assert_int_ne(npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err), NPK_OK);
}

START_TEST(test_repairs_leave_one_index)
{
    npk_store *store = open_faulty_store();
    save(store, 10);
    cuts_fail = true;
    fail_one_commit(store);
    for (int i = 0; i < 20; i++) {
        npk_txn *txn = NULL;
        ck_assert_int_ne(npk_txn_begin(store, 0, &txn, &err), NPK_OK);
    }
    shell("test $(ls index | wc -l) = 2"); /* control and the index */
    cuts_fail = false;
    append(store, 1, NPK_SYNC_COMMIT);
    shell("test $(ls index | wc -l) = 2");
    for (int i = 0; i < 5; i++) {
        fail_one_commit(store);
        ck_assert_uint_eq(count_rows(store), 11);
    }
    shell("test $(ls index | wc -l) = 2");
    OK(npk_store_close(store, &err));
}
END_TEST

START_TEST(test_a_repair_does_not_lower_the_reclaim_floor)
{
    npk_store *store = open_faulty_store();
    save(store, 10);
    for (int i = 0; i < 3; i++) {
        append(store, 1, NPK_SYNC_COMMIT);
        OK(npk_store_checkpoint(store, &err));
    }
    uint64_t floor = atomic_load(&store->core->control->floor_lsn);
    ck_assert_uint_ne(floor, 0);
    fail_one_commit(store);
    ck_assert_uint_eq(atomic_load(&store->core->control->floor_lsn), floor);
    OK(npk_store_close(store, &err));
}
END_TEST

static int read_on(void *context)
{
    npk_store *store = open_quiet(NPK_MODE_READ);
    int *go = context;
    char byte = 'r';
    uint64_t before = count_rows(store);
    if (write(go[3], &byte, 1) != 1 || read(go[0], &byte, 1) != 1) /* the index is replaced now */
        return 1;
    for (int i = 0; i < 2000; i++)
        if (count_rows(store) != before)
            return 2;
    return npk_store_close(store, NULL) == NPK_OK ? 0 : 3;
}

START_TEST(test_other_processes_follow_an_index_that_is_replaced)
{
    npk_store *store = open_faulty_store();
    save(store, 10);
    int go[4];
    ck_assert_int_eq(pipe(go) | pipe(go + 2), 0);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        _exit(read_on(go));
    char byte;
    ck_assert_int_eq(read(go[2], &byte, 1), 1);
    for (int i = 0; i < 20; i++) {
        fail_one_commit(store);
        if (i == 0)
            ck_assert_int_eq(write(go[1], &byte, 1), 1);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    OK(npk_store_close(store, &err));
}
END_TEST

static void *count_for_ever(void *context)
{
    npk_store *store = context;
    uint64_t wrong = 0;
    while (!atomic_load(&enough)) {
        npk_source source = {.store = store};
        npk_array *array = NULL;
        npk_error ignored;
        if (npk_array_open(&source, "a", &array, &ignored) != NPK_OK || npk_array_describe(array)->row_count != 10)
            wrong++;
        npk_array_release(array);
    }
    return (void *)(uintptr_t)wrong;
}

START_TEST(test_threads_read_on_while_the_index_is_replaced)
{
    npk_store *store = open_faulty_store();
    save(store, 10);
    atomic_store(&enough, false);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, count_for_ever, store), 0);
    for (int i = 0; i < 50; i++)
        fail_one_commit(store);
    atomic_store(&enough, true);
    for (int i = 0; i < 2; i++) {
        void *wrong = NULL;
        (void)pthread_join(threads[i], &wrong);
        ck_assert_ptr_null(wrong);
    }
    OK(npk_store_close(store, &err));
}
END_TEST

START_TEST(test_an_array_of_a_replaced_index_is_not_served)
{
    npk_store *store = open_faulty_store();
    save(store, 10);
    npk_cached_array kept = {0};
    ck_assert_uint_eq(count_rows(store), 10);
    for (size_t i = 0; i < NPK_ARRAY_CACHE_SIZE; i++)
        if (store->core->cache[i].array)
            kept = store->core->cache[i];
    ck_assert_ptr_nonnull(kept.array);
    (void)npk_array_retain(kept.array);
    fail_one_commit(store); /* empties the cache and builds an index, which counts from the beginning */
    npk_source source = {.store = store};
    npk_array *array = NULL;
    OK(npk_array_open(&source, "a", &array, &err)); /* a thread that was late puts the old array at the new one's version: */
    uint64_t version = 0;
    for (size_t i = 0; i < NPK_ARRAY_CACHE_SIZE; i++) {
        if (store->core->cache[i].array == array) {
            version = store->core->cache[i].version;
            kept.version = version;
            store->core->cache[i] = kept;
        }
    }
    ck_assert_uint_ne(version, 0);
    npk_array *again = NULL;
    OK(npk_array_open(&source, "a", &again, &err));
    ck_assert_ptr_ne(again, kept.array);
    npk_array_release(again);
    npk_array_release(array);
    npk_array_release(array); /* the cache's */
    OK(npk_store_close(store, &err));
}
END_TEST

/* ---------------------------------------------------------------------------------------------------------------------- */

static TCase *add_case(Suite *suite, const char *name)
{
    TCase *made = tcase_create(name);
    tcase_add_checked_fixture(made, setup, teardown);
    tcase_set_timeout(made, 60);
    suite_add_tcase(suite, made);
    return made;
}

static bool says_network(const npk_io *io, npk_file *folder)
{
    (void)io;
    (void)folder;
    return true;
}

START_TEST(test_a_network_file_system_is_refused_unless_asked_for)
{
    npk_io table = *npk_io_posix();
    table.is_network = says_network;
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE, .no_background = 1, .io = &table};
    npk_store *store = NULL;
    ck_assert_int_eq(npk_store_open(directory, &options, &store, &err), NPK_OTHER_HOST);
    ck_assert_ptr_nonnull(strstr(err.message, directory));
    char path[128];
    (void)snprintf(path, sizeof path, "%s/LOCK", directory);
    ck_assert_int_ne(access(path, F_OK), 0); /* nothing was written */
    options.network = 1;
    OK(npk_store_open(directory, &options, &store, &err));
    save(store, 3);
    OK(npk_store_close(store, &err));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("opening");
    TCase *fork_case = add_case(suite, "fork");
    tcase_add_test(fork_case, test_a_child_cannot_end_its_parents_transaction);
    tcase_add_test(fork_case, test_nobody_waits_for_who_waits_at_the_gate);
#ifndef __SANITIZE_ADDRESS__ /* its allocator may be locked by a thread that a child of fork does not have */
    tcase_add_test(fork_case, test_fork_while_threads_open_and_close);
#else
    (void)test_fork_while_threads_open_and_close;
#endif
    TCase *interval = add_case(suite, "interval");
    tcase_add_test(interval, test_a_commit_at_interval_is_synced_whatever_the_level_of_the_handle);
    tcase_add_test(interval, test_a_writer_behind_a_reader_gets_a_background_thread);
    tcase_add_test(interval, test_without_a_background_thread_commits_keep_the_interval);
    tcase_add_test(interval, test_what_a_dead_process_committed_at_interval_is_synced_by_the_others);
    TCase *foreign = add_case(suite, "foreign");
    tcase_add_test(foreign, test_creation_refuses_directories_with_files_of_others);
    tcase_add_test(foreign, test_a_creation_that_did_not_finish_is_no_damaged_store);
    tcase_add_test(foreign, test_opening_leaves_files_of_others_alone);
    tcase_add_test(foreign, test_a_network_file_system_is_refused_unless_asked_for);
    TCase *closing = add_case(suite, "closing");
    tcase_add_test(closing, test_writers_that_live_shortly_fold_in_the_end);
    tcase_add_test(closing, test_idle_writers_let_the_log_rest);
    tcase_add_test(closing, test_one_of_those_who_close_at_once_is_the_last);
    tcase_add_test(closing, test_an_open_after_a_clean_close_is_cheap);
    tcase_add_test(closing, test_compaction_removes_spares_of_the_dead);
    tcase_add_test(closing, test_compaction_leaves_spares_of_the_living);
    tcase_add_test(closing, test_waiting_for_a_compaction_ends);
    tcase_add_test(foreign, test_a_directory_that_cannot_be_written_is_named);
    TCase *index = add_case(suite, "index");
    tcase_add_test(index, test_repairs_leave_one_index);
    tcase_add_test(index, test_an_array_of_a_replaced_index_is_not_served);
    tcase_add_test(index, test_a_repair_does_not_lower_the_reclaim_floor);
    tcase_add_test(index, test_other_processes_follow_an_index_that_is_replaced);
    tcase_add_test(index, test_threads_read_on_while_the_index_is_replaced);
    return check_main(suite);
}
