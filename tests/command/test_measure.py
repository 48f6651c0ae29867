"""What is measured: every variant and every consumer, over the same items of a fresh source."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import sys
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from prefetch_generator import BackgroundGenerator, Stats
from prefetch_generator._command import consumers, machine, measure
from prefetch_generator._command.consumers import nothing
from prefetch_generator._command.find import Source, SourceError, find_source
from prefetch_generator._command.measure import background_loop, first_pass, plain_loop, process_loop, watched
from prefetch_generator._command.times import Measurement, Run, Span, idle

from . import invented
from .invented import WriteModule


def ticks() -> Iterator[int]:
    """Count without an end."""
    yield from itertools.count()


TICKS = Source("ticks", ticks, ticks)
LOOPS = [plain_loop, process_loop, *measure.VARIANTS.values()]


def measured(begin: Callable[[], Iterator[object]], items: int | None = 5, seconds: float | None = 0.0) -> Measurement:
    """Measure a source and say nothing meanwhile, on a machine that has been looked at, and with no real process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "spare_processor", lambda: False)  # takes its time
        patch.setattr(measure, "process_loop", plain_loop)  # is started by the tests of it alone, for the same reason
        patch.setattr(measure, "try_process", lambda source: None)
        return measure.measure(Source("'data:load'", begin, begin), items, seconds, 2)


def test_only_as_many_items_are_taken_as_asked_for() -> None:
    """A source without an end is asked for no item more, and closed."""
    source, made = ticks(), list[Span]()
    assert list(watched(source, 3, made)) == [0, 1, 2]
    assert len(made) == 3
    with pytest.raises(StopIteration):
        next(source)


def test_a_source_that_cannot_be_closed_need_not_be() -> None:
    """A plain iterator over a list has no close()."""
    assert list(watched(iter([1, 2]), 5, [])) == [1, 2]


class Item:
    """Something large."""


def one_at_a_time() -> Iterator[Item]:
    """Give three items, and see that each has been let go before the next."""
    alive: weakref.WeakSet[Item] = weakref.WeakSet()
    for _ in range(3):
        assert not alive
        item = Item()
        alive.add(item)
        yield item
        del item


def test_an_item_is_let_go_before_the_next_one_is_made() -> None:
    """What is measured is the user's memory too: one item at a time in a plain loop."""
    made: list[Span] = []
    for item in watched(one_at_a_time(), 3, made):
        del item
    assert len(made) == 3


def test_the_first_pass_ends_with_the_time_but_not_before_three_items() -> None:
    """Without --items the budget decides, and the consumer's time counts as well."""
    told: list[tuple[int, float]] = []

    def tell(made: int, spent: float) -> None:
        told.append((made, spent))

    assert len(first_pass(TICKS, 50, 10.0, 99.0, tell).made) == 10
    assert len(first_pass(TICKS, 50, 10.0, math.inf, tell).made) == 50
    told.clear()
    assert len(first_pass(TICKS, 50, None, 0.0, tell).made) == 3
    assert [made for made, _ in told] == [0, 1, 2, 3]
    assert told == sorted(told)
    assert told[0][1] == 0.0 < told[1][1]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("max_prefetch", [1, 2, 0])
def test_every_loop_gives_every_item_to_the_consumer(loop: measure.Loop, max_prefetch: int) -> None:
    """Plain or in the background, on a thread or in a process, each item is made and used, in this order."""
    run = loop(TICKS, 20, nothing, max_prefetch)
    assert len(run.made) == len(run.used) == 20
    assert all(made.end <= used.start for made, used in zip(run.made, run.used, strict=True))
    assert run.seconds > 0


