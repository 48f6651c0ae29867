"""Measure, and write what was found into docs/: python -m benchmarks."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import report, runner
from benchmarks.tables import TABLES

PAGE, PICTURE = runner.TOP / "docs" / "benchmarks.md", runner.TOP / "docs" / "benchmarks.svg"
BUILD = runner.TOP / "build"
DESCRIPTION = """
Measure this library beside its peers. Nothing is installed: a peer that is missing is a gap in the tables. The figures
go into a JSON file. A full run also replaces the tables and the picture in docs/; any other prints its tables.
"""
ROUNDS, AGAINST_ROUNDS = 7, 25
QUICK = 0.1  # the share of a full sample's time that --quick takes; there is one sample of each figure


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options, or exit with status 2 and a message."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=DESCRIPTION)
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer and shorter samples, in a few minutes")
    add("--rounds", type=int, help=f"samples of each figure ({ROUNDS}; --against {AGAINST_ROUNDS}; --quick a seventh)")
    add("--only", default="", metavar="REGEX", help="only what has this in 'table · workload · case · candidate'")
    add("--against", type=Path, metavar="SRC", help="only compare with another src/ of this library: the hand-off")
    add("--peers", type=Path, default=BUILD / "peers", help="where the peers are (default: %(default)s)")
    add("--json", type=Path, default=BUILD / "benchmarks.json", help="where to write (default: %(default)s)")
    add("--render", nargs="+", type=Path, metavar="JSON", help="only write docs/ from these, one for each interpreter")
    options = parser.parse_args(arguments)
    if options.against and not (options.against / "prefetch_generator" / "__init__.py").is_file():
        parser.error(f"--against must be a folder that has prefetch_generator, got '{options.against}'")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure, write the JSON file, and write or print the tables."""
    options = parse(arguments)
    if options.render:
        write_docs([json.loads(path.read_text(encoding="utf-8")) for path in options.render])
        return
    rounds = AGAINST_ROUNDS if options.against else ROUNDS
    plan = runner.Plan(
        options.rounds or (rounds // ROUNDS if options.quick else rounds),
        QUICK if options.quick else 1.0,
        options.only or ("hand-off" if options.against else ""),
        options.peers.resolve(),
        options.against and options.against.resolve(),
    )
    results = runner.run(plan)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.quick or options.only or options.against:
        sys.stdout.write(report.tables([results]))
    else:
        write_docs([results])


def write_docs(runs: list[report.Results]) -> None:
    """Replace the tables and the picture in docs/."""
    PAGE.write_text(report.replace_tables(PAGE.read_text(encoding="utf-8"), report.tables(runs)), encoding="utf-8")
    PICTURE.write_text(report.picture(runs, TABLES["synchronous"]), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n{PICTURE}\n")


if __name__ == "__main__":
    main()
