"""The recipe for notebooks is true: its blocks are the cells of one notebook, in a real kernel."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers import needs, python

from .programs import ROOT, blocks, expected

CELLS = [block.code for block in blocks((ROOT / "docs" / "recipes" / "notebooks.md").read_text(encoding="utf-8"))]

# The arguments: the cells and a folder for the kernel's files.
RUNNER = """
import json, os, sys
os.environ.update(JUPYTER_PLATFORM_DIRS="1", IPYTHONDIR=sys.argv[2], JUPYTER_RUNTIME_DIR=sys.argv[2])
import nbformat
from nbclient import NotebookClient

cells = [nbformat.v4.new_code_cell(code) for code in json.loads(sys.argv[1])]
NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=30, kernel_name="python3").execute()
print(json.dumps([["".join(output["text"]) for output in cell.outputs] for cell in cells]))
"""

LEFT = """
import threading
for thread in threading.enumerate():
    if thread.name.startswith("BackgroundGenerator"):
        thread.join(20)
        print(thread)
"""


@needs("nbclient", "nbformat", "ipykernel")
def test_the_cells_run_one_after_the_other(tmp_path: Path) -> None:
    """Each cell prints what stands behind its `print`s, and in the end no thread is left."""
    # What others log and warn of is not the subject.
    out, _ = python("-W", "ignore", "-c", RUNNER, json.dumps([*CELLS, LEFT]), str(tmp_path))
    printed = ["".join(outputs).splitlines() for outputs in json.loads(out)]
    assert printed == [*map(expected, CELLS), []]
