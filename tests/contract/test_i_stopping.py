"""Contract, section I, sentences 5 and 6: how a source in a process is stopped, and the end of its parent."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from subprocess import PIPE

import pytest

from prefetch_generator import BackgroundGenerator, StopEvent, _process_child, _process_source
from tests.helpers import LONG, posix, python

from . import child_sources
from .process_support import FORK_WARNING, METHODS, is_gone, pipe, seconds_until_dead, start

pytestmark = pytest.mark.filterwarnings(FORK_WARNING)

linux = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux can wait for a process that is no child")


# I5

Box = list[BackgroundGenerator[object]]


def close(box: Box) -> None:
    assert box[0].close() is True


def leave(box: Box) -> None:
    with box[0]:
        pass


def set_own_event(box: Box) -> None:
    box[0].stop_event.set()


def close_in_task(box: Box) -> None:
    assert asyncio.run(box[0].aclose()) is True


WAYS: list[Callable[[Box], None]] = [close, leave, Box.clear, set_own_event, close_in_task]


@pytest.mark.parametrize("way", WAYS)
def test_every_stop_reaches_the_source_at_its_yield(way: Callable[[Box], None]) -> None:
    """I5: GeneratorExit on the child's main thread, its stop event set, callbacks called, `finally` run; then gone."""
    with pipe() as (told, tell):
        box = [start(child_sources.watched, tell)]
        pid = told()
        assert next(box[0]) == 0
        way(box)
        assert [told(), told()] == child_sources.WATCHED
        assert not box or box[0].close() is True
        join_workers()
        assert is_gone(pid)


def join_workers() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("BackgroundGenerator-"):
            thread.join(LONG)


@pytest.mark.parametrize("method", METHODS)
def test_however_the_process_is_started_the_stop_reaches_it(method: str) -> None:
    """I5: spawn, forkserver and fork."""
    with pipe() as (told, tell):
        numbers = start(child_sources.watched, tell, method=method)
        pid = told()
        assert next(numbers) == 0
        assert numbers.close() is True
        assert is_gone(pid)
        assert [told(), told()] == child_sources.WATCHED


def test_the_shared_event_of_a_chain_stops_the_process_at_its_end() -> None:
    """I5, C8: a generator over one in a process closes that when it is stopped by somebody else's event."""
    shared = StopEvent()
    with pipe() as (told, tell):
        outer = BackgroundGenerator(start(child_sources.watched, tell), 1, stop_event=shared)
        pid = told()
        assert next(outer) == 0
        shared.set()
        assert [told(), told()] == child_sources.WATCHED
        assert outer.close() is True
        assert is_gone(pid)


def test_a_stop_ends_a_wait_for_it_at_once() -> None:
    """I5: `current_stop_event()` in the child is what a source may wait with; nothing interrupts it then."""
    with pipe() as (told, tell):
        items = start(child_sources.waits, tell)
        pid = told()
        assert next(items) == 0
        assert told() == "inside"
        assert items.close() is True
        assert [told(), told()] == [True, "GeneratorExit"]
        assert is_gone(pid)


@posix
def test_a_callback_in_the_child_ends_a_read() -> None:
    """I5, D4: `on_set` is called in the child while its main thread is in a step; no interruption is needed."""
    with pipe() as (told, tell):
        items = start(child_sources.reads, tell)
        pid = told()
        assert next(items) == 0
        assert told() == "inside"
        assert items.close() is True
        assert told() == b"stop"
        assert is_gone(pid)


STEPS = [
    child_sources.computes,
    child_sources.sleeps,
    child_sources.waits_for_a_lock,
    child_sources.reads_a_pipe,
]


