"""The wire between a source's process and its worker: frames through a socket, and memory for large buffers.

A frame is a head, the sizes of its buffers, a pickle, and those buffers that do not lie in shared memory. A segment of
that memory has no name: its descriptor is sent once, and the kernel frees it with the last process that maps it. The
board, one more segment, has a byte for each of the others: `LENT` from when the source's process fills it until the
last array over it is gone in the worker's process. A fork of that process has the arrays too, and nobody hears how
long: so what is lent when it forks is `SPENT`, and is never filled again. Where a segment was `DROPPED`, there is none.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import pickle
import signal
import socket
import struct
import sys
import weakref
from array import array
from collections.abc import Callable
from functools import partial
from itertools import repeat
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, TypeVar

ITEM, END, FAILED, CLOSED, CLOSE_FAILED, BOARD, SEGMENT, DROP = (bytes([code]) for code in b"iefcxbsd")
STOP, HURRY = b"s", b"h"  # the worker's one word through the socket: the source is to stop; at exit, in half the time
ROOM, NO_BOUND = b"r", b"u"  # through the pipe: room for one item, or for any number; a STOP only wakes

LARGE = 64 * 1024  # bytes from which on a buffer is not pickled
FREE, LENT, SPENT, DROPPED = 0, 1, 2, 3
_HEAD = struct.Struct("=cIqQd")  # kind, number of buffers, number of the segment (-1: none), size, seconds waited
_SIZE = struct.Struct("=Q")
_ALIGNMENT = 64  # bytes: where a buffer may begin in a segment
_MOST = 256  # segments, each of which takes a descriptor in both processes
# Windows has no masks, and hears of no signal here.
mask_signals: Callable[..., Any] = getattr(signal, "pthread_sigmask", lambda *_: ())
BLOCK, UNBLOCK, MASK = (getattr(signal, f"SIG_{how}", 0) for how in ("BLOCK", "UNBLOCK", "SETMASK"))
_HAS_MEMORY = hasattr(os, "memfd_create") and hasattr(socket, "send_fds")
_CLOSED_BY_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
QUIET = getattr(socket, "MSG_NOSIGNAL", 0)  # else a program that wants to be killed by SIGPIPE would be
_AT_ONCE = QUIET | getattr(socket, "MSG_DONTWAIT", 0)


_End = TypeVar("_End", Connection, socket.socket)
# Through which a worker's consumers announce room: not a socket, for that would be full after some 300 single bytes.
Pipe = tuple[Connection, Connection] | tuple[socket.socket, socket.socket]


def make_pipe() -> Pipe:
    """Return both ends, to read from and to write to."""
    if sys.platform == "win32":  # where a pipe cannot be waited for
        near, far = socket.socketpair()
        return far, near
    reader, writer = connection.Pipe(duplex=False)
    return (
        _beyond_standard(reader, partial(Connection, writable=False)),
        _beyond_standard(writer, partial(Connection, readable=False)),
    )


def make_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets, of which the second is for the child."""
    here, there = socket.socketpair()
    there = _beyond_standard(there, lambda descriptor: socket.socket(fileno=descriptor))
    there.settimeout(None)  # whatever `socket.setdefaulttimeout` says of a new one
    return here, there


def _beyond_standard(end: _End, made_of: Callable[[int], _End]) -> _End:
    """Return it, or, where standard input or output is closed, another one that does not stand for these."""
    # Nobody holds a bare descriptor here but in that rare case: Ctrl-C would leave it open for good.
    if end.fileno() > 2 or sys.platform == "win32":
        return end
    import fcntl  # noqa: PLC0415 - which Windows has not

    with contextlib.closing(end):
        return made_of(fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))


def reader_of(end: Connection | socket.socket) -> Callable[[int], bytes]:
    """Return a function in C that reads from it."""
    return end.recv if isinstance(end, socket.socket) else partial(os.read, end.fileno())


def writer_of(end: Connection | socket.socket) -> Callable[[bytes], int]:
    """Return a function in C that writes to it."""
    return end.send if isinstance(end, socket.socket) else partial(os.write, end.fileno())


