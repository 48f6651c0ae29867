"""The exceptions of this library's own."""

from __future__ import annotations


class NotReadyError(TimeoutError):
    """`next(timeout)` ran out of time. Nothing is lost: call it again.

    A class of its own, because the source may raise `TimeoutError` itself, which is forwarded, and is the end.

    >>> go = StopEvent()
    >>> answers = BackgroundGenerator(go.wait() for _ in range(1))
    >>> try:
    ...     answers.next(timeout=0.01)
    ... except NotReadyError:
    ...     print("not yet")
    not yet
    >>> go.set()
    >>> answers.next()
    True
    """


class SourceProcessError(RuntimeError):
    """The process that ran a source has died, and not by its own will. The items it had sent came before this.

    Attributes:
        exitcode: What `multiprocessing.Process.exitcode` was: the negative number of the signal that has killed it, or
            else its status. None if that is not known.

    >>> import signal
    >>> dying = background(process=True)(signal.raise_signal)
    >>> try:
    ...     next(dying(signal.SIGTERM))
    ... except SourceProcessError as error:
    ...     error.exitcode != 0
    True
    """

    exitcode: int | None

    def __init__(self, message: str, exitcode: int | None = None) -> None:
        super().__init__(message)
        self.exitcode = exitcode
