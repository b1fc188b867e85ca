/* column_format.c - the header of a column file. */
#include "column_format.h"

#include <stdio.h>
#include <string.h>

#include "bytes.h"

static const uint8_t magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
static const char descr_key[] = "{'descr': ";
static const char order_key[] = ", 'fortran_order': False, 'shape': (";
static const char comment_key[] = "#npk ";

enum {
    PREFIX_SHORT = 10,          /* version 1.0 */
    PREFIX_LONG = 12,
    COMMENT_SIZE = 5 + 16 + 1 + 32, /* #npk <id> <uuid> */
    COUNT_DIGITS = 20           /* of UINT64_MAX */
};

void npk_column_name(char name[NPK_COLUMN_NAME_SIZE], uint64_t id, bool finished)
{
    (void)snprintf(name, NPK_COLUMN_NAME_SIZE, "%016llx.%s", (unsigned long long)id, finished ? "npy" : "tmp");
}

/* How the description is written. */
typedef struct shape_of_text {
    uint8_t version;
    bool quoted;          /* a plain dtype string */
    bool latin;           /* UTF-8 that becomes Latin-1 */
    size_t descr_size;    /* as written, without quotes */
    uint64_t header_size; /* padded */
} shape_of_text;

static size_t digits(uint64_t v)
{
    size_t count = 1;
    while (v >= 10) {
        v /= 10;
        count++;
    }
    return count;
}

static bool measure(const npk_column_spec *spec, shape_of_text *text)
{
    size_t size = strlen(spec->descr);
    if (size == 0 || size > NPK_DESCR_MAX || spec->ndim >= NPK_NDIM_MAX || (spec->zero_dim && spec->ndim))
        return false;
    text->quoted = spec->descr[0] != '[';
    bool ascii = true;
    text->latin = true;
    text->descr_size = 0;
    for (size_t i = 0; i < size; i++) {
        uint8_t c = (uint8_t)spec->descr[i];
        if (c < 0x20 || c == 0x7f || (text->quoted && (c == '\'' || c == '"' || c == '\\')))
            return false;
        if (c >= 0x80) {
            ascii = false;
            /* U+0080 .. U+00FF are C2 or C3 and one more byte. */
            if ((c == 0xc2 || c == 0xc3) && ((uint8_t)spec->descr[i + 1] & 0xc0) == 0x80)
                i++;
            else
                text->latin = false;
        }
        text->descr_size++;
    }
    if (!text->latin)
        text->descr_size = size;
    size_t shape_size = 0;
    if (!spec->zero_dim) {
        shape_size = COUNT_DIGITS + 1; /* the comma */
        for (uint32_t i = 0; i < spec->ndim; i++)
            shape_size += 1 + digits(spec->shape[i]) + 1;
    }
    uint64_t used = sizeof descr_key - 1 + text->descr_size + (text->quoted ? 2 : 0) + sizeof order_key - 1 +
                    shape_size + 4 /* "), }" */ + COMMENT_SIZE + 1 /* newline */;
    text->version = text->latin ? 1 : 3;
    uint64_t prefix = text->version == 1 ? PREFIX_SHORT : PREFIX_LONG;
    text->header_size = npk_align_up(prefix + used, NPK_COLUMN_ALIGNMENT);
    if (text->version == 1 && text->header_size - PREFIX_SHORT > UINT16_MAX) {
        text->version = 2;
        text->header_size = npk_align_up(PREFIX_LONG + used, NPK_COLUMN_ALIGNMENT);
    }
    text->latin = text->latin && !ascii;
    return true;
}

uint64_t npk_column_header_size(const npk_column_spec *spec)
{
    shape_of_text text;
    return measure(spec, &text) ? text.header_size : 0;
}

static void put_text(npk_buffer *buffer, const char *text)
{
    npk_buffer_put(buffer, text, strlen(text));
}

static void put_number(npk_buffer *buffer, uint64_t v, const char *behind)
{
    char number[32];
    (void)snprintf(number, sizeof number, "%llu%s", (unsigned long long)v, behind);
    put_text(buffer, number);
}

