"""Dtypes and input: what is stored comes back, what cannot be stored is refused before anything is written."""

import array
import datetime

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


ALLOWED = [("i4", "i8"), ("u1", "u2"), ("f2", "f8"), ("f4", ">f4"), (">i2", "i4"), ("S2", "S5"), ("U2", ">U4"),
           ("M8[s]", ">M8[s]"), ("F", "D")]
REFUSED = [("i8", "i4"), ("f8", "f4"), ("i4", "f8"), ("u1", "i2"), ("?", "i1"), ("i1", "?"), ("S5", "S2"), ("U4", "U2"),
           ("M8[s]", "M8[ms]"), ("m8[s]", "m8[us]"), ("V3", "V4"), ("S3", "U3"), ("M8[s]", "i8"), ("D", "F"), ("i8", "u8"),
           ("f4", "D")]


@pytest.mark.parametrize("source,target", ALLOWED)
def test_typed_input_of_the_same_kind_widens(npk, source, target):
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


# ---- everything by everything ------------------------------------------------------------------------------------


def structures():
    aligned = np.dtype([("a", "i1"), ("b", ">f8"), ("c", "S3")], align=True)
    return STRUCTURED + [
        np.dtype([("outer", aligned), ("times", "M8[ms]", (2,)), ("x", "g")]),
        np.dtype([("a", "?"), ("v", "V5"), ("u", ">U2"), ("c", "F", (1, 2))]),
    ]


def ml_names():
    try:
        import ml_dtypes
    except ImportError:
        return []
    return [np.dtype(getattr(ml_dtypes, name)) for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz")]


UNITS = [f"M8[{unit}]" for unit in ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "10s")] + [
    "m8[Y]", "m8[D]", "m8[ns]", "m8", ">m8[7s]"]
EVERY = [np.dtype(dtype) for dtype in SIMPLE + UNITS] + [np.dtype(dtype) for dtype in structures()] + ml_names()


def values(dtype, count, seed=0):
    """A row of values of the dtype, no two neighbours alike, among them the special ones."""
    if dtype.isbuiltin == 2:
        return (np.arange(count) % 7 - 3 + seed).astype(dtype)
    array = make(dtype, (count,), seed)
    if dtype.kind in "mM":
        array[::3] = "NaT"
    elif dtype.kind in "fc":
        array[::3], array[1::3] = np.nan, -np.inf
    return array


def raw(array):
    """The bytes of the values, for structures without those between the fields."""
    if array.dtype.char in "gG" and np.finfo(np.longdouble).nmant == 63:  # ten of sixteen bytes count
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(-1, 16)[:, :10].tobytes()
    if array.dtype.names is None:
        return array.tobytes()
    return b"".join(raw(np.ascontiguousarray(array[field])) for field in array.dtype.names)


def layouts_of_rows(dtype, seed):
    """Arrays of shape (4, 3) in every layout, and their values in C order."""
    base = values(dtype, 12, seed).reshape(4, 3)
    yield "plain", base
    yield "fortran", np.asfortranarray(base)
    yield "reversed", base[::-1]
    yield "reversed both", base[::-1, ::-1]
    yield "strided", np.repeat(np.repeat(base, 2, axis=0), 2, axis=1)[::2, 1::2]
    yield "zero stride rows", np.broadcast_to(base[:1], base.shape)
    yield "zero stride", np.broadcast_to(base[:1, :1], base.shape)
    frozen = base.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen
    memory = np.zeros(base.nbytes + 1, np.uint8)
    unaligned = memory[1:].view(dtype).reshape(base.shape)
    unaligned[...] = base
    yield "unaligned", unaligned
    yield "subclass", base.view(np.matrix) if dtype.names is None and dtype.isbuiltin != 2 else base.view(np.recarray)


