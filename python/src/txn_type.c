/* txn_type.c - the write transaction. Dropping the object without commit aborts: whatever exception arrives between two
 * lines of Python, nothing stays locked. */
#include "module.h"

typedef struct txn_object {
    PyObject ob_base; /* what PyObject_HEAD says */
    npk_txn *txn;     /* NULL once finished */
    PyObject *store;  /* keeps the store open for as long as the transaction is */
    int busy;         /* a call is inside the core; guarded by the GIL */
    int committed;
    npk_position position; /* of its end, once committed */
} txn_object;

PyObject *txn_object_new(module_state *state, PyObject *store, npk_txn *txn)
{
    txn_object *self = PyObject_New(txn_object, state->txn_type);
    if (self == NULL) {
        npk_txn_abort(txn);
        return NULL;
    }
    self->txn = txn;
    self->store = Py_NewRef(store);
    self->busy = 0;
    self->committed = 0;
    return (PyObject *)self;
}

static void txn_dealloc(PyObject *object)
{
    txn_object *self = (txn_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->txn != NULL) {
        PyThreadState *outer = core_enter();
        npk_txn_abort(self->txn);
        core_leave(outer);
    }
    Py_XDECREF(self->store);
    PyObject_Free(object);
    Py_DECREF(type);
}

/* A call into the transaction: guards against two at a time (a signal handler that uses the store, a second thread). */
typedef struct txn_call {
    txn_object *self;
    PyThreadState *outer;
    npk_error err;
} txn_call;

static int check_usable(txn_object *self)
{
    if (self->txn == NULL || self->busy) {
        raise_status(state_of((PyObject *)self), NPK_MISUSE,
                     self->txn == NULL ? "the transaction is finished" : "the transaction is in use by another call");
        return -1;
    }
    return 0;
}

/* The transaction's handle, or NULL with an exception. */
static npk_txn *call_begin(txn_call *call, PyObject *object)
{
    call->self = (txn_object *)object;
    call->err = (npk_error){.row = -1};
    if (check_usable(call->self) < 0)
        return NULL;
    call->self->busy = 1;
    call->outer = core_enter();
    return call->self->txn;
}

static PyObject *call_end(txn_call *call, npk_status status)
{
    core_leave(call->outer);
    call->self->busy = 0;
    return finish_none(state_of((PyObject *)call->self), status, &call->err);
}

static PyObject *txn_commit(PyObject *object, PyObject *level)
{
    long sync = PyLong_AsLong(level);
    if (sync == -1 && PyErr_Occurred())
        return NULL;
    txn_call call;
    npk_txn *txn = call_begin(&call, object);
    if (txn == NULL)
        return NULL;
    npk_position position = {0};
    npk_status status = npk_txn_commit(txn, (npk_sync)sync, &position, &call.err);
    call.self->txn = NULL; /* gone whatever is returned; nobody else looks while busy is set */
    call.self->committed = status == NPK_OK; /* also when a signal handler raised meanwhile */
    call.self->position = position;
    PyObject *done = call_end(&call, status);
    if (done == NULL)
        return NULL;
    Py_DECREF(done);
    return position_tuple(position);
}

static PyObject *txn_abort(PyObject *object, PyObject *unused)
{
    (void)unused;
    if (((txn_object *)object)->txn == NULL)
        Py_RETURN_NONE;
    txn_call call;
    npk_txn *txn = call_begin(&call, object);
    if (txn == NULL)
        return NULL;
    call.self->txn = NULL;
    npk_txn_abort(txn);
    return call_end(&call, NPK_OK);
}

static PyObject *txn_savepoint(PyObject *object, PyObject *unused)
{
    (void)unused;
    txn_call call;
    npk_txn *txn = call_begin(&call, object);
    if (txn == NULL)
        return NULL;
    uint64_t savepoint = 0;
    PyObject *done = call_end(&call, npk_txn_savepoint(txn, &savepoint, &call.err));
    if (done == NULL)
        return NULL;
    Py_DECREF(done);
    return PyLong_FromUnsignedLongLong(savepoint);
}

typedef npk_status (*savepoint_call)(npk_txn *txn, uint64_t savepoint, npk_error *err);

static PyObject *with_savepoint(PyObject *object, PyObject *number, savepoint_call function)
{
    unsigned long long savepoint = PyLong_AsUnsignedLongLong(number);
    if (PyErr_Occurred())
        return NULL;
    txn_call call;
    npk_txn *txn = call_begin(&call, object);
    if (txn == NULL)
        return NULL;
    return call_end(&call, function(txn, savepoint, &call.err));
}

