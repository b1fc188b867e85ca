#!/usr/bin/env python3
"""Includes point downward only, and nothing leaks out of the extension module.

    core/base  <  wal  <  core  <  clients (python, tools, bench), which see npk.h alone

Each foreign library has one door too, so that it can be replaced there. Tests may include what they test.
"""
import argparse
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)

# Layer -> (its files, the layers whose headers it may include). "public" is npk.h.
LAYERS = {
    "public": ("core/include/*.h", ()),
    "base": ("core/base/*.[ch]", ("public",)),
    "wal": ("wal/*.[ch]", ("public", "base")),
    "core": ("core/*.[ch]", ("public", "base", "wal")),
    "python": ("python/src/*.[ch]", ("public",)),
    "tools": ("tools/*.[ch]", ("public",)),
    "bench": ("bench/*.[ch]", ("public",)),
}

# Header -> the only files that may include it. bench compares with LMDB by itself.
DOORS = {
    "lmdb.h": {"core/index.c", "bench/commit.c"},
    "xxhash.h": {"core/base/checksum.c", "core/base/checksum_avx2.c", "core/base/checksum_avx512.c"},
    "lz4.h": None,
    "jansson.h": None,
    "Python.h": None,
}
# Where one file is not the rule, the folder is.
DOOR_FOLDERS = {"lz4.h": "wal/", "jansson.h": "tools/", "Python.h": "python/src/"}


def check_includes():
    files = {layer: sorted(ROOT.glob(pattern)) for layer, (pattern, _) in LAYERS.items()}
    owner = {}  # header name -> layers that have one of that name
    for layer, paths in files.items():
        for path in paths:
            if path.suffix == ".h":
                owner.setdefault(path.name, set()).add(layer)

    count, problems = 0, []
    for layer, paths in files.items():
        allowed = {layer, *LAYERS[layer][1]}
        for path in paths:
            name = path.relative_to(ROOT).as_posix()
            for match in INCLUDE.finditer(path.read_text(encoding="utf-8")):
                count += 1
                bracket, header = match.groups()
                header = header.rsplit("/", 1)[-1]
                if header in DOORS:
                    folder = DOOR_FOLDERS.get(header)
                    if not (name.startswith(folder) if folder else name in DOORS[header]):
                        problems.append(f"{name}: includes {header}, which has its door elsewhere")
                elif header in owner:
                    if not owner[header] & allowed:
                        problems.append(f"{name}: layer {layer} includes {header} of {', '.join(sorted(owner[header]))}")
                elif bracket == '"':
                    problems.append(f"{name}: includes \"{header}\", which no layer has")
    if count == 0:
        problems.append("no include found: the patterns no longer match the tree")
    return count, problems


def check_symbols(extension):
    """An extension module is found by its init function; anything else could clash with another module's."""
    lines = subprocess.run(["nm", "-D", "--defined-only", extension], check=True, capture_output=True, text=True).stdout
    names = {line.split()[-1].split("@")[0] for line in lines.splitlines()}
    module = pathlib.Path(extension).name.split(".")[0]
    expected = {f"PyInit_{module}"}
    return 1, [f"{extension}: exports {', '.join(sorted(names))}, expected {', '.join(expected)}"] if names != expected else []


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extension", help="path of the built extension module")
    given = parser.parse_args()
    count, problems = check_includes()
    if given.extension:
        more, leaks = check_symbols(given.extension)
        count += more
        problems += leaks
    for problem in problems:
        print(problem)
    print(f"{count - len(problems) if count else 0} passed, {len(problems)} failed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
