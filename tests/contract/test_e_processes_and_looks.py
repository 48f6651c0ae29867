"""Contract, section E: fork, copies, timeouts, hints, `repr`, messages, gevent."""

from __future__ import annotations

import copy
import math
import operator
import os
import pickle
import re
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from operator import length_hint
from pathlib import Path
from queue import SimpleQueue
from textwrap import dedent, indent

import pytest

from prefetch_generator import (
    BackgroundGenerator,
    NotReadyError,
    StopEvent,
    background,
    current_stop_event,
)
from tests.helpers import LONG, posix, python

from .support import run_program

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")


# 3.12 and later warn at every fork() in a threaded process. That is the situation to be tested.
FORK_WARNING = "ignore:This process:DeprecationWarning"


PRELUDE = """
import atexit, gc, multiprocessing, os, signal, sys, threading
last_words = []
atexit.register(lambda: [say() for say in last_words])  # runs after the library's own exit, which is registered later
from prefetch_generator import BackgroundGenerator

def refused(call):
    try:
        call()
    except RuntimeError as error:
        assert "make it in the child" in str(error), error
    else:
        raise AssertionError("not refused")

def enter_and_take(bg):
    with bg:
        next(bg)

def fork_and(check):
    # Runs the check in a child that exits as any script does, and is killed if it hangs.
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        check()
        sys.exit()
    assert os.waitpid(pid, 0)[1] == 0, "the child has failed, or hung and was killed"
"""


# Each leaves `bg`, which has `items` to give once `go` is set, and an error after them, or none.
STATES = {
    "running, nothing buffered": """
        def source():
            inside.set()
            go.wait()
            yield from items
        bg = BackgroundGenerator(source())
        inside.wait()
    """,
    "running, two buffered": """
        def source():
            yield from items[:2]
            inside.set()  # at the third step: the first two items are in the buffer
            go.wait()
            yield from items[2:]
        bg = BackgroundGenerator(source(), max_prefetch=3)
        inside.wait()
    """,
    "ended, all buffered": """
        bg = BackgroundGenerator(iter(items), max_prefetch=0, name="this")
        for thread in threading.enumerate():
            if thread.name == "BackgroundGenerator-this":
                thread.join()
    """,
    "failed, all buffered": """
        def source():
            threads.append(threading.current_thread())
            inside.set()
            yield from items
            raise error
        error, threads = ValueError("source"), []
        bg = BackgroundGenerator(source(), max_prefetch=0)
        inside.wait()
        threads[0].join()
    """,
    "a consumer waiting in another thread": """
        def source():
            go.wait()
            yield from items
        def consume():
            inside.set()
            taken.extend(bg)
        sys.setswitchinterval(60)  # nobody has to give up the GIL: when we go on, the consumer waits for an item
        taken = []
        bg = BackgroundGenerator(source())
        consumer = threading.Thread(target=consume)
        consumer.start()
        inside.wait()
    """,
}


def run_script(script: str) -> str:
    """Run a script in a fresh interpreter, demand that it ends well and silently, return what it printed."""
    out, err = python("-W", FORK_WARNING, "-c", PRELUDE + script)
    assert err == ""
    return out


def take_patiently(bg: BackgroundGenerator[int], into: list[int]) -> None:
    """Take all items, as somebody does who has something else to do every now and then."""
    while True:
        try:
            into.append(bg.next(0.01))
        except NotReadyError:
            continue
        except StopIteration:
            return


class Wrong:
    """A source that hints at a hundred items and gives fewer."""

    def __init__(self, items: int, failure: Exception | None = None) -> None:
        self.items, self.failure = items, failure

    def __length_hint__(self) -> int:
        return 100

    def __iter__(self) -> Iterator[int]:
        yield from range(self.items)
        if self.failure:
            raise self.failure


async def fetch() -> list[int]:
    return []


def construct(**arguments: object) -> object:
    return BackgroundGenerator(**{"iterable": [], **arguments})  # type: ignore[arg-type]


def decorate(function: object) -> object:
    return background(function)  # type: ignore[call-overload]


# Of a generator with an item to take and of an event that is set: the argument is wrong even where nobody would wait.
def next_(timeout: object) -> object:
    with BackgroundGenerator([0]) as bg:
        try:
            return bg.next(timeout)  # type: ignore[arg-type]
        finally:
            assert list(bg) == [0]


def close(timeout: object) -> object:
    bg = BackgroundGenerator([0])
    try:
        return bg.close(timeout)  # type: ignore[arg-type]
    finally:
        assert list(bg) == [0]  # not stopped


