"""Contract, section C, sentence 2: how long `close()` waits, and what it warns of."""

from __future__ import annotations

import inspect
import itertools
import re
import signal
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from prefetch_generator import (
    BackgroundGenerator,
    StopEvent,
)
from prefetch_generator._bell import ThreadBell
from tests.helpers import LONG, ended, in_thread, python, when_asleep

from .support import (
    Stuck,
    Touchy,
    run_program,
)


class Impatient(StopEvent):
    """Whose time is always up."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(min(timeout or 0, 0))


# C2


def test_close_waits_at_most_timeout_seconds(stuck: Stuck) -> None:
    """C2: it waits at most `timeout` seconds; a worker that is still in the source then stops by itself."""
    numbers = BackgroundGenerator(stuck.items())
    assert stuck.inside.wait(LONG)
    started = time.monotonic()
    with pytest.warns(RuntimeWarning, match=r"did not stop within 0\.2 seconds"):
        assert numbers.close(0.2) is False
    assert 0.2 <= time.monotonic() - started < 4
    with pytest.warns(RuntimeWarning, match="did not stop within 0 seconds"):
        assert numbers.close(0) is False
    assert stuck.closed.empty()
    stuck.go.set()
    assert ended(stuck.closed)
    assert numbers.close(0) is True


def test_close_waits_five_seconds_unless_told_otherwise() -> None:
    """C2: the default is 5 seconds."""
    assert inspect.signature(BackgroundGenerator.close).parameters["timeout"].default == 5.0


def test_close_with_none_waits_as_long_as_it_takes(stuck: Stuck) -> None:
    """C2: with None it waits until the source comes back."""
    asleep = threading.Event()
    numbers = BackgroundGenerator(stuck.items())
    assert stuck.inside.wait(LONG)

    def close() -> bool:
        with when_asleep(asleep.set):
            return numbers.close(None)

    closing = in_thread(close)
    assert asleep.wait(LONG)
    stuck.go.set()
    assert closing.get(timeout=LONG) is True


def test_the_warning_names_the_generator_and_where_the_source_is(stuck: Stuck) -> None:
    """C2: the warning names the generator and the source's own file and line, and points to the call of close()."""
    numbers = BackgroundGenerator(stuck.items(), name="ticks")
    assert stuck.inside.wait(LONG)
    with pytest.warns(RuntimeWarning) as caught:
        assert numbers.close(0) is False
    [warning] = caught
    assert "BackgroundGenerator 'ticks'" in str(warning.message)
    assert stuck.place in str(warning.message)
    assert warning.filename == __file__


def test_the_warning_of_a_with_block_points_to_it(stuck: Stuck) -> None:
    """C2: whichever way it was closed, the warning points to the user's line."""
    numbers = BackgroundGenerator(stuck.items())
    assert stuck.inside.wait(LONG)
    numbers._worker.ended = Impatient()

    def leave() -> None:
        with numbers:
            pass

    with pytest.warns(RuntimeWarning) as caught:
        leave()
    assert (caught[0].filename, caught[0].lineno) == (__file__, leave.__code__.co_firstlineno + 1)
    assert "within 5.0 seconds" in str(caught[0].message)


def test_the_warning_names_the_line_of_a_source_that_does_not_close(stuck: Stuck) -> None:
    """C2: also when the source is stuck while it is being closed."""

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            stuck.stick()

    numbers = BackgroundGenerator(source(), 1)
    assert next(numbers) == 0
    numbers.stop_event.set()
    assert stuck.inside.wait(LONG)
    with pytest.warns(RuntimeWarning) as caught:
        assert numbers.close(0) is False
    assert stuck.place in str(caught[0].message)
    stuck.go.set()
    assert numbers.close() is True


def test_the_warning_names_the_generator_of_a_source_without_lines() -> None:
    """C2: a source that is not written in Python has no line; the generator is named all the same."""
    answers: SimpleQueue[int] = SimpleQueue()
    numbers = BackgroundGenerator(iter(answers.get, 0), name="answers")
    try:
        with pytest.warns(RuntimeWarning, match="'answers' did not stop"):
            assert numbers.close(0) is False
    finally:
        answers.put(1)
    assert numbers.close() is True


