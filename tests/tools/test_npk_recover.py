"""npk-recover as a program: exit status, JSON contract, what it leaves alone and what it copies."""
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import numpack

PROGRAM = shutil.which("npk-recover", path=str(pathlib.Path(sys.executable).parent)) or "npk-recover"


def run(*words):
    return subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True)


def report(*words):
    done = run("--json", *words)
    out = json.loads(done.stdout)
    assert out["exit_status"] == done.returncode
    return done.returncode, out


def contents(path):
    """Every durable file with its bytes; what a read-only look must not change."""
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "store"
    with numpack.NumPack(path) as npk:
        npk.save({"rows": np.arange(20.0).reshape(10, 2)})
        npk.append({"rows": np.ones((3, 2))})
    return path


@pytest.fixture
def killed(tmp_path):
    """A store whose writer died by SIGKILL after a commit, in the middle of the next transaction."""
    path = tmp_path / "killed"
    code = f"""
        import os, signal, numpy as np, numpack
        npk = numpack.NumPack({str(path)!r})
        npk.save({{"rows": np.zeros((5, 3), np.int32)}})
        with npk.transaction():
            npk.append({{"rows": np.ones((5, 3), np.int32)}})
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)])
    assert done.returncode == -signal.SIGKILL
    return path


def test_a_closed_store_is_clean_and_nothing_is_written(store):
    before = contents(store)
    status, out = report("--deep", store)
    assert status == 0 and out["error"] is None and out["action"] == "report" and out["copied_to"] is None
    seen = out["store"]
    assert seen["verdict"] == "clean" and seen["findings"] == []
    assert [(a["name"], a["descr"], a["shape"]) for a in seen["arrays"]] == [("rows", "<f8", [13, 2])]
    assert seen["position"]["lsn"] > 0 and seen["last_commit"].endswith("Z")
    assert contents(store) == before


def test_the_text_report_says_the_same(store):
    done = run(store)
    assert done.returncode == 0 and done.stderr == ""
    assert "verdict      clean" in done.stdout and "rows" in done.stdout and "[13,2]" in done.stdout


def test_a_killed_writer_leaves_nothing_lost_and_a_report_changes_nothing(killed):
    before = contents(killed)
    status, out = report(killed)
    assert status == 0 and out["store"]["verdict"] in ("torn", "clean")
    assert out["store"]["arrays"][0]["shape"] == [5, 3]
    assert contents(killed) == before


def test_repair_copies_the_log_aside_and_leaves_a_clean_store(killed):
    verdict = report(killed)[1]["store"]["verdict"]
    segments = {p.name: p.read_bytes() for p in (killed / "wal").iterdir()}
    status, out = report("--repair", killed)
    if verdict == "clean":
        pytest.skip("the writer died without leaving a tail")
    assert status == 1 and out["verdict_before"] == "torn" and out["store"]["verdict"] == "clean"
    aside = pathlib.Path(out["copied_to"])
    assert aside.parent == killed.parent and aside.name.startswith("killed.repair-")
    assert {p.name: p.read_bytes() for p in (aside / "wal").iterdir()} == segments
    assert report("--repair", killed)[0] == 0
    with numpack.NumPack(killed, mode="r") as npk:
        assert np.array_equal(npk.load("rows"), np.zeros((5, 3), np.int32))


def test_rebuilding_the_index_keeps_everything(store):
    status, out = report("--rebuild-index", store)
    assert status == 1 and out["store"]["verdict"] == "clean"
    with numpack.NumPack(store, mode="r") as npk:
        assert npk.get_shape("rows") == (13, 2)


def test_a_store_in_use_is_reported_and_not_repaired(store):
    with numpack.NumPack(store) as npk:
        npk.append({"rows": np.ones((1, 2))})
        status, out = report(store)
        assert status == 0 and out["store"]["verdict"] == "in-use"
        for option in ("--repair", "--rebuild-index"):
            status, out = report(option, store)
            assert status == 8 and out["error"]["kind"] == "busy"


def test_a_flipped_byte_in_a_column_file_is_found_with_its_array_and_rows(store):
    with numpack.NumPack(store) as npk:
        npk.compact()
    file, = [p for p in (store / "columns").iterdir() if np.load(p).shape == (13, 2)]
    file.chmod(0o600)
    data = bytearray(file.read_bytes())
    data[4096 + 5] ^= 1
    file.write_bytes(data)
    status, out = report("--deep", store)
    assert status == 4 and out["store"]["verdict"] == "damaged"
    finding, = out["store"]["findings"]
    assert finding["array"] == "rows" and finding["first_row"] == 0 and file.name in finding["file"]


def killed_with_unsynced_file(path):
    """A store whose writer died with two transactions behind the watermark: one row in the log, then an array in an unsynced column file."""
    code = f"""
        import os, signal, numpy as np, numpack
        npk = numpack.NumPack({str(path)!r}, sync="never", background=False)
        npk.save({{"rows": np.zeros((600_000, 2)), "few": np.zeros((1, 2))}})
        npk.flush()
        npk.append({{"few": np.ones((1, 2))}})
        npk.save({{"rows": np.ones((700_000, 2))}})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)])
    assert done.returncode == -signal.SIGKILL
    file = {np.load(p, mmap_mode="r").shape[0]: p for p in (path / "columns").iterdir()}
    return file[600_000], file[700_000]


