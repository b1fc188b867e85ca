/* recover_salvage.c - npk_salvage into a report, and the lists that are left beside what was salvaged. */
#include "recover_salvage.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "recover_report.h"

static const char *const kind_names[] = {"rows", "older-rows", "log", "transaction", "array"};

int recover_salvage_init(recover_salvage *salvage)
{
    salvage->arrays = json_array();
    salvage->losses = json_array();
    salvage->attributes = json_object();
    return salvage->arrays && salvage->losses && salvage->attributes ? 0 : -1;
}

void recover_salvage_release(recover_salvage *salvage)
{
    json_decref(salvage->arrays);
    json_decref(salvage->losses);
    json_decref(salvage->attributes);
    salvage->arrays = salvage->losses = salvage->attributes = NULL;
}

/* ---- collecting ------------------------------------------------------------------------------------------------------ */

static json_t *number_or_null(uint64_t value)
{
    return value ? json_integer((json_int_t)value) : json_null();
}

static json_t *row_or_null(int64_t value)
{
    return value >= 0 ? json_integer(value) : json_null();
}

static json_t *text_or_null(const char *value)
{
    return value && value[0] ? recover_text(value) : json_null();
}

static void add_loss(void *context, const npk_loss *loss)
{
    recover_salvage *salvage = context;
    json_t *object =
        json_pack("{ss so so so so so so so}", "kind", kind_names[loss->kind], "array", text_or_null(loss->array), "first_row",
                  row_or_null(loss->first_row), "row_count", row_or_null(loss->row_count), "lsn", number_or_null(loss->lsn), "end_lsn",
                  number_or_null(loss->end_lsn), "file", text_or_null(loss->file), "reason", recover_text(loss->reason));
    if (!object || json_array_append_new(salvage->losses, object))
        salvage->failed = 1;
}

static void add_array(void *context, const npk_salvaged_array *array)
{
    recover_salvage *salvage = context;
    json_t *object = recover_array_json(&array->array);
    if (!object || json_object_del(object, "pending_rows") ||
        json_object_set_new(object, "lost_rows", json_integer((json_int_t)array->lost_row_count)) ||
        json_object_set_new(object, "file", text_or_null(array->file)) || json_array_append(salvage->arrays, object))
        salvage->failed = 1;
    json_decref(object);
}

