/* memory_names.c - opening, and everything that changes or lists names. */
#include "memory_calls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- opening --------------------------------------------------------------------------------------------------------- */

/* The directory of a store is an entry of the top directory named by the path as spelled, without slashes at its end. */
static char *root_name(const char *path)
{
    size_t size = strlen(path);
    while (size > 1 && path[size - 1] == '/')
        size--;
    char *name = memory_alloc(size + 1);
    memcpy(name, path, size);
    return name;
}

static int open_root_inside(memory_io *memory, const char *name, bool create, npk_file **directory, bool *created)
{
    memory_enter(memory, IO_CALL_OPEN_ROOT);
    if (created)
        *created = false;
    memory_inode *top = memory_inode_find(memory, TOP_INODE);
    memory_inode *root = memory_look_up(memory, top, name);
    if (!root) {
        if (!create || name[0] == '\0')
            return memory_leave(memory, ENOENT);
        root = memory_make_inode(memory, top, name, true);
        if (created)
            *created = true;
    }
    if (!root->is_directory)
        return memory_leave(memory, ENOTDIR);
    *directory = memory_handle_add(memory, root, NULL, false);
    return memory_leave(memory, 0);
}

int memory_open_root(const npk_io *io, const char *path, bool create, npk_file **directory, bool *created)
{
    memory_io *memory = memory_of(io);
    char *name = root_name(path);
    memory_io_call call = {0};
    if (create)
        call = memory_begin_call(memory, IO_CALL_OPEN_ROOT, NULL, name);
    int rc = open_root_inside(memory, name, create, directory, created);
    if (create)
        rc = memory_end_call(memory, &call, rc);
    free(name);
    return rc;
}

int memory_sync_parent(const npk_io *io, npk_file *root, const char *path)
{
    (void)path;
    memory_io *memory = memory_of(io);
    memory_io_call call = memory_begin_call(memory, IO_CALL_SYNC_PARENT, root, NULL);
    memory_enter(memory, IO_CALL_SYNC_PARENT);
    return memory_end_call(memory, &call, memory_leave(memory, memory_sync_names(memory, memory_inode_find(memory, TOP_INODE))));
}

/* Forward a call that opens something below a real index. */
static int open_real(memory_io *memory, npk_file *directory, const char *name, unsigned flags, npk_file **file)
{
    npk_file *real;
    int rc = npk_io_posix()->open(npk_io_posix(), directory->real, name, flags, &real);
    if (rc)
        return rc;
    (void)pthread_mutex_lock(&memory->mutex);
    *file = memory_handle_add(memory, NULL, real, (flags & NPK_OPEN_WRITE) != 0);
    return memory_leave(memory, 0);
}

static int open_index(memory_io *memory, const memory_inode *root, npk_file **file)
{
    char path[4096];
    npk_file *real;
    if (!memory_real_place(memory, root->id, path, sizeof path))
        return ENOTSUP;
    int rc = npk_io_posix()->open_root(npk_io_posix(), path, false, &real, NULL);
    if (!rc)
        *file = memory_handle_add(memory, NULL, real, false);
    return rc;
}

static int open_inside(memory_io *memory, npk_file *directory, const char *name, unsigned flags, npk_file **file)
{
    memory_enter(memory, IO_CALL_OPEN);
    memory_inode *parent = directory->inode;
    if (!parent->is_directory)
        return memory_leave(memory, ENOTDIR);
    if ((flags & NPK_OPEN_CREATE) && ((flags & NPK_OPEN_DIRECTORY) || !(flags & NPK_OPEN_WRITE)))
        return memory_leave(memory, EINVAL);
    memory_inode *inode = memory_look_up(memory, parent, name);
    if (!inode) {
        if (!(flags & NPK_OPEN_CREATE))
            return memory_leave(memory, ENOENT);
        inode = memory_make_inode(memory, parent, name, false);
    } else if ((flags & NPK_OPEN_CREATE) && (flags & NPK_OPEN_EXCLUSIVE)) {
        return memory_leave(memory, EEXIST);
    }
    if (inode->is_directory && !(flags & NPK_OPEN_DIRECTORY))
        return memory_leave(memory, EISDIR);
    if (!inode->is_directory && (flags & NPK_OPEN_DIRECTORY))
        return memory_leave(memory, ENOTDIR);
    if (inode->is_real)
        return memory_leave(memory, open_index(memory, parent, file));
    *file = memory_handle_add(memory, inode, NULL, (flags & NPK_OPEN_WRITE) && !inode->is_directory);
    return memory_leave(memory, 0);
}

