"""Contract B4, C7 and E1 in processes of their own: signals while waiting, fork, spawn, and exit with a thousand."""

from __future__ import annotations

import signal
import textwrap
import time
from pathlib import Path

import pytest

from .helpers import posix, python

# What the scripts below start with. `asleep(action)` does the action as soon as this thread sleeps on a bell.
PROLOGUE = """
import contextlib, gc, itertools, multiprocessing, os, signal, sys, threading, time
from queue import SimpleQueue
from prefetch_generator import BackgroundGenerator, StopEvent, current_stop_event

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

@contextlib.contextmanager
def asleep(action):
    def profile(frame, event, called):
        if event == "c_call" and (frame.f_code.co_name, called.__name__) == ("sleep", "acquire"):
            sys.setprofile(None)
            action()
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)

def kill(number):
    # From another thread, and again: a signal that comes just before the system call does not end that call.
    def insist():
        while not handled.wait(0.02):
            signal.pthread_kill(threading.main_thread().ident, number)
    threading.Thread(target=insist, daemon=True).start()

handled = threading.Event()

def source(name="source"):
    try:
        yield 0
        current_stop_event().wait()
        yield 1
    finally:
        say(name, "closed")

"""


def run(script: str, returncode: int = 0, *options: str) -> tuple[list[str], str]:
    """Run the script; return the lines it printed and what went to stderr."""
    out, err = python(*options, "-c", PROLOGUE + textwrap.dedent(script), returncode=returncode)
    return out.splitlines(), err


@posix
def test_ctrl_c_ends_the_wait_for_an_item_at_once_and_loses_nothing() -> None:
    """B4, A9: SIGINT ends next() while it sleeps; next() can be called again and gets the item that comes then."""
    script = """
        def waits():
            yield 0
            go.wait()
            yield 1

        def handler(*_):
            if not handled.is_set():
                handled.set()
                raise KeyboardInterrupt

        go = threading.Event()
        signal.signal(signal.SIGINT, handler)
        numbers = BackgroundGenerator(waits())
        say(next(numbers))
        try:
            with asleep(lambda: kill(signal.SIGINT)):
                next(numbers)
        except KeyboardInterrupt:
            say("interrupted", numbers.stats[:2])
        go.set()
        say(list(numbers))
    """
    assert run(script) == (["0", "interrupted (1, 0)", "[1]"], "")


@posix
def test_ctrl_c_ends_the_wait_of_close_at_once() -> None:
    """B4, C1: SIGINT ends close(None) while it sleeps; it can be called again and waits until the worker has ended."""
    script = """
        def stays():
            try:
                yield 0
                inside.set()
                go.wait()
            finally:
                say("closed")

        def handler(*_):
            if not handled.is_set():
                handled.set()
                raise KeyboardInterrupt

        go, inside = threading.Event(), threading.Event()
        signal.signal(signal.SIGINT, handler)
        numbers = BackgroundGenerator(stays())
        say(next(numbers))
        inside.wait()
        try:
            with asleep(lambda: kill(signal.SIGINT)):
                numbers.close(None)
        except KeyboardInterrupt:
            say("interrupted", numbers.stop_event.is_set())
        go.set()
        say(numbers.close(None))
    """
    assert run(script) == (["0", "interrupted True", "closed", "True"], "")


@posix
def test_ctrl_c_with_pythons_own_handler_ends_the_process_and_runs_the_finally() -> None:
    """C7: an interrupt that nobody catches is an exit like any other; the process dies of SIGINT, as shells expect."""
    script = """
        numbers = BackgroundGenerator(source())
        say(next(numbers))
        with asleep(lambda: kill(signal.SIGINT)):
            try:
                next(numbers)
            finally:
                handled.set()
    """
    out, err = run(script, -signal.SIGINT)
    assert out == ["0", "source closed"]
    assert err.count("Traceback") == 1
    assert err.endswith("KeyboardInterrupt\n")


