"""The algorithm, with interrupts and a cancel at every step, searched to the end (contract A1, A2, B1, B2, B4, C1)."""

from __future__ import annotations

import os

import pytest

from .model import Setting, search

SETTINGS = [
    Setting(items=1),
    Setting(items=2, cancels=False),
    Setting(items=2, depth=2, cancels=False),
    Setting(items=1, stuck=True),
    Setting(items=1, consumers=2, cancels=False),
]
LONG = [
    Setting(items=3),
    Setting(items=3, depth=2),
    Setting(items=2, consumers=2, cancels=False),
    Setting(items=1, consumers=2, interrupts=False),
    Setting(items=1, consumers=2, interrupts=False, stuck=True),
]
BUGS = [
    Setting(bug="one place too many"),
    Setting(bug="no second look by the worker"),
    Setting(bug="a full buffer hides a cancel from the worker"),
    Setting(bug="an item is taken where an interrupt can strike"),
    Setting(items=1, cancels=False, bug="the bell is announced after the look"),
    Setting(items=1, bug="a cancelled item is delivered"),
    Setting(items=1, depth=2, cancels=False, bug="the end is read after the buffer"),
    Setting(items=1, bug="cancel does not answer"),
    Setting(items=1, stuck=True, bug="cancel does not ring"),
    Setting(items=1, stuck=True, bug="cancel forgets a bell before it rings it"),
    Setting(items=1, cancels=False, bug="the worker does not ring"),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_nothing_goes_wrong_in_any_state(setting: Setting) -> None:
    """Nothing is lost, repeated, reordered or pulled too early, and from every state everybody can come to an end."""
    result = search(setting)
    print(f"{setting}: {result.states} states, {result.steps} steps")
    assert not result.broken, result.broken


@pytest.mark.skipif("PREFETCH_EXPLORE" not in os.environ, reason="takes long: PREFETCH_EXPLORE=1 runs it")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("setting", LONG, ids=str)
def test_nothing_goes_wrong_in_any_state_of_a_larger_setting(setting: Setting) -> None:
    """The same holds with more items, places and threads."""
    test_nothing_goes_wrong_in_any_state(setting)


@pytest.mark.parametrize("setting", BUGS, ids=lambda setting: setting.bug)
def test_the_search_finds_bugs(setting: Setting) -> None:
    """A mistake that is put into the model is found, and the shortest way to it is told in numbered steps."""
    result = search(setting)
    assert result.broken, f"survived: {setting.bug}"
    what, *story = result.broken.splitlines()
    assert [int(line.split()[0]) for line in story] == list(range(len(story)))
    print(f"{setting.bug}: {what}, after {len(story)} steps; {result.states} states seen")
