/* verify.c - how fast is a deep check of everything, against reading the same files?
 *
 *   bench_verify [-m MiB] [-r rounds] [-d directory]    JSON on stdout
 *
 * The store is one array in one column file. Both read it from the page cache (warm) and after the kernel was asked to drop it (cold); they take
 * turns. One thread. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

enum { PIECE = 1 << 20, ROW_SIZE = 4096 };

static char path[600], columns[700];
static char piece[PIECE];
static uint64_t total; /* bytes of column files */

/* Read every column file once, or drop them from the page cache. */
static void each_file(int drop)
{
    DIR *directory = opendir(columns);
    struct dirent *entry;
    if (!directory)
        stop(columns, "could not open");
    total = 0;
    while ((entry = readdir(directory))) {
        if (entry->d_name[0] == '.')
            continue;
        int file = openat(dirfd(directory), entry->d_name, O_RDONLY);
        ssize_t done;
        struct stat status;
        if (file < 0 || fstat(file, &status))
            stop(entry->d_name, "could not open");
        total += (uint64_t)status.st_size;
        if (drop)
            (void)posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
        else
            while ((done = read(file, piece, sizeof piece)) > 0)
                ;
        close(file);
    }
    closedir(directory);
}

static double time_read(int cold)
{
    if (cold)
        each_file(1);
    double began = seconds_now();
    each_file(0);
    return seconds_now() - began;
}

static double time_verify(npk_store *store, int cold)
{
    npk_error err;
    if (cold)
        each_file(1);
    double began = seconds_now();
    must(npk_store_verify(store, NULL, NULL, NULL, &err), &err, "verify");
    return seconds_now() - began;
}

static npk_store *make(uint64_t mib)
{
    npk_error err;
    npk_store *store;
    npk_txn *txn;
    npk_position position;
    npk_options with = {.struct_size = sizeof with, .mode = NPK_MODE_CREATE, .no_background = 1, .program = "bench"};
    npk_array_spec spec = {.descr = "<f8", .row_size = ROW_SIZE, .ndim = 1, .shape = (uint64_t[]){ROW_SIZE / 8}};
    must(npk_store_open(path, &with, &store, &err), &err, "open");
    must(npk_txn_begin(store, UINT32_MAX, &txn, &err), &err, "begin");
    must(npk_txn_save(txn, "rows", &spec, 0, NULL, &err), &err, "save");
    char *rows = malloc(16 << 20);
    if (!rows)
        stop("rows", "no memory");
    for (uint64_t i = 0; i < mib; i += 16) {
        fill_random(rows, 16 << 20, i + 1);
        must(npk_txn_append(txn, "rows", (16 << 20) / ROW_SIZE, rows, &err), &err, "append");
    }
    must(npk_txn_commit(txn, NPK_SYNC_COMMIT, &position, &err), &err, "commit");
    free(rows);
    return store;
}

int main(int count, char **words)
{
    uint64_t mib = 512;
    int rounds = 7, choice;
    const char *parent = NULL;
    double read_times[2][100], verify_times[2][100];
    while ((choice = getopt(count, words, "m:r:d:")) != -1) {
        switch (choice) {
        case 'm': mib = strtoull(optarg, NULL, 10); break;
        case 'r': rounds = atoi(optarg); break;
        case 'd': parent = optarg; break;
        default: return 2;
        }
    }
    if (mib < 16 || rounds < 1 || rounds > 100)
        stop("usage", "bench_verify [-m MiB] [-r rounds] [-d directory]");
    scratch_make(parent);
    scratch_path(path, sizeof path, "store");
    snprintf(columns, sizeof columns, "%s/columns", path);
    npk_store *store = make(mib);
    for (int cold = 0; cold < 2; cold++) {
        if (!cold)
            each_file(0);
        for (int i = 0; i < rounds; i++) {
            read_times[cold][i] = time_read(cold);
            verify_times[cold][i] = time_verify(store, cold);
        }
    }
    double speed[4];
    for (int cold = 0; cold < 2; cold++) {
        speed[2 * cold] = (double)total / median(read_times[cold], (size_t)rounds) / 1e9;
        speed[2 * cold + 1] = (double)total / median(verify_times[cold], (size_t)rounds) / 1e9;
    }
    printf("{\"gb\": %.3f, \"warm_read_gb_s\": %.2f, \"warm_verify_gb_s\": %.2f, \"cold_read_gb_s\": %.2f, \"cold_verify_gb_s\": %.2f, "
           "\"warm_ratio\": %.2f, \"cold_ratio\": %.2f}\n",
           (double)total / 1e9, speed[0], speed[1], speed[2], speed[3], speed[1] / speed[0], speed[3] / speed[2]);
    npk_error err;
    must(npk_store_close(store, &err), &err, "close");
    return 0;
}
