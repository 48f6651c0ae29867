"""Sources that fail or die in a process of their own, and what they fail with."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from .process_calls import SlowToLoad


class CodedError(Exception):
    """An exception with arguments and attributes."""

    code: int


class OddError(BaseException):
    """No Exception."""


class OneWayError(Exception):
    """Made with other arguments than those it keeps, so that it can be pickled, and not unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class LocalError(Exception):
    """Holds what cannot be pickled."""

    def __init__(self) -> None:
        super().__init__(lambda: None)

    def __str__(self) -> str:
        return "a lambda"


class Refusing:
    """Raises what it holds when it is pickled, or else when it is unpickled."""

    def __init__(self, failure: BaseException, *, at_once: bool) -> None:
        self.failure, self.at_once = failure, at_once

    def __reduce__(self) -> Any:
        if self.at_once:
            raise self.failure
        return fail, (type(self.failure), self.failure.args)


class RefusingError(Refusing, Exception):
    """An exception that does so."""

    def __str__(self) -> str:
        return "refusing"


class SilentError(Exception):
    """An exception that cannot be printed."""

    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


class HostileError(Exception):
    """An exception that has attributes of its own where every exception has them, and these refuse everything."""

    def _refuse(self, *_: object) -> Any:
        raise AssertionError("an exception was looked into")

    __context__ = __cause__ = __traceback__ = property(_refuse, _refuse)


class StateError(Exception):
    """An exception that can be made there, and not be given its state."""

    def __reduce__(self) -> Any:
        return StateError, (), {"a": 1}

    def __setstate__(self, state: object) -> None:
        raise LookupError(state)


class MaskedError(Exception):
    """An exception that arrives as another one, which would mean something else."""

    def __init__(self, mask: type[BaseException]) -> None:
        super().__init__(mask)
        self.mask = mask

    def __reduce__(self) -> Any:
        return self.mask, ()


def fail(kind: type[BaseException], args: tuple[Any, ...]) -> NoReturn:
    raise kind(*args)


def coded() -> BaseException:
    error = CodedError("a", 1)
    error.code = 5
    return error


def from_another() -> BaseException:
    try:
        raise LookupError("the first")
    except LookupError as first:
        error = ValueError("the second")
        error.__cause__ = first
        return error


def failing(make: Callable[..., BaseException], *args: Any) -> Iterator[int]:
    yield 0
    yield 1
    raise make(*args)


def noting(closed: Connection, *items: Any) -> Iterator[Any]:
    """Give the items, and then numbers without end; say what ended that."""
    try:
        yield from items
        yield from range(10**9)
    except BaseException as error:
        closed.send(type(error).__name__)
        raise


class Numbers:
    """An iterator that is no generator."""

    def __init__(self, closed: Connection, *items: Any) -> None:
        self.closed = closed
        self.items = iter([*items, *range(100)])

    def __iter__(self) -> Numbers:
        return self

    def __next__(self) -> Any:
        return next(self.items)

    def close(self) -> None:
        self.closed.send("close")


class Alarmed(Numbers):
    """Gives an item that is so large that a signal comes while it is on its way."""

    def __init__(self, closed: Connection, kind: type[BaseException], size: int) -> None:
        super().__init__(closed, SlowToLoad(0.5), "x" * size)
        self.kind = kind

    def __iter__(self) -> Alarmed:
        signal.signal(signal.SIGALRM, self.handle)
        return self

    def __next__(self) -> Any:
        item = super().__next__()
        if isinstance(item, str):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
        return item

    def handle(self, *_: object) -> None:
        raise self.kind("late")


def refusing_to_return(failure: BaseException, at_once: bool) -> Iterator[int]:
    yield 0
    return Refusing(failure, at_once=at_once)  # type: ignore[return-value]


def stopping_before_it_begins() -> Iterator[int]:
    raise StopIteration("no end of the data")


class StoppingIterable:
    """Has no iterator to give."""

    def __iter__(self) -> Iterator[int]:
        raise StopIteration("no end of the data")


def leave(status: int) -> NoReturn:
    os._exit(status)


def be_killed(number: int) -> None:
    faulthandler.disable()
    os.kill(os.getpid(), number)
    time.sleep(60)


def crash() -> None:
    faulthandler.disable()
    ctypes.string_at(0)


def dying(n: int, die: Callable[..., object], *args: Any) -> Iterator[int]:
    """Give n numbers, and die."""
    yield from range(n)
    die(*args)


def exiting(status: object) -> Iterator[int]:
    yield 0
    sys.exit(status)  # type: ignore[arg-type]


def on_command(commands: Connection, items: list[Any]) -> Iterator[Any]:
    """Give the process id, the items, and nothing more; say when the consumer has them all or will soon have."""
    yield os.getpid()
    yield from items
    commands.send(None)
    time.sleep(60)


def leaving_a_child(n: int) -> Iterator[int]:
    """Give the process id of a child of its own, which lives on, and be killed."""
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    yield child
    yield from range(n)
    be_killed(signal.SIGKILL)


def endless_blocks(size: int) -> Iterator[bytes]:
    for i in range(10**9):
        yield i.to_bytes(8, "little") * (size // 8)
