"""Run a source alone, and then in every variant with every consumer, noting when each item is made and used."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Protocol, TypeAlias, runtime_checkable

from prefetch_generator import BackgroundGenerator
from prefetch_generator._command import consumers, machine
from prefetch_generator._command.consumers import Consumer
from prefetch_generator._command.find import Source, SourceError
from prefetch_generator._command.times import ENOUGH, Comparison, Measurement, Run, Span, enough_depth, mean

Loop: TypeAlias = Callable[[Source, int, Consumer, int], Run]

ITEMS = 200  # taken unless the user asks for a number, or as many as fit into
BUDGET = 1.2  # seconds of one plain loop; the whole takes about six times as long
_GRACE = 0.2  # seconds that an interrupted source has for its `finally`


def measure(
    source: Source, items: int | None, seconds: float | None, max_prefetch: int, announce: Callable[[str], None]
) -> Measurement:
    """Run everything over the same items, after a first pass that is not counted.

    *seconds* is what the consumers take for an item, None for as long as the source takes.
    """
    announce("first pass")
    first = first_pass(source, items or ITEMS, seconds, math.inf if items else BUDGET)
    if not first.made:
        raise SourceError(f"SOURCE must give at least one item, got none from {source.title}")

    def run(step: str, loop: Loop, consumer: Consumer, depth: int = max_prefetch) -> Run:
        announce(step)
        done = loop(source, len(first.made), consumer, depth)
        if not done.made:
            raise SourceError(f"SOURCE must give its items at every call, got none at a later call from {source.title}")
        return done

    def compare(name: str, consumer: Consumer) -> Comparison:
        plain = run(f"consumer {name}, plain", plain_loop, consumer)
        others = {variant: run(f"consumer {name}, {variant}", loop, consumer) for variant, loop in VARIANTS.items()}
        return Comparison(name, plain, others)

    alone = run("source alone", plain_loop, consumers.nothing)
    waits = compare("waits", consumers.waiting(seconds := mean(alone.made) if seconds is None else seconds))
    computes = compare("computes", computing := consumers.computing(seconds))
    depth = enough_depth(waits.plain, max_prefetch)
    measured = Measurement(source.title, max_prefetch, first, alone, waits, computes, depth)
    if computes.gained() >= ENOUGH:
        return measured
    with machine.switch_interval(machine.SWITCH_INTERVAL):
        again = {"background": run("consumer computes, tuned", background_loop, computing, depth)}
    tuned = Comparison("tuned", computes.plain, again)
    return measured._replace(tuned=tuned, spare=machine.spare_processor(), gil=machine.has_gil())


def first_pass(source: Source, items: int, consumer: float | None, budget: float) -> Run:
    """Take up to *items*, and no more than fit into *budget* seconds with the consumer's time added.

    Three items are taken however long they are: fewer show no overlap.
    """
    made: list[Span] = []
    start = time.perf_counter()
    with contextlib.closing(watched(source.begin(), items, made)) as stream:
        for _ in stream:
            spent = time.perf_counter() - start
            wanted = spent if consumer is None else consumer * len(made)
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
    background = BackgroundGenerator(stream, max_prefetch)
    try:
        used = _consume(background, consumer)
        stats = background.stats
    finally:
        # Not `with`: after Ctrl-C that would wait five seconds for a source that is stuck, and warn.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            background.close(_GRACE)
    return Run(start, made, used, stats.producer_wait, stats.consumer_wait)


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
