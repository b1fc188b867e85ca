"""NumPack: a directory of named arrays, changed in transactions."""

from __future__ import annotations

import atexit
import os
import weakref
from _thread import RLock
from collections.abc import Callable, Mapping

import numpy as np

from . import _core
from ._attrs import Attributes, ReadOnlyAttributes, check_name
from ._dtypes import as_array, contiguous, convert, decode, encode
from ._errors import (ClosedError, CorruptError, ExistsError, FormatError, InvalidArgumentError,
                      InvalidTypeError, NotFoundError, NumPackError, ReadOnlyError, ShapeError, StoreExistsError,
                      StoreNotFoundError, WrongUseError, about_path)
from ._indices import resolve
from ._lazy import LazyArray, load_copy, load_mapped, read_rows
from ._transaction import Transaction, check_sync, forget_inherited, holds_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterable, Iterator, KeysView, Sequence, ValuesView
    from pathlib import Path
    from typing import Any, SupportsIndex, Union

    from numpy.typing import ArrayLike

    from ._batch import BatchModeContext, WritableBatchMode

    Indices = Union[SupportsIndex, slice, Sequence[SupportsIndex], range, np.ndarray, tuple[np.ndarray]]

_READ, _UPDATE, _CREATE, _EXCLUSIVE = range(4)  # npk_mode
_MODES = ("r", "r+", "a", "w", "x")

_opened = weakref.WeakSet()  # handles that hold a core store
_inherited = []              # core stores of a parent process: never touched again


def _after_fork_in_child():
    forget_inherited()
    for npk in list(_opened):
        _inherited.append(npk._core)
        npk._core = None
        npk._forked = True
        npk._guarded = True
        npk._open.clear()
        npk._opening = RLock()
    _opened.clear()


def _close_at_exit():
    for npk in list(_opened):
        try:
            npk._core.close()
        except Exception:  # a transaction is open in a thread that was not waited for: the next open recovers
            pass


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_close_at_exit)


class _EmptySource:
    """What a store that does not exist yet reads like."""

    _position = (0, 0)

    def array_open(self, name):
        raise NotFoundError(f"array {name!r}: there is no such array", array=name)

    def list_arrays(self):
        return []

    def list_attrs(self, array):
        if array is not None:
            self.array_open(array)
        return {}

    def position(self):
        return self._position


_EMPTY = _EmptySource()


def _whole(value, name, low=0, high=2 ** 63):
    """An option that is a whole number."""
    try:
        number = value.__index__()
    except AttributeError:
        raise InvalidTypeError(f"{name} must be an int, not {type(value).__name__}") from None
    if not low <= number < high or isinstance(value, bool):
        raise InvalidArgumentError(f"{name} must be at least {low} and below {high}, not {value!r}")
    return number


