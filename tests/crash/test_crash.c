/* test_crash.c - every promise about crashes, asked of the real library in the states that power cuts and process deaths leave. What a
 * state is and what is asked of it: lib/explorer.h; how to run more, replay a case, and what was broken to see it fail: README.md. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "check_main.h"
#include "explorer.h"

#define C NPK_SYNC_COMMIT

/* ---- scenarios -------------------------------------------------------------------------------------------------------------- */

/* Each runs its verbs on a fresh disk. Recording starts where its subject starts. */

static void create_store(explorer *x)
{
    explorer_record(x, true);
    explorer_open(x);
    explorer_begin(x);
    explorer_save(x, 0, 8, 5);
    explorer_commit(x, C);
}

/* A scenario must reach what it is named after. */
static npk_stats count(explorer *x)
{
    npk_stats stats = {.struct_size = sizeof stats};
    npk_error err = {0};
    ck_assert_msg(npk_store_stats(explorer_store(x), &stats, &err) == NPK_OK, "%s", err.message);
    return stats;
}

/* A store with two arrays, on the log only; recording starts here. */
static void start(explorer *x)
{
    explorer_open(x);
    explorer_begin(x);
    explorer_save(x, 0, 40, 60);
    explorer_save(x, 1, 300, 20);
    explorer_attr(x, 0, 7);
    explorer_commit(x, C);
    explorer_record(x, true);
}

/* The same rows folded into column files, with a checkpoint behind them. */
static void start_folded(explorer *x)
{
    start(x);
    explorer_record(x, false);
    explorer_compact(x, -1);
    explorer_record(x, true);
}

static void save(explorer *x)
{
    start(x);
    for (int i = 0; i < 3; i++) {
        explorer_begin(x);
        explorer_save(x, 2 + i, 24, 30 + 10 * (uint64_t)i);
        if (i)
            explorer_save(x, 0, 8, 10); /* instead of the old one */
        explorer_commit(x, C);
    }
}

static void append(explorer *x)
{
    start_folded(x);
    for (int i = 0; i < 4; i++) {
        explorer_begin(x);
        explorer_append(x, 0, 1 + 40 * (uint64_t)i);
        explorer_append(x, 1, 2);
        explorer_commit(x, C);
    }
}

static void replace_scattered(explorer *x)
{
    start_folded(x);
    for (int i = 0; i < 4; i++) {
        explorer_begin(x);
        explorer_replace(x, 0, 1 + 7 * (uint64_t)i);
        explorer_replace(x, 1, 3);
        explorer_commit(x, C);
    }
}

static void replace_contiguous(explorer *x)
{
    start_folded(x);
    for (uint64_t i = 0; i < 4; i++) {
        explorer_begin(x);
        explorer_replace_run(x, 0, 5 * i, 20);
        explorer_replace_run(x, 1, i, 10);
        explorer_commit(x, C);
    }
}

static void drop_rows(explorer *x)
{
    start_folded(x);
    for (uint64_t i = 0; i < 4; i++) {
        explorer_begin(x);
        explorer_drop_rows(x, 0, 9 * i % 30, 3);
        explorer_append(x, 0, 2);
        explorer_drop_rows(x, 1, 0, 1);
        explorer_commit(x, C);
    }
}

static void drop_array(explorer *x)
{
    start_folded(x);
    explorer_begin(x);
    explorer_drop_array(x, 0);
    explorer_commit(x, C);
    explorer_begin(x);
    explorer_save(x, 0, 8, 4); /* the name comes back */
    explorer_commit(x, C);
    explorer_begin(x);
    explorer_drop_array(x, 1);
    explorer_drop_array(x, 0);
    explorer_commit(x, C);
    explorer_compact(x, -1);
}

static void attributes(explorer *x)
{
    start(x);
    for (int i = 0; i < 5; i++) {
        explorer_begin(x);
        explorer_attr(x, i, 1000 + i);
        explorer_attr(x, 0, i % 2 ? -1 : 50 + i);
        explorer_commit(x, C);
    }
}

