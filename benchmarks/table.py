"""What a table is: candidates of one kind, and workloads that all of them can run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

Metrics = dict[str, float]  # by what the page calls them, with their unit; "" if the case says it all


class GapError(Exception):
    """A candidate cannot take part; the message says why."""


@dataclass(frozen=True)
class Candidate:
    """One way of prefetching.

    It is given a depth and does with it what its documentation says. Most hold one item more, the one that found the
    buffer full: where the number of items held matters, `depth_for` gives each candidate the same.
    """

    name: str
    load: Callable[[], Callable[..., Any]]  # imports what it needs; see `make`
    package: str = ""  # whose version the page tells
    extra: int = 0  # items it holds beyond the depth it was given
    most: int = sys.maxsize  # the largest depth it can be given
    stops: bool = True  # has a way to stop early, other than being dropped

    @cached_property
    def make(self) -> Callable[..., Any]:
        """What makes an iterator of a source and a depth, where 0 is no bound; ImportError if it is not installed."""
        return self.load()

    @property
    def usual_depth(self) -> int:
        """Two, or one for those that hold no more."""
        return min(2, self.most)

    def depth_for(self, held: int) -> int:
        """Return the depth with which it holds `held` items; raise `GapError` if there is none."""
        if not 0 < held - self.extra <= self.most:
            raise GapError(f"cannot hold {held}")
        return held - self.extra


@dataclass(frozen=True)
class Workload:
    """One thing that is measured with every candidate, in some cases: a section of the page."""

    name: str
    text: str
    cases: Mapping[str, Any]
    # Called with a candidate, a case, and the share of a full measurement that there is time for. Raises `GapError`.
    measure: Callable[[Candidate, Any, float], Metrics]
    floors: Mapping[str, Callable[[Any, float], Metrics]] = field(default_factory=dict)  # rows without a candidate
    against: Sequence[str] = ()  # the rows to which the page gives ratios
    note: str = ""  # below the table


@dataclass(frozen=True)
class Table:
    """Candidates of one kind, of which the first is this library, and what is measured with each of them."""

    name: str
    candidates: Sequence[Candidate]
    workloads: Sequence[Workload]

    def rows(self, workload: Workload) -> list[str]:
        """Return the names in their order: the floors beside this library, because a ratio is of neighbours."""
        ours, *others = (candidate.name for candidate in self.candidates)
        return [ours, *workload.floors, *others]
