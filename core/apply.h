/* apply.h - the one function that turns log records into index changes: index = f(checkpoint, log).
 *
 * Deterministic: the same record on the same view gives the same changes, whether it was just logged by a transaction, is
 * replayed by recovery, or is read by npk-recover. It opens no file and asks no clock. What it needs to know about rows is in the
 * record's meta and place. */
#ifndef NPK_CORE_APPLY_H
#define NPK_CORE_APPLY_H

#include "catalog.h"
#include "kv.h"
#include "npk.h"
#include "op.h"
#include "wal.h"

/* Apply an operation record. CORRUPT when it does not fit the state (the log is damaged or of another store), NO_MEMORY; the
 * view may then hold a part of the change: the caller rolls back to its mark. */
npk_status npk_apply(npk_kv *kv, const npk_record *record, npk_error *err);

/* Note the end of a transaction: its time and number. */
npk_status npk_apply_commit(npk_kv *kv, const npk_record *record, npk_error *err);

/* Set the applied LSN: after this, publishing the view makes the state at end visible. *result, unless NULL: that state. */
npk_status npk_apply_end(npk_kv *kv, const npk_wal_end *end, npk_store_state *result, npk_error *err);

#endif
