/* test_processes.c - several processes on one real directory: writing in turn, killed at any point, reading meanwhile, forking, copying.
 *
 * A child is forked before its parent has any store open, unless the fork itself is the subject. Children and parent talk through pipes.
 * Transaction n of the store appends row n to the arrays "a" and "b" and sets the attribute "n": a reader that sees them differ has seen half
 * a transaction. NPK_KILLS sets the number of kills. */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include <check.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check_main.h"
#include "io.h"
#include "npk.h"
#include "rng.h"

#define ROW 256 /* bytes */

static char directory[64], path[96];
static npk_error err;

#define OK(call) ck_assert_msg((call) == NPK_OK, "%s: %s", #call, err.message)

static struct { /* shared with the children */
    _Atomic uint64_t acknowledged; /* transactions whose commit returned OK */
    _Atomic uint64_t started;
    _Atomic uint64_t reads, ready, stop, failures;
    char message[400];
} *shared;

static void setup(void)
{
    (void)snprintf(directory, sizeof directory, "/tmp/npk-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    (void)snprintf(path, sizeof path, "%s/store", directory);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(shared, MAP_FAILED);
    memset(&err, 0, sizeof err);
}

static void shell(const char *program, const char *a, const char *b)
{
    char command[400];
    (void)snprintf(command, sizeof command, "%s %s %s", program, a, b);
    ck_assert_int_eq(system(command), 0);
}

static void teardown(void)
{
    shell("rm -rf", directory, "");
    (void)munmap(shared, sizeof *shared);
}

static npk_status try_open(npk_store **store, int background)
{
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE, .no_background = !background,
                           .segment_size = 64 << 10, .checkpoint_log_size = 256 << 10, .pending_limit = 256 << 10,
                           .bulk_size = 64 << 10, .program = "test child", .busy_timeout_ms = 20000};
    return npk_store_open(path, &options, store, &err);
}

static npk_store *open_store(int background)
{
    npk_store *store = NULL;
    OK(try_open(&store, background));
    return store;
}

static void make_row(uint8_t row[ROW], uint64_t n)
{
    rng r = rng_seeded(n);
    rng_fill(&r, row, ROW);
}

static const uint64_t width = ROW;
static const npk_array_spec spec = {"|u1", ROW, 1, &width, 0};

/* How many transactions there are, or -1 with a message: every array, every row, the attribute. */
static void note_count(void *context, const char *key, const void *value, size_t size)
{
    if (strcmp(key, "n") == 0 && size == sizeof(int64_t))
        memcpy(context, value, sizeof(int64_t));
}

static int64_t look(const npk_source *source, char text[300])
{
    int64_t count = 0;
    if (npk_list_attrs(source, NULL, note_count, &count, &err) != NPK_OK) {
        (void)snprintf(text, 300, "attributes: %.200s", err.message);
        return -1;
    }
    for (int i = 0; i < 2 && count; i++) {
        npk_array *array = NULL;
        if (npk_array_open(source, i ? "b" : "a", &array, &err) != NPK_OK) {
            (void)snprintf(text, 300, "array: %.200s", err.message);
            return -1;
        }
        uint64_t rows = npk_array_describe(array)->row_count;
        uint8_t *bytes = malloc((size_t)count * ROW), row[ROW];
        bool good = rows == (uint64_t)count && npk_array_read(array, 0, rows, bytes, &err) == NPK_OK;
        if (!good)
            (void)snprintf(text, 300, "%c: %llu rows instead of %lld: %.100s", i ? 'b' : 'a', (unsigned long long)rows,
                           (long long)count, err.message);
        for (uint64_t n = 0; good && n < rows; n++) {
            make_row(row, n);
            good = memcmp(row, bytes + n * ROW, ROW) == 0;
            if (!good)
                (void)snprintf(text, 300, "%c: row %llu is wrong", i ? 'b' : 'a', (unsigned long long)n);
        }
        free(bytes);
        npk_array_release(array);
        if (!good)
            return -1;
    }
    return count;
}

