"""Contract, section H with A10, C8, E and H4: other generators, other loops, other processes."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from prefetch_generator import BackgroundGenerator, NotReadyError, StopEvent, _async_consumer
from prefetch_generator._channel import NO_REQUEST
from tests.helpers import GIL, LONG, ended, in_thread, posix

from .async_support import Awaiting, Pausing, all_of, by_loops, by_steps, counting, every_way, stop
from .support import run_program

Numbers = BackgroundGenerator[int]
Around = Callable[[Numbers, SimpleQueue[Any]], Any]

DEPRECATED = ("-W", "ignore:This process:DeprecationWarning")


async def by_async_for(inner: Numbers, said: SimpleQueue[Any]) -> AsyncIterator[int]:
    try:
        async for number in inner:
            yield number
        said.put("mistook the stop for the end")
    finally:
        said.put(threading.current_thread())


async def by_plain_for(inner: Numbers, said: SimpleQueue[Any]) -> AsyncIterator[int]:
    try:
        for number in inner:
            yield number
        said.put("mistook the stop for the end")
    finally:
        said.put(threading.current_thread())


async def in_a_child_task(inner: Numbers, said: SimpleQueue[Any]) -> AsyncIterator[int]:
    queue: asyncio.Queue[int] = asyncio.Queue(1)

    async def feed() -> None:
        async for number in inner:
            await queue.put(number)
        said.put("mistook the stop for the end")

    task = asyncio.create_task(feed())
    try:
        while True:
            getting = asyncio.ensure_future(queue.get())
            await asyncio.wait([getting, task], return_when=asyncio.FIRST_COMPLETED)
            yield await (getting if getting.done() else task) or 0
    finally:
        said.put(threading.current_thread())


def by_a_synchronous_source(inner: Numbers, said: SimpleQueue[Any]) -> Iterator[int]:
    try:
        yield from inner
        said.put("mistook the stop for the end")
    finally:
        said.put(threading.current_thread())


every_link = pytest.mark.parametrize(
    "around", [by_async_for, by_plain_for, in_a_child_task, by_a_synchronous_source], ids=lambda link: link.__name__
)


def idle(channel: Any) -> bool:
    """Return whether a worker waits for room."""
    return channel.wake_worker is not NO_REQUEST


# H2 with A10


@pytest.mark.parametrize("how", ["anext", "next", "in a task"])
def test_a_source_that_iterates_its_own_generator_is_told(how: str) -> None:
    """H2, A10: RuntimeError, not a deadlock, either way and in a task of the source."""
    given: SimpleQueue[Numbers] = SimpleQueue()

    async def source() -> AsyncIterator[int]:
        numbers = given.get(timeout=LONG)
        yield 0
        if how == "next":
            yield next(numbers)
        elif how == "anext":
            yield await anext(aiter(numbers))
        else:
            yield (await asyncio.gather(aiter(numbers).__anext__()))[0]

    numbers = BackgroundGenerator(source(), 1)
    given.put(numbers)
    assert next(numbers) == 0
    with pytest.raises(RuntimeError, match="cannot iterate its own"):
        next(numbers)


@pytest.mark.parametrize(
    "links", [("async for", "async for"), ("async for", "for"), ("async for", "sync"), ("for", "for")]
)
def test_a_circle_is_told(links: tuple[str, str]) -> None:
    """H2, A10: two sources that iterate each other's generators, by `async for` or `for`: one gets RuntimeError."""
    given: list[SimpleQueue[Numbers]] = [SimpleQueue(), SimpleQueue()]

    async def asynchronous(me: int, *, blocking: bool) -> AsyncIterator[int]:
        other = given[me].get(timeout=LONG)
        if blocking:
            for number in other:
                yield number
        async for number in other:
            yield number

    def synchronous(me: int) -> Iterator[int]:
        yield from given[me].get(timeout=LONG)

    sources: list[Any] = [
        synchronous(me) if link == "sync" else asynchronous(me, blocking=link == "for") for me, link in enumerate(links)
    ]
    first, second = (BackgroundGenerator(source, 1) for source in sources)
    given[0].put(second)
    given[1].put(first)
    outcomes = [in_thread(lambda numbers=numbers: outcome(numbers)) for numbers in (first, second)]  # type: ignore[misc]
    said = [one.get(timeout=LONG) for one in outcomes]
    assert any("none would ever go on" in text for text in said)
    del sources
    assert first.close(LONG) is True
    assert second.close(LONG) is True


