"""The script, and modules of a user's, which the command imports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command.invented import WriteModule


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return where the script `prefetch-generator` is, as pip writes it: in a folder that is not the current one."""
    path = tmp_path_factory.mktemp("bin") / "prefetch-generator"
    path.write_text(
        "import sys\n"
        "from prefetch_generator._command.command_line import run_script\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(run_script())\n",
        encoding="utf-8",
    )
    return str(path)


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
