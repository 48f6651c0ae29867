"""A strike anywhere in `anext` on an asynchronous consumer, where it has nothing to wait for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from prefetch_generator import BackgroundGenerator
from tests.interrupts.machine import At, Strike, every_strike

# G2


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # struck between the call and the `await`
def test_a_strike_anywhere_in_anext_loses_nothing() -> None:
    """G2: as with `next()` (B4), every item arrives once and in order, wherever a signal handler raises in `anext`."""

    async def consume(numbers: BackgroundGenerator[int], strike: Callable[[int], At]) -> list[int]:
        got: list[int] = []
        items = aiter(numbers)
        with strike(0):
            while len(got) < 4:
                with contextlib.suppress(Strike):
                    got.append(await anext(items))
        return got

    def scenario(strike: Callable[[int], At]) -> None:
        with BackgroundGenerator(range(4), 0) as numbers:
            numbers._worker.ended.wait()
            assert asyncio.run(consume(numbers, strike)) == [0, 1, 2, 3]

    every_strike(scenario)
