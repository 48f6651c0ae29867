"""Medians, ratios, the tables of docs/benchmarks.md and its picture, for any table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Any

from benchmarks.runner import OTHER_TREE
from benchmarks.table import Table, Workload
from benchmarks.tables import TABLES

Results = dict[str, Any]  # what `runner.run` returns
Records = list[dict[str, Any]]
Column = tuple[str, str]  # a case, and one of its metrics

NOTHING = "\N{EN DASH}"
MARK = "<!-- Everything below is written by `python -m benchmarks`. -->\n"


class Section:
    """What was measured of one workload, in the order in which it was."""

    def __init__(self, records: Records, table: Table, workload: Workload) -> None:
        self.rows: dict[str, dict[Column, dict[int, float]]] = {}  # values by round
        self.gaps: dict[tuple[str, str], str] = {}  # by row and case
        for record in records:
            if (record["table"], record["workload"]) == (table.name, workload.name):
                row, case = self.rows.setdefault(record["row"], {}), record["case"]
                for metric, value in record.get("metrics", {}).items():
                    row.setdefault((case, metric), {})[record["round"]] = value
                if "gap" in record:
                    self.gaps[record["row"], case] = f"*{record['gap']}*"
        there = dict.fromkeys(column for row in self.rows.values() for column in row)
        self.columns = sorted(there, key=lambda column: list(workload.cases).index(column[0]))

    def ratios(self, column: Column, ours: str, theirs: str) -> list[float]:
        """Return the ratio of each round that has both: they ran one after the other, under about the same load."""
        one, other = (self.rows.get(row, {}).get(column, {}) for row in (ours, theirs))
        return [one[number] / other[number] for number in sorted(one.keys() & other.keys()) if other[number]]

    def table(self) -> str:
        """Return a row for each candidate; a cell that has no figure says why."""
        rows = [
            [name] + [spread(row.get(column)) or self.gaps.get((name, column[0]), NOTHING) for column in self.columns]
            for name, row in self.rows.items()
        ]
        return markdown(["", *map(heading, self.columns)], rows)


def heading(parts: Iterable[str]) -> str:
    """Return what a reader calls it."""
    return ", ".join(filter(None, parts))


def number(value: float) -> str:
    """Return three significant digits, without an exponent."""
    digits = 0 if value == 0 or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def spread(rounds: dict[int, float] | None) -> str:
    """Return the median, with the least and the largest where they differ."""
    if not rounds:
        return ""
    middle, least, largest = (number(pick(rounds.values())) for pick in (median, min, max))
    return middle if len(set(rounds.values())) == 1 else f"{middle} ({least} to {largest})"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose columns line up in the source too."""
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join(
        f"| {' | '.join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])} |" for line in lines
    )


def ratio_table(runs: Sequence[Results], table: Table) -> str:
    """Return the ratios of this library to others, a column for each of them and each run (each interpreter)."""
    cells: dict[str, dict[str, str]] = {}
    titles: dict[str, None] = {}
    ours = table.candidates[0].name
    for theirs in dict.fromkeys([OTHER_TREE, *(row for workload in table.workloads for row in workload.against)]):
        for run in runs:
            title = f"to {theirs}" + (f", Python {run['header']['python']}" if len(runs) > 1 else "")
            for workload in table.workloads:
                section = Section(run["records"], table, workload)
                for column in section.columns if theirs in (OTHER_TREE, *workload.against) else ():
                    if ratios := section.ratios(column, ours, theirs):
                        cells.setdefault(heading([workload.name, *column]), {})[title] = spread(dict(enumerate(ratios)))
                        titles[title] = None
    rows = [[name, *(row.get(title, NOTHING) for title in titles)] for name, row in cells.items()]
    return markdown(["this library", *titles], rows)


