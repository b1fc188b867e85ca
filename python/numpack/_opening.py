"""Opening, closing, and how a call finds the transaction, snapshot or store that it is about."""

from __future__ import annotations

import atexit
import errno
import operator
import os
import sys
import weakref
from _thread import RLock

from . import _core
from ._errors import (ClosedError, FormatError, InvalidArgumentError, InvalidTypeError, NoSpaceError, NotFoundError,
                      NumPackError, ReadOnlyError, StoreExistsError, StoreIOError, StoreNotFoundError, WrongUseError,
                      about_path)
from ._transaction import check_sync, forget_inherited, holds_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ._transaction import Transaction

_READ, _UPDATE, _CREATE, _EXCLUSIVE = range(4)  # npk_mode
_MODES = ("r", "r+", "a", "w", "x")

_opened: weakref.WeakSet[StoreHandle] = weakref.WeakSet()  # handles that hold a core store
_inherited: list[_core.Store] = []  # core stores of a parent process: never touched again


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


EMPTY = _EmptySource()


def whole_number(value, name, low=0, high=2 ** 63):
    """An option that is a whole number."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidTypeError(f"{name} must be an int, not {type(value).__name__}") from None
    if not low <= number < high or isinstance(value, bool):
        raise InvalidArgumentError(f"{name} must be at least {low} and below {high}, not {value!r}")
    return number


def _belongs_to_rust(path):
    """Whether a directory was written by the Rust package: it writes the names of its arrays only when it is closed."""
    if os.path.lexists(os.path.join(path, "FORMAT")):
        return False
    if os.path.lexists(os.path.join(path, "metadata.npkm")):
        return True
    try:
        with os.scandir(path) as entries:
            return any(entry.name.startswith("data_") and entry.name.endswith(".npkd") for entry in entries)
    except OSError:  # opening says what is wrong with the path
        return False


def _make_parents(path):
    """Create the directories above a store, and make each durable in the one above it. Whether there were any."""
    missing, parent = [], os.path.dirname(path)
    while not os.path.lexists(parent):
        missing.append(parent)
        parent = os.path.dirname(parent)
    try:
        for directory in reversed(missing):
            try:
                os.mkdir(directory)
            except FileExistsError:  # another process was quicker
                pass
            descriptor = os.open(os.path.dirname(directory), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        cls = {errno.EACCES: ReadOnlyError, errno.EPERM: ReadOnlyError, errno.EROFS: ReadOnlyError,
               errno.ENOSPC: NoSpaceError, errno.EDQUOT: NoSpaceError}.get(error.errno, StoreIOError)
        raise cls(f"open store {path!r}: could not create directory {directory!r}: {os.strerror(error.errno)}",
                  errno=error.errno) from None
    return bool(missing)


class StoreHandle:
    """One handle of a store: when it is open, and what a call through it works on."""

    # For what may run before or after __init__ is whole.
    _core = None
    _open: tuple[()] | list[Transaction] = ()

    def __init__(self, filename: str | os.PathLike[str], drop_if_exists: bool = False,
                 strict_context_mode: bool = False, warn_no_context: bool | None = None,
                 force_gc_on_close: bool = False, *, mode: str = "a", sync: str = "commit",
                 sync_interval_ms: int = 100, busy_timeout: float | None = 60.0, segment_size: int = 0,
                 checkpoint_log_size: int = 0, pending_limit: int = 0, bulk_size: int = 0, background: bool = True,
                 network: bool = False) -> None:
        try:
            name = os.fspath(filename)
        except TypeError:
            name = None
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
            "sync_interval_ms": whole_number(sync_interval_ms, "sync_interval_ms", 1, 2 ** 32),
            "busy_timeout_ms": max(1, self._busy_ms),
            "segment_size": whole_number(segment_size, "segment_size"),
            "checkpoint_log_size": whole_number(checkpoint_log_size, "checkpoint_log_size"),
            "pending_limit": whole_number(pending_limit, "pending_limit"),
            "bulk_size": whole_number(bulk_size, "bulk_size"),
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
        """bool: whether the store is open; False straight after construction."""
        return self._core is not None

    @property
    def is_closed(self) -> bool:
        """bool: whether the store is not open."""
        return self._core is None

    @property
    def path(self) -> Path:
        """pathlib.Path: the directory, as it was given."""
        from pathlib import Path
        return Path(self._filename)

    @property
    def mode(self) -> str:
        """str: the mode given to the constructor."""
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
        CorruptError
            Stored bytes are damaged, so that the newest state cannot be told.

        Examples
        --------
        >>> npk.is_opened
        False
        >>> npk.open()
        >>> npk.is_opened
        True
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
        if _belongs_to_rust(path):
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
        while True:
            try:
                core = _core.open_store(path, number, **self._options)
                break
            except NumPackError as error:
                named = about_path(error)
            if isinstance(named, StoreNotFoundError):
                if not create and mode in ("a", "w", "x"):
                    return None
                if number in (_CREATE, _EXCLUSIVE) and _make_parents(path):
                    continue
            raise named
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

        Examples
        --------
        >>> npk.save({"a": [1, 2]})
        >>> npk.close()
        >>> npk.load("a")
        Traceback (most recent call last):
        numpack._errors.ClosedError: store ... is not opened or has been closed; use open() or a with block
        >>> with npk:
        ...     npk.load("a").tolist()
        [1, 2]
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
        return _rebuild, (type(self), self._abspath, self._strict, self._warn, self._gc_on_close,
                          {"w": "r+", "x": "r+"}.get(self._mode, self._mode), self._sync, self._busy_ms, self._options)

    def __repr__(self):
        if self._core is None:
            return f"NumPack({self._filename}, status=closed)"
        try:
            return f"NumPack({self._filename}, arrays={len(self._core.list_arrays())})"
        except Exception as error:
            return f"NumPack({self._filename}, status={type(error).__name__})"

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
                frame, level = sys._getframe(), 1
                while frame is not None and frame.f_globals.get("__name__", "").startswith((__package__, "collections.")):
                    frame, level = frame.f_back, level + 1
                warnings.warn(f"store {self._filename!r} is used outside a with block", UserWarning, stacklevel=level)

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
        return EMPTY if core is None else core

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
        txn = None
        try:
            txn = self._begin(self._writable())
            result = operation(txn)
            txn.commit(self._sync)
        except BaseException:
            if txn is not None:
                txn.abort()  # harmless after a commit
            raise
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


def _rebuild(cls, path, strict, warn, gc_on_close, mode, sync, busy_ms, options):
    npk = cls(path, strict_context_mode=strict, warn_no_context=warn, force_gc_on_close=gc_on_close, mode=mode)
    npk._sync, npk._busy_ms, npk._options = sync, busy_ms, options
    return npk
