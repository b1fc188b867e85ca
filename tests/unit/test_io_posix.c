/* test_io_posix.c - the system table over the real system. */
#define _GNU_SOURCE /* unshare, program_invocation_short_name */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "alloc.h"
#include "bytes.h"
#include "check_main.h"
#include "io.h"

static const npk_io *io;
static char place[64];
static npk_file *root;

static void set_up(void)
{
    io = npk_io_posix();
    (void)snprintf(place, sizeof place, "/dev/shm/npk-io-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(place));
    ck_assert_int_eq(io->open_root(io, place, false, &root, NULL), 0);
}

static void tear_down(void)
{
    io->close(io, root);
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", place);
    ck_assert_int_eq(system(command), 0);
}

static const char *at(const char *name)
{
    static char path[2][256];
    static int turn;
    turn = !turn;
    (void)snprintf(path[turn], sizeof path[turn], "%s/%s", place, name);
    return path[turn];
}

static npk_file *create(const char *name)
{
    npk_file *file;
    ck_assert_int_eq(io->open(io, root, name, NPK_OPEN_WRITE | NPK_OPEN_CREATE | NPK_OPEN_EXCLUSIVE, &file), 0);
    return file;
}

static int open_status(const char *name, unsigned flags)
{
    npk_file *file = NULL;
    int rc = io->open(io, root, name, flags, &file);
    if (!rc)
        io->close(io, file);
    return rc;
}

START_TEST(a_root_is_made_when_asked_and_only_announced_by_its_maker)
{
    npk_file *directory = NULL;
    bool created = true;
    ck_assert_int_eq(io->open_root(io, at("new"), false, &directory, &created), ENOENT);
    ck_assert_int_eq(io->open_root(io, at("new"), true, &directory, &created), 0);
    ck_assert(created);
    ck_assert_int_eq(io->sync_parent(io, directory, at("new")), 0);
    io->close(io, directory);
    ck_assert_int_eq(io->open_root(io, at("new/"), true, &directory, &created), 0);
    ck_assert(!created);
    io->close(io, directory);
    io->close(io, create("file"));
    ck_assert_int_eq(io->open_root(io, at("file"), true, &directory, &created), ENOTDIR);
    ck_assert_int_eq(io->open_root(io, at("no/where"), true, &directory, &created), ENOENT);
    ck_assert_int_eq(io->open_root(io, "", true, &directory, &created), ENOENT);
    io->close(io, NULL);
}
END_TEST

START_TEST(a_root_may_be_reached_through_a_link)
{
    npk_file *directory = NULL;
    ck_assert_int_eq(symlink(place, at("loop")), 0);
    ck_assert_int_eq(io->open_root(io, at("loop"), false, &directory, NULL), 0);
    npk_file_info one, two;
    ck_assert_int_eq(io->info(io, directory, &one), 0);
    ck_assert_int_eq(io->info(io, root, &two), 0);
    ck_assert_uint_eq(one.inode, two.inode);
    ck_assert_uint_eq(one.device, two.device);
    ck_assert_int_eq(io->sync_parent(io, directory, at("loop")), 0);
    io->close(io, directory);
}
END_TEST

START_TEST(only_regular_files_and_directories_are_opened)
{
    ck_assert_int_eq(mkfifo(at("fifo"), 0600), 0);
    ck_assert_int_eq(open_status("fifo", NPK_OPEN_READ), EINVAL); /* and does not hang */
    ck_assert_int_eq(open_status("fifo", NPK_OPEN_WRITE), EINVAL);
    ck_assert_int_eq(open_status("fifo", NPK_OPEN_WRITE | NPK_OPEN_CREATE), EINVAL);
    ck_assert_int_eq(open_status("fifo", NPK_OPEN_DIRECTORY), ENOTDIR);

    io->close(io, create("file"));
    ck_assert_int_eq(symlink("file", at("link")), 0);
    ck_assert_int_eq(open_status("link", NPK_OPEN_READ), ELOOP);
    ck_assert_int_eq(open_status("link", NPK_OPEN_WRITE | NPK_OPEN_CREATE), ELOOP);
    ck_assert_int_eq(symlink("absent", at("dangling")), 0);
    ck_assert_int_ne(open_status("dangling", NPK_OPEN_WRITE | NPK_OPEN_CREATE), 0);
    ck_assert_int_eq(access(at("absent"), F_OK), -1);

    ck_assert_int_eq(io->make_directory(io, root, "directory"), 0);
    ck_assert_int_eq(io->make_directory(io, root, "directory"), EEXIST);
    ck_assert_int_eq(symlink("directory", at("to_directory")), 0);
    ck_assert_int_eq(open_status("to_directory", NPK_OPEN_DIRECTORY), ENOTDIR);
    ck_assert_int_eq(open_status("directory", NPK_OPEN_READ), EISDIR);
    ck_assert_int_eq(open_status("directory", NPK_OPEN_WRITE), EISDIR);
    ck_assert_int_eq(open_status("directory", NPK_OPEN_DIRECTORY), 0);
    ck_assert_int_eq(open_status("file", NPK_OPEN_DIRECTORY), ENOTDIR);

    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", at("socket"));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(open_status("socket", NPK_OPEN_READ), EINVAL);
    (void)close(fd);

    npk_file_info info;
    ck_assert_int_eq(io->info_at(io, root, "link", &info), 0);
    ck_assert(!info.is_regular && !info.is_directory);
    ck_assert_int_eq(io->info_at(io, root, "directory", &info), 0);
    ck_assert(info.is_directory && !info.is_regular);
    ck_assert_int_eq(io->info_at(io, root, "nothing", &info), ENOENT);
}
END_TEST

START_TEST(a_name_cannot_lead_out_of_the_directory)
{
    static const char *const names[] = {"", ".", "..", "../x", "a/b", "/etc/passwd"};
    npk_file_info info;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        ck_assert_int_eq(open_status(names[i], NPK_OPEN_READ), EINVAL);
        ck_assert_int_eq(open_status(names[i], NPK_OPEN_DIRECTORY), EINVAL);
        ck_assert_int_eq(io->info_at(io, root, names[i], &info), EINVAL);
        ck_assert_int_eq(io->make_directory(io, root, names[i]), EINVAL);
        ck_assert_int_eq(io->unlink(io, root, names[i]), EINVAL);
        ck_assert_int_eq(io->remove_directory(io, root, names[i]), EINVAL);
        ck_assert_int_eq(io->rename(io, root, names[i], "x"), EINVAL);
        ck_assert_int_eq(io->rename(io, root, "x", names[i]), EINVAL);
    }
}
END_TEST

