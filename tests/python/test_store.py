"""The store: opening rules, modes, methods outside transactions."""

import collections
import collections.abc
import gc
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import types
import warnings

import numpy as np
import pytest

import numpack
from numpack import LazyArray, NumPack


def test_the_constructor_touches_nothing(path):
    npk = NumPack(path)
    assert not npk.is_opened and npk.is_closed and not path.exists()
    assert bool(npk) and repr(npk) == f"NumPack({path}, status=closed)"


def test_writing_opens_and_creates(path):
    npk = NumPack(path)
    npk.save({"a": [1, 2]})
    assert npk.is_opened and repr(npk) == f"NumPack({path}, arrays=1)"
    npk.close()


def test_reading_by_itself_creates_nothing(path):
    npk = NumPack(path)
    assert npk.get_member_list() == [] and len(npk) == 0 and dict(npk.load()) == {} and list(npk) == []
    assert npk.get_shape() == {} and npk.get_modify_time("a") is None and not npk.has_array("a") and "a" not in npk
    assert dict(npk.attrs) == {} and npk.verify() == [] and npk.lsn == (0, 0) and npk.stats()["array_count"] == 0
    with npk.snapshot() as snapshot:
        assert list(snapshot) == []
    for call in (lambda: npk.load("a"), lambda: npk.load("a", lazy=True), lambda: npk.getitem("a", 0)):
        with pytest.raises(KeyError):
            call()
    npk.drop("a")
    npk.flush()
    npk.compact()
    npk.checkpoint()
    npk.reset()
    assert not path.exists() and not npk.is_opened


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_reading_a_missing_store_with_r_raises(path, mode):
    npk = NumPack(path, mode=mode)
    for call in (npk.open, npk.get_member_list, lambda: npk.save({"a": [1]}), npk.__enter__):
        with pytest.raises(FileNotFoundError) as caught:
            call()
        assert isinstance(caught.value, numpack.NumPackError) and caught.value.kind == "not_found"
    assert not path.exists()


def test_after_close_every_data_method_raises(npk):
    npk.save({"a": [1]})
    lazy = npk.load("a", lazy=True)
    npk.close()
    npk.close()
    calls = [lambda: npk.load("a"), lambda: npk.save({"a": [1]}), lambda: npk.append({"a": [1]}), npk.get_member_list,
             lambda: npk.drop("a"), npk.get_shape, lambda: npk.replace({"a": 1}, 0), lambda: npk.getitem("a", 0),
             npk.stats, npk.verify, npk.compact, npk.checkpoint, npk.flush, npk.reset, lambda: npk["a"],
             lambda: "a" in npk, lambda: len(npk), lambda: npk.attrs["x"], lambda: npk.attrs.update(x=1),
             lambda: npk.transaction().__enter__(), npk.snapshot, lambda: npk.lsn, lambda: npk.array("a"),
             lambda: npk.clone("a", "b"), lambda: npk.rename("a", "b"), npk.get_metadata]
    for call in calls:
        with pytest.raises(RuntimeError, match="not opened or has been closed"):
            call()
    assert lazy[0] == 1
    npk.open()
    npk.open()
    assert npk.load("a").tolist() == [1]


def test_close_of_a_never_opened_store(path):
    npk = NumPack(path)
    npk.close()
    with pytest.raises(RuntimeError, match="not opened or has been closed"):
        npk.get_member_list()
    with npk:
        assert len(npk) == 0


def test_with_closes_and_reopens(path):
    with NumPack(path) as npk:
        npk.save({"a": [1]})
        with npk:
            pass
        assert npk.is_opened
    assert npk.is_closed
    with npk:
        assert npk.load("a").tolist() == [1]


def test_strict_context_mode(path):
    npk = NumPack(path, strict_context_mode=True)
    with pytest.raises(RuntimeError, match="strict context mode"):
        npk.save({"a": [1]})
    npk.open()
    with pytest.raises(RuntimeError, match="strict context mode"):
        npk.get_member_list()
    repr(npk)
    npk.close()
    with pytest.raises(RuntimeError, match="not opened or has been closed"):
        npk.get_member_list()
    with npk:
        npk.save({"a": [1]})
        assert npk.load("a").tolist() == [1]


