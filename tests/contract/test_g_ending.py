"""Contract, section G, sentences 6 and 7: `aclose`, `async with`, dropping, chains and exit."""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any

import pytest

from prefetch_generator import BackgroundGenerator, StopEvent, _async_consumer, current_stop_event
from tests.helpers import LONG, ended
from tests.interrupts.machine import Every

from .loops import LOOPS, Loop, asyncio_loops, every_loop, rest
from .support import (
    Fail,
    Reader,
    Stuck,
    alone,
    chain,
    counting,
    end,
    failing_clean_up,
    from_another,
    from_none,
    is_freed,
    run_program,
    while_handling_another,
)

FAILURES: list[Fail] = [alone, while_handling_another, from_another, from_none]


def described(error: BaseException) -> list[type[BaseException]]:
    return [type(one) for one in chain(error)]


async def leave(numbers: BackgroundGenerator[Any]) -> int:
    """Leave an `async with`; return the line that does."""
    async with numbers:
        line = sys._getframe().f_lineno - 1
    return line  # noqa: RET504 - after the block has been left


async def close(numbers: BackgroundGenerator[Any]) -> int:
    """Await `aclose`; return the line that does."""
    assert await numbers.aclose(0) is False
    return sys._getframe().f_lineno - 1


# G6


@every_loop
def test_aclose_stops_the_worker_and_waits_for_it(loop: Loop) -> None:
    """G6: it closes the source on the worker's thread and returns True once that has ended; and again."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()

    async def main() -> None:
        numbers = BackgroundGenerator(counting(closed))
        assert await anext(aiter(numbers)) == 0
        assert await numbers.aclose() is True
        assert closed.get_nowait() is not threading.main_thread()
        assert not numbers._worker.thread or not numbers._worker.thread.is_alive()
        assert await rest(aiter(numbers)) == []
        assert await numbers.aclose() is True
        assert numbers.close() is True

    loop.run(main)


@every_loop
def test_aclose_waits_until_the_thread_is_gone(loop: Loop) -> None:
    """G6, C1: True means that the worker is gone, however slow it is on its last lines."""

    async def main() -> None:
        with Every("line", lambda _: time.sleep(0.001)).on_new_threads():
            numbers = BackgroundGenerator(itertools.count(), 1)
            assert await anext(aiter(numbers)) == 0  # by then the thread has the trace function
        thread = numbers._worker.thread
        assert await numbers.aclose() is True
        assert thread is not None
        assert not thread.is_alive()

    loop.run(main)


@asyncio_loops
def test_a_wait_that_is_over_leaves_no_timer_in_its_loop(loop: Loop, no_collector: None) -> None:
    """G6: `aclose(timeout=...)`: however long the limit was, nothing is kept until then."""

    async def main() -> None:
        bell = _async_consumer.AsyncioBell(asyncio.get_running_loop())
        bell.ring()
        await bell.sleep(time.monotonic() + LONG)
        rung = weakref.ref(bell._rung)
        del bell
        await loop.turn()  # for this one, the loop still holds what has woken it
        assert rung() is None

    loop.run(main)


@every_loop
def test_the_end_of_async_with_is_aclose(loop: Loop) -> None:
    """G6: the block gets the generator itself, and when it has been left, the source has been closed, once."""
    reader = Reader(10)

    async def main() -> None:
        generator = BackgroundGenerator(reader)
        async with generator as entered:
            assert entered is generator
            assert await anext(aiter(entered)) == 9
        assert reader.closed == 1

    loop.run(main)


@every_loop
def test_aclose_does_not_block_the_loop(loop: Loop, stuck: Stuck) -> None:
    """G6: other tasks run while it waits, with a time limit or without; a waiting `anext` ends at once."""

    async def main() -> None:
        numbers = BackgroundGenerator(stuck.items())
        assert await anext(aiter(numbers)) == 0
        assert stuck.inside.wait(LONG)
        async with loop.tasks() as start:
            waiting = start(partial(rest, aiter(numbers)))
            await loop.asleep(numbers)
            closing = [start(partial(numbers.aclose, timeout)) for timeout in (None, LONG)]
            for _ in range(100):
                await loop.turn()
            assert waiting.value == []
            assert [task.value for task in closing] == [None, None]
            stuck.go.set()
        assert [task.value for task in closing] == [True, True]

    loop.run(main)


@pytest.mark.parametrize("way", ["aclose", "async with"])
@every_loop
def test_aclose_that_is_cancelled_has_stopped_the_source(loop: Loop, way: str, stuck: Stuck) -> None:
    """G6: it stops the source first and waits afterwards: cancelled meanwhile, the source is stopped all the same."""

    async def main() -> None:
        numbers = BackgroundGenerator(stuck.items())
        assert stuck.inside.wait(LONG)
        async with loop.tasks() as start:
            task = start(partial(leave, numbers) if way == "async with" else partial(numbers.aclose, None))
            while not numbers.stop_event.is_set():
                await loop.turn()
            task.cancel()
        assert task.cancelled
        stuck.go.set()
        assert ended(stuck.closed)
        assert await numbers.aclose() is True

    loop.run(main)


@every_loop
def test_a_cancelled_scope_still_stops_the_source(loop: Loop, stuck: Stuck) -> None:
    """G6: `aclose` in a task that has been cancelled already, as at the end of `async with`, stops the source."""

    async def main() -> None:
        numbers = BackgroundGenerator(stuck.items())
        assert await anext(aiter(numbers)) == 0
        assert stuck.inside.wait(LONG)

        async def consume() -> None:
            async with numbers:
                await anext(aiter(numbers))

        async with loop.tasks() as start:
            task = start(consume)
            await loop.asleep(numbers)
            task.cancel()
            for _ in range(3):
                await loop.turn()
            assert numbers.stop_event.is_set()
            stuck.go.set()
        assert task.cancelled
        assert ended(stuck.closed)

    loop.run(main)


@pytest.mark.parametrize("way", [close, leave])
@every_loop
def test_a_source_that_does_not_stop_is_warned_of(
    loop: Loop, way: Callable[[BackgroundGenerator[Any]], Any], stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G6, C2: False, and a RuntimeWarning that names the generator, the place of the source, and the caller's line."""
    monkeypatch.setattr(BackgroundGenerator.aclose, "__defaults__", (0,))

    async def main() -> None:
        numbers = BackgroundGenerator(stuck.items(), name="ticks")
        assert stuck.inside.wait(LONG)
        with pytest.warns(RuntimeWarning, match="did not stop within 0 seconds") as caught:
            line = await way(numbers)
        [warning] = caught
        assert "BackgroundGenerator 'ticks'" in str(warning.message)
        assert stuck.place in str(warning.message)
        assert (warning.filename, warning.lineno) == (__file__, line)
        assert stuck.closed.empty()
        stuck.go.set()
        assert ended(stuck.closed)
        assert await numbers.aclose(0) is True

    loop.run(main)


