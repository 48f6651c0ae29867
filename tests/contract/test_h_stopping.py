"""Contract, section H, sentences 2 and 3: how an asynchronous source is stopped and closed."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from prefetch_generator import BackgroundGenerator, StopEvent, current_stop_event
from tests.helpers import LONG, ended, in_thread

from .async_support import Awaiting, Pausing, Steps, asyncio_3_11, by_steps, counting, every_way, stop, with_groups

Take = Callable[[BackgroundGenerator[int]], int]


def frame_line(offset: int) -> str:
    """Return the place of the line so many lines below the caller's."""
    frame = sys._getframe(1)
    return f"{frame.f_code.co_filename}, line {frame.f_lineno + offset}"


class CleaningUp(Awaiting):
    """The same, with a clean-up that awaits a word, twice, as a session that is closed does."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: SimpleQueue[asyncio.Event] = SimpleQueue()
        self.place = ""
        self.done = False

    async def items(self) -> AsyncIterator[int]:
        try:
            async for number in super().items():
                yield number
        finally:
            for _ in range(2):
                go = asyncio.Event()
                self.loop = asyncio.get_running_loop()
                self.place = frame_line(2)
                self.begun.put(go)
                await go.wait()
            self.done = True

    def go_on(self) -> None:
        go = self.begun.get(timeout=LONG)
        self.loop.call_soon_threadsafe(go.set)


class Awaited(Steps):
    """An iterator that is no generator, in a step that never ends, and that says what ended it."""

    def __init__(self, awaiting: Awaiting, where: list[str]) -> None:
        super().__init__(2)
        self.awaiting = awaiting
        self.where = where

    async def __anext__(self) -> int:
        if self.left == 1:
            try:
                await self.awaiting.for_ever()
            finally:
                self.where.append(frame_line(1))
                await CLEAN_UP.wait()
        return await super().__anext__()


class Word:
    """A word that one thread says and a task awaits, on whichever loop."""

    def __init__(self) -> None:
        self.asked: SimpleQueue[asyncio.Future[None]] = SimpleQueue()

    async def wait(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self.asked.put(future)
        await future

    def say(self) -> None:
        future = self.asked.get(timeout=LONG)
        future.get_loop().call_soon_threadsafe(future.set_result, None)


CLEAN_UP = Word()

# H2


@every_way
@by_steps
def test_a_stop_cancels_the_step_in_progress(how: str, take: Take, no_collector: None) -> None:
    """H2, C1, C6, D2: however it is ended, CancelledError comes at the source's `await`, and `finally` runs there."""
    source, shared = Awaiting(), StopEvent()
    box = [BackgroundGenerator(source.items(), stop_event=shared)]
    assert take(box[0]) == 0
    assert source.inside.wait(LONG)
    stop(box, how, shared)
    assert ended(source.closed)
    assert source.told.get(timeout=LONG) is asyncio.CancelledError
    assert source.told.empty()
    if box:
        assert list(box[0]) == []
        assert box[0].close() is True


@every_way
@by_steps
def test_between_two_steps_a_stop_is_generator_exit(how: str, take: Take, no_collector: None) -> None:
    """H2, C3: between two steps nothing is cancelled: the source is closed, which is GeneratorExit at its `yield`."""
    source, shared = Pausing(), StopEvent()
    box = [BackgroundGenerator(source.items(), 2, stop_event=shared)]
    assert take(box[0]) == 0
    source.while_it_waits_for_room(lambda: None)
    stop(box, how, shared)
    assert ended(source.closed)
    assert source.told.get(timeout=LONG) is GeneratorExit
    if box:
        assert list(box[0]) == []
        assert box[0].close() is True


