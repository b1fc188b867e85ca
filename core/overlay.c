/* overlay.c - B+-trees of pending changes, in an arena, with an undo list.
 *
 * A node keeps the first 24 bytes of each key as numbers next to each other: keys of the index begin with an 8-byte array id and rarely
 * exceed 25 bytes, so that a search seldom has to follow a pointer to compare. */
#include "overlay.h"

#include <string.h>

#include "alloc.h"
#include "bytes.h"

enum {
    FANOUT = 32,
    DEPTH_MAX = 24, /* 16 children and more a level, but at the right edge */
    HEAD_WORDS = 3,
    CHUNK_SIZE_MIN = 16 * 1024,
    CHUNK_SIZE_MAX = 1024 * 1024,
    UNDO_KEPT = 64 /* entries whose memory is kept when the marks are forgotten */
};

typedef struct head {
    uint64_t words[HEAD_WORDS];
} head;

typedef struct node {
    struct node *previous, *next; /* leaves only */
    unsigned count;
    head heads[FANOUT];
    npk_overlay_entry *keys[FANOUT]; /* in an inner node: the first key of the child when it came; [0] counts as lowest of all */
    struct node *children[];         /* inner nodes only: FANOUT */
} node;

#define LEAF_SIZE sizeof(node)
#define INNER_SIZE (sizeof(node) + FANOUT * sizeof(node *))

typedef struct chunk {
    struct chunk *before;
    size_t size, used; /* bytes behind this header */
} chunk;

typedef struct undo {
    npk_overlay_entry *entry;
    uint8_t *value; /* owned */
    uint32_t value_size;
    uint8_t state;
} undo;

typedef struct tree {
    node *root;
    unsigned depth; /* levels of inner nodes above the leaves */
} tree;

struct npk_overlay {
    tree trees[NPK_TABLE_COUNT];
    chunk *chunk; /* newest first */
    undo *undos;
    size_t undo_count, undo_capacity;
    size_t count, size;
};

/* The inner nodes passed on the way down to a leaf, and the child taken in each. */
typedef struct path {
    node *nodes[DEPTH_MAX];
    unsigned slots[DEPTH_MAX];
} path;

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static bool arena_reserve(npk_overlay *overlay, size_t size)
{
    chunk *last = overlay->chunk;
    if (last && last->size - last->used >= size)
        return true;
    size_t wanted = last ? (size_t)npk_min_u64(last->size * 2, CHUNK_SIZE_MAX) : CHUNK_SIZE_MIN;
    wanted = (size_t)npk_max_u64(wanted, size);
    chunk *added = npk_alloc(sizeof *added + wanted);
    if (!added)
        return false;
    added->before = last;
    added->size = wanted;
    added->used = 0;
    overlay->chunk = added;
    return true;
}

/* What arena_reserve promised; size a multiple of 8. */
static void *arena_take(npk_overlay *overlay, size_t size)
{
    chunk *last = overlay->chunk;
    void *place = (uint8_t *)(last + 1) + last->used;
    last->used += size;
    return place;
}

static size_t entry_size(size_t key_size)
{
    return (size_t)npk_align_up(offsetof(npk_overlay_entry, key) + key_size, 8);
}

