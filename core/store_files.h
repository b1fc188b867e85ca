/* store_files.h - every file name of a store, both ways. The names inside wal/ belong to the log.
 *
 * Decoders accept exactly what the encoders make: 16 lower-case hexadecimal digits and the ending, nothing else. */
#ifndef NPK_CORE_STORE_FILES_H
#define NPK_CORE_STORE_FILES_H

#include <stdbool.h>
#include <stdint.h>

#define NPK_FILE_FORMAT "FORMAT"
#define NPK_FILE_FORMAT_TEMP "FORMAT.tmp"
#define NPK_FILE_LOCK "LOCK"
#define NPK_FILE_RESERVE "reserve"
#define NPK_DIRECTORY_WAL "wal"
#define NPK_DIRECTORY_COLUMNS "columns"
#define NPK_DIRECTORY_CHECKPOINT "checkpoint"
#define NPK_DIRECTORY_INDEX "index"
#define NPK_FILE_CONTROL "control"           /* in index/ */
#define NPK_FILE_CONTROL_TEMP "control.tmp"

#define NPK_FILE_NAME_SIZE 24 /* of every encoded name, terminator included */

void npk_store_files_encode_column(uint64_t id, char name[NPK_FILE_NAME_SIZE]);
void npk_store_files_encode_column_temp(uint64_t id, char name[NPK_FILE_NAME_SIZE]);
void npk_store_files_encode_checkpoint(uint64_t lsn, char name[NPK_FILE_NAME_SIZE]);
void npk_store_files_encode_checkpoint_temp(uint64_t lsn, char name[NPK_FILE_NAME_SIZE]);
void npk_store_files_encode_index(uint64_t number, char name[NPK_FILE_NAME_SIZE]);

/* false: not such a name; the number is then untouched. Ids of column files and numbers of indexes are never 0. */
bool npk_store_files_decode_column(const char *name, uint64_t *id);
bool npk_store_files_decode_column_temp(const char *name, uint64_t *id);
bool npk_store_files_decode_checkpoint(const char *name, uint64_t *lsn);
bool npk_store_files_decode_checkpoint_temp(const char *name, uint64_t *lsn);
bool npk_store_files_decode_index(const char *name, uint64_t *number);

#endif
