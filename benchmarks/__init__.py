"""What prefetching costs and gains, measured against everything else that does it: python -m benchmarks.

Nothing here is installed with the library, and nothing here fails because of a slow machine: it reports.

    __main__   the command line
    runner     one process per sample, candidates interleaved
    sample     what runs in that process: one workload with one candidate
    workloads  what is measured, and each one's floor
    candidates who is measured
    report     medians, ratios and tables; `charts` draws them
"""
