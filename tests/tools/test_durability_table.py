"""The table of core/DURABILITY.md: each cell names a test, and each test it names is there and runs."""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / "core" / "DURABILITY.md").read_text(encoding="utf-8")
LEVELS = 3
FAULTS = ("process crash", "crash of the system", "power loss", "failed sync", "full disk", "bit rot")


def rows(text):
    """[(fault, [cell, ...])] of the table."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [(cells[0], cells[1:]) for cells in ([c.strip() for c in line.strip("|").split("|")] for line in lines[1:])]


def listed_tests(text):
    """{number: (path, [name, ...])} of the list."""
    found = {}
    for number, path, rest in re.findall(r"^\* \[(\d+)\] `([^`]+)` (.*)$", text, re.M):
        found[number] = (path, re.findall(r"`([^`]+)`", rest))
    return found


def missing(text):
    """What the page says and the tree does not hold."""
    wrong = []
    listed = listed_tests(text)
    for path, names in listed.values():
        file = ROOT / "tests" / path
        source = file.read_text(encoding="utf-8") if file.is_file() else ""
        if not source:
            wrong.append(f"no file {path}")
        for name in names:
            # A test must be in a suite as well, not only be written down; a scenario is a string in its table.
            is_test = f"START_TEST({name})" in source and re.search(rf"tcase_add_\w*test\(\w+, {name}\b", source)
            if not is_test and not re.search(rf'[{{ ]"{re.escape(name)}",', source) and not re.search(rf"\b{name} = \d", source):
                wrong.append(f"no test or scenario {name} in {path}")
        if not names:
            wrong.append(f"{path} without a name")
    used = set(re.findall(r"\[(\d+)\]", "".join(cell for _, cells in rows(text) for cell in cells)))
    wrong += [f"[{number}] is not listed" for number in sorted(used - set(listed))]
    wrong += [f"[{number}] is not used" for number in sorted(set(listed) - used)]
    return wrong


def test_every_fault_and_level_has_a_cell_with_a_test():
    table = rows(TEXT)
    assert len(table) == len(FAULTS)
    for fault, (name, cells) in zip(FAULTS, table):
        assert name.startswith(fault)
        assert len(cells) == LEVELS
        for cell in cells:
            assert re.search(r"\[\d+\]", cell), f"{name}: no test behind \"{cell}\""


def test_every_test_that_is_named_exists():
    assert len(listed_tests(TEXT)) >= 10
    assert missing(TEXT) == []


def test_a_name_that_does_not_exist_is_found():
    broken = TEXT.replace("`failed-sync-old`", "`failed-sync-odd`").replace("test_every_io_call", "test_each_io_call")
    assert len(missing(broken)) == 2
    assert missing(TEXT.replace("kill/kill.c", "kill/gone.c"))
    assert missing(re.sub(r"^\* \[12\].*\n", "", TEXT, flags=re.M)) == ["[12] is not listed"]
