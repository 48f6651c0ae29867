"""One sample, in a process of its own: python -m benchmarks.sample JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from typing import Any

from benchmarks.candidates import BY_NAME, Candidate, MissingPeerError
from benchmarks.workloads import WORKLOADS

PROBE = "probe"  # instead of a workload: is the candidate there, and does it work?
MARK = "benchmarks sample: "  # begins the line that is the answer; peers print too


def main() -> None:
    """Measure what the only argument describes, and print the result or the reason why there is none."""
    task = json.loads(sys.argv[1])
    # In front what has to win over an installed package of the same name, at the end what must not.
    sys.path[:0] = task["front"]
    sys.path.extend(task["back"])
    answer: dict[str, Any]
    try:
        answer = {"metrics": measure(task)}
    except MissingPeerError as missing:
        answer = {"gap": str(missing)}
    except Exception as error:
        answer = {"gap": f"{type(error).__name__}: {error}"}
    sys.stdout.write(f"\n{MARK}{json.dumps(answer)}\n")
    sys.stdout.flush()
    os._exit(0)  # what a candidate leaves behind, and how long its end takes, must not matter here


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics of one sample."""
    candidate = BY_NAME[task["candidate"]]
    if task["workload"] == PROBE:
        return probe(candidate)
    return dict(WORKLOADS[task["workload"]].measure(candidate, task["params"]))


def probe(candidate: Candidate) -> dict[str, Any]:
    """Check that items arrive, in order, and return the version of the package."""
    depth = 2 if 2 in candidate.depths else 1
    got = list(candidate.make()(iter(range(10)), depth))
    if got != list(range(10)):
        raise ValueError(f"gave {got!r} instead of 0 to 9")
    if not candidate.package or candidate.package == "prefetch_generator":
        return {}
    return {"version": importlib.metadata.version(candidate.package)}


if __name__ == "__main__":
    main()