@posix
def test_a_step_that_is_busy_is_interrupted_as_by_ctrl_c() -> None:
    """I5: after a second, whether it computes or is in a system call; `finally` runs, and nothing is reported."""
    with ExitStack() as stack:
        pipes = [stack.enter_context(pipe()) for _ in STEPS]
        generators = [start(child_sources.busy, tell, step) for (_, tell), step in zip(pipes, STEPS, strict=True)]
        pids = []
        for items, (told, _) in zip(generators, pipes, strict=True):
            pid = told()
            assert next(items) == 0
            assert told() == "inside"
            items.stop_event.set()
            pids.append(pid)
        for items, (told, _) in zip(generators, pipes, strict=True):
            assert items.close(LONG) is True
            assert [told(), told()] == ["KeyboardInterrupt", "finally"]
        assert [is_gone(pid) for pid in pids] == [True] * len(STEPS)


@posix
@pytest.mark.parametrize("method", METHODS)
def test_a_signal_that_the_caller_has_blocked_interrupts_the_child(method: str) -> None:
    """I5: a child inherits which signals are blocked, of whatever thread has made the call."""
    with pipe() as (told, tell):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            items = start(child_sources.busy, tell, child_sources.sleeps, method=method)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        pid = told()
        assert next(items) == 0
        assert told() == "inside"
        assert items.close(LONG) is True
        assert [told(), told()] == ["KeyboardInterrupt", "finally"]
        assert is_gone(pid)


@posix
def test_the_childs_signals_are_not_the_parents() -> None:
    """I5, I6: nor those of its event loop, whose wake-up descriptor a fork inherits."""
    signals: list[str] = []

    async def stop_a_busy_one() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, signals.append, "interrupted")
        with pipe() as (told, tell):
            items = start(child_sources.busy, tell, child_sources.sleeps)
            told()
            assert next(items) == 0
            assert told() == "inside"
            assert await items.aclose(LONG) is True
            assert told() == "KeyboardInterrupt"
        for _ in range(10):  # what has come by now is handled in one turn of the loop
            await asyncio.sleep(0)
        loop.remove_signal_handler(signal.SIGINT)

    asyncio.run(stop_a_busy_one())
    assert signals == []


def test_an_iterator_is_closed_between_two_steps() -> None:
    """I5, C3: on purpose: it has no `finally` that runs when it is freed."""
    with pipe() as (told, tell):
        rows = start(child_sources.busy_reader, tell, -1)
        pid = told()
        assert next(rows) == 1
        assert rows.close() is True
        assert told() == "closed"
        assert is_gone(pid)


@posix
def test_an_iterator_that_is_interrupted_is_closed() -> None:
    """I5, C3: an iterator that has a close(), as a cursor has, has not ended by itself when its step is interrupted."""
    with pipe() as (told, tell):
        rows = start(child_sources.busy_reader, tell, 2)
        pid = told()
        assert next(rows) == 1
        assert told() == "inside"
        assert rows.close(LONG) is True
        assert told() == "closed"
        assert is_gone(pid)


@posix
def test_a_child_that_nothing_stops_is_killed() -> None:
    """I5: one that ignores the interruption, that is stopped, that holds the GIL, that never ends its clean-up."""
    steps = [child_sources.ignores_all, child_sources.stops_itself, child_sources.holds_the_gil]
    with ExitStack() as stack:
        pipes = [stack.enter_context(pipe()) for _ in range(4)]
        generators = [start(child_sources.stubborn, tell, step) for (_, tell), step in zip(pipes, steps, strict=False)]
        generators.append(start(child_sources.closes_forever, pipes[-1][1]))
        pids = [told() for told, _ in pipes]
        assert [next(items) for items in generators] == [0] * 4
        assert [told() for told, _ in pipes[:3]] == ["inside"] * 3
        started = time.monotonic()
        for items in generators:
            items.stop_event.set()
        assert [items.close(LONG) for items in generators] == [True] * 4
        assert time.monotonic() - started < 20
        assert [is_gone(pid) for pid in pids] == [True] * 4


def test_a_child_may_take_a_while_to_end() -> None:
    """I5, I8: one whose source has come to its end, and that waits for a thread, is waited for in turn."""
    with pipe() as (told, tell):
        assert list(start(child_sources.leaves_a_thread, tell, child_sources.sleeps_a_little)) == [0]
        pid = told()
        assert is_gone(pid)
        assert told() == "done"


