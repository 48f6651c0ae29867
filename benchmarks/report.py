"""Medians, ratios, and the tables of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from benchmarks.workload import Ratio, Workload

Record = dict[str, Any]  # workload, case, candidate, round, and metrics or gap
Results = dict[str, Any]  # header and records

NOTHING = "\N{EN DASH}"
MARK = "<!-- Everything below is written by `python -m benchmarks`. -->\n"


def values(records: Iterable[Record], workload: str, case: str, candidate: str, metric: str) -> dict[int, float]:
    """Return the metric by round, of the rounds that have it."""
    return {
        record["round"]: record["metrics"][metric]
        for record in records
        if (record["workload"], record["case"], record["candidate"]) == (workload, case, candidate)
        and metric in record.get("metrics", {})
    }


def ratios(records: Sequence[Record], workload: Workload, ratio: Ratio) -> list[float]:
    """Return the ratio of each round that has both: they ran one after the other, under about the same load."""
    ours, theirs = (
        values(records, workload.name, ratio.case, candidate, ratio.metric)
        for candidate in (workload.candidates[0].name, ratio.against)
    )
    return [ours[number] / theirs[number] for number in sorted(ours.keys() & theirs.keys()) if theirs[number]]


def number(value: float) -> str:
    """Return three significant digits, without an exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(samples: Sequence[float]) -> str:
    """Return the median, with the least and the largest where there are several."""
    if not samples:
        return NOTHING
    middle = number(median(samples))
    if len(samples) == 1 or min(samples) == max(samples):
        return middle
    return f"{middle} ({number(min(samples))} to {number(max(samples))})"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose columns line up in the source too."""
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join(
        f"| {' | '.join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])} |" for line in lines
    )


def ordered(records: Iterable[Record], workload: Workload) -> list[str]:
    """Return the candidates that the records have, in the workload's order."""
    names = [candidate.name for candidate in (*workload.candidates, *workload.extra)]
    there = {record["candidate"] for record in records if record["workload"] == workload.name}
    # One that another interpreter measured has that in its name, see `completed`.
    return sorted(there, key=lambda name: names.index(name.partition(" (Python")[0]))


def table(records: Sequence[Record], workload: Workload) -> str:
    """Return a row for each candidate; a cell that has no figure says why."""
    measured = {record["case"] for record in records if record["workload"] == workload.name}
    columns = [column for column in workload.columns if column.case in measured]
    rows = []
    for candidate in ordered(records, workload):
        here = [record for record in records if (record["workload"], record["candidate"]) == (workload.name, candidate)]
        reasons = {record["case"]: record["gap"] for record in here if "gap" in record}
        cells = []
        for column in columns:
            found = values(here, workload.name, column.case, candidate, column.metric)
            gap = f"*{reasons[column.case]}*" if column.case in reasons else NOTHING
            cells.append(spread([value * column.scale for value in found.values()]) if found else gap)
        rows.append([candidate, *cells])
    head = [f"{column.title}, {column.unit}" if column.unit else column.title for column in columns]
    return markdown(["", *head], rows)


def header(results: Results) -> str:
    """Return where and how the figures came about."""
    head = results["header"]
    build = " (free-threaded)" if head["free-threaded"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in head["versions"].items())
    missing = ", ".join(f"{name} ({reason})" for name, reason in head["missing"].items())
    machine = f"{head['system']}, {head['processors']} processors"
    load = f"load {head['load before']} before and {head['load after']} after"
    parts = [
        f"{head['implementation']} {head['python']}{build}, {machine}, {load}, {head['rounds']} rounds.",
        "Each figure is the median of the rounds, with the least and the largest in parentheses.",
        f"Peers: {versions}." if versions else "",
        f"Missing: {missing}." if missing else "",
        f"Stopped {head['stopped']}." if "stopped" in head else "",
    ]
    return " ".join(filter(None, parts))


def ratio_table(runs: Sequence[Results], workloads: Iterable[Workload]) -> str:
    """Return the ratios of this library to others, a column for each run (each interpreter)."""
    rows = []
    for workload in workloads:
        for ratio in workload.ratios:
            cells = [spread(ratios(run["records"], workload, ratio)) for run in runs]
            if any(cell != NOTHING for cell in cells):
                rows.append([f"{workload.name}, {ratio.title}: to {ratio.against}", *cells])
    head = [f"{run['header']['implementation']} {run['header']['python']}" for run in runs]
    return markdown(["time of this library", *head], rows)


def completed(runs: Sequence[Results]) -> Results:
    """Return the first run, with those candidates that only another run could measure, named after its interpreter."""
    head, records = runs[0]["header"], runs[0]["records"]
    for run in runs[1:]:
        measured, there = (
            {record["candidate"] for record in part if "metrics" in record} for part in (records, run["records"])
        )
        names = {candidate: f"{candidate} (Python {run['header']['python']})" for candidate in there - measured}
        records = [record for record in records if record["candidate"] not in names] + [
            record | {"candidate": names[record["candidate"]]}
            for record in run["records"]
            if record["candidate"] in names
        ]
        versions = run["header"]["versions"].items()
        more = {names[candidate]: version for candidate, version in versions if candidate in names}
        missing = {candidate: reason for candidate, reason in head["missing"].items() if candidate not in names}
        head = head | {"versions": head["versions"] | more, "missing": missing}
    return {"header": head, "records": records}


def tables(runs: Sequence[Results], workloads: Iterable[Workload]) -> str:
    """Return everything that is generated: the tables of the first run, and the ratios of all."""
    results = completed(runs)
    measured = {record["workload"] for record in results["records"]}
    there = [workload for workload in workloads if workload.name in measured]
    parts = [header(results), "### Ratios", "Below 1 is faster.", ratio_table(runs, there)]
    for workload in there:
        title = f"### {workload.name[0].upper()}{workload.name[1:]}"
        parts += [title, workload.text, table(results["records"], workload), *filter(None, [workload.note])]
    return "\n\n".join(parts) + "\n"


def replace_tables(page: str, new: str) -> str:
    """Return the page with `new` for all that stands below the mark; raise ValueError if there is no mark."""
    prose, mark, _ = page.partition(MARK)
    if not mark:
        raise ValueError(f"the page must have the line {MARK.strip()}")
    return f"{prose}{mark}\n{new}"
