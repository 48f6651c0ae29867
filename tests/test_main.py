"""The main job, `python -m prefetch_generator`: what it measures, what it says, and how it ends."""

from __future__ import annotations

import errno
import io
import itertools
import os
import runpy
import subprocess
import sys
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

import prefetch_generator.__main__ as program
from prefetch_generator import BackgroundGenerator, Stats, _measure
from prefetch_generator._measure import Comparison, Run, Span

from .helpers import posix

WriteModule = Callable[[str], str]


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteModule]:
    """Write a module that can be imported, here and in a child started in `tmp_path`, and return its name."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(code: str) -> str:
        (tmp_path / "data_of_a_test.py").write_text(code, encoding="utf-8")
        return "data_of_a_test"

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("data_of_a_test"):
            del sys.modules[name]


def command(*arguments: str) -> list[str]:
    """Return the program as a user would start it, with every warning an error."""
    return [sys.executable, "-X", "dev", "-W", "error", "-m", "prefetch_generator", *arguments]


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program in *folder* until it ends."""
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )


def plain(made: Sequence[float], used: Sequence[float]) -> Run:
    """Return a plain loop with these seconds per item."""
    start = clock = 64.0
    spans: list[Span] = []
    for seconds in itertools.chain.from_iterable(zip(made, used, strict=True)):
        spans.append(Span(clock, clock + seconds))
        clock += seconds
    return Run(start, spans[::2], spans[1::2])


def compared(share: float, *, source: float = 1.0, consumer: float = 1.0) -> Comparison:
    """Return a comparison of ten items in which *share* of the possible gain was reached."""
    slow = plain([source] * 10, [consumer] * 10)
    best = _measure.best_speed_up(10, source, consumer)
    seconds = slow.seconds / (1 + share * (best - 1))
    return Comparison(slow, Run(0.0, slow.made, [*slow.used[:-1], Span(0.0, seconds)], 0.25, 0.5))


def reported(
    waits: float = 1.0, computes: float = 1.0, tuned: float = 0.0, *, depth: int = 2, spare: bool = True
) -> program.Report:
    """Return a report in which each comparison reached this share of the possible gain."""
    first = plain([1.0] * 10, [0.0] * 10)
    return program.Report(
        "'data:load'", 2, first, first, compared(waits), compared(computes), depth, compared(tuned), spare
    )


class Terminal(io.StringIO):
    """A terminal, which shows a line that has not ended only when it is told to."""

    shown = ""

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        self.shown = self.getvalue()


def ticks() -> Iterator[int]:
    """Count without an end."""
    yield from itertools.count()


def nothing() -> None:
    """Take an item and no time."""


# What is computed from the times.


@pytest.mark.parametrize(
    ("items", "source", "consumer", "best"),
    [(1, 1.0, 1.0, 1.0), (2, 1.0, 1.0, 4 / 3), (10, 1.0, 3.0, 40 / 31), (10, 3.0, 1.0, 40 / 31), (5, 0.0, 0.0, 1.0)],
)
def test_best_speed_up_is_the_whole_work_over_the_slower_side(
    items: int, source: float, consumer: float, best: float
) -> None:
    """The slower side does all its work, the other one adds one item; no work at all gains nothing."""
    assert _measure.best_speed_up(items, source, consumer) == pytest.approx(best)


@pytest.mark.parametrize(("source", "consumer"), [(1.0, 1.0), (1.0, 4.0), (4.0, 1.0)])
def test_best_speed_up_is_what_an_ideal_overlap_of_even_times_reaches(source: float, consumer: float) -> None:
    """For items that all take the same time, the formula and the step-by-step overlap agree."""
    run = plain([source] * 7, [consumer] * 7)
    assert run.seconds / _measure.overlapped(run, 1) == pytest.approx(_measure.best_speed_up(7, source, consumer))


@pytest.mark.parametrize(("depth", "seconds"), [(1, 23.0), (2, 19.0), (4, 17.0)])
def test_an_overlap_never_looks_further_ahead_than_its_depth(depth: int, seconds: float) -> None:
    """Three quick items before a long one help as far as the buffer has room for them."""
    run = plain([1.0, 1.0, 1.0, 10.0], [4.0, 4.0, 4.0, 4.0])
    assert _measure.overlapped(run, depth) == seconds


