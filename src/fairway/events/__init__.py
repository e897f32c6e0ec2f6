"""The event bus: typed events, durable topics, consumer groups."""
