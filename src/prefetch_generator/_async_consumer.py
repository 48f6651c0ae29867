"""The asynchronous consumer: `async for item in bg`, and `aclose`, under asyncio and trio, and hence anyio.

It takes from the channel as `next()` does, and sleeps there with a bell that rings an event loop. No `await` stands
between an item's leaving the buffer and `return`, so that a task that is cancelled loses nothing.
"""

from __future__ import annotations

import contextlib
import math
import sys
import types
from collections.abc import AsyncIterator, Awaitable, Generator
from queue import Empty
from threading import get_ident
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from prefetch_generator import _generator
from prefetch_generator._atomic import raise_held
from prefetch_generator._bell import Bell, deadline_after
from prefetch_generator._stop import SourceContext, source_context

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

    from prefetch_generator._channel import Channel
    from prefetch_generator._worker import Worker

T_co = TypeVar("T_co", covariant=True)

_TURN = 0.005  # seconds that a task may take items which are ready, before other tasks get a turn


class AsyncConsumer(AsyncIterator[T_co]):
    """What `aiter(bg)` returns. It has no synchronous side: frameworks that look for one first would block on it."""

    __slots__ = ("__weakref__", "_generator", "_turn_ends")

    def __init__(self, generator: _generator.BackgroundGenerator[T_co]) -> None:
        self._generator = generator
        self._turn_ends = 0.0  # reading of `monotonic`

    async def __anext__(self) -> T_co:  # noqa: C901 - as in `next()`, a part of it in a function would have a window
        generator = self._generator
        channel, worker = generator._channel, generator._worker
        try:
            if generator._process is not _generator._process or (
                channel.busy_ident and get_ident() == channel.busy_ident
            ):
                generator._refuse()
            while True:
                if monotonic() >= self._turn_ends:
                    bell = make_bell()
                    # Before it too: a turn that was cancelled still counts. Otherwise a task with a very short timeout
                    # would be cancelled here every time, and never get an item.
                    self._turn_ends = monotonic() + _TURN
                    await bell.give_turn()
                    self._turn_ends = monotonic() + _TURN
                over = channel.over  # before the look at the buffer: over and then empty is over for good
                try:
                    # From here to `return` nothing awaits, and no signal handler runs: see `next()`, which has the same
                    # lines, for a call around them would be a point where one does.
                    for item in channel.take:
                        for _ in channel.wake_worker:
                            break
                        if not channel.cancelled:
                            for _ in channel.deliveries:
                                break
                            return item
                except Empty:
                    pass
                if await _wait(channel, worker, over):
                    self._turn_ends = monotonic() + _TURN
        except BaseException:
            del self, generator  # else whoever keeps the traceback would keep the generator running
            raise

    def __repr__(self) -> str:
        return f"<asynchronous iterator of {self._generator!r}>"


async def _wait(channel: Channel[Any], worker: Worker, over: bool) -> bool:
    """Sleep until there may be an item or an end to take; raise the end if there is one. Return whether it slept."""
    # In a frame of its own, which does not hold the generator: whoever keeps the traceback keeps this frame.
    if over or channel.cancelled:
        await _raise_end(channel, worker)
    me = get_ident()
    here = source_context(me)
    started = perf_counter()
    bell = make_bell()
    mine = None
    channel.bells.add(bell)
    try:
        if here is not None and here.is_its_task is None:  # a source that is not asynchronous, and runs a loop
            _kept = here.stop.listen(bell)
            here.raise_if_stopped()
        if here is not None and (here.is_its_task is None or here.is_its_task()):
            mine = channel, channel.has_news
            here.waits_for = mine
        next(channel.wake_worker, None)  # granted already, unless a debugger raised in the middle of the take
        if channel.has_news():
            return False  # no other task has had a turn
        if mine is not None:
            channel.refuse_circle(me, channel.has_news)
        await bell.sleep(math.inf)
        return True
    finally:
        channel.bells.discard(bell)
        if here is not None and here.waits_for is mine:  # else another task of this source still waits for that
            here.waits_for = None
        waited = perf_counter() - started  # first: see `Channel.wait`
        channel.consumer_wait += waited


