"""Many generators at once, asked in turn."""

from __future__ import annotations

import threading
import time
from typing import Any

from benchmarks.candidates import FLOOR, OURS, VERSION_1, Candidate
from benchmarks.workload import Column, Ratio, Workload

CASE = "many"
GENERATORS = 200
DEPTH = 2


def cases(quick: bool) -> dict[str, dict[str, Any]]:
    """Return the only case."""
    return {CASE: {"items": 10 if quick else 50}}


def measure(candidate: Candidate, params: dict[str, Any]) -> dict[str, float]:
    """Return the wall and CPU seconds per item, making and ending included."""
    count = params["items"]
    cpu, wall = time.process_time(), time.perf_counter()
    if candidate is FLOOR:
        floor(count)
    else:
        make = candidate.make()
        depth = DEPTH if DEPTH in candidate.depths else 1
        cpu, wall = time.process_time(), time.perf_counter()
        running = [make(iter(range(count)), depth) for _ in range(GENERATORS)]
        for _ in range(count):
            for iterator in running:
                next(iterator)
        for iterator in running:
            next(iterator, None)
    total = count * GENERATORS
    return {"wall": (time.perf_counter() - wall) / total, "cpu": (time.process_time() - cpu) / total}


def floor(count: int) -> None:
    """Pass a pair of raw locks to and fro once per buffer, with as many threads."""

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


def reason_to_skip(_candidate: Candidate, _params: dict[str, Any]) -> str:
    """Let everybody take part."""
    return ""


MANY = Workload(
    name="many at once",
    title="Many at once: 200 generators, asked in turn",
    text="Microseconds per item at depth 2, starting and ending the threads included. Floor: as many threads, a lock "
    "ping-pong per buffer.",
    cases=cases,
    measure=measure,
    reason_to_skip=reason_to_skip,
    floor=True,
    columns=[Column("wall", CASE, "wall", 1e6, "µs"), Column("CPU of all threads", CASE, "cpu", 1e6, "µs")],
    ratios=[
        Ratio("200 generators", CASE, "wall", OURS, VERSION_1, "wall"),
        Ratio("200 generators", CASE, "wall", OURS, FLOOR.name, "wall"),
    ],
)
