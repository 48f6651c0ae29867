"""The channel: items go down, room goes up. Here a worker and its consumers meet.

Guarantees
    1. Until it is cancelled, every item put in is taken out once, in order, wherever a signal handler strikes.
    2. At most `max_prefetch` items are in the buffer or being made.
    3. Nobody sleeps while there is something to do, nobody polls, and nobody is woken while nothing happens.
    4. No lock is held while Python code runs, so each method may be re-entered by a signal handler or a finalizer at
       any bytecode. (The bell of a thread is a lock, but one that is only slept on.)

What they rest on
    a. `SimpleQueue.put`, `get` and `qsize` are atomic, re-entrant and written in C (bpo-32576). They go through the
       queue's own lock, which orders memory on free-threaded builds, where a plain store and a later load are not.
    b. `for x in it:` over an iterator written in C cannot be split by a signal handler: see `_atomic`.
    c. Signal handlers run on the main thread only, and the worker never is that thread.

No lost wake-up, on either side: announce yourself, then look through the queue's lock, then sleep.

    worker                                     consumer
    request  store it in `wake_worker`           take   take an item          (the queue's lock)
    look     still full? (the queue's lock)      grant  iterate `wake_worker`
    sleep    on `wakeups`

Either *look* or *take* has the lock first. If *look*, then *request* came before *take*, so *grant* finds the request:
the worker gets its token, before or after it falls asleep. If *take*, then *look* sees the room, and the worker does
not sleep. A request is a `map` object that puts one token and is then exhausted, so it is granted once and there is no
flag to clear. A token too many (of an owner that vanishes, or, without the GIL, of a request that two have granted at
once) makes the worker look once more. A stop does as a consumer does: it stores `cancelled`, goes through the queue's
lock, and grants the request; *look* looks for it too.

A consumer that finds no item does the same with a *bell* of its own: it announces the bell in `bells`, looks for news,
which goes through the queue's lock, and sleeps on the bell; the worker puts the item, and then rings all bells. No
interrupt comes between *take* and *grant* (b), and none ever comes to the worker (c).
"""

from __future__ import annotations

import math
import sys
import threading
import weakref
from _queue import SimpleQueue  # the real one: gevent replaces `queue.SimpleQueue`
from collections.abc import Callable, Iterator
from itertools import count, repeat
from queue import Empty
from time import perf_counter
from typing import Any, Generic, Literal, TypeVar

from prefetch_generator._atomic import Once
from prefetch_generator._bell import Bell, make_bell, make_queue
from prefetch_generator._errors import NotReadyError
from prefetch_generator._stop import source_context

T = TypeVar("T")
OWN_SOURCE = "a source cannot iterate its own BackgroundGenerator: it would wait for itself"
_CIRCLE = "a source cannot iterate a BackgroundGenerator that waits, through others, for its own: none would ever go on"
_BATCH = 100  # items after which even an unbounded worker looks whether there still is a generator
NO_REQUEST: Iterator[object] = repeat(None, 0)  # a granted one; it stays exhausted, so everybody can share it

_ORDER: SimpleQueue[None] = SimpleQueue()  # always empty: one lock, which all go through

State = Literal["running", "finished", "failed", "closed"]


