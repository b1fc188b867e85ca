/* flat_io.h - a read-only directory tree made of a fuzzer's input, behind the system table: as quick as it can be, nothing else.
 *
 * The input is a row of files: u8 kind (FLAT_FORMAT ...), u8 flags, u64 number, u32 size, then size bytes; a size that does not fit takes what is
 * left. The number gives the name. FLAT_PADDED: zeros follow up to the size in the bytes of a segment header, at most FLAT_SIZE_MAX: segments are
 * mostly zeros, and inputs should not be. */
#ifndef FLAT_IO_H
#define FLAT_IO_H

#include <stddef.h>
#include <stdint.h>

#include "io.h"

enum { FLAT_FORMAT, FLAT_SEGMENT, FLAT_COLUMN, FLAT_CHECKPOINT, FLAT_KIND_COUNT };
enum { FLAT_PADDED = 1 };
enum { FLAT_ENTRY_SIZE = 14, FLAT_FILE_MAX = 24, FLAT_SIZE_MAX = 256 * 1024 };

typedef struct flat_file {
    char name[24];
    uint8_t kind;
    const uint8_t *bytes; /* of the input */
    uint64_t size, padded_size;
} flat_file;

typedef struct flat_io {
    npk_io table; /* first: the functions cast back */
    flat_file files[FLAT_FILE_MAX];
    size_t file_count;
    int64_t open_count, map_count;
} flat_io;

void flat_io_init(flat_io *flat, const uint8_t *input, size_t size);
/* The directory that holds the files of this kind; FLAT_FORMAT: the root. Closed like any file. */
npk_file *flat_io_directory(flat_io *flat, int kind);
/* Aborts when a file, a directory or a map is left open: that is a finding. */
void flat_io_check(const flat_io *flat);

#endif
