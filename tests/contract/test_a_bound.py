"""Contract, section A, sentences 2, 3 and 9: how far the worker is ahead, and what waiting costs."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import pytest

from prefetch_generator import (
    BackgroundGenerator,
)
from prefetch_generator._bell import Bell
from prefetch_generator._channel import NO_REQUEST, Channel
from tests.helpers import GIL, LONG, when_asleep

from .support import counted, threads_of

TASKS = Path("/proc/self/task")


# Without the GIL the worker may pull between the moment an item leaves the buffer and the moment it is counted.
UNCOUNTED = 0 if GIL else 1


@contextmanager
def stalled() -> Iterator[list[threading.Thread]]:
    """Give a worker that waits for room, and a consumer that waits for an item; both go on afterwards."""
    go, taken = threading.Event(), list[int]()

    def source() -> Iterator[int]:
        assert go.wait(LONG)
        yield 1

    full, empty = BackgroundGenerator(range(2), 1, name="full"), BackgroundGenerator(source())
    consumer = threading.Thread(target=lambda: taken.extend(empty))
    consumer.start()
    time.sleep(0.2)  # into the wait
    try:
        yield [*threads_of("full"), consumer]
    finally:
        go.set()
        consumer.join(LONG)
    assert (list(full), taken) == ([0, 1], [1])


class Eager(SimpleQueue[object]):
    """A queue to sleep on, in which nobody has to sleep: what would sleep is an error."""

    def get(self, block: bool = True, timeout: float | None = None) -> object:
        return super().get(block=False)


# A2


def test_the_seconds_of_both_waits_are_counted() -> None:
    """A2: those that the worker has waited for room, and the consumer for an item: no fewer than that, and no more."""
    begun, waited, more = time.perf_counter(), 0.05, threading.Event()

    def source() -> Iterator[int]:
        yield from range(2)
        assert more.wait(LONG)
        yield 2

    def give_more() -> None:
        time.sleep(waited)
        more.set()

    numbers = BackgroundGenerator(source(), 1)
    while numbers._channel.wake_worker is NO_REQUEST:  # no event tells
        time.sleep(0.001)
    time.sleep(waited)
    assert (next(numbers), next(numbers)) == (0, 1)
    with when_asleep(give_more):
        assert next(numbers) == 2
    assert list(numbers) == []
    took = time.perf_counter() - begun
    assert waited <= numbers.stats.producer_wait <= took
    assert waited <= numbers.stats.consumer_wait <= took


@pytest.mark.parametrize("max_prefetch", [1, 2, 3, 8])
def test_the_bound_is_exact(max_prefetch: int) -> None:
    """A2: pulled - delivered reaches max_prefetch after every next(), and is never more, at any pull."""
    pulls: SimpleQueue[tuple[int, int]] = SimpleQueue()
    box: SimpleQueue[BackgroundGenerator[int]] = SimpleQueue()

    def source() -> Iterator[int]:
        numbers = weakref.ref(box.get(timeout=LONG))
        for i in range(300):
            generator = numbers()
            assert generator is not None
            pulls.put((i + 1, generator.stats.delivered))
            del generator
            yield i

    numbers = BackgroundGenerator(source(), max_prefetch)
    box.put(numbers)
    ahead = [pulls.get(timeout=LONG) for _ in range(max_prefetch)]  # without one next(): that many and,
    for delivered in range(300 - max_prefetch):
        assert next(numbers) == delivered
        ahead.append(pulls.get(timeout=LONG))  # for each one taken, one more
    assert list(numbers) == list(range(300 - max_prefetch, 300))
    assert pulls.empty()
    assert max(pulled - delivered for pulled, delivered in ahead) <= max_prefetch + UNCOUNTED


# A3


@pytest.mark.parametrize("max_prefetch", [0, -1, -100])
def test_zero_or_less_means_no_bound(max_prefetch: int) -> None:
    """A3: with max_prefetch <= 0 the source runs to its end without anybody taking an item."""
    ended = threading.Event()

    def source() -> Iterator[int]:
        yield from range(5000)
        ended.set()

    numbers = BackgroundGenerator(source(), max_prefetch)
    assert ended.wait(LONG)
    assert list(numbers) == list(range(5000))


@pytest.mark.parametrize("max_prefetch", [True, False, "3", 2.0, None, [1]])
def test_what_is_not_an_integer_is_refused(max_prefetch: object) -> None:
    """A3: anything that is not an integer is a TypeError, bool too, and the source is not touched."""
    pulled: list[int] = []
    source = counted(pulled, 3)
    with pytest.raises(TypeError, match="max_prefetch must be an integer, got"):
        BackgroundGenerator(source, max_prefetch)  # type: ignore[arg-type]  # the point of the test
    assert list(source) == [0, 1, 2]


def test_whatever_counts_as_an_integer_is_taken() -> None:
    """A3: an object with __index__, such as NumPy's integers, is an integer."""

    class Two:
        def __index__(self) -> int:
            return 2

    assert list(BackgroundGenerator(range(3), Two())) == [0, 1, 2]  # type: ignore[arg-type]  # no int, and yet one


