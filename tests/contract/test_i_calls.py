"""Contract, section I, sentences 1 and 2: how a function gets to a process of its own, and what comes back."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import multiprocessing
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.sharedctypes import RawValue
from operator import length_hint
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from prefetch_generator import BackgroundGenerator, NotReadyError, _process_source, _process_wire, background
from tests.helpers import LONG, needs, posix, python

from . import child_sources
from . import process_calls as calls
from .process_calls import (
    AFRESH,
    CHEAPEST,
    CHEAPEST_AFRESH,
    METHODS,
    Equal,
    Library,
    LoudLibrary,
    SlowToLoad,
    Squares,
    Where,
    in_process,
    pipe,
)

every_method = pytest.mark.parametrize("method", METHODS)
every_sending_method = pytest.mark.parametrize("method", AFRESH)
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.. may lead to deadlocks:DeprecationWarning")


BEFORE = "from prefetch_generator import background\n"


def script(path: Path, text: str, returncode: int = 0, **environment: Any) -> tuple[str, str]:
    """Run a script that has a file of its own, in a process of its own; return what it wrote."""
    path.write_text(BEFORE + textwrap.dedent(text), encoding="utf-8")
    return python(str(path), returncode=returncode, **environment)


@pytest.fixture
def no_cloudpickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have cloudpickle not be installed."""
    monkeypatch.setitem(sys.modules, "cloudpickle", None)


# I1


@every_method
def test_a_function_runs_on_the_main_thread_of_a_child_process(method: Any) -> None:
    """I1: `process="spawn" | "forkserver" | "fork"` names the start method. The child is not daemonic."""
    (place,) = in_process(calls.where, method=method)
    assert place == Where(place.process, False, True, method, "the default")
    assert place.process != os.getpid()


def test_each_call_has_a_process_of_its_own() -> None:
    """I1: runs the function in a child process: each call (F2) in another."""
    assert len({place.process for _ in range(3) for place in in_process(calls.where)}) == 3


def test_false_is_a_thread() -> None:
    """I1: `False` is a thread."""
    (place,) = in_process(calls.where, method=False)
    assert (place.process, place.on_main_thread) == (os.getpid(), False)


SAYS_THE_METHOD = """
    import multiprocessing
    from tests.contract.process_calls import where
    if __name__ == "__main__":
        decorated = background(process=True)(where)
        if {default!r}:
            multiprocessing.set_start_method({default!r})
        (place,) = decorated()
        print(place.method)
"""


@pytest.mark.parametrize("default", [None, *METHODS])
def test_true_is_the_default_method_but_never_a_fork(default: Any, tmp_path: Path) -> None:
    """I1: `True` is its default one, except that a default of fork becomes forkserver. It counts at the call."""
    out, _ = script(tmp_path / "main.py", SAYS_THE_METHOD.format(default=default), PYTHONPATH=os.pathsep.join(sys.path))
    never = "forkserver" if "forkserver" in METHODS else "spawn"
    assert out.split() == [default if default in AFRESH else never]


def test_the_decorator_keeps_all_that_it_keeps_with_a_thread(no_cloudpickle: None) -> None:
    """I1: everything else about the decorator stays as it is: signature, name, docstring, `__wrapped__`; arguments."""
    plain = inspect.unwrap(calls.read)
    assert inspect.signature(calls.read) == inspect.signature(plain)
    assert (calls.read.__name__, calls.read.__module__, calls.read.__doc__) == ("read", calls.__name__, "Read a file.")
    assert list(plain("abcdef", 2)) == ["ab"]
    assert list(calls.read("abcdef", 2, "more", upper=True, path="of its own")) == ["AB", "MORE", "OF ITS OWN"]


def test_the_generator_is_what_it_is_with_a_thread() -> None:
    """I1: everything else about the generator stays as it is: its kind, name, bound, hint, statistics and states."""
    with in_process(calls.count, 5, max_prefetch=3) as numbers:
        assert type(numbers) is BackgroundGenerator
        assert numbers.__name__ == "count"
        assert next(numbers) == 0
        assert repr(numbers).startswith("<BackgroundGenerator 'count' running, ")
        assert repr(numbers).endswith("/3 buffered>")
        assert length_hint(numbers, 77) == 77
        assert list(numbers) == [1, 2, 3, 4]
        assert (numbers.stats.delivered, numbers.stats.buffered) == (5, 0)
        assert "finished" in repr(numbers)
    assert list(numbers) == []
    assert numbers.close() is True


