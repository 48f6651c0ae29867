"""The measurement for a script: one JSON object, whose names docs/command.md explains."""

from __future__ import annotations

import json
import platform
from typing import Any

from prefetch_generator._command.machine import SWITCH_INTERVAL
from prefetch_generator._command.report import advice
from prefetch_generator._command.times import Comparison, Measurement, mean


def as_json(measured: Measurement) -> str:
    """Return the figures as a JSON object. It is ASCII, so that any standard output can take it."""
    return json.dumps(figures(measured), indent=2, allow_nan=False)


def figures(measured: Measurement) -> dict[str, Any]:
    """Return the figures by their names. A unit, where there is one, ends the name."""
    consumers = {each.consumer: _comparison(each) for each in (measured.waits, measured.computes)}
    if measured.tuned:
        tuned = measured.tuned
        run = _run(tuned, "background")
        consumers["computes"]["runs"]["tuned"] = run | {"switch_interval_seconds": SWITCH_INTERVAL}
    return {
        "source": measured.title,
        "python": platform.python_version(),
        "items": len(measured.alone.made),
        "max_prefetch": measured.max_prefetch,
        "enough_max_prefetch": measured.depth,
        "first_pass_seconds": measured.first.seconds,
        "source_alone_seconds": measured.alone.seconds,
        "source_seconds_per_item": mean(measured.alone.made),
        "consumers": consumers,
        "process_error": measured.no_process or None,
        "advice": advice(measured),
    }


def _comparison(compared: Comparison) -> dict[str, Any]:
    return {
        "seconds_per_item": mean(compared.plain.used),
        "best_speed_up": compared.best,
        "runs": {variant: _run(compared, variant) for variant in compared.runs},
    }


def _run(compared: Comparison, variant: str) -> dict[str, float]:
    run = compared.runs[variant]
    return {
        "seconds": run.seconds,
        "items_per_second": run.rate,
        "speed_up": compared.speed_up(variant),
        "producer_wait_seconds": run.producer_wait,
        "consumer_wait_seconds": run.consumer_wait,
        "startup_seconds": run.startup,
    }
