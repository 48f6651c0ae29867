"""Contract, section G, sentences 1, 2 and 4: who may consume asynchronously, and that no loop is blocked."""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import importlib
import itertools
import os
import selectors
import sys
import textwrap
import threading
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import pytest

from prefetch_generator import BackgroundGenerator, _async_consumer
from prefetch_generator._stop import source_context
from tests.helpers import LONG, PACKAGE, in_thread, python

from .loops import Loop, asyncio_loops, every_loop, rest
from .support import HostileToLooks, Item, Stuck

CIRCLE = "waits, through others, for its own"


def gated(gate: SimpleQueue[int], n: int) -> Iterator[int]:
    """Count to n, each number as soon as there is something in the gate."""
    for number in range(n):
        gate.get(timeout=LONG)
        yield number


def asynchronously(items: BackgroundGenerator[Any]) -> Iterator[Any]:
    """Be a synchronous source that runs a loop of its own, and on it an asynchronous consumer."""
    yield from asyncio.run(rest(aiter(items)))


# G1


@pytest.mark.parametrize("max_prefetch", [1, 2, 0])
@every_loop
def test_async_for_gives_every_item_in_order(loop: Loop, max_prefetch: int) -> None:
    """G1: under asyncio on any loop, under trio and under anyio; items that are ready and items that are waited for."""
    gate: SimpleQueue[int] = SimpleQueue()

    async def main() -> list[int]:
        numbers = BackgroundGenerator(itertools.chain(range(10), gated(gate, 10), range(10)), max_prefetch)

        async def consume() -> list[int]:
            return [number async for number in numbers]

        return (await loop.together(consume, partial(loop.feed, numbers, gate, 10)))[0]  # type: ignore[no-any-return]

    assert loop.run(main) == [*range(10)] * 3


