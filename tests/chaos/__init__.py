"""Runs that are disturbed on purpose, at moments drawn from a seed, and compared with one that was
left alone. `make chaos`, or `python -m chaos --help` with tests/ on the path."""
