"""What a workload is, and what its tables show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.candidates import Candidate

Params = dict[str, Any]  # what JSON can carry


class Column(NamedTuple):
    """One column of a table: a metric of one case."""

    title: str
    case: str
    metric: str
    scale: float = 1.0
    unit: str = ""


class Ratio(NamedTuple):
    """A metric of one candidate over one of another, taken within each round."""

    title: str
    case: str
    metric: str
    candidate: str
    against: str
    against_metric: str


@dataclass(frozen=True)
class Workload:
    """One thing that is measured, with every candidate, in some cases."""

    name: str
    title: str
    text: str  # what the table under it shows
    cases: Callable[[bool], dict[str, Params]]  # told whether it has to be quick
    measure: Callable[[Candidate, Params], dict[str, float]]
    reason_to_skip: Callable[[Candidate, Params], str]
    columns: list[Column]
    more_columns: dict[str, list[Column]] = field(default_factory=dict)
    ratios: list[Ratio] = field(default_factory=list)
    floor: bool = False  # whether FLOOR takes part
    plain: bool = False  # whether the loop without prefetching takes part
    rounds: int = 1000  # no more than that many: where a figure hardly varies
    note: str = ""  # beneath the tables
