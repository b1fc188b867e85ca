/* checksum.h - the one checksum of the store: XXH3-64 with seed 0 (xxHash 0.8 and later, a frozen format). */
#ifndef NPK_BASE_CHECKSUM_H
#define NPK_BASE_CHECKSUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint64_t npk_checksum(const void *bytes, size_t size);
/* Does what was read back have this checksum? Always when built for a fuzzer (FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION), which would
 * otherwise never get past one: what comes behind must hold for any bytes. */
bool npk_checksum_matches(const void *bytes, size_t size, uint64_t expected);

/* Streaming form for what does not lie in one piece. Owned by the caller; NULL when memory is short. */
typedef struct npk_checksum_stream npk_checksum_stream;
npk_checksum_stream *npk_checksum_open(void);
void npk_checksum_reset(npk_checksum_stream *stream);
void npk_checksum_add(npk_checksum_stream *stream, const void *bytes, size_t size);
uint64_t npk_checksum_digest(const npk_checksum_stream *stream);
void npk_checksum_close(npk_checksum_stream *stream);

#endif
