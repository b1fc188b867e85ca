/* make_corpus.c - the seeds of the fuzzers, cut out of real stores: fuzz_make_corpus DIRECTORY writes DIRECTORY/<target>/<store>-<what>.
 *
 * Two small stores that use every operation: one as a process that has it open would leave it, one closed. Files are cut behind their last byte that
 * is not zero; flat_io.h says how a directory becomes one input. */
#define _DEFAULT_SOURCE
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "buffer.h"
#include "bytes.h"
#include "flat_io.h"
#include "npk.h"
#include "wal_format.h"

static npk_error err;
static char out[512];

#define OK(call)                                                   \
    do {                                                           \
        if ((call) != NPK_OK) {                                    \
            (void)fprintf(stderr, "%s: %s\n", #call, err.message); \
            exit(1);                                               \
        }                                                          \
    } while (0)

/* ---- stores ------------------------------------------------------------------------------------------------------------------ */

static npk_store *open_store(const char *path)
{
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE, .no_background = 1, .segment_size = 64 << 10,
                           .bulk_size = 6000};
    npk_store *store = NULL;
    OK(npk_store_open(path, &options, &store, &err));
    return store;
}

static npk_txn *begin(npk_store *store)
{
    npk_txn *txn = NULL;
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    return txn;
}

static void commit(npk_txn *txn)
{
    OK(npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err));
}

static void use(npk_store *store)
{
    static const uint64_t shape[2] = {2, 3};
    static const npk_array_spec small = {"<i2", 12, 2, shape, 0}, value = {"<f8", 8, 0, NULL, 1}, letters = {"|S16", 16, 0, NULL, 0};
    uint8_t rows[8192];
    for (size_t i = 0; i < sizeof rows; i++)
        rows[i] = (uint8_t)(i * i >> 3);
    npk_txn *txn = begin(store);
    OK(npk_txn_save(txn, "small", &small, 10, rows, &err));
    OK(npk_txn_save(txn, "value", &value, 1, rows, &err));
    OK(npk_txn_save(txn, "empty", &letters, 0, NULL, &err));
    OK(npk_txn_set_attr(txn, NULL, "offset", "41", 2, &err));
    OK(npk_txn_set_attr(txn, "small", "unit", "\"mm\"", 4, &err));
    commit(txn);
    txn = begin(store);
    OK(npk_txn_append(txn, "small", 600, rows, &err)); /* a column file */
    memset(rows, 7, sizeof rows);
    OK(npk_txn_append(txn, "empty", 320, rows, &err)); /* packs */
    OK(npk_txn_clone(txn, "small", "clone", &err));
    commit(txn);
    const int64_t which[4] = {3, 1, 120, 9};
    txn = begin(store);
    OK(npk_txn_replace(txn, "small", 4, which, rows, &err));
    OK(npk_txn_replace_run(txn, "clone", 5, 7, rows, &err));
    OK(npk_txn_drop_rows(txn, "clone", 4, which, &err));
    OK(npk_txn_rename(txn, "empty", "letters", &err));
    OK(npk_txn_delete_attr(txn, "small", "unit", &err));
    commit(txn);
    uint64_t point;
    txn = begin(store);
    OK(npk_txn_append(txn, "letters", 3, rows, &err));
    OK(npk_txn_savepoint(txn, &point, &err));
    OK(npk_txn_append(txn, "letters", 4, rows, &err));
    OK(npk_txn_rollback_to(txn, point, &err));
    OK(npk_txn_save(txn, "value", &value, 1, rows, &err));
    commit(txn);
}

static void use_more(npk_store *store)
{
    uint8_t rows[256] = {1, 2, 3};
    const int64_t which[2] = {0, 2};
    OK(npk_store_checkpoint(store, &err));
    OK(npk_store_compact(store, "clone", &err)); /* renumbers */
    OK(npk_store_compact(store, "letters", &err));
    npk_txn *txn = begin(store);
    OK(npk_txn_append(txn, "clone", 5, rows, &err));
    OK(npk_txn_replace(txn, "letters", 2, which, rows, &err));
    OK(npk_txn_drop_array(txn, "value", &err));
    commit(txn);
}

/* ---- inputs -------------------------------------------------------------------------------------------------------------------- */

static void write_input(const char *target, const char *store, const char *what, const void *bytes, size_t size)
{
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/%s", out, target);
    (void)mkdir(path, 0777);
    (void)snprintf(path, sizeof path, "%s/%s/%s-%s", out, target, store, what);
    FILE *to = fopen(path, "wb");
    if (!to || fwrite(bytes, 1, size, to) != size || fclose(to) != 0) {
        perror(path);
        exit(1);
    }
}

static void read_file(const char *path, npk_buffer *bytes)
{
    struct stat info;
    FILE *in = fopen(path, "rb");
    npk_buffer_clear(bytes);
    if (!in || fstat(fileno(in), &info) != 0 || !npk_buffer_grow(bytes, (size_t)info.st_size) ||
        fread(bytes->data, 1, bytes->size, in) != bytes->size) {
        perror(path);
        exit(1);
    }
    (void)fclose(in);
    while (bytes->size && !bytes->data[bytes->size - 1])
        bytes->size--;
}

static void add_entry(npk_buffer *input, int kind, const char *name, const npk_buffer *file)
{
    npk_buffer_put_u8(input, (uint8_t)kind);
    npk_buffer_put_u8(input, kind == FLAT_SEGMENT ? FLAT_PADDED : 0);
    npk_buffer_put_u64(input, strtoull(name, NULL, 16));
    npk_buffer_put_u32(input, (uint32_t)file->size);
    npk_buffer_put(input, file->data, file->size);
}

