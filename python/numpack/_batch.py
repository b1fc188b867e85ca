"""Batches: transactions whose ``load`` hands out objects that are written back at the end of the block."""

import os

import numpy as np

from ._attrs import check_name
from ._dtypes import as_array, encode
from ._errors import InvalidArgumentError, ShapeError, WrongUseError
from ._lazy import load_copy, load_mapped
from ._transaction import Transaction

_PIECE = 8 << 20  # bytes compared at a time


class BatchModeContext(Transaction):
    """A transaction in which ``load`` gives the same array each time and ``save`` marks it; see `NumPack.batch_mode`.

    At the end of the block the content that each saved object has then is committed; edits that were not saved are
    dropped, and an exception drops everything.
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


class WritableBatchMode(Transaction):
    """A transaction whose ``load`` gives writable arrays; see `NumPack.writable_batch_mode`.

    At the end of the block exactly the changed rows are committed. Nothing is visible before, and an exception drops
    everything. The arrays stay usable after the block.
    """

    def __init__(self, npk):
        super().__init__(npk)
        self._loaded = {}  # name -> (core array, writable ndarray)

    def load(self, array_name):
        """The array, writable; the same object each time.

        Raises
        ------
        NotFoundError
            There is no such array.
        InvalidArgumentError
            The array has no rows.
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

        Raises
        ------
        ShapeError
            Shape or dtype differ from those of the loaded array.
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
    unit = np.dtype(f"u{next(width for width in (8, 4, 2, 1) if size % width == 0)}")  # compared at a time
    now = edited.reshape(-1).view(unit)
    per_row = size // unit.itemsize
    step = max(1, _PIECE // size)
    runs = _suspect_runs(edited, size, count)
    suspects = sum(last - first for first, last in runs)
    if len(runs) > 1 and suspects * size <= _PIECE:  # a few rows here and there: one gather, one comparison
        rows = np.concatenate([np.arange(first, last, dtype=np.int64) for first, last in runs])
        before = np.empty((suspects, per_row), unit)
        array.gather(rows, before)
        changed = np.flatnonzero((before != now.reshape(count, per_row)[rows]).ravel())
        if changed.size:
            yield rows[np.unique(changed // per_row)]
        return
    for first, last in runs:
        for start in range(first, last, step):
            stop = min(start + step, last)
            before = np.empty((stop - start) * per_row, unit)
            array.read(start, stop - start, before)
            changed = np.flatnonzero(before != now[start * per_row:stop * per_row])
            if changed.size:
                yield np.unique(changed // per_row).astype(np.int64, copy=False) + start


def _suspect_runs(edited, size, count):
    """Runs of rows on pages that are no longer the file's; all rows when the system does not say."""
    address, page = edited.__array_interface__["data"][0], os.sysconf("SC_PAGE_SIZE")
    first_page, last_page = address // page, -(-(address + size * count) // page)
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            entries = np.frombuffer(os.pread(pagemap.fileno(), 8 * (last_page - first_page), 8 * first_page), np.uint64)
        if entries.shape[0] != last_page - first_page:
            raise OSError("short read")
    except OSError:
        return [(0, count)]
    # bit 62: swapped out; bit 63: present, then bit 61: a page of the file
    top = entries >> np.uint64(61)
    private = ((top & np.uint64(2)) != 0) | ((top & np.uint64(5)) == 4)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], private, [False])).astype(np.int8)))
    runs = []
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist()):
        first = max(0, ((first_page + begin) * page - address) // size)
        last = min(count, -(-((first_page + end) * page - address) // size))
        if runs and first <= runs[-1][1]:
            runs[-1] = runs[-1][0], max(last, runs[-1][1])
        else:
            runs.append((first, last))
    return runs
