"""Measurements behind the figures in the docs: `make bench`, or `python -m benchmarks NAME`.

One module a subject, each with a `main()` that prints what it measured, as ratios within the same run.
"""
