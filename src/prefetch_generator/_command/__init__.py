"""What would prefetching gain, on the machine this runs on? The command `prefetch-generator`.

Each module imports only from those below it:

    command_line  options, errors, exit status
    terminal      what a person at a terminal sees, and a script does not
    plot          the measurement as a picture, by matplotlib
    figures       the measurement as JSON
    report        the measurement as text
    measure       run a source in every variant, with every consumer
    progress      how far that has come, and how long the rest can take
    find          from SOURCE to an iterator that can be had again and again
    consumers     the loop bodies that stand in for the user's
    machine       what this interpreter and these processors can do
    times         when each item was made and used, and what follows from that

A further way to run the source is one more entry in `measure.VARIANTS`, or, like the process, one that is tried only
where the others gain little; a further output is one more function of a `times.Measurement`, such as `report.lines`.
"""
