"""The command itself: options in, a report out, and an exit status that tells how it went."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from prefetch_generator._command import figures, plot, report, terminal
from prefetch_generator._command.find import SourceError, find_source, users_part
from prefetch_generator._command.measure import ITEMS, measure

MODULE = "python -m prefetch_generator"
SCRIPT = "prefetch-generator"
DESCRIPTION = """
Measure what prefetching would gain: run a source alone, then in a plain loop and in the background, with a
consumer that waits (a GPU, a network) and with one that computes in Python. Where a thread gains less than half of what
is possible, a process of its own is tried too.
"""
EPILOG = """
Exit status: 0, or 1 if the source failed, 2 if an argument or SOURCE is wrong or no picture can be drawn, 130 after
Ctrl-C.
"""

INTERRUPTED = 130  # exit status: 128 + SIGINT, as in a shell


class Options(argparse.Namespace):
    """What was asked for on the command line."""

    source: str | None
    items: int | None
    max_prefetch: int
    consumer: float | None
    json: bool
    plot: Path | None


def run_script() -> NoReturn:
    """Be the script `prefetch-generator`: like `python -m`, it finds the modules of the current folder."""
    if not getattr(sys.flags, "safe_path", False):  # since Python 3.11
        sys.path.insert(0, str(Path.cwd()))
    run_and_exit(SCRIPT)


def run_and_exit(prog: str) -> NoReturn:
    """Run `main` and exit with its status."""
    status = main(prog=prog)
    if status == INTERRUPTED:
        # Not `sys.exit`: that would wait for a source that is stuck, and for the user's own threads.
        os._exit(status)
    sys.exit(status)


def main(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> int:
    """Measure, print the report and return the exit status; argparse exits by itself with 2."""
    options = parse(argv, prog)
    try:
        answer(options)
    except (SourceError, plot.PlotError) as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    # BaseException: a source that raises SystemExit must not look like a success without output.
    except BaseException as error:
        # Not `traceback.print_exception`, which raises itself on some of 3.15's tracebacks (python/cpython#151631).
        error = error.with_traceback(users_part(error) or error.__traceback__)
        sys.__excepthook__(type(error), error, error.__traceback__)
        return 1
    return 0


def answer(options: Options) -> None:
    """Measure what was asked for, and print it in the form that was asked for."""
    if options.plot:
        plot.check(options.plot)
    # What the source prints would spoil the JSON.
    aside = terminal.output_set_aside() if options.json else contextlib.nullcontext()
    with aside, terminal.progress() as announce:
        source = find_source(options.source)
        measured = measure(source, options.items, options.consumer, options.max_prefetch, announce)
    if options.json:
        terminal.write(figures.as_json(measured))
    else:
        terminal.write("\n".join(report.lines(measured, colours=terminal.has_colours(sys.stdout))))
    if options.plot:
        plot.save(measured, options.plot)


def parse(argv: Sequence[str] | None, prog: str = SCRIPT) -> Options:
    """Return the options, or exit with status 2 and a message."""
    parser = argparse.ArgumentParser(prog=prog, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="package.module:callable, which returns an iterable, or a folder, whose files are read and "
        "compressed (default: the folder of Python's standard library)",
    )
    parser.add_argument(
        "--items",
        metavar="N",
        type=positive,
        help=f"items to take (default: what fits into a run of a few seconds, at most {ITEMS})",
    )
    parser.add_argument(
        "--max-prefetch",
        metavar="N",
        type=int,
        default=2,
        help="items to make ahead, 0 for no bound (default: %(default)s)",
    )
    parser.add_argument(
        "--consumer",
        metavar="SECONDS",
        type=duration,
        help="how long the consumer spends on an item (default: as long as the source)",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object, for a script")
    parser.add_argument(
        "--plot",
        metavar="FILE",
        type=Path,
        help="also draw who worked when, into a .svg or .png file (needs matplotlib: the extra `plot`)",
    )
    return parser.parse_args(argv, Options())


def positive(text: str) -> int:
    """Return *text* as an integer of at least 1, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text!r}")
    return number


def duration(text: str) -> float:
    """Return *text* as seconds, from 0 to an hour, for argparse."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"must be seconds from 0 to 3600, got {text!r}")
    return seconds
