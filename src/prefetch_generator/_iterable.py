"""`BackgroundIterable`: what is iterated again and again, each time in the background."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Generic, TypeVar

from prefetch_generator._generator import BackgroundGenerator, checked_max_prefetch, is_iterable
from prefetch_generator._worker import channels_over

T_co = TypeVar("T_co", covariant=True)


class BackgroundIterable(Iterable[T_co], Generic[T_co]):
    """An iterable whose every iteration is a new `BackgroundGenerator`, such as one epoch of a PyTorch `DataLoader`.

    An iteration that is left early, by `break` say, may still be inside a step of the source. The next one waits until
    that step is over, however long it takes: an iteration that was left never overlaps the next one, even if the
    iterable hands out the same iterator again. Ctrl-C ends the wait. An iteration that somebody still holds is left
    alone, so nested loops and `zip(x, x)` work as they do on the iterable itself.

    `len()` is the iterable's own. Nothing here keeps an iteration alive.

    Args:
        iterable: What to iterate, again and again: not an iterator, which has one pass only.
        max_prefetch: Items that may be ready or being made ahead of those delivered; 0 or less: no bound.

    Attributes:
        iterable: The object that was handed in.

    Raises:
        TypeError: An argument is of the wrong type, or `iterable` is an iterator.

    >>> numbers = BackgroundIterable(range(3))
    >>> list(numbers), list(numbers), len(numbers)
    ([0, 1, 2], [0, 1, 2], 3)
    """

    __slots__ = ("__weakref__", "_max_prefetch", "iterable")

    iterable: Iterable[T_co]

    def __init__(self, iterable: Iterable[T_co], max_prefetch: int = 2) -> None:
        self._max_prefetch = checked_max_prefetch(max_prefetch)
        if not is_iterable(iterable):
            raise TypeError(f"iterable must be an iterable, got {iterable!r}")
        self.iterable = iterable
        # Asked only where it can be true: an `__iter__` may cost something, and this is not yet an iteration.
        if hasattr(type(iterable), "__next__") and iter(iterable) is iterable:
            raise TypeError(
                f"iterable must be iterable more than once, got the iterator {iterable!r}: for its one pass there is "
                "BackgroundGenerator"
            )

    def __iter__(self) -> BackgroundGenerator[T_co]:
        for channel in channels_over(self.iterable):
            while channel.is_abandoned and not channel.over:
                channel.wait(channel.is_over, math.inf)
        return BackgroundGenerator(self.iterable, self._max_prefetch)

    def __len__(self) -> int:
        return len(self.iterable)  # type: ignore[arg-type]  # a TypeError where it has none, as `len` itself raises

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.iterable!r}, max_prefetch={self._max_prefetch})"
