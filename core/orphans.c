/* orphans.c - column files that nothing refers to, and what dead processes left of the log. */
#include "orphans.h"

#include <string.h>
#include <errno.h>

#include "alloc.h"
#include "catalog.h"
#include "error.h"
#include "store_files.h"
#include "view.h"

struct orphan_search {
    npk_kv *kv;
    npk_error *err;
    npk_status status;
    char (*names)[NPK_FILE_NAME_SIZE];
    size_t count, capacity;
};

static int examine(void *context, const char *name)
{
    struct orphan_search *search = context;
    uint64_t id;
    bool known = false, temporary = npk_store_files_decode_column_temp(name, &id);
    if (!temporary && !npk_store_files_decode_column(name, &id))
        return 0;
    if (!temporary) {
        npk_container container;
        search->status = npk_catalog_get_container(search->kv, NPK_CONTAINER_COLUMN, id, &container, &known, search->err);
        if (search->status != NPK_OK)
            return EIO;
    }
    if (known)
        return 0;
    if (search->count == search->capacity) {
        size_t capacity = search->capacity ? search->capacity * 2 : 16;
        char(*names)[NPK_FILE_NAME_SIZE] = npk_realloc(search->names, capacity * sizeof *names);
        if (!names)
            return ENOMEM;
        search->names = names;
        search->capacity = capacity;
    }
    memcpy(search->names[search->count++], name, strlen(name) + 1);
    return 0;
}

npk_status npk_orphans_remove(npk_core *core, uint64_t *removed, npk_error *err)
{
    const npk_io *io = core->io;
    struct orphan_search search = {.err = err};
    npk_status status = npk_view_begin(core, &search.kv, err);
    if (status != NPK_OK)
        return status;
    int rc = io->list(io, core->columns_directory, examine, &search);
    npk_view_end(core, search.kv);
    if (search.status != NPK_OK) {
        npk_free(search.names);
        return search.status;
    }
    for (size_t i = 0; i < search.count && !rc; i++)
        rc = io->unlink(io, core->columns_directory, search.names[i]);
    if (removed)
        *removed = search.count;
    npk_free(search.names);
    if (rc)
        return npk_fail_errno(err, rc, "could not remove unused column files");
    return npk_wal_remove_leftovers(core->wal, err);
}
