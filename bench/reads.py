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


def gathers(npk, plain, count, rounds):
    rng = np.random.default_rng(count)
    wanted = [rng.integers(0, ROWS, count) for _ in range(min(rounds, 200))]
    npk.getitem("rows", wanted[0])
    mine, theirs = turns(rounds, lambda n: npk.getitem("rows", wanted[n % len(wanted)]),
                         lambda n: np.array(plain[wanted[n % len(wanted)]]))
    return {"us": round(mine * 1e6, 1), "memmap_us": round(theirs * 1e6, 1), "ratio": round(mine / theirs, 3)}


def make_pending(npk, share):
    rng = np.random.default_rng(7)
    rows = rng.permutation(ROWS)[:int(ROWS * share)]
    for part in np.array_split(rows, max(1, len(rows) // 10_000)):
        npk.replace({"rows": rng.random((len(part), COLUMNS), dtype=np.float32)}, part)


def loads(npk, path, rounds):
    mine, theirs = turns(rounds, lambda n: npk.load("rows"), lambda n: np.load(path))
    return {"ms": round(mine * 1e3, 2), "np_load_ms": round(theirs * 1e3, 2), "ratio": round(mine / theirs, 3)}


def views(npk, path, rounds):
    lazy, theirs = turns(rounds, lambda n: npk.load("rows", lazy=True), lambda n: np.load(path, mmap_mode="r"))
    view, = turns(max(15, rounds // 20), lambda n: np.asarray(npk.load("rows", lazy=True)))
    return {"lazy_us": round(lazy * 1e6, 2), "np_load_us": round(theirs * 1e6, 1), "times_faster": round(theirs / lazy, 1),
            "view_us": round(view * 1e6, 1)}


def batches(npk, rounds):
    rng = np.random.default_rng(3)

    def batch(number):
        with npk.writable_batch_mode() as edit:
            edit.load("rows")[rng.integers(0, ROWS, 100)] += 1
    batch(0)
    mine, = turns(rounds, batch)
    return {"ms": round(mine * 1e3, 2)}


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
        for share in (0, 0.01, 0.1):
            with numpack.NumPack(work / f"store{share}", sync="never", background=False) as npk:
                npk.save({"rows": rows})
                npk.compact()
                if share:
                    make_pending(npk, share)
                out[f"pending_{share}"] = {
                    "getitem_100": gathers(npk, plain, 100, given.calls),
                    "getitem_10000": gathers(npk, plain, 10_000, given.calls // 10),
                    "load": loads(npk, path, given.rounds), "view": views(npk, path, given.calls),
                    "batch_100": batches(npk, given.rounds)}
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
