/* array_type.c - one array at one moment. */
#include <string.h>

#include "module.h"

typedef struct array_object {
    PyObject ob_base; /* what PyObject_HEAD says */
    npk_array *array;
    const npk_array_info *info; /* owned by array */
    PyObject *shape;            /* tuple with the row axis; () for a 0-d array */
    PyObject *descr;            /* str */
} array_object;

PyObject *shape_tuple(int zero_dim, uint64_t row_count, uint32_t tail_ndim, const uint64_t *tail)
{
    Py_ssize_t ndim = zero_dim ? 0 : (Py_ssize_t)tail_ndim + 1;
    PyObject *shape = PyTuple_New(ndim);
    for (Py_ssize_t i = 0; shape != NULL && i < ndim; i++) {
        PyObject *size = PyLong_FromUnsignedLongLong(i == 0 ? row_count : tail[i - 1]);
        if (size == NULL || PyTuple_SetItem(shape, i, size) < 0)
            Py_CLEAR(shape);
    }
    return shape;
}

PyObject *array_object_new(module_state *state, npk_array *array)
{
    array_object *self = PyObject_New(array_object, state->array_type);
    if (self == NULL) {
        npk_array_release(array);
        return NULL;
    }
    self->array = array;
    self->info = npk_array_describe(array);
    self->shape = shape_tuple(self->info->zero_dim, self->info->row_count, self->info->ndim, self->info->shape);
    self->descr = PyUnicode_DecodeUTF8(self->info->descr, (Py_ssize_t)strlen(self->info->descr), "strict");
    if (self->shape == NULL || self->descr == NULL)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void array_dealloc(PyObject *object)
{
    array_object *self = (array_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    npk_array_release(self->array);
    Py_XDECREF(self->shape);
    Py_XDECREF(self->descr);
    PyObject_Free(object);
    Py_DECREF(type);
}

/* Whether out can take count rows; else -1 with ValueError. */
static int check_room(const array_object *self, const Py_buffer *out, uint64_t count)
{
    uint64_t row_size = self->info->row_size;
    if ((row_size == 0 && out->len == 0) ||
        (row_size != 0 && (uint64_t)out->len % row_size == 0 && (uint64_t)out->len / row_size == count))
        return 0;
    PyErr_SetString(PyExc_ValueError, "the buffer does not have the size of the rows");
    return -1;
}

static PyObject *array_read(PyObject *object, PyObject *args)
{
    array_object *self = (array_object *)object;
    unsigned long long first, count;
    PyObject *target;
    Py_buffer out;
    if (!PyArg_ParseTuple(args, "KKO", &first, &count, &target) || PyObject_GetBuffer(target, &out, PyBUF_WRITABLE) < 0)
        return NULL;
    PyObject *result = NULL;
    if (check_room(self, &out, count) == 0) {
        npk_error err = {.row = -1};
        PyThreadState *outer = core_enter();
        npk_status status = npk_array_read(self->array, first, count, out.buf, &err);
        core_leave(outer);
        result = finish_none(state_of(object), status, &err);
    }
    PyBuffer_Release(&out);
    return result;
}

/* Row numbers as the core wants them: aligned, and those that count from the end made plain; what lies outside stays as it is. A copy (PyMem_Free)
 * only when something has to change. NULL with MemoryError. */
static const int64_t *plain_rows(const Py_buffer *given, uint64_t row_count, int64_t **copy)
{
    size_t count = (size_t)given->len / sizeof(int64_t);
    const int64_t *rows = given->buf;
    static const int64_t none[1];
    *copy = NULL;
    if (count == 0)
        return none;
    if ((uintptr_t)rows % _Alignof(int64_t) == 0) {
        int64_t any = 0;
        for (size_t i = 0; i < count; i++)
            any |= rows[i];
        if (any >= 0)
            return rows;
    }
    *copy = PyMem_Malloc((size_t)given->len);
    if (*copy == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    memcpy(*copy, given->buf, (size_t)given->len);
    for (size_t i = 0; i < count; i++)
        if ((*copy)[i] < 0 && (*copy)[i] >= -(int64_t)row_count)
            (*copy)[i] += (int64_t)row_count;
    return *copy;
}

static PyObject *array_gather(PyObject *object, PyObject *args)
{
    array_object *self = (array_object *)object;
    PyObject *row_numbers, *target;
    Py_buffer rows, out;
    if (!PyArg_ParseTuple(args, "OO", &row_numbers, &target) ||
        PyObject_GetBuffer(row_numbers, &rows, PyBUF_SIMPLE) < 0)
        return NULL;
    if (PyObject_GetBuffer(target, &out, PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&rows);
        return NULL;
    }
    PyObject *result = NULL;
    uint64_t count = (uint64_t)rows.len / sizeof(int64_t);
    int64_t *copy = NULL;
    const int64_t *plain = check_room(self, &out, count) == 0 ? plain_rows(&rows, self->info->row_count, &copy) : NULL;
    if (plain != NULL) {
        npk_error err = {.row = -1};
        PyThreadState *outer = core_enter();
        npk_status status = npk_array_gather(self->array, count, plain, out.buf, &err);
        core_leave(outer);
        result = finish_none(state_of(object), status, &err);
    }
    PyMem_Free(copy);
    PyBuffer_Release(&rows);
    PyBuffer_Release(&out);
    return result;
}

static PyObject *array_map(PyObject *object, PyObject *args)
{
    array_object *self = (array_object *)object;
    unsigned long long first, count;
    int writable;
    if (!PyArg_ParseTuple(args, "KKp", &first, &count, &writable))
        return NULL;
    npk_region *region = NULL;
    npk_error err = {.row = -1};
    PyThreadState *outer = core_enter();
    npk_status status =
        npk_array_map(self->array, first, count, writable ? NPK_MAP_COPY_ON_WRITE : NPK_MAP_READ, &region, &err);
    core_leave(outer);
    if (status != NPK_OK)
        return raise_core_error(state_of(object), status, &err);
    return region_object_new(state_of(object), region, !writable);
}

static PyObject *array_load(PyObject *object, PyObject *unused)
{
    (void)unused;
    array_object *self = (array_object *)object;
    npk_region *region = NULL;
    npk_error err = {.row = -1};
    PyThreadState *outer = core_enter();
    npk_status status = npk_array_load(self->array, &region, &err);
    core_leave(outer);
    if (status != NPK_OK)
        return raise_core_error(state_of(object), status, &err);
    return region_object_new(state_of(object), region, 0);
}

/* Row numbers that differ, of the runs (first, end) of rows; edited holds all rows. As bytes of int64. */
static PyObject *array_compare(PyObject *object, PyObject *args)
{
    array_object *self = (array_object *)object;
    PyObject *run_pairs, *edited_rows, *result = NULL;
    Py_buffer runs, edited;
    if (!PyArg_ParseTuple(args, "OO", &run_pairs, &edited_rows) || PyObject_GetBuffer(run_pairs, &runs, PyBUF_SIMPLE) < 0)
        return NULL;
    if (PyObject_GetBuffer(edited_rows, &edited, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&runs);
        return NULL;
    }
    const int64_t *run = runs.buf;
    size_t run_count = (size_t)runs.len / (2 * sizeof *run);
    uint64_t row_count = self->info->row_count, total = 0, found = 0;
    int fits = check_room(self, &edited, row_count) == 0;
    for (size_t i = 0; fits && i < run_count; i++) {
        fits = run[2 * i] >= 0 && run[2 * i] <= run[2 * i + 1] && (uint64_t)run[2 * i + 1] <= row_count;
        if (!fits)
            PyErr_SetString(PyExc_ValueError, "a run of rows is not in the array");
        else
            total += (uint64_t)(run[2 * i + 1] - run[2 * i]);
    }
    int64_t *rows = fits ? PyMem_Malloc((size_t)total * sizeof *rows) : NULL;
    if (fits && rows == NULL)
        PyErr_NoMemory();
    if (rows != NULL) {
        npk_error err = {.row = -1};
        npk_status status = NPK_OK;
        PyThreadState *outer = core_enter();
        for (size_t i = 0; status == NPK_OK && i < run_count; i++) {
            uint64_t first = (uint64_t)run[2 * i], changed = 0;
            status = npk_array_compare(self->array, first, (uint64_t)run[2 * i + 1] - first,
                                       (const char *)edited.buf + first * self->info->row_size, rows + found, &changed, &err);
            found += changed;
        }
        core_leave(outer);
        result = status != NPK_OK ? raise_core_error(state_of(object), status, &err)
                                  : PyBytes_FromStringAndSize((const char *)rows, (Py_ssize_t)(found * sizeof *rows));
    }
    PyMem_Free(rows);
    PyBuffer_Release(&edited);
    PyBuffer_Release(&runs);
    return result;
}

static PyObject *array_attrs(PyObject *object, PyObject *unused)
{
    (void)unused;
    return array_list_attrs(((array_object *)object)->array);
}

static PyObject *array_shape(PyObject *object, void *closure)
{
    (void)closure;
    return Py_NewRef(((array_object *)object)->shape);
}

static PyObject *array_descr(PyObject *object, void *closure)
{
    (void)closure;
    return Py_NewRef(((array_object *)object)->descr);
}

static PyObject *array_name(PyObject *object, void *closure)
{
    (void)closure;
    return PyUnicode_FromString(((array_object *)object)->info->name);
}

static PyObject *array_zero_dim(PyObject *object, void *closure)
{
    (void)closure;
    return PyBool_FromLong(((array_object *)object)->info->zero_dim);
}

/* closure: the offset of a uint64_t in npk_array_info. */
static PyObject *array_number(PyObject *object, void *closure)
{
    const char *info = (const char *)((array_object *)object)->info;
    uint64_t value;
    memcpy(&value, info + (size_t)closure, sizeof value);
    return PyLong_FromUnsignedLongLong(value);
}

/* clang-format off */
#define NUMBER(member, doc) {#member, array_number, NULL, doc, (void *)offsetof(npk_array_info, member)}
/* clang-format on */

static PyGetSetDef array_getset[] = {
    {"name", array_name, NULL, "name when opened", NULL},
    {"shape", array_shape, NULL, "shape with the row axis", NULL},
    {"descr", array_descr, NULL, "stored description of the dtype", NULL},
    {"zero_dim", array_zero_dim, NULL, "whether it is one value without axes", NULL},
    NUMBER(id, "number that is never reused"),
    NUMBER(row_count, "rows"),
    NUMBER(row_size, "bytes of a row"),
    NUMBER(created_us, "creation, microseconds since 1970"),
    NUMBER(modified_us, "last change, microseconds since 1970"),
    NUMBER(change_lsn, "log position of the last change of content"),
    NUMBER(pending_row_count, "rows that lie in the log"),
    NUMBER(pending_size, "bytes of rows that lie in the log"),
    NUMBER(piece_count, "contiguous pieces it is read from"),
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef array_methods[] = {
    {"read", array_read, METH_VARARGS, "read($self, first, count, out, /)\n--\n\nCopy rows into a writable buffer."},
    {"gather", array_gather, METH_VARARGS,
     "gather($self, rows, out, /)\n--\n\nCopy the rows with these int64 numbers, in order; negative ones count from the end."},
    {"compare", array_compare, METH_VARARGS,
     "compare($self, runs, edited, /)\n--\n\nNumbers (bytes of int64) of the rows in these runs, pairs of int64 (first, end), that differ in "
     "edited, all rows in memory."},
    {"map", array_map, METH_VARARGS,
     "map($self, first, count, writable, /)\n--\n\nRows as memory, read-only or copy-on-write."},
    {"list_attrs", array_attrs, METH_NOARGS, "list_attrs($self, /)\n--\n\nIts attributes at that moment: dict of key to bytes."},
    {"load", array_load, METH_NOARGS, "load($self, /)\n--\n\nAll rows in private memory."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot array_slots[] = {
    {Py_tp_dealloc, array_dealloc},
    {Py_tp_methods, array_methods},
    {Py_tp_getset, array_getset},
    {Py_tp_doc, "One array at one moment; its bytes never change."},
    {0, NULL},
};

static PyType_Spec array_spec = {
    .name = "numpack._core.Array",
    .basicsize = sizeof(array_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = array_slots,
};

PyTypeObject *array_type_create(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &array_spec, NULL);
}
