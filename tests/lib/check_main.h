/* check_main.h - main() of a test program: run its suite in this process and say how it went. */
#ifndef NPK_TESTS_CHECK_MAIN_H
#define NPK_TESTS_CHECK_MAIN_H

#include <check.h>
#include <stdlib.h>

/* Check forks per test unless told otherwise, so that a crash of one test is reported as such. */
static inline int check_main(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