def test_methods_class_methods_and_static_methods_are_found_by_name(no_cloudpickle: None) -> None:
    """I1: The function is found by its module and name in the child (the decorated name leads to it): every kind."""
    library = LoudLibrary("ab")
    assert list(library.letters(1)) == list(Library.letters(library, size=1)) == list("a!!")
    assert list(LoudLibrary.of("c")) == list(library.of("c")) == list("c!!")
    assert list(Library.static("d")) == list(library.static(text="d")) == ["d"]
    assert list(Library.Inner.deep("e")) == ["e"]


def test_decorators_above_and_below(no_cloudpickle: None) -> None:
    """I1: The decorated name leads to the function: below, above and between other decorators."""
    assert list(calls.loud_within("a")) == list(calls.loud_without("a")) == ["A"]
    assert list(calls.loud_within_and_without("a")) == ["A"]
    assert list(calls.doubled("a", "b")) == ["a", "b"]


def test_other_callables(no_cloudpickle: None) -> None:
    """I1: Whatever is called and can be pickled will do: a partial, an object, a class, a bound method, a builtin."""
    callables: list[tuple[Callable[..., Any], tuple[int, ...], list[int]]] = [
        (functools.partial(calls.count, 2), (), [0, 1]),
        (Squares(2), (1,), [0, 1, 4]),
        (Squares, (2,), [0, 1]),
        (Squares(2).__iter__, (), [0, 1]),
        (range, (2,), [0, 1]),
    ]
    for function, arguments, items in callables:
        assert list(in_process(function, *arguments, method=CHEAPEST_AFRESH)) == items


def test_another_function_than_a_generator_function_runs_there_too() -> None:
    """I1: runs the function in a child process: also one that returns its iterable."""
    process, *items = in_process(calls.listed, 2)
    assert process != os.getpid()
    assert items == [0, 1]
    with pytest.raises(TypeError, match="'int' object is not iterable"):
        next(in_process(calls.nothing_to_iterate))


def a_closure(start: int) -> Callable[[int], Iterator[int]]:
    def closure(n: int) -> Iterator[int]:
        yield from range(start, n)

    return closure


NAMELESS: dict[str, Callable[..., Any]] = {
    "lambda": lambda n: range(1, n),
    "closure": a_closure(1),
}
every_nameless = pytest.mark.parametrize("function", NAMELESS.values(), ids=NAMELESS)


@every_nameless
@needs("cloudpickle")
def test_a_function_without_a_name_is_sent_by_cloudpickle(function: Callable[..., Any]) -> None:
    """I1: one that cannot be (a lambda, a closure, a notebook's) is sent with `cloudpickle` where that is installed."""
    assert list(in_process(function, 3, method=CHEAPEST_AFRESH)) == [1, 2]


@every_nameless
def test_without_cloudpickle_it_is_an_error_that_says_so(function: Callable[..., Any], no_cloudpickle: None) -> None:
    """I1: and is otherwise a `TypeError` at the call that says so; fork needs neither."""
    decorated = background(process=CHEAPEST_AFRESH)(function)
    before = multiprocessing.active_children()
    with pytest.raises(TypeError, match=r"^function of .* cannot be sent to another process, .*install cloudpickle"):
        decorated(3)
    assert multiprocessing.active_children() == before
    if CHEAPEST == "fork":
        assert list(in_process(function, 3)) == [1, 2]


def test_a_name_that_leads_elsewhere_is_not_used(no_cloudpickle: None) -> None:
    """I1: The function is found by its module and name in the child: never another one that has the same name."""

    def count(n: int) -> Iterator[int]:
        yield n

    count.__module__, count.__qualname__ = calls.__name__, "count"
    with pytest.raises(TypeError, match=r"^function of count\(\) cannot be sent"):
        in_process(count, 3, method=CHEAPEST_AFRESH)


def counts(methods: list[Any], *, without_cloudpickle: bool) -> str:
    hidden = "import sys; sys.modules['cloudpickle'] = None" if without_cloudpickle else ""
    return f"""{hidden}
def count(n, count_by=range):
    yield from count_by(n)
def numbers(n):
    return range(n)
if __name__ == "__main__":
    for method in {methods}:
        print(*background(process=method)(count)(3, numbers))
"""


def test_the_function_of_a_script_is_found_there(tmp_path: Path) -> None:
    """I1: The function is found by its module and name in the child: that of the main module, which has a guard."""
    out, _ = script(tmp_path / "main.py", counts(METHODS, without_cloudpickle=True))
    assert out.split("\n") == ["0 1 2"] * len(METHODS) + [""]


