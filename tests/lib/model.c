/* model.c - what a store must contain, kept in plain memory. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void model_init(model *m)
{
    memset(m, 0, sizeof *m);
    for (int i = 0; i < MODEL_ATTRS; i++)
        m->attrs[i] = -1;
}

void model_release(model *m)
{
    for (int i = 0; i < MODEL_ARRAYS; i++)
        free(m->arrays[i].rows);
    model_init(m);
}

static void *grab(size_t size)
{
    void *block = malloc(size ? size : 1);
    if (!block)
        abort();
    return block;
}

void model_copy(model *to, const model *from)
{
    model copy = *from;
    for (int i = 0; i < MODEL_ARRAYS; i++) {
        const model_array *array = &from->arrays[i];
        copy.arrays[i].rows = NULL;
        if (array->name[0]) {
            copy.arrays[i].rows = grab(array->row_size * array->row_count);
            memcpy(copy.arrays[i].rows, array->rows, array->row_size * array->row_count);
        }
    }
    model_release(to);
    *to = copy;
}

uint64_t model_hash(const model *m)
{
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (int i = 0; i < MODEL_ARRAYS; i++) {
        const model_array *array = &m->arrays[i];
        if (!array->name[0])
            continue;
        hash = (hash ^ array->row_count ^ (uint64_t)i << 32) * 1099511628211u;
        for (uint64_t k = 0; k < array->row_size * array->row_count; k++)
            hash = (hash ^ array->rows[k]) * 1099511628211u;
    }
    for (int i = 0; i < MODEL_ATTRS; i++)
        hash = (hash ^ (uint64_t)m->attrs[i]) * 1099511628211u;
    return hash;
}

/* ---- operations -------------------------------------------------------------------------------------------------------- */

/* Row sizes of the arrays by number: divisors of a page, odd ones, and one wide enough for many records. */
static const uint64_t row_sizes[MODEL_ARRAYS] = {8, 40, 1, 4096, 24, 300, 8, 1000};

static void name_of(int i, char name[32])
{
    (void)snprintf(name, 32, "array %d", i);
}

static npk_status step_save(model *m, npk_txn *txn, rng *r, int i, bool big, npk_error *err)
{
    model_array *array = &m->arrays[i];
    uint64_t row_size = row_sizes[i];
    uint64_t most = big && rng_chance(r, 1, 8) ? 200000 / row_size : 60;
    uint64_t count = rng_below(r, most + 1);
    char name[32];
    name_of(i, name);
    uint8_t *rows = grab(row_size * count);
    rng_fill(r, rows, row_size * count);
    uint64_t shape[1] = {row_size};
    npk_array_spec spec = {"|u1", row_size, 1, shape, 0};
    npk_status status = npk_txn_save(txn, name, &spec, count, rows, err);
    if (status != NPK_OK) {
        free(rows);
        return status;
    }
    free(array->rows);
    memcpy(array->name, name, sizeof name);
    array->row_size = row_size;
    array->row_count = count;
    array->rows = rows;
    return NPK_OK;
}

static npk_status step_append(model_array *array, npk_txn *txn, rng *r, bool big, npk_error *err)
{
    uint64_t most = big && rng_chance(r, 1, 6) ? 200000 / array->row_size : 30;
    uint64_t count = rng_below(r, most + 1);
    size_t old = array->row_size * array->row_count, size = array->row_size * count;
    uint8_t *rows = grab(old + size);
    memcpy(rows, array->rows, old);
    /* Half of it compresses. */
    if (rng_chance(r, 1, 2))
        rng_fill(r, rows + old, size);
    else
        memset(rows + old, (int)rng_below(r, 256), size);
    npk_status status = npk_txn_append(txn, array->name, count, rows + old, err);
    if (status != NPK_OK) {
        free(rows);
        return status;
    }
    free(array->rows);
    array->rows = rows;
    array->row_count += count;
    return NPK_OK;
}