def test_a_child_that_never_ends_after_its_source_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """I5: the source has come to its end, and something keeps its process: not for longer than it may take."""
    monkeypatch.setattr(_process_source, "_LINGER", 0.2)
    with pipe() as (told, tell):
        assert list(start(child_sources.leaves_a_thread, tell, child_sources.sleeps)) == [0]
        assert is_gone(told())


@posix
def test_an_impatient_close_names_function_and_process() -> None:
    """I5, C2: a child that is busy for longer than `timeout` is left to stop by itself, and a warning names it."""
    with pipe() as (told, tell):
        items = start(child_sources.busy, tell, child_sources.sleeps)
        pid = told()
        assert next(items) == 0
        assert told() == "inside"
        with pytest.warns(RuntimeWarning, match=rf"'busy' did not stop within 0.2 .* in busy, process {pid}$"):
            assert items.close(timeout=0.2) is False
        assert items.close(None) is True
        assert is_gone(pid)


@posix
def test_a_clean_up_is_not_interrupted() -> None:
    """I5: what is interrupted is a step; a `finally` that takes longer than a second has the other one too."""
    with pipe() as (told, tell):
        items = start(child_sources.closes_slowly, tell)
        pid = told()
        assert next(items) == 0
        assert items.close(LONG) is True
        assert told() is None
        assert is_gone(pid)


def test_a_clean_up_in_the_child_may_wait_for_another_generator() -> None:
    """I5, C8: it has heard of the stop, so no wait of it is interrupted for that."""
    with pipe() as (told, tell):
        numbers = start(child_sources.closes_with_another, tell)
        told()
        assert next(numbers) == 0
        assert numbers.close() is True
        assert told() == [0]


def test_nobody_polls_while_a_child_is_to_stop() -> None:
    """I5, A9: the worker sleeps until the child has ended, as it does while there is nothing to receive."""
    with pipe() as (told, tell):
        numbers = start(child_sources.busy, tell, child_sources.sleeps)
        told()
        assert (next(numbers), told()) == (0, "inside")
        before = time.process_time()
        assert numbers.close() is True
        assert time.process_time() - before < 0.2  # of the second that the step has


@posix
def test_a_step_is_interrupted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """I5, I6: Ctrl-C in a terminal, which every process hears of, does not cut its clean-up short."""
    monkeypatch.setattr(_process_child, "INTERRUPT_AFTER", 0.1)
    with pipe() as (told, tell):
        numbers = start(child_sources.interrupted_twice, tell)
        told()
        assert (next(numbers), told()) == (0, "inside")
        assert numbers.close() is True
        assert told() == "interrupted once"


def test_a_source_that_stops_itself() -> None:
    """I5, D3: one that sets its own event ends as if it had been closed: that is no failure."""
    items = start(child_sources.stops_by_itself, 3)
    got = list(items)
    assert got == [*range(len(got))]
    assert len(got) <= 4
    assert items.stop_event.is_set()
    assert items.close() is True


def closing(items: BackgroundGenerator[object]) -> None:
    items.close()


def leaving_with_an_error(items: BackgroundGenerator[object]) -> None:
    with items:
        raise KeyError("the body's own")


@pytest.mark.parametrize("way", [closing, leaving_with_an_error])
def test_what_closing_raises_in_the_child_is_raised_by_close(
    way: Callable[[BackgroundGenerator[object]], None],
) -> None:
    """I5, C4: once, with the child's traceback as its cause, and the body's own exception as its context."""
    with pipe() as (told, tell):
        items = start(child_sources.fails_while_closing, tell)
        pid = told()
        assert next(items) == 0
        with pytest.raises(LookupError) as caught:
            way(items)
        assert caught.value.args == ("while closing", 7)
        assert "in fails_while_closing" in str(caught.value.__cause__)
        context = caught.value.__context__
        assert (type(context) is KeyError) == (way is leaving_with_an_error)
        assert items.close() is True
        assert is_gone(pid)


