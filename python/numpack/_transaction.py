"""Transactions: who owns them, how they nest, how they end.

A transaction belongs to the thread and to the `contextvars` context that opened it. The thread is compared by number;
the context by the one thing Python tells about it: a token of a ContextVar can be reset only in the context that made
it.
"""

from __future__ import annotations

import contextvars
import functools
from _thread import get_ident

from ._core import Block
from ._errors import InvalidArgumentError, WrongUseError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._store import NumPack

SYNC_LEVELS = {"commit": 0, "interval": 1, "never": 2}

_marker = contextvars.ContextVar("numpack_transaction")
_open_by_thread = {}  # thread number -> transactions it has open, of any store


def check_sync(sync):
    """The number of a durability level given by name."""
    try:
        return SYNC_LEVELS[sync]
    except (KeyError, TypeError):
        raise InvalidArgumentError(f"sync must be \"commit\", \"interval\" or \"never\", not {sync!r}") from None


def holds_store(identity):
    """Whether this thread has a transaction of the store open: waiting for it would be waiting for itself."""
    return bool(_open_by_thread) and any(
        txn._identity == identity for txn in _open_by_thread.get(get_ident(), ()))


def forget_inherited():
    """In the child of a fork: no transaction of the parent can be used or ended here."""
    for transactions in list(_open_by_thread.values()):
        for txn in transactions:
            txn._inherited.append(txn._core)  # never released: the child must not touch the parent's transaction
            txn._core = None
            txn._end("was inherited through fork and belongs to the parent process")
    _open_by_thread.clear()


