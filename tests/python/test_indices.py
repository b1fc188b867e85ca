"""Row indices, against what NumPy does with the same index."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numpack
from numpack._indices import resolve

N = 10


def rows(index, **options):
    first, count, numbers = resolve(index, N, "a", **options)
    return list(range(first, first + count)) if numbers is None else numbers.tolist()


@pytest.mark.parametrize("index", [
    0, 9, -1, -10, np.int8(3), np.uint64(4), np.array(5), slice(None), slice(2, 5), slice(None, None, -1), slice(8, 2, -3),
    slice(-3, None), slice(100), slice(5, 2), [], [0], [3, 1, 3], [-1, 0], (2, 1), (4,), range(3), range(8, 2, -2), range(0),
    range(-3, 0), np.array([1, 2]), np.array([-1, -2], "i1"), np.array([7], "u8"), np.arange(10)[::-2], np.array([], int),
    [True] * 10, [False] * 10, [np.True_, False] * 5, np.arange(10) % 3 == 0, np.nonzero(np.arange(10) > 4),
    [np.int64(3), 4], np.array([1, 2], ">i4"),
])
def test_accepted_as_numpy(index):
    expected = np.arange(N)[list(index) if isinstance(index, (tuple, range)) and not (
        len(index) == 1 and isinstance(index[0], np.ndarray)) and len(index) else [] if isinstance(index, (list, range))
        and not len(index) else index]
    assert rows(index) == np.atleast_1d(expected).tolist()


@pytest.mark.parametrize("index", [
    True, False, np.True_, 1.0, np.float64(1), "1", b"1", None, [1.0], [None], ["a"], [[1, 2]], [[1], [2, 3]], {1: 2}, {1},
    np.array([1.0]), np.array([np.nan]), [float("nan")], np.array([[1]]), np.array(["a"]), np.array([1], "M8[s]"), [True, 2],
    [2, True], 1j, object(), ..., slice("a"), slice(1.5), np.array(True), (np.array([1]), np.array([2])), [1, "a"],
    np.array([None]), [object()],
])
def test_anything_else_is_refused(index):
    for options in ({}, {"ignore_outside": True}):
        with pytest.raises(ValueError) as caught:
            rows(index, **options)
    assert isinstance(caught.value, TypeError) and isinstance(caught.value, numpack.NumPackError)
    if not isinstance(index, slice):
        assert "The indexes must be int or list or numpy.ndarray or slice." in str(caught.value)


@pytest.mark.parametrize("index", [
    10, -11, 2 ** 70, -2 ** 70, [0, 10], [-11], [2 ** 63], [2 ** 64, 1], [-2 ** 70], np.array([10]), np.array([2 ** 63], "u8"),
    range(8, 12), range(-12, 0), [True] * 9, [True] * 11, np.zeros(9, bool), np.zeros(0, bool), np.int64(10),
])
def test_out_of_range(index):
    with pytest.raises(IndexError) as caught:
        rows(index)
    assert isinstance(caught.value, ValueError) and caught.value.kind == "out_of_range" and caught.value.array == "a"


def test_outside_rows_can_be_left_out():
    assert rows([0, 10, -11, 9, 2 ** 70], ignore_outside=True) == [0, 9]
    assert rows(10, ignore_outside=True) == [] and rows(-11, ignore_outside=True) == []
    assert rows(np.array([1, 99, -99]), ignore_outside=True) == [1]
    assert rows(np.array([1, 2 ** 63], "u8"), ignore_outside=True) == [1]
    assert rows(range(8, 12), ignore_outside=True) == [8, 9]
    with pytest.raises(IndexError):
        rows([True], ignore_outside=True)


@settings(max_examples=200, deadline=None)
@given(st.integers(-12, 12) | st.none(), st.integers(-12, 12) | st.none(), st.integers(-4, 4).filter(bool) | st.none())
def test_slices_as_numpy(start, stop, step):
    assert rows(slice(start, stop, step)) == np.arange(N)[start:stop:step].tolist()


def test_indices_are_resolved_per_array(npk):
    npk.save({"a": np.arange(3), "b": np.arange(5)})
    npk.replace({"a": 9, "b": 9}, -1)
    assert npk.load("a").tolist() == [0, 1, 9] and npk.load("b").tolist() == [0, 1, 2, 3, 9]
    npk.drop(["a", "b"], slice(-2, None))
    assert npk.load("a").tolist() == [0] and npk.load("b").tolist() == [0, 1, 2]


def test_a_bad_index_writes_nothing(npk):
    npk.save({"a": np.arange(3), "b": np.arange(5)})
    lsn = npk.lsn
    for bad in (4, [0, 4], "x", 1.5, [True]):
        with pytest.raises(ValueError):
            npk.replace({"b": 9, "a": 9}, bad)
    assert npk.lsn == lsn and npk.load("b").tolist() == [0, 1, 2, 3, 4]


def test_outside_parts_of_ranges_are_left_out_without_walking_them():
    for index in (range(10 ** 18), range(-10 ** 18, 10 ** 18, 3), range(8, -10 ** 18, -1), range(2 ** 70), range(-2 ** 70, 2 ** 70, 7),
                  range(-2 ** 70, 2), range(5, 2 ** 70, 2 ** 69), range(2 ** 70, 2 ** 71), range(10, 20), range(-30, -10)):
        expected = {row % N for row in range(-N, N) if row in index}
        assert sorted(set(rows(index, ignore_outside=True))) == sorted(expected), index
        if not -N <= index[0] < N or not -N <= index[-1] < N:
            with pytest.raises(IndexError):
                rows(index)


@settings(max_examples=300, deadline=None)
@given(st.integers(-25, 25), st.integers(-25, 25), st.integers(-7, 7).filter(bool))
def test_ranges_are_the_rows_they_list(start, stop, step):
    index = range(start, stop, step)
    inside = [row for row in index if -N <= row < N]
    assert sorted(rows(index, ignore_outside=True)) == sorted(row % N for row in inside)
    if len(inside) == len(index):
        assert rows(index) == [row % N for row in index]
    else:
        with pytest.raises(IndexError):
            rows(index)


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


class Arrayish:
    ndim = 1

    def __init__(self, *values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values)


def test_whatever_has_an_index_but_bool():
    assert rows(Index(3)) == [3] and rows(Index(-1)) == [9] and rows([Index(3), Index(-2)]) == [3, 8]
    with pytest.raises(IndexError):
        rows(Index(2 ** 70))
    assert rows(Arrayish(3, 1)) == [3, 1] and rows(Arrayish(*[True] * 10)) == list(range(10))
    for bad in (Arrayish(1.5), Arrayish("a"), Index):
        with pytest.raises(TypeError):
            rows(bad)


def test_masked_index_arrays():
    assert rows(np.ma.masked_array([1, 2], [False, False])) == [1, 2]
    for bad in (np.ma.masked_array([1, 99], [False, True]), np.ma.masked_array([True] * 10, [True] + [False] * 9)):
        for options in ({}, {"ignore_outside": True}):
            with pytest.raises(TypeError):
                rows(bad, **options)


@pytest.mark.parametrize("dtype", ["i1", "u1", ">i2", "<u2", "i4", "u4", ">i8", "u8"])
def test_every_integer_dtype_and_layout(npk, dtype):
    a = np.arange(20).reshape(10, 2)
    npk.save({"a": a})
    index = np.array([9, 0, 3, 3, 7], dtype)
    raw = np.empty(index.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(dtype)
    unaligned[:] = index
    for given in (index, index[::-1], np.repeat(index, 2)[::2], unaligned, np.broadcast_to(index[:1], (4,))):
        assert np.array_equal(npk.getitem("a", given), a[given.astype(int)])
        npk.replace({"a": a[given.astype(int)]}, given)
        assert np.array_equal(npk.load("a"), a)
        npk.save({"b": a})
        npk.drop("b", given)
        assert np.array_equal(npk.load("b"), np.delete(a, given.astype(int), axis=0))


REPLACED = [3, -1, slice(2, 5), slice(None, None, -3), slice(-3, None), [4, 2, 4], (1, 0), range(6, 0, -2), range(-2, 0), [], range(0),
            np.array([1, -1]), np.arange(10) % 2 == 0, [True] * 3 + [False] * 7, np.nonzero(np.arange(10) > 6), slice(50, 60), np.uint8(7)]


@pytest.mark.parametrize("index", REPLACED, ids=str)
@pytest.mark.parametrize("dropped", [False, True])
def test_every_kind_of_index_by_every_row_operation(npk, index, dropped):
    """The rows are those the array has at the moment, whatever lies below."""
    a = np.arange(30).reshape(10, 3)
    npk.save({"a": np.arange(45).reshape(15, 3) if dropped else a})
    if dropped:
        npk.drop("a", [0, 3, 6, 9, 14])
        a = np.delete(np.arange(45).reshape(15, 3), [0, 3, 6, 9, 14], axis=0)
    picked = np.arange(10)[list(index) if isinstance(index, (range, list)) and len(index) == 0 else
                           list(index) if isinstance(index, range) or isinstance(index, tuple) and isinstance(index[0], int) else index] \
        if not (isinstance(index, (range, list)) and len(index) == 0) else np.arange(0)
    picked = np.atleast_1d(picked)
    assert np.array_equal(npk.getitem("a", index), a[picked])
    values = -np.arange(len(picked) * 3).reshape(len(picked), 3)
    npk.replace({"a": values}, index)
    for row, value in zip(picked, values):
        a[row] = value
    assert np.array_equal(npk.load("a"), a)
    npk.drop("a", index)
    assert np.array_equal(npk.load("a"), np.delete(a, picked, axis=0))


def test_an_empty_array_has_no_rows_to_name(npk):
    npk.save({"a": np.zeros((0, 2))})
    for index in ([], slice(None), range(0), np.zeros(0, int), np.zeros(0, bool), ()):
        assert npk.getitem("a", index).shape == (0, 2)
        npk.replace({"a": np.zeros((0, 2))}, index)
        npk.drop("a", index)
    for index in (0, -1, [0], np.array([0])):
        for call in (lambda: npk.getitem("a", index), lambda: npk.replace({"a": 1.0}, index)):
            with pytest.raises(IndexError):
                call()
        npk.drop("a", index)
    assert npk.get_shape("a") == (0, 2)
