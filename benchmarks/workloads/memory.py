"""What is kept: items alive at once, and what is left of generators that were dropped early."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.candidates import Candidate, GapError
from benchmarks.workload import Column, Params, Workload

DEPTHS = {f"alive, depth {depth}": {"depth": depth} for depth in (1, 2, 16)}


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


def measure(candidate: Candidate, params: Params) -> dict[str, float]:
    """Return the most items alive, or what is left after early breaks."""
    if "breaks" in params:
        return after_breaks(candidate, params["breaks"])
    candidate.require(params["depth"])
    if candidate.name == "multiprocessing_generator":
        raise GapError("items are alive in another process")
    iterator = candidate.make()(items(5 * params["depth"] + 20), params["depth"])
    most = 0
    for _ in range(2 * params["depth"] + 9):
        item = next(iterator)
        time.sleep(0.005)  # long enough to make everything there is room for
        most = max(most, Item.alive)
        del item
    return {"alive": most}


def after_breaks(candidate: Candidate, breaks: int) -> dict[str, float]:
    """Return how many more bytes and threads there are after many loops that `break` ended."""
    make = candidate.make()

    def leave_early(times: int) -> None:
        for _ in range(times):
            for _ in make(items(100), candidate.usual_depth):
                break

    leave_early(5)
    gc.collect()
    time.sleep(0.2)
    size, threads = resident(), thread_count()
    leave_early(breaks)
    gc.collect()
    time.sleep(0.5)
    return {"leaked": resident() - size, "threads": thread_count() - threads}


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def thread_count() -> int:
    """Return the operating system's threads of this process."""
    return len(list(Path("/proc/self/task").iterdir()))


MEMORY = Workload(
    name="memory",
    text="The most items alive at once, by depth, and what is left after 1,000 loops (100 with `--quick`) that `break` "
    "ended after one item. The least possible is depth + 1 alive: the buffer, and the item that the consumer works on.",
    cases={**DEPTHS, "breaks": {"breaks": 1000}},
    quick={"alive, depth 2": {"depth": 2}, "breaks": {"breaks": 100}},
    measure=measure,
    columns=[
        *(Column(key, key, "alive") for key in DEPTHS),
        Column("more memory after breaks", "breaks", "leaked", 2**-20, "MiB"),
        Column("more threads", "breaks", "threads"),
    ],
    rounds=2,
)
