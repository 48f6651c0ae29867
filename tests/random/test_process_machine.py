"""A source in a process: whatever is done in whatever order, the contract holds (section I, with A to E)."""

from __future__ import annotations

import multiprocessing
import operator
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from prefetch_generator import BackgroundGenerator, background
from tests.helpers import LONG, posix

FORK_WARNING = "ignore:This process:DeprecationWarning"


class EndError(Exception):
    """What the source raises at its end."""


def source(n: int, fails: bool) -> Iterator[int]:
    """Give so many numbers, large ones for memory that is shared too."""
    yield from range(n)
    if fails:
        raise EndError(n)


class ProcessMachine(RuleBasedStateMachine):
    """A generator over a source in a process, beside what is known of it."""

    numbers: BackgroundGenerator[int]

    @initialize(n=st.integers(0, 6), fails=st.booleans(), max_prefetch=st.integers(0, 3))
    def begin(self, n: int, fails: bool, max_prefetch: int) -> None:
        self.others = set(multiprocessing.active_children())
        self.bound = max_prefetch or n
        self.left = list(range(n))
        self.taken = 0
        self.failure = fails  # is still to come
        self.closed = False
        self.numbers = background(max_prefetch=max_prefetch, process="fork")(source)(n, fails)

    @rule(times=st.integers(1, 4), timeout=st.sampled_from([None, LONG]))
    def take_some(self, times: int, timeout: float | None) -> None:
        for _ in range(times):
            self.take(timeout)

    def take(self, timeout: float | None) -> None:
        if self.left and not self.closed:
            assert self.numbers.next(timeout) == self.left.pop(0)
            self.taken += 1
            return
        failure, self.failure = self.failure and not self.closed, False
        with pytest.raises(EndError if failure else StopIteration):
            self.numbers.next(timeout)

    @precondition(lambda self: not self.left)
    @rule()
    def take_all(self) -> None:
        if not self.failure or self.closed:
            assert list(self.numbers) == []

    @rule()
    def close(self) -> None:
        self.closed = True
        assert self.numbers.close(LONG) is True
        assert set(multiprocessing.active_children()) <= self.others

    @rule()
    def stop(self) -> None:
        self.closed = True
        self.numbers.stop_event.set()

    @invariant()
    def looks(self) -> None:
        if not hasattr(self, "numbers"):
            return
        stats = self.numbers.stats
        assert stats.delivered == self.taken
        assert stats.buffered <= self.bound
        assert ("closed" in repr(self.numbers)) is self.closed
        if self.closed:
            assert operator.length_hint(self.numbers) == 0

    def teardown(self) -> None:
        assert self.numbers.close(LONG) is True
        assert set(multiprocessing.active_children()) <= self.others


@posix
@pytest.mark.filterwarnings(FORK_WARNING)
def test_whatever_is_done_with_a_source_in_a_process_the_contract_holds() -> None:
    """I2: All of A to G holds; I8: and no process is left."""
    ProcessMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
    ProcessMachine.TestCase().runTest()
