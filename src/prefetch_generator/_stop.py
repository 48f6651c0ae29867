"""Stop events: one-shot, and safe where `threading.Event` is not.

`threading.Event.set` takes a lock in Python code. A signal handler or a finalizer that calls it while the same
thread is inside that event waits for itself. Nothing here holds a lock while Python code runs: a waiter hands in a
*bell* of its own, which may be rung anywhere, looks at the flag once more, and sleeps on its bell; `set` raises the
flag first and rings afterwards.

    waiter: announce the bell, then look at the flag      setter: raise the flag, then look for bells

Whichever comes second sees the first, so no wake-up is lost. Both sides go through the lock inside the `set` of
listeners, which is what orders the two accesses on a free-threaded build.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from prefetch_generator._atomic import Once, call_held
from prefetch_generator._bell import Bell, deadline_after, make_bell

if TYPE_CHECKING:
    from prefetch_generator._channel import Channel


T = TypeVar("T")


class StopEvent:
    """Tell any number of generators, and the sources inside them, to stop.

    Like `threading.Event` without `clear()`: once set, it stays set. Unlike it, `set()` and `is_set()` may be called
    from a signal handler and from a finalizer.

    >>> stop = StopEvent()
    >>> stop.wait(timeout=0.01)
    False
    >>> stop.set()
    >>> stop.is_set(), stop.wait()
    (True, True)
    """

    __slots__ = ("__weakref__", "_channel", "_children", "_exit", "_flag", "_listeners", "_parent")

    def __init__(self) -> None:
        self._flag = False
        self._parent: StopEvent | None = None
        self._channel: Channel[Any] | None = None  # what it cancels; the end of that one's generator sets this event
        self._exit: StopEvent | None = None  # set at interpreter exit
        # Weak: whoever no longer refers to a listener, wherever that was interrupted, no longer listens.
        self._listeners: set[weakref.ref[Bell | _Callback]] = set()
        # Weak, because a shared event may outlive thousands of generators that were given it.
        self._children: set[weakref.ref[StopEvent]] = set()

    def set(self) -> None:
        """Set the event: wake every waiter and stop every generator that was given it. Never waits.

        Callbacks of `on_set` are called here.

        >>> stop = StopEvent()
        >>> numbers = BackgroundGenerator(range(10), stop_event=stop)
        >>> stop.set()
        >>> list(numbers)
        []
        """
        set_all([self])

    def is_set(self) -> bool:
        """Return True once the event has been set.

        >>> StopEvent().is_set()
        False
        """
        # What sets this event is asked too, for its flag is up before this one. A source must never see the generator
        # inside it end for a stop that it cannot see itself: it would take the stop for the end of the data.
        event: StopEvent | None = self
        while event is not None:
            if event._flag or (event._channel is not None and event._channel.owner() is None):
                return True
            if event._exit is not None and event._exit._flag:
                return True
            event = event._parent
        return False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set.

        Args:
            timeout: Seconds to wait at most. None: as long as it takes.

        Returns:
            True if the event is set, False if the time ran out first.

        Raises:
            TypeError: `timeout` is neither None nor a number.
            ValueError: `timeout` is negative, or not a number (NaN).

        >>> StopEvent().wait(timeout=0.01)
        False
        """
        deadline = deadline_after(timeout)
        bell = make_bell()
        _kept = self.listen(bell)
        return self.is_set() or bell.sleep(deadline) or self.is_set()

    def on_set(self, callback: Callable[[], object]) -> AbstractContextManager[None]:
        """Have `callback()` called when the event is set within the block: `with stop.on_set(callback): ...`.

        It is called once, on whichever thread sets the event (perhaps in a finalizer or a signal handler), and at once
        if the event is set already. It is never begun after the block has been left; one that is running then is not
        waited for. What it raises goes to `sys.unraisablehook`.

        So a source that is blocked in a client hears of the stop, if the client can be cancelled from another thread:

        >>> def rows(connection, query):
        ...     stop = current_stop_event()
        ...     with stop.on_set(connection.interrupt):
        ...         if not stop.is_set():  # a stop that came before the query has interrupted nothing
        ...             yield from connection.execute(query)

        Args:
            callback: What to call, without arguments. It should not block: it may run on the thread that drops the
                generator.

        Raises:
            TypeError: `callback` is not callable.

        >>> stop = StopEvent()
        >>> with stop.on_set(lambda: print("stopped")):
        ...     stop.set()
        stopped
        """
        if not callable(callback):
            raise TypeError(f"callback must be callable, got {callback!r}")
        return _Callback(self, callback)

    def listen(self, listener: Bell | _Callback) -> object:
        """Have each `set()` call `listener.ring()` as long as the listener is alive. Look at the event afterwards.

        Keep what this returns equally long: a weak reference that rings when the generator is dropped, even if the
        generator's finalizer, which is Python code, is interrupted before it can set the event.
        """
        self._listeners.add(weakref.ref(listener, self._listeners.discard))
        owner = self._channel and self._channel.owner()
        return owner and weakref.ref(owner, listener.ring)

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot copy or pickle a StopEvent: nobody would set, or hear, the copy")

    def __repr__(self) -> str:
        return f"<StopEvent {'set' if self.is_set() else 'not set'}>"


