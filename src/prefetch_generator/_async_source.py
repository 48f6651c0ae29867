"""An asynchronous source: one task, on an asyncio loop of the worker's own thread, from its first step to its end.

The task waits for room as the worker of a synchronous source does, but on its loop, so that the tasks which the source
has started go on meanwhile. A stop cancels the step in progress; between two steps, it closes the source.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
from collections.abc import AsyncIterable, Awaitable, Coroutine
from threading import get_ident
from time import perf_counter
from typing import TYPE_CHECKING, Any

from prefetch_generator._atomic import Once, given_once
from prefetch_generator._bell import Bell, threads_are_greenlets
from prefetch_generator._channel import NO_REQUEST, Channel
from prefetch_generator._stop import SourceContext, source_context
from prefetch_generator._worker import Source, as_raised_by_source, is_exit

if TYPE_CHECKING:
    from typing_extensions import Self


def make_source(iterable: AsyncIterable[Any]) -> Source:
    """Return how a worker runs `iterable`; raise TypeError or RuntimeError if it cannot."""
    if type(iterable).__module__.partition(".")[0] == "trio":
        raise TypeError(f"an asynchronous iterable is run by asyncio, and cannot be one of trio, got {iterable!r}")
    if threads_are_greenlets():
        raise RuntimeError("an asynchronous iterable needs a thread of its own, and gevent has patched threading")
    return Source(iterable, aiter(iterable), _produce, _close)


def _produce(channel: Channel[Any], source: Any) -> BaseException | None:
    """Run the source until it ends, or is stopped and closed; return how it ended."""
    # The outcome is not what the task returns: the frames of asyncio that ran the task hold its result, and the
    # traceback of a failure holds these frames, which would close a cycle.
    outcome: Once[BaseException] = Once()
    context = source_context(get_ident())
    assert context is not None  # noqa: S101 - for the type checkers: this is a worker's thread
    _run(_Run(channel, source, outcome, context).to_the_end())
    return next(outcome.take)


def _close(source: Any) -> None:
    """Close a source that the task could not close, because what failed was not the source but what runs it."""
    _run(_aclose(source))


def _run(main: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(main)
    finally:
        if inspect.getcoroutinestate(main) == inspect.CORO_CREATED:  # there was no loop to be had
            main.close()  # else it would warn that nobody has awaited it


async def _aclose(source: Any) -> None:
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        await aclose()


def _as_outcome(failure: BaseException) -> BaseException:
    """Return what a source has raised in the function that handles it, as the consumer is to see it."""
    if not issubclass(type(failure), StopIteration):
        return as_raised_by_source(failure)
    # Of an `__anext__` that is no coroutine. Forwarded as it is, it would be the end of the data.
    error = RuntimeError("the source raised StopIteration")
    error.__cause__ = as_raised_by_source(failure)
    return error


class _Run(Bell):
    """One run of a source. Rung by a stop, it has the step in progress cancelled."""

    __slots__ = ("_channel", "_context", "_in_step", "_loop", "_outcome", "_source", "_task")

    def __init__(
        self, channel: Channel[Any], source: Any, outcome: Once[BaseException], context: SourceContext
    ) -> None:
        self._channel = channel
        self._source = source
        self._outcome = outcome
        self._context = context
        self._in_step = False

    async def to_the_end(self) -> None:
        """Step the source until it ends or is stopped; close it if it is stopped. Hold the outcome."""
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checkers: it runs this
        self._task = task
        self._context.is_its_task = self._is_current
        self._context.coroutine = task.get_coro()
        _kept = self._context.stop.listen(self)
        with _Room(self._channel) as room:
            try:
                stopped = await self._step_until_stopped(room)
            finally:
                self._context.interrupted.set()
            if stopped:
                self._context.heard = True  # from here on the clean-up may use other generators
                try:
                    await _aclose(self._source)
                    self._outcome.hold(StopIteration())
                except BaseException as failure:
                    self._outcome.hold(StopIteration() if is_exit(failure) else _as_outcome(failure))

    async def _step_until_stopped(self, room: _Room) -> bool:
        """Step the source until it is stopped, which is True, or has an outcome."""
        channel, source, put = self._channel, self._source, self._channel.put
        while True:
            thrown = await room.wait()
            if channel.cancelled:
                return True
            self._in_step = True
            try:
                # What has cancelled this task between two steps was meant for the source: a task group that is open
                # across a `yield` does so when one of its tasks fails.
                put(await (anext(source) if thrown is None else self._throw(thrown)))
            except StopAsyncIteration:
                self._outcome.hold(StopIteration())
                return False
            except BaseException as failure:
                cancelled = issubclass(type(failure), asyncio.CancelledError)
                if self._context.heard and (cancelled or is_exit(failure)):
                    return True
                self._outcome.hold(_as_outcome(failure))
                return False
            finally:
                self._in_step = False
            if channel.bells:
                channel.ring()

    def _throw(self, cancellation: BaseException) -> Awaitable[Any]:
        athrow: Any = getattr(self._source, "athrow", None)
        if athrow is not None:
            return athrow(cancellation)  # type: ignore[no-any-return]  # an asynchronous generator has it
        # An iterator without a `yield` to throw it at: it comes at the first `await` of the next step, and counts once.
        getattr(self._task, "uncancel", int)()  # 3.10 does not count
        self._task.cancel(*cancellation.args)
        return anext(self._source)

    def ring(self, _: object = None) -> None:
        """Have the step in progress cancelled. Never waits."""
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if not self._channel.cancelled:  # the generator has been dropped, without a word
            self._context.stop.set()
        if self._in_step and not self._context.heard:
            self._context.heard = True
            self._task.cancel()
        if self._context.heard:
            self._context.interrupted.set()

    def _is_current(self) -> bool:
        return asyncio.current_task() is self._task


class _Room:
    """Where the task waits for room: whoever grants its request sends a byte through a pair of sockets.

    Not by `call_soon_threadsafe`, which is Python code: Ctrl-C in it would lose the item that the consumer has just
    taken. A request is granted once, and its byte received before the next request and before the sockets are closed.
    So nobody ever sends to a socket that is full or closed.
    """

    __slots__ = ("_channel", "_closed", "_far", "_granted", "_near", "_reader")

    def __init__(self, channel: Channel[Any]) -> None:
        self._channel = channel
        self._granted = asyncio.Event()
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)
        self._reader: asyncio.Task[None] | None = None
        self._closed = False

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        try:
            loop.add_reader(self._near, self._receive)
        except NotImplementedError:  # by the loop that Windows has
            self._reader = loop.create_task(self._read())
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        if self._reader is None:
            asyncio.get_running_loop().remove_reader(self._near)
        else:
            self._closed = True
            self._reader.cancel()
        self._close()

    def _close(self) -> None:
        self._near.close()
        self._far.close()

    def _receive(self) -> None:
        self._near.recv(1)
        self._granted.set()

    async def _read(self) -> None:
        while not self._closed:
            # One task's KeyboardInterrupt has all tasks cancelled, but the source is to hear of it when there is room.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().sock_recv(self._near, 1)
                self._granted.set()

    async def wait(self) -> BaseException | None:
        """Wait until there is room, or the channel is cancelled; return what has cancelled this task meanwhile."""
        channel = self._channel
        thrown: BaseException | None = None
        while not channel.cancelled:
            if channel.owner() is None:
                channel.cancel()
            elif channel.items.qsize() < channel.max_prefetch:
                break
            else:
                thrown = await self._park() or thrown
        return thrown

    async def _park(self) -> BaseException | None:
        # As `Channel._park` does, but `busy_ident` stays: a task of the source that iterates this generator is refused.
        channel = self._channel
        thrown = None
        started = perf_counter()
        self._granted.clear()
        channel.wake_worker = map(self._far.send, given_once(b"\0"))
        if channel.items.qsize() < channel.max_prefetch or channel.cancelled:
            next(channel.wake_worker, None)
        while not self._granted.is_set():
            try:
                await self._granted.wait()
            except asyncio.CancelledError as error:
                thrown = asyncio.CancelledError(*error.args)  # this one would hold this frame, which would hold it
                next(channel.wake_worker, None)  # see whether the channel has been cancelled too
        channel.wake_worker = NO_REQUEST
        channel.producer_wait += perf_counter() - started
        return thrown
