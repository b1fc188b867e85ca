"""Faults of the Rust package of this name that users must not meet here; one test each."""

import inspect
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

import numpack
from numpack import NumPack, _errors


def test_scattered_replace_writes_the_right_rows(npk, rng):
    a = rng.random((1000, 3))
    npk.save({"a": a})
    rows = rng.permutation(1000)[:300]
    values = rng.random((300, 3))
    npk.replace({"a": values}, rows)
    a[rows] = values
    assert np.array_equal(npk.load("a"), a)


def test_too_few_replacement_rows_are_refused(npk):
    npk.save({"a": np.zeros((10, 3))})
    for index in ([0, 1, 2, 3], slice(0, 4), slice(None, None, 2), np.arange(10) < 3, range(3)):
        for rows in (np.ones((2, 3)), np.ones((0, 3)), np.ones((2, 3), order="F"), np.ones((4, 3))[::2]):
            with pytest.raises(ValueError):
                npk.replace({"a": rows}, index)
    assert not npk.load("a").any()


def test_fortran_ordered_and_reversed_input_keeps_its_values(npk):
    a = np.arange(12).reshape(3, 4)
    for value in (np.asfortranarray(a), a[::-1], a[:, ::-1], a.T):
        npk.save({"a": value})
        assert np.array_equal(npk.load("a"), value)
        npk.append({"a": value})
        npk.replace({"a": value}, range(len(value)))
        npk.replace({"a": value}, list(range(len(value))))
        assert np.array_equal(npk.load("a"), np.concatenate([value, value]))


def test_non_contiguous_append_and_zero_dimensions_do_not_panic(npk):
    npk.save({"a": np.zeros((0, 2)), "z": np.array(5)})
    npk.append({"a": np.arange(12.0).reshape(3, 4)[:, ::2]})
    assert npk.load("a").tolist() == [[0, 2], [4, 6], [8, 10]] and npk.load("z") == 5 and npk.load("z").shape == ()


def test_boolean_masks_are_masks(npk):
    npk.save({"a": np.arange(4)})
    mask = [False, True, False, True]
    assert npk.getitem("a", mask).tolist() == [1, 3] == npk.getitem("a", np.array(mask)).tolist()
    npk.replace({"a": [8, 9]}, mask)
    npk.drop("a", [True, False, False, False])
    assert npk.load("a").tolist() == [8, 2, 9]


def test_append_after_drop_does_not_resurrect_rows(npk, path):
    npk.save({"a": np.arange(10)})
    npk.drop("a", [2, 5])
    npk.append({"a": [100, 101]})
    expected = [0, 1, 3, 4, 6, 7, 8, 9, 100, 101]
    assert npk.load("a").tolist() == expected
    npk.update("a")
    npk.close()
    npk.open()
    assert npk.load("a").tolist() == expected


def test_slices_and_negative_drops_are_logical(npk):
    npk.save({"a": np.arange(10)})
    npk.drop("a", [0, 1])
    assert npk.getitem("a", slice(0, 3)).tolist() == [2, 3, 4]
    npk.drop("a", -1)
    npk.drop("a", slice(0, 2))
    npk.replace({"a": 50}, 0)
    assert npk.load("a").tolist() == [50, 5, 6, 7, 8]


def test_indices_after_a_drop_do_not_cost_all_rows(npk):
    n = 200_000
    npk.save({"a": np.arange(n)})
    npk.drop("a", np.arange(0, n, 1000))
    started = time.process_time()
    for index in range(200):
        npk.getitem("a", index * 500)
    assert time.process_time() - started < 1.0


def test_views_do_not_dangle_after_close(path):
    npk = NumPack(path)
    a = np.arange(100_000)
    npk.save({"a": a})
    view, lazy = npk.load("a", mmap_mode=True), npk.load("a", lazy=True)
    npk.close()
    shutil.rmtree(path)
    assert np.array_equal(view, a) and np.array_equal(lazy, a)


def test_a_lazy_load_of_a_large_array_is_lazy(npk):
    rows = np.zeros((16, 1 << 20))  # 8 MiB a row of doubles; 264 MiB in all
    npk.save({"a": rows})
    npk.append({"a": rows})
    npk.append({"a": rows[:1]})
    npk.compact()

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    del rows
    before = resident()
    lazy = npk.load("a", lazy=True)
    assert lazy.nbytes > 256 << 20 and lazy[20][5] == 0
    assert resident() - before < 64 << 20


