"""What an asynchronous source under a `for` loop costs, and how soon it can be closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from statistics import median

from benchmarks.asynchronous.candidates import BY_HAND
from benchmarks.synchronous import handoff
from benchmarks.synchronous.candidates import close
from benchmarks.table import Candidate, GapError, Metrics, Workload


async def numbers(count: int) -> AsyncIterator[int]:
    """Be the cheapest source that is still an asynchronous generator."""
    for number in range(count):
        yield number


def measure_handoff(candidate: Candidate, depth: int, share: float) -> Metrics:
    """Return what an item costs."""
    if depth > candidate.most:
        raise GapError("makes no item ahead")
    return handoff.measure(candidate, depth, share, numbers)


SOURCE_HANDOFF = Workload(
    name="hand-off",
    text="What an item costs with a trivial `async def` source on a loop of its own and an empty `for` loop.",
    cases={"depth 1": 1, "depth 16": 16, "depth 128": 128, "depth 1024": 1024},
    measure=measure_handoff,
    against=(BY_HAND,),
    note="streamable has no thread: its source runs only while the consumer waits, so nothing is made ahead while the "
    "loop's body works.",
)


async def in_a_long_step() -> AsyncIterator[int]:
    """Be in a step of an hour after one item."""
    yield 0
    await asyncio.sleep(3600)
    yield 1


def measure_close(candidate: Candidate, _case: None, _share: float) -> Metrics:
    """Return how long it takes to close."""
    if not candidate.stops:
        raise GapError("cannot stop a step")

    def once() -> float:
        iterator = candidate.make(in_a_long_step(), candidate.usual_depth)
        next(iterator)
        time.sleep(0.02)  # until it is in its step
        start = time.perf_counter()
        close(iterator)
        return time.perf_counter() - start

    return {"ms": 1e3 * median(once() for _ in range(9))}


CLOSE = Workload(
    name="close",
    text="How long `close()` takes while the source awaits something that takes an hour.",
    cases={"": None},
    measure=measure_close,
)
