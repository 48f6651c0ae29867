"""Medians, ratios, and the tables between the markers of docs/benchmarks.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Any

from benchmarks.candidates import BASE, BY_NAME
from benchmarks.workload import Column, Ratio, Workload
from benchmarks.workloads import WORKLOADS

Record = dict[str, Any]
Results = dict[str, Any]

NOTHING = "\N{EN DASH}"


def values(records: Iterable[Record], workload: str, case: str, candidate: str, metric: str) -> dict[int, float]:
    """Return the metric by round, of the rounds that have it."""
    return {
        record["round"]: record["metrics"][metric]
        for record in records
        if (record["workload"], record["case"], record["candidate"]) == (workload, case, candidate)
        and metric in record.get("metrics", {})
    }


def ratios(records: Iterable[Record], workload: str, ratio: Ratio) -> list[float]:
    """Return the ratio of each round that has both: they ran one after the other, under about the same load."""
    records = list(records)
    ours = values(records, workload, ratio.case, ratio.candidate, ratio.metric)
    theirs = values(records, workload, ratio.case, ratio.against, ratio.against_metric)
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
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    aligned = [
        [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in [lines[0], rule, *lines[1:]]
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in aligned)


def table(records: Sequence[Record], workload: Workload, columns: Sequence[Column]) -> str:
    """Return one table: a row for each candidate, and a list of those that are missing everywhere."""
    measured = {record["case"] for record in records if record["workload"] == workload.name}
    columns = [column for column in columns if column.case in measured]
    rows, absent = [], []
    for candidate in [*BY_NAME, *sorted({record["candidate"] for record in records} - BY_NAME.keys())]:
        here = [record for record in records if (record["workload"], record["candidate"]) == (workload.name, candidate)]
        if not here:
            continue
        reasons = {record["case"]: record["gap"] for record in here if "gap" in record}
        if len({record["case"] for record in here}) == len(reasons) and len(set(reasons.values())) == 1:
            absent.append(f"{candidate}: {next(iter(reasons.values()))}")
            continue
        cells = []
        for column in columns:
            found = values(here, workload.name, column.case, candidate, column.metric)
            gap = f"*{reasons[column.case]}*" if column.case in reasons else NOTHING
            cells.append(spread([value * column.scale for value in found.values()]) if found else gap)
        if any(cell != NOTHING for cell in cells):
            rows.append([candidate, *cells])
    head = [f"{column.title}, {column.unit}" if column.unit else column.title for column in columns]
    text = markdown(["", *head], rows)
    return text + "".join(f"\n\nMissing: {reason}." for reason in absent)


def section(results: Results, workload: Workload) -> str:
    """Return everything that is generated for one workload."""
    records = results["records"]
    parts = [workload.text, table(records, workload, workload.columns)]
    for title, columns in workload.more_columns.items():
        parts += [f"{title}:", table(records, workload, columns)]
    if workload.note:
        parts.append(workload.note)
    return "\n\n".join(parts)


def header(results: Results) -> str:
    """Return where and how the figures came about."""
    head = results["header"]
    build = " (free-threaded)" if head["free-threaded"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in head["versions"].items())
    machine = f"{head['system']}, {head['processors']} processors"
    load = f"load {head['load before']} before and {head['load after']} after"
    parts = [
        f"{head['implementation']} {head['python']}{build}, {machine}, {load}, {head['rounds']} rounds.",
        "Each figure is the median of the rounds, with the least and the largest in parentheses.",
        f"Peers: {versions}." if versions else "",
        f"Stopped {head['stopped']}." if "stopped" in head else "",
    ]
    return " ".join(filter(None, parts))


def ratio_table(runs: Sequence[Results]) -> str:
    """Return the ratios that this library is held to, a column for each run (each interpreter)."""
    head = ["ratio", *(f"{run['header']['implementation']} {run['header']['python']}" for run in runs)]
    rows = []
    for workload in WORKLOADS.values():
        to_base = {
            (ratio.case, ratio.metric): ratio._replace(against=BASE.name, against_metric=ratio.metric)
            for ratio in workload.ratios
        }
        for ratio in (*workload.ratios, *to_base.values()):
            against = ratio.against if ratio.metric == ratio.against_metric else ratio.against_metric
            cells = [spread(ratios(run["records"], workload.name, ratio)) for run in runs]
            if any(cell != NOTHING for cell in cells):
                rows.append([f"{workload.name}, {ratio.title}: to {against}", *cells])
    return markdown(head, rows)


def completed(runs: Sequence[Results]) -> Results:
    """Return the first run, with those candidates that only another run could measure, named after its interpreter."""
    results = runs[0]
    for run in runs[1:]:
        python = run["header"]["python"]
        records, versions = results["records"], results["header"]["versions"]
        measured, there = (
            {record["candidate"] for record in part if "metrics" in record} for part in (records, run["records"])
        )
        names = {candidate: f"{candidate} (Python {python})" for candidate in there - measured}
        records = [record for record in records if record["candidate"] not in names]
        records += [
            record | {"candidate": names[record["candidate"]]}
            for record in run["records"]
            if record["candidate"] in names
        ]
        versions = versions | {
            names[candidate]: version for candidate, version in run["header"]["versions"].items() if candidate in names
        }
        results = {"header": results["header"] | {"versions": versions}, "records": records}
    return results


def blocks(runs: Sequence[Results]) -> Iterator[tuple[str, str]]:
    """Give the name and the text of everything that is generated: tables of the first run, ratios of all."""
    results = completed(runs)
    yield "header", header(results)
    yield "ratios", ratio_table(runs)
    for name, workload in WORKLOADS.items():
        if any(record["workload"] == name for record in results["records"]):
            yield name, section(results, workload)


def replace_blocks(text: str, generated: Iterable[tuple[str, str]]) -> str:
    """Return `text` with only what stands between the markers replaced; raise ValueError if a marker is missing."""
    for name, block in generated:
        begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
        parts = re.split(f"(?s){re.escape(begin)}.*?{re.escape(end)}", text)
        if len(parts) != 2:
            raise ValueError(f"the markers {begin} and {end} must be there once, found {len(parts) - 1}")
        text = f"{begin}\n\n{block}\n\n{end}".join(parts)
    return text
