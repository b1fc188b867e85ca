/* checkpoint.c - writing, loading, listing and trimming checkpoint files. */
#include "checkpoint.h"

#include <errno.h>
#include <stdlib.h>

#include "alloc.h"
#include "bytes.h"
#include "checksum.h"
#include "error.h"
#include "store_files.h"

#define MAGIC "NPKCKPT\n"
#define FORMAT_VERSION 1u
#define CHUNK_SIZE (256u * 1024u)
#define CHUNK_SIZE_MAX (64u * 1024u * 1024u) /* a chunk ends behind the entry that fills it */

enum { AT_MAGIC = 0, AT_VERSION = 8, AT_UUID = 16, AT_LSN = 32, AT_EPOCH = 40, AT_CHUNKS = 44, AT_ENTRIES = 48,
       AT_SIZE = 56, AT_CHECKSUM = 64, HEADER_SIZE = 72 };
enum { CHUNK_PAYLOAD = 0, CHUNK_ENTRIES = 4, CHUNK_CHECKSUM = 8, CHUNK_HEADER_SIZE = 16 };

/* ---- writing ------------------------------------------------------------------------------------------------------- */

struct dump {
    const npk_io *io;
    npk_file *file;
    const char *name;
    npk_buffer chunk;
    uint32_t chunk_entries, chunk_count;
    uint64_t entry_count, offset;
    npk_table table;
};

static npk_status write_chunk(struct dump *dump, npk_error *err)
{
    if (dump->chunk_entries == 0)
        return NPK_OK;
    uint8_t header[CHUNK_HEADER_SIZE];
    npk_put_u32(header + CHUNK_PAYLOAD, (uint32_t)dump->chunk.size);
    npk_put_u32(header + CHUNK_ENTRIES, dump->chunk_entries);
    npk_put_u64(header + CHUNK_CHECKSUM, npk_checksum(dump->chunk.data, dump->chunk.size));
    npk_status status =
        npk_io_write_full(dump->io, dump->file, dump->offset, header, sizeof header, dump->name, err);
    if (status == NPK_OK)
        status = npk_io_write_full(dump->io, dump->file, dump->offset + sizeof header, dump->chunk.data,
                                   dump->chunk.size, dump->name, err);
    dump->offset += sizeof header + dump->chunk.size;
    dump->chunk_count++;
    dump->chunk_entries = 0;
    npk_buffer_clear(&dump->chunk);
    return status;
}

static npk_status dump_entry(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size,
                             bool *stop, npk_error *err)
{
    (void)stop;
    struct dump *dump = context;
    npk_buffer_put_u8(&dump->chunk, (uint8_t)dump->table);
    npk_buffer_put_u16(&dump->chunk, (uint16_t)key_size);
    npk_buffer_put_u32(&dump->chunk, (uint32_t)value_size);
    npk_buffer_put(&dump->chunk, key, key_size);
    npk_buffer_put(&dump->chunk, value, value_size);
    if (dump->chunk.failed)
        return npk_fail(err, NPK_NO_MEMORY, "could not allocate a chunk of a checkpoint");
    dump->chunk_entries++;
    dump->entry_count++;
    return dump->chunk.size >= CHUNK_SIZE ? write_chunk(dump, err) : NPK_OK;
}

