/* fuzz_checkpoint.c - checkpoint files: whatever is loaded is looked at as an index. The input is the file; its name is what its header says. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "checkpoint.h"
#include "flat_io.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static flat_io flat;
    if (size < 72 || size > FLAT_SIZE_MAX)
        return 0;
    uint8_t *entry = malloc(FLAT_ENTRY_SIZE + size);
    if (!entry)
        return 0;
    uint64_t lsn = npk_get_u64(input + 32);
    memset(entry, 0, FLAT_ENTRY_SIZE);
    entry[0] = FLAT_CHECKPOINT;
    npk_put_u64(entry + 2, lsn);
    npk_put_u32(entry + 10, (uint32_t)size);
    memcpy(entry + FLAT_ENTRY_SIZE, input, size);
    npk_put_u64(entry + FLAT_ENTRY_SIZE + 56, size); /* the size it has to say */
    flat_io_init(&flat, entry, FLAT_ENTRY_SIZE + size);
    npk_error err = {0};
    npk_kv *kv = NULL;
    npk_file *directory = flat_io_directory(&flat, FLAT_CHECKPOINT);
    FUZZ_CHECK(npk_kv_open(NULL, &kv, &err) == NPK_OK);
    if (npk_checkpoint_load(&flat.table, directory, input + 16, lsn, kv, NULL, NULL, &err) == NPK_OK)
        fuzz_look_at_arrays(kv, 0);
    npk_kv_close(kv);
    flat.table.close(&flat.table, directory);
    flat_io_check(&flat);
    free(entry);
    return 0;
}
