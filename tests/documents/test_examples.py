"""The examples run, say what they did, and are clean: they are what users copy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers import needs, python

EXAMPLES = Path(__file__).parents[2] / "examples"
SAID = {
    "hash_files": r"hashed \d+ files, [\d.]+ MB\nreading waited [\d.]+ s, hashing [\d.]+ s\n",
    "sqlite_rows": (r"read 20000 rows, mean 9\.75 degrees\nread the first 3 rows and closed the database\n"),
    "http_pages": (
        r"took 80 items from 8 pages, with one retry\n"
        r"left in [\d.]+ s what would have waited 60 s\n"
    ),
    "fastapi_stream": r"one client read 200000 rows\none client left after 10 rows, which ended the query\n",
    "httpx_pages": r"took 30 numbers from 3 pages\nleft, and the request for page 4 was cancelled\n",
    "trio_consumer": (
        r"took all 10 values, though the time was up \d+ times\n"
        r"meanwhile the other task ran \d+ times; the sensor was closed\n"
    ),
}
NEEDED = {
    "dataloader": ["torch"],
    "fastapi_stream": ["fastapi", "httpx", "uvicorn"],
    "httpx_pages": ["httpx"],
    "trio_consumer": ["trio"],
}
SKIPPED = {
    "dataloader": "PyTorch",
    "fastapi_stream": "FastAPI, httpx or uvicorn",
    "httpx_pages": "httpx",
    "trio_consumer": "trio",
}


def run(script: Path, *options: str) -> str:
    """Run an example as a user would, in a process of its own, and return what it printed."""
    out, err = python(*options, str(script))
    # asyncio, as `-X dev` has it, complains of a step that takes long, as a client does that reads its certificates.
    assert re.sub(r"Executing <.*> took [\d.]+ seconds\n", "", err) == ""
    return out


@pytest.mark.parametrize("name", [pytest.param(it, marks=needs(*NEEDED.get(it, []))) for it in SAID])
def test_example(name: str) -> None:
    """Each example verifies its own result; here it must also do so without a warning."""
    assert re.fullmatch(SAID[name], run(EXAMPLES / f"{name}.py"))


def test_every_example_is_tested() -> None:
    """No example is left to rot."""
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*SAID, "dataloader"}


@needs(*NEEDED["dataloader"])
def test_dataloader_example() -> None:
    """The real DataLoader gives every batch in order, with and without its own processes."""
    # torch itself warns, as soon as it is imported, where NumPy is not installed.
    options = ("-W", "ignore:Failed to initialize NumPy:UserWarning")
    assert run(EXAMPLES / "dataloader.py", *options) == (
        "num_workers=0: 3 epochs of 20 batches, one break\nnum_workers=2: 3 epochs of 20 batches, one break\n"
    )


@pytest.mark.parametrize(("name", "missing"), [(name, it) for name in NEEDED for it in NEEDED[name]])
def test_example_without_what_it_needs(name: str, missing: str, tmp_path: Path) -> None:
    """Where something is missing, the example that needs it says so in one line and is content."""
    (tmp_path / f"{missing}.py").write_text("raise ImportError('as if it were missing')\n")
    script = tmp_path / f"{name}.py"  # beside the false module, which is then found first
    script.write_text((EXAMPLES / f"{name}.py").read_text())
    assert run(script) == f"skipped: {SKIPPED[name]} is not installed\n"