def test_a_source_whose_step_is_cancelled_is_closed_on_its_own_loop() -> None:
    """H2: an iterator with `aclose`, such as a client's stream, is closed where it was opened."""
    loops: list[asyncio.AbstractEventLoop] = []
    begun = threading.Event()

    class Stream(Steps):
        async def __anext__(self) -> int:
            loops.append(asyncio.get_running_loop())
            begun.set()
            return await loops[0].create_future()  # type: ignore[no-any-return]

        async def aclose(self) -> None:
            loops.append(asyncio.get_running_loop())

    numbers = BackgroundGenerator(Stream(1))
    assert begun.wait(LONG)
    assert numbers.close() is True
    opened, closed = loops
    assert opened is closed


@with_groups
def test_between_two_steps_a_stop_counts_as_no_cancellation() -> None:
    """H2: so whatever the clean-up opens, a task group or a timeout, counts from zero."""
    counts: list[int] = []

    class Counting(Pausing):
        async def items(self) -> AsyncIterator[int]:
            try:
                async for number in super().items():
                    yield number
            finally:
                counts.append(asyncio_3_11.current_task().cancelling())

    source = Counting()
    numbers = BackgroundGenerator(source.items(), 2)
    assert next(numbers) == 0
    source.while_it_waits_for_room(lambda: None)
    assert numbers.close() is True
    assert counts == [0]


@with_groups
def test_an_iterator_that_is_cancelled_between_two_steps_counts_it_once() -> None:
    """H2: the cancellation comes at the first `await` of its next step, as one that came there would."""
    counts: list[int] = []

    class Counting(Pausing):
        task: Any
        begun = threading.Event()

        def __aiter__(self) -> Counting:
            return self

        async def __anext__(self) -> int:
            self.loop, self.task = asyncio.get_running_loop(), asyncio_3_11.current_task()
            self.begun.set()
            self.pulled += 1
            if self.pulled == 2:
                try:
                    await asyncio.sleep(LONG)
                except asyncio.CancelledError:
                    counts.append(self.task.cancelling())
            return self.pulled

    source = Counting()
    numbers = BackgroundGenerator(source, 1)
    assert source.begun.wait(LONG)
    source.while_it_waits_for_room(source.task.cancel)
    assert [next(numbers), next(numbers)] == [1, 2]
    assert numbers.close() is True
    assert counts == [1]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["for", "async for"])
def test_break_stops_it_at_once(asynchronous: bool, no_collector: None) -> None:
    """H2, C6, G7: `break` does, without `with`, `aclosing` or a collection."""
    source = Awaiting()

    async def consume() -> None:
        async for _ in BackgroundGenerator(source.items()):
            break

    if asynchronous:
        asyncio.run(consume())
    else:
        for _ in BackgroundGenerator(source.items()):
            break
    assert ended(source.closed)


@pytest.mark.parametrize("at", ["a step", "a wait for room", "no wait"])
def test_a_source_is_stopped_though_the_finalizer_was_struck(at: str, struck_finalizer: None) -> None:
    """H2, C6: in a step, between two, or without a bound, it hears that its generator is gone."""
    awaiting, pausing = Awaiting(), Pausing()
    source = awaiting if at == "a step" else pausing
    numbers = BackgroundGenerator(source.items(), 0 if at == "no wait" else 1)
    assert next(numbers) == 0
    if at == "a step":
        assert awaiting.inside.wait(LONG)
    elif at == "a wait for room":
        pausing.while_it_waits_for_room(lambda: None)
    event = numbers.stop_event
    del numbers
    assert ended(source.closed)
    assert event.is_set()


@pytest.mark.parametrize("in_a_cycle", [False, True])
def test_dropping_never_waits(in_a_cycle: bool, no_collector: None) -> None:
    """H2, C6: not even for a clean-up that awaits."""
    source = CleaningUp()
    numbers = BackgroundGenerator(source.items())
    assert next(numbers) == 0
    assert source.inside.wait(LONG)
    worker = numbers._worker
    cycle: list[object] = [numbers]
    if in_a_cycle:
        cycle.append(cycle)
    del numbers, cycle
    gc.collect()
    assert not worker.ended.is_set()
    source.go_on()
    source.go_on()
    assert worker.ended.wait(LONG)
    assert source.done


