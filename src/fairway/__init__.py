"""Fairway: hosts small backends behind one door, over Go's concurrency for Python."""

__version__ = "0.1.0"
