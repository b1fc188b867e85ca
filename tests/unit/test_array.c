/* test_array.c - arrays built from hand-made places: splits, overlays, drops, packed records; ranges, gathers, maps and loads against a
 * model that knows the bytes of every slot. */
#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "alloc.h"
#include "array.h"
#include "bytes.h"
#include "column_format.h"
#include "error.h"
#include "gather.h"
#include "region.h"
#include "thread.h"

/* ---- a store without a store ------------------------------------------------------------------------------------------ */

static const npk_io *io;
static char root[512];
static npk_file *root_directory, *directory, *wal_directory;
static npk_columns *columns;
static npk_wal *wal;
static npk_kv *kv;
static npk_array_sources sources;
static const uint8_t uuid[16] = {7};

/* The system's calls, of which maps and protection can be made to fail; maps that are there are counted. */
static npk_io system_io;
static bool maps_fail, protection_fails;
static _Atomic int map_count, file_map_calls;

static int map_or_fail(const npk_io *self, npk_file *file, uint64_t offset, size_t size, npk_map_kind kind, void **address)
{
    file_map_calls++;
    int rc = maps_fail ? ENODEV : npk_io_posix()->map(self, file, offset, size, kind, address);
    map_count += rc == 0;
    return rc;
}

static void count_unmap(const npk_io *self, void *address, size_t size)
{
    map_count -= address != NULL;
    npk_io_posix()->unmap(self, address, size);
}

static int count_map_memory(const npk_io *self, size_t size, void **address)
{
    int rc = npk_io_posix()->map_memory(self, size, address);
    map_count += rc == 0;
    return rc;
}

static int protect_or_fail(const npk_io *self, void *address, size_t size)
{
    return protection_fails ? ENOMEM : npk_io_posix()->protect_read(self, address, size);
}

static void setup(void)
{
    system_io = *npk_io_posix();
    system_io.map = map_or_fail;
    system_io.unmap = count_unmap;
    system_io.map_memory = count_map_memory;
    system_io.protect_read = protect_or_fail;
    maps_fail = protection_fails = false;
    map_count = 0;
    io = &system_io;
    const char *base = getenv("TMPDIR");
    (void)snprintf(root, sizeof root, "%s/npk_array_XXXXXX", base ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(root));
    ck_assert_int_eq(io->open_root(io, root, false, &root_directory, NULL), 0);
    ck_assert_int_eq(io->make_directory(io, root_directory, "columns"), 0);
    ck_assert_int_eq(io->make_directory(io, root_directory, "wal"), 0);
    ck_assert_int_eq(io->open(io, root_directory, "columns", NPK_OPEN_READ | NPK_OPEN_DIRECTORY, &directory), 0);
    ck_assert_int_eq(io->open(io, root_directory, "wal", NPK_OPEN_READ | NPK_OPEN_DIRECTORY, &wal_directory), 0);
    ck_assert_int_eq(npk_columns_open(io, directory, uuid, &columns, NULL), NPK_OK);
    npk_wal_options options = {.io = io, .segment_size = 4u << 20};
    memcpy(options.uuid, uuid, 16);
    npk_wal_end end;
    ck_assert_int_eq(npk_wal_open(wal_directory, &options, &wal, NULL), NPK_OK);
    ck_assert_int_eq(npk_wal_create(wal, &end, NULL), NPK_OK);
    ck_assert_int_eq(npk_wal_start(wal, &end, NULL), NPK_OK);
    ck_assert_int_eq(npk_kv_open(NULL, &kv, NULL), NPK_OK);
    sources = (npk_array_sources){.io = io, .wal = wal, .columns = columns};
}

static npk_file *listed;
static int remove_one(void *context, const char *name)
{
    (void)context;
    return io->unlink(io, listed, name);
}

static void remove_all(npk_file *from)
{
    listed = from;
    (void)io->list(io, from, remove_one, NULL);
}

static void teardown(void)
{
    npk_region_trim(UINT64_MAX);
    npk_kv_close(kv);
    npk_columns_close(columns);
    remove_all(wal_directory);
    npk_wal_close(wal);
    ck_assert_int_eq(map_count, 0);
    ck_assert_uint_eq(npk_array_unpacked_size(), 0);
    remove_all(directory);
    io->close(io, directory);
    (void)io->remove_directory(io, root_directory, "columns");
    (void)io->remove_directory(io, root_directory, "wal");
    io->close(io, root_directory);
    (void)remove(root);
}

