/* npk.h - the public interface of the NumPack array store.
 *
 * A store is a directory of named arrays. Rows are appended, replaced and dropped in atomic transactions; whole
 * arrays are read at memory speed. This is the only public header; it names no other library.
 *
 * Conventions, stated once:
 *  - Every call that can fail returns an npk_status and fills *err when it fails; err may be NULL. On success *err is
 *    untouched. The message names the array, file, row and reason as far as they are known.
 *  - Out-parameters come last, before err, and are written only on success.
 *  - Sizes are in bytes (_size), counts in items (_count), rows are logical row numbers from 0, times in microseconds
 *    since 1970 (_us). Strings are UTF-8 and NUL terminated; the callee copies what it keeps.
 *  - Handles are opaque. close and release accept NULL. A handle from one call may be used by any thread; an npk_txn
 *    by one thread at a time. Nothing here calls abort, exit, prints, or raises a signal.
 *  - The row is the unit: row_size bytes, laid out as NumPy lays out one element of the first axis in C order. The
 *    core never interprets dtype; it stores the descr string and gives it back.
 *  - Calls block while they touch the disk or wait for the writer lock; waiting is bounded by a timeout and calls the
 *    interrupt function given at open.
 */
#ifndef NPK_H
#define NPK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define NPK_API __attribute__((visibility("default")))
#else
#define NPK_API
#endif

#define NPK_NAME_MAX 255        /* bytes of an array name or attribute key */
#define NPK_DESCR_MAX 16384     /* bytes of a dtype description */
#define NPK_NDIM_MAX 64         /* dimensions of an array, the row axis included */
#define NPK_ATTR_MAX (512 * 1024) /* bytes of one attribute value */

/* ---- errors -------------------------------------------------------------------------------------------------- */

/* Chosen by what the caller can do about it. name, stable kind string, meaning. */
#define NPK_STATUS_MAP(X)                                                                   \
    X(OK, "ok", "success")                                                                  \
    X(NOT_FOUND, "not_found", "no such array, attribute or store")                          \
    X(EXISTS, "exists", "the name is taken")                                                \
    X(RANGE, "out_of_range", "a row number lies outside the array")                         \
    X(SHAPE, "shape_mismatch", "shape or row count does not fit")                           \
    X(DTYPE, "dtype_mismatch", "the stored dtype does not fit")                             \
    X(INVALID, "invalid_argument", "the argument is not acceptable")                        \
    X(MISUSE, "wrong_use", "closed handle, finished transaction, forked child")             \
    X(CORRUPT, "corrupt", "stored bytes are damaged or missing")                            \
    X(IO, "io_error", "the system reported an error; errno is in sys_errno")                \
    X(NO_SPACE, "no_space", "the disk or quota is full; nothing was changed")               \
    X(BUSY, "busy", "another writer holds the store; the holder is named")                  \
    X(OTHER_HOST, "other_host", "the store lies on a network file system")                  \
    X(READ_ONLY, "read_only", "the store was opened or is mounted read-only")               \
    X(FORMAT, "format_version", "not a store, or one of a newer format")                    \
    X(NO_MEMORY, "no_memory", "memory could not be allocated")                              \
    X(POISONED, "poisoned", "a sync failed; the store must be repaired by the next writer") \
    X(INTERRUPTED, "interrupted", "the interrupt function asked to stop waiting")           \
    X(CONFLICT, "conflict", "the array changed meanwhile; try again")

typedef enum npk_status {
#define NPK_X(name, kind, meaning) NPK_##name,
    NPK_STATUS_MAP(NPK_X)
#undef NPK_X
    NPK_STATUS_COUNT
} npk_status;

typedef struct npk_error {
    npk_status status;
    int sys_errno;          /* errno of the system call that failed, else 0 */
    int64_t row;            /* logical row where known, else -1 */
    uint64_t lsn;           /* log position where known, else 0 */
    char array[NPK_NAME_MAX + 1]; /* array name where known, else "" */
    char message[1024];     /* lower case, no full stop: context: context: reason */
} npk_error;

NPK_API const char *npk_status_kind(npk_status status);    /* "not_found" ...; never NULL */
NPK_API const char *npk_status_meaning(npk_status status); /* never NULL */
NPK_API const char *npk_version(void);                     /* "0.1.0" */

/* ---- store --------------------------------------------------------------------------------------------------- */

