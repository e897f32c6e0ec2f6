"""Go's concurrency for Python: channels, select, context and all that goes with them."""
