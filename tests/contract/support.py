"""What the tests of several sections stand on."""

from __future__ import annotations

import inspect
import itertools
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from queue import SimpleQueue
from typing import Any

from prefetch_generator import (
    BackgroundGenerator,
    StopEvent,
    current_stop_event,
)
from tests.helpers import GIL, LONG, _at_a_wait, python, when_asleep


class Item:
    """Something that can be weakly referenced."""


class Stuck:
    """A source that gives 0, and then 1 as soon as `go` is set; it says when it is in that step, and who closed it."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.go = threading.Event()
        self.closed: SimpleQueue[threading.Thread] = SimpleQueue()
        self.place = ""  # where it is stuck

    def stick(self) -> None:
        frame = sys._getframe(1)
        self.place = f"{frame.f_code.co_filename}, line {frame.f_lineno}"
        self.inside.set()
        self.go.wait()

    def items(self) -> Iterator[int]:
        try:
            yield 0
            self.stick()
            yield 1
        finally:
            self.closed.put(threading.current_thread())


class Reader:
    """An iterator that is no generator, with a close(), as a file or a cursor has."""

    def __init__(self, n: int) -> None:
        self.left = n
        self.closed = 0

    def __iter__(self) -> Reader:
        return self

    def __next__(self) -> int:
        if not self.left:
            raise StopIteration
        self.left -= 1
        return self.left

    def close(self) -> None:
        self.closed += 1


def counting(closed: SimpleQueue[threading.Thread]) -> Iterator[int]:
    """Count, until closed."""
    try:
        yield from itertools.count()
    finally:
        closed.put(threading.current_thread())


def counted(pulled: list[int], n: int) -> Iterator[int]:
    """Give range(n), and note what has been pulled."""
    for i in range(n):
        pulled.append(i)
        yield i


def endless(begun: threading.Event) -> Iterator[int]:
    """Say that it has begun, and give nothing until stopped."""
    begun.set()
    current_stop_event().wait()
    yield 0


def threads_of(name: str) -> list[threading.Thread]:
    """Return the workers of the generators of that name."""
    return [thread for thread in threading.enumerate() if thread.name == f"BackgroundGenerator-{name}"]


def end(box: list[BackgroundGenerator[object]], how: str, shared: StopEvent) -> None:
    """End the generator that is alone in the box."""
    if how == "drop":
        box.clear()
    elif how == "close":
        assert box[0].close() is True
    else:
        (box[0].stop_event if how == "own event" else shared).set()


# What a script in a process of its own starts with.
PROLOGUE = f"""
import itertools, os, signal, sys, threading, time
from contextlib import contextmanager
from prefetch_generator import BackgroundGenerator, StopEvent, current_stop_event

{inspect.getsource(_at_a_wait)}
{inspect.getsource(when_asleep)}
inside = threading.Semaphore(0)  # released by a source that is about to be stuck
handled = threading.Event()

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # a line at a time, whichever thread it is

def kill(number):
    # From another thread, and again: a signal that comes just before the system call does not end that call.
    def insist():
        while not handled.wait(0.02):
            signal.pthread_kill(threading.main_thread().ident, number)
    threading.Thread(target=insist, daemon=True).start()

def counting(name="source"):
    try:
        yield from itertools.count()
    finally:
        say(name, "closed")

def waiting(name="source"):
    try:
        yield 0
        current_stop_event().wait()
        yield 1
    finally:
        say(name, "closed")

def closing_slowly(name="source"):
    try:
        yield from itertools.count()
    finally:
        time.sleep(0.2)
        say(name, "closed")

def stuck():
    yield 0
    inside.release()
    threading.Event().wait()

def late():  # nearly all of it when the main thread is through
    yield "first"
    threading.main_thread().join()
    yield from map(str, range(500))

def consume(numbers):
    *items, last = numbers
    say(len(items), last)

