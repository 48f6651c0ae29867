"""Sources for a process of their own, which has to be able to import them. They tell through a pipe how they fare."""

from __future__ import annotations

import itertools
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import pytest

from prefetch_generator import BackgroundGenerator, background, current_stop_event
from tests.helpers import LONG, posix

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


# Sources. Each says its process id first, before its first item.


def watched(tell: Connection) -> Iterator[int]:
    """Count, and say all that a stop does: the answer is `WATCHED`."""
    stop, called = current_stop_event(), threading.Event()
    tell.send(os.getpid())
    with stop.on_set(called.set):
        try:
            yield from itertools.count()
        except GeneratorExit:
            on_main = threading.current_thread() is threading.main_thread()
            tell.send([stop.is_set(), on_main, called.wait(LONG)])
            raise
        finally:
            tell.send("finally")


WATCHED = [[True, True, True], "finally"]


def waits(tell: Connection) -> Iterator[object]:
    """Wait, in the second step, for the stop."""
    tell.send(os.getpid())
    yield 0
    tell.send("inside")
    tell.send(current_stop_event().wait())
    try:
        yield 1
    except GeneratorExit:
        tell.send("GeneratorExit")


def reads(tell: Connection) -> Iterator[object]:
    """Sit in a read, in the second step, which the stop has end."""
    tell.send(os.getpid())
    yield 0
    reading, writing = os.pipe()
    with current_stop_event().on_set(lambda: os.write(writing, b"stop")):
        tell.send("inside")
        tell.send(os.read(reading, 4))
        yield 1


def computes() -> None:
    while True:
        pass


def sleeps() -> None:
    time.sleep(1000)


def waits_for_a_lock() -> None:
    threading.Event().wait()


def reads_a_pipe() -> None:
    os.read(os.pipe()[0], 1)


def busy(tell: Connection, step: Callable[[], None]) -> Iterator[object]:
    """Be busy in the second step, whatever comes; an interruption ends it."""
    tell.send(os.getpid())
    try:
        yield 0
        tell.send("inside")
        step()
    except BaseException as error:
        tell.send(type(error).__name__)
        raise
    finally:
        tell.send("finally")


def holds_the_gil() -> None:
    sum(range(10**12))


def stops_itself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def ignores_all() -> None:
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            pass


def stubborn(tell: Connection, step: Callable[[], None]) -> Iterator[object]:
    """Be busy in the second step; nothing ends it."""
    tell.send(os.getpid())
    yield 0
    tell.send("inside")
    step()


def closes_forever(tell: Connection) -> Iterator[object]:
    """Never come to the end of the clean-up."""
    tell.send(os.getpid())
    try:
        yield from itertools.count()
    finally:
        tell.send("finally")
        ignores_all()


def fails_while_closing(tell: Connection) -> Iterator[object]:
    """Raise in the clean-up."""
    tell.send(os.getpid())
    try:
        yield from itertools.count()
    finally:
        raise LookupError("while closing", 7)


def fails_after_the_stop(tell: Connection) -> Iterator[object]:
    """Raise in the step that is in progress when the stop comes."""
    tell.send(os.getpid())
    yield 0
    tell.send("inside")
    current_stop_event().wait()
    raise LookupError("the unfinished step")


class BusyReader:
    """An iterator with a close(), as a cursor has, whose second step takes for ever."""

    def __init__(self, tell: Connection) -> None:
        self.tell = tell
        self.steps = 0

    def __iter__(self) -> BusyReader:
        return self

    def __next__(self) -> int:
        self.steps += 1
        if self.steps == 2:
            self.tell.send("inside")
            sleeps()
        return self.steps

    def close(self) -> None:
        self.tell.send("closed")


def busy_reader(tell: Connection) -> BusyReader:
    """Return such an iterator."""
    tell.send(os.getpid())
    return BusyReader(tell)
