/* open.c - how long does the first open take?
 *
 *   bench_open -k [-m MiB of log]    after a kill, with that much log since the last checkpoint, in rows of 4 KiB
 *   bench_open -c                    after a clean close of an ordinary store
 *   [-r rounds] [-d directory]       JSON on stdout
 *
 * Writing and opening are processes of their own: nothing is warm but the page cache. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

enum { ROW_SIZE = 4096, ARRAYS = 10 };

static char path[600];
static char rows[16 * ROW_SIZE];

static npk_options options(void)
{
    /* Nothing may shorten the log behind the writer's back. */
    return (npk_options){.struct_size = sizeof(npk_options), .mode = NPK_MODE_CREATE, .sync = NPK_SYNC_NEVER, .program = "bench"};
}

static void append(npk_store *store, const char *name, int create, uint64_t count)
{
    npk_error err;
    npk_txn *txn;
    npk_position position;
    npk_array_spec spec = {.descr = "<f8", .row_size = ROW_SIZE, .ndim = 1, .shape = (uint64_t[]){ROW_SIZE / 8}};
    must(npk_txn_begin(store, UINT32_MAX, &txn, &err), &err, "begin");
    if (create)
        must(npk_txn_save(txn, name, &spec, 0, NULL, &err), &err, "save");
    must(npk_txn_append(txn, name, count, rows, &err), &err, "append");
    must(npk_txn_commit(txn, NPK_SYNC_NEVER, &position, &err), &err, "commit");
}

static _Noreturn void write_and_die(uint64_t mib)
{
    npk_error err;
    npk_store *store;
    npk_options with = options();
    with.no_background = 1;
    with.checkpoint_log_size = with.pending_limit = (uint64_t)8 << 30;
    must(npk_store_open(path, &with, &store, &err), &err, "open");
    append(store, "rows", 1, 1);
    must(npk_store_checkpoint(store, &err), &err, "checkpoint");
    npk_stats stats = {.struct_size = sizeof stats};
    do { /* one row a record: the smallest the figure speaks of */
        fill_random(rows, ROW_SIZE, stats.log_size + 3);
        for (int i = 0; i < 64; i++)
            append(store, "rows", 0, 1);
        must(npk_store_stats(store, &stats, &err), &err, "stats");
    } while (stats.log_size < mib << 20);
    raise(SIGKILL);
    _exit(3);
}

static _Noreturn void write_and_close(void)
{
    npk_error err;
    npk_store *store;
    npk_options with = options();
    char name[16];
    must(npk_store_open(path, &with, &store, &err), &err, "open");
    for (int i = 0; i < ARRAYS; i++) {
        snprintf(name, sizeof name, "array%d", i);
        for (int k = 0; k < 20; k++)
            append(store, name, k == 0, 16);
    }
    must(npk_store_close(store, &err), &err, "close");
    _exit(0);
}

static double open_once(void)
{
    int ends[2];
    double took = -1;
    if (pipe(ends))
        stop("pipe", "could not create");
    pid_t child = fork();
    if (child == 0) {
        npk_error err;
        npk_store *store;
        npk_options with = options();
        double began = seconds_now();
        must(npk_store_open(path, &with, &store, &err), &err, "open");
        took = seconds_now() - began;
        must(npk_store_close(store, &err), &err, "close");
        if (write(ends[1], &took, sizeof took) != sizeof took)
            _exit(1);
        _exit(0);
    }
    close(ends[1]);
    if (read(ends[0], &took, sizeof took) != sizeof took)
        stop("open", "the opening process failed");
    close(ends[0]);
    waitpid(child, NULL, 0);
    return took;
}

int main(int count, char **words)
{
    uint64_t mib = 64;
    int rounds = 7, killed = -1, choice;
    const char *parent = NULL;
    double times[100];
    while ((choice = getopt(count, words, "kcm:r:d:")) != -1) {
        switch (choice) {
        case 'k': killed = 1; break;
        case 'c': killed = 0; break;
        case 'm': mib = strtoull(optarg, NULL, 10); break;
        case 'r': rounds = atoi(optarg); break;
        case 'd': parent = optarg; break;
        default: return 2;
        }
    }
    if (killed < 0 || rounds < 1 || rounds > 100)
        stop("usage", "bench_open -k | -c");
    scratch_make(parent);
    scratch_path(path, sizeof path, "store");
    fill_random(rows, sizeof rows, 5);
    for (int i = 0; i < rounds; i++) {
        if (killed || i == 0) {
            int status;
            remove_tree(path);
            pid_t child = fork();
            if (child == 0) {
                if (killed)
                    write_and_die(mib);
                write_and_close();
            }
            waitpid(child, &status, 0);
            if (killed ? !WIFSIGNALED(status) : status != 0)
                stop("write", "the writing process failed");
        }
        times[i] = open_once();
    }
    double middle = median(times, (size_t)rounds); /* sorts: the last is the worst */
    printf("{\"what\": \"%s\", \"open_ms\": %.2f, \"worst_ms\": %.2f}\n", killed ? "after a kill" : "after a clean close",
           middle * 1e3, times[rounds - 1] * 1e3);
    return 0;
}