@pytest.mark.parametrize("dtype", EVERY, ids=str)
def test_every_dtype_in_every_layout_by_every_operation(path, dtype):
    with NumPack(path, sync="never") as npk:
        npk.save({"a": values(dtype, 6).reshape(2, 3)})
        expected = {}
        state = np.array(values(dtype, 6).reshape(2, 3))
        for seed, (layout, array) in enumerate(layouts_of_rows(dtype, 1)):
            given = raw(np.array(array, order="C", subok=False))
            plain = np.array(array, order="C", subok=False)
            npk.save({layout: array})
            expected[layout] = plain
            npk.append({"a": array})
            npk.replace({"a": array}, [0, 3, 1, 2])
            npk.replace({"a": array[1:2]}, slice(0, 1))
            state = np.concatenate([state, plain]).astype(dtype)
            state[[0, 3, 1, 2]] = plain
            state[0] = plain[1]
            npk.drop("a", [1, -1])
            state = np.delete(state, [1, len(state) - 1], axis=0).astype(dtype)
            assert raw(npk.load("a")) == raw(state), layout
            assert raw(np.array(array, order="C", subok=False)) == given  # the input is left alone
        expected["a"] = state
        for shape in ((), (0,), (1,), (0, 3), (3, 0), (0, 0), (2, 1, 0, 2), (1, 1, 2)):
            array = values(dtype, int(np.prod(shape))).reshape(shape)
            npk.save({str(shape): array})
            expected[str(shape)] = array
            if shape:
                npk.append({str(shape): array})
                expected[str(shape)] = np.concatenate([array, array]).astype(dtype)
    for fold in (False, True):
        with NumPack(path, sync="never") as npk:
            if fold:
                npk.compact()
            assert npk.verify() == []
            for name, array in expected.items():
                for result in (npk.load(name), npk.load(name, mmap_mode="r"), npk.load(name, mmap_mode="c"),
                               np.asarray(npk.load(name, lazy=True))):
                    assert type(result) is np.ndarray and result.shape == array.shape and result.dtype == dtype, name
                    assert result.dtype.str == dtype.str and raw(result) == raw(array), name
                assert npk.get_dtype(name) == dtype and npk.get_shape(name) == array.shape
                if array.ndim:
                    rows = np.arange(len(array))[::-1]
                    assert raw(npk.getitem(name, rows)) == raw(np.ascontiguousarray(array[rows]))


def allowed(source, target):
    """The rule of casting, written down a second time."""
    if source.names or target.names:
        return source.names == target.names and all(
            source[field].shape == target[field].shape and allowed(source[field].base, target[field].base)
            for field in source.names)
    if source.kind != target.kind:
        return False
    if source.isbuiltin == 2 or target.isbuiltin == 2:
        return source == target
    if source.kind in "mM":
        return np.datetime_data(source) == np.datetime_data(target)
    if source.kind == "V":
        return source.itemsize == target.itemsize
    if source.kind in "SU":
        return source.itemsize <= target.itemsize
    ranges = {"b": lambda dtype: (0,), "i": lambda dtype: (np.iinfo(dtype).max,), "u": lambda dtype: (np.iinfo(dtype).max,),
              "f": lambda dtype: (np.finfo(dtype).nmant,), "c": lambda dtype: (np.finfo(dtype).nmant,)}[source.kind]
    return ranges(source) <= ranges(target)


PAIRED = [np.dtype(text) for text in (
    "?", "i1", ">i2", "i4", "i8", "u1", "u2", ">u4", "u8", "f2", ">f4", "f8", "g", "F", ">D", "G", "S1", "S4", "U1", ">U4", "U3",
    "M8[s]", ">M8[s]", "M8[ms]", "M8[10s]", "M8", "m8[s]", "m8[D]", "V3", "V4")] + [np.dtype(fields) for fields in (
        [("x", "f4"), ("y", "i8")], [("x", ">f8"), ("y", "i8")], [("y", "i8"), ("x", "f4")], [("x", "f4"), ("z", "i8")],
        [("x", "f4")], [("x", "f4"), ("y", "i8"), ("z", "i8")], [("x", "i4"), ("y", "i8")], [("x", "f4", (2,)), ("y", "i8")],
        [("x", "f4", (1,)), ("y", "i8")], [("x", [("p", "f4"), ("q", "S2")]), ("y", "i8")],
        [("x", [("p", "f8"), ("q", "S3")]), ("y", "i8")], [("x", [("q", "S2"), ("p", "f4")]), ("y", "i8")])] + [
            np.dtype([("x", "f4"), ("y", "i8")], align=True)] + ml_names()[:2]


