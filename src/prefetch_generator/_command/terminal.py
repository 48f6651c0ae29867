"""What a person at a terminal sees, and what a script that reads the output gets."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from prefetch_generator._command.progress import Announce

PAUSE = 0.2  # seconds between two looks of the line that tells the progress, within one step


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a person reads *stream*, which is None where nobody can, as under pythonw."""
    return stream is not None and stream.isatty()


def has_colours(stream: TextIO | None) -> bool:
    """Tell whether *stream* is a terminal with colours, and nobody has asked for none."""
    # On Windows TERM is not set, and only its newer terminal, which sets the other one, is sure to know the codes.
    known = os.environ.get("TERM", "dumb") != "dumb" or "WT_SESSION" in os.environ
    return is_terminal(stream) and known and not os.environ.get("NO_COLOR")


@contextlib.contextmanager
def progress() -> Iterator[Announce | None]:
    """Give what shows the progress in a line of standard error; None if that is no terminal."""
    if sys.stderr is None or not is_terminal(sys.stderr):
        yield None
        return
    line = Line(sys.stderr)
    try:
        yield line.show
    finally:
        line.write("")


class Line:
    """A line that is written again and again, over itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._step = ""
        self._due = 0.0
        self._length = 0

    def show(self, step: str, seconds: float | None) -> None:
        """Show the step and the time left: at once if the step is new, and otherwise now and then."""
        now = time.monotonic()
        if step == self._step and now < self._due:
            return
        self._step, self._due = step, now + PAUSE
        self.write(step if seconds is None else f"{step}: up to {duration(seconds)} left")

    def write(self, text: str) -> None:
        """Write *text* over what was there, as far as it fits. An empty one wipes that out."""
        text = text[: shutil.get_terminal_size().columns - 1]  # what goes on in the next line would stay there
        print(f"\r{text:<{self._length}}\r", end="", file=self._stream, flush=True)
        self._length = len(text)


def duration(seconds: float) -> str:
    """Return seconds as a person says them, rounded up.

    >>> duration(0.2), duration(80), duration(7000)
    ('1 s', '2 min', '1 h 57 min')
    """
    if seconds <= 60:
        return f"{math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


@contextlib.contextmanager
def output_set_aside() -> Iterator[None]:
    """Have all that is written to standard output meanwhile, here or in a process, go to standard error instead."""
    if sys.stdout is None:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    # The number 2, if it is not standard error's, may be that of any file of the user's.
    other = os.dup(2) if sys.stderr else os.open(os.devnull, os.O_WRONLY)
    os.dup2(other, 1)
    os.close(other)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def write(text: str) -> None:
    """Print *text* whatever the encoding of standard output is, and although nobody may read it any more."""
    encoding: str = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EINVAL):  # the second is how Windows calls the first
            raise
        # What is left in the buffer would fail again, loudly, when the interpreter exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
