"""The worker: the thread that runs the source, from its first `next` to its `close`.

It knows the hand-off and its stop event, and cannot know the public object, whose module imports this one. That is
what makes collection work: as long as the thread runs, nothing it holds keeps the generator alive.
"""

from __future__ import annotations

import _thread
import atexit
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from itertools import repeat
from pathlib import Path
from queue import SimpleQueue
from threading import get_ident
from time import monotonic
from traceback import walk_tb
from typing import Any

from prefetch_generator._handoff import Handoff, Once, Receiver
from prefetch_generator._stop import StopEvent, announce_exit, enter_worker, renew_exit, tell

EXIT_GRACE = 1.0  # seconds that all workers together get at interpreter exit

_live: set[Worker] = set()  # the workers that have not ended, or have something to report; their generator may be gone


class Worker:
    """What a worker's thread and its owner share beside the hand-off.

    Whoever ends it does so through `stop`, which cancels the hand-off, which the thread sees. There are two exceptions:
    an owner that vanishes (`handoff.owner`), which needs no Python code, and a constructor that fails (`allowed`).
    """

    __slots__ = ("abandoned", "allow", "allowed", "close_failure", "ended", "handoff", "source", "stop", "thread")

    def __init__(self, source: Iterator[Any], handoff: Handoff[Any], stop: StopEvent) -> None:
        self.source: Iterator[Any] | None = source  # until the thread takes it over
        self.handoff = handoff
        self.stop = stop
        self.allowed: bool | None = None  # whether the thread may touch the source; None until the constructor knows
        self.allow = map(handoff.wake.put, repeat(None, 1))  # tells it, in one step
        self.ended = StopEvent()
        self.close_failure = Once()  # what the source raised while it was being closed
        self.abandoned = False  # nobody is left who could call close()
        self.thread: threading.Thread | None = None

    def start(self, name: str) -> None:
        """Start the thread. It does not touch the source before it is `allowed` to."""
        thread = threading.Thread(target=copy_context().run, args=(_run, self), name=name, daemon=True)
        started: SimpleQueue[BaseException | None] = SimpleQueue()
        _live.add(self)
        # Not `thread.start()`: that is Python code with locks, and where Ctrl-C ends it half-way, it leaves the thread
        # in the lists of `threading` for ever, or stuck. On another thread no signal handler runs.
        _thread.start_new_thread(_start, (thread, started))
        failure = started.get()
        if failure is not None:
            try:
                raise failure
            finally:
                del failure
        self.thread = thread
        self.handoff.settle = partial(_settle, thread)
        if self.stop.is_set():  # by a parent that was set before we listened
            self.stop.set()

    def disallow(self) -> None:
        """End the thread, if there is one, without the source having been touched."""
        _live.discard(self)
        self.allowed = False
        self.handoff.wake.put(None)
        self.handoff.settle()

    def abandon(self) -> None:
        """Stop for want of an owner. Never waits; called by a finalizer, so at any bytecode of any thread."""
        self.abandoned = True
        self.stop.set()
        self.report()

    def report(self) -> None:
        """Give what the source raised while it was being closed to `threading.excepthook`, if nobody has had it."""
        failure = self.close_failure.take()
        if failure is not None:
            _live.discard(self)
            details = (type(failure), failure, failure.__traceback__, self.thread)
            threading.excepthook(threading.ExceptHookArgs(details))

    def raise_close_failure(self) -> None:
        """Raise it, if nobody has had it."""
        _live.discard(self)
        self.close_failure.raise_it()

    def where(self) -> str:
        """Return the place that the source is at: the outermost frame that is not ours.

        Not the innermost, which is often deep in somebody else's library. Where all are ours, the source is another
        generator, and that knows.
        """
        nowhere = "in code that is not Python"
        place, inner = "", None
        ours = Path(_run.__code__.co_filename).parent
        frame = sys._current_frames().get(self.handoff.producer)
        while frame is not None and frame.f_code is not _run.__code__:
            if Path(frame.f_code.co_filename).parent != ours:
                place = f"at {frame.f_code.co_filename}, line {frame.f_lineno}"
            elif isinstance(frame.f_locals.get("self"), Receiver):
                inner = frame.f_locals["self"]
            frame = frame.f_back
        if frame is None:
            return nowhere
        return place or (inner._worker.where() if inner else nowhere)