static int64_t count_in(npk_store *store, const char *when)
{
    char text[300] = "";
    npk_snapshot *snapshot = NULL;
    OK(npk_snapshot_take(store, &snapshot, &err));
    npk_source source = {.snapshot = snapshot};
    int64_t count = look(&source, text);
    npk_snapshot_release(snapshot);
    ck_assert_msg(count >= 0, "%s: %s", when, text);
    return count;
}

/* The next transaction, whatever number it has. */
static npk_status write_one(npk_store *store, npk_sync level)
{
    npk_txn *txn = NULL;
    npk_status status = npk_txn_begin(store, UINT32_MAX, &txn, &err);
    if (status != NPK_OK)
        return status;
    int64_t count = 0;
    npk_source source = {.txn = txn};
    status = npk_list_attrs(&source, NULL, note_count, &count, &err);
    uint8_t row[ROW];
    make_row(row, (uint64_t)count);
    for (int i = 0; i < 2 && status == NPK_OK; i++)
        status = count == 0 ? npk_txn_save(txn, i ? "b" : "a", &spec, 1, row, &err)
                            : npk_txn_append(txn, i ? "b" : "a", 1, row, &err);
    count++;
    if (status == NPK_OK)
        status = npk_txn_set_attr(txn, NULL, "n", &count, sizeof count, &err);
    if (status != NPK_OK) {
        npk_txn_abort(txn);
        return status;
    }
    atomic_store(&shared->started, (uint64_t)count);
    status = npk_txn_commit(txn, level, NULL, &err);
    uint64_t known = atomic_load(&shared->acknowledged);
    while (status == NPK_OK && known < (uint64_t)count &&
           !atomic_compare_exchange_weak(&shared->acknowledged, &known, (uint64_t)count)) {
    }
    return status;
}

static void fail_child(const char *what)
{
    if (atomic_fetch_add(&shared->failures, 1) == 0)
        (void)snprintf(shared->message, sizeof shared->message, "%.80s: %.300s", what, err.message);
    _exit(1);
}

static void expect_no_failures(void)
{
    ck_assert_msg(atomic_load(&shared->failures) == 0, "a child: %s", shared->message);
}

static pid_t start(void (*run)(int number), int number)
{
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        run(number);
        _exit(0);
    }
    return pid;
}

static void join(pid_t pid)
{
    int how = 0;
    ck_assert_int_eq(waitpid(pid, &how, 0), pid);
    expect_no_failures();
    ck_assert_msg(WIFEXITED(how) && WEXITSTATUS(how) == 0, "a child ended with %x", (unsigned)how);
}

static void kill_now(pid_t pid)
{
    int how = 0;
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(pid, &how, 0), pid);
    expect_no_failures();
}

static void pause_ms(long ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    (void)nanosleep(&time, NULL);
}

/* Give up after 30 s: the test fails instead of hanging. */
static void wait_for(_Atomic uint64_t *value, uint64_t least)
{
    for (int i = 0; i < 30000 && atomic_load(value) < least && atomic_load(&shared->failures) == 0; i++)
        pause_ms(1);
    expect_no_failures();
    ck_assert_uint_ge(atomic_load(value), least);
}

static void note_finding(void *context, const npk_finding *finding)
{
    (void)context;
    ck_abort_msg("verify: %s: %s", finding->file, finding->reason);
}

/* ---- writing in turn ----------------------------------------------------------------------------------------------------- */

static void write_many(int number)
{
    npk_store *store = NULL;
    if (try_open(&store, number % 2) != NPK_OK)
        fail_child("open");
    for (int i = 0; i < 100; i++)
        if (write_one(store, (npk_sync)(i % 3)) != NPK_OK)
            fail_child("write");
    if (npk_store_close(store, &err) != NPK_OK)
        fail_child("close");
}

