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
    """All arrays of one moment, each loaded when asked for; given by :meth:`NumPack.load` without a name.

    Examples
    --------
    >>> npk.save({"a": [1, 2], "b": [3]})
    >>> loaded = npk.load()
    >>> npk.drop("b")
    >>> list(loaded), loaded["b"].tolist()
    (['a', 'b'], [3])
    """

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
        return LazyArray(array, self._npk._abspath) if self._lazy else load_array(array, self._mmap_mode)

    def __contains__(self, name):
        return name in self._arrays

    def __iter__(self):
        return iter(self._arrays)

    def __len__(self):
        return len(self._arrays)

    def __repr__(self):
        return f"LoadedArrays({list(self._arrays)})"


class ArrayHandle:
    """One array by name, live; given by :meth:`NumPack.array`.

    ``handle[key]`` indexes as NumPy does and gives a private copy; ``handle[rows] = value`` is :meth:`NumPack.replace`.

    Examples
    --------
    >>> npk.save({"a": [1, 2, 3]})
    >>> a = npk.array("a")
    >>> a[0] = 9
    >>> a[:2].tolist(), a.shape, len(a)
    ([9, 2], (3,), 3)
    """

    __slots__ = ("_npk", "_name")

    def __init__(self, npk, name):
        self._npk = npk
        self._name = name

    @property
    def name(self) -> str:
        """str: the name of the array."""
        return self._name

    @property
    def shape(self):
        """tuple of int: the shape it has now."""
        return self._npk.get_shape(self._name)

    @property
    def dtype(self):
        """numpy.dtype: the stored dtype."""
        return self._npk.get_dtype(self._name)

    @property
    def attrs(self):
        """Attributes: those of the array, mutable."""
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
        """Add rows behind the array.

        Parameters
        ----------
        rows : array_like
            Of shape ``(k, ...)``, always with the row axis.
        casting : {"safe", "same_kind"}
            Whether typed input may be narrowed.

        Raises
        ------
        NotFoundError
            The array is gone; it is not created.
        ShapeError
            The rows have another shape than those of the array.
        DTypeError
            The values do not fit the stored dtype.

        Examples
        --------
        >>> npk.save({"a": [1, 2]})
        >>> npk.array("a").append([3])
        >>> npk.load("a").tolist()
        [1, 2, 3]
        """
        self._npk._append({self._name: rows}, casting, False)

    def drop(self, indexes: Indices | None = None) -> None:
        """Remove rows; without indices, the array.

        Parameters
        ----------
        indexes : int, slice, list, tuple, range or 1-D ndarray of integers or booleans, optional
            The rows, as for :meth:`NumPack.drop`.

        Raises
        ------
        InvalidTypeError
            `indexes` is none of the above.

        Examples
        --------
        >>> npk.save({"a": [1, 2, 3]})
        >>> npk.array("a").drop(0)
        >>> npk.load("a").tolist()
        [2, 3]
        """
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
    """Everything as of one committed transaction: name to :class:`LazyArray`; given by :meth:`NumPack.snapshot`.

    Arrays taken from it outlive it. Use raises `ClosedError` after ``close``.

    Examples
    --------
    >>> npk.save({"a": [1, 2]})
    >>> snapshot = npk.snapshot()
    >>> npk.drop("a")
    >>> a = snapshot["a"]
    >>> snapshot.close()
    >>> a[:].tolist(), "a" in npk
    ([1, 2], False)
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

    def _attrs_of(self, name):
        return ReadOnlyAttributes(self._source().list_attrs(name))

    @property
    def lsn(self) -> tuple[int, int]:
        """tuple of int: ``(epoch, lsn)`` of the state."""
        source = self._source()
        return source.position() if source is EMPTY else source.position

    @property
    def attrs(self):
        """ReadOnlyAttributes: those of the store."""
        return self._attrs_of(None)

    def array_attrs(self, array_name):
        """The attributes of an array.

        Parameters
        ----------
        array_name : str
            The array.

        Returns
        -------
        ReadOnlyAttributes
            A mapping of str to JSON values.

        Raises
        ------
        NotFoundError
            There is no such array.
        ClosedError
            The snapshot has been closed.

        Examples
        --------
        >>> npk.save({"a": [1, 2]})
        >>> npk.array_attrs("a")["unit"] = "m"
        >>> npk.snapshot().array_attrs("a")["unit"]
        'm'
        """
        return self._attrs_of(check_name(array_name))

    def __getitem__(self, name):
        return LazyArray(self._source().array_open(check_name(name)), self._npk._abspath)

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
        """Give up the pin. Harmless when closed.

        Examples
        --------
        >>> snapshot = npk.snapshot()
        >>> snapshot.close()
        >>> "a" in snapshot
        Traceback (most recent call last):
        numpack._errors.ClosedError: the snapshot has been closed
        """
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
