"""A Hypothesis state machine: the store against a dict of ndarrays, everything compared after each rule.

NUMPACK_EXAMPLES sets the number of histories.
"""

import copy
import os
import shutil
import tempfile

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from numpack import NumPack

NAMES = st.sampled_from(["a", "b", "\u00e4/c"])
DTYPES = st.sampled_from(["<f4", "<i8", "?", "S3", ">i2", "<M8[s]"])
TAILS = st.sampled_from([(), (3,), (2, 2)])
SEEDS = st.integers(0, 2 ** 16)


def make(dtype, shape, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 100, shape).astype("i8").astype(dtype)


class StoreMachine(RuleBasedStateMachine):
    """State of the model: arrays, attributes of the store and of arrays; a stack of copies for open blocks."""

    def __init__(self):
        super().__init__()
        self.directory = tempfile.mkdtemp(prefix="numpack-")
        self.path = self.directory + "/store"
        self.arrays, self.attrs, self.array_attrs = {}, {}, {}
        self.blocks = []  # (transaction, copy of the state at its beginning)
        self.views = []   # (ndarray or lazy array, what it must hold)

    @initialize(small=st.booleans(), bulk=st.booleans())
    def open(self, small, bulk):
        self.options = {"sync": "never", "background": False}
        if small:
            self.options.update(segment_size=65536, checkpoint_log_size=65536, pending_limit=65536)
        if bulk:
            self.options.update(bulk_size=256)
        self.npk = NumPack(self.path, **self.options)
        self.npk.open()

    def teardown(self):
        try:
            while self.blocks:
                self.blocks.pop()[0].__exit__(ValueError, ValueError(), None)
            self.npk.close()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    # ---- changes ---------------------------------------------------------------------------------------------

    @rule(name=NAMES, dtype=DTYPES, tail=TAILS, count=st.integers(0, 200), seed=SEEDS)
    def save(self, name, dtype, tail, count, seed):
        array = make(dtype, (count,) + tail, seed)
        self.npk.save({name: array})
        self.arrays[name] = array
        self.array_attrs.setdefault(name, {})

    @rule(name=NAMES, count=st.integers(0, 60), seed=SEEDS)
    def append(self, name, count, seed):
        old = self.arrays.get(name, np.empty((0, 3), "f4"))
        rows = make(old.dtype, (count,) + old.shape[1:], seed)
        self.npk.append({name: rows})
        self.arrays[name] = np.concatenate([old, rows]).astype(old.dtype)  # keeps the byte order
        self.array_attrs.setdefault(name, {})

    @precondition(lambda self: self.arrays)
    @rule(data=st.data(), seed=SEEDS)
    def replace_scattered(self, data, seed):
        name = data.draw(st.sampled_from(sorted(self.arrays)))
        old = self.arrays[name]
        if not len(old):
            return
        rows = data.draw(st.lists(st.integers(-len(old), len(old) - 1), max_size=40))
        values = make(old.dtype, (len(rows),) + old.shape[1:], seed)
        self.npk.replace({name: values}, rows)
        new = old.copy()
        for row, value in zip(rows, values):
            new[row] = value
        self.arrays[name] = new

    @precondition(lambda self: self.arrays)
    @rule(data=st.data(), seed=SEEDS)
    def replace_run(self, data, seed):
        name = data.draw(st.sampled_from(sorted(self.arrays)))
        old = self.arrays[name]
        run = data.draw(st.slices(len(old)))
        count = len(range(*run.indices(len(old))))
        values = make(old.dtype, (count,) + old.shape[1:], seed)
        self.npk.replace({name: values}, run)
        new = old.copy()
        new[run] = values
        self.arrays[name] = new

    @precondition(lambda self: self.arrays)
    @rule(data=st.data())
    def drop_rows(self, data):
        name = data.draw(st.sampled_from(sorted(self.arrays)))
        old = self.arrays[name]
        rows = data.draw(st.slices(len(old)) | st.lists(st.integers(0, max(0, len(old) - 1)), max_size=30))
        self.npk.drop(name, rows)
        gone = np.zeros(len(old), bool)
        gone[rows if isinstance(rows, slice) else [row for row in rows if row < len(old)]] = True
        self.arrays[name] = old[~gone]

    @rule(name=NAMES)
    def drop_array(self, name):
        self.npk.drop(name)
        self.arrays.pop(name, None)
        self.array_attrs.pop(name, None)

    @rule(source=NAMES, goal=NAMES)
    def clone(self, source, goal):
        if source in self.arrays and goal not in self.arrays:
            self.npk.clone(source, goal)
            self.arrays[goal] = self.arrays[source]
            self.array_attrs[goal] = dict(self.npk.array_attrs(goal))

    @rule(source=NAMES, goal=NAMES)
    def rename(self, source, goal):
        if source in self.arrays and goal not in self.arrays:
            self.npk.rename(source, goal)
            self.arrays[goal] = self.arrays.pop(source)
            self.array_attrs[goal] = self.array_attrs.pop(source)

    @rule(key=st.sampled_from(["x", "y"]), value=st.integers(-5, 5) | st.text(max_size=5) | st.lists(st.booleans()))
    def set_attr(self, key, value):
        self.npk.attrs[key] = value
        self.attrs[key] = value

    @rule(key=st.sampled_from(["x", "y"]))
    def delete_attr(self, key):
        self.npk.attrs.pop(key, None)
        self.attrs.pop(key, None)

    @precondition(lambda self: self.arrays)
    @rule(data=st.data(), value=st.integers(0, 9))
    def set_array_attr(self, data, value):
        name = data.draw(st.sampled_from(sorted(self.arrays)))
        self.npk.array_attrs(name)["k"] = value
        self.array_attrs[name]["k"] = value

    @rule()
    def fail(self):
        """A call that fails changes nothing, in a block or outside."""
        try:
            self.npk.append({"a": [object()], "b": [1]})
        except TypeError:
            pass

    # ---- transactions ----------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.blocks) < 3)
    @rule()
    def begin(self):
        txn = self.npk.transaction()
        txn.__enter__()
        self.blocks.append((txn, copy.deepcopy((self.arrays, self.attrs, self.array_attrs))))

    @precondition(lambda self: self.blocks)
    @rule()
    def commit(self):
        self.blocks.pop()[0].__exit__(None, None, None)

    @precondition(lambda self: self.blocks)
    @rule()
    def roll_back(self):
        txn, state = self.blocks.pop()
        txn.__exit__(ValueError, ValueError(), None)
        self.arrays, self.attrs, self.array_attrs = state

    # ---- upkeep ----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.arrays)
    @rule(data=st.data())
    def fold(self, data):
        self.npk.update(data.draw(st.sampled_from(sorted(self.arrays))))

    @rule()
    def compact(self):
        self.npk.compact()

    @rule()
    def checkpoint(self):
        self.npk.checkpoint()

    @precondition(lambda self: not self.blocks)
    @rule()
    def verify(self):
        assert self.npk.verify() == []

    @precondition(lambda self: not self.blocks)
    @rule(lose_index=st.booleans())
    def reopen(self, lose_index):
        self.npk.close()
        if lose_index:
            shutil.rmtree(self.path + "/index", ignore_errors=True)
        self.npk = NumPack(self.path, **self.options)
        self.npk.open()

    @precondition(lambda self: self.arrays and len(self.views) < 6)
    @rule(data=st.data(), lazy=st.booleans())
    def keep_a_view(self, data, lazy):
        name = data.draw(st.sampled_from(sorted(self.arrays)))
        view = self.npk.load(name, lazy=True) if lazy else self.npk.load(name, mmap_mode="r")
        self.views.append((view, self.arrays[name].copy()))

    # ---- what must hold --------------------------------------------------------------------------------------

    @invariant()
    def same_as_the_model(self):
        npk = self.npk
        assert npk.get_member_list() == sorted(self.arrays)
        assert npk.get_shape() == {name: array.shape for name, array in self.arrays.items()}
        for name, array in self.arrays.items():
            loaded = npk.load(name)
            assert loaded.dtype == array.dtype and np.array_equal(loaded, array), name
            assert np.array_equal(npk.load(name, mmap_mode="r"), array), name
            if len(array):
                rows = [len(array) - 1, 0, len(array) // 2]
                assert np.array_equal(npk.getitem(name, rows), array[rows])
                assert np.array_equal(npk.getitem(name, slice(1, -1)), array[1:-1])
            assert dict(npk.array_attrs(name)) == self.array_attrs[name]
        assert dict(npk.attrs) == self.attrs
        for view, expected in self.views:
            assert np.array_equal(view, expected)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=int(os.environ.get("NUMPACK_EXAMPLES", "120")), stateful_step_count=40, deadline=None,
                              suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
