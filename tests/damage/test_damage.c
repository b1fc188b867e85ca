/* test_damage.c - whatever becomes of a store's files, each value that is read is right or an error says what is damaged: never a wrong value that
 * verify does not name, never a signal, never a refusal of what a crash can leave. Stores and damages: lib/damage.h; how to run more: README.md. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <check.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "alloc.h"
#include "check_main.h"
#include "damage.h"

#define WORKERS_MAX 16
#define BATCH 2000       /* cases of one child: it also bounds what a leak could pile up */
#define FAILURES_SHOWN 12
#define CASE_SECONDS 60
#define ALLOCATION_MAX ((size_t)64 << 20) /* the stores are below 2 MiB: who asks for more believes a damaged size */
#define FINDINGS_MAX 512
#define TEXT_SIZE 2048

typedef struct counts {
    uint64_t cases, refused, exact, older, named, reported, gone_on;
    uint64_t largest;                   /* allocation */
    uint64_t kinds[DAMAGE_KIND_COUNT];
} counts;

typedef struct worker { /* shared with its children */
    atomic_size_t next; /* the case at work, or the first that is not done */
    counts sum;
    bool failed;
    char text[TEXT_SIZE];
} worker;

static damage_store stores[DAMAGE_STORE_COUNT];
static worker *workers;
static char directory[64];

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

/* ---- one case --------------------------------------------------------------------------------------------------------------- */

typedef struct finding_list {
    npk_finding items[FINDINGS_MAX];
    int count;
} finding_list;

typedef struct trial {
    const damage_store *store;
    const damage_case *c;
    damage_range range;
    memory_io *memory;
    npk_store *opened;
    finding_list findings;
    counts *sum;
    char *text; /* what is wrong, TEXT_SIZE bytes */
    bool refused, named;
} trial;

#define WRONG(t, ...) ((void)snprintf((t)->text, TEXT_SIZE, __VA_ARGS__), false)

static int watch_size(void *context, size_t size)
{
    counts *sum = context;
    if (size > sum->largest)
        sum->largest = size;
    return 0;
}

static void note_finding(void *context, const npk_finding *finding)
{
    finding_list *list = context;
    if (list->count < FINDINGS_MAX)
        list->items[list->count++] = *finding;
}

static bool is_named(const finding_list *list, const char *array, uint64_t row)
{
    for (int i = 0; i < list->count; i++) {
        const npk_finding *f = &list->items[i];
        if (strcmp(f->array, array) == 0 && f->first_row >= 0 && row >= (uint64_t)f->first_row &&
            row - (uint64_t)f->first_row < (uint64_t)f->row_count)
            return true;
    }
    return false;
}

static bool is_one_damage(const damage_case *c)
{
    return c->kind != DAMAGE_SEVERAL && c->kind != DAMAGE_UNPROVEN;
}

/* Only what was damaged may be named; rows in an array that cannot be opened at all name no file. */
static bool findings_fit(trial *t)
{
    const char *path = t->store->files[t->c->file].path;
    for (int i = 0; i < t->findings.count && is_one_damage(t->c) && t->c->kind != DAMAGE_EXCHANGE; i++) {
        const npk_finding *f = &t->findings.items[i];
        if (f->file[0] && strcmp(f->file, path) != 0)
            return WRONG(t, "verify names %s at %llu: %s", f->file, (unsigned long long)f->offset, f->reason);
        if (!f->reason[0] || (!f->file[0] && !f->array[0]))
            return WRONG(t, "verify names neither file nor array: \"%s\"", f->reason);
    }
    return true;
}

static bool verify(trial *t)
{
    npk_error err = {0};
    t->findings.count = 0;
    npk_status status = npk_store_verify(t->opened, note_finding, NULL, &t->findings, &err);
    if (status != (t->findings.count ? NPK_CORRUPT : NPK_OK))
        return WRONG(t, "verify: %d findings, but %s: %s", t->findings.count, npk_status_kind(status), err.message);
    return findings_fit(t);
}

