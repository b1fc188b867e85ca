/* test_column.c - column files: the header, streaming rows in, reading, mapping and checking them. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "bytes.h"
#include "checksum.h"
#include "column.h"
#include "column_format.h"
#include "catalog.h"
#include "error.h"
#include "thread.h"

static const npk_io *io;
static char root[512];
static npk_file *directory;
static npk_columns *columns;
static const uint8_t uuid[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255};

static void setup(void)
{
    io = npk_io_posix();
    const char *base = getenv("TMPDIR");
    (void)snprintf(root, sizeof root, "%s/npk_column_XXXXXX", base ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(root));
    ck_assert_int_eq(io->open_root(io, root, false, &directory, NULL), 0);
    ck_assert_int_eq(npk_columns_open(io, directory, uuid, &columns, NULL), NPK_OK);
}

static int remove_one(void *context, const char *name)
{
    (void)context;
    return io->unlink(io, directory, name);
}

static void teardown(void)
{
    npk_columns_close(columns);
    (void)io->list(io, directory, remove_one, NULL);
    io->close(io, directory);
    (void)remove(root);
}

static int count_one(void *context, const char *name)
{
    (void)name;
    ++*(int *)context;
    return 0;
}

static int file_count(void)
{
    int count = 0;
    ck_assert_int_eq(io->list(io, directory, count_one, &count), 0);
    return count;
}

static uint8_t byte_at(uint64_t i) { return (uint8_t)(i * 2654435761u >> 13); }

static uint8_t *pattern(size_t size)
{
    uint8_t *bytes = malloc(size ? size : 1);
    ck_assert_ptr_nonnull(bytes);
    for (size_t i = 0; i < size; i++)
        bytes[i] = byte_at(i);
    return bytes;
}

static const npk_column_spec plain = {.descr = "|u1", .row_size = 100, .ndim = 1, .shape = (const uint64_t[]){100}};

/* Write row_count rows in appends of step rows; the writer is left finished. */
static npk_column_writer *write_rows(const npk_column_spec *spec, const uint8_t *rows, uint64_t row_count, uint64_t step,
                                     npk_column_summary *summary)
{
    npk_column_writer *writer = NULL;
    ck_assert_int_eq(npk_column_create(io, directory, uuid, spec, row_count, true, &writer, NULL), NPK_OK);
    for (uint64_t at = 0; at < row_count; at += step)
        ck_assert_int_eq(npk_column_append(writer, rows + at * spec->row_size, npk_min_u64(step, row_count - at), NULL),
                         NPK_OK);
    ck_assert_uint_eq(npk_column_writer_row_count(writer), row_count);
    ck_assert_int_eq(npk_column_finish(writer, true, summary, NULL), NPK_OK);
    ck_assert_uint_eq(npk_column_writer_id(writer), summary->id);
    return writer;
}

static npk_status get(const npk_column_summary *s, npk_column **column, npk_error *err)
{
    return npk_columns_get(columns, s->id, s->file_size, s->row_count, s->row_size, s->data_offset, column, err);
}

/* ---- header ---------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *golden; /* file in tests/golden */
    npk_column_spec spec;
    uint64_t row_count;
    uint8_t version;
} cases[] = {
    {"column_float.npy", {"<f4", 16, 1, (const uint64_t[]){4}, false}, 3, 1},
    {"column_scalar.npy", {"<f8", 8, 0, NULL, true}, 1, 1},
    {"column_one_dimension.npy", {"<M8[us]", 8, 0, NULL, false}, 2, 1},
    {"column_structure.npy", {"[('a', '<i4'), ('it\\'s #npk', '|S4', (2,))]", 12, 0, NULL, false}, 2, 1},
    {"column_latin.npy", {"[('gr\xc3\xb6\xc3\x9f" "e', '<f4')]", 4, 0, NULL, false}, 2, 1},
    {"column_unicode.npy", {"[('\xe6\xb8\xa9\xe5\xba\xa6', '<f4')]", 4, 0, NULL, false}, 2, 3},
    {"column_empty.npy", {"<u2", 12, 2, (const uint64_t[]){2, 3}, false}, 0, 1},
};

static const uint64_t golden_id = 0x0123456789abcdefu;