def wait(timeout: object) -> object:
    event = StopEvent()
    event.set()
    return event.wait(timeout)  # type: ignore[arg-type]


NO_INTEGERS = ["3", 1.0, math.nan, None, True, False, b"3", [3]]


NO_NUMBERS = ["1", b"1", True, False, [1], 1j]


NO_DURATIONS = [-1, -0.001, math.nan, -math.inf, -(10**400)]


# argument, what is allowed, the call, what is given
REFUSED: list[tuple[str, str, Callable[..., object], list[object]]] = [
    ("iterable", "iterable", construct, [5, None, object(), int]),
    ("max_prefetch", "integer", construct, [*NO_INTEGERS]),
    ("max_prefetch", "integer", background, [*NO_INTEGERS]),
    ("stop_event", "StopEvent or None", construct, [threading.Event(), True, "stop", StopEvent]),
    ("name", "string or None", construct, [b"x", 5, False]),
    ("timeout", "number of seconds or None", next_, [*NO_NUMBERS]),
    ("timeout", "number of seconds or None", close, [*NO_NUMBERS]),
    ("timeout", "number of seconds or None", wait, [*NO_NUMBERS]),
    ("timeout", "at least 0 seconds", next_, [*NO_DURATIONS]),
    ("timeout", "at least 0 seconds", close, [*NO_DURATIONS]),
    ("timeout", "at least 0 seconds", wait, [*NO_DURATIONS]),
    ("function", "callable", decorate, [5, "read", []]),
    ("function", "plain function", decorate, [staticmethod(fetch), classmethod(lambda cls: [])]),
    ("function", "iterable", decorate, [fetch]),
]


# E1


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
    out, err = run_program(script, "-W", "ignore:This process:DeprecationWarning")
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
        import multiprocessing
        with multiprocessing.get_context("fork").Pool(2) as pool:
            results = BackgroundGenerator(pool.imap(abs, BackgroundGenerator(range(-50, 0))), 4)
            say(sum(results))
    """
    assert run_program(script, "-W", "ignore:This process:DeprecationWarning") == (["1275"], "")


@needs_fork
@pytest.mark.parametrize("state", STATES)
def test_after_fork_the_child_is_refused_at_once_and_the_parent_untouched(state: str) -> None:
    """E1: After fork(), in the child, next() raises RuntimeError and close() returns, at once; new generators work.

    E1: It says to create the generator in the child; the parent is untouched.
    """
    run_script(
        f"""
items, error = [0, None, 2, 3, 4], None
go, inside = threading.Event(), threading.Event()
taken, consumer = [], None
if True:
{indent(STATES[state], "    ")}
def check():
    global bg
    for call in (lambda: next(bg), bg.next, lambda: bg.next(timeout=0), lambda: list(bg), lambda: enter_and_take(bg)):
        refused(call)
    assert bg.close(timeout=None) is True  # would wait forever for a worker that is not here
    assert bg.close() is True
    with bg:
        repr(bg), bg.stats, operator_free_hint(bg)
    refused(lambda: next(bg))
    bg.stop_event.set()
    refused(lambda: next(bg))
    del bg
    gc.collect()
    assert list(BackgroundGenerator(range(3))) == [0, 1, 2]
    new = BackgroundGenerator(range(1000))
    assert next(new) == 0 and new.close()

def operator_free_hint(bg):
    return bg.__length_hint__()

before = bg.stats[:2], repr(bg)
fork_and(check)
assert (bg.stats[:2], repr(bg)) == before
go.set()
if consumer:
    consumer.join()
try:
    for item in bg:
        taken.append(item)
except ValueError as raised:
    assert raised is error
else:
    assert error is None
assert taken == items
assert bg.close() and list(bg) == []
"""
    )


@needs_fork
def test_child_exits_cleanly() -> None:
    """E1: The child's exit ends the child's own generators, and does not wait for the parent's."""
    said = run_script("""
def source(whose):
    try:
        inside.set()
        yield from range(100)
    finally:
        os.write(1, f"{whose} closed; ".encode())

def check():
    global new
    inside.clear()
    new = BackgroundGenerator(source("child's"))
    assert next(new) == 0
    last_words.append(lambda: os.write(1, f"parent's told to stop: {bg.stop_event.is_set()}; ".encode()))

inside = threading.Event()
bg = BackgroundGenerator(source("parent's"))
inside.wait()
fork_and(check)
os.write(1, b"child gone; ")
assert next(bg) == 0 and bg.close()
""")
    assert said == "child's closed; parent's told to stop: False; child gone; parent's closed; "


