/* memory_io.c - the system table over the crashable disk: what each call does to the live side and what it leaves pending. */
#include "memory_io.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "memory_disk.h"

struct npk_file {
    memory_io *memory;
    memory_inode *inode; /* NULL: real */
    npk_file *real;      /* a file of npk_io_posix() below an index */
    bool is_writable;
    npk_file *previous, *next; /* in open_files */
};

static memory_io *memory_of(const npk_io *io)
{
    return (memory_io *)(uintptr_t)io; /* the table is the first member, and was not const */
}

static void enter(memory_io *memory, io_call_kind kind)
{
    (void)pthread_mutex_lock(&memory->mutex);
    memory->counts[kind]++;
}

static int leave(memory_io *memory, int result)
{
    (void)pthread_mutex_unlock(&memory->mutex);
    return result;
}

/* ---- hooks ---------------------------------------------------------------------------------------------------------- */

static void report(memory_io *memory, memory_io_call *call, bool is_after, int result)
{
    (void)pthread_mutex_lock(&memory->mutex);
    void (*hook)(void *context, const memory_io_call *call) = memory->hook;
    void *context = memory->hook_context;
    if (!is_after)
        call->sequence = ++memory->sequence;
    (void)pthread_mutex_unlock(&memory->mutex);
    call->is_after = is_after;
    call->result = result;
    if (hook)
        hook(context, call); /* without the mutex: it takes snapshots and runs a recovery elsewhere */
}

static memory_io_call begin_call(memory_io *memory, io_call_kind kind, const npk_file *file, const char *name)
{
    memory_io_call call = {.kind = kind, .inode = file && file->inode ? file->inode->id : 0, .name = name};
    report(memory, &call, false, 0);
    return call;
}

static int end_call(memory_io *memory, memory_io_call *call, int result)
{
    report(memory, call, true, result);
    return result;
}

/* ---- handles --------------------------------------------------------------------------------------------------------- */

static npk_file *add_handle(memory_io *memory, memory_inode *inode, npk_file *real, bool is_writable)
{
    npk_file *file = memory_alloc(sizeof *file);
    file->memory = memory;
    file->inode = inode;
    file->real = real;
    file->is_writable = is_writable;
    file->next = memory->open_files;
    if (file->next)
        file->next->previous = file;
    memory->open_files = file;
    if (inode)
        inode->open_count++;
    return file;
}

static void release_locks(memory_inode *inode, const npk_file *owner)
{
    size_t kept = 0;
    for (size_t i = 0; i < inode->lock_count; i++)
        if (inode->locks[i].owner != owner)
            inode->locks[kept++] = inode->locks[i];
    inode->lock_count = kept;
}

static bool is_linked(const memory_io *memory, uint64_t id)
{
    for (size_t i = 0; i < memory->inode_count; i++) {
        const memory_names *names = memory->inodes[i]->live.names;
        for (size_t e = 0; names && e < names->count; e++)
            if (names->entries[e].inode == id)
                return true;
    }
    return false;
}

static void drop_handle(memory_io *memory, npk_file *file)
{
    if (file->previous)
        file->previous->next = file->next;
    else
        memory->open_files = file->next;
    if (file->next)
        file->next->previous = file->previous;
    if (file->inode) {
        release_locks(file->inode, file);
        if (--file->inode->open_count == 0 && !is_linked(memory, file->inode->id))
            memory_inode_collect(memory);
    }
    if (file->real)
        npk_io_posix()->close(npk_io_posix(), file->real);
    free(file);
}

static bool is_component(const char *name)
{
    return name[0] != '\0' && strchr(name, '/') == NULL && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static bool is_root(const memory_io *memory, const memory_inode *directory)
{
    const memory_names *names = memory_inode_find(memory, TOP_INODE)->live.names;
    for (size_t i = 0; names && i < names->count; i++)
        if (names->entries[i].inode == directory->id)
            return true;
    return false;
}

static memory_inode *look_up(const memory_io *memory, const memory_inode *directory, const char *name)
{
    uint64_t id = memory_names_find(directory->live.names, name);
    return id ? memory_inode_find(memory, id) : NULL;
}

static uint64_t used_size(const memory_io *memory)
{
    uint64_t used = 0;
    for (size_t i = 0; i < memory->inode_count; i++)
        used += npk_align_up(memory->inodes[i]->live.size, BLOCK_SIZE);
    return used;
}

/* A name change takes effect on the live side and is pending. */
static void change_name(memory_io *memory, memory_inode *directory, memory_record_kind kind, uint64_t inode,
                        const char *from, const char *to)
{
    memory_record *record = memory_alloc(sizeof *record);
    atomic_init(&record->refs, 1);
    record->kind = kind;
    record->sequence = memory->sequence;
    record->inode = inode;
    record->directory = directory->id;
    record->from = from ? memory_name_create(from) : NULL;
    record->to = to ? memory_name_create(to) : NULL;
    memory_record_apply_name(record, &directory->live.names);
    memory_pending_add(memory, record);
}

static memory_inode *make_inode(memory_io *memory, memory_inode *directory, const char *name, bool is_directory)
{
    memory_inode *inode = memory_inode_add(memory, memory->next_inode++, is_directory);
    change_name(memory, directory, MEMORY_LINK, inode->id, NULL, name);
    return inode;
}

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
    enter(memory, IO_CALL_OPEN_ROOT);
    if (created)
        *created = false;
    memory_inode *top = memory_inode_find(memory, TOP_INODE);
    memory_inode *root = look_up(memory, top, name);
    if (!root) {
        if (!create || name[0] == '\0')
            return leave(memory, ENOENT);
        root = make_inode(memory, top, name, true);
        if (created)
            *created = true;
    }
    if (!root->is_directory)
        return leave(memory, ENOTDIR);
    *directory = add_handle(memory, root, NULL, false);
    return leave(memory, 0);
}

