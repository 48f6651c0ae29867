"""Draw the two charts of docs/benchmarks.md."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.candidates import BY_NAME, FLOOR, OURS
from benchmarks.report import Results, values
from benchmarks.workload import Column
from benchmarks.workloads import WORKLOADS

Points = Mapping[str, list[float | None]]  # by candidate, one for each column


def draw(results: Results, folder: Path) -> list[Path]:
    """Write the charts into `folder`, and return their paths; without matplotlib there are none."""
    try:
        matplotlib = importlib.import_module("matplotlib")
        matplotlib.use("svg")
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        return []
    # The same figures give the same file: no date, no random identifiers. Text stays text.
    matplotlib.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 9})
    paths = []
    for name, chart in (("hand-off", draw_lines), ("overlap", draw_bars)):
        columns = [
            column
            for column in WORKLOADS[name].columns
            if any((record["workload"], record["case"]) == (name, column.case) for record in results["records"])
        ]
        points = collect(results, name, columns)
        if columns and points:
            figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
            chart(axes, points, columns)
            axes.spines[["top", "right"]].set_visible(False)
            path = folder / f"benchmarks-{name}.svg"
            figure.savefig(path, metadata={"Date": None})
            pyplot.close(figure)
            path.write_text("\n".join(map(str.rstrip, path.read_text(encoding="utf-8").splitlines())) + "\n", "utf-8")
            paths.append(path)
    return paths


def collect(results: Results, workload: str, columns: list[Column]) -> Points:
    """Return the medians of each candidate that has any."""
    points = {}
    for candidate in BY_NAME:
        medians: list[float | None] = []
        for column in columns:
            found = values(results["records"], workload, column.case, candidate, column.metric)
            medians.append(median(found.values()) * column.scale if found else None)
        if any(value is not None for value in medians):
            points[candidate] = medians
    return points


def draw_lines(axes: Any, points: Points, columns: list[Column]) -> None:
    """Draw the time per item over the depth."""
    for candidate, medians in points.items():
        xs = [x for x, y in enumerate(medians) if y is not None]
        ys = [y for y in medians if y is not None]
        axes.plot(xs, ys, label=candidate, marker="o", markersize=3, **line_style(candidate))
    axes.set_xticks(range(len(columns)), [column.title.removeprefix("depth ") for column in columns])
    axes.set_yscale("log")
    axes.set_xlabel("depth")
    axes.set_ylabel("µs per item, trivial source")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def draw_bars(axes: Any, points: Points, columns: list[Column]) -> None:
    """Draw the share of the ideal schedule."""
    height = 0.8 / len(points)
    for row, (candidate, medians) in enumerate(points.items()):
        ys = [place + row * height for place in range(len(columns))]
        color = {"color": "black"} if candidate == OURS else {}
        axes.barh(ys, [value or 0 for value in medians], height * 0.9, label=candidate, **color)
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(columns))], [column.title for column in columns])
    axes.invert_yaxis()
    axes.set_xlabel("% of the ideal schedule's speed (source/consumer)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def line_style(candidate: str) -> dict[str, Any]:
    """Make this library and the floor stand out."""
    if candidate == OURS:
        return {"color": "black", "linewidth": 2.5, "zorder": 3}
    if candidate == FLOOR.name:
        return {"color": "black", "linewidth": 1, "linestyle": ":"}
    return {"linewidth": 1.2}
