"""What it costs while nothing happens: nobody asks for items, or none come."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator

from benchmarks.candidates import FLOOR, Candidate
from benchmarks.workload import Column, Params, Workload

SIDES = ("producer", "consumer")
SETTLE = 0.2  # seconds until both sides have gone to sleep


def measure(candidate: Candidate, params: Params) -> dict[str, float]:
    """Return the CPU seconds and the context switches of the whole process, per second."""
    seconds = params["seconds"]

    def source() -> Iterator[int]:
        yield 0
        time.sleep(seconds + SETTLE)
        yield 1

    if candidate is FLOOR:
        before = usage()
        time.sleep(seconds)
    elif params["side"] == "producer":
        stalled = candidate.make()(iter(range(1000)), candidate.usual_depth)
        next(stalled)
        time.sleep(SETTLE)
        before = usage()
        time.sleep(seconds)
    else:
        stalled = candidate.make()(source(), candidate.usual_depth)
        next(stalled)
        time.sleep(SETTLE)
        before = usage()
        next(stalled)
    cpu, switches = usage()
    return {"cpu": (cpu - before[0]) / seconds, "switches": (switches - before[1]) / seconds}


def usage() -> tuple[float, int]:
    """Return the CPU seconds and context switches of this process so far."""
    resource = importlib.import_module("resource")  # not on Windows, where this workload is a gap
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_nvcsw + used.ru_nivcsw


IDLE = Workload(
    name="idle",
    text="CPU milliseconds and context switches of the process per second, while the buffer is full and nobody asks "
    "(producer stalled), and while the source gives nothing (consumer stalled). Floor: a process that sleeps.",
    cases={side: {"side": side, "seconds": 2.0} for side in SIDES},
    quick={side: {"side": side, "seconds": 0.2} for side in SIDES},
    measure=measure,
    columns=[
        column
        for side in SIDES
        for column in (
            Column(f"{side} stalled: CPU", side, "cpu", 1e3, "ms/s"),
            Column(f"{side} stalled: switches", side, "switches", 1, "/s"),
        )
    ],
    extra=(FLOOR,),
    rounds=3,
    note="What a candidate spends in another process is not counted.",
)
