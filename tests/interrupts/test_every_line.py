"""Contract B4, C1, C6 and D2 at every line and every instruction of the library.

A trace function takes the place of whatever may come between two instructions: the garbage collector, a signal
handler, an exception. CPython itself runs those at a few points only, and there nothing is lost (see B4 in
tests/contract/test_b_failure.py). Here they come everywhere, also where an item has left the buffer and is not returned
yet.
"""

from __future__ import annotations

import dis
import gc
import itertools
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from queue import SimpleQueue
from types import CodeType, FrameType
from typing import Any

import pytest

from prefetch_generator import BackgroundGenerator, StopEvent
from prefetch_generator._atomic import raise_held
from prefetch_generator._channel import Channel
from prefetch_generator._generator import Stats
from tests.helpers import EVERY, LONG, PACKAGE

from .machine import NAME, At, Strike, every_event, join_workers, one_after_the_other, strike

either_way = pytest.mark.parametrize("paced", [False, True], ids=["items ready", "items awaited"])


HELD = {raise_held.__code__}  # where a failure, or the end, is in hand


def window() -> set[tuple[CodeType, int]]:
    """Return the instructions of next() at which an item has left the buffer and is not returned yet."""
    code = BackgroundGenerator.next.__code__
    instructions = dis.get_instructions(code)
    for at in instructions:
        if at.opname == "FOR_ITER":
            break
    found = set()
    for at in instructions:
        found.add((code, at.offset))
        if at.opname == "RETURN_VALUE":
            break
    assert found
    return found


class Paced:
    """A source of range(n), each item not before the consumer goes to sleep, until `run_free` is called."""

    def __init__(self, n: int, *, paced: bool) -> None:
        self.n = n
        self.gate: SimpleQueue[None] = SimpleQueue()
        self.given = threading.Event()
        self.closed: list[threading.Thread] = []
        if not paced:
            self.run_free()

    def run_free(self) -> None:
        for _ in range(self.n + 1):
            self.gate.put(None)

    def one_more(self) -> None:
        self.gate.put(None)

    def items(self) -> Generator[int, None, str]:
        try:
            for number in range(self.n):
                self.gate.get(timeout=LONG)
                yield number
            self.gate.get(timeout=LONG)
            return "value"
        except GeneratorExit:
            self.closed.append(threading.current_thread())
            raise


# B4, exceptions


@every_event
@either_way
def test_an_exception_anywhere_in_next_costs_at_most_the_item_in_hand(event: str, paced: bool) -> None:
    """B4: raised between any two instructions of next(): nothing hangs, nothing is repeated, order is kept.

    One item is lost at most, and only between the instruction that takes it and the one that returns it, where
    CPython itself runs no signal handler. The return value is lost only between being taken and being raised.
    """
    expected: list[object] = [0, 1, 2, 3, "value"]
    lossy = window()
    lost, harmless = set(), set()

    def scenario(n: int) -> At:
        source = Paced(4, paced=paced)

        def action() -> None:
            source.run_free()
            raise Strike

        numbers = BackgroundGenerator(source.items(), 2, name="traced")
        got: list[object] = []
        at = At(event, n, action, source.one_more)
        with at:
            while len(got) < 5 and None not in got:
                try:
                    got.append(numbers.next(LONG))
                except Strike:
                    pass
                except StopIteration as end:
                    got.append(end.value)
        missing = [item for item in expected if item not in got]
        assert [item for item in got if item is not None] == [item for item in expected if item not in missing]
        assert len(missing) <= 1
        if at.place is not None:
            if missing == ["value"]:
                assert at.place[0] in HELD
            elif missing:
                assert at.place in lossy
                lost.add(at.place)
            else:
                harmless.add(at.place)
        join_workers()
        return at

    one_after_the_other(scenario, 50)
    if event == "opcode":
        assert lost  # it was struck there, too
        assert not lost & harmless


@every_event
def test_an_exception_anywhere_in_next_keeps_the_failure_unless_it_is_in_hand(event: str) -> None:
    """B4: what the source raises comes once, after the items; lost only between being taken and being raised."""

    def scenario(n: int) -> At:
        def source() -> Iterator[int]:
            yield 0
            raise KeyError

        numbers = BackgroundGenerator(source(), 1, name="traced")
        seen: list[object] = []
        with At(event, n, strike) as at:
            while "StopIteration" not in seen:
                try:
                    seen.append(next(numbers))
                except Strike:
                    pass
                except BaseException as error:
                    seen.append(type(error).__name__)
        assert at.place is None or seen in (
            [0, "KeyError", "StopIteration"],
            ["KeyError", "StopIteration"] if at.place in window() else None,
            [0, "StopIteration"] if at.place[0] in HELD else None,
        )
        return at

    one_after_the_other(scenario, 30)


