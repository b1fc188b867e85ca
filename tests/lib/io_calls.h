/* io_calls.h - one number for each function of the system table, shared by the implementations for tests. */
#ifndef NPK_TESTS_IO_CALLS_H
#define NPK_TESTS_IO_CALLS_H

#include <stdint.h>

#define IO_CALL_MAP(X)                                                                                                      \
    X(OPEN_ROOT, "open_root")                                                                                               \
    X(SYNC_PARENT, "sync_parent")                                                                                           \
    X(OPEN, "open")                                                                                                         \
    X(CLOSE, "close")                                                                                                       \
    X(READ, "read")                                                                                                         \
    X(WRITE, "write")                                                                                                       \
    X(SYNC, "sync")                                                                                                         \
    X(START_WRITEBACK, "start_writeback")                                                                                   \
    X(ALLOCATE, "allocate")                                                                                                 \
    X(INFO, "info")                                                                                                         \
    X(INFO_AT, "info_at")                                                                                                   \
    X(MAKE_DIRECTORY, "make_directory")                                                                                     \
    X(RENAME, "rename")                                                                                                     \
    X(UNLINK, "unlink")                                                                                                     \
    X(REMOVE_DIRECTORY, "remove_directory")                                                                                 \
    X(LIST, "list")                                                                                                         \
    X(LOCK, "lock")                                                                                                         \
    X(LOCK_TEST, "lock_test")                                                                                               \
    X(MAP, "map")                                                                                                           \
    X(UNMAP, "unmap")                                                                                                       \
    X(MAP_MEMORY, "map_memory")                                                                                             \
    X(PROTECT_READ, "protect_read")                                                                                         \
    X(RANDOM, "random")                                                                                                     \
    X(REAL_PATH, "real_path")

typedef enum io_call_kind {
#define IO_X(name, text) IO_CALL_##name,
    IO_CALL_MAP(IO_X)
#undef IO_X
        IO_CALL_COUNT
} io_call_kind;

const char *io_call_name(io_call_kind kind); /* "write" */

#define IO_CALL_BIT(name) (UINT32_C(1) << IO_CALL_##name)

#endif
