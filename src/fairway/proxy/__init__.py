"""The door: a reverse proxy on asyncio Protocols."""
