"""Operators, outer indexing, shapes and the named methods of a LazyArray against those of the ndarray it stands for."""

import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numpack import LazyArray, NumPack

BASE = np.arange(1, 1 + 5 * 4 * 3).reshape(5, 4, 3)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The same integers in one piece and in several, and other dtypes."""
    npk = NumPack(tmp_path_factory.mktemp("lazy") / "store", sync="never")
    npk.save({"whole": BASE, "pieces": BASE[:2], "float": BASE / 2, "square": np.arange(9).reshape(3, 3),
              "bool": BASE % 2 == 0, "time": BASE.astype("m8[s]"), "complex": BASE * 1j, "zero": 5})
    npk.compact()
    npk.append({"pieces": BASE[2:]})
    yield npk
    npk.close()


@pytest.fixture(params=["whole", "pieces"])
def lazy(store, request):
    return store.load(request.param, lazy=True)


# ---- operators ------------------------------------------------------------------------------------------------------

BITWISE = ["and_", "or_", "xor", "lshift", "rshift"]
BINARY = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", *BITWISE]
COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge"]
MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}
TEXT = "^Bitwise operations are only supported for integer arrays$"


def same(result, expected):
    assert type(result) is type(expected) is np.ndarray
    assert result.dtype == expected.dtype and result.flags.writeable and np.array_equal(result, expected, equal_nan=True)


def operands(name):
    if name == "matmul":
        return [np.ones((5, 3, 4), int), np.ones((3, 4)), np.arange(12).reshape(3, 4).tolist()]
    if name == "pow":
        return [2, np.int8(2), np.full((4, 3), 2), BASE % 3, [0, 1, 2]]
    return [3, np.int8(3), np.arange(1, 4), np.full((4, 1), 2), BASE % 5 + 1, [1, 2, 3]]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", BINARY)
def test_plain_and_reflected(store, lazy, name):
    function, special = getattr(operator, name), name.rstrip("_")
    for other in operands(name):
        same(function(lazy, other), function(BASE, other))
        same(getattr(lazy, f"__{special}__")(other), function(BASE, other))
        if name != "matmul":
            same(function(other, lazy), function(other, BASE))
            same(getattr(lazy, f"__r{special}__")(other), function(other, BASE))
    if name == "matmul":
        for left in (np.ones((2, 4)), np.ones((5, 2, 4), int), np.ones((2, 4), int).tolist()):
            same(left @ lazy, np.asarray(left) @ BASE)
            same(lazy.__rmatmul__(left), np.asarray(left) @ BASE)
        square = store.load("square", lazy=True)
        same(square @ square, store.load("square") @ store.load("square"))
    else:
        same(function(lazy, lazy), function(BASE, BASE))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", BINARY)
def test_in_place_rebinds_and_leaves_the_store_alone(store, lazy, name):
    inplace = getattr(operator, "i" + name.rstrip("_"))
    assert not hasattr(LazyArray, f"__i{name.rstrip('_')}__")
    before = store.lsn
    for other in operands(name):
        value = lazy
        value = inplace(value, other)
        same(value, getattr(operator, name)(BASE, other))
        value[...] = 0
        assert np.array_equal(lazy[:], BASE) and np.array_equal(np.asarray(lazy), BASE) and store.lsn == before
    for array in ("whole", "pieces"):
        assert np.array_equal(store.load(array), BASE)


@pytest.mark.parametrize("name", [name for name in BINARY if name not in ("truediv", "matmul")])
def test_an_ndarray_on_the_left_is_changed_in_place(lazy, name):
    inplace = getattr(operator, "i" + name.rstrip("_"))
    value, expected = np.full_like(BASE, 2), np.full_like(BASE, 2)
    expected = inplace(expected, BASE)
    result = inplace(value, lazy)
    assert result is value and np.array_equal(value, expected)


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_both_ways(lazy, name):
    function = getattr(operator, name)
    for other in (30, np.int64(30), 30.5, np.full((4, 3), 30), BASE[::-1], [3, 30, 50]):
        same(function(lazy, other), function(BASE, other))
        same(getattr(lazy, f"__{name}__")(other), function(BASE, other))
        same(function(other, lazy), function(other, BASE))
    same(function(lazy, lazy), function(BASE, BASE))
    assert function(lazy, lazy).all() == (name in ("eq", "le", "ge"))


def test_divmod_and_unary(lazy):
    for other in (7, np.int64(7), np.arange(1, 4), BASE):
        for result, expected in ((divmod(lazy, other), divmod(BASE, other)), (divmod(other, lazy), divmod(other, BASE)),
                                 (lazy.__rdivmod__(other), divmod(other, BASE))):
            assert type(result) is tuple
            same(result[0], expected[0])
            same(result[1], expected[1])
    for function in (operator.neg, operator.pos, operator.abs, operator.invert):
        same(function(lazy), function(BASE))
    assert np.array_equal(lazy[:], BASE)
    with pytest.raises(TypeError):
        pow(lazy, 2, 5)


def test_of_one_value(store):
    zero = store.load("zero", lazy=True)
    assert zero + 1 == 6 and 1 - zero == -4 and zero == 5 and (zero, int(zero), float(zero), complex(zero)) == (5,) * 4
    assert [10, 11, 12, 13, 14, 15][zero] == 15 and bool(zero)
    with pytest.raises(TypeError):
        operator.index(store.load("float", lazy=True))


def test_operands_that_do_not_fit(lazy):
    with pytest.raises(ValueError):
        lazy + np.ones(7)
    with pytest.raises(TypeError):
        lazy + "text"

    class Other:
        __array_ufunc__ = None

        def __radd__(self, other):
            return type(other), "taken"

    assert lazy + Other() == (np.ndarray, "taken")


@pytest.mark.parametrize("name", BITWISE)
@pytest.mark.parametrize("array", ["float", "complex", "time"])
def test_bitwise_on_what_is_not_an_integer(store, name, array):
    function, other = getattr(operator, name), store.load(array, lazy=True)
    for call in (lambda: function(other, 1), lambda: function(1, other), lambda: function(other, other),
                 lambda: function(other, BASE), lambda: getattr(operator, "i" + name.rstrip("_"))(other, 1)):
        with pytest.raises(TypeError, match=TEXT):
            call()
    with pytest.raises(TypeError, match=TEXT):
        ~other


@pytest.mark.parametrize("name", BITWISE)
def test_bitwise_with_a_float(lazy, name):
    function = getattr(operator, name)
    for other in (1.5, 1j, np.float32(1), np.ones(3), np.ones(3, "m8[s]")):
        with pytest.raises(TypeError, match=TEXT):
            function(lazy, other)
        with pytest.raises(TypeError, match=TEXT):
            getattr(lazy, f"__r{name.rstrip('_')}__")(other)
        with pytest.raises(TypeError):  # an ndarray on the left says it in NumPy's words
            function(other, lazy)


def test_bitwise_on_booleans(store):
    lazy, base = store.load("bool", lazy=True), BASE % 2 == 0
    for function in (operator.and_, operator.or_, operator.xor):
        same(function(lazy, True), function(base, True))
        same(function(lazy, BASE), function(base, BASE))
        same(function(False, lazy), function(False, base))
    same(~lazy, ~base)


# ---- oindex ---------------------------------------------------------------------------------------------------------

def axis_keys(length):
    numbers = st.integers(-length, length - 1)
    lists = st.lists(numbers, max_size=6)
    return st.one_of(numbers, numbers.map(np.int64), st.slices(length), lists, lists.map(lambda items: np.array(items, np.int32)),
                     st.lists(st.booleans(), min_size=length, max_size=length).map(np.array),
                     st.lists(st.booleans(), min_size=length, max_size=length))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_outer_indexing_is_every_axis_by_itself(store, data):
    given_axes = data.draw(st.integers(0, 3))
    dots = data.draw(st.none() | st.integers(0, given_axes))
    front = given_axes if dots is None else dots
    axes = list(range(front)) + list(range(3 - (given_axes - front), 3))
    keys = [data.draw(axis_keys(BASE.shape[axis])) for axis in axes]
    numbers, kept = [list(range(length)) for length in BASE.shape], [True] * 3
    for axis, key in zip(axes, keys):
        if isinstance(key, (int, np.integer)):
            numbers[axis], kept[axis] = [int(key)], False
        else:
            whole = np.arange(BASE.shape[axis])
            numbers[axis] = (whole[key] if not isinstance(key, list) or key else whole[:0]).tolist()
    expected = np.empty([len(items) for items in numbers], BASE.dtype)
    for at in np.ndindex(expected.shape):
        expected[at] = BASE[tuple(items[place] for items, place in zip(numbers, at))]
    expected = expected.reshape([len(items) for items, keep in zip(numbers, kept) if keep])
    key = tuple(keys) if dots is None else (*keys[:front], Ellipsis, *keys[front:])
    if len(key) == 1 and data.draw(st.booleans()):
        key = key[0]
    for lazy in (store.load("whole", lazy=True), store.load("pieces", lazy=True)):
        result = lazy.oindex[key]
        if any(kept):
            same(result, expected)
            assert result.flags.owndata
            result[...] = -1
        else:
            assert type(result) is np.int64 or dots is not None
            assert result == expected
    assert np.array_equal(store.load("whole"), BASE)


def test_outer_indexing_refuses_what_it_cannot(lazy):
    for bad in (5, -6, [0, 5], [-6], (0, 4), [True] * 4, np.zeros(6, bool), (0, 0, 0, 0), (..., 0, ...), 1.5, "x", [[0, 1]],
                [1.0], np.zeros((5, 4), bool), None, True, False, np.True_, (0, True), np.array([0], "M8[s]")):
        with pytest.raises(IndexError):
            lazy.oindex[bad]


def test_outer_indexing_of_other_shapes(store, lazy):
    same(lazy.reshape(20, 3).oindex[[19, 0], [True, False, True]], BASE.reshape(20, 3)[[19, 0]][:, [0, 2]])
    assert store.load("zero", lazy=True).oindex[()] == 5
    with pytest.raises(IndexError):
        store.load("zero", lazy=True).oindex[0]


# ---- reshape --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """Arrays of 0, 1 and 12 items."""
    arrays = {"none": np.zeros((0, 3)), "empty rows": np.zeros((4, 0, 2)), "one": np.array([7.0]), "zero": np.array(5.0),
              "twelve": np.arange(12.0)}
    npk = NumPack(tmp_path_factory.mktemp("lazy") / "store", sync="never")
    npk.save(arrays)
    yield {name: (npk.load(name, lazy=True), array) for name, array in arrays.items()}
    npk.close()


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(["none", "empty rows", "one", "zero", "twelve"]),
       shape=st.lists(st.sampled_from([-3, -2, -1, -1, 0, 1, 2, 3, 4, 6, 12]), max_size=4), several=st.booleans())
def test_reshape_is_numpys(sizes, name, shape, several):
    lazy, array = sizes[name]
    arguments = shape if several and shape else [tuple(shape)]
    try:
        assert all(length >= -1 for length in shape)  # NumPy is not asked: some versions take any negative length for -1
        expected = array.reshape(*arguments)
    except (ValueError, AssertionError):
        with pytest.raises(ValueError, match="cannot reshape"):
            lazy.reshape(*arguments)
        return
    result = lazy.reshape(*arguments)
    assert type(result) is LazyArray and result.shape == expected.shape and result.size == expected.size
    assert result.ndim == expected.ndim and result.nbytes == expected.nbytes and result.dtype == array.dtype
    same(result.copy(), expected)
    same(np.array(result), expected)
    if expected.ndim:
        assert len(result) == len(expected) and [np.shape(row) for row in result] == [np.shape(row) for row in expected]
        same(result[::-1], expected[::-1].copy())
        same(result.T, expected.T.copy())


def test_what_a_shape_can_be(sizes):
    lazy, array = sizes["twelve"]
    for shape in ((3, 4), [3, 4], np.array([3, 4]), range(3, 5), (np.int8(3), np.array(4)), iter([3, 4])):
        same(lazy.reshape(shape).copy(), array.reshape(3, 4))
    assert lazy.reshape(np.int64(12)).shape == lazy.reshape(np.array(-1)).shape == lazy.reshape(np.array([12])).shape == (12,)
    assert lazy.reshape(3, 4).reshape(2, -1).shape == (2, 6)
    for bad in (2.0, "12", None, (3.0, 4), [[3, 4]]):
        with pytest.raises(TypeError):
            lazy.reshape(bad)
    for bad in ((-1, -1), (-2, 6), (-2, -2, 3), (-12,), (5, -1), (0, -1), (0,), (13,), ()):
        with pytest.raises(ValueError):
            lazy.reshape(bad)
        if bad:
            with pytest.raises(ValueError):
                lazy.reshape(*bad)


# ---- the named methods ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [1, 9, 10, 11, 20, 30, 70, 99, 100, 101, 1000])
def test_the_algorithm_is_told_by_the_share(lazy, size):
    for true in {0, 1, size // 10 - 1, size // 10, size // 10 + 1, size // 2, size * 9 // 10 - 1, size * 9 // 10,
                 size * 9 // 10 + 1, size} & set(range(size + 1)):
        mask = np.arange(size) < true
        expected = "sparse" if 10 * true < size else "dense" if 10 * true > 9 * size else "adaptive"
        assert lazy.choose_optimal_algorithm(mask) == lazy.choose_optimal_algorithm(mask.tolist()) == expected
    assert lazy.choose_optimal_algorithm([]) == "sparse"


@settings(max_examples=60, deadline=None)
@given(indices=st.lists(st.integers(-5, 4), max_size=9), size=st.integers(1, 12), array=st.booleans())
def test_rows_in_batches_of_any_size(store, indices, size, array):
    for name in ("whole", "pieces"):
        rows = store.load(name, lazy=True).mega_batch_get_rows(np.array(indices, int) if array else indices, size)
        assert type(rows) is list and len(rows) == len(indices)
        for row, index in zip(rows, indices):
            same(row, BASE[index])


def test_batches_that_cannot_be(lazy):
    for size in (0, -1, -100):
        for indices in ([0, 1], []):
            with pytest.raises(ValueError, match="at least 1"):
                lazy.mega_batch_get_rows(indices, size)
    for bad in ([5], [0, 1, -6]):
        with pytest.raises(IndexError):
            lazy.mega_batch_get_rows(bad, 2)


def test_gathering(lazy):
    for indices in ([4, 0, 4, -1], (1, 2), range(3), np.array([[0, 1], [2, 3]]), 2, np.uint8(3)):
        same(lazy.vectorized_gather(indices), np.array(BASE[np.asarray(indices)]))
    for nothing in ([], (), range(0), np.array([], int)):
        same(lazy.vectorized_gather(nothing), BASE[:0].copy())
    for bad in ([5], [-6], 5, [1.5]):
        with pytest.raises(IndexError):
            lazy.vectorized_gather(bad)


@pytest.mark.parametrize("name", ["parallel_boolean_index", "boolean_index_smart", "boolean_index_adaptive",
                                  "boolean_index_production", "boolean_index_adaptive_algorithm"])
def test_masks_by_name(lazy, name):
    method = getattr(lazy, name)
    for mask in ([True, False, True, False, False], np.zeros(5, bool), np.ones(5, bool), [1, 0, 0, 0, 2], BASE[:, :, 0] > 20):
        same(method(mask), BASE[np.asarray(mask, bool)])
    for bad in ([True] * 4, [True] * 6, np.zeros((5, 5), bool)):
        with pytest.raises(IndexError):
            method(bad)
