/* error.c - filling an npk_error and putting context in front of it. */
#include "error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const kinds[NPK_STATUS_COUNT] = {
#define NPK_X(name, kind, meaning) kind,
    NPK_STATUS_MAP(NPK_X)
#undef NPK_X
};

static const char *const meanings[NPK_STATUS_COUNT] = {
#define NPK_X(name, kind, meaning) meaning,
    NPK_STATUS_MAP(NPK_X)
#undef NPK_X
};

const char *npk_status_kind(npk_status status)
{
    return (unsigned)status < NPK_STATUS_COUNT ? kinds[status] : "unknown";
}

const char *npk_status_meaning(npk_status status)
{
    return (unsigned)status < NPK_STATUS_COUNT ? meanings[status] : "unknown status";
}

static void NPK_PRINTF(4, 0) fill(npk_error *err, npk_status status, int sys_errno, const char *format, va_list arguments)
{
    err->status = status;
    err->sys_errno = sys_errno;
    err->row = -1;
    err->lsn = 0;
    err->array[0] = '\0';
    (void)vsnprintf(err->message, sizeof err->message, format, arguments);
}

void npk_error_fill(npk_error *err, npk_status status, const char *format, ...)
{
    if (err) {
        va_list arguments;
        va_start(arguments, format);
        fill(err, status, 0, format, arguments);
        va_end(arguments);
    }
}

static npk_status status_of_errno(int sys_errno)
{
    switch (sys_errno) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return NPK_NO_SPACE;
    case ENOENT: return NPK_NOT_FOUND;
    case EROFS:
    case EACCES:
    case EPERM: return NPK_READ_ONLY;
    case ENOMEM: return NPK_NO_MEMORY;
    default: return NPK_IO;
    }
}

npk_status npk_fail_errno(npk_error *err, int sys_errno, const char *format, ...)
{
    npk_status status = status_of_errno(sys_errno);
    if (err) {
        va_list arguments;
        va_start(arguments, format);
        fill(err, status, sys_errno, format, arguments);
        va_end(arguments);
        size_t used = strlen(err->message);
        char text[128];
        /* The XSI strerror_r: fills the buffer; glibc's other one needs _GNU_SOURCE, which the library does not set. */
        if (strerror_r(sys_errno, text, sizeof text) != 0)
            (void)snprintf(text, sizeof text, "error %d", sys_errno);
        (void)snprintf(err->message + used, sizeof err->message - used, ": %s", text);
    }
    return status;
}

npk_status npk_context(npk_error *err, npk_status status, const char *format, ...)
{
    if (err) {
        char reason[sizeof err->message];
        memcpy(reason, err->message, sizeof reason);
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(err->message, sizeof err->message, format, arguments);
        va_end(arguments);
        size_t used = strlen(err->message);
        int wanted = snprintf(err->message + used, sizeof err->message - used, ": %s", reason);
        (void)wanted; /* a message that does not fit is cut */
        err->status = status;
    }
    return status;
}

void npk_error_set_array(npk_error *err, const char *array)
{
    if (err && array && err->array[0] == '\0')
        (void)snprintf(err->array, sizeof err->array, "%s", array);
}
