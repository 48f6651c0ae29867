"""A source in a process of its own: the worker's side.

The worker receives what the child sends, and puts it into the channel. It never waits for room: whoever gets an item
tells the child itself, by a byte through a pipe, for while a consumer computes the worker may not get the GIL. So the
bound holds for both processes together: the child makes an item for each byte.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import pickle
import selectors
import signal
import socket
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from multiprocessing.process import current_process
from operator import is_, itemgetter
from threading import get_ident
from time import monotonic
from typing import Any

from prefetch_generator import _exit
from prefetch_generator._atomic import Once
from prefetch_generator._bell import Bell, threads_are_greenlets
from prefetch_generator._channel import Channel
from prefetch_generator._errors import NotReadyError, SourceProcessError
from prefetch_generator._process_call import Call
from prefetch_generator._process_child import LEAVE_AFTER, in_words, run
from prefetch_generator._process_wire import (
    CLOSE_FAILED,
    CLOSED,
    END,
    FAILED,
    HURRY,
    ITEM,
    NO_BOUND,
    QUIET,
    ROOM,
    STOP,
    Receiver,
    make_pair,
    make_pipe,
    writer_of,
)
from prefetch_generator._stop import SourceContext, is_exiting, source_context
from prefetch_generator._worker import Source, SourceMaker, as_raised_by_source

_MOST = 4096  # items ahead: the smallest pipe there is takes so many bytes without blocking
_LINGER = 5.0  # seconds that a child has to end in, once its source has come to its own end
_GUARD = "does the main module make the call only under `if __name__ == '__main__':`?"


class ProcessCall(SourceMaker):
    """A call of a function that a process is started for. `method` is one of `multiprocessing`'s; None: its default."""

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], name: str, method: str | None
    ) -> None:
        self._call = Call(function, args, kwargs, name)
        self._name = name
        self._method = method or _default_method()

    def make_source(self) -> Source:
        """Start the process, and return how a worker runs what it sends; raise TypeError or RuntimeError."""
        if threads_are_greenlets():
            raise RuntimeError("a source in a process needs a thread of its own, and gevent has patched threading")
        if getattr(current_process(), "_inheriting", False):
            raise RuntimeError(f"cannot start a process for {self._name!r} while a new process begins: {_GUARD}")
        if current_process().daemon:
            raise RuntimeError(
                f"cannot start a process for {self._name!r}: this one is daemonic, as a DataLoader's worker is, "
                "and may have no children"
            )
        _exit.come_before_children_are_joined()
        return Source(self, _Link(self._call, self._name, self._method), _produce, _Link.end, _Link.where, _Link.end)


def _default_method() -> str:
    method = multiprocessing.get_start_method()
    return "forkserver" if method == "fork" and "forkserver" in multiprocessing.get_all_start_methods() else method


def _produce(channel: Channel[Any], link: _Link) -> BaseException | None:
    """Receive what the child sends until it has ended; return how its source ended."""
    context = source_context(get_ident())
    assert context is not None  # noqa: S101 - for the type checkers: this is a worker's thread
    outcome: Once[BaseException] = Once()
    link.receive_all(channel, context, outcome)
    return next(outcome.take)