static npk_status step_replace(model_array *array, npk_txn *txn, rng *r, npk_error *err)
{
    if (array->row_count == 0)
        return NPK_OK;
    uint64_t count = 1 + rng_below(r, array->row_count < 200 ? array->row_count : 200);
    uint64_t row_size = array->row_size;
    uint8_t *rows = grab(row_size * count);
    rng_fill(r, rows, row_size * count);
    npk_status status;
    if (rng_chance(r, 1, 2)) { /* a contiguous run */
        uint64_t first = rng_below(r, array->row_count - count + 1);
        status = npk_txn_replace_run(txn, array->name, first, count, rows, err);
        if (status == NPK_OK)
            memcpy(array->rows + first * row_size, rows, row_size * count);
    } else { /* scattered, in any order, with duplicates: the last wins */
        int64_t *which = grab(count * sizeof *which);
        for (uint64_t k = 0; k < count; k++)
            which[k] = (int64_t)rng_below(r, array->row_count);
        status = npk_txn_replace(txn, array->name, count, which, rows, err);
        for (uint64_t k = 0; k < count && status == NPK_OK; k++)
            memcpy(array->rows + (uint64_t)which[k] * row_size, rows + k * row_size, row_size);
        free(which);
    }
    free(rows);
    return status;
}

static npk_status step_drop_rows(model_array *array, npk_txn *txn, rng *r, npk_error *err)
{
    if (array->row_count == 0)
        return NPK_OK;
    uint64_t count = rng_chance(r, 1, 20) ? array->row_count : 1 + rng_below(r, array->row_count < 20 ? array->row_count : 20);
    int64_t *which = grab(count * sizeof *which);
    bool front = rng_chance(r, 1, 2);
    for (uint64_t k = 0; k < count; k++)
        which[k] = (int64_t)(front ? k : rng_below(r, array->row_count));
    npk_status status = npk_txn_drop_rows(txn, array->name, count, which, err);
    if (status == NPK_OK) {
        uint8_t *dead = grab(array->row_count);
        memset(dead, 0, array->row_count);
        for (uint64_t k = 0; k < count; k++)
            dead[which[k]] = 1;
        uint64_t kept = 0;
        for (uint64_t row = 0; row < array->row_count; row++)
            if (!dead[row])
                memmove(array->rows + kept++ * array->row_size, array->rows + row * array->row_size, array->row_size);
        array->row_count = kept;
        free(dead);
    }
    free(which);
    return status;
}

static npk_status step_clone(model *m, npk_txn *txn, int from, int to, npk_error *err)
{
    char name[32];
    name_of(to, name);
    npk_status status = npk_txn_clone(txn, m->arrays[from].name, name, err);
    if (status == NPK_OK) {
        model_array *array = &m->arrays[to];
        *array = m->arrays[from];
        memcpy(array->name, name, sizeof name);
        array->rows = grab(array->row_size * array->row_count);
        memcpy(array->rows, m->arrays[from].rows, array->row_size * array->row_count);
    }
    return status;
}

npk_status model_step(model *m, npk_txn *txn, rng *r, bool big, npk_error *err)
{
    int i = (int)rng_below(r, MODEL_ARRAYS);
    model_array *array = &m->arrays[i];
    uint64_t what = rng_below(r, 100);
    if (what < 10) {
        int k = (int)rng_below(r, MODEL_ATTRS);
        char key[8], value[24];
        (void)snprintf(key, sizeof key, "k%d", k);
        int64_t number = (int64_t)rng_below(r, 1000000);
        int size = snprintf(value, sizeof value, "%lld", (long long)number);
        bool erase = m->attrs[k] >= 0 && rng_chance(r, 1, 4);
        npk_status status = erase ? npk_txn_delete_attr(txn, NULL, key, err)
                                  : npk_txn_set_attr(txn, NULL, key, value, (size_t)size, err);
        if (status == NPK_OK)
            m->attrs[k] = erase ? -1 : number;
        return status;
    }
    if (!array->name[0]) {
        int from = (int)rng_below(r, MODEL_ARRAYS);
        if (what < 30 && m->arrays[from].name[0])
            return step_clone(m, txn, from, i, err);
        return step_save(m, txn, r, i, big, err);
    }
    if (what < 40)
        return step_append(array, txn, r, big, err);
    if (what < 70)
        return step_replace(array, txn, r, err);
    if (what < 88)
        return step_drop_rows(array, txn, r, err);
    if (what < 95)
        return step_save(m, txn, r, i, big, err);
    npk_status status = npk_txn_drop_array(txn, array->name, err);
    if (status == NPK_OK) {
        free(array->rows);
        memset(array, 0, sizeof *array);
    }
    return status;
}

/* ---- comparing ----------------------------------------------------------------------------------------------------------- */

