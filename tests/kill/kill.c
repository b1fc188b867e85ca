/* kill.c - processes that write one store die by SIGKILL at random moments; after each death the content is compared.
 *
 * Several writers and a reader share a store. Transaction j + 1 follows from what the store says j is, whoever writes it, so a
 * model that never saw the store can follow. What must hold after every death, at every sync level: the content equals the
 * model after exactly one transaction j with acknowledged <= j <= started, and verify finds nothing.
 *
 * The driver itself never opens the store: everything that touches it is a child, so that a crash of the library is a failed
 * round and no lock or map is inherited. */
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "model.h"
#include "npk.h"

enum { WRITER_COUNT = 3, PROCESS_COUNT = WRITER_COUNT + 1, BUFFER_SIZE = 2 << 20 };

/* Lives in shared anonymous memory: what a process wrote here before it died is still there. */
typedef struct board {
    _Atomic uint64_t started, acknowledged; /* transactions, over all writers */
    _Atomic uint64_t found;                 /* the j that the checker found */
    _Atomic int stop;
    _Atomic uint64_t commits, aborts, snapshots, folds, checkpoints, rolls, reclaims, tails;
    char message[2048]; /* of the first process that failed; written by one at a time in practice */
} board;

static board *shared;
static char directory[512], store_path[600];
static uint8_t *buffer;

static void raise_to(_Atomic uint64_t *target, uint64_t value)
{
    uint64_t seen = atomic_load(target);
    while (seen < value && !atomic_compare_exchange_weak(target, &seen, value))
        ;
}

static _Noreturn void give_up(const char *what, const npk_error *err)
{
    snprintf(shared->message, sizeof shared->message, "%s: %s: %s", what, npk_status_kind(err->status), err->message);
    _exit(1);
}

static npk_options options_for(npk_sync level, int background)
{
    /* Small limits: rolls, folds, checkpoints and reclaims happen within milliseconds. */
    return (npk_options){.struct_size = sizeof(npk_options), .mode = NPK_MODE_CREATE, .sync = level, .sync_interval_ms = 5,
                         .segment_size = 256 * 1024, .checkpoint_log_size = 1024 * 1024, .pending_limit = 512 * 1024,
                         .bulk_size = 64 * 1024, .no_background = !background, .program = "npk_kill"};
}

/* ---- reading the store's own idea of where it is ------------------------------------------------------------------ */

typedef struct attributes {
    uint64_t j;
    int64_t rows[ARRAY_COUNT];
    int has_rows;
    uint8_t note[4096];
    int64_t note_size;
} attributes;

static void take_attribute(void *context, const char *key, const void *value, size_t size)
{
    attributes *found = context;
    if (!strcmp(key, "j") && size == sizeof found->j)
        memcpy(&found->j, value, size);
    else if (!strcmp(key, "rows") && size == sizeof found->rows) {
        memcpy(found->rows, value, size);
        found->has_rows = 1;
    } else if (!strcmp(key, "note") && size <= sizeof found->note) {
        memcpy(found->note, value, size);
        found->note_size = (int64_t)size;
    }
}

static void read_attributes(const npk_source *source, attributes *found)
{
    npk_error err = {0};
    memset(found, 0, sizeof *found);
    found->note_size = -1;
    if (npk_list_attrs(source, NULL, take_attribute, found, &err) != NPK_OK)
        give_up("list attributes", &err);
}

static int64_t count_rows(const npk_source *source, int array)
{
    npk_error err = {0};
    npk_array *open;
    npk_status status = npk_array_open(source, array_names[array], &open, &err);
    if (status == NPK_NOT_FOUND)
        return -1;
    if (status != NPK_OK)
        give_up("open array", &err);
    int64_t rows = (int64_t)npk_array_describe(open)->row_count;
    npk_array_release(open);
    return rows;
}

/* ---- writers ------------------------------------------------------------------------------------------------------- */

