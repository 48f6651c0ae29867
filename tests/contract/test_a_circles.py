"""Contract, section A, sentence 10: a source that would wait for itself."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from queue import SimpleQueue

import pytest

from prefetch_generator import (
    BackgroundGenerator,
    BackgroundIterable,
    NotReadyError,
    _channel,
)
from prefetch_generator._channel import Channel
from prefetch_generator._stop import SourceContext, source_context
from tests.helpers import LONG, ended, in_thread, when_asleep

from .support import (
    Announcing,
    Item,
)

Numbers = Iterator[int]


CIRCLE = "waits, through others, for its own"


class Ring:
    """Generators whose sources may iterate each other; none begins before all are made."""

    def __init__(self, *sources: Callable[[], Numbers], depth: int = 1) -> None:
        self.made = threading.Event()
        self.closed: SimpleQueue[threading.Thread] = SimpleQueue()
        self.generators = [
            BackgroundGenerator(self._run(source), depth, name=f"number {n}") for n, source in enumerate(sources)
        ]

    def _run(self, source: Callable[[], Numbers]) -> Numbers:
        try:
            assert self.made.wait(LONG)
            yield from source()
        finally:
            self.closed.put(threading.current_thread())

    def __getitem__(self, n: int) -> BackgroundGenerator[int]:
        return self.generators[n % len(self.generators)]

    def outcomes(self) -> list[str]:
        """Let them begin, consume them all at once; return what each ended with, an error's text or nothing."""
        self.made.set()
        answers = [in_thread(partial(outcome, numbers)) for numbers in self.generators]
        return [answer.get(timeout=LONG) for answer in answers]

    def all_ended(self) -> bool:
        return all(ended(self.closed) for _ in self.generators)


def outcome(numbers: Numbers) -> str:
    try:
        for _ in numbers:
            pass
    except RuntimeError as error:
        return str(error)
    return ""


def await_sleeper(numbers: BackgroundGenerator[int], number: int = 1) -> None:
    """Return when so many sleep in `next(numbers)`, or are about to."""
    deadline = time.monotonic() + LONG
    while len(numbers._channel.bells) < number:  # no event tells: nothing happens any more
        assert time.monotonic() < deadline
        time.sleep(0.001)


def by_a_loop(numbers: Numbers) -> Numbers:
    for number in numbers:  # noqa: UP028 - that is the other one
        yield number


def by_yield_from(numbers: Numbers) -> Numbers:
    yield from numbers


# A10


def test_a_source_that_iterates_its_own_generator_gets_a_runtime_error() -> None:
    """A10: next() inside the generator's own source raises RuntimeError, whether or not an item is buffered."""
    box: list[BackgroundGenerator[str]] = []
    filled = threading.Event()

    def source() -> Iterator[str]:
        assert filled.wait(LONG)
        yield "first"
        try:
            next(box[0])
        except RuntimeError as error:
            yield str(error)

    strings = BackgroundGenerator(source())
    box.append(strings)
    filled.set()
    first, second = strings
    assert first == "first"
    assert "its own BackgroundGenerator" in second


def test_the_worker_is_gone_when_the_end_is_seen() -> None:
    """A10: when next() has raised StopIteration no thread is left and the source is released."""
    for _ in range(50):
        before = threading.active_count()
        source = (Item() for _ in range(3))
        reference = weakref.ref(source)
        items = BackgroundGenerator(source)
        del source
        assert len(list(items)) == 3
        assert threading.active_count() == before
        assert reference() is None


def test_the_source_is_released_when_it_has_ended() -> None:
    """A10: the generator, while it is kept, does not keep the source that has ended or failed."""

    def source() -> Iterator[int]:
        yield 1
        raise KeyError

    iterator = source()
    reference = weakref.ref(iterator)
    numbers = BackgroundGenerator(iterator)
    del iterator
    assert next(numbers) == 1
    with pytest.raises(KeyError):
        next(numbers)
    gc.disable()
    try:
        assert reference() is None
    finally:
        gc.enable()


def test_a_source_knows_its_thread_only_as_long_as_it_runs() -> None:
    """A10: a consumer on a later thread, to which the system gave the same number, is no source."""
    for _ in range(20):
        numbers = BackgroundGenerator(range(3), 0)
        assert next(numbers) == 0
        assert numbers._worker.ended.wait(LONG)
        assert in_thread(partial(list, numbers)).get(timeout=LONG) == [1, 2]


