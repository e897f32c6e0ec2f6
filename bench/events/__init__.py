"""Events a second: one publisher, 1, 10 and 100 subscribers, in memory, on SQLite and over Redis Streams."""
