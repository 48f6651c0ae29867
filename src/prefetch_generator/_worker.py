"""The worker: the thread that runs the source, from its first `next` to its `close`.

It knows the hand-off and its stop event, and cannot know the public object, whose module imports this one. That is
what makes collection work: as long as the thread runs, nothing it holds keeps the generator alive.
"""

from __future__ import annotations

import _thread
import atexit
import gc
import io
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from contextvars import Context, copy_context
from functools import partial
from itertools import repeat
from time import monotonic
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

from prefetch_generator._atomic import Once, raise_held
from prefetch_generator._bell import make_queue
from prefetch_generator._handoff import Handoff, NotReadyError, Receiver
from prefetch_generator._stop import StopEvent, announce_exit, enter_worker, leave_worker, set_all, tell

if TYPE_CHECKING:
    from queue import SimpleQueue

EXIT_GRACE = 1.0  # seconds that all workers together get at interpreter exit

_live: set[Worker] = set()  # the workers that have not ended, or have something to report; their generator may be gone


def handoffs_of(iterable: object) -> list[Handoff[Any]]:
    """Return the hand-offs of all workers that iterate this very object."""
    return [worker.handoff for worker in _live.copy() if worker.iterable is iterable]


class Worker:
    """What a worker's thread and its owner share beside the hand-off.

    Whoever ends it does so through `stop`, which cancels the hand-off, which the thread sees. There are two exceptions:
    an owner that vanishes (`handoff.owner`), which needs no Python code, and a constructor that fails (`allowed`).
    """

    __slots__ = (
        "abandoned",
        "allow",
        "allowed",
        "close_failure",
        "ended",
        "handoff",
        "iterable",
        "kept",
        "last_look",
        "source",
        "stop",
        "thread",
    )

    def __init__(self, iterable: Iterable[Any], source: Iterator[Any], handoff: Handoff[Any], stop: StopEvent) -> None:
        self.iterable: Iterable[Any] | None = iterable  # what the source iterates, until it is released
        self.source: Any = source  # None when it has been released
        self.handoff = handoff
        self.stop = stop
        self.allowed: bool | None = None  # whether the thread may touch the source; None until the constructor knows
        self.allow = map(handoff.wake.put, repeat(None, 1))  # tells it, in one step
        self.ended = StopEvent()
        self.close_failure: Once[BaseException] = Once()  # what the source raised while it was being closed
        self.abandoned = False  # nobody is left who could call close()
        self.thread: threading.Thread | None = None
        self.last_look: object = None  # a weak reference that sees the thread end, whatever else has failed there
        self.kept: object = None  # what a thread that is frozen at exit keeps alive

    def start(self, name: str, owner: object) -> None:
        """Start the thread. It does not touch the source before it is `allowed` to."""
        started, lent, failed = make_queue(), make_queue(), Once[BaseException]()
        # Without the GIL, an object that is dropped by another thread than its maker's is freed only when its maker
        # next runs: a generator made by a thread that sleeps would go on. Unless another thread has had a reference
        # that came through a queue: the two counts are made one then, and who drops the last reference frees it.
        lent.put(owner)
        lent.put(self.source)
        _live.add(self)
        _hear_of_the_end_of_a_child()
        # Not `thread.start()`: that is Python code with locks, and where Ctrl-C ends it half-way, it leaves the thread
        # in the lists of `threading` for ever, or stuck. On another thread no signal handler runs.
        _thread.start_new_thread(_start, (self, name, copy_context(), lent, started, failed))
        started.get()
        raise_held(failed)
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
        failure = next(self.close_failure.take)
        if failure is not None:
            _live.discard(self)
            details = (type(failure), failure, failure.__traceback__, self.thread)
            threading.excepthook(threading.ExceptHookArgs(details))

    def raise_close_failure(self) -> None:
        """Raise it, if nobody has had it."""
        _live.discard(self)
        raise_held(self.close_failure)

    def where(self) -> str:
        """Return the place that the source is at: the outermost frame that is not ours.

        Not the innermost, which is often deep in somebody else's library. Where all are ours, the source is another
        generator, and that knows.
        """
        for _ in range(20):  # without the GIL the source may run on meanwhile; then the walk may miss the way out
            place = self._look()
            if place:
                return place
        return "in code that is not Python"

    def _look(self) -> str:
        place, inner = "", None
        frame = sys._current_frames().get(self.handoff.producer)
        while frame is not None and frame.f_code is not _run.__code__:
            # By its name: a frozen application has no files, or calls them otherwise.
            if str(frame.f_globals.get("__name__")).partition(".")[0] != __name__.partition(".")[0]:
                place = f"at {frame.f_code.co_filename}, line {frame.f_lineno}"
            elif isinstance(frame.f_locals.get("self"), Receiver):
                inner = frame.f_locals["self"]
            frame = frame.f_back
        if frame is None:
            return ""
        return place or (inner._worker.where() if inner else "")


