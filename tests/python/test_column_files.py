"""Column files are plain .npy files: numpy reads every golden one as it is."""

from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parent.parent / "golden"

CASES = {
    "column_float.npy": ("<f4", (3, 4)),
    "column_scalar.npy": ("<f8", ()),
    "column_one_dimension.npy": ("<M8[us]", (2,)),
    "column_structure.npy": ([("a", "<i4"), ("it's #npk", "|S4", (2,))], (2,)),
    "column_latin.npy": ([("größe", "<f4")], (2,)),
    "column_unicode.npy": ([("温度", "<f4")], (2,)),
    "column_empty.npy": ("<u2", (0, 2, 3)),
}


@pytest.mark.parametrize("mmap_mode", [None, "r"])
@pytest.mark.parametrize("name", CASES)
def test_numpy_loads_golden_column_files(name, mmap_mode):
    dtype, shape = CASES[name]
    dtype = np.dtype(dtype)
    if mmap_mode and 0 in shape:
        pytest.skip("an empty file cannot be mapped")
    array = np.load(GOLDEN / name, mmap_mode=mmap_mode)
    assert array.dtype == dtype
    assert array.shape == shape
    size = array.size * dtype.itemsize
    expected = bytes(i % 4 or 65 for i in range(size))
    assert array.tobytes() == expected
    assert (GOLDEN / name).stat().st_size == 4096 + size
