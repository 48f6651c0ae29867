"""Use the library in every way at once, at random, for a while, and check everything that can be checked.

`python -m verification.soak --minutes 2` runs rounds until the time is up. Each round is a handful of episodes side by
side, under a switch interval between 1 µs and 5 ms. Consumers take all, break, close, stop, time out or are
interrupted; sources end, fail, stop, wait or come in chains. After each round no thread may be left, and now and then
no file descriptor and no memory either. A hang is a violation too: it prints the stacks of all threads.

`--seed` repeats the same episodes; threads will still meet in other ways. The exit status is 0 if all went well.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import itertools
import math
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from queue import SimpleQueue
from types import FrameType

from prefetch_generator import BackgroundGenerator, NotReadyError, StopEvent, current_stop_event

HANG = 60.0  # seconds; no round takes that long
PROGRESS = 10.0  # seconds between two lines
WORKERS = "BackgroundGenerator-soak"
BOUNDS = [1, 1, 2, 3, 8, 64, 0]
FILES = Path("/proc/self/fd")
BLOCKS_ALLOWED = 3000  # of memory, more than after the warm-up: caches still fill


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


class Episode:
    """One use of the library, on a thread of its own; `kind` says which."""

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
        self.counters.generators.put(1)
        if max_prefetch is None:
            max_prefetch = self.random.choice(BOUNDS)
        return BackgroundGenerator(source, max_prefetch, stop_event=event, name="soak")

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
            taken = self.random.choice([1, 1, 3, 50])
            got = list(itertools.islice(numbers, taken))
            check(that=got == list(range(taken)), says=f"got {got}")
            if end == "close":
                check(that=numbers.close(HANG) is True, says="not closed")
            elif end == "stop":
                numbers.stop_event.set()
                check(that=next(numbers, -1) == -1, says="an item after the stop")
            del numbers
            for _ in range(length + 1):
                self.closed.get(timeout=HANG)
            check(that=not mistaken, says=f"{mistaken} mistook the stop for the end of the data")
        self.counters.items.put(len(got))

    def storm(self) -> None:
        """On the main thread: real signals whose handler raises, the consumer retrying."""
        n = self.random.choice([100, 1000, 5000])
        numbers = self.make(self.numbers(n))
        got: list[int] = []

        def consume() -> None:
            got.extend(numbers)

        def handler(_: int, frame: FrameType | None) -> None:
            while frame is not None:  # raise inside consume(), and not in the loop around it
                if frame.f_code is consume.__code__:
                    self.counters.strikes.put(1)
                    raise Strike
                frame = frame.f_back

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


KINDS = [
    "all_of_it",
    "failure",
    "result",
    "leave",
    "close",
    "close_inside",
    "failing_close",
    "stop",
    "timeouts",
    "chain",
]
ON_MAIN = ["storm", "all_of_it", "leave", "chain"] if hasattr(signal, "setitimer") else ["all_of_it", "leave", "chain"]


class Soak:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.counters = Counters()
        self.rounds = 0
        self.blocks = math.inf
        self.files = math.inf
        self.threads = threading.active_count()
        self.strays: SimpleQueue[str] = SimpleQueue()
        # Nothing is raised where nobody can catch it, but by a handler that struck a finalizer of somebody else's.
        threading.excepthook = lambda args: self.strays.put(f"thread hook: {args.exc_value!r}")
        sys.unraisablehook = lambda args: (
            None if issubclass(args.exc_type, Strike) else self.strays.put(f"unraisable: {args.exc_value!r}")
        )

    def round(self) -> list[str]:
        """Run some episodes side by side; return what they violated."""
        self.rounds += 1
        chance = random.Random(f"{self.seed}-{self.rounds}")
        sys.setswitchinterval(10 ** chance.uniform(-6, math.log10(0.005)))
        kinds = [chance.choice(ON_MAIN), *chance.choices(KINDS, k=chance.randrange(4))]
        episodes = [
            Episode(kind, f"{self.seed}-{self.rounds}-{number}", self.counters) for number, kind in enumerate(kinds)
        ]
        self.counters.episodes.update(kinds)
        faulthandler.dump_traceback_later(HANG, exit=True)
        threads = [threading.Thread(target=episode) for episode in episodes[1:]]
        for thread in threads:
            thread.start()
        episodes[0]()
        for thread in threads:
            thread.join()
        violations = [
            f"round {self.rounds}, {episode.kind}: {episode.violation!r}"
            for episode in episodes
            if episode.violation is not None
        ]
        del episodes, threads
        self.wait_for_workers()
        faulthandler.cancel_dump_traceback_later()
        self.counters.collect()
        while not self.strays.empty():
            violations.append(f"round {self.rounds}, {self.strays.get()}")
        return violations

    def wait_for_workers(self) -> None:
        """Wait until every worker is gone; those that are left for good are a hang."""
        for thread in threading.enumerate():
            if thread.name == WORKERS:
                thread.join(0)
        if threading.active_count() > self.threads:
            gc.collect()
        for thread in threading.enumerate():
            if thread.name == WORKERS:
                thread.join()

    def leaks(self) -> list[str]:
        """Compare descriptors and memory with what they were after the warm-up."""
        gc.collect()
        files = len(list(FILES.iterdir())) if FILES.exists() else 0
        blocks = sys.getallocatedblocks()
        if self.blocks == math.inf:
            self.files, self.blocks = files, blocks
        found = []
        if files > self.files:
            found.append(f"{files - self.files} file descriptors left open")
        if blocks > self.blocks + BLOCKS_ALLOWED:
            found.append(f"{blocks - self.blocks:.0f} blocks of memory not freed")
        if threading.active_count() > self.threads:
            found.append(f"{threading.active_count() - self.threads} threads left")
        return found

    def summary(self) -> str:
        total = self.counters.total
        return (
            f"{self.rounds} rounds, {self.counters.episodes.total()} episodes, {total['generators']:,} generators, "
            f"{total['items']:,} items, {total['strikes']:,} interrupts, {threading.active_count()} threads, "
            f"{sys.getallocatedblocks():,} blocks"
        )


def run(minutes: float, seed: int, say: Callable[[str], object] = print) -> int:
    """Run for so long; return the exit status."""
    say(f"Python {sys.version.split()[0]}, seed {seed}")
    interval = sys.getswitchinterval()
    soak = Soak(seed)
    violations: list[str] = []
    started = reported = time.monotonic()
    while time.monotonic() < started + minutes * 60 and not violations:
        violations += soak.round()
        if soak.rounds % 50 == 0 and (soak.rounds >= 200 or soak.blocks != math.inf):
            violations += soak.leaks()
        if time.monotonic() > reported + PROGRESS:
            reported = time.monotonic()
            say(f"{reported - started:5.0f} s: {soak.summary()}")
    sys.setswitchinterval(interval)
    if soak.blocks != math.inf:
        violations += soak.leaks()
    for violation in violations:
        say(f"VIOLATION: {violation}")
    say(f"{'FAILED' if violations else 'passed'}: {soak.summary()}, seed {seed}")
    return 1 if violations else 0


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description="Use the library in every way at once, at random, for a while.")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="repeat the episodes of another run")
    arguments = parser.parse_args()
    seed = int.from_bytes(os.urandom(4), "big") if arguments.seed is None else arguments.seed
    return run(arguments.minutes, seed, lambda line: print(line, flush=True))


if __name__ == "__main__":
    sys.exit(main())