static int memory_open_root(const npk_io *io, const char *path, bool create, npk_file **directory, bool *created)
{
    memory_io *memory = memory_of(io);
    char *name = root_name(path);
    memory_io_call call = {0};
    if (create)
        call = begin_call(memory, IO_CALL_OPEN_ROOT, NULL, name);
    int rc = open_root_inside(memory, name, create, directory, created);
    if (create)
        rc = end_call(memory, &call, rc);
    free(name);
    return rc;
}

static int sync_names(memory_io *memory, memory_inode *directory)
{
    memory_pending_settle(memory, directory, memory->pending_count, true);
    memory_inode_collect(memory);
    return 0;
}

static int memory_sync_parent(const npk_io *io, npk_file *root, const char *path)
{
    (void)path;
    memory_io *memory = memory_of(io);
    memory_io_call call = begin_call(memory, IO_CALL_SYNC_PARENT, root, NULL);
    enter(memory, IO_CALL_SYNC_PARENT);
    return end_call(memory, &call, leave(memory, sync_names(memory, memory_inode_find(memory, TOP_INODE))));
}

/* Forward a call that opens something below a real index. */
static int open_real(memory_io *memory, npk_file *directory, const char *name, unsigned flags, npk_file **file)
{
    npk_file *real;
    int rc = npk_io_posix()->open(npk_io_posix(), directory->real, name, flags, &real);
    if (rc)
        return rc;
    (void)pthread_mutex_lock(&memory->mutex);
    *file = add_handle(memory, NULL, real, (flags & NPK_OPEN_WRITE) != 0);
    return leave(memory, 0);
}

static int open_index(memory_io *memory, const memory_inode *root, npk_file **file)
{
    char path[4096];
    npk_file *real;
    if (!memory_real_place(memory, root->id, path, sizeof path))
        return ENOTSUP;
    int rc = npk_io_posix()->open_root(npk_io_posix(), path, false, &real, NULL);
    if (!rc)
        *file = add_handle(memory, NULL, real, false);
    return rc;
}

static int open_inside(memory_io *memory, npk_file *directory, const char *name, unsigned flags, npk_file **file)
{
    enter(memory, IO_CALL_OPEN);
    memory_inode *parent = directory->inode;
    if (!parent->is_directory)
        return leave(memory, ENOTDIR);
    if ((flags & NPK_OPEN_CREATE) && ((flags & NPK_OPEN_DIRECTORY) || !(flags & NPK_OPEN_WRITE)))
        return leave(memory, EINVAL);
    memory_inode *inode = look_up(memory, parent, name);
    if (!inode) {
        if (!(flags & NPK_OPEN_CREATE))
            return leave(memory, ENOENT);
        inode = make_inode(memory, parent, name, false);
    } else if ((flags & NPK_OPEN_CREATE) && (flags & NPK_OPEN_EXCLUSIVE)) {
        return leave(memory, EEXIST);
    }
    if (inode->is_directory && !(flags & NPK_OPEN_DIRECTORY))
        return leave(memory, EISDIR);
    if (!inode->is_directory && (flags & NPK_OPEN_DIRECTORY))
        return leave(memory, ENOTDIR);
    if (inode->is_real)
        return leave(memory, open_index(memory, parent, file));
    *file = add_handle(memory, inode, NULL, (flags & NPK_OPEN_WRITE) && !inode->is_directory);
    return leave(memory, 0);
}

static int memory_open(const npk_io *io, npk_file *directory, const char *name, unsigned flags, npk_file **file)
{
    memory_io *memory = memory_of(io);
    if (!is_component(name))
        return EINVAL;
    if (directory->real) {
        enter(memory, IO_CALL_OPEN);
        (void)leave(memory, 0);
        return open_real(memory, directory, name, flags, file);
    }
    if (!(flags & NPK_OPEN_CREATE))
        return open_inside(memory, directory, name, flags, file);
    memory_io_call call = begin_call(memory, IO_CALL_OPEN, directory, name);
    return end_call(memory, &call, open_inside(memory, directory, name, flags, file));
}

