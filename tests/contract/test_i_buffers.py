"""Contract, section I, sentence 7: large buffers cross without being pickled."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import needs

from .process_support import FORK_WARNING, METHODS, pipe, run_script, start

pytestmark = [needs("numpy"), pytest.mark.filterwarnings(FORK_WARNING)]

has_memory = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only Linux has memory without a name")


def is_same(here: Any, there: Any) -> bool:
    """Return whether these two arrays cannot be told apart."""
    equal = bool((here == there).all())
    return equal and (here.dtype, here.shape, here.flags.writeable) == (there.dtype, there.shape, there.flags.writeable)


# I7


@pytest.mark.parametrize("method", METHODS)
def test_arrays_of_all_kinds_arrive_as_they_were(method: str) -> None:
    """I7: contiguous or not, below and above the size from which on they are shared, writable as NumPy makes them."""
    from . import child_arrays  # noqa: PLC0415 - NumPy may be missing

    arrays = child_arrays.arrays()
    got = dict(start(child_arrays.all_kinds, method=method))
    assert list(got) == list(arrays)
    broadcast = got.pop("broadcast")  # which pickling makes an array like others
    assert (broadcast == arrays.pop("broadcast")).all()
    assert [name for name in got if not is_same(got[name], arrays[name])] == []


@pytest.mark.parametrize("number", [1, 2, 300])
def test_an_item_may_have_many_buffers(number: int) -> None:
    """I7: each at its place, in one segment; what is written into one does not show in another."""
    from . import child_arrays  # noqa: PLC0415 - NumPy may be missing

    for start_at, item in enumerate(start(child_arrays.many_in_one, number)):
        assert item["start"] == start_at
        item["arrays"][0][:] = 255
        assert [array.tobytes() for array in item["arrays"][1:]] == [
            bytes([(start_at + n) % 256]) * (child_arrays.AT + n) for n in range(1, number)
        ]


def test_what_is_no_array_and_has_a_buffer_arrives_too() -> None:
    """I7: bytes-like objects that speak protocol 5, of any size, none included; what could be written still can."""
    from . import child_arrays  # noqa: PLC0415 - NumPy may be missing

    for writable, read_only, out_of_band in start(child_arrays.buffers):
        size = len(writable)
        assert (writable, read_only) == (bytearray(size), bytes(size))
        assert bytes(out_of_band.data) == b"x" * size
        assert not memoryview(out_of_band.data).readonly


def test_what_the_consumer_keeps_does_not_change() -> None:
    """I7: though the source goes on, and reuses its own array."""
    from . import child_arrays  # noqa: PLC0415 - NumPy may be missing

    kept = list(start(child_arrays.reusing, 60, child_arrays.AT))
    assert [sorted(set(array.tobytes())) for array in kept] == [[number] for number in range(60)]


def views_of(array: Any) -> Iterator[Any]:
    """Give what outlives an array and shares its memory."""
    yield array[10:]
    yield array[10:][::3].reshape(-1, 1)
    yield memoryview(array)
    yield memoryview(memoryview(array)[20:])[5:]
    yield array.view("i1")
    yield array.base


def test_a_view_keeps_the_memory_of_its_array() -> None:
    """I7: and a view of a view; only when the last is gone may the source fill that memory again."""
    from . import child_arrays  # noqa: PLC0415 - NumPy may be missing

    arrays = start(child_arrays.endless, child_arrays.AT * 6)
    with arrays:
        views = []
        for number, array in zip(range(6), arrays, strict=False):
            views.append([*views_of(array)][number])
            del array
        for _ in range(60):
            next(arrays)
        contents = [set(memoryview(view).tobytes()) for view in views]
        assert contents == [{number} for number in range(6)]


def test_sizes_may_grow_and_shrink() -> None:
    """I7: a segment that is too small is replaced by a larger one, while others of its arrays are still held."""
    from . import child_arrays  # noqa: PLC0415 - NumPy may be missing

    sizes = [child_arrays.AT * n for n in [1, 2, 4, 8, 16, 3, 1, 32, 2]] * 3 + [1, child_arrays.BELOW, 0]
    kept: list[Any] = []
    for number, array in enumerate(start(child_arrays.growing, sizes)):
        assert (len(array), set(array.tobytes())) == (sizes[number], {number % 251} if sizes[number] else set())
        kept = [*kept[-2:], array]


@has_memory
def test_the_memory_is_reused_and_given_back() -> None:
    """I7: as many segments as are held, ready or on their way; what the consumer has let go is unmapped in time."""
    from . import child_arrays  # noqa: PLC0415 - NumPy may be missing

    before = child_arrays.segments()
    with pipe() as (told, tell), start(child_arrays.mapped, tell, child_arrays.AT) as arrays:
        for _ in range(50):
            assert len(next(arrays)) == child_arrays.AT
        assert max(told() for _ in range(50)) <= 4  # one ready, one in the hand, one being made, one spare
        kept = [next(arrays) for _ in range(40)]
        there = [told() for _ in range(40)]
        assert 38 <= there[-1] <= 44
        assert child_arrays.segments() - before >= 40
        kept.clear()
        for _ in range(50):
            next(arrays)
        assert [told() for _ in range(50)][-1] <= 4
        assert child_arrays.segments() - before <= 5
    del arrays
    gc.collect()
    assert child_arrays.segments() <= before


@has_memory
def test_the_memory_before_one_that_is_held_is_given_back() -> None:
    """I7: what the consumer has let go is unmapped in time, though it still holds the last of many."""
    from . import child_arrays  # noqa: PLC0415 - NumPy may be missing

    before = child_arrays.segments()
    with pipe() as (told, tell), start(child_arrays.mapped, tell, child_arrays.AT) as arrays:
        kept = [next(arrays) for _ in range(40)]
        last = kept[-1]
        kept.clear()
        for _ in range(50):
            next(arrays)
        assert [told() for _ in range(90)][-1] <= 5
        assert child_arrays.segments() - before <= 6
        assert set(last.tobytes()) == {39}


@has_memory
def test_more_arrays_may_be_held_than_there_are_descriptors(tmp_path: Path) -> None:
    """I7, A1: each segment takes one in both processes; where these would run out, arrays go in line."""
    script = """
        import resource
        from prefetch_generator import background
        from tests.contract import child_arrays

        if __name__ == "__main__":
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
            arrays = list(background(process="fork")(child_arrays.growing)([70_000] * 300))
            print([set(array.tobytes()) for array in arrays] == [{number % 251} for number in range(300)])
            print(0 < child_arrays.segments() < 100)
    """
    assert run_script(tmp_path, script) == "True\nTrue\n"


@has_memory
def test_the_memory_outlives_generator_and_process() -> None:
    """I7: an array is the consumer's own for as long as it is held, whatever becomes of where it came from."""
    from . import child_arrays  # noqa: PLC0415 - NumPy may be missing

    with start(child_arrays.endless, child_arrays.MEGABYTE) as arrays:
        array = next(arrays)
        other = next(arrays)
    del arrays
    gc.collect()
    array[:] += 5
    assert (set(array.tobytes()), set(other.tobytes())) == ({5}, {1})


