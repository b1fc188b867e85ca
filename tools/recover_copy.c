/* recover_copy.c - keep the files that a repair may change. */
#include "recover_copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int fail(char *message, size_t message_size, const char *what, const char *name)
{
    snprintf(message, message_size, "could not %s \"%s\": %s", what, name, strerror(errno));
    return -1;
}

static int copy_bytes(int from, int to)
{
    static char block[1 << 20];
    ssize_t count;
    while ((count = read(from, block, sizeof block)) != 0) {
        if (count < 0) {
            if (errno == EINTR)
                continue;
            return -1;
        }
        for (ssize_t done = 0; done < count;) {
            ssize_t written = write(to, block + done, (size_t)(count - done));
            if (written < 0) {
                if (errno == EINTR)
                    continue;
                return -1;
            }
            done += written;
        }
    }
    return fsync(to);
}

/* Links are not followed and only regular files count, as everywhere in the store: anything else is no part of it. */
static int copy_file(int from_directory, int to_directory, const char *name)
{
    int from = openat(from_directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (from < 0)
        return errno == ELOOP ? 0 : -1;
    int result = -1, to = -1;
    struct stat status;
    if (fstat(from, &status))
        goto done;
    if (!S_ISREG(status.st_mode)) {
        result = 0;
        goto done;
    }
    to = openat(to_directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (to >= 0)
        result = copy_bytes(from, to);
done:;
    int saved = errno;
    if (to >= 0 && close(to) && result == 0) {
        result = -1;
        saved = errno;
    }
    close(from);
    errno = saved;
    return result;
}

/* Every file of the subdirectory name; a store without it has nothing to copy there. */
static int copy_directory(int store, int target, const char *name, char *message, size_t message_size)
{
    int from = openat(store, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (from < 0)
        return errno == ENOENT ? 0 : fail(message, message_size, "open", name);
    int result = -1, to = -1;
    DIR *stream = fdopendir(from);
    if (!stream) {
        close(from);
        return fail(message, message_size, "read", name);
    }
    if (mkdirat(target, name, 0700) || (to = openat(target, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        fail(message, message_size, "create", name);
        goto done;
    }
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(stream);
        if (!entry)
            break;
        if (entry->d_name[0] == '.')
            continue;
        if (copy_file(from, to, entry->d_name)) {
            fail(message, message_size, "copy", entry->d_name);
            goto done;
        }
    }
    if (errno || fsync(to)) {
        fail(message, message_size, "copy", name);
        goto done;
    }
    result = 0;
done:
    if (to >= 0)
        close(to);
    closedir(stream);
    return result;
}

int recover_copy_aside(const char *store, char *target, size_t target_size, char *message, size_t message_size)
{
    size_t length = strlen(store);
    while (length > 1 && store[length - 1] == '/')
        length--;
    char when[32];
    time_t now = time(NULL);
    struct tm parts;
    if (!gmtime_r(&now, &parts) || !strftime(when, sizeof when, "%Y%m%dT%H%M%SZ", &parts))
        return fail(message, message_size, "read", "clock");

    /* Two repairs within a second get two directories. */
    for (int attempt = 0;; attempt++) {
        int size = attempt ? snprintf(target, target_size, "%.*s.repair-%s-%d", (int)length, store, when, attempt)
                           : snprintf(target, target_size, "%.*s.repair-%s", (int)length, store, when);
        if (size < 0 || (size_t)size >= target_size) {
            errno = ENAMETOOLONG;
            return fail(message, message_size, "create a directory beside", store);
        }
        if (mkdir(target, 0700) == 0)
            break;
        if (errno != EEXIST || attempt == 99)
            return fail(message, message_size, "create", target);
    }

    int result = -1, from = -1, to = -1;
    if ((from = open(store, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        fail(message, message_size, "open", store);
        goto done;
    }
    if ((to = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        fail(message, message_size, "open", target);
        goto done;
    }
    if (copy_file(from, to, "FORMAT") && errno != ENOENT) {
        fail(message, message_size, "copy", "FORMAT");
        goto done;
    }
    if (copy_directory(from, to, "wal", message, message_size) ||
        copy_directory(from, to, "checkpoint", message, message_size))
        goto done;
    if (fsync(to)) {
        fail(message, message_size, "sync", target);
        goto done;
    }
    result = 0;
done:
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    return result;
}