def test_a_shared_event_ends_all_at_once() -> None:
    """H2, D2: sources of both kinds, with one stop event, hear of it together."""
    shared = StopEvent()
    sources = [Awaiting() for _ in range(5)]
    generators = [BackgroundGenerator(source.items(), stop_event=shared) for source in sources]
    assert [next(numbers) for numbers in generators] == [0] * 5
    assert all(source.inside.wait(LONG) for source in sources)
    shared.set()
    assert all(ended(source.closed) for source in sources)
    assert [list(numbers) for numbers in generators] == [[]] * 5


def test_a_stop_before_the_first_step_closes_a_source_that_has_not_begun() -> None:
    """H2, D2: given a stop event that is set, it is never stepped; a source with an `aclose` is closed."""
    shared = StopEvent()
    shared.set()
    begun: list[int] = []

    async def source() -> AsyncIterator[int]:
        begun.append(0)
        yield 0

    numbers = BackgroundGenerator(source(), stop_event=shared)
    assert list(numbers) == []
    assert numbers.close() is True
    assert begun == []


def test_clean_up_before_the_first_step_is_not_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """H2: a stop that comes while a source that has not begun is closed, is no news to its loop."""
    shared = StopEvent()
    shared.set()
    closed: list[bool] = []

    class Closing(Steps):
        async def aclose(self) -> None:
            for _ in range(5):
                shared.set()  # which rings whoever listens, and is heard of in the next turn
                await asyncio.sleep(0)
            closed.append(True)

    numbers = BackgroundGenerator(Closing(1), stop_event=shared)
    assert numbers.close() is True
    assert closed == [True]
    assert not caplog.records  # a loop that meets an error logs it


def test_a_stop_wakes_whoever_waits_for_an_item() -> None:
    """H2, C1: a waiting next() ends at once with StopIteration, before the clean-up is through."""
    source = CleaningUp()
    numbers = BackgroundGenerator(source.items())
    assert next(numbers) == 0
    waiting = in_thread(lambda: list(numbers))
    assert source.inside.wait(LONG)
    numbers.stop_event.set()
    assert waiting.get(timeout=LONG) == []
    assert not source.done
    source.go_on()
    source.go_on()
    assert numbers.close(LONG) is True


def test_the_source_may_close_its_own_generator() -> None:
    """H2, C1: from the source itself, or a task of it, close() and aclose() cannot wait, and return False."""
    given: SimpleQueue[BackgroundGenerator[int]] = SimpleQueue()
    answers: SimpleQueue[object] = SimpleQueue()

    async def source() -> AsyncIterator[int]:
        numbers = given.get(timeout=LONG)

        async def closes() -> None:
            answers.put(numbers.close())

        await asyncio.gather(closes())
        answers.put(await numbers.aclose())
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            answers.put("cancelled")
            raise
        yield 0

    numbers = BackgroundGenerator(source())
    given.put(numbers)
    assert list(numbers) == []
    assert numbers.close(LONG) is True
    said = [answers.get(timeout=LONG)]
    while not answers.empty():
        said.append(answers.get())
    assert said[0] is False
    assert set(said[1:]) <= {False, "cancelled"}


def test_the_stop_event_is_the_sources_own() -> None:
    """H2, D3, D4: `current_stop_event()` is its worker's in the source and in its tasks; `on_set` hears of a stop."""
    called = threading.Event()
    awaiting = Awaiting()

    async def look() -> StopEvent:
        return current_stop_event()

    async def source() -> AsyncIterator[StopEvent]:
        yield current_stop_event()
        yield await asyncio.create_task(look())
        with current_stop_event().on_set(called.set):
            try:
                await awaiting.for_ever()
            finally:  # within the block: whoever sets the event may not have come to the callback yet
                assert called.wait(LONG)

    events = BackgroundGenerator(source())
    assert next(events) is next(events) is events.stop_event
    assert awaiting.inside.wait(LONG)
    assert events.close(LONG) is True
    assert called.is_set()