@posix
def test_sigterm_ends_a_waiting_process_at_once() -> None:
    """C7: nothing here stands in the way of a SIGTERM that nobody handles: no thread, no handler, no wait."""
    script = """
        numbers = BackgroundGenerator(source())
        say(next(numbers))
        with asleep(lambda: kill(signal.SIGTERM)):
            next(numbers)
    """
    started = time.monotonic()
    assert run(script, -signal.SIGTERM) == (["0"], "")
    assert time.monotonic() - started < 20


@posix
@pytest.mark.parametrize("where", ["next(numbers)", "numbers.close(None)", "numbers.stop_event.wait()"])
def test_sigterm_whose_handler_exits_runs_the_finally(where: str) -> None:
    """C7: the usual handler raises SystemExit: the wait ends at once, and the exit is one like any other."""
    script = f"""
        def stays():
            try:
                yield 0
                inside.set()
                handled.wait()
                yield 1
            finally:
                say("closed")

        def handler(*_):
            if not handled.is_set():
                handled.set()
                sys.exit(143)

        inside = threading.Event()
        signal.signal(signal.SIGTERM, handler)
        numbers = BackgroundGenerator(stays(), 1)
        say(next(numbers))
        inside.wait()
        with asleep(lambda: kill(signal.SIGTERM)):
            {where}
    """
    assert run(script, 143) == (["0", "closed"], "")


@posix
@pytest.mark.parametrize("action", ["shared.set()", "numbers.stop_event.set()", "numbers.close()"])
def test_sigterm_whose_handler_stops_ends_the_loop(action: str) -> None:
    """D1, D2: a handler that sets an event, or closes, ends the loop it interrupts as if the data had ended."""
    script = f"""
        def handler(*_):
            handled.set()
            {action}

        shared = StopEvent()
        signal.signal(signal.SIGTERM, handler)
        numbers = BackgroundGenerator(source(), stop_event=shared)
        with asleep(lambda: kill(signal.SIGTERM)):
            say(list(numbers))
        say(numbers.close())
    """
    out, err = run(script)
    assert (sorted(out), err) == (["True", "[0]", "source closed"], "")


@posix
def test_ctrl_c_in_the_main_thread_leaves_a_consumer_elsewhere_alone() -> None:
    """C7: the interrupt is the main thread's; the consumer that it waits for gets all its items before the exit."""
    script = """
        def handler(*_):
            handled.set()
            raise KeyboardInterrupt

        def waits():
            yield "first"
            threading.main_thread().join()
            yield from map(str, range(500))

        def consume():
            *items, last = numbers
            say(len(items), last)

        signal.signal(signal.SIGINT, handler)
        numbers = BackgroundGenerator(waits())
        consumer = threading.Thread(target=consume)
        consumer.start()
        kill(signal.SIGINT)
        threading.Event().wait()
    """
    out, err = run(script, -signal.SIGINT)
    assert out == ["500 499"]
    assert err.count("Traceback") == 1


def test_a_thousand_live_generators_at_exit() -> None:
    """C7: every worker is told, and has the time: a thousand that wait, for room or an event, run their finally."""
    script = """
        def counts():
            try:
                yield from itertools.count()
            finally:
                closed.append(1)

        def waits():
            try:
                yield 0
                current_stop_event().wait()
            finally:
                closed.append(1)

        import atexit
        closed, exit = [], []
        threading.stack_size(256 * 1024)  # a thousand stacks are no problem, but need not be 8 GB
        generators = [BackgroundGenerator(source(), 1 + n % 3) for n in range(500) for source in (counts, waits)]
        say(sum(map(next, generators)), threading.active_count())
        sys.stdout = type("AtTheVeryEnd", (), {"write": None, "flush": lambda self: say(len(closed))})()
    """
    started = time.monotonic()
    out, err = run(script)
    assert err == ""
    assert out[0] == "0 1001"
    assert out[-1] == "1000"
    assert time.monotonic() - started < 40


