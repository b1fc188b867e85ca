/* checksum.h - the one checksum of the store: XXH3-64 with seed 0 (xxHash 0.8 and later, a frozen format). */
#ifndef NPK_BASE_CHECKSUM_H
#define NPK_BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

uint64_t npk_checksum(const void *bytes, size_t size);

/* Streaming form for what does not lie in one piece. Owned by the caller; NULL when memory is short. */
typedef struct npk_checksum_stream npk_checksum_stream;
npk_checksum_stream *npk_checksum_open(void);
void npk_checksum_reset(npk_checksum_stream *stream);
void npk_checksum_add(npk_checksum_stream *stream, const void *bytes, size_t size);
uint64_t npk_checksum_digest(const npk_checksum_stream *stream);
void npk_checksum_close(npk_checksum_stream *stream);

#endif
