/* module.h - what the files of the extension share: module state, objects, the way into the core and back.
 *
 * The extension knows bytes and rows; dtypes, indices and casting are decided in Python. One type per file.
 *
 * GIL: every call into the core that may touch the disk, wait or copy runs between core_enter and core_leave, which
 * release and take back the GIL. The interrupt function given to the core takes the GIL for a moment to run signal
 * handlers; when one raises, the core's wait ends, and the exception is found set after core_leave.
 */
#ifndef NPK_PYTHON_MODULE_H
#define NPK_PYTHON_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "npk.h"

/* What Python 3.9 does not have yet. */
#ifndef Py_TPFLAGS_DISALLOW_INSTANTIATION
#define Py_TPFLAGS_DISALLOW_INSTANTIATION 0
#endif
#ifndef Py_TPFLAGS_IMMUTABLETYPE
#define Py_TPFLAGS_IMMUTABLETYPE 0
#endif
#if PY_VERSION_HEX < 0x030A0000
static inline PyObject *Py_NewRef(PyObject *object)
{
    Py_INCREF(object);
    return object;
}

static inline int PyModule_AddObjectRef(PyObject *module, const char *name, PyObject *object)
{
    Py_INCREF(object);
    int result = PyModule_AddObject(module, name, object);
    if (result < 0)
        Py_DECREF(object);
    return result;
}
#endif

typedef struct module_state {
    PyTypeObject *store_type;
    PyTypeObject *txn_type;
    PyTypeObject *snapshot_type;
    PyTypeObject *array_type;
    PyTypeObject *region_type;
    PyTypeObject *exporter_type;
    PyTypeObject *block_type;
    PyObject *from_core; /* numpack._errors.from_core, imported at the first error */
} module_state;

/* The state of the module that created the type of self. */
static inline module_state *state_of(PyObject *self)
{
    return (module_state *)PyType_GetModuleState(Py_TYPE(self));
}

/* Stable types: none of them can be subclassed but exporter_type and block_type, and none of the others can be made from Python. */
PyTypeObject *store_type_create(PyObject *module);
PyTypeObject *txn_type_create(PyObject *module);
PyTypeObject *snapshot_type_create(PyObject *module);
PyTypeObject *array_type_create(PyObject *module);
PyTypeObject *region_type_create(PyObject *module);
PyTypeObject *exporter_type_create(PyObject *module);
PyTypeObject *block_type_create(PyObject *module);

/* New objects that own the handle; on failure the handle is released and NULL returned with an exception set. */
PyObject *txn_object_new(module_state *state, PyObject *store, npk_txn *txn);
PyObject *snapshot_object_new(module_state *state, npk_snapshot *snapshot);
PyObject *array_object_new(module_state *state, npk_array *array);
PyObject *shape_tuple(int zero_dim, uint64_t row_count, uint32_t tail_ndim, const uint64_t *tail);
PyObject *region_object_new(module_state *state, npk_region *region, int read_only);

/* store_type.c: the module function open_store(...). */
PyObject *store_open(PyObject *module, PyObject *args, PyObject *kwargs);

/* call.c: in and out of the core. core_enter gives the value that core_leave takes. */
PyThreadState *core_enter(void);
void core_leave(PyThreadState *outer);
/* The npk_options.interrupt: runs signal handlers when the calling thread is a Python thread inside the core. */
int core_interrupt(void *context);
/* The same with a call of progress(done, total) from Python; an exception of it stops the call of the core and is raised by call_end. */
int core_progress(PyObject *progress, uint64_t done_size, uint64_t total_size);

/* errors.c: sets the exception for a failed call and returns NULL. An exception that is already set (that of a signal
 * handler) stays. */
PyObject *raise_core_error(module_state *state, npk_status status, const npk_error *err);
/* Set the exception for a failure found in this extension. */
PyObject *raise_status(module_state *state, npk_status status, const char *message);
/* None, or NULL with the exception set. */
PyObject *finish_none(module_state *state, npk_status status, const npk_error *err);

/* source.c: what store, transaction and snapshot have in common. */
PyObject *source_array_open(module_state *state, const npk_source *source, PyObject *name);
PyObject *source_list_arrays(module_state *state, const npk_source *source);
/* array: str or None. A dict key -> bytes. */
PyObject *source_list_attrs(module_state *state, const npk_source *source, PyObject *array);
/* The same of an array at its moment. */
PyObject *array_list_attrs(const npk_array *array);
PyObject *position_tuple(npk_position position);

#endif
