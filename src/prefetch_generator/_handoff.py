"""The hand-off: items go down, room goes up. Here a worker and its consumers meet.

Guarantees
    1. Every item put in is taken out once, in order, whatever interrupts the consumer, wherever.
    2. At most `depth` items are in the buffer or being made.
    3. Nobody sleeps while there is something to do, nobody polls, and nobody is woken while nothing happens.
    4. No Python lock is held, ever: each method may be re-entered by a signal handler or a finalizer at any bytecode.

What they rest on
    a. `SimpleQueue.put`, `get` and `qsize` are atomic, re-entrant and written in C (bpo-32576). They go through the
       queue's own lock, which orders memory on free-threaded builds, where a plain store and a later load are not.
    b. CPython runs signal handlers when a call returns, on a backward jump and on function entry, nowhere else.
       `x = queue.get()` can thus lose `x` between the call and the store. But `for x in it:` over an iterator
       written in C stores what it got with no such point in between. So whatever may be lost only once is taken
       through a `map` object that was made beforehand, and `for _ in it: break` is a call without a window.
       (3.10 also has such a point where a condition is false; the lines below are written so that none is.)
    c. Signal handlers run on the main thread only, and the worker never is that thread.

No lost wake-up, on either side: announce yourself, then look through the queue's lock, then sleep.

    worker                                     consumer
    parked = a call for help                   take an item             (the queue's lock)
    is the buffer still full?  (the lock)      parked? answer the call
    sleep

If the worker's look comes before the consumer's take, the announcement does too, and the consumer, which looks after
its take, answers. If it comes after, the worker sees the room and does not sleep. The consumer that waits for an item
does the same with its bell. A call for help is a `map` object that puts one token and is then exhausted, so it is
answered once, and there is no flag that somebody would have to clear.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from itertools import repeat
from queue import Empty, SimpleQueue
from threading import get_ident
from time import perf_counter
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

from prefetch_generator._stop import (
    Bell,
    deadline_after,
    raise_if_stopped,
    subscribe,
    unsubscribe,
    worker_stop_event,
)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_OWN_SOURCE = "a source cannot iterate its own BackgroundGenerator: it would wait for itself"
_BATCH = 100  # items after which even an unbounded worker looks whether there still is a generator
_NOBODY: Iterator[None] = repeat(None, 0)  # an answered call; it stays exhausted, so everybody can share it
_process = object()  # stands for this process; a forked child gets another


def _after_fork_in_child() -> None:
    global _process  # noqa: PLW0603 - compared for every item: an attribute of a holder would cost more
    _process = object()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _yes() -> object:
    return True


class Once:
    """An exception that is raised at most once, by whoever asks first, and not kept after that."""

    __slots__ = ("_held", "_take")

    def __init__(self) -> None:
        self._held: dict[str, BaseException] = {}
        # `dict.pop` with a default never raises, so an exception on its way out cannot be mistaken for its absence.
        self._take: Iterator[BaseException | None] = map(self._held.pop, repeat("it"), repeat(None))

    def __bool__(self) -> bool:
        return bool(self._held)

    def hold(self, exception: BaseException) -> None:
        self._held["it"] = exception

    def take(self) -> BaseException | None:
        return next(self._take)

    def raise_it(self) -> None:
        """Raise the exception if it is still here."""
        for exception in self._take:
            if exception is not None:
                try:
                    raise exception
                finally:
                    del exception  # else this frame, in the traceback, would keep it: a cycle
            break


class Handoff(Generic[T]):
    """What the worker and the consumers share. The worker's methods are here, the consumer's are in `Receiver`."""

    __slots__ = (
        "bells",
        "consumer_wait",
        "delivered",
        "depth",
        "failed",
        "items",
        "open",
        "outcome",
        "over",
        "owner",
        "parked",
        "process",
        "producer",
        "producer_wait",
        "pulling",
        "settle",
        "take",
        "wake",
    )

    def __init__(self, max_prefetch: int) -> None:
        self.depth = min(max_prefetch, sys.maxsize) if max_prefetch > 0 else sys.maxsize
        self.items: SimpleQueue[T] = SimpleQueue()
        self.take: Iterator[T] = map(self.items.get, repeat(False))  # raises Empty, and goes on working
        self.wake: SimpleQueue[object] = SimpleQueue()  # the worker sleeps on it
        self.parked = _NOBODY  # the worker's call for help; written by the worker alone
        self.bells: set[Bell] = set()  # the consumers' calls: each sleeps on its own
        # A weak reference to the generator that, when there is no generator any more, puts itself into `wake`. It stops
        # the worker even if the generator's finalizer, which is Python code, was interrupted before its first line.
        self.owner: Callable[[], object] = _yes
        self.open = True  # until cancel()
        self.over = False  # until end(); then no item follows
        self.failed = False
        self.outcome = Once()  # how the source ended: StopIteration, or what it raised
        self.process = _process
        self.producer = 0  # the worker's thread, as long as it runs
        self.pulling = 0  # the same, but not while it sleeps: it spares the consumers a call, a tenth of their time
        self.settle: Callable[[], object] = _yes  # waits for the worker's thread to be gone
        # Under the GIL `+=` on these is atomic: it has no point where threads are switched. Without it, consumers
        # that share one object can lose a count of each other; nothing but `Stats` depends on them.
        self.delivered = 0
        self.producer_wait = 0.0
        self.consumer_wait = 0.0

    @property
    def forked(self) -> bool:
        """True in a forked child, which has the buffer and not the worker."""
        return self.process is not _process

    # The worker's side. One thread, which no signal handler ever interrupts.

    def room(self) -> Iterator[None]:
        """Wait until there is room; return an iterator with one None for each item that may be pulled.

        Does not wait once the hand-off is cancelled: whoever pulls looks at `open` before each item.
        """
        # Only the worker adds, so the room it has seen cannot shrink: no need to look again for each item.
        while self.open:
            free = self.depth - self.items.qsize()
            if self.owner() is None:
                self.cancel()
            elif free > 0:
                return repeat(None, min(free, _BATCH))
            else:
                self._park()
        return repeat(None, 1)

    def _park(self) -> None:
        started = perf_counter()
        self.parked = map(self.wake.put, repeat(None, 1))
        if self.items.qsize() < self.depth or not self.open:
            for _ in self.parked:  # answer myself, unless a consumer was faster; either way one token comes
                break
        self.pulling = 0
        self.wake.get()
        self.pulling = self.producer
        self.parked = _NOBODY
        self.producer_wait += perf_counter() - started

    def end(self, outcome: BaseException | None) -> None:
        """Say that no further item comes, and why; the worker's last word here."""
        if outcome is not None:
            self.failed = not issubclass(type(outcome), StopIteration)  # `isinstance` would ask the outcome itself
            self.outcome.hold(outcome)
        self.over = True  # after the last item and the outcome: who sees it finds both
        self.ring()
        if not self.open:
            self._clear()  # what the unfinished step still gave, be it an item or a failure

    # Anybody's side.

    def cancel(self) -> None:
        """Drop what is buffered, release everybody who waits, deliver nothing more. Never waits."""
        self.open = False  # first: an item put after this is dropped by the consumer that takes it, or by end()
        self._clear()
        for _ in self.parked:
            break
        self.ring()

    def ring(self) -> None:
        """Wake every consumer that waits, after an item was put or the end was told."""
        # All, not one: a consumer that is woken and then interrupted would have to pass the wake-up on, and could
        # not do so for certain. (Of several that wait, all but one thus wake in vain.) Ring first and forget after:
        # interrupted in between, the call is only repeated.
        for bell in self.bells.copy():
            bell.ring()
            self.bells.discard(bell)

    def _clear(self) -> None:
        self.outcome.take()
        try:
            for _ in self.take:
                pass
        except Empty:
            pass


