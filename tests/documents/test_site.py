"""The site is true: its programs run, and its reference has every public name. The rest is for `nox -s docs` to see."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import prefetch_generator
from tests.helpers import posix, python

from .programs import ROOT, Block, expected, python_blocks, run_program

PROGRAMS = [
    pytest.param(*program.values, id=f"{page.stem}-{program.id}")
    for page in sorted((ROOT / "docs").glob("*.md"))
    if page.stem != "command"  # whose programs need what the command writes: they have a test of their own
    for program in python_blocks(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("block", PROGRAMS)
def test_program(block: Block, tmp_path: Path) -> None:
    """Each block is a complete program; it warns of nothing, and prints what stands behind its `print`s."""
    assert run_program(block, tmp_path / "program.py", folder=tmp_path) == expected(block.code, tmp_path)


def test_the_reference_has_every_public_name() -> None:
    """Each of them, and nothing else."""
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    named = re.findall(r"^\.\. (?:auto\w+|data):: (\w+)", text, re.MULTILINE)
    assert sorted(named) == sorted(prefetch_generator.__all__)


ISOLATED = """
import _interpreters
interpreter = _interpreters.create("isolated")
failure = _interpreters.run_string(interpreter, '''
from prefetch_generator import BackgroundGenerator
BackgroundGenerator(range(3))
''')
print(failure.type.__name__)
_interpreters.destroy(interpreter)
"""


@pytest.mark.skipif(sys.version_info < (3, 13), reason="the module had another name then, and answered otherwise")
def test_an_isolated_sub_interpreter_is_refused() -> None:
    """Limits: it allows no daemon threads, so the constructor raises `RuntimeError`."""
    assert python("-c", ISOLATED) == ("RuntimeError\n", "")


SIGNALS = """
import signal
from prefetch_generator import BackgroundGenerator

def source():
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ValueError:
        yield "refused"

print(list(BackgroundGenerator(source())))
"""


def test_a_source_cannot_set_a_signal_handler() -> None:
    """Limits: `signal.signal` in a source is a `ValueError`."""
    assert python("-c", SIGNALS) == ("['refused']\n", "")


IN_A_PROCESS = """
import signal
from prefetch_generator import background

@background(process=True)
def source():
    heard = []
    signal.signal(signal.SIGUSR1, lambda *_: heard.append("heard"))
    signal.raise_signal(signal.SIGUSR1)
    yield from heard

if __name__ == "__main__":
    print(list(source()))
"""


@posix
def test_a_source_in_a_process_may_set_one(tmp_path: Path) -> None:
    """Limits: with `process=True` the source is on the main thread of its process."""
    script = tmp_path / "script.py"
    script.write_text(IN_A_PROCESS, encoding="utf-8")
    assert python(str(script)) == ("['heard']\n", "")