static uint64_t random_state;
static uint64_t next_random(void)
{
    uint64_t z = random_state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
static uint64_t below(uint64_t n) { return next_random() % n; }

#define ARRAY_ID 3u

static void put_record(uint64_t row_size, uint64_t row_count, bool zero_dim)
{
    npk_array_record record = {.name = "a", .descr = (char *)(uintptr_t)"|u1", .ndim = zero_dim ? 0 : 1, .shape = {row_size},
                               .zero_dim = zero_dim, .row_size = row_size, .row_count = row_count, .next_slot = row_count,
                               .change_lsn = 77};
    uint8_t id[8];
    npk_put_u64(id, ARRAY_ID);
    ck_assert_int_eq(npk_kv_put(kv, NPK_TABLE_NAMES, "a", 1, id, 8, NULL), NPK_OK);
    ck_assert_int_eq(npk_catalog_put_array(kv, ARRAY_ID, &record, NULL), NPK_OK);
}

static void put_map(uint64_t first_row, uint64_t first_slot, uint64_t count)
{
    uint8_t key[NPK_KEY_MAX], value[16];
    npk_put_u64(value, first_slot);
    npk_put_u64(value + 8, count);
    ck_assert_int_eq(npk_kv_put(kv, NPK_TABLE_MAP, key, npk_key_u64_u64(key, ARRAY_ID, first_row), value, 16, NULL), NPK_OK);
}

static void put_run(uint64_t first_slot, uint64_t count, uint64_t lsn, npk_place place)
{
    uint8_t key[NPK_KEY_MAX], value[16 + NPK_PLACE_SIZE];
    npk_put_u64(value, count);
    npk_put_u64(value + 8, lsn);
    npk_place_encode(&place, value + 16);
    ck_assert_int_eq(npk_kv_put(kv, NPK_TABLE_ROWS, key, npk_key_run(key, ARRAY_ID, first_slot), value, sizeof value, NULL),
                     NPK_OK);
}

static void put_set(uint64_t block, uint64_t lsn, npk_place place, const uint16_t *slots, uint32_t count)
{
    uint8_t key[NPK_KEY_MAX];
    npk_buffer value;
    npk_buffer_init(&value);
    npk_place_encode(&place, npk_buffer_grow(&value, NPK_PLACE_SIZE));
    for (uint32_t i = 0; i < count; i++)
        npk_buffer_put_u16(&value, slots[i]);
    ck_assert_int_eq(npk_kv_put(kv, NPK_TABLE_ROWS, key, npk_key_set(key, ARRAY_ID, block, lsn), value.data, value.size, NULL),
                     NPK_OK);
    npk_buffer_release(&value);
}

/* Rows in a column file, linked in the index. */
static npk_place column_place(const uint8_t *rows, uint64_t row_size, uint64_t row_count)
{
    npk_column_spec spec = {"|u1", row_size, 1, &row_size, false};
    npk_column_writer *writer = NULL;
    npk_column_summary s;
    ck_assert_int_eq(npk_column_create(io, directory, uuid, &spec, row_count, true, &writer, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_append(writer, rows, row_count, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_finish(writer, true, &s, NULL), NPK_OK);
    npk_container container = {.reference_count = 1, .size = s.file_size, .row_count = row_count, .row_size = row_size,
                               .data_offset = s.data_offset};
    ck_assert_int_eq(npk_catalog_put_container(kv, NPK_CONTAINER_COLUMN, s.id, &container, NULL), NPK_OK);
    npk_place place = {NPK_PLACE_COLUMN, s.id, 0, 0, 0};
    npk_column_writer_release(writer);
    return place;
}

/* Rows in a log record; pack: if they compress. */
static npk_place log_place(const uint8_t *rows, uint64_t row_size, uint64_t row_count, bool pack)
{
    npk_wal_place at;
    npk_error err;
    ck_assert_msg(npk_wal_append(wal, NPK_RECORD_FIRST_OP, 1, 0, "metametameta", 12, rows, (size_t)(row_size * row_count), pack,
                                 &at, &err) == NPK_OK, "%s", err.message);
    npk_place place = {at.packed ? NPK_PLACE_PACKED : NPK_PLACE_SEGMENT, at.seq, at.offset,
                       (uint32_t)(at.data_offset - at.offset), 0};
    return place;
}

static npk_array *build(void)
{
    npk_array *array = NULL;
    npk_error err;
    bool missing = true;
    ck_assert_int_eq(npk_wal_write(wal, NULL), NPK_OK);
    npk_kv_begin_read(kv);
    npk_status status = npk_array_build(kv, "a", &sources, &array, &missing, &err);
    npk_kv_end_read(kv);
    ck_assert_msg(status == NPK_OK, "%s", err.message);
    ck_assert(!missing);
    return array;
}

static npk_status build_status(bool *missing, npk_error *err)
{
    npk_array *array = NULL;
    ck_assert_int_eq(npk_wal_write(wal, NULL), NPK_OK);
    npk_status status = npk_array_build(kv, "a", &sources, &array, missing, err);
    if (status == NPK_OK)
        npk_array_release(array);
    return status;
}

/* ---- random arrays against a model -------------------------------------------------------------------------------------- */

typedef struct model {
    uint64_t row_size, slot_count, row_count;
    uint8_t *slots;      /* newest bytes of each slot */
    uint64_t *lsn;       /* their LSN */
    bool *pending, *overlay;
    uint64_t *row_slot;  /* of each logical row */
    uint8_t *rows;       /* what reading gives */
    uint64_t pending_count, overlay_count;
} model;

static void fill_random(uint8_t *bytes, size_t size)
{
    bool compressible = below(2);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(compressible ? below(100) < 3 : next_random());
}

/* A new source of at most row_count rows; its bytes go to *bytes. */
static npk_place random_source(uint64_t row_size, uint64_t *row_count, uint8_t **bytes)
{
    unsigned kind = (unsigned)below(3);
    if (kind && *row_count * row_size > 500000)
        *row_count = 500000 / row_size;
    *bytes = malloc((size_t)(*row_count * row_size));
    ck_assert_ptr_nonnull(*bytes);
    fill_random(*bytes, (size_t)(*row_count * row_size));
    return kind == 0 ? column_place(*bytes, row_size, *row_count) : log_place(*bytes, row_size, *row_count, kind == 1);
}

static model make_random(uint64_t row_size, uint64_t slot_count, uint64_t run_length, unsigned set_count, unsigned drop_count)
{
    model m = {.row_size = row_size, .slot_count = slot_count};
    m.slots = calloc((size_t)slot_count, (size_t)row_size);
    m.lsn = calloc((size_t)slot_count, sizeof *m.lsn);
    m.pending = calloc((size_t)slot_count, 1);
    m.overlay = calloc((size_t)slot_count, 1);
    m.row_slot = calloc((size_t)slot_count + 1, sizeof *m.row_slot);
    m.rows = malloc((size_t)(slot_count * row_size) + 1);
    bool *dead = calloc((size_t)slot_count, 1);
    ck_assert(m.slots && m.lsn && m.pending && m.overlay && m.row_slot && m.rows && dead);
    for (unsigned i = 0; i < drop_count; i++) {
        uint64_t first = below(slot_count), count = 1 + below(i % 3 ? 3 : slot_count / 10 + 1);
        for (uint64_t s = first; s < slot_count && s < first + count; s++)
            dead[s] = true;
    }
    /* Runs: slices of sources, one after the other or with a gap; dead slots may have no run. */
    npk_place place = {0};
    uint8_t *bytes = NULL;
    uint64_t left = 0, at = 0;
    for (uint64_t slot = 0; slot < slot_count;) {
        if (dead[slot] && below(2)) {
            slot++;
            continue;
        }
        if (left == 0) {
            free(bytes);
            left = 1 + below(run_length * 2);
            place = random_source(row_size, &left, &bytes);
            at = 0;
        }
        uint64_t count = npk_min_u64(npk_min_u64(1 + below(run_length), left), slot_count - slot), lsn = 100 + below(100);
        npk_place slice = place;
        slice.row = at;
        put_run(slot, count, lsn, slice);
        for (uint64_t i = 0; i < count; i++) {
            memcpy(m.slots + (slot + i) * row_size, bytes + (at + i) * row_size, (size_t)row_size);
            m.lsn[slot + i] = lsn;
            m.pending[slot + i] = place.kind != NPK_PLACE_COLUMN;
        }
        slot += count;
        at += count;
        left -= count;
        if (left && below(3) == 0) { /* a gap in the source */
            at++;
            left--;
        }
    }
    free(bytes);
    for (unsigned i = 0; i < set_count; i++) {
        uint64_t blocks = (slot_count + NPK_SET_BLOCK - 1) / NPK_SET_BLOCK, block = below(blocks);
        uint64_t first = block * NPK_SET_BLOCK, size = npk_min_u64(NPK_SET_BLOCK, slot_count - first);
        uint64_t lsn = 50 + 7 * (uint64_t)i % 160 + 1000 * (uint64_t)(i % 2); /* unique in a block: i < 160; some below their runs */
        uint64_t chance = 1 + below(20);
        uint16_t *slots = malloc(2 * NPK_SET_BLOCK);
        ck_assert_ptr_nonnull(slots);
        uint64_t count = 0;
        for (uint64_t s = 0; s < size; s++)
            if (below(chance * 2) == 0)
                slots[count++] = (uint16_t)s;
        uint64_t rows = count + below(5);
        if (count) {
            uint8_t *data = NULL;
            npk_place over = random_source(row_size, &rows, &data);
            if (count > rows)
                count = rows;
            over.row = rows - count;
            put_set(block, lsn, over, slots, (uint32_t)count);
            for (uint64_t j = 0; j < count; j++) {
                uint64_t s = first + slots[j];
                if (lsn > m.lsn[s] || (m.overlay[s] && lsn == m.lsn[s])) {
                    m.lsn[s] = lsn;
                    m.overlay[s] = true;
                    m.pending[s] = over.kind != NPK_PLACE_COLUMN;
                    memcpy(m.slots + s * row_size, data + (over.row + j) * row_size, (size_t)row_size);
                }
            }
            free(data);
        }
        free(slots);
    }
    for (uint64_t slot = 0; slot < slot_count;) {
        uint64_t end = slot;
        while (end < slot_count && !dead[end])
            end++;
        if (end > slot) {
            uint64_t cut = end - slot > 2 && below(2) ? slot + 1 + below(end - slot - 1) : end; /* map runs may adjoin */
            put_map(m.row_count, slot, cut - slot);
            if (cut < end)
                put_map(m.row_count + (cut - slot), cut, end - cut);
        }
        for (; slot < end; slot++) {
            memcpy(m.rows + m.row_count * row_size, m.slots + slot * row_size, (size_t)row_size);
            m.row_slot[m.row_count++] = slot;
            m.pending_count += m.pending[slot];
            m.overlay_count += m.overlay[slot];
        }
        slot = end + 1;
    }
    free(dead);
    put_record(row_size, m.row_count, false);
    return m;
}

static void free_model(model *m)
{
    free(m->slots);
    free(m->lsn);
    free(m->pending);
    free(m->overlay);
    free(m->row_slot);
    free(m->rows);
}

static void compare_reads(const model *m, npk_array *array, unsigned rounds)
{
    uint64_t row_size = m->row_size;
    size_t capacity = (size_t)npk_max_u64(m->row_count * row_size, npk_min_u64(3000 * row_size, 6u << 20));
    uint8_t *out = malloc(capacity + 1);
    int64_t *rows = malloc(3000 * sizeof *rows);
    ck_assert(out && rows);
    npk_error err;
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t first = i ? below(m->row_count + 1) : 0, count = i ? below(m->row_count - first + 1) : m->row_count;
        if (i % 3 == 1)
            count = npk_min_u64(count, 5);
        memset(out, 0xee, (size_t)(count * row_size) + 1);
        npk_status status = i % 2 ? npk_array_read_checked(array, first, count, out, &err)
                                  : npk_array_read(array, first, count, out, &err);
        ck_assert_msg(status == NPK_OK, "%s", err.message);
        ck_assert_int_eq(memcmp(out, m->rows + first * row_size, (size_t)(count * row_size)), 0);
        ck_assert_uint_eq(out[count * row_size], 0xee);
        if (m->row_count == 0)
            continue;
        uint64_t wanted = i % 2 ? below(10) : 1 + below(npk_min_u64(3000, capacity / row_size)), run = 0;
        for (uint64_t j = 0; j < wanted; j++) { /* with stretches in order and duplicates */
            rows[j] = (int64_t)(run && (uint64_t)rows[j - 1] + 1 < m->row_count ? (uint64_t)rows[j - 1] + (run % 9 != 8)
                                                                                 : below(m->row_count));
            run = run ? run - 1 : below(4) ? 0 : below(30);
            if (j == 0)
                run = 0;
        }
        memset(out, 0xee, (size_t)npk_min_u64(capacity, wanted * row_size) + 1);
        if (wanted * row_size > capacity)
            continue;
        status = npk_array_gather(array, wanted, rows, out, &err);
        ck_assert_msg(status == NPK_OK, "%s", err.message);
        for (uint64_t j = 0; j < wanted; j++)
            ck_assert_msg(memcmp(out + j * row_size, m->rows + (uint64_t)rows[j] * row_size, (size_t)row_size) == 0,
                          "row %" PRId64 " at %" PRIu64, rows[j], j);
        ck_assert_uint_eq(out[wanted * row_size], 0xee);
    }
    free(rows);
    free(out);
}

static void compare_maps(const model *m, npk_array *array)
{
    for (unsigned i = 0; i < 10; i++) {
        uint64_t first = i < 2 ? 0 : below(m->row_count + 1), count = i < 2 ? m->row_count : below(m->row_count - first + 1);
        npk_region *region = NULL;
        npk_error err;
        ck_assert_msg(npk_array_map(array, first, count, i % 2 ? NPK_MAP_COPY_ON_WRITE : NPK_MAP_READ, &region, &err) == NPK_OK,
                      "%s", err.message);
        ck_assert_ptr_nonnull(npk_region_address(region));
        ck_assert_uint_eq(npk_region_size(region), count * m->row_size);
        ck_assert_int_eq(memcmp(npk_region_address(region), m->rows + first * m->row_size, (size_t)(count * m->row_size)), 0);
        if (i % 2)
            memset(npk_region_address(region), 0x55, npk_region_size(region));
        npk_region_release(region);
    }
    npk_region *region = NULL;
    ck_assert_int_eq(npk_array_load(array, &region, NULL), NPK_OK);
    ck_assert_uint_eq(npk_region_size(region), m->row_count * m->row_size);
    ck_assert_int_eq(memcmp(npk_region_address(region), m->rows, npk_region_size(region)), 0);
    if (npk_region_size(region))
        memset(npk_region_address(region), 0x55, npk_region_size(region));
    npk_region_release(region);
}

/* Rows that were changed on purpose are found, and no others. */
static void compare_changes(const model *m, npk_array *array, unsigned rounds)
{
    size_t size = (size_t)(m->row_count * m->row_size);
    uint8_t *now = malloc(size + 1);
    bool *changed = calloc((size_t)m->row_count + 1, sizeof *changed);
    int64_t *found = malloc((size_t)(m->row_count + 1) * sizeof *found);
    ck_assert(now && changed && found);
    memcpy(now, m->rows, size);
    for (unsigned i = 0; i < rounds; i++) {
        for (uint64_t j = i ? below(m->row_count / 4 + 2) : 0; m->row_count && j; j--) {
            uint64_t row = below(m->row_count);
            now[row * m->row_size + below(m->row_size)] ^= (uint8_t)(1 + below(255));
            changed[row] = memcmp(now + row * m->row_size, m->rows + row * m->row_size, (size_t)m->row_size) != 0;
        }
        uint64_t first = i < 2 ? 0 : below(m->row_count + 1), count = i < 2 ? m->row_count : below(m->row_count - first + 1);
        uint64_t found_count = 99, at = 0;
        npk_error err;
        npk_status status = npk_array_compare(array, first, count, now + first * m->row_size, found, &found_count, &err);
        ck_assert_msg(status == NPK_OK, "%s", err.message);
        for (uint64_t row = first; row < first + count; row++)
            if (changed[row]) {
                ck_assert_uint_lt(at, found_count);
                ck_assert_int_eq(found[at++], (int64_t)row);
            }
        ck_assert_uint_eq(at, found_count);
    }
    uint64_t found_count;
    ck_assert_int_eq(npk_array_compare(array, 1, m->row_count, now, found, &found_count, NULL), NPK_RANGE);
    free(now);
    free(changed);
    free(found);
}

static const struct {
    uint64_t row_size, slot_count, run_length;
    unsigned set_count, drop_count, seeds;
} shapes[] = {
    {8, 400, 30, 6, 5, 25},        {1, 3000, 500, 20, 0, 6},      {3, 500, 1, 10, 30, 4},   {100, 2000, 300, 0, 10, 8},
    {4, 200000, 30000, 30, 40, 2}, {8, 150000, 3000, 5, 3000, 2}, {70000, 30, 5, 4, 3, 5}, {300000, 12, 3, 3, 1, 4},
    {40, 20000, 20000, 3, 0, 6},
};

static void check_random_arrays(int shape)
{
    for (unsigned seed = 1; seed <= shapes[shape].seeds; seed++) {
        random_state = seed * 1000003 + (uint64_t)shape;
        model m = make_random(shapes[shape].row_size, shapes[shape].slot_count, shapes[shape].run_length, shapes[shape].set_count,
                              shapes[shape].drop_count);
        npk_array *array = build();
        const npk_array_info *info = npk_array_describe(array);
        ck_assert_uint_eq(info->row_count, m.row_count);
        ck_assert_uint_eq(info->pending_row_count, m.pending_count);
        ck_assert_uint_eq(info->pending_size, m.pending_count * m.row_size);
        ck_assert_uint_eq(array->overlay_count, m.overlay_count);
        bool patch = false, mappable = m.row_count && npk_array_is_mappable(array, 0, m.row_count, &patch);
        ck_assert_uint_eq(info->piece_count, array->piece_count + (mappable ? 0 : m.overlay_count));
        ck_assert(!mappable || patch == (m.overlay_count != 0));
        ck_assert_uint_eq(info->id, ARRAY_ID);
        /* The array stays as it is, whatever happens to names and index. */
        npk_kv_clear(kv);
        remove_all(directory);
        compare_reads(&m, array, 60);
        compare_maps(&m, array);
        compare_changes(&m, array, 6);
        npk_array_release(npk_array_retain(array));
        compare_reads(&m, array, 3);
        npk_array_release(array);
        npk_columns_forget(columns);
        free_model(&m);
    }
}

START_TEST(random_arrays_read_like_the_model)
{
    check_random_arrays(_i);
}
END_TEST

/* A file system without maps, or no memory for them. */
START_TEST(random_arrays_read_the_same_where_nothing_can_be_mapped)
{
    maps_fail = true;
    check_random_arrays(_i);
}
END_TEST

/* ---- single cases ---------------------------------------------------------------------------------------------------------- */

static uint8_t counting[4096 * 64];
static const uint8_t *count_bytes(uint8_t from)
{
    for (size_t i = 0; i < sizeof counting; i++)
        counting[i] = (uint8_t)(from + i);
    return counting;
}

START_TEST(neighbours_in_one_file_are_one_piece)
{
    npk_place place = column_place(count_bytes(0), 8, 100);
    put_record(8, 60, false);
    put_map(0, 0, 30); /* slots 30 .. 39 are dropped, and the file was written without them */
    put_map(30, 40, 30);
    for (uint64_t i = 0; i < 3; i++) {
        place.row = 10 + 10 * i;
        put_run(10 * i, 10, 5 + i, place);
    }
    place.row = 40;
    put_run(40, 30, 9, place);
    npk_array *array = build();
    ck_assert_uint_eq(array->piece_count, 1);
    ck_assert_uint_eq(array->pieces[0].lsn, 9);
    ck_assert_uint_eq(array->source_count, 1);
    npk_region *region = NULL;
    ck_assert_int_eq(npk_array_map(array, 0, 60, NPK_MAP_READ, &region, NULL), NPK_OK);
    ck_assert_int_eq(npk_region_is_mapped(region), 1);
    npk_array_release(array);
    remove_all(directory);
    ck_assert_int_eq(memcmp(npk_region_address(region), count_bytes(0) + 80, 480), 0); /* lives on its own */
    npk_region_release(region);
}
END_TEST

START_TEST(a_fold_replaces_what_it_read_and_newer_sets_win)
{
    const uint16_t slots[] = {1, 2, 3};
    npk_place fold = column_place(count_bytes(100), 1, 5);
    put_record(1, 5, false);
    put_map(0, 0, 5);
    put_run(0, 5, 199, fold);                                           /* read the state published at 200 */
    put_set(0, 150, log_place((const uint8_t *)"abc", 1, 3, false), slots, 3); /* went into it */
    put_set(0, 199, log_place((const uint8_t *)"xyz", 1, 3, false), slots, 1); /* equal: the run has it */
    put_set(0, 240, log_place((const uint8_t *)"ABC", 1, 3, false), slots + 1, 1);
    put_set(0, 220, log_place((const uint8_t *)"DEF", 1, 3, false), slots + 1, 2);
    npk_array *array = build();
    uint8_t out[6] = {0};
    ck_assert_int_eq(npk_array_read(array, 0, 5, out, NULL), NPK_OK);
    ck_assert_str_eq((char *)out, "\x64\x65"
                                  "AEh");
    ck_assert_uint_eq(array->info.pending_row_count, 2);
    ck_assert_uint_eq(array->info.piece_count, 3);
    npk_region *region = NULL;
    ck_assert_int_eq(npk_array_map(array, 0, 5, NPK_MAP_READ, &region, NULL), NPK_OK);
    ck_assert_int_eq(npk_region_is_mapped(region), 0);
    npk_region_release(region);
    ck_assert_int_eq(npk_array_map(array, 0, 2, NPK_MAP_READ, &region, NULL), NPK_OK);
    ck_assert_int_eq(npk_region_is_mapped(region), 1); /* no overlay row among these */
    npk_region_release(region);
    npk_array_release(array);
}
END_TEST

START_TEST(a_live_row_without_a_place_is_damage)
{
    npk_error err;
    bool missing = true;
    npk_place place = column_place(count_bytes(0), 8, 100);
    put_record(8, 50, false);
    put_map(0, 0, 50);
    put_run(0, 20, 5, place);
    ck_assert_int_eq(build_status(&missing, &err), NPK_CORRUPT);
    ck_assert(!missing);
    ck_assert_str_eq(err.message, "row 20 of array \"a\" has no place");
    ck_assert_int_eq(err.row, 20);
    ck_assert_str_eq(err.array, "a");
    put_run(21, 29, 5, place);
    ck_assert_int_eq(build_status(&missing, &err), NPK_CORRUPT);
    ck_assert_int_eq(err.row, 20);
    put_run(19, 2, 5, place); /* overlaps both */
    ck_assert_int_eq(build_status(&missing, &err), NPK_CORRUPT);
    ck_assert_ptr_nonnull(strstr(err.message, "overlap"));
}
END_TEST

START_TEST(an_index_that_cannot_be_is_refused)
{
    npk_error err;
    bool missing;
    npk_place place = column_place(count_bytes(0), 8, 100);
    ck_assert_int_eq(build_status(&missing, &err), NPK_NOT_FOUND);
    ck_assert(!missing);
    ck_assert_str_eq(err.message, "there is no array \"a\"");
    put_record(8, 50, false);
    ck_assert_int_eq(build_status(&missing, &err), NPK_CORRUPT); /* no map */
    put_map(0, 0, 40);
    ck_assert_int_eq(build_status(&missing, &err), NPK_CORRUPT); /* too short a map */
    put_map(40, 30, 10);
    ck_assert_int_eq(build_status(&missing, &err), NPK_CORRUPT); /* slots go back */
    put_map(40, 60, 10);
    place.row = 31; /* rows 31 .. 101 of 100 */
    put_run(0, 70, 1, place);
    ck_assert_int_eq(build_status(&missing, &err), NPK_CORRUPT);
    ck_assert_ptr_nonnull(strstr(err.message, "behind the end"));
    place.row = 30;
    put_run(0, 70, 1, place);
    ck_assert_int_eq(build_status(&missing, &err), NPK_OK);
    put_record(4, 50, false);
    ck_assert_int_eq(build_status(&missing, &err), NPK_CORRUPT); /* rows of another size */
    put_record(8, 50, false);
    place.container ^= 1;
    put_run(0, 70, 1, place);
    ck_assert_int_eq(build_status(&missing, &err), NPK_CORRUPT); /* a file the index does not know */
    ck_assert(!missing);
    place.container ^= 1;
    put_run(0, 70, 1, place);
    npk_columns_forget(columns);
    remove_all(directory);
    ck_assert_int_eq(build_status(&missing, &err), NPK_NOT_FOUND);
    ck_assert(missing);
    place = (npk_place){NPK_PLACE_SEGMENT, 999, 4096, 64, 0};
    put_run(0, 70, 1, place);
    missing = false;
    ck_assert_int_ne(build_status(&missing, &err), NPK_OK);
    ck_assert(missing);
    place = log_place(count_bytes(0), 8, 100, false);
    place.row = (uint64_t)1 << 61; /* times 8 bytes: 0 again */
    put_run(0, 70, 1, place);
    ck_assert_int_eq(build_status(&missing, &err), NPK_CORRUPT);
    ck_assert_ptr_nonnull(strstr(err.message, "behind the end of log segment"));
    place.row = 0;
    place.record_offset = INT64_MAX;
    put_run(0, 70, 1, place);
    ck_assert_int_eq(build_status(&missing, &err), NPK_CORRUPT);
}
END_TEST

START_TEST(arrays_without_bytes_read_as_nothing)
{
    npk_region *region = NULL;
    int64_t rows[2] = {4, 5};
    char byte = 'x';
    put_record(0, 5, false); /* a tail dimension is 0 */
    npk_array *array = build();
    ck_assert_uint_eq(array->info.piece_count, 0);
    ck_assert_int_eq(npk_array_read(array, 0, 5, &byte, NULL), NPK_OK);
    ck_assert_int_eq(npk_array_read(array, 3, 3, &byte, NULL), NPK_RANGE);
    ck_assert_int_eq(npk_array_gather(array, 1, rows, &byte, NULL), NPK_OK);
    ck_assert_int_eq(npk_array_gather(array, 2, rows, &byte, NULL), NPK_RANGE);
    ck_assert_int_eq(npk_array_load(array, &region, NULL), NPK_OK);
    ck_assert_ptr_nonnull(npk_region_address(region));
    ck_assert_uint_eq(npk_region_size(region), 0);
    npk_region_release(region);
    npk_array_release(array);
    put_record(8, 0, false);
    array = build();
    ck_assert_int_eq(npk_array_read(array, 0, 0, &byte, NULL), NPK_OK);
    ck_assert_int_eq(npk_array_gather(array, 0, rows, &byte, NULL), NPK_OK);
    ck_assert_int_eq(npk_array_gather(array, 1, rows, &byte, NULL), NPK_RANGE);
    ck_assert_int_eq(npk_array_map(array, 0, 0, NPK_MAP_READ, &region, NULL), NPK_OK);
    ck_assert_ptr_nonnull(npk_region_address(region));
    npk_region_release(region);
    npk_array_release(array);
    ck_assert_int_eq(byte, 'x');
    npk_region_release(NULL);
    npk_array_release(NULL);
}
END_TEST

START_TEST(a_scalar_is_one_row)
{
    double value = 2.5, out = 0;
    put_record(8, 1, true);
    put_map(0, 0, 1);
    put_run(0, 1, 5, log_place((const uint8_t *)&value, 8, 1, false));
    npk_array *array = build();
    ck_assert_int_eq(npk_array_describe(array)->zero_dim, 1);
    ck_assert_int_eq(npk_array_read(array, 0, 1, &out, NULL), NPK_OK);
    ck_assert_double_eq(out, 2.5);
    npk_array_release(array);
    npk_error err;
    bool missing;
    put_record(8, 2, true);
    ck_assert_int_eq(build_status(&missing, &err), NPK_CORRUPT);
}
END_TEST

START_TEST(errors_name_array_and_row)
{
    npk_error err;
    uint8_t out[800];
    put_record(8, 100, false);
    put_map(0, 0, 100);
    put_run(0, 100, 5, column_place(count_bytes(0), 8, 100));
    npk_array *array = build();
    int64_t rows[] = {3, -1}, far[] = {3, 100};
    ck_assert_int_eq(npk_array_gather(array, 2, rows, out, &err), NPK_RANGE);
    ck_assert_str_eq(err.message, "row -1 is not in array \"a\" of 100 rows");
    ck_assert_int_eq(err.row, -1);
    ck_assert_str_eq(err.array, "a");
    ck_assert_int_eq(npk_array_gather(array, 2, far, out, &err), NPK_RANGE);
    ck_assert_int_eq(err.row, 100);
    ck_assert_int_eq(npk_array_read(array, 90, 11, out, &err), NPK_RANGE);
    ck_assert_int_eq(npk_array_read(array, 101, 0, out, &err), NPK_RANGE);
    ck_assert_int_eq(npk_array_read(array, 1, UINT64_MAX, out, &err), NPK_RANGE);
    npk_region *region = NULL;
    ck_assert_int_eq(npk_array_map(array, 100, 1, NPK_MAP_READ, &region, &err), NPK_RANGE);
    ck_assert_int_eq(npk_array_map(array, 0, 1, (npk_map_mode)7, &region, &err), NPK_INVALID);
    npk_array_release(array);
}
END_TEST

static int note_name(void *context, const char *name) /* of the only segment */
{
    (void)snprintf(context, 64, "%s", name);
    return 0;
}

/* A flipped byte in the log: folds see it, whatever lies over it. */
START_TEST(checked_reads_find_damage_in_the_log)
{
    uint8_t zeros[80000] = {0}, out[160000];
    put_record(8, 20000, false);
    put_map(0, 0, 20000);
    put_run(0, 10000, 5, column_place(zeros, 8, 10000));
    npk_place packed = log_place(zeros, 8, 10000, true), raw = log_place(count_bytes(3), 8, 1, false);
    ck_assert_uint_eq(packed.kind, NPK_PLACE_PACKED);
    put_run(10000, 10000, 6, packed);
    const uint16_t slots[] = {777};
    put_set(0, 9, raw, slots, 1);
    npk_array *array = build();
    ck_assert_int_eq(npk_array_read_checked(array, 0, 20000, out, NULL), NPK_OK);
    char name[64] = "";
    npk_file *file = NULL;
    ck_assert_int_eq(io->list(io, wal_directory, note_name, name), 0);
    ck_assert_int_eq(io->open(io, wal_directory, name, NPK_OPEN_WRITE, &file), 0);
    uint8_t byte;
    npk_error err;
    for (unsigned i = 0; i < 2; i++) {
        npk_place at = i ? packed : raw;
        uint64_t offset = at.record_offset + at.data_delta + 2;
        ck_assert_int_eq(npk_io_read_full(io, file, offset, &byte, 1, NULL, name, NULL), NPK_OK);
        byte ^= 4;
        ck_assert_int_eq(npk_io_write_full(io, file, offset, &byte, 1, name, NULL), NPK_OK);
        ck_assert_int_eq(npk_array_read_checked(array, 0, 20000, out, &err), NPK_CORRUPT);
        ck_assert_str_eq(err.array, "a");
        ck_assert_int_eq(err.row, i ? 10000 : 777);
        ck_assert_ptr_nonnull(strstr(err.message, i ? "read rows 10000 .. 20000 of array \"a\": "
                                                    : "read row 777 of array \"a\": "));
        byte ^= 4;
        ck_assert_int_eq(npk_io_write_full(io, file, offset, &byte, 1, name, NULL), NPK_OK);
    }
    io->close(io, file);
    npk_array_release(array);
}
END_TEST

/* A set may lie behind row 2^32 of a column file (a sparse one here). */
START_TEST(sets_far_behind_in_a_file_are_found)
{
    const uint64_t far = UINT32_MAX, row_count = far + 10;
    const uint64_t id = 0xabcdef;
    npk_column_spec spec = {"|u1", 1, 0, NULL, false};
    npk_buffer header;
    npk_buffer_init(&header);
    ck_assert(npk_column_header_encode(&spec, row_count, id, uuid, &header));
    char name[NPK_COLUMN_NAME_SIZE];
    npk_column_name(name, id, true);
    npk_file *file = NULL;
    ck_assert_int_eq(io->open(io, directory, name, NPK_OPEN_WRITE | NPK_OPEN_CREATE, &file), 0);
    ck_assert_int_eq(npk_io_write_full(io, file, 0, header.data, header.size, name, NULL), NPK_OK);
    ck_assert_int_eq(npk_io_write_full(io, file, header.size + far - 1, "0123456789a", 11, name, NULL), NPK_OK);
    io->close(io, file);
    npk_container container = {1, 0, header.size + row_count, row_count, 1, header.size, 0};
    ck_assert_int_eq(npk_catalog_put_container(kv, NPK_CONTAINER_COLUMN, id, &container, NULL), NPK_OK);
    npk_buffer_release(&header);
    const uint16_t slots[] = {1, 3, 4};
    put_record(1, 5, false);
    put_map(0, 0, 5);
    put_run(0, 5, 1, log_place((const uint8_t *)"abcde", 1, 5, false));
    put_set(0, 2, (npk_place){NPK_PLACE_COLUMN, id, 0, 0, far - 1}, slots, 3);
    npk_array *array = build();
    char out[6] = "";
    int64_t rows[] = {4, 3, 2, 1, 0};
    ck_assert_int_eq(npk_array_read(array, 0, 5, out, NULL), NPK_OK);
    ck_assert_str_eq(out, "a0c12");
    ck_assert_int_eq(npk_array_gather(array, 5, rows, out, NULL), NPK_OK);
    ck_assert_str_eq(out, "21c0a");
    npk_array_release(array);
}
END_TEST

static npk_column *view;
static npk_column *find_unfinished(void *context, uint64_t id)
{
    return id == *(uint64_t *)context ? npk_column_retain(view) : NULL;
}

START_TEST(a_transaction_reads_its_unfinished_file)
{
    uint64_t row_size = 8;
    npk_column_spec spec = {"|u1", row_size, 1, &row_size, false};
    npk_column_writer *writer = NULL;
    ck_assert_int_eq(npk_column_create(io, directory, uuid, &spec, 0, true, &writer, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_append(writer, count_bytes(9), 50, NULL), NPK_OK);
    ck_assert_int_eq(npk_column_writer_view(writer, &view, NULL), NPK_OK);
    uint64_t id = npk_column_writer_id(writer);
    put_record(8, 50, false);
    put_map(0, 0, 50);
    put_run(0, 50, 1, (npk_place){NPK_PLACE_COLUMN, id, 0, 0, 0});
    sources.unfinished = find_unfinished;
    sources.context = &id;
    npk_array *array = build();
    npk_column_discard(writer);
    npk_column_release(view);
    uint8_t out[400];
    ck_assert_int_eq(npk_array_read(array, 0, 50, out, NULL), NPK_OK);
    ck_assert_int_eq(memcmp(out, counting, 400), 0);
    npk_array_release(array);
}
END_TEST

/* ---- regions ------------------------------------------------------------------------------------------------------------------- */

/* Can the kernel write there? Without a signal. */
static bool is_writable(void *address)
{
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(write(ends[1], "x", 1), 1);
    bool writable = read(ends[0], address, 1) == 1;
    (void)close(ends[0]);
    (void)close(ends[1]);
    return writable;
}

START_TEST(map_modes_are_what_they_say)
{
    put_record(64, 4000, false);
    put_map(0, 0, 4000);
    put_run(0, 2000, 1, column_place(count_bytes(0), 64, 2000));
    put_run(2000, 2000, 1, log_place(count_bytes(0), 64, 2000, false));
    npk_array *array = build();
    for (unsigned i = 0; i < 4; i++) {
        npk_region *region = NULL, *again = NULL;
        uint64_t first = i / 2 ? 1500 : 10, count = 1000;
        ck_assert_int_eq(npk_array_map(array, first, count, i % 2 ? NPK_MAP_COPY_ON_WRITE : NPK_MAP_READ, &region, NULL), NPK_OK);
        ck_assert_int_eq(npk_region_is_mapped(region), i / 2 == 0);
        ck_assert_int_eq(is_writable(npk_region_address(region)), i % 2);
        ck_assert_int_eq(npk_array_map(array, first, count, NPK_MAP_READ, &again, NULL), NPK_OK);
        ck_assert_int_eq(*(uint8_t *)npk_region_address(again), (uint8_t)(first * 64)); /* never written back */
        npk_region_release(region);
        npk_region_release(again);
    }
    npk_array_release(array);
}
END_TEST

#define PATCHED_ROWS 20000u /* of 40 bytes: 196 pages, so that 19 of them may be patched */

/* Rows in one file, some of them newer in a set of each kind of place; expected: what they are then. Each set has set_size rows, all on other
 * pages. */
static npk_array *make_patched(uint8_t *expected, unsigned set_size)
{
    uint8_t *rows = malloc(PATCHED_ROWS * 40);
    ck_assert_ptr_nonnull(rows);
    fill_random(rows, PATCHED_ROWS * 40);
    put_record(40, PATCHED_ROWS, false);
    put_map(0, 0, PATCHED_ROWS);
    put_run(0, PATCHED_ROWS, 1, column_place(rows, 40, PATCHED_ROWS));
    memcpy(expected, rows, PATCHED_ROWS * 40);
    uint16_t slots[100];
    for (unsigned kind = 0; kind < 3; kind++) {
        for (unsigned i = 0; i < set_size; i++)
            slots[i] = (uint16_t)(kind * 300 + i * 1500 + 102); /* row 102 lies on two pages */
        memset(rows, 0, 40 * 200); /* packs well */
        for (unsigned i = 0; i < set_size; i++)
            rows[i * 40] = (uint8_t)(100 + kind * 20 + i);
        npk_place place = kind == 0 ? column_place(rows, 40, 200) : log_place(rows, 40, 200, kind == 1);
        ck_assert_int_eq(place.kind, kind == 0 ? NPK_PLACE_COLUMN : kind == 1 ? NPK_PLACE_PACKED : NPK_PLACE_SEGMENT);
        put_set(0, 2 + kind, place, slots, set_size);
        for (unsigned i = 0; i < set_size; i++)
            memcpy(expected + slots[i] * 40, rows + i * 40, 40);
    }
    free(rows);
    return build();
}

START_TEST(a_few_rows_are_patched_into_the_map)
{
    uint8_t *expected = malloc(PATCHED_ROWS * 40);
    ck_assert_ptr_nonnull(expected);
    npk_array *array = make_patched(expected, 5);
    ck_assert_uint_eq(npk_array_describe(array)->piece_count, 1);
    npk_region *views[4];
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_int_eq(npk_array_map(array, 0, PATCHED_ROWS, i % 2 ? NPK_MAP_COPY_ON_WRITE : NPK_MAP_READ, &views[i], NULL), NPK_OK);
        ck_assert_int_eq(npk_region_is_mapped(views[i]), 1);
        ck_assert_int_eq(memcmp(npk_region_address(views[i]), expected, PATCHED_ROWS * 40), 0);
        for (unsigned at = 0; at < PATCHED_ROWS * 40; at += 4000) /* patched pages and others */
            ck_assert_int_eq(is_writable((uint8_t *)npk_region_address(views[i]) + at), i % 2);
    }
    ck_assert_uint_eq(npk_array_unpacked_size(), 5 * 40); /* unpacked once, kept until release */
    memset(npk_region_address(views[3]), 0x55, PATCHED_ROWS * 40);
    /* Nothing that happens to array, files, log and other views changes what was given out. */
    npk_array_release(array);
    npk_kv_clear(kv);
    remove_all(directory);
    remove_all(wal_directory);
    npk_columns_forget(columns);
    npk_wal_forget_segments(wal);
    npk_region_release(views[3]);
    ck_assert_int_eq(memcmp(npk_region_address(views[0]), expected, PATCHED_ROWS * 40), 0);
    ck_assert_int_eq(memcmp(npk_region_address(views[2]), expected, PATCHED_ROWS * 40), 0);
    for (unsigned i = 0; i < 3; i++)
        npk_region_release(views[i]);
    free(expected);
}
END_TEST

START_TEST(many_rows_over_a_file_are_copied)
{
    uint8_t *expected = malloc(PATCHED_ROWS * 40);
    ck_assert_ptr_nonnull(expected);
    npk_array *array = make_patched(expected, 12);
    ck_assert_uint_eq(npk_array_describe(array)->piece_count, 1 + array->overlay_count);
    npk_region *region = NULL;
    ck_assert_int_eq(npk_array_map(array, 0, PATCHED_ROWS, NPK_MAP_READ, &region, NULL), NPK_OK);
    ck_assert_int_eq(npk_region_is_mapped(region), 0);
    ck_assert_int_eq(memcmp(npk_region_address(region), expected, PATCHED_ROWS * 40), 0);
    npk_region_release(region);
    ck_assert_int_eq(npk_array_map(array, 19000, 1000, NPK_MAP_READ, &region, NULL), NPK_OK); /* where nothing lies over the file */
    ck_assert_int_eq(npk_region_is_mapped(region), 1);
    npk_region_release(region);
    npk_array_release(array);
    free(expected);
}
END_TEST

START_TEST(a_map_that_fails_leaves_a_copy_or_an_error)
{
    uint8_t *expected = malloc(PATCHED_ROWS * 40);
    ck_assert_ptr_nonnull(expected);
    npk_array *array = make_patched(expected, 5);
    npk_region *region = NULL;
    npk_error err = {.row = -1};
    int before = map_count;
    protection_fails = true;
    ck_assert_int_eq(npk_array_map(array, 0, PATCHED_ROWS, NPK_MAP_READ, &region, &err), NPK_NO_MEMORY);
    ck_assert_ptr_nonnull(strstr(err.message, "read-only"));
    ck_assert_ptr_null(region);
    ck_assert_int_eq(map_count, before + 2); /* of the log and of a file, for single rows */
    ck_assert_int_eq(npk_array_map(array, 0, PATCHED_ROWS, NPK_MAP_COPY_ON_WRITE, &region, &err), NPK_OK);
    npk_region_release(region);
    protection_fails = false;
    maps_fail = true;
    ck_assert_int_eq(npk_array_map(array, 0, PATCHED_ROWS, NPK_MAP_READ, &region, &err), NPK_OK);
    ck_assert_int_eq(npk_region_is_mapped(region), 0);
    ck_assert_int_eq(memcmp(npk_region_address(region), expected, PATCHED_ROWS * 40), 0);
    npk_region_release(region);
    npk_array_release(array);
    free(expected);
}
END_TEST

/* What the device cannot read is an error of a read, and a signal where it is mapped. */
START_TEST(whole_loads_and_reads_map_no_file)
{
    uint8_t *expected = malloc(PATCHED_ROWS * 40), *out = malloc(PATCHED_ROWS * 40);
    ck_assert(expected && out);
    npk_array *array = make_patched(expected, 12);
    file_map_calls = 0;
    npk_region *region = NULL;
    ck_assert_int_eq(npk_array_load(array, &region, NULL), NPK_OK);
    ck_assert_int_eq(memcmp(npk_region_address(region), expected, PATCHED_ROWS * 40), 0);
    npk_region_release(region);
    ck_assert_int_eq(npk_array_read(array, 50, PATCHED_ROWS - 50, out, NULL), NPK_OK);
    ck_assert_int_eq(memcmp(out, expected + 50 * 40, (PATCHED_ROWS - 50) * 40), 0);
    ck_assert_int_eq(file_map_calls, 0);
    npk_array_release(array);
    free(expected);
    free(out);
}
END_TEST

START_TEST(load_memory_is_used_again)
{
    uint64_t rows = 40000, blocks, size;
    uint8_t *bytes = malloc((size_t)rows * 100);
    ck_assert_ptr_nonnull(bytes);
    memset(bytes, 3, (size_t)rows * 100);
    put_record(100, rows, false);
    put_map(0, 0, rows);
    put_run(0, rows, 1, column_place(bytes, 100, rows));
    npk_array *array = build();
    npk_region *a = NULL, *b = NULL;
    npk_region_trim(UINT64_MAX);
    ck_assert_int_eq(npk_array_load(array, &a, NULL), NPK_OK);
    ck_assert(is_writable(npk_region_address(a)));
    void *address = npk_region_address(a);
    memset(address, 9, npk_region_size(a));
    npk_region_release(a);
    npk_region_idle(&blocks, &size);
    ck_assert_uint_eq(blocks, 1);
    ck_assert_uint_eq(size, 4u << 20);
    ck_assert_int_eq(npk_array_load(array, &a, NULL), NPK_OK);
    ck_assert_ptr_eq(npk_region_address(a), address);
    ck_assert_int_eq(memcmp(npk_region_address(a), bytes, (size_t)rows * 100), 0);
    ck_assert_int_eq(npk_array_load(array, &b, NULL), NPK_OK);
    ck_assert_ptr_ne(npk_region_address(a), npk_region_address(b));
    npk_region_release(a);
    npk_region_release(b);
    npk_region_idle(&blocks, &size);
    ck_assert_uint_eq(blocks, 2);
    uint64_t now = io->monotonic_us(io);
    npk_region_trim(now);
    npk_region_idle(&blocks, &size);
    ck_assert_uint_eq(blocks, 2);
    npk_region_trim(now + 2 * NPK_REGION_IDLE_US);
    npk_region_idle(&blocks, &size);
    ck_assert_uint_eq(blocks, 0);
    ck_assert_uint_eq(size, 0);
    npk_region *many[20];
    for (unsigned i = 0; i < 20; i++)
        ck_assert_int_eq(npk_array_load(array, &many[i], NULL), NPK_OK);
    for (unsigned i = 0; i < 20; i++)
        npk_region_release(many[i]);
    npk_region_idle(&blocks, &size);
    ck_assert_uint_eq(blocks, 8); /* bounded */
    /* Read-only memory never comes back as load memory. */
    npk_region_trim(UINT64_MAX);
    npk_array_release(array);
    put_run(0, rows / 2, 1, column_place(bytes, 100, rows));
    put_run(rows / 2, rows / 2, 1, column_place(bytes, 100, rows));
    array = build();
    ck_assert_int_eq(npk_array_map(array, 0, rows, NPK_MAP_READ, &a, NULL), NPK_OK);
    ck_assert_int_eq(npk_region_is_mapped(a), 0);
    ck_assert(!is_writable(npk_region_address(a)));
    npk_region_release(a);
    npk_region_idle(&blocks, &size);
    ck_assert_uint_eq(blocks, 0);
    npk_array_release(array);
    free(bytes);
}
END_TEST

START_TEST(large_loads_are_shared_by_threads_and_whole)
{
    uint64_t rows = 1000003; /* 40 MB, not a multiple of anything */
    uint32_t *bytes = malloc((size_t)rows * 40);
    ck_assert_ptr_nonnull(bytes);
    for (uint64_t i = 0; i < rows * 10; i++)
        bytes[i] = (uint32_t)(i * 2654435761u);
    put_record(40, rows, false);
    put_map(0, 0, rows);
    put_run(0, rows, 1, column_place((const uint8_t *)bytes, 40, rows));
    npk_array *array = build();
    npk_region *region = NULL;
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(npk_array_load(array, &region, NULL), NPK_OK);
        ck_assert_int_eq(memcmp(npk_region_address(region), bytes, (size_t)rows * 40), 0);
        memset(npk_region_address(region), 1, npk_region_size(region));
        npk_region_release(region);
    }
    npk_array_release(array);
    free(bytes);
}
END_TEST

typedef struct reader {
    const model *m;
    npk_array *array;
    uint64_t seed;
    bool wrong;
} reader;

static void *read_rows(void *context)
{
    reader *r = context;
    int64_t rows[500];
    uint8_t out[500 * 8];
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 500; i++)
            rows[i] = (int64_t)((r->seed = r->seed * 6364136223846793005u + 1442695040888963407u) >> 20) %
                      (int64_t)r->m->row_count;
        if (npk_array_gather(r->array, 500, rows, out, NULL) != NPK_OK)
            r->wrong = true;
        for (unsigned i = 0; i < 500; i++)
            r->wrong |= memcmp(out + i * 8, r->m->rows + rows[i] * 8, 8) != 0;
        npk_region *region = NULL;
        if (npk_array_load(r->array, &region, NULL) != NPK_OK)
            r->wrong = true;
        else
            r->wrong |= memcmp(npk_region_address(region), r->m->rows, npk_region_size(region)) != 0;
        npk_region_release(region);
    }
    npk_array_release(r->array);
    return NULL;
}

