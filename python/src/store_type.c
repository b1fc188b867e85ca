/* store_type.c - an open store. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "module.h"

typedef struct store_object {
    PyObject ob_base; /* what PyObject_HEAD says */
    npk_store *store; /* NULL once closed */
    int users;        /* calls inside the core now; guarded by the GIL */
    int closing;      /* a close waits for them: no new ones */
} store_object;

PyObject *store_open(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"path",
                            "mode",
                            "sync",
                            "sync_interval_ms",
                            "busy_timeout_ms",
                            "segment_size",
                            "checkpoint_log_size",
                            "pending_limit",
                            "bulk_size",
                            "no_background",
                            "network",
                            "program",
                            NULL};
    module_state *state = PyModule_GetState(module);
    PyObject *path_bytes = NULL;
    int mode = NPK_MODE_CREATE, sync = NPK_SYNC_COMMIT, no_background = 0, network = 0;
    unsigned int sync_interval_ms = 0, busy_timeout_ms = 0;
    unsigned long long segment_size = 0, checkpoint_log_size = 0, pending_limit = 0, bulk_size = 0;
    const char *program = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&|iiIIKKKKppz", names, PyUnicode_FSConverter, &path_bytes, &mode,
                                     &sync, &sync_interval_ms, &busy_timeout_ms, &segment_size, &checkpoint_log_size,
                                     &pending_limit, &bulk_size, &no_background, &network, &program))
        return NULL;
    npk_options options = {
        .struct_size = sizeof options,
        .mode = (npk_mode)mode,
        .sync = (npk_sync)sync,
        .sync_interval_ms = sync_interval_ms,
        .busy_timeout_ms = busy_timeout_ms,
        .segment_size = segment_size,
        .checkpoint_log_size = checkpoint_log_size,
        .pending_limit = pending_limit,
        .bulk_size = bulk_size,
        .no_background = no_background,
        .network = network,
        .program = program,
        .interrupt = core_interrupt,
    };
    store_object *self = NULL;
    npk_store *store = NULL;
    npk_error err = {.row = -1};
    const char *path = PyBytes_AsString(path_bytes);
    PyThreadState *outer = core_enter();
    npk_status status = npk_store_open(path, &options, &store, &err);
    core_leave(outer);
    if (status != NPK_OK) {
        raise_core_error(state, status, &err);
        goto done;
    }
    self = PyErr_Occurred() ? NULL : PyObject_New(store_object, state->store_type);
    if (self == NULL) {
        outer = core_enter();
        npk_store_close(store, NULL);
        core_leave(outer);
        goto done;
    }
    self->store = store;
    self->users = 0;
    self->closing = 0;
done:
    Py_DECREF(path_bytes);
    return (PyObject *)self;
}

static void store_dealloc(PyObject *object)
{
    store_object *self = (store_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->store != NULL) {
        PyThreadState *outer = core_enter();
        npk_store_close(self->store, NULL);
        core_leave(outer);
    }
    PyObject_Free(object);
    Py_DECREF(type);
}

/* A call into the store. While users > 0 the handle is not closed under it. */
typedef struct store_call {
    store_object *self;
    PyThreadState *outer;
    npk_error err;
} store_call;

static npk_store *call_begin(store_call *call, PyObject *object)
{
    call->self = (store_object *)object;
    call->err = (npk_error){.row = -1};
    if (call->self->store == NULL || call->self->closing) {
        raise_status(state_of(object), NPK_MISUSE, "the store has been closed");
        return NULL;
    }
    call->self->users++;
    call->outer = core_enter();
    return call->self->store;
}