class NumPack:
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
    warn_no_context : bool
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
    busy_timeout : float
        Seconds to wait for another writer.
    segment_size, checkpoint_log_size, pending_limit, bulk_size : int
        Sizes in bytes, see ``npk.h``; 0 is the default.
    background : bool
        Fold, checkpoint and reclaim in a thread.
    network : bool
        Allow writing on a network file system.

    Raises
    ------
    InvalidArgumentError
        An option has a value it cannot have.

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

    # For what may run before or after __init__ is whole.
    _core = None
    _open = ()

    def __init__(self, filename: str | os.PathLike[str], drop_if_exists: bool = False,
                 strict_context_mode: bool = False, warn_no_context: bool | None = None,
                 force_gc_on_close: bool = False, *, mode: str = "a", sync: str = "commit",
                 sync_interval_ms: int = 100, busy_timeout: float | None = 60.0, segment_size: int = 0,
                 checkpoint_log_size: int = 0, pending_limit: int = 0, bulk_size: int = 0, background: bool = True,
                 network: bool = False) -> None:
        name = os.fspath(filename)
        if not isinstance(name, str):
            raise InvalidTypeError(f"filename must be a str or path-like, not {type(filename).__name__}")
        if not name or "\0" in name:
            raise InvalidArgumentError(f"filename {name!r} cannot name a directory")
        if not isinstance(mode, str) or mode not in _MODES:
            raise InvalidArgumentError(f"mode must be one of \"r\", \"r+\", \"a\", \"w\", \"x\", not {mode!r}")
        if drop_if_exists and mode in ("r", "r+"):
            raise InvalidArgumentError(f"drop_if_exists cannot be combined with mode {mode!r}")
        self._filename = name
        self._abspath = os.path.abspath(name)
        self._mode = mode
        self._strict = bool(strict_context_mode)
        self._warn = bool(warn_no_context) and not self._strict
        self._gc_on_close = bool(force_gc_on_close)
        self._empty_first = bool(drop_if_exists) or mode == "w"
        self._sync = check_sync(sync)
        try:
            seconds = float(busy_timeout) if busy_timeout is not None else float("inf")
        except (TypeError, ValueError):
            raise InvalidTypeError(f"busy_timeout must be a number of seconds, not {busy_timeout!r}") from None
        if not seconds >= 0:
            raise InvalidArgumentError(f"busy_timeout must not be negative, got {busy_timeout!r}")
        self._busy_ms = int(min(seconds * 1000, 2 ** 32 - 2))
        self._options = {
            "sync": self._sync,
            "sync_interval_ms": _whole(sync_interval_ms, "sync_interval_ms", 1, 2 ** 32),
            "busy_timeout_ms": max(1, self._busy_ms),
            "segment_size": _whole(segment_size, "segment_size"),
            "checkpoint_log_size": _whole(checkpoint_log_size, "checkpoint_log_size"),
            "pending_limit": _whole(pending_limit, "pending_limit"),
            "bulk_size": _whole(bulk_size, "bulk_size"),
            "no_background": not background,
            "network": bool(network),
        }
        self._core = None
        self._identity = None      # (device, inode) of the directory
        self._open = []            # transactions that are open on this handle
        self._closed = False       # closed by the user
        self._forked = False       # inherited from a parent process: reads only
        self._created = False      # mode "x" has made its store
        self._opening = RLock()    # held while opening, so that threads open once
        self._depth = 0            # nested with blocks
        self._guarded = self._strict or self._warn  # reading takes the long way

    # ---- opening and closing -------------------------------------------------------------------------------

    @property
    def is_opened(self) -> bool:
        """Whether the store is open."""
        return self._core is not None

    @property
    def is_closed(self) -> bool:
        """Whether the store is not open."""
        return self._core is None

    @property
    def path(self) -> Path:
        """The directory, as a Path."""
        from pathlib import Path
        return Path(self._filename)

    @property
    def mode(self) -> str:
        """The mode given to the constructor."""
        return self._mode

    def open(self) -> None:
        """Open the store, creating it if the mode allows. Harmless when open.

        Raises
        ------
        StoreNotFoundError
            There is none, with mode "r" or "r+".
        StoreExistsError
            A file is at the path; with mode "x", a store.
        FormatError
            The directory is of the Rust package, or of a newer format.
        """
        if self._core is None:
            self._open_core(create=True)
        self._closed = False

    def _open_core(self, create):
        """Open the core's store; None when there is none and `create` is false and the mode would create it."""
        with self._opening:
            return self._open_once(create) if self._core is None else self._core

    def _open_once(self, create):
        path = self._abspath
        if os.path.lexists(os.path.join(path, "metadata.npkm")) and not os.path.lexists(os.path.join(path, "FORMAT")):
            raise FormatError(f"open store {self._filename!r}: the directory belongs to the Rust package of this name; "
                              f"convert it with: python -m numpack.migrate {self._filename}")
        mode = self._mode
        if mode == "r" or self._forked:
            number = _READ
        elif mode == "r+" or not create:
            number = _UPDATE
        elif mode == "x" and not self._created:
            number = _EXCLUSIVE
        else:
            number = _CREATE
        try:
            core = _core.open_store(path, number, **self._options)
        except NumPackError as error:
            named = about_path(error)
            if isinstance(named, StoreNotFoundError) and not create and mode in ("a", "w", "x"):
                return None
            raise named from None
        try:
            if mode == "x" and number == _UPDATE and not self._created:
                raise StoreExistsError(f"open store {self._filename!r}: there is a store already")
            if self._empty_first and number != _READ:
                self._empty(core)
            status = os.stat(path)
        except BaseException:
            core.close()
            raise
        self._created = True
        self._empty_first = False
        self._identity = (status.st_dev, status.st_ino)
        self._core = core
        _opened.add(self)
        return core

    def _empty(self, core):
        if not core.list_arrays() and not core.list_attrs(None):
            return
        txn = core.begin(self._busy_ms)
        try:
            txn.reset()
        except BaseException:
            txn.abort()
            raise
        txn.commit(self._sync)

    def close(self, force_gc: bool | None = None) -> None:
        """Close the store. Harmless when closed, or never opened. Arrays taken from it stay valid.

        Parameters
        ----------
        force_gc : bool, optional
            Collect garbage; None: as the constructor was told.

        Raises
        ------
        WrongUseError
            A transaction is open.
        StoreIOError
            The system failed to write what closing writes; nothing committed is lost.
        """
        if self._open:
            raise WrongUseError("the store cannot be closed while a transaction is open")
        core = self._core
        self._core = None
        self._closed = True
        if core is not None:
            _opened.discard(self)
            try:
                core.close()
            except WrongUseError:
                self._core, self._closed = core, False
                _opened.add(self)
                raise
            except NumPackError:
                if os.path.isdir(self._abspath):
                    raise
        if self._forked:
            self._forked = False
            self._guarded = self._strict or self._warn
        if self._gc_on_close if force_gc is None else force_gc:
            import gc
            gc.collect()

    def __enter__(self):
        self.open()
        self._depth += 1
        return self

    def __exit__(self, kind, error, traceback):
        self._depth = max(0, self._depth - 1)
        if self._depth == 0:
            self.close()
        return False

    def __del__(self):
        core, self._core = self._core, None
        if core is not None:
            try:
                core.close()
            except Exception:
                pass

    def __bool__(self):
        return True

    def __reduce__(self):
        return _rebuild, (self._abspath, self._strict, self._warn, self._gc_on_close,
                          {"w": "r+", "x": "r+"}.get(self._mode, self._mode), self._sync, self._busy_ms, self._options)

    def __repr__(self):
        if self._core is None:
            return f"NumPack({self._filename}, status=closed)"
        try:
            return f"NumPack({self._filename}, arrays={len(self._core.list_arrays())})"
        except Exception as error:
            return f"NumPack({self._filename}, status={type(error).__name__})"

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

    # ---- the way to the core -------------------------------------------------------------------------------

    def _current(self):
        """The outermost transaction that the calling thread and context own, or None."""
        for txn in self._open:
            if txn._owned():
                return txn
        return None

    def _check_usable(self):
        if self._closed:
            raise ClosedError(f"store {self._filename!r} is not opened or has been closed; use open() or a with block")
        if self._depth == 0:
            if self._strict:
                raise WrongUseError(f"store {self._filename!r}: strict context mode: use it inside a with block")
            if self._warn:
                import warnings
                warnings.warn(f"store {self._filename!r} is used outside a with block", UserWarning, stacklevel=4)

    def _reading(self):
        """Where to read: the transaction that the caller owns, the store, or nothing at all."""
        if self._open:
            txn = self._current()
            if txn is not None:
                core = txn._usable()
                txn._innermost()._flush()
                return core
        core = self._core
        if core is not None and not self._guarded:
            return core
        self._check_usable()
        if core is None:
            core = self._open_core(create=False)
        return _EMPTY if core is None else core

    def _writable(self):
        """The core store, opened for writing."""
        core = self._core
        if core is None or self._guarded:
            self._check_usable()
            if self._forked:
                raise WrongUseError(f"store {self._filename!r}: the handle was inherited through fork and can only "
                                    "read; close() and open() it in this process")
            if core is None:
                if self._mode == "r":
                    self._open_core(create=False)
                else:
                    core = self._open_core(create=True)
        if self._mode == "r":
            raise ReadOnlyError(f"store {self._filename!r} was opened with mode \"r\"")
        return core

    def _begin(self, store):
        """A transaction of the core; waits for other threads and processes, never for this thread."""
        return store.begin(0 if holds_store(self._identity) else self._busy_ms)

    def _write(self, operation, several=False):
        """Run ``operation(txn)`` in the caller's transaction, or in one of its own.

        several: the operation changes more than one thing, so that a failure half way must be undone by a savepoint.
        """
        if self._open:
            owner = self._current()
            if owner is not None:
                txn = owner._usable()
                if not several:
                    return operation(txn)
                savepoint = txn.savepoint()
                try:
                    result = operation(txn)
                except BaseException:
                    txn.rollback_to(savepoint)
                    txn.release_savepoint(savepoint)
                    raise
                txn.release_savepoint(savepoint)
                return result
        txn = self._begin(self._writable())
        try:
            result = operation(txn)
        except BaseException:
            txn.abort()
            raise
        txn.commit(self._sync)
        return result

    def _block(self):
        """The innermost block of the caller's transaction, or None."""
        if self._open:
            txn = self._current()
            if txn is not None:
                txn._usable()
                return txn._innermost()
        return None

    def _settle(self, names, goes=False):
        """Rows of these arrays are about to change, or to go: batches have something to do first."""
        block = self._block()
        if block is not None:
            block._settle(names, goes)

    # ---- writing whole arrays ------------------------------------------------------------------------------

    def save(self, arrays: Mapping[str, ArrayLike]) -> None:
        """Create arrays, or replace them whole, in one transaction. Array attributes are kept.

        Parameters
        ----------
        arrays : Mapping of str to array_like
            Anything `np.asarray` takes. The first axis is the rows; a 0-d array is one value.

        Raises
        ------
        InvalidArgumentError
            `arrays` is not a mapping, or a name cannot be one.
        DTypeError
            The dtype cannot be stored: objects, variable width, masked values.

        Examples
        --------
        >>> import numpack, tempfile
        >>> npk = numpack.NumPack(tempfile.mkdtemp() + "/store")
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
            The rows have another shape than those of the array.
        DTypeError
            The values do not fit the stored dtype, which never changes.
        """
        items = _check_arrays(arrays)
        _check_casting(casting)
        self._settle([name for name, _ in items])

        def apply(txn):
            steps = []
            for name, value in items:
                try:
                    array = txn.array_open(name)
                except NotFoundError:
                    item = _prepare(name, value)
                    if item[4]:
                        raise ShapeError(f"array {name!r}: append takes rows with their axis; use x[None]",
                                         array=name) from None
                    steps.append((txn.save, item))
                    continue
                shape = array.shape
                if not shape:
                    raise ShapeError(f"array {name!r}: a 0-d array has no rows to append to", array=name)
                rows = convert(value, decode(array.descr, name), name, casting)
                if rows.ndim != len(shape) or rows.shape[1:] != shape[1:]:
                    hint = "; rows are given with their axis: use x[None]" if rows.shape == shape[1:] else ""
                    raise ShapeError(f"array {name!r}: rows of shape {rows.shape} do not fit behind an array of shape "
                                     f"{shape}{hint}", array=name)
                if rows.shape[0]:
                    steps.append((txn.append, (name, array.row_size, rows.shape[0], rows)))
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
            A row lies outside the array.
        ShapeError
            The rows do not fit the indices or the array.
        DTypeError
            The values do not fit the stored dtype.
        """
        items = _check_arrays(arrays)
        _check_casting(casting)
        self._settle([name for name, _ in items])

        def apply(txn):
            steps = []
            for name, value in items:
                array = txn.array_open(name)
                shape = array.shape
                if not shape:
                    raise ShapeError(f"array {name!r}: a 0-d array has no rows to replace; use save", array=name)
                first, count, numbers = resolve(indexes, shape[0], name)
                if numbers is not None:
                    count = numbers.shape[0]
                rows = _fit_rows(convert(value, decode(array.descr, name), name, casting), count, shape, name)
                if count == 0:
                    continue
                if numbers is None:
                    steps.append((txn.replace_run, (name, array.row_size, first, count, rows)))
                else:
                    steps.append((txn.replace, (name, array.row_size, numbers, rows)))
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
        """
        if isinstance(array_name, str):
            names = [array_name]
        elif isinstance(array_name, (list, tuple, set, frozenset)):
            names = list(dict.fromkeys(array_name))
        else:
            raise InvalidTypeError(f"array_name must be a str or a list of str, not {type(array_name).__name__}")
        for name in names:
            check_name(name)
        self._settle(names, True)

        def apply(txn):
            steps = []
            for name in names:
                try:
                    array = txn.array_open(name)
                except NotFoundError:
                    continue
                if indexes is None:
                    steps.append((txn.drop_array, (name,)))
                    continue
                if not array.shape:
                    raise ShapeError(f"array {name!r}: a 0-d array has no rows to drop", array=name)
                first, count, rows = resolve(indexes, array.row_count, name, ignore_outside=True)
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
        return self._mode == "r" or self._reading() is not _EMPTY

    def clone(self, source_name: str, target_name: str) -> None:
        """A new array with the same rows; the bytes are shared.

        Raises
        ------
        NotFoundError
            There is no source.
        ExistsError
            There is a target.
        """
        check_name(source_name)
        check_name(target_name)
        self._settle([source_name, target_name])
        self._write(lambda txn: txn.clone(source_name, target_name))

    def rename(self, old: str, new: str) -> None:
        """Give an array another name.

        Raises
        ------
        NotFoundError
            There is no such array.
        ExistsError
            The new name is taken.
        """
        check_name(old)
        check_name(new)
        self._settle([old, new], True)

        def apply(txn):
            if old == new:
                txn.array_open(old)
                raise ExistsError(f"array {new!r}: the name is taken", array=new)
            txn.rename(old, new)

        self._write(apply)

    def reset(self) -> None:
        """Drop every array and every attribute, in one transaction."""
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
        ndarray, LazyArray or Mapping
            By default a private, writable, C-contiguous ndarray.

        Raises
        ------
        NotFoundError
            There is no such array.
        InvalidArgumentError
            Another `mmap_mode`, or both arguments.
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
            return LazyArray(array, self)
        return _load(array, mmap_mode)

    def _array_open(self, name):
        try:
            return self._reading().array_open(name)
        except UnicodeEncodeError:
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
        """Rows of an array, as a private ndarray; an int gives shape ``(1, ...)``.

        Raises
        ------
        NotFoundError
            There is no such array.
        OutOfRangeError
            A row lies outside the array.
        """
        if not isinstance(array_name, str) and isinstance(indexes, str):
            array_name, indexes = indexes, array_name  # the order of the Rust package's first release
        check_name(array_name)
        array = self._array_open(array_name)
        if not array.shape:
            raise ShapeError(f"array {array_name!r}: a 0-d array has no rows", array=array_name)
        return read_rows(array, *resolve(indexes, array.row_count, array_name))

    def get_shape(self, array_name: str | None = None) -> Any:
        """The shape of an array; without a name, a dict of all."""
        if array_name is None:
            return {name: array.shape for name, array in self._open_all().items()}
        check_name(array_name)
        return self._array_open(array_name).shape

    def get_dtype(self, array_name: str) -> np.dtype:
        """The stored dtype of an array."""
        check_name(array_name)
        return decode(self._array_open(array_name).descr, array_name)

    def get_member_list(self) -> list[str]:
        """The names of all arrays, sorted by code point."""
        return self._reading().list_arrays()

    def get_modify_time(self, array_name: str) -> int | None:
        """Microseconds since 1970 of the last change of an array; None when there is none of that name."""
        check_name(array_name)
        try:
            return self._array_open(array_name).modified_us
        except NotFoundError:
            return None

    def has_array(self, array_name: str) -> bool:
        """Whether there is an array of that name."""
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
            `buffer_size` is not positive; raised at the call, as is NotFoundError.
        """
        check_name(array_name)
        size = 1 if buffer_size is None else _whole(buffer_size, "buffer_size", 1)
        array = self._array_open(array_name)
        if not array.shape:
            raise ShapeError(f"array {array_name!r}: a 0-d array has no rows", array=array_name)
        return (read_rows(array, first, min(size, array.row_count - first), None)
                for first in range(0, array.row_count, size))

    # ---- mapping of names ----------------------------------------------------------------------------------

    def __contains__(self, array_name: object) -> bool:
        return isinstance(array_name, str) and bool(array_name) and self.has_array(array_name)

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
        """The names of all arrays, as a view of one moment."""
        return self.load().keys()

    def values(self) -> ValuesView[np.ndarray]:
        """All arrays of one moment, each loaded when reached."""
        return self.load().values()

    def items(self) -> ItemsView[str, np.ndarray]:
        """Names and arrays of one moment, each loaded when reached."""
        return self.load().items()

    def get(self, array_name: str, default: Any = None) -> Any:
        """The array, or `default` when there is none of that name."""
        try:
            return self.load(check_name(array_name))
        except NotFoundError:
            return default

    def array(self, array_name: str) -> ArrayHandle:
        """A live handle of one array: reads see the newest commit.

        Returns
        -------
        ArrayHandle
            With ``h[i]``, ``h[i] = v`` (replace), ``append``, ``drop``, ``shape``, ``dtype`` and ``attrs``.
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
        BusyError
            At the beginning of the block: another writer held the store for `busy_timeout`.
        """
        return Transaction(self, sync)

    def batch_mode(self, memory_limit: int | None = None) -> BatchModeContext:
        """A transaction in which ``load`` gives the same array each time and ``save`` marks it for the end."""
        from ._batch import BatchModeContext
        return BatchModeContext(self, memory_limit)

    def writable_batch_mode(self) -> WritableBatchMode:
        """A transaction in which ``load`` gives writable arrays, whose changed rows are committed at the end."""
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

        Returns
        -------
        Snapshot
            Close it when done: until then the space of what it shows is not reclaimed.
        """
        self._reading()  # the checks, and the opening
        core = self._core
        return Snapshot(self, None if core is None else core.snapshot())

    @property
    def attrs(self):
        """The attributes of the store: a mutable mapping of str to JSON values, transactional."""
        return Attributes(self)

    def array_attrs(self, array_name):
        """The attributes of an array: a mutable mapping of str to JSON values, transactional."""
        return Attributes(self, check_name(array_name))

    def _attrs_of(self, name):
        return ReadOnlyAttributes(self._reading().list_attrs(name))

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
        if self._reading() is not _EMPTY:
            action(self._writable())

    def _upkeep_after(self, action):
        """What was asked for in a transaction; the array may be gone again, or have been rolled back."""
        try:
            action(self._core)
        except NotFoundError:
            pass

    def update(self, array_name: str) -> None:
        """Fold an array: its rows then lie in one file, in one piece. In a transaction: after its commit."""
        if not isinstance(array_name, str):
            if isinstance(array_name, Mapping):
                raise InvalidTypeError("update() folds one array by name; use save() to store arrays")
            check_name(array_name)
        check_name(array_name)
        self._settle([array_name])
        self._array_open(array_name)
        self._upkeep(lambda store: store.compact(array_name))

    def compact(self) -> None:
        """Fold every array. In a transaction: after its commit."""
        self._upkeep(lambda store: store.compact(None))

    def checkpoint(self) -> None:
        """Write a checkpoint, so that the next recovery starts here. In a transaction: after its commit."""
        self._upkeep(lambda store: store.checkpoint())

    def flush(self) -> None:
        """Make every commit durable now, whatever the level."""
        if self._mode != "r" and self._reading() is not _EMPTY:
            (self._core or self._writable()).flush()

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
        """Gauges and counters of the store as a dict, with the pending rows of each array."""
        self._reading()
        if self._core is None:
            return {"position": (0, 0), "array_count": 0, "pending_rows": {}}
        result = self._core.stats()
        result["pending_rows"] = {name: array.pending_row_count for name, array in self._open_all().items()}
        return result

    def get_io_stats(self) -> dict[str, Any]:
        """As :meth:`stats`."""
        return self.stats()

    def get_metadata(self) -> dict[str, Any]:
        """Shape, dtype, size and times of every array, as a dict."""
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
        """``(epoch, lsn)`` of the newest commit that this process sees."""
        self._reading()
        return (0, 0) if self._core is None else self._core.position()


