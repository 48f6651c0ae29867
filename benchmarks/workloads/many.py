"""Many generators at once, asked in turn."""

from __future__ import annotations

import threading
import time

from benchmarks.candidates import FLOOR, VERSION_1, Candidate
from benchmarks.workload import Column, Params, Ratio, Workload

CASE = "many"
GENERATORS = 200
DEPTH = 2


def measure(candidate: Candidate, params: Params) -> dict[str, float]:
    """Return the wall and CPU seconds per item, making and ending the generators included."""
    count = params["items"]
    make = candidate.make()
    cpu, wall = time.process_time(), time.perf_counter()
    if candidate is FLOOR:
        floor(count)
    else:
        running = [make(iter(range(count)), candidate.usual_depth) for _ in range(GENERATORS)]
        for _ in range(count):
            for iterator in running:
                next(iterator)
        for iterator in running:
            next(iterator, None)
    total = count * GENERATORS
    return {"wall": (time.perf_counter() - wall) / total, "cpu": (time.process_time() - cpu) / total}


def floor(count: int) -> None:
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
    text="200 generators, asked in turn. Microseconds per item at depth 2, starting and ending the threads included. "
    "Floor: as many threads, and a pair of locks for each that goes back and forth once per buffer.",
    cases={CASE: {"items": 50}},
    quick={CASE: {"items": 10}},
    measure=measure,
    columns=[Column("wall", CASE, "wall", 1e6, "µs"), Column("CPU of all threads", CASE, "cpu", 1e6, "µs")],
    ratios=[Ratio("200 generators", CASE, "wall", against) for against in (VERSION_1, FLOOR.name)],
    extra=(FLOOR,),
)
