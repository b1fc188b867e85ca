/* test_memory_io.c - the rules of the disk (see memory_io.h), one test each, and the table over it. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "check_main.h"
#include "memory_io.h"
#include "rng.h"

static memory_io *disk;
static const npk_io *io;
static npk_file *root;

static void open_disk(const memory_io_options *options)
{
    disk = memory_io_create(options);
    io = memory_io_table(disk);
    bool created = false;
    ck_assert_int_eq(io->open_root(io, "store", true, &root, &created), 0);
    ck_assert(created);
    ck_assert_int_eq(io->sync_parent(io, root, "store"), 0);
}

static void set_up(void)
{
    open_disk(NULL);
}

static void tear_down(void)
{
    io->close(io, root);
    ck_assert_uint_eq(memory_io_open_count(disk), 0);
    memory_io_destroy(disk);
}

static npk_file *create(npk_file *directory, const char *name)
{
    npk_file *file;
    ck_assert_int_eq(io->open(io, directory, name, NPK_OPEN_WRITE | NPK_OPEN_CREATE | NPK_OPEN_EXCLUSIVE, &file), 0);
    return file;
}

static void put(npk_file *file, uint64_t offset, char byte, size_t size)
{
    char bytes[65536];
    size_t done;
    ck_assert_uint_le(size, sizeof bytes);
    memset(bytes, byte, size);
    ck_assert_int_eq(io->write(io, file, offset, bytes, size, &done), 0);
    ck_assert_uint_eq(done, size);
}

/* What is in the file of another disk: its first bytes, or "absent"; counts runs as "a512 b3". */
static const char *look(memory_io *other, const char *name)
{
    static char text[4][400];
    static int turn;
    char *out = text[turn++ % 4];
    out[0] = '\0';
    const npk_io *table = memory_io_table(other);
    npk_file *directory = NULL, *file = NULL;
    if (table->open_root(table, "store", false, &directory, NULL))
        return "no store";
    int rc = table->open(table, directory, name, NPK_OPEN_READ, &file);
    if (rc) {
        table->close(table, directory);
        return rc == ENOENT ? "absent" : "strange";
    }
    char bytes[65536];
    size_t done;
    ck_assert_int_eq(table->read(table, file, 0, bytes, sizeof bytes, &done), 0);
    for (size_t at = 0; at < done && strlen(out) < 300;) {
        size_t run = 1;
        while (at + run < done && bytes[at + run] == bytes[at])
            run++;
        (void)snprintf(out + strlen(out), 400 - strlen(out), "%c%zu ", bytes[at] ? bytes[at] : '0', run);
        at += run;
    }
    if (out[0])
        out[strlen(out) - 1] = '\0';
    else
        (void)snprintf(out, 400, "empty");
    table->close(table, file);
    table->close(table, directory);
    return out;
}

static memory_io *crash(memory_io_select select, uint64_t index, memory_io_lost lost, uint64_t seed)
{
    memory_snapshot *snapshot = memory_io_snapshot(disk);
    memory_io_selection selection = {select, lost, index, seed};
    memory_io *after = memory_io_materialize(snapshot, &selection, NULL);
    memory_snapshot_release(snapshot);
    return after;
}

/* look() after a crash. */
static const char *after(const char *name, memory_io_select select, uint64_t index)
{
    memory_io *other = crash(select, index, MEMORY_IO_DROPPED, 0);
    const char *text = look(other, name);
    memory_io_destroy(other);
    return text;
}

static size_t unit_count(void)
{
    memory_snapshot *snapshot = memory_io_snapshot(disk);
    size_t count = memory_snapshot_unit_count(snapshot);
    memory_snapshot_release(snapshot);
    return count;
}

/* ---- the rules of the disk ------------------------------------------------------------------------------------------- */

START_TEST(a_name_is_durable_only_after_its_directory_is_synced)
{
    npk_file *file = create(root, "f");
    put(file, 0, 'a', 10);
    ck_assert_int_eq(io->sync(io, file), 0);
    ck_assert_str_eq(after("f", MEMORY_IO_NONE, 0), "absent");
    ck_assert_str_eq(after("f", MEMORY_IO_ALL, 0), "a10");
    ck_assert_int_eq(io->sync(io, root), 0);
    ck_assert_str_eq(after("f", MEMORY_IO_NONE, 0), "a10");

    ck_assert_int_eq(io->rename(io, root, "f", "g"), 0);
    ck_assert_str_eq(after("f", MEMORY_IO_NONE, 0), "a10");
    ck_assert_str_eq(after("g", MEMORY_IO_NONE, 0), "absent");
    ck_assert_str_eq(after("f", MEMORY_IO_ALL, 0), "absent");
    ck_assert_int_eq(io->sync(io, root), 0);
    ck_assert_str_eq(after("g", MEMORY_IO_NONE, 0), "a10");

    ck_assert_int_eq(io->unlink(io, root, "g"), 0);
    ck_assert_str_eq(after("g", MEMORY_IO_NONE, 0), "a10");
    ck_assert_str_eq(after("g", MEMORY_IO_ALL, 0), "absent");
    io->close(io, file);
    ck_assert_str_eq(after("g", MEMORY_IO_NONE, 0), "a10");
    ck_assert_int_eq(io->sync(io, root), 0);
    ck_assert_str_eq(after("g", MEMORY_IO_NONE, 0), "absent");
}
END_TEST

START_TEST(a_new_directory_needs_its_parent_synced_too)
{
    memory_io *fresh = memory_io_create(NULL);
    const npk_io *table = memory_io_table(fresh);
    npk_file *store, *below, *file;
    ck_assert_int_eq(table->open_root(table, "store", true, &store, NULL), 0);
    ck_assert_int_eq(table->make_directory(table, store, "d"), 0);
    ck_assert_int_eq(table->open(table, store, "d", NPK_OPEN_DIRECTORY, &below), 0);
    ck_assert_int_eq(table->open(table, below, "f", NPK_OPEN_WRITE | NPK_OPEN_CREATE, &file), 0);
    ck_assert_int_eq(table->sync(table, file), 0);
    ck_assert_int_eq(table->sync(table, below), 0);
    ck_assert_int_eq(table->sync(table, store), 0);
    memory_io_selection none = {MEMORY_IO_NONE, MEMORY_IO_DROPPED, 0, 0};
    memory_snapshot *snapshot = memory_io_snapshot(fresh);
    memory_io *other = memory_io_materialize(snapshot, &none, NULL);
    ck_assert_str_eq(look(other, "d"), "no store");
    memory_io_destroy(other);
    memory_snapshot_release(snapshot);
    ck_assert_int_eq(table->sync_parent(table, store, "store"), 0);
    snapshot = memory_io_snapshot(fresh);
    other = memory_io_materialize(snapshot, &none, NULL);
    ck_assert_str_eq(look(other, "d"), "strange"); /* a directory */
    ck_assert_uint_eq(memory_io_hash(other), memory_io_hash(fresh));
    memory_io_destroy(other);
    memory_snapshot_release(snapshot);
    memory_io_destroy(fresh); /* closes what is open */
}
END_TEST

