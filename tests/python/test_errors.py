"""Every line of bad input: a typed error, nothing written, the store still usable."""

import concurrent.futures
import copy
import ctypes
import errno
import multiprocessing
import os
import pathlib
import pickle
import re
import subprocess
import sys
import tempfile

import numpy as np
import pytest

import numpack
from numpack import NumPack, NumPackError, _errors
from numpack._errors import _CLASSES, from_core

BUILTINS = {
    "not_found": (KeyError,), "out_of_range": (IndexError, ValueError), "shape_mismatch": (ValueError,),
    "dtype_mismatch": (ValueError, TypeError), "wrong_use": (RuntimeError,), "corrupt": (ValueError,),
    "io_error": (OSError,), "no_space": (OSError,), "busy": (TimeoutError,), "other_host": (OSError,),
    "read_only": (PermissionError,), "exists": (ValueError,), "invalid_argument": (ValueError,),
    "no_memory": (MemoryError,), "poisoned": (OSError,), "format_version": (NumPackError,),
    "interrupted": (InterruptedError,), "conflict": (RuntimeError,),
}


@pytest.mark.parametrize("kind", _CLASSES)
def test_the_table_of_kinds(kind):
    error = from_core(kind, "what: why", errno.ENOSPC, "a", 5, 7)
    assert isinstance(error, NumPackError) and error.kind == kind and str(error) == "what: why"
    for builtin in BUILTINS[kind]:
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
    newer = before[:8] + b"\x02" + before[9:]
    checksum = ctypes.CDLL("libxxhash.so.0").XXH3_64bits
    checksum.restype, checksum.argtypes = ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_size_t]
    assert checksum(before[:56], 56).to_bytes(8, "little") == before[56:]
    (path / "FORMAT").write_bytes(newer[:56] + checksum(newer[:56], 56).to_bytes(8, "little"))
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


# ---- the table of errors -----------------------------------------------------------------------------------------

CLASSES = sorted((getattr(numpack, name) for name in _errors.__all__), key=lambda cls: cls.__name__)


def test_every_status_of_the_core_has_a_class():
    header = pathlib.Path(__file__).parents[2] / "core" / "include" / "npk.h"
    kinds = re.findall(r'^    X\([A-Z_]+, "([a-z_]+)"', header.read_text(), re.M)
    assert kinds[0] == "ok" and len(kinds) > 15 and set(kinds[1:]) == set(_CLASSES) == set(BUILTINS)
    for kind, cls in _CLASSES.items():
        assert cls.kind == kind and cls in CLASSES
    assert type(from_core("never heard of", "x", 0, "", -1, 0)) is NumPackError


@pytest.mark.parametrize("kind", BUILTINS)
def test_every_kind_is_caught_as_its_builtin(kind):
    classes = [cls for cls in CLASSES if cls.kind == kind]
    assert classes
    for cls in classes:
        expected = BUILTINS[kind]
        if cls in (numpack.StoreNotFoundError, numpack.StoreExistsError):
            expected = (FileNotFoundError,) if kind == "not_found" else (FileExistsError,)
        for builtin in expected:
            try:
                raise cls("x", array="a")
            except builtin as error:
                assert isinstance(error, NumPackError)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_errors_are_plain_carry_their_attributes_and_pickle(cls):
    message = "append: array 'a': row 5: \u00e4"
    for details in ({}, {"array": "a"}, {"array": "a", "row": 5, "lsn": 7}, {"row": 0}, {"findings": [{"file": "f", "row": 1}]}):
        error = cls(message, **details)
        assert str(error) == message and error.args == (message,) and isinstance(cls.kind, str)
        copies = [copy.copy(error), copy.deepcopy(error)] + [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(2, 6)]
        for other in [error] + copies:
            assert type(other) is cls and str(other) == message and other.args == error.args and other.kind == cls.kind
            for name in ("array", "row", "lsn"):
                assert getattr(other, name) == details.get(name)
            if "findings" in details:
                assert other.findings == details["findings"]
            if isinstance(other, OSError):
                assert other.errno == error.errno and isinstance(other.errno, int) and other.errno > 0
    if issubclass(cls, OSError):
        given = cls(message, errno=errno.EDQUOT)
        assert given.errno == errno.EDQUOT == pickle.loads(pickle.dumps(given)).errno and str(given) == message


