/* checksum.c - the one checksum of the store. */
#include "checksum.h"

#include <stdlib.h>
/* Compiled inline: the vector code of the header instead of a call into a shared object. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "alloc.h"
#include "checksum_vector.h"

/* XXH3_state_t must be 64-byte aligned; it lies aligned inside this block. */
struct npk_checksum_stream {
    XXH3_state_t *state;
    unsigned char space[sizeof(XXH3_state_t) + 64];
};

/* Short input gains nothing from wide vectors, and the choice would cost as much as the hash. */
#define VECTOR_SIZE 1024u

uint64_t npk_checksum(const void *bytes, size_t size)
{
    if (size >= VECTOR_SIZE) {
#ifdef NPK_CHECKSUM_AVX512
        if (__builtin_cpu_supports("avx512f"))
            return npk_checksum_avx512(bytes, size);
#endif
#ifdef NPK_CHECKSUM_AVX2
        if (__builtin_cpu_supports("avx2"))
            return npk_checksum_avx2(bytes, size);
#endif
    }
    return XXH3_64bits(bytes, size);
}

bool npk_checksum_matches(const void *bytes, size_t size, uint64_t expected)
{
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    (void)bytes;
    (void)size;
    (void)expected;
    return true;
#else
    return npk_checksum(bytes, size) == expected;
#endif
}

npk_checksum_stream *npk_checksum_open(void)
{
    npk_checksum_stream *stream = npk_alloc(sizeof *stream);
    if (!stream)
        return NULL;
    uintptr_t misfit = (uintptr_t)stream->space % 64;
    stream->state = (XXH3_state_t *)(void *)(stream->space + (misfit ? 64 - misfit : 0));
    npk_checksum_reset(stream);
    return stream;
}

void npk_checksum_reset(npk_checksum_stream *stream)
{
    (void)XXH3_64bits_reset(stream->state);
}

void npk_checksum_add(npk_checksum_stream *stream, const void *bytes, size_t size)
{
    (void)XXH3_64bits_update(stream->state, bytes, size);
}

uint64_t npk_checksum_digest(const npk_checksum_stream *stream)
{
    return XXH3_64bits_digest(stream->state);
}

void npk_checksum_close(npk_checksum_stream *stream)
{
    npk_free(stream);
}
