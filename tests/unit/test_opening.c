/* test_opening.c - a store opened, closed, inherited and left behind: by one process, by several, by children of fork. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check_main.h"
#include "core.h"
#include "npk.h"

static char directory[64];
static npk_error err;

static void setup(void)
{
    (void)snprintf(directory, sizeof directory, "/tmp/npk-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
}

static void teardown(void)
{
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", directory);
    ck_assert_int_eq(system(command), 0);
}

#define OK(call) ck_assert_msg((call) == NPK_OK, "%s", err.message)

static const npk_array_spec spec = {"<u4", 4, 0, NULL, 0};
static uint32_t rows[3 << 20]; /* 12 MiB: a bulk append, and more than the log buffers */

static npk_store *open_with(npk_options options)
{
    npk_store *store = NULL;
    options.struct_size = sizeof options;
    OK(npk_store_open(directory, &options, &store, &err));
    return store;
}

static npk_store *open_quiet(npk_mode mode)
{
    return open_with((npk_options){.mode = mode, .no_background = 1});
}

static void save(npk_store *store, uint64_t count)
{
    npk_txn *txn = NULL;
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_save(txn, "a", &spec, count, rows, &err));
    OK(npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err));
}

static void append(npk_store *store, uint64_t count, npk_sync sync)
{
    npk_txn *txn = NULL;
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_append(txn, "a", count, rows, &err));
    OK(npk_txn_commit(txn, sync, NULL, &err));
}

static uint64_t count_rows(npk_store *store)
{
    npk_source source = {.store = store};
    npk_array *array = NULL;
    OK(npk_array_open(&source, "a", &array, &err));
    uint64_t count = npk_array_describe(array)->row_count;
    npk_array_release(array);
    return count;
}

/* Run in a child of fork; what it returns is its exit code. */
static int in_child(int (*run)(void *context), void *context)
{
    (void)fflush(NULL);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        _exit(run(context));
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status), "the child died of signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

/* ---- fork ------------------------------------------------------------------------------------------------------------ */

static int refuse_all(void *context)
{
    npk_txn *txn = context;
    uint64_t savepoint = 0;
    if (npk_txn_savepoint(txn, &savepoint, NULL) != NPK_MISUSE || npk_txn_rollback_to(txn, 0, NULL) != NPK_MISUSE ||
        npk_txn_release_savepoint(txn, 0, NULL) != NPK_MISUSE)
        return 1;
    return npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, NULL) == NPK_MISUSE ? 0 : 2;
}

static int abort_it(void *context)
{
    npk_txn_abort(context);
    return 0;
}

START_TEST(test_a_child_cannot_end_its_parents_transaction)
{
    const uint64_t count = sizeof rows / sizeof rows[0];
    npk_store *store = open_quiet(NPK_MODE_CREATE);
    save(store, 10);
    npk_txn *txn = NULL;
    uint64_t savepoint = 0;
    OK(npk_txn_begin(store, 1000, &txn, &err));
    OK(npk_txn_savepoint(txn, &savepoint, &err));
    OK(npk_txn_append(txn, "a", count, rows, &err)); /* into a column file */
    for (int i = 0; i < 6; i++)
        OK(npk_txn_append(txn, "a", 250000, rows, &err)); /* into the log, some of it written */
    ck_assert_int_eq(in_child(refuse_all, txn), 0);
    ck_assert_int_eq(in_child(abort_it, txn), 0);
    ck_assert_uint_eq(atomic_load(&store->core->control->writer_active), 1);
    OK(npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err));
    ck_assert_uint_eq(count_rows(store), 10 + count + 6 * 250000);
    OK(npk_store_verify(store, 0, NULL, NULL, &err));
    OK(npk_store_close(store, &err));
    store = open_quiet(NPK_MODE_UPDATE);
    ck_assert_uint_eq(count_rows(store), 10 + count + 6 * 250000);
    OK(npk_store_close(store, &err));
}
END_TEST

/* ---------------------------------------------------------------------------------------------------------------------- */

int main(void)
{
    Suite *suite = suite_create("opening");
    TCase *fork_case = tcase_create("fork");
    tcase_add_checked_fixture(fork_case, setup, teardown);
    tcase_set_timeout(fork_case, 60);
    tcase_add_test(fork_case, test_a_child_cannot_end_its_parents_transaction);
    suite_add_tcase(suite, fork_case);
    return check_main(suite);
}
