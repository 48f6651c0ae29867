"""Contract, section H with B: what an asynchronous source raises, and what strikes from outside."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
import threading
import traceback
import weakref
from collections.abc import AsyncIterator, Callable
from queue import SimpleQueue
from types import FrameType
from typing import Any

import pytest

from prefetch_generator import BackgroundGenerator, NotReadyError, _async_source
from tests.helpers import GIL, LONG, PACKAGE, ended
from tests.interrupts.machine import At, Strike, join_workers, one_after_the_other

from .async_support import Awaiting, Closable, Pausing, Steps, by_loops, by_steps, counting
from .support import Fail, alive, alone, from_another, from_none, is_freed, while_handling_another, while_handling_two

Take = Callable[[BackgroundGenerator[int]], int]


class OddError(BaseException):
    """No Exception, and no exception that Python knows."""


async def failing(failure: BaseException, n: int = 2) -> AsyncIterator[int]:
    for number in range(n):
        await asyncio.sleep(0)
        yield number
    raise failure


async def failing_by(fail: Fail) -> AsyncIterator[int]:
    yield 0
    await asyncio.sleep(0)
    fail()


async def failing_clean_up(fail: Fail) -> AsyncIterator[int]:
    try:
        while True:
            yield 0
    finally:
        await asyncio.sleep(0)
        fail()


class Held:
    """Something that can be weakly referenced."""


async def raising(failure: type[BaseException]) -> None:
    raise failure("of a task")


class Direct:
    """An iterator whose `__anext__` is no coroutine function, and raises before there is anything to await."""

    def __init__(self, failure: BaseException) -> None:
        self.failure = failure

    def __aiter__(self) -> Direct:
        return self

    def __anext__(self) -> Any:
        raise self.failure


# H2 with B


@by_steps
@pytest.mark.parametrize("max_prefetch", [1, 2, 16, 0])
@pytest.mark.parametrize(
    "failure",
    [KeyError("x"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), OddError(), TimeoutError()],
    ids=lambda failure: type(failure).__name__,
)
def test_any_exception_reaches_the_consumer_in_its_place(failure: BaseException, max_prefetch: int, take: Take) -> None:
    """H2, B1: whatever the source raises comes after the items before it: the same object, once."""
    numbers = BackgroundGenerator(failing(failure), max_prefetch)
    assert [take(numbers), take(numbers)] == [0, 1]
    with pytest.raises(type(failure)) as raised:
        take(numbers)
    assert raised.value is failure
    assert list(numbers) == []
    assert numbers.close() is True


class Inside(Steps):
    """An iterator whose step raises StopIteration."""

    async def __anext__(self) -> int:
        raise StopIteration("inside")


@pytest.mark.parametrize(
    "make",
    [
        lambda: failing(StopIteration("inside"), 0),
        lambda: failing(StopAsyncIteration("inside"), 0),
        lambda: Inside(1),
        lambda: Direct(StopIteration("inside")),
    ],
    ids=["StopIteration", "StopAsyncIteration", "in an iterator", "in an iterator, directly"],
)
@by_steps
def test_what_would_look_like_the_end_is_a_runtime_error(make: Callable[[], Any], take: Take) -> None:
    """H2, G5: StopIteration or StopAsyncIteration raised where it is not the end, as PEP 525 has it."""
    numbers = BackgroundGenerator(make(), 1)
    with pytest.raises(RuntimeError, match=r"Stop(Async)?Iteration") as raised:
        take(numbers)
    assert isinstance(raised.value.__cause__, StopIteration | StopAsyncIteration)
    assert list(numbers) == []


def test_an_iterator_ends_by_stop_async_iteration() -> None:
    """H1, H2: raised by `__anext__` it is the end, also if that is no coroutine function."""
    assert list(BackgroundGenerator(Direct(StopAsyncIteration()))) == []


@by_steps
def test_not_ready_error_is_not_forwarded_as_it_is(take: Take) -> None:
    """H2, E3: that of a generator inside is a RuntimeError, for whoever calls again would get the end."""
    numbers = BackgroundGenerator(failing(NotReadyError("inside"), 0))
    with pytest.raises(RuntimeError, match="the source raised NotReadyError"):
        take(numbers)
    assert list(numbers) == []


@by_steps
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("awaited", [True, False])
@pytest.mark.parametrize("fallback", [False, True], ids=["", "without add_reader"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_ends_the_loop_from_one_of_its_tasks_is_raised(
    kind: type[BaseException], awaited: bool, fallback: bool, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H2, B1: KeyboardInterrupt and SystemExit of a child task, which asyncio lets through its loop, come once.

    They come after the items before them, whether the source was in a step or waited for room; the source is closed.
    """
    closed: SimpleQueue[threading.Thread] = SimpleQueue()

    def add_reader(*_: object) -> None:
        raise NotImplementedError

    if fallback:
        monkeypatch.setattr(asyncio.SelectorEventLoop, "add_reader", add_reader)

    async def source() -> AsyncIterator[int]:
        try:
            yield 0
            task = asyncio.create_task(raising(kind))
            task.add_done_callback(asyncio.Task.exception)  # else asyncio logs, perhaps when the thread has gone
            yield 1
            if awaited:
                await task
            yield 2
            await asyncio.get_running_loop().create_future()
        finally:
            closed.put(threading.current_thread())

    numbers = BackgroundGenerator(source(), 1)
    got: list[int] = []
    with pytest.raises(kind):  # noqa: PT012 - the items before it
        while True:
            got.append(take(numbers))
    assert got == list(range(len(got)))
    assert len(got) >= 2
    assert list(numbers) == []
    assert numbers.close() is True
    assert ended(closed)


