"""The tables, by name, in the order of the page."""

from benchmarks.synchronous import SYNCHRONOUS

TABLES = {table.name: table for table in [SYNCHRONOUS]}