class Untouched:
    """An iterator that counts what is done to it, and has a close()."""

    def __init__(self) -> None:
        self.steps = 0
        self.closed = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.steps += 1
        return self.steps

    def close(self) -> None:
        self.closed += 1


@every_event
def test_an_exception_anywhere_in_the_constructor_leaves_no_worker(event: str) -> None:
    """B4: a struck constructor leaves no thread; the source is untouched, or was allowed already, and is closed."""
    code = BackgroundGenerator.__init__.__code__
    allowed = max(at.offset for at in dis.get_instructions(code) if at.opname == "FOR_ITER")
    touched = set()

    def scenario(n: int) -> At:
        source = Untouched()
        numbers = None
        with At(event, n, strike) as at, suppress(Strike):
            numbers = BackgroundGenerator(source, name="traced")
        assert (numbers is None) == at.struck()
        if numbers is not None:
            assert numbers.close() is True
        join_workers()
        assert source.closed <= 1
        if at.place is not None and (source.steps or source.closed):
            assert at.place[0] is code
            assert at.place[1] > allowed
            assert source.closed == 1
            touched.add(at.place)
        return at

    one_after_the_other(scenario, 50)
    assert touched or event == "line"


@every_event
def test_an_exception_anywhere_in_close_leaves_a_generator_that_can_be_closed(event: str) -> None:
    """B4, C1: close() can be called again, whatever struck it: the source is closed once, and its thread is gone."""
    for inside in (False, True):  # the source is in a step when close() is called, or waits for room

        def scenario(n: int, inside: bool = inside) -> At:
            source = Paced(9, paced=inside)
            numbers = BackgroundGenerator(source.items(), 1, name="traced")

            def action() -> None:
                source.one_more()
                raise Strike

            struck = 0
            with At(event, n, action, source.one_more) as at:
                try:
                    assert numbers.close(LONG) is True
                except Strike:
                    struck += 1
            assert struck == at.struck()
            assert numbers.close(LONG) is True
            assert not [thread for thread in threading.enumerate() if thread.name == NAME]
            assert len(source.closed) <= 1  # a generator that had not begun has nothing to run
            assert next(numbers, "over") == "over"
            return at

        one_after_the_other(scenario, 25)


@every_event
def test_an_exception_anywhere_in_close_keeps_what_closing_raised_unless_it_is_in_hand(event: str) -> None:
    """B4, C4: what the source raises while it is being closed is raised once, by the close() that is called again."""

    class Failing(Untouched):
        def close(self) -> None:
            raise KeyError

    def scenario(n: int) -> At:
        numbers = BackgroundGenerator(Failing(), 1, name="traced")
        assert next(numbers) == 1
        seen: list[object] = []
        with At(event, n, strike) as at:
            while True not in seen:
                try:
                    seen.append(numbers.close())
                except Strike:
                    pass
                except KeyError as error:
                    seen.append(type(error).__name__)
        if at.place is None or at.place[0] not in HELD:
            assert seen == ["KeyError", True]
        assert seen in (["KeyError", True], [True])
        return at

    one_after_the_other(scenario, 25)


@every_event
def test_an_exception_anywhere_in_the_wait_for_an_event_harms_nothing(event: str) -> None:
    """B4, D1: StopEvent.wait() and set() can be called again."""

    def scenario(n: int) -> At:
        stop = StopEvent()
        numbers = BackgroundGenerator(Untouched(), stop_event=stop, name="traced")
        with At(event, n, strike) as at:
            for call in (lambda: stop.wait(0), stop.is_set, stop.set, lambda: stop.wait(LONG)):
                try:
                    call()
                except Strike:
                    call()
        assert next(numbers, "over") == "over"
        assert numbers.close() is True
        return at

    one_after_the_other(scenario, 15)


# C1 and D2, a signal handler that ends the generator in the middle of its own code


