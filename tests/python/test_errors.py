"""Every line of bad input: a typed error, nothing written, the store still usable."""

import errno
import os
import pickle
import subprocess
import sys
import tempfile

import numpy as np
import pytest

import numpack
from numpack import NumPack, NumPackError
from numpack._errors import _CLASSES, from_core

BUILTINS = {
    "not_found": (KeyError,), "out_of_range": (IndexError, ValueError), "shape_mismatch": (ValueError,),
    "dtype_mismatch": (ValueError, TypeError), "wrong_use": (RuntimeError,), "corrupt": (ValueError,),
    "io_error": (OSError,), "no_space": (OSError,), "busy": (TimeoutError,), "other_host": (OSError,),
    "read_only": (PermissionError,), "exists": (ValueError,), "invalid_argument": (ValueError,),
    "no_memory": (MemoryError,), "poisoned": (OSError,), "format_version": (NumPackError,),
}


@pytest.mark.parametrize("kind", _CLASSES)
def test_the_table_of_kinds(kind):
    error = from_core(kind, "what: why", errno.ENOSPC, "a", 5, 7)
    assert isinstance(error, NumPackError) and error.kind == kind and str(error) == "what: why"
    for builtin in BUILTINS.get(kind, ()):
        assert isinstance(error, builtin)
    assert (error.array, error.row, error.lsn, error.errno) == ("a", 5, 7, errno.ENOSPC)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error) and copy.kind == kind
    assert (copy.array, copy.row, copy.lsn, copy.errno) == ("a", 5, 7, errno.ENOSPC)
    blank = from_core(kind, "x", 0, "", -1, 0)
    assert (blank.array, blank.row, blank.lsn) == (None, None, None)


def test_findings_survive_pickling():
    error = numpack.CorruptError("x", array="a", findings=[{"file": "f"}])
    assert pickle.loads(pickle.dumps(error)).findings == [{"file": "f"}]


def test_messages_of_key_errors_are_plain(npk):
    with pytest.raises(KeyError) as caught:
        npk.load("missing")
    assert not str(caught.value).startswith(("'", '"')) and "missing" in str(caught.value)
    assert caught.value.array == "missing" and caught.value.kind == "not_found"
    with pytest.raises(KeyError):
        npk.load("missing", lazy=True)


def test_a_path_that_is_a_file(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"precious")
    for mode in ("a", "w", "x"):
        npk = NumPack(file, mode=mode)
        for call in (npk.open, lambda: npk.save({"a": [1]})):
            with pytest.raises(FileExistsError) as caught:
                call()
            assert isinstance(caught.value, NumPackError) and caught.value.kind == "exists"
    for mode in ("r", "r+"):
        with pytest.raises((FileExistsError, FileNotFoundError)):
            NumPack(file, mode=mode).open()
    assert file.read_bytes() == b"precious"


def test_a_path_below_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(OSError) as caught:
        NumPack(tmp_path / "file" / "store").open()
    assert isinstance(caught.value, NumPackError)


def as_nobody(action):
    """Run action in a child that may not write everywhere; what it returns comes back as text."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            text = action()
        except BaseException as error:  # the parent shows it
            text = f"failed: {error!r}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


def kind_of(call):
    try:
        call()
    except NumPackError as error:
        builtin = "PermissionError" if isinstance(error, PermissionError) else type(error).__name__
        return f"{error.kind} {builtin}"
    return "no error"


def test_a_path_that_is_not_writable():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        locked = os.path.join(folder, "locked")
        os.mkdir(locked, 0o555)
        with NumPack(os.path.join(folder, "store")) as npk:
            npk.save({"a": np.arange(3)})
        for name in (os.path.join(locked, "store"), os.path.join(folder, "store")):
            assert as_nobody(lambda: kind_of(NumPack(name).open)) == "read_only PermissionError"
        assert os.listdir(locked) == []
        with NumPack(os.path.join(folder, "store")) as npk:
            assert npk.load("a").tolist() == [0, 1, 2]


def test_a_read_only_mount():
    if not os.path.isdir("/proc/sys"):
        pytest.skip("no procfs")
    with pytest.raises(OSError) as caught:
        NumPack("/proc/sys/numpack-store").open()
    assert isinstance(caught.value, NumPackError)


FULL = """
import errno, resource, signal, sys
import numpy as np
import numpack
npk = numpack.NumPack(sys.argv[1])
npk.save({"kept": np.arange(5)})
limit = 24 << 20                                     # a file may not grow beyond it: the kernel's other full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)        # would kill, if it were raised
big = np.zeros(limit + 1, np.uint8)
for action in (lambda: npk.save({"big": big}), lambda: npk.save({"kept": np.arange(3), "big": big})):
    try:
        action()
    except numpack.NumPackError as error:
        assert isinstance(error, OSError) and error.kind == "no_space" and error.errno == errno.EFBIG, error
        assert error.array == "big", error.array
    else:
        raise SystemExit("no error")
