/* bytes.h - little-endian put and get, big-endian keys, checked arithmetic, alignment. No struct is ever laid over bytes. */
#ifndef NPK_BASE_BYTES_H
#define NPK_BASE_BYTES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline void npk_put_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline void npk_put_u32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline void npk_put_u64(uint8_t *p, uint64_t v)
{
    for (unsigned i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline uint16_t npk_get_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | (unsigned)p[1] << 8);
}

static inline uint32_t npk_get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t npk_get_u64(const uint8_t *p)
{
    return (uint64_t)npk_get_u32(p) | (uint64_t)npk_get_u32(p + 4) << 32;
}

/* Big-endian, for keys whose byte order must be their numeric order. */
static inline void npk_put_be64(uint8_t *p, uint64_t v)
{
    for (unsigned i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (56 - 8 * i));
}

static inline uint64_t npk_get_be64(const uint8_t *p)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return v;
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