static void memory_close(const npk_io *io, npk_file *file)
{
    memory_io *memory = memory_of(io);
    if (!file)
        return;
    enter(memory, IO_CALL_CLOSE);
    drop_handle(memory, file);
    (void)leave(memory, 0);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------------ */

/* Calls on a real file only need counting here. */
static const npk_io *forward(memory_io *memory, io_call_kind kind)
{
    enter(memory, kind);
    (void)leave(memory, 0);
    return npk_io_posix();
}

static int memory_read(const npk_io *io, npk_file *file, uint64_t offset, void *bytes, size_t size, size_t *done)
{
    memory_io *memory = memory_of(io);
    if (file->real) {
        const npk_io *posix = forward(memory, IO_CALL_READ);
        return posix->read(posix, file->real, offset, bytes, size, done);
    }
    enter(memory, IO_CALL_READ);
    memory_inode *inode = file->inode;
    if (inode->is_directory)
        return leave(memory, EISDIR);
    *done = offset < inode->live.size ? (size_t)npk_min_u64(size, inode->live.size - offset) : 0;
    memory_inode_read_back(inode);
    memory_content_read(inode->live.content, offset, bytes, *done);
    return leave(memory, 0);
}

/* The file was changed from offset on (size bytes, NULL: only lengthened): what a power cut may keep of that. */
static void change_data(memory_io *memory, memory_inode *inode, uint64_t offset, const void *bytes, size_t size,
                        uint64_t new_size)
{
    memory_record *record = memory_alloc(sizeof *record);
    atomic_init(&record->refs, 1);
    record->kind = MEMORY_DATA;
    record->sequence = memory->sequence;
    record->inode = inode->id;
    record->old_size = inode->live.size;
    record->new_size = npk_max_u64(inode->live.size, new_size);
    inode->live.size = record->new_size;
    if (inode->mapped_fd >= 0 && record->new_size != record->old_size)
        (void)!ftruncate(inode->mapped_fd, (off_t)record->new_size);
    if (bytes) {
        memory_content_write(&inode->live.content, offset, bytes, size);
        if (inode->mapped_fd >= 0)
            (void)!pwrite(inode->mapped_fd, bytes, size, (off_t)offset);
        record->first_sector = offset / SECTOR_SIZE;
        record->sector_count = (size_t)((offset + size + SECTOR_SIZE - 1) / SECTOR_SIZE - record->first_sector);
        record->image = memory_alloc(record->sector_count * SECTOR_SIZE);
        memory_content_read(inode->live.content, record->first_sector * SECTOR_SIZE, record->image,
                            record->sector_count * SECTOR_SIZE);
    }
    if (memory_record_unit_count(record) == 0)
        memory_record_release(record);
    else
        memory_pending_add(memory, record);
}

/* How much longer the file may become: the bytes of the disk that are left. */
static bool has_space(const memory_io *memory, const memory_inode *inode, uint64_t new_size)
{
    uint64_t capacity = memory->options.capacity;
    if (capacity == 0 || new_size <= inode->live.size)
        return true;
    uint64_t more = npk_align_up(new_size, BLOCK_SIZE) - npk_align_up(inode->live.size, BLOCK_SIZE);
    uint64_t used = used_size(memory);
    return used <= capacity && more <= capacity - used;
}

static int write_inside(memory_io *memory, npk_file *file, uint64_t offset, const void *bytes, size_t size, size_t *done)
{
    enter(memory, IO_CALL_WRITE);
    if (!file->is_writable)
        return leave(memory, EBADF);
    if (offset > INT64_MAX || size > INT64_MAX - offset)
        return leave(memory, EFBIG);
    memory_inode_read_back(file->inode);
    if (!has_space(memory, file->inode, offset + size))
        return leave(memory, ENOSPC);
    if (size)
        change_data(memory, file->inode, offset, bytes, size, offset + size);
    *done = size;
    return leave(memory, 0);
}

static int memory_write(const npk_io *io, npk_file *file, uint64_t offset, const void *bytes, size_t size, size_t *done)
{
    memory_io *memory = memory_of(io);
    if (file->real) {
        const npk_io *posix = forward(memory, IO_CALL_WRITE);
        return posix->write(posix, file->real, offset, bytes, size, done);
    }
    memory_io_call call = {.kind = IO_CALL_WRITE, .inode = file->inode->id, .offset = offset, .size = size, .bytes = bytes};
    report(memory, &call, false, 0);
    return end_call(memory, &call, write_inside(memory, file, offset, bytes, size, done));
}

static bool holds_entry(const memory_inode *directory, uint64_t id)
{
    for (size_t i = 0; directory->live.names && i < directory->live.names->count; i++)
        if (directory->live.names->entries[i].inode == id)
            return true;
    return false;
}

/* The names of inode and of the directories above it become durable. Changes of one directory are journaled in order: all that
 * came before the newest one of this name come with it. */
static void sync_own_name(memory_io *memory, const memory_inode *inode)
{
    uint64_t id = inode->id;
    while (id != TOP_INODE) {
        memory_inode *parent = NULL;
        for (size_t i = 0; i < memory->inode_count && !parent; i++)
            if (holds_entry(memory->inodes[i], id))
                parent = memory->inodes[i];
        if (!parent)
            return; /* unlinked */
        size_t end = 0;
        for (size_t i = 0; i < memory->pending_count; i++)
            if (memory->pending[i]->kind != MEMORY_DATA && memory->pending[i]->directory == parent->id &&
                memory->pending[i]->inode == id)
                end = i + 1;
        if (end)
            memory_pending_settle(memory, parent, end, true);
        id = parent->id;
    }
}

static int sync_inside(memory_io *memory, npk_file *file)
{
    enter(memory, IO_CALL_SYNC);
    memory_inode *inode = file->inode;
    if (inode->is_directory)
        return leave(memory, sync_names(memory, inode));
    memory_inode_read_back(inode);
    memory_pending_settle(memory, inode, memory->pending_count, true);
    if (inode->is_written_by_map) {
        /* Stores through a map are in no record. */
        memory_content_release(inode->durable.content);
        inode->durable.content = memory_content_retain(inode->live.content);
    }
    if (memory->options.names_follow_sync)
        sync_own_name(memory, inode);
    return leave(memory, 0);
}

static int memory_sync(const npk_io *io, npk_file *file)
{
    memory_io *memory = memory_of(io);
    if (file->real) {
        const npk_io *posix = forward(memory, IO_CALL_SYNC);
        return posix->sync(posix, file->real);
    }
    memory_io_call call = begin_call(memory, IO_CALL_SYNC, file, NULL);
    return end_call(memory, &call, sync_inside(memory, file));
}

void memory_io_fail_sync(memory_io *memory, npk_file *file, memory_io_sync_failure failure)
{
    if (file->real)
        return;
    memory_io_call call = begin_call(memory, IO_CALL_SYNC, file, NULL);
    enter(memory, IO_CALL_SYNC);
    memory_inode *inode = file->inode;
    bool is_clean = failure == MEMORY_IO_CLEAN_NEW || failure == MEMORY_IO_CLEAN_OLD;
    bool is_old = failure == MEMORY_IO_CLEAN_OLD || failure == MEMORY_IO_DIRTY_OLD;
    memory_inode_read_back(inode);
    if (is_clean)
        memory_pending_settle(memory, inode, memory->pending_count, false);
    if (is_old && !inode->is_directory) {
        memory_content_release(inode->live.content);
        inode->live.content = memory_content_retain(inode->durable.content);
        /* Maps show the cache too. */
        uint8_t block[BLOCK_SIZE];
        for (uint64_t at = 0; inode->mapped_fd >= 0 && at < inode->live.size; at += BLOCK_SIZE) {
            size_t part = (size_t)npk_min_u64(BLOCK_SIZE, inode->live.size - at);
            memory_content_read(inode->live.content, at, block, part);
            (void)!pwrite(inode->mapped_fd, block, part, (off_t)at);
        }
    }
    (void)leave(memory, 0);
    (void)end_call(memory, &call, EIO);
}

static int memory_start_writeback(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size)
{
    const npk_io *posix = forward(memory_of(io), IO_CALL_START_WRITEBACK);
    return file->real ? posix->start_writeback(posix, file->real, offset, size) : 0;
}

static int allocate_inside(memory_io *memory, npk_file *file, uint64_t offset, uint64_t size)
{
    enter(memory, IO_CALL_ALLOCATE);
    if (!file->is_writable)
        return leave(memory, EBADF);
    if (offset > INT64_MAX || size > INT64_MAX - offset)
        return leave(memory, EFBIG);
    if (!has_space(memory, file->inode, offset + size))
        return leave(memory, ENOSPC);
    if (size)
        change_data(memory, file->inode, 0, NULL, 0, offset + size);
    return leave(memory, 0);
}

static int memory_allocate(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size)
{
    memory_io *memory = memory_of(io);
    if (file->real) {
        const npk_io *posix = forward(memory, IO_CALL_ALLOCATE);
        return posix->allocate(posix, file->real, offset, size);
    }
    memory_io_call call = {.kind = IO_CALL_ALLOCATE, .inode = file->inode->id, .offset = offset, .size = size};
    report(memory, &call, false, 0);
    return end_call(memory, &call, allocate_inside(memory, file, offset, size));
}

/* ---- names ------------------------------------------------------------------------------------------------------------- */

static void fill_info(const memory_io *memory, const memory_inode *inode, npk_file_info *info)
{
    *info = (npk_file_info){memory->device, inode->id, inode->live.size, inode->is_directory, !inode->is_directory};
}

static int memory_info(const npk_io *io, npk_file *file, npk_file_info *info)
{
    memory_io *memory = memory_of(io);
    if (file->real) {
        const npk_io *posix = forward(memory, IO_CALL_INFO);
        return posix->info(posix, file->real, info);
    }
    enter(memory, IO_CALL_INFO);
    fill_info(memory, file->inode, info);
    return leave(memory, 0);
}

static int memory_info_at(const npk_io *io, npk_file *directory, const char *name, npk_file_info *info)
{
    memory_io *memory = memory_of(io);
    if (directory->real) {
        const npk_io *posix = forward(memory, IO_CALL_INFO_AT);
        return posix->info_at(posix, directory->real, name, info);
    }
    enter(memory, IO_CALL_INFO_AT);
    if (!is_component(name))
        return leave(memory, EINVAL);
    const memory_inode *inode = look_up(memory, directory->inode, name);
    if (!inode)
        return leave(memory, directory->inode->is_directory ? ENOENT : ENOTDIR);
    fill_info(memory, inode, info);
    return leave(memory, 0);
}

static int make_directory_inside(memory_io *memory, npk_file *directory, const char *name)
{
    enter(memory, IO_CALL_MAKE_DIRECTORY);
    memory_inode *parent = directory->inode;
    if (!parent->is_directory)
        return leave(memory, ENOTDIR);
    if (look_up(memory, parent, name))
        return leave(memory, EEXIST);
    bool is_index = strcmp(name, INDEX_NAME) == 0 && is_root(memory, parent);
    if (is_index) {
        char path[4096];
        if (!memory_real_place(memory, parent->id, path, sizeof path))
            return leave(memory, ENOTSUP);
        if (mkdir(path, 0777) != 0)
            return leave(memory, errno);
    }
    make_inode(memory, parent, name, true)->is_real = is_index;
    return leave(memory, 0);
}

static int memory_make_directory(const npk_io *io, npk_file *directory, const char *name)
{
    memory_io *memory = memory_of(io);
    if (!is_component(name))
        return EINVAL;
    if (directory->real) {
        const npk_io *posix = forward(memory, IO_CALL_MAKE_DIRECTORY);
        return posix->make_directory(posix, directory->real, name);
    }
    memory_io_call call = begin_call(memory, IO_CALL_MAKE_DIRECTORY, directory, name);
    return end_call(memory, &call, make_directory_inside(memory, directory, name));
}

static int rename_inside(memory_io *memory, npk_file *directory, const char *from, const char *to)
{
    enter(memory, IO_CALL_RENAME);
    memory_inode *parent = directory->inode;
    const memory_inode *moved = look_up(memory, parent, from);
    const memory_inode *replaced = look_up(memory, parent, to);
    if (!moved)
        return leave(memory, parent->is_directory ? ENOENT : ENOTDIR);
    if (moved->is_real || (replaced && replaced->is_real))
        return leave(memory, ENOTSUP);
    if (moved == replaced)
        return leave(memory, 0);
    if (replaced && replaced->is_directory != moved->is_directory)
        return leave(memory, replaced->is_directory ? EISDIR : ENOTDIR);
    if (replaced && replaced->is_directory && replaced->live.names && replaced->live.names->count)
        return leave(memory, ENOTEMPTY);
    change_name(memory, parent, MEMORY_RENAME, moved->id, from, to);
    if (replaced)
        memory_inode_collect(memory);
    return leave(memory, 0);
}

static int memory_rename(const npk_io *io, npk_file *directory, const char *from, const char *to)
{
    memory_io *memory = memory_of(io);
    if (!is_component(from) || !is_component(to))
        return EINVAL;
    if (directory->real) {
        const npk_io *posix = forward(memory, IO_CALL_RENAME);
        return posix->rename(posix, directory->real, from, to);
    }
    memory_io_call call = begin_call(memory, IO_CALL_RENAME, directory, to);
    return end_call(memory, &call, rename_inside(memory, directory, from, to));
}

static int unlink_inside(memory_io *memory, npk_file *directory, const char *name)
{
    enter(memory, IO_CALL_UNLINK);
    const memory_inode *inode = look_up(memory, directory->inode, name);
    if (!inode)
        return leave(memory, directory->inode->is_directory ? ENOENT : ENOTDIR);
    if (inode->is_directory)
        return leave(memory, EISDIR);
    change_name(memory, directory->inode, MEMORY_UNLINK, inode->id, name, NULL);
    memory_inode_collect(memory);
    return leave(memory, 0);
}

static int memory_unlink(const npk_io *io, npk_file *directory, const char *name)
{
    memory_io *memory = memory_of(io);
    if (!is_component(name))
        return EINVAL;
    if (directory->real) {
        const npk_io *posix = forward(memory, IO_CALL_UNLINK);
        return posix->unlink(posix, directory->real, name);
    }
    memory_io_call call = begin_call(memory, IO_CALL_UNLINK, directory, name);
    return end_call(memory, &call, unlink_inside(memory, directory, name));
}

static int remove_directory_inside(memory_io *memory, npk_file *directory, const char *name)
{
    enter(memory, IO_CALL_REMOVE_DIRECTORY);
    const memory_inode *inode = look_up(memory, directory->inode, name);
    if (!inode)
        return leave(memory, directory->inode->is_directory ? ENOENT : ENOTDIR);
    if (!inode->is_directory)
        return leave(memory, ENOTDIR);
    if (inode->live.names && inode->live.names->count)
        return leave(memory, ENOTEMPTY);
    char path[4096];
    if (inode->is_real && memory_real_place(memory, directory->inode->id, path, sizeof path) && rmdir(path) != 0)
        return leave(memory, errno);
    change_name(memory, directory->inode, MEMORY_UNLINK, inode->id, name, NULL);
    memory_inode_collect(memory);
    return leave(memory, 0);
}

static int memory_remove_directory(const npk_io *io, npk_file *directory, const char *name)
{
    memory_io *memory = memory_of(io);
    if (!is_component(name))
        return EINVAL;
    if (directory->real) {
        const npk_io *posix = forward(memory, IO_CALL_REMOVE_DIRECTORY);
        return posix->remove_directory(posix, directory->real, name);
    }
    memory_io_call call = begin_call(memory, IO_CALL_REMOVE_DIRECTORY, directory, name);
    return end_call(memory, &call, remove_directory_inside(memory, directory, name));
}

static int memory_list(const npk_io *io, npk_file *directory, int (*visit)(void *context, const char *name), void *context)
{
    memory_io *memory = memory_of(io);
    if (directory->real) {
        const npk_io *posix = forward(memory, IO_CALL_LIST);
        return posix->list(posix, directory->real, visit, context);
    }
    enter(memory, IO_CALL_LIST);
    if (!directory->inode->is_directory)
        return leave(memory, ENOTDIR);
    /* A held list stays as it is while visit changes the directory. */
    memory_names *names = memory_names_retain(directory->inode->live.names);
    (void)leave(memory, 0);
    int rc = 0;
    for (size_t i = 0; names && i < names->count && rc == 0; i++)
        rc = visit(context, names->entries[i].name->text);
    memory_names_release(names);
    return rc;
}

/* ---- locks ------------------------------------------------------------------------------------------------------------- */

static bool is_in_the_way(const memory_inode *inode, const npk_file *owner, uint64_t start, uint64_t end, npk_lock_kind kind)
{
    for (size_t i = 0; i < inode->lock_count; i++) {
        const memory_lock *lock = &inode->locks[i];
        if (lock->owner != owner && lock->start < end && start < lock->end &&
            (kind == NPK_LOCK_EXCLUSIVE || lock->kind == NPK_LOCK_EXCLUSIVE))
            return true;
    }
    return false;
}

static void add_lock(memory_inode *inode, memory_lock lock)
{
    inode->locks = memory_resize(inode->locks, (inode->lock_count + 1) * sizeof *inode->locks);
    inode->locks[inode->lock_count++] = lock;
}

/* The range start .. end of owner becomes kind; what it held around that stays. */
static void set_lock(memory_inode *inode, const npk_file *owner, uint64_t start, uint64_t end, npk_lock_kind kind)
{
    size_t count = inode->lock_count;
    size_t bytes = count * sizeof *inode->locks;
    memory_lock *before = memory_alloc(bytes);
    if (bytes)
        memcpy(before, inode->locks, bytes);
    inode->lock_count = 0;
    for (size_t i = 0; i < count; i++) {
        memory_lock lock = before[i];
        if (lock.owner != owner || lock.end <= start || end <= lock.start) {
            add_lock(inode, lock);
            continue;
        }
        if (lock.start < start)
            add_lock(inode, (memory_lock){owner, lock.start, start, lock.kind});
        if (end < lock.end)
            add_lock(inode, (memory_lock){owner, end, lock.end, lock.kind});
    }
    if (kind != NPK_LOCK_NONE)
        add_lock(inode, (memory_lock){owner, start, end, kind});
    free(before);
}

static int memory_lock_call(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size, npk_lock_kind kind)
{
    memory_io *memory = memory_of(io);
    if (file->real) {
        const npk_io *posix = forward(memory, IO_CALL_LOCK);
        return posix->lock(posix, file->real, offset, size, kind);
    }
    enter(memory, IO_CALL_LOCK);
    if (size == 0 || offset > INT64_MAX || size > INT64_MAX - offset)
        return leave(memory, EINVAL);
    if (kind == NPK_LOCK_EXCLUSIVE && !file->is_writable)
        return leave(memory, EBADF);
    if (kind != NPK_LOCK_NONE && is_in_the_way(file->inode, file, offset, offset + size, kind))
        return leave(memory, EAGAIN);
    set_lock(file->inode, file, offset, offset + size, kind);
    return leave(memory, 0);
}

static int memory_lock_test(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size, npk_lock_kind kind)
{
    memory_io *memory = memory_of(io);
    if (file->real) {
        const npk_io *posix = forward(memory, IO_CALL_LOCK_TEST);
        return posix->lock_test(posix, file->real, offset, size, kind);
    }
    enter(memory, IO_CALL_LOCK_TEST);
    if (size == 0 || offset > INT64_MAX || size > INT64_MAX - offset)
        return leave(memory, EINVAL);
    bool blocked = kind != NPK_LOCK_NONE && is_in_the_way(file->inode, file, offset, offset + size, kind);
    return leave(memory, blocked ? EAGAIN : 0);
}

/* ---- maps ---------------------------------------------------------------------------------------------------------------- */

/* Give the inode a memory file that holds its live bytes; from then on writes go to both. The kernel then does the rest: private
 * copies, protection, life after unlink. */
static int make_mappable(memory_inode *inode)
{
    if (inode->mapped_fd >= 0)
        return 0;
    int fd = memfd_create("memory_io", MFD_CLOEXEC);
    if (fd < 0)
        return errno;
    int rc = ftruncate(fd, (off_t)inode->live.size) == 0 ? 0 : errno;
    const memory_content *content = inode->live.content;
    for (size_t i = 0; !rc && content && i < content->count; i++) {
        uint64_t at = (uint64_t)i * BLOCK_SIZE;
        if (!content->blocks[i] || at >= inode->live.size)
            continue;
        size_t part = (size_t)npk_min_u64(BLOCK_SIZE, inode->live.size - at);
        if (pwrite(fd, content->blocks[i]->bytes, part, (off_t)at) != (ssize_t)part)
            rc = EIO;
    }
    if (rc)
        (void)close(fd);
    else
        inode->mapped_fd = fd;
    return rc;
}

static int memory_map(const npk_io *io, npk_file *file, uint64_t offset, size_t size, npk_map_kind kind, void **address)
{
    memory_io *memory = memory_of(io);
    if (file->real) {
        const npk_io *posix = forward(memory, IO_CALL_MAP);
        int rc = posix->map(posix, file->real, offset, size, kind, address);
        if (!rc) {
            (void)pthread_mutex_lock(&memory->mutex);
            memory->map_count++;
            (void)leave(memory, 0);
        }
        return rc;
    }
    enter(memory, IO_CALL_MAP);
    memory_inode *inode = file->inode;
    if (inode->is_directory)
        return leave(memory, ENODEV);
    if (kind == NPK_MAPPING_SHARED && !file->is_writable)
        return leave(memory, EACCES);
    int rc = make_mappable(inode);
    if (rc)
        return leave(memory, rc);
    int protection = kind == NPK_MAPPING_READ ? PROT_READ : PROT_READ | PROT_WRITE;
    int flags = kind == NPK_MAPPING_PRIVATE ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED;
    void *place = mmap(NULL, size, protection, flags, inode->mapped_fd, (off_t)offset);
    if (place == MAP_FAILED)
        return leave(memory, errno);
    if (kind == NPK_MAPPING_SHARED)
        inode->is_written_by_map = true;
    memory->map_count++;
    *address = place;
    return leave(memory, 0);
}

static void memory_unmap(const npk_io *io, void *address, size_t size)
{
    memory_io *memory = memory_of(io);
    if (!address)
        return;
    enter(memory, IO_CALL_UNMAP);
    memory->map_count--;
    (void)leave(memory, 0);
    npk_io_posix()->unmap(npk_io_posix(), address, size);
}

static int memory_map_memory(const npk_io *io, size_t size, void **address)
{
    memory_io *memory = memory_of(io);
    int rc = npk_io_posix()->map_memory(npk_io_posix(), size, address);
    enter(memory, IO_CALL_MAP_MEMORY);
    if (!rc)
        memory->map_count++;
    return leave(memory, rc);
}

static int memory_protect_read(const npk_io *io, void *address, size_t size)
{
    const npk_io *posix = forward(memory_of(io), IO_CALL_PROTECT_READ);
    return posix->protect_read(posix, address, size);
}

/* ---- the rest of the world ------------------------------------------------------------------------------------------------- */

static uint64_t look_at_clock(memory_io *memory)
{
    (void)pthread_mutex_lock(&memory->mutex);
    uint64_t now = memory->now_us += memory->step_us;
    (void)pthread_mutex_unlock(&memory->mutex);
    return now;
}

static uint64_t memory_now_us(const npk_io *io)
{
    memory_io *memory = memory_of(io);
    return memory->options.real_clock ? npk_io_posix()->now_us(npk_io_posix()) : look_at_clock(memory);
}

static uint64_t memory_monotonic_us(const npk_io *io)
{
    memory_io *memory = memory_of(io);
    return memory->options.real_clock ? npk_io_posix()->monotonic_us(npk_io_posix()) : look_at_clock(memory);
}

static void memory_sleep_us(const npk_io *io, uint64_t us)
{
    memory_io *memory = memory_of(io);
    if (memory->options.real_clock) {
        npk_io_posix()->sleep_us(npk_io_posix(), us);
        return;
    }
    (void)pthread_mutex_lock(&memory->mutex);
    memory->now_us += us;
    (void)pthread_mutex_unlock(&memory->mutex);
    (void)sched_yield(); /* who waits for another thread must let it run */
}

static int memory_random(const npk_io *io, void *bytes, size_t size)
{
    memory_io *memory = memory_of(io);
    enter(memory, IO_CALL_RANDOM);
    rng_fill(&memory->random, bytes, size);
    return leave(memory, 0);
}

static void memory_process(const npk_io *io, npk_process *process)
{
    memory_io *memory = memory_of(io);
    (void)pthread_mutex_lock(&memory->mutex);
    *process = memory->process;
    (void)pthread_mutex_unlock(&memory->mutex);
}

static bool memory_is_network(const npk_io *io, npk_file *directory)
{
    (void)directory;
    memory_io *memory = memory_of(io);
    (void)pthread_mutex_lock(&memory->mutex);
    bool is_network = memory->options.is_network;
    (void)pthread_mutex_unlock(&memory->mutex);
    return is_network;
}

static int memory_real_path(const npk_io *io, npk_file *directory, char *path, size_t size)
{
    const npk_io *posix = forward(memory_of(io), IO_CALL_REAL_PATH);
    return directory->real ? posix->real_path(posix, directory->real, path, size) : ENOTSUP;
}

/* ---- creating ------------------------------------------------------------------------------------------------------------- */

static const npk_io memory_table = {
    .name = "memory",
    .open_root = memory_open_root,
    .sync_parent = memory_sync_parent,
    .open = memory_open,
    .close = memory_close,
    .read = memory_read,
    .write = memory_write,
    .sync = memory_sync,
    .start_writeback = memory_start_writeback,
    .allocate = memory_allocate,
    .info = memory_info,
    .info_at = memory_info_at,
    .make_directory = memory_make_directory,
    .rename = memory_rename,
    .unlink = memory_unlink,
    .remove_directory = memory_remove_directory,
    .list = memory_list,
    .lock = memory_lock_call,
    .lock_test = memory_lock_test,
    .map = memory_map,
    .unmap = memory_unmap,
    .map_memory = memory_map_memory,
    .protect_read = memory_protect_read,
    .now_us = memory_now_us,
    .monotonic_us = memory_monotonic_us,
    .sleep_us = memory_sleep_us,
    .random = memory_random,
    .process = memory_process,
    .is_network = memory_is_network,
    .real_path = memory_real_path,
};

memory_io *memory_io_create_bare(const memory_io_options *options)
{
    /* A device number of its own each: a registry keyed by device and inode must not take two disks for one. */
    static atomic_uint_fast64_t devices;
    memory_io *memory = memory_alloc(sizeof *memory);
    memory->table = memory_table;
    if (options)
        memory->options = *options;
    if (memory->options.real_path) {
        size_t size = strlen(memory->options.real_path) + 1;
        memory->real_path = memory_alloc(size);
        memcpy(memory->real_path, memory->options.real_path, size);
        memory->options.real_path = memory->real_path;
        (void)memory_real_clear(memory->real_path);
    }
    (void)pthread_mutex_init(&memory->mutex, NULL);
    memory->device = (UINT64_C(1) << 48) + atomic_fetch_add(&devices, 1);
    memory->next_inode = TOP_INODE + 1;
    memory->random = rng_seeded(memory->options.seed);
    memory->now_us = UINT64_C(1700000000000000);
    memory->step_us = 1;
    npk_io_posix()->process(npk_io_posix(), &memory->process);
    return memory;
}

memory_io *memory_io_create(const memory_io_options *options)
{
    memory_io *memory = memory_io_create_bare(options);
    (void)memory_inode_add(memory, TOP_INODE, true);
    return memory;
}

void memory_io_destroy(memory_io *memory)
{
    if (!memory)
        return;
    while (memory->open_files)
        drop_handle(memory, memory->open_files);
    for (size_t i = 0; i < memory->inode_count; i++)
        memory_inode_free(memory->inodes[i]);
    for (size_t i = 0; i < memory->pending_count; i++)
        memory_record_release(memory->pending[i]);
    free(memory->inodes);
    free(memory->pending);
    free(memory->real_path);
    (void)pthread_mutex_destroy(&memory->mutex);
    free(memory);
}

const npk_io *memory_io_table(memory_io *memory)
{
    return &memory->table;
}

void memory_io_set_hook(memory_io *memory, void (*hook)(void *context, const memory_io_call *call), void *context)
{
    (void)pthread_mutex_lock(&memory->mutex);
    memory->hook = hook;
    memory->hook_context = context;
    (void)pthread_mutex_unlock(&memory->mutex);
}

uint64_t memory_io_count(memory_io *memory, io_call_kind kind)
{
    (void)pthread_mutex_lock(&memory->mutex);
    uint64_t count = memory->counts[kind];
    (void)pthread_mutex_unlock(&memory->mutex);
    return count;
}

uint64_t memory_io_sequence(memory_io *memory)
{
    (void)pthread_mutex_lock(&memory->mutex);
    uint64_t sequence = memory->sequence;
    (void)pthread_mutex_unlock(&memory->mutex);
    return sequence;
}

size_t memory_io_open_count(memory_io *memory)
{
    (void)pthread_mutex_lock(&memory->mutex);
    size_t count = 0;
    for (const npk_file *file = memory->open_files; file; file = file->next)
        count++;
    (void)pthread_mutex_unlock(&memory->mutex);
    return count;
}

int64_t memory_io_map_count(memory_io *memory)
{
    (void)pthread_mutex_lock(&memory->mutex);
    int64_t count = memory->map_count;
    (void)pthread_mutex_unlock(&memory->mutex);
    return count;
}

void memory_io_set_clock(memory_io *memory, uint64_t now_us, uint64_t step_us)
{
    (void)pthread_mutex_lock(&memory->mutex);
    memory->now_us = now_us;
    memory->step_us = step_us;
    (void)pthread_mutex_unlock(&memory->mutex);
}

void memory_io_set_process(memory_io *memory, const npk_process *process)
{
    (void)pthread_mutex_lock(&memory->mutex);
    memory->process = *process;
    (void)pthread_mutex_unlock(&memory->mutex);
}

void memory_io_set_network(memory_io *memory, bool is_network)
{
    (void)pthread_mutex_lock(&memory->mutex);
    memory->options.is_network = is_network;
    (void)pthread_mutex_unlock(&memory->mutex);
}

void memory_io_set_capacity(memory_io *memory, uint64_t capacity)
{
    (void)pthread_mutex_lock(&memory->mutex);
    memory->options.capacity = capacity;
    (void)pthread_mutex_unlock(&memory->mutex);
}

const char *io_call_name(io_call_kind kind)
{
    static const char *const names[IO_CALL_COUNT] = {
#define IO_X(name, text) text,
        IO_CALL_MAP(IO_X)
#undef IO_X
    };
    return (unsigned)kind < IO_CALL_COUNT ? names[kind] : "?";
}
