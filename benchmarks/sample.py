"""One sample, in a process of its own: python -m benchmarks.sample JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.table import GapError
from benchmarks.tables import TABLES


def main() -> None:
    """Measure what the only argument describes, and write the figures, or the reason why there are none."""
    task = json.loads(sys.argv[1])
    # This library goes in front, so that it wins over an installed one. The peers go last: version 1 has its name.
    sys.path.insert(0, task["tree"])
    sys.path.append(task["peers"])
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # otherwise a matrix product alone takes all processors
    try:
        answer = measure(task)
    except GapError as gap:
        answer = {"gap": str(gap)}
    except Exception as error:
        answer = {"gap": f"{type(error).__name__}: {error}"}
    Path(task["answer"]).write_text(json.dumps(answer), encoding="utf-8")
    os._exit(0)  # what a candidate leaves behind, and how long its end takes, must not matter here


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics of one sample and the version of the candidate, or that it is missing."""
    table = TABLES[task["table"]]
    workload = next(workload for workload in table.workloads if workload.name == task["workload"])
    case, share = workload.cases[task["case"]], task["share"]
    if task["row"] in workload.floors:
        return {"metrics": workload.floors[task["row"]](case, share)}
    candidate = next(candidate for candidate in table.candidates if candidate.name == task["row"])
    try:
        _ = candidate.make
    except ImportError as error:
        if candidate is table.candidates[0]:
            raise  # an older tree may lack what one table is about
        return {"missing": str(error)}
    version = None
    if candidate is table.candidates[0]:
        module = sys.modules[candidate.package]
        if not module.__file__ or not Path(module.__file__).is_relative_to(task["tree"]):
            raise ImportError(f"{module.__file__} was measured instead of the tree {task['tree']}")
        version = getattr(module, "__version__", None)
    elif candidate.package:
        version = importlib.metadata.version(candidate.package)
    return {"metrics": workload.measure(candidate, case, share), "version": version}


if __name__ == "__main__":
    main()
