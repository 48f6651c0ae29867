"""Measure, and write what was found into docs/: python -m benchmarks."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import charts, report, runner
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.handoff import AGAINST

PAGE, PICTURE = runner.TOP / "docs" / "benchmarks.md", runner.TOP / "docs" / "benchmarks.svg"
BUILD = runner.TOP / "build"
DESCRIPTION = """
Measure this library beside its peers. Nothing is installed: a peer that is missing is a gap in the tables. The figures
go into a JSON file. A full run also replaces the tables and the picture in docs/; any other prints its tables.
"""
ROUNDS, QUICK_ROUNDS, AGAINST_ROUNDS = 7, 2, 25
QUICK_SECONDS = 105.0  # --quick starts no sample after that
LONGEST = 6 * 3600.0


class Options(argparse.Namespace):
    """What was asked for on the command line."""

    quick: bool
    rounds: int | None
    workloads: list[str]
    candidates: list[str]
    against: Path | None
    peers: Path
    json: Path | None
    render: list[Path]


def parse(arguments: list[str] | None) -> Options:
    """Return the options, or exit with status 2 and a message."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=DESCRIPTION)
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer and shorter samples, in less than two minutes")
    add(
        "--rounds",
        type=int,
        help=f"samples of each figure ({ROUNDS}; --quick {QUICK_ROUNDS}; --against {AGAINST_ROUNDS})",
    )
    add("--workloads", nargs="+", choices=WORKLOADS, default=[], help="only these")
    add("--candidates", nargs="+", metavar="PART", default=[], help="only those with PART in their name")
    add(
        "--against",
        type=Path,
        metavar="SRC",
        help="only compare the hand-off with that of another src/ of this library",
    )
    add("--peers", type=Path, default=BUILD / "peers", help="where the peers are (default: %(default)s)")
    add("--json", type=Path, help=f"where to write (default: a file in {BUILD})")
    add(
        "--render",
        nargs="+",
        type=Path,
        default=[],
        metavar="JSON",
        help="measure nothing, write docs/ from these: the tables of the first, and the ratios of all",
    )
    options = parser.parse_args(arguments, Options())
    names = [candidate.name for workload in WORKLOADS.values() for candidate in workload.candidates]
    if unknown := [part for part in options.candidates if not any(part in name for name in names)]:
        parser.error(f"--candidates must be parts of candidates' names, got {unknown!r}")
    if options.against and not (options.against / "prefetch_generator" / "__init__.py").is_file():
        parser.error(f"--against must be a folder that has prefetch_generator, got '{options.against}'")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure, write the JSON file, and write or print the tables."""
    options = parse(arguments)
    if options.render:
        write_docs([json.loads(path.read_text(encoding="utf-8")) for path in options.render])
        return
    workloads = [WORKLOADS[name] for name in options.workloads or WORKLOADS]
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    if options.against:
        workloads, rounds = [AGAINST], QUICK_ROUNDS if options.quick else AGAINST_ROUNDS
    plan = runner.Plan(
        workloads,
        options.rounds or rounds,
        options.quick,
        QUICK_SECONDS if options.quick else LONGEST,
        options.peers.resolve(),
        options.against and options.against.resolve(),
        options.candidates,
    )
    results = runner.run(plan)
    version = f"{sys.version_info.major}.{sys.version_info.minor}{getattr(sys, 'abiflags', '')}"
    path = options.json or BUILD / f"{'against' if options.against else 'benchmarks'}-{version}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.quick or options.workloads or options.candidates or options.against:
        sys.stdout.write(report.tables([results], workloads))
    else:
        write_docs([results])


def write_docs(runs: list[report.Results]) -> None:
    """Replace the tables and the picture in docs/."""
    tables = report.tables(runs, WORKLOADS.values())
    PAGE.write_text(report.replace_tables(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")
    PICTURE.write_text(charts.draw(report.completed(runs)), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n{PICTURE}\n")


if __name__ == "__main__":
    main()