def test_what_is_written_is_there_without_close(path):
    script = f"import numpack, os; n = numpack.NumPack({str(path)!r}); n.save({{'a': [1, 2]}}); n.append({{'a': [3]}}); os._exit(0)"
    subprocess.run([sys.executable, "-c", script], check=True)
    with NumPack(path) as npk:
        assert npk.load("a").tolist() == [1, 2, 3]


def test_readers_write_no_content(path):
    """Locks and the index are for all processes together; what holds content is left as it is."""
    with NumPack(path) as npk:
        npk.save({"a": np.arange(1 << 18), "b": [1]})
        npk.compact()
        npk.append({"b": [2]})

    def content():
        return {str(file.relative_to(path)): (file.stat().st_mtime_ns, file.read_bytes()) for file in path.rglob("*")
                if file.is_file() and file.name != "LOCK" and "index" not in file.parts}

    before = content()
    for _ in range(2):
        with NumPack(path, mode="r") as reader:
            assert reader.load("b").tolist() == [1, 2] and reader.load("a", lazy=True)[5] == 5 and len(reader.get_metadata()) == 3
            assert reader.verify() == []
    assert content() == before


def test_readers_see_what_is_written(path):
    npk = NumPack(path)
    npk.save({"a": [1, 2, 3]})
    with NumPack(path, mode="r") as reader:
        assert reader.load("a").tolist() == [1, 2, 3]
        npk.append({"a": [4]})
        assert reader.load("a").tolist() == [1, 2, 3, 4]
    assert npk.load("a").tolist() == [1, 2, 3, 4]
    npk.close()


def test_close_reports_failures(path, monkeypatch):
    npk = NumPack(path)
    npk.save({"a": [1]})

    class Failing:
        def close(self):
            raise numpack.StoreIOError("close: could not write", errno=5)

    real, npk._core = npk._core, Failing()
    with pytest.raises(OSError):
        npk.close()
    real.close()


def test_corrupt_metadata_is_not_an_empty_store(path):
    with NumPack(path) as npk:
        npk.save({"a": [1, 2, 3]})
    (path / "FORMAT").write_bytes(b"\xff" * (path / "FORMAT").stat().st_size)
    for mode in ("a", "r", "r+"):
        with pytest.raises(Exception) as caught:
            NumPack(path, mode=mode).get_member_list()
        assert caught.value.kind in ("corrupt", "format_version")


def test_lazy_and_eager_loads_of_a_missing_name_agree(npk):
    for options in ({}, {"lazy": True}, {"mmap_mode": True}, {"mmap_mode": "c"}):
        with pytest.raises(KeyError) as caught:
            npk.load("missing", **options)
        assert caught.value.kind == "not_found"


