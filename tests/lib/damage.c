/* damage.c - stores made to be damaged, and every way to damage one of their files. */
#include "damage.h"

#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bytes.h"
#include "checksum.h"
#include "memory_disk.h"

static const char *const kind_names[DAMAGE_KIND_COUNT] = {"flip", "zeros", "ones", "garbage", "stale", "foreign", "swap",
                                                          "smear", "wipe", "cut", "grow", "remove", "exchange", "unproven", "several"};

const char *damage_kind_name(damage_kind kind)
{
    return kind_names[kind];
}

/* ---- making stores ------------------------------------------------------------------------------------------------------- */

typedef struct maker {
    damage_store *to;
    memory_io *memory;
    npk_store *store;
    rng random;
    int moments;
    npk_error err;
} maker;

static void must(maker *m, npk_status status, const char *what)
{
    ck_assert_msg(status == NPK_OK, "store \"%s\": %s: %s", m->to->name, what, m->err.message);
}

static void open_store(maker *m)
{
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE, .no_background = 1, .segment_size = 64 << 10,
                           .bulk_size = 24 << 10, .io = memory_io_table(m->memory)};
    must(m, npk_store_open(DAMAGE_ROOT, &options, &m->store, &m->err), "open");
}

/* Append count rows to array i, random ones or such that compress; the array is made when it is not there. */
static void append(maker *m, model *now, npk_txn *txn, int i, uint64_t row_size, uint64_t count, bool packs)
{
    model_array *array = &now->arrays[i];
    bool fresh = !array->name[0];
    size_t old = fresh ? 0 : array->row_size * array->row_count, size = row_size * count;
    array->rows = memory_resize(array->rows, old + size);
    for (size_t at = 0; at < size; at++)
        array->rows[old + at] = (uint8_t)(packs ? at / 97 + count : rng_next(&m->random));
    (void)snprintf(array->name, sizeof array->name, "array %d", i);
    array->row_size = row_size;
    array->row_count = (fresh ? 0 : array->row_count) + count;
    npk_array_spec spec = {"|u1", row_size, 1, &row_size, 0};
    must(m, fresh ? npk_txn_save(txn, array->name, &spec, count, array->rows, &m->err)
                  : npk_txn_append(txn, array->name, count, array->rows + old, &m->err), "append");
}

/* What the log files hold now, as far as the list is known at the end: see take_older. */
static uint8_t *read_file(memory_io *memory, const char *path, uint64_t *size)
{
    const npk_io *io = memory_io_table(memory);
    npk_file *root = NULL, *directory = NULL, *file = NULL;
    char name[64];
    const char *slash = strchr(path, '/');
    ck_assert_int_eq(io->open_root(io, DAMAGE_ROOT, false, &root, NULL), 0);
    int rc = 0;
    if (slash) {
        (void)snprintf(name, sizeof name, "%.*s", (int)(slash - path), path);
        rc = io->open(io, root, name, NPK_OPEN_READ | NPK_OPEN_DIRECTORY, &directory);
    }
    if (!rc)
        rc = io->open(io, slash ? directory : root, slash ? slash + 1 : path, NPK_OPEN_READ, &file);
    uint8_t *bytes = NULL;
    npk_file_info info = {0};
    if (!rc && io->info(io, file, &info) == 0) {
        size_t done = 0;
        bytes = memory_alloc(info.size);
        ck_assert_int_eq(npk_io_read_full(io, file, 0, bytes, info.size, &done, path, NULL), NPK_OK);
    }
    *size = info.size;
    io->close(io, file);
    io->close(io, directory);
    io->close(io, root);
    return bytes;
}

static void commit(maker *m, npk_txn *txn, const model *now)
{
    npk_position position;
    must(m, npk_txn_commit(txn, m->to->is_synced ? NPK_SYNC_COMMIT : NPK_SYNC_NEVER, &position, &m->err), "commit");
    damage_store *to = m->to;
    ck_assert_int_lt(++to->newest, DAMAGE_HISTORY);
    model_copy(&to->history[to->newest], now);
    to->ends[to->newest] = position.lsn;
}

