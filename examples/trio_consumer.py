"""Take from a slow synchronous source in a task of trio, beside another task, and with a time limit.

A task whose time is up while it waits for a value has lost nothing: whoever goes on gets that value.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from prefetch_generator import BackgroundGenerator, current_stop_event

try:
    import trio
except ImportError:
    print("skipped: trio is not installed")
    sys.exit(0)

VALUES = 10
SECONDS = 0.05  # that the sensor takes for one

log: list[str] = []


def measurements() -> Iterator[int]:
    """Yield what a slow sensor says, until it falls silent."""
    stop = current_stop_event()
    try:
        for number in range(VALUES):
            stop.wait(SECONDS)  # stands for a blocking call of the driver
            yield number
        stop.wait()
    finally:
        log.append("sensor closed")


async def tick(ticks: list[float]) -> None:
    """Do something else meanwhile, which a blocked event loop could not."""
    while True:
        ticks.append(trio.current_time())
        await trio.sleep(SECONDS / 10)


async def main() -> None:
    """Take all values, a few at a time, and leave the silent sensor."""
    taken: list[int] = []
    ticks: list[float] = []
    time_outs = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick, ticks)
        async with BackgroundGenerator(measurements()) as values:
            while len(taken) < VALUES:
                with trio.move_on_after(2.5 * SECONDS) as limit:
                    async for value in values:
                        taken.append(value)  # noqa: PERF401 - of a comprehension a time-out would leave nothing
                time_outs += limit.cancelled_caught
        # The end of the block has ended the wait of the source, and waited for its `finally`.
        assert log == ["sensor closed"]
        nursery.cancel_scope.cancel()

    assert taken == list(range(VALUES))
    assert time_outs > 1
    assert len(ticks) > VALUES
    print(f"took all {VALUES} values, though the time was up {time_outs} times")
    print(f"meanwhile the other task ran {len(ticks)} times; the sensor was closed")


if __name__ == "__main__":
    trio.run(main)
