/* fuzz.c - what the targets share. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>

#include "bytes.h"
#include "catalog.h"
#include "row_index.h"

void fuzz_fail(const char *what)
{
    (void)fprintf(stderr, "does not hold: %s\n", what);
    abort();
}

void fuzz_touch(const void *bytes, size_t size)
{
    static volatile uint8_t sink;
    const uint8_t *at = bytes;
    for (size_t i = 0; i < size; i++)
        sink = (uint8_t)(sink ^ at[i]);
}

struct ids {
    uint64_t items[64];
    size_t count;
};

static npk_status collect(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size, bool *stop,
                          npk_error *err)
{
    (void)err;
    struct ids *ids = context;
    fuzz_touch(key, key_size);
    fuzz_touch(value, value_size);
    if (key_size == 8)
        ids->items[ids->count++] = npk_get_be64(key);
    *stop = ids->count == 64;
    return NPK_OK;
}

void fuzz_look_at_arrays(npk_kv *kv, int consistent)
{
    struct ids ids = {.count = 0};
    npk_error err = {0};
    FUZZ_CHECK(npk_kv_scan(kv, NPK_TABLE_ARRAYS, NULL, 0, NULL, 0, collect, &ids, &err) == NPK_OK);
    for (size_t i = 0; i < ids.count; i++) {
        npk_array_record record;
        bool found = false;
        if (npk_catalog_get_array(kv, ids.items[i], &record, &found, &err) != NPK_OK || !found)
            continue;
        fuzz_touch(record.descr, record.descr ? __builtin_strlen(record.descr) : 0);
        npk_status status = npk_row_index_check(kv, ids.items[i], record.row_count, record.row_size, &err);
        if (consistent && status != NPK_OK)
            fuzz_fail(err.message);
        npk_array_record_release(&record);
    }
}
