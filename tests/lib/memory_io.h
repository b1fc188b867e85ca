/* memory_io.h - an in-memory implementation of the system table whose disk can crash.
 *
 * The disk has two sides. Live is what the calls see: the page cache. Durable is what a power cut leaves for certain. In
 * between lie the pending changes, in the order they were issued, each of which a power cut may keep or lose:
 *
 *   data    one 512-byte sector of a file, with the bytes the cache held after the write
 *   size    a file grew; persists apart from the bytes
 *   name    a directory entry was made, renamed or removed
 *
 * These are the units of a crash. sync(file) makes the data and size units of that file durable; sync(directory) the name
 * units of that directory. Nothing else does, and nothing else orders anything. With names_follow_sync (ext4-like) sync(file)
 * also makes its own name durable, and those of the directories above it; name changes of one directory then stay in order.
 *
 * A crash state is a snapshot (what is durable and pending at one moment; cheap) together with a selection (which units
 * survive). memory_io_materialize builds a fresh disk from the two. Hooks run before and after each mutating call, so that
 * a harness takes its snapshots exactly there.
 *
 * The directory "index" in a store's root cannot live in memory, because LMDB does its own I/O: it is a real directory below
 * real_path, served by npk_io_posix(). Its name takes part in crashes, its contents do not: they are thrown away.
 *
 * All calls may come from any thread. Memory shortage of the test process itself ends the test.
 */
#ifndef NPK_TESTS_MEMORY_IO_H
#define NPK_TESTS_MEMORY_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io.h"
#include "io_calls.h"

typedef struct memory_io memory_io;
typedef struct memory_snapshot memory_snapshot;

typedef struct memory_io_options {
    uint64_t seed;          /* of random() */
    bool names_follow_sync; /* false: strict, names need a directory sync; true: ext4-like */
    bool real_clock;        /* true: the system's clocks and sleep; false: the clock of memory_io_set_clock */
    bool is_network;        /* what is_network() says */
    uint64_t capacity;      /* bytes of the disk; ENOSPC beyond; 0: no limit */
    const char *real_path;  /* an existing directory for the real "index" (copied); emptied; NULL: "index" gives ENOTSUP */
} memory_io_options;

/* options NULL: all zero. The disk is empty: the first open_root makes the store's directory. */
memory_io *memory_io_create(const memory_io_options *options);
/* Close what is still open, give everything back. Maps that were handed out stay valid until they are unmapped. NULL: nothing. */
void memory_io_destroy(memory_io *memory);
/* The table to hand to the library; valid until destroy. Any path opens the directory of that very spelling. */
const npk_io *memory_io_table(memory_io *memory);

/* ---- watching ------------------------------------------------------------------------------------------------- */

typedef struct memory_io_call {
    uint64_t sequence; /* from 1; the same before and after */
    bool is_after;
    int result;        /* after: what the call returns */
    io_call_kind kind; /* OPEN_ROOT and OPEN with CREATE, SYNC_PARENT, SYNC, WRITE, ALLOCATE, MAKE_DIRECTORY, RENAME, UNLINK,
                          REMOVE_DIRECTORY */
    uint64_t inode;    /* of the open file or directory; 0 for open_root */
    const char *name;  /* entry concerned, for rename the new name; NULL for none */
    uint64_t offset, size;
    const void *bytes; /* write: what is written */
} memory_io_call;

/* hook NULL takes it away. Called without locks held; it may take snapshots and use other disks, not change this one. Calls on
 * the real index are not reported: they change no crash state. */
void memory_io_set_hook(memory_io *memory, void (*hook)(void *context, const memory_io_call *call), void *context);
uint64_t memory_io_count(memory_io *memory, io_call_kind kind); /* calls so far, those on the real index included */
uint64_t memory_io_sequence(memory_io *memory);                 /* of the newest mutating call */
size_t memory_io_open_count(memory_io *memory);                 /* files and directories open now */
int64_t memory_io_map_count(memory_io *memory);                 /* maps of files and of memory that were not unmapped */

/* ---- the rest of the world -------------------------------------------------------------------------------------- */

/* Set both clocks; each look at one adds step_us, sleep_us adds its time and does not wait. */
void memory_io_set_clock(memory_io *memory, uint64_t now_us, uint64_t step_us);
void memory_io_set_process(memory_io *memory, const npk_process *process); /* default: that of the test */
void memory_io_set_network(memory_io *memory, bool is_network);
void memory_io_set_capacity(memory_io *memory, uint64_t capacity);

/* A sync of file that fails: what the failed pages become, and what the cache shows afterwards. The unit of the name is lost
 * or kept likewise for a directory, whose live side always stays. */
typedef enum memory_io_sync_failure {
    MEMORY_IO_CLEAN_NEW = 0, /* marked clean, cache keeps the new bytes: the next sync "succeeds" (ext4, XFS) */
    MEMORY_IO_CLEAN_OLD = 1, /* marked clean, cache returns the old bytes (Btrfs); the size stays */
    MEMORY_IO_DIRTY_NEW = 2, /* left dirty: a later sync can still write them */
    MEMORY_IO_DIRTY_OLD = 3  /* left dirty, but the cache returns the old bytes */
} memory_io_sync_failure;
void memory_io_fail_sync(memory_io *memory, npk_file *file, memory_io_sync_failure failure);