START_TEST(test_processes_write_in_turn)
{
    pid_t pids[3];
    int count = 2 + _i;
    for (int i = 0; i < count; i++)
        pids[i] = start(write_many, i);
    for (int i = 0; i < count; i++)
        join(pids[i]);
    npk_store *store = open_store(0);
    ck_assert_int_eq(count_in(store, "at the end"), count * 100);
    OK(npk_store_verify(store, note_finding, NULL, NULL, &err));
    OK(npk_store_close(store, &err));
}
END_TEST

/* ---- kills --------------------------------------------------------------------------------------------------------------- */

static void write_forever(int number)
{
    npk_store *store = NULL;
    if (try_open(&store, number & 1) != NPK_OK)
        fail_child("open");
    atomic_fetch_add(&shared->ready, 1);
    for (int i = number;; i++) {
        if (write_one(store, (npk_sync)(i % 3)) != NPK_OK)
            fail_child("write");
        if (i % 16 == 15 && npk_store_compact(store, NULL, &err) != NPK_OK)
            fail_child("compact");
    }
}

static void read_forever(int number)
{
    (void)number;
    npk_store *store = NULL;
    char text[300] = "";
    if (try_open(&store, 0) != NPK_OK)
        fail_child("open");
    int64_t last = 0;
    atomic_fetch_add(&shared->ready, 1);
    while (!atomic_load(&shared->stop)) {
        npk_snapshot *snapshot = NULL;
        uint64_t least = atomic_load(&shared->acknowledged);
        if (npk_snapshot_take(store, &snapshot, &err) != NPK_OK)
            fail_child("snapshot");
        npk_source source = {.snapshot = snapshot};
        int64_t count = look(&source, text);
        npk_snapshot_release(snapshot);
        if (count < 0 || count < last || (uint64_t)count < least) {
            (void)snprintf(err.message, sizeof err.message, "%s, %lld after %lld, at least %llu", text, (long long)count,
                           (long long)last, (unsigned long long)least);
            fail_child("read");
        }
        last = count;
        atomic_fetch_add(&shared->reads, 1);
    }
    if (npk_store_close(store, &err) != NPK_OK)
        fail_child("close");
}

static int kill_count(int fallback)
{
    const char *given = getenv("NPK_KILLS");
    return given && atoi(given) > 0 ? atoi(given) : fallback;
}

/* The store stays open in a reader all the time, so each next writer finds the dead one's tail under a live index. */
START_TEST(test_writers_are_killed_while_another_process_reads)
{
    rng r = rng_seeded(1);
    pid_t reader = start(read_forever, 0);
    wait_for(&shared->ready, 1);
    int kills = kill_count(50);
    for (int i = 0; i < kills; i++) {
        uint64_t before = atomic_load(&shared->acknowledged);
        pid_t writer = start(write_forever, i);
        wait_for(&shared->acknowledged, before + 1);
        pause_ms((long)rng_below(&r, 15));
        kill_now(writer);
    }
    uint64_t acknowledged = atomic_load(&shared->acknowledged), started = atomic_load(&shared->started);
    npk_store *store = open_store(0);
    OK(write_one(store, NPK_SYNC_COMMIT));
    uint64_t count = (uint64_t)count_in(store, "after the kills");
    ck_assert_uint_ge(count, acknowledged + 1);
    ck_assert_uint_le(count, started + 1);
    OK(npk_store_verify(store, note_finding, NULL, NULL, &err));
    OK(npk_store_close(store, &err));
    atomic_store(&shared->stop, 1);
    join(reader);
    ck_assert_uint_gt(atomic_load(&shared->reads), 0);
}
END_TEST

