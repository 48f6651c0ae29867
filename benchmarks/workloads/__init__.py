"""The workloads, in the order of the page."""

from benchmarks.workloads.handoff import HANDOFF
from benchmarks.workloads.idle import IDLE
from benchmarks.workloads.lifecycle import LIFE_CYCLE
from benchmarks.workloads.many import MANY
from benchmarks.workloads.memory import MEMORY
from benchmarks.workloads.overlap import OVERLAP
from benchmarks.workloads.realwork import REAL_WORK

WORKLOADS = {workload.name: workload for workload in (HANDOFF, OVERLAP, LIFE_CYCLE, IDLE, MEMORY, MANY, REAL_WORK)}
