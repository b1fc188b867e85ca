/* module.c - the module numpack._core: its types, its one function, its state. */
#include "module.h"

static PyObject *drop_index(PyObject *module, PyObject *path)
{
    PyObject *bytes = NULL;
    if (!PyUnicode_FSConverter(path, &bytes))
        return NULL;
    npk_error err = {.row = -1};
    const char *text = PyBytes_AsString(bytes);
    PyThreadState *outer = core_enter();
    npk_status status = npk_drop_index(text, &err);
    core_leave(outer);
    Py_DECREF(bytes);
    return finish_none(PyModule_GetState(module), status, &err);
}

static PyMethodDef module_methods[] = {
    {"open_store", (PyCFunction)(void (*)(void))store_open, METH_VARARGS | METH_KEYWORDS,
     "open_store($module, path, mode=2, sync=0, sync_interval_ms=0, busy_timeout_ms=0, segment_size=0, "
     "checkpoint_log_size=0, "
     "pending_limit=0, bulk_size=0, no_background=False, network=False, program=None)\n--\n\nOpen a store; 0 is the "
     "default everywhere."},
    {"drop_index", drop_index, METH_O,
     "drop_index($module, path, /)\n--\n\nRemove the index so that the next open rebuilds it."},
    {NULL, NULL, 0, NULL},
};

static int add_type(PyObject *module, const char *name, PyTypeObject **slot, PyTypeObject *(*create)(PyObject *))
{
    *slot = create(module);
    return *slot == NULL ? -1 : PyModule_AddObjectRef(module, name, (PyObject *)*slot);
}

static int module_exec(PyObject *module)
{
    module_state *state = PyModule_GetState(module);
    if (add_type(module, "Store", &state->store_type, store_type_create) < 0 ||
        add_type(module, "Txn", &state->txn_type, txn_type_create) < 0 ||
        add_type(module, "Snapshot", &state->snapshot_type, snapshot_type_create) < 0 ||
        add_type(module, "Array", &state->array_type, array_type_create) < 0 ||
        add_type(module, "Region", &state->region_type, region_type_create) < 0 ||
        add_type(module, "Exporter", &state->exporter_type, exporter_type_create) < 0 ||
        add_type(module, "Block", &state->block_type, block_type_create) < 0)
        return -1;
    return PyModule_AddStringConstant(module, "version", npk_version());
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    module_state *state = PyModule_GetState(module);
    Py_VISIT(state->store_type);
    Py_VISIT(state->txn_type);
    Py_VISIT(state->snapshot_type);
    Py_VISIT(state->array_type);
    Py_VISIT(state->region_type);
    Py_VISIT(state->exporter_type);
    Py_VISIT(state->block_type);
    Py_VISIT(state->from_core);
    return 0;
}

static int module_clear(PyObject *module)
{
    module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->store_type);
    Py_CLEAR(state->txn_type);
    Py_CLEAR(state->snapshot_type);
    Py_CLEAR(state->array_type);
    Py_CLEAR(state->region_type);
    Py_CLEAR(state->exporter_type);
    Py_CLEAR(state->block_type);
    Py_CLEAR(state->from_core);
    return 0;
}

static void module_free(void *module)
{
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "numpack._core",
    .m_doc = "The store's C core: bytes and rows. Use the package numpack.",
    .m_size = sizeof(module_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&module_definition);
}
