"""The worker: the thread that runs the source, from its first `next` to its `close`.

It knows the channel and its stop event, and cannot know the public object, whose module imports this one. That is what
makes collection work: as long as the thread runs, nothing it holds keeps the generator alive. A source is an object to
it, with functions that run it, close it, tell where it is and kill it. Only to tell where it is does it look further.
"""

from __future__ import annotations

import _thread
import builtins
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from functools import partial
from itertools import repeat
from traceback import walk_tb
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from prefetch_generator import _exit
from prefetch_generator._atomic import Once, raise_held
from prefetch_generator._bell import make_queue
from prefetch_generator._channel import Channel
from prefetch_generator._errors import NotReadyError
from prefetch_generator._stop import (
    SourceContext,
    StopEvent,
    enter_source_context,
    leave_source_context,
    source_context,
)

if TYPE_CHECKING:
    from queue import SimpleQueue


def channels_over(iterable: object) -> list[Channel[Any]]:
    """Return the channels of all workers that iterate this very object."""
    return [worker.channel for worker in _exit.live.copy() if worker.iterable is iterable]


class Source(NamedTuple):
    """What a worker runs, and how.

    `produce` puts what the iterator gives into the channel, and returns how that ended:

        the source ended by itself                          StopIteration with its value, or what it raised
        it was stopped, and the worker is to close it       None
        it was stopped, and `produce` has seen it closed    StopIteration, or what closing raised; `heard` is set in
                                                            this thread's `SourceContext`
    """

    iterable: object
    iterator: Any
    produce: Callable[[Channel[Any], Any], BaseException | None]
    close: Callable[[Any], object]
    where: Callable[[Any], str | None] = lambda _: None  # the place that it is at, if no frame tells
    kill: Callable[[Any], object] = lambda _: None  # end what would outlast this process


class SourceMaker:
    """An iterable of this package's own, which knows how it is run."""

    def make_source(self) -> Source:
        """Return how a worker runs it."""
        raise NotImplementedError


