"""Contract A1, C1, C6, D2 and E5: whatever a signal handler does, at every instruction of the library."""

from __future__ import annotations

import itertools
import threading
from contextlib import suppress
from queue import SimpleQueue
from types import FrameType
from typing import Any

import pytest

from prefetch_generator import BackgroundGenerator, StopEvent
from prefetch_generator._channel import Channel
from prefetch_generator._generator import Stats
from tests.helpers import LONG
from tests.interrupts.machine import NAME, At, Every, join_workers, one_after_the_other
from tests.interrupts.sources import Paced, Untouched, either_way


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


def test_a_handler_that_sets_the_event_at_any_instruction_of_the_constructor() -> None:
    """D2: the generator is stopped from the start, and its source closed, whenever its event is set meanwhile."""

    def scenario(n: int) -> At:
        source, shared = Untouched(), StopEvent()
        with At("opcode", n, shared.set) as at:
            numbers = BackgroundGenerator(source, stop_event=shared, name="traced")
        if at.struck():
            assert next(numbers, "over") == "over"
            assert numbers.stop_event.is_set()
        assert numbers.close() is True
        assert source.closed == 1
        return at

    one_after_the_other(scenario, 40)


def test_a_handler_that_closes_at_any_instruction_of_close() -> None:
    """C1: any number of times, one inside the other too: both return True, the source is closed once."""

    def scenario(n: int) -> At:
        source = Untouched()
        numbers = BackgroundGenerator(source, 1, name="traced")
        answers = []
        with At("opcode", n, lambda: answers.append(numbers.close())) as at:
            answers.append(numbers.close())
        assert answers == [True] * len(answers)
        assert source.closed == 1
        return at

    one_after_the_other(scenario, 25)


@either_way
def test_a_handler_that_takes_an_item_at_any_instruction_of_next(paced: bool) -> None:
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

        with At("opcode", n, action, source.one_more) as at:
            got.extend(numbers)
        assert got == sorted(set(got))
        assert sorted(got + inside) == [0, 1, 2]
        return at

    one_after_the_other(scenario, 40)


@pytest.mark.parametrize("how", ["event", "drop"])
def test_a_stop_at_any_instruction_of_the_worker_is_heard(how: str) -> None:
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

        at = At("opcode", n, action)
        before = threading.getprofile()
        threading.setprofile(profile)
        try:
            with at.on_new_threads():
                box.append(BackgroundGenerator(source, 1, name="traced"))
                made.set()
                for last in (False, False, True):
                    if worker_is.get(timeout=LONG) == "told":
                        break
                    stop() if last else next(box[0])
                join_workers()
        finally:
            threading.setprofile(before)
        assert source.closed == 1
        return at

    one_after_the_other(scenario, 20)


def test_looking_at_it_at_any_instruction() -> None:
    """E5: repr, stats and the hint can be had at any moment, in a debugger that stops anywhere, and change nothing."""
    looked = itertools.count()
    numbers: BackgroundGenerator[int] | None = None

    def look(_: FrameType) -> None:
        if numbers is not None:
            assert repr(numbers).startswith("<BackgroundGenerator")
            assert isinstance(numbers.stats, Stats)
            assert 0 <= numbers.__length_hint__() <= 5
            next(looked)

    with Every("opcode", look):
        numbers = BackgroundGenerator(range(5), 2)
        assert list(numbers) == [0, 1, 2, 3, 4]
        assert numbers.close() is True
    assert next(looked) > 50
