"""The loop bodies that stand in for the user's."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TypeAlias

from prefetch_generator._command import machine

Consumer: TypeAlias = Callable[[], None]


def nothing() -> None:
    """Take an item and no time."""


def waiting(seconds: float) -> Consumer:
    """Return a consumer that waits, as for a GPU or a network."""
    return lambda: time.sleep(seconds)


def computing(seconds: float) -> Consumer:
    """Return a consumer that computes in Python, for as long as *seconds* are on an idle machine.

    It counts iterations. One that watched the clock would do less work whenever the source held the GIL,
    and so hide what is to be measured.
    """
    iterations = round(seconds * _iterations_per_second())
    return lambda: _compute(iterations)


def _compute(iterations: int) -> None:
    for _ in range(iterations):
        pass


def _iterations_per_second() -> float:
    iterations = 1000
    while True:
        # The quickest of some tries: the others were disturbed.
        fastest = min(machine.seconds_of(functools.partial(_compute, iterations)) for _ in range(3))
        if fastest >= 0.01:
            return iterations / fastest
        iterations *= 4
