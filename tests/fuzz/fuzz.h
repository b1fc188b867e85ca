/* fuzz.h - what the targets share. A target is one function; libFuzzer calls it, and so does replay.c for each file of the corpus. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "kv.h"
#include "wal.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

/* What must hold and does not: ends the run, whatever the build. */
void fuzz_fail(const char *what);
#define FUZZ_CHECK(condition)       \
    do {                            \
        if (!(condition))           \
            fuzz_fail(#condition);  \
    } while (0)

/* Use every byte, so that a sanitizer sees those that are not there. */
void fuzz_touch(const void *bytes, size_t size);

/* Check and print the row index of every array of a state in memory; consistent: it must be in order. */
void fuzz_look_at_arrays(npk_kv *kv, int consistent);

#endif
