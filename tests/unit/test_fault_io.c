/* test_fault_io.c - faults hit exactly the planned calls. */
#include <errno.h>
#include <string.h>

#include "check_main.h"
#include "fault_io.h"
#include "memory_io.h"

static memory_io *disk;
static fault_io *fault;
static const npk_io *io;
static npk_file *root, *file;

static void set_up(void)
{
    disk = memory_io_create(NULL);
    fault = fault_io_create(memory_io_table(disk));
    io = fault_io_table(fault);
    ck_assert_int_eq(io->open_root(io, "store", true, &root, NULL), 0);
    ck_assert_int_eq(io->open(io, root, "f", NPK_OPEN_WRITE | NPK_OPEN_CREATE, &file), 0);
}

static void tear_down(void)
{
    io->close(io, file);
    io->close(io, root);
    fault_io_destroy(fault);
    fault_io_destroy(NULL);
    memory_io_destroy(disk);
}

static int put(uint64_t offset, const char *text, size_t *done)
{
    return io->write(io, file, offset, text, strlen(text), done);
}

START_TEST(the_planned_call_fails_once)
{
    fault_plan plan = {.kinds = IO_CALL_BIT(WRITE), .index = 1, .sys_errno = EIO};
    size_t done;
    fault_io_plan(fault, &plan);
    ck_assert_int_eq(put(0, "a", &done), 0);
    ck_assert_int_eq(io->sync(io, file), 0);
    ck_assert_uint_eq(fault_io_fired(fault), 0);
    ck_assert_int_eq(put(1, "b", &done), EIO);
    ck_assert_int_eq(put(2, "c", &done), 0);
    ck_assert_uint_eq(fault_io_fired(fault), 1);
    ck_assert_uint_eq(fault_io_matched(fault), 3);
    ck_assert_uint_eq(fault_io_count(fault, IO_CALL_SYNC), 1);
    char bytes[4];
    ck_assert_int_eq(io->read(io, file, 0, bytes, 4, &done), 0);
    ck_assert_uint_eq(done, 3);
    ck_assert_mem_eq(bytes, "a\0c", 3);
    fault_io_plan(fault, NULL);
    ck_assert_int_eq(put(1, "b", &done), 0);
    ck_assert_uint_eq(fault_io_fired(fault), 0);
}
END_TEST

START_TEST(from_then_on_every_matching_call_fails)
{
    fault_plan plan = {.kinds = IO_CALL_BIT(WRITE) | IO_CALL_BIT(ALLOCATE), .index = 1, .forever = true, .sys_errno = ENOSPC};
    size_t done;
    fault_io_plan(fault, &plan);
    ck_assert_int_eq(put(0, "a", &done), 0);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(put(1, "b", &done), ENOSPC);
        ck_assert_int_eq(io->allocate(io, file, 0, 100), ENOSPC);
        ck_assert_int_eq(io->sync(io, file), 0);
    }
    ck_assert_uint_eq(fault_io_fired(fault), 6);
}
END_TEST

START_TEST(without_kinds_each_call_that_can_fail_is_hit_in_turn)
{
    npk_file *other;
    uint64_t k = 0;
    for (;; k++) {
        fault_plan plan = {.index = k, .sys_errno = EIO};
        npk_file_info info;
        char bytes[4];
        size_t done;
        void *map;
        int failures = 0;
        fault_io_plan(fault, &plan);
        failures += io->open(io, root, "g", NPK_OPEN_WRITE | NPK_OPEN_CREATE, &other) ? 1 : (io->close(io, other), 0);
        failures += put(0, "a", &done) != 0;
        failures += io->read(io, file, 0, bytes, 1, &done) != 0;
        failures += io->sync(io, file) != 0;
        failures += io->sync_parent(io, root, "store") != 0;
        failures += io->start_writeback(io, file, 0, 1) != 0;
        failures += io->info(io, file, &info) != 0;
        failures += io->info_at(io, root, "f", &info) != 0;
        failures += io->lock(io, file, 0, 1, NPK_LOCK_EXCLUSIVE) != 0;
        failures += io->lock_test(io, file, 0, 1, NPK_LOCK_EXCLUSIVE) != 0;
        failures += io->random(io, bytes, 4) != 0;
        if (io->map(io, file, 0, 1, NPK_MAPPING_READ, &map))
            failures++;
        else
            io->unmap(io, map, 1);
        ck_assert_int_eq(failures, fault_io_fired(fault) ? 1 : 0);
        if (!fault_io_fired(fault))
            break;
    }
    ck_assert_uint_eq(k, 12);
}
END_TEST

START_TEST(short_calls_do_half)
{
    fault_plan plan = {.kinds = IO_CALL_BIT(WRITE) | IO_CALL_BIT(READ), .forever = true, .effect = FAULT_SHORT};
    size_t done = 0;
    npk_error err;
    char bytes[16];
    fault_io_plan(fault, &plan);
    ck_assert_int_eq(put(0, "abcdefgh", &done), 0);
    ck_assert_uint_eq(done, 4);
    ck_assert_int_eq(npk_io_write_full(io, file, 0, "abcdefgh", 8, "f", &err), NPK_OK);
    ck_assert_int_eq(npk_io_read_full(io, file, 0, bytes, 16, &done, "f", &err), NPK_OK);
    ck_assert_uint_eq(done, 8);
    ck_assert_mem_eq(bytes, "abcdefgh", 8);
    ck_assert_uint_gt(fault_io_fired(fault), 6);
}
END_TEST

