/* common.h - what every benchmark needs: time, medians, a scratch directory, and ending with a reason. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <stddef.h>
#include <stdint.h>

#include "npk.h"

double seconds_now(void);
double median(double *values, size_t count); /* sorts values */
void fill_random(void *out, size_t size, uint64_t seed);
_Noreturn void stop(const char *what, const char *why);
void must(npk_status status, const npk_error *err, const char *what);
const char *scratch_make(const char *parent); /* a new directory in parent (NULL: $TMPDIR or /tmp); removed at exit */
void scratch_path(char *out, size_t size, const char *name);
void remove_tree(const char *path);

#endif