class Channel(Generic[T]):
    """What a worker and its consumers share: the buffer, who sleeps, and where in its life the generator is.

    A sleeper waits for the channel by putting a `Bell` into `bells`, whose `ring()` must not raise. To take an item, a
    consumer uses `take`, `wake_worker`, `deliveries`, `cancelled`, `over` and `busy_ident` directly; to report the end,
    `outcome`. The worker sets `worker_ident` and `busy_ident` at its beginning and its end. A source that does not wait
    in `room` stores a request of its own in `wake_worker`, or a count of its own in `deliveries`, and says how long it
    has waited (`producer_wait`).

    `take`, `wake_worker` and `deliveries` are prepared calls, made by iterating: see `_atomic`.
    """

    __slots__ = (
        "bells",
        "busy_ident",
        "cancelled",
        "complete",
        "consumer_wait",
        "counter",
        "deliveries",
        "items",
        "made_in",
        "max_prefetch",
        "outcome",
        "over",
        "owner",
        "producer_wait",
        "put",
        "take",
        "wake_worker",
        "wakeups",
        "worker_ident",
    )

    def __init__(self, max_prefetch: int, owner: object) -> None:
        self.max_prefetch = min(max_prefetch, sys.maxsize) if max_prefetch > 0 else sys.maxsize
        self.items: SimpleQueue[T] = SimpleQueue()
        self.put = self.items.put
        self.take: Iterator[T] = map(self.items.get, repeat(False))  # raises Empty, and goes on working
        self.counter = count()  # counts in C: `+= 1` by several consumers would lose some without the GIL
        # Iterated for each item that is delivered. A source in a process puts one here that also tells the child: to
        # wake the worker for that would take the GIL.
        self.deliveries: Iterator[object] = self.counter
        self.wakeups: SimpleQueue[object] = make_queue()  # the worker sleeps on it
        # Iterated, it wakes the worker, once; written by the worker alone.
        self.wake_worker: Iterator[object] = NO_REQUEST
        self.bells: set[Bell] = set()  # of the consumers that sleep
        # The generator. When there is none any more, this puts itself into `wakeups`: it stops the worker even if the
        # generator's finalizer, which is Python code, was interrupted before its first line.
        self.owner = weakref.ref(owner, self.wakeups.put)
        # The source that made this, if one did: once that one is to stop, what it has made counts as abandoned.
        self.made_in = source_context(threading.get_ident())
        self.cancelled = False  # from cancel() on nothing more is delivered
        self.over = False  # from finish() on: the worker is through with the source, and no item follows
        # How the source ended: StopIteration, or what it raised. Until that is known, it is an error, so that a worker
        # that breaks down, wherever in our own code, cannot make the data look complete.
        self.outcome: Once[BaseException] = Once()
        self.outcome.hold(RuntimeError("the worker broke down outside of the source: see the output of its thread"))
        self.complete = False  # True once the source has come to its own end
        self.worker_ident = 0  # the worker's thread, as long as it runs
        # The same, but 0 while the worker waits for room: then a consumer need not ask for its own ident, which takes a
        # tenth of its time. (A finalizer that calls `next()` on the worker just then is refused by `wait`.)
        self.busy_ident = 0
        # A wait counts when it is over; without the GIL consumers that share one object can lose some of these.
        self.producer_wait = 0.0
        self.consumer_wait = 0.0

    @property
    def state(self) -> State:
        """Where in its life the generator is. From "running" it goes to any other; every other can be closed."""
        if self.cancelled:
            return "closed"
        if not self.over:
            return "running"
        return "finished" if self.complete else "failed"

    @property
    def delivered(self) -> int:
        """How many items have been delivered."""
        return int(repr(self.counter)[len("count(") : -1])  # the one way to look at a count and not advance it

    # The worker's side. One thread, which no signal handler ever interrupts.

    def room(self) -> Iterator[None]:
        """Wait until there is room; return an iterator with one None for each item that may be pulled now.

        Does not wait once the channel is cancelled: whoever pulls looks at `cancelled` before each item.
        """
        # Only the worker adds, so the room it has seen cannot shrink: no need to look again for each item.
        while not self.cancelled:
            free = self.max_prefetch - self.items.qsize()
            if self.owner() is None:
                self.cancel()
            elif free > 0:
                return repeat(None, min(free, _BATCH))
            else:
                self._park()
        return repeat(None, 1)  # not none at all: the caller's loop would then never come to look

    def _park(self) -> None:
        started = perf_counter()
        self.wake_worker = map(self.wakeups.put, repeat(None, 1))
        if self.items.qsize() < self.max_prefetch or self.cancelled:
            next(self.wake_worker, None)  # grant it myself, unless a consumer was faster; either way one token comes
        self.busy_ident = 0
        self.wakeups.get()
        self.busy_ident = self.worker_ident
        self.wake_worker = NO_REQUEST
        self.producer_wait += perf_counter() - started

    def finish(self, outcome: BaseException | None) -> None:
        """Say that no further item comes, and why (None: for no new reason); the worker's last word here."""
        if outcome is not None:
            self.complete = issubclass(type(outcome), StopIteration)  # `isinstance` would ask the outcome itself
            self.outcome.hold(outcome)
        self.over = True  # after the last item and the outcome: who sees it finds both
        self.ring()
        if self.cancelled:
            self.drop()  # what the unfinished step still gave, be it an item or a failure

    # Anybody's side.

    def cancel(self) -> None:
        """Release everybody who waits, deliver nothing more. Never waits; runs no code but ours. `drop` has to follow.

        Wake first, drop later: a finalizer of an item may take its time.
        """
        self.cancelled = True  # first: an item put after this is dropped by the consumer that takes it, or by finish()
        self.items.qsize()  # for the queue's lock: see the proof above
        next(self.wake_worker, None)
        self.ring()

    def ring(self) -> None:
        """Wake every consumer that waits, after an item was put or the end was said."""
        # All, not one: a consumer that is woken and then interrupted would have to pass the wake-up on, and could
        # not do so for certain. (Of several that wait, all but one thus wake in vain.) Ring first and forget after:
        # interrupted in between, the ring is only repeated.
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

    # A consumer's side.

    def await_item(self, timeout: float | None, deadline: float | None) -> None:
        """Sleep until there is an item or an end to take; raise NotReadyError if there is none by the `deadline`."""
        if not self.wait(self.has_news, math.inf if deadline is None else deadline):
            raise NotReadyError(f"no item came within {timeout} seconds")

    def has_news(self) -> object:
        """Return whether a consumer has something to do: an item, or an end."""
        return self.items.qsize() or self.over or self.cancelled

    def is_over(self) -> bool:
        """Return whether the worker is through with the source."""
        return self.over

    @property
    def is_abandoned(self) -> bool:
        """True once it was closed or dropped, or if it was made by another source, which is to stop."""
        outer = self.made_in
        if outer is not None and outer is not source_context(threading.get_ident()) and outer.stop.is_set():
            return True
        return self.cancelled or self.owner() is None

    def wait(self, news: Callable[[], object], deadline: float) -> bool:
        """Sleep until there is `news`, or may be; return False if there is none by the `deadline`.

        A worker that is to stop while it waits here, for another generator, gets GeneratorExit.
        """
        # Not in `next`: whoever keeps the traceback of what strikes a sleeper keeps this frame, so it must not
        # hold the generator.
        me = threading.get_ident()
        if me == self.worker_ident:  # a finalizer, on the worker that was about to sleep or just woke
            raise RuntimeError(OWN_SOURCE)
        here = source_context(me)
        started = perf_counter()
        bell = make_bell()
        try:
            self.bells.add(bell)
            if here is not None:
                _kept = here.stop.listen(bell)  # while the bell is: see there
                here.raise_if_stopped()
                if deadline == math.inf and bell.alone:
                    here.waits_for = self, news
            # Granted already, in next(), unless a debugger or a trace function raised between two instructions there,
            # which costs the item; without this line it would cost a deadlock.
            next(self.wake_worker, None)
            if news():
                return True
            if here is not None and here.waits_for is not None:
                self.refuse_circle(me, news)
            return bell.sleep(deadline)
        finally:
            self.bells.discard(bell)
            if here is not None:
                here.waits_for = None
            waited = perf_counter() - started  # first: between the call and the sum another consumer could add its own
            self.consumer_wait += waited

    def refuse_circle(self, me: int, news: Callable[[], object]) -> None:
        """Raise RuntimeError if what this worker is about to wait for waits, through others, for this worker."""
        # Each says what it waits for before it looks here, so whoever closes a circle sees it; the lock orders the two.
        _ORDER.qsize()
        circle: list[tuple[Channel[Any], Callable[[], object]]] = [(self, news)]
        while circle[-1][0].worker_ident != me:
            awaited = _awaited_by(circle[-1][0].worker_ident)
            if awaited is None or awaited in circle:
                return
            circle.append(awaited)
        # That walk may have mixed moments. So walk back from the far end: only this thread could make news there, and
        # it is about to sleep; so the worker that waits for that news, if it still does, is stuck; so is the worker
        # that waits for that one; and so on, back to what this thread wants.
        after = None
        for wait in reversed(circle):
            channel, is_there = wait
            if (after is not None and _awaited_by(channel.worker_ident) is not after) or is_there():
                return
            after = wait
        if _awaited_by(me) is not None:
            raise RuntimeError(_CIRCLE)


def _awaited_by(ident: int) -> tuple[Channel[Any], Callable[[], object]] | None:
    """Return what a worker sleeps for; None also if it is to stop, and so will soon see GeneratorExit."""
    worker = source_context(ident)
    return None if worker is None or (worker.stop.is_set() and not worker.heard) else worker.waits_for
