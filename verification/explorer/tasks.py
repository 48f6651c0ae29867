"""What the asynchronous side stands on, modelled: tasks that may be cancelled, their loops, a pair of sockets.

A task is a thread to the scheduler, as if it had an event loop, and a system thread, of its own: every order in which
one loop may run two tasks is among those in which two threads may run. An `await` is a switch point at which a task
that is cancelled gets its CancelledError, and at which an asynchronous source's loop does what it was asked to do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import repeat
from types import SimpleNamespace
from typing import Any

from .primitives import Bell, Current, Queue, Steps, Until, call


class CancelledError(BaseException):
    """`asyncio.CancelledError`, but for `asyncio` itself, which has its own ideas about that one."""


class Task:
    """A task, and the part of its loop that others reach."""

    def __init__(self, *, may_be_cancelled: bool) -> None:
        self.may_be_cancelled = may_be_cancelled
        self.must_cancel = False
        self.cancelling = 0  # how often it was cancelled, less what `uncancel` took back
        self.calls: deque[Callable[[], Any]] = deque()  # that the loop was asked for
        self.tokens: deque[object] = deque()  # in the socket that the loop reads
        self.receive: Callable[[], Any] | None = None
        self.name = Current.add("task", lambda: (self.must_cancel, self.cancelling, len(self.calls), len(self.tokens)))

    @staticmethod
    def current() -> Task:
        task = Current.tasks[Current.thread]
        assert isinstance(task, Task)
        return task

    def cancel(self) -> Steps:
        yield self.name, "write", "cancel the task", None
        self.must_cancel = True
        self.cancelling += 1

    def get_coro(self) -> None:
        """Return nothing: where a source awaits is not explored."""

    def uncancel(self) -> int:
        self.cancelling -= 1
        return self.cancelling

    def call_soon_threadsafe(self, function: Callable[[], Any]) -> Steps:
        yield self.name, "write", "call_soon_threadsafe", None
        self.calls.append(function)

    def add_reader(self, _: object, receive: Callable[[], Any]) -> None:
        self.receive = receive

    def remove_reader(self, _: object) -> None:
        self.receive = None

    def checkpoint(self) -> Steps:
        """Await something that is ready: that lets a cancellation in, if one may come."""
        if self.may_be_cancelled:
            yield self.name, "both", "await", None
            while self.calls:
                yield from call(self.calls.popleft())
                yield self.name, "both", "await", None
            self.see_cancellation()

    def see_cancellation(self) -> None:
        if self.must_cancel:
            self.must_cancel = False
            raise CancelledError

    def suspend(self, done: Callable[[], bool]) -> Steps:
        """Wait until it is `done`, or this is cancelled; the loop goes on meanwhile."""
        # A cancellation comes before a token that was sent earlier, and a call too: what was ready before the loop
        # asks the system is done first. That the token comes first is a schedule of its own.
        while not done():
            ready = Until(lambda: bool(self.must_cancel or self.calls or self.tokens or done()))
            yield self.name, "both", "await", ready
            self.see_cancellation()
            if self.calls:
                yield from call(self.calls.popleft())
            elif self.tokens and self.receive is not None:
                yield from call(self.receive)


class TaskBell(Bell):
    """The bell of a task."""

    def sleep(self, deadline: float) -> Steps:
        task = Task.current()
        yield self.name, "both", "await", Until(lambda: bool(self.content or task.must_cancel))
        yield from task.checkpoint()

    def give_turn(self) -> Steps:
        yield from Task.current().checkpoint()


class Event:
    """An `asyncio.Event`: nobody but its loop touches it, so it has no switch points."""

    def __init__(self) -> None:
        self.flag = False
        self.is_set = lambda: self.flag

    def set(self) -> None:
        self.flag = True

    def clear(self) -> None:
        self.flag = False

    def wait(self) -> Steps:
        yield from Task.current().suspend(self.is_set)


class Socket(Queue):
    """Either end of the pair: a queue of tokens. It is an error to send to a closed one, or to close a full one."""

    def __init__(self, task: Task) -> None:
        self.task, self.content, self.name = task, task.tokens, task.name
        self.closed = False

    def setblocking(self, _: object) -> None:
        pass

    def send(self, token: object) -> Steps:
        yield self.name, "write", "send", None
        assert not self.closed, "sent to a socket that is closed"
        self.content.append(token)
        assert len(self.content) == 1, "a second token was sent before the first was received"

    def recv(self, _: int) -> object:
        return self.content.popleft()

    def close(self) -> None:
        assert not self.content, "a token was left in the socket"
        self.closed = True


def socketpair() -> tuple[Socket, Socket]:
    return Socket(Task.current()), Socket(Task.current())


def anext_(source: Any) -> Steps:
    """`anext` itself."""
    return (yield from source.anext())


MODELLED: dict[str, Any] = {
    "anext": anext_,
    "given_once": lambda value: repeat(value, 1),  # one order of steps at a time, and so never twice
    "asyncio": SimpleNamespace(
        CancelledError=CancelledError, Event=Event, get_running_loop=Task.current, current_task=Task.current
    ),
    "socket": SimpleNamespace(socketpair=socketpair),
    "make_bell": TaskBell,
    "get_ident": Current.get_ident,
    "monotonic": float,
    "deadline_after": lambda _: float("inf"),
    "_generator": SimpleNamespace(_process=None),
    "_TURN": 0.005,
}
