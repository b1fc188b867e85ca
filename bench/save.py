"""How fast is save() of 1,000,000 x 10 float32 over an array that is there, at sync="never", against np.save over a file that is there?

Each call is a transaction of its own. Both take turns within one run, after a call of each that is not timed. JSON on stdout.
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


def timed(call):
    gc.collect()
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure(directory=None, rounds=15, sync="never"):
    """Medians in milliseconds, and their ratio."""
    with tempfile.TemporaryDirectory(dir=directory) as work:
        work = pathlib.Path(work)
        rows = np.random.default_rng(1).random((1_000_000, 10), dtype=np.float32)
        with numpack.NumPack(work / "store", sync=sync) as npk:
            mine, theirs = [], []
            for i in range(rounds + 1):
                rows[0, 0] = i
                mine.append(timed(lambda: npk.save({"rows": rows})))
                theirs.append(timed(lambda: np.save(work / "rows.npy", rows)))
            assert np.array_equal(npk.load("rows"), np.load(work / "rows.npy"))
    mine, theirs = (statistics.median(times[1:]) for times in (mine, theirs))
    return {"save_ms": round(mine * 1e3, 2), "np_save_ms": round(theirs * 1e3, 2), "ratio": round(mine / theirs, 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-r", "--rounds", type=int, default=15)
    parser.add_argument("-d", "--directory")
    parser.add_argument("-s", "--sync", default="never", choices=["commit", "interval", "never"])
    given = parser.parse_args()
    print(json.dumps(measure(given.directory, given.rounds, given.sync)))


if __name__ == "__main__":
    main()
