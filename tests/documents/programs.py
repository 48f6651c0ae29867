"""The programs in the documents: each block of Python between two fences is one, and runs as it stands."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.helpers import python

ROOT = Path(__file__).parents[2]


class Block(NamedTuple):
    """A block of code in a document."""

    line: int  # of its first line, from 1
    language: str
    code: str


def blocks(document: str) -> Iterator[Block]:
    """Find the blocks, each between two fences."""
    for match in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", document, re.MULTILINE):
        yield Block(document.count("\n", 0, match.start(2)) + 1, match[1], match[2])


def python_blocks(document: str) -> list[Any]:
    """Return the programs, as the parameters of a test."""
    return [pytest.param(it, id=f"line-{it.line}") for it in blocks(document) if it.language == "python"]


def expected(code: str, folder: Path | None = None) -> list[str]:
    """Return the lines that a program says it prints: the comments behind its `print`s."""
    if "hashlib" in code and folder is not None:  # prints a line for each file of the folder that it runs in
        return [f"{path.name} {sha256(path.read_bytes()).hexdigest()}" for path in sorted(folder.glob("*.py"))]
    return re.findall(r"^ *print\(.*\)  # (.+)$", code, re.MULTILINE)


def skip_without_what_it_imports(code: str) -> None:
    """Skip the test, and name what is missing."""
    nodes = list(ast.walk(ast.parse(code)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    missing = sorted(
        name for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names if find_spec(name) is None
    )
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed")


def run_program(block: Block, script: Path, *options: str, folder: Path) -> list[str]:
    """Run it from a file of that name, in the folder; return the lines it printed. It may warn of nothing."""
    # A traceback then names the line of the document.
    script.write_text("\n" * (block.line - 1) + block.code, encoding="utf-8")
    out, err = python(*options, str(script), folder=folder, PYTHONIOENCODING="utf-8", TQDM_DISABLE="1")
    assert err == ""
    return out.splitlines()