START_TEST(an_ext4_like_sync_takes_the_name_along)
{
    tear_down();
    memory_io_options options = {.names_follow_sync = true};
    open_disk(&options);
    npk_file *old = create(root, "old");
    put(old, 0, 'o', 5);
    ck_assert_int_eq(io->rename(io, root, "old", "x"), 0);
    ck_assert_int_eq(io->unlink(io, root, "x"), 0);
    npk_file *file = create(root, "x");
    npk_file *later = create(root, "later");
    put(file, 0, 'n', 5);
    ck_assert_int_eq(io->sync(io, file), 0);
    ck_assert_str_eq(after("x", MEMORY_IO_NONE, 0), "n5");
    ck_assert_str_eq(after("old", MEMORY_IO_NONE, 0), "absent");
    ck_assert_str_eq(after("later", MEMORY_IO_NONE, 0), "absent");
    ck_assert_int_eq(io->sync(io, root), 0);
    ck_assert_str_eq(after("x", MEMORY_IO_NONE, 0), "n5");
    ck_assert_str_eq(after("later", MEMORY_IO_NONE, 0), "empty");
    npk_file *below, *deep;
    ck_assert_int_eq(io->make_directory(io, root, "d"), 0);
    ck_assert_int_eq(io->open(io, root, "d", NPK_OPEN_DIRECTORY, &below), 0);
    deep = create(below, "deep");
    ck_assert_int_eq(io->sync(io, deep), 0);
    ck_assert_str_eq(after("d", MEMORY_IO_NONE, 0), "strange");
    io->close(io, deep);
    io->close(io, below);
    io->close(io, old);
    io->close(io, file);
    io->close(io, later);
}
END_TEST

START_TEST(replacing_a_file_never_shows_anything_between)
{
    npk_error err;
    ck_assert_int_eq(npk_io_replace_file(io, root, "t", "f", "old", 3, &err), NPK_OK);
    memory_io_set_hook(disk, NULL, NULL);
    npk_file *temp = create(root, "t");
    put(temp, 0, 'n', 600);
    ck_assert_int_eq(io->sync(io, temp), 0);
    ck_assert_int_eq(io->rename(io, root, "t", "f"), 0);
    for (uint64_t bits = 0; bits < 4; bits++) {
        const char *text = after("f", MEMORY_IO_SUBSET, bits);
        ck_assert(strcmp(text, "o1 l1 d1") == 0 || strcmp(text, "n600") == 0);
    }
    ck_assert_int_eq(io->sync(io, root), 0);
    ck_assert_str_eq(after("f", MEMORY_IO_NONE, 0), "n600");
    io->close(io, temp);
}
END_TEST

START_TEST(a_rename_without_a_sync_of_the_file_can_leave_it_empty)
{
    npk_file *temp = create(root, "t");
    put(temp, 0, 'n', 600);
    ck_assert_int_eq(io->rename(io, root, "t", "f"), 0);
    ck_assert_int_eq(io->sync(io, root), 0);
    ck_assert_str_eq(after("f", MEMORY_IO_NONE, 0), "empty");
    io->close(io, temp);
}
END_TEST

START_TEST(a_name_change_concerns_its_own_inode_whatever_else_was_lost)
{
    npk_file *old = create(root, "x");
    put(old, 0, 'o', 5);
    ck_assert_int_eq(io->sync(io, old), 0);
    ck_assert_int_eq(io->sync(io, root), 0);
    ck_assert_int_eq(io->unlink(io, root, "x"), 0);
    npk_file *new = create(root, "x");
    ck_assert_int_eq(io->unlink(io, root, "x"), 0);
    ck_assert_str_eq(after("x", MEMORY_IO_KEEP_ONE, 0), "absent");
    ck_assert_str_eq(after("x", MEMORY_IO_KEEP_ONE, 1), "empty");
    ck_assert_str_eq(after("x", MEMORY_IO_KEEP_ONE, 2), "o5"); /* it was the new one that went */
    ck_assert_int_eq(io->sync(io, root), 0);
    ck_assert_str_eq(after("x", MEMORY_IO_NONE, 0), "absent");
    io->close(io, old);
    io->close(io, new);

    npk_file *file = create(root, "a");
    ck_assert_int_eq(io->sync(io, root), 0);
    ck_assert_int_eq(io->rename(io, root, "a", "b"), 0);
    ck_assert_int_eq(io->rename(io, root, "b", "c"), 0);
    ck_assert_str_eq(after("a", MEMORY_IO_KEEP_ONE, 1), "absent"); /* moved, not doubled */
    ck_assert_str_eq(after("c", MEMORY_IO_KEEP_ONE, 1), "empty");
    ck_assert_str_eq(after("a", MEMORY_IO_NONE, 0), "empty");
    ck_assert_str_eq(after("b", MEMORY_IO_KEEP_ONE, 0), "empty");
    io->close(io, file);
}
END_TEST

START_TEST(nothing_is_ordered_without_a_sync)
{
    npk_file *one = create(root, "one"), *two = create(root, "two");
    ck_assert_int_eq(io->sync(io, root), 0);
    put(one, 0, 'a', 512);
    put(one, 512, 'b', 512);
    put(two, 0, 'c', 512);
    ck_assert_uint_eq(unit_count(), 6); /* size and sector each */
    bool seen_second_append_alone = false, seen_later_file_alone = false;
    for (uint64_t bits = 0; bits < 64; bits++) {
        const char *first = after("one", MEMORY_IO_SUBSET, bits), *second = after("two", MEMORY_IO_SUBSET, bits);
        seen_second_append_alone |= strcmp(first, "0512 b512") == 0;
        seen_later_file_alone |= strcmp(first, "empty") == 0 && strcmp(second, "c512") == 0;
    }
    ck_assert(seen_second_append_alone);
    ck_assert(seen_later_file_alone);
    ck_assert_int_eq(io->sync(io, two), 0);
    ck_assert_str_eq(after("two", MEMORY_IO_NONE, 0), "c512");
    ck_assert_str_eq(after("one", MEMORY_IO_NONE, 0), "empty");
    io->close(io, one);
    io->close(io, two);
}
END_TEST