START_TEST(files_are_created_exclusively_and_not_inherited)
{
    npk_file *file = create("file");
    ck_assert_int_eq(open_status("file", NPK_OPEN_WRITE | NPK_OPEN_CREATE | NPK_OPEN_EXCLUSIVE), EEXIST);
    ck_assert_int_eq(open_status("file", NPK_OPEN_WRITE | NPK_OPEN_CREATE), 0);
    ck_assert_int_eq(open_status("none", NPK_OPEN_WRITE), ENOENT);
    ck_assert_int_eq(open_status("none", NPK_OPEN_READ | NPK_OPEN_CREATE), EINVAL);
    ck_assert_int_eq(open_status("none", NPK_OPEN_DIRECTORY | NPK_OPEN_WRITE | NPK_OPEN_CREATE), EINVAL);
    for (int fd = 3; fd < 64; fd++) {
        char target[300], link[64];
        (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, target, sizeof target - 1);
        if (n > 0 && (size_t)n >= strlen(place) && memcmp(target, place, strlen(place)) == 0)
            ck_assert_int_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    }
    io->close(io, file);
}
END_TEST

START_TEST(bytes_are_written_read_and_synced)
{
    npk_file *file = create("file");
    size_t done = 0;
    ck_assert_int_eq(io->write(io, file, 5, "hello", 5, &done), 0);
    ck_assert_uint_eq(done, 5);
    char bytes[20];
    ck_assert_int_eq(io->read(io, file, 0, bytes, sizeof bytes, &done), 0);
    ck_assert_uint_eq(done, 10);
    ck_assert_mem_eq(bytes, "\0\0\0\0\0hello", 10);
    ck_assert_int_eq(io->read(io, file, 10, bytes, sizeof bytes, &done), 0);
    ck_assert_uint_eq(done, 0);
    ck_assert_int_eq(io->read(io, file, UINT64_MAX, bytes, 1, &done), EINVAL);
    ck_assert_int_eq(io->write(io, file, UINT64_MAX, bytes, 1, &done), EFBIG);
    ck_assert_int_eq(io->start_writeback(io, file, 0, 10), 0);
    ck_assert_int_eq(io->sync(io, file), 0);
    ck_assert_int_eq(io->sync(io, root), 0);
    npk_file_info info;
    ck_assert_int_eq(io->allocate(io, file, 4096, 4096), 0);
    ck_assert_int_eq(io->allocate(io, file, 0, 100), 0); /* never shrinks, never clears */
    ck_assert_int_eq(io->allocate(io, file, 0, 0), 0);
    ck_assert_int_eq(io->allocate(io, file, UINT64_MAX, 2), EFBIG);
    ck_assert_int_eq(io->info(io, file, &info), 0);
    ck_assert_uint_eq(info.size, 8192);
    ck_assert(info.is_regular && !info.is_directory);
    ck_assert_int_eq(io->read(io, file, 5, bytes, 5, &done), 0);
    ck_assert_mem_eq(bytes, "hello", 5);
    io->close(io, file);
    ck_assert_int_eq(io->open(io, root, "file", NPK_OPEN_READ, &file), 0);
    ck_assert_int_eq(io->write(io, file, 0, "x", 1, &done), EBADF);
    io->close(io, file);
}
END_TEST

