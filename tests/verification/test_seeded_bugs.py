"""The explorer finds bugs, and says where."""

from __future__ import annotations

import pytest

from verification.explorer.asynchronous_bugs import ASYNC_BUGS
from verification.explorer.instrument import Change, load_code
from verification.explorer.scheduler import explore, replay
from verification.explorer.seeded_bugs import SEEDED_BUGS, SeededBug


@pytest.mark.parametrize("bug", SEEDED_BUGS + ASYNC_BUGS, ids=str)
def test_every_seeded_bug_is_found(bug: SeededBug) -> None:
    """A bug put into the channel shows in a schedule with at most two preemptions, and again when it is replayed."""
    tell = bug.scenario(load_code(*bug.changes))
    for preemptions in range(3):
        search = explore(tell, preemptions)
        if search.simplest is not None:
            print(f"{bug}: {search.failed} of {search.schedules} schedules with at most {preemptions} preemptions")
            again = replay(tell, search.simplest.schedule)
            assert again is not None
            assert (again.what, again.schedule) == (search.simplest.what, search.simplest.schedule)
            return
    pytest.fail(f"not found: {bug}")


def test_a_failing_schedule_is_printed_as_numbered_steps() -> None:
    """Each step says who does what, in which line; a deadlock says what everybody waits for."""
    (bug,) = (bug for bug in SEEDED_BUGS if bug.name == "the worker does not ring")
    tell = bug.scenario(load_code(*bug.changes))
    failure = explore(tell, 1).simplest
    assert failure is not None
    first, *waiting = failure.what.splitlines()
    assert first == "deadlock:"
    assert [line.split(":")[0] for line in waiting] == ["worker", "consumer 0"]
    lines = str(replay(tell, failure.schedule)).splitlines()
    numbers = [int(line.split()[0]) for line in lines if line.split()[0].isdigit()]
    assert numbers == list(range(len(numbers)))
    assert any("worker: load channel.bells" in line and "produce, line" in line for line in lines)


def test_a_change_that_does_not_fit_is_an_error() -> None:
    """A bug whose text is gone from the source, or is there twice, is not tested in silence."""
    for old in ("no such line", "self.cancelled"):
        with pytest.raises(ValueError, match="must have this once"):
            load_code(Change("_channel.py", old, ""))