@pytest.mark.parametrize("target", PAIRED, ids=str)
def test_the_stored_dtype_never_changes(npk, target):
    start = values(target, 4)
    npk.save({"a": start})
    taken = 0
    for source in PAIRED:
        rows = values(source, 3, 1)
        before, lsn, logged = npk.load("a"), npk.lsn, npk.stats()["bytes_logged"]
        calls = (lambda: npk.append({"a": rows}), lambda: npk.replace({"a": rows}, [0, 2, 1]), lambda: npk.replace({"a": rows[0]}, 3),
                 lambda: npk.replace({"a": rows[:1]}, slice(0, 2)))
        if allowed(source, target):
            taken += 1
            for call in calls:
                call()
            after = npk.load("a")
            assert np.array_equal(raw(after[-3:]), raw(rows.astype(target)))
            assert raw(after[[0, 1]]) == raw(rows[[0, 0]].astype(target))
            assert raw(after[3:4]) == raw(rows[:1].astype(target))
        else:
            for call in calls:
                with pytest.raises(ValueError) as caught:
                    call()
                error = caught.value
                assert isinstance(error, TypeError) and error.kind == "dtype_mismatch" and error.array == "a"
                assert str(error).startswith("array 'a': ") and str(npk.get_dtype("a")) in str(error)
                assert any(str(given.dtype) in str(error) for given in (rows, rows[0]))
            assert npk.lsn == lsn and npk.stats()["bytes_logged"] == logged and raw(npk.load("a")) == raw(before)
        assert npk.get_dtype("a") == target and npk.load("a").dtype.str == target.str
    assert taken >= 1


@pytest.mark.parametrize("source,target", [("i8", "i2"), (">i8", "i2"), ("u8", "u1"), ("f8", "f2"), ("g", "f4"), ("D", "F"),
                                           ([("x", "f8"), ("y", "i8")], [("x", "f4"), ("y", "i1")])])
def test_narrowing_needs_to_be_asked_for(npk, source, target):
    source, target = np.dtype(source), np.dtype(target)
    npk.save({"a": np.zeros(2, target)})
    rows = np.ones(2, source)
    for call in (npk.append, lambda arrays, **options: npk.replace(arrays, [0, 1], **options)):
        for options in ({}, {"casting": "safe"}):
            with pytest.raises(TypeError, match="same_kind"):
                call({"a": rows}, **options)
        call({"a": rows}, casting="same_kind")
        for bad in ("unsafe", "no", None, 1):
            with pytest.raises(ValueError):
                call({"a": rows}, casting=bad)
    assert raw(npk.load("a")) == raw(np.ones(4, target))
    for other in ("?", "S1", "M8[s]", "u1" if target.kind == "i" else "i1"):  # another kind is never of the same kind
        with pytest.raises(TypeError):
            npk.append({"a": np.ones(1, other)}, casting="same_kind")


def test_strings_are_padded_and_never_cut(npk):
    for kind, empty in (("S", b""), ("U", "")):
        text = [b"abc", b""] if kind == "S" else ["abc", ""]
        npk.save({kind: np.array(text, f"{kind}5")})
        npk.append({kind: np.array(text, f"{kind}3")})
        assert npk.load(kind).tolist() == text + text
        for casting in ("safe", "same_kind"):
            with pytest.raises(TypeError):
                npk.append({kind: np.array(text, f"{kind}6")}, casting=casting)  # though every value would fit