def _start(  # noqa: PLR0913, PLR0917 - all that there is on either side
    worker: Worker,
    name: str,
    context: Context,
    lent: SimpleQueue[object],
    started: SimpleQueue[None],
    failed: Once[BaseException],
) -> None:  # pragma: no cover - every generator runs it, but on a thread that coverage cannot follow
    try:
        lent.get()
        lent.get()
        target = partial(context.run, _run, worker)
        worker.last_look = weakref.ref(target, partial(_look_again, worker))
        worker.thread = thread = threading.Thread(target=target, name=name, daemon=True)
        worker.handoff.settle = partial(_settle, thread)
        del target  # the thread has it, until it ends
        thread.start()
    except BaseException as failure:
        worker.thread = None
        failed.hold(failure)
    else:
        if thread.ident is None:
            failed.hold(RuntimeError("threading.Thread.start, which something has replaced, started no thread"))
    finally:
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
        # Any other error is a signal handler's. (Told by the names they see: a frozen application has no files.)
        *_, last = (frame for frame, _ in walk_tb(error.__traceback__))
        if last.f_globals is not vars(threading):
            raise


def _run(worker: Worker) -> None:
    try:
        outcome = _run_source(worker)
    except BaseException as failure:  # of our own code, or of what it stands on: never to be taken for the end
        outcome = failure
        if worker.allowed:
            _close(worker, worker.source)  # for what failed was not the source
    worker.source = worker.iterable = None  # before anybody can see the end: by then the source is released
    worker.handoff.end(outcome)
    del outcome
    _finish(worker)


def _run_source(worker: Worker) -> BaseException | None:
    handoff = worker.handoff
    handoff.pulling = handoff.producer = threading.get_ident()
    enter_worker(worker.stop)
    while worker.allowed is None and handoff.owner() is not None:
        handoff.wake.get()
    if not worker.allowed:
        return None
    # The outcome gets no name here: the frame of a source that failed refers to its callers' frames, and a caller that
    # still named the failure would close a cycle.
    return _end(worker, _produce(handoff, worker.source))


def _finish(worker: Worker) -> None:
    """Let everybody know that the thread is over; may be done again."""
    handoff = worker.handoff
    if not worker.close_failure:  # else there is still something to report, at exit at the latest
        _live.discard(worker)
    worker.ended.set()
    if worker.abandoned or handoff.owner() is None:
        worker.report()
    leave_worker(handoff.producer)
    handoff.pulling = handoff.producer = 0  # last, for the number of a thread is used again after its end


def _look_again(worker: Worker, _: object) -> None:
    """See, when all code of the thread is through, that it has come to its last line."""
    if not worker.ended.is_set() or worker.handoff.producer:
        worker.handoff.end(None)  # which leaves the outcome as it is: what is known, or else an error
        _finish(worker)


def _produce(handoff: Handoff[Any], source: Iterator[Any]) -> BaseException | None:
    """Run the source until it ends or is told to stop; return how it ended, None if it has not."""
    put = handoff.items.put
    while True:
        for _ in handoff.room():
            if not handoff.open:
                return None
            try:
                put(next(source))  # no frame of ours ever holds an item
            except BaseException as outcome:
                return _as_raised_by_source(outcome)
            if handoff.bells:
                handoff.ring()


