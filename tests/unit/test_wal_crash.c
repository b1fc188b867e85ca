/* test_wal_crash.c - a power cut after every call that changes the disk, in many choices of what survives: a quick sample. The room
 * tests/crash walks over all of them.
 *
 * Oracle for each state: the log is not damaged; it holds the first j transactions with acknowledged <= j <= started; after recovery
 * and one more transaction it holds those and that one. Crashes inside the recovery are tried the same way. */
#include "test_wal_fixture.h"

#define TRANSACTION_MAX 64

static struct crash_test {
    fixture writer;
    char words[TRANSACTION_MAX][64];  /* of each transaction that was started */
    unsigned started, acknowledged;
    uint64_t acknowledged_lsn;
    bool is_armed;
    unsigned point;
    unsigned states, nested_states, torn, clean;
} test;

/* The trace that the first count transactions leave. */
static void expect_trace(unsigned count, char *trace, size_t size)
{
    trace[0] = '\0';
    for (unsigned i = 0; i < count; i++) {
        size_t used = strlen(trace);
        (void)snprintf(trace + used, size - used, "%s;", test.words[i]);
    }
}

static unsigned check_prefix(fixture *f)
{
    char want[8192];
    unsigned j = (unsigned)f->scan.transaction_count;
    ck_assert_msg(f->scan.verdict != NPK_WAL_DAMAGED, "damaged at %u until %u: %s", (unsigned)f->scan.damaged_lsn,
                  (unsigned)f->scan.damaged_until_lsn, f->scan.case_name);
    ck_assert_msg(j >= test.acknowledged && j <= test.started, "%u transactions, %u acknowledged, %u started", j,
                  test.acknowledged, test.started);
    expect_trace(j, want, sizeof want);
    ck_assert_str_eq(f->trace, want);
    return j;
}

static void crash_in_recovery(void *context, const memory_io_call *call);

/* Open the disk as after a reboot, check, recover, go on, check. */
static void check_state(memory_io *disk, bool crash_again)
{
    fixture f;
    fixture_open(&f, disk);
    (void)scan_with(&f, NPK_WAL_FIRST_LSN, test.acknowledged_lsn, 0);
    unsigned j = check_prefix(&f);
    *(f.scan.verdict == NPK_WAL_TORN ? &test.torn : &test.clean) += 1;
    if (crash_again)
        memory_io_set_hook(disk, crash_in_recovery, disk);
    OK(&f, npk_wal_remove_leftovers(f.wal, &f.err));
    recover(&f);
    memory_io_set_hook(disk, NULL, NULL);
    ck_assert_uint_eq(f.scan.transaction_count, j);
    char want[8192 + 8];
    expect_trace(j, want, sizeof want - 8);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, want);
    transact(&f, "z", 100);
    strcat(want, "z ;");
    reopen(&f);
    ASSERT_SCAN(&f, NPK_WAL_CLEAN, want);
    ck_assert_uint_eq(f.scan.void_segment_count, 0);
    ck_assert_uint_eq(file_count(&f), f.scan.segment_count); /* no junk */
    fixture_close(&f);
}

static const memory_snapshot *current_snapshot;

static int try_nested(void *context, const memory_io_selection *selection)
{
    (void)context;
    memory_io *disk = memory_io_materialize(current_snapshot, selection, NULL);
    test.nested_states++;
    check_state(disk, false);
    return 0;
}

static void crash_in_recovery(void *context, const memory_io_call *call)
{
    memory_io *disk = context;
    if (!call->is_after)
        return;
    const memory_snapshot *outer = current_snapshot;
    memory_snapshot *snapshot = memory_io_snapshot(disk);
    current_snapshot = snapshot;
    const memory_io_selection few[] = {{.select = MEMORY_IO_NONE},
                                       {.select = MEMORY_IO_ALL},
                                       {.select = MEMORY_IO_PROCESS_DIED},
                                       {.select = MEMORY_IO_DATA_ONLY},
                                       {.select = MEMORY_IO_NAMES_ONLY},
                                       {.select = MEMORY_IO_RANDOM, .seed = test.nested_states}};
    for (size_t i = 0; i < sizeof few / sizeof few[0]; i++)
        (void)try_nested(NULL, &few[i]);
    memory_snapshot_release(snapshot);
    current_snapshot = outer;
}

static int try_state(void *context, const memory_io_selection *selection)
{
    (void)context;
    /* All subsets of few units are thousands a point: one in 97. */
    if (selection->select == MEMORY_IO_SUBSET && (selection->index + test.point) % 97 != 0)
        return 0;
    test.states++;
    memory_io *disk = memory_io_materialize(current_snapshot, selection, NULL);
    check_state(disk, test.states % 20 == 0);
    return 0;
}

static void crash_here(void *context, const memory_io_call *call)
{
    (void)context;
    if (!test.is_armed || !call->is_after) /* before this call is after the last one */
        return;
    test.point++;
    memory_snapshot *snapshot = memory_io_snapshot(test.writer.disk);
    current_snapshot = snapshot;
    (void)memory_io_select_all(snapshot, call->sequence, 3, 3, try_state, NULL);
    memory_io_selection died = {.select = MEMORY_IO_PROCESS_DIED};
    (void)try_state(NULL, &died);
    memory_snapshot_release(snapshot);
}

