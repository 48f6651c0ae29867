"""Sources and items for processes of their own: a new process finds them here, and imports nothing else."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, ParamSpec, TypeVar

from prefetch_generator import BackgroundGenerator, background

P = ParamSpec("P")
T = TypeVar("T")

METHODS: list[Any] = multiprocessing.get_all_start_methods()
AFRESH: list[Any] = [method for method in METHODS if method != "fork"]  # those for which a function is sent
CHEAPEST: Any = next(method for method in ("fork", "forkserver", "spawn") if method in METHODS)
CHEAPEST_AFRESH: Any = next(method for method in ("forkserver", "spawn") if method in METHODS)

variable = contextvars.ContextVar("variable", default="the default")


class Where(NamedTuple):
    """Where a source runs."""

    process: int
    daemonic: bool
    on_main_thread: bool
    method: str
    context: str


def method_here() -> str:
    """Return how this process was started, told by its command line and its parent."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return "none"
    if os.getppid() != parent.pid:
        return "forkserver"
    return "spawn" if "--multiprocessing-fork" in sys.orig_argv else "fork"


def where() -> Iterator[Where]:
    on_main_thread = threading.current_thread() is threading.main_thread()
    daemonic = multiprocessing.current_process().daemon
    yield Where(os.getpid(), daemonic, on_main_thread, method_here(), variable.get())


def count(n: int) -> Iterator[int]:
    yield from range(n)


def given(*items: Any) -> Iterator[Any]:
    yield from items


def listed(n: int) -> list[int]:
    """No generator function: it runs in the process, and what it returns is iterated there."""
    return [os.getpid(), *range(n)]


def nothing_to_iterate() -> Any:
    return 0


def returning(n: int) -> Generator[int, None, dict[str, int]]:
    yield from range(n)
    return {"rows": n}


def reusing(n: int) -> Iterator[list[int]]:
    """Give one and the same list, always changed."""
    row = [0]
    for i in range(n):
        row[0] = i
        yield row
        row[0] = -1


def reporting(reports: Connection, begun: Any, n: int) -> Iterator[tuple[int, int]]:
    """Give each number with how many steps the consumer had begun when it was pulled; say that it is pulled."""
    for i in range(n):
        at_the_pull = begun.value
        reports.send(i)
        yield i, at_the_pull


def waiting_for(go: Connection, items: Iterable[T]) -> Iterator[T]:
    """Give each item when a word comes."""
    for item in items:
        go.recv()
        yield item


def ahead_in_a_thread(n: int) -> Iterator[tuple[int, bool]]:
    """Use a thread in the process."""
    with BackgroundGenerator(where(), name="inner") as inner:
        for place in inner:
            yield place.process, place.on_main_thread
    yield from ((i, False) for i in BackgroundGenerator(range(n)))


@background(process="fork")
def forked(n: int) -> Iterator[int]:
    yield from range(n)


def chained(n: int) -> Iterator[int]:
    """Use another process in the process."""
    yield from (i * i for i in forked(n))


def loud(function: Callable[P, Iterable[str]]) -> Callable[P, Iterable[str]]:
    """Do what a decorator of other people does, with `wraps`."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Iterator[str]:
        for text in function(*args, **kwargs):
            yield text.upper()

    return wrapper


def twice(function: Callable[[str], Iterable[str]]) -> Callable[[str, str], Iterable[str]]:
    """Be a decorator that changes what is taken, and calls it `__wrapped__` all the same."""

    @functools.wraps(function)
    def wrapper(first: str, second: str) -> Iterator[str]:
        yield from function(first)
        yield from function(second)

    return wrapper


class Library:
    """Has every kind of method in a process."""

    suffix = "!"

    def __init__(self, text: str) -> None:
        self.text = text

    @background(process=True)
    def letters(self, size: int = 9) -> Iterator[str]:
        yield from self.text[:size] + self.suffix

    @classmethod
    @background(process=True)
    def of(cls, text: str) -> Iterator[str]:
        yield from text + cls.suffix

    @staticmethod
    @background(process=True)
    def static(text: str) -> Iterator[str]:
        yield from text

    class Inner:
        """A class within one."""

        @staticmethod
        @background(process=True)
        def deep(text: str) -> Iterator[str]:
            yield from text


class LoudLibrary(Library):
    suffix = "!!"


@background(process=True, max_prefetch=3)
def read(path: str, /, size: int = 4, *more: str, upper: bool = False, **options: str) -> Iterator[str]:
    """Read a file."""
    for part in (path[:size], *more, *options.values()):
        yield part.upper() if upper else part


@background(process=True)
@loud
def loud_within(text: str) -> Iterator[str]:
    yield from text


@background(process=True)
@twice
def doubled(text: str) -> Iterator[str]:
    yield from text


@loud
@background(process=True)
def loud_without(text: str) -> Iterator[str]:
    yield from text


@loud
@background(process=True)
@loud
def loud_within_and_without(text: str) -> Iterator[str]:
    yield from text


class Squares:
    """A callable object, and a class that is called."""

    def __init__(self, n: int = 3) -> None:
        self.n = n

    def __call__(self, more: int = 0) -> Iterator[int]:
        yield from (i * i for i in range(self.n + more))

    def __iter__(self) -> Iterator[int]:
        return self()


class Equal:
    """An item that is equal to its copy, and holds others."""

    def __init__(self, *content: Any) -> None:
        self.content = content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal) and self.content == other.content

    __hash__ = None  # type: ignore[assignment]


def in_process(function: Callable[..., Any], *args: Any, method: Any = CHEAPEST, **options: Any) -> Any:
    """Call the function in a process."""
    return background(process=method, **options)(function)(*args)


class SlowToLoad:
    """An item that keeps the worker busy for so many seconds: nobody receives what comes after it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __reduce__(self) -> Any:
        return time.sleep, (self.seconds,)


@contextlib.contextmanager
def pipe() -> Iterator[tuple[Connection, Connection]]:
    """Give both ends of a pipe, to read from and to write to."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader, writer:
        yield reader, writer
