"""Run a source alone, and then in every variant with every consumer, noting when each item is made and used."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Protocol, TypeAlias, runtime_checkable

from prefetch_generator import BackgroundGenerator, background
from prefetch_generator._command import consumers, machine
from prefetch_generator._command.consumers import Consumer
from prefetch_generator._command.find import Source, SourceError
from prefetch_generator._command.progress import Announce, Progress
from prefetch_generator._command.times import ENOUGH, Comparison, Measurement, Run, Span, enough_depth, idle, mean

Loop: TypeAlias = Callable[[Source, int, Consumer, int], Run]
Step: TypeAlias = Callable[[str, Loop, Consumer, int], Run]

ITEMS = 200  # taken unless the user asks for a number, or as many as fit into
BUDGET = 1.2  # seconds of one plain loop; the whole takes about six times as long
_GRACE = 0.2  # seconds that an interrupted source has for its `finally`


def measure(
    source: Source, items: int | None, seconds: float | None, max_prefetch: int, announce: Announce | None = None
) -> Measurement:
    """Run everything over the same items, after a first pass that is not counted.

    *seconds* is what the consumers take for an item, None for as long as the source takes.
    """
    progress = Progress(announce, steps(), seconds, items)
    first = first_pass(source, items or ITEMS, seconds, math.inf if items else BUDGET, progress.of_first_pass)
    if not first.made:
        raise SourceError(f"SOURCE must give at least one item, got none from {source.title}")
    progress.items = len(first.made)

    def run(step: str, loop: Loop, consumer: Consumer, depth: int) -> Run:
        done = loop(source, len(first.made), progress.watched(step, consumer), depth)
        if not done.made:
            raise SourceError(f"SOURCE must give its items at every call, got none at a later call from {source.title}")
        return done

    def compare(name: str, consumer: Consumer) -> Comparison:
        loops = {"plain": plain_loop, **VARIANTS}
        runs = {way: run(f"consumer {name}, {way}", loop, consumer, max_prefetch) for way, loop in loops.items()}
        return Comparison(name, runs.pop("plain"), runs)

    alone = run("source alone", plain_loop, consumers.nothing, max_prefetch)
    seconds = mean(alone.made) if seconds is None else seconds
    waits = compare("waits", waiting := consumers.waiting(seconds))
    computes = compare("computes", computing := consumers.computing(seconds))
    depth = enough_depth(waits.plain, max_prefetch)
    measured = Measurement(source.title, max_prefetch, first, alone, waits, computes, depth)
    return _tuned(_with_process(measured, source, waiting, computing, run), computing, run)


def steps() -> list[str]:
    """Return all there may be to run, in order. The last three are for those that gain little from a thread."""
    compared = [f"consumer {does}, {way}" for does in ("waits", "computes") for way in ("plain", *VARIANTS)]
    tried = ["consumer waits, process", "consumer computes, process", "consumer computes, tuned"]
    return ["first pass", "source alone", *compared, *tried]


def _with_process(
    measured: Measurement, source: Source, waiting: Consumer, computing: Consumer, run: Step
) -> Measurement:
    """Try a process too where the thread gained little, with the depth that the times ask for, or say why not."""

    def beside(compared: Comparison, consumer: Consumer) -> Comparison:
        if compared.gained() >= ENOUGH:
            return compared
        process = run(f"consumer {compared.consumer}, process", process_loop, consumer, measured.depth)
        return compared._replace(others={**compared.others, "process": process})

    waits, computes = measured.waits, measured.computes
    if min(waits.gained(), computes.gained()) >= ENOUGH:
        return measured
    try:
        try_process(source)
        return measured._replace(waits=beside(waits, waiting), computes=beside(computes, computing))
    except KeyboardInterrupt:
        raise
    # Whatever else it is, a SystemExit of the source too: what was measured so far is no worse for it.
    except BaseException as error:
        return measured._replace(no_process=" ".join(f"{type(error).__name__}: {error}".split()))


def _tuned(measured: Measurement, computing: Consumer, run: Step) -> Measurement:
    """Try other settings, and look at the machine, if a computing consumer gained little from the thread."""
    if measured.computes.gained() >= ENOUGH:
        return measured
    with machine.switch_interval(machine.SWITCH_INTERVAL):
        again = run("consumer computes, tuned", background_loop, computing, measured.depth)
    tuned = Comparison("tuned", measured.computes.plain, {"background": again})
    return measured._replace(tuned=tuned, spare=machine.spare_processor(), gil=machine.has_gil())


def first_pass(
    source: Source, items: int, consumer: float | None, budget: float, tell: Callable[[int, float], None]
) -> Run:
    """Take up to *items*, and no more than fit into *budget* seconds with the consumer's time added.

    Three items are taken however long they are: fewer show no overlap. *tell* gets how many were made so far, and the
    seconds they took.
    """
    made: list[Span] = []
    tell(0, 0.0)
    start = time.perf_counter()
    with contextlib.closing(watched(source.begin(), items, made)) as stream:
        for _ in stream:
            spent = time.perf_counter() - start
            wanted = spent if consumer is None else consumer * len(made)
            tell(len(made), spent)
            if len(made) >= 3 and spent + wanted > budget:
                break
    return Run(start, made, made)


def plain_loop(source: Source, items: int, consumer: Consumer, max_prefetch: int) -> Run:  # noqa: ARG001 - a `Loop`
    """Make and use *items* in turn, on this thread."""
    made: list[Span] = []
    stream = watched(source.begin(), items, made)
    start = time.perf_counter()
    with contextlib.closing(stream):
        return Run(start, made, _consume(stream, consumer))


def background_loop(source: Source, items: int, consumer: Consumer, max_prefetch: int) -> Run:
    """Make *items* on a worker thread and use them on this one."""
    made: list[Span] = []
    stream = watched(source.begin(), items, made)
    start = time.perf_counter()
    ahead = BackgroundGenerator(stream, max_prefetch)
    with _closing_soon(ahead):
        used = _consume(ahead, consumer)
        stats = ahead.stats
    return Run(start, made, used, stats.producer_wait, stats.consumer_wait)


def process_loop(source: Source, items: int, consumer: Consumer, max_prefetch: int) -> Run:
    """Make *items* in a process of its own and use them here. It counts from the source's first step on."""
    made: list[Span] = []
    called = time.perf_counter()
    ahead = background(max_prefetch=max_prefetch, process=True)(measured_source)(source.begin, items)
    with _closing_soon(ahead):
        used = _consume(_received(ahead, made), consumer)
    start = made[0].start if made else called
    # Not `stats`: there the start counts as waiting, and nobody here sees the process wait for room, or send.
    return Run(start, made, used, idle(start, made), idle(start, used), start - called)