START_TEST(interruptions_are_overcome_by_the_loops)
{
    fault_plan plan = {.kinds = IO_CALL_BIT(WRITE) | IO_CALL_BIT(READ), .forever = true, .sys_errno = EINTR};
    npk_error err;
    char bytes[8];
    fault_io_plan(fault, &plan);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(npk_io_write_full(io, file, 0, "abcdefgh", 8, "f", &err), NPK_OK);
        ck_assert_int_eq(npk_io_read_full(io, file, 0, bytes, 8, NULL, "f", &err), NPK_OK);
        ck_assert_mem_eq(bytes, "abcdefgh", 8);
    }
    ck_assert_uint_eq(fault_io_fired(fault), 6);
}
END_TEST

START_TEST(a_disk_that_fills_up_takes_half_first)
{
    fault_plan plan = {.kinds = IO_CALL_BIT(WRITE), .index = 1, .forever = true, .effect = FAULT_SHORT_THEN_ERRNO,
                       .sys_errno = ENOSPC};
    npk_error err;
    npk_file_info info;
    fault_io_plan(fault, &plan);
    ck_assert_int_eq(npk_io_write_full(io, file, 0, "abcd", 4, "f", &err), NPK_OK);
    ck_assert_int_eq(npk_io_write_full(io, file, 4, "efgh", 4, "f", &err), NPK_NO_SPACE);
    ck_assert_int_eq(err.sys_errno, ENOSPC);
    ck_assert_int_eq(npk_io_write_full(io, file, 4, "efgh", 4, "f", &err), NPK_NO_SPACE);
    ck_assert_int_eq(io->info(io, file, &info), 0);
    ck_assert_uint_eq(info.size, 6);
}
END_TEST

START_TEST(a_failing_sync_treats_the_pages_as_planned)
{
    size_t done;
    ck_assert_int_eq(put(0, "old", &done), 0);
    ck_assert_int_eq(io->sync(io, file), 0);
    ck_assert_int_eq(put(0, "new", &done), 0);
    fault_plan plan = {.kinds = IO_CALL_BIT(SYNC), .sys_errno = EIO, .memory = disk, .sync_failure = MEMORY_IO_CLEAN_OLD};
    fault_io_plan(fault, &plan);
    ck_assert_int_eq(io->sync(io, file), EIO);
    char bytes[3];
    ck_assert_int_eq(io->read(io, file, 0, bytes, 3, &done), 0);
    ck_assert_mem_eq(bytes, "old", 3);
    ck_assert_int_eq(io->sync(io, file), 0);
    /* Without a disk that takes part the sync is just not done. */
    plan.memory = NULL;
    ck_assert_int_eq(put(0, "new", &done), 0);
    fault_io_plan(fault, &plan);
    ck_assert_int_eq(io->sync(io, file), EIO);
    ck_assert_int_eq(io->read(io, file, 0, bytes, 3, &done), 0);
    ck_assert_mem_eq(bytes, "new", 3);
}
END_TEST

/* npk_io_replace_file under every fault: the old file or the new one, and no temporary name. */
START_TEST(replacing_a_file_survives_a_fault_at_each_call)
{
    npk_error err;
    npk_file_info info;
    static const int errnos[] = {EIO, ENOSPC, EINTR};
    ck_assert_int_eq(npk_io_replace_file(io, root, "t", "g", "old", 3, &err), NPK_OK);
    for (size_t e = 0; e < 3; e++)
        for (uint64_t k = 0;; k++) {
            fault_plan plan = {.index = k, .sys_errno = errnos[e]};
            fault_io_plan(fault, &plan);
            npk_status status = npk_io_replace_file(io, root, "t", "g", "newer", 5, &err);
            uint64_t fired = fault_io_fired(fault);
            fault_io_plan(fault, NULL);
            if (fired && status != NPK_OK)
                ck_assert_int_eq(err.status, status);
            ck_assert_int_eq(io->info_at(io, root, "g", &info), 0);
            ck_assert(info.size == 5 || (info.size == 3 && status != NPK_OK));
            ck_assert_int_eq(io->info_at(io, root, "t", &info), ENOENT);
            ck_assert_int_eq(npk_io_replace_file(io, root, "t", "g", "old", 3, &err), NPK_OK);
            if (!fired)
                break;
        }
}
END_TEST

static void remember(void *context, io_call_kind kind, uint64_t index)
{
    uint64_t *seen = context;
    seen[0] = kind;
    seen[1] = index;
}

START_TEST(the_hook_names_the_call)
{
    uint64_t seen[2] = {0, 0};
    size_t done;
    fault_plan plan = {.kinds = IO_CALL_BIT(WRITE), .index = 1, .sys_errno = EIO};
    fault_io_set_hook(fault, remember, seen);
    fault_io_plan(fault, &plan);
    ck_assert_int_eq(put(0, "a", &done), 0);
    ck_assert_uint_eq(seen[1], 0);
    ck_assert_int_eq(put(0, "a", &done), EIO);
    ck_assert_uint_eq(seen[0], IO_CALL_WRITE);
    ck_assert_uint_eq(seen[1], 1);
    ck_assert_str_eq(io_call_name((io_call_kind)seen[0]), "write");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fault_io");
    TCase *tests = tcase_create("fault_io");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, the_planned_call_fails_once);
    tcase_add_test(tests, from_then_on_every_matching_call_fails);
    tcase_add_test(tests, without_kinds_each_call_that_can_fail_is_hit_in_turn);
    tcase_add_test(tests, short_calls_do_half);
    tcase_add_test(tests, interruptions_are_overcome_by_the_loops);
    tcase_add_test(tests, a_disk_that_fills_up_takes_half_first);
    tcase_add_test(tests, a_failing_sync_treats_the_pages_as_planned);
    tcase_add_test(tests, replacing_a_file_survives_a_fault_at_each_call);
    tcase_add_test(tests, the_hook_names_the_call);
    suite_add_tcase(suite, tests);
    return check_main(suite);
}
