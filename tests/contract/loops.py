"""The event loops that an asynchronous consumer may run under, as one: asyncio, uvloop, trio, and anyio on both."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec
from queue import SimpleQueue
from typing import Any, TypeVar

import pytest

from prefetch_generator import BackgroundGenerator

T = TypeVar("T")
Main = Callable[[], Coroutine[Any, Any, T]]


class Task:
    """A task that a test has started, and what became of it."""

    def __init__(self) -> None:
        self.cancel: Callable[[], object]
        self.value: Any = None
        self.cancelled = False

    async def follow(self, function: Main[Any]) -> None:
        self.value = await function()


Start = Callable[[Main[Any]], Task]


class Loop:
    """An event loop of asyncio, and how to do what the tests do under it."""

    library = "asyncio"

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, main: Main[T]) -> T:
        """Run `main` on a new loop."""
        # uvloop.run is asyncio.run for the Pythons that have no `loop_factory` too
        run: Callable[[Coroutine[Any, Any, T]], T] = importlib.import_module(self.name).run
        return run(main())

    @property
    def cancelled(self) -> type[BaseException]:
        """What a task that is cancelled sees."""
        return asyncio.CancelledError

    async def turn(self) -> None:
        """Let everything run that is ready to."""
        await asyncio.sleep(0)

    def tasks(self) -> AbstractAsyncContextManager[Start]:
        """Give a function that starts a task; the end of the block waits for all of them."""
        return self._tasks()

    @asynccontextmanager
    async def _tasks(self) -> AsyncIterator[Start]:
        running: list[tuple[Task, asyncio.Task[None]]] = []

        def start(function: Main[Any]) -> Task:
            task = Task()
            running.append((task, asyncio.ensure_future(task.follow(function))))
            task.cancel = running[-1][1].cancel
            return task

        yield start
        for task, future in running:
            await asyncio.wait([future])
            task.cancelled = future.cancelled()
            if not task.cancelled:
                future.result()

    async def within(self, seconds: float, function: Main[T]) -> list[T]:
        """Return what the function returns, in a list; an empty one if it took too long."""
        try:
            return [await asyncio.wait_for(function(), seconds)]
        except asyncio.TimeoutError:
            return []

    async def together(self, *functions: Main[Any]) -> list[Any]:
        """Run them all at once, each in a task of its own; return what they return."""
        async with self.tasks() as start:
            tasks = [start(function) for function in functions]
        return [task.value for task in tasks]

    async def asleep(self, *generators: BackgroundGenerator[Any], tasks: int = 1) -> None:
        """Let tasks run until so many sleep on each generator."""
        for _ in range(1000):
            if all(len(generator._channel.bells) == tasks for generator in generators):
                return
            await self.turn()
        raise AssertionError("the tasks do not fall asleep")

    async def feed(self, numbers: BackgroundGenerator[Any], gate: SimpleQueue[int], n: int) -> None:
        """Let n items through the gate of the source, one by one, each when a task sleeps for it."""
        for number in range(n):
            await self.asleep(numbers)
            delivered = numbers.stats.delivered
            gate.put(number)
            while numbers.stats.delivered == delivered:
                await self.turn()


class LoopWithTimeouts(Loop):
    """asyncio, with the timeouts of 3.11 and later."""

    async def within(self, seconds: float, function: Main[T]) -> list[T]:
        timeout = vars(asyncio)["timeout"]  # which mypy, asked about 3.10, does not know
        try:
            async with timeout(seconds):
                return [await function()]
        except TimeoutError:
            return []


class ScopedLoop(Loop):
    """A loop under trio, or under anyio, which has its interface."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.library, _, self._backend = name.partition("-")

    @property
    def _module(self) -> Any:
        return importlib.import_module(self.library)

    def run(self, main: Main[T]) -> T:
        value: T = self._module.run(main, backend=self._backend) if self._backend else self._module.run(main)
        return value

    @property
    def cancelled(self) -> type[BaseException]:
        kind: type[BaseException] = (
            self._module.Cancelled if not self._backend else self._module.get_cancelled_exc_class()
        )
        return kind

    async def turn(self) -> None:
        await importlib.import_module(f"{self.library}.lowlevel").checkpoint()

    @asynccontextmanager
    async def _tasks(self) -> AsyncIterator[Start]:
        open_group = self._module.create_task_group if self._backend else self._module.open_nursery
        async with open_group() as group:

            def start(function: Main[Any]) -> Task:
                task, scope = Task(), self._module.CancelScope()
                task.cancel = scope.cancel

                async def follow() -> None:
                    with scope:
                        await task.follow(function)
                    task.cancelled = scope.cancelled_caught

                group.start_soon(follow)
                return task

            yield start

    async def within(self, seconds: float, function: Main[T]) -> list[T]:
        got: list[T] = []
        with self._module.move_on_after(seconds):
            got.append(await function())
        return got


def _installed(loop: Loop, *needed: str) -> Any:
    missing = [name for name in needed if find_spec(name) is None]
    return pytest.param(
        loop, id=loop.name, marks=pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)}: not installed")
    )


LOOPS = [
    _installed(Loop("asyncio")),
    _installed(Loop("uvloop"), "uvloop"),
    _installed(ScopedLoop("trio"), "trio"),
    _installed(ScopedLoop("anyio-asyncio"), "anyio"),
    _installed(ScopedLoop("anyio-trio"), "anyio", "trio"),
]
every_loop = pytest.mark.parametrize("loop", LOOPS)
asyncio_loops = pytest.mark.parametrize("loop", LOOPS[:2])
every_timeout = pytest.mark.parametrize(
    "loop",
    [
        *LOOPS,
        pytest.param(
            LoopWithTimeouts("asyncio"),
            id="asyncio.timeout",
            marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout is younger"),
        ),
    ],
)


async def rest(items: AsyncIterator[T]) -> list[T]:
    """Return all that is still to come."""
    return [item async for item in items]
