"""Answer "what would prefetching gain me?" on the machine this runs on: python -m prefetch_generator."""

from __future__ import annotations

import argparse
import errno
import importlib
import math
import operator
import os
import platform
import sys
import sysconfig
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, NoReturn

from prefetch_generator import BackgroundGenerator, _measure
from prefetch_generator._measure import Comparison, Consumer, Run, Source, Span

PROG = "python -m prefetch_generator"
DESCRIPTION = """
Measure what prefetching would gain: run a source alone, then in a plain loop and in the background, with a
consumer that waits (a GPU, a network) and with one that computes in Python.
"""
EPILOG = """
Exit status: 0, or 1 if the source failed, 2 if an argument or SOURCE is wrong, 130 after Ctrl-C.
"""

ITEMS = 200  # taken without --items, or as many as fit into
BUDGET = 1.2  # seconds of one plain loop; the whole takes about six times as long
FILE_SIZE = 1 << 20  # bytes read of a file; the rest of a huge one would be one endless item
ENOUGH = 0.5  # the share of the possible gain that is not worth a word
PICTURED = 6  # items in the picture
WIDTH = 64  # columns of the picture
SWITCH_INTERVAL = 0.0001  # seconds for sys.setswitchinterval, whose default of 0.005 is long for short items
INTERRUPTED = 130  # exit status: 128 + SIGINT, as in a shell

# Where tracebacks start that end in the user's code.
OURS = (str(Path(__file__).parent) + os.sep, str(Path(importlib.__file__).parent) + os.sep, "<frozen importlib")


class SourceError(Exception):
    """SOURCE is not what it has to be; the message says what is allowed and what was given."""


class Options(argparse.Namespace):
    """What was asked for on the command line."""

    source: str | None
    items: int | None
    max_prefetch: int
    consumer: float | None


class Report(NamedTuple):
    """Everything that was measured."""

    title: str
    max_prefetch: int
    first: Run
    alone: Run
    waits: Comparison
    computes: Comparison
    depth: int  # the max_prefetch that these times ask for
    tuned: Comparison | None = None  # the computing consumer again, with that and SWITCH_INTERVAL, if it gained little
    spare: bool = True  # whether a second thread got a processor of its own


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the report and return the exit status; argparse exits by itself with 2."""
    options = parse(argv)
    try:
        try:
            report = measure(options)
        finally:
            progress("")
        write("\n".join(render(report)))
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
        help="how long the consumer takes for an item (default: as long as the source)",
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


def find_source(text: str | None) -> tuple[str, Source]:
    """Return what to call the source and the source itself; raise `SourceError` if there is no such thing."""
    if text is None:
        folder = sysconfig.get_path("stdlib")
        return f"the standard library of Python {platform.python_version()}", lambda: files(folder)
    if text and Path(text).is_dir():  # Path("") is the current folder
        return f"the files of {text!r}", lambda: files(text)
    function = find_function(text)
    return repr(text), lambda: call(text, function)


def files(folder: str) -> Iterator[bytes]:
    """Read and compress the files of *folder* and of the folders in it, always in the same order.

    Files that cannot be read are left out, and so is what is no file, such as a pipe, which would block.
    """
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for path in [Path(parent, name) for name in sorted(names)]:
            try:
                if not path.is_file():
                    continue
                with path.open("rb", buffering=0) as file:
                    data = file.read(FILE_SIZE)
            except OSError:
                continue
            yield zlib.compress(data, 9)


def find_function(text: str) -> Callable[[], Iterable[object]]:
    """Import what *text* names, "package.module:callable"."""
    module_name, _, path = text.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *path.split(".")]):
        raise SourceError(f"SOURCE must be package.module:callable or a folder, got {text!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and misses another one
        raise SourceError(f"SOURCE must name a module that can be found, got {text!r}: {error}") from None
    try:
        found = operator.attrgetter(path)(module)
    except AttributeError as error:
        raise SourceError(f"SOURCE must name something in its module, got {text!r}: {error}") from None
    function: Callable[[], Iterable[object]] = found  # the user's word, until it is called
    if callable(found):
        return function
    raise SourceError(f"SOURCE must name something callable, got {text!r}: {type(found).__name__!r} object")


def call(text: str, function: Callable[[], Iterable[object]]) -> Iterator[object]:
    """Return a fresh iterator from the user's function."""
    try:
        result = function()
    except TypeError as error:
        if users_part(error):
            raise
        raise SourceError(f"SOURCE must be callable without arguments, got {text!r}: {error}") from None
    if isinstance(result, BackgroundGenerator):
        raise SourceError(
            f"SOURCE must not be in the background already, got {text!r}: if it is decorated with @background, "
            f"its plain function is {text + '.__wrapped__'!r}"
        )
    try:
        return iter(result)
    except TypeError as error:
        if users_part(error):
            raise
        raise SourceError(f"SOURCE must return an iterable, got {text!r}: {error}") from None


def users_part(error: BaseException) -> TracebackType | None:
    """Return where the traceback enters the user's code, or None if it never does."""
    part = error.__traceback__
    while part and part.tb_frame.f_code.co_filename.startswith(OURS):
        part = part.tb_next
    return part


