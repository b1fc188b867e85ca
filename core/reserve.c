/* reserve.c - the file "reserve". */
#include "reserve.h"

#include <errno.h>

#include "error.h"
#include "store_files.h"

/* errno of making it; 0: it is there. */
static int make_reserve(npk_core *core)
{
    const npk_io *io = core->io;
    npk_file_info info;
    if (core->read_only || io->info_at(io, core->root, NPK_FILE_RESERVE, &info) == 0)
        return 0;
    npk_file *file = NULL;
    int rc = io->open(io, core->root, NPK_FILE_RESERVE, NPK_OPEN_WRITE | NPK_OPEN_CREATE | NPK_OPEN_EXCLUSIVE, &file);
    if (rc)
        return rc == EEXIST ? 0 : rc;
    /* Enough for the copy of a segment and the next one, which is what a cut on a full disk needs. */
    rc = io->allocate(io, file, 0, 2 * core->settings.segment_size);
    io->close(io, file);
    if (rc)
        (void)io->unlink(io, core->root, NPK_FILE_RESERVE);
    return rc;
}

void npk_reserve_ensure(npk_core *core)
{
    int rc = make_reserve(core);
    atomic_store(&core->control->reserve_gone, rc == ENOSPC || rc == EDQUOT || rc == EFBIG);
}

void npk_reserve_release(npk_core *core)
{
    if (core->read_only)
        return;
    atomic_store(&core->control->reserve_gone, 1);
    (void)core->io->unlink(core->io, core->root, NPK_FILE_RESERVE);
}

npk_status npk_reserve_require(npk_core *core, npk_error *err)
{
    if (!atomic_load(&core->control->reserve_gone))
        return NPK_OK;
    int rc = make_reserve(core);
    if (rc == ENOSPC || rc == EDQUOT || rc == EFBIG)
        return npk_fail_errno(err, rc, "the disk is full; rows and arrays can be dropped, but none added until there is room again");
    atomic_store(&core->control->reserve_gone, 0);
    return NPK_OK;
}
