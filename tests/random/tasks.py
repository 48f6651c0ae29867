"""What is asynchronous in the state machine: event loops on threads of their own, tasks that call, a source."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any

import pytest

from prefetch_generator import _async_consumer
from tests.helpers import LONG

Outcome = tuple[str, object]
CANCELLED: Outcome = ("cancelled", None)

_asleep: ContextVar[Callable[[], object]] = ContextVar("_asleep", default=lambda: None)


def says_when_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each task say when it goes to sleep on a bell: from there only a wake-up, or its cancellation, helps it."""
    for kind in (_async_consumer.AsyncioBell, _async_consumer.TrioBell):
        monkeypatch.setattr(kind, "sleep", _saying(kind.sleep))


def _saying(sleep: Callable[[Any, float], Awaitable[None]]) -> Callable[[Any, float], Awaitable[None]]:
    async def saying(self: Any, deadline: float) -> None:
        _asleep.get()()
        await sleep(self, deadline)

    return saying


class Loop:
    """A loop of asyncio that runs on a thread of its own within a `with` block."""

    name = "asyncio"
    cancelled: type[BaseException] = asyncio.CancelledError

    def __repr__(self) -> str:
        return self.name

    def __enter__(self) -> None:
        ready = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(ready,), name=f"loop of {self.name}", daemon=True)
        self.thread.start()
        assert ready.wait(LONG)

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.thread.join(LONG)
        assert not self.thread.is_alive()

    def run(self, ready: threading.Event) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.call_soon(ready.set)
        self.loop.run_forever()
        self.loop.close()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], object]:
        """Run it as a task; return how to cancel that."""
        return asyncio.run_coroutine_threadsafe(function(), self.loop).cancel


class TrioLoop(Loop):
    """The same, of trio."""

    name = "trio"

    def run(self, ready: threading.Event) -> None:
        import trio  # noqa: PLC0415 - where it is installed

        self.cancelled = trio.Cancelled

        async def main() -> None:
            self.token = trio.lowlevel.current_trio_token()
            async with trio.open_nursery() as self.nursery:
                ready.set()
                await trio.sleep_forever()

        trio.run(main)

    def stop(self) -> None:
        self.token.run_sync_soon(self.nursery.cancel_scope.cancel)

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], object]:
        import trio  # noqa: PLC0415 - where it is installed

        scope = trio.CancelScope()

        async def within() -> None:
            with scope:
                await function()

        self.token.run_sync_soon(self.nursery.start_soon, within)
        return lambda: self.token.run_sync_soon(scope.cancel)


LOOPS = [Loop(), *([TrioLoop()] if importlib.util.find_spec("trio") else [])]


class TaskCaller:
    """A task that makes one call, and says when it goes to sleep in it and how it ended."""

    def __init__(
        self, loop: Loop, call: Callable[[], Awaitable[object]], answers: SimpleQueue[tuple[Any, Outcome]]
    ) -> None:
        self.loop, self.answers = loop, answers
        self.call: Callable[[], Awaitable[object]] | None = call
        self.asleep, self.done = threading.Event(), threading.Event()
        self.cancel = loop.spawn(self.run)

    async def run(self) -> None:
        _asleep.set(self.asleep.set)
        try:
            outcome = await self.outcome()
        except self.loop.cancelled:
            outcome = CANCELLED
        self.call = None  # and with it the generator
        self.answers.put((self, outcome))
        self.done.set()

    async def outcome(self) -> Outcome:
        assert self.call is not None
        try:
            return "value", await self.call()
        except StopAsyncIteration:
            return "end", None
        except self.loop.cancelled:
            raise
        except BaseException as error:
            error.__context__ = None  # its frames hold generators that are to be dropped
            return "failure", error.with_traceback(None)

    def is_alive(self) -> bool:
        return not self.done.is_set()

    def join(self, timeout: float) -> None:
        assert self.done.wait(timeout)


class AsyncSource:
    """An asynchronous source: at each step it says which, and then does what it is told, unless it is cancelled."""

    stops_at_once = True

    def __init__(self, way_to_close: str) -> None:
        self.way_to_close = way_to_close
        self.asked: SimpleQueue[int] = SimpleQueue()
        self.closed: SimpleQueue[int] = SimpleQueue()
        self.threads: set[int] = set()

    def tell(self, command: Callable[[], Outcome | None]) -> None:
        with contextlib.suppress(AttributeError, RuntimeError):  # it has not begun, or its loop has been closed
            self.loop.call_soon_threadsafe(self.told.put_nowait, command)

    async def step(self, number: int) -> Outcome:
        if not number:
            self.loop, self.told = asyncio.get_running_loop(), asyncio.Queue[Callable[[], "Outcome | None"]]()
        self.threads.add(threading.get_ident())
        self.asked.put(number)
        while True:
            outcome = (await self.told.get())()
            if outcome is not None:
                return outcome

    async def generator(self) -> AsyncIterator[object]:
        for number in range(sys.maxsize):
            try:
                verb, value = await self.step(number)
            except asyncio.CancelledError:
                if self.way_to_close != "refusing":
                    self.clean_up()
                    raise
                verb, value = "value", "refused, and then closed at this very yield"
            if verb == "end":
                return
            try:
                yield value
            except GeneratorExit:
                self.clean_up()
                if self.way_to_close == "refusing":
                    yield "refused"
                raise

    def clean_up(self) -> None:
        self.closed.put(threading.get_ident())
        if self.way_to_close == "failing":
            raise KeyError("while closing") from None

    def __aiter__(self) -> AsyncIterator[object]:
        return AsyncWithoutClose(self) if self.way_to_close == "without a close()" else self.generator()


class AsyncWithoutClose:
    """The same source, as an iterator that is no generator and has no aclose()."""

    def __init__(self, source: AsyncSource) -> None:
        self.source, self.number = source, -1

    def __aiter__(self) -> AsyncIterator[object]:
        return self

    async def __anext__(self) -> object:
        self.number += 1
        verb, value = await self.source.step(self.number)
        if verb == "end":
            raise StopAsyncIteration
        return value
