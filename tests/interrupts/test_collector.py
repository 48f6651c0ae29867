"""Contract C6: the garbage collector, at every instruction of the library."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from types import CodeType, FrameType

from prefetch_generator import BackgroundGenerator
from tests.helpers import EVERY, LONG
from tests.interrupts.machine import NAME, Every


class Abandoner:
    """At every instruction of the library, on each thread that it traces, leave a generator in a cycle and collect."""

    def __init__(self) -> None:
        self.closed: SimpleQueue[threading.Thread] = SimpleQueue()
        self.abandoned: SimpleQueue[CodeType] = SimpleQueue()
        self.turn = itertools.count()

    def source(self) -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            self.closed.put(threading.current_thread())

    def __call__(self, frame: FrameType) -> None:
        if threading.current_thread().name == NAME:
            return
        holder: list[object] = [BackgroundGenerator(self.source(), 1, name="traced")]
        next(holder[0])  # type: ignore[call-overload]
        self.abandoned.put(frame.f_code)
        if next(self.turn) % EVERY == 0:
            holder.append(holder)
            del holder
            gc.collect(0)

    def check(self, least: int) -> None:
        count = self.abandoned.qsize()
        assert count > least
        for _ in range(count):
            thread = self.closed.get(timeout=LONG)
            thread.join(LONG)
            assert not thread.is_alive()


def test_a_generator_is_abandoned_at_every_instruction_of_the_consumer(no_collector: None) -> None:
    """C6: wherever the collector happens to run in this library's own code, it stops what it finds, harms nobody."""
    abandoner = Abandoner()
    with Every("opcode", abandoner):
        numbers = BackgroundGenerator(range(3), 1)
        assert list(numbers) == [0, 1, 2]
        with BackgroundGenerator(itertools.count(), 2) as numbers:
            assert next(numbers) == 0
    abandoner.check(300)


def test_a_generator_is_abandoned_at_every_instruction_of_the_worker(no_collector: None) -> None:
    """C6: also on a worker: where it waits for room, rings, ends, or closes its source."""
    abandoner = Abandoner()
    with Every("opcode", abandoner).on_new_threads(but=NAME):
        assert list(BackgroundGenerator(range(3), 1)) == [0, 1, 2]
        with BackgroundGenerator(itertools.count(), 1) as numbers:
            assert next(numbers) == 0
    abandoner.check(80)
