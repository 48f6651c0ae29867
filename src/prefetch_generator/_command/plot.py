"""The measurement as a picture of who worked when. It is drawn by matplotlib, which the extra `plot` brings."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefetch_generator._command.report import PICTURED, pictured_seconds
from prefetch_generator._command.times import Comparison, Measurement

# What is written into the file, or kept out of it: the same measurement gives the same file, on any day.
METADATA: Mapping[str, Mapping[str, None]] = {".svg": {"Creator": None, "Date": None}, ".png": {"Software": None}}
SETTINGS = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # it comes with matplotlib; a viewer without it takes its own
    "font.size": 11,
    "svg.fonttype": "none",  # text remains text: it is small, and can be searched
    "svg.hashsalt": "prefetch_generator",
}

COLOURS = {"source": "#2f6db3", "consumer": "#b8500a"}  # white text can be read on both
NAMES = {"plain": "plain loop", "background": "thread"}
WIDTH = 5.0  # inches: on a phone the text is still large enough
LANE = 0.25  # inches of height for each side of each run
NARROW = 0.03  # of the longest run: a shorter bar has no room for its number


class PlotError(Exception):
    """No picture can be drawn; the message says what is allowed and what was given."""


def check(file: Path) -> None:
    """Raise `PlotError` if *file* cannot become a picture, while nothing has been measured yet."""
    if file.suffix.lower() not in METADATA:
        raise PlotError(f"--plot must be a file that ends in .svg or .png, got {str(file)!r}")
    try:
        there = file.exists()
        file.open("ab").close()
        if not there:
            file.unlink()
    except OSError as error:
        raise PlotError(f"--plot must be a file that can be written, got {str(file)!r}: {error.strerror}") from None
    try:
        importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError:
        raise PlotError("--plot needs matplotlib: pip install 'prefetch_generator[plot]'") from None


def save(measured: Measurement, file: Path) -> None:
    """Draw the picture and write it to *file*."""
    matplotlib: Any = importlib.import_module("matplotlib")
    # Not pyplot, which would keep the figure, and look for a screen.
    with matplotlib.rc_context(SETTINGS):
        draw(measured).savefig(file, metadata=METADATA[file.suffix.lower()], dpi=200)


def draw(measured: Measurement) -> Any:
    """Return a figure with a part for each consumer, all on one scale."""
    comparisons = [measured.waits, measured.computes]
    heights = [LANE * 2.5 * len(each.runs) for each in comparisons]
    size = (WIDTH, sum(heights) + 0.4 * len(heights) + 0.8)  # with the titles, the legend and the time
    figure: Any = importlib.import_module("matplotlib.figure").Figure(size, layout="constrained")
    parts = figure.subplots(len(heights), sharex=True, height_ratios=heights)
    longest = max(pictured_seconds(run) for each in comparisons for run in each.runs.values())
    for axes, compared in zip(parts, comparisons, strict=True):
        draw_comparison(axes, compared, longest)
    unit, factor = ("seconds", 1) if longest >= 1 else ("milliseconds", 1000)
    parts[-1].xaxis.set_major_formatter(lambda value, _: f"{value * factor:g}")
    parts[-1].set_xlabel(unit)
    figure.legend(parts[0].collections[: len(COLOURS)], COLOURS, loc="outside upper center", ncols=2, frameon=False)
    return figure


def draw_comparison(axes: Any, compared: Comparison, longest: float) -> None:
    """Draw the plain loop and the other runs below it, each with a lane for the source and one for the consumer."""
    runs = compared.runs
    for row, run in enumerate(runs.values()):
        for lane, (side, spans) in enumerate({"source": run.made, "consumer": run.used}.items()):
            bars = [(span.start - run.start, span.end - span.start) for span in spans[:PICTURED]]
            draw_lane(axes, 2.5 * row + lane, bars, side, longest * NARROW)
    axes.set_title(f"consumer {compared.consumer}", fontsize="medium", loc="left")
    axes.set_yticks([2.5 * row + 0.5 for row in range(len(runs))], [row_name(compared, name) for name in runs])
    axes.set(ylim=(2.5 * len(runs) - 0.9, -0.6), xlim=(0, longest))
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def draw_lane(axes: Any, y: float, bars: Sequence[tuple[float, float]], side: str, narrow: float) -> None:
    """Draw one side of one run: a bar for each item, with the item's number where there is room."""
    look = {"facecolors": COLOURS[side], "edgecolors": "white", "linewidths": 0.5, "clip_on": False}
    axes.broken_barh(bars, (y - 0.45, 0.9), **look)
    for number, (start, length) in enumerate(bars, start=1):
        if length >= narrow:
            axes.text(start + length / 2, y, str(number), color="white", ha="center", va="center", fontsize="small")


def row_name(compared: Comparison, variant: str) -> str:
    """Return what stands before a run: what it is, and how many times faster than the plain loop over all items."""
    name = NAMES.get(variant, variant)
    return name if variant == "plain" else f"{name}\n{compared.speed_up(variant):.2f}x"
