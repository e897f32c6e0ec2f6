"""The registry: what an app is, read from YAML."""