typedef struct npk_store npk_store;       /* an open store; shared by every open of the same directory in a process */
typedef struct npk_txn npk_txn;           /* the one write transaction of the moment */
typedef struct npk_snapshot npk_snapshot; /* one committed state of everything, pinned */
typedef struct npk_array npk_array;       /* one array at one moment; its bytes never change */
typedef struct npk_region npk_region;     /* mapped or gathered rows */

/* What a power loss takes from a returned commit. Atomicity and order hold at every level: what survives is always a
 * prefix of the committed transactions. A process crash takes nothing at any level. */
typedef enum npk_sync {
    NPK_SYNC_COMMIT = 0,   /* nothing: the log is synced before commit returns */
    NPK_SYNC_INTERVAL = 1, /* at most the last sync_interval_ms, while a writer with a background thread has the store open.
                            * Where all have no_background: a commit syncs when the interval has passed since the last sync */
    NPK_SYNC_NEVER = 2     /* whatever the system had not written by itself since the last flush or checkpoint */
} npk_sync;

/* How the directory is opened. */
typedef enum npk_mode {
    NPK_MODE_READ = 0,      /* must exist; writes are refused with READ_ONLY. The directory must be writable all the same */
    NPK_MODE_UPDATE = 1,    /* must exist */
    NPK_MODE_CREATE = 2,    /* opened, or created when absent */
    NPK_MODE_EXCLUSIVE = 3  /* created; EXISTS when there is a store already */
} npk_mode;

/* A position that leaves the store. Compare epoch first, then lsn. */
typedef struct npk_position {
    uint32_t epoch;
    uint64_t lsn;
} npk_position;

/* Zero means the default everywhere. Set struct_size to sizeof(npk_options). */
typedef struct npk_options {
    size_t struct_size;
    npk_mode mode;
    npk_sync sync;
    uint32_t sync_interval_ms;      /* default 100 */
    uint32_t busy_timeout_ms;       /* wait for the writer lock; default 60000 */
    uint64_t segment_size;          /* log segment, fixed at creation of each segment; default 16 MiB, >= 64 KiB */
    uint64_t checkpoint_log_size;   /* log since the last checkpoint that makes one due; default 64 MiB */
    uint64_t pending_limit;         /* pending bytes per store at which the writer folds by itself; default 256 MiB */
    uint64_t bulk_size;             /* a change of at least this goes straight into a column file; default 4 MiB */
    int no_background;              /* 1: no worker thread; fold, checkpoint and reclaim happen when asked or at limits */
    int network;                    /* 1: allow writing on a network file system */
    const char *program;            /* shown to those who wait for the writer lock; default the process name */
    int (*interrupt)(void *context); /* called while waiting, at least every 50 ms; non-zero stops the wait */
    void *interrupt_context;
    const struct npk_io *io;        /* tests only: another implementation of the system table; NULL: POSIX */
} npk_options;

/* Open the store in the directory path. Recovers it when nobody has it open. Errors: NOT_FOUND, EXISTS (a regular file
 * at the path, EXCLUSIVE, or a file that is no store's in what would become its directories), FORMAT, CORRUPT, IO, NO_SPACE,
 * READ_ONLY, OTHER_HOST, BUSY, INTERRUPTED, NO_MEMORY. */
NPK_API npk_status npk_store_open(const char *path, const npk_options *options, npk_store **store, npk_error *err);

/* Give the handle back. The last close in a process joins the worker; the last close of all writes a checkpoint. The
 * handle is gone whatever is returned. MISUSE when a transaction of this handle is open (then it is kept). Arrays,
 * snapshots and regions taken from it stay valid. */
NPK_API npk_status npk_store_close(npk_store *store, npk_error *err);

/* End of the newest committed transaction that this process can see. */
NPK_API npk_status npk_store_position(npk_store *store, npk_position *position, npk_error *err);

/* Make every committed transaction durable now, whatever the level. */
NPK_API npk_status npk_store_flush(npk_store *store, npk_error *err);
/* Write a checkpoint of the index now and reclaim what nobody needs: the next recovery starts from here. */
NPK_API npk_status npk_store_checkpoint(npk_store *store, npk_error *err);
/* Fold one array into one column file (name), or every array (NULL). Afterwards nothing that was there before the call is pending, and
 * its rows lie in one piece. NOT_FOUND for an unknown name; CORRUPT for a damaged array, after the others were folded. */
NPK_API npk_status npk_store_compact(npk_store *store, const char *name, npk_error *err);

