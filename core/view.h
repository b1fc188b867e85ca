/* view.h - looking at the newest committed state: views of the index, the cache of arrays, snapshots, pins. */
#ifndef NPK_CORE_VIEW_H
#define NPK_CORE_VIEW_H

#include "array.h"
#include "core.h"

/* A view of one committed state, for reading; end it soon. Follows control when another process rebuilt the index. */
npk_status npk_view_begin(npk_core *core, npk_kv **kv, npk_error *err);
void npk_view_end(npk_core *core, npk_kv *kv);

/* Open the index that control names: *name is which one. */
npk_status npk_view_open_index(npk_core *core, uint64_t *name, npk_index **index, npk_error *err);

/* The published state by itself, remembered as long as nothing is published: each commit asks twice. */
npk_status npk_view_state(npk_core *core, npk_store_state *state, npk_error *err);
/* The holder of the writer lock has published this state, which is this version of the index. */
void npk_view_published(npk_core *core, const npk_store_state *state, uint64_t version);

/* For the holder of the writer lock: a view that collects changes. Nobody else publishes, so it may live as long as the lock; it holds no read
 * transaction but keeps the index from being swapped by anyone but its own thread. */
npk_status npk_view_begin_write(npk_core *core, npk_kv **kv, npk_error *err);
void npk_view_end_write(npk_core *core, npk_kv *kv);

/* The array as it is now, from the cache when it has not changed. Retained for the caller. */
npk_status npk_view_array(npk_core *core, const char *name, npk_array **array, npk_error *err);
/* Drop cached arrays: all of them, or (trim) those that are not current, so that the space of dead files is given back. */
void npk_view_forget_arrays(npk_core *core);
void npk_view_trim_arrays(npk_core *core);

/* What npk_array_build needs outside a transaction. */
npk_array_sources npk_view_sources(npk_core *core);

/* Keep every file that the state at lsn refers to. CONFLICT: reclaim has already passed it, look again. */
npk_status npk_pin_take(npk_core *core, uint64_t lsn, npk_error *err);
void npk_pin_release(npk_core *core, uint64_t lsn);
/* The oldest pin of all live processes, UINT64_MAX: none. Clears the slots of dead ones. */
npk_status npk_pin_oldest(npk_core *core, uint64_t *lsn, npk_error *err);

#endif