static PyObject *txn_rollback_to(PyObject *object, PyObject *number)
{
    return with_savepoint(object, number, npk_txn_rollback_to);
}

static PyObject *txn_release_savepoint(PyObject *object, PyObject *number)
{
    return with_savepoint(object, number, npk_txn_release_savepoint);
}

/* Fills *data and checks that it holds count rows of row_size bytes. */
static int rows_buffer(PyObject *object, unsigned long long count, unsigned long long row_size, Py_buffer *data)
{
    if (PyObject_GetBuffer(object, data, PyBUF_SIMPLE) < 0)
        return -1;
    if ((row_size == 0 && data->len == 0) ||
        (row_size != 0 && (uint64_t)data->len % row_size == 0 && (uint64_t)data->len / row_size == count))
        return 0;
    PyBuffer_Release(data);
    PyErr_SetString(PyExc_ValueError, "the buffer does not have the size of the rows");
    return -1;
}

static PyObject *txn_save(PyObject *object, PyObject *args)
{
    const char *name, *descr;
    unsigned long long row_size, row_count;
    PyObject *tail, *source;
    int zero_dim;
    if (!PyArg_ParseTuple(args, "ssKO!pKO", &name, &descr, &row_size, &PyTuple_Type, &tail, &zero_dim, &row_count,
                          &source))
        return NULL;
    uint64_t shape[NPK_NDIM_MAX];
    Py_ssize_t ndim = PyTuple_Size(tail);
    if (ndim > NPK_NDIM_MAX - 1)
        return raise_status(state_of(object), NPK_INVALID, "an array cannot have that many dimensions");
    for (Py_ssize_t i = 0; i < ndim; i++) {
        shape[i] = PyLong_AsUnsignedLongLong(PyTuple_GetItem(tail, i));
        if (PyErr_Occurred())
            return NULL;
    }
    Py_buffer data;
    if (rows_buffer(source, row_count, row_size, &data) < 0)
        return NULL;
    npk_array_spec spec = {
        .descr = descr, .row_size = row_size, .ndim = (uint32_t)ndim, .shape = shape, .zero_dim = zero_dim};
    txn_call call;
    npk_txn *txn = call_begin(&call, object);
    PyObject *result = NULL;
    if (txn != NULL)
        result = call_end(&call, npk_txn_save(txn, name, &spec, row_count, data.buf, &call.err));
    PyBuffer_Release(&data);
    return result;
}

static PyObject *txn_append(PyObject *object, PyObject *args)
{
    const char *name;
    unsigned long long row_size, row_count;
    PyObject *source;
    Py_buffer data;
    if (!PyArg_ParseTuple(args, "sKKO", &name, &row_size, &row_count, &source) ||
        rows_buffer(source, row_count, row_size, &data) < 0)
        return NULL;
    txn_call call;
    npk_txn *txn = call_begin(&call, object);
    PyObject *result = NULL;
    if (txn != NULL)
        result = call_end(&call, npk_txn_append(txn, name, row_count, data.buf, &call.err));
    PyBuffer_Release(&data);
    return result;
}

static PyObject *txn_replace(PyObject *object, PyObject *args)
{
    const char *name;
    unsigned long long row_size;
    PyObject *row_numbers, *source;
    Py_buffer rows, data;
    if (!PyArg_ParseTuple(args, "sKOO", &name, &row_size, &row_numbers, &source) ||
        PyObject_GetBuffer(row_numbers, &rows, PyBUF_SIMPLE) < 0)
        return NULL;
    uint64_t count = (uint64_t)rows.len / sizeof(int64_t);
    PyObject *result = NULL;
    if (rows_buffer(source, count, row_size, &data) == 0) {
        txn_call call;
        npk_txn *txn = call_begin(&call, object);
        if (txn != NULL)
            result = call_end(&call, npk_txn_replace(txn, name, count, rows.buf, data.buf, &call.err));
        PyBuffer_Release(&data);
    }
    PyBuffer_Release(&rows);
    return result;
}

static PyObject *txn_replace_run(PyObject *object, PyObject *args)
{
    const char *name;
    unsigned long long row_size, first, count;
    PyObject *source;
    Py_buffer data;
    if (!PyArg_ParseTuple(args, "sKKKO", &name, &row_size, &first, &count, &source) ||
        rows_buffer(source, count, row_size, &data) < 0)
        return NULL;
    txn_call call;
    npk_txn *txn = call_begin(&call, object);
    PyObject *result = NULL;
    if (txn != NULL)
        result = call_end(&call, npk_txn_replace_run(txn, name, first, count, data.buf, &call.err));
    PyBuffer_Release(&data);
    return result;
}

