/* memory_maps.c - locks that belong to open files, and maps. */
#include "memory_calls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bytes.h"

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

int memory_lock_call(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size, npk_lock_kind kind)
{
    memory_io *memory = memory_of(io);
    if (file->real) {
        const npk_io *posix = memory_forward(memory, IO_CALL_LOCK);
        return posix->lock(posix, file->real, offset, size, kind);
    }
    memory_enter(memory, IO_CALL_LOCK);
    if (size == 0 || offset > INT64_MAX || size > INT64_MAX - offset)
        return memory_leave(memory, EINVAL);
    if (kind == NPK_LOCK_EXCLUSIVE && !file->is_writable)
        return memory_leave(memory, EBADF);
    if (kind != NPK_LOCK_NONE && is_in_the_way(file->inode, file, offset, offset + size, kind))
        return memory_leave(memory, EAGAIN);
    set_lock(file->inode, file, offset, offset + size, kind);
    return memory_leave(memory, 0);
}

int memory_lock_test(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size, npk_lock_kind kind)
{
    memory_io *memory = memory_of(io);
    if (file->real) {
        const npk_io *posix = memory_forward(memory, IO_CALL_LOCK_TEST);
        return posix->lock_test(posix, file->real, offset, size, kind);
    }
    memory_enter(memory, IO_CALL_LOCK_TEST);
    if (size == 0 || offset > INT64_MAX || size > INT64_MAX - offset)
        return memory_leave(memory, EINVAL);
    bool blocked = kind != NPK_LOCK_NONE && is_in_the_way(file->inode, file, offset, offset + size, kind);
    return memory_leave(memory, blocked ? EAGAIN : 0);
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

int memory_map(const npk_io *io, npk_file *file, uint64_t offset, size_t size, npk_map_kind kind, void **address)
{
    memory_io *memory = memory_of(io);
    if (file->real) {
        const npk_io *posix = memory_forward(memory, IO_CALL_MAP);
        int rc = posix->map(posix, file->real, offset, size, kind, address);
        if (!rc) {
            (void)pthread_mutex_lock(&memory->mutex);
            memory->map_count++;
            (void)memory_leave(memory, 0);
        }
        return rc;
    }
    memory_enter(memory, IO_CALL_MAP);
    memory_inode *inode = file->inode;
    if (inode->is_directory)
        return memory_leave(memory, ENODEV);
    if (kind == NPK_MAPPING_SHARED && !file->is_writable)
        return memory_leave(memory, EACCES);
    int rc = make_mappable(inode);
    if (rc)
        return memory_leave(memory, rc);
    int protection = kind == NPK_MAPPING_READ ? PROT_READ : PROT_READ | PROT_WRITE;
    int flags = kind == NPK_MAPPING_PRIVATE ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED;
    void *place = mmap(NULL, size, protection, flags, inode->mapped_fd, (off_t)offset);
    if (place == MAP_FAILED)
        return memory_leave(memory, errno);
    if (kind == NPK_MAPPING_SHARED)
        inode->is_written_by_map = true;
    memory->map_count++;
    *address = place;
    return memory_leave(memory, 0);
}

void memory_unmap(const npk_io *io, void *address, size_t size)
{
    memory_io *memory = memory_of(io);
    if (!address)
        return;
    memory_enter(memory, IO_CALL_UNMAP);
    memory->map_count--;
    (void)memory_leave(memory, 0);
    npk_io_posix()->unmap(npk_io_posix(), address, size);
}

int memory_map_memory(const npk_io *io, size_t size, void **address)
{
    memory_io *memory = memory_of(io);
    int rc = npk_io_posix()->map_memory(npk_io_posix(), size, address);
    memory_enter(memory, IO_CALL_MAP_MEMORY);
    if (!rc)
        memory->map_count++;
    return memory_leave(memory, rc);
}

int memory_protect_read(const npk_io *io, void *address, size_t size)
{
    const npk_io *posix = memory_forward(memory_of(io), IO_CALL_PROTECT_READ);
    return posix->protect_read(posix, address, size);
}
