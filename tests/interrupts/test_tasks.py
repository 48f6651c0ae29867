"""Contract B4 and G3: signals that strike a task in `anext`."""

from __future__ import annotations

import _thread
import asyncio
import signal
import threading
from collections.abc import Iterator
from itertools import repeat
from types import FrameType

from prefetch_generator import BackgroundGenerator, current_stop_event


def test_no_signal_handler_runs_between_the_take_and_the_return_of_anext() -> None:
    """G3, B4: an item that has left the buffer is returned before a signal handler can run, on every Python."""
    struck: list[str] = []
    ready = threading.Event()

    def source() -> Iterator[int]:
        yield 0
        ready.set()
        current_stop_event().wait()

    def handler(_: int, frame: FrameType | None) -> None:
        while frame is not None:
            struck.append(frame.f_code.co_name)
            frame = frame.f_back

    async def main() -> int:
        with BackgroundGenerator(source(), 2) as numbers:
            ready.wait()
            # The consumer iterates this right after it has taken the item: from here on a handler is due.
            numbers._channel.wake_worker = map(_thread.interrupt_main, repeat(signal.SIGUSR1, 1))
            return await anext(aiter(numbers))

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        assert asyncio.run(main()) == 0
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert "main" in struck
    assert "__anext__" not in struck
