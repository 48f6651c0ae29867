"""The episodes of the soak test with synchronous consumers: each is one use of the library, and what must hold."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from queue import SimpleQueue
from types import CodeType, FrameType
from typing import Any

from prefetch_generator import BackgroundGenerator, NotReadyError, StopEvent, background, current_stop_event

HANG = 60.0  # seconds; no round takes that long
BOUNDS = [1, 1, 2, 3, 8, 64, 0]


class ViolationError(AssertionError):
    """The library has broken its contract."""


class SoakError(Exception):
    """What a source raises on purpose."""


class Strike(KeyboardInterrupt):
    """What a signal handler raises on purpose."""


def check(*, that: bool, says: str) -> None:
    if not that:
        raise ViolationError(says)


class Counters:
    """What has been done so far."""

    def __init__(self) -> None:
        self.episodes: Counter[str] = Counter()
        self.items: SimpleQueue[int] = SimpleQueue()
        self.generators: SimpleQueue[int] = SimpleQueue()
        self.strikes: SimpleQueue[int] = SimpleQueue()
        self.total: Counter[str] = Counter()

    def collect(self) -> None:
        for name in ("items", "generators", "strikes"):
            queue: SimpleQueue[int] = getattr(self, name)
            while not queue.empty():
                self.total[name] += queue.get()


def striker(code: CodeType, strikes: SimpleQueue[int], *, itself: bool = True) -> Callable[[int, Any], None]:
    """Return a signal handler that raises in what this code calls, and in the code `itself`, but not around it."""

    def handler(_: int, frame: FrameType | None) -> None:
        hook = "hear_of"  # in which nobody could catch it
        if frame is not None and not itself and frame.f_code.co_name != hook:
            frame = frame.f_back
        while frame is not None and frame.f_code.co_name != hook:
            if frame.f_code is code:
                strikes.put(1)
                raise Strike
            frame = frame.f_back

    return handler


def soak(n: int, *, fails: bool) -> Iterator[int]:
    """Be a source in a process of its own; as the workers of all others are, it is named after this test."""
    yield from range(n)
    if fails:
        raise SoakError


def take_and_leave(numbers: BackgroundGenerator[int], count: int, end: str) -> list[int]:
    """Take so many numbers, and end the generator, if by "close" or "stop"; return what was taken."""
    got = list(itertools.islice(numbers, count))
    check(that=got == list(range(count)), says=f"got {got}")
    if end == "close":
        check(that=numbers.close(HANG) is True, says="not closed")
    elif end == "stop":
        numbers.stop_event.set()
        check(that=next(numbers, -1) == -1, says="an item after the stop")
    return got


class Episode:
    """One use of the library, on a thread of its own; `kind` says which."""

    asynchronous_sources = 0.3  # how many of the sources are asynchronous

    def __init__(self, kind: str, seed: str, counters: Counters) -> None:
        self.kind, self.seed, self.counters = kind, seed, counters
        self.random = random.Random(seed)
        self.violation: BaseException | None = None
        self.closed: SimpleQueue[None] = SimpleQueue()

    def __call__(self) -> None:
        try:
            getattr(self, self.kind)()
        except BaseException as error:  # SoakError, too: nothing that was raised on purpose comes this far
            self.violation = error

    # What sources do

    def make(
        self, source: Iterator[int], max_prefetch: int | None = None, event: StopEvent | None = None
    ) -> BackgroundGenerator[int]:
        """Make a generator over the source, or over an asynchronous one that gives the same."""
        self.counters.generators.put(1)
        if max_prefetch is None:
            max_prefetch = self.random.choice(BOUNDS)
        either = self.asynchronous(source) if self.random.random() < self.asynchronous_sources else source
        return BackgroundGenerator(either, max_prefetch, stop_event=event, name="soak")

    async def asynchronous(self, source: Iterator[int]) -> AsyncIterator[int]:
        """Give what the source gives, now and then not at once, and end as it does."""
        pause = self.random.choice([3, 100, 1 << 40])
        try:
            for number in source:
                if number % pause == pause - 1:
                    await asyncio.sleep(0)
                yield number
        finally:
            source.close()  # type: ignore[attr-defined]  # all are generators

    def numbers(self, n: int, failure: BaseException | None = None) -> Generator[int, None, int]:
        """Give range(n), now and then not at once, and return n or fail."""
        pauses = set(self.random.sample(range(n), min(n, self.random.choice([0, 0, 2])))) if n else set()
        try:
            for number in range(n):
                if number in pauses:
                    current_stop_event().wait(0.0005)
                yield number
            if failure is not None:
                raise failure
            return n
        finally:
            self.closed.put(None)

    def count(self) -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            self.closed.put(None)

    def some(self) -> int:
        return self.random.choice([0, 1, 2, 3, 10, 100, 1000, 5000])

    # What consumers do

    def in_order(self, got: list[int]) -> None:
        self.counters.items.put(len(got))
        check(that=all(a < b for a, b in itertools.pairwise(got)), says=f"out of order or repeated: {got[:20]}...")

    def consume(self, numbers: Iterator[int], results: SimpleQueue[tuple[list[int], str]]) -> None:
        got: list[int] = []
        end = "end"
        try:
            got.extend(numbers)
        except SoakError:
            end = "failure"
        except BaseException as error:
            end = repr(error)
        results.put((got, end))

    def several(self, numbers: BackgroundGenerator[int], consumers: int) -> tuple[list[int], list[str]]:
        """Iterate on several threads; return all items, sorted, and how each consumer ended."""
        results: SimpleQueue[tuple[list[int], str]] = SimpleQueue()
        threads = [threading.Thread(target=self.consume, args=(numbers, results)) for _ in range(consumers)]
        for thread in threads:
            thread.start()
        del numbers
        items: list[int] = []
        ends: list[str] = []
        for _ in threads:
            got, end = results.get()
            self.in_order(got)
            items += got
            ends.append(end)
        for thread in threads:
            thread.join()
        return sorted(items), sorted(ends)

    def closed_is(self, times: int) -> None:
        for _ in range(times):
            self.closed.get(timeout=HANG)
        check(that=self.closed.empty(), says="closed more than once")

    # The episodes

    def all_of_it(self) -> None:
        n, consumers = self.some(), self.random.choice([1, 1, 2, 5])
        items, ends = self.several(self.make(self.numbers(n)), consumers)
        check(that=items == list(range(n)) and sum(items) == n * (n - 1) // 2, says=f"not all of {n}: {len(items)}")
        check(that=ends == ["end"] * consumers, says=f"ended by {ends}")
        self.closed_is(1)

    def failure(self) -> None:
        n, consumers = self.some(), self.random.choice([1, 1, 2, 5])
        items, ends = self.several(self.make(self.numbers(n, SoakError())), consumers)
        check(that=items == list(range(n)), says=f"not all of {n}: {len(items)}")
        check(that=ends == ["end"] * (consumers - 1) + ["failure"], says=f"ended by {ends}")
        self.closed_is(1)

    def result(self) -> None:
        n = self.some()
        self.asynchronous_sources = 0.0  # which return nothing
        numbers = self.make(self.numbers(n))
        got = []
        while True:
            try:
                got.append(next(numbers))
            except StopIteration as end:
                check(that=end.value == n, says=f"returned {end.value}, not {n}")
                break
        check(that=got == list(range(n)), says="not all")
        self.counters.items.put(n)

    def leave(self) -> None:
        """Break out of a loop, by the reference count or in a cycle."""
        n = self.random.choice([1, 1, 2, 10, 100])
        numbers = self.make(self.count(), self.random.choice([1, 1, 2, 3, 8, 64]))
        cycle: list[object] = [numbers]
        if self.random.random() < 0.3:
            cycle.append(cycle)
        got = list(itertools.islice(numbers, n))
        check(that=got == list(range(n)), says=f"got {got[:20]}")
        self.counters.items.put(n)
        del numbers, cycle
        gc.collect(self.random.randrange(3))
        while self.closed.empty():
            gc.collect()  # again: while another thread collects, this one's call does nothing
            time.sleep(0.001)
        self.closed_is(1)

    def close(self) -> None:
        """Close from another thread, several times, while several consume."""
        numbers = self.make(self.numbers(1 << 40), self.random.choice([1, 1, 2, 3, 8]))
        pause, closers = self.random.choice([0, 0.0001, 0.001, 0.01]), self.random.choice([1, 1, 3])
        answers: SimpleQueue[object] = SimpleQueue()

        def close() -> None:
            time.sleep(pause)
            try:
                answers.put(numbers.close(HANG))
            except BaseException as error:
                answers.put(error)

        threads = [threading.Thread(target=close) for _ in range(closers)]
        for thread in threads:
            thread.start()
        items, ends = self.several(numbers, self.random.choice([1, 3]))
        for thread in threads:
            thread.join()
            answer = answers.get()
            check(that=answer is True, says=f"close() answered {answer!r}")
        check(that=items == list(range(len(items))) or len(ends) > 1, says="a gap")
        check(that=len(set(items)) == len(items), says="repeated")
        check(that=set(ends) == {"end"}, says=f"ended by {ends}")
        check(that=next(numbers, -1) == -1, says="an item after close()")

    def close_inside(self) -> None:
        """Close from the source itself."""
        n = self.random.randrange(20)
        made: SimpleQueue[BackgroundGenerator[int]] = SimpleQueue()

        def source() -> Iterator[int]:
            mine = made.get()
            yield from range(n)
            check(that=mine.close() is False, says="close() in the source has waited")
            yield n

        numbers = self.make(source())
        made.put(numbers)
        got = list(numbers)
        self.in_order(got)
        check(that=got == list(range(len(got))) and len(got) <= n, says=f"got {got} of {n}")
        check(that=numbers.close(HANG) is True, says="not closed")

    def failing_close(self) -> None:
        def source() -> Iterator[int]:
            try:
                yield from itertools.count()
            finally:
                raise SoakError

        numbers = self.make(source(), self.random.choice([1, 2, 8]))
        next(numbers)
        raised = 0
        for _ in range(3):
            try:
                numbers.close(HANG)
            except SoakError:
                raised += 1
        check(that=raised == 1, says=f"raised {raised} times")

    def stop(self) -> None:
        """Several generators with one event, which somebody sets."""
        event = StopEvent()
        generators = [self.make(self.numbers(1 << 40), self.random.choice([1, 2, 8]), event) for _ in range(3)]
        one = generators[self.random.randrange(3)]
        if self.random.random() < 0.5:
            check(that=one.close(HANG), says="not closed")
            check(that=not event.is_set(), says="closing one has set the shared event")
        timer = threading.Timer(self.random.choice([0, 0.0001, 0.001, 0.01]), event.set)
        timer.start()
        for numbers in generators:
            got = list(numbers)
            self.in_order(got)
            check(that=got == list(range(len(got))), says="a gap")
            check(that=numbers.stop_event.is_set(), says="ended, and not stopped")
        timer.join()
        for numbers in generators:
            check(that=numbers.close(HANG), says="not closed")

    def timeouts(self) -> None:
        n = self.random.choice([10, 100, 300])
        numbers = self.make(self.numbers(n))
        timeout = self.random.choice([0, 0.00001, 0.0005])
        got = []
        while True:
            try:
                got.append(numbers.next(timeout))
            except NotReadyError:
                time.sleep(0)
            except StopIteration:
                break
        check(that=got == list(range(n)), says=f"lost or repeated: {len(got)} of {n}")
        self.counters.items.put(n)

    def chain(self) -> None:
        """Take a chain of generators to its end, or stop, drop or break it in the middle."""
        end = self.random.choice(["end", "failure", "close", "drop", "stop"])
        n = self.some() if end in ("end", "failure") else 1 << 40
        length = self.random.choice([2, 3, 5])
        mistaken: list[int] = []

        def link(inner: Iterator[int], number: int) -> Generator[int, None, None]:
            try:
                yield from inner
                mistaken.append(number)
            finally:
                self.closed.put(None)

        numbers = self.make(self.numbers(n, SoakError() if end == "failure" else None), self.random.choice([1, 2, 8]))
        for number in range(length):
            numbers = self.make(link(numbers, number), self.random.choice([1, 2, 8]))
        got: list[int] = []
        if end in ("end", "failure"):
            try:
                got.extend(numbers)
                check(that=end == "end", says="the failure was lost")
            except SoakError:
                check(that=end == "failure", says="a failure out of nowhere")
            check(that=got == list(range(n)), says=f"not all of {n}: {len(got)}")
            self.closed_is(length + 1)
        else:
            got = take_and_leave(numbers, self.random.choice([1, 1, 3, 50]), end)
            del numbers
            for _ in range(length + 1):
                self.closed.get(timeout=HANG)
            check(that=not mistaken, says=f"{mistaken} mistook the stop for the end of the data")
        self.counters.items.put(len(got))

    def in_process(self) -> None:
        """Take from a source in a process of its own to its end, or close, stop or drop it before."""
        self.counters.generators.put(1)
        end = self.random.choice(["end", "end", "failure", "close", "stop", "drop"])
        n = self.some() if end in {"end", "failure"} else 1 << 40
        make = background(max_prefetch=self.random.choice(BOUNDS[:-1]), process="fork")(soak)
        numbers = make(n, fails=end == "failure")
        if end in {"end", "failure"}:
            items, ends = self.several(numbers, consumers := self.random.choice([1, 1, 2]))
            check(that=items == list(range(n)), says=f"not all of {n}: {len(items)}")
            wanted = ["end"] * (consumers - (end == "failure")) + ["failure"] * (end == "failure")
            check(that=ends == wanted, says=f"ended by {ends}")
            return
        take_and_leave(numbers, self.random.choice([0, 1, 50]), end)

    def storm(self) -> None:
        """On the main thread: real signals whose handler raises, the consumer retrying."""
        n = self.random.choice([100, 1000, 5000])
        numbers = self.make(self.numbers(n))
        got: list[int] = []

        def consume() -> None:
            got.extend(numbers)

        handler = striker(consume.__code__, self.counters.strikes)
        before = signal.signal(signal.SIGALRM, handler)
        interval = self.random.choice([0.0002, 0.001])
        try:
            signal.setitimer(signal.ITIMER_REAL, interval, interval)
            while True:
                try:
                    consume()
                    break
                except Strike:
                    pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        check(that=got == list(range(n)), says=f"lost or repeated under interrupts: {len(got)} of {n}")
        self.counters.items.put(n)
