/* test_wal_fixture.h - a log on an in-memory disk, with transactions written and read back as text.
 *
 * A transaction is a text of words: each word is the meta of one operation record. A scan's trace is the words with a blank behind
 * each and ";" at each commit: "a b ;c ;". */
#ifndef NPK_TESTS_WAL_FIXTURE_H
#define NPK_TESTS_WAL_FIXTURE_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "memory_io.h"
#include "rng.h"
#include "wal.h"
#include "wal_format.h"
#include "wal_handle.h"
#include "wal_writer.h"

#define ROOT "log"
#define SEGMENT_SIZE NPK_WAL_SEGMENT_SIZE_MIN

typedef struct fixture {
    memory_io *disk;
    const npk_io *io;
    npk_wal *wal;
    npk_wal_end end;     /* published */
    uint64_t durable;    /* watermark for the next records */
    uint64_t transaction;
    uint32_t count;      /* operation records of the open transaction */
    npk_wal_scan scan;   /* the newest */
    char trace[8192];    /* of the newest scan */
    npk_error err;
} fixture;

#define OK(f, call) ck_assert_msg((call) == NPK_OK, "%s: %s", #call, (f)->err.message)

static inline void fixture_open(fixture *f, memory_io *disk)
{
    memset(f, 0, sizeof *f);
    f->disk = disk;
    f->io = memory_io_table(disk);
    npk_file *directory = NULL;
    bool created;
    ck_assert_int_eq(f->io->open_root(f->io, ROOT, true, &directory, &created), 0);
    if (created)
        ck_assert_int_eq(f->io->sync_parent(f->io, directory, ROOT), 0);
    npk_wal_options options = {.io = f->io, .segment_size = SEGMENT_SIZE};
    memcpy(options.uuid, "0123456789abcdef", 16);
    OK(f, npk_wal_open(directory, &options, &f->wal, &f->err));
}

static inline void fixture_create(fixture *f)
{
    fixture_open(f, memory_io_create(NULL));
    OK(f, npk_wal_create(f->wal, &f->end, &f->err));
    OK(f, npk_wal_start(f->wal, &f->end, &f->err));
    f->durable = f->end.lsn;
}

static inline void fixture_close(fixture *f)
{
    npk_wal_close(f->wal);
    ck_assert_uint_eq(memory_io_open_count(f->disk), 0);
    memory_io_destroy(f->disk);
}

/* Close and open the handle as another process would. */
static inline void reopen(fixture *f)
{
    npk_wal_close(f->wal);
    npk_wal_end end = f->end;
    uint64_t transaction = f->transaction;
    fixture_open(f, f->disk);
    f->end = end;
    f->transaction = transaction;
}

static inline npk_wal_place put_data(fixture *f, const char *word, const void *data, size_t size, bool pack)
{
    npk_wal_place place = {0};
    OK(f, npk_wal_append(f->wal, NPK_RECORD_FIRST_OP, f->transaction + 1, f->durable, word, strlen(word), data, size, pack, &place,
                         &f->err));
    f->count++;
    return place;
}

/* data of size bytes derived from the word, so that content can be checked too */
static inline npk_wal_place put(fixture *f, const char *word, size_t size)
{
    static uint8_t data[NPK_WAL_PAYLOAD_MAX];
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)((uint8_t)word[0] + 31 * i);
    return put_data(f, word, data, size, false);
}

static inline void append_commit(fixture *f)
{
    uint8_t meta[NPK_COMMIT_META_SIZE];
    f->transaction++;
    npk_commit_encode(1000 + f->transaction, f->count, meta);
    f->count = 0;
    OK(f, npk_wal_append(f->wal, NPK_RECORD_COMMIT, f->transaction, f->durable, meta, sizeof meta, NULL, 0, false, NULL, &f->err));
}

static inline void commit(fixture *f)
{
    append_commit(f);
    OK(f, npk_wal_sync(f->wal, &f->err));
    f->end = npk_wal_get_end(f->wal);
    f->durable = f->end.lsn;
}

