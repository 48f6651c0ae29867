"""The benchmark suite's own arithmetic and tables. Nothing here is timed."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[1]
if not (TOP / "benchmarks").is_dir():  # an sdist is tested without them
    pytest.skip("the benchmarks are not here", allow_module_level=True)
sys.path.append(str(TOP))

from benchmarks import report, runner  # noqa: E402 - after the path
from benchmarks.candidates import BY_NAME, CANDIDATES, FLOOR, OURS, VERSION_1, Candidate, MissingPeerError  # noqa: E402
from benchmarks.schedule import ideal, in_turn  # noqa: E402
from benchmarks.workload import Column, Ratio  # noqa: E402
from benchmarks.workloads import WORKLOADS, handoff, many  # noqa: E402

HANDOFF = WORKLOADS["hand-off"]


def test_ideal_schedule_of_equal_steps_hides_the_shorter_side() -> None:
    """N items cost the first one's making, n times the slower side, and the last one's use or what is left of it."""
    assert ideal([5] * 10, [5] * 10, held=2) == 5 + 10 * 5
    assert ideal([10] * 10, [2] * 10, held=2) == 10 * 10 + 2
    assert ideal([2] * 10, [10] * 10, held=2) == 2 + 10 * 10


def test_ideal_schedule_with_one_item_held_still_overlaps() -> None:
    """Held counts what is begun and not delivered: the next item is made while the delivered one is used."""
    assert ideal([1, 1, 1], [1, 1, 1], held=1) == 4


@pytest.mark.parametrize("held", [1, 2, 3, 5])
def test_ideal_schedule_is_what_a_simulation_by_ticks_finds(held: int) -> None:
    """The formula and a simulation that knows nothing of it agree on every order of short and long steps."""
    for making in itertools.product([1, 3], repeat=4):
        for using in itertools.product([1, 4], repeat=4):
            assert ideal(making, using, held) == simulate(making, using, held)


def simulate(making: Sequence[int], using: Sequence[int], held: int) -> int:
    """Advance a worker and a consumer tick by tick."""
    begun = made = delivered = used = 0
    until_made = until_used = 0
    for tick in itertools.count():
        # What ends at this tick, then what may begin at it: taking an item makes room, making one gives an item.
        if begun > made and tick >= until_made:
            made += 1
        if delivered > used and tick >= until_used:
            used += 1
        if used == len(making):
            return tick
        for _ in range(2):
            if delivered == used and made > delivered:
                delivered, until_used = delivered + 1, tick + using[delivered]
            if begun == made < len(making) and begun - delivered < held:
                begun, until_made = begun + 1, tick + making[begun]
    raise AssertionError


def test_ideal_schedule_never_loses_to_a_smaller_bound_nor_to_the_plain_loop() -> None:
    """More room is never slower, and overlap never slower than taking turns."""
    making, using = [1, 5, 2, 8, 1, 1], [3, 1, 6, 1, 1, 4]
    times = [ideal(making, using, held) for held in range(1, 8)]
    assert times == sorted(times, reverse=True)
    assert max(sum(making), sum(using)) <= times[-1] <= times[0] <= in_turn(making, using)


def test_ideal_schedule_refuses_to_hold_nothing() -> None:
    """With no room at all nothing would ever begin."""
    with pytest.raises(ValueError, match="held must be at least 1, got 0"):
        ideal([1], [1], held=0)


@pytest.mark.parametrize("depth", [1, 2, 7, 0])
def test_hand_off_floor_passes_every_item(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The floor makes all items and ends, also where the last buffer is not full or there is no bound."""
    made = []

    def numbers(count: int) -> Any:
        for number in range(count):
            made.append(number)
            yield number

    monkeypatch.setattr(handoff, "numbers", numbers)
    handoff.floor(10, depth)
    assert made == list(range(10))


def test_floor_of_many_ends() -> None:
    """Each of the floor's threads has its turns."""
    many.floor(4)


@pytest.mark.parametrize("candidate", [one for one in CANDIDATES if not one.package], ids=lambda one: one.name)
def test_hand_written_candidates_deliver_in_order(candidate: Candidate) -> None:
    """What a hand-written candidate gives is what a loop over the source gives."""
    if candidate.name == VERSION_1:
        pytest.skip("not hand-written, and not installed here")
    assert list(candidate.make()(iter(range(5)), 1)) == [0, 1, 2, 3, 4]