static bool reserve_undo(npk_overlay *overlay)
{
    if (overlay->undo_count < overlay->undo_capacity)
        return true;
    size_t capacity = overlay->undo_capacity ? overlay->undo_capacity * 2 : UNDO_KEPT;
    undo *undos = capacity <= SIZE_MAX / sizeof *undos ? npk_realloc(overlay->undos, capacity * sizeof *undos) : NULL;
    if (!undos)
        return false;
    overlay->undos = undos;
    overlay->undo_capacity = capacity;
    return true;
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

int npk_overlay_compare(const void *a, size_t a_size, const void *b, size_t b_size)
{
    size_t common = a_size < b_size ? a_size : b_size;
    int order = common ? memcmp(a, b, common) : 0;
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

static head head_of(const uint8_t *key, size_t key_size)
{
    head result;
    if (key_size >= sizeof result) {
        for (unsigned i = 0; i < HEAD_WORDS; i++)
            result.words[i] = npk_get_be64(key + 8 * i);
        return result;
    }
    uint8_t padded[8 * HEAD_WORDS] = {0};
    if (key_size)
        memcpy(padded, key, key_size);
    for (unsigned i = 0; i < HEAD_WORDS; i++)
        result.words[i] = npk_get_be64(padded + 8 * i);
    return result;
}

/* Order of key against slot of the node. */
static inline int compare_slot(const head *h, const uint8_t *key, size_t key_size, const node *n, unsigned slot)
{
    const head *other = &n->heads[slot];
    for (unsigned i = 0; i < HEAD_WORDS; i++)
        if (h->words[i] != other->words[i])
            return h->words[i] < other->words[i] ? -1 : 1;
    const npk_overlay_entry *entry = n->keys[slot];
    return npk_overlay_compare(key, key_size, entry->key, entry->key_size);
}

/* Number of slots from first on up to which everything is below key (or equal to it, with including_equal). */
static unsigned search_node(const node *n, unsigned first, const head *h, const uint8_t *key, size_t key_size,
                            bool including_equal)
{
    unsigned low = first, high = n->count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        int order = compare_slot(h, key, key_size, n, middle);
        if (order > 0 || (order == 0 && including_equal))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The leaf where key is or belongs; *slot: of the first key >= it. NULL: empty tree. */
static node *descend(const tree *t, const head *h, const uint8_t *key, size_t key_size, path *way, unsigned *slot)
{
    node *n = t->root;
    if (!n)
        return NULL;
    for (unsigned level = 0; level < t->depth; level++) {
        unsigned child = search_node(n, 1, h, key, key_size, true) - 1;
        if (way) {
            way->nodes[level] = n;
            way->slots[level] = child;
        }
        n = n->children[child];
    }
    *slot = search_node(n, 0, h, key, key_size, false);
    return n;
}

static npk_overlay_entry *entry_at(const node *leaf, unsigned slot, const head *h, const void *key, size_t key_size)
{
    if (!leaf || slot >= leaf->count || memcmp(&leaf->heads[slot], h, sizeof *h) != 0)
        return NULL;
    npk_overlay_entry *entry = leaf->keys[slot];
    return entry->key_size == key_size && (key_size == 0 || memcmp(entry->key, key, key_size) == 0) ? entry : NULL;
}

/* ---- inserting ---------------------------------------------------------------------------------------------------- */

static void put_slot(node *n, unsigned slot, const head *h, npk_overlay_entry *entry, node *child)
{
    size_t behind = n->count - slot;
    memmove(&n->heads[slot + 1], &n->heads[slot], behind * sizeof n->heads[0]);
    memmove(&n->keys[slot + 1], &n->keys[slot], behind * sizeof n->keys[0]);
    n->heads[slot] = *h;
    n->keys[slot] = entry;
    if (child) {
        memmove(&n->children[slot + 1], &n->children[slot], behind * sizeof n->children[0]);
        n->children[slot] = child;
    }
    n->count++;
}

/* Split a full node and put the slot into the half it belongs to; returns the new right half. At the right edge of the tree,
 * keys that come in order leave full nodes behind. */
static node *split_and_put(npk_overlay *overlay, node *n, unsigned slot, const head *h, npk_overlay_entry *entry,
                           node *child, bool at_edge)
{
    node *right = arena_take(overlay, child ? INNER_SIZE : LEAF_SIZE);
    right->previous = right->next = NULL;
    unsigned kept = at_edge && slot == FANOUT ? FANOUT : FANOUT / 2;
    unsigned moved = FANOUT - kept;
    memcpy(right->heads, &n->heads[kept], moved * sizeof n->heads[0]);
    memcpy(right->keys, &n->keys[kept], moved * sizeof n->keys[0]);
    if (child)
        memcpy(right->children, &n->children[kept], moved * sizeof n->children[0]);
    n->count = kept;
    right->count = moved;
    if (!child) {
        right->previous = n;
        right->next = n->next;
        if (n->next)
            n->next->previous = right;
        n->next = right;
    }
    if (slot > kept || kept == FANOUT)
        put_slot(right, slot - kept, h, entry, child);
    else
        put_slot(n, slot, h, entry, child);
    return right;
}

/* All memory is reserved. */
static void insert(npk_overlay *overlay, tree *t, const path *way, node *leaf, unsigned slot, const head *h,
                   npk_overlay_entry *entry)
{
    if (!leaf) {
        leaf = arena_take(overlay, LEAF_SIZE);
        leaf->previous = leaf->next = NULL;
        leaf->count = 0;
        t->root = leaf;
    }
    if (leaf->count < FANOUT) {
        put_slot(leaf, slot, h, entry, NULL);
        return;
    }
    bool at_edge = leaf->next == NULL;
    node *added = split_and_put(overlay, leaf, slot, h, entry, NULL, at_edge);
    for (unsigned level = t->depth; level > 0; level--) {
        node *parent = way->nodes[level - 1];
        unsigned place = way->slots[level - 1] + 1;
        head first = added->heads[0];
        if (parent->count < FANOUT) {
            put_slot(parent, place, &first, added->keys[0], added);
            return;
        }
        added = split_and_put(overlay, parent, place, &first, added->keys[0], added, at_edge);
    }
    node *root = arena_take(overlay, INNER_SIZE);
    root->previous = root->next = NULL;
    root->count = 2;
    root->heads[0] = t->root->heads[0];
    root->keys[0] = t->root->keys[0];
    root->children[0] = t->root;
    root->heads[1] = added->heads[0];
    root->keys[1] = added->keys[0];
    root->children[1] = added;
    t->root = root;
    t->depth++;
}

/* ---- interface ------------------------------------------------------------------------------------------------------ */

npk_overlay *npk_overlay_open(void)
{
    return npk_calloc(1, sizeof(npk_overlay));
}

static void drop_undos(npk_overlay *overlay)
{
    for (size_t i = 0; i < overlay->undo_count; i++)
        npk_free(overlay->undos[i].value);
    overlay->undo_count = 0;
    if (overlay->undo_capacity > UNDO_KEPT) {
        npk_free(overlay->undos);
        overlay->undos = NULL;
        overlay->undo_capacity = 0;
    }
}

void npk_overlay_clear(npk_overlay *overlay)
{
    drop_undos(overlay);
    for (unsigned table = 0; table < NPK_TABLE_COUNT; table++) {
        node *n = overlay->trees[table].root;
        for (unsigned level = 0; level < overlay->trees[table].depth; level++)
            n = n->children[0];
        for (; n; n = n->next)
            for (unsigned i = 0; i < n->count; i++)
                npk_free(n->keys[i]->value);
    }
    memset(overlay->trees, 0, sizeof overlay->trees);
    while (overlay->chunk && overlay->chunk->before) {
        chunk *before = overlay->chunk->before;
        npk_free(overlay->chunk);
        overlay->chunk = before;
    }
    if (overlay->chunk)
        overlay->chunk->used = 0;
    overlay->count = overlay->size = 0;
}

void npk_overlay_close(npk_overlay *overlay)
{
    if (!overlay)
        return;
    npk_overlay_clear(overlay);
    npk_free(overlay->chunk);
    npk_free(overlay->undos);
    npk_free(overlay);
}

const npk_overlay_entry *npk_overlay_find(const npk_overlay *overlay, npk_table table, const void *key, size_t key_size)
{
    if (overlay->count == 0)
        return NULL;
    head h = head_of(key, key_size);
    unsigned slot = 0;
    node *leaf = descend(&overlay->trees[table], &h, key, key_size, NULL, &slot);
    const npk_overlay_entry *entry = entry_at(leaf, slot, &h, key, key_size);
    return entry && entry->state != NPK_OVERLAY_NONE ? entry : NULL;
}

static void count_out(npk_overlay *overlay, const npk_overlay_entry *entry)
{
    if (entry->state != NPK_OVERLAY_NONE) {
        overlay->count--;
        overlay->size -= (size_t)entry->key_size + entry->value_size;
    }
}

static void count_in(npk_overlay *overlay, const npk_overlay_entry *entry)
{
    if (entry->state != NPK_OVERLAY_NONE) {
        overlay->count++;
        overlay->size += (size_t)entry->key_size + entry->value_size;
    }
}

bool npk_overlay_set(npk_overlay *overlay, npk_table table, const void *key, size_t key_size, npk_overlay_state state,
                     const void *value, size_t value_size)
{
    tree *t = &overlay->trees[table];
    head h = head_of(key, key_size);
    path way;
    unsigned slot = 0;
    node *leaf = descend(t, &h, key, key_size, &way, &slot);
    npk_overlay_entry *entry = entry_at(leaf, slot, &h, key, key_size);
    if (state != NPK_OVERLAY_PUT && state == (entry ? (npk_overlay_state)entry->state : NPK_OVERLAY_NONE))
        return true;

    /* Memory first. */
    if (!reserve_undo(overlay))
        return false;
    if (!entry) {
        if (t->depth >= DEPTH_MAX)
            return false; /* more entries than any memory holds */
        if (!arena_reserve(overlay, entry_size(key_size) + LEAF_SIZE + (t->depth + 1) * INNER_SIZE))
            return false;
    }
    uint8_t *block = NULL;
    if (state == NPK_OVERLAY_PUT) {
        block = npk_alloc(value_size);
        if (!block)
            return false;
        if (value_size)
            memcpy(block, value, value_size);
    }

    if (!entry) {
        entry = arena_take(overlay, entry_size(key_size));
        entry->value = NULL;
        entry->value_size = 0;
        entry->key_size = (uint16_t)key_size;
        entry->state = NPK_OVERLAY_NONE;
        if (key_size)
            memcpy(entry->key, key, key_size);
        insert(overlay, t, &way, leaf, slot, &h, entry);
    }
    undo *before = &overlay->undos[overlay->undo_count++];
    before->entry = entry;
    before->value = entry->value;
    before->value_size = entry->value_size;
    before->state = entry->state;
    count_out(overlay, entry);
    entry->value = block;
    entry->value_size = block ? (uint32_t)value_size : 0;
    entry->state = (uint8_t)state;
    count_in(overlay, entry);
    return true;
}

const npk_overlay_entry *npk_overlay_at_or_after(const npk_overlay *overlay, npk_table table, const void *key,
                                                 size_t key_size, npk_overlay_place *place)
{
    if (overlay->count == 0)
        return NULL;
    head h = head_of(key, key_size);
    unsigned slot = 0;
    node *leaf = descend(&overlay->trees[table], &h, key, key_size, NULL, &slot);
    if (!leaf)
        return NULL;
    place->leaf = leaf;
    place->slot = slot;
    if (slot < leaf->count && leaf->keys[slot]->state != NPK_OVERLAY_NONE)
        return leaf->keys[slot];
    return npk_overlay_next(place);
}

const npk_overlay_entry *npk_overlay_next(npk_overlay_place *place)
{
    node *leaf = place->leaf;
    unsigned slot = place->slot;
    for (;;) {
        if (slot + 1 < leaf->count) {
            slot++;
        } else if (leaf->next) {
            leaf = leaf->next; /* never empty */
            slot = 0;
        } else {
            return NULL;
        }
        if (leaf->keys[slot]->state != NPK_OVERLAY_NONE)
            break;
    }
    place->leaf = leaf;
    place->slot = slot;
    return leaf->keys[slot];
}

const npk_overlay_entry *npk_overlay_at_or_before(const npk_overlay *overlay, npk_table table, const void *key,
                                                  size_t key_size, npk_overlay_place *place)
{
    if (overlay->count == 0)
        return NULL;
    head h = head_of(key, key_size);
    unsigned slot = 0;
    node *leaf = descend(&overlay->trees[table], &h, key, key_size, NULL, &slot);
    if (!leaf)
        return NULL;
    place->leaf = leaf;
    place->slot = slot;
    const npk_overlay_entry *entry = entry_at(leaf, slot, &h, key, key_size);
    return entry && entry->state != NPK_OVERLAY_NONE ? entry : npk_overlay_previous(place);
}

const npk_overlay_entry *npk_overlay_previous(npk_overlay_place *place)
{
    node *leaf = place->leaf;
    unsigned slot = place->slot;
    for (;;) {
        if (slot > 0) {
            slot--;
        } else if (leaf->previous) {
            leaf = leaf->previous;
            slot = leaf->count - 1;
        } else {
            return NULL;
        }
        if (leaf->keys[slot]->state != NPK_OVERLAY_NONE)
            break;
    }
    place->leaf = leaf;
    place->slot = slot;
    return leaf->keys[slot];
}

uint64_t npk_overlay_mark(const npk_overlay *overlay)
{
    return overlay->undo_count;
}

void npk_overlay_rollback(npk_overlay *overlay, uint64_t mark)
{
    while (overlay->undo_count > mark) {
        const undo *before = &overlay->undos[--overlay->undo_count];
        npk_overlay_entry *entry = before->entry;
        count_out(overlay, entry);
        npk_free(entry->value);
        entry->value = before->value;
        entry->value_size = before->value_size;
        entry->state = before->state;
        count_in(overlay, entry);
    }
}

void npk_overlay_forget_marks(npk_overlay *overlay)
{
    drop_undos(overlay);
}

size_t npk_overlay_count(const npk_overlay *overlay)
{
    return overlay->count;
}

size_t npk_overlay_size(const npk_overlay *overlay)
{
    return overlay->size;
}
