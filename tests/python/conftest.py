"""Fixtures: a path for a store, and a store."""

import numpy as np
import pytest

from numpack import NumPack


@pytest.fixture
def path(tmp_path):
    """Where a store can be."""
    return tmp_path / "store"


@pytest.fixture
def npk(path):
    """An empty store, closed at the end whatever the test did."""
    store = NumPack(path, sync="never", busy_timeout=0.2)
    store.open()
    yield store
    store.close()


@pytest.fixture
def rng():
    return np.random.default_rng(20)