/* Everybody dies: the next open recovers from checkpoint and log. */
START_TEST(test_all_processes_are_killed)
{
    rng r = rng_seeded(2);
    int kills = kill_count(50);
    for (int i = 0; i < kills; i += 2) {
        uint64_t before = atomic_load(&shared->acknowledged);
        pid_t one = start(write_forever, i), two = start(write_forever, i + 1);
        wait_for(&shared->acknowledged, before + 1);
        pause_ms((long)rng_below(&r, 20));
        kill_now(one);
        if (rng_chance(&r, 1, 2))
            pause_ms((long)rng_below(&r, 10));
        kill_now(two);
        uint64_t acknowledged = atomic_load(&shared->acknowledged);
        npk_store *store = open_store(0);
        uint64_t count = (uint64_t)count_in(store, "after both died");
        ck_assert_uint_ge(count, acknowledged);
        ck_assert_uint_le(count, acknowledged + 2); /* each may have died before it could say that its commit returned */
        if (i % 10 == 0)
            OK(npk_store_verify(store, note_finding, NULL, NULL, &err));
        OK(npk_store_close(store, &err));
        atomic_store(&shared->acknowledged, count);
    }
}
END_TEST

static void write_and_pause(int level)
{
    npk_store *store = NULL;
    (void)setenv("NPK_TEST_PAUSE", "before_publish:20000", 1);
    if (try_open(&store, 0) != NPK_OK)
        fail_child("open");
    atomic_fetch_add(&shared->ready, 1);
    (void)write_one(store, (npk_sync)level);
    fail_child("survived the kill");
}

/* Between log sync and publish the transaction is committed: the next writer keeps it. */
START_TEST(test_a_writer_killed_between_sync_and_publish_has_committed)
{
    npk_sync level = (npk_sync)(_i % 3);
    int open_elsewhere = _i < 3;
    pid_t first = start(write_many, 0);
    join(first);
    atomic_store(&shared->ready, 0);
    pid_t reader = open_elsewhere ? start(read_forever, 0) : 0;
    if (open_elsewhere)
        wait_for(&shared->ready, 1);
    pid_t writer = start(write_and_pause, (int)level);
    wait_for(&shared->started, 101);
    pause_ms(300); /* it is in the log by now */
    if (open_elsewhere) {
        npk_store *store = open_store(0);
        ck_assert_int_eq(count_in(store, "while the writer pauses"), 100);
        npk_txn *txn = NULL;
        ck_assert_int_eq(npk_txn_begin(store, 10, &txn, &err), NPK_BUSY);
        char pid[24];
        (void)snprintf(pid, sizeof pid, "%d", (int)writer);
        ck_assert_ptr_nonnull(strstr(err.message, pid)); /* the holder is named */
        ck_assert_ptr_nonnull(strstr(err.message, "test child"));
        kill_now(writer);
        OK(write_one(store, NPK_SYNC_COMMIT));
        ck_assert_int_eq(count_in(store, "after the next writer"), 102);
        OK(npk_store_close(store, &err));
        atomic_store(&shared->stop, 1);
        join(reader);
    } else {
        kill_now(writer);
    }
    npk_store *store = open_store(0);
    ck_assert_int_eq(count_in(store, "after reopening"), open_elsewhere ? 102 : 101);
    OK(npk_store_verify(store, note_finding, NULL, NULL, &err));
    OK(npk_store_close(store, &err));
}
END_TEST

/* ---- pins -------------------------------------------------------------------------------------------------------------------- */

static void hold_snapshot(int number)
{
    (void)number;
    npk_store *store = NULL;
    npk_snapshot *snapshot = NULL;
    char text[300] = "";
    if (try_open(&store, 0) != NPK_OK || npk_snapshot_take(store, &snapshot, &err) != NPK_OK)
        fail_child("snapshot");
    atomic_fetch_add(&shared->ready, 1);
    while (!atomic_load(&shared->stop))
        pause_ms(1);
    npk_source source = {.snapshot = snapshot};
    if (look(&source, text) != 100) { /* opens its arrays only now */
        (void)snprintf(err.message, sizeof err.message, "%s", text);
        fail_child("the snapshot's files");
    }
    npk_snapshot_release(snapshot);
    if (npk_store_close(store, &err) != NPK_OK)
        fail_child("close");
}

static void churn(npk_store *store)
{
    for (int i = 0; i < 4; i++) {
        OK(write_one(store, NPK_SYNC_COMMIT));
        OK(npk_store_compact(store, NULL, &err));
        OK(npk_store_checkpoint(store, &err));
    }
}

