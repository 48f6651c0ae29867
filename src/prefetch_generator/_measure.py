"""Time a source and a consumer, in a plain loop and with the source in the background.

Everything here works on time stamps taken around the two sides, so that the arithmetic can be tested
with invented ones.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from prefetch_generator import BackgroundGenerator

Consumer: TypeAlias = Callable[[], None]
Source: TypeAlias = Callable[[], Iterator[object]]

WORTH_IT = 1.1  # less than this best possible speed-up is not worth a thread
_GRACE = 0.2  # seconds that an interrupted source has for its `finally`


class Span(NamedTuple):
    """When one side worked on one item, in seconds of `time.perf_counter`."""

    start: float
    end: float


class Run(NamedTuple):
    """One pass over the source: when it began, when each item was made and used, and the waits."""

    start: float
    made: Sequence[Span]
    used: Sequence[Span]
    producer_wait: float = 0.0
    consumer_wait: float = 0.0

    @property
    def seconds(self) -> float:
        """From the beginning to the end of the consumer's last item."""
        return self.used[-1].end - self.start

    @property
    def rate(self) -> float:
        """Items per second."""
        return len(self.used) / self.seconds


class Comparison(NamedTuple):
    """The same items, given to the same consumer by a plain loop and from the background."""

    plain: Run
    background: Run

    @property
    def speed_up(self) -> float:
        """How many times faster the background loop was."""
        return self.background.rate / self.plain.rate

    @property
    def best(self) -> float:
        """How many times faster it could have been, by the times of the plain loop."""
        return best_speed_up(len(self.plain.used), mean(self.plain.made), mean(self.plain.used))

    @property
    def gained(self) -> float:
        """The share of the possible gain that was reached: 0 for none; 1 for all of it, or if there is hardly any."""
        return (self.speed_up - 1) / (self.best - 1) if self.best >= WORTH_IT else 1.0


def mean(spans: Sequence[Span]) -> float:
    """Return the mean length of *spans*, in seconds."""
    return sum(end - start for start, end in spans) / len(spans)


def best_speed_up(items: int, source: float, consumer: float) -> float:
    """Return the best speed-up that overlap can give, for the mean seconds per item of both sides.

    The slower side has to do all its work, and the other one its first or its last item alone.

    >>> best_speed_up(10, 1.0, 1.0)
    1.8181818181818181
    """
    slower, faster = max(source, consumer), min(source, consumer)
    return items * (slower + faster) / (items * slower + faster) if slower else 1.0


def overlapped(run: Run, depth: int) -> float:
    """Return the seconds that *run* would take with a buffer of *depth* items and no cost of its own."""
    ready = 0.0
    taken: list[float] = []
    free = 0.0
    for index, (made, used) in enumerate(zip(run.made, run.used, strict=True)):
        room = taken[index - depth] if index >= depth else 0.0
        ready = max(ready, room) + made.end - made.start
        taken.append(max(ready, free))
        free = taken[-1] + used.end - used.start
    return free


def enough_depth(run: Run, max_prefetch: int) -> int:
    """Return *max_prefetch*, or the depth that would be clearly faster for the uneven times of *run*."""
    fastest = overlapped(run, len(run.used))
    if max_prefetch <= 0 or overlapped(run, max_prefetch) < 1.1 * fastest:
        return max_prefetch
    depth = max_prefetch
    while overlapped(run, depth) >= 1.05 * fastest:
        depth *= 2
    return depth


@runtime_checkable
class _Closable(Protocol):
    def close(self) -> object: ...


def watched(source: Iterator[object], items: int, made: list[Span]) -> Generator[object, None, None]:
    """Give the first *items* of *source*, noting in *made* when each was being made; then close it."""
    try:
        for _ in range(items):
            start = time.perf_counter()
            try:
                item = next(source)
            except StopIteration:
                return
            made.append(Span(start, time.perf_counter()))
            yield item
            del item
    finally:
        if isinstance(source, _Closable):
            source.close()


def first_pass(source: Source, items: int, consumer: float | None, budget: float) -> Run:
    """Take up to *items*, and no more than fit into *budget* seconds with the consumer's time added.

    Three items are taken however long they are: fewer show no overlap.
    """
    made: list[Span] = []
    start = time.perf_counter()
    with contextlib.closing(watched(source(), items, made)) as stream:
        for _ in stream:
            spent = time.perf_counter() - start
            wanted = spent if consumer is None else consumer * len(made)
            if len(made) >= 3 and spent + wanted > budget:
                break
    return Run(start, made, made)


def run(source: Source, items: int, consumer: Consumer, max_prefetch: int | None) -> Run:
    """Give *items* to the consumer, in a plain loop if *max_prefetch* is None, else from the background."""
    made: list[Span] = []
    stream = watched(source(), items, made)
    start = time.perf_counter()
    if max_prefetch is None:
        with contextlib.closing(stream):
            return Run(start, made, _consume(stream, consumer))
    background = BackgroundGenerator(stream, max_prefetch)
    try:
        used = _consume(background, consumer)
        stats = background.stats
    finally:
        # Not `with`: after Ctrl-C that would wait five seconds for a source that is stuck, and warn.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            background.close(_GRACE)
    return Run(start, made, used, stats.producer_wait, stats.consumer_wait)


def _consume(stream: Iterable[object], consumer: Consumer) -> list[Span]:
    used: list[Span] = []
    for _ in stream:
        start = time.perf_counter()
        consumer()
        used.append(Span(start, time.perf_counter()))
    return used


def waiting(seconds: float) -> Consumer:
    """Return a consumer that waits, as for a GPU or a network."""
    return lambda: time.sleep(seconds)


def computing(seconds: float) -> Consumer:
    """Return a consumer that computes in Python, for as long as *seconds* are on an idle machine.

    It counts iterations. One that watched the clock would do less work whenever the source held the GIL,
    and so hide what is to be measured.
    """
    iterations = round(seconds * _iterations_per_second())
    return lambda: _compute(iterations)


def _compute(iterations: int) -> None:
    for _ in range(iterations):
        pass


def _iterations_per_second() -> float:
    iterations = 1000
    while (fastest := min(_time(functools.partial(_compute, iterations)) for _ in range(3))) < 0.01:
        iterations *= 4
    return iterations / fastest


def _time(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextlib.contextmanager
def switch_interval(seconds: float) -> Iterator[None]:
    """Let a thread that waits for the GIL ask for it after *seconds*, for a while."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def spare_processor() -> bool:
    """Tell whether a second thread gets a processor of its own, here and now.

    It is tried with work that needs no GIL, because a count of processors knows nothing of quotas and neighbours.
    """
    block = bytes(1 << 24)

    def work() -> None:
        for _ in range(5):
            zlib.crc32(block)

    def work_twice() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        work()
        thread.join()

    once = sum(_time(work) for _ in range(3))
    return sum(_time(work_twice) for _ in range(3)) < 1.5 * once
