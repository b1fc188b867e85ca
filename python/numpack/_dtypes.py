"""Dtypes: how they are written down, which are refused, and what may be put into an array of a given dtype."""

import sys

import numpy as np

from ._errors import DTypeError, ShapeError

_DTYPES: dict = {}  # description -> dtype
_DESCRS: dict = {}  # dtype -> description


def encode(dtype, name):
    """The stored description of a dtype: what the header of an ``.npy`` file has, for ml_dtypes the name.

    Raises
    ------
    DTypeError
        Objects, variable width, items of no size, overlapping or reordered fields.
    """
    try:
        return _DESCRS[dtype]
    except KeyError:
        pass
    if dtype.hasobject or dtype.kind in "OT":
        raise DTypeError(f"array {name!r}: dtype {dtype} has no fixed size and cannot be stored", array=name)
    if dtype.itemsize == 0:
        raise DTypeError(f"array {name!r}: dtype {dtype} has items of no size and cannot be stored", array=name)
    descr = None
    if dtype.isbuiltin == 2:  # registered by another package: ml_dtypes
        descr = dtype.name
    elif dtype.names is None:
        descr = dtype.str
    else:
        try:
            descr = repr(dtype.descr)
        except ValueError as error:
            raise DTypeError(f"array {name!r}: dtype {dtype}: {error}", array=name) from None
    try:
        same = decode(descr, name) == dtype
    except (DTypeError, TypeError, ValueError):
        same = False
    if not same:
        raise DTypeError(f"array {name!r}: dtype {dtype} cannot be written down in an .npy header", array=name)
    _DESCRS[dtype] = descr
    return descr


def decode(descr, name=None):
    """The dtype of a stored description."""
    try:
        return _DTYPES[descr]
    except KeyError:
        pass
    if descr[:1] in "[('":
        import ast
        dtype = np.lib.format.descr_to_dtype(ast.literal_eval(descr))
    else:
        try:
            dtype = np.dtype(descr)
        except TypeError:
            try:
                import ml_dtypes
                dtype = np.dtype(getattr(ml_dtypes, descr))
            except (ImportError, AttributeError, TypeError):
                raise DTypeError(
                    f"array {name!r}: dtype {descr!r} is not known here; install ml_dtypes", array=name) from None
    _DTYPES[descr] = dtype
    return dtype


def as_array(value, name):
    """Anything `np.asarray` takes, as an ndarray whose dtype can be stored.

    Raises
    ------
    DTypeError
        Object arrays and masked arrays with masked values.
    ShapeError
        Ragged input.
    """
    if type(value) is np.ndarray:
        return value
    masked = sys.modules.get("numpy.ma")
    if masked is not None and isinstance(value, masked.MaskedArray):
        if masked.getmaskarray(value).any() if value.dtype.names is None else _any_masked(value, masked):
            raise DTypeError(f"array {name!r}: masked values cannot be stored; fill them first", array=name)
        return np.asarray(value.data)
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ShapeError(f"array {name!r}: {error}", array=name) from None


def _any_masked(value, masked):
    return bool(np.asarray(masked.getmaskarray(value)).view(np.bool_).any())


def contiguous(array):
    """The same values in C order, in the machine's one piece of memory."""
    return array if array.flags.c_contiguous else np.array(array, order="C", copy=True, subok=False)


def castable(source, target, casting="safe"):
    """Whether typed input of one dtype may go into an array of another."""
    if source == target:
        return True
    if source.subdtype is not None or target.subdtype is not None:
        return (source.subdtype is not None and target.subdtype is not None and source.shape == target.shape
                and castable(source.base, target.base, casting))
    if source.names is not None or target.names is not None:
        return source.names == target.names and all(
            castable(source[field], target[field], casting) for field in target.names)
    kind = target.kind
    if source.kind != kind or source.isbuiltin == 2 or target.isbuiltin == 2:
        return False
    if kind in "mM":
        return np.datetime_data(source) == np.datetime_data(target)
    if kind == "V":
        return False
    if kind in "SU":
        return source.itemsize <= target.itemsize
    return np.can_cast(source, target, casting)


_UNTYPED = (list, tuple, range, bool, int, float, complex, str, bytes)


def convert(value, dtype, name, casting="safe"):
    """Rows for an array of `dtype`, as a C-contiguous ndarray of exactly that dtype.

    Typed input needs the same kind and a safe cast; untyped input (lists and Python scalars) converts if every value
    survives, where a float may be rounded to the nearest value of the stored type but not overflow.

    Raises
    ------
    DTypeError
        The cast is not allowed, or a value does not survive.
    ShapeError
        Ragged input.
    """
    if type(value) is np.ndarray and value.dtype is dtype:
        return value if value.flags.c_contiguous else contiguous(value)
    if isinstance(value, _UNTYPED) and not isinstance(value, np.generic):
        return contiguous(_convert_untyped(value, dtype, name))
    array = as_array(value, name)
    if not hasattr(value, "dtype") and array.dtype.hasobject:
        return contiguous(_convert_untyped(value, dtype, name))
    if array.dtype != dtype:
        if not castable(array.dtype, dtype, casting):
            hint = "" if casting == "same_kind" or array.dtype.kind != dtype.kind else "; casting=\"same_kind\" narrows"
            raise DTypeError(f"array {name!r}: {array.dtype} does not fit the stored dtype {dtype}{hint}", array=name)
        array = array.astype(dtype, order="C", casting="unsafe")
    elif array.dtype.byteorder != dtype.byteorder or array.dtype.names is not None:
        array = array.astype(dtype, order="C", copy=False)
    return contiguous(array)


