"""Contract B4: an exception at every instruction of the library.

CPython itself runs signal handlers at a few points only, and there nothing is lost. Here they come everywhere, also
where an item has left the buffer and is not returned yet.
"""

from __future__ import annotations

import dis
import threading
from collections.abc import Iterator
from types import CodeType

from prefetch_generator import BackgroundGenerator, StopEvent
from prefetch_generator._atomic import raise_held
from tests.helpers import LONG
from tests.interrupts.machine import NAME, At, Strike, join_workers, missing_under, one_after_the_other
from tests.interrupts.sources import Paced, Untouched, either_way

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


@either_way
def test_an_exception_anywhere_in_next_costs_at_most_the_item_in_hand(paced: bool) -> None:
    """B4: raised between any two instructions of next(): nothing hangs, nothing is repeated, order is kept.

    One item is lost at most, and only between the instruction that takes it and the one that returns it, where
    CPython itself runs no signal handler. The return value is lost only between being taken and being raised.
    """
    expected: list[object] = [0, 1, 2, "value"]
    lossy = window()
    lost, harmless = set(), set()

    def scenario(n: int) -> At:
        source = Paced(3, paced=paced)

        def action() -> None:
            source.run_free()
            raise Strike

        numbers = BackgroundGenerator(source.items(), 2, name="traced")
        at = At("opcode", n, action, source.one_more)
        missing = missing_under(at, numbers, expected)
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
    assert lost  # it was struck there, too
    assert not lost & harmless


def test_an_exception_anywhere_in_next_keeps_the_failure_unless_it_is_in_hand() -> None:
    """B4: what the source raises comes once, after the items; lost only between being taken and being raised."""

    def scenario(n: int) -> At:
        def source() -> Iterator[int]:
            yield 0
            raise KeyError

        numbers = BackgroundGenerator(source(), 1, name="traced")
        seen: list[object] = []
        with At("opcode", n) as at:
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


def test_an_exception_anywhere_in_the_constructor_leaves_no_worker() -> None:
    """B4: a struck constructor leaves no thread; the source is untouched, or was allowed already, and is closed."""
    code = BackgroundGenerator.__init__.__code__
    allowed = max(at.offset for at in dis.get_instructions(code) if at.opname == "FOR_ITER")
    touched, stopped = set(), set()

    def scenario(n: int) -> At:
        source = Untouched()
        numbers = None

        def action() -> None:
            assert at.place is not None
            if at.place[0] is code and at.place[1] > allowed:
                assert source.begun.wait(LONG)
            raise Strike

        at = At("opcode", n, action)
        try:
            with at:
                numbers = BackgroundGenerator(source, name="traced")
        except Strike:
            if source.closed:  # by the constructor: the traceback still holds the generator
                stopped.add(at.place)
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
    assert touched >= stopped
    assert stopped


def test_an_exception_anywhere_in_close_leaves_a_generator_that_can_be_closed() -> None:
    """B4, C1: close() can be called again, whatever struck it: the source is closed once, and its thread is gone."""
    for inside in (False, True):  # the source is in a step when close() is called, or waits for room

        def scenario(n: int, inside: bool = inside) -> At:
            source = Paced(9, paced=inside)
            numbers = BackgroundGenerator(source.items(), 1, name="traced")

            def action() -> None:
                source.one_more()
                raise Strike

            struck = 0
            with At("opcode", n, action, source.one_more) as at:
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


def test_an_exception_anywhere_in_close_keeps_what_closing_raised_unless_it_is_in_hand() -> None:
    """B4, C4: what the source raises while it is being closed is raised once, by the close() that is called again."""

    class Failing(Untouched):
        def close(self) -> None:
            raise KeyError

    def scenario(n: int) -> At:
        numbers = BackgroundGenerator(Failing(), 1, name="traced")
        assert next(numbers) == 1
        seen: list[object] = []
        with At("opcode", n) as at:
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


def test_an_exception_anywhere_in_the_wait_for_an_event_harms_nothing() -> None:
    """B4, D1: StopEvent.wait() and set() can be called again."""

    def scenario(n: int) -> At:
        stop = StopEvent()
        numbers = BackgroundGenerator(Untouched(), stop_event=stop, name="traced")
        with At("opcode", n) as at:
            for call in (lambda: stop.wait(0), stop.is_set, stop.set, lambda: stop.wait(LONG)):
                try:
                    call()
                except Strike:
                    call()
        assert next(numbers, "over") == "over"
        assert numbers.close() is True
        return at

    one_after_the_other(scenario, 15)
