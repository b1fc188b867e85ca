/* store_files.c - file names from numbers and back. */
#include "store_files.h"

#include <string.h>

enum { DIGIT_COUNT = 16 };

#define COLUMN_ENDING ".npy"
#define CHECKPOINT_ENDING ".ckpt"
#define TEMP_ENDING ".tmp"

static const char digits[] = "0123456789abcdef";

static void encode(uint64_t number, const char *ending, char name[NPK_FILE_NAME_SIZE])
{
    for (unsigned i = 0; i < DIGIT_COUNT; i++)
        name[i] = digits[number >> (60 - 4 * i) & 15];
    memcpy(name + DIGIT_COUNT, ending, strlen(ending) + 1);
}

static bool decode(const char *name, const char *ending, bool zero_allowed, uint64_t *number)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < DIGIT_COUNT; i++) {
        const char *digit = name[i] ? strchr(digits, name[i]) : NULL;
        if (!digit)
            return false;
        value = value << 4 | (uint64_t)(digit - digits);
    }
    if (strcmp(name + DIGIT_COUNT, ending) != 0 || (value == 0 && !zero_allowed))
        return false;
    *number = value;
    return true;
}

void npk_store_files_encode_column(uint64_t id, char name[NPK_FILE_NAME_SIZE])
{
    encode(id, COLUMN_ENDING, name);
}

bool npk_store_files_decode_column(const char *name, uint64_t *id)
{
    return decode(name, COLUMN_ENDING, false, id);
}

void npk_store_files_encode_column_temp(uint64_t id, char name[NPK_FILE_NAME_SIZE])
{
    encode(id, TEMP_ENDING, name);
}

bool npk_store_files_decode_column_temp(const char *name, uint64_t *id)
{
    return decode(name, TEMP_ENDING, false, id);
}

void npk_store_files_encode_checkpoint(uint64_t lsn, char name[NPK_FILE_NAME_SIZE])
{
    encode(lsn, CHECKPOINT_ENDING, name);
}

bool npk_store_files_decode_checkpoint(const char *name, uint64_t *lsn)
{
    return decode(name, CHECKPOINT_ENDING, true, lsn);
}

void npk_store_files_encode_checkpoint_temp(uint64_t lsn, char name[NPK_FILE_NAME_SIZE])
{
    encode(lsn, TEMP_ENDING, name);
}

bool npk_store_files_decode_checkpoint_temp(const char *name, uint64_t *lsn)
{
    return decode(name, TEMP_ENDING, true, lsn);
}

void npk_store_files_encode_index(uint64_t number, char name[NPK_FILE_NAME_SIZE])
{
    encode(number, "", name);
}

bool npk_store_files_decode_index(const char *name, uint64_t *number)
{
    return decode(name, "", false, number);
}