class Sender:
    """The end of the wire that belongs to the source's process."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire = wire
        self._segments: dict[int, mmap.mmap] = {}
        self._board: mmap.mmap | None = None
        self.spare: float = 0  # how many segments may lie unused
        self.waited = 0.0  # seconds, for room

    def send(self, kind: bytes, pickled: bytes, buffers: list[memoryview]) -> None:
        """Send what `dumps` has made. Raises ConnectionError if nobody receives it."""
        number = self._fill(buffers) if buffers else -1
        sizes = b"".join(_SIZE.pack(buffer.nbytes) for buffer in buffers)
        head = _HEAD.pack(kind, len(buffers), number, len(pickled), self.waited) + sizes
        in_line = buffers if number < 0 else []
        if in_line or len(pickled) >= LARGE:
            self._send_parts(head, pickled, *in_line)
            return
        whole, sent = head + pickled, 0
        with contextlib.suppress(BlockingIOError):
            sent = self._wire.send(whole, _AT_ONCE)
        if sent < len(whole):
            self._send_parts(memoryview(whole)[sent:])

    def _send_parts(self, *parts: bytes | memoryview) -> None:
        """Send what may have to wait. A signal handler of the source's, which may raise, must not tear a frame."""
        before = mask_signals(BLOCK, ())
        try:
            mask_signals(BLOCK, signal.valid_signals())  # what is pending runs here
            for part in parts:
                self._wire.sendall(part, QUIET)
        finally:
            mask_signals(MASK, before)

    def _fill(self, buffers: list[memoryview]) -> int:
        """Copy the buffers into a segment that nobody uses; return its number, -1 if there is none to be had."""
        if not _HAS_MEMORY:
            return -1
        try:
            number = self._free_segment(sum(map(_padded_size, buffers)))
        except (OSError, ValueError):  # too little memory, too many descriptors or mappings
            return -1
        start, segment = 0, self._segments[number]
        for buffer in buffers:
            segment[start : start + buffer.nbytes] = buffer
            start += _padded_size(buffer)
        assert self._board is not None  # noqa: S101 - for the type checkers: it comes before the first segment
        self._board[number] = LENT
        return number

    def _free_segment(self, size: int) -> int:
        if self._board is None:
            self._board = self._new(BOARD, 0, _MOST)
            self._board[:] = bytes([DROPPED]) * _MOST
        states = self._board[:]
        number = states.find(FREE)
        if number < 0:
            number = states.find(SPENT)
        if number < 0:
            number = states.find(DROPPED)
            if number < 0 or len(self._segments) >= _most_segments():
                raise OSError("no more segments")
        if states[number] != FREE or len(self._segments[number]) < size:
            self._segments[number] = self._new(SEGMENT, number, size)
        unused = [it for it in self._segments if it != number and states[it] == FREE]
        while len(unused) > self.spare:
            last = unused.pop()
            self._board[last] = DROPPED
            del self._segments[last]
            self._wire.sendall(_HEAD.pack(DROP, 0, last, 0, 0.0), QUIET)
        return number

    def _new(self, kind: bytes, number: int, size: int) -> mmap.mmap:
        descriptor = os.memfd_create("prefetch_generator")
        try:
            os.ftruncate(descriptor, size)
            memory = mmap.mmap(descriptor, size)
            head = _HEAD.pack(kind, 0, number, size, 0.0)
            self._wire.sendall(head[socket.send_fds(self._wire, [head], [descriptor], QUIET) :], QUIET)
        finally:
            os.close(descriptor)
        return memory


