"""What a process gains where both sides compute, and what it costs to send an item from there."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any

from benchmarks.processes.candidates import END, received
from benchmarks.processes.sources import arrays, compressed_files, compute, computed, iterations_in, numbers
from benchmarks.table import Candidate, GapError, Metrics, Workload

if TYPE_CHECKING:
    from benchmarks.processes.candidates import Source

Begin = Callable[[int], Iterator[Any]]  # starts a process that sends so many items


def per_item(begin: Begin, value: Callable[[Any], Any], trial: int, share: float) -> Metrics:
    """Return the microseconds per item from the second on, once it is sure that all have arrived.

    `value` takes a number of an item, and the sum of these is known.
    """

    def run(count: int) -> float:
        items = begin(count)
        first = value(next(items))
        start = time.perf_counter()
        total = sum(map(value, islice(items, count - 1)))
        seconds = time.perf_counter() - start
        if (first, total) not in {(0, count * (count - 1) // 2), (1, count - 1)} or next(items, END) is not END:
            raise GapError("lost items")
        return seconds / (count - 1)

    return {"µs": 1e6 * run(max(trial, min(int(0.3 * share / run(trial)), 200_000)))}


def measure_small(candidate: Candidate, depth: int, share: float) -> Metrics:
    """Return what a number costs."""
    return per_item(lambda count: candidate.make(partial(numbers, count), depth), int, 500, share)


def simple_queue(_depth: int, share: float) -> Metrics:
    """Return what a number costs through the least that `multiprocessing` has."""

    def begin(count: int) -> Iterator[int]:
        items: multiprocessing.SimpleQueue[int] = multiprocessing.SimpleQueue()
        return received(items, partial(numbers, count))

    return per_item(begin, int, 500, share)


SMALL_ITEMS = Workload(
    name="small items",
    text="What a number costs with a trivial source in a process and an empty loop, from the second item on. Floor: a "
    "bare `mp.SimpleQueue`, which has no bound but the pipe's.",
    cases={"depth 2": 2, "depth 128": 128},
    measure=measure_small,
    floors={"mp.SimpleQueue": simple_queue},
    against=("mp.SimpleQueue", "mp.Queue"),
    note="`mp.Pool.imap` has no bound, and is the same at every depth. threaded-generator empties its queue "
    "when its source ends, and so loses what the consumer has not taken by then.",
)


def measure_arrays(candidate: Candidate, size: int, share: float) -> Metrics:
    """Return what an array costs."""

    def begin(count: int) -> Iterator[Any]:
        return candidate.make(partial(arrays, count, size), candidate.usual_depth)  # type: ignore[no-any-return]

    return per_item(begin, first_of_array, 20, share)


def first_of_array(array: Any) -> float:
    """Return its first number, of whatever kind the array has become: torch makes it a tensor."""
    return float(array[0])


def four_segments(size: int, share: float) -> Metrics:
    """Return what an array costs that is copied once, into the next of four segments, and used where it lies there."""

    def fill(segments: list[mmap.mmap], ready: int, free: int, count: int) -> None:
        for number, array in enumerate(arrays(count, size)):
            os.read(free, 1)
            segments[number % 4][:] = memoryview(array).cast("B")
            os.write(ready, b"r")

    def begin(count: int) -> Iterator[Any]:
        view = partial(import_module("numpy").frombuffer, dtype=float)
        segments = [mmap.mmap(-1, size) for _ in range(4)]
        (ready, is_ready), (free, is_free) = os.pipe(), os.pipe()
        os.write(is_free, b"f" * 4)
        fork = multiprocessing.get_context("fork").Process
        fork(target=fill, args=(segments, is_ready, free, count), daemon=True).start()
        for number in range(count):
            os.read(ready, 1)
            yield view(segments[number % 4])
            os.write(is_free, b"f")

    return per_item(begin, first_of_array, 20, share)


ARRAYS = Workload(
    name="arrays",
    text="What a NumPy array costs at depth 2, from the second one on. Floor: four segments of shared memory that are "
    "used again and again, one copy into them and none out.",
    cases={"1 MB": 1 << 20, "16 MB": 1 << 24},
    measure=measure_arrays,
    floors={"four segments": four_segments},
    against=("four segments",),
    note="Whoever uses spdl's segments has to know their size and number before. The thread copies nothing.",
)


def measure_gain(candidate: Candidate, case: tuple[Callable[[int], Source], int], share: float) -> Metrics:
    """Return how many times as fast as the plain loop of this very process it was, from the second item on."""
    make, depth = case  # 0: the usual one
    source = make(max(20, int(150 * share)))
    used_up(source())  # a pass that is not counted: imports, files in memory
    alone, items = used_up(source())
    iterations = iterations_in(alone / items)
    plain, _ = used_up(source(), iterations)
    seconds, delivered = used_up(candidate.make(source, depth or candidate.usual_depth), iterations)
    if delivered != items:
        raise GapError("lost items")
    return {"": plain / seconds}


def used_up(items: Iterator[Any], iterations: int = 0) -> tuple[float, int]:
    """Compute for each item; return the seconds, the wait for the first one excepted, and how many items there were."""
    next(items)
    start, count = time.perf_counter(), 1
    compute(iterations)
    for _ in items:
        compute(iterations)
        count += 1
    return time.perf_counter() - start, count


def two_milliseconds(count: int) -> partial[Iterator[int]]:
    """Return a source that computes for two milliseconds."""
    return partial(computed, count, iterations_in(0.002))


def files(count: int) -> partial[Iterator[bytes]]:
    """Return the source of the command."""
    return partial(compressed_files, count)


COMPUTING = Workload(
    name="both sides compute",
    text="How many times as fast as the plain loop, at depth 2 unless named, from the second item on. The consumer "
    "computes in Python for as long as the source takes, so the most there is to gain is 2. The source computes in "
    "Python too, or is that of `python -m prefetch_generator`: files of the standard library, read and compressed.",
    cases={"2 ms of Python": (two_milliseconds, 0), "files": (files, 0), "files, depth 16": (files, 16)},
    measure=measure_gain,
)
