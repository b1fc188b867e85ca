/* op.c - what the log's operation records mean. */
#include "op.h"

#include <stdio.h>
#include <string.h>

/* The fields of each type in the order they are stored: the layout as data, so that encode and decode cannot drift apart. */
enum field { END, ARRAY, OTHER, TIME, FIRST, COUNT, BLOCK, LSN, FILE_ROW, ROW_SIZE, FILE_SIZE, DATA_OFFSET, MODE, ZERO_DIM,
             NAME, DESCR, SHAPE, LIST, VALUE };

#define FIELD_MAX 12

static const struct layout {
    const char *name;
    uint8_t fields[FIELD_MAX];
} layouts[] = {
    [NPK_OP_CREATE - 16] = {"create", {ARRAY, OTHER, TIME, NAME, DESCR, ZERO_DIM, SHAPE, ROW_SIZE}},
    [NPK_OP_DROP_ARRAY - 16] = {"drop", {ARRAY, TIME}},
    [NPK_OP_RENAME - 16] = {"rename", {ARRAY, TIME, NAME}},
    [NPK_OP_APPEND - 16] = {"append", {ARRAY, TIME, FIRST, COUNT}},
    [NPK_OP_REPLACE_RUN - 16] = {"replace run", {ARRAY, TIME, FIRST, COUNT}},
    [NPK_OP_REPLACE_SET - 16] = {"replace set", {ARRAY, TIME, BLOCK, LIST}},
    [NPK_OP_LINK_RUN - 16] = {"link run", {ARRAY, TIME, MODE, LSN, FIRST, COUNT, OTHER, FILE_ROW}},
    [NPK_OP_LINK_SET - 16] = {"link set", {ARRAY, TIME, MODE, LSN, BLOCK, OTHER, FILE_ROW, LIST}},
    [NPK_OP_FILE - 16] = {"file", {OTHER, FILE_SIZE, COUNT, ROW_SIZE, DATA_OFFSET, LIST}},
    [NPK_OP_SUMS - 16] = {"sums", {OTHER, FIRST, LIST}},
    [NPK_OP_DROP_ROWS - 16] = {"drop rows", {ARRAY, TIME, LIST}},
    [NPK_OP_SET_ATTR - 16] = {"set attribute", {ARRAY, TIME, NAME, VALUE}},
    [NPK_OP_DELETE_ATTR - 16] = {"delete attribute", {ARRAY, TIME, NAME}},
    [NPK_OP_CLONE - 16] = {"clone", {OTHER, ARRAY, TIME, NAME}},
    [NPK_OP_RESET - 16] = {"reset", {TIME}},
    [NPK_OP_RENUMBER - 16] = {"renumber", {ARRAY, FIRST, COUNT, OTHER}},
    [NPK_OP_RETIRE - 16] = {"retire", {LIST}},
    [NPK_OP_UNSYNCED_FILE - 16] = {"unsynced file", {OTHER, FILE_SIZE, COUNT, ROW_SIZE, DATA_OFFSET, LIST}},
};

static const struct layout *layout_of(uint8_t type)
{
    if (type < 16 || (size_t)type - 16 >= sizeof layouts / sizeof layouts[0])
        return NULL;
    return &layouts[type - 16];
}

size_t npk_op_list_item_size(uint8_t type)
{
    switch (type) {
    case NPK_OP_REPLACE_SET:
    case NPK_OP_LINK_SET: return 2;
    case NPK_OP_FILE:
    case NPK_OP_UNSYNCED_FILE:
    case NPK_OP_SUMS: return 8;
    case NPK_OP_DROP_ROWS: return 16;
    case NPK_OP_RETIRE: return 9;
    default: return 0;
    }
}

void npk_op_encode(const npk_op *op, npk_buffer *buffer)
{
    const struct layout *layout = layout_of(op->type);
    if (!layout) {
        buffer->failed = true;
        return;
    }
    for (const uint8_t *field = layout->fields; *field != END; field++) {
        switch (*field) {
        case ARRAY: npk_buffer_put_u64(buffer, op->array); break;
        case OTHER: npk_buffer_put_u64(buffer, op->other); break;
        case TIME: npk_buffer_put_u64(buffer, op->time_us); break;
        case FIRST: npk_buffer_put_u64(buffer, op->first); break;
        case COUNT: npk_buffer_put_u64(buffer, op->count); break;
        case BLOCK: npk_buffer_put_u64(buffer, op->block); break;
        case LSN: npk_buffer_put_u64(buffer, op->lsn); break;
        case FILE_ROW: npk_buffer_put_u64(buffer, op->file_row); break;
        case ROW_SIZE: npk_buffer_put_u64(buffer, op->row_size); break;
        case FILE_SIZE: npk_buffer_put_u64(buffer, op->file_size); break;
        case DATA_OFFSET: npk_buffer_put_u64(buffer, op->data_offset); break;
        case MODE: npk_buffer_put_u8(buffer, op->mode); break;
        case ZERO_DIM: npk_buffer_put_u8(buffer, op->zero_dim); break;
        case NAME: npk_buffer_put_string(buffer, op->name, op->name_size); break;
        case DESCR: npk_buffer_put_string(buffer, op->descr, op->descr_size); break;
        case SHAPE:
            npk_buffer_put_u8(buffer, op->ndim);
            npk_buffer_put(buffer, op->list, (size_t)op->ndim * 8);
            break;
        case LIST:
            npk_buffer_put_u32(buffer, op->list_count);
            npk_buffer_put(buffer, op->list, op->list_count * npk_op_list_item_size(op->type));
            break;
        case VALUE:
            npk_buffer_put_u32(buffer, op->value_size);
            npk_buffer_put(buffer, op->value, op->value_size);
            break;
        default: buffer->failed = true; return;
        }
    }
}

