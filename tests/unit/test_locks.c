/* test_locks.c - byte ranges of LOCK, and the names of the store's files both ways. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "locks.h"
#include "store_files.h"

static char path[64];
static const npk_io *io;
static npk_file *directory, *mine, *other; /* two descriptions of LOCK, as of two processes */
static npk_error err;

static void set_up(void)
{
    io = npk_io_posix();
    snprintf(path, sizeof path, "/tmp/npk-test-locks-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(path));
    ck_assert_int_eq(io->open_root(io, path, false, &directory, NULL), 0);
    ck_assert_int_eq(io->open(io, directory, "LOCK", NPK_OPEN_WRITE | NPK_OPEN_CREATE, &mine), 0);
    ck_assert_int_eq(io->open(io, directory, "LOCK", NPK_OPEN_WRITE, &other), 0);
}

static void tear_down(void)
{
    io->close(io, mine);
    io->close(io, other);
    (void)io->unlink(io, directory, "LOCK");
    io->close(io, directory);
    ck_assert_int_eq(remove(path), 0);
}

static bool try_lock(npk_file *file, uint64_t byte, npk_lock_kind kind)
{
    bool got = false;
    ck_assert_int_eq(npk_locks_try(io, file, byte, kind, &got, &err), NPK_OK);
    return got;
}

START_TEST(exclusive_excludes_and_shared_shares)
{
    ck_assert(try_lock(mine, NPK_LOCK_WRITER, NPK_LOCK_EXCLUSIVE));
    ck_assert(!try_lock(other, NPK_LOCK_WRITER, NPK_LOCK_EXCLUSIVE));
    ck_assert(!try_lock(other, NPK_LOCK_WRITER, NPK_LOCK_SHARED));
    ck_assert(try_lock(other, NPK_LOCK_COMPACTOR, NPK_LOCK_EXCLUSIVE)); /* another byte */
    npk_locks_release(io, mine, NPK_LOCK_WRITER);
    ck_assert(try_lock(other, NPK_LOCK_WRITER, NPK_LOCK_SHARED));
    ck_assert(try_lock(mine, NPK_LOCK_WRITER, NPK_LOCK_SHARED));
    ck_assert(!try_lock(mine, NPK_LOCK_WRITER, NPK_LOCK_EXCLUSIVE)); /* keeps what it has */
    ck_assert(!try_lock(other, NPK_LOCK_WRITER, NPK_LOCK_EXCLUSIVE));
    npk_locks_release(io, mine, NPK_LOCK_WRITER);
    ck_assert(try_lock(other, NPK_LOCK_WRITER, NPK_LOCK_EXCLUSIVE)); /* converted */
    ck_assert(!try_lock(mine, NPK_LOCK_WRITER, NPK_LOCK_SHARED));
}
END_TEST

START_TEST(pin_slots_are_bytes_of_their_own)
{
    for (uint64_t i = 0; i < 1024; i += 111)
        ck_assert(try_lock(i % 2 ? mine : other, NPK_LOCK_PIN_BASE + i, NPK_LOCK_EXCLUSIVE));
    ck_assert(!try_lock(other, NPK_LOCK_PIN_BASE + 111, NPK_LOCK_EXCLUSIVE));
}
END_TEST

START_TEST(waiting_ends_at_the_timeout)
{
    ck_assert(try_lock(other, NPK_LOCK_WRITER, NPK_LOCK_EXCLUSIVE));
    npk_wait wait = {.timeout_us = 50000};
    uint64_t start = io->monotonic_us(io);
    ck_assert_int_eq(npk_locks_wait(io, mine, NPK_LOCK_WRITER, NPK_LOCK_EXCLUSIVE, &wait, &err), NPK_BUSY);
    uint64_t waited = io->monotonic_us(io) - start;
    ck_assert_uint_ge(waited, 50000);
    ck_assert_uint_lt(waited, 5000000);
    wait.timeout_us = 0; /* one try */
    ck_assert_int_eq(npk_locks_wait(io, mine, NPK_LOCK_WRITER, NPK_LOCK_EXCLUSIVE, &wait, &err), NPK_BUSY);
    npk_locks_release(io, other, NPK_LOCK_WRITER);
    ck_assert_int_eq(npk_locks_wait(io, mine, NPK_LOCK_WRITER, NPK_LOCK_EXCLUSIVE, &wait, &err), NPK_OK);
}
END_TEST

static int calls;

static int stop_at_third(void *context)
{
    ck_assert_ptr_eq(context, &calls);
    return ++calls == 3;
}

START_TEST(waiting_can_be_interrupted)
{
    ck_assert(try_lock(other, NPK_LOCK_WRITER, NPK_LOCK_EXCLUSIVE));
    npk_wait wait = {.timeout_us = 60000000, .interrupt = stop_at_third, .context = &calls};
    ck_assert_int_eq(npk_locks_wait(io, mine, NPK_LOCK_WRITER, NPK_LOCK_EXCLUSIVE, &wait, &err), NPK_INTERRUPTED);
    ck_assert_int_eq(calls, 3);
    ck_assert(try_lock(other, NPK_LOCK_WRITER, NPK_LOCK_EXCLUSIVE)); /* nothing was taken */
}
END_TEST

START_TEST(a_dead_process_gives_its_locks_up)
{
    int ready[2];
    ck_assert_int_eq(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        npk_file *own;
        bool got = false;
        if (io->open(io, directory, "LOCK", NPK_OPEN_WRITE, &own) == 0)
            (void)npk_locks_try(io, own, NPK_LOCK_WRITER, NPK_LOCK_EXCLUSIVE, &got, NULL);
        if (!got || write(ready[1], "x", 1) != 1)
            _exit(1);
        io->sleep_us(io, 50000);
        _exit(0);
    }
    char byte;
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    ck_assert(!try_lock(mine, NPK_LOCK_WRITER, NPK_LOCK_EXCLUSIVE));
    npk_wait wait = {.timeout_us = 20000000};
    ck_assert_int_eq(npk_locks_wait(io, mine, NPK_LOCK_WRITER, NPK_LOCK_EXCLUSIVE, &wait, &err), NPK_OK);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    (void)close(ready[0]);
    (void)close(ready[1]);
}
END_TEST

START_TEST(a_replaced_lock_file_is_noticed)
{
    npk_file_info mine_info, made_info;
    ck_assert_int_eq(io->info(io, mine, &mine_info), 0);
    ck_assert_int_eq(npk_locks_check_name(io, directory, &mine_info, &err), NPK_OK);
    npk_file *made;
    ck_assert_int_eq(io->open(io, directory, "LOCK2", NPK_OPEN_WRITE | NPK_OPEN_CREATE, &made), 0);
    ck_assert_int_eq(io->rename(io, directory, "LOCK2", "LOCK"), 0);
    ck_assert_int_eq(io->info(io, made, &made_info), 0);
    ck_assert_int_eq(npk_locks_check_name(io, directory, &mine_info, &err), NPK_MISUSE);
    ck_assert_int_eq(npk_locks_check_name(io, directory, &made_info, &err), NPK_OK);
    ck_assert_int_eq(io->unlink(io, directory, "LOCK"), 0);
    ck_assert_int_eq(npk_locks_check_name(io, directory, &made_info, &err), NPK_MISUSE);
    io->close(io, made);
}
END_TEST

static int fault; /* errno for lock and info_at */

static int lock_fails(const npk_io *table, npk_file *file, uint64_t offset, uint64_t size, npk_lock_kind kind)
{
    (void)table;
    if (fault == EINTR) {
        fault = 0;
        return EINTR;
    }
    return fault ? fault : io->lock(io, file, offset, size, kind);
}

static int info_at_fails(const npk_io *table, npk_file *in, const char *name, npk_file_info *info)
{
    (void)table;
    (void)in;
    (void)name;
    (void)info;
    return fault;
}

START_TEST(errors_of_the_system_are_reported)
{
    npk_io faulty = *io;
    faulty.lock = lock_fails;
    faulty.info_at = info_at_fails;
    bool got = true;
    fault = ENOLCK;
    ck_assert_int_eq(npk_locks_try(&faulty, mine, NPK_LOCK_GATE, NPK_LOCK_SHARED, &got, &err), NPK_IO);
    ck_assert_int_eq(err.sys_errno, ENOLCK);
    npk_wait wait = {.timeout_us = 1000000};
    ck_assert_int_eq(npk_locks_wait(&faulty, mine, NPK_LOCK_GATE, NPK_LOCK_SHARED, &wait, &err), NPK_IO);
    fault = EIO;
    npk_file_info mine_info;
    ck_assert_int_eq(io->info(io, mine, &mine_info), 0);
    ck_assert_int_eq(npk_locks_check_name(&faulty, directory, &mine_info, &err), NPK_IO);
    fault = EINTR;
    ck_assert_int_eq(npk_locks_try(&faulty, mine, NPK_LOCK_GATE, NPK_LOCK_SHARED, &got, &err), NPK_OK);
    ck_assert(got);
}
END_TEST

/* ---- names ---------------------------------------------------------------------------------------------------------------- */

typedef struct name_kind {
    void (*encode)(uint64_t number, char name[NPK_FILE_NAME_SIZE]);
    bool (*decode)(const char *name, uint64_t *number);
    const char *ending;
    bool zero_allowed;
} name_kind;

static const name_kind kinds[] = {
    {npk_store_files_encode_column, npk_store_files_decode_column, ".npy", false},
    {npk_store_files_encode_column_temp, npk_store_files_decode_column_temp, ".tmp", false},
    {npk_store_files_encode_checkpoint, npk_store_files_decode_checkpoint, ".ckpt", true},
    {npk_store_files_encode_checkpoint_temp, npk_store_files_decode_checkpoint_temp, ".tmp", true},
    {npk_store_files_encode_index, npk_store_files_decode_index, "", false},
};

START_TEST(names_decode_to_what_they_encode)
{
    const name_kind *kind = &kinds[_i];
    const uint64_t numbers[] = {1, 15, 0x0123456789abcdef, UINT64_MAX, UINT64_MAX - 1, (uint64_t)1 << 63, 4096};
    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        char name[NPK_FILE_NAME_SIZE], expected[64];
        kind->encode(numbers[i], name);
        snprintf(expected, sizeof expected, "%016llx%s", (unsigned long long)numbers[i], kind->ending);
        ck_assert_str_eq(name, expected);
        uint64_t back = 0;
        ck_assert(kind->decode(name, &back));
        ck_assert_uint_eq(back, numbers[i]);
    }
}
END_TEST

