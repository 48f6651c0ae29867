"""What is run in the other process. All of it can be imported there, and each source takes the number of its items."""

from __future__ import annotations

import sysconfig
import time
from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from typing import Any


def numbers(count: int) -> Iterator[int]:
    """Be the cheapest source that is still a generator."""
    yield from range(count)


def arrays(count: int, size: int) -> Iterator[Any]:
    """Give an array of ones again and again, so that only its way costs anything.

    It is never changed: a candidate that pickles later, on another thread, may have it and still be right.
    """
    array = import_module("numpy").ones(size // 8)
    for _ in range(count):
        yield array


def computed(count: int, iterations: int) -> Iterator[int]:
    """Compute in Python for each item."""
    for number in range(count):
        compute(iterations)
        yield number


def compute(iterations: int) -> None:
    """Hold the GIL, and count: what watched the clock would do less whenever somebody else held it."""
    for _ in range(iterations):
        pass


def iterations_in(seconds: float) -> int:
    """Return for how many iterations `compute` takes so long on an idle machine."""
    some, fastest = 100_000, 1e9
    for _ in range(5):
        start = time.perf_counter()
        compute(some)
        fastest = min(fastest, time.perf_counter() - start)
    return round(seconds * some / fastest)


def compressed_files(count: int) -> Iterator[bytes]:
    """Be the command's own source: files of the standard library, read and compressed."""
    files = import_module("prefetch_generator._command.find").files
    return islice(files(sysconfig.get_path("stdlib")), count)


def pausing(count: int, seconds: float) -> Iterator[int]:
    """Give one item, and the others after a long pause."""
    yield 0
    time.sleep(seconds)
    yield from range(1, count)
