/* call.c - leaving the interpreter for the core and coming back. */
#include "module.h"

/* The interpreter's state of this thread while it is inside the core, else NULL: how the interrupt function knows that
 * it was called from a Python thread, and which. Guarded by being the thread's own. */
static _Thread_local PyThreadState *inside;

PyThreadState *core_enter(void)
{
    PyThreadState *outer = inside;
    inside = PyEval_SaveThread();
    return outer;
}

void core_leave(PyThreadState *outer)
{
    PyThreadState *own = inside;
    inside = outer;
    PyEval_RestoreThread(own);
}

int core_interrupt(void *context)
{
    (void)context;
    PyThreadState *own = inside;
    if (own == NULL)
        return 0; /* the core's own worker: no Python thread, no signals */
    inside = NULL;
    PyEval_RestoreThread(own);
    int stop = PyErr_CheckSignals() != 0;
    inside = PyEval_SaveThread();
    return stop;
}

int core_progress(PyObject *progress, uint64_t done_size, uint64_t total_size)
{
    PyThreadState *own = inside;
    if (own == NULL)
        return 0;
    inside = NULL;
    PyEval_RestoreThread(own);
    PyObject *result =
        PyObject_CallFunction(progress, "KK", (unsigned long long)done_size, (unsigned long long)total_size);
    int stop = result == NULL || PyErr_CheckSignals() != 0;
    Py_XDECREF(result);
    inside = PyEval_SaveThread();
    return stop;
}
