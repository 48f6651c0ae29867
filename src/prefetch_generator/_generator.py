"""`BackgroundGenerator`, the public face: arguments, life cycle and looks."""

from __future__ import annotations

import operator
import sys
import threading
import warnings
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeVar

from prefetch_generator._bell import deadline_after
from prefetch_generator._handoff import Handoff, Receiver
from prefetch_generator._stop import StopEvent, own_event
from prefetch_generator._worker import Worker

if TYPE_CHECKING:
    from typing_extensions import Self  # type checkers bring it along, so it is no dependency

T_co = TypeVar("T_co", covariant=True)


class Stats(NamedTuple):
    """What a `BackgroundGenerator` has done so far. An immutable record.

    The larger of the two waits names the side that is *not* the bottleneck.
    """

    delivered: int
    """Items returned by `next()`."""
    buffered: int
    """Items ready and not yet taken."""
    producer_wait: float
    """Seconds the worker waited for room. A wait counts when it is over."""
    consumer_wait: float
    """Seconds that consumers waited for items. A wait counts when it is over."""


class BackgroundGenerator(Receiver[T_co]):
    """Iterate over `iterable` in a background thread, up to `max_prefetch` items ahead of whoever consumes them.

    The thread starts here. It ends with the source, by `close()`, at the end of a `with` block, when the last
    reference is dropped (by `break`, say), when a stop event is set, and at interpreter exit.

    Args:
        iterable: The source. Here only `iter(iterable)` is called, and the length hint (that is, `len` where there is
            one) and the name are asked for. The rest happens on the worker's thread, in a copy of the present
            `contextvars` context.
        max_prefetch: Items that may be ready or being made ahead of those delivered; 0 or less: no bound.
        stop_event: A `StopEvent` that others may set: the generator then ends at once, as if closed. Nothing that
            happens to the generator sets it.
        name: What to call it in `repr`, in messages and in the thread's name. The default is the source's own name.

    Raises:
        TypeError: An argument is of the wrong type.
        RuntimeError: No thread can be started; the source has not been touched.
        Exception: Whatever `iter(iterable)` raises.

    >>> with BackgroundGenerator(range(3), max_prefetch=2) as numbers:
    ...     [number * 10 for number in numbers]
    [0, 10, 20]
    """

    __slots__ = ("_hint", "_name", "_worker")

    def __init__(
        self,
        iterable: Iterable[T_co],
        max_prefetch: int = 2,
        *,
        stop_event: StopEvent | None = None,
        name: str | None = None,
    ) -> None:
        depth = checked_max_prefetch(max_prefetch)
        if stop_event is not None and not isinstance(stop_event, StopEvent):
            raise TypeError(f"stop_event must be a StopEvent or None, got {stop_event!r}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a string or None, got {name!r}")
        self._name = _name_of(iterable) if name is None else name
        self._hint = _hint_of(iterable)
        self._handoff = handoff = Handoff[T_co](depth)
        handoff.owner = owner = weakref.ref(self, handoff.wake.put)
        stop = own_event(owner, stop_event, handoff)
        self._worker = worker = Worker(iterable, iter(checked_iterable(iterable)), handoff, stop)
        try:
            worker.start(f"BackgroundGenerator-{self._name}", self)
            # Last, and without a point where a signal handler could run: before it the source is untouched, after it
            # the constructor can no longer fail.
            worker.allowed = True
            for _ in worker.allow:
                break
        except BaseException:
            worker.disallow()
            raise

    def __iter__(self) -> Self:
        return self

    def __length_hint__(self) -> int:
        """Return the items still to come, as far as the source hinted at how many it has."""
        handoff = self._handoff
        if handoff.over or not handoff.open:
            return handoff.items.qsize() if handoff.open else 0  # whatever the source hinted at
        if self._hint is None:
            return NotImplemented  # type: ignore[no-any-return]  # Python's own word for "no hint"
        return max(0, self._hint - handoff.delivered)

    def close(self, timeout: float | None = 5.0) -> bool:
        """Stop the worker, drop what is buffered, and wait at most `timeout` seconds (None: as long as it takes).

        May be called from any thread, any number of times. Every waiting `next()` ends at once. The worker finishes
        the step it is in, closes the source as `yield from` would (PEP 380), and ends.

        Returns True once the worker has ended. False, with a RuntimeWarning that says where the source is, if it is
        still busy then: it stops by itself after the step. False also inside the source, which cannot wait for itself.
        True at once in a forked child, which has no worker.
        Raises, once, what the source raised while it was being closed. (If nobody calls `close`, that goes to
        `threading.excepthook`.) TypeError or ValueError if `timeout` is neither None nor a number of at least 0
        seconds.

        >>> numbers = BackgroundGenerator(range(10))
        >>> next(numbers), numbers.close(), next(numbers, "closed")
        (0, True, 'closed')
        """
        deadline_after(timeout)  # a wrong timeout is refused before anything is stopped
        handoff, worker = self._handoff, self._worker
        if handoff.forked:
            return True
        worker.stop.set()
        if threading.get_ident() == handoff.producer:
            return False
        if not worker.ended.wait(timeout):
            caller = sys._getframe().f_back  # None, if that is no Python code: an exit handler
            leaves_with = caller is not None and caller.f_code is BackgroundGenerator.__exit__.__code__
            warnings.warn(
                f"{self._label} did not stop within {timeout} seconds: its source is still {worker.where()}",
                RuntimeWarning,
                stacklevel=3 if leaves_with else 2,  # whoever called close() or left the `with` block
            )
            return False
        handoff.settle()
        worker.raise_close_failure()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        worker = getattr(self, "_worker", None)  # absent if the constructor refused its arguments
        if worker is not None and not self._handoff.forked:
            worker.abandon()

    @property
    def stop_event(self) -> StopEvent:
        """This generator's own stop event: set by `close()`, by dropping it and at exit. To set it is to stop it."""
        return self._worker.stop

    @property
    def stats(self) -> Stats:
        """What has happened so far: a `Stats` record, taken now."""
        handoff = self._handoff
        return Stats(handoff.delivered, handoff.items.qsize(), handoff.producer_wait, handoff.consumer_wait)

    @property
    def __name__(self) -> str:
        """The source's name, as a generator's is its function's."""
        return self._name

    def __repr__(self) -> str:
        handoff = self._handoff
        if not handoff.open:
            state = "closed"
        elif not handoff.over:
            state = "running"
        else:
            state = "failed" if handoff.failed else "finished"
        bound = f"/{handoff.depth}" if handoff.depth < sys.maxsize else ""
        return f"<{self._label} {state}, {handoff.items.qsize()}{bound} buffered>"

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


def checked_iterable(iterable: Iterable[T_co]) -> Iterable[T_co]:
    """Return `iterable`, or raise TypeError."""
    if not (hasattr(type(iterable), "__iter__") or hasattr(type(iterable), "__getitem__")):
        raise TypeError(f"iterable must be an iterable, got {iterable!r}")
    return iterable


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
