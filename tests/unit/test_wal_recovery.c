/* test_wal_recovery.c - the table of the end of the log, walked over every combination of evidence. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "wal_recovery.h"

static bool matches(const npk_wal_case *c, const npk_wal_evidence *e)
{
    return (c->pattern.here & e->here) && (c->pattern.link & e->link) && (c->pattern.floor & e->floor) &&
           (c->pattern.behind & e->behind) && (c->pattern.open_records & e->open_records) && (c->pattern.failure & e->failure);
}

/* What the issue says in words, written a second time without the table. */
static npk_wal_verdict expected(const npk_wal_evidence *e)
{
    if (e->floor == NPK_FLOOR_ABOVE || e->here == NPK_HERE_CONTRADICTION || e->link == NPK_LINK_MISSING ||
        e->link == NPK_LINK_MISFIT)
        return NPK_WAL_DAMAGED;
    if (e->link == NPK_LINK_CUT || e->failure == NPK_FAILURE_REPORTED || e->open_records == NPK_OPEN_RECORDS_SOME)
        return NPK_WAL_TORN;
    if (e->here == NPK_HERE_SEGMENT_END || (e->here == NPK_HERE_ZEROS && e->behind == NPK_BEHIND_ZEROS))
        return NPK_WAL_CLEAN;
    return NPK_WAL_TORN;
}

START_TEST(every_combination_has_exactly_one_case)
{
    size_t seen[64] = {0};
    size_t combinations = 0;
    npk_wal_evidence e;
    ck_assert_uint_le(npk_wal_case_count, 64);
    for (e.here = 1; e.here <= NPK_HERE_ANY; e.here *= 2)
        for (e.link = 1; e.link <= NPK_LINK_ANY; e.link *= 2)
            for (e.floor = 1; e.floor <= NPK_FLOOR_ANY; e.floor *= 2)
                for (e.behind = 1; e.behind <= NPK_BEHIND_ANY; e.behind *= 2)
                    for (e.open_records = 1; e.open_records <= NPK_OPEN_RECORDS_ANY; e.open_records *= 2)
                        for (e.failure = 1; e.failure <= NPK_FAILURE_ANY; e.failure *= 2) {
                            size_t count = 0;
                            for (size_t i = 0; i < npk_wal_case_count; i++)
                                if (matches(&npk_wal_cases[i], &e)) {
                                    count++;
                                    seen[i]++;
                                    ck_assert_ptr_eq(npk_wal_case_find(&e), &npk_wal_cases[i]);
                                    ck_assert_int_eq(npk_wal_cases[i].verdict, expected(&e));
                                }
                            ck_assert_msg(count == 1, "here %u link %u floor %u behind %u open %u failure %u: %zu cases",
                                          e.here, e.link, e.floor, e.behind, e.open_records, e.failure, count);
                            combinations++;
                        }
    ck_assert_uint_eq(combinations, 4 * 4 * 2 * 2 * 2 * 2);
    for (size_t i = 0; i < npk_wal_case_count; i++)
        ck_assert_msg(seen[i] > 0, "case \"%s\" is never reached", npk_wal_cases[i].name);
}
END_TEST

START_TEST(names_are_distinct)
{
    for (size_t i = 0; i < npk_wal_case_count; i++)
        for (size_t j = i + 1; j < npk_wal_case_count; j++)
            ck_assert_str_ne(npk_wal_cases[i].name, npk_wal_cases[j].name);
}
END_TEST

START_TEST(no_evidence_has_no_case)
{
    npk_wal_evidence nothing = {0};
    ck_assert_ptr_null(npk_wal_case_find(&nothing));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wal_recovery");
    TCase *tc = tcase_create("table");
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, every_combination_has_exactly_one_case);
    tcase_add_test(tc, names_are_distinct);
    tcase_add_test(tc, no_evidence_has_no_case);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