async def _raise_end(channel: Channel[Any], worker: Worker) -> NoReturn:
    """Raise how it ended, to one consumer, and StopAsyncIteration to all others."""
    here = source_context(get_ident())
    await _see_a_stop(here)  # first: this end may follow from that stop, and is not the end of the data
    if not channel.cancelled:
        await wait_for_end(worker, None)
        try:
            raise_held(channel.outcome)
        except StopIteration:
            pass
        except StopAsyncIteration as error:
            raise RuntimeError("the source raised StopAsyncIteration") from error  # as PEP 525 has it
    if channel.cancelled:
        await _see_a_stop(here)  # the same, for a stop that came meanwhile
    raise StopAsyncIteration


async def _see_a_stop(here: SourceContext | None) -> None:
    """In a source that is to stop, and has not heard of it: see it interrupted first."""
    if here is None or here.heard or not here.stop.is_set():
        return
    if here.is_its_task is None:
        here.raise_if_stopped()
    here.stop.set()  # completely: that cancels the task of the source, and so this one, or whoever waits for this one
    # If neither, until the source has been: it may wait for this one in its clean-up, where the stop is no news.
    bell = make_bell()
    _kept = here.interrupted.listen(bell)
    if not here.interrupted.is_set():
        await bell.sleep(math.inf)


async def wait_for_end(worker: Worker, timeout: float | None) -> bool:
    """Wait until the worker's thread has ended, as `Worker.wait` does."""
    deadline = deadline_after(timeout)
    bell = make_bell()
    _kept = worker.ended.listen(bell)
    if not worker.ended.is_set():
        await bell.sleep(deadline)
    if not worker.ended.is_set():
        return False
    worker.join()
    return True


class AsyncioBell(Bell):
    """A bell that a task of asyncio sleeps on, once."""

    __slots__ = ("_loop", "_rung")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._rung: Future[None] = loop.create_future()

    def ring(self, _: object = None) -> None:
        """Wake the sleeper, with one call of its loop. Never waits."""
        try:  # noqa: SIM105 - `contextlib.suppress` takes a fortieth of what an item costs at depth 1
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop has been closed
            pass

    def _wake(self) -> None:
        if not self._rung.done():
            self._rung.set_result(None)

    def sleep(self, deadline: float) -> Awaitable[None]:
        """Sleep until somebody rings, or has rung, or until the `deadline`."""
        return self._rung if deadline == math.inf else self._sleep(deadline)

    async def _sleep(self, deadline: float) -> None:
        timer = self._loop.call_later(deadline - monotonic(), self._wake)
        try:
            await self._rung
        finally:
            timer.cancel()

    async def give_turn(self) -> None:
        """Let other tasks run, or be cancelled."""
        await _turn()


@types.coroutine
def _turn() -> Generator[None, None, None]:
    yield  # what `asyncio.sleep(0)` does


class TrioBell(Bell):
    """A bell that a task of trio sleeps on, once."""

    __slots__ = ("_rung", "_token", "_trio")

    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self._rung = trio.Event()

    def ring(self, _: object = None) -> None:
        """Wake the sleeper, with one call of its loop. Never waits."""
        with contextlib.suppress(self._trio.RunFinishedError):
            self._token.run_sync_soon(self._rung.set)

    async def sleep(self, deadline: float) -> None:
        """Sleep until somebody rings, or has rung, or until the `deadline`."""
        with self._trio.move_on_after(max(0.0, deadline - monotonic())):
            await self._rung.wait()

    async def give_turn(self) -> None:
        """Let other tasks run, or be cancelled."""
        await self._trio.lowlevel.checkpoint()


def make_bell() -> AsyncioBell | TrioBell:
    """Return a bell for this task to sleep on; raise RuntimeError where there is no event loop that we know."""
    # Found by looking: importing either would cost its import where only the other is used.
    asyncio, trio = sys.modules.get("asyncio"), sys.modules.get("trio")
    loop = None
    if asyncio is not None:
        look = getattr(asyncio, "_get_running_loop", None)  # not there yet if another thread is just importing it
        loop = look and look()
        if loop is not None and (trio is None or asyncio.current_task(loop) is not None):
            return AsyncioBell(loop)
    if trio is not None and _in_task_of(trio):  # perhaps as a guest of that loop
        return TrioBell(trio)
    if loop is None:
        raise RuntimeError("an asynchronous consumer needs a running event loop, of asyncio or trio")
    return AsyncioBell(loop)


def _in_task_of(trio: Any) -> bool:
    try:
        trio.lowlevel.current_task()
    except (AttributeError, RuntimeError):  # it is just being imported, or not running here
        return False
    return True