bool npk_column_header_encode(const npk_column_spec *spec, uint64_t row_count, uint64_t id, const uint8_t uuid[16],
                              npk_buffer *buffer)
{
    shape_of_text text;
    if (!measure(spec, &text))
        return false;
    size_t start = buffer->size;
    npk_buffer_put(buffer, magic, sizeof magic);
    npk_buffer_put_u8(buffer, text.version);
    npk_buffer_put_u8(buffer, 0);
    if (text.version == 1)
        npk_buffer_put_u16(buffer, (uint16_t)(text.header_size - PREFIX_SHORT));
    else
        npk_buffer_put_u32(buffer, (uint32_t)(text.header_size - PREFIX_LONG));
    put_text(buffer, descr_key);
    if (text.quoted)
        put_text(buffer, "'");
    if (text.latin) {
        for (const char *p = spec->descr; *p; p++) {
            uint8_t c = (uint8_t)*p;
            if (c >= 0x80)
                c = (uint8_t)((c & 3) << 6 | ((uint8_t)*++p & 0x3f));
            npk_buffer_put_u8(buffer, c);
        }
    } else {
        put_text(buffer, spec->descr);
    }
    if (text.quoted)
        put_text(buffer, "'");
    put_text(buffer, order_key);
    if (!spec->zero_dim) {
        put_number(buffer, row_count, ",");
        for (uint32_t i = 0; i < spec->ndim; i++) {
            put_text(buffer, " ");
            put_number(buffer, spec->shape[i], i + 1 < spec->ndim ? "," : "");
        }
    }
    put_text(buffer, "), }");
    char comment[COMMENT_SIZE + 1];
    int used = snprintf(comment, sizeof comment, "%s%016llx ", comment_key, (unsigned long long)id);
    for (unsigned i = 0; i < 16; i++)
        used += snprintf(comment + used, sizeof comment - (size_t)used, "%02x", uuid[i]);
    put_text(buffer, comment);
    if (buffer->failed)
        return false;
    size_t left = text.header_size - (buffer->size - start);
    uint8_t *padding = npk_buffer_grow(buffer, left);
    if (!padding)
        return false;
    memset(padding, ' ', left);
    padding[left - 1] = '\n';
    return true;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool hex_byte(const uint8_t *p, uint8_t *byte)
{
    int high = hex_digit(p[0]), low = hex_digit(p[1]);
    if (high < 0 || low < 0)
        return false;
    *byte = (uint8_t)(high << 4 | low);
    return true;
}

/* The value of 'descr' starts at bytes[from]; its end is at the first order_key outside of quotes. */
static bool find_descr(const uint8_t *bytes, size_t from, size_t end, npk_column_header *header)
{
    uint8_t quote = 0;
    for (size_t i = from; i + sizeof order_key - 1 <= end; i++) {
        if (quote) {
            if (bytes[i] == '\\')
                i++;
            else if (bytes[i] == quote)
                quote = 0;
        } else if (bytes[i] == '\'' || bytes[i] == '"') {
            quote = bytes[i];
        } else if (memcmp(bytes + i, order_key, sizeof order_key - 1) == 0) {
            header->descr_offset = from;
            header->descr_size = i - from;
            if (bytes[from] == '\'' && header->descr_size > 2) {
                header->descr_offset++;
                header->descr_size -= 2;
            }
            return header->descr_size > 0;
        }
    }
    return false;
}

bool npk_column_header_decode(const uint8_t *bytes, size_t size, npk_column_header *header)
{
    if (size < PREFIX_LONG || memcmp(bytes, magic, sizeof magic) != 0 || bytes[6] < 1 || bytes[6] > 3 || bytes[7])
        return false;
    header->version = bytes[6];
    size_t prefix = header->version == 1 ? PREFIX_SHORT : PREFIX_LONG;
    header->header_size = prefix + (header->version == 1 ? npk_get_u16(bytes + 8) : npk_get_u32(bytes + 8));
    if (header->header_size > size || header->header_size % NPK_COLUMN_ALIGNMENT ||
        header->header_size > NPK_COLUMN_HEADER_MAX || header->header_size == 0)
        return false;
    size_t end = (size_t)header->header_size; /* behind the text that is not padding */
    if (bytes[end - 1] != '\n')
        return false;
    end--;
    while (end > prefix && bytes[end - 1] == ' ')
        end--;
    if (end - prefix < COMMENT_SIZE + sizeof descr_key - 1)
        return false;
    const uint8_t *comment = bytes + end - COMMENT_SIZE;
    if (memcmp(comment, comment_key, sizeof comment_key - 1) != 0 || comment[21] != ' ')
        return false;
    header->id = 0;
    for (unsigned i = 0; i < 8; i++) {
        uint8_t byte;
        if (!hex_byte(comment + 5 + 2 * (size_t)i, &byte))
            return false;
        header->id = header->id << 8 | byte;
    }
    for (unsigned i = 0; i < 16; i++)
        if (!hex_byte(comment + 22 + 2 * (size_t)i, &header->uuid[i]))
            return false;
    if (header->id == 0 || memcmp(bytes + prefix, descr_key, sizeof descr_key - 1) != 0)
        return false;
    return find_descr(bytes, prefix + sizeof descr_key - 1, end - COMMENT_SIZE, header);
}
