/* memory_crash.c - snapshots of the crashable disk, the states a crash can leave, and fresh disks in those states. */
#include "memory_io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bytes.h"
#include "checksum.h"
#include "memory_disk.h"

#define SUBSET_LIMIT 12u /* up to so many units all subsets are tried */

typedef struct frozen_inode {
    uint64_t id;
    bool is_directory, is_real;
    memory_side durable, live;
} frozen_inode;

struct memory_snapshot {
    memory_io_options options;
    frozen_inode *inodes;
    size_t inode_count;
    uint64_t next_inode;
    memory_record **records;
    size_t record_count;
    size_t unit_count;
    uint64_t sequence;
    uint64_t now_us, step_us;
    npk_process process;
};

memory_snapshot *memory_io_snapshot(memory_io *memory)
{
    memory_snapshot *snapshot = memory_alloc(sizeof *snapshot);
    (void)pthread_mutex_lock(&memory->mutex);
    snapshot->options = memory->options;
    snapshot->options.real_path = NULL;
    snapshot->inodes = memory_alloc(memory->inode_count * sizeof *snapshot->inodes);
    snapshot->inode_count = memory->inode_count;
    for (size_t i = 0; i < memory->inode_count; i++) {
        memory_inode *inode = memory->inodes[i];
        memory_inode_read_back(inode);
        snapshot->inodes[i] = (frozen_inode){inode->id, inode->is_directory, inode->is_real,
                                             memory_side_retain(&inode->durable), memory_side_retain(&inode->live)};
    }
    snapshot->next_inode = memory->next_inode;
    snapshot->records = memory_alloc(memory->pending_count * sizeof(memory_record *));
    snapshot->record_count = memory->pending_count;
    for (size_t i = 0; i < memory->pending_count; i++) {
        snapshot->records[i] = memory_record_retain(memory->pending[i]);
        snapshot->unit_count += memory_record_unit_count(memory->pending[i]);
    }
    snapshot->sequence = memory->sequence;
    snapshot->now_us = memory->now_us;
    snapshot->step_us = memory->step_us;
    snapshot->process = memory->process;
    (void)pthread_mutex_unlock(&memory->mutex);
    return snapshot;
}

void memory_snapshot_release(memory_snapshot *snapshot)
{
    if (!snapshot)
        return;
    for (size_t i = 0; i < snapshot->inode_count; i++) {
        memory_side_release(&snapshot->inodes[i].durable);
        memory_side_release(&snapshot->inodes[i].live);
    }
    for (size_t i = 0; i < snapshot->record_count; i++)
        memory_record_release(snapshot->records[i]);
    free(snapshot->inodes);
    free(snapshot->records);
    free(snapshot);
}

uint64_t memory_snapshot_sequence(const memory_snapshot *snapshot)
{
    return snapshot->sequence;
}

size_t memory_snapshot_unit_count(const memory_snapshot *snapshot)
{
    return snapshot->unit_count;
}

/* Data belongs to its file, a name to its directory. */
static uint64_t group_inode(const memory_record *record)
{
    return record->kind == MEMORY_DATA ? record->inode : record->directory;
}

/* Group numbers count from 0 by first appearance. */
static size_t group_of(const memory_snapshot *snapshot, size_t record)
{
    size_t group = 0;
    for (size_t i = 0; i < record; i++) {
        bool is_first = true;
        for (size_t j = 0; j < i && is_first; j++)
            is_first = group_inode(snapshot->records[j]) != group_inode(snapshot->records[i]);
        if (group_inode(snapshot->records[i]) == group_inode(snapshot->records[record]))
            return group;
        group += is_first;
    }
    return group;
}

size_t memory_snapshot_group_count(const memory_snapshot *snapshot)
{
    size_t count = 0;
    for (size_t i = 0; i < snapshot->record_count; i++) {
        size_t group = group_of(snapshot, i);
        if (group + 1 > count)
            count = group + 1;
    }
    return count;
}

static const memory_record *torn_record(const memory_snapshot *snapshot)
{
    if (snapshot->record_count == 0)
        return NULL;
    const memory_record *last = snapshot->records[snapshot->record_count - 1];
    return last->kind == MEMORY_DATA && last->sequence == snapshot->sequence ? last : NULL;
}

