/* verify.c - comparing everything a state refers to with its checksums. */
#include "verify.h"

#include <stdio.h>
#include <string.h>

#include "alloc.h"
#include "bytes.h"
#include "error.h"
#include "gather.h"
#include "row_index.h"
#include "snapshot.h"
#include "store_files.h"
#include "core.h"

/* ---- reporting -------------------------------------------------------------------------------------------------------- */

static void report(npk_verify *verify, const npk_finding *finding)
{
    verify->finding_count++;
    if (verify->report)
        verify->report(verify->context, finding);
}

static bool stopped(npk_verify *verify)
{
    return verify->progress && verify->progress(verify->context, verify->done_size, verify->total_size) != 0;
}

/* A list of u64 collected while a table is scanned. */
static npk_status collect_id(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size,
                             bool *stop, npk_error *err)
{
    (void)value;
    (void)value_size;
    (void)stop;
    if (key_size < 8)
        return npk_catalog_fail(err, NPK_TABLE_ARRAYS);
    uint64_t id = npk_get_be64(key + key_size - 8);
    npk_buffer_put(context, &id, sizeof id);
    return ((npk_buffer *)context)->failed ? npk_fail(err, NPK_NO_MEMORY, "could not allocate a list") : NPK_OK;
}

static uint64_t id_at(const npk_buffer *ids, size_t i)
{
    uint64_t id;
    memcpy(&id, ids->data + i * sizeof id, sizeof id);
    return id;
}

/* ---- which rows lie there ------------------------------------------------------------------------------------------------ */

struct damage {
    uint8_t container_kind;
    uint64_t container;
    uint64_t offset, size;   /* bytes in the file */
    uint64_t data_offset;    /* column: where rows begin */
    bool is_whole;           /* nothing of the file can be had */
    const char *file, *reason;
};

/* Does source row .. + count of this source touch the damage? The rows hit, counted from source row. */
static bool rows_hit(const npk_row_source *source, const struct damage *damage, uint64_t row_size, uint64_t source_row,
                     uint64_t count, uint64_t *first, uint64_t *hit)
{
    const npk_place *place = &source->place;
    if (npk_place_container_kind(place) != damage->container_kind || place->container != damage->container)
        return false;
    if (damage->is_whole) {
        *first = 0;
        *hit = count;
        return true;
    }
    if (damage->container_kind == NPK_CONTAINER_SEGMENT) { /* a record is believed whole or not at all */
        if (place->record_offset < damage->offset || place->record_offset - damage->offset >= damage->size)
            return false;
        *first = 0;
        *hit = count;
        return true;
    }
    uint64_t low = (damage->offset - damage->data_offset) / row_size;
    uint64_t high = (damage->offset - damage->data_offset + damage->size + row_size - 1) / row_size;
    source_row += place->row;
    low = npk_max_u64(low, source_row);
    high = npk_min_u64(high, source_row + count);
    if (low >= high)
        return false;
    *first = low - source_row;
    *hit = high - low;
    return true;
}

/* Rows of one array in the damaged range. Neighbours are reported as one finding. */
struct hit_rows {
    npk_verify *verify;
    npk_finding *finding; /* but for the rows */
    uint64_t first, end;  /* collected, not reported yet */
    bool any;
};

static void report_hit(struct hit_rows *rows)
{
    if (rows->first == rows->end)
        return;
    rows->finding->first_row = (int64_t)rows->first;
    rows->finding->row_count = (int64_t)(rows->end - rows->first);
    report(rows->verify, rows->finding);
    rows->first = rows->end;
    rows->any = true;
}

static void add_hit(struct hit_rows *rows, uint64_t first, uint64_t count)
{
    if (count == 0)
        return;
    if (rows->first == rows->end || rows->end != first) {
        report_hit(rows);
        rows->first = first;
    }
    rows->end = first + count;
}

/* Rows that a packed set overrides do not lie where their piece says. */
static void add_hit_of_piece(struct hit_rows *rows, const npk_array *array, uint64_t first, uint64_t count)
{
    uint64_t over = array->overlay_count ? npk_array_find_overlay(array, first) : 0;
    for (; over < array->overlay_count && array->overlay[over].row < first + count; over++) {
        uint64_t row = array->overlay[over].row;
        add_hit(rows, first, row - first);
        count -= row + 1 - first;
        first = row + 1;
    }
    add_hit(rows, first, count);
}

