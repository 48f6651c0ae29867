"""A strike anywhere in `anext` on an asynchronous consumer, where it has nothing to wait for."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from prefetch_generator import BackgroundGenerator
from tests.interrupts.machine import At, Strike, one_after_the_other

# G2


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # struck between the call and the `await`
def test_a_strike_anywhere_in_anext_loses_nothing() -> None:
    """G2: as with `next()` (B4), every item arrives once and in order, wherever a signal handler raises in `anext`."""

    async def consume(numbers: BackgroundGenerator[int], at: At) -> list[int]:
        got: list[int] = []
        items = aiter(numbers)
        with at:
            while len(got) < 4:
                with contextlib.suppress(Strike):
                    got.append(await anext(items))
        return got

    def scenario(n: int) -> At:
        with BackgroundGenerator(range(4), 0) as numbers:
            numbers._worker.ended.wait()
            at = At("poll", n)
            assert asyncio.run(consume(numbers, at)) == [0, 1, 2, 3]
        return at

    one_after_the_other(scenario, 10)
