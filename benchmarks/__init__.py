"""Timings, outside the tests: `python -m benchmarks`."""
