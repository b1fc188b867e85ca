"""npk-recover on damaged stores: every single file removed, bits flipped, sectors zeroed. What is salvaged is compared row by row with what was stored;
what is not is named exactly, and nothing is ever wrong without being named."""
import json
import os
import pathlib
import random
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
    done = subprocess.run([PROGRAM, "--json", *map(str, words)], capture_output=True, text=True)
    assert done.returncode in (0, 1, 4, 8, 16), (done.returncode, done.stderr)
    out = json.loads(done.stdout)
    assert out["exit_status"] == done.returncode
    return done.returncode, out


def contents(path):
    """Arrays and attributes of a store."""
    with numpack.NumPack(path, mode="r") as npk:
        return ({name: npk.load(name) for name in npk.get_member_list()},
                {name: dict(npk.array_attrs(name)) for name in npk.get_member_list()}, dict(npk.attrs))


def files(path):
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())


def bytes_of(path):
    return {name: (path / name).read_bytes() for name in files(path)}


# ---- stores ------------------------------------------------------------------------------------------------------------


def write(path, code, kill=False, **options):
    """Run code with npk and np in a process of its own; kill: it ends without closing the store."""
    end = "os.kill(os.getpid(), signal.SIGKILL)" if kill else "npk.close()"
    program = (f"import os, signal, numpy as np, numpack\n"
               f"npk = numpack.NumPack({str(path)!r}, background=False, **{options!r})\n{textwrap.dedent(code)}\n{end}\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == (-signal.SIGKILL if kill else 0), done.stderr


def make_small(path):
    """One segment, every operation, closed three times."""
    write(path, """
        r = np.random.default_rng(1)
        npk.save({"a": r.random((1000, 10)).astype("f4"), "b": np.arange(500), "scalar": np.float64(3.5), "text": np.array(["x", "yy"]),
                  "empty": np.zeros((0, 3)), "gone": np.ones(5), "st": np.zeros(4, [("x", "i4"), ("y", "f8")])})
        npk.attrs["k"] = {"x": [1, 2]}
        npk.array_attrs("a")["unit"] = "m"
    """)
    write(path, """
        r = np.random.default_rng(2)
        npk.append({"a": r.random((100, 10)).astype("f4")})
        npk.replace({"b": [-1, -2, -3]}, [5, 100, 498])
        npk.replace({"a": r.random((200, 10)).astype("f4")}, r.choice(1100, 200, replace=False))
        npk.drop("b", [0, 17, 300])
        npk.update("b")
        npk.clone("a", "copy of a/1")
        npk.rename("text", "words")
        npk.drop("gone")
    """)
    write(path, """
        npk.append({"b": np.arange(1000, 1100)})
        npk.replace({"copy of a/1": np.zeros((3, 10), "f4")}, [0, 1, 1099])
    """)


def make_folded(path):
    """Several small segments and column files; some rows pending, the newest behind the last checkpoint."""
    options = {"segment_size": 65536, "bulk_size": 200_000}
    write(path, """
        r = np.random.default_rng(3)
        npk.save({"big": r.random((50_000, 4)), "small": r.random((3000, 3)), "n": np.arange(20_000)})
        npk.update("small")
        npk.checkpoint()
        for i in range(6):
            npk.append({"small": r.random((300, 3))})
            npk.replace({"n": -np.arange(2000)}, r.choice(20_000, 2000, replace=False))
        npk.update("small")
        npk.checkpoint()
        npk.replace({"big": r.random((500, 4))}, r.choice(50_000, 500, replace=False))
        npk.drop("n", list(range(100, 200)) + [5000])
        npk.update("n")
    """, **options)
    write(path, """
        r = np.random.default_rng(4)
        for i in range(8):
            npk.append({"small": r.random((400, 3))})
            npk.replace({"big": r.random((100, 4))}, r.choice(50_000, 100, replace=False))
        npk.attrs["step"] = 8
    """, kill=True, **options)


def make_pending(path):
    """All in the log, over several segments, one checkpoint in the middle."""
    options = {"segment_size": 65536, "bulk_size": 1 << 30, "pending_limit": 1 << 30, "checkpoint_log_size": 1 << 30}
    write(path, """
        r = np.random.default_rng(5)
        npk.save({"x": r.random((100, 20)), "y": np.arange(1000)})
        for i in range(10):
            npk.append({"x": r.random((60, 20))})
            if i == 5:
                npk.checkpoint()
            npk.replace({"y": np.arange(i, i + 50)}, np.arange(i * 50, i * 50 + 50))
        npk.attrs["done"] = True
    """, kill=True, **options)


APPEND_ONLY = {"x", "small"}  # arrays of these stores whose rows never change
MAKERS = {"small": make_small, "folded": make_folded, "pending": make_pending}


@pytest.fixture(scope="module", params=MAKERS)
def store(request, tmp_path_factory):
    """(path of a whole store, its contents)."""
    path = tmp_path_factory.mktemp(request.param) / "store"
    MAKERS[request.param](path)
    whole = path.parent / "whole"
    shutil.copytree(path, whole)
    expected = contents(whole)
    shutil.rmtree(whole)
    return path, expected


# ---- what was salvaged against what was there -----------------------------------------------------------------------------


def losses_of(out, kind):
    return [x for x in out["salvage"]["losses"] if x["kind"] == kind]


def check(out, target, expected, as_npy=False):
    """No row differs that is not named; named zero rows are zero; nothing is named in vain. Returns the number of lost rows."""
    arrays, array_attrs, attrs = expected
    salvage = out["salvage"]
    if as_npy:
        found = {a["name"]: np.load(target / a["file"]) for a in salvage["arrays"]}
    else:
        found, found_array_attrs, found_attrs = contents(target)
    log_is_whole = not losses_of(out, "log") and not losses_of(out, "transaction")
    if log_is_whole:
        assert sorted(found) == sorted(arrays)
        if not as_npy:
            assert (found_array_attrs, found_attrs) == (array_attrs, attrs)
    lost = 0
    for name, array in found.items():
        whole = arrays[name]
        assert array.dtype == whole.dtype
        if log_is_whole:
            assert array.shape == whole.shape
        rows, right = np.atleast_1d(array), np.atleast_1d(whole)
        named = np.zeros(len(rows), bool)
        for loss in losses_of(out, "rows"):
            if loss["array"] == name:
                span = slice(loss["first_row"], loss["first_row"] + loss["row_count"])
                assert not named[span].any() and loss["reason"]
                named[span] = True
                assert rows[span].tobytes() == bytes(rows[span].nbytes)
        lost += named.sum()
        older = np.zeros(len(rows), bool)
        for loss in losses_of(out, "older-rows"):
            if loss["array"] == name:
                older[loss["first_row"]:loss["first_row"] + loss["row_count"]] = True
        if name in APPEND_ONLY and not log_is_whole:  # every row that is there is right or named, in its place
            assert len(rows) <= len(right)
            same = np.array([rows[i].tobytes() == right[i].tobytes() for i in range(len(rows))], bool)
            assert same[~named & ~older].all(), name
        if log_is_whole:
            same = np.array([rows[i].tobytes() == right[i].tobytes() for i in range(len(rows))], bool)
            assert same[~named & ~older].all(), name
    assert salvage["lost_row_count"] == lost
    return lost


def salvage(path, target, expected, *words):
    before = bytes_of(path)
    status, out = run("--salvage", target, *words, path)
    assert bytes_of(path) == before  # the source is only read
    assert out["error"] is None and out["salvage"]["loss_count"] == len(out["salvage"]["losses"])
    assert (status == 4) == bool(out["salvage"]["losses"])
    as_npy = "--npy" in words
    lost = check(out, target, expected, as_npy)
    if out["salvage"]["losses"]:
        assert json.loads((target / "lost.json").read_text())["losses"] == out["salvage"]["losses"]
    if not as_npy:
        assert run("--deep", target)[1]["store"]["verdict"] == "clean"
    return status, out, lost


def test_a_whole_store_is_salvaged_whole(store, tmp_path):
    path, expected = store
    for words in ([], ["--npy"]):
        target = tmp_path / ("npy" if words else "store")
        status, out, lost = salvage(path, target, expected, *words)
        assert status == 0 and lost == 0 and not (target / "lost.json").exists()
    if expected[1] or expected[2]:
        attributes = json.loads((tmp_path / "npy" / "attributes.json").read_text())
        assert attributes.get("", {}) == expected[2]


def test_after_the_loss_of_any_single_file_all_is_there_that_the_others_hold(store, tmp_path):
    path, expected = store
    names = files(path)
    assert {"FORMAT", "LOCK"} <= set(names) and any(n.startswith("checkpoint/") for n in names)
    restored = 0
    for number, name in enumerate(names):
        copy, target = tmp_path / f"copy{number}", tmp_path / f"target{number}"
        shutil.copytree(path, copy)
        (copy / name).unlink()
        status, out, lost = salvage(copy, target, expected)
        restored += out["salvage"]["restored_row_count"]
        kind = name.split("/")[0]
        if kind not in ("wal", "columns"):
            assert out["salvage"]["losses"] == [], name
            assert status in (0, 1)
        elif kind == "columns":
            # The log is whole: every array and attribute is there, and only rows of this file may be lost.
            assert not losses_of(out, "log") and not losses_of(out, "transaction") and not losses_of(out, "older-rows")
            assert {x["file"] for x in losses_of(out, "rows")} <= {name}
        else:
            log = losses_of(out, "log")
            assert len(log) <= 1 and all(x["end_lsn"] is None or x["first_row"] is None and x["lsn"] < x["end_lsn"] for x in log)
            for loss in losses_of(out, "rows"):
                assert loss["file"] in (name, None)
            if path.parent.name.startswith("pending") and name != names[-1] and log:  # later rows prove those before them
                assert len(contents(target)[0]["x"]) > len(expected[0]["x"]) // 4 and lost > 0
        if lost:
            assert status == 4 and run(copy)[0] == 4  # the report knows as well
        shutil.rmtree(copy)
        shutil.rmtree(target)
    if path.parent.name.startswith("folded"):
        assert restored > 0  # a folded file is gone, the log and older files still have its rows


def test_format_is_written_anew_by_repair(store, tmp_path):
    path, expected = store
    for damage in ("missing", "flipped"):
        copy = tmp_path / damage
        shutil.copytree(path, copy)
        whole = (copy / "FORMAT").read_bytes()
        (copy / "FORMAT").unlink()
        if damage == "flipped":
            (copy / "FORMAT").write_bytes(bytes([whole[0] ^ 4]) + whole[1:])
        status, out = run(copy)
        assert status == 4 and [f["file"] for f in out["store"]["findings"]] == ["FORMAT"]
        assert out["store"]["uuid"].replace("-", "") == whole[16:32].hex()
        status, out = run("--repair", copy)
        assert status == 1 and out["store"]["verdict"] in ("clean", "torn") and out["store"]["findings"] == []
        assert (copy / "FORMAT").read_bytes()[:32] == whole[:32]  # the time of creation is that of the oldest segment
        found = contents(copy)
        assert found[2] == expected[2] and all(np.array_equal(found[0][n], expected[0][n]) for n in expected[0])


# ---- flipped bits and zeroed sectors -----------------------------------------------------------------------------------------


def spans(path, name, rng, count):
    """Places worth damaging in a file: its beginning, and some that are not zero."""
    data = (path / name).read_bytes()
    used = len(data.rstrip(b"\0"))
    places = [0, 8, 100]
    places += [rng.randrange(max(used, 1)) for _ in range(count)]
    return data, [p for p in places if p < used]


@pytest.mark.parametrize("how", ["bit", "sector"])
def test_damage_is_found_named_and_never_salvaged_as_a_value(store, tmp_path, how):
    path, expected = store
    rng = random.Random(os.environ.get("NPK_SEED", "7") + how + path.parent.name)
    names = [n for n in files(path) if n.startswith(("wal/0", "columns/", "checkpoint/")) or n == "FORMAT"]
    cases = found = 0
    for name in names:
        data, places = spans(path, name, rng, 3 if len(names) > 8 else 8)
        for place in places:
            damaged = bytearray(data)
            if how == "bit":
                damaged[place] ^= 1 << rng.randrange(8)
            else:
                start = place // 512 * 512
                damaged[start:start + 512] = bytes(len(damaged[start:start + 512]))
            if bytes(damaged) == data:
                continue
            copy, target = tmp_path / "copy", tmp_path / "target"
            shutil.copytree(path, copy)
            (copy / name).chmod(0o600)
            (copy / name).write_bytes(damaged)
            status, out = run("--deep", copy)
            cases += 1
            found += status == 4
            if status == 4:
                assert out["store"]["verdict"] == "damaged" and out["store"]["findings"], (name, place)
            if name.startswith("columns/") and place >= 4096 and status == 4:
                assert all(f["file"] == name and f["array"] and f["row_count"] > 0 for f in out["store"]["findings"])
            status, out, lost = salvage(copy, target, expected)
            if lost:
                named = {(f["file"], f["array"]) for f in run("--deep", copy)[1]["store"]["findings"]}
                for loss in losses_of(out, "rows"):
                    assert loss["file"] is None or (loss["file"], loss["array"]) in named, (name, place)
            shutil.rmtree(copy)
            shutil.rmtree(target)
    assert cases and found > cases // 3


def test_a_transaction_that_lost_a_record_is_left_out_whole_and_later_ones_are_kept(tmp_path):
    path, target = tmp_path / "store", tmp_path / "target"
    write(path, """
        r = np.random.default_rng(9)
        npk.save({"x": r.random((5, 8)), "z": r.random((5, 8)), "v": np.arange(10)})
        for i in range(3):
            with npk.transaction():
                npk.append({"x": r.random((4, 8))})
                npk.append({"z": r.random((6, 8))})
                npk.replace({"v": [-i]}, [i])
                npk.attrs["i"] = i
    """, kill=True)
    whole = tmp_path / "whole"
    shutil.copytree(path, whole)
    arrays, _, attrs = contents(whole)
    segment, = (path / "wal").glob("0*.wal")
    data = bytearray(segment.read_bytes())
    data[data.index(arrays["z"][11:17].tobytes()) + 100] ^= 1  # a row of the second transaction
    segment.write_bytes(data)
    status, out = run("--salvage", target, path)
    found, _, found_attrs = contents(target)
    assert status == 4 and found_attrs == attrs == {"i": 2}
    for name, lost in (("x", slice(9, 13)), ("z", slice(11, 17))):
        right = arrays[name].copy()
        right[lost] = 0
        assert np.array_equal(found[name], right)
        loss, = [x for x in losses_of(out, "rows") if x["array"] == name]
        assert (loss["first_row"], loss["row_count"]) == (lost.start, lost.stop - lost.start)
    assert found["v"].tolist() == [0, 1, -2, *range(3, 10)]
    older, = losses_of(out, "older-rows")
    assert (older["array"], older["first_row"], older["row_count"]) == ("v", 1, 1)
    gap, = losses_of(out, "log")
    assert {x["array"] for x in losses_of(out, "transaction")} >= {"x", "v"} and gap["lsn"] < gap["end_lsn"]
    # The last state that is consistent.
    status, out = run("--salvage", tmp_path / "before", "--until-lsn", gap["lsn"], path)
    assert status == 1 and len(contents(tmp_path / "before")[0]["x"]) == 9


@pytest.mark.parametrize("sync", ["commit", "never"])
def test_a_column_file_is_an_older_place_however_it_was_linked(tmp_path, sync):
    path, target = tmp_path / "store", tmp_path / "target"
    write(path, """
        r = np.random.default_rng(11)
        for i in range(6):
            npk.save({f"filler{i}": r.random((2000, 8))})
        npk.save({"x": r.random((40_000, 4))})
        npk.append({"x": r.random((10, 4))})
        npk.update("x")
        npk.checkpoint()
    """, kill=True, sync=sync, segment_size=65536, bulk_size=200_000)
    whole = tmp_path / "whole"
    shutil.copytree(path, whole)
    expected = contents(whole)
    folded, = [p for p in (path / "columns").iterdir() if np.load(p, mmap_mode="r").shape == (40_010, 4)]
    folded.unlink()
    min((path / "wal").glob("0*.wal")).unlink()  # so that the log does not begin with the store
    status, out, lost = salvage(path, target, expected)
    assert losses_of(out, "rows") == [] and out["salvage"]["restored_row_count"] == 40_010


def test_a_file_linked_unsynced_is_no_loss_of_a_transaction_that_is_left_out(tmp_path):
    path, target = tmp_path / "store", tmp_path / "target"
    write(path, """
        npk.save({"few": np.zeros((5, 2)), "many": np.zeros((5, 2))})
        with npk.transaction():
            npk.append({"many": np.ones((40_000, 2))})
            npk.append({"few": np.full((4, 2), 7.25)})
        for i in range(2):
            with npk.transaction(sync="commit"):
                npk.append({"few": np.full((1, 2), 8.25)})
    """, kill=True, sync="never", bulk_size=200_000)
    segment, = (path / "wal").glob("0*.wal")
    data = bytearray(segment.read_bytes())
    data[data.index(np.full((4, 2), 7.25).tobytes()) + 10] ^= 1
    segment.write_bytes(data)
    status, out = run("--salvage", target, path)
    assert status == 4 and contents(target)[0]["few"][-1, 0] == 8.25
    left_out = losses_of(out, "transaction")
    assert left_out and {x["array"] for x in left_out} == {"many"}, left_out


# ---- going back ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def history(tmp_path):
    """A store of ten commits, the contents after each with its LSN and time."""
    path = tmp_path / "history"
    states = []
    with numpack.NumPack(path, background=False) as npk:
        for i in range(10):
            with npk.transaction() as txn:
                npk.append({"rows": np.full((3, 2), i)}) if i else npk.save({"rows": np.zeros((3, 2), int)})
                npk.replace({"rows": [[-i, -i]]}, [0])
                npk.attrs["i"] = i
            states.append((txn.lsn[1], npk.get_modify_time("rows"), npk.load("rows")))
    return path, states


def test_an_earlier_state_by_lsn_and_by_time(history, tmp_path):
    path, states = history
    for number in (0, 4, 9):
        lsn, _, rows = states[number]
        for words in (["--until-lsn", lsn], ["--until-lsn", lsn + 8]):
            target = tmp_path / f"{number}-{words[1]}"
            status, out = run("--salvage", target, *words, path)
            assert status == 0 and out["salvage"]["position"]["lsn"] == lsn
            found = contents(target)
            assert np.array_equal(found[0]["rows"], rows) and found[2] == {"i": number}
    commit_us = run("--salvage", tmp_path / "t", "--until-lsn", states[4][0], path)[1]["salvage"]["last_commit_us"]
    instant = f"@{commit_us // 10**6}.{commit_us % 10**6:06d}"
    status, out = run("--salvage", tmp_path / "time", "--until-time", instant, path)
    assert status == 0 and np.array_equal(contents(tmp_path / "time")[0]["rows"], states[4][2])
    status, out = run("--salvage", tmp_path / "iso", "--until-time", out["salvage"]["last_commit"], path)
    assert status == 0 and np.array_equal(contents(tmp_path / "iso")[0]["rows"], states[4][2])


def test_a_time_the_log_does_not_reach_is_refused(tmp_path):
    path = tmp_path / "store"
    make_folded(path)
    status, out = run("--salvage", tmp_path / "out", "--until-time", "2001-01-01", path)
    if out["error"]:
        assert status == 8 and out["error"]["kind"] == "out_of_range" and "reach" in out["error"]["message"]
    else:
        assert out["salvage"]["array_count"] == 0  # the log reaches back to its beginning


# ---- targets -----------------------------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten_without_force(tmp_path):
    path, target = tmp_path / "store", tmp_path / "target"
    make_small(path)
    target.mkdir()
    (target / "mine").write_text("mine")
    status, out = run("--salvage", target, path)
    assert status == 8 and out["error"]["kind"] == "exists" and files(target) == ["mine"]
    status, out = run("--salvage", target, "--force", path)
    assert status == 0 and (target / "mine").read_text() == "mine"
    with numpack.NumPack(target) as npk:
        npk.save({"other": np.arange(3)})
    status, out = run("--salvage", target, "--force", path)
    assert status == 0 and "other" not in contents(target)[0] and (target / "mine").exists()


@pytest.mark.parametrize("inside", ["", "wal", "columns"])
def test_a_store_is_never_salvaged_into_itself(tmp_path, inside):
    path = tmp_path / "store"
    make_small(path)
    before = bytes_of(path)
    status, out = run("--salvage", path / inside, "--force", "--npy", path)
    assert status == 8 and out["error"]["kind"] == "invalid_argument" and bytes_of(path) == before


def test_a_store_in_use_is_not_salvaged(tmp_path):
    path = tmp_path / "store"
    with numpack.NumPack(path) as npk:
        npk.save({"a": np.arange(3)})
        status, out = run("--salvage", tmp_path / "out", path)
        assert status == 8 and out["error"]["kind"] == "busy" and not (tmp_path / "out").exists()


def test_names_that_are_no_file_names_become_some(tmp_path):
    path, target = tmp_path / "store", tmp_path / "npy"
    names = ["a/b", "..", ".hidden", "ä ö", "%", "x" * 255, "é" * 120]
    with numpack.NumPack(path) as npk:
        npk.save({name: np.arange(i) for i, name in enumerate(names)})
    status, out = run("--salvage", target, "--npy", path)
    assert status == 0 and len(list(target.glob("*.npy"))) == len(names)
    for array in out["salvage"]["arrays"]:
        assert np.array_equal(np.load(target / array["file"]), np.arange(names.index(array["name"])))


@pytest.mark.parametrize("words", [["--npy", "s"], ["--force", "s"], ["--until-lsn", "5", "s"], ["--salvage", "d", "--repair", "s"],
                                   ["--salvage", "d", "--until-lsn", "x", "s"], ["--salvage", "d", "--until-time", "soon", "s"],
                                   ["--salvage", "d", "--until-lsn", "5", "--until-time", "@5", "s"]])
def test_wrong_usage_is_status_16(words):
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True)
    assert done.returncode == 16 and done.stdout == "" and done.stderr