def test_clean_up_that_awaits_is_cancelled_once() -> None:
    """H2: `close()` and `set()` called again, from anywhere, do not cancel a clean-up that has begun."""
    source = CleaningUp()
    numbers = BackgroundGenerator(source.items())
    assert next(numbers) == 0
    assert source.inside.wait(LONG)
    numbers.stop_event.set()
    for _ in range(2):
        go = source.begun.get(timeout=LONG)
        for _ in range(3):
            numbers.stop_event.set()
            with pytest.warns(RuntimeWarning, match="did not stop"):
                assert numbers.close(0) is False
            with pytest.warns(RuntimeWarning, match="did not stop"):
                assert asyncio.run(numbers.aclose(0)) is False
        source.loop.call_soon_threadsafe(go.set)
    assert numbers.close(LONG) is True
    assert source.done


def test_clean_up_at_a_yield_is_not_cancelled_either() -> None:
    """H2: nor one that began between two steps, with `aclose`."""
    word, done = Word(), []

    async def source() -> AsyncIterator[int]:
        try:
            while True:
                yield 0
        finally:
            await word.wait()
            done.append(True)

    numbers = BackgroundGenerator(source(), 1)
    assert next(numbers) == 0
    numbers.stop_event.set()
    future = word.asked.get(timeout=LONG)
    for _ in range(3):
        numbers.stop_event.set()
        with pytest.warns(RuntimeWarning, match="did not stop"):
            assert numbers.close(0) is False
    future.get_loop().call_soon_threadsafe(future.set_result, None)
    assert numbers.close(LONG) is True
    assert done == [True]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["close", "aclose"])
def test_clean_up_that_hangs_is_named(asynchronous: bool) -> None:
    """H2, C2: close(timeout) returns False, and warns with the file and the line of the `await`."""
    source = CleaningUp()
    numbers = BackgroundGenerator(source.items(), name="hangs")
    assert next(numbers) == 0
    assert source.inside.wait(LONG)
    numbers.stop_event.set()
    go = source.begun.get(timeout=LONG)
    with pytest.warns(RuntimeWarning, match=r"'hangs' did not stop within 0\.01 seconds") as warned:
        assert (asyncio.run(numbers.aclose(0.01)) if asynchronous else numbers.close(0.01)) is False
    assert str(warned[0].message).endswith(f"still at {source.place}")
    assert warned[0].filename == (__file__ if not asynchronous else warned[0].filename)
    source.loop.call_soon_threadsafe(go.set)
    source.go_on()
    assert numbers.close(LONG) is True


def test_an_iterator_that_hangs_is_named_too() -> None:
    """H2, C2: the line of its own `await`, though it is no generator, and no frame of it is on the worker's stack."""
    awaiting, where = Awaiting(), list[str]()
    numbers = BackgroundGenerator(Awaited(awaiting, where))
    assert next(numbers) == 1
    assert awaiting.inside.wait(LONG)
    numbers.stop_event.set()
    future = CLEAN_UP.asked.get(timeout=LONG)
    with pytest.warns(RuntimeWarning) as warned:
        assert numbers.close(0) is False
    assert str(warned[0].message).endswith(f"still at {where[0]}")
    future.get_loop().call_soon_threadsafe(future.set_result, None)
    assert numbers.close(LONG) is True


@pytest.mark.parametrize("generator", [True, False], ids=["generator", "iterator"])
def test_a_source_that_blocks_its_loop_is_named(generator: bool) -> None:
    """H2, C2: a step that does not await cannot be cancelled; the warning names the line that it blocks in."""
    inside, go, where = threading.Event(), threading.Event(), list[str]()

    def block() -> None:
        frame = sys._getframe(1)
        where.append(f"{frame.f_code.co_filename}, line {frame.f_lineno}")
        inside.set()
        assert go.wait(LONG)

    async def blocks() -> AsyncIterator[int]:
        block()
        yield 0

    class Blocks(Steps):
        async def __anext__(self) -> int:
            block()
            return 0

    numbers = BackgroundGenerator(blocks() if generator else Blocks(1))
    assert inside.wait(LONG)
    with pytest.warns(RuntimeWarning) as warned:
        assert numbers.close(0) is False
    go.set()
    assert str(warned[0].message).endswith(f"still at {where[0]}")
    assert numbers.close(LONG) is True


