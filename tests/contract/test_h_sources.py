"""Contract, section H, sentence 1: what an asynchronous source is, and where it runs."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import pytest

from prefetch_generator import BackgroundGenerator, background
from tests.helpers import LONG, ended

from .async_support import (
    Awaiting,
    Closable,
    Pausing,
    Steps,
    asyncio_3_11,
    by_loops,
    by_steps,
    counting,
    with_groups,
)

TakeAll = Callable[[BackgroundGenerator[int]], list[int]]
Take = Callable[[BackgroundGenerator[int]], int]


class BothSides(Steps):
    """An object that can be iterated either way."""

    def __iter__(self) -> Iterator[int]:
        return iter([100, 101])


class Refusing:
    """An asynchronous iterable that cannot be had."""

    def __aiter__(self) -> AsyncIterator[int]:
        raise KeyError("not today")


class Page:
    """What an asynchronous iterable may be: each `aiter()` starts again."""

    def __aiter__(self) -> AsyncIterator[int]:
        return counting(3)


class Watched:
    """An asynchronous context manager that says where its two ends ran."""

    def __init__(self, seen: list[object]) -> None:
        self.seen = seen

    async def look(self) -> None:
        await asyncio.sleep(0)
        self.seen.append((asyncio.current_task(), asyncio.get_running_loop(), threading.current_thread()))

    async def __aenter__(self) -> None:
        await self.look()

    async def __aexit__(self, kind: type[BaseException] | None, _: object, traceback: TracebackType | None) -> None:
        await self.look()


def count_of_pulled(source: Pausing) -> int:
    """Return how many items have been pulled from it, at a moment at which the worker waits for room."""
    return source.while_it_waits_for_room(lambda: source.pulled)


# H1


@by_loops
@pytest.mark.parametrize("max_prefetch", [1, 2, 16, 0])
def test_an_asynchronous_generator_gives_its_items_in_order(max_prefetch: int, take_all: TakeAll) -> None:
    """H1, A1: the source may be an asynchronous iterable, such as an `async def` generator's."""
    assert take_all(BackgroundGenerator(counting(200), max_prefetch)) == list(range(200))
    assert take_all(BackgroundGenerator(Page(), max_prefetch)) == [0, 1, 2]


@by_loops
def test_any_object_is_an_item(take_all: Callable[[BackgroundGenerator[object]], list[object]]) -> None:
    """H1, A1: None, exceptions, what can be awaited or iterated: each is an ordinary item."""
    items: list[object] = [
        None,
        StopAsyncIteration(),
        asyncio.CancelledError,
        counting(1),
        BackgroundGenerator([]),
        Steps(1),
    ]

    async def source() -> AsyncIterator[object]:
        for item in items:
            yield item

    assert take_all(BackgroundGenerator(source())) == items


@by_loops
def test_the_decorator_takes_asynchronous_generator_functions(take_all: TakeAll) -> None:
    """H1, F1, F2: `@background` on one, with arguments, as a method, and on a function that returns an iterable."""

    class Reader:
        @background
        async def pages(self, n: int) -> AsyncIterator[int]:
            """Give n pages."""
            for number in range(n):
                yield number

        @staticmethod
        @background(max_prefetch=1)
        async def two() -> AsyncIterator[int]:
            yield 0
            yield 1

    returns = background(Page)
    pages = Reader().pages(3)
    assert pages.__name__ == "pages"
    assert take_all(pages) == [0, 1, 2]
    assert take_all(Reader.two()) == [0, 1]
    assert take_all(returns()) == [0, 1, 2]
    assert (Reader.pages.__doc__, Reader.pages.__name__) == ("Give n pages.", "pages")


@by_loops
@pytest.mark.parametrize("kind", [Steps, Closable])
def test_an_asynchronous_iterator_need_not_be_a_generator(kind: type[Steps], take_all: TakeAll) -> None:
    """H1, C3: an object with __aiter__ and __anext__ is a source; one that has ended by itself is not closed."""
    source = kind(3)
    numbers = BackgroundGenerator(source)
    assert take_all(numbers) == [2, 1, 0]
    assert numbers.close() is True
    assert not isinstance(source, Closable) or source.closed.empty()


