/* overlay.h - pending changes in memory: sorted tables of keys, each with a new value or the note that it is deleted; with undo.
 *
 * One B+-tree per table. Entries and nodes lie in an arena and are never removed one by one: a change that is rolled back leaves an entry
 * in the state NONE, which says nothing about its key and is skipped by every iteration. Values are blocks of their own; each belongs either
 * to its entry or to the undo list. All memory a change needs is taken before anything is changed, so that a change happens whole or
 * not at all and undoing cannot fail. */
#ifndef NPK_CORE_OVERLAY_H
#define NPK_CORE_OVERLAY_H

#include "kv.h"

typedef enum npk_overlay_state { NPK_OVERLAY_NONE, NPK_OVERLAY_PUT, NPK_OVERLAY_DELETED } npk_overlay_state;

typedef struct npk_overlay_entry {
    uint8_t *value; /* PUT: owned; else NULL */
    uint32_t value_size;
    uint16_t key_size;
    uint8_t state;
    uint8_t key[];
} npk_overlay_entry;

typedef struct npk_overlay npk_overlay;
typedef struct npk_overlay_place { /* of an iteration; void after the next set of a new key */
    void *leaf;
    unsigned slot;
} npk_overlay_place;

npk_overlay *npk_overlay_open(void); /* NULL: no memory */
void npk_overlay_close(npk_overlay *overlay);
void npk_overlay_clear(npk_overlay *overlay);

/* What is known about key; NULL: nothing. */
const npk_overlay_entry *npk_overlay_find(const npk_overlay *overlay, npk_table table, const void *key, size_t key_size);
/* state NONE forgets what is known. false: no memory, and nothing was changed. key_size <= NPK_KEY_MAX, value_size <= UINT32_MAX. */
bool npk_overlay_set(npk_overlay *overlay, npk_table table, const void *key, size_t key_size, npk_overlay_state state,
                     const void *value, size_t value_size);

/* In key order, over entries in the states PUT and DELETED. NULL: no more. */
const npk_overlay_entry *npk_overlay_at_or_after(const npk_overlay *overlay, npk_table table, const void *key,
                                                 size_t key_size, npk_overlay_place *place);
const npk_overlay_entry *npk_overlay_next(npk_overlay_place *place);
const npk_overlay_entry *npk_overlay_at_or_before(const npk_overlay *overlay, npk_table table, const void *key,
                                                  size_t key_size, npk_overlay_place *place);
const npk_overlay_entry *npk_overlay_previous(npk_overlay_place *place);

uint64_t npk_overlay_mark(const npk_overlay *overlay);
void npk_overlay_rollback(npk_overlay *overlay, uint64_t mark);
void npk_overlay_forget_marks(npk_overlay *overlay);

size_t npk_overlay_count(const npk_overlay *overlay); /* entries in the states PUT and DELETED */
size_t npk_overlay_size(const npk_overlay *overlay);  /* their bytes of keys and values */

/* Byte order, the shorter first where one is the other's beginning: LMDB's order too. */
int npk_overlay_compare(const void *a, size_t a_size, const void *b, size_t b_size);

#endif
