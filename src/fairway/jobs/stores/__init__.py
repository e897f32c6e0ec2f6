"""The stores behind `fairway.jobs.store`: memory, SQLite, Redis."""
