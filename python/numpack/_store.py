"""NumPack: a directory of named arrays, changed in transactions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from . import _core
from ._attrs import Attributes, ReadOnlyAttributes, check_name
from ._dtypes import as_array, contiguous, convert, decode, encode
from ._errors import (CorruptError, ExistsError, InvalidArgumentError, InvalidTypeError, NotFoundError, OutOfRangeError,
                      ShapeError)
from ._indices import resolve
from ._lazy import LazyArray, read_rows
from ._mappings import ArrayHandle, LoadedArrays, Snapshot, load_array
from ._opening import EMPTY, StoreHandle, whole_number
from ._transaction import Transaction, delegate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterable, Iterator, KeysView, Sequence, ValuesView
    from typing import Any, SupportsIndex, Union

    from numpy.typing import ArrayLike

    from ._batch import BatchModeContext, WritableBatchMode

    Indices = Union[SupportsIndex, slice, Sequence[SupportsIndex], range, np.ndarray, tuple[np.ndarray]]

_INT64 = np.dtype(np.int64)
# What stats() has of a store that does not exist yet: the numbers of npk_stats, all zero.
_NUMBERS = ("durable_lsn", "checkpoint_lsn", "log_size", "log_segment_count", "log_file_size", "pending_size",
            "pending_row_count", "column_file_count", "column_file_size", "dead_file_count", "array_count", "pin_lsn",
            "commits", "syncs", "bytes_logged", "bytes_folded", "folds", "checkpoints", "reclaims", "segment_rolls",
            "recoveries", "last_fold_us", "last_checkpoint_us")


class NumPack(StoreHandle):
    """A transactional store of NumPy arrays in a directory.

    The constructor touches nothing; the store opens itself at the first use. Every method is one atomic transaction by
    itself, unless it is called inside a ``with npk.transaction():`` block, which then is the transaction. Reads see the
    newest commit.

    Parameters
    ----------
    filename : str or path-like
        The directory.
    drop_if_exists : bool
        Empty the store when this object first opens it, in one transaction.
    strict_context_mode : bool
        Refuse use outside ``with``.
    warn_no_context : bool, optional
        Warn about use outside ``with``.
    force_gc_on_close : bool
        Collect garbage in ``close``.
    mode : {"a", "r", "r+", "w", "x"}
        As in h5py: read or create, read only, must exist, empty it first, must not exist.
    sync : {"commit", "interval", "never"}
        What power loss may take: nothing; the last `sync_interval_ms`; what the system had not written by itself. A
        crash of the process takes nothing, and no level gives up atomicity or order.
    sync_interval_ms : int
        For ``sync="interval"``.
    busy_timeout : float, optional
        Seconds to wait for another writer; None: for ever.
    segment_size, checkpoint_log_size, pending_limit, bulk_size : int
        Sizes in bytes, see ``npk.h``; 0 is the default.
    background : bool
        Fold, checkpoint and reclaim in a thread.
    network : bool
        Allow writing on a network file system.

    Raises
    ------
    InvalidArgumentError
        An option has a value it cannot have; InvalidTypeError when it is its type.

    Notes
    -----
    Besides what is listed with each method, all raise `ClosedError` after ``close``, `WrongUseError` where the mode of
    use forbids the call, `StoreIOError` and `CorruptError` for what the disk does; writing ones raise `BusyError` when
    another writer held the store for `busy_timeout`, `ReadOnlyError`, `NoSpaceError` and, after a failed sync,
    `PoisonedError`. All of them are a `NumPackError`. A call that raises has changed nothing.

    Examples
    --------
    >>> import numpy as np, numpack, tempfile
    >>> npk = numpack.NumPack(tempfile.mkdtemp() + "/store")
    >>> npk.save({"a": np.arange(6).reshape(3, 2)})
    >>> with npk.transaction():
    ...     npk.append({"a": np.array([[6, 7]])})
    ...     npk.replace({"a": np.array([[9, 9]])}, 0)
    ...     npk.attrs["offset"] = 4
    >>> npk.load("a").tolist()
    [[9, 9], [2, 3], [4, 5], [6, 7]]
    >>> npk.close()
    """

    def _repr_html_(self):
        from html import escape
        if self._core is None:
            return f"<p>NumPack <code>{escape(self._filename)}</code>: closed</p>"
        try:
            rows = "".join(
                f"<tr><td>{escape(name)}</td><td>{array.shape}</td><td>{escape(str(decode(array.descr, name)))}</td>"
                f"<td>{array.row_count * array.row_size:,}</td></tr>"
                for name, array in self._open_all().items())
        except Exception as error:
            return f"<p>NumPack <code>{escape(self._filename)}</code>: {escape(str(error))}</p>"
        return (f"<p>NumPack <code>{escape(self._filename)}</code></p><table><thead><tr><th>name</th><th>shape</th>"
                f"<th>dtype</th><th>bytes</th></tr></thead><tbody>{rows}</tbody></table>")

    # ---- writing whole arrays ------------------------------------------------------------------------------

    def save(self, arrays: Mapping[str, ArrayLike]) -> None:
        """Create arrays, or replace them whole, in one transaction. Array attributes are kept.

        Parameters
        ----------
        arrays : Mapping of str to array_like
            Anything `np.asarray` takes, of any shape. The first axis is the rows; a 0-d array is one value.

        Raises
        ------
        InvalidArgumentError
            `arrays` is not a mapping, or a name cannot be one.
        DTypeError
            The dtype cannot be stored: objects, variable width, masked values.

        Examples
        --------
        >>> npk.save({"x": [1.0, 2.0], "y": [[1, 2]]})
        >>> npk.get_shape()
        {'x': (2,), 'y': (1, 2)}
        """
        items = _check_arrays(arrays)
        block = self._block()
        if block is not None and block._save(items):
            return
        prepared = [_prepare(name, value) for name, value in items]

        def apply(txn):
            for item in prepared:
                txn.save(*item)

        self._write(apply, len(prepared) > 1)

    def append(self, arrays: Mapping[str, ArrayLike], *, casting: str = "safe") -> None:
        """Add rows behind arrays, in one transaction. A name that does not exist is created.

        Parameters
        ----------
        arrays : Mapping of str to array_like
            Rows of shape ``(k, ...)``, always with the row axis.
        casting : {"safe", "same_kind"}
            Whether typed input may be narrowed.

        Raises
        ------
        ShapeError
            The rows have another shape than those of the array, or it is 0-d.
        DTypeError
            The values do not fit the stored dtype, which never changes.
        InvalidArgumentError
            `arrays` is not a mapping, a name cannot be one, or another `casting`.

        Examples
        --------
        >>> npk.save({"a": [[1, 2]]})
        >>> npk.append({"a": [[3, 4], [5, 6]]})
        >>> npk.load("a").tolist()
        [[1, 2], [3, 4], [5, 6]]
        """
        self._append(arrays, casting, True)

    def _append(self, arrays, casting, create):
        items = _check_arrays(arrays)
        _check_casting(casting)
        self._settle([name for name, _ in items])

        def apply(txn):
            steps = []
            for name, value in items:
                try:
                    descr, shape, row_size = txn.describe(name)
                except NotFoundError:
                    if not create:
                        raise
                    item = _prepare(name, value)
                    if item[4]:
                        raise ShapeError(f"array {name!r}: append takes rows with their axis; use x[None]",
                                         array=name) from None
                    steps.append((txn.save, item))
                    continue
                if not shape:
                    raise ShapeError(f"array {name!r}: a 0-d array has no rows to append to", array=name)
                rows = convert(value, decode(descr, name), name, casting)
                if rows.ndim != len(shape) or rows.shape[1:] != shape[1:]:
                    hint = "; rows are given with their axis: use x[None]" if rows.shape == shape[1:] else ""
                    raise ShapeError(f"array {name!r}: rows of shape {rows.shape} do not fit behind an array of shape "
                                     f"{shape}{hint}", array=name)
                if rows.shape[0]:
                    steps.append((txn.append, (name, row_size, rows.shape[0], rows)))
            for step, arguments in steps:
                step(*arguments)

        self._write(apply, len(items) > 1)

    def replace(self, arrays: Mapping[str, ArrayLike], indexes: Indices, *, casting: str = "safe") -> None:
        """Replace rows of arrays, in one transaction.

        Parameters
        ----------
        arrays : Mapping of str to array_like
            As many rows as indices, or one row, with or without the row axis, or a scalar. Nothing else broadcasts.
        indexes : int, slice, list, tuple, range or 1-D ndarray of integers or booleans
            The rows, for each array by itself. Of a duplicate the last wins.
        casting : {"safe", "same_kind"}
            Whether typed input may be narrowed.

        Raises
        ------
        NotFoundError
            There is no such array.
        OutOfRangeError
            A row lies outside the array, or a mask has another length.
        ShapeError
            The rows do not fit the indices or the array, or it is 0-d.
        DTypeError
            The values do not fit the stored dtype.
        InvalidArgumentError
            `arrays` is not a mapping, or another `casting`; InvalidTypeError when `indexes` is none of the above.

        Examples
        --------
        >>> npk.save({"a": np.zeros((4, 2), int)})
        >>> npk.replace({"a": [[1, 2], [3, 4]]}, [0, -1])
        >>> npk.replace({"a": 7}, slice(1, 2))
        >>> npk.load("a").tolist()
        [[1, 2], [7, 7], [0, 0], [3, 4]]
        """
        items = _check_arrays(arrays)
        _check_casting(casting)
        self._settle([name for name, _ in items])

        def apply(txn):
            steps = []
            for name, value in items:
                descr, shape, row_size = txn.describe(name)
                if not shape:
                    raise ShapeError(f"array {name!r}: a 0-d array has no rows to replace; use save", array=name)
                first, count, numbers = resolve(indexes, shape[0], name)
                if numbers is not None:
                    count = numbers.shape[0]
                rows = _fit_rows(convert(value, decode(descr, name), name, casting), count, shape, name)
                if count == 0:
                    continue
                if numbers is None:
                    steps.append((txn.replace_run, (name, row_size, first, count, rows)))
                else:
                    steps.append((txn.replace, (name, row_size, numbers, rows)))
            for step, arguments in steps:
                step(*arguments)

        self._write(apply, len(items) > 1)

    def drop(self, array_name: str | Iterable[str], indexes: Indices | None = None) -> None:
        """Remove arrays, or rows of arrays, in one transaction. Unknown names are ignored.

        Without indices the arrays are gone: ``drop(name, None)`` drops the array. With indices those rows go and later
        rows move up.

        Parameters
        ----------
        array_name : str or list of str
            The arrays.
        indexes : int, slice, list, tuple, range or 1-D ndarray of integers or booleans, optional
            The rows. Those out of range are ignored, duplicates count once.

        Raises
        ------
        InvalidTypeError
            `array_name` is neither a str nor a list of them, or `indexes` is none of the above.
        OutOfRangeError
            A mask has another length than the array.
        ShapeError
            Rows of a 0-d array.

        Examples
        --------
        >>> npk.save({"a": [0, 1, 2, 3], "b": [1]})
        >>> npk.drop("a", [0, 2])
        >>> npk.load("a").tolist()
        [1, 3]
        >>> npk.drop(["a", "b"])
        >>> len(npk)
        0
        """
        if isinstance(array_name, str):
            names = [array_name]
        elif isinstance(array_name, (list, tuple, set, frozenset)):
            names = list(array_name)
        else:
            raise InvalidTypeError(f"array_name must be a str or a list of str, not {type(array_name).__name__}")
        for name in names:
            check_name(name)
        names = list(dict.fromkeys(names))
        self._settle(names, True)

        def apply(txn):
            steps = []
            for name in names:
                try:
                    _, shape, _ = txn.describe(name)
                except NotFoundError:
                    continue
                if indexes is None:
                    steps.append((txn.drop_array, (name,)))
                    continue
                if not shape:
                    raise ShapeError(f"array {name!r}: a 0-d array has no rows to drop", array=name)
                first, count, rows = resolve(indexes, shape[0], name, ignore_outside=True)
                if rows is None:
                    rows = np.arange(first, first + count, dtype=np.int64)
                if rows.shape[0]:
                    steps.append((txn.drop_rows, (name, rows)))
            for step, arguments in steps:
                step(*arguments)

        if self._open or self._exists():
            self._write(apply, len(names) > 1)

    def _exists(self):
        """Whether there is a store that a drop could change; a read-only handle says so itself."""
        return self._mode == "r" or self._reading() is not EMPTY

    def clone(self, source_name: str, target_name: str) -> None:
        """Make a new array with the same rows; the bytes are shared until one of them changes.

        Parameters
        ----------
        source_name : str
            The array that is there.
        target_name : str
            The name of the new one.

        Raises
        ------
        NotFoundError
            There is no source.
        ExistsError
            There is a target.

        Examples
        --------
        >>> npk.save({"a": [1, 2]})
        >>> npk.clone("a", "b")
        >>> npk.replace({"b": 9}, 0)
        >>> npk.load("a").tolist(), npk.load("b").tolist()
        ([1, 2], [9, 2])
        """
        check_name(source_name)
        check_name(target_name)
        self._settle([source_name, target_name])
        self._write(lambda txn: txn.clone(source_name, target_name))

    def rename(self, old: str, new: str) -> None:
        """Give an array another name; its attributes go with it.

        Parameters
        ----------
        old : str
            The name it has.
        new : str
            The name it gets.

        Raises
        ------
        NotFoundError
            There is no such array.
        ExistsError
            The new name is taken.

        Examples
        --------
        >>> npk.save({"a": [1, 2]})
        >>> npk.rename("a", "b")
        >>> npk.get_member_list()
        ['b']
        """
        check_name(old)
        check_name(new)
        self._settle([old, new], True)

        def apply(txn):
            if old == new:
                txn.describe(old)
                raise ExistsError(f"array {new!r}: the name is taken", array=new)
            txn.rename(old, new)

        self._write(apply)

    def reset(self) -> None:
        """Drop every array and every attribute, in one transaction.

        Examples
        --------
        >>> npk.save({"a": [1, 2]})
        >>> npk.attrs["offset"] = 1
        >>> npk.reset()
        >>> len(npk), len(npk.attrs)
        (0, 0)
        """
        block = self._block()
        if block is not None:
            block._settle(None, True)
        if self._open or self._exists():
            self._write(lambda txn: txn.reset())

    # ---- reading -------------------------------------------------------------------------------------------

    def load(self, array_name: str | None = None, lazy: bool = False, *, mmap_mode: bool | str | None = None) -> Any:
        """Read an array, or all of them.

        Parameters
        ----------
        array_name : str, optional
            The array; None: a read-only mapping of all arrays at one moment, each loaded when asked for.
        lazy : bool
            Give a :class:`LazyArray`.
        mmap_mode : {None, False, True, "r", "c"}
            True or "r": read-only, without copy where the rows lie in one piece; "c": private copy-on-write, never
            written back.

        Returns
        -------
        ndarray, LazyArray or LoadedArrays
            By default a private, writable, C-contiguous ndarray.

        Raises
        ------
        NotFoundError
            There is no such array.
        InvalidArgumentError
            Another `mmap_mode`, both `lazy` and `mmap_mode`, or what cannot be a name.

        Examples
        --------
        >>> npk.save({"a": [1, 2], "b": [[3.0]]})
        >>> npk.load("a")
        array([1, 2])
        >>> npk.load("b", lazy=True)
        LazyArray(shape=(1, 1), dtype=float64, name='b')
        >>> npk.load("a", mmap_mode="r").flags.writeable
        False
        >>> {name: array.tolist() for name, array in npk.load().items()}
        {'a': [1, 2], 'b': [[3.0]]}
        """
        if mmap_mode is not None and mmap_mode is not False:
            if not (mmap_mode is True or (isinstance(mmap_mode, str) and mmap_mode in ("r", "c"))):
                raise InvalidArgumentError(f"mmap_mode must be None, False, True, \"r\" or \"c\", not {mmap_mode!r}")
            if lazy:
                raise InvalidArgumentError("lazy and mmap_mode cannot be combined")
        if array_name is None:
            return LoadedArrays(self, self._open_all(), lazy, mmap_mode)
        if not isinstance(array_name, str):
            check_name(array_name)
        if self._open and not lazy and not mmap_mode:
            block = self._block()
            if block is not None:
                cached = block._load(array_name)
                if cached is not None:
                    return cached
        array = self._array_open(array_name)
        if lazy:
            return LazyArray(array, self._abspath)
        return load_array(array, mmap_mode)

    def _array_open(self, name):
        try:
            return self._reading().array_open(name)
        except (ValueError, NotFoundError):  # perhaps what no array can be named
            check_name(name)
            raise

    def _open_all(self):
        """All arrays of one moment: dict of name to the core's array."""
        source = self._reading()
        if isinstance(source, _core.Store):
            snapshot = source.snapshot()
            try:
                return {name: snapshot.array_open(name) for name in snapshot.list_arrays()}
            finally:
                snapshot.close()
        return {name: source.array_open(name) for name in source.list_arrays()}

    def getitem(self, array_name: str, indexes: Indices) -> np.ndarray:
        """Read rows of an array.

        Parameters
        ----------
        array_name : str
            The array.
        indexes : int, slice, list, tuple, range or 1-D ndarray of integers or booleans
            The rows; order and duplicates are kept.

        Returns
        -------
        ndarray
            Private, of shape ``(k, ...)``; an int gives ``(1, ...)``.

        Raises
        ------
        NotFoundError
            There is no such array.
        OutOfRangeError
            A row lies outside the array, or a mask has another length.
        ShapeError
            The array is 0-d.
        InvalidTypeError
            `indexes` is none of the above.

        Examples
        --------
        >>> npk.save({"a": [[0, 1], [2, 3], [4, 5]]})
        >>> npk.getitem("a", [2, 0, 2]).tolist()
        [[4, 5], [0, 1], [4, 5]]
        >>> npk.getitem("a", -1).shape
        (1, 2)
        """
        if not isinstance(array_name, str) and isinstance(indexes, str):
            array_name, indexes = indexes, array_name  # the order of the Rust package's first release
        check_name(array_name)
        array = self._array_open(array_name)
        if not array.shape:
            raise ShapeError(f"array {array_name!r}: a 0-d array has no rows", array=array_name)
        if type(indexes) is np.ndarray and indexes.dtype is _INT64 and indexes.ndim == 1 and indexes.flags.c_contiguous:
            try:
                return read_rows(array, 0, 0, indexes)  # the core looks where they are: for few rows, half of the time
            except OutOfRangeError:
                pass  # resolve says which
        return read_rows(array, *resolve(indexes, array.row_count, array_name))

    def get_shape(self, array_name: str | None = None) -> Any:
        """The shape of an array, or of all.

        Parameters
        ----------
        array_name : str, optional
            The array; None: all.

        Returns
        -------
        tuple of int or dict
            Without a name a dict of name to shape.

        Raises
        ------
        NotFoundError
            There is no such array.

        Examples
        --------
        >>> npk.save({"a": np.zeros((3, 2)), "b": 5})
        >>> npk.get_shape("a")
        (3, 2)
        >>> npk.get_shape()
        {'a': (3, 2), 'b': ()}
        """
        if array_name is None:
            return {name: array.shape for name, array in self._open_all().items()}
        check_name(array_name)
        return self._array_open(array_name).shape

    def get_dtype(self, array_name: str) -> np.dtype:
        """The stored dtype of an array.

        Parameters
        ----------
        array_name : str
            The array.

        Returns
        -------
        numpy.dtype
            With the byte order that it was saved with.

        Raises
        ------
        NotFoundError
            There is no such array.

        Examples
        --------
        >>> npk.save({"a": np.zeros(3, ">f4")})
        >>> npk.get_dtype("a")
        dtype('>f4')
        """
        check_name(array_name)
        return decode(self._array_open(array_name).descr, array_name)

    def get_member_list(self) -> list[str]:
        """The names of all arrays.

        Returns
        -------
        list of str
            Sorted by code point.

        Examples
        --------
        >>> npk.save({"b": [1], "a": [2], "B": [3]})
        >>> npk.get_member_list()
        ['B', 'a', 'b']
        """
        return self._reading().list_arrays()

    def get_modify_time(self, array_name: str) -> int | None:
        """When an array was last changed.

        Parameters
        ----------
        array_name : str
            The array.

        Returns
        -------
        int or None
            Microseconds since 1970; None when there is none of that name.

        Examples
        --------
        >>> npk.save({"a": [1]})
        >>> npk.get_modify_time("a") > 1_500_000_000_000_000
        True
        >>> npk.get_modify_time("b") is None
        True
        """
        check_name(array_name)
        try:
            return self._array_open(array_name).modified_us
        except NotFoundError:
            return None

    def has_array(self, array_name: str) -> bool:
        """Whether there is an array of a name.

        Parameters
        ----------
        array_name : str
            The name.

        Returns
        -------
        bool
            As ``array_name in npk``.

        Raises
        ------
        InvalidArgumentError
            What no array can be named; ``in`` is False then.

        Examples
        --------
        >>> npk.save({"a": [1]})
        >>> npk.has_array("a"), npk.has_array("b")
        (True, False)
        """
        check_name(array_name)
        try:
            self._array_open(array_name)
        except NotFoundError:
            return False
        return True

    def stream_load(self, array_name: str, buffer_size: int | None = None) -> Iterator[np.ndarray]:
        """Iterate over an array in private batches, all of one moment.

        Parameters
        ----------
        array_name : str
            The array.
        buffer_size : int, optional
            Rows of a batch; None: one.

        Returns
        -------
        iterator of ndarray
            Batches of shape ``(k, ...)``; the last may be shorter.

        Raises
        ------
        InvalidArgumentError
            `buffer_size` is not positive. Like the others it is raised at the call, not at the first batch.
        NotFoundError
            There is no such array.
        ShapeError
            The array is 0-d.

        Examples
        --------
        >>> npk.save({"a": [0, 1, 2, 3, 4]})
        >>> [batch.tolist() for batch in npk.stream_load("a", 2)]
        [[0, 1], [2, 3], [4]]
        """
        check_name(array_name)
        size = 1 if buffer_size is None else whole_number(buffer_size, "buffer_size", 1)
        array = self._array_open(array_name)
        if not array.shape:
            raise ShapeError(f"array {array_name!r}: a 0-d array has no rows", array=array_name)
        return (read_rows(array, first, min(size, array.row_count - first), None)
                for first in range(0, array.row_count, size))

    # ---- mapping of names ----------------------------------------------------------------------------------

    def __contains__(self, array_name: object) -> bool:
        self._reading()  # the checks
        try:
            return self.has_array(array_name)
        except InvalidArgumentError:  # what no array can be named
            return False

    def __len__(self):
        return len(self._reading().list_arrays())

    def __iter__(self):
        return iter(self._reading().list_arrays())

    def __getitem__(self, array_name: str) -> np.ndarray:
        if not isinstance(array_name, str):
            check_name(array_name)
        return self.load(array_name)

    def __setitem__(self, array_name: str, value: ArrayLike) -> None:
        self.save({array_name: value})

    def __delitem__(self, array_name: str) -> None:
        check_name(array_name)
        self._settle([array_name], True)
        self._write(lambda txn: txn.drop_array(array_name))

    def keys(self) -> KeysView[str]:
        """The names of all arrays.

        Returns
        -------
        KeysView
            Of one moment.

        Examples
        --------
        >>> npk.save({"a": [1], "b": [2]})
        >>> list(npk.keys())
        ['a', 'b']
        """
        return self.load().keys()

    def values(self) -> ValuesView[np.ndarray]:
        """All arrays, each loaded when reached.

        Returns
        -------
        ValuesView
            Of one moment.

        Examples
        --------
        >>> npk.save({"a": [1], "b": [2]})
        >>> [array.tolist() for array in npk.values()]
        [[1], [2]]
        """
        return self.load().values()

    def items(self) -> ItemsView[str, np.ndarray]:
        """Names and arrays, each loaded when reached.

        Returns
        -------
        ItemsView
            Of one moment.

        Examples
        --------
        >>> npk.save({"a": [1], "b": [2]})
        >>> {name: array.tolist() for name, array in npk.items()}
        {'a': [1], 'b': [2]}
        """
        return self.load().items()

    def get(self, array_name: str, default: Any = None) -> Any:
        """Load an array if there is one.

        Parameters
        ----------
        array_name : str
            The array.
        default : object
            What to give when there is none of that name.

        Returns
        -------
        ndarray or object
            The array, as from :meth:`load`, or `default`.

        Raises
        ------
        InvalidArgumentError
            What no array can be named.

        Examples
        --------
        >>> npk.save({"a": [1]})
        >>> npk.get("a")
        array([1])
        >>> npk.get("b", "none")
        'none'
        """
        try:
            return self.load(check_name(array_name))
        except NotFoundError:
            return default

    def array(self, array_name: str) -> ArrayHandle:
        """A live handle of one array: reads see the newest commit.

        Parameters
        ----------
        array_name : str
            The array.

        Returns
        -------
        ArrayHandle
            With ``h[i]``, ``h[i] = v`` (replace), ``append``, ``drop``, ``shape``, ``dtype`` and ``attrs``.

        Raises
        ------
        NotFoundError
            There is no such array.

        Examples
        --------
        >>> npk.save({"a": [1, 2, 3]})
        >>> a = npk.array("a")
        >>> a[0] = 9
        >>> a.append([4])
        >>> a[:].tolist()
        [9, 2, 3, 4]
        """
        check_name(array_name)
        self._array_open(array_name)
        return ArrayHandle(self, array_name)

    # ---- transactions --------------------------------------------------------------------------------------

    def transaction(self, *, sync: str | None = None) -> Transaction:
        """A block of changes that is there whole or not at all.

        Parameters
        ----------
        sync : {"commit", "interval", "never"}, optional
            The level of this commit; None: the store's.

        Returns
        -------
        Transaction
            To be used with ``with``. Inside a transaction of this handle it is a savepoint.

        Raises
        ------
        InvalidArgumentError
            Another `sync`.
        BusyError
            At the beginning of the block: another writer held the store for `busy_timeout`.

        Examples
        --------
        >>> npk.save({"a": [1], "b": [1]})
        >>> with npk.transaction() as txn:
        ...     npk.append({"a": [2]})
        ...     npk.append({"b": [2]})
        >>> txn.lsn == npk.lsn
        True
        >>> with npk.transaction():
        ...     npk.append({"a": [3]})
        ...     raise KeyError("no more")
        Traceback (most recent call last):
        KeyError: 'no more'
        >>> npk.load("a").tolist()
        [1, 2]
        """
        return Transaction(self, sync)

    def batch_mode(self, memory_limit: int | None = None) -> BatchModeContext:
        """A transaction in which ``load`` gives the same array each time and ``save`` marks it for the end.

        Parameters
        ----------
        memory_limit : int, optional
            Accepted, without effect.

        Returns
        -------
        BatchModeContext
            To be used with ``with``.

        Examples
        --------
        >>> npk.save({"a": [1, 2, 3]})
        >>> with npk.batch_mode():
        ...     for row in range(3):
        ...         a = npk.load("a")
        ...         a[row] *= 10
        ...         npk.save({"a": a})
        >>> npk.load("a").tolist()
        [10, 20, 30]
        """
        from ._batch import BatchModeContext
        return BatchModeContext(self, memory_limit)

    def writable_batch_mode(self) -> WritableBatchMode:
        """A transaction in which ``load`` gives writable arrays, whose changed rows are committed at the end.

        Returns
        -------
        WritableBatchMode
            To be used with ``with``.

        Examples
        --------
        >>> npk.save({"a": np.zeros((3, 2), int)})
        >>> with npk.writable_batch_mode() as batch:
        ...     batch.load("a")[1] = 5
        >>> npk.load("a").tolist()
        [[0, 0], [5, 5], [0, 0]]
        """
        from ._batch import WritableBatchMode
        return WritableBatchMode(self)

    @property
    def _memory_cache(self):
        return getattr(self._block(), "_cache", {})

    @property
    def _cache_enabled(self):
        return hasattr(self._block(), "_cache")

    def snapshot(self) -> Snapshot:
        """Everything as of the newest commit, as a read-only mapping of name to :class:`LazyArray`.

        What an open transaction has changed is not in it.

        Returns
        -------
        Snapshot
            Close it when done: until then the space of what it shows is not reclaimed.

        Examples
        --------
        >>> npk.save({"a": [1, 2]})
        >>> with npk.snapshot() as snapshot:
        ...     npk.replace({"a": 9}, 0)
        ...     snapshot["a"][:].tolist(), npk.load("a").tolist()
        ([1, 2], [9, 2])
        """
        self._reading()  # the checks, and the opening
        core = self._core
        return Snapshot(self, None if core is None else core.snapshot())

    @property
    def attrs(self):
        """Attributes: those of the store, a mutable mapping of str to JSON values, transactional."""
        return Attributes(self)

    def array_attrs(self, array_name):
        """The attributes of an array, transactional; they go with the array.

        Parameters
        ----------
        array_name : str
            The array, which must be there when they are used.

        Returns
        -------
        Attributes
            A mutable mapping of str to JSON values.

        Raises
        ------
        InvalidArgumentError
            What no array can be named.

        Examples
        --------
        >>> npk.save({"a": [1, 2]})
        >>> npk.array_attrs("a")["unit"] = "m"
        >>> dict(npk.array_attrs("a"))
        {'unit': 'm'}
        """
        return Attributes(self, check_name(array_name))

    # ---- upkeep --------------------------------------------------------------------------------------------

    def _upkeep(self, action):
        """Run ``action(store)`` now, or after the commit of the caller's transaction."""
        if self._open:
            txn = self._current()
            if txn is not None:
                txn._usable()
                txn._after.append(lambda: self._upkeep_after(action))
                return
        if self._mode == "r":
            self._writable()
        if self._reading() is not EMPTY:
            action(self._writable())

    def _upkeep_after(self, action):
        """What was asked for in a transaction; the array may be gone again, or have been rolled back."""
        try:
            action(self._core)
        except NotFoundError:
            pass

    def update(self, array_name: str) -> None:
        """Fold an array: its rows then lie in one file, in one piece. In a transaction: after its commit.

        Parameters
        ----------
        array_name : str
            The array.

        Raises
        ------
        NotFoundError
            There is no such array.
        InvalidTypeError
            A mapping: this is not ``dict.update``, use :meth:`save`.

        Examples
        --------
        >>> npk.save({"a": [1, 2]})
        >>> npk.append({"a": [3]})
        >>> npk.update("a")
        >>> npk.stats()["pending_rows"]
        {'a': 0}
        """
        if not isinstance(array_name, str):
            if isinstance(array_name, Mapping):
                raise InvalidTypeError("update() folds one array by name; use save() to store arrays")
            check_name(array_name)
        check_name(array_name)
        self._settle([array_name])
        self._array_open(array_name)
        self._upkeep(lambda store: store.compact(array_name))

    def compact(self) -> None:
        """Fold every array. In a transaction: after its commit.

        Examples
        --------
        >>> npk.save({"a": [1, 2], "b": [1]})
        >>> npk.append({"a": [3], "b": [2]})
        >>> npk.compact()
        >>> npk.stats()["pending_rows"]
        {'a': 0, 'b': 0}
        """
        self._upkeep(lambda store: store.compact(None))

    def checkpoint(self) -> None:
        """Write a checkpoint, so that the next recovery starts here. In a transaction: after its commit.

        Examples
        --------
        >>> npk.save({"a": [1, 2]})
        >>> npk.checkpoint()
        >>> npk.stats()["checkpoint_lsn"] > 0
        True
        """
        self._upkeep(lambda store: store.checkpoint())

    def flush(self) -> None:
        """Make every commit durable now, whatever the level. Does nothing with mode "r".

        Raises
        ------
        PoisonedError
            The system could not make them durable.

        Examples
        --------
        >>> with numpack.NumPack(npk.path, sync="never") as fast:
        ...     fast.save({"a": [1, 2]})
        ...     fast.flush()
        ...     fast.stats()["durable_lsn"] == fast.lsn[1]
        True
        """
        if self._reading() is not EMPTY and self._mode != "r":
            self._core.flush()

    def verify(self, progress: Callable[[int, int], Any] | None = None) -> list[dict[str, Any]]:
        """Read everything and compare checksums and references.

        Parameters
        ----------
        progress : callable, optional
            Called now and then with the bytes done and the bytes in all. What it raises ends the check.

        Returns
        -------
        list
            Empty: nothing is wrong.

        Raises
        ------
        CorruptError
            Names the damaged array and rows; ``findings`` has them all.

        Examples
        --------
        >>> npk.save({"a": [1, 2]})
        >>> npk.verify()
        []
        """
        self._reading()
        if self._core is None:
            return []
        findings, message = self._core.verify(progress)
        if message is not None:
            first = findings[0]
            where = f"array {first['array']!r}: " if first["array"] else ""
            if first["first_row"] >= 0:
                last = first["first_row"] + max(first["row_count"], 1) - 1
                where += f"rows {first['first_row']} to {last}: "
            more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
            raise CorruptError(f"verify: {where}{first['file']}: {first['reason']}{more}", array=first["array"] or None,
                               row=first["first_row"] if first["first_row"] >= 0 else None, findings=findings)
        return []

    def stats(self) -> dict[str, Any]:
        """Gauges and counters of the store.

        Sizes are in bytes, times in microseconds since 1970, 0: never. ``worker_reason`` says what the background thread
        did last or waits for, and ``pin_lsn`` which state a reader still holds: why space is not given back yet.

        Returns
        -------
        dict
            Of str to int, but for ``position``, ``worker_reason`` and ``pending_rows``, a dict of array to rows.

        Examples
        --------
        >>> npk.save({"a": [1, 2]})
        >>> stats = npk.stats()
        >>> stats["array_count"], stats["commits"]
        (1, 1)
        """
        self._reading()
        if self._core is None:
            return {"position": (0, 0), **dict.fromkeys(_NUMBERS, 0), "worker_reason": "", "pending_rows": {}}
        result = self._core.stats()
        result["pending_rows"] = {name: array.pending_row_count for name, array in self._open_all().items()}
        return result

    def get_io_stats(self) -> dict[str, Any]:
        """Gauges and counters of the store, by the name that the Rust package has for them.

        Returns
        -------
        dict
            As from :meth:`stats`.

        Examples
        --------
        >>> npk.save({"a": [1, 2]})
        >>> npk.get_io_stats()["commits"]
        1
        """
        return self.stats()

    def get_metadata(self) -> dict[str, Any]:
        """Shape, dtype, size and times of every array.

        Returns
        -------
        dict
            ``arrays``, a dict of name to dict; ``base_dir``; ``total_arrays``.

        Examples
        --------
        >>> npk.save({"a": np.zeros((3, 2), "f4")})
        >>> metadata = npk.get_metadata()
        >>> metadata["total_arrays"]
        1
        >>> [metadata["arrays"]["a"][key] for key in ("shape", "dtype", "size_bytes")]
        [[3, 2], 'Float32', 24]
        """
        arrays = {}
        for name, array in self._open_all().items():
            dtype = decode(array.descr, name)
            arrays[name] = {
                "shape": list(array.shape),
                "dtype": dtype.name.capitalize() if dtype.names is None else "Struct",
                "descr": array.descr,
                "size_bytes": array.row_count * array.row_size,
                "last_modified": array.modified_us,
                "created": array.created_us,
                "rows": array.row_count,
                "pending_rows": array.pending_row_count,
            }
        return {"arrays": arrays, "base_dir": self._filename, "total_arrays": len(arrays)}

    @property
    def lsn(self) -> tuple[int, int]:
        """tuple of int: ``(epoch, lsn)`` of the newest commit that this process sees. Comparable."""
        self._reading()
        return (0, 0) if self._core is None else self._core.position()