@pytest.mark.parametrize("is_installed", [pytest.param(True, marks=needs("cloudpickle")), False])
def test_the_function_of_a_command_line(is_installed: bool) -> None:
    """I1: a notebook's is sent with `cloudpickle`, and is otherwise a `TypeError`: and so is one of `python -c`."""
    text = BEFORE + counts(AFRESH, without_cloudpickle=not is_installed)
    out, err = python("-c", text, returncode=int(not is_installed))
    assert out.split("\n")[:-1] == ["0 1 2"] * len(AFRESH) * is_installed
    assert ("TypeError: function of count() cannot be sent to another process" in err) is not is_installed


@every_sending_method
def test_a_script_without_a_guard_is_an_error_that_says_so(method: Any, tmp_path: Path) -> None:
    """I1: A script without the guard gets an error that says so, and starts no processes without end."""
    text = """
        with open({runs!r}, "a") as runs:
            print("run", file=runs)
        @background(process={method!r})
        def count(n):
            yield from range(n)
        print(*count(3))
    """
    runs = tmp_path / "runs"
    out, err = script(tmp_path / "main.py", text.format(runs=str(runs), method=method), returncode=1)
    assert runs.read_text(encoding="utf-8").split() == ["run", "run"]  # the main module of the script and of its child
    assert out == ""
    assert "cannot start a process for 'count' while a new process begins" in err
    last = err.rstrip().rpartition("\n")[2]
    assert last.startswith(("prefetch_generator.SourceProcessError: ", "RuntimeError: "))
    assert "if __name__ == '__main__'" in last


def test_a_function_inside_the_guard_is_an_error_that_says_so(tmp_path: Path) -> None:
    """I1: a new process does not run what is guarded, so it has no such function."""
    text = """
        if __name__ == "__main__":
            @background(process="spawn")
            def count(n):
                yield from range(n)
            print(*count(3))
    """
    out, err = script(tmp_path / "main.py", text, returncode=1)
    assert out == ""
    last = err.rstrip().rpartition("\n")[2]
    assert last.startswith("AttributeError: a new process finds no count in __main__: ")
    assert "outside of `if __name__ == '__main__':`" in last


def test_a_daemonic_process_may_have_no_children() -> None:
    """I1: In a process that may have no children, the call is an error that says so."""
    process = multiprocessing.current_process()
    process._config["daemon"] = True  # type: ignore[attr-defined]  # which is what makes it one
    try:
        with pytest.raises(RuntimeError, match="cannot start a process for 'count': this one is daemonic"):
            in_process(calls.count, 3)
    finally:
        del process._config["daemon"]  # type: ignore[attr-defined]


def test_a_thread_that_is_a_greenlet_cannot_wait_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """I1: Where gevent has patched `threading`, the call is an error that says so."""
    monkeypatch.setattr(_process_source, "threads_are_greenlets", lambda: True)
    with pytest.raises(RuntimeError, match=r"^a source in a process needs a thread of its own, and gevent has patched"):
        in_process(calls.count, 3)


@pytest.mark.parametrize("method", [True, *METHODS])
def test_an_async_def_is_refused_at_decoration(method: Any) -> None:
    """I1: An `async def` generator function with `process` is a `TypeError` at decoration."""

    async def pages() -> AsyncIterator[int]:
        yield 0

    with pytest.raises(TypeError, match=r"^function must not be `async def` with process="):
        background(process=method)(pages)


@pytest.mark.parametrize(
    ("process", "error"),
    [("thread", ValueError), ("", ValueError), ("Fork", ValueError), (None, TypeError), (1, TypeError), (0, TypeError)],
)
def test_a_wrong_process_is_refused_at_decoration(process: Any, error: type[Exception]) -> None:
    """I1: A wrong `process` is an error at decoration (F3), with the list of this platform's start methods."""
    names = ", ".join(map(repr, METHODS))
    with pytest.raises(error, match=f"^process must be True, False or one of {names}, got {process!r}$"):
        background(process=process)


def test_a_start_method_that_the_platform_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """I1: names `multiprocessing`'s start method: one that this platform does not have is a ValueError."""
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    with pytest.raises(ValueError, match=r"^process must be True, False or one of 'spawn', got 'fork'$"):
        background(process="fork")