/* The records of a segment: payloads and operations. */
static void cut_records(const char *store, const npk_buffer *segment, npk_buffer *ops)
{
    npk_segment_header header;
    if (npk_segment_header_decode(segment->data, segment->size, &header, NULL) != NPK_OK)
        return;
    npk_record_header record;
    for (uint64_t offset = 4096; offset < segment->size;) {
        npk_record_bounds bounds = {header.first_lsn + offset - 4096, header.epoch, header.cut_epoch};
        /* Cut behind the last byte that is not zero: padding may be missing, so the checksum is not asked. */
        if (npk_record_header_decode(segment->data + offset, header.segment_size - 4096 - offset, &bounds, &record) || offset + 64 > segment->size)
            return;
        const uint8_t *meta = segment->data + offset + 64;
        const uint8_t *data = segment->data + offset + npk_record_data_offset(record.meta_size);
        if (record.type >= NPK_RECORD_FIRST_OP) {
            npk_buffer_put_u8(ops, record.type);
            npk_buffer_put_u16(ops, (uint16_t)record.meta_size);
            npk_buffer_put_u16(ops, (uint16_t)record.raw_data_size);
            npk_buffer_put(ops, meta, record.meta_size);
        }
        if (record.flags & NPK_RECORD_FLAG_PACKED) {
            npk_buffer payload;
            char what[64];
            npk_buffer_init(&payload);
            npk_buffer_put_u32(&payload, record.raw_data_size);
            npk_buffer_put(&payload, data, record.data_size);
            (void)snprintf(what, sizeof what, "%llu", (unsigned long long)record.lsn);
            write_input("pack", store, what, payload.data, payload.size);
            npk_buffer_release(&payload);
        }
        offset += npk_record_size(record.meta_size, record.data_size);
    }
}

static void cut_store(const char *path, const char *store)
{
    static const struct {
        int kind;
        const char *directory, *target;
    } rooms[] = {{FLAT_SEGMENT, "wal", "segment"}, {FLAT_COLUMN, "columns", "column"}, {FLAT_CHECKPOINT, "checkpoint", "checkpoint"}};
    npk_buffer whole, log, ops, file;
    npk_buffer_init(&whole);
    npk_buffer_init(&log);
    npk_buffer_init(&ops);
    npk_buffer_init(&file);
    char name[1024];
    (void)snprintf(name, sizeof name, "%s/FORMAT", path);
    read_file(name, &file);
    add_entry(&whole, FLAT_FORMAT, "0", &file);
    npk_buffer_put_zeros(&log, 16);
    for (size_t i = 0; i < sizeof rooms / sizeof rooms[0]; i++) {
        (void)snprintf(name, sizeof name, "%s/%s", path, rooms[i].directory);
        struct dirent **entries;
        int count = scandir(name, &entries, NULL, alphasort);
        for (int k = 0; k < count; k++) {
            const char *dot = strchr(entries[k]->d_name, '.');
            if (dot == entries[k]->d_name || !dot || strchr(entries[k]->d_name, '-')) {
                free(entries[k]);
                continue;
            }
            (void)snprintf(name, sizeof name, "%s/%s/%s", path, rooms[i].directory, entries[k]->d_name);
            read_file(name, &file);
            add_entry(&whole, rooms[i].kind, entries[k]->d_name, &file);
            if (rooms[i].kind == FLAT_SEGMENT) {
                add_entry(&log, rooms[i].kind, entries[k]->d_name, &file);
                cut_records(store, &file, &ops);
            } else {
                (void)snprintf(name, sizeof name, "%d", k);
                write_input(rooms[i].target, store, name, file.data, rooms[i].kind == FLAT_COLUMN && file.size > 4096 ? 4096 : file.size);
            }
            free(entries[k]);
        }
        free(entries);
    }
    write_input("recovery", store, "whole", whole.data, whole.size);
    write_input("segment", store, "log", log.data, log.size);
    write_input("op", store, "all", ops.data, ops.size);
    npk_buffer_release(&whole);
    npk_buffer_release(&log);
    npk_buffer_release(&ops);
    npk_buffer_release(&file);
}

/* More blocks than a small store's records have. */
static void cut_blocks(void)
{
    static uint8_t raw[150000], packed[sizeof raw];
    for (size_t i = 0; i < sizeof raw; i++)
        raw[i] = (uint8_t)(i / 1000);
    npk_buffer payload;
    npk_buffer_init(&payload);
    npk_buffer_put_u32(&payload, sizeof raw);
    npk_buffer_put(&payload, packed, npk_pack_encode(raw, sizeof raw, packed, sizeof packed));
    write_input("pack", "made", "blocks", payload.data, payload.size);
    npk_buffer_release(&payload);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        (void)fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        return 2;
    }
    (void)snprintf(out, sizeof out, "%.400s", argv[1]);
    (void)mkdir(out, 0777);
    char base[] = "/tmp/npk-corpus-XXXXXX", path[512], command[600];
    if (!mkdtemp(base))
        return 1;
    (void)snprintf(path, sizeof path, "%s/store", base);
    cut_blocks();
    npk_store *store = open_store(path);
    use(store);
    cut_store(path, "log");
    use_more(store);
    cut_store(path, "open");
    OK(npk_store_close(store, &err));
    cut_store(path, "closed");
    (void)snprintf(command, sizeof command, "rm -rf %s", base);
    return system(command) == 0 ? 0 : 1;
}
