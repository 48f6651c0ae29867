"""What a generator costs to make, to start and to end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from statistics import median

from benchmarks.candidates import FLOOR, Candidate, Make, close
from benchmarks.workload import Column, Params, Ratio, Workload

CASE = "life"
BUSY = 0.2  # seconds of the source's long call


def measure(candidate: Candidate, params: Params) -> dict[str, float]:
    """Return the seconds of each step, each the median of many in this process."""
    seconds = params["seconds"]
    if candidate is FLOOR:
        return {"whole": repeated(bare_thread, seconds)}
    make, depth = candidate.make(), candidate.usual_depth

    def construct_and_first() -> tuple[float, float]:
        start = time.perf_counter()
        iterator = make(iter(range(3)), depth)
        constructed = time.perf_counter()
        next(iterator)
        first = time.perf_counter()
        for _ in iterator:
            pass
        return constructed - start, first - start

    def whole() -> float:
        start = time.perf_counter()
        iterator = make(iter(()), depth)
        for _ in iterator:
            pass
        if candidate.can_close:
            close(iterator)
        return time.perf_counter() - start

    pairs = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pairs.append(construct_and_first())
    construct, first = map(median, zip(*pairs, strict=True))
    result = {"construct": construct, "first": first, "whole": repeated(whole, seconds)}
    if candidate.can_close:
        result["close full"] = repeated(lambda: time_close(make, iter(range(1000)), depth, 0.002), seconds)
        result["close busy"] = time_close(make, busy(), depth, BUSY / 4)
    return result


def bare_thread() -> float:
    """Return the seconds of the least that has to happen: a thread starts and is joined."""
    start = time.perf_counter()
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    return time.perf_counter() - start


def busy() -> Iterator[int]:
    """Be in a long call after one item."""
    yield 0
    time.sleep(BUSY)
    yield 1


def time_close(make: Make, source: Iterator[int], depth: int, pause: float) -> float:
    """Return the seconds it takes to end an iterator `pause` seconds after its first item was taken."""
    iterator = make(source, depth)
    next(iterator)
    time.sleep(pause)
    start = time.perf_counter()
    close(iterator)
    del iterator  # for those that know no other way
    return time.perf_counter() - start


def repeated(action: Callable[[], float], seconds: float) -> float:
    """Return the median of what `action` returns, called for about `seconds`."""
    action()
    results: list[float] = []
    end = time.perf_counter() + seconds
    while not results or time.perf_counter() < end:
        results.append(action())
    return median(results)


LIFE_CYCLE = Workload(
    name="life cycle",
    text="Microseconds. Floor: a bare `threading.Thread`, started and joined.",
    cases={CASE: {"seconds": 0.3}},
    quick={CASE: {"seconds": 0.05}},
    measure=measure,
    columns=[
        Column("construct", CASE, "construct", 1e6, "µs"),
        Column("construct, first item", CASE, "first", 1e6, "µs"),
        Column("construct, exhaust an empty source, close", CASE, "whole", 1e6, "µs"),
        Column("close, buffer full", CASE, "close full", 1e6, "µs"),
        Column("close, source in a 200 ms call", CASE, "close busy", 1e6, "µs"),
    ],
    ratios=[Ratio("construct, exhaust, close", CASE, "whole", FLOOR.name)],
    extra=(FLOOR,),
    note="In the last column, whoever waits for the source to end waits 150 ms. A candidate without a time cannot be "
    "stopped: its thread, and what the thread holds, stay until the process ends.",
)