static int remember(void *context, const char *name)
{
    char *text = context;
    (void)snprintf(text + strlen(text), 100 - strlen(text), "%s,", name);
    return strcmp(name, "stop") == 0 ? 77 : 0;
}

START_TEST(names_are_listed_renamed_and_removed)
{
    char names[100] = "";
    ck_assert_int_eq(io->list(io, root, remember, names), 0);
    ck_assert_str_eq(names, "");
    io->close(io, create("a"));
    ck_assert_int_eq(io->list(io, root, remember, names), 0);
    ck_assert_str_eq(names, "a,");
    ck_assert_int_eq(io->list(io, root, remember, names), 0); /* starts afresh each time */
    ck_assert_str_eq(names, "a,a,");
    io->close(io, create("b"));
    ck_assert_int_eq(io->rename(io, root, "a", "b"), 0);
    ck_assert_int_eq(io->rename(io, root, "a", "b"), ENOENT);
    ck_assert_int_eq(io->rename(io, root, "b", "stop"), 0);
    names[0] = '\0';
    ck_assert_int_eq(io->list(io, root, remember, names), 77);
    ck_assert_str_eq(names, "stop,");
    ck_assert_int_eq(io->unlink(io, root, "stop"), 0);
    ck_assert_int_eq(io->unlink(io, root, "stop"), ENOENT);
    ck_assert_int_eq(io->make_directory(io, root, "d"), 0);
    ck_assert_int_eq(io->unlink(io, root, "d"), EISDIR);
    ck_assert_int_eq(io->remove_directory(io, root, "d"), 0);
    ck_assert_int_eq(io->remove_directory(io, root, "d"), ENOENT);
}
END_TEST

