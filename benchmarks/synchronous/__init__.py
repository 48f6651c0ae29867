"""The table of iterators for a `for` loop: a source and a consumer on two threads."""

from benchmarks.synchronous.candidates import CANDIDATES
from benchmarks.synchronous.gain import OVERLAP, REAL_WORK
from benchmarks.synchronous.handoff import HANDOFF, MANY
from benchmarks.synchronous.life import IDLE, LIFE_CYCLE, MEMORY
from benchmarks.table import Table

SYNCHRONOUS = Table("synchronous", CANDIDATES, [HANDOFF, OVERLAP, LIFE_CYCLE, IDLE, MEMORY, MANY, REAL_WORK])
