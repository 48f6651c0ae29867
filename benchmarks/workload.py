"""What a workload is, and what its table shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.candidates import CANDIDATES, Candidate

Params = Mapping[str, Any]  # what JSON can carry


class Column(NamedTuple):
    """One column of a table: a metric of one case."""

    title: str
    case: str
    metric: str
    scale: float = 1.0
    unit: str = ""


class Ratio(NamedTuple):
    """A metric of the workload's first candidate over that of another, taken within each round."""

    title: str
    case: str
    metric: str
    against: str


@dataclass(frozen=True)
class Workload:
    """One thing that is measured, with every candidate, in some cases: a section of the page.

    `measure` raises `GapError` where a candidate cannot take part.
    """

    name: str
    text: str
    cases: Mapping[str, Params]
    quick: Mapping[str, Params]  # the cases of --quick
    measure: Callable[[Candidate, Params], dict[str, float]]
    columns: Sequence[Column]
    ratios: Sequence[Ratio] = ()
    candidates: Sequence[Candidate] = CANDIDATES
    extra: Sequence[Candidate] = ()  # FLOOR, PLAIN, or both
    rounds: int = 1000  # at most: some figures hardly vary
    note: str = ""  # below the table

    def named(self, name: str) -> Candidate:
        """Return the candidate of that name."""
        return next(candidate for candidate in (*self.candidates, *self.extra) if candidate.name == name)