START_TEST(two_opens_of_one_process_exclude_each_other)
{
    npk_file *one = create("lock"), *two;
    ck_assert_int_eq(io->open(io, root, "lock", NPK_OPEN_WRITE, &two), 0);
    ck_assert_int_eq(io->lock(io, one, 10, 1, NPK_LOCK_EXCLUSIVE), 0);
    ck_assert_int_eq(io->lock(io, one, 10, 1, NPK_LOCK_EXCLUSIVE), 0);
    ck_assert_int_eq(io->lock(io, two, 10, 1, NPK_LOCK_EXCLUSIVE), EAGAIN);
    ck_assert_int_eq(io->lock(io, two, 10, 1, NPK_LOCK_SHARED), EAGAIN);
    ck_assert_int_eq(io->lock_test(io, two, 0, 100, NPK_LOCK_SHARED), EAGAIN);
    ck_assert_int_eq(io->lock_test(io, one, 0, 100, NPK_LOCK_EXCLUSIVE), 0);
    ck_assert_int_eq(io->lock_test(io, two, 10, 1, NPK_LOCK_NONE), 0);
    ck_assert_int_eq(io->lock(io, two, 9, 1, NPK_LOCK_EXCLUSIVE), 0);
    ck_assert_int_eq(io->lock(io, two, 11, 1, NPK_LOCK_EXCLUSIVE), 0);
    ck_assert_int_eq(io->lock(io, one, 10, 1, NPK_LOCK_SHARED), 0); /* converts */
    ck_assert_int_eq(io->lock(io, two, 10, 1, NPK_LOCK_SHARED), 0);
    ck_assert_int_eq(io->lock(io, one, 10, 1, NPK_LOCK_EXCLUSIVE), EAGAIN);
    ck_assert_int_eq(io->lock_test(io, one, 10, 1, NPK_LOCK_SHARED), 0); /* and kept the shared one */
    ck_assert_int_eq(io->lock(io, two, 10, 1, NPK_LOCK_NONE), 0);
    ck_assert_int_eq(io->lock(io, one, 10, 1, NPK_LOCK_EXCLUSIVE), 0);
    /* A third open that is closed takes no lock away: that is what sets these apart from POSIX locks. */
    ck_assert_int_eq(open_status("lock", NPK_OPEN_WRITE), 0);
    ck_assert_int_eq(io->lock_test(io, two, 10, 1, NPK_LOCK_SHARED), EAGAIN);
    io->close(io, one);
    ck_assert_int_eq(io->lock(io, two, 10, 1, NPK_LOCK_EXCLUSIVE), 0);
    ck_assert_int_eq(io->lock(io, two, 0, 0, NPK_LOCK_SHARED), EINVAL);
    ck_assert_int_eq(io->lock_test(io, two, UINT64_MAX, 1, NPK_LOCK_SHARED), EINVAL);
    io->close(io, two);
}
END_TEST

START_TEST(a_lock_excludes_another_process_and_ends_with_its_owner)
{
    npk_file *mine = create("lock");
    ck_assert_int_eq(io->lock(io, mine, 0, 1, NPK_LOCK_EXCLUSIVE), 0);
    int down[2], up[2];
    ck_assert_int_eq(pipe(down), 0);
    ck_assert_int_eq(pipe(up), 0);
    pid_t child = fork();
    if (child == 0) {
        /* The inherited description still is the parent's; a new open is the child's own. */
        npk_file *own;
        int bad = io->open(io, root, "lock", NPK_OPEN_WRITE, &own) != 0;
        bad = bad || io->lock(io, own, 0, 1, NPK_LOCK_SHARED) != EAGAIN;
        bad = bad || io->lock_test(io, own, 0, 1, NPK_LOCK_SHARED) != EAGAIN;
        bad = bad || io->lock(io, own, 1, 1, NPK_LOCK_EXCLUSIVE) != 0;
        char answer = bad ? 'n' : 'y';
        bad = write(up[1], &answer, 1) != 1 || read(down[0], &answer, 1) != 1;
        _exit(bad); /* without closing: death must release the lock */
    }
    char answer;
    ck_assert_int_eq(read(up[0], &answer, 1), 1);
    ck_assert_int_eq(answer, 'y');
    ck_assert_int_eq(io->lock(io, mine, 1, 1, NPK_LOCK_EXCLUSIVE), EAGAIN);
    ck_assert_int_eq(write(down[1], "x", 1), 1);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert_int_eq(io->lock(io, mine, 1, 1, NPK_LOCK_EXCLUSIVE), 0);
    io->close(io, mine);
    for (int i = 0; i < 2; i++) {
        (void)close(down[i]);
        (void)close(up[i]);
    }
}
END_TEST

