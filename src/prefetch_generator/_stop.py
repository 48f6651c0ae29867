"""Stop events: one-shot, and safe where `threading.Event` is not.

`threading.Event.set` takes a lock in Python code. A signal handler or a finalizer that calls it while the same
thread is inside that event waits for itself. Nothing here holds a lock while Python code runs: a waiter hands in a
*bell* (a bare lock of its own, which may be released anywhere), looks at the flag once more, and sleeps on its bell;
`set` raises the flag first and rings afterwards.

    waiter: announce the bell, then look at the flag      setter: raise the flag, then look for bells

Whichever comes second sees the first, so no wake-up is lost. Both sides go through the lock inside the `set` of bells,
which is what orders the two accesses on a free-threaded build.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import weakref
from collections.abc import Callable
from time import monotonic
from typing import NoReturn


class Bell:
    """What one sleeper sleeps on, once: a lock that is held until somebody rings."""

    # Not a SimpleQueue: before 3.13 its `get(timeout=...)` never returns if the time runs out between two waits in it,
    # which a signal handler that takes long, or a timeout of no time, is enough for.
    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self, _: object = None) -> None:
        """Wake the sleeper. Never waits."""
        with contextlib.suppress(RuntimeError):  # it has been rung before
            self._lock.release()

    def sleep(self, deadline: float) -> bool:
        """Sleep until somebody rings, or has rung; return False if nobody does by the `deadline`."""
        if deadline == math.inf and not _SLICED:
            return self._lock.acquire()
        while not self._lock.acquire(timeout=min(max(0.0, deadline - monotonic()), _longest_wait())):
            if monotonic() >= deadline:
                return False
        return True


# The only slicing in this library: Ctrl-C cannot end a longer wait of Windows' main thread before 3.14.
_SLICED = sys.platform == "win32" and sys.version_info < (3, 14)


def deadline_after(timeout: float | None) -> float:
    """Return the reading of `time.monotonic` in `timeout` seconds, infinity for None; refuse anything else."""
    if timeout is None:
        return math.inf
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds or None, got {timeout!r}")
    if not timeout >= 0:  # written so that NaN is refused too
        raise ValueError(f"timeout must be at least 0 seconds, got {timeout!r}")
    return monotonic() + min(timeout, threading.TIMEOUT_MAX)


def _longest_wait() -> float:
    if _SLICED and threading.current_thread() is threading.main_thread():
        return 0.1
    return threading.TIMEOUT_MAX


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

    __slots__ = ("__weakref__", "_bells", "_children", "_exit", "_flag", "_on_set", "_owner", "_parent")

    def __init__(self) -> None:
        self._flag = False
        self._parent: StopEvent | None = None
        self._owner: Callable[[], object] | None = None  # the generator whose end sets this event
        self._exit: StopEvent | None = None  # set at interpreter exit
        self._on_set: Callable[[], object] | None = None
        self._bells: set[Bell] = set()
        # Weak, because a shared event may outlive thousands of generators that were given it.
        self._children: set[weakref.ref[StopEvent]] = set()

    def set(self) -> None:
        """Set the event: wake every waiter and stop every generator that was given it. Never waits."""
        # Everything is done again when called again: a call that Ctrl-C cut short is mended by the next one.
        events = [self]
        for event in events:  # which grows: children may have children
            event._flag = True
            events += [child for reference in event._children.copy() if (child := reference()) is not None]
        for event in events:
            if event._on_set is not None:
                event._on_set()
            for bell in event._bells.copy():
                bell.ring()

    def is_set(self) -> bool:
        """Return True once the event has been set."""
        # What sets this event is asked too, for its flag is up before this one. A source must never see the generator
        # inside it end for a stop that it cannot see itself: it would take the stop for the end of the data.
        event: StopEvent | None = self
        while event is not None:
            if event._flag or (event._owner is not None and event._owner() is None):
                return True
            if event._exit is not None and event._exit._flag:
                return True
            event = event._parent
        return False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set, at most `timeout` seconds (None: as long as it takes).

        Returns True if the event is set, False if the time ran out first.
        Raises TypeError or ValueError if `timeout` is neither None nor a number of at least 0 seconds.
        """
        deadline = deadline_after(timeout)
        bell = Bell()
        watch = None
        try:
            watch = subscribe(self, bell)
            return self.is_set() or bell.sleep(deadline) or self.is_set()
        finally:
            unsubscribe(self, bell)
            del watch

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot copy or pickle a StopEvent: nobody would set, or hear, the copy")

    def __repr__(self) -> str:
        return f"<StopEvent {'set' if self.is_set() else 'not set'}>"


def subscribe(event: StopEvent, bell: Bell) -> object:
    """Have `bell` rung by every `event.set()`; look at `event.is_set()` afterwards.

    Keep what this returns until `unsubscribe`: a weak reference that rings the bell when the generator is dropped, even
    if its finalizer was interrupted before it could set the event.
    """
    event._bells.add(bell)
    owner = event._owner and event._owner()
    return owner and weakref.ref(owner, bell.ring)


def unsubscribe(event: StopEvent, bell: Bell) -> None:
    """Undo `subscribe`; harmless if that was interrupted."""
    event._bells.discard(bell)


def own_event(owner: Callable[[], object], parent: StopEvent | None, on_set: Callable[[], object]) -> StopEvent:
    """Return a generator's own event: set by itself, by `parent` if there is one, and by the end of `owner`."""
    event = StopEvent()
    event._owner = owner
    event._exit = _Exit.event
    event._on_set = on_set
    if parent is not None:
        event._parent = parent
        parent._children.add(weakref.ref(event, parent._children.discard))
    return event


class _Exit:
    event = StopEvent()


def announce_exit() -> None:
    """Make `is_set()` true, in one step, for every generator's own event made so far; their `set()` is to follow."""
    _Exit.event._flag = True
    renew_exit()  # for those that other exit handlers still make


def renew_exit() -> None:
    """Have the exit of this process concern only the generators that are made from now on."""
    _Exit.event = StopEvent()


class _Current(threading.local):
    # Thread-local rather than a context variable: a helper thread that copies the source's context is not the source.
    stop_event: StopEvent | None = None
    told = False  # the source has been told, by GeneratorExit, to stop


_current = _Current()


def current_stop_event() -> StopEvent:
    """Return the stop event of the worker this code runs on; anywhere else, one that is never set.

    A source that waits with it, instead of with `time.sleep`, is cancelled at once:

    >>> def poll():
    ...     stop = current_stop_event()
    ...     while not stop.wait(1.0):
    ...         yield "something new"
    """
    return _current.stop_event or StopEvent()


def enter_worker(stop: StopEvent) -> None:
    """Make `stop` this thread's stop event, from now until the thread ends."""
    _current.stop_event = stop


def worker_stop_event() -> StopEvent | None:
    """Return this thread's stop event, or None if it is no worker's thread."""
    return _current.stop_event


def raise_if_stopped() -> None:
    """Raise GeneratorExit on a worker that is to stop: once, as `generator.close()` does at a `yield`.

    Only once, so that a clean-up may use other generators.
    """
    stop = _current.stop_event
    if stop is not None and not _current.told and stop.is_set():
        _current.told = True
        raise GeneratorExit


def tell() -> bool:
    """Have `raise_if_stopped` not raise from now on, on this thread; return True if it has raised before."""
    told, _current.told = _current.told, True
    return told