START_TEST(size_and_bytes_of_an_append_persist_apart)
{
    npk_file *file = create(root, "f");
    put(file, 0, 'a', 100);
    ck_assert_int_eq(io->sync(io, file), 0);
    ck_assert_int_eq(io->sync(io, root), 0);
    put(file, 100, 'b', 1000); /* units: size, sectors 0, 1, 2 */
    ck_assert_uint_eq(unit_count(), 4);
    ck_assert_str_eq(after("f", MEMORY_IO_SUBSET, 0x1), "a100 01000");
    ck_assert_str_eq(after("f", MEMORY_IO_SUBSET, 0xE), "a100");
    ck_assert_str_eq(after("f", MEMORY_IO_SUBSET, 0x5), "a100 0412 b512 076");
    ck_assert_str_eq(after("f", MEMORY_IO_PREFIX, 2), "a100 b412 0588");
    ck_assert_str_eq(after("f", MEMORY_IO_DROP_ONE, 0), "a100");
    ck_assert_str_eq(after("f", MEMORY_IO_KEEP_ONE, 3), "a100");
    ck_assert_str_eq(after("f", MEMORY_IO_TORN, 0), "a100");
    ck_assert_str_eq(after("f", MEMORY_IO_TORN, 1), "a100 b412"); /* short */
    ck_assert_str_eq(after("f", MEMORY_IO_TORN, 3), "a100 b1000");
    io->close(io, file);
}
END_TEST

START_TEST(bytes_lost_beyond_the_size_do_not_come_back)
{
    npk_file *file = create(root, "f");
    ck_assert_int_eq(io->sync(io, root), 0);
    put(file, 0, 'b', 700);
    memory_io *other = crash(MEMORY_IO_SUBSET, 0x6, MEMORY_IO_DROPPED, 0); /* sectors without the size */
    const npk_io *table = memory_io_table(other);
    npk_file *store, *again;
    size_t done;
    ck_assert_int_eq(table->open_root(table, "store", false, &store, NULL), 0);
    ck_assert_int_eq(table->open(table, store, "f", NPK_OPEN_WRITE, &again), 0);
    ck_assert_int_eq(table->write(table, again, 800, "x", 1, &done), 0);
    ck_assert_str_eq(look(other, "f"), "0800 x1");
    memory_io_destroy(other);
    io->close(io, file);
}
END_TEST

START_TEST(writes_tear_at_sectors_and_keep_what_shares_the_sector)
{
    npk_file *file = create(root, "f");
    put(file, 0, 'a', 1536);
    ck_assert_int_eq(io->sync(io, file), 0);
    ck_assert_int_eq(io->sync(io, root), 0);
    put(file, 500, 'b', 600);
    ck_assert_uint_eq(unit_count(), 3);
    ck_assert_str_eq(after("f", MEMORY_IO_SUBSET, 1), "a500 b12 a1024");
    ck_assert_str_eq(after("f", MEMORY_IO_SUBSET, 2), "a512 b512 a512");
    ck_assert_str_eq(after("f", MEMORY_IO_SUBSET, 4), "a1024 b76 a436");
    put(file, 0, 'c', 10); /* a later image of a sector holds the earlier bytes: the cache had them */
    ck_assert_str_eq(after("f", MEMORY_IO_KEEP_ONE, 3), "c10 a490 b12 a1024");
    ck_assert_str_eq(after("f", MEMORY_IO_TORN_ALONE, 1), "c10 a490 b12 a1024");
    io->close(io, file);
}
END_TEST

START_TEST(garbage_comes_only_where_bytes_change)
{
    npk_file *file = create(root, "f");
    put(file, 0, 'a', 512);
    ck_assert_int_eq(io->sync(io, file), 0);
    ck_assert_int_eq(io->sync(io, root), 0);
    put(file, 100, 'b', 300);
    put(file, 512, 'b', 100);
    memory_io *other = crash(MEMORY_IO_KEEP_ONE, 1, MEMORY_IO_GARBAGE, 7); /* the size, garbage in both sectors */
    npk_file *store, *again;
    uint8_t bytes[612];
    size_t done;
    const npk_io *table = memory_io_table(other);
    ck_assert_int_eq(table->open_root(table, "store", false, &store, NULL), 0);
    ck_assert_int_eq(table->open(table, store, "f", NPK_OPEN_READ, &again), 0);
    ck_assert_int_eq(table->read(table, again, 0, bytes, sizeof bytes, &done), 0);
    ck_assert_uint_eq(done, 612);
    size_t strange = 0;
    for (size_t i = 0; i < 612; i++) {
        bool changes = (i >= 100 && i < 400) || i >= 512;
        if (!changes)
            ck_assert_int_eq(bytes[i], 'a');
        strange += changes && bytes[i] != 'a' && bytes[i] != 'b';
    }
    ck_assert_uint_gt(strange, 300);
    memory_io_destroy(other);
    other = crash(MEMORY_IO_KEEP_ONE, 1, MEMORY_IO_ZEROED, 0);
    ck_assert_str_eq(look(other, "f"), "a512 0100");
    memory_io_destroy(other);
    io->close(io, file);
}
END_TEST

START_TEST(allocated_bytes_are_zero_and_need_a_sync)
{
    npk_file *file = create(root, "f");
    ck_assert_int_eq(io->sync(io, root), 0);
    ck_assert_int_eq(io->allocate(io, file, 0, 2000), 0);
    ck_assert_int_eq(io->allocate(io, file, 0, 100), 0);
    ck_assert_uint_eq(unit_count(), 1);
    ck_assert_str_eq(after("f", MEMORY_IO_NONE, 0), "empty");
    ck_assert_str_eq(after("f", MEMORY_IO_ALL, 0), "02000");
    ck_assert_int_eq(io->sync(io, file), 0);
    put(file, 0, 'a', 512);
    ck_assert_str_eq(after("f", MEMORY_IO_NONE, 0), "02000");
    ck_assert_str_eq(look(disk, "f"), "a512 01488");
    ck_assert_int_eq(io->start_writeback(io, file, 0, 512), 0);
    ck_assert_str_eq(after("f", MEMORY_IO_NONE, 0), "02000");
    io->close(io, file);
}
END_TEST

