/* control.c - making and mapping the shared page. */
#include "control.h"

#include <assert.h>
#include <errno.h>

#include "bytes.h"
#include "error.h"
#include "store_files.h"

enum { CONTROL_SIZE = 16384, CONTROL_VERSION = 3 };

#define CONTROL_MAGIC 0x0a4c5254434b504eu /* "NPKCTRL\n" */
#define CONTROL_LAYOUT ((uint64_t)CONTROL_VERSION << 32 | (uint64_t)sizeof(npk_control))

static_assert(sizeof(npk_control) <= CONTROL_SIZE, "the shared page does not hold its struct");
static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && sizeof(_Atomic uint64_t) == 8, "atomics are shared between processes");

static npk_status fail(npk_error *err, int rc, const char *what)
{
    return npk_fail_errno(err, rc, "could not %s the shared page \"index/%s\"", what, NPK_FILE_CONTROL);
}

npk_status npk_control_create(const npk_io *io, npk_file *index_directory, npk_control **control, npk_error *err)
{
    npk_status status = NPK_OK;
    npk_file *file = NULL;
    void *address = NULL;
    int rc = io->unlink(io, index_directory, NPK_FILE_CONTROL_TEMP); /* of a process that died here */
    if (rc && rc != ENOENT)
        return fail(err, rc, "replace");
    rc = io->open(io, index_directory, NPK_FILE_CONTROL_TEMP, NPK_OPEN_WRITE | NPK_OPEN_CREATE | NPK_OPEN_EXCLUSIVE, &file);
    if (rc)
        return fail(err, rc, "create");
    /* Blocks on the disk first: touching a page without any on a full disk would kill. */
    rc = io->allocate(io, file, 0, CONTROL_SIZE);
    if (rc == 0)
        rc = io->map(io, file, 0, CONTROL_SIZE, NPK_MAPPING_SHARED, &address);
    io->close(io, file);
    if (rc) {
        status = fail(err, rc, "create");
        goto fail;
    }
    npk_control *page = address; /* all zero: a new file */
    atomic_store(&page->layout, CONTROL_LAYOUT);
    atomic_store(&page->magic, CONTROL_MAGIC);
    rc = io->rename(io, index_directory, NPK_FILE_CONTROL_TEMP, NPK_FILE_CONTROL);
    if (rc) {
        status = fail(err, rc, "name");
        goto fail;
    }
    *control = page;
    return NPK_OK;
fail:
    if (address)
        io->unmap(io, address, CONTROL_SIZE);
    (void)io->unlink(io, index_directory, NPK_FILE_CONTROL_TEMP);
    return status;
}

npk_status npk_control_open(const npk_io *io, npk_file *index_directory, npk_control **control, npk_error *err)
{
    npk_file *file = NULL;
    int rc = io->open(io, index_directory, NPK_FILE_CONTROL, NPK_OPEN_WRITE, &file);
    if (rc)
        return fail(err, rc, "open");
    npk_file_info info;
    void *address = NULL;
    rc = io->info(io, file, &info);
    bool fits = rc == 0 && info.size == CONTROL_SIZE; /* a shorter file must not be touched through a map */
    if (fits)
        rc = io->map(io, file, 0, CONTROL_SIZE, NPK_MAPPING_SHARED, &address);
    io->close(io, file);
    if (rc)
        return fail(err, rc, "map");
    npk_control *page = address;
    fits = fits && atomic_load(&page->magic) == CONTROL_MAGIC && atomic_load(&page->layout) == CONTROL_LAYOUT;
    if (!fits) {
        if (address)
            io->unmap(io, address, CONTROL_SIZE);
        return npk_fail(err, NPK_CORRUPT, "the shared page \"index/%s\" is damaged or of another build of the library",
                        NPK_FILE_CONTROL);
    }
    *control = page;
    return NPK_OK;
}

void npk_control_close(const npk_io *io, npk_control *control)
{
    if (control)
        io->unmap(io, control, CONTROL_SIZE);
}