typedef void fill(maker *m, model *now, npk_txn *txn);

static void transact(maker *m, fill *run)
{
    npk_txn *txn = NULL;
    model now;
    model_init(&now);
    model_copy(&now, &m->to->history[m->to->newest]);
    must(m, npk_txn_begin(m->store, UINT32_MAX, &txn, &m->err), "begin");
    run(m, &now, txn);
    commit(m, txn, &now);
    model_release(&now);
}

static void random_steps(maker *m, model *now, npk_txn *txn)
{
    for (int i = 0; i < 3; i++)
        must(m, model_step(now, txn, &m->random, false, &m->err), "step");
}

static void some_rows(maker *m, model *now, npk_txn *txn)
{
    append(m, now, txn, 6, 8, 20, false);
    append(m, now, txn, 5, 300, 30, true);
    append(m, now, txn, 7, 1000, 7, false);
}

static void bulk_rows(maker *m, model *now, npk_txn *txn)
{
    append(m, now, txn, 3, 4096, 18, false); /* two blocks of checksums in one file */
    append(m, now, txn, 4, 24, 1200, true);
}

/* Several sectors of one record, so that no single damage takes both this transaction and what proves the one before. */
static void last_rows(maker *m, model *now, npk_txn *txn)
{
    append(m, now, txn, 7, 1000, 3, false);
}

/* The file of this path, a new one if it was not listed. */
static damage_file *find_file(damage_store *to, const char *path)
{
    size_t i = 0;
    while (i < to->file_count && strcmp(to->files[i].path, path) != 0)
        i++;
    if (i == to->file_count) {
        to->files = memory_resize(to->files, (i + 1) * sizeof *to->files);
        memset(&to->files[i], 0, sizeof to->files[i]);
        (void)snprintf(to->files[i].path, sizeof to->files[i].path, "%s", path);
        to->file_count++;
    }
    return &to->files[i];
}

/* The state of the log's files is kept: what a lost write would bring back. */
static void remember(maker *m)
{
    if (m->moments == 4)
        return;
    damage_store *to = m->to;
    char path[64];
    for (unsigned seq = 1; seq < 16; seq++) {
        uint64_t size;
        (void)snprintf(path, sizeof path, "wal/%016x.wal", seq);
        uint8_t *bytes = read_file(m->memory, path, &size);
        if (!bytes)
            continue;
        damage_file *file = find_file(to, path);
        if (!file->size)
            file->size = size;
        ck_assert_uint_eq(file->size, size);
        file->older[m->moments] = bytes;
    }
    m->moments++;
}

static void close_store(maker *m)
{
    must(m, npk_store_close(m->store, &m->err), "close");
    m->store = NULL;
}

static void make_log_only(maker *m)
{
    open_store(m);
    for (int i = 0; i < 7; i++) {
        transact(m, i % 3 ? some_rows : random_steps);
        if (i % 2)
            remember(m);
    }
    transact(m, last_rows);
}

static void make_long(maker *m)
{
    open_store(m);
    transact(m, some_rows);
    transact(m, bulk_rows);
    for (int i = 0; i < 4; i++)
        transact(m, random_steps);
    must(m, npk_store_compact(m->store, NULL, &m->err), "compact");
    remember(m);
    must(m, npk_store_checkpoint(m->store, &m->err), "checkpoint");
    for (int i = 0; i < 6; i++)
        transact(m, i % 2 ? some_rows : random_steps);
    remember(m);
}

static void make_closed(maker *m)
{
    make_long(m);
    transact(m, last_rows);
    close_store(m);
}

