"""What it costs a task to consume a synchronous source that runs on a thread, and what other tasks notice of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterator
from typing import Any

from benchmarks.synchronous.handoff import numbers, per_item
from benchmarks.table import Candidate, GapError, Metrics, Workload


async def use_up(iterator: AsyncIterable[Any]) -> None:
    """Consume everything."""
    async for _ in iterator:
        pass


def measure_handoff(candidate: Candidate, depth: int, share: float) -> Metrics:
    """Return what an item costs, after a look at whether all of them arrive."""
    if depth > candidate.most:
        raise GapError("makes no item ahead")

    async def listed() -> list[int]:
        return [item async for item in candidate.make(numbers(100), depth)]

    async def consume(count: int) -> None:
        await use_up(candidate.make(numbers(count), depth))

    if asyncio.run(listed()) != list(range(100)):
        raise ValueError("lost items, or their order")
    return per_item(lambda count: asyncio.run(consume(count)), depth, share)


async def ping_pong(count: int) -> None:
    """Wake a thread, and be woken by it, for each item."""
    loop, wanted = asyncio.get_running_loop(), threading.Lock()
    wanted.acquire()

    def work() -> None:
        for item in numbers(count):
            wanted.acquire()
            loop.call_soon_threadsafe(arrival.set_result, item)

    threading.Thread(target=work, daemon=True).start()
    for _ in range(count):
        arrival = loop.create_future()
        wanted.release()
        await arrival


async def one_call_each(count: int) -> None:
    """Have a thread call the loop for each item; neither waits for the other."""
    loop = asyncio.get_running_loop()
    items, end = deque[int](), loop.create_future()

    def work() -> None:
        for item in numbers(count):
            loop.call_soon_threadsafe(items.append, item)
        loop.call_soon_threadsafe(end.set_result, None)

    threading.Thread(target=work, daemon=True).start()
    await end


def floor_of_one(depth: int, share: float) -> Metrics:
    """Return what an item costs where each has to be waited for."""
    if depth != 1:
        raise GapError("is for depth 1")
    return per_item(lambda count: asyncio.run(ping_pong(count)), depth, share)


HANDOFF = Workload(
    name="hand-off",
    text="What an item costs with a trivial source on a thread and an empty `async for` in asyncio. Floors: a wake-up "
    "of the thread and one of the loop for each item, the least at depth 1; and a `call_soon_threadsafe` for each item "
    "without any bound, the least for whoever calls the loop once per item.",
    cases={"depth 1": 1, "depth 16": 16, "depth 128": 128, "depth 1024": 1024},
    measure=measure_handoff,
    floors={
        "ping-pong": floor_of_one,
        "call_soon_threadsafe": lambda depth, share: per_item(
            lambda count: asyncio.run(one_call_each(count)), depth, share
        ),
    },
    against=("ping-pong", "call_soon_threadsafe", "asyncio.to_thread(next)"),
)


STREAMS, ITEMS, STEP = 100, 25, 0.02


def sleeping(count: int) -> Iterator[int]:
    """Be a source that blocks, as a socket or a disk does."""
    for number in range(count):
        time.sleep(STEP)
        yield number


def measure_streams(candidate: Candidate, _case: None, _share: float) -> Metrics:
    """Return how long it takes until all streams are through, and the CPU time of all threads."""

    async def consume() -> None:
        await asyncio.gather(*(use_up(candidate.make(sleeping(ITEMS), candidate.usual_depth)) for _ in range(STREAMS)))

    return used(lambda: asyncio.run(consume()))


def only_sleep() -> None:
    """Have as many threads that do nothing else."""
    threads = [threading.Thread(target=deque(maxlen=0).extend, args=[sleeping(ITEMS)]) for _ in range(STREAMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def used(run: Callable[[], object]) -> Metrics:
    """Return the seconds that it takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return {"s": time.perf_counter() - wall, "CPU of all threads, s": time.process_time() - cpu}


MANY_STREAMS = Workload(
    name="100 streams",
    text="The time until 100 streams in one loop are through, each of 25 items that block for 20 ms: half a second if "
    "none waits for another. Floor: as many threads that only sleep.",
    cases={"": None},
    measure=measure_streams,
    floors={"floor": lambda _case, _share: used(only_sleep)},
    against=("floor", "asyncio.to_thread(next)"),
    note="Where a pool of threads does the steps, its size decides: asyncio's has four threads more than the machine "
    "has processors, and at most 32; anyio's has 40.",
)


READY, COMPUTING = 300, 0.001


def measure_turns(candidate: Candidate, _case: None, _share: float) -> Metrics:
    """Return the longest time that another task waited for its turn."""

    async def longest_wait() -> float:
        iterator = candidate.make(numbers(READY), min(READY, candidate.most))
        await anext(iterator)
        await asyncio.sleep(0.1)  # until all items are ready
        consumer = asyncio.create_task(compute(iterator))
        longest, before = 0.0, time.perf_counter()
        while not consumer.done():
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, before = max(longest, now - before), now
        return longest

    return {"ms": 1e3 * asyncio.run(longest_wait())}


async def compute(iterator: AsyncIterable[Any]) -> None:
    """Compute for a while with each item."""
    async for _ in iterator:
        end = time.perf_counter() + COMPUTING
        while time.perf_counter() < end:
            pass


TURNS = Workload(
    name="turns of others",
    text="The longest that another task of the loop waits, while a task consumes 300 items that are ready, where there "
    "is a buffer, and computes for a millisecond with each.",
    cases={"": None},
    measure=measure_turns,
    note="A candidate that awaits a thread for each item gives other tasks their turn after each. One whose queue is "
    "not empty gives none, unless it takes care to.",
)
