/* alloc.h - every allocation of the library, so that tests can make the n-th one fail. */
#ifndef NPK_BASE_ALLOC_H
#define NPK_BASE_ALLOC_H

#include <stddef.h>
#include <stdint.h>

void *npk_alloc(size_t size);                    /* size 0 gives a unique pointer; NULL when memory is short */
void *npk_calloc(size_t count, size_t size);     /* zeroed; NULL also when count * size overflows */
void *npk_realloc(void *block, size_t size);     /* on NULL the old block stays */
void npk_free(void *block);                      /* accepts NULL */
char *npk_strdup(const char *text);

/* Tests: called before each allocation; non-zero makes it fail. NULL takes the hook away. */
void npk_alloc_set_hook(int (*hook)(void *context, size_t size), void *context);

#endif
