"""Contract C9: the order of an ending."""

from __future__ import annotations

import _thread
import itertools
import signal
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from queue import SimpleQueue

import pytest

from prefetch_generator import BackgroundGenerator, StopEvent, current_stop_event

from .helpers import LONG, in_thread, when_asleep


class Goodbye:
    """An item that calls something when it is freed."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def __del__(self) -> None:
        self.call()


class Interrupt:
    """An item whose end has a signal handler run right after it: not in the finalizer, which is no Python code."""

    __del__ = staticmethod(_thread.interrupt_main)


class Struck(BaseException):
    """Raised by a signal handler."""


class Stuck:
    """A source that gives `items`, and is stuck after that: its worker drops nothing before `go` is set."""

    def __init__(self, items: Iterable[object]) -> None:
        self.items = list(items)  # made here: without the GIL an object may wait for its maker's thread to be freed
        self.given, self.go = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[object]:
        while self.items:
            yield self.items.pop(0)
        self.given.set()
        self.go.wait(LONG)


def empty() -> Iterator[object]:
    """Give nothing until stopped."""
    yield from [0] * (not current_stop_event().wait(LONG))


def end(box: list[BackgroundGenerator[object]], how: str, shared: StopEvent) -> None:
    """End the generator that is alone in the box."""
    if how == "drop":
        box.clear()
    elif how == "close":
        assert box[0].close() is True
    else:
        (box[0].stop_event if how == "own event" else shared).set()


every_ending = pytest.mark.parametrize("how", ["close", "drop", "own event", "shared event"])


@every_ending
def test_everybody_is_awake_before_an_item_is_dropped(how: str) -> None:
    """C9: a finalizer may wait for whoever the ending wakes: its own source, those that wait, and other consumers."""
    shared = StopEvent()
    asleep: SimpleQueue[None] = SimpleQueue()
    answers: SimpleQueue[bool] = SimpleQueue()
    heard, freed = threading.Event(), threading.Event()
    back: list[threading.Event] = [heard]

    def goodbye() -> None:
        answers.put(all(event.wait(LONG) for event in back))
        freed.set()

    made = [Goodbye(goodbye)]  # here, as in `Stuck`

    def source() -> Iterator[object]:
        yield made.pop()
        with when_asleep(lambda: asleep.put(None)):
            current_stop_event().wait()
        heard.set()
        freed.wait(LONG)  # else this worker might be the one that drops the item

    def sleep(call: Callable[[], object], over: threading.Event) -> None:
        with when_asleep(lambda: asleep.put(None)):
            call()
        over.set()

    box: list[BackgroundGenerator[object]] = [BackgroundGenerator(source(), stop_event=shared)]
    own = box[0].stop_event
    others = [BackgroundGenerator(empty(), stop_event=own)]  # which comes after the first one in every order
    if how == "shared event":
        others += [BackgroundGenerator(empty(), stop_event=shared) for _ in range(2)]
    calls: list[Callable[[], object]] = [own.wait, *(partial(next, other, "over") for other in others)]
    for call in calls:
        back.append(threading.Event())
        in_thread(partial(sleep, call, back[-1]))
    for _ in back:
        asleep.get(timeout=LONG)
    end(box, how, shared)
    assert answers.get(timeout=LONG) is True


@every_ending
def test_callbacks_are_called_before_an_item_is_dropped(how: str) -> None:
    """C9: whoever sleeps in something else hears of it, too: what was hung on the events comes before the items."""
    shared = StopEvent()
    log: list[str] = []
    stuck = Stuck(Goodbye(partial(log.append, "dropped")) for _ in range(2))
    box = [BackgroundGenerator(stuck, 3, stop_event=shared)]
    own = box[0].stop_event
    other = BackgroundGenerator(itertools.count(), 1, stop_event=own)
    called = partial(log.append, "called")
    assert stuck.given.wait(LONG)
    try:
        with own.on_set(called), shared.on_set(called), other.stop_event.on_set(called):
            if how == "close":
                with pytest.warns(RuntimeWarning, match="did not stop"):
                    box[0].close(0)
            else:
                end(box, how, shared)
        assert log == ["called"] * (3 if how == "shared event" else 2) + ["dropped"] * 2
    finally:
        stuck.go.set()


def test_what_strikes_while_an_item_is_dropped_does_not_stop_the_ending_of_others() -> None:
    """C9: all of those with the same event have ended, and dropped their items, though the call of set() was struck."""

    def handler(*_: object) -> None:
        raise Struck

    def items() -> Iterator[object]:
        interrupt = Interrupt()
        left.append(weakref.ref(interrupt))
        yield interrupt
        del interrupt
        yield 0

    left: list[weakref.ref[Interrupt]] = []
    shared = StopEvent()
    sources = [Stuck(items()) for _ in range(3)]
    generators = [BackgroundGenerator(source, 3, stop_event=shared) for source in sources]
    assert all(source.given.wait(LONG) for source in sources)
    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(Struck):
            shared.set()
        assert [reference() for reference in left] == [None] * 3
        assert [next(generator, "over") for generator in generators] == ["over"] * 3
    finally:
        signal.signal(signal.SIGINT, before)
        for source in sources:
            source.go.set()


def test_a_worker_that_finds_its_generator_dropped_wakes_everybody_before_it_drops_items() -> None:
    """C9, C6: also where the finalizer was interrupted before its first line, and the worker has to do its work."""
    asleep: SimpleQueue[None] = SimpleQueue()
    answers: SimpleQueue[bool] = SimpleQueue()
    full, hold, heard = threading.Event(), threading.Event(), threading.Event()

    def items() -> Iterator[object]:
        yield Goodbye(lambda: answers.put(heard.wait(LONG)))
        full.set()
        yield from itertools.count()

    def quiet() -> Iterator[object]:
        hold.wait(LONG)
        yield 0

    one = BackgroundGenerator(items(), 2)
    other = BackgroundGenerator(quiet(), stop_event=one.stop_event)
    assert full.wait(LONG)

    def take() -> None:
        with when_asleep(lambda: asleep.put(None)):
            next(other, None)
        heard.set()

    taker = in_thread(take)
    asleep.get(timeout=LONG)
    finalize = BackgroundGenerator.__del__
    try:
        del BackgroundGenerator.__del__
        del one
    finally:
        BackgroundGenerator.__del__ = finalize  # type: ignore[method-assign]  # back to what it was
    assert answers.get(timeout=LONG)
    taker.get(timeout=LONG)
    hold.set()
