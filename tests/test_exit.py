"""Contract C7: interpreter exit, each time in a process of its own."""

from __future__ import annotations

import textwrap
import time

import pytest

from .helpers import posix, python

# What the scripts below start with.
PROLOGUE = """
import itertools, os, sys, threading, time
from prefetch_generator import BackgroundGenerator, current_stop_event

inside = threading.Semaphore(0)  # released by a source that is about to be stuck

def say(*words):
    os.write(1, (" ".join(words) + "\\n").encode())  # a line at a time, whichever thread it is

def counting(name="source"):
    try:
        yield from itertools.count()
    finally:
        say(name, "closed")

def stuck():
    yield 0
    inside.release()
    threading.Event().wait()

"""


def run(script: str, returncode: int = 0, before: str = "") -> tuple[list[str], str]:
    """Run the script, after `before` and the prologue; return the lines it printed and all that went to stderr."""
    out, err = python("-c", before + PROLOGUE + textwrap.dedent(script), returncode=returncode)
    return out.splitlines(), err


def test_at_exit_a_source_at_a_yield_runs_its_finally() -> None:
    """C7: a source that sits at a yield runs its finally: its worker is told to stop, and waited for."""
    script = """
        numbers = BackgroundGenerator(counting())
        print(next(numbers))
    """
    assert run(script) == (["0", "source closed"], "")


def test_at_exit_every_worker_is_told_to_stop() -> None:
    """C7: every worker is: those whose buffer is full, those that wait with their stop event, those in a cycle."""
    script = """
        def waiting(name):
            try:
                yield 0
                current_stop_event().wait()
            finally:
                say(name, "closed")

        generators = [BackgroundGenerator(counting(f"counting {n}"), n) for n in range(1, 6)]
        generators += [BackgroundGenerator(waiting(f"waiting {n}")) for n in range(5)]
        generators.append(generators)
        for numbers in generators[:-1]:
            next(numbers)
    """
    names = [f"counting {n}" for n in range(1, 6)] + [f"waiting {n}" for n in range(5)]
    out, err = run(script)
    assert (sorted(out), err) == (sorted(f"{name} closed" for name in names), "")


def test_at_exit_a_source_gets_time_to_close() -> None:
    """C7: it gets one second: a finally that takes a part of it is not cut short, whatever others are stuck in."""
    script = """
        def slow():
            try:
                yield from itertools.count()
            finally:
                time.sleep(0.3)
                say("closed")

        others = [BackgroundGenerator(stuck()) for _ in range(5)]
        numbers = BackgroundGenerator(slow(), 1)
        for generator in [numbers, *others]:
            next(generator)
        for _ in others:
            inside.acquire()
    """
    assert run(script) == (["closed"], "")


@pytest.mark.parametrize("wait", ["threading.Event().wait()", "while True: pass", "next(numbers)"])
def test_at_exit_stuck_sources_delay_nothing_further_and_print_nothing(wait: str) -> None:
    """C7: all together get one second; sources that are stuck then delay nothing, crash nothing, print nothing."""
    script = f"""
        never = threading.Lock()
        never.acquire()

        def waits():
            numbers = iter(never.acquire, None)
            try:
                yield 0
                inside.release()
                {wait}
            finally:
                say("closed")

        generators = [BackgroundGenerator(waits(), 1 + n % 2) for n in range(30)]
        for numbers in generators:
            next(numbers)
            inside.acquire()
        del generators[::3]
    """
    if wait == "while True: pass":
        script = script.replace("range(30)", "range(3)")  # each of them holds the GIL half of the time
    started = time.monotonic()
    assert run(script) == ([], "")
    assert time.monotonic() - started < 10


def test_at_exit_a_source_stuck_in_its_finally_delays_nothing_further() -> None:
    """C7: one that is stuck while it is being closed is no different."""
    script = """
        def source():
            try:
                yield from itertools.count()
            finally:
                threading.Event().wait()

        generators = [BackgroundGenerator(source(), 1) for _ in range(30)]
        for numbers in generators:
            next(numbers)
        generators[0].stop_event.set()
        del generators[1::2]
    """
    started = time.monotonic()
    assert run(script) == ([], "")
    assert time.monotonic() - started < 10


def test_at_exit_sources_that_come_back_too_late_crash_nothing() -> None:
    """C7: a stuck source that comes back while the interpreter goes down crashes nothing and prints nothing."""
    script = """
        def source(seconds):
            try:
                yield 0
                time.sleep(seconds)
                yield 1
            finally:
                [].clear()

        generators = [BackgroundGenerator(source(0.9 + n / 100), 1 + n % 2) for n in range(30)]
        for numbers in generators:
            next(numbers)
    """
    assert run(script) == ([], "")


def test_at_exit_the_finally_of_a_dropped_generator_still_runs() -> None:
    """C7: every worker: one whose generator was dropped before, and who is still busy with that, is waited for."""
    script = """
        dropped = threading.Event()

        def source():
            try:
                yield 0
                dropped.wait()
            finally:
                time.sleep(0.3)
                say("closed")

        for _ in BackgroundGenerator(source()):
            break
        dropped.set()
        print("left")
    """
    assert run(script) == (["left", "closed"], "")


