"""LazyArray: an array of the store at one moment, read when asked."""

from __future__ import annotations

import operator

import numpy as np

from ._attrs import ReadOnlyAttributes
from ._core import Exporter
from ._dtypes import decode
from ._errors import InvalidArgumentError, InvalidTypeError, NotFoundError, OutOfRangeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import ArrayLike

_LARGE = 1 << 20  # bytes from which a load goes to recycled huge-page memory


def load_copy(array):
    """All rows of a core array as a private, writable, C-contiguous ndarray."""
    dtype = decode(array.descr, array.name)
    if array.row_count * array.row_size >= _LARGE:
        return np.ndarray(array.shape, dtype, buffer=array.load())
    out = np.empty(array.shape, dtype)
    array.read(0, array.row_count, out)
    return out


def load_mapped(array, writable):
    """All rows as an ndarray over a mapping: read-only, or private copy-on-write."""
    return np.ndarray(array.shape, decode(array.descr, array.name), buffer=array.map(0, array.row_count, writable))


def read_rows(array, first, count, rows):
    """The rows that `_indices.resolve` found, as a private ndarray."""
    if rows is None:
        out = np.empty((count,) + array.shape[1:], decode(array.descr, array.name))
        array.read(first, count, out)
    else:
        out = np.empty(rows.shape + array.shape[1:], decode(array.descr, array.name))
        array.gather(rows, out)
    return out


_EXPORTABLE = {}  # structured dtype -> whether NumPy understands its own export of it


def _exportable(dtype):
    """Whether the buffer protocol can say what the items are."""
    if dtype.subdtype is not None:
        return _exportable(dtype.base)
    if dtype.names is None:
        return dtype.kind not in "mMV" and dtype.isbuiltin != 2
    if dtype not in _EXPORTABLE:
        try:
            _EXPORTABLE[dtype] = (all(_exportable(dtype[name]) for name in dtype.names)
                                  and np.asarray(memoryview(np.empty(1, dtype))).dtype == dtype)
        except (ValueError, RuntimeError):  # padding in front, titles
            _EXPORTABLE[dtype] = False
    return _EXPORTABLE[dtype]


def _private(result):
    if isinstance(result, np.ndarray):
        return result if result.flags.owndata and result.flags.writeable else np.array(result)
    return result.copy() if isinstance(result, np.void) else result