static npk_status write_body(struct dump *dump, npk_kv *kv, const uint8_t uuid[16], uint64_t lsn, uint32_t epoch,
                             npk_error *err)
{
    npk_status status = NPK_OK;
    dump->offset = HEADER_SIZE;
    for (int table = 0; table < NPK_TABLE_COUNT && status == NPK_OK; table++) {
        dump->table = (npk_table)table;
        status = npk_kv_scan(kv, dump->table, NULL, 0, NULL, 0, dump_entry, dump, err);
    }
    if (status == NPK_OK)
        status = write_chunk(dump, err);
    if (status != NPK_OK)
        return status;
    uint8_t header[HEADER_SIZE] = {0};
    memcpy(header + AT_MAGIC, MAGIC, 8);
    npk_put_u32(header + AT_VERSION, FORMAT_VERSION);
    memcpy(header + AT_UUID, uuid, 16);
    npk_put_u64(header + AT_LSN, lsn);
    npk_put_u32(header + AT_EPOCH, epoch);
    npk_put_u32(header + AT_CHUNKS, dump->chunk_count);
    npk_put_u64(header + AT_ENTRIES, dump->entry_count);
    npk_put_u64(header + AT_SIZE, dump->offset);
    npk_put_u64(header + AT_CHECKSUM, npk_checksum(header, AT_CHECKSUM));
    return npk_io_write_full(dump->io, dump->file, 0, header, sizeof header, dump->name, err);
}

npk_status npk_checkpoint_write(const npk_io *io, npk_file *directory, const uint8_t uuid[16], npk_kv *kv, uint64_t lsn,
                                uint32_t epoch, npk_error *err)
{
    char name[NPK_FILE_NAME_SIZE], temp[NPK_FILE_NAME_SIZE];
    npk_store_files_encode_checkpoint(lsn, name);
    npk_store_files_encode_checkpoint_temp(lsn, temp);
    struct dump dump = {.io = io, .name = temp};
    npk_buffer_init(&dump.chunk);
    (void)io->unlink(io, directory, temp); /* a leftover of a process that died here */
    int rc = io->open(io, directory, temp, NPK_OPEN_WRITE | NPK_OPEN_CREATE | NPK_OPEN_EXCLUSIVE, &dump.file);
    if (rc)
        return npk_fail_errno(err, rc, "could not create checkpoint \"%s\"", temp);
    npk_status status = write_body(&dump, kv, uuid, lsn, epoch, err);
    if (status == NPK_OK) {
        rc = io->sync(io, dump.file);
        if (rc)
            status = npk_fail_errno(err, rc, "could not sync checkpoint \"%s\"", temp);
    }
    io->close(io, dump.file);
    npk_buffer_release(&dump.chunk);
    if (status == NPK_OK) {
        rc = io->rename(io, directory, temp, name);
        if (rc)
            status = npk_fail_errno(err, rc, "could not rename checkpoint \"%s\"", temp);
    }
    if (status != NPK_OK) {
        (void)io->unlink(io, directory, temp);
        return status;
    }
    rc = io->sync(io, directory);
    if (rc)
        return npk_fail_errno(err, rc, "could not sync the checkpoint directory");
    return NPK_OK;
}

/* ---- loading ------------------------------------------------------------------------------------------------------- */

struct load {
    const npk_io *io;
    npk_file *file;
    const char *name;
    uint8_t *chunk;
    size_t capacity;
    uint64_t file_size, entry_count;
    uint32_t chunk_count;
};

static npk_status fail_damaged(const struct load *load, uint64_t offset, const char *why, npk_error *err)
{
    return npk_fail(err, NPK_CORRUPT, "checkpoint \"%s\": offset %llu: %s", load->name, (unsigned long long)offset, why);
}

static npk_status read_header(struct load *load, const uint8_t uuid[16], uint64_t lsn, npk_error *err)
{
    uint8_t header[HEADER_SIZE];
    npk_status status = npk_io_read_full(load->io, load->file, 0, header, sizeof header, NULL, load->name, err);
    if (status != NPK_OK)
        return status;
    if (memcmp(header + AT_MAGIC, MAGIC, 8) != 0 ||
        !npk_checksum_matches(header, AT_CHECKSUM, npk_get_u64(header + AT_CHECKSUM)))
        return fail_damaged(load, 0, "checksum mismatch", err);
    if (npk_get_u32(header + AT_VERSION) != FORMAT_VERSION)
        return npk_fail(err, NPK_FORMAT, "checkpoint \"%s\" has format version %u, this is version %u", load->name,
                        npk_get_u32(header + AT_VERSION), FORMAT_VERSION);
    if (memcmp(header + AT_UUID, uuid, 16) != 0)
        return fail_damaged(load, AT_UUID, "it belongs to another store", err);
    if (npk_get_u64(header + AT_LSN) != lsn)
        return fail_damaged(load, AT_LSN, "it is not the one its name says", err);
    load->chunk_count = npk_get_u32(header + AT_CHUNKS);
    load->entry_count = npk_get_u64(header + AT_ENTRIES);
    npk_file_info info;
    int rc = load->io->info(load->io, load->file, &info);
    if (rc)
        return npk_fail_errno(err, rc, "could not examine checkpoint \"%s\"", load->name);
    load->file_size = npk_get_u64(header + AT_SIZE);
    if (info.size != load->file_size)
        return fail_damaged(load, AT_SIZE, "the file is not as long as it says", err);
    return NPK_OK;
}

