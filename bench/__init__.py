"""Benchmarks beside public peers: `python -m bench.<subsystem>`."""