@by_steps
def test_an_iterator_with_aclose_is_closed_early_and_one_without_is_let_go(take: Take) -> None:
    """H1, C3: if the iterator has an `aclose`, it is awaited on the worker's thread when the generator ends early."""
    closable = Closable(10)
    numbers = BackgroundGenerator(closable)
    assert take(numbers) == 9
    assert numbers.close() is True
    assert ended(closable.closed)
    assert closable.closed.empty()
    numbers = BackgroundGenerator(Steps(10))
    assert take(numbers) == 9
    assert numbers.close() is True


@by_loops
def test_an_object_with_both_sides_is_a_synchronous_source(take_all: TakeAll) -> None:
    """H1: an object with both sides is a synchronous source."""
    assert take_all(BackgroundGenerator(BothSides(5))) == [100, 101]


def test_aiter_is_called_by_the_caller() -> None:
    """H1, A4: what `aiter()` raises, the constructor raises; no worker is left behind, and nothing was iterated."""
    threads: list[threading.Thread] = []

    class Here:
        def __aiter__(self) -> AsyncIterator[int]:
            threads.append(threading.current_thread())
            return counting(1)

    class NoIterator:
        def __aiter__(self) -> object:
            return object()

    assert list(BackgroundGenerator(Here())) == [0]
    assert threads == [threading.current_thread()]
    before = threading.active_count()
    with pytest.raises(KeyError, match="not today"):
        BackgroundGenerator(Refusing())
    with pytest.raises(TypeError):
        BackgroundGenerator(NoIterator())  # type: ignore[arg-type]  # the point of it
    assert threading.active_count() == before


def test_a_loop_of_the_callers_is_no_matter() -> None:
    """H1: the loop is the worker's own, whatever runs where the generator is made and consumed."""

    async def here() -> tuple[asyncio.AbstractEventLoop, list[asyncio.AbstractEventLoop]]:
        async def source() -> AsyncIterator[asyncio.AbstractEventLoop]:
            yield asyncio.get_running_loop()
            yield asyncio.get_running_loop()

        return asyncio.get_running_loop(), [loop async for loop in BackgroundGenerator(source())]

    mine, [first, second] = asyncio.run(here())
    assert first is second is not mine
    assert first.is_closed()


@by_steps
@pytest.mark.parametrize("early", [True, False], ids=["closed", "to its end"])
def test_there_is_one_task_and_one_loop_from_the_first_step_to_the_end(early: bool, take: Take) -> None:
    """H1, A5: one thread, one loop, one task, from the source's first step to its `aclose`."""
    seen: list[object] = []

    async def source() -> AsyncIterator[int]:
        watched = Watched(seen)
        async with watched:
            for number in range(3):
                await watched.look()
                yield number

    numbers = BackgroundGenerator(source(), 1)
    assert take(numbers) == 0
    if not early:
        assert [take(numbers), take(numbers)] == [1, 2]
        assert list(numbers) == []
    assert numbers.close() is True
    assert len(seen) >= 3
    assert all(one == another for one, another in pairwise(seen))
    [thread] = {one[2] for one in seen if isinstance(one, tuple)}
    assert thread is not threading.current_thread()


@by_steps
def test_context_variables_last_from_step_to_step(take: Take) -> None:
    """H1, A5: it runs in one copy of the constructor's context: what a step sets, the next sees, and `finally` too."""
    variable = contextvars.ContextVar("variable", default=0)
    at_the_end: list[int] = []

    async def source() -> AsyncIterator[int]:
        try:
            while True:
                variable.set(variable.get() + 1)
                await asyncio.sleep(0)
                yield variable.get()
        finally:
            at_the_end.append(variable.get())

    variable.set(10)
    numbers = BackgroundGenerator(source(), 1)
    variable.set(0)
    assert [take(numbers) for _ in range(3)] == [11, 12, 13]
    assert numbers.close() is True
    assert at_the_end[0] >= 13
    assert variable.get() == 0


