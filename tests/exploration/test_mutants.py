"""The exploration finds bugs, and says where."""

from __future__ import annotations

import pytest

from .instrument import Change, load_code
from .mutants import MUTANTS, Mutant
from .scheduler import explore, replay


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_every_mutant_is_killed(mutant: Mutant) -> None:
    """A bug put into the channel shows in a schedule with at most two preemptions, and again when it is replayed."""
    tell = mutant.scenario(load_code(*mutant.changes))
    for preemptions in range(3):
        search = explore(tell, preemptions)
        if search.simplest is not None:
            print(f"{mutant}: {search.failed} of {search.schedules} schedules with at most {preemptions} preemptions")
            again = replay(tell, search.simplest.schedule)
            assert again is not None
            assert (again.what, again.schedule) == (search.simplest.what, search.simplest.schedule)
            return
    pytest.fail(f"survived: {mutant}")


def test_a_failing_schedule_is_printed_as_numbered_steps() -> None:
    """Each step says who does what, in which line; a deadlock says what everybody waits for."""
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == "the worker does not ring")
    tell = mutant.scenario(load_code(*mutant.changes))
    failure = explore(tell, 1).simplest
    assert failure is not None
    first, *waiting = failure.what.splitlines()
    assert first == "deadlock:"
    assert [line.split(":")[0] for line in waiting] == ["worker", "consumer 0"]
    lines = str(replay(tell, failure.schedule)).splitlines()
    numbers = [int(line.split()[0]) for line in lines if line.split()[0].isdigit()]
    assert numbers == list(range(len(numbers)))
    assert any("worker: load channel.bells" in line and "_produce, line" in line for line in lines)


def test_a_change_that_does_not_fit_is_an_error() -> None:
    """A mutant whose text is gone from the source, or is there twice, is not tested in silence."""
    for old in ("no such line", "self.open"):
        with pytest.raises(ValueError, match="must have this once"):
            load_code(Change("_channel.py", old, ""))
