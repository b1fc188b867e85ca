"""What does replace() cost against assignment to a np.memmap of the same bytes? 1,000,000 x 10 float32, sync="never", a transaction a call.

Both take turns within one run, call by call, with the same rows and the same indices, which are fresh for each call. The median
of all calls counts; the slowest tenth is printed beside it, since it has what the writer does for limits and the background
thread at the same time. JSON on stdout.
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

COUNT = 1_000_000


def indices(rng, kind):
    """Endless: (index for replace, index for the memmap, number of rows)."""
    name, number = kind
    while True:
        if name == "one":
            row = int(rng.integers(COUNT))
            yield row, row
        elif name == "contiguous":
            first = int(rng.integers(COUNT - number))
            yield slice(first, first + number), slice(first, first + number)
        else:
            rows = rng.choice(COUNT, number, replace=False)
            if name == "sorted":
                rows.sort()
            yield rows, rows


def compare(npk, memmap, rng, kind, calls):
    """Medians and ninetieth percentiles of both, in us."""
    number = kind[1]
    sources = [rng.random((number, 10), dtype=np.float32) for _ in range(8)]
    mine, theirs = [], []
    gc.disable()
    for at, (index, other) in zip(range(calls + 5), indices(rng, kind)):
        rows = sources[at % 8] if kind[0] != "one" else sources[at % 8][0]
        for is_mine in (at % 2 == 0, at % 2 != 0):
            began = time.perf_counter()
            if is_mine:
                npk.replace({"rows": rows}, index)
            else:
                memmap[other] = rows
            took = time.perf_counter() - began
            if at >= 5:  # the first calls pay for what another case left in the caches
                (mine if is_mine else theirs).append(took * 1e6)
    gc.enable()
    return statistics.median(mine), statistics.median(theirs), statistics.quantiles(mine, n=10)[-1]


CASES = {
    "1": ("one", 1),
    "100_scattered": ("unsorted", 100),
    "100_contiguous": ("contiguous", 100),
    "10000_contiguous": ("contiguous", 10_000),
    "10000_sorted": ("sorted", 10_000),
    "10000_unsorted": ("unsorted", 10_000),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--calls", type=int, default=1000)
    parser.add_argument("-c", "--case", choices=[*CASES, "single_rows"], action="append", help="only this case")
    parser.add_argument("-d", "--directory")
    given = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory(dir=given.directory) as work:
        work = pathlib.Path(work)
        rng = np.random.default_rng(1)
        rows = rng.random((COUNT, 10), dtype=np.float32)
        memmap = np.memmap(work / "rows.bin", np.float32, "w+", shape=rows.shape)
        memmap[:] = rows
        for name, kind in CASES.items():
            if given.case and name not in given.case:
                continue
            with numpack.NumPack(work / name, sync="never") as npk:  # each on a store of its own: none folds another's rows
                npk.save({"rows": rows})
                mine, theirs, slow = compare(npk, memmap, rng, kind, given.calls)
                sample = rng.choice(COUNT, 1000, replace=False)
                assert np.array_equal(npk.getitem("rows", sample), memmap[sample])
            memmap[:] = rows
            figures[name] = {"us": round(mine, 1), "memmap_us": round(theirs, 1), "ratio": round(mine / theirs, 2),
                             "slowest_tenth_us": round(slow, 1)}
        if not given.case or "single_rows" in given.case:
            with numpack.NumPack(work / "single_rows", sync="never") as npk:
                npk.save({"rows": rows})
                order = rng.permutation(COUNT)
                took = []
                for _ in range(5):
                    began = time.perf_counter()
                    npk.replace({"rows": rows}, order)
                    took.append(time.perf_counter() - began)
                assert np.array_equal(npk.load("rows")[order], rows)
            figures["single_rows"] = {"rows_per_second": round(COUNT / statistics.median(took)), "ms": round(statistics.median(took) * 1e3, 1)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
