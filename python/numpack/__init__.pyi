from ._batch import BatchModeContext as BatchModeContext
from ._batch import WritableBatchMode as WritableBatchMode
from ._errors import *
from ._lazy import LazyArray as LazyArray
from ._store import ArrayHandle as ArrayHandle
from ._store import LoadedArrays as LoadedArrays
from ._store import NumPack as NumPack
from ._store import Snapshot as Snapshot
from ._transaction import Transaction as Transaction

__version__: str

def force_cleanup_windows_handles() -> bool: ...