def joined(runs: Sequence[Results]) -> Records:
    """Return the records of the first run, and of the others those rows that were not measured before."""
    records: Records = []
    for run in runs:
        there = {record["row"] for record in records if "metrics" in record}
        suffix = f" (Python {run['header']['python']})" if records else ""
        records += [record | {"row": record["row"] + suffix} for record in run["records"] if record["row"] not in there]
    return records


def tables(runs: Sequence[Results]) -> str:
    """Return everything that is generated: the tables of the first run, and the ratios of all."""
    return "\n\n".join(parts(runs)) + "\n"


def parts(runs: Sequence[Results]) -> Iterator[str]:
    """Give the paragraphs and tables."""
    for run in runs:
        head = run["header"]
        yield heading([head["date"], f"Python {head['python']}", head["machine"], head["load"]]) + (
            f". Rounds: {head['rounds']}."
        )
        for title, names in [("Measured", head["versions"]), ("Missing", head["missing"])]:
            if names:
                yield f"{title}: {', '.join(f'{name} ({said})' for name, said in names.items())}."
    yield "Each figure is the median of the rounds, with the least and the largest in parentheses."
    records = joined(runs)
    for table in TABLES.values():
        sections = [(workload, Section(records, table, workload)) for workload in table.workloads]
        if any(section.rows for _, section in sections):
            yield f"### {table.name.capitalize()}: ratios\n\nBelow 1 is faster.\n\n{ratio_table(runs, table)}"
        for workload, section in sections:
            if section.rows:
                yield f"### {table.name.capitalize()}: {workload.name}\n\n{workload.text}\n\n{section.table()}"
                yield from filter(None, [workload.note])


def replace_tables(page: str, new: str) -> str:
    """Return the page with `new` for all that stands below the mark; raise ValueError if there is no mark."""
    prose, mark, _ = page.partition(MARK)
    if not mark:
        raise ValueError(f"the page must have the line {MARK.strip()}")
    return f"{prose}{mark}\n{new}"


def picture(runs: Sequence[Results], table: Table) -> str:
    """Return an SVG picture of a table's first workload: microseconds by case, on a logarithmic scale."""
    section = Section(joined(runs), table, table.workloads[0])
    styles = {  # the rest is grey and has no label
        table.candidates[0].name: 'stroke="#1f5fbf" stroke-width="3"',
        table.candidates[1].name: 'stroke="#c0392b" stroke-width="2"',
        "floor": 'stroke="#333" stroke-width="1.5" stroke-dasharray="4 3"',
    }
    xs = {column: 48 + 84 * place for place, column in enumerate(section.columns)}
    right = 84 * len(xs)
    shapes = [f'<rect width="{right + 150}" height="300" fill="#fff"/>', '<text x="52" y="10">µs per item</text>']
    for tick in (0.1, 1, 10, 100, 1000):
        y = height(tick)
        shapes.append(f'<path d="M48 {y:.1f}H{right}" stroke="#ddd"/><text x="6" y="{y + 4:.1f}">{tick:g}</text>')
    shapes += [f'<text x="{x}" y="278" text-anchor="middle">{case}</text>' for (case, _), x in xs.items()]
    for name in sorted(section.rows, key=lambda name: name in styles):  # the styled ones on top
        ys = {column: height(median(rounds.values())) for column, rounds in section.rows[name].items()}
        points = [f"{x},{ys[column]:.1f}" for column, x in xs.items() if column in ys]
        style = styles.get(name, 'stroke="#bbb"')
        shapes.append(f'<polyline points="{" ".join(points)}" fill="none" {style}><title>{name}</title></polyline>')
        if name in styles and points:
            shapes.append(f'<text x="{right + 8}" y="{points[-1].partition(",")[2]}">{name}</text>')
    head = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right + 150} 300" font-family="sans-serif" font-size="11"'
    return "\n".join([f"<svg {head}>", *shapes, "</svg>\n"])


def height(microseconds: float) -> float:
    """Return the y of a time."""
    return 260 - 61.5 * math.log10(microseconds / 0.1)
