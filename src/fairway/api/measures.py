"""What ``/metrics`` says of the services: asked for when the page is rendered, counted nowhere twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fairway.telemetry.metrics import Metrics, Sample

if TYPE_CHECKING:
    from fairway.events.bus import EventBus
    from fairway.health.checker import HealthChecker
    from fairway.logs.service import LogService
    from fairway.platform.platform import Platform


def measure(
    metrics: Metrics,
    platform: Platform,
    health: HealthChecker,
    logs: LogService,
    events: EventBus | None = None,
) -> Metrics:
    """Let `metrics` ask these services at each rendering; returns it."""
    if events is not None:
        metrics.collect(lambda: _events(events))
    metrics.collect(lambda: _apps(platform))
    metrics.collect(lambda: _health(health))
    metrics.collect(lambda: _logs(logs))
    metrics.collect_process()
    return metrics


def _apps(platform: Platform) -> Iterator[Sample]:
    for app in platform.apps():
        label = {"app": app.name}
        yield Sample("fairway_app_up", float(app.state == "running"), label, "Whether the app runs as wanted.")
        yield Sample("fairway_app_replicas", app.replicas, label, "Instances of web that are wanted.")
        yield Sample("fairway_app_ready", app.ready, label, "Instances of web that serve.")
        for one in app.instances:
            of = {"app": app.name, "instance": one.id}
            restarts = "Unplanned restarts since the instance was created."
            yield Sample("fairway_instance_restarts_total", one.restarts, of, restarts, "counter")
            if one.memory is not None:
                yield Sample(
                    "fairway_instance_memory_bytes", one.memory, of, "Resident memory of the instance's processes."
                )


def _health(health: HealthChecker) -> Iterator[Sample]:
    for status in health.statuses():
        label = {"app": status.app, "target": status.key}
        yield Sample("fairway_health_up", float(status.state == "healthy"), label, "Whether the target is healthy.")
        yield Sample("fairway_probe_duration_seconds", status.seconds, label, "Response time of the last probe.")
        yield Sample("fairway_probe_lag_seconds", status.lag, label, "How late the last probe started.")
    told = health.statistics()
    yield Sample("fairway_probes_total", told.probes, {}, "Probes that have finished.", "counter")


def _logs(logs: LogService) -> Iterator[Sample]:
    told = logs.statistics()
    yield Sample("fairway_log_bytes_total", told.bytes, {}, "Bytes by which log files have grown.", "counter")
    yield Sample("fairway_log_subscribers", told.subscribers, {}, "Readers that follow logs now.")
    yield Sample("fairway_log_dropped_lines_total", told.dropped, {}, "Lines that slow readers have lost.", "counter")


def _events(bus: EventBus) -> Iterator[Sample]:
    told = bus.statistics()
    yield Sample("fairway_event_offset", told["cursor"], {}, "Newest event that was handed to subscribers.")
    yield Sample("fairway_event_subscriptions", told["subscriptions"], {}, "Subscribers of now, replaying ones too.")
    yield Sample(
        "fairway_events_dropped_total", told["dropped"], {}, "Events that slow subscribers have lost.", "counter"
    )
    yield Sample("fairway_events_removed_total", told["removed"], {}, "Events that retention has removed.", "counter")
    yield Sample(
        *("fairway_event_groups_expired_total", told["expired_groups"], {}),
        *("Consumer groups that were deleted because nobody read them.", "counter"),
    )
