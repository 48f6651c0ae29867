"""What one item costs: a source and a consumer that do nothing, so that only the hand-off is left."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

from benchmarks.candidates import FLOOR, OURS, VERSION_1, Candidate
from benchmarks.workload import Column, Ratio, Workload

DEPTHS = {"1": 1, "2": 2, "16": 16, "128": 128, "1024": 1024, "unbounded": 0}
QUICK_DEPTHS = ("1", "16", "1024")
TRIAL = 2000  # items of the first run, which says how many fit into the second


def numbers(count: int) -> Iterator[int]:
    """Be the cheapest source that is still a generator."""
    yield from range(count)


def cases(quick: bool) -> dict[str, dict[str, Any]]:
    """Return the depths."""
    seconds = 0.05 if quick else 0.3
    return {key: {"depth": DEPTHS[key], "seconds": seconds} for key in (QUICK_DEPTHS if quick else DEPTHS)}


def measure(candidate: Candidate, params: dict[str, Any]) -> dict[str, float]:
    """Return wall and CPU seconds per item; CPU of all threads."""
    depth = params["depth"]
    make = candidate.make()

    def run(count: int) -> tuple[float, float]:
        cpu, wall = time.process_time(), time.perf_counter()
        if candidate is FLOOR:
            floor(count, depth)
        else:
            for _ in make(numbers(count), depth):
                pass
        return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count

    trial = max(TRIAL, 4 * depth)
    wall, _ = run(trial)
    wall, cpu = run(max(trial, min(int(params["seconds"] / wall), 2_000_000)))
    return {"wall": wall, "cpu": cpu}


def floor(count: int, depth: int) -> None:
    """Do what no hand-off of a generator's items between two threads can do without.

    The source's own steps, a C `append` and a C `popleft` per item, and one pair of raw locks that is passed to and
    fro once per buffer. It is no prefetcher: neither side goes on while the other works, and it cannot be stopped.
    """
    items: deque[int] = deque()
    full, empty = threading.Lock(), threading.Lock()
    full.acquire()
    empty.acquire()

    def work() -> None:
        steps = map(items.append, numbers(count))
        while True:
            deque(islice(steps, depth or sys.maxsize), maxlen=0)
            full.release()
            if not items:
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


def reason_to_skip(candidate: Candidate, params: dict[str, Any]) -> str:
    """Return why `candidate` cannot take part, or an empty string."""
    return "" if params["depth"] in candidate.depths else "holds one item only"


HANDOFF = Workload(
    name="hand-off",
    title="Hand-off: what one item costs",
    text="A trivial source and an empty loop. Wall time per item in microseconds, by depth; floor: generator, C deque, "
    "one lock ping-pong per buffer.",
    cases=cases,
    measure=measure,
    reason_to_skip=reason_to_skip,
    floor=True,
    columns=[Column(f"depth {key}" if key.isdigit() else key, key, "wall", 1e6, "µs") for key in DEPTHS],
    more_columns={
        "CPU of all threads per item": [
            Column(f"depth {key}" if key.isdigit() else key, key, "cpu", 1e6, "µs") for key in DEPTHS
        ]
    },
    ratios=[
        Ratio(f"depth {key}" if key.isdigit() else key, key, "wall", OURS, against, "wall")
        for key in DEPTHS
        for against in (VERSION_1, FLOOR.name)
    ],
)