static npk_status run_op(npk_txn *txn, const op *step, npk_error *err)
{
    const char *name = array_names[step->array];
    static int64_t oldest[BUFFER_SIZE / 8];
    uint64_t savepoint;
    npk_array_spec spec = {.descr = array_descrs[step->array], .row_size = row_sizes[step->array]};
    npk_status status;
    switch (step->kind) {
    case OP_SAVE:
    case OP_APPEND:
    case OP_REPLACE:
    case OP_REPLACE_RUN:
    case OP_UNDONE:
        fill_data(step->data_seed, buffer, step->count * row_sizes[step->array]);
        break;
    case OP_NOTE:
        fill_data(step->data_seed, buffer, step->count);
        break;
    case OP_DROP_OLDEST:
        for (uint64_t i = 0; i < step->count; i++)
            oldest[i] = (int64_t)i;
        break;
    case OP_DROP_ROWS:
    case OP_DROP_ARRAY:
        break;
    }
    switch (step->kind) {
    case OP_SAVE: return npk_txn_save(txn, name, &spec, step->count, buffer, err);
    case OP_APPEND: return npk_txn_append(txn, name, step->count, buffer, err);
    case OP_REPLACE: return npk_txn_replace(txn, name, step->count, step->rows, buffer, err);
    case OP_REPLACE_RUN: return npk_txn_replace_run(txn, name, step->first, step->count, buffer, err);
    case OP_DROP_ROWS: return npk_txn_drop_rows(txn, name, step->count, step->rows, err);
    case OP_DROP_OLDEST: return npk_txn_drop_rows(txn, name, step->count, oldest, err);
    case OP_DROP_ARRAY: return npk_txn_drop_array(txn, name, err);
    case OP_NOTE: return npk_txn_set_attr(txn, NULL, "note", buffer, step->count, err);
    case OP_UNDONE:
        if ((status = npk_txn_savepoint(txn, &savepoint, err)) != NPK_OK ||
            (status = npk_txn_append(txn, name, step->count, buffer, err)) != NPK_OK)
            return status;
        return npk_txn_rollback_to(txn, savepoint, err);
    }
    return NPK_INVALID;
}

static void write_one(npk_store *store, uint64_t seed, npk_sync level, uint64_t *dice)
{
    npk_error err = {0};
    npk_txn *txn;
    if (npk_txn_begin(store, UINT32_MAX, &txn, &err) != NPK_OK)
        give_up("begin", &err);
    npk_source source = {.txn = txn};
    attributes now;
    read_attributes(&source, &now);
    int64_t rows[ARRAY_COUNT];
    for (int i = 0; i < ARRAY_COUNT; i++) {
        rows[i] = count_rows(&source, i);
        if (now.has_rows && rows[i] != now.rows[i]) {
            snprintf(err.message, sizeof err.message, "array \"%s\" has %" PRId64 " rows after transaction %" PRIu64
                     ", which left %" PRId64, array_names[i], rows[i], now.j, now.rows[i]);
            give_up("writer", &err);
        }
    }
    plan next;
    uint64_t j = now.j + 1;
    plan_make(seed, j, rows, &next);
    raise_to(&shared->started, j);
    for (int i = 0; i < next.count; i++)
        if (run_op(txn, &next.ops[i], &err) != NPK_OK)
            give_up("operation", &err);
    if (npk_txn_set_attr(txn, NULL, "j", &j, sizeof j, &err) != NPK_OK ||
        npk_txn_set_attr(txn, NULL, "rows", next.rows_after, sizeof next.rows_after, &err) != NPK_OK)
        give_up("set attribute", &err);
    if (random_below(dice, 16) == 0) {
        npk_txn_abort(txn);
        atomic_fetch_add(&shared->aborts, 1);
        return;
    }
    npk_position position;
    if (npk_txn_commit(txn, level, &position, &err) != NPK_OK)
        give_up("commit", &err);
    raise_to(&shared->acknowledged, j);
    atomic_fetch_add(&shared->commits, 1);
}

static void tend(npk_store *store, uint64_t *dice)
{
    npk_error err = {0};
    npk_status status = NPK_OK;
    switch (random_below(dice, 120)) {
    case 0: status = npk_store_checkpoint(store, &err); break;
    case 1: status = npk_store_compact(store, NULL, &err); break;
    case 2: status = npk_store_flush(store, &err); break;
    default: break;
    }
    if (status != NPK_OK)
        give_up("maintenance", &err);
}

static void add_counters(npk_store *store, npk_stats *last)
{
    npk_stats stats = {.struct_size = sizeof stats};
    if (npk_store_stats(store, &stats, NULL) != NPK_OK)
        return;
    atomic_fetch_add(&shared->folds, stats.folds - last->folds);
    atomic_fetch_add(&shared->checkpoints, stats.checkpoints - last->checkpoints);
    atomic_fetch_add(&shared->rolls, stats.segment_rolls - last->segment_rolls);
    atomic_fetch_add(&shared->reclaims, stats.reclaims - last->reclaims);
    atomic_fetch_add(&shared->tails, stats.recoveries - last->recoveries);
    *last = stats;
}