START_TEST(a_failed_sync_can_forget_what_it_should_have_written)
{
    static const struct {
        memory_io_sync_failure failure;
        const char *cache, *durable_later;
    } flavours[] = {{MEMORY_IO_CLEAN_NEW, "n512", "o512"}, {MEMORY_IO_CLEAN_OLD, "o512", "o512"},
                    {MEMORY_IO_DIRTY_NEW, "n512", "n512"}, {MEMORY_IO_DIRTY_OLD, "o512", "n512"}};
    for (size_t i = 0; i < 4; i++) {
        char name[2] = {(char)('0' + i), '\0'};
        npk_file *file = create(root, name);
        put(file, 0, 'o', 512);
        ck_assert_int_eq(io->sync(io, file), 0);
        ck_assert_int_eq(io->sync(io, root), 0);
        void *map;
        ck_assert_int_eq(io->map(io, file, 0, 512, NPK_MAPPING_READ, &map), 0);
        put(file, 0, 'n', 512);
        memory_io_fail_sync(disk, file, flavours[i].failure);
        ck_assert_str_eq(look(disk, name), flavours[i].cache);
        ck_assert_int_eq(*(char *)map, flavours[i].cache[0]);
        ck_assert_str_eq(after(name, MEMORY_IO_NONE, 0), "o512");
        ck_assert_int_eq(io->sync(io, file), 0); /* "succeeds" */
        ck_assert_str_eq(after(name, MEMORY_IO_NONE, 0), flavours[i].durable_later);
        ck_assert_str_eq(after(name, MEMORY_IO_ALL, 0), flavours[i].durable_later);
        /* Reopening without a reboot reads the cache. */
        ck_assert_str_eq(after(name, MEMORY_IO_PROCESS_DIED, 0), flavours[i].cache);
        io->unmap(io, map, 512);
        io->close(io, file);
    }
    npk_file *file = create(root, "name");
    memory_io_fail_sync(disk, root, MEMORY_IO_CLEAN_NEW);
    ck_assert_int_eq(io->sync(io, root), 0);
    ck_assert_str_eq(look(disk, "name"), "empty");
    ck_assert_str_eq(after("name", MEMORY_IO_ALL, 0), "absent");
    io->close(io, file);
}
END_TEST

START_TEST(maps_outlive_unlink_rename_close_and_the_disk)
{
    npk_file *file = create(root, "f");
    put(file, 0, 'a', 5000);
    void *seen, *copy;
    ck_assert_int_eq(io->map(io, file, 0, 5000, NPK_MAPPING_READ, &seen), 0);
    ck_assert_int_eq(io->map(io, file, 4096, 904, NPK_MAPPING_PRIVATE, &copy), 0);
    ck_assert_int_eq(memory_io_map_count(disk), 2);
    ((char *)copy)[0] = 'p';
    ck_assert_int_eq(((char *)seen)[4096], 'a');
    put(file, 5000, 'b', 5000); /* grows behind the map, and shows in it where the page reaches */
    ck_assert_int_eq(((char *)seen)[5000], 'b');
    npk_file *other = create(root, "g");
    put(other, 0, 'z', 5000);
    ck_assert_int_eq(io->rename(io, root, "g", "f"), 0);
    io->close(io, file);
    io->close(io, other);
    ck_assert_int_eq(io->unlink(io, root, "f"), 0);
    ck_assert_int_eq(io->sync(io, root), 0);
    ck_assert_int_eq(((char *)seen)[0], 'a');
    void *memory;
    ck_assert_int_eq(io->map_memory(io, 100, &memory), 0);
    io->unmap(io, memory, 100);
    io->unmap(io, copy, 904);
    ck_assert_int_eq(memory_io_map_count(disk), 1);
    tear_down();
    ck_assert_int_eq(((char *)seen)[4999], 'a');
    set_up();
    io->unmap(io, seen, 5000);
}
END_TEST

START_TEST(stores_through_a_shared_map_reach_file_and_disk)
{
    npk_file *file = create(root, "f");
    ck_assert_int_eq(io->sync(io, root), 0);
    ck_assert_int_eq(io->allocate(io, file, 0, 4096), 0);
    char *shared;
    ck_assert_int_eq(io->map(io, file, 0, 4096, NPK_MAPPING_SHARED, (void **)&shared), 0);
    shared[0] = 's';
    ck_assert_str_eq(look(disk, "f"), "s1 04095");
    ck_assert_int_eq(io->sync(io, file), 0);
    ck_assert_str_eq(after("f", MEMORY_IO_NONE, 0), "s1 04095");
    io->unmap(io, shared, 4096);
    io->close(io, file);
}
END_TEST

/* ---- states --------------------------------------------------------------------------------------------------------------- */

START_TEST(a_dead_process_leaves_the_cache_and_no_locks)
{
    npk_file *file = create(root, "f");
    put(file, 0, 'a', 512);
    ck_assert_int_eq(io->lock(io, file, 0, 1, NPK_LOCK_EXCLUSIVE), 0);
    memory_io *other = crash(MEMORY_IO_PROCESS_DIED, 0, MEMORY_IO_DROPPED, 0);
    ck_assert_str_eq(look(other, "f"), "a512");
    ck_assert_uint_eq(memory_io_hash(other), memory_io_hash(disk));
    const npk_io *table = memory_io_table(other);
    npk_file *store, *again;
    ck_assert_int_eq(table->open_root(table, "store", false, &store, NULL), 0);
    ck_assert_int_eq(table->open(table, store, "f", NPK_OPEN_WRITE, &again), 0);
    ck_assert_int_eq(table->lock(table, again, 0, 1, NPK_LOCK_EXCLUSIVE), 0);
    /* What was pending still is: power may fail later. */
    memory_snapshot *snapshot = memory_io_snapshot(other);
    ck_assert_uint_eq(memory_snapshot_unit_count(snapshot), unit_count());
    memory_io_selection none = {MEMORY_IO_NONE, MEMORY_IO_DROPPED, 0, 0};
    memory_io *third = memory_io_materialize(snapshot, &none, NULL);
    ck_assert_str_eq(look(third, "f"), "absent");
    memory_io_destroy(third);
    memory_snapshot_release(snapshot);
    memory_io_destroy(other);
    io->close(io, file);
}
END_TEST

START_TEST(a_snapshot_stays_as_it_was_taken)
{
    npk_file *file = create(root, "f");
    put(file, 0, 'a', 1000);
    memory_snapshot *snapshot = memory_io_snapshot(disk);
    put(file, 0, 'b', 5000);
    ck_assert_int_eq(io->sync(io, file), 0);
    ck_assert_int_eq(io->unlink(io, root, "f"), 0);
    ck_assert_int_eq(io->sync(io, root), 0);
    io->close(io, file);
    tear_down();
    memory_io_selection all = {MEMORY_IO_ALL, MEMORY_IO_DROPPED, 0, 0};
    memory_io *other = memory_io_materialize(snapshot, &all, NULL);
    ck_assert_str_eq(look(other, "f"), "a1000");
    memory_io_destroy(other);
    memory_snapshot_release(snapshot);
    set_up();
}
END_TEST

