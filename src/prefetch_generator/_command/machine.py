"""What this interpreter and these processors can do for two threads, here and now."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator

SWITCH_INTERVAL = 0.0001  # seconds for sys.setswitchinterval, whose default of 0.005 is long for short items


def seconds_of(work: Callable[[], None]) -> float:
    """Return how long *work* takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextlib.contextmanager
def switch_interval(seconds: float) -> Iterator[None]:
    """Let a thread that waits for the GIL ask for it after *seconds*, for a while."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def has_gil() -> bool:
    """Tell whether only one thread at a time can run Python code."""
    enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return enabled()


def spare_processor() -> bool:
    """Tell whether a second thread gets a processor of its own.

    It is tried with work that needs no GIL, because a count of processors knows nothing of quotas and neighbours.
    """
    block = bytes(1 << 24)

    def work() -> None:
        for _ in range(5):
            zlib.crc32(block)

    def work_twice() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        work()
        thread.join()

    once = sum(seconds_of(work) for _ in range(3))
    return sum(seconds_of(work_twice) for _ in range(3)) < 1.5 * once