/* Rolls write the buffer out, so what is rolled back lies in the log already. */
static void nested_rollback(explorer *x)
{
    start(x);
    explorer_begin(x);
    explorer_append(x, 0, 10);
    uint64_t outer = explorer_savepoint(x);
    explorer_append(x, 1, 150);
    uint64_t inner = explorer_savepoint(x);
    explorer_append(x, 1, 250);
    ck_assert_uint_ge(count(x).segment_rolls, 1);
    explorer_rollback(x, inner);
    explorer_replace(x, 0, 5);
    explorer_rollback(x, outer);
    explorer_append(x, 0, 3);
    explorer_commit(x, C);
    explorer_begin(x);
    explorer_append(x, 1, 250);
    explorer_abort(x);
    explorer_begin(x);
    explorer_append(x, 1, 1);
    explorer_commit(x, C);
}

/* More than the log's buffer of 4 MiB. */
static void spilled_rollback(explorer *x)
{
    start(x);
    explorer_begin(x);
    explorer_append(x, 0, 4);
    uint64_t point = explorer_savepoint(x);
    explorer_save(x, 2, 4096, 600);
    explorer_save(x, 3, 4096, 600);
    ck_assert_uint_ge(count(x).bytes_logged, 4 << 20);
    explorer_rollback(x, point);
    explorer_append(x, 0, 4);
    explorer_commit(x, C);
    explorer_begin(x);
    explorer_attr(x, 3, 4);
    explorer_commit(x, C);
}

static void segment_roll(explorer *x)
{
    start(x);
    for (int i = 0; i < 4; i++) {
        explorer_begin(x);
        explorer_append(x, 1, 140); /* 42,000 bytes: a roll in two of three, and one inside a transaction */
        explorer_commit(x, C);
    }
    explorer_begin(x);
    explorer_append(x, 1, 350);
    explorer_commit(x, C);
    ck_assert_uint_ge(count(x).segment_rolls, 4);
}

static void bulk(explorer *x)
{
    start(x);
    explorer_begin(x);
    explorer_save(x, 2, 40, 500);
    explorer_append(x, 0, 300);
    explorer_commit(x, C);
    explorer_begin(x);
    explorer_replace_run(x, 2, 20, 400);
    explorer_commit(x, C);
    explorer_begin(x);
    uint64_t point = explorer_savepoint(x);
    explorer_save(x, 3, 300, 60);
    explorer_rollback(x, point);
    explorer_save(x, 3, 300, 40);
    explorer_commit(x, C);
    explorer_begin(x);
    explorer_append(x, 2, 600);
    explorer_abort(x);
    ck_assert_uint_ge(count(x).column_file_count, 4);
    explorer_compact(x, 2);
}

static void fold_appended(explorer *x)
{
    start_folded(x);
    for (int i = 0; i < 2; i++) {
        explorer_begin(x);
        explorer_append(x, 0, 25);
        explorer_append(x, 1, 5);
        explorer_commit(x, C);
        explorer_compact(x, 0);
    }
    explorer_compact(x, -1);
    ck_assert_uint_ge(count(x).folds, 4);
}

static void fold_replaced(explorer *x)
{
    start_folded(x);
    for (int i = 0; i < 2; i++) {
        explorer_begin(x);
        explorer_replace(x, 0, 12);
        explorer_replace_run(x, 1, 3, 6);
        explorer_commit(x, C);
        explorer_compact(x, i);
    }
    explorer_compact(x, -1);
    explorer_begin(x);
    explorer_replace(x, 0, 2);
    explorer_commit(x, C);
}

static void renumber(explorer *x)
{
    start_folded(x);
    explorer_begin(x);
    explorer_drop_rows(x, 0, 10, 15);
    explorer_drop_rows(x, 1, 0, 3);
    explorer_append(x, 0, 5);
    explorer_commit(x, C);
    explorer_compact(x, 0);
    explorer_begin(x);
    explorer_replace(x, 0, 5);
    explorer_drop_rows(x, 0, 0, 1);
    explorer_commit(x, C);
    explorer_compact(x, -1);
}

static void checkpoint(explorer *x)
{
    start(x);
    for (int i = 0; i < 3; i++) {
        explorer_begin(x);
        explorer_append(x, 0, 6);
        explorer_commit(x, C);
        explorer_checkpoint(x);
    }
    explorer_begin(x);
    explorer_replace(x, 0, 3);
    explorer_commit(x, C);
}