static void begin_transaction(const char *words)
{
    ck_assert_uint_lt(test.started, TRANSACTION_MAX);
    (void)snprintf(test.words[test.started++], sizeof test.words[0], "%s", words);
}

static void acknowledge(void)
{
    test.acknowledged = test.started;
    test.acknowledged_lsn = test.writer.end.lsn;
}

static void run(void (*workload)(fixture *f), bool names_follow_sync)
{
    memset(&test, 0, sizeof test);
    memory_io_options options = {.seed = 1, .names_follow_sync = names_follow_sync};
    fixture *f = &test.writer;
    fixture_open(f, memory_io_create(&options));
    OK(f, npk_wal_create(f->wal, &f->end, &f->err));
    OK(f, npk_wal_start(f->wal, &f->end, &f->err));
    f->durable = f->end.lsn;
    test.acknowledged_lsn = f->end.lsn;
    memory_io_set_hook(f->disk, crash_here, NULL);
    test.is_armed = true;
    workload(f);
    test.is_armed = false;
    memory_io_set_hook(f->disk, NULL, NULL);
    printf("  %u states, %u of them in recovery; %u torn, %u clean\n", test.states + test.nested_states, test.nested_states,
           test.torn, test.clean);
    ck_assert_uint_gt(test.states, 100);
    fixture_close(f);
}

static void commit_and_roll(fixture *f)
{
    for (unsigned i = 0; i < 6; i++) {
        char words[16];
        (void)snprintf(words, sizeof words, "a%u b%u ", i, i);
        begin_transaction(words);
        transact(f, words, i % 2 ? 13000 : 700);
        acknowledge();
    }
}

static void spill_and_undo(fixture *f)
{
    begin_transaction("k l ");
    put(f, "k", 1000);
    uint64_t savepoint = npk_wal_get_end(f->wal).lsn;
    for (unsigned i = 0; i < 4; i++)
        put(f, "x", 30000);
    OK(f, npk_wal_undo(f->wal, savepoint, f->transaction + 1, f->durable, &f->err));
    f->count = 1;
    put(f, "l", 10);
    commit(f);
    acknowledge();
    OK(f, npk_wal_prepare_spare(f->wal, &f->err));
    begin_transaction("m n ");
    transact(f, "m n", 40000);
    acknowledge();
}

static void unsynced_commits(fixture *f)
{
    /* Level "interval": commits are written, not synced; a sync comes later, and rolls sync by themselves. */
    for (unsigned i = 0; i < 8; i++) {
        begin_transaction("u ");
        put(f, "u", 9000);
        append_commit(f);
        OK(f, npk_wal_write(f->wal, &f->err));
        f->end = npk_wal_get_end(f->wal);
    }
    bool sync_failed;
    OK(f, npk_wal_sync_segment(f->wal, f->end.seq, &sync_failed, &f->err));
    f->durable = f->end.lsn;
    acknowledge();
    begin_transaction("v ");
    transact(f, "v", 100);
    acknowledge();
}

static void dead_writer_and_its_successor(fixture *f)
{
    begin_transaction("a ");
    transact(f, "a", 500);
    acknowledge();
    for (unsigned i = 0; i < 3; i++)
        put(f, "x", 30000); /* dies in the middle of this one */
    OK(f, npk_wal_write(f->wal, &f->err));
    npk_wal_forget_segments(f->wal);
    recover(f);
    begin_transaction("b ");
    transact(f, "b", 500);
    acknowledge();
    uint64_t removed;
    OK(f, npk_wal_append(f->wal, NPK_RECORD_WATERMARK, 0, f->durable, NULL, 0, NULL, 0, false, NULL, &f->err));
    OK(f, npk_wal_sync(f->wal, &f->err));
    OK(f, npk_wal_reclaim(f->wal, 1, &removed, &f->err));
}

START_TEST(commits_that_roll_survive_any_crash) { run(commit_and_roll, _i); }
END_TEST
START_TEST(spilled_and_undone_records_survive_any_crash) { run(spill_and_undo, _i); }
END_TEST
START_TEST(unsynced_commits_leave_a_prefix) { run(unsynced_commits, _i); }
END_TEST
START_TEST(tail_procedure_survives_any_crash) { run(dead_writer_and_its_successor, _i); }
END_TEST

int main(void)
{
    Suite *suite = suite_create("wal_crash");
    TCase *tc = tcase_create("crash");
    suite_add_tcase(suite, tc);
    tcase_set_timeout(tc, 600);
    tcase_add_loop_test(tc, commits_that_roll_survive_any_crash, 0, 2);
    tcase_add_loop_test(tc, spilled_and_undone_records_survive_any_crash, 0, 2);
    tcase_add_loop_test(tc, unsynced_commits_leave_a_prefix, 0, 2);
    tcase_add_loop_test(tc, tail_procedure_survives_any_crash, 0, 2);
    return run_suite(suite);
}
