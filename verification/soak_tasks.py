"""The episodes of the soak test with asynchronous consumers: under asyncio, and trio and uvloop if they are there."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import itertools
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from queue import SimpleQueue
from typing import Any

from prefetch_generator import BackgroundGenerator, NotReadyError

from .soak_episodes import HANG, Episode, SoakError, Strike, check, striker

Got = tuple[list[int], str]  # the items, and how it ended

LOOPS = ["asyncio", *(name for name in ("trio", "uvloop") if importlib.util.find_spec(name))]
TASK_KINDS = [
    "all_by_tasks",
    "all_by_tasks_and_threads",
    "failure_by_tasks",
    "cancelled_tasks",
    "leave_in_task",
    "aclose",
    "closed_loop",
    "asynchronous_chain",
]


def run(loop: str, function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine function on a loop of that kind, of its own."""
    if loop == "trio":
        import trio  # noqa: PLC0415 - where it is installed

        return trio.run(function)
    if loop == "asyncio":
        return asyncio.run(function())
    import uvloop  # noqa: PLC0415 - where it is installed

    one = uvloop.new_event_loop()
    one.set_debug(False)  # as for asyncio's own
    try:
        return one.run_until_complete(function())
    finally:
        one.close()


async def side_by_side(loop: str, functions: list[Callable[[], Awaitable[None]]]) -> None:
    if loop != "trio":
        await asyncio.gather(*(function() for function in functions))
        return
    import trio  # noqa: PLC0415 - where it is installed

    async with trio.open_nursery() as nursery:
        for function in functions:
            nursery.start_soon(function)


async def pause(loop: str, seconds: float) -> None:
    if loop != "trio":
        await asyncio.sleep(seconds)
        return
    import trio  # noqa: PLC0415 - where it is installed

    await trio.sleep(seconds)


async def next_within(loop: str, seconds: float, numbers: AsyncIterator[int], got: list[int]) -> None:
    """Take the next item, or be cancelled after so many seconds."""
    if loop == "trio":
        import trio  # noqa: PLC0415 - where it is installed

        with trio.move_on_after(seconds):
            got.append(await anext(numbers))
        return
    # Not `wait_for`: before 3.12 that may lose what it waits for.
    task = asyncio.ensure_future(anext(numbers))
    timer = asyncio.get_running_loop().call_later(seconds, task.cancel)
    try:
        got.append(await task)
    except asyncio.CancelledError:
        pass
    finally:
        timer.cancel()


async def take_all(numbers: AsyncIterator[int], results: list[Got]) -> None:
    got: list[int] = []
    end = "end"
    try:
        async for number in numbers:
            got.append(number)  # noqa: PERF401 - what came before a failure counts
    except SoakError:
        end = "failure"
    results.append((got, end))