static void make_killed(maker *m)
{
    make_long(m);
    must(m, npk_store_checkpoint(m->store, &m->err), "checkpoint");
    for (int i = 0; i < 4; i++)
        transact(m, i % 2 ? random_steps : some_rows);
    remember(m);
    must(m, npk_store_compact(m->store, "array 5", &m->err), "compact");
    transact(m, some_rows);
    remember(m);
    transact(m, last_rows);
}

static int add_file(damage_store *to, memory_io *memory, const char *path)
{
    damage_file *file = find_file(to, path);
    file->bytes = read_file(memory, path, &file->size);
    ck_assert_ptr_nonnull(file->bytes);
    return 0;
}

struct listing {
    damage_store *to;
    memory_io *memory;
    const char *directory;
};

static int note_name(void *context, const char *name)
{
    struct listing *listing = context;
    char path[64];
    (void)snprintf(path, sizeof path, "%s/%s", listing->directory, name);
    return add_file(listing->to, listing->memory, path);
}

/* Real files, while the store that owns them is open. */
static void add_index(damage_store *to, const char *real_path)
{
    char base[512], path[1024];
    struct dirent *entry;
    DIR *top = opendir(real_path);
    ck_assert_ptr_nonnull(top);
    base[0] = '\0';
    while ((entry = readdir(top)) != NULL)
        if (entry->d_name[0] != '.')
            (void)snprintf(base, sizeof base, "%s/%s", real_path, entry->d_name);
    (void)closedir(top);
    ck_assert_msg(base[0], "no real index in %s", real_path);
    for (int depth = 0; depth < 2; depth++) { /* control, then the environment */
        char inner[300] = "";
        DIR *directory = opendir(base);
        ck_assert_ptr_nonnull(directory);
        while ((entry = readdir(directory)) != NULL) {
            struct stat info;
            (void)snprintf(path, sizeof path, "%s/%s", base, entry->d_name);
            if (entry->d_name[0] == '.' || stat(path, &info) != 0)
                continue;
            if (S_ISDIR(info.st_mode)) {
                (void)snprintf(inner, sizeof inner, "%.200s", entry->d_name);
                continue;
            }
            to->files = memory_resize(to->files, (to->file_count + 1) * sizeof *to->files);
            damage_file *file = &to->files[to->file_count++];
            memset(file, 0, sizeof *file);
            const char *tail = strrchr(base, '/') + 1;
            (void)snprintf(file->path, sizeof file->path, depth ? "index/%.16s/%.30s" : "index/%.0s%.30s", tail, entry->d_name);
            file->size = npk_min_u64((uint64_t)info.st_size, 256 << 10); /* preallocated: zeros behind */
            file->bytes = memory_alloc(file->size);
            FILE *in = fopen(path, "rb");
            ck_assert_ptr_nonnull(in);
            ck_assert_uint_eq(fread(file->bytes, 1, file->size, in), file->size);
            (void)fclose(in);
        }
        (void)closedir(directory);
        if (!inner[0])
            break;
        size_t used = strlen(base);
        (void)snprintf(base + used, sizeof base - used, "/%s", inner);
    }
}

static void describe_end(damage_store *to)
{
    uint64_t first_lsn = 0, proven_lsn = 0;
    for (size_t i = 0; i < to->file_count; i++) {
        unsigned long long number;
        if (sscanf(to->files[i].path, "checkpoint/%16llx", &number) == 1)
            proven_lsn = npk_max_u64(proven_lsn, number);
        if (strncmp(to->files[i].path, "wal/", 4) == 0 && npk_get_u64(to->files[i].bytes + 48) >= first_lsn) {
            first_lsn = npk_get_u64(to->files[i].bytes + 48);
            to->last_segment = i;
        }
    }
    proven_lsn = npk_max_u64(proven_lsn, first_lsn);
    for (int j = 0; j <= to->newest; j++)
        if (to->ends[j] <= proven_lsn)
            to->proven = j;
    ck_assert_uint_ge(to->ends[to->newest - 1], first_lsn);
    to->tail_offset = 4096 + (to->ends[to->newest - 1] - first_lsn);
}

