"""Contract, section C, sentences 6 and 10: dropping the last reference, wherever that happens."""

from __future__ import annotations

import gc
import itertools
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from types import FrameType
from typing import TypeVar

import pytest

from prefetch_generator import (
    BackgroundGenerator,
    NotReadyError,
    StopEvent,
    current_stop_event,
)
from prefetch_generator._channel import Channel
from tests.helpers import EVERY, GIL, LONG, ended, in_thread, posix, when_asleep
from tests.interrupts.machine import Every

from .support import Item, Reader, Stuck, counting, endless, threads_of


def use_everything() -> None:
    """Run through the library: an end, a failure, a drop, a close, a stop."""
    shared = StopEvent()
    with BackgroundGenerator(range(3), 1, stop_event=shared) as numbers:
        assert list(numbers) == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        next(BackgroundGenerator(1 / n for n in [0]))
    for number in BackgroundGenerator(itertools.count()):
        if number == 3:
            break
    numbers = BackgroundGenerator(itertools.count(), 1, stop_event=shared)
    assert next(numbers) == 0
    with pytest.raises(NotReadyError):
        BackgroundGenerator(iter(lambda: current_stop_event().wait(LONG), True)).next(0)
    shared.set()
    assert next(numbers, "over") == "over"
    assert numbers.close() is True
    assert shared.wait(0)


T = TypeVar("T")


@contextmanager
def made_by_a_sleeper(make: Callable[[], T]) -> Iterator[list[T]]:
    """Have something made by a thread that sleeps from then on to the end of the block."""
    made: SimpleQueue[list[T]] = SimpleQueue()
    wake = threading.Event()

    def run() -> None:
        made.put([make()])
        assert wake.wait(10 * LONG)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield made.get(timeout=LONG)
    finally:
        wake.set()
        thread.join()


def one_and_no_more(closed: SimpleQueue[threading.Thread]) -> Iterator[int]:
    try:
        yield 0
        assert current_stop_event().wait(LONG)
    finally:
        closed.put(threading.current_thread())


# C6


def test_break_stops_the_worker(no_collector: None) -> None:
    """C6: dropping the last reference by `break` stops the worker: the source is closed, the thread ends."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    for _ in BackgroundGenerator(counting(closed)):
        break
    assert ended(closed)


def test_an_exception_in_the_loop_stops_the_worker(no_collector: None) -> None:
    """C6: so does an exception that leaves the loop, as soon as it is let go."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    with suppress(KeyError):
        for _ in BackgroundGenerator(counting(closed)):
            raise KeyError
    assert ended(closed)


def test_dropping_in_a_cycle_stops_the_worker(no_collector: None) -> None:
    """C6: or in a cycle, when the collector finds it."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    numbers = BackgroundGenerator(counting(closed))
    assert next(numbers) == 0
    cycle: list[object] = [numbers]
    cycle.append(cycle)
    del numbers, cycle
    assert closed.empty()
    gc.collect()
    assert ended(closed)


def test_dropping_never_waits(stuck: Stuck, no_collector: None) -> None:
    """C6: dropping never waits for a source that is in a step; it is closed after it."""
    numbers = BackgroundGenerator(stuck.items())
    stop = numbers.stop_event
    assert stuck.inside.wait(LONG)
    slept: list[None] = []
    started = time.monotonic()
    with when_asleep(lambda: slept.append(None)):
        del numbers
    assert time.monotonic() - started < 4
    assert not slept
    assert stop.is_set()
    assert stuck.closed.empty()
    stuck.go.set()
    assert ended(stuck.closed)


def test_dropping_leaks_nothing(no_collector: None) -> None:
    """C6: nothing leaks: no thread, no item, no object of the library, nor anything in a shared stop event."""
    shared = StopEvent()
    items: weakref.WeakSet[Item] = weakref.WeakSet()
    closed: SimpleQueue[threading.Thread] = SimpleQueue()

    def source() -> Iterator[Item]:
        try:
            while True:
                item = Item()
                items.add(item)
                yield item
        finally:
            closed.put(threading.current_thread())

    def drop(n: int) -> None:
        for _ in range(n):
            for _ in BackgroundGenerator(source(), 4, stop_event=shared):
                break
            assert ended(closed)

    def blocks() -> int:
        if not GIL:
            gc.collect()  # for what a thread that has ended leaves is given back, or counted, later
        return sys.getallocatedblocks()

    drop(5 if GIL else 300)
    threads, before, objects = threading.active_count(), blocks(), len(gc.get_objects())
    drop(300)
    assert threading.active_count() == threads
    assert len(items) == 0
    assert len(gc.get_objects()) - objects < 100
    assert blocks() - before < 300


def test_dropping_anywhere_in_the_library(no_collector: None) -> None:
    """C6: wherever the garbage collector happens to run, in the middle of this library's own code."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    dropped = itertools.count()

    def drop(_: FrameType) -> None:
        numbers = BackgroundGenerator(counting(closed))
        next(numbers)
        holder: list[object] = [numbers]
        del numbers
        if next(dropped) % EVERY == 0:
            holder.append(holder)
            del holder
            gc.collect(0)

    with Every("line", drop):
        use_everything()
    lines = next(dropped)
    assert lines > 100
    for _ in range(lines):
        assert ended(closed)


