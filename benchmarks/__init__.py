"""What prefetching costs and gains, measured beside the other ways of doing it: python -m benchmarks.

Nothing here is installed with the library, and nothing here fails because a machine is slow: it reports.

    __main__      the command line
    table         what a table is: candidates of one kind, and workloads that all of them can run
    tables        the tables, by name; a new one is a package like `synchronous`, and a line there
    synchronous   the first table: its candidates, and its workloads with their floors
    asynchronous  the same for asynchronous consumers and asynchronous sources
    processes     the same for sources in a process of their own
    runner        one process per sample, candidates interleaved
    sample        what runs in that process: one workload with one candidate
    report        medians, ratios, tables and the picture
"""
