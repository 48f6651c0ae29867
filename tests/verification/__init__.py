"""The quick part of `verification`, in every run of the suite."""
