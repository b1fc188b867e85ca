/* memory_calls.h - what the calls of the crashable disk share; internal to tests/lib/memory_*.c. */
#ifndef NPK_TESTS_MEMORY_CALLS_H
#define NPK_TESTS_MEMORY_CALLS_H

#include "memory_disk.h"

struct npk_file {
    memory_io *memory;
    memory_inode *inode; /* NULL: real */
    npk_file *real;      /* a file of npk_io_posix() below an index */
    bool is_writable;
    npk_file *previous, *next; /* in open_files */
};

/* memory_calls.c. Those marked "held" want the mutex, which memory_enter takes (it
 * also counts the call) and memory_leave gives back, passing the result through. */
memory_io *memory_of(const npk_io *io);
void memory_enter(memory_io *memory, io_call_kind kind);
int memory_leave(memory_io *memory, int result);
const npk_io *memory_forward(memory_io *memory, io_call_kind kind);
void memory_report(memory_io *memory, memory_io_call *call, bool is_after, int result);
memory_io_call memory_begin_call(memory_io *memory, io_call_kind kind, const npk_file *file, const char *name);
int memory_end_call(memory_io *memory, memory_io_call *call, int result);
npk_file *memory_handle_add(memory_io *memory, memory_inode *inode, npk_file *real, bool is_writable); /* held */
void memory_handle_drop(memory_io *memory, npk_file *file); /* held */
bool memory_is_component(const char *name);
bool memory_is_root(const memory_io *memory, const memory_inode *directory); /* held */
memory_inode *memory_look_up(const memory_io *memory, const memory_inode *directory, const char *name); /* held */
void memory_change_name(memory_io *memory, memory_inode *directory, memory_record_kind kind, uint64_t inode,
                        const char *from, const char *to); /* held */
memory_inode *memory_make_inode(memory_io *memory, memory_inode *directory, const char *name, bool is_directory); /* held */
int memory_sync_names(memory_io *memory, memory_inode *directory); /* held */

/* memory_names.c, the table: names. */
int memory_open_root(const npk_io *io, const char *path, bool create, npk_file **directory, bool *created);
int memory_sync_parent(const npk_io *io, npk_file *root, const char *path);
int memory_open(const npk_io *io, npk_file *directory, const char *name, unsigned flags, npk_file **file);
void memory_close(const npk_io *io, npk_file *file);
int memory_info(const npk_io *io, npk_file *file, npk_file_info *info);
int memory_info_at(const npk_io *io, npk_file *directory, const char *name, npk_file_info *info);
int memory_make_directory(const npk_io *io, npk_file *directory, const char *name);
int memory_rename(const npk_io *io, npk_file *directory, const char *from, const char *to);
int memory_unlink(const npk_io *io, npk_file *directory, const char *name);
int memory_remove_directory(const npk_io *io, npk_file *directory, const char *name);
int memory_list(const npk_io *io, npk_file *directory, int (*visit)(void *context, const char *name), void *context);

/* memory_bytes.c, the table: bytes. */
int memory_read(const npk_io *io, npk_file *file, uint64_t offset, void *bytes, size_t size, size_t *done);
int memory_write(const npk_io *io, npk_file *file, uint64_t offset, const void *bytes, size_t size, size_t *done);
int memory_sync(const npk_io *io, npk_file *file);
int memory_start_writeback(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size);
int memory_allocate(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size);

/* memory_maps.c, the table: locks and maps. */
int memory_lock_call(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size, npk_lock_kind kind);
int memory_lock_test(const npk_io *io, npk_file *file, uint64_t offset, uint64_t size, npk_lock_kind kind);
int memory_map(const npk_io *io, npk_file *file, uint64_t offset, size_t size, npk_map_kind kind, void **address);
void memory_unmap(const npk_io *io, void *address, size_t size);
int memory_map_memory(const npk_io *io, size_t size, void **address);
int memory_protect_read(const npk_io *io, void *address, size_t size);

#endif
