"""Contract A8, C2, C6 and E4 where threads run at the same time. With the GIL all of this is easy."""

from __future__ import annotations

import itertools
import operator
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

import pytest

from prefetch_generator import BackgroundGenerator, StopEvent, current_stop_event
from prefetch_generator._channel import Channel

from .helpers import LONG, ended, in_thread

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


def endless(closed: SimpleQueue[threading.Thread]) -> Iterator[int]:
    try:
        yield from itertools.count()
    finally:
        closed.put(threading.current_thread())


def one_and_no_more(closed: SimpleQueue[threading.Thread]) -> Iterator[int]:
    try:
        yield 0
        assert current_stop_event().wait(LONG)
    finally:
        closed.put(threading.current_thread())


# C6


def test_a_generator_that_is_dropped_ends_while_its_maker_sleeps(no_collector: None) -> None:
    """C6: made by one thread, which sleeps, consumed by a second and dropped by a third, it ends at once."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    with made_by_a_sleeper(lambda: BackgroundGenerator(endless(closed))) as box:
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
        source = endless(closed) if at == "a wait for room" else one_and_no_more(closed)
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


# C2


def test_the_warning_names_the_line_of_a_source_that_runs_meanwhile() -> None:
    """C2: a look at a busy thread may miss its way out; the warning names the source's line all the same."""
    begun, enough = threading.Event(), threading.Event()

    def descend(depth: int) -> Iterator[int]:  # frames that come and go, which is what a look stumbles over
        yield depth
        if depth:
            yield from descend(depth - 1)

    def source() -> Iterator[int]:
        begun.set()
        while not enough.is_set():
            list(descend(5))
        yield 0

    numbers = BackgroundGenerator(source())
    assert begun.wait(LONG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [numbers.close(0) for _ in range(200)] == [False] * 200
    enough.set()
    assert numbers.close(LONG) is True
    first = source.__code__.co_firstlineno
    places = {re.sub(r"^.*its source is still ", "", str(warning.message)) for warning in caught}
    assert len(caught) == 200
    assert places <= {f"at {__file__}, line {first + line}" for line in (1, 2, 3)}


# A8, E4


def test_what_several_consumers_take_is_counted_exactly() -> None:
    """A8, E4: `Stats.delivered` and the length hint miss nothing that four threads take at once."""
    numbers = BackgroundGenerator(range(20_000), 0)
    start = threading.Barrier(4)

    def take() -> list[int]:
        start.wait(LONG)
        return [next(numbers) for _ in range(4_500)]

    taken = [in_thread(take) for _ in range(4)]
    items = {item for some in taken for item in some.get(timeout=LONG)}
    assert items == set(range(18_000))
    assert numbers.stats.delivered == 18_000
    assert operator.length_hint(numbers) == 2_000
    assert len(list(numbers)) == 2_000
    assert numbers.stats.delivered == 20_000
