"""What follows from the times: how fast it could be, how much of that was gained, how deep a buffer helps."""

from __future__ import annotations

import pytest

from prefetch_generator._command.times import Comparison, Span, best_speed_up, enough_depth, idle, overlapped

from .invented import compared, plain


@pytest.mark.parametrize(
    ("items", "source", "consumer", "best"),
    [(1, 1.0, 1.0, 1.0), (2, 1.0, 1.0, 4 / 3), (10, 1.0, 3.0, 40 / 31), (10, 3.0, 1.0, 40 / 31), (5, 0.0, 0.0, 1.0)],
)
def test_best_speed_up_is_the_whole_work_over_the_slower_side(
    items: int, source: float, consumer: float, best: float
) -> None:
    """The slower side does all its work, the other one adds one item; no work at all gains nothing."""
    assert best_speed_up(items, source, consumer) == pytest.approx(best)


@pytest.mark.parametrize(("source", "consumer"), [(1.0, 1.0), (1.0, 4.0), (4.0, 1.0)])
def test_best_speed_up_is_what_an_ideal_overlap_of_even_times_reaches(source: float, consumer: float) -> None:
    """For items that all take the same time, the formula and the step-by-step overlap agree."""
    run = plain([source] * 7, [consumer] * 7)
    assert run.seconds / overlapped(run, 1) == pytest.approx(best_speed_up(7, source, consumer))


@pytest.mark.parametrize(("depth", "seconds"), [(1, 23.0), (2, 19.0), (4, 17.0)])
def test_an_overlap_never_looks_further_ahead_than_its_depth(depth: int, seconds: float) -> None:
    """Three quick items before a long one help as far as the buffer has room for them."""
    run = plain([1.0, 1.0, 1.0, 10.0], [4.0, 4.0, 4.0, 4.0])
    assert overlapped(run, depth) == seconds


@pytest.mark.parametrize(
    ("made", "max_prefetch", "depth"),
    [([1.0] * 8, 2, 2), ([0.1] * 7 + [7.0], 1, 8), ([0.1] * 7 + [7.0], 0, 0), ([0.1] * 7 + [7.0], -1, -1)],
)
def test_a_deeper_buffer_is_asked_for_only_where_uneven_times_need_one(
    made: list[float], max_prefetch: int, depth: int
) -> None:
    """Even items need no more, uneven ones as much as lets the other side go on, and no bound is enough."""
    assert enough_depth(plain(made, [1.0] * 8), max_prefetch) == depth


def test_the_gained_share_is_zero_for_no_gain_and_one_for_the_best() -> None:
    """The measured speed-up is placed between none and the best possible."""
    assert compared(0.0).gained() == pytest.approx(0.0)
    assert compared(1.0).gained() == pytest.approx(1.0)


def test_what_was_not_tried_has_gained_nothing() -> None:
    """Unless there is hardly anything to gain."""
    assert compared(1.0).gained("process") == 0.0
    assert compared(1.0, used=0.01).gained("process") == 1.0


def test_idle_is_what_no_item_has_taken() -> None:
    """From the start to the end of the last item: before the first, and between them."""
    assert idle(1.0, [Span(2.0, 4.0), Span(4.5, 9.0)]) == 1.5
    assert idle(1.0, []) == 0.0


def test_the_gained_share_is_one_where_there_is_hardly_anything_to_gain() -> None:
    """A consumer that takes no time leaves nothing to complain about."""
    assert compared(0.0, used=0.01).gained() == 1.0


def test_the_speed_up_compares_rates_and_not_totals() -> None:
    """A source that gave fewer items in the background has not become faster by that."""
    slow = plain([1.0] * 4, [1.0] * 4)
    half = plain([1.0] * 2, [1.0] * 2)
    assert Comparison("waits", slow, {"background": half}).speed_up("background") == pytest.approx(1.0)
