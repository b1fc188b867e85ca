/* error.h - filling an npk_error and putting context in front of it. */
#ifndef NPK_BASE_ERROR_H
#define NPK_BASE_ERROR_H

#include <stdarg.h>
#include "npk.h"

#if defined(__GNUC__)
#define NPK_PRINTF(format_index, first_index) __attribute__((format(printf, format_index, first_index)))
#else
#define NPK_PRINTF(format_index, first_index)
#endif

/* Fill *err (may be NULL) with status and message, clearing the other fields. */
void npk_error_fill(npk_error *err, npk_status status, const char *format, ...) NPK_PRINTF(3, 4);
/* The same as an expression whose value is status, so that "return npk_fail(...)" reads well. A macro, so that analyzers, which look at one file at a
 * time, see that a failure is never NPK_OK. status is evaluated twice. */
#define npk_fail(err, status, ...) (npk_error_fill(err, status, __VA_ARGS__), (npk_status)(status))

/* A system call failed with sys_errno: NO_SPACE for ENOSPC and EDQUOT, NOT_FOUND for ENOENT, READ_ONLY for EROFS, EACCES
 * and EPERM, NO_MEMORY for ENOMEM, else IO. The text of the errno is put behind the message. */
npk_status npk_fail_errno(npk_error *err, int sys_errno, const char *format, ...) NPK_PRINTF(3, 4);

/* Put "format: " in front of the message of an err that is already filled; returns its status (IO when err is NULL is
 * never right, so the status is passed through). */
npk_status npk_context(npk_error *err, npk_status status, const char *format, ...) NPK_PRINTF(3, 4);

/* Name the array of a failure, once: a name that is already there stays. */
void npk_error_set_array(npk_error *err, const char *array);

#endif
