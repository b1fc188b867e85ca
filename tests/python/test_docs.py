"""What help() shows: every public name is described, with parameters, result and an example, and the examples run."""

import ast
import builtins
import doctest
import importlib
import inspect
import pathlib
import pkgutil
import re

import numpy as np
import pytest

import numpack
from numpack import NumPack
from numpack._attrs import Attributes, ReadOnlyAttributes

CLASSES = [item for item in map(numpack.__dict__.get, numpack.__all__) if isinstance(item, type)]
CLASSES += [numpack.BatchModeContext, numpack.WritableBatchMode, Attributes, ReadOnlyAttributes]
ERRORS = [item for item in CLASSES if issubclass(item, numpack.NumPackError)]


def members():
    """(class or None, name, function or property) of everything public that this package itself defines."""
    for name in numpack.__all__:
        if inspect.isfunction(getattr(numpack, name)):
            yield None, name, getattr(numpack, name)
    for cls in CLASSES:
        seen = set()
        for base in cls.__mro__:
            if not base.__module__.startswith("numpack"):
                continue
            for name, item in vars(base).items():
                shown = not name.startswith("_") and (inspect.isfunction(item) or isinstance(item, property))
                if shown and name not in seen:
                    seen.add(name)
                    yield cls, name, item


MEMBERS = list(members())
METHODS = [member for member in MEMBERS if not isinstance(member[2], property)]


def names(cases):
    return [f"{cls.__name__}.{name}" if cls else name for cls, name, _ in cases]


def section(text, title):
    """The lines of one section of a docstring, or None."""
    lines = inspect.cleandoc(text).split("\n")
    for at in range(len(lines) - 1):
        if lines[at] == title and lines[at + 1] == "-" * len(title):
            end = next((stop - 1 for stop in range(at + 2, len(lines)) if set(lines[stop]) == {"-"}), len(lines))
            return lines[at + 2:end]
    return None


def described(text):
    """The parameters that a docstring describes, each of them with a text."""
    lines = section(text, "Parameters") or []
    found = []
    for at, line in enumerate(lines):
        if line and not line.startswith(" "):
            head = line.partition(" : ")[0]
            assert lines[at + 1].startswith("    "), f"{head}: nothing is said"
            found += [name.strip().lstrip("*") for name in head.split(",")]
    return found


def stubs():
    """Class.method or function -> whether the stubs say that it gives something."""
    found = {}
    for path in pathlib.Path(numpack.__file__).parent.glob("*.pyi"):
        for node in ast.parse(path.read_text()).body:
            inside = node.body if isinstance(node, ast.ClassDef) else [node]
            prefix = node.name + "." if isinstance(node, ast.ClassDef) else ""
            for item in inside:
                if isinstance(item, ast.FunctionDef):
                    gives = not (isinstance(item.returns, ast.Constant) and item.returns.value is None)
                    found[prefix + item.name] = found.get(prefix + item.name, False) or gives
    return found


STUBS = stubs()


def parameters(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_what_is_walked():
    assert len(ERRORS) == 23 and {"LazyArray", "Snapshot", "ArrayHandle"} <= {cls.__name__ for cls in CLASSES}
    found = names(MEMBERS)
    for name in ("NumPack.close", "NumPack.lsn", "Transaction.save", "WritableBatchMode.rollback", "Attributes.update",
                 "LazyArray.boolean_index_smart", "force_cleanup_windows_handles"):
        assert name in found


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_class_says_what_it_is_and_how_one_comes_by_it(cls):
    text = vars(cls)["__doc__"]
    assert text and summary(text)
    if cls in ERRORS:
        return
    assert ">>> " in text
    if cls is NumPack:
        assert described(text) == parameters(cls.__init__)
    else:
        assert re.search(r"(made|given) by :meth:`NumPack\.\w+`", text, re.I)
        assert all(hasattr(NumPack, name) for name in re.findall(r":meth:`NumPack\.(\w+)`", text))


def test_what_an_error_is_made_of():
    assert described(numpack.NumPackError.__doc__) == parameters(numpack.NumPackError.__init__)


def summary(text):
    """The first line, if it is a sentence of its own."""
    first, _, rest = inspect.cleandoc(text).partition("\n")
    return first.endswith(".") and (not rest or rest.startswith("\n"))


@pytest.mark.parametrize("cls, name, item", MEMBERS, ids=names(MEMBERS))
def test_a_member_has_a_summary(cls, name, item):
    assert item.__doc__ and summary(item.__doc__)


@pytest.mark.parametrize("cls, name, function", METHODS, ids=names(METHODS))
def test_a_method_says_what_it_takes_and_gives(cls, name, function):
    assert described(function.__doc__) == parameters(function)
    owner = next((base.__name__ for base in cls.__mro__ if f"{base.__name__}.{name}" in STUBS), None) if cls else None
    gives = STUBS[f"{owner}.{name}" if owner else name]
    assert bool(section(function.__doc__, "Returns")) == gives
    for line in section(function.__doc__, "Raises") or []:
        if line and not line.startswith(" "):
            assert hasattr(numpack, line) or issubclass(getattr(builtins, line), Exception)


@pytest.mark.parametrize("cls, name, function", METHODS, ids=names(METHODS))
def test_a_method_has_an_example(cls, name, function):
    if not function.__doc__.startswith(f"As :meth:`NumPack.{name}`"):  # of a transaction: there it is
        assert any(line.startswith(">>> ") for line in section(function.__doc__, "Examples"))


@pytest.mark.parametrize("name", ["", *sorted("." + module.name for module in pkgutil.iter_modules(numpack.__path__))])
def test_examples_run(name, tmp_path):
    """With what the package's docstring promises: np, and npk, an empty store."""
    module = importlib.import_module("numpack" + name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for number, test in enumerate(doctest.DocTestFinder().find(module)):
        test.globs["np"], test.globs["numpack"], test.globs["npk"] = np, numpack, NumPack(tmp_path / str(number))
        runner.run(test)
        test.globs["npk"] = None
    assert runner.failures == 0