START_TEST(maps_keep_what_they_show)
{
    npk_file *file = create("file");
    size_t done;
    char bytes[4096];
    memset(bytes, 'a', sizeof bytes);
    ck_assert_int_eq(io->write(io, file, 0, bytes, sizeof bytes, &done), 0);
    void *seen, *copy, *shared;
    ck_assert_int_eq(io->map(io, file, 0, 4096, NPK_MAPPING_READ, &seen), 0);
    ck_assert_int_eq(io->map(io, file, 0, 4096, NPK_MAPPING_PRIVATE, &copy), 0);
    ck_assert_int_eq(io->map(io, file, 0, 4096, NPK_MAPPING_SHARED, &shared), 0);
    ck_assert_int_eq(io->map(io, file, 0, 0, NPK_MAPPING_READ, &shared), EINVAL);
    ((char *)copy)[0] = 'p';
    ck_assert_int_eq(((char *)seen)[0], 'a');
    ((char *)shared)[1] = 's';
    ck_assert_int_eq(((char *)seen)[1], 's');
    io->close(io, file);
    io->close(io, create("other"));
    ck_assert_int_eq(io->rename(io, root, "other", "file"), 0);
    ck_assert_int_eq(io->unlink(io, root, "file"), 0);
    ck_assert_int_eq(((char *)seen)[4095], 'a');
    io->unmap(io, seen, 4096);
    io->unmap(io, copy, 4096);
    io->unmap(io, shared, 4096);
    io->unmap(io, NULL, 0);
}
END_TEST

START_TEST(memory_is_zero_aligned_and_can_be_made_read_only)
{
    static const size_t sizes[] = {1, 4096, 100000, 2 << 20, (5 << 20) + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *memory;
        ck_assert_int_eq(io->map_memory(io, sizes[i], &memory), 0);
        ck_assert_uint_eq((uintptr_t)memory % (sizes[i] >= 2 << 20 ? 2 << 20 : 4096), 0);
        ck_assert(npk_is_zero(memory, sizes[i]));
        memset(memory, 1, sizes[i]);
        ck_assert_int_eq(io->protect_read(io, memory, sizes[i]), 0);
        pid_t child = fork();
        if (child == 0) {
            (void)signal(SIGSEGV, SIG_DFL);
            ((volatile char *)memory)[sizes[i] - 1] = 2;
            _exit(0);
        }
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
        io->unmap(io, memory, sizes[i]);
    }
    void *memory;
    ck_assert_int_eq(io->map_memory(io, 0, &memory), EINVAL);
    ck_assert_int_eq(io->map_memory(io, SIZE_MAX, &memory), ENOMEM);
    ck_assert_int_eq(io->map_memory(io, SIZE_MAX / 4, &memory), ENOMEM);
}
END_TEST

static volatile sig_atomic_t signals;

static void count_signal(int number)
{
    (void)number;
    signals++;
}

START_TEST(a_file_size_limit_gives_efbig_and_no_signal)
{
    npk_file *file = create("file");
    (void)signal(SIGXFSZ, count_signal);
    struct rlimit before, limit;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 10000;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    static char bytes[8192];
    size_t done = 0;
    int first = io->write(io, file, 0, bytes, sizeof bytes, &done);
    size_t first_done = done;
    int second = io->write(io, file, 8192, bytes, sizeof bytes, &done);
    size_t second_done = done;
    int third = io->write(io, file, 10000, bytes, 1, &done);
    int fourth = io->allocate(io, file, 0, 20000);
    int fifth = io->allocate(io, file, 0, 10000);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    ck_assert_int_eq(first, 0);
    ck_assert_uint_eq(first_done, 8192);
    ck_assert_int_eq(second, 0);
    ck_assert_uint_eq(second_done, 10000 - 8192);
    ck_assert_int_eq(third, EFBIG);
    ck_assert_int_eq(fourth, EFBIG);
    ck_assert_int_eq(fifth, 0);
    sigset_t pending, mask;
    ck_assert_int_eq(sigpending(&pending), 0);
    ck_assert_int_eq(sigismember(&pending, SIGXFSZ), 0);
    ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
    ck_assert_int_eq(sigismember(&mask, SIGXFSZ), 0);
    ck_assert_int_eq(sigismember(&mask, SIGINT), 0);
    ck_assert_int_eq(signals, 0);
    ck_assert_int_eq(io->write(io, file, 10000, bytes, 1, &done), 0);
    io->close(io, file);
}
END_TEST

