/* recover_report.c - what npk-recover found, collected and printed. */
#include "recover_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Names and reasons come from disk: what is not UTF-8 must not make the report fail. */
json_t *recover_text(const char *value)
{
    json_t *string = json_string(value);
    if (string)
        return string;
    char plain[1024];
    size_t size = 0;
    for (const unsigned char *at = (const unsigned char *)value; *at && size + 5 < sizeof plain; at++) {
        if (*at >= 0x20 && *at < 0x7f)
            plain[size++] = (char)*at;
        else
            size += (size_t)snprintf(plain + size, sizeof plain - size, "\\x%02x", *at);
    }
    plain[size] = 0;
    return json_string(plain);
}

/* JSON integers of most readers end at 2^63; LSNs and sizes stay far below. */
static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

int recover_report_init(recover_report *report)
{
    memset(report, 0, sizeof *report);
    report->arrays = json_array();
    report->findings = json_array();
    return report->arrays && report->findings ? 0 : -1;
}

void recover_report_release(recover_report *report)
{
    json_decref(report->arrays);
    json_decref(report->findings);
    report->arrays = report->findings = NULL;
}

json_t *recover_array_json(const npk_inspection_array *array)
{
    json_t *shape = json_array();
    int bad = !shape;
    if (!array->zero_dim)
        bad = bad || json_array_append_new(shape, number(array->row_count));
    for (uint32_t i = 0; i < array->ndim; i++)
        bad = bad || json_array_append_new(shape, number(array->shape[i]));
    json_t *object = bad ? NULL : json_pack("{so so so so so so}", "name", recover_text(array->name), "descr", recover_text(array->descr),
                                            "shape", shape, "rows", number(array->row_count), "row_size",
                                            number(array->row_size), "pending_rows", number(array->pending_row_count));
    if (bad)
        json_decref(shape);
    return object;
}

static void add_array(void *context, const npk_inspection_array *array)
{
    recover_report *report = context;
    json_t *object = recover_array_json(array);
    if (!object || json_array_append_new(report->arrays, object))
        report->failed = 1;
}

static void add_finding(void *context, const npk_finding *finding)
{
    recover_report *report = context;
    json_t *object = json_pack("{so so so so so so so}", "file", recover_text(finding->file), "offset", number(finding->offset),
                               "size", number(finding->size), "array",
                               finding->array[0] ? recover_text(finding->array) : json_null(), "first_row",
                               finding->first_row < 0 ? json_null() : json_integer(finding->first_row), "row_count",
                               finding->row_count < 0 ? json_null() : json_integer(finding->row_count), "reason",
                               recover_text(finding->reason));
    if (!object || json_array_append_new(report->findings, object))
        report->failed = 1;
}

npk_status recover_report_inspect(recover_report *report, const char *path, int deep,
                                  int (*progress)(void *context, uint64_t done_size, uint64_t total_size),
                                  npk_error *err)
{
    npk_inspection_visitor visitor = {
        .context = report, .array = add_array, .finding = add_finding, .progress = progress};
    json_array_clear(report->arrays);
    json_array_clear(report->findings);
    memset(&report->inspection, 0, sizeof report->inspection);
    report->inspection.struct_size = sizeof report->inspection;
    npk_status status = npk_inspect(path, deep, &visitor, &report->inspection, err);
    /* Damage may end the look early; what was seen until then, and why it ended, is still the report. */
    if (status == NPK_CORRUPT) {
        report->inspection.verdict = NPK_STORE_DAMAGED;
        if (json_array_size(report->findings) == 0) {
            npk_finding finding = {.first_row = err->row, .row_count = err->row < 0 ? -1 : 1};
            snprintf(finding.array, sizeof finding.array, "%s", err->array);
            snprintf(finding.reason, sizeof finding.reason, "%.*s", (int)sizeof finding.reason - 1, err->message);
            add_finding(report, &finding);
        }
        if (!report->inspection.reason[0])
            snprintf(report->inspection.reason, sizeof report->inspection.reason, "%.*s",
                     (int)sizeof report->inspection.reason - 1, err->message);
        report->inspection.finding_count = json_array_size(report->findings);
        status = NPK_OK;
    }
    if (status == NPK_OK && report->failed) {
        memset(err, 0, sizeof *err);
        err->status = NPK_NO_MEMORY;
        err->row = -1;
        snprintf(err->message, sizeof err->message, "out of memory while collecting the report");
        return NPK_NO_MEMORY;
    }
    return status;
}

const char *recover_verdict_name(npk_verdict verdict)
{
    switch (verdict) {
    case NPK_STORE_CLEAN: return "clean";
    case NPK_STORE_TORN: return "torn";
    case NPK_STORE_DAMAGED: return "damaged";
    case NPK_STORE_IN_USE: return "in-use";
    }
    return "unknown";
}

const char *recover_verdict_meaning(npk_verdict verdict)
{
    switch (verdict) {
    case NPK_STORE_CLEAN: return "the store was closed; nothing to recover";
    case NPK_STORE_TORN: return "the log was left open; the next open replays it and cuts its unfinished tail; nothing is lost";
    case NPK_STORE_DAMAGED: return "committed bytes are damaged or missing";
    case NPK_STORE_IN_USE: return "processes have the store open; this is its state of the moment";
    }
    return "";
}

