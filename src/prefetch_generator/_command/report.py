"""The report as text: a table, a picture of who worked when, and one sentence of advice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from prefetch_generator._command.machine import SWITCH_INTERVAL
from prefetch_generator._command.times import ENOUGH, WORTH_IT, Comparison, Measurement, Run, Span, mean

PICTURED = 6  # items in the picture
WIDTH = 64  # columns of the picture
COLOURS = {"source": "36", "consumer": "35"}  # cyan and magenta, which can be read on black and on white


def lines(measured: Measurement, *, colours: bool = False) -> Iterator[str]:
    """Give the lines of the report, on request with the codes of a terminal for the colours of the two sides."""
    alone = measured.alone
    yield f"source: {measured.title}, {len(alone.made)} items, max_prefetch={measured.max_prefetch}"
    yield f"first pass, not counted (files may not be in memory yet): {measured.first.seconds:.3f} s"
    yield f"source alone: {alone.seconds:.3f} s, {mean(alone.made) * 1000:.3f} ms per item"
    yield ""
    comparisons = [measured.waits, measured.computes]
    yield from table([*comparisons, measured.tuned] if measured.tuned else comparisons)
    if measured.tuned:
        yield f"tuned: with max_prefetch={measured.depth} and sys.setswitchinterval({SWITCH_INTERVAL})"
    yield from process(measured)
    yield ""
    for comparison in comparisons:
        yield from picture(comparison, colours=colours)
        yield ""
    yield f"advice: {advice(measured)}"


def process(measured: Measurement) -> Iterator[str]:
    """Say how a process was tried, or why it could not be; nothing if nobody needed one."""
    runs = [one.others["process"] for one in (measured.waits, measured.computes) if "process" in one.others]
    if measured.no_process:
        yield f"process: could not be tried: {measured.no_process}"
    elif runs:
        started = max(run.startup for run in runs)
        setting = f"@background(max_prefetch={measured.depth}, process=True)"
        yield f"process: with {setting}, which took {started:.3f} s to start, not counted"


def table(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Give one line for each kind of consumer and variant, under a head."""
    line = "{:<10}{:>12}{:>12}{:>12}{:>10}{:>7}{:>15}{:>15}"
    yield line.format(
        "consumer", "ms per item", "plain/s", "backgr./s", "speed-up", "best", "producer_wait", "consumer_wait"
    )
    for comparison in comparisons:
        for variant, run in comparison.others.items():
            yield line.format(
                _label(comparison.consumer, variant),
                f"{mean(comparison.plain.used) * 1000:.3f}",
                f"{comparison.plain.rate:.1f}",
                f"{run.rate:.1f}",
                f"{comparison.speed_up(variant):.2f}x",
                f"{comparison.best:.2f}x",
                f"{run.producer_wait:.3f} s",
                f"{run.consumer_wait:.3f} s",
            )


def _label(consumer: str, variant: str) -> str:
    if variant != "background":
        return f"  {variant}"
    return "  tuned" if consumer == "tuned" else consumer


def picture(comparison: Comparison, *, colours: bool = False) -> Iterator[str]:
    """Draw who worked when, over the first items: a digit is the item, a dot is waiting."""
    column = max(map(pictured_seconds, comparison.runs.values())) / WIDTH
    yield f"consumer {comparison.consumer} (digit: at work on that item; dot: idle; one column: {column * 1000:.3f} ms)"
    for name, run in comparison.runs.items():
        for label, side, spans in [(name, "source", run.made), ("", "consumer", run.used)]:
            lane = f"{side:<8}  {draw(spans, run.start, column)}"
            yield f"  {label:<11}{painted(lane, COLOURS[side]) if colours else lane}"


def pictured_seconds(run: Run) -> float:
    """Return how long the items took that are in a picture."""
    return run.used[:PICTURED][-1].end - run.start


def draw(spans: Sequence[Span], start: float, column: float) -> str:
    """Draw the first *spans*, each at least one column wide."""
    cells = ["."] * WIDTH
    for number, span in enumerate(spans[:PICTURED], start=1):
        left = min(int((span.start - start) / column), WIDTH - 1)
        right = max(left + 1, min(round((span.end - start) / column), WIDTH))
        cells[left:right] = str(number) * (right - left)
    return "".join(cells)


def painted(lane: str, colour: str) -> str:
    """Return *lane* with what says that somebody is at work in this colour, and the dots as they are."""
    return re.sub(r"[^ .]+", lambda work: f"\x1b[{colour}m{work[0]}\x1b[0m", lane)


def advice(measured: Measurement) -> str:
    """Return in one sentence what to do about these times."""
    if measured.waits.best < WORTH_IT:
        return "there is little to gain, because one side takes nearly all of the time"
    if measured.depth != measured.max_prefetch:
        head = f"raise max_prefetch to {measured.depth}, because the times per item are uneven"
    elif measured.waits.gained("process") >= ENOUGH > measured.waits.gained():
        return f"there is little gain from a thread, but from process=True there is ({_speed_up(measured.waits)})"
    elif measured.waits.gained() < ENOUGH:
        return "there is little gain, because each item is made too quickly: let the source yield more at a time"
    else:
        head = f"max_prefetch={measured.max_prefetch} is enough"
    if measured.computes.gained() >= ENOUGH:
        return head
    return f"{head}; but if the consumer computes in Python, {_advice_for_computing(measured)}"


def _advice_for_computing(measured: Measurement) -> str:
    tuned = measured.tuned.gained() if measured.tuned else 0.0
    gained = measured.computes.gained("process")
    if tuned >= ENOUGH or tuned >= max(ENOUGH / 2, gained):
        return f"call sys.setswitchinterval({SWITCH_INTERVAL}), so that neither side waits long for the GIL"
    if gained >= ENOUGH / 2:
        gil = "both sides hold the GIL: " if measured.gil else ""
        return f"{gil}a thread cannot help here, process=True can ({_speed_up(measured.computes)})"
    if not measured.spare or not measured.gil:
        return "both sides need the same processor: neither a thread nor a process can help here"
    process = (
        "a process could not be tried (see above)" if measured.no_process else "for a process an item costs too much"
    )
    return f"both sides hold the GIL: a thread cannot help here, and {process}"


def _speed_up(comparison: Comparison) -> str:
    return f"{comparison.speed_up('process'):.2f}x"