/* Folds, rolls and checkpoints until segments and column files die and go. */
static void reclaim(explorer *x)
{
    start(x);
    for (int i = 0; i < 4; i++) {
        explorer_record(x, false);
        explorer_begin(x);
        explorer_append(x, 1, 160);
        explorer_commit(x, C);
        explorer_record(x, i > 0);
        explorer_compact(x, -1);
        explorer_begin(x);
        explorer_replace(x, 0, 2);
        explorer_commit(x, C);
        explorer_checkpoint(x);
    }
    for (int i = 0; i < 3; i++) { /* folded without a checkpoint: the log since the last one must stay */
        explorer_begin(x);
        explorer_append(x, 1, 170);
        explorer_commit(x, C);
        explorer_compact(x, 1);
        explorer_compact(x, 0);
    }
    ck_assert_uint_ge(count(x).reclaims, 3);
    ck_assert_uint_ge(count(x).segment_rolls, 3);
}

static void close_and_open(explorer *x)
{
    start(x);
    for (int i = 0; i < 2; i++) {
        explorer_begin(x);
        explorer_append(x, 0, 3);
        explorer_commit(x, C);
        explorer_close(x);
        explorer_open(x);
    }
    explorer_close(x);
    explorer_open(x);
    explorer_begin(x);
    explorer_append(x, 0, 3);
    explorer_commit(x, C);
}

/* Crash with a torn tail, recover, append, crash again. */
static void recovery(explorer *x)
{
    static const memory_io_select ways[] = {MEMORY_IO_RANDOM, MEMORY_IO_PROCESS_DIED, MEMORY_IO_RANDOM, MEMORY_IO_NONE};
    start(x);
    explorer_record(x, false);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        explorer_begin(x);
        explorer_append(x, 0, 20);
        explorer_commit(x, C);
        explorer_begin(x);
        explorer_append(x, 1, 20 + 30 * i);
        explorer_commit(x, NPK_SYNC_NEVER); /* the tail that tears */
        explorer_record(x, true);
        explorer_crash(x, &(memory_io_selection){.select = ways[i], .seed = 5 + i});
        explorer_begin(x);
        explorer_append(x, 0, 2);
        explorer_commit(x, C);
        explorer_record(x, false);
        ck_assert_uint_ge(count(x).recoveries, 1);
    }
    explorer_record(x, true);
}

/* A transaction that reached the log's third segment and never committed: the cut has segments to remove. */
static void torn_segments(explorer *x)
{
    start(x);
    explorer_record(x, false);
    for (int i = 0; i < 2; i++) {
        explorer_begin(x);
        explorer_append(x, 0, 1);
        explorer_commit(x, C);
        explorer_begin(x);
        for (int k = 0; k < 4; k++)
            explorer_append(x, 1, 120);
        explorer_record(x, true);
        explorer_crash(x, &(memory_io_selection){.select = i ? MEMORY_IO_PROCESS_DIED : MEMORY_IO_ALL});
        explorer_record(x, false);
    }
    explorer_record(x, true);
    explorer_begin(x);
    explorer_append(x, 0, 1);
    explorer_commit(x, C);
}

/* A crash inside creation, then a creation over the remains. */
static void recreation(explorer *x)
{
    memory_io_selection lost = {.select = MEMORY_IO_PROCESS_DIED};
    explorer_record(x, true);
    explorer_open(x);
    explorer_crash(x, &lost);
    explorer_begin(x);
    explorer_save(x, 0, 8, 5);
    explorer_commit(x, C);
    explorer_crash(x, &lost);
    explorer_begin(x);
    explorer_append(x, 0, 5);
    explorer_commit(x, C);
}

static void lower_level(explorer *x, npk_sync sync)
{
    start(x);
    for (int i = 0; i < 8; i++) {
        explorer_begin(x);
        explorer_append(x, 0, 5);
        if (i % 2)
            explorer_replace(x, 1, 4);
        if (i == 5)
            explorer_append(x, 1, 120);
        if (i == 3)
            explorer_save(x, 2, 40, 200); /* straight into a column file */
        explorer_commit(x, i == 6 ? C : sync);
        if (i == 2)
            explorer_flush(x);
        if (i == 4)
            explorer_compact(x, 0);
    }
    explorer_close(x);
}