def _lost(name, dtype, raw=None):
    what = "a value" if raw is None else f"a value of type {raw}"
    return DTypeError(f"array {name!r}: {what} does not survive the conversion to the stored dtype {dtype}", array=name)


def _convert_untyped(value, dtype, name):
    raw = as_array(value, name)
    if dtype.names is None and raw.size == 0:
        return np.empty(raw.shape, dtype)
    kind = "f" if dtype.isbuiltin == 2 else dtype.kind
    try:
        if dtype.names is not None or kind in "mMV":
            return _convert_exactly(value, raw, dtype, name)
        if kind in "SU":
            if raw.dtype.kind != kind or raw.dtype.itemsize > dtype.itemsize:
                raise _lost(name, dtype, raw.dtype)
            return raw.astype(dtype)
        if raw.dtype.kind == "O" or (kind in "biu" and raw.dtype.kind == "f"):
            return _convert_objects(value, dtype, kind, name)
        return _convert_numbers(raw, dtype, kind, name)
    except (OverflowError, UnicodeError):
        raise _lost(name, dtype) from None
    except DTypeError:
        raise
    except (TypeError, ValueError) as error:
        raise DTypeError(f"array {name!r}: {error}", array=name) from None


def _convert_numbers(raw, dtype, kind, name):
    from_kind = raw.dtype.kind
    if from_kind not in "biufc" or (from_kind == "c" and kind != "c"):
        raise _lost(name, dtype, raw.dtype)
    with np.errstate(all="ignore"):
        result = raw.astype(dtype)
    if kind in "biu":
        if from_kind != "b" and not (result == raw).all():
            raise _lost(name, dtype)
        if from_kind in "iu" and kind in "iu" and ((result < 0) != (raw < 0)).any():
            raise _lost(name, dtype)
        return result
    if from_kind in "iu":
        # Doubles hold integers up to 2 ** 53; beyond that, and for narrower floats, compare as Python numbers.
        wide = result.astype(np.complex128 if kind == "c" else np.float64) if dtype.itemsize < 16 else result
        if not np.isfinite(wide).all():
            raise _lost(name, dtype)
        if int(raw.max()) > 2 ** 53 or int(raw.min()) < -2 ** 53:
            pairs = zip(wide.ravel().tolist(), raw.ravel().tolist())
            if any((item.real if kind == "c" else item) != whole for item, whole in pairs):
                raise _lost(name, dtype)
        elif not (wide == raw).all():
            raise _lost(name, dtype)
    elif from_kind in "fc":
        finite = np.isfinite(result if dtype.isbuiltin != 2 else result.astype(np.float64))
        if not (finite == np.isfinite(raw)).all():
            raise _lost(name, dtype)
    return result


def _convert_objects(value, dtype, kind, name):
    objects = np.array(value, dtype=object)
    if not all(isinstance(item, (bool, int, float, complex, np.number, np.bool_)) for item in objects.ravel()):
        raise _lost(name, dtype, "object")
    with np.errstate(all="ignore"):
        result = objects.astype(dtype)
    for before, after in zip(objects.ravel().tolist(), result.ravel().tolist()):
        exact = kind in "biu" or isinstance(before, int)
        if before != after if exact else not _survives(before, after):
            raise _lost(name, dtype)
    return result


def _leaves(value):
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, np.ndarray):
        yield from _leaves(value.tolist())
    else:
        yield value


def _survives(before, after):
    if isinstance(before, np.generic):
        before = before.item()
    if isinstance(before, (float, complex)) and isinstance(after, (float, complex)):
        return before != before or (abs(before) == float("inf")) == (abs(after) == float("inf"))
    if isinstance(before, bytes) and isinstance(after, bytes):
        return before.rstrip(b"\0") == after.rstrip(b"\0")
    return before == after


def _convert_exactly(value, raw, dtype, name):
    """Structures, times and voids: what comes out must be what went in, item by item."""
    result = np.array(value, dtype=dtype)
    if dtype.names is not None:
        before, after = list(_leaves(value)), list(_leaves(result.tolist()))
        if len(before) != len(after) or not all(map(_survives, before, after)):
            raise _lost(name, dtype)
    elif dtype.kind in "mM":
        if raw.dtype.kind not in "iO" or dtype.kind == "M" and raw.dtype.kind != "O":
            fine = np.array(value, dtype=dtype.kind + "8")
            if not ((fine == result) | np.isnat(fine)).all():
                raise _lost(name, dtype)
    elif raw.dtype.kind not in "SV" or raw.dtype.itemsize > dtype.itemsize:
        raise _lost(name, dtype, raw.dtype)
    return result