size_t memory_snapshot_torn_count(const memory_snapshot *snapshot)
{
    const memory_record *last = torn_record(snapshot);
    return last ? last->sector_count : 0;
}

void memory_snapshot_describe(const memory_snapshot *snapshot, size_t unit, char *text, size_t size)
{
    for (size_t i = 0; i < snapshot->record_count; i++) {
        const memory_record *record = snapshot->records[i];
        size_t count = memory_record_unit_count(record);
        if (unit >= count) {
            unit -= count;
            continue;
        }
        unsigned long long inode = record->inode;
        if (record->kind != MEMORY_DATA)
            (void)snprintf(text, size, "name call %llu inode %llu: %s%s%s", (unsigned long long)record->sequence, inode,
                           record->from ? record->from->text : "", record->kind == MEMORY_UNLINK ? " removed" : " -> ",
                           record->to ? record->to->text : "");
        else if (memory_record_grows(record) && unit == 0)
            (void)snprintf(text, size, "size call %llu inode %llu: %llu -> %llu", (unsigned long long)record->sequence, inode,
                           (unsigned long long)record->old_size, (unsigned long long)record->new_size);
        else
            (void)snprintf(text, size, "data call %llu inode %llu offset %llu", (unsigned long long)record->sequence, inode,
                           (unsigned long long)((record->first_sector + unit - memory_record_grows(record)) * SECTOR_SIZE));
        return;
    }
    (void)snprintf(text, size, "no unit %zu", unit);
}

/* ---- the fate of units ------------------------------------------------------------------------------------------------- */

typedef enum fate { FATE_DROPPED, FATE_KEPT, FATE_ZEROED, FATE_GARBAGE } fate;

typedef struct sifter {
    const memory_snapshot *snapshot;
    memory_io_selection selection;
    rng random;
    uint64_t keep_eighths; /* RANDOM: how likely a unit survives */
} sifter;

static fate fate_of_lost(memory_io_lost lost)
{
    return lost == MEMORY_IO_ZEROED ? FATE_ZEROED : lost == MEMORY_IO_GARBAGE ? FATE_GARBAGE : FATE_DROPPED;
}

/* unit counts over all records; sector is the sector within the record, SIZE_MAX for a size or name unit. */
static fate decide(sifter *sift, size_t record_number, size_t unit, size_t sector, bool group_is_kept)
{
    const memory_record *record = sift->snapshot->records[record_number];
    uint64_t index = sift->selection.index;
    bool is_torn_call = record == torn_record(sift->snapshot);
    bool kept = false;
    switch (sift->selection.select) {
    case MEMORY_IO_ALL: kept = true; break;
    case MEMORY_IO_PREFIX: kept = unit < index; break;
    case MEMORY_IO_DROP_ONE: kept = unit != index; break;
    case MEMORY_IO_KEEP_ONE: kept = unit == index; break;
    case MEMORY_IO_DATA_ONLY: kept = record->kind == MEMORY_DATA; break;
    case MEMORY_IO_NAMES_ONLY: kept = record->kind != MEMORY_DATA; break;
    case MEMORY_IO_FILES: kept = group_is_kept; break;
    case MEMORY_IO_SUBSET: kept = unit < 64 && (index >> unit & 1); break;
    case MEMORY_IO_TORN: kept = !is_torn_call || sector == SIZE_MAX || sector < index; break;
    case MEMORY_IO_TORN_ALONE: kept = is_torn_call && (sector == SIZE_MAX || sector < index); break;
    case MEMORY_IO_RANDOM: {
        if (rng_chance(&sift->random, sift->keep_eighths, 8))
            return FATE_KEPT;
        uint64_t way = rng_below(&sift->random, 4);
        return way == 0 ? FATE_ZEROED : way == 1 ? FATE_GARBAGE : FATE_DROPPED;
    }
    case MEMORY_IO_NONE:
    case MEMORY_IO_PROCESS_DIED:
    case MEMORY_IO_SELECT_COUNT: break;
    }
    return kept ? FATE_KEPT : fate_of_lost(sift->selection.lost);
}