class Receiver(Iterator[T_co]):
    """The consumer's end.

    `BackgroundGenerator` *is* one, and does not *have* one: an item that is passed up through one more call could be
    lost to an interrupt as that call returns.
    """

    __slots__ = ("__weakref__", "_handoff")
    _handoff: Handoff[T_co]

    def next(self, timeout: float | None = None) -> T_co:
        """Return the next item, waiting for it at most `timeout` seconds (None: as long as it takes).

        Raises TimeoutError if the time ran out (nothing is lost: call again), StopIteration with the source's return
        value at the end, and once, in its place, whatever exception the source raised. RuntimeError in a forked child
        and inside the source itself. GeneratorExit, once, in a source that waits here and is told to stop.
        TypeError or ValueError if `timeout` is neither None nor a number of at least 0 seconds.

        >>> from prefetch_generator import BackgroundGenerator
        >>> BackgroundGenerator("abc").next(timeout=60)
        'a'
        """
        handoff = self._handoff
        deadline = math.inf if timeout is None else deadline_after(timeout)
        if handoff.process is not _process:
            raise RuntimeError("this generator was made before fork() and has no worker here: make it in the child")
        if handoff.pulling and get_ident() == handoff.pulling:
            raise RuntimeError(_OWN_SOURCE)
        while True:
            over = handoff.over  # before the look at the buffer: over and then empty is over for good
            try:
                # From the moment the item has left the buffer until `return` there is no call, no backward jump
                # and no condition that is false, so no signal handler runs and the item cannot be lost (see b).
                for item in handoff.take:
                    for _ in handoff.parked:
                        break
                    if handoff.open:
                        handoff.delivered += 1
                        return item
            except Empty:
                pass
            if over or not handoff.open:
                self._raise_end()
            if not self._wait_for_item(deadline):
                raise TimeoutError(f"no item came within {timeout} seconds")

    if TYPE_CHECKING:

        def __next__(self) -> T_co: ...  # without the timeout, as `Iterator` has it
    else:
        __next__ = next  # noqa: A003 - the method, as meant

    def _wait_for_item(self, deadline: float) -> bool:
        """Sleep until there may be an item, or an end, to take; return False if there is none by the `deadline`.

        A worker that is told to stop while it waits here, for another generator, gets GeneratorExit.
        """
        handoff = self._handoff
        if get_ident() == handoff.producer:  # a finalizer, on the worker that was about to sleep or has just woken
            raise RuntimeError(_OWN_SOURCE)
        started = perf_counter()
        bell = Bell()
        stop = worker_stop_event()
        watch = None
        try:
            handoff.bells.add(bell)
            if stop is not None:
                watch = subscribe(stop, bell)
                raise_if_stopped()
            # Answered already, in next(), unless a debugger or a trace function raised between two instructions there,
            # which costs the item; without this line it would cost a deadlock.
            for _ in handoff.parked:
                break
            return bool(handoff.items.qsize() or handoff.over or not handoff.open or bell.sleep(deadline))
        finally:
            handoff.bells.discard(bell)
            if stop is not None:
                unsubscribe(stop, bell)
            del watch
            handoff.consumer_wait += perf_counter() - started

    def _raise_end(self) -> NoReturn:
        handoff = self._handoff
        if handoff.open:
            handoff.settle()
            handoff.outcome.raise_it()
        if not handoff.open:  # perhaps by the same stop that this very worker has been told: not the end of the data
            raise_if_stopped()
        raise StopIteration