static void level_interval(explorer *x)
{
    lower_level(x, NPK_SYNC_INTERVAL);
}

static void level_never(explorer *x)
{
    lower_level(x, NPK_SYNC_NEVER);
}

/* Column files linked unsynced, by whatever raises the watermark above them: a commit, a flush, a checkpoint, a fold, a close. Some died before. */
static void unsynced(explorer *x, npk_sync sync)
{
    start(x);
    for (uint64_t i = 0; i < 6; i++) {
        explorer_begin(x);
        explorer_save(x, 2, 40, 200 + i); /* over the one before */
        explorer_commit(x, sync);
        explorer_begin(x);
        explorer_save(x, 3 + (int)(i % 2), 300, 40);
        explorer_append(x, 0, 2);
        explorer_commit(x, sync);
        switch (i) {
        case 0:
            explorer_begin(x);
            explorer_append(x, 1, 1);
            explorer_commit(x, C);
            break;
        case 1: explorer_flush(x); break;
        case 2: explorer_checkpoint(x); break;
        case 3:
            explorer_begin(x);
            explorer_append(x, 2, 3);
            explorer_commit(x, sync);
            explorer_compact(x, 2);
            break;
        case 4:
            explorer_begin(x);
            explorer_save(x, 2, 40, 220); /* kills an unsynced one with the commit that would have to sync it */
            explorer_commit(x, C);
            break;
        default: break;
        }
    }
    explorer_close(x);
}

static void unsynced_interval(explorer *x)
{
    unsynced(x, NPK_SYNC_INTERVAL);
}

static void unsynced_never(explorer *x)
{
    unsynced(x, NPK_SYNC_NEVER);
}

/* A successor is a watermark too: rolls above live unsynced files, between transactions and inside one that has two. */
static void unsynced_roll(explorer *x)
{
    start(x);
    for (uint64_t i = 0; i < 4; i++) {
        explorer_begin(x);
        explorer_save(x, 2, 40, 1300 + i);
        explorer_save(x, 3, 300, 180);
        explorer_append(x, 1, 100 + 15 * i);
        explorer_commit(x, NPK_SYNC_NEVER);
        explorer_begin(x);
        explorer_append(x, 1, 140);
        explorer_commit(x, NPK_SYNC_NEVER);
    }
    ck_assert_uint_ge(count(x).segment_rolls, 3);
    ck_assert_uint_ge(count(x).column_file_count, 8);
    explorer_begin(x);
    explorer_append(x, 1, 1);
    explorer_commit(x, C);
}

/* Arrays share an unsynced file; the one it was made for goes. */
static void unsynced_shared(explorer *x)
{
    start(x);
    explorer_begin(x);
    explorer_save(x, 2, 40, 200);
    explorer_commit(x, NPK_SYNC_NEVER);
    explorer_begin(x);
    explorer_clone(x, 2, 3);
    explorer_commit(x, NPK_SYNC_NEVER);
    explorer_begin(x);
    explorer_drop_array(x, 2);
    explorer_replace(x, 3, 4);
    explorer_commit(x, NPK_SYNC_NEVER);
    explorer_begin(x);
    explorer_save(x, 2, 40, 210);
    uint64_t point = explorer_savepoint(x);
    explorer_append(x, 2, 210);
    explorer_rollback(x, point);
    explorer_replace_run(x, 2, 3, 200);
    explorer_commit(x, NPK_SYNC_INTERVAL);
    explorer_begin(x);
    explorer_append(x, 0, 1);
    explorer_commit(x, C);
    explorer_begin(x);
    explorer_drop_rows(x, 3, 0, 50);
    explorer_commit(x, NPK_SYNC_NEVER);
    explorer_compact(x, -1);
}

