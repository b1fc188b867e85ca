/* memory_bytes.c - reading, writing, syncing and allocating: what reaches the live side and what stays pending. */
#include "memory_calls.h"

#include <errno.h>
#include <unistd.h>

#include "bytes.h"

int memory_read(const npk_io *io, npk_file *file, uint64_t offset, void *bytes, size_t size, size_t *done)
{
    memory_io *memory = memory_of(io);
    if (file->real) {
        const npk_io *posix = memory_forward(memory, IO_CALL_READ);
        return posix->read(posix, file->real, offset, bytes, size, done);
    }
    memory_enter(memory, IO_CALL_READ);
    memory_inode *inode = file->inode;
    if (inode->is_directory)
        return memory_leave(memory, EISDIR);
    *done = offset < inode->live.size ? (size_t)npk_min_u64(size, inode->live.size - offset) : 0;
    memory_inode_read_back(inode);
    memory_content_read(inode->live.content, offset, bytes, *done);
    return memory_leave(memory, 0);
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

static bool is_named(const memory_io *memory, uint64_t id)
{
    for (size_t i = 0; i < memory->inode_count; i++)
        for (size_t k = 0; memory->inodes[i]->live.names && k < memory->inodes[i]->live.names->count; k++)
            if (memory->inodes[i]->live.names->entries[k].inode == id)
                return true;
    return false;
}

/* A file without a name that nobody has open takes no room, though its removal may not be durable: a file system that runs out of room
 * commits its removals first. */
static uint64_t used_size(const memory_io *memory)
{
    uint64_t used = 0;
    for (size_t i = 0; i < memory->inode_count; i++)
        if (memory->inodes[i]->live.size && (memory->inodes[i]->open_count || is_named(memory, memory->inodes[i]->id)))
            used += npk_align_up(memory->inodes[i]->live.size, BLOCK_SIZE);
    return used;
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
    memory_enter(memory, IO_CALL_WRITE);
    if (!file->is_writable)
        return memory_leave(memory, EBADF);
    if (offset > INT64_MAX || size > INT64_MAX - offset)
        return memory_leave(memory, EFBIG);
    memory_inode_read_back(file->inode);
    if (!has_space(memory, file->inode, offset + size))
        return memory_leave(memory, ENOSPC);
    if (size)
        change_data(memory, file->inode, offset, bytes, size, offset + size);
    *done = size;
    return memory_leave(memory, 0);
}

int memory_write(const npk_io *io, npk_file *file, uint64_t offset, const void *bytes, size_t size, size_t *done)
{
    memory_io *memory = memory_of(io);
    if (file->real) {
        const npk_io *posix = memory_forward(memory, IO_CALL_WRITE);
        return posix->write(posix, file->real, offset, bytes, size, done);
    }
    memory_io_call call = {.kind = IO_CALL_WRITE, .inode = file->inode->id, .offset = offset, .size = size, .bytes = bytes};
    memory_report(memory, &call, false, 0);
    return memory_end_call(memory, &call, write_inside(memory, file, offset, bytes, size, done));
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
    memory_enter(memory, IO_CALL_SYNC);
    memory_inode *inode = file->inode;
    if (inode->is_directory)
        return memory_leave(memory, memory_sync_names(memory, inode));
    memory_inode_read_back(inode);
    memory_pending_settle(memory, inode, memory->pending_count, true);
    if (inode->is_written_by_map) {
        /* Stores through a map are in no record. */
        memory_content_release(inode->durable.content);
        inode->durable.content = memory_content_retain(inode->live.content);
    }
    if (memory->options.names_follow_sync)
        sync_own_name(memory, inode);
    return memory_leave(memory, 0);
}

int memory_sync(const npk_io *io, npk_file *file)
{
    memory_io *memory = memory_of(io);
    if (file->real) {
        const npk_io *posix = memory_forward(memory, IO_CALL_SYNC);
        return posix->sync(posix, file->real);
    }
    memory_io_call call = memory_begin_call(memory, IO_CALL_SYNC, file, NULL);
    return memory_end_call(memory, &call, sync_inside(memory, file));
}

void memory_io_fail_sync(memory_io *memory, npk_file *file, memory_io_sync_failure failure)
{
    if (file->real)
        return;
    memory_io_call call = memory_begin_call(memory, IO_CALL_SYNC, file, NULL);
    memory_enter(memory, IO_CALL_SYNC);
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
    (void)memory_leave(memory, 0);
    (void)memory_end_call(memory, &call, EIO);
}

int memory_start_writeback(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size)
{
    const npk_io *posix = memory_forward(memory_of(io), IO_CALL_START_WRITEBACK);
    return file->real ? posix->start_writeback(posix, file->real, offset, size) : 0;
}

static int allocate_inside(memory_io *memory, npk_file *file, uint64_t offset, uint64_t size)
{
    memory_enter(memory, IO_CALL_ALLOCATE);
    if (!file->is_writable)
        return memory_leave(memory, EBADF);
    if (offset > INT64_MAX || size > INT64_MAX - offset)
        return memory_leave(memory, EFBIG);
    if (!has_space(memory, file->inode, offset + size))
        return memory_leave(memory, ENOSPC);
    if (size)
        change_data(memory, file->inode, 0, NULL, 0, offset + size);
    return memory_leave(memory, 0);
}

int memory_allocate(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size)
{
    memory_io *memory = memory_of(io);
    if (file->real) {
        /* The size alone: filling pages of an index that is thrown away would take most of the time of a crash test. */
        const npk_io *posix = memory_forward(memory, IO_CALL_ALLOCATE);
        npk_file_info info;
        size_t done = 0;
        int rc = posix->info(posix, file->real, &info);
        if (rc || size == 0 || info.size >= offset + size)
            return rc;
        rc = posix->write(posix, file->real, offset + size - 1, "", 1, &done);
        return rc ? rc : done == 1 ? 0 : ENOSPC;
    }
    memory_io_call call = {.kind = IO_CALL_ALLOCATE, .inode = file->inode->id, .offset = offset, .size = size};
    memory_report(memory, &call, false, 0);
    return memory_end_call(memory, &call, allocate_inside(memory, file, offset, size));
}