START_TEST(files_survive_whole_or_not_at_all)
{
    npk_file *one = create(root, "one"), *two = create(root, "two");
    ck_assert_int_eq(io->sync(io, root), 0);
    put(one, 0, 'a', 1024);
    put(two, 0, 'b', 1024);
    put(one, 1024, 'c', 1024);
    create(root, "three");
    memory_snapshot *snapshot = memory_io_snapshot(disk);
    ck_assert_uint_eq(memory_snapshot_group_count(snapshot), 3);
    memory_snapshot_release(snapshot);
    ck_assert_str_eq(after("one", MEMORY_IO_FILES, 1), "a1024 c1024");
    ck_assert_str_eq(after("two", MEMORY_IO_FILES, 1), "empty");
    ck_assert_str_eq(after("three", MEMORY_IO_FILES, 1), "absent");
    ck_assert_str_eq(after("two", MEMORY_IO_FILES, 2), "b1024");
    ck_assert_str_eq(after("three", MEMORY_IO_FILES, 4), "empty");
    ck_assert_str_eq(after("three", MEMORY_IO_NAMES_ONLY, 0), "empty");
    ck_assert_str_eq(after("one", MEMORY_IO_NAMES_ONLY, 0), "empty");
    ck_assert_str_eq(after("two", MEMORY_IO_DATA_ONLY, 0), "b1024");
    ck_assert_str_eq(after("three", MEMORY_IO_DATA_ONLY, 0), "absent");
    memory_io_destroy(disk); /* with all three open */
    set_up();
}
END_TEST

typedef struct tally {
    size_t count, distinct;
    uint64_t hashes[20000];
    const memory_snapshot *snapshot;
} tally;

static int count_state(void *context, const memory_io_selection *selection)
{
    tally *t = context;
    memory_io *other = memory_io_materialize(t->snapshot, selection, NULL);
    uint64_t hash = memory_io_hash(other);
    memory_io_destroy(other);
    char text[100];
    memory_io_selection parsed;
    memory_io_selection_format(selection, text, sizeof text);
    ck_assert_int_eq(memory_io_selection_parse(text, &parsed), 0);
    ck_assert_mem_eq(&parsed, selection, sizeof parsed);
    memory_io *replayed = memory_io_materialize(t->snapshot, &parsed, NULL);
    ck_assert_uint_eq(memory_io_hash(replayed), hash);
    memory_io_destroy(replayed);
    t->count++;
    for (size_t i = 0; i < t->distinct; i++)
        if (t->hashes[i] == hash)
            return 0;
    ck_assert_uint_lt(t->distinct, 20000);
    t->hashes[t->distinct++] = hash;
    return 0;
}

START_TEST(all_subsets_of_few_units_are_tried_and_many_of_more)
{
    static tally t;
    npk_file *file = create(root, "f");
    ck_assert_int_eq(io->sync(io, root), 0);
    put(file, 0, 'a', 5 * 512);
    memory_snapshot *snapshot = memory_io_snapshot(disk);
    t = (tally){.snapshot = snapshot};
    ck_assert_int_eq(memory_io_select_all(snapshot, 1, 20, 0, count_state, &t), 0);
    ck_assert_uint_ge(t.count, 64 + 63 + 20);
    ck_assert_uint_ge(t.distinct, 33 + 31); /* without the size all are equal */
    memory_snapshot_release(snapshot);

    put(file, 5 * 512, 'b', 65536 - 5 * 512);
    snapshot = memory_io_snapshot(disk);
    t = (tally){.snapshot = snapshot};
    ck_assert_int_eq(memory_io_select_all(snapshot, 1, 20, 0, count_state, &t), 0);
    ck_assert_uint_ge(t.distinct, 600);
    t = (tally){.snapshot = snapshot};
    ck_assert_int_eq(memory_io_select_all(snapshot, 1, 20, 10, count_state, &t), 0);
    ck_assert_uint_ge(t.distinct, 60);
    ck_assert_uint_le(t.count, 100);
    char text[100];
    memory_snapshot_describe(snapshot, 0, text, sizeof text);
    ck_assert_ptr_nonnull(strstr(text, "size"));
    memory_snapshot_describe(snapshot, 1, text, sizeof text);
    ck_assert_ptr_nonnull(strstr(text, "offset 0"));
    memory_snapshot_release(snapshot);
    io->close(io, file);
}
END_TEST

static void watch(void *context, const memory_io_call *call)
{
    char *text = context;
    size_t used = strlen(text);
    (void)snprintf(text + used, 1000 - used, "%llu%c%s%s%s ", (unsigned long long)call->sequence, call->is_after ? '>' : '<',
                   io_call_name(call->kind), call->name ? ":" : "", call->name ? call->name : "");
    /* A snapshot may be taken inside; before the call its effect is not there. */
    memory_snapshot *snapshot = memory_io_snapshot(disk);
    if (call->kind == IO_CALL_WRITE)
        ck_assert_uint_eq(memory_snapshot_torn_count(snapshot), call->is_after ? 2 : 0);
    memory_snapshot_release(snapshot);
}

START_TEST(the_hook_sees_every_mutating_call_before_and_after)
{
    char text[1000] = "";
    uint64_t start = memory_io_sequence(disk);
    memory_io_set_hook(disk, watch, text);
    npk_file *file = create(root, "f");
    put(file, 0, 'a', 600);
    ck_assert_int_eq(io->sync(io, file), 0);
    ck_assert_int_eq(io->rename(io, root, "f", "g"), 0);
    ck_assert_int_eq(io->unlink(io, root, "none"), ENOENT);
    io->close(io, file);
    memory_io_set_hook(disk, NULL, NULL);
    char expected[1000] = "";
    static const char *const calls[] = {"open:f", "write", "sync", "rename:g", "unlink:none"};
    for (size_t i = 0; i < 5; i++)
        (void)snprintf(expected + strlen(expected), 1000 - strlen(expected), "%llu<%s %llu>%s ",
                       (unsigned long long)(start + 1 + i), calls[i], (unsigned long long)(start + 1 + i), calls[i]);
    ck_assert_str_eq(text, expected);
    ck_assert_uint_eq(memory_io_count(disk, IO_CALL_WRITE), 1);
}
END_TEST

/* ---- the table ---------------------------------------------------------------------------------------------------- */