assert npk.get_member_list() == ["kept"] and npk.load("kept").tolist() == [0, 1, 2, 3, 4]
npk.append({"kept": [5]})                            # still usable
npk.close()
print("fine", end="")
"""


def test_a_full_disk(path):
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "fine"), done.stderr
    with NumPack(path) as npk:
        assert npk.load("kept").tolist() == [0, 1, 2, 3, 4, 5] and npk.verify() == []
        assert not [name for name in os.listdir(path / "columns") if name.endswith(".tmp")]


def test_a_store_of_a_newer_format(path):
    with NumPack(path) as npk:
        npk.save({"a": [1]})
    before = (path / "FORMAT").read_bytes()
    (path / "FORMAT").write_bytes(before[:8] + b"\x02" + before[9:])
    for mode in ("r", "r+", "a", "w"):
        with pytest.raises(numpack.FormatError, match="version 2") as caught:
            NumPack(path, mode=mode).open()
        assert caught.value.kind == "format_version"
    (path / "FORMAT").write_bytes(before)
    with NumPack(path) as npk:
        assert npk.load("a").tolist() == [1]


def test_a_store_on_another_host():
    error = from_core("other_host", "open store: it lies on a network file system", 0, "", -1, 0)
    assert isinstance(error, OSError) and error.kind == "other_host"


def test_a_directory_that_is_not_a_store(path):
    path.mkdir()
    (path / "notes.txt").write_text("mine")
    for mode in ("r", "r+"):
        with pytest.raises((FileNotFoundError, numpack.FormatError)):
            NumPack(path, mode=mode).open()
    assert (path / "notes.txt").read_text() == "mine"
    (path / "FORMAT").write_bytes(b"something else entirely, of another program\n" * 3)
    for mode in ("r", "r+", "a", "w"):
        with pytest.raises(NumPackError) as caught:
            NumPack(path, mode=mode).open()
        assert caught.value.kind in ("format_version", "corrupt")
    assert sorted(os.listdir(path))[0] == "FORMAT" and (path / "notes.txt").read_text() == "mine"


def test_a_directory_of_the_rust_package(path):
    path.mkdir()
    (path / "metadata.npkm").write_bytes(b"\x00" * 16)
    (path / "data_a.npkd").write_bytes(b"precious")
    for options in ({}, {"mode": "r"}, {"mode": "r+"}, {"mode": "w"}, {"mode": "x"}, {"drop_if_exists": True}):
        npk = NumPack(path, **options)
        for call in (npk.open, npk.get_member_list, lambda: npk.save({"a": [1]})):
            with pytest.raises(NumPackError, match="python -m numpack.migrate") as caught:
                call()
            assert caught.value.kind == "format_version"
    assert sorted(os.listdir(path)) == ["data_a.npkd", "metadata.npkm"]


def test_a_busy_store_names_the_holder(npk, path):
    import subprocess
    import sys
    script = (f"import numpack, sys; n = numpack.NumPack({str(path)!r})\n"
              "with n.transaction():\n    n.save({'a': [1]}); print('held', flush=True); sys.stdin.read()\n")
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(TimeoutError, match=str(child.pid)) as caught:
            npk.save({"b": [1]})
        assert caught.value.kind == "busy"
        assert npk.get_member_list() == []
    finally:
        child.communicate()
    npk.save({"b": [1]})
    assert npk.get_member_list() == ["a", "b"]


def test_wrong_options(path):
    for options in ({"mode": "q"}, {"mode": 5}, {"mode": None}, {"sync": "always"}, {"sync": 1}, {"sync": None},
                    {"busy_timeout": -1}, {"busy_timeout": float("nan")}, {"busy_timeout": "x"}, {"sync_interval_ms": 0},
                    {"sync_interval_ms": -5}, {"sync_interval_ms": 1.5}, {"segment_size": -1}, {"sync_interval_ms": True}):
        with pytest.raises(ValueError) as caught:
            NumPack(path, **options)
        assert isinstance(caught.value, NumPackError)
    for bad in (5, None, b"x", ["x"]):
        with pytest.raises(TypeError):
            NumPack(bad)
    for bad in ("", "a\0b"):
        with pytest.raises(ValueError):
            NumPack(bad)
    with pytest.raises(TypeError):
        NumPack(path, nonsense=1)
    assert not path.exists()


BAD_ARRAYS = [None, 5, "a", [("a", [1])], np.arange(3), [1], {1, 2}]


@pytest.mark.parametrize("arrays", BAD_ARRAYS, ids=lambda value: type(value).__name__)
def test_arrays_must_be_a_dictionary(npk, arrays):
    for call in (npk.save, npk.append, lambda value: npk.replace(value, 0)):
        with pytest.raises(ValueError, match="arrays must be a dictionary"):
            call(arrays)


def test_nothing_is_written_and_the_transaction_stays_usable(npk):
    npk.save({"a": np.arange(6.0).reshape(3, 2), "z": 1.0})
    lsn = npk.lsn
    bad = [
        lambda: npk.save({"ok": [1], "o": [object()]}), lambda: npk.save({"ok": [1], "": [1]}),
        lambda: npk.append({"ok": [[1.0]], "a": [[1.0]]}), lambda: npk.append({"a": [1.0, 2.0]}),
        lambda: npk.append({"a": np.array([["x", "y"]])}), lambda: npk.replace({"a": [[1, 1]] * 4}, [0, 1]),
        lambda: npk.replace({"a": 1}, 9), lambda: npk.replace({"missing": 1}, 0), lambda: npk.replace({"z": 1}, 0),
        lambda: npk.drop("a", "x"), lambda: npk.drop("a", [True]), lambda: npk.getitem("a", 9), lambda: npk.getitem("z", 0),
        lambda: npk.rename("missing", "b"), lambda: npk.clone("a", "z"), lambda: npk.attrs.update(a=object()),
        lambda: npk.load("missing"), lambda: npk.stream_load("a", 0),
    ]
    for call in bad:
        with pytest.raises(NumPackError) as caught:
            call()
        assert isinstance(caught.value.kind, str) and str(caught.value)
    assert npk.lsn == lsn and npk.get_shape() == {"a": (3, 2), "z": ()}
    with npk.transaction():
        npk.append({"a": [[6, 7]]})
        for call in bad:
            with pytest.raises(NumPackError):
                call()
        npk.append({"a": [[8, 9]]})
    assert npk.load("a").ravel().tolist() == list(range(6)) + [6, 7, 8, 9] and npk.get_member_list() == ["a", "z"]


def test_verify_tells_its_progress_and_ends_when_told_to(path):
    with NumPack(path) as npk:
        npk.save({"a": np.arange(200000.0).reshape(-1, 10)})
        npk.compact()
        seen = []
        assert npk.verify(lambda done, total: seen.append((done, total))) == []
        done = [d for d, _ in seen]
        assert done == sorted(done) and seen[-1][0] == seen[-1][1] > 1_600_000 and all(d <= t for d, t in seen)

        def enough(done, total):
            raise LookupError("enough")

        with pytest.raises(LookupError, match="enough"):
            npk.verify(enough)
        assert npk.verify() == []


def test_damage_names_array_and_rows(path):
    with NumPack(path) as npk:
        npk.save({"a": np.arange(200000.0).reshape(-1, 10)})
        npk.compact()
        npk.checkpoint()
        assert npk.verify() == []
    files = sorted((path / "columns").glob("*.npy"))
    assert files
    with open(files[0], "r+b") as file:
        file.seek(files[0].stat().st_size - 80 * 100)
        file.write(b"\xff" * 8)
    with NumPack(path) as npk:
        with pytest.raises(ValueError) as caught:
            npk.verify()
        error = caught.value
        assert error.kind == "corrupt" and error.array == "a" and "'a'" in str(error) and "row" in str(error)
        assert error.findings and error.findings[0]["array"] == "a"
        assert error.findings[0]["first_row"] <= 19900 < error.findings[0]["first_row"] + error.findings[0]["row_count"]
