"""Batches: transactions whose ``load`` hands out objects that are written back at the end of the block."""

import os

import numpy as np

from ._attrs import check_name
from ._dtypes import as_array, encode
from ._errors import InvalidArgumentError, ShapeError, WrongUseError
from ._lazy import load_copy, load_mapped
from ._transaction import Transaction

_PIECE, _PIECE_ROWS = 64 << 20, 4 << 20  # bytes and rows compared at a time


class BatchModeContext(Transaction):
    """A transaction whose ``load`` gives the same array each time and ``save`` marks it; made by :meth:`NumPack.batch_mode`.

    At the end of the block the content that each saved object has then is committed; edits that were not saved are
    dropped, and an exception drops everything.

    Examples
    --------
    >>> npk.save({"a": [1, 2]})
    >>> with npk.batch_mode() as batch:
    ...     a = batch.load("a")
    ...     batch.save({"a": a})
    ...     a[0] = 9
    ...     batch.load("a") is a
    True
    >>> npk.load("a").tolist()
    [9, 2]
    """

    def __init__(self, npk, memory_limit=None):
        super().__init__(npk)
        self._cache = {}
        self._dirty_arrays = {}

    def _load(self, name):
        array = self._cache.get(name)
        if array is None:
            array = self._cache[name] = load_copy(self._root._core.array_open(name))
        return array

    def _save(self, items):
        arrays = [(name, as_array(value, name)) for name, value in items]
        for name, array in arrays:
            encode(array.dtype, name)
        for name, array in arrays:
            self._cache[name] = self._dirty_arrays[name] = array
        return True

    def _write(self, name):
        from ._store import _prepare
        self._root._core.save(*_prepare(name, self._dirty_arrays[name]))

    def _flush(self):
        for name in self._dirty_arrays:
            self._write(name)

    def _settle(self, names, goes):
        if names is None:
            self._forget()
            return
        for name in names:
            if name in self._dirty_arrays:
                self._write(name)
                del self._dirty_arrays[name]
            self._cache.pop(name, None)

    def _forget(self):
        self._cache.clear()
        self._dirty_arrays.clear()

    def _before_commit(self, core):
        self._flush()

    def _release(self):
        self._forget()


class WritableBatchMode(Transaction):
    """A transaction whose ``load`` gives writable arrays; made by :meth:`NumPack.writable_batch_mode`.

    At the end of the block exactly the changed rows are committed. Nothing is visible before, and an exception drops
    everything. The arrays stay usable after the block.

    Examples
    --------
    >>> npk.save({"a": [1, 2]})
    >>> with npk.writable_batch_mode() as batch:
    ...     a = batch.load("a")
    ...     a[0] = 9
    ...     with npk.snapshot() as snapshot:
    ...         snapshot["a"][:].tolist()
    [1, 2]
    >>> npk.load("a").tolist()
    [9, 2]
    """

    def __init__(self, npk):
        super().__init__(npk)
        self._loaded = {}  # name -> (core array, writable ndarray)

    def load(self, array_name):
        """The array, writable; the same object each time.

        Parameters
        ----------
        array_name : str
            The array.

        Returns
        -------
        ndarray
            Over a private mapping: ``OWNDATA`` is False.

        Raises
        ------
        NotFoundError
            There is no such array.
        InvalidArgumentError
            The array has no rows, or rows of no bytes.
        WrongUseError
            The block is not open, or belongs to another thread or context.

        Examples
        --------
        >>> npk.save({"a": [1, 2]})
        >>> with npk.writable_batch_mode() as batch:
        ...     batch.load("a")[:] += 1
        >>> npk.load("a").tolist()
        [2, 3]
        """
        self._check()
        if array_name not in self._loaded:
            array = self._root._usable().array_open(check_name(array_name))
            if array.row_count * array.row_size == 0:
                raise InvalidArgumentError("cannot mmap an empty file")
            self._loaded[array_name] = array, load_mapped(array, True)
        return self._loaded[array_name][1]

    def save(self, arrays):
        """Copy arrays into the loaded ones; a loaded array itself needs no saving.

        Parameters
        ----------
        arrays : Mapping of str to array_like
            Of the shapes and dtypes that the arrays have.

        Raises
        ------
        ShapeError
            Shape or dtype differ from those of the loaded array.
        NotFoundError
            There is no such array.

        Examples
        --------
        >>> npk.save({"a": [1, 2]})
        >>> with npk.writable_batch_mode() as batch:
        ...     batch.save({"a": [3, 4]})
        >>> npk.load("a").tolist()
        [3, 4]
        """
        from ._store import _check_arrays
        self._check()
        for name, value in _check_arrays(arrays):
            target = self.load(name)
            if value is target:
                continue
            source = as_array(value, name)
            if source.shape != target.shape or source.dtype != target.dtype:
                raise ShapeError(f"array {name!r}: {source.dtype} of shape {source.shape} cannot be saved in a "
                                 f"writable batch into {target.dtype} of shape {target.shape}", array=name)
            target[...] = source

    def _settle(self, names, goes):
        if goes:
            for name in self._loaded if names is None else names:
                if name in self._loaded:
                    raise WrongUseError(f"array {name!r} is loaded in a writable batch and cannot be dropped or saved "
                                        "anew in it", array=name)

    def _save(self, items):
        self._settle([name for name, _ in items], True)
        return False

    def _release(self):
        self._loaded.clear()

    def _before_commit(self, core):
        for name, (array, edited) in self._loaded.items():
            for rows in _changed_rows(array, edited):
                if edited.ndim:
                    core.replace(name, array.row_size, rows, edited[rows])
                else:
                    core.save(name, array.descr, array.row_size, (), True, 1, edited)


