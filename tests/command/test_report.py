"""What the report says about the times."""

from __future__ import annotations

import re
from typing import Any

import pytest

from prefetch_generator._command import report
from prefetch_generator._command.times import Comparison, Measurement, Run, Span

from .invented import compared, measured, plain, with_process


def process_too(measurement: Measurement, waits: float | None = None, computes: float | None = None) -> Measurement:
    """Return this measurement and processes in it that reached these shares of the possible gain."""
    if waits is not None:
        measurement = measurement._replace(waits=with_process(measurement.waits, waits, 0.25))
    if computes is not None:
        measurement = measurement._replace(computes=with_process(measurement.computes, computes, 0.125))
    return measurement


@pytest.mark.parametrize(
    ("measurement", "sentence"),
    [
        (measured(), "max_prefetch=2 is enough"),
        (measured(depth=8), "raise max_prefetch to 8, because the times per item are uneven"),
        (
            measured(waits=0.0),
            "there is little gain, because each item is made too quickly: let the source yield more at a time",
        ),
        (
            process_too(measured(waits=0.49), waits=0.49),
            "there is little gain, because each item is made too quickly: let the source yield more at a time",
        ),
        (
            process_too(measured(waits=0.49), waits=0.5),
            "there is little gain from a thread, but from process=True there is (1.41x)",
        ),
        (
            measured()._replace(waits=compared(0.0, used=0.01)),
            "there is little to gain, because one side takes nearly all of the time",
        ),
    ],
)
def test_the_advice_follows_from_the_times(measurement: Measurement, sentence: str) -> None:
    """Each kind of result has its one sentence."""
    assert report.advice(measurement) == sentence


HOLD = "both sides hold the GIL: a thread cannot help here"
TUNED = "call sys.setswitchinterval(0.0001), so that neither side waits long for the GIL"
NEITHER = "both sides need the same processor: neither a thread nor a process can help here"


@pytest.mark.parametrize(
    ("tuned", "process", "machine", "sentence"),
    [
        # The thread with other settings, unless a process gains more and that gains too little.
        (0.3, None, {}, TUNED),
        (0.3, 0.3, {}, TUNED),
        (0.5, 0.9, {}, TUNED),
        (0.49, 0.9, {}, f"{HOLD}, process=True can (1.74x)"),
        # The process, wherever it gains.
        (0.24, 0.25, {}, f"{HOLD}, process=True can (1.20x)"),
        (0.2, 1.0, {"spare": False}, f"{HOLD}, process=True can (1.82x)"),
        (0.2, 1.0, {"gil": False}, "a thread cannot help here, process=True can (1.82x)"),
        # Neither. The GIL is not blamed where there is none.
        (0.2, 0.24, {}, f"{HOLD}, and for a process an item costs too much"),
        (0.2, None, {"no_process": "why"}, f"{HOLD}, and a process could not be tried (see above)"),
        (0.2, 0.2, {"spare": False}, NEITHER),
        (0.2, None, {"spare": False, "no_process": "why"}, NEITHER),
        (0.2, 0.2, {"gil": False}, NEITHER),
    ],
)
def test_the_advice_for_a_consumer_that_computes(
    tuned: float, process: float | None, machine: dict[str, Any], sentence: str
) -> None:
    """Other settings, a process with its figure, or neither; in addition to what holds for one that waits."""
    measurement = process_too(measured(computes=0.0, tuned=tuned, depth=8)._replace(**machine), computes=process)
    head = "raise max_prefetch to 8, because the times per item are uneven"
    assert report.advice(measurement) == f"{head}; but if the consumer computes in Python, {sentence}"


def test_the_picture_shows_who_worked_when(monkeypatch: pytest.MonkeyPatch) -> None:
    """One scale for all loops; a digit names the item, a dot is waiting; only the first items are drawn."""
    monkeypatch.setattr(report, "WIDTH", 48)
    slow = plain([1.0] * 8, [1.0] * 8)
    fast = Run(0.0, [Span(i, i + 1.0) for i in range(8)], [Span(i + 1.0, i + 2.0) for i in range(8)])
    head, *lines = report.picture(Comparison("waits", slow, {"background": fast}))
    assert head.startswith("consumer waits")
    assert "250.000 ms" in head
    assert [line.split() for line in lines] == [
        ["plain", "source", "1111....2222....3333....4444....5555....6666...."],
        ["consumer", "....1111....2222....3333....4444....5555....6666"],
        ["background", "source", "111122223333444455556666........................"],
        ["consumer", "....111122223333444455556666...................."],
    ]


