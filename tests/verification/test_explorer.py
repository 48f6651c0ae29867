"""The channel in every order of its steps (contract A1, A2, A8, B1, B2, C1, C3, G2, G3, H2)."""

from __future__ import annotations

import os

import pytest

from verification.explorer import asynchronous
from verification.explorer.instrument import load_code
from verification.explorer.scenarios import CIRCLES, FULL, LARGE, QUICK, Circle, Scenario
from verification.explorer.scheduler import AnyOrder, Priorities, Search, explore, replay, sample

CODE = load_code()
LONG_PART = bool(os.environ.get("PREFETCH_EXPLORE"))
SEEDS = range(5_000 if LONG_PART else 100)

# What takes a second or more has fewer preemptions in the suite; as many as they have here find every seeded bug.
FEWER: dict[Scenario, int | None] = {
    Scenario(items=1): 3,
    Scenario(items=3): 1,
    Scenario(items=1, cancels=1): 1,
    Scenario(items=1, cancels=1, stuck=True): 1,
    Scenario(items=1, cancels=2): 0,
    Scenario(items=2, consumers=2): 0,
}
PREEMPTIONS = [(scenario, most if LONG_PART else FEWER.get(scenario, most)) for scenario, most in QUICK]


def verdict(scenario: Scenario | Circle, search: Search) -> str:
    """Print what was seen; return what failed, with its numbered steps."""
    print(f"{scenario}: {search}")
    if search.simplest is None:
        return ""
    return (
        f"{search.failed} of {search.schedules} schedules failed:\n{replay(scenario(CODE), search.simplest.schedule)}"
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("scenario", "preemptions"), PREEMPTIONS + asynchronous.QUICK, ids=str)
def test_nothing_goes_wrong_in_any_schedule(scenario: Scenario, preemptions: int | None) -> None:
    """Nothing is lost, repeated, reordered or raised twice; nobody is ahead too far, or left asleep."""
    failed = verdict(scenario, explore(scenario(CODE), preemptions))
    assert not failed, failed


@pytest.mark.parametrize("circle", CIRCLES, ids=str)
def test_who_waits_for_each_other_is_told_and_nobody_else(circle: Circle) -> None:
    """A10: two workers that wait for each other: an error, in every schedule; and none where one can go on."""
    failed = verdict(circle, explore(circle(CODE), 3 if LONG_PART else 2))
    assert not failed, failed


@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", LARGE + asynchronous.LARGE, ids=str)
def test_nothing_goes_wrong_in_random_schedules(scenario: Scenario) -> None:
    """The same holds where there are more threads, items and places than can be searched to the end."""
    for policy in (AnyOrder, Priorities):
        failed = verdict(scenario, sample(scenario(CODE), map(policy, SEEDS)))
        assert not failed, failed


@pytest.mark.skipif(not LONG_PART, reason="takes long: PREFETCH_EXPLORE=1 runs it")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("scenario", "preemptions"), FULL + asynchronous.FULL, ids=str)
def test_nothing_goes_wrong_in_any_schedule_at_all(scenario: Scenario, preemptions: int | None) -> None:
    """The same holds in all schedules, as far as a machine can count them."""
    failed = verdict(scenario, explore(scenario(CODE), preemptions))
    assert not failed, failed
