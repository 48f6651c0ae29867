"""Contract, section I, sentence 8: what a process may start itself, and what is left of it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import textwrap
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefetch_generator import _generator
from prefetch_generator._process_source import _Link
from tests.helpers import needs, posix

from . import child_sources
from .process_support import CHEAPEST, FORK_WARNING, METHODS, is_gone, pipe, run_script, start

pytestmark = pytest.mark.filterwarnings(FORK_WARNING)

STARTS = int(os.environ.get("PREFETCH_STARTS", "300"))  # 1,000 take 10 s


# I8


@pytest.mark.parametrize("method", METHODS)
def test_a_source_may_start_processes_and_threads(method: str) -> None:
    """I8: the child is not daemonic: pools of processes and of threads work there as anywhere."""
    with pipe() as (told, tell):
        assert list(start(child_sources.with_children, tell, method=method)) == [False, 0, 1, 4, 0, 0, 1, 4]
        assert told() == "from a grandchild"


@posix
def test_a_fork_that_comes_out_of_the_source_again_sends_nothing() -> None:
    """I8, E1: not its item, nor its end, nor its failure: each item arrives once, from the source's own process."""
    with pipe() as (told, tell):
        assert list(start(child_sources.forking, tell)) == ["ends", "comes out", "returns", "raises"]
        assert told() == "a fork"


@posix
def test_a_fork_of_the_childs_that_lives_on_keeps_nobody_waiting() -> None:
    """I8: it holds all that connects the two; the end comes with the child's own end all the same."""
    with pipe() as (_, tell):
        (pid,) = start(child_sources.with_a_surviving_fork, tell)
        assert not is_gone(pid)
        os.kill(pid, signal.SIGKILL)


@needs("torch", "numpy")
@posix
def test_a_data_loader_with_workers_runs_in_the_child(tmp_path: Path) -> None:
    """I8: a daemonic process could not start them; the batches travel on like arrays."""
    script = """
        from torch.utils.data import DataLoader
        from prefetch_generator import background

        @background(process=True)
        def batches():
            yield from DataLoader(range(12), batch_size=4, num_workers=2)

        if __name__ == "__main__":
            print([batch.tolist() for batch in batches()])
            for batch in batches():
                break
            print(batch.tolist())
    """
    out = run_script(tmp_path, script, "-W", "ignore")
    assert out == "[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]\n[0, 1, 2, 3]\n"


MANY = """
    import gc, multiprocessing, os, threading, tracemalloc
    from prefetch_generator import background
    from tests.contract import child_sources

    def memory():  # KB of this process's own
        with open("/proc/self/smaps_rollup") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith(("Private_", "Swap:")))

    def left():
        return len(os.listdir("/proc/self/fd")), threading.active_count(), child_pids()

    def child_pids():
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return set(file.read().split())

    def use(number, method):
        numbers = background(max_prefetch=1 + number % 3, process=method)(child_sources.few)()
        kind = number % 4
        if kind == 0:
            assert list(numbers) == [*range(5)]
        elif kind == 1:
            assert next(numbers) == 0 and numbers.close() is True
        elif kind == 2:
            assert numbers.close() is True
        else:
            assert next(numbers) == 0
            worker = next(one for one in threading.enumerate() if one.name == "BackgroundGenerator-few")
            del numbers
            worker.join()

    if __name__ == "__main__":
        gc.disable()
        for number in range(WARM):
            use(number, METHOD)
        before, memory_before = left(), memory()
        for number in range(COUNT):
            use(number, METHOD)
        print(left() == before, left(), before, memory() - memory_before < 4000, memory() - memory_before)
"""


@posix
def test_an_item_that_was_sent_is_let_go_in_the_child() -> None:
    """I8, A6: nothing there keeps an item while the source makes the next."""
    _, is_gone_by_then = start(child_sources.lets_go)
    assert is_gone_by_then is True


@posix
def test_a_child_that_has_ended_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """I8: when what belonged to it is freed, its number may be somebody else's."""
    killed: list[int] = []
    process: Any = multiprocessing.get_context(CHEAPEST)
    monkeypatch.setattr(process.Process, "kill", lambda self: killed.append(self.pid))
    numbers = start(child_sources.few)
    link = weakref.ref(numbers._worker.source)
    assert len(list(numbers)) > 0
    del numbers
    assert link() is None
    assert killed == []