struct listing {
    const model *m;
    int count, unknown;
    int64_t attrs[MODEL_ATTRS];
};

static void note_name(void *context, const char *name)
{
    struct listing *listing = context;
    listing->count++;
    for (int i = 0; i < MODEL_ARRAYS; i++)
        if (strcmp(listing->m->arrays[i].name, name) == 0)
            return;
    listing->unknown++;
}

static void note_attr(void *context, const char *key, const void *value, size_t size)
{
    struct listing *listing = context;
    char text[24] = "";
    memcpy(text, value, size < sizeof text - 1 ? size : sizeof text - 1);
    if (key[0] == 'k' && key[1] >= '0' && key[1] < '0' + MODEL_ATTRS && !key[2])
        listing->attrs[key[1] - '0'] = strtoll(text, NULL, 10);
    else
        listing->unknown++;
}

static bool array_matches(const model_array *want, const npk_source *source, char *text, size_t text_size)
{
    npk_error err = {0};
    npk_array *array = NULL;
    if (npk_array_open(source, want->name, &array, &err) != NPK_OK) {
        (void)snprintf(text, text_size, "%s: %.300s", want->name, err.message);
        return false;
    }
    const npk_array_info *info = npk_array_describe(array);
    bool same = info->row_count == want->row_count && info->row_size == want->row_size;
    if (!same)
        (void)snprintf(text, text_size, "%s: %llu rows instead of %llu", want->name, (unsigned long long)info->row_count,
                       (unsigned long long)want->row_count);
    uint8_t *rows = grab(want->row_size * want->row_count);
    if (same && npk_array_read(array, 0, want->row_count, rows, &err) != NPK_OK) {
        (void)snprintf(text, text_size, "%s: %.300s", want->name, err.message);
        same = false;
    }
    for (uint64_t row = 0; same && row < want->row_count; row++)
        if (memcmp(rows + row * want->row_size, want->rows + row * want->row_size, want->row_size) != 0) {
            (void)snprintf(text, text_size, "%s: row %llu of %llu differs", want->name, (unsigned long long)row,
                           (unsigned long long)want->row_count);
            same = false;
        }
    if (same && want->row_count) { /* a few rows by number, the last one first */
        int64_t which[4] = {(int64_t)want->row_count - 1, 0, (int64_t)(want->row_count / 2), (int64_t)(want->row_count / 3)};
        if (npk_array_gather(array, 4, which, rows = realloc(rows, want->row_size * (want->row_count + 4)), &err) != NPK_OK) {
            (void)snprintf(text, text_size, "%s: %.300s", want->name, err.message);
            same = false;
        }
        for (int k = 0; same && k < 4; k++)
            if (memcmp(rows + (size_t)k * want->row_size, want->rows + (size_t)which[k] * want->row_size, want->row_size)) {
                (void)snprintf(text, text_size, "%s: gathered row %lld differs", want->name, (long long)which[k]);
                same = false;
            }
    }
    free(rows);
    npk_array_release(array);
    return same;
}

bool model_matches(const model *m, const npk_source *source, char *text, size_t text_size)
{
    struct listing listing = {.m = m};
    npk_error err = {0};
    int wanted = 0;
    for (int i = 0; i < MODEL_ATTRS; i++)
        listing.attrs[i] = -1;
    if (npk_list_arrays(source, note_name, &listing, &err) != NPK_OK ||
        npk_list_attrs(source, NULL, note_attr, &listing, &err) != NPK_OK) {
        (void)snprintf(text, text_size, "%.300s", err.message);
        return false;
    }
    for (int i = 0; i < MODEL_ARRAYS; i++)
        wanted += m->arrays[i].name[0] != 0;
    if (listing.unknown || listing.count != wanted) {
        (void)snprintf(text, text_size, "%d arrays instead of %d, %d unknown names", listing.count, wanted, listing.unknown);
        return false;
    }
    for (int i = 0; i < MODEL_ATTRS; i++)
        if (listing.attrs[i] != m->attrs[i]) {
            (void)snprintf(text, text_size, "attribute k%d is %lld instead of %lld", i, (long long)listing.attrs[i],
                           (long long)m->attrs[i]);
            return false;
        }
    for (int i = 0; i < MODEL_ARRAYS; i++)
        if (m->arrays[i].name[0] && !array_matches(&m->arrays[i], source, text, text_size))
            return false;
    return true;
}
