"""What a sleeper sleeps on, and until when.

A bell is rung by anybody, from anywhere: another thread, a signal handler, a finalizer. So there is no lock in Python
code in it. In a thread that gevent runs, sleeping lets its other greenlets go on.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import sys
import threading
from _queue import SimpleQueue  # the real one: gevent replaces `queue.SimpleQueue`
from time import monotonic
from typing import Any


class Bell:
    """What may be rung, by anybody: what a sleeper sleeps on, or who listens to a stop."""

    __slots__ = ("__weakref__",)

    def ring(self, _: object = None) -> None:
        """Wake the sleeper, or keep it from falling asleep. Never waits, and never raises."""


class ThreadBell(Bell):
    """What a thread sleeps on, once: a lock that is held until somebody rings."""

    # Not a SimpleQueue: before 3.13 its `get(timeout=...)` never returns if the time runs out between two waits in it,
    # which a signal handler that takes long, or a timeout of no time, is enough for.
    __slots__ = ("_lock",)

    alone: bool = True  # nothing else runs with this thread's ident while it sleeps

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self, _: object = None) -> None:
        """Wake the sleeper. Never waits."""
        try:  # noqa: SIM105 - `contextlib.suppress` takes a hundredth of what an item costs at depth 1
            self._lock.release()
        except RuntimeError:  # it has been rung before
            pass

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


# gevent replaces the contents of `threading`, `_thread`, `queue` and `time` when its user says so, before or after this
# library is imported. So what it may replace is looked up when it is needed, and `SimpleQueue` above is never replaced.


class HubBell(ThreadBell):
    """A bell in a thread that gevent runs. Rung from any thread, it wakes the greenlet that sleeps on it."""

    __slots__ = ("_rung", "_watcher", "alone")

    def __init__(self) -> None:
        self.alone = threads_are_greenlets()  # then all greenlets have idents of their own
        self._rung = False
        self._watcher: Any = None

    def ring(self, _: object = None) -> None:
        """Wake the sleeper. Never waits."""
        self._rung = True
        watcher = self._watcher  # after the flag, as `sleep` looks at the flag after it has set this
        if watcher is not None:
            with contextlib.suppress(Exception):  # `sleep` may have closed it meanwhile
                watcher.send()

    def sleep(self, deadline: float) -> bool:
        """Sleep until somebody rings, or has rung; return False if nobody does by the `deadline`."""
        event = _gevent("event").Event()
        self._watcher = watcher = _gevent("hub").get_hub().loop.async_()
        watcher.start(event.set)
        try:
            if not self._rung:
                event.wait(None if deadline == math.inf else max(0.0, deadline - monotonic()))
            return self._rung
        finally:
            self._watcher = None
            watcher.stop()
            watcher.close()


def make_bell() -> ThreadBell:
    """Return a bell for this thread to sleep on."""
    hubs: Any = sys.modules.get("gevent._hub_local")  # private, and the only way to ask: `get_hub` makes a hub
    if hubs is None:
        return ThreadBell()
    return HubBell() if threads_are_greenlets() or hubs.get_hub_if_exists() is not None else ThreadBell()


def make_queue() -> Any:
    """Return a `SimpleQueue` for a worker to sleep on."""
    return _gevent("queue").SimpleQueue() if threads_are_greenlets() else SimpleQueue()


def threads_are_greenlets() -> bool:
    """Return True if gevent has patched `threading`; raise RuntimeError if it has patched only half of it."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return False
    # Asked for what is used: `patch_thread(threading=False)` replaces a part of `threading` all the same.
    patched: bool = monkey.is_object_patched("threading", "get_ident")
    if patched != monkey.is_object_patched("_thread", "get_ident"):
        raise RuntimeError("gevent must have patched both of _thread and threading, or none: it has patched one")
    return patched


def _gevent(module: str) -> Any:
    return importlib.import_module(f"gevent.{module}")