@pytest.mark.parametrize("leave", ["sys.exit()", "raise SystemExit(5)", "return"])
def test_exit_from_a_consumer_that_is_the_last_thread(leave: str) -> None:
    """C7: a non-daemon consumer that leaves in the middle, when the main thread has ended, ends the process well."""
    script = f"""
        def consume():
            for number in numbers:
                threading.main_thread().join()
                if number == 100:
                    {leave}

        def counts():
            try:
                yield from itertools.count()
            finally:
                say("closed")

        numbers = BackgroundGenerator(counts(), 3)
        threading.Thread(target=consume).start()
    """
    assert run(script) == (["closed"], "")


def test_exit_in_a_hurry() -> None:
    """C7: os._exit() in a consumer, with workers that are full, busy and stuck, is at once, and silent."""
    script = """
        def stuck():
            yield 0
            threading.Event().wait()

        def busy():
            yield 0
            while True:
                pass

        generators = [BackgroundGenerator(source) for source in (stuck(), busy(), itertools.count())]
        for numbers in generators:
            next(numbers)
        threading.Thread(target=os._exit, args=(7,)).start()
    """
    assert run(script, 7) == ([], "")


@posix
@pytest.mark.parametrize("leave", ["os._exit(0)", "sys.exit()", "os.execv(sys.executable, [sys.executable, '-c', ''])"])
def test_a_child_forked_in_a_loop_leaves_in_every_way(leave: str) -> None:
    """E1, C7: the usual forking server: the child leaves without touching the parent's workers; the loop goes on."""
    script = f"""
        def read():
            try:
                yield from range(6)
            finally:
                say("read to the end in", os.getpid() == parent)

        parent = os.getpid()
        for number in BackgroundGenerator(read()):
            child = os.fork()
            if not child:
                {leave}
            assert os.waitpid(child, 0)[1] == 0
            say(number)
    """
    out, err = run(script, 0, "-W", "ignore:This process:DeprecationWarning")
    assert err == ""
    assert [line for line in out if line.isdigit()] == list("012345")
    assert [line for line in out if not line.isdigit()] == ["read to the end in True"]


def test_multiprocessing_with_spawn(tmp_path: Path) -> None:
    """E1, E2: a spawned child makes its own generators; handing it one of the parent's is a TypeError that says why."""
    script = tmp_path / "spawns.py"
    script.write_text(
        textwrap.dedent("""
            import multiprocessing
            from prefetch_generator import BackgroundGenerator, background

            @background(max_prefetch=3)
            def squares(n):
                for number in range(n):
                    yield number * number

            def child(n, results):
                results.put((sum(squares(n)), next(squares(5))))

            if __name__ == "__main__":
                spawn = multiprocessing.get_context("spawn")
                numbers = squares(10)
                first = next(numbers)
                try:
                    spawn.Process(target=sum, args=(numbers,)).start()
                except TypeError as error:
                    print(error)
                results = spawn.SimpleQueue()
                process = spawn.Process(target=child, args=(10, results))
                process.start()
                print(results.get())
                process.join()
                print(process.exitcode, first + sum(numbers))
        """),
        encoding="utf-8",
    )
    out, _ = python(str(script))
    refusal, *rest = out.splitlines()
    assert refusal.startswith("cannot copy or pickle BackgroundGenerator 'squares': ")
    assert rest == ["(285, 0)", "0 285"]


@posix
def test_a_pool_is_fed_by_a_generator() -> None:
    """E1: a pool of forked processes, fed from a generator, and one that reads its results in the background."""
    script = """
        with multiprocessing.get_context("fork").Pool(2) as pool:
            results = BackgroundGenerator(pool.imap(abs, BackgroundGenerator(range(-50, 0))), 4)
            say(sum(results))
    """
    assert run(script, 0, "-W", "ignore:This process:DeprecationWarning") == (["1275"], "")
