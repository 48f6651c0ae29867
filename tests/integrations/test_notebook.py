"""Contract B5, C6: a real notebook kernel, whose cells are run again and again."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers import posix, python

missing = [name for name in ("nbclient", "nbformat", "ipykernel") if find_spec(name) is None]

# Not `importorskip`: what these import, and warn of, stays in a process of its own.
pytestmark = [posix, pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)}: not installed")]

# What the notebook starts with. Without the collector, so that only what nobody keeps is gone.
SETUP = """
import gc, itertools, signal, threading, time
from prefetch_generator import BackgroundGenerator, current_stop_event

gc.disable()

def source(interrupt_at=None):
    stop = current_stop_event()
    for number in itertools.count():
        if number == interrupt_at:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        yield number
        stop.wait(0.005)

def workers():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("BackgroundGenerator")]

def workers_left():
    deadline = time.monotonic() + 10
    while workers() and time.monotonic() < deadline:
        time.sleep(0.01)
    return workers()
"""

# The arguments: the setup and the cell.
RUNNER = """
import os, sys
os.environ.update(JUPYTER_PLATFORM_DIRS="1", IPYTHONDIR=sys.argv[3], JUPYTER_RUNTIME_DIR=sys.argv[3])
import nbformat
from nbclient import NotebookClient

setup, cell = sys.argv[1:3]
cells = [nbformat.v4.new_code_cell(code) for code in [setup, cell, cell, cell, "print(workers_left())"]]
NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=30, kernel_name="python3", allow_errors=True).execute()
for cell in cells:
    print(*[output.get("ename") or output.get("text", "").strip() for output in cell.outputs])
"""


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        ("for number in BackgroundGenerator(source()):\n    if number == 3: break", ""),
        ("for number in BackgroundGenerator(source()):\n    if number == 3: 1 / 0", "ZeroDivisionError"),
        ("for number in BackgroundGenerator(source(interrupt_at=20)): pass", "KeyboardInterrupt"),
    ],
    ids=["left by break", "failed", "interrupted"],
)
def test_no_worker_of_an_earlier_run_of_a_cell_is_left(cell: str, error: str, tmp_path: Path) -> None:
    """B5, C6: the notebook keeps the last traceback, and thereby neither the generator nor its worker."""
    out, _ = python("-W", "ignore", "-c", RUNNER, SETUP, cell, str(tmp_path))  # what others log is not the subject
    assert out.splitlines() == ["", error, error, error, "[]"]
