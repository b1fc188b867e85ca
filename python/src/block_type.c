/* block_type.c - base class of what is used with `with` and must not stay open: subclasses have _enter(), _leave(kind, error, traceback),
 * _abandon() and _refuse(reason), which raises. A signal handler may raise before the first and after the last line of a Python method;
 * __enter__ and __exit__ are here because it cannot do so in C. */
#include "module.h"

typedef struct block_object {
    PyObject ob_base; /* what PyObject_HEAD says */
    int entered;      /* guarded by the GIL */
} block_object;

/* _enter or _leave raised: end the block and let the exception go on. */
static PyObject *abandon(PyObject *self)
{
    PyObject *kind, *error, *traceback;
    PyErr_Fetch(&kind, &error, &traceback);
    for (int tries = 0; tries < 3; tries++) { /* another signal may come meanwhile */
        PyObject *done = PyObject_CallMethod(self, "_abandon", NULL);
        Py_XDECREF(done);
        if (done != NULL)
            break;
        PyErr_Clear();
    }
    PyErr_Restore(kind, error, traceback);
    return NULL;
}

static PyObject *block_enter(PyObject *object, PyObject *unused)
{
    (void)unused;
    block_object *self = (block_object *)object;
    if (self->entered)
        return PyObject_CallMethod(object, "_refuse", "s", "can be entered once; call transaction() again");
    self->entered = 1;
    PyObject *done = PyObject_CallMethod(object, "_enter", NULL);
    if (done == NULL) {
        self->entered = 0;
        return abandon(object);
    }
    Py_DECREF(done);
    return Py_NewRef(object);
}

static PyObject *block_exit(PyObject *object, PyObject *args)
{
    if (!((block_object *)object)->entered)
        return PyObject_CallMethod(object, "_refuse", "s", "has not been entered");
    PyObject *leave = PyObject_GetAttrString(object, "_leave");
    PyObject *result = leave == NULL ? NULL : PyObject_CallObject(leave, args);
    Py_XDECREF(leave);
    return result == NULL ? abandon(object) : result;
}

static PyMethodDef block_methods[] = {
    {"__enter__", block_enter, METH_NOARGS, "__enter__($self, /)\n--\n\nBegin the block."},
    {"__exit__", block_exit, METH_VARARGS, "__exit__($self, kind, error, traceback, /)\n--\n\nEnd the block."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot block_slots[] = {
    {Py_tp_methods, block_methods},
    {Py_tp_doc, "Base of classes that are used with `with` and must not stay open."},
    {0, NULL},
};

static PyType_Spec block_spec = {
    .name = "numpack._core.Block",
    .basicsize = sizeof(block_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = block_slots,
};

PyTypeObject *block_type_create(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &block_spec, NULL);
}
