"""What would prefetching gain me, on this machine? `python -m prefetch_generator` tells."""

from prefetch_generator._command.command_line import MODULE, run_and_exit

if __name__ == "__main__":
    run_and_exit(MODULE)
