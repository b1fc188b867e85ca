/* io.c - what every implementation of the system table shares: loops over short results, and replacing a file. */
#include "io.h"

#include <errno.h>

#include "error.h"

npk_status npk_io_read_full(const npk_io *io, npk_file *file, uint64_t offset, void *bytes, size_t size, size_t *done,
                            const char *name, npk_error *err)
{
    size_t total = 0;
    while (total < size) {
        size_t part = 0;
        int rc = io->read(io, file, offset + total, (char *)bytes + total, size - total, &part);
        if (rc == EINTR)
            continue;
        if (rc)
            return npk_fail_errno(err, rc, "could not read file \"%s\" at offset %llu", name,
                                  (unsigned long long)(offset + total));
        if (part == 0)
            break;
        total += part;
    }
    if (done)
        *done = total;
    else if (total < size)
        return npk_fail(err, NPK_CORRUPT, "file \"%s\" ends at offset %llu, %llu bytes too early", name,
                        (unsigned long long)(offset + total), (unsigned long long)(size - total));
    return NPK_OK;
}

npk_status npk_io_write_full(const npk_io *io, npk_file *file, uint64_t offset, const void *bytes, size_t size,
                             const char *name, npk_error *err)
{
    size_t total = 0;
    while (total < size) {
        size_t part = 0;
        int rc = io->write(io, file, offset + total, (const char *)bytes + total, size - total, &part);
        if (rc == EINTR)
            continue;
        if (rc == 0 && part == 0)
            rc = EIO; /* a device that takes nothing and says nothing */
        if (rc)
            return npk_fail_errno(err, rc, "could not write file \"%s\" at offset %llu", name,
                                  (unsigned long long)(offset + total));
        total += part;
    }
    return NPK_OK;
}

npk_status npk_io_replace_file(const npk_io *io, npk_file *directory, const char *temp_name, const char *name,
                               const void *bytes, size_t size, npk_error *err)
{
    npk_file *file = NULL;
    int rc = io->open(io, directory, temp_name, NPK_OPEN_WRITE | NPK_OPEN_CREATE | NPK_OPEN_EXCLUSIVE, &file);
    if (rc)
        return npk_fail_errno(err, rc, "could not create file \"%s\"", temp_name);
    npk_status status = npk_io_write_full(io, file, 0, bytes, size, temp_name, err);
    if (status == NPK_OK) {
        rc = io->sync(io, file);
        if (rc)
            status = npk_fail_errno(err, rc, "could not sync file \"%s\"", temp_name);
    }
    io->close(io, file);
    if (status == NPK_OK) {
        rc = io->rename(io, directory, temp_name, name);
        if (rc)
            status = npk_fail_errno(err, rc, "could not rename \"%s\" to \"%s\"", temp_name, name);
    }
    if (status != NPK_OK) {
        (void)io->unlink(io, directory, temp_name);
        return status;
    }
    rc = io->sync(io, directory);
    if (rc)
        return npk_fail_errno(err, rc, "could not sync the directory of \"%s\"", name);
    return NPK_OK;
}