static void make_store(damage_store *to, const char *name, void (*run)(maker *m), bool is_synced, bool has_index, uint64_t seed,
                       const char *real_path)
{
    memset(to, 0, sizeof *to);
    to->name = name;
    to->is_synced = is_synced;
    to->has_index = has_index;
    for (int j = 0; j < DAMAGE_HISTORY; j++)
        model_init(&to->history[j]);
    to->ends[0] = 4096;
    memory_io_options options = {.seed = seed, .real_path = real_path};
    maker m = {.to = to, .memory = memory_io_create(&options), .random = rng_seeded(seed)};
    memory_io_set_clock(m.memory, 1700000000000000u, 1);
    run(&m);
    to->disk = memory_io_snapshot(m.memory); /* what a process that dies now leaves */
    static const char *const directories[] = {"wal", "columns", "checkpoint"};
    (void)add_file(to, m.memory, "FORMAT");
    (void)add_file(to, m.memory, "LOCK");
    if (!m.store)
        (void)add_file(to, m.memory, "reserve");
    const npk_io *io = memory_io_table(m.memory);
    for (size_t d = 0; d < 3; d++) {
        struct listing listing = {to, m.memory, directories[d]};
        npk_file *root = NULL, *directory = NULL;
        ck_assert_int_eq(io->open_root(io, DAMAGE_ROOT, false, &root, NULL), 0);
        ck_assert_int_eq(io->open(io, root, directories[d], NPK_OPEN_READ | NPK_OPEN_DIRECTORY, &directory), 0);
        ck_assert_int_eq(io->list(io, directory, note_name, &listing), 0);
        io->close(io, directory);
        io->close(io, root);
    }
    /* Segments that were reclaimed meanwhile. */
    size_t kept = 0;
    for (size_t i = 0; i < to->file_count; i++) {
        if (to->files[i].bytes)
            to->files[kept++] = to->files[i];
        else
            for (int k = 0; k < 4; k++)
                free(to->files[i].older[k]);
    }
    to->file_count = kept;
    if (has_index)
        add_index(to, real_path);
    describe_end(to);
    if (m.store)
        close_store(&m);
    memory_io_destroy(m.memory);
}

void damage_make(damage_store stores[DAMAGE_STORE_COUNT], const char *real_path)
{
    make_store(&stores[0], "closed", make_closed, true, false, 1, real_path);
    make_store(&stores[1], "killed", make_killed, true, false, 2, real_path);
    make_store(&stores[2], "log-only", make_log_only, true, false, 3, real_path);
    make_store(&stores[3], "with-index", make_killed, true, true, 4, real_path);
    make_store(&stores[4], "never", make_log_only, false, false, 5, real_path);
}

void damage_release(damage_store stores[DAMAGE_STORE_COUNT])
{
    for (int s = 0; s < DAMAGE_STORE_COUNT; s++) {
        for (int j = 0; j < DAMAGE_HISTORY; j++)
            model_release(&stores[s].history[j]);
        for (size_t i = 0; i < stores[s].file_count; i++) {
            free(stores[s].files[i].bytes);
            for (int k = 0; k < 4; k++)
                free(stores[s].files[i].older[k]);
        }
        free(stores[s].files);
        memory_snapshot_release(stores[s].disk);
    }
}

/* ---- one damage ----------------------------------------------------------------------------------------------------------- */

static bool is_index_file(const damage_file *file)
{
    return strncmp(file->path, "index/", 6) == 0;
}

