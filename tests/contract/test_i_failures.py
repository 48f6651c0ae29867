"""Contract, section I, sentences 3 and 4: what fails in a process of its own, and a process that dies."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import multiprocessing
import os
import pickle
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from prefetch_generator import (
    BackgroundGenerator,
    NotReadyError,
    SourceProcessError,
    _process_child,
    background,
)
from prefetch_generator._process_wire import _HEAD, Sender
from tests.helpers import LONG, in_thread, posix, when_asleep

from . import process_failures as failures
from .process_calls import AFRESH, CHEAPEST, CHEAPEST_AFRESH, METHODS, Equal, given, in_process, pipe, returning
from .process_failures import (
    Alarmed,
    CodedError,
    HostileError,
    LocalError,
    MaskedError,
    Numbers,
    OddError,
    OneWayError,
    Refusing,
    RefusingError,
    SilentError,
    StateError,
    StoppingIterable,
)
from .process_support import run_script
from .support import cause_of

SOON = 1.0  # seconds: ten times what is promised

# What cannot be pickled, or a function that a test has replaced, gets to a process only with a fork.
fork = pytest.mark.skipif("fork" not in METHODS, reason="Windows has no fork()")
every_method = pytest.mark.parametrize("method", METHODS)
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.. may lead to deadlocks:DeprecationWarning")


def outcome(items: BackgroundGenerator[Any]) -> tuple[list[Any], BaseException]:
    """Return the items before the source failed, and the failure; after it there is nothing."""
    before: list[Any] = []
    try:
        for item in items:
            before.append(item)  # noqa: PERF402 - what `list` would lose
    except BaseException as failure:
        assert list(items) == []
        assert "failed" in repr(items)
        assert items.close() is True
        return before, failure
    raise AssertionError(f"no failure after {before}")


def failure_of(make: Callable[..., BaseException], *args: Any) -> BaseException:
    before, failure = outcome(in_process(failures.failing, make, *args))
    assert before == [0, 1]
    return failure


# I3


@every_method
def test_an_exception_arrives_with_its_type_arguments_and_attributes(method: Any) -> None:
    """I3: An exception arrives with its type and arguments, in its place; and with its attributes."""
    before, failure = outcome(in_process(failures.failing, failures.coded, method=method))
    assert before == [0, 1]
    assert type(failure) is CodedError
    assert failure.args == ("a", 1)
    assert failure.code == 5


def test_the_traceback_of_the_child_is_the_cause() -> None:
    """I3: and the child's traceback as its `__cause__`: with the lines of the source, and what came before."""
    failure = failure_of(failures.from_another)
    assert (type(failure), failure.args) == (ValueError, ("the second",))
    text = str(failure.__cause__)
    for part in (
        "Traceback (most recent call last)",
        f'File "{failures.__file__}", line {failures.failing.__code__.co_firstlineno + 3}, in failing',
        "LookupError: the first",
        "direct cause of the following exception",
    ):
        assert part in text
    assert text.rstrip().endswith("ValueError: the second")
    assert "_process_child.py" not in text.partition("direct cause")[0]


