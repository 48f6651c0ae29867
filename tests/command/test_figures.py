"""The figures for a script."""

from __future__ import annotations

import json
import platform

from prefetch_generator._command import figures, report
from prefetch_generator._command.machine import SWITCH_INTERVAL

from .invented import measured, with_process


def test_the_figures_are_those_that_were_measured() -> None:
    """Each under its name, in the unit that the name ends in."""
    measurement = measured(depth=8)
    found = json.loads(figures.as_json(measurement))
    consumers = found.pop("consumers")
    assert found == {
        "source": "'data:load'",
        "python": platform.python_version(),
        "items": 10,
        "max_prefetch": 2,
        "enough_max_prefetch": 8,
        "first_pass_seconds": 10.0,
        "source_alone_seconds": 10.0,
        "source_seconds_per_item": 1.0,
        "process_error": None,
        "advice": report.advice(measurement),
    }
    assert [*consumers] == ["waits", "computes"]
    runs = consumers["waits"].pop("runs")
    assert consumers["waits"] == {"seconds_per_item": 1.0, "best_speed_up": 20 / 11}
    assert [*runs] == ["plain", "background"]
    assert runs["plain"] == {
        "seconds": 20.0,
        "items_per_second": 0.5,
        "speed_up": 1.0,
        "producer_wait_seconds": 0.0,
        "consumer_wait_seconds": 0.0,
        "startup_seconds": 0.0,
    }
    assert runs["background"] | {"items_per_second": 0, "seconds": 0, "speed_up": 0} == {
        "seconds": 0,
        "items_per_second": 0,
        "speed_up": 0,
        "producer_wait_seconds": 0.25,
        "consumer_wait_seconds": 0.5,
        "startup_seconds": 0.0,
    }
    assert round(runs["background"]["speed_up"], 6) == round(20 / 11, 6)


def test_a_process_and_other_settings_are_further_runs() -> None:
    """Where they were tried; and why a process was not, if it could not be."""
    plain = figures.figures(measured(0.0, 0.0, tuned=0.25))
    assert [*plain["consumers"]["waits"]["runs"]] == ["plain", "background"]
    assert [*plain["consumers"]["computes"]["runs"]] == ["plain", "background", "tuned"]
    tuned = plain["consumers"]["computes"]["runs"]["tuned"]
    assert tuned["switch_interval_seconds"] == SWITCH_INTERVAL
    assert 1.2 < tuned["speed_up"] < 1.21

    measurement = measured(0.0, 0.0)
    measurement = measurement._replace(waits=with_process(measurement.waits, 1.0, 0.125), no_process="why")
    found = figures.figures(measurement)
    assert found["consumers"]["waits"]["runs"]["process"]["startup_seconds"] == 0.125
    assert found["process_error"] == "why"
