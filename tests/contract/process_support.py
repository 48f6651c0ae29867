"""What the tests of sources in a process of their own stand on."""

from __future__ import annotations

import os
import select
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from prefetch_generator import BackgroundGenerator, background
from tests.helpers import LONG, posix, python

METHODS = [pytest.param("fork", marks=posix), "spawn", pytest.param("forkserver", marks=posix)]
CHEAPEST = "fork" if sys.platform != "win32" else "spawn"

# 3.12 and later warn at every fork() in a threaded process, which a process with a generator is.
FORK_WARNING = "ignore:This process:DeprecationWarning"


def start(function: Callable[..., Iterator[Any]], *args: Any, method: str = CHEAPEST) -> BackgroundGenerator[Any]:
    """Run the function in a process of its own, one item ahead."""
    return background(max_prefetch=1, process=method)(function)(*args)  # type: ignore[call-overload,no-any-return]


@contextmanager
def pipe() -> Iterator[tuple[Callable[[], Any], Connection]]:
    """Give what receives the next word that a child sends, and what it sends them through."""
    reader, writer = Pipe(duplex=False)

    def told() -> Any:
        assert reader.poll(LONG), "the child says nothing"
        return reader.recv()

    with reader, writer:
        yield told, writer


def is_gone(pid: int) -> bool:
    """Return whether there is no such process, not even as one that nobody has waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def seconds_until_dead(ends: list[int]) -> float:
    """Wait until the processes of these descriptors, of `os.pidfd_open`, have ended; return how long that took."""
    started = time.monotonic()
    for end in ends:
        assert select.select([end], [], [], LONG)[0], "a process goes on"
        os.close(end)
    return time.monotonic() - started


def run_script(tmp_path: Path, script: str, *options: str, returncode: int = 0) -> str:
    """Run it from a file, with the modules of the tests to be imported; return what it printed. It prints no error."""
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script), encoding="utf-8")
    root = str(Path(__file__).parents[2])
    folders = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    out, err = python("-W", FORK_WARNING, *options, str(path), returncode=returncode, PYTHONPATH=folders)
    assert not err
    return out
