"""Runs the benchmarks and prints each figure beside its limit. Exit status 1 when one is missed."""
import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "bench"
SYNCS = {"fsync", "fdatasync", "msync", "sync_file_range", "syncfs", "sync"}


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def count_syncs(commits, directory):
    """Syncs per commit: of the committing thread, and of all others (background preparation) apart.

    A write to a file opened O_SYNC or O_DSYNC is a sync as well. (LMDB opens such a descriptor whether it uses it or not.)
    """
    writes = ("write", "writev", "pwrite64", "pwritev", "pwritev2")
    with tempfile.NamedTemporaryFile("r", suffix=".strace") as trace:
        command = ["strace", "-f", "-qq", "-o", trace.name, "-e", f"trace={','.join((*sorted(SYNCS), *writes, 'openat', 'open', 'close'))}",
                   str(BUILD / "bench_commit"), "-s", "-n", str(commits), *directory]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"strace failed:\n{done.stderr}")
        committing, background, inside, thread, synchronous = 0, 0, False, None, set()
        for line in trace:
            pid, _, call = line.partition(" ")
            call = call.strip()
            name, _, rest = call.partition("(")
            descriptor = re.match(r"\d+", rest)
            descriptor = descriptor and descriptor.group()
            if name in ("open", "openat"):
                result = call.rpartition("= ")[2].split(" ")[0]
                (synchronous.add if re.search(r"O_D?SYNC", call) else synchronous.discard)(result)
            elif name == "close":
                synchronous.discard(descriptor)
            elif "bench: first commit" in call:
                inside, thread = True, pid
            elif "bench: last commit" in call:
                inside = False
            elif inside and (name in SYNCS or name in writes and descriptor in synchronous):
                if pid == thread:
                    committing += 1
                else:
                    background += 1
    return committing / commits, background / commits


IMPORT = "import time, numpy; began = time.perf_counter(); import numpack; print(time.perf_counter() - began)"


def measure_store(figure, directory):
    """Figures of the promises: what a commit costs, loading, memory, checking, opening."""
    commit = run(BUILD / "bench_commit", *directory)
    detail = f"store {commit['store_us']} us, bare {commit['bare_us']} us, lmdb {commit['lmdb_us']} us, {commit['bytes_per_commit']} bytes"
    figure("durable one-row commit / append + fdatasync", commit["store_over_bare"], 1.3, detail=detail)
    figure("durable commits per second / LMDB's synced commits", commit["rate_over_lmdb"], 1.7, at_most=False)
    committing, background = count_syncs(1000, directory)
    figure("syncs per commit (strace, 1,000 commits)", committing, 1.05, detail=f"background preparation {background:.3f} per commit")
    load = run(sys.executable, ROOT / "bench" / "load.py", *directory)
    figure("load of 1,000,000 x 10 float32 / np.load", load["ratio"], 0.6, detail=f"{load['load_ms']} ms, np.load {load['np_load_ms']} ms")
    for batch in (16 * 1024, 1024):
        memory = run(BUILD / "bench_memory", "-b", batch, *directory)
        figure(f"MiB beyond the batches, 2 GiB in appends of {batch // 1024} MiB", memory["peak_beyond_batches_mib"], 300,
               detail=f"{memory['seconds']} s")
    verify = run(BUILD / "bench_verify", *directory)
    figure("GB/s of a deep check, warm", verify["warm_verify_gb_s"], 8, at_most=False, detail=f"reading {verify['warm_read_gb_s']}")
    figure("a deep check against reading, cold", verify["cold_ratio"], 0.9, at_most=False, detail=f"{verify['cold_verify_gb_s']} GB/s")
    killed = run(BUILD / "bench_open", "-k", *directory)
    figure("ms to open after a kill with 64 MiB of log", killed["open_ms"], 150, detail=f"worst {killed['worst_ms']} ms")
    clean = run(BUILD / "bench_open", "-c", "-r", 21, *directory)
    figure("ms to open after a clean close", clean["open_ms"], 10, detail=f"worst {clean['worst_ms']} ms")


def measure_first(figure, directory):
    """First speed of the Python interface: 1,000,000 x 10 float32, sync="never", one auto-commit for each call."""
    replace = run(sys.executable, ROOT / "bench" / "replace.py", *directory)
    for name, what, limit in (("1", "1 row", 5), ("100_contiguous", "100 contiguous rows", 5), ("10000_contiguous", "10,000 contiguous rows", 5),
                              ("10000_sorted", "10,000 scattered rows, sorted", 1.5), ("10000_unsorted", "10,000 scattered rows", 1.5)):
        case = replace[name]
        figure(f"replace of {what} / memmap", case["ratio"], limit, detail=f"{case['us']} us, memmap {case['memmap_us']} us")
    figure("million one-row replaces a second, in one call", replace["single_rows"]["rows_per_second"] / 1e6, 3, at_most=False)
    reads = run(sys.executable, ROOT / "bench" / "reads.py", *directory)
    for kind, limit in (("compacted", 1.0), ("10_percent_pending", 1.5)):
        for count in ("100", "10000"):
            case = reads[kind][f"getitem_{count}"]
            figure(f"getitem of {count} random rows, {kind.replace('_', ' ')} / memmap", case["ratio"], limit,
                   detail=f"{case['us']} us, memmap {case['memmap_us']} us")
    lazy = reads["compacted"]["view"]
    figure("lazy load, times faster than np.load(mmap_mode='r')", lazy["times_faster"], 40, at_most=False, detail=f"{lazy['lazy_us']} us")
    save = run(sys.executable, ROOT / "bench" / "save.py", *directory)
    figure("save over an array / np.save over a file", save["ratio"], 0.9, detail=f"{save['save_ms']} ms, np.save {save['np_save_ms']} ms")
    figure("ms for a writable batch of 100 scattered row edits", reads["batch_ms"]["0_pending"], 3)
    times = [float(subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True).stdout) for _ in range(11)]
    figure("ms to import numpack beyond numpy", statistics.median(times) * 1e3, 15)


def main():
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument("-d", "--directory", help="where the stores are made: the disk to measure")
    parser.add_argument("--first", action="store_true", help="the first speed of the Python interface instead of the promises of the store")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    directory = ["-d", given.directory] if given.directory else []
    figures = []

    def figure(what, value, limit, at_most=True, detail=""):
        good = value <= limit if at_most else value >= limit
        figures.append({"what": what, "value": value, "limit": limit, "at_most": at_most, "good": good, "detail": detail})
        if not given.json:
            print(f"{what:64s} {value:9.3f}  {'<=' if at_most else '>='} {limit:7.2f}  {'ok    ' if good else 'MISSED'}  {detail}", flush=True)

    (measure_first if given.first else measure_store)(figure, directory)
    if given.json:
        print(json.dumps(figures, indent=2))
    return 0 if all(entry["good"] for entry in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
