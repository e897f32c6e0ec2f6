"""Durable, fenced jobs in memory, on SQLite and on Redis."""
