"""The recipes are true: each of their programs runs against the real libraries it is about, as it stands."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from .programs import ROOT, Block, expected, python_blocks, run_program, skip_without_what_it_imports
from .surroundings import Surroundings, eight_at_a_time, folder_of_ray

PAGES = sorted((ROOT / "docs" / "recipes").glob("*.md"))

# What a page's programs need around them.
SURROUNDINGS: dict[str, Surroundings] = {
    "ray": folder_of_ray,
    "several-workers": eight_at_a_time,
}

# What the libraries themselves warn of, on their own account: `-W` options of a page's programs.
IGNORED: dict[str, list[str]] = {
    # Lightning 2.6 calls what PyTorch 2.13 has deprecated.
    "keras-and-lightning": ["-W", "ignore:`isinstance(treespec, LeafSpec)` is deprecated:FutureWarning"],
}


def _nothing(_: Path) -> AbstractContextManager[dict[str, str]]:
    return nullcontext({})


def _programs() -> list[Any]:
    return [
        pytest.param(page.stem, *program.values, id=f"{page.stem}-{program.id}")
        for page in PAGES
        for program in python_blocks(page.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(("page", "block"), _programs())
def test_program(page: str, block: Block, tmp_path: Path) -> None:
    """Each block is a complete program; it warns of nothing, and prints what stands behind its `print`s."""
    skip_without_what_it_imports(block.code)
    with SURROUNDINGS.get(page, _nothing)(tmp_path) as replaced:
        code = block.code
        for old, new in replaced.items():
            code = code.replace(old, new)
        options = IGNORED.get(page, [])
        printed = run_program(block._replace(code=code), tmp_path / "recipe.py", *options, folder=tmp_path)
    assert printed == expected(block.code)
