"""Run an iterable in a background thread, a bounded number of items ahead of the loop that consumes it."""

from prefetch_generator._decorator import background
from prefetch_generator._errors import NotReadyError, SourceProcessError
from prefetch_generator._generator import BackgroundGenerator, Stats
from prefetch_generator._iterable import BackgroundIterable
from prefetch_generator._stop import StopEvent, current_stop_event

__version__ = "2.1.0"

__all__ = [
    "BackgroundGenerator",
    "BackgroundIterable",
    "NotReadyError",
    "SourceProcessError",
    "Stats",
    "StopEvent",
    "__version__",
    "background",
    "current_stop_event",
    "prefetch",
]

prefetch = background  # the name that version 1 had for it

for _public in (
    BackgroundGenerator,
    BackgroundIterable,
    NotReadyError,
    SourceProcessError,
    Stats,
    StopEvent,
    background,
    current_stop_event,
):
    _public.__module__ = __name__  # where users find them, and look for them in a traceback
del _public
