"""`BackgroundGenerator`, the public face: the synchronous consumer, and the life cycle."""

from __future__ import annotations

import operator
import os
import sys
import threading
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from queue import Empty
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeGuard, TypeVar

from prefetch_generator._atomic import raise_held
from prefetch_generator._bell import deadline_after
from prefetch_generator._channel import OWN_SOURCE, Channel
from prefetch_generator._stop import StopEvent, own_event, source_context
from prefetch_generator._worker import Source, SourceMaker, Worker, is_ours, produce

if TYPE_CHECKING:
    from typing_extensions import Self  # type checkers bring it along, so it is no dependency

T_co = TypeVar("T_co", covariant=True)

_process = object()  # stands for this process; a forked child gets another. Not `getpid()`: a call for every item


def _after_fork_in_child() -> None:
    global _process  # noqa: PLW0603 - compared for every item: an attribute of a holder would cost more
    _process = object()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Stats(NamedTuple):
    """What a `BackgroundGenerator` has done so far. An immutable record.

    The larger of the two waits names the side that is *not* the bottleneck: if `consumer_wait` is the larger one, the
    source is what takes the time.

    Attributes:
        delivered: Items taken from the buffer by consumers.
        buffered: Items ready and not yet taken.
        producer_wait: Seconds the worker waited for room. A wait counts when it is over.
        consumer_wait: Seconds that consumers waited for items. A wait counts when it is over.

    >>> numbers = BackgroundGenerator(range(3))
    >>> next(numbers), numbers.stats.delivered
    (0, 1)
    """

    delivered: int
    buffered: int
    producer_wait: float
    consumer_wait: float


