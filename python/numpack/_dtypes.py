"""Dtypes: how they are written down, which are refused, and what may be put into an array of a given dtype."""

import sys
from datetime import timedelta

import numpy as np

from ._errors import DTypeError, NumPackError, ShapeError

_DTYPES = {}  # description -> dtype
_DESCRS = {}  # dtype -> description


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
        if _any_set(masked.getmaskarray(value)):
            raise _masked(name)
        return np.asarray(value.data)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ShapeError(f"array {name!r}: {error}".rstrip("."), array=name) from None
    if masked is not None and isinstance(value, (list, tuple)) and _holds_masked(value, masked):
        raise _masked(name)
    return array


def _masked(name):
    return DTypeError(f"array {name!r}: masked values cannot be stored; fill them first", array=name)


def _any_set(mask):
    if mask.dtype.names is None:
        return bool(mask.any())
    return any(_any_set(mask[field]) for field in mask.dtype.names)


def _holds_masked(value, masked):
    """Whether there are masked values in a list: NumPy would take what lies under the mask."""
    kinds = set(map(type, value))
    if any(issubclass(kind, masked.MaskedArray) for kind in kinds) and any(
            isinstance(item, masked.MaskedArray) and _any_set(masked.getmaskarray(item)) for item in value):
        return True
    return any(issubclass(kind, (list, tuple)) for kind in kinds) and any(
        isinstance(item, (list, tuple)) and _holds_masked(item, masked) for item in value)


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


def _kind(dtype):
    """The kind of a dtype; those of ml_dtypes say "V", whatever they are."""
    if dtype.isbuiltin != 2:
        return dtype.kind
    return "i" if "int" in dtype.name else "f"


def _convert_untyped(value, dtype, name):
    try:
        if dtype.names is not None:
            return _convert_records(value, dtype, name)
        raw = as_array(value, name)
        if raw.size == 0:
            return np.empty(raw.shape, dtype)
        kind = _kind(dtype)
        if kind in "mM":
            return _convert_times(value, raw, dtype, name)
        if kind in "SUV":
            if raw.dtype.kind not in ("SV" if kind == "V" else kind) or raw.dtype.itemsize > dtype.itemsize:
                raise _lost(name, dtype, raw.dtype)
            return np.array(value, dtype) if kind == "V" else raw.astype(dtype)
        if raw.dtype.kind == "O" or (kind in "biu" and raw.dtype.kind == "f"):
            return _convert_objects(value, dtype, kind, name)
        return _convert_numbers(raw, dtype, kind, name)
    except (OverflowError, UnicodeError):
        raise _lost(name, dtype) from None
    except NumPackError:
        raise
    except (TypeError, ValueError) as error:
        raise DTypeError(f"array {name!r}: {error}", array=name) from None


def _convert_numbers(raw, dtype, kind, name):
    from_kind = raw.dtype.kind
    if from_kind not in "biufc" or (from_kind == "c" and kind != "c"):
        raise _lost(name, dtype, raw.dtype)
    with np.errstate(all="ignore"):
        result = raw.astype(dtype)
    seen = _comparable(result)
    if kind in "biu":
        if from_kind != "b" and not (seen == raw).all():
            raise _lost(name, dtype)
        if from_kind in "iu" and kind in "iu" and ((seen < 0) != (raw < 0)).any():
            raise _lost(name, dtype)
        return result
    if from_kind in "iu":
        # Doubles hold integers up to 2 ** 53; beyond that, and for narrower floats, compare as Python numbers.
        wide = seen.astype(np.complex128 if kind == "c" else np.float64) if dtype.itemsize < 16 else seen
        if not np.isfinite(wide).all():
            raise _lost(name, dtype)
        if int(raw.max()) > 2 ** 53 or int(raw.min()) < -2 ** 53:
            pairs = zip(wide.ravel().tolist(), raw.ravel().tolist())
            if any((item.real if kind == "c" else item) != whole for item, whole in pairs):
                raise _lost(name, dtype)
        elif not (wide == raw).all():
            raise _lost(name, dtype)
    elif from_kind in "fc":  # rounded is fine; infinite or not a number only where it was
        if not ((np.isnan(seen) == np.isnan(raw)) & (np.isinf(seen) == np.isinf(raw))).all():
            raise _lost(name, dtype)
    return result


def _comparable(array):
    """The same values in a dtype that NumPy compares; exact, for those of ml_dtypes are narrow."""
    return array.astype(np.float64) if array.dtype.isbuiltin == 2 else array


def _convert_objects(value, dtype, kind, name):
    objects = np.array(value, dtype=object)
    if not all(isinstance(item, (bool, int, float, complex, np.number, np.bool_)) for item in objects.ravel()):
        raise _lost(name, dtype, "object")
    with np.errstate(all="ignore"):
        result = objects.astype(dtype)
    for before, after in zip(objects.ravel().tolist(), _comparable(result).ravel().tolist()):
        exact = kind in "biu" or isinstance(before, int)
        if before != after if exact else not _survives(before, after):
            raise _lost(name, dtype)
    return result


def _survives(before, after):
    """Whether a float, or what is like one, was rounded at most."""
    before, after = complex(before), complex(after)
    return before != before or (after == after and (abs(before) == float("inf")) == (abs(after) == float("inf")))


def _convert_times(value, raw, dtype, name):
    """Times and spans: every one must mean the same in the unit of the array."""
    result = np.array(value, dtype)
    if raw.dtype.kind == dtype.kind:
        if not ((result.astype(raw.dtype) == raw) | np.isnat(raw)).all():
            raise _lost(name, dtype)
        return result
    for before, after in zip(np.array(value, object).ravel().tolist(), result.ravel()):
        if before is None:
            continue
        if dtype.kind == "M":
            before = np.datetime64(before)
        elif isinstance(before, int) and not isinstance(before, bool):
            before = np.timedelta64(before, np.datetime_data(dtype))
        elif isinstance(before, (timedelta, np.timedelta64)):
            before = np.timedelta64(before)
        else:
            raise _lost(name, dtype, type(before).__name__)
        # The stored one is brought to the unit of the given one, not the other way: a year that does not fit
        # nanoseconds would wrap to the same wrong value.
        if not (np.isnat(before) or after.astype(before.dtype) == before):
            raise _lost(name, dtype)
    return result


def _records(value):
    """The tuples of a nested list of records."""
    if isinstance(value, list):
        for item in value:
            yield from _records(item)
    elif isinstance(value, np.ndarray) and value.dtype.names is not None:
        yield from value.ravel()
    else:
        yield value


def _convert_records(value, dtype, name):
    """Structures, field by field: each by the rule of its kind."""
    objects = np.array(value, [(field, object) for field in dtype.names])
    records = list(_records(value))
    for record in records:
        if isinstance(record, np.void) and record.dtype.names == dtype.names:
            continue
        if not isinstance(record, tuple) or len(record) != len(dtype.names):
            raise _lost(name, dtype, type(record).__name__)
    if len(records) != objects.size:
        raise ShapeError(f"array {name!r}: {len(records)} records have no shape", array=name)
    result = np.zeros(objects.shape, dtype)
    if result.size == 0:
        return result
    for field in dtype.names:
        column = _convert_untyped(objects[field].tolist(), dtype[field].base, name)
        if column.shape != result[field].shape:
            raise ShapeError(f"array {name!r}: field {field!r}: values of shape {column.shape[objects.ndim:]} do not fit "
                             f"{dtype[field].shape}", array=name)
        result[field] = column
    return result