static void apply_size(sifter *sift, const memory_record *record, memory_inode *inode, fate f)
{
    uint64_t size = record->new_size;
    bool is_torn = sift->selection.select == MEMORY_IO_TORN || sift->selection.select == MEMORY_IO_TORN_ALONE;
    if (is_torn && record == torn_record(sift->snapshot) && record->sector_count) {
        /* A torn append is short: it ends with its last sector that arrived. */
        uint64_t end = (record->first_sector + sift->selection.index) * SECTOR_SIZE;
        size = npk_max_u64(record->old_size, npk_min_u64(size, end));
    } else if (sift->selection.select == MEMORY_IO_RANDOM && (f == FATE_ZEROED || f == FATE_GARBAGE)) {
        size = record->old_size + rng_below(&sift->random, record->new_size - record->old_size);
    } else if (f != FATE_KEPT) {
        return;
    }
    inode->durable.size = npk_max_u64(inode->durable.size, size); /* files are never truncated */
}

static void apply_sector(sifter *sift, const memory_record *record, size_t sector, memory_inode *inode,
                         uint64_t durable_size, fate f)
{
    uint64_t offset = (record->first_sector + sector) * SECTOR_SIZE;
    const uint8_t *image = record->image + sector * SECTOR_SIZE;
    uint8_t bytes[SECTOR_SIZE];
    switch (f) {
    case FATE_DROPPED: return;
    case FATE_KEPT: memory_content_write(&inode->durable.content, offset, image, SECTOR_SIZE); return;
    case FATE_ZEROED:
        memory_content_read(inode->durable.content, offset, bytes, SECTOR_SIZE);
        for (size_t i = 0; i < SECTOR_SIZE; i++)
            if (offset + i >= durable_size)
                bytes[i] = 0;
        break;
    case FATE_GARBAGE:
        memory_content_read(inode->durable.content, offset, bytes, SECTOR_SIZE);
        for (size_t i = 0; i < SECTOR_SIZE; i++)
            if (bytes[i] != image[i])
                bytes[i] = (uint8_t)rng_next(&sift->random);
        break;
    }
    memory_content_write(&inode->durable.content, offset, bytes, SECTOR_SIZE);
}

static void apply_units(memory_io *memory, sifter *sift)
{
    const memory_snapshot *snapshot = sift->snapshot;
    size_t unit = 0;
    for (size_t r = 0; r < snapshot->record_count; r++) {
        const memory_record *record = snapshot->records[r];
        bool group_is_kept = sift->selection.select == MEMORY_IO_FILES &&
                             (sift->selection.index >> (group_of(snapshot, r) % 64) & 1);
        memory_inode *inode = memory_inode_find(memory, group_inode(record));
        if (record->kind != MEMORY_DATA) {
            if (decide(sift, r, unit++, SIZE_MAX, group_is_kept) == FATE_KEPT && inode)
                memory_record_apply_name(record, &inode->durable.names);
            continue;
        }
        uint64_t durable_size = 0;
        for (size_t i = 0; i < snapshot->inode_count; i++)
            if (snapshot->inodes[i].id == record->inode)
                durable_size = snapshot->inodes[i].durable.size;
        if (memory_record_grows(record)) {
            fate f = decide(sift, r, unit++, SIZE_MAX, group_is_kept);
            if (inode)
                apply_size(sift, record, inode, f);
        }
        for (size_t sector = 0; sector < record->sector_count; sector++) {
            fate f = decide(sift, r, unit++, sector, group_is_kept);
            if (inode)
                apply_sector(sift, record, sector, inode, durable_size, f);
        }
    }
}