static npk_status put_entries(struct load *load, uint64_t offset, size_t size, uint32_t entries, npk_kv *kv,
                              npk_error *err)
{
    npk_cursor cursor = npk_cursor_over(load->chunk, size);
    for (uint32_t i = 0; i < entries; i++) {
        uint8_t table = npk_cursor_u8(&cursor);
        size_t key_size = npk_cursor_u16(&cursor), value_size = npk_cursor_u32(&cursor);
        const uint8_t *key = npk_cursor_take(&cursor, key_size), *value = npk_cursor_take(&cursor, value_size);
        if (!key || !value || table >= NPK_TABLE_COUNT || key_size > NPK_KEY_MAX || key_size == 0)
            return fail_damaged(load, offset, "an entry does not fit", err);
        npk_status status = npk_kv_put(kv, (npk_table)table, key, key_size, value, value_size, err);
        if (status != NPK_OK)
            return status;
    }
    return npk_cursor_is_done(&cursor) ? NPK_OK : fail_damaged(load, offset, "entries do not fill their chunk", err);
}

/* One walk over the chunks; kv NULL: only check. */
static npk_status walk_chunks(struct load *load, npk_kv *kv, npk_status (*flush)(void *context, npk_error *err),
                              void *context, npk_error *err)
{
    uint64_t offset = HEADER_SIZE, entries_seen = 0;
    for (uint32_t i = 0; i < load->chunk_count; i++) {
        uint8_t header[CHUNK_HEADER_SIZE];
        if (load->file_size - offset < sizeof header)
            return fail_damaged(load, offset, "a chunk is missing", err);
        npk_status status =
            npk_io_read_full(load->io, load->file, offset, header, sizeof header, NULL, load->name, err);
        if (status != NPK_OK)
            return status;
        size_t size = npk_get_u32(header + CHUNK_PAYLOAD);
        uint32_t entries = npk_get_u32(header + CHUNK_ENTRIES);
        if (size > load->file_size - offset - sizeof header || size > CHUNK_SIZE_MAX)
            return fail_damaged(load, offset, "a chunk is longer than the file", err);
        if (size > load->capacity) {
            uint8_t *chunk = npk_realloc(load->chunk, size);
            if (!chunk)
                return npk_fail(err, NPK_NO_MEMORY, "could not allocate %zu bytes for a checkpoint", size);
            load->chunk = chunk;
            load->capacity = size;
        }
        status = npk_io_read_full(load->io, load->file, offset + sizeof header, load->chunk, size, NULL, load->name, err);
        if (status != NPK_OK)
            return status;
        if (!npk_checksum_matches(load->chunk, size, npk_get_u64(header + CHUNK_CHECKSUM)))
            return fail_damaged(load, offset, "checksum mismatch", err);
        if (kv) {
            status = put_entries(load, offset, size, entries, kv, err);
            if (status == NPK_OK && flush)
                status = flush(context, err);
            if (status != NPK_OK)
                return status;
        }
        offset += sizeof header + size;
        entries_seen += entries;
    }
    if (offset != load->file_size || entries_seen != load->entry_count)
        return fail_damaged(load, offset, "chunks do not fill the file", err);
    return NPK_OK;
}

