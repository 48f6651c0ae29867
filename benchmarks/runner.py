"""Run the samples: each in a process of its own, all candidates of a case side by side, round after round."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.candidates import OTHER_TREE, OURS, Candidate
from benchmarks.sample import MARK
from benchmarks.workload import Params, Workload

TOP = Path(__file__).resolve().parents[1]
TIMEOUT, QUICK_TIMEOUT = 60.0, 6.0  # seconds for one sample


class Plan(NamedTuple):
    """What to run."""

    workloads: list[Workload]
    rounds: int
    quick: bool
    seconds: float  # no sample is started after that
    peers: Path
    other_tree: Path | None = None  # the src/ of OTHER_TREE
    parts: Sequence[str] = ()  # of candidates' names; empty: all


class Sample(NamedTuple):
    """One cell of the plan."""

    round: int
    workload: Workload
    case: str
    params: Params
    candidate: Candidate


def run(plan: Plan) -> dict[str, Any]:
    """Run everything that `plan` says; return the header and the records, as they go into JSON."""
    started = time.monotonic()
    header = describe(plan)
    samples = list(plan_samples(plan))
    records = []
    gaps: dict[str, str] = {}
    for number, sample in enumerate(samples):
        if time.monotonic() - started > plan.seconds:
            header["stopped"] = f"after {number} of {len(samples)} samples, for lack of time"
            break
        name = sample.candidate.name
        key = f"{sample.workload.name} · {sample.case} · {name}"
        progress(f"{number / len(samples):4.0%} round {sample.round + 1}: {key}")
        if name in header["missing"]:
            continue
        answer = {"gap": gaps[key]} if key in gaps else ask(plan, sample)
        if "missing" in answer:
            header["missing"][name] = answer["missing"]
            continue
        if "gap" in answer:
            gaps[key] = answer["gap"]
        if "version" in answer:
            header["versions"][name] = answer.pop("version")
        cell = {"workload": sample.workload.name, "case": sample.case, "candidate": name, "round": sample.round}
        records.append(cell | answer)
    progress("")
    header["load after"] = load()
    header["seconds"] = round(time.monotonic() - started)
    return {"header": header, "records": records}


def plan_samples(plan: Plan) -> Iterator[Sample]:
    """Give the samples in the order in which they run: A B C, C B A, A B C ..., case after case, round after round."""
    for number in range(plan.rounds):
        for workload in plan.workloads:
            if number >= workload.rounds:
                continue
            chosen = [
                candidate
                for candidate in workload.candidates
                if not plan.parts or any(part in candidate.name for part in plan.parts)
            ]
            # The extra ones stand beside ours, which comes first: a ratio is of neighbours.
            order = [*workload.extra, *chosen][:: -1 if number % 2 else 1]
            for case, params in (workload.quick if plan.quick else workload.cases).items():
                for candidate in order:
                    yield Sample(number, workload, case, params, candidate)


def ask(plan: Plan, sample: Sample) -> dict[str, Any]:
    """Run one sample; return its metrics, or a gap with the reason."""
    other = plan.other_tree if sample.candidate is OTHER_TREE else None
    task = {
        "workload": sample.workload.name,
        "params": sample.params,
        "candidate": OURS if other else sample.candidate.name,
        "tree": str(other or TOP / "src"),
        "peers": str(plan.peers),
    }
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.sample", json.dumps(task)]
    timeout = QUICK_TIMEOUT if plan.quick else TIMEOUT
    # A file and not a pipe: a pipe ends only with the last process that a peer has started and left behind. A session
    # of its own, so that those processes can be ended.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(  # noqa: S603 - this very interpreter, with our own module
            command, cwd=TOP, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            return {"gap": f"not done after {timeout:.0f} s"}
        finally:
            end(process)
        output.seek(0)
        lines = output.read().splitlines()
    for line in reversed(lines):
        if line.startswith(MARK):
            return dict(json.loads(line[len(MARK) :]))
    return {"gap": f"ended with exit status {process.returncode}"}


def end(process: subprocess.Popen[bytes]) -> None:
    """End a sample's process and whatever it started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def describe(plan: Plan) -> dict[str, Any]:
    """Return what a reader has to know about the machine and the interpreter."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "free-threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "load before": load(),
        "rounds": plan.rounds,
        "versions": {},
        "missing": {},
    }


def load() -> float | None:
    """Return how many processes wanted a processor in the last minute, or None where nobody counts them."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def progress(what: str) -> None:
    """Show on a terminal what runs now."""
    if sys.stderr and sys.stderr.isatty():
        sys.stderr.write(f"\r{what[:99]:<99}\r")
        sys.stderr.flush()