/* The file after the damage: bytes of *size, to be freed. REMOVE gives NULL. *range says what changed. */
static uint8_t *damaged(const damage_store *store, const damage_case *c, uint64_t *size, damage_range *range)
{
    const damage_file *file = &store->files[c->file];
    uint64_t at = c->a * DAMAGE_SECTOR, part = at < file->size ? npk_min_u64(DAMAGE_SECTOR, file->size - at) : 0;
    uint64_t room = file->size + (c->kind == DAMAGE_GROW ? c->a : 0);
    *range = (damage_range){at, at + part, false};
    *size = file->size;
    if (c->kind == DAMAGE_REMOVE) {
        *range = (damage_range){0, file->size, true};
        return NULL;
    }
    uint8_t *bytes = memory_alloc(room);
    memcpy(bytes, file->bytes, file->size);
    rng random = rng_seeded(c->b * 31 + c->a);
    switch (c->kind) {
    case DAMAGE_FLIP:
        bytes[c->a / 8] ^= (uint8_t)(1u << c->a % 8);
        *range = (damage_range){c->a / 8, c->a / 8 + 1, false};
        break;
    case DAMAGE_ZEROS: memset(bytes + at, 0, part); break;
    case DAMAGE_ONES: memset(bytes + at, 0xff, part); break;
    case DAMAGE_GARBAGE: rng_fill(&random, bytes + at, part); break;
    case DAMAGE_STALE:
        if (file->older[c->b])
            memcpy(bytes + at, file->older[c->b] + at, part);
        break;
    case DAMAGE_FOREIGN: {
        const damage_file *other = &store->files[c->b];
        if (at + part <= other->size)
            memcpy(bytes + at, other->bytes + at, part);
        break;
    }
    case DAMAGE_SWAP: {
        uint64_t to = c->b * DAMAGE_SECTOR;
        if (part == DAMAGE_SECTOR && to + part <= file->size) {
            memcpy(bytes + at, file->bytes + to, part);
            memcpy(bytes + to, file->bytes + at, part);
        }
        range->whole = true;
        break;
    }
    case DAMAGE_SMEAR: {
        uint64_t some = npk_min_u64(1 + rng_below(&random, DAMAGE_SECTOR), file->size - c->a);
        rng_fill(&random, bytes + c->a, some);
        *range = (damage_range){c->a, c->a + some, false};
        break;
    }
    case DAMAGE_WIPE:
        memset(bytes + at, 0, file->size - at);
        *range = (damage_range){at, file->size, true};
        break;
    case DAMAGE_CUT:
        *size = c->a;
        *range = (damage_range){c->a, file->size, true};
        break;
    case DAMAGE_GROW:
        *size = room;
        rng_fill(&random, bytes + file->size, c->a);
        *range = (damage_range){file->size, room, true};
        break;
    default: break;
    }
    return bytes;
}

static void put_real(const damage_store *store, const char *real_path, const char *path, const uint8_t *bytes, uint64_t size)
{
    char where[1024];
    struct dirent *entry;
    (void)store;
    DIR *top = opendir(real_path); /* the one real index that materializing has made */
    ck_assert_ptr_nonnull(top);
    where[0] = '\0';
    while ((entry = readdir(top)) != NULL)
        if (entry->d_name[0] != '.')
            (void)snprintf(where, sizeof where, "%s/%.200s", real_path, entry->d_name);
    (void)closedir(top);
    ck_assert_msg(where[0], "no real index in %s", real_path);
    const char *inner = path + 6, *slash = strchr(inner, '/');
    size_t used = strlen(where);
    if (slash) {
        (void)snprintf(where + used, sizeof where - used, "/%.*s", (int)(slash - inner), inner);
        (void)mkdir(where, 0777);
        used = strlen(where);
        inner = slash + 1;
    }
    (void)snprintf(where + used, sizeof where - used, "/%s", inner);
    FILE *out = fopen(where, "wb");
    ck_assert_msg(out && fwrite(bytes, 1, size, out) == size && fclose(out) == 0, "could not write %s", where);
}

static void put(memory_io *memory, const char *path, const uint8_t *bytes, uint64_t old_size, uint64_t size, const damage_range *range)
{
    int rc = size == old_size ? 0 : memory_io_set_size(memory, DAMAGE_ROOT, path, size);
    uint64_t begin = range->whole ? 0 : range->begin, end = range->whole ? size : range->end;
    if (!rc && end > begin)
        rc = memory_io_damage(memory, DAMAGE_ROOT, path, begin, bytes + begin, end - begin);
    ck_assert_msg(rc == 0, "could not damage %s: %d", path, rc);
}