def _rebuild(path, strict, warn, gc_on_close, mode, sync, busy_ms, options):
    npk = NumPack(path, strict_context_mode=strict, warn_no_context=warn, force_gc_on_close=gc_on_close, mode=mode)
    npk._sync, npk._busy_ms, npk._options = sync, busy_ms, options
    return npk


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


def _load(array, mmap_mode):
    if not mmap_mode:
        return load_copy(array)
    return load_mapped(array, mmap_mode == "c")


class LoadedArrays(Mapping):
    """All arrays of one moment, each loaded when asked for; given by ``load()`` without a name."""

    def __init__(self, npk, arrays, lazy, mmap_mode):
        self._npk = npk
        self._arrays = arrays
        self._lazy = lazy
        self._mmap_mode = mmap_mode

    def __getitem__(self, name):
        try:
            array = self._arrays[name]
        except (KeyError, TypeError):
            raise NotFoundError(f"array {name!r}: there is no such array") from None
        return LazyArray(array, self._npk) if self._lazy else _load(array, self._mmap_mode)

    def __contains__(self, name):
        return name in self._arrays

    def __iter__(self):
        return iter(self._arrays)

    def __len__(self):
        return len(self._arrays)

    def __repr__(self):
        return f"LoadedArrays({list(self._arrays)})"


