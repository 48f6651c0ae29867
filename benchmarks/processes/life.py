"""How long the first item takes, and what a parent does while it waits."""

from __future__ import annotations

import multiprocessing
import time
from functools import partial
from multiprocessing.connection import Connection

from benchmarks.processes.candidates import GRAIN, THREAD
from benchmarks.processes.sources import numbers, pausing
from benchmarks.synchronous.life import repeated, usage
from benchmarks.table import Candidate, GapError, Metrics, Workload


def measure_first(candidate: Candidate, method: str, share: float) -> Metrics:
    """Return how long it takes from the call to the first item."""
    if candidate.name == THREAD:
        raise GapError("starts no process")
    if candidate.name == GRAIN and method != "spawn":
        raise GapError("always spawns")

    def once() -> tuple[float]:
        start = time.perf_counter()
        items = candidate.make(partial(numbers, 2), candidate.usual_depth)
        first = next(items)
        seconds = time.perf_counter() - start
        if [first, *items] != [0, 1]:
            raise GapError("lost items")
        return (seconds,)

    multiprocessing.set_start_method(method)
    return {"ms": repeated(once, share)[0] / 1000}


def bare_process(method: str, share: float) -> Metrics:
    """Return how long it takes until a process has sent something through a pipe."""
    multiprocessing.set_start_method(method)

    def once() -> tuple[float]:
        start = time.perf_counter()
        here, there = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.Process(target=send_one, args=(there,))
        process.start()
        here.recv()
        seconds = time.perf_counter() - start
        process.join()
        return (seconds,)

    return {"ms": repeated(once, share)[0] / 1000}


def send_one(there: Connection) -> None:
    """Be the process that sends."""
    there.send(0)


FIRST_ITEM = Workload(
    name="first item",
    text="How long it takes from the call to the first item of a trivial source, by start method. Floor: from the "
    "construction of an `mp.Process` to its first message through a pipe.",
    cases={"fork": "fork", "forkserver": "forkserver", "spawn": "spawn"},
    measure=measure_first,
    floors={"mp.Process": bare_process},
    against=("mp.Process",),
    note="With forkserver and spawn a process imports what its source needs, so these depend on the program. The "
    "server itself is there already.",
)


IDLE_SECONDS, SETTLE = 3.0, 0.2


def measure_idle(candidate: Candidate, _case: None, share: float) -> Metrics:
    """Return how often this process was switched to, and its CPU time, while it waited for the second item."""
    seconds = IDLE_SECONDS * share
    items = candidate.make(partial(pausing, 2, seconds + SETTLE), candidate.usual_depth)
    next(items)
    time.sleep(SETTLE)  # until everything has gone to sleep
    cpu, switches = usage()
    next(items)
    cpu_then, switches_then = usage()
    return {"switches": switches_then - switches, "CPU, ms": 1e3 * (cpu_then - cpu)}


IDLE = Workload(
    name="idle",
    text="Context switches and CPU time of the parent while it waits three seconds (0.3 with `--quick`) for the second "
    "item, the item's arrival included.",
    cases={"": None},
    measure=measure_idle,
    note="What a candidate spends in the other process is not counted.",
)
