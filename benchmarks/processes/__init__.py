"""The table of sources in a process of their own."""

from benchmarks.processes.candidates import CANDIDATES
from benchmarks.processes.life import FIRST_ITEM, IDLE
from benchmarks.processes.speed import ARRAYS, COMPUTING, SMALL_ITEMS
from benchmarks.table import Table

PROCESSES = Table("processes", CANDIDATES, [SMALL_ITEMS, COMPUTING, ARRAYS, FIRST_ITEM, IDLE])
