"""Times that nobody has measured, a terminal that nobody looks at, and where to write a module."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from prefetch_generator._command.times import Comparison, Measurement, Run, Span, best_speed_up

WriteModule: TypeAlias = Callable[[str], str]


class Terminal(io.StringIO):
    """A terminal, which shows a line that has not ended only when it is told to."""

    shown = ""

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        self.shown = self.getvalue()


def at_a_terminal(*arguments: str, folder: Path, environment: dict[str, str]) -> str:
    """Run Python as if a person looked at what it prints, and return that."""
    person, terminal = os.openpty()
    seen: list[bytes] = []

    def look() -> None:
        with contextlib.suppress(OSError):  # how Linux says that the other end is closed
            while piece := os.read(person, 4096):
                seen.append(piece)

    looking = threading.Thread(target=look)
    looking.start()
    command = [sys.executable, *arguments]
    known = os.environ | {"TERM": "xterm", "COLUMNS": "80"} | environment
    done = subprocess.run(command, stdout=terminal, stderr=terminal, cwd=folder, env=known, timeout=30, check=False)
    os.close(terminal)
    looking.join()
    os.close(person)
    text = b"".join(seen).decode()
    assert done.returncode == 0, text
    return text


def plain(made: Sequence[float], used: Sequence[float]) -> Run:
    """Return a plain loop with these seconds per item."""
    start = clock = 64.0
    spans: list[Span] = []
    for seconds in itertools.chain.from_iterable(zip(made, used, strict=True)):
        spans.append(Span(clock, clock + seconds))
        clock += seconds
    return Run(start, spans[::2], spans[1::2])


def compared(share: float, consumer: str = "waits", *, source: float = 1.0, used: float = 1.0) -> Comparison:
    """Return a comparison of ten items in which *share* of the possible gain was reached."""
    slow = plain([source] * 10, [used] * 10)
    seconds = slow.seconds / (1 + share * (best_speed_up(10, source, used) - 1))
    fast = Run(0.0, slow.made, [*slow.used[:-1], Span(0.0, seconds)], 0.25, 0.5)
    return Comparison(consumer, slow, {"background": fast})


def with_process(comparison: Comparison, share: float, startup: float = 0.0) -> Comparison:
    """Return this comparison and a process in it, which reached *share* of the possible gain."""
    process = compared(share).others["background"]._replace(startup=startup)
    return comparison._replace(others={**comparison.others, "process": process})


def measured(waits: float = 1.0, computes: float = 1.0, tuned: float | None = None, *, depth: int = 2) -> Measurement:
    """Return a measurement in which each comparison reached this share of the possible gain."""
    alone = plain([1.0] * 10, [0.0] * 10)
    again = None if tuned is None else compared(tuned, "tuned")
    both = compared(waits, "waits"), compared(computes, "computes")
    return Measurement("'data:load'", 2, alone, alone, *both, depth, tuned=again)