/* Counters and gauges. Gauges are of this moment; counters of this process since it opened the store. */
typedef struct npk_stats {
    size_t struct_size;
    npk_position position;      /* published end */
    uint64_t durable_lsn;       /* watermark: everything below survives power loss */
    uint64_t checkpoint_lsn;    /* newest checkpoint, 0: none */
    uint64_t log_size;          /* bytes of log after the newest checkpoint */
    uint64_t log_segment_count;
    uint64_t log_file_size;     /* bytes of all segments on disk */
    uint64_t pending_size;      /* bytes of rows that lie only in the log */
    uint64_t pending_row_count;
    uint64_t column_file_count;
    uint64_t column_file_size;
    uint64_t dead_file_count;   /* unreferenced, waiting for checkpoints or pins */
    uint64_t array_count;
    uint64_t pin_lsn;           /* oldest pinned LSN of all processes, 0: none */
    uint64_t commits, syncs, bytes_logged, bytes_folded, folds, checkpoints, reclaims, segment_rolls, recoveries;
    uint64_t last_fold_us, last_checkpoint_us;
    char worker_reason[128];    /* what the background thread did last or waits for */
} npk_stats;
NPK_API npk_status npk_store_stats(npk_store *store, npk_stats *stats, npk_error *err);

/* Read everything the store holds and compare checksums and references. progress may be NULL; non-zero stops with
 * INTERRUPTED. Each finding goes to report (may be NULL); returns CORRUPT when there was any. */
typedef struct npk_finding {
    char file[64];              /* relative to the store: "columns/....npy" */
    uint64_t offset, size;      /* damaged byte range in the file */
    char array[NPK_NAME_MAX + 1]; /* "" when no array lies there */
    int64_t first_row, row_count; /* logical rows affected; -1 when unknown */
    char reason[128];
} npk_finding;
NPK_API npk_status npk_store_verify(npk_store *store,
                                    void (*report)(void *context, const npk_finding *finding),
                                    int (*progress)(void *context, uint64_t done_size, uint64_t total_size),
                                    void *context, npk_error *err);

/* ---- transactions -------------------------------------------------------------------------------------------- */

/* Take the writer lock, waiting at most timeout_ms (UINT32_MAX: the store's busy_timeout_ms), and begin. Errors: BUSY
 * (names the holder), INTERRUPTED, READ_ONLY, POISONED, IO, NO_SPACE, CORRUPT. */
NPK_API npk_status npk_txn_begin(npk_store *store, uint32_t timeout_ms, npk_txn **txn, npk_error *err);
/* sync: the level of this commit. On success *position is the end of the transaction. After an error nothing of the
 * transaction is there, but for POISONED: the disk refused the repair too, and the next writer or open decides. The handle is
 * gone whatever is returned. A transaction without changes writes nothing. */
NPK_API npk_status npk_txn_commit(npk_txn *txn, npk_sync sync, npk_position *position, npk_error *err);
NPK_API void npk_txn_abort(npk_txn *txn);
/* Savepoints nest. rollback_to undoes everything since; the savepoint itself stays usable. */
NPK_API npk_status npk_txn_savepoint(npk_txn *txn, uint64_t *savepoint, npk_error *err);
NPK_API npk_status npk_txn_rollback_to(npk_txn *txn, uint64_t savepoint, npk_error *err);
/* The savepoint and those taken since are not needed any more; what was done stays. MISUSE when it is gone. */
NPK_API npk_status npk_txn_release_savepoint(npk_txn *txn, uint64_t savepoint, npk_error *err);

/* Every operation below is whole or undone: after an error the transaction is as before the call and usable, unless
 * writing to the log or to a column file failed (IO, NO_SPACE in the middle of a large change, POISONED): then only abort is left, and
 * commit says so. */

/* Describes rows of an array. shape excludes the row axis. zero_dim = 1: a 0-d array, exactly one row, ndim 0. */
typedef struct npk_array_spec {
    const char *descr;      /* dtype as the npy header has it: "<f4", or a list for structures */
    uint64_t row_size;      /* bytes of one row; may be 0 when a tail dimension is 0 */
    uint32_t ndim;          /* dimensions behind the row axis */
    const uint64_t *shape;  /* ndim sizes */
    int zero_dim;
} npk_array_spec;

/* What a change must know of an array, as the transaction sees it. Unlike npk_array_open it does not look at the places of rows, so that
 * its cost does not grow with what is pending. What spec points to is the transaction's, until its next npk_txn_describe or its
 * end. NOT_FOUND. */