def test_wrong_arguments_of_the_function_are_refused_at_the_call() -> None:
    """I1: everything else about the decorator stays as it is: a wrong argument of the function at the call (F3)."""
    for function in (calls.count, calls.listed, calls.nothing_to_iterate):
        with pytest.raises(TypeError, match="argument"):
            in_process(function, 1, 2)
    with pytest.raises(TypeError, match="argument"):
        calls.read()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="argument"):
        calls.read("", 1, size=2)  # type: ignore[misc]


def test_the_import_of_the_package_brings_none_of_it() -> None:
    """I1: Whoever uses no process pays nothing: `import prefetch_generator` imports no `multiprocessing`."""
    text = """
        import sys
        before = set(sys.modules)  # what measures coverage brings some of it
        from prefetch_generator import background

        @background
        def count(n):
            yield from range(n)

        background(process=True)(count.__wrapped__)
        assert list(count(3)) == [0, 1, 2]
        new = set(sys.modules) - before
        print(*(name for name in new if "process" in name or name in {"pickle", "socket", "mmap", "ctypes"}))
    """
    out, _ = python("-c", textwrap.dedent(text))
    assert out == "\n"


# I2


def test_context_variables_do_not_cross() -> None:
    """I2: context variables do not cross: not even with a fork."""
    context = contextvars.copy_context()
    context.run(calls.variable.set, "the parent's")
    (place,) = context.run(in_process, calls.where)
    assert place.context == "the default"


@pytest.mark.parametrize(("method", "max_prefetch"), [(CHEAPEST, 1), (CHEAPEST, 16), *((one, 2) for one in METHODS)])
def test_the_bound_is_exact_over_both_processes(method: Any, max_prefetch: int) -> None:
    """I2: The bound is exact for both processes together: reached after every `next`, never exceeded at a pull."""
    n, begun = 100, RawValue("i", 0)
    with (
        pipe() as (reports, writer),
        in_process(calls.reporting, writer, begun, n, method=method, max_prefetch=max_prefetch) as items,
    ):
        for i in range(max_prefetch):
            assert reports.poll(LONG)
            assert reports.recv() == i  # it is ahead so far, with nothing taken
        for i in range(n):
            begun.value += 1
            number, begun_at_the_pull = next(items)
            assert number == i
            assert begun_at_the_pull >= number + 1 - max_prefetch
            if i + max_prefetch < n:
                assert reports.poll(LONG)  # and after each `next`
                assert reports.recv() == i + max_prefetch


def test_no_bound_is_none() -> None:
    """I2: The bound holds for both processes together; with none the process goes on to the source's end."""
    n, begun = 17_000, RawValue("i", 0)
    with pipe() as (reports, writer), in_process(calls.reporting, writer, begun, n, max_prefetch=0) as items:
        for i in range(n):
            assert reports.poll(LONG)
            assert reports.recv() == i
            assert items._channel.deliveries is items._channel.counter  # nobody asks for room, so nobody gives it
        assert list(items) == [(i, 0) for i in range(n)]


def test_a_bound_larger_than_a_pipe_takes() -> None:
    """I2: The bound is exact, and one that is too large for a pipe of room is no reason to wait for ever."""
    assert list(in_process(calls.count, 40_000, max_prefetch=1_000_000)) == list(range(40_000))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much a pipe is to take")
def test_a_bound_larger_than_the_smallest_pipe_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """I2, A1: nor where the pipes of a user who has many take one page each; nobody then waits for anybody."""
    import fcntl  # noqa: PLC0415 - which Windows has not

    def make_small_pipe() -> Any:
        reader, writer = make_pipe()
        fcntl.fcntl(writer.fileno(), fcntl.F_SETPIPE_SZ, 4096)
        return reader, writer

    make_pipe = _process_wire.make_pipe
    monkeypatch.setattr(_process_source, "make_pipe", make_small_pipe)
    text = "x" * 500  # many of which no socket takes
    with in_process(calls.given, *[text] * 10_000, max_prefetch=10_000) as items:
        assert items.next(LONG) == text
        assert list(items) == [text] * 9_999


@posix
@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "2>&-"])
def test_closed_standard_files(tmp_path: Path, closed: str) -> None:
    """I2, A1: where input, output and errors are closed, what connects the two is not taken for one of these."""
    (tmp_path / "main.py").write_text(BEFORE + textwrap.dedent(PRINTS), encoding="utf-8")
    out = tmp_path / "out"
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, str(tmp_path / "main.py"), str(out)]
    assert subprocess.run(command, timeout=LONG, check=False, stdout=subprocess.DEVNULL).returncode == 0
    assert out.read_text(encoding="utf-8") == "[0, 1, 2]"