/* Crash after crash with unsynced files in the tail. */
static void unsynced_recovery(explorer *x)
{
    static const memory_io_select ways[] = {MEMORY_IO_PROCESS_DIED, MEMORY_IO_RANDOM, MEMORY_IO_NONE, MEMORY_IO_RANDOM, MEMORY_IO_PROCESS_DIED};
    start(x);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        explorer_record(x, false);
        explorer_begin(x);
        explorer_save(x, 2, 40, 200 + i);
        explorer_commit(x, NPK_SYNC_NEVER);
        explorer_begin(x);
        explorer_append(x, 0, 2);
        explorer_commit(x, i % 2 ? C : NPK_SYNC_NEVER);
        explorer_begin(x);
        explorer_save(x, 2, 40, 210 + i);
        explorer_save(x, 3, 300, 40);
        explorer_commit(x, NPK_SYNC_NEVER);
        explorer_record(x, true);
        memory_io_selection selection = {.select = ways[i], .seed = i + 1};
        explorer_crash(x, &selection);
    }
}

static void clone_rename_reset(explorer *x)
{
    start_folded(x);
    explorer_begin(x);
    explorer_clone(x, 0, 2);
    explorer_append(x, 2, 3);
    explorer_rename(x, 1, "other");
    explorer_commit(x, C);
    explorer_begin(x);
    explorer_drop_array(x, 0);
    explorer_replace(x, 2, 4);
    explorer_save(x, 3, 8, 0);
    explorer_commit(x, C);
    explorer_compact(x, -1);
    explorer_begin(x);
    explorer_reset(x);
    explorer_save(x, 0, 8, 2);
    explorer_attr(x, 1, 1);
    explorer_commit(x, C);
    explorer_begin(x);
    explorer_reset(x);
    explorer_commit(x, C);
    explorer_compact(x, -1);
}

/* The writer itself folds, checkpoints and reclaims when a transaction begins. */
static void limits(explorer *x)
{
    start(x);
    for (int i = 0; i < 9; i++) {
        explorer_begin(x);
        explorer_append(x, 1, 60);
        explorer_replace(x, 0, 4);
        explorer_commit(x, i % 3 ? NPK_SYNC_NEVER : C);
    }
    npk_stats stats = count(x);
    ck_assert_msg(stats.folds >= 2 && stats.checkpoints >= 3 && stats.reclaims >= 1, "%llu folds, %llu checkpoints, %llu reclaims",
                  (unsigned long long)stats.folds, (unsigned long long)stats.checkpoints, (unsigned long long)stats.reclaims);
}

/* Each call of these kinds of a short piece of work fails, once or with all that follow. */
static void faults(explorer *x, uint32_t kinds, bool forever, int sys_errno, memory_io_sync_failure failure)
{
    start(x);
    uint64_t fired = 1, i = 0;
    for (; fired && i < 25; i++) { /* reclaiming makes each round longer than the one before */
        explorer_fault(x, kinds, i, forever, sys_errno, failure);
        explorer_begin(x);
        explorer_append(x, 0, 3);
        explorer_commit(x, i % 4 == 3 ? NPK_SYNC_NEVER : C);
        explorer_begin(x);
        explorer_append(x, 1, 70);
        explorer_commit(x, C);
        explorer_compact(x, 0);
        explorer_begin(x);
        explorer_append(x, 1, 70);
        explorer_save(x, 2, 40, 300);
        explorer_commit(x, C);
        if (i % 2)
            explorer_checkpoint(x);
        fired = explorer_settle(x);
    }
    ck_assert_uint_ge(i, 8);
}

static void failed_sync_clean(explorer *x)
{
    faults(x, IO_CALL_BIT(SYNC), false, EIO, MEMORY_IO_CLEAN_NEW);
}

static void failed_sync_old(explorer *x)
{
    faults(x, IO_CALL_BIT(SYNC), false, EIO, MEMORY_IO_CLEAN_OLD);
}

static void failed_sync_dirty(explorer *x)
{
    faults(x, IO_CALL_BIT(SYNC), false, EIO, MEMORY_IO_DIRTY_NEW);
}

static void failed_sync_poison(explorer *x)
{
    faults(x, IO_CALL_BIT(SYNC), true, EIO, MEMORY_IO_CLEAN_NEW);
}

static void full_disk(explorer *x)
{
    faults(x, IO_CALL_BIT(WRITE) | IO_CALL_BIT(ALLOCATE), true, ENOSPC, MEMORY_IO_CLEAN_NEW);
}

static void failed_names(explorer *x)
{
    faults(x, IO_CALL_BIT(RENAME) | IO_CALL_BIT(UNLINK) | IO_CALL_BIT(OPEN), false, EIO, MEMORY_IO_CLEAN_NEW);
}

