"""Measure, and write what was found into docs/: python -m benchmarks."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import charts, report, runner
from benchmarks.workloads import WORKLOADS

DOCS = runner.TOP / "docs"
BUILD = runner.TOP / "build"
DESCRIPTION = """
Measure this library beside its peers. Nothing is installed: a peer that is missing is a gap in the tables. The figures
go into a JSON file; a full run also replaces the tables and charts in docs/, a quick or partial one prints them.
"""
ROUNDS, QUICK_ROUNDS = 7, 2
QUICK_SECONDS = 105.0  # after which --quick starts no further sample
LONGEST = 6 * 3600.0


class Options(argparse.Namespace):
    """What was asked for on the command line."""

    quick: bool
    rounds: int | None
    workloads: list[str]
    candidates: list[str]
    peers: Path
    base: Path | None
    json: Path
    render: list[Path]


def parse(arguments: list[str] | None) -> Options:
    """Return the options, or exit with status 2 and a message."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}{getattr(sys, 'abiflags', '')}"
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=DESCRIPTION)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter samples, in less than two minutes")
    parser.add_argument("--rounds", type=int, help=f"samples of each figure (default: {ROUNDS}, quick {QUICK_ROUNDS})")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=[], help="only these")
    parser.add_argument(
        "--candidates", nargs="+", metavar="PART", default=[], help="only those with PART in their name"
    )
    parser.add_argument(
        "--peers", type=Path, default=BUILD / "peers", help="where the peers are (default: %(default)s)"
    )
    parser.add_argument("--base", type=Path, help="src/ of another tree of this library, to compare with")
    parser.add_argument(
        "--json", type=Path, default=BUILD / f"benchmarks-{version}.json", help="where to write (default: %(default)s)"
    )
    parser.add_argument(
        "--render",
        nargs="+",
        type=Path,
        default=[],
        metavar="JSON",
        help="measure nothing, write docs/ from these: the tables of the first, and the ratios of all",
    )
    options = parser.parse_args(arguments, Options())
    if unknown := runner.known(options.candidates):
        parser.error(f"--candidates must be parts of candidates' names, got {unknown!r}")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure, write the JSON file, and write or print the tables."""
    options = parse(arguments)
    if options.render:
        write_docs([json.loads(path.read_text(encoding="utf-8")) for path in options.render])
        return
    plan = runner.Plan(
        rounds=options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS),
        quick=options.quick,
        seconds=QUICK_SECONDS if options.quick else LONGEST,
        peers=options.peers.resolve(),
        base=options.base and options.base.resolve(),
        workloads=options.workloads or list(WORKLOADS),
        candidates=options.candidates,
    )
    results = runner.run(plan)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.quick or options.workloads or options.candidates:
        for name, block in report.blocks([results]):
            sys.stdout.write(f"\n## {name}\n\n{block}\n")
    else:
        write_docs([results])


def write_docs(runs: list[report.Results]) -> None:
    """Replace the tables and the charts in docs/."""
    page = DOCS / "benchmarks.md"
    page.write_text(report.replace_blocks(page.read_text(encoding="utf-8"), report.blocks(runs)), encoding="utf-8")
    for path in [page, *charts.draw(runs[0], DOCS)]:
        sys.stdout.write(f"{path.relative_to(runner.TOP)}\n")


if __name__ == "__main__":
    main()
