# ruff: noqa: INP001 - a module for the command, not part of a package
"""The source in the picture of the overlap, docs/overlap.svg: it waits for each item, as for a disk or a network."""

from __future__ import annotations

import time
from collections.abc import Iterator


def load() -> Iterator[int]:
    """Take a tenth of a second for each of six items."""
    for number in range(6):
        time.sleep(0.1)
        yield number
