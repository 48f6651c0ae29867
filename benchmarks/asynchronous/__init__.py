"""The tables of bridges between a thread and an event loop: asynchronous consumers, and asynchronous sources."""

from benchmarks.asynchronous.candidates import CONSUMERS, SOURCES
from benchmarks.asynchronous.consumers import HANDOFF, MANY_STREAMS, TURNS
from benchmarks.asynchronous.sources import CLOSE, SOURCE_HANDOFF
from benchmarks.table import Table

ASYNCHRONOUS_CONSUMERS = Table("asynchronous consumers", CONSUMERS, [HANDOFF, MANY_STREAMS, TURNS])
ASYNCHRONOUS_SOURCES = Table("asynchronous sources", SOURCES, [SOURCE_HANDOFF, CLOSE])
