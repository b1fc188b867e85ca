/* recover_report.h - what npk-recover found, collected and printed. */
#ifndef RECOVER_REPORT_H
#define RECOVER_REPORT_H

#include <jansson.h>

#include "npk.h"

/* One look at a store. arrays and findings are kept as the JSON that --json prints, so that both outputs come from one
 * collection. Owned by the caller: recover_report_init first, recover_report_release last. */
typedef struct recover_report {
    npk_inspection inspection;
    json_t *arrays, *findings;
    int failed; /* memory ran out while collecting */
} recover_report;

int recover_report_init(recover_report *report); /* 0, or -1: no memory */
void recover_report_release(recover_report *report);

/* npk_inspect into the report; progress may be NULL. Damage is a verdict here, never a failure. */
npk_status recover_report_inspect(recover_report *report, const char *path, int deep,
                                  int (*progress)(void *context, uint64_t done_size, uint64_t total_size),
                                  npk_error *err);

const char *recover_verdict_name(npk_verdict verdict);    /* "clean" "torn" "damaged" "in-use" */
const char *recover_verdict_meaning(npk_verdict verdict); /* one sentence */

/* Shared with what else is printed. Text that is not UTF-8 is made so; an instant is ISO 8601 in UTC, "" when unknown. */
json_t *recover_text(const char *value);
json_t *recover_array_json(const npk_inspection_array *array);
const char *recover_instant(uint64_t us, char *out, size_t size);

/* For people, on stdout. */
void recover_report_print(const recover_report *report, const char *path, int deep);
/* The contract of tools/README.md, "store" object; NULL: no memory. */
json_t *recover_report_json(const recover_report *report);

#endif
