/* index.h - the shared live index: one LMDB environment. The only file pair that knows LMDB.
 *
 * The index takes no part in durability: MDB_NOSYNC | MDB_NOTLS, no MDB_WRITEMAP. It is thrown away and rebuilt at will. Readers
 * see one committed state each; a read transaction is short: no view, cursor or iterator of the store holds one. A write
 * transaction begins and ends inside npk_index_publish, called only under the store's writer lock. */
#ifndef NPK_CORE_INDEX_H
#define NPK_CORE_INDEX_H

#include <stdbool.h>
#include "io.h"
#include "kv.h"

/* Open (or create, with all tables) the environment in the directory index/<name>. One environment per process and store: the caller's registry
 * sees to that. max readers 1024. map_size 0: 256 MiB to start with; it grows by itself. After mdb_env_open an OFD read lock on byte
 * 0 of lock.mdb is kept through io, so that a stray open + close in this process cannot re-initialise the reader table.
 * lock.mdb is preallocated before. IO, NO_SPACE, CORRUPT, NO_MEMORY. */
npk_status npk_index_open(const npk_io *io, npk_file *index_directory, const char *name, bool create, uint64_t map_size,
                          npk_index **index, npk_error *err);
void npk_index_close(npk_index *index);      /* accepts NULL; no reader may be active */
/* Remove index/<name> and the two files of an environment in it, which stay with those who have them open. A directory that holds anything else
 * is not an index and stays; one that is not there is no error. 0 or errno. */
int npk_index_remove(const npk_io *io, npk_file *index_directory, const char *name);
/* After fork, in the child: give descriptors back without touching the shared lock table; the memory stays. */
void npk_index_abandon(npk_index *index);

/* The tables in the order they have in the tree: changes come in this order. */
extern const npk_table npk_index_order[NPK_TABLE_COUNT];

/* LMDB's last transaction id: changes with every publish; costs tens of nanoseconds. */
uint64_t npk_index_version(npk_index *index);

/* A read transaction. Handles come from a small pool. MDB_MAP_RESIZED and a full reader table (after mdb_reader_check) are handled. */
typedef struct npk_index_reader npk_index_reader;
npk_status npk_index_begin(npk_index *index, npk_index_reader **reader, npk_error *err);
void npk_index_end(npk_index_reader *reader);
/* Bytes are valid until npk_index_end. */
npk_status npk_index_get(npk_index_reader *reader, npk_table table, const void *key, size_t key_size,
                         const uint8_t **value, size_t *value_size, bool *found, npk_error *err);
npk_status npk_index_at_or_after(npk_index_reader *reader, npk_table table, const void *key, size_t key_size,
                                 const uint8_t **found_key, size_t *found_key_size, const uint8_t **value,
                                 size_t *value_size, bool *found, npk_error *err);
npk_status npk_index_at_or_before(npk_index_reader *reader, npk_table table, const void *key, size_t key_size,
                                  const uint8_t **found_key, size_t *found_key_size, const uint8_t **value,
                                  size_t *value_size, bool *found, npk_error *err);
/* The entry behind the one the last at_or_after or next of this reader and table gave. */
npk_status npk_index_next(npk_index_reader *reader, npk_table table, const uint8_t **found_key, size_t *found_key_size,
                          const uint8_t **value, size_t *value_size, bool *found, npk_error *err);

/* Room first: make sure that publishing these changes cannot fail for lack of map or disk: the map is grown and data.mdb
 * preallocated (in steps, so that most calls do nothing). NO_SPACE leaves everything as it was. */
npk_status npk_index_reserve(npk_index *index, size_t change_count, size_t change_size, npk_error *err);
/* Write all changes of the view in order, in one transaction. On error the index is as before. *version, unless NULL: what npk_index_version is
 * from now on. */
npk_status npk_index_publish(npk_index *index, npk_kv *changes, uint64_t *version, npk_error *err);

/* Bytes of data.mdb in use and on disk. */
void npk_index_sizes(npk_index *index, uint64_t *used_size, uint64_t *file_size);

/* Tests: make the next publish fail with IO. */
void npk_index_fail_next_publish(npk_index *index);

#endif
