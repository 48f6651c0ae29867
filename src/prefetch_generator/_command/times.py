"""When each item was made and used, and what follows from that: arithmetic only, nothing is run here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

WORTH_IT = 1.1  # a best possible speed-up below this is not worth a thread
ENOUGH = 0.5  # with this share of the possible gain there is nothing to advise


class Span(NamedTuple):
    """When one side worked on one item, in seconds of `time.perf_counter`."""

    start: float
    end: float


class Run(NamedTuple):
    """One pass over the source: when it began, when each item was made and used, the waits, and what came before."""

    start: float
    made: Sequence[Span]
    used: Sequence[Span]
    producer_wait: float = 0.0
    consumer_wait: float = 0.0
    startup: float = 0.0  # seconds that a process took until it began; not counted

    @property
    def seconds(self) -> float:
        """From the beginning to the end of the consumer's last item."""
        return self.used[-1].end - self.start

    @property
    def rate(self) -> float:
        """Items per second."""
        return len(self.used) / self.seconds


class Comparison(NamedTuple):
    """The same items, given to the same consumer by a plain loop and in other ways."""

    consumer: str  # what it does: "waits"
    plain: Run
    others: Mapping[str, Run]  # by variant: "background", and "process" where that was tried

    @property
    def runs(self) -> Mapping[str, Run]:
        """All of them by variant, the plain loop first, which is called "plain"."""
        return {"plain": self.plain, **self.others}

    @property
    def best(self) -> float:
        """How many times faster than the plain loop it could be, by the times of that loop."""
        return best_speed_up(len(self.plain.used), mean(self.plain.made), mean(self.plain.used))

    def speed_up(self, variant: str) -> float:
        """Return how many times faster than the plain loop *variant* was."""
        return self.runs[variant].rate / self.plain.rate

    def gained(self, variant: str = "background") -> float:
        """Return the share of the possible gain that was reached: 0 for none, 1 for all or if there is hardly any.

        0 also for a variant that was not tried.
        """
        if self.best < WORTH_IT:
            return 1.0
        return (self.speed_up(variant) - 1) / (self.best - 1) if variant in self.others else 0.0


class Measurement(NamedTuple):
    """Everything that was measured: what a report, of whatever kind, is made from."""

    title: str
    max_prefetch: int
    first: Run
    alone: Run
    waits: Comparison
    computes: Comparison
    depth: int  # the max_prefetch that these times ask for
    no_process: str = ""  # why a process could not be tried where a thread gained little
    # The rest is looked at only if a computing consumer gained little.
    tuned: Comparison | None = None  # that consumer again, with `depth` and a shorter switch interval
    spare: bool = True  # whether a second thread got a processor of its own
    gil: bool = True  # whether only one thread at a time can run Python code


def mean(spans: Sequence[Span]) -> float:
    """Return the mean length of *spans*, in seconds."""
    return sum(end - start for start, end in spans) / len(spans)


def idle(start: float, spans: Sequence[Span]) -> float:
    """Return the seconds from *start* to the end of the last of *spans* that belong to none of them."""
    return spans[-1].end - start - sum(end - begun for begun, end in spans) if spans else 0.0


def best_speed_up(items: int, source: float, consumer: float) -> float:
    """Return the best speed-up that overlap can give, for the mean seconds per item of both sides.

    The slower side has to do all its work, and the other one its first or its last item alone.

    >>> best_speed_up(10, 1.0, 1.0)
    1.8181818181818181
    """
    slower, faster = max(source, consumer), min(source, consumer)
    return items * (slower + faster) / (items * slower + faster) if slower else 1.0


def overlapped(run: Run, depth: int) -> float:
    """Return the seconds that *run* would take with a buffer of *depth* items and no cost of its own."""
    ready = 0.0
    taken: list[float] = []
    free = 0.0
    for index, (made, used) in enumerate(zip(run.made, run.used, strict=True)):
        room = taken[index - depth] if index >= depth else 0.0
        ready = max(ready, room) + made.end - made.start
        taken.append(max(ready, free))
        free = taken[-1] + used.end - used.start
    return free


def enough_depth(run: Run, max_prefetch: int) -> int:
    """Return *max_prefetch*, or the depth that would be clearly faster for the uneven times of *run*."""
    fastest = overlapped(run, len(run.used))
    if max_prefetch <= 0 or overlapped(run, max_prefetch) < 1.1 * fastest:
        return max_prefetch
    depth = max_prefetch
    while overlapped(run, depth) >= 1.05 * fastest:
        depth *= 2
    return depth