DAY, SECOND = "M8[D]", "m8[s]"
HALF = datetime.datetime(2020, 1, 1, 12, 0, 0, 500000)
NESTED = [("x", "i4", (2,)), ("in", [("s", "S3"), ("z", "u1")]), ("t", "M8[s]")]


@pytest.mark.parametrize("dtype,good,bad", [
    (DAY, ["2020-01-01", datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), np.datetime64("2020-01-01T00", "ns"), None, "NaT"],
     [HALF, "2020-01-01T12", np.datetime64("2020-01-01T12"), 5, 5.0, True, "x"]),
    ("M8[s]", [HALF.replace(microsecond=0), "2020-01-01"], [HALF, "2020-01-01T00:00:00.5"]),
    ("M8[us]", [HALF], ["2020-01-01T00:00:00.0000001"]),
    ("M8[ns]", ["2020-01-01"], ["9999-01-01", "-9999-01-01"]),
    (SECOND, [5, -1, datetime.timedelta(days=1), np.timedelta64(2, "m"), None],
     [datetime.timedelta(microseconds=1), np.timedelta64(1500, "ms"), 5.0, 5.5, True, "5", 2 ** 64, HALF]),
    ("V3", [b"abc", b"ab"], [b"abcd", "abc", 5, None]),
    ("g", [2 ** 62 + 1, 0.1], ["x", 10 ** 5000]),
    ("F", [1 + 1j, 0.1, 2 ** 24], [2 ** 24 + 1, 1e39, 1e39j, "1"]),
    ("f2", [0.1, 2048], [65520.0, 2049, 1e5]),
    (">i2", [-5], [40000]),
    ("S3", [b"abc"], ["abc", b"abcd", 5, None]),
    ([("a", "i4"), ("b", "f4")], [(1, 0.1), (True, 2)], [(1,), (1, 2, 3), [1, 2], (1.5, 2), (2 ** 31, 2), (1, 1e39), (1, "2"), 5, None]),
    (NESTED, [([1, 2], (b"abc", 255), "2020-01-01"), (np.array([1, 2]), (b"", 0), datetime.datetime(2020, 1, 1))],
     [([1], (b"abc", 5), None), (7, (b"abc", 5), None), ([1, 2], (b"abcd", 5), None), ([1, 2], (b"abc", 256), None),
      ([1, 2], (b"abc",), None), ([1, 2.5], (b"abc", 5), None), ([1, 2], (b"abc", 5), HALF)]),
])
def test_untyped_values_survive_or_are_refused(npk, dtype, good, bad):
    dtype = np.dtype(dtype)
    npk.save({"a": np.zeros(1, dtype), "m": np.zeros((1, 2), dtype)})
    for value in good:
        one = np.zeros(1, dtype)
        one[0] = tuple(value) if dtype.names else value
        npk.append({"a": [value], "m": [[value, value]]})
        npk.replace({"a": [value]}, 0)
        npk.replace({"m": [value, value]}, 0)
        if not isinstance(value, np.generic):
            npk.replace({"a": value}, [0])
        for result in (npk.load("a")[[0, -1]], npk.load("m")[[0, -1]]):
            assert raw(result) == raw(np.repeat(one, result.size))
    npk.append({"a": list(good)})
    before, lsn = npk.load("a"), npk.lsn
    for value in bad:
        calls = [lambda: npk.append({"a": [value]}), lambda: npk.replace({"a": [value]}, [0])]
        if not (dtype.kind in "fc" and isinstance(value, int)):  # an int among floats is a float
            calls += [lambda: npk.append({"m": [[good[0], value]]}), lambda: npk.append({"a": [*good, value]})]
        for call in calls:
            with pytest.raises(ValueError) as caught:
                call()
            assert isinstance(caught.value, numpack.NumPackError) and caught.value.array in ("a", "m"), value
            assert caught.value.kind in ("dtype_mismatch", "shape_mismatch")
    assert npk.lsn == lsn and raw(npk.load("a")) == raw(before)