/* ---- what it holds ------------------------------------------------------------------------------------------------------------ */

struct listing {
    const model *m;
    int count, unknown;
    int64_t attrs[MODEL_ATTRS];
};

static void note_name(void *context, const char *name)
{
    struct listing *listing = context;
    for (int i = 0; i < MODEL_ARRAYS; i++)
        if (strcmp(listing->m->arrays[i].name, name) == 0 && name[0]) {
            listing->count++;
            return;
        }
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

static bool names_match(const model *m, const npk_source *source, const char **why)
{
    struct listing listing = {.m = m};
    int wanted = 0;
    for (int i = 0; i < MODEL_ATTRS; i++)
        listing.attrs[i] = -1;
    *why = "arrays cannot be listed";
    if (npk_list_arrays(source, note_name, &listing, NULL) != NPK_OK || npk_list_attrs(source, NULL, note_attr, &listing, NULL) != NPK_OK)
        return false;
    for (int i = 0; i < MODEL_ARRAYS; i++)
        wanted += m->arrays[i].name[0] != 0;
    *why = "names or attributes";
    return !listing.unknown && listing.count == wanted && memcmp(listing.attrs, m->attrs, sizeof m->attrs) == 0;
}

static bool is_honest(const npk_error *err, npk_status status, const char *name)
{
    return status == NPK_CORRUPT && strcmp(err->array, name) == 0 && strstr(err->message, name);
}

/* 1: as it must be; 0: another state; -1: an array or rows of it are named as damaged, the rest is as it must be; -2: wrong. */
static int array_matches(trial *t, const model_array *want, const npk_source *source)
{
    npk_error err = {.row = -1};
    npk_array *array = NULL;
    npk_status status = npk_array_open(source, want->name, &array, &err);
    if (status != NPK_OK) {
        if (is_honest(&err, status, want->name))
            return -1;
        (void)WRONG(t, "open \"%s\": %s: %s", want->name, npk_status_kind(status), err.message);
        return -2;
    }
    const npk_array_info *info = npk_array_describe(array);
    int result = info->row_count == want->row_count && info->row_size == want->row_size ? 1 : 0;
    uint64_t size = want->row_size * want->row_count;
    uint8_t *rows = malloc(size + 1);
    npk_region *region = NULL;
    if (result == 1) {
        status = npk_array_read(array, 0, want->row_count, rows, &err);
        if (status != NPK_OK) {
            result = is_honest(&err, status, want->name) && err.row >= 0 ? -1 : -2;
            if (result == -2)
                (void)WRONG(t, "read \"%s\": %s: %s (row %lld)", want->name, npk_status_kind(status), err.message, (long long)err.row);
        }
    }
    if (result == 1) { /* a map shows the same bytes, and touching them gives no signal */
        status = npk_array_map(array, 0, want->row_count, NPK_MAP_READ, &region, &err);
        if (status != NPK_OK || npk_region_size(region) != size || memcmp(npk_region_address(region), rows, size) != 0) {
            (void)WRONG(t, "map \"%s\": %s", want->name, status == NPK_OK ? "other bytes than read" : err.message);
            result = -2;
        }
        npk_region_release(region);
    }
    for (uint64_t row = 0; result == 1 && row < want->row_count; row++)
        if (memcmp(rows + row * want->row_size, want->rows + row * want->row_size, want->row_size) != 0) {
            bool is_told = true;
            for (; row < want->row_count && is_told; row++)
                if (memcmp(rows + row * want->row_size, want->rows + row * want->row_size, want->row_size) != 0)
                    is_told = is_named(&t->findings, want->name, row);
            result = is_told ? -1 : 0;
            if (!is_told)
                (void)WRONG(t, "\"%s\": row %llu differs and verify does not name it", want->name, (unsigned long long)row - 1);
        }
    free(rows);
    npk_array_release(array);
    return result;
}

/* Is this the state m, but for what is named? */
static int state_matches(trial *t, const model *m)
{
    npk_source source = {.store = t->opened};
    const char *why;
    if (!names_match(m, &source, &why)) {
        (void)WRONG(t, "%s", why);
        return 0;
    }
    int result = 1;
    for (int i = 0; i < MODEL_ARRAYS && (result == 1 || result == -1); i++) {
        if (!m->arrays[i].name[0])
            continue;
        int one = array_matches(t, &m->arrays[i], &source);
        result = one == 1 ? result : one;
    }
    return result;
}

/* ---- what is asked of a case ----------------------------------------------------------------------------------------------------- */

static bool is_in(const char *path, const char *room)
{
    return strncmp(path, room, strlen(room)) == 0;
}

/* Does this damage touch only what a crash may leave in any state, or what means nothing while nobody has the store open? */
static bool must_open(const trial *t)
{
    const damage_store *store = t->store;
    const char *path = store->files[t->c->file].path;
    if (!is_one_damage(t->c))
        return false;
    if (is_in(path, "LOCK") || is_in(path, "reserve") || is_in(path, "index/") || is_in(path, "columns/") || is_in(path, "checkpoint/"))
        return true;
    if (t->c->file != store->last_segment || strcmp(store->name, "closed") == 0)
        return false;
    uint64_t area_end = store->files[t->c->file].size - 4096; /* a foreign mark there is evidence */
    if (t->c->kind == DAMAGE_WIPE)
        return t->range.begin >= store->tail_offset;
    return !t->range.whole && t->range.begin >= store->tail_offset && t->range.end <= area_end;
}

/* The oldest state that may be seen: what is proven durable stays or is refused. */
static int lowest(const trial *t)
{
    const damage_store *store = t->store;
    const char *path = store->files[t->c->file].path;
    bool hits_columns = !is_one_damage(t->c) || is_in(path, "columns/");
    if (hits_columns && !store->is_synced) /* linked unsynced, and a later segment proves the log alone */
        return 0;
    if (!is_one_damage(t->c))
        return store->proven;
    if (!is_in(path, "wal/") || strcmp(store->name, "closed") == 0)
        return store->newest;
    if (t->c->file != store->last_segment)
        return store->newest;
    return t->range.whole || !store->is_synced ? store->proven : store->newest - 1;
}

static bool refused_well(trial *t, npk_status status, const npk_error *err, uint64_t hash)
{
    const char *path = t->store->files[t->c->file].path;
    t->refused = true;
    /* No store any more, by its magic. */
    bool is_format = status == NPK_FORMAT && (t->c->kind == DAMAGE_SEVERAL || (is_in(path, "FORMAT") && t->range.begin < 8));
    if (status != NPK_CORRUPT && !is_format)
        return WRONG(t, "open: %s: %s", npk_status_kind(status), err->message);
    if (strlen(err->message) < 20)
        return WRONG(t, "open says too little: %s", err->message);
    if (must_open(t))
        return WRONG(t, "open refuses although nothing durable is hit: %s", err->message);
    if (memory_io_hash(t->memory) != hash)
        return WRONG(t, "open refuses, but has changed something: %s", err->message);
    return true;
}

static npk_status open_store(trial *t, npk_error *err)
{
    npk_options options = {.struct_size = sizeof options, .mode = NPK_MODE_CREATE, .no_background = 1, .segment_size = 64 << 10,
                           .bulk_size = 24 << 10, .io = memory_io_table(t->memory)};
    return npk_store_open(DAMAGE_ROOT, &options, &t->opened, err);
}

static bool close_store(trial *t)
{
    npk_error err = {0};
    npk_status status = npk_store_close(t->opened, &err);
    t->opened = NULL;
    if (status != NPK_OK && !(status == NPK_CORRUPT && t->findings.count))
        return WRONG(t, "close: %s: %s", npk_status_kind(status), err.message);
    return true;
}

/* Writing, folding and closing launder nothing: what was damaged stays named, what was whole stays whole. */
static bool go_on(trial *t, const model *now)
{
    npk_error err = {0};
    npk_txn *txn = NULL;
    

    npk_status status = npk_txn_begin(t->opened, UINT32_MAX, &txn, &err);
    if (status == NPK_OK)
        status = npk_txn_set_attr(txn, NULL, "k0", "77", 2, &err);
    if (status == NPK_OK)
        status = npk_txn_commit(txn, NPK_SYNC_COMMIT, NULL, &err);
    else
        npk_txn_abort(txn);
    if (status != NPK_OK)
        return WRONG(t, "a transaction afterwards: %s: %s", npk_status_kind(status), err.message);
    bool had_findings = t->findings.count != 0;
    status = npk_store_compact(t->opened, NULL, &err);
    if (status != NPK_OK && !(status == NPK_CORRUPT && had_findings))
        return WRONG(t, "compact: %s: %s", npk_status_kind(status), err.message);
    if (!close_store(t))
        return false;
    status = open_store(t, &err);
    if (status != NPK_OK)
        return WRONG(t, "reopen: %s: %s", npk_status_kind(status), err.message);
    if (!verify(t))
        return false;
    model expected;
    model_init(&expected);
    model_copy(&expected, now);
    expected.attrs[0] = 77;
    char before[1024];
    int result = state_matches(t, &expected);
    model_release(&expected);
    if (result == 1 || (result == -1 && t->named))
        return true;
    (void)snprintf(before, sizeof before, "%.900s", t->text);
    return WRONG(t, "after compact, close and open: %s", result == -1 ? "new damage" : before);
}

static bool ask(trial *t, bool further)
{
    npk_error err = {.row = -1};
    uint64_t hash = memory_io_hash(t->memory);
    npk_status status = open_store(t, &err);
    if (status != NPK_OK)
        return refused_well(t, status, &err, hash);
    if (!verify(t))
        return false;
    int low = lowest(t), result = 0, j;
    char first[400] = "";
    for (j = t->store->newest; j >= low; j--) {
        result = state_matches(t, &t->store->history[j]);
        if (result)
            break;
        if (!first[0])
            (void)snprintf(first, sizeof first, "%.399s", t->text);
    }
    if (result == -2)
        return false;
    if (result == 0)
        return WRONG(t, "no state from %d to %d: %s", low, t->store->newest, first);
    t->named = result == -1;
    t->sum->named += t->named;
    t->sum->reported += !t->named && t->findings.count;
    t->sum->exact += !t->named && !t->findings.count && j == t->store->newest;
    t->sum->older += !t->named && !t->findings.count && j < t->store->newest;
    bool is_idle = is_in(t->store->files[t->c->file].path, "LOCK") || is_in(t->store->files[t->c->file].path, "reserve") ||
                   is_in(t->store->files[t->c->file].path, "index/") || is_in(t->store->files[t->c->file].path, "checkpoint/");
    if (is_idle && is_one_damage(t->c) && (result != 1 || t->findings.count || j < t->store->newest))
        return WRONG(t, "damage of what means nothing was seen: state %d of %d, %d findings", j, t->store->newest, t->findings.count);
    t->text[0] = '\0';
    if (further) {
        t->sum->gone_on++;
        if (!go_on(t, &t->store->history[j]))
            return false;
    }
    return close_store(t);
}

static bool one_case(const damage_case *c, size_t turn, const char *real_path, counts *sum, char text[TEXT_SIZE])
{
    static trial t;
    t = (trial){.store = &stores[c->store], .c = c, .sum = sum, .text = text};
    t.memory = damage_apply(stores, c, real_path, &t.range);
    bool good = ask(&t, turn % 8 == 0);
    if (t.opened)
        (void)npk_store_close(t.opened, NULL);
    if (good && memory_io_open_count(t.memory))
        good = WRONG(&t, "%zu files are left open", memory_io_open_count(t.memory));
    if (good && memory_io_map_count(t.memory))
        good = WRONG(&t, "%lld maps are left", (long long)memory_io_map_count(t.memory));
    if (good && sum->largest > ALLOCATION_MAX)
        good = WRONG(&t, "%llu bytes were to be allocated", (unsigned long long)sum->largest);
    memory_io_destroy(t.memory);
    sum->cases++;
    sum->refused += t.refused;
    sum->kinds[c->kind]++;
    return good;
}

/* ---- children ------------------------------------------------------------------------------------------------------------------------ */

static void name_real_path(size_t w, char path[128])
{
    (void)snprintf(path, 128, "%s/%zu", directory, w);
    (void)mkdir(path, 0777);
}

/* Every step-th case from w->next on, up to BATCH of them. */
static void work(worker *w, size_t which, const damage_case *cases, size_t count, size_t step)
{
    char real_path[128];
    name_real_path(which, real_path);
    npk_alloc_set_hook(watch_size, &w->sum);
    for (size_t done = 0; done < BATCH && atomic_load(&w->next) < count; done++) {
        size_t turn = atomic_load(&w->next);
        (void)alarm(CASE_SECONDS);
        w->failed = !one_case(&cases[turn], turn, real_path, &w->sum, w->text);
        if (w->failed)
            return;
        atomic_store(&w->next, turn + step);
    }
}

/* What a child that ended leaves to say; true: it failed. */
static bool judge(worker *w, int status, const damage_case *cases, size_t step)
{
    size_t turn = atomic_load(&w->next);
    bool died = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    if (!died && !w->failed)
        return false;
    char text[160];
    damage_format(stores, &cases[turn], text);
    if (WIFSIGNALED(status))
        (void)printf("NPK_CASE=%s: signal %d (%s)\n", text, WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        (void)printf("NPK_CASE=%s: %s\n", text, died ? "the child ended" : w->text);
    (void)fflush(stdout);
    w->failed = false;
    w->text[0] = '\0';
    if (w->sum.largest > ALLOCATION_MAX)
        w->sum.largest = 0;
    atomic_store(&w->next, turn + step);
    return true;
}

static size_t run_all(const damage_case *cases, size_t count, size_t worker_count)
{
    pid_t pids[WORKERS_MAX] = {0};
    size_t failures = 0, running = 0;
    for (size_t i = 0; i < worker_count; i++)
        atomic_store(&workers[i].next, i);
    for (;;) {
        for (size_t i = 0; i < worker_count; i++) {
            if (pids[i] || atomic_load(&workers[i].next) >= count || failures >= FAILURES_SHOWN)
                continue;
            (void)fflush(stdout);
            pids[i] = fork();
            ck_assert_int_ge(pids[i], 0);
            if (pids[i] == 0) {
                work(&workers[i], i, cases, count, worker_count);
                _exit(0);
            }
            running++;
        }
        if (!running)
            return failures;
        int status;
        pid_t ended = waitpid(-1, &status, 0);
        ck_assert_int_gt(ended, 0);
        for (size_t i = 0; i < worker_count; i++)
            if (pids[i] == ended) {
                failures += judge(&workers[i], status, cases, worker_count);
                pids[i] = 0;
                running--;
            }
    }
}

/* ---- running --------------------------------------------------------------------------------------------------------------------------- */

static void print_counts(const counts *sum, uint64_t seed)
{
    (void)printf("damage: %llu cases, %llu refused, %llu unharmed, %llu tails cut, %llu named when read or by verify, %llu reported beside the rows; "
                 "%llu went on writing; largest allocation %llu bytes; seed %llu\n",
                 (unsigned long long)sum->cases, (unsigned long long)sum->refused, (unsigned long long)sum->exact,
                 (unsigned long long)sum->older, (unsigned long long)sum->named, (unsigned long long)sum->reported,
                 (unsigned long long)sum->gone_on, (unsigned long long)sum->largest, (unsigned long long)seed);
    (void)printf("damage:");
    for (int k = 0; k < DAMAGE_KIND_COUNT; k++)
        (void)printf(" %s %llu", damage_kind_name((damage_kind)k), (unsigned long long)sum->kinds[k]);
    (void)printf("\n");
    (void)fflush(stdout);
}

START_TEST(test_damage_gives_right_values_or_a_named_error)
{
    if (getenv("NPK_CASE"))
        return;
    uint64_t seed = number("NPK_SEED", 1);
    size_t count = 0, worker_count = number("NPK_JOBS", 2);
    worker_count = worker_count < 1 ? 1 : worker_count > WORKERS_MAX ? WORKERS_MAX : worker_count;
    damage_case *cases = damage_list(stores, seed, number("NPK_DAMAGES", 32000), &count);
    size_t failures = run_all(cases, count, worker_count);
    counts sum = {0};
    for (size_t i = 0; i < worker_count; i++) {
        const counts *one = &workers[i].sum;
        sum.cases += one->cases, sum.refused += one->refused, sum.exact += one->exact, sum.older += one->older;
        sum.named += one->named, sum.reported += one->reported, sum.gone_on += one->gone_on;
        sum.largest = one->largest > sum.largest ? one->largest : sum.largest;
        for (int k = 0; k < DAMAGE_KIND_COUNT; k++)
            sum.kinds[k] += one->kinds[k];
    }
    print_counts(&sum, seed);
    free(cases);
    ck_assert_uint_eq(failures, 0);
    ck_assert_uint_eq(sum.cases, count);
    if (!getenv("NPK_DAMAGES")) { /* each kind of answer was seen */
        ck_assert_uint_ge(count, 20000);
        ck_assert(sum.refused && sum.exact && sum.older && sum.named && sum.reported);
    }
}
END_TEST

/* NPK_CASE=store:file:kind:a:b */
START_TEST(test_the_given_case)
{
    const char *text = getenv("NPK_CASE");
    if (!text)
        return;
    damage_case c;
    ck_assert_msg(damage_parse(stores, text, &c), "no case: %s", text);
    char real_path[128];
    name_real_path(0, real_path);
    npk_alloc_set_hook(watch_size, &workers[0].sum);
    bool good = one_case(&c, 0, real_path, &workers[0].sum, workers[0].text);
    npk_alloc_set_hook(NULL, NULL);
    print_counts(&workers[0].sum, 0);
    ck_assert_msg(good, "NPK_CASE=%s: %s", text, workers[0].text);
}
END_TEST

static void set_up(void)
{
    char real_path[128];
    (void)snprintf(real_path, sizeof real_path, "%s/make", directory);
    (void)mkdir(real_path, 0777);
    damage_make(stores, real_path);
}

static void tear_down(void)
{
    damage_release(stores);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        (void)setenv("NPK_CASE", argv[1], 1);
    workers = mmap(NULL, WORKERS_MAX * sizeof *workers, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    (void)snprintf(directory, sizeof directory, "/dev/shm/npk-damage-XXXXXX");
    if (workers == MAP_FAILED || !mkdtemp(directory))
        return EXIT_FAILURE;
    Suite *suite = suite_create("damage");
    TCase *tcase = tcase_create("files");
    tcase_set_timeout(tcase, 0);
    tcase_add_unchecked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, test_damage_gives_right_values_or_a_named_error);
    tcase_add_test(tcase, test_the_given_case);
    suite_add_tcase(suite, tcase);
    int result = check_main(suite);
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", directory);
    if (system(command) != 0)
        result = EXIT_FAILURE;
    return result;
}
