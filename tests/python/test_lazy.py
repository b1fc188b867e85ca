"""LazyArray against the ndarray it stands for."""

import copy
import operator
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import numpack
from numpack import LazyArray, NumPack

BASE = np.arange(6 * 4 * 5).reshape(6, 4, 5)


@pytest.fixture(scope="module")
def lazies(tmp_path_factory):
    """The same array in one piece, pending in the log, and after row drops."""
    npk = NumPack(tmp_path_factory.mktemp("lazy") / "store", sync="never")
    npk.save({"whole": BASE, "one": np.arange(7.0), "zero": 5.0})
    npk.compact()
    npk.save({"pending": BASE[:2]})
    for rows in BASE[2:]:
        npk.append({"pending": rows[None]})
    npk.save({"dropped": np.concatenate([BASE[:3], BASE[:1] + 1000, BASE[3:], BASE[:2]])})
    npk.compact()
    npk.drop("dropped", [3, 7, 8])
    yield {name: npk.load(name, lazy=True) for name in npk}
    npk.close()


NAMES = ["whole", "pending", "dropped"]


@pytest.mark.parametrize("name", NAMES)
def test_attributes(lazies, name):
    lazy = lazies[name]
    for attribute in ("shape", "dtype", "ndim", "size", "itemsize", "nbytes"):
        assert getattr(lazy, attribute) == getattr(BASE, attribute)
    assert np.array_equal(lazy.T, BASE.T) and isinstance(lazy.T, np.ndarray) and len(lazy) == 6
    assert lazy.chunks is None and dict(lazy.attrs) == {} and "shape=(6, 4, 5)" in repr(lazy)
    with pytest.raises(TypeError):
        hash(lazy)
    with pytest.raises(TypeError):
        len(lazies["zero"])
    with pytest.raises(TypeError):
        iter(lazies["zero"])
    for missing in ("__array_ufunc__", "__array_function__", "__array_priority__", "astype"):
        assert not hasattr(lazy, missing)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_basic_indexing_is_numpys(lazies, name, data):
    key = data.draw(hnp.basic_indices(BASE.shape, allow_newaxis=True, allow_ellipsis=True))
    check(lazies[name], key)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_advanced_indexing_is_numpys(lazies, name, data):
    axis = st.one_of(
        st.integers(-4, 3), st.slices(4), st.just(slice(None)),
        hnp.arrays(np.int64, st.sampled_from([(3,), (2, 3), (3, 1)]), elements=st.integers(-4, 3)),
        st.lists(st.integers(-4, 3), min_size=3, max_size=3))
    key = data.draw(st.lists(axis, min_size=1, max_size=3).map(tuple) | axis)
    try:
        BASE[key]
    except IndexError:
        with pytest.raises(IndexError):
            lazies[name][key]
        return
    check(lazies[name], key)


def check(lazy, key):
    expected = BASE[key]
    result = lazy[key]
    assert type(result) is type(expected) and np.array_equal(result, expected)
    if isinstance(result, np.ndarray):
        assert result.dtype == expected.dtype and result.shape == expected.shape and result.flags.writeable
        result[...] = -1
        assert np.array_equal(lazy[key], expected)


@pytest.mark.parametrize("name", NAMES)
def test_masks(lazies, name):
    lazy = lazies[name]
    check(lazy, BASE % 3 == 0)
    check(lazy, BASE[:, 0, 0] > 40)
    check(lazy, (BASE[:, :, 0] > 40, 2))
    check(lazy, np.array([True, False] * 3))
    check(lazy, [True, False] * 3)
    check(lazy, slice(0, 0))
    check(lazy, np.array([], int))
    check(lazy, ())
    for bad in (6, -7, np.array([6]), (0, 4), np.zeros(5, bool), (0, 0, 0, 0)):
        with pytest.raises(IndexError):
            lazy[bad]


def test_one_dimensional_and_zero_dimensional(lazies):
    one, zero = lazies["one"], lazies["zero"]
    assert type(one[3]) is np.float64 and one[3] == 3 and one[-1] == 6
    assert one[[1, 2]].tolist() == [1, 2] and list(one) == list(range(7))
    assert zero[()] == 5 and zero[...].shape == () and float(zero) == 5 and zero.shape == ()
    with pytest.raises(IndexError):
        zero[0]