START_TEST(threads_share_an_array)
{
    random_state = 99;
    model m = make_random(8, 200000, 20000, 4, 3); /* above 1 MiB: recycled blocks too */
    npk_array *array = build();
    reader readers[4];
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++) {
        readers[i] = (reader){&m, npk_array_retain(array), i, false};
        ck_assert_int_eq(npk_thread_start(&threads[i], read_rows, &readers[i]), 0);
    }
    npk_array_release(array);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        ck_assert(!readers[i].wrong);
    }
    free_model(&m);
}
END_TEST

/* ---- memory that runs out --------------------------------------------------------------------------------------------------------- */

static int allocations_left;
static int fail_late(void *context, size_t size)
{
    (void)context;
    (void)size;
    return __atomic_fetch_sub(&allocations_left, 1, __ATOMIC_RELAXED) == 0;
}

START_TEST(every_failed_allocation_is_survived)
{
    random_state = 12345;
    model m = make_random(8, 400, 20, 4, 3);
    ck_assert_int_eq(npk_wal_write(wal, NULL), NPK_OK);
    uint8_t key[NPK_KEY_MAX], text[3000] = {1};
    ck_assert_int_eq(npk_kv_put(kv, NPK_TABLE_ATTRS, key, npk_key_attr(key, ARRAY_ID, "unit", 4), text, sizeof text, NULL), NPK_OK);
    int64_t rows[300];
    for (unsigned i = 0; i < 300; i++)
        rows[i] = (int64_t)below(m.row_count);
    for (int n = 0;; n++) {
        npk_array *array = NULL;
        npk_region *region = NULL;
        bool missing = false;
        uint8_t out[300 * 8];
        npk_columns_forget(columns);
        npk_wal_forget_segments(wal);
        allocations_left = n;
        npk_alloc_set_hook(fail_late, NULL);
        npk_status status = npk_array_build(kv, "a", &sources, &array, &missing, NULL);
        if (status == NPK_OK)
            status = npk_array_gather(array, 300, rows, out, NULL);
        if (status == NPK_OK)
            status = npk_array_load(array, &region, NULL);
        npk_alloc_set_hook(NULL, NULL);
        if (status == NPK_OK) {
            ck_assert_int_eq(memcmp(npk_region_address(region), m.rows, npk_region_size(region)), 0);
            for (unsigned i = 0; i < 300; i++)
                ck_assert_int_eq(memcmp(out + i * 8, m.rows + rows[i] * 8, 8), 0);
        }
        npk_region_release(region);
        npk_array_release(array);
        if (status == NPK_OK && allocations_left > 0)
            break;
        ck_assert(status == NPK_OK || status == NPK_NO_MEMORY); /* OK: what failed was not needed */
        ck_assert_int_lt(n, 5000);
    }
    free_model(&m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("array");
    TCase *tests = tcase_create("reading");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, random_arrays_read_like_the_model, 0, (int)(sizeof shapes / sizeof shapes[0]));
    tcase_add_loop_test(tests, random_arrays_read_the_same_where_nothing_can_be_mapped, 0,
                        (int)(sizeof shapes / sizeof shapes[0]));
    tcase_add_test(tests, neighbours_in_one_file_are_one_piece);
    tcase_add_test(tests, a_fold_replaces_what_it_read_and_newer_sets_win);
    tcase_add_test(tests, a_live_row_without_a_place_is_damage);
    tcase_add_test(tests, an_index_that_cannot_be_is_refused);
    tcase_add_test(tests, arrays_without_bytes_read_as_nothing);
    tcase_add_test(tests, a_scalar_is_one_row);
    tcase_add_test(tests, errors_name_array_and_row);
    tcase_add_test(tests, checked_reads_find_damage_in_the_log);
    tcase_add_test(tests, sets_far_behind_in_a_file_are_found);
    tcase_add_test(tests, a_transaction_reads_its_unfinished_file);
    tcase_add_test(tests, map_modes_are_what_they_say);
    tcase_add_test(tests, a_few_rows_are_patched_into_the_map);
    tcase_add_test(tests, many_rows_over_a_file_are_copied);
    tcase_add_test(tests, a_map_that_fails_leaves_a_copy_or_an_error);
    tcase_add_test(tests, whole_loads_and_reads_map_no_file);
    tcase_add_test(tests, load_memory_is_used_again);
    tcase_add_test(tests, large_loads_are_shared_by_threads_and_whole);
    tcase_add_test(tests, every_failed_allocation_is_survived);
    suite_add_tcase(suite, tests);
    TCase *shared = tcase_create("threads");
    tcase_add_checked_fixture(shared, setup, teardown);
    tcase_set_timeout(shared, 300);
    tcase_add_test(shared, threads_share_an_array);
    suite_add_tcase(suite, shared);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
