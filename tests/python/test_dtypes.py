"""Dtypes and input: what is stored comes back, what cannot be stored is refused before anything is written."""

import numpy as np
import pytest

import numpack
from numpack import NumPack

SIMPLE = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "g", "F", "D", "G", "M8[s]", "M8[D]",
          "M8[25us]", "m8[ms]", "S5", "U3", ">i4", ">f8", ">u2", ">M8[s]", ">U3", "V7"]
STRUCTURED = [
    [("a", "<i4"), ("b", ">f8")],
    [("x", "f4", (2, 3)), ("n", [("s", "S3"), ("t", "M8[s]")])],
    np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"], "offsets": [3, 16], "itemsize": 32}),
    np.dtype([("a", "i1"), ("b", "f8")], align=True),
    [(("title", "name"), "i4")],
    [("\u00e4 'quoted\"", "i2")],
]
SHAPES = [(), (0,), (1,), (5,), (4, 3), (0, 3), (3, 0), (2, 3, 4)]


def make(dtype, shape, seed=0):
    """An array of random bytes that is a value of the dtype."""
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(seed)
    if dtype.kind == "U":
        letters = rng.integers(97, 123, shape + (dtype.itemsize // 4,)).astype("u4")
        return np.ascontiguousarray(letters).view(f"U{dtype.itemsize // 4}").reshape(shape).astype(dtype)
    if dtype.names is None and dtype.kind in "?bfcgFDG" or dtype.kind == "b":
        return np.asarray(rng.random(shape) * 4).astype(dtype)
    count = int(np.prod(shape)) * dtype.itemsize
    raw = rng.integers(1, 100, count, dtype=np.uint8)
    return np.frombuffer(raw.tobytes(), dtype, count // dtype.itemsize).reshape(shape).copy()


def same(left, right):
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return np.array_equal(left, right) if left.dtype.names else left.tobytes() == right.tobytes()


@pytest.mark.parametrize("dtype", SIMPLE + STRUCTURED, ids=str)
def test_every_dtype_round_trips_through_every_operation(path, dtype):
    with NumPack(path, sync="never") as npk:
        arrays = {str(shape): make(dtype, shape) for shape in SHAPES}
        npk.save(arrays)
        for name, array in arrays.items():
            for result in (npk.load(name), npk.load(name, mmap_mode="r"), npk.load(name, lazy=True).copy(),
                           np.asarray(npk.load(name, lazy=True))):
                assert same(result, array), name
                assert result.dtype.byteorder == array.dtype.byteorder
            assert npk.get_dtype(name) == array.dtype
        rows = make(dtype, (3, 2), 1)
        npk.save({"rows": rows})
        npk.append({"rows": rows[::-1]})
        npk.replace({"rows": rows[:2]}, [5, 0])
        expected = np.concatenate([rows, rows[::-1]]).astype(rows.dtype)  # NumPy gives native byte order
        expected[[5, 0]] = rows[:2]
        npk.drop("rows", [1])
        expected = np.delete(expected, 1, axis=0)
        assert same(npk.load("rows"), expected)
    with NumPack(path) as npk:
        assert same(npk.load("rows"), expected)
        npk.compact()
        assert same(npk.load("rows"), expected)
        for name, array in arrays.items():
            assert same(npk.load(name), array)


def layouts(array):
    yield "fortran", np.asfortranarray(array)
    yield "reversed", array[::-1]
    yield "reversed columns", array[:, ::-1]
    yield "strided", np.repeat(array, 2, axis=0)[::2]
    yield "transposed", np.ascontiguousarray(array.T).T
    yield "broadcast", np.broadcast_to(array[:1], array.shape)
    frozen = array.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen
    raw = np.empty(array.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(array.dtype).reshape(array.shape)
    unaligned[...] = array
    yield "unaligned", unaligned


@pytest.mark.parametrize("dtype", ["f4", ">i8", "M8[s]", "S3"])
def test_every_layout_is_stored_by_value(npk, dtype):
    base = make(dtype, (6, 4))
    for name, array in layouts(base):
        npk.save({"a": array})
        assert np.array_equal(npk.load("a"), array), name
        npk.append({"a": array})
        assert np.array_equal(npk.load("a"), np.concatenate([array, array])), name
        npk.replace({"a": array}, range(6, 12))
        npk.replace({"a": array}, list(range(6)))
        assert np.array_equal(npk.load("a"), np.concatenate([array, array])), name


def test_ml_dtypes_are_stored_by_name(path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with NumPack(path) as npk:
        for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
            array = np.arange(6).reshape(3, 2).astype(getattr(ml_dtypes, name))
            npk.save({name: array})
            npk.append({name: array})
            npk.append({name: [[1.0, 2.0]]})
            assert npk.load(name).dtype == array.dtype and npk.get_metadata()["arrays"][name]["descr"] == name
            assert np.array_equal(npk.load(name)[:6].astype("f4"), np.concatenate([array, array]).astype("f4"))
            with pytest.raises(TypeError):
                npk.append({name: np.zeros((1, 2), "f4")})


OBJECTS = [
    np.array([None]), np.array([{}]), [object()], [None], np.zeros(2, [("a", "O")]),
    np.zeros(2, np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [0, 2]})),
    np.ma.masked_array([1, 2], [True, False]), {"a": 1}, {1, 2}, lambda: 0, np.zeros(2, np.dtype([])),
]


@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: type(value).__name__ + str(getattr(value, "dtype", "")))
def test_what_cannot_be_stored_is_a_type_error(npk, value):
    lsn = npk.lsn
    for call in (npk.save, npk.append):
        with pytest.raises(TypeError) as caught:
            call({"good": [1], "a": value})
        assert caught.value.kind == "dtype_mismatch" and caught.value.array == "a" and "'a'" in str(caught.value)
    assert npk.lsn == lsn and len(npk) == 0


def test_variable_width_strings_are_refused(npk):
    if not hasattr(getattr(np, "dtypes", None), "StringDType"):
        pytest.skip("NumPy 2 only")
    with pytest.raises(TypeError):
        npk.save({"a": np.array(["x", "yy"], dtype=np.dtypes.StringDType())})


def test_masked_arrays_without_masked_values_are_data(npk):
    npk.save({"a": np.ma.masked_array([1, 2], [False, False]), "b": np.ma.masked_array([1, 2])})
    assert npk.load("a").tolist() == [1, 2] == npk.load("b").tolist()


def test_ragged_input_is_a_shape_error(npk):
    with pytest.raises(ValueError) as caught:
        npk.save({"a": [[1], [2, 3]]})
    assert caught.value.kind == "shape_mismatch" and len(npk) == 0


ALLOWED = [("i4", "i8"), ("u1", "u2"), ("f2", "f8"), ("f4", "D"), ("f4", ">f4"), (">i2", "i4"), ("S2", "S5"), ("U2", ">U4"),
           ("M8[s]", ">M8[s]"), ("F", "D")]
REFUSED = [("i8", "i4"), ("f8", "f4"), ("i4", "f8"), ("u1", "i2"), ("?", "i1"), ("i1", "?"), ("S5", "S2"), ("U4", "U2"),
           ("M8[s]", "M8[ms]"), ("m8[s]", "m8[us]"), ("V3", "V4"), ("S3", "U3"), ("M8[s]", "i8"), ("D", "F"), ("i8", "u8"),
           ("f4", "D")]


@pytest.mark.parametrize("source,target", ALLOWED)
def test_typed_input_of_the_same_kind_widens(npk, source, target):
    if np.dtype(source).kind != np.dtype(target).kind:
        pytest.skip("another kind")
    npk.save({"a": make(target, (2,))})
    array = make(source, (3,), 1)
    npk.append({"a": array})
    npk.replace({"a": array[:1]}, 0)
    loaded = npk.load("a")
    assert loaded.dtype == np.dtype(target) and np.array_equal(loaded[2:], array) and loaded[0] == array[0]


@pytest.mark.parametrize("source,target", REFUSED)
def test_typed_input_that_does_not_fit_is_refused(npk, source, target):
    before = make(target, (2,))
    npk.save({"a": before})
    lsn = npk.lsn
    for call in (lambda: npk.append({"a": make(source, (1,))}), lambda: npk.replace({"a": make(source, (1,))}, 0),
                 lambda: npk.replace({"a": make(source, (1,))[0:1]}, [0])):
        with pytest.raises(ValueError) as caught:
            call()
        assert isinstance(caught.value, TypeError) and caught.value.kind == "dtype_mismatch"
    assert npk.lsn == lsn and same(npk.load("a"), before)


def test_same_kind_opts_in_to_narrowing(npk):
    npk.save({"i": np.zeros(1, "i2"), "f": np.zeros(1, "f4"), "s": np.zeros(1, "S2")})
    npk.append({"i": np.array([7], "i8"), "f": np.array([0.1])}, casting="same_kind")
    assert npk.load("i").tolist() == [0, 7] and npk.load("f")[1] == np.float32(0.1)
    for bad in ({"i": np.array([0.5])}, {"s": np.array([b"abc"])}, {"i": np.array([1], "u1")}):
        with pytest.raises(TypeError):
            npk.append(bad, casting="same_kind")
    with pytest.raises(ValueError):
        npk.append({"i": [1]}, casting="unsafe")


def test_structured_input_needs_the_same_fields_in_order(npk):
    npk.save({"a": np.zeros(1, [("x", "f8"), ("y", "i8")])})
    npk.append({"a": np.array([(1.5, 2)], [("x", "f4"), ("y", "i2")])})
    for bad in ([("y", "i8"), ("x", "f8")], [("x", "f8")], [("x", "f8"), ("z", "i8")], [("x", "i4"), ("y", "i8")]):
        with pytest.raises(TypeError):
            npk.append({"a": np.zeros(1, bad)})
    npk.append({"a": [(2.5, 3)]})
    with pytest.raises(TypeError):
        npk.append({"a": [(2.5, 3.5)]})
    assert npk.load("a").tolist() == [(0.0, 0), (1.5, 2), (2.5, 3)]


@pytest.mark.parametrize("dtype,good,bad", [
    ("u1", [0, 255, True, 3.0], [256, -1, 1.5, float("nan"), "1", 1j, None, 2 ** 70]),
    ("i8", [-2 ** 63, 2 ** 63 - 1, 2.0 ** 62], [2 ** 63, -2 ** 63 - 1, 1e30, 0.5, float("inf")]),
    ("u8", [2 ** 64 - 1, 0], [2 ** 64, -1]),
    ("f4", [0.5, 0.1, 3, True, float("nan"), float("inf"), 2 ** 24], [2 ** 24 + 1, 1e39, 1j, "x", None, 2 ** 200]),
    ("f8", [2 ** 53, 1e308], [2 ** 53 + 1, "1.0", 10 ** 400]),
    ("D", [1j, 1.5, 2], ["x", None]),
    ("?", [True, False, 0, 1, 1.0], [2, 0.5, "True"]),
    ("S3", [b"abc", b""], [b"abcd", "abc", 1]),
    ("U3", ["abc", "\u00e4"], ["abcd", b"abc", 1]),
    ("M8[D]", ["2020-01-01", np.datetime64("2020-01-02")], ["2020-01-01T12:00", "nonsense", 1.5]),
])
def test_untyped_input_converts_if_every_value_survives(npk, dtype, good, bad):
    npk.save({"a": np.zeros(1, dtype)})
    for value in good:
        npk.append({"a": [value]})
        if not isinstance(value, np.generic):
            npk.replace({"a": value}, 0)
        npk.replace({"a": [value]}, [0])
    assert npk.load("a").tolist()[1:] == pytest.approx(np.array(good, dtype).tolist(), nan_ok=True) if dtype[0] in "uif" \
        else npk.load("a").tolist()[1:] == np.array(good, dtype).tolist()
    before = npk.load("a")
    for value in bad:
        for call in (lambda: npk.append({"a": [value]}), lambda: npk.replace({"a": [value]}, [0])):
            with pytest.raises(ValueError) as caught:
                call()
            assert isinstance(caught.value, TypeError), value
    assert same(npk.load("a"), before)


def test_npz_files_and_lazy_arrays_are_input(npk, tmp_path):
    np.savez(tmp_path / "x.npz", a=np.arange(3), b=np.eye(2))
    with np.load(tmp_path / "x.npz") as archive:
        npk.save(archive)
    npk.save({"c": npk.load("b", lazy=True)})
    npk.append({"c": npk.load("b", lazy=True)})
    assert npk.load("c").tolist() == np.concatenate([np.eye(2), np.eye(2)]).tolist() and npk.load("a").tolist() == [0, 1, 2]


def test_many_dimensions(npk):
    deep = np.zeros((2,) + (1,) * 31)
    npk.save({"a": deep})
    assert npk.load("a").shape == deep.shape
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        deep = np.zeros((2,) + (1,) * 63)
        npk.save({"a": deep})
        assert npk.load("a").shape == deep.shape


def test_names(npk):
    good = ["a", "x" * 255, "\u00e4" * 127, "a/b", "..", "../../etc", "a b", " ", "\n", "\u2028", "\U0001f600", "a\u0308",
            "\u00e4", "CON", "A", "FORMAT"]
    npk.save({name: [index] for index, name in enumerate(good)})
    assert npk.get_member_list() == sorted(set(good))
    for index, name in enumerate(good):
        assert npk.load(name).tolist() == [index]
    lsn = npk.lsn
    for bad in ("", "x" * 256, "\u00e4" * 128, "a\0b", "\0", "\ud800"):
        for call in (lambda: npk.save({"ok": [1], bad: [1]}), lambda: npk.append({bad: [1]}), lambda: npk.clone("a", bad),
                     lambda: npk.rename("a", bad), lambda: npk.replace({bad: [1]}, 0), lambda: npk.drop(bad)):
            with pytest.raises(ValueError) as caught:
                call()
            assert isinstance(caught.value, numpack.NumPackError)
    for bad in (5, None, b"a", ("a",)):
        for call in (lambda: npk.save({bad: [1]}), lambda: npk.append({bad: [1]}), lambda: npk.clone("a", bad)):
            with pytest.raises(TypeError):
                call()
    assert npk.lsn == lsn