@pytest.mark.parametrize(
    ("made", "max_prefetch", "depth"),
    [([1.0] * 8, 2, 2), ([0.1] * 7 + [7.0], 1, 8), ([0.1] * 7 + [7.0], 0, 0), ([0.1] * 7 + [7.0], -1, -1)],
)
def test_a_deeper_buffer_is_asked_for_only_where_uneven_times_need_one(
    made: list[float], max_prefetch: int, depth: int
) -> None:
    """Even items need no more, uneven ones as much as lets the other side go on, and no bound is enough."""
    assert _measure.enough_depth(plain(made, [1.0] * 8), max_prefetch) == depth


def test_the_gained_share_is_zero_for_no_gain_and_one_for_the_best() -> None:
    """The measured speed-up is placed between none and the best possible."""
    assert compared(0.0).gained == pytest.approx(0.0)
    assert compared(1.0).gained == pytest.approx(1.0)


def test_the_gained_share_is_one_where_there_is_hardly_anything_to_gain() -> None:
    """A consumer that takes no time leaves nothing to complain about."""
    assert compared(0.0, consumer=0.01).gained == 1.0


def test_the_speed_up_compares_rates_and_not_totals() -> None:
    """A source that gave fewer items in the background has not become faster by that."""
    slow = plain([1.0] * 4, [1.0] * 4)
    half = plain([1.0] * 2, [1.0] * 2)
    assert Comparison(slow, half).speed_up == pytest.approx(1.0)


