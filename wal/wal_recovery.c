/* wal_recovery.c - the cases of the end of the log; why each is as it is stands in wal_recovery.h. */
#include "wal_recovery.h"

#define HERE_NO_CONTRADICTION (NPK_HERE_ANY & ~NPK_HERE_CONTRADICTION)

const npk_wal_case npk_wal_cases[] = {
    {"durable bytes are missing",
     {NPK_HERE_ANY, NPK_LINK_ANY, NPK_FLOOR_ABOVE, NPK_BEHIND_ANY, NPK_OPEN_RECORDS_ANY, NPK_FAILURE_ANY},
     NPK_WAL_DAMAGED},
    {"record contradicts the log",
     {NPK_HERE_CONTRADICTION, NPK_LINK_ANY, NPK_FLOOR_REACHED, NPK_BEHIND_ANY, NPK_OPEN_RECORDS_ANY, NPK_FAILURE_ANY},
     NPK_WAL_DAMAGED},
    {"marked successor is missing",
     {HERE_NO_CONTRADICTION, NPK_LINK_MISSING, NPK_FLOOR_REACHED, NPK_BEHIND_ANY, NPK_OPEN_RECORDS_ANY, NPK_FAILURE_ANY},
     NPK_WAL_DAMAGED},
    {"successor does not fit",
     {HERE_NO_CONTRADICTION, NPK_LINK_MISFIT, NPK_FLOOR_REACHED, NPK_BEHIND_ANY, NPK_OPEN_RECORDS_ANY, NPK_FAILURE_ANY},
     NPK_WAL_DAMAGED},
    {"cut without a successor",
     {HERE_NO_CONTRADICTION, NPK_LINK_CUT, NPK_FLOOR_REACHED, NPK_BEHIND_ANY, NPK_OPEN_RECORDS_ANY, NPK_FAILURE_ANY},
     NPK_WAL_TORN},
    {"failed sync was reported",
     {HERE_NO_CONTRADICTION, NPK_LINK_NONE, NPK_FLOOR_REACHED, NPK_BEHIND_ANY, NPK_OPEN_RECORDS_ANY, NPK_FAILURE_REPORTED},
     NPK_WAL_TORN},
    {"uncommitted records",
     {HERE_NO_CONTRADICTION, NPK_LINK_NONE, NPK_FLOOR_REACHED, NPK_BEHIND_ANY, NPK_OPEN_RECORDS_SOME, NPK_FAILURE_NONE},
     NPK_WAL_TORN},
    {"segment is full",
     {NPK_HERE_SEGMENT_END, NPK_LINK_NONE, NPK_FLOOR_REACHED, NPK_BEHIND_ANY, NPK_OPEN_RECORDS_NONE, NPK_FAILURE_NONE},
     NPK_WAL_CLEAN},
    {"zeros to the end",
     {NPK_HERE_ZEROS, NPK_LINK_NONE, NPK_FLOOR_REACHED, NPK_BEHIND_ZEROS, NPK_OPEN_RECORDS_NONE, NPK_FAILURE_NONE},
     NPK_WAL_CLEAN},
    {"remnants behind zeros",
     {NPK_HERE_ZEROS, NPK_LINK_NONE, NPK_FLOOR_REACHED, NPK_BEHIND_OTHER, NPK_OPEN_RECORDS_NONE, NPK_FAILURE_NONE},
     NPK_WAL_TORN},
    {"torn record",
     {NPK_HERE_OTHER, NPK_LINK_NONE, NPK_FLOOR_REACHED, NPK_BEHIND_ANY, NPK_OPEN_RECORDS_NONE, NPK_FAILURE_NONE},
     NPK_WAL_TORN},
};
const size_t npk_wal_case_count = sizeof npk_wal_cases / sizeof npk_wal_cases[0];

const npk_wal_case *npk_wal_case_find(const npk_wal_evidence *e)
{
    for (size_t i = 0; i < npk_wal_case_count; i++) {
        const npk_wal_evidence *p = &npk_wal_cases[i].pattern;
        if (p->here & e->here && p->link & e->link && p->floor & e->floor && p->behind & e->behind &&
            p->open_records & e->open_records && p->failure & e->failure)
            return &npk_wal_cases[i];
    }
    return NULL;
}
