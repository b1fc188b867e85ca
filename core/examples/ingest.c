/* ingest.c - the store from C: three batches of rows and the offset behind them, each batch in one transaction; then the rows are read back.
 *
 *     example_ingest DIRECTORY
 *
 * Run it twice: it goes on where it stopped, because rows and offset are committed together. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "npk.h"

enum { BATCHES = 3, ROWS = 10, COLUMNS = 4 };

static int fail(const char *what, const npk_error *err)
{
    (void)fprintf(stderr, "%s: %s (%s)\n", what, err->message, npk_status_kind(err->status));
    return 1;
}

static void read_offset(void *context, const char *key, const void *value, size_t size)
{
    char text[24] = "";
    memcpy(text, value, size < sizeof text ? size : sizeof text - 1);
    if (strcmp(key, "offset") == 0)
        *(long *)context = strtol(text, NULL, 10);
}

/* One batch: rows and the number of the next batch, there together or not at all. */
static npk_status write_batch(npk_store *store, long batch, npk_error *err)
{
    static const uint64_t shape[1] = {COLUMNS};
    static const npk_array_spec spec = {"<f4", COLUMNS * sizeof(float), 1, shape, 0};
    float rows[ROWS][COLUMNS];
    for (int i = 0; i < ROWS; i++)
        for (int k = 0; k < COLUMNS; k++)
            rows[i][k] = (float)(batch * ROWS + i) + (float)k / 10;
    char offset[24];
    int offset_size = snprintf(offset, sizeof offset, "%ld", batch + 1);
    npk_txn *txn = NULL;
    npk_status status = npk_txn_begin(store, UINT32_MAX, &txn, err);
    if (status != NPK_OK)
        return status;
    status = batch == 0 ? npk_txn_save(txn, "samples", &spec, ROWS, rows, err)
                        : npk_txn_append(txn, "samples", ROWS, rows, err);
    if (status == NPK_OK)
        status = npk_txn_set_attr(txn, NULL, "offset", offset, (size_t)offset_size, err);
    if (status != NPK_OK) {
        npk_txn_abort(txn);
        return status;
    }
    return npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, err);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        (void)fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        return 2;
    }
    npk_error err = {0};
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE};
    npk_store *store = NULL;
    if (npk_store_open(argv[1], &options, &store, &err) != NPK_OK)
        return fail("open", &err);

    npk_source source = {.store = store};
    long offset = 0;
    if (npk_list_attrs(&source, NULL, read_offset, &offset, &err) != NPK_OK)
        return fail("attributes", &err);
    for (long batch = offset; batch < BATCHES; batch++)
        if (write_batch(store, batch, &err) != NPK_OK)
            return fail("commit", &err);

    npk_array *array = NULL;
    npk_region *region = NULL;
    if (npk_array_open(&source, "samples", &array, &err) != NPK_OK || npk_array_load(array, &region, &err) != NPK_OK)
        return fail("load", &err);
    const float *values = npk_region_address(region);
    uint64_t count = npk_array_describe(array)->row_count;
    (void)printf("rows %llu, last %.1f, ", (unsigned long long)count, (double)values[(count - 1) * COLUMNS]);
    npk_region_release(region);
    npk_array_release(array);
    if (npk_list_attrs(&source, NULL, read_offset, &offset, &err) != NPK_OK)
        return fail("attributes", &err);
    (void)printf("offset %ld\n", offset);
    return npk_store_close(store, &err) == NPK_OK ? 0 : fail("close", &err);
}
