/* unsynced.h - column files that were linked before they were synced: who syncs them, and what recovery makes of them. Rules: FORMAT.md, "Unsynced
 * files", whose numbers are used here.
 *
 * The index says which files are in doubt, so that any process can sync what another one linked before it died: a file that something refers to and
 * whose UNSYNCED_FILE record lies at or above the watermark. control->unsynced_lsn spares those who find none the search. */
#ifndef NPK_CORE_UNSYNCED_H
#define NPK_CORE_UNSYNCED_H

#include "catalog.h"
#include "core.h"

/* Under the writer lock, before the transaction is published: files were linked unsynced by records below lsn. */
void npk_unsynced_note(npk_core *core, uint64_t lsn);

/* Ids (u64 in memory order, appended) of the files of this state whose UNSYNCED_FILE record lies at or above durable_lsn. The watermark may be raised
 * to the state's end once npk_unsynced_sync has synced them. */
npk_status npk_unsynced_list(npk_kv *kv, uint64_t durable_lsn, npk_buffer *ids, npk_error *err);
/* Rule 1: sync these files and their directory. A file that is gone is left out: it died and was reclaimed since, or was lost, and then reading its
 * rows says so. A failed sync poisons the store before this returns; other errors leave everything as it was. */
npk_status npk_unsynced_sync(npk_core *core, const npk_buffer *ids, npk_error *err);
/* The directory alone, for files that were synced already. It holds names that others left unsynced, so a failure poisons the store too, whether or not
 * there are any: one may be given this moment. */
npk_status npk_unsynced_sync_names(npk_core *core, npk_error *err);
/* Both, for the state that a transaction sees. */
npk_status npk_unsynced_sync_state(npk_core *core, npk_kv *kv, npk_error *err);

/* ---- recovery ---------------------------------------------------------------------------------------------------------- */

/* An UNSYNCED_FILE record that a replay met. */
typedef struct npk_link {
    uint64_t file_id;
    uint64_t begin_lsn;  /* the end of the transaction before */
    uint64_t commit_lsn; /* of its commit record; 0: not seen yet */
    bool is_good;        /* it was checked, and dealt with */
} npk_link;

typedef enum npk_link_action {
    NPK_LINK_CHECK, /* look only */
    NPK_LINK_RENEW, /* rule 3: what is right is copied into a file that is durable with its name */
    NPK_LINK_SYNC   /* ... or synced as it is: where there is no room to copy, and no sync is known to have failed */
} npk_link_action;

typedef struct npk_link_check {
    const npk_io *io;
    npk_file *directory;    /* "columns" */
    npk_columns *columns;
    npk_kv *kv;             /* the state at the end of the log that was replayed */
    npk_buffer *links;      /* npk_link, in order of their records */
    uint64_t watermark_lsn; /* as the log has it (npk_wal_scan): files of transactions that commit above are dealt with */
    uint64_t trusted_lsn;   /* at or above it: what lies below is not cut for a wrong file; such a file is damage */
    npk_link_action action;
} npk_link_check;

/* Rules 2 and 3. *end_lsn: in, the end of the log; out, a transaction's end at or below it: up to there every file that is in doubt is right and
 * dealt with. NO_SPACE, IO, NO_MEMORY; files dealt with before are not looked at again by the next call. */
npk_status npk_unsynced_find_end(const npk_link_check *check, uint64_t *end_lsn, npk_error *err);

#endif