static void report_rows_in_damage(struct hit_rows *rows, const npk_array *array, const struct damage *damage)
{
    uint64_t first, hit;
    for (uint64_t i = 0; i < array->piece_count; i++) {
        const npk_piece *piece = &array->pieces[i];
        if (rows_hit(&array->sources[piece->source], damage, array->info.row_size, piece->source_row, piece->count, &first,
                     &hit))
            add_hit_of_piece(rows, array, piece->first_row + first, hit);
    }
    report_hit(rows);
    for (uint64_t i = 0; i < array->overlay_count; i++) {
        const npk_overlay_row *row = &array->overlay[i];
        if (rows_hit(&array->sources[row->source], damage, array->info.row_size, row->source_row, 1, &first, &hit))
            add_hit(rows, row->row, 1);
    }
    report_hit(rows);
}

static npk_status report_damage(npk_verify *verify, const struct damage *damage, npk_error *err)
{
    npk_buffer ids;
    npk_buffer_init(&ids);
    npk_status status = npk_kv_scan(verify->kv, NPK_TABLE_ARRAYS, NULL, 0, NULL, 0, collect_id, &ids, err);
    bool named = false;
    npk_finding finding;
    memset(&finding, 0, sizeof finding);
    (void)snprintf(finding.file, sizeof finding.file, "%s", damage->file);
    (void)snprintf(finding.reason, sizeof finding.reason, "%s", damage->reason);
    finding.offset = damage->offset;
    finding.size = damage->size;
    for (size_t i = 0; i < ids.size / sizeof(uint64_t) && status == NPK_OK; i++) {
        npk_array_record record;
        bool found = false, missing = false;
        status = npk_catalog_get_array(verify->kv, id_at(&ids, i), &record, &found, err);
        if (status != NPK_OK || !found)
            continue;
        npk_array *array = NULL;
        npk_array_sources places = {.io = verify->sources.io, .only_places = true};
        if (npk_array_build(verify->kv, record.name, &places, &array, &missing, NULL) == NPK_OK) {
            (void)snprintf(finding.array, sizeof finding.array, "%s", record.name);
            struct hit_rows rows = {.verify = verify, .finding = &finding};
            report_rows_in_damage(&rows, array, damage);
            named |= rows.any;
            npk_array_release(array);
        }
        npk_array_record_release(&record);
    }
    npk_buffer_release(&ids);
    if (status == NPK_OK && !named) {
        finding.array[0] = '\0';
        finding.first_row = finding.row_count = -1;
        report(verify, &finding);
    }
    return status;
}

/* ---- row index ------------------------------------------------------------------------------------------------------------- */

/* Arrays whose places do not make sense. */
static npk_status verify_arrays(npk_verify *verify, npk_error *err)
{
    npk_buffer ids;
    npk_buffer_init(&ids);
    npk_status status = npk_kv_scan(verify->kv, NPK_TABLE_ARRAYS, NULL, 0, NULL, 0, collect_id, &ids, err);
    for (size_t i = 0; i < ids.size / sizeof(uint64_t) && status == NPK_OK; i++) {
        npk_array_record record;
        bool found = false, missing = false;
        status = npk_catalog_get_array(verify->kv, id_at(&ids, i), &record, &found, err);
        if (status != NPK_OK || !found)
            continue;
        npk_error reason = {0};
        npk_array *array = NULL;
        npk_array_sources places = {.io = verify->sources.io, .only_places = true};
        npk_status state = npk_row_index_check(verify->kv, id_at(&ids, i), record.row_count, record.row_size, &reason);
        if (state == NPK_OK)
            state = npk_array_build(verify->kv, record.name, &places, &array, &missing, &reason);
        if (state == NPK_NO_MEMORY) {
            status = npk_fail(err, state, "%s", reason.message);
        } else if (state != NPK_OK) {
            npk_finding finding = {.first_row = -1, .row_count = -1};
            (void)snprintf(finding.array, sizeof finding.array, "%s", record.name);
            (void)snprintf(finding.reason, sizeof finding.reason, "%.127s", reason.message);
            report(verify, &finding);
        }
        npk_array_release(array);
        npk_array_record_release(&record);
    }
    npk_buffer_release(&ids);
    return status;
}

/* ---- column files ------------------------------------------------------------------------------------------------------------ */

struct column_check {
    npk_verify *verify;
    struct damage damage;
    npk_status status;
    npk_error *err;
    uint64_t block_count;
};

static int note_block(void *context, uint64_t data_offset, uint64_t size)
{
    struct column_check *check = context;
    check->block_count++;
    check->damage.offset = check->damage.data_offset + data_offset;
    check->damage.size = size;
    check->status = report_damage(check->verify, &check->damage, check->err);
    return check->status != NPK_OK;
}

