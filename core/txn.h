/* txn.h - transactions as the modules of the core use them: the writer lock, a view that collects changes, logged operations. */
#ifndef NPK_CORE_TXN_H
#define NPK_CORE_TXN_H

#include "catalog.h"
#include "core.h"
#include "op.h"

/* A column file that the transaction is filling (bulk rows). */
typedef struct npk_bulk {
    struct npk_bulk *next;
    npk_column_writer *writer;
    uint64_t array;         /* rows of this array only */
    uint64_t announced_lsn; /* of its first FILE record */
    bool sealed;            /* a rollback undid rows of it: no more rows go in, so that none of the undone ones is between */
} npk_bulk;

/* Where the undo list, the log and the record count stood. */
typedef struct npk_savepoint {
    uint64_t mark, lsn;
    uint32_t record_count;
} npk_savepoint;

struct npk_txn {
    npk_store *store;       /* NULL: a transaction of the core itself (fold, reclaim) */
    npk_core *core;
    npk_kv *kv;
    uint64_t id;
    uint64_t begin_lsn;
    uint32_t record_count;
    npk_savepoint *savepoints; /* the number given to the caller is the index */
    uint64_t savepoint_count, savepoint_capacity;
    bool full;              /* something of it met a full disk */
    bool adds_rows;         /* then it may not use the reserve of a full disk */
    npk_status broken;      /* not OK: only abort is left */
    npk_bulk *bulks;
    npk_buffer meta;        /* scratch: the meta of the record being logged */
    npk_buffer rows;        /* scratch: gathered row bytes */
    npk_array_record described; /* what npk_txn_describe gave out */
};

npk_status npk_txn_begin_core(npk_core *core, const npk_wait *wait, npk_txn **txn, npk_error *err);
/* Log an operation and apply it to the transaction's view. */
npk_status npk_txn_log(npk_txn *txn, const npk_op *op, const void *data, size_t data_size, npk_error *err);
/* Log a finished column file: FILE (UNSYNCED_FILE when it is not durable with its name) and, when it has many blocks, SUMS records. */
npk_status npk_txn_log_file(npk_txn *txn, const npk_column_summary *summary, bool synced, npk_error *err);
/* Where the transaction stands, and going back there. The second breaks the transaction when the log fails. */
npk_savepoint npk_txn_here(const npk_txn *txn);
npk_status npk_txn_undo_to(npk_txn *txn, const npk_savepoint *to, npk_error *err);
/* A readable column for a file this transaction is filling, retained, or NULL; context is the transaction. */
npk_column *npk_txn_unfinished(void *context, uint64_t file_id);

#endif
