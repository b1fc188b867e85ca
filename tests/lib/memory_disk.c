/* memory_disk.c - contents, entries, records and inodes of the crashable disk. */
#include "memory_disk.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "checksum.h"

/* The test process itself is out of memory: there is nothing left to test. The library's own allocations go elsewhere. */
static void *checked(void *block)
{
    if (!block) {
        (void)fputs("memory_io: out of memory\n", stderr);
        abort();
    }
    return block;
}

void *memory_alloc(size_t size)
{
    return checked(calloc(1, size ? size : 1));
}

void *memory_resize(void *block, size_t size)
{
    return checked(realloc(block, size ? size : 1));
}

static bool is_last(atomic_int *refs)
{
    return atomic_fetch_sub(refs, 1) == 1;
}

/* ---- contents ----------------------------------------------------------------------------------------------------- */

static void block_release(memory_block *block)
{
    if (block && is_last(&block->refs))
        free(block);
}

static memory_block *block_create(const memory_block *from)
{
    memory_block *block = checked(malloc(sizeof *block));
    atomic_init(&block->refs, 1);
    atomic_init(&block->hash, 0);
    if (from)
        memcpy(block->bytes, from->bytes, BLOCK_SIZE);
    else
        memset(block->bytes, 0, BLOCK_SIZE);
    return block;
}

memory_content *memory_content_retain(memory_content *content)
{
    if (content)
        atomic_fetch_add(&content->refs, 1);
    return content;
}

void memory_content_release(memory_content *content)
{
    if (!content || !is_last(&content->refs))
        return;
    for (size_t i = 0; i < content->count; i++)
        block_release(content->blocks[i]);
    free(content->blocks);
    free(content);
}

void memory_content_read(const memory_content *content, uint64_t offset, void *bytes, size_t size)
{
    uint8_t *place = bytes;
    while (size) {
        uint64_t number = offset / BLOCK_SIZE;
        size_t within = (size_t)(offset % BLOCK_SIZE);
        size_t part = (size_t)npk_min_u64(size, BLOCK_SIZE - within);
        const memory_block *block = content && number < content->count ? content->blocks[number] : NULL;
        if (block)
            memcpy(place, block->bytes + within, part);
        else
            memset(place, 0, part);
        place += part;
        offset += part;
        size -= part;
    }
}

/* A content of our own with room for count blocks. */
static memory_content *content_own(memory_content **content, size_t count)
{
    memory_content *old = *content;
    if (!old || atomic_load(&old->refs) > 1) {
        memory_content *copy = memory_alloc(sizeof *copy);
        atomic_init(&copy->refs, 1);
        copy->count = old ? old->count : 0;
        copy->blocks = memory_alloc(copy->count * sizeof *copy->blocks);
        for (size_t i = 0; i < copy->count; i++) {
            copy->blocks[i] = old->blocks[i];
            if (copy->blocks[i])
                atomic_fetch_add(&copy->blocks[i]->refs, 1);
        }
        memory_content_release(old);
        *content = copy;
    }
    memory_content *own = *content;
    atomic_store(&own->hash, 0);
    if (own->count < count) {
        own->blocks = memory_resize(own->blocks, count * sizeof *own->blocks);
        memset(own->blocks + own->count, 0, (count - own->count) * sizeof *own->blocks);
        own->count = count;
    }
    return own;
}

static memory_block *block_own(memory_block **block)
{
    memory_block *old = *block;
    if (!old || atomic_load(&old->refs) > 1) {
        *block = block_create(old);
        block_release(old);
    }
    atomic_store(&(*block)->hash, 0);
    return *block;
}

void memory_content_write(memory_content **content, uint64_t offset, const void *bytes, size_t size)
{
    if (size == 0)
        return;
    memory_content *own = content_own(content, (size_t)((offset + size + BLOCK_SIZE - 1) / BLOCK_SIZE));
    const uint8_t *from = bytes;
    while (size) {
        size_t within = (size_t)(offset % BLOCK_SIZE);
        size_t part = (size_t)npk_min_u64(size, BLOCK_SIZE - within);
        memcpy(block_own(&own->blocks[offset / BLOCK_SIZE])->bytes + within, from, part);
        from += part;
        offset += part;
        size -= part;
    }
}

