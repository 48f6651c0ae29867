"""Which tests run which line of the package, and how long each takes.

A mutant can only be killed by a test that runs the line that it changes, so no other test is run against it. `find`
runs the suite once under `coverage`, with a context per test, and keeps the answer in `build/` until a file of the
package or of the tests changes. Child processes are seen as well, by the name of the test that pytest leaves in the
environment.

As a plugin of pytest (`-p verification.reach`) this module notes the contexts and the seconds; where the environment
names a file of chosen tests, it runs these instead, in the order of the file, each with a limit of its own, and says
beside that file which one runs: a test that hangs takes pytest along, and its report.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from coverage import Coverage, CoverageData

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "build" / "reach.json"
CHOSEN, NOTES = "REACH_CHOSEN", "REACH_NOTES"  # variables: the files of the tests to run, and of how long each took

SETTINGS = """
[run]
source_pkgs = prefetch_generator
patch = _exit
parallel = true
core = ctrace
context = ${PYTEST_CURRENT_TEST-}
disable_warnings = module-not-imported, no-data-collected
"""
# What starts a thousand processes, what runs a rewritten copy of the package, and what coverage itself disturbs.
NOT_TRACED = (
    "--ignore=tests/verification",
    "--ignore=tests/interrupts/test_processes.py",
    "--ignore=tests/integrations",
    "--ignore=tests/typing",
    "-k=not leaks_nothing and not ctrl_c_under_asyncio_run and not sub_interpreter",
)
DOCUMENTS = ("test_doctests.py", "test_public_names.py")  # the others test texts, or run a copy that is installed


class Reach(NamedTuple):
    """What the suite does when nothing is wrong."""

    tests: dict[str, dict[int, list[str]]]  # of each module, of each line
    seconds: dict[str, float]  # of each test

    def of(self, module: str, lines: range) -> list[str]:
        """Return the tests that run one of these lines; all of the module's, for a line that its import runs."""
        those = self.tests.get(module, {})
        found = {test for line in lines for test in those.get(line, ())}
        return list(found or {test for tests in those.values() for test in tests})


def find() -> Reach:
    """Run the suite, or read what the last run has found."""
    digest = _digest()
    if KEPT.exists():
        kept = json.loads(KEPT.read_text(encoding="utf-8"))
        if kept["digest"] == digest:
            return _unpacked(kept)
    print("looking which tests run which line; this takes some minutes", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        kept = {"digest": digest, **_traced(Path(folder))}
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps(kept), encoding="utf-8")
    return _unpacked(kept)


def _digest() -> str:
    sources = [path for top in ("src", "tests") for path in sorted((ROOT / top).rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in [*sources, Path(__file__)])).hexdigest()


def _traced(folder: Path) -> dict[str, Any]:
    settings, notes = folder / "settings", folder / "notes"
    settings.write_text(SETTINGS, encoding="utf-8")
    environment = {
        **os.environ,
        "COVERAGE_FILE": str(folder / "data"),
        "COVERAGE_PROCESS_START": str(settings),
        NOTES: str(notes),
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT))),
    }
    documents = [f"--ignore={path}" for path in ROOT.glob("tests/documents/test_*.py") if path.name not in DOCUMENTS]
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "verification.reach", *NOT_TRACED, *documents, "tests"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    seconds: dict[str, float] = json.loads(notes.read_text(encoding="utf-8"))
    names = {name: number for number, name in enumerate(seconds)}
    lines: dict[str, dict[int, set[int]]] = {}
    for module, line, test in _contexts(folder):
        if test in names:
            lines.setdefault(module, {}).setdefault(line, set()).add(names[test])
    found = {module: {line: sorted(tests) for line, tests in those.items()} for module, those in lines.items()}
    return {"seconds": seconds, "lines": found}


def _contexts(folder: Path) -> Iterator[tuple[str, int, str]]:
    """Give each line that ran: its module, its number, and a test."""
    for path in folder.glob("data.*"):
        data = CoverageData(str(path))
        data.read()
        for file in data.measured_files():
            module = Path(file).with_suffix("").as_posix().rpartition("/prefetch_generator/")[2]
            for line, contexts in data.contexts_by_lineno(file).items():
                for context in contexts:
                    # Of a child the first part, its own, is right; the second it may have from before the fork.
                    for test in context.split("|"):
                        yield module, line, re.sub(r" \((setup|call|teardown)\)$", "", test)


def _unpacked(kept: dict[str, Any]) -> Reach:
    names = list(kept["seconds"])
    tests = {
        module: {int(line): [names[number] for number in numbers] for line, numbers in lines.items()}
        for module, lines in kept["lines"].items()
    }
    return Reach(tests, kept["seconds"])


def running(chosen: Path) -> Path:
    """Return the file that names the test that runs."""
    return chosen.with_suffix(".running")


# What follows runs inside pytest.

_seconds: dict[str, float] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note which test it is that runs, and how long it takes."""
    if (coverage := Coverage.current()) is not None:
        coverage.switch_context(item.nodeid)
    started = time.perf_counter()
    try:
        return (yield)
    finally:
        _seconds[item.nodeid] = time.perf_counter() - started


def pytest_sessionfinish() -> None:
    """Say how long each test took."""
    if NOTES in os.environ:
        Path(os.environ[NOTES]).write_text(json.dumps(_seconds), encoding="utf-8")


def pytest_runtest_logstart(nodeid: str) -> None:
    """Say which test runs."""
    if CHOSEN in os.environ:
        running(Path(os.environ[CHOSEN])).write_text(nodeid, encoding="utf-8")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave only the chosen tests, in their order; none is chosen: leave all."""
    if CHOSEN in os.environ and (limits := json.loads(Path(os.environ[CHOSEN]).read_text(encoding="utf-8"))):
        found = {item.nodeid: item for item in items}
        items[:] = [found[name] for name in limits if name in found]
        for item in items:
            item.add_marker(pytest.mark.timeout(limits[item.nodeid]), append=False)
