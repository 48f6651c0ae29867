"""The soak test, for two seconds: `python -m verification.soak` runs it for minutes."""

from __future__ import annotations

from pathlib import Path

from tests.helpers import python
from verification import soak

ROOT = str(Path(soak.__file__).parents[1])
SCRIPT = f"import sys; sys.path.insert(0, {ROOT!r}); from verification.soak import main; sys.exit(main())"


def test_everything_at_once_at_random_for_two_seconds() -> None:
    """A1, A2, A7, A8, B1, B2, B4, C1 to C6, C8, D2, E3, G1 to G7, H1, H2; and nothing is left behind."""
    out, err = python("-c", SCRIPT, "--minutes", "0.033")
    assert err == ""
    assert "passed: " in out
