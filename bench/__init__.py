"""Benchmarks: ``pytest bench`` measures, ``python -m bench.report`` turns the results into a table and a plot."""
