/* npk_recover.c - npk-recover: say what a store holds and what the next open will do; do it when asked; get out what is left.
 *
 * The report never writes. --repair does nothing that the next open would not do by itself, after copying aside what that
 * changes (and writes FORMAT anew where it is lost); --rebuild-index throws the index away, which is derived, and lets an open build it
 * again; --salvage writes elsewhere. Exit codes as fsck(8). The JSON contract is in README.md beside this file. */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "recover_copy.h"
#include "recover_report.h"
#include "recover_salvage.h"

enum { EXIT_CLEAN = 0, EXIT_REPAIRED = 1, EXIT_DAMAGE_LEFT = 4, EXIT_TROUBLE = 8, EXIT_USAGE = 16 };

typedef enum action { REPORT, REPAIR, REBUILD_INDEX, SALVAGE } action;
static const char *const action_names[] = {"report", "repair", "rebuild-index", "salvage"};

typedef struct arguments {
    const char *path;
    action action;
    int deep, json;
    recover_salvage salvage; /* target and choices; SALVAGE */
} arguments;

enum { KEY_NPY = 1000, KEY_FORCE, KEY_UNTIL_LSN, KEY_UNTIL_TIME };

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What to do (default: report, without writing anything):", 1},
    {"repair", 'r', NULL, 0, "do what the next open would do, after copying FORMAT, log and checkpoints to STORE.repair-<time>; "
                             "write FORMAT anew when it is lost", 1},
    {"rebuild-index", 'i', NULL, 0, "remove the index and build it again from checkpoint and log", 1},
    {"salvage", 's', "DIR", 0, "write everything readable to DIR, a new store; STORE is only read. Lost rows are zero-filled, keep their "
                               "numbers, and are listed in DIR/lost.json", 1},
    {NULL, 0, NULL, 0, "With --salvage:", 2},
    {"npy", KEY_NPY, NULL, 0, "write one .npy file per array, and attributes.json, instead of a store", 2},
    {"until-lsn", KEY_UNTIL_LSN, "LSN", 0, "the state of the last transaction that ends at or below LSN, if checkpoints and log "
                                           "reach back to it", 2},
    {"until-time", KEY_UNTIL_TIME, "TIME", 0, "the state of the last transaction committed at or before TIME: 2026-01-31T12:00:00Z (UTC "
                                              "unless it ends in +hh:mm) or @SECONDS since 1970", 2},
    {"force", KEY_FORCE, NULL, 0, "DIR may hold something already: what has the same name there is replaced, and the content of a store", 2},
    {NULL, 0, NULL, 0, "Always:", 3},
    {"deep", 'd', NULL, 0, "also read every column file and log record and compare checksums", 3},
    {"json", 'j', NULL, 0, "print one JSON object on standard output", 3},
    {NULL, 'h', NULL, 0, "the same as --help", -1},
    {0}};

static void choose(arguments *given, action chosen, struct argp_state *state)
{
    if (given->action != REPORT)
        argp_error(state, "--repair, --rebuild-index and --salvage exclude each other");
    given->action = chosen;
}

static uint64_t parse_lsn(const char *text, struct argp_state *state)
{
    char *end = NULL;
    errno = 0;
    unsigned long long lsn = text[0] >= '0' && text[0] <= '9' ? strtoull(text, &end, 10) : 0;
    if (!end || *end || errno || lsn == 0 || lsn > INT64_MAX)
        argp_error(state, "\"%s\" is no LSN", text);
    return lsn;
}