# The advice.


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (reported(), "max_prefetch=2 is enough"),
        (reported(depth=8), "raise max_prefetch to 8, because the times per item are uneven"),
        (
            reported(computes=0.0),
            (
                "max_prefetch=2 is enough; but if the consumer computes in Python, "
                "both sides hold the GIL: a thread cannot help here"
            ),
        ),
        (
            reported(computes=0.0, spare=False),
            (
                "max_prefetch=2 is enough; but if the consumer computes in Python, "
                "both sides need the same processor: a thread cannot help here"
            ),
        ),
        (
            reported(computes=0.0, tuned=0.3, depth=8),
            (
                "raise max_prefetch to 8, because the times per item are uneven; "
                "but if the consumer computes in Python, "
                "call sys.setswitchinterval(0.0001), so that neither side waits long for the GIL"
            ),
        ),
        (
            reported(waits=0.0),
            "there is little gain, because an item is made too quickly: let the source give more at a time",
        ),
        (
            reported()._replace(waits=compared(0.0, consumer=0.01)),
            "there is little to gain, because one side takes nearly all of the time",
        ),
    ],
)
def test_the_advice_follows_from_the_times(
    report: program.Report, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of result has its one sentence."""
    monkeypatch.setattr(program, "has_gil", lambda: True)
    assert program.advice(report) == sentence


def test_the_gil_is_not_blamed_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a free-threaded build two computing sides compete for something else."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert "the same processor" in program.advice(reported(computes=0.0))
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True)
    assert "the GIL" in program.advice(reported(computes=0.0))


def test_without_that_function_python_has_a_gil(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 3.13 there is no other build."""
    monkeypatch.delattr(sys, "_is_gil_enabled", raising=False)
    assert program.has_gil()


# The report.


def test_the_picture_shows_who_worked_when(monkeypatch: pytest.MonkeyPatch) -> None:
    """One scale for both loops; a digit names the item, a dot is waiting; only the first items are drawn."""
    monkeypatch.setattr(program, "WIDTH", 48)
    slow = plain([1.0] * 8, [1.0] * 8)
    fast = Run(0.0, [Span(i, i + 1.0) for i in range(8)], [Span(i + 1.0, i + 2.0) for i in range(8)])
    head, *lines = program.picture("waits", Comparison(slow, fast))
    assert head == "waits (a digit: at work on that item; a dot: idle; a column: 250.000 ms)"
    assert lines == [
        "  plain      source    1111....2222....3333....4444....5555....6666....",
        "             consumer  ....1111....2222....3333....4444....5555....6666",
        "  background source    111122223333444455556666........................",
        "             consumer  ....111122223333444455556666....................",
    ]


def test_the_picture_shows_even_the_shortest_work() -> None:
    """Each item takes at least one column, and none lies beyond the last."""
    drawn = program.draw([Span(8.0, 8.0), Span(8.5, 8.5), Span(9.0, 9.0)], 8.0, 1.0 / program.WIDTH)
    assert drawn[0] == "1"
    assert drawn[program.WIDTH // 2] == "2"
    assert drawn[-1] == "3"
    assert drawn.count(".") == program.WIDTH - 3
    assert len(drawn) == program.WIDTH


def test_the_table_has_rates_speed_ups_and_waits() -> None:
    """Items per second of both loops, what was gained and could be, and the waits of both sides."""
    _, line = program.table([("waits", compared(1.0))])
    assert line.split() == ["waits", "1000.000", "0.5", "0.9", "1.82x", "1.82x", "0.250", "s", "0.500", "s"]


def test_the_report_has_all_parts_in_order() -> None:
    """The source and its time, the table, the pictures, and what to do."""
    report = reported()._replace(tuned=None)
    assert list(program.render(report)) == [
        "source: 'data:load', 10 items, max_prefetch=2",
        "first pass, not counted (files may not be in memory yet): 10.000 s",
        "source alone: 10.000 s, 1000.000 ms per item",
        "",
        *program.table([("waits", report.waits), ("computes", report.computes)]),
        "",
        *program.picture("consumer waits", report.waits),
        "",
        *program.picture("consumer computes", report.computes),
        "",
        f"advice: {program.advice(report)}",
    ]


def test_the_report_names_the_second_setting_only_where_it_was_tried() -> None:
    """The tuned row and the line that explains it come and go together."""
    assert sum("tuned" in line for line in program.render(reported(computes=0.0))) == 2
    assert not any("tuned" in line for line in program.render(reported()._replace(tuned=None)))


def test_progress_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal sees the step and sees it wiped out; a file sees nothing."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    program.progress("one")
    assert terminal.shown == "\rone" + " " * 37 + "\r"
    program.progress("")
    assert terminal.shown == "\rone" + " " * 37 + "\r\r" + " " * 40 + "\r"

    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    program.progress("one")
    program.progress("")
    assert file.getvalue() == ""


def test_progress_is_wiped_out_before_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message starts on an empty line."""
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    assert program.main([str(tmp_path)]) == 2
    assert "\rfirst pass" in stream.getvalue()
    assert "\r" + " " * 40 + "\rpython -m prefetch_generator: error:" in stream.getvalue()


def test_every_step_is_announced(write_module: WriteModule, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, and with nothing left on the line at the end."""
    steps: list[str] = []
    monkeypatch.setattr(program, "progress", steps.append)
    name = write_module("def load():\n    yield from range(3)\n")
    assert program.main([f"{name}:load", "--items", "3"]) == 0
    assert steps[:3] == ["first pass", "source alone", "consumer waits, plain"]
    assert "consumer computes, background" in steps
    assert steps[-1] == ""


def test_no_standard_error_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under pythonw there is none."""
    monkeypatch.setattr(sys, "stderr", None)
    program.progress("one")


# What is measured.


def test_only_as_many_items_are_taken_as_asked_for() -> None:
    """A source without an end is asked for no item more, and closed."""
    source, made = ticks(), list[Span]()
    assert list(_measure.watched(source, 3, made)) == [0, 1, 2]
    assert len(made) == 3
    with pytest.raises(StopIteration):
        next(source)


def test_a_source_that_cannot_be_closed_need_not_be() -> None:
    """A plain iterator over a list has no close()."""
    assert list(_measure.watched(iter([1, 2]), 5, [])) == [1, 2]


def test_an_item_is_let_go_before_the_next_one_is_made() -> None:
    """What is measured is the user's memory too: one item at a time in a plain loop."""

    class Item:
        pass

    alive: weakref.WeakSet[Item] = weakref.WeakSet()

    def source() -> Iterator[Item]:
        for _ in range(3):
            assert not alive
            item = Item()
            alive.add(item)
            yield item
            del item

    made: list[Span] = []
    for item in _measure.watched(source(), 3, made):
        del item
    assert len(made) == 3


def test_the_first_pass_ends_with_the_time_but_not_before_three_items() -> None:
    """Without --items the budget decides, and the consumer's time counts as well."""
    assert len(_measure.first_pass(ticks, 50, None, 0.0).made) == 3
    assert len(_measure.first_pass(ticks, 50, 10.0, 99.0).made) == 10
    assert len(_measure.first_pass(ticks, 50, 10.0, float("inf")).made) == 50


@pytest.mark.parametrize("max_prefetch", [None, 1, 2, 0])
def test_both_loops_give_every_item_to_the_consumer(max_prefetch: int | None) -> None:
    """Plain or in the background, each item is made and used, in this order."""
    run = _measure.run(ticks, 20, nothing, max_prefetch)
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

    monkeypatch.setattr(_measure, "BackgroundGenerator", Measured)
    run = _measure.run(ticks, 3, nothing, 1)
    assert (run.producer_wait, run.consumer_wait) == (1.5, 2.5)
    assert closings == [_measure._GRACE]
    run = _measure.run(ticks, 3, nothing, None)
    assert (run.producer_wait, run.consumer_wait) == (0.0, 0.0)


def test_the_source_runs_on_another_thread_only_in_the_background() -> None:
    """What is compared is a plain loop on this thread and a source on its own."""
    seen: list[threading.Thread] = []

    def source() -> Iterator[int]:
        while True:
            seen.append(threading.current_thread())
            yield 0

    _measure.run(source, 2, nothing, None)
    assert set(seen) == {threading.current_thread()}
    seen.clear()
    _measure.run(source, 2, nothing, 2)
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

    for max_prefetch in (None, 2):
        closed.clear()
        with pytest.raises(KeyboardInterrupt) as caught:
            _measure.run(source, 5, interrupted, max_prefetch)
        assert closed.is_set()
        assert caught.type is KeyboardInterrupt  # it still holds the frames: the source was closed, not collected


def test_the_computing_consumer_counts_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does the same work however long it takes; a clock would let it off when the GIL is busy."""
    done: list[int] = []
    monkeypatch.setattr(_measure, "_iterations_per_second", lambda: 1000.0)
    monkeypatch.setattr(_measure, "_compute", done.append)
    consumer = _measure.computing(2.0)
    consumer()
    consumer()
    assert done == [2000, 2000]


def test_the_iterations_are_calibrated_by_the_quickest_of_some_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count grows until it can be timed; a try that was disturbed does not count."""
    times = iter([0.001, 0.001, 0.001, 0.5, 0.02, 0.7])
    monkeypatch.setattr(_measure, "_time", lambda work: next(times))
    assert _measure._iterations_per_second() == pytest.approx(4000 / 0.02)


def test_the_waiting_consumer_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits without computing, as for a GPU or a network."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    _measure.waiting(0.25)()
    assert slept == [0.25]


def test_the_switch_interval_is_put_back() -> None:
    """Whatever happens meanwhile."""
    before = sys.getswitchinterval()
    inside: list[float] = []

    def fail() -> None:
        with _measure.switch_interval(0.5):
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
    assert _measure._time(lambda: clock.append(clock.pop() + 2.0)) == 2.0


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
    monkeypatch.setattr(_measure, "_time", time_of)
    assert _measure.spare_processor() is spare
    once = timed[0][0]
    assert once > 1
    assert timed == [(once, 0)] * 3 + [(once, once)] * 3


@pytest.mark.parametrize(("enough", "tuned"), [(float("inf"), True), (float("-inf"), False)])
def test_a_computing_consumer_that_gained_little_is_tried_again(
    enough: float, tuned: bool, write_module: WriteModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the depth that the times ask for and a shorter switch interval; otherwise the time is saved."""
    monkeypatch.setattr(program, "ENOUGH", enough)
    monkeypatch.setattr(_measure, "spare_processor", lambda: False)
    name = write_module(
        "import sys, threading\n"
        "passes = []\n"
        "def load():\n"
        "    while True:\n"
        "        passes.append((round(sys.getswitchinterval(), 6), threading.current_thread().name))\n"
        "        yield 1\n"
    )
    report = program.measure(program.parse([f"{name}:load", "--items", "5", "--consumer", "0.001"]))
    assert bool(report.tuned) is tuned
    assert report.spare is not tuned
    interval, thread = sys.modules[name].passes[-1]
    assert thread != threading.current_thread().name
    assert (interval == program.SWITCH_INTERVAL) is tuned


@pytest.mark.parametrize(("options", "items"), [([], 3), (["--items", "5"], 5)])
def test_the_time_limits_the_items_only_where_their_number_was_not_given(
    options: list[str], items: int, write_module: WriteModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for a number of items gets it, however long it takes."""
    monkeypatch.setattr(program, "BUDGET", 0.0)
    name = write_module("import itertools\nload = itertools.count")
    report = program.measure(program.parse([f"{name}:load", *options]))
    assert len(report.first.made) == items


@pytest.mark.parametrize(("options", "expected"), [([], 0.125), (["--consumer", "0.5"], 0.5)])
def test_the_consumers_take_as_long_as_the_source_unless_told_otherwise(
    options: list[str], expected: float, write_module: WriteModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both of them get the mean time of an item, or what --consumer says."""
    seconds: list[float] = []

    def consumer(wanted: float) -> Callable[[], None]:
        seconds.append(wanted)
        return nothing

    monkeypatch.setattr(_measure, "waiting", consumer)
    monkeypatch.setattr(_measure, "computing", consumer)
    monkeypatch.setattr(_measure, "mean", lambda spans: 0.125)
    name = write_module("import itertools\nload = itertools.count")
    program.measure(program.parse([f"{name}:load", "--items", "5", *options]))
    assert seconds == [expected, expected]


def test_every_run_gets_a_fresh_source_and_the_same_items(write_module: WriteModule) -> None:
    """The function is called for each of the passes, and none takes more than the first one did."""
    name = write_module(
        "calls = []\n"
        "def load():\n"
        "    calls.append(taken := [])\n"
        "    for item in range(4 if len(calls) == 1 else 9):\n"
        "        taken.append(item)\n"
        "        yield item\n"
    )
    report = program.measure(program.parse([f"{name}:load", "--items", "7", "--consumer", "0"]))
    assert len(report.alone.used) == 4
    assert sys.modules[name].calls[1:] == [[0, 1, 2, 3]] * (len(sys.modules[name].calls) - 1)
    assert len(sys.modules[name].calls) >= 6


# SOURCE.


def test_the_files_of_a_folder_come_in_the_same_order_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sorted, a folder's own files before those of the folders in it, each read and compressed."""
    walk = os.walk

    def walk_backwards(top: str) -> Iterator[tuple[str, list[str], list[str]]]:
        for parent, folders, names in walk(top):
            folders.sort(reverse=True)
            yield parent, folders, sorted(names, reverse=True)

    monkeypatch.setattr(os, "walk", walk_backwards)
    for path in ["b", "a", "z/a", "c/b", "c/a"]:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(path, encoding="utf-8")
    contents = [zlib.decompress(item).decode() for item in program.files(str(tmp_path))]
    assert contents == ["a", "b", "c/a", "c/b", "z/a"]


def test_only_the_beginning_of_a_huge_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One item must not take the whole time."""
    monkeypatch.setattr(program, "FILE_SIZE", 3)
    (tmp_path / "a").write_bytes(b"12345")
    assert [zlib.decompress(item) for item in program.files(str(tmp_path))] == [b"123"]


def test_a_file_that_cannot_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file without permission is no reason to measure nothing."""
    really_open = Path.open

    def refuse(path: Path, mode: str, buffering: int = -1) -> object:
        if path.name == "a" and mode == "rb":
            raise PermissionError(errno.EACCES, "no")
        return really_open(path, mode, buffering)

    monkeypatch.setattr(Path, "open", refuse)
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    assert [zlib.decompress(item) for item in program.files(str(tmp_path))] == [b"b"]


@posix
def test_a_pipe_in_a_folder_does_not_block(tmp_path: Path) -> None:
    """Opening a named pipe would wait for somebody to write."""
    os.mkfifo(tmp_path / "pipe")
    assert list(program.files(str(tmp_path))) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nocolon", "SOURCE must be package.module:callable or a folder, got 'nocolon'"),
        ("", "SOURCE must be package.module:callable or a folder, got ''"),
        (":load", "SOURCE must be package.module:callable or a folder, got ':load'"),
        ("data:", "SOURCE must be package.module:callable or a folder, got 'data:'"),
        (".data:load", "SOURCE must be package.module:callable or a folder, got '.data:load'"),
        ("no_such_thing:load", "SOURCE must name a module that can be found, got 'no_such_thing:load': No module"),
        ("os.no_such_thing:load", "SOURCE must name a module that can be found, got 'os.no_such_thing:load': No"),
        ("data_of_a_test:missing", "SOURCE must name something in its module, got 'data_of_a_test:missing': module"),
        ("data_of_a_test:number", "SOURCE must name something callable, got 'data_of_a_test:number': 'int' object"),
        ("data_of_a_test:needy", "SOURCE must be callable without arguments, got 'data_of_a_test:needy': needy()"),
        ("builtins:range", "SOURCE must be callable without arguments, got 'builtins:range': range"),
        ("data_of_a_test:single", "SOURCE must return an iterable, got 'data_of_a_test:single': 'int' object is not"),
        ("data_of_a_test:empty", "SOURCE must give at least one item, got none from 'data_of_a_test:empty'"),
        ("data_of_a_test:ahead", "SOURCE must not be in the background already, got 'data_of_a_test:ahead': if"),
        ("data_of_a_test:once", "SOURCE must give its items anew at every call, got none at a later one from 'data"),
    ],
)
def test_a_wrong_source_is_one_clear_line_and_status_2(
    source: str, message: str, write_module: WriteModule, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback: the message says what is allowed and what was given."""
    write_module(
        "from prefetch_generator import background\n"
        "number = 3\n"
        "def needy(path): yield path\n"
        "def single(): return 3\n"
        "empty = list\n"
        "@background\n"
        "def ahead(): yield 1\n"
        "only = iter([1, 2, 3])\n"
        "def once(): return only\n"
    )
    assert program.main([source, "--items", "3"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"python -m prefetch_generator: error: {message}")
    assert output.err.count("\n") == 1


def test_the_function_behind_a_decorated_one_can_be_named(write_module: WriteModule) -> None:
    """What the message about @background advises works."""
    name = write_module("from prefetch_generator import background\n@background\ndef load(): yield 5\n")
    _, source = program.find_source(f"{name}:load.__wrapped__")
    assert list(source()) == [5]


def test_a_folder_without_files_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, and the folder is named."""
    assert program.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith(f"got none from the files of {str(tmp_path)!r}\n")


@pytest.mark.parametrize(
    ("code", "last"),
    [
        ("def load():\n    yield 1\n    raise OSError('the disk is gone')", "OSError: the disk is gone"),
        ("def load():\n    raise TypeError('my own mistake')", "TypeError: my own mistake"),
        (
            "class load:\n    def __iter__(self):\n        raise TypeError('my other mistake')",
            "TypeError: my other mistake",
        ),
        ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("import data_of_a_test.part", "ModuleNotFoundError: No module named 'data_of_a_test.part'"),
        ("def load():\n    yield 1\n    raise SystemExit(0)", "SystemExit: 0"),
        ("load = lambda: map(int, ['1', 'x'])", "ValueError: invalid literal for int()"),
    ],
)
def test_a_failure_in_the_source_is_a_traceback_and_status_1(
    code: str, last: str, write_module: WriteModule, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user sees the own line that failed; nothing may look like a result."""
    assert program.main([f"{write_module(code)}:load"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("Traceback (most recent call last):\n")
    assert output.err.splitlines()[-1].startswith(last)


def test_the_traceback_starts_in_the_users_code(write_module: WriteModule, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the source fails in the background; this program's own lines are no help."""
    name = write_module(
        "import threading\n"
        "def load():\n"
        "    yield 1\n"
        "    if threading.current_thread() is not threading.main_thread():\n"
        "        raise OSError('the disk is gone')\n"
        "    yield 2\n"
    )
    assert program.main([f"{name}:load", "--consumer", "0"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert f"{name}.py" in lines[1]
    assert not any("prefetch_generator" in line for line in lines)


# Arguments.


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--items", "0", "argument --items: must be an integer of at least 1, got '0'"),
        ("--items", "x", "argument --items: must be an integer of at least 1, got 'x'"),
        ("--max-prefetch", "1.5", "argument --max-prefetch: invalid int value: '1.5'"),
        ("--consumer", "3601", "argument --consumer: must be seconds from 0 to 3600, got '3601'"),
        ("--consumer", "-1", "argument --consumer: must be seconds from 0 to 3600, got '-1'"),
        ("--consumer", "nan", "argument --consumer: must be seconds from 0 to 3600, got 'nan'"),
        ("--consumer", "inf", "argument --consumer: must be seconds from 0 to 3600, got 'inf'"),
        ("--consumer", "x", "argument --consumer: must be seconds from 0 to 3600, got 'x'"),
    ],
)
def test_a_wrong_option_is_a_usage_error(
    option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, and what is allowed and what was given."""
    with pytest.raises(SystemExit) as caught:
        program.main([f"{option}={value}"])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_the_options_have_defaults() -> None:
    """As little as possible has to be said."""
    options = program.parse([])
    assert (options.source, options.items, options.max_prefetch, options.consumer) == (None, None, 2, None)
    assert program.parse(["--consumer", "3600"]).consumer == 3600


# The whole program.


def test_without_a_source_the_standard_library_is_measured(tmp_path: Path) -> None:
    """The command of the README: a report, nothing on standard error, status 0."""
    done = start(tmp_path, "--items", "5")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("source: the standard library of Python 3.")
    assert lines[0].endswith(", 5 items, max_prefetch=2")
    assert "not counted" in lines[1]
    assert [line.split()[0] for line in lines[4:7]] == ["consumer", "waits", "computes"]
    assert lines[-1].startswith("advice: ")


def test_a_module_of_the_current_folder_is_found(tmp_path: Path, write_module: WriteModule) -> None:
    """SOURCE is imported as any script would import it; a source without an end is no problem."""
    name = write_module("import itertools\nload = itertools.count")
    done = start(tmp_path, f"{name}:load", "--items", "5", "--max-prefetch", "0", "--consumer", "0.001")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"source: '{name}:load', 5 items, max_prefetch=0\n")


def test_output_fits_any_encoding(tmp_path: Path) -> None:
    """A name that the encoding of standard output has no letters for is escaped."""
    (tmp_path / "d\u00e9j\u00e0").mkdir()
    (tmp_path / "d\u00e9j\u00e0" / "a").write_bytes(b"a")
    done = start(tmp_path, "d\u00e9j\u00e0", "--consumer", "0", PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"'d\xe9j\xe0'" in done.stdout


def test_a_reader_that_has_gone_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `python -m prefetch_generator | head`: nothing is raised, now or when the stream is closed."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        program.write("nobody reads this")


@posix
def test_a_closed_pipe_ends_the_program_quietly(tmp_path: Path) -> None:
    """Neither a traceback nor a complaint at interpreter exit."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command("--items", "1"), cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, timeout=30, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_disk_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a reader who has left may miss the report."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(OSError, match="no space left"):
        program.write("too much")


@posix
def test_closed_standard_streams_are_no_failure(tmp_path: Path) -> None:
    """As under a service manager that opens none of them."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command("--items", "1")], cwd=tmp_path, timeout=30, check=False
    )
    assert done.returncode == 0


@posix
@pytest.mark.parametrize("where", ["is", "is not"])
def test_ctrl_c_ends_the_program_at_once(where: str, tmp_path: Path, write_module: WriteModule) -> None:
    """Status 130 and nothing printed, though the source is stuck, here or in the background, and threads are left."""
    name = write_module(
        "import os, signal, threading, time\n"
        "def load():\n"
        "    yield 1\n"
        f"    if threading.current_thread() {where} threading.main_thread():\n"
        "        threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(60)\n"
        "    yield 2\n"
    )
    done = start(tmp_path, f"{name}:load", "--consumer", "0")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_an_interrupt_is_status_130(write_module: WriteModule, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a traceback."""
    name = write_module("def load():\n    raise KeyboardInterrupt")
    assert program.main([f"{name}:load"]) == 130
    assert capsys.readouterr() == ("", "")


def test_after_an_interrupt_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """`sys.exit` would wait for threads; every other status goes through it."""

    class LeftAtOnceError(Exception):
        pass

    def leave(status: int) -> NoReturn:
        raise LeftAtOnceError(status)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(program, "main", lambda: 130)
    with pytest.raises(LeftAtOnceError, match="130"):
        program.run_and_exit()
    monkeypatch.setattr(program, "main", lambda: 1)
    with pytest.raises(SystemExit, match="1"):
        program.run_and_exit()


def test_the_help_names_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m prefetch_generator --help` says how to call it."""
    monkeypatch.setattr(sys, "argv", ["prefetch_generator", "--help"])
    monkeypatch.delitem(sys.modules, "prefetch_generator.__main__")
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("prefetch_generator", run_name="__main__", alter_sys=True)
    assert capsys.readouterr().out.startswith("usage: python -m prefetch_generator ")


def test_in_process_a_report_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder is measured and described."""
    (tmp_path / "a").write_bytes(b"a" * 1000)
    assert program.main([str(tmp_path), "--consumer", "0"]) == 0
    assert capsys.readouterr().out.startswith(f"source: the files of {str(tmp_path)!r}, 1 items")


def test_in_process_the_default_is_the_standard_library() -> None:
    """Its files are there wherever Python is."""
    title, source = program.find_source(None)
    assert title.startswith("the standard library of Python 3.")
    assert isinstance(next(source()), bytes)
