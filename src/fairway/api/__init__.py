"""The HTTP face of the services: it translates, it decides nothing."""
