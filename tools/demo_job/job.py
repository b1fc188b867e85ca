"""The ingesting process: one transaction per batch, resumed from the offset that the store itself keeps.

It knows nothing of being killed. Everything of a batch - rows, statistics, drops, offset - is in one transaction, so that whatever
is in the store says exactly where to go on.
"""
import argparse
import os

import numpy as np

from marker import BETWEEN, DONE, IN_COMMIT, IN_TRANSACTION, OPENING, Marker
from stream import CLASSES, Digits, state_after
import numpack

# Small limits, so that segments roll, checkpoints are due and rows fold within seconds instead of hours.
LIMITS = dict(segment_size=4 << 20, checkpoint_log_size=8 << 20, pending_limit=16 << 20, bulk_size=4 << 20)


def ingest(npk, digits, number, marker):
    rows = digits.batch(number)
    marker.set(phase=IN_TRANSACTION, batch=number)
    with npk.transaction():
        npk.append(rows)

        seen = np.unique(rows["labels"])
        statistics = npk.getitem("statistics", seen) if number else np.zeros((CLASSES, 65))[seen]
        for place, label in enumerate(seen):
            mine = rows["images"][rows["labels"] == label]
            statistics[place, 0] += len(mine)
            statistics[place, 1:] += mine.reshape(-1, 64).sum(axis=0)
        if number == 0:
            npk.save({"statistics": np.zeros((CLASSES, 65))})
        npk.replace({"statistics": statistics}, seen)

        excess = state_after(number + 1)[0] - state_after(number)[0]
        if excess:
            for name in rows:
                npk.drop(name, slice(0, excess))

        npk.attrs["offset"] = number + 1
        marker.set(phase=IN_COMMIT)
    marker.set(phase=BETWEEN, acknowledged=number + 1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("source")
    parser.add_argument("marker")
    parser.add_argument("--until", type=int, help="stop after this many batches; otherwise go on until killed")
    given = parser.parse_args()

    driver = os.getppid()
    digits = Digits.from_file(given.source)
    marker = Marker(given.marker)
    marker.set(phase=OPENING)
    with numpack.NumPack(given.store, **LIMITS) as npk:
        number = npk.attrs.get("offset", 0)
        marker.set(phase=BETWEEN, acknowledged=number)
        # Without a driver nobody would ever end it.
        while (given.until is None or number < given.until) and os.getppid() == driver:
            ingest(npk, digits, number, marker)
            number += 1
            stats = npk.stats()
            marker.set(commits=stats["commits"], folds=stats["folds"], segment_rolls=stats["segment_rolls"],
                       checkpoints=stats["checkpoints"], reclaims=stats["reclaims"], recoveries=stats["recoveries"],
                       bytes=stats["bytes_logged"])
    marker.set(phase=DONE)


if __name__ == "__main__":
    main()