@by_steps
def test_the_traceback_ends_in_the_sources_own_frame(take: Take) -> None:
    """H2, B1: it ends in the source's frame, and has none of asyncio's, nor of the worker's."""

    async def deeper() -> int:
        await asyncio.sleep(0)
        raise KeyError("here")

    async def source() -> AsyncIterator[int]:
        yield await deeper()

    numbers = BackgroundGenerator(source())
    with pytest.raises(KeyError) as raised:
        take(numbers)
    frames = traceback.extract_tb(raised.value.__traceback__)
    assert [frame.name for frame in frames[-2:]] == ["source", "deeper"]
    before = frames[-3]
    assert before.name == "raise_held"  # the consumer's
    assert not [frame for frame in frames if frame.filename.endswith(("_worker.py", "_async_source.py"))]


@pytest.mark.parametrize("fail", [alone, while_handling_another, while_handling_two, from_another, from_none])
@pytest.mark.parametrize("closing", [False, True], ids=["next", "close"])
@by_steps
def test_a_failure_is_freed_as_soon_as_it_is_let_go(closing: bool, fail: Fail, take: Take, no_collector: None) -> None:
    """H2, B3: with the collector off, all that the failing frame held is freed when the caller lets it go."""
    numbers = BackgroundGenerator(failing_clean_up(fail) if closing else failing_by(fail), 1)
    assert take(numbers) == 0
    seen = 0
    try:
        if closing:
            numbers.close()
        else:
            numbers.next(LONG)
    except (ValueError, TypeError):
        seen += 1
        assert alive
    assert seen == 1
    assert is_freed()


@pytest.mark.parametrize("maker", [failing_by, failing_clean_up])
def test_a_failure_that_nobody_asks_for_goes_with_its_generator(
    maker: Callable[[Fail], AsyncIterator[int]], hooked: SimpleQueue[object], no_collector: None
) -> None:
    """H2, B3, C4: what was buffered, or raised while it was closed, is freed with the generator, and its report."""
    numbers = BackgroundGenerator(maker(alone), 0 if maker is failing_by else 1)
    assert next(numbers) == 0
    worker = numbers._worker
    if maker is failing_by:
        assert worker.ended.wait(LONG)
    del numbers
    assert worker.ended.wait(LONG)
    del worker
    if maker is failing_clean_up:
        hooked.get(timeout=LONG)
    assert is_freed()


@by_loops
@pytest.mark.parametrize("generator", [True, False], ids=["generator", "iterator"])
def test_items_are_not_kept(
    generator: bool, take_all: Callable[[BackgroundGenerator[Any]], list[Any]], no_collector: None
) -> None:
    """H2, A6: neither side keeps a delivered item, nor the worker one it has handed over, while it makes the next."""
    awaiting = Awaiting()
    items: list[weakref.ref[Held]] = []

    def make() -> Held:
        item = Held()
        items.append(weakref.ref(item))
        return item

    async def source() -> AsyncIterator[Held]:
        yield make()
        await awaiting.for_ever()

    class Iterator(Steps):
        async def __anext__(self) -> Any:
            if self.left == 1:
                await awaiting.for_ever()
            self.left -= 1
            return make()

    numbers: BackgroundGenerator[Any] = BackgroundGenerator(source() if generator else Iterator(2))
    item = next(numbers)
    assert awaiting.inside.wait(LONG)
    assert items[0]() is item
    del item
    assert items[0]() is None or not GIL  # else it goes when the thread that made it next runs
    assert numbers.close() is True
    gc.collect(0 if GIL else 2)
    assert items[0]() is None
    assert take_all(numbers) == []