@pytest.mark.parametrize("cls,number", [
    ("StoreNotFoundError", errno.ENOENT), ("StoreExistsError", errno.EEXIST), ("StoreIOError", errno.EIO), ("NoSpaceError", errno.ENOSPC),
    ("BusyError", errno.ETIMEDOUT), ("ReadOnlyError", errno.EACCES), ("PoisonedError", errno.EIO), ("StoppedError", errno.EINTR),
    ("OtherHostError", errno.EREMOTE)])
def test_os_errors_have_a_number_even_when_it_was_not_the_system(cls, number):
    assert getattr(numpack, cls)("x").errno == number


def test_an_error_leaves_a_process_with_its_attributes(path):
    with NumPack(path) as npk:
        npk.save({"a": np.arange(3)})
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        error = pool.submit(fail_in_a_process, str(path)).exception(timeout=120)
    assert type(error) is numpack.OutOfRangeError and (error.array, error.row) == ("a", 9) and "row 9" in str(error)


def fail_in_a_process(path):
    with NumPack(path, mode="r") as npk:
        npk.getitem("a", 9)


def test_what_cannot_be_mixed_is_not():
    for cls in CLASSES:
        assert not issubclass(cls, (ImportError, AttributeError))
        assert issubclass(cls, NumPackError) and cls.__str__ is Exception.__str__


# ---- every refusal: typed, named, nothing written, still usable --------------------------------------------------

