/* memory_io.c - the table over the crashable disk, its clock and process, creating and watching it. */
#include "memory_io.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "memory_calls.h"

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
    memory_enter(memory, IO_CALL_RANDOM);
    rng_fill(&memory->random, bytes, size);
    return memory_leave(memory, 0);
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
    const npk_io *posix = memory_forward(memory_of(io), IO_CALL_REAL_PATH);
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
    return memory;
}

memory_io *memory_io_create(const memory_io_options *options)
{
    memory_io *memory = memory_io_create_bare(options);
    (void)memory_inode_add(memory, TOP_INODE, true);
    npk_io_posix()->process(npk_io_posix(), &memory->process);
    return memory;
}

void memory_io_destroy(memory_io *memory)
{
    if (!memory)
        return;
    while (memory->open_files)
        memory_handle_drop(memory, memory->open_files);
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