class Transaction(Block):
    """A block of changes that is there whole or not at all; made by :meth:`NumPack.transaction`.

    Used with ``with``: commits at the end of the block, rolls back on any exception. A block inside a block of the same
    store is a savepoint: what it raises undoes only itself. The object offers the methods of the store; calls on the store
    itself from the same thread and context belong to the transaction too.

    Attributes
    ----------
    lsn : tuple of int or None
        ``(epoch, lsn)`` of the end of the committed transaction; None before, after a rollback and for inner blocks.

    Examples
    --------
    >>> with npk.transaction() as txn:
    ...     txn.save({"a": [1, 2]})
    ...     try:
    ...         with npk.transaction():
    ...             npk.append({"a": [3]})
    ...             raise KeyError
    ...     except KeyError:
    ...         pass
    ...     txn.append({"a": [4]})
    >>> npk.load("a").tolist()
    [1, 2, 4]
    """

    _inherited = []

    def __init__(self, npk: NumPack, sync: str | None = None) -> None:
        self._npk = npk
        self._sync = npk._sync if sync is None else check_sync(sync)
        self._core = None
        self._root = None          # the outermost block, itself included
        self._blocks = []          # of the root: the open inner blocks, outermost first
        self._savepoint = None
        self._ended = "has not been entered"  # why it cannot be used, or None
        self._thread = None
        self._token = None
        self._identity = None
        self._after = []           # of the root: what runs after the commit
        self.lsn = None

    # ---- entering and leaving ------------------------------------------------------------------------------

    # `with` itself is in Block: an exception out of the next two methods, even one that a signal handler raises before their
    # first line, ends the block by _abandon.

    def _enter(self):
        npk = self._npk
        outer = npk._current()
        if outer is not None:
            core = outer._usable()
            outer._innermost()._flush()
            self._savepoint = core.savepoint()
            self._root = outer
            outer._blocks.append(self)
            self._ended = None
            return
        self._core = npk._begin(npk._writable())
        self._identity = npk._identity
        self._thread = get_ident()
        self._token = _marker.set(None)
        self._root = self
        self._ended = None
        _open_by_thread.setdefault(self._thread, []).append(self)
        npk._open.append(self)

    def _leave(self, kind, error, traceback):
        if self._root is not self:
            return self._leave_inner(kind)
        core, reason = self._core, self._ended
        if core is None:  # rolled back, or inherited
            if kind is None and "fork" in reason:
                raise WrongUseError(f"the transaction {reason}")
        elif not self._owned():
            if kind is None:
                raise WrongUseError("the transaction was left in another thread or context than it was entered in, "
                                    "and has been rolled back")
        elif kind is None:
            self._before_commit(core)
            core.commit(self._sync)
        self._abandon()
        if self.lsn is not None:
            for action in self._after:
                action()
        return False

    def _leave_inner(self, kind):
        root = self._root
        inner, reason = self._ended is None and self in root._blocks, self._ended
        if inner:
            owned = root._owned()
            if kind is None and owned:
                self._before_commit(root._core)
                savepoint, self._savepoint = self._savepoint, None  # from here on the outer block's
                root._core.release_savepoint(savepoint)
        self._abandon()
        if kind is None and inner and not owned:
            root._roll_back_all("was left in another thread or context, and has been rolled back")
            raise WrongUseError(f"the transaction {root._ended}")
        if kind is None and reason is not None and "fork" in reason:
            raise WrongUseError(f"the transaction {reason}")
        return False

    def _abandon(self):
        """End the block: what is not committed by now, or taken over by the outer block, is undone. Harmless when ended."""
        root = self._root
        if root is not None and root is not self:
            if self in root._blocks:
                if self._ended is None and self._savepoint is not None and root._core is not None:
                    self._undo()
                del root._blocks[root._blocks.index(self):]
                root._innermost()._forget()
            self._ended = "is finished"
            self._release()
            return
        core = self._core
        if core is not None:
            core.abort()  # harmless after a commit
            self.lsn = core.position
            self._core = None
        self._end("is finished")
        self._release()
        self._detach()

    def _refuse(self, reason):
        raise WrongUseError(f"the transaction {reason}")

    # ---- what batches do differently -----------------------------------------------------------------------

    def _before_commit(self, core):
        """What a batch writes at the end of its block."""

    def _release(self):
        """Let go of the arrays of a block that has ended: it is part of a reference cycle, which would keep them."""

    def _flush(self):
        """Write what was saved in a batch, so that reads and inner blocks see it."""

    def _forget(self):
        """An inner block has ended: cached objects are out of date."""

    def _settle(self, names, goes):
        """Rows of these arrays (None: all) are about to change; goes: the arrays or their rows go."""

    def _save(self, items):
        """Take a save over; False: not taken."""
        return False

    def _load(self, name):
        """A cached object, or None."""
        return None

    def _detach(self):
        mine = _open_by_thread.get(self._thread)
        if mine is not None and self in mine:
            mine.remove(self)
            if not mine:
                _open_by_thread.pop(self._thread, None)
        if self in self._npk._open:
            self._npk._open.remove(self)

    def _end(self, reason):
        for block in self._blocks:
            block._ended = reason
        self._ended = reason

    def _undo(self):
        """Undo this inner block and what is inside it."""
        core, savepoint = self._root._core, self._savepoint
        core.rollback_to(savepoint)
        self._savepoint = None
        core.release_savepoint(savepoint)

    def _roll_back_all(self, reason):
        core, self._core = self._core, None
        self._end(reason)
        if core is not None:
            core.abort()

    # ---- who may use it ------------------------------------------------------------------------------------

    def _owned(self):
        """Whether this thread and context are those that entered the block."""
        if get_ident() != self._thread:
            return False
        try:
            _marker.reset(self._token)
        except ValueError:
            return False
        except RuntimeError:  # used already: an interrupt came between reset and set
            pass
        self._token = _marker.set(None)
        return True

    def _usable(self):
        """The core's transaction of a root that is owned; raises when the innermost block has been rolled back."""
        block = self._blocks[-1] if self._blocks else self
        if block._ended is not None:
            raise WrongUseError(f"the transaction {block._ended}")
        return self._core

    def _innermost(self):
        return self._blocks[-1] if self._blocks else self

    # ---- for users -----------------------------------------------------------------------------------------

    def rollback(self) -> None:
        """Undo the block at once; further calls in it raise.

        Raises
        ------
        WrongUseError
            When the block is not open, or belongs to another thread or context.

        Examples
        --------
        >>> npk.save({"a": [1, 2]})
        >>> with npk.transaction() as txn:
        ...     npk.append({"a": [3]})
        ...     txn.rollback()
        >>> npk.load("a").tolist(), txn.lsn
        ([1, 2], None)
        """
        self._check()
        if self._root is self:
            self._roll_back_all("has been rolled back")
            return
        root = self._root
        if self._savepoint is not None:
            self._undo()
        for block in root._blocks[root._blocks.index(self):]:
            block._ended = "has been rolled back"

    def _check(self):
        if self._ended is not None:
            raise WrongUseError(f"the transaction {self._ended}")
        if not self._root._owned():
            raise WrongUseError("the transaction belongs to another thread or context")

    def __contains__(self, name):
        self._check()
        return name in self._npk

    def __getitem__(self, name):
        self._check()
        return self._npk[name]

    def __setitem__(self, name, value):
        self._check()
        self._npk[name] = value

    def __delitem__(self, name):
        self._check()
        del self._npk[name]

    def __iter__(self):
        self._check()
        return iter(self._npk)

    def __len__(self):
        self._check()
        return len(self._npk)

    @property
    def attrs(self):
        """Attributes: those of the store, a mutable mapping of str to JSON values; changes are part of the transaction."""
        self._check()
        return self._npk.attrs

    def __repr__(self):
        state = self._ended or "is open"
        return f"<{type(self).__name__} of {self._npk._filename!r} {state}>"


def delegate(method):
    """A method of the store as one of its transactions: the same signature, the same documentation."""
    name = method.__name__

    @functools.wraps(method)
    def delegated(self, *args, **kwargs):
        self._check()
        return getattr(self._npk, name)(*args, **kwargs)

    delegated.__qualname__ = f"Transaction.{name}"
    described = method.__doc__.partition("\n        Examples\n")[0].rstrip()
    delegated.__doc__ = f"As :meth:`NumPack.{name}`, as part of this transaction.\n\n        {described}\n        "
    return delegated