@pytest.mark.parametrize("name", NAMES)
def test_outer_indexing(lazies, name):
    lazy = lazies[name]
    assert np.array_equal(lazy.oindex[[0, 2], [1, 3, 3]], BASE[np.ix_([0, 2], [1, 3, 3])])
    assert np.array_equal(lazy.oindex[[4, 1], :, [0, 2]], BASE[[4, 1]][:, :, [0, 2]])
    assert np.array_equal(lazy.oindex[1, ..., np.arange(5) > 2], BASE[1][:, 3:])
    assert np.array_equal(lazy.oindex[::2, 0, [1]], BASE[::2, 0][:, [1]])
    assert lazy.oindex[0, 0, 0] == 0
    for bad in ([[0, 1]], 1.5, "x"):
        with pytest.raises(IndexError):
            lazy.oindex[bad]


@pytest.mark.parametrize("name", NAMES)
def test_conversion(lazies, name):
    lazy = lazies[name]
    view = np.asarray(lazy)
    assert np.array_equal(view, BASE) and not view.flags.writeable
    fresh = np.array(lazy)
    fresh[0] = 0
    assert np.array_equal(lazy[:], BASE)
    assert np.asarray(lazy, dtype="f4").dtype == np.float32
    for made in (lazy.copy(), copy.copy(lazy), copy.deepcopy(lazy)):
        assert isinstance(made, np.ndarray) and made.flags.writeable and np.array_equal(made, BASE)
    assert lazy.__array__(copy=True).flags.writeable
    with pytest.raises(ValueError):
        lazy.__array__("f4", copy=False)


def test_buffer_protocol(npk):
    npk.save({"f": np.arange(6, dtype="f4").reshape(3, 2), "s": np.array([b"ab"]), "u": np.array(["ab"]), "b": np.array([True]),
              "st": np.zeros(2, [("a", "i4"), ("b", "f4")]), "be": np.arange(3, dtype=">i4")})
    npk.compact()
    for name in npk:
        lazy, array = npk.load(name, lazy=True), npk.load(name)
        view = memoryview(lazy)
        assert view.readonly and view.shape == array.shape and view.nbytes == array.nbytes
        assert np.array_equal(np.asarray(lazy), array) and np.asarray(lazy).dtype == array.dtype
    npk.save({"M": np.zeros(2, "M8[s]"), "m": np.zeros(2, "m8[D]"), "V": np.zeros(2, "V3"),
              "n": np.zeros(2, [("a", "i4"), ("t", [("x", "M8[s]")])])})
    for name in ("M", "m", "V", "n"):
        lazy = npk.load(name, lazy=True)
        with pytest.raises(BufferError):
            memoryview(lazy)
        assert np.asarray(lazy).dtype == npk.get_dtype(name)


def test_buffer_of_pieces_is_refused(lazies):
    if lazies["dropped"]._array.piece_count > 1:
        with pytest.raises(BufferError):
            memoryview(lazies["dropped"])
        with pytest.raises(ValueError):
            lazies["dropped"].__array__(copy=False)


def test_dlpack(lazies):
    array = np.from_dlpack(lazies["whole"])
    assert np.array_equal(array, BASE)
    assert lazies["whole"].__dlpack_device__() == (1, 0)
    with pytest.raises(BufferError):
        lazies["whole"].__dlpack__(dl_device=(2, 0))


OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.eq,
             operator.ne, operator.lt, operator.le, operator.gt, operator.ge, operator.and_, operator.or_, operator.xor,
             operator.lshift, operator.rshift, divmod]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("function", OPERATORS, ids=lambda function: function.__name__)
def test_operators(lazies, function):
    lazy = lazies["pending"]
    for other in (3, np.int64(3), np.arange(1, 6), BASE + 1, lazies["whole"]):
        plain = np.asarray(other) if isinstance(other, LazyArray) else other
        for result, expected in ((function(lazy, other), function(BASE, plain)), (function(other, lazy), function(plain, BASE))):
            np.testing.assert_array_equal(result, expected)
            assert isinstance(result, (np.ndarray, tuple))


