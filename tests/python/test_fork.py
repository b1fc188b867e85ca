"""Fork: the child reads through handles that reopen by themselves, and cannot use the parent's transaction."""

import os
import pickle
import sys
import traceback

import numpy as np
import pytest

from numpack import NumPack


def in_child(function):
    """Run the function in a forked child; its failure is the test's."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            result = pickle.dumps(function())
            os.write(writer, result)
            status = 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    os.close(writer)
    data = b""
    while True:
        piece = os.read(reader, 65536)
        if not piece:
            break
        data += piece
    os.close(reader)
    _, status = os.waitpid(pid, 0)
    assert status == 0
    return pickle.loads(data)


pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def test_a_child_reads_and_cannot_write(npk):
    npk.save({"a": [1, 2]})
    lazy, view = npk.load("a", lazy=True), npk.load("a", mmap_mode=True)

    def child():
        seen = [npk.load("a").tolist(), lazy[:].tolist(), view.tolist(), npk.get_member_list()]
        for call in (lambda: npk.save({"b": [1]}), lambda: npk.transaction().__enter__(), npk.compact):
            try:
                call()
            except RuntimeError as error:
                seen.append((error.kind, "fork" in str(error)))
        return seen

    assert in_child(child) == [[1, 2], [1, 2], [1, 2], ["a"]] + [("wrong_use", True)] * 3
    npk.append({"a": [3]})
    assert npk.load("a").tolist() == [1, 2, 3]


def test_a_child_can_open_anew_and_write(npk, path):
    npk.save({"a": [1]})

    def child():
        npk.close()
        npk.open()
        npk.append({"a": [2]})
        npk.close()
        with NumPack(path) as own:
            own.append({"a": [3]})
        return True

    assert in_child(child)
    assert npk.load("a").tolist() == [1, 2, 3]


def test_an_inherited_transaction_is_an_error_in_the_child(npk):
    npk.save({"a": [1]})
    with npk.transaction() as txn:
        npk.append({"a": [2]})

        def child():
            seen = []
            for call in (lambda: txn.append({"a": [3]}), lambda: txn.load("a"), txn.rollback,
                         lambda: txn.__exit__(None, None, None)):
                try:
                    call()
                except RuntimeError as error:
                    seen.append("fork" in str(error))
            seen.append(npk.load("a").tolist())
            return seen

        seen = in_child(child)
        assert seen == [True, True, True, True, [1]]
        npk.append({"a": [4]})
    assert npk.load("a").tolist() == [1, 2, 4] and txn.lsn == npk.lsn


def test_children_see_later_commits_of_the_parent(npk):
    npk.save({"a": np.arange(3)})
    reader, writer = os.pipe()
    ready_reader, ready_writer = os.pipe()

    def child():
        assert npk.load("a").tolist() == [0, 1, 2]
        os.write(ready_writer, b"x")
        os.read(reader, 1)
        return npk.load("a").tolist()

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if child() == [0, 1, 2, 3] else 2
        finally:
            os._exit(status)
    os.close(ready_writer)
    assert os.read(ready_reader, 1) == b"x"
    npk.append({"a": [3]})
    os.write(writer, b"x")
    assert os.waitpid(pid, 0)[1] == 0
    for number in (reader, writer, ready_reader):
        os.close(number)