@pytest.mark.parametrize("how", ["close", "own event", "shared event"])
@either_way
def test_a_handler_that_ends_the_generator_at_any_line_of_next(how: str, paced: bool) -> None:
    """C1, D2: close() may be called at any moment, an event set at any moment, also in the middle of next().

    What came before is in order, at most the item in hand comes after, and then it is over.
    """

    def scenario(n: int) -> At:
        source = Paced(3, paced=paced)
        shared = StopEvent()
        numbers = BackgroundGenerator(source.items(), 2, stop_event=shared, name="traced")
        got: list[int] = []
        before: list[int] = []

        def action() -> None:
            before.append(len(got))
            source.run_free()
            if how == "close":
                assert numbers.close(LONG) is True
            else:
                (shared if how == "shared event" else numbers.stop_event).set()

        with At("line", n, action, source.one_more) as at:
            while True:
                try:
                    got.append(numbers.next(LONG))
                except StopIteration:
                    break
        assert got == list(range(len(got)))
        if at.struck():
            assert len(got) <= before[0] + 1
        assert next(numbers, "over") == "over"
        assert numbers.close() is True
        assert not [thread for thread in threading.enumerate() if thread.name == NAME]
        return at

    one_after_the_other(scenario, 20)


@pytest.mark.parametrize("event", ["line", "opcode"])
def test_a_handler_that_sets_the_event_at_any_instruction_of_the_constructor(event: str) -> None:
    """D2: the generator is stopped from the start, and its source closed, whenever its event is set meanwhile."""

    def scenario(n: int) -> At:
        source, shared = Untouched(), StopEvent()
        with At(event, n, shared.set) as at:
            numbers = BackgroundGenerator(source, stop_event=shared, name="traced")
        if at.struck():
            assert next(numbers, "over") == "over"
            assert numbers.stop_event.is_set()
        assert numbers.close() is True
        assert source.closed == 1
        return at

    one_after_the_other(scenario, 40)


@every_event
def test_a_handler_that_closes_at_any_instruction_of_close(event: str) -> None:
    """C1: any number of times, one inside the other too: both return True, the source is closed once."""

    def scenario(n: int) -> At:
        source = Untouched()
        numbers = BackgroundGenerator(source, 1, name="traced")
        answers = []
        with At(event, n, lambda: answers.append(numbers.close())) as at:
            answers.append(numbers.close())
        assert answers == [True] * len(answers)
        assert source.closed == 1
        return at

    one_after_the_other(scenario, 25)


@every_event
@either_way
def test_a_handler_that_takes_an_item_at_any_instruction_of_next(event: str, paced: bool) -> None:
    """A1, A8: a next() inside a next() is one consumer more: each item goes to exactly one, in order."""

    def scenario(n: int) -> At:
        source = Paced(3, paced=paced)
        numbers = BackgroundGenerator(source.items(), 1, name="traced")
        inside: list[int] = []
        got: list[int] = []

        def action() -> None:
            source.run_free()
            with suppress(StopIteration):
                inside.append(numbers.next(LONG))

        with At(event, n, action, source.one_more) as at:
            got.extend(numbers)
        assert got == sorted(set(got))
        assert sorted(got + inside) == [0, 1, 2]
        return at

    one_after_the_other(scenario, 40)


@every_event
@pytest.mark.parametrize("how", ["event", "drop"])
def test_a_stop_at_any_instruction_of_the_worker_is_heard(event: str, how: str) -> None:
    """C1, C6, D2: told once, and also between its look at the buffer and its sleep, it ends and closes its source."""

    def scenario(n: int) -> At:
        box: list[BackgroundGenerator[int]] = []
        made = threading.Event()
        worker_is: SimpleQueue[str] = SimpleQueue()

        class Source(Untouched):
            def __next__(self) -> int:
                assert made.wait(LONG)  # by then the worker has got the word that it may begin, or will not sleep
                return super().__next__()

        source = Source()

        def stop() -> None:
            if how == "drop":
                box.clear()
            else:
                box[0].stop_event.set()

        def profile(frame: FrameType, event: str, called: Any) -> None:
            here = event == "c_call" and called.__name__ == "get" and frame.f_code is Channel._park.__code__
            if here and not called.__self__.qsize():  # else it does not sleep, for it has been woken already
                worker_is.put("asleep")

        def action() -> None:  # on the worker, in the place of another thread that runs just then
            assert made.wait(LONG)
            stop()
            worker_is.put("told")

        at = At(event, n, action)
        before = threading.gettrace(), threading.getprofile()
        threading.settrace(at.trace)
        threading.setprofile(profile)
        try:
            box.append(BackgroundGenerator(source, 1, name="traced"))
            made.set()
            for last in (False, False, True):
                if worker_is.get(timeout=LONG) == "told":
                    break
                stop() if last else next(box[0])
            join_workers()
        finally:  # not before the worker runs, which takes them up then
            threading.settrace(before[0])
            threading.setprofile(before[1])
        assert source.closed == 1
        return at

    one_after_the_other(scenario, 20)