# A9


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="needs a CPU clock for each thread")
def test_a_stalled_side_costs_no_cpu() -> None:
    """A9: while the other side does nothing, a waiting one uses no CPU time: nothing polls."""
    with stalled() as threads:
        clocks = [time.pthread_getcpuclockid(ident) for thread in threads if (ident := thread.ident)]
        before = [time.clock_gettime(clock) for clock in clocks]
        time.sleep(0.5)
        used = [time.clock_gettime(clock) - start for clock, start in zip(clocks, before, strict=True)]
    assert len(used) == 2
    assert max(used) < 0.005  # a loop that wakes every millisecond needs far more


@pytest.mark.skipif(not TASKS.is_dir(), reason="needs Linux's /proc")
def test_a_stalled_side_wakes_for_nothing() -> None:
    """A9: a waiting side is not scheduled even once (Linux counts the switches of each thread)."""
    with stalled() as threads:
        tasks = [TASKS / str(thread.native_id) / "status" for thread in threads]

        def switches() -> list[str]:
            return [line for task in tasks for line in task.read_text().splitlines() if "ctxt_switches" in line]

        before = switches()
        time.sleep(0.5)
        assert switches() == before
    assert len(before) == 4


@pytest.mark.parametrize("cancelled", [False, True], ids=["room", "cancelled"])
def test_a_worker_does_not_sleep_when_there_is_something_to_do(cancelled: bool) -> None:
    """A9, C1: room that came, or a stop, between its look and its announcement: the worker sees it."""
    channel = Channel[int](1, object)
    channel.wakeups = Eager()
    if cancelled:
        channel.items.put(0)
        channel.cancelled = True
    channel._park()
    assert channel.wakeups.qsize() == 0


def test_a_consumer_is_woken_once() -> None:
    """A9: who has been woken is not woken again, for nothing."""
    rung = []

    class Counted(Bell):
        def ring(self, _: object = None) -> None:
            rung.append(self)

    channel = Channel[int](1, object)
    bell = Counted()
    channel.bells.add(bell)
    channel.ring()
    channel.ring()
    assert rung == [bell]


@pytest.mark.parametrize(("change", "awake"), [("item", True), ("end", True), ("stop", True), ("nothing", False)])
def test_a_consumer_does_not_sleep_when_there_is_something_to_do(change: str, awake: bool) -> None:
    """A9: what came between its look and its announcement, an item, the end or a stop: the consumer sees it."""
    channel = Channel[int](2, object)
    if change == "item":
        channel.items.put(1)
    elif change == "end":
        channel.over = True
    elif change == "stop":
        channel.cancelled = True
    assert channel.wait(channel.has_news, 0.0) is awake


def test_a_worker_is_woken_once_however_many_consumers_answer() -> None:
    """A9: a worker's call for help is answered by one token, so that it wakes for nothing later."""
    channel = Channel[int](1, object)
    channel.items.put(0)

    class Answered(SimpleQueue[object]):
        def get(self, block: bool = True, timeout: float | None = None) -> object:
            for _ in range(2):
                for _ in channel.wake_worker:
                    break
            return super().get(block=False)

    channel.wakeups = Answered()
    channel._park()
    assert channel.wakeups.qsize() == 0
