/* fault_io.c - makes chosen calls of another system table fail. */
#include "fault_io.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "memory_disk.h"

struct fault_io {
    npk_io table; /* first: the table's functions cast back */
    const npk_io *inner;
    pthread_mutex_t mutex; /* guards what follows */
    fault_plan plan;
    bool is_planned;
    uint64_t matched, fired;
    uint64_t counts[IO_CALL_COUNT];
    void (*hook)(void *context, io_call_kind kind, uint64_t index);
    void *hook_context;
};

/* close, unmap and the clocks cannot fail. */
#define FALLIBLE (~(IO_CALL_BIT(CLOSE) | IO_CALL_BIT(UNMAP)))

static fault_io *fault_of(const npk_io *io)
{
    return (fault_io *)(uintptr_t)io; /* the table is the first member, and was not const */
}

typedef enum verdict { PASS, CUT, FAIL } verdict;

static verdict judge_planned(const fault_io *fault, uint64_t index)
{
    const fault_plan *plan = &fault->plan;
    if (index < plan->index)
        return PASS;
    uint64_t since = index - plan->index;
    if (plan->effect == FAULT_SHORT_THEN_ERRNO) {
        if (since == 0)
            return CUT;
        return since == 1 || plan->forever ? FAIL : PASS;
    }
    if (since && !plan->forever)
        return PASS;
    if (plan->effect == FAULT_SHORT)
        return CUT;
    return plan->sys_errno == EINTR && since % 2 ? PASS : FAIL;
}

/* Count the call and say what becomes of it; *rc is what a failing one returns. */
static verdict judge(fault_io *fault, io_call_kind kind, int *rc)
{
    (void)pthread_mutex_lock(&fault->mutex);
    fault->counts[kind]++;
    verdict v = PASS;
    uint64_t index = 0;
    uint32_t kinds = fault->plan.kinds ? fault->plan.kinds : FALLIBLE;
    if (fault->is_planned && (kinds & FALLIBLE & (UINT32_C(1) << kind))) {
        index = fault->matched++;
        v = judge_planned(fault, index);
        if (v == CUT && kind != IO_CALL_READ && kind != IO_CALL_WRITE)
            v = PASS;
        if (v != PASS)
            fault->fired++;
    }
    *rc = fault->plan.sys_errno;
    void (*hook)(void *context, io_call_kind kind, uint64_t index) = fault->hook;
    void *context = fault->hook_context;
    (void)pthread_mutex_unlock(&fault->mutex);
    if (v != PASS && hook)
        hook(context, kind, index);
    return v;
}

