/* exporter_type.c - base class whose subclasses export the buffer of what their method _export_buffer() returns. Python
 * before 3.12 has no __buffer__. */
#include "module.h"

static int exporter_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    view->obj = NULL;
    PyObject *source = PyObject_CallMethod(self, "_export_buffer", NULL);
    if (source == NULL)
        return -1;
    int result = PyObject_GetBuffer(source, view, flags);
    Py_DECREF(source); /* view->obj keeps what it needs */
    if (result < 0 && PyErr_ExceptionMatches(PyExc_ValueError)) {
        PyErr_Clear();
        PyErr_SetString(PyExc_BufferError,
                        "the rows of a lazy array cannot be exported in this way (they are read-only)");
    }
    return result;
}

static PyType_Slot exporter_slots[] = {
    {Py_bf_getbuffer, exporter_getbuffer},
    {Py_tp_doc, "Base of classes that export a buffer through the method _export_buffer."},
    {0, NULL},
};

static PyType_Spec exporter_spec = {
    .name = "numpack._core.Exporter",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = exporter_slots,
};

PyTypeObject *exporter_type_create(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &exporter_spec, NULL);
}