class Receiver:
    """The worker's end of the wire, whose socket must not block."""

    def __init__(self, wire: socket.socket, wait: Callable[[], bool]) -> None:
        """`wait` sleeps until there may be something to read, and returns False once no more can come."""
        self._wire = wire
        self._wait = wait
        self._space = memoryview(bytearray(LARGE))
        self._start = self._end = 0  # of what has been received and not been used, in that space
        self._descriptors = array("i")
        self._board: mmap.mmap | None = None
        self._segments: dict[int, _Segment] = {}
        self._frame: tuple[memoryview | bytes, list[Any]] = b"", []
        self.waited = 0.0  # seconds that the source has waited for room
        _receivers.add(self)

    def part(self) -> None:
        """See that what is lent now is never filled again: there is about to be another process that has it."""
        for number, segment in self._segments.copy().items():
            if segment.forget() and self._board is not None:
                self._board[number] = SPENT

    def receive(self) -> bytes:
        """Return the kind of the next frame, once all of it is there for `load`. Raises EOFError at the end."""
        while True:
            kind, buffers, number, size, waited = _HEAD.unpack(self._take(_HEAD.size))
            if kind in (BOARD, SEGMENT):
                self._map(kind, number, size)
            elif kind == DROP:
                del self._segments[number]
            else:
                self.waited = waited
                self._receive_rest(buffers, number, size)
                return kind  # type: ignore[no-any-return]  # `unpack` knows no types

    def _receive_rest(self, buffers: int, number: int, size: int) -> None:
        if not buffers:
            self._frame = self._take(size), []
            return
        sizes = [_SIZE.unpack(self._take(_SIZE.size))[0] for _ in range(buffers)]
        pickled = bytes(self._take(size))  # for the space it is in is used again
        if number < 0:
            self._frame = pickled, [self._take_all(size) for size in sizes]
        else:
            assert self._board is not None  # noqa: S101 - for the type checkers: it comes before the first segment
            self._frame = pickled, self._segments[number].lend(sizes, self._board, number)

    def load(self) -> Any:
        """Unpickle what was received. Once, for nothing may refer to its buffers afterwards but what is returned."""
        (pickled, buffers), self._frame = self._frame, (b"", [])
        return pickle.loads(pickled, buffers=buffers)  # noqa: S301 - our own child's

    def _map(self, kind: bytes, number: int, size: int) -> None:
        if not self._descriptors:
            raise OSError(errno.EMFILE, "too many open files to receive an array")
        descriptor = self._descriptors.pop(0)
        try:
            memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        if kind == BOARD:
            self._board = memory
        else:
            self._segments[number] = _Segment(memory)

    def _take(self, size: int) -> memoryview:
        """Return so many bytes; what is not larger than the space is valid until the next call."""
        if size > len(self._space):
            return memoryview(self._take_all(size))
        if self._start + size > len(self._space):
            rest = bytes(self._space[self._start : self._end])
            self._space[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        while self._end - self._start < size:
            self._end += self._read(self._space[self._end :])
        taken = self._space[self._start : self._start + size]
        self._start += size
        if self._start == self._end:
            self._start = self._end = 0
        return taken

    def _take_all(self, size: int) -> bytearray:
        """Return so many bytes, in memory of their own."""
        here = min(size, self._end - self._start)
        taken = bytearray(size)
        taken[:here] = self._space[self._start : self._start + here]
        self._start += here
        with memoryview(taken) as whole:
            while here < size:
                here += self._read(whole[here:])
        return taken

    def _read(self, view: memoryview) -> int:
        is_over = False
        while True:
            try:
                size = self._receive_into(view)
            except BlockingIOError:
                if is_over:
                    raise EOFError from None
                is_over = not self._wait()  # what came before the end can still be read
            except ConnectionError:  # Windows' word for a process that has died
                raise EOFError from None
            else:
                if not size:
                    raise EOFError
                return size

    def _receive_into(self, view: memoryview) -> int:
        if not _HAS_MEMORY:
            return self._wire.recv_into(view)
        size, ancillary, _, _ = self._wire.recvmsg_into([view], 64, _CLOSED_BY_EXEC)
        for _, _, data in ancillary:
            self._descriptors.frombytes(data)
        return size


class _Segment:
    """A segment in the worker's process, which may be lent to one item at a time."""

    __slots__ = ("_array", "_memory", "_number", "_released")

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        # What exports the memory must be a new object for each item, so that a weak reference sees the last array go.
        # A memoryview is none: another one over the same memory may outlive it.
        self._array = ctypes.c_ubyte * len(memory)
        self._released: weakref.ref[Any] | None = None
        self._number: list[int] = []  # that of this segment, as long as its release is to be told

    def lend(self, sizes: list[int], board: mmap.mmap, number: int) -> list[memoryview]:
        exporter = self._array.from_buffer(self._memory)
        # In C, for an array may be freed anywhere, and a finalizer in Python be interrupted on its first bytecode.
        self._number = [number]
        self._released = weakref.ref(exporter, partial(next, map(board.__setitem__, iter(self._number), repeat(FREE))))
        whole = pickle.PickleBuffer(exporter).raw()
        views, start = [], 0
        for size in sizes:
            views.append(whole[start : start + size])
            start += _padded_size(views[-1])
        return views

    def forget(self) -> bool:
        """Hear no more of the last array; return whether there still is one."""
        # Not by letting go of the weak reference: without the GIL it may live on until the worker next runs.
        self._number.clear()
        released, self._released = self._released, None
        return released is not None and released() is not None


def _most_segments() -> int:
    """Return how many there may be: so many that several generators leave most of the descriptors to the program."""
    if sys.platform == "win32":
        return 0
    import resource  # noqa: PLC0415 - which Windows has not

    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST if allowed == resource.RLIM_INFINITY else min(_MOST, allowed // 16)


_receivers: weakref.WeakSet[Receiver] = weakref.WeakSet()


def _before_fork() -> None:
    for receiver in list(_receivers):
        receiver.part()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork)


def _padded_size(buffer: memoryview) -> int:
    return -(-buffer.nbytes // _ALIGNMENT) * _ALIGNMENT


def dumps(it: object, buffers: list[memoryview] | None = None) -> bytes:
    """Pickle `it`, all but its large buffers, which are appended to `buffers`, if that is given."""
    keep = None if buffers is None else partial(_is_small, buffers)
    try:
        if "torch" in sys.modules:
            from prefetch_generator._process_torch import dumps_with_tensors  # noqa: PLC0415 - which few need

            return dumps_with_tensors(it, keep)
        return pickle.dumps(it, protocol=5, buffer_callback=keep)
    except Exception:
        # Of a class that lives in a notebook, say: the function, which came by value, has brought this along.
        cloudpickle = sys.modules.get("cloudpickle")
        if cloudpickle is None:
            raise
        if buffers is not None:
            buffers.clear()
        pickled: bytes = cloudpickle.dumps(it, protocol=5, buffer_callback=keep)
        return pickled


def _is_small(buffers: list[memoryview], buffer: pickle.PickleBuffer) -> bool:
    """Return True if it is to be pickled; else append it to `buffers`."""
    raw = buffer.raw()  # one that is not contiguous is refused before it comes here
    if raw.nbytes >= LARGE:
        buffers.append(raw)
    return raw.nbytes < LARGE
