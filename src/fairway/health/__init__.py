"""Concurrent checks of every app into one collector."""