static void apply_one(const damage_store *store, memory_io *memory, const damage_case *c, const char *real_path, damage_range *range)
{
    const damage_file *file = &store->files[c->file];
    if (c->kind == DAMAGE_EXCHANGE) {
        const damage_file *other = &store->files[c->a];
        *range = (damage_range){0, npk_max_u64(file->size, other->size), true};
        put(memory, file->path, other->bytes, file->size, other->size, range);
        put(memory, other->path, file->bytes, other->size, file->size, range);
        return;
    }
    uint64_t size;
    uint8_t *bytes = damaged(store, c, &size, range);
    if (is_index_file(file)) {
        if (bytes)
            put_real(store, real_path, file->path, bytes, size);
    } else if (!bytes) {
        ck_assert_int_eq(memory_io_remove(memory, DAMAGE_ROOT, file->path), 0);
    } else {
        put(memory, file->path, bytes, file->size, size, range);
    }
    free(bytes);
}

/* One of the two to four damages of SEVERAL. Those of one case may undo each other only by flipping the same bit twice. */
static damage_case random_damage(const damage_store *store, uint32_t number, rng *random)
{
    damage_case one = {.store = number};
    do
        one.file = (uint32_t)rng_below(random, store->file_count);
    while (is_index_file(&store->files[one.file]) || store->files[one.file].size == 0);
    uint64_t size = store->files[one.file].size;
    switch (rng_below(random, 4)) {
    case 0:
        one.kind = DAMAGE_FLIP;
        one.a = rng_below(random, 8 * size);
        break;
    case 1:
        one.kind = DAMAGE_SMEAR;
        one.a = rng_below(random, size);
        one.b = rng_next(random);
        break;
    default:
        one.kind = rng_chance(random, 1, 2) ? DAMAGE_ZEROS : DAMAGE_WIPE;
        one.a = rng_below(random, (size + DAMAGE_SECTOR - 1) / DAMAGE_SECTOR);
        break;
    }
    return one;
}

memory_io *damage_apply(const damage_store stores[DAMAGE_STORE_COUNT], const damage_case *c, const char *real_path, damage_range *range)
{
    const damage_store *store = &stores[c->store];
    memory_io_selection whole = {.select = MEMORY_IO_ALL};
    memory_io *memory = memory_io_materialize(store->disk, &whole, real_path);
    if (store->has_index)
        for (size_t i = 0; i < store->file_count; i++)
            if (is_index_file(&store->files[i]) && i != c->file)
                put_real(store, real_path, store->files[i].path, store->files[i].bytes, store->files[i].size);
    if (c->kind == DAMAGE_UNPROVEN) {
        damage_case flip = {c->store, c->file, DAMAGE_FLIP, c->a, 0};
        damage_case wipe = {c->store, (uint32_t)store->last_segment, DAMAGE_WIPE, c->b, 0};
        apply_one(store, memory, &flip, real_path, range);
        apply_one(store, memory, &wipe, real_path, range);
        return memory;
    }
    if (c->kind != DAMAGE_SEVERAL) {
        apply_one(store, memory, c, real_path, range);
        return memory;
    }
    rng random = rng_seeded(c->a);
    for (uint64_t left = 2 + rng_below(&random, 3); left; left--) {
        damage_case one = random_damage(store, c->store, &random);
        apply_one(store, memory, &one, real_path, range);
    }
    *range = (damage_range){0, UINT64_MAX, true};
    return memory;
}

/* ---- all damages ------------------------------------------------------------------------------------------------------------ */

typedef struct list {
    const damage_store *stores;
    damage_case *cases;
    size_t count, capacity;
    uint64_t *seen; /* open hash of cases */
    size_t seen_size;
} list;