def measure(options: Options) -> Report:
    """Run everything, each time over the same items, after a first pass that is not counted."""
    title, source = find_source(options.source)
    progress("first pass")
    budget = math.inf if options.items else BUDGET
    first = _measure.first_pass(source, options.items or ITEMS, options.consumer, budget)
    if not first.made:
        raise SourceError(f"SOURCE must give at least one item, got none from {title}")

    def run(step: str, consumer: Consumer, max_prefetch: int | None = None) -> Run:
        progress(step)
        run = _measure.run(source, len(first.made), consumer, max_prefetch)
        if not run.made:
            raise SourceError(f"SOURCE must give its items anew at every call, got none at a later one from {title}")
        return run

    alone = run("source alone", lambda: None)
    seconds = _measure.mean(alone.made) if options.consumer is None else options.consumer
    consumer = _measure.waiting(seconds)
    waits = Comparison(
        run("consumer waits, plain", consumer), run("consumer waits, background", consumer, options.max_prefetch)
    )
    consumer = _measure.computing(seconds)
    computes = Comparison(
        run("consumer computes, plain", consumer), run("consumer computes, background", consumer, options.max_prefetch)
    )
    depth = _measure.enough_depth(waits.plain, options.max_prefetch)
    report = Report(title, options.max_prefetch, first, alone, waits, computes, depth)
    if computes.gained >= ENOUGH:
        return report
    with _measure.switch_interval(SWITCH_INTERVAL):
        tuned = Comparison(computes.plain, run("consumer computes, tuned", consumer, depth))
    return report._replace(tuned=tuned, spare=_measure.spare_processor())


def progress(step: str) -> None:
    """Say on a terminal what is going on, or wipe that out with an empty *step*."""
    if sys.stderr and sys.stderr.isatty():
        print(f"\r{step:<40}\r", end="", file=sys.stderr, flush=True)


def render(report: Report) -> Iterator[str]:
    """Give the lines of the report."""
    yield f"source: {report.title}, {len(report.alone.made)} items, max_prefetch={report.max_prefetch}"
    yield f"first pass, not counted (files may not be in memory yet): {report.first.seconds:.3f} s"
    yield f"source alone: {report.alone.seconds:.3f} s, {_measure.mean(report.alone.made) * 1000:.3f} ms per item"
    yield ""
    rows = [("waits", report.waits), ("computes", report.computes)]
    if report.tuned:
        rows.append(("  tuned", report.tuned))
    yield from table(rows)
    if report.tuned:
        yield f"tuned: with max_prefetch={report.depth} and sys.setswitchinterval({SWITCH_INTERVAL})"
    yield ""
    yield from picture("consumer waits", report.waits)
    yield ""
    yield from picture("consumer computes", report.computes)
    yield ""
    yield f"advice: {advice(report)}"


def table(comparisons: Sequence[tuple[str, Comparison]]) -> Iterator[str]:
    """Give one line for each kind of consumer, under a head."""
    line = "{:<10}{:>12}{:>12}{:>12}{:>10}{:>7}{:>15}{:>15}"
    yield line.format(
        "consumer", "ms per item", "plain/s", "backgr./s", "speed-up", "best", "producer_wait", "consumer_wait"
    )
    for name, comparison in comparisons:
        plain, background = comparison.plain, comparison.background
        yield line.format(
            name,
            f"{_measure.mean(plain.used) * 1000:.3f}",
            f"{plain.rate:.1f}",
            f"{background.rate:.1f}",
            f"{comparison.speed_up:.2f}x",
            f"{comparison.best:.2f}x",
            f"{background.producer_wait:.3f} s",
            f"{background.consumer_wait:.3f} s",
        )


def picture(title: str, comparison: Comparison) -> Iterator[str]:
    """Draw who worked when, over the first items: a digit is the item, a dot is waiting."""
    runs = [("plain", comparison.plain), ("background", comparison.background)]
    column = max(run.used[:PICTURED][-1].end - run.start for _, run in runs) / WIDTH
    yield f"{title} (a digit: at work on that item; a dot: idle; a column: {column * 1000:.3f} ms)"
    for name, run in runs:
        yield f"  {name:<11}source    {draw(run.made, run.start, column)}"
        yield f"  {'':<11}consumer  {draw(run.used, run.start, column)}"


def draw(spans: Sequence[Span], start: float, column: float) -> str:
    """Draw the first *spans*, each at least one column wide."""
    cells = ["."] * WIDTH
    for number, span in enumerate(spans[:PICTURED], start=1):
        left = min(int((span.start - start) / column), WIDTH - 1)
        right = max(left + 1, min(round((span.end - start) / column), WIDTH))
        cells[left:right] = str(number) * (right - left)
    return "".join(cells)


def advice(report: Report) -> str:
    """Return in one sentence what to do about these times."""
    if report.waits.best < _measure.WORTH_IT:
        return "there is little to gain, because one side takes nearly all of the time"
    if report.depth != report.max_prefetch:
        head = f"raise max_prefetch to {report.depth}, because the times per item are uneven"
    elif report.waits.gained < ENOUGH:
        return "there is little gain, because an item is made too quickly: let the source give more at a time"
    else:
        head = f"max_prefetch={report.max_prefetch} is enough"
    if report.computes.gained >= ENOUGH:
        return head
    if report.tuned and report.tuned.gained >= ENOUGH / 2:
        rest = f"call sys.setswitchinterval({SWITCH_INTERVAL}), so that neither side waits long for the GIL"
    elif report.spare and has_gil():
        rest = "both sides hold the GIL: a thread cannot help here"
    else:
        rest = "both sides need the same processor: a thread cannot help here"
    return f"{head}; but if the consumer computes in Python, {rest}"


def has_gil() -> bool:
    """Tell whether only one thread at a time can run Python code."""
    enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return enabled()


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


def run_and_exit() -> NoReturn:
    """Run `main` and exit with its status."""
    status = main()
    if status == INTERRUPTED:
        # Not `sys.exit`: that would wait for a source that is stuck, and for the user's own threads.
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    run_and_exit()
