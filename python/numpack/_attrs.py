"""Attributes: small JSON values of a store or of an array, changed in transactions like rows."""

from collections.abc import Mapping, MutableMapping

import numpy as np

from ._errors import InvalidArgumentError, InvalidTypeError, NotFoundError


def check_name(name, what="array name"):
    """`name` itself, when it can be the name of an array or the key of an attribute."""
    if not isinstance(name, str):
        raise InvalidTypeError(f"{what} must be a str, not {type(name).__name__}")
    if name.isascii():
        size = len(name)
    else:
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            raise InvalidArgumentError(f"{what} {name!r} has lone surrogates and cannot be stored") from None
    if not 0 < size <= 255:
        raise InvalidArgumentError(f"{what} must have 1 to 255 bytes of UTF-8, this one has {size}")
    if "\0" in name:
        raise InvalidArgumentError(f"{what} {name!r} contains a NUL character")
    return name


def _plain(value, key):
    """The value with NumPy scalars as Python ones, checked: what JSON gives back is what was put in."""
    if isinstance(value, np.generic):
        if value.dtype.kind not in "biufU":
            raise InvalidTypeError(f"attribute {key!r}: {type(value).__name__} is not a JSON value")
        value = value.item()
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        if not -2 ** 63 <= value < 2 ** 64:
            raise InvalidArgumentError(f"attribute {key!r}: {value} does not fit 64 bits")
        return int(value)
    if isinstance(value, (float, np.floating)):
        value = float(value)
        if value != value or value in (float("inf"), float("-inf")):
            raise InvalidArgumentError(f"attribute {key!r}: {value} is not a JSON value")
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item, key) for item in value]
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise InvalidTypeError(f"attribute {key!r}: keys of an object must be str, not {type(name).__name__}")
        return {name: _plain(item, key) for name, item in value.items()}
    raise InvalidTypeError(f"attribute {key!r}: {type(value).__name__} is not a JSON value")


def encode(value, key):
    """JSON text of an attribute's value."""
    import json
    try:
        text = json.dumps(_plain(value, key), allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except RecursionError:
        raise InvalidArgumentError(f"attribute {key!r}: the value is nested too deeply") from None
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"attribute {key!r}: lone surrogates cannot be stored") from None
    if len(text) > 512 * 1024:
        raise InvalidArgumentError(f"attribute {key!r}: {len(text)} bytes of JSON exceed the limit of 524288")
    return text


class ReadOnlyAttributes(Mapping):
    """Attributes of one moment; given by :meth:`NumPack.snapshot` and lazy arrays.

    Examples
    --------
    >>> npk.attrs["offset"] = 17
    >>> with npk.snapshot() as snapshot:
    ...     snapshot.attrs["offset"]
    17
    """

    def __init__(self, items):
        self._items = items

    def _all(self):
        return self._items

    def __getitem__(self, key):
        import json
        items = self._all()
        try:
            return json.loads(items[key])
        except KeyError:
            raise NotFoundError(f"attribute {key!r}: there is none") from None

    def __iter__(self):
        return iter(self._all())

    def __len__(self):
        return len(self._all())

    def __contains__(self, key):
        return key in self._all()

    def __repr__(self):
        return f"{type(self).__name__}({dict(self)!r})"


class Attributes(ReadOnlyAttributes, MutableMapping):
    """The attributes of a store or of one of its arrays, as they are at each use; given by :meth:`NumPack.array_attrs`.

    Values are what JSON knows; NumPy scalars are accepted; containers come back as copies. Every change is one
    transaction, or part of the one that is open. A value that JSON cannot hold, NaN and integers beyond 64 bits too,
    raises `InvalidArgumentError`.

    Examples
    --------
    >>> npk.attrs["offset"] = 17
    >>> npk.attrs["offset"]
    17
    >>> npk.attrs["tags"] = ["a", "b"]
    >>> del npk.attrs["offset"]
    >>> dict(npk.attrs)
    {'tags': ['a', 'b']}
    """

    def __init__(self, npk, array=None):
        self._npk = npk
        self._array = array

    def _all(self):
        return self._npk._reading().list_attrs(self._array)

    def __setitem__(self, key, value):
        check_name(key, "attribute key")
        text = encode(value, key)
        self._npk._write(lambda txn: txn.set_attr(self._array, key, text))

    def __delitem__(self, key):
        check_name(key, "attribute key")
        self._npk._write(lambda txn: txn.delete_attr(self._array, key))

    def update(self, *args, **values):
        """Set several attributes in one transaction.

        Parameters
        ----------
        *args : Mapping or iterable of pairs
            At most one, as `dict` takes it.
        **values : object
            More of them, by key.

        Raises
        ------
        InvalidArgumentError
            JSON cannot hold a value, or a key is not one: 1 to 255 bytes of UTF-8.
        NotFoundError
            The array is gone.

        Examples
        --------
        >>> npk.attrs.update({"offset": 17}, unit="m")
        >>> dict(npk.attrs)
        {'offset': 17, 'unit': 'm'}
        """
        items = [(check_name(key, "attribute key"), encode(value, key)) for key, value in dict(*args, **values).items()]

        def apply(txn):
            for key, text in items:
                txn.set_attr(self._array, key, text)

        self._npk._write(apply, len(items) > 1)

    def clear(self):
        """Remove all attributes in one transaction.

        Raises
        ------
        NotFoundError
            The array is gone.

        Examples
        --------
        >>> npk.attrs["offset"] = 17
        >>> npk.attrs.clear()
        >>> len(npk.attrs)
        0
        """
        def apply(txn):
            for key in txn.list_attrs(self._array):
                txn.delete_attr(self._array, key)

        self._npk._write(apply, True)
