"""Contract B4: a storm of real signals."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from queue import SimpleQueue
from types import FrameType

import pytest

from prefetch_generator import BackgroundGenerator
from tests.helpers import LONG, PACKAGE
from tests.interrupts.machine import Strike


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_a_long_storm_of_interrupts_loses_nothing() -> None:
    """B4: 60,000 items under 500 real signals or more, the handler raises, the consumer retries: all come, in order."""
    strikes = 0
    storm: SimpleQueue[None] = SimpleQueue()

    def handler(_: int, frame: FrameType | None) -> None:
        nonlocal strikes
        strikes += 1
        storm.put(None)
        # Not in the loop below, nor in a tool that traces this test, which it could leave locked.
        if frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
            raise Strike

    def source() -> Iterator[int]:
        for start in range(0, 60_000, 100):
            storm.get(timeout=LONG)  # one strike for each hundred, so that there are enough on the fastest machine
            yield from range(start, start + 100)

    got: list[int] = []
    numbers = BackgroundGenerator(source(), 8)
    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        while True:
            try:
                got.extend(numbers)  # in C: what next() has returned is in the list
                break
            except Strike:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert got == list(range(60_000))
    assert strikes >= 500