START_TEST(test_a_snapshot_elsewhere_keeps_its_files_until_it_is_released_or_its_process_dies)
{
    join(start(write_many, 0));
    pid_t holder = start(hold_snapshot, 0);
    wait_for(&shared->ready, 1);
    npk_store *store = open_store(0);
    npk_stats stats = {.struct_size = sizeof stats};
    churn(store);
    OK(npk_store_stats(store, &stats, &err));
    ck_assert_uint_ne(stats.pin_lsn, 0);
    if (_i == 0) {
        atomic_store(&shared->stop, 1);
        join(holder);
    } else {
        kill_now(holder);
    }
    OK(npk_store_stats(store, &stats, &err));
    ck_assert_uint_eq(stats.pin_lsn, 0);
    uint64_t held = stats.dead_file_count;
    churn(store);
    OK(npk_store_stats(store, &stats, &err));
    ck_assert_uint_gt(held, stats.dead_file_count);
    OK(npk_store_close(store, &err));
}
END_TEST

/* ---- copies, removals --------------------------------------------------------------------------------------------------------- */

START_TEST(test_the_index_can_be_deleted_while_the_store_is_closed)
{
    char index[128];
    (void)snprintf(index, sizeof index, "%s/index", path);
    join(start(write_many, 0));
    shell("rm -rf", index, "");
    npk_store *store = open_store(0);
    ck_assert_int_eq(count_in(store, "without the index"), 100);
    OK(write_one(store, NPK_SYNC_COMMIT));
    OK(npk_store_close(store, &err));
}
END_TEST

START_TEST(test_a_copy_opens_with_a_whole_state)
{
    char copy[128];
    (void)snprintf(copy, sizeof copy, "%s/copy", directory);
    join(start(write_many, 0));
    npk_store *store = _i ? open_store(0) : NULL;
    if (store)
        OK(write_one(store, NPK_SYNC_NEVER)); /* live, and the index half written back for all the copy knows */
    shell("cp -r", path, copy);
    if (store) {
        OK(write_one(store, NPK_SYNC_COMMIT)); /* the copy does not follow */
        OK(npk_store_close(store, &err));
    }
    (void)snprintf(path, sizeof path, "%.90s", copy);
    store = open_store(0);
    ck_assert_int_eq(count_in(store, "in the copy"), _i ? 101 : 100);
    OK(write_one(store, NPK_SYNC_COMMIT));
    OK(npk_store_verify(store, note_finding, NULL, NULL, &err));
    OK(npk_store_close(store, &err));
}
END_TEST

START_TEST(test_closing_a_store_whose_directory_is_gone_is_silent)
{
    npk_store *store = open_store(_i);
    OK(write_one(store, NPK_SYNC_COMMIT));
    npk_source source = {.store = store};
    npk_array *array = NULL;
    npk_region *region = NULL;
    OK(npk_store_compact(store, NULL, &err));
    OK(npk_array_open(&source, "a", &array, &err));
    OK(npk_array_map(array, 0, 1, NPK_MAP_READ, &region, &err));
    shell("rm -rf", path, "");
    npk_txn *txn = NULL;
    ck_assert_int_ne(npk_txn_begin(store, 10, &txn, &err), NPK_OK);
    OK(npk_store_close(store, &err));
    uint8_t row[ROW];
    make_row(row, 0);
    ck_assert_mem_eq(npk_region_address(region), row, ROW); /* the view lives on */
    npk_region_release(region);
    npk_array_release(array);
    struct stat info;
    ck_assert_int_ne(stat(path, &info), 0); /* and nothing came back */
}
END_TEST

/* ---- fork --------------------------------------------------------------------------------------------------------------------- */