def _start(thread: threading.Thread, started: SimpleQueue[BaseException | None]) -> None:  # pragma: no cover
    # Every generator runs this, but on a thread that coverage cannot follow: `threading` has not started it.
    try:
        thread.start()
    except BaseException as failure:
        started.put(failure)
    else:
        started.put(None)


def _settle(thread: threading.Thread) -> None:
    """Wait for the few microseconds between the worker's last line and the end of its thread."""
    # Bounded, for the thread ends under a lock of `threading` that an interrupted frame of the very caller may hold, as
    # when a signal handler closes the generator.
    try:
        thread.join(1.0)
    except (AssertionError, RuntimeError) as error:
        # Errors of `threading`: a finalizer, on the worker itself after its last line, cannot wait for that thread; and
        # before 3.13, if two threads see the end at once, one may release the lock that the other has just acquired.
        # Any other error is a signal handler's.
        files = [frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__)]
        if files[-1] != threading.__file__:
            raise


def _run(worker: Worker) -> None:
    handoff = worker.handoff
    handoff.pulling = handoff.producer = get_ident()
    enter_worker(worker.stop)
    source, worker.source = worker.source, None
    outcome = None
    try:
        while worker.allowed is None and handoff.owner() is not None:
            handoff.wake.get()
        if source is not None and worker.allowed:
            outcome = _end(worker, source, _produce(handoff, source))
    finally:
        del source  # before anybody can see the end: by then it is released
        handoff.end(outcome)
        del outcome
        if not worker.close_failure:  # else there is still something to report, at exit at the latest
            _live.discard(worker)
        worker.ended.set()
        if worker.abandoned or handoff.owner() is None:
            worker.report()
        handoff.pulling = handoff.producer = 0  # last, for the number of a thread is used again after its end


def _produce(handoff: Handoff[Any], source: Iterator[Any]) -> BaseException | None:
    """Run the source until it ends or is told to stop; return how it ended, None if it has not."""
    put = handoff.items.put
    try:
        while True:
            for _ in handoff.room():
                if not handoff.open:
                    return None
                put(next(source))  # no frame of ours ever holds an item
                if handoff.bells:
                    handoff.ring()
    except BaseException as outcome:
        return _as_raised_by_source(outcome)


def _end(worker: Worker, source: Iterator[Any], outcome: BaseException | None) -> BaseException | None:
    """Return `outcome` if the source ended by itself; else see it closed, and return None."""
    told = tell()
    if worker.stop.is_set():
        # Completely, before anybody can see an end: perhaps somebody else is just about to, or the owner vanished
        # without a word; and a source that ends because it heard of the stop has not come to the end of its data.
        worker.stop.set()
    if outcome is not None and not told:
        return outcome
    if told and issubclass(type(outcome), StopIteration):
        return None  # told by GeneratorExit at a wait, a source may simply end, as a generator may in `close()`
    if outcome is None or issubclass(type(outcome), GeneratorExit):
        _close(worker, source)
    else:
        worker.close_failure.hold(outcome)
    return None


def _close(worker: Worker, source: Iterator[Any]) -> None:
    """Close the source as `yield from` would (PEP 380), and keep what that raises for `close()`."""
    try:
        close: Callable[..., object] | None = getattr(source, "close", None)
        if close is not None and isinstance(source, Receiver):
            # A generator directly over another: no hurry, for whoever waits for us has a timeout of their own.
            close = partial(close, timeout=None)
        if close is not None:
            close()
    except BaseException as failure:
        # Held from here, whose name for it ends with the clause: the source's frame refers to its callers' frames, and
        # a caller that still named the failure would close a cycle.
        worker.close_failure.hold(_as_raised_by_source(failure))


def _as_raised_by_source(exception: BaseException) -> BaseException:
    # Without our own frame, which says nothing to the user and would keep what it holds alive. Through `sys` and
    # `BaseException`, for an exception may have attributes of these names that raise.
    traceback = sys.exc_info()[2]
    return BaseException.with_traceback(exception, traceback and traceback.tb_next)


@atexit.register  # runs when the non-daemon threads have ended, so whoever still consumes has had everything
def _stop_all() -> None:
    workers = _live.copy()
    announce_exit()  # to all, before the first of them ends, so that no source takes that for the end of the data
    for worker in workers:
        worker.stop.set()
    deadline = monotonic() + EXIT_GRACE
    for worker in workers:
        if worker.ended.wait(max(0.0, deadline - monotonic())):
            worker.report()


def _after_fork_in_child() -> None:
    _live.clear()
    renew_exit()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