@has_memory
def test_nothing_has_a_name_whoever_is_killed(tmp_path: Path) -> None:
    """I7: nothing is left in /dev/shm, neither by a child that is killed nor by a parent that is."""
    script = """
        import os, signal, sys
        from prefetch_generator import background
        from tests.contract import child_arrays

        if __name__ == "__main__":
            arrays = background(process="fork")(child_arrays.endless)(1 << 20)
            kept = [next(arrays) for _ in range(10)]
            print(len(kept), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    before = set(Path("/dev/shm").iterdir())
    assert run_script(tmp_path, script, returncode=-9) == "10\n"
    left = set(Path("/dev/shm").iterdir()) - before
    assert [it.name for it in left if "prefetch" in it.name or it.name.startswith("psm")] == []


@has_memory
@pytest.mark.parametrize("missing", ["_process_wire._HAS_MEMORY = False", "os.memfd_create = refuse"])
def test_without_such_memory_buffers_go_in_line(tmp_path: Path, missing: str) -> None:
    """I7: on another system, or where memory or descriptors have run out: the same arrays, writable as they were."""
    script = f"""
        import os
        from prefetch_generator import _process_wire, background
        from tests.contract import child_arrays
        from tests.contract.test_i_buffers import is_same

        def refuse(*_):
            raise OSError("none left")

        if __name__ == "__main__":
            {missing}
            arrays = child_arrays.arrays()
            got = dict(background(process="fork")(child_arrays.all_kinds)())
            del arrays["broadcast"], got["broadcast"]
            print([name for name in arrays if not is_same(arrays[name], got[name])], child_arrays.segments())
            items = background(process="fork")(child_arrays.many_in_one)(3)
            print([[len(array) for array in item["arrays"]] for item in items])
    """
    out = run_script(tmp_path, script)
    assert out == f"[] 0\n{[[65536, 65537, 65538]] * 3}\n"


@has_memory
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
def test_a_fork_of_the_parent_and_its_arrays(tmp_path: Path) -> None:
    """I7, E1: a fork that drops its arrays takes nothing from the parent; what it keeps goes on, as it was."""
    script = """
        import os
        from prefetch_generator import background
        from tests.contract import child_arrays

        def content(array):
            return sorted(set(array.tobytes()))

        def fork(job):
            pid = os.fork()
            if pid == 0:
                job()
                os._exit(0)
            return pid

        def drop():
            kept.clear()
            held.clear()

        def look():
            os.read(reading, 1)
            print([content(array) for array in held], flush=True)

        if __name__ == "__main__":
            reading, writing = os.pipe()
            arrays = background(process="fork", max_prefetch=1)(child_arrays.endless)(1 << 16)
            kept, held = [next(arrays) for _ in range(3)], [next(arrays) for _ in range(2)]
            os.waitpid(fork(drop), 0)
            pid = fork(look)
            held.clear()
            for _ in range(20):
                next(arrays)
            print([content(array) for array in kept], flush=True)
            os.write(writing, b"x")
            os.waitpid(pid, 0)
            for _ in range(20):
                next(arrays)
            print(child_arrays.segments() < 12)
    """
    out = run_script(tmp_path, script)
    assert out == "[[0], [1], [2]]\n[[3], [4]]\nTrue\n"


@needs("torch")
def test_tensors_of_all_kinds_arrive_as_they_were(tmp_path: Path) -> None:
    """I7: PyTorch's on the CPU: every type, no dimension, no element, not contiguous, parameters, with gradients."""
    script = """
        import torch
        from prefetch_generator import background
        from tests.contract import child_arrays

        def same(here, there):
            if isinstance(here, dict):
                return same(here["x"][0], there["x"][0]) and same(here["x"][1][0], there["x"][1][0])
            kinds = [(it.dtype, it.shape, it.requires_grad, type(it), it.layout) for it in (here, there)]
            return kinds[0] == kinds[1] and torch.equal(here.to_dense(), there.to_dense())

        if __name__ == "__main__":
            for method in ("fork", "forkserver"):
                got = dict(background(process=method)(child_arrays.tensors)())
                wanted = dict(child_arrays.tensors())
                print(list(got) == list(wanted), [name for name in wanted if not same(wanted[name], got[name])])
                got["int64"] += 1  # writable
            print(child_arrays.segments() > 5)
    """
    out = run_script(tmp_path, script, "-W", "ignore")
    assert out == "True []\nTrue []\nTrue\n"


FRAMES = {
    "pandas": 'pandas.DataFrame({"a": range(100_000), "b": [0.5] * 100_000})',
    "pyarrow": 'pyarrow.table({"a": list(range(100_000)), "b": ["text"] * 100_000})',
}


@has_memory
@pytest.mark.parametrize("package", [pytest.param(name, marks=needs(name)) for name in FRAMES])
def test_frames_and_tables_travel_by_their_own_protocol(tmp_path: Path, package: str) -> None:
    """I7: pandas and pyarrow speak protocol 5, so their columns lie in shared memory too."""
    script = f"""
        import {package}
        from prefetch_generator import background
        from tests.contract import child_arrays

        def source():
            for _ in range(3):
                yield {FRAMES[package]}

        if __name__ == "__main__":
            got = list(background(process="fork")(source)())
            print([one.equals({FRAMES[package]}) for one in got], child_arrays.segments() >= 2)
    """
    out = run_script(tmp_path, script, "-W", "ignore")
    assert out == "[True, True, True] True\n"