NPK_API npk_status npk_txn_describe(npk_txn *txn, const char *name, npk_array_spec *spec, uint64_t *row_count,
                                    npk_error *err);
/* Create the array with row_count rows from data (row_count * row_size bytes, C order), or replace the array of that
 * name whole; its attributes stay. */
NPK_API npk_status npk_txn_save(npk_txn *txn, const char *name, const npk_array_spec *spec, uint64_t row_count,
                                const void *data, npk_error *err);
/* Add rows behind the array. NOT_FOUND, SHAPE (zero_dim). */
NPK_API npk_status npk_txn_append(npk_txn *txn, const char *name, uint64_t row_count, const void *data,
                                  npk_error *err);
/* data holds count rows for the logical rows rows[0..count): a later duplicate wins. RANGE names the row. */
NPK_API npk_status npk_txn_replace(npk_txn *txn, const char *name, uint64_t count, const int64_t *rows,
                                   const void *data, npk_error *err);
/* The same for the contiguous rows first .. first + count. */
NPK_API npk_status npk_txn_replace_run(npk_txn *txn, const char *name, uint64_t first, uint64_t count,
                                       const void *data, npk_error *err);
/* Remove rows; later rows move up. rows may be in any order; duplicates count once. RANGE outside the array. */
NPK_API npk_status npk_txn_drop_rows(npk_txn *txn, const char *name, uint64_t count, const int64_t *rows,
                                     npk_error *err);
NPK_API npk_status npk_txn_drop_array(npk_txn *txn, const char *name, npk_error *err);
NPK_API npk_status npk_txn_rename(npk_txn *txn, const char *from, const char *to, npk_error *err);
/* A new array with the same rows; the bytes are shared. EXISTS, NOT_FOUND. */
NPK_API npk_status npk_txn_clone(npk_txn *txn, const char *from, const char *to, npk_error *err);
/* Drop every array and attribute. */
NPK_API npk_status npk_txn_reset(npk_txn *txn, npk_error *err);
/* array NULL: attributes of the store. value is opaque to the core (JSON text by convention). */
NPK_API npk_status npk_txn_set_attr(npk_txn *txn, const char *array, const char *key, const void *value, size_t size,
                                    npk_error *err);
/* NOT_FOUND when there is none. */
NPK_API npk_status npk_txn_delete_attr(npk_txn *txn, const char *array, const char *key, npk_error *err);

/* ---- reading ------------------------------------------------------------------------------------------------- */

/* Where to read: exactly one of the three. store: newest commit; txn: with its own changes; snapshot: its state. */
typedef struct npk_source {
    npk_store *store;
    npk_txn *txn;
    npk_snapshot *snapshot;
} npk_source;

/* Copies the metadata of everything and pins its LSN until release. */
NPK_API npk_status npk_snapshot_take(npk_store *store, npk_snapshot **snapshot, npk_error *err);
NPK_API void npk_snapshot_release(npk_snapshot *snapshot);
NPK_API npk_position npk_snapshot_position(const npk_snapshot *snapshot);

/* Calls visit for each name, in byte order. The names are valid during the call only. */
NPK_API npk_status npk_list_arrays(const npk_source *source, void (*visit)(void *context, const char *name),
                                   void *context, npk_error *err);
/* array NULL: the store's. visit gets each key with its value. */
NPK_API npk_status npk_list_attrs(const npk_source *source, const char *array,
                                  void (*visit)(void *context, const char *key, const void *value, size_t size),
                                  void *context, npk_error *err);

typedef struct npk_array_info {
    const char *name;       /* owned by the npk_array, as are descr and shape */
    const char *descr;
    uint64_t id;            /* never reused */
    uint64_t row_count;
    uint64_t row_size;
    uint32_t ndim;          /* dimensions behind the row axis */
    const uint64_t *shape;
    int zero_dim;
    uint64_t created_us, modified_us;
    uint64_t change_lsn;    /* of the last change of content */
    uint64_t pending_row_count; /* rows that lie in the log */
    uint64_t pending_size;
    uint64_t piece_count;   /* contiguous pieces it is read from; 1 (or 0 rows): zero-copy (a few rows that lie elsewhere are patched in) */
} npk_array_info;

