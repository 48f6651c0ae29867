"""The child: the process that runs a source, on its main thread. Its worker tells it of room, and to stop."""

from __future__ import annotations

import _thread
import math
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextvars import Context
from multiprocessing.process import parent_process
from typing import Any

from prefetch_generator._bell import Bell
from prefetch_generator._generator import close_source
from prefetch_generator._process_call import Call, Packed
from prefetch_generator._process_wire import (
    BLOCK,
    CLOSE_FAILED,
    CLOSED,
    END,
    FAILED,
    ITEM,
    NO_BOUND,
    ROOM,
    STOP,
    UNBLOCK,
    Pipe,
    Sender,
    dumps,
    mask_signals,
    reader_of,
    writer_of,
)
from prefetch_generator._stop import StopEvent, enter_source_context
from prefetch_generator._worker import as_raised_by_source, is_exit

INTERRUPT_AFTER = 1.0  # seconds from a stop to the interruption of a step
LEAVE_AFTER = 2.0  # seconds from a stop to the end
HURRIED = 0.5  # seconds from the parent's end to the interruption, and from there to the end


def run(
    wire: socket.socket,
    room: Pipe,
    call: Call | Packed,
    parent: int,
    inherited: list[socket.socket],
) -> None:
    """Run the source to its end: the target of the `Process`."""
    for one in inherited:
        one.close()  # the worker's, which a fork has copied
    child = _Child(wire, room, call)
    signal.set_wakeup_fd(-1)  # a fork's is that of the parent's event loop, which would take our signals for its own
    mask_signals(UNBLOCK, {signal.SIGINT})  # whoever made the call may have blocked it
    signal.signal(signal.SIGINT, child.handle_interrupt)
    threading.Thread(target=child.watch, args=(parent,), name="BackgroundGenerator-watch", daemon=True).start()
    # In a context of its own: a fork would bring that of the caller along, and the other start methods do not.
    child.send_end(*Context().run(child.run_source))


