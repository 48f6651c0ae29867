"""Contract A10: sources that iterate each other's generators."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from queue import SimpleQueue

import pytest

from prefetch_generator import BackgroundGenerator, BackgroundIterable, NotReadyError, _channel
from prefetch_generator._stop import WorkerThread, worker_thread

from .helpers import LONG, ended, in_thread, when_asleep

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


# The error


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


# No false alarm


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

    def slow_look(thread: int) -> WorkerThread | None:
        # 1. The first source sees that the buffer is empty, and asks what the second one waits for.
        me = threading.get_ident()
        if thread != me and me == ring[0]._channel.worker_ident and not looking.is_set():
            looking.set()  # 2. The second one gives an item, and sleeps.
            await_sleeper(ring[0])
        return worker_thread(thread)  # 3. It waits for the first.

    monkeypatch.setattr(_channel, "worker_thread", slow_look)
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
        here = worker_thread(thread)
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