@pytest.mark.parametrize("depth", [1, 2, 0])
@pytest.mark.parametrize("given", [0, 1])
@pytest.mark.parametrize("how", [by_a_loop, by_yield_from])
@pytest.mark.parametrize("size", [2, 3])
def test_a_circle_of_sources_is_an_error(size: int, how: Callable[[Numbers], Numbers], given: int, depth: int) -> None:
    """A10: sources that iterate each other's generators get a RuntimeError, not a deadlock, and all of them end."""

    def source(n: int) -> Numbers:
        yield from range(given)
        yield from how(ring[n + 1])

    ring = Ring(*(partial(source, n) for n in range(size)), depth=depth)
    told = ring.outcomes()
    assert [text for text in told if CIRCLE in text]
    assert {text for text in told if CIRCLE not in text} <= {""}
    assert ring.all_ended()


@pytest.mark.parametrize("size", [2, 4])
def test_whoever_comes_last_into_a_circle_is_told(size: int) -> None:
    """A10: all the others sleep already; the error says what happened and is one that a source may catch."""
    closing = threading.Event()

    def sleeper(n: int) -> Numbers:
        yield from ring[n + 1]

    def last() -> Numbers:
        assert closing.wait(LONG)
        with pytest.raises(RuntimeError, match=CIRCLE):
            next(ring[0])
        yield 42

    ring = Ring(*(partial(sleeper, n) for n in range(size - 1)), last)
    ring.made.set()
    for n in range(1, size):
        await_sleeper(ring[n])
    closing.set()
    assert next(ring[0]) == 42  # through all of them
    assert outcome(ring[0]) == ""
    assert ring.all_ended()


def test_a_chain_is_no_circle() -> None:
    """A10: sources that wait one for another, the last of them for something else, are not told anything."""
    gate: SimpleQueue[int] = SimpleQueue()

    def bottom() -> Numbers:
        for _ in range(3):
            yield gate.get(timeout=LONG)

    ring = Ring(lambda: ring[1], lambda: ring[2], lambda: (number for number in ring[3]), bottom)
    ring.made.set()
    for number in range(3):
        for inner in (1, 2, 3):
            await_sleeper(ring[inner])
        gate.put(number)
        assert next(ring[0]) == number
    assert outcome(ring[0]) == ""
    assert ring.all_ended()


def test_a_diamond_is_no_circle() -> None:
    """A10: two sources may wait for one generator, and a third for both."""
    gate: SimpleQueue[int] = SimpleQueue()

    def bottom() -> Numbers:
        for _ in range(4):
            yield gate.get(timeout=LONG)

    def top() -> Numbers:
        for pair in zip(ring[1], ring[2], strict=False):
            yield from pair

    ring = Ring(top, lambda: ring[3], lambda: ring[3], bottom)
    ring.made.set()
    await_sleeper(ring[1])
    await_sleeper(ring[3], 2)
    for number in range(4):
        gate.put(number)
    # Which of the two gets how many is anybody's guess; the top ends with the one that gets fewer.
    assert outcome(ring[0]) == ""
    assert [outcome(ring[1]), outcome(ring[2])] == ["", ""]
    assert ring.all_ended()


def test_a_source_that_sleeps_with_items_ready_makes_no_circle() -> None:
    """A10: what it has given can be taken, though it waits for the one that takes it."""

    def first() -> Numbers:
        await_sleeper(ring[0])
        for _ in range(3):
            yield next(ring[1]) * 10

    def second() -> Numbers:
        yield from (1, 2, 3)
        yield from ring[0]

    ring = Ring(first, second, depth=5)
    ring.made.set()
    assert ring[0]._worker.ended.wait(LONG)
    assert list(ring[1]) == [10, 20, 30]
    assert ring.all_ended()


