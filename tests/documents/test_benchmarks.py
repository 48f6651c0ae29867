"""The benchmarks' own arithmetic, order and tables. Nothing here is timed."""

from __future__ import annotations

import sys
import threading
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

from benchmarks import charts, report, runner  # noqa: E402 - after the path
from benchmarks.candidates import (  # noqa: E402
    CANDIDATES,
    FLOOR,
    OTHER_TREE,
    OURS,
    VERSION_1,
    Candidate,
    MissingPeerError,
)
from benchmarks.workload import Ratio, Workload  # noqa: E402
from benchmarks.workloads import WORKLOADS, handoff, many  # noqa: E402

HANDOFF, CASE = WORKLOADS["hand-off"], "depth 16"
HEADER = {
    "python": "3.13.0",
    "implementation": "CPython",
    "free-threaded": False,
    "system": "Linux",
    "processors": 2,
    "load before": 0.5,
    "load after": 1.5,
    "rounds": 1,
    "versions": {},
    "missing": {"torchdata": "not installed: torchdata"},
}


def record(candidate: str, number: int, **metrics: float) -> dict[str, Any]:
    return {"workload": "hand-off", "case": CASE, "candidate": candidate, "round": number, "metrics": metrics}


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
    many.floor(4)


@pytest.mark.parametrize("candidate", [one for one in CANDIDATES if not one.package], ids=lambda one: one.name)
def test_hand_written_candidates_deliver_in_order(candidate: Candidate) -> None:
    """What a hand-written candidate gives is what a loop over the source gives."""
    if candidate.name == VERSION_1:
        pytest.skip("not hand-written, and not installed here")
    assert list(candidate.make()(iter(range(5)), 1)) == [0, 1, 2, 3, 4]


def test_a_peer_that_is_not_installed_is_a_named_gap() -> None:
    """Making it says which package is missing, and the page says so once."""

    def load() -> Any:
        raise ModuleNotFoundError("No module named 'peer'")

    with pytest.raises(MissingPeerError, match="not installed: peer"):
        Candidate("peer", load, "peer").make()
    results = {"header": HEADER, "records": [record(OURS, 0, wall=2e-6)]}
    text = report.tables([results], [HANDOFF])
    assert text.count("torchdata") == 2
    assert "Missing: torchdata (not installed: torchdata)." in text
    assert "load 0.5 before and 1.5 after" in text


def test_a_peer_that_only_another_interpreter_has_is_named_after_it() -> None:
    """Its row comes from that run, and it is no longer missing; what the first run measured stays as it is."""
    first = {"header": HEADER, "records": [record(OURS, 0, wall=2e-6)]}
    second = {
        "header": HEADER | {"python": "3.11.7", "versions": {"torchdata": "0.11.0"}, "missing": {}},
        "records": [record(OURS, 0, wall=9e-6), record("torchdata", 0, wall=5e-6)],
    }
    results = report.completed([first, second])
    assert results["header"]["versions"] == {"torchdata (Python 3.11.7)": "0.11.0"}
    assert results["header"]["missing"] == {}
    found = rows(report.table(results["records"], HANDOFF))
    assert (found[OURS], found["torchdata (Python 3.11.7)"]) == (["2.00"], ["5.00"])


def one_sample(folder: Path, candidate: Candidate, tree: Path | None = None) -> dict[str, Any]:
    params = {"depth": 1, "seconds": 0.001}
    plan = runner.Plan([HANDOFF], 1, True, 60, folder, tree)
    return runner.ask(plan, runner.Sample(0, HANDOFF, CASE, params, candidate))


def test_version_1_that_is_not_there_is_a_named_gap(tmp_path: Path) -> None:
    """A sample in its own process answers with the gap and does not fail."""
    answer = one_sample(tmp_path, HANDOFF.named(VERSION_1))
    assert answer == {"missing": "not installed: prefetch_generator 1.0.3 in the folder of the peers"}


def test_another_tree_is_what_its_samples_measure(tmp_path: Path) -> None:
    """A sample of the other tree imports that tree, and one that imports anything else is a gap."""
    package = tmp_path / "prefetch_generator"
    package.mkdir()
    package.joinpath("__init__.py").write_text("def BackgroundGenerator(source, depth): return source\n", "utf-8")
    assert "wall" in one_sample(tmp_path, OTHER_TREE, tmp_path)["metrics"]
    package.joinpath("__init__.py").write_text("raise ValueError('this tree')\n", "utf-8")
    assert one_sample(tmp_path, OTHER_TREE, tmp_path) == {"gap": "ValueError: this tree"}
    assert "was measured instead of" in one_sample(tmp_path, OTHER_TREE, tmp_path / "nothing")["gap"]


def test_ratios_are_taken_within_a_round() -> None:
    """A round that lacks one of the two has no ratio; the others are not mixed."""
    records = [
        record(OURS, 0, wall=1.0),
        record(VERSION_1, 0, wall=2.0),
        record(OURS, 1, wall=30.0),
        record(VERSION_1, 1, wall=10.0),
        record(OURS, 2, wall=1.0),
    ]
    assert report.ratios(records, HANDOFF, Ratio("", CASE, "wall", VERSION_1)) == [0.5, 3.0]


def test_tables_show_median_least_and_largest_or_the_reason_why_there_is_none() -> None:
    """Each cell is the median in the column's unit, with the extremes."""
    records = [record(FLOOR.name, number, wall=wall) for number, wall in enumerate([3e-6, 1e-6, 125e-6])]
    gap = {"workload": "hand-off", "case": CASE, "candidate": OURS, "round": 0, "gap": "not done"}
    found = rows(report.table([*records, gap], HANDOFF))
    assert (found[""], found[FLOOR.name], found[OURS]) == (["depth 16, µs"], ["3.00 (1.00 to 125)"], ["*not done*"])


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
    picture = charts.draw({"header": HEADER, "records": [record(OURS, 0, wall=1e-6), record("grain", 0, wall=2e-6)]})
    lines = ET.fromstring(picture).iterfind("{*}polyline/{*}title")
    assert [line.text for line in lines] == ["grain", OURS]


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=lambda workload: workload.name)
def test_every_column_has_its_case(workload: Workload) -> None:
    """No column is for a case, and no ratio is to a candidate, that nothing measures."""
    assert {column.case for column in workload.columns} == workload.cases.keys()
    assert workload.quick.keys() <= workload.cases.keys()
    for ratio in workload.ratios:
        assert (workload.named(ratio.against).name, ratio.case in workload.cases) == (ratio.against, True)


def test_candidates_run_side_by_side_and_every_second_round_backwards() -> None:
    """A B C, C B A: what drifts hits each of them alike."""
    plan = runner.Plan([WORKLOADS["many at once"]], 2, True, 60, Path(), parts=[OURS, VERSION_1])
    names = [(sample.round, sample.candidate.name) for sample in runner.plan_samples(plan)]
    assert names == [(0, FLOOR.name), (0, OURS), (0, VERSION_1), (1, VERSION_1), (1, OURS), (1, FLOOR.name)]


def test_help_installs_and_measures_nothing() -> None:
    """The command line explains itself."""
    out, _ = python("-m", "benchmarks", "--help", folder=TOP)
    assert "--quick" in out
