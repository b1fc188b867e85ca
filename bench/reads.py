"""How fast are reads and batches of 1,000,000 x 10 float32 against a plain .npy file, compacted and with rows still in the log?

Each figure is the ratio of the medians of two loops that take turns within one run, over the page cache. Row numbers are drawn anew for each
call. Scattered replaces go through the log, so "pending" rows lie there until they are folded; the background is off so that they stay.
JSON on stdout.
"""
import argparse
import gc
import json
import pathlib
import statistics
import tempfile
import time

import numpy as np

import numpack

ROWS, COLUMNS = 1_000_000, 10


def turns(rounds, *calls):
    """Median seconds of each call; they take turns. A call gets the number of the round."""
    took = [[] for _ in calls]
    for number in range(rounds):
        for at, call in enumerate(calls):
            began = time.perf_counter()
            out = call(number)
            took[at].append(time.perf_counter() - began)
            del out
    return [statistics.median(times) for times in took]


def gathers(npk, name, plain, count, rounds):
    rng = np.random.default_rng(count)
    wanted = [rng.integers(0, ROWS, count) for _ in range(min(rounds, 200))]
    npk.getitem(name, wanted[0])
    mine, theirs = turns(rounds, lambda n: npk.getitem(name, wanted[n % len(wanted)]),
                         lambda n: np.array(plain[wanted[n % len(wanted)]]))
    return {"us": round(mine * 1e6, 1), "memmap_us": round(theirs * 1e6, 1), "ratio": round(mine / theirs, 3)}


def make_pending(npk, name, count, packs=False):
    rng = np.random.default_rng(7)
    for part in np.array_split(rng.permutation(ROWS)[:count], max(1, count // 10_000)):
        new = rng.random((len(part), COLUMNS), dtype=np.float32)
        npk.replace({name: np.floor(new * 100) if packs else new}, part)


def loads(npk, path, rounds, names):
    """Loads of the arrays and of np.load take turns; the first array is the one that the others are compared with."""
    *mine, theirs = turns(rounds, *(lambda n, name=name: npk.load(name) for name in names), lambda n: np.load(path))
    return {name: {"ms": round(took * 1e3, 2), "np_load_ms": round(theirs * 1e3, 2), "ratio": round(took / theirs, 3),
                   "over_first": round(took / mine[0], 3)} for name, took in zip(names, mine)}


def views(npk, name, path, rounds):
    lazy, theirs = turns(rounds, lambda n: npk.load(name, lazy=True), lambda n: np.load(path, mmap_mode="r"))
    view, = turns(max(15, rounds // 20), lambda n: np.asarray(npk.load(name, lazy=True)))
    return {"lazy_us": round(lazy * 1e6, 2), "np_load_us": round(theirs * 1e6, 1), "times_faster": round(theirs / lazy, 1),
            "view_us": round(view * 1e6, 1)}


def batches(npk, rounds, pending):
    """100 scattered edits in a writable batch, its commit included; before each the array is compacted and `pending` rows are replaced."""
    rng = np.random.default_rng(3)
    took = []
    for _ in range(rounds + 1):
        npk.compact()
        if pending:
            make_pending(npk, "rows", pending)
        rows = rng.integers(0, ROWS, 100)
        began = time.perf_counter()
        with npk.writable_batch_mode() as edit:
            edit.load("rows")[rows] += 1
        took.append(time.perf_counter() - began)
    return round(statistics.median(took[1:]) * 1e3, 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--calls", type=int, default=1000)
    parser.add_argument("-r", "--rounds", type=int, default=15)
    parser.add_argument("-d", "--directory")
    given = parser.parse_args()
    out = {}
    with tempfile.TemporaryDirectory(dir=given.directory) as work:
        work = pathlib.Path(work)
        rows = np.random.default_rng(1).random((ROWS, COLUMNS), dtype=np.float32)
        path = work / "rows.npy"
        np.save(path, rows)
        plain = np.load(path, mmap_mode="r")
        gc.disable()
        with numpack.NumPack(work / "batches", sync="never", background=False) as npk:
            npk.save({"rows": rows})
            out["batch_ms"] = {f"{count}_pending": batches(npk, given.rounds, count) for count in (0, 300, 900, 10_000)}
        kinds = {"compacted": (0, False), "1_percent_pending": (ROWS // 100, False),
                 "10_percent_pending": (ROWS // 10, False), "10_percent_packed": (ROWS // 10, True)}
        with numpack.NumPack(work / "store", sync="never", background=False) as npk:
            for name in kinds:
                npk.save({name: rows})
            npk.compact()
            for name, (pending, packs) in kinds.items():
                if pending:
                    make_pending(npk, name, pending, packs)
            out["load"] = loads(npk, path, given.rounds, list(kinds))
            for name in kinds:
                out[name] = {"getitem_100": gathers(npk, name, plain, 100, given.calls),
                             "getitem_10000": gathers(npk, name, plain, 10_000, given.calls // 10),
                             "view": views(npk, name, path, given.calls)}
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
