/* memory.c - how much memory does a transaction of 2 GiB take beyond its input?
 *
 *   bench_memory [-t total MiB] [-b batch KiB] [-d directory]     JSON on stdout
 *
 * The batch is one buffer, filled anew each time; the peak is the process's, file pages that it maps included. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common.h"

enum { ROW_SIZE = 4096 };

static double peak_mib(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

int main(int count, char **words)
{
    size_t total_mib = 2048, batch_kib = 16 * 1024;
    const char *parent = NULL;
    int choice;
    while ((choice = getopt(count, words, "t:b:d:")) != -1) {
        switch (choice) {
        case 't': total_mib = strtoul(optarg, NULL, 10); break;
        case 'b': batch_kib = strtoul(optarg, NULL, 10); break;
        case 'd': parent = optarg; break;
        default: return 2;
        }
    }
    scratch_make(parent);
    char path[600];
    scratch_path(path, sizeof path, "store");
    npk_error err;
    npk_store *store;
    npk_options with = {.struct_size = sizeof with, .mode = NPK_MODE_CREATE, .program = "bench"};
    must(npk_store_open(path, &with, &store, &err), &err, "open");
    size_t batch_size = batch_kib * 1024, batches = total_mib * 1024 / batch_kib;
    char *batch = malloc(batch_size);
    if (!batch)
        stop("memory", "none left");
    fill_random(batch, batch_size, 1);
    npk_array_spec spec = {.descr = "<f8", .row_size = ROW_SIZE, .ndim = 1, .shape = (uint64_t[]){ROW_SIZE / 8}};
    npk_txn *txn;
    npk_position position;
    double before = peak_mib(), began = seconds_now();
    must(npk_txn_begin(store, UINT32_MAX, &txn, &err), &err, "begin");
    must(npk_txn_save(txn, "rows", &spec, 0, NULL, &err), &err, "save");
    for (size_t i = 0; i < batches; i++) {
        fill_random(batch, 64, i); /* no batch is the last one again */
        must(npk_txn_append(txn, "rows", batch_size / ROW_SIZE, batch, &err), &err, "append");
    }
    must(npk_txn_commit(txn, NPK_SYNC_COMMIT, &position, &err), &err, "commit");
    double took = seconds_now() - began, after = peak_mib();
    printf("{\"total_mib\": %zu, \"batch_kib\": %zu, \"seconds\": %.2f, \"peak_beyond_batches_mib\": %.1f}\n", total_mib, batch_kib,
           took, after - before);
    must(npk_store_close(store, &err), &err, "close");
    free(batch);
    return 0;
}