@needs_fork
def test_each_generator_works_in_its_own_process_only() -> None:
    """E1: What is made in the child works there, and is refused in the child's child."""
    run_script("""
def check():
    middle = BackgroundGenerator(range(3))
    def check_below():
        refused(lambda: next(middle))
        refused(lambda: next(bg))
        assert middle.close() and bg.close()
        assert list(BackgroundGenerator(range(3))) == [0, 1, 2]
    fork_and(check_below)
    refused(lambda: next(bg))
    assert list(middle) == [0, 1, 2]

bg = BackgroundGenerator(range(3))
fork_and(check)
assert list(bg) == [0, 1, 2]
""")


@needs_fork
@pytest.mark.parametrize("forker", ["the caller", "the source"])
def test_multiprocessing_with_fork(forker: str) -> None:
    """E1: The same with multiprocessing's fork, from the caller's thread and from the worker's."""
    run_script(f"""
def check():
    signal.alarm(20)
    refused(lambda: next(bg))
    assert bg.close(timeout=None)
    assert list(BackgroundGenerator(BackgroundGenerator(range(3)))) == [0, 1, 2]

def fork():
    child = multiprocessing.get_context("fork").Process(target=check)
    child.start()
    child.join()
    assert child.exitcode == 0, child.exitcode

def source():
    made.wait()
    yield 0
    if {forker == "the source"}:
        fork()
    yield 1

made = threading.Event()
bg = BackgroundGenerator(source())
made.set()
assert next(bg) == 0
if {forker == "the caller"}:
    fork()
assert list(bg) == [1]
""")


@posix
def test_a_child_that_a_stopped_source_forks_is_no_worker() -> None:
    """E1, D3: its stop event is one that is never set there, and new generators work."""
    script = """
        import os
        from prefetch_generator import BackgroundGenerator, current_stop_event

        def source():
            yield 0
            current_stop_event().wait()
            pid = os.fork()
            if pid == 0:
                print(current_stop_event().is_set(), list(BackgroundGenerator(n for n in range(3))), flush=True)
                os._exit(0)
            os.waitpid(pid, 0)

        numbers = BackgroundGenerator(source())
        next(numbers)
        numbers.close()
    """
    out, _ = python("-W", "ignore::DeprecationWarning", "-c", dedent(script))
    assert out == "False [0, 1, 2]\n"


# E2


@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        *(lambda bg, p=p: pickle.dumps(bg, p) for p in range(pickle.HIGHEST_PROTOCOL + 1)),
    ],
)
def test_copying_or_pickling_is_a_type_error_that_says_why(duplicate: Callable[[object], object]) -> None:
    """E2: Copying or pickling is a `TypeError` that says why."""
    bg = BackgroundGenerator(range(3), name="numbers")
    with pytest.raises(TypeError, match=r"cannot copy or pickle .*'numbers'.*its thread"):
        duplicate(bg)
    assert list(bg) == [0, 1, 2]  # and harms nothing


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copying_a_stop_event_says_why_it_cannot_be(copied: Callable[[object], object]) -> None:
    """E2: copying or pickling is a TypeError that says why, for a stop event too."""
    with pytest.raises(TypeError, match="nobody would set, or hear, the copy"):
        copied(StopEvent())


# E3


@pytest.mark.parametrize("timeout", [0, 0.0, 0.01])
def test_next_with_timeout_raises_timeout_error_and_loses_nothing(timeout: float) -> None:
    """E3: `next(timeout)` raises `TimeoutError` and loses nothing."""
    go: SimpleQueue[None] = SimpleQueue()

    def source() -> Iterator[int]:
        for number in range(3):
            go.get()
            yield number

    with BackgroundGenerator(source()) as bg:
        for number in range(3):
            for _ in range(3):
                with pytest.raises(TimeoutError, match=f"{timeout}"):
                    bg.next(timeout)
            go.put(None)
            assert bg.next(timeout=LONG) == number
        with pytest.raises(StopIteration):
            bg.next(timeout=LONG)


def test_next_with_timeout_loses_nothing_at_the_end_either() -> None:
    """E3: A failure, and the end after it, come after a timeout as they come without one."""
    go = threading.Event()

    def source() -> Iterator[int]:
        if go.wait(LONG):
            raise ValueError("source")
        yield 0

    with BackgroundGenerator(source()) as bg:
        with pytest.raises(TimeoutError):
            bg.next(0)
        go.set()
        with pytest.raises(ValueError, match="source"):
            bg.next(LONG)
        with pytest.raises(StopIteration):
            bg.next(0)


