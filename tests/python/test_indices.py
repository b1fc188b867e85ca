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
    with pytest.raises(ValueError) as caught:
        rows(index)
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
