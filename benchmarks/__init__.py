"""What prefetching costs and gains, measured beside the other ways of doing it: python -m benchmarks.

Nothing here is installed with the library, and nothing here fails because a machine is slow: it reports.

    __main__    the command line
    runner      one process per sample, candidates interleaved
    sample      what runs in that process: one workload with one candidate
    candidates  who is measured
    workload    what a workload is
    workloads   what is measured: a file for each section of the page, with its floor
    report      medians, ratios and tables
    charts      the picture
"""
