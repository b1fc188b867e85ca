/* source.c - reading metadata from whatever a state can be read from: store, transaction or snapshot. */
#include <stdlib.h>
#include <string.h>

#include "module.h"

PyObject *position_tuple(npk_position position)
{
    return Py_BuildValue("(kK)", (unsigned long)position.epoch, (unsigned long long)position.lsn);
}

/* The name as the core takes it; NULL with an exception set when it cannot be one. A NUL would end it early. */
static const char *name_text(PyObject *name)
{
    Py_ssize_t size = 0;
    const char *text = PyUnicode_AsUTF8AndSize(name, &size);
    if (text != NULL && strlen(text) != (size_t)size) {
        PyErr_SetString(PyExc_ValueError, "embedded null character");
        return NULL;
    }
    return text;
}

PyObject *source_array_open(module_state *state, const npk_source *source, PyObject *name)
{
    const char *text = name_text(name);
    if (text == NULL)
        return NULL;
    npk_array *array = NULL;
    npk_error err = {.row = -1};
    PyThreadState *outer = core_enter();
    npk_status status = npk_array_open(source, text, &array, &err);
    core_leave(outer);
    if (status != NPK_OK)
        return raise_core_error(state, status, &err);
    return array_object_new(state, array);
}

/* The visit functions run without the GIL, so they gather plain bytes: for names the text with its NUL, for attributes
 * the key with its NUL, the size, and the value. */
typedef struct gathered {
    char *data;
    size_t size, capacity;
    int failed;
} gathered;

static void gather_bytes(gathered *all, const void *data, size_t size)
{
    if (all->failed || size == 0)
        return;
    if (all->capacity - all->size < size) {
        size_t capacity = (all->size + size) * 2;
        char *grown = realloc(all->data, capacity);
        if (grown == NULL) {
            all->failed = 1;
            return;
        }
        all->data = grown;
        all->capacity = capacity;
    }
    memcpy(all->data + all->size, data, size);
    all->size += size;
}

static void visit_name(void *context, const char *name)
{
    gather_bytes(context, name, strlen(name) + 1);
}

static void visit_attr(void *context, const char *key, const void *value, size_t size)
{
    gather_bytes(context, key, strlen(key) + 1);
    gather_bytes(context, &size, sizeof size);
    gather_bytes(context, value, size);
}

PyObject *source_list_arrays(module_state *state, const npk_source *source)
{
    gathered all = {0};
    npk_error err = {.row = -1};
    PyObject *names = NULL;
    PyThreadState *outer = core_enter();
    npk_status status = npk_list_arrays(source, visit_name, &all, &err);
    core_leave(outer);
    if (status != NPK_OK) {
        raise_core_error(state, status, &err);
        goto done;
    }
    if (all.failed) {
        PyErr_NoMemory();
        goto done;
    }
    names = PyList_New(0);
    for (size_t at = 0; names != NULL && at < all.size;) {
        size_t length = strlen(all.data + at);
        PyObject *name = PyUnicode_DecodeUTF8(all.data + at, (Py_ssize_t)length, "replace");
        if (name == NULL || PyList_Append(names, name) < 0)
            Py_CLEAR(names);
        Py_XDECREF(name);
        at += length + 1;
    }
done:
    free(all.data);
    return names;
}

PyObject *source_list_attrs(module_state *state, const npk_source *source, PyObject *array)
{
    const char *name = NULL;
    if (array != Py_None && (name = name_text(array)) == NULL)
        return NULL;
    gathered all = {0};
    npk_error err = {.row = -1};
    PyObject *attrs = NULL;
    PyThreadState *outer = core_enter();
    npk_status status = npk_list_attrs(source, name, visit_attr, &all, &err);
    core_leave(outer);
    if (status != NPK_OK) {
        raise_core_error(state, status, &err);
        goto done;
    }
    if (all.failed) {
        PyErr_NoMemory();
        goto done;
    }
    attrs = PyDict_New();
    for (size_t at = 0; attrs != NULL && at < all.size;) {
        size_t length = strlen(all.data + at);
        PyObject *key = PyUnicode_DecodeUTF8(all.data + at, (Py_ssize_t)length, "replace");
        at += length + 1;
        size_t size;
        memcpy(&size, all.data + at, sizeof size);
        at += sizeof size;
        PyObject *value = PyBytes_FromStringAndSize(all.data + at, (Py_ssize_t)size);
        at += size;
        if (key == NULL || value == NULL || PyDict_SetItem(attrs, key, value) < 0)
            Py_CLEAR(attrs);
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
done:
    free(all.data);
    return attrs;
}
