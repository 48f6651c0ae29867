"""Contract A1, A2, A7, A8, B1, B2 and C1 for any source, any bound, any number of consumers, any moment of close().

A moment is a count of steps, never a time: source and consumer shake hands.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from queue import SimpleQueue

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prefetch_generator import BackgroundGenerator, current_stop_event
from tests.helpers import LONG

bounds = st.integers(-2, 5)
things = st.sampled_from(
    [None, 0, "", StopIteration, StopIteration(1), ValueError("an item"), GeneratorExit(), [], iter]
)
sources = st.lists(things, max_size=8)
returns: st.SearchStrategy[object] = st.sampled_from([None, 0, "result", (1, 2), ValueError("returned")])
failures: st.SearchStrategy[BaseException] = st.sampled_from(
    [ValueError, OSError, Exception, KeyboardInterrupt, SystemExit, GeneratorExit, BaseException, StopAsyncIteration]
).map(lambda kind: kind("source"))

# Threads make every example slow; it says nothing about the library if the machine is.
many = settings(deadline=None, max_examples=150)


def give(items: list[object], ending: Callable[[], object], asked: SimpleQueue[int]) -> Generator[object, None, object]:
    """Give the items, say so whenever asked for the next, and end with what `ending` returns or raises."""
    for number, item in enumerate(items):
        asked.put(number)
        yield item
    asked.put(len(items))
    return ending()


def no_result() -> None:
    """End without a result."""


def same(found: list[object], expected: list[object]) -> bool:
    """Compare by identity: what is delivered is the object, and not one like it."""
    return list(map(id, found)) == list(map(id, expected))


def may_be_asked(items: list[object], max_prefetch: int, delivered: int) -> int:
    """Return how often the source is asked at most, and if given time is asked: the end takes a step, too."""
    steps = len(items) + 1
    return steps if max_prefetch <= 0 else min(steps, max_prefetch + delivered)


@pytest.mark.parametrize("max_prefetch", [-(10**30), sys.maxsize, sys.maxsize + 1, 10**30])
def test_max_prefetch_may_be_any_integer(max_prefetch: int) -> None:
    """A1, A3: No integer is too large, or too small, to be a bound."""
    with BackgroundGenerator("abc", max_prefetch) as bg:
        assert list(bg) == ["a", "b", "c"]


@many
@given(sources, bounds, returns)
def test_order_and_return_value(items: list[object], max_prefetch: int, result: object) -> None:
    """A1, A7: Every item is delivered, in order, and the return value arrives as `StopIteration.value`."""
    bg = BackgroundGenerator(give(items, lambda: result, SimpleQueue()), max_prefetch)
    assert same([next(bg) for _ in items], items)
    with pytest.raises(StopIteration) as end:
        next(bg)
    assert end.value.value is result
    with pytest.raises(StopIteration) as end:
        next(bg)
    assert end.value.value is None


@many
@given(sources, bounds, failures)
def test_place_of_the_exception(items: list[object], max_prefetch: int, failure: BaseException) -> None:
    """B1: Whatever the source raises reaches the consumer after the items before it: the same object, once."""
    workers: SimpleQueue[threading.Thread] = SimpleQueue()

    def fail() -> None:
        workers.put(threading.current_thread())
        raise failure

    bg = BackgroundGenerator(give(items, fail, SimpleQueue()), max_prefetch)
    if may_be_asked(items, max_prefetch, delivered=0) > len(items):
        workers.get(timeout=LONG).join(LONG)  # so the failure is there before the first item is taken
    assert same([next(bg) for _ in items], items)
    with pytest.raises(type(failure)) as raised:
        next(bg)
    assert raised.value is failure
    assert list(bg) == []


@many
@given(sources, bounds, st.integers(0, 8))
@example([None] * 8, 1, 0)
@example([None] * 8, 1, 3)
@example([None] * 8, 5, 0)
def test_exact_bound_at_any_moment_of_close(items: list[object], max_prefetch: int, taken: int) -> None:
    """A2, C1: The source is asked for max_prefetch items more than were delivered, and never for another.

    That holds whenever it is closed; nothing is delivered after that.
    """
    asked: SimpleQueue[int] = SimpleQueue()
    bg = BackgroundGenerator(give(items, no_result, asked), max_prefetch)
    taken = min(taken, len(items))
    assert same(list(islice(bg, taken)), items[:taken])
    for step in range(may_be_asked(items, max_prefetch, taken)):
        assert asked.get(timeout=LONG) == step
    assert bg.close()
    assert list(bg) == []
    assert asked.empty()


@many
@given(bounds, st.lists(st.sampled_from(["make one", "take one"]), max_size=30))
@example(1, ["make one", "take one", "make one", "make one", "take one"])
def test_exact_bound_in_any_interleaving(max_prefetch: int, script: list[str]) -> None:
    """A1, A2, C1, E3: However the steps of the source and of the consumer alternate, there is nothing to be lost.

    The worker is in the source exactly when there is room, `next()` has an item exactly when one was made, and a stop
    ends both.
    """
    asked: SimpleQueue[int] = SimpleQueue()
    make: SimpleQueue[None] = SimpleQueue()

    def source() -> Iterator[int]:
        number = 0
        while True:
            asked.put(number)
            make.get()
            yield number
            number += 1

    def has_room() -> bool:
        return max_prefetch <= 0 or made - taken < max_prefetch

    bg = BackgroundGenerator(source(), max_prefetch)
    made = taken = 0
    assert asked.get(timeout=LONG) == 0
    for step in script:
        had_room = has_room()
        if step == "take one" and made == taken:
            with pytest.raises(TimeoutError):
                bg.next(timeout=0)
        elif step == "take one":
            assert bg.next(timeout=LONG) == taken
            taken += 1
            if not had_room:
                assert asked.get(timeout=LONG) == made
        elif had_room:
            make.put(None)
            made += 1
            if has_room():
                assert asked.get(timeout=LONG) == made
        assert asked.empty()
    bg.stop_event.set()
    assert list(bg) == []
    make.put(None)  # a step in progress is finished first
    assert bg.close()
    assert asked.empty()


class Consumer(threading.Thread):
    """Takes items until something else comes."""

    def __init__(self, bg: BackgroundGenerator[int]) -> None:
        super().__init__()
        self.bg = bg
        self.got: list[int] = []
        self.end: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            while True:
                self.got.append(next(self.bg))
        except BaseException as end:
            self.end = end


def all_items(consumers: list[Consumer]) -> list[int]:
    """Wait for all consumers to end; return what they got together, and see that each got it in order."""
    for consumer in consumers:
        consumer.join(LONG)
        assert not consumer.is_alive()
        assert consumer.got == sorted(consumer.got)
    return sorted(item for consumer in consumers for item in consumer.got)


@many
@given(st.integers(0, 30), bounds, st.integers(1, 5), st.none() | failures)
def test_any_number_of_consumers(items: int, max_prefetch: int, number: int, failure: BaseException | None) -> None:
    """A8, B2: Each item goes to exactly one of them, all of them end, exactly one gets the failure (or the result)."""

    def source() -> Generator[int, None, str]:
        yield from range(items)
        if failure:
            raise failure
        return "result"

    bg = BackgroundGenerator(source(), max_prefetch)
    consumers = [Consumer(bg) for _ in range(number)]
    assert all_items(consumers) == list(range(items))
    ends = [consumer.end for consumer in consumers]
    if failure:
        assert [end for end in ends if not isinstance(end, StopIteration)] == [failure]
    else:
        results = [end.value for end in ends if isinstance(end, StopIteration)]
        assert len(results) == number
        assert [result for result in results if result is not None] == ["result"]


@many
@given(st.integers(0, 10), bounds, st.integers(1, 4), st.booleans())
def test_any_moment_of_close_in_the_source(moment: int, max_prefetch: int, number: int, by_itself: bool) -> None:
    """A1, A8, C1, C3: Closed in any step of the source, by another thread or by the source itself, it ends.

    All waiting consumers end, what they got came in order and once, the step is the source's last, and it is closed.
    """
    reached = threading.Event()
    log: list[object] = []

    def source() -> Iterator[int]:
        try:
            yield from range(moment)
            reached.set()
            if by_itself:
                log.append(bg.close())
            else:
                log.append(current_stop_event().wait(LONG))
            yield moment
            log.append("another step")
        finally:
            log.append("closed")

    bg = BackgroundGenerator(source(), max_prefetch)
    consumers = [Consumer(bg) for _ in range(number)]
    assert reached.wait(LONG)
    assert bg.close(LONG)
    assert log == [not by_itself, "closed"]
    taken = all_items(consumers)
    assert all(isinstance(consumer.end, StopIteration) for consumer in consumers)
    assert len(taken) == len(set(taken))
    assert set(taken) <= set(range(moment))
