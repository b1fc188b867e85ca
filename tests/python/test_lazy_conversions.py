"""What NumPy and others make of a LazyArray: __array__, the buffer protocol, DLPack, and functions that take an ndarray."""

import gc
import io
import shutil

import numpy as np
import pytest

from numpack import LazyArray, NumPack

NUMPY_2 = np.lib.NumpyVersion(np.__version__) >= "2.0.0"
BASE = np.arange(6 * 4).reshape(6, 4)


@pytest.fixture
def whole(npk):
    """In one piece."""
    npk.save({"a": BASE})
    npk.compact()
    lazy = npk.load("a", lazy=True)
    assert lazy._array.piece_count == 1
    return lazy


@pytest.fixture
def pieces(npk):
    """Pending in the log behind a file: more than one piece."""
    npk.save({"p": BASE[:4]})
    npk.compact()
    npk.append({"p": BASE[4:]})
    lazy = npk.load("p", lazy=True)
    assert lazy._array.piece_count > 1
    return lazy


def is_shared(array):
    """Whether it lies over the mapping of the store."""
    return not array.flags.owndata and not array.flags.writeable


# ---- __array__ ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape", [None, (3, 8)])
@pytest.mark.parametrize("dtype", [None, "i8", "<i8", ">i8", "f4", "U4"])
@pytest.mark.parametrize("copy", [None, True, False])
@pytest.mark.parametrize("name", ["whole", "pieces"])
def test_array_by_the_rules_of_numpy_2(request, name, copy, dtype, shape):
    lazy, base = request.getfixturevalue(name), BASE
    if shape is not None:
        lazy, base = lazy.reshape(shape), BASE.reshape(shape)
    converts = dtype is not None and np.dtype(dtype) != BASE.dtype
    if copy is False and (converts or name == "pieces"):
        with pytest.raises(ValueError, match="Unable to avoid copy"):
            lazy.__array__(dtype, copy=False)
        return
    result = lazy.__array__(dtype, copy=copy)
    expected = base if dtype is None else base.astype(dtype)
    assert type(result) is np.ndarray and result.dtype == expected.dtype and np.array_equal(result, expected)
    assert is_shared(result) == (not copy and not converts)
    if not is_shared(result):
        result[...] = 0
        assert np.array_equal(lazy[:], base)


@pytest.mark.parametrize("name", ["whole", "pieces"])
def test_numpy_asks_for_copies_as_of_an_ndarray(request, name):
    lazy = request.getfixturevalue(name)
    assert is_shared(np.asarray(lazy)) and np.asarray(lazy, "f4").flags.writeable
    for made in (np.array(lazy), np.array(lazy, copy=True), np.array(lazy, "f4"), np.array(lazy, "f4", copy=True)):
        made[...] = -1
        assert np.array_equal(lazy, BASE)
    if not NUMPY_2:  # there, False means "if needed"
        assert np.array_equal(np.array(lazy, copy=False), BASE)
    elif name == "whole":
        assert is_shared(np.array(lazy, copy=False)) and is_shared(np.asarray(lazy, copy=False))
    else:
        with pytest.raises(ValueError):
            np.asarray(lazy, copy=False)
    if NUMPY_2:
        assert np.array_equal(np.asarray(lazy, copy=True), BASE) and np.asarray(lazy, copy=True).flags.writeable
        with pytest.raises(ValueError):
            np.asarray(lazy, dtype="f4", copy=False)


def test_an_array_without_buffer_is_not_copied_either(npk):
    npk.save({"t": np.arange(5).astype("M8[s]")})
    npk.compact()
    lazy = npk.load("t", lazy=True)
    assert is_shared(np.asarray(lazy)) and is_shared(lazy.__array__(copy=False))
    if NUMPY_2:
        assert is_shared(np.array(lazy, copy=False))


# ---- the buffer protocol --------------------------------------------------------------------------------------------

