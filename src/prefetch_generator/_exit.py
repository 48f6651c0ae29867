"""The end of the process, at which every worker is stopped.

`atexit` runs when the non-daemon threads have ended, so whoever still consumes has had everything by then. A child that
`multiprocessing` has started ends by `os._exit`, and runs finalizers of its own instead.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
import threading
from contextlib import ExitStack
from time import monotonic
from typing import TYPE_CHECKING, Any

from prefetch_generator._stop import announce_exit, set_all

if TYPE_CHECKING:
    from prefetch_generator._worker import Worker

GRACE = 1.0  # seconds that all workers together get at interpreter exit

live: set[Worker] = set()  # the workers that have not ended, or have something to report; their generator may be gone


@atexit.register
def _stop_all() -> None:
    workers = live.copy()
    announce_exit()  # to all, before the first of them ends, so that no source takes that for the end of the data
    deadline = monotonic() + GRACE
    set_all([worker.stop for worker in workers])
    stuck = [worker for worker in workers if not worker.ended.wait(max(0.0, deadline - monotonic()))]
    kept = _readers() if stuck else None
    for worker in stuck:
        worker.kept = kept
        worker.kill()
    live.difference_update(stuck)  # whoever comes here again, as a spawned child does, need not wait again
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


def hear_of_the_end_of_a_child() -> None:
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


def come_before_children_are_joined() -> None:
    """See that `_stop_all` runs before `multiprocessing` waits for the children of this process."""
    if not _Child.finalizer or not _Child.finalizer.still_active():
        _register_finalizer()


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
    live.clear()
    _Child.finalizer = None  # it minds the process that it was made in


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
