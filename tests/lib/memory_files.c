/* memory_files.c - the crashable disk from outside: damage to its files, copies from and to real directories. */
#include "memory_io.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "memory_disk.h"

#define PATH_SIZE 4096u

/* Walk root and then path ("wal/1.wal"); gives the inode, its directory and its name in last (the rest of path). */
static memory_inode *find_path(const memory_io *memory, const char *root, const char *path, memory_inode **parent,
                               const char **last)
{
    memory_inode *inode = memory_inode_find(memory, TOP_INODE);
    char name[PATH_SIZE];
    (void)snprintf(name, sizeof name, "%s", root);
    const char *rest = path ? path : "";
    const char *at = root;
    while (inode) {
        *parent = inode;
        *last = at;
        inode = memory_inode_find(memory, memory_names_find(inode->live.names, name));
        if (*rest == '\0')
            return inode;
        size_t size = strcspn(rest, "/");
        (void)snprintf(name, sizeof name, "%.*s", (int)size, rest);
        at = rest;
        rest += size + (rest[size] == '/' ? 1 : 0);
    }
    return NULL;
}

int memory_io_damage(memory_io *memory, const char *root, const char *path, uint64_t offset, const void *bytes, size_t size)
{
    (void)pthread_mutex_lock(&memory->mutex);
    memory_inode *parent;
    const char *last;
    memory_inode *inode = find_path(memory, root, path, &parent, &last);
    int rc = !inode ? ENOENT : 0;
    if (!rc && (inode->is_directory || offset > inode->live.size || size > inode->live.size - offset))
        rc = EINVAL;
    if (!rc) {
        memory_content_write(&inode->live.content, offset, bytes, size);
        memory_content_write(&inode->durable.content, offset, bytes, size);
        if (inode->mapped_fd >= 0 && pwrite(inode->mapped_fd, bytes, size, (off_t)offset) != (ssize_t)size)
            rc = EIO;
    }
    (void)pthread_mutex_unlock(&memory->mutex);
    return rc;
}

int memory_io_set_size(memory_io *memory, const char *root, const char *path, uint64_t size)
{
    (void)pthread_mutex_lock(&memory->mutex);
    memory_inode *parent;
    const char *last;
    memory_inode *inode = find_path(memory, root, path, &parent, &last);
    int rc = !inode ? ENOENT : inode->is_directory ? EINVAL : 0;
    if (!rc) {
        inode->live.size = inode->durable.size = size;
        memory_content_trim(&inode->live.content, size);
        memory_content_trim(&inode->durable.content, size);
        if (inode->mapped_fd >= 0 && ftruncate(inode->mapped_fd, (off_t)size) != 0)
            rc = errno;
    }
    (void)pthread_mutex_unlock(&memory->mutex);
    return rc;
}

int memory_io_remove(memory_io *memory, const char *root, const char *path)
{
    (void)pthread_mutex_lock(&memory->mutex);
    memory_inode *parent;
    const char *last;
    memory_inode *inode = find_path(memory, root, path, &parent, &last);
    int rc = !inode ? ENOENT : inode->is_directory ? EISDIR : 0;
    if (!rc) {
        memory_names_remove(&parent->live.names, last);
        memory_names_remove(&parent->durable.names, last);
        memory_inode_collect(memory);
    }
    (void)pthread_mutex_unlock(&memory->mutex);
    return rc;
}

static int export_inode(const memory_io *memory, memory_inode *inode, const char *path)
{
    if (inode->is_real)
        return 0;
    if (!inode->is_directory) {
        FILE *out = fopen(path, "wbx");
        if (!out)
            return errno;
        memory_inode_read_back(inode);
        uint8_t block[BLOCK_SIZE];
        int rc = 0;
        for (uint64_t at = 0; at < inode->live.size && !rc; at += BLOCK_SIZE) {
            size_t part = (size_t)npk_min_u64(BLOCK_SIZE, inode->live.size - at);
            memory_content_read(inode->live.content, at, block, part);
            if (fwrite(block, 1, part, out) != part)
                rc = EIO;
        }
        return fclose(out) == 0 ? rc : EIO;
    }
    if (mkdir(path, 0777) != 0)
        return errno;
    const memory_names *names = inode->live.names;
    int rc = 0;
    for (size_t i = 0; names && i < names->count && !rc; i++) {
        char below[PATH_SIZE];
        int n = snprintf(below, sizeof below, "%s/%s", path, names->entries[i].name->text);
        memory_inode *child = memory_inode_find(memory, names->entries[i].inode);
        if (n < 0 || (size_t)n >= sizeof below)
            rc = ENAMETOOLONG;
        else if (child)
            rc = export_inode(memory, child, below);
    }
    return rc;
}

int memory_io_export(memory_io *memory, const char *root, const char *path)
{
    (void)pthread_mutex_lock(&memory->mutex);
    memory_inode *parent;
    const char *last;
    memory_inode *inode = find_path(memory, root, NULL, &parent, &last);
    int rc = inode ? export_inode(memory, inode, path) : ENOENT;
    (void)pthread_mutex_unlock(&memory->mutex);
    return rc;
}

static int import_file(memory_inode *inode, const char *path)
{
    FILE *in = fopen(path, "rb");
    if (!in)
        return errno;
    uint8_t block[BLOCK_SIZE];
    size_t part;
    while ((part = fread(block, 1, sizeof block, in)) > 0) {
        memory_content_write(&inode->durable.content, inode->durable.size, block, part);
        inode->durable.size += part;
    }
    int rc = ferror(in) ? EIO : 0;
    (void)fclose(in);
    return rc;
}

static int import_entry(memory_io *memory, memory_inode *parent, const char *name, const char *path, bool is_top);

static int import_directory(memory_io *memory, memory_inode *inode, const char *path, bool is_root)
{
    DIR *stream = opendir(path);
    if (!stream)
        return errno;
    int rc = 0;
    const struct dirent *entry;
    while (!rc && (entry = readdir(stream))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            (is_root && strcmp(entry->d_name, INDEX_NAME) == 0))
            continue;
        char below[PATH_SIZE];
        int n = snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        rc = n < 0 || (size_t)n >= sizeof below ? ENAMETOOLONG : import_entry(memory, inode, entry->d_name, below, false);
    }
    (void)closedir(stream);
    return rc;
}

static int import_entry(memory_io *memory, memory_inode *parent, const char *name, const char *path, bool is_top)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        return errno;
    if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
        return 0; /* nothing else is in a store */
    memory_inode *inode = memory_inode_add(memory, memory->next_inode++, S_ISDIR(st.st_mode));
    memory_name *text = memory_name_create(name);
    memory_names_set(&parent->durable.names, text, inode->id);
    memory_names_set(&parent->live.names, text, inode->id);
    memory_name_release(text);
    int rc = inode->is_directory ? import_directory(memory, inode, path, is_top) : import_file(inode, path);
    if (!inode->is_directory) {
        inode->live.content = memory_content_retain(inode->durable.content);
        inode->live.size = inode->durable.size;
    }
    return rc;
}

int memory_io_import(memory_io *memory, const char *root, const char *path)
{
    (void)pthread_mutex_lock(&memory->mutex);
    memory_inode *top = memory_inode_find(memory, TOP_INODE);
    int rc = memory_names_find(top->live.names, root) ? EEXIST : import_entry(memory, top, root, path, true);
    (void)pthread_mutex_unlock(&memory->mutex);
    return rc;
}
