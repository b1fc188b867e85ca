/* wal_recovery.h - where the log ends, as a table: evidence in, verdict out. Pure data and one look-up.
 *
 * A scan reads valid records until it cannot go on. What it then knows is an npk_wal_evidence; the first (and only) case whose
 * pattern holds decides. The order of the cases does not matter: a test walks over every combination and finds exactly one.
 *
 *   case                               verdict   why
 *   durable bytes are missing          damaged   a floor above the position: these bytes were synced once
 *   record contradicts the log         damaged   no crash leaves a record with a fitting checksum that cannot be there, nor a short file
 *   marked successor is missing        damaged   the mark (or its name) proves that the log went on
 *   successor does not fit             damaged   it names another predecessor, end or checksum
 *   cut without a successor            torn      the tail procedure was interrupted: it must run again; nothing may be appended here
 *   failed sync was reported           torn      the page cache may differ from the disk: rewrite what is kept, void the rest
 *   uncommitted records                torn      valid records without a commit record
 *   segment is full                    clean     the next append rolls
 *   zeros to the end                   clean     the next append goes here
 *   remnants behind zeros              torn      sectors of a lost append
 *   torn record                        torn      a part of an append
 */
#ifndef NPK_WAL_RECOVERY_H
#define NPK_WAL_RECOVERY_H

#include <stddef.h>

#include "wal.h"

/* Each piece of evidence is one bit, so that a pattern is a set of them. */
typedef enum npk_wal_here { /* what lies at the position */
    NPK_HERE_SEGMENT_END = 1, /* the record area is full, or the segment was cut or continued here */
    NPK_HERE_ZEROS = 2,       /* zeros where a record header would be */
    NPK_HERE_OTHER = 4,       /* bytes that are no valid record */
    NPK_HERE_CONTRADICTION = 8, /* a valid record that cannot be there; a file shorter than its header says */
    NPK_HERE_ANY = 15
} npk_wal_here;

typedef enum npk_wal_link { /* what is known of a successor */
    NPK_LINK_NONE = 1,     /* no mark, no later segment to step into */
    NPK_LINK_MISSING = 2,  /* a mark without its segment, or a later segment that cannot be read */
    NPK_LINK_MISFIT = 4,   /* the later segment or the mark does not fit to this end */
    NPK_LINK_CUT = 8,      /* the segment is cut, the next one was not made yet */
    NPK_LINK_ANY = 15
} npk_wal_link;

typedef enum npk_wal_floor { /* highest LSN proven durable, against the position */
    NPK_FLOOR_REACHED = 1, /* at or below */
    NPK_FLOOR_ABOVE = 2,
    NPK_FLOOR_ANY = 3
} npk_wal_floor;

typedef enum npk_wal_behind { /* the rest of the record area */
    NPK_BEHIND_ZEROS = 1,
    NPK_BEHIND_OTHER = 2,
    NPK_BEHIND_ANY = 3
} npk_wal_behind;

typedef enum npk_wal_open_records { /* valid records behind the last complete transaction */
    NPK_OPEN_RECORDS_NONE = 1,
    NPK_OPEN_RECORDS_SOME = 2,
    NPK_OPEN_RECORDS_ANY = 3
} npk_wal_open_records;

typedef enum npk_wal_failure { /* was a failed sync reported (npk_wal_scan.stop_lsn)? */
    NPK_FAILURE_NONE = 1,
    NPK_FAILURE_REPORTED = 2,
    NPK_FAILURE_ANY = 3
} npk_wal_failure;

/* In evidence exactly one bit of each field is set; in a pattern any number. */
typedef struct npk_wal_evidence {
    unsigned here, link, floor, behind, open_records, failure;
} npk_wal_evidence;

typedef struct npk_wal_case {
    const char *name;
    npk_wal_evidence pattern;
    npk_wal_verdict verdict;
} npk_wal_case;

extern const npk_wal_case npk_wal_cases[];
extern const size_t npk_wal_case_count;

/* The case of the table; never NULL for evidence with one bit per field, NULL otherwise. */
const npk_wal_case *npk_wal_case_find(const npk_wal_evidence *evidence);

#endif
