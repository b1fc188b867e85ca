/* snapshot_type.c - one committed state of everything, pinned until close. */
#include "module.h"

typedef struct snapshot_object {
    PyObject ob_base;       /* what PyObject_HEAD says */
    npk_snapshot *snapshot; /* NULL once closed */
    int users;              /* calls inside the core now; guarded by the GIL */
    int closing;            /* close asked for while users > 0: the last user releases */
} snapshot_object;

PyObject *snapshot_object_new(module_state *state, npk_snapshot *snapshot)
{
    snapshot_object *self = PyObject_New(snapshot_object, state->snapshot_type);
    if (self == NULL) {
        npk_snapshot_release(snapshot);
        return NULL;
    }
    self->snapshot = snapshot;
    self->users = 0;
    self->closing = 0;
    return (PyObject *)self;
}

static void release_snapshot(snapshot_object *self)
{
    npk_snapshot *snapshot = self->snapshot;
    self->snapshot = NULL;
    PyThreadState *outer = core_enter();
    npk_snapshot_release(snapshot);
    core_leave(outer);
}

static void snapshot_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    release_snapshot((snapshot_object *)object);
    PyObject_Free(object);
    Py_DECREF(type);
}

static int begin_use(snapshot_object *self, npk_source *source)
{
    if (self->snapshot == NULL || self->closing) {
        raise_status(state_of((PyObject *)self), NPK_MISUSE, "the snapshot has been closed");
        return -1;
    }
    self->users++;
    *source = (npk_source){.snapshot = self->snapshot};
    return 0;
}

static void end_use(snapshot_object *self)
{
    if (--self->users == 0 && self->closing)
        release_snapshot(self);
}

static PyObject *snapshot_array_open(PyObject *object, PyObject *name)
{
    npk_source source;
    if (begin_use((snapshot_object *)object, &source) < 0)
        return NULL;
    PyObject *result = source_array_open(state_of(object), &source, name);
    end_use((snapshot_object *)object);
    return result;
}

static PyObject *snapshot_list_arrays(PyObject *object, PyObject *unused)
{
    (void)unused;
    npk_source source;
    if (begin_use((snapshot_object *)object, &source) < 0)
        return NULL;
    PyObject *result = source_list_arrays(state_of(object), &source);
    end_use((snapshot_object *)object);
    return result;
}

static PyObject *snapshot_list_attrs(PyObject *object, PyObject *array)
{
    npk_source source;
    if (begin_use((snapshot_object *)object, &source) < 0)
        return NULL;
    PyObject *result = source_list_attrs(state_of(object), &source, array);
    end_use((snapshot_object *)object);
    return result;
}

static PyObject *snapshot_close(PyObject *object, PyObject *unused)
{
    (void)unused;
    snapshot_object *self = (snapshot_object *)object;
    if (self->users > 0)
        self->closing = 1;
    else
        release_snapshot(self);
    Py_RETURN_NONE;
}

static PyObject *snapshot_position(PyObject *object, void *closure)
{
    (void)closure;
    npk_source source;
    if (begin_use((snapshot_object *)object, &source) < 0)
        return NULL;
    PyObject *result = position_tuple(npk_snapshot_position(source.snapshot));
    end_use((snapshot_object *)object);
    return result;
}

static PyGetSetDef snapshot_getset[] = {
    {"position", snapshot_position, NULL, "(epoch, lsn) of the state", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef snapshot_methods[] = {
    {"array_open", snapshot_array_open, METH_O, "array_open($self, name, /)\n--\n\nThe array in this state."},
    {"list_arrays", snapshot_list_arrays, METH_NOARGS, "list_arrays($self, /)\n--\n\nNames in byte order."},
    {"list_attrs", snapshot_list_attrs, METH_O,
     "list_attrs($self, array, /)\n--\n\nDict of key to bytes; None: the store's."},
    {"close", snapshot_close, METH_NOARGS, "close($self, /)\n--\n\nGive the pin back."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot snapshot_slots[] = {
    {Py_tp_dealloc, snapshot_dealloc},
    {Py_tp_methods, snapshot_methods},
    {Py_tp_getset, snapshot_getset},
    {Py_tp_doc, "One committed state of everything, pinned."},
    {0, NULL},
};

static PyType_Spec snapshot_spec = {
    .name = "numpack._core.Snapshot",
    .basicsize = sizeof(snapshot_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = snapshot_slots,
};

PyTypeObject *snapshot_type_create(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &snapshot_spec, NULL);
}
