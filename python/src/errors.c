/* errors.c - from a failed call to an exception. Which class a status becomes is decided by the one table in
 * numpack/_errors.py, found by the status's kind. */
#include <string.h>

#include "module.h"

static PyObject *text_object(const char *text)
{
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
}

PyObject *raise_core_error(module_state *state, npk_status status, const npk_error *err)
{
    if (PyErr_Occurred())
        return NULL;
    if (state->from_core == NULL) {
        PyObject *errors = PyImport_ImportModule("numpack._errors");
        if (errors == NULL)
            return NULL;
        state->from_core = PyObject_GetAttrString(errors, "from_core");
        Py_DECREF(errors);
        if (state->from_core == NULL)
            return NULL;
    }
    PyObject *exception = NULL;
    PyObject *message = text_object(err->message[0] ? err->message : npk_status_meaning(status));
    PyObject *array = text_object(err->array);
    if (message != NULL && array != NULL)
        exception = PyObject_CallFunction(state->from_core, "sOiOLK", npk_status_kind(status), message, err->sys_errno,
                                          array, (long long)err->row, (unsigned long long)err->lsn);
    Py_XDECREF(message);
    Py_XDECREF(array);
    if (exception != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        Py_DECREF(exception);
    }
    return NULL;
}

PyObject *raise_status(module_state *state, npk_status status, const char *message)
{
    npk_error err = {.status = status, .row = -1};
    strncpy(err.message, message, sizeof err.message - 1);
    return raise_core_error(state, status, &err);
}

PyObject *finish_none(module_state *state, npk_status status, const npk_error *err)
{
    if (status != NPK_OK)
        return raise_core_error(state, status, err);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}