static error_t parse(int key, char *value, struct argp_state *state)
{
    arguments *given = state->input;
    recover_salvage *salvage = &given->salvage;
    switch (key) {
    case 'd': given->deep = 1; return 0;
    case 'j': given->json = 1; return 0;
    case 'r': choose(given, REPAIR, state); return 0;
    case 'i': choose(given, REBUILD_INDEX, state); return 0;
    case 's':
        choose(given, SALVAGE, state);
        salvage->target = value;
        return 0;
    case KEY_NPY: salvage->as_npy = 1; return 0;
    case KEY_FORCE: salvage->force = 1; return 0;
    case KEY_UNTIL_LSN: salvage->until_lsn = parse_lsn(value, state); return 0;
    case KEY_UNTIL_TIME:
        if (recover_parse_time(value, &salvage->until_us) || salvage->until_us == 0)
            argp_error(state, "\"%s\" is no time", value);
        return 0;
    case 'h': argp_state_help(state, stdout, ARGP_HELP_STD_HELP); return 0;
    case ARGP_KEY_ARG:
        if (given->path)
            argp_error(state, "one store at a time");
        given->path = value;
        return 0;
    case ARGP_KEY_END:
        if (!given->path)
            argp_error(state, "which store?");
        if (given->action != SALVAGE && (salvage->as_npy || salvage->force || salvage->until_lsn || salvage->until_us))
            argp_error(state, "--npy, --until-lsn, --until-time and --force belong to --salvage");
        if (salvage->until_lsn && salvage->until_us)
            argp_error(state, "--until-lsn and --until-time exclude each other");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    options, parse, "STORE",
    "Report the state of a NumPack store: clean, a torn tail that the next open cuts, or damage; its last durable "
    "transaction; arrays, rows and pending rows; orphans and findings. Read-only unless told otherwise: nothing is ever deleted, and "
    "nothing overwritten without --force.\v"
    "Exit status: 0 clean (or nothing is lost: the next open cuts an unfinished tail), 1 repaired (--salvage: the store is damaged, "
    "and everything was salvaged), 4 damage left (--salvage: something is lost, and listed), 8 operational error, 16 usage.\n"
    "\n"
    "Examples:\n"
    "  npk-recover run42                              what is there?\n"
    "  npk-recover --deep --json run42                every byte, for programs\n"
    "  npk-recover --salvage rescued run42            what can still be read\n"
    "  npk-recover --salvage before --until-time 2026-01-31T11:59:00Z run42\n"
    "                                                 before the mistake",
    NULL, NULL, NULL};

/* On a terminal only, and gone when done. */
static int show_progress(void *context, uint64_t done_size, uint64_t total_size)
{
    (void)context;
    static int last = -1;
    int percent = total_size ? (int)(done_size / (total_size / 100 + 1)) : 100;
    if (percent != last && isatty(STDERR_FILENO)) {
        last = percent;
        fprintf(stderr, done_size < total_size ? "\rreading %3d %%" : "\r              \r", percent);
    }
    return 0;
}

/* First failure sticks: it is what the exit status and the JSON "error" tell. */
typedef struct outcome {
    int exit_status;
    npk_error error; /* status NPK_OK: none */
    char copied_to[4096];
    npk_verdict before;
    int looked; /* the report below holds something */
} outcome;

static void fail(outcome *result, const char *what, const npk_error *err)
{
    fprintf(stderr, "npk-recover: %s: %s\n", what, err->message);
    if (result->error.status == NPK_OK)
        result->error = *err;
    int status = err->status == NPK_CORRUPT ? EXIT_DAMAGE_LEFT : EXIT_TROUBLE;
    if (status > result->exit_status)
        result->exit_status = status;
}

static int inspect(outcome *result, recover_report *report, const arguments *given)
{
    npk_error err = {.row = -1};
    if (recover_report_inspect(report, given->path, given->deep, show_progress, &err) != NPK_OK) {
        fail(result, "inspect", &err);
        return -1;
    }
    result->looked = 1;
    return 0;
}

/* What every program does that uses the store. */
static int open_and_close(outcome *result, const char *path)
{
    npk_error err = {.row = -1};
    npk_options with = {.struct_size = sizeof with, .mode = NPK_MODE_UPDATE, .no_background = 1, .program = "npk-recover"};
    npk_store *store;
    if (npk_store_open(path, &with, &store, &err) != NPK_OK) {
        fail(result, "open", &err);
        return -1;
    }
    if (npk_store_close(store, &err) != NPK_OK) {
        fail(result, "close", &err);
        return -1;
    }
    return 0;
}

static int refuse_in_use(outcome *result, const recover_report *report)
{
    if (report->inspection.verdict != NPK_STORE_IN_USE)
        return 0;
    npk_error err = {.status = NPK_BUSY, .row = -1};
    snprintf(err.message, sizeof err.message, "processes have the store open: nothing was changed");
    fail(result, "refused", &err);
    return -1;
}

static void repair(outcome *result, recover_report *report, const arguments *given)
{
    npk_error err = {.row = -1};
    if (inspect(result, report, given))
        return;
    result->before = report->inspection.verdict;
    if (refuse_in_use(result, report))
        return;
    if (given->action == REPAIR) {
        if (result->before == NPK_STORE_CLEAN)
            return;
        char message[512];
        if (recover_copy_aside(given->path, result->copied_to, sizeof result->copied_to, message, sizeof message)) {
            err.status = NPK_IO;
            snprintf(err.message, sizeof err.message, "%s", message);
            result->copied_to[0] = 0; /* what is there is not whole */
            fail(result, "copy aside", &err);
            return;
        }
    } else if (npk_drop_index(given->path, &err) != NPK_OK) {
        fail(result, "remove the index", &err);
        return;
    }
    if (given->action == REPAIR && npk_restore_format(given->path, &err) != NPK_OK) {
        fail(result, "restore FORMAT", &err);
        return;
    }
    if (open_and_close(result, given->path) || inspect(result, report, given))
        return;
    result->exit_status = report->inspection.verdict == NPK_STORE_DAMAGED ? EXIT_DAMAGE_LEFT : EXIT_REPAIRED;
}

static void look(outcome *result, recover_report *report, const arguments *given)
{
    if (inspect(result, report, given))
        return;
    result->before = report->inspection.verdict;
    if (report->inspection.verdict == NPK_STORE_DAMAGED)
        result->exit_status = EXIT_DAMAGE_LEFT;
}

static void salvage(outcome *result, recover_report *report, arguments *given)
{
    npk_error err = {.row = -1};
    if (inspect(result, report, given))
        return;
    result->before = report->inspection.verdict;
    if (refuse_in_use(result, report))
        return;
    if (recover_salvage_run(&given->salvage, given->path, show_progress, &err) != NPK_OK) {
        fail(result, "salvage", &err);
        result->exit_status = EXIT_TROUBLE; /* whatever is wrong with the store, it is not salvaged */
        return;
    }
    result->exit_status = given->salvage.summary.loss_count  ? EXIT_DAMAGE_LEFT
                          : result->before == NPK_STORE_DAMAGED ? EXIT_REPAIRED
                                                                : EXIT_CLEAN;
}

static int print_json(const outcome *result, const recover_report *report, const arguments *given)
{
    json_t *error = result->error.status == NPK_OK
                        ? json_null()
                        : json_pack("{ss ss si}", "kind", npk_status_kind(result->error.status), "message",
                                    result->error.message, "errno", result->error.sys_errno);
    json_t *object =
        json_pack("{si ss ss ss sb si sn sn so so}", "contract", 1, "version", npk_version(), "path", given->path, "action",
                  action_names[given->action], "deep", given->deep, "exit_status", result->exit_status, "verdict_before",
                  "copied_to", "store", result->looked ? recover_report_json(report) : json_null(), "error", error);
    if (!object)
        return -1;
    if (result->looked)
        json_object_set_new(object, "verdict_before", json_string(recover_verdict_name(result->before)));
    if (result->copied_to[0])
        json_object_set_new(object, "copied_to", json_string(result->copied_to));
    json_object_set_new(object, "salvage", recover_salvage_json(&given->salvage));
    int failed = json_dumpf(object, stdout, JSON_INDENT(2)) || putchar('\n') == EOF || fflush(stdout);
    json_decref(object);
    return failed ? -1 : 0;
}

static void print_text(const outcome *result, const recover_report *report, const arguments *given)
{
    if (!result->looked)
        return;
    recover_report_print(report, given->path, given->deep);
    if (result->copied_to[0])
        printf("copied to    %s\n", result->copied_to);
    if (given->action == SALVAGE)
        recover_salvage_print(&given->salvage);
    else if (given->action != REPORT && result->exit_status != EXIT_TROUBLE)
        printf("was          %s; %s\n", recover_verdict_name(result->before),
               result->exit_status == EXIT_REPAIRED       ? "repaired"
               : result->exit_status == EXIT_DAMAGE_LEFT ? "damage is left"
                                                         : "nothing to repair");
}

int main(int count, char **words)
{
    arguments given = {0};
    outcome result = {.exit_status = EXIT_CLEAN};
    recover_report report;

    argp_err_exit_status = EXIT_USAGE;
    argp_program_version = npk_version();
    argp_parse(&parser, count, words, 0, NULL, &given);

    int no_memory = recover_report_init(&report);
    if (recover_salvage_init(&given.salvage) || no_memory) {
        fprintf(stderr, "npk-recover: out of memory\n");
        recover_report_release(&report);
        recover_salvage_release(&given.salvage);
        return EXIT_TROUBLE;
    }
    if (given.action == SALVAGE)
        salvage(&result, &report, &given);
    else if (given.action == REPORT)
        look(&result, &report, &given);
    else
        repair(&result, &report, &given);

    if (given.json) {
        if (print_json(&result, &report, &given)) {
            fprintf(stderr, "npk-recover: could not print the report\n");
            result.exit_status = EXIT_TROUBLE;
        }
    } else {
        print_text(&result, &report, &given);
    }
    recover_report_release(&report);
    recover_salvage_release(&given.salvage);
    return result.exit_status;
}
