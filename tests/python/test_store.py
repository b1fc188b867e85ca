"""The store: opening rules, modes, methods outside transactions."""

import gc
import os
import pickle
import shutil
import subprocess
import sys
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
