"""Channels beside asyncio.Queue, anyio, trio, janus, culsans, aiologic and Go."""
