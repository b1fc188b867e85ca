/* array.h - one array at one moment (the npk_array of npk.h): where each logical row lies, and reading them.
 *
 * Built from one consistent view of the index, then immutable and shared by count: later commits, folds, drops and close do not touch
 * it. It holds every segment and column file it needs open, so its bytes outlive their names. */
#ifndef NPK_CORE_ARRAY_H
#define NPK_CORE_ARRAY_H

#include <stdatomic.h>

#include "catalog.h"
#include "column.h"
#include "kv.h"
#include "wal.h"

/* Rows first_row .. + count lie back to back at place (before overlays are looked at). Pieces are sorted and cover all rows. Neighbours are
 * merged where their rows go on in the same source, even if their slots do not: only the first row's slot is known from here. */
typedef struct npk_piece {
    uint64_t first_row, count;
    uint64_t lsn;        /* highest of the runs it was merged from */
    uint64_t first_slot; /* of the first row */
    uint32_t source; /* index into sources */
    uint64_t source_row;
} npk_piece;

/* A segment record or a column file that rows lie in. */
typedef struct npk_row_source {
    npk_place place;        /* row: added to every source_row; 0 but for overlay rows behind row 2^32 of a column file */
    npk_segment *segment;   /* one of the two, owned */
    npk_column *column;
    uint64_t end_row;              /* no row of the array lies at or behind this one of its data */
    _Atomic uint32_t touched;      /* rows that were wanted before rows was there: packed data only */
    _Atomic uint64_t mapped_count; /* how many lie at rows, set before it; 0: they have to be read */
    _Atomic(const char *) rows;    /* in memory, found by the first gather: NULL before. Mapped; or unpacked, and owned */
} npk_row_source;

/* One row that a packed set overrides. Sorted by row. */
typedef struct npk_overlay_row {
    uint64_t row;
    uint32_t source;
    uint32_t source_row;
} npk_overlay_row;

struct npk_array {
    _Atomic uint64_t references;
    const npk_io *io;
    npk_array_info info;      /* name, descr, shape point into record */
    npk_array_record record;
    npk_piece *pieces;        /* adjacent pieces of one source are merged */
    uint64_t piece_count;
    npk_overlay_row *overlay;
    uint64_t overlay_count;
    npk_row_source *sources;
    uint32_t source_count;
    npk_buffer attrs;         /* of the array, as npk_catalog_copy_attrs gives them */
    npk_position position;    /* of the view it was built from */
    _Atomic(struct npk_overlay_bits *) overlay_bits; /* made when enough rows were gathered, else NULL */
    _Atomic uint64_t gathered_count;                 /* rows, until then */
};

/* What the array needs to open its sources. writer: column files of the running transaction that are not finished yet (found by
 * id before the directory is asked); NULL outside one. */
typedef struct npk_array_sources {
    const npk_io *io;
    npk_wal *wal;
    npk_columns *columns;
    /* returns a retained readable column for an unfinished file of the running transaction, or NULL */
    npk_column *(*unfinished)(void *context, uint64_t file_id);
    void *context;
    bool only_places; /* salvage, verify: nothing is opened, the array only tells where its rows lie; it cannot be read */
} npk_array_sources;

/* Build from a view whose reading has begun (npk_kv_begin_read). NOT_FOUND: no array of that name, or (with *missing set) a file the
 * index names is not there: the caller looks again with the current index. CORRUPT (with *missing set when a log segment could not be
 * opened, which is damage only if the current index names it too), IO, NO_MEMORY. */
npk_status npk_array_build(npk_kv *kv, const char *name, const npk_array_sources *sources, npk_array **array,
                           bool *missing, npk_error *err);
npk_array *npk_array_retain(npk_array *array);

/* For folds and verify: the same as npk_array_read, but packed or raw segment records are compared with their checksum first; damage is
 * CORRUPT and names the rows. (Column files are checked by npk_column_check.) */
npk_status npk_array_read_checked(npk_array *array, uint64_t first, uint64_t count, void *out, npk_error *err);

#endif