def test_what_closing_raises_in_the_child_of_a_dropped_generator_is_hooked(
    hooked: SimpleQueue[threading.ExceptHookArgs],
) -> None:
    """I5, C4: where nobody calls `close()`, it goes to `threading.excepthook`."""
    with pipe() as (told, tell):
        items = start(child_sources.fails_while_closing, tell)
        assert told()
        assert next(items) == 0
        del items
        assert hooked.get(timeout=LONG).exc_type is LookupError


def test_a_failure_of_the_unfinished_step_is_dropped(hooked: SimpleQueue[threading.ExceptHookArgs]) -> None:
    """I5, C4: what the step raises that was in progress at the stop is nobody's concern."""
    with pipe() as (told, tell):
        items = start(child_sources.fails_after_the_stop, tell)
        pid = told()
        assert next(items) == 0
        assert told() == "inside"
        assert items.close() is True
        assert next(items, "end") == "end"
        assert is_gone(pid)
    with pytest.raises(queue.Empty):
        hooked.get_nowait()


# What a script starts with, whose processes say their ids on standard output.
HEAD = """
import asyncio, itertools, multiprocessing, os, signal, sys, threading, time
from prefetch_generator import background, current_stop_event

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def at_its_yield():
    say(os.getpid())
    try:
        yield from itertools.count()
    finally:
        say("yield closed")

def in_a_step():
    yield 0
    try:
        say(os.getpid())
        while True:
            pass
    finally:
        say("step closed")

def in_a_sleep():
    yield 0
    try:
        say(os.getpid())
        time.sleep(1000)
    finally:
        say("sleep closed")

def in_a_wait():
    yield 0
    say(os.getpid())
    current_stop_event().wait()
    say("wait ended")

def ignoring():
    yield 0
    say(os.getpid())
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            pass

def holding_the_gil():
    yield 0
    say(os.getpid())
    sum(range(10**12))

def start_all(methods, *functions):
    generators = [background(max_prefetch=1, process=method)(f)() for method in methods for f in functions]
    for one in generators:
        next(one)
    return generators

ALL = [at_its_yield, in_a_step, in_a_sleep, in_a_wait, ignoring]
"""


def file_of(tmp_path: Path, script: str) -> str:
    """Write the script after that head, to where a child can import it; return its path."""
    path = tmp_path / "script.py"
    path.write_text(HEAD + textwrap.dedent(script), encoding="utf-8")
    return str(path)


@posix
def test_exit_has_a_busy_step_interrupted_in_its_own_time(tmp_path: Path) -> None:
    """I5: at exit, half a second after it, so that the clean-up has the other half; not a second, as after a stop."""
    script = """
        from prefetch_generator import _exit, _process_child, _process_source

        def sleeping(tell):
            yield 0
            try:
                tell.send("inside")
                time.sleep(1000)
            finally:
                say("closed")

        if __name__ == "__main__":
            _process_child.INTERRUPT_AFTER = _process_source.LEAVE_AFTER = 1000  # what a stop has
            _exit.GRACE = 20
            told, tell = multiprocessing.Pipe(duplex=False)
            numbers = background(max_prefetch=1, process="fork")(sleeping)(tell)
            next(numbers), told.recv()
            say("exits")
    """
    out, err = python("-W", FORK_WARNING, file_of(tmp_path, script), strict=False)
    assert (out.splitlines(), err) == (["exits", "closed"], "")


@posix
def test_a_stop_has_a_busy_step_interrupted_in_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """I5: one second after it, not half of that, as at an exit."""
    monkeypatch.setattr(_process_child, "HURRIED", 1000.0)  # what an exit has
    monkeypatch.setattr(_process_child, "INTERRUPT_AFTER", 0.1)
    with pipe() as (told, tell):
        numbers = start(child_sources.busy, tell, child_sources.sleeps)
        told()
        assert (next(numbers), told()) == (0, "inside")
        assert numbers.close() is True
        assert [told(), told()] == ["KeyboardInterrupt", "finally"]