static PyObject *txn_drop_rows(PyObject *object, PyObject *args)
{
    const char *name;
    PyObject *row_numbers;
    Py_buffer rows;
    if (!PyArg_ParseTuple(args, "sO", &name, &row_numbers) || PyObject_GetBuffer(row_numbers, &rows, PyBUF_SIMPLE) < 0)
        return NULL;
    txn_call call;
    npk_txn *txn = call_begin(&call, object);
    PyObject *result = NULL;
    if (txn != NULL)
        result =
            call_end(&call, npk_txn_drop_rows(txn, name, (uint64_t)rows.len / sizeof(int64_t), rows.buf, &call.err));
    PyBuffer_Release(&rows);
    return result;
}

static PyObject *txn_drop_array(PyObject *object, PyObject *args)
{
    const char *name;
    txn_call call;
    npk_txn *txn;
    if (!PyArg_ParseTuple(args, "s", &name) || (txn = call_begin(&call, object)) == NULL)
        return NULL;
    return call_end(&call, npk_txn_drop_array(txn, name, &call.err));
}

static PyObject *txn_rename(PyObject *object, PyObject *args)
{
    const char *from, *to;
    txn_call call;
    npk_txn *txn;
    if (!PyArg_ParseTuple(args, "ss", &from, &to) || (txn = call_begin(&call, object)) == NULL)
        return NULL;
    return call_end(&call, npk_txn_rename(txn, from, to, &call.err));
}

static PyObject *txn_clone(PyObject *object, PyObject *args)
{
    const char *from, *to;
    txn_call call;
    npk_txn *txn;
    if (!PyArg_ParseTuple(args, "ss", &from, &to) || (txn = call_begin(&call, object)) == NULL)
        return NULL;
    return call_end(&call, npk_txn_clone(txn, from, to, &call.err));
}

static PyObject *txn_reset(PyObject *object, PyObject *unused)
{
    (void)unused;
    txn_call call;
    npk_txn *txn = call_begin(&call, object);
    return txn == NULL ? NULL : call_end(&call, npk_txn_reset(txn, &call.err));
}

static PyObject *txn_set_attr(PyObject *object, PyObject *args)
{
    const char *array, *key;
    Py_buffer value;
    if (!PyArg_ParseTuple(args, "zsy*", &array, &key, &value))
        return NULL;
    txn_call call;
    npk_txn *txn = call_begin(&call, object);
    PyObject *result = NULL;
    if (txn != NULL)
        result = call_end(&call, npk_txn_set_attr(txn, array, key, value.buf, (size_t)value.len, &call.err));
    PyBuffer_Release(&value);
    return result;
}

static PyObject *txn_delete_attr(PyObject *object, PyObject *args)
{
    const char *array, *key;
    txn_call call;
    npk_txn *txn;
    if (!PyArg_ParseTuple(args, "zs", &array, &key) || (txn = call_begin(&call, object)) == NULL)
        return NULL;
    return call_end(&call, npk_txn_delete_attr(txn, array, key, &call.err));
}

/* (descr, shape, row size): the shape with the row axis, () for a 0-d array. */
static PyObject *txn_describe(PyObject *object, PyObject *name)
{
    const char *text = PyUnicode_AsUTF8AndSize(name, NULL);
    txn_call call;
    npk_txn *txn;
    if (text == NULL || (txn = call_begin(&call, object)) == NULL)
        return NULL;
    npk_array_spec spec = {0};
    uint64_t row_count = 0;
    npk_status status = npk_txn_describe(txn, text, &spec, &row_count, &call.err);
    core_leave(call.outer);
    PyObject *result = NULL, *shape = NULL; /* busy until the borrowed bytes are copied */
    if (status != NPK_OK)
        raise_core_error(state_of(object), status, &call.err);
    else if ((shape = shape_tuple(spec.zero_dim, row_count, spec.ndim, spec.shape)) != NULL)
        result = Py_BuildValue("(sNK)", spec.descr, shape, (unsigned long long)spec.row_size);
    call.self->busy = 0;
    return result;
}

static PyObject *txn_array_open(PyObject *object, PyObject *name)
{
    txn_object *self = (txn_object *)object;
    if (check_usable(self) < 0)
        return NULL;
    self->busy = 1;
    PyObject *result = source_array_open(state_of(object), &(npk_source){.txn = self->txn}, name);
    self->busy = 0;
    return result;
}

