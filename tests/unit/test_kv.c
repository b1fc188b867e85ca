/* test_kv.c - the merged view against a model: an array of all possible keys, each with the value it has. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "bytes.h"
#include "index.h"
#include "kv.h"

enum { KEY_COUNT = 400, TABLE_COUNT = 2, VALUE_MAX = 3000, MARK_COUNT = 6, OPERATION_COUNT = 100000 };

static const npk_table tables[TABLE_COUNT] = {NPK_TABLE_ROWS, NPK_TABLE_ATTRS};

/* ck_assert tells its runner about each success: too slow for loops. */
#define EXPECT(condition)                             \
    do {                                              \
        if (!(condition))                             \
            ck_abort_msg("not true: %s", #condition); \
    } while (0)

static uint64_t random_state;

static uint64_t next_random(uint64_t below)
{
    random_state += 0x9e3779b97f4a7c15u; /* splitmix64 */
    uint64_t z = random_state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % below;
}

typedef struct model_key {
    uint8_t bytes[NPK_KEY_MAX];
    size_t size;
} model_key;

typedef struct model_value {
    bool there;
    uint32_t tag; /* the bytes of the value follow from it */
    uint32_t size;
} model_value;

typedef struct model {
    model_value values[TABLE_COUNT][KEY_COUNT];
} model;

static model_key keys[KEY_COUNT];

static int compare_bytes(const void *a, size_t a_size, const void *b, size_t b_size)
{
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

static int compare_keys(const void *a, const void *b)
{
    const model_key *x = a, *y = b;
    return compare_bytes(x->bytes, x->size, y->bytes, y->size);
}

/* Keys like those of the index, and such that differ late, by zeros at their end, or in length alone. */
static void make_key(model_key *key)
{
    static const uint64_t ids[] = {1, 2, 255, 256, UINT64_MAX};
    npk_put_be64(key->bytes, ids[next_random(5)]);
    key->size = 8;
    switch (next_random(5)) {
    case 0: key->size = 1 + next_random(8); break;
    case 1:
        npk_put_be64(key->bytes + 8, next_random(300));
        key->size = 16;
        break;
    case 2:
        key->bytes[8] = (uint8_t)next_random(2);
        npk_put_be64(key->bytes + 9, next_random(4));
        npk_put_be64(key->bytes + 17, next_random(300));
        key->size = next_random(2) ? 25 : 17;
        break;
    case 3: {
        size_t size = next_random(40);
        memset(key->bytes + 8, next_random(2) ? 0 : 0xff, size);
        key->size = 8 + size;
        break;
    }
    default: {
        size_t size = next_random(NPK_KEY_MAX - 8 + 1);
        memset(key->bytes + 8, 'x', size);
        if (size)
            key->bytes[8 + size - 1] = (uint8_t)next_random(256);
        key->size = 8 + size;
    }
    }
}

static void make_keys(void)
{
    size_t count = 0;
    while (count < KEY_COUNT) {
        make_key(&keys[count]);
        bool known = false;
        for (size_t i = 0; i < count && !known; i++)
            known = compare_keys(&keys[i], &keys[count]) == 0;
        if (!known)
            count++;
    }
    qsort(keys, KEY_COUNT, sizeof keys[0], compare_keys);
}

static void make_value(const model_value *value, uint8_t *bytes)
{
    for (uint32_t i = 0; i < value->size; i++)
        bytes[i] = (uint8_t)(value->tag * 2654435761u + i * 7);
}

static void check_value(const model_value *value, const uint8_t *bytes, size_t size)
{
    uint8_t expected[VALUE_MAX];
    make_value(value, expected);
    EXPECT(size == value->size);
    EXPECT(size == 0 || memcmp(bytes, expected, size) == 0);
}

/* The first key of the sorted list that is >= this one. */
static size_t lower_bound(const uint8_t *bytes, size_t size)
{
    size_t i = 0;
    while (i < KEY_COUNT && compare_bytes(keys[i].bytes, keys[i].size, bytes, size) < 0)
        i++;
    return i;
}

static bool has_prefix(const model_key *key, const model_key *prefix, size_t prefix_size)
{
    return key->size >= prefix_size && memcmp(key->bytes, prefix->bytes, prefix_size) == 0;
}

typedef struct walk {
    npk_kv *kv;
    const model *m;
    unsigned table;
    size_t position, prefix_size, stop_after, visited;
    const model_key *prefix;
} walk;

static void skip_absent(walk *w)
{
    while (w->position < KEY_COUNT && !w->m->values[w->table][w->position].there)
        w->position++;
}

static npk_status check_visit(void *context, const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size,
                              bool *stop, npk_error *err)
{
    walk *w = context;
    skip_absent(w);
    EXPECT(w->position < KEY_COUNT);
    EXPECT(compare_bytes(key, key_size, keys[w->position].bytes, keys[w->position].size) == 0);
    check_value(&w->m->values[w->table][w->position], value, value_size);
    if (next_random(8) == 0) { /* a search from inside must not lead the scan astray */
        npk_buffer k, v;
        npk_buffer_init(&k);
        npk_buffer_init(&v);
        bool found;
        const model_key *other = &keys[next_random(KEY_COUNT)];
        EXPECT(npk_kv_at_or_after(w->kv, tables[w->table], other->bytes, other->size, &k, &v, &found, err) == NPK_OK);
        EXPECT(npk_kv_at_or_before(w->kv, tables[w->table], other->bytes, other->size, &k, &v, &found, err) == NPK_OK);
        npk_buffer_release(&k);
        npk_buffer_release(&v);
        check_value(&w->m->values[w->table][w->position], value, value_size);
    }
    w->position++;
    *stop = ++w->visited == w->stop_after;
    return NPK_OK;
}

static void check_scan(npk_kv *kv, const model *m, unsigned table, const model_key *prefix, size_t prefix_size,
                       const model_key *from, size_t stop_after)
{
    npk_error err = {0};
    walk w = {kv, m, table, lower_bound(prefix->bytes, prefix_size), prefix_size, stop_after, 0, prefix};
    if (from) {
        size_t start = lower_bound(from->bytes, from->size);
        if (start > w.position)
            w.position = start;
    }
    EXPECT(npk_kv_scan(kv, tables[table], prefix->bytes, prefix_size, from ? from->bytes : NULL,
                              from ? from->size : 0, check_visit, &w, &err) == NPK_OK);
    if (stop_after && w.visited == stop_after)
        return;
    skip_absent(&w);
    EXPECT(w.position == KEY_COUNT || !has_prefix(&keys[w.position], prefix, prefix_size));
}

static void check_search(npk_kv *kv, const model *m, unsigned table, const model_key *key, bool forward)
{
    npk_error err = {0};
    npk_buffer k, v;
    npk_buffer_init(&k);
    npk_buffer_init(&v);
    bool found;
    npk_status status = (forward ? npk_kv_at_or_after : npk_kv_at_or_before)(kv, tables[table], key->bytes, key->size, &k,
                                                                            &v, &found, &err);
    EXPECT(status == NPK_OK);
    size_t position = lower_bound(key->bytes, key->size);
    bool expected = false;
    if (forward) {
        for (; position < KEY_COUNT && !expected; position += !expected)
            expected = m->values[table][position].there;
    } else {
        if (position < KEY_COUNT && compare_keys(&keys[position], key) == 0)
            position++;
        while (position > 0 && !expected)
            expected = m->values[table][--position].there;
    }
    EXPECT(found == (expected));
    if (found) {
        EXPECT(compare_bytes(k.data, k.size, keys[position].bytes, keys[position].size) == 0);
        check_value(&m->values[table][position], v.data, v.size);
    } else {
        ck_assert_uint_eq(k.size, 0);
        ck_assert_uint_eq(v.size, 0);
    }
    npk_buffer_release(&k);
    npk_buffer_release(&v);
}

static void check_get(npk_kv *kv, const model *m, unsigned table, size_t i)
{
    npk_error err = {0};
    npk_buffer v;
    npk_buffer_init(&v);
    bool found;
    EXPECT(npk_kv_get(kv, tables[table], keys[i].bytes, keys[i].size, &v, &found, &err) == NPK_OK);
    EXPECT(found == (m->values[table][i].there));
    if (found)
        check_value(&m->values[table][i], v.data, v.size);
    else
        ck_assert_uint_eq(v.size, 0);
    npk_buffer_release(&v);
}

typedef struct changes_sum {
    size_t count, size;
    npk_table table;
    uint8_t key[NPK_KEY_MAX];
    size_t key_size;
} changes_sum;

static unsigned place_in_index(npk_table table)
{
    unsigned place = 0;
    while (npk_index_order[place] != table)
        place++;
    return place;
}

static npk_status sum_change(void *context, npk_table table, const uint8_t *key, size_t key_size, const uint8_t *value,
                             size_t value_size, npk_error *err)
{
    (void)err;
    changes_sum *sum = context;
    EXPECT(sum->count == 0 || place_in_index(table) > place_in_index(sum->table)
              || (table == sum->table && compare_bytes(key, key_size, sum->key, sum->key_size) > 0));
    EXPECT(value || value_size == 0);
    sum->count++;
    sum->size += key_size + value_size;
    sum->table = table;
    memcpy(sum->key, key, key_size);
    sum->key_size = key_size;
    return NPK_OK;
}

static void check_changes(npk_kv *kv)
{
    changes_sum sum = {0};
    ck_assert_int_eq(npk_kv_changes(kv, sum_change, &sum, NULL), NPK_OK);
    ck_assert_uint_eq(sum.count, npk_kv_change_count(kv));
    ck_assert_uint_eq(sum.size, npk_kv_change_size(kv));
}

static int refuse_some(void *context, size_t size)
{
    (void)context;
    (void)size;
    return next_random(3) == 0;
}

static void run_model(npk_index *base, uint64_t seed)
{
    printf("seed %llu\n", (unsigned long long)seed);
    random_state = seed;
    make_keys();
    npk_error err = {0};
    npk_kv *kv;
    ck_assert_int_eq(npk_kv_open(base, &kv, &err), NPK_OK);
    EXPECT(npk_kv_base(kv) == base);
    static model now, published, marked[MARK_COUNT];
    memset(&now, 0, sizeof now);
    memset(&published, 0, sizeof published);
    uint64_t marks[MARK_COUNT];
    unsigned mark_count = 0;
    uint8_t bytes[VALUE_MAX];
    for (unsigned n = 0; n < OPERATION_COUNT; n++) {
        unsigned table = (unsigned)next_random(TABLE_COUNT);
        size_t i = next_random(KEY_COUNT);
        bool short_of_memory = next_random(20) == 0;
        switch (next_random(40)) {
        default: {
            model_value value = {true, (uint32_t)next_random(1u << 30), (uint32_t)next_random(next_random(20) ? 60 : VALUE_MAX)};
            make_value(&value, bytes);
            if (short_of_memory)
                npk_alloc_set_hook(refuse_some, NULL);
            npk_status status = npk_kv_put(kv, tables[table], keys[i].bytes, keys[i].size, bytes, value.size, &err);
            npk_alloc_set_hook(NULL, NULL);
            if (status == NPK_OK)
                now.values[table][i] = value;
            else
                ck_assert_int_eq(status, NPK_NO_MEMORY);
            break;
        }
        case 0: case 1: case 2: case 3: case 4: case 5: case 6: {
            if (short_of_memory)
                npk_alloc_set_hook(refuse_some, NULL);
            npk_status status = npk_kv_delete(kv, tables[table], keys[i].bytes, keys[i].size, &err);
            npk_alloc_set_hook(NULL, NULL);
            if (status == NPK_OK)
                now.values[table][i].there = false;
            else
                ck_assert_int_eq(status, NPK_NO_MEMORY);
            break;
        }
        case 7: {
            size_t prefix_size = 1 + next_random(keys[i].size);
            if (prefix_size < 8 && next_random(10)) /* not everything each time */
                prefix_size = keys[i].size;
            if (short_of_memory)
                npk_alloc_set_hook(refuse_some, NULL);
            npk_status status = npk_kv_delete_prefix(kv, tables[table], keys[i].bytes, prefix_size, &err);
            npk_alloc_set_hook(NULL, NULL);
            for (size_t k = 0; k < KEY_COUNT && status == NPK_OK; k++)
                if (has_prefix(&keys[k], &keys[i], prefix_size))
                    now.values[table][k].there = false;
            break;
        }
        case 8: case 9: case 10: case 11: case 12: check_get(kv, &now, table, i); break;
        case 13: case 14: case 15: check_search(kv, &now, table, &keys[i], true); break;
        case 16: case 17: case 18: check_search(kv, &now, table, &keys[i], false); break;
        case 19: {
            model_key other; /* most likely one that is not there */
            memset(&other, 0, sizeof other);
            make_key(&other);
            check_search(kv, &now, table, &other, next_random(2));
            break;
        }
        case 20: case 21:
            check_scan(kv, &now, table, &keys[i], next_random(keys[i].size + 1),
                       next_random(2) ? &keys[next_random(KEY_COUNT)] : NULL, next_random(2) ? next_random(20) : 0);
            break;
        case 22:
            if (mark_count < MARK_COUNT) {
                marks[mark_count] = npk_kv_mark(kv);
                marked[mark_count++] = now;
            }
            break;
        case 23:
            if (mark_count > 0 && next_random(3) == 0) {
                unsigned to = (unsigned)next_random(mark_count);
                npk_alloc_set_hook(refuse_some, NULL); /* going back needs none */
                npk_kv_rollback(kv, marks[to]);
                npk_alloc_set_hook(NULL, NULL);
                now = marked[to];
                mark_count = to + 1;
            }
            break;
        case 24:
            if (next_random(20) == 0) {
                npk_kv_forget_marks(kv);
                mark_count = 0;
            }
            break;
        case 25: check_changes(kv); break;
        case 26:
            if (next_random(30) == 0) {
                if (base && next_random(3)) {
                    ck_assert_msg(npk_index_publish(base, kv, NULL, &err) == NPK_OK, "%s", err.message);
                    published = now;
                }
                npk_kv_clear(kv);
                now = published;
                mark_count = 0;
                ck_assert_uint_eq(npk_kv_change_count(kv), 0);
                ck_assert_uint_eq(npk_kv_change_size(kv), 0);
            }
            break;
        case 27:
            if (next_random(2)) {
                npk_kv_begin_read(kv);
                check_get(kv, &now, table, i);
                check_scan(kv, &now, table, &keys[i], 1, NULL, 5);
                check_search(kv, &now, table, &keys[i], false);
                npk_kv_end_read(kv);
            }
            break;
        }
        if (n % 997 == 0) {
            model_key nothing = {.size = 0};
            for (unsigned t = 0; t < TABLE_COUNT; t++)
                check_scan(kv, &now, t, &nothing, 0, NULL, 0);
            if (!base) { /* the changes are the content */
                size_t there = 0;
                for (unsigned t = 0; t < TABLE_COUNT; t++)
                    for (size_t k = 0; k < KEY_COUNT; k++)
                        there += now.values[t][k].there;
                ck_assert_uint_eq(there, npk_kv_change_count(kv));
            }
        }
    }
    npk_kv_close(kv);
}

START_TEST(random_changes_in_memory_match_the_model)
{
    run_model(NULL, 1 + (uint64_t)_i);
}
END_TEST

START_TEST(random_changes_over_an_index_match_the_model)
{
    const npk_io *io = npk_io_posix();
    char path[] = "/tmp/npk-test-kv-XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(path));
    npk_error err = {0};
    npk_file *directory;
    ck_assert_int_eq(io->open_root(io, path, false, &directory, NULL), 0);
    npk_index *index;
    ck_assert_msg(npk_index_open(io, directory, "0123456789abcdef", true, 16 << 20, &index, &err) == NPK_OK, "%s",
                  err.message);
    run_model(index, 100 + (uint64_t)_i);
    npk_index_close(index);
    npk_file *inner;
    ck_assert_int_eq(io->open(io, directory, "0123456789abcdef", NPK_OPEN_DIRECTORY, &inner), 0);
    ck_assert_int_eq(io->unlink(io, inner, "data.mdb"), 0);
    ck_assert_int_eq(io->unlink(io, inner, "lock.mdb"), 0);
    io->close(io, inner);
    ck_assert_int_eq(io->remove_directory(io, directory, "0123456789abcdef"), 0);
    io->close(io, directory);
    ck_assert_int_eq(remove(path), 0);
}
END_TEST

START_TEST(keys_out_of_range_are_refused)
{
    npk_error err = {0};
    npk_kv *kv;
    ck_assert_int_eq(npk_kv_open(NULL, &kv, &err), NPK_OK);
    uint8_t key[NPK_KEY_MAX + 1] = {0};
    ck_assert_int_eq(npk_kv_put(kv, NPK_TABLE_ROWS, key, 0, "x", 1, &err), NPK_INVALID);
    ck_assert_int_eq(npk_kv_put(kv, NPK_TABLE_ROWS, key, sizeof key, "x", 1, &err), NPK_INVALID);
    EXPECT(npk_kv_put(kv, NPK_TABLE_ROWS, key, NPK_KEY_MAX, "x", 1, &err) == NPK_OK);
    ck_assert_int_eq(npk_kv_delete(kv, NPK_TABLE_ROWS, key, 0, &err), NPK_INVALID);
    npk_buffer value;
    npk_buffer_init(&value);
    bool found = true;
    EXPECT(npk_kv_get(kv, NPK_TABLE_ROWS, key, sizeof key, &value, &found, &err) == NPK_OK);
    EXPECT(!found);
    npk_buffer_release(&value);
    npk_kv_close(kv);
    npk_kv_close(NULL);
}
END_TEST

START_TEST(many_entries_in_any_order_are_all_found)
{
    enum { COUNT = 300000 };
    npk_error err = {0};
    npk_kv *kv;
    ck_assert_int_eq(npk_kv_open(NULL, &kv, &err), NPK_OK);
    random_state = 7;
    uint8_t key[17] = {0};
    for (uint64_t i = 0; i < COUNT; i++) {
        uint64_t slot = _i == 0 ? i : _i == 1 ? COUNT - 1 - i : i * 7919 % COUNT; /* 7919 shares no factor with COUNT */
        npk_put_be64(key + 9, slot);
        EXPECT(npk_kv_put(kv, NPK_TABLE_ROWS, key, sizeof key, &slot, sizeof slot, &err) == NPK_OK);
    }
    ck_assert_uint_eq(npk_kv_change_count(kv), COUNT);
    npk_buffer k, v;
    npk_buffer_init(&k);
    npk_buffer_init(&v);
    for (uint64_t slot = 0; slot < COUNT; slot++) {
        bool found = false;
        npk_put_be64(key + 9, slot);
        EXPECT(npk_kv_get(kv, NPK_TABLE_ROWS, key, sizeof key, &v, &found, &err) == NPK_OK);
        EXPECT(found && v.size == 8 && memcmp(v.data, &slot, 8) == 0);
    }
    check_changes(kv);
    npk_kv_rollback(kv, 0);
    ck_assert_uint_eq(npk_kv_change_count(kv), 0);
    ck_assert_uint_eq(npk_kv_change_size(kv), 0);
    npk_buffer_release(&k);
    npk_buffer_release(&v);
    npk_kv_close(kv);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kv");
    TCase *tests = tcase_create("kv");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, random_changes_in_memory_match_the_model, 0, 2);
    tcase_add_loop_test(tests, random_changes_over_an_index_match_the_model, 0, 2);
    tcase_add_test(tests, keys_out_of_range_are_refused);
    tcase_add_loop_test(tests, many_entries_in_any_order_are_all_found, 0, 3);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