class ArrayHandle:
    """One array by name, live; given by :meth:`NumPack.array`."""

    __slots__ = ("_npk", "_name")

    def __init__(self, npk, name):
        self._npk = npk
        self._name = name

    @property
    def name(self) -> str:
        """The name of the array."""
        return self._name

    @property
    def shape(self):
        """The shape it has now."""
        return self._npk.get_shape(self._name)

    @property
    def dtype(self):
        """The stored dtype."""
        return self._npk.get_dtype(self._name)

    @property
    def attrs(self):
        """The attributes of the array, mutable."""
        return self._npk.array_attrs(self._name)

    def __len__(self):
        shape = self.shape
        if not shape:
            raise TypeError("len() of unsized object")
        return shape[0]

    def __getitem__(self, key):
        return self._npk.load(self._name, lazy=True)[key]

    def __setitem__(self, key, value):
        self._npk.replace({self._name: value}, key)

    def append(self, rows: ArrayLike, *, casting: str = "safe") -> None:
        """Add rows behind the array."""
        if not self._npk.has_array(self._name):
            raise NotFoundError(f"array {self._name!r}: there is no such array", array=self._name)
        self._npk.append({self._name: rows}, casting=casting)

    def drop(self, indexes: Indices | None = None) -> None:
        """Remove rows; without indices, the array."""
        self._npk.drop(self._name, indexes)

    def __array__(self, dtype=None, copy=None):
        array = self._npk.load(self._name)
        return array if dtype is None else array.astype(dtype, copy=False)

    def __repr__(self):
        return f"ArrayHandle({self._name!r})"


