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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.candidates import BASE, BY_NAME, CANDIDATES, FLOOR, PLAIN, Candidate
from benchmarks.sample import MARK, PROBE
from benchmarks.workload import Params, Workload
from benchmarks.workloads import WORKLOADS

TOP = Path(__file__).resolve().parents[1]
TIMEOUT, QUICK_TIMEOUT = 60.0, 6.0  # seconds for one sample

Record = dict[str, Any]  # workload, case, candidate, round, and metrics or gap


class Plan(NamedTuple):
    """What to run."""

    rounds: int
    quick: bool
    seconds: float  # no sample is started after that
    peers: Path
    base: Path | None
    workloads: list[str]
    candidates: list[str]  # parts of names; empty: all


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
    taking_part = [
        candidate
        for candidate in (*CANDIDATES, *([BASE] if plan.base else []))
        if not plan.candidates or any(part in candidate.name for part in plan.candidates)
    ]
    gaps: dict[str, str] = {}
    for number, candidate in enumerate(taking_part):
        progress(number / len(taking_part), f"looking for {candidate.name}")
        answer = ask(plan, PROBE, {}, candidate)
        if "gap" in answer:
            gaps[candidate.name] = answer["gap"]
        elif "version" in answer["metrics"]:
            header["versions"][candidate.name] = answer["metrics"]["version"]
    samples = list(plan_samples(plan, taking_part))
    records = []
    given_up: dict[tuple[str, str, str], str] = {}
    for number, sample in enumerate(samples):
        if time.monotonic() - started > plan.seconds:
            header["stopped"] = f"after {number} of {len(samples)} samples, for want of time"
            break
        key = (sample.workload.name, sample.case, sample.candidate.name)
        gap = (
            gaps.get(sample.candidate.name)
            or sample.workload.reason_to_skip(sample.candidate, sample.params)
            or given_up.get(key)
        )
        progress(number / len(samples), f"round {sample.round + 1}: {' · '.join(key)}")
        answer = {"gap": gap} if gap else ask(plan, sample.workload.name, sample.params, sample.candidate)
        if "gap" in answer:
            given_up[key] = answer["gap"]
        records.append(
            {
                "workload": sample.workload.name,
                "case": sample.case,
                "candidate": sample.candidate.name,
                "round": sample.round,
                **answer,
            }
        )
    progress(1, "")
    header["load after"] = load()
    header["seconds"] = round(time.monotonic() - started)
    return {"header": header, "records": records}


def plan_samples(plan: Plan, candidates: list[Candidate]) -> Iterator[Sample]:
    """Give the samples in the order in which they run: A B C, C B A, A B C ..., case after case, round after round."""
    for number in range(plan.rounds):
        for name in plan.workloads:
            workload = WORKLOADS[name]
            if number >= workload.rounds:
                continue
            extra = [FLOOR] * workload.floor + [PLAIN] * workload.plain
            for case, params in workload.cases(plan.quick).items():
                # Floor and base stand beside ours, which comes first: a ratio is of neighbours.
                order = [*extra, *sorted(candidates, key=lambda candidate: candidate is not BASE)]
                for candidate in order if number % 2 == 0 else reversed(order):
                    yield Sample(number, workload, case, params, candidate)


def ask(plan: Plan, workload: str, params: Params, candidate: Candidate) -> dict[str, Any]:
    """Run one sample; return its metrics, or a gap with the reason."""
    ours = plan.base if candidate is BASE and plan.base else TOP / "src"
    task = {
        "workload": workload,
        "params": params,
        "candidate": candidate.name,
        "front": [str(ours)],
        "back": [str(plan.peers)],
    }
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.sample", json.dumps(task)]
    timeout = QUICK_TIMEOUT if plan.quick else TIMEOUT
    # A file and no pipe: a pipe ends only with the last process that a peer has started and left behind. A session of
    # its own, so that those can be ended.
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
        "quick": plan.quick,
        "versions": {},
    }


def load() -> float | None:
    """Return how many processes wanted a processor in the last minute, or None where nobody counts them."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def progress(share: float, what: str) -> None:
    """Draw a bar on standard error, if that is a terminal; without a text, wipe it out."""
    if sys.stderr and sys.stderr.isatty():
        bar = "█" * int(24 * share)
        line = f"{bar:░<24} {share:4.0%} {what[:70]:<70}" if what else " " * 100
        sys.stderr.write(f"\r{line}\r")
        sys.stderr.flush()


def known(names: list[str]) -> list[str]:
    """Return those of `names` that are no candidate's, for a message."""
    return [name for name in names if not any(name in candidate for candidate in BY_NAME)]