memory_io *memory_io_materialize(const memory_snapshot *snapshot, const memory_io_selection *selection, const char *real_path)
{
    memory_io_options options = snapshot->options;
    options.real_path = real_path;
    /* Recovery must not draw the numbers that were drawn before the crash, or "random" file ids collide. */
    options.seed = snapshot->options.seed + 0x9E3779B97F4A7C15u * (snapshot->sequence + 1);
    memory_io *memory = memory_io_create_bare(&options);
    bool process_died = selection->select == MEMORY_IO_PROCESS_DIED;
    for (size_t i = 0; i < snapshot->inode_count; i++) {
        const frozen_inode *frozen = &snapshot->inodes[i];
        memory_inode *inode = memory_inode_add(memory, frozen->id, frozen->is_directory);
        inode->is_real = frozen->is_real;
        inode->durable = memory_side_retain(&frozen->durable);
        if (process_died)
            inode->live = memory_side_retain(&frozen->live);
    }
    memory->next_inode = snapshot->next_inode;
    memory->now_us = snapshot->now_us;
    memory->step_us = snapshot->step_us;
    memory->process = snapshot->process;
    if (process_died) {
        for (size_t i = 0; i < snapshot->record_count; i++)
            memory_pending_add(memory, memory_record_retain(snapshot->records[i]));
        memory->sequence = snapshot->sequence;
        memory_inode_collect(memory);
    } else {
        sifter sift = {snapshot, *selection, rng_seeded(selection->seed), 0};
        static const uint64_t likely[4] = {1, 4, 6, 7};
        sift.keep_eighths = likely[rng_below(&sift.random, 4)];
        apply_units(memory, &sift);
        memory_inode_collect(memory);
        for (size_t i = 0; i < memory->inode_count; i++) {
            memory_inode *inode = memory->inodes[i];
            memory_content_trim(&inode->durable.content, inode->durable.size);
            inode->live = memory_side_retain(&inode->durable);
        }
    }
    /* The name of an index that survived leads to an empty directory. */
    const memory_names *roots = memory_inode_find(memory, TOP_INODE)->live.names;
    for (size_t i = 0; roots && i < roots->count; i++) {
        const memory_inode *root = memory_inode_find(memory, roots->entries[i].inode);
        char path[4096];
        if (root && memory_names_find(root->live.names, INDEX_NAME) && memory_real_place(memory, root->id, path, sizeof path))
            (void)mkdir(path, 0777);
    }
    return memory;
}

/* ---- which selections to try -------------------------------------------------------------------------------------------- */

typedef struct walk {
    int (*visit)(void *context, const memory_io_selection *selection);
    void *context;
    size_t each_limit;
    uint64_t seed;
    int result;
} walk;

static void try_one(walk *w, memory_io_select select, memory_io_lost lost, uint64_t index)
{
    if (w->result)
        return;
    uint64_t mixed = w->seed + ((uint64_t)select << 56) + index;
    memory_io_selection selection = {select, lost, index, 0};
    if (select == MEMORY_IO_RANDOM || lost == MEMORY_IO_GARBAGE)
        selection.seed = rng_mix(&mixed);
    w->result = w->visit(w->context, &selection);
}

/* index first .. last, at most each_limit of them, both ends included. */
static void try_each(walk *w, memory_io_select select, memory_io_lost lost, uint64_t first, uint64_t last)
{
    uint64_t count = last - first + 1;
    uint64_t tries = w->each_limit && count > w->each_limit ? w->each_limit : count;
    for (uint64_t i = 0; i < tries; i++)
        try_one(w, select, lost, first + (tries > 1 ? (uint64_t)((__uint128_t)i * (count - 1) / (tries - 1)) : 0));
}

