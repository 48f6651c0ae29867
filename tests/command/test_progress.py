"""How long a measurement can still take."""

from __future__ import annotations

import pytest

from prefetch_generator._command.consumers import nothing
from prefetch_generator._command.progress import Progress

STEPS = ["first pass", "source alone", "one", "two"]


class Told(list[tuple[str, float | None]]):
    """What was announced."""

    def announce(self, step: str, left: float | None) -> None:
        self.append((step, left))


def test_the_time_left_is_that_of_this_step_and_the_later_ones() -> None:
    """As if nothing overlapped; the first two steps have no consumer."""
    told = Told()
    progress = Progress(told.announce, STEPS, 1.0, 10)
    progress.of_first_pass(0, 0.0)
    progress.of_first_pass(5, 20.0)
    assert told == [("first pass", None), ("first pass", 5 * 4 + 10 * (4 + 5 + 5))]
    told.clear()
    consumer = progress.watched("source alone", nothing)
    consumer()
    assert told == [("source alone", 10 * (4 + 5 + 5)), ("source alone", 9 * 4 + 10 * (5 + 5))]
    told.clear()
    progress.watched("two", nothing)
    assert told == [("two", 10 * 5)]


def test_the_consumer_takes_as_long_as_the_source_unless_told_otherwise() -> None:
    """As in the measurement itself."""
    told = Told()
    progress = Progress(told.announce, STEPS, None, 10)
    progress.of_first_pass(10, 20.0)
    assert told == [("first pass", 10 * (2 + 4 + 4))]


def test_no_time_is_told_before_anybody_knows_how_many_items_there_are() -> None:
    """Without --items that is after the first pass."""
    told = Told()
    progress = Progress(told.announce, STEPS, None, None)
    progress.of_first_pass(3, 3.0)
    progress.items = 3
    progress.watched("two", nothing)
    assert told == [("first pass", None), ("two", 3 * 2)]


def test_more_items_than_expected_leave_no_time_below_zero() -> None:
    """A source may give more at a later call, if the first one ended early."""
    told = Told()
    progress = Progress(told.announce, STEPS, None, 1)
    progress.of_first_pass(1, 1.0)
    consumer = progress.watched("two", nothing)
    for _ in range(3):
        consumer()
    assert told[-1] == ("two", 0.0)


def test_the_consumer_is_used_each_time() -> None:
    """To watch it changes nothing about what it does."""
    used: list[str] = []
    told = Told()
    progress = Progress(told.announce, STEPS, None, 2)
    consumer = progress.watched("one", lambda: used.append("it"))
    consumer()
    consumer()
    assert used == ["it", "it"]


def test_nothing_comes_between_where_nobody_watches() -> None:
    """In a pipe the figures have no share of the progress in them."""
    progress = Progress(None, STEPS, None, 2)
    progress.of_first_pass(1, 1.0)
    assert progress.watched("one", nothing) is nothing


def test_only_a_step_that_was_said_to_come_can_be_watched() -> None:
    """Otherwise its time would be missing from what was told before."""
    with pytest.raises(ValueError, match="three"):
        Progress(Told().announce, STEPS, None, 1).watched("three", nothing)
