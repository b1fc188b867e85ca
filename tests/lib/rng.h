/* rng.h - a small seeded generator for tests (xoshiro256** seeded by splitmix64): the same seed gives the same run. */
#ifndef NPK_TESTS_RNG_H
#define NPK_TESTS_RNG_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct rng {
    uint64_t state[4];
} rng;

/* One step of splitmix64; also good for deriving one seed from another. */
static inline uint64_t rng_mix(uint64_t *seed)
{
    uint64_t z = *seed += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static inline rng rng_seeded(uint64_t seed)
{
    rng r;
    for (unsigned i = 0; i < 4; i++)
        r.state[i] = rng_mix(&seed);
    return r;
}

static inline uint64_t rng_rotate(uint64_t x, unsigned k) { return x << k | x >> (64 - k); }

static inline uint64_t rng_next(rng *r)
{
    uint64_t *s = r->state;
    uint64_t result = rng_rotate(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rng_rotate(s[3], 45);
    return result;
}

/* 0 .. bound - 1; bound > 0. The bias of the remainder is below 2^-32 for the bounds tests use. */
static inline uint64_t rng_below(rng *r, uint64_t bound) { return rng_next(r) % bound; }

/* true in about numerator of denominator cases. */
static inline int rng_chance(rng *r, uint64_t numerator, uint64_t denominator)
{
    return rng_below(r, denominator) < numerator;
}

static inline void rng_fill(rng *r, void *bytes, size_t size)
{
    uint8_t *place = (uint8_t *)bytes;
    while (size) {
        uint64_t word = rng_next(r);
        size_t part = size < 8 ? size : 8;
        memcpy(place, &word, part);
        place += part;
        size -= part;
    }
}

#endif
