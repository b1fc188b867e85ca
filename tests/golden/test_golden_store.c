/* test_golden_store.c - stores written by the first release of format version 1 open for ever: one that was closed, and one whose process was
 * killed with a transaction spilled but not committed. "test_golden_store --make DIRECTORY" writes the two; a released one is never
 * written again. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check_main.h"
#include "npk.h"

static npk_error err;

#define OK(call)                                                            \
    do {                                                                    \
        if ((call) != NPK_OK) {                                             \
            (void)fprintf(stderr, "%s: %s\n", #call, err.message);          \
            abort();                                                        \
        }                                                                   \
    } while (0)

static const uint64_t four = 4;
static const npk_array_spec wide = {"<i4", 16, 1, &four, 0};
static const npk_array_spec value = {"<f8", 8, 0, NULL, 1};

/* Row i of "rows" as saved is (10 i, 10 i + 1, 10 i + 2, 10 i + 3). */
static void fill(int32_t *rows, int first, int count)
{
    for (int i = 0; i < count; i++)
        for (int k = 0; k < 4; k++)
            rows[4 * i + k] = 10 * (first + i) + k;
}

static npk_store *open_store(const char *path)
{
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE, .no_background = 1,
                           .segment_size = 64 << 10, .bulk_size = 32 << 10};
    npk_store *store = NULL;
    OK(npk_store_open(path, &options, &store, &err));
    return store;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------ */

static void write_store(const char *path, int killed)
{
    int32_t rows[4 * 3000];
    npk_store *store = open_store(path);
    npk_txn *txn = NULL;
    fill(rows, 0, 100);
    double pi = 3.25;
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    OK(npk_txn_save(txn, "rows", &wide, 100, rows, &err));
    OK(npk_txn_save(txn, "value", &value, 1, &pi, &err));
    OK(npk_txn_save(txn, "empty", &wide, 0, NULL, &err));
    OK(npk_txn_set_attr(txn, NULL, "offset", "41", 2, &err));
    OK(npk_txn_set_attr(txn, "rows", "unit", "\"mm\"", 4, &err));
    OK(npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err));
    OK(npk_store_compact(store, NULL, &err));               /* a column file and a checkpoint */
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    int64_t which[3] = {5, 99, 42};
    fill(rows, 1000, 3);
    OK(npk_txn_replace(txn, "rows", 3, which, rows, &err)); /* a packed set in the log */
    fill(rows, 100, 1000);
    OK(npk_txn_append(txn, "rows", 1000, rows, &err));      /* a run in the log */
    memset(rows, 7, sizeof rows);
    OK(npk_txn_save(txn, "sevens", &wide, 1000, rows, &err)); /* packed with lz4 */
    OK(npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err));
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    fill(rows, 0, 3000);
    OK(npk_txn_save(txn, "bulk", &wide, 3000, rows, &err)); /* straight into a column file */
    int64_t gone[2] = {0, 50};
    OK(npk_txn_drop_rows(txn, "rows", 2, gone, &err));
    OK(npk_txn_clone(txn, "rows", "twin", &err));
    OK(npk_txn_set_attr(txn, NULL, "offset", "42", 2, &err));
    OK(npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err));
    if (!killed) {
        OK(npk_store_close(store, &err));
        return;
    }
    OK(npk_txn_begin(store, UINT32_MAX, &txn, &err));
    fill(rows, 5000, 1500);
    for (int i = 0; i < 8; i++)
        OK(npk_txn_append(txn, "rows", 1500, rows, &err));
    npk_source own = {.txn = txn};
    npk_array *array = NULL;
    OK(npk_array_open(&own, "rows", &array, &err));         /* spills the buffer into the log */
    (void)raise(SIGKILL);
}

