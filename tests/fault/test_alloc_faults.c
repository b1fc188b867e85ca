/* test_alloc_faults.c - every allocation of every scenario fails, once and for good: the call says NO_MEMORY or gets by without, the store
 * stays usable, nothing is half done and nothing leaks. NPK_FAULT_STRIDE=1 visits every case. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "check_main.h"
#include "world.h"

static struct {
    uint64_t seen, at, fired;
    bool forever;
} plan;

static int fail_planned(void *context, size_t size)
{
    (void)context;
    (void)size;
    uint64_t here = plan.seen++;
    bool fails = plan.forever ? here >= plan.at : here == plan.at;
    plan.fired += fails;
    return fails;
}

static bool one_case(const world_scenario *scenario, uint64_t at, bool forever, uint64_t *fired)
{
    world *w = world_create(world_get_base(scenario->base));
    w->go_on = at % 2;
    (void)snprintf(w->label, sizeof w->label, "%s: allocation %llu fails%s", scenario->name, (unsigned long long)at,
                   forever ? " for good" : "");
    if (scenario->opened)
        ck_assert_msg(world_open(w) == NPK_OK, "%s: %s", w->label, w->err.message);
    plan.seen = plan.fired = 0;
    plan.at = at;
    plan.forever = forever;
    npk_alloc_set_hook(fail_planned, NULL);
    npk_status status = scenario->run(w);
    npk_alloc_set_hook(NULL, NULL);
    uint64_t count = plan.fired;
    *fired += count;
    ck_assert_msg(status == NPK_OK || (count && (status == NPK_NO_MEMORY || status == NPK_POISONED)), "%s: %s: %s", w->label,
                  npk_status_kind(status), w->err.message);
    if (count && at % 3 == 0)
        world_survive(w, at % 2 ? MEMORY_IO_PROCESS_DIED : MEMORY_IO_NONE, at);
    world_settle(w);
    world_destroy(w);
    return count != 0;
}

START_TEST(test_every_allocation_fails)
{
    const char *only = getenv("NPK_FAULT_ONLY"), *given = getenv("NPK_FAULT_STRIDE");
    if (only && atoi(only) != _i)
        return;
    const world_scenario *scenario = &world_scenarios[_i / 2];
    bool forever = _i % 2;
    uint64_t fired = 0, cases = 0, stride = given && atoi(given) > 0 ? (uint64_t)atoi(given) : forever ? 11 : 4;
    for (uint64_t k = 0; one_case(scenario, k, forever, &fired); k += stride)
        cases++;
    printf("%s%s: %llu cases, %llu failed allocations\n", scenario->name, forever ? " for good" : "",
           (unsigned long long)cases, (unsigned long long)fired);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("allocation faults");
    TCase *tcase = tcase_create("allocations");
    tcase_add_unchecked_fixture(tcase, world_setup, world_teardown);
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, test_every_allocation_fails, 0, (int)world_scenario_count * 2);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
