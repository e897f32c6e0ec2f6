"""Wires the services together: deploys, releases, supervision, door control."""