@posix
def test_dropping_in_a_signal_handler_anywhere_in_the_library(no_collector: None) -> None:
    """C6: in a signal handler, wherever that strikes."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    dropped = itertools.count()

    def drop(_signal: int, _frame: FrameType | None) -> None:
        for _ in BackgroundGenerator(counting(closed)):
            next(dropped)
            break

    before = signal.signal(signal.SIGUSR1, drop)
    try:
        with Every("line", lambda _: signal.raise_signal(signal.SIGUSR1)):
            use_everything()
    finally:
        signal.signal(signal.SIGUSR1, before)
    lines = next(dropped)
    assert lines > 100
    for _ in range(lines):
        assert ended(closed)


def test_dropping_on_the_worker_itself(no_collector: None) -> None:
    """C6: on the worker itself, by reference count and by the collector, while it is in the source."""
    for in_cycle in (False, True):
        closed: SimpleQueue[threading.Thread] = SimpleQueue()
        box: SimpleQueue[list[object]] = SimpleQueue()

        def source(
            closed: SimpleQueue[threading.Thread] = closed, box: SimpleQueue[list[object]] = box
        ) -> Iterator[int]:
            for number in counting(closed):
                box.get(timeout=LONG)
                gc.collect()
                yield number

        holder: list[object] = [BackgroundGenerator(source())]
        if in_cycle:
            holder.append(holder)
        box.put(holder)
        del holder
        assert ended(closed)


def test_dropping_on_the_worker_at_every_line_it_executes(no_collector: None) -> None:
    """C6: on the worker itself, in the middle of this library's own code; the source is closed unless it has ended."""
    for line in itertools.count():
        lines = itertools.count()
        ready = threading.Event()
        box: list[BackgroundGenerator[int]] = []
        source = Reader(3)

        def drop(
            _: FrameType,
            lines: Iterator[int] = lines,
            line: int = line,
            ready: threading.Event = ready,
            box: list[BackgroundGenerator[int]] = box,
        ) -> None:
            ready.wait(LONG)
            if next(lines) == line:
                box.clear()

        with Every("line", drop).on_new_threads():
            box.append(BackgroundGenerator(source, 0, name="traced"))
            [thread] = threads_of("traced")
            ready.set()
            thread.join(LONG)
        assert not thread.is_alive()
        if box:  # it ended before that line
            break
    assert line > 20


def test_a_generator_that_is_dropped_ends_while_its_maker_sleeps(no_collector: None) -> None:
    """C6: made by one thread, which sleeps, consumed by a second and dropped by a third, it ends at once."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    with made_by_a_sleeper(lambda: BackgroundGenerator(counting(closed))) as box:
        assert in_thread(lambda: list(itertools.islice(box[0], 100))).get(timeout=LONG) == list(range(100))
        in_thread(box.clear).get(timeout=LONG)
        assert ended(closed)


@pytest.mark.parametrize("at", ["a wait for room", "a wait for an item"])
@pytest.mark.parametrize("how", ["close", "drop", "event"])
def test_a_chain_ends_as_one_while_its_maker_sleeps(how: str, at: str, no_collector: None) -> None:
    """C6: every worker of a chain, over generator expressions too, ends at once, however the outermost is ended."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    stop = StopEvent()
    channels: list[Channel[int]] = []

    def make() -> BackgroundGenerator[int]:
        source = counting(closed) if at == "a wait for room" else one_and_no_more(closed)
        innermost = BackgroundGenerator(source, 1, name="chain")
        middle = BackgroundGenerator((number + 1 for number in innermost), 1, name="chain")
        outermost = BackgroundGenerator((number + 1 for number in middle), 1, name="chain", stop_event=stop)
        channels.extend(one._channel for one in (innermost, middle))
        return outermost

    with made_by_a_sleeper(make) as box:
        assert in_thread(lambda: next(box[0])).get(timeout=LONG) == 2
        workers = [thread for thread in threading.enumerate() if thread.name == "BackgroundGenerator-chain"]
        assert len(workers) == 3
        deadline = time.monotonic() + LONG
        # Then each of them waits for room, or each of the outer ones for an item.
        while not all(one.items.qsize() if at == "a wait for room" else one.bells for one in channels):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        if how == "close":
            assert in_thread(lambda: box[0].close(LONG)).get(timeout=LONG) is True
        elif how == "drop":
            in_thread(box.clear).get(timeout=LONG)
        else:
            in_thread(stop.set).get(timeout=LONG)
        for worker in workers:
            worker.join(LONG)
            assert not worker.is_alive()
        assert ended(closed)