PRINTS = """
    import contextlib, os, sys
    from pathlib import Path
    @background(process="spawn")
    def prints():
        for i in range(3):
            print("noise " * 5, flush=True)
            with contextlib.suppress(OSError):
                os.write(2, b"noise")
            yield i
    if __name__ == "__main__":
        Path(sys.argv[1]).write_text(str(list(prints())))
"""


def test_a_default_timeout_of_sockets_is_that_of_others() -> None:
    """I2, A1: the child waits for as long as the parent is busy, whatever `socket.setdefaulttimeout` says."""
    socket.setdefaulttimeout(0.1)
    try:
        items = in_process(calls.given, SlowToLoad(0.5), "x" * 3_000_000, "more", max_prefetch=3)
    finally:
        socket.setdefaulttimeout(None)
    assert [len(item or "") for item in items] == [0, 3_000_000, 4]


def test_what_the_process_has_waited_for_room() -> None:
    """I2: All of A to G holds: `stats.producer_wait` is what the source waited for its consumer."""
    with pipe() as (told, tell), in_process(child_sources.telling, tell, 4, max_prefetch=1) as numbers:
        begun = time.monotonic()
        for i in range(2):
            assert told.recv() == i
            if not i:
                assert next(numbers) == 0
        threading.Event().wait(0.3)
        assert list(numbers) == [1, 2, 3]
        assert 0.1 < numbers.stats.producer_wait < time.monotonic() - begun


def test_the_start_is_no_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """I2: All of A to G holds: `stats.producer_wait` begins with the first item."""

    def grant(*arguments: Any) -> Any:
        threading.Event().wait(0.2)
        return deliveries(*arguments)

    deliveries = _process_source._Link._deliveries
    monkeypatch.setattr(_process_source._Link, "_deliveries", grant)
    numbers = in_process(calls.count, 3, max_prefetch=4)
    assert list(numbers) == [0, 1, 2]
    assert numbers.stats.producer_wait == 0.0


ITEMS: list[Any] = [None, False, 0, "", (), [1, [2]], {"a": {1, 2}}, 1.5, 10**100, b"\0\xff", "\ud800", range(3)]
ITEMS += [ValueError, print, NotImplemented, ..., bytearray(3), Equal(1, Equal("two")), StopIteration, "x" * 100_000]


@needs("torch")
def test_tensors_as_arguments_are_copied(tmp_path: Path) -> None:
    """I2: arguments are pickled: tensors too, which PyTorch would share with the process."""
    text = """
        import torch
        from tests.contract.process_calls import given
        if __name__ == "__main__":
            tensor = torch.zeros(2)
            tensors = background(process="forkserver")(given)(tensor)
            tensor += 1
            print(*next(tensors).tolist())
    """
    (tmp_path / "main.py").write_text(BEFORE + textwrap.dedent(text), encoding="utf-8")
    assert python(str(tmp_path / "main.py"), strict=False, PYTHONPATH=os.pathsep.join(sys.path))[0] == "0.0 0.0\n"


@every_method
def test_items_arrive_in_order_as_their_equals(method: Any) -> None:
    """I2: items and arguments are pickled, so an item arrives as its equal: of all kinds, in order."""
    arrived = list(in_process(calls.given, *ITEMS, method=method))
    assert arrived == ITEMS
    assert [*map(type, arrived)] == [*map(type, ITEMS)]
    assert arrived[5] is not ITEMS[5]


def test_exceptions_are_items_like_others() -> None:
    """I2: an item arrives as its equal: an exception that is given, not raised, is an item."""
    errors = [StopIteration(3), GeneratorExit(), KeyError("a"), NotReadyError("b"), SystemExit(1)]
    arrived = list(in_process(calls.given, *errors))
    assert [(type(error), error.args) for error in arrived] == [(type(error), error.args) for error in errors]


def test_no_items() -> None:
    """I2: All of A to G holds: a source without items ends."""
    assert list(in_process(calls.given)) == []


@pytest.mark.parametrize("max_prefetch", [0, 1])
def test_large_items_that_are_no_buffers(max_prefetch: int) -> None:
    """I2: items are pickled: also those of many megabytes, which no socket takes at once."""
    items = [list(range(1_000_000)), "ä" * 8_000_000, 1, b"x" * 16_000_000, {i: str(i) for i in range(200_000)}]
    assert list(in_process(calls.given, *items, max_prefetch=max_prefetch)) == items


