/* io_posix.c - the system table over Linux system calls: the only file of the library that calls the system. */
#include "io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "alloc.h"
#include "bytes.h"
#include "thread.h"

/* Linux 3.15 and later; older C library headers lack the names. */
#ifndef F_OFD_GETLK
#define F_OFD_GETLK 36
#define F_OFD_SETLK 37
#endif

#define HUGE_PAGE_SIZE ((size_t)2 << 20)

struct npk_file {
    int fd;
    bool is_directory;
};

/* A name from the disk or a caller must not lead out of the directory. */
static bool is_component(const char *name)
{
    return name[0] != '\0' && strchr(name, '/') == NULL && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static int open_retrying(int directory, const char *name, int flags)
{
    int fd;
    do
        fd = openat(directory, name, flags | O_CLOEXEC | O_NOCTTY, 0666);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static int posix_open_root(const npk_io *io, const char *path, bool create, npk_file **directory, bool *created)
{
    (void)io;
    npk_file *root = npk_alloc(sizeof *root); /* before anything is made, so that ENOMEM leaves nothing behind */
    if (!root)
        return ENOMEM;
    bool made = false;
    int fd = open_retrying(AT_FDCWD, path, O_RDONLY | O_DIRECTORY);
    if (fd < 0 && errno == ENOENT && create) {
        /* EEXIST: somebody else was faster, and the store is not ours to announce. */
        if (mkdir(path, 0777) == 0)
            made = true;
        else if (errno != EEXIST)
            goto fail;
        fd = open_retrying(AT_FDCWD, path, O_RDONLY | O_DIRECTORY);
    }
    if (fd < 0)
        goto fail;
    root->fd = fd;
    root->is_directory = true;
    *directory = root;
    if (created)
        *created = made;
    return 0;
fail:;
    int rc = errno;
    npk_free(root);
    return rc;
}

static int posix_sync_parent(const npk_io *io, npk_file *root, const char *path)
{
    (void)io;
    (void)path; /* ".." is the directory that holds the root even when the path now leads elsewhere */
    int parent = open_retrying(root->fd, "..", O_RDONLY | O_DIRECTORY);
    if (parent < 0) {
        /* A parent that may be written but not read cannot be opened; syncing its whole file system covers it. */
        if (errno != EACCES)
            return errno;
        return syncfs(root->fd) == 0 ? 0 : errno;
    }
    int rc = fsync(parent) == 0 ? 0 : errno;
    (void)close(parent);
    return rc;
}

static int posix_open(const npk_io *io, npk_file *directory, const char *name, unsigned flags, npk_file **file)
{
    (void)io;
    if (!is_component(name))
        return EINVAL;
    /* Non-blocking: opening a FIFO that somebody put there must not hang. It means nothing to a regular file. */
    int how = O_NOFOLLOW | O_NONBLOCK;
    if (flags & NPK_OPEN_DIRECTORY)
        how |= O_RDONLY | O_DIRECTORY;
    else
        how |= flags & NPK_OPEN_WRITE ? O_RDWR : O_RDONLY;
    if (flags & NPK_OPEN_CREATE) {
        if ((flags & NPK_OPEN_DIRECTORY) || !(flags & NPK_OPEN_WRITE))
            return EINVAL;
        how |= O_CREAT;
        if (flags & NPK_OPEN_EXCLUSIVE)
            how |= O_EXCL;
    }
    npk_file *opened = npk_alloc(sizeof *opened);
    if (!opened)
        return ENOMEM;
    int rc;
    int fd = open_retrying(directory->fd, name, how);
    if (fd < 0) {
        rc = errno == ENXIO ? EINVAL : errno; /* ENXIO: a socket or a device without a driver */
        goto fail;
    }
    struct stat st;
    if (fstat(fd, &st) != 0)
        rc = errno;
    else if (S_ISDIR(st.st_mode))
        rc = flags & NPK_OPEN_DIRECTORY ? 0 : EISDIR;
    else
        rc = S_ISREG(st.st_mode) ? 0 : EINVAL;
    if (rc) {
        (void)close(fd);
        goto fail;
    }
    opened->fd = fd;
    opened->is_directory = S_ISDIR(st.st_mode);
    *file = opened;
    return 0;
fail:
    npk_free(opened);
    return rc;
}

static void posix_close(const npk_io *io, npk_file *file)
{
    (void)io;
    if (!file)
        return;
    (void)close(file->fd); /* what matters was synced before; after EINTR the descriptor is gone too */
    npk_free(file);
}

static int posix_read(const npk_io *io, npk_file *file, uint64_t offset, void *bytes, size_t size, size_t *done)
{
    (void)io;
    if (offset > INT64_MAX)
        return EINVAL;
    ssize_t n = pread(file->fd, bytes, size, (off_t)offset);
    if (n < 0)
        return errno;
    *done = (size_t)n;
    return 0;
}

static int posix_write(const npk_io *io, npk_file *file, uint64_t offset, const void *bytes, size_t size, size_t *done)
{
    (void)io;
    if (offset > INT64_MAX)
        return EFBIG;
    npk_thread_hold_file_size_signal();
    ssize_t n = pwrite(file->fd, bytes, size, (off_t)offset);
    int rc = n < 0 ? errno : 0;
    npk_thread_release_file_size_signal(rc == EFBIG);
    if (rc)
        return rc;
    *done = (size_t)n;
    return 0;
}

static int posix_sync(const npk_io *io, npk_file *file)
{
    (void)io;
    if (!file->is_directory)
        return fdatasync(file->fd) == 0 ? 0 : errno;
    if (fsync(file->fd) == 0)
        return 0;
    /* EINVAL: this file system cannot sync a directory, so nothing was tried; syncing all of it can. */
    if (errno != EINVAL)
        return errno;
    return syncfs(file->fd) == 0 ? 0 : errno;
}

static int posix_start_writeback(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size)
{
    (void)io;
    if (offset > INT64_MAX || size > INT64_MAX - offset)
        return EINVAL;
    /* Without the WAIT flags it does not take away the error that a later fdatasync must report. */
    if (sync_file_range(file->fd, (off64_t)offset, (off64_t)size, SYNC_FILE_RANGE_WRITE) == 0)
        return 0;
    return errno == ENOSYS || errno == EOPNOTSUPP ? 0 : errno;
}

/* For file systems without fallocate. Only what lies behind the end is written: bytes that are there belong to the caller. */
static int allocate_by_zeros(int fd, uint64_t offset, uint64_t size)
{
    static const char zeros[65536];
    struct stat st;
    if (fstat(fd, &st) != 0)
        return errno;
    uint64_t end = offset + size;
    uint64_t at = npk_max_u64(offset, (uint64_t)st.st_size);
    while (at < end) {
        ssize_t n = pwrite(fd, zeros, (size_t)npk_min_u64(end - at, sizeof zeros), (off_t)at);
        if (n <= 0)
            return n < 0 ? errno : EIO;
        at += (uint64_t)n;
    }
    return 0;
}

static int posix_allocate(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size)
{
    (void)io;
    if (offset > INT64_MAX || size > INT64_MAX - offset)
        return EFBIG;
    if (size == 0)
        return 0;
    /* All signals wait: some file systems undo an interrupted fallocate, and a profiling timer would undo it for ever. */
    npk_thread_hold_file_size_signal();
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, &before);
    int rc = fallocate(file->fd, 0, (off_t)offset, (off_t)size) == 0 ? 0 : errno;
    if (rc == EOPNOTSUPP || rc == ENOSYS)
        rc = allocate_by_zeros(file->fd, offset, size);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    npk_thread_release_file_size_signal(rc == EFBIG);
    return rc;
}

static void fill_info(const struct stat *st, npk_file_info *info)
{
    info->device = (uint64_t)st->st_dev;
    info->inode = (uint64_t)st->st_ino;
    info->size = (uint64_t)st->st_size;
    info->is_directory = S_ISDIR(st->st_mode);
    info->is_regular = S_ISREG(st->st_mode);
}

static int posix_info(const npk_io *io, npk_file *file, npk_file_info *info)
{
    (void)io;
    struct stat st;
    if (fstat(file->fd, &st) != 0)
        return errno;
    fill_info(&st, info);
    return 0;
}

static int posix_info_at(const npk_io *io, npk_file *directory, const char *name, npk_file_info *info)
{
    (void)io;
    if (!is_component(name))
        return EINVAL;
    struct stat st;
    if (fstatat(directory->fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno;
    fill_info(&st, info);
    return 0;
}

static int posix_make_directory(const npk_io *io, npk_file *directory, const char *name)
{
    (void)io;
    if (!is_component(name))
        return EINVAL;
    return mkdirat(directory->fd, name, 0777) == 0 ? 0 : errno;
}

static int posix_rename(const npk_io *io, npk_file *directory, const char *from, const char *to)
{
    (void)io;
    if (!is_component(from) || !is_component(to))
        return EINVAL;
    return renameat(directory->fd, from, directory->fd, to) == 0 ? 0 : errno;
}

static int posix_unlink(const npk_io *io, npk_file *directory, const char *name)
{
    (void)io;
    if (!is_component(name))
        return EINVAL;
    return unlinkat(directory->fd, name, 0) == 0 ? 0 : errno;
}

static int posix_remove_directory(const npk_io *io, npk_file *directory, const char *name)
{
    (void)io;
    if (!is_component(name))
        return EINVAL;
    return unlinkat(directory->fd, name, AT_REMOVEDIR) == 0 ? 0 : errno;
}

static int posix_list(const npk_io *io, npk_file *directory, int (*visit)(void *context, const char *name), void *context)
{
    (void)io;
    /* An open description of its own: the read position is shared by duplicates, and lists may run side by side. */
    int fd = open_retrying(directory->fd, ".", O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return errno;
    DIR *stream = fdopendir(fd);
    if (!stream) {
        int rc = errno;
        (void)close(fd);
        return rc;
    }
    int rc = 0;
    while (rc == 0) {
        errno = 0;
        const struct dirent *entry = readdir(stream);
        if (!entry) {
            rc = errno;
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            rc = visit(context, entry->d_name);
    }
    (void)closedir(stream);
    return rc;
}

/* false when the range cannot be locked: the system takes size 0 as "to the end", which nobody here means. */
static bool describe_lock(struct flock *lock, uint64_t offset, uint64_t size, npk_lock_kind kind)
{
    if (size == 0 || offset > INT64_MAX || size > INT64_MAX - offset)
        return false;
    memset(lock, 0, sizeof *lock); /* l_pid must be 0 for these locks */
    lock->l_whence = SEEK_SET;
    lock->l_start = (off_t)offset;
    lock->l_len = (off_t)size;
    lock->l_type = (short)(kind == NPK_LOCK_NONE ? F_UNLCK : kind == NPK_LOCK_SHARED ? F_RDLCK : F_WRLCK);
    return true;
}

static int posix_lock(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size, npk_lock_kind kind)
{
    (void)io;
    struct flock lock;
    if (!describe_lock(&lock, offset, size, kind))
        return EINVAL;
    if (fcntl(file->fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EACCES ? EAGAIN : errno; /* POSIX allows either for "somebody has it" */
}

static int posix_lock_test(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size, npk_lock_kind kind)
{
    (void)io;
    struct flock lock;
    if (!describe_lock(&lock, offset, size, kind))
        return EINVAL;
    if (kind == NPK_LOCK_NONE)
        return 0;
    if (fcntl(file->fd, F_OFD_GETLK, &lock) != 0)
        return errno == EACCES ? EAGAIN : errno;
    return lock.l_type == F_UNLCK ? 0 : EAGAIN;
}

static int posix_map(const npk_io *io, npk_file *file, uint64_t offset, size_t size, npk_map_kind kind, void **address)
{
    (void)io;
    if (offset > INT64_MAX)
        return EINVAL;
    int protection = kind == NPK_MAPPING_READ ? PROT_READ : PROT_READ | PROT_WRITE;
    int flags = kind == NPK_MAPPING_PRIVATE ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED;
    void *place = mmap(NULL, size, protection, flags, file->fd, (off_t)offset);
    if (place == MAP_FAILED)
        return errno;
    *address = place;
    return 0;
}

static void posix_unmap(const npk_io *io, void *address, size_t size)
{
    (void)io;
    if (address)
        (void)munmap(address, size);
}

static int posix_map_memory(const npk_io *io, size_t size, void **address)
{
    (void)io;
    if (size == 0)
        return EINVAL;
    /* A huge page needs an aligned place, which older kernels do not choose by themselves: map more and cut the ends off. */
    size_t spare = size >= HUGE_PAGE_SIZE ? HUGE_PAGE_SIZE : 0;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (size > SIZE_MAX - spare - page)
        return ENOMEM;
    size = (size + page - 1) & ~(page - 1);
    char *place = mmap(NULL, size + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED)
        return errno;
    if (spare) {
        size_t misfit = (uintptr_t)place % HUGE_PAGE_SIZE;
        size_t head = misfit ? HUGE_PAGE_SIZE - misfit : 0;
        if (head)
            (void)munmap(place, head);
        if (spare > head)
            (void)munmap(place + head + size, spare - head);
        place += head;
        (void)madvise(place, size, MADV_HUGEPAGE); /* advice: a kernel without huge pages refuses it */
    }
    *address = place;
    return 0;
}

static int posix_protect_read(const npk_io *io, void *address, size_t size)
{
    (void)io;
    return mprotect(address, size, PROT_READ) == 0 ? 0 : errno;
}

static uint64_t clock_us(clockid_t clock)
{
    struct timespec now = {0, 0};
    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t posix_now_us(const npk_io *io)
{
    (void)io;
    return clock_us(CLOCK_REALTIME);
}

static uint64_t posix_monotonic_us(const npk_io *io)
{
    (void)io;
    return clock_us(CLOCK_MONOTONIC);
}

static void posix_sleep_us(const npk_io *io, uint64_t us)
{
    (void)io;
    struct timespec pause = {(time_t)(us / 1000000), (long)(us % 1000000 * 1000)};
    /* A signal ends it early, so that a caller who waits for an interrupt notices. */
    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
}

static int posix_random(const npk_io *io, void *bytes, size_t size)
{
    (void)io;
    char *place = bytes;
    while (size) {
        ssize_t n = getrandom(place, size, 0);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return errno;
        }
        place += n;
        size -= (size_t)n;
    }
    return 0;
}

static void posix_process(const npk_io *io, npk_process *process)
{
    (void)io;
    memset(process, 0, sizeof *process);
    process->pid = (uint64_t)getpid();
    struct stat st;
    if (stat("/proc/self/ns/pid", &st) == 0)
        process->pid_namespace = (uint64_t)st.st_ino;
    if (gethostname(process->host, sizeof process->host - 1) != 0)
        process->host[0] = '\0';
    int fd = open_retrying(AT_FDCWD, "/proc/self/comm", O_RDONLY);
    if (fd < 0)
        return;
    ssize_t n = read(fd, process->program, sizeof process->program - 1);
    (void)close(fd);
    if (n < 0)
        n = 0;
    process->program[n] = '\0';
    process->program[strcspn(process->program, "\n")] = '\0';
}

static bool posix_is_network(const npk_io *io, npk_file *directory)
{
    (void)io;
    /* Where other hosts, or a server we know nothing about, may write behind our locks. From linux/magic.h and the headers of
     * file systems outside the kernel. */
    static const uint32_t magics[] = {
        0x00006969, /* NFS */
        0x0000517B, /* SMB */
        0xFF534D42, /* CIFS */
        0xFE534D42, /* SMB2 */
        0x65735546, /* FUSE, virtiofs */
        0x01021997, /* 9p */
        0x5346414F, /* OpenAFS */
        0x6B414653, /* kAFS */
        0x00C36400, /* Ceph */
        0x73757245, /* Coda */
        0x0000564C, /* NCP */
        0x7461636F, /* OCFS2 */
        0x01161970, /* GFS2 */
        0x0BD00BD0, /* Lustre */
        0x47504653, /* GPFS */
        0x20030528, /* OrangeFS */
        0x19830326, /* BeeGFS */
        0x786F4256, /* VirtualBox shared folders */
        0xBACBACBC, /* VMware shared folders */
        0x7C7C6673, /* Parallels shared folders */
    };
    struct statfs fs;
    if (fstatfs(directory->fd, &fs) != 0)
        return false;
    for (size_t i = 0; i < sizeof magics / sizeof magics[0]; i++)
        if ((uint32_t)fs.f_type == magics[i])
            return true;
    return false;
}

static int posix_real_path(const npk_io *io, npk_file *directory, char *path, size_t size)
{
    (void)io;
    /* Valid while directory is open, wherever it is moved meanwhile. */
    int n = snprintf(path, size, "/proc/self/fd/%d", directory->fd);
    return n > 0 && (size_t)n < size ? 0 : ERANGE;
}

const npk_io *npk_io_posix(void)
{
    static const npk_io posix = {
        .name = "posix",
        .open_root = posix_open_root,
        .sync_parent = posix_sync_parent,
        .open = posix_open,
        .close = posix_close,
        .read = posix_read,
        .write = posix_write,
        .sync = posix_sync,
        .start_writeback = posix_start_writeback,
        .allocate = posix_allocate,
        .info = posix_info,
        .info_at = posix_info_at,
        .make_directory = posix_make_directory,
        .rename = posix_rename,
        .unlink = posix_unlink,
        .remove_directory = posix_remove_directory,
        .list = posix_list,
        .lock = posix_lock,
        .lock_test = posix_lock_test,
        .map = posix_map,
        .unmap = posix_unmap,
        .map_memory = posix_map_memory,
        .protect_read = posix_protect_read,
        .now_us = posix_now_us,
        .monotonic_us = posix_monotonic_us,
        .sleep_us = posix_sleep_us,
        .random = posix_random,
        .process = posix_process,
        .is_network = posix_is_network,
        .real_path = posix_real_path,
    };
    return &posix;
}