npk_status npk_checkpoint_load(const npk_io *io, npk_file *directory, const uint8_t uuid[16], uint64_t lsn, npk_kv *kv,
                               npk_status (*flush)(void *context, npk_error *err), void *context, npk_error *err)
{
    char name[NPK_FILE_NAME_SIZE];
    npk_store_files_encode_checkpoint(lsn, name);
    struct load load = {.io = io, .name = name};
    int rc = io->open(io, directory, name, NPK_OPEN_READ, &load.file);
    if (rc)
        return npk_fail_errno(err, rc, "could not open checkpoint \"%s\"", name);
    npk_status status = read_header(&load, uuid, lsn, err);
    if (status == NPK_OK)
        status = walk_chunks(&load, NULL, NULL, NULL, err);
    if (status == NPK_OK)
        status = walk_chunks(&load, kv, flush, context, err);
    npk_free(load.chunk);
    io->close(io, load.file);
    return status;
}

/* ---- the directory -------------------------------------------------------------------------------------------------- */

struct name_list {
    uint64_t *lsns;
    size_t count, capacity;
    char temps[8][NPK_FILE_NAME_SIZE];
    size_t temp_count;
};

static int note_name(void *context, const char *name)
{
    struct name_list *list = context;
    uint64_t lsn;
    if (npk_store_files_decode_checkpoint(name, &lsn)) {
        if (list->count == list->capacity) {
            size_t capacity = list->capacity ? list->capacity * 2 : 8;
            uint64_t *lsns = npk_realloc(list->lsns, capacity * sizeof *lsns);
            if (!lsns)
                return ENOMEM;
            list->lsns = lsns;
            list->capacity = capacity;
        }
        list->lsns[list->count++] = lsn;
    } else if (npk_store_files_decode_checkpoint_temp(name, &lsn) && list->temp_count < 8) {
        size_t size = strlen(name) + 1;
        memcpy(list->temps[list->temp_count++], name, size < NPK_FILE_NAME_SIZE ? size : NPK_FILE_NAME_SIZE);
    }
    return 0;
}

static int newest_first(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static npk_status list_names(const npk_io *io, npk_file *directory, struct name_list *list, npk_error *err)
{
    int rc = io->list(io, directory, note_name, list);
    if (rc) {
        npk_free(list->lsns);
        return npk_fail_errno(err, rc, "could not list the checkpoint directory");
    }
    if (list->count)
        qsort(list->lsns, list->count, sizeof *list->lsns, newest_first);
    return NPK_OK;
}

npk_status npk_checkpoint_list(const npk_io *io, npk_file *directory, uint64_t *lsns, size_t max, size_t *count,
                               npk_error *err)
{
    struct name_list list = {0};
    npk_status status = list_names(io, directory, &list, err);
    if (status != NPK_OK)
        return status;
    for (size_t i = 0; i < list.count && i < max; i++)
        lsns[i] = list.lsns[i];
    *count = list.count;
    npk_free(list.lsns);
    return NPK_OK;
}

npk_status npk_checkpoint_trim(const npk_io *io, npk_file *directory, size_t keep, npk_error *err)
{
    struct name_list list = {0};
    npk_status status = list_names(io, directory, &list, err);
    if (status != NPK_OK)
        return status;
    size_t removed = 0;
    int rc = 0;
    for (size_t i = 0; i < list.temp_count && !rc; i++, removed++)
        rc = io->unlink(io, directory, list.temps[i]);
    for (size_t i = keep; i < list.count && !rc; i++, removed++) {
        char name[NPK_FILE_NAME_SIZE];
        npk_store_files_encode_checkpoint(list.lsns[i], name);
        rc = io->unlink(io, directory, name);
    }
    npk_free(list.lsns);
    if (!rc && removed)
        rc = io->sync(io, directory);
    if (rc)
        return npk_fail_errno(err, rc, "could not remove old checkpoints");
    return NPK_OK;
}