def test_next_with_timeout_zero_takes_what_is_ready() -> None:
    """E3: A timeout of 0 does not wait, and takes an item that is there."""
    third = threading.Event()

    def source() -> Iterator[int]:
        yield from range(2)
        third.set()
        yield 2

    with BackgroundGenerator(source(), max_prefetch=3) as bg:
        assert third.wait(LONG)
        assert [bg.next(0), bg.next(0)] == [0, 1]


def test_not_ready_error_is_a_timeout_error_of_its_own() -> None:
    """E3: `next(timeout)` raises `NotReadyError`, a class of its own that is a `TimeoutError`."""
    assert issubclass(NotReadyError, TimeoutError)
    go = threading.Event()
    with BackgroundGenerator(go.wait(LONG) for _ in range(1)) as bg:
        with pytest.raises(TimeoutError) as raised:
            bg.next(0)
        assert type(raised.value) is NotReadyError
        go.set()
        assert list(bg) == [True]


def test_a_timeout_error_of_the_source_is_forwarded_as_itself() -> None:
    """E3: Who catches `NotReadyError` and calls again cannot swallow what the source, a socket say, has raised."""
    failure = TimeoutError("the socket's own")

    def source() -> Iterator[int]:
        yield 0
        raise failure

    got: list[int] = []
    with pytest.raises(TimeoutError) as raised:
        take_patiently(BackgroundGenerator(source()), got)
    assert raised.value is failure
    assert got == [0]


def test_a_not_ready_error_that_leaves_a_source_is_a_runtime_error() -> None:
    """E3: So a loop that catches `NotReadyError` does not take the failure of its source for a moment's delay."""
    failures: list[NotReadyError] = []

    def source() -> Iterator[int]:
        yield 0
        with BackgroundGenerator(current_stop_event().wait(LONG) for _ in range(1)) as inner:
            try:
                inner.next(0.01)
            except NotReadyError as failure:
                failures.append(failure)
                raise

    got: list[int] = []
    bg = BackgroundGenerator(source())
    with pytest.raises(RuntimeError, match="NotReadyError") as raised:
        take_patiently(bg, got)
    assert [raised.value.__cause__] == failures
    assert got == [0]
    with pytest.raises(StopIteration):
        bg.next(0)


# E4


def test_length_hint_is_the_sources_less_what_was_delivered() -> None:
    """E4: `operator.length_hint` is what the source hinted at construction less what was delivered."""
    for source in ([0, 1, 2], iter([0, 1, 2]), range(3)):
        bg = BackgroundGenerator(source)
        hints = [operator.length_hint(bg, -1) for _ in bg]
        assert hints == [2, 1, 0]
        assert operator.length_hint(bg, -1) == 0


def test_length_hint_is_taken_at_construction() -> None:
    """E4: The hint is that of the construction, whatever the source says later."""
    go = threading.Event()

    class Growing:
        hint = 3

        def __length_hint__(self) -> int:
            return self.hint

        def __iter__(self) -> Iterator[int]:
            assert go.wait(LONG)
            yield from range(5)

    source = Growing()
    bg = BackgroundGenerator(source)
    source.hint = 100
    assert operator.length_hint(bg) == 3
    go.set()
    assert [operator.length_hint(bg, -1) for _ in bg] == [2, 1, 0, 0, 0]  # never below 0


@pytest.mark.parametrize("failure", [None, ValueError("source")])
def test_length_hint_is_0_once_it_is_over(failure: Exception | None) -> None:
    """E4: Once the source has ended the hint is what is buffered, then 0, whatever the source had hinted at."""
    bg = BackgroundGenerator(Wrong(3, failure), 0)
    assert bg._worker.ended.wait(LONG)
    hints = []
    try:
        for _ in bg:
            hints.append(operator.length_hint(bg, -1))  # noqa: PERF401 - the loop may fail
    except ValueError as error:
        assert error is failure  # noqa: PT017 - it may also end
    assert hints == [2, 1, 0]
    assert operator.length_hint(bg, -1) == 0
    assert list(bg) == []  # `list` asks for the hint


