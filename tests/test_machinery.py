"""Contract B5 and B6: what strikes a sleeper, and what breaks on the worker, outside of the source."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any

import pytest

from prefetch_generator import BackgroundGenerator, NotReadyError, _channel, _worker, current_stop_event
from prefetch_generator._channel import Channel

from .helpers import LONG, ended, interrupted, posix, when_asleep
from .interrupts.machine import NAME, At, Event, Strike, every_event, join_workers, one_after_the_other, strike

# B5

Make = Callable[[], BackgroundGenerator[int]]


def in_a_loop(make: Make) -> None:
    for _ in make():
        pass


def by_next(make: Make) -> None:
    next(make())


def by_next_with_a_timeout(make: Make) -> None:
    make().next(LONG)


def by_next_with_a_short_timeout(make: Make) -> None:
    make().next(0.01)


@pytest.mark.parametrize(
    ("take", "kind"),
    [
        pytest.param(in_a_loop, Strike, marks=posix),
        pytest.param(by_next, Strike, marks=posix),
        pytest.param(by_next_with_a_timeout, Strike, marks=posix),
        (by_next_with_a_short_timeout, NotReadyError),
    ],
)
def test_what_strikes_a_sleeper_keeps_neither_generator_nor_worker(
    take: Callable[[Make], None], kind: type[BaseException], no_collector: None
) -> None:
    """B5: whoever keeps its traceback, as a notebook does, does not thereby keep the generator, nor its worker."""
    begun = threading.Event()
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    references: list[weakref.ref[object]] = []

    def source() -> Iterator[int]:
        begun.set()
        try:
            assert current_stop_event().wait(LONG)
            yield 0
        finally:
            closed.put(threading.current_thread())

    def make() -> BackgroundGenerator[int]:
        numbers = BackgroundGenerator(source())
        references.append(weakref.ref(numbers))
        assert begun.wait(LONG)
        return numbers

    kept: BaseException | None = None
    try:
        with ExitStack() as stack:
            if kind is Strike:
                stack.enter_context(when_asleep(stack.enter_context(interrupted(strike))))
            take(make)
    except kind as error:
        kept = error
    assert kept is not None
    assert references[0]() is None
    assert ended(closed)


# B6


@every_event
@pytest.mark.parametrize("how", ["end", "failure", "left early"])
def test_an_error_anywhere_on_the_worker_never_makes_a_shorter_result(
    event: Event, how: str, hooked: SimpleQueue[threading.ExceptHookArgs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """B6: raised between any two instructions: all items and then the end, or some of them and then an error.

    It never hangs, close() works afterwards, and the thread is gone.
    """
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # where it strikes the last look at an ended thread
    outcomes: set[type[BaseException] | None] = set()

    def source() -> Iterator[int]:
        yield from range(3)
        if how == "failure":
            raise KeyError

    def scenario(n: int) -> At:
        at = At(event, n, strike)
        before = threading.gettrace()
        threading.settrace(at.trace)
        try:
            numbers = BackgroundGenerator(source(), 1, name="traced")
        finally:
            threading.settrace(before)
        got: list[int] = []
        outcome: type[BaseException] | None = None
        try:
            while how != "left early" or len(got) < 2:
                got.append(numbers.next(LONG))
        except BaseException as error:
            outcome = type(error)
        outcomes.add(outcome)
        assert got == list(range(len(got)))
        if outcome in {StopIteration, KeyError}:
            assert outcome is (KeyError if how == "failure" else StopIteration)
            assert len(got) == 3
        elif outcome is not None:
            assert outcome in {Strike, RuntimeError}
            with pytest.raises(StopIteration):
                numbers.next(LONG)
        try:
            assert numbers.close(LONG) is True
        except Strike:
            assert numbers.close(LONG) is True
        join_workers()
        while not hooked.empty():
            hooked.get()
        return at

    one_after_the_other(scenario, 40)
    assert outcomes >= {Strike, {"end": StopIteration, "failure": KeyError}.get(how)}


def test_a_thread_that_is_not_started_is_an_error_of_the_constructor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A4, B6: a thread of another kind (tools put such in the place of `Thread`) whose `start` does nothing."""
    monkeypatch.setattr(threading.Thread, "start", lambda _: None)
    with pytest.raises(RuntimeError, match="started no thread"):
        BackgroundGenerator(range(3))


@pytest.mark.parametrize(
    ("where", "name", "depth"),
    [
        (_worker, "enter_worker_thread", 0),
        (_worker, "_run_source", 0),
        (_worker, "_produce", 0),
        (_worker, "_end", 0),
        (Channel, "room", 0),
        (Channel, "finish", 0),
        (Channel, "_park", 1),
        (_channel, "repeat", 0),
        (_channel, "perf_counter", 1),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_breaks_on_the_worker_is_raised_by_next(
    where: Any,
    name: str,
    depth: int,
    hooked: SimpleQueue[threading.ExceptHookArgs],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """B6: what the library stands on fails once, as it does without memory: an error, never the end of the data."""
    works = getattr(where, name)
    broke = threading.Event()

    def breaks(*arguments: Any) -> Any:
        if threading.current_thread().name == NAME and not broke.is_set():
            broke.set()
            raise MemoryError
        return works(*arguments)

    monkeypatch.setattr(where, name, breaks)
    numbers = BackgroundGenerator(range(3), depth, name="traced")
    assert broke.wait(LONG)
    got: list[int] = []
    with pytest.raises((MemoryError, RuntimeError)):  # noqa: PT012 - the items before it
        while True:
            got.append(numbers.next(LONG))
    assert got == list(range(len(got)))
    with pytest.raises(StopIteration):
        numbers.next(LONG)
    assert numbers.close(LONG) is True
    join_workers()


def test_what_breaks_outside_of_the_source_has_it_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """B6, C3: what failed was not the source, so it has not ended, and ends early."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()

    class Source(Iterator[int]):
        def __next__(self) -> int:
            return 0

        def close(self) -> None:
            closed.put(threading.current_thread())

    def breaks(_: Channel[int]) -> Iterator[None]:
        raise MemoryError

    monkeypatch.setattr(Channel, "room", breaks)
    numbers = BackgroundGenerator(Source())
    with pytest.raises(MemoryError):
        next(numbers)
    assert ended(closed)