@posix
def test_a_fork_does_not_hold_the_workers_ends() -> None:
    """I6, I8: what connects the two, as seen by a child that `fork` has started, ends with the worker."""
    numbers = start(child_sources.inodes)
    ends = {os.fstat(getattr(numbers._worker.source, name).fileno()).st_ino for name in ("_wire", "_wakes", "_wake")}
    assert ends.isdisjoint(next(numbers))
    assert numbers.close() is True


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="only Linux tells")  # noqa: PTH110
@pytest.mark.parametrize(("method", "count"), [("fork", STARTS), ("forkserver", STARTS // 20)])
def test_starts_and_ends_leave_nothing(tmp_path: Path, method: str, count: int) -> None:
    """I8: no descriptor, thread, process or memory, with the collector off; ended, closed, closed at once, dropped."""
    script = textwrap.dedent(MANY).replace("METHOD", repr(method)).replace("COUNT", str(count)).replace("WARM", "8")
    out = run_script(tmp_path, script)
    assert out.startswith("True"), out
    assert out.split()[-2] == "True", out


def noted_processes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return where the id of each process that is started for a source from now on will be."""
    pids: list[int] = []
    init: Callable[..., None] = _Link.__init__

    def make(link: _Link, *args: object) -> None:
        init(link, *args)
        pids.append(link._pid)

    monkeypatch.setattr(_Link, "__init__", make)
    return pids


@posix
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_constructor_that_fails_leaves_no_process(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """I8, B4: one that has started its process and gets no thread for it; the source has not been run."""

    def refuse(thread: threading.Thread) -> None:
        if os.getpid() == here:
            raise RuntimeError("can't start new thread")
        begin(thread)

    here, begin = os.getpid(), threading.Thread.start
    pids = noted_processes(monkeypatch)
    with pipe() as (_, tell):
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            start(child_sources.watched, tell, method=method)
    assert len(pids) == 1
    assert is_gone(pids[0])


@posix
@pytest.mark.parametrize("place", ["Worker", "own_event"])
def test_a_constructor_that_is_struck_leaves_no_process(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """I8, B4: struck between the start of the process and that of its worker; the source is not waited for."""

    def strike(*_: object) -> None:
        raise KeyboardInterrupt

    pids = noted_processes(monkeypatch)
    with pipe() as (_, tell):
        monkeypatch.setattr(_generator, place, strike)
        # Not `pytest.raises`: the traceback that it keeps holds what is to be freed.
        with contextlib.suppress(KeyboardInterrupt):
            start(child_sources.watched, tell)
        assert [is_gone(pid) for pid in pids] == [True]


@posix
def test_a_fork_of_the_parent_may_drop_the_process(tmp_path: Path) -> None:
    """I8, E1: what a fork frees is a copy, of a child that is not its own; the parent ends its child."""
    script = """
        import os
        from prefetch_generator._process_call import Call
        from prefetch_generator._process_source import _Link
        from tests.contract import child_sources
        from tests.contract.process_support import is_gone

        if __name__ == "__main__":
            link = _Link(Call(child_sources.few, (), {}, "few"), "few", "fork")
            process = link._pid
            pid = os.fork()
            if pid == 0:
                del link
                os._exit(0)
            print(os.waitpid(pid, 0)[1], os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT))
            del link
            print(is_gone(process))
    """
    assert run_script(tmp_path, script) == "0 None\nTrue\n"


@posix
def test_a_fork_of_the_parent_starts_processes_as_the_parent_does(tmp_path: Path) -> None:
    """E1: by a server of forks of its own, for that which the parent has used is no child of the fork's."""
    script = """
        import os
        from prefetch_generator import background
        from tests.contract import child_sources

        if __name__ == "__main__":
            few = background(process="forkserver")(child_sources.few)
            print(*few(), flush=True)
            pid = os.fork()
            print(*few(), flush=True)
            if pid == 0:
                os._exit(0)
            print(os.waitpid(pid, 0)[1])
    """
    assert run_script(tmp_path, script) == "0 1 2 3 4\n" * 3 + "0\n"


@posix
def test_a_fork_of_the_parent_leaves_the_process_alone(tmp_path: Path) -> None:
    """E1: in the fork `next()` raises and `close()` returns, its exit says nothing; parent and child go on."""
    script = """
        import os, sys
        from prefetch_generator import background
        from tests.contract import child_sources

        def in_the_fork():
            try:
                next(numbers)
            except RuntimeError as error:
                print("make it in the child" in str(error), numbers.close(), flush=True)
            print(list(background(process="fork")(child_sources.few)()), flush=True)

        if __name__ == "__main__":
            numbers = background(process="fork")(child_sources.few)()
            print(next(numbers), flush=True)
            pid = os.fork()
            if pid == 0:
                in_the_fork()
                sys.exit()
            print(os.waitpid(pid, 0)[1], list(numbers))
    """
    assert run_script(tmp_path, script) == "0\nTrue True\n[0, 1, 2, 3, 4]\n0 [1, 2, 3, 4]\n"
