"""An exception at any point of the transaction code: the block is there whole or not at all, and the lock is free."""

import os
import sys

import numpy as np
import pytest

from numpack import NumPack, _attrs, _batch, _store, _transaction

FILES = {module.__file__ for module in (_transaction, _store, _batch, _attrs)}


class Interrupter:
    """Raises KeyboardInterrupt at the n-th event (a call, line or return) in the package's own files."""

    def __init__(self, number):
        self.left = number
        self.place = None

    def trace(self, frame, event, argument):
        if frame.f_code.co_filename not in FILES or frame.f_code.co_name == "<genexpr>":  # closing one swallows what it raises
            return None
        if event != "exception" and self.place is None:
            self.left -= 1
            if self.left < 0:
                self.place = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno} {event}"
                del argument  # what is being returned must not live on in this frame
                raise KeyboardInterrupt
        return self.trace

    def __enter__(self):
        sys.settrace(self.trace)
        return self

    def __exit__(self, kind, error, traceback):
        sys.settrace(None)


def plain(npk, result):
    with npk.transaction() as txn:
        result.append(txn)
        npk.append({"a": [[7, 7]]})
        npk.save({"b": [1]})
        npk.attrs["x"] = 1


def nested(npk, result):
    with npk.transaction() as txn:
        result.append(txn)
        npk.append({"a": [[7, 7]]})
        with npk.transaction():
            npk.save({"b": [1]})
        npk.attrs["x"] = 1


def batch(npk, result):
    with npk.batch_mode() as txn:
        result.append(txn)
        a = npk.load("a")
        npk.save({"a": np.concatenate([a, [[7, 7]]]), "b": np.array([1])})
        npk.attrs["x"] = 1


def writable_batch(npk, result):
    with npk.writable_batch_mode() as txn:
        result.append(txn)
        txn.load("a")[0] = 5
        npk.append({"a": [[7, 7]]})
        npk.save({"b": [1]})
        npk.attrs["x"] = 1


BLOCKS = [plain, nested, batch, writable_batch]


def state(npk):
    return {name: npk.load(name).tolist() for name in npk}, dict(npk.attrs)


@pytest.mark.skipif(sys.gettrace() is not None, reason="something else traces")
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_at_every_point_of_a_block(path, block):
    with NumPack(path, sync="never", background=False, busy_timeout=0.05) as npk, \
            NumPack(path, sync="never", background=False, busy_timeout=0.05) as other:
        npk.save({"a": np.zeros((3, 2), int)})
        before = state(npk)
        block(npk, [])
        after = state(npk)
        assert after != before
        number = 0
        while True:
            npk.reset()
            npk.save({"a": np.zeros((3, 2), int)})
            result = []
            interrupter = Interrupter(number)
            interrupted = False
            try:
                with interrupter:
                    block(npk, result)
            except KeyboardInterrupt as error:  # kept, with its frames: nothing may hang on their going away
                interrupted = True
                kept = error
                check(npk, other, result, before, after, interrupter.place)
                del kept
            if not interrupted:
                assert interrupter.place is None and state(npk) == after
                break
            number += 1
        assert number > 100


def check(npk, other, result, before, after, place):
    seen = state(other)
    assert seen in (before, after) and state(npk) == seen, place
    if result:
        assert (result[0].lsn is not None) == (seen == after), place
    else:
        assert seen == before, place
    other.attrs["probe"] = 1  # the lock is free
    npk.attrs["probe"] = 2
    with npk.transaction() as txn:
        pass
    assert txn.lsn is not None and npk._open == [] and _transaction._open_by_thread == {}, place


@pytest.mark.parametrize("call", [
    lambda npk: npk.append({"a": [[1, 1]], "b": [1]}), lambda npk: npk.save({"a": [1], "b": [1]}), lambda npk: npk.drop(["a", "b"], 0),
    lambda npk: npk.attrs.update(x=1, y=2), lambda npk: npk.rename("a", "c"), lambda npk: npk.reset(),
], ids=["append", "save", "drop", "attrs", "rename", "reset"])
@pytest.mark.parametrize("inside", [False, True])
def test_at_every_point_of_a_call(path, call, inside):
    """Inside a block the call undoes itself, and the block goes on."""
    with NumPack(path, sync="never", background=False, busy_timeout=0.05) as npk, \
            NumPack(path, sync="never", background=False, busy_timeout=0.05) as other:
        number = 0
        while True:
            npk.reset()
            npk.save({"a": np.zeros((3, 2), int), "b": [5]})
            before = state(npk)
            interrupter = Interrupter(number)
            try:
                if inside:
                    with npk.transaction():
                        npk.attrs["first"] = 1
                        with interrupter:
                            call(npk)
                else:
                    with interrupter:
                        call(npk)
            except KeyboardInterrupt as error:
                kept = error
                seen = state(other)
                assert seen == state(npk), interrupter.place
                if inside:
                    assert seen == before, interrupter.place
                other.attrs["probe"] = 1
                npk.attrs["probe"] = 2
                del kept
            else:
                break
            number += 1
        after = state(npk)
        assert after != before and number > 5


def test_an_interrupt_caught_inside_a_block_undoes_its_call_only(path):
    def call(npk):
        npk.append({"a": [[1, 1]], "b": [1]})

    with NumPack(path, sync="never", background=False, busy_timeout=0.05) as npk:
        number = 0
        while True:
            npk.reset()
            npk.save({"a": np.zeros((3, 2), int), "b": [5]})
            interrupter = Interrupter(number)
            with npk.transaction():
                npk.attrs["first"] = 1
                try:
                    with interrupter:
                        call(npk)
                except KeyboardInterrupt:
                    pass
                npk.attrs["last"] = 1
            shapes = npk.get_shape()
            assert dict(npk.attrs) == {"first": 1, "last": 1}
            assert shapes in ({"a": (3, 2), "b": (1,)}, {"a": (4, 2), "b": (2,)}), interrupter.place
            if interrupter.place is None:
                break
            number += 1
        assert shapes == {"a": (4, 2), "b": (2,)}


def test_an_interrupt_caught_around_an_inner_block_undoes_the_inner_only(path):
    with NumPack(path, sync="never", background=False, busy_timeout=0.05) as npk:
        number = 0
        while True:
            npk.reset()
            npk.save({"a": [0]})
            interrupter = Interrupter(number)
            with npk.transaction():
                npk.append({"a": [1]})
                try:
                    with interrupter:
                        with npk.transaction():
                            npk.append({"a": [2]})
                            npk.append({"a": [3]})
                except KeyboardInterrupt:
                    pass
                npk.append({"a": [4]})
            seen = npk.load("a").tolist()
            assert seen in ([0, 1, 4], [0, 1, 2, 3, 4]), interrupter.place
            if interrupter.place is None:
                break
            number += 1
        assert seen == [0, 1, 2, 3, 4] and number > 30
