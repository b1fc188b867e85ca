/* memory_calls.c - what the calls of the crashable disk share: counting, hooks, open files, pending name changes. */
#include "memory_calls.h"

#include <stdlib.h>
#include <string.h>

memory_io *memory_of(const npk_io *io)
{
    return (memory_io *)(uintptr_t)io; /* the table is the first member, and was not const */
}

void memory_enter(memory_io *memory, io_call_kind kind)
{
    (void)pthread_mutex_lock(&memory->mutex);
    memory->counts[kind]++;
}

int memory_leave(memory_io *memory, int result)
{
    (void)pthread_mutex_unlock(&memory->mutex);
    return result;
}

/* Calls on a real file only need counting here. */
const npk_io *memory_forward(memory_io *memory, io_call_kind kind)
{
    memory_enter(memory, kind);
    (void)memory_leave(memory, 0);
    return npk_io_posix();
}

/* ---- hooks ---------------------------------------------------------------------------------------------------------- */

void memory_report(memory_io *memory, memory_io_call *call, bool is_after, int result)
{
    (void)pthread_mutex_lock(&memory->mutex);
    void (*hook)(void *context, const memory_io_call *call) = memory->hook;
    void *context = memory->hook_context;
    if (!is_after)
        call->sequence = ++memory->sequence;
    (void)pthread_mutex_unlock(&memory->mutex);
    call->is_after = is_after;
    call->result = result;
    if (hook)
        hook(context, call); /* without the mutex: it takes snapshots and runs a recovery elsewhere */
}

memory_io_call memory_begin_call(memory_io *memory, io_call_kind kind, const npk_file *file, const char *name)
{
    memory_io_call call = {.kind = kind, .inode = file && file->inode ? file->inode->id : 0, .name = name};
    memory_report(memory, &call, false, 0);
    return call;
}

int memory_end_call(memory_io *memory, memory_io_call *call, int result)
{
    memory_report(memory, call, true, result);
    return result;
}

/* ---- handles --------------------------------------------------------------------------------------------------------- */

npk_file *memory_handle_add(memory_io *memory, memory_inode *inode, npk_file *real, bool is_writable)
{
    npk_file *file = memory_alloc(sizeof *file);
    file->memory = memory;
    file->inode = inode;
    file->real = real;
    file->is_writable = is_writable;
    file->next = memory->open_files;
    if (file->next)
        file->next->previous = file;
    memory->open_files = file;
    if (inode)
        inode->open_count++;
    return file;
}

static void release_locks(memory_inode *inode, const npk_file *owner)
{
    size_t kept = 0;
    for (size_t i = 0; i < inode->lock_count; i++)
        if (inode->locks[i].owner != owner)
            inode->locks[kept++] = inode->locks[i];
    inode->lock_count = kept;
}

static bool is_linked(const memory_io *memory, uint64_t id)
{
    for (size_t i = 0; i < memory->inode_count; i++) {
        const memory_names *names = memory->inodes[i]->live.names;
        for (size_t e = 0; names && e < names->count; e++)
            if (names->entries[e].inode == id)
                return true;
    }
    return false;
}

void memory_handle_drop(memory_io *memory, npk_file *file)
{
    if (file->previous)
        file->previous->next = file->next;
    else
        memory->open_files = file->next;
    if (file->next)
        file->next->previous = file->previous;
    if (file->inode) {
        release_locks(file->inode, file);
        if (--file->inode->open_count == 0 && !is_linked(memory, file->inode->id))
            memory_inode_collect(memory);
    }
    if (file->real)
        npk_io_posix()->close(npk_io_posix(), file->real);
    free(file);
}

bool memory_is_component(const char *name)
{
    return name[0] != '\0' && strchr(name, '/') == NULL && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

bool memory_is_root(const memory_io *memory, const memory_inode *directory)
{
    const memory_names *names = memory_inode_find(memory, TOP_INODE)->live.names;
    for (size_t i = 0; names && i < names->count; i++)
        if (names->entries[i].inode == directory->id)
            return true;
    return false;
}

memory_inode *memory_look_up(const memory_io *memory, const memory_inode *directory, const char *name)
{
    uint64_t id = memory_names_find(directory->live.names, name);
    return id ? memory_inode_find(memory, id) : NULL;
}

/* A name change takes effect on the live side and is pending. */
void memory_change_name(memory_io *memory, memory_inode *directory, memory_record_kind kind, uint64_t inode,
                        const char *from, const char *to)
{
    memory_record *record = memory_alloc(sizeof *record);
    atomic_init(&record->refs, 1);
    record->kind = kind;
    record->sequence = memory->sequence;
    record->inode = inode;
    record->directory = directory->id;
    record->from = from ? memory_name_create(from) : NULL;
    record->to = to ? memory_name_create(to) : NULL;
    memory_record_apply_name(record, &directory->live.names);
    memory_pending_add(memory, record);
}

memory_inode *memory_make_inode(memory_io *memory, memory_inode *directory, const char *name, bool is_directory)
{
    memory_inode *inode = memory_inode_add(memory, memory->next_inode++, is_directory);
    memory_change_name(memory, directory, MEMORY_LINK, inode->id, NULL, name);
    return inode;
}

int memory_sync_names(memory_io *memory, memory_inode *directory)
{
    memory_pending_settle(memory, directory, memory->pending_count, true);
    memory_inode_collect(memory);
    return 0;
}