static void use_after_fork(npk_store *store, npk_txn *txn)
{
    npk_txn *mine = NULL;
    npk_snapshot *snapshot = NULL;
    npk_position position;
    npk_source source = {.store = store};
    npk_array *array = NULL;
    uint8_t row[ROW] = {0};
    if (!npk_store_is_forked(store))
        fail_child("is_forked");
    if (npk_txn_begin(store, 0, &mine, &err) != NPK_MISUSE || npk_snapshot_take(store, &snapshot, &err) != NPK_MISUSE ||
        npk_store_position(store, &position, &err) != NPK_MISUSE || npk_array_open(&source, "a", &array, &err) != NPK_MISUSE ||
        npk_store_flush(store, &err) != NPK_MISUSE || npk_store_checkpoint(store, &err) != NPK_MISUSE ||
        npk_store_compact(store, NULL, &err) != NPK_MISUSE)
        fail_child("the child may use the handle");
    if (txn && npk_txn_append(txn, "a", 1, row, &err) != NPK_MISUSE)
        fail_child("the child may use the transaction");
    if (npk_store_close(store, &err) != NPK_OK)
        fail_child("close in the child");
    npk_store *own = NULL; /* it opens the store for itself, while the parent holds the writer lock or not */
    if (try_open(&own, 0) != NPK_OK)
        fail_child("open in the child");
    npk_status status = npk_txn_begin(own, 5, &mine, &err);
    if (status != (txn ? NPK_BUSY : NPK_OK))
        fail_child("the parent's lock was lost");
    if (status == NPK_OK)
        npk_txn_abort(mine);
    if (npk_store_close(own, &err) != NPK_OK)
        fail_child("close of its own");
}

START_TEST(test_a_forked_child_cannot_use_the_handle_and_the_parent_keeps_its_lock)
{
    npk_store *store = open_store(1);
    OK(write_one(store, NPK_SYNC_COMMIT));
    npk_txn *txn = NULL;
    uint8_t row[ROW];
    make_row(row, 1);
    if (_i) {
        OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
        OK(npk_txn_append(txn, "a", 1, row, &err));
    }
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        use_after_fork(store, txn);
        _exit(0);
    }
    join(child);
    if (txn)
        npk_txn_abort(txn);
    OK(write_one(store, NPK_SYNC_COMMIT));
    ck_assert_int_eq(count_in(store, "in the parent"), 2);
    OK(npk_store_close(store, &err));
    store = open_store(0);
    ck_assert_int_eq(count_in(store, "after reopening"), 2);
    OK(npk_store_close(store, &err));
}
END_TEST

/* ---- files linked unsynced -------------------------------------------------------------------------------------------------- */

static npk_io watched;               /* the system's, with syncs counted */
static npk_file *column_files[16];   /* open ones of columns/<id>.npy */
static int column_syncs;

static int watched_open(const npk_io *io, npk_file *directory_file, const char *name, unsigned flags, npk_file **file)
{
    int rc = npk_io_posix()->open(io, directory_file, name, flags, file);
    size_t size = strlen(name);
    for (size_t i = 0; rc == 0 && size > 4 && strcmp(name + size - 4, ".npy") == 0 && i < 16; i++)
        if (!column_files[i]) {
            column_files[i] = *file;
            break;
        }
    return rc;
}

static void watched_close(const npk_io *io, npk_file *file)
{
    for (size_t i = 0; i < 16; i++)
        if (column_files[i] == file)
            column_files[i] = NULL;
    npk_io_posix()->close(io, file);
}

static int watched_sync(const npk_io *io, npk_file *file)
{
    for (size_t i = 0; i < 16; i++)
        column_syncs += file && column_files[i] == file;
    return npk_io_posix()->sync(io, file);
}

enum { BULK_ROWS = 512 };

static npk_status save_bulk(npk_store *store, const char *name, npk_sync level)
{
    static uint8_t rows[BULK_ROWS * ROW];
    npk_txn *txn = NULL;
    npk_status status = npk_txn_begin(store, UINT32_MAX, &txn, &err);
    if (status != NPK_OK)
        return status;
    rng r = rng_seeded((uint64_t)name[0]);
    rng_fill(&r, rows, sizeof rows);
    status = npk_txn_save(txn, name, &spec, BULK_ROWS, rows, &err);
    if (status == NPK_OK)
        return npk_txn_commit(txn, level, NULL, &err);
    npk_txn_abort(txn);
    return status;
}

