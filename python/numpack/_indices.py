"""Row indices: from what people write to row numbers of one array of a known number of rows."""

import operator

import numpy as np

from ._errors import InvalidTypeError, OutOfRangeError

_ACCEPTED = "The indexes must be int or list or numpy.ndarray or slice."


def _refuse(indexes, name):
    return InvalidTypeError(f"{_ACCEPTED} array {name!r}: got {type(indexes).__name__}", array=name)


def _outside(row, count, name):
    return OutOfRangeError(f"array {name!r}: row {row} is out of range for {count} rows", array=name, row=int(row))


def resolve(indexes, count, name, ignore_outside=False):
    """Row numbers of an array of `count` rows.

    Parameters
    ----------
    indexes : int, slice, list, tuple, range or 1-D ndarray of integers or booleans
        What the caller gave.
    count : int
        Rows the array has now.
    name : str
        The array, for messages.
    ignore_outside : bool
        Leave rows outside the array out instead of raising.

    Returns
    -------
    first, number : int
        The run of rows, when `rows` is None.
    rows : ndarray of int64 or None
        The rows one by one, in the order given, duplicates included.

    Raises
    ------
    InvalidTypeError
        For anything that is not a row index.
    OutOfRangeError
        For rows outside the array and masks of another length.
    """
    kind = type(indexes)
    if kind is int:
        return _one(indexes, count, name, ignore_outside)
    if kind is slice:
        return _slice(indexes, count, name)
    if kind is tuple and len(indexes) == 1 and isinstance(indexes[0], np.ndarray):
        indexes = indexes[0]  # what np.nonzero gives
    if isinstance(indexes, np.ndarray) and indexes.ndim:
        return _array(indexes, count, name, ignore_outside)
    if isinstance(indexes, (list, tuple, range)):
        return _sequence(indexes, count, name, ignore_outside)
    if isinstance(indexes, (bool, np.bool_, str, bytes)):
        raise _refuse(indexes, name)
    try:
        index = operator.index(indexes)
    except TypeError:
        pass
    else:
        return _one(index, count, name, ignore_outside)
    if hasattr(indexes, "__array__") and getattr(indexes, "ndim", 0) == 1:
        return _array(np.asarray(indexes), count, name, ignore_outside)
    raise _refuse(indexes, name)


def _one(index, count, name, ignore_outside):
    row = index + count if index < 0 else index
    if 0 <= row < count:
        return row, 1, None
    if ignore_outside:
        return 0, 0, None
    raise _outside(index, count, name)


def _slice(indexes, count, name):
    try:
        start, stop, step = indexes.indices(count)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"array {name!r}: {error}", array=name) from None
    if step == 1:
        return start, max(0, stop - start), None
    return 0, 0, np.arange(start, stop, step, dtype=np.int64)


def _clip(indexes, count):
    """The part of a range that lies from -count to count, without walking it."""
    if indexes.step < 0:
        indexes = indexes[::-1]
    start, step = indexes.start, indexes.step
    if start < -count:
        start += -(-(-count - start) // step) * step
    return range(start, min(indexes.stop, count), step)


def _sequence(indexes, count, name, ignore_outside):
    if not indexes:  # the length of a range may be more than len() can say
        return 0, 0, None
    if isinstance(indexes, range):
        if ignore_outside:
            indexes = _clip(indexes, count)
            if not indexes:
                return 0, 0, None
        if indexes.step == 1 and indexes.start >= 0 and indexes.stop <= count:
            return indexes.start, len(indexes), None
        for row in (indexes[0], indexes[-1]):
            if not -count <= row < count:
                raise _outside(row, count, name)
        array = np.asarray(indexes)
    else:
        kinds = set(map(type, indexes))
        booleans = kinds & {bool, np.bool_}
        if booleans and len(booleans) != len(kinds):
            raise _refuse(indexes, name)  # True among integers is neither a mask nor a row
        try:
            array = np.asarray(indexes)
        except (ValueError, TypeError):
            raise _refuse(indexes, name) from None
        if array.ndim == 1 and array.dtype.kind in "fO":  # integers beyond 64 bits come as floats or objects
            outside = []
            for item in indexes:
                try:
                    row = operator.index(item)
                except TypeError:
                    raise _refuse(indexes, name) from None
                if not -count <= row < count:
                    outside.append(row)
            if outside and not ignore_outside:
                raise _outside(outside[0], count, name)
            array = np.array([operator.index(item) for item in indexes if -count <= operator.index(item) < count],
                             dtype=np.int64)
    return _array(array, count, name, ignore_outside)


def _array(array, count, name, ignore_outside):
    if type(array) is not np.ndarray:
        if isinstance(array, np.ma.MaskedArray) and np.ma.getmaskarray(array).any():
            raise _refuse(array, name)
        array = np.asarray(array)
    kind = array.dtype.kind
    if array.ndim != 1 or kind not in "iub":
        raise _refuse(array, name)
    if kind == "b":
        if array.shape[0] != count:
            raise OutOfRangeError(
                f"array {name!r}: a mask of {array.shape[0]} values does not fit {count} rows", array=name)
        return 0, 0, np.flatnonzero(array).astype(np.int64, copy=False)
    if array.shape[0] == 0:
        return 0, 0, None
    low, high = int(array.min()), int(array.max())
    if low < -count or high >= count:
        if not ignore_outside:
            outside = array[(array < -count) | (array >= count)] if kind == "i" else array[array >= count]
            raise _outside(int(outside[0]), count, name)
        array = array[(array >= -count) & (array < count)] if kind == "i" else array[array < count]
    rows = np.ascontiguousarray(array, dtype=np.int64)
    if low < 0:
        rows = np.where(rows < 0, rows + count, rows)
    return 0, 0, rows if rows.flags.aligned else rows.copy()