class BackgroundGenerator(Iterator[T_co]):
    """Iterate over `iterable` in a background thread, up to `max_prefetch` items ahead of whoever consumes them.

    The thread starts here. It ends with the source, by `close()`, at the end of a `with` block, when the last
    reference is dropped (by `break`, say), when a stop event is set, and at interpreter exit.

    Args:
        iterable: The source, synchronous or asynchronous. Here only `iter(iterable)` or `aiter(iterable)` is called,
            and the length hint (that is, `len` where there is one) and the name are asked for. The rest happens on the
            worker's thread, in a copy of the present `contextvars` context. An asynchronous source runs there on an
            asyncio loop of its own: open inside it whatever belongs to a loop, such as a session.
        max_prefetch: Items that may be ready or being made ahead of those delivered; 0 or less: no bound.
        stop_event: A `StopEvent` that others may set: the generator then ends at once, as if closed. Nothing that
            happens to the generator sets it.
        name: What to call it in `repr`, in messages and in the thread's name. The default is the source's own name.

    Raises:
        TypeError: An argument is of the wrong type.
        RuntimeError: No thread can be started; the source has not been touched.
        Exception: Whatever `iter(iterable)` or `aiter(iterable)` raises.

    >>> with BackgroundGenerator(range(3), max_prefetch=2) as numbers:
    ...     [number * 10 for number in numbers]
    [0, 10, 20]
    """

    __slots__ = ("__weakref__", "_channel", "_hint", "_name", "_process", "_worker")

    def __init__(
        self,
        iterable: Iterable[T_co] | AsyncIterable[T_co],
        max_prefetch: int = 2,
        *,
        stop_event: StopEvent | None = None,
        name: str | None = None,
    ) -> None:
        bound = checked_max_prefetch(max_prefetch)
        if stop_event is not None and not isinstance(stop_event, StopEvent):
            raise TypeError(f"stop_event must be a StopEvent or None, got {stop_event!r}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a string or None, got {name!r}")
        self._name = _name_of(iterable) if name is None else name
        self._hint = _hint_of(iterable)
        self._process = _process
        self._channel = channel = Channel[T_co](bound, self)
        source = _make_source(iterable)
        self._worker = worker = Worker(source, channel, own_event(channel, stop_event))
        try:
            worker.start(f"BackgroundGenerator-{self._name}", self)
            # Last, and without a point where a signal handler could run: before it the source is untouched, after it
            # the constructor can no longer fail.
            worker.may_begin = True
            for _ in worker.begin:
                break
        except BaseException:
            worker.refuse_to_begin()
            raise

    def __iter__(self) -> Self:
        return self

    def next(self, timeout: float | None = None) -> T_co:
        """Return the next item. `next(bg)` does the same, without a limit of time.

        Args:
            timeout: Seconds to wait at most. None: as long as it takes.

        Raises:
            NotReadyError: The time ran out. No item is lost: call again.
            StopIteration: The end, with the source's return value.
            BaseException: What the source raised: once, after the items before it.
            RuntimeError: This is a forked child, or a source that would wait for itself.
            GeneratorExit: The caller is a source itself, and is to stop. Raised once.
            TypeError: `timeout` is neither None nor a number.
            ValueError: `timeout` is negative, or not a number (NaN).

        >>> BackgroundGenerator("abc").next(timeout=60)
        'a'
        """
        channel = self._channel
        deadline = None if timeout is None else deadline_after(timeout)
        if self._process is not _process or (channel.busy_ident and threading.get_ident() == channel.busy_ident):
            self._refuse()
        while True:
            over = channel.over  # before the look at the buffer: over and then empty is over for good
            try:
                # From here to `return` there is no call, no backward jump and no condition that is false, so no signal
                # handler runs, and an item that has left the buffer cannot be lost: see `_atomic`.
                for item in channel.take:
                    for _ in channel.wake_worker:
                        break
                    if not channel.cancelled:
                        for _ in channel.deliveries:
                            break
                        return item
            except Empty:
                pass
            if over or channel.cancelled:
                self._raise_end()
            try:
                channel.await_item(timeout, deadline)
            except BaseException:
                del self  # else whoever keeps the traceback, as a notebook does, would keep the generator running
                raise

    if TYPE_CHECKING:

        def __next__(self) -> T_co: ...  # without the timeout, as `Iterator` has it
    else:
        __next__ = next  # noqa: A003 - the method, as meant

    def _raise_end(self) -> NoReturn:
        """Raise how it ended, to one consumer, and StopIteration to all others."""
        channel = self._channel
        here = source_context(threading.get_ident())
        if here is not None:
            here.raise_if_stopped()  # first: this end may follow from that stop, and is not the end of the data
        if not channel.cancelled:
            self._worker.join()
            raise_held(channel.outcome)
        if channel.cancelled and here is not None:
            here.raise_if_stopped()  # the same, for a stop that came meanwhile
        raise StopIteration

    def _refuse(self) -> NoReturn:
        """Raise RuntimeError: nobody here can take an item."""
        if self._process is not _process:
            raise RuntimeError("this generator was made before fork() and has no worker here: make it in the child")
        raise RuntimeError(OWN_SOURCE)

    def __length_hint__(self) -> int:
        """Return the items still to come, as far as the source hinted at how many it has.

        >>> import operator
        >>> operator.length_hint(BackgroundGenerator(range(3)))
        3
        """
        channel = self._channel
        if channel.state != "running":
            return 0 if channel.cancelled else channel.items.qsize()  # whatever the source hinted at
        if self._hint is None:
            return NotImplemented  # type: ignore[no-any-return]  # Python's own word for "no hint"
        return max(0, self._hint - channel.delivered)

    def close(self, timeout: float | None = 5.0) -> bool:
        """Stop the worker, drop what is buffered, and wait until the source is closed.

        May be called from any thread, any number of times. Every waiting `next()` ends at once. The worker finishes the
        step it is in (that of an asynchronous source is cancelled), closes the source as `yield from` would (PEP 380),
        and ends. The end of a `with` block calls this.

        Args:
            timeout: Seconds to wait at most. None: as long as it takes.

        Returns:
            True once the worker has ended. False, with a RuntimeWarning that says where the source is, if it is still
            busy then: it stops by itself after the step. False also inside the source, which cannot wait for itself.
            True at once in a forked child, which has no worker.

        Raises:
            BaseException: What the source raised while it was being closed, once. If nobody calls `close`, that goes to
                `threading.excepthook`.
            TypeError: `timeout` is neither None nor a number.
            ValueError: `timeout` is negative, or not a number (NaN).

        >>> numbers = BackgroundGenerator(range(10))
        >>> next(numbers), numbers.close(), next(numbers, "closed")
        (0, True, 'closed')
        """
        ended = self._stop(timeout)
        return self._closed(self._worker.wait(timeout), timeout) if ended is None else ended

    def _stop(self, timeout: float | None) -> bool | None:
        """Stop the worker; return what `close` returns if it has nothing to wait for, else None."""
        deadline_after(timeout)  # a wrong timeout is refused before anything is stopped
        if self._process is not _process:
            return True
        self._worker.stop.set()
        return False if threading.get_ident() == self._channel.worker_ident else None

    def _closed(self, ended: bool, timeout: float | None) -> bool:
        """Warn if the worker has not ended, or raise what its source raised; return what `close` returns."""
        if ended:
            self._worker.raise_close_failure()
        else:
            warnings.warn(
                f"{self._label} did not stop within {timeout} seconds: its source is still {self._worker.where()}",
                RuntimeWarning,
                stacklevel=_level_of_caller(),
            )
        return ended

    def __aiter__(self) -> AsyncIterator[T_co]:
        """Return an asynchronous iterator over the same items, for tasks of asyncio or trio.

        `async for` calls this. A task that is cancelled or timed out while it waits loses no item.

        >>> import asyncio
        >>> async def total(n):
        ...     return sum([number async for number in BackgroundGenerator(range(n))])
        >>> asyncio.run(total(4))
        6
        """
        from prefetch_generator._async_consumer import AsyncConsumer  # noqa: PLC0415 - which few need

        return AsyncConsumer(self)

    async def aclose(self, timeout: float | None = 5.0) -> bool:
        """Do, return, warn and raise what `close()` does, without blocking the event loop of asyncio or trio.

        The worker is stopped before anything is awaited: if this is cancelled, the worker stops all the same. The end
        of an `async with` block awaits this.

        >>> async def total(n):
        ...     async with BackgroundGenerator(range(n)) as numbers:
        ...         return sum([number async for number in numbers])
        >>> import asyncio
        >>> asyncio.run(total(4))
        6
        """
        from prefetch_generator._async_consumer import wait_for_end  # noqa: PLC0415 - which few need

        ended = self._stop(timeout)
        return self._closed(await wait_for_end(self._worker, timeout), timeout) if ended is None else ended

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        worker = getattr(self, "_worker", None)  # absent if the constructor refused its arguments
        if worker is not None and self._process is _process:
            worker.abandon()

    @property
    def stop_event(self) -> StopEvent:
        """This generator's own `StopEvent`, set by `close()`, by dropping it and at exit. To set it is to stop it.

        Not the event that was handed in as `stop_event=`, whose setting sets this one.

        >>> numbers = BackgroundGenerator(range(10))
        >>> numbers.stop_event.set()
        >>> list(numbers)
        []
        """
        return self._worker.stop

    @property
    def stats(self) -> Stats:
        """A `Stats` record of what has happened so far, taken now.

        >>> numbers = BackgroundGenerator(range(3))
        >>> list(numbers), numbers.stats.delivered, numbers.stats.buffered
        ([0, 1, 2], 3, 0)
        """
        channel = self._channel
        return Stats(channel.delivered, channel.items.qsize(), channel.producer_wait, channel.consumer_wait)

    @property
    def __name__(self) -> str:
        """The source's name, as a generator's is its function's.

        >>> BackgroundGenerator(range(3)).__name__
        'range'
        """
        return self._name

    def __repr__(self) -> str:
        channel = self._channel
        bound = f"/{channel.max_prefetch}" if channel.max_prefetch < sys.maxsize else ""
        return f"<{self._label} {channel.state}, {channel.items.qsize()}{bound} buffered>"

    @property
    def _label(self) -> str:
        return f"{type(self).__name__} {self._name!r}"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"cannot copy or pickle {self._label}: its thread and its items exist only once, in this process"
        )