static _Noreturn void writer(uint64_t seed, npk_sync level, uint64_t dice)
{
    npk_error err = {0};
    npk_options with = options_for(level, random_below(&dice, 4) != 0);
    npk_store *store;
    npk_stats last = {0};
    if (npk_store_open(store_path, &with, &store, &err) != NPK_OK)
        give_up("open", &err);
    while (!atomic_load(&shared->stop)) {
        write_one(store, seed, level, &dice);
        tend(store, &dice);
        add_counters(store, &last);
        if (random_below(&dice, 8) == 0) /* let others have the lock now and then */
            usleep((useconds_t)random_below(&dice, 300));
    }
    if (npk_store_close(store, &err) != NPK_OK)
        give_up("close", &err);
    _exit(0);
}

/* A snapshot shows one transaction's state across all arrays. */
static _Noreturn void reader(uint64_t dice)
{
    npk_error err = {0};
    npk_options with = options_for(NPK_SYNC_COMMIT, 0);
    npk_store *store;
    if (npk_store_open(store_path, &with, &store, &err) != NPK_OK)
        give_up("open for reading", &err);
    while (!atomic_load(&shared->stop)) {
        npk_snapshot *snapshot;
        if (npk_snapshot_take(store, &snapshot, &err) != NPK_OK)
            give_up("take snapshot", &err);
        npk_source source = {.snapshot = snapshot};
        attributes now;
        read_attributes(&source, &now);
        for (int i = 0; now.has_rows && i < ARRAY_COUNT; i++) {
            int64_t rows = count_rows(&source, i);
            if (rows != now.rows[i]) {
                snprintf(err.message, sizeof err.message, "snapshot of transaction %" PRIu64 ": array \"%s\" has %" PRId64
                         " rows instead of %" PRId64, now.j, array_names[i], rows, now.rows[i]);
                give_up("reader", &err);
            }
        }
        npk_snapshot_release(snapshot);
        atomic_fetch_add(&shared->snapshots, 1);
        usleep((useconds_t)random_below(&dice, 2000));
    }
    if (npk_store_close(store, &err) != NPK_OK)
        give_up("close", &err);
    _exit(0);
}