/* Microseconds since 1970 as ISO 8601 in UTC; "" when unknown. */
const char *recover_instant(uint64_t us, char *out, size_t size)
{
    time_t seconds = (time_t)(us / 1000000);
    struct tm parts;
    char day[32];
    out[0] = 0;
    if (us && gmtime_r(&seconds, &parts) && strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &parts))
        snprintf(out, size, "%s.%06uZ", day, (unsigned)(us % 1000000));
    return out;
}

void recover_report_print(const recover_report *report, const char *path, int deep)
{
    const npk_inspection *seen = &report->inspection;
    char when[64];
    printf("store        %s\n", path);
    printf("verdict      %s: %s\n", recover_verdict_name(seen->verdict), recover_verdict_meaning(seen->verdict));
    if (seen->reason[0])
        printf("log end      %s\n", seen->reason);
    printf("format       %" PRIu32 ", uuid %s\n", seen->format_version, seen->uuid);
    printf("last commit  epoch %" PRIu32 ", lsn %" PRIu64, seen->position.epoch, seen->position.lsn);
    if (recover_instant(seen->last_commit_us, when, sizeof when)[0])
        printf(", %s", when);
    printf("\ndurable      lsn %" PRIu64 " proven; %" PRIu64 " transactions replayed behind the checkpoint\n",
           seen->durable_lsn, seen->replayed_transaction_count);
    printf("checkpoint   lsn %" PRIu64 ", %" PRIu64 " kept, %" PRIu64 " unreadable\n", seen->checkpoint_lsn,
           seen->checkpoint_count, seen->bad_checkpoint_count);
    printf("log          %" PRIu64 " segments, %" PRIu64 " void, %" PRIu64 " bytes behind the last transaction\n",
           seen->segment_count, seen->void_segment_count, seen->tail_size);
    printf("arrays       %" PRIu64 ", %" PRIu64 " rows, %" PRIu64 " of them only in the log\n", seen->array_count,
           seen->row_count, seen->pending_row_count);

    size_t i;
    json_t *item;
    json_array_foreach (report->arrays, i, item) {
        char *shape = json_dumps(json_object_get(item, "shape"), JSON_COMPACT);
        printf("  %-20s %-8s %-20s pending %" JSON_INTEGER_FORMAT "\n", json_string_value(json_object_get(item, "name")),
               json_string_value(json_object_get(item, "descr")), shape ? shape : "?",
               json_integer_value(json_object_get(item, "pending_rows")));
        free(shape);
    }
    printf("orphans      %" PRIu64 " files, %" PRIu64 " bytes\n", seen->orphan_count, seen->orphan_size);
    printf("findings     %" PRIu64 "%s\n", seen->finding_count, deep ? "" : " (column files not read: --deep reads them)");
    json_array_foreach (report->findings, i, item) {
        json_t *array = json_object_get(item, "array"), *first = json_object_get(item, "first_row");
        json_int_t count = json_integer_value(json_object_get(item, "row_count"));
        printf("  %s: bytes %" JSON_INTEGER_FORMAT "+%" JSON_INTEGER_FORMAT, json_string_value(json_object_get(item, "file")),
               json_integer_value(json_object_get(item, "offset")), json_integer_value(json_object_get(item, "size")));
        if (json_is_string(array))
            printf(": array \"%s\"", json_string_value(array));
        if (json_is_integer(first))
            printf(": rows %" JSON_INTEGER_FORMAT " .. %" JSON_INTEGER_FORMAT, json_integer_value(first),
                   json_integer_value(first) + count - 1);
        printf(": %s\n", json_string_value(json_object_get(item, "reason")));
    }
}

json_t *recover_report_json(const recover_report *report)
{
    const npk_inspection *seen = &report->inspection;
    char when[64];
    recover_instant(seen->last_commit_us, when, sizeof when);
    return json_pack("{so so so so s{so so} so so so s{so so so} s{so so so so} so so so so s{so so} sO sO}",
                     "verdict", recover_text(recover_verdict_name(seen->verdict)),
                     "reason", recover_text(seen->reason),
                     "format_version", number(seen->format_version),
                     "uuid", recover_text(seen->uuid),
                     "position", "epoch", number(seen->position.epoch), "lsn", number(seen->position.lsn),
                     "last_commit_us", seen->last_commit_us ? number(seen->last_commit_us) : json_null(),
                     "last_commit", when[0] ? recover_text(when) : json_null(),
                     "durable_lsn", number(seen->durable_lsn),
                     "checkpoint", "lsn", number(seen->checkpoint_lsn), "count", number(seen->checkpoint_count),
                     "bad_count", number(seen->bad_checkpoint_count),
                     "log", "segments", number(seen->segment_count), "void_segments", number(seen->void_segment_count),
                     "tail_size", number(seen->tail_size), "replayed_transactions",
                     number(seen->replayed_transaction_count),
                     "array_count", number(seen->array_count),
                     "row_count", number(seen->row_count),
                     "pending_row_count", number(seen->pending_row_count),
                     "finding_count", number(seen->finding_count),
                     "orphans", "count", number(seen->orphan_count), "size", number(seen->orphan_size),
                     "arrays", report->arrays,
                     "findings", report->findings);
}
