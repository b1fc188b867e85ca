/* column_format.h - the header of a column file: npy text with a comment that says whose file it is. No I/O.
 *
 *   offset  size  field
 *   0       6     \x93NUMPY
 *   6       2     format version: 1.0, 2.0 (text above 65,535 bytes), 3.0 (text in UTF-8 because it does not fit Latin-1)
 *   8       2|4   text size, little-endian: 2 bytes in version 1.0
 *   10|12         text: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }#npk <id> <uuid>, spaces, newline
 *
 * The whole is padded to a multiple of 4096 and has room for a row count of 20 digits, so its size is known before the rows are.
 * numpy reads the text with ast.literal_eval, to which the rest of a line behind # is a comment. */
#ifndef NPK_CORE_COLUMN_FORMAT_H
#define NPK_CORE_COLUMN_FORMAT_H

#include <stdbool.h>
#include "buffer.h"
#include "column.h"

#define NPK_COLUMN_ALIGNMENT 4096u
#define NPK_COLUMN_HEADER_MAX (1024u * 1024u) /* no header is larger: descr has at most NPK_DESCR_MAX bytes */

#define NPK_COLUMN_NAME_SIZE 32 /* holds "<16 hex>.npy" and a terminator */
void npk_column_name(char name[NPK_COLUMN_NAME_SIZE], uint64_t id, bool finished); /* false: "<id>.tmp" */

/* Where the data of such a file starts; 0: the description cannot be a header (see encode). */
uint64_t npk_column_header_size(const npk_column_spec *spec);
/* Append the header to buffer. False when descr is empty, too long, holds control characters or, unless it is a list, quotes or
 * backslashes; when ndim is too large; when memory is short (buffer->failed). */
bool npk_column_header_encode(const npk_column_spec *spec, uint64_t row_count, uint64_t id, const uint8_t uuid[16],
                              npk_buffer *buffer);

typedef struct npk_column_header {
    uint8_t version;            /* 1, 2, 3 */
    uint64_t header_size;       /* where the data starts */
    uint64_t id;
    uint8_t uuid[16];
    size_t descr_offset, descr_size; /* the value of 'descr' in the bytes, without quotes; Latin-1 below version 3 */
} npk_column_header;

/* Total: false unless bytes start with a whole header as encode writes it. */
bool npk_column_header_decode(const uint8_t *bytes, size_t size, npk_column_header *header);

#endif