def test_the_waits_are_those_of_the_background_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read from its statistics, and a plain loop has none; closing it takes no longer than a moment."""
    closings: list[float | None] = []

    class Measured(BackgroundGenerator[object]):
        def close(self, timeout: float | None = 5.0) -> bool:
            closings.append(timeout)
            return super().close(timeout)

        @property
        def stats(self) -> Stats:
            return super().stats._replace(producer_wait=1.5, consumer_wait=2.5)

    monkeypatch.setattr(measure, "BackgroundGenerator", Measured)
    run = background_loop(TICKS, 3, nothing, 1)
    assert (run.producer_wait, run.consumer_wait) == (1.5, 2.5)
    assert closings == [measure._GRACE]
    run = plain_loop(TICKS, 3, nothing, 1)
    assert (run.producer_wait, run.consumer_wait) == (0.0, 0.0)


def test_the_source_runs_on_another_thread_only_in_the_background() -> None:
    """What is compared is a plain loop on this thread and a source on its own."""
    seen: list[threading.Thread] = []

    def source() -> Iterator[int]:
        while True:
            seen.append(threading.current_thread())
            yield 0

    plain_loop(Source("", source, source), 2, nothing, 2)
    assert set(seen) == {threading.current_thread()}
    seen.clear()
    background_loop(Source("", source, source), 2, nothing, 2)
    assert threading.current_thread() not in seen


def test_an_interrupt_in_the_consumer_still_closes_the_source() -> None:
    """A source that sits at a `yield` runs its `finally` after Ctrl-C."""
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    def interrupted() -> NoReturn:
        raise KeyboardInterrupt

    for loop in (plain_loop, background_loop):
        closed.clear()
        with pytest.raises(KeyboardInterrupt) as caught:
            loop(Source("", source, source), 5, interrupted, 2)
        assert closed.is_set()
        assert caught.type is KeyboardInterrupt  # it still holds the frames: the source was closed, not collected


def test_the_computing_consumer_counts_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does the same work however long it takes; a clock would let it off when the GIL is busy."""
    done: list[int] = []
    monkeypatch.setattr(consumers, "_iterations_per_second", lambda: 1000.0)
    monkeypatch.setattr(consumers, "_compute", done.append)
    consumer = consumers.computing(2.0)
    consumer()
    consumer()
    assert done == [2000, 2000]


def test_the_waiting_consumer_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits without computing, as for a GPU or a network."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    consumers.waiting(0.25)()
    assert slept == [0.25]


def test_the_iterations_are_calibrated_by_the_quickest_of_some_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count grows until it can be timed; a try that was disturbed does not count."""
    times = iter([0.001, 0.001, 0.001, 0.5, 0.02, 0.7])
    monkeypatch.setattr(machine, "seconds_of", lambda work: next(times))
    assert consumers._iterations_per_second() == pytest.approx(4000 / 0.02)


def test_the_switch_interval_is_put_back() -> None:
    """Whatever happens meanwhile."""
    before = sys.getswitchinterval()
    inside: list[float] = []

    def fail() -> None:
        with machine.switch_interval(0.5):
            inside.append(sys.getswitchinterval())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert inside == [pytest.approx(0.5)]
    assert sys.getswitchinterval() == pytest.approx(before)


def test_a_time_is_the_time_of_the_work_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """From just before it to just after it."""
    clock = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    assert machine.seconds_of(lambda: clock.append(clock.pop() + 2.0)) == 2.0


@pytest.mark.parametrize(("together", "spare"), [(1.1, True), (1.5, False), (2.0, False)])
def test_a_processor_is_spare_if_two_threads_are_as_quick_as_one(
    together: float, spare: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same work on a second thread must not take twice the time; each is timed as often as the other."""
    here = threading.get_ident()
    calls: list[bool] = []  # of each, whether it came from here
    timed: list[tuple[int, int]] = []  # of each piece of work, how many calls came from here, and from elsewhere
    last = threading.Event()  # never set: waiting for it gives a caller who does not join time to be caught

    def crc32(block: bytes) -> int:
        assert len(block) > 1 << 20  # so that the call lets go of the GIL, for long enough to count
        if threading.get_ident() != here:
            last.wait(0.01)
        calls.append(threading.get_ident() == here)
        return 0

    def time_of(work: Callable[[], None]) -> float:
        calls.clear()
        work()
        timed.append((calls.count(True), calls.count(False)))
        return 1.0 if timed[-1][1] == 0 else together

    monkeypatch.setattr(zlib, "crc32", crc32)
    monkeypatch.setattr(machine, "seconds_of", time_of)
    assert machine.spare_processor() is spare
    once = timed[0][0]
    assert once > 1
    assert timed == [(once, 0)] * 3 + [(once, once)] * 3


def test_has_gil_asks_python_and_there_is_one_before_it_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 3.13 there is no other build."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert not machine.has_gil()
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True)
    assert machine.has_gil()
    monkeypatch.delattr(sys, "_is_gil_enabled")
    assert machine.has_gil()


