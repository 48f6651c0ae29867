"""The recipes are true: each of their programs runs against the real libraries it is about, as it stands."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .programs import ROOT, Block, blocks, expected, python_blocks, run_program, skip_without_what_it_imports
from .surroundings import MENTIONED

# Pages whose programs do not run alone: servers, and the cells of a notebook. Tests of their own run all of them.
ELSEWHERE = {"gunicorn", "notebooks", "web-servers"}

PAGES = [it for it in sorted((ROOT / "docs" / "recipes").glob("*.md")) if it.stem not in {"index", *ELSEWHERE}]

# What the libraries themselves warn of, on their own account: `-W` options of a page's programs.
IGNORED: dict[str, list[str]] = {
    # Lightning 2.6 calls what PyTorch 2.13 has deprecated.
    "keras-and-lightning": ["-W", "ignore:`isinstance(treespec, LeafSpec)` is deprecated:FutureWarning"],
}

# What a library rarely dies of, by what it says then: the program is run once more.
CRASHES = {
    # Ray 2.60, when a cancellation meets the beginning or end of a task. It does so without this package, too.
    "ray": "Tried to complete task that was not pending",
}


def _programs() -> list[Any]:
    return [
        pytest.param(page.stem, *program.values, id=f"{page.stem}-{program.id}")
        for page in PAGES
        for program in python_blocks(page.read_text(encoding="utf-8"))
    ]


def test_every_block_is_run() -> None:
    """None is in a language, or in a form, that nothing here runs."""
    for text in (page.read_text(encoding="utf-8") for page in PAGES):
        assert {block.language for block in blocks(text)} == {"python"}
        assert len(list(blocks(text))) == text.count("```") / 2


@pytest.mark.parametrize(("page", "block"), _programs())
def test_program(page: str, block: Block, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each block is a complete program; it warns of nothing, and prints what stands behind its `print`s."""
    skip_without_what_it_imports(block.code)
    with ExitStack() as stack:
        code = block.code
        for surroundings in [it for text, it in MENTIONED.items() if text in code]:
            for old, new in stack.enter_context(surroundings(tmp_path)).items():
                code = code.replace(old, new)
        run = partial(run_program, block._replace(code=code), tmp_path / "recipe.py", *IGNORED.get(page, []))
        try:
            printed = run(folder=tmp_path)
        except AssertionError as failure:
            if page not in CRASHES or CRASHES[page] not in str(failure):
                raise
            with capsys.disabled():
                print(f"run once more, because {page} has crashed: {CRASHES[page]}")
            printed = run(folder=tmp_path)
    assert printed == expected(block.code)