int memory_open(const npk_io *io, npk_file *directory, const char *name, unsigned flags, npk_file **file)
{
    memory_io *memory = memory_of(io);
    if (!memory_is_component(name))
        return EINVAL;
    if (directory->real) {
        memory_enter(memory, IO_CALL_OPEN);
        (void)memory_leave(memory, 0);
        return open_real(memory, directory, name, flags, file);
    }
    if (!(flags & NPK_OPEN_CREATE))
        return open_inside(memory, directory, name, flags, file);
    memory_io_call call = memory_begin_call(memory, IO_CALL_OPEN, directory, name);
    return memory_end_call(memory, &call, open_inside(memory, directory, name, flags, file));
}

void memory_close(const npk_io *io, npk_file *file)
{
    memory_io *memory = memory_of(io);
    if (!file)
        return;
    memory_enter(memory, IO_CALL_CLOSE);
    memory_handle_drop(memory, file);
    (void)memory_leave(memory, 0);
}

/* ---- names ------------------------------------------------------------------------------------------------------------- */

static void fill_info(const memory_io *memory, const memory_inode *inode, npk_file_info *info)
{
    *info = (npk_file_info){memory->device, inode->id, inode->live.size, inode->is_directory, !inode->is_directory};
}

int memory_info(const npk_io *io, npk_file *file, npk_file_info *info)
{
    memory_io *memory = memory_of(io);
    if (file->real) {
        const npk_io *posix = memory_forward(memory, IO_CALL_INFO);
        return posix->info(posix, file->real, info);
    }
    memory_enter(memory, IO_CALL_INFO);
    fill_info(memory, file->inode, info);
    return memory_leave(memory, 0);
}

int memory_info_at(const npk_io *io, npk_file *directory, const char *name, npk_file_info *info)
{
    memory_io *memory = memory_of(io);
    if (directory->real) {
        const npk_io *posix = memory_forward(memory, IO_CALL_INFO_AT);
        return posix->info_at(posix, directory->real, name, info);
    }
    memory_enter(memory, IO_CALL_INFO_AT);
    if (!memory_is_component(name))
        return memory_leave(memory, EINVAL);
    const memory_inode *inode = memory_look_up(memory, directory->inode, name);
    if (!inode)
        return memory_leave(memory, directory->inode->is_directory ? ENOENT : ENOTDIR);
    fill_info(memory, inode, info);
    return memory_leave(memory, 0);
}

static int make_directory_inside(memory_io *memory, npk_file *directory, const char *name)
{
    memory_enter(memory, IO_CALL_MAKE_DIRECTORY);
    memory_inode *parent = directory->inode;
    if (!parent->is_directory)
        return memory_leave(memory, ENOTDIR);
    if (memory_look_up(memory, parent, name))
        return memory_leave(memory, EEXIST);
    bool is_index = strcmp(name, INDEX_NAME) == 0 && memory_is_root(memory, parent);
    if (is_index) {
        char path[4096];
        if (!memory_real_place(memory, parent->id, path, sizeof path))
            return memory_leave(memory, ENOTSUP);
        if (mkdir(path, 0777) != 0)
            return memory_leave(memory, errno);
    }
    memory_make_inode(memory, parent, name, true)->is_real = is_index;
    return memory_leave(memory, 0);
}

int memory_make_directory(const npk_io *io, npk_file *directory, const char *name)
{
    memory_io *memory = memory_of(io);
    if (!memory_is_component(name))
        return EINVAL;
    if (directory->real) {
        const npk_io *posix = memory_forward(memory, IO_CALL_MAKE_DIRECTORY);
        return posix->make_directory(posix, directory->real, name);
    }
    memory_io_call call = memory_begin_call(memory, IO_CALL_MAKE_DIRECTORY, directory, name);
    return memory_end_call(memory, &call, make_directory_inside(memory, directory, name));
}

static int rename_inside(memory_io *memory, npk_file *directory, const char *from, const char *to)
{
    memory_enter(memory, IO_CALL_RENAME);
    memory_inode *parent = directory->inode;
    const memory_inode *moved = memory_look_up(memory, parent, from);
    const memory_inode *replaced = memory_look_up(memory, parent, to);
    if (!moved)
        return memory_leave(memory, parent->is_directory ? ENOENT : ENOTDIR);
    if (moved->is_real || (replaced && replaced->is_real))
        return memory_leave(memory, ENOTSUP);
    if (moved == replaced)
        return memory_leave(memory, 0);
    if (replaced && replaced->is_directory != moved->is_directory)
        return memory_leave(memory, replaced->is_directory ? EISDIR : ENOTDIR);
    if (replaced && replaced->is_directory && replaced->live.names && replaced->live.names->count)
        return memory_leave(memory, ENOTEMPTY);
    memory_change_name(memory, parent, MEMORY_RENAME, moved->id, from, to);
    if (replaced)
        memory_inode_collect(memory);
    return memory_leave(memory, 0);
}