def outcome(numbers: Numbers) -> str:
    """Return how it ends."""
    try:
        list(numbers)
    except RuntimeError as error:
        return str(error)
    return "ended"


def test_a_circle_is_told_though_another_task_of_the_source_has_waited_meanwhile() -> None:
    """H2, A10: what the source waits for is not forgotten when a task of it comes to the end of a wait of its own."""
    given: SimpleQueue[Numbers] = SimpleQueue()
    gate: SimpleQueue[int] = SimpleQueue()
    woken = threading.Event()
    feed = BackgroundGenerator(iter(gate.get, 0))

    async def first() -> AsyncIterator[int]:
        task = asyncio.create_task(beside())
        async for number in given.get(timeout=LONG):
            yield number
        await task

    async def beside() -> None:
        await aiter(feed).__anext__()
        woken.set()

    def second(numbers: Numbers) -> Iterator[int]:
        assert woken.wait(LONG)
        yield from numbers

    numbers = BackgroundGenerator(first())
    other = BackgroundGenerator(second(numbers))
    given.put(other)
    while not feed._channel.bells or not other._channel.bells:
        assert not woken.wait(0.001)
    gate.put(1)
    said = in_thread(lambda: outcome(numbers))
    assert "none would ever go on" in said.get(timeout=LONG)
    gate.put(0)
    assert other.close(LONG) is True


def test_a_diamond_is_no_circle() -> None:
    """H2, A10: two tasks of one source may each wait for another generator, and one for both."""

    async def source(inners: list[Numbers]) -> AsyncIterator[int]:
        async def total(numbers: Numbers) -> int:
            return sum([number async for number in numbers])

        for one in await asyncio.gather(*map(total, inners)):
            yield one

    inners = [BackgroundGenerator(counting(10), 1), BackgroundGenerator(counting(20), 1)]
    assert list(BackgroundGenerator(source(inners))) == [45, 190]


# H2 with C8


@every_link
@by_loops
def test_a_chain_gives_everything(around: Around, take_all: Callable[[Numbers], list[int]]) -> None:
    """H2, A1: the items come through, from a synchronous and from an asynchronous innermost source."""
    if around is in_a_child_task:
        pytest.skip("it never ends by itself")
    for innermost in counting(50), range(50):
        said: SimpleQueue[Any] = SimpleQueue()
        middle = BackgroundGenerator(around(BackgroundGenerator(innermost, 1), said), 2)
        assert take_all(middle) == list(range(50))


@every_link
@every_way
@pytest.mark.parametrize("asynchronous", [True, False], ids=["over async def", "over def"])
def test_a_chain_that_waits_for_an_item_stops_as_one(
    asynchronous: bool, how: str, around: Around, no_collector: None
) -> None:
    """H2, C8: all are stopped and closed, however the outermost is; nobody mistakes the stop for the end."""
    source, shared = Awaiting(), StopEvent()
    inside, closed, said = threading.Event(), SimpleQueue[threading.Thread](), SimpleQueue[Any]()

    def plain() -> Iterator[int]:
        try:
            yield 0
            inside.set()
            yield from BackgroundGenerator(source.items())
        finally:
            closed.put(threading.current_thread())

    def make() -> Numbers:
        inner = BackgroundGenerator(source.items() if asynchronous else plain(), 1)
        return BackgroundGenerator(around(inner, said), 1, stop_event=shared)

    box = [make()]
    assert next(box[0]) == 0
    assert source.inside.wait(LONG)
    stop(box, how, shared)
    thread = said.get(timeout=LONG)
    assert isinstance(thread, threading.Thread), thread
    thread.join(LONG)
    if around is in_a_child_task:
        gc.collect()  # the error that ends a task names it, through its frames: a cycle of asyncio's
    assert ended(source.closed)
    assert asynchronous or ended(closed)
    assert said.empty()
    if box:
        assert list(box[0]) == []
        assert box[0].close() is True


