/* explorer_walk.c - which states are checked, each once, and how a case is named and found again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "explorer_parts.h"

enum { NESTED_POINTS_AT_ONCE = 10, PER_POINT_LEAST = 24 };

/* ---- states to come -------------------------------------------------------------------------------------------------- */

typedef struct candidate {
    uint32_t point;
    memory_io_selection selection;
} candidate;

typedef struct candidates {
    candidate *items;
    size_t count, capacity;
    size_t first;      /* of the point at work: a sample of its selections is kept from here on */
    size_t most, seen; /* of that sample; 0: all */
    uint32_t point;
    rng *random;
} candidates;

static void add(candidates *list, const memory_io_selection *selection)
{
    size_t place = list->count;
    list->seen++;
    if (list->most && list->count - list->first >= list->most) { /* a reservoir: each selection is as likely to stay */
        uint64_t other = rng_below(list->random, list->seen);
        if (other >= list->most)
            return;
        place = list->first + other;
    } else if (list->count++ == list->capacity) {
        list->capacity = list->capacity ? list->capacity * 2 : 1024;
        list->items = realloc(list->items, list->capacity * sizeof *list->items);
        if (!list->items)
            abort();
    }
    list->items[place] = (candidate){list->point, *selection};
}

static int add_visited(void *context, const memory_io_selection *selection)
{
    add(context, selection);
    return 0;
}

static void shuffle(candidates *list, size_t first)
{
    for (size_t i = list->count; i > first + 1; i--) {
        size_t other = first + rng_below(list->random, i - first);
        candidate kept = list->items[i - 1];
        list->items[i - 1] = list->items[other];
        list->items[other] = kept;
    }
}

/* First what every point must show, then a sample of the rest, each in random order so that any number of them is spread over the run. */
static void collect(const explorer_history *history, uint64_t state_count, rng *random, candidates *list)
{
    static const memory_io_select always[] = {MEMORY_IO_NONE, MEMORY_IO_ALL, MEMORY_IO_PROCESS_DIED};
    *list = (candidates){.random = random};
    for (size_t i = 0; i < history->point_count; i++) {
        list->point = (uint32_t)i;
        for (size_t k = 0; k < sizeof always / sizeof always[0]; k++)
            add(list, &(memory_io_selection){.select = always[k]});
    }
    shuffle(list, 0);
    size_t rest = list->count, share = 0; /* random ones, and of each kind of selection; without a limit all of those */
    if (state_count && history->point_count)
        share = (size_t)(4 * state_count / history->point_count) + 16;
    for (size_t i = 0; i < history->point_count; i++) {
        list->point = (uint32_t)i;
        list->first = list->count;
        list->seen = 0;
        list->most = state_count ? 4 * state_count / history->point_count + PER_POINT_LEAST : 0;
        (void)memory_io_select_all(history->points[i].snapshot, rng_next(random), share ? share : 100, share, add_visited, list);
    }
    shuffle(list, rest);
}

/* ---- states that were seen ---------------------------------------------------------------------------------------------- */

typedef struct seen_states {
    uint64_t *keys; /* 0: free */
    size_t count, capacity;
} seen_states;

static bool put(uint64_t *keys, size_t capacity, uint64_t key)
{
    for (size_t i = key & (capacity - 1);; i = (i + 1) & (capacity - 1)) {
        if (keys[i] == key)
            return false;
        if (keys[i] == 0) {
            keys[i] = key;
            return true;
        }
    }
}

static bool is_new(seen_states *seen, uint64_t key)
{
    if (2 * (seen->count + 1) > seen->capacity) {
        size_t capacity = seen->capacity ? seen->capacity * 2 : 4096;
        uint64_t *keys = calloc(capacity, sizeof *keys);
        if (!keys)
            abort();
        for (size_t i = 0; i < seen->capacity; i++)
            if (seen->keys[i])
                (void)put(keys, capacity, seen->keys[i]);
        free(seen->keys);
        seen->keys = keys;
        seen->capacity = capacity;
    }
    bool fresh = put(seen->keys, seen->capacity, key ? key : 1);
    seen->count += fresh;
    return fresh;
}

/* Two states are one if the trees are equal and the oracle asks the same. After a process death the pending units count as well. */
static uint64_t key_of(const explorer_point *point, const memory_io_selection *selection)
{
    memory_io *disk = memory_io_materialize(point->snapshot, selection, NULL);
    bool died = selection->select == MEMORY_IO_PROCESS_DIED;
    uint64_t words[6] = {memory_io_hash(disk), died, died ? memory_snapshot_unit_count(point->snapshot) : 0,
                         died ? point->acknowledged : point->durable, point->started, point->created};
    memory_io_destroy(disk);
    return npk_checksum(words, sizeof words);
}

/* ---- walking ----------------------------------------------------------------------------------------------------------------- */

typedef struct walk {
    explorer *x;
    explorer_totals *totals;
    rng random;
    seen_states seen, nested_seen;
} walk;

static void name_case(const walk *w, const candidate *outer, const candidate *inner, char *text)
{
    char a[64], b[64] = "";
    memory_io_selection_format(&outer->selection, a, sizeof a);
    int used = snprintf(text, EXPLORER_CASE_MAX, "%s/%llu/%s/%u/%s", w->x->scenario->name,
                        (unsigned long long)w->x->settings.seed, w->x->settings.names_follow_sync ? "ext4" : "strict",
                        outer->point, a);
    if (!inner)
        return;
    memory_io_selection_format(&inner->selection, b, sizeof b);
    (void)snprintf(text + used, EXPLORER_CASE_MAX - (size_t)used, "/%u/%s", inner->point, b);
}