/* Golden files are in the repository; this build must write the same bytes. NPK_WRITE_GOLDEN=1 writes them anew. */
START_TEST(headers_are_the_golden_ones)
{
    npk_buffer file;
    npk_buffer_init(&file);
    ck_assert(npk_column_header_encode(&cases[_i].spec, cases[_i].row_count, golden_id, uuid, &file));
    ck_assert_uint_eq(file.size, npk_column_header_size(&cases[_i].spec));
    ck_assert_uint_eq(file.size % 4096, 0);
    for (uint64_t i = 0; i < cases[_i].row_count * cases[_i].spec.row_size; i++)
        npk_buffer_put_u8(&file, (uint8_t)(i % 4 ? i % 4 : 65));
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/golden/%s", NPK_TESTS_DIR, cases[_i].golden);
    if (getenv("NPK_WRITE_GOLDEN")) {
        FILE *out = fopen(path, "wb");
        ck_assert_ptr_nonnull(out);
        ck_assert_uint_eq(fwrite(file.data, 1, file.size, out), file.size);
        ck_assert_int_eq(fclose(out), 0);
    }
    FILE *in = fopen(path, "rb");
    ck_assert_ptr_nonnull(in);
    uint8_t *bytes = malloc(file.size + 1);
    ck_assert_ptr_nonnull(bytes);
    ck_assert_uint_eq(fread(bytes, 1, file.size + 1, in), file.size);
    (void)fclose(in);
    ck_assert_int_eq(memcmp(bytes, file.data, file.size), 0);
    npk_column_header header;
    ck_assert(npk_column_header_decode(bytes, file.size, &header));
    ck_assert_uint_eq(header.id, golden_id);
    ck_assert_int_eq(memcmp(header.uuid, uuid, 16), 0);
    ck_assert_uint_eq(header.header_size, npk_column_header_size(&cases[_i].spec));
    ck_assert_uint_eq(header.version, cases[_i].version);
    if (strcmp(cases[_i].golden, "column_latin.npy") != 0) { /* written in Latin-1, not as given */
        ck_assert_uint_eq(header.descr_size, strlen(cases[_i].spec.descr));
        ck_assert_int_eq(memcmp(bytes + header.descr_offset, cases[_i].spec.descr, header.descr_size), 0);
    }
    free(bytes);
    npk_buffer_release(&file);
}
END_TEST

START_TEST(header_size_does_not_depend_on_the_row_count)
{
    uint64_t shape[NPK_NDIM_MAX - 1];
    for (unsigned i = 0; i < NPK_NDIM_MAX - 1; i++)
        shape[i] = UINT64_MAX;
    char *descr = malloc(NPK_DESCR_MAX + 1);
    ck_assert_ptr_nonnull(descr);
    /* Sizes around each multiple of 4096: with few and with many digits the header ends at the same place. */
    for (size_t size = 3000; size <= NPK_DESCR_MAX; size += size % 4096 > 2400 && size % 4096 < 4090 ? 1 : 97) {
        memset(descr, 'x', size);
        descr[size] = '\0';
        npk_column_spec spec = {descr, 8, size % 2 ? NPK_NDIM_MAX - 1 : 0, shape, false};
        npk_buffer few, many;
        npk_buffer_init(&few);
        npk_buffer_init(&many);
        ck_assert(npk_column_header_encode(&spec, 0, 1, uuid, &few));
        ck_assert(npk_column_header_encode(&spec, UINT64_MAX, 1, uuid, &many));
        ck_assert_uint_eq(few.size, many.size);
        ck_assert_uint_eq(few.size, npk_column_header_size(&spec));
        npk_column_header header;
        ck_assert(npk_column_header_decode(many.data, many.size, &header));
        ck_assert_uint_eq(header.descr_size, size);
        npk_buffer_release(&few);
        npk_buffer_release(&many);
    }
    free(descr);
}
END_TEST

START_TEST(descriptions_that_would_break_the_header_are_refused)
{
    const char *const bad[] = {"", "<f'4", "<f\\4", "a\nb", "[('a\n', '<f4')]", "a\"b"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        npk_column_spec spec = {bad[i], 8, 0, NULL, false};
        ck_assert_uint_eq(npk_column_header_size(&spec), 0);
        npk_column_writer *writer = NULL;
        ck_assert_int_eq(npk_column_create(io, directory, uuid, &spec, 0, true, &writer, NULL), NPK_INVALID);
    }
    ck_assert_int_eq(file_count(), 0);
}
END_TEST