"""


def program(script: str, before: str = "") -> str:
    """Return the text of the script after the prologue, and after what is to come before that."""
    return f"from __future__ import annotations\n{before}\n{PROLOGUE}{textwrap.dedent(script)}"


def run_program(script: str, *options: str, returncode: int = 0, before: str = "") -> tuple[list[str], str]:
    """Run the script after the prologue; return the lines it printed and all that went to stderr."""
    out, err = python(*options, "-c", program(script, before), returncode=returncode)
    return out.splitlines(), err


Fail = Callable[[], object]


Make = Callable[[Generator[int, None, None]], Any]


# Of the base class, for an exception may have attributes of these names that raise.
context_of, cause_of, suppressed = (
    vars(BaseException)[name].__get__ for name in ("__context__", "__cause__", "__suppress_context__")
)


def chain(error: BaseException) -> list[BaseException]:
    """Return the error, its context, the context of that, and so on; there is no circle."""
    errors = [error]
    while (context := context_of(errors[-1])) is not None:
        assert not any(context is one for one in errors)
        errors.append(context)
    return errors


alive: weakref.WeakSet[Held] = weakref.WeakSet()


class Held:
    """What a failing frame holds."""

    def __init__(self) -> None:
        alive.add(self)


def is_freed() -> bool:
    """Return whether nothing is held any more: at once, or, without the GIL, when the thread that made it has ended."""
    deadline = time.monotonic() + (0 if GIL else LONG)
    while alive and time.monotonic() < deadline:
        time.sleep(0.001)
    return not alive


def alone() -> None:
    held = Held()
    raise ValueError(held)


def while_handling_another() -> None:
    held = Held()
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        raise ValueError(held)  # noqa: B904 - the point of it


def while_handling_two() -> None:
    try:
        while_handling_another()
    except ValueError:
        raise TypeError  # noqa: B904 - the point of it


def from_another() -> None:
    held = Held()
    try:
        _ = 1 // 0
    except ZeroDivisionError as error:
        raise ValueError(held) from error


def from_none() -> None:
    held = Held()
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        raise ValueError(held) from None


class Plain:
    """What a `BackgroundGenerator` is to whoever uses it, without a thread."""

    def __init__(self, source: Generator[int, None, None]) -> None:
        self.source = source
        self.close = source.close

    def __iter__(self) -> Iterator[int]:
        return self.source

    def __next__(self) -> int:
        return next(self.source)

    def __enter__(self) -> Plain:  # noqa: PYI034 - `Self` is younger than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def failing_clean_up(fail: Fail) -> Generator[int, None, None]:
    try:
        while True:
            yield 0
    finally:
        fail()


def nothing(call: Callable[[], object]) -> None:
    call()


def an_error(call: Callable[[], object]) -> None:
    try:
        raise KeyError
    except KeyError:
        call()


def an_error_with_a_context(call: Callable[[], object]) -> None:
    try:
        raise UnicodeError
    except UnicodeError:
        an_error(call)


def raised_by(handling: Callable[[Callable[[], object]], None], call: Callable[[], object]) -> list[object]:
    """Describe what `call` raises where somebody is `handling` that: each error of the chain, its cause, and `from`."""
    try:
        handling(call)
    except BaseException as raised:
        return [(type(error), type(cause_of(error)), suppressed(error)) for error in chain(raised)]
    raise AssertionError("nothing was raised")


class Touchy:
    """An iterator that says when anybody touches it."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.steps.append("next")
        return len(self.steps)

    def close(self) -> None:
        self.steps.append("close")


class LookedAtError(Exception):
    """Raised by an item."""


class HostileToLooks:
    """An item that nobody may look at."""

    def refuse(self, *_: object) -> bool:
        raise LookedAtError

    __eq__ = __ne__ = __lt__ = __bool__ = refuse
    __hash__ = __len__ = __iter__ = __repr__ = refuse  # type: ignore[assignment]
    __index__ = __call__ = __enter__ = refuse

    def __getattribute__(self, _: str) -> object:
        raise LookedAtError


class Announcing(SimpleQueue[object]):
    """A queue to sleep on, which says that somebody is about to."""

    def __init__(self) -> None:
        self.asleep: SimpleQueue[None] = SimpleQueue()

    def get(self, block: bool = True, timeout: float | None = None) -> object:
        self.asleep.put(None)
        return super().get(block, timeout)