@every_loop
def test_aclose_waits_for_its_timeout(loop: Loop, stuck: Stuck) -> None:
    """G6, C2: it waits as long as it was told to, and not longer."""

    async def main() -> None:
        numbers = BackgroundGenerator(stuck.items())
        assert stuck.inside.wait(LONG)
        turns = 0

        async def closing() -> bool:
            with pytest.warns(RuntimeWarning, match=r"did not stop within 0\.05 seconds"):
                return await numbers.aclose(0.05)

        async with loop.tasks() as start:
            task = start(closing)
            while task.value is None:
                await loop.turn()
                turns += 1
        assert task.value is False
        assert turns > 5
        stuck.go.set()
        assert await numbers.aclose(None) is True

    loop.run(main)


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1", True])
@every_loop
def test_a_wrong_timeout_is_refused_before_anything_is_stopped(loop: Loop, timeout: Any) -> None:
    """G6: as `close` has it: TypeError or ValueError, and the generator goes on."""

    async def main() -> None:
        async with BackgroundGenerator(range(3)) as numbers:
            with pytest.raises((TypeError, ValueError), match="timeout must be"):
                await numbers.aclose(timeout)
            assert await rest(aiter(numbers)) == [0, 1, 2]

    loop.run(main)


@pytest.mark.parametrize("body", [None, IndexError, StopAsyncIteration])
@pytest.mark.parametrize("fail", FAILURES)
@every_loop
def test_async_with_raises_what_closing_raises(
    loop: Loop, fail: Fail, body: type[Exception] | None, no_collector: None
) -> None:
    """G6, C4: once, with its own chain, and the body's exception at the end of that, as a plain `with` has it."""

    async def raising(numbers: BackgroundGenerator[int]) -> None:
        async with numbers:
            assert await anext(aiter(numbers)) == 0
            if body is not None:
                raise body

    async def main() -> list[type[BaseException]]:
        numbers, found = BackgroundGenerator(failing_clean_up(fail)), list[type[BaseException]]()
        try:
            await raising(numbers)
        except ValueError as error:
            found = described(error)
        assert is_freed()
        assert await numbers.aclose() is True  # raised once
        return found

    def plain() -> list[type[BaseException]]:
        try:
            with BackgroundGenerator(failing_clean_up(fail)) as numbers:
                assert next(numbers) == 0
                if body is not None:
                    raise body
        except ValueError as error:
            return described(error)
        raise AssertionError("nothing was raised")

    found = loop.run(main)
    assert found == plain()
    assert found[-1] is (body or GeneratorExit)
    assert found[0] is ValueError


