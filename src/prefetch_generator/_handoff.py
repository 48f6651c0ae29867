"""The hand-off: items go down, room goes up. Here a worker and its consumers meet.

Guarantees
    1. Every item put in is taken out once, in order, whatever interrupts the consumer, wherever.
    2. At most `depth` items are in the buffer or being made.
    3. Nobody sleeps while there is something to do, nobody polls, and nobody is woken while nothing happens.
    4. No Python lock is held, ever: each method may be re-entered by a signal handler or a finalizer at any bytecode.

What they rest on
    a. `SimpleQueue.put`, `get` and `qsize` are atomic, re-entrant and written in C (bpo-32576). They go through the
       queue's own lock, which orders memory on free-threaded builds, where a plain store and a later load are not.
    b. `for x in it:` over an iterator written in C cannot be split by a signal handler: see `_atomic`.
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
import threading
from _queue import SimpleQueue  # the real one: gevent replaces `queue.SimpleQueue`
from collections.abc import Callable, Iterator
from itertools import count, repeat
from queue import Empty
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from prefetch_generator._atomic import Once, raise_held
from prefetch_generator._bell import Bell, deadline_after, make_bell, make_queue
from prefetch_generator._stop import raise_if_stopped, running, subscribe, unsubscribe

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_OWN_SOURCE = "a source cannot iterate its own BackgroundGenerator: it would wait for itself"
_CIRCLE = "a source cannot iterate a BackgroundGenerator that waits, through others, for its own: none would ever go on"
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


class NotReadyError(TimeoutError):
    """`next(timeout)` ran out of time. Nothing is lost: call it again.

    A class of its own, because the source may raise `TimeoutError` itself, which is forwarded, and is the end.
    """


class Handoff(Generic[T]):
    """What the worker and the consumers share. The worker's methods are here, the consumer's are in `Receiver`."""

    __slots__ = (
        "bells",
        "consumer_wait",
        "deliveries",
        "depth",
        "failed",
        "items",
        "made_in",
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
        self.wake: SimpleQueue[object] = make_queue()  # the worker sleeps on it
        self.parked = _NOBODY  # the worker's call for help; written by the worker alone
        self.bells: set[Bell] = set()  # the consumers' calls: each sleeps on its own
        # A weak reference to the generator that, when there is no generator any more, puts itself into `wake`. It stops
        # the worker even if the generator's finalizer, which is Python code, was interrupted before its first line.
        self.owner: Callable[[], object] = _yes
        self.made_in = running()  # the worker, if one made it: what its source holds is left when that is
        self.open = True  # until cancel()
        self.over = False  # until end(); then no item follows
        # How the source ended: StopIteration, or what it raised. Until that is known, it is an error, so that a worker
        # that breaks down, wherever in our own code, cannot make the data look complete.
        self.outcome: Once[BaseException] = Once()
        self.outcome.hold(RuntimeError("the worker broke down outside of the source: see the output of its thread"))
        self.failed = True
        self.process = _process
        self.producer = 0  # the worker's thread, as long as it runs
        self.pulling = 0  # the same, but not while it sleeps: it spares the consumers a call, a tenth of their time
        self.settle: Callable[[], object] = _yes  # waits for the worker's thread to be gone
        self.deliveries = count()  # counts in C: `+= 1` by several consumers would lose some without the GIL
        # A wait counts when it is over; without the GIL consumers that share one object can lose some of these.
        self.producer_wait = 0.0
        self.consumer_wait = 0.0

    @property
    def delivered(self) -> int:
        """How many items have been delivered."""
        return int(repr(self.deliveries)[len("count(") : -1])  # the one way to look at a count and not advance it

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
            self.drop()  # what the unfinished step still gave, be it an item or a failure

    # Anybody's side.

    def cancel(self) -> None:
        """Release everybody who waits, deliver nothing more. Never waits; runs no code but ours. `drop` has to follow.

        First to wake and then to drop: a finalizer of an item may take its time.
        """
        self.open = False  # first: an item put after this is dropped by the consumer that takes it, or by end()
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

    def drop(self) -> None:
        """Drop what is buffered and will not be delivered."""
        next(self.outcome.take)
        try:
            for _ in self.take:
                pass
        except Empty:
            pass

    def refuse(self) -> NoReturn:
        """Raise RuntimeError: nobody here can take an item."""
        if self.forked:
            raise RuntimeError("this generator was made before fork() and has no worker here: make it in the child")
        raise RuntimeError(_OWN_SOURCE)

    def await_item(self, timeout: float | None, deadline: float) -> None:
        """Sleep until there is an item or an end to take; raise NotReadyError if there is none by the `deadline`."""
        if not self.wait(self.has_news, deadline):
            raise NotReadyError(f"no item came within {timeout} seconds")

    def has_news(self) -> object:
        """Return whether a consumer has something to do: an item, or an end."""
        return self.items.qsize() or self.over or not self.open

    @property
    def is_left(self) -> bool:
        """True once it was closed or dropped, or is held only by another source that has been told to stop."""
        maker = self.made_in
        left_with_it = maker is not None and maker is not running() and maker.stop.is_set()
        return not self.open or self.owner() is None or left_with_it

    def has_ended(self) -> bool:
        """Return whether the worker is through with the source."""
        return self.over

    def wait(self, news: Callable[[], object], deadline: float) -> bool:
        """Sleep until there is `news`, or may be; return False if there is none by the `deadline`.

        A worker that is told to stop while it waits here, for another generator, gets GeneratorExit.
        """
        # Here and not in `Receiver`, for whoever keeps the traceback of what strikes a sleeper keeps this frame.
        if threading.get_ident() == self.producer:  # a finalizer, on the worker that was about to sleep or just woke
            self.refuse()
        here = running()
        started = perf_counter()
        bell = make_bell()
        watch = None
        try:
            self.bells.add(bell)
            if here is not None:
                watch = subscribe(here.stop, bell)
                raise_if_stopped()
                if deadline == math.inf and bell.alone:
                    here.waits_for = self, news
            # Answered already, in next(), unless a debugger or a trace function raised between two instructions there,
            # which costs the item; without this line it would cost a deadlock.
            for _ in self.parked:
                break
            if news():
                return True
            if here is not None and here.waits_for is not None:
                self._refuse_circle(news)
            return bell.sleep(deadline)
        finally:
            self.bells.discard(bell)
            if here is not None:
                here.waits_for = None
                unsubscribe(here.stop, bell)
            del watch
            self.consumer_wait += perf_counter() - started

    def _refuse_circle(self, news: Callable[[], object]) -> None:
        """Raise RuntimeError if what this worker is about to wait for waits, through others, for this worker."""
        # Each says what it waits for before it looks here, so whoever closes a circle sees it.
        me = threading.get_ident()
        circle: list[tuple[Handoff[Any], Callable[[], object]]] = [(self, news)]
        while circle[-1][0].producer != me:
            awaited = _awaited_by(circle[-1][0].producer)
            if awaited is None or awaited in circle:
                return
            circle.append(awaited)
        # All of that was not seen at one moment. So look again, from the end: there is no news of the last, and only
        # this thread could make some; so whoever still waits for that is stuck from now on, and can make none either;
        # and so on, back to what this thread wants.
        after = None
        for wait in reversed(circle):
            handoff, is_there = wait
            if (after is not None and _awaited_by(handoff.producer) is not after) or is_there():
                return
            after = wait
        if _awaited_by(me) is not None:
            raise RuntimeError(_CIRCLE)

    def raise_end(self) -> NoReturn:
        """Raise how it ended, to one consumer, and StopIteration to all others."""
        if self.open:
            self.settle()
            raise_held(self.outcome)
        if not self.open:  # perhaps by the same stop that this very worker has been told: not the end of the data
            raise_if_stopped()
        raise StopIteration


def _awaited_by(thread: int) -> tuple[Handoff[Any], Callable[[], object]] | None:
    """Return what a worker sleeps for; None also if it has been told to stop, and so will soon see GeneratorExit."""
    worker = running(thread)
    return None if worker is None or (worker.stop.is_set() and not worker.told) else worker.waits_for


class Receiver(Iterator[T_co]):
    """The consumer's end.

    `BackgroundGenerator` *is* one, and does not *have* one: an item that is passed up through one more call could be
    lost to an interrupt as that call returns.
    """

    __slots__ = ("__weakref__", "_handoff")
    _handoff: Handoff[T_co]

    def next(self, timeout: float | None = None) -> T_co:
        """Return the next item, waiting for it at most `timeout` seconds (None: as long as it takes).

        Raises NotReadyError if the time ran out (nothing is lost: call again), StopIteration with the source's return
        value at the end, and once, in its place, whatever exception the source raised. RuntimeError in a forked child,
        and in a source that would wait for itself. GeneratorExit, once, in a source that waits here and is told to
        stop. TypeError or ValueError if `timeout` is neither None nor a number of at least 0 seconds.

        >>> from prefetch_generator import BackgroundGenerator
        >>> BackgroundGenerator("abc").next(timeout=60)
        'a'
        """
        handoff = self._handoff
        deadline = math.inf if timeout is None else deadline_after(timeout)
        if handoff.process is not _process or (handoff.pulling and threading.get_ident() == handoff.pulling):
            handoff.refuse()
        while True:
            over = handoff.over  # before the look at the buffer: over and then empty is over for good
            try:
                # From the moment the item has left the buffer until `return` there is no call, no backward jump
                # and no condition that is false, so no signal handler runs and the item cannot be lost (see b).
                for item in handoff.take:
                    for _ in handoff.parked:
                        break
                    if handoff.open:
                        for _ in handoff.deliveries:
                            break
                        return item
            except Empty:
                pass
            if over or not handoff.open:
                handoff.raise_end()
            try:
                handoff.await_item(timeout, deadline)
            except BaseException:
                del self  # so that whoever keeps the traceback, as a notebook does, does not keep the generator running
                raise

    if TYPE_CHECKING:

        def __next__(self) -> T_co: ...  # without the timeout, as `Iterator` has it
    else:
        __next__ = next  # noqa: A003 - the method, as meant