/* Open the array as it is now in source. NOT_FOUND, CORRUPT, IO. */
NPK_API npk_status npk_array_open(const npk_source *source, const char *name, npk_array **array, npk_error *err);
NPK_API void npk_array_release(npk_array *array);
NPK_API const npk_array_info *npk_array_describe(const npk_array *array);
/* Its attributes at that moment. visit gets each key with its value. */
NPK_API void npk_array_list_attrs(const npk_array *array, void (*visit)(void *context, const char *key, const void *value, size_t size),
                                  void *context);
/* Copy rows first .. first + count to out (count * row_size bytes). RANGE, IO, CORRUPT. */
NPK_API npk_status npk_array_read(npk_array *array, uint64_t first, uint64_t count, void *out, npk_error *err);
/* Copy the rows rows[0..count), in that order, duplicates included. */
NPK_API npk_status npk_array_gather(npk_array *array, uint64_t count, const int64_t *rows, void *out, npk_error *err);

/* Which of the rows first .. first + count are not, byte for byte, the ones at bytes (count * row_size)? Their numbers go to rows (room for
 * count), ascending. RANGE, IO, CORRUPT, NO_MEMORY. */
NPK_API npk_status npk_array_compare(npk_array *array, uint64_t first, uint64_t count, const void *bytes, int64_t *rows,
                                     uint64_t *changed_count, npk_error *err);

/* How npk_array_map gives the rows out. */
typedef enum npk_map_mode {
    NPK_MAP_READ = 0,         /* read-only; zero-copy where the rows lie in one piece (a few others are patched into private pages), else
                               * a gathered copy */
    NPK_MAP_COPY_ON_WRITE = 1 /* private writable; never written back */
} npk_map_mode;
/* The rows first .. first + count as memory. The region lives until released, whatever happens to the store. */
NPK_API npk_status npk_array_map(npk_array *array, uint64_t first, uint64_t count, npk_map_mode mode,
                                 npk_region **region, npk_error *err);
NPK_API void *npk_region_address(const npk_region *region);
NPK_API size_t npk_region_size(const npk_region *region);
NPK_API int npk_region_is_mapped(const npk_region *region); /* 1: zero-copy, 0: gathered */
NPK_API void npk_region_release(npk_region *region);

/* Private memory for a whole load: huge-page advised and recycled through a bounded process-wide list. */
NPK_API npk_status npk_array_load(npk_array *array, npk_region **region, npk_error *err);

/* ---- fork ---------------------------------------------------------------------------------------------------- */

/* 1 in a child of the process that opened the store: every call but close and release then returns MISUSE. */
NPK_API int npk_store_is_forked(const npk_store *store);

/* ---- inspection and repair without opening (npk-recover) ------------------------------------------------------ */

typedef enum npk_verdict {
    NPK_STORE_CLEAN = 0,   /* the log ends at a checkpoint written at close */
    NPK_STORE_TORN = 1,    /* the log has a torn or uncommitted tail that the next open cuts; nothing is lost */
    NPK_STORE_DAMAGED = 2, /* committed bytes are damaged or missing */
    NPK_STORE_IN_USE = 3   /* processes have it open; the rest of the report is of this moment */
} npk_verdict;

typedef struct npk_inspection {
    size_t struct_size;
    npk_verdict verdict;
    uint32_t format_version;
    char uuid[37];
    npk_position position;       /* end of the last complete transaction */
    uint64_t last_commit_us;     /* its time, 0: unknown */
    uint64_t durable_lsn;        /* proven by watermarks, checkpoints and segment headers */
    uint64_t checkpoint_lsn;     /* newest valid checkpoint, 0: none */
    uint64_t checkpoint_count, bad_checkpoint_count;
    uint64_t segment_count, void_segment_count;
    uint64_t tail_size;          /* bytes behind the last complete transaction */
    uint64_t replayed_transaction_count;
    uint64_t array_count, row_count, pending_row_count;
    uint64_t orphan_count, orphan_size;
    uint64_t finding_count;
    char reason[256];            /* why the log ends where it does: the case of the recovery table */
} npk_inspection;

typedef struct npk_inspection_array {
    const char *name, *descr;
    uint64_t row_count, row_size, pending_row_count;
    uint32_t ndim;
    const uint64_t *shape;
    int zero_dim;
} npk_inspection_array;

typedef struct npk_inspection_visitor {
    void *context;
    void (*array)(void *context, const npk_inspection_array *array);
    void (*finding)(void *context, const npk_finding *finding);
    int (*progress)(void *context, uint64_t done_size, uint64_t total_size);
} npk_inspection_visitor;

