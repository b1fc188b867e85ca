/* world.h - a store on a crashable disk behind a faulting table, together with the history of its contents.
 *
 * A world knows every state the store may show: history[0 .. newest] are the contents after each transaction whose commit
 * returned OK, history[durable] is the newest that a power cut may not take. A transaction whose commit failed is kept as
 * history[newest + 1] (in_doubt) until the store was seen once without faults: from then on it is there or gone for good. In the
 * process that got the error it may be there only if that was POISONED; a crash right behind the error may keep it or not.
 *
 * A scenario is a list of steps on a world. Steps return the status of the store's call and never check anything but that: the
 * checks come afterwards, when the faults are gone (world_settle). */
#ifndef WORLD_H
#define WORLD_H

#include "fault_io.h"
#include "memory_io.h"
#include "model.h"
#include "npk.h"

#define WORLD_HISTORY 48
#define WORLD_STORE "store"

typedef struct world {
    memory_io *memory;
    fault_io *fault;
    npk_store *store;
    npk_snapshot *snapshot;
    model history[WORLD_HISTORY];
    int newest, durable;
    bool in_doubt;
    bool only_syncs_fail; /* so contents can be looked at between the steps */
    bool cache_shows_old; /* what was published but not durable may be gone, and only that */
    bool go_on;         /* after a failed operation the transaction is committed with what it has, not rolled back */
    rng random;
    npk_error err;
    npk_status doubt_status;      /* of the commit in doubt */
    uint64_t present_after_error; /* commits that failed with POISONED and were there all the same */
    char real_path[64], label[256];
} world;

/* A disk with its history, made once, copied for each case. */
typedef struct world_base {
    memory_snapshot *disk; /* NULL: an empty disk */
    model history[WORLD_HISTORY];
    int newest, durable;
} world_base;

typedef struct world_scenario {
    const char *name;
    int base;           /* index into world_bases */
    bool opened;        /* the store is opened before faults begin */
    npk_status (*run)(world *w);
} world_scenario;

enum { WORLD_EMPTY, WORLD_CLOSED, WORLD_KILLED, WORLD_BASE_COUNT };
extern const world_scenario world_scenarios[];
extern const size_t world_scenario_count;

/* Directories for the real indexes; the bases. Ends the test when something is wrong. */
void world_setup(void);
void world_teardown(void);
const world_base *world_get_base(int which);

/* A world on its own copy of the base; on the disk of a crash: see world_survive. */
world *world_create(const world_base *base);
void world_destroy(world *w); /* the store is closed if it is open; checks that nothing stays open */

npk_status world_open(world *w);
npk_status world_close(world *w);

/* Faults are gone now: the same process goes on, contents are as they must be, verify finds nothing, a transaction gets through, closing
 * and opening again keeps it all. */
void world_settle(world *w);
/* Copy the disk as it is now, as selection says, into a new world, check it there, and cut the power once more after its recovery. */
void world_survive(world *w, memory_io_select select, uint64_t seed);

#endif