static void add(list *l, damage_case c)
{
    if (l->count == l->capacity)
        return;
    uint64_t words[5] = {c.store, c.file, c.kind, c.a, c.b}, hash = npk_checksum(words, sizeof words) | 1;
    size_t at = (size_t)hash & (l->seen_size - 1);
    for (; l->seen[at]; at = (at + 1) & (l->seen_size - 1))
        if (l->seen[at] == hash)
            return;
    const damage_file *file = &l->stores[c.store].files[c.file];
    if (c.kind < DAMAGE_REMOVE) { /* no damage is none */
        uint64_t size;
        damage_range range;
        uint8_t *bytes = damaged(&l->stores[c.store], &c, &size, &range);
        bool same = size == file->size && memcmp(bytes, file->bytes, size) == 0;
        free(bytes);
        if (same)
            return;
    }
    l->seen[at] = hash;
    l->cases[l->count++] = c;
}

static bool same_directory(const damage_file *a, const damage_file *b)
{
    size_t size = strcspn(a->path, "/");
    return strncmp(a->path, b->path, size + 1) == 0 && a->path[size] == '/';
}

static void add_sectors(list *l, damage_case c, const damage_store *store)
{
    const damage_file *file = &store->files[c.file];
    uint64_t sectors = (file->size + DAMAGE_SECTOR - 1) / DAMAGE_SECTOR;
    uint64_t step = is_index_file(file) || strcmp(file->path, "reserve") == 0 ? 8 : 1; /* nothing there means anything */
    for (c.a = 0; c.a < sectors; c.a += step) {
        bool is_empty = npk_is_zero(file->bytes + c.a * DAMAGE_SECTOR, npk_min_u64(DAMAGE_SECTOR, file->size - c.a * DAMAGE_SECTOR));
        c.kind = DAMAGE_ZEROS, c.b = 0;
        add(l, c);
        c.kind = DAMAGE_WIPE;
        add(l, c);
        if (!is_empty || c.a % 4 == 0) { /* of the zeros behind the log's end a part */
            c.kind = DAMAGE_ONES;
            add(l, c);
            c.kind = DAMAGE_GARBAGE;
            add(l, c);
        }
        for (c.kind = DAMAGE_STALE, c.b = 0; c.b < 4; c.b++)
            if (file->older[c.b])
                add(l, c);
        c.kind = DAMAGE_FOREIGN, c.b = (c.file + 1 + c.a % 3) % store->file_count;
        if (same_directory(file, &store->files[c.b]) && !is_index_file(file))
            add(l, c);
        c.kind = DAMAGE_SWAP, c.b = c.a + 1;
        if (!is_empty)
            add(l, c);
    }
}

static void add_file_cases(list *l, const damage_store *store, uint32_t number, uint32_t index)
{
    const damage_file *file = &store->files[index];
    damage_case c = {.store = number, .file = index};
    add_sectors(l, c, store);
    c.b = 0;
    if (file->size <= 512)
        for (c.kind = DAMAGE_FLIP, c.a = 0; c.a < 8 * file->size; c.a++)
            add(l, c);
    for (c.kind = DAMAGE_CUT, c.a = 0; c.a < file->size; c.a++)
        if (file->size <= 512 || c.a % DAMAGE_SECTOR == 0 || (c.a % 4096 == 1 || c.a % 4096 == 4095) || c.a + 2 > file->size)
            add(l, c);
    c.kind = DAMAGE_GROW;
    for (c.a = 1; c.a <= 1 << 16; c.a *= 2)
        add(l, c);
    c.kind = DAMAGE_REMOVE, c.a = 0;
    add(l, c);
    uint64_t sectors = store->files[store->last_segment].size / DAMAGE_SECTOR;
    for (c.kind = DAMAGE_UNPROVEN, c.b = 8; c.b < sectors && strncmp(file->path, "checkpoint/", 11) == 0; c.b++) {
        c.a = c.b * 7919 % (8 * file->size);
        add(l, c);
    }
    c.b = 0;
    for (c.kind = DAMAGE_EXCHANGE, c.a = index + 1; c.a < store->file_count; c.a++)
        if (same_directory(file, &store->files[c.a]) && !is_index_file(file))
            add(l, c);
}

