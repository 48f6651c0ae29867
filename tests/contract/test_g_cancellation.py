"""Contract, section G, sentence 3: whatever is cancelled, timed out or struck in `anext` loses nothing."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any

import pytest

from prefetch_generator import BackgroundGenerator, _async_consumer
from prefetch_generator._channel import Channel
from tests.helpers import LONG, posix
from tests.interrupts.machine import At, Strike, one_after_the_other

from .loops import Loop, asyncio_loops, every_loop, every_timeout, rest
from .support import run_program


class Gated:
    """A source that takes each step as it is told: give a number, or raise, or end."""

    def __init__(self) -> None:
        self.orders: SimpleQueue[int | BaseException] = SimpleQueue()
        self.done = threading.Semaphore(0)
        self.begun = False
        self.numbers = BackgroundGenerator(iter(self), 8)

    def __iter__(self) -> Iterator[int]:
        while True:
            order = self.orders.get(timeout=LONG)
            if isinstance(order, StopIteration):
                return
            if isinstance(order, BaseException):
                raise order
            yield order
            self.done.release()  # in the next step: it is in the buffer, and whoever slept has been rung

    def order(self, order: int | BaseException) -> None:
        """Have the worker do that; wait until it is done and all have been rung. The loop does not run meanwhile."""
        self.orders.put(order)
        if isinstance(order, int):
            assert self.done.acquire(timeout=LONG)
        else:
            assert self.numbers._worker.ended.wait(LONG)


async def taken(items: AsyncIterator[int], got: list[int]) -> None:
    """Take one, and keep it in the same step."""
    got.append(await anext(items))


# G3


@every_loop
def test_a_task_that_is_cancelled_after_any_turn_loses_nothing(loop: Loop) -> None:
    """G3: cancelled after each turn of the loop, the item coming before, in or after that turn, or not at all."""

    async def scenario(turns: int, given: int) -> None:
        source, got = Gated(), list[int]()
        items = aiter(source.numbers)
        for number in range(3):
            async with loop.tasks() as start:
                task = start(partial(taken, items, got))
                for turn in range(turns):
                    if turn == given:
                        source.order(number)
                    await loop.turn()
                task.cancel()
                if given >= turns:
                    source.order(number)
            got += [] if number in got else [await anext(items)]
        source.order(StopIteration())
        assert got == [0, 1, 2]
        assert await rest(items) == []

    async def main() -> None:
        for turns, given in itertools.product(range(6), range(7)):
            await scenario(turns, given)

    loop.run(main)


ORDERS = [0, ValueError("the failure"), StopIteration()]


@pytest.mark.parametrize("first", ["ring", "ring and a turn", "cancel"])
@pytest.mark.parametrize("order", ORDERS, ids=["item", "failure", "end"])
@every_loop
def test_a_task_that_is_cancelled_and_rung_in_the_same_turn_loses_nothing(
    loop: Loop, order: int | BaseException, first: str
) -> None:
    """G3: it sleeps; it is rung and cancelled, in either order, before it runs; an item, a failure or an end comes."""

    async def outcome(source: Gated) -> list[object]:
        try:
            return [await anext(aiter(source.numbers))]
        except (ValueError, StopAsyncIteration) as error:
            return [type(error)]

    async def main() -> None:
        source = Gated()
        async with loop.tasks() as start:
            task = start(partial(outcome, source))
            await loop.asleep(source.numbers)
            if first == "cancel":
                task.cancel()
            source.order(order)
            if first == "ring and a turn":
                await loop.turn()
            task.cancel()
        assert task.cancelled or first == "ring and a turn"  # that one may have run already, or still run
        if order == 0:
            source.order(StopIteration())
        got = [] if task.cancelled else task.value
        while StopAsyncIteration not in got:
            got += await outcome(source)
        before_the_end: list[object] = [[0], [ValueError], []][ORDERS.index(order)]  # type: ignore[assignment]
        assert got == [*before_the_end, StopAsyncIteration]

    loop.run(main)


@every_timeout
def test_ten_thousand_timeouts_lose_nothing(loop: Loop) -> None:
    """G3: `anext` that is called again after a timeout, ten thousand times while items come and go, gets every item."""
    timeouts, got = 0, list[int]()

    def source() -> Iterator[int]:
        for number in itertools.count():
            if timeouts >= 10_000:
                return
            if number % 3 == 0:
                time.sleep(0.0005)  # about as long as a timeout takes: that is the point of it
            yield number

    async def main() -> None:
        nonlocal timeouts
        if loop.library != "trio" and not loop.name.endswith("trio"):
            asyncio.get_running_loop().set_debug(False)  # which walks the stack for each future
        items = aiter(BackgroundGenerator(source(), 4))
        pauses = itertools.cycle([1e-9] * 19 + [0.0005])  # most end in the next turn of the loop

        async def take() -> bool:
            got.append(await anext(items))
            return True

        with suppress(StopAsyncIteration):
            while True:
                if not await loop.within(next(pauses) if timeouts < 10_000 else LONG, take):
                    timeouts += 1

    loop.run(main)
    assert timeouts >= 10_000
    assert got == [*range(len(got))]


@every_loop
def test_there_is_no_await_between_taking_and_returning(loop: Loop) -> None:
    """G3: a task that is cancelled while items are ready is cancelled before it takes, or not at all."""

    async def main() -> None:
        numbers = BackgroundGenerator(range(10_000), 0)
        got: list[int] = []
        for turns in range(40):
            items = aiter(numbers)

            async def take(items: AsyncIterator[int] = items) -> None:
                while True:
                    await taken(items, got)
                    if len(got) % 3 == 0:
                        await loop.turn()

            async with loop.tasks() as start:
                task = start(take)
                for _ in range(turns):
                    await loop.turn()
                task.cancel()
            assert numbers.stats.delivered == len(got)
        assert [*got, *numbers] == [*range(10_000)]

    loop.run(main)


@every_loop
def test_a_timeout_shorter_than_a_turn_gets_an_item_at_last(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """G3: "call it again": cancelled in the turn that it gives to others, `anext` need not give it again at once."""
    monkeypatch.setattr(_async_consumer, "monotonic", lambda: 1.0)

    async def main() -> None:
        async with BackgroundGenerator(range(3), 0) as numbers:
            assert numbers._worker.ended.wait(LONG)  # they are all there
            items, got = aiter(numbers), list[int]()
            for _ in range(20):
                async with loop.tasks() as start:
                    task = start(partial(taken, items, got))
                    await loop.turn()
                    task.cancel()
                if got:
                    break
            assert got == [0]

    loop.run(main)


@every_loop
def test_a_wait_for_the_workers_end_may_be_cancelled(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """G3: cancelled between the last item and the end, while the worker is about to end: the failure is not lost."""
    finishing, go = threading.Event(), threading.Event()
    finish = Channel.finish

    def slow(channel: Channel[Any], outcome: BaseException | None) -> None:
        finish(channel, outcome)
        finishing.set()
        assert go.wait(LONG)

    def source() -> Iterator[int]:
        yield 0
        raise KeyError("the failure")

    monkeypatch.setattr(Channel, "finish", slow)

    async def main() -> None:
        items = aiter(BackgroundGenerator(source()))
        assert finishing.wait(LONG)
        assert await anext(items) == 0
        async with loop.tasks() as start:
            task = start(partial(anext, items))
            for _ in range(5):
                await loop.turn()
            task.cancel()
        assert task.cancelled
        go.set()
        with pytest.raises(KeyError, match="the failure"):
            await anext(items)
        assert await rest(items) == []

    loop.run(main)


def codes_of_anext() -> frozenset[Any]:
    functions: list[Any] = [
        _async_consumer.AsyncConsumer.__anext__,
        *(getattr(_async_consumer, name) for name in ("_raise_end", "_wait", "wait_for_end")),
        _async_consumer.make_bell,
        _async_consumer.AsyncioBell.__init__,
        _async_consumer.AsyncioBell.sleep,
    ]
    return frozenset(function.__code__ for function in functions)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # struck between the two
@pytest.mark.parametrize("gated", [False, True], ids=["ready", "waited for"])
def test_a_strike_anywhere_in_anext_loses_nothing(gated: bool) -> None:
    """G3, B4: a signal handler raises wherever CPython runs one, and `anext` is called again: all come, in order."""

    def scenario(n: int) -> At:
        at = At("poll", n)
        got: list[int] = []

        async def main() -> None:
            source = Gated()
            for number in range(2):
                source.order(number)
            items = aiter(source.numbers)
            if gated:
                asyncio.get_running_loop().call_later(0, source.order, StopIteration())
            else:
                source.order(StopIteration())
            at.codes = codes_of_anext()  # not where the loop calls: what it does with an exception is its own affair
            with at:
                while True:
                    try:
                        async for number in items:
                            got.append(number)  # noqa: PERF401 - which would keep it where a strike loses it
                        break
                    except Strike:
                        pass

        asyncio.run(main())
        assert got == [0, 1]
        return at

    one_after_the_other(scenario, 10)


@posix
@pytest.mark.parametrize("always_ready", [True, False], ids=["ready", "waited for"])
@asyncio_loops
def test_ctrl_c_under_asyncio_run_loses_nothing_and_ends_it(loop: Loop, always_ready: bool) -> None:
    """G3, B4: SIGINT ends each of 30 runs, wherever it strikes; the next run goes on with the next item; it ends."""
    if loop.name == "asyncio" and sys.version_info < (3, 11):
        pytest.skip("struck in its loop, asyncio 3.10 loses the task whose turn it was, and waits for it for ever")
    script = f"""
        import {loop.name} as library, asyncio

        def numbers():
            for number in itertools.count():
                if stop.is_set():
                    return
                if {not always_ready} and number % 10 == 0:
                    time.sleep(0.0005)
                yield number

        async def main():
            begun.set()
            async for number in items:
                got.append(number)

        def insist():
            for n in range(30):
                begun.wait()
                begun.clear()
                time.sleep(0.001 * n / 10)
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        got, stop, begun, ends = [], threading.Event(), threading.Event(), []
        items = BackgroundGenerator(numbers(), 16)
        killer = threading.Thread(target=insist)
        killer.start()
        for _ in range(30):
            try:
                library.run(main())
            except KeyboardInterrupt:
                ends.append("interrupted")
        stop.set()
        got += items
        assert got == [*range(len(got))], "lost"
        say(len(ends), threading.active_count())
        killer.join()
    """
    lines, err = run_program(script)
    assert lines in (["30 1"], ["30 2"])  # the thread that sends the signals may still be about to end
    assert err == ""


@posix
def test_ctrl_c_while_a_task_sleeps_ends_the_process() -> None:
    """G3: SIGINT under `asyncio.run` cancels the main task where it sleeps in `anext`, and the source is closed."""
    script = """
        import asyncio

        async def main():
            async for number in BackgroundGenerator(waiting()):
                kill(signal.SIGINT)

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            handled.set()
            say("interrupted")
    """
    lines, err = run_program(script)
    assert sorted(lines) == ["interrupted", "source closed"]
    assert err == ""