def test_an_item_is_what_it_was_when_it_was_given() -> None:
    """I2: items are pickled, before the source goes on: one that changes its item afterwards changes nothing."""
    assert list(in_process(calls.reusing, 50, max_prefetch=16)) == [[i] for i in range(50)]


def test_arguments_are_pickled_once_at_the_call() -> None:
    """I2: items and arguments are pickled: at the call, so what becomes of the argument afterwards changes nothing."""
    rows = [1, 2]
    items = in_process(calls.given, rows, method=CHEAPEST_AFRESH)
    rows.append(3)
    assert list(items) == [[1, 2]]


def test_the_return_value() -> None:
    """I2: All of A to G holds: StopIteration brings the source's return value."""
    items = in_process(calls.returning, 1)
    assert next(items) == 0
    with pytest.raises(StopIteration) as stop:
        next(items)
    assert stop.value.value == {"rows": 1}
    with pytest.raises(StopIteration) as stop:
        next(items)
    assert stop.value.value is None


def test_several_consumer_threads() -> None:
    """I2: All of A to G holds: several threads may consume it; each item goes to one of them."""
    with in_process(calls.count, 2_000) as numbers, ThreadPoolExecutor(4) as pool:
        parts: list[list[int]] = list(pool.map(list, [numbers] * 4))
    assert Counter(number for part in parts for number in part) == Counter(range(2_000))
    assert all(part == sorted(part) for part in parts)


def test_a_timeout_loses_nothing() -> None:
    """I2: All of A to G holds: `next(timeout)` that runs out of time is NotReadyError, and loses nothing."""
    with pipe() as (waits, go), in_process(calls.waiting_for, waits, [1, 2]) as items:
        for item in (1, 2):
            with pytest.raises(NotReadyError):
                items.next(0.01)
            go.send(None)
            assert items.next(LONG) == item
        assert next(items, None) is None


def test_in_a_task() -> None:
    """I2: All of A to G holds: `async for`, `anext` and `async with`."""

    async def consume() -> list[int]:
        async with in_process(calls.count, 200) as numbers:
            first = await aiter(numbers).__anext__()
            return [first, *[number async for number in numbers]]

    assert asyncio.run(consume()) == list(range(200))


def test_two_at_once() -> None:
    """I2: All of A to G holds: generators side by side do not mix."""
    with in_process(calls.count, 50) as numbers, in_process(calls.reusing, 50) as rows:
        assert list(zip(numbers, rows, strict=True)) == [(i, [i]) for i in range(50)]


def test_a_process_inside_a_thread_inside_a_thread() -> None:
    """I2: All of A to G holds: chains, where a thread's source consumes a process's."""

    def tens() -> Iterator[int]:
        with in_process(calls.count, 100) as numbers:
            for number in numbers:
                yield number * 10

    assert list(BackgroundGenerator(BackgroundGenerator(tens()))) == list(range(0, 1_000, 10))


def test_a_generator_as_the_source_of_another() -> None:
    """I2: All of A to G holds: one over a process's generator ends it too."""
    inner = in_process(calls.count, 10**9)
    with BackgroundGenerator(inner) as outer:
        assert next(outer) == 0
    assert next(inner, None) is None
    assert not [one for one in multiprocessing.active_children() if one.name == "BackgroundGenerator-count"]


@pytest.mark.parametrize("method", [CHEAPEST, CHEAPEST_AFRESH])
def test_a_thread_inside_a_process(method: Any) -> None:
    """I2: All of A to G holds: chains, where a process's source consumes a thread's."""
    (process, on_main_thread), *numbers = in_process(calls.ahead_in_a_thread, 50, method=method)
    assert process != os.getpid()
    assert not on_main_thread
    assert numbers == [(i, False) for i in range(50)]


def test_a_process_inside_a_process() -> None:
    """I2: All of A to G holds: chains, where a process's source consumes that of another process."""
    assert list(in_process(calls.chained, 20, method=CHEAPEST_AFRESH)) == [i * i for i in range(20)]


def test_made_by_a_thread() -> None:
    """I2: All of A to G holds: it is made on one thread and consumed on another."""
    made: SimpleQueue[BackgroundGenerator[int]] = SimpleQueue()
    thread = threading.Thread(target=lambda: made.put(in_process(calls.count, 10)))
    thread.start()
    assert list(made.get(timeout=LONG)) == list(range(10))
    thread.join(LONG)
