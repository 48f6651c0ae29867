"""Modules of a user's, which the command imports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command.invented import WriteModule


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteModule]:
    """Write a module that can be imported, here and in a child started in `tmp_path`, and return its name."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(code: str) -> str:
        (tmp_path / "data_of_a_test.py").write_text(code, encoding="utf-8")
        return "data_of_a_test"

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("data_of_a_test"):
            del sys.modules[name]
