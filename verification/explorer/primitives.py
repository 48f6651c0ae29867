"""What the code under exploration stands on, modelled: queues, sets, `map`, and the points where threads switch.

A thread is a generator. It yields a *point* before each of its operations on shared state: on what, whether the
operation reads or writes it or both, a label, and, if the thread cannot go on at once, a condition that says when it
can. Whoever resumes the thread lets exactly that operation happen.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from operator import attrgetter, length_hint
from queue import Empty
from types import GeneratorType
from typing import Any, Protocol

DONE = object()  # what `advance` returns instead of raising


class Wait(Protocol):
    """What a blocked thread waits for."""

    def ready(self) -> bool: ...


Point = tuple[str, str, str, Wait | None]  # a tuple and no class: the instrumented code has it as a constant
Steps = Generator[Point, None, Any]


class Current:
    """The thread that runs now; and the shared objects, by names that are alike in every schedule."""

    thread: int
    made: Counter[int]  # by each thread
    values: dict[str, Callable[[], object]]  # what there is to know of an object; of others, only who wrote to them

    local: object  # all that the thread knows, if it has just said so
    workers: dict[int, Any]  # what `source_context` knows of each
    tasks: dict[int, Any]  # by thread: which of them are tasks

    @classmethod
    def restart(cls) -> None:
        cls.thread, cls.made, cls.values, cls.local = -1, Counter(), {}, None
        cls.workers, cls.tasks = {}, {}

    @classmethod
    def knows_only(cls, turns: int, *local: object) -> None:
        """Say that how the thread came here does not matter any more; `turns` counts how often it has said so."""
        cls.local = (turns, *local)
        cls.made[cls.thread] = 100 * turns  # the names of what it makes from here on do not depend on the past either

    @classmethod
    def get_ident(cls) -> int:
        return cls.thread + 1

    @classmethod
    def source_context(cls, ident: int) -> Any:
        return cls.workers.get(ident)

    @classmethod
    def add(cls, kind: str, value: Callable[[], object]) -> str:
        cls.made[cls.thread] += 1
        name = f"{kind} {cls.thread}.{cls.made[cls.thread]}"
        cls.values[name] = value
        return name


class End(Exception):  # noqa: N818 - it stands for StopIteration
    """StopIteration, which a generator cannot raise (PEP 479)."""

    def __init__(self, value: object = None) -> None:
        super().__init__(value)
        self.value = value


class Until:
    """A condition."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self.ready = ready


class Queue:
    """A `SimpleQueue`."""

    def __init__(self) -> None:
        self.content: deque[Any] = deque()
        self.name = Current.add("queue", lambda: tuple(self.content))
        self.taken = 0
        self.looks: dict[int, tuple[int, int]] = {}  # by thread: how many there were, and how many had been before

    def ready(self) -> bool:
        return bool(self.content)

    def put(self, item: object) -> Steps:
        yield self.name, "write", "put", None
        self.content.append(item)

    def get(self, block: bool = True) -> Steps:
        yield self.name, "both", "get", self if block else None
        if not self.content:
            raise Empty
        self.taken += 1
        return self.content.popleft()

    def qsize(self) -> Steps:
        yield self.name, "read", "qsize", None
        self.looks[Current.thread] = len(self.content), self.taken
        return len(self.content)


class Bell(Queue):
    """A `_bell.Bell`, which remembers that it was rung."""

    alone = True

    def ring(self) -> Steps:
        yield from self.put(None)

    def sleep(self, deadline: float) -> Steps:
        """Sleep: with a deadline, that may end at any moment."""
        yield self.name, "both", "sleep", self if deadline == math.inf else None
        if self.content:
            self.content.popleft()
            return True
        return False


class Set(set[Any]):
    """The set of bells: its methods are switch points. Its truth value is one where it is looked at."""

    def add(self, element: object) -> Steps:  # type: ignore[override]
        yield "bells", "write", "add", None
        super().add(element)

    def discard(self, element: object) -> Steps:  # type: ignore[override]
        yield "bells", "write", "discard", None
        super().discard(element)

    def copy(self) -> Steps:  # type: ignore[override]
        yield "bells", "read", "copy", None
        return sorted(self, key=attrgetter("name"))  # in the same order in every run


class Stepping(Iterator[Any]):
    """An iterator whose `next` is no single operation: it has switch points, and may block."""

    def step(self) -> Steps:
        raise NotImplementedError

    def __next__(self) -> Any:
        raise TypeError("not instrumented: only `step` can be run here")


class Map(Stepping):
    """A `map` object. That its arguments run out is shared state too, if they can (`repeat(None, 1)`)."""

    def __init__(self, function: Callable[..., Any], *arguments: Iterable[Any]) -> None:
        self.function = function
        self.arguments = [iter(argument) for argument in arguments]
        endless = all(length_hint(argument, -1) < 0 for argument in self.arguments)
        self.of_queue = isinstance(getattr(function, "__self__", None), Queue)
        self.name = (
            "" if endless and self.of_queue else Current.add("map", lambda: sum(map(length_hint, self.arguments)))
        )

    def step(self) -> Steps:
        if self.name:  # else the queue's method is all there is to see
            yield self.name if self.of_queue else "item", "both", "next(map)", None
        arguments = []
        for argument in self.arguments:
            arguments.append((yield from next_(argument)))  # noqa: PERF401 - a comprehension cannot yield
        return (yield from call(self.function, *arguments))


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Steps:
    """Call `function`, and step through it if it has been instrumented."""
    result = function(*args, **kwargs)
    if type(result) is GeneratorType:
        return (yield from result)
    return result


def next_(iterator: Any, *default: Any) -> Steps:
    """`next` itself."""
    try:
        if isinstance(iterator, Stepping):
            return (yield from iterator.step())
        try:
            return next(iterator)
        except StopIteration as stop:
            raise End(stop.value) from None
    except End:
        if not default:
            raise
        return default[0]


def advance(iterator: Any) -> Steps:
    """One step of a `for` loop; DONE at the end."""
    try:
        return (yield from next_(iterator))
    except End:
        return DONE