@every_link
@every_way
def test_a_chain_that_waits_for_room_stops_as_one(how: str, around: Around, no_collector: None) -> None:
    """H2, C8: the same where all of them wait for room."""
    source, shared, said = Pausing(), StopEvent(), SimpleQueue[Any]()
    box = [
        BackgroundGenerator(around(BackgroundGenerator(source.items(), 1), said), 1, stop_event=shared),
    ]
    assert next(box[0]) == 0
    source.while_it_waits_for_room(lambda: None)
    stop(box, how, shared)
    thread = said.get(timeout=LONG)
    assert isinstance(thread, threading.Thread), thread
    thread.join(LONG)
    if around is in_a_child_task:
        gc.collect()
    assert ended(source.closed)
    assert said.empty()


@pytest.mark.parametrize("around", [by_async_for, by_plain_for, by_a_synchronous_source])
def test_a_stop_of_both_at_once_is_not_the_end_of_the_data(around: Around) -> None:
    """H2, C8, D2: one event stops a source and the generator it waits for, which it sees end first; again and again."""
    for _ in range(20):
        shared, source, said = StopEvent(), Awaiting(), SimpleQueue[Any]()
        inner = BackgroundGenerator(source.items(), 1, stop_event=shared)
        outer = BackgroundGenerator(around(inner, said), 1, stop_event=shared)
        del inner
        assert next(outer) == 0
        assert source.inside.wait(LONG)
        shared.set()
        thread = said.get(timeout=LONG)
        assert isinstance(thread, threading.Thread), thread
        assert outer.close(LONG) is True
        assert ended(source.closed)


def test_a_stop_while_the_end_inside_is_looked_at_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """C8, H4: a failure inside that the stop has dropped just before it was raised leaves no end of the data behind."""
    said: SimpleQueue[Any] = SimpleQueue()
    looking, go = threading.Event(), threading.Event()
    wait = _async_consumer.wait_for_end

    async def stopped_meanwhile(*arguments: Any) -> bool:
        ended = await wait(*arguments)
        looking.set()
        assert go.wait(LONG)
        return ended

    def failing() -> Iterator[int]:
        yield from ()
        raise KeyError

    monkeypatch.setattr(_async_consumer, "wait_for_end", stopped_meanwhile)
    inner = BackgroundGenerator(failing())
    numbers = BackgroundGenerator(by_async_for(inner, said))
    assert looking.wait(LONG)
    numbers.stop_event.set()
    assert inner.close() is True
    go.set()
    assert isinstance(said.get(timeout=LONG), threading.Thread)
    monkeypatch.undo()
    assert numbers.close() is True


@pytest.mark.parametrize("ends", ["stopped", "by itself"])
def test_a_task_that_the_stop_found_awake_comes_to_its_end(ends: str) -> None:
    """H2, C8: when the source has heard of the stop, or has ended, a task that it waits for sees the inner end too."""
    shared = StopEvent()
    said: SimpleQueue[str] = SimpleQueue()

    async def source() -> AsyncIterator[int]:
        inner = BackgroundGenerator(iter(int, 1), stop_event=shared)
        task = asyncio.create_task(read(inner))
        try:
            if ends == "stopped":
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(0)  # until it has begun
            yield 1
        finally:
            if ends == "stopped":
                await task

    async def read(inner: Numbers) -> None:
        if ends == "by itself":
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:  # by the end of the source's loop
                said.put("cancelled")
        items = aiter(inner)
        await anext(items)  # so that the next one gives no turn to others
        shared.set()
        said.put(f"{[number async for number in items]}")

    numbers = BackgroundGenerator(source(), 2, stop_event=shared)
    assert shared.wait(LONG)
    assert numbers.close(LONG) is True
    assert [said.get_nowait() for _ in range(said.qsize())] == (["cancelled"] if ends == "by itself" else []) + ["[]"]