START_TEST(damaged_headers_never_crash_and_never_lie)
{
    npk_buffer file;
    npk_buffer_init(&file);
    npk_column_header header;
    ck_assert(npk_column_header_encode(&cases[3].spec, 2, golden_id, uuid, &file));
    for (size_t size = 0; size < file.size; size++) { /* exactly sized: a read behind the end is seen by the sanitizer */
        uint8_t *cut = malloc(size ? size : 1);
        ck_assert_ptr_nonnull(cut);
        memcpy(cut, file.data, size);
        ck_assert(!npk_column_header_decode(cut, size, &header));
        free(cut);
    }
    for (size_t i = 0; i < 300; i++)
        for (unsigned v = 0; v < 256; v++) {
            uint8_t was = file.data[i];
            file.data[i] = (uint8_t)v;
            if (npk_column_header_decode(file.data, file.size, &header)) {
                ck_assert_uint_le(header.descr_offset + header.descr_size, file.size);
                ck_assert_uint_le(header.header_size, file.size);
            }
            file.data[i] = was;
        }
    npk_buffer_release(&file);
}
END_TEST

/* ---- writing and reading ------------------------------------------------------------------------------------------------- */

START_TEST(rows_come_back_whatever_the_steps)
{
    static const uint64_t steps[] = {1, 7, 655, 656, 10485, 10486, 20971, 100000};
    uint64_t row_count = _i == 0 ? 3000 : 33333;
    uint8_t *rows = pattern((size_t)row_count * 100);
    npk_column_summary summary;
    npk_column_writer *writer = write_rows(&plain, rows, row_count, steps[_i], &summary);
    ck_assert_uint_eq(summary.row_count, row_count);
    ck_assert_uint_eq(summary.file_size, summary.data_offset + row_count * 100);
    ck_assert_uint_eq(summary.sum_count, (row_count * 100 + NPK_SUM_BLOCK - 1) / NPK_SUM_BLOCK);
    for (uint64_t i = 0; i < summary.sum_count; i++)
        ck_assert_uint_eq(summary.sums[i], npk_checksum(rows + i * NPK_SUM_BLOCK,
                                                        npk_min_u64(NPK_SUM_BLOCK, row_count * 100 - i * NPK_SUM_BLOCK)));
    npk_column *column = NULL;
    npk_error err;
    ck_assert_msg(get(&summary, &column, &err) == NPK_OK, "%s", err.message);
    uint8_t *out = malloc((size_t)row_count * 100);
    ck_assert_ptr_nonnull(out);
    ck_assert_int_eq(npk_column_read(column, 0, row_count, out, NULL), NPK_OK);
    ck_assert_int_eq(memcmp(rows, out, (size_t)row_count * 100), 0);
    ck_assert_int_eq(npk_column_read(column, row_count - 1, 1, out, NULL), NPK_OK);
    ck_assert_int_eq(memcmp(rows + (row_count - 1) * 100, out, 100), 0);
    ck_assert_int_eq(npk_column_read(column, row_count, 1, out, NULL), NPK_RANGE);
    ck_assert_int_eq(npk_column_read(column, 1, UINT64_MAX, out, NULL), NPK_RANGE);
    ck_assert_int_eq(npk_column_check(column, summary.sums, summary.sum_count, NULL, NULL, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_check(column, summary.sums, summary.sum_count - 1, NULL, NULL, NULL), NPK_CORRUPT);
    npk_column_release(column);
    npk_column_writer_release(writer);
    ck_assert_int_eq(file_count(), 1);
    free(out);
    free(rows);
}
END_TEST

typedef struct findings {
    uint64_t offset[8], size[8];
    unsigned count;
    unsigned stop_at;
} findings;

static int note(void *context, uint64_t offset, uint64_t size)
{
    findings *f = context;
    if (f->count < 8) {
        f->offset[f->count] = offset;
        f->size[f->count] = size;
    }
    return ++f->count == f->stop_at;
}

static void flip(uint64_t id, uint64_t offset)
{
    char name[NPK_COLUMN_NAME_SIZE];
    npk_column_name(name, id, true);
    npk_file *file = NULL;
    uint8_t byte;
    ck_assert_int_eq(io->open(io, directory, name, NPK_OPEN_WRITE, &file), 0);
    ck_assert_int_eq(npk_io_read_full(io, file, offset, &byte, 1, NULL, name, NULL), NPK_OK);
    byte ^= 0x10;
    ck_assert_int_eq(npk_io_write_full(io, file, offset, &byte, 1, name, NULL), NPK_OK);
    io->close(io, file);
}

START_TEST(a_flipped_byte_names_its_block)
{
    uint64_t row_count = 20000; /* 2,000,000 bytes: 31 blocks, the last one of 33,920 bytes */
    uint8_t *rows = pattern((size_t)row_count * 100);
    npk_column_summary summary;
    npk_column_writer *writer = write_rows(&plain, rows, row_count, 900, &summary);
    npk_column *column = NULL;
    ck_assert_int_eq(get(&summary, &column, NULL), NPK_OK);
    flip(summary.id, summary.data_offset + 5 * NPK_SUM_BLOCK + 17);
    flip(summary.id, summary.data_offset + 16 * NPK_SUM_BLOCK);
    flip(summary.id, summary.file_size - 1);
    findings found = {.count = 0};
    npk_error err;
    ck_assert_int_eq(npk_column_check(column, summary.sums, summary.sum_count, note, &found, &err), NPK_CORRUPT);
    ck_assert_ptr_nonnull(strstr(err.message, "data offset 327680"));
    ck_assert_uint_eq(found.count, 3);
    ck_assert_uint_eq(found.offset[0], 5 * NPK_SUM_BLOCK);
    ck_assert_uint_eq(found.size[0], NPK_SUM_BLOCK);
    ck_assert_uint_eq(found.offset[1], 16 * NPK_SUM_BLOCK);
    ck_assert_uint_eq(found.offset[2], 30 * NPK_SUM_BLOCK);
    ck_assert_uint_eq(found.size[2], row_count * 100 - 30 * NPK_SUM_BLOCK);
    found = (findings){.stop_at = 2};
    ck_assert_int_eq(npk_column_check(column, summary.sums, summary.sum_count, note, &found, NULL), NPK_CORRUPT);
    ck_assert_uint_eq(found.count, 2);
    npk_column_release(column);
    npk_column_writer_release(writer);
    free(rows);
}
END_TEST

START_TEST(a_file_that_is_not_the_one_meant_is_refused)
{
    uint8_t *rows = pattern(1000);
    npk_column_summary a, b, wrong;
    npk_column_writer *first = write_rows(&plain, rows, 10, 10, &a), *second = write_rows(&plain, rows, 10, 10, &b);
    npk_column *column = NULL;
    npk_error err;
    wrong = a;
    wrong.row_count = 9;
    ck_assert_int_eq(get(&wrong, &column, NULL), NPK_CORRUPT); /* sizes do not fit together */
    wrong.file_size -= 100;
    ck_assert_int_eq(get(&wrong, &column, &err), NPK_CORRUPT); /* they do, but the file is longer */
    ck_assert_ptr_nonnull(strstr(err.message, "has 5096 bytes instead of 4996"));
    wrong = a;
    wrong.data_offset += 4096;
    wrong.file_size += 4096;
    ck_assert_int_eq(get(&wrong, &column, NULL), NPK_CORRUPT);
    npk_column_spec page = {"|u1", 4096, 1, (const uint64_t[]){4096}, false};
    uint8_t *pages = pattern(3 * 4096);
    npk_column_writer *third = write_rows(&page, pages, 3, 3, &wrong);
    wrong.data_offset += 4096;
    wrong.row_count--;
    ck_assert_int_eq(get(&wrong, &column, &err), NPK_CORRUPT); /* the size fits, the data starts elsewhere */
    npk_column_writer_release(third);
    free(pages);
    wrong = a;
    wrong.id ^= 1;
    ck_assert_int_eq(get(&wrong, &column, NULL), NPK_NOT_FOUND);
    char from[NPK_COLUMN_NAME_SIZE], to[NPK_COLUMN_NAME_SIZE];
    npk_column_name(from, b.id, true);
    npk_column_name(to, a.id, true);
    ck_assert_int_eq(io->rename(io, directory, from, to), 0);
    ck_assert_int_eq(get(&a, &column, &err), NPK_CORRUPT); /* the id in the header is another one */
    npk_columns *foreign = NULL;
    ck_assert_int_eq(npk_columns_open(io, directory, (const uint8_t[16]){9}, &foreign, NULL), NPK_OK);
    ck_assert_int_eq(io->rename(io, directory, to, from), 0);
    ck_assert_int_eq(npk_columns_get(foreign, b.id, b.file_size, b.row_count, b.row_size, b.data_offset, &column, NULL),
                     NPK_CORRUPT);
    ck_assert_int_eq(get(&b, &column, NULL), NPK_OK);
    npk_column_release(column);
    npk_columns_forget(columns);
    flip(b.id, 3);
    ck_assert_int_eq(get(&b, &column, NULL), NPK_CORRUPT);
    npk_columns_close(foreign);
    npk_column_writer_release(first);
    npk_column_writer_release(second);
    free(rows);
}
END_TEST

START_TEST(open_files_are_shared_and_survive_their_name)
{
    uint8_t *rows = pattern(1000), out[1000];
    npk_column_summary summary;
    npk_column_writer *writer = write_rows(&plain, rows, 10, 3, &summary);
    npk_column *a = NULL, *b = NULL;
    ck_assert_int_eq(get(&summary, &a, NULL), NPK_OK);
    ck_assert_int_eq(get(&summary, &b, NULL), NPK_OK);
    ck_assert_ptr_eq(a, b);
    npk_column_discard(writer); /* unlinks */
    ck_assert_int_eq(file_count(), 0);
    npk_column_release(b);
    ck_assert_int_eq(npk_column_read(a, 0, 10, out, NULL), NPK_OK);
    ck_assert_int_eq(memcmp(out, rows, 1000), 0);
    npk_column_release(a);
    ck_assert_int_eq(get(&summary, &a, NULL), NPK_OK); /* kept a while */
    npk_column_release(a);
    npk_columns_forget(columns);
    ck_assert_int_eq(get(&summary, &a, NULL), NPK_NOT_FOUND);
    free(rows);
}
END_TEST

/* Recovery puts a copy under the name of a file of which a sync may have failed: nobody who comes later may get the old one, whoever has it still. */
START_TEST(a_replaced_file_is_opened_anew_also_while_the_old_one_is_in_use)
{
    uint8_t *rows = pattern(1000), out[1000];
    npk_column_summary summary;
    npk_column_writer *writer = write_rows(&plain, rows, 10, 3, &summary);
    npk_column *old = NULL, *fresh = NULL, *again = NULL;
    ck_assert_int_eq(get(&summary, &old, NULL), NPK_OK);
    char name[NPK_COLUMN_NAME_SIZE], temp[NPK_COLUMN_NAME_SIZE];
    npk_column_name(name, summary.id, true);
    npk_column_name(temp, summary.id, false);
    uint8_t bytes[NPK_COLUMN_ALIGNMENT + 1000];
    ck_assert_uint_eq(summary.file_size, sizeof bytes);
    npk_file *file = NULL;
    ck_assert_int_eq(io->open(io, directory, name, NPK_OPEN_READ, &file), 0);
    ck_assert_int_eq(npk_io_read_full(io, file, 0, bytes, sizeof bytes, NULL, name, NULL), NPK_OK);
    io->close(io, file);
    bytes[sizeof bytes - 1] ^= 1;
    ck_assert_int_eq(npk_io_replace_file(io, directory, temp, name, bytes, sizeof bytes, NULL), NPK_OK);
    npk_columns_renew(columns);
    ck_assert_int_eq(get(&summary, &fresh, NULL), NPK_OK);
    ck_assert_int_eq(get(&summary, &again, NULL), NPK_OK);
    ck_assert_ptr_ne(fresh, old);
    ck_assert_ptr_eq(fresh, again);
    ck_assert_int_eq(npk_column_read(fresh, 0, 10, out, NULL), NPK_OK);
    ck_assert_int_eq(memcmp(out, bytes + sizeof bytes - 1000, 1000), 0);
    ck_assert_int_eq(npk_column_read(old, 0, 10, out, NULL), NPK_OK);
    ck_assert_int_eq(memcmp(out, rows, 1000), 0);
    npk_column_release(old);
    npk_column_release(again);
    ck_assert_int_eq(get(&summary, &again, NULL), NPK_OK);
    ck_assert_ptr_eq(fresh, again);
    npk_column_release(again);
    npk_column_release(fresh);
    npk_column_writer_release(writer);
    free(rows);
}
END_TEST

START_TEST(users_may_outlive_the_table)
{
    uint8_t *rows = pattern(1000), out[1000];
    npk_column_summary summary;
    npk_column_writer *writer = write_rows(&plain, rows, 10, 3, &summary);
    npk_columns *table = NULL;
    npk_column *column = NULL;
    ck_assert_int_eq(npk_columns_open(io, directory, uuid, &table, NULL), NPK_OK);
    ck_assert_int_eq(npk_columns_get(table, summary.id, summary.file_size, 10, 100, summary.data_offset, &column, NULL),
                     NPK_OK);
    npk_columns_close(table);
    ck_assert_int_eq(npk_column_read(column, 2, 3, out, NULL), NPK_OK);
    ck_assert_int_eq(memcmp(out, rows + 200, 300), 0);
    npk_column_release(npk_column_retain(column));
    npk_column_release(column);
    npk_column_writer_release(writer);
    free(rows);
}
END_TEST

START_TEST(few_files_are_kept_open)
{
    enum { COUNT = 200 };
    uint8_t *rows = pattern(1000);
    npk_column_summary summaries[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        npk_column_writer_release(write_rows(&plain, rows, 1 + i % 10, 10, &summaries[i]));
        npk_column *column = NULL;
        ck_assert_int_eq(get(&summaries[i], &column, NULL), NPK_OK);
        npk_column_release(column);
    }
    (void)io->list(io, directory, remove_one, NULL);
    unsigned open_count = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        npk_column *column = NULL;
        npk_status status = get(&summaries[i], &column, NULL);
        ck_assert(status == NPK_OK || status == NPK_NOT_FOUND);
        open_count += status == NPK_OK;
        ck_assert_int_eq(status == NPK_OK, i >= COUNT - 64);
        npk_column_release(column);
    }
    ck_assert_uint_eq(open_count, 64);
    free(rows);
}
END_TEST

