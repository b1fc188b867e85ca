/* damage.h - stores made to be damaged, and every way to damage one of their files.
 *
 * A damage_store is a disk as a process that died (or closed) left it, with the contents after each of its transactions and what proves each of them
 * durable. A damage_case names one damage; it is the same damage each time, so the printed case is all that a replay needs. */
#ifndef DAMAGE_H
#define DAMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory_io.h"
#include "model.h"

#define DAMAGE_HISTORY 48
#define DAMAGE_ROOT "store"
#define DAMAGE_SECTOR 512u

typedef struct damage_file {
    char path[64];      /* "wal/0000000000000001.wal"; those below "index/" are real files */
    uint8_t *bytes;     /* owned */
    uint64_t size;
    uint8_t *older[4];  /* owned: the same file (size bytes, zeros where it was shorter) at earlier moments; NULL: it was not there */
} damage_file;

typedef struct damage_store {
    const char *name;
    memory_snapshot *disk;
    model history[DAMAGE_HISTORY]; /* after each transaction */
    uint64_t ends[DAMAGE_HISTORY]; /* LSN at which it ends */
    int newest;
    int proven;              /* newest one that a checkpoint's name or a later segment proves, whatever becomes of the last segment */
    damage_file *files;      /* owned */
    size_t file_count;
    size_t last_segment;     /* index into files */
    uint64_t tail_offset;    /* in the last segment: the last transaction's records begin here */
    bool is_synced;          /* level commit: each transaction's records say that the one before is durable */
    bool has_index;          /* the files below "index/" are put on the disk as well */
} damage_store;

typedef enum damage_kind {
    DAMAGE_FLIP,     /* bit a */
    DAMAGE_ZEROS,    /* sector a */
    DAMAGE_ONES,     /* sector a */
    DAMAGE_GARBAGE,  /* sector a, seed b */
    DAMAGE_STALE,    /* sector a as it was at moment b */
    DAMAGE_FOREIGN,  /* sector a comes from file b of the same directory */
    DAMAGE_SWAP,     /* sectors a and b exchanged */
    DAMAGE_SMEAR,    /* offset a, up to a sector of random bytes from seed b */
    DAMAGE_WIPE,     /* zeros from sector a to the end */
    DAMAGE_CUT,      /* size a */
    DAMAGE_GROW,     /* a bytes of garbage behind the end */
    DAMAGE_REMOVE,   /* the file is gone */
    DAMAGE_EXCHANGE, /* it and file a have each other's content */
    DAMAGE_UNPROVEN, /* bit a of a checkpoint, and zeros from sector b of the last segment on */
    DAMAGE_SEVERAL,  /* two to four flips, smears, zeroed sectors and wiped tails in any files but the index, seed a */
    DAMAGE_KIND_COUNT
} damage_kind;

typedef struct damage_case {
    uint32_t store, file;
    damage_kind kind;
    uint64_t a, b;
} damage_case;

/* The bytes of the file that a case may have changed; whole: names or sizes too, or more than one range. */
typedef struct damage_range {
    uint64_t begin, end;
    bool whole;
} damage_range;

enum { DAMAGE_STORE_COUNT = 5 };

/* Make all stores; real_path: an existing directory for real indexes, which are removed again. Ends the test when something is wrong. */
void damage_make(damage_store stores[DAMAGE_STORE_COUNT], const char *real_path);
void damage_release(damage_store stores[DAMAGE_STORE_COUNT]);

/* Every damage of files of up to 512 bytes, every sector of the others in every way, every size at and beside a sector's end; then random ones from
 * seed until there are count. None of them leaves the file as it was, none comes twice. The caller frees. */
damage_case *damage_list(const damage_store stores[DAMAGE_STORE_COUNT], uint64_t seed, size_t count, size_t *made);

/* A fresh disk of the store with that damage; its real index lies in real_path, which is emptied. */
memory_io *damage_apply(const damage_store stores[DAMAGE_STORE_COUNT], const damage_case *c, const char *real_path, damage_range *range);

/* "killed:wal/0000000000000002.wal:flip:33000:0", and back: false when it names nothing. */
void damage_format(const damage_store stores[DAMAGE_STORE_COUNT], const damage_case *c, char text[160]);
bool damage_parse(const damage_store stores[DAMAGE_STORE_COUNT], const char *text, damage_case *c);
const char *damage_kind_name(damage_kind kind);

#endif