static inline void transact(fixture *f, const char *words, size_t size)
{
    char text[256], *rest = text;
    (void)snprintf(text, sizeof text, "%s", words);
    for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        put(f, word, size);
    commit(f);
}

static inline npk_status visit_record(void *context, const npk_record *record, npk_error *err)
{
    fixture *f = context;
    (void)err;
    size_t used = strlen(f->trace);
    if (record->type == NPK_RECORD_COMMIT)
        (void)snprintf(f->trace + used, sizeof f->trace - used, ";");
    else
        (void)snprintf(f->trace + used, sizeof f->trace - used, "%.*s ", (int)record->meta_size, (const char *)record->meta);
    return NPK_OK;
}

static inline npk_wal_verdict scan_with(fixture *f, uint64_t from_lsn, uint64_t floor, uint64_t stop_lsn)
{
    memset(&f->scan, 0, sizeof f->scan);
    f->trace[0] = '\0';
    f->scan.from_lsn = from_lsn;
    f->scan.durable_floor = floor;
    f->scan.stop_lsn = stop_lsn;
    f->scan.visit = visit_record;
    f->scan.context = f;
    OK(f, npk_wal_scan_log(f->wal, &f->scan, &f->err));
    return f->scan.verdict;
}

static inline npk_wal_verdict scan(fixture *f)
{
    return scan_with(f, NPK_WAL_FIRST_LSN, 0, 0);
}

#define ASSERT_SCAN(f, want_verdict, want_trace)                                                                              \
    do {                                                                                                                      \
        npk_wal_verdict found_ = scan(f);                                                                                     \
        ck_assert_msg(found_ == (want_verdict), "verdict %d: %s", (int)found_, (f)->scan.case_name);                          \
        ck_assert_str_eq((f)->trace, want_trace);                                                                             \
    } while (0)

/* Scan, cut when torn, start: what the store does. */
static inline void recover(fixture *f)
{
    npk_wal_verdict verdict = scan(f);
    ck_assert_msg(verdict != NPK_WAL_DAMAGED, "%s", f->scan.case_name);
    f->end = f->scan.end;
    if (verdict == NPK_WAL_TORN)
        OK(f, npk_wal_cut(f->wal, &f->scan, &f->end, &f->err));
    OK(f, npk_wal_start(f->wal, &f->end, &f->err));
    OK(f, npk_wal_sync(f->wal, &f->err)); /* a dead writer's last commit may be in the page cache only */
    f->durable = f->end.lsn;
    f->transaction = f->scan.last_transaction;
    f->count = 0;
}

static inline uint64_t offset_in_segment(const npk_wal_end *end)
{
    return NPK_WAL_HEADER_SIZE + (end->lsn - end->first_lsn);
}

static inline void damage(fixture *f, uint64_t seq, uint64_t offset, const void *bytes, size_t size)
{
    char name[NPK_WAL_NAME_SIZE];
    npk_segment_name(seq, name);
    ck_assert_int_eq(memory_io_damage(f->disk, ROOT, name, offset, bytes, size), 0);
}

static inline bool file_exists(fixture *f, uint64_t seq)
{
    char name[NPK_WAL_NAME_SIZE];
    npk_segment_name(seq, name);
    npk_file *root;
    bool created;
    npk_file_info info;
    ck_assert_int_eq(f->io->open_root(f->io, ROOT, false, &root, &created), 0);
    int rc = f->io->info_at(f->io, root, name, &info);
    f->io->close(f->io, root);
    return rc == 0;
}

static inline int count_name(void *context, const char *name)
{
    (void)name;
    ++*(size_t *)context;
    return 0;
}

static inline size_t file_count(fixture *f)
{
    npk_file *root;
    bool created;
    size_t count = 0;
    ck_assert_int_eq(f->io->open_root(f->io, ROOT, false, &root, &created), 0);
    ck_assert_int_eq(f->io->list(f->io, root, count_name, &count), 0);
    f->io->close(f->io, root);
    return count;
}

static inline int run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
