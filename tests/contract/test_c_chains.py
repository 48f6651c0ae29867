"""Contract, section C, sentences 8 and 9: chains of generators, and the order of an ending."""

from __future__ import annotations

import _thread
import itertools
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from queue import SimpleQueue

import pytest

from prefetch_generator import (
    BackgroundGenerator,
    StopEvent,
    current_stop_event,
)
from prefetch_generator._stop import source_context
from tests.helpers import (
    LONG,
    ended,
    in_thread,
    when_asleep,
)
from tests.interrupts.machine import Every

from .support import Reader, Stuck, end, endless, run_program


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


class StuckSource:
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


every_ending = pytest.mark.parametrize("how", ["close", "drop", "own event", "shared event"])


# C8


def test_a_source_that_waits_for_another_generator_sees_generator_exit(stuck: Stuck) -> None:
    """C8: it sees GeneratorExit at that wait, its finally blocks run, and the inner generator is closed."""
    asleep = threading.Event()
    log: list[str] = []

    def outer() -> Iterator[int]:
        inner = BackgroundGenerator(stuck.items())
        try:
            yield next(inner)
            with when_asleep(asleep.set):
                yield next(inner, -1)
            log.append("mistook the stop for the end")
        except GeneratorExit:
            log.append("GeneratorExit")
            raise
        finally:
            log.append("finally")

    numbers = BackgroundGenerator(outer())
    assert next(numbers) == 0
    assert asleep.wait(LONG)
    assert numbers.close() is True  # though the inner source is still in its step
    assert log == ["GeneratorExit", "finally"]
    stuck.go.set()
    assert ended(stuck.closed)


def test_a_stopped_source_hears_of_its_own_stop_before_the_end_inside(stuck: Stuck) -> None:
    """C8: the generator inside may have ended because of that very stop, and its end is then not that of the data."""
    inner = BackgroundGenerator(range(0))
    assert list(inner) == []
    seen: SimpleQueue[str] = SimpleQueue()

    def outer() -> Iterator[int]:
        stuck.stick()
        try:
            yield next(inner)
        except BaseException as error:
            seen.put(type(error).__name__)
            raise

    numbers = BackgroundGenerator(outer())
    assert stuck.inside.wait(LONG)
    numbers.stop_event.set()
    stuck.go.set()
    assert seen.get(timeout=LONG) == "GeneratorExit"
    assert numbers.close(LONG) is True


def test_a_source_that_waits_with_a_timeout_sees_generator_exit(stuck: Stuck) -> None:
    """C8: also in `next(timeout)`."""
    asleep = threading.Event()
    log: list[str] = []

    def outer() -> Iterator[int]:
        inner = BackgroundGenerator(stuck.items())
        yield next(inner)
        try:
            with when_asleep(asleep.set):
                inner.next(60)
        except GeneratorExit:
            log.append("GeneratorExit")
            raise

    numbers = BackgroundGenerator(outer())
    assert next(numbers) == 0
    assert stuck.inside.wait(LONG)
    assert asleep.wait(LONG)
    assert numbers.close() is True
    assert log == ["GeneratorExit"]


def test_a_chain_stops_as_one() -> None:
    """C8: inner generators are closed, at any depth: their sources hear of the stop and run their finally."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    log: list[str] = []

    def innermost() -> Iterator[int]:
        try:
            yield 0
            if not current_stop_event().wait(LONG):
                log.append("not stopped")
        finally:
            closed.put(threading.current_thread())

    def around(numbers: BackgroundGenerator[int]) -> Iterator[int]:
        try:
            yield from numbers
            log.append("mistook the stop for the end")
        finally:
            closed.put(threading.current_thread())

    chain = innermost()
    for _ in range(3):
        chain = around(BackgroundGenerator(chain))
    numbers = BackgroundGenerator(chain)
    assert next(numbers) == 0
    del chain
    assert numbers.close() is True
    for _ in range(4):
        assert ended(closed)
    assert log == []


def test_a_chain_stops_as_one_through_iterators_of_another_kind(stuck: Stuck) -> None:
    """C8: nobody mistakes the stop for the end of the data, what lies between two generators neither."""
    log: list[str] = []

    def tail() -> Iterator[int]:
        log.append("mistook the stop for the end")
        yield 2

    inner = BackgroundGenerator(stuck.items())
    numbers = BackgroundGenerator(itertools.chain(map(abs, inner), tail()))
    del inner
    assert next(numbers) == 0
    assert stuck.inside.wait(LONG)
    assert numbers.close() is True
    assert log == []
    stuck.go.set()
    assert ended(stuck.closed)


@pytest.mark.parametrize("inner_first", [False, True])
@pytest.mark.parametrize("innermost_does", ["go on", "end", "poll and end"])
def test_a_chain_with_one_stop_event_stops_as_one(inner_first: bool, innermost_does: str) -> None:
    """C8: a stop that reaches all of a chain is no end of the data, however slowly, and in whichever order.

    D3: Nor is it if the inner source hears of the stop first, and ends by itself.
    """
    for _ in range(10):
        log: list[str] = []
        shared = StopEvent()

        def outer(
            inner: BackgroundGenerator[bool] | None, shared: StopEvent = shared, log: list[str] = log
        ) -> Iterator[bool]:
            yield False
            yield from inner or BackgroundGenerator(innermost(), stop_event=shared)
            log.append("mistook the stop for the end")

        def innermost() -> Iterator[bool]:
            yield False
            if innermost_does == "poll and end":
                while not current_stop_event().is_set():
                    time.sleep(0)  # sees the flag before anybody has acted on it
                return
            yield current_stop_event().wait(LONG)
            while innermost_does == "go on":
                yield True

        inner = BackgroundGenerator(innermost(), stop_event=shared) if inner_first else None
        stops = BackgroundGenerator(outer(inner), stop_event=shared)
        del inner
        assert [next(stops), next(stops)] == [False, False]
        with Every("line", lambda _: time.sleep(0.0003)):  # as long as it takes for others to run
            shared.set()
        assert next(stops, "over") == "over"
        assert stops.close() is True
        assert log == []


def test_a_source_that_is_no_generator_is_closed_after_that(stuck: Stuck) -> None:
    """C8: it has not ended by itself when GeneratorExit comes out of its step: its close() is called."""

    class Outer(Reader):
        def __next__(self) -> int:
            return next(inner)

    inner = BackgroundGenerator(stuck.items())
    source = Outer(1)
    numbers = BackgroundGenerator(source)
    assert next(numbers) == 0
    assert stuck.inside.wait(LONG)
    assert numbers.close() is True
    assert source.closed == 1


def test_a_source_that_is_not_told_to_stop_sees_a_plain_end(stuck: Stuck) -> None:
    """C8: only its own worker's stop is GeneratorExit; if somebody closes the inner generator, that has ended."""
    inner = BackgroundGenerator(stuck.items())

    def outer() -> Iterator[int]:
        yield from inner
        yield -1

    numbers = BackgroundGenerator(outer())
    assert next(numbers) == 0
    assert stuck.inside.wait(LONG)
    inner.stop_event.set()
    assert list(numbers) == [-1]


