/* wal_writer.h - what the writer shares with the tail procedure. The interface of the writer is in wal.h. */
#ifndef NPK_WAL_WRITER_H
#define NPK_WAL_WRITER_H

#include "wal_handle.h"

enum {
    NPK_WAL_BUFFER_MAX = 4 * 1024 * 1024, /* written out above this */
    NPK_WAL_PACK_SIZE_MIN = 1024,         /* smaller data is not tried with lz4 */
    NPK_WAL_PACK_BACKOFF_MAX = 6,         /* at most 2^6 attempts are skipped after a failure */
    /* Every record but a void one leaves this much room behind it, so that on a full disk, where no next segment can be made, a
     * transaction that was written in part can still be undone. */
    NPK_WAL_VOID_ROOM = NPK_RECORD_HEADER_SIZE + NPK_VOID_META_SIZE
};

#endif