def _end(worker: Worker, outcome: BaseException | None) -> BaseException | None:
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
        _close(worker, worker.source)
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
    BaseException.with_traceback(exception, traceback and traceback.tb_next)
    if not issubclass(type(exception), NotReadyError):
        return exception
    # Of a generator inside the source. Forwarded as it is, it would say that it is worth calling again, and whoever
    # does so would take the end that follows for the end of the data (PEP 479 has the same for StopIteration).
    error = RuntimeError("the source raised NotReadyError")
    error.__cause__ = exception
    return error


# The end of the process. `atexit` runs when the non-daemon threads have ended, so whoever still consumes has had
# everything by then. A child that `multiprocessing` has started ends by `os._exit`, and runs finalizers of its own.


@atexit.register
def _stop_all() -> None:
    workers = _live.copy()
    announce_exit()  # to all, before the first of them ends, so that no source takes that for the end of the data
    deadline = monotonic() + EXIT_GRACE
    set_all([worker.stop for worker in workers])
    stuck = [worker for worker in workers if not worker.ended.wait(max(0.0, deadline - monotonic()))]
    kept = _readers() if stuck else None
    for worker in stuck:
        worker.kept = kept
    _live.difference_update(stuck)  # whoever comes here again, as a spawned child does, need not wait again
    with ExitStack() as stack:  # a hook that raises stops no other report
        for worker in workers.difference(stuck):
            stack.callback(worker.report)


def _readers() -> list[object]:
    """Return the standard input and all that reads a buffer.

    A thread that sits in `BufferedReader.read` holds that file's lock, is frozen with it, and when what reads the file
    is freed, which closes it, the interpreter aborts. What a frozen thread's frames hold is never freed.
    """
    # `type`, for `isinstance` would ask the object. One that also writes must be freed, to flush what it has.
    files = (one for one in gc.get_objects() if issubclass(type(one), io.TextIOWrapper))
    return [sys.stdin, sys.__stdin__, *filter(_reads_only, files)]


def _reads_only(file: io.TextIOWrapper) -> bool:
    try:
        return type(file.buffer) is io.BufferedReader
    except Exception:  # it is detached from its buffer, or not even initialised
        return False


class _Child:
    """What `multiprocessing` knows of us."""

    finalizer: Any = None
    is_awaited = False  # the moment at which a child forgets the finalizers that it had


def _hear_of_the_end_of_a_child() -> None:
    """In a child of `multiprocessing`, see that `_stop_all` runs at its end."""
    util, process = map(sys.modules.get, ("multiprocessing.util", "multiprocessing.process"))
    if util is None or process is None:
        return  # then this is no such child
    if not _Child.is_awaited:
        # For a worker of the main module, which a spawned child imports before it forgets its finalizers.
        _Child.is_awaited = True
        util.register_after_fork(_Child, _register_finalizer)
    if process.parent_process() is None or (_Child.finalizer and _Child.finalizer.still_active()):
        return
    _register_finalizer()
    if util._exiting:  # pragma: no cover - a child that ends by os._exit reports nothing
        # The finalizers have been run, and only threads are waited for. This is one of them.
        threading.Thread(target=_stop_all_after_the_others).start()


def _register_finalizer(_: object = None) -> None:
    util = sys.modules["multiprocessing.util"]
    _Child.finalizer = util.Finalize(None, _stop_all_of_a_child, exitpriority=100)


def _stop_all_of_a_child() -> None:
    # Unlike `atexit`, this comes before the non-daemon threads are waited for, and they may still consume.
    if _others():
        threading.Thread(target=_stop_all_after_the_others).start()
    else:
        _stop_all()


def _stop_all_after_the_others() -> None:
    while others := _others():
        others[0].join()
    _stop_all()


def _others() -> list[threading.Thread]:
    """Return the threads that the end of the process waits for, but for this one and the main one."""
    those = {threading.current_thread(), threading.main_thread()}
    return [thread for thread in threading.enumerate() if not thread.daemon and thread not in those]


def _after_fork_in_child() -> None:
    _live.clear()
    _Child.finalizer = None  # it minds the process that it was made in


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
