"""What a generator costs to make and to end, what it uses while nothing happens, and what it keeps."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from statistics import median

from benchmarks.synchronous.candidates import close
from benchmarks.table import Candidate, GapError, Metrics, Workload

BUSY = 0.2  # seconds of the source's long call
WHOLE = "construct, exhaust an empty source, close, µs"


def measure_life(candidate: Candidate, _case: None, share: float) -> Metrics:
    """Return the time of each step, each the median of many in this process."""
    make, depth = candidate.make, candidate.usual_depth

    def begin() -> tuple[float, float]:
        start = time.perf_counter()
        iterator = make(iter(range(3)), depth)
        constructed = time.perf_counter()
        next(iterator)
        first = time.perf_counter()
        for _ in iterator:
            pass
        return constructed - start, first - start

    def whole() -> tuple[float]:
        start = time.perf_counter()
        iterator = make(iter(()), depth)
        for _ in iterator:
            pass
        if candidate.stops:
            close(iterator)
        return (time.perf_counter() - start,)

    def stop(source: Iterator[int], pause: float) -> tuple[float]:
        iterator = make(source, depth)
        next(iterator)
        time.sleep(pause)
        start = time.perf_counter()
        close(iterator)
        del iterator  # for those that know no other way
        return (time.perf_counter() - start,)

    construct, first = repeated(begin, share)
    metrics = {"construct, µs": construct, "construct, first item, µs": first, WHOLE: repeated(whole, share)[0]}
    if candidate.stops:
        metrics["close, buffer full, µs"] = repeated(lambda: stop(iter(range(1000)), 0.002), share)[0]
        metrics["close, source in a 200 ms call, µs"] = 1e6 * stop(busy(), BUSY / 4)[0]
    return metrics


def busy() -> Iterator[int]:
    """Be in a long call after one item."""
    yield 0
    time.sleep(BUSY)
    yield 1


def bare_thread() -> tuple[float]:
    """Return the seconds of the least that has to happen: a thread starts and is joined."""
    start = time.perf_counter()
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    return (time.perf_counter() - start,)


def repeated(action: Callable[[], tuple[float, ...]], share: float) -> list[float]:
    """Return the medians, in microseconds, of the seconds that `action` returns; its first call is not counted."""
    action()
    results = [action()]
    end = time.perf_counter() + 0.3 * share
    while time.perf_counter() < end:
        results.append(action())
    return [1e6 * median(column) for column in zip(*results, strict=True)]


LIFE_CYCLE = Workload(
    name="life cycle",
    text="What it takes to begin and to end. Floor: a bare `threading.Thread`, started and joined.",
    cases={"": None},
    measure=measure_life,
    floors={"floor": lambda _case, share: {WHOLE: repeated(bare_thread, share)[0]}},
    against=("floor",),
    note="In the last column, whoever waits for the source to end waits 150 ms. A candidate without a time cannot be "
    "stopped: its thread, and what the thread holds, stay until the process ends.",
)


IDLE_SECONDS = 2.0
SETTLE = 0.2  # seconds until both sides have gone to sleep


def measure_idle(candidate: Candidate, side: str, share: float) -> Metrics:
    """Return what is used while one side is stalled."""
    seconds = IDLE_SECONDS * share

    def source() -> Iterator[int]:
        yield 0
        time.sleep(seconds + SETTLE)
        yield 1

    stalled = candidate.make(iter(range(1000)) if side == "producer" else source(), candidate.usual_depth)
    next(stalled)
    time.sleep(SETTLE)
    before = usage()
    if side == "producer":
        time.sleep(seconds)
    else:
        next(stalled)
    return used_since(before, seconds)


def sleeper(_side: str, share: float) -> Metrics:
    """Return what is used in a plain sleep."""
    before = usage()
    time.sleep(IDLE_SECONDS * share)
    return used_since(before, IDLE_SECONDS * share)


def usage() -> tuple[float, int]:
    """Return the CPU seconds and context switches of this process so far."""
    resource = import_module("resource")  # not on Windows, where this workload is a gap
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_nvcsw + used.ru_nivcsw


def used_since(before: tuple[float, int], seconds: float) -> Metrics:
    """Return what was used since then, per second."""
    cpu, switches = usage()
    return {"CPU, ms/s": 1e3 * (cpu - before[0]) / seconds, "switches, /s": (switches - before[1]) / seconds}


IDLE = Workload(
    name="idle",
    text="CPU time and context switches of the process, while the buffer is full and nobody asks (producer stalled), "
    "and while the source gives nothing (consumer stalled). Floor: a process that sleeps.",
    cases={"producer stalled": "producer", "consumer stalled": "consumer"},
    measure=measure_idle,
    floors={"floor": sleeper},
    note="What a candidate spends in another process is not counted.",
)


class Item:
    """Something whose instances are counted."""

    alive = 0

    def __init__(self) -> None:
        Item.alive += 1

    def __del__(self) -> None:
        Item.alive -= 1


def items(count: int) -> Iterator[Item]:
    """Give items and keep none."""
    for _ in range(count):
        yield Item()


def measure_memory(candidate: Candidate, depth: int | None, share: float) -> Metrics:
    """Return the most items alive, or without a depth what is left after early breaks."""
    if depth is None:
        return after_breaks(candidate, int(1000 * share))
    if candidate.name == "multiprocessing_generator":
        raise GapError("items are alive in another process")
    iterator = candidate.make(items(5 * depth + 20), depth)
    most = 0
    for _ in range(2 * depth + 9):
        item = next(iterator)
        time.sleep(0.005)  # long enough to make everything there is room for
        most = max(most, Item.alive)
        del item
    return {"": most}


def after_breaks(candidate: Candidate, breaks: int) -> Metrics:
    """Return how much more memory and threads there are after many loops that `break` ended."""

    def leave_early(times: int) -> tuple[int, int]:
        for _ in range(times):
            for _ in candidate.make(items(100), candidate.usual_depth):
                break
        gc.collect()
        time.sleep(0.5)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), len(list(Path("/proc/self/task").iterdir()))

    size, threads = leave_early(5)
    left_size, left_threads = leave_early(breaks)
    return {"MiB more": (left_size - size) / 2**20, "threads more": left_threads - threads}


MEMORY = Workload(
    name="memory",
    text="The most items alive at once, by depth, and what is left after 1,000 loops (100 with `--quick`) that `break` "
    "ended after one item. The least possible is depth + 1 alive: the buffer, and the item that the consumer works on.",
    cases={"alive, depth 1": 1, "alive, depth 2": 2, "alive, depth 16": 16, "after breaks": None},
    measure=measure_memory,
)