/* 0, or -1 with an exception set. */
static int call_end(store_call *call, npk_status status)
{
    core_leave(call->outer);
    call->self->users--;
    PyObject *done = finish_none(state_of((PyObject *)call->self), status, &call->err);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *none_if_done(int result)
{
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *store_close(PyObject *object, PyObject *unused)
{
    (void)unused;
    store_object *self = (store_object *)object;
    if (self->store == NULL || self->closing)
        Py_RETURN_NONE;
    /* Calls of other threads are let out first, for a bounded time. */
    self->closing = 1;
    for (int waited_ms = 0; self->users > 0; waited_ms++) {
        if (waited_ms == 10000) {
            self->closing = 0;
            return raise_status(state_of(object), NPK_MISUSE,
                                "cannot close the store: another thread is inside a call");
        }
        PyThreadState *outer = core_enter();
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        core_leave(outer);
        if (PyErr_CheckSignals() < 0) {
            self->closing = 0;
            return NULL;
        }
    }
    npk_store *store = self->store;
    self->store = NULL;
    npk_error err = {.row = -1};
    PyThreadState *outer = core_enter();
    npk_status status = npk_store_close(store, &err);
    core_leave(outer);
    self->closing = 0;
    if (status == NPK_MISUSE)
        self->store = store; /* a transaction is open: the handle was kept */
    return finish_none(state_of(object), status, &err);
}

static PyObject *store_position(PyObject *object, PyObject *unused)
{
    (void)unused;
    store_call call;
    npk_store *store = call_begin(&call, object);
    if (store == NULL)
        return NULL;
    npk_position position = {0};
    return call_end(&call, npk_store_position(store, &position, &call.err)) < 0 ? NULL : position_tuple(position);
}

static PyObject *store_flush(PyObject *object, PyObject *unused)
{
    (void)unused;
    store_call call;
    npk_store *store = call_begin(&call, object);
    return store == NULL ? NULL : none_if_done(call_end(&call, npk_store_flush(store, &call.err)));
}

static PyObject *store_checkpoint(PyObject *object, PyObject *unused)
{
    (void)unused;
    store_call call;
    npk_store *store = call_begin(&call, object);
    return store == NULL ? NULL : none_if_done(call_end(&call, npk_store_checkpoint(store, &call.err)));
}

static PyObject *store_compact(PyObject *object, PyObject *args)
{
    const char *name;
    store_call call;
    npk_store *store;
    if (!PyArg_ParseTuple(args, "z", &name) || (store = call_begin(&call, object)) == NULL)
        return NULL;
    return none_if_done(call_end(&call, npk_store_compact(store, name, &call.err)));
}

/* One number of npk_stats per name, found by its offset. */
/* clang-format off */
#define STAT(member) {#member, offsetof(npk_stats, member)}
/* clang-format on */
static const struct {
    const char *name;
    size_t offset;
} stats_numbers[] = {
    STAT(durable_lsn),
    STAT(checkpoint_lsn),
    STAT(log_size),
    STAT(log_segment_count),
    STAT(log_file_size),
    STAT(pending_size),
    STAT(pending_row_count),
    STAT(column_file_count),
    STAT(column_file_size),
    STAT(dead_file_count),
    STAT(array_count),
    STAT(pin_lsn),
    STAT(commits),
    STAT(syncs),
    STAT(bytes_logged),
    STAT(bytes_folded),
    STAT(folds),
    STAT(checkpoints),
    STAT(reclaims),
    STAT(segment_rolls),
    STAT(recoveries),
    STAT(last_fold_us),
    STAT(last_checkpoint_us),
};

/* Puts value, whose reference it takes, into dict. */
static int put(PyObject *dict, const char *key, PyObject *value)
{
    int result = value == NULL ? -1 : PyDict_SetItemString(dict, key, value);
    Py_XDECREF(value);
    return result;
}

static PyObject *text_object(const char *text, size_t capacity)
{
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strnlen(text, capacity), "replace");
}

static PyObject *store_stats(PyObject *object, PyObject *unused)
{
    (void)unused;
    store_call call;
    npk_store *store = call_begin(&call, object);
    if (store == NULL)
        return NULL;
    npk_stats stats = {.struct_size = sizeof stats};
    if (call_end(&call, npk_store_stats(store, &stats, &call.err)) < 0)
        return NULL;
    PyObject *dict = PyDict_New();
    if (dict == NULL)
        return NULL;
    int failed = put(dict, "position", position_tuple(stats.position));
    for (size_t i = 0; failed == 0 && i < sizeof stats_numbers / sizeof stats_numbers[0]; i++) {
        uint64_t value;
        memcpy(&value, (const char *)&stats + stats_numbers[i].offset, sizeof value);
        failed = put(dict, stats_numbers[i].name, PyLong_FromUnsignedLongLong(value));
    }
    if (failed == 0)
        failed = put(dict, "worker_reason", text_object(stats.worker_reason, sizeof stats.worker_reason));
    if (failed != 0)
        Py_CLEAR(dict);
    return dict;
}

/* Findings gathered without the GIL. */
typedef struct findings {
    npk_finding *items;
    size_t count, capacity;
    int failed;
    PyObject *progress; /* borrowed; NULL: none */
} findings;

static void report_finding(void *context, const npk_finding *finding)
{
    findings *all = context;
    if (all->failed)
        return;
    if (all->count == all->capacity) {
        size_t capacity = all->capacity ? all->capacity * 2 : 16;
        npk_finding *grown = realloc(all->items, capacity * sizeof *grown);
        if (grown == NULL) {
            all->failed = 1;
            return;
        }
        all->items = grown;
        all->capacity = capacity;
    }
    all->items[all->count++] = *finding;
}

static int verify_progress(void *context, uint64_t done_size, uint64_t total_size)
{
    findings *all = context;
    return all->progress ? core_progress(all->progress, done_size, total_size) : core_interrupt(NULL);
}

static PyObject *finding_dict(const npk_finding *finding)
{
    return Py_BuildValue("{s:N,s:K,s:K,s:N,s:L,s:L,s:N}", "file", text_object(finding->file, sizeof finding->file),
                         "offset", (unsigned long long)finding->offset, "size", (unsigned long long)finding->size,
                         "array", text_object(finding->array, sizeof finding->array), "first_row",
                         (long long)finding->first_row, "row_count", (long long)finding->row_count, "reason",
                         text_object(finding->reason, sizeof finding->reason));
}

/* (findings, message): message is None when the store is clean. */
static PyObject *store_verify(PyObject *object, PyObject *progress)
{
    store_call call;
    npk_store *store = call_begin(&call, object);
    if (store == NULL)
        return NULL;
    findings all = {.progress = progress == Py_None ? NULL : progress};
    PyObject *list = NULL;
    npk_status status = npk_store_verify(store, report_finding, verify_progress, &all, &call.err);
    int corrupt = status == NPK_CORRUPT && all.count > 0;
    if (call_end(&call, corrupt ? NPK_OK : status) < 0)
        goto done;
    if (all.failed) {
        PyErr_NoMemory();
        goto done;
    }
    list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < all.count; i++) {
        PyObject *item = finding_dict(&all.items[i]);
        if (item == NULL || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
done:
    free(all.items);
    if (list == NULL)
        return NULL;
    if (corrupt)
        return Py_BuildValue("(NN)", list, text_object(call.err.message, sizeof call.err.message));
    return Py_BuildValue("(NO)", list, Py_None);
}

static PyObject *store_begin(PyObject *object, PyObject *timeout)
{
    unsigned long long timeout_ms = PyLong_AsUnsignedLongLong(timeout);
    if (PyErr_Occurred())
        return NULL;
    store_call call;
    npk_store *store = call_begin(&call, object);
    if (store == NULL)
        return NULL;
    npk_txn *txn = NULL;
    npk_status status =
        npk_txn_begin(store, timeout_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)timeout_ms, &txn, &call.err);
    if (call_end(&call, status) < 0) {
        if (status == NPK_OK)
            npk_txn_abort(txn); /* a signal handler raised just after the lock was had */
        return NULL;
    }
    return txn_object_new(state_of(object), object, txn);
}

static PyObject *store_snapshot(PyObject *object, PyObject *unused)
{
    (void)unused;
    store_call call;
    npk_store *store = call_begin(&call, object);
    if (store == NULL)
        return NULL;
    npk_snapshot *snapshot = NULL;
    npk_status status = npk_snapshot_take(store, &snapshot, &call.err);
    if (call_end(&call, status) < 0) {
        if (status == NPK_OK)
            npk_snapshot_release(snapshot);
        return NULL;
    }
    return snapshot_object_new(state_of(object), snapshot);
}

/* The source of reads; the caller lowers users afterwards. */
static int begin_use(PyObject *object, npk_source *source)
{
    store_object *self = (store_object *)object;
    if (self->store == NULL || self->closing) {
        raise_status(state_of(object), NPK_MISUSE, "the store has been closed");
        return -1;
    }
    self->users++;
    *source = (npk_source){.store = self->store};
    return 0;
}

static PyObject *store_array_open(PyObject *object, PyObject *name)
{
    npk_source source;
    if (begin_use(object, &source) < 0)
        return NULL;
    PyObject *result = source_array_open(state_of(object), &source, name);
    ((store_object *)object)->users--;
    return result;
}

static PyObject *store_list_arrays(PyObject *object, PyObject *unused)
{
    (void)unused;
    npk_source source;
    if (begin_use(object, &source) < 0)
        return NULL;
    PyObject *result = source_list_arrays(state_of(object), &source);
    ((store_object *)object)->users--;
    return result;
}

static PyObject *store_list_attrs(PyObject *object, PyObject *array)
{
    npk_source source;
    if (begin_use(object, &source) < 0)
        return NULL;
    PyObject *result = source_list_attrs(state_of(object), &source, array);
    ((store_object *)object)->users--;
    return result;
}

static PyObject *store_is_forked(PyObject *object, void *closure)
{
    (void)closure;
    npk_store *store = ((store_object *)object)->store;
    return PyBool_FromLong(store != NULL && npk_store_is_forked(store));
}

static PyGetSetDef store_getset[] = {
    {"is_forked", store_is_forked, NULL, "whether this process is a child of the one that opened the store", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef store_methods[] = {
    {"close", store_close, METH_NOARGS, "close($self, /)\n--\n\nGive the handle back."},
    {"position", store_position, METH_NOARGS, "position($self, /)\n--\n\n(epoch, lsn) of the newest commit."},
    {"flush", store_flush, METH_NOARGS, "flush($self, /)\n--\n\nMake every commit durable now."},
    {"checkpoint", store_checkpoint, METH_NOARGS, "checkpoint($self, /)\n--\n\nWrite a checkpoint now."},
    {"compact", store_compact, METH_VARARGS, "compact($self, name, /)\n--\n\nFold one array, or all (None)."},
    {"stats", store_stats, METH_NOARGS, "stats($self, /)\n--\n\nDict of gauges and counters."},
    {"verify", store_verify, METH_O, "verify($self, progress, /)\n--\n\nList of findings and a message or None."},
    {"begin", store_begin, METH_O, "begin($self, timeout_ms, /)\n--\n\nTake the writer lock and begin a transaction."},
    {"snapshot", store_snapshot, METH_NOARGS, "snapshot($self, /)\n--\n\nThe newest committed state, pinned."},
    {"array_open", store_array_open, METH_O, "array_open($self, name, /)\n--\n\nThe array as of the newest commit."},
    {"list_arrays", store_list_arrays, METH_NOARGS, "list_arrays($self, /)\n--\n\nNames in byte order."},
    {"list_attrs", store_list_attrs, METH_O,
     "list_attrs($self, array, /)\n--\n\nDict of key to bytes; None: the store's."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot store_slots[] = {
    {Py_tp_dealloc, store_dealloc},
    {Py_tp_methods, store_methods},
    {Py_tp_getset, store_getset},
    {Py_tp_doc, "An open store."},
    {0, NULL},
};

static PyType_Spec store_spec = {
    .name = "numpack._core.Store",
    .basicsize = sizeof(store_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = store_slots,
};

PyTypeObject *store_type_create(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &store_spec, NULL);
}