/* Two files, of which the first is dead by then. paused: before the second is published. */
static void save_unsynced(int paused)
{
    npk_store *store = NULL;
    if (try_open(&store, 0) != NPK_OK || save_bulk(store, "x", NPK_SYNC_NEVER) != NPK_OK)
        fail_child("save");
    if (paused) {
        if (npk_store_close(store, &err) != NPK_OK)
            fail_child("close");
        (void)setenv("NPK_TEST_PAUSE", "before_publish:20000", 1);
        if (try_open(&store, 0) != NPK_OK)
            fail_child("open");
    }
    atomic_fetch_add(&shared->ready, 1);
    if (save_bulk(store, "x", NPK_SYNC_NEVER) != NPK_OK)
        fail_child("save");
    atomic_fetch_add(&shared->ready, 1);
    for (;;)
        pause_ms(1000);
}

/* A process links a file that it does not sync, and is killed: before it publishes (odd), or after. The next commit at level commit of another one
 * proves the log durable above the link, so it must sync the file. Another commit has nothing more to sync. */
START_TEST(test_a_commit_syncs_the_file_that_a_killed_process_linked_unsynced)
{
    int paused = _i % 2;
    watched = *npk_io_posix();
    watched.open = watched_open;
    watched.close = watched_close;
    watched.sync = watched_sync;
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE, .no_background = 1, .bulk_size = 64 << 10,
                           .busy_timeout_ms = 20000, .io = &watched};
    atomic_store(&shared->ready, 0);
    npk_store *store = NULL;
    OK(npk_store_open(path, &options, &store, &err)); /* first: it has the index open when the other one dies */
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) { /* the handle is the parent's; the path is opened anew, through another table */
        save_unsynced(paused);
        _exit(0);
    }
    wait_for(&shared->ready, paused ? 1 : 2);
    if (paused)
        pause_ms(300);
    kill_now(pid);
    column_syncs = 0;
    OK(write_one(store, NPK_SYNC_COMMIT));
    ck_assert_int_eq(column_syncs, 1);
    OK(write_one(store, NPK_SYNC_COMMIT));
    ck_assert_int_eq(column_syncs, 1);
    npk_source source = {.store = store};
    npk_array *array = NULL;
    OK(npk_array_open(&source, "x", &array, &err));
    ck_assert_uint_eq(npk_array_describe(array)->row_count, BULK_ROWS);
    npk_array_release(array);
    OK(npk_store_verify(store, note_finding, NULL, NULL, &err));
    OK(npk_store_close(store, &err));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("processes");
    TCase *tcase = tcase_create("processes");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 240);
    tcase_add_loop_test(tcase, test_processes_write_in_turn, 0, 2);
    tcase_add_test(tcase, test_writers_are_killed_while_another_process_reads);
    tcase_add_test(tcase, test_all_processes_are_killed);
    tcase_add_loop_test(tcase, test_a_writer_killed_between_sync_and_publish_has_committed, 0, 6);
    tcase_add_loop_test(tcase, test_a_snapshot_elsewhere_keeps_its_files_until_it_is_released_or_its_process_dies, 0, 2);
    tcase_add_test(tcase, test_the_index_can_be_deleted_while_the_store_is_closed);
    tcase_add_loop_test(tcase, test_a_copy_opens_with_a_whole_state, 0, 2);
    tcase_add_loop_test(tcase, test_closing_a_store_whose_directory_is_gone_is_silent, 0, 2);
    tcase_add_loop_test(tcase, test_a_forked_child_cannot_use_the_handle_and_the_parent_keeps_its_lock, 0, 2);
    tcase_add_loop_test(tcase, test_a_commit_syncs_the_file_that_a_killed_process_linked_unsynced, 0, 2);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
