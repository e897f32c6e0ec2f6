"""``/metrics`` on a port of its own, served by prometheus-client's own server in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from prometheus_client import start_http_server
from prometheus_client.core import CollectorRegistry
from prometheus_client.metrics_core import Metric

from fairway.proxy.control import Statistics
from fairway.proxy.metrics import StatisticsCollector
from fairway.proxy.worker import Worker


class LoopCollector:
    """Takes the snapshot on the worker's loop, where the counters live, and renders it in the asking thread."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterator[Metric]:
        """Yield the families of a fresh snapshot; waits at most two seconds for the loop."""
        snapshot = asyncio.run_coroutine_threadsafe(self._snapshot(), self._worker.loop).result(2.0)
        yield from StatisticsCollector(snapshot).collect()

    async def _snapshot(self) -> Statistics:
        return self._worker.statistics()


def serve_metrics(worker: Worker, host: str, port: int) -> Callable[[], None]:
    """Serve the metrics until the returned function is called.

    Raises:
        OSError: If the address cannot be bound.
    """
    registry = CollectorRegistry(auto_describe=False)
    collector = LoopCollector(worker)
    registry.register(_Described(collector))
    server, thread = start_http_server(port, host, registry)

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join(2.0)

    return close


class _Described:
    """Registration asks for a description; asking the loop for that, from the loop, would wait for ever."""

    def __init__(self, collector: LoopCollector) -> None:
        self._collector = collector

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        return self._collector.collect()
