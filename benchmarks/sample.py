"""One sample, in a process of its own: python -m benchmarks.sample JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.candidates import GapError, MissingPeerError
from benchmarks.workloads import WORKLOADS

MARK = "benchmarks sample: "  # begins the line that is the answer; peers print too


def main() -> None:
    """Measure what the only argument describes, and print the result, or the reason why there is none."""
    task = json.loads(sys.argv[1])
    # This library goes in front, so that it wins over an installed one. The peers go last: version 1 has its name.
    sys.path.insert(0, task["tree"])
    sys.path.append(task["peers"])
    try:
        answer = measure(task)
    except MissingPeerError as missing:
        answer = {"missing": str(missing)}
    except GapError as gap:
        answer = {"gap": str(gap)}
    except Exception as error:
        answer = {"gap": f"{type(error).__name__}: {error}"}
    sys.stdout.write(f"\n{MARK}{json.dumps(answer)}\n")
    sys.stdout.flush()
    os._exit(0)  # what a candidate leaves behind, and how long its end takes, must not matter here


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics of one sample, and the version of the peer."""
    workload = WORKLOADS[task["workload"]]
    candidate = workload.named(task["candidate"])
    metrics = workload.measure(candidate, task["params"])
    if candidate.package != "prefetch_generator":
        version = {"version": importlib.metadata.version(candidate.package)} if candidate.package else {}
        return {"metrics": metrics, **version}
    file = sys.modules[candidate.package].__file__
    if file is None or not Path(file).is_relative_to(task["tree"]):
        raise ImportError(f"{file} was measured instead of the tree {task['tree']}")
    return {"metrics": metrics}


if __name__ == "__main__":
    main()
