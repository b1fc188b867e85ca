/* common.c - what every benchmark needs. */
#include "common.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char scratch[512];
static pid_t scratch_owner; /* a forked child must not remove its parent's directory */

double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

void fill_random(void *out, size_t size, uint64_t seed)
{
    uint64_t state = seed | 1;
    for (size_t at = 0; at < size; at += 8) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        memcpy((char *)out + at, &state, size - at < 8 ? size - at : 8);
    }
}

void stop(const char *what, const char *why)
{
    fprintf(stderr, "bench: %s: %s\n", what, why);
    exit(2);
}

void must(npk_status status, const npk_error *err, const char *what)
{
    if (status != NPK_OK)
        stop(what, err->message);
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status, (void)kind, (void)where;
    return remove(path);
}

void remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void scratch_remove(void)
{
    if (getpid() == scratch_owner)
        remove_tree(scratch);
}

const char *scratch_make(const char *parent)
{
    if (!parent)
        parent = getenv("TMPDIR");
    snprintf(scratch, sizeof scratch, "%s/npk-bench-XXXXXX", parent ? parent : "/tmp");
    if (!mkdtemp(scratch))
        stop(scratch, "could not create a scratch directory");
    scratch_owner = getpid();
    atexit(scratch_remove);
    return scratch;
}

void scratch_path(char *out, size_t size, const char *name)
{
    snprintf(out, size, "%s/%s", scratch, name);
}
