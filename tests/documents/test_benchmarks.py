"""The benchmarks' own arithmetic, order and tables. Nothing here is timed."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.helpers import python

TOP = Path(__file__).resolve().parents[2]
if not (TOP / "benchmarks").is_dir():  # an sdist is tested without them
    pytest.skip("the benchmarks are not here", allow_module_level=True)
sys.path.append(str(TOP))

from benchmarks import report, runner  # noqa: E402 - after the path
from benchmarks.asynchronous import consumers, sources  # noqa: E402
from benchmarks.asynchronous.candidates import CONSUMERS, SOURCES  # noqa: E402
from benchmarks.processes import PROCESSES, speed  # noqa: E402
from benchmarks.processes.sources import numbers  # noqa: E402
from benchmarks.synchronous import SYNCHRONOUS, handoff  # noqa: E402
from benchmarks.synchronous.candidates import CANDIDATES, OURS, VERSION_1  # noqa: E402
from benchmarks.table import Candidate, Table, Workload  # noqa: E402
from benchmarks.tables import TABLES  # noqa: E402

HANDOFF, CASE = SYNCHRONOUS.workloads[0], "depth 16"
HEADER = {
    "date": "2026-01-02",
    "python": "3.13.0",
    "machine": "Linux",
    "load": "load 0.5 before and 1.5 after",
    "rounds": 1,
    "versions": {},
    "missing": {"torchdata": "No module named 'torchdata'"},
}


def record(row: str, number: int, value: float) -> dict[str, Any]:
    cell = {"table": "synchronous", "workload": "hand-off", "case": CASE, "row": row}
    return {**cell, "round": number, "metrics": {"µs": value}}


def section(records: list[dict[str, Any]]) -> report.Section:
    return report.Section(records, SYNCHRONOUS, HANDOFF)


def rows(table: str) -> dict[str, list[str]]:
    """Return the cells of each row of a table by the row's name."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {name: cells for name, *cells in lines}