def set_all(events: list[StopEvent]) -> None:
    """Set all these events, and wake everybody before anything that may take its time."""
    # Everything is done again when called again: a call that Ctrl-C cut short is mended by the next one.
    events = events.copy()
    for event in events:  # which grows: children may have children
        event._flag = True
        events += _living(event._children)
    listeners = [listener for event in events for listener in _living(event._listeners)]
    channels = [event._channel for event in events if event._channel is not None]
    for channel in channels:
        channel.cancel()
    for listener in listeners:
        if isinstance(listener, Bell):
            listener.ring()
    # Everybody is awake; now for what may run user code, and so raise, or take its time. The stack goes through all of
    # it whatever that raises, last things first: callbacks, then the finalizers of items.
    with ExitStack() as stack:
        for channel in channels:
            stack.callback(channel.drop)
        for listener in listeners:
            if isinstance(listener, _Callback):
                stack.callback(listener.ring)


def _living(references: set[weakref.ref[T]]) -> list[T]:
    return [it for reference in references.copy() if (it := reference()) is not None]


class _Callback:
    """A callback that listens to an event within a block of `on_set`: rung, it is called, once."""

    __slots__ = ("__weakref__", "_callback", "_event", "_pid", "_watcher")

    def __init__(self, event: StopEvent, callback: Callable[[], object]) -> None:
        self._event = event
        self._callback: Once[partial[object]] = Once()
        self._callback.hold(partial(callback))  # of which `__call__` is just that, even if it is a class
        self._pid = os.getpid()
        self._watcher: object = None

    def __enter__(self) -> None:
        self._watcher = self._event.listen(self)
        if self._event.is_set():
            self.ring()

    def __exit__(self, *exc: object) -> None:
        next(self._callback.take)  # from here on nobody can begin it
        self._watcher = None

    def ring(self, _: object = None) -> None:
        """Call the callback, unless that has been done, or the block been left."""
        # A forked child has a copy of the block, and perhaps of the connection that would be cut.
        if self._pid == os.getpid():
            call_held(self._callback, _Unraisable)


class _Unraisable:
    """Has CPython give `error` to `sys.unraisablehook`, which takes nothing that is made in Python."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __del__(self) -> None:
        try:
            raise self.error
        finally:
            del self.error  # else the traceback would keep it: a cycle


def own_event(channel: Channel[Any], parent: StopEvent | None) -> StopEvent:
    """Return a generator's own event: set by itself, by `parent` if there is one, and by the end of its owner."""
    event = StopEvent()
    event._exit = _Exit.event
    event._channel = channel
    if parent is not None:
        event._parent = parent
        parent._children.add(weakref.ref(event, parent._children.discard))
    return event


class _Exit:
    event = StopEvent()


def is_exiting(event: StopEvent) -> bool:
    """Return whether a generator's own event is set because this process ends."""
    return event._exit is not None and event._exit._flag


def announce_exit() -> None:
    """Make `is_set()` true, in one step, for every generator's own event made so far; their `set()` is to follow."""
    _Exit.event._flag = True
    _renew_exit()  # for those that other exit handlers still make


def _renew_exit() -> None:
    """Have the exit of this process concern only the generators that are made from now on."""
    _Exit.event = StopEvent()


class SourceContext:
    """What is known about a thread that runs a source."""

    __slots__ = ("coroutine", "heard", "interrupted", "is_its_task", "stop", "waits_for")

    def __init__(self, stop: StopEvent) -> None:
        self.stop = stop
        # From now on a stop no longer interrupts the source: it has, with GeneratorExit or CancelledError at a wait, or
        # the source is being closed, or has ended.
        self.heard = False
        # Of an asynchronous source, whose one task a stop cancels: whether that is the task that runs now.
        self.is_its_task: Callable[[], bool] | None = None
        self.coroutine: object = None  # of that task
        self.interrupted = StopEvent()  # set when a stop has cancelled that task, or can do so no more
        # What it sleeps for, with no time limit: until there is this news of that channel.
        self.waits_for: tuple[Channel[Any], Callable[[], object]] | None = None

    def raise_if_stopped(self) -> None:
        """Raise GeneratorExit if this is to stop: once, as `generator.close()` does at a `yield`.

        Only once, so that a clean-up may use other generators.
        """
        if not self.heard and self.stop.is_set():
            self.heard = self.is_its_task is None or self.is_its_task()
            raise GeneratorExit


# By thread rather than in a context variable: a helper thread that copies the source's context is not the source. And
# not in a `threading.local`: one that was made before gevent patched `threading` is the same for all greenlets.
_source_contexts: dict[int, SourceContext] = {}


def current_stop_event() -> StopEvent:
    """Return the stop event of the worker this code runs on; anywhere else, one that is never set.

    A source that waits with it, instead of with `time.sleep`, hears of a stop at once:

    >>> def poll(seconds):
    ...     stop = current_stop_event()
    ...     while not stop.wait(seconds):
    ...         yield "something new"
    >>> with BackgroundGenerator(poll(0.01)) as news:
    ...     next(news)
    'something new'
    """
    here = source_context(threading.get_ident())
    return StopEvent() if here is None else here.stop


def enter_source_context(stop: StopEvent) -> SourceContext:
    """Make this thread a worker's, with `stop` as its stop event."""
    here = _source_contexts[threading.get_ident()] = SourceContext(stop)
    return here


def leave_source_context(ident: int) -> None:
    """Undo that, before the thread ends: its ident is used again."""
    _source_contexts.pop(ident, None)


def source_context(ident: int) -> SourceContext | None:
    """Return what is known about the thread with this ident; None if it is no worker's."""
    return _source_contexts.get(ident)


def _after_fork_in_child() -> None:
    _source_contexts.clear()  # that of the thread that has forked as well: its generator is not here
    _renew_exit()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