/* As faults, with files that are synced late: by a commit, a flush, a checkpoint, a roll. */
static void unsynced_faults(explorer *x, bool forever, memory_io_sync_failure failure)
{
    start(x);
    uint64_t fired = 1, i = 0;
    for (; fired && i < 25; i++) {
        explorer_fault(x, IO_CALL_BIT(SYNC), i, forever, EIO, failure);
        explorer_begin(x);
        explorer_save(x, 2, 40, 300 + i);
        explorer_commit(x, NPK_SYNC_NEVER);
        explorer_begin(x);
        explorer_append(x, 0, 3);
        explorer_commit(x, i % 4 == 3 ? NPK_SYNC_NEVER : C);
        explorer_begin(x);
        explorer_save(x, 3, 300, 40);
        explorer_append(x, 1, 30);
        explorer_commit(x, NPK_SYNC_NEVER);
        if (i % 2)
            explorer_flush(x);
        explorer_begin(x);
        explorer_append(x, 1, 160);
        explorer_commit(x, NPK_SYNC_NEVER);
        explorer_begin(x);
        explorer_save(x, 2, 40, 350);
        explorer_commit(x, NPK_SYNC_NEVER);
        explorer_checkpoint(x);
        fired = explorer_settle(x);
    }
    ck_assert_uint_ge(i, 8);
}

static void failed_file_sync_clean(explorer *x)
{
    unsynced_faults(x, false, MEMORY_IO_CLEAN_NEW);
}

static void failed_file_sync_old(explorer *x)
{
    unsynced_faults(x, false, MEMORY_IO_CLEAN_OLD);
}

static void failed_file_sync_poison(explorer *x)
{
    unsynced_faults(x, true, MEMORY_IO_CLEAN_NEW);
}

/* The names of files that others linked unsynced are in the directory that a level commit and a fold sync for files of their own. */
static void failed_directory_sync(explorer *x)
{
    start(x);
    uint64_t fired = 1, i = 0;
    for (; fired && i < 25; i++) {
        explorer_fault(x, IO_CALL_BIT(SYNC), i, false, EIO, MEMORY_IO_CLEAN_NEW);
        explorer_begin(x);
        explorer_save(x, 2, 40, 300 + i);
        explorer_commit(x, NPK_SYNC_NEVER);
        explorer_begin(x);
        explorer_save(x, 3, 300, 40);
        explorer_commit(x, C);
        explorer_begin(x);
        explorer_append(x, 0, 3);
        explorer_commit(x, C);
        explorer_begin(x);
        explorer_save(x, 2, 40, 330 + i);
        explorer_append(x, 1, 30);
        explorer_commit(x, NPK_SYNC_NEVER);
        explorer_compact(x, 1);
        explorer_begin(x);
        explorer_append(x, 0, 3);
        explorer_commit(x, C);
        fired = explorer_settle(x);
    }
    ck_assert_uint_ge(i, 8);
}

static void random_steps(explorer *x)
{
    start(x);
    rng *r = explorer_random(x);
    for (int i = 0; i < 14; i++) {
        explorer_begin(x);
        for (uint64_t k = rng_below(r, 4) + 1; k; k--)
            explorer_step(x);
        explorer_commit(x, (npk_sync)rng_below(r, 3));
        switch (rng_below(r, 6)) {
        case 0: explorer_compact(x, -1); break;
        case 1: explorer_checkpoint(x); break;
        case 2:
            explorer_close(x);
            explorer_open(x);
            break;
        default: break;
        }
    }
}