@pytest.mark.parametrize(
    "failure",
    [
        OddError(1),
        SystemExit(3),
        KeyboardInterrupt("a"),
        GeneratorExit("b"),
        StopAsyncIteration("c"),
        TimeoutError("d"),
        EOFError("e"),
        BrokenPipeError("f"),
        BlockingIOError("g"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_any_base_exception_is_forwarded(failure: BaseException) -> None:
    """I3: Any `BaseException` is forwarded: none is taken for the end, or for a death of the child."""
    arrived = failure_of(type(failure), *failure.args)
    assert (type(arrived), arrived.args) == (type(failure), failure.args)


@pytest.mark.parametrize("kind", [StopIteration, NotReadyError])
def test_what_would_mean_something_else_is_a_runtime_error(kind: type[BaseException]) -> None:
    """I3: An exception in its place, never a gap: StopIteration is no end (PEP 479), NotReadyError no delay."""
    arrived = failure_of(kind, "a")
    assert type(arrived) is RuntimeError
    assert kind.__name__ in f"{arrived} {arrived.__cause__}"


@pytest.mark.parametrize("kind", [StopIteration, NotReadyError])
def test_no_exception_can_disguise_itself(kind: type[BaseException]) -> None:
    """I3: never a gap: an exception that is unpickled as StopIteration or NotReadyError is a RuntimeError."""
    arrived = failure_of(MaskedError, kind)
    assert type(arrived) is RuntimeError
    assert "MaskedError" in str(arrived)


@pytest.mark.parametrize("function", [failures.stopping_before_it_begins, StoppingIterable])
def test_a_function_that_raises_stop_iteration_has_not_come_to_an_end(function: Callable[..., Any]) -> None:
    """I3: never a gap: StopIteration out of the call itself, or of `iter()`, is no end of the data either."""
    before, failure = outcome(in_process(function))
    assert before == []
    assert type(failure) is RuntimeError
    assert "no end of the data" in str(failure.__cause__)


@fork
@pytest.mark.parametrize(
    ("make", "args", "said"),
    [
        (OneWayError, ("a", "b"), "OneWayError: a and b"),
        (LocalError, (), "LocalError: a lambda"),
        (SilentError, (SilentError(),), "SilentError"),
        (StateError, (), "StateError"),
        *(
            (partial(RefusingError, failure, at_once=at_once), (), "RefusingError: refusing")
            for failure in (LookupError("a"), KeyboardInterrupt(), SystemExit(1), StopIteration(2))
            for at_once in (True, False)
        ),
    ],
)
def test_an_exception_that_cannot_be_sent(make: Callable[..., BaseException], args: Any, said: str) -> None:
    """I3: one that cannot be pickled or unpickled arrives as `RuntimeError` with that traceback."""
    failure = failure_of(make, *args)
    if make is SilentError:
        assert type(failure) is SilentError  # which can be sent; it cannot be printed
    else:
        assert type(failure) is RuntimeError
        assert said in str(failure)
    assert said in str(failure.__cause__)


def test_an_exception_that_nobody_may_look_into() -> None:
    """I3: An exception arrives, also one that cannot be printed: then that is what its `__cause__` says."""
    failure = failure_of(HostileError, "a")
    assert (type(failure), failure.args) == (HostileError, ("a",))
    assert str(cause_of(failure)).strip() == "HostileError, which cannot be printed"


@posix
@pytest.mark.parametrize("kind", [LookupError, TimeoutError, KeyboardInterrupt])
def test_a_signal_handler_that_raises_while_an_item_is_sent(kind: type[BaseException]) -> None:
    """I3, B1: in its place, never a gap: the item arrives whole, then what the handler raised; the source is closed."""
    with pipe() as (closed, writer):
        size = 3_000_000
        before, failure = outcome(in_process(Alarmed, writer, kind, size, max_prefetch=4))
        assert before == [None, "x" * size]
        assert (type(failure), failure.args) == (kind, ("late",))
        assert closed.poll(LONG)
        assert closed.recv() == "close"


REFUSALS = [LookupError("a"), KeyboardInterrupt("b"), StopIteration(3), NotReadyError("c"), SilentError(), EOFError()]
every_refusal = pytest.mark.parametrize("refusal", REFUSALS, ids=lambda one: type(one).__name__)
at_either_end = pytest.mark.parametrize("at_once", [True, False], ids=["pickled", "unpickled"])


def assert_says_why(failure: BaseException, refusal: BaseException, *, at_once: bool) -> None:
    """Demand that the cause is the refusal, or, of one in the child, its traceback, down to the item's own code."""
    cause = failure.__cause__
    assert cause is not None
    if not at_once:
        assert type(refusal) in {type(cause), type(cause.__cause__)}  # NotReadyError is never raised as it is: see B1
    elif type(refusal) is not SilentError:
        assert "in __reduce__" in str(cause)
        assert type(refusal).__name__ in str(cause)


@fork
@every_refusal
@at_either_end
@pytest.mark.parametrize("source", [failures.noting, Numbers])
def test_an_item_that_cannot_be_sent(source: Any, refusal: BaseException, at_once: bool) -> None:
    """I3: An item that cannot be pickled (or unpickled) is an error in its place; the source is closed."""
    with pipe() as (closed, writer):
        item = Equal("in", Refusing(refusal, at_once=at_once))
        before, failure = outcome(in_process(source, writer, "first", "second", item, "never"))
        assert before == ["first", "second"]
        assert type(failure) is TypeError
        assert ("cannot be sent" if at_once else "cannot be unpickled here") in str(failure)
        assert_says_why(failure, refusal, at_once=at_once)
        assert closed.poll(LONG)
        assert closed.recv() == ("GeneratorExit" if source is failures.noting else "close")


@fork
@every_refusal
@at_either_end
def test_a_return_value_that_cannot_be_sent(refusal: BaseException, at_once: bool) -> None:
    """I3: never a gap: a return value that cannot be pickled or unpickled is an error in its place."""
    before, failure = outcome(in_process(failures.refusing_to_return, refusal, at_once))
    assert before == [0]
    assert type(failure) is TypeError
    assert "return value" in str(failure)
    assert_says_why(failure, refusal, at_once=at_once)


@fork
def test_an_item_that_cannot_be_unpickled_keeps_nothing(no_collector: None) -> None:
    """I3, B3: nor does its error, once it has been raised: what connected the processes is freed without a search."""
    with pipe() as (_closed, writer):
        numbers = in_process(failures.noting, writer, Refusing(LookupError("a"), at_once=False))
        link = weakref.ref(numbers._worker.source)
        with contextlib.suppress(TypeError):
            next(numbers)
        del numbers
        assert link() is None


@pytest.mark.parametrize("method", AFRESH)
def test_an_argument_that_cannot_be_pickled(method: Any) -> None:
    """I3: An argument that cannot be pickled is a TypeError at the call, which says which; no process is left."""
    before = multiprocessing.active_children()
    with pytest.raises(TypeError, match=r"^argument 2 of given\(\) cannot be sent to another process, got <.*open it"):
        in_process(given, 1, threading.Lock(), method=method)
    with pytest.raises(TypeError, match=r"^argument n of returning\(\) cannot be sent") as error:
        background(process=method)(returning)(n=Refusing(LookupError("a"), at_once=True))  # type: ignore[arg-type]
    assert isinstance(error.value.__cause__, LookupError)
    assert multiprocessing.active_children() == before


@every_refusal
def test_an_argument_that_cannot_be_unpickled(refusal: BaseException) -> None:
    """I3: An argument that cannot be unpickled in the child is an error in the place of the first item."""
    before, failure = outcome(in_process(given, Refusing(refusal, at_once=False), method=CHEAPEST_AFRESH))
    assert before == []
    assert type(failure) is (RuntimeError if isinstance(refusal, (NotReadyError, StopIteration)) else type(refusal))
    assert failure.__cause__ is not None


# I4


def death_of(items: BackgroundGenerator[Any]) -> tuple[list[Any], SourceProcessError]:
    before, failure = outcome(items)
    assert type(failure) is SourceProcessError
    assert "process id " in str(failure)
    return before, failure


@contextlib.contextmanager
def waiting(items: list[Any], **options: Any) -> Iterator[tuple[BackgroundGenerator[Any], int]]:
    """Give a generator whose source has given its items, and goes on for ever, and its process."""
    with pipe() as (ready, writer), in_process(failures.on_command, writer, items, **options) as numbers:
        process = next(numbers)
        assert ready.poll(LONG)
        yield numbers, process


@every_method
@posix
def test_a_killed_child_is_an_error_that_names_it(method: Any) -> None:
    """I4: A child that dies is `SourceProcessError`; it names the function, the process id and the signal."""
    with waiting([], method=method) as (items, process):
        os.kill(process, signal.SIGKILL)
        before, failure = death_of(items)
    assert before == []
    death = f"the process of 'on_command' (process id {process}) was killed by signal 9 (SIGKILL) before its source had"
    assert str(failure) == f"{death} ended"
    assert failure.exitcode == -9


@pytest.mark.parametrize("status", [0, 1, 3])
def test_a_child_that_leaves(status: int) -> None:
    """I4: (`os._exit`): it names the exit code; one of 0 is no end of the data."""
    before, failure = death_of(in_process(failures.dying, 3, failures.leave, status))
    assert before == [0, 1, 2]
    assert f"ended with exit code {status} before its source had ended" in str(failure)
    assert failure.exitcode == status
    assert "__main__" not in str(failure)  # which only one that has given nothing may not have come past


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGABRT, signal.SIGKILL, signal.SIGUSR1])
def test_a_child_that_a_signal_kills(number: signal.Signals) -> None:
    """I4: (killed, out of memory): it names the signal."""
    before, failure = death_of(in_process(failures.dying, 1, failures.be_killed, number))
    assert before == [0]
    assert f"was killed by signal {number.value} ({number.name})" in str(failure)
    assert failure.exitcode == -number


@posix
def test_a_child_that_crashes() -> None:
    """I4: A child that dies is `SourceProcessError`: also of an error in C."""
    before, failure = death_of(in_process(failures.dying, 1, failures.crash))
    assert before == [0]
    assert "(SIGSEGV)" in str(failure)


@pytest.mark.parametrize(
    ("method", "status"), [*((one, 0) for one in METHODS), *((CHEAPEST, status) for status in (None, 3, "a message"))]
)
def test_sys_exit_is_an_exception_like_others(method: Any, status: Any) -> None:
    """I4: `SystemExit` is no death: it is forwarded (I3)."""
    before, failure = outcome(in_process(failures.exiting, status, method=method))
    assert before == [0]
    assert (type(failure), failure.args) == (SystemExit, () if status is None else (status,))


def test_the_error_can_be_pickled_and_copied() -> None:
    """I4: `SourceProcessError` can itself be sent on, with its exit code."""
    error = SourceProcessError("the process is gone", -9)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is SourceProcessError
        assert (str(again), again.args, again.exitcode) == ("the process is gone", ("the process is gone",), -9)
    assert SourceProcessError("unknown").exitcode is None
    assert isinstance(error, RuntimeError)


@posix
def test_a_death_that_nobody_can_ask_about(tmp_path: Path) -> None:
    """I4: where SIGCHLD is ignored, nothing is known of how it died; no process is kept for being asked about."""
    script = """
        import multiprocessing, signal
        from prefetch_generator import SourceProcessError, background
        from tests.contract import process_failures as failures
        from tests.contract.child_sources import few

        if __name__ == "__main__":
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            print(*background(process="fork")(few)())
            with background(process="fork")(few)() as numbers:  # whose end waits for the process
                print(next(numbers))
            numbers = background(process="fork")(failures.dying)(2, failures.leave, 7)
            try:
                for number in numbers:
                    print(number)
            except SourceProcessError as error:
                print(str(error).partition(") ")[2], error.exitcode)
            del numbers
            print(multiprocessing.process._children)
    """
    said = "ended in a way that is not known before its source had ended None"
    assert run_script(tmp_path, script) == f"0 1 2 3 4\n0\n0\n1\n{said}\nset()\n"


@posix
def test_a_stop_after_the_death_does_not_kill_the_parent(tmp_path: Path) -> None:
    """I4, C1: where a broken pipe kills, as a program for pipelines wants it, a child that has died is closed too."""
    script = """
        import signal
        from prefetch_generator import _process_source, background
        from tests.contract.child_sources import few

        def tell_the_dead(link):
            link._process.kill()
            link._process.join()
            tell(link)

        if __name__ == "__main__":
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            tell = _process_source._Link._tell
            _process_source._Link._tell = tell_the_dead
            numbers = background(process="fork", max_prefetch=1)(few)()
            print(next(numbers), numbers.close())
    """
    assert run_script(tmp_path, script) == "0 True\n"


class CutWire:
    """The child's end of a wire: it lets so many bytes through, and the process is killed."""

    def __init__(self, wire: socket.socket, left: int) -> None:
        self.wire, self.left = wire, left

    def cut(self, data: Any) -> memoryview:
        return memoryview(data).cast("B")[: self.left]

    def send(self, data: Any, _flags: int) -> int:
        self.sendall(data)
        return len(data)

    def sendall(self, data: Any, _flags: int = 0) -> None:
        part = self.cut(data)
        self.wire.sendall(part)
        self.count(len(part))

    def sendmsg(self, buffers: Any, *rest: Any) -> int:
        sent = self.wire.sendmsg([self.cut(b"".join(buffers))], *rest)
        self.count(sent)
        return sent

    def count(self, sent: int) -> None:
        self.left -= sent
        if not self.left:
            failures.be_killed(signal.SIGKILL)


def cut_after(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Have every child that is forked from now on be killed when it has sent so many bytes."""
    monkeypatch.setattr(_process_child, "Sender", lambda wire: Sender(CutWire(wire, size)))  # type: ignore[arg-type]


HEAD = _HEAD.size  # bytes of a frame before its pickle


@fork
def test_killed_at_every_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """I4: after the items it had sent whole: wherever in the wire it is cut, between two frames and in each part."""
    items = [0, "one", (2,)]
    ends = list(itertools.accumulate(HEAD + len(pickle.dumps(item, 5)) for item in items))
    sizes = {*range(1, ends[-1], 5), *ends, *(size - 1 for size in ends), *(size + HEAD for size in ends)}
    for size in sorted(sizes):
        cut_after(monkeypatch, size)
        before, failure = death_of(in_process(given, *items, "more", max_prefetch=0))
        assert before == items[: sum(end <= size for end in ends)]
        assert failure.exitcode == -signal.SIGKILL


class Block:
    """A large buffer, as an array has."""

    def __init__(self, content: bytearray) -> None:
        self.content = content

    def __reduce_ex__(self, _: object) -> Any:
        return bytes, (pickle.PickleBuffer(self.content),)


@fork
@pytest.mark.parametrize("kind", ["pickled", "in shared memory", "in line"])
def test_killed_in_the_middle_of_a_large_frame(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """I4: after the items it had sent whole: killed in the middle of a frame of 16 MB, and around its buffers."""
    if kind == "in line":
        monkeypatch.setattr("prefetch_generator._process_wire._HAS_MEMORY", False)
    content = bytearray(16 << 20)
    large: Any = bytes(content) if kind == "pickled" else Block(content)
    small = HEAD + len(pickle.dumps("small", 5))
    # The end of the small one; in what comes for the memory (the board, the segment); in the frame; near its end.
    sizes = [small, small + 10, small + HEAD, small + HEAD + 5, small + 2 * HEAD, small + 2 * HEAD + 5]
    if kind != "in shared memory":
        sizes += [small + (8 << 20), small + (16 << 20)]
    for size in sizes:
        cut_after(monkeypatch, size)
        before, failure = death_of(in_process(given, "small", large))
        assert before == ["small"]
        assert failure.exitcode == -signal.SIGKILL


@posix
def test_killed_at_random_while_it_sends() -> None:
    """I4: after the items it had sent whole: each of them is whole, and none is missing."""
    for delay in range(8):
        with in_process(failures.endless_blocks, 4 << 20, max_prefetch=4) as blocks:
            assert next(blocks) == bytes(4 << 20)
            (child,) = (one for one in multiprocessing.active_children() if one.name.endswith("-endless_blocks"))
            killer = threading.Timer(delay / 200, child.kill)
            killer.start()
            before, _ = death_of(blocks)
            killer.join()
        assert [block[:8] for block in before] == [i.to_bytes(8, "little") for i in range(1, len(before) + 1)]
        assert all(block == block[:8] * (len(block) // 8) and len(block) == 4 << 20 for block in before)


def next_in_thread(items: BackgroundGenerator[Any]) -> BaseException:
    with pytest.raises(BaseException) as error:  # noqa: PT011 - whatever it is
        next(items)
    return error.value


def killed_when_asleep(process: int) -> Any:
    """Kill the process as soon as this thread waits; the list that is given then has the time of it."""
    return when_asleep(partial(os.kill, process, signal.SIGKILL))


@posix
def test_killed_while_the_consumer_sleeps() -> None:
    """I4: within 0.1 s: a consumer that waits for an item hears of it."""
    with waiting([]) as (items, process), killed_when_asleep(process):
        begun = time.monotonic()
        with pytest.raises(SourceProcessError):
            next(items)
        assert time.monotonic() - begun < SOON


@posix
def test_killed_while_a_task_waits() -> None:
    """I4: within 0.1 s: a task in `anext` hears of it."""

    async def consume(items: BackgroundGenerator[Any], process: int) -> None:
        task = asyncio.ensure_future(aiter(items).__anext__())
        await asyncio.sleep(0)  # into the wait
        begun = time.monotonic()
        os.kill(process, signal.SIGKILL)
        with pytest.raises(SourceProcessError):
            await task
        assert time.monotonic() - begun < SOON

    with waiting([]) as (items, process):
        asyncio.run(consume(items, process))


@posix
def test_killed_while_items_are_buffered() -> None:
    """I4: after the items it had sent whole: also those that nobody had asked for yet."""
    with waiting([1, 2], max_prefetch=4) as (items, process):
        os.kill(process, signal.SIGKILL)
        before, _ = death_of(items)
        assert before == [1, 2]


@posix
def test_killed_while_many_wait() -> None:
    """I4: One of the threads that wait gets the error, the others the end."""
    with waiting([]) as (items, process):
        results = [in_thread(partial(next_in_thread, items)) for _ in range(4)]
        os.kill(process, signal.SIGKILL)
        kinds = sorted(type(result.get(timeout=LONG)).__name__ for result in results)
        assert kinds == ["SourceProcessError", *["StopIteration"] * 3]


@posix
@every_method
def test_a_child_of_the_child_that_lives_on(method: Any) -> None:
    """I4: within 0.1 s: also if processes that the child has forked live on, and hold its files open."""
    if not hasattr(os, "pidfd_open"):
        pytest.skip("only where a process can be watched by itself")
    items = in_process(failures.leaving_a_child, 2, method=method)
    grandchild = next(items)
    try:
        begun = time.monotonic()
        before, failure = death_of(items)
        assert time.monotonic() - begun < SOON
        assert before == [0, 1]
        assert failure.exitcode == -signal.SIGKILL
    finally:
        os.kill(grandchild, signal.SIGKILL)