/* A name space of our own in which mounting is allowed; user and group must exist in it, or nothing can be created. */
static bool mount_ramfs(void)
{
    char user[32], group[32];
    (void)snprintf(user, sizeof user, "0 %u 1", (unsigned)getuid());
    (void)snprintf(group, sizeof group, "0 %u 1", (unsigned)getgid());
    if (unshare(CLONE_NEWNS) != 0) {
        static const char *const files[3] = {"/proc/self/setgroups", "/proc/self/uid_map", "/proc/self/gid_map"};
        const char *const texts[3] = {"deny", user, group};
        if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
            return false;
        for (size_t i = 0; i < 3; i++) {
            FILE *file = fopen(files[i], "w");
            if (!file || fputs(texts[i], file) < 0 || fclose(file) != 0)
                return false;
        }
    }
    return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && mount("ramfs", place, "ramfs", 0, NULL) == 0;
}

/* ramfs has no fallocate. 0: as it should be, 1: not, 77: this process may not mount one. */
static int allocate_without_fallocate(void)
{
    if (!mount_ramfs())
        return 77;
    npk_file *directory, *file;
    npk_file_info info;
    char bytes[8];
    size_t done;
    if (io->open_root(io, place, false, &directory, NULL) ||
        io->open(io, directory, "f", NPK_OPEN_WRITE | NPK_OPEN_CREATE, &file))
        return 1;
    bool good = !io->write(io, file, 100, "kept", 4, &done) &&
                !io->allocate(io, file, 0, 200001) && !io->info(io, file, &info) && info.size == 200001 &&
                !io->read(io, file, 100, bytes, 5, &done) && done == 5 && memcmp(bytes, "kept", 5) == 0 &&
                !io->allocate(io, file, 0, 10) && !io->info(io, file, &info) && info.size == 200001;
    struct rlimit limit = {250000, 250000};
    (void)signal(SIGXFSZ, SIG_DFL);
    good = good && !setrlimit(RLIMIT_FSIZE, &limit) && io->allocate(io, file, 0, 300000) == EFBIG;
    io->close(io, file);
    io->close(io, directory);
    return good ? 0 : 1;
}

START_TEST(without_fallocate_zeros_are_written_behind_the_end)
{
    pid_t child = fork();
    if (child == 0)
        _exit(allocate_without_fallocate());
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    ck_assert(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77);
    if (WEXITSTATUS(status) == 77)
        (void)printf("no ramfs here: allocation without fallocate was not tested\n");
}
END_TEST

static int fail_always(void *context, size_t size)
{
    (void)context;
    (void)size;
    return 1;
}

START_TEST(short_memory_leaves_nothing_behind)
{
    npk_alloc_set_hook(fail_always, NULL);
    npk_file *file;
    int opened = open_status("file", NPK_OPEN_WRITE | NPK_OPEN_CREATE);
    int rooted = io->open_root(io, at("new"), true, &file, NULL);
    npk_alloc_set_hook(NULL, NULL);
    ck_assert_int_eq(opened, ENOMEM);
    ck_assert_int_eq(rooted, ENOMEM);
    ck_assert_int_eq(access(at("file"), F_OK), -1);
    ck_assert_int_eq(access(at("new"), F_OK), -1);
}
END_TEST

START_TEST(clocks_random_numbers_and_the_process_are_real)
{
    ck_assert_uint_gt(io->now_us(io), UINT64_C(1600000000000000));
    uint64_t before = io->monotonic_us(io);
    io->sleep_us(io, 2000);
    ck_assert_uint_ge(io->monotonic_us(io), before + 2000);
    uint8_t one[1000] = {0}, two[1000] = {0};
    ck_assert_int_eq(io->random(io, one, sizeof one), 0);
    ck_assert_int_eq(io->random(io, two, sizeof two), 0);
    ck_assert_mem_ne(one, two, sizeof one);
    ck_assert(!npk_is_zero(one + 900, 100));
    npk_process process;
    io->process(io, &process);
    ck_assert_uint_eq(process.pid, (uint64_t)getpid());
    ck_assert_uint_ne(process.pid_namespace, 0);
    ck_assert_uint_gt(strlen(process.host), 0);
    ck_assert_uint_gt(strlen(process.program), 0);
    ck_assert_mem_eq(process.program, program_invocation_short_name, strlen(process.program)); /* cut at 15 bytes */
}
END_TEST

