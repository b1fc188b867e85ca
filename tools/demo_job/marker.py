"""A page shared by the ingesting process and the driver: what the job was doing when it died.

A mapped file outlives SIGKILL: what was stored in it is in the page cache. It tells the driver where the kill fell; it is no part
of what makes the store recover.
"""
import mmap
import os
import struct

STARTING, OPENING, BETWEEN, IN_TRANSACTION, IN_COMMIT, DONE = range(6)
PHASES = ("starting", "opening", "between batches", "in transaction", "in commit", "done")

FIELDS = ("phase", "batch", "acknowledged", "commits", "folds", "segment_rolls", "checkpoints", "reclaims", "recoveries", "bytes")
LAYOUT = struct.Struct("<Q")


class Marker:
    def __init__(self, path, create=False):
        flags = os.O_RDWR | (os.O_CREAT if create else 0)
        fd = os.open(path, flags, 0o600)
        try:
            if create:
                os.ftruncate(fd, mmap.PAGESIZE)
            self._map = mmap.mmap(fd, mmap.PAGESIZE)
        finally:
            os.close(fd)

    def set(self, **values):
        for name, value in values.items():
            LAYOUT.pack_into(self._map, 8 * FIELDS.index(name), value)

    def get(self, name):
        return LAYOUT.unpack_from(self._map, 8 * FIELDS.index(name))[0]

    def all(self):
        return {name: self.get(name) for name in FIELDS}