@pytest.mark.parametrize("at", ["a yield", "an await"])
@pytest.mark.parametrize("way", ["close", "with", "aclose", "async with"])
def test_what_clean_up_raises_is_raised_once(way: str, at: str) -> None:
    """H2, C4, G6: what the clean-up raises is raised once, by close() or aclose(), from `with` and `async with` too."""
    awaiting = Awaiting()
    failure = KeyError("while closing")

    async def source() -> AsyncIterator[int]:
        try:
            yield 0
            if at == "an await":
                await awaiting.for_ever()
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            raise failure

    numbers = BackgroundGenerator(source(), 1)
    assert next(numbers) == 0
    assert at == "a yield" or awaiting.inside.wait(LONG)

    async def within() -> None:
        async with numbers:
            raise IndexError("the body's own")

    def end() -> None:
        if way == "close":
            numbers.close()
        elif way == "aclose":
            asyncio.run(numbers.aclose())
        elif way == "with":
            with numbers:
                raise IndexError("the body's own")
        else:
            asyncio.run(within())

    with pytest.raises(KeyError) as raised:
        end()
    assert raised.value is failure
    errors = [failure.__context__, failure.__context__ and failure.__context__.__context__]
    told = GeneratorExit if at == "a yield" else asyncio.CancelledError
    assert [type(error) for error in errors] == [told, IndexError if "with" in way else type(None)]
    assert numbers.close() is True


def test_where_nobody_closes_it_goes_to_the_hook(hooked: SimpleQueue[threading.ExceptHookArgs]) -> None:
    """H2, C4: where nobody calls close(), it goes to threading.excepthook, once, with the worker's thread."""
    for at in "a yield", "an await":
        source = Awaiting()

        async def failing(source: Awaiting = source, at: str = at) -> AsyncIterator[int]:
            try:
                yield 0
                if at == "an await":
                    await source.for_ever()
                while True:
                    yield 1
            finally:
                raise KeyError(at)

        numbers = BackgroundGenerator(failing(), 1, name="hooked")
        assert next(numbers) == 0
        assert at == "a yield" or source.inside.wait(LONG)
        del numbers
        call = hooked.get(timeout=LONG)
        assert repr(call.exc_value) == repr(KeyError(at))
        assert call.thread is not None
        call.thread.join(LONG)
        assert (call.thread.name, call.thread.is_alive()) == ("BackgroundGenerator-hooked", False)
    assert hooked.empty()


def test_a_source_may_end_because_of_the_cancellation() -> None:
    """H2, C8: one that takes the cancellation for its end has been stopped, and has not come to the end of its data."""
    awaiting = Awaiting()

    async def source() -> AsyncIterator[int]:
        yield 0
        try:
            await awaiting.for_ever()
        except asyncio.CancelledError:
            return

    numbers = BackgroundGenerator(source())
    assert next(numbers) == 0
    assert awaiting.inside.wait(LONG)
    assert numbers.close() is True
    assert "closed" in repr(numbers)


@pytest.mark.parametrize("stray", ["waits", "refuses once"])
def test_a_stray_task_is_cancelled_at_the_end(stray: str) -> None:
    """H2, B1: a task of the source that never ends is cancelled when the source has ended, and awaited."""
    said: list[str] = []

    async def never_ends() -> None:
        for turn in range(2 if stray == "refuses once" else 1):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                said.append(f"cancelled {turn}")
                if stray == "refuses once":
                    await asyncio.sleep(0)
                    said.append("cleaned up")
                    return
                raise

    async def source() -> AsyncIterator[int]:
        kept = asyncio.create_task(never_ends())
        yield 0
        await asyncio.sleep(0)
        yield 1
        assert not kept.done()

    numbers = BackgroundGenerator(source())
    assert list(numbers) == [0, 1]
    assert said == (["cancelled 0"] if stray == "waits" else ["cancelled 0", "cleaned up"])
    assert numbers.close() is True