START_TEST(opening_and_names_answer_as_the_system_does)
{
    npk_file *file = NULL, *directory = NULL;
    npk_file_info info;
    bool created = true;
    ck_assert_int_eq(io->open_root(io, "none", false, &file, &created), ENOENT);
    ck_assert_int_eq(io->open_root(io, "store/", true, &directory, &created), 0);
    ck_assert(!created);
    io->close(io, directory);
    ck_assert_int_eq(io->open(io, root, "none", NPK_OPEN_READ, &file), ENOENT);
    ck_assert_int_eq(io->open(io, root, "none", NPK_OPEN_READ | NPK_OPEN_CREATE, &file), EINVAL);
    ck_assert_int_eq(io->open(io, root, "../store", NPK_OPEN_READ, &file), EINVAL);
    io->close(io, create(root, "f"));
    ck_assert_int_eq(io->open(io, root, "f", NPK_OPEN_WRITE | NPK_OPEN_CREATE | NPK_OPEN_EXCLUSIVE, &file), EEXIST);
    ck_assert_int_eq(io->open(io, root, "f", NPK_OPEN_DIRECTORY, &file), ENOTDIR);
    ck_assert_int_eq(io->make_directory(io, root, "d"), 0);
    ck_assert_int_eq(io->make_directory(io, root, "d"), EEXIST);
    ck_assert_int_eq(io->open(io, root, "d", NPK_OPEN_READ, &file), EISDIR);
    ck_assert_int_eq(io->open(io, root, "d", NPK_OPEN_DIRECTORY, &directory), 0);
    io->close(io, create(directory, "inside"));
    ck_assert_int_eq(io->unlink(io, root, "d"), EISDIR);
    ck_assert_int_eq(io->remove_directory(io, root, "d"), ENOTEMPTY);
    ck_assert_int_eq(io->remove_directory(io, root, "f"), ENOTDIR);
    ck_assert_int_eq(io->rename(io, root, "f", "d"), EISDIR);
    ck_assert_int_eq(io->rename(io, root, "none", "d"), ENOENT);
    ck_assert_int_eq(io->unlink(io, directory, "inside"), 0);
    io->close(io, directory);
    ck_assert_int_eq(io->remove_directory(io, root, "d"), 0);
    ck_assert_int_eq(io->info_at(io, root, "f", &info), 0);
    ck_assert(info.is_regular && !info.is_directory && info.size == 0);
    ck_assert_int_eq(io->info_at(io, root, "d", &info), ENOENT);
    char bytes[4];
    size_t done;
    ck_assert_int_eq(io->open(io, root, "f", NPK_OPEN_READ, &file), 0);
    ck_assert_int_eq(io->write(io, file, 0, "x", 1, &done), EBADF);
    ck_assert_int_eq(io->read(io, file, 100, bytes, 4, &done), 0);
    ck_assert_uint_eq(done, 0);
    ck_assert_int_eq(io->unlink(io, root, "f"), 0);
    ck_assert_int_eq(io->info(io, file, &info), 0); /* lives while it is open */
    io->close(io, file);
    io->close(io, NULL);
}
END_TEST

START_TEST(locks_belong_to_the_open_file)
{
    npk_file *one = create(root, "lock"), *two, *reader;
    ck_assert_int_eq(io->open(io, root, "lock", NPK_OPEN_WRITE, &two), 0);
    ck_assert_int_eq(io->open(io, root, "lock", NPK_OPEN_READ, &reader), 0);
    ck_assert_int_eq(io->lock(io, one, 10, 10, NPK_LOCK_EXCLUSIVE), 0);
    ck_assert_int_eq(io->lock(io, two, 19, 5, NPK_LOCK_SHARED), EAGAIN);
    ck_assert_int_eq(io->lock_test(io, two, 19, 5, NPK_LOCK_SHARED), EAGAIN);
    ck_assert_int_eq(io->lock(io, two, 20, 5, NPK_LOCK_SHARED), 0);
    ck_assert_int_eq(io->lock(io, one, 12, 2, NPK_LOCK_NONE), 0); /* a hole in the middle */
    ck_assert_int_eq(io->lock(io, two, 12, 2, NPK_LOCK_EXCLUSIVE), 0);
    ck_assert_int_eq(io->lock(io, two, 11, 1, NPK_LOCK_SHARED), EAGAIN);
    ck_assert_int_eq(io->lock(io, two, 14, 1, NPK_LOCK_SHARED), EAGAIN);
    ck_assert_int_eq(io->lock(io, one, 14, 6, NPK_LOCK_SHARED), 0); /* converts */
    ck_assert_int_eq(io->lock(io, two, 14, 1, NPK_LOCK_SHARED), 0);
    ck_assert_int_eq(io->lock(io, one, 14, 6, NPK_LOCK_EXCLUSIVE), EAGAIN);
    ck_assert_int_eq(io->lock(io, reader, 14, 1, NPK_LOCK_SHARED), 0);
    ck_assert_int_eq(io->lock(io, reader, 50, 1, NPK_LOCK_EXCLUSIVE), EBADF);
    ck_assert_int_eq(io->lock(io, one, 0, 0, NPK_LOCK_SHARED), EINVAL);
    io->close(io, one);
    io->close(io, reader);
    ck_assert_int_eq(io->lock(io, two, 0, 1000, NPK_LOCK_EXCLUSIVE), 0);
    io->close(io, two);
}
END_TEST

START_TEST(a_full_disk_takes_no_more_until_something_goes)
{
    memory_io_set_capacity(disk, 16384);
    npk_file *one = create(root, "one"), *two = create(root, "two");
    put(one, 0, 'a', 8192);
    put(two, 0, 'a', 8192);
    size_t done;
    ck_assert_int_eq(io->write(io, one, 8192, "x", 1, &done), ENOSPC);
    ck_assert_int_eq(io->allocate(io, one, 0, 8193), ENOSPC);
    put(one, 100, 'b', 10); /* in place */
    ck_assert_int_eq(io->unlink(io, root, "two"), 0);
    ck_assert_int_eq(io->write(io, one, 8192, "x", 1, &done), ENOSPC); /* still open */
    io->close(io, two);
    ck_assert_int_eq(io->sync(io, root), 0);
    ck_assert_int_eq(io->write(io, one, 8192, "x", 1, &done), 0);
    io->close(io, one);
}
END_TEST