bool npk_op_decode(uint8_t type, const uint8_t *meta, size_t size, npk_op *op)
{
    const struct layout *layout = layout_of(type);
    if (!layout)
        return false;
    memset(op, 0, sizeof *op);
    op->type = type;
    npk_cursor cursor = npk_cursor_over(meta, size);
    for (const uint8_t *field = layout->fields; *field != END; field++) {
        switch (*field) {
        case ARRAY: op->array = npk_cursor_u64(&cursor); break;
        case OTHER: op->other = npk_cursor_u64(&cursor); break;
        case TIME: op->time_us = npk_cursor_u64(&cursor); break;
        case FIRST: op->first = npk_cursor_u64(&cursor); break;
        case COUNT: op->count = npk_cursor_u64(&cursor); break;
        case BLOCK: op->block = npk_cursor_u64(&cursor); break;
        case LSN: op->lsn = npk_cursor_u64(&cursor); break;
        case FILE_ROW: op->file_row = npk_cursor_u64(&cursor); break;
        case ROW_SIZE: op->row_size = npk_cursor_u64(&cursor); break;
        case FILE_SIZE: op->file_size = npk_cursor_u64(&cursor); break;
        case DATA_OFFSET: op->data_offset = npk_cursor_u64(&cursor); break;
        case MODE: op->mode = npk_cursor_u8(&cursor); break;
        case ZERO_DIM: op->zero_dim = npk_cursor_u8(&cursor); break;
        case NAME: op->name = npk_cursor_string(&cursor, &op->name_size); break;
        case DESCR: op->descr = npk_cursor_string(&cursor, &op->descr_size); break;
        case SHAPE:
            op->ndim = npk_cursor_u8(&cursor);
            op->list = npk_cursor_take(&cursor, (size_t)op->ndim * 8);
            op->list_count = op->ndim;
            break;
        case LIST:
            op->list_count = npk_cursor_u32(&cursor);
            op->list = npk_cursor_take(&cursor, op->list_count * npk_op_list_item_size(type));
            break;
        case VALUE:
            op->value_size = npk_cursor_u32(&cursor);
            op->value = npk_cursor_take(&cursor, op->value_size);
            break;
        default: return false;
        }
    }
    if (!npk_cursor_is_done(&cursor))
        return false;
    /* What every user of an operation relies on. */
    uint64_t end;
    return op->mode <= NPK_LINK_FOLD && op->zero_dim <= 1 && op->ndim < NPK_NDIM_MAX && op->name_size <= NPK_NAME_MAX &&
           op->descr_size <= NPK_DESCR_MAX && op->value_size <= NPK_ATTR_MAX &&
           !__builtin_add_overflow(op->first, op->count, &end) && op->block <= UINT64_MAX / 65536 - 1;
}

void npk_op_print(const npk_op *op, char *text, size_t text_size)
{
    const struct layout *layout = layout_of(op->type);
    if (!layout || text_size == 0)
        return;
    int used = snprintf(text, text_size, "%s", layout->name);
    for (const uint8_t *field = layout->fields; *field != END && used >= 0 && (size_t)used < text_size; field++) {
        char *rest = text + used;
        size_t room = text_size - (size_t)used;
        int more = 0;
        switch (*field) {
        case ARRAY: more = snprintf(rest, room, " array %llu", (unsigned long long)op->array); break;
        case OTHER: more = snprintf(rest, room, " %s %016llx", op->type == NPK_OP_CREATE || op->type == NPK_OP_CLONE ?
                                    "from" : "file", (unsigned long long)op->other); break;
        case FIRST: more = snprintf(rest, room, " first %llu", (unsigned long long)op->first); break;
        case COUNT: more = snprintf(rest, room, " count %llu", (unsigned long long)op->count); break;
        case BLOCK: more = snprintf(rest, room, " block %llu", (unsigned long long)op->block); break;
        case MODE: more = snprintf(rest, room, " mode %u", op->mode); break;
        case NAME: more = snprintf(rest, room, " \"%.*s\"", (int)op->name_size, op->name); break;
        case DESCR: more = snprintf(rest, room, " %.*s", (int)op->descr_size, op->descr); break;
        case LIST: more = snprintf(rest, room, " items %u", op->list_count); break;
        case ROW_SIZE: more = snprintf(rest, room, " row size %llu", (unsigned long long)op->row_size); break;
        default: break;
        }
        used = more < 0 ? more : used + more;
    }
}
