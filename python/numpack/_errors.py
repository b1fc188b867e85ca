"""The exceptions: what the caller can do about a failure decides the class.

Every exception is a :class:`NumPackError` and the builtin exception that people catch for its kind. ``kind`` is a
stable string; ``array``, ``row`` and ``lsn`` are filled where they are known, else ``None``. Those that are an
`OSError` have an ``errno``.
"""

from __future__ import annotations

import errno

__all__ = [
    "NumPackError", "NotFoundError", "StoreNotFoundError", "ExistsError", "StoreExistsError", "OutOfRangeError",
    "ShapeError", "DTypeError", "InvalidArgumentError", "InvalidTypeError", "WrongUseError", "ClosedError",
    "CorruptError", "StoreIOError", "NoSpaceError", "BusyError", "OtherHostError", "ReadOnlyError", "FormatError",
    "NoMemoryError", "PoisonedError", "StoppedError", "ConflictError",
]


class NumPackError(Exception):
    """Base of all errors of this package.

    Parameters
    ----------
    message : str
        What failed and why.
    array, row, lsn, errno : optional
        What is known of the attributes below.
    **details
        Further attributes.

    Attributes
    ----------
    kind : str
        Stable name of the kind of failure, such as ``"not_found"``.
    array : str or None
        The array that was concerned.
    row : int or None
        The logical row that was concerned.
    lsn : int or None
        The position in the log that was concerned.
    errno : int
        Of those that are an `OSError`: the system's number.

    Examples
    --------
    >>> try:
    ...     npk.load("a")
    ... except KeyError as error:
    ...     error.kind, error.array
    ('not_found', 'a')
    """

    kind = "error"
    _errno: "int | None" = None  # of OSErrors: what the number is when it was not the system that failed

    def __init__(self, message="", *, array=None, row=None, lsn=None, errno=None, **details):
        super().__init__(message)
        self.array = array
        self.row = row
        self.lsn = lsn
        if errno is None:
            errno = self._errno
        if errno is not None:
            self.errno = errno
        for name, value in details.items():
            setattr(self, name, value)

    # KeyError would show the repr of the message, OSError the errno in front of it.
    __str__ = Exception.__str__

    def __reduce__(self):
        details = dict(self.__dict__)
        if isinstance(self, OSError) and self.errno is not None:
            details["errno"] = self.errno
        return _rebuild, (type(self), self.args, details)


def _rebuild(cls, args, details):
    return cls(*args, **details)


class NotFoundError(NumPackError, KeyError):
    """There is no such array or attribute."""

    kind = "not_found"


class StoreNotFoundError(NumPackError, FileNotFoundError):
    """There is no store at the path."""

    kind = "not_found"
    _errno = errno.ENOENT


class ExistsError(NumPackError, ValueError):
    """The name is taken."""

    kind = "exists"


class StoreExistsError(NumPackError, FileExistsError):
    """There is a store, or a file, at the path."""

    kind = "exists"
    _errno = errno.EEXIST


class OutOfRangeError(NumPackError, IndexError, ValueError):
    """A row number, or the length of a mask, lies outside the array."""

    kind = "out_of_range"


class ShapeError(NumPackError, ValueError):
    """Shape or row count do not fit."""

    kind = "shape_mismatch"


class DTypeError(NumPackError, ValueError, TypeError):
    """The dtype cannot be stored, or does not fit the stored one."""

    kind = "dtype_mismatch"


class InvalidArgumentError(NumPackError, ValueError):
    """The value of an argument is not acceptable."""

    kind = "invalid_argument"


class InvalidTypeError(InvalidArgumentError, TypeError):
    """The type of an argument is not acceptable."""


class WrongUseError(NumPackError, RuntimeError):
    """The call does not fit the state: finished transaction, foreign thread, forked child."""

    kind = "wrong_use"


class ClosedError(WrongUseError):
    """The store is closed."""


class CorruptError(NumPackError, ValueError):
    """Stored bytes are damaged or missing.

    Attributes
    ----------
    findings : list of dict
        What ``verify`` found: file, offset, size, array, first_row, row_count, reason.
    """

    kind = "corrupt"
    findings = ()


class StoreIOError(NumPackError, OSError):
    """The system reported an error; ``errno`` says which."""

    kind = "io_error"
    _errno = errno.EIO


class NoSpaceError(StoreIOError):
    """The disk or quota is full; nothing was changed."""

    kind = "no_space"
    _errno = errno.ENOSPC


class BusyError(NumPackError, TimeoutError):
    """Another writer holds the store; the message names it."""

    kind = "busy"
    _errno = errno.ETIMEDOUT


class OtherHostError(NumPackError, OSError):
    """The store lies on a network file system."""

    kind = "other_host"
    _errno = errno.EREMOTE


class ReadOnlyError(NumPackError, PermissionError):
    """The store was opened, or is mounted, read-only."""

    kind = "read_only"
    _errno = errno.EACCES


class FormatError(NumPackError):
    """Not a store, or a store of a newer format."""

    kind = "format_version"


class NoMemoryError(NumPackError, MemoryError):
    """Memory could not be allocated."""

    kind = "no_memory"


class PoisonedError(NumPackError, OSError):
    """A sync failed; the next writer repairs the store."""

    kind = "poisoned"
    _errno = errno.EIO


class StoppedError(NumPackError, InterruptedError):
    """A wait was stopped."""

    kind = "interrupted"
    _errno = errno.EINTR


class ConflictError(NumPackError, RuntimeError):
    """The array changed meanwhile; try again."""

    kind = "conflict"


# The one table from the core's status to the class of the exception, by kind.
_CLASSES = {
    "not_found": NotFoundError,
    "exists": ExistsError,
    "out_of_range": OutOfRangeError,
    "shape_mismatch": ShapeError,
    "dtype_mismatch": DTypeError,
    "invalid_argument": InvalidArgumentError,
    "wrong_use": WrongUseError,
    "corrupt": CorruptError,
    "io_error": StoreIOError,
    "no_space": NoSpaceError,
    "busy": BusyError,
    "other_host": OtherHostError,
    "read_only": ReadOnlyError,
    "format_version": FormatError,
    "no_memory": NoMemoryError,
    "poisoned": PoisonedError,
    "interrupted": StoppedError,
    "conflict": ConflictError,
}

# While a store is opened, two kinds speak of the path and not of a name in the store.
_OPENING = {NotFoundError: StoreNotFoundError, ExistsError: StoreExistsError}


def from_core(kind, message, errno, array, row, lsn):
    """Build the exception for a failed call of the core; called by the extension."""
    cls = _CLASSES.get(kind, NumPackError)
    return cls(message, array=array or None, row=row if row >= 0 else None, lsn=lsn or None, errno=errno or None)


def about_path(error):
    """The same error, as it is named when a path is opened."""
    cls = _OPENING.get(type(error))
    if cls is None:
        return error
    return cls(*error.args, lsn=error.lsn, errno=getattr(error, "errno", None))
