"""A transactional NumPy array store: crash-safe atomic batches over named arrays, read at memory speed.

In the examples of the docstrings ``np`` is NumPy and ``npk`` an empty store: ``npk = numpack.NumPack(directory)``.
"""

from . import _core
from ._errors import *  # noqa: F403
from ._errors import __all__ as _error_names
from ._lazy import LazyArray
from ._store import ArrayHandle, LoadedArrays, NumPack, Snapshot
from ._transaction import Transaction

__version__ = _core.version


def force_cleanup_windows_handles():
    """Does nothing; there is nothing to clean up.

    Returns
    -------
    bool
        True.

    Examples
    --------
    >>> numpack.force_cleanup_windows_handles()
    True
    """
    return True


def __getattr__(name):
    if name in ("BatchModeContext", "WritableBatchMode"):
        from . import _batch
        return getattr(_batch, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["NumPack", "LazyArray", "Transaction", "Snapshot", "ArrayHandle", "LoadedArrays", "BatchModeContext",
           "WritableBatchMode", "force_cleanup_windows_handles", "__version__"] + _error_names