/* ---- comparison ----------------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 1, 2))) static _Noreturn void differ(const char *format, ...)
{
    npk_error err = {.status = NPK_CORRUPT};
    va_list values;
    va_start(values, format);
    vsnprintf(err.message, sizeof err.message, format, values);
    va_end(values);
    give_up("comparison", &err);
}

static void compare_array(const npk_source *source, const model *expected, int array)
{
    npk_error err = {0};
    npk_array *open;
    const char *name = array_names[array];
    npk_status status = npk_array_open(source, name, &open, &err);
    if (status != NPK_OK && status != NPK_NOT_FOUND)
        give_up("open array", &err);
    int64_t rows = status == NPK_NOT_FOUND ? -1 : (int64_t)npk_array_describe(open)->row_count;
    if (rows != expected->rows[array])
        differ("array \"%s\" after transaction %" PRIu64 ": %" PRId64 " rows instead of %" PRId64, name, expected->j, rows,
               expected->rows[array]);
    if (rows < 0)
        return;
    size_t row_size = row_sizes[array];
    if (rows > 0 && npk_array_read(open, 0, (uint64_t)rows, buffer, &err) != NPK_OK)
        give_up("read array", &err);
    for (int64_t row = 0; row < rows; row++)
        if (memcmp(buffer + (size_t)row * row_size, expected->data[array] + (size_t)row * row_size, row_size))
            differ("array \"%s\" after transaction %" PRIu64 ": row %" PRId64 " of %" PRId64 " differs", name, expected->j,
                   row, rows);
    npk_array_release(open);
}

static char finding_text[600];
static void take_finding(void *context, const npk_finding *finding)
{
    (void)context;
    snprintf(finding_text, sizeof finding_text, "%s: array \"%s\": row %" PRId64 ": %s", finding->file, finding->array,
             finding->first_row, finding->reason);
}

/* Everything the store holds against the model, which this process may advance: it is a child's copy. */
static _Noreturn void checker(model *expected, int drop_index)
{
    npk_error err = {0};
    npk_inspection seen = {.struct_size = sizeof seen};
    uint64_t acknowledged = atomic_load(&shared->acknowledged), started = atomic_load(&shared->started);
    npk_status status = npk_inspect(store_path, 0, NULL, &seen, &err);
    /* Killed while the store was being created: there is nothing yet, and nothing was acknowledged. */
    if (status != NPK_OK && !(acknowledged == 0 && (status == NPK_NOT_FOUND || status == NPK_FORMAT)))
        give_up("inspect", &err);
    if (status == NPK_OK && (seen.verdict == NPK_STORE_DAMAGED || seen.verdict == NPK_STORE_IN_USE)) {
        snprintf(err.message, sizeof err.message, "verdict %d: %s", (int)seen.verdict, seen.reason);
        give_up("inspect", &err);
    }
    if (status == NPK_OK && drop_index && npk_drop_index(store_path, &err) != NPK_OK)
        give_up("drop index", &err);

    npk_options with = options_for(NPK_SYNC_COMMIT, 0);
    npk_store *store;
    if (npk_store_open(store_path, &with, &store, &err) != NPK_OK)
        give_up("open after the kill", &err);
    npk_source source = {.store = store};
    attributes now;
    read_attributes(&source, &now);
    if (now.j < acknowledged || now.j > started)
        differ("%s: at transaction %" PRIu64 ", acknowledged %" PRId64 ", started %" PRId64, "store", now.j,
               (int64_t)acknowledged, (int64_t)started);
    model_advance(expected, now.j);
    for (int i = 0; i < ARRAY_COUNT; i++)
        compare_array(&source, expected, i);
    if (now.note_size != expected->note_size ||
        (now.note_size > 0 && memcmp(now.note, expected->note, (size_t)now.note_size)))
        differ("%s after transaction %" PRIu64 ": the note differs: %" PRId64 " bytes, %" PRId64 " expected", "attributes",
               now.j, now.note_size, expected->note_size);
    if (npk_store_verify(store, take_finding, NULL, NULL, &err) != NPK_OK) {
        strncat(err.message, ": ", sizeof err.message - strlen(err.message) - 1);
        strncat(err.message, finding_text, sizeof err.message - strlen(err.message) - 1);
        give_up("verify", &err);
    }
    if (npk_store_close(store, &err) != NPK_OK)
        give_up("close", &err);
    atomic_store(&shared->found, now.j);
    _exit(0);
}

/* ---- driver ---------------------------------------------------------------------------------------------------------- */

static void sleep_us(uint64_t us)
{
    struct timespec left = {.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000};
    while (nanosleep(&left, &left) && errno == EINTR)
        ;
}

static pid_t start(void)
{
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        perror("fork");
        exit(2);
    }
    return child;
}