def checked_max_prefetch(max_prefetch: int) -> int:
    """Return `max_prefetch` as an int, or raise TypeError."""
    if not isinstance(max_prefetch, bool):
        try:
            return operator.index(max_prefetch)
        except TypeError:
            pass
    raise TypeError(f"max_prefetch must be an integer, got {max_prefetch!r}")


def is_iterable(iterable: object) -> TypeGuard[Iterable[Any]]:
    """Return whether `iter()` may take it."""
    return hasattr(type(iterable), "__iter__") or hasattr(type(iterable), "__getitem__")


def _make_source(iterable: object) -> Source:
    if isinstance(iterable, SourceMaker):
        return iterable.make_source()
    if is_iterable(iterable):  # an object with both sides is a synchronous source
        return Source(iterable, iter(iterable), produce, close_source)
    if not isinstance(iterable, AsyncIterable):
        raise TypeError(f"iterable must be an iterable, or an asynchronous one, got {iterable!r}")
    from prefetch_generator._async_source import make_source  # noqa: PLC0415 - which few need

    return make_source(iterable)


def close_source(source: Iterator[Any] | None) -> None:
    """Close it as `yield from` would (PEP 380)."""
    close: Any = getattr(source, "close", None)
    if close is None:
        return
    if isinstance(source, BackgroundGenerator):
        close(timeout=None)  # no hurry: whoever waits for the outer one has a timeout of their own
    else:
        close()


def _level_of_caller() -> int:
    """Return the `stacklevel` at which the caller of this function would name whoever called into this package."""
    level, frame = 1, sys._getframe(1)
    while is_ours(frame) and frame.f_back is not None:  # None: called by no Python code, such as an exit handler
        level, frame = level + 1, frame.f_back
    return level


def _name_of(iterable: object) -> str:
    try:
        name = getattr(iterable, "__name__", None)  # a generator's is its function's
    except Exception:  # a name is not worth failing for
        name = None
    return name if isinstance(name, str) else type(iterable).__name__


def _hint_of(iterable: object) -> int | None:
    # A source may well have a `__len__` that raises (PyTorch's samplers do): iteration never asks for it, so neither
    # may this fail.
    try:
        hint = operator.length_hint(iterable, -1)
    except Exception:
        return None
    return None if hint < 0 else hint
