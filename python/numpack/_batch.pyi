from collections.abc import Mapping
from typing import Any, Union

from numpy.typing import ArrayLike, NDArray

from ._store import NumPack
from ._transaction import Transaction

class BatchModeContext(Transaction):
    def __init__(self, npk: NumPack, memory_limit: Union[int, None] = None) -> None: ...

class WritableBatchMode(Transaction):
    def __init__(self, npk: NumPack) -> None: ...
    def load(self, array_name: str) -> NDArray[Any]: ...  # type: ignore[override]
    def save(self, arrays: Mapping[str, ArrayLike]) -> None: ...