static void report(const char *name, const explorer_point *point, const char *text)
{
    (void)fprintf(stderr, "VIOLATION NPK_CASE=%s\n  %s\n  point: %s; durable %u, acknowledged %u, started %u%s\n", name, text,
                  point->call, point->durable, point->acknowledged, point->started, point->created ? "" : ", not created");
}

static bool check_one(walk *w, const explorer_history *history, const candidate *outer, const candidate *inner,
                      explorer_history *nested)
{
    const candidate *at = inner ? inner : outer;
    const explorer_point *point = &history->points[at->point];
    char name[EXPLORER_CASE_MAX], text[1024];
    name_case(w, outer, inner, name);
    if (w->x->settings.now)
        memcpy(w->x->settings.now, name, sizeof name);
    bool good = explorer_check(w->x, history, point, &at->selection, nested, text, sizeof text);
    if (!good && ++w->totals->violations <= 12)
        report(name, point, text);
    return good;
}

/* Depth 2: a few states of a few points of one recovery. */
static void walk_nested(walk *w, const candidate *outer, const explorer_history *nested)
{
    w->totals->nested_points += nested->point_count;
    for (unsigned i = 0; i < NESTED_POINTS_AT_ONCE && nested->point_count; i++) {
        candidate inner = {.point = (uint32_t)rng_below(&w->random, nested->point_count)};
        memory_io_selection *selection = &inner.selection;
        *selection = (memory_io_selection){.seed = rng_next(&w->random)};
        const memory_snapshot *snapshot = nested->points[inner.point].snapshot;
        size_t units = memory_snapshot_unit_count(snapshot), torn = memory_snapshot_torn_count(snapshot);
        switch (rng_below(&w->random, 9)) {
        case 0: selection->select = MEMORY_IO_NONE; break;
        case 1: selection->select = MEMORY_IO_ALL; break;
        case 2: selection->select = MEMORY_IO_PROCESS_DIED; break;
        case 3: selection->select = MEMORY_IO_DATA_ONLY; break;
        case 4: selection->select = MEMORY_IO_NAMES_ONLY; break;
        case 5: selection->select = torn ? MEMORY_IO_TORN : MEMORY_IO_FILES; break;
        case 6: selection->select = MEMORY_IO_DROP_ONE; break;
        default: selection->select = MEMORY_IO_RANDOM; break;
        }
        uint64_t number = rng_next(&w->random);
        selection->index = selection->select == MEMORY_IO_TORN       ? number % (torn + 1)
                           : selection->select == MEMORY_IO_DROP_ONE ? number % (units + 1)
                           : selection->select == MEMORY_IO_FILES    ? number
                                                                     : 0;
        if (!is_new(&w->nested_seen, key_of(&nested->points[inner.point], selection)))
            continue;
        w->totals->nested++;
        (void)check_one(w, nested, outer, &inner, NULL);
    }
}

void explorer_explore(explorer *x, explorer_totals *totals)
{
    *totals = (explorer_totals){.points = x->history.point_count};
    walk w = {.x = x, .totals = totals, .random = rng_seeded(x->settings.seed + 1)};
    candidates list;
    collect(&x->history, x->settings.state_count, &w.random, &list);
    uint64_t states = x->settings.state_count ? x->settings.state_count : list.count;
    for (size_t i = 0; i < list.count && totals->distinct < states; i++) {
        const candidate *at = &list.items[i];
        totals->tried++;
        if (!is_new(&w.seen, key_of(&x->history.points[at->point], &at->selection)))
            continue;
        /* Spread the nested states over the outer ones. */
        bool deep = totals->nested * states <= x->settings.nested_count * totals->distinct &&
                    totals->nested < x->settings.nested_count;
        totals->distinct++;
        explorer_history nested;
        explorer_history_init(&nested);
        if (check_one(&w, &x->history, at, NULL, deep ? &nested : NULL) && deep)
            walk_nested(&w, at, &nested);
        explorer_history_release(&nested);
    }
    free(list.items);
    free(w.seen.keys);
    free(w.nested_seen.keys);
}

/* ---- one case again ------------------------------------------------------------------------------------------------------------ */

static bool parse_place(const char *text, candidate *at, const char **rest)
{
    unsigned point;
    char selection[96];
    int used = 0;
    if (sscanf(text, "%u/%95[^/]%n", &point, selection, &used) != 2 ||
        memory_io_selection_parse(selection, &at->selection) != 0)
        return false;
    at->point = point;
    *rest = text + used + (text[used] == '/');
    return true;
}

bool explorer_replay(explorer *x, const char *place)
{
    explorer_totals totals = {0};
    walk w = {.x = x, .totals = &totals};
    candidate outer, inner;
    const char *rest;
    if (!parse_place(place, &outer, &rest) || outer.point >= x->history.point_count) {
        (void)fprintf(stderr, "no such state: %s\n", place);
        return false;
    }
    bool deep = *rest != '\0';
    explorer_history nested;
    explorer_history_init(&nested);
    bool good = check_one(&w, &x->history, &outer, NULL, deep ? &nested : NULL);
    if (good && deep) {
        good = parse_place(rest, &inner, &rest) && inner.point < nested.point_count;
        if (good)
            good = check_one(&w, &nested, &outer, &inner, NULL);
        else
            (void)fprintf(stderr, "no such state: %s\n", place);
    }
    explorer_history_release(&nested);
    return good;
}