def test_the_clean_up_may_use_another_generator() -> None:
    """H2, C8: told once, a source may take from another generator in its clean-up, either way."""
    awaiting, got = Awaiting(), list[int]()

    async def source() -> AsyncIterator[int]:
        try:
            yield 0
            await awaiting.for_ever()
        finally:
            got.extend([number async for number in BackgroundGenerator(counting(3), 1)])
            got.extend(BackgroundGenerator(range(3), 1))

    numbers = BackgroundGenerator(source())
    assert next(numbers) == 0
    assert awaiting.inside.wait(LONG)
    assert numbers.close(LONG) is True
    assert got == [0, 1, 2, 0, 1, 2]


def test_a_failure_comes_through_a_chain() -> None:
    """H2, B1: the innermost source's failure is the outermost's, the same object."""
    failure = KeyError("innermost")

    async def innermost() -> AsyncIterator[int]:
        yield 0
        raise failure

    numbers = BackgroundGenerator(by_async_for(BackgroundGenerator(innermost(), 1), SimpleQueue()), 1)
    assert next(numbers) == 0
    with pytest.raises(KeyError) as raised:
        next(numbers)
    assert raised.value is failure


# H2 with A8, A9, E


def test_several_consumers_share_one() -> None:
    """H2, A8, G2: threads and loops take from one asynchronous source; each item goes to exactly one, and all end."""
    numbers = BackgroundGenerator(counting(400), 2)

    async def consume() -> list[int]:
        return [number async for number in numbers]

    parts = [in_thread(lambda: all_of(numbers)), in_thread(lambda: asyncio.run(consume()))]
    parts += [in_thread(lambda: all_of(numbers)), in_thread(lambda: asyncio.run(consume()))]
    assert sorted(number for part in parts for number in part.get(timeout=LONG)) == list(range(400))


def test_a_request_is_granted_once() -> None:
    """H2, B6: however many threads grant the worker's request, none finds the socket closed, or gets an error."""
    errors: SimpleQueue[BaseException] = SimpleQueue()
    channels: list[Any] = [None]
    over = threading.Event()

    def grant() -> None:
        while not over.is_set():
            try:
                next(getattr(channels[0], "wake_worker", NO_REQUEST), None)
            except BaseException as error:
                errors.put(error)

    threads = [threading.Thread(target=grant) for _ in range(1 if GIL else 2)]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(0.00001)
    try:
        for thread in threads:
            thread.start()
        for _ in range(30):
            numbers = BackgroundGenerator(counting(5), 1)
            channels[0] = numbers._channel
            assert list(numbers) == [0, 1, 2, 3, 4]
    finally:
        over.set()
        sys.setswitchinterval(switch)
        for thread in threads:
            thread.join(LONG)
    assert errors.empty()


@by_steps
def test_the_waits_are_counted(take: Callable[[Numbers], int]) -> None:
    """H2: `stats.producer_wait` is the time that the worker waited for room; a wait counts when it is over."""
    begun = time.perf_counter()
    source = Pausing()
    numbers = BackgroundGenerator(source.items(), 1)
    assert take(numbers) == 0
    source.while_it_waits_for_room(lambda: None)
    before = numbers.stats
    assert take(numbers) == 1
    source.while_it_waits_for_room(lambda: None)
    after = numbers.stats
    assert before.producer_wait < after.producer_wait <= time.perf_counter() - begun
    assert (before.delivered, after.delivered, after.buffered) == (1, 2, 1)
    assert numbers.close() is True


def test_next_with_a_timeout_loses_nothing() -> None:
    """H2, E3: NotReadyError, and the item comes later."""
    word: SimpleQueue[asyncio.Future[None]] = SimpleQueue()

    async def source() -> AsyncIterator[int]:
        future = asyncio.get_running_loop().create_future()
        word.put(future)
        await future
        yield 7

    numbers = BackgroundGenerator(source())
    future = word.get(timeout=LONG)
    for timeout in 0, 0.01:
        with pytest.raises(NotReadyError):
            numbers.next(timeout)
    future.get_loop().call_soon_threadsafe(future.set_result, None)
    assert numbers.next(LONG) == 7
    assert list(numbers) == []


