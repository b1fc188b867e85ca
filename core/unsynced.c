/* unsynced.c - syncing column files after they were linked, and checking at recovery those that were not. */
#include "unsynced.h"

#include <errno.h>
#include <string.h>

#include "alloc.h"
#include "bytes.h"
#include "checksum.h"
#include "column_format.h"
#include "error.h"

#define COPY_SIZE (1u << 20) /* whole blocks of NPK_SUM_BLOCK */

/* ---- while the store is open ------------------------------------------------------------------------------------------ */

void npk_unsynced_note(npk_core *core, uint64_t lsn)
{
    uint64_t known = atomic_load(&core->control->unsynced_lsn);
    if (known < lsn)
        atomic_store(&core->control->unsynced_lsn, lsn);
}

struct search {
    uint64_t durable_lsn;
    npk_buffer *ids;
};

static npk_status visit_container(void *context, const uint8_t *key, size_t key_size, const uint8_t *value,
                                  size_t value_size, bool *stop, npk_error *err)
{
    (void)stop;
    struct search *search = context;
    npk_container container;
    if (key_size != 9 || !npk_container_decode(value, value_size, &container))
        return npk_catalog_fail(err, NPK_TABLE_PLACES);
    if (container.unsynced_lsn == 0 || container.unsynced_lsn < search->durable_lsn || container.reference_count == 0)
        return NPK_OK;
    uint64_t id = npk_get_be64(key + 1);
    npk_buffer_put(search->ids, &id, sizeof id);
    return search->ids->failed ? npk_fail(err, NPK_NO_MEMORY, "could not list unsynced files") : NPK_OK;
}

npk_status npk_unsynced_list(npk_kv *kv, uint64_t durable_lsn, npk_buffer *ids, npk_error *err)
{
    struct search search = {durable_lsn, ids};
    uint8_t prefix = NPK_CONTAINER_COLUMN;
    return npk_kv_scan(kv, NPK_TABLE_PLACES, &prefix, sizeof prefix, NULL, 0, visit_container, &search, err);
}

/* As a failed sync of the log: the system reports it once, so everybody must know before anybody believes a later one. */
static npk_status fail_sync(npk_core *core, int rc, const char *what, npk_error *err)
{
    atomic_store(&core->control->poison, 1);
    atomic_fetch_add(&core->control->generation, 1);
    return npk_fail_errno(err, rc, "could not sync \"%s\"", what);
}

npk_status npk_unsynced_sync_names(npk_core *core, npk_error *err)
{
    int rc = core->io->sync(core->io, core->columns_directory);
    return rc ? fail_sync(core, rc, "columns", err) : NPK_OK;
}

npk_status npk_unsynced_sync(npk_core *core, const npk_buffer *ids, npk_error *err)
{
    const npk_io *io = core->io;
    for (size_t at = 0; at < ids->size; at += sizeof(uint64_t)) {
        uint64_t id;
        memcpy(&id, ids->data + at, sizeof id);
        char name[NPK_COLUMN_NAME_SIZE];
        npk_column_name(name, id, true);
        npk_file *file = NULL;
        int rc = io->open(io, core->columns_directory, name, NPK_OPEN_READ, &file);
        if (rc == ENOENT)
            continue;
        if (rc)
            return npk_fail_errno(err, rc, "could not open file \"columns/%s\" to sync it", name);
        rc = io->sync(io, file);
        io->close(io, file);
        if (rc)
            return fail_sync(core, rc, name, err);
    }
    return ids->size ? npk_unsynced_sync_names(core, err) : NPK_OK;
}

npk_status npk_unsynced_sync_state(npk_core *core, npk_kv *kv, npk_error *err)
{
    uint64_t durable_lsn = atomic_load(&core->control->durable_lsn);
    if (atomic_load(&core->control->unsynced_lsn) < durable_lsn)
        return NPK_OK;
    npk_buffer ids;
    npk_buffer_init(&ids);
    npk_status status = npk_unsynced_list(kv, durable_lsn, &ids, err);
    if (status == NPK_OK)
        status = npk_unsynced_sync(core, &ids, err);
    npk_buffer_release(&ids);
    return status;
}

/* ---- recovery ---------------------------------------------------------------------------------------------------------- */

/* Read the whole file, compare it with its checksums, and write it to to (NULL: nowhere). *is_right false: it differs. */
static npk_status read_through(const npk_link_check *check, npk_file *file, npk_file *to, const char *name,
                               const npk_container *container, const uint64_t *sums, bool *is_right, npk_error *err)
{
    uint8_t *bytes = npk_alloc(COPY_SIZE);
    if (!bytes)
        return npk_fail(err, NPK_NO_MEMORY, "could not allocate a copy buffer");
    npk_status status = NPK_OK;
    *is_right = true;
    /* The header first, which npk_columns_get has compared; then data from its start, so that pieces are whole blocks. */
    for (uint64_t offset = 0; offset < container->size && status == NPK_OK && *is_right;) {
        uint64_t end = offset < container->data_offset ? container->data_offset : container->size;
        size_t size = (size_t)npk_min_u64(COPY_SIZE, end - offset), done = 0;
        status = npk_io_read_full(check->io, file, offset, bytes, size, &done, name, err);
        *is_right = done == size;
        for (size_t at = 0; offset >= container->data_offset && at < done && *is_right; at += NPK_SUM_BLOCK)
            *is_right = npk_checksum(bytes + at, done - at < NPK_SUM_BLOCK ? done - at : NPK_SUM_BLOCK) ==
                        sums[(offset - container->data_offset + at) / NPK_SUM_BLOCK];
        if (status == NPK_OK && *is_right && to)
            status = npk_io_write_full(check->io, to, offset, bytes, size, name, err);
        offset += size;
    }
    npk_free(bytes);
    return status;
}