START_TEST(tmpfs_is_no_network)
{
    ck_assert(!io->is_network(io, root));
}
END_TEST

START_TEST(the_real_path_follows_the_directory)
{
    npk_file *directory;
    ck_assert_int_eq(io->make_directory(io, root, "old"), 0);
    ck_assert_int_eq(io->open(io, root, "old", NPK_OPEN_DIRECTORY, &directory), 0);
    char path[64], name[128];
    ck_assert_int_eq(io->real_path(io, directory, path, sizeof path), 0);
    ck_assert_int_eq(io->real_path(io, directory, path, 5), ERANGE);
    ck_assert_int_eq(io->real_path(io, directory, path, sizeof path), 0);
    ck_assert_int_eq(io->rename(io, root, "old", "new"), 0);
    (void)snprintf(name, sizeof name, "%s/inside", path);
    FILE *file = fopen(name, "w");
    ck_assert_ptr_nonnull(file);
    (void)fclose(file);
    ck_assert_int_eq(access(at("new/inside"), F_OK), 0);
    ck_assert_int_eq(io->remove_directory(io, root, "new"), ENOTEMPTY);
    ck_assert_int_eq(io->unlink(io, directory, "inside"), 0);
    io->close(io, directory);
}
END_TEST

START_TEST(replacing_a_file_is_whole_or_not_at_all)
{
    npk_error err;
    npk_file *file;
    char bytes[8];
    size_t done;
    ck_assert_int_eq(npk_io_replace_file(io, root, "t", "name", "old", 3, &err), NPK_OK);
    ck_assert_int_eq(npk_io_replace_file(io, root, "t", "name", "new!", 4, &err), NPK_OK);
    ck_assert_int_eq(open_status("t", NPK_OPEN_READ), ENOENT);
    ck_assert_int_eq(io->open(io, root, "name", NPK_OPEN_READ, &file), 0);
    ck_assert_int_eq(npk_io_read_full(io, file, 0, bytes, 8, &done, "name", &err), NPK_OK);
    ck_assert_uint_eq(done, 4);
    ck_assert_mem_eq(bytes, "new!", 4);
    ck_assert_int_eq(npk_io_read_full(io, file, 0, bytes, 8, NULL, "name", &err), NPK_CORRUPT);
    io->close(io, file);
    ck_assert_int_eq(io->make_directory(io, root, "directory"), 0);
    ck_assert_int_eq(npk_io_replace_file(io, root, "t", "directory", "x", 1, &err), NPK_IO);
    ck_assert_int_eq(open_status("t", NPK_OPEN_READ), ENOENT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("io_posix");
    TCase *tests = tcase_create("io_posix");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, a_root_is_made_when_asked_and_only_announced_by_its_maker);
    tcase_add_test(tests, a_root_may_be_reached_through_a_link);
    tcase_add_test(tests, only_regular_files_and_directories_are_opened);
    tcase_add_test(tests, a_name_cannot_lead_out_of_the_directory);
    tcase_add_test(tests, files_are_created_exclusively_and_not_inherited);
    tcase_add_test(tests, bytes_are_written_read_and_synced);
    tcase_add_test(tests, names_are_listed_renamed_and_removed);
    tcase_add_test(tests, two_opens_of_one_process_exclude_each_other);
    tcase_add_test(tests, a_lock_excludes_another_process_and_ends_with_its_owner);
    tcase_add_test(tests, maps_keep_what_they_show);
    tcase_add_test(tests, memory_is_zero_aligned_and_can_be_made_read_only);
    tcase_add_test(tests, a_file_size_limit_gives_efbig_and_no_signal);
    tcase_add_test(tests, without_fallocate_zeros_are_written_behind_the_end);
    tcase_add_test(tests, short_memory_leaves_nothing_behind);
    tcase_add_test(tests, clocks_random_numbers_and_the_process_are_real);
    tcase_add_test(tests, tmpfs_is_no_network);
    tcase_add_test(tests, the_real_path_follows_the_directory);
    tcase_add_test(tests, replacing_a_file_is_whole_or_not_at_all);
    suite_add_tcase(suite, tests);
    return check_main(suite);
}
