/* core.h - the struct of an open store, shared by all modules above the index. Data only; nobody calls up through it.
 *
 * One npk_core per store directory and process (opening.c); every npk_store handle of the process points to it. Each field says what
 * guards it. Lock order, in this process and between processes: GATE, compactor (mutex then COMPACTOR), writer (mutex then WRITER),
 * index_lock, LMDB. pin_mutex, cache_mutex and worker_mutex are leaves. */
#ifndef NPK_CORE_CORE_H
#define NPK_CORE_CORE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "catalog.h"
#include "column.h"
#include "control.h"
#include "index.h"
#include "io.h"
#include "locks.h"
#include "npk.h"
#include "thread.h"
#include "wal.h"

#define NPK_DEFAULT_SEGMENT_SIZE (16u << 20)
#define NPK_DEFAULT_CHECKPOINT_LOG_SIZE (64u << 20)
#define NPK_DEFAULT_PENDING_LIMIT (256u << 20)
#define NPK_DEFAULT_BULK_SIZE (4u << 20)

typedef struct npk_settings { /* from npk_options, defaults filled in; the first open of a process decides */
    npk_mode mode;
    npk_sync sync;
    uint32_t sync_interval_ms, busy_timeout_ms;
    uint64_t segment_size, checkpoint_log_size, pending_limit, bulk_size;
    bool background, network;
    char program[64];
    int (*interrupt)(void *context);
    void *interrupt_context;
} npk_settings;

typedef struct npk_pin { /* one pinned LSN of this process */
    uint64_t lsn;
    struct npk_pin *next;
} npk_pin;

typedef struct npk_cached_array {
    npk_array *array;       /* retained */
    uint64_t index_name;    /* the index, */
    uint64_t version;       /* and its version, at which it was known to be current: each index counts anew */
    uint64_t used;          /* tick of last use */
} npk_cached_array;

#define NPK_ARRAY_CACHE_SIZE 64

/* OPENING and CLOSING belong to one thread, which holds no mutex meanwhile: others wait for the state to change. */
typedef enum npk_core_state { NPK_CORE_OPENING, NPK_CORE_OPEN, NPK_CORE_CLOSING } npk_core_state;

typedef struct npk_core {
    /* set at open, constant afterwards */
    const npk_io *io;
    npk_settings settings;
    uint64_t device, inode;         /* of the store directory */
    npk_file *root;                 /* holds the inode while this lives */
    npk_file *columns_directory, *checkpoint_directory, *index_directory, *lock_file;
    npk_file_info lock_info;        /* of lock_file */
    char *path;
    uint8_t uuid[16];
    uint64_t created_us;
    npk_wal *wal;
    npk_columns *columns;
    npk_control *control;
    bool read_only;
    npk_process process;            /* what control says while this process writes */
    uint64_t pause_before_publish_us; /* tests: NPK_TEST_PAUSE=before_publish:<ms> */

    /* registry_mutex (opening.c) */
    struct npk_core *next;
    npk_core_state state;
    _Atomic uint64_t handle_count;  /* reaches 0 only under registry_mutex, together with CLOSING; from and to more without it */
    _Atomic bool is_forked;         /* this is a child of the opener: nothing may be used */

    /* index_lock: read to use index, write to swap it */
    pthread_rwlock_t index_lock;
    npk_index *index;
    uint64_t index_name;

    /* the writer: writer_mutex guards writer_held; all of the log's writing side belongs to the holder */
    pthread_mutex_t writer_mutex;
    pthread_cond_t writer_free;
    bool writer_held;
    npk_kv *writer_kv;              /* the view of the last transaction, for the next one; NULL while in use */
    npk_wal_end log_end;            /* where the log's writing side stands; valid while generation fits */
    uint64_t log_generation;

    pthread_mutex_t compactor_mutex; /* with LOCK:COMPACTOR */

    pthread_mutex_t pin_mutex;
    npk_pin *pins;                  /* pin_mutex */
    int64_t pin_slot;               /* pin_mutex; -1: none taken yet */

    pthread_mutex_t cache_mutex;
    npk_cached_array cache[NPK_ARRAY_CACHE_SIZE]; /* cache_mutex */
    uint64_t cache_tick;
    npk_store_state known_state;    /* cache_mutex: the published state of index known_index at version known_version (0: none) */
    uint64_t known_index, known_version;

    /* worker_mutex */
    pthread_mutex_t worker_mutex;
    pthread_cond_t worker_wake;
    pthread_t worker_thread;
    bool worker_running, worker_stop, worker_asked;
    char worker_reason[128];

    /* counters since open */
    _Atomic uint64_t commits, folds, checkpoints, reclaims, recoveries, bytes_folded;
    _Atomic uint64_t last_fold_us, last_checkpoint_us, last_commit_us_monotonic;
    _Atomic uint64_t logged_since_fold;       /* bytes, to decide when to look closer */
    _Atomic uint64_t seen_lsn;                /* published end as the last transaction of this process found it */
    _Atomic uint64_t checkpoint_lsn;          /* newest known */
    _Atomic uint64_t older_checkpoint_lsn;    /* the other kept one, 0: none */
} npk_core;

struct npk_store {
    npk_core *core;
    npk_settings settings;          /* of this handle: mode, sync, timeouts, interrupt */
    uint64_t open_transaction_count; /* atomic */
    _Atomic uint64_t seen_lost_count; /* what was lost is said once per handle */
};

#endif
