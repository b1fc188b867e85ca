"""What a store gives out that looks like a mapping or an array: all arrays of one moment, and one array by name."""

from __future__ import annotations

from collections.abc import Mapping

from ._attrs import ReadOnlyAttributes, check_name
from ._errors import ClosedError, InvalidArgumentError, NotFoundError
from ._lazy import LazyArray, load_copy, load_mapped
from ._opening import EMPTY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ._store import Indices


def load_array(array, mmap_mode):
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
        return LazyArray(array, self._npk) if self._lazy else load_array(array, self._mmap_mode)

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
        """Add rows behind the array, which must be there."""
        self._npk._append({self._name: rows}, casting, False)

    def drop(self, indexes: Indices | None = None) -> None:
        """Remove rows; without indices, the array."""
        self._npk.drop(self._name, indexes)

    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise InvalidArgumentError(f"array {self._name!r}: cannot give the rows without a copy; load it lazily",
                                       array=self._name)
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
        return EMPTY if self._core is None else self._core

    @property
    def _abspath(self):
        return self._npk._abspath

    def _attrs_of(self, name):
        return ReadOnlyAttributes(self._source().list_attrs(name))

    @property
    def lsn(self) -> tuple[int, int]:
        """``(epoch, lsn)`` of the state."""
        source = self._source()
        return source.position() if source is EMPTY else source.position

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
        source = self._source()
        try:
            source.array_open(check_name(name))
        except (NotFoundError, InvalidArgumentError):
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