@every_loop
def test_no_thread_and_no_executor_is_used(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """G1: without a thread or an executor's call per item: the only thread that starts is the worker's."""
    started: list[str] = []
    start = threading.Thread.start

    def count(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", count)
    gate: SimpleQueue[int] = SimpleQueue()

    async def main() -> None:
        async with BackgroundGenerator(gated(gate, 5), name="counted") as numbers:

            async def consume() -> list[int]:
                return [number async for number in numbers]

            assert (await loop.together(consume, partial(loop.feed, numbers, gate, 5)))[0] == [*range(5)]

    loop.run(main)
    assert started == ["BackgroundGenerator-counted"]


def test_an_asynchronous_consumer_needs_nothing_but_asyncio() -> None:
    """G1: without a dependency; importing the package imports neither asyncio nor trio, nor does `aiter(bg)`."""
    script = f"""
        import sys
        sys.path.insert(0, {str(Path(PACKAGE).parent)!r})
        import prefetch_generator
        numbers = aiter(prefetch_generator.BackgroundGenerator("abc"))
        print({{"asyncio", "trio", "anyio", "sniffio"}} & {{*sys.modules}})

        import asyncio

        async def main():
            print([number async for number in numbers])
        asyncio.run(main())
    """
    # Without `site`, where nothing else is installed.
    assert python("-S", "-c", textwrap.dedent(script)) == ("set()\n['a', 'b', 'c']\n", "")


def test_aiter_gives_a_new_object_with_the_asynchronous_side_alone() -> None:
    """G1: Django and httpx take what `aiter(bg)` returns for asynchronous, as they ask for a synchronous side first."""
    with BackgroundGenerator(range(3)) as numbers:
        first, second = aiter(numbers), aiter(numbers)
        assert first is not second
        assert aiter(first) is first
        assert not hasattr(first, "__iter__")
        assert not hasattr(first, "__next__")
        assert not isinstance(first, (Iterable, Iterator))
        assert isinstance(first, AsyncIterable)
        assert isinstance(first, AsyncIterator)
        assert not isinstance(first, BackgroundGenerator)
        assert repr(first) == f"<asynchronous iterator of {numbers!r}>"
        with pytest.raises(TypeError):
            iter(first)  # type: ignore[call-overload]


@pytest.mark.parametrize("half", ["", "asyncio", "trio"])
def test_where_no_loop_runs_it_says_so_and_loses_nothing(half: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """G1: an `anext` that is driven by hand, under no loop that we know, is a RuntimeError, and the item is kept.

    Also while another thread is in the middle of importing one of the two.
    """
    monkeypatch.setitem(sys.modules, half or "no module", ModuleType(half))
    with BackgroundGenerator(range(3)) as numbers:
        for _ in range(2):
            step = aiter(numbers).__anext__()
            with pytest.raises(RuntimeError, match="needs a running event loop, of asyncio or trio"):
                step.__await__().send(None)
        assert list(numbers) == [0, 1, 2]


@pytest.mark.parametrize(("half", "running"), [("asyncio", "trio"), ("trio", "asyncio")])
def test_the_other_library_may_be_half_imported(half: str, running: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """G1: another thread may be in the middle of importing the library that is not used here."""
    run, lowlevel = pytest.importorskip(running).run, ModuleType("trio.lowlevel")

    async def main() -> list[int]:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, half, ModuleType(half))
            patch.setitem(sys.modules, f"{half}.lowlevel", lowlevel)
            return [number async for number in BackgroundGenerator(range(3))]

    assert run(*([main] if running == "trio" else [main()])) == [0, 1, 2]


def test_a_coroutine_that_no_task_runs() -> None:
    """G1: on a loop of asyncio's, with trio imported, a callback may drive `anext` by hand."""
    pytest.importorskip("trio")

    async def main() -> int:
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        numbers = BackgroundGenerator([42])
        assert numbers._worker.ended.wait(LONG)
        coroutine: Any = aiter(numbers).__anext__()

        def drive() -> None:
            coroutine.send(None)  # its turn for others
            try:
                coroutine.send(None)
            except StopIteration as stop:
                done.set_result(stop.value)

        asyncio.get_running_loop().call_soon(drive)
        return await done

    assert asyncio.run(main()) == 42


def test_trio_as_the_guest_of_asyncio() -> None:
    """G1: under trio on top of an asyncio loop, tasks of both consume, each in its own way."""
    pytest.importorskip("trio")
    script = """
        import asyncio, trio
        from prefetch_generator import BackgroundGenerator

        async def rest():
            return [number async for number in numbers]

        async def main():
            loop = asyncio.get_running_loop()
            done = loop.create_future()
            trio.lowlevel.start_guest_run(
                rest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
            )
            return await rest(), (await done).unwrap()

        numbers = BackgroundGenerator(range(1000))
        asyncios, trios = asyncio.run(main())
        assert sorted(asyncios + trios) == list(range(1000))
        print(asyncios == sorted(asyncios), trios == sorted(trios))
    """
    # In a process of its own, for trio has a thread wait for asyncio's news, and keeps it for ten seconds.
    assert python("-c", textwrap.dedent(script)) == ("True True\n", "")


# G2


@every_loop
def test_what_is_put_after_the_stop_is_not_delivered(loop: Loop) -> None:
    """G2, C1: an item that a step still gave after the stop is dropped by the task that takes it."""

    async def main() -> None:
        numbers = BackgroundGenerator(range(3))
        assert await numbers.aclose() is True
        numbers._channel.put(42)
        with pytest.raises(StopAsyncIteration):
            await anext(aiter(numbers))
        assert numbers.stats.delivered == 0

    loop.run(main)


@every_loop
def test_any_object_is_an_item(loop: Loop) -> None:
    """G2, A1: None, exceptions, awaitables and objects that nobody may look at are ordinary items."""
    with BackgroundGenerator([1]) as other:
        future: object = asyncio.sleep  # not called, let alone awaited
        items = [
            None,
            StopAsyncIteration,
            StopAsyncIteration(),
            asyncio.CancelledError(),
            future,
            other,
            HostileToLooks(),
        ]

        async def main() -> list[object]:
            return await rest(aiter(BackgroundGenerator(items)))

        got = loop.run(main)
        assert len(got) == len(items)
        assert all(one is another for one, another in zip(got, items, strict=True))


@pytest.mark.parametrize("max_prefetch", [1, 3])
@every_loop
def test_the_bound_is_exact(loop: Loop, max_prefetch: int) -> None:
    """G2, A2: the worker touches the source only if there is room, however many tasks consume; and it fills it."""
    ahead: list[int] = []
    box: list[BackgroundGenerator[int]] = []
    made = threading.Event()

    def source() -> Iterator[int]:
        assert made.wait(LONG)
        for n in range(300):
            ahead.append(n + 1 - box[0].stats.delivered)
            yield n

    async def main() -> list[list[int]]:
        box.append(BackgroundGenerator(source(), max_prefetch))
        made.set()
        return await loop.together(*[lambda: rest(aiter(box[0]))] * 3)

    got = loop.run(main)
    assert sorted(itertools.chain(*got)) == [*range(300)]
    # Without the GIL an item may be pulled between another's leaving the buffer and its being counted.
    assert max(ahead) <= max_prefetch + (0 if getattr(sys, "_is_gil_enabled", lambda: True)() else 1)
    assert max(ahead) >= max_prefetch


@every_loop
def test_no_reference_to_a_delivered_item_is_kept(loop: Loop, no_collector: None) -> None:
    """G2, A6: neither side keeps a delivered item, be it taken at once or waited for."""
    gate: SimpleQueue[int] = SimpleQueue()
    references: SimpleQueue[weakref.ref[Item]] = SimpleQueue()

    def make() -> Item:
        item = Item()
        references.put(weakref.ref(item))
        return item

    def source() -> Iterator[Item]:
        for _ in gated(gate, 4):
            yield make()

    async def main() -> None:
        items = BackgroundGenerator(source(), 1)
        iterator = aiter(items)

        async def consume() -> None:
            item: Item | None = await anext(iterator)
            reference = references.get(timeout=LONG)
            assert reference() is item
            del item
            if getattr(sys, "_is_gil_enabled", lambda: True)():
                assert reference() is None

        async def feed() -> None:
            await loop.asleep(items)
            gate.put(0)

        for _ in range(4):
            await loop.together(consume, feed)
        assert await rest(iterator) == []

    loop.run(main)


@pytest.mark.parametrize("shared", [True, False], ids=["one iterator", "one each"])
@every_loop
def test_ten_tasks_on_one_generator(loop: Loop, shared: bool) -> None:
    """G2, A8: ten tasks take from one generator: each item goes to one, each gets its own in order, and all end."""

    async def main() -> list[list[int]]:
        numbers = BackgroundGenerator(range(2000), 8)
        iterator = aiter(numbers)

        async def consume() -> list[int]:
            got = []
            async for number in iterator if shared else numbers:
                got.append(number)
                if number % 7 == 0:
                    await loop.turn()
            return got

        return await loop.together(*[consume] * 10)

    got = loop.run(main)
    assert all(part == sorted(part) for part in got)
    assert sorted(itertools.chain(*got)) == [*range(2000)]


@every_loop
def test_ten_tasks_wait_for_the_same_generator(loop: Loop) -> None:
    """G2, A8: ten sleep; each item wakes somebody who takes it; at the end nobody is left asleep."""
    gate: SimpleQueue[int] = SimpleQueue()

    async def main() -> list[list[int]]:
        numbers = BackgroundGenerator(gated(gate, 30))

        async def feed() -> list[int]:
            for n in range(30):
                await loop.asleep(numbers, tasks=10)
                gate.put(n)
                while len(numbers._channel.bells) == 10 and numbers.stats.delivered <= n:
                    await loop.turn()
            return []

        return await loop.together(feed, *[lambda: rest(aiter(numbers))] * 10)

    assert sorted(itertools.chain(*loop.run(main))) == [*range(30)]


@every_loop
def test_tasks_loops_and_threads_take_from_one_generator(loop: Loop) -> None:
    """G2: tasks of two loops in two threads, and two threads without a loop, at once; each item goes to exactly one."""
    numbers = BackgroundGenerator(iter(range(4000)), 4)

    async def main() -> list[list[int]]:
        return await loop.together(*[lambda: rest(aiter(numbers))] * 3)

    looping = [in_thread(partial(loop.run, main)) for _ in range(2)]
    plain = [in_thread(lambda: [*numbers]) for _ in range(2)]
    got = [part for results in looping for part in results.get(timeout=LONG)] + [one.get(timeout=LONG) for one in plain]
    assert all(part == sorted(part) for part in got)
    assert sorted(itertools.chain(*got)) == [*range(4000)]


@every_loop
def test_both_sides_in_one_task_by_turns(loop: Loop) -> None:
    """G2: synchronous and asynchronous consumers may take turns; stats count both, and the wait of a task as well."""
    gate: SimpleQueue[int] = SimpleQueue()

    async def main() -> None:
        numbers = BackgroundGenerator(itertools.chain(range(4), gated(gate, 1)))
        iterator = aiter(numbers)
        assert [next(numbers), await anext(iterator), next(numbers), await anext(iterator)] == [0, 1, 2, 3]
        assert numbers.stats.delivered == 4
        waited = numbers.stats.consumer_wait

        async def open_the_gate() -> None:
            await loop.asleep(numbers)
            assert not threading.Event().wait(0.05)
            gate.put(0)

        assert (await loop.together(partial(rest, iterator), open_the_gate))[0] == [0]
        assert numbers.stats.delivered == 5
        assert numbers.stats.consumer_wait - waited >= 0.05
        assert list(numbers) == []

    loop.run(main)


@asyncio_loops
def test_a_source_that_iterates_its_own_generator_gets_a_runtime_error(loop: Loop) -> None:
    """G2, A10: `async for` over the generator whose source this is, on a loop of the source's own, is an error."""
    box: list[BackgroundGenerator[str]] = []
    made = threading.Event()

    def source() -> Iterator[str]:
        assert made.wait(LONG)
        try:
            loop.run(lambda: rest(aiter(box[0])))
        except RuntimeError as error:
            yield str(error)

    box.append(BackgroundGenerator(source()))
    made.set()
    [said] = loop.run(lambda: rest(aiter(box[0])))
    assert "its own BackgroundGenerator" in said


@pytest.mark.parametrize("size", [2, 3])
def test_a_circle_of_asynchronous_consumers_is_an_error(size: int) -> None:
    """G2, A10: sources that iterate each other's generators by `async for` are told, and all end."""
    made = threading.Event()
    ring: list[BackgroundGenerator[int]] = []
    told: SimpleQueue[str] = SimpleQueue()

    def source(n: int) -> Iterator[int]:
        assert made.wait(LONG)
        try:
            yield from asynchronously(ring[(n + 1) % size])
        except RuntimeError as error:
            told.put(str(error))

    ring.extend(BackgroundGenerator(source(n)) for n in range(size))
    made.set()
    for numbers in ring:
        assert asyncio.run(rest(aiter(numbers))) == []
        assert numbers._worker.ended.wait(LONG)
    assert CIRCLE in told.get(timeout=LONG)
    ring.clear()


@every_loop
def test_the_worker_is_gone_when_the_end_is_seen(loop: Loop, no_collector: None) -> None:
    """G2, A10: when the end is seen, no thread is left and the source is released."""

    async def main() -> None:
        for _ in range(20):
            source = (n for n in range(3))
            reference = weakref.ref(source)
            numbers = BackgroundGenerator(source, name="over")
            del source
            assert await rest(aiter(numbers)) == [0, 1, 2]
            assert not [thread for thread in threading.enumerate() if thread.name == "BackgroundGenerator-over"]
            assert reference() is None

    loop.run(main)


@every_loop
def test_a_wait_leaves_nothing_behind(loop: Loop) -> None:
    """G2, A2: whoever slept, or was cancelled then, is not rung again, waits no more, and its seconds are counted."""
    gate: SimpleQueue[int] = SimpleQueue()
    seen: list[object] = []

    async def main() -> None:
        numbers = BackgroundGenerator(gated(gate, 4), 1)
        iterator = aiter(numbers)
        for number in range(3):
            got, _ = await loop.together(partial(anext, iterator), partial(_open_when_asleep, loop, numbers, gate))
            assert got == number
        async with loop.tasks() as start:
            task = start(partial(anext, iterator))
            await loop.asleep(numbers)
            task.cancel()
        assert not numbers._channel.bells
        assert 0 < numbers.stats.consumer_wait < 10 * LONG
        context = source_context(threading.get_ident())
        seen.append(context is not None and context.waits_for)
        gate.put(3)
        assert await rest(iterator) == [3]

    def source() -> Iterator[int]:
        loop.run(main)
        yield 0

    assert list(BackgroundGenerator(source())) == [0]  # so the task is a source's, and others could wait for it
    assert seen == [None]


async def _open_when_asleep(loop: Loop, numbers: BackgroundGenerator[int], gate: SimpleQueue[int]) -> None:
    await loop.asleep(numbers)
    gate.put(0)


def test_an_idle_asyncio_loop_does_not_poll() -> None:
    """G2, A9: while a task sleeps in `anext`, its loop sleeps without a time limit."""
    timeouts: list[float | None] = []
    gate: SimpleQueue[int] = SimpleQueue()

    class Watched(selectors.SelectSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            timeouts.append(timeout)
            if timeout is None:
                gate.put(0)  # only now is there an item
            return super().select(timeout)

    loop = asyncio.SelectorEventLoop(Watched())
    try:
        assert loop.run_until_complete(rest(aiter(BackgroundGenerator(gated(gate, 5))))) == [*range(5)]
    finally:
        loop.close()
    assert timeouts.count(None) >= 5
    assert not [timeout for timeout in timeouts if timeout]  # it either sleeps or goes on


def test_an_idle_trio_loop_does_not_poll() -> None:
    """G2, A9: the same under trio, which never sleeps for longer than a day."""
    trio: Any = pytest.importorskip("trio")
    timeouts: list[float] = []
    gate: SimpleQueue[int] = SimpleQueue()

    class Watch(trio.abc.Instrument):  # type: ignore[misc]  # it is Any
        def before_io_wait(self, timeout: float) -> None:
            timeouts.append(timeout)
            if timeout:
                gate.put(0)

    async def main() -> list[int]:
        return await rest(aiter(BackgroundGenerator(gated(gate, 5))))

    assert trio.run(main, instruments=[Watch()]) == [*range(5)]
    assert len([timeout for timeout in timeouts if timeout > 1000]) >= 5
    assert not [timeout for timeout in timeouts if 0 < timeout <= 1000]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_after_fork_anext_raises_at_once_in_the_child(library: str) -> None:
    """G2, E1: in the child `anext` raises RuntimeError at once and `aclose` returns at once; the parent goes on."""
    pytest.importorskip(library)
    script = f"""
        import os, signal, sys, {library}
        from prefetch_generator import BackgroundGenerator

        def run(main):
            return {library}.run(main() if {library == "asyncio"} else main)

        async def child():
            try:
                await anext(items)
            except RuntimeError as error:
                assert "make it in the child" in str(error), error
                assert await numbers.aclose() is True
                return [n async for n in BackgroundGenerator(range(3))]

        numbers = BackgroundGenerator(range(5))
        items = aiter(numbers)

        async def parent():
            first, pid = await anext(items), None
            return [first] + [n async for n in items]

        next(numbers)
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            assert run(child) == [0, 1, 2]
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        print(run(parent))
    """
    assert python("-W", "ignore:This process:DeprecationWarning", "-c", textwrap.dedent(script))[0] == "[1, 2, 3, 4]\n"


# G4


@every_loop
def test_a_task_that_waits_does_not_block_the_loop(loop: Loop, stuck: Stuck) -> None:
    """G4: while one task waits for an item that does not come, others run."""

    async def main() -> list[Any]:
        numbers = BackgroundGenerator(stuck.items())

        async def turns() -> int:
            await loop.asleep(numbers)
            for _ in range(100):
                await loop.turn()
            stuck.go.set()
            return 100

        return await loop.together(partial(rest, aiter(numbers)), turns)

    assert loop.run(main) == [[0, 1], 100]


def counted_calls(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> SimpleQueue[object]:
    """Return a queue that gets something for each call of the running loop from another thread."""
    calls: SimpleQueue[object] = SimpleQueue()
    if "trio" in loop.name:
        owner, name = importlib.import_module("trio").lowlevel.TrioToken, "run_sync_soon"
    elif loop.name == "uvloop":
        owner, name = importlib.import_module("uvloop").Loop, "call_soon_threadsafe"
    else:
        owner, name = asyncio.BaseEventLoop, "call_soon_threadsafe"
    call = getattr(owner, name)

    def count(*args: Any, **options: Any) -> object:
        calls.put(args)
        return call(*args, **options)

    monkeypatch.setattr(owner, name, count)
    return calls


@every_loop
def test_the_worker_calls_the_loop_once_per_sleep(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """G4: once for a task that sleeps, not once per item: the hundred items after the first cost no call."""
    gate: SimpleQueue[int] = SimpleQueue()
    given = threading.Semaphore(0)

    def source() -> Iterator[int]:
        for _ in range(3):
            gate.get(timeout=LONG)
            yield from range(100)
            given.release()

    async def main(calls: SimpleQueue[object]) -> None:
        numbers = BackgroundGenerator(source(), 0)
        iterator = aiter(numbers)

        async def feed() -> None:
            await loop.asleep(numbers)
            assert calls.qsize() == round_
            gate.put(0)
            assert given.acquire(timeout=LONG)  # the loop does not run meanwhile

        async def consume() -> list[int]:
            return [await anext(iterator) for _ in range(100)]

        for round_ in range(3):
            assert (await loop.together(consume, feed))[0] == [*range(100)]
            assert calls.qsize() == round_ + 1
        assert await rest(iterator) == []

    calls = counted_calls(loop, monkeypatch)
    loop.run(partial(main, calls))


@asyncio_loops
def test_a_loop_that_is_closed_by_then_is_ignored(loop: Loop, hooked: SimpleQueue[threading.ExceptHookArgs]) -> None:
    """G4: a task sleeps, its loop is closed; the worker's call is ignored, and the generator goes on for others."""
    gate: SimpleQueue[int] = SimpleQueue()
    numbers = BackgroundGenerator(gated(gate, 3))
    private: Any = (asyncio if loop.name == "asyncio" else importlib.import_module("uvloop")).new_event_loop()
    sleeper: Any = private.create_task(rest(aiter(numbers)))
    private.run_until_complete(loop.asleep(numbers))
    private.close()
    for n in range(3):
        gate.put(n)
    assert list(numbers) == [0, 1, 2]
    sleeper.get_coro().close()
    sleeper._log_destroy_pending = False  # asyncio's own way to be quiet about it
    assert hooked.empty()


def test_a_trio_run_that_is_over_by_then_is_ignored(hooked: SimpleQueue[threading.ExceptHookArgs]) -> None:
    """G4: the same under trio, where a task that sleeps ends with its run: the bell rings for nobody."""
    trio = pytest.importorskip("trio")

    async def main() -> _async_consumer.TrioBell:
        bell = _async_consumer.make_bell()
        assert isinstance(bell, _async_consumer.TrioBell)
        return bell

    bell = trio.run(main)
    numbers = BackgroundGenerator(range(3), 1)
    numbers._channel.bells.add(bell)
    assert list(numbers) == [0, 1, 2]
    bell.ring()
    assert hooked.empty()


@every_loop
def test_where_items_are_always_ready_other_tasks_run(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """G4: a checkpoint before the take once 5 ms have passed: here at every fifth item, as each takes 1 ms."""
    now = 0.0
    monkeypatch.setattr(_async_consumer, "monotonic", lambda: now)
    turns: list[int] = []

    async def main() -> None:
        nonlocal now
        numbers = BackgroundGenerator(range(500), 0)
        assert numbers._worker.ended.wait(LONG)  # they are all there
        over = False

        async def other() -> None:
            while not over:
                turns.append(numbers.stats.delivered)
                await loop.turn()

        async with loop.tasks() as start:
            start(other)
            await loop.turn()
            turns.clear()
            async for _ in numbers:
                now += 0.001
            over = True

    loop.run(main)
    assert len(turns) >= 99
    # Trio shuffles the tasks of a turn, so one may come first in it and last in the next.
    assert all(0 <= second - first <= 11 for first, second in itertools.pairwise(turns))


@every_loop
def test_items_that_come_just_in_time_let_other_tasks_run_too(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """G4: an item that comes after the look at the buffer and before the sleep, each time, is always ready as well."""
    now = 0.0
    gate: SimpleQueue[int] = SimpleQueue()
    given = threading.Semaphore(0)

    def source() -> Iterator[int]:
        for number in gated(gate, 200):
            yield number
            given.release()  # in the next step: the number is in the buffer

    monkeypatch.setattr(_async_consumer, "monotonic", lambda: now)
    turns: list[int] = []

    async def main() -> None:
        nonlocal now
        numbers = BackgroundGenerator(source(), 0)
        over = False

        def just_in_time() -> float:
            # What a consumer that has found no item calls first, and last.
            if not numbers.stats.buffered and numbers.stats.delivered < 200:
                gate.put(0)
                assert given.acquire(timeout=LONG)
            return 0.0

        async def other() -> None:
            while not over:
                turns.append(numbers.stats.delivered)
                await loop.turn()

        async with loop.tasks() as start:
            start(other)
            await loop.turn()
            monkeypatch.setattr(_async_consumer, "perf_counter", just_in_time)
            async for _ in numbers:
                now += 0.001
            over = True

    loop.run(main)
    assert len(turns) >= 39
