"""The worker's counters as Prometheus metrics. prometheus-client writes the text, and is imported when someone asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric

from fairway.proxy.control import HISTOGRAM_BOUNDS_S, Statistics


class StatisticsCollector:
    """Turns snapshots into metric families.

    Args:
        statistics: One worker's, or those of several by a name that becomes the label ``worker``: their counters begin
            anew with each process, so they are not summed here.
    """

    def __init__(self, statistics: Statistics | Mapping[str, Statistics]) -> None:
        self._snapshots: list[tuple[list[str], Statistics]]
        if isinstance(statistics, Statistics):
            self._names: list[str] = []
            self._snapshots = [([], statistics)]
        else:
            self._names = ["worker"]
            self._snapshots = [([name], one) for name, one in statistics.items()]

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        connections = GaugeMetricFamily("fairway_door_connections", "Open client connections.", labels=self._names)
        running = GaugeMetricFamily("fairway_door_requests_in_flight", "Requests running now.", labels=self._names)
        dropped = CounterMetricFamily("fairway_door_log_dropped", "Access log records dropped.", labels=self._names)
        for worker, snapshot in self._snapshots:
            connections.add_metric(worker, snapshot.connections)
            running.add_metric(worker, snapshot.requests_in_flight)
            dropped.add_metric(worker, snapshot.log_dropped)
        yield from (connections, running, dropped)
        yield from self._routes()
        yield from self._targets()

    def _routes(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "fairway_door_requests", "Answers by route and status.", labels=[*self._names, "route", "status"]
        )
        latency = HistogramMetricFamily(
            "fairway_door_latency_seconds",
            "Seconds from a request's head to its answer's.",
            labels=[*self._names, "route"],
        )
        for worker, snapshot in self._snapshots:
            for name, route in snapshot.routes.items():
                for status, count in route.requests.items():
                    requests.add_metric([*worker, name, status], count)
                running = 0
                buckets = []
                for bound, count in zip([*map(str, HISTOGRAM_BOUNDS_S), "+Inf"], route.latency_buckets, strict=True):
                    running += count
                    buckets.append((bound, float(running)))
                latency.add_metric([*worker, name], buckets, route.latency_sum_s)
        yield requests
        yield latency

    def _targets(self) -> Iterator[Metric]:
        labels = [*self._names, "target"]
        counters = {
            "requests": "Exchanges finished by target.",
            "errors_5xx": "Of those, answered with 5xx.",
            "connect_errors": "Connections that could not be made.",
            "bytes_received": "Bytes of bodies taken from it.",
        }
        gauges = {"in_flight": "Requests running by target.", "idle_connections": "Kept connections."}
        for field, text in counters.items():
            yield self._by_target(CounterMetricFamily(f"fairway_door_target_{field}", text, labels=labels), field)
        for field, text in gauges.items():
            yield self._by_target(GaugeMetricFamily(f"fairway_door_target_{field}", text, labels=labels), field)

    def _by_target(self, family: CounterMetricFamily | GaugeMetricFamily, field: str) -> Metric:
        for worker, snapshot in self._snapshots:
            for name, target in snapshot.targets.items():
                family.add_metric([*worker, name], getattr(target, field))
        return family


def render_metrics(statistics: Statistics | Mapping[str, Statistics]) -> str:
    """Return snapshots, as `StatisticsCollector` takes them, in the Prometheus text format."""
    registry = CollectorRegistry()
    registry.register(StatisticsCollector(statistics))
    return generate_latest(registry).decode()
