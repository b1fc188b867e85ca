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