class _Link(Bell):
    """A child and what connects it with its worker. Rung by a stop, it wakes the worker, which tells the child."""

    __slots__ = (
        "_channel",
        "_context",
        "_deadline",
        "_has_ended",
        "_name",
        "_parent",
        "_pid",
        "_process",
        "_receiver",
        "_room",
        "_selector",
        "_wake",
        "_wakes",
        "_wire",
    )

    def __init__(self, call: Call, name: str, method: str) -> None:
        self._name = name
        self._has_ended = False
        self._deadline = math.inf  # when the child is killed
        self._parent = os.getpid()
        self._wire, there = make_pair()
        self._wakes, self._wake = socket.socketpair()
        self._room = make_pipe()
        ends = [self._wire, self._wakes, self._wake]
        inherited = ends if method == "fork" else []
        process: Any = multiprocessing.get_context(method).Process  # type: ignore[attr-defined]  # each has one
        self._process = process(
            target=run, name=f"BackgroundGenerator-{name}", args=(there, self._room, call, self._parent, inherited)
        )
        try:
            self._process.start()
        except (OSError, EOFError) as error:
            hint = f"; {_GUARD}" if isinstance(error, (EOFError, ConnectionError)) else ""
            raise RuntimeError(f"cannot start a process for {name!r}: {error!r}{hint}") from error
        finally:
            there.close()
        for end in ends:
            end.setblocking(False)
        _processes.add(self._process)
        self._pid = self._process.pid

    def __del__(self) -> None:
        process = getattr(self, "_process", None)  # absent, as other things may be, if the constructor has failed
        if process is not None and self._parent == os.getpid():
            # It has ended by now, unless the constructor, or that of the generator, was interrupted.
            with contextlib.suppress(AttributeError, AssertionError):  # it has not started
                self.end()
        for end in filter(None, (getattr(self, name, None) for name in ("_wire", "_wakes", "_wake"))):
            end.close()

    def receive_all(self, channel: Channel[Any], context: SourceContext, outcome: Once[BaseException]) -> None:
        """Put every item into the channel, until the child has ended; hold how."""
        self._channel, self._context = channel, context
        self._receiver = Receiver(self._wire, self._wait)
        try:
            self._hold_end(self._receive(outcome), outcome)
        finally:
            del self._receiver  # which refers to this: the collector would free sockets and memory, some time

    def _receive(self, outcome: Once[BaseException]) -> bytes:
        """Put every item into the channel, until the child has ended; return the kind of its last frame, if any."""
        channel, context = self._channel, self._context
        _kept = context.stop.listen(self)
        with selectors.DefaultSelector() as self._selector, self._watched():
            self._selector.register(self._wire, selectors.EVENT_READ)
            self._selector.register(self._wakes, selectors.EVENT_READ)
            channel.deliveries = self._deliveries(channel)
            if context.stop.is_set():
                self._tell()
            try:
                kind = self._receive_items(outcome)
            except EOFError:
                kind = b""
            finally:
                channel.deliveries = channel.counter
            self._wait_for_end()
        return kind

    def _deliveries(self, channel: Channel[Any]) -> Iterator[object]:
        """Give the child its first room; return what counts a delivery, and gives room for one more item, in C."""
        reader, writer = self._room
        write = writer_of(writer)
        if channel.max_prefetch == sys.maxsize:
            write(NO_BOUND)
            return channel.counter
        write(ROOM * min(channel.max_prefetch, _MOST))
        # It also holds the pipe, at both ends: a consumer may be about to write when the child is gone, and the worker
        # too. Whoever drops this last closes the pipe.
        del self._room
        rooms = map(write, map(itemgetter(0), repeat((ROOM, reader, writer))))
        return map(is_, channel.counter, rooms)  # whatever function of two: both have been stepped by then

    def _receive_items(self, outcome: Once[BaseException]) -> bytes:
        channel, receive, load = self._channel, self._receiver.receive, self._receiver.load
        put = channel.put
        while (kind := receive()) == ITEM:
            channel.producer_wait = self._receiver.waited
            if channel.cancelled or outcome:
                continue
            try:
                put(load())  # no frame of ours ever holds an item
            except BaseException as failure:
                error = TypeError(f"an item of {self._name!r} cannot be unpickled here: {in_words(failure)}")
                error.__cause__ = as_raised_by_source(failure)
                outcome.hold(error)
                del error
                self._tell()
            if channel.bells:
                channel.ring()
        return kind

    def _wait(self) -> bool:
        """Sleep until there may be something to receive; return False once the child has ended."""
        while True:
            ready = {key.fileobj: key.data for key, _ in self._selector.select(self._patience())}
            if self._wakes in ready:
                self._hear()
            if self._wire in ready:
                return True
            if self._process in ready.values():
                return False
            if monotonic() >= self._deadline:
                self.end()
                return False

    def _wait_for_end(self) -> None:
        """Wait until the child has ended, which may take it a while: it may have threads and children of its own."""
        self._selector.unregister(self._wire)
        self._deadline = min(self._deadline, monotonic() + _LINGER)
        if sys.platform == "win32":
            self._process.join(max(0.0, self._deadline - monotonic()))
            self.end()
        if not self._has_ended:
            self._wait()
        self._reap()

    def _patience(self) -> float | None:
        return None if self._deadline == math.inf else max(0.0, self._deadline - monotonic())

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wakes.recv(1 << 16)
        if self._channel.owner() is None:  # it was dropped, without a word
            self._context.stop.set()
        if self._context.stop.is_set():
            self._tell()

    def _tell(self) -> None:
        """Have the child stop, and in time."""
        self._deadline = min(self._deadline, monotonic() + LEAVE_AFTER)
        with contextlib.suppress(OSError):  # it is gone
            self._wire.send(HURRY if is_exiting(self._context.stop) else STOP, QUIET)

    def ring(self, _: object = None) -> None:
        """Wake the worker. Never waits."""
        with contextlib.suppress(OSError):  # full, so it is awake; or closed
            self._wake.send(b"\0")

    def end(self) -> None:
        """End the child, if it has not ended, at once."""
        if not self._has_ended:  # else its number may be somebody else's
            self._process.kill()
            self._reap()

    def _reap(self) -> None:
        self._process.join()
        self._has_ended = True
        _forget([self._process])  # `multiprocessing` does so only if nobody else has reaped it

    def where(self) -> str:
        """Return what the warning of `close()` says."""
        return f"in {self._name}, process {self._pid}"

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Have the selector hear of the child's end."""
        if sys.platform == "win32":
            yield  # the end of the wire tells
            return
        try:
            end = os.pidfd_open(self._pid)
        except (AttributeError, OSError):  # another system, or one that forbids it; or it has been reaped
            # A pipe, at whose end what the child has forked may still be.
            end = os.dup(self._process.sentinel)
        try:
            self._selector.register(end, selectors.EVENT_READ, self._process)
            yield
        finally:
            os.close(end)

    def _hold_end(self, kind: bytes, outcome: Once[BaseException]) -> None:
        if outcome:
            return
        # After a stop, whatever death is an end: that of a step which took too long, say.
        if kind in {CLOSED, CLOSE_FAILED} or (not kind and self._context.stop.is_set()):
            self._context.heard = True
            self._context.stop.set()  # a source may set its own event itself
        if kind in {FAILED, CLOSE_FAILED}:
            outcome.hold(_failure(*self._receiver.load()))
        elif kind == END:
            outcome.hold(self._end())
        elif self._context.heard:
            outcome.hold(StopIteration())
        else:
            outcome.hold(SourceProcessError(self._death(), self._process.exitcode))

    def _end(self) -> BaseException:
        """Return how a source has ended that came to its own end."""
        try:
            return StopIteration(self._receiver.load())
        except BaseException as failure:
            error = TypeError(f"the return value of {self._name!r} cannot be unpickled here: {in_words(failure)}")
            error.__cause__ = as_raised_by_source(failure)
            return error

    def _death(self) -> str:
        code = self._process.exitcode
        how = "ended in a way that is not known" if code is None else f"ended with exit code {code}"
        if code is not None and code < 0:
            how = f"was killed by signal {-code} ({_name_of_signal(-code)})"
        is_silent = code == 1 and not self._channel.delivered and not self._channel.items.qsize()
        hint = f"; if it has printed an error of its own: {_GUARD}" if is_silent else ""
        return f"the process of {self._name!r} (process id {self._pid}) {how} before its source had ended{hint}"


