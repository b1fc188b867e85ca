/* fuzz_pack.c - record payloads of lz4 blocks: any table, any block; and what is packed unpacks to itself. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "wal_format.h"

static void pack_and_unpack(const uint8_t *raw, size_t size)
{
    uint8_t *packed = malloc(size + 1), *back = malloc(NPK_PACK_BLOCK_SIZE);
    npk_pack_table table;
    size_t stored = packed && back ? npk_pack_encode(raw, size, packed, size ? size - 1 : 0) : 0; /* a writer keeps what is smaller */
    if (stored) {
        FUZZ_CHECK(stored < size && npk_pack_table_decode(packed, stored, stored, size, &table));
        size_t at = 0;
        for (uint32_t i = 0; i < table.count; i++) {
            FUZZ_CHECK(npk_pack_block_decode(&table.blocks[i], packed + table.blocks[i].offset, back));
            FUZZ_CHECK(memcmp(back, raw + at, table.blocks[i].raw_size) == 0);
            at += table.blocks[i].raw_size;
        }
        FUZZ_CHECK(at == size);
    }
    free(packed);
    free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    if (size < 4)
        return 0;
    uint64_t raw_size = npk_get_u32(input);
    size_t stored_size = size - 4;
    npk_pack_table table;
    uint8_t *stored = malloc(stored_size + 1); /* of its size, so that a byte too far is seen */
    if (!stored)
        return 0;
    memcpy(stored, input + 4, stored_size);
    if (npk_pack_table_decode(stored, stored_size, stored_size, raw_size, &table)) {
        uint64_t sum = 0;
        FUZZ_CHECK(table.count && table.count <= NPK_PACK_BLOCK_COUNT_MAX);
        for (uint32_t i = 0; i < table.count; i++) {
            const npk_pack_block *block = &table.blocks[i];
            FUZZ_CHECK(block->raw_size && block->raw_size <= NPK_PACK_BLOCK_SIZE);
            FUZZ_CHECK(block->offset <= stored_size && block->stored_size <= stored_size - block->offset);
            uint8_t *out = malloc(block->raw_size);
            if (out && npk_pack_block_decode(block, stored + block->offset, out))
                fuzz_touch(out, block->raw_size);
            free(out);
            sum += block->raw_size;
        }
        FUZZ_CHECK(sum == raw_size);
    }
    free(stored);
    pack_and_unpack(input + 4, size - 4 < NPK_WAL_PAYLOAD_MAX ? size - 4 : NPK_WAL_PAYLOAD_MAX);
    return 0;
}
