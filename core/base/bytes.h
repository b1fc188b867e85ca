/* bytes.h - little-endian put and get, big-endian keys, checked arithmetic, alignment. No struct is ever laid over bytes. */
#ifndef NPK_BASE_BYTES_H
#define NPK_BASE_BYTES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* One load or store each: compilers do not see through a loop over the bytes, and every key and record header passes here. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define NPK_LE16(v) (v)
#define NPK_LE32(v) (v)
#define NPK_LE64(v) (v)
#define NPK_BE64(v) __builtin_bswap64(v)
#else
#define NPK_LE16(v) __builtin_bswap16(v)
#define NPK_LE32(v) __builtin_bswap32(v)
#define NPK_LE64(v) __builtin_bswap64(v)
#define NPK_BE64(v) (v)
#endif

static inline void npk_put_u16(uint8_t *p, uint16_t v)
{
    uint16_t stored = NPK_LE16(v);
    memcpy(p, &stored, sizeof stored);
}

static inline void npk_put_u32(uint8_t *p, uint32_t v)
{
    uint32_t stored = NPK_LE32(v);
    memcpy(p, &stored, sizeof stored);
}

static inline void npk_put_u64(uint8_t *p, uint64_t v)
{
    uint64_t stored = NPK_LE64(v);
    memcpy(p, &stored, sizeof stored);
}

static inline uint16_t npk_get_u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return NPK_LE16(v);
}

static inline uint32_t npk_get_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return NPK_LE32(v);
}

static inline uint64_t npk_get_u64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return NPK_LE64(v);
}

/* Big-endian, for keys whose byte order must be their numeric order. */
static inline void npk_put_be64(uint8_t *p, uint64_t v)
{
    uint64_t stored = NPK_BE64(v);
    memcpy(p, &stored, sizeof stored);
}

static inline uint64_t npk_get_be64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return NPK_BE64(v);
}

/* true on overflow; *out is then undefined. */
static inline bool npk_add_overflow(uint64_t a, uint64_t b, uint64_t *out)
{
    return __builtin_add_overflow(a, b, out);
}

static inline bool npk_mul_overflow(uint64_t a, uint64_t b, uint64_t *out)
{
    return __builtin_mul_overflow(a, b, out);
}

/* alignment is a power of two; the caller knows that v + alignment does not overflow. */
static inline uint64_t npk_align_up(uint64_t v, uint64_t alignment)
{
    return (v + alignment - 1) & ~(alignment - 1);
}

static inline uint64_t npk_min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t npk_max_u64(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* true when all bytes are zero. */
static inline bool npk_is_zero(const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    while (size >= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        if (word)
            return false;
        p += 8;
        size -= 8;
    }
    while (size--)
        if (*p++)
            return false;
    return true;
}

#endif
