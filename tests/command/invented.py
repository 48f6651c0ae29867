"""Times that nobody has measured, and where to write a module."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TypeAlias

from prefetch_generator._command.times import Comparison, Measurement, Run, Span, best_speed_up

WriteModule: TypeAlias = Callable[[str], str]


def plain(made: Sequence[float], used: Sequence[float]) -> Run:
    """Return a plain loop with these seconds per item."""
    start = clock = 64.0
    spans: list[Span] = []
    for seconds in itertools.chain.from_iterable(zip(made, used, strict=True)):
        spans.append(Span(clock, clock + seconds))
        clock += seconds
    return Run(start, spans[::2], spans[1::2])


def compared(share: float, consumer: str = "waits", *, source: float = 1.0, used: float = 1.0) -> Comparison:
    """Return a comparison of ten items in which *share* of the possible gain was reached."""
    slow = plain([source] * 10, [used] * 10)
    seconds = slow.seconds / (1 + share * (best_speed_up(10, source, used) - 1))
    fast = Run(0.0, slow.made, [*slow.used[:-1], Span(0.0, seconds)], 0.25, 0.5)
    return Comparison(consumer, slow, {"background": fast})


def with_process(comparison: Comparison, share: float, startup: float = 0.0) -> Comparison:
    """Return this comparison and a process in it, which reached *share* of the possible gain."""
    process = compared(share).others["background"]._replace(startup=startup)
    return comparison._replace(others={**comparison.others, "process": process})


def measured(waits: float = 1.0, computes: float = 1.0, tuned: float | None = None, *, depth: int = 2) -> Measurement:
    """Return a measurement in which each comparison reached this share of the possible gain."""
    alone = plain([1.0] * 10, [0.0] * 10)
    again = None if tuned is None else compared(tuned, "tuned")
    both = compared(waits, "waits"), compared(computes, "computes")
    return Measurement("'data:load'", 2, alone, alone, *both, depth, tuned=again)
