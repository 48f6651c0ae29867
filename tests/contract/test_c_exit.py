"""Contract, section C, sentence 7: the end of the process, and of a child of `multiprocessing`."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import textwrap
import time
from multiprocessing import util
from pathlib import Path

import pytest

from prefetch_generator import (
    BackgroundGenerator,
    StopEvent,
    _exit,
    _stop,
)
from tests.helpers import (
    PACKAGE,
    posix,
    python,
    side_by_side,
)

from .support import program, run_program

METHODS = [pytest.param("fork", marks=posix), "spawn", pytest.param("forkserver", marks=posix)]


def run_file(tmp_path: Path, script: str, *options: str) -> tuple[list[str], str]:
    """Run the script, after the prologue, from a file, which a child may have to import."""
    path = tmp_path / "script.py"
    path.write_text(program(script), encoding="utf-8")
    out, err = python(*options, str(path))
    return out.splitlines(), err


def run_reading(source: str, *more: str) -> tuple[bool, str]:
    """End a program while a worker sits in a read, with stdin still open; return whether it got a line, and stderr."""
    script = f"""
        import csv, io, subprocess

        def told(lines):  # without a frame or a function of this module: a frozen thread would keep the module's names
            return itertools.chain(itertools.islice(lines, 1), filter(None, map(inside.release, [1])), lines)

        def pipe():
            reading, writing = os.pipe()
            os.write(writing, b"first\\n")
            return io.TextIOWrapper(open(reading, "rb"))

        def process():
            child = "import sys; print('first', flush=True); sys.stdin.read()"
            pipes = {{"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}}
            return subprocess.Popen([sys.executable, "-c", child], text=True, **pipes)

        {"; ".join([f"lines = BackgroundGenerator(told(iter({source})))", *more])}
        print(next(lines), flush=True)
        inside.acquire()
    """
    reading, writing = os.pipe()
    os.write(writing, b"first\n")
    try:
        # Not strictly: that a program ends with a process or a file still open is its own affair.
        out, err = python("-c", program(script), strict=False, stdin=reading)
    finally:
        os.close(reading)
        os.close(writing)
    return "first" in out, err


LATE = """
    import multiprocessing

    def use(name):
        kept.append(BackgroundGenerator(counting(name), 1))
        next(kept[-1])

    kept = []

    def late():
        util = sys.modules["multiprocessing.util"]
        threading.Thread(target=lambda: (wait_for(lambda: util._exiting), use("late"))).start()

    def wait_for(condition):
        while not condition() and sys.version_info < (3, 13):  # from then on threads are waited for first
            time.sleep(0.01)

    def forks():
        use("child")
        pid = os.fork()
        if pid == 0:
            use("grandchild")
        else:
            os.waitpid(pid, 0)

    if __name__ == "__main__":
        for job in (late, forks):
            process = multiprocessing.get_context("fork").Process(target=job)
            process.start()
            process.join()
            assert process.exitcode == 0
"""


def stuck_in(step: str, number: int = 30) -> str:
    """Return a script that so many sources are stuck in that step of when it ends."""
    return f"""
        sys.setswitchinterval(0.0001)
        never = threading.Lock()
        never.acquire()

        def source():
            numbers = iter(never.acquire, None)
            try:
                yield 0
                inside.release()
                {step}
            finally:
                say("closed")

        generators = [BackgroundGenerator(source(), 1 + n % 2) for n in range({number})]
        for numbers in generators:
            next(numbers)
            inside.acquire()
        del generators[::3]
    """


# Sources that are stuck at the exit. Each script takes its second, so all are run side by side.
STUCK = {
    "in a wait": stuck_in("threading.Event().wait()"),
    "in an iterator in C": stuck_in("next(numbers)"),
    # Few, and each keeps the GIL for 0.1 ms at a time, not 5: how long the interpreter's own end takes among threads
    # that compute is not the subject.
    "in a step that computes": stuck_in("while True: pass", 3),
    "while it is being closed": """
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
    """,
    "until the interpreter goes down": """
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
    """,
    "with a daemon thread that consumes": """
        def consume(numbers):
            for number in numbers:
                first.release()

        first = threading.Semaphore(0)
        generators = [BackgroundGenerator(source()) for source in [stuck, itertools.count] for _ in range(5)]
        for numbers in generators:
            threading.Thread(target=consume, args=(numbers,), daemon=True).start()
            first.acquire()
    """,
}


# C7


def test_exit_is_announced_to_all_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """C7, C8: before the first of them ends, so that no source takes that for the end of the data."""
    announced = StopEvent()
    monkeypatch.setattr(_stop._Exit, "event", announced)
    generators = [BackgroundGenerator(itertools.count()) for _ in range(2)]
    assert not any(numbers.stop_event.is_set() for numbers in generators)
    announced._flag = True
    assert all(numbers.stop_event.is_set() for numbers in generators)


@posix
def test_ctrl_c_with_pythons_own_handler_ends_the_process_and_runs_the_finally() -> None:
    """C7: an interrupt that nobody catches is an exit like any other; the process dies of SIGINT, as shells expect."""
    script = """
        numbers = BackgroundGenerator(waiting())
        say(next(numbers))
        with when_asleep(lambda: kill(signal.SIGINT)):
            try:
                next(numbers)
            finally:
                handled.set()
    """
    out, err = run_program(script, returncode=-signal.SIGINT)
    assert out == ["0", "source closed"]
    assert err.count("Traceback") == 1
    assert err.endswith("KeyboardInterrupt\n")


@posix
def test_sigterm_ends_a_waiting_process_at_once() -> None:
    """C7: nothing here stands in the way of a SIGTERM that nobody handles: no thread, no handler, no wait."""
    script = """
        numbers = BackgroundGenerator(waiting())
        say(next(numbers))
        with when_asleep(lambda: kill(signal.SIGTERM)):
            next(numbers)
    """
    started = time.monotonic()
    assert run_program(script, returncode=-signal.SIGTERM) == (["0"], "")
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
        with when_asleep(lambda: kill(signal.SIGTERM)):
            {where}
    """
    assert run_program(script, returncode=143) == (["0", "closed"], "")


@posix
def test_ctrl_c_in_the_main_thread_leaves_a_consumer_elsewhere_alone() -> None:
    """C7: the interrupt is the main thread's; the consumer that it waits for gets all its items before the exit."""
    script = """
        def handler(*_):
            handled.set()
            raise KeyboardInterrupt

        signal.signal(signal.SIGINT, handler)
        threading.Thread(target=consume, args=[BackgroundGenerator(late())]).start()
        kill(signal.SIGINT)
        threading.Event().wait()
    """
    out, err = run_program(script, returncode=-signal.SIGINT)
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
    out, err = run_program(script)
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

        numbers = BackgroundGenerator(counting(), 3)
        threading.Thread(target=consume).start()
    """
    assert run_program(script) == (["source closed"], "")


def test_exit_in_a_hurry() -> None:
    """C7: os._exit() in a consumer, with workers that are full, busy and stuck, is at once, and silent."""
    script = """
        def busy():
            yield 0
            while True:
                pass

        generators = [BackgroundGenerator(source) for source in (stuck(), busy(), itertools.count())]
        for numbers in generators:
            next(numbers)
        threading.Thread(target=os._exit, args=(7,)).start()
    """
    assert run_program(script, returncode=7) == ([], "")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="no thread can be started any more when exit handlers run")
def test_an_exit_handler_that_runs_after_the_stop_may_still_make_a_generator() -> None:
    """C7: the exit stops the generators that there are, not those that other exit handlers still make."""
    script = """
        import atexit
        atexit.register(lambda: print(list(BackgroundGenerator(range(3)))))
        from prefetch_generator import BackgroundGenerator
    """
    assert python("-c", textwrap.dedent(script)) == ("[0, 1, 2]\n", "")


def test_at_exit_a_source_at_a_yield_runs_its_finally() -> None:
    """C7: a source that sits at a yield runs its finally: its worker is told to stop, and waited for."""
    script = """
        numbers = BackgroundGenerator(counting())
        print(next(numbers))
    """
    assert run_program(script) == (["0", "source closed"], "")


def test_at_exit_every_worker_is_told_to_stop() -> None:
    """C7: every worker is: those whose buffer is full, those that wait with their stop event, those in a cycle."""
    script = """
        generators = [BackgroundGenerator(counting(f"counting {n}"), n) for n in range(1, 6)]
        generators += [BackgroundGenerator(waiting(f"waiting {n}")) for n in range(5)]
        generators.append(generators)
        for numbers in generators[:-1]:
            next(numbers)
    """
    names = [f"counting {n}" for n in range(1, 6)] + [f"waiting {n}" for n in range(5)]
    out, err = run_program(script)
    assert (sorted(out), err) == (sorted(f"{name} closed" for name in names), "")


def test_at_exit_a_source_gets_time_to_close() -> None:
    """C7: it gets one second: a finally that takes a part of it is not cut short, whatever others are stuck in."""
    script = """
        others = [BackgroundGenerator(stuck()) for _ in range(5)]
        numbers = BackgroundGenerator(closing_slowly(), 1)
        for generator in [numbers, *others]:
            next(generator)
        for _ in others:
            inside.acquire()
    """
    assert run_program(script) == (["source closed"], "")


def test_at_exit_stuck_sources_delay_nothing_further_and_print_nothing() -> None:
    """C7: all together get one second; sources that are stuck then delay nothing, crash nothing, print nothing.

    Daemon threads that consume, or wait for an item, when the interpreter exits are no trouble either.
    """
    started = time.monotonic()
    assert side_by_side(run_program, STUCK) == dict.fromkeys(STUCK, ([], ""))
    assert time.monotonic() - started < 20


def test_a_stuck_source_is_waited_for_once() -> None:
    """C7: one second in all, also where the exit is come by twice, as a child does that `spawn` has started."""
    script = """
        from prefetch_generator import _exit
        def stuck():
            yield 0
            threading.Event().wait(60)
        numbers = BackgroundGenerator(stuck())
        next(numbers)
        _exit.GRACE = 0.0
        _exit._stop_all()
        print(len(_exit.live))
    """
    assert run_program(script) == (["0"], "")


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
    assert run_program(script) == (["left", "closed"], "")


def test_at_exit_threads_that_still_consume_get_all_their_items() -> None:
    """C7: non-daemon threads that are still consuming get all their items first."""
    script = """
        threading.Thread(target=consume, args=[BackgroundGenerator(late())]).start()
    """
    assert run_program(script) == (["500 499"], "")


def test_at_exit_all_hear_of_it_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """C7, C8: every event of the process is set before the first of them wakes anybody; none that is made later is."""
    ones, others = BackgroundGenerator(itertools.repeat(1), 1), BackgroundGenerator(itertools.repeat(2), 1)
    at_the_first: list[bool] = []

    def look(_: list[StopEvent]) -> None:
        at_the_first.extend(numbers.stop_event.is_set() for numbers in (ones, others))

    monkeypatch.setattr(_exit, "set_all", look)
    monkeypatch.setattr(_exit, "GRACE", 0.0)
    _exit._stop_all()
    assert at_the_first == [True, True]
    with BackgroundGenerator(itertools.repeat(3), 1) as later:
        assert not later.stop_event.is_set()
        assert next(later) == 3
    assert ones.close()
    assert others.close()


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
    out, err = run_program(script)
    assert (sorted(out), err) == (["inner closed"] * 10 + ["innermost closed"] * 10 + ["outer closed"] * 10, "")


def test_sys_exit_runs_the_finally_and_keeps_its_status() -> None:
    """C7: sys.exit() is an exit like any other, in the middle of a loop too."""
    script = """
        for number in BackgroundGenerator(counting(), 1):
            sys.exit(3)
    """
    assert run_program(script, returncode=3) == (["source closed"], "")


def test_an_unhandled_exception_runs_the_finally_and_shows_itself_alone() -> None:
    """C7: so is an unhandled exception, whose traceback is all there is on stderr."""
    script = """
        numbers = BackgroundGenerator(counting(), 1)
        for number in numbers:
            raise KeyError("the script's own")
    """
    out, err = run_program(script, returncode=1)
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
    assert run_program(script, returncode=130) == (["0"], "")


def test_exit_handlers_may_still_iterate() -> None:
    """C7: a handler that runs before the workers are told gets its items, one that runs after sees the end."""
    handler = 'import atexit; atexit.register(lambda: print("{}", next(numbers, "over"), flush=True))'
    script = f"""
        numbers = BackgroundGenerator(itertools.count())
        {handler.format("early")}
    """
    assert run_program(script, before=handler.format("late")) == (["early 0", "late over"], "")


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
            say("child", os.waitpid(child, 0)[1], next(numbers))
    """
    handler = 'import atexit; atexit.register(lambda: say("told" if numbers.stop_event.is_set() else "not told"))'
    assert run_program(script, before=handler) == (["not told", "child 0 1", "source closed", "told"], "")


@pytest.mark.parametrize("method", METHODS)
def test_at_the_end_of_a_child_a_source_at_a_yield_runs_its_finally(method: str, tmp_path: Path) -> None:
    """C7: the same at the end of a process that multiprocessing started, alone or in a pool, after break too."""
    script = f"""
        import concurrent.futures, multiprocessing

        method, held = "{method}", []

        def hold(numbers):
            held.append(numbers)
            next(numbers)

        def nothing():
            pass

        def holds():
            hold(BackgroundGenerator(counting("held")))

        def leaves():
            for _ in BackgroundGenerator(closing_slowly("left")):
                break

        if __name__ == "__main__":
            context = multiprocessing.get_context(method)
            if method == "forkserver":
                context.set_forkserver_preload([])  # each child imports this file, not the server
            for job in nothing, holds, leaves:
                process = context.Process(target=job)
                process.start()
                process.join()
                say(job.__name__, process.exitcode)
            with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
                for job in holds, leaves:
                    executor.submit(job).result()
            say("executor")
            with context.Pool(1) as pool:
                pool.apply(holds)
                pool.apply(leaves)
                pool.close()
                pool.join()
            say("pool")
        else:
            hold(BackgroundGenerator(counting("imported")))
    """
    out, err = run_file(tmp_path, script)
    text = " ".join(out)
    imported = [] if method == "fork" else ["imported closed"]
    said = []
    for end in "nothing 0", "holds 0", "leaves 0", "executor", "pool":
        before, _, text = text.partition(end)
        said.append(sorted(before.replace("closed", "closed,").strip(" ,").split(", ")))
    held, left = ["held closed"], ["left closed"]
    assert said == [imported or [""], held + imported, imported + left, *[held + imported + left] * 2]
    assert err == ""


def test_at_the_end_of_a_child_stuck_sources_delay_nothing_further(tmp_path: Path) -> None:
    """C7: there too all together get one second; what is stuck then delays nothing further and prints nothing."""
    script = """
        import multiprocessing

        def child():
            global numbers, others
            others = [BackgroundGenerator(stuck()) for _ in range(30)]
            numbers = BackgroundGenerator(closing_slowly(), 1)
            for generator in [numbers, *others]:
                next(generator)
            for _ in others:
                inside.acquire()

        if __name__ == "__main__":
            process = multiprocessing.get_context("spawn").Process(target=child)
            process.start()
            process.join()
            say("exit code", process.exitcode)
    """
    started = time.monotonic()
    assert run_file(tmp_path, script) == (["source closed", "exit code 0"], "")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("method", METHODS)
def test_at_the_end_of_a_child_threads_that_still_consume_get_all_their_items(method: str, tmp_path: Path) -> None:
    """C7: non-daemon threads of the child do, and an idle executor, whose thread ends later still, is no deadlock."""
    script = f"""
        import concurrent.futures, multiprocessing

        def child():
            global executor, held
            executor = concurrent.futures.ThreadPoolExecutor(1)
            executor.submit(int).result()
            held = BackgroundGenerator(counting("held"))
            next(held)
            threading.Thread(target=consume, args=[BackgroundGenerator(late())]).start()

        if __name__ == "__main__":
            process = multiprocessing.get_context("{method}").Process(target=child)
            process.start()
            process.join()
            say("exit code", process.exitcode)
    """
    assert run_file(tmp_path, script) == (["500 499", "held closed", "exit code 0"], "")


@posix
def test_the_end_of_a_child_leaves_the_parent_and_its_exit_alone(tmp_path: Path) -> None:
    """C7: the parent goes on, and at its exit its threads and handlers get their items first, as without a child."""
    script = """
        import atexit, multiprocessing

        def child():
            global own
            own = BackgroundGenerator(counting("child's"))
            next(own)

        numbers = BackgroundGenerator(counting("parent's"), 1)
        atexit.register(lambda: say("handler", next(numbers)))
        next(numbers)
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        say("exit code", process.exitcode, next(numbers))
        numbers.close()
        numbers = BackgroundGenerator(counting("parent's second"))
        threading.Thread(target=consume, args=[BackgroundGenerator(late())]).start()
    """
    said = ["child's closed", "exit code 0 1", "parent's closed", "500 499", "handler 0", "parent's second closed"]
    ignored = "ignore:This process:DeprecationWarning"  # Python 3.12 dislikes every fork beside a thread
    assert run_file(tmp_path, script, "-W", ignored) == (said, "")


def test_neither_asyncio_nor_multiprocessing_is_imported() -> None:
    """C7: for all that, importing the package imports neither, and nor does using a generator."""
    script = f"""
        import sys
        sys.path.insert(0, {str(Path(PACKAGE).parent)!r})
        from prefetch_generator import BackgroundGenerator
        print(*BackgroundGenerator("abc"), {{"asyncio", "multiprocessing"}} & {{*sys.modules}})
    """
    # Without `site`, which may bring in who knows what.
    assert python("-S", "-c", textwrap.dedent(script)) == ("a b c set()\n", "")


def test_at_exit_a_source_stuck_in_a_read_crashes_nothing() -> None:
    """C7: a source that is stuck in a read, of sys.stdin.buffer too, delays, crashes and prints nothing."""
    sources = [
        "sys.stdin",
        "sys.stdin.buffer",
        "csv.reader(sys.stdin)",
        "(file := pipe()).buffer",
        "(child := process()).stdout.buffer",
    ]
    started = time.monotonic()
    assert side_by_side(run_reading, {source: source for source in sources}) == dict.fromkeys(sources, (True, ""))
    assert time.monotonic() - started < 20


def test_at_exit_what_was_written_is_flushed_although_a_source_is_stuck(tmp_path: Path) -> None:
    """C7: text files that were written and never closed are flushed at exit as ever, whatever is kept for a reader."""
    paths = [tmp_path / "written", tmp_path / "read and written"]
    files = [f"open({str(path)!r}, {mode!r}, encoding='utf-8')" for path, mode in zip(paths, ["w", "w+"], strict=True)]
    files = [f"file{n} = {file}; file{n}.write('kept')" for n, file in enumerate(files)]
    # And one that does not let its buffer be looked at.
    files += ["Odd = type('Odd', (io.TextIOWrapper,), {'buffer': property(int.bit_length)}); odd = Odd(io.BytesIO())"]
    assert run_reading("sys.stdin.buffer", *files) == (True, "")
    assert [path.read_text(encoding="utf-8") for path in paths] == ["kept", "kept"]


def test_at_exit_a_hook_that_raises_stops_nothing() -> None:
    """C7, C4: each failure of closing is reported, and a source that is stuck in a read crashes nothing."""
    script = """
        def hook(args):
            say(args.exc_value.args[0])
            raise ZeroDivisionError

        def failing(number):
            try:
                yield from range(9)
            finally:
                raise ValueError(number)

        threading.excepthook = hook
        generators = [BackgroundGenerator(failing(number), 1) for number in range(3)]
        for generator in generators:
            next(generator)
    """
    out, _ = run_program(script)
    assert sorted(out) == ["0", "1", "2"]


def test_at_exit_everybody_is_woken_before_a_callback_runs() -> None:
    """C7, C9: a callback that takes its time, or an item's finalizer, delays no `finally` of another source."""
    script = """
        plain_is_done = threading.Event()
        generators = []

        def slow():
            with current_stop_event().on_set(lambda: say(plain_is_done.wait(20))):
                yield from range(9)

        def plain():
            try:
                yield from range(9)
            finally:
                plain_is_done.set()

        for source in (slow, plain, slow):
            generators.append(BackgroundGenerator(source(), 1))
            next(generators[-1])
    """
    assert run_program(script) == (["True", "True"], "")


def test_multiprocessing_is_asked_once_to_tell_of_the_end_of_a_child() -> None:
    """C7: a thousand generators leave no more with it than the first."""
    for _ in range(3):
        assert list(BackgroundGenerator([])) == []
    asked = [function for _, _, function in util._afterfork_registry]  # type: ignore[attr-defined]
    assert asked.count(_exit._register_finalizer) == 1


@posix
def test_at_the_end_of_a_child_a_late_generator_and_one_of_a_fork_are_stopped_too() -> None:
    """C7: made when the finalizers of the child had run, or in a process that the child has forked by itself."""
    out, _ = run_program(LATE, "-W", "ignore::DeprecationWarning")
    assert sorted(out) == ["child closed", "grandchild closed", "late closed"]
