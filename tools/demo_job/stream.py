"""The input of the demo and what must become of it: known to the job, which writes it, and to the driver, which checks it.

The stream repeats the digits for ever. Row r of the stream is digit r % len(digits) in epoch r // len(digits) and has the id r,
so that each row can be told from every other and from its place. Batch b holds the rows [b * BATCH, (b + 1) * BATCH).
"""
import numpy as np

BATCH = 96
DROP_EVERY = 60     # batches between two drops of the oldest rows
KEEP = 24_000       # rows left by such a drop
CLASSES = 10


def state_after(batches):
    """First and one past the last id in the store once `batches` batches are committed."""
    last_drop = batches // DROP_EVERY * DROP_EVERY
    return max(0, last_drop * BATCH - KEEP), batches * BATCH


class Digits:
    def __init__(self, images, labels):
        self.images = images                         # (n, 8, 8) float64
        self.labels = labels.astype(np.int64)        # (n,)

    @classmethod
    def from_scikit_learn(cls):
        from sklearn.datasets import load_digits
        bundle = load_digits()
        return cls(bundle.images, bundle.target)

    @classmethod
    def from_file(cls, path):
        with np.load(path) as data:
            return cls(data["images"], data["labels"])

    def to_file(self, path):
        np.savez(path, images=self.images, labels=self.labels)

    def rows(self, first, last):
        """The arrays of the stream's rows [first, last)."""
        ids = np.arange(first, last, dtype=np.int64)
        where = ids % len(self.labels)
        return {
            "images": self.images[where],
            "labels": self.labels[where],
            "ids": ids,
            "epoch": (ids // len(self.labels)).astype(np.int32),
        }

    def batch(self, number):
        return self.rows(number * BATCH, (number + 1) * BATCH)

    def statistics(self, first, last):
        """Per class: rows seen, then the sum of each pixel. Whole numbers below 2**53, so float64 sums are exact in any order."""
        out = np.zeros((CLASSES, 65))
        rounds, rest = divmod(last - first, len(self.labels))
        repeats = np.full(len(self.labels), rounds)
        repeats[(np.arange(rest) + first) % len(self.labels)] += 1
        for label in range(CLASSES):
            mine = self.labels == label
            out[label, 0] = repeats[mine].sum()
            out[label, 1:] = (self.images[mine].reshape(-1, 64) * repeats[mine, None]).sum(axis=0)
        return out
