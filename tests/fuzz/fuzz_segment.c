/* fuzz_segment.c - segment headers, marks and records: a directory of segments is scanned, verified, and the data of each record read. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "flat_io.h"
#include "wal_format.h"

struct reading {
    npk_wal *wal;
    uint64_t last_lsn;
};

static npk_status visit(void *context, const npk_record *record, npk_error *err)
{
    struct reading *reading = context;
    FUZZ_CHECK(record->place.lsn > reading->last_lsn);
    FUZZ_CHECK(record->meta_size + record->raw_data_size <= NPK_WAL_PAYLOAD_MAX);
    reading->last_lsn = record->place.lsn;
    fuzz_touch(record->meta, record->meta_size);
    npk_segment *segment = NULL;
    if (record->raw_data_size == 0 || npk_wal_segment(reading->wal, record->place.seq, &segment, err) != NPK_OK)
        return NPK_OK;
    uint8_t *data = malloc((size_t)record->raw_data_size);
    if (data && npk_segment_read_data(segment, record->place.offset, 0, data, (size_t)record->raw_data_size, false, err) == NPK_OK)
        fuzz_touch(data, (size_t)record->raw_data_size);
    if (data && npk_segment_read_data(segment, record->place.offset, record->raw_data_size / 3, data,
                                      (size_t)(record->raw_data_size / 2), true, err) == NPK_OK)
        fuzz_touch(data, (size_t)(record->raw_data_size / 2));
    free(data);
    npk_segment_release(segment);
    return NPK_OK;
}

static void report(void *context, uint64_t seq, uint64_t offset, uint64_t size, uint64_t lsn, const char *reason)
{
    (void)context;
    (void)seq;
    (void)lsn;
    FUZZ_CHECK(offset + size >= offset && reason);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static flat_io flat;
    if (size < 16)
        return 0;
    /* The first 16 bytes say where to start and stop. */
    uint64_t from = 0, stop = 0;
    memcpy(&from, input, 8);
    memcpy(&stop, input + 8, 8);
    flat_io_init(&flat, input + 16, size - 16);
    npk_error err = {0};
    npk_wal_options options = {.io = &flat.table, .segment_size = 65536};
    for (size_t i = 0; i < flat.file_count; i++)
        if (flat.files[i].kind == FLAT_SEGMENT && flat.files[i].size >= 32)
            memcpy(options.uuid, flat.files[i].bytes + 16, 16);
    npk_wal *wal = NULL;
    npk_file *directory = flat_io_directory(&flat, FLAT_SEGMENT);
    FUZZ_CHECK(npk_wal_open(directory, &options, &wal, &err) == NPK_OK);
    struct reading reading = {wal, 0};
    npk_wal_scan scan = {.from_lsn = from ? from : NPK_WAL_FIRST_LSN, .stop_lsn = stop, .visit = visit, .context = &reading};
    if (npk_wal_scan_log(wal, &scan, &err) == NPK_OK) {
        FUZZ_CHECK(scan.end.lsn >= scan.from_lsn || scan.verdict == NPK_WAL_DAMAGED);
        FUZZ_CHECK(scan.case_name && strcmp(scan.case_name, "no case") != 0);
        FUZZ_CHECK(scan.verdict != NPK_WAL_DAMAGED || scan.damaged_until_lsn >= scan.damaged_lsn);
    }
    (void)npk_wal_verify(wal, stop, report, NULL, NULL, &err);
    npk_wal_close(wal);
    flat_io_check(&flat);
    return 0;
}
