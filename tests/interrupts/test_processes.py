"""Contract B4, B6 and I: an exception at every instruction of the library, with a source in a process."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import threading
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import pytest

from prefetch_generator import BackgroundGenerator, _worker, background
from tests.contract.process_support import FORK_WARNING
from tests.helpers import LONG, posix
from tests.interrupts.machine import At, Event, Strike, join_workers, missing_under, one_after_the_other

pytestmark = [posix, pytest.mark.filterwarnings(FORK_WARNING)]


def traced(n: int) -> Generator[int, None, str]:
    """Be the source. The worker's name comes from this one."""
    yield from range(n)
    return "value"


def start(n: int, max_prefetch: int) -> BackgroundGenerator[int]:
    """Run it in a process, started the quickest way."""
    return background(max_prefetch=max_prefetch, process="fork")(traced)(n)


@pytest.mark.parametrize(("event", "max_prefetch"), [("poll", 1), ("line", 2)])
def test_an_exception_anywhere_in_next_costs_at_most_the_item_in_hand(event: Event, max_prefetch: int) -> None:
    """B4: where CPython runs handlers, nothing is lost, and the child has room as before; elsewhere one item, or end.

    One ahead, a room that was lost would hang it.
    """
    expected: list[object] = [0, 1, 2, "value"]

    def scenario(n: int) -> At:
        numbers = start(3, max_prefetch)
        at = At(event, n)
        missing = missing_under(at, numbers, expected)
        assert len(missing) <= (event == "line")
        join_workers()
        assert not multiprocessing.active_children()
        return at

    one_after_the_other(scenario, 15)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # what a struck call leaves is freed by its count
def test_an_exception_anywhere_in_the_constructor_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """B4, I8: a struck call leaves no thread, no child, and no descriptor."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # where it strikes what is called before a fork
    gc.collect()
    open_here = Path("/dev/fd")
    before = len(list(open_here.iterdir()))

    def scenario(n: int) -> At:
        numbers = None
        with At("opcode", n) as at, suppress(Strike):
            numbers = start(1000, 1)
        assert numbers or at.struck()
        if numbers is not None:
            assert numbers.close() is True
        join_workers()
        assert not multiprocessing.active_children()
        return at

    one_after_the_other(scenario, 200)
    gc.collect()
    assert len(list(open_here.iterdir())) == before


def test_an_exception_anywhere_in_close_leaves_a_generator_that_can_be_closed() -> None:
    """B4, I5: close() can be called again, whatever struck it: the child is gone then."""

    def scenario(n: int) -> At:
        numbers = start(1000, 1)
        with At("opcode", n) as at, suppress(Strike):
            assert numbers.close(LONG) is True
        assert numbers.close(LONG) is True
        assert not multiprocessing.active_children()
        join_workers()
        return at

    one_after_the_other(scenario, 25)


def test_an_error_anywhere_on_the_worker_never_makes_a_shorter_result(
    hooked: SimpleQueue[threading.ExceptHookArgs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """B6: all items and then the end, or some of them and then an error; and no child stays.

    At every line, and at the worker's first instructions.
    """
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # where it strikes the last look at an ended thread
    outcomes: set[type[BaseException]] = set()

    def scenario(n: int, event: Event = "line") -> At:
        at = At(event, n)
        with at.on_new_threads():
            numbers = start(3, 1)
        got: list[int] = []
        with pytest.raises(BaseException) as caught:  # noqa: PT011, PT012 - whatever it is, after the items before it
            while True:
                got.append(numbers.next(LONG))
        outcomes.add(caught.type)
        assert got == list(range(len(got)))
        if caught.type is StopIteration:
            assert len(got) == 3
        with suppress(Strike):
            numbers.close(LONG)
        assert numbers.close(LONG) is True
        join_workers()
        while not hooked.empty():
            hooked.get()
        if at.place is not None and at.place[0] is not _worker._look_again.__code__:  # which comes last of all
            assert not multiprocessing.active_children()
        del numbers, caught
        assert not multiprocessing.active_children()
        return at

    one_after_the_other(scenario, 100)  # its instructions are thousands
    for n in range(1, 10):  # before its first line nothing of it can handle an error
        scenario(n, "opcode")
    assert outcomes >= {Strike, StopIteration}
