"""The worker: the thread that runs the source, from its first `next` to its `close`.

It knows the hand-off and its stop event, and cannot know the public object, whose module imports this one. That is
what makes collection work: as long as the thread runs, nothing it holds keeps the generator alive.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Iterator
from contextvars import copy_context
from functools import partial
from itertools import repeat
from queue import SimpleQueue
from threading import get_ident
from time import monotonic
from typing import Any

from prefetch_generator._handoff import Handoff, Once
from prefetch_generator._stop import StopEvent, enter_worker, raise_flag, subscribe

EXIT_GRACE = 1.0  # seconds that all workers together get at interpreter exit

_live: set[Worker] = set()  # the workers that have not ended; of those whose generator was dropped too


class Worker:
    """What a worker's thread and its owner share beside the hand-off."""

    __slots__ = ("abandoned", "allow", "close_failure", "ended", "handoff", "source", "stop", "thread", "verdict")

    def __init__(self, source: Iterator[Any], handoff: Handoff[Any], stop: StopEvent) -> None:
        self.source: Iterator[Any] | None = source  # until the thread takes it over
        self.handoff = handoff
        self.stop = stop
        self.verdict: SimpleQueue[bool] = SimpleQueue()  # whether the thread may touch the source; the first counts
        self.allow = map(self.verdict.put, repeat(True, 1))
        self.ended = StopEvent()
        self.close_failure = Once()  # what the source raised while it was being closed
        self.abandoned = False  # nobody is left who could call close()
        self.thread: threading.Thread | None = None
        subscribe(stop, handoff.cancel)

    def start(self, name: str) -> None:
        """Start the thread. It does not touch the source before `allow` is iterated."""
        thread = threading.Thread(target=copy_context().run, args=(_run, self), name=name, daemon=True)
        _live.add(self)
        thread.start()
        self.thread = thread
        # Bounded: the thread is past its last line, but ends under a lock of `threading` that an interrupted frame of
        # the very caller may hold, as when a signal handler closes the generator.
        self.handoff.settle = partial(thread.join, 1.0)
        if self.stop.is_set():  # by a parent that was set before we listened
            self.stop.set()

    def disallow(self) -> None:
        """End the thread, if there is one, without the source having been touched."""
        self.verdict.put(False)
        _live.discard(self)
        self.handoff.settle()

    def abandon(self) -> None:
        """Stop for want of an owner. Never waits; called by a finalizer, so at any bytecode of any thread."""
        self.abandoned = True
        try:
            self.verdict.put(False)  # counts only if the constructor has not come to its own verdict
            self.stop.set()
        except BaseException:  # a signal handler's: a finalizer cannot pass it on, and the stop must not be lost
            self.abandon()
            raise
        self.report()

    def report(self) -> None:
        """Give what the source raised while it was being closed to `threading.excepthook`, if nobody has had it."""
        failure = self.close_failure.take()
        if failure is not None:
            details = (type(failure), failure, failure.__traceback__, self.thread)
            threading.excepthook(threading.ExceptHookArgs(details))

    def where(self) -> str:
        """Return the file and line that the source is at."""
        frame = sys._current_frames().get(self.handoff.producer)
        # The outermost frame of the source, not the innermost, which is often deep in somebody else's library.
        while frame is not None:
            if frame.f_back is not None and frame.f_back.f_code in (_produce.__code__, _close.__code__):
                return f"at {frame.f_code.co_filename}, line {frame.f_lineno}"
            frame = frame.f_back
        return "in code that is not Python"


def _run(worker: Worker) -> None:
    handoff = worker.handoff
    source, worker.source = worker.source, None
    if source is not None and worker.verdict.get():
        enter_worker(worker.stop)
        handoff.producer = get_ident()
        outcome = _produce(handoff, source)
        if outcome is None or (isinstance(outcome, GeneratorExit) and not handoff.open):
            outcome = None
            failure = _close(source)
            if failure is not None:
                worker.close_failure.hold(failure)
                del failure
        del source  # before anybody can see the end: by then it is released
        handoff.producer = 0  # thread numbers are used again
        handoff.end(outcome)
        del outcome
    _live.discard(worker)
    worker.ended.set()
    if worker.abandoned:
        worker.report()


def _produce(handoff: Handoff[Any], source: Iterator[Any]) -> BaseException | None:
    """Run the source until it ends or is told to stop; return how it ended, None if it has not."""
    # One C call pulls and puts, so no frame of ours ever holds an item. `next` keeps StopIteration and its value,
    # which a `for` loop over the source would swallow.
    steps = map(handoff.items.put, source)
    try:
        while True:
            for _ in handoff.room():
                if not handoff.open:
                    return None
                next(steps)
                if handoff.bells:
                    handoff.ring()
    except BaseException as outcome:
        return _as_raised_by_source(outcome)


def _close(source: Iterator[Any]) -> BaseException | None:
    """Close the source as `yield from` would (PEP 380); return what that raised."""
    try:
        close = getattr(source, "close", None)
        if close is not None:
            close()
    except BaseException as failure:
        return _as_raised_by_source(failure)
    return None


def _as_raised_by_source(exception: BaseException) -> BaseException:
    # Without our frame, which says nothing to the user and would keep what it holds alive.
    traceback = exception.__traceback__
    return exception.with_traceback(traceback and traceback.tb_next)


@atexit.register  # runs when the non-daemon threads have ended, so whoever still consumes has had everything
def _stop_all() -> None:
    workers = _live.copy()
    for worker in workers:
        raise_flag(worker.stop)  # all flags before the first effect, so that no source takes it for the end of data
    for worker in workers:
        worker.stop.set()
    deadline = monotonic() + EXIT_GRACE
    for worker in workers:
        if worker.ended.wait(max(0.0, deadline - monotonic())):
            worker.report()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_live.clear)