@by_steps
def test_the_loop_goes_on_while_the_worker_waits_for_room(take: Take) -> None:
    """H1: while the worker waits for room the loop goes on, and so do the tasks that the source has started."""
    asked: SimpleQueue[asyncio.Future[None]] = SimpleQueue()
    answers: SimpleQueue[int] = SimpleQueue()

    async def keep_alive() -> None:
        for turn in range(4):
            future = asyncio.get_running_loop().create_future()
            asked.put(future)
            await future
            answers.put(turn)

    async def source() -> AsyncIterator[int]:
        task = asyncio.create_task(keep_alive())
        for number in range(4):
            yield number
        await task

    numbers = BackgroundGenerator(source(), 1)
    for turn in range(4):  # the source awaits nothing: its loop can only run while the worker waits for room
        future = asked.get(timeout=LONG)
        future.get_loop().call_soon_threadsafe(future.set_result, None)
        assert answers.get(timeout=LONG) == turn
    assert [take(numbers) for _ in range(4)] == [0, 1, 2, 3]
    assert list(numbers) == []


@by_steps
@pytest.mark.parametrize("max_prefetch", [1, 2, 16])
def test_the_bound_is_exact(max_prefetch: int, take: Take) -> None:
    """H2, A2: pulled from the source - delivered <= max_prefetch, and as much as that."""
    source = Pausing()
    numbers = BackgroundGenerator(source.items(), max_prefetch)
    for number in range(5):
        assert take(numbers) == number
        assert count_of_pulled(source) == number + 1 + max_prefetch
        assert numbers.stats.buffered == max_prefetch
    assert numbers.close() is True


@with_groups
@by_steps
def test_a_task_group_may_stay_open_across_a_yield(take: Take) -> None:
    """H1: a task group may stay open across a `yield`: its tasks feed the source, and are awaited at its end."""

    async def source() -> AsyncIterator[int]:
        queue: asyncio.Queue[int | None] = asyncio.Queue(1)

        async def feed() -> None:
            for number in range(5):
                await queue.put(number)
            await queue.put(None)

        async with asyncio_3_11.TaskGroup() as group:
            group.create_task(feed())
            while (number := await queue.get()) is not None:
                yield number
        yield 100

    numbers = BackgroundGenerator(source(), 1)
    assert [take(numbers) for _ in range(6)] == [0, 1, 2, 3, 4, 100]
    assert list(numbers) == []


class Group:
    """An endless source with a task group open across its `yield`, and a task in it that fails at a word."""

    def __init__(self) -> None:
        self.pausing = Pausing()

    async def items(self) -> AsyncIterator[int]:
        async with asyncio_3_11.TaskGroup() as group:
            self.fail = asyncio.Event()
            group.create_task(self.failing())
            async for number in self.pausing.items():
                yield number

    async def failing(self) -> None:
        await self.fail.wait()
        raise KeyError("in the group")


@with_groups
@by_steps
@pytest.mark.parametrize("max_prefetch", [1, 3])
def test_a_task_that_fails_while_the_consumer_idles_is_told_in_its_place(max_prefetch: int, take: Take) -> None:
    """H1, H2, B1, A2: its ExceptionGroup comes after the items before it; nothing hangs, the bound stays exact."""
    source = Group()
    numbers = BackgroundGenerator(source.items(), max_prefetch)
    assert take(numbers) == 0
    pulled = count_of_pulled(source.pausing)
    source.pausing.while_it_waits_for_room(source.fail.set)
    for _ in range(5):  # turns of the loop, in which the group has cancelled the task that waits for room
        assert count_of_pulled(source.pausing) == pulled == 1 + max_prefetch
    assert [take(numbers) for _ in range(max_prefetch)] == list(range(1, pulled))
    with pytest.raises(Exception, match="unhandled errors in a TaskGroup") as raised:
        take(numbers)
    assert [repr(error) for error in raised.value.exceptions] == ["KeyError('in the group')"]  # type: ignore[attr-defined]
    assert list(numbers) == []