# H2 with B4


@pytest.mark.parametrize("max_prefetch", [1, 2, 0])
def test_a_strike_anywhere_in_next_loses_nothing(max_prefetch: int) -> None:
    """H2, B4: next() struck wherever CPython runs signal handlers, and called again: nothing is lost or repeated."""

    def scenario(n: int) -> At:
        numbers = BackgroundGenerator(counting(4), max_prefetch)
        got: list[int] = []
        with At("poll", n) as at:
            while len(got) < 4:
                with contextlib.suppress(Strike):
                    got.append(next(numbers))
        assert got == [0, 1, 2, 3]
        return at

    one_after_the_other(scenario, 10)


def test_an_exception_anywhere_in_next_hangs_nothing() -> None:
    """H2, B4: between any two instructions, where a request of the worker is granted too: one item at most is lost."""

    def scenario(n: int) -> At:
        pausing = Pausing()
        numbers = BackgroundGenerator(pausing.items(), 1, name="traced")
        got = [next(numbers)]
        pausing.while_it_waits_for_room(lambda: None)
        with At("opcode", n) as at:
            while len(got) < 5:
                with contextlib.suppress(Strike):
                    got.append(next(numbers))
        assert sorted(set(got)) == got
        assert got[-1] <= 5
        assert numbers.close(LONG) is True
        assert ended(pausing.closed)
        join_workers()
        return at

    one_after_the_other(scenario, 20)


def test_an_exception_anywhere_in_close_leaves_it_closable() -> None:
    """H2, B4, C1: close() can be called again, whatever struck it: in a step, the source is cancelled once."""

    def scenario(n: int) -> At:
        source = Awaiting()
        numbers = BackgroundGenerator(source.items(), 1, name="traced")
        assert next(numbers) == 0
        assert source.inside.wait(LONG)
        with At("opcode", n) as at, contextlib.suppress(Strike):
            numbers.close()
        assert numbers.close(LONG) is True
        assert ended(source.closed)
        assert source.told.get(timeout=LONG) is asyncio.CancelledError
        assert source.told.empty()
        join_workers()
        return at

    one_after_the_other(scenario, 20)


def test_an_exception_anywhere_in_the_constructor_leaves_no_worker() -> None:
    """H2, B4: a struck constructor leaves no worker, and a source that has not begun, or is closed."""

    def scenario(n: int) -> At:
        source = Closable(9)
        numbers = None
        with At("opcode", n) as at, contextlib.suppress(Strike):
            numbers = BackgroundGenerator(source, name="traced")
        assert (numbers is None) == at.struck()
        if numbers is not None:
            assert numbers.close(LONG) is True
        join_workers()
        assert source.left == 9 or source.closed.qsize() == 1
        return at

    one_after_the_other(scenario, 50)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
@pytest.mark.parametrize("max_prefetch", [1, 8])
def test_a_storm_of_interrupts_loses_nothing(max_prefetch: int) -> None:
    """H2, B4: thousands of items under 100 real signals or more, the handler raises: all come, in order."""
    strikes = 0
    storm: SimpleQueue[None] = SimpleQueue()

    def handler(_: int, frame: FrameType | None) -> None:
        nonlocal strikes
        strikes += 1
        storm.put(None)
        if frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
            raise Strike

    async def source() -> AsyncIterator[int]:
        for start in range(0, 4_000, 40):
            storm.get(timeout=LONG)  # one strike for each forty
            for number in range(start, start + 40):
                yield number

    got: list[int] = []
    numbers = BackgroundGenerator(source(), max_prefetch)
    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        while True:
            try:
                got.extend(numbers)
                break
            except Strike:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert got == list(range(4_000))
    assert strikes >= 100


# H2 with B6


