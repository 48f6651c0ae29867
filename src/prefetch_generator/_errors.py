"""The exceptions of this library's own."""

from __future__ import annotations


class NotReadyError(TimeoutError):
    """`next(timeout)` ran out of time. Nothing is lost: call it again.

    A class of its own, because the source may raise `TimeoutError` itself, which is forwarded, and is the end.
    """