int memory_io_select_all(const memory_snapshot *snapshot, uint64_t seed, size_t random_count, size_t each_limit,
                         int (*visit)(void *context, const memory_io_selection *selection), void *context)
{
    walk w = {visit, context, each_limit, seed, 0};
    size_t count = snapshot->unit_count;
    if (count <= SUBSET_LIMIT) {
        for (uint64_t bits = 0; bits < UINT64_C(1) << count; bits++)
            try_one(&w, MEMORY_IO_SUBSET, MEMORY_IO_DROPPED, bits);
        for (uint64_t bits = 0; count && bits < (UINT64_C(1) << count) - 1; bits++)
            try_one(&w, MEMORY_IO_SUBSET, MEMORY_IO_GARBAGE, bits);
    } else {
        try_one(&w, MEMORY_IO_NONE, MEMORY_IO_DROPPED, 0);
        try_one(&w, MEMORY_IO_ALL, MEMORY_IO_DROPPED, 0);
        try_one(&w, MEMORY_IO_DATA_ONLY, MEMORY_IO_DROPPED, 0);
        try_one(&w, MEMORY_IO_NAMES_ONLY, MEMORY_IO_DROPPED, 0);
        try_each(&w, MEMORY_IO_PREFIX, MEMORY_IO_DROPPED, 1, count - 1);
        try_each(&w, MEMORY_IO_PREFIX, MEMORY_IO_GARBAGE, 1, count - 1);
        try_each(&w, MEMORY_IO_DROP_ONE, MEMORY_IO_DROPPED, 0, count - 1);
        try_each(&w, MEMORY_IO_DROP_ONE, MEMORY_IO_GARBAGE, 0, count - 1);
        try_each(&w, MEMORY_IO_KEEP_ONE, MEMORY_IO_DROPPED, 0, count - 1);
        size_t groups = memory_snapshot_group_count(snapshot);
        if (groups <= 6)
            for (uint64_t bits = 1; bits + 1 < UINT64_C(1) << groups; bits++)
                try_one(&w, MEMORY_IO_FILES, MEMORY_IO_DROPPED, bits);
        else
            for (size_t g = 0; g < groups && g < 64; g++) {
                try_one(&w, MEMORY_IO_FILES, MEMORY_IO_DROPPED, UINT64_C(1) << g);
                try_one(&w, MEMORY_IO_FILES, MEMORY_IO_DROPPED, ~(UINT64_C(1) << g));
            }
    }
    size_t torn = memory_snapshot_torn_count(snapshot);
    if (torn) {
        try_each(&w, MEMORY_IO_TORN, MEMORY_IO_DROPPED, 0, torn);
        try_each(&w, MEMORY_IO_TORN_ALONE, MEMORY_IO_DROPPED, 0, torn);
    }
    for (size_t i = 0; count && i < random_count; i++)
        try_one(&w, MEMORY_IO_RANDOM, MEMORY_IO_DROPPED, i);
    return w.result;
}

static const char *const select_names[MEMORY_IO_SELECT_COUNT] = {
    "none", "all", "prefix", "drop-one", "keep-one", "data-only", "names-only",
    "files", "subset", "random", "torn", "torn-alone", "process-died"};
static const char *const lost_names[3] = {"dropped", "zeroed", "garbage"};

void memory_io_selection_format(const memory_io_selection *selection, char *text, size_t size)
{
    (void)snprintf(text, size, "%s:%llu:%llu:%s", select_names[selection->select], (unsigned long long)selection->index,
                   (unsigned long long)selection->seed, lost_names[selection->lost]);
}

int memory_io_selection_parse(const char *text, memory_io_selection *selection)
{
    char select[16], lost[16];
    unsigned long long index, seed;
    if (sscanf(text, "%15[^:]:%llu:%llu:%15s", select, &index, &seed, lost) != 4)
        return EINVAL;
    unsigned s = 0, l = 0;
    while (s < MEMORY_IO_SELECT_COUNT && strcmp(select_names[s], select) != 0)
        s++;
    while (l < 3 && strcmp(lost_names[l], lost) != 0)
        l++;
    if (s == MEMORY_IO_SELECT_COUNT || l == 3)
        return EINVAL;
    *selection = (memory_io_selection){(memory_io_select)s, (memory_io_lost)l, index, seed};
    return 0;
}

/* ---- hash ------------------------------------------------------------------------------------------------------------------ */

static uint64_t hash_inode(const memory_io *memory, memory_inode *inode)
{
    if (!inode->is_directory) {
        memory_inode_read_back(inode);
        return memory_content_hash(inode->live.content, inode->live.size);
    }
    uint64_t hash = 1;
    const memory_names *names = inode->live.names;
    for (size_t i = 0; names && i < names->count; i++) {
        memory_inode *child = memory_inode_find(memory, names->entries[i].inode);
        const char *name = names->entries[i].name->text;
        uint64_t words[3] = {hash, npk_checksum(name, strlen(name)), child ? hash_inode(memory, child) : 0};
        hash = npk_checksum(words, sizeof words);
    }
    return hash;
}

uint64_t memory_io_hash(memory_io *memory)
{
    (void)pthread_mutex_lock(&memory->mutex);
    uint64_t hash = hash_inode(memory, memory_inode_find(memory, TOP_INODE));
    (void)pthread_mutex_unlock(&memory->mutex);
    return hash;
}
