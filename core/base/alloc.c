/* alloc.c - every allocation of the library. */
#include "alloc.h"

#include <stdlib.h>
#include <string.h>

static int (*alloc_hook)(void *context, size_t size); /* set by tests before threads start */
static void *alloc_hook_context;

void npk_alloc_set_hook(int (*hook)(void *context, size_t size), void *context)
{
    alloc_hook = hook;
    alloc_hook_context = context;
}

static int refused(size_t size)
{
    return alloc_hook && alloc_hook(alloc_hook_context, size);
}

void *npk_alloc(size_t size)
{
    return refused(size) ? NULL : malloc(size ? size : 1);
}

void *npk_calloc(size_t count, size_t size)
{
    if (size && count > SIZE_MAX / size)
        return NULL;
    return refused(count * size) ? NULL : calloc(count ? count : 1, size ? size : 1);
}

void *npk_realloc(void *block, size_t size)
{
    return refused(size) ? NULL : realloc(block, size ? size : 1);
}

void npk_free(void *block)
{
    free(block);
}

char *npk_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = npk_alloc(size);
    if (copy)
        memcpy(copy, text, size);
    return copy;
}
