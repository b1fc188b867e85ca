/* op.h - what the log's operation records mean: encode, decode, print. Layouts: FORMAT.md, "Operation records". No I/O. */
#ifndef NPK_CORE_OP_H
#define NPK_CORE_OP_H

#include <stdbool.h>
#include "buffer.h"
#include "npk.h"

typedef enum npk_op_type {
    NPK_OP_CREATE = 16,
    NPK_OP_DROP_ARRAY = 17,
    NPK_OP_RENAME = 18,
    NPK_OP_APPEND = 19,
    NPK_OP_REPLACE_RUN = 20,
    NPK_OP_REPLACE_SET = 21,
    NPK_OP_LINK_RUN = 22,
    NPK_OP_LINK_SET = 23,
    NPK_OP_FILE = 24,
    NPK_OP_SUMS = 25,
    NPK_OP_DROP_ROWS = 26,
    NPK_OP_SET_ATTR = 27,
    NPK_OP_DELETE_ATTR = 28,
    NPK_OP_CLONE = 29,
    NPK_OP_RESET = 30,
    NPK_OP_RENUMBER = 31,
    NPK_OP_RETIRE = 32,
    NPK_OP_UNSYNCED_FILE = 33
} npk_op_type;

typedef enum npk_link_mode { NPK_LINK_APPEND = 0, NPK_LINK_REPLACE = 1, NPK_LINK_FOLD = 2 } npk_link_mode;

/* One operation. A field means something only for the types that FORMAT.md lists it for; pointers are borrowed: from the caller when
 * encoding, from the meta bytes when decoding. */
typedef struct npk_op {
    uint8_t type;
    uint8_t mode;           /* npk_link_mode */
    uint8_t zero_dim;
    uint8_t ndim;
    uint64_t array;
    uint64_t other;         /* CREATE: replaced array; CLONE: source; FILE (both), SUMS, LINK, RENUMBER: file id */
    uint64_t time_us;
    uint64_t first;         /* first slot; SUMS: first block */
    uint64_t count;         /* slots; FILE: rows */
    uint64_t block;         /* of a set */
    uint64_t lsn;           /* LINK in mode fold */
    uint64_t file_row;      /* LINK */
    uint64_t row_size;
    uint64_t file_size, data_offset; /* FILE */
    const char *name;       /* name or attribute key, not terminated */
    size_t name_size;
    const char *descr;
    size_t descr_size;
    const uint8_t *list;    /* CREATE: shape u64; SET: slots u16; DROP_ROWS: ranges 2 x u64; FILE, SUMS: u64; RETIRE: (u8, u64) */
    uint32_t list_count;
    const uint8_t *value;   /* SET_ATTR */
    uint32_t value_size;
} npk_op;

/* Append the meta bytes of op to buffer; check buffer->failed. */
void npk_op_encode(const npk_op *op, npk_buffer *buffer);
/* false: these bytes are no operation of this type. Total: never reads past size. */
bool npk_op_decode(uint8_t type, const uint8_t *meta, size_t size, npk_op *op);
/* One line for people: "append array 3: slots 10 .. 20". Cut to text_size. */
void npk_op_print(const npk_op *op, char *text, size_t text_size);

/* Bytes of one list item of this type of operation, 0: it has no list. */
size_t npk_op_list_item_size(uint8_t type);

#endif