def test_untyped_values_for_narrow_types_of_ml_dtypes(npk):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for name, good, bad in (("bfloat16", [0.1, 3, float("inf"), float("nan")], [257, 1e39, "x"]),
                            ("float8_e4m3fn", [0.1, 16, float("nan")], [17, 1e6, float("inf")]),
                            ("int4", [-8, 7, 2.0], [8, 1.5, -9, float("nan")])):
        dtype = np.dtype(getattr(ml_dtypes, name))
        npk.save({name: np.zeros(1, dtype)})
        for value in good:
            npk.append({name: [value]})
            assert npk.load(name)[-1:].tobytes() == np.array([value]).astype(dtype).tobytes()
        before = npk.load(name)
        for value in bad:
            with pytest.raises(TypeError):
                npk.append({name: [value]})
        assert npk.load(name).tobytes() == before.tobytes()


def masked_inputs():
    plain = np.ma.masked_array([1, 2, 3], [False, True, False])
    fields = np.ma.zeros(4, [("x", "i4"), ("y", "f4", (2,)), ("z", [("w", "i1")])])
    fields["z"]["w"][2] = np.ma.masked
    yield from (plain, plain[1:2], np.ma.masked, [1.0, np.ma.masked], [plain, plain], [[plain[:1]], [plain[1:2]]], (plain,))
    yield from (fields, fields[::2], fields.reshape(2, 2).T, fields[2], np.ma.masked_all(3), np.ma.masked_all((2, 2))[::-1])


@pytest.mark.filterwarnings("ignore:.*converting a masked element to nan")
@pytest.mark.parametrize("value", list(masked_inputs()), ids=str)
def test_masked_values_are_refused(npk, value):
    npk.save({"a": np.zeros(3, int)})
    lsn = npk.lsn
    for call in (lambda: npk.save({"new": [1], "a": value}), lambda: npk.append({"a": value, "new": [1]}),
                 lambda: npk.replace({"a": value}, [0, 1, 2]), lambda: npk.append({"b": [1], "new": value})):
        with pytest.raises(TypeError, match="masked") as caught:
            call()
        assert caught.value.kind == "dtype_mismatch"
    assert npk.lsn == lsn and npk.get_member_list() == ["a"]


def test_masked_arrays_with_nothing_masked_are_values(npk):
    fields = np.ma.zeros(4, [("x", "i4"), ("y", "f4", (2,))])
    fields["x"] = [1, 2, 3, 4]
    npk.save({"f": fields[::2], "one": fields[1], "list": [np.ma.masked_array([1, 2], [False, False])], "z": np.ma.masked_array(5)})
    assert npk.load("f")["x"].tolist() == [1, 3] and npk.load("one")["x"] == 2 and npk.load("list").tolist() == [[1, 2]]
    assert npk.load("z") == 5


REFUSED_DTYPES = [
    np.dtype("O"), np.dtype([("a", "i4"), ("o", "O")]), np.dtype([("a", [("o", "O", (2,))])]), np.dtype([]), np.dtype("S0"),
    np.dtype("V0"), np.dtype([("a", "i4", (0,))]), np.dtype([("a", "S0")]),
    np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [0, 2]}),
    np.dtype({"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [0, 0]}),
    np.dtype([("n", np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [0, 3]}))]),
    np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [4, 0]}),  # out of order: an .npy header cannot say it
]


@pytest.mark.parametrize("dtype", REFUSED_DTYPES, ids=str)
def test_dtypes_that_cannot_be_stored(npk, dtype):
    npk.save({"a": [1]})
    lsn, logged = npk.lsn, npk.stats()["bytes_logged"]
    for shape in ((2,), (0,), (), (3, 0)):
        array = np.ndarray(shape, dtype) if dtype.itemsize == 0 else np.zeros(shape, dtype)
        for call in (lambda: npk.save({"good": [1], "bad": array}), lambda: npk.append({"good": [1], "bad": array})):
            with pytest.raises(TypeError) as caught:
                call()
            assert caught.value.kind == "dtype_mismatch" and caught.value.array == "bad" and "'bad'" in str(caught.value)
    assert npk.lsn == lsn and npk.stats()["bytes_logged"] == logged and npk.get_member_list() == ["a"]