def test_a_wait_of_a_source_for_another_generator_leaves_nothing_behind() -> None:
    """C8, A6: nor does a worker that waits for another generator, at its own event or at the other's hand-off."""
    seen: list[StopEvent] = []
    go: SimpleQueue[int] = SimpleQueue()

    def inner() -> Iterator[int]:
        yield go.get(timeout=LONG)

    numbers = BackgroundGenerator(inner())

    def outer() -> Iterator[int]:
        seen.append(current_stop_event())
        with pytest.raises(TimeoutError):
            numbers.next(0)
        assert not numbers._channel.bells
        go.put(1)
        yield from numbers
        numbers.close(timeout=None)
        here = source_context(threading.get_ident())
        assert here is not None
        assert here.waits_for is None

    assert list(BackgroundGenerator(outer())) == [1]
    assert not seen[0]._listeners


def test_the_clean_up_of_a_source_that_was_stopped_may_wait_for_other_generators() -> None:
    """C8: GeneratorExit is raised once, as `generator.close()` does: a `finally` may wait for a generator."""
    go: SimpleQueue[None] = SimpleQueue()
    seen: list[str] = []

    def other() -> Iterator[int]:
        go.get(timeout=LONG)
        yield 1

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            try:
                numbers.next(0)
            except TimeoutError:
                seen.append("waited")
            except GeneratorExit:
                seen.append("stopped")

    numbers = BackgroundGenerator(other())
    with BackgroundGenerator(source()) as stopped:
        assert next(stopped) == 0
    assert seen == ["waited"]
    go.put(None)
    assert list(numbers) == [1]


def test_a_stop_that_comes_between_the_end_and_its_cause_is_no_end_of_the_data() -> None:
    """C8: an inner source has failed; while its consumer, a worker, comes to that, the stop drops the failure."""
    shared = StopEvent()
    log: list[str] = []

    class Setting(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            shared.set()

    def inner() -> Iterator[int]:
        yield 0
        raise KeyError

    def outer() -> Iterator[int]:
        numbers = BackgroundGenerator(inner(), stop_event=shared)
        numbers._worker.thread = Setting()  # joined between "the source has ended" and "how?"
        try:
            yield from numbers
        except BaseException as error:
            log.append(type(error).__name__)
            raise
        log.append("end of data")

    numbers = BackgroundGenerator(outer(), stop_event=shared)
    assert list(numbers) in ([], [0])
    assert numbers.close()
    assert log == ["GeneratorExit"]


def test_a_clean_up_may_use_other_generators() -> None:
    """C8: GeneratorExit is raised once, as generator.close() does; a `finally` may then wait for other generators."""
    begun = threading.Event()
    cleaned: list[int] = []

    def outer() -> Iterator[int]:
        try:
            yield from BackgroundGenerator(endless(begun))
        finally:
            cleaned.extend(BackgroundGenerator(range(3), 1))

    numbers = BackgroundGenerator(outer())
    assert begun.wait(LONG)
    assert numbers.close()
    assert cleaned == [0, 1, 2]


def test_a_source_that_swallows_the_stop_at_a_wait_has_ended() -> None:
    """C8: as in generator.close(), a source that simply returns when it is told has been closed."""
    begun = threading.Event()

    def outer() -> Iterator[int]:
        try:
            yield from BackgroundGenerator(endless(begun))
        except GeneratorExit:
            return

    numbers = BackgroundGenerator(outer())
    assert begun.wait(LONG)
    assert numbers.close()
    assert list(numbers) == []


def test_at_exit_a_source_that_polls_is_no_end_of_the_data() -> None:
    """C8 and C7: all workers hear of the exit in one step, so an inner one cannot end before the outer one hears."""
    script = """
        def polling():
            yield 0
            stop = current_stop_event()
            while not stop.is_set():
                time.sleep(0)

        def outer():
            yield from BackgroundGenerator(polling(), 1)
            say("mistook the stop for the end of the data")

        kept = [BackgroundGenerator(outer()) for _ in range(20)]
        for numbers in kept:
            next(numbers)
    """
    assert run_program(script) == ([], "")


# C9


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
    stuck = StuckSource(Goodbye(partial(log.append, "dropped")) for _ in range(2))
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
    sources = [StuckSource(items()) for _ in range(3)]
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