/* Read-only look at a store nobody needs to have opened: builds the state in memory from checkpoint and log; never
 * touches the index. deep = 1 also reads every column file and every log record. visitor may be NULL. */
NPK_API npk_status npk_inspect(const char *path, int deep, const npk_inspection_visitor *visitor,
                               npk_inspection *inspection, npk_error *err);

/* Write FORMAT anew from what the log's segment headers say, when it is missing or damaged; nothing is done when it is whole. BUSY when the store is
 * open anywhere. NOT_FOUND when no segment says whose it is. */
NPK_API npk_status npk_restore_format(const char *path, npk_error *err);

/* Remove the index so that the next open rebuilds it. BUSY when the store is open anywhere. */
NPK_API npk_status npk_drop_index(const char *path, npk_error *err);

/* ---- salvage (npk-recover) ------------------------------------------------------------------------------------- */

/* What is missing from, or doubtful in, what was salvaged. */
typedef enum npk_loss_kind {
    NPK_LOSS_ROWS = 0,        /* these rows are zero bytes: nothing readable holds them any more */
    NPK_LOSS_OLDER_ROWS = 1,  /* these rows may hold an older value: a change of them is lost */
    NPK_LOSS_LOG = 2,         /* log from lsn to end_lsn cannot be read: what was committed there is missing, whatever it was */
    NPK_LOSS_TRANSACTION = 3, /* the transaction at lsn was left out: a part of it is lost, or it needs what was lost before it */
    NPK_LOSS_ARRAY = 4        /* the array could not be written (reason) */
} npk_loss_kind;

typedef struct npk_loss {
    npk_loss_kind kind;
    char array[NPK_NAME_MAX + 1]; /* "" when not known */
    int64_t first_row, row_count; /* -1 when not known */
    uint64_t lsn, end_lsn;        /* 0 when not known */
    char file[64];                /* relative to the store, "" when it is none in particular */
    char reason[192];
} npk_loss;

typedef struct npk_salvaged_array {
    npk_inspection_array array;
    uint64_t lost_row_count; /* zero-filled */
    const char *file;        /* as_npy: its name in the target; else NULL */
} npk_salvaged_array;

/* Zero means the default everywhere. Set struct_size to sizeof(npk_salvage_options). */
typedef struct npk_salvage_options {
    size_t struct_size;
    int as_npy;          /* one .npy file per array instead of a store */
    int force;           /* the target may hold something: files of the same name and the content of a store there are replaced */
    uint64_t until_lsn;  /* the state of the last transaction that ends at or below it; 0: the newest */
    uint64_t until_us;   /* the state of the last transaction committed at or before this time; 0: the newest */
    void *context;
    /* All may be NULL. attr: array "" is the store. progress: non-zero stops with INTERRUPTED. */
    void (*loss)(void *context, const npk_loss *loss);
    void (*array)(void *context, const npk_salvaged_array *array);
    void (*attr)(void *context, const char *array, const char *key, const void *value, size_t size);
    int (*progress)(void *context, uint64_t done_size, uint64_t total_size);
} npk_salvage_options;

typedef struct npk_salvage_summary {
    size_t struct_size;
    npk_position position;   /* of the state that was salvaged */
    uint64_t last_commit_us; /* 0: unknown */
    uint64_t array_count, row_count, attr_count;
    uint64_t lost_row_count;     /* zero-filled */
    uint64_t restored_row_count; /* their file is damaged or gone, but older files or the log still had them */
    uint64_t loss_count;         /* calls of loss */
} npk_salvage_summary;

/* Write everything of the store at path that can still be read and proven by its checksum into target: a new store, or a directory of .npy files.
 * The source is only read; its index is never looked at. Rows keep their numbers: a row that is lost is zero bytes and listed. The result is whole
 * or, after an error, an empty store (as_npy: the files written so far). OK with losses too: see summary.
 * Errors: NOT_FOUND, FORMAT (no store), BUSY (the source is open anywhere), EXISTS (the target is not empty and force is 0), INVALID (target inside
 * the source, or the source itself), RANGE (until_lsn or until_us lies before what checkpoints and log reach back to), IO, NO_SPACE, NO_MEMORY,
 * INTERRUPTED. */
NPK_API npk_status npk_salvage(const char *path, const char *target, const npk_salvage_options *options,
                               npk_salvage_summary *summary, npk_error *err);

#ifdef __cplusplus
}
#endif
#endif
