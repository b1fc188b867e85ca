/* flat_io.c - a read-only directory tree made of a fuzzer's input. */
#include "flat_io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"

struct npk_file {
    int kind;              /* directory of */
    const flat_file *file; /* NULL: a directory */
};

static flat_io *flat_of(const npk_io *io)
{
    return (flat_io *)(uintptr_t)io;
}

static npk_file *make(flat_io *flat, int kind, const flat_file *file)
{
    npk_file *made = malloc(sizeof *made);
    if (!made)
        abort();
    *made = (npk_file){kind, file};
    flat->open_count++;
    return made;
}

npk_file *flat_io_directory(flat_io *flat, int kind)
{
    return make(flat, kind, NULL);
}

static const flat_file *find(const flat_io *flat, int kind, const char *name)
{
    for (size_t i = 0; i < flat->file_count; i++)
        if (flat->files[i].kind == kind && strcmp(flat->files[i].name, name) == 0)
            return &flat->files[i];
    return NULL;
}

static int flat_open(const npk_io *io, npk_file *directory, const char *name, unsigned flags, npk_file **file)
{
    if (flags & (NPK_OPEN_WRITE | NPK_OPEN_CREATE | NPK_OPEN_DIRECTORY))
        return EROFS;
    const flat_file *found = find(flat_of(io), directory->kind, name);
    if (!found)
        return ENOENT;
    *file = make(flat_of(io), directory->kind, found);
    return 0;
}

static void flat_close(const npk_io *io, npk_file *file)
{
    if (!file)
        return;
    flat_of(io)->open_count--;
    free(file);
}

static int flat_read(const npk_io *io, npk_file *file, uint64_t offset, void *bytes, size_t size, size_t *done)
{
    (void)io;
    const flat_file *f = file->file;
    if (!f)
        return EISDIR;
    size_t part = offset < f->padded_size ? (size_t)npk_min_u64(size, f->padded_size - offset) : 0;
    size_t real = offset < f->size ? (size_t)npk_min_u64(part, f->size - offset) : 0;
    if (real)
        memcpy(bytes, f->bytes + offset, real);
    if (part > real)
        memset((uint8_t *)bytes + real, 0, part - real);
    *done = part;
    return 0;
}

static int flat_info(const npk_io *io, npk_file *file, npk_file_info *info)
{
    (void)io;
    *info = (npk_file_info){.device = 1, .inode = 1, .size = file->file ? file->file->padded_size : 0,
                            .is_directory = !file->file, .is_regular = file->file != NULL};
    return 0;
}

static int flat_info_at(const npk_io *io, npk_file *directory, const char *name, npk_file_info *info)
{
    const flat_file *found = find(flat_of(io), directory->kind, name);
    if (!found)
        return ENOENT;
    *info = (npk_file_info){.device = 1, .inode = 2, .size = found->padded_size, .is_regular = true};
    return 0;
}

static int flat_list(const npk_io *io, npk_file *directory, int (*visit)(void *context, const char *name), void *context)
{
    const flat_io *flat = flat_of(io);
    int rc = 0;
    for (size_t i = 0; i < flat->file_count && !rc; i++)
        if (flat->files[i].kind == directory->kind)
            rc = visit(context, flat->files[i].name);
    return rc;
}

static int flat_map(const npk_io *io, npk_file *file, uint64_t offset, size_t size, npk_map_kind kind, void **address)
{
    if (kind == NPK_MAPPING_SHARED || !file->file || offset > file->file->padded_size || size > file->file->padded_size - offset)
        return EINVAL;
    size_t done;
    void *copy = malloc(size ? size : 1); /* of its size exactly: what reads behind it is seen */
    if (!copy)
        return ENOMEM;
    (void)flat_read(io, file, offset, copy, size, &done);
    flat_of(io)->map_count++;
    *address = copy;
    return 0;
}

static void flat_unmap(const npk_io *io, void *address, size_t size)
{
    (void)size;
    flat_of(io)->map_count--;
    free(address);
}

static int flat_map_memory(const npk_io *io, size_t size, void **address)
{
    *address = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    if (!*address)
        return ENOMEM;
    flat_of(io)->map_count++;
    return 0;
}

static int flat_protect_read(const npk_io *io, void *address, size_t size)
{
    (void)io;
    (void)address;
    (void)size;
    return 0;
}

static uint64_t flat_clock(const npk_io *io)
{
    (void)io;
    return 1700000000000000u;
}

static void flat_name(flat_file *file, uint64_t number)
{
    static const char *const suffixes[FLAT_KIND_COUNT] = {"", ".wal", ".npy", ".ckpt"};
    if (file->kind == FLAT_FORMAT)
        (void)snprintf(file->name, sizeof file->name, "FORMAT");
    else
        (void)snprintf(file->name, sizeof file->name, "%016llx%s", (unsigned long long)number, suffixes[file->kind]);
}

void flat_io_init(flat_io *flat, const uint8_t *input, size_t size)
{
    memset(flat, 0, sizeof *flat);
    flat->table = (npk_io){.name = "flat", .open = flat_open, .close = flat_close, .read = flat_read, .info = flat_info,
                           .info_at = flat_info_at, .list = flat_list, .map = flat_map, .unmap = flat_unmap,
                           .map_memory = flat_map_memory, .protect_read = flat_protect_read, .now_us = flat_clock,
                           .monotonic_us = flat_clock};
    while (size >= FLAT_ENTRY_SIZE && flat->file_count < FLAT_FILE_MAX) {
        flat_file *file = &flat->files[flat->file_count];
        file->kind = input[0] % FLAT_KIND_COUNT;
        flat_name(file, npk_get_u64(input + 2));
        file->bytes = input + FLAT_ENTRY_SIZE;
        file->size = npk_min_u64(npk_get_u32(input + 10), size - FLAT_ENTRY_SIZE);
        file->padded_size = file->size;
        if (input[1] & FLAT_PADDED && file->size >= 48)
            file->padded_size = npk_max_u64(file->size, npk_min_u64(npk_get_u64(file->bytes + 40), FLAT_SIZE_MAX));
        if (!find(flat, file->kind, file->name))
            flat->file_count++;
        input = file->bytes + file->size;
        size -= FLAT_ENTRY_SIZE + (size_t)file->size;
    }
}

void flat_io_check(const flat_io *flat)
{
    if (flat->open_count || flat->map_count) {
        (void)fprintf(stderr, "%lld files and %lld maps are left\n", (long long)flat->open_count, (long long)flat->map_count);
        abort();
    }
}
