"""What a person at a terminal sees, and a script does not."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
import time

import pytest

from prefetch_generator._command import terminal
from tests.helpers import python

from .invented import Terminal


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
        ({"WT_SESSION": "1"}, True),
        ({"WT_SESSION": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_are_for_a_terminal_that_has_them(
    environment: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And for a person who has not asked for none; an empty NO_COLOR does not count, as no-color.org has it."""
    for name in ("TERM", "NO_COLOR", "WT_SESSION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert terminal.has_colours(Terminal()) is expected
    assert not terminal.has_colours(io.StringIO())
    assert not terminal.has_colours(None)


def test_progress_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal sees the step and sees it wiped out; a file sees nothing, and pythonw has no standard error."""
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    with terminal.progress() as announce:
        assert announce
        announce("one", None)
        assert shown.shown == "\rone\r"
        announce("two", 61.0)
        assert shown.shown == "\rone\r\rtwo: up to 2 min left\r"
    assert shown.shown.endswith("\r\r" + len("two: up to 2 min left") * " " + "\r")

    for nobody in (file := io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", nobody)
        with terminal.progress() as announce:
            assert announce is None
    assert file.getvalue() == ""


def test_progress_is_wiped_out_before_a_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is."""
    monkeypatch.setattr(sys, "stderr", shown := Terminal())

    def fail() -> None:
        with terminal.progress() as announce:
            assert announce
            announce("one", None)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert shown.shown == "\rone\r\r   \r"


def test_the_line_is_written_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new step at once, and within a step not at each of its thousand items."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    line = terminal.Line(shown := Terminal())

    def written(step: str, left: float) -> str:
        before = len(shown.shown)
        line.show(step, left)
        return shown.shown[before:].strip("\r").rstrip()

    assert written("one", 9) == "one: up to 9 s left"
    clock[0] += terminal.PAUSE / 2
    assert written("one", 8) == ""
    assert written("two", 7) == "two: up to 7 s left"
    clock[0] += terminal.PAUSE / 2
    assert written("two", 6) == ""
    clock[0] += terminal.PAUSE
    assert written("two", 5) == "two: up to 5 s left"


def test_the_line_stays_within_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it wrapped, one would be left behind for each that is written."""
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((5, 24)))
    line = terminal.Line(shown := Terminal())
    line.write("123456")
    line.write("")
    assert shown.shown == "\r1234\r\r    \r"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        *((0.0, "0 s"), (59.1, "60 s"), (60.0, "60 s"), (60.1, "2 min")),
        *((3540.0, "59 min"), (3541.0, "1 h 0 min"), (3600.0, "1 h 0 min"), (7080.0, "1 h 58 min")),
    ],
)
def test_a_duration_is_rounded_up(seconds: float, expected: str) -> None:
    """What is left is told as too much rather than too little."""
    assert terminal.duration(seconds) == expected


SET_ASIDE = """
import os
from prefetch_generator._command import terminal
print("before")
try:
    with terminal.output_set_aside():
        os.write(1, b"written\\n")
        print("printed")
        {failure}
except KeyboardInterrupt:
    pass
print("after")
"""


@pytest.mark.parametrize("failure", ["", "raise KeyboardInterrupt"])
def test_output_is_set_aside_for_a_while(failure: str) -> None:
    """All that is printed or written goes to standard error; before and after, and after a failure, it does not."""
    out, err = python("-c", SET_ASIDE.format(failure=failure), PYTHONUNBUFFERED="")  # what is buffered counts too
    assert (out.splitlines(), err.splitlines()) == (["before", "after"], ["written", "printed"])


def test_output_that_is_set_aside_leaves_no_descriptor() -> None:
    """The next files that are opened get the numbers that they would have had."""

    def next_numbers() -> list[int]:
        numbers = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
        for number in numbers:
            os.close(number)
        return numbers

    before = next_numbers()
    with terminal.output_set_aside():
        pass
    assert next_numbers() == before


def test_output_goes_nowhere_without_standard_error(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number may be that of a file of the user's; and without standard output there is nothing to do."""
    monkeypatch.setattr(sys, "stderr", None)
    with terminal.output_set_aside():
        os.write(1, b"printed\n")
    monkeypatch.setattr(sys, "stdout", None)
    with terminal.output_set_aside():
        os.write(1, b"written\n")
    assert capfd.readouterr() == ("written\n", "")


def test_a_reader_that_has_gone_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `prefetch-generator | head`: nothing is raised, now or when the stream is closed."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        terminal.write("nobody reads this")


def test_a_full_disk_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a reader who has left may miss the report."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(OSError, match="no space left"):
        terminal.write("too much")