/* Any file, and in it mostly a place that holds something. */
static void add_random(list *l, rng *random)
{
    damage_case c = {.store = (uint32_t)rng_below(random, DAMAGE_STORE_COUNT)};
    const damage_store *store = &l->stores[c.store];
    if (rng_chance(random, 1, 6)) {
        c.kind = DAMAGE_SEVERAL;
        c.a = rng_next(random);
        add(l, c);
        return;
    }
    c.file = (uint32_t)rng_below(random, store->file_count);
    const damage_file *file = &store->files[c.file];
    if (!file->size)
        return;
    uint64_t offset = rng_below(random, file->size);
    for (int tries = 0; tries < 40 && !file->bytes[offset]; tries++)
        offset = rng_below(random, file->size);
    if (rng_chance(random, 1, 8))
        offset = rng_below(random, npk_min_u64(file->size, 128)); /* headers are short */
    c.kind = rng_chance(random, 2, 3) ? DAMAGE_FLIP : DAMAGE_SMEAR;
    c.a = c.kind == DAMAGE_FLIP ? 8 * offset + rng_below(random, 8) : offset;
    c.b = c.kind == DAMAGE_FLIP ? 0 : rng_next(random);
    add(l, c);
}

damage_case *damage_list(const damage_store stores[DAMAGE_STORE_COUNT], uint64_t seed, size_t count, size_t *made)
{
    list l = {.stores = stores, .cases = memory_alloc(count * sizeof *l.cases), .capacity = count, .seen_size = 64};
    while (l.seen_size < 3 * count)
        l.seen_size *= 2;
    l.seen = memory_alloc(l.seen_size * sizeof *l.seen);
    for (uint32_t s = 0; s < DAMAGE_STORE_COUNT; s++)
        for (uint32_t i = 0; i < stores[s].file_count; i++)
            add_file_cases(&l, &stores[s], s, i);
    rng random = rng_seeded(seed);
    for (size_t tries = 0; l.count < count && tries < 20 * count; tries++)
        add_random(&l, &random);
    free(l.seen);
    *made = l.count;
    return l.cases;
}

/* ---- as text ------------------------------------------------------------------------------------------------------------------ */

void damage_format(const damage_store stores[DAMAGE_STORE_COUNT], const damage_case *c, char text[160])
{
    (void)snprintf(text, 160, "%s:%s:%s:%llu:%llu", stores[c->store].name, stores[c->store].files[c->file].path, kind_names[c->kind],
                   (unsigned long long)c->a, (unsigned long long)c->b);
}

bool damage_parse(const damage_store stores[DAMAGE_STORE_COUNT], const char *text, damage_case *c)
{
    char store[32], path[64], kind[16];
    unsigned long long a, b;
    if (sscanf(text, "%31[^:]:%63[^:]:%15[^:]:%llu:%llu", store, path, kind, &a, &b) != 5)
        return false;
    *c = (damage_case){.a = a, .b = b};
    while (c->store < DAMAGE_STORE_COUNT && strcmp(stores[c->store].name, store) != 0)
        c->store++;
    if (c->store == DAMAGE_STORE_COUNT)
        return false;
    while (c->file < stores[c->store].file_count && strcmp(stores[c->store].files[c->file].path, path) != 0)
        c->file++;
    unsigned k = 0;
    while (k < DAMAGE_KIND_COUNT && strcmp(kind_names[k], kind) != 0)
        k++;
    c->kind = (damage_kind)k;
    return c->file < stores[c->store].file_count && k < DAMAGE_KIND_COUNT;
}
