"""The worker's counters as Prometheus metrics. prometheus-client writes the text, and is imported when someone asks."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric

from fairway.proxy.control import HISTOGRAM_BOUNDS_S, Statistics


class StatisticsCollector:
    """Turns one snapshot into metric families."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        snapshot = self._statistics
        yield GaugeMetricFamily("fairway_door_connections", "Open client connections.", snapshot.connections)
        yield GaugeMetricFamily("fairway_door_requests_in_flight", "Requests running now.", snapshot.requests_in_flight)
        yield CounterMetricFamily("fairway_door_log_dropped", "Access log records dropped.", snapshot.log_dropped)
        requests = CounterMetricFamily(
            "fairway_door_requests", "Answers by route and status.", labels=["route", "status"]
        )
        latency = HistogramMetricFamily(
            "fairway_door_latency_seconds", "Seconds from a request's head to its answer's.", labels=["route"]
        )
        for name, route in snapshot.routes.items():
            for status, count in route.requests.items():
                requests.add_metric([name, status], count)
            running = 0
            buckets = []
            for bound, count in zip([*map(str, HISTOGRAM_BOUNDS_S), "+Inf"], route.latency_buckets, strict=True):
                running += count
                buckets.append((bound, float(running)))
            latency.add_metric([name], buckets, route.latency_sum_s)
        yield requests
        yield latency
        yield from self._targets()

    def _targets(self) -> Iterator[Metric]:
        targets = self._statistics.targets
        counters = {
            "requests": "Exchanges finished by target.",
            "errors_5xx": "Of those, answered with 5xx.",
            "connect_errors": "Connections that could not be made.",
            "bytes_received": "Bytes of bodies taken from it.",
        }
        for field, text in counters.items():
            family = CounterMetricFamily(f"fairway_door_target_{field}", text, labels=["target"])
            for name, target in targets.items():
                family.add_metric([name], getattr(target, field))
            yield family
        for field, text in {
            "in_flight": "Requests running by target.",
            "idle_connections": "Kept connections.",
        }.items():
            gauge = GaugeMetricFamily(f"fairway_door_target_{field}", text, labels=["target"])
            for name, target in targets.items():
                gauge.add_metric([name], getattr(target, field))
            yield gauge


def render_metrics(statistics: Statistics) -> str:
    """Return a snapshot in the Prometheus text format."""
    registry = CollectorRegistry()
    registry.register(StatisticsCollector(statistics))
    return generate_latest(registry).decode()