@pytest.mark.parametrize("depth", [1, 2, 7, 0])
def test_hand_off_floor_passes_every_item(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The floor makes all items and ends, also where the last buffer is not full or there is no bound."""
    made: list[int] = []

    def numbers(count: int) -> Any:
        for number in range(count):
            made.append(number)
            yield number

    monkeypatch.setattr(handoff, "numbers", numbers)
    handoff.floor(10, depth)
    assert made == list(range(10))


def test_hand_off_floor_goes_on_when_the_consumer_is_the_faster() -> None:
    """A buffer that the consumer has emptied before the worker goes on is not the end of the source."""
    main, taken = threading.current_thread(), threading.Semaphore(0)

    class Lock:
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.acquire = self.lock.acquire

        def release(self) -> None:
            self.lock.release()
            if threading.current_thread() is main:
                taken.release()
            else:
                taken.acquire()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handoff, "threading", SimpleNamespace(Lock=Lock, Thread=threading.Thread))
        handoff.floor(10, 1)
    taken.release()


def test_floor_of_many_ends() -> None:
    """Each of the floor's threads has its turns."""
    handoff.floor_of_many(4)


@pytest.mark.parametrize("candidate", [one for one in CANDIDATES if not one.package], ids=lambda one: one.name)
def test_hand_written_candidates_deliver_in_order(candidate: Candidate) -> None:
    """What a hand-written candidate gives is what a loop over the source gives."""
    if candidate.name == VERSION_1:
        pytest.skip("not hand-written, and not installed here")
    assert list(candidate.make(iter(range(5)), 1)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("candidate", [one for one in CONSUMERS if not one.package], ids=lambda one: one.name)
def test_hand_written_bridges_to_a_task_deliver_in_order(candidate: Candidate) -> None:
    """What a hand-written candidate gives a task is what a loop over the source gives."""

    async def listed() -> list[int]:
        return [item async for item in candidate.make(iter(range(5)), 1)]

    assert asyncio.run(listed()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("candidate", [one for one in SOURCES if not one.package], ids=lambda one: one.name)
def test_hand_written_bridges_from_an_asynchronous_source_deliver_in_order(candidate: Candidate) -> None:
    """What a hand-written candidate gives is what an `async for` over the source gives."""
    assert list(candidate.make(sources.numbers(5), 1)) == [0, 1, 2, 3, 4]


# Where the candidates fork, for Python 3.12 and later find threads of other tests.
FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
BY_HAND = [one for one in PROCESSES.candidates if not one.package]


@FORKS
@pytest.mark.parametrize("candidate", BY_HAND, ids=lambda one: one.name)
def test_hand_written_processes_deliver_in_order(candidate: Candidate) -> None:
    """What a hand-written candidate gives is what a loop over the source gives."""
    assert list(candidate.make(partial(numbers, 5), 1)) == [0, 1, 2, 3, 4]


@FORKS
def test_floor_of_small_items_passes_every_item() -> None:
    """It measures nothing unless all have arrived."""
    assert speed.simple_queue(2, 0)["µs"] > 0


@FORKS
@pytest.mark.skipif(sys.platform == "win32", reason="the floor forks")
def test_floor_of_arrays_passes_every_item() -> None:
    """It measures nothing unless all have arrived."""
    pytest.importorskip("numpy")
    assert speed.four_segments(1 << 12, 0)["µs"] > 0


@pytest.mark.parametrize("floor", [consumers.ping_pong, consumers.one_call_each])
def test_floors_of_a_bridge_end(floor: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Every item has its wake-up."""
    asyncio.run(floor(10))


def test_a_page_says_where_its_figures_are_from_and_who_is_missing() -> None:
    """A peer that is missing is named once, with the reason, and has no row."""
    text = report.tables([{"header": HEADER, "records": [record(OURS, 0, 2)]}])
    assert "2026-01-02, Python 3.13.0, Linux, load 0.5 before and 1.5 after. Rounds: 1." in text
    assert "Missing: torchdata (No module named 'torchdata')." in text
    assert text.count("torchdata") == 2


def test_a_peer_that_only_another_interpreter_has_is_named_after_it() -> None:
    """Its row comes from that run; what the first run measured stays as it is."""
    first = {"header": HEADER, "records": [record(OURS, 0, 2)]}
    second = {"header": HEADER | {"python": "3.11.7"}, "records": [record(OURS, 0, 9), record("torchdata", 0, 5)]}
    found = rows(section(report.joined([first, second])).table())
    assert (found[OURS], found["torchdata (Python 3.11.7)"]) == (["2.00"], ["5.00"])


def one_sample(folder: Path, row: str, tree: Path | None = None) -> dict[str, Any]:
    plan = runner.Plan(1, 0.5, "", folder, tree)
    return runner.ask(plan, runner.Sample(0, SYNCHRONOUS, HANDOFF, CASE, row))


def test_version_1_that_is_not_there_is_missing(tmp_path: Path) -> None:
    """A sample in its own process answers with the reason and does not fail."""
    assert one_sample(tmp_path, VERSION_1) == {"missing": "No prefetch_generator 1.0.3 in the folder of the peers"}


def test_another_tree_is_what_its_samples_measure(tmp_path: Path) -> None:
    """A sample of the other tree imports that tree, and one that imports anything else is a gap."""
    package = tmp_path / "prefetch_generator"
    package.mkdir()
    package.joinpath("__init__.py").write_text("def BackgroundGenerator(source, depth): return source\n", "utf-8")
    assert "µs" in one_sample(tmp_path, runner.OTHER_TREE, tmp_path)["metrics"]
    package.joinpath("__init__.py").write_text("raise ValueError('this tree')\n", "utf-8")
    assert one_sample(tmp_path, runner.OTHER_TREE, tmp_path) == {"gap": "ValueError: this tree"}
    assert "was measured instead of" in one_sample(tmp_path, runner.OTHER_TREE, tmp_path / "nothing")["gap"]


def test_a_sample_starts_this_library_in_a_process(tmp_path: Path) -> None:
    """What a sample's own process runs can be imported by the one that it spawns."""
    first = next(workload for workload in PROCESSES.workloads if workload.name == "first item")
    answer = runner.ask(runner.Plan(1, 0.5, "", tmp_path), runner.Sample(0, PROCESSES, first, "spawn", OURS))
    assert "ms" in answer.get("metrics", answer)


def test_ratios_are_taken_within_a_round() -> None:
    """A round that lacks one of the two has no ratio; the others are not mixed."""
    records = [record(OURS, 0, 1), record(VERSION_1, 0, 2), record(OURS, 1, 30), record(VERSION_1, 1, 10)]
    assert section([*records, record(OURS, 2, 1)]).ratios((CASE, "µs"), OURS, VERSION_1) == [0.5, 3.0]


def test_tables_show_median_least_and_largest_or_the_reason_why_there_is_none() -> None:
    """Each cell is the median, with the extremes, or the gap."""
    records = [record("floor", number, value) for number, value in enumerate([3, 1, 125])]
    gap = {"table": "synchronous", "workload": "hand-off", "case": CASE, "row": OURS, "round": 0, "gap": "not done"}
    found = rows(section([*records, gap]).table())
    assert (found[""], found["floor"], found[OURS]) == (["depth 16, µs"], ["3.00 (1.00 to 125)"], ["*not done*"])


def test_only_the_tables_of_the_page_are_replaced() -> None:
    """Prose is written by hand and stays; a page without the mark is an error and no silent loss."""
    new = report.replace_tables(f"prose\n{report.MARK}\nold\n", "new\n")
    assert new == f"prose\n{report.MARK}\nnew\n"
    assert report.replace_tables(new, "new\n") == new
    with pytest.raises(ValueError, match="must have the line"):
        report.replace_tables("prose\n", "")
    report.replace_tables((TOP / "docs" / "benchmarks.md").read_text(encoding="utf-8"), "")


def test_the_picture_has_a_line_for_each_candidate() -> None:
    """It is an XML document, with the name of each that was measured."""
    picture = report.picture([{"header": HEADER, "records": [record(OURS, 0, 1), record("grain", 0, 2)]}], SYNCHRONOUS)
    lines = ET.fromstring(picture).iterfind("{*}polyline/{*}title")
    assert [line.text for line in lines] == ["grain", OURS]


WORKLOADS = [(table, workload) for table in TABLES.values() for workload in table.workloads]


@pytest.mark.parametrize(("table", "workload"), WORKLOADS, ids=lambda one: one.name)
def test_every_ratio_is_to_a_row(table: Table, workload: Workload) -> None:
    """No ratio is to a candidate or floor that nothing measures."""
    assert set(workload.against) <= set(table.rows(workload))


def test_candidates_run_side_by_side_and_every_second_round_backwards() -> None:
    """A B C, C B A: what drifts hits each of them alike."""
    plan = runner.Plan(2, 1, "many at once · (prefetch|floor)", Path())
    names = [(sample.round, sample.row) for sample in runner.samples(plan)]
    assert names == [(0, OURS), (0, "floor"), (0, VERSION_1), (1, VERSION_1), (1, "floor"), (1, OURS)]


def test_help_installs_and_measures_nothing() -> None:
    """The command line explains itself."""
    out, _ = python("-m", "benchmarks", "--help", folder=TOP)
    assert "--quick" in out