@pytest.mark.parametrize("how", ["close", "own event", "shared event"])
def test_length_hint_is_0_once_it_is_stopped(how: str) -> None:
    """E4: A generator that is closed, or stopped by an event, has no more to give, though items were buffered."""
    shared = StopEvent()
    bg = BackgroundGenerator(Wrong(3), stop_event=shared)
    assert next(bg) == 0
    assert operator.length_hint(bg, -1) == 99
    if how == "close":
        bg.close()
    else:
        (shared if how == "shared event" else bg.stop_event).set()
    assert operator.length_hint(bg, -1) == 0
    assert list(bg) == []


def test_without_a_hint_of_the_source_there_is_none() -> None:
    """E4: A source that does not hint, or cannot, makes no hint and no error."""

    class Unmeasurable:
        def __len__(self) -> int:
            raise ValueError("nobody knows")

        def __iter__(self) -> Iterator[int]:
            return iter([1])

    for source in ((x for x in [1]), Unmeasurable()):
        bg = BackgroundGenerator(source)
        assert operator.length_hint(bg, 42) == 42
        assert list(bg) == [1]


def test_no_len_and_always_true() -> None:
    """E4: no `__len__`, and the object is always true."""
    bg: BackgroundGenerator[int] = BackgroundGenerator([])
    assert not hasattr(bg, "__len__")
    with pytest.raises(TypeError):
        len(bg)  # type: ignore[arg-type]
    assert bool(bg) is True
    assert list(bg) == []
    assert bool(bg) is True
    bg.close()
    assert bool(bg) is True


def test_the_length_hint_of_what_is_over_is_zero_without_a_hint_of_the_source_too() -> None:
    """E4: then there is nothing that it would have to guess."""
    numbers = BackgroundGenerator(n for n in range(3))
    assert operator.length_hint(numbers, 10) == 10
    assert numbers.close() is True
    assert operator.length_hint(numbers, 10) == 0


def test_a_source_that_hints_at_nothing_is_not_one_without_a_hint() -> None:
    """E4: operator.length_hint is what the source hinted at, and 0 is a hint."""
    assert length_hint(BackgroundGenerator([]), 7) == 0
    assert length_hint(BackgroundGenerator(n for n in range(3)), 7) == 7


# E5


def test_repr_shows_name_state_and_fill() -> None:
    """E5: `repr` shows the name, the state (running, finished, failed, closed) and the fill."""
    threads: SimpleQueue[threading.Thread] = SimpleQueue()
    go: SimpleQueue[None] = SimpleQueue()

    def load_batches(error: Exception | None = None) -> Iterator[int]:
        yield 0
        threads.put(threading.current_thread())  # at the second step: the first item is in the buffer
        go.get()
        if error:
            raise error
        yield 1

    bg = BackgroundGenerator(load_batches(), max_prefetch=4)
    worker = threads.get(timeout=LONG)
    assert repr(bg) == "<BackgroundGenerator 'load_batches' running, 1/4 buffered>"
    assert next(bg) == 0
    assert repr(bg) == "<BackgroundGenerator 'load_batches' running, 0/4 buffered>"
    go.put(None)
    worker.join(LONG)
    assert repr(bg) == "<BackgroundGenerator 'load_batches' finished, 1/4 buffered>"
    assert list(bg) == [1]
    assert repr(bg) == "<BackgroundGenerator 'load_batches' finished, 0/4 buffered>"

    bg = BackgroundGenerator(load_batches(ValueError("source")), 0)  # no bound
    worker = threads.get(timeout=LONG)
    assert repr(bg) == "<BackgroundGenerator 'load_batches' running, 1 buffered>"
    go.put(None)
    worker.join(LONG)
    assert repr(bg) == "<BackgroundGenerator 'load_batches' failed, 1 buffered>"
    assert next(bg) == 0
    with pytest.raises(ValueError, match="source"):
        next(bg)
    assert repr(bg) == "<BackgroundGenerator 'load_batches' failed, 0 buffered>"

    bg = BackgroundGenerator(load_batches(), name="nightly")
    threads.get(timeout=LONG)
    go.put(None)
    bg.close()
    assert repr(bg) == "<BackgroundGenerator 'nightly' closed, 0/2 buffered>"


def test_repr_of_a_subclass_is_its_own() -> None:
    """E5: A subclass, the usual way to give a loader more methods, goes by its own name."""

    class Loader(BackgroundGenerator[int]):
        pass

    with Loader([]) as loader:
        assert repr(loader).startswith("<Loader 'list' ")