def test_fields_of_ml_dtypes_have_no_description(npk):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with pytest.raises(TypeError, match=".npy header") as caught:
        npk.save({"a": np.zeros(2, [("x", ml_dtypes.bfloat16), ("y", "i4")])})
    assert caught.value.kind == "dtype_mismatch" and len(npk) == 0


def test_what_is_refused_in_a_transaction_leaves_it_usable(npk):
    npk.save({"a": np.arange(3)})
    with npk.transaction():
        npk.append({"a": [3]})
        for bad in (np.array([object()]), np.array([1.5]), [None], [2 ** 70], np.ma.masked, [[1], [2, 3]]):
            for call in (lambda: npk.append({"b": [9], "a": bad}), lambda: npk.replace({"a": bad}, [0])):
                with pytest.raises(ValueError) as caught:
                    call()
                assert isinstance(caught.value, numpack.NumPackError) and caught.value.array == "a"
        assert npk.get_member_list() == ["a"] and npk.load("a").tolist() == [0, 1, 2, 3]
        npk.append({"a": [4]})
    assert npk.load("a").tolist() == [0, 1, 2, 3, 4] and npk.get_member_list() == ["a"]


class Arrayish:
    def __array__(self, dtype=None, copy=None):
        return np.arange(4, dtype="i2").reshape(2, 2)


def test_save_takes_what_asarray_takes(npk):
    inputs = {"list": [1, 2], "tuple": (1.5, 2), "nested": [[1, 2], [3, 4]], "scalar": 5, "text": "abc", "bytes": b"abc", "bool": True,
              "range": range(3), "numpy": np.float32(1), "arrays": [np.arange(2), np.arange(2)], "array": array.array("d", [1, 2]),
              "memoryview": memoryview(b"abc"), "__array__": Arrayish(), "complex": 1j, "record": np.zeros(2, [("a", "i4")])[0],
              "recarray": np.zeros(2, [("a", "i4")]).view(np.recarray), "empty": [], "date": [np.datetime64("2020-01-01")], "memmap": np.zeros(3)}
    npk.save(inputs)
    for name, value in inputs.items():
        expected = np.asarray(value)
        assert npk.get_dtype(name) == expected.dtype and npk.load(name).tobytes() == expected.tobytes(), name
        assert npk.get_shape(name) == expected.shape


@pytest.mark.parametrize("ragged", [[[1], [2, 3]], [[1, 2], 3], [np.zeros(2), np.zeros(3)], [[[1]], [2]]], ids=str)
def test_ragged_input_is_refused_everywhere(npk, ragged):
    npk.save({"a": np.zeros((2, 2))})
    lsn = npk.lsn
    for call in (lambda: npk.save({"a": ragged}), lambda: npk.append({"a": ragged}), lambda: npk.replace({"a": ragged}, [0, 1]),
                 lambda: npk.append({"new": ragged})):
        with pytest.raises(ValueError) as caught:
            call()
        assert caught.value.kind == "shape_mismatch" and caught.value.array in ("a", "new")
    assert npk.lsn == lsn


def test_as_many_dimensions_as_numpy_has(npk):
    limit = 64 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 32
    deep = np.arange(2).reshape((2,) + (1,) * (limit - 1))
    npk.save({"a": deep, "z": np.zeros((1,) * (limit - 1) + (0,))})
    npk.append({"a": deep})
    npk.replace({"a": deep[:1]}, 3)
    assert npk.load("a").shape == (4,) + (1,) * (limit - 1) and npk.load("a").ravel().tolist() == [0, 1, 0, 0]
    assert npk.load("z").shape == (1,) * (limit - 1) + (0,)


