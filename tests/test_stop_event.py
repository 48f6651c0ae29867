"""Contract D: stop events."""

from __future__ import annotations

import gc
import itertools
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from types import FrameType
from typing import Any

import pytest

from prefetch_generator import BackgroundGenerator, StopEvent, background, current_stop_event

from .helpers import LONG, PACKAGE, ended, in_thread, interrupted, posix, when_asleep


@contextmanager
def at_line(number: int, action: Callable[[], object]) -> Iterator[None]:
    """Do `action` before the line `number` (counted from 0) of the library that this thread executes."""
    lines = itertools.count()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line" and next(lines) == number:
            action()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


class SetsWhenFreed:
    """Sets an event in its finalizer, as whatever holds a generator may."""

    def __init__(self, event: StopEvent) -> None:
        self.event = event

    def __del__(self) -> None:
        self.event.set()


def until_stopped(closed: SimpleQueue[threading.Thread]) -> Iterator[int]:
    """Give 0, wait for the stop, and go on counting until closed."""
    try:
        yield 0
        current_stop_event().wait(LONG)
        yield from itertools.count(1)
    finally:
        closed.put(threading.current_thread())


# D1


def test_a_stop_event_is_one_shot() -> None:
    """D1: once set it stays set, and can be set again; there is no clear()."""
    event = StopEvent()
    assert event.is_set() is False
    for _ in range(2):
        event.set()
        assert event.is_set() is True
    assert not hasattr(event, "clear")


def test_wait_tells_whether_the_event_was_set() -> None:
    """D1: wait(timeout=None) -> bool: at once when it is set, False when the time ran out."""
    event = StopEvent()
    assert event.wait(0) is False
    started = time.monotonic()
    assert event.wait(timeout=0.05) is False
    assert time.monotonic() - started >= 0.05
    event.set()
    assert [event.wait(), event.wait(0), event.wait(LONG), event.wait(timeout=None)] == [True] * 4


@pytest.mark.parametrize("timeout", [None, 60, 60.0])
def test_set_wakes_every_waiter(timeout: float | None) -> None:
    """D1: as threading.Event: set() wakes all who wait."""
    event = StopEvent()
    asleep: SimpleQueue[None] = SimpleQueue()

    def wait() -> bool:
        with when_asleep(lambda: asleep.put(None)):
            return event.wait(timeout)

    waiters = [in_thread(wait) for _ in range(4)]
    for _ in waiters:
        asleep.get(timeout=LONG)
    event.set()
    assert [waiter.get(timeout=LONG) for waiter in waiters] == [True] * 4


@pytest.mark.parametrize("timeout", [None, 60])
def test_set_is_safe_in_a_finalizer(timeout: float | None) -> None:
    """D1: set() and is_set() are safe in a finalizer, which may run in the middle of the same event's wait()."""
    for line in itertools.count():
        event = StopEvent()
        box = [SetsWhenFreed(event)]
        late: list[bool] = []

        def wake(box: list[SetsWhenFreed] = box, late: list[bool] = late) -> None:
            late.extend(map(bool, box))
            box.clear()

        with at_line(line, box.clear), when_asleep(wake):
            assert event.wait(timeout) is True
        if late:  # that line comes after the sleep
            break
    assert line > 5