void memory_content_trim(memory_content **content, uint64_t size)
{
    size_t whole = (size_t)(size / BLOCK_SIZE);
    size_t within = (size_t)(size % BLOCK_SIZE);
    if (!*content || (*content)->count <= whole)
        return;
    const memory_block *last = (*content)->blocks[whole];
    bool is_clean = (*content)->count == whole + 1 && within &&
                    (!last || npk_is_zero(last->bytes + within, BLOCK_SIZE - within));
    if (is_clean)
        return;
    memory_content *own = content_own(content, 0);
    size_t kept = whole + (within ? 1 : 0);
    for (size_t i = kept; i < own->count; i++)
        block_release(own->blocks[i]);
    own->count = kept;
    if (within && own->blocks[whole])
        memset(block_own(&own->blocks[whole])->bytes + within, 0, BLOCK_SIZE - within);
}

static uint64_t hash_block(memory_block *block)
{
    uint64_t hash = atomic_load(&block->hash);
    if (hash == 0) {
        /* 1 says "all zeros": the same content as a missing block. */
        hash = npk_is_zero(block->bytes, BLOCK_SIZE) ? 1 : npk_checksum(block->bytes, BLOCK_SIZE) | 2;
        atomic_store(&block->hash, hash);
    }
    return hash;
}

uint64_t memory_content_hash(memory_content *content, uint64_t size)
{
    uint64_t hash = content ? atomic_load(&content->hash) : 1;
    if (hash == 0) {
        hash = 1;
        for (size_t i = 0; i < content->count; i++) {
            uint64_t words[3] = {hash, i, content->blocks[i] ? hash_block(content->blocks[i]) : 1};
            if (words[2] != 1)
                hash = npk_checksum(words, sizeof words) | 1;
        }
        atomic_store(&content->hash, hash);
    }
    uint64_t words[2] = {size, hash};
    return npk_checksum(words, sizeof words);
}

/* ---- entries -------------------------------------------------------------------------------------------------------- */

memory_name *memory_name_create(const char *text)
{
    size_t size = strlen(text) + 1;
    memory_name *name = memory_alloc(sizeof *name + size);
    atomic_init(&name->refs, 1);
    memcpy(name->text, text, size);
    return name;
}

memory_name *memory_name_retain(memory_name *name)
{
    if (name)
        atomic_fetch_add(&name->refs, 1);
    return name;
}

void memory_name_release(memory_name *name)
{
    if (name && is_last(&name->refs))
        free(name);
}

memory_names *memory_names_retain(memory_names *names)
{
    if (names)
        atomic_fetch_add(&names->refs, 1);
    return names;
}

void memory_names_release(memory_names *names)
{
    if (!names || !is_last(&names->refs))
        return;
    for (size_t i = 0; i < names->count; i++)
        memory_name_release(names->entries[i].name);
    free(names);
}

