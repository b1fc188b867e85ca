/* checksum_vector.h - npk_checksum compiled for wider vectors; checksum.c takes the widest that the processor has. */
#ifndef NPK_BASE_CHECKSUM_VECTOR_H
#define NPK_BASE_CHECKSUM_VECTOR_H

#include <stddef.h>
#include <stdint.h>

/* Only where the build defines NPK_CHECKSUM_AVX2 and NPK_CHECKSUM_AVX512, and only on processors that have them. */
uint64_t npk_checksum_avx2(const void *bytes, size_t size);
uint64_t npk_checksum_avx512(const void *bytes, size_t size);

#endif
