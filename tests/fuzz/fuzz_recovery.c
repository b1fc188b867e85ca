/* fuzz_recovery.c - a whole store: FORMAT, segments, column files and checkpoints out of the input; recovered into memory as npk-recover does,
 * verified, and every array read. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "bytes.h"
#include "catalog.h"
#include "flat_io.h"
#include "opening.h"
#include "recover.h"
#include "verify.h"

#define READ_MAX (256u * 1024u)

struct names {
    char items[16][NPK_NAME_MAX + 1];
    size_t count;
};

static npk_status note_name(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size, bool *stop,
                            npk_error *err)
{
    (void)err;
    struct names *names = context;
    fuzz_touch(value, value_size);
    if (key_size <= NPK_NAME_MAX) {
        memset(names->items[names->count], 0, NPK_NAME_MAX + 1);
        memcpy(names->items[names->count++], key, key_size);
    }
    *stop = names->count == 16;
    return NPK_OK;
}

static void read_array(npk_array *array)
{
    npk_error err = {0};
    const npk_array_info *info = npk_array_describe(array);
    uint64_t count = info->row_size ? npk_min_u64(info->row_count, READ_MAX / npk_max_u64(info->row_size, 1)) : 0;
    if (!count)
        return;
    size_t size = (size_t)(count * info->row_size);
    uint8_t *rows = malloc(size);
    npk_region *region = NULL;
    if (!rows)
        return;
    if (npk_array_read(array, 0, count, rows, &err) == NPK_OK)
        fuzz_touch(rows, size);
    if (npk_array_read_checked(array, info->row_count - count, count, rows, &err) == NPK_OK)
        fuzz_touch(rows, size);
    int64_t which[3] = {(int64_t)info->row_count - 1, 0, (int64_t)info->row_count / 2};
    if (info->row_size <= READ_MAX / 3) {
        uint8_t *three = malloc((size_t)(3 * info->row_size));
        if (three && npk_array_gather(array, 3, which, three, &err) == NPK_OK)
            fuzz_touch(three, (size_t)(3 * info->row_size));
        free(three);
    }
    if (npk_array_map(array, 0, count, NPK_MAP_READ, &region, &err) == NPK_OK)
        fuzz_touch(npk_region_address(region), npk_region_size(region));
    npk_region_release(region);
    free(rows);
}

static void read_all(npk_kv *kv, const npk_array_sources *sources)
{
    static struct names names;
    npk_error err = {0};
    names.count = 0;
    FUZZ_CHECK(npk_kv_scan(kv, NPK_TABLE_NAMES, NULL, 0, NULL, 0, note_name, &names, &err) == NPK_OK);
    for (size_t i = 0; i < names.count; i++) {
        npk_array *array = NULL;
        bool missing = false;
        if (npk_array_build(kv, names.items[i], sources, &array, &missing, &err) == NPK_OK)
            read_array(array);
        npk_array_release(array);
    }
}

static void note_finding(void *context, const npk_finding *finding)
{
    (void)context;
    FUZZ_CHECK(memchr(finding->reason, 0, sizeof finding->reason) && memchr(finding->file, 0, sizeof finding->file));
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static flat_io flat;
    flat_io_init(&flat, input, size);
    const npk_io *io = &flat.table;
    npk_file *root = flat_io_directory(&flat, FLAT_FORMAT);
    uint8_t uuid[16];
    uint64_t created_us;
    npk_error err = {0};
    npk_status status = npk_format_read(io, root, uuid, &created_us, &err);
    io->close(io, root);
    if (status != NPK_OK) {
        flat_io_check(&flat);
        return 0;
    }
    npk_wal_options options = {.io = io, .segment_size = 65536};
    memcpy(options.uuid, uuid, 16);
    npk_wal *wal = NULL;
    npk_columns *columns = NULL;
    npk_kv *kv = NULL;
    npk_replay replay;
    npk_file *columns_directory = flat_io_directory(&flat, FLAT_COLUMN), *checkpoints = flat_io_directory(&flat, FLAT_CHECKPOINT);
    FUZZ_CHECK(npk_wal_open(flat_io_directory(&flat, FLAT_SEGMENT), &options, &wal, &err) == NPK_OK);
    FUZZ_CHECK(npk_columns_open(io, columns_directory, uuid, &columns, &err) == NPK_OK);
    FUZZ_CHECK(npk_kv_open(NULL, &kv, &err) == NPK_OK);
    status = npk_recover_replay(io, checkpoints, wal, uuid, kv, 0, &replay, &err);
    FUZZ_CHECK(status == NPK_OK || status == NPK_CORRUPT || status == NPK_FORMAT || status == NPK_NOT_FOUND);
    npk_verify verify = {.kv = kv, .sources = {.io = io, .wal = wal, .columns = columns}, .until_lsn = replay.scan.end.lsn,
                         .report = note_finding};
    status = npk_verify_run(&verify, true, &err);
    FUZZ_CHECK(status == NPK_OK || status == NPK_CORRUPT || status == NPK_NOT_FOUND);
    read_all(kv, &verify.sources);
    npk_kv_close(kv);
    npk_columns_close(columns);
    npk_wal_close(wal);
    io->close(io, columns_directory);
    io->close(io, checkpoints);
    flat_io_check(&flat);
    return 0;
}