def test_set_is_safe_in_a_finalizer_inside_set_and_is_set() -> None:
    """D1: ... or in the middle of its set() and is_set(), on whatever thread; everybody is told all the same."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    for line in itertools.count():
        event = StopEvent()
        numbers = BackgroundGenerator(until_stopped(closed), stop_event=event)
        assert next(numbers) == 0
        box = [SetsWhenFreed(event)]
        with at_line(line, box.clear):
            event.is_set()
            event.set()
            assert event.is_set()
        assert event.wait(0) is True
        assert next(numbers, "over") == "over"
        assert ended(closed)
        if box:
            break
    assert line > 5


def test_set_wakes_a_waiter_that_comes_while_it_is_at_work() -> None:
    """D1: whatever line set() is at when somebody begins to wait, and falls asleep."""
    for line in itertools.count():
        event = StopEvent()
        settled: SimpleQueue[None] = SimpleQueue()  # the waiter is asleep, or back
        waiters: list[SimpleQueue[bool]] = []

        def wait(event: StopEvent = event, settled: SimpleQueue[None] = settled) -> bool:
            with when_asleep(lambda: settled.put(None)):
                answer = event.wait()
            settled.put(None)
            return answer

        def begin(
            wait: Callable[[], bool] = wait,
            settled: SimpleQueue[None] = settled,
            waiters: list[SimpleQueue[bool]] = waiters,
        ) -> None:
            waiters.append(in_thread(wait))
            settled.get(timeout=LONG)

        with at_line(line, begin):
            event.set()
        if not waiters:
            break
        assert waiters[0].get(timeout=LONG) is True
    assert line > 2


@posix
def test_set_is_safe_in_a_signal_handler() -> None:
    """D1: ... and in a signal handler, which may run in the middle of the same event's set() and wait()."""
    handled: list[bool] = []
    event = StopEvent()

    def handler(*_: object) -> None:
        handled.append(event.is_set())
        event.set()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        for line in itertools.count():
            event = StopEvent()
            handled.clear()
            with at_line(line, lambda: signal.raise_signal(signal.SIGUSR1)):
                event.wait(0)
                event.set()
                assert event.wait() is True
            if not handled:
                break
        assert line > 10
    finally:
        signal.signal(signal.SIGUSR1, before)


@posix
def test_set_in_a_signal_handler_wakes_the_wait_it_interrupts() -> None:
    """D1: ... a wait() that is asleep too."""
    event = StopEvent()
    with interrupted(event.set) as asleep, when_asleep(asleep):
        assert event.wait() is True


# D2


def test_every_generator_that_was_given_the_event_ends_at_once() -> None:
    """D2: set by anybody, it ends every generator that was given it: waiting next() too, sources in a step or not."""
    event, go = StopEvent(), threading.Event()
    asleep: SimpleQueue[None] = SimpleQueue()
    closed: SimpleQueue[threading.Thread] = SimpleQueue()

    def source() -> Iterator[int]:
        try:
            yield 0
            go.wait()
            yield 1
        finally:
            closed.put(threading.current_thread())

    def consume(numbers: BackgroundGenerator[int]) -> list[int]:
        with when_asleep(lambda: asleep.put(None)):
            return list(numbers)

    generators = [BackgroundGenerator(source(), stop_event=event) for _ in range(3)]
    try:
        assert [next(numbers) for numbers in generators] == [0, 0, 0]
        consumers = [in_thread(partial(consume, numbers)) for numbers in generators]
        for _ in consumers:
            asleep.get(timeout=LONG)
        in_thread(event.set).get(timeout=LONG)
        assert [consumer.get(timeout=LONG) for consumer in consumers] == [[], [], []]
        assert closed.empty()
    finally:
        go.set()
    assert all(ended(closed) for _ in generators)


def test_it_ends_them_as_if_closed() -> None:
    """D2: as if closed: nothing buffered is delivered, its own event is set, the source is closed by its worker."""
    event = StopEvent()
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    numbers = BackgroundGenerator(until_stopped(closed), 8, stop_event=event)
    assert next(numbers) == 0
    assert not numbers.stop_event.is_set()
    event.set()
    assert numbers.stop_event.is_set()
    assert numbers.stats.buffered == 0
    assert list(numbers) == []
    thread = closed.get(timeout=LONG)
    assert thread.name == "BackgroundGenerator-until_stopped"
    thread.join(LONG)
    assert numbers.close() is True


def test_an_event_that_is_already_set_ends_it_from_the_start() -> None:
    """D2: also one that was set before: nothing is delivered."""
    event = StopEvent()
    event.set()
    for _ in range(20):
        numbers = BackgroundGenerator(itertools.count(), stop_event=event)
        assert list(numbers) == []
        assert numbers.stop_event.is_set()
        assert numbers.close() is True


def test_closing_one_does_not_set_the_shared_event() -> None:
    """D2: closing one of them, or dropping it, leaves the event and the others alone."""
    event = StopEvent()
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    one, other, dropped = (BackgroundGenerator(until_stopped(closed), stop_event=event) for _ in range(3))
    assert [next(one), next(other), next(dropped)] == [0, 0, 0]
    assert one.close() is True
    del dropped
    assert ended(closed)
    assert ended(closed)
    assert [event.is_set(), one.stop_event.is_set(), other.stop_event.is_set()] == [False, True, False]
    event.set()
    assert other.close() is True
    assert ended(closed)