START_TEST(clock_random_and_process_are_in_our_hands)
{
    memory_io_set_clock(disk, 1000, 2);
    ck_assert_uint_eq(io->now_us(io), 1002);
    ck_assert_uint_eq(io->monotonic_us(io), 1004);
    io->sleep_us(io, 3600000000u);
    ck_assert_uint_eq(io->now_us(io), 3600001006u);
    uint64_t one = 0, two = 0, three = 0;
    ck_assert_int_eq(io->random(io, &one, 8), 0);
    memory_io *twin = memory_io_create(NULL);
    ck_assert_int_eq(memory_io_table(twin)->random(memory_io_table(twin), &two, 8), 0);
    memory_io_destroy(twin);
    ck_assert_uint_eq(one, two);
    memory_io *later = crash(MEMORY_IO_ALL, 0, MEMORY_IO_DROPPED, 0);
    ck_assert_int_eq(memory_io_table(later)->random(memory_io_table(later), &three, 8), 0);
    memory_io_destroy(later);
    ck_assert_uint_ne(one, three);
    npk_process set = {.pid = 7, .pid_namespace = 8, .host = "h", .program = "p"}, got;
    memory_io_set_process(disk, &set);
    io->process(io, &got);
    ck_assert_mem_eq(&set, &got, sizeof set);
    ck_assert(!io->is_network(io, root));
    memory_io_set_network(disk, true);
    ck_assert(io->is_network(io, root));
    char path[100];
    ck_assert_int_eq(io->real_path(io, root, path, sizeof path), ENOTSUP);
}
END_TEST

START_TEST(the_index_is_a_real_directory_whose_name_can_be_lost)
{
    char real[] = "/dev/shm/npk-memory-XXXXXX", other_real[] = "/dev/shm/npk-memory-XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(real));
    ck_assert_ptr_nonnull(mkdtemp(other_real));
    ck_assert_int_eq(io->make_directory(io, root, "index"), ENOTSUP);
    tear_down();
    memory_io_options options = {.real_path = real};
    open_disk(&options);
    npk_file *index, *file, *below;
    ck_assert_int_eq(io->open(io, root, "index", NPK_OPEN_DIRECTORY, &index), ENOENT);
    ck_assert_int_eq(io->make_directory(io, root, "index"), 0);
    ck_assert_int_eq(io->make_directory(io, root, "index"), EEXIST);
    ck_assert_int_eq(io->open(io, root, "index", NPK_OPEN_DIRECTORY, &index), 0);
    ck_assert_int_eq(io->open(io, index, "control", NPK_OPEN_WRITE | NPK_OPEN_CREATE, &file), 0);
    put(file, 0, 'c', 4096);
    ck_assert_int_eq(io->sync(io, file), 0);
    ck_assert_int_eq(io->lock(io, file, 0, 1, NPK_LOCK_EXCLUSIVE), 0);
    char *map;
    ck_assert_int_eq(io->map(io, file, 0, 4096, NPK_MAPPING_SHARED, (void **)&map), 0);
    map[0] = 'd';
    ck_assert_int_eq(io->make_directory(io, index, "0123"), 0);
    ck_assert_int_eq(io->open(io, index, "0123", NPK_OPEN_DIRECTORY, &below), 0);
    char path[128], name[256];
    ck_assert_int_eq(io->real_path(io, below, path, sizeof path), 0);
    (void)snprintf(name, sizeof name, "%s/data.mdb", path);
    FILE *out = fopen(name, "w");
    ck_assert_ptr_nonnull(out);
    (void)fclose(out);
    npk_file_info info;
    ck_assert_int_eq(io->info_at(io, below, "data.mdb", &info), 0);
    ck_assert_int_eq(io->info_at(io, root, "index", &info), 0);
    ck_assert(info.is_directory);

    memory_snapshot *snapshot = memory_io_snapshot(disk);
    ck_assert_uint_eq(memory_snapshot_unit_count(snapshot), 1); /* only its name */
    for (int survives = 0; survives < 2; survives++) {
        memory_io_selection selection = {survives ? MEMORY_IO_ALL : MEMORY_IO_NONE, MEMORY_IO_DROPPED, 0, 0};
        memory_io *other = memory_io_materialize(snapshot, &selection, other_real);
        const npk_io *table = memory_io_table(other);
        npk_file *store, *again;
        ck_assert_int_eq(table->open_root(table, "store", false, &store, NULL), 0);
        ck_assert_int_eq(table->open(table, store, "index", NPK_OPEN_DIRECTORY, &again), survives ? 0 : ENOENT);
        if (survives) {
            ck_assert_int_eq(table->info_at(table, again, "control", &info), ENOENT);
            io->close(table, again);
        }
        memory_io_destroy(other);
    }
    memory_snapshot_release(snapshot);
    io->unmap(io, map, 4096);
    ck_assert_int_eq(io->unlink(io, below, "data.mdb"), 0);
    ck_assert_int_eq(io->remove_directory(io, index, "0123"), 0);
    ck_assert_int_eq(io->unlink(io, index, "control"), 0);
    ck_assert_int_eq(io->remove_directory(io, root, "index"), 0);
    io->close(io, below);
    io->close(io, file);
    io->close(io, index);
    ck_assert_int_eq(rmdir(real), 0);
    char left[128];
    (void)snprintf(left, sizeof left, "rm -rf %s", other_real);
    ck_assert_int_eq(system(left), 0);
}
END_TEST