int memory_rename(const npk_io *io, npk_file *directory, const char *from, const char *to)
{
    memory_io *memory = memory_of(io);
    if (!memory_is_component(from) || !memory_is_component(to))
        return EINVAL;
    if (directory->real) {
        const npk_io *posix = memory_forward(memory, IO_CALL_RENAME);
        return posix->rename(posix, directory->real, from, to);
    }
    memory_io_call call = memory_begin_call(memory, IO_CALL_RENAME, directory, to);
    return memory_end_call(memory, &call, rename_inside(memory, directory, from, to));
}

static int unlink_inside(memory_io *memory, npk_file *directory, const char *name)
{
    memory_enter(memory, IO_CALL_UNLINK);
    const memory_inode *inode = memory_look_up(memory, directory->inode, name);
    if (!inode)
        return memory_leave(memory, directory->inode->is_directory ? ENOENT : ENOTDIR);
    if (inode->is_directory)
        return memory_leave(memory, EISDIR);
    memory_change_name(memory, directory->inode, MEMORY_UNLINK, inode->id, name, NULL);
    memory_inode_collect(memory);
    return memory_leave(memory, 0);
}

int memory_unlink(const npk_io *io, npk_file *directory, const char *name)
{
    memory_io *memory = memory_of(io);
    if (!memory_is_component(name))
        return EINVAL;
    if (directory->real) {
        const npk_io *posix = memory_forward(memory, IO_CALL_UNLINK);
        return posix->unlink(posix, directory->real, name);
    }
    memory_io_call call = memory_begin_call(memory, IO_CALL_UNLINK, directory, name);
    return memory_end_call(memory, &call, unlink_inside(memory, directory, name));
}

static int remove_directory_inside(memory_io *memory, npk_file *directory, const char *name)
{
    memory_enter(memory, IO_CALL_REMOVE_DIRECTORY);
    const memory_inode *inode = memory_look_up(memory, directory->inode, name);
    if (!inode)
        return memory_leave(memory, directory->inode->is_directory ? ENOENT : ENOTDIR);
    if (!inode->is_directory)
        return memory_leave(memory, ENOTDIR);
    if (inode->live.names && inode->live.names->count)
        return memory_leave(memory, ENOTEMPTY);
    char path[4096];
    if (inode->is_real && memory_real_place(memory, directory->inode->id, path, sizeof path) && rmdir(path) != 0)
        return memory_leave(memory, errno);
    memory_change_name(memory, directory->inode, MEMORY_UNLINK, inode->id, name, NULL);
    memory_inode_collect(memory);
    return memory_leave(memory, 0);
}

int memory_remove_directory(const npk_io *io, npk_file *directory, const char *name)
{
    memory_io *memory = memory_of(io);
    if (!memory_is_component(name))
        return EINVAL;
    if (directory->real) {
        const npk_io *posix = memory_forward(memory, IO_CALL_REMOVE_DIRECTORY);
        return posix->remove_directory(posix, directory->real, name);
    }
    memory_io_call call = memory_begin_call(memory, IO_CALL_REMOVE_DIRECTORY, directory, name);
    return memory_end_call(memory, &call, remove_directory_inside(memory, directory, name));
}

int memory_list(const npk_io *io, npk_file *directory, int (*visit)(void *context, const char *name), void *context)
{
    memory_io *memory = memory_of(io);
    if (directory->real) {
        const npk_io *posix = memory_forward(memory, IO_CALL_LIST);
        return posix->list(posix, directory->real, visit, context);
    }
    memory_enter(memory, IO_CALL_LIST);
    if (!directory->inode->is_directory)
        return memory_leave(memory, ENOTDIR);
    /* A held list stays as it is while visit changes the directory. */
    memory_names *names = memory_names_retain(directory->inode->live.names);
    (void)memory_leave(memory, 0);
    int rc = 0;
    for (size_t i = 0; names && i < names->count && rc == 0; i++)
        rc = visit(context, names->entries[i].name->text);
    memory_names_release(names);
    return rc;
}
