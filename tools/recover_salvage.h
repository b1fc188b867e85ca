/* recover_salvage.h - npk_salvage into a report, and the lists that are left beside what was salvaged. */
#ifndef RECOVER_SALVAGE_H
#define RECOVER_SALVAGE_H

#include <jansson.h>

#include "npk.h"

/* Owned by the caller: recover_salvage_init first, recover_salvage_release last. */
typedef struct recover_salvage {
    const char *target;
    int as_npy, force;
    uint64_t until_lsn, until_us;
    int done;       /* summary holds something */
    npk_salvage_summary summary;
    json_t *arrays, *losses, *attributes; /* attributes: {array or "": {key: value}} */
    int failed;     /* memory ran out while collecting */
} recover_salvage;

int recover_salvage_init(recover_salvage *salvage); /* 0, or -1: no memory */
void recover_salvage_release(recover_salvage *salvage);

/* npk_salvage, then lost.json (when something is lost) and attributes.json (as_npy, when there are any) in the target. */
npk_status recover_salvage_run(recover_salvage *salvage, const char *path,
                               int (*progress)(void *context, uint64_t done_size, uint64_t total_size), npk_error *err);

/* For people, on stdout. */
void recover_salvage_print(const recover_salvage *salvage);
/* The contract of tools/README.md, "salvage" object; NULL: no memory. */
json_t *recover_salvage_json(const recover_salvage *salvage);

/* "2026-01-31T12:00:00.25Z", UTC unless it ends in +hh:mm or -hh:mm, or "@seconds", to microseconds since 1970; -1: neither. */
int recover_parse_time(const char *text, uint64_t *us);

#endif