@asyncio_loops
def test_aclose_in_the_source_itself_returns_false(loop: Loop) -> None:
    """G6, C1: from the source itself, where it cannot wait, it stops the generator and returns False."""
    box: list[BackgroundGenerator[int]] = []
    made, said = threading.Event(), SimpleQueue[bool]()

    def source() -> Iterator[int]:
        assert made.wait(LONG)
        said.put(loop.run(box[0].aclose))
        yield 0

    box.append(BackgroundGenerator(source()))
    made.set()
    assert said.get(timeout=LONG) is False
    assert list(box[0]) == []


def test_aclose_without_a_loop_stops_the_source_and_says_so() -> None:
    """G6: where no loop runs it cannot wait, which is a RuntimeError; but the source is stopped."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    numbers = BackgroundGenerator(counting(closed))
    assert next(numbers) == 0
    with pytest.raises(RuntimeError, match="needs a running event loop"):
        numbers.aclose().send(None)
    assert ended(closed)


# G7


@pytest.mark.parametrize("how", ["break", "raise", "cancel"])
@every_loop
def test_leaving_the_loop_stops_the_worker(loop: Loop, how: str, no_collector: None) -> None:
    """G7: `break`, and whatever else leaves the loop, is dropping: the source is closed, and nothing waits for it."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()

    begun = threading.Event()

    async def consume() -> None:
        async for number in BackgroundGenerator(counting(closed)):
            begun.set()
            if how == "break" and number == 3:
                break
            if how == "raise":
                raise KeyError
            await loop.turn()

    async def quiet() -> None:
        with suppress(KeyError):
            await consume()

    async def main() -> None:
        async with loop.tasks() as start:
            task = start(quiet)
            while not begun.is_set():
                await loop.turn()
            if how == "cancel":
                task.cancel()
        assert task.cancelled is (how == "cancel")
        assert ended(closed)

    loop.run(main)