START_TEST(maps_point_at_the_row)
{
    uint64_t row_count = 5000;
    uint8_t *rows = pattern((size_t)row_count * 100);
    npk_column_summary summary;
    npk_column_writer *writer = write_rows(&plain, rows, row_count, 5000, &summary);
    npk_column *column = NULL;
    ck_assert_int_eq(get(&summary, &column, NULL), NPK_OK);
    for (uint64_t first = 0; first < row_count; first += 777) {
        for (unsigned kind = 0; kind < 2; kind++) {
            void *base = NULL, *address = NULL;
            size_t size = 0;
            ck_assert_int_eq(npk_column_map(column, first, row_count - first, kind ? NPK_MAPPING_PRIVATE : NPK_MAPPING_READ,
                                            &base, &size, &address, NULL), NPK_OK);
            ck_assert_int_eq(memcmp(address, rows + first * 100, (size_t)(row_count - first) * 100), 0);
            if (kind)
                memset(address, 0, 100); /* stays private */
            io->unmap(io, base, size);
        }
    }
    void *base, *address;
    size_t size;
    ck_assert_int_eq(npk_column_map(column, 0, 0, NPK_MAPPING_READ, &base, &size, &address, NULL), NPK_INVALID);
    ck_assert_int_eq(npk_column_map(column, 1, row_count, NPK_MAPPING_READ, &base, &size, &address, NULL), NPK_RANGE);
    const void *all = NULL, *again = NULL;
    ck_assert_int_eq(npk_column_rows(column, &all, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_rows(column, &again, NULL), NPK_OK);
    ck_assert_ptr_eq(all, again);
    ck_assert_int_eq(memcmp(all, rows, (size_t)row_count * 100), 0);
    npk_column_release(column);
    npk_column_writer_release(writer);
    free(rows);
}
END_TEST

START_TEST(a_writer_shows_what_it_has)
{
    uint8_t *rows = pattern(3000000), *out = malloc(3000000);
    ck_assert_ptr_nonnull(out);
    npk_column_writer *writer = NULL;
    npk_column *early = NULL, *late = NULL;
    npk_column_summary summary;
    ck_assert_int_eq(npk_column_create(io, directory, uuid, &plain, 0, true, &writer, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_append(writer, rows, 7, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_writer_view(writer, &early, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_append(writer, rows + 700, 29993, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_read(early, 0, 7, out, NULL), NPK_OK);
    ck_assert_int_eq(memcmp(out, rows, 700), 0);
    ck_assert_int_eq(npk_column_read(early, 7, 1, out, NULL), NPK_RANGE);
    ck_assert_int_eq(npk_column_writer_view(writer, &late, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_finish(writer, true, &summary, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_check(late, summary.sums, summary.sum_count, NULL, NULL, NULL), NPK_OK);
    npk_column_discard(writer);
    ck_assert_int_eq(file_count(), 0);
    ck_assert_int_eq(npk_column_read(late, 0, 30000, out, NULL), NPK_OK);
    ck_assert_int_eq(memcmp(out, rows, 3000000), 0);
    npk_column_release(early);
    npk_column_release(late);
    free(out);
    free(rows);
}
END_TEST

START_TEST(discarding_leaves_nothing)
{
    uint8_t *rows = pattern(1000);
    npk_column_writer *writer = NULL;
    npk_column_summary summary;
    ck_assert_int_eq(npk_column_create(io, directory, uuid, &plain, 0, true, &writer, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_append(writer, rows, 10, NULL), NPK_OK);
    npk_column_discard(writer);
    ck_assert_int_eq(file_count(), 0);
    npk_column_spec scalar = {"<f8", 8, 0, NULL, true};
    ck_assert_int_eq(npk_column_create(io, directory, uuid, &scalar, 0, true, &writer, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_finish(writer, true, &summary, NULL), NPK_INVALID); /* one row, not none */
    npk_column_discard(writer);
    npk_column_writer_release(NULL);
    npk_column_discard(NULL);
    npk_column_release(NULL);
    npk_columns_close(NULL);
    free(rows);
}
END_TEST

static void *get_and_release(void *context)
{
    const npk_column_summary *summaries = context;
    size_t wrong = 0;
    for (unsigned i = 0; i < 4000; i++) {
        npk_column *column = NULL;
        uint8_t row[100];
        const void *rows = NULL;
        if (get(&summaries[i * 7 % 100], &column, NULL) != NPK_OK || npk_column_read(column, 0, 1, row, NULL) != NPK_OK ||
            npk_column_rows(column, &rows, NULL) != NPK_OK || memcmp(rows, row, 100) != 0)
            wrong++;
        npk_column_release(npk_column_retain(column));
        npk_column_release(column);
        if (i % 500 == 0)
            npk_columns_forget(columns);
    }
    return (void *)wrong;
}

START_TEST(threads_share_open_files)
{
    uint8_t *rows = pattern(1000);
    npk_column_summary summaries[100];
    for (unsigned i = 0; i < 100; i++)
        npk_column_writer_release(write_rows(&plain, rows, 1 + i % 10, 10, &summaries[i]));
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++)
        ck_assert_int_eq(npk_thread_start(&threads[i], get_and_release, summaries), 0);
    for (unsigned i = 0; i < 4; i++) {
        void *wrong = NULL;
        ck_assert_int_eq(pthread_join(threads[i], &wrong), 0);
        ck_assert_ptr_null(wrong);
    }
    free(rows);
}
END_TEST

static int allocations_left;
static int fail_late(void *context, size_t size)
{
    (void)context;
    (void)size;
    return allocations_left-- == 0;
}

/* Whatever allocation fails, the status is NO_MEMORY, nothing leaks and no file stays. */
START_TEST(every_failed_allocation_is_survived)
{
    uint8_t *rows = pattern(1000000);
    for (int n = 0;; n++) {
        npk_column_writer *writer = NULL;
        npk_column *column = NULL, *view = NULL;
        npk_column_summary summary;
        allocations_left = n;
        npk_alloc_set_hook(fail_late, NULL);
        npk_status status = npk_column_create(io, directory, uuid, &plain, 0, true, &writer, NULL);
        if (status == NPK_OK)
            status = npk_column_append(writer, rows, 10000, NULL);
        if (status == NPK_OK)
            status = npk_column_writer_view(writer, &view, NULL);
        if (status == NPK_OK)
            status = npk_column_finish(writer, true, &summary, NULL);
        if (status == NPK_OK)
            status = get(&summary, &column, NULL);
        if (status == NPK_OK)
            status = npk_column_check(column, summary.sums, summary.sum_count, NULL, NULL, NULL);
        npk_alloc_set_hook(NULL, NULL);
        npk_column_release(column);
        npk_column_release(view);
        npk_column_discard(writer);
        npk_columns_forget(columns);
        ck_assert_int_eq(file_count(), 0);
        if (status == NPK_OK)
            break;
        ck_assert_int_eq(status, NPK_NO_MEMORY);
        ck_assert_int_lt(n, 200);
    }
    free(rows);
}
END_TEST

/* 8 MiB and more are summed by a thread of its own: whole blocks, behind a head that completes a block and before a tail. */
START_TEST(many_rows_in_one_call_have_the_sums_of_the_same_rows_in_small_ones)
{
    static const size_t heads[] = {0, 1, NPK_SUM_BLOCK - 1, NPK_SUM_BLOCK, NPK_SUM_BLOCK + 7};
    size_t size = (9u << 20) + 12345;
    uint8_t *rows = malloc(size);
    ck_assert_ptr_nonnull(rows);
    for (size_t i = 0; i < size; i++)
        rows[i] = (uint8_t)(i * 2654435761u >> 13);
    const npk_column_spec bytes = {"|u1", 1, 0, NULL, false};
    npk_column_writer *small = NULL, *large = NULL;
    npk_column_summary expected, got;
    size_t head = heads[_i];
    ck_assert_int_eq(npk_column_create(io, directory, uuid, &bytes, 0, false, &small, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_create(io, directory, uuid, &bytes, size, true, &large, NULL), NPK_OK);
    for (size_t at = 0; at < size; at += 1000003)
        ck_assert_int_eq(npk_column_append(small, rows + at, size - at < 1000003 ? size - at : 1000003, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_append(large, rows, head, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_append(large, rows + head, size - head, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_finish(small, false, &expected, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_finish(large, false, &got, NULL), NPK_OK);
    ck_assert_uint_eq(got.sum_count, expected.sum_count);
    ck_assert_uint_eq(got.sum_count, size / NPK_SUM_BLOCK + 1);
    ck_assert_int_eq(memcmp(got.sums, expected.sums, (size_t)got.sum_count * sizeof *got.sums), 0);
    npk_column *column = NULL;
    ck_assert_int_eq(npk_column_writer_view(large, &column, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_check(column, got.sums, got.sum_count, NULL, NULL, NULL), NPK_OK);
    npk_column_release(column);
    npk_column_discard(small);
    npk_column_discard(large);
    free(rows);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("column");
    TCase *tests = tcase_create("files");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, headers_are_the_golden_ones, 0, (int)(sizeof cases / sizeof cases[0]));
    tcase_add_test(tests, header_size_does_not_depend_on_the_row_count);
    tcase_add_test(tests, descriptions_that_would_break_the_header_are_refused);
    tcase_add_test(tests, damaged_headers_never_crash_and_never_lie);
    tcase_add_loop_test(tests, rows_come_back_whatever_the_steps, 0, 8);
    tcase_add_loop_test(tests, many_rows_in_one_call_have_the_sums_of_the_same_rows_in_small_ones, 0, 5);
    tcase_add_test(tests, a_flipped_byte_names_its_block);
    tcase_add_test(tests, a_file_that_is_not_the_one_meant_is_refused);
    tcase_add_test(tests, open_files_are_shared_and_survive_their_name);
    tcase_add_test(tests, a_replaced_file_is_opened_anew_also_while_the_old_one_is_in_use);
    tcase_add_test(tests, users_may_outlive_the_table);
    tcase_add_test(tests, few_files_are_kept_open);
    tcase_add_test(tests, threads_share_open_files);
    tcase_add_test(tests, maps_point_at_the_row);
    tcase_add_test(tests, a_writer_shows_what_it_has);
    tcase_add_test(tests, discarding_leaves_nothing);
    tcase_add_test(tests, every_failed_allocation_is_survived);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
