/* test_index.c - the LMDB index: growth, other processes, readers, failures; and the shared page. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "alloc.h"
#include "bytes.h"
#include "control.h"
#include "index.h"
#include "thread.h"

#define NAME "00000000000000a1"
#define MIB ((size_t)1 << 20)

enum { READER_COUNT_LIMIT = 2000 };

static char path[64];
static npk_file *directory;
static const npk_io *io;
static npk_io faulty; /* a copy of the table */

static void set_up(void)
{
    io = npk_io_posix();
    snprintf(path, sizeof path, "/tmp/npk-test-index-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(path));
    ck_assert_int_eq(io->open_root(io, path, false, &directory, NULL), 0);
}

static void tear_down(void)
{
    npk_file *inner;
    if (io->open(io, directory, NAME, NPK_OPEN_DIRECTORY, &inner) == 0) {
        (void)io->unlink(io, inner, "data.mdb");
        (void)io->unlink(io, inner, "lock.mdb");
        io->close(io, inner);
        (void)io->remove_directory(io, directory, NAME);
    }
    (void)io->unlink(io, directory, "control");
    io->close(io, directory);
    ck_assert_int_eq(remove(path), 0);
}

static npk_index *open_index(const npk_io *through, bool create, uint64_t map_size)
{
    npk_error err = {0};
    npk_index *index = NULL;
    npk_status status = npk_index_open(through, directory, NAME, create, map_size, &index, &err);
    if (status != NPK_OK)
        fprintf(stderr, "%s\n", err.message);
    return status == NPK_OK ? index : NULL;
}

static npk_status put_with(npk_index *index, uint64_t number, size_t size, bool reserve, npk_error *err)
{
    npk_kv *kv;
    npk_status status = npk_kv_open(index, &kv, err);
    if (status != NPK_OK)
        return status;
    uint8_t key[8];
    npk_put_be64(key, number);
    uint8_t *value = malloc(size + 1);
    memset(value, (int)number, size);
    status = npk_kv_put(kv, NPK_TABLE_ATTRS, key, sizeof key, value, size, err);
    free(value);
    if (status == NPK_OK && reserve)
        status = npk_index_reserve(index, npk_kv_change_count(kv), npk_kv_change_size(kv), err);
    if (status == NPK_OK)
        status = npk_index_publish(index, kv, NULL, err);
    npk_kv_close(kv);
    return status;
}

static npk_status put(npk_index *index, uint64_t number, size_t size, npk_error *err)
{
    return put_with(index, number, size, true, err);
}

/* Is number there, with size bytes? Usable in children, where nothing may be asserted. */
static bool has(npk_index *index, uint64_t number, size_t size)
{
    npk_index_reader *reader;
    if (npk_index_begin(index, &reader, NULL) != NPK_OK)
        return false;
    uint8_t key[8];
    npk_put_be64(key, number);
    const uint8_t *value = NULL;
    size_t value_size = 0;
    bool found = false;
    bool good = npk_index_get(reader, NPK_TABLE_ATTRS, key, sizeof key, &value, &value_size, &found, NULL) == NPK_OK
                && found && value_size == size && (size == 0 || (value[0] == (uint8_t)number && value[size - 1] == (uint8_t)number));
    npk_index_end(reader);
    return good;
}

/* ---- a child that takes turns with its parent --------------------------------------------------------------------------- */

typedef struct pair {
    pid_t pid; /* 0 in the child */
    int in, out;
} pair;

static pair fork_pair(void)
{
    int down[2], up[2];
    ck_assert_int_eq(pipe(down), 0);
    ck_assert_int_eq(pipe(up), 0);
    pair p;
    p.pid = fork();
    ck_assert_int_ge(p.pid, 0);
    p.in = p.pid ? up[0] : down[0];
    p.out = p.pid ? down[1] : up[1];
    (void)close(p.pid ? down[0] : down[1]);
    (void)close(p.pid ? up[1] : up[0]);
    return p;
}

static void give_turn(const pair *p)
{
    char byte = 1;
    if (write(p->out, &byte, 1) != 1)
        abort();
}

static bool await_turn(const pair *p)
{
    char byte;
    return read(p->in, &byte, 1) == 1;
}

static void child_needs(bool condition, int line)
{
    if (condition)
        return;
    fprintf(stderr, "child: not true in line %d\n", line);
    _exit(1);
}
#define CHILD_NEEDS(condition) child_needs(condition, __LINE__)

static void check_child(pair *p)
{
    int status;
    ck_assert_int_eq(waitpid(p->pid, &status, 0), p->pid);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    (void)close(p->in);
    (void)close(p->out);
}

/* ---- tests -------------------------------------------------------------------------------------------------------------- */

START_TEST(entries_survive_closing_and_opening)
{
    npk_error err = {0};
    npk_index *index = open_index(io, true, 0);
    ck_assert_ptr_nonnull(index);
    ck_assert_int_eq(put(index, 1, 10, &err), NPK_OK);
    ck_assert_int_eq(put(index, 2, 0, &err), NPK_OK);
    npk_index_close(index);
    index = open_index(io, false, 0);
    ck_assert_ptr_nonnull(index);
    ck_assert(has(index, 1, 10));
    ck_assert(has(index, 2, 0));
    ck_assert(!has(index, 3, 10));
    npk_index_close(index);
    npk_index_close(NULL);
}
END_TEST

START_TEST(opening_what_is_not_there_is_corrupt_and_creating_twice_fails)
{
    npk_error err = {0};
    npk_index *index;
    ck_assert_int_eq(npk_index_open(io, directory, NAME, false, 0, &index, &err), NPK_CORRUPT);
    index = open_index(io, true, 0);
    ck_assert_ptr_nonnull(index);
    npk_index *second;
    ck_assert_int_ne(npk_index_open(io, directory, NAME, true, 0, &second, &err), NPK_OK);
    npk_index_close(index);
}
END_TEST

START_TEST(a_small_map_grows)
{
    npk_error err = {0};
    npk_index *index = open_index(io, true, MIB);
    ck_assert_ptr_nonnull(index);
    for (uint64_t i = 0; i < 50; i++)
        ck_assert_msg(put(index, i, MIB, &err) == NPK_OK, "%s", err.message);
    for (uint64_t i = 0; i < 50; i++)
        ck_assert(has(index, i, MIB));
    uint64_t used, file;
    npk_index_sizes(index, &used, &file);
    ck_assert_uint_ge(used, 50 * MIB);
    ck_assert_uint_ge(file, used);
    npk_index_close(index);
}
END_TEST

START_TEST(publishing_without_reserving_grows_the_map_too)
{
    npk_error err = {0};
    npk_index *index = open_index(io, true, MIB);
    npk_kv *kv;
    ck_assert_int_eq(npk_kv_open(index, &kv, &err), NPK_OK);
    static uint8_t value[MIB];
    for (uint64_t i = 0; i < 50; i++) {
        uint8_t key[8];
        npk_put_be64(key, i);
        memset(value, (int)i, sizeof value);
        ck_assert_int_eq(npk_kv_put(kv, NPK_TABLE_ATTRS, key, sizeof key, value, sizeof value, &err), NPK_OK);
    }
    ck_assert_msg(npk_index_publish(index, kv, NULL, &err) == NPK_OK, "%s", err.message);
    for (uint64_t i = 0; i < 50; i++)
        ck_assert(has(index, i, MIB));
    npk_kv_close(kv);
    npk_index_close(index);
}
END_TEST

START_TEST(what_was_reserved_is_enough_for_the_publish)
{
    npk_error err = {0};
    npk_index *index = open_index(io, true, MIB);
    npk_index_reader *reader; /* holds every page: nothing freed is used again */
    uint64_t random = 1;
    for (unsigned round = 0; round < 60; round++) {
        npk_kv *kv;
        ck_assert_int_eq(npk_kv_open(index, &kv, &err), NPK_OK);
        unsigned count = round % 3 == 0 ? 1 : round % 3 == 1 ? 50 : 2000;
        static uint8_t value[8000];
        for (unsigned i = 0; i < count; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            uint8_t key[17] = {0};
            npk_put_be64(key + 9, random >> 40);
            size_t size = round % 5 == 0 ? (random >> 20) % 2100 : round % 5 == 1 ? (random >> 20) % 8000 : 45;
            ck_assert_int_eq(npk_kv_put(kv, NPK_TABLE_ROWS, key, sizeof key, value, size, &err), NPK_OK);
            npk_put_be64(key, random >> 50);
            ck_assert_int_eq(npk_kv_put(kv, NPK_TABLE_PLACES, key, 9, value, 48, &err), NPK_OK);
        }
        ck_assert_msg(npk_index_reserve(index, npk_kv_change_count(kv), npk_kv_change_size(kv), &err) == NPK_OK, "%s",
                      err.message);
        ck_assert_int_eq(npk_index_begin(index, &reader, &err), NPK_OK); /* growing now would have to wait */
        uint64_t used, before, after;
        npk_index_sizes(index, &used, &before);
        ck_assert_msg(npk_index_publish(index, kv, NULL, &err) == NPK_OK, "%s", err.message);
        npk_index_sizes(index, &used, &after);
        ck_assert_uint_eq(before, after);
        ck_assert_uint_le(used, after);
        npk_index_end(reader);
        npk_kv_close(kv);
    }
    npk_index_close(index);
}
END_TEST

START_TEST(another_process_sees_the_grown_map_and_grows_it_further)
{
    npk_error err = {0};
    pair p = fork_pair();
    if (p.pid == 0) {
        CHILD_NEEDS(await_turn(&p));
        npk_index *index = open_index(io, false, 0);
        CHILD_NEEDS(index && has(index, 1, 100));
        give_turn(&p);
        CHILD_NEEDS(await_turn(&p));
        CHILD_NEEDS(has(index, 9, MIB)); /* a reader beyond the map */
        give_turn(&p);
        CHILD_NEEDS(await_turn(&p));
        CHILD_NEEDS(put_with(index, 100, 100, false, NULL) == NPK_OK); /* a writer beyond the map */
        for (uint64_t i = 101; i < 200; i++)
            CHILD_NEEDS(put(index, i, MIB, NULL) == NPK_OK);
        give_turn(&p);
        npk_index_close(index);
        _exit(0);
    }
    npk_index *index = open_index(io, true, MIB);
    ck_assert_int_eq(put(index, 1, 100, &err), NPK_OK);
    give_turn(&p);
    ck_assert(await_turn(&p));
    for (uint64_t i = 2; i < 50; i++)
        ck_assert_msg(put(index, i, MIB, &err) == NPK_OK, "%s", err.message);
    give_turn(&p);
    ck_assert(await_turn(&p));
    for (uint64_t i = 50; i < 100; i++)
        ck_assert_msg(put(index, i, MIB, &err) == NPK_OK, "%s", err.message);
    give_turn(&p);
    ck_assert(await_turn(&p));
    for (uint64_t i = 101; i < 200; i++)
        ck_assert(has(index, i, MIB));
    ck_assert(has(index, 100, 100));
    check_child(&p);
    npk_index_close(index);
}
END_TEST

START_TEST(every_publish_changes_the_version_and_a_reader_keeps_its_state)
{
    npk_error err = {0};
    npk_index *index = open_index(io, true, 0);
    uint64_t before = npk_index_version(index);
    ck_assert_uint_eq(npk_index_version(index), before);
    npk_index_reader *reader;
    ck_assert_int_eq(npk_index_begin(index, &reader, &err), NPK_OK);
    for (uint64_t i = 0; i < 20; i++) {
        ck_assert_int_eq(put(index, i, 10, &err), NPK_OK);
        uint64_t after = npk_index_version(index);
        ck_assert_uint_gt(after, before);
        before = after;
    }
    const uint8_t *key, *value;
    size_t key_size, value_size;
    bool found = true;
    ck_assert_int_eq(npk_index_at_or_after(reader, NPK_TABLE_ATTRS, "", 0, &key, &key_size, &value, &value_size, &found,
                                           &err), NPK_OK);
    ck_assert(!found);
    npk_index_end(reader);
    ck_assert(has(index, 19, 10));
    npk_index_close(index);
}
END_TEST

START_TEST(a_failed_publish_leaves_the_index_as_it_was)
{
    npk_error err = {0};
    npk_index *index = open_index(io, true, 0);
    ck_assert_int_eq(put(index, 1, 10, &err), NPK_OK);
    uint64_t version = npk_index_version(index);
    npk_index_fail_next_publish(index);
    ck_assert_int_eq(put(index, 1, 20, &err), NPK_IO);
    ck_assert_int_eq(err.status, NPK_IO);
    ck_assert_uint_eq(npk_index_version(index), version);
    ck_assert(has(index, 1, 10));
    ck_assert_int_eq(put(index, 1, 20, &err), NPK_OK);
    ck_assert(has(index, 1, 20));
    npk_index_close(index);
}
END_TEST

START_TEST(entries_are_found_in_order)
{
    npk_error err = {0};
    npk_index *index = open_index(io, true, 0);
    for (uint64_t i = 10; i <= 50; i += 10)
        ck_assert_int_eq(put(index, i, i, &err), NPK_OK);
    npk_index_reader *reader;
    ck_assert_int_eq(npk_index_begin(index, &reader, &err), NPK_OK);
    const uint8_t *key, *value;
    size_t key_size, value_size;
    bool found;
    uint8_t wanted[8];
    ck_assert_int_eq(npk_index_next(reader, NPK_TABLE_ATTRS, &key, &key_size, &value, &value_size, &found, &err), NPK_OK);
    ck_assert(!found);
    for (uint64_t i = 0; i <= 60; i++) {
        npk_put_be64(wanted, i);
        ck_assert_int_eq(npk_index_at_or_before(reader, NPK_TABLE_ATTRS, wanted, 8, &key, &key_size, &value, &value_size,
                                                &found, &err), NPK_OK);
        ck_assert_int_eq(found, i >= 10);
        if (found)
            ck_assert_uint_eq(npk_get_be64(key), npk_min_u64(i / 10 * 10, 50));
        ck_assert_int_eq(npk_index_at_or_after(reader, NPK_TABLE_ATTRS, wanted, 8, &key, &key_size, &value, &value_size,
                                               &found, &err), NPK_OK);
        ck_assert_int_eq(found, i <= 50);
        if (!found)
            continue;
        uint64_t first = npk_max_u64((i + 9) / 10 * 10, 10);
        ck_assert_uint_eq(npk_get_be64(key), first);
        ck_assert_uint_eq(value_size, first);
        ck_assert_int_eq(npk_index_next(reader, NPK_TABLE_ATTRS, &key, &key_size, &value, &value_size, &found, &err),
                         NPK_OK);
        ck_assert_int_eq(found, first < 50);
        if (found)
            ck_assert_uint_eq(npk_get_be64(key), first + 10);
    }
    npk_index_end(reader);
    npk_index_close(index);
}
END_TEST

static int allocations_left;

static int refuse_after_some(void *context, size_t size)
{
    (void)context;
    (void)size;
    return allocations_left-- <= 0;
}

START_TEST(every_allocation_may_fail)
{
    npk_error err = {0};
    npk_index *index = open_index(io, true, 0);
    ck_assert_int_eq(put(index, 1, 10, &err), NPK_OK);
    npk_index_close(index);
    npk_status status = NPK_NO_MEMORY;
    int count = 0;
    for (; status != NPK_OK; count++) {
        ck_assert_int_lt(count, 100);
        allocations_left = count;
        npk_alloc_set_hook(refuse_after_some, NULL);
        status = npk_index_open(io, directory, NAME, false, 0, &index, &err);
        npk_index_reader *reader;
        if (status == NPK_OK) {
            status = npk_index_begin(index, &reader, &err);
            if (status == NPK_OK)
                npk_index_end(reader);
            else
                npk_index_close(index);
        }
        npk_alloc_set_hook(NULL, NULL);
        ck_assert(status == NPK_OK || status == NPK_NO_MEMORY);
    }
    ck_assert_int_ge(count, 5);
    ck_assert(has(index, 1, 10));
    npk_index_close(index);
}
END_TEST

/* ---- readers ------------------------------------------------------------------------------------------------------------- */

static unsigned take_readers(npk_index *index, npk_index_reader **readers, npk_status *status)
{
    unsigned count = 0;
    while (count < READER_COUNT_LIMIT && (*status = npk_index_begin(index, &readers[count], NULL)) == NPK_OK)
        count++;
    return count;
}

static npk_index_reader *readers[READER_COUNT_LIMIT];

START_TEST(a_full_reader_table_is_busy_and_recovers)
{
    npk_index *index = open_index(io, true, 0);
    npk_status status;
    unsigned count = take_readers(index, readers, &status);
    ck_assert_int_eq(status, NPK_BUSY);
    ck_assert_uint_ge(count, 1024);
    for (unsigned i = 0; i < count; i++)
        npk_index_end(readers[i]);
    npk_error err = {0};
    ck_assert_int_eq(put(index, 1, 10, &err), NPK_OK);
    ck_assert(has(index, 1, 10));
    npk_index_close(index);
}
END_TEST

START_TEST(slots_of_a_dead_process_are_freed)
{
    pair p = fork_pair();
    if (p.pid == 0) {
        CHILD_NEEDS(await_turn(&p));
        npk_index *index = open_index(io, false, 0);
        npk_status status;
        CHILD_NEEDS(index && take_readers(index, readers, &status) >= 1000 && status == NPK_BUSY);
        _exit(0); /* without giving them back */
    }
    npk_index *index = open_index(io, true, 0);
    give_turn(&p);
    check_child(&p);
    npk_index_reader *reader;
    npk_error err = {0};
    ck_assert_msg(npk_index_begin(index, &reader, &err) == NPK_OK, "%s", err.message);
    npk_index_end(reader);
    npk_index_close(index);
}
END_TEST

/* A backup tool inside the process reads lock.mdb: every POSIX lock of the process on it is gone. */
static void stray_open_and_close(void)
{
    char name[128];
    snprintf(name, sizeof name, "%s/%s/lock.mdb", path, NAME);
    FILE *file = fopen(name, "rb");
    if (file)
        (void)fclose(file);
}

START_TEST(living_readers_are_kept_after_a_stray_close_of_the_lock_file)
{
    pair p = fork_pair();
    if (p.pid == 0) {
        CHILD_NEEDS(await_turn(&p));
        npk_index *index = open_index(io, false, 0);
        npk_status status;
        CHILD_NEEDS(index && take_readers(index, readers, &status) >= 1000 && status == NPK_BUSY);
        stray_open_and_close();
        give_turn(&p);
        CHILD_NEEDS(await_turn(&p));
        _exit(0);
    }
    npk_index *index = open_index(io, true, 0);
    give_turn(&p);
    ck_assert(await_turn(&p));
    npk_index_reader *reader;
    npk_error err = {0};
    ck_assert_int_eq(npk_index_begin(index, &reader, &err), NPK_BUSY);
    give_turn(&p);
    check_child(&p);
    ck_assert_msg(npk_index_begin(index, &reader, &err) == NPK_OK, "%s", err.message);
    npk_index_end(reader);
    npk_index_close(index);
}
END_TEST

START_TEST(a_stray_close_does_not_let_another_opener_believe_to_be_alone)
{
    npk_index *index = open_index(io, true, 0);
    stray_open_and_close();
    npk_file *inner, *lock;
    ck_assert_int_eq(io->open(io, directory, NAME, NPK_OPEN_DIRECTORY, &inner), 0);
    ck_assert_int_eq(io->open(io, inner, "lock.mdb", NPK_OPEN_WRITE, &lock), 0);
    ck_assert_int_eq(io->lock_test(io, lock, 0, 1, NPK_LOCK_EXCLUSIVE), EAGAIN);
    npk_index_close(index);
    ck_assert_int_eq(io->lock_test(io, lock, 0, 1, NPK_LOCK_EXCLUSIVE), 0);
    io->close(io, lock);
    io->close(io, inner);
}
END_TEST

START_TEST(a_forked_child_gives_up_its_copy_without_harm)
{
    npk_error err = {0};
    npk_index *index = open_index(io, true, 0);
    ck_assert_int_eq(put(index, 1, 10, &err), NPK_OK);
    npk_index_reader *reader;
    ck_assert_int_eq(npk_index_begin(index, &reader, &err), NPK_OK);
    pair p = fork_pair();
    if (p.pid == 0) {
        npk_index_abandon(index);
        npk_index_abandon(NULL);
        npk_index *own = open_index(io, false, 0);
        CHILD_NEEDS(own && has(own, 1, 10) && put(own, 2, 10, NULL) == NPK_OK);
        npk_index_close(own);
        _exit(0);
    }
    check_child(&p);
    npk_index_end(reader);
    ck_assert(has(index, 2, 10));
    npk_file *inner, *lock;
    ck_assert_int_eq(io->open(io, directory, NAME, NPK_OPEN_DIRECTORY, &inner), 0);
    ck_assert_int_eq(put(index, 3, 10, &err), NPK_OK);
    npk_index_close(index);
    ck_assert_int_eq(io->open(io, inner, "lock.mdb", NPK_OPEN_WRITE, &lock), 0);
    ck_assert_int_eq(io->lock_test(io, lock, 0, 1, NPK_LOCK_EXCLUSIVE), 0);
    io->close(io, lock);
    io->close(io, inner);
}
END_TEST

typedef struct grower {
    npk_index *index;
    npk_status status;
} grower;

static void *grow(void *context)
{
    grower *g = context;
    g->status = npk_index_reserve(g->index, 1, 64 * MIB, NULL);
    return NULL;
}

START_TEST(a_reader_may_begin_again_while_growth_waits_for_it)
{
    npk_error err = {0};
    npk_index *index = open_index(io, true, MIB);
    npk_index_reader *outer, *inner;
    ck_assert_int_eq(npk_index_begin(index, &outer, &err), NPK_OK);
    grower g = {index, NPK_OK};
    pthread_t thread;
    ck_assert_int_eq(npk_thread_start(&thread, grow, &g), 0);
    io->sleep_us(io, 20000); /* most likely it waits by now */
    ck_assert_int_eq(npk_index_begin(index, &inner, &err), NPK_OK);
    npk_index_end(inner);
    npk_index_end(outer);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(g.status, NPK_OK);
    ck_assert_int_eq(put(index, 1, 40 * MIB, &err), NPK_OK);
    ck_assert(has(index, 1, 40 * MIB));
    npk_index_close(index);
}
END_TEST

static npk_index *shared;
static _Atomic int readers_stop;

static void *read_on(void *context)
{
    (void)context;
    while (!readers_stop)
        if (!has(shared, 1, 10) || npk_index_version(shared) == 0)
            return &shared;
    return NULL;
}

START_TEST(readers_of_other_threads_go_on_while_the_map_grows)
{
    npk_error err = {0};
    shared = open_index(io, true, MIB);
    ck_assert_int_eq(put(shared, 1, 10, &err), NPK_OK);
    pthread_t threads[3];
    for (unsigned i = 0; i < 3; i++)
        ck_assert_int_eq(npk_thread_start(&threads[i], read_on, NULL), 0);
    for (uint64_t i = 2; i < 60; i++)
        ck_assert_msg(put(shared, i, MIB / 2, &err) == NPK_OK, "%s", err.message);
    readers_stop = 1;
    for (unsigned i = 0; i < 3; i++) {
        void *result;
        ck_assert_int_eq(pthread_join(threads[i], &result), 0);
        ck_assert_ptr_null(result);
    }
    npk_index_close(shared);
}
END_TEST

/* ---- full disks -------------------------------------------------------------------------------------------------------- */

static int allocate_refused(const npk_io *table, npk_file *file, uint64_t offset, uint64_t size)
{
    (void)table;
    (void)file;
    (void)offset;
    (void)size;
    return ENOSPC;
}

static uint64_t disk_size;

static int allocate_up_to(const npk_io *table, npk_file *file, uint64_t offset, uint64_t size)
{
    (void)table;
    return offset + size > disk_size ? ENOSPC : io->allocate(io, file, offset, size);
}

static int map_refused(const npk_io *table, npk_file *file, uint64_t offset, size_t size, npk_map_kind kind, void **address)
{
    (void)table;
    (void)file;
    (void)offset;
    (void)size;
    (void)kind;
    (void)address;
    return ENOMEM;
}

START_TEST(a_full_disk_is_noticed_when_reserving)
{
    npk_error err = {0};
    faulty = *io;
    npk_index *index = open_index(&faulty, true, 0);
    ck_assert_int_eq(put(index, 1, 10, &err), NPK_OK);
    uint64_t version = npk_index_version(index);
    faulty.allocate = allocate_refused;
    ck_assert_int_eq(npk_index_reserve(index, 1, 20 * MIB, &err), NPK_NO_SPACE);
    ck_assert_int_eq(err.sys_errno, ENOSPC);
    ck_assert_uint_eq(npk_index_version(index), version);
    ck_assert_int_eq(npk_index_reserve(index, 1, 100, &err), NPK_OK); /* there is room for small ones */
    ck_assert_int_eq(put(index, 2, 10, &err), NPK_OK);
    faulty.allocate = io->allocate;
    ck_assert_int_eq(put(index, 3, 20 * MIB, &err), NPK_OK);
    ck_assert(has(index, 1, 10) && has(index, 2, 10) && has(index, 3, 20 * MIB));
    npk_index_close(index);
}
END_TEST

START_TEST(a_nearly_full_disk_gives_what_is_needed)
{
    npk_error err = {0};
    faulty = *io;
    npk_index *index = open_index(&faulty, true, 0);
    uint64_t used, file;
    npk_index_sizes(index, &used, &file);
    disk_size = file + 200 * 1024;
    faulty.allocate = allocate_up_to;
    ck_assert_int_eq(npk_index_reserve(index, 1, (size_t)(file - used) / 3, &err), NPK_OK);
    npk_index_close(index);
}
END_TEST

START_TEST(a_map_that_cannot_grow_stays_as_it_was)
{
    npk_error err = {0};
    faulty = *io;
    npk_index *index = open_index(&faulty, true, MIB);
    ck_assert_int_eq(put(index, 1, 10, &err), NPK_OK);
    faulty.map = map_refused;
    ck_assert_int_eq(npk_index_reserve(index, 1, 20 * MIB, &err), NPK_NO_MEMORY);
    ck_assert(has(index, 1, 10));
    ck_assert_int_eq(put(index, 2, 10, &err), NPK_OK);
    faulty.map = io->map;
    ck_assert_int_eq(put(index, 3, 20 * MIB, &err), NPK_OK);
    npk_index_close(index);
}
END_TEST

/* ---- the shared page ---------------------------------------------------------------------------------------------------- */

START_TEST(the_shared_page_is_made_anew_and_shared)
{
    npk_error err = {0};
    npk_control *made, *opened, *anew;
    ck_assert_int_eq(npk_control_open(io, directory, &opened, &err), NPK_NOT_FOUND);
    ck_assert_int_eq(npk_control_create(io, directory, &made, &err), NPK_OK);
    ck_assert_int_eq(npk_control_open(io, directory, &opened, &err), NPK_OK);
    ck_assert_ptr_ne(made, opened);
    atomic_store(&made->generation, 7);
    atomic_store(&made->pin_lsn[NPK_PIN_SLOT_COUNT - 1], 8);
    ck_assert_uint_eq(atomic_load(&opened->generation), 7);
    ck_assert_uint_eq(atomic_load(&opened->pin_lsn[NPK_PIN_SLOT_COUNT - 1]), 8);

    npk_file *left; /* of a process that died while making one */
    ck_assert_int_eq(io->open(io, directory, "control.tmp", NPK_OPEN_WRITE | NPK_OPEN_CREATE, &left), 0);
    io->close(io, left);
    ck_assert_int_eq(npk_control_create(io, directory, &anew, &err), NPK_OK);
    ck_assert_uint_eq(atomic_load(&anew->generation), 0);
    ck_assert_uint_eq(atomic_load(&opened->generation), 7); /* the old page lives on for those who have it */
    npk_file_info info;
    ck_assert_int_eq(io->info_at(io, directory, "control.tmp", &info), ENOENT);
    npk_control_close(io, made);
    npk_control_close(io, opened);
    npk_control_close(io, anew);
    npk_control_close(io, NULL);
}
END_TEST

START_TEST(a_page_that_does_not_fit_is_refused)
{
    npk_error err = {0};
    npk_control *page;
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(npk_control_create(io, directory, &page, &err), NPK_OK);
        if (i == 0)
            atomic_store(&page->magic, 0);
        if (i == 1)
            atomic_store(&page->layout, 1);
        npk_control_close(io, page);
        if (i == 2) { /* shorter than a page: touching it would kill */
            npk_file *file;
            ck_assert_int_eq(io->unlink(io, directory, "control"), 0);
            ck_assert_int_eq(io->open(io, directory, "control", NPK_OPEN_WRITE | NPK_OPEN_CREATE, &file), 0);
            io->close(io, file);
        }
        ck_assert_int_eq(npk_control_open(io, directory, &page, &err), NPK_CORRUPT);
    }
    faulty = *io;
    faulty.allocate = allocate_refused;
    ck_assert_int_eq(npk_control_create(&faulty, directory, &page, &err), NPK_NO_SPACE);
    npk_file_info info;
    ck_assert_int_eq(io->info_at(io, directory, "control.tmp", &info), ENOENT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("index");
    TCase *tests = tcase_create("index");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, entries_survive_closing_and_opening);
    tcase_add_test(tests, opening_what_is_not_there_is_corrupt_and_creating_twice_fails);
    tcase_add_test(tests, a_small_map_grows);
    tcase_add_test(tests, publishing_without_reserving_grows_the_map_too);
    tcase_add_test(tests, what_was_reserved_is_enough_for_the_publish);
    tcase_add_test(tests, another_process_sees_the_grown_map_and_grows_it_further);
    tcase_add_test(tests, every_publish_changes_the_version_and_a_reader_keeps_its_state);
    tcase_add_test(tests, a_failed_publish_leaves_the_index_as_it_was);
    tcase_add_test(tests, entries_are_found_in_order);
    tcase_add_test(tests, every_allocation_may_fail);
    tcase_add_test(tests, a_full_reader_table_is_busy_and_recovers);
    tcase_add_test(tests, slots_of_a_dead_process_are_freed);
    tcase_add_test(tests, living_readers_are_kept_after_a_stray_close_of_the_lock_file);
    tcase_add_test(tests, a_stray_close_does_not_let_another_opener_believe_to_be_alone);
    tcase_add_test(tests, a_forked_child_gives_up_its_copy_without_harm);
    tcase_add_test(tests, a_reader_may_begin_again_while_growth_waits_for_it);
    tcase_add_test(tests, readers_of_other_threads_go_on_while_the_map_grows);
    tcase_add_test(tests, a_full_disk_is_noticed_when_reserving);
    tcase_add_test(tests, a_nearly_full_disk_gives_what_is_needed);
    tcase_add_test(tests, a_map_that_cannot_grow_stays_as_it_was);
    tcase_add_test(tests, the_shared_page_is_made_anew_and_shared);
    tcase_add_test(tests, a_page_that_does_not_fit_is_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
