"""What prefetching gains: a source and a consumer that sleep."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from benchmarks.candidates import Candidate, GapError
from benchmarks.workload import Column, Params, Workload

# Milliseconds per item; held: items that have been begun and not yet delivered.
CASES: dict[str, Params] = {
    "1/1 ms": {"source": 1, "consumer": 1, "held": 2},
    "5/5 ms": {"source": 5, "consumer": 5, "held": 2},
    "10/2 ms": {"source": 10, "consumer": 2, "held": 2},
    "2/10 ms": {"source": 2, "consumer": 10, "held": 2},
    "5/5 ms, held 1": {"source": 5, "consumer": 5, "held": 1},
    "exponential 5/5 ms": {"source": 5, "consumer": 5, "held": 2, "exponential": True},
    "exponential 5/5 ms, held 8": {"source": 5, "consumer": 5, "held": 8, "exponential": True},
}


def durations(params: Params) -> tuple[list[float], list[float]]:
    """Return the seconds to sleep for each item, the same for every candidate."""
    source, consumer = params["source"] / 1000, params["consumer"] / 1000
    count = int(params["seconds"] / max(source, consumer))
    if not params.get("exponential"):
        return [source] * count, [consumer] * count
    draw = random.Random(5)  # noqa: S311 - not for secrets
    return [draw.expovariate(1 / source) for _ in range(count)], [draw.expovariate(1 / consumer) for _ in range(count)]


def measure(candidate: Candidate, params: Params) -> dict[str, float]:
    """Return how many times as fast as a plain loop it was.

    The plain loop's time is the sum of this very run's sleeps. Each is longer than it was asked to be, by an amount
    that has nothing to do with the candidate.
    """
    depth = candidate.depth_for(params["held"])
    if depth is None:
        raise GapError(f"cannot hold {params['held']}")
    make = candidate.make()
    for _ in make(iter(range(3)), depth):
        pass
    to_make, to_use = durations(params)

    def source() -> Iterator[float]:
        for seconds in to_make:
            begun = time.perf_counter()
            time.sleep(seconds)
            yield time.perf_counter() - begun

    plain = 0.0
    start = time.perf_counter()
    for made, seconds in zip(make(source(), depth), to_use):  # noqa: B905 - as long as each other, and asked to the end
        begun = time.perf_counter()
        time.sleep(seconds)
        plain += made + time.perf_counter() - begun
    return {"gain": plain / (time.perf_counter() - start)}


OVERLAP = Workload(
    name="overlap",
    text="How many times as fast as the plain loop, when source and consumer sleep (source/consumer). Every candidate "
    "holds the same number of items: two, unless the column says otherwise. The most there is to gain is 2 for equal "
    "steps, and 1.2 for 10 ms beside 2 ms.",
    cases={key: {**params, "seconds": 1.0} for key, params in CASES.items()},
    quick={key: {**CASES[key], "seconds": 0.3} for key in ("5/5 ms", "exponential 5/5 ms")},
    measure=measure,
    columns=[Column(key, key, "gain") for key in CASES],
)