@every_event
def test_looking_at_it_at_any_instruction(event: str) -> None:
    """E5: repr, stats and the hint can be had at any moment, in a debugger that stops anywhere, and change nothing."""
    looked = itertools.count()
    numbers: BackgroundGenerator[int] | None = None

    def look(frame: FrameType, kind: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = event == "opcode"
        if kind == event and numbers is not None:
            assert repr(numbers).startswith("<BackgroundGenerator")
            assert isinstance(numbers.stats, Stats)
            assert 0 <= numbers.__length_hint__() <= 5
            next(looked)
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        numbers = BackgroundGenerator(range(5), 2)
        assert list(numbers) == [0, 1, 2, 3, 4]
        assert numbers.close() is True
    finally:
        sys.settrace(before)
    assert next(looked) > 50


# C6, the collector


class Abandoner:
    """At every instruction of the library, on each thread that it traces, leave a generator in a cycle and collect."""

    def __init__(self) -> None:
        self.closed: SimpleQueue[threading.Thread] = SimpleQueue()
        self.abandoned: SimpleQueue[CodeType] = SimpleQueue()
        self.turn = itertools.count()

    def source(self) -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            self.closed.put(threading.current_thread())

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE) or threading.current_thread().name == NAME:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            hook = threading.gettrace()
            threading.settrace(None)  # with a hundred threads that are traced, 3.12.1 crashes
            holder: list[object] = [BackgroundGenerator(self.source(), 1, name="traced")]
            next(holder[0])  # type: ignore[call-overload]
            threading.settrace(hook)
            self.abandoned.put(frame.f_code)
            if next(self.turn) % EVERY == 0:
                holder.append(holder)
                del holder
                gc.collect(0)
        return self.trace

    def check(self, least: int) -> None:
        count = self.abandoned.qsize()
        assert count > least
        for _ in range(count):
            thread = self.closed.get(timeout=LONG)
            thread.join(LONG)
            assert not thread.is_alive()


def test_a_generator_is_abandoned_at_every_instruction_of_the_consumer(no_collector: None) -> None:
    """C6: wherever the collector happens to run in this library's own code, it stops what it finds, harms nobody."""
    abandoner = Abandoner()
    before = sys.gettrace()
    sys.settrace(abandoner.trace)
    try:
        numbers = BackgroundGenerator(range(3), 1)
        assert list(numbers) == [0, 1, 2]
        with BackgroundGenerator(itertools.count(), 2) as numbers:
            assert next(numbers) == 0
    finally:
        sys.settrace(before)
    abandoner.check(300)


def test_a_generator_is_abandoned_at_every_instruction_of_the_worker(no_collector: None) -> None:
    """C6: also on a worker: where it waits for room, rings, ends, or closes its source."""
    abandoner = Abandoner()
    before = threading.gettrace()
    threading.settrace(abandoner.trace)
    try:
        assert list(BackgroundGenerator(range(3), 1)) == [0, 1, 2]
        with BackgroundGenerator(itertools.count(), 1) as numbers:
            assert next(numbers) == 0
    finally:
        threading.settrace(before)
    abandoner.check(80)


# B4, real signals


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_a_long_storm_of_interrupts_loses_nothing() -> None:
    """B4: 60,000 items under 500 real signals or more, the handler raises, the consumer retries: all come, in order."""
    strikes = 0
    storm: SimpleQueue[None] = SimpleQueue()

    def handler(_: int, frame: FrameType | None) -> None:
        nonlocal strikes
        strikes += 1
        storm.put(None)
        # Not in the loop below, nor in a tool that traces this test, which it could leave locked.
        if frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
            raise Strike

    def source() -> Iterator[int]:
        for start in range(0, 60_000, 100):
            storm.get(timeout=LONG)  # one strike for each hundred, so that there are enough on the fastest machine
            yield from range(start, start + 100)

    got: list[int] = []
    numbers = BackgroundGenerator(source(), 8)
    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        while True:
            try:
                got.extend(numbers)  # in C: what next() has returned is in the list
                break
            except Strike:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert got == list(range(60_000))
    assert strikes >= 500