/* One wrapper each: pass the call on unless its kind fails now. */
#define WRAP(kind, function, parameters, ...)                                                                               \
    static int fault_##function parameters                                                                                  \
    {                                                                                                                       \
        fault_io *fault = fault_of(io);                                                                                     \
        int rc;                                                                                                             \
        if (judge(fault, IO_CALL_##kind, &rc) == FAIL)                                                                      \
            return rc;                                                                                                      \
        return fault->inner->function(fault->inner, __VA_ARGS__);                                                           \
    }

WRAP(OPEN_ROOT, open_root, (const npk_io *io, const char *path, bool create, npk_file **directory, bool *created),
     path, create, directory, created)
WRAP(SYNC_PARENT, sync_parent, (const npk_io *io, npk_file *root, const char *path), root, path)
WRAP(OPEN, open, (const npk_io *io, npk_file *directory, const char *name, unsigned flags, npk_file **file),
     directory, name, flags, file)
WRAP(START_WRITEBACK, start_writeback, (const npk_io *io, npk_file *file, uint64_t offset, uint64_t size), file, offset, size)
WRAP(ALLOCATE, allocate, (const npk_io *io, npk_file *file, uint64_t offset, uint64_t size), file, offset, size)
WRAP(INFO, info, (const npk_io *io, npk_file *file, npk_file_info *info), file, info)
WRAP(INFO_AT, info_at, (const npk_io *io, npk_file *directory, const char *name, npk_file_info *info), directory, name, info)
WRAP(MAKE_DIRECTORY, make_directory, (const npk_io *io, npk_file *directory, const char *name), directory, name)
WRAP(RENAME, rename, (const npk_io *io, npk_file *directory, const char *from, const char *to), directory, from, to)
WRAP(UNLINK, unlink, (const npk_io *io, npk_file *directory, const char *name), directory, name)
WRAP(REMOVE_DIRECTORY, remove_directory, (const npk_io *io, npk_file *directory, const char *name), directory, name)
WRAP(LIST, list, (const npk_io *io, npk_file *directory, int (*visit)(void *context, const char *name), void *context),
     directory, visit, context)
WRAP(LOCK, lock, (const npk_io *io, npk_file *file, uint64_t offset, uint64_t size, npk_lock_kind kind),
     file, offset, size, kind)
WRAP(LOCK_TEST, lock_test, (const npk_io *io, npk_file *file, uint64_t offset, uint64_t size, npk_lock_kind kind),
     file, offset, size, kind)
WRAP(MAP, map, (const npk_io *io, npk_file *file, uint64_t offset, size_t size, npk_map_kind kind, void **address),
     file, offset, size, kind, address)
WRAP(MAP_MEMORY, map_memory, (const npk_io *io, size_t size, void **address), size, address)
WRAP(PROTECT_READ, protect_read, (const npk_io *io, void *address, size_t size), address, size)
WRAP(RANDOM, random, (const npk_io *io, void *bytes, size_t size), bytes, size)
WRAP(REAL_PATH, real_path, (const npk_io *io, npk_file *directory, char *path, size_t size), directory, path, size)

static size_t half(size_t size)
{
    return size > 1 ? size / 2 : size;
}

static int fault_read(const npk_io *io, npk_file *file, uint64_t offset, void *bytes, size_t size, size_t *done)
{
    fault_io *fault = fault_of(io);
    int rc;
    verdict v = judge(fault, IO_CALL_READ, &rc);
    if (v == FAIL)
        return rc;
    return fault->inner->read(fault->inner, file, offset, bytes, v == CUT ? half(size) : size, done);
}

static int fault_write(const npk_io *io, npk_file *file, uint64_t offset, const void *bytes, size_t size, size_t *done)
{
    fault_io *fault = fault_of(io);
    int rc;
    verdict v = judge(fault, IO_CALL_WRITE, &rc);
    if (v == FAIL)
        return rc;
    return fault->inner->write(fault->inner, file, offset, bytes, v == CUT ? half(size) : size, done);
}

static int fault_sync(const npk_io *io, npk_file *file)
{
    fault_io *fault = fault_of(io);
    int rc;
    if (judge(fault, IO_CALL_SYNC, &rc) != FAIL)
        return fault->inner->sync(fault->inner, file);
    if (fault->plan.memory && rc != EINTR)
        memory_io_fail_sync(fault->plan.memory, file, fault->plan.sync_failure);
    return rc;
}

static void fault_close(const npk_io *io, npk_file *file)
{
    fault_io *fault = fault_of(io);
    int rc;
    (void)judge(fault, IO_CALL_CLOSE, &rc);
    fault->inner->close(fault->inner, file);
}

static void fault_unmap(const npk_io *io, void *address, size_t size)
{
    fault_io *fault = fault_of(io);
    int rc;
    (void)judge(fault, IO_CALL_UNMAP, &rc);
    fault->inner->unmap(fault->inner, address, size);
}

static uint64_t fault_now_us(const npk_io *io)
{
    const npk_io *inner = fault_of(io)->inner;
    return inner->now_us(inner);
}

static uint64_t fault_monotonic_us(const npk_io *io)
{
    const npk_io *inner = fault_of(io)->inner;
    return inner->monotonic_us(inner);
}

static void fault_sleep_us(const npk_io *io, uint64_t us)
{
    const npk_io *inner = fault_of(io)->inner;
    inner->sleep_us(inner, us);
}

static void fault_process(const npk_io *io, npk_process *process)
{
    const npk_io *inner = fault_of(io)->inner;
    inner->process(inner, process);
}

static bool fault_is_network(const npk_io *io, npk_file *directory)
{
    const npk_io *inner = fault_of(io)->inner;
    return inner->is_network(inner, directory);
}

static const npk_io fault_functions = {
    .name = "faulting",
    .open_root = fault_open_root,
    .sync_parent = fault_sync_parent,
    .open = fault_open,
    .close = fault_close,
    .read = fault_read,
    .write = fault_write,
    .sync = fault_sync,
    .start_writeback = fault_start_writeback,
    .allocate = fault_allocate,
    .info = fault_info,
    .info_at = fault_info_at,
    .make_directory = fault_make_directory,
    .rename = fault_rename,
    .unlink = fault_unlink,
    .remove_directory = fault_remove_directory,
    .list = fault_list,
    .lock = fault_lock,
    .lock_test = fault_lock_test,
    .map = fault_map,
    .unmap = fault_unmap,
    .map_memory = fault_map_memory,
    .protect_read = fault_protect_read,
    .now_us = fault_now_us,
    .monotonic_us = fault_monotonic_us,
    .sleep_us = fault_sleep_us,
    .random = fault_random,
    .process = fault_process,
    .is_network = fault_is_network,
    .real_path = fault_real_path,
};

fault_io *fault_io_create(const npk_io *inner)
{
    fault_io *fault = memory_alloc(sizeof *fault);
    fault->table = fault_functions;
    fault->inner = inner;
    (void)pthread_mutex_init(&fault->mutex, NULL);
    return fault;
}

void fault_io_destroy(fault_io *fault)
{
    if (!fault)
        return;
    (void)pthread_mutex_destroy(&fault->mutex);
    free(fault);
}

const npk_io *fault_io_table(fault_io *fault)
{
    return &fault->table;
}

void fault_io_plan(fault_io *fault, const fault_plan *plan)
{
    (void)pthread_mutex_lock(&fault->mutex);
    fault->is_planned = plan != NULL;
    fault->plan = plan ? *plan : (fault_plan){0};
    fault->matched = fault->fired = 0;
    for (size_t i = 0; i < IO_CALL_COUNT; i++)
        fault->counts[i] = 0;
    (void)pthread_mutex_unlock(&fault->mutex);
}

static uint64_t look(fault_io *fault, const uint64_t *number)
{
    (void)pthread_mutex_lock(&fault->mutex);
    uint64_t value = *number;
    (void)pthread_mutex_unlock(&fault->mutex);
    return value;
}

uint64_t fault_io_fired(fault_io *fault)
{
    return look(fault, &fault->fired);
}

uint64_t fault_io_matched(fault_io *fault)
{
    return look(fault, &fault->matched);
}

uint64_t fault_io_count(fault_io *fault, io_call_kind kind)
{
    return look(fault, &fault->counts[kind]);
}

void fault_io_set_hook(fault_io *fault, void (*hook)(void *context, io_call_kind kind, uint64_t index), void *context)
{
    (void)pthread_mutex_lock(&fault->mutex);
    fault->hook = hook;
    fault->hook_context = context;
    (void)pthread_mutex_unlock(&fault->mutex);
}
