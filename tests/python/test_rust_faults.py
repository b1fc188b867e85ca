"""Faults of the Rust package of this name that users must not meet here; one test each."""

import os
import shutil
import time

import numpy as np
import pytest

from numpack import NumPack


def test_scattered_replace_writes_the_right_rows(npk, rng):
    a = rng.random((1000, 3))
    npk.save({"a": a})
    rows = rng.permutation(1000)[:300]
    values = rng.random((300, 3))
    npk.replace({"a": values}, rows)
    a[rows] = values
    assert np.array_equal(npk.load("a"), a)


def test_too_few_replacement_rows_are_refused(npk):
    npk.save({"a": np.zeros((10, 3))})
    with pytest.raises(ValueError):
        npk.replace({"a": np.ones((2, 3))}, [0, 1, 2, 3])
    assert not npk.load("a").any()


def test_fortran_ordered_and_reversed_input_keeps_its_values(npk):
    a = np.arange(12).reshape(3, 4)
    for value in (np.asfortranarray(a), a[::-1], a[:, ::-1], a.T):
        npk.save({"a": value})
        assert np.array_equal(npk.load("a"), value)


def test_non_contiguous_append_and_zero_dimensions_do_not_panic(npk):
    npk.save({"a": np.zeros((0, 2)), "z": np.array(5)})
    npk.append({"a": np.arange(12.0).reshape(3, 4)[:, ::2]})
    assert npk.load("a").tolist() == [[0, 2], [4, 6], [8, 10]] and npk.load("z") == 5 and npk.load("z").shape == ()


def test_boolean_masks_are_masks(npk):
    npk.save({"a": np.arange(4)})
    mask = [False, True, False, True]
    assert npk.getitem("a", mask).tolist() == [1, 3] == npk.getitem("a", np.array(mask)).tolist()
    npk.replace({"a": [8, 9]}, mask)
    npk.drop("a", [True, False, False, False])
    assert npk.load("a").tolist() == [8, 2, 9]


def test_append_after_drop_does_not_resurrect_rows(npk, path):
    npk.save({"a": np.arange(10)})
    npk.drop("a", [2, 5])
    npk.append({"a": [100, 101]})
    expected = [0, 1, 3, 4, 6, 7, 8, 9, 100, 101]
    assert npk.load("a").tolist() == expected
    npk.update("a")
    npk.close()
    npk.open()
    assert npk.load("a").tolist() == expected


def test_slices_and_negative_drops_are_logical(npk):
    npk.save({"a": np.arange(10)})
    npk.drop("a", [0, 1])
    assert npk.getitem("a", slice(0, 3)).tolist() == [2, 3, 4]
    npk.drop("a", -1)
    npk.drop("a", slice(0, 2))
    npk.replace({"a": 50}, 0)
    assert npk.load("a").tolist() == [50, 5, 6, 7, 8]


def test_indices_after_a_drop_do_not_cost_all_rows(npk):
    n = 200_000
    npk.save({"a": np.arange(n)})
    npk.drop("a", np.arange(0, n, 1000))
    started = time.process_time()
    for index in range(200):
        npk.getitem("a", index * 500)
    assert time.process_time() - started < 1.0


def test_views_do_not_dangle_after_close(path):
    npk = NumPack(path)
    a = np.arange(100_000)
    npk.save({"a": a})
    view, lazy = npk.load("a", mmap_mode=True), npk.load("a", lazy=True)
    npk.close()
    shutil.rmtree(path)
    assert np.array_equal(view, a) and np.array_equal(lazy, a)


def test_a_lazy_load_of_a_large_array_is_lazy(npk):
    rows = np.zeros((16, 1 << 20))  # 8 MiB a row of doubles; 264 MiB in all
    npk.save({"a": rows})
    npk.append({"a": rows})
    npk.append({"a": rows[:1]})
    npk.compact()

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    del rows
    before = resident()
    lazy = npk.load("a", lazy=True)
    assert lazy.nbytes > 256 << 20 and lazy[20][5] == 0
    assert resident() - before < 64 << 20


def test_what_is_written_is_there_without_close_and_readers_write_nothing(path):
    npk = NumPack(path)
    npk.save({"a": [1, 2, 3]})
    with NumPack(path, mode="r") as reader:
        assert reader.load("a").tolist() == [1, 2, 3]
        npk.append({"a": [4]})
        assert reader.load("a").tolist() == [1, 2, 3, 4]
    assert npk.load("a").tolist() == [1, 2, 3, 4]
    npk.close()


def test_close_reports_failures(path, monkeypatch):
    npk = NumPack(path)
    npk.save({"a": [1]})

    class Failing:
        def close(self):
            raise __import__("numpack").StoreIOError("close: could not write", errno=5)

    real, npk._core = npk._core, Failing()
    with pytest.raises(OSError):
        npk.close()
    real.close()


def test_corrupt_metadata_is_not_an_empty_store(path):
    with NumPack(path) as npk:
        npk.save({"a": [1, 2, 3]})
    (path / "FORMAT").write_bytes(b"\xff" * (path / "FORMAT").stat().st_size)
    for mode in ("a", "r", "r+"):
        with pytest.raises(Exception) as caught:
            NumPack(path, mode=mode).get_member_list()
        assert caught.value.kind in ("corrupt", "format_version")


def test_lazy_and_eager_loads_of_a_missing_name_agree(npk):
    for options in ({}, {"lazy": True}, {"mmap_mode": True}, {"mmap_mode": "c"}):
        with pytest.raises(KeyError) as caught:
            npk.load("missing", **options)
        assert caught.value.kind == "not_found"