START_TEST(a_tree_goes_to_a_real_directory_and_back)
{
    npk_file *directory, *file;
    ck_assert_int_eq(io->make_directory(io, root, "wal"), 0);
    ck_assert_int_eq(io->open(io, root, "wal", NPK_OPEN_DIRECTORY, &directory), 0);
    file = create(directory, "1.wal");
    put(file, 0, 'a', 5000);
    put(file, 9000, 'b', 1);
    io->close(io, file);
    io->close(io, directory);
    io->close(io, create(root, "LOCK"));
    char path[] = "/dev/shm/npk-export-XXXXXX", inside[64], command[64];
    ck_assert_ptr_nonnull(mkdtemp(path));
    (void)snprintf(inside, sizeof inside, "%s/copy", path);
    ck_assert_int_eq(memory_io_export(disk, "store", inside), 0);
    ck_assert_int_eq(memory_io_export(disk, "none", inside), ENOENT);
    memory_io *other = memory_io_create(NULL);
    ck_assert_int_eq(memory_io_import(other, "store", inside), 0);
    ck_assert_int_eq(memory_io_import(other, "store", inside), EEXIST);
    ck_assert_uint_eq(memory_io_hash(other), memory_io_hash(disk));
    ck_assert_int_eq(memory_io_damage(other, "store", "wal/1.wal", 100, "x", 1), 0);
    ck_assert_int_eq(memory_io_damage(other, "store", "wal/1.wal", 9001, "x", 1), EINVAL);
    ck_assert_int_eq(memory_io_damage(other, "store", "wal/2.wal", 0, "x", 1), ENOENT);
    ck_assert_uint_ne(memory_io_hash(other), memory_io_hash(disk));
    ck_assert_int_eq(memory_io_damage(other, "store", "wal/1.wal", 100, "a", 1), 0);
    ck_assert_uint_eq(memory_io_hash(other), memory_io_hash(disk));
    ck_assert_int_eq(memory_io_set_size(other, "store", "wal/1.wal", 5000), 0);
    ck_assert_int_eq(memory_io_set_size(other, "store", "wal/1.wal", 9001), 0);
    ck_assert_uint_ne(memory_io_hash(other), memory_io_hash(disk)); /* the last byte is gone */
    ck_assert_int_eq(memory_io_remove(other, "store", "LOCK"), 0);
    ck_assert_str_eq(look(other, "LOCK"), "absent");
    memory_io_destroy(other);
    (void)snprintf(command, sizeof command, "rm -rf %s", path);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

/* Against a plain model: after any run of calls, "none" is what was synced and "all" is what was written. */
START_TEST(random_runs_agree_with_a_plain_model)
{
    for (uint64_t seed = 0; seed < 60; seed++) {
        rng r = rng_seeded(seed);
        uint8_t live[3000] = {0}, durable[3000] = {0};
        size_t live_size = 0, durable_size = 0;
        char name[16];
        (void)snprintf(name, sizeof name, "f%llu", (unsigned long long)seed);
        npk_file *file = create(root, name);
        ck_assert_int_eq(io->sync(io, root), 0);
        void *map = NULL;
        for (int step = 0; step < 40; step++) {
            if (rng_chance(&r, 1, 8)) {
                ck_assert_int_eq(io->sync(io, file), 0);
                memcpy(durable, live, sizeof live);
                durable_size = live_size;
            } else {
                size_t offset = rng_below(&r, 2000), size = 1 + rng_below(&r, 1000), done;
                uint8_t bytes[1000];
                rng_fill(&r, bytes, size);
                ck_assert_int_eq(io->write(io, file, offset, bytes, size, &done), 0);
                memcpy(live + offset, bytes, size);
                if (offset + size > live_size)
                    live_size = offset + size;
            }
            if (step == 20)
                ck_assert_int_eq(io->map(io, file, 0, 3000, NPK_MAPPING_READ, &map), 0);
            for (int whole = 0; whole < 2; whole++) {
                memory_io *other = crash(whole ? MEMORY_IO_ALL : MEMORY_IO_NONE, 0, MEMORY_IO_DROPPED, 0);
                const npk_io *table = memory_io_table(other);
                npk_file *store, *again;
                uint8_t bytes[3001];
                size_t done;
                ck_assert_int_eq(table->open_root(table, "store", false, &store, NULL), 0);
                ck_assert_int_eq(table->open(table, store, name, NPK_OPEN_READ, &again), 0);
                ck_assert_int_eq(table->read(table, again, 0, bytes, sizeof bytes, &done), 0);
                ck_assert_uint_eq(done, whole ? live_size : durable_size);
                ck_assert_mem_eq(bytes, whole ? live : durable, done);
                memory_io_destroy(other);
            }
            if (map)
                ck_assert_mem_eq(map, live, live_size);
        }
        io->unmap(io, map, 3000);
        io->close(io, file);
        ck_assert_int_eq(io->unlink(io, root, name), 0);
    }
}
END_TEST

static void *write_and_read(void *context)
{
    const char *name = context;
    npk_file *file = create(root, name);
    for (uint64_t i = 0; i < 300; i++) {
        char bytes[700];
        size_t done;
        put(file, i * 100, name[0], 700);
        ck_assert_int_eq(io->read(io, file, i * 100, bytes, 700, &done), 0);
        ck_assert_int_eq(bytes[699], name[0]);
        if (i % 16 == 0)
            ck_assert_int_eq(io->sync(io, i % 32 ? file : root), 0);
        if (i % 50 == 0)
            memory_io_destroy(crash(MEMORY_IO_RANDOM, 0, MEMORY_IO_DROPPED, i));
    }
    io->close(io, file);
    return NULL;
}

START_TEST(threads_may_use_one_disk)
{
    pthread_t threads[3];
    static char names[3][2] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, write_and_read, names[i]), 0);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    ck_assert_str_eq(look(disk, "b"), "b30600");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("memory_io");
    TCase *tests = tcase_create("memory_io");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, a_name_is_durable_only_after_its_directory_is_synced);
    tcase_add_test(tests, a_new_directory_needs_its_parent_synced_too);
    tcase_add_test(tests, an_ext4_like_sync_takes_the_name_along);
    tcase_add_test(tests, replacing_a_file_never_shows_anything_between);
    tcase_add_test(tests, a_rename_without_a_sync_of_the_file_can_leave_it_empty);
    tcase_add_test(tests, a_name_change_concerns_its_own_inode_whatever_else_was_lost);
    tcase_add_test(tests, nothing_is_ordered_without_a_sync);
    tcase_add_test(tests, size_and_bytes_of_an_append_persist_apart);
    tcase_add_test(tests, bytes_lost_beyond_the_size_do_not_come_back);
    tcase_add_test(tests, writes_tear_at_sectors_and_keep_what_shares_the_sector);
    tcase_add_test(tests, garbage_comes_only_where_bytes_change);
    tcase_add_test(tests, allocated_bytes_are_zero_and_need_a_sync);
    tcase_add_test(tests, a_failed_sync_can_forget_what_it_should_have_written);
    tcase_add_test(tests, maps_outlive_unlink_rename_close_and_the_disk);
    tcase_add_test(tests, stores_through_a_shared_map_reach_file_and_disk);
    tcase_add_test(tests, a_dead_process_leaves_the_cache_and_no_locks);
    tcase_add_test(tests, a_snapshot_stays_as_it_was_taken);
    tcase_add_test(tests, files_survive_whole_or_not_at_all);
    tcase_add_test(tests, all_subsets_of_few_units_are_tried_and_many_of_more);
    tcase_add_test(tests, the_hook_sees_every_mutating_call_before_and_after);
    tcase_add_test(tests, opening_and_names_answer_as_the_system_does);
    tcase_add_test(tests, locks_belong_to_the_open_file);
    tcase_add_test(tests, a_full_disk_takes_no_more_until_something_goes);
    tcase_add_test(tests, clock_random_and_process_are_in_our_hands);
    tcase_add_test(tests, the_index_is_a_real_directory_whose_name_can_be_lost);
    tcase_add_test(tests, a_tree_goes_to_a_real_directory_and_back);
    tcase_add_test(tests, random_runs_agree_with_a_plain_model);
    tcase_add_test(tests, threads_may_use_one_disk);
    suite_add_tcase(suite, tests);
    return check_main(suite);
}