def test_the_picture_has_a_colour_for_each_side() -> None:
    """Only what says that a side is at work has it, and without the codes all is as it is without colours."""
    comparison = compared(1.0)
    lines, coloured = list(report.picture(comparison)), list(report.picture(comparison, colours=True))
    assert [re.sub(r"\x1b\[\d*m", "", line) for line in coloured] == lines
    assert coloured[0] == lines[0]
    for line, (side, colour) in zip(coloured[1:], [("source", 36), ("consumer", 35)] * 2, strict=True):
        painted = re.findall(rf"\x1b\[{colour}m(.+?)\x1b\[0m", line)
        assert painted[0] == side
        assert set("".join(painted[1:])) <= set("123456")
        assert line.count("\x1b") == 2 * len(painted)
    assert set(coloured) <= set(report.lines(measured()._replace(waits=comparison), colours=True))


def test_the_picture_shows_even_the_shortest_work() -> None:
    """Each item takes at least one column, and none lies beyond the last."""
    drawn = report.draw([Span(8.0, 8.0), Span(8.5, 8.5), Span(9.0, 9.0)], 8.0, 1.0 / report.WIDTH)
    assert drawn[0] == "1"
    assert drawn[report.WIDTH // 2] == "2"
    assert drawn[-1] == "3"
    assert drawn.count(".") == report.WIDTH - 3
    assert len(drawn) == report.WIDTH


def test_the_table_has_rates_speed_ups_and_waits() -> None:
    """Items per second of both loops, what was gained and could be, and the waits of both sides."""
    _, line = report.table([compared(1.0)])
    assert line.split() == ["waits", "1000.000", "0.5", "0.9", "1.82x", "1.82x", "0.250", "s", "0.500", "s"]


def test_a_further_variant_is_a_further_row_and_a_further_picture() -> None:
    """Under the consumer, by its own name."""
    two = with_process(compared(1.0), 1.0)
    assert [row.split()[0] for row in report.table([two])] == ["consumer", "waits", "process"]
    assert [line.split()[0] for line in report.picture(two)][1::2] == ["plain", "background", "process"]


def test_the_report_has_all_parts_in_order() -> None:
    """The source and its times, the table, the pictures, and what to do."""
    measurement = measured()
    head, table, waits, computes, advice = "\n".join(report.lines(measurement)).split("\n\n")
    source, first, alone = head.splitlines()
    assert source == "source: 'data:load', 10 items, max_prefetch=2"
    assert "not counted" in first
    assert "10.000 s" in first
    assert "10.000 s, 1000.000 ms per item" in alone
    assert table.splitlines() == [*report.table([measurement.waits, measurement.computes])]
    assert waits.splitlines() == [*report.picture(measurement.waits)]
    assert computes.splitlines() == [*report.picture(measurement.computes)]
    assert advice == f"advice: {report.advice(measurement)}"


def test_the_report_names_the_second_setting_only_where_it_was_tried() -> None:
    """The tuned row and the line that explains it come and go together."""
    row, explained = [line for line in report.lines(measured(computes=0.0, tuned=0.0)) if "tuned" in line]
    assert row.split()[0] == "tuned"
    assert "max_prefetch=2 and sys.setswitchinterval(0.0001)" in explained
    assert not any("tuned" in line for line in report.lines(measured()))


def test_the_report_says_how_a_process_was_tried() -> None:
    """Its settings as the user would write them, and the longest start, which is not in the figures."""
    measurement = measured(0.0, 0.0, depth=8)
    for both in [(0.5, 0.5), (0.5, None)]:
        assert list(report.process(process_too(measurement, *both))) == [
            "process: with @background(max_prefetch=8, process=True), which took 0.250 s to start, not counted"
        ]
    reason = "TypeError: function of load() cannot be sent"
    said = list(report.process(measurement._replace(no_process=reason)))
    assert said == [f"process: could not be tried: {reason}"]
    assert said[0] in list(report.lines(measurement._replace(no_process=reason)))
    assert list(report.process(measured())) == []