def test_it_looks_as_any_other() -> None:
    """H2, E4, E5: the name is the function's, there is no hint, and the states are the same."""
    numbers = BackgroundGenerator(counting(3), 3)
    assert numbers.__name__ == "counting"
    assert numbers.__length_hint__() is NotImplemented
    assert next(numbers) == 0
    assert list(numbers) == [1, 2]
    assert repr(numbers) == "<BackgroundGenerator 'counting' finished, 0/3 buffered>"
    assert numbers.close() is True
    assert "closed" in repr(numbers)


@posix
@pytest.mark.parametrize("state", ["waits for room", "in a step"])
def test_a_fork_leaves_the_parents_alone(state: str) -> None:
    """H2, E1: in the child next() raises and close() returns, both at once; new generators work; the parent goes on."""
    script = f"""
        import gc
        import asyncio

        async def source():
            try:
                for number in range(200):
                    if number == 50 and "{state}" == "in a step":
                        inside.set()
                        await loop_event(asyncio.get_running_loop())
                    yield number
            finally:
                say("closed in the parent", os.getpid() == parent)

        async def loop_event(loop):
            global go
            event = asyncio.Event()
            go = lambda: loop.call_soon_threadsafe(event.set)
            ready.set()
            await event.wait()

        may = "{state}" == "waits for room"
        parent, inside, ready, shared = os.getpid(), threading.Event(), threading.Event(), StopEvent()
        numbers = BackgroundGenerator(source(), 1 if may else 0, stop_event=shared)
        assert next(numbers) == 0
        if "{state}" == "in a step":
            ready.wait()
        child = os.fork()
        if not child:
            try:
                next(numbers)
            except RuntimeError as error:
                say("refused", "before fork" in str(error))
            say("close", numbers.close(None))
            say("new", list(BackgroundGenerator(source(), 2, name="new"))[:2] if may else "")
            shared.set()
            del numbers
            gc.collect()
            os._exit(0)
        say("child", os.waitpid(child, 0)[1])
        if "{state}" == "in a step":
            go()
        say(sum(numbers) == sum(range(1, 200)))
    """
    out, err = run_program(script, *DEPRECATED)
    assert err == ""
    said = ["refused True", "close True", "child 0", "closed in the parent True", "True"]
    assert [line for line in out if line in said] == said
    assert out[-1] == "True"


# H4


def test_trio_objects_are_refused() -> None:
    """H4: trio sources are refused: an object of trio's with a TypeError; in an `async def`, trio's calls raise."""
    trio = pytest.importorskip("trio")
    send, receive = trio.open_memory_channel(1)
    before = threading.active_count()
    with pytest.raises(TypeError, match="run by asyncio, and cannot be one of trio"):
        BackgroundGenerator(receive)
    assert threading.active_count() == before
    send.close()
    receive.close()

    async def source() -> AsyncIterator[int]:
        yield 0
        await trio.sleep(0)
        yield 1

    numbers = BackgroundGenerator(source())
    assert next(numbers) == 0
    with pytest.raises(RuntimeError):
        next(numbers)
    assert list(numbers) == []


def test_what_belongs_to_another_loop_is_an_error() -> None:
    """H4: what is bound to another loop has to be opened inside the source: used there, it is asyncio's own error."""

    async def main() -> list[int]:
        future = asyncio.get_running_loop().create_future()

        async def source() -> AsyncIterator[int]:
            yield 0
            await future

        return [number async for number in BackgroundGenerator(source())]

    with pytest.raises(RuntimeError, match="attached to a different loop"):
        asyncio.run(main())


def test_a_running_trio_is_no_matter() -> None:
    """H4, G1: consumed by a task of trio, an asynchronous source still runs on asyncio's loop, on its own thread."""
    trio = pytest.importorskip("trio")

    async def consume() -> list[int]:
        return [number async for number in BackgroundGenerator(counting(20), 1)]

    assert trio.run(consume) == list(range(20))
