/* control.h - index/control, the page that all processes of a store share: hints and flags, never the only truth.
 *
 * 16384 bytes, mapped shared. Fields are accessed with C11 atomics. The page is made anew by whoever gets LOCK:OPEN exclusive; nothing in
 * it survives the last process. Guards: index_name, complete, generation: GATE or WRITER; poison, writer_*: WRITER; pins: the slot's OFD lock;
 * floor: COMPACTOR; durable_lsn: raised only after a sync that succeeded; unsynced_lsn: WRITER, only grows; interval_*: only grow (lsn) and shrink
 * (ms). */
#ifndef NPK_CORE_CONTROL_H
#define NPK_CORE_CONTROL_H

#include <stdatomic.h>
#include <stdbool.h>
#include "io.h"
#include "npk.h"

#define NPK_PIN_SLOT_COUNT 1024

typedef struct npk_control {           /* lies in shared memory: fixed-width members only, same build on all sides */
    _Atomic uint64_t magic;            /* set last */
    _Atomic uint64_t layout;           /* sizeof and version of this struct */
    _Atomic uint64_t index_name;       /* the current index/<name> */
    _Atomic uint64_t complete;         /* 1: index_name is complete and may be trusted */
    _Atomic uint64_t generation;       /* raised by every cut, rebuild and poison: caches of positions are void */
    _Atomic uint64_t poison;           /* 0, or 1: a sync failed; the next writer runs the tail procedure */
    _Atomic uint64_t poison_lost_lsn;  /* what was published behind it is gone, for the handles' one-time error; 0: nothing */
    _Atomic uint64_t poison_lost_count; /* how often that happened: each handle compares it with what it has said already */
    _Atomic uint64_t reserve_gone;     /* 1: the reserve was given up on a full disk */
    _Atomic uint64_t space_short;      /* 1: a transaction got NO_SPACE; the next checkpoint reclaims all it can */
    _Atomic uint64_t durable_lsn;      /* everything below is synced, with the column files it needs */
    _Atomic uint64_t unsynced_lsn;     /* no file was linked unsynced behind it: below durable_lsn, there is none to sync */
    _Atomic uint64_t synced_us;        /* monotonic: when durable_lsn was raised last */
    _Atomic uint64_t interval_lsn;     /* up to here somebody committed at level INTERVAL: above durable_lsn, a sync is due */
    _Atomic uint64_t interval_ms;      /* the shortest interval of those who did, 0: nobody yet */
    _Atomic uint64_t marked_lsn;       /* the log's end when a watermark record was its last one: idle writers leave it at that */
    _Atomic uint64_t writer_active;    /* 1 while a writer may have put bytes into the log that are not published */
    _Atomic uint64_t writer_pid, writer_since_us;
    char writer_host[64], writer_program[64]; /* torn reads are harmless: for messages only */
    _Atomic uint64_t floor_lsn;        /* reclaim may remove what died at or below this */
    _Atomic uint64_t pin_lsn[NPK_PIN_SLOT_COUNT]; /* 0: free or unused; alive only while LOCK byte 4096 + i is held */
} npk_control;

/* Create the page (GATE and OPEN exclusive held): a fresh file renamed into place. Map it. */
npk_status npk_control_create(const npk_io *io, npk_file *index_directory, npk_control **control, npk_error *err);
/* Map an existing page; CORRUPT when it does not fit this build. */
npk_status npk_control_open(const npk_io *io, npk_file *index_directory, npk_control **control, npk_error *err);
void npk_control_close(const npk_io *io, npk_control *control); /* accepts NULL */

#endif