def _changed_rows(array, edited):
    """Numbers of the rows of `edited` that differ from `array`, in pieces."""
    size, count = array.row_size, array.row_count
    step = max(1, min(_PIECE // size, _PIECE_ROWS))
    runs = _suspect_runs(edited, size, count)
    lengths = runs[:, 1] - runs[:, 0]
    if (lengths > step).any():
        runs = np.array([(start, min(start + step, last)) for first, last in runs.tolist()
                         for start in range(first, last, step)], np.int64)
        lengths = runs[:, 1] - runs[:, 0]
    ends = np.cumsum(lengths)  # many short runs go together
    first, done = 0, 0
    while first < len(runs):
        last = int(np.searchsorted(ends, done + step, side="right"))
        rows = np.frombuffer(array.compare(runs[first:last], edited), np.int64)
        if rows.size:
            yield rows
        first, done = last, ends[last - 1]


def _suspect_runs(edited, size, count):
    """Runs (first, end) of the rows on pages that are no longer the file's; all rows when the system does not say."""
    address, page = edited.__array_interface__["data"][0], os.sysconf("SC_PAGE_SIZE")
    first_page, last_page = address // page, -(-(address + size * count) // page)
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            entries = np.frombuffer(os.pread(pagemap.fileno(), 8 * (last_page - first_page), 8 * first_page), np.uint64)
        if entries.shape[0] != last_page - first_page:
            raise OSError("short read")
    except OSError:
        return np.array([[0, count]], np.int64)
    # bit 62: swapped out; bit 63: present, then bit 61: a page of the file
    top = entries >> np.uint64(61)
    private = ((top & np.uint64(2)) != 0) | ((top & np.uint64(5)) == 4)
    edges = np.flatnonzero(np.diff(private, prepend=False, append=False)).reshape(-1, 2).astype(np.int64)
    edges = (edges + first_page) * page - address  # bytes
    runs = np.empty_like(edges)
    runs[:, 0] = np.maximum(edges[:, 0] // size, 0)
    runs[:, 1] = np.minimum(-(-edges[:, 1] // size), count)
    if len(runs) > 1:  # rows on two pages are in two runs
        runs[1:, 0] = np.maximum(runs[1:, 0], np.maximum.accumulate(runs[:-1, 1]))
    return runs[runs[:, 0] < runs[:, 1]]
