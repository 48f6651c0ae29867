"""How far a measurement has come, and how long the rest of it can take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from prefetch_generator._command.consumers import Consumer

Announce: TypeAlias = Callable[[str, float | None], None]  # gets the step, and the seconds left at most, if known

WITHOUT_CONSUMER = 2  # the first pass, and the source alone


class Progress:
    """Announces every step, and at each item how long this and the later steps can take.

    At most: as if nothing overlapped, and as if the steps were taken that only some sources need.
    """

    def __init__(
        self, announce: Announce | None, steps: Sequence[str], consumer: float | None, items: int | None
    ) -> None:
        """Take the steps in order, the consumer's seconds per item if they are not the source's, the items if known."""
        self._announce = announce
        self._steps = steps
        self._consumer = consumer
        self.items = items  # set by whoever comes to know them
        self._source = 0.0  # seconds per item

    def of_first_pass(self, made: int, spent: float) -> None:
        """Tell that *made* items took *spent* seconds: from this follows what all the others take."""
        self._source = spent / max(made, 1)
        if self._announce:
            self._announce(self._steps[0], self.seconds_left(0, made) if made else None)

    def watched(self, step: str, consumer: Consumer) -> Consumer:
        """Return *consumer*, and have it tell of each item if anybody wants to know."""
        if not self._announce:
            return consumer  # itself: nothing comes between what is measured
        announce, number, used = self._announce, self._steps.index(step), 0
        announce(step, self.seconds_left(number, 0))

        def telling() -> None:
            nonlocal used
            consumer()
            used += 1
            announce(step, self.seconds_left(number, used))

        return telling

    def seconds_left(self, step: int, used: int) -> float | None:
        """Return how long it can take from here on, with so many items used in the step of that number."""
        if self.items is None:
            return None
        consumer = self._source if self._consumer is None else self._consumer
        later = range(step + 1, len(self._steps))
        now, *rest = [self._source + (consumer if number >= WITHOUT_CONSUMER else 0.0) for number in (step, *later)]
        return max(self.items - used, 0) * now + self.items * sum(rest)