def test_a_generators_own_event_can_be_shared_and_set() -> None:
    """D2: a generator's own stop event is one to set, or to hand in to others, too."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    first = BackgroundGenerator(until_stopped(closed))
    second = BackgroundGenerator(until_stopped(closed), stop_event=first.stop_event)
    third = BackgroundGenerator(until_stopped(closed), stop_event=second.stop_event)
    assert [next(first), next(second), next(third)] == [0, 0, 0]
    second.stop_event.set()
    assert [list(second), list(third)] == [[], []]
    assert not first.stop_event.is_set()
    assert ended(closed)
    assert ended(closed)
    fourth = BackgroundGenerator(until_stopped(closed), stop_event=first.stop_event)
    assert next(fourth) == 0
    assert first.close() is True
    assert list(fourth) == []
    assert ended(closed)
    assert ended(closed)


def test_a_source_may_set_the_event() -> None:
    """D2: others may set it: a source of one of them is among those others."""
    event = StopEvent()

    def source() -> Iterator[int]:
        yield 0
        event.set()
        yield 1

    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    other = BackgroundGenerator(until_stopped(closed), stop_event=event)
    assert next(other) == 0
    numbers = BackgroundGenerator(source(), 1, stop_event=event)
    assert list(numbers) == [0]
    assert list(other) == []
    assert ended(closed)


def test_a_shared_event_keeps_no_generator_alive() -> None:
    """D2: an event only ends generators: one that is dropped is freed and stopped though the event lives on."""
    event = StopEvent()
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    numbers = BackgroundGenerator(until_stopped(closed), stop_event=event)
    assert next(numbers) == 0
    own = weakref.ref(numbers.stop_event)
    del numbers
    assert ended(closed)
    gc.collect()
    assert own() is None
    assert not event.is_set()


# D3


def test_inside_a_source_it_is_the_workers_stop_event() -> None:
    """D3: inside a source, in its steps and while it is being closed, it is its own generator's stop event."""
    seen: list[StopEvent] = []

    def source() -> Iterator[int]:
        try:
            seen.append(current_stop_event())
            yield from itertools.count()
        finally:
            seen.append(current_stop_event())

    first, second = BackgroundGenerator(source(), 1), BackgroundGenerator(source(), 1)
    assert [next(first), next(second)] == [0, 0]
    own = [first.stop_event, second.stop_event]
    assert [first.close(), second.close()] == [True, True]
    assert own[0] is not own[1]
    assert [sum(event is mine for event in seen) for mine in own] == [2, 2]


def test_inside_a_source_of_a_source_it_is_the_inner_workers() -> None:
    """D3: in a chain, each source sees the event of its own worker."""
    seen: list[bool] = []

    def inner(around: StopEvent) -> Iterator[int]:
        seen.append(current_stop_event() is around)
        yield 0

    def outer() -> Iterator[int]:
        around = current_stop_event()
        yield from BackgroundGenerator(inner(around))
        seen.append(current_stop_event() is around)

    assert list(BackgroundGenerator(outer())) == [0]
    assert seen == [False, True]


def test_elsewhere_it_is_one_that_is_never_set() -> None:
    """D3: elsewhere, in a helper thread of a stopped source too, it is one that is never set, whoever tries."""
    seen: list[bool] = []

    def source() -> Iterator[int]:
        yield 0
        seen.append(current_stop_event().wait(LONG))
        seen.append(in_thread(lambda: current_stop_event().is_set()).get(timeout=LONG))

    numbers = BackgroundGenerator(source())
    assert next(numbers) == 0
    assert numbers.close() is True
    assert seen == [True, False]
    current_stop_event().set()
    assert current_stop_event().is_set() is False
    assert current_stop_event().wait(0) is False


def test_a_source_that_waits_with_it_is_cancelled_at_once() -> None:
    """D3: the contract's own example: it stops in the middle of its wait."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    asleep = threading.Event()

    @background
    def poll(url: str) -> Iterator[str]:
        stop = current_stop_event()
        try:
            yield url
            with when_asleep(asleep.set):
                while not stop.wait(3600):
                    yield "too late"
        finally:
            closed.put(threading.current_thread())

    pages = poll("address")
    assert next(pages) == "address"
    assert asleep.wait(LONG)
    assert pages.close() is True
    assert ended(closed)
