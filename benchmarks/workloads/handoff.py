"""What one item costs: the source and the consumer do nothing, so only the hand-off is left."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from benchmarks.candidates import CANDIDATES, FLOOR, OTHER_TREE, VERSION_1, Candidate
from benchmarks.workload import Column, Params, Ratio, Workload

DEPTHS = {"depth 1": 1, "depth 2": 2, "depth 16": 16, "depth 128": 128, "depth 1024": 1024, "unbounded": 0}
SECONDS, QUICK_SECONDS = 0.3, 0.05
TRIAL = 2000  # items of the first run, which says how many the second one has time for


def numbers(count: int) -> Iterator[int]:
    """Be the cheapest source that is still a generator."""
    yield from range(count)


def measure(candidate: Candidate, params: Params) -> dict[str, float]:
    """Return the seconds per item."""
    depth = params["depth"]
    candidate.require(depth)
    make = candidate.make()

    def run(count: int) -> float:
        start = time.perf_counter()
        if candidate is FLOOR:
            floor(count, depth)
        else:
            for _ in make(numbers(count), depth):
                pass
        return (time.perf_counter() - start) / count

    if list(make(numbers(100), depth)) != list(range(100)):
        raise ValueError("lost items, or their order")
    trial = max(TRIAL, 4 * depth)
    return {"wall": run(max(trial, min(int(params["seconds"] / run(trial)), 2_000_000)))}


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
    text="Microseconds per item, with a trivial source and an empty loop. Floor: a generator, a C deque, and one pair "
    "of locks that goes back and forth once per buffer.",
    cases={key: {"depth": depth, "seconds": SECONDS} for key, depth in DEPTHS.items()},
    quick={key: {"depth": DEPTHS[key], "seconds": QUICK_SECONDS} for key in ("depth 1", "depth 16", "depth 1024")},
    measure=measure,
    columns=[Column(key, key, "wall", 1e6, "µs") for key in DEPTHS],
    ratios=[Ratio(key, key, "wall", against) for key in DEPTHS for against in (VERSION_1, FLOOR.name)],
    extra=(FLOOR,),
    note="At depth 1 every item takes two switches between threads, in any library. What a switch costs depends on "
    "whether both threads are on the same processor. It may differ by a factor of five between two runs of one "
    "program, so trust the ratios more than the times.",
)

# Two trees of this library: is the new one as fast as the old one?
AGAINST = replace(
    HANDOFF,
    text="Microseconds per item, with a trivial source and an empty loop.",
    cases={key: {"depth": depth, "seconds": SECONDS} for key, depth in DEPTHS.items() if depth != 2},
    quick={key: {"depth": depth, "seconds": QUICK_SECONDS} for key, depth in DEPTHS.items() if depth != 2},
    ratios=[Ratio(key, key, "wall", OTHER_TREE.name) for key in DEPTHS],
    candidates=(CANDIDATES[0], OTHER_TREE),
    extra=(),
    note="",
)
