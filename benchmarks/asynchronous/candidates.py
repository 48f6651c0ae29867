"""Who is measured: this library, its peers, and what people write by hand.

A consumer's `make` takes a synchronous source and a depth, and gives an asynchronous iterator; it is called in a task
of asyncio. A source's takes an asynchronous source and gives a synchronous iterator.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from importlib import import_module
from typing import Any

from benchmarks.table import Candidate, GapError

END = object()

MakeConsumer = Callable[[Iterable[Any], int], AsyncIterator[Any]]
MakeSource = Callable[[AsyncIterable[Any], int], Iterator[Any]]


def _ours() -> Callable[..., Any]:
    return import_module("prefetch_generator").BackgroundGenerator  # type: ignore[no-any-return]


def _ours_asynchronous() -> MakeConsumer:
    make = _ours()
    return lambda source, depth: aiter(make(source, depth))


def _step_by_step(call: Callable[..., Any]) -> MakeConsumer:
    """Have `call` run each `next()` on a thread."""

    async def steps(source: Iterable[Any], _depth: int) -> AsyncIterator[Any]:
        iterator = iter(source)
        while (item := await call(next, iterator, END)) is not END:
            yield item

    return steps


def _asgiref() -> MakeConsumer:
    make = import_module("asgiref.sync").sync_to_async
    # Its default is one thread for everything in the program, which would not be a fair comparison.
    return _step_by_step(lambda *call: make(call[0], thread_sensitive=False)(*call[1:]))


def _starlette() -> MakeConsumer:
    iterate = import_module("starlette.concurrency").iterate_in_threadpool
    return lambda source, _depth: iterate(source)


async def asyncio_queue(source: Iterable[Any], depth: int) -> AsyncIterator[Any]:
    """Bridge with what asyncio has, a call of the loop for each item, and a semaphore for the bound."""
    loop, room = asyncio.get_running_loop(), threading.Semaphore(depth)
    items: asyncio.Queue[Any] = asyncio.Queue()

    def put(item: object) -> None:
        room.acquire()
        loop.call_soon_threadsafe(items.put_nowait, item)

    async for item in _from_thread(source, put, items.get):
        room.release()
        yield item


async def _from_thread(
    source: Iterable[Any], put: Callable[[Any], object], get: Callable[[], Any]
) -> AsyncIterator[Any]:
    def work() -> None:
        for item in source:
            put(item)
        put(END)

    threading.Thread(target=work, daemon=True).start()
    while (item := await get()) is not END:
        yield item


def _queue_of_both_kinds(package: str) -> Callable[[], MakeConsumer]:
    def load() -> MakeConsumer:
        make_queue = import_module(package).Queue

        async def make(source: Iterable[Any], depth: int) -> AsyncIterator[Any]:
            items = make_queue(depth)
            async for item in _from_thread(source, items.sync_q.put, items.async_q.get):
                yield item

        return make

    return load


def _aiomisc(name: str) -> Callable[[], MakeConsumer]:
    def load() -> MakeConsumer:
        decorate = getattr(import_module("aiomisc"), name)
        return lambda source, depth: aiter(decorate(max_size=depth)(lambda: iter(source))())

    return load


def _anyio_stream() -> MakeConsumer:
    anyio, from_thread, to_thread = map(import_module, ["anyio", "anyio.from_thread", "anyio.to_thread"])

    async def make(source: Iterable[Any], depth: int) -> AsyncIterator[Any]:
        send, receive = anyio.create_memory_object_stream(depth)

        def work() -> None:
            for item in source:
                from_thread.run(send.send, item)
            from_thread.run_sync(send.close)

        async with anyio.create_task_group() as group:
            group.start_soon(to_thread.run_sync, work)
            async for item in receive:
                yield item

    return make


def _streamable() -> MakeConsumer:
    import_module("streamable")
    raise GapError("runs the source on the loop")


CONSUMERS = (
    Candidate("prefetch_generator 2", _ours_asynchronous, "prefetch_generator"),
    Candidate("asyncio.to_thread(next)", lambda: _step_by_step(asyncio.to_thread), most=1),
    Candidate("Starlette iterate_in_threadpool", _starlette, "starlette", most=1),
    Candidate("asgiref sync_to_async(next)", _asgiref, "asgiref", most=1),
    Candidate("asyncio.Queue + semaphore", lambda: asyncio_queue, extra=1),
    Candidate("janus", _queue_of_both_kinds("janus"), "janus", extra=1),
    Candidate("culsans", _queue_of_both_kinds("culsans"), "culsans", extra=1),
    Candidate("aiomisc threaded_iterable", _aiomisc("threaded_iterable"), "aiomisc", extra=1),
    Candidate("aiomisc threaded_iterable_separate", _aiomisc("threaded_iterable_separate"), "aiomisc", extra=1),
    Candidate("anyio memory stream", _anyio_stream, "anyio", extra=1),
    Candidate("streamable", _streamable, "streamable"),
)


def thread_and_queue(source: AsyncIterable[Any], depth: int) -> Iterator[Any]:
    """Bridge as usually written by hand: a thread with `asyncio.run`, which blocks its loop where the queue is full."""
    items: queue.Queue[Any] = queue.Queue(depth)

    async def work() -> None:
        async for item in source:
            items.put(item)
        items.put(END)

    threading.Thread(target=lambda: asyncio.run(work()), daemon=True).start()
    while (item := items.get()) is not END:
        yield item


def _anyio_portal() -> MakeSource:
    start = import_module("anyio.from_thread").start_blocking_portal

    def make(source: AsyncIterable[Any], _depth: int) -> Iterator[Any]:
        iterator = aiter(source)

        async def step() -> Any:
            return await anext(iterator, END)

        with start() as portal:
            while (item := portal.call(step)) is not END:
                yield item

    return make


def _streamable_source() -> MakeSource:
    stream = import_module("streamable").stream
    return lambda source, depth: iter(stream(source).buffer(depth))


SOURCES = (
    Candidate("prefetch_generator 2", _ours, "prefetch_generator"),
    Candidate("thread + asyncio.run + queue.Queue", lambda: thread_and_queue, extra=1, stops=False),
    Candidate("anyio portal.call(anext)", _anyio_portal, "anyio", most=1, stops=False),
    Candidate("streamable", _streamable_source, "streamable", extra=1, stops=False),
)
BY_HAND = SOURCES[1].name
