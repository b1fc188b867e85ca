/* fuzz_column.c - headers of column files: decoded, and what was found encoded anew and decoded again. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "column_format.h"

/* The description and shape are the input's; a header that is written must read back. */
static void write_and_read(const uint8_t *input, size_t size)
{
    uint64_t shape[8];
    uint8_t uuid[16] = {1, 2, 3};
    if (size < 66)
        return;
    memcpy(shape, input, 64);
    char descr[512] = "";
    size_t length = npk_min_u64(size - 66, sizeof descr - 1);
    memcpy(descr, input + 66, length);
    npk_column_spec spec = {descr, 8, input[64] % 9u, shape, input[65] % 2 != 0};
    npk_buffer buffer;
    npk_buffer_init(&buffer);
    uint64_t expected = npk_column_header_size(&spec);
    bool made = npk_column_header_encode(&spec, shape[0], 77, uuid, &buffer);
    FUZZ_CHECK(made == (expected != 0));
    if (made) {
        npk_column_header found;
        FUZZ_CHECK(buffer.size == expected);
        /* A list is taken as it is, and one with an odd quote may not read back; a plain string always does. */
        bool reads = npk_column_header_decode(buffer.data, buffer.size, &found);
        FUZZ_CHECK(reads || descr[0] == '[');
        if (reads)
            FUZZ_CHECK(found.id == 77 && memcmp(found.uuid, uuid, 16) == 0 && found.header_size == expected);
    }
    npk_buffer_release(&buffer);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    npk_column_header header;
    if (npk_column_header_decode(input, size, &header)) {
        FUZZ_CHECK(header.header_size <= size && header.header_size % NPK_COLUMN_ALIGNMENT == 0 && header.id != 0);
        FUZZ_CHECK(header.descr_size && header.descr_offset <= size && header.descr_size <= size - header.descr_offset);
        fuzz_touch(input + header.descr_offset, header.descr_size);
    }
    write_and_read(input, size);
    return 0;
}