static PyObject *txn_list_arrays(PyObject *object, PyObject *unused)
{
    (void)unused;
    txn_object *self = (txn_object *)object;
    if (check_usable(self) < 0)
        return NULL;
    self->busy = 1;
    PyObject *result = source_list_arrays(state_of(object), &(npk_source){.txn = self->txn});
    self->busy = 0;
    return result;
}

static PyObject *txn_list_attrs(PyObject *object, PyObject *array)
{
    txn_object *self = (txn_object *)object;
    if (check_usable(self) < 0)
        return NULL;
    self->busy = 1;
    PyObject *result = source_list_attrs(state_of(object), &(npk_source){.txn = self->txn}, array);
    self->busy = 0;
    return result;
}

static PyObject *txn_position(PyObject *object, void *closure)
{
    (void)closure;
    txn_object *self = (txn_object *)object;
    return self->committed ? position_tuple(self->position) : Py_NewRef(Py_None);
}

static PyGetSetDef txn_getset[] = {
    {"position", txn_position, NULL, "(epoch, lsn) of its end; None unless committed", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef txn_methods[] = {
    {"commit", txn_commit, METH_O, "commit($self, sync, /)\n--\n\nMake it permanent; (epoch, lsn) of its end."},
    {"abort", txn_abort, METH_NOARGS, "abort($self, /)\n--\n\nForget it. Harmless when finished."},
    {"savepoint", txn_savepoint, METH_NOARGS, "savepoint($self, /)\n--\n\nA number for rollback_to."},
    {"release_savepoint", txn_release_savepoint, METH_O,
     "release_savepoint($self, savepoint, /)\n--\n\nKeep what was done since and forget the savepoint."},
    {"rollback_to", txn_rollback_to, METH_O, "rollback_to($self, savepoint, /)\n--\n\nUndo everything since."},
    {"save", txn_save, METH_VARARGS,
     "save($self, name, descr, row_size, tail, zero_dim, row_count, data, /)\n--\n\nCreate or replace an array whole."},
    {"append", txn_append, METH_VARARGS,
     "append($self, name, row_size, row_count, data, /)\n--\n\nAdd rows behind an array."},
    {"replace", txn_replace, METH_VARARGS,
     "replace($self, name, row_size, rows, data, /)\n--\n\nReplace numbered rows."},
    {"replace_run", txn_replace_run, METH_VARARGS,
     "replace_run($self, name, row_size, first, count, data, /)\n--\n\nReplace contiguous rows."},
    {"drop_rows", txn_drop_rows, METH_VARARGS, "drop_rows($self, name, rows, /)\n--\n\nRemove numbered rows."},
    {"drop_array", txn_drop_array, METH_VARARGS, "drop_array($self, name, /)\n--\n\nRemove an array."},
    {"rename", txn_rename, METH_VARARGS, "rename($self, old, new, /)\n--\n\nGive an array another name."},
    {"clone", txn_clone, METH_VARARGS, "clone($self, source, target, /)\n--\n\nA new array with the same rows."},
    {"reset", txn_reset, METH_NOARGS, "reset($self, /)\n--\n\nRemove every array and attribute."},
    {"set_attr", txn_set_attr, METH_VARARGS, "set_attr($self, array, key, value, /)\n--\n\nSet an attribute to bytes."},
    {"delete_attr", txn_delete_attr, METH_VARARGS, "delete_attr($self, array, key, /)\n--\n\nRemove an attribute."},
    {"describe", txn_describe, METH_O,
     "describe($self, name, /)\n--\n\n(descr, shape, row_size) of an array, without looking for its rows."},
    {"array_open", txn_array_open, METH_O,
     "array_open($self, name, /)\n--\n\nThe array with this transaction's changes."},
    {"list_arrays", txn_list_arrays, METH_NOARGS, "list_arrays($self, /)\n--\n\nNames in byte order."},
    {"list_attrs", txn_list_attrs, METH_O,
     "list_attrs($self, array, /)\n--\n\nDict of key to bytes; None: the store's."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot txn_slots[] = {
    {Py_tp_dealloc, txn_dealloc},
    {Py_tp_methods, txn_methods},
    {Py_tp_getset, txn_getset},
    {Py_tp_doc, "The write transaction of the moment."},
    {0, NULL},
};

static PyType_Spec txn_spec = {
    .name = "numpack._core.Txn",
    .basicsize = sizeof(txn_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = txn_slots,
};

PyTypeObject *txn_type_create(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &txn_spec, NULL);
}