def test_another_generator_that_the_source_left_is_closed_with_the_loop() -> None:
    """H2: an asynchronous generator that the source has left in the middle is closed before the worker ends."""
    closed: list[asyncio.AbstractEventLoop] = []
    kept: list[AsyncIterator[int]] = []

    async def inner() -> AsyncIterator[int]:
        try:
            yield 0
            yield 1
        finally:
            closed.append(asyncio.get_running_loop())

    async def source() -> AsyncIterator[asyncio.AbstractEventLoop]:
        kept.append(inner())
        await anext(kept[0])
        yield asyncio.get_running_loop()

    [loop] = BackgroundGenerator(source())
    assert closed == [loop]


@with_groups
def test_a_timeout_of_the_sources_own_is_not_taken_for_a_stop() -> None:
    """H2: what the source cancels in itself, with a timeout around an `await`, is its own affair."""
    awaiting = Awaiting()

    async def source() -> AsyncIterator[str]:
        for _ in range(2):
            try:
                async with asyncio_3_11.timeout(0):
                    await awaiting.for_ever()
            except TimeoutError:
                yield "timed out"

    assert list(BackgroundGenerator(source())) == ["timed out"] * 2


def test_nothing_is_leaked() -> None:
    """H2, C6: 500 starts and ends leave no descriptor, no thread, and no loop."""
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("needs /proc")

    def cycle(n: int) -> None:
        for number in range(n):
            source = Awaiting()
            numbers = BackgroundGenerator(source.items())
            assert next(numbers) == 0
            if number % 3 == 0:
                assert numbers.close() is True
            else:
                del numbers
            assert ended(source.closed)
            assert list(BackgroundGenerator(counting(3), 1)) == [0, 1, 2]

    cycle(20)
    gc.collect()
    before = len([*descriptors.iterdir()]), threading.active_count()
    objects = sum(isinstance(one, asyncio.AbstractEventLoop) for one in gc.get_objects())
    cycle(250)
    gc.collect()
    assert (len([*descriptors.iterdir()]), threading.active_count()) == before
    assert sum(isinstance(one, asyncio.AbstractEventLoop) for one in gc.get_objects()) <= objects


# H3


@pytest.mark.parametrize("catch", [asyncio.CancelledError, BaseException])
def test_a_source_that_swallows_the_cancellation_is_stopped_at_its_next_yield(catch: type[BaseException]) -> None:
    """H3: it is stopped at its next `yield`, by GeneratorExit; what it yields there is not delivered."""
    awaiting = Awaiting()
    seen: list[str] = []

    async def source() -> AsyncIterator[int]:
        try:
            yield 0
            try:
                await awaiting.for_ever()
            except catch:
                seen.append("swallowed")
            await asyncio.sleep(0)
            seen.append("yields")
            yield 1
            seen.append("went on")
        except GeneratorExit:
            seen.append("closed")
            raise

    numbers = BackgroundGenerator(source())
    assert next(numbers) == 0
    assert awaiting.inside.wait(LONG)
    assert numbers.close(LONG) is True
    assert seen == ["swallowed", "yields", "closed"]
    assert list(numbers) == []


def test_an_iterator_that_swallows_the_cancellation_is_closed() -> None:
    """H3: the same for one that is no generator: its step may end, and `aclose` follows."""
    seen: list[str] = []
    awaiting = Awaiting()

    class Source(Steps):
        async def __anext__(self) -> int:
            if self.left == 1:
                try:
                    await awaiting.for_ever()
                except asyncio.CancelledError:
                    seen.append("swallowed")
            return await super().__anext__()

        async def aclose(self) -> None:
            seen.append("closed")

    numbers = BackgroundGenerator(Source(2))
    assert next(numbers) == 1
    assert awaiting.inside.wait(LONG)
    assert numbers.close(LONG) is True
    assert seen == ["swallowed", "closed"]