class Worker:
    """What a worker's thread and its owner share beside the channel.

    Whoever ends it does so through `stop`, which cancels the channel, which the thread sees. Two do not rely on that:
    an owner that vanishes (`channel.owner`), which needs no Python code, and a constructor that fails (`may_begin`).
    """

    __slots__ = (
        "at_the_end",
        "begin",
        "channel",
        "close_failure",
        "close_source",
        "dropped",
        "ended",
        "iterable",
        "kept",
        "kill_source",
        "may_begin",
        "place_of_source",
        "produce",
        "source",
        "stop",
        "thread",
    )

    def __init__(self, source: Source, channel: Channel[Any], stop: StopEvent) -> None:
        # One by one: without the GIL, a tuple that the caller's thread has made, and all it holds, would be freed only
        # when that thread next runs. Both are None when they have been released.
        self.iterable: Any = source.iterable
        self.source: Any = source.iterator
        self.produce = source.produce
        self.close_source = source.close
        self.place_of_source = source.where
        self.kill_source = source.kill
        self.channel = channel
        self.stop = stop
        self.may_begin: bool | None = None  # whether the thread may touch the source; None until the constructor knows
        self.begin = map(channel.wakeups.put, repeat(None, 1))  # iterated, it has the thread look at that
        self.ended = StopEvent()
        self.close_failure: Once[BaseException] = Once()  # what the source raised while it was being closed
        self.dropped = False  # nobody is left who could call close()
        self.thread: threading.Thread | None = None
        self.at_the_end: object = None  # a weak reference that sees the thread end, whatever else has failed there
        self.kept: object = None  # what a thread that is frozen at exit keeps alive

    def start(self, name: str, owner: object) -> None:
        """Start the thread. It does not touch the source before it is allowed to."""
        started, lent, failed = make_queue(), make_queue(), Once[BaseException]()
        # Without the GIL, an object that is dropped by another thread than its maker's is freed only when its maker
        # next runs: a generator made by a thread that sleeps would go on. Unless another thread has had a reference
        # that came through a queue: the two counts are made one then, and whoever drops the last one frees it.
        lent.put(owner)
        lent.put(self.source)
        _exit.live.add(self)
        _exit.hear_of_the_end_of_a_child()
        # Not `thread.start()`: that is Python code with locks, and where Ctrl-C ends it half-way, it leaves the thread
        # in the lists of `threading` for ever, or stuck. On another thread no signal handler runs.
        _thread.start_new_thread(_start, (self, name, copy_context(), lent, started, failed))
        started.get()
        raise_held(failed)
        if self.stop.is_set():  # by a parent that was set before we listened
            self.stop.set()

    def refuse_to_begin(self) -> None:
        """End the thread, if there is one, without the source having been touched; one that has begun is stopped."""
        _exit.live.discard(self)
        self.may_begin = False
        self.stop.set()
        self.kill()  # what has not begun
        self.channel.wakeups.put(None)
        self.join()

    def kill(self) -> None:
        """End what the source has outside of this process, at once."""
        source = self.source  # None once the thread has released it
        if source is not None:
            self.kill_source(source)

    def abandon(self) -> None:
        """Stop because the generator was dropped. Never waits; called by a finalizer, at any bytecode of any thread."""
        self.dropped = True
        self.stop.set()
        self.report()

    def wait(self, timeout: float | None) -> bool:
        """Wait until the thread has ended, at most `timeout` seconds; return False if it has not by then."""
        here = source_context(threading.get_ident())
        if here is not None and timeout is None:
            here.waits_for = self.channel, self.channel.is_over
        try:
            ended = self.ended.wait(timeout)
        finally:
            if here is not None:
                here.waits_for = None
        if ended:
            self.join()
        return ended

    def join(self) -> None:
        """Wait for the few microseconds between the worker's last line and the end of its thread."""
        # Bounded, for the thread ends under a lock of `threading` that an interrupted frame of the very caller may
        # hold, as when a signal handler closes the generator.
        try:
            if self.thread is not None:
                self.thread.join(1.0)
        except (AssertionError, RuntimeError) as error:
            # Errors of `threading`: a finalizer, on the worker itself after its last line, cannot wait for that thread;
            # and before 3.13, if two threads see the end at once, one may release the lock that the other has just
            # acquired. Any other error is a signal handler's. (Told by the globals of the frame that raised: in a
            # frozen application it may name no file.)
            *_, last = (frame for frame, _ in walk_tb(error.__traceback__))
            if last.f_globals is not vars(threading):
                raise

    def report(self) -> None:
        """Give what the source raised while it was being closed to `threading.excepthook`, if nobody has had it."""
        for failure in self.close_failure.take:
            if failure is not None:
                _exit.live.discard(self)
                details = (type(failure), failure, failure.__traceback__, self.thread)
                threading.excepthook(threading.ExceptHookArgs(details))
            break

    def raise_close_failure(self) -> None:
        """Raise it, if nobody has had it."""
        _exit.live.discard(self)
        raise_held(self.close_failure)

    def where(self) -> str:
        """Return the place that the source is at: the outermost frame that is not ours.

        Not the innermost, which is often deep in somebody else's library. Where all are ours, the source is another
        generator, and that knows.
        """
        source = self.source
        place = None if source is None else self.place_of_source(source)
        if place is not None:
            return place
        frame = getattr(source, "ag_frame", None)  # of an asynchronous generator: not on the stack while it awaits
        if frame is None:
            frame = _awaiting(source_context(self.channel.worker_ident))
        if frame is not None:
            return f"at {frame.f_code.co_filename}, line {frame.f_lineno}"
        for _ in range(1000):  # without the GIL the source may run on meanwhile, and the walk miss the way out
            place = _place_of(self.channel.worker_ident)
            if place is not None:
                return place
        return _NOT_PYTHON


def is_ours(frame: FrameType) -> bool:
    """Return True for a frame of this package."""
    # By its name: a frozen application has no files, or calls them otherwise.
    return str(frame.f_globals.get("__name__")).partition(".")[0] == __name__.partition(".")[0]


def _awaiting(context: SourceContext | None) -> FrameType | None:
    """Return the outermost frame that is not ours of what this source awaits; None if it awaits nothing."""
    awaited = getattr(context, "coroutine", None)
    while awaited is not None:
        frame: FrameType | None = getattr(awaited, "cr_frame", None)
        if frame is not None and not is_ours(frame):
            return frame
        awaited = getattr(awaited, "cr_await", None)
    return None


_NOT_PYTHON = "in code that is not Python"


def _place_of(ident: int) -> str | None:
    """Return the place that this worker's thread is at; None if it is on the move."""
    place = ""
    context = source_context(ident)
    bottom = _run.__code__, getattr(getattr(context, "coroutine", None), "cr_code", None)
    frame = sys._current_frames().get(ident)
    while frame is not None and frame.f_code not in bottom:
        if not is_ours(frame):
            place = f"at {frame.f_code.co_filename}, line {frame.f_lineno}"
        frame = frame.f_back
    if frame is None:
        return None
    if place:
        return place
    waits_for = getattr(context, "waits_for", None)
    return _place_of(waits_for[0].worker_ident) if waits_for else _NOT_PYTHON


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
        worker.at_the_end = weakref.ref(target, partial(_look_again, worker))
        worker.thread = thread = threading.Thread(target=target, name=name, daemon=True)
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