REFUSED = ["M8[s]", "M8[D]", ">M8[us]", "m8[s]", "m8", "V3", "V16", [("a", "i4"), ("t", "M8[s]")], [("d", "m8[ms]")],
           [("v", "V2"), ("a", "f4")], [("n", [("x", "f8"), ("t", "M8[ns]")])], [("s", "M8[s]", (2,))],
           [("n", [("m", [("v", "V1")], (2, 2))])]]
EXPORTED = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "g", "F", "D", "G", "S3", "U2", ">i4", ">f8",
            ">U2", [("a", "<i4"), ("b", "f4")], [("n", [("x", "f8"), ("y", "f8")])], [("s", "i2", (2, 3))]]


def check_buffer(npk, dtype):
    array = np.zeros((3, 2), dtype)
    if array.dtype.kind == "U":
        array[...] = np.arange(6).reshape(3, 2).astype(array.dtype)
    else:
        content = np.arange(array.nbytes).reshape(3, -1) * 5 // 3
        array.view(np.uint8)[...] = content % (2 if array.dtype == bool else 251)
    npk.save({"a": array})
    npk.compact()
    return npk.load("a", lazy=True), array


@pytest.mark.parametrize("dtype", REFUSED, ids=str)
def test_a_dtype_that_a_buffer_cannot_name_is_refused(npk, dtype):
    lazy, array = check_buffer(npk, dtype)
    assert lazy._array.piece_count == 1
    for view in (lazy, lazy.reshape(2, 3)):
        with pytest.raises(BufferError, match="cannot be exported as a buffer"):
            memoryview(view)
        with pytest.raises(BufferError):
            np.frombuffer(view, np.uint8)
    result = np.asarray(lazy)  # by __array__
    assert result.dtype == array.dtype and result.shape == array.shape and result.tobytes() == array.tobytes()
    assert np.asarray(lazy.reshape(-1)).tobytes() == array.tobytes()


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"])
def test_types_of_ml_dtypes_are_refused(npk, name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([[1, 2], [3, 0]]).astype(getattr(ml_dtypes, name))
    npk.save({"a": array})
    npk.compact()
    lazy = npk.load("a", lazy=True)
    with pytest.raises(BufferError, match="cannot be exported as a buffer"):
        memoryview(lazy)
    result = np.asarray(lazy)
    assert result.dtype == array.dtype and result.tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", EXPORTED, ids=str)
def test_a_buffer_names_its_dtype(npk, dtype):
    lazy, array = check_buffer(npk, dtype)
    view = memoryview(lazy)
    assert view.readonly and view.c_contiguous and view.shape == (3, 2) and view.itemsize == array.itemsize
    result = np.asarray(view)
    assert result.dtype == array.dtype and result.tobytes() == view.tobytes() == array.tobytes()
    assert np.frombuffer(lazy, np.uint8).tobytes() == array.tobytes()
    assert memoryview(lazy.reshape(6)).shape == (6,)


def test_rows_in_pieces_have_no_buffer(pieces):
    with pytest.raises(BufferError, match="do not lie in one piece"):
        memoryview(pieces)
    assert np.array_equal(np.asarray(pieces), BASE)


# ---- mappings -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape", [(), (0,), (5,), (0, 3), (3, 0), (4, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["?", "i8", "f2", "G", "M8[s]", "S5", ">U3", "V7", [("a", "i4"), ("t", "M8[s]")]], ids=str)
def test_a_slice_keeps_the_mapping_alive(path, dtype, shape):
    array = np.zeros(shape, dtype)
    array.reshape(-1).view(np.uint8)[...] = 1 if array.dtype.kind != "U" else 0
    npk = NumPack(path, sync="never")
    npk.save({"a": array})
    npk.compact()
    lazy = npk.load("a", lazy=True)
    whole = np.asarray(lazy)
    assert whole.dtype == array.dtype and whole.shape == shape and not whole.flags.writeable
    part = whole[1:] if shape else whole[...]
    expected = array[1:] if shape else array[...]
    npk.drop("a")
    npk.compact()
    npk.close()
    del lazy, whole, npk
    shutil.rmtree(path)
    gc.collect()
    assert part.tobytes() == expected.tobytes() and part.shape == expected.shape
    with pytest.raises(ValueError):
        part[...] = part


def test_an_empty_slice_reads_nothing(whole, pieces, monkeypatch):
    monkeypatch.setattr(LazyArray, "_ndarray", lambda self: pytest.fail("mapped whole"))
    for lazy in (whole, pieces):
        for key in (slice(0, 0), slice(6, None), slice(4, 2), (slice(0, 0), 1), (slice(0, 0), slice(1, 3))):
            result = lazy[key]
            assert result.shape == BASE[key].shape and result.dtype == BASE.dtype and result.flags.writeable


# ---- DLPack ---------------------------------------------------------------------------------------------------------

def test_dlpack_arguments(whole, pieces):
    class Exported:
        def __init__(self, lazy, **arguments):
            self.lazy, self.arguments = lazy, arguments

        def __dlpack__(self, **arguments):
            arguments.update(self.arguments)
            return self.lazy.__dlpack__(**arguments)

        def __dlpack_device__(self):
            return self.lazy.__dlpack_device__()

    for lazy in (whole, pieces, whole.reshape(8, 3)):
        for arguments in ({}, {"copy": None}, {"copy": True}, {"dl_device": (1, 0)}, {"max_version": None}, {"stream": None}):
            assert np.array_equal(np.from_dlpack(Exported(lazy, **arguments)), BASE.reshape(lazy.shape))
        with pytest.raises(RuntimeError, match="stream"):
            lazy.__dlpack__(stream=1)
        with pytest.raises(BufferError, match="dl_device"):
            lazy.__dlpack__(dl_device=(2, 0))
    assert np.array_equal(np.from_dlpack(Exported(whole, copy=False)), BASE)
    with pytest.raises(BufferError, match="one piece"):
        pieces.__dlpack__(copy=False)


# ---- functions of NumPy ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["whole", "pieces"])
def test_functions_take_it_for_an_ndarray(request, name):
    lazy = request.getfixturevalue(name)
    for function in (np.sin, np.sum, np.sort, np.cumsum, lambda a: np.add(a, BASE), lambda a: np.add.reduce(BASE + 1, where=a > 3),
                     lambda a: np.maximum(3, a), lambda a: np.where(a > 3, a, 0), lambda a: np.concatenate([a, BASE, a]),
                     lambda a: np.stack([BASE, a]), lambda a: np.matmul(a, BASE.T), lambda a: np.einsum("ij->i", a),
                     lambda a: BASE + a, lambda a: np.float64(2) * a, lambda a: np.int8(2) - a, lambda a: BASE < a,
                     lambda a: a <= BASE, lambda a: np.int64(5) == a, lambda a: 5 != a, lambda a: np.take(a, [1, 0], 1)):
        result, expected = function(lazy), function(BASE)
        assert type(result) is type(expected) and np.asarray(result).dtype == np.asarray(expected).dtype
        assert np.array_equal(result, expected)
    assert np.array_equal(lazy, BASE) and np.array_equal(BASE, lazy) and not np.array_equal(lazy, BASE + 1)
    out = np.zeros_like(BASE)
    assert np.add(lazy, 1, out=out) is out and np.array_equal(out, BASE + 1)
    out[...] = lazy
    assert np.array_equal(out, BASE)


@pytest.mark.parametrize("dtype", ["i8", "f2", ">i4", "M8[s]", "S5", "U3", "V7", [("a", "i4"), ("t", "M8[s]")]], ids=str)
def test_saving_with_numpy(npk, dtype):
    lazy, array = check_buffer(npk, dtype)
    saved, expected = io.BytesIO(), io.BytesIO()
    np.save(saved, lazy)
    np.save(expected, array)
    assert saved.getvalue() == expected.getvalue()


def test_it_leaves_the_left_side_of_an_operator_in_charge(whole):
    for missing in ("__array_ufunc__", "__array_function__", "__array_priority__", "__array_wrap__", "__array_struct__",
                    "__array_interface__", "astype"):
        assert not hasattr(LazyArray, missing) and not hasattr(whole, missing)
