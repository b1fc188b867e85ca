/* buffer.c - a growing byte buffer and a bounds-checked cursor. */
#include "buffer.h"

#include <string.h>

#include "alloc.h"
#include "bytes.h"

void npk_buffer_init(npk_buffer *buffer)
{
    memset(buffer, 0, sizeof *buffer);
}

void npk_buffer_release(npk_buffer *buffer)
{
    npk_free(buffer->data);
    npk_buffer_init(buffer);
}

void npk_buffer_clear(npk_buffer *buffer)
{
    buffer->size = 0;
    buffer->failed = false;
}

uint8_t *npk_buffer_reserve(npk_buffer *buffer, size_t size)
{
    if (buffer->failed)
        return NULL;
    if (size > SIZE_MAX / 2 - buffer->size) {
        buffer->failed = true;
        return NULL;
    }
    size_t wanted = buffer->size + size;
    if (wanted > buffer->capacity || !buffer->data) {
        size_t capacity = buffer->capacity ? buffer->capacity : 256;
        while (capacity < wanted)
            capacity *= 2;
        uint8_t *data = npk_realloc(buffer->data, capacity);
        if (!data) {
            buffer->failed = true;
            return NULL;
        }
        buffer->data = data;
        buffer->capacity = capacity;
    }
    return buffer->data + buffer->size;
}

uint8_t *npk_buffer_grow(npk_buffer *buffer, size_t size)
{
    uint8_t *place = npk_buffer_reserve(buffer, size);
    if (place)
        buffer->size += size;
    return place;
}

void npk_buffer_put(npk_buffer *buffer, const void *bytes, size_t size)
{
    uint8_t *place = npk_buffer_grow(buffer, size);
    if (place && size)
        memcpy(place, bytes, size);
}

void npk_buffer_put_zeros(npk_buffer *buffer, size_t size)
{
    uint8_t *place = npk_buffer_grow(buffer, size);
    if (place)
        memset(place, 0, size);
}

void npk_buffer_put_u8(npk_buffer *buffer, uint8_t v)
{
    npk_buffer_put(buffer, &v, 1);
}

void npk_buffer_put_u16(npk_buffer *buffer, uint16_t v)
{
    uint8_t *place = npk_buffer_grow(buffer, 2);
    if (place)
        npk_put_u16(place, v);
}

void npk_buffer_put_u32(npk_buffer *buffer, uint32_t v)
{
    uint8_t *place = npk_buffer_grow(buffer, 4);
    if (place)
        npk_put_u32(place, v);
}

void npk_buffer_put_u64(npk_buffer *buffer, uint64_t v)
{
    uint8_t *place = npk_buffer_grow(buffer, 8);
    if (place)
        npk_put_u64(place, v);
}

void npk_buffer_put_string(npk_buffer *buffer, const char *text, size_t size)
{
    if (size > UINT16_MAX) {
        buffer->failed = true;
        return;
    }
    npk_buffer_put_u16(buffer, (uint16_t)size);
    npk_buffer_put(buffer, text, size);
}

const uint8_t *npk_cursor_take(npk_cursor *cursor, size_t size)
{
    if (cursor->failed || size > cursor->size - cursor->offset) {
        cursor->failed = true;
        return NULL;
    }
    const uint8_t *place = cursor->data + cursor->offset;
    cursor->offset += size;
    return place;
}

uint8_t npk_cursor_u8(npk_cursor *cursor)
{
    const uint8_t *p = npk_cursor_take(cursor, 1);
    return p ? *p : 0;
}

uint16_t npk_cursor_u16(npk_cursor *cursor)
{
    const uint8_t *p = npk_cursor_take(cursor, 2);
    return p ? npk_get_u16(p) : 0;
}

uint32_t npk_cursor_u32(npk_cursor *cursor)
{
    const uint8_t *p = npk_cursor_take(cursor, 4);
    return p ? npk_get_u32(p) : 0;
}

uint64_t npk_cursor_u64(npk_cursor *cursor)
{
    const uint8_t *p = npk_cursor_take(cursor, 8);
    return p ? npk_get_u64(p) : 0;
}

const char *npk_cursor_string(npk_cursor *cursor, size_t *size)
{
    *size = npk_cursor_u16(cursor);
    const uint8_t *p = npk_cursor_take(cursor, *size);
    if (!p)
        *size = 0;
    return (const char *)p;
}