class TaskEpisode(Episode):
    """One use of the library by tasks, on a thread, and an event loop, of its own."""

    def by_tasks(self, numbers: BackgroundGenerator[int], consumers: int) -> list[Got]:
        """Iterate in several tasks of one loop."""
        loop, results = self.random.choice(LOOPS), list[Got]()

        async def all_of_them(held: list[BackgroundGenerator[int]]) -> None:
            shared = aiter(held[0])
            either = [shared if self.random.random() < 0.5 else aiter(held[0]) for _ in range(consumers)]
            held.clear()
            await side_by_side(loop, [lambda one=one: take_all(one, results) for one in either])  # type: ignore[misc]

        run(loop, lambda: all_of_them([numbers]))
        for got, _ in results:
            self.in_order(got)
        return results

    def all_by_tasks(self) -> None:
        n, consumers = self.some(), self.random.choice([1, 1, 2, 5])
        results = self.by_tasks(self.make(self.numbers(n)), consumers)
        check(that=sorted(itertools.chain(*(got for got, _ in results))) == list(range(n)), says=f"not all of {n}")
        check(that=[end for _, end in results] == ["end"] * consumers, says=f"ended by {results}")
        self.closed_is(1)

    def all_by_tasks_and_threads(self) -> None:
        n = self.some()
        numbers = self.make(self.numbers(n))
        others: SimpleQueue[list[Got]] = SimpleQueue()
        thread = threading.Thread(target=lambda: others.put(self.by_tasks(numbers, 2)))
        thread.start()
        items, ends = self.several(numbers, 2)
        results = others.get()
        thread.join()
        items += itertools.chain(*(got for got, _ in results))
        check(that=sorted(items) == list(range(n)), says=f"not all of {n}: {len(items)}")
        check(that=ends + [end for _, end in results] == ["end"] * 4, says=f"ended by {ends} and {results}")
        self.closed_is(1)

    def failure_by_tasks(self) -> None:
        n, consumers = self.some(), self.random.choice([1, 1, 2, 5])
        results = self.by_tasks(self.make(self.numbers(n, SoakError())), consumers)
        check(that=sorted(itertools.chain(*(got for got, _ in results))) == list(range(n)), says=f"not all of {n}")
        ends = sorted(end for _, end in results)
        check(that=ends == ["end"] * (consumers - 1) + ["failure"], says=f"ended by {ends}")
        self.closed_is(1)

    def cancelled_tasks(self) -> None:
        """Two tasks that are cancelled all the time, and call again; a thread times out."""
        n, loop = self.random.choice([10, 100, 300]), self.random.choice(LOOPS)
        # Not always 0: who is cancelled at the first checkpoint each time never gets anywhere.
        timeouts = itertools.cycle([0, self.random.choice([0.00001, 0.0005]), self.random.choice([0.001, 0.01])])
        numbers = self.make(self.numbers(n))
        got: list[list[int]] = [[], [], []]

        async def impatient(mine: list[int]) -> None:
            iterator = aiter(numbers)
            while True:
                try:
                    await next_within(loop, next(timeouts), iterator, mine)
                except StopAsyncIteration:
                    return

        def thread() -> None:
            while True:
                try:
                    got[2].append(numbers.next(0.0001))
                except NotReadyError:
                    time.sleep(0)
                except StopIteration:
                    return

        other = threading.Thread(target=thread)
        other.start()
        run(loop, lambda: side_by_side(loop, [lambda: impatient(got[0]), lambda: impatient(got[1])]))
        other.join()
        for mine in got:
            self.in_order(mine)
        check(that=sorted(itertools.chain(*got)) == list(range(n)), says=f"lost or repeated: {got}")

    def leave_in_task(self) -> None:
        n, loop = self.random.choice([1, 1, 2, 10, 100]), self.random.choice(LOOPS)
        held = [self.make(self.count(), self.random.choice([1, 1, 2, 3, 8, 64]))]

        async def some() -> None:
            expected = 0
            async for number in held.pop():
                check(that=number == expected, says=f"got {number}, not {expected}")
                expected += 1
                if expected == n:
                    break

        run(loop, some)
        self.counters.items.put(n)
        while self.closed.empty():
            gc.collect()
            time.sleep(0.001)
        self.closed_is(1)

    def aclose(self) -> None:
        """Close from tasks, one of which is cancelled, while others and a thread consume."""
        loop, seconds = self.random.choice(LOOPS), self.random.choice([0, 0.0001, 0.001, 0.01])
        numbers = self.make(self.numbers(1 << 40), self.random.choice([1, 1, 2, 3, 8]))
        results: list[Got] = []
        answers: list[object] = []

        async def close() -> None:
            await pause(loop, seconds)
            answers.append(await numbers.aclose(HANG))

        async def everything() -> None:
            takers = [lambda: take_all(aiter(numbers), results) for _ in range(2)]
            await side_by_side(loop, [*takers, close, close])

        results_of_others: SimpleQueue[Got] = SimpleQueue()
        other = threading.Thread(target=self.consume, args=(numbers, results_of_others))
        other.start()
        run(loop, everything)
        results.append(results_of_others.get())
        other.join()
        check(that=answers == [True, True], says=f"aclose() answered {answers}")
        check(that=[end for _, end in results] == ["end"] * 3, says=f"ended by {[end for _, end in results]}")
        items = list(itertools.chain(*(got for got, _ in results)))
        check(that=len(set(items)) == len(items), says="repeated")
        check(that=next(numbers, -1) == -1, says="an item after aclose()")

    def closed_loop(self) -> None:
        """Close a loop under its sleeping tasks; others get what they would have got, and all that is to come."""
        n = self.some()
        numbers = self.make(self.numbers(n))
        loop = asyncio.new_event_loop()
        got: list[int] = []

        async def take() -> None:
            async for number in numbers:
                got.append(number)  # noqa: PERF401 - nobody comes to its end

        tasks = [loop.create_task(take()) for _ in range(2)]
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # the point of it
        loop.run_until_complete(asyncio.sleep(self.random.choice([0, 0.0001, 0.002])))
        loop.close()
        got.extend(numbers)
        for task in tasks:
            if task.done():
                task.result()
        check(that=sorted(got) == list(range(n)), says=f"not all of {n}: {len(got)}")
        self.counters.items.put(n)
        self.closed_is(1)

    def asynchronous_chain(self) -> None:
        """Stop, drop or close a chain of asynchronous sources in the middle, or take it to its end."""
        end = self.random.choice(["end", "close", "drop", "stop"])
        n = self.some() if end == "end" else 1 << 40
        length = self.random.choice([1, 2, 4])
        mistaken: list[int] = []

        async def link(inner: BackgroundGenerator[int], number: int) -> AsyncIterator[int]:
            try:
                async for one in inner:
                    yield one
                mistaken.append(number)
            finally:
                self.closed.put(None)

        numbers = self.make(self.numbers(n), self.random.choice([1, 2, 8]))
        for number in range(length):
            self.counters.generators.put(1)
            numbers = BackgroundGenerator(link(numbers, number), self.random.choice([1, 2, 8]), name="soak")
        taken = n if end == "end" else self.random.choice([1, 3, 50])
        got = list(itertools.islice(numbers, taken))
        check(that=got == list(range(taken)), says=f"got {got[:20]}")
        self.counters.items.put(taken)
        if end == "close":
            check(that=numbers.close(HANG) is True, says="not closed")
        elif end != "drop":
            numbers.stop_event.set() if end == "stop" else None
            check(that=next(numbers, -1) == -1, says="an item after the end")
        del numbers
        for _ in range(length + 1):
            self.closed.get(timeout=HANG)
        check(that=len(mistaken) == (length if end == "end" else 0), says=f"{mistaken} mistook the stop for the end")

    def task_storm(self) -> None:
        """On the main thread: real signals whose handler raises in a task's `anext`, the task retrying."""
        n = self.random.choice([100, 1000])
        numbers = self.make(self.numbers(n))
        got: list[int] = []

        async def consume() -> None:
            iterator = aiter(numbers)
            while True:
                try:
                    await take_one(iterator)
                except Strike:
                    pass
                except StopAsyncIteration:
                    return

        async def take_one(iterator: AsyncIterator[int]) -> None:
            got.append(await anext(iterator))

        # Not in `take_one` itself: between its call and its `await`.
        handler = striker(take_one.__code__, self.counters.strikes, itself=False)
        before = signal.signal(signal.SIGALRM, handler)
        interval = self.random.choice([0.0002, 0.001])
        try:
            signal.setitimer(signal.ITIMER_REAL, interval, interval)
            run("asyncio", consume)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        check(that=got == list(range(n)), says=f"lost or repeated under interrupts: {len(got)} of {n}")
        self.counters.items.put(n)
