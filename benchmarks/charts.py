"""Draw the picture of docs/benchmarks.md: microseconds per item by depth."""

from __future__ import annotations

import math
from statistics import median

from benchmarks.candidates import FLOOR, OURS, VERSION_1
from benchmarks.report import Results, ordered, values
from benchmarks.workloads import WORKLOADS

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 300, 48, 170, 14, 40
TICKS = [0.1, 1, 10, 100, 1000]  # microseconds
STYLES = {  # the rest is grey and has no label
    OURS: 'stroke="#1f5fbf" stroke-width="3"',
    VERSION_1: 'stroke="#c0392b" stroke-width="2"',
    FLOOR.name: 'stroke="#333" stroke-width="1.5" stroke-dasharray="4 3"',
}


def draw(results: Results) -> str:
    """Return an SVG picture: a line for each candidate, on a logarithmic scale."""
    workload = WORKLOADS["hand-off"]
    step = (WIDTH - LEFT - RIGHT) / (len(workload.columns) - 1)
    xs = [LEFT + step * number for number in range(len(workload.columns))]
    shapes = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    shapes += [
        f'<path d="M{LEFT} {height(tick):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
        f'<text x="{LEFT - 6}" y="{height(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in TICKS
    ]
    shapes += [
        f'<text x="{x:.0f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{column.title}</text>'
        for x, column in zip(xs, workload.columns, strict=True)
    ]
    middle = (HEIGHT - BOTTOM + TOP) / 2
    shapes.append(f'<text transform="translate(12 {middle:.0f}) rotate(-90)" text-anchor="middle">µs per item</text>')
    # Those with a style come last, on top of the others.
    for candidate in sorted(ordered(results["records"], workload), key=lambda name: name in STYLES):
        points, y = [], 0.0
        for x, column in zip(xs, workload.columns, strict=True):
            found = values(results["records"], workload.name, column.case, candidate, column.metric)
            if found:
                y = height(median(found.values()) * column.scale)
                points.append(f"{x:.0f},{y:.1f}")
        style = STYLES.get(candidate, 'stroke="#bbb"')
        shapes.append(
            f'<polyline points="{" ".join(points)}" fill="none" {style}><title>{candidate}</title></polyline>'
        )
        if candidate in STYLES:
            shapes.append(f'<text x="{WIDTH - RIGHT + 8}" y="{y + 4:.1f}">{candidate}</text>')
    head = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11"'
    return "\n".join([f"<svg {head}>", *shapes, "</svg>\n"])


def height(microseconds: float) -> float:
    """Return the y of a time."""
    share = math.log(microseconds / TICKS[0]) / math.log(TICKS[-1] / TICKS[0])
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