@posix
def test_exit_closes_the_source_and_leaves_no_process(tmp_path: Path) -> None:
    """I5, C7: exit delays by no more than its second for all; who is stuck is killed and reaped, without a word."""
    script = """
        import atexit
        from prefetch_generator import _process_source

        if __name__ == "__main__":
            _process_source.LEAVE_AFTER = 1000  # nothing but the exit itself kills a child in time
            generators = start_all(["fork", "forkserver"], *ALL, holding_the_gil)
            threading.Event().wait(0.5)  # the busy ones are on their way into their steps
            main = os.getpid()
            atexit.register(lambda: os.getpid() == main and say("exit"))  # the first to run
            say("exits")
    """
    out, err = python("-W", FORK_WARNING, file_of(tmp_path, script), strict=False)
    assert err == ""
    lines = out.splitlines()
    after = lines[lines.index("exits") :]
    assert after.count("yield closed") == after.count("wait ended") == 2
    pids = [int(line) for line in lines if line.isdigit()]
    assert len(pids) == 12
    assert [pid for pid in pids if not is_gone(pid)] == []


# I6


ENDS = {
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "os._exit": "os._exit(0)",
    "sys.exit": "sys.exit()",
    "returns": "pass",
    "an error": "raise ValueError",
}
HAS_NO_EXIT = {"SIGKILL", "SIGTERM", "os._exit"}


@linux
@pytest.mark.parametrize(("end", "methods"), [*((end, ["fork"]) for end in ENDS), ("SIGKILL", ["spawn", "forkserver"])])
def test_no_child_outlives_its_parent(tmp_path: Path, end: str, methods: list[str]) -> None:
    """I6: however that ends, in the middle of a step too, and though another fork of the parent holds all it held."""
    script = f"""
        if __name__ == "__main__":
            generators = start_all({methods}, *ALL)
            pid = os.fork()
            if pid == 0:
                signal.pause()
            say("other", pid)
            sys.stdin.readline()
            {ENDS[end]}
    """
    command = [sys.executable, "-W", "ignore", file_of(tmp_path, script)]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        lines: list[str] = []
        while sum(map(str.isdigit, lines)) < 5 * len(methods) or not any("other" in line for line in lines):
            lines.append(parent.stdout.readline().strip())
        ends = [os.pidfd_open(pid) for pid in [parent.pid, *map(int, filter(str.isdigit, lines))]]
        parent.stdin.write("\n")
        parent.stdin.flush()
        seconds = seconds_until_dead(ends)
        other = next(int(line.split()[1]) for line in lines if line.startswith("other"))
        assert not is_gone(other)
        os.kill(other, signal.SIGKILL)  # it has the pipes, too
        out, err = parent.communicate(timeout=LONG)
    assert seconds < 11
    assert out.count("yield closed") == len(methods)
    if end in HAS_NO_EXIT:  # else the parent's exit gives them its second, and no more
        assert out.count("step closed") == out.count("sleep closed") == len(methods)
    assert err.count("Traceback") == (end == "an error")


@posix
def test_ctrl_c_is_the_parents_affair(tmp_path: Path) -> None:
    """I6: sent to the whole process group, as a terminal does, it is KeyboardInterrupt in the parent, and no more."""
    script = """
        if __name__ == "__main__":
            generators = start_all(["fork", "forkserver", "spawn"], at_its_yield, in_a_wait)
            try:
                say("begun")
                while True:  # a signal that comes just before a wait does not end that one
                    threading.Event().wait(0.1)
            except KeyboardInterrupt:
                say("interrupted", [next(one) for one in generators[::2]])
                for one in generators:
                    one.close()
    """
    command = [sys.executable, "-W", "ignore", file_of(tmp_path, script)]
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True) as parent:
        assert parent.stdout is not None
        lines: list[str] = []
        while "begun" not in lines or sum(map(str.isdigit, lines)) < 6:
            lines.append(parent.stdout.readline().strip())
        os.killpg(parent.pid, signal.SIGINT)
        out, err = parent.communicate(timeout=LONG)
    assert err == ""
    assert parent.returncode == 0
    assert sorted(out.splitlines()) == ["interrupted [1, 1, 1]", *["wait ended"] * 3, *["yield closed"] * 3]
