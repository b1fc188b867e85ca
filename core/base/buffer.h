/* buffer.h - a growing byte buffer with little-endian appenders, and a bounds-checked cursor to read one back.
 *
 * A buffer remembers its first failed allocation: appends then do nothing, and the caller checks failed once at the end.
 * A cursor does the same with its first read past the end. */
#ifndef NPK_BASE_BUFFER_H
#define NPK_BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct npk_buffer {
    uint8_t *data;   /* owned */
    size_t size;     /* bytes used */
    size_t capacity; /* bytes allocated */
    bool failed;     /* an allocation failed; data holds what fitted before */
} npk_buffer;

void npk_buffer_init(npk_buffer *buffer);
void npk_buffer_release(npk_buffer *buffer);
void npk_buffer_clear(npk_buffer *buffer); /* size 0, capacity kept, failed reset */
/* Room for size more bytes; NULL (and failed) when memory is short. The bytes count only after npk_buffer_grow. */
uint8_t *npk_buffer_reserve(npk_buffer *buffer, size_t size);
/* Reserve and count in one step: returns where the size bytes are to be written. */
uint8_t *npk_buffer_grow(npk_buffer *buffer, size_t size);
void npk_buffer_put(npk_buffer *buffer, const void *bytes, size_t size);
void npk_buffer_put_zeros(npk_buffer *buffer, size_t size);
void npk_buffer_put_u8(npk_buffer *buffer, uint8_t v);
void npk_buffer_put_u16(npk_buffer *buffer, uint16_t v);
void npk_buffer_put_u32(npk_buffer *buffer, uint32_t v);
void npk_buffer_put_u64(npk_buffer *buffer, uint64_t v);
/* u16 length, then the bytes: strings of at most 65535 bytes. */
void npk_buffer_put_string(npk_buffer *buffer, const char *text, size_t size);

typedef struct npk_cursor {
    const uint8_t *data; /* borrowed */
    size_t size;
    size_t offset;
    bool failed; /* a read went past the end; every later read gives zeros */
} npk_cursor;

static inline npk_cursor npk_cursor_over(const void *bytes, size_t size)
{
    npk_cursor cursor = {bytes, size, 0, false};
    return cursor;
}
const uint8_t *npk_cursor_take(npk_cursor *cursor, size_t size); /* NULL past the end */
uint8_t npk_cursor_u8(npk_cursor *cursor);
uint16_t npk_cursor_u16(npk_cursor *cursor);
uint32_t npk_cursor_u32(npk_cursor *cursor);
uint64_t npk_cursor_u64(npk_cursor *cursor);
const char *npk_cursor_string(npk_cursor *cursor, size_t *size); /* not terminated; NULL past the end */
static inline size_t npk_cursor_left(const npk_cursor *cursor) { return cursor->size - cursor->offset; }
/* All bytes read and none past the end. */
static inline bool npk_cursor_is_done(const npk_cursor *cursor)
{
    return !cursor->failed && cursor->offset == cursor->size;
}

#endif
