"""The usage part of the Rust package's first README, as it stands."""

import numpy as np

from numpack import NumPack


def test_readme_runs_as_written(path):
    npk = NumPack(path)
    array1 = np.random.rand(1000, 10).astype(np.float32)
    array2 = np.random.randint(0, 100, (500, 5)).astype(np.int32)
    npk.save({"array1": array1, "array2": array2})

    loaded = npk.load(mmap_mode=False)
    assert set(loaded) == {"array1", "array2"}
    assert np.array_equal(loaded["array1"], array1) and np.array_equal(loaded["array2"], array2)
    lazy = npk.load(mmap_mode=True)
    assert np.array_equal(lazy["array1"], array1) and not lazy["array1"].flags.writeable

    replacement = np.random.rand(10, 10).astype(np.float32)
    npk.replace({"array1": replacement}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    array1[:10] = replacement
    assert np.array_equal(npk.load("array1"), array1)

    array3 = np.random.rand(200, 10).astype(np.float32)
    npk.append({"array3": array3})
    assert np.array_equal(npk.load("array3"), array3)

    assert npk.get_shape() == {"array1": (1000, 10), "array2": (500, 5), "array3": (200, 10)}
    assert npk.get_member_list() == ["array1", "array2", "array3"]
    assert npk.get_modify_time("array1") > 1_600_000_000_000_000

    npk.drop("array1")
    npk.drop("array2", [0, 1, 2])
    assert npk.get_modify_time("array1") is None
    assert npk.get_member_list() == ["array2", "array3"]
    assert np.array_equal(npk.load("array2"), array2[3:])
    npk.close()

    again = NumPack(path)
    assert np.array_equal(again.load("array2"), array2[3:])
    again.close()