static const explorer_scenario scenarios[] = {
    {.name = "create", .run = create_store},
    {.name = "recreate", .run = recreation},
    {.name = "save", .run = save},
    {.name = "append", .run = append},
    {.name = "replace-scattered", .run = replace_scattered},
    {.name = "replace-contiguous", .run = replace_contiguous},
    {.name = "drop-rows", .run = drop_rows},
    {.name = "drop-array", .run = drop_array},
    {.name = "attributes", .run = attributes},
    {.name = "nested-rollback", .run = nested_rollback},
    {.name = "spilled-rollback", .run = spilled_rollback, .segment_size = 8 << 20},
    {.name = "segment-roll", .run = segment_roll},
    {.name = "bulk", .run = bulk, .bulk_size = 8 << 10},
    {.name = "fold-appended", .run = fold_appended},
    {.name = "fold-replaced", .run = fold_replaced},
    {.name = "renumber", .run = renumber},
    {.name = "checkpoint", .run = checkpoint},
    {.name = "reclaim", .run = reclaim},
    {.name = "close", .run = close_and_open},
    {.name = "recovery", .run = recovery},
    {.name = "torn-segments", .run = torn_segments},
    {.name = "interval", .run = level_interval, .sync = NPK_SYNC_INTERVAL, .bulk_size = 6 << 10},
    {.name = "never", .run = level_never, .sync = NPK_SYNC_NEVER, .bulk_size = 6 << 10},
    {.name = "unsynced-interval", .run = unsynced_interval, .sync = NPK_SYNC_INTERVAL, .bulk_size = 6 << 10},
    {.name = "unsynced-never", .run = unsynced_never, .sync = NPK_SYNC_NEVER, .bulk_size = 6 << 10},
    {.name = "unsynced-roll", .run = unsynced_roll, .sync = NPK_SYNC_NEVER, .bulk_size = 48 << 10},
    {.name = "unsynced-shared", .run = unsynced_shared, .sync = NPK_SYNC_NEVER, .bulk_size = 6 << 10},
    {.name = "unsynced-recovery", .run = unsynced_recovery, .sync = NPK_SYNC_NEVER, .bulk_size = 6 << 10},
    {.name = "clone-rename-reset", .run = clone_rename_reset},
    {.name = "limits", .run = limits, .checkpoint_log_size = 12 << 10, .pending_limit = 40 << 10},
    {.name = "failed-sync-clean", .run = failed_sync_clean, .bulk_size = 10 << 10, .has_faults = true},
    {.name = "failed-sync-old", .run = failed_sync_old, .bulk_size = 10 << 10, .has_faults = true},
    {.name = "failed-sync-dirty", .run = failed_sync_dirty, .bulk_size = 10 << 10, .has_faults = true},
    {.name = "failed-sync-poison", .run = failed_sync_poison, .bulk_size = 10 << 10, .has_faults = true},
    {.name = "failed-file-sync-clean", .run = failed_file_sync_clean, .sync = NPK_SYNC_NEVER, .bulk_size = 10 << 10, .has_faults = true},
    {.name = "failed-file-sync-old", .run = failed_file_sync_old, .sync = NPK_SYNC_NEVER, .bulk_size = 10 << 10, .has_faults = true},
    {.name = "failed-file-sync-poison", .run = failed_file_sync_poison, .sync = NPK_SYNC_NEVER, .bulk_size = 10 << 10, .has_faults = true},
    {.name = "failed-directory-sync", .run = failed_directory_sync, .sync = NPK_SYNC_NEVER, .bulk_size = 10 << 10, .has_faults = true},
    {.name = "full-disk", .run = full_disk, .bulk_size = 10 << 10, .has_faults = true},
    {.name = "failed-names", .run = failed_names, .bulk_size = 10 << 10, .has_faults = true},
    {.name = "random", .run = random_steps, .bulk_size = 32 << 10},
};
enum { SCENARIO_COUNT = sizeof scenarios / sizeof scenarios[0] };

/* ---- running -------------------------------------------------------------------------------------------------------------------- */

static char directory[64];                 /* of the real indexes */
static struct shared {                     /* seen by the forked tests and by main */
    explorer_totals totals[SCENARIO_COUNT];
    char now[EXPLORER_CASE_MAX];
} *shared;

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static void settle(explorer_settings *settings, char run_path[128], char state_path[128])
{
    (void)snprintf(run_path, 128, "%s/run", directory);
    (void)snprintf(state_path, 128, "%s/state", directory);
    (void)mkdir(run_path, 0777);
    (void)mkdir(state_path, 0777);
    settings->run_path = run_path;
    settings->state_path = state_path;
    settings->now = shared->now;
}

