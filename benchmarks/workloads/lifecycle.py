"""What a generator costs to make, to start and to end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from benchmarks.candidates import FLOOR, OURS, Candidate, close
from benchmarks.workload import Column, Ratio, Workload

CASE = "life"
BUSY = 0.2  # seconds of the call that the source is in
DEPTH = 2


def cases(quick: bool) -> dict[str, dict[str, Any]]:
    """Return the only case."""
    return {CASE: {"seconds": 0.05 if quick else 0.3}}


def measure(candidate: Candidate, params: dict[str, Any]) -> dict[str, float]:
    """Return the seconds of each step, each the median of many in this process."""
    seconds = params["seconds"]
    if candidate is FLOOR:
        return {"whole": repeated(bare_thread, seconds)}
    make = candidate.make()
    depth = DEPTH if DEPTH in candidate.depths else 1

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
    result = {
        "construct": median(pair[0] for pair in pairs),
        "first": median(pair[1] for pair in pairs),
        "whole": repeated(whole, seconds),
    }
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
    """Be in a long call, after one item."""
    yield 0
    time.sleep(BUSY)
    yield 1


def time_close(make: Callable[..., Iterator[Any]], source: Iterator[Any], depth: int, pause: float) -> float:
    """Return the seconds that it takes to end an iterator of which one item was taken `pause` seconds ago."""
    iterator = make(source, depth)
    next(iterator)
    time.sleep(pause)
    start = time.perf_counter()
    close(iterator)
    del iterator  # for those who know no other way
    return time.perf_counter() - start


def repeated(action: Callable[[], float], seconds: float) -> float:
    """Return the median of what `action` returns, called for about `seconds`."""
    action()
    results: list[float] = []
    end = time.perf_counter() + seconds
    while not results or time.perf_counter() < end:
        results.append(action())
    return median(results)


def reason_to_skip(_candidate: Candidate, _params: dict[str, Any]) -> str:
    """Let everybody take part."""
    return ""


LIFE_CYCLE = Workload(
    name="life cycle",
    title="Life cycle: what a generator costs",
    text="Microseconds. Floor: a bare `threading.Thread`, started and joined.",
    cases=cases,
    measure=measure,
    reason_to_skip=reason_to_skip,
    floor=True,
    columns=[
        Column("construct", CASE, "construct", 1e6, "µs"),
        Column("construct, first item", CASE, "first", 1e6, "µs"),
        Column("construct, exhaust an empty source, close", CASE, "whole", 1e6, "µs"),
        Column("close, buffer full", CASE, "close full", 1e6, "µs"),
        Column("close, source in a 200 ms call", CASE, "close busy", 1e6, "µs"),
    ],
    ratios=[Ratio("construct, exhaust, close", CASE, "whole", OURS, FLOOR.name, "whole")],
    note="The last column has 150 ms to wait if the end of the source is waited for. Those without a time cannot be "
    "stopped: their thread and what it holds stay until the process ends.",
)
