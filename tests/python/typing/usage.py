"""What users write, checked by `mypy --strict`: nothing here may be untyped, and wrong use must be an error. It is not run."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import numpack
from numpack import BatchModeContext, LazyArray, NumPack, Snapshot, Transaction


def store(path: str) -> None:
    with NumPack(path, mode="a", sync="interval", busy_timeout=1.5) as npk:
        npk.save({"a": np.zeros((3, 2)), "b": [1, 2]})
        whole: NDArray[Any] = npk.load("a")
        lazy: LazyArray = npk.load("a", lazy=True)
        mapped: NDArray[Any] = npk.load("a", mmap_mode="r")
        shape: tuple[int, ...] = npk.get_shape("a")
        shapes: dict[str, tuple[int, ...]] = npk.get_shape()
        rows: NDArray[Any] = npk.getitem("a", [0, 1])
        for batch in npk.stream_load("a", 2):
            batch += 1
        handle = npk.array("a")
        handle[0] = 1.0
        handle.append([[1, 2]])
        npk.attrs["offset"] = 3
        npk.array_attrs("a")["unit"] = "m"
        print(whole, lazy, mapped, shape, shapes, rows, npk.lsn > (0, 0), list(npk), len(npk), "a" in npk, npk.stats()["commits"])
        print(npk.verify(), npk.verify(progress=lambda done, total: print(done / total)))
        npk.drop("b", slice(1))
        npk.replace({"a": 0}, np.arange(2))
        del npk["a"]


def transactions(npk: NumPack) -> None:
    with npk.transaction(sync="commit") as txn:
        inner: Transaction = txn
        inner.append({"a": [[1, 2]]})
        txn.attrs["x"] = 1
        values: NDArray[Any] = txn.load("a")
        lazy: LazyArray = txn.load("a", lazy=True)
        print(values, lazy, txn["a"], len(txn), txn.snapshot().lsn)
        txn.rollback()
    if txn.lsn is not None:
        epoch: int = txn.lsn[0]
        print(epoch)
    batch: BatchModeContext = npk.batch_mode(memory_limit=5)
    with batch as context:
        context.save({"a": npk.load("a")})
    with npk.writable_batch_mode() as writable:
        writable.load("a")[0] = 1
    snapshot: Snapshot = npk.snapshot()
    with snapshot as state:
        one: LazyArray = state["a"]
        print(one, state.attrs["x"], dict(state.array_attrs("a")))


def lazy_arrays(a: LazyArray, b: NDArray[Any]) -> None:
    results: list[NDArray[Any]] = [
        a + 1, 1 + a, a - b, b - a, a * a, a / 2, 2 / a, a // 2, a % 2, 2 ** a, a ** 2, a @ b, a & 1, 1 | a, a ^ a, a << 1, a >> 1,
        -a, +a, abs(a), ~a, a.copy(), a.T, a.vectorized_gather([1]), a.boolean_index_smart([True]), a.parallel_boolean_index(b),
    ]
    truths: list[NDArray[np.bool_]] = [a < 1, a <= b, a > a, a >= 0, a == 1, a != b]
    quotient, remainder = divmod(a, 3)
    view: LazyArray = a.reshape(2, -1).reshape((4,))
    sizes: tuple[int, ...] = a.shape + (a.ndim, a.size, a.itemsize, a.nbytes, len(a))
    name: str = a.choose_optimal_algorithm([True])
    print(results, truths, quotient, remainder, view, sizes, name, 3 in a, a[1:, None], a.oindex[[0], [1]], np.asarray(a), a.attrs["x"])


def errors(npk: NumPack) -> None:
    try:
        npk.load("x")
    except numpack.NotFoundError as error:
        print(error.kind, error.array)
    except (numpack.BusyError, TimeoutError):
        pass


def wrong(npk: NumPack, lazy: LazyArray) -> None:
    npk.save([1, 2])  # type: ignore[arg-type]
    npk.transaction("commit")  # type: ignore[call-arg]
    npk.no_such_method()  # type: ignore[attr-defined]
    lazy.astype("f4")  # type: ignore[attr-defined]
    lazy.reshape("x", 1.5)  # type: ignore[arg-type]
    npk.load("a", lazy=True, mmap_mode="r").no_such_method()
    hash(lazy)
    numpack.NoSuchName  # type: ignore[attr-defined]