static npk_status verify_column(npk_verify *verify, uint64_t id, const npk_container *container, bool deep, npk_error *err)
{
    char name[NPK_FILE_NAME_SIZE], file[64];
    npk_store_files_encode_column(id, name);
    (void)snprintf(file, sizeof file, "%s/%s", NPK_DIRECTORY_COLUMNS, name);
    npk_error reason = {0};
    npk_column *column = NULL;
    npk_status status = npk_columns_get(verify->sources.columns, id, container->size, container->row_count,
                                        container->row_size, container->data_offset, &column, &reason);
    struct column_check check = {verify,
                                 {NPK_CONTAINER_COLUMN, id, 0, 0, container->data_offset, false, file, "checksum mismatch"},
                                 NPK_OK, err, 0};
    if (status == NPK_NO_MEMORY)
        return npk_fail(err, status, "%s", reason.message);
    if (status != NPK_OK) {
        check.damage.is_whole = true;
        check.damage.size = container->size;
        check.damage.reason = status == NPK_NOT_FOUND ? "the file is missing" : reason.message;
        return report_damage(verify, &check.damage, err);
    }
    if (!deep) {
        npk_column_release(column);
        return NPK_OK;
    }
    npk_buffer sums;
    npk_buffer_init(&sums);
    status = npk_catalog_get_sums(verify->kv, id, &sums, err);
    npk_error damage = {0};
    if (status == NPK_OK)
        status = npk_column_check(column, (const uint64_t *)(const void *)sums.data, sums.size / 8, note_block, &check, &damage);
    if (status == NPK_CORRUPT && check.block_count) {
        status = check.status; /* reported block by block */
    } else if (status == NPK_CORRUPT || status == NPK_IO) { /* a device that cannot read it: a finding like any other */
        check.damage.is_whole = true;
        check.damage.size = container->size;
        check.damage.reason = damage.message;
        status = report_damage(verify, &check.damage, err);
    } else if (status != NPK_OK) {
        status = npk_fail(err, status, "%s", damage.message);
    }
    npk_buffer_release(&sums);
    npk_column_release(column);
    verify->done_size += container->size;
    return status == NPK_OK ? check.status : status;
}

static npk_status collect_column(void *context, const uint8_t *key, size_t key_size, const uint8_t *value,
                                 size_t value_size, bool *stop, npk_error *err)
{
    npk_verify *verify = ((void **)context)[0];
    npk_buffer *ids = ((void **)context)[1];
    npk_container container;
    if (key_size != 9 || !npk_container_decode(value, value_size, &container))
        return npk_catalog_fail(err, NPK_TABLE_PLACES);
    if (key[0] != NPK_CONTAINER_COLUMN || container.reference_count == 0)
        return NPK_OK; /* a dead file may be gone already */
    verify->total_size += container.size;
    return collect_id(ids, key, key_size, value, value_size, stop, err);
}

static npk_status verify_columns(npk_verify *verify, bool deep, npk_error *err)
{
    npk_buffer ids;
    npk_buffer_init(&ids);
    void *context[2] = {verify, &ids};
    npk_status status = npk_kv_scan(verify->kv, NPK_TABLE_PLACES, NULL, 0, NULL, 0, collect_column, context, err);
    for (size_t i = 0; i < ids.size / sizeof(uint64_t) && status == NPK_OK; i++) {
        npk_container container;
        bool found = false;
        status = npk_catalog_get_container(verify->kv, NPK_CONTAINER_COLUMN, id_at(&ids, i), &container, &found, err);
        if (status == NPK_OK && found)
            status = verify_column(verify, id_at(&ids, i), &container, deep, err);
        if (status == NPK_OK && stopped(verify))
            status = npk_fail(err, NPK_INTERRUPTED, "verify was interrupted");
    }
    npk_buffer_release(&ids);
    return status;
}

/* ---- the log ---------------------------------------------------------------------------------------------------------------------- */

struct log_check {
    npk_verify *verify;
    npk_status status;
    npk_error *err;
    uint64_t base_size;
};

static void note_record(void *context, uint64_t seq, uint64_t offset, uint64_t size, uint64_t lsn, const char *reason)
{
    (void)lsn;
    struct log_check *check = context;
    char file[64];
    (void)snprintf(file, sizeof file, "%s/%016llx.wal", NPK_DIRECTORY_WAL, (unsigned long long)seq);
    struct damage damage = {NPK_CONTAINER_SEGMENT, seq, offset, size, 0, false, file, reason};
    if (check->status == NPK_OK)
        check->status = report_damage(check->verify, &damage, check->err);
}