def _run(worker: Worker) -> None:
    try:
        outcome = _run_source(worker)
    except BaseException as failure:  # of our own code, or of what it stands on: never to be taken for the end
        outcome = failure
        if worker.may_begin:
            _close(worker)  # for what failed was not the source
    worker.source = worker.iterable = None  # before anybody can see the end: by then the source is released
    worker.channel.finish(outcome)
    del outcome
    _announce_end(worker)


def _run_source(worker: Worker) -> BaseException | None:
    channel = worker.channel
    channel.busy_ident = channel.worker_ident = threading.get_ident()
    here = enter_source_context(worker.stop)
    while worker.may_begin is None and channel.owner() is not None:
        channel.wakeups.get()
    if not worker.may_begin:
        return None
    # The outcome gets no name here: the frame of a source that failed refers to its callers' frames, and a caller that
    # still named the failure would close a cycle.
    return _close_unless_ended(worker, here, worker.produce(channel, worker.source))


def _announce_end(worker: Worker) -> None:
    """Let everybody know that the thread is at its end; may be done again."""
    channel = worker.channel
    if not worker.close_failure:  # else there is still something to report, at exit at the latest
        _exit.live.discard(worker)
    worker.ended.set()
    if worker.dropped or channel.owner() is None:
        worker.report()
    leave_source_context(channel.worker_ident)
    channel.busy_ident = channel.worker_ident = 0  # last, for the ident of a thread is used again after its end


def _look_again(worker: Worker, _: object) -> None:
    """See that the thread has come to its last line: called when it lets go of its target, whatever failed before."""
    if not worker.ended.is_set() or worker.channel.worker_ident:
        worker.source = worker.iterable = None  # a process that nobody hears any more ends with this
        worker.channel.finish(None)  # which leaves the outcome as it is: what is known, or else an error
        _announce_end(worker)


def produce(channel: Channel[Any], source: Iterator[Any]) -> BaseException | None:
    """Run the source until it ends or is stopped; return how it ended, None if it has not."""
    put = channel.put
    while True:
        for _ in channel.room():
            if channel.cancelled:
                return None
            try:
                put(next(source))  # no frame of ours ever holds an item
            except BaseException as outcome:
                return as_raised_by_source(outcome)
            if channel.bells:
                channel.ring()


def _close_unless_ended(worker: Worker, here: SourceContext, outcome: BaseException | None) -> BaseException | None:
    """Return `outcome` if the source ended by itself; else see it closed, and return None."""
    heard, here.heard = here.heard, True  # from here on the clean-up may use other generators
    if worker.stop.is_set():
        # Completely, before anybody can see an end: perhaps somebody else is just about to, or the owner vanished
        # without a word; and a source that ends because it heard of the stop has not come to the end of its data.
        worker.stop.set()
    if outcome is not None and not heard:
        return outcome
    if heard and issubclass(type(outcome), StopIteration):
        return None  # interrupted by GeneratorExit at a wait, a source may simply end, as a generator may in `close()`
    if outcome is None or is_exit(outcome):
        _close(worker)
    else:
        worker.close_failure.hold(outcome)
    return None


def _close(worker: Worker) -> None:
    """Close the source, and keep what that raises for `close()`."""
    try:
        worker.close_source(worker.source)
    except BaseException as failure:
        # Held from here, whose name for it ends with the clause: the source's frame refers to its callers' frames, and
        # a caller that still named the failure would close a cycle.
        worker.close_failure.hold(as_raised_by_source(failure))


def as_raised_by_source(exception: BaseException) -> BaseException:
    """Return what a source has raised in the function that handles it, as the consumer is to see it."""
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


def is_exit(failure: BaseException) -> bool:
    """Return whether it is the GeneratorExit that has closed the source, perhaps out of a task group that was open."""
    # Such a group takes it for a failure like any other. Python 3.10 has none, but anyio has.
    here = builtins if sys.version_info >= (3, 11) else sys.modules.get("exceptiongroup")
    group: Any = getattr(here, "BaseExceptionGroup", ())
    if issubclass(type(failure), group):
        return all(map(is_exit, group.exceptions.__get__(failure)))
    return issubclass(type(failure), GeneratorExit)
