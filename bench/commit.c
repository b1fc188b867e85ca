/* commit.c - what does a durable one-row commit cost, against the disk itself and against LMDB?
 *
 * Three loops over the same row take turns within one run, so that a slow minute of the disk hits all of them:
 *   store   begin, append one row, commit at level "commit"
 *   bare    pwrite of as many bytes as one such commit adds to the log, fdatasync; file preallocated and zero-filled
 *   lmdb    begin, put one row under the next key, commit, everything synced as LMDB does by default
 *
 *   bench_commit [-n commits per round] [-r rounds] [-d directory]     JSON on stdout
 *   bench_commit -s [-n commits]    only the store, between two marks on stderr: for counting syncs under strace */
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

enum {
    ROW_SIZE = 256,
    FILL_SIZE = 4096 /* as the log fills its segments: what the page cache is made of decides what an append costs (wal_segment.c) */
};

static char row[ROW_SIZE];
static npk_store *store;
static int bare_fd;
static off_t bare_at;
static size_t bare_step;
static char *bare_bytes;
static MDB_env *lmdb;
static MDB_dbi table;
static uint64_t next_key;

static void store_open(void)
{
    npk_error err;
    char path[600];
    scratch_path(path, sizeof path, "store");
    npk_options with = {.struct_size = sizeof with, .mode = NPK_MODE_CREATE, .program = "bench"};
    must(npk_store_open(path, &with, &store, &err), &err, "open store");
    npk_array_spec spec = {.descr = "<f4", .row_size = ROW_SIZE, .ndim = 1, .shape = (uint64_t[]){ROW_SIZE / 4}};
    npk_txn *txn;
    npk_position position;
    must(npk_txn_begin(store, UINT32_MAX, &txn, &err), &err, "begin");
    must(npk_txn_save(txn, "rows", &spec, 0, NULL, &err), &err, "save");
    must(npk_txn_commit(txn, NPK_SYNC_COMMIT, &position, &err), &err, "commit");
}

static void store_round(int count)
{
    npk_error err;
    for (int i = 0; i < count; i++) {
        npk_txn *txn;
        npk_position position;
        must(npk_txn_begin(store, UINT32_MAX, &txn, &err), &err, "begin");
        must(npk_txn_append(txn, "rows", 1, row, &err), &err, "append");
        must(npk_txn_commit(txn, NPK_SYNC_COMMIT, &position, &err), &err, "commit");
    }
}

/* How many bytes one commit adds to the log: what the bare loop writes. */
static void bare_open(int commits_ahead)
{
    npk_error err;
    npk_position before, after;
    must(npk_store_position(store, &before, &err), &err, "position");
    store_round(100);
    must(npk_store_position(store, &after, &err), &err, "position");
    bare_step = (size_t)(after.lsn - before.lsn) / 100;

    char path[600];
    scratch_path(path, sizeof path, "bare");
    bare_fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    size_t size = bare_step * (size_t)commits_ahead;
    char *zeros = calloc(1, FILL_SIZE);
    bare_bytes = malloc(bare_step);
    if (bare_fd < 0 || !zeros || !bare_bytes)
        stop("bare file", "could not create");
    fill_random(bare_bytes, bare_step, 7);
    for (size_t at = 0; at < size; at += FILL_SIZE)
        if (pwrite(bare_fd, zeros, FILL_SIZE, (off_t)at) != FILL_SIZE)
            stop("bare file", "could not fill");
    free(zeros);
    if (fsync(bare_fd))
        stop("bare file", "could not sync");
}

static void bare_round(int count)
{
    for (int i = 0; i < count; i++) {
        if (pwrite(bare_fd, bare_bytes, bare_step, bare_at) != (ssize_t)bare_step || fdatasync(bare_fd))
            stop("bare file", "could not write");
        bare_at += (off_t)bare_step;
    }
}

static void lmdb_must(int status)
{
    if (status)
        stop("lmdb", mdb_strerror(status));
}

static void lmdb_open(void)
{
    char path[600];
    scratch_path(path, sizeof path, "lmdb");
    MDB_txn *txn;
    if (mkdir(path, 0700))
        stop(path, "could not create");
    lmdb_must(mdb_env_create(&lmdb));
    lmdb_must(mdb_env_set_mapsize(lmdb, (size_t)1 << 30));
    lmdb_must(mdb_env_open(lmdb, path, 0, 0600));
    lmdb_must(mdb_txn_begin(lmdb, NULL, 0, &txn));
    lmdb_must(mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &table));
    lmdb_must(mdb_txn_commit(txn));
}

static void lmdb_round(int count)
{
    for (int i = 0; i < count; i++) {
        MDB_txn *txn;
        MDB_val key = {sizeof next_key, &next_key}, value = {ROW_SIZE, row};
        lmdb_must(mdb_txn_begin(lmdb, NULL, 0, &txn));
        lmdb_must(mdb_put(txn, table, &key, &value, MDB_APPEND));
        lmdb_must(mdb_txn_commit(txn));
        next_key++;
    }
}

static double timed(void (*round)(int), int count)
{
    round(3); /* touches what the round needs */
    double began = seconds_now();
    round(count);
    return (seconds_now() - began) / count;
}

int main(int count, char **words)
{
    int commits = 200, rounds = 15, store_only = 0, choice;
    const char *parent = NULL;
    while ((choice = getopt(count, words, "n:r:d:s")) != -1) {
        switch (choice) {
        case 'n': commits = atoi(optarg); break;
        case 'r': rounds = atoi(optarg); break;
        case 'd': parent = optarg; break;
        case 's': store_only = 1; break;
        default: return 2;
        }
    }
    scratch_make(parent);
    fill_random(row, sizeof row, 1);
    store_open();
    if (store_only) {
        store_round(50);
        fputs("bench: first commit\n", stderr);
        store_round(commits);
        fputs("bench: last commit\n", stderr);
        npk_store_close(store, NULL);
        return 0;
    }
    bare_open((commits + 3) * rounds);
    lmdb_open();
    double *times[3] = {calloc((size_t)rounds, sizeof(double)), calloc((size_t)rounds, sizeof(double)),
                        calloc((size_t)rounds, sizeof(double))};
    if (!times[0] || !times[1] || !times[2])
        stop("memory", "none left");
    for (int i = 0; i < rounds; i++) {
        times[0][i] = timed(store_round, commits);
        times[1][i] = timed(bare_round, commits);
        times[2][i] = timed(lmdb_round, commits);
    }
    double mine = median(times[0], (size_t)rounds), bare = median(times[1], (size_t)rounds),
           peer = median(times[2], (size_t)rounds);
    npk_stats stats = {.struct_size = sizeof stats};
    npk_error err;
    must(npk_store_stats(store, &stats, &err), &err, "stats");
    printf("{\"store_us\": %.1f, \"bare_us\": %.1f, \"lmdb_us\": %.1f, \"bytes_per_commit\": %zu, \"store_over_bare\": %.3f, "
           "\"rate_over_lmdb\": %.3f}\n",
           mine * 1e6, bare * 1e6, peer * 1e6, bare_step, mine / bare, peer / mine);
    npk_store_close(store, NULL);
    mdb_env_close(lmdb);
    close(bare_fd);
    free(bare_bytes);
    for (int i = 0; i < 3; i++)
        free(times[i]);
    return 0;
}