def test_warn_no_context(path):
    npk = NumPack(path, warn_no_context=True)
    with pytest.warns(UserWarning):
        npk.save({"a": [1]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with npk:
            npk.load("a")


def test_modes(path):
    with NumPack(path, mode="x") as npk:
        npk.save({"a": [1]})
    with pytest.raises(FileExistsError):
        NumPack(path, mode="x").open()
    with pytest.raises(FileExistsError):
        NumPack(path, mode="x").get_member_list()
    with npk:  # "x" has made its store: opening it again is fine
        assert "a" in npk
    with NumPack(path, mode="r") as npk:
        assert npk.load("a").tolist() == [1]
        for call in (lambda: npk.save({"b": [1]}), lambda: npk.drop("nothing"), npk.reset, npk.compact,
                     lambda: npk.attrs.update(x=1), lambda: npk.transaction().__enter__()):
            with pytest.raises(PermissionError) as caught:
                call()
            assert caught.value.kind == "read_only"
    with NumPack(path, mode="r+") as npk:
        npk.save({"b": [1]})
    with NumPack(path, mode="w") as npk:
        assert npk.get_member_list() == []


@pytest.mark.parametrize("options", [{"mode": "w"}, {"drop_if_exists": True}])
def test_emptying_acts_once_per_object_and_leaves_views(path, options):
    with NumPack(path) as other:
        other.save({"a": np.arange(5)})
        other.attrs["x"] = 1
        view = other.load("a", mmap_mode=True)
        npk = NumPack(path, **options)
        assert npk.get_member_list() == [] and dict(npk.attrs) == {}
        npk.save({"b": [1]})
        npk.close()
        npk.open()
        assert npk.get_member_list() == ["b"] == other.get_member_list()
        assert view.tolist() == [0, 1, 2, 3, 4]
        npk.close()


def test_drop_if_exists_with_reading_modes(path):
    for mode in ("r", "r+"):
        with pytest.raises(ValueError):
            NumPack(path, drop_if_exists=True, mode=mode)


def test_save_and_load_forms(npk, rng):
    a = rng.random((100, 3))
    npk.save({"a": a, "l": [1, 2, 3], "s": 5.0, "e": np.empty((0, 4), "i2")})
    loaded = npk.load("a")
    loaded[0] = 0
    assert np.array_equal(npk.load("a"), a) and loaded.flags.c_contiguous and loaded.flags.writeable
    assert npk.load("s").shape == () and npk.load("s") == 5.0
    assert npk.load("e").shape == (0, 4) and npk.load("e").dtype == np.int16
    assert isinstance(npk.load("a", lazy=True), LazyArray) and isinstance(npk.load("a", True), LazyArray)
    for mode in (True, "r"):
        view = npk.load("a", mmap_mode=mode)
        assert np.array_equal(view, a) and not view.flags.writeable
    view = npk.load("a", mmap_mode="c")
    view[0] = 7
    assert np.array_equal(npk.load("a"), a)
    for mode in (False, None):
        assert npk.load("a", mmap_mode=mode).flags.writeable
    for bad in ("w", "r+", 1, 0, "", [1]):
        with pytest.raises(ValueError):
            npk.load("a", mmap_mode=bad)
    with pytest.raises(ValueError):
        npk.load("a", lazy=True, mmap_mode="r")


def test_load_without_name_is_one_moment(npk):
    npk.save({"a": [1], "b": [2]})
    everything = npk.load(lazy=True)
    npk.save({"a": [9], "c": [3]})
    npk.drop("b")
    assert list(everything) == ["a", "b"] and len(everything) == 2 and "b" in everything and "c" not in everything
    assert everything["a"][0] == 1 and everything["b"][0] == 2
    assert [name for name, _ in everything.items()] == ["a", "b"]
    with pytest.raises(KeyError):
        everything["c"]


def test_large_arrays_round_trip(npk, rng):
    a = rng.integers(0, 255, (5000, 1000), dtype=np.uint8)
    npk.save({"a": a})
    assert np.array_equal(npk.load("a"), a)
    npk.append({"a": a[:1000]})
    assert np.array_equal(npk.load("a"), np.concatenate([a, a[:1000]]))


def test_append(npk):
    npk.append({"a": np.arange(6.0).reshape(3, 2)})
    npk.append({"a": [[6, 7]]})
    assert npk.load("a").tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    npk.append({"a": np.empty((0, 2))})
    assert npk.get_shape("a") == (4, 2)
    for bad in ([1.0, 2.0], np.zeros((1, 3)), np.zeros((1, 1, 2)), 5.0):
        with pytest.raises(ValueError) as caught:
            npk.append({"a": bad})
        assert caught.value.kind == "shape_mismatch" and caught.value.array == "a"
    with pytest.raises(ValueError, match=r"x\[None\]"):
        npk.append({"a": np.zeros(2)})
    with pytest.raises(ValueError, match=r"x\[None\]"):
        npk.append({"new": 5.0})
    assert npk.get_shape() == {"a": (4, 2)}


def test_replace_takes_rows_one_row_or_a_scalar(npk):
    npk.save({"a": np.zeros((5, 2))})
    npk.replace({"a": [[1, 1], [2, 2]]}, [0, 1])
    npk.replace({"a": [3, 3]}, [2])
    npk.replace({"a": [[4, 4]]}, 3)
    npk.replace({"a": 5}, [4, -1])
    assert npk.load("a")[:, 0].tolist() == [1, 2, 3, 4, 5]
    npk.replace({"a": [9, 8]}, slice(None, None, 2))
    assert npk.load("a").tolist() == [[9, 8], [2, 2], [9, 8], [4, 4], [9, 8]]
    npk.replace({"a": [[1, 1], [2, 2]]}, [0, 0])
    assert npk.load("a")[0].tolist() == [2, 2]
    for bad in ([[1, 1], [2, 2], [3, 3]], [1, 2, 3], [[1], [2]], [[[1, 1], [2, 2]]]):
        with pytest.raises(ValueError):
            npk.replace({"a": bad}, [0, 1])
    with pytest.raises(KeyError):
        npk.replace({"b": [1]}, 0)


def test_drop(npk):
    npk.save({"a": np.arange(10), "b": np.arange(3), "c": [1]})
    npk.drop("a", [0, -1, 0, 100, -100])
    assert npk.load("a").tolist() == list(range(1, 9))
    npk.drop("a", slice(1, None, 2))
    assert npk.load("a").tolist() == [1, 3, 5, 7]
    npk.drop(["a", "b", "unknown"], 0)
    assert npk.load("a").tolist() == [3, 5, 7] and npk.load("b").tolist() == [1, 2]
    npk.drop("a", slice(None))
    assert npk.get_shape("a") == (0,)
    npk.append({"a": [4]})
    assert npk.load("a").tolist() == [4]
    npk.drop(["b", "unknown"])
    npk.drop("unknown")
    assert npk.get_member_list() == ["a", "c"]
    with pytest.raises(TypeError):
        npk.drop(5)


def test_getitem(npk):
    npk.save({"a": np.arange(10).reshape(5, 2)})
    assert npk.getitem("a", 1).tolist() == [[2, 3]]
    assert npk.getitem("a", [3, 0, 3]).tolist() == [[6, 7], [0, 1], [6, 7]]
    assert npk.getitem([1], "a").tolist() == [[2, 3]]
    assert npk.getitem("a", []).shape == (0, 2)
    assert npk.getitem("a", np.array([True, False, False, False, True])).tolist() == [[0, 1], [8, 9]]
    result = npk.getitem("a", slice(1, 3))
    result[:] = 0
    assert npk.getitem("a", slice(1, 3)).tolist() == [[2, 3], [4, 5]]


def test_zero_dimensional_arrays_have_no_rows(npk):
    npk.save({"z": np.float32(3)})
    for call in (lambda: npk.append({"z": [1.0]}), lambda: npk.replace({"z": 1.0}, 0), lambda: npk.drop("z", 0),
                 lambda: npk.getitem("z", 0), lambda: npk.stream_load("z")):
        with pytest.raises(ValueError):
            call()
    assert npk.load("z") == 3 and npk.load("z", lazy=True)[()] == 3


def test_rows_of_no_size(npk):
    npk.save({"a": np.empty((3, 0, 2))})
    assert npk.get_shape("a") == (3, 0, 2)
    npk.append({"a": np.empty((2, 0, 2))})
    npk.replace({"a": np.empty((1, 0, 2))}, [1])
    npk.drop("a", [0])
    assert npk.load("a").shape == (4, 0, 2) and npk.getitem("a", [1, 2]).shape == (2, 0, 2)
    assert npk.load("a", mmap_mode="r").shape == (4, 0, 2)


def test_mapping_protocol(npk):
    npk["b"] = [1, 2]
    npk["a"] = [3]
    assert list(npk) == ["a", "b"] == list(npk.keys()) and len(npk) == 2 and "a" in npk and 5 not in npk
    assert npk["b"].tolist() == [1, 2] and npk.get("x") is None and npk.get("a").tolist() == [3]
    assert [value.tolist() for value in npk.values()] == [[3], [1, 2]]
    del npk["a"]
    assert list(npk) == ["b"]
    with pytest.raises(KeyError):
        del npk["a"]
    with pytest.raises(KeyError):
        npk["a"]
    with pytest.raises(TypeError, match="save"):
        npk.update({"a": [1]})


def test_array_handle(npk):
    npk.save({"a": np.arange(6).reshape(3, 2)})
    handle = npk.array("a")
    assert handle.shape == (3, 2) and handle.dtype == np.int64 and len(handle) == 3
    handle[0] = [9, 9]
    handle.append([[7, 7]])
    handle.drop(1)
    handle.attrs["unit"] = "m"
    assert handle[:].tolist() == [[9, 9], [4, 5], [7, 7]] and handle[0, 1] == 9 and dict(handle.attrs) == {"unit": "m"}
    with pytest.raises(KeyError):
        npk.array("b")
    npk.drop("a")
    for call in (lambda: handle[0], lambda: handle.append([[1, 1]]), lambda: handle.shape):
        with pytest.raises(KeyError):
            call()


def test_stream_load(npk):
    npk.save({"a": np.arange(7)})
    batches = npk.stream_load("a", 3)
    npk.drop("a")
    assert [batch.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    npk.save({"a": np.arange(2)})
    assert [batch.tolist() for batch in npk.stream_load("a")] == [[0], [1]]
    for bad in (0, -1):
        with pytest.raises(ValueError):
            npk.stream_load("a", bad)
    with pytest.raises(KeyError):
        npk.stream_load("b")


def test_clone_rename_reset(npk):
    npk.save({"a": [1, 2], "b": [3]})
    npk.clone("a", "c")
    npk.replace({"c": 9}, 0)
    npk.rename("a", "d")
    assert npk.load("d").tolist() == [1, 2] and npk.load("c").tolist() == [9, 2]
    for call in (lambda: npk.clone("x", "y"), lambda: npk.rename("x", "y")):
        with pytest.raises(KeyError):
            call()
    for call in (lambda: npk.clone("d", "c"), lambda: npk.rename("d", "c"), lambda: npk.rename("d", "d")):
        with pytest.raises(ValueError) as caught:
            call()
        assert caught.value.kind == "exists"
    npk.attrs["x"] = 1
    npk.reset()
    assert len(npk) == 0 and dict(npk.attrs) == {}


def test_metadata_and_stats(npk):
    npk.save({"a": np.zeros((3, 2), "f4")})
    meta = npk.get_metadata()
    assert meta["total_arrays"] == 1 and meta["base_dir"] == str(npk.path)
    assert meta["arrays"]["a"]["shape"] == [3, 2] and meta["arrays"]["a"]["dtype"] == "Float32"
    assert meta["arrays"]["a"]["descr"] == "<f4" and meta["arrays"]["a"]["size_bytes"] == 24
    stats = npk.stats()
    assert stats["array_count"] == 1 and set(stats["pending_rows"]) == {"a"} and stats["commits"] >= 1
    assert npk.get_io_stats().keys() == stats.keys()
    assert npk.lsn > (0, 0) and npk.get_dtype("a") == np.float32
    before = npk.lsn
    npk.save({"a": [1]})
    assert npk.lsn > before


def test_upkeep(npk, rng):
    a = rng.random((1000, 4))
    npk.save({"a": a})
    for row in range(0, 1000, 50):
        npk.replace({"a": np.zeros(4)}, row)
        a[row] = 0
    npk.update("a")
    assert np.array_equal(npk.load("a"), a)
    assert npk.stats()["pending_rows"]["a"] == 0
    assert npk.load("a", lazy=True)._array.piece_count <= 1
    npk.compact()
    npk.checkpoint()
    npk.flush()
    assert npk.verify() == []
    with pytest.raises(KeyError):
        npk.update("b")


def test_two_handles_and_another_process(npk, path):
    npk.save({"a": [1, 2]})
    with NumPack(path) as other:
        other.append({"a": [3]})
        assert npk.load("a").tolist() == [1, 2, 3]
    script = f"import numpack; n = numpack.NumPack({str(path)!r}); n.append({{'a': [4]}}); print(n['a'].tolist()); n.close()"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[1, 2, 3, 4]", result.stderr
    assert npk.load("a").tolist() == [1, 2, 3, 4]


def test_views_outlive_everything(path):
    npk = NumPack(path)
    a = np.arange(10000.0).reshape(-1, 10)
    npk.save({"a": a})
    npk.compact()
    view, lazy = npk.load("a", mmap_mode=True), npk.load("a", lazy=True)
    npk.replace({"a": np.zeros((1000, 10))}, slice(None))
    npk.compact()
    npk.drop("a")
    npk.checkpoint()
    npk.close()
    del npk
    gc.collect()
    shutil.rmtree(path)
    assert np.array_equal(view, a) and np.array_equal(lazy[:], a) and np.array_equal(np.asarray(lazy), a)


def test_the_directory_may_be_removed_under_an_open_store(path):
    npk = NumPack(path)
    npk.save({"a": np.arange(1000)})
    shutil.rmtree(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        npk.close()
    assert not path.exists()
    npk = NumPack(path)
    npk.save({"b": [1]})
    shutil.rmtree(path)
    del npk
    gc.collect()
    assert not path.exists()


def test_a_directory_made_anew_is_another_store(path):
    first = NumPack(path)
    first.save({"a": [1]})
    shutil.rmtree(path)
    with NumPack(path) as second:
        assert second.get_member_list() == []
        second.save({"b": [2]})
    first.close()
    with NumPack(path) as third:
        assert third.get_member_list() == ["b"]


def test_pickled_handles_reopen(npk, path):
    npk.save({"a": [1, 2]})
    copy = pickle.loads(pickle.dumps(npk))
    assert not copy.is_opened and copy.load("a").tolist() == [1, 2]
    copy.close()


def test_repr_html(npk):
    npk.save({"<a>": [1]})
    assert "&lt;a&gt;" in npk._repr_html_() and "closed" in NumPack("/nowhere")._repr_html_()


def test_relative_paths_are_bound_at_construction(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    npk = NumPack("store")
    os.mkdir("elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    npk.save({"a": [1]})
    npk.close()
    assert (tmp_path / "store").is_dir() and repr(npk) == "NumPack(store, status=closed)"


def test_import_is_quick():
    script = "import numpy, time; t = time.process_time(); import numpack; print(time.process_time() - t)"
    times = [float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout)
             for _ in range(5)]
    assert min(times) < 0.015, times


def test_small_things():
    assert numpack.force_cleanup_windows_handles() is True
    assert numpack.__version__ == "0.1.0"
    for name in numpack.__all__:
        assert getattr(numpack, name) is not None


def test_a_damaged_or_foreign_index_is_thrown_away(path):
    """The index decides nothing: a killed process leaves one behind, and whatever became of it, the log gives the state back."""
    script = (f"import os, numpy as np, numpack\nn = numpack.NumPack({str(path)!r})\nn.save({{'a': np.arange(9)}})\n"
              "n.append({'a': [9]})\nos._exit(0)\n")
    for damage in ("index garbage", "control garbage", "cut short", "gone"):
        shutil.rmtree(path, ignore_errors=True)
        subprocess.run([sys.executable, "-c", script], check=True)
        files = [file for file in (path / "index").rglob("*") if file.is_file()]
        assert len(files) == 3  # control, data.mdb, lock.mdb
        for file in files:
            content = file.read_bytes()
            if damage == "index garbage" and file.name != "control":
                file.write_bytes(os.urandom(len(content)))
            elif damage == "control garbage" and file.name == "control":
                file.write_bytes(os.urandom(len(content)))
            elif damage == "cut short":
                file.write_bytes(content[: len(content) // 3])
            elif damage == "gone":
                file.unlink()
        with NumPack(path) as npk:
            assert npk.load("a").tolist() == list(range(10)), damage
            assert npk.verify() == []


# ---- opening and closing -----------------------------------------------------------------------------------------


DATA_CALLS = {
    "load": lambda npk: npk.load("a"), "load all": lambda npk: npk.load(), "save": lambda npk: npk.save({"a": [1]}),
    "append": lambda npk: npk.append({"a": [1]}), "replace": lambda npk: npk.replace({"a": 1}, 0),
    "drop": lambda npk: npk.drop("a"), "drop rows": lambda npk: npk.drop("a", 0), "getitem": lambda npk: npk.getitem("a", 0),
    "get_shape": lambda npk: npk.get_shape(), "get_shape of one": lambda npk: npk.get_shape("a"),
    "get_dtype": lambda npk: npk.get_dtype("a"), "get_member_list": lambda npk: npk.get_member_list(),
    "get_modify_time": lambda npk: npk.get_modify_time("a"), "has_array": lambda npk: npk.has_array("a"),
    "in": lambda npk: "a" in npk, "in, no name": lambda npk: "" in npk, "in, no str": lambda npk: 5 in npk,
    "len": lambda npk: len(npk), "iter": lambda npk: list(npk), "keys": lambda npk: npk.keys(),
    "values": lambda npk: npk.values(), "items": lambda npk: npk.items(), "get": lambda npk: npk.get("a"),
    "item": lambda npk: npk["a"], "set item": lambda npk: npk.__setitem__("a", [1]),
    "delete item": lambda npk: npk.__delitem__("a"), "array": lambda npk: npk.array("a"),
    "stream_load": lambda npk: npk.stream_load("a"), "update": lambda npk: npk.update("a"), "compact": lambda npk: npk.compact(),
    "checkpoint": lambda npk: npk.checkpoint(), "flush": lambda npk: npk.flush(), "clone": lambda npk: npk.clone("a", "b"),
    "rename": lambda npk: npk.rename("a", "b"), "reset": lambda npk: npk.reset(), "metadata": lambda npk: npk.get_metadata(),
    "stats": lambda npk: npk.stats(), "io stats": lambda npk: npk.get_io_stats(), "verify": lambda npk: npk.verify(),
    "lsn": lambda npk: npk.lsn, "attrs": lambda npk: dict(npk.attrs), "set attr": lambda npk: npk.attrs.update(x=1),
    "array attrs": lambda npk: dict(npk.array_attrs("a")), "snapshot": lambda npk: npk.snapshot(),
    "transaction": lambda npk: npk.transaction().__enter__(), "batch": lambda npk: npk.batch_mode().__enter__(),
    "writable batch": lambda npk: npk.writable_batch_mode().__enter__(),
}


@pytest.mark.parametrize("mode", ["a", "r"])
@pytest.mark.parametrize("name", DATA_CALLS)
def test_every_data_method_of_a_closed_store_raises(path, name, mode):
    with NumPack(path) as npk:
        npk.save({"a": [1]})
    npk = NumPack(path, mode=mode)
    npk.open()
    handle = npk.array("a")
    npk.close()
    for call in (DATA_CALLS[name], lambda npk: handle[0], lambda npk: handle.shape, lambda npk: handle.append([1])):
        with pytest.raises(RuntimeError, match="not opened or has been closed") as caught:
            call(npk)
        assert caught.value.kind == "wrong_use" and str(path) in str(caught.value)
    assert npk.is_closed


@pytest.mark.parametrize("name", DATA_CALLS)
def test_every_data_method_is_strict_about_context(path, name):
    npk = NumPack(path, strict_context_mode=True)
    for step in ("new", "open"):
        with pytest.raises(RuntimeError, match="strict context mode"):
            DATA_CALLS[name](npk)
        if step == "new":
            assert npk.is_closed and not path.exists()
            npk.open()
    assert npk.is_opened and npk.mode == "a" and npk.path == path and repr(npk) and npk._repr_html_() and npk
    npk.close()
    with pytest.raises(RuntimeError, match="not opened or has been closed"):  # this one comes first
        DATA_CALLS[name](npk)


@pytest.mark.parametrize("name", sorted(set(DATA_CALLS) - {"transaction", "batch", "writable batch"}))
def test_warnings_point_at_the_caller(path, name):
    with NumPack(path) as npk:
        npk.save({"a": [1]})
    npk = NumPack(path, warn_no_context=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        DATA_CALLS[name](npk)
    assert caught and {item.category for item in caught} == {UserWarning}
    assert {item.filename for item in caught} == {__file__}
    npk.close()


def test_no_warning_without_being_asked_and_none_when_strict(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for options in ({}, {"warn_no_context": None}, {"warn_no_context": False}):
            npk = NumPack(path, **options)
            npk.save({"a": [1]})
            npk.close()
        npk = NumPack(path, strict_context_mode=True, warn_no_context=True)
        with pytest.raises(RuntimeError):
            npk.load("a")
        npk.close()


def test_opened_and_closed_are_opposites(path):
    npk = NumPack(path)
    states = []

    def look():
        assert npk.is_closed == (not npk.is_opened)
        states.append(npk.is_opened)

    look()
    for step in (npk.close, npk.open, npk.open, npk.close, npk.close, npk.open, npk.__enter__, lambda: npk.__exit__(None, None, None)):
        step()
        look()
    assert states == [False, False, True, True, False, False, True, True, False]


def test_reading_opens_what_is_there(path):
    with NumPack(path) as npk:
        npk.save({"a": [1]})
    npk = NumPack(path)
    assert npk["a"].tolist() == [1] and npk.is_opened
    npk.close()


@pytest.mark.parametrize("at_construction,argument,collects", [
    (False, None, False), (True, None, True), (False, True, True), (True, False, False)])
def test_close_collects_garbage_when_told(path, monkeypatch, at_construction, argument, collects):
    npk = NumPack(path, force_gc_on_close=at_construction)
    npk.open()
    calls = []
    monkeypatch.setattr(gc, "collect", lambda: calls.append(1))
    npk.close(argument)
    assert bool(calls) == collects


@pytest.mark.parametrize("mode", ["a", "w", "x"])
def test_directories_above_are_created_by_what_creates_the_store(tmp_path, mode):
    for name, action in (("open", lambda npk: npk.open()), ("with", lambda npk: npk.__enter__()),
                         ("write", lambda npk: npk.save({"a": [1]}))):
        path = tmp_path / name / "b" / "c"
        npk = NumPack(path, mode=mode)
        if mode != "x":
            assert npk.get_member_list() == []
        assert not (tmp_path / name).exists()
        action(npk)
        assert path.is_dir()
        npk.close()
    for reading in ("r", "r+"):
        with pytest.raises(FileNotFoundError):
            NumPack(tmp_path / "no" / "b", mode=reading).open()
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("options", [{"mode": "w"}, {"drop_if_exists": True}, {"drop_if_exists": True, "mode": "w"}])
@pytest.mark.parametrize("way", ["open", "with", "read", "write"])
def test_emptying_is_one_transaction_of_the_first_opening(path, options, way):
    with NumPack(path) as other:
        other.save({"a": np.arange(5), "b": [1.5]})
        other.attrs["x"] = 1
        other.array_attrs("a")["y"] = 2
        lazy, handle, commits = other.load("a", lazy=True), other.array("a"), other.stats()["commits"]
        snapshot = other.snapshot()
        (path / "mine.txt").write_text("mine")
        (path / "columns" / "mine.npy").write_text("mine")
        npk = NumPack(path, **options)
        assert other.stats()["commits"] == commits
        {"open": npk.open, "with": npk.__enter__, "read": npk.get_member_list, "write": lambda: npk.save({"c": [1]})}[way]()
        left = ["c"] if way == "write" else []
        assert npk.get_member_list() == left == other.get_member_list() and dict(npk.attrs) == {}
        assert other.stats()["commits"] == commits + 1 + len(left)
        assert lazy[:].tolist() == [0, 1, 2, 3, 4] == snapshot["a"][:].tolist() and dict(snapshot.attrs) == {"x": 1}
        with pytest.raises(KeyError):
            handle[0]
        other.save({"d": [1]})
        npk.close()
        npk.open()
        assert npk.get_member_list() == left + ["d"]
        npk.compact()
        npk.close()
        snapshot.close()
    assert (path / "mine.txt").read_text() == "mine" == (path / "columns" / "mine.npy").read_text()


def test_emptying_that_failed_is_done_by_the_next_opening(path):
    with NumPack(path) as other:
        other.save({"a": [1]})
        npk = NumPack(path, mode="w", busy_timeout=0.05)
        with other.transaction():
            other.save({"b": [1]})
            with pytest.raises(TimeoutError):
                npk.get_member_list()
            assert npk.is_closed
        assert other.get_member_list() == ["a", "b"]
        assert npk.get_member_list() == [] == other.get_member_list()
        npk.close()


def test_an_exclusive_mode_touches_nothing_that_is_there(path):
    with NumPack(path) as npk:
        npk.save({"a": [1]})
    for call in DATA_CALLS.values():
        with pytest.raises(FileExistsError) as caught:
            call(NumPack(path, mode="x"))
        assert caught.value.kind == "exists" and str(path) in str(caught.value)
    with NumPack(path, mode="r") as npk:
        assert npk.load("a").tolist() == [1]


def test_a_path_is_a_str_or_like_one(path):
    for name in (str(path), path):
        npk = NumPack(name)
        assert npk.path == path and npk.mode == "a"
        npk.save({"a": [1]})
        npk.close()


def test_repr_never_opens_or_raises(path, tmp_path):
    rust = tmp_path / "rust"
    rust.mkdir()
    (rust / "metadata.npkm").write_bytes(b"x")
    for name in (path, rust, tmp_path / "no" / "where", "\udc80"):
        for mode in ("a", "r"):
            npk = NumPack(name, mode=mode, strict_context_mode=mode == "a")
            assert repr(npk) == f"NumPack({name}, status=closed)" and "closed" in npk._repr_html_() and npk.is_closed
    assert not path.exists()
    npk = NumPack(path)
    npk.save({"a": np.zeros((2, 3), "f4"), "<b>": [1, 2]})
    html = npk._repr_html_()
    for text in ("<table>", "(2, 3)", "float32", "&lt;b&gt;", "int64"):
        assert text in html
    shutil.rmtree(path)
    assert repr(npk).startswith(f"NumPack({path}, ") and npk._repr_html_()
    npk.close()


REMOVED = """
import gc, os, shutil, sys, time, warnings
import numpy as np
import numpack
warnings.simplefilter("error")
sys.unraisablehook = lambda args: (print("unraisable", args.exc_value, flush=True), os._exit(1))
path, what, end = sys.argv[1:]
store = os.path.join(path, "deep", "store")
npk = numpack.NumPack(store, pending_limit=8 << 20)
npk.save({"a": np.arange(10)})
if what != "little pending":
    for _ in range(12):  # more than the background thread leaves alone
        npk.append({"a": np.random.default_rng(1).integers(0, 1 << 62, 1 << 16)})
view = npk.load("a", mmap_mode="r")
shutil.rmtree(path if what == "parent" else store)
if what == "a file":
    open(store, "w").close()
if what == "another directory":
    os.mkdir(store)
time.sleep(0.7)
if end == "close":
    npk.close()
elif end == "del":
    del npk
    gc.collect()
elif end == "with":
    with npk:
        pass
assert view[:10].tolist() == list(range(10))
left = sorted(os.path.relpath(os.path.join(at, name), path) for at, names, files in os.walk(path) for name in names + files)
print(left)
"""


@pytest.mark.parametrize("what,left", [("little pending", ["deep"]), ("much pending", ["deep"]), ("parent", []),
                                       ("a file", ["deep", "deep/store"]), ("another directory", ["deep", "deep/store"])])
@pytest.mark.parametrize("end", ["close", "del", "with", "exit"])
def test_removing_the_directory_is_not_noticed(tmp_path, what, left, end):
    done = subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", REMOVED, str(tmp_path / "top"), what, end],
                          capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{left}\n")
    after = sorted(str(item.relative_to(tmp_path / "top")) for item in (tmp_path / "top").rglob("*"))
    assert after == left  # the end of the process re-created nothing either


def threads():
    return len(os.listdir("/proc/self/task"))


def test_the_last_close_joins_the_worker(path, tmp_path):
    before = threads()
    npk, other = NumPack(path), NumPack(path)
    npk.open()
    other.open()
    assert threads() == before + 1
    with NumPack(tmp_path / "second") as second:
        second.save({"a": [1]})
        assert threads() == before + 2
    assert threads() == before + 1
    npk.close()
    assert threads() == before + 1
    other.close()
    assert threads() == before
    with NumPack(path, background=False) as npk:
        assert threads() == before and npk.stats()["worker_reason"] == "no background thread"
    with NumPack(path, mode="r"):
        assert threads() == before


def test_little_pending_is_left_alone_in_the_background(path, rng):
    rows = rng.integers(0, 256, 1 << 20, "u1")  # random: what is logged is as much as what is pending
    with NumPack(path, sync="never", pending_limit=8 << 20) as npk:
        npk.save({"a": np.zeros(0, "u1")})
        for _ in range(3):
            npk.append({"a": rows})
        time.sleep(1.5)
        stats = npk.stats()
        assert stats["folds"] == 0 and 3 << 20 <= stats["pending_size"] < 4 << 20
        assert stats["pending_rows"] == {"a": 3 << 20} and stats["last_fold_us"] == 0
        for _ in range(5):
            npk.append({"a": rows})
        deadline = time.monotonic() + 20
        while npk.stats()["folds"] == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        stats = npk.stats()
        assert stats["folds"] >= 1 and stats["bytes_folded"] >= 1 << 20
        assert abs(stats["last_fold_us"] - time.time() * 1e6) < 60e6


# ---- methods -----------------------------------------------------------------------------------------------------


def test_save_takes_any_mapping_in_one_transaction(npk):
    commits = npk.stats()["commits"]
    npk.save(collections.UserDict({"a": [1], "b": (2.5, 3.5), "c": range(3)}))
    npk.save(types.MappingProxyType({"d": np.arange(2)}))
    assert npk.stats()["commits"] == commits + 2
    with npk.snapshot() as snapshot:
        npk.save({name + "2": lazy for name, lazy in snapshot.items()})
    npk.save(npk.load())
    assert npk.stats()["commits"] == commits + 4
    assert {name: array.tolist() for name, array in npk.items()} == {
        "a": [1], "a2": [1], "b": [2.5, 3.5], "b2": [2.5, 3.5], "c": [0, 1, 2], "c2": [0, 1, 2], "d": [0, 1], "d2": [0, 1]}
    npk.save({})
    assert npk.stats()["commits"] == commits + 4


def test_save_replaces_the_whole_array_and_keeps_its_attributes(npk):
    npk.save({"a": np.arange(6.0).reshape(3, 2)})
    npk.array_attrs("a")["unit"] = "m"
    npk.save({"a": np.array(["x", "yz"])})
    assert npk.load("a").tolist() == ["x", "yz"] and npk.get_dtype("a") == np.dtype("U2") and npk.get_shape("a") == (2,)
    assert dict(npk.array_attrs("a")) == {"unit": "m"}


def test_loaded_arrays_are_private(npk, rng):
    for count in (10, 1 << 20):  # the larger goes through recycled memory
        a = rng.integers(0, 100, count)
        npk.save({"a": a})
        first, second = npk.load("a"), npk["a"]
        assert first.flags.c_contiguous and first.flags.writeable and not np.shares_memory(first, second)
        first[:] = -1
        part = second[5:8]
        del second
        gc.collect()
        for _ in range(3):
            npk.load("a")[:] = -2
        assert part.tolist() == a[5:8].tolist() and np.array_equal(npk.load("a"), a)


def test_mapped_loads(npk, path, rng):
    a = rng.random((5000, 8))
    npk.save({"a": a, "e": np.zeros((0, 3)), "z": 5.0})
    npk.update("a")
    for mode in (True, "r"):
        view = npk.load("a", mmap_mode=mode)
        assert type(view) is np.ndarray and np.array_equal(view, a) and view.base.is_mapped  # without a copy
        with pytest.raises(ValueError):
            view[0] = 0
    npk.replace({"a": a[0]}, 3)
    a[3] = a[0]
    view = npk.load("a", mmap_mode="r")
    assert np.array_equal(view, a) and view.base.is_mapped and not view.flags.writeable  # the pending row patched in
    npk.drop("a", [100, 200])
    a = np.delete(a, [100, 200], axis=0)
    view = npk.load("a", mmap_mode="r")
    assert np.array_equal(view, a) and not view.base.is_mapped and not view.flags.writeable  # in several pieces
    for fold in (False, True):
        if fold:
            npk.update("a")
        view = npk.load("a", mmap_mode="c")
        assert view.flags.writeable and np.array_equal(view, a)
        view[:] = -1
        assert np.array_equal(npk.load("a"), a) and np.array_equal(npk.load("a", mmap_mode="r"), a)
        del view
    npk.close()
    npk.open()
    assert np.array_equal(npk.load("a"), a) and npk.verify() == []
    for mode in (True, "r", "c"):
        assert npk.load("e", mmap_mode=mode).shape == (0, 3) and npk.load("z", mmap_mode=mode) == 5.0


@pytest.mark.parametrize("options,kind", [({}, "private"), ({"mmap_mode": False}, "private"), ({"mmap_mode": True}, "frozen"),
                                          ({"mmap_mode": "r"}, "frozen"), ({"mmap_mode": "c"}, "copy on write"),
                                          ({"lazy": True}, "lazy"), ({"lazy": True, "mmap_mode": False}, "lazy")])
def test_loading_everything_gives_a_mapping_of_one_moment(npk, monkeypatch, options, kind):
    npk.save({"b": [1, 2], "a": [3]})
    loads = []
    for function in ("load_copy", "load_mapped"):
        real = getattr(numpack._mappings, function)
        monkeypatch.setattr(numpack._mappings, function, lambda *args, real=real: loads.append(1) or real(*args))
    everything = npk.load(**options)
    npk.save({"a": [9], "c": [3]})
    npk.drop("b")
    assert isinstance(everything, collections.abc.Mapping) and not isinstance(everything, collections.abc.MutableMapping)
    assert list(everything) == ["a", "b"] == list(everything.keys()) and len(everything) == 2
    assert "b" in everything and "c" not in everything and 5 not in everything and not loads
    assert [(name, array[:].tolist()) for name, array in everything.items()] == [("a", [3]), ("b", [1, 2])]
    assert [array[:].tolist() for array in everything.values()] == [[3], [1, 2]]
    assert len(loads) == (0 if kind == "lazy" else 4)
    array = everything["b"]
    assert isinstance(array, LazyArray if kind == "lazy" else np.ndarray)
    if kind != "lazy":
        assert array.flags.writeable == (kind != "frozen")
    with pytest.raises(KeyError):
        everything["c"]
    with pytest.raises(TypeError):
        everything["c"] = 1
    assert "a" in repr(everything)


@pytest.mark.parametrize("options", [{"mmap_mode": mode} for mode in ("w", "r+", "w+", "copy", 1, 0, "", [1], b"r")]
                         + [{"lazy": True, "mmap_mode": mode} for mode in (True, "r", "c")])
def test_other_ways_to_load_are_value_errors(npk, options):
    npk.save({"a": [1]})
    for name in ("a", None, "missing"):
        with pytest.raises(ValueError):
            npk.load(name, **options)


TAIL = (2, 3)


@pytest.mark.parametrize("index", [[0, 4, 2], slice(1, 4), [True, False, True, False, True], np.array([-1, 0, 1]), range(3)])
def test_replace_broadcasts_one_row_or_a_scalar_and_nothing_else(npk, index):
    start = np.arange(30).reshape((5,) + TAIL)
    rows = np.array(index) if isinstance(index, (list, range)) else index
    for value in (np.full((3,) + TAIL, 7) + np.arange(3)[:, None, None], np.full((1,) + TAIL, 8), np.arange(6).reshape(TAIL),
                  np.array(9), 9, np.arange(6).reshape((1,) + TAIL).tolist()):
        npk.save({"a": start})
        npk.replace({"a": value}, index)
        expected = start.copy()
        expected[rows] = value
        assert np.array_equal(npk.load("a"), expected)
    npk.save({"a": start})
    lsn = npk.lsn
    for shape in ((2,) + TAIL, (4,) + TAIL, (3,), (1, 3), (2, 1), (3, 1, 1), (1, 1, 1), (3, 2, 1), (1, 3, 2, 3), (0,), (0,) + TAIL,
                  (3, 3, 2), (1,)):
        with pytest.raises(ValueError) as caught:
            npk.replace({"a": np.zeros(shape, int)}, index)
        assert caught.value.kind == "shape_mismatch" and caught.value.array == "a" and "'a'" in str(caught.value)
    assert npk.lsn == lsn and np.array_equal(npk.load("a"), start)


def test_replace_of_no_rows(npk):
    npk.save({"a": np.arange(6).reshape(3, 2)})
    lsn = npk.lsn
    for value in (5, [1, 2], [[1, 2]], np.empty((0, 2), int)):
        npk.replace({"a": value}, [])
    with pytest.raises(ValueError):
        npk.replace({"a": np.zeros((2, 2), int)}, [])
    assert npk.lsn == lsn


def test_the_last_of_duplicates_wins_whatever_the_kind_of_index(npk):
    for index in ([1, 0, 1, -2], np.array([1, 0, 1, -2]), (1, 0, 1, -2)):
        npk.save({"a": np.zeros(3, int)})
        npk.replace({"a": [1, 2, 3, 4]}, index)
        assert npk.load("a").tolist() == [2, 4, 0]


def test_dropped_arrays_leave_nothing(npk, path):
    def size():
        return sum(file.stat().st_size for file in (path / "columns").rglob("*") if file.is_file())

    npk.save({"a": np.arange(1 << 20), "b": [1]})
    npk.array_attrs("a")["x"] = 1
    npk.compact()
    assert size() > 8 << 20
    npk.drop("a", None)  # dangerous, and documented: the whole array
    assert npk.get_member_list() == ["b"]
    with pytest.raises(KeyError):
        dict(npk.array_attrs("a"))
    npk.append({"a": [7]})  # creates: an array of its own, without what belonged to the old one
    assert dict(npk.array_attrs("a")) == {} and npk.load("a").tolist() == [7]
    for value in range(3):  # two checkpoints are kept, and what they refer to
        npk.append({"b": [value]})
        npk.compact()
        npk.checkpoint()
    assert size() < 1 << 20 and npk.verify() == []


@pytest.mark.parametrize("names", [["a", "b"], ("a", "b"), {"a", "b"}, ["a", "b", "a", "unknown"]])
def test_drop_of_several_is_one_transaction(npk, names):
    npk.save({"a": np.arange(5), "b": np.arange(4), "c": [1]})
    commits = npk.stats()["commits"]
    npk.drop(names, [0, -1])
    assert npk.load("a").tolist() == [1, 2, 3] and npk.load("b").tolist() == [1, 2]
    npk.drop(names)
    assert npk.get_member_list() == ["c"] and npk.stats()["commits"] == commits + 2
    lsn = npk.lsn
    for nothing in ([], "unknown", ["unknown"], ["unknown", "unknown"]):
        npk.drop(nothing)
    npk.drop("c", [])
    npk.drop("c", [5, -9, 2 ** 70])
    npk.drop("unknown", [0])
    npk.drop("c", range(2, 2 ** 80))
    assert npk.lsn == lsn


@pytest.mark.parametrize("names", [5, None, b"a", {"a": 1}.keys(), np.array(["a"]), [5], [["a"]], [None], [b"a"]])
def test_drop_of_what_is_no_name(npk, names):
    npk.save({"a": [1]})
    with pytest.raises(TypeError) as caught:
        npk.drop(names)
    assert caught.value.kind == "invalid_argument" and npk.get_member_list() == ["a"]


def test_getitem_gives_private_rows_in_the_order_asked(npk):
    a = np.arange(20).reshape(10, 2)
    npk.save({"a": a})
    for index in (3, -1, np.int8(2), np.array(4)):
        result = npk.getitem("a", index)
        assert result.shape == (1, 2) and result[0].tolist() == a[index].tolist()
    for index in ([3, 1, 3], (5, 5), np.array([9, 0]), slice(None, None, -3), slice(2, 4), range(4, 0, -2), [True] + [False] * 9,
                  np.nonzero(a[:, 0] > 10), []):
        rows = np.array(index, int) if isinstance(index, (range, tuple)) and not isinstance(index[0], np.ndarray) else index
        for result in (npk.getitem("a", index), npk.getitem(index, "a"), npk.getitem(array_name="a", indexes=index)):
            assert np.array_equal(result, a[:0] if isinstance(index, list) and not index else a[rows])
            assert result.flags.writeable and result.flags.c_contiguous
            result[...] = -1
    assert np.array_equal(npk.load("a"), a)


def test_modify_time_is_that_of_the_last_change(npk):
    assert npk.get_modify_time("a") is None
    npk.save({"a": np.arange(5), "b": [1]})
    other = npk.get_modify_time("b")
    last = 0
    for change in (lambda: None, lambda: npk.append({"a": [1]}), lambda: npk.replace({"a": 1}, 0), lambda: npk.drop("a", 0),
                   lambda: npk.save({"a": [1, 2]})):
        time.sleep(0.002)
        change()
        now = npk.get_modify_time("a")
        assert type(now) is int and now > last and abs(now - time.time() * 1e6) < 60e6
        last = now
    npk.load("a")
    npk.update("a")
    assert npk.get_modify_time("a") == last and npk.get_modify_time("b") == other
    npk.close()
    npk.open()
    assert npk.get_modify_time("a") == last
    npk.drop("a")
    assert npk.get_modify_time("a") is None


def test_names_are_sorted_by_code_point(npk):
    names = ["b", "a", "B", "\u00e4", "z", "\U0001f600", "\uffee", "a\u0308", "10", "9"]
    npk.save({name: [1] for name in names})
    assert npk.get_member_list() == sorted(names) == list(npk) == list(npk.keys())


def test_views_of_the_mapping_are_of_one_moment(npk):
    npk.save({"a": [1], "b": [2]})
    keys, values, items = npk.keys(), npk.values(), npk.items()
    assert isinstance(keys, collections.abc.KeysView) and isinstance(values, collections.abc.ValuesView)
    assert isinstance(items, collections.abc.ItemsView)
    npk.save({"a": [9], "c": [3]})
    npk.drop("b")
    assert list(keys) == ["a", "b"] and keys & {"b", "c"} == {"b"} and "b" in keys and len(keys) == 2
    assert [value.tolist() for value in values] == [[1], [2]]
    assert [(name, value.tolist()) for name, value in items] == [("a", [1]), ("b", [2])]
    assert dict(npk.items()).keys() == {"a", "c"}
    before = iter(npk)
    npk.save({"d": [1]})
    npk.drop("c")
    assert list(before) == ["a", "c"]


def test_the_store_is_no_mutable_mapping(npk):
    assert not isinstance(npk, collections.abc.MutableMapping)
    for method in ("pop", "popitem", "setdefault", "clear"):
        assert not hasattr(npk, method)
    for wrong in ({"a": [1]}, collections.UserDict(a=[1])):
        with pytest.raises(TypeError, match=r"save\(\)"):
            npk.update(wrong)
    for wrong in (5, None, [("a", [1])], b"a"):
        with pytest.raises(TypeError):
            npk.update(wrong)
    assert len(npk) == 0


def test_get_has_a_default_and_items_are_private(npk):
    npk["a"] = np.arange(3)
    assert npk.get("b") is None and npk.get("b", 5) == 5 and npk.get("a", 5).tolist() == [0, 1, 2]
    npk["a"][0] = 9
    assert npk["a"].tolist() == [0, 1, 2] and npk["a"].flags.owndata
    npk["a"] = [[1.5]]
    assert npk["a"].tolist() == [[1.5]]


def test_a_handle_is_live_and_refuses_what_is_gone(npk):
    npk.save({"a": np.arange(6).reshape(3, 2)})
    handle = npk.array("a")
    assert handle.name == "a" and repr(handle) == "ArrayHandle('a')"
    npk.save({"a": np.arange(3.0)})
    assert handle.shape == (3,) and handle.dtype == np.float64 and handle[[2, 0]].tolist() == [2.0, 0.0]
    handle[[0, 0]] = [5.0, 6.0]
    handle[1:] = 7
    handle.append(np.array([1.5]))
    with pytest.raises(TypeError):
        handle.append(np.array([1]))
    handle.append(np.array([1 / 3], np.longdouble), casting="same_kind")
    assert handle[:4].tolist() == [6.0, 7.0, 7.0, 1.5] and np.asarray(handle).shape == (5,) and len(list(handle)) == 5
    with pytest.raises(ValueError):
        handle.__array__(copy=False)
    handle.drop([0, 4])
    assert len(handle) == 3
    npk.rename("a", "b")
    lsn = npk.lsn
    for call in (lambda: handle[0], lambda: handle.__setitem__(0, 1.0), lambda: handle.append([1.0]), lambda: handle.shape,
                 lambda: handle.dtype, lambda: len(handle), lambda: dict(handle.attrs), lambda: handle.attrs.update(x=1),
                 lambda: np.asarray(handle)):
        with pytest.raises(KeyError) as caught:
            call()
        assert caught.value.kind == "not_found" and "'a'" in str(caught.value).replace('"', "'")
    handle.drop()
    assert npk.lsn == lsn and npk.get_member_list() == ["b"]


def test_streams_give_private_batches_of_one_moment(npk):
    a = np.arange(14).reshape(7, 2)
    npk.save({"a": a})
    for size in (None, 1, 2, 3, 7, 100, np.int8(3)):
        batches = list(npk.stream_load("a", size))
        step = 1 if size is None else int(size)
        assert [len(batch) for batch in batches] == [min(step, 7 - first) for first in range(0, 7, step)]
        assert np.array_equal(np.concatenate(batches), a)
        batches[0][:] = -1
    stream = npk.stream_load("a", 4)
    assert next(stream).shape == (4, 2)
    npk.save({"a": np.zeros((1, 2), int)})
    assert next(stream).tolist() == a[4:].tolist()
    with pytest.raises(StopIteration):
        next(stream)
    for bad in (0, -1, True, 2 ** 70):
        with pytest.raises(ValueError):
            npk.stream_load("a", bad)
    for bad in (1.0, "1", [1], np.True_):
        with pytest.raises(TypeError):
            npk.stream_load("a", bad)


def test_update_folds_one_array_and_compact_all(npk):
    npk.save({"a": np.arange(10), "b": np.arange(10)})
    npk.append({"a": [1], "b": [1]})
    assert all(npk.stats()["pending_rows"].values())
    npk.update("a")
    pending = npk.stats()["pending_rows"]
    assert pending["a"] == 0 and pending["b"] > 0
    npk.compact()
    stats = npk.stats()
    assert stats["pending_rows"] == {"a": 0, "b": 0} and stats["pending_size"] == 0 == stats["pending_row_count"]


def test_a_checkpoint_bounds_recovery_at_once(path, rng):
    with NumPack(path, background=False) as npk:
        npk.save({"a": rng.random(1000)})
        before = npk.stats()
        assert before["log_size"] >= 8000
        npk.checkpoint()
        stats = npk.stats()
        assert stats["checkpoints"] == before["checkpoints"] + 1 and stats["log_size"] < 1000
        assert stats["checkpoint_lsn"] >= before["position"][1] and stats["folds"] == 0 and stats["pending_rows"] == {"a": 1000}
        with npk.transaction():
            npk.append({"a": [1.5]})
            npk.checkpoint()  # after the commit
            npk.compact()
            assert npk.stats()["checkpoints"] == stats["checkpoints"]
        assert npk.stats()["checkpoints"] > stats["checkpoints"] and npk.stats()["pending_rows"] == {"a": 0}


def test_stats_tell_about_log_syncs_and_space(path, rng):
    started = time.time() * 1e6
    with NumPack(path, sync="commit", background=False) as npk:
        new = npk.stats()
        npk.save({"a": rng.random(1000)})
        stats = npk.get_io_stats()
        assert stats["commits"] == new["commits"] + 1 and stats["syncs"] > new["syncs"] and stats["array_count"] == 1
        assert stats["log_size"] >= new["log_size"] + 8000 and stats["bytes_logged"] >= new["bytes_logged"] + 8000
        assert stats["pending_rows"] == {"a": 1000} and stats["pending_size"] >= 8000 and stats["position"] == npk.lsn
        assert stats["log_file_size"] >= stats["log_size"] and stats["log_segment_count"] >= 1 and stats["folds"] == 0
        assert stats["durable_lsn"] == npk.lsn[1]
        npk.compact()
        npk.checkpoint()
        stats = npk.stats()
        assert stats["folds"] >= 1 and stats["bytes_folded"] >= 8000 and stats["checkpoints"] == new["checkpoints"] + 1
        assert started <= stats["last_fold_us"] <= stats["last_checkpoint_us"] <= time.time() * 1e6
        assert stats["log_size"] < 8000 and stats["checkpoint_lsn"] > 0 and stats["column_file_size"] >= 8000
        assert stats["column_file_count"] == 1 and stats["dead_file_count"] == 0 == stats["pin_lsn"]
        with npk.snapshot():  # a reader holds the space of what is dropped
            npk.drop("a")
            npk.compact()
            npk.checkpoint()
            held = npk.stats()
            assert held["dead_file_count"] == 1 and 0 < held["pin_lsn"] <= held["position"][1]
    with NumPack(path, sync="never", background=False) as npk:
        syncs = npk.stats()["syncs"]
        npk.save({"a": [1]})
        assert npk.stats()["syncs"] == syncs and npk.stats()["durable_lsn"] < npk.lsn[1]
        npk.flush()
        assert npk.stats()["syncs"] > syncs and npk.stats()["durable_lsn"] == npk.lsn[1]
        keys = set(npk.stats())
    assert set(NumPack(path / "nothing").stats()) == keys


def test_metadata_is_json(npk):
    npk.save({"f": np.zeros((3, 2), "f4"), "b": np.zeros(2, "?"), "u": np.zeros(1, "u1"), "c": np.zeros((1, 1, 1), "D"), "z": 1,
              "s": np.zeros(1, [("x", "i4")])})
    meta = json.loads(json.dumps(npk.get_metadata()))
    assert set(meta) == {"arrays", "base_dir", "total_arrays"} and meta["total_arrays"] == 6
    assert meta["base_dir"] == str(npk.path)
    arrays = meta["arrays"]
    assert {name: (item["shape"], item["dtype"], item["descr"], item["size_bytes"]) for name, item in arrays.items()} == {
        "f": ([3, 2], "Float32", "<f4", 24), "b": ([2], "Bool", "|b1", 2), "u": ([1], "Uint8", "|u1", 1),
        "c": ([1, 1, 1], "Complex128", "<c16", 16), "z": ([], "Int64", "<i8", 8), "s": ([1], "Struct", "[('x', '<i4')]", 4)}
    assert all(item["last_modified"] == npk.get_modify_time(name) for name, item in arrays.items())


def test_clones_share_nothing_but_rows(npk):
    npk.save({"a": np.arange(6).reshape(3, 2)})
    npk.array_attrs("a")["x"] = 1
    npk.clone("a", "b")
    npk.append({"a": [[9, 9]]})
    npk.drop("b", 0)
    npk.replace({"b": 7}, 0)
    assert npk.load("a").tolist() == [[0, 1], [2, 3], [4, 5], [9, 9]] and npk.load("b").tolist() == [[7, 7], [4, 5]]
    npk.drop("a")
    npk.compact()
    npk.checkpoint()
    assert npk.load("b").tolist() == [[7, 7], [4, 5]] and npk.verify() == []
    for call in (lambda: npk.clone("b", "b"), lambda: npk.rename("b", "b")):
        with pytest.raises(ValueError) as caught:
            call()
        assert caught.value.kind == "exists" and caught.value.array == "b"


def test_reset_is_one_transaction(npk):
    npk.save({"a": [1], "b": [2]})
    npk.attrs["x"] = 1
    npk.array_attrs("a")["y"] = 1
    commits = npk.stats()["commits"]
    npk.reset()
    assert len(npk) == 0 and dict(npk.attrs) == {} and npk.stats()["commits"] == commits + 1
    npk.save({"a": [1]})
    assert dict(npk.array_attrs("a")) == {}


def test_every_method_is_one_transaction(npk):
    npk.save({"a": np.arange(5), "b": np.arange(5)})
    commits = npk.stats()["commits"]
    for count, change in enumerate((
            lambda: npk.save({"c": [1], "d": [2], "e": [3]}), lambda: npk.append({"a": [1], "b": [2], "new": [3]}),
            lambda: npk.replace({"a": 1, "b": 2}, [0, 2]), lambda: npk.drop(["a", "b"], 0), lambda: npk.drop(["c", "d"]),
            lambda: npk.clone("a", "f"), lambda: npk.rename("f", "g"), lambda: npk.__delitem__("g"),
            lambda: npk.attrs.update(x=1, y=2), npk.reset), 1):
        change()
        assert npk.stats()["commits"] == commits + count


def test_another_process_sees_commits_at_once(npk, path):
    script = ("import numpack, sys\nn = numpack.NumPack(sys.argv[1], mode='r')\n"
              "for line in sys.stdin:\n    print(n['a'].tolist(), flush=True)\n")
    npk.save({"a": [0]})
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        for value in range(1, 5):
            npk.append({"a": [value]})
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline().strip() == str(list(range(value + 1)))
    finally:
        child.communicate()


def test_replaced_rows_are_what_numpy_assigns_one_by_one(tmp_path):
    rng = np.random.default_rng(7)
    rows = rng.random((150_000, 3))
    with numpack.NumPack(tmp_path / "s", sync="never") as npk:
        npk.save({"a": rows})
        for step in range(30):
            if step % 10 == 5:
                gone = rng.integers(rows.shape[0], size=5)
                npk.drop("a", gone)
                rows = np.delete(rows, gone, axis=0)
            count = rows.shape[0]
            index = rng.integers(-count, count, size=rng.integers(1, 3000))
            if step % 3 == 0:
                index = np.concatenate([index, index[::-2] % count, np.arange(65_500, 65_600)])  # both signs of one row, a block's border
            if step % 4 == 0:
                index = np.sort(index)
            values = rng.random((index.shape[0], 3))
            npk.replace({"a": values}, index if step % 2 else index.tolist())
            for at, row in enumerate(index):
                rows[row] = values[at]
        np.testing.assert_array_equal(npk.load("a"), rows)
    with numpack.NumPack(tmp_path / "s") as npk:
        np.testing.assert_array_equal(npk.load("a"), rows)
