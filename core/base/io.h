/* io.h - the one door to the operating system.
 *
 * Every open, read, write, sync, rename, unlink, directory sync, lock, map, clock and random number of the library goes
 * through this table. npk_io_posix() is the only implementation that calls the system (io_posix.c; a test reads the
 * undefined symbols of all other objects). tests/lib has the others: in-memory crashable, recording, faulting.
 *
 * Conventions: a function returns 0 or a positive errno value. Offsets and sizes are bytes. An npk_file is an open file or
 * directory; its layout belongs to the implementation. Names are single path components relative to an open directory,
 * except for open_root, whose path is the user's own and may lead through links. Nothing else follows symbolic links; only
 * regular files and directories are opened (a FIFO, socket or device: EINVAL; a link: ELOOP).
 *
 * Rules the callers keep: a sync is never retried; files are never truncated; LOCK order is in core/README.md.
 */
#ifndef NPK_BASE_IO_H
#define NPK_BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "npk.h"

typedef struct npk_io npk_io;
typedef struct npk_file npk_file;

typedef enum npk_open_flags {
    NPK_OPEN_READ = 1,       /* read only */
    NPK_OPEN_WRITE = 2,      /* read and write */
    NPK_OPEN_CREATE = 4,     /* create when absent (with WRITE) */
    NPK_OPEN_EXCLUSIVE = 8,  /* with CREATE: EEXIST when the name is there */
    NPK_OPEN_DIRECTORY = 16  /* a directory; ENOTDIR otherwise */
} npk_open_flags;

typedef enum npk_lock_kind { NPK_LOCK_NONE, NPK_LOCK_SHARED, NPK_LOCK_EXCLUSIVE } npk_lock_kind;

typedef enum npk_map_kind {
    NPK_MAPPING_READ,    /* shared, read-only */
    NPK_MAPPING_PRIVATE, /* copy-on-write, writable, no swap reserved */
    NPK_MAPPING_SHARED   /* shared, writable: the control page only */
} npk_map_kind;

typedef struct npk_file_info {
    uint64_t device, inode, size;
    bool is_directory, is_regular;
} npk_file_info;

typedef struct npk_process {
    uint64_t pid;
    uint64_t pid_namespace; /* inode of the PID namespace, 0: unknown */
    char host[64];
    char program[64];
} npk_process;

struct npk_io {
    const char *name; /* "posix", "memory", "faulting" */

    /* Open the directory at path (absolute or relative to the working directory). create: mkdir the last component first when
     * it is absent and set *created. ENOENT, ENOTDIR (a regular file), EEXIST never. */
    int (*open_root)(const npk_io *io, const char *path, bool create, npk_file **directory, bool *created);
    /* Sync the directory that holds the root's own name (after creating it). */
    int (*sync_parent)(const npk_io *io, npk_file *root, const char *path);
    int (*open)(const npk_io *io, npk_file *directory, const char *name, unsigned flags, npk_file **file);
    void (*close)(const npk_io *io, npk_file *file); /* accepts NULL */

    /* One attempt: *done may be short; 0 with *done == 0 from read means end of file; EINTR possible. Use the loops below. */
    int (*read)(const npk_io *io, npk_file *file, uint64_t offset, void *bytes, size_t size, size_t *done);
    int (*write)(const npk_io *io, npk_file *file, uint64_t offset, const void *bytes, size_t size, size_t *done);
    int (*sync)(const npk_io *io, npk_file *file);           /* fdatasync; for a directory fsync. Never retried */
    int (*start_writeback)(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size); /* a hint; never durable */
    int (*allocate)(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size);        /* fallocate, size grows */

    int (*info)(const npk_io *io, npk_file *file, npk_file_info *info);
    int (*info_at)(const npk_io *io, npk_file *directory, const char *name, npk_file_info *info); /* no link followed */
    int (*make_directory)(const npk_io *io, npk_file *directory, const char *name);
    int (*rename)(const npk_io *io, npk_file *directory, const char *from, const char *to); /* replaces to */
    int (*unlink)(const npk_io *io, npk_file *directory, const char *name);
    int (*remove_directory)(const npk_io *io, npk_file *directory, const char *name);
    /* visit gets each name but "." and ".."; non-zero stops and is returned. Names created meanwhile may be missed. */
    int (*list)(const npk_io *io, npk_file *directory, int (*visit)(void *context, const char *name), void *context);

    /* Open-file-description lock on bytes offset .. offset + size; converts atomically; EAGAIN when another description is in
     * the way (never waits). NONE unlocks. Owned by the open file: two npk_file of one process exclude each other. */
    int (*lock)(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size, npk_lock_kind kind);
    /* Would lock(kind) succeed? 0 or EAGAIN; takes nothing. */
    int (*lock_test)(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size, npk_lock_kind kind);

    int (*map)(const npk_io *io, npk_file *file, uint64_t offset, size_t size, npk_map_kind kind, void **address);
    void (*unmap)(const npk_io *io, void *address, size_t size);
    /* Anonymous private memory in whole pages, advised for huge pages. */
    int (*map_memory)(const npk_io *io, size_t size, void **address);
    int (*protect_read)(const npk_io *io, void *address, size_t size); /* make pages read-only */

    uint64_t (*now_us)(const npk_io *io);       /* real time since 1970; may jump */
    uint64_t (*monotonic_us)(const npk_io *io); /* never goes back */
    void (*sleep_us)(const npk_io *io, uint64_t us);
    int (*random)(const npk_io *io, void *bytes, size_t size);
    void (*process)(const npk_io *io, npk_process *process);
    bool (*is_network)(const npk_io *io, npk_file *directory); /* NFS, SMB, FUSE and the like */
    /* A path under which other libraries can open files inside directory (LMDB); size is that of path. */
    int (*real_path)(const npk_io *io, npk_file *directory, char *path, size_t size);
};

const npk_io *npk_io_posix(void);

/* Loops over short results and EINTR. read_full: EIO-free end of file is reported by *done < size when done is not NULL, else
 * as CORRUPT. The file name is for the message. */
npk_status npk_io_read_full(const npk_io *io, npk_file *file, uint64_t offset, void *bytes, size_t size, size_t *done,
                            const char *name, npk_error *err);
npk_status npk_io_write_full(const npk_io *io, npk_file *file, uint64_t offset, const void *bytes, size_t size,
                             const char *name, npk_error *err);
/* "Replace = temp file, write, sync, rename, sync directory": durable when it returns OK; on error the old file stays and the
 * temporary name is removed. temp_name must not exist. */
npk_status npk_io_replace_file(const npk_io *io, npk_file *directory, const char *temp_name, const char *name,
                               const void *bytes, size_t size, npk_error *err);

#endif