class Snapshot(Mapping):
    """Everything as of one committed transaction; given by :meth:`NumPack.snapshot`.

    Arrays taken from it outlive it.
    """

    def __init__(self, npk, core):
        self._npk = npk
        self._core = core
        self._names = None
        self._closed = False

    def _source(self):
        if self._closed:
            raise ClosedError("the snapshot has been closed")
        return _EMPTY if self._core is None else self._core

    @property
    def _abspath(self):
        return self._npk._abspath

    def _attrs_of(self, name):
        return ReadOnlyAttributes(self._source().list_attrs(name))

    @property
    def lsn(self) -> tuple[int, int]:
        """``(epoch, lsn)`` of the state."""
        source = self._source()
        return source.position() if source is _EMPTY else source.position

    @property
    def attrs(self):
        """The attributes of the store, read-only."""
        return self._attrs_of(None)

    def array_attrs(self, array_name):
        """The attributes of an array, read-only."""
        return self._attrs_of(check_name(array_name))

    def __getitem__(self, name):
        return LazyArray(self._source().array_open(check_name(name)), self)

    def __iter__(self):
        return iter(self._source().list_arrays())

    def __len__(self):
        return len(self._source().list_arrays())

    def __contains__(self, name):
        try:
            self._source().array_open(name)
        except (NotFoundError, TypeError, UnicodeEncodeError):
            return False
        return True

    def close(self):
        """Give up the pin. Harmless when closed."""
        self._closed = True
        core, self._core = self._core, None
        if core is not None:
            core.close()

    def __enter__(self):
        self._source()
        return self

    def __exit__(self, kind, error, traceback):
        self.close()

    def __repr__(self):
        return "Snapshot(closed)" if self._closed else f"Snapshot(lsn={self.lsn}, arrays={len(self)})"