def _check_arrays(arrays):
    """The items of a mapping of names to arrays, names checked."""
    if not isinstance(arrays, Mapping):
        raise InvalidArgumentError("arrays must be a dictionary")
    return [(check_name(name), value) for name, value in arrays.items()]


def _check_casting(casting):
    if casting not in ("safe", "same_kind"):
        raise InvalidArgumentError(f"casting must be \"safe\" or \"same_kind\", not {casting!r}")


def _prepare(name, value):
    """The arguments of the core's save for one array."""
    array = as_array(value, name)
    descr = encode(array.dtype, name)
    array = contiguous(array)
    shape = array.shape
    if not shape:
        return name, descr, array.itemsize, (), True, 1, array
    tail = shape[1:]
    row_size = array.itemsize
    for length in tail:
        row_size *= length
    return name, descr, row_size, tail, False, shape[0], array


def _fit_rows(rows, count, shape, name):
    """Rows for `count` indices: as many, one, or a scalar."""
    tail = shape[1:]
    if rows.shape[1:] == tail and rows.ndim == len(shape):
        if rows.shape[0] == count:
            return rows
        if rows.shape[0] != 1:
            raise ShapeError(f"array {name!r}: {rows.shape[0]} rows do not fit {count} indices", array=name)
    elif rows.shape != tail and rows.ndim:
        raise ShapeError(f"array {name!r}: rows of shape {rows.shape} do not fit an array of shape {shape}", array=name)
    return np.array(np.broadcast_to(rows, (count,) + tail), order="C")


for _name in ("save", "load", "append", "replace", "drop", "getitem", "get_shape", "get_dtype", "get_member_list",
              "get_modify_time", "has_array", "get", "keys", "values", "items", "array", "stream_load", "update",
              "compact", "checkpoint", "flush", "clone", "rename", "reset", "get_metadata", "get_io_stats", "stats",
              "verify", "array_attrs", "snapshot", "transaction", "batch_mode", "writable_batch_mode"):
    setattr(Transaction, _name, delegate(getattr(NumPack, _name)))
del _name
