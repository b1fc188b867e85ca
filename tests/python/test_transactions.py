"""Transactions: atomicity, ownership, nesting, attributes, snapshots, batches."""

import asyncio
import contextvars
import gc
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from numpack import LazyArray, NumPack, Transaction


def run_in_thread(function):
    """The result of the function in another thread, or its exception raised here."""
    box = []

    def call():
        try:
            box.append((function(), None))
        except BaseException as error:
            box.append((None, error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    result, error = box[0]
    if error is not None:
        raise error
    return result


def test_a_block_commits_as_one(npk):
    with npk.transaction() as txn:
        npk.save({"a": [1]})
        npk.append({"a": [2]})
        txn.append({"a": [3]})
        npk.attrs["offset"] = 3
        assert npk.load("a").tolist() == [1, 2, 3] and txn["a"].tolist() == [1, 2, 3] and "a" in txn
        assert run_in_thread(lambda: npk.get_member_list()) == []
        assert txn.lsn is None
    assert txn.lsn == npk.lsn
    assert run_in_thread(lambda: npk.load("a").tolist()) == [1, 2, 3] and npk.attrs["offset"] == 3


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_any_exception_rolls_back(npk, error):
    npk.save({"a": [1]})
    with pytest.raises(error):
        with npk.transaction() as txn:
            npk.append({"a": [2]})
            npk.save({"b": [1]})
            npk.attrs["x"] = 1
            lazy = npk.load("a", lazy=True)
            raise error()
    assert npk.load("a").tolist() == [1] and npk.get_member_list() == ["a"] and dict(npk.attrs) == {}
    assert txn.lsn is None and lazy[:].tolist() == [1, 2]


def test_generator_exit_rolls_back(npk):
    def ingest():
        with npk.transaction():
            npk.save({"a": [1]})
            yield

    generator = ingest()
    next(generator)
    generator.close()
    assert npk.get_member_list() == []
    npk.save({"b": [1]})


def test_a_failing_call_undoes_itself_only(npk):
    npk.save({"a": [1], "b": [[1, 2]]})
    with npk.transaction():
        npk.append({"a": [2]})
        with pytest.raises(ValueError):
            npk.append({"a": [3], "b": [3]})
        with pytest.raises(KeyError):
            npk.replace({"a": 9, "missing": 9}, 0)
        with pytest.raises(IndexError):
            npk.replace({"a": [9]}, 7)
        npk.append({"a": [4]})
    assert npk.load("a").tolist() == [1, 2, 4] and npk.load("b").tolist() == [[1, 2]]


def test_nested_blocks_are_savepoints(npk):
    with npk.transaction() as outer:
        npk.save({"a": [1]})
        with pytest.raises(ZeroDivisionError):
            with npk.transaction():
                npk.append({"a": [2]})
                with npk.transaction():
                    npk.append({"a": [3]})
                assert npk.load("a").tolist() == [1, 2, 3]
                1 / 0
        assert npk.load("a").tolist() == [1]
        with npk.transaction() as inner:
            npk.append({"a": [5]})
        assert inner.lsn is None
    assert npk.load("a").tolist() == [1, 5] and outer.lsn is not None and inner.lsn is None


def test_rollback(npk):
    npk.save({"a": [1]})
    with npk.transaction() as txn:
        npk.append({"a": [2]})
        txn.rollback()
        for call in (lambda: npk.append({"a": [3]}), lambda: npk.load("a"), lambda: txn.load("a"), txn.rollback,
                     lambda: npk.transaction().__enter__()):
            with pytest.raises(RuntimeError, match="rolled back"):
                call()
    assert txn.lsn is None and npk.load("a").tolist() == [1]
    with npk.transaction():
        npk.append({"a": [4]})
        with npk.transaction() as inner:
            npk.append({"a": [5]})
            inner.rollback()
            with pytest.raises(RuntimeError):
                npk.append({"a": [6]})
        npk.append({"a": [7]})
    assert npk.load("a").tolist() == [1, 4, 7]
    with npk.transaction() as outer:
        with npk.transaction():
            npk.append({"a": [8]})
            outer.rollback()
            with pytest.raises(RuntimeError):
                npk.append({"a": [6]})
    assert npk.load("a").tolist() == [1, 4, 7]


def test_a_finished_transaction_cannot_be_used(npk):
    txn = npk.transaction()
    with pytest.raises(RuntimeError):
        txn.save({"a": [1]})
    with txn:
        pass
    for call in (lambda: txn.save({"a": [1]}), txn.rollback, txn.__enter__):
        with pytest.raises(RuntimeError):
            call()


def test_close_inside_is_refused(npk):
    with npk.transaction():
        npk.save({"a": [1]})
        with pytest.raises(RuntimeError):
            npk.close()
    assert npk.load("a").tolist() == [1]


def test_other_threads_wait_and_then_time_out(npk):
    with npk.transaction():
        npk.save({"a": [1]})
        started = time.monotonic()
        with pytest.raises(TimeoutError, match=str(os.getpid())) as caught:
            run_in_thread(lambda: npk.save({"b": [1]}))
        assert 0.15 < time.monotonic() - started < 5 and caught.value.kind == "busy"
        with pytest.raises(RuntimeError):
            run_in_thread(lambda txn=npk: None or _use(txn))


def _use(npk):
    txn = npk._open[0]
    txn.save({"c": [1]})


def test_own_thread_gets_busy_at_once(path):
    with NumPack(path, busy_timeout=30) as npk, NumPack(path, busy_timeout=30) as other:
        with npk.transaction():
            npk.save({"a": [1]})
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                other.save({"b": [1]})
            with pytest.raises(TimeoutError):
                with other.transaction():
                    pass
            assert time.monotonic() - started < 2
            assert other.get_member_list() == []
        other.save({"b": [1]})


def test_waiting_writers_get_their_turn(npk, path):
    def work():
        with NumPack(path, sync="never", busy_timeout=30) as own:
            for _ in range(20):
                with own.transaction():
                    own.append({"a": [1]})
                    own.attrs["count"] = own.attrs.get("count", 0) + 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert npk.get_shape("a") == (80,) and npk.attrs["count"] == 80


def test_one_handle_in_many_threads(path):
    npk = NumPack(path, sync="never", busy_timeout=30)

    def work(number):
        for step in range(20):
            npk.append({"a": [number * 1000 + step]})
            npk.load("a")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(npk.load("a").tolist()) == sorted(n * 1000 + s for n in range(4) for s in range(20))
    npk.close()


def test_asyncio_tasks_do_not_share_a_transaction(path):
    npk = NumPack(path, busy_timeout=30)
    npk.save({"a": [1]})

    async def child():
        assert npk.load("a").tolist() == [1]
        with pytest.raises(TimeoutError):
            npk.append({"a": [9]})

    async def main():
        with npk.transaction():
            npk.append({"a": [2]})
            await asyncio.create_task(child())
            assert npk.load("a").tolist() == [1, 2]

    asyncio.run(main())
    assert npk.load("a").tolist() == [1, 2]
    npk.close()


def test_leaving_in_another_thread_rolls_back(npk):
    txn = npk.transaction()
    txn.__enter__()
    npk.save({"a": [1]})
    with pytest.raises(RuntimeError):
        run_in_thread(lambda: txn.__exit__(None, None, None))
    assert npk.get_member_list() == [] and txn.lsn is None
    npk.save({"b": [1]})


def test_a_dropped_transaction_lets_the_lock_go(npk):
    txn = npk._begin(npk._core)
    del txn
    npk.save({"a": [1]})


def test_keyboard_interrupt_ends_a_wait(path):
    script = f"""
import os, signal, threading, time, numpack
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with the signal ignored
npk = numpack.NumPack({str(path)!r}, busy_timeout=60)
held, done = threading.Event(), threading.Event()
def hold():
    with npk.transaction():
        npk.save({{"a": [1]}})
        held.set()
        done.wait()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
started = time.monotonic()
try:
    npk.save({{"b": [1]}})
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - started < 5)
done.set()
thread.join()
npk.save({{"c": [1]}})
print(npk.get_member_list())
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines() == ["interrupted True", "['a', 'c']"], result.stderr


def test_keyboard_interrupts_at_any_point_leave_a_usable_store(path):
    npk = NumPack(path, sync="never", busy_timeout=5)
    npk.save({"a": np.empty((0, 2), np.int64)})
    committed = 0
    for step in range(60):
        txn = None
        timer = threading.Timer(0.0002 * (step % 20), signal.raise_signal, (signal.SIGINT,))
        try:
            timer.start()
            with npk.transaction() as txn:
                npk.append({"a": [[step, 0]]})
                npk.append({"a": [[step, 1]]})
                npk.attrs["step"] = step
            timer.join()
            time.sleep(0.001)
        except KeyboardInterrupt:
            pass
        timer.join()
        committed += txn is not None and txn.lsn is not None
    try:
        time.sleep(0.01)
    except KeyboardInterrupt:
        pass
    rows = npk.load("a")
    assert np.array_equal(rows[::2, 0], rows[1::2, 0]) and len(rows) >= 2 * committed
    npk.close()


def test_sync_of_one_commit(npk):
    with npk.transaction(sync="commit"):
        npk.save({"a": [1]})
    with pytest.raises(ValueError):
        npk.transaction(sync="sometimes")


def test_upkeep_inside_happens_after_the_commit(npk):
    npk.save({"a": np.arange(10)})
    with npk.transaction():
        npk.replace({"a": 5}, 0)
        npk.update("a")
        npk.compact()
        npk.checkpoint()
    assert npk.stats()["pending_rows"]["a"] == 0 and npk.load("a")[0] == 5


def test_upkeep_of_an_array_that_the_transaction_then_drops(npk):
    npk.save({"a": [1]})
    with npk.transaction() as txn:
        npk.update("a")
        npk.drop("a")
        with pytest.raises(ZeroDivisionError):
            with npk.transaction():
                npk.save({"b": [1]})
                npk.update("b")
                1 / 0
    assert txn.lsn == npk.lsn and len(npk) == 0


# ---- attributes --------------------------------------------------------------------------------------------

def test_attributes_hold_json_values(npk):
    values = {"i": 1, "big": 2 ** 64 - 1, "low": -2 ** 63, "f": 0.5, "s": "\u00e4", "n": None, "t": True,
              "l": [1, [2, {"x": None}]], "d": {"a": {"b": []}}}
    npk.attrs.update(values)
    assert dict(npk.attrs) == values and len(npk.attrs) == len(values) and npk.attrs["t"] is True
    npk.attrs["np"] = {"i": np.int32(4), "f": np.float32(0.5), "b": np.bool_(True), "t": (1, 2), "s": np.str_("x")}
    assert npk.attrs["np"] == {"i": 4, "f": 0.5, "b": True, "t": [1, 2], "s": "x"}
    npk.attrs["l"].append(1)
    assert npk.attrs["l"] == values["l"]
    del npk.attrs["l"]
    assert "l" not in npk.attrs and npk.attrs.get("l", 5) == 5 and npk.attrs.pop("i") == 1
    with pytest.raises(KeyError):
        npk.attrs["l"]
    with pytest.raises(KeyError):
        del npk.attrs["l"]
    npk.attrs.clear()
    assert dict(npk.attrs) == {}


def test_attributes_refuse_the_rest(npk):
    for bad in (float("nan"), float("inf"), 2 ** 64, -2 ** 63 - 1, [np.float64("nan")], {"x": 2 ** 70}, "\ud800"):
        with pytest.raises(ValueError):
            npk.attrs["x"] = bad
    for bad in (object(), {1: 2}, b"x", {1, 2}, np.arange(3), 1j):
        with pytest.raises(TypeError):
            npk.attrs["x"] = bad
    for bad in ("", "x" * 256, "a\0b", "\ud800"):
        with pytest.raises(ValueError):
            npk.attrs[bad] = 1
    with pytest.raises(TypeError):
        npk.attrs[5] = 1
    assert dict(npk.attrs) == {}


def test_array_attributes_follow_the_array(npk):
    npk.save({"a": [1]})
    npk.array_attrs("a")["unit"] = "m"
    npk.save({"a": [2, 3]})
    assert dict(npk.array_attrs("a")) == {"unit": "m"} and dict(npk.load("a", lazy=True).attrs) == {"unit": "m"}
    npk.rename("a", "b")
    assert dict(npk.array_attrs("b")) == {"unit": "m"}
    npk.drop("b")
    npk.save({"b": [1]})
    assert dict(npk.array_attrs("b")) == {}
    with pytest.raises(KeyError):
        npk.array_attrs("missing")["x"] = 1
    with pytest.raises(KeyError):
        dict(npk.array_attrs("missing"))


def test_attributes_are_transactional(npk):
    npk.save({"a": [1]})
    with pytest.raises(ZeroDivisionError):
        with npk.transaction():
            npk.attrs["x"] = 1
            npk.array_attrs("a")["y"] = 2
            assert npk.attrs["x"] == 1
            assert run_in_thread(lambda: dict(npk.attrs)) == {}
            1 / 0
    assert dict(npk.attrs) == {} and dict(npk.array_attrs("a")) == {}


# ---- snapshots ---------------------------------------------------------------------------------------------

def test_a_snapshot_is_one_state(npk):
    npk.save({"a": np.arange(5), "b": [1]})
    npk.attrs["x"] = 1
    npk.array_attrs("a")["u"] = "m"
    snapshot = npk.snapshot()
    lsn = npk.lsn
    npk.replace({"a": 9}, [0, 1])
    npk.drop("b")
    npk.attrs["x"] = 2
    npk.compact()
    npk.checkpoint()
    assert snapshot.lsn == lsn and list(snapshot) == ["a", "b"] and len(snapshot) == 2 and "b" in snapshot
    view = snapshot["a"]
    assert view[:].tolist() == [0, 1, 2, 3, 4] and snapshot["b"][0] == 1
    assert dict(snapshot.attrs) == {"x": 1} and dict(snapshot.array_attrs("a")) == {"u": "m"}
    with pytest.raises(TypeError):
        snapshot.attrs["x"] = 1
    with pytest.raises(KeyError):
        snapshot["c"]
    snapshot.close()
    snapshot.close()
    for call in (lambda: snapshot["a"], lambda: list(snapshot), lambda: snapshot.lsn, lambda: snapshot.attrs):
        with pytest.raises(RuntimeError):
            call()
    assert view[:].tolist() == [0, 1, 2, 3, 4]


def test_a_snapshot_inside_a_transaction_is_committed_state(npk):
    npk.save({"a": [1]})
    with npk.transaction():
        npk.save({"b": [1]})
        with npk.snapshot() as snapshot:
            assert list(snapshot) == ["a"]
        assert list(npk.load()) == ["a", "b"]


# ---- batches -----------------------------------------------------------------------------------------------

def test_batch_mode_commits_saved_objects_as_they_are_at_the_end(npk):
    npk.save({"a": np.zeros(3), "b": np.zeros(3)})
    with npk.batch_mode(memory_limit=5) as ctx:
        a, b = npk.load("a"), npk.load("b")
        assert npk.load("a") is a and npk._cache_enabled and "a" in npk._memory_cache
        a[0] = 1
        npk.save({"a": a})
        a[1] = 2
        b[0] = 7  # not saved
        new = np.array([5.0])
        npk.save({"c": new})
        assert "c" in ctx._dirty_arrays and npk.load("c") is new
        assert npk.get_shape() == {"a": (3,), "b": (3,), "c": (1,)} and npk.getitem("a", 1)[0] == 2
    assert npk.load("a").tolist() == [1, 2, 0] and npk.load("b").tolist() == [0, 0, 0] and npk.load("c").tolist() == [5]
    assert not npk._cache_enabled and npk._memory_cache == {}


def test_batch_mode_row_operations_write_first_and_forget(npk):
    npk.save({"a": np.zeros(3)})
    with npk.batch_mode():
        a = npk.load("a")
        a[0] = 1
        npk.save({"a": a})
        npk.append({"a": [4.0]})
        again = npk.load("a")
        assert again is not a and again.tolist() == [1, 0, 0, 4]
        a[2] = 9  # forgotten
        npk.replace({"a": 3.0}, 1)
        npk.drop("a", 0)
        assert npk.load("a").tolist() == [3, 0, 4]
    assert npk.load("a").tolist() == [3, 0, 4]


def test_batch_mode_rolls_back_and_nests(npk):
    npk.save({"a": np.zeros(2)})
    with pytest.raises(ZeroDivisionError):
        with npk.batch_mode():
            npk.save({"a": np.ones(2), "b": [1]})
            1 / 0
    assert npk.load("a").tolist() == [0, 0] and "b" not in npk
    with npk.batch_mode():
        a = npk.load("a")
        a[0] = 1
        npk.save({"a": a})
        with npk.batch_mode():
            inner = npk.load("a")
            assert inner is not a and inner.tolist() == [1, 0]
            inner[1] = 2
            npk.save({"a": inner})
        assert npk.load("a").tolist() == [1, 2]
        with pytest.raises(ZeroDivisionError):
            with npk.batch_mode():
                npk.save({"a": np.full(2, 9.0)})
                1 / 0
        assert npk.load("a").tolist() == [1, 2]
    assert npk.load("a").tolist() == [1, 2]


def test_writable_batch_commits_changed_rows(npk, rng):
    a = rng.random((20000, 10))
    npk.save({"a": a, "z": np.float64(1), "e": np.empty((0, 2))})
    npk.compact()
    with npk.writable_batch_mode() as wb:
        w = wb.load("a")
        assert wb.load("a") is w and w.flags.writeable and not w.flags.owndata
        w[5] = 0
        w[15000:15003, 2] = 7
        wb.save({"a": w})
        z = wb.load("z")
        z[...] = 4
        assert np.array_equal(npk.load("a"), a)
        for call in (lambda: npk.save({"a": a}), lambda: npk.drop("a"), npk.reset):
            with pytest.raises(RuntimeError):
                call()
        with pytest.raises(KeyError):
            wb.load("missing")
        with pytest.raises(ValueError, match="cannot mmap an empty file"):
            wb.load("e")
        for bad in (a[:5], a.astype("f4")):
            with pytest.raises(ValueError):
                wb.save({"a": bad})
    a[5] = 0
    a[15000:15003, 2] = 7
    assert np.array_equal(npk.load("a"), a) and np.array_equal(w, a) and npk.load("z") == 4
    before = npk.stats().get("bytes_logged", 0)
    with npk.writable_batch_mode() as wb:
        wb.save({"a": a + 1})
    assert np.array_equal(npk.load("a"), a + 1) and npk.stats().get("bytes_logged", 0) >= before
    with pytest.raises(ZeroDivisionError):
        with npk.writable_batch_mode() as wb:
            wb.load("a")[:] = 0
            1 / 0
    assert np.array_equal(npk.load("a"), a + 1)


# ---- ownership, sentence by sentence ----------------------------------------------------------------------------

def test_the_busy_error_names_the_holder_and_comes_at_once_to_its_own_thread(path):
    with NumPack(path, busy_timeout=30) as npk, NumPack(path, busy_timeout=30) as other:
        npk.save({"a": [1]})
        with npk.transaction():
            for call in (lambda: other.save({"b": [1]}), lambda: other.attrs.update(x=1), lambda: other.transaction().__enter__(),
                         lambda: other.batch_mode().__enter__(), lambda: other.writable_batch_mode().__enter__(),
                         lambda: contextvars.copy_context().run(npk.append, {"a": [2]})):
                started = time.monotonic()
                with pytest.raises(TimeoutError, match=f"process {os.getpid()}") as caught:
                    call()
                assert caught.value.kind == "busy" and time.monotonic() - started < 2
        assert npk.load("a").tolist() == [1] and len(npk) == 1


def test_a_waiting_writer_times_out_after_busy_timeout(path):
    for seconds in (0.1, 0.6):
        with NumPack(path, busy_timeout=seconds) as npk, npk.transaction():
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                run_in_thread(lambda: npk.save({"b": [1]}))
            assert seconds <= time.monotonic() - started + 0.01 < seconds + 3


def test_another_process_is_named_too(path):
    script = f"""
import sys, numpack
npk = numpack.NumPack({str(path)!r})
with npk.transaction():
    npk.save({{"a": [1]}})
    print("held", flush=True)
    sys.stdin.read(1)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "held\n"
        with NumPack(path, busy_timeout=0.1) as npk:
            with pytest.raises(TimeoutError, match=f"process {child.pid}"):
                npk.save({"b": [1]})
            assert len(npk) == 0
            child.stdin.write("x")
            child.stdin.close()
            assert child.wait() == 0
            npk.save({"b": [1]})
            assert list(npk) == ["a", "b"]


def test_a_paused_generator_that_another_thread_collects_rolls_back(npk):
    def ingest():
        with npk.transaction():
            npk.save({"a": [1]})
            yield

    generator = ingest()
    next(generator)
    box = [generator]
    del generator

    def collect():
        box.clear()
        gc.collect()
        return npk.get_member_list()

    assert run_in_thread(collect) == []
    assert npk._open == []
    npk.save({"b": [1]})
    assert npk.get_member_list() == ["b"]


def test_a_generator_resumed_in_another_thread_or_context_is_refused(npk):
    def ingest():
        with npk.transaction():
            npk.save({"a": [1]})
            yield

    for elsewhere in (run_in_thread, contextvars.copy_context().run):
        generator = ingest()
        next(generator)
        with pytest.raises(RuntimeError, match="another thread or context"):
            elsewhere(lambda generator=generator: next(generator, None))
        assert npk.get_member_list() == [] and npk._open == []
        npk.attrs["x"] = 1


def test_an_inner_block_left_elsewhere_rolls_everything_back(npk):
    with npk.transaction() as outer:
        npk.save({"a": [1]})
        inner = npk.transaction()
        inner.__enter__()
        npk.save({"b": [1]})
        with pytest.raises(RuntimeError, match="another thread or context"):
            run_in_thread(lambda: inner.__exit__(None, None, None))
        with pytest.raises(RuntimeError):
            npk.save({"c": [1]})
    assert outer.lsn is None and npk.get_member_list() == []


def test_tasks_in_turn_each_have_their_own(path):
    npk = NumPack(path, sync="never", busy_timeout=30)
    npk.attrs["n"] = 0
    log = []

    async def work(number):
        for _ in range(5):
            while True:
                try:
                    with npk.transaction():
                        seen = npk.attrs["n"]
                        await asyncio.sleep(0)
                        npk.attrs["n"] = seen + 1
                        await asyncio.sleep(0)
                    break
                except TimeoutError:  # another task of this thread holds it: at once
                    await asyncio.sleep(0.001)
            log.append(number)

    async def main():
        await asyncio.gather(*(work(number) for number in range(3)))

    started = time.monotonic()
    asyncio.run(main())
    assert npk.attrs["n"] == 15 and sorted(log) == sorted([0, 1, 2] * 5) and time.monotonic() - started < 20
    npk.close()


def test_transactions_of_two_stores_are_independent(tmp_path):
    with NumPack(tmp_path / "one") as one, NumPack(tmp_path / "two") as two:
        with one.transaction():
            one.save({"a": [1]})
            two.save({"b": [1]})
            with pytest.raises(ZeroDivisionError), two.transaction():
                two.save({"c": [1]})
                1 / 0
        assert list(one) == ["a"] and list(two) == ["b"]


def test_the_lock_is_taken_at_entry_and_not_before(npk):
    txn = npk.transaction()
    run_in_thread(lambda: npk.save({"a": [1]}))
    with txn:
        with pytest.raises(TimeoutError):
            run_in_thread(lambda: npk.save({"b": [1]}))


def test_txn_offers_the_methods_of_the_store(npk):
    names = {name for name in dir(NumPack) if not name.startswith("_") and callable(getattr(NumPack, name))} - {"open", "close"}
    missing = {name for name in names if not callable(getattr(Transaction, name, None))}
    assert missing == set()
    with npk.transaction() as txn:
        txn.save({"a": np.arange(4)})
        txn.append({"a": [4]})
        txn.replace({"a": 9}, 0)
        txn.drop("a", 1)
        txn["b"] = [1, 2]
        txn.clone("b", "c")
        txn.rename("c", "d")
        txn.attrs["x"] = 1
        txn.array_attrs("a")["y"] = 2
        assert txn.load("a").tolist() == txn["a"].tolist() == [9, 2, 3, 4] and list(txn) == ["a", "b", "d"] and len(txn) == 3
        assert txn.get_shape("a") == (4,) and txn.getitem("a", 0).tolist() == [9] and txn.has_array("d") and "c" not in txn
        del txn["d"]
        assert list(txn.keys()) == ["a", "b"] and txn.get("d") is None and list(txn.snapshot()) == []
        assert [batch.tolist() for batch in txn.stream_load("b")] == [[1], [2]]
        with pytest.raises(ZeroDivisionError), txn.transaction():
            txn.reset()
            1 / 0
    assert list(npk) == ["a", "b"] and npk.attrs["x"] == 1 and npk.array_attrs("a")["y"] == 2
    for name in sorted(names):
        with pytest.raises(RuntimeError, match="is finished"):
            getattr(txn, name)()
    for call in (lambda: txn.attrs, lambda: txn["a"], lambda: "a" in txn, lambda: len(txn), lambda: iter(txn)):
        with pytest.raises(RuntimeError):
            call()


def test_txn_methods_from_elsewhere_are_refused(npk):
    with npk.transaction() as txn:
        for call in (lambda: txn.save({"a": [1]}), lambda: txn.attrs, txn.rollback):
            with pytest.raises(RuntimeError, match="another thread or context"):
                run_in_thread(call)
    assert len(npk) == 0


def test_what_is_entered_twice_or_not_at_all(npk):
    txn = npk.transaction()
    with pytest.raises(RuntimeError):
        txn.__exit__(None, None, None)
    with txn:
        npk.save({"a": [1]})
        with pytest.raises(RuntimeError, match="once"):
            txn.__enter__()
        npk.append({"a": [2]})
    with pytest.raises(RuntimeError, match="once"):
        txn.__enter__()
    assert npk.load("a").tolist() == [1, 2] and txn.lsn is not None
    busy = npk.transaction()
    with npk.transaction():
        with pytest.raises(TimeoutError):
            run_in_thread(busy.__enter__)
    with busy:  # did not begin: it may
        npk.append({"a": [3]})
    assert busy.lsn == npk.lsn


def test_lazy_arrays_of_a_rolled_back_block_keep_rows_large_and_small(npk):
    large = np.arange(200_000.0).reshape(-1, 4)
    small = NumPack(npk.path.parent / "small", sync="never", bulk_size=4096)
    for store in (npk, small):
        with pytest.raises(ZeroDivisionError):
            with store.transaction():
                store.save({"a": large, "b": [1, 2]})
                store.append({"b": [3]})
                store.array_attrs("b")["u"] = "m"
                lazies = [store.load("a", lazy=True), store.load("b", lazy=True), store.load("a", mmap_mode="r")]
                pickled = pickle.dumps(lazies[1])
                1 / 0
        store.save({"c": large + 1, "b": [7]})
        store.compact()
        store.checkpoint()
        assert np.array_equal(lazies[0], large) and np.array_equal(lazies[2], large) and lazies[1][:].tolist() == [1, 2, 3]
        assert dict(lazies[1].attrs) == {"u": "m"}
        with pytest.raises(KeyError):
            pickle.loads(pickled)
    small.close()


def test_positions_are_comparable_tuples(npk):
    lsns = []
    for number in range(5):
        with npk.transaction() as txn:
            npk.attrs["n"] = number
            assert txn.lsn is None
        lsns.append(txn.lsn)
    assert lsns == sorted(set(lsns)) and all(isinstance(lsn, tuple) and list(map(type, lsn)) == [int, int] for lsn in lsns)
    assert npk.lsn == lsns[-1]


def test_sync_of_a_block_overrides_the_level_of_the_store(tmp_path):
    with NumPack(tmp_path / "never", sync="never", background=False) as npk:
        npk.save({"a": [1]})
        before = npk.stats()
        with npk.transaction():
            npk.append({"a": [2]})
        assert npk.stats()["syncs"] == before["syncs"]
        with npk.transaction(sync="commit") as txn:
            npk.append({"a": [3]})
        assert npk.stats()["syncs"] > before["syncs"] and npk.stats()["durable_lsn"] >= txn.lsn[1]
    with NumPack(tmp_path / "commit", background=False) as npk:
        npk.save({"a": [1]})
        before = npk.stats()["syncs"]
        with npk.transaction(sync="never"):
            npk.append({"a": [2]})
        assert npk.stats()["syncs"] == before
    for bad in ("sometimes", 1, b"never"):
        with pytest.raises(ValueError):
            npk.transaction(sync=bad)


def test_attributes_are_copies_on_the_way_in_too(npk):
    value = {"l": [1, 2]}
    npk.attrs["v"] = value
    value["l"].append(3)
    out = npk.attrs["v"]
    out["l"].append(4)
    assert npk.attrs["v"] == {"l": [1, 2]}
    assert type(npk.attrs["v"]["l"][0]) is int


def test_numpy_scalars_as_attributes(npk):
    for value, kind in ((np.float64(0.1), float), (np.float32(0.5), float), (np.uint64(2 ** 64 - 1), int), (np.int64(-2 ** 63), int),
                        (np.bool_(False), bool), (np.str_("x"), str), (np.int8(-3), int)):
        npk.attrs["x"] = value
        assert type(npk.attrs["x"]) is kind and npk.attrs["x"] == value
    for bad in (np.float32("nan"), np.float64("-inf"), {"deep": [np.float64("nan")]}):
        with pytest.raises(ValueError):
            npk.attrs["x"] = bad
    assert npk.attrs["x"] == -3


def test_attribute_updates_are_one_transaction(npk):
    npk.attrs["x"] = 1
    with pytest.raises(ValueError):
        npk.attrs.update(x=2, y=float("nan"))
    assert dict(npk.attrs) == {"x": 1}
    with npk.transaction():
        with pytest.raises(ValueError):
            npk.attrs.update(x=2, y=2 ** 70)
        npk.attrs.setdefault("z", 3)
    assert dict(npk.attrs) == {"x": 1, "z": 3}


def test_views_outlive_the_snapshot_the_store_and_the_files(path):
    npk = NumPack(path, sync="never")
    npk.save({"a": np.arange(50_000), "b": [1, 2]})
    npk.compact()
    npk.append({"b": [3]})
    with npk.snapshot() as snapshot:
        lazies = [snapshot["a"], snapshot["b"]]
        views = [np.asarray(lazies[0]), np.asarray(lazies[1])]
        lsn = snapshot.lsn
        npk.append({"a": [-1]})
        assert snapshot.lsn == lsn < npk.lsn
    npk.reset()
    npk.checkpoint()
    npk.close()
    shutil.rmtree(path)
    for a, b in (lazies, views):
        assert np.array_equal(a, np.arange(50_000)) and np.asarray(b).tolist() == [1, 2, 3]


def test_a_snapshot_is_read_only_and_its_arrays_are_lazy(npk):
    npk.save({"a": [1]})
    with npk.snapshot() as snapshot:
        assert isinstance(snapshot["a"], LazyArray) and dict(snapshot["a"].attrs) == {} and "x" not in snapshot and 5 not in snapshot
        assert [name for name, _ in snapshot.items()] == ["a"]
        for attribute in ("__setitem__", "__delitem__", "save", "append"):
            assert not hasattr(snapshot, attribute)
    with pytest.raises(RuntimeError), snapshot:
        pass


# ---- batches, sentence by sentence --------------------------------------------------------------------------------

def test_batch_mode_reads_see_saved_values(npk):
    npk.save({"a": np.zeros(3)})
    with npk.batch_mode():
        a = npk.load("a")
        a[:] = 1
        for read in (lambda: npk.getitem("a", 0)[0], lambda: npk.load("a", lazy=True)[0], lambda: npk.load("a", mmap_mode="r")[0],
                     lambda: npk.load()["a"][0], lambda: next(npk.stream_load("a"))[0], lambda: npk.array("a")[0]):
            assert read() == 0  # not saved
        npk.save({"a": a})
        a[1] = 2
        for read in (lambda: npk.getitem("a", slice(None)), lambda: npk.load("a", lazy=True)[:], lambda: npk.load("a", mmap_mode="r"),
                     lambda: npk.load()["a"], lambda: np.concatenate(list(npk.stream_load("a"))), lambda: npk.array("a")[:]):
            assert read().tolist() == [1, 2, 1]
        assert run_in_thread(lambda: npk.load("a").tolist()) == [0, 0, 0]


def test_batch_mode_update_writes_first_and_drop_forgets(npk):
    npk.save({"a": np.zeros(2), "b": np.zeros(2)})
    with npk.batch_mode():
        a = npk.load("a")
        a[0] = 1
        npk.save({"a": a})
        npk.update("a")
        assert npk.load("a") is not a and npk.load("a").tolist() == [1, 0]
        a[1] = 5  # forgotten
        npk.save({"b": [9.0]})
        npk.drop("b")
        assert "b" not in npk
    assert npk.load("a").tolist() == [1, 0] and list(npk) == ["a"]


def test_batch_mode_memory_limit_has_no_effect(npk):
    npk.save({"a": np.zeros(1000)})
    with npk.batch_mode(memory_limit=1):
        a = npk.load("a")
        a[0] = 1
        npk.save({"a": a})
        assert npk.load("a") is a and npk._memory_cache["a"] is a
    assert npk.load("a")[0] == 1


def test_a_batch_inside_a_transaction_is_a_savepoint(npk):
    npk.save({"a": np.zeros(2)})
    with npk.transaction():
        npk.replace({"a": 3.0}, 0)
        with npk.batch_mode() as inner:
            a = npk.load("a")
            assert a.tolist() == [3, 0]
            a[1] = 4
            npk.save({"a": a})
        assert npk.load("a").tolist() == [3, 4] and inner.lsn is None and not npk._cache_enabled
        with pytest.raises(ZeroDivisionError), npk.batch_mode():
            npk.save({"a": np.zeros(9)})
            1 / 0
    assert npk.load("a").tolist() == [3, 4]


def test_writable_batch_commits_exactly_the_changed_rows(npk):
    npk.save({"a": np.zeros((50_000, 4)), "small": np.arange(5)})
    npk.compact()
    with npk.writable_batch_mode() as wb:
        a, small = wb.load("a"), wb.load("small")
        assert a.base is not None and not a.flags.owndata and a.flags.writeable and wb.load("a") is a
        a[[3, 40_000]] = 1
        a[7] = 0  # the same value: no change
        small[2] = 9
        for read in (lambda: npk.load("a"), lambda: npk.getitem("a", slice(None)), lambda: run_in_thread(lambda: npk.load("a"))):
            assert not read().any()
        assert npk.load("small")[2] == 2
    pending = npk.stats()["pending_rows"]
    assert pending == {"a": 2, "small": 1}
    assert np.flatnonzero(npk.load("a")[:, 0]).tolist() == [3, 40_000] and npk.load("small").tolist() == [0, 1, 9, 3, 4]
    before = npk.lsn
    with npk.writable_batch_mode() as wb:
        wb.load("a")
    assert npk.lsn == before  # nothing changed, nothing written


def test_the_array_of_a_writable_batch_is_safe_after_the_block_and_the_store(path):
    script = f"""
import numpy as np, numpack, shutil
npk = numpack.NumPack({str(path)!r})
npk.save({{"a": np.zeros(100_000)}})
npk.compact()
with npk.writable_batch_mode() as wb:
    a = wb.load("a")
    a[0] = 1
a[1] = 2
npk.drop("a")
npk.checkpoint()
npk.close()
shutil.rmtree({str(path)!r})
a[-1] = 3
print(a[0], a[1], a[-1], a.sum())
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["1.0", "2.0", "3.0", "6.0"], result.stderr


def test_writable_batch_after_row_changes_inside_the_block(npk):
    npk.save({"a": np.zeros(4), "b": np.zeros(4)})
    with npk.writable_batch_mode() as wb:
        a = wb.load("a")
        a[0] = 1
        npk.append({"a": [9.0]})
        npk.save({"b": np.ones(2)})
        assert wb.load("b").tolist() == [1, 1]
        with pytest.raises(RuntimeError):
            npk.rename("a", "c")
        with pytest.raises(RuntimeError):
            npk.drop("a", 1)
        with pytest.raises(RuntimeError):
            del npk["a"]
    assert npk.load("a").tolist() == [1, 0, 0, 0, 9] and npk.load("b").tolist() == [1, 1]
