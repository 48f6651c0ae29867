"""Fixtures of several sections."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from prefetch_generator import (
    BackgroundGenerator,
)

from .support import Stuck


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    source = Stuck()
    yield source
    source.go.set()


@pytest.fixture
def struck_finalizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every finalizer of a generator interrupted before its first line."""

    def strike(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BackgroundGenerator, "__del__", strike)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # where Python sends what a finalizer raises