def test_threads_are_daemons_named_after_the_source() -> None:
    """E5: threads are daemons named after the source (`BackgroundGenerator-load_batches`)."""

    def load_batches() -> Iterator[threading.Thread]:
        yield threading.current_thread()

    class Loader:
        def __iter__(self) -> Iterator[threading.Thread]:
            return load_batches()

    def look(bg: BackgroundGenerator[threading.Thread]) -> tuple[str, bool]:
        (thread,) = bg
        return thread.name, thread.daemon

    assert look(BackgroundGenerator(load_batches())) == ("BackgroundGenerator-load_batches", True)
    assert look(BackgroundGenerator(Loader())) == ("BackgroundGenerator-Loader", True)
    assert look(BackgroundGenerator(Loader(), name="nightly")) == ("BackgroundGenerator-nightly", True)
    assert look(background(load_batches)()) == ("BackgroundGenerator-load_batches", True)
    assert look(background(lambda: iter(Loader()))()) == ("BackgroundGenerator-<lambda>", True)


def test_its_name_is_the_sources() -> None:
    """E5: `__name__` is the source's name, as a generator's is its function's, or the one that it was given."""

    def load_batches() -> Iterator[int]:
        yield 0

    assert BackgroundGenerator(load_batches()).__name__ == "load_batches"
    assert BackgroundGenerator([0]).__name__ == "list"
    assert BackgroundGenerator([0], name="nightly").__name__ == "nightly"
    assert f"{BackgroundGenerator.__name__}" == "BackgroundGenerator"  # the class's own is another


def test_a_chains_outer_generator_takes_the_inner_ones_name() -> None:
    """E5: ... in `repr` and in its thread's name too."""

    def load_batches() -> Iterator[int]:
        while True:
            yield 0

    with BackgroundGenerator(BackgroundGenerator(load_batches())) as outer:
        assert repr(outer).startswith("<BackgroundGenerator 'load_batches' ")
        assert next(outer) == 0
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("BackgroundGenerator-load_batches") == 2


def test_a_stop_events_repr_shows_its_state() -> None:
    """E5: repr shows the state."""
    event = StopEvent()
    assert repr(event) == "<StopEvent not set>"
    event.set()
    assert repr(event) == "<StopEvent set>"


def test_a_source_whose_name_cannot_be_had_is_named_after_its_type() -> None:
    """E5, A3: a name is not worth failing for."""

    class Nameless:
        @property
        def __name__(self) -> str:
            raise ValueError

        def __iter__(self) -> Iterator[int]:
            return iter(range(3))

    numbers = BackgroundGenerator(Nameless())
    assert repr(numbers).startswith("<BackgroundGenerator 'Nameless' ")
    assert list(numbers) == [0, 1, 2]


# E6


@pytest.mark.parametrize(
    ("argument", "allowed", "call", "given"),
    [(argument, allowed, call, given) for argument, allowed, call, wrong in REFUSED for given in wrong],
)
def test_messages_name_the_argument_what_is_allowed_and_what_was_given(
    argument: str, allowed: str, call: Callable[..., object], given: object
) -> None:
    """E6: Error messages name the argument, what is allowed and what was given."""
    kind = ValueError if allowed == "at least 0 seconds" else TypeError
    message = rf"{argument} must .*{allowed}.*, got .*{re.escape(repr(given))}"
    with pytest.raises(kind, match=message):
        call(**{argument: given})


@pytest.mark.parametrize("timeout", [10**400, 2**63, math.inf, sys.float_info.max, None])
def test_a_timeout_may_be_of_any_length(timeout: float | None) -> None:
    """E6: What is a number of seconds, however large, is no error: it waits as long as it takes."""
    go = threading.Event()

    def source() -> Iterator[int]:
        assert go.wait(LONG)
        yield 0
        current = bg.stop_event
        assert current.wait(timeout)

    bg = BackgroundGenerator(source())
    opener = threading.Timer(0.01, go.set)  # so that next() has begun to wait; if not, it has less to do
    opener.start()
    assert bg.next(timeout) == 0
    assert bg.close(timeout) is True
    opener.join()


# E7


def test_a_blocked_import_of_gevent_is_no_gevent() -> None:
    """E7: `sys.modules["gevent"] = None`, by which an import is blocked, changes nothing."""
    script = """
        import sys, time
        sys.modules["gevent"] = None
        from prefetch_generator import BackgroundGenerator
        print(list(BackgroundGenerator(time.sleep(0.01) or n for n in range(3))))
    """
    assert python("-c", dedent(script)) == ("[0, 1, 2]\n", "")