class LazyArray(Exporter):
    """An array at the moment it was loaded; nothing is read before it is asked for. Given by :meth:`NumPack.load`.

    Indexing is NumPy's; every array it gives is a private copy of what was asked for. ``np.asarray(lazy)`` and
    ``memoryview(lazy)`` are read-only and without copy where the rows lie in one piece. Operators give ndarrays. Later
    commits do not change it, and it stays valid after the store is closed or the array dropped.

    Examples
    --------
    >>> npk.save({"a": [[1, 2], [3, 4], [5, 6]]})
    >>> lazy = npk.load("a", lazy=True)
    >>> lazy.shape, lazy.dtype, lazy.ndim, lazy.size, lazy.itemsize, lazy.nbytes, len(lazy)
    ((3, 2), dtype('int64'), 2, 6, 8, 48, 3)
    >>> lazy[1:, 0].tolist()
    [3, 5]
    >>> (lazy + 1).tolist()
    [[2, 3], [4, 5], [6, 7]]
    >>> lazy[0] = 9
    Traceback (most recent call last):
    numpack._errors.InvalidTypeError: a lazy array cannot be written; use replace() of the store
    """

    __slots__ = ("_array", "_path", "_view", "_shape", "__weakref__")

    def __init__(self, array, path, shape=None):
        self._array = array
        self._path = path  # of the store, for pickling
        self._view = None
        self._shape = shape  # of a reshaped view, else None

    # ---- what it is ----------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """tuple of int: lengths of the axes; the first is the rows."""
        return self._array.shape if self._shape is None else self._shape

    @property
    def dtype(self) -> np.dtype:
        """numpy.dtype: the stored dtype."""
        return decode(self._array.descr, self._array.name)

    @property
    def ndim(self) -> int:
        """int: number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """int: number of items."""
        size = 1
        for length in self.shape:
            size *= length
        return size

    @property
    def itemsize(self) -> int:
        """int: bytes of an item."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """int: bytes of all items."""
        return self.size * self.dtype.itemsize

    @property
    def T(self) -> np.ndarray:
        """ndarray: the transposed array, a private copy."""
        return np.array(self._ndarray().T)

    @property
    def attrs(self):
        """ReadOnlyAttributes: those the array had at that moment."""
        return ReadOnlyAttributes(self._array.list_attrs())

    @property
    def chunks(self) -> None:
        """None: rows are not stored in chunks."""
        return None

    def __len__(self) -> int:
        shape = self.shape
        if not shape:
            raise TypeError("len() of unsized object")
        return shape[0]

    def __iter__(self):
        if not self.shape:
            raise TypeError("iteration over a 0-d array")
        return (self[row] for row in range(len(self)))

    def __repr__(self):
        return f"LazyArray(shape={self.shape}, dtype={self.dtype}, name={self._array.name!r})"

    __hash__ = None

    # ---- reading -------------------------------------------------------------------------------------------

    def _ndarray(self):
        """All items as a read-only ndarray over one mapping."""
        if self._view is None:
            self._view = load_mapped(self._array, False)
        return self._view if self._shape is None else self._view.reshape(self._shape)

    def __getitem__(self, key):
        if self._shape is None:
            array = self._array
            kind = type(key)
            if kind is int and array.shape:
                count = array.row_count
                row = key + count if key < 0 else key
                if not 0 <= row < count:
                    raise OutOfRangeError(f"array {array.name!r}: index {key} is out of bounds for axis 0 with size "
                                          f"{count}", array=array.name, row=key)
                tail = array.shape[1:]
                out = np.empty(tail, decode(array.descr))
                array.read(row, 1, out)
                return out if tail else out[()]
            if kind is slice and array.shape:
                start, stop, step = key.indices(array.row_count)
                if step == 1:
                    return read_rows(array, start, max(0, stop - start), None)
            if kind is tuple and key and type(key[0]) is slice and array.shape:
                start, stop, step = key[0].indices(array.row_count)
                count = max(0, stop - start)
                # Nothing, or a part of what could only be mapped by gathering all: those rows alone.
                if step == 1 and (count == 0 or (array.piece_count > 1 and count < array.row_count)):
                    return _private(read_rows(array, start, count, None)[(slice(None),) + key[1:]])
        return _private(self._ndarray()[key])

    def __setitem__(self, key, value):
        raise InvalidTypeError("a lazy array cannot be written; use replace() of the store")

    def __delitem__(self, key):
        raise InvalidTypeError("a lazy array cannot be written; use drop() of the store")

    @property
    def oindex(self) -> _OuterIndex:
        """Outer indexing: every axis by itself, with integers, slices and 1-D arrays of integers or booleans.

        Examples
        --------
        >>> npk.save({"a": np.arange(12).reshape(3, 4)})
        >>> npk.load("a", lazy=True).oindex[[0, 2], [1, 3]].tolist()
        [[1, 3], [9, 11]]
        """
        return _OuterIndex(self)

    def __array__(self, dtype=None, copy=None):
        if copy is False and (self._array.piece_count > 1 or (dtype is not None and np.dtype(dtype) != self.dtype)):
            raise ValueError("Unable to avoid copy while creating an array as requested: the rows are not in one piece "
                             "or of another dtype")
        view = self._ndarray()
        if dtype is not None and np.dtype(dtype) != view.dtype:
            return view.astype(dtype)
        return np.array(view) if copy else view

    def _export_buffer(self):
        if self._array.piece_count > 1:
            raise BufferError(f"array {self._array.name!r}: the rows do not lie in one piece; use np.asarray or "
                              "compact()")
        if not _exportable(self.dtype):
            raise BufferError(f"array {self._array.name!r}: dtype {self.dtype} cannot be exported as a buffer; use "
                              "np.asarray")
        return self._ndarray()

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        if stream is not None:
            raise RuntimeError("a lazy array lies in main memory: stream must be None")
        if dl_device is not None and tuple(dl_device) != (1, 0):
            raise BufferError("a lazy array lies in main memory: dl_device must be (1, 0)")
        if copy is False and self._array.piece_count > 1:
            raise BufferError(f"array {self._array.name!r}: the rows do not lie in one piece; allow a copy or compact()")
        view = load_mapped(self._array, True).reshape(self.shape)
        if copy:
            view = np.array(view)
        if max_version is not None:
            try:
                return view.__dlpack__(max_version=max_version)
            except TypeError:
                pass
        return view.__dlpack__()

    def __dlpack_device__(self):
        return (1, 0)

    def copy(self) -> np.ndarray:
        """Read all items.

        Returns
        -------
        ndarray
            Private and writable.

        Examples
        --------
        >>> npk.save({"a": [1, 2]})
        >>> npk.load("a", lazy=True).copy()
        array([1, 2])
        """
        return load_copy(self._array) if self._shape is None else load_copy(self._array).reshape(self._shape)

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def reshape(self, *shape: Any) -> LazyArray:
        """A lazy view of another shape; nothing is read.

        Parameters
        ----------
        *shape : int or tuple of int
            The lengths, as one argument or several; one may be -1.

        Returns
        -------
        LazyArray
            With the same items in the same order.

        Raises
        ------
        InvalidArgumentError
            The sizes do not agree, two lengths are -1, or one is below.

        Examples
        --------
        >>> npk.save({"a": np.arange(6)})
        >>> npk.load("a", lazy=True).reshape(2, -1)
        LazyArray(shape=(2, 3), dtype=int64, name='a')
        """
        if len(shape) == 1:
            try:
                shape = (operator.index(shape[0]),)
            except TypeError:
                shape = tuple(shape[0])
        lengths = [operator.index(length) for length in shape]
        if any(length < -1 for length in lengths) or lengths.count(-1) > 1:
            raise InvalidArgumentError(f"cannot reshape to {tuple(lengths)}: one length may be -1, none below")
        known = 1
        for length in lengths:
            if length != -1:
                known *= length
        if -1 in lengths:
            if known == 0 or self.size % known:
                raise InvalidArgumentError(f"cannot reshape an array of size {self.size} to {tuple(lengths)}")
            lengths[lengths.index(-1)] = self.size // known
        elif known != self.size:
            raise InvalidArgumentError(f"cannot reshape an array of size {self.size} to {tuple(lengths)}")
        return LazyArray(self._array, self._path, tuple(lengths))

    def close(self) -> None:
        """Forget the mapping; it is made again when needed. ``with lazy:`` does so at the end of the block.

        Examples
        --------
        >>> npk.save({"a": [1, 2]})
        >>> lazy = npk.load("a", lazy=True)
        >>> lazy.close()
        >>> int(lazy[0])
        1
        """
        self._view = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.close()

    # ---- pickling ------------------------------------------------------------------------------------------

    def _state(self):
        array = self._array  # the time tells states apart that other stores had at this path
        return (self._path, array.name, array.id, array.change_lsn, array.modified_us, self._shape)

    def __reduce__(self):
        return _unpickle, self._state()

    def __dask_tokenize__(self):
        return ("numpack.LazyArray",) + self._state()

    # ---- names known to users of the Rust package ----------------------------------------------------------

    def vectorized_gather(self, indices: ArrayLike) -> np.ndarray:
        """Read rows by number, as ``lazy[np.asarray(indices)]``.

        Parameters
        ----------
        indices : array_like of int
            The rows; order and duplicates are kept.

        Returns
        -------
        ndarray
            Of shape ``indices.shape + lazy.shape[1:]``.

        Raises
        ------
        IndexError
            A row lies outside the array.

        Examples
        --------
        >>> npk.save({"a": [0, 10, 20, 30]})
        >>> npk.load("a", lazy=True).vectorized_gather([3, 0, 3]).tolist()
        [30, 0, 30]
        """
        rows = np.asarray(indices)
        return self[rows if rows.size else rows.astype(np.intp)]  # an empty list would be of floats

    def mega_batch_get_rows(self, indices: Sequence[int], batch_size: int) -> list[np.ndarray]:
        """Read rows by number, some at a time.

        Parameters
        ----------
        indices : sequence of int
            The rows; order and duplicates are kept.
        batch_size : int
            How many are read at a time.

        Returns
        -------
        list of ndarray
            One for each index, of shape ``lazy.shape[1:]``.

        Raises
        ------
        InvalidArgumentError
            `batch_size` is below 1.
        IndexError
            A row lies outside the array.

        Examples
        --------
        >>> npk.save({"a": [[0, 1], [2, 3], [4, 5]]})
        >>> [row.tolist() for row in npk.load("a", lazy=True).mega_batch_get_rows([2, 0, 1], 2)]
        [[4, 5], [0, 1], [2, 3]]
        """
        if batch_size < 1:
            raise InvalidArgumentError("batch_size must be at least 1")
        rows = []
        for start in range(0, len(indices), batch_size):
            rows.extend(self[np.asarray(indices[start:start + batch_size])])
        return rows

    def parallel_boolean_index(self, mask: ArrayLike) -> np.ndarray:
        """Read the rows where a mask is true, as ``lazy[mask]``.

        Parameters
        ----------
        mask : array_like of bool
            One for each row, or of more axes as NumPy takes them.

        Returns
        -------
        ndarray
            Of shape ``(k, ...)``.

        Raises
        ------
        IndexError
            The mask does not have the lengths of the array.

        Examples
        --------
        >>> npk.save({"a": [0, 10, 20]})
        >>> npk.load("a", lazy=True).parallel_boolean_index([True, False, True]).tolist()
        [0, 20]
        """
        return self[np.asarray(mask, dtype=bool)]

    boolean_index_smart = boolean_index_adaptive = parallel_boolean_index
    boolean_index_production = boolean_index_adaptive_algorithm = parallel_boolean_index

    def choose_optimal_algorithm(self, mask: ArrayLike) -> str:
        """How dense a mask is. Nothing depends on it here.

        Parameters
        ----------
        mask : array_like of bool
            The mask.

        Returns
        -------
        str
            ``"sparse"`` below 10 % true, ``"dense"`` above 90 %, else ``"adaptive"``.

        Examples
        --------
        >>> npk.save({"a": [0, 10, 20]})
        >>> npk.load("a", lazy=True).choose_optimal_algorithm([True, False, True])
        'adaptive'
        """
        mask = np.asarray(mask, dtype=bool)
        share = mask.mean() if mask.size else 0.0
        return "sparse" if share < 0.1 else "dense" if share > 0.9 else "adaptive"

    def intelligent_warmup(self, hint: object = None) -> None:
        """Accepted, without effect: the system's page cache does this.

        Parameters
        ----------
        hint : object
            Anything.

        Examples
        --------
        >>> npk.save({"a": [0, 10, 20]})
        >>> npk.load("a", lazy=True).intelligent_warmup("sequential")
        """

    # ---- operators -----------------------------------------------------------------------------------------

    def __contains__(self, item):
        return item in self._ndarray()

    def __bool__(self):
        return bool(self._ndarray())

    def __int__(self):
        return int(self._ndarray())

    def __float__(self):
        return float(self._ndarray())

    def __complex__(self):
        return complex(self._ndarray())

    def __index__(self):
        return operator.index(self._ndarray())

    def __pos__(self):
        return +self._ndarray()

    def __neg__(self):
        return -self._ndarray()

    def __abs__(self):
        return abs(self._ndarray())

    def __invert__(self):
        _check_bitwise(self)
        return ~self._ndarray()


def _check_bitwise(*operands):
    for operand in operands:
        dtype = getattr(operand, "dtype", None)
        if (dtype is not None and dtype.kind not in "biu") or isinstance(operand, (float, complex)):
            raise TypeError("Bitwise operations are only supported for integer arrays")


def _plain(operand):
    return operand._ndarray() if isinstance(operand, LazyArray) else operand


def _binary(function, check=None):
    def method(self, other):
        if check is not None:
            check(self, other)
        return function(self._ndarray(), _plain(other))
    return method


def _reflected(function, check=None):
    def method(self, other):
        if check is not None:
            check(self, other)
        return function(_plain(other), self._ndarray())
    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"):
    setattr(LazyArray, f"__{_name}__", _binary(getattr(operator, _name)))
    setattr(LazyArray, f"__r{_name}__", _reflected(getattr(operator, _name)))
for _name in ("and", "or", "xor", "lshift", "rshift"):
    _function = getattr(operator, _name + "_" if _name in ("and", "or") else _name)
    setattr(LazyArray, f"__{_name}__", _binary(_function, _check_bitwise))
    setattr(LazyArray, f"__r{_name}__", _reflected(_function, _check_bitwise))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(LazyArray, f"__{_name}__", _binary(getattr(operator, _name)))
LazyArray.__divmod__ = _binary(divmod)
LazyArray.__rdivmod__ = _reflected(divmod)
LazyArray.__hash__ = None
del _name, _function


class _OuterIndex:
    def __init__(self, lazy):
        self._lazy = lazy

    def __getitem__(self, key):
        lazy = self._lazy
        keys = list(key) if isinstance(key, tuple) else [key]
        dots = [at for at, item in enumerate(keys) if item is Ellipsis]
        if len(dots) > 1:
            raise IndexError("an index can only have a single ellipsis ('...')")
        missing = lazy.ndim - (len(keys) - len(dots))
        if missing < 0:
            raise IndexError(f"too many indices for array: array is {lazy.ndim}-dimensional, but "
                             f"{len(keys) - len(dots)} were indexed")
        if dots:
            keys[dots[0]:dots[0] + 1] = [slice(None)] * missing
        result = lazy._ndarray()
        for axis in reversed(range(len(keys))):  # from the last: an integer takes its axis away
            item = keys[axis] if isinstance(keys[axis], slice) else self._places(keys[axis])
            result = result[(slice(None),) * axis + (item,)]
        return _private(result)

    @staticmethod
    def _places(item):
        """An integer, or a 1-D array of integers or booleans."""
        if not isinstance(item, bool):  # which is an integer to Python
            try:
                return operator.index(item)
            except TypeError:
                pass
        item = np.asarray(item)
        if item.size == 0 and item.dtype.kind == "f":
            item = item.astype(np.intp)
        if item.ndim != 1 or item.dtype.kind not in "biu":
            raise IndexError("oindex takes integers, slices and 1-D arrays of integers or booleans")
        return item


def _unpickle(path, name, number, change_lsn, modified_us, shape):
    """The lazy array that was pickled, if its state is still there."""
    from ._store import NumPack
    npk = NumPack(path, mode="r")
    try:
        npk.open()
        source = npk._reading()
        for candidate in sorted(source.list_arrays(), key=lambda other: other != name):  # it may have another name now
            try:
                array = source.array_open(candidate)
            except NotFoundError:
                continue
            if array.id == number:
                if array.change_lsn == change_lsn and array.modified_us == modified_us:
                    return LazyArray(array, path, shape)
                break
        raise NotFoundError(f"array {name!r}: the pickled state is gone from the store at {path!r}", array=name)
    finally:
        npk.close()