def test_more_operators(lazies):
    lazy = lazies["whole"]
    assert np.array_equal(-lazy, -BASE) and np.array_equal(+lazy, BASE) and np.array_equal(abs(lazy), abs(BASE))
    assert np.array_equal(~lazy, ~BASE) and np.array_equal(lazy ** 2, BASE ** 2) and np.array_equal(2 ** lazies["one"],
                                                                                                2 ** np.arange(7.0))
    assert np.array_equal(lazy @ np.ones(5), BASE @ np.ones(5)) and np.array_equal(np.ones(4) @ lazy, np.ones(4) @ BASE)
    assert 5 in lazy and -5 not in lazy and 3.0 in lazies["one"]
    for call in (lambda: ~lazies["one"], lambda: lazies["one"] & 1, lambda: 1 | lazies["one"], lambda: lazy ^ 1.5):
        with pytest.raises(TypeError, match="Bitwise operations are only supported for integer arrays"):
            call()
    with pytest.raises(ValueError):
        bool(lazy)
    a = lazies["one"]
    a += 1
    assert isinstance(a, np.ndarray) and lazies["one"][0] == 0
    total = np.zeros(7)
    alias = total
    total += lazies["one"]
    assert total is alias and total[6] == 6
    assert np.array_equal(np.add(lazy, 1), BASE + 1) and np.sum(lazy) == BASE.sum() and np.array_equal(lazy, BASE)
    assert np.array_equal(np.concatenate([lazy, BASE]), np.concatenate([BASE, BASE]))


def test_writing_is_refused(lazies):
    with pytest.raises(TypeError, match="replace"):
        lazies["whole"][0] = 1


def test_reshape(lazies):
    for name in NAMES:
        lazy = lazies[name]
        flat = lazy.reshape(-1)
        assert isinstance(flat, LazyArray) and flat.shape == (120,) and flat[7] == 7 and flat[-1] == 119
        assert np.array_equal(lazy.reshape(10, -1)[2:4], BASE.reshape(10, 12)[2:4])
        assert np.array_equal(lazy.reshape((12, 10)).copy(), BASE.reshape(12, 10))
        assert np.array_equal(np.asarray(lazy.reshape([2, 60])), BASE.reshape(2, 60))
        for bad in ((7, -1), (-2, 60), (-1, -1), (119,), (-3,)):
            with pytest.raises(ValueError):
                lazy.reshape(bad)


def test_named_methods(lazies):
    for name in NAMES:
        lazy = lazies[name]
        mask = np.arange(6) % 2 == 0
        assert np.array_equal(lazy.vectorized_gather([3, 0, 3]), BASE[[3, 0, 3]])
        rows = lazy.mega_batch_get_rows([5, 1, 2], 2)
        assert isinstance(rows, list) and np.array_equal(np.array(rows), BASE[[5, 1, 2]])
        with pytest.raises(ValueError):
            lazy.mega_batch_get_rows([1], 0)
        for method in ("parallel_boolean_index", "boolean_index_smart", "boolean_index_adaptive", "boolean_index_production",
                       "boolean_index_adaptive_algorithm"):
            assert np.array_equal(getattr(lazy, method)(mask), BASE[mask])
        assert lazy.choose_optimal_algorithm(np.zeros(6, bool)) == "sparse"
        assert lazy.choose_optimal_algorithm(np.ones(6, bool)) == "dense"
        assert lazy.choose_optimal_algorithm(mask) == "adaptive"
        lazy.intelligent_warmup("sequential")
        with lazy:
            pass
        lazy.close()
        assert lazy[0, 0, 0] == 0


def test_a_lazy_array_is_a_snapshot(npk):
    npk.save({"a": np.arange(5)})
    lazy = npk.load("a", lazy=True)
    npk.replace({"a": 9}, slice(None))
    npk.append({"a": [1]})
    npk.compact()
    npk.checkpoint()
    npk.drop("a")
    assert lazy[:].tolist() == [0, 1, 2, 3, 4] and np.asarray(lazy).tolist() == [0, 1, 2, 3, 4] and lazy.shape == (5,)


def test_pickling(npk):
    npk.save({"a": np.arange(6).reshape(3, 2)})
    lazy = npk.load("a", lazy=True)
    data = pickle.dumps(lazy)
    assert len(data) < 1000
    copy_ = pickle.loads(data)
    assert isinstance(copy_, LazyArray) and np.array_equal(copy_, lazy)
    assert pickle.loads(pickle.dumps(lazy.reshape(-1))).shape == (6,)
    assert lazy.__dask_tokenize__() == copy_.__dask_tokenize__()
    npk.replace({"a": 0}, 0)
    assert npk.load("a", lazy=True).__dask_tokenize__() != lazy.__dask_tokenize__()
    with pytest.raises(numpack.NumPackError):
        pickle.loads(data)
    npk.drop("a")
    with pytest.raises(numpack.NumPackError):
        pickle.loads(data)


# ---- more of the sentences ------------------------------------------------------------------------------------------