REFUSALS = {
    # call: kind, array
    "save object": (lambda npk: npk.save({"new": [1], "o": [object()]}), "dtype_mismatch", "o"),
    "save ragged": (lambda npk: npk.save({"new": [1], "r": [[1], [1, 2]]}), "shape_mismatch", "r"),
    "save masked": (lambda npk: npk.save({"new": [1], "m": np.ma.masked_array([1], [True])}), "dtype_mismatch", "m"),
    "save list": (lambda npk: npk.save([1]), "invalid_argument", None),
    "save pairs": (lambda npk: npk.save([("a", [1])]), "invalid_argument", None),
    "append 0-d": (lambda npk: npk.append({"b": [1], "z": [1.0]}), "shape_mismatch", "z"),
    "append new scalar": (lambda npk: npk.append({"b": [1], "new": 5}), "shape_mismatch", "new"),
    "append row": (lambda npk: npk.append({"b": [1], "a": [1.0, 2.0]}), "shape_mismatch", "a"),
    "append wide": (lambda npk: npk.append({"b": [1], "a": np.zeros((1, 3))}), "shape_mismatch", "a"),
    "append deep": (lambda npk: npk.append({"b": [1], "a": np.zeros((1, 1, 2))}), "shape_mismatch", "a"),
    "append kind": (lambda npk: npk.append({"b": [1], "a": np.zeros((1, 2), int)}), "dtype_mismatch", "a"),
    "append values": (lambda npk: npk.append({"a": [[1, 2]], "b": [1.5]}), "dtype_mismatch", "b"),
    "append huge": (lambda npk: npk.append({"a": [[1, 2]], "b": [2 ** 70]}), "dtype_mismatch", "b"),
    "append casting": (lambda npk: npk.append({"b": [1]}, casting="unsafe"), "invalid_argument", None),
    "replace missing": (lambda npk: npk.replace({"b": [1], "missing": [1]}, [0]), "not_found", "missing"),
    "replace rows": (lambda npk: npk.replace({"b": [1, 2], "a": np.zeros((3, 2))}, [0, 1]), "shape_mismatch", "a"),
    "replace range": (lambda npk: npk.replace({"b": 1, "a": 1.0}, 3), "out_of_range", "a"),
    "replace negative": (lambda npk: npk.replace({"b": 1, "a": 1.0}, -4), "out_of_range", "a"),
    "replace huge": (lambda npk: npk.replace({"b": 1}, 2 ** 70), "out_of_range", "b"),
    "replace huge list": (lambda npk: npk.replace({"b": 1}, [0, -2 ** 70]), "out_of_range", "b"),
    "replace mask": (lambda npk: npk.replace({"a": 1.0}, [True, False]), "out_of_range", "a"),
    "replace float": (lambda npk: npk.replace({"a": 1.0}, 1.0), "invalid_argument", "a"),
    "replace nan": (lambda npk: npk.replace({"a": 1.0}, np.array([np.nan])), "invalid_argument", "a"),
    "replace nested": (lambda npk: npk.replace({"a": 1.0}, [[0, 1]]), "invalid_argument", "a"),
    "replace text": (lambda npk: npk.replace({"a": 1.0}, "0"), "invalid_argument", "a"),
    "replace None": (lambda npk: npk.replace({"a": 1.0}, None), "invalid_argument", "a"),
    "replace bool": (lambda npk: npk.replace({"a": 1.0}, True), "invalid_argument", "a"),
    "replace 0-d": (lambda npk: npk.replace({"z": 1.0}, 0), "shape_mismatch", "z"),
    "drop 0-d": (lambda npk: npk.drop(["b", "z"], 0), "shape_mismatch", "z"),
    "drop mask": (lambda npk: npk.drop(["a", "b"], [True] * 3), "out_of_range", "b"),
    "drop text": (lambda npk: npk.drop("a", "x"), "invalid_argument", "a"),
    "drop float": (lambda npk: npk.drop("a", [0.0]), "invalid_argument", "a"),
    "drop number": (lambda npk: npk.drop(5), "invalid_argument", None),
    "delete missing": (lambda npk: npk.__delitem__("missing"), "not_found", "missing"),
    "rename missing": (lambda npk: npk.rename("missing", "new"), "not_found", "missing"),
    "rename to itself": (lambda npk: npk.rename("a", "a"), "exists", "a"),
    "rename taken": (lambda npk: npk.rename("a", "b"), "exists", "b"),
    "clone missing": (lambda npk: npk.clone("missing", "new"), "not_found", "missing"),
    "clone taken": (lambda npk: npk.clone("a", "b"), "exists", "b"),
    "getitem range": (lambda npk: npk.getitem("a", [0, 3]), "out_of_range", "a"),
    "getitem missing": (lambda npk: npk.getitem("missing", 0), "not_found", "missing"),
    "getitem 0-d": (lambda npk: npk.getitem("z", 0), "shape_mismatch", "z"),
    "load missing": (lambda npk: npk.load("missing"), "not_found", "missing"),
    "load lazily missing": (lambda npk: npk.load("missing", lazy=True), "not_found", "missing"),
    "load mapped missing": (lambda npk: npk.load("missing", mmap_mode="c"), "not_found", "missing"),
    "load both": (lambda npk: npk.load("a", True, mmap_mode="r"), "invalid_argument", None),
    "shape missing": (lambda npk: npk.get_shape("missing"), "not_found", "missing"),
    "dtype missing": (lambda npk: npk.get_dtype("missing"), "not_found", "missing"),
    "handle missing": (lambda npk: npk.array("missing"), "not_found", "missing"),
    "stream missing": (lambda npk: npk.stream_load("missing"), "not_found", "missing"),
    "stream size": (lambda npk: npk.stream_load("a", 0), "invalid_argument", None),
    "stream 0-d": (lambda npk: npk.stream_load("z"), "shape_mismatch", "z"),
    "update missing": (lambda npk: npk.update("missing"), "not_found", "missing"),
    "update mapping": (lambda npk: npk.update({"a": [1]}), "invalid_argument", None),
    "attrs missing": (lambda npk: dict(npk.array_attrs("missing")), "not_found", "missing"),
    "set attrs missing": (lambda npk: npk.array_attrs("missing").update(x=1), "not_found", "missing"),
    "sync misspelt": (lambda npk: npk.transaction(sync="comit").__enter__(), "invalid_argument", None),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_nothing_is_written_when_validation_fails(npk, path, refusal):
    call, kind, array = REFUSALS[refusal]
    npk.save({"a": np.arange(6.0).reshape(3, 2), "b": np.arange(5), "z": 1.0})
    npk.append({"a": [[6, 7]]})
    npk.drop("a", -1)

    def state():
        stats = npk.stats()
        return (npk.lsn, stats["log_size"], stats["bytes_logged"], stats["commits"], stats["column_file_count"],
                {name: (value.tolist(), npk.get_modify_time(name)) for name, value in npk.items()}, dict(npk.attrs))

    before = state()
    with pytest.raises(NumPackError) as caught:
        call(npk)
    error = caught.value
    assert error.kind == kind and error.array == array
    text = str(error)
    assert text and "\n" not in text and not text.endswith(".") or "slice." in text
    if array is not None:
        assert f"'{array}'" in text.replace('"', "'")
    if kind == "out_of_range" and error.row is not None:
        assert str(error.row) in text
    assert state() == before
    with npk.transaction() as txn:
        npk.append({"b": [5]})
        with pytest.raises(NumPackError) as caught:
            call(npk)
        assert caught.value.kind == kind and caught.value.array == array
        npk.append({"b": [6]})
    assert txn.lsn == npk.lsn and npk.stats()["commits"] == before[3] + 1
    assert npk.load("b").tolist() == [0, 1, 2, 3, 4, 5, 6] and npk.get_member_list() == ["a", "b", "z"]
    assert npk.load("a").tolist() == [[0, 1], [2, 3], [4, 5]] and npk.verify() == []


@pytest.mark.parametrize("options,word", [
    ({"mode": "rw"}, "mode"), ({"mode": "R"}, "mode"), ({"mode": ""}, "mode"), ({"mode": ["a"]}, "mode"), ({"sync": "comit"}, "sync"),
    ({"sync": ""}, "sync"), ({"sync": True}, "sync"), ({"sync": ["commit"]}, "sync"), ({"busy_timeout": "1s"}, "busy_timeout"),
    ({"busy_timeout": -0.1}, "busy_timeout"), ({"sync_interval_ms": 2 ** 32}, "sync_interval_ms"),
    ({"sync_interval_ms": None}, "sync_interval_ms"), ({"segment_size": 2 ** 70}, "segment_size"), ({"pending_limit": -1}, "pending_limit"),
    ({"bulk_size": 1.5}, "bulk_size"), ({"checkpoint_log_size": "1"}, "checkpoint_log_size"), ({"sync_interval_ms": np.True_}, "sync_interval"),
    ({"mode": "r", "drop_if_exists": True}, "drop_if_exists"), ({"mode": "r+", "drop_if_exists": True}, "drop_if_exists")], ids=str)
def test_wrong_options_name_themselves(path, options, word):
    with pytest.raises(ValueError, match=word) as caught:
        NumPack(path, **options)
    assert caught.value.kind == "invalid_argument" and not path.exists()


@pytest.mark.parametrize("filename", [5, None, b"x", ["x"], 1.5, object()], ids=str)
def test_filenames_that_are_none(filename):
    with pytest.raises(TypeError, match="filename") as caught:
        NumPack(filename)
    assert caught.value.kind == "invalid_argument"


# ---- paths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["r", "r+", "a", "w", "x"])
def test_paths_that_hold_no_store(tmp_path, mode):
    (tmp_path / "file").write_text("mine")
    os.symlink(tmp_path / "file", tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    os.symlink(tmp_path / "nowhere", tmp_path / "dangling")
    for name in ("file", "link", "pipe", "file/below"):
        with pytest.raises(FileExistsError) as caught:
            NumPack(tmp_path / name, mode=mode).open()
        assert caught.value.kind == "exists" and caught.value.errno == errno.EEXIST and str(tmp_path / name) in str(caught.value)
    with pytest.raises(FileNotFoundError) as caught:
        NumPack(tmp_path / "dangling", mode=mode).open()
    assert caught.value.kind == "not_found" and caught.value.errno == errno.ENOENT
    with pytest.raises(OSError) as caught:
        NumPack(tmp_path / ("x" * 300), mode=mode).open()
    assert caught.value.kind == "io_error" and caught.value.errno == errno.ENAMETOOLONG
    if mode in ("r", "r+"):
        (tmp_path / "empty").mkdir()
        for name in ("empty", "missing", "no/such"):
            with pytest.raises(FileNotFoundError) as caught:
                NumPack(tmp_path / name, mode=mode).open()
            assert caught.value.kind == "not_found" and caught.value.errno == errno.ENOENT
    assert (tmp_path / "file").read_text() == "mine" and "missing" not in os.listdir(tmp_path)


def test_a_store_behind_a_link(path, tmp_path):
    with NumPack(path) as npk:
        npk.save({"a": [1]})
        os.symlink(path, tmp_path / "link")
        with NumPack(tmp_path / "link") as linked:
            linked.append({"a": [2]})
        assert npk.load("a").tolist() == [1, 2]


@pytest.mark.parametrize("files", [["metadata.npkm"], ["data_a.npkd"], ["data_.npkd"], ["metadata.npkm", "data_a.npkd"]])
@pytest.mark.parametrize("options", [{}, {"mode": "r"}, {"mode": "r+"}, {"mode": "w"}, {"mode": "x"}, {"drop_if_exists": True}], ids=str)
def test_a_directory_of_the_rust_package_is_never_taken(path, files, options):
    path.mkdir()
    for name in files:
        (path / name).write_bytes(b"precious")
    npk = NumPack(path, **options)
    for call in (npk.open, npk.__enter__, npk.get_member_list, lambda: len(npk), lambda: npk.load("a"), lambda: "a" in npk,
                 lambda: npk.save({"a": [1]}), lambda: npk.drop("a"), npk.reset, lambda: npk.lsn, npk.verify, npk.stats):
        with pytest.raises(numpack.FormatError, match="python -m numpack.migrate") as caught:
            call()
        assert caught.value.kind == "format_version" and str(path) in str(caught.value)
    assert npk.is_closed and sorted(os.listdir(path)) == sorted(files)
    assert all((path / name).read_bytes() == b"precious" for name in files)


def test_our_store_with_a_file_of_that_name_is_ours(path):
    with NumPack(path) as npk:
        npk.save({"a": [1]})
    (path / "metadata.npkm").write_bytes(b"x")
    (path / "data_a.npkd").write_bytes(b"x")
    with NumPack(path) as npk:
        assert npk.load("a").tolist() == [1]


def test_directories_above_that_cannot_be_created():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        os.mkdir(os.path.join(folder, "locked"), 0o555)
        name = os.path.join(folder, "locked", "a", "b")
        assert as_nobody(lambda: kind_of(NumPack(name).open)) == "read_only PermissionError"
        assert os.listdir(os.path.join(folder, "locked")) == []


def test_a_read_only_handle_says_so_before_anything_else(path):
    with NumPack(path) as npk:
        npk.save({"a": [1]})
        lsn = npk.lsn
        with NumPack(path, mode="r") as reader:
            for call in (lambda: reader.save({"a": [2]}), lambda: reader.append({"a": [2]}), lambda: reader.replace({"a": 2}, 0),
                         lambda: reader.drop("a"), lambda: reader.drop("a", 0), lambda: reader.clone("a", "b"),
                         lambda: reader.rename("a", "b"), lambda: reader.__delitem__("a"), reader.reset, reader.compact,
                         reader.checkpoint, lambda: reader.update("a"), lambda: reader.attrs.update(x=1),
                         lambda: reader.array("a").append([1]), lambda: reader.batch_mode().__enter__()):
                with pytest.raises(PermissionError) as caught:
                    call()
                assert caught.value.kind == "read_only" and caught.value.errno == errno.EACCES
            reader.flush()  # of nothing
            assert reader.load("a").tolist() == [1]
        assert npk.lsn == lsn


def test_a_busy_store_carries_a_number(npk, path):
    with NumPack(path, busy_timeout=0.05) as other, npk.transaction():
        with pytest.raises(TimeoutError, match=str(os.getpid())) as caught:
            other.save({"a": [1]})
        assert caught.value.kind == "busy" and caught.value.errno == errno.ETIMEDOUT


def test_damage_is_an_error_of_its_own_when_read(path):
    rows = np.random.default_rng(1).random((20000, 10))
    with NumPack(path) as npk:
        npk.save({"a": rows, "b": [1]})
        npk.compact()
        npk.checkpoint()
    os.truncate(max((path / "columns").glob("*.npy"), key=lambda file: file.stat().st_size), 4096)
    with NumPack(path) as npk:
        with pytest.raises(ValueError) as caught:
            npk.load("a")
        assert caught.value.kind == "corrupt" and isinstance(caught.value, numpack.CorruptError)
        assert npk.load("b").tolist() == [1]
