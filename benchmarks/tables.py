"""The tables, by name, in the order of the page.

To add one, write a package with its candidates, this library first, and its workloads; what `make` takes and gives is
between these two. Name its `Table` here: the command line, the runner and the report need no more.
"""

from benchmarks.asynchronous import ASYNCHRONOUS_CONSUMERS, ASYNCHRONOUS_SOURCES
from benchmarks.processes import PROCESSES
from benchmarks.synchronous import SYNCHRONOUS

TABLES = {table.name: table for table in [SYNCHRONOUS, ASYNCHRONOUS_CONSUMERS, ASYNCHRONOUS_SOURCES, PROCESSES]}