def test_what_changes_while_a_source_looks_for_a_circle_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A10: an item that is given after the look at the buffer, by a source that sleeps then, is no circle."""
    looking = threading.Event()

    def first() -> Numbers:
        yield next(ring[1]) * 10

    def second() -> Numbers:
        assert looking.wait(LONG)
        yield 1
        yield next(ring[0])

    def slow_look(thread: int) -> SourceContext | None:
        # 1. The first source sees that the buffer is empty, and asks what the second one waits for.
        me = threading.get_ident()
        if thread != me and me == ring[0]._channel.worker_ident and not looking.is_set():
            looking.set()  # 2. The second one gives an item, and sleeps.
            await_sleeper(ring[0])
        return source_context(thread)  # 3. It waits for the first.

    monkeypatch.setattr(_channel, "source_context", slow_look)
    ring = Ring(first, second, depth=2)
    ring.made.set()
    assert ring[0]._worker.ended.wait(LONG)
    assert list(ring[1]) == [10]
    assert looking.is_set()
    assert ring.all_ended()


@pytest.mark.parametrize("first", ["patient", "impatient"])
def test_a_wait_with_a_timeout_in_a_circle_is_no_error(first: str) -> None:
    """A10, E3: it times out with NotReadyError, and its source may go on and give what the other waits for."""

    def patient() -> Numbers:
        if first == "impatient":
            await_sleeper(ring[0])  # there, with a timeout
        yield from ring[1]

    def impatient() -> Numbers:
        if first == "patient":
            await_sleeper(ring[1])
        with pytest.raises(NotReadyError):
            ring[0].next(0.2)
        yield from (1, 2)

    ring = Ring(patient, impatient, depth=5)
    ring.made.set()
    assert ring[0]._worker.ended.wait(LONG)
    assert list(ring[0]) == [1, 2]
    assert ring.all_ended()


def test_two_sources_with_timeouts_are_no_circle() -> None:
    """A10, E3: where nobody waits for ever, all go on."""

    def source(n: int) -> Numbers:
        with pytest.raises(NotReadyError):
            ring[n + 1].next(0.01)
        both.wait(LONG)
        yield n

    both = threading.Barrier(2)
    ring = Ring(lambda: source(0), lambda: source(1))
    ring.made.set()
    assert [list(ring[0]), list(ring[1])] == [[0], [1]]
    assert ring.all_ended()


def test_ping_pong_is_no_circle() -> None:
    """A10: two sources that take turns, each next item made of the other's last, are never told that they wait."""
    turns = 200

    def ping() -> Numbers:
        for _ in range(turns):
            yield next(ring[1])

    def pong() -> Numbers:
        yield 0
        for _ in range(turns - 1):
            yield next(ring[0]) + 1

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for depth in (1, 2, 0) * 10:
            ring = Ring(ping, pong, depth=depth)
            ring.made.set()
            assert ring[1]._worker.ended.wait(LONG)
            assert list(ring[0]) == [turns - 1]
            assert list(ring[1]) == []
            assert ring.all_ended()
    finally:
        sys.setswitchinterval(before)


def test_a_worker_that_was_told_to_stop_is_no_part_of_a_circle() -> None:
    """A10, C8: it will see GeneratorExit at its wait, and wait no longer: no false alarm."""
    passes = itertools.count()
    inside, go, waiting = threading.Event(), threading.Event(), threading.Event()
    answers: SimpleQueue[object] = SimpleQueue()

    class Twice(Iterable[int]):
        def __iter__(self) -> Iterator[int]:
            return self.first() if next(passes) == 0 else iter([1, 2, 3])

        def first(self) -> Iterator[int]:
            inside.set()
            with when_asleep(waiting.set):
                yield next(other)

    numbers = BackgroundIterable(Twice())

    def source() -> Iterator[int]:
        go.wait(LONG)
        iteration = iter(numbers)
        assert inside.wait(LONG)
        assert waiting.wait(LONG)
        del iteration  # tells its worker, which waits for this one, to stop
        try:
            answers.put(list(numbers))
        except RuntimeError as error:
            answers.put(error)
        yield 0

    other = BackgroundGenerator(source())
    go.set()
    assert answers.get(timeout=LONG) == [1, 2, 3]
    assert other.close(LONG) is True