/* 0: exited with 0, or killed by us. */
static int finish(pid_t child, int killed_by_us)
{
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    if (WIFSIGNALED(status)) {
        if (killed_by_us && WTERMSIG(status) == SIGKILL)
            return 0;
        snprintf(shared->message, sizeof shared->message, "a process died by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
        return -1;
    }
    return WEXITSTATUS(status) == 0 ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status, (void)kind, (void)where;
    return remove(path);
}

static void remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Start everybody, kill at random, then compare. Returns the kills, -1 after a failure. */
static int round_of_kills(model *expected, uint64_t *dice, npk_sync level)
{
    pid_t children[PROCESS_COUNT];
    int alive = PROCESS_COUNT, kills = 0, failed = 0;
    atomic_store(&shared->stop, 0);
    atomic_store(&shared->started, expected->j);
    atomic_store(&shared->acknowledged, expected->j);
    for (int i = 0; i < PROCESS_COUNT; i++) {
        uint64_t own_dice = random_next(dice);
        if ((children[i] = start()) == 0) {
            if (i < WRITER_COUNT)
                writer(expected->seed, level, own_dice);
            reader(own_dice);
        }
    }
    /* One in four dies while opening, one in eight after long work, the rest in the middle. Then others, or all at once. */
    uint64_t fate = random_below(dice, 8);
    sleep_us(fate < 2 ? random_below(dice, 3000) : fate == 2 ? random_below(dice, 400000) : 2000 + random_below(dice, 60000));
    int all_at_once = random_below(dice, 2) == 0;
    while (alive > 0) {
        int victim = (int)random_below(dice, (uint64_t)alive);
        kill(children[victim], SIGKILL);
        failed |= finish(children[victim], 1);
        kills++;
        children[victim] = children[--alive];
        if (all_at_once)
            continue;
        sleep_us(random_below(dice, 15000));
        if (random_below(dice, 2) == 0)
            break;
    }
    /* Survivors repair what the dead left, and end in order. */
    atomic_store(&shared->stop, 1);
    for (int i = 0; i < alive; i++)
        failed |= finish(children[i], 0);

    /* A crash can come inside recovery too. */
    if (!failed && random_below(dice, 3) == 0) {
        pid_t opener = start();
        if (opener == 0) {
            npk_options with = options_for(level, 0);
            npk_store *store;
            npk_error err = {0};
            if (npk_store_open(store_path, &with, &store, &err) != NPK_OK)
                give_up("open", &err);
            npk_store_close(store, NULL);
            _exit(0);
        }
        sleep_us(random_below(dice, 4000));
        kill(opener, SIGKILL);
        failed |= finish(opener, 1);
        kills++;
    }
    if (!failed) {
        int drop_index = random_below(dice, 5) == 0;
        pid_t child = start();
        if (child == 0)
            checker(expected, drop_index);
        failed |= finish(child, 0);
    }
    if (failed)
        return -1;
    model_advance(expected, atomic_load(&shared->found));
    return kills;
}

int main(int count, char **words)
{
    uint64_t seed = 0;
    int rounds = 120, choice;
    const char *parent = getenv("TMPDIR");
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        seed = (uint64_t)time(NULL);
    seed &= UINT32_MAX;
    while ((choice = getopt(count, words, "r:s:d:h")) != -1) {
        switch (choice) {
        case 'r': rounds = atoi(optarg); break;
        case 's': seed = strtoull(optarg, NULL, 0); break;
        case 'd': parent = optarg; break;
        default:
            fprintf(stderr, "usage: npk_kill [-r rounds] [-s seed] [-d directory]\n");
            return choice == 'h' ? 0 : 2;
        }
    }
    snprintf(directory, sizeof directory, "%s/npk-kill-XXXXXX", parent ? parent : "/tmp");
    buffer = malloc(BUFFER_SIZE);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!buffer || shared == MAP_FAILED || !mkdtemp(directory)) {
        perror(directory);
        return 2;
    }
    snprintf(store_path, sizeof store_path, "%s/store", directory);
    printf("seed %" PRIu64 ", %d rounds, %s\n", seed, rounds, store_path);

    static const char *const levels[] = {"commit", "interval", "never"};
    uint64_t dice = seed, kills = 0;
    int passed = 0, failed = 0, per_level[3] = {0};
    model expected;
    model_init(&expected, random_next(&dice));
    for (int round = 0; round < rounds && !failed; round++) {
        /* A new store now and then: creation is killed as well. */
        if (round % 20 == 0 && round) {
            remove_tree(store_path);
            model_release(&expected);
            model_init(&expected, random_next(&dice));
        }
        npk_sync level = (npk_sync)(round % 3);
        int killed = round_of_kills(&expected, &dice, level);
        if (killed < 0) {
            failed++;
            printf("round %d, level %s, store seed %" PRIu64 ": %s\n", round, levels[level], expected.seed, shared->message);
            printf("kept for a look: %s\n", directory);
        } else {
            passed++;
            kills += (uint64_t)killed;
            per_level[level]++;
        }
    }
    model_release(&expected);
    free(buffer);
    printf("%" PRIu64 " kills; rounds compared: %d commit, %d interval, %d never; %" PRIu64 " commits, %" PRIu64 " aborts, %" PRIu64
           " snapshots; %" PRIu64 " folds, %" PRIu64 " checkpoints, %" PRIu64 " rolls, %" PRIu64 " reclaims, %" PRIu64 " recoveries\n",
           kills, per_level[0], per_level[1], per_level[2], atomic_load(&shared->commits), atomic_load(&shared->aborts),
           atomic_load(&shared->snapshots), atomic_load(&shared->folds), atomic_load(&shared->checkpoints),
           atomic_load(&shared->rolls), atomic_load(&shared->reclaims), atomic_load(&shared->tails));
    if (!failed)
        remove_tree(directory);
    printf("%d passed, %d failed\n", passed, failed);
    return failed ? 1 : 0;
}
