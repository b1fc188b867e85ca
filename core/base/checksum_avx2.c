/* checksum_avx2.c - the checksum with 256-bit vectors. Compiled with -mavx2 where the compiler knows it, else empty. */
#include "checksum_vector.h"

#ifdef __AVX2__
#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t npk_checksum_avx2(const void *bytes, size_t size)
{
    return XXH3_64bits(bytes, size);
}
#endif
