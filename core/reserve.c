/* reserve.c - the file "reserve". */
#include "reserve.h"

#include "store_files.h"

void npk_reserve_ensure(npk_core *core)
{
    const npk_io *io = core->io;
    npk_file_info info;
    if (core->read_only)
        return;
    if (io->info_at(io, core->root, NPK_FILE_RESERVE, &info) == 0) {
        atomic_store(&core->space_short, false);
        return;
    }
    npk_file *file = NULL;
    if (io->open(io, core->root, NPK_FILE_RESERVE, NPK_OPEN_WRITE | NPK_OPEN_CREATE | NPK_OPEN_EXCLUSIVE, &file) != 0)
        return;
    /* Enough for the copy of a segment and the next one, which is what a cut on a full disk needs. */
    int rc = io->allocate(io, file, 0, 2 * core->settings.segment_size);
    io->close(io, file);
    if (rc)
        (void)io->unlink(io, core->root, NPK_FILE_RESERVE);
    else
        atomic_store(&core->space_short, false);
}

void npk_reserve_release(npk_core *core)
{
    atomic_store(&core->space_short, true);
    if (!core->read_only)
        (void)core->io->unlink(core->io, core->root, NPK_FILE_RESERVE);
}
