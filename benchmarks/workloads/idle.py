"""What it costs while nothing happens: nobody asks for items, or none come."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.candidates import FLOOR, Candidate
from benchmarks.workload import Column, Workload

DEPTH = 2


def cases(quick: bool) -> dict[str, dict[str, Any]]:
    """Return the two sides that can be stalled."""
    seconds = 0.2 if quick else 2.0
    return {side: {"side": side, "seconds": seconds} for side in ("producer", "consumer")}


def measure(candidate: Candidate, params: dict[str, Any]) -> dict[str, float]:
    """Return the CPU seconds and the context switches of the whole process, per second."""
    seconds = params["seconds"]
    if candidate is FLOOR:
        before = usage()
        time.sleep(seconds)
        return per_second(before, seconds)
    make = candidate.make()
    depth = DEPTH if DEPTH in candidate.depths else 1
    if params["side"] == "producer":
        stalled = make(iter(range(1000)), depth)
        next(stalled)
        time.sleep(0.2)
        before = usage()
        time.sleep(seconds)
        return per_second(before, seconds)

    def source() -> Iterator[int]:
        yield 0
        time.sleep(seconds + 0.2)
        yield 1

    iterator = make(source(), depth)
    next(iterator)
    time.sleep(0.2)
    before = usage()
    next(iterator)
    return per_second(before, seconds)


def usage() -> tuple[float, int]:
    """Return the CPU seconds and context switches of this process so far."""
    resource = importlib.import_module("resource")  # not on Windows: there this workload is a gap
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_nvcsw + used.ru_nivcsw


def per_second(before: tuple[float, int], seconds: float) -> dict[str, float]:
    """Return what was used since `before`."""
    cpu, switches = usage()
    return {"cpu": (cpu - before[0]) / seconds, "switches": (switches - before[1]) / seconds}


def reason_to_skip(_candidate: Candidate, _params: dict[str, Any]) -> str:
    """Let everybody take part."""
    return ""


IDLE = Workload(
    name="idle",
    title="Idle: what waiting costs",
    text="CPU milliseconds and context switches of the process per second, while the buffer is full and nobody asks "
    "(producer stalled), and while the source gives nothing (consumer stalled). Floor: a process that sleeps.",
    cases=cases,
    measure=measure,
    reason_to_skip=reason_to_skip,
    floor=True,
    rounds=3,
    columns=[
        Column("producer stalled: CPU", "producer", "cpu", 1e3, "ms/s"),
        Column("switches", "producer", "switches", 1, "/s"),
        Column("consumer stalled: CPU", "consumer", "cpu", 1e3, "ms/s"),
        Column("switches", "consumer", "switches", 1, "/s"),
    ],
    note="A candidate that works in another process spends more there, which is not counted.",
)