def test_the_warning_names_the_line_of_a_source_that_runs_meanwhile() -> None:
    """C2: a look at a busy thread may miss its way out; the warning names the source's line all the same."""
    begun, enough = threading.Event(), threading.Event()

    def descend(depth: int) -> Iterator[int]:  # frames that come and go, which is what a look stumbles over
        yield depth
        if depth:
            yield from descend(depth - 1)

    def source() -> Iterator[int]:
        begun.set()
        while not enough.is_set():
            list(descend(5))
        yield 0

    numbers = BackgroundGenerator(source())
    assert begun.wait(LONG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [numbers.close(0) for _ in range(200)] == [False] * 200
    enough.set()
    assert numbers.close(LONG) is True
    first = source.__code__.co_firstlineno
    places = {re.sub(r"^.*its source is still ", "", str(warning.message)) for warning in caught}
    assert len(caught) == 200
    assert places <= {f"at {__file__}, line {first + line}" for line in (1, 2, 3)}


def test_a_with_block_left_by_an_exception_keeps_it_though_the_source_does_not_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """C2: a source whose close() hangs costs the block its 5 seconds, a warning, and nothing else."""
    go = threading.Event()

    class Hangs(Touchy):
        def close(self) -> None:
            go.wait()
            super().close()

    source = Hangs()
    numbers = BackgroundGenerator(source, name="hangs")
    asked: list[float | None] = []

    def impatient(timeout: float | None = None) -> bool:
        asked.append(timeout)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(StopEvent, "wait", lambda self, timeout=None: impatient(timeout))
        with (
            pytest.warns(RuntimeWarning, match="'hangs' did not stop within 5"),
            pytest.raises(KeyError, match="the body's own"),
            numbers,
        ):
            raise KeyError("the body's own")
    assert asked == [5.0]
    go.set()
    assert numbers.close() is True
    assert source.steps[-1] == "close"


def test_the_clock_on_the_wall_is_never_asked() -> None:
    """C2, E3: a system clock that jumps, or cannot be read, changes no timeout: only monotonic clocks are used."""
    script = """
        import time

        def broken(*_):
            raise OSError("the clock on the wall has stopped")

        # Before anything is imported, so that nobody has the real ones.
        monotonic = time.monotonic
        time.time = time.time_ns = time.localtime = time.gmtime = broken

        import warnings
        from prefetch_generator import BackgroundGenerator, StopEvent, current_stop_event

        def source():
            yield 0
            current_stop_event().wait()

        numbers = BackgroundGenerator(source())
        print(next(numbers))
        started = monotonic()
        for wait in (lambda: numbers.next(0.05), lambda: StopEvent().wait(0.05)):
            try:
                print(wait())
            except TimeoutError:
                print("timeout")
        print(0.1 <= monotonic() - started < 10)
        print(numbers.close(10), numbers.stats.consumer_wait > 0)
    """
    out, err = python("-c", textwrap.dedent(script))
    assert (out.split(), err) == (["0", "timeout", "False", "True", "True", "True"], "")


def test_a_wait_that_ends_too_early_goes_on() -> None:
    """C2, E3: where the system's own wait follows the clock on the wall, and that jumps, the wait is taken up again."""
    asked: list[float] = []

    class Jumpy:
        def acquire(self, timeout: float) -> bool:
            asked.append(timeout)
            return len(asked) == 4

    bell = ThreadBell()
    bell._lock = Jumpy()  # type: ignore[assignment]  # a lock as far as is needed here
    assert bell.sleep(time.monotonic() + LONG) is True
    assert len(asked) == 4
    assert all(LONG - 5 < timeout <= LONG for timeout in asked)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_a_signal_handler_that_takes_longer_than_the_timeout_does_not_prolong_it() -> None:
    """C2, D1, E3: a wait that is interrupted by a handler, and whose time is over when that returns, is over."""
    script = """
        import warnings

        def source():
            yield 0
            go.wait()

        warnings.simplefilter("ignore")
        go = threading.Event()
        numbers = BackgroundGenerator(source())
        next(numbers)
        signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.2))
        for wait in (numbers.next, StopEvent().wait, numbers.close):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            try:
                say(wait(0.1))
            except TimeoutError:
                say("TimeoutError")
        go.set()
    """
    assert run_program(script) == (["TimeoutError", "False", "False"], "")


def test_the_warning_names_the_line_that_a_chain_is_at() -> None:
    """C2: where a source is itself a generator, what names the line is the source at the bottom."""
    begun, go = threading.Event(), threading.Event()

    def stuck() -> Iterator[int]:
        begun.set()
        assert go.wait(LONG)
        yield 0

    numbers = BackgroundGenerator(BackgroundGenerator(BackgroundGenerator(stuck())), name="outer")
    assert begun.wait(LONG)
    line = stuck.__code__.co_firstlineno + 2
    with pytest.warns(RuntimeWarning, match="'outer' did not stop within 0.1 seconds: its source") as caught:
        assert numbers.close(0.1) is False
    assert str(caught[0].message).endswith(f"at {__file__}, line {line}")
    go.set()
    assert numbers.close()


def test_a_thread_that_is_no_worker_any_more_is_nowhere() -> None:
    """C2: the number of a worker that has just ended may already be that of another thread."""
    numbers = BackgroundGenerator(range(3))
    assert numbers.close()
    numbers._channel.worker_ident = threading.get_ident()
    assert numbers._worker.where() == "in code that is not Python"
    numbers._channel.worker_ident = 0
