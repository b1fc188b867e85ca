/* replay.c - gives every file of the directories in the arguments to the target, without a fuzzer: the corpus is a test like any other. */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"

static char now[4096]; /* said when the target dies */

static int replay(const char *path)
{
    FILE *in = fopen(path, "rb");
    struct stat info;
    if (!in || fstat(fileno(in), &info) != 0) {
        perror(path);
        return 1;
    }
    size_t size = (size_t)info.st_size;
    uint8_t *bytes = malloc(size ? size : 1);
    int bad = !bytes || fread(bytes, 1, size, in) != size;
    (void)fclose(in);
    if (bad) {
        (void)fprintf(stderr, "could not read %s\n", path);
        free(bytes);
        return 1;
    }
    (void)snprintf(now, sizeof now, "%s", path);
    (void)LLVMFuzzerTestOneInput(bytes, size);
    /* And every prefix of the small ones, a part of the others'. */
    size_t step = size / 200 + 1;
    for (size_t part = 0; part < size; part += step) {
        uint8_t *copy = malloc(part ? part : 1);
        if (copy) {
            memcpy(copy, bytes, part);
            (void)LLVMFuzzerTestOneInput(copy, part);
        }
        free(copy);
    }
    free(bytes);
    return 0;
}

static void say_where(int number)
{
    static const char text[] = "died at ";
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    (void)!write(STDERR_FILENO, now, strlen(now));
    (void)!write(STDERR_FILENO, "\n", 1);
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

int main(int argc, char **argv)
{
    int failed = 0, count = 0;
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        (void)signal(signals[i], say_where);
    (void)alarm(300);
    for (int i = 1; i < argc; i++) {
        DIR *directory = opendir(argv[i]);
        if (!directory) {
            failed += replay(argv[i]);
            count++;
            continue;
        }
        struct dirent *entry;
        while ((entry = readdir(directory)) != NULL) {
            char path[4096];
            if (entry->d_name[0] == '.')
                continue;
            (void)snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name);
            failed += replay(path);
            count++;
        }
        (void)closedir(directory);
    }
    (void)printf("%d inputs replayed\n%s: Checks: %d, Failures: %d, Errors: 0\n", count, count && !failed ? "100%" : "0%", count ? count : 1,
                 count ? failed : 1);
    return count && !failed ? EXIT_SUCCESS : EXIT_FAILURE;
}
