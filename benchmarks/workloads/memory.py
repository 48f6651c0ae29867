"""What is kept: items that are alive at once, and what is left of generators that were given up early."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.candidates import Candidate
from benchmarks.workload import Column, Workload

DEPTHS = (1, 2, 16)
QUICK_DEPTHS = (2,)


class Item:
    """Something whose instances are counted."""

    alive = 0
    begun = 0

    def __init__(self) -> None:
        Item.alive += 1
        Item.begun += 1

    def __del__(self) -> None:
        Item.alive -= 1


def items(count: int) -> Iterator[Item]:
    """Give items and keep none."""
    for _ in range(count):
        yield Item()


def cases(quick: bool) -> dict[str, dict[str, Any]]:
    """Return the depths, and the early breaks."""
    alive = {f"alive {depth}": {"depth": depth} for depth in (QUICK_DEPTHS if quick else DEPTHS)}
    return {**alive, "breaks": {"breaks": 100 if quick else 1000}}


def measure(candidate: Candidate, params: dict[str, Any]) -> dict[str, float]:
    """Return the most items alive and held, or what is left after early breaks."""
    if "breaks" in params:
        return after_breaks(candidate, params["breaks"])
    iterator = candidate.make()(items(5 * params["depth"] + 20), params["depth"])
    most = held = 0
    for delivered in range(1, 2 * params["depth"] + 10):
        item = next(iterator)
        time.sleep(0.005)  # time enough to make what there is room for
        most, held = max(most, Item.alive), max(held, Item.begun - delivered)
        del item
    return {"alive": most, "held": held}


def after_breaks(candidate: Candidate, breaks: int) -> dict[str, float]:
    """Return the bytes and threads more than before, when many loops were left by `break`."""
    make = candidate.make()
    depth = 2 if 2 in candidate.depths else 1

    def leave_early(times: int) -> None:
        for _ in range(times):
            for _ in make(items(100), depth):
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


def reason_to_skip(candidate: Candidate, params: dict[str, Any]) -> str:
    """Return why `candidate` cannot take part, or an empty string."""
    if "depth" in params and params["depth"] not in candidate.depths:
        return "holds one item only"
    if candidate.name == "multiprocessing_generator" and "depth" in params:
        return "items are alive in another process"
    return ""


MEMORY = Workload(
    name="memory",
    title="Memory: what is kept",
    text="Items alive at once, that one included which the consumer is working on, by depth; and what is left after "
    "1,000 loops (100 with `--quick`) that were left by `break` after one item.",
    cases=cases,
    measure=measure,
    reason_to_skip=reason_to_skip,
    rounds=2,
    columns=[
        *(Column(f"alive, depth {depth}", f"alive {depth}", "alive") for depth in DEPTHS),
        Column("MiB more after breaks", "breaks", "leaked", 2**-20, "MiB"),
        Column("threads more", "breaks", "threads"),
    ],
    more_columns={
        "Items begun and not yet delivered": [
            Column(f"held, depth {depth}", f"alive {depth}", "held") for depth in DEPTHS
        ]
    },
    note="The floor is the depth and the item in the consumer's hands: depth + 1 alive, depth held.",
)