@with_groups
@by_steps
def test_a_group_that_failed_while_the_worker_waited_is_stopped_all_the_same(take: Take) -> None:
    """H1, H2, C4: told to stop in that moment, the source is closed; close() raises what comes out of the group."""
    source = Group()
    numbers = BackgroundGenerator(source.items(), 1)
    assert take(numbers) == 0
    source.pausing.while_it_waits_for_room(source.fail.set)
    count_of_pulled(source.pausing)
    with pytest.raises(BaseException, match="unhandled errors in a TaskGroup"):
        numbers.close(LONG)
    assert numbers.close() is True


@with_groups
@by_steps
@pytest.mark.parametrize("where", ["at a yield", "at an await"])
def test_an_open_task_group_does_not_turn_a_stop_into_a_failure(where: str, take: Take) -> None:
    """H1, H2, C4: closed with a task group open, the source has not failed, though the group takes it so."""
    cancelled: SimpleQueue[int] = SimpleQueue()
    awaiting = Awaiting()

    async def lasting() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.put(1)

    async def source() -> AsyncIterator[int]:
        async with asyncio_3_11.TaskGroup() as outer, asyncio_3_11.TaskGroup() as inner:
            outer.create_task(lasting())
            inner.create_task(lasting())
            await asyncio.sleep(0)
            yield 0
            if where == "at an await":
                await awaiting.for_ever()
            while True:
                yield 1

    with BackgroundGenerator(source(), 1) as numbers:
        assert take(numbers) == 0
        assert where == "at a yield" or awaiting.inside.wait(LONG)
    assert cancelled.qsize() == 2


@with_groups
@by_steps
def test_a_timeout_may_stay_open_across_a_yield(take: Take) -> None:
    """H1, B1: `asyncio.timeout` across a `yield` runs out while the consumer idles: TimeoutError, in its place."""
    pausing = Pausing()
    timeouts: list[Any] = []

    async def source() -> AsyncIterator[int]:
        async with asyncio_3_11.timeout(None) as timeout:
            timeouts.append(timeout)
            async for number in pausing.items():
                yield number

    numbers = BackgroundGenerator(source(), 2)
    assert take(numbers) == 0
    pausing.while_it_waits_for_room(lambda: timeouts[0].reschedule(0.0))
    assert "expir" in pausing.while_it_waits_for_room(lambda: repr(timeouts[0]))
    assert [take(numbers), take(numbers)] == [1, 2]
    with pytest.raises(TimeoutError):
        take(numbers)
    assert list(numbers) == []


@by_steps
@pytest.mark.parametrize("ends", [True, False])
def test_an_iterator_without_a_yield_hears_of_it_at_its_next_await(ends: bool, take: Take) -> None:
    """H1, H2: what cancels the task while it waits for room reaches a source that is no generator in its next step."""
    heard: list[str] = []

    class Source(Steps):
        async def __anext__(self) -> int:
            number = await super().__anext__()
            if number == 2:
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().call_soon(task.cancel)  # when the worker waits for room
            if number == 1:
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    heard.append("cancelled")
                    if ends:
                        raise
            return number

    numbers = BackgroundGenerator(Source(4), 1)
    assert [take(numbers), take(numbers)] == [3, 2]
    if ends:
        with pytest.raises(asyncio.CancelledError):
            take(numbers)
    assert list(numbers) == ([] if ends else [1, 0])
    assert heard == ["cancelled"]


@by_loops
@pytest.mark.parametrize("max_prefetch", [1, 0])
def test_a_loop_without_add_reader_will_do(
    max_prefetch: int, take_all: TakeAll, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """H1: on a loop that has no `add_reader`, as that of Windows, the worker waits for room in another way."""

    def add_reader(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.SelectorEventLoop, "add_reader", add_reader)
    assert take_all(BackgroundGenerator(counting(50), max_prefetch)) == list(range(50))
    pausing = Pausing()
    numbers = BackgroundGenerator(pausing.items(), max_prefetch)
    assert next(numbers) == 0
    assert numbers.close() is True
    assert ended(pausing.closed)
    gc.collect()
    assert not caplog.records  # of a task that has failed, and that nobody asks
    gc.collect()
    assert not caplog.records  # of a task that failed, and that nobody has asked