static int note_progress(void *context, uint64_t done_size)
{
    struct log_check *check = context;
    check->verify->done_size = check->base_size + done_size;
    return stopped(check->verify);
}

static npk_status verify_log(npk_verify *verify, npk_error *err)
{
    struct log_check check = {verify, NPK_OK, err, verify->done_size};
    npk_status status =
        npk_wal_verify(verify->sources.wal, verify->until_lsn, note_record, note_progress, &check, err);
    return status == NPK_OK ? check.status : status;
}

/* Segments that rows lie in and that are not there, or are not what their name says. */
static npk_status collect_segment(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size,
                                  bool *stop, npk_error *err)
{
    npk_container container;
    if (key_size != 9 || !npk_container_decode(value, value_size, &container))
        return npk_catalog_fail(err, NPK_TABLE_PLACES);
    if (key[0] != NPK_CONTAINER_SEGMENT || container.reference_count == 0)
        return NPK_OK;
    return collect_id(context, key, key_size, value, value_size, stop, err);
}

static npk_status verify_segments(npk_verify *verify, npk_error *err)
{
    npk_buffer ids;
    npk_buffer_init(&ids);
    npk_status status = npk_kv_scan(verify->kv, NPK_TABLE_PLACES, NULL, 0, NULL, 0, collect_segment, &ids, err);
    for (size_t i = 0; i < ids.size / sizeof(uint64_t) && status == NPK_OK; i++) {
        npk_error reason = {0};
        npk_segment *segment = NULL;
        npk_status state = npk_wal_segment(verify->sources.wal, id_at(&ids, i), &segment, &reason);
        npk_segment_release(segment);
        if (state == NPK_OK)
            continue;
        if (state == NPK_NO_MEMORY) {
            status = npk_fail(err, state, "%s", reason.message);
            break;
        }
        char file[64];
        (void)snprintf(file, sizeof file, "%s/%016llx.wal", NPK_DIRECTORY_WAL, (unsigned long long)id_at(&ids, i));
        struct damage damage = {NPK_CONTAINER_SEGMENT, id_at(&ids, i), 0, 0, 0, true, file, reason.message};
        status = report_damage(verify, &damage, err);
    }
    npk_buffer_release(&ids);
    return status;
}

npk_status npk_verify_files(npk_verify *verify, npk_error *err)
{
    npk_status status = verify_arrays(verify, err);
    if (status == NPK_OK)
        status = verify_columns(verify, false, err);
    return status == NPK_OK ? verify_segments(verify, err) : status;
}

static void add_segment_size(void *context, const npk_segment_info *info)
{
    npk_verify *verify = context;
    if (info->valid && info->first_lsn < verify->until_lsn)
        verify->total_size += info->size;
}

npk_status npk_verify_run(npk_verify *verify, bool log, npk_error *err)
{
    npk_status status = verify_arrays(verify, err);
    if (status == NPK_OK && log)
        status = npk_wal_list(verify->sources.wal, add_segment_size, verify, err);
    if (status == NPK_OK)
        status = verify_segments(verify, err);
    if (status == NPK_OK)
        status = verify_columns(verify, true, err);
    if (status == NPK_OK && log)
        status = verify_log(verify, err);
    if (status == NPK_OK) {
        verify->done_size = verify->total_size;
        if (stopped(verify))
            status = npk_fail(err, NPK_INTERRUPTED, "verify was interrupted");
    }
    return status;
}

/* ---- public ------------------------------------------------------------------------------------------------------------------------ */

npk_status npk_store_verify(npk_store *store, void (*report_finding)(void *context, const npk_finding *finding),
                            int (*progress)(void *context, uint64_t done_size, uint64_t total_size), void *context,
                            npk_error *err)
{
    /* On a snapshot: verifying takes long, and a view of the index must not. The pin keeps the files. */
    npk_snapshot *snapshot = NULL;
    npk_status status = npk_snapshot_take_copy(store, true, &snapshot, err);
    if (status != NPK_OK)
        return status;
    npk_verify verify = {.kv = npk_snapshot_view(snapshot),
                         .sources = npk_view_sources(store->core),
                         .until_lsn = npk_snapshot_position(snapshot).lsn,
                         .report = report_finding,
                         .progress = progress,
                         .context = context};
    status = npk_verify_run(&verify, true, err);
    if (status == NPK_OK && verify.finding_count)
        status = npk_fail(err, NPK_CORRUPT, "%llu damaged places were found in store \"%s\"",
                          (unsigned long long)verify.finding_count, store->core->path);
    npk_snapshot_release(snapshot);
    return status;
}