def try_process(source: Source) -> None:
    """Take one item from the user's own function in a process, as `@background` does, or raise what that raises."""
    # What `process_loop` runs would be no proof: it goes by name where `@background` may have to pickle the function,
    # and an error would name what is sent there instead of the user's item.
    ahead = background(process=True)(source.function)()
    with _closing_soon(ahead):
        next(ahead, None)
        ahead.close()  # it is not to run beside what is measured next


def measured_source(begin: Callable[[], Iterator[object]], items: int) -> Generator[tuple[object, Span], None, None]:
    """Give the first *items* of a source in a process, each with when it was being made there."""
    made: list[Span] = []
    with contextlib.closing(watched(begin(), items, made)) as stream:
        for item in stream:
            yield item, made.pop()
            del item


def _received(stream: Iterable[tuple[object, Span]], made: list[Span]) -> Iterator[object]:
    # The clock is the system's, the same in every process.
    for item, span in stream:
        made.append(span)
        yield item
        del item


@contextlib.contextmanager
def _closing_soon(ahead: BackgroundGenerator[object]) -> Iterator[None]:
    try:
        yield
    finally:
        # Not `with ahead`: after Ctrl-C that would wait five seconds for a source that is stuck, and warn.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            ahead.close(_GRACE)


VARIANTS: dict[str, Loop] = {"background": background_loop}  # each is compared with the plain loop


@runtime_checkable
class _Closable(Protocol):
    def close(self) -> object: ...


def watched(source: Iterator[object], items: int, made: list[Span]) -> Generator[object, None, None]:
    """Give the first *items* of *source*, noting in *made* when each was being made; then close it."""
    try:
        for _ in range(items):
            start = time.perf_counter()
            try:
                item = next(source)
            except StopIteration:
                return
            made.append(Span(start, time.perf_counter()))
            yield item
            del item
    finally:
        if isinstance(source, _Closable):
            source.close()


def _consume(stream: Iterable[object], consumer: Consumer) -> list[Span]:
    used: list[Span] = []
    for _ in stream:
        start = time.perf_counter()
        consumer()
        used.append(Span(start, time.perf_counter()))
    return used
