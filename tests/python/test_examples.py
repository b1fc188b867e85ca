"""The examples in the docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

import numpack


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(numpack.__path__)])
def test_examples_run(name):
    module = importlib.import_module(f"numpack.{name}")
    assert doctest.testmod(module).failed == 0
