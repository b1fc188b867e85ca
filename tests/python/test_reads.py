"""Rows that still lie in the log: gathers, views and writable batches over them, against a plain ndarray."""

import gc
import os
import shutil
import weakref

import numpy as np
import pytest

import numpack
from numpack import _batch

ROWS = 20_000  # of 40 bytes: 196 pages


@pytest.fixture
def quiet(path):
    """A store whose rows stay in the log."""
    store = numpack.NumPack(path, sync="never", background=False)
    store.open()
    yield store
    store.close()


def fill(npk, rng, count, packs=False, drop=0):
    """An array "a" of compacted rows, some of them dropped, `count` of them replaced since; its ndarray."""
    a = rng.random((ROWS, 10), dtype=np.float32)
    npk.save({"a": a})
    npk.compact()
    if drop:
        gone = rng.permutation(ROWS)[:drop]
        npk.drop("a", gone)
        a = np.delete(a, gone, 0)
    for part in np.array_split(rng.permutation(len(a))[:count], 3):
        rows = rng.random((len(part), 10), dtype=np.float32)
        if packs:
            rows[:, 1:] = 0
        npk.replace({"a": rows}, part)
        a[part] = rows
    return a


@pytest.mark.parametrize("count, packs, drop", [(0, False, 0), (12, False, 0), (12, True, 0), (2000, False, 0), (2000, True, 0),
                                               (2000, False, 30), (2000, True, 500)])
def test_gathers_of_pending_rows(quiet, rng, count, packs, drop):
    a = fill(quiet, rng, count, packs, drop)
    for wanted in (1, 100, 5000):
        rows = rng.integers(-len(a), len(a), wanted)
        for given in (rows, rows.astype(np.int16), rows[::2], list(rows), np.frombuffer(b"x" + rows.tobytes(), np.int64, offset=1)):
            got = quiet.getitem("a", given)
            assert np.array_equal(got, a[given]) and got.flags.owndata and got.flags.writeable
    assert np.array_equal(quiet.load("a"), a)
    for first, stop in ((0, 5), (100, 9000), (19_000, len(a))):
        assert np.array_equal(quiet.getitem("a", slice(first, stop)), a[first:stop])
    before = rows.copy()
    quiet.getitem("a", rows)
    assert np.array_equal(rows, before)  # negative ones stay the caller's


@pytest.mark.parametrize("row", [ROWS, -ROWS - 1, 2 ** 62, -2 ** 63])
def test_a_row_outside_is_named(quiet, rng, row):
    fill(quiet, rng, 12)
    with pytest.raises(numpack.OutOfRangeError, match=f"row {row} "):
        quiet.getitem("a", np.array([3, row, 4]))


@pytest.mark.parametrize("count", [0, 12, 2000])
def test_views_keep_their_bytes(path, rng, count):
    npk = numpack.NumPack(path, sync="never", background=False)
    with npk:
        a = fill(npk, rng, count)
        lazy = npk.load("a", lazy=True)
        late = npk.load("a", lazy=True)
        views = [np.asarray(lazy), npk.load("a", mmap_mode="r"), npk.load("a", mmap_mode="c"), np.asarray(lazy)[50:60]]
        views[2][7] = 5
        npk.replace({"a": np.zeros((100, 10), np.float32)}, np.arange(0, ROWS, 200))
        npk.append({"a": a[:10]})
        npk.compact()
        npk.checkpoint()
        npk.replace({"a": np.zeros((1, 10), np.float32)}, [3])
        npk.compact()
        npk.checkpoint()
        npk.drop("a")
        npk.save({"a": np.ones((5, 10), np.float32)})
        npk.compact()
        npk.checkpoint()
    shutil.rmtree(path)
    gc.collect()
    for view in views[0], views[1], np.asarray(late):
        assert np.array_equal(view, a) and not view.flags.writeable
    assert np.array_equal(views[3], a[50:60]) and np.array_equal(np.delete(views[2], 7, 0), np.delete(a, 7, 0))
    if count < 100:  # patched into the map: in one piece
        assert np.shares_memory(lazy.__array__(copy=False), views[0]) and np.array_equal(memoryview(late), a)
    else:
        with pytest.raises(BufferError):
            memoryview(late)


