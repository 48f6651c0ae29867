"""The documents, the examples and the benchmarks are true; the public names are those of the contract."""
