"""What one item costs: the source and the consumer do nothing, so only the hand-off is left."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from benchmarks.synchronous.candidates import VERSION_1
from benchmarks.table import Candidate, Metrics, Workload

TRIAL = 2000  # items of the first run, which says how many the second one has time for


def numbers(count: int) -> Iterator[int]:
    """Be the cheapest source that is still a generator."""
    yield from range(count)


def measure(candidate: Candidate, depth: int, share: float, source: Callable[[int], Any] = numbers) -> Metrics:
    """Return what an item costs, after a look at whether all of them arrive."""
    make = candidate.make
    if list(make(source(100), depth)) != list(range(100)):
        raise ValueError("lost items, or their order")

    def loop(count: int) -> None:
        for _ in make(source(count), depth):
            pass

    return per_item(loop, depth, share)


def per_item(pass_on: Callable[[int], object], depth: int, share: float) -> Metrics:
    """Return the microseconds per item."""

    def run(count: int) -> float:
        start = time.perf_counter()
        pass_on(count)
        return (time.perf_counter() - start) / count

    trial = max(TRIAL, 4 * depth)
    return {"µs": 1e6 * run(max(trial, min(int(0.3 * share / run(trial)), 2_000_000)))}


def floor(count: int, depth: int) -> None:
    """Do only what every hand-off of a generator's items between two threads has to do.

    The source's own steps, a C `append` and a C `popleft` per item, and one pair of raw locks that goes back and forth
    once per buffer. It is no prefetcher: neither side goes on while the other works, and it cannot be stopped.
    """
    items: deque[int] = deque()
    full, empty = threading.Lock(), threading.Lock()
    full.acquire()
    empty.acquire()

    def work() -> None:
        steps = map(items.append, numbers(count))
        while True:
            deque(islice(steps, depth or sys.maxsize), maxlen=0)
            over = not items  # looked up before the release: after it the consumer empties the buffer
            full.release()
            if over:
                return
            empty.acquire()

    threading.Thread(target=work, daemon=True).start()
    take = items.popleft
    while True:
        full.acquire()
        if not items:
            return
        for _ in range(len(items)):
            take()
        empty.release()


HANDOFF = Workload(
    name="hand-off",
    text="What an item costs with a trivial source and an empty loop. Floor: a generator, a C deque, and one pair of "
    "locks that goes back and forth once per buffer.",
    cases={"depth 1": 1, "depth 2": 2, "depth 16": 16, "depth 128": 128, "depth 1024": 1024, "unbounded": 0},
    measure=measure,
    floors={"floor": lambda depth, share: per_item(lambda count: floor(count, depth), depth, share)},
    against=(VERSION_1, "floor"),
    note="At depth 1 every item takes two switches between threads, in any library. What a switch costs depends on "
    "whether both threads are on the same processor. It may differ by a factor of five between two runs of one "
    "program, so trust the ratios more than the times.",
)


GENERATORS, ITEMS, DEPTH = 200, 50, 2


def measure_many(candidate: Candidate, _case: None, share: float) -> Metrics:
    """Return what an item costs, making and ending the generators included."""
    make = candidate.make

    def run(count: int) -> None:
        running = [make(iter(range(count)), candidate.usual_depth) for _ in range(GENERATORS)]
        for _ in range(count):
            for iterator in running:
                next(iterator)
        for iterator in running:
            next(iterator, None)

    return per_item_of_many(run, share)


def per_item_of_many(run: Callable[[int], None], share: float) -> Metrics:
    """Return the microseconds per item of a run with some items for each generator."""
    count = max(10, int(ITEMS * share))
    cpu, wall = time.process_time(), time.perf_counter()
    run(count)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"µs": 1e6 * wall / (count * GENERATORS), "CPU of all threads, µs": 1e6 * cpu / (count * GENERATORS)}


def floor_of_many(count: int) -> None:
    """Pass a pair of raw locks back and forth once per buffer, with as many threads."""

    def work(full: threading.Lock, empty: threading.Lock) -> None:
        for _ in range(count // DEPTH):
            full.release()
            empty.acquire()

    pairs = [(threading.Lock(), threading.Lock()) for _ in range(GENERATORS)]
    for full, empty in pairs:
        full.acquire()
        empty.acquire()
        threading.Thread(target=work, args=(full, empty), daemon=True).start()
    for _ in range(count // DEPTH):
        for full, empty in pairs:
            full.acquire()
            empty.release()


MANY = Workload(
    name="many at once",
    text="What an item costs at depth 2 with 200 generators that are asked in turn, starting and ending their threads "
    "included. Floor: as many threads, and a pair of locks for each that goes back and forth once per buffer.",
    cases={"": None},
    measure=measure_many,
    floors={"floor": lambda _case, share: per_item_of_many(floor_of_many, share)},
    against=(VERSION_1, "floor"),
)
