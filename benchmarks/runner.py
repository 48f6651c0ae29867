"""Run the samples: each in a process of its own, all candidates of a case side by side, round after round."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.table import Table, Workload
from benchmarks.tables import TABLES

TOP = Path(__file__).resolve().parents[1]
OTHER_TREE = "the other tree"  # the row of --against
TIMEOUT = 60.0  # seconds for one sample


class Plan(NamedTuple):
    """What to run."""

    rounds: int
    share: float  # of the time that a full sample takes
    only: str  # a regular expression, found in a sample's key
    peers: Path
    against: Path | None = None  # the src/ of OTHER_TREE; nothing else is compared then


class Sample(NamedTuple):
    """One cell of the plan."""

    round: int
    table: Table
    workload: Workload
    case: str
    row: str  # a candidate, a floor or OTHER_TREE

    @property
    def key(self) -> str:
        """What it is called for humans, and for --only."""
        return " · ".join(filter(None, self.cell.values()))

    @property
    def cell(self) -> dict[str, str]:
        """What it is called in JSON."""
        return {"table": self.table.name, "workload": self.workload.name, "case": self.case, "row": self.row}


def samples(plan: Plan) -> Iterator[Sample]:
    """Give the samples in the order in which they run: A B C, C B A, A B C ..., case after case, round after round."""
    for number in range(plan.rounds):
        for table in TABLES.values():
            for workload in table.workloads:
                rows = [table.candidates[0].name, OTHER_TREE] if plan.against else table.rows(workload)
                for case in workload.cases:
                    for row in rows[:: -1 if number % 2 else 1]:
                        sample = Sample(number, table, workload, case, row)
                        if re.search(plan.only, sample.key):
                            yield sample


def run(plan: Plan) -> dict[str, Any]:
    """Run everything that `plan` says; return the header and the records, as they go into JSON."""
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    gaps: dict[str, dict[str, Any]] = {}
    records, before = [], load()
    todo = list(samples(plan))
    for number, sample in enumerate(todo):
        if sys.stderr and sys.stderr.isatty():
            sys.stderr.write(f"\r{number / len(todo):4.0%} round {sample.round + 1}: {sample.key:<70.70}")
        if sample.row in missing:
            continue
        answer = gaps.get(sample.key) or ask(plan, sample)
        if "missing" in answer:
            missing[sample.row] = answer["missing"]
            continue
        if "gap" in answer:
            gaps[sample.key] = answer
        elif version := answer.pop("version", None):
            versions[sample.row] = version
        records.append({**sample.cell, "round": sample.round, **answer})
    header = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version() + (" free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "load": f"load {before} before and {load()} after",
        "rounds": plan.rounds,
        "versions": versions,
        "missing": missing,
    }
    return {"header": header, "records": records}


def ask(plan: Plan, sample: Sample) -> dict[str, Any]:
    """Run one sample; return its metrics, or a gap with the reason."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer")
        task = sample.cell | {"tree": str(TOP / "src"), "peers": str(plan.peers), "answer": str(answer)}
        if sample.row == OTHER_TREE:
            task |= {"tree": str(plan.against), "row": sample.table.candidates[0].name}
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.sample", json.dumps({**task, "share": plan.share})]
        # In a session of its own, so that what a peer has started and left behind can be ended.
        null = subprocess.DEVNULL
        process = subprocess.Popen(  # noqa: S603 - this very interpreter, with our own module
            command, cwd=TOP, stdin=null, stdout=null, stderr=null, start_new_session=True
        )
        try:
            process.wait(TIMEOUT * plan.share)
            return dict(json.loads(answer.read_text(encoding="utf-8")))
        except subprocess.TimeoutExpired:
            return {"gap": f"not done after {TIMEOUT * plan.share:.0f} s"}
        except FileNotFoundError:
            return {"gap": f"ended with exit status {process.returncode}"}
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a sample's process and whatever it started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def load() -> float | None:
    """Return how many processes wanted a processor in the last minute, or None where nobody counts them."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