def test_a_source_that_is_stopped_while_it_looks_for_a_circle_sees_generator_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A10, C8: the stop that comes as the circle is found is what it hears of."""
    awaited_by = _channel._awaited_by
    log: SimpleQueue[str] = SimpleQueue()

    def stopped_at_last(thread: int) -> object:
        here = source_context(thread)
        if here is not None and thread == threading.get_ident():
            here.stop.set()
        return awaited_by(thread)

    monkeypatch.setattr(_channel, "_awaited_by", stopped_at_last)

    def source(n: int) -> Numbers:
        try:
            yield from ring[n + 1]
        except BaseException as error:
            log.put(type(error).__name__)
            raise

    ring = Ring(lambda: source(0), lambda: source(1))
    ring.made.set()
    assert log.get(timeout=LONG) == "GeneratorExit"
    for number in (0, 1):
        assert ring[number].close(LONG) is True
    assert ring.all_ended()


def test_a_source_that_meddles_while_it_is_closed() -> None:
    """A10, C1: in its finally it may close, iterate, set, look: it cannot wait for itself, and nothing hangs."""
    answers: list[object] = []

    def source() -> Iterator[int]:
        try:
            yield 0
        finally:
            answers.append(numbers.close(None))
            try:
                answers.append(next(numbers, "over"))
            except RuntimeError:
                answers.append("RuntimeError")
            numbers.stop_event.set()
            answers.append(repr(numbers))
            numbers.__exit__(None, None, None)

    numbers = BackgroundGenerator(source(), 1)
    assert next(numbers) == 0
    assert numbers.close() is True
    assert answers == [False, "RuntimeError", "<BackgroundGenerator 'source' closed, 0/1 buffered>"]


@pytest.mark.parametrize("wait", [next, lambda numbers: numbers.next(timeout=0), list])
def test_a_source_that_iterates_its_own_generator_goes_on_after_the_error(
    wait: Callable[[BackgroundGenerator[int]], object],
) -> None:
    """A10: RuntimeError, which the source may catch: it is as usable as before."""
    made = threading.Event()

    def source() -> Iterator[int]:
        made.wait(LONG)
        for number in range(3):
            with pytest.raises(RuntimeError, match="cannot iterate its own"):
                wait(numbers)
            yield number

    numbers = BackgroundGenerator(source())
    made.set()
    assert list(numbers) == [0, 1, 2]


def test_a_source_that_iterates_its_own_generator_after_its_worker_has_slept() -> None:
    """A10: it gets a RuntimeError, and no item that is buffered, though its worker has waited for room in between."""
    go: SimpleQueue[None] = SimpleQueue()
    answer: SimpleQueue[object] = SimpleQueue()
    own: list[BackgroundGenerator[int]] = []

    def source() -> Iterator[int]:
        go.get(timeout=LONG)
        yield 0
        yield 1
        try:
            answer.put(next(own[0]))
        except RuntimeError as error:
            answer.put(str(error))

    numbers = BackgroundGenerator(source(), max_prefetch=2)
    own.append(numbers)
    wake = Announcing()
    numbers._channel.wakeups = wake
    go.put(None)
    wake.asleep.get(timeout=LONG)
    assert next(numbers) == 0
    assert answer.get(timeout=LONG) == "a source cannot iterate its own BackgroundGenerator: it would wait for itself"
    assert list(numbers) == [1]
    own.clear()


def test_the_source_is_released_before_anybody_can_see_the_end() -> None:
    """A10: when the end is seen, the source has been released."""
    go: SimpleQueue[None] = SimpleQueue()
    over: list[bool] = []

    def empty() -> Iterator[int]:
        go.get(timeout=LONG)
        yield from ()

    source = empty()
    released = weakref.ref(source, lambda _: over.append(channel.over))
    numbers = BackgroundGenerator(source)
    channel = numbers._channel
    del source
    go.put(None)
    assert list(numbers) == []
    assert released() is None
    assert over == [False]


def test_a_worker_that_is_about_to_sleep_cannot_wait_for_itself() -> None:
    """A10: a RuntimeError and no deadlock, also for a finalizer that runs on the worker between two steps."""
    channel = Channel[int](1, object)
    channel.worker_ident = threading.get_ident()
    with pytest.raises(RuntimeError, match="it would wait for itself"):
        channel.wait(channel.has_news, 0.0)


def test_a_thread_does_not_wait_for_its_own_end() -> None:
    """A10: a finalizer that runs on the worker after its last line may see the end; it cannot wait for its thread."""
    numbers = BackgroundGenerator(range(0))
    assert numbers.close()
    numbers._worker.thread = threading.current_thread()
    numbers._worker.join()
