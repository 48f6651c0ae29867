"""The best that any prefetcher can do, computed: when each item is ready, and when it is taken."""

from __future__ import annotations

from collections.abc import Sequence


def ideal(making: Sequence[float], using: Sequence[float], held: int) -> float:
    """Return the seconds from the start of the worker until the consumer is done with the last item.

    `making[i]` and `using[i]` are the seconds that the source and the consumer take for item `i`; `held` is the number
    of items that may have been begun and not yet delivered, at least 1. Handing over costs nothing here.

    >>> ideal([1, 1, 1], [1, 1, 1], held=1)
    4
    >>> ideal([3, 1, 1], [1, 1, 1], held=1), ideal([1, 1, 3], [3, 1, 1], held=1), ideal([1, 1, 3], [3, 1, 1], held=2)
    (6, 8, 6)
    """
    if held < 1:
        raise ValueError(f"held must be at least 1, got {held!r}")
    ready: float = 0
    free: float = 0  # when the consumer asks for the next item
    delivered: list[float] = []
    for item, (make, use) in enumerate(zip(making, using, strict=True)):
        room = delivered[item - held] if item >= held else 0
        ready = max(ready, room) + make
        delivered.append(max(ready, free))
        free = delivered[-1] + use
    return free


def in_turn(making: Sequence[float], using: Sequence[float]) -> float:
    """Return the seconds of the plain loop, in which nothing overlaps."""
    return sum(making) + sum(using)
