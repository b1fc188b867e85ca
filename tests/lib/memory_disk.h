/* memory_disk.h - the parts a crashable disk is made of; internal to tests/lib.
 *
 * Contents, entry lists, names and records are counted and copied only when a shared one changes, so that a snapshot is a copy
 * of pointers. Counts are atomic: one snapshot may be materialized by several threads. */
#ifndef NPK_TESTS_MEMORY_DISK_H
#define NPK_TESTS_MEMORY_DISK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io.h"
#include "memory_io.h"
#include "rng.h"

#define SECTOR_SIZE 512u
#define BLOCK_SIZE 4096u
#define TOP_INODE 1u /* a directory above all: its entries are the paths given to open_root */
#define INDEX_NAME "index"

void *memory_alloc(size_t size); /* zeroed; ends the test when memory is short */
void *memory_resize(void *block, size_t size);

/* ---- contents: blocks of a file, missing ones are zeros --------------------------------------------------------- */

typedef struct memory_block {
    atomic_int refs;
    _Atomic uint64_t hash; /* 0: not computed */
    uint8_t bytes[BLOCK_SIZE];
} memory_block;

typedef struct memory_content {
    atomic_int refs;
    _Atomic uint64_t hash; /* of all blocks, 0: not computed */
    size_t count;
    memory_block **blocks; /* NULL: zeros */
} memory_content;

memory_content *memory_content_retain(memory_content *content); /* NULL is the empty content */
void memory_content_release(memory_content *content);
void memory_content_read(const memory_content *content, uint64_t offset, void *bytes, size_t size);
void memory_content_write(memory_content **content, uint64_t offset, const void *bytes, size_t size);
void memory_content_trim(memory_content **content, uint64_t size); /* zeros from size on */
uint64_t memory_content_hash(memory_content *content, uint64_t size); /* bytes from size on must be zero */

/* ---- entries of a directory, in byte order ------------------------------------------------------------------------ */

typedef struct memory_name {
    atomic_int refs;
    char text[];
} memory_name;

typedef struct memory_entry {
    memory_name *name;
    uint64_t inode;
} memory_entry;

typedef struct memory_names {
    atomic_int refs;
    size_t count;
    memory_entry entries[];
} memory_names;

memory_name *memory_name_create(const char *text);
memory_name *memory_name_retain(memory_name *name);
void memory_name_release(memory_name *name);
memory_names *memory_names_retain(memory_names *names); /* NULL is the empty list */
void memory_names_release(memory_names *names);
uint64_t memory_names_find(const memory_names *names, const char *text); /* inode, 0: none */
void memory_names_set(memory_names **names, memory_name *name, uint64_t inode);
void memory_names_remove(memory_names **names, const char *text);

/* ---- records: pending changes, one per call ---------------------------------------------------------------------- */

typedef enum memory_record_kind { MEMORY_DATA, MEMORY_LINK, MEMORY_RENAME, MEMORY_UNLINK } memory_record_kind;

typedef struct memory_record {
    atomic_int refs;
    memory_record_kind kind;
    uint64_t sequence;
    uint64_t inode;     /* the file; for names the inode that is named */
    uint64_t directory; /* names */
    memory_name *from;  /* rename, unlink */
    memory_name *to;    /* link, rename */
    uint64_t old_size, new_size;
    uint64_t first_sector;
    size_t sector_count;
    uint8_t *image; /* sector_count sectors as the cache held them after the write */
} memory_record;

memory_record *memory_record_retain(memory_record *record);
void memory_record_release(memory_record *record);
/* Units in order: the size unit when the size changed, then the sectors; or the one name unit. */
size_t memory_record_unit_count(const memory_record *record);
bool memory_record_grows(const memory_record *record);
/* Apply a name change to a directory: what is renamed or unlinked must still be that inode. */
void memory_record_apply_name(const memory_record *record, memory_names **names);

/* ---- inodes ------------------------------------------------------------------------------------------------------- */

typedef struct memory_side {
    memory_content *content;
    memory_names *names;
    uint64_t size;
} memory_side;

memory_side memory_side_retain(const memory_side *side);
void memory_side_release(memory_side *side);

typedef struct memory_lock {
    const npk_file *owner;
    uint64_t start, end;
    npk_lock_kind kind;
} memory_lock;

typedef struct memory_inode {
    uint64_t id;
    bool is_directory;
    bool is_real; /* the "index" directory of a store */
    memory_side durable, live;
    /* The rest is of this run and in no snapshot. */
    int mapped_fd;          /* memory file that maps share with live; -1: never mapped */
    bool is_written_by_map; /* live must be read back from it */
    size_t open_count;
    memory_lock *locks;
    size_t lock_count;
} memory_inode;

struct memory_io {
    npk_io table; /* first: the table's functions cast back */
    memory_io_options options;
    char *real_path;
    pthread_mutex_t mutex; /* guards everything below */
    memory_inode **inodes; /* ascending id */
    size_t inode_count, inode_capacity;
    uint64_t next_inode;
    uint64_t device;
    memory_record **pending; /* in issue order */
    size_t pending_count, pending_capacity;
    uint64_t sequence;
    uint64_t counts[IO_CALL_COUNT];
    npk_file *open_files; /* list, so that destroy can close what was left open */
    int64_t map_count;
    rng random;
    uint64_t now_us, step_us;
    npk_process process;
    void (*hook)(void *context, const memory_io_call *call);
    void *hook_context;
};

memory_io *memory_io_create_bare(const memory_io_options *options); /* without top directory and process */
memory_inode *memory_inode_find(const memory_io *memory, uint64_t id); /* NULL: none */
memory_inode *memory_inode_add(memory_io *memory, uint64_t id, bool is_directory);
/* Drop the inodes that nothing can reach any more. */
void memory_inode_collect(memory_io *memory);
void memory_inode_free(memory_inode *inode);
/* Take what was written through a shared map into the blocks. */
void memory_inode_read_back(memory_inode *inode);
void memory_pending_add(memory_io *memory, memory_record *record); /* takes the record */
/* Make pending records durable (apply) or forget them: the data of inode, or the names of that directory up to index end. */
void memory_pending_settle(memory_io *memory, const memory_inode *inode, size_t end, bool apply);
/* The real directory that is the index of the store root with this inode; false without real_path or when it does not fit. */
bool memory_real_place(const memory_io *memory, uint64_t root, char *path, size_t size);
int memory_real_clear(const char *path); /* remove everything in a real directory */

#endif