class _Child(Bell):
    """What the main thread, which runs the source, and the thread that watches share. Rung by a stop, it wakes main."""

    __slots__ = (
        "_call",
        "_here",
        "_in_source",
        "_interruption",
        "_is_due",
        "_left",
        "_pid",
        "_read",
        "_room",
        "_sender",
        "_stop",
        "_wire",
    )

    def __init__(self, wire: socket.socket, room: Pipe, call: Call | Packed) -> None:
        self._wire = wire
        self._room = room
        self._read = reader_of(room[0])
        self._left: float = 0  # items that may be made before there is more room
        self._call = call
        self._stop = StopEvent()
        self._stop.listen(self)
        self._here = enter_source_context(self._stop)
        self._sender = Sender(wire)
        self._pid = os.getpid()
        self._in_source = False  # whether the main thread is in the user's code
        self._is_due = False  # whether that code has had its time
        self._interruption: BaseException | None = None

    # The main thread.

    def run_source(self) -> tuple[bytes, object]:
        """Send what the source gives; return how it ended, as a frame's kind and content."""
        source: Any = None
        try:
            while self._has_room():
                self._in_source = True
                if source is None:
                    source = iter(self._call.make())
                item = next(source)
                self._in_source = False
                failure = self._send(ITEM, item)
                del item  # nothing here keeps it while the source makes the next
                if failure is not None:
                    self._close(source)
                    return FAILED, _described(failure)
        except BaseException as failure:
            if not self._in_source and source is not None:  # of a signal handler that the source has
                self._close(source)
                return FAILED, _described(as_raised_by_source(failure))
            self._in_source = False
            end = self._ended_by(as_raised_by_source(failure), begun=source is not None)
            if end is not None:
                return end
        return self._close(source)

    def _has_room(self) -> bool:
        """Wait for room; return False if the source is to stop."""
        while not self._left and not self._stop.is_set():
            started = time.perf_counter()
            said = self._read(1 << 16)
            if self._sender.spare:  # else it is the beginning that it has waited for
                self._sender.waited += time.perf_counter() - started
            self._left = math.inf if NO_BOUND in said else said.count(ROOM)
            self._sender.spare = max(self._sender.spare, self._left)  # the first time, this is the bound
        self._left -= 1
        return not self._stop.is_set()

    def _send(self, kind: bytes, it: object) -> BaseException | None:
        """Send it; return why that cannot be done."""
        if os.getpid() != self._pid:
            os._exit(1)  # a fork that the source has made, and that has come out of it
        buffers: list[memoryview] = []
        try:
            pickled = dumps(it, buffers)
        except BaseException as error:
            what = "an item" if kind == ITEM else "the return value"
            said = f"{what} of the source cannot be sent from its process, got {type(it)!r}: {in_words(error)}"
            failure = TypeError(said)
            failure.__cause__ = error
            return failure
        try:
            self._sender.send(kind, pickled, buffers)
        except ConnectionError:  # nobody receives any more
            self._stop.set()
        return None

    def send_end(self, kind: bytes, it: object) -> None:
        """Say how the source ended."""
        failure = self._send(kind, it)
        if failure is not None:
            self._send(FAILED, _described(failure))

    def _ended_by(self, failure: BaseException, *, begun: bool) -> tuple[bytes, object] | None:
        """Return how the source ended; None if it has not: an interrupted iterator is still to be closed."""
        heard, self._here.heard = self._here.heard, True
        # Out of the call, or of `iter()`, it is not the end of the data: there has been no iterator yet.
        if isinstance(failure, StopIteration) and (begun or heard):
            return (CLOSED, None) if heard else (END, failure.value)
        if failure is self._interruption or (heard and is_exit(failure)):
            return None
        return CLOSE_FAILED if heard else FAILED, _described(failure)

    def _close(self, source: Any) -> tuple[bytes, object]:
        self._here.heard = True  # from here on the clean-up may use other generators; and it is not interrupted
        try:
            close_source(source)
        except BaseException as failure:
            return CLOSE_FAILED, _described(as_raised_by_source(failure))
        return CLOSED, None

    def handle_interrupt(self, *_: object) -> None:
        """Interrupt the source as Ctrl-C would, if it is due. Ctrl-C itself is the parent's affair."""
        if self._is_due and self._in_source:
            self._is_due = False
            self._interruption = KeyboardInterrupt("the source was told to stop, and was busy still")
            raise self._interruption

    # The thread that watches.

    def watch(self, parent: int) -> None:
        """Wait until the worker says stop, or the parent ends; then see that this process ends in time."""
        main = threading.main_thread().ident or 0
        mask_signals(BLOCK, signal.valid_signals())  # a signal to this process is for the source's own threads
        with selectors.DefaultSelector() as selector:
            selector.register(self._wire, selectors.EVENT_READ)
            try:
                _watch_process(selector, parent)
                selector.select()
                hurry = self._word() != STOP
            except ProcessLookupError:
                hurry = True
            # On a thread of its own, for a callback of `on_set` may take long, or hang.
            threading.Thread(target=self._stop.set, daemon=True).start()
            selector.unregister(self._wire)
            if hurry:
                time.sleep(HURRIED)
            else:
                hurry = bool(selector.select(INTERRUPT_AFTER))  # the parent may end meanwhile
            self._is_due = True
            _interrupt(main)
            time.sleep(HURRIED if hurry or selector.select(LEAVE_AFTER - INTERRUPT_AFTER) else 0)
        os._exit(1)

    def _word(self) -> bytes:
        """Return what the worker says; nothing if it does not, because the process is gone that it was in."""
        try:
            return self._wire.recv(1, getattr(socket, "MSG_DONTWAIT", 0))
        except OSError:
            return b""

    def ring(self, _: object = None) -> None:
        """Wake the main thread, if it waits for room."""
        writer_of(self._room[1])(STOP)


def _watch_process(selector: selectors.BaseSelector, parent: int) -> None:
    """Have the selector hear of the parent's end; raise ProcessLookupError if it has ended."""
    if sys.platform == "win32":
        return  # the end of the wire tells
    # What `multiprocessing` has for this is a pipe, which every process that the parent forks later holds open too.
    try:
        end = os.pidfd_open(parent)
    except ProcessLookupError:
        raise
    except (AttributeError, OSError):  # another system, or one that forbids it
        process = parent_process()
        assert process is not None  # noqa: S101 - for the type checkers: this is a child
        end = process.sentinel
    selector.register(end, selectors.EVENT_READ)


def _interrupt(main: int) -> None:
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:
        # To that thread: a system call is interrupted only in the thread that the signal comes to.
        signal.pthread_kill(main, signal.SIGINT)


def _described(failure: BaseException) -> tuple[bytes | None, str]:
    """Return a failure as it is sent: pickled, if it can be, and as text."""
    text = in_words(failure, traceback.format_exception)
    try:
        return dumps(failure), text
    except BaseException:  # whatever its own code raises there
        return None, text


def in_words(
    failure: BaseException, lines: Callable[[BaseException], list[str]] = traceback.format_exception_only
) -> str:
    """Return what a failure says, whatever that raises."""
    try:
        return "".join(lines(failure)).rstrip()
    except BaseException:
        return f"{type(failure).__qualname__}, which cannot be printed"
