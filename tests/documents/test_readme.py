"""The README is true: its code runs, its commands work, and the tests it names are there."""

from __future__ import annotations

import ast
import re
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest

import prefetch_generator
from prefetch_generator import BackgroundGenerator, background, prefetch
from tests.helpers import python

from .programs import ROOT, Block, blocks, expected, python_blocks, run_program

README = (ROOT / "README.md").read_text(encoding="utf-8")

# For a machine without them. They give as much as the README's loop needs.
STAND_INS = {
    "torch": {
        "torch/__init__.py": "from unittest.mock import MagicMock\nnn = optim = randn = MagicMock()\n",
        "torch/utils/__init__.py": "",
        "torch/utils/data.py": """
class TensorDataset:
    def __init__(self, *tensors): pass

class DataLoader:
    def __init__(self, dataset, batch_size): pass
    def __len__(self): return 8
    def __iter__(self): return iter([("inputs", "targets")] * 8)
""".lstrip(),
    },
    "tqdm": {"tqdm.py": "def tqdm(iterable, total=None): return iter(iterable)\n"},
}


def run(*arguments: str, folder: Path) -> str:
    """Run Python in the folder, and return what it printed; nothing may go wrong, nor be warned of."""
    out, err = python(*arguments, folder=folder, PYTHONIOENCODING="utf-8")
    assert err == ""
    return out


def test_every_block_is_tested() -> None:
    """No block is in a language, or in a form, that nothing below runs."""
    assert {block.language for block in blocks(README)} == {"python", "sh"}
    assert len(list(blocks(README))) == README.count("```") / 2


@pytest.mark.parametrize("block", python_blocks(README))
def test_code_runs(block: Block, tmp_path: Path) -> None:
    """Each block is a complete program, and prints what stands behind its `print`."""
    for module, files in STAND_INS.items():
        if find_spec(module) is None:
            for name, text in files.items():
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_text(text, encoding="utf-8")
    # The real torch warns, as soon as it is imported, where NumPy is not installed.
    options = ("-W", "ignore:Failed to initialize NumPy:UserWarning")
    printed = run_program(block, tmp_path / "example.py", *options, folder=ROOT)
    assert printed == expected(block.code, ROOT)


def test_the_commands_are_those_that_ci_runs() -> None:
    """The other two commands stand alone, and what follows `pip install` is what .ci/run does with the result."""
    install, *commands = [block.code.strip() for block in blocks(README) if block.language == "sh"]
    assert install == f"pip install {prefetch_generator.__name__}"  # what PyPI has under that name
    assert commands == ["pip install . && python -m prefetch_generator", "pip install '.[test]' && pytest -n auto"]
    ci = ROOT / ".ci" / "run"
    if not ci.exists():
        pytest.skip(".ci/run is not part of the source distribution")
    lines = ci.read_text(encoding="utf-8").splitlines()
    assert "pip install --quiet '.[test]'" in lines
    assert "check pytest -n auto" in lines
    assert any(line.startswith("check python -m prefetch_generator") for line in lines)


@pytest.mark.parametrize("source", [[], ["."], ["example:numbers"]], ids=["none", "folder", "callable"])
def test_the_main_job_runs(source: list[str], tmp_path: Path) -> None:
    """`python -m prefetch_generator` works alone, and with a folder or `package.module:callable` behind it."""
    (tmp_path / "example.py").write_text("def numbers():\n    return range(100)\n", encoding="utf-8")
    printed = run("-m", "prefetch_generator", *source, "--items", "3", folder=tmp_path)
    assert "\nadvice: " in printed


def test_it_is_short_and_shows_code_first() -> None:
    """At most 180 lines, and an example by line 20."""
    assert README.count("\n") <= 180
    assert next(blocks(README)).line <= 20


def test_every_test_named_exists() -> None:
    """Whoever wants to know how a guarantee is held finds the test."""
    named = set(re.findall(r"\btest_\w+", README))
    there = {
        node.name
        for path in Path(__file__).parents[1].rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert named
    assert named <= there


def test_every_guarantee_names_a_test() -> None:
    """A guarantee that nothing holds is not given."""
    section = README.partition("\n## Guarantees\n")[2].partition("\n## ")[0]
    _, _, *rows = re.findall(r"^\|.*\|$", section, re.MULTILINE)
    assert rows
    assert [row for row in rows if not re.search(r"\| `test_\w+`(, `test_\w+`)* \|$", row)] == []


def test_every_link_leads_somewhere() -> None:
    """To a file or folder of this project."""
    links = re.findall(r"\]\((.*?)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_line_of_version_1_is_there() -> None:
    """What a great many scripts contain goes on working: the block that has it is run above."""
    assert (
        "class DataLoaderX(DataLoader):\n"
        "    def __iter__(self):\n"
        "        return BackgroundGenerator(super().__iter__())\n"
    ) in README


def test_moving_from_version_1_is_as_described() -> None:
    """What the table calls an error is one, with the remedy it names; and the rest is as it says."""
    with pytest.raises(TypeError, match=r"@background\(max_prefetch=\.\.\.\)"):
        background(5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="generator"):
        BackgroundGenerator(generator=[1])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="preprocess_func"):
        BackgroundGenerator([1], preprocess_func=str)  # type: ignore[call-arg]
    for number in 2.5, True:
        with pytest.raises(TypeError, match=f"must be an integer, got {number}"):
            BackgroundGenerator([1], number)  # type: ignore[arg-type]
    assert prefetch is background
    numbers = BackgroundGenerator(iterable=(str(item) for item in [1, 2]))
    assert list(numbers) == ["1", "2"]
    assert not isinstance(numbers, threading.Thread)
    assert not hasattr(numbers, "join")
    assert not hasattr(numbers, "queue")