/* Deal with an open file that is of the right size and header. */
static npk_status check_bytes(const npk_link_check *check, npk_file *file, uint64_t id, const npk_container *container,
                              const uint64_t *sums, bool *is_right, npk_error *err)
{
    const npk_io *io = check->io;
    char name[NPK_COLUMN_NAME_SIZE], temp[NPK_COLUMN_NAME_SIZE];
    npk_column_name(name, id, true);
    npk_column_name(temp, id, false);
    if (check->action != NPK_LINK_RENEW) {
        npk_status status = read_through(check, file, NULL, name, container, sums, is_right, err);
        int rc = status == NPK_OK && *is_right && check->action == NPK_LINK_SYNC ? io->sync(io, file) : 0;
        return rc ? npk_fail_errno(err, rc, "could not sync file \"columns/%s\"", name) : status;
    }
    npk_file *copy = NULL;
    int rc = io->unlink(io, check->directory, temp); /* of a recovery that died here */
    if (rc == 0 || rc == ENOENT)
        rc = io->open(io, check->directory, temp, NPK_OPEN_WRITE | NPK_OPEN_CREATE | NPK_OPEN_EXCLUSIVE, &copy);
    if (rc)
        return npk_fail_errno(err, rc, "could not create file \"columns/%s\"", temp);
    npk_status status = read_through(check, file, copy, temp, container, sums, is_right, err);
    if (status == NPK_OK && *is_right && (rc = io->sync(io, copy)) != 0)
        status = npk_fail_errno(err, rc, "could not sync file \"columns/%s\"", temp);
    io->close(io, copy);
    if (status == NPK_OK && *is_right && (rc = io->rename(io, check->directory, temp, name)) != 0)
        status = npk_fail_errno(err, rc, "could not rename file \"columns/%s\"", temp);
    if (status != NPK_OK || !*is_right)
        (void)io->unlink(io, check->directory, temp);
    return status;
}

static npk_status check_file(const npk_link_check *check, uint64_t id, const npk_container *container, bool *is_right,
                             npk_error *err)
{
    npk_error reason = {0};
    npk_column *column = NULL;
    *is_right = false;
    npk_status status = npk_columns_get(check->columns, id, container->size, container->row_count, container->row_size,
                                        container->data_offset, &column, &reason);
    npk_column_release(column);
    if (status == NPK_NOT_FOUND || status == NPK_CORRUPT)
        return NPK_OK;
    if (status != NPK_OK)
        return npk_fail(err, status, "%s", reason.message);
    npk_buffer sums;
    npk_buffer_init(&sums);
    status = npk_catalog_get_sums(check->kv, id, &sums, err);
    uint64_t data_size = container->size - container->data_offset;
    if (status == NPK_OK && sums.size / 8 == data_size / NPK_SUM_BLOCK + (data_size % NPK_SUM_BLOCK != 0)) {
        char name[NPK_COLUMN_NAME_SIZE];
        npk_column_name(name, id, true);
        npk_file *file = NULL;
        int rc = check->io->open(check->io, check->directory, name, NPK_OPEN_READ, &file);
        if (rc)
            status = npk_fail_errno(err, rc, "could not open file \"columns/%s\"", name);
        else
            status = check_bytes(check, file, id, container, (const uint64_t *)(const void *)sums.data, is_right, err);
        check->io->close(check->io, file);
    }
    npk_buffer_release(&sums);
    return status;
}

npk_status npk_unsynced_find_end(const npk_link_check *check, uint64_t *end_lsn, npk_error *err)
{
    npk_link *links = (npk_link *)(void *)check->links->data;
    size_t count = check->links->size / sizeof *links;
    npk_status status = NPK_OK;
    bool moved, renewed = false;
    do {
        moved = false;
        for (size_t i = 0; i < count && status == NPK_OK; i++) {
            npk_link *link = &links[i];
            if (link->is_good || link->commit_lsn < check->watermark_lsn || link->begin_lsn >= *end_lsn)
                continue;
            npk_container container;
            bool found = false, is_right = false;
            status = npk_catalog_get_container(check->kv, NPK_CONTAINER_COLUMN, link->file_id, &container, &found, err);
            if (status != NPK_OK || !found || (container.reference_count == 0 && container.dead_lsn < *end_lsn))
                continue; /* dead in the state at the end; perhaps not in an earlier one */
            status = check_file(check, link->file_id, &container, &is_right, err);
            link->is_good = status == NPK_OK && is_right;
            renewed |= link->is_good;
            if (status == NPK_OK && !is_right && link->commit_lsn >= check->trusted_lsn) {
                *end_lsn = link->begin_lsn;
                moved = true;
            }
        }
    } while (moved && status == NPK_OK);
    if (renewed)
        npk_columns_renew(check->columns);
    if (renewed && check->action != NPK_LINK_CHECK) {
        int rc = check->io->sync(check->io, check->directory);
        if (rc) { /* never NO_SPACE: who calls again would take the names for durable */
            (void)npk_fail_errno(err, rc, "could not sync the column directory");
            status = npk_context(err, NPK_IO, "after checking files");
        }
    }
    return status;
}