/* Flip, zero or replace bytes on both sides of the disk, as a decaying medium would: path is relative to the store's directory
 * ("wal/1.wal"). 0, ENOENT, or EINVAL outside the file. */
int memory_io_damage(memory_io *memory, const char *root, const char *path, uint64_t offset, const void *bytes, size_t size);
/* Cut or lengthen a file on both sides; it must not be mapped. */
int memory_io_set_size(memory_io *memory, const char *root, const char *path, uint64_t size);
/* Remove a file on both sides. */
int memory_io_remove(memory_io *memory, const char *root, const char *path);

/* ---- crash states ------------------------------------------------------------------------------------------------ */

memory_snapshot *memory_io_snapshot(memory_io *memory);
void memory_snapshot_release(memory_snapshot *snapshot); /* accepts NULL */
uint64_t memory_snapshot_sequence(const memory_snapshot *snapshot);
size_t memory_snapshot_unit_count(const memory_snapshot *snapshot);
/* Groups of units that belong to one file, or are names of one directory. */
size_t memory_snapshot_group_count(const memory_snapshot *snapshot);
/* Sectors of the newest pending write or allocation, if that was the last mutating call; else 0. */
size_t memory_snapshot_torn_count(const memory_snapshot *snapshot);
/* "data inode 7 offset 512", for messages. */
void memory_snapshot_describe(const memory_snapshot *snapshot, size_t unit, char *text, size_t size);

typedef enum memory_io_select {
    MEMORY_IO_NONE,         /* the durable side only */
    MEMORY_IO_ALL,          /* every unit */
    MEMORY_IO_PREFIX,       /* the first index units */
    MEMORY_IO_DROP_ONE,     /* all but unit index */
    MEMORY_IO_KEEP_ONE,     /* unit index alone */
    MEMORY_IO_DATA_ONLY,    /* data and size units */
    MEMORY_IO_NAMES_ONLY,   /* name units */
    MEMORY_IO_FILES,        /* group g survives whole when bit g (modulo 64) of index is set, else not at all */
    MEMORY_IO_SUBSET,       /* unit i survives when bit i of index is set; units from 64 on are lost */
    MEMORY_IO_RANDOM,       /* each unit by seed: kept, lost, zeroed, garbage; sizes also cut short */
    MEMORY_IO_TORN,         /* the last call reached the disk for its first index sectors, everything before it whole */
    MEMORY_IO_TORN_ALONE,   /* ... everything before it was lost */
    MEMORY_IO_PROCESS_DIED, /* no power loss: live side and pending units stay as they are, locks and open files are gone */
    MEMORY_IO_SELECT_COUNT
} memory_io_select;

/* What a sector that is not kept shows. Zeroed: zeros behind the durable size, the old bytes before it. Garbage: seeded random
 * bytes, only where the write would have changed something (powersafe overwrite). */
typedef enum memory_io_lost { MEMORY_IO_DROPPED, MEMORY_IO_ZEROED, MEMORY_IO_GARBAGE } memory_io_lost;

typedef struct memory_io_selection {
    memory_io_select select;
    memory_io_lost lost; /* all but RANDOM, which draws it per sector */
    uint64_t index;
    uint64_t seed;
} memory_io_selection;

/* A fresh disk in that state. real_path as in the options (emptied here); NULL when no store will be opened on it. It has its
 * own hooks, counters and pending units, so a crash during recovery is a snapshot of it. */
memory_io *memory_io_materialize(const memory_snapshot *snapshot, const memory_io_selection *selection,
                                 const char *real_path);

/* Visit the selections worth trying: up to 12 units all subsets (of dropped, and once more of garbage); else none, all,
 * every prefix, drop one, keep one, files, data only, names only; always torn and random_count random ones. each_limit bounds
 * prefixes, drop one, keep one, torn: more are spread evenly (0: no bound). A non-zero answer stops and is returned. */
int memory_io_select_all(const memory_snapshot *snapshot, uint64_t seed, size_t random_count, size_t each_limit,
                         int (*visit)(void *context, const memory_io_selection *selection), void *context);

/* A selection as text ("prefix:17:0:dropped") and back (0 or EINVAL), to replay a failing case. */
void memory_io_selection_format(const memory_io_selection *selection, char *text, size_t size);
int memory_io_selection_parse(const char *text, memory_io_selection *selection);

/* Of the live side: names, sizes and contents; equal trees give equal hashes whatever their history. */
uint64_t memory_io_hash(memory_io *memory);

/* Write the live tree of the store root into the real directory path, which must not exist; errno or 0. The index is left out. */
int memory_io_export(memory_io *memory, const char *root, const char *path);
/* The other way: everything in the real directory path becomes the durable store root, "index" left out. */
int memory_io_import(memory_io *memory, const char *root, const char *path);

#endif
