"""The stores behind `fairway.events.store`: memory, SQLite, Redis."""