/* Where text is, or belongs. */
static size_t names_place(const memory_names *names, const char *text, bool *found)
{
    size_t low = 0, high = names ? names->count : 0;
    *found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(names->entries[middle].name->text, text);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint64_t memory_names_find(const memory_names *names, const char *text)
{
    bool found;
    size_t place = names_place(names, text, &found);
    return found ? names->entries[place].inode : 0;
}

/* A new list with the entry at place left out (drop) and another one put in there (add). Lists are short: always copying
 * them is simpler than knowing when one is shared. */
static void names_rebuild(memory_names **names, size_t place, bool drop, const memory_entry *add)
{
    const memory_names *old = *names;
    size_t old_count = old ? old->count : 0;
    size_t count = old_count - (drop ? 1 : 0) + (add ? 1 : 0);
    memory_names *copy = memory_alloc(sizeof *copy + count * sizeof copy->entries[0]);
    atomic_init(&copy->refs, 1);
    size_t to = 0;
    for (size_t i = 0; i <= old_count; i++) {
        if (i == place && add)
            copy->entries[to++] = (memory_entry){memory_name_retain(add->name), add->inode};
        if (i == old_count || (i == place && drop))
            continue;
        copy->entries[to++] = (memory_entry){memory_name_retain(old->entries[i].name), old->entries[i].inode};
    }
    copy->count = to;
    memory_names_release(*names);
    *names = copy;
}

void memory_names_set(memory_names **names, memory_name *name, uint64_t inode)
{
    bool found;
    size_t place = names_place(*names, name->text, &found);
    memory_entry entry = {name, inode};
    names_rebuild(names, place, found, &entry);
}

void memory_names_remove(memory_names **names, const char *text)
{
    bool found;
    size_t place = names_place(*names, text, &found);
    if (found)
        names_rebuild(names, place, true, NULL);
}

/* ---- records -------------------------------------------------------------------------------------------------------- */

memory_record *memory_record_retain(memory_record *record)
{
    atomic_fetch_add(&record->refs, 1);
    return record;
}

void memory_record_release(memory_record *record)
{
    if (!record || !is_last(&record->refs))
        return;
    memory_name_release(record->from);
    memory_name_release(record->to);
    free(record->image);
    free(record);
}

bool memory_record_grows(const memory_record *record)
{
    return record->kind == MEMORY_DATA && record->new_size != record->old_size;
}

size_t memory_record_unit_count(const memory_record *record)
{
    return record->kind == MEMORY_DATA ? record->sector_count + (memory_record_grows(record) ? 1 : 0) : 1;
}

void memory_record_apply_name(const memory_record *record, memory_names **names)
{
    switch (record->kind) {
    case MEMORY_DATA: break;
    case MEMORY_LINK: memory_names_set(names, record->to, record->inode); break;
    case MEMORY_UNLINK:
        if (memory_names_find(*names, record->from->text) == record->inode)
            memory_names_remove(names, record->from->text);
        break;
    case MEMORY_RENAME:
        /* Where an earlier rename was lost the inode may have another name: a rename moves it, it never leaves two. */
        for (size_t i = *names ? (*names)->count : 0; i-- > 0;)
            if ((*names)->entries[i].inode == record->inode)
                names_rebuild(names, i, true, NULL);
        memory_names_set(names, record->to, record->inode);
        break;
    }
}

/* ---- inodes --------------------------------------------------------------------------------------------------------- */

memory_side memory_side_retain(const memory_side *side)
{
    return (memory_side){memory_content_retain(side->content), memory_names_retain(side->names), side->size};
}

void memory_side_release(memory_side *side)
{
    memory_content_release(side->content);
    memory_names_release(side->names);
    *side = (memory_side){NULL, NULL, 0};
}

/* Place of the first inode with at least this id. */
static size_t inode_place(const memory_io *memory, uint64_t id)
{
    size_t low = 0, high = memory->inode_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memory->inodes[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

memory_inode *memory_inode_find(const memory_io *memory, uint64_t id)
{
    size_t place = inode_place(memory, id);
    return place < memory->inode_count && memory->inodes[place]->id == id ? memory->inodes[place] : NULL;
}

memory_inode *memory_inode_add(memory_io *memory, uint64_t id, bool is_directory)
{
    if (memory->inode_count == memory->inode_capacity) {
        memory->inode_capacity = memory->inode_capacity ? 2 * memory->inode_capacity : 16;
        memory->inodes = memory_resize(memory->inodes, memory->inode_capacity * sizeof *memory->inodes);
    }
    memory_inode *inode = memory_alloc(sizeof *inode);
    inode->id = id;
    inode->is_directory = is_directory;
    inode->mapped_fd = -1;
    memory->inodes[memory->inode_count++] = inode; /* ids only rise */
    return inode;
}

void memory_inode_free(memory_inode *inode)
{
    memory_side_release(&inode->durable);
    memory_side_release(&inode->live);
    if (inode->mapped_fd >= 0)
        (void)close(inode->mapped_fd); /* maps keep the memory */
    free(inode->locks);
    free(inode);
}

static void mark_reachable(const memory_io *memory, bool *reachable, uint64_t id)
{
    size_t place = inode_place(memory, id);
    if (place >= memory->inode_count || memory->inodes[place]->id != id || reachable[place])
        return;
    reachable[place] = true;
    const memory_side *sides[2] = {&memory->inodes[place]->durable, &memory->inodes[place]->live};
    for (size_t s = 0; s < 2; s++)
        for (size_t i = 0; sides[s]->names && i < sides[s]->names->count; i++)
            mark_reachable(memory, reachable, sides[s]->names->entries[i].inode);
}

void memory_inode_collect(memory_io *memory)
{
    bool *reachable = memory_alloc(memory->inode_count * sizeof *reachable);
    mark_reachable(memory, reachable, TOP_INODE);
    for (size_t i = 0; i < memory->pending_count; i++)
        if (memory->pending[i]->kind != MEMORY_DATA)
            mark_reachable(memory, reachable, memory->pending[i]->inode);
    for (size_t i = 0; i < memory->inode_count; i++)
        if (memory->inodes[i]->open_count)
            mark_reachable(memory, reachable, memory->inodes[i]->id);
    /* Data of inodes nobody can reach needs no memory. */
    size_t kept = 0;
    for (size_t i = 0; i < memory->pending_count; i++) {
        memory_record *record = memory->pending[i];
        uint64_t id = record->kind == MEMORY_DATA ? record->inode : record->directory;
        size_t place = inode_place(memory, id);
        if (place < memory->inode_count && memory->inodes[place]->id == id && reachable[place])
            memory->pending[kept++] = record;
        else
            memory_record_release(record);
    }
    memory->pending_count = kept;
    kept = 0;
    for (size_t i = 0; i < memory->inode_count; i++) {
        if (reachable[i])
            memory->inodes[kept++] = memory->inodes[i];
        else
            memory_inode_free(memory->inodes[i]);
    }
    memory->inode_count = kept;
    free(reachable);
}

void memory_inode_read_back(memory_inode *inode)
{
    if (!inode->is_written_by_map)
        return;
    uint8_t now[BLOCK_SIZE], before[BLOCK_SIZE];
    for (uint64_t offset = 0; offset < inode->live.size; offset += BLOCK_SIZE) {
        size_t part = (size_t)npk_min_u64(BLOCK_SIZE, inode->live.size - offset);
        if (pread(inode->mapped_fd, now, part, (off_t)offset) != (ssize_t)part)
            return;
        memory_content_read(inode->live.content, offset, before, part);
        if (memcmp(now, before, part) != 0)
            memory_content_write(&inode->live.content, offset, now, part);
    }
}

void memory_pending_add(memory_io *memory, memory_record *record)
{
    if (memory->pending_count == memory->pending_capacity) {
        memory->pending_capacity = memory->pending_capacity ? 2 * memory->pending_capacity : 64;
        memory->pending = memory_resize(memory->pending, memory->pending_capacity * sizeof *memory->pending);
    }
    memory->pending[memory->pending_count++] = record;
}

void memory_pending_settle(memory_io *memory, const memory_inode *inode, size_t end, bool apply)
{
    memory_inode *target = memory_inode_find(memory, inode->id);
    size_t kept = 0;
    for (size_t i = 0; i < memory->pending_count; i++) {
        memory_record *record = memory->pending[i];
        bool is_data = record->kind == MEMORY_DATA;
        bool is_ours = i < end && (is_data ? record->inode : record->directory) == inode->id;
        if (!is_ours) {
            memory->pending[kept++] = record;
            continue;
        }
        if (apply && is_data) {
            memory_content_write(&target->durable.content, record->first_sector * SECTOR_SIZE, record->image,
                                 record->sector_count * SECTOR_SIZE);
            target->durable.size = npk_max_u64(target->durable.size, record->new_size);
        } else if (apply) {
            memory_record_apply_name(record, &target->durable.names);
        }
        memory_record_release(record);
    }
    memory->pending_count = kept;
}

/* ---- the real index ---------------------------------------------------------------------------------------------------- */

bool memory_real_place(const memory_io *memory, uint64_t root, char *path, size_t size)
{
    if (!memory->real_path)
        return false;
    int n = snprintf(path, size, "%s/index-%llu", memory->real_path, (unsigned long long)root);
    return n > 0 && (size_t)n < size;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *place)
{
    (void)st;
    (void)kind;
    return place->level == 0 ? 0 : remove(path);
}

int memory_real_clear(const char *path)
{
    return nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}
