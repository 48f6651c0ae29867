"""The soak test, for two seconds: `python tests/soak.py` runs it for minutes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_everything_at_once_at_random_for_two_seconds() -> None:
    """A1, A2, A7, A8, B1, B2, B4, C1 to C6, C8, D2, E3: and no thread, descriptor or memory is left."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(Path(__file__).with_name("soak.py")), "--minutes", "0.033"],
        capture_output=True,
        encoding="utf-8",
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "passed: " in done.stdout