def breaking(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have something that the run of a source stands on fail."""

    def breaks(*_: object, **__: object) -> Any:
        raise OSError("no more of these")

    places: dict[str, tuple[Any, str]] = {
        "asyncio.run": (asyncio, "run"),
        "the loop": (asyncio.events, "new_event_loop"),
        "the room": (_async_source, "_Room"),
        "the wait for room": (_async_source._Room, "wait"),
        "the listening": (asyncio.SelectorEventLoop, "add_reader"),
    }
    where, what = places[name]
    monkeypatch.setattr(where, what, breaks)


@pytest.mark.parametrize("what", ["asyncio.run", "the loop", "the room", "the wait for room", "the listening"])
@pytest.mark.parametrize("kind", [counting, Closable])
@by_steps
def test_a_failure_of_our_own_machinery_is_raised(
    what: str, kind: Callable[[int], Any], take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H2, B6: what the run of a source stands on fails: next() raises that, and the source is closed if it can be."""
    source = kind(3)
    with monkeypatch.context() as patched:
        breaking(what, patched)
        numbers = BackgroundGenerator(source, 1)
        worker = numbers._worker
        assert worker.ended.wait(LONG)
    with pytest.raises(OSError, match="no more of these"):
        take(numbers)
    assert list(numbers) == []
    if what in {"asyncio.run", "the loop"}:  # then there is no loop to close it on either
        with pytest.raises(OSError, match="no more of these"):
            numbers.close()
    assert numbers.close() is True
    if isinstance(source, Closable) and what not in {"asyncio.run", "the loop"}:
        assert ended(source.closed)


def test_no_sockets_for_the_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """H2, B6: the loop had its pair of sockets, but there is none left for us."""
    real, ours = socket.socketpair, _async_source.__name__

    def socketpair(*arguments: Any) -> Any:
        if sys._getframe(1).f_globals["__name__"] == ours:
            raise OSError("too many open files")
        return real(*arguments)

    monkeypatch.setattr(socket, "socketpair", socketpair)
    source = Closable(3)
    numbers = BackgroundGenerator(source)
    with pytest.raises(OSError, match="too many open files"):
        next(numbers)
    assert ended(source.closed)
    assert numbers.close() is True


def test_an_error_between_two_steps_never_makes_a_shorter_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """H2, B6: wherever in our own part of the run it strikes: all the items and then the end, or an error."""
    codes = {_async_source._Run._step_until_stopped.__code__, _async_source._Room.wait.__code__}
    outcomes = set[str]()
    for n in range(1, 200):
        at = At("line", n)
        at.codes = frozenset(codes)
        with at.on_new_threads():
            numbers = BackgroundGenerator(counting(3), 1, name="traced")
        got: list[int] = []
        error: BaseException | None = None
        try:
            got.extend(numbers)
        except Strike as strike:
            error = strike
        outcomes.add(type(error).__name__)
        assert (error is not None) == at.struck()
        assert error or got == [0, 1, 2]
        assert numbers.close(LONG) is True
        join_workers()
        if not at.struck():
            break
    assert n > 10
    assert "Strike" in outcomes


# H3


@by_steps
@pytest.mark.parametrize("max_prefetch", [1, 2, 0])
def test_a_cancelled_error_of_the_sources_own_is_forwarded(max_prefetch: int, take: Take) -> None:
    """H3: a CancelledError that the source raises by itself is forwarded like anything else."""
    failure = asyncio.CancelledError("the source's own")
    numbers = BackgroundGenerator(failing(failure), max_prefetch)
    assert [take(numbers), take(numbers)] == [0, 1]
    raised = None
    try:
        numbers.next(LONG)
    except asyncio.CancelledError as error:
        raised = error
    assert raised is failure
    assert list(numbers) == []


@by_steps
def test_a_source_that_is_cancelled_by_its_own_task_forwards_it(take: Take) -> None:
    """H3: as does one that awaits a task which was cancelled, or has cancelled itself."""

    async def awaits_a_cancelled() -> AsyncIterator[int]:
        yield 0
        task = asyncio.create_task(asyncio.sleep(LONG))
        await asyncio.sleep(0)
        task.cancel("by the source")
        await task

    async def cancels_itself() -> AsyncIterator[int]:
        yield 0
        task = asyncio.current_task()
        assert task is not None
        task.cancel("by the source")
        await asyncio.sleep(0)

    for source in awaits_a_cancelled, cancels_itself:
        numbers = BackgroundGenerator(source(), 1)
        assert take(numbers) == 0
        with pytest.raises(asyncio.CancelledError):
            numbers.next(LONG)
        assert list(numbers) == []
        assert "closed" not in repr(numbers)