def no_pagemap(monkeypatch, kind):
    """What the system says of a batch's pages."""
    real = os.pread

    def pread(file, size, offset):
        data = real(file, size, offset)
        if kind == "refused":
            raise PermissionError("pagemap")
        if kind == "short":
            return data[:-8]
        entries = np.frombuffer(data, np.uint64).copy()
        private = ((entries >> np.uint64(61)) & np.uint64(5)) == 4
        entries[private] = 1 << 62  # swapped out
        return entries.tobytes()

    if kind == "no file":
        monkeypatch.setattr(_batch, "open", lambda *given, **named: real_open("/nonexistent"), raising=False)
    elif kind != "works":
        monkeypatch.setattr(_batch.os, "pread", pread)


def real_open(name):
    return open(name, "rb")


@pytest.mark.parametrize("kind", ["works", "swapped", "short", "refused", "no file"])
@pytest.mark.parametrize("count, packs", [(0, False), (12, False), (12, True), (3000, False)])
def test_writable_batches_commit_exactly_the_changed_rows(quiet, rng, monkeypatch, kind, count, packs):
    a = fill(quiet, rng, count, packs)
    no_pagemap(monkeypatch, kind)
    asked = []
    if kind in ("works", "swapped"):
        real = _batch._suspect_runs

        def suspects(*given):
            asked.append(real(*given))
            return asked[-1]
        monkeypatch.setattr(_batch, "_suspect_runs", suspects)
    for changed in ([0], [ROWS - 1], [101, 102, 103], sorted(rng.permutation(ROWS)[:100].tolist())):
        logged = []
        with quiet.writable_batch_mode() as batch:
            w = batch.load("a")
            assert np.array_equal(w, a)
            w[changed] += 1
            w[5] = w[5]  # written, not changed
            a[changed] += 1
            core = batch._root._core

            class Core:
                def replace(self, name, row_size, rows, values):
                    logged.extend(rows.tolist())
                    return core.replace(name, row_size, rows, values)
            inner = batch._before_commit
            batch._before_commit = lambda core: inner(Core())
        assert logged == changed and np.array_equal(w, a)
        assert np.array_equal(quiet.load("a"), a)
        w[0] = 9  # its own memory
        assert np.array_equal(quiet.load("a"), a)
        w[0] = a[0]
    if count == 12:  # only the pages that were touched are looked at
        assert all(0 < (runs[:, 1] - runs[:, 0]).sum() < ROWS * 3 // 4 for runs in asked[:3])


def test_a_batch_of_few_bytes_a_row(quiet, rng):
    data = {"b": rng.integers(0, 100, 100_000).astype(np.int8), "t": np.arange(5000).astype("M8[s]"),
            "big": rng.random((30, 3000))}
    quiet.save(data)
    quiet.compact()
    with quiet.writable_batch_mode() as batch:
        for name in data:
            batch.load(name)[::7] = data[name][3]
            data[name][::7] = data[name][3]
    for name in data:
        assert np.array_equal(quiet.load(name), data[name])


def test_blocks_let_their_arrays_go(quiet, rng):
    fill(quiet, rng, 12)
    gc.disable()
    try:
        for mode in (quiet.writable_batch_mode, quiet.batch_mode):
            with mode() as batch:
                seen = weakref.ref(batch.load("a"))
                assert seen() is not None
            assert seen() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("step", [1, 50, 4096])
def test_batches_are_compared_in_pieces(quiet, rng, monkeypatch, step):
    a = fill(quiet, rng, 12)
    monkeypatch.setattr(_batch, "_PIECE_ROWS", step)
    changed = np.concatenate([np.arange(500, 900), np.arange(1000, ROWS, 1000)])
    with quiet.writable_batch_mode() as batch:
        batch.load("a")[changed] = 3
    a[changed] = 3
    assert np.array_equal(quiet.load("a"), a)


def test_an_array_of_the_core_has_the_attributes_of_its_moment(quiet):
    quiet.save({"a": np.arange(3), "b": np.arange(3)})
    seen = [quiet._array_open("a")]
    quiet.array_attrs("a")["x"] = 1
    seen.append(quiet._array_open("a"))
    quiet.array_attrs("b")["y"] = 1
    seen.append(quiet._array_open("a"))
    quiet.array_attrs("a").update({"x": 2, "z": "ü"})
    seen.append(quiet._array_open("a"))
    with quiet.transaction():
        seen.append(quiet._array_open("a"))
        del quiet.array_attrs("a")["x"]
        seen.append(quiet._array_open("a"))
    quiet.drop("a")
    assert [array.list_attrs() for array in seen] == [
        {}, {"x": b"1"}, {"x": b"1"}, {"x": b"2", "z": '"ü"'.encode()}, {"x": b"2", "z": '"ü"'.encode()}, {"z": '"ü"'.encode()}]
