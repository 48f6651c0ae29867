"""The examples run, say what they did, and are clean: they are what users copy."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers import python

EXAMPLES = Path(__file__).parents[2] / "examples"
SAID = {
    "hash_files": r"hashed \d+ files, [\d.]+ MB\nreading waited [\d.]+ s, hashing [\d.]+ s\n",
    "sqlite_rows": (r"read 20000 rows, mean 9\.75 degrees\nread the first 3 rows and closed the database\n"),
    "http_pages": (
        r"took 80 items from 8 pages, with one retry\n"
        r"left in [\d.]+ s what would have waited 60 s\n"
    ),
}


def run(script: Path, *options: str) -> str:
    """Run an example as a user would, in a process of its own, and return what it printed."""
    out, err = python(*options, str(script))
    assert err == ""
    return out


@pytest.mark.parametrize("name", SAID)
def test_example(name: str) -> None:
    """Each example verifies its own result; here it must also do so without a warning."""
    assert re.fullmatch(SAID[name], run(EXAMPLES / f"{name}.py"))


def test_every_example_is_tested() -> None:
    """No example is left to rot."""
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*SAID, "dataloader"}


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
def test_dataloader_example() -> None:
    """The real DataLoader gives every batch in order, with and without its own processes."""
    # torch itself warns, as soon as it is imported, where NumPy is not installed.
    options = ("-W", "ignore:Failed to initialize NumPy:UserWarning")
    assert run(EXAMPLES / "dataloader.py", *options) == (
        "num_workers=0: 3 epochs of 20 batches, one break\nnum_workers=2: 3 epochs of 20 batches, one break\n"
    )


def test_dataloader_example_without_torch(tmp_path: Path) -> None:
    """Where PyTorch is missing, the example says so in one line and is content."""
    (tmp_path / "torch.py").write_text("raise ImportError('as if it were missing')\n")
    script = tmp_path / "dataloader.py"  # beside the false torch, which is then found first
    script.write_text((EXAMPLES / "dataloader.py").read_text())
    assert run(script) == "skipped: PyTorch is not installed\n"
