"""The publishers behind `fairway.events.publisher`: a channel, any store, Redis Streams."""
