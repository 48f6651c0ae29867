"""What the tests of asynchronous sources stand on."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from collections.abc import AsyncIterator, Callable
from queue import SimpleQueue
from typing import Any, TypeVar

import pytest

from prefetch_generator import BackgroundGenerator, StopEvent
from tests.helpers import LONG

from .support import end

T = TypeVar("T")

with_groups = pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio has task groups and timeouts from 3.11 on")
asyncio_3_11: Any = asyncio  # for the type checkers, which read this as 3.10: TaskGroup, timeout

WAYS = ["close", "aclose", "drop", "own event", "shared event"]


def all_of(numbers: BackgroundGenerator[T]) -> list[T]:
    """Take all the items in a plain loop."""
    return list(numbers)


def all_of_in_a_task(numbers: BackgroundGenerator[T]) -> list[T]:
    """Take all the items in a task of asyncio."""

    async def consume() -> list[T]:
        return [number async for number in numbers]

    return asyncio.run(consume())


def one_of(numbers: BackgroundGenerator[T]) -> T:
    """Take an item."""
    return numbers.next(LONG)


def one_of_in_a_task(numbers: BackgroundGenerator[T]) -> T:
    """Take an item in a task of asyncio."""

    async def consume() -> T:
        return await aiter(numbers).__anext__()

    return asyncio.run(consume())


by_loops = pytest.mark.parametrize("take_all", [all_of, all_of_in_a_task], ids=["for", "async for"])
by_steps = pytest.mark.parametrize("take", [one_of, one_of_in_a_task], ids=["next", "anext"])
every_way = pytest.mark.parametrize("how", WAYS)


def stop(box: list[BackgroundGenerator[Any]], how: str, shared: StopEvent) -> None:
    """End the generator that is alone in the box."""
    if how == "aclose":
        assert asyncio.run(box[0].aclose()) is True
    else:
        end(box, how, shared)


class Awaiting:
    """An asynchronous source that gives 0, and awaits for ever then; it says when it does, and what ended that."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.told: SimpleQueue[type[BaseException]] = SimpleQueue()
        self.closed: SimpleQueue[threading.Thread] = SimpleQueue()

    async def for_ever(self) -> None:
        try:
            self.inside.set()
            await asyncio.get_running_loop().create_future()
        except BaseException as error:
            self.told.put(type(error))
            raise

    async def items(self) -> AsyncIterator[int]:
        try:
            yield 0
            await self.for_ever()
            yield 1
        finally:
            self.closed.put(threading.current_thread())


class Pausing:
    """An endless asynchronous source that never awaits: its loop has a turn only while the worker waits for room."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.pulled = 0
        self.told: SimpleQueue[type[BaseException]] = SimpleQueue()
        self.closed: SimpleQueue[threading.Thread] = SimpleQueue()

    async def items(self) -> AsyncIterator[int]:
        self.loop = asyncio.get_running_loop()
        try:
            for number in itertools.count():
                self.pulled = number + 1
                yield number
        except BaseException as error:
            self.told.put(type(error))
            raise
        finally:
            self.closed.put(threading.current_thread())

    def while_it_waits_for_room(self, action: Callable[[], T]) -> T:
        """Do `action` on its loop, which can only be when the worker waits for room; return what that returns."""
        done: SimpleQueue[T] = SimpleQueue()
        loop = self.loop
        assert loop is not None

        def turn(left: int) -> None:  # a few, for the loop may not have come yet to what was granted before
            if left:
                loop.call_soon(turn, left - 1)
            else:
                done.put(action())

        loop.call_soon_threadsafe(turn, 5)
        return done.get(timeout=LONG)


class Steps:
    """An asynchronous iterator that is no generator, as a client's stream is; without `aclose`."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __aiter__(self) -> Steps:
        return self

    async def __anext__(self) -> int:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return self.left


class Closable(Steps):
    """The same with `aclose`, which awaits."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.closed: SimpleQueue[threading.Thread] = SimpleQueue()

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed.put(threading.current_thread())


async def counting(n: int) -> AsyncIterator[int]:
    for number in range(n):
        await asyncio.sleep(0)
        yield number