def test_a_peer_that_is_not_installed_is_a_named_gap() -> None:
    """The probe of a missing package says which, and the table names it and goes on."""

    def load() -> Any:
        raise ModuleNotFoundError("No module named 'peer'")

    with pytest.raises(MissingPeerError, match="not installed: peer"):
        Candidate("peer", load, "peer").make()
    records = [
        record(OURS, 0, wall=2e-6),
        {"workload": "hand-off", "case": "16", "candidate": "spdl", "round": 0, "gap": "not installed: spdl"},
    ]
    text = report.table(records, HANDOFF, HANDOFF.columns)
    assert "Missing: spdl: not installed: spdl." in text
    assert "| prefetch_generator 2 |         2.00 |" in text


def test_a_peer_that_only_another_interpreter_has_is_named_after_it() -> None:
    """Its row comes from that run, and is no gap any more; whoever was measured in the first run stays as it is."""
    gap = {"workload": "hand-off", "case": "16", "candidate": "torchdata", "round": 0, "gap": "not installed"}
    first = {"header": {"python": "3.13.0", "versions": {}}, "records": [record(OURS, 0, wall=2e-6), gap]}
    second = {
        "header": {"python": "3.11.7", "versions": {"torchdata": "0.11.0"}},
        "records": [record(OURS, 0, wall=9e-6), record("torchdata", 0, wall=5e-6)],
    }
    results = report.completed([first, second])
    assert results["header"]["versions"] == {"torchdata (Python 3.11.7)": "0.11.0"}
    assert report.table(results["records"], HANDOFF, HANDOFF.columns).splitlines()[2:] == [
        "| prefetch_generator 2      |         2.00 |",
        "| torchdata (Python 3.11.7) |         5.00 |",
    ]


def test_version_1_that_is_not_there_is_a_named_gap(tmp_path: Path) -> None:
    """A sample in its own process answers with the gap and does not fail."""
    plan = runner.Plan(1, True, 60, tmp_path, None, [], [])
    answer = runner.ask(plan, "probe", {}, BY_NAME[VERSION_1])
    assert answer == {"gap": "not installed: prefetch_generator 1.0.3 in the folder of the peers"}


def record(candidate: str, number: int, **metrics: float) -> dict[str, Any]:
    return {"workload": "hand-off", "case": "16", "candidate": candidate, "round": number, "metrics": metrics}


def test_ratios_are_taken_within_a_round() -> None:
    """A round that lacks one of the two has no ratio; the others are not mixed."""
    records = [
        record(OURS, 0, wall=1.0),
        record(VERSION_1, 0, wall=2.0),
        record(OURS, 1, wall=30.0),
        record(VERSION_1, 1, wall=10.0),
        record(OURS, 2, wall=1.0),
    ]
    assert report.ratios(records, "hand-off", Ratio("", "16", "wall", OURS, VERSION_1, "wall")) == [0.5, 3.0]


def test_tables_show_median_least_and_largest() -> None:
    """Each cell is the median in the column's unit, with the extremes."""
    records = [record(FLOOR.name, number, wall=wall) for number, wall in enumerate([3e-6, 1e-6, 125e-6])]
    text = report.table(records, HANDOFF, [Column("depth 16", "16", "wall", 1e6, "µs")])
    assert text.splitlines() == [
        "|       |       depth 16, µs |",
        "| ----- | -----------------: |",
        "| floor | 3.00 (1.00 to 125) |",
    ]


def test_only_what_stands_between_markers_is_replaced() -> None:
    """Prose is hand-written and stays; a marker that is not there is an error and no silent loss."""
    page = "before\n<!-- generated: x -->\nold\n<!-- end: x -->\nafter\n"
    new = report.replace_blocks(page, [("x", r"new \1")])
    assert new == "before\n<!-- generated: x -->\n\nnew \\1\n\n<!-- end: x -->\nafter\n"
    assert report.replace_blocks(new, [("x", r"new \1")]) == new
    with pytest.raises(ValueError, match="must be there once, found 0"):
        report.replace_blocks(page, [("y", "")])


def test_the_page_has_a_place_for_every_workload() -> None:
    """A run can write its tables into docs/benchmarks.md."""
    page = (TOP / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    report.replace_blocks(page, [(name, "") for name in ("header", "ratios", *WORKLOADS)])


def test_candidates_run_side_by_side_and_every_second_round_backwards() -> None:
    """A B C, C B A: what drifts hits each of them alike."""
    plan = runner.Plan(2, True, 60, Path(), None, ["many at once"], [])
    samples = list(runner.plan_samples(plan, list(CANDIDATES[:2])))
    names = [(sample.round, sample.candidate.name) for sample in samples]
    assert names == [(0, FLOOR.name), (0, OURS), (0, VERSION_1), (1, VERSION_1), (1, OURS), (1, FLOOR.name)]


def test_help_installs_and_measures_nothing() -> None:
    """The command line explains itself."""
    command = [sys.executable, "-m", "benchmarks", "--help"]
    answer = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True, timeout=30)
    assert "--quick" in answer.stdout
