"""What prefetching gains: a source and a consumer that sleep, against the best schedule there is."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.candidates import Candidate
from benchmarks.schedule import ideal, in_turn
from benchmarks.workload import Column, Workload

MILLISECONDS = 1e-3
# source / consumer; held: items that have been begun and not yet delivered.
CASES: dict[str, dict[str, Any]] = {
    "1/1 ms": {"source": 1, "consumer": 1, "held": 2},
    "5/5 ms": {"source": 5, "consumer": 5, "held": 2},
    "10/2 ms": {"source": 10, "consumer": 2, "held": 2},
    "2/10 ms": {"source": 2, "consumer": 10, "held": 2},
    "5/5 ms, held 1": {"source": 5, "consumer": 5, "held": 1},
    "exponential 5/5 ms": {"source": 5, "consumer": 5, "held": 2, "exponential": True},
    "exponential 5/5 ms, held 8": {"source": 5, "consumer": 5, "held": 8, "exponential": True},
}
QUICK_CASES = ("5/5 ms", "exponential 5/5 ms")


def cases(quick: bool) -> dict[str, dict[str, Any]]:
    """Return the sleeps, with as many items as fit."""
    seconds = 0.3 if quick else 1.0
    return {key: {**CASES[key], "seconds": seconds} for key in (QUICK_CASES if quick else CASES)}


def durations(params: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Return the seconds to sleep for each item, the same for every candidate."""
    source, consumer = params["source"] * MILLISECONDS, params["consumer"] * MILLISECONDS
    count = int(params["seconds"] / max(source, consumer))
    if not params.get("exponential"):
        return [source] * count, [consumer] * count
    draw = random.Random(5)  # noqa: S311 - not for secrets
    return [draw.expovariate(1 / source) for _ in range(count)], [draw.expovariate(1 / consumer) for _ in range(count)]


def measure(candidate: Candidate, params: dict[str, Any]) -> dict[str, float]:
    """Return the share of the best possible speed, and the gain over the plain loop.

    The best is computed from the times that the sleeps of this very run took: they are longer than they were asked to
    be, by an amount that has nothing to do with the candidate.
    """
    depth = candidate.depth_for(params["held"]) or 0
    make = candidate.make()
    for _ in make(iter(range(3)), depth):
        pass
    to_make, to_use = durations(params)

    def source() -> Iterator[float]:
        for seconds in to_make:
            begun = time.perf_counter()
            time.sleep(seconds)
            yield time.perf_counter() - begun

    making, using = [], []
    start = time.perf_counter()
    for made, seconds in zip(make(source(), depth), to_use):  # noqa: B905 - as long as each other, and asked to the end
        begun = time.perf_counter()
        making.append(made)
        time.sleep(seconds)
        using.append(time.perf_counter() - begun)
    wall = time.perf_counter() - start
    return {"efficiency": ideal(making, using, params["held"]) / wall, "gain": in_turn(making, using) / wall}


def reason_to_skip(candidate: Candidate, params: dict[str, Any]) -> str:
    """Return why `candidate` cannot take part, or an empty string."""
    if candidate.depth_for(params["held"]) is None:
        return f"cannot hold {params['held']}"
    return ""


OVERLAP = Workload(
    name="overlap",
    title="Overlap: what prefetching gains",
    text="Source and consumer sleep (source/consumer). Share of the ideal schedule's speed, in percent, where every "
    "candidate holds the same number of items: two, unless it says otherwise.",
    cases=cases,
    measure=measure,
    reason_to_skip=reason_to_skip,
    columns=[Column(key, key, "efficiency", 100, "%") for key in CASES],
    more_columns={
        "Times as fast as the plain loop": [Column(key, key, "gain") for key in CASES],
    },
    note="The ideal schedule is computed exactly, from the durations that the sleeps of the same run took and for the "
    "same number of items held; handing over costs nothing in it.",
)