# Those that have been started here. By a weak reference: `multiprocessing` keeps those that have not been joined.
_processes: weakref.WeakSet[Any] = weakref.WeakSet()


def _forget(processes: Iterable[Any]) -> None:
    getattr(sys.modules["multiprocessing.process"], "_children", set()).difference_update(processes)


def _after_fork_in_child() -> None:
    # They are the parent's children. `multiprocessing` would wait for them at the exit of this process, and fail.
    _forget(_processes)
    _processes.clear()
    # So is its server of forks, whose state would have to be asked for with every start.
    server: Any = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    if getattr(server, "_forkserver_pid", None) is not None:
        type(server).__init__(server)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


class _TracebackOfProcess(Exception):  # noqa: N818 - no error, but how one came about
    """The traceback of a source's failure, as its process saw it."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


_set_cause: Any = vars(BaseException)["__cause__"].__set__  # for an exception may have one of its own that raises


def _failure(pickled: bytes | None, text: str) -> BaseException:
    """Return what the source has raised."""
    failure: Any = None
    if pickled is not None:
        with contextlib.suppress(BaseException):
            failure = pickle.loads(pickled)  # noqa: S301 - our own child's
    # The last two would say something else than that the source has failed.
    if not issubclass(type(failure), BaseException) or issubclass(type(failure), (StopIteration, NotReadyError)):
        last = text.rstrip().rpartition("\n")[2]
        failure = RuntimeError(f"the source raised an exception that cannot be sent from its process: {last}")
    _set_cause(failure, _TracebackOfProcess(text))
    return failure  # type: ignore[no-any-return]  # it has been made sure


def _name_of_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
