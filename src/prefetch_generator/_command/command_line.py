"""The command itself: options in, a report out, and an exit status that tells how it went."""

from __future__ import annotations

import argparse
import errno
import math
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from prefetch_generator._command import report
from prefetch_generator._command.find import SourceError, find_source, users_part
from prefetch_generator._command.measure import ITEMS, measure

PROG = "python -m prefetch_generator"
DESCRIPTION = """
Measure what prefetching would gain: run a source alone, then in a plain loop and in the background, with a
consumer that waits (a GPU, a network) and with one that computes in Python. Where a thread gains less than half of what
is possible, a process of its own is tried too.
"""
EPILOG = """
Exit status: 0, or 1 if the source failed, 2 if an argument or SOURCE is wrong, 130 after Ctrl-C.
"""

INTERRUPTED = 130  # exit status: 128 + SIGINT, as in a shell


class Options(argparse.Namespace):
    """What was asked for on the command line."""

    source: str | None
    items: int | None
    max_prefetch: int
    consumer: float | None


def run_and_exit() -> NoReturn:
    """Run `main` and exit with its status."""
    status = main()
    if status == INTERRUPTED:
        # Not `sys.exit`: that would wait for a source that is stuck, and for the user's own threads.
        os._exit(status)
    sys.exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the report and return the exit status; argparse exits by itself with 2."""
    options = parse(argv)
    try:
        try:
            source = find_source(options.source)
            measured = measure(source, options.items, options.consumer, options.max_prefetch, progress)
        finally:
            progress("")
        write("\n".join(report.lines(measured)))
    except SourceError as error:
        print(f"{PROG}: error: {error}", file=sys.stderr)
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


def parse(argv: Sequence[str] | None) -> Options:
    """Return the options, or exit with status 2 and a message."""
    parser = argparse.ArgumentParser(prog=PROG, description=DESCRIPTION, epilog=EPILOG)
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


def progress(step: str) -> None:
    """Say on a terminal what is going on, or wipe that out with an empty *step*."""
    if sys.stderr and sys.stderr.isatty():
        print(f"\r{step:<40}\r", end="", file=sys.stderr, flush=True)


def write(text: str) -> None:
    """Print *text* whatever the encoding of standard output is, and although nobody may read it any more."""
    encoding: str = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EINVAL):  # the second is how Windows calls the first
            raise
        # What is left in the buffer would fail again, loudly, when the interpreter exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
