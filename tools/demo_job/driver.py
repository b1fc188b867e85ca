"""Runs the ingesting job, kills it at random moments, and proves at the end that nothing is lost and nothing is there twice.

After every kill npk-recover is asked, without opening the store, what is there; that must already be the state after the last
acknowledged batch or the one in flight.
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np

from marker import BETWEEN, IN_COMMIT, IN_TRANSACTION, PHASES, Marker
from stream import BATCH, DROP_EVERY, Digits, state_after
import numpack

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ROW_SIZE = 8 * 8 * 8 + 8 + 8 + 4
PAUSE_MS = 25           # how long the log-to-publish window is held open in the lives that aim at it

# What must have happened by the end: name -> least count.
REQUIRED = {
    "kills": 25,
    "kills inside a transaction": 10,
    "kills between log append and publish": 3,
    "background folds": 3,
    "segment rolls": 2,
    "checkpoints": 2,
    "reclaims": 1,
    "MiB committed": 64,
}
COUNTED = {"background folds": "folds", "segment rolls": "segment_rolls", "checkpoints": "checkpoints", "reclaims": "reclaims"}


class Failure(Exception):
    pass


class Screen:
    """A progress bar on a terminal; plain lines, and nothing that moves, elsewhere."""

    def __init__(self):
        self.live = sys.stderr.isatty()

    def line(self, text):
        if self.live:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
        print(text, flush=True)

    def bar(self, fraction, text):
        if self.live:
            done = int(30 * min(1.0, fraction))
            sys.stderr.write(f"\r\033[K[{'#' * done}{'.' * (30 - done)}] {text}")
            sys.stderr.flush()

    def end(self):
        if self.live:
            sys.stderr.write("\r\033[K")


class Demo:
    def __init__(self, given):
        self.screen = Screen()
        self.seed = given.seed
        self.random = random.Random(self.seed)
        self.work = pathlib.Path(given.directory)
        if self.work.exists():
            if not (self.work / "digits.npz").exists() and any(self.work.iterdir()):
                raise Failure(f"{self.work} holds something else than an earlier demo")
            shutil.rmtree(self.work)
        self.work.mkdir(parents=True)
        self.store = self.work / "store"
        self.source = self.work / "digits.npz"
        self.digits = Digits.from_scikit_learn()
        self.digits.to_file(self.source)
        self.marker = Marker(self.work / "marker", create=True)
        self.recover = shutil.which("npk-recover", path=str(pathlib.Path(sys.executable).parent))
        if not self.recover:
            raise Failure("npk-recover is not installed beside this Python")
        self.plot = pathlib.Path(given.plot)
        self.counts = dict.fromkeys(REQUIRED, 0)
        self.began = time.monotonic()
        self.curve = []         # (seconds, rows committed)
        self.kills = []         # (seconds, rows committed, inside a transaction)

    # ---- one life

    def start(self, pause=False, until=None):
        self.marker.set(**dict.fromkeys(("phase", "commits", *COUNTED.values(), "recoveries", "bytes"), 0))
        environment = dict(os.environ)
        environment.pop("NPK_TEST_PAUSE", None)
        if pause:
            environment["NPK_TEST_PAUSE"] = f"before_publish:{PAUSE_MS}"
        command = [sys.executable, str(HERE / "job.py"), str(self.store), str(self.source), str(self.work / "marker")]
        if until is not None:
            command += ["--until", str(until)]
        return subprocess.Popen(command, env=environment)

    def sample(self):
        self.curve.append((time.monotonic() - self.began, self.marker.get("acknowledged") * BATCH))

    def wait(self, job, ready):
        """Until ready() or the job ends, which it should not before it is killed."""
        while not ready():
            if job.poll() is not None:
                raise Failure(f"the job ended by itself with status {job.returncode}")
            self.sample()
            time.sleep(0.002)

    def life(self):
        """Start, wait for a random moment, kill. Returns what the marker said at the kill, and how long the job had the store."""
        missing_window = self.counts["kills between log append and publish"] < REQUIRED["kills between log append and publish"]
        pause = self.random.random() < (0.5 if missing_window else 0.15)
        during_start = self.random.random() < 0.1
        delay = self.random.uniform(0, 0.4) if during_start else self.random.uniform(0.05, 1.6)
        job = self.start(pause)
        try:
            if not during_start:
                self.wait(job, lambda: self.marker.get("phase") >= BETWEEN)
            end = time.monotonic() + delay
            self.wait(job, lambda: time.monotonic() >= end)
        finally:
            job.send_signal(signal.SIGKILL)
            job.wait()
        if job.returncode != -signal.SIGKILL:
            raise Failure(f"the job ended by itself with status {job.returncode}")
        self.sample()
        return self.marker.all(), delay, pause

    # ---- what is there, without opening it

    def inspect(self):
        run = subprocess.run([self.recover, "--json", str(self.store)], capture_output=True, text=True)
        try:
            report = json.loads(run.stdout)
        except ValueError:
            raise Failure(f"npk-recover: exit status {run.returncode}: {run.stderr.strip()}") from None
        if run.returncode not in (0, 8):
            raise Failure(f"npk-recover: exit status {run.returncode}: {run.stderr.strip()} {report['store']}")
        return run.returncode, report

    def judge(self, seen, pause):
        """Compare npk-recover's report with the marker; returns (verdict, batches found, in the log-to-publish window)."""
        status, report = self.inspect()
        acknowledged = seen["acknowledged"]
        if status == 8:
            # Killed before the store existed: nothing was acknowledged, so nothing may be missing.
            if acknowledged or report["error"]["kind"] not in ("not_found", "format_version"):
                raise Failure(f"npk-recover: {report['error']}")
            return "no store yet", 0, False
        store = report["store"]
        if store["verdict"] not in ("clean", "torn"):
            raise Failure(f"verdict {store['verdict']}: {store['reason']}: {store['findings']}")
        rows = {array["name"]: array["rows"] for array in store["arrays"]}
        found = None
        for batches in (acknowledged, acknowledged + 1):
            first, last = state_after(batches)
            wanted = dict.fromkeys(("images", "labels", "ids", "epoch"), last - first)
            wanted["statistics"] = 10
            if rows == (wanted if batches else {}):
                found = batches
        if found is None:
            raise Failure(f"{acknowledged} batches acknowledged, but the store has {rows}")
        # The batch is in the log, yet commit had not returned: killed between log append and publish. Counted only in lives
        # that hold this window open: elsewhere the commit could as well have been just behind publishing.
        window = pause and seen["phase"] == IN_COMMIT and found == acknowledged + 1
        return f"{store['verdict']}: {store['reason']}" if store["reason"] else store["verdict"], found, window

    # ---- the whole

    def kill_until_enough(self):
        while not self.enough():
            if len(self.kills) >= 80:
                raise Failure("80 kills, and still not everything has happened")
            seen, delay, pause = self.life()
            verdict, found, window = self.judge(seen, pause)
            inside = seen["phase"] in (IN_TRANSACTION, IN_COMMIT)
            self.kills.append((time.monotonic() - self.began, found * BATCH, inside))
            self.counts["kills"] += 1
            self.counts["kills inside a transaction"] += inside
            self.counts["kills between log append and publish"] += window
            for name, field in COUNTED.items():
                self.counts[name] += seen[field]
            self.counts["MiB committed"] = found * BATCH * ROW_SIZE // (1 << 20)
            self.screen.line(f"kill {len(self.kills):3d}  {delay:4.2f} s  {PHASES[seen['phase']]:16s} acknowledged {seen['acknowledged']:6d}  "
                             f"in the store {found:6d}{'  window' if window else '        '}  {verdict}")
            self.screen.bar(len(self.kills) / REQUIRED["kills"],
                            f"{len(self.kills)} kills, {self.counts['MiB committed']} MiB committed")
        return found

    def enough(self):
        return all(self.counts[name] >= least for name, least in REQUIRED.items() if name != "MiB committed")

    def finish(self, found):
        """A last life, left alone: up to the end of an epoch's worth of drops and at least the required size."""
        least = REQUIRED["MiB committed"] * (1 << 20) // (BATCH * ROW_SIZE) + 1
        until = max(found, least) + DROP_EVERY // 2
        job = self.start(until=until)
        try:
            while job.poll() is None:
                self.sample()
                self.screen.bar(self.marker.get("acknowledged") / until, "last life, left alone")
                time.sleep(0.02)
        finally:
            job.kill()
        self.sample()
        if job.returncode:
            raise Failure(f"the last life ended with status {job.returncode}")
        self.counts["MiB committed"] = until * BATCH * ROW_SIZE // (1 << 20)
        return until

    def check(self, batches):
        """Every row that should be there, once, in order, read in every way there is."""
        first, last = state_after(batches)
        wanted = self.digits.rows(first, last)
        wanted["statistics"] = self.digits.statistics(0, last)
        checks = []

        def check(text, good):
            checks.append((text, bool(good)))

        with numpack.NumPack(self.store, mode="r") as npk:
            check(f"offset is {batches}", npk.attrs["offset"] == batches)
            check("arrays are the five", npk.get_member_list() == sorted(wanted))
            eager = {name: npk.load(name) for name in wanted}
            lazy = {name: np.asarray(npk.load(name, lazy=True)) for name in wanted}
            check("verify finds nothing", not npk.verify())
        check(f"ids are {first:,} .. {last - 1:,}, each once, in order", np.array_equal(eager["ids"], wanted["ids"]))
        for name in ("images", "labels", "epoch"):
            check(f"{name}: {len(wanted[name]):,} rows equal the source", np.array_equal(eager[name], wanted[name]))
        check("statistics equal a recomputation over all rows", np.array_equal(eager["statistics"], wanted["statistics"]))
        check("lazy load equals eager load", all(np.array_equal(lazy[name], eager[name]) for name in wanted))

        with numpack.NumPack(self.store, mode="r+") as npk:
            npk.compact()
        # Names of arrays are not in file names: for each array one file must hold exactly its rows.
        files = [np.load(path, mmap_mode="r") for path in sorted((self.store / "columns").glob("*.npy"))]
        for name in wanted:
            same = [f for f in files if f.dtype == eager[name].dtype and np.array_equal(f, eager[name])]
            check(f"np.load of the compacted column file of {name}", same)

        status, report = self.inspect()
        check("npk-recover: clean", status == 0 and report["store"]["verdict"] == "clean")
        return checks

    def draw(self):
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
        figure, axes = plt.subplots(figsize=(9, 4.5), constrained_layout=True)
        seconds, rows = zip(*self.curve)
        axes.plot(seconds, rows, color="tab:blue", linewidth=1.5, label="rows committed")
        for inside, color, label in ((True, "tab:red", "killed inside a transaction"), (False, "tab:orange", "killed outside")):
            points = [(when, count) for when, count, within in self.kills if within == inside]
            if points:
                axes.plot(*zip(*points), "x", color=color, label=label)
        axes.set_xlabel("seconds")
        axes.set_ylabel("rows committed")
        axes.set_title(f"ingestion under {len(self.kills)} kills (seed {self.seed})")
        axes.legend()
        axes.grid(alpha=0.3)
        self.plot.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.plot, dpi=120)
        plt.close(figure)

    def run(self):
        print(f"seed {self.seed}; {len(self.digits.labels)} digits, batches of {BATCH} rows; store {self.store}", flush=True)
        found = self.kill_until_enough()
        batches = self.finish(found)
        checks = self.check(batches)
        self.screen.end()
        self.draw()

        print()
        for text, good in checks:
            print(f"  {'ok    ' if good else 'NOT OK'}  {text}")
        print()
        print(f"  {'what':40s} {'count':>9s} {'at least':>9s}")
        for name, least in REQUIRED.items():
            enough = self.counts[name] >= least
            print(f"  {name:40s} {self.counts[name]:9,d} {least:9d}{'' if enough else '  NOT REACHED'}")
        print(f"\nplot: {self.plot}; {time.monotonic() - self.began:.0f} s")
        return all(good for _, good in checks) and all(self.counts[name] >= least for name, least in REQUIRED.items())


def main():
    parser = argparse.ArgumentParser(prog="tools/demo", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"), help="of the moments of the kills")
    parser.add_argument("--directory", default=str(ROOT / "build" / "demo"), help="where the store is made; an earlier demo there is removed")
    parser.add_argument("--plot", default=str(ROOT / "build" / "demo.png"))
    try:
        good = Demo(parser.parse_args()).run()
    except Failure as failure:
        print(f"demo: {failure}", file=sys.stderr)
        good = False
    print("demo passed" if good else "demo FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