static int make(const char *directory)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/store-v1-closed", directory);
    write_store(path, 0);
    (void)snprintf(path, sizeof path, "%s/store-v1-killed", directory);
    pid_t child = fork();
    if (child == 0)
        write_store(path, 1);
    int status = 0;
    (void)waitpid(child, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 0 : 1;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------ */

static void expect_rows(npk_store *store, const char *name)
{
    npk_source source = {.store = store};
    npk_array *array = NULL;
    OK(npk_array_open(&source, name, &array, &err));
    ck_assert_uint_eq(npk_array_describe(array)->row_count, 1098);
    int32_t rows[4 * 1098], want[4 * 1100];
    OK(npk_array_read(array, 0, 1098, rows, &err));
    npk_array_release(array);
    fill(want, 0, 1100);
    fill(want + 4 * 5, 1000, 1);
    fill(want + 4 * 99, 1001, 1);
    fill(want + 4 * 42, 1002, 1);
    memmove(want + 4 * 50, want + 4 * 51, sizeof(int32_t) * 4 * 1049);
    ck_assert_mem_eq(rows, want + 4, sizeof rows);
}

static void expect_plain(npk_store *store, const char *name, uint64_t count, const void *bytes, size_t size)
{
    npk_source source = {.store = store};
    npk_array *array = NULL;
    OK(npk_array_open(&source, name, &array, &err));
    ck_assert_uint_eq(npk_array_describe(array)->row_count, count);
    void *rows = malloc(size + 1);
    OK(npk_array_read(array, 0, count, rows, &err));
    ck_assert_mem_eq(rows, bytes, size);
    free(rows);
    npk_array_release(array);
}

static void note_attr(void *context, const char *key, const void *bytes, size_t size)
{
    char *text = context;
    (void)sprintf(text + strlen(text), "%s=%.*s;", key, (int)size, (const char *)bytes);
}

static void fail_finding(void *context, const npk_finding *finding)
{
    (void)context;
    ck_abort_msg("%s: %s", finding->file, finding->reason);
}

static void expect_store(const char *name)
{
    char path[64] = "/tmp/npk-golden-XXXXXX", command[1024], attrs[200] = "";
    ck_assert_ptr_nonnull(mkdtemp(path));
    (void)snprintf(command, sizeof command, "cp -r '%s/golden/%s' %s/store && chmod -R u+w %s/store", NPK_TESTS_DIR, name, path, path);
    ck_assert_int_eq(system(command), 0);
    (void)snprintf(command, sizeof command, "%s/store", path);
    npk_store *store = open_store(command);
    static int32_t rows[4 * 3000];
    double pi = 3.25;
    expect_rows(store, "rows");
    expect_rows(store, "twin");
    fill(rows, 0, 3000);
    expect_plain(store, "bulk", 3000, rows, sizeof rows);
    memset(rows, 7, sizeof rows);
    expect_plain(store, "sevens", 1000, rows, 16000);
    expect_plain(store, "value", 1, &pi, sizeof pi);
    expect_plain(store, "empty", 0, "", 0);
    npk_source source = {.store = store};
    OK(npk_list_attrs(&source, NULL, note_attr, attrs, &err));
    OK(npk_list_attrs(&source, "rows", note_attr, attrs, &err));
    ck_assert_str_eq(attrs, "offset=42;unit=\"mm\";");
    OK(npk_store_verify(store, fail_finding, NULL, NULL, &err));
    OK(npk_store_close(store, &err));
    (void)snprintf(command, sizeof command, "rm -rf %s", path);
    ck_assert_int_eq(system(command), 0);
}

START_TEST(test_a_closed_store_of_version_1_opens)
{
    expect_store("store-v1-closed");
}
END_TEST

START_TEST(test_a_killed_store_of_version_1_recovers)
{
    expect_store("store-v1-killed");
}
END_TEST

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--make") == 0)
        return make(argv[2]);
    Suite *suite = suite_create("golden stores");
    TCase *tcase = tcase_create("stores");
    tcase_add_test(tcase, test_a_closed_store_of_version_1_opens);
    tcase_add_test(tcase, test_a_killed_store_of_version_1_recovers);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
