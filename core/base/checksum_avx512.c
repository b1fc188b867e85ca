/* checksum_avx512.c - the checksum with 512-bit vectors. Compiled with -mavx512f where the compiler knows it, else empty. */
#include "checksum_vector.h"

#ifdef __AVX512F__
#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t npk_checksum_avx512(const void *bytes, size_t size)
{
    return XXH3_64bits(bytes, size);
}
#endif
