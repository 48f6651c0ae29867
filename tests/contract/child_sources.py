"""Sources for a process of their own. They tell through a pipe how they fare.

Each process imports this, so it imports little.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from prefetch_generator import BackgroundGenerator, current_stop_event

# Each says its process id first, before its first item.


def watched(tell: Connection) -> Iterator[int]:
    """Count, and say all that a stop does: the answer is `WATCHED`."""
    stop, called = current_stop_event(), threading.Event()
    tell.send(os.getpid())
    with stop.on_set(called.set):
        try:
            yield from itertools.count()
        except GeneratorExit:
            on_main = threading.current_thread() is threading.main_thread()
            tell.send([stop.is_set(), on_main, called.wait(30)])
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


def sleeps_a_little() -> None:
    time.sleep(0.3)


def leaves_a_thread(tell: Connection, step: Callable[[], None]) -> Iterator[object]:
    """Come to the end, and leave a thread in such a step, for which the process waits."""

    def work() -> None:
        step()
        tell.send("done")

    tell.send(os.getpid())
    threading.Thread(target=work).start()
    yield 0


def holds_the_gil() -> None:
    sum(range(10**12))


def stops_itself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def ignores_all() -> None:
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(1000)


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


def _late() -> Iterator[int]:
    time.sleep(0.1)  # so that somebody has to wait for it
    yield 0


def closes_with_another(tell: Connection) -> Iterator[object]:
    """Wait for another generator in the clean-up."""
    tell.send(os.getpid())
    try:
        yield from itertools.count()
    finally:
        tell.send(list(BackgroundGenerator(_late())))


def interrupted_twice(tell: Connection) -> Iterator[object]:
    """Get Ctrl-C from a terminal just when the step has been interrupted by the stop."""
    tell.send(os.getpid())
    yield 0
    tell.send("inside")
    try:
        sleeps()
    except KeyboardInterrupt:
        signal.raise_signal(signal.SIGINT)
        tell.send("interrupted once")
        raise


class Item:
    """Something that a weak reference can be had of."""


def lets_go() -> Iterator[object]:
    """Give an item, and say whether it is gone when the next is made."""
    item = Item()
    gone = weakref.ref(item)
    yield item
    del item
    yield gone() is None


def inodes() -> Iterator[list[int]]:
    """Give the numbers of all files and sockets that are open here, again and again."""
    while True:
        found = []
        for descriptor in range(256):
            with contextlib.suppress(OSError):
                found.append(os.fstat(descriptor).st_ino)
        yield found


def closes_slowly(tell: Connection) -> Iterator[object]:
    """Clean up until it would be interrupted."""
    interrupts: SimpleQueue[None] = SimpleQueue()
    interrupt: Any = signal.getsignal(signal.SIGINT)

    def handler(*about: object) -> None:
        interrupts.put(None)
        interrupt(*about)

    tell.send(os.getpid())
    try:
        yield from itertools.count()
    finally:
        signal.signal(signal.SIGINT, handler)
        try:
            tell.send(interrupts.get(timeout=30))
        except BaseException as error:
            tell.send(type(error).__name__)


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
    """An iterator with a close(), as a cursor has, one of whose steps takes for ever."""

    def __init__(self, tell: Connection, busy_at: int) -> None:
        self.tell = tell
        self.busy_at = busy_at
        self.steps = 0

    def __iter__(self) -> BusyReader:
        return self

    def __next__(self) -> int:
        self.steps += 1
        if self.steps == self.busy_at:
            self.tell.send("inside")
            sleeps()
        return self.steps

    def close(self) -> None:
        self.tell.send("closed")


def busy_reader(tell: Connection, busy_at: int) -> BusyReader:
    """Return such an iterator."""
    tell.send(os.getpid())
    return BusyReader(tell, busy_at)


# Sources that start processes and threads of their own.


def square(number: int) -> int:
    return number * number


def with_children(tell: Connection) -> Iterator[object]:
    """Use a pool of processes, a process and a pool of threads."""
    context: Any = multiprocessing.get_context("spawn" if sys.platform == "win32" else "fork")
    yield multiprocessing.current_process().daemon
    with context.Pool(2) as pool:
        yield from pool.map(square, range(3))
        pool.close()
        pool.join()
    process = context.Process(target=tell.send, args=("from a grandchild",))
    process.start()
    process.join()
    yield process.exitcode
    with ThreadPoolExecutor(2) as executor:
        yield from executor.map(square, range(3))


def forking(tell: Connection) -> Iterator[object]:
    """Fork, have the fork work and end, and one more that comes out of the source again, and one that returns."""
    for how in ("ends", "comes out", "returns", "raises"):
        pid = os.fork()
        if pid == 0:
            if how == "ends":
                tell.send("a fork")
                os._exit(0)
            if how == "returns":
                return
            if how == "raises":
                raise ValueError
        else:
            os.waitpid(pid, 0)
        yield how


def with_a_surviving_fork(tell: Connection) -> Iterator[object]:
    """Leave a fork behind that has all that this process has, and lives on."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
    yield pid


def few() -> Iterator[int]:
    yield from range(5)


def telling(tell: Connection, n: int) -> Iterator[int]:
    """Say each number before it is given."""
    for i in range(n):
        tell.send(i)
        yield i


def stops_by_itself(n: int) -> Iterator[int]:
    """Set, after so many items, the source's own event."""
    yield from range(n)
    current_stop_event().set()
    yield from itertools.count(n)
