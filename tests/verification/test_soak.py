"""The soak test, for two seconds: `python -m verification.soak` runs it for minutes."""

from __future__ import annotations

from tests.helpers import python
from verification import soak


def test_everything_at_once_at_random_for_two_seconds() -> None:
    """A1, A2, A7, A8, B1, B2, B4, C1 to C6, C8, D2, E3: and no thread, descriptor or memory is left."""
    out, err = python(soak.__file__, "--minutes", "0.033")
    assert err == ""
    assert "passed: " in out