static void add(explorer_totals *sum, const explorer_totals *totals)
{
    sum->points += totals->points;
    sum->tried += totals->tried;
    sum->distinct += totals->distinct;
    sum->nested_points += totals->nested_points;
    sum->nested += totals->nested;
    sum->violations += totals->violations;
}

START_TEST(test_every_crash_state_keeps_the_promises)
{
    char run_path[128], state_path[128];
    const char *only = getenv("NPK_SCENARIO");
    if (getenv("NPK_CASE") || (only && strcmp(only, scenarios[_i].name) != 0))
        return;
    explorer_totals *sum = &shared->totals[_i];
    for (int ext4 = 0; ext4 < 2; ext4++) {
        explorer_settings settings = {.seed = number("NPK_SEED", 1), .names_follow_sync = ext4 == 1};
        settings.state_count = (number("NPK_STATES", 1000) + 1) / 2;
        settings.nested_count = number("NPK_NESTED", 320) / 2;
        settle(&settings, run_path, state_path);
        explorer_totals totals;
        explorer *x = explorer_run(&scenarios[_i], &settings);
        explorer_explore(x, &totals);
        explorer_release(x);
        add(sum, &totals);
    }
    shared->now[0] = '\0';
    (void)printf("%-20s %5llu points %7llu tried %6llu distinct %6llu in recovery %llu violations\n", scenarios[_i].name,
                 (unsigned long long)sum->points, (unsigned long long)sum->tried, (unsigned long long)sum->distinct,
                 (unsigned long long)sum->nested, (unsigned long long)sum->violations);
    (void)fflush(stdout);
    ck_assert_uint_gt(sum->distinct, 0);
    ck_assert_uint_eq(sum->violations, 0);
}
END_TEST

/* NPK_CASE=scenario/seed/strict|ext4/point/selection[/point/selection] */
START_TEST(test_the_given_case_keeps_the_promises)
{
    const char *text = getenv("NPK_CASE");
    if (!text)
        return;
    char name[64], model_name[16], run_path[128], state_path[128];
    unsigned long long seed;
    int used = 0;
    ck_assert_msg(sscanf(text, "%63[^/]/%llu/%15[^/]/%n", name, &seed, model_name, &used) == 3 && used, "no case: %s", text);
    explorer_settings settings = {.seed = seed, .names_follow_sync = strcmp(model_name, "ext4") == 0};
    settle(&settings, run_path, state_path);
    for (size_t i = 0; i < SCENARIO_COUNT; i++)
        if (strcmp(scenarios[i].name, name) == 0) {
            explorer *x = explorer_run(&scenarios[i], &settings);
            bool good = explorer_replay(x, text + used);
            explorer_release(x);
            ck_assert_msg(good, "%s", text);
            return;
        }
    ck_abort_msg("no scenario \"%s\"", name);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc > 1)
        (void)setenv("NPK_CASE", argv[1], 1);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    (void)snprintf(directory, sizeof directory, "/dev/shm/npk-crash-XXXXXX");
    if (shared == MAP_FAILED || !mkdtemp(directory))
        return EXIT_FAILURE;
    Suite *suite = suite_create("crash");
    TCase *tcase = tcase_create("states");
    tcase_set_timeout(tcase, 0);
    tcase_add_loop_test(tcase, test_every_crash_state_keeps_the_promises, 0, SCENARIO_COUNT);
    tcase_add_test(tcase, test_the_given_case_keeps_the_promises);
    suite_add_tcase(suite, tcase);
    int result = check_main(suite);
    explorer_totals sum = {0};
    for (size_t i = 0; i < SCENARIO_COUNT; i++)
        add(&sum, &shared->totals[i]);
    (void)printf("total: %d scenarios, %llu points, %llu states tried, %llu distinct, %llu in recovery, %llu violations; seed %llu\n",
                 (int)SCENARIO_COUNT, (unsigned long long)sum.points, (unsigned long long)sum.tried,
                 (unsigned long long)sum.distinct, (unsigned long long)sum.nested, (unsigned long long)sum.violations,
                 (unsigned long long)number("NPK_SEED", 1));
    if (shared->now[0] && result != EXIT_SUCCESS)
        (void)printf("last case at work: NPK_CASE=%s\n", shared->now);
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", directory);
    if (system(command) != 0)
        result = EXIT_FAILURE;
    return result;
}