def test_at_exit_threads_that_still_consume_get_all_their_items() -> None:
    """C7: non-daemon threads that are still consuming get all their items first."""
    script = """
        def source():
            yield "first"
            threading.main_thread().join()
            yield from map(str, range(500))

        def consume():
            *items, last = numbers
            print(len(items), last)

        numbers = BackgroundGenerator(source())
        threading.Thread(target=consume).start()
    """
    assert run(script) == (["500 499"], "")


def test_at_exit_a_daemon_that_consumes_is_no_trouble() -> None:
    """C7: daemon threads that consume, or wait for an item, when the interpreter exits are no trouble either."""
    script = """
        def consume(numbers):
            for number in numbers:
                first.release()

        first = threading.Semaphore(0)
        generators = [BackgroundGenerator(source()) for source in [stuck, itertools.count] for _ in range(5)]
        for numbers in generators:
            threading.Thread(target=consume, args=(numbers,), daemon=True).start()
            first.acquire()
    """
    started = time.monotonic()
    assert run(script) == ([], "")
    assert time.monotonic() - started < 10


def test_at_exit_a_chain_does_not_mistake_the_stop_for_the_end() -> None:
    """C7, C8: all of a chain is told at once; its finally blocks run, and nobody sees an end of the data."""
    script = """
        def around(name, numbers):
            try:
                for number in numbers:
                    yield number
                say(name, "mistook the stop for the end")
            finally:
                say(name, "closed")

        def innermost():
            try:
                while True:
                    yield 0
                    current_stop_event().wait()
            finally:
                say("innermost closed")

        def slowly(frame, event, arg):
            if event == "line":
                time.sleep(0.0005)
            return slowly if frame.f_code.co_name == "_stop_all" else None

        def tail():
            say("a tail was begun")
            yield 1

        chains = []
        for _ in range(10):
            inner = around("inner", BackgroundGenerator(innermost()))
            middle = itertools.chain(BackgroundGenerator(inner), tail())
            chains.append(BackgroundGenerator(around("outer", BackgroundGenerator(middle))))
        del inner, middle
        for chain in chains:
            next(chain)
        sys.settrace(slowly)
    """
    out, err = run(script)
    assert (sorted(out), err) == (["inner closed"] * 10 + ["innermost closed"] * 10 + ["outer closed"] * 10, "")


def test_sys_exit_runs_the_finally_and_keeps_its_status() -> None:
    """C7: sys.exit() is an exit like any other, in the middle of a loop too."""
    script = """
        for number in BackgroundGenerator(counting(), 1):
            sys.exit(3)
    """
    assert run(script, returncode=3) == (["source closed"], "")


def test_an_unhandled_exception_runs_the_finally_and_shows_itself_alone() -> None:
    """C7: so is an unhandled exception, whose traceback is all there is on stderr."""
    script = """
        numbers = BackgroundGenerator(counting(), 1)
        for number in numbers:
            raise KeyError("the script's own")
    """
    out, err = run(script, returncode=1)
    assert out == ["source closed"]
    assert err.startswith("Traceback (most recent call last):")
    assert err.endswith('KeyError: "the script\'s own"\n')
    assert err.count("Traceback") == 1


@posix
def test_ctrl_c_ends_a_process_whose_source_is_stuck() -> None:
    """C7: so is Ctrl-C, in a loop over a source that will never give its next item."""
    script = """
        import signal

        def interrupts():
            try:
                yield 0
                while not interrupted.wait(0.05):
                    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                threading.Event().wait()
            finally:
                say("closed")

        def interrupt(*_):
            interrupted.set()
            sys.exit(130)

        interrupted = threading.Event()
        signal.signal(signal.SIGINT, interrupt)
        for number in BackgroundGenerator(interrupts()):
            print(number, flush=True)
    """
    assert run(script, returncode=130) == (["0"], "")


def test_at_exit_what_a_source_raises_while_being_closed_is_shown() -> None:
    """C4, C7: nobody calls close() any more, so it goes to threading.excepthook, which prints it; once."""
    script = """
        def source():
            try:
                yield from itertools.count()
            finally:
                raise KeyError("while closing")

        def keep(numbers):
            threading.Event().wait()

        numbers = BackgroundGenerator(source(), 1)
        next(numbers)
        threading.Thread(target=keep, args=(numbers,), daemon=True).start()
    """
    out, err = run(script)
    assert out == []
    assert err.startswith("Exception in thread BackgroundGenerator-source:\nTraceback")
    assert err.count("KeyError: 'while closing'") == 1


def test_exit_handlers_may_still_iterate() -> None:
    """C7: a handler that runs before the workers are told gets its items, one that runs after sees the end."""
    handler = 'import atexit; atexit.register(lambda: print("{}", next(numbers, "over"), flush=True))'
    script = f"""
        numbers = BackgroundGenerator(itertools.count())
        {handler.format("early")}
    """
    assert run(script, before=handler.format("late")) == (["early 0", "late over"], "")


@posix
def test_a_forked_child_exits_without_the_parents_workers() -> None:
    """C7: a forked child has no workers to tell or to wait for, and leaves the parent's alone."""
    script = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 dislikes every fork beside a thread

        numbers = BackgroundGenerator(counting(), 1)
        next(numbers)
        child = os.fork()
        if child:
            say("child", str(os.waitpid(child, 0)[1]), str(next(numbers)))
    """
    handler = 'import atexit; atexit.register(lambda: say("told" if numbers.stop_event.is_set() else "not told"))'
    assert run(script, before=handler) == (["not told", "child 0 1", "source closed", "told"], "")