def test_attrs_are_those_of_its_own_state(npk):
    npk.save({"a": [1]})
    npk.array_attrs("a")["u"] = 1
    lazy = npk.load("a", lazy=True)
    data = pickle.dumps(lazy)
    again = pickle.loads(data)
    npk.array_attrs("a")["u"] = 2
    npk.drop("a")
    npk.close()
    assert dict(lazy.attrs) == dict(lazy.reshape(-1).attrs) == dict(again.attrs) == {"u": 1}
    with pytest.raises(TypeError):
        lazy.attrs["u"] = 3
    npk.open()
    with pytest.raises(numpack.NumPackError):
        pickle.loads(data)


def test_a_pickle_of_another_store_at_the_same_path_is_refused(path):
    with NumPack(path) as npk:
        npk.save({"a": [1]})
        data = pickle.dumps(npk.load("a", lazy=True))
    shutil.rmtree(path)
    with NumPack(path) as npk:
        npk.save({"a": [2]})
        with pytest.raises(KeyError):
            pickle.loads(data)


@pytest.mark.parametrize("dtype", ["<f4", ">i2", "?", "S3", "<U2", "<M8[s]", "c16", [("x", "<i4"), ("y", "<f8")]])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_indexing_of_other_dtypes(dtypes_npk, dtype, data):
    npk, base = dtypes_npk[str(dtype)]
    lazy = npk.load("a", lazy=True)
    key = data.draw(hnp.basic_indices(base.shape, allow_newaxis=True, allow_ellipsis=True)
                    | hnp.arrays(bool, base.shape[:1]) | hnp.arrays(np.int64, (4,), elements=st.integers(-6, 5)))
    result, expected = lazy[key], base[key]
    assert type(result) is type(expected) and result.dtype == expected.dtype and np.array_equal(result, expected)
    if isinstance(result, np.ndarray):
        assert result.flags.writeable and result.dtype.byteorder == expected.dtype.byteorder


@pytest.fixture(scope="module")
def dtypes_npk(tmp_path_factory):
    """Stores with pending rows and a dropped one, of each dtype."""
    made = {}
    for dtype in ("<f4", ">i2", "?", "S3", "<U2", "<M8[s]", "c16", [("x", "<i4"), ("y", "<f8")]):
        npk = NumPack(tmp_path_factory.mktemp("dtype") / "store", sync="never")
        base = np.zeros((7, 3), dtype)
        if isinstance(dtype, list):
            base["x"], base["y"] = np.arange(21).reshape(7, 3), 0.5
        else:
            base[...] = np.arange(21).reshape(7, 3).astype("i8").astype(dtype)
        npk.save({"a": base[:4]})
        npk.append({"a": base[4:]})
        npk.drop("a", 2)
        made[str(dtype)] = npk, np.delete(base, 2, 0)
    yield made
    for npk, _ in made.values():
        npk.close()


def test_a_consumer_of_dlpack_may_write(path):
    script = f"""
import ctypes, numpy as np, numpack
npk = numpack.NumPack({str(path)!r})
npk.save({{"a": np.arange(100_000.0)}})
npk.compact()
lazy = npk.load("a", lazy=True)
array = np.from_dlpack(lazy)
ctypes.memset(array.__array_interface__["data"][0], 0, array.nbytes)
print(array.any(), lazy[-1], npk.load("a")[-1])
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["False", "99999.0", "99999.0"], result.stderr


def test_dask_builds_its_graph_without_loading(npk, monkeypatch):
    da = pytest.importorskip("dask.array")
    base = np.arange(4000.0).reshape(1000, 4)
    npk.save({"a": base})
    npk.replace({"a": base[::7]}, slice(None, None, 7))
    lazy = npk.load("a", lazy=True)
    read = []
    original = LazyArray._ndarray
    monkeypatch.setattr(LazyArray, "_ndarray", lambda self: read.append(self) or original(self))
    monkeypatch.setattr(LazyArray, "__array__", lambda self, *args, **kwargs: pytest.fail("loaded whole"))
    monkeypatch.setattr(LazyArray, "copy", lambda self: pytest.fail("loaded whole"))
    graph = da.from_array(lazy, chunks=(100, 4), asarray=False)
    assert read == [] and graph.name == da.from_array(lazy, chunks=(100, 4), asarray=False).name
    assert np.array_equal(graph[150:250].compute(scheduler="sync"), base[150:250]) and read == []
    npk.replace({"a": 0}, 0)
    assert da.from_array(npk.load("a", lazy=True), chunks=(100, 4), asarray=False).name != graph.name
