"""The contract, a file for each section: see docs/contract.md."""