START_TEST(other_names_are_refused)
{
    const name_kind *kind = &kinds[_i];
    static const char *const stems[] = {"",  "1", "000000000000001", "00000000000000001", "000000000000000A", "000000000000000g",
                                        " 000000000000001", "0x00000000000001", "-000000000000001", "000000000000001\n",
                                        "\377000000000000001", "0000000000000001 "};
    uint64_t number = 77;
    char name[64];
    for (unsigned i = 0; i < sizeof stems / sizeof stems[0]; i++) {
        snprintf(name, sizeof name, "%s%s", stems[i], kind->ending);
        ck_assert_msg(!kind->decode(name, &number), "%s", name);
    }
    static const char *const endings[] = {".npy", ".tmp", ".ckpt", "", ".np", ".npyx", ".NPY", ".", ".ckp", "~", "/"};
    for (unsigned i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        snprintf(name, sizeof name, "0000000000000001%s", endings[i]);
        bool same = strcmp(endings[i], kind->ending) == 0;
        ck_assert_int_eq(kind->decode(name, &number), same);
        ck_assert_uint_eq(number, same ? 1 : 77);
        number = 77;
    }
    snprintf(name, sizeof name, "0000000000000000%s", kind->ending);
    ck_assert_int_eq(kind->decode(name, &number), kind->zero_allowed);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("locks");
    TCase *tests = tcase_create("locks");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, exclusive_excludes_and_shared_shares);
    tcase_add_test(tests, pin_slots_are_bytes_of_their_own);
    tcase_add_test(tests, waiting_ends_at_the_timeout);
    tcase_add_test(tests, waiting_can_be_interrupted);
    tcase_add_test(tests, a_dead_process_gives_its_locks_up);
    tcase_add_test(tests, a_replaced_lock_file_is_noticed);
    tcase_add_test(tests, errors_of_the_system_are_reported);
    suite_add_tcase(suite, tests);
    TCase *names = tcase_create("names");
    tcase_add_loop_test(names, names_decode_to_what_they_encode, 0, sizeof kinds / sizeof kinds[0]);
    tcase_add_loop_test(names, other_names_are_refused, 0, sizeof kinds / sizeof kinds[0]);
    suite_add_tcase(suite, names);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
