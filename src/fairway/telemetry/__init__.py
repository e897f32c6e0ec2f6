"""Structured log, metrics, trace context."""
