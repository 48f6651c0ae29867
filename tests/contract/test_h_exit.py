"""Contract, section H with C7: the end of the process, and of a child of `multiprocessing`."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path

import pytest

from tests.helpers import posix, python

from .support import program, run_program

AWAITS = """
import asyncio

async def awaits(name):
    try:
        yield 0
        inside.release()
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        say(name, "cancelled")
        raise
    finally:
        await asyncio.sleep(0)
        say(name, "closed")

async def counts(name):
    try:
        while True:
            yield 0
    finally:
        await asyncio.sleep(0)
        say(name, "closed")

def begin(*sources):
    generators = [BackgroundGenerator(source, 1) for source in sources]
    for numbers in generators:
        next(numbers)
    return generators

"""


def exit_of(script: str) -> tuple[list[str], str]:
    """Run the script, after the prologues, to its exit."""
    return run_program(AWAITS + textwrap.dedent(script))


# H2


def test_at_exit_every_asynchronous_source_is_told() -> None:
    """H2, C7: at interpreter exit a step is cancelled, a source at a `yield` closed; both have the time to clean up."""
    script = """
        kept = begin(awaits("one"), awaits("two"), counts("three"))
        inside.acquire(), inside.acquire()
    """
    out, err = exit_of(script)
    assert sorted(out) == ["one cancelled", "one closed", "three closed", "two cancelled", "two closed"]
    assert err == ""


def test_at_exit_a_source_that_used_the_executor_ends_quietly() -> None:
    """H2, C7: with a thread of the loop's own executor about, at whose end no other can be started."""
    script = """
        async def uses_threads():
            try:
                yield await asyncio.get_running_loop().run_in_executor(None, int)
                while True:
                    yield 1
            finally:
                say("closed")

        kept = begin(uses_threads())
    """
    assert exit_of(script) == (["closed"], "")


def test_at_exit_a_clean_up_that_hangs_delays_nothing_further() -> None:
    """H2, C7: one whose clean-up never ends is left after its second; nothing crashes, nothing is printed."""
    script = """
        async def hangs():
            try:
                while True:
                    yield 0
            finally:
                await asyncio.get_running_loop().create_future()

        kept = begin(hangs(), hangs())
    """
    started = time.monotonic()
    assert exit_of(script) == ([], "")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("method", [pytest.param("fork", marks=posix), "spawn"])
def test_at_the_end_of_a_child_it_is_told(method: str, tmp_path: Path) -> None:
    """H2, C7: the same at the end of a process that `multiprocessing` started."""
    script = f"""
import multiprocessing
{AWAITS}
def job():
    global kept
    kept = begin(awaits("one"), counts("two"))
    inside.acquire()

if __name__ == "__main__":
    process = multiprocessing.get_context("{method}").Process(target=job)
    process.start()
    process.join()
    say("exit code", str(process.exitcode))
"""
    path = tmp_path / "script.py"
    path.write_text(program(script), encoding="utf-8")
    out, err = python(str(path))
    assert (sorted(out.splitlines()), err) == (["exit code 0", "one cancelled", "one closed", "two closed"], "")