@pytest.mark.parametrize(("enough", "tuned"), [(math.inf, True), (-math.inf, False)])
def test_a_computing_consumer_that_gained_little_is_tried_again(
    enough: float, tuned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the depth that the times ask for and a shorter switch interval; otherwise the time is saved."""
    monkeypatch.setattr(measure, "ENOUGH", enough)
    monkeypatch.setattr(measure, "enough_depth", lambda run, max_prefetch: 7)
    monkeypatch.setattr(machine, "has_gil", lambda: False)
    depths: list[int] = []
    passes: list[tuple[float, threading.Thread]] = []

    class Deep(BackgroundGenerator[object]):
        def __init__(self, source: Iterator[object], max_prefetch: int) -> None:
            depths.append(max_prefetch)
            super().__init__(source, max_prefetch)

    def load() -> Iterator[int]:
        while True:
            passes.append((round(sys.getswitchinterval(), 6), threading.current_thread()))
            yield 1

    monkeypatch.setattr(measure, "BackgroundGenerator", Deep)
    result = measured(load, seconds=0.001)
    assert bool(result.tuned) is tuned
    assert (result.spare, result.gil) == (not tuned, not tuned)
    assert (depths[-1] == result.depth == 7) is tuned
    interval, thread = passes[-1]
    assert thread is not threading.current_thread()
    assert (interval == machine.SWITCH_INTERVAL) is tuned


@pytest.mark.parametrize(
    ("waits", "computes", "tried"),
    [(0.6, 0.6, []), (0.6, 0.4, ["computes"]), (0.4, 0.6, ["waits"]), (0.4, 0.4, ["waits", "computes"])],
)
def test_a_process_is_tried_wherever_the_thread_gained_less_than_half(
    waits: float, computes: float, tried: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the depth that the times ask for; nothing is started if nobody needs it."""
    measurement, started = invented.measured(waits, computes, depth=8), list[Source]()
    monkeypatch.setattr(measure, "try_process", started.append)
    runs: list[tuple[str, measure.Loop, consumers.Consumer, int]] = []

    def run(*step: Any) -> Run:
        runs.append(step)
        return measurement.alone

    two = {"waits": consumers.waiting(1.0), "computes": nothing}
    result = measure._with_process(measurement, TICKS, two["waits"], two["computes"], run)
    assert runs == [(f"consumer {name}, process", process_loop, two[name], 8) for name in tried]
    assert [one.consumer for one in (result.waits, result.computes) if "process" in one.others] == tried
    assert result.no_process == ""
    assert started == [TICKS] * bool(tried)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(TypeError("it cannot\n be sent"), "TypeError: it cannot be sent"), (SystemExit(3), "SystemExit: 3")],
)
def test_why_a_process_could_not_be_tried_is_told(
    failure: BaseException, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line; what was measured before still counts. After Ctrl-C nothing does."""

    def fail(source: Source) -> NoReturn:
        raise failure

    monkeypatch.setattr(measure, "try_process", fail)
    before = invented.measured(0.0)
    assert measure._with_process(before, TICKS, nothing, nothing, lambda *step: before.alone) == before._replace(
        no_process=reason
    )
    failure = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        measure._with_process(before, TICKS, nothing, nothing, lambda *step: before.alone)


def test_a_process_is_measured_from_its_first_step_on() -> None:
    """Its times are its own, by the same clock; how long it took to start is told apart."""
    called = time.perf_counter()
    run = process_loop(TICKS, 5, nothing, 2)
    assert run.start == run.made[0].start
    assert called < run.start - run.startup < run.start
    assert run.producer_wait == idle(run.start, run.made)
    assert run.consumer_wait == idle(run.start, run.used)
    assert all(ended <= begun for (_, ended), (begun, _) in itertools.pairwise(run.made))
    assert run.startup > run.made[0].end - run.made[0].start


@pytest.mark.parametrize("method", sorted({"spawn", "forkserver"} & {*multiprocessing.get_all_start_methods()}))
@pytest.mark.parametrize("source", [None, ".", "data_of_a_test:load.__wrapped__"])
def test_every_kind_of_source_runs_in_a_process(
    source: str | None, method: str, tmp_path: Path, write_module: WriteModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default, a folder, and a function, which is found there by its name; not here, and as @background does it."""
    write_module(
        "import os\n"
        "from prefetch_generator import background\n"
        "@background\n"
        "def load():\n"
        f"    assert os.getpid() != {os.getpid()}\n"
        "    yield from range(5)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: method)
    found = find_source(source)
    measure.try_process(found)
    run = process_loop(found, 3, nothing, 2)
    assert len(run.made) == len(run.used) == (1 if source == "." else 3)


def test_what_cannot_be_sent_is_the_users_own() -> None:
    """The message names the user's function, or the user's item, and nothing that is sent in its place."""

    class Unsendable:
        def __reduce__(self) -> NoReturn:
            raise ValueError("not this one")

        def __call__(self) -> Iterator[object]:
            return ticks()

    source = Source("", ticks, Unsendable())
    with pytest.raises(TypeError, match=r"^function of Unsendable\(\) cannot be sent to another process"):
        measure.try_process(source)
    with pytest.raises(TypeError, match=r"an item of the source cannot be sent from its process, got <.*lock'>"):
        measure.try_process(Source("", locks, locks))


def locks() -> Iterator[object]:
    """Give what cannot be pickled."""
    while True:
        yield threading.Lock()


def test_in_a_process_an_item_is_let_go_before_the_next_one_is_made() -> None:
    """As anywhere else, on both sides of it."""
    there = measure.measured_source(one_at_a_time, 3)
    made: list[Span] = []
    for item in measure._received(there, made):
        del item
    assert len(made) == 3


@pytest.mark.parametrize(("asked", "items"), [(None, 3), (5, 5)])
def test_the_time_limits_the_items_only_where_their_number_was_not_given(
    asked: int | None, items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--help: whoever asks for a number of items gets it, however long it takes."""
    monkeypatch.setattr(measure, "BUDGET", 0.0)
    assert len(measured(ticks, asked).first.made) == items


@pytest.mark.parametrize(("asked", "expected"), [(None, 0.125), (0.5, 0.5), (0.0, 0.0)])
def test_the_consumers_take_as_long_as_the_source_unless_told_otherwise(
    asked: float | None, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--help: both of them get the mean time of an item, or what --consumer says."""
    seconds: list[float] = []

    def consumer(wanted: float) -> Callable[[], None]:
        seconds.append(wanted)
        return nothing

    monkeypatch.setattr(consumers, "waiting", consumer)
    monkeypatch.setattr(consumers, "computing", consumer)
    monkeypatch.setattr(measure, "mean", lambda spans: 0.125)
    measured(ticks, seconds=asked)
    assert seconds == [expected, expected]


def test_every_run_gets_a_fresh_source_and_the_same_items() -> None:
    """The source is begun for each of the passes, and none takes more than the first one did."""
    calls: list[list[int]] = []

    def load() -> Iterator[int]:
        calls.append(taken := [])
        for item in range(4 if len(calls) == 1 else 9):
            taken.append(item)
            yield item

    result = measured(load, 7)
    assert len(result.alone.used) == 4
    assert calls[1:] == [[0, 1, 2, 3]] * (len(calls) - 1)
    assert len(calls) >= 6


def test_a_source_without_items_cannot_be_measured() -> None:
    """Neither at first nor later: the message says which, and names the source."""
    with pytest.raises(SourceError, match=r"^SOURCE must give at least one item, got none from 'data:load'$"):
        measured(lambda: iter([]))
    only = iter([1, 2, 3])
    with pytest.raises(SourceError, match=r"^SOURCE must give its items at every call, got none .* from 'data:load'$"):
        measured(lambda: only)


def test_every_step_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, each variant by its name."""
    monkeypatch.setattr(measure, "ENOUGH", math.inf)
    monkeypatch.setitem(measure.VARIANTS, "further", plain_loop)
    monkeypatch.setattr(measure, "process_loop", plain_loop)
    monkeypatch.setattr(measure, "try_process", lambda source: None)
    monkeypatch.setattr(measure, "ITEMS", 3)
    told: list[tuple[str, float | None]] = []
    result = measure.measure(TICKS, None, 0.0, 2, lambda step, left: told.append((step, left)))
    assert list(dict.fromkeys(step for step, _ in told)) == [
        "first pass",
        "source alone",
        *[f"consumer {does}, {how}" for does in ("waits", "computes") for how in ("plain", "background", "further")],
        "consumer waits, process",
        "consumer computes, process",
        "consumer computes, tuned",
    ]
    assert [*result.waits.others] == [*result.computes.others] == ["background", "further", "process"]
    assert told[0] == ("first pass", None)
    assert told[-1] == ("consumer computes, tuned", 0.0)
