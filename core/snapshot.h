/* snapshot.h - one committed state of everything: a copy of the metadata, the row index and the attributes in memory, and a pin that keeps the
 * files. */
#ifndef NPK_CORE_SNAPSHOT_H
#define NPK_CORE_SNAPSHOT_H

#include "core.h"
#include "view.h"

/* Copy all tables of a view (reading begun), the checksums of column files only when asked, into a memory-only one. */
npk_status npk_snapshot_copy(npk_kv *from, bool with_sums, npk_kv **copy, npk_error *err);

/* npk_snapshot_take with the choice, and the view inside: for the one thread that owns the snapshot. */
npk_status npk_snapshot_take_copy(npk_store *store, bool with_sums, npk_snapshot **snapshot, npk_error *err);
npk_kv *npk_snapshot_view(npk_snapshot *snapshot);

/* Where a public read looks: begin gives a view to read from, end gives it back. Checks that exactly one source is named and that this is not a
 * forked child. */
typedef struct npk_source_view {
    npk_kv *kv;
    npk_core *core;
    npk_snapshot *snapshot;  /* its mutex is held, else NULL */
    bool from_store;
} npk_source_view;
npk_status npk_source_begin(const npk_source *source, npk_source_view *view, npk_error *err);
void npk_source_end(npk_source_view *view);

#endif