def spoil(file, how):
    file.chmod(0o600)
    if how == "missing":
        file.unlink()
    elif how == "short":
        with open(file, "r+b") as f:
            f.truncate(file.stat().st_size - 4096)
    else:
        with open(file, "r+b") as f:
            f.seek(file.stat().st_size // 2)
            byte = f.read(1)[0]
            f.seek(-1, 1)
            f.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("how", ["missing", "short", "flipped"])
def test_a_wrong_file_linked_unsynced_above_the_watermark_is_a_torn_tail(tmp_path, how):
    path = tmp_path / "store"
    old, new = killed_with_unsynced_file(path)
    spoil(new, how)
    before = contents(path)
    status, out = report("--deep", path)
    assert status == 0 and out["store"]["verdict"] == "torn" and out["store"]["findings"] == []
    assert {a["name"]: a["shape"] for a in out["store"]["arrays"]} == {"few": [2, 2], "rows": [600_000, 2]}
    assert "unsynced" in out["store"]["reason"]
    assert contents(path) == before
    status, out = report("--repair", path)
    assert status == 1 and out["verdict_before"] == "torn" and out["store"]["verdict"] == "clean"
    with numpack.NumPack(path, mode="r") as npk:
        assert np.array_equal(npk.load("rows"), np.zeros((600_000, 2)))
        assert np.array_equal(npk.load("few"), [[0, 0], [1, 1]])


@pytest.mark.parametrize("how", ["missing", "short", "flipped"])
def test_a_wrong_file_below_the_watermark_is_damage(tmp_path, how):
    path = tmp_path / "store"
    old, new = killed_with_unsynced_file(path)
    with numpack.NumPack(path) as npk:  # syncs it, writes a checkpoint
        assert npk.get_shape("rows") == (700_000, 2)
    spoil(new, how)
    status, out = report("--deep", path)
    assert status == 4 and out["store"]["verdict"] == "damaged" and out["store"]["findings"]
    assert {a["name"]: a["shape"] for a in out["store"]["arrays"]}["rows"] == [700_000, 2]


def test_a_dead_file_linked_unsynced_may_be_wrong(tmp_path):
    path = tmp_path / "store"
    old, new = killed_with_unsynced_file(path)
    spoil(old, "missing")  # replaced since
    status, out = report("--deep", path)
    assert status == 0 and out["store"]["verdict"] == "torn" and out["store"]["findings"] == []
    assert {a["name"]: a["shape"] for a in out["store"]["arrays"]}["rows"] == [700_000, 2]


def test_what_is_no_store_is_an_operational_error(tmp_path):
    status, out = report(tmp_path / "absent")
    assert status == 8 and out["store"] is None and out["error"]["kind"] == "not_found"
    status, out = report(tmp_path)
    assert status == 8 and out["error"]["kind"] in ("not_found", "format_version")


@pytest.mark.parametrize("words", [[], ["a", "b"], ["--unknown"], ["--repair", "--rebuild-index", "a"]])
def test_wrong_usage_is_status_16(words):
    done = run(*words)
    assert done.returncode == 16 and done.stdout == "" and done.stderr


def test_help_goes_to_standard_output():
    for word in ("-h", "--help"):
        done = run(word)
        assert done.returncode == 0 and "Exit status" in done.stdout