def test_a_source_that_drops_its_own_generator_is_closed() -> None:
    """C6: the last reference may be the source's own: it finishes its step, is closed, and its thread ends."""
    threads: SimpleQueue[threading.Thread] = SimpleQueue()
    given: SimpleQueue[object] = SimpleQueue()
    log: list[str] = []

    def source() -> Iterator[int]:
        try:
            threads.put(threading.current_thread())
            mine = given.get(timeout=LONG)
            assert mine is not None
            del mine
            log.append("dropped")
            yield 0
            log.append("asked again")
        finally:
            log.append("closed")

    numbers = BackgroundGenerator(source())
    thread = threads.get(timeout=LONG)
    given.put(numbers)
    del numbers
    thread.join(LONG)
    assert not thread.is_alive()
    assert log == ["dropped", "closed"]


def test_a_source_that_keeps_its_own_generator_lets_go_at_its_end() -> None:
    """C6: a source whose frame holds its own generator ends it by ending, whoever else has gone."""
    given: SimpleQueue[BackgroundGenerator[int]] = SimpleQueue()
    threads: SimpleQueue[threading.Thread] = SimpleQueue()

    def source() -> Iterator[int]:
        threads.put(threading.current_thread())
        mine = given.get(timeout=LONG)
        yield from range(3)
        assert mine.stats.delivered == 0

    numbers = BackgroundGenerator(source(), 0)
    thread = threads.get(timeout=LONG)
    given.put(numbers)
    del numbers
    thread.join(LONG)
    assert not thread.is_alive()


@pytest.mark.parametrize("source", ["parked", "unbounded", "waits", "waits for another"])
def test_a_generator_is_stopped_though_its_finalizer_was_struck(source: str, struck_finalizer: None) -> None:
    """C6: wherever the worker is, it hears that its generator is gone, without a line of Python to tell it."""
    begun = threading.Event()

    def outer() -> Iterator[int]:
        yield 0
        if source == "waits":
            yield from endless(begun)
        if source == "waits for another":
            yield from BackgroundGenerator(endless(begun))
        begun.set()
        while True:
            yield 0

    numbers = BackgroundGenerator(outer(), 0 if source == "unbounded" else 2)
    assert next(numbers) == 0
    assert begun.wait(LONG)
    worker, event = numbers._worker, numbers.stop_event
    del numbers
    assert worker.ended.wait(LONG)
    assert event.is_set()


def test_a_generator_over_a_generator_is_closed_without_a_time_limit() -> None:
    """C6: a chain that is dropped warns of nothing: only whoever called close() has a timeout."""
    timeouts = []

    class Inner(BackgroundGenerator[int]):
        def close(self, timeout: float | None = 5.0) -> bool:
            timeouts.append(timeout)
            return super().close(timeout)

    with BackgroundGenerator(Inner(iter(int, 1))) as numbers:
        assert next(numbers) == 0
    assert timeouts == [None]


# C10


def test_a_source_that_refers_to_its_own_generator_has_to_be_closed(no_collector: None) -> None:
    """C10: a loader that holds its generator, and whose method is the source, lives on until it is closed."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()

    class Loader:
        def __init__(self) -> None:
            self.numbers = BackgroundGenerator(self.items(), 1)

        def items(self) -> Iterator[int]:
            try:
                yield from itertools.count()
                self.numbers.close()
            finally:
                closed.put(threading.current_thread())

    loader = Loader()
    alive, stop = weakref.ref(loader), loader.numbers.stop_event
    assert next(loader.numbers) == 0
    del loader
    gc.collect()
    assert alive() is not None
    assert not stop.is_set()
    assert closed.empty()
    with alive().numbers as numbers:  # type: ignore[union-attr]  # it has just been seen
        assert next(numbers) == 1
    assert ended(closed)
    del numbers
    gc.collect()
    assert alive() is None
