"""How fast is load() of 1,000,000 x 10 float32 from the page cache, against np.load of the same bytes?

Both take turns within one run. Right before each timed call its file is read through once, so that neither pays for the other's
having pushed it out of cache. JSON on stdout.
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


def touch(paths):
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 20):
                pass


def timed(call):
    gc.collect()
    began = time.perf_counter()
    out = call()
    took = time.perf_counter() - began
    del out
    return took


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-r", "--rounds", type=int, default=21)
    parser.add_argument("-d", "--directory")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as work:
        work = pathlib.Path(work)
        rows = np.random.default_rng(1).random((1_000_000, 10), dtype=np.float32)
        np.save(work / "rows.npy", rows)
        with numpack.NumPack(work / "store") as npk:
            npk.save({"rows": rows})
            npk.compact()
            assert np.array_equal(npk.load("rows"), rows)
            columns = list((work / "store" / "columns").glob("*.npy"))
            mine, theirs = [], []
            for _ in range(given.rounds):
                touch(columns)
                mine.append(timed(lambda: npk.load("rows")))
                touch([work / "rows.npy"])
                theirs.append(timed(lambda: np.load(work / "rows.npy")))
    mine, theirs = statistics.median(mine), statistics.median(theirs)
    print(json.dumps({"load_ms": round(mine * 1e3, 2), "np_load_ms": round(theirs * 1e3, 2), "ratio": round(mine / theirs, 3)}))


if __name__ == "__main__":
    main()