IMPOSSIBLE = ["", "x" * 256, "\u00e4" * 128, "a\0b", "\0", "a\0", "\ud800", "a\udfff"]
BY_NAME = {
    "load": lambda npk, name: npk.load(name), "lazy": lambda npk, name: npk.load(name, lazy=True),
    "mapped": lambda npk, name: npk.load(name, mmap_mode="r"), "item": lambda npk, name: npk[name],
    "get": lambda npk, name: npk.get(name), "getitem": lambda npk, name: npk.getitem(name, 0),
    "get_dtype": lambda npk, name: npk.get_dtype(name), "get_shape": lambda npk, name: npk.get_shape(name),
    "get_modify_time": lambda npk, name: npk.get_modify_time(name), "has_array": lambda npk, name: npk.has_array(name),
    "array": lambda npk, name: npk.array(name), "stream_load": lambda npk, name: npk.stream_load(name),
    "update": lambda npk, name: npk.update(name), "array_attrs": lambda npk, name: npk.array_attrs(name),
    "save": lambda npk, name: npk.save({"ok": [1], name: [1]}), "append": lambda npk, name: npk.append({"ok": [1], name: [1]}),
    "replace": lambda npk, name: npk.replace({"a": 9, name: 9}, 0), "drop": lambda npk, name: npk.drop(name),
    "drop several": lambda npk, name: npk.drop(["a", name]), "drop rows": lambda npk, name: npk.drop(name, 0),
    "delete": lambda npk, name: npk.__delitem__(name), "set": lambda npk, name: npk.__setitem__(name, [1]),
    "clone to": lambda npk, name: npk.clone("a", name), "clone from": lambda npk, name: npk.clone(name, "b"),
    "rename to": lambda npk, name: npk.rename("a", name), "rename from": lambda npk, name: npk.rename(name, "b"),
    "snapshot": lambda npk, name: npk.snapshot()[name],
}


@pytest.mark.parametrize("method", BY_NAME)
def test_impossible_names_are_refused_by_every_method(npk, method):
    npk.save({"a": [1], "b\u00e4": [2]})
    lsn = npk.lsn
    for name in IMPOSSIBLE:
        with pytest.raises(ValueError) as caught:
            BY_NAME[method](npk, name)
        assert caught.value.kind == "invalid_argument" and not isinstance(caught.value, TypeError)
    for name in (5, b"a", ("a",), 1.5, np.array("a")):
        if method in ("save", "append", "replace", "set") and isinstance(name, np.ndarray):
            continue  # not hashable
        if method in ("drop", "drop rows") and isinstance(name, tuple):
            continue  # several names
        with pytest.raises(TypeError) as caught:
            BY_NAME[method](npk, name)
        assert caught.value.kind == "invalid_argument"
    with npk.transaction():
        for name in IMPOSSIBLE:
            with pytest.raises(ValueError):
                BY_NAME[method](npk, name)
    with npk.snapshot() as snapshot:
        for name in IMPOSSIBLE + [5, b"a", None]:
            assert name not in npk and name not in snapshot and name not in npk.load()
    assert npk.lsn == lsn and npk.load("a").tolist() == [1]


def test_names_are_compared_byte_for_byte(npk):
    names = ["\u00e4", "a\u0308", "\u212b", "\u00c5", "a", "A", " a", "\ufb01", "fi", "\U0010ffff", "\x01", "x" * 255, "\u20ac" * 85]
    npk.save({name: [index] for index, name in enumerate(names)})
    assert len(npk) == len(names)
    for index, name in enumerate(names):
        assert npk.load(name).tolist() == [index] and npk.get_member_list().count(name) == 1
    npk.close()
    npk.open()
    for name in names:
        npk.rename(name, "other")
        assert name not in npk and len(npk) == len(names)
        npk.rename("other", name)
    assert npk.has_array(np.str_("fi"))