def test_damage_is_never_an_empty_store(path):
    """Each file that says what is in the store, emptied, cut and overwritten."""
    with NumPack(path) as npk:
        npk.save({"a": np.random.default_rng(1).random(5000), "b": [1]})
        npk.compact()
        npk.checkpoint()
        npk.append({"b": [2]})
    shutil.rmtree(path / "index")  # so that the other files decide
    whole = path.with_name("whole")
    shutil.copytree(path, whole)
    files = [file.relative_to(whole) for file in whole.rglob("*") if file.is_file() and file.name != "LOCK"
             and file.parts[-2] in ("store", "whole", "wal", "checkpoint", "columns")]
    assert len(files) >= 4
    for name in files:
        for damage in (b"", b"half", b"\xff"):
            shutil.rmtree(path)
            shutil.copytree(whole, path)
            content = (path / name).read_bytes()
            (path / name).write_bytes({b"": b"", b"half": content[: len(content) // 2]}.get(damage, b"\xff" * len(content)))
            try:
                with NumPack(path) as npk:
                    assert npk.get_member_list() == ["a", "b"], (name, damage)
                    npk.load("a"), npk.load("b"), npk.verify()
            except numpack.NumPackError as error:
                assert error.kind in ("corrupt", "format_version"), (name, damage, error)
                assert str(error)


def test_close_and_leaving_with_report_failures(path):
    for leave in ("close", "with"):
        npk = NumPack(path)

        class Failing:
            def close(self):
                raise numpack.StoreIOError("close: could not write", errno=28)

        npk.open()
        real, npk._core = npk._core, Failing()
        with pytest.raises(OSError, match="could not write") as caught:
            if leave == "close":
                npk.close()
            else:
                npk._depth = 1
                npk.__exit__(None, None, None)
        assert caught.value.errno == 28 and npk.is_closed
        real.close()


def test_close_has_nothing_to_report_of_a_directory_that_is_gone(path):
    class Failing:
        def close(self):
            raise numpack.StoreIOError("close: could not fold", errno=2)

    npk = NumPack(path)
    npk.open()
    real, npk._core = npk._core, Failing()
    shutil.rmtree(path)
    npk.close()
    assert npk.is_closed
    real.close()
    assert not path.exists()


# ---- deliberate differences --------------------------------------------------------------------------------------


def test_it_opens_itself(path):
    npk = NumPack(path)
    npk.save({"a": [1]})
    npk.close()
    assert NumPack(path).load("a").tolist() == [1]


def test_batch_modes_roll_back_on_exceptions_and_keep_no_unsaved_edits(npk):
    npk.save({"a": np.zeros(3), "b": np.zeros(3)})
    for mode in (npk.batch_mode, npk.writable_batch_mode):
        with pytest.raises(KeyError, match="mine"), mode() as batch:
            (npk if mode == npk.batch_mode else batch).load("a")[:] = 1
            if mode == npk.batch_mode:
                npk.save({"a": npk.load("a")})
            raise KeyError("mine")
        assert not npk.load("a").any()
    with npk.batch_mode():
        npk.load("a")[:] = 1
        npk.load("b")[:] = 2
        npk.save({"b": npk.load("b")})
    assert npk.load("a").tolist() == [0, 0, 0] and npk.load("b").tolist() == [2, 2, 2]


def test_writable_batch_edits_are_not_visible_before_the_end(npk, path):
    npk.save({"a": np.zeros(3)})
    with NumPack(path, mode="r") as other:
        with npk.writable_batch_mode() as batch:
            batch.load("a")[1] = 5
            assert not other.load("a").any()
        assert other.load("a").tolist() == [0, 5, 0]


def test_lazy_indexing_is_that_of_numpy(npk):
    a = np.arange(12).reshape(3, 4)
    npk.save({"a": a, "v": np.arange(5)})
    lazy = npk.load("v", lazy=True)
    assert np.isscalar(lazy[2]) and lazy[2] == 2 and isinstance(lazy[2], np.int64)
    assert npk.load("a", lazy=True)[[0, 2], [1, 3]].tolist() == [1, 11]


def test_getitem_out_of_range_is_an_index_error(npk):
    npk.save({"a": np.arange(3)})
    for index in (3, -4, [0, 3]):
        with pytest.raises(IndexError):
            npk.getitem("a", index)


def test_dropping_all_rows_keeps_the_array_and_dropping_it_removes_the_name(npk):
    npk.save({"a": np.arange(6).reshape(3, 2)})
    npk.array_attrs("a")["x"] = 1
    npk.drop("a", [0, 1, 2])
    assert npk.get_shape("a") == (0, 2) and npk.get_dtype("a") == np.int64 and dict(npk.array_attrs("a")) == {"x": 1}
    npk.drop("a")
    assert "a" not in npk and npk.get_shape() == {}


def test_what_is_dangerous_does_what_it_says(npk):
    """drop(name, None), append to a misspelt name, reset: each is documented where it is called."""
    npk.save({"a": [1], "b": [2]})
    npk.drop("a", None)
    npk.append({"bb": [3]})
    assert npk.get_member_list() == ["b", "bb"] and npk.load("b").tolist() == [2]
    npk.reset()
    assert len(npk) == 0
    assert "None" in NumPack.drop.__doc__ and "created" in NumPack.append.__doc__ and "every array" in NumPack.reset.__doc__


# ---- the module --------------------------------------------------------------------------------------------------


def test_the_module_has_the_names_that_code_imports():
    from numpack import BatchModeContext, LazyArray, force_cleanup_windows_handles

    assert force_cleanup_windows_handles() is True and isinstance(LazyArray, type) and isinstance(BatchModeContext, type)
    assert isinstance(numpack.__version__, str)
    for name in ("NumPack", "LazyArray", "BatchModeContext", "force_cleanup_windows_handles", "__version__", *_errors.__all__):
        assert name in numpack.__all__ and hasattr(numpack, name)
    signature = inspect.signature(NumPack)
    assert list(signature.parameters)[:5] == ["filename", "drop_if_exists", "strict_context_mode", "warn_no_context",
                                              "force_gc_on_close"]
    defaults = {name: item.default for name, item in signature.parameters.items()}
    assert [defaults[name] for name in list(defaults)[1:5]] == [False, False, None, False]
    assert (defaults["mode"], defaults["sync"], defaults["sync_interval_ms"], defaults["busy_timeout"]) == ("a", "commit", 100, 60.0)
    assert all(item.kind is item.KEYWORD_ONLY for item in list(signature.parameters.values())[5:])
    with pytest.raises(AttributeError):
        numpack.nothing
