/* region_type.c - rows in memory as a one-dimensional buffer of bytes. An ndarray made over it keeps it, and with it
 * the mapping, alive by reference count. */
#include "module.h"

typedef struct region_object {
    PyObject ob_base; /* what PyObject_HEAD says */
    npk_region *region;
    int read_only;
} region_object;

PyObject *region_object_new(module_state *state, npk_region *region, int read_only)
{
    region_object *self = PyObject_New(region_object, state->region_type);
    if (self == NULL) {
        npk_region_release(region);
        return NULL;
    }
    self->region = region;
    self->read_only = read_only;
    return (PyObject *)self;
}

static void region_dealloc(PyObject *object)
{
    region_object *self = (region_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyThreadState *outer = core_enter(); /* unmapping many pages takes a while */
    npk_region_release(self->region);
    core_leave(outer);
    PyObject_Free(object);
    Py_DECREF(type);
}

static int region_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    static char nothing[64]; /* the address of zero bytes */
    region_object *self = (region_object *)object;
    void *address = npk_region_address(self->region);
    size_t size = npk_region_size(self->region);
    if (size == 0 || address == NULL)
        return PyBuffer_FillInfo(view, object, nothing, 0, self->read_only, flags);
    return PyBuffer_FillInfo(view, object, address, (Py_ssize_t)size, self->read_only, flags);
}

static PyObject *region_is_mapped(PyObject *object, void *closure)
{
    (void)closure;
    return PyBool_FromLong(npk_region_is_mapped(((region_object *)object)->region));
}

static PyGetSetDef region_getset[] = {
    {"is_mapped", region_is_mapped, NULL, "whether the rows are the file's own pages, not a gathered copy", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot region_slots[] = {
    {Py_tp_dealloc, region_dealloc},
    {Py_tp_getset, region_getset},
    {Py_bf_getbuffer, region_getbuffer},
    {Py_tp_doc, "Rows in memory, exported as bytes."},
    {0, NULL},
};

static PyType_Spec region_spec = {
    .name = "numpack._core.Region",
    .basicsize = sizeof(region_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = region_slots,
};

PyTypeObject *region_type_create(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &region_spec, NULL);
}