/* Values are JSON text by convention; what is not is kept as {"hex": "..."}. */
static void add_attr(void *context, const char *array, const char *key, const void *value, size_t size)
{
    recover_salvage *salvage = context;
    json_t *item = json_loadb(value, size, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    if (!item) {
        char *hex = malloc(2 * size + 1);
        for (size_t i = 0; hex && i < size; i++)
            snprintf(hex + 2 * i, 3, "%02x", ((const unsigned char *)value)[i]);
        item = hex ? json_pack("{ss#}", "hex", hex, (int)(2 * size)) : NULL;
        free(hex);
    }
    json_t *of_array = json_object_get(salvage->attributes, array);
    if (!of_array && (!(of_array = json_object()) || json_object_set_new(salvage->attributes, array, of_array)))
        of_array = NULL;
    if (!item || !of_array || json_object_set(of_array, key, item))
        salvage->failed = 1;
    json_decref(item);
}

/* ---- lists beside the data ----------------------------------------------------------------------------------------------- */

static npk_status fail_list(npk_error *err, const char *name)
{
    memset(err, 0, sizeof *err);
    err->status = errno == ENOSPC ? NPK_NO_SPACE : NPK_IO;
    err->sys_errno = errno;
    err->row = -1;
    snprintf(err->message, sizeof err->message, "could not write file \"%s\": %s", name, strerror(errno));
    return err->status;
}

/* Written beside, synced, renamed. */
static npk_status write_list(const char *target, const char *name, const json_t *value, npk_error *err)
{
    char temp[64];
    snprintf(temp, sizeof temp, "%s.tmp", name);
    int directory = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return fail_list(err, name);
    int file = openat(directory, temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    int bad = file < 0 || json_dumpfd(value, file, JSON_INDENT(2)) || write(file, "\n", 1) != 1 || fsync(file);
    if (file >= 0 && close(file))
        bad = 1;
    bad = bad || renameat(directory, temp, directory, name) || fsync(directory);
    npk_status status = bad ? fail_list(err, name) : NPK_OK;
    close(directory);
    return status;
}

static npk_status write_lists(const recover_salvage *salvage, const char *path, npk_error *err)
{
    npk_status status = NPK_OK;
    if (json_array_size(salvage->losses)) {
        json_t *list = json_pack("{si so sO}", "contract", 1, "store", recover_text(path), "losses", salvage->losses);
        if (!list)
            errno = ENOMEM;
        status = list ? write_list(salvage->target, "lost.json", list, err) : fail_list(err, "lost.json");
        json_decref(list);
    }
    if (status == NPK_OK && salvage->as_npy && json_object_size(salvage->attributes))
        status = write_list(salvage->target, "attributes.json", salvage->attributes, err);
    return status;
}

npk_status recover_salvage_run(recover_salvage *salvage, const char *path,
                               int (*progress)(void *context, uint64_t done_size, uint64_t total_size), npk_error *err)
{
    npk_salvage_options options = {.struct_size = sizeof options,
                                   .as_npy = salvage->as_npy,
                                   .force = salvage->force,
                                   .until_lsn = salvage->until_lsn,
                                   .until_us = salvage->until_us,
                                   .context = salvage,
                                   .loss = add_loss,
                                   .array = add_array,
                                   .attr = add_attr,
                                   .progress = progress};
    npk_status status = npk_salvage(path, salvage->target, &options, &salvage->summary, err);
    if (status != NPK_OK)
        return status;
    salvage->done = 1;
    if (salvage->failed) {
        errno = ENOMEM;
        return fail_list(err, "lost.json");
    }
    return write_lists(salvage, path, err);
}

/* ---- printing ---------------------------------------------------------------------------------------------------------------- */

void recover_salvage_print(const recover_salvage *salvage)
{
    if (!salvage->done)
        return;
    const npk_salvage_summary *seen = &salvage->summary;
    char when[64];
    printf("salvaged     %s (%s), state of epoch %" PRIu32 ", lsn %" PRIu64, salvage->target, salvage->as_npy ? ".npy files" : "store",
           seen->position.epoch, seen->position.lsn);
    if (recover_instant(seen->last_commit_us, when, sizeof when)[0])
        printf(", %s", when);
    printf("\n             %" PRIu64 " arrays, %" PRIu64 " rows, %" PRIu64 " attributes; %" PRIu64
           " rows came from older places\n",
           seen->array_count, seen->row_count, seen->attr_count, seen->restored_row_count);
    printf("lost         %" PRIu64 " rows (zero-filled), %" PRIu64 " losses%s\n", seen->lost_row_count, seen->loss_count,
           seen->loss_count ? ", listed in lost.json there:" : "");
    size_t i;
    json_t *item;
    json_array_foreach (salvage->losses, i, item) {
        json_t *array = json_object_get(item, "array"), *first = json_object_get(item, "first_row");
        json_t *lsn = json_object_get(item, "lsn"), *end = json_object_get(item, "end_lsn"), *file = json_object_get(item, "file");
        printf("  %s", json_string_value(json_object_get(item, "kind")));
        if (json_is_string(array))
            printf(": array \"%s\"", json_string_value(array));
        if (json_is_integer(first))
            printf(": rows %" JSON_INTEGER_FORMAT " .. %" JSON_INTEGER_FORMAT, json_integer_value(first),
                   json_integer_value(first) + json_integer_value(json_object_get(item, "row_count")) - 1);
        if (json_is_integer(lsn))
            printf(": lsn %" JSON_INTEGER_FORMAT, json_integer_value(lsn));
        if (json_is_integer(end))
            printf(" .. %" JSON_INTEGER_FORMAT, json_integer_value(end));
        if (json_is_string(file))
            printf(": %s", json_string_value(file));
        printf(": %s\n", json_string_value(json_object_get(item, "reason")));
    }
}

json_t *recover_salvage_json(const recover_salvage *salvage)
{
    const npk_salvage_summary *seen = &salvage->summary;
    if (!salvage->done)
        return json_null();
    char when[64];
    recover_instant(seen->last_commit_us, when, sizeof when);
    return json_pack("{so ss s{sI sI} so so sI sI sI sI sI sI sO sO}", "target", recover_text(salvage->target), "format",
                     salvage->as_npy ? "npy" : "store", "position", "epoch", (json_int_t)seen->position.epoch, "lsn",
                     (json_int_t)seen->position.lsn, "last_commit_us", number_or_null(seen->last_commit_us), "last_commit",
                     text_or_null(when), "array_count", (json_int_t)seen->array_count, "row_count", (json_int_t)seen->row_count,
                     "attr_count", (json_int_t)seen->attr_count, "lost_row_count", (json_int_t)seen->lost_row_count,
                     "restored_row_count", (json_int_t)seen->restored_row_count, "loss_count", (json_int_t)seen->loss_count, "arrays",
                     salvage->arrays, "losses", salvage->losses);
}

/* ---- time ---------------------------------------------------------------------------------------------------------------------- */

/* Up to six digits of a fraction behind a point; returns where it ends. */
static const char *parse_fraction(const char *at, uint64_t *us)
{
    *us = 0;
    if (*at != '.')
        return at;
    uint64_t unit = 100000;
    for (at++; *at >= '0' && *at <= '9'; at++, unit /= 10)
        *us += unit * (uint64_t)(*at - '0');
    return at;
}

int recover_parse_time(const char *text, uint64_t *us)
{
    uint64_t fraction;
    if (text[0] == '@') {
        char *end = NULL;
        errno = 0;
        unsigned long long seconds = text[1] >= '0' && text[1] <= '9' ? strtoull(text + 1, &end, 10) : 0;
        if (!end || errno || seconds > INT64_MAX / 1000000 - 1)
            return -1;
        const char *rest = parse_fraction(end, &fraction);
        *us = seconds * 1000000 + fraction;
        return *rest ? -1 : 0;
    }
    struct tm parts = {0};
    const char *at = strptime(text, "%Y-%m-%d", &parts);
    if (at && (*at == 'T' || *at == ' '))
        at = strptime(at + 1, "%H:%M:%S", &parts);
    else if (at && *at)
        at = NULL;
    if (!at)
        return -1;
    at = parse_fraction(at, &fraction);
    long offset = 0;
    if (*at == '+' || *at == '-') {
        unsigned hours, minutes;
        int used = 0;
        if (sscanf(at + 1, "%2u:%2u%n", &hours, &minutes, &used) != 2 || used != 5 || hours > 23 || minutes > 59)
            return -1;
        offset = (*at == '-' ? -1 : 1) * (long)(hours * 3600 + minutes * 60);
        at += 6;
    } else if (*at == 'Z') {
        at++;
    }
    time_t seconds = timegm(&parts);
    if (*at || seconds - offset < 0)
        return -1;
    *us = (uint64_t)(seconds - offset) * 1000000 + fraction;
    return 0;
}
