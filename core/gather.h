/* gather.h - copying rows of an array out of pieces and overlay rows. */
#ifndef NPK_CORE_GATHER_H
#define NPK_CORE_GATHER_H

#include "array.h"

/* Which rows are overlay rows, and how many are before each word: finds one in a step where a search of the overlay takes many. */
typedef struct npk_overlay_bits {
    uint64_t *bits;   /* of all rows */
    uint64_t *before; /* overlay rows before each word of bits */
} npk_overlay_bits;
void npk_overlay_bits_release(npk_overlay_bits *bits); /* accepts NULL */

/* Index of the first overlay row at or behind row. */
uint64_t npk_array_find_overlay(const npk_array *array, uint64_t row);
/* Index of the piece that holds row, which is in the array. */
uint64_t npk_array_find_piece(const npk_array *array, uint64_t row);
/* Can rows first .. first + count (> 0, in the array) be given out as a map of their file: are they one stretch of a column file, and the overlay
 * rows among them (*patch: there are some) on few enough pages to be written into private copies of these? */
bool npk_array_is_mappable(const npk_array *array, uint64_t first, uint64_t count, bool *patch);
/* RANGE unless rows first .. first + count are in the array. */
npk_status npk_array_check_range(const npk_array *array, uint64_t first, uint64_t count, npk_error *err);

/* Bytes of unpacked rows that the arrays of this process hold. */
uint64_t npk_array_unpacked_size(void);
/* Give back the unpacked rows of a source, if there are any. */
void npk_array_release_unpacked(npk_array *array, uint32_t source);
/* Write the overlay rows among first .. first + count, which are in the array, into out, which holds these rows; others are left. */
npk_status npk_array_put_overlay(npk_array *array, uint64_t first, uint64_t count, void *out, npk_error *err);

#endif