@every_loop
def test_there_is_no_asynchronous_finalizer(loop: Loop, no_collector: None) -> None:
    """G7: the hooks that a loop sets for asynchronous generators are not called; `aclosing` is not needed."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    hooked: list[object] = []

    async def main() -> None:
        before = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=hooked.append, finalizer=hooked.append)
        try:
            async for _ in BackgroundGenerator(counting(closed)):
                break
            assert ended(closed)
        finally:
            sys.set_asyncgen_hooks(*before)

    loop.run(main)
    assert hooked == []


@asyncio_loops
def test_a_task_that_is_destroyed_while_it_sleeps(loop: Loop, stuck: Stuck) -> None:
    """G7, C6: its loop is closed; once an item has come in vain it can be collected, and the generator ends with it."""
    rung = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield 0
            stuck.stick()
            yield 1
            rung.set()
            yield from itertools.count()
        finally:
            stuck.closed.put(threading.current_thread())

    numbers: BackgroundGenerator[int] | None = BackgroundGenerator(source())
    assert numbers is not None
    assert next(numbers) == 0
    channel = numbers._channel

    async def main() -> None:
        nonlocal numbers
        assert numbers is not None
        consumer: Any = asyncio.get_running_loop().create_task(rest(aiter(numbers)))
        await loop.asleep(numbers)
        numbers = None
        consumer._log_destroy_pending = False  # asyncio's own way to be quiet about it

    private = asyncio.new_event_loop() if loop.name == "asyncio" else pytest.importorskip("uvloop").new_event_loop()
    private.run_until_complete(main())
    private.close()
    del private
    stuck.go.set()
    assert rung.wait(LONG)
    gc.collect()
    assert ended(stuck.closed)
    assert not channel.bells
    assert channel.state == "closed"


def test_a_chain_through_an_asynchronous_consumer_stops_as_one(stuck: Stuck) -> None:
    """G7, C8: a synchronous source that runs a loop and waits there for a generator sees GeneratorExit at that wait."""
    log: list[str] = []
    inner: list[BackgroundGenerator[int]] = []
    done = threading.Event()

    async def consume() -> None:
        inner.append(BackgroundGenerator(stuck.items()))
        items = aiter(inner[0])
        assert await anext(items) == 0
        try:
            await anext(items)
            log.append("mistook the stop for the end")
        except GeneratorExit:
            log.append("GeneratorExit")
            raise
        finally:
            log.append("finally")

    def outer() -> Iterator[int]:
        yield 0
        try:
            asyncio.run(consume())
        finally:
            done.set()
        yield 1

    numbers = BackgroundGenerator(outer())
    assert next(numbers) == 0
    assert stuck.inside.wait(LONG)
    while not inner or not inner[0]._channel.bells:
        assert not done.wait(0.001)
    assert numbers.close() is True
    assert log == ["GeneratorExit", "finally"]
    inner.clear()
    stuck.go.set()
    assert ended(stuck.closed)


@pytest.mark.parametrize("how", ["close", "drop"])
@pytest.mark.parametrize("loop", LOOPS[2:])
def test_a_stop_that_comes_through_a_group_of_tasks_is_no_failure(
    loop: Loop, how: str, stuck: Stuck, hooked: SimpleQueue[threading.ExceptHookArgs]
) -> None:
    """G7, C8: GeneratorExit at a wait in a task group leaves it in an exception group, and is a stop all the same."""
    inner = BackgroundGenerator(stuck.items())

    async def consume() -> None:
        async with loop.tasks() as start:
            start(partial(rest, aiter(inner)))

    def outer() -> Iterator[int]:
        yield 0
        loop.run(consume)
        yield 1

    box: list[BackgroundGenerator[Any]] = [BackgroundGenerator(outer())]
    assert next(box[0]) == 0
    worker = box[0]._worker
    assert stuck.inside.wait(LONG)
    while not inner._channel.bells:
        assert not worker.ended.wait(0.001)
    end(box, how, StopEvent())
    assert worker.ended.wait(LONG)
    assert hooked.empty()
    stuck.go.set()
    assert inner.close() is True


@pytest.mark.parametrize("how", ["own event", "close"])
def test_an_inner_generator_that_ends_by_the_same_stop_is_no_end_of_data(how: str) -> None:
    """G7, C8: the stop of a shared event ends both; the source sees GeneratorExit and not the end of the inner one."""
    log: list[str] = []
    asleep = threading.Event()

    async def consume(inner: BackgroundGenerator[int]) -> None:
        async for _ in inner:
            asleep.set()
        log.append("mistook the stop for the end")

    def outer() -> Iterator[int]:
        yield 0
        closed: SimpleQueue[threading.Thread] = SimpleQueue()
        inner = BackgroundGenerator(counting(closed), stop_event=numbers.stop_event)
        try:
            asyncio.run(consume(inner))
        except GeneratorExit:
            log.append("GeneratorExit")
            raise

    numbers = BackgroundGenerator(outer())
    assert next(numbers) == 0
    assert asleep.wait(LONG)
    if how == "own event":
        numbers.stop_event.set()
    assert numbers.close() is True
    assert log == ["GeneratorExit"]


def test_a_source_that_is_to_stop_takes_no_end_for_the_end_of_the_data() -> None:
    """G7, C8: an inner generator that had ended by itself is seen as over only by a source that is not to stop."""
    log: list[str] = []
    done = threading.Event()

    async def consume(inner: BackgroundGenerator[int]) -> None:
        current_stop_event().set()
        try:
            await anext(aiter(inner))
            log.append("an item")
        except BaseException as error:
            log.append(type(error).__name__)
            raise

    def outer() -> Iterator[int]:
        inner = BackgroundGenerator(range(0))
        assert inner._worker.ended.wait(LONG)
        try:
            asyncio.run(consume(inner))
        finally:
            done.set()
        yield 0

    numbers = BackgroundGenerator(outer())
    assert done.wait(LONG)
    assert numbers.close() is True
    assert log == ["GeneratorExit"]


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_exit_with_a_generator_that_a_task_sleeps_for(library: str) -> None:
    """G7, C7: at exit a worker whose consumer was a task that slept in `anext` is stopped, and its source closed."""
    pytest.importorskip(library)
    run = "trio.run(main)" if library == "trio" else "loop.run_until_complete(main())"
    script = f"""
        import asyncio, {library}
        loop = asyncio.new_event_loop()
        kept = []

        def waiting():
            try:
                yield 0
                current_stop_event().wait()
                yield 1
            finally:
                say("closed")

        async def consume():
            async for number in kept[0]:
                pass

        async def main():
            kept.append(BackgroundGenerator(waiting()))
            await anext(aiter(kept[0]))  # the source has begun: one that has not is not closed with a word
            if {library == "trio"}:
                with trio.move_on_after(0.05):
                    await consume()
            else:
                kept.append(loop.create_task(consume()))
                kept[1]._log_destroy_pending = False
                while not kept[0]._channel.bells:
                    await asyncio.sleep(0)

        {run}
        loop.close()
        say("through")
    """
    assert run_program(script) == (["through", "closed"], "")
