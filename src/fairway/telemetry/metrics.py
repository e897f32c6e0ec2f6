"""Metrics of one process: a thin registry over prometheus-client, imported when the first metric is made.

Names follow Prometheus' conventions, prefix ``fairway_``, units in the name (``_seconds``, ``_bytes``, ``_total``).
Facts that somebody else keeps (apps, queues, subscribers) are not counted twice: a collector asks for them when the
page is rendered.

Source: Prometheus, "Metric and label naming" and "Writing client libraries".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.metrics_core import Metric

DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Sample:
    """One value at the time of rendering.

    Attributes:
        name: Metric's name; counters end in ``_total``.
        value: Its value.
        labels: Label names and values.
        about: One sentence, the same for all samples of one name.
        kind: ``gauge`` goes up and down, ``counter`` only up.
    """

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    about: str = ""
    kind: Literal["gauge", "counter"] = "gauge"


class Metrics:
    """The metrics of one process, apart from prometheus-client's global registry, so that tests do not meet."""

    def __init__(self) -> None:
        self._registry: CollectorRegistry | None = None
        self._asked: list[Callable[[], Iterable[Sample]]] = []
        self._of_process = False

    @property
    def registry(self) -> CollectorRegistry:
        """The registry of prometheus-client; made at first use."""
        if self._registry is None:
            from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics

            # A second series for each counter, which nobody here asks for.
            disable_created_metrics()  # type: ignore[no-untyped-call]  # not annotated in the library
            self._registry = CollectorRegistry()
            for ask in self._asked:
                self._registry.register(_Asking(ask))
            if self._of_process:
                ProcessCollector(registry=self._registry)
        return self._registry

    def counter(self, name: str, about: str, labels: Sequence[str] = ()) -> Counter:
        """Make a counter; its name ends in ``_total``. Raises `ValueError` where the name is taken."""
        from prometheus_client import Counter

        return Counter(name, about, labels, registry=self.registry)

    def gauge(self, name: str, about: str, labels: Sequence[str] = ()) -> Gauge:
        """Make a gauge. Raises `ValueError` where the name is taken."""
        from prometheus_client import Gauge

        return Gauge(name, about, labels, registry=self.registry)

    def histogram(
        self, name: str, about: str, labels: Sequence[str] = (), *, buckets: Sequence[float] = DURATION_BUCKETS
    ) -> Histogram:
        """Make a histogram of seconds. Raises `ValueError` where the name is taken."""
        from prometheus_client import Histogram

        return Histogram(name, about, labels, registry=self.registry, buckets=buckets)

    def collect(self, ask: Callable[[], Iterable[Sample]]) -> None:
        """Call `ask` at each rendering; an error in it is logged and costs its samples, not the page.

        To be called before the first rendering. Costs nothing until then.
        """
        self._asked.append(ask)

    def collect_process(self) -> None:
        """Add the facts of this process: memory, CPU seconds, descriptors, start time (Linux)."""
        self._of_process = True

    def render(self) -> tuple[bytes, str]:
        """Return the page in Prometheus' text format, and its content type."""
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class _Asking:
    """A collector of prometheus-client over a function that returns samples."""

    def __init__(self, ask: Callable[[], Iterable[Sample]]) -> None:
        self._ask = ask

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: what there is shows only when asked for."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Group the samples of one name into one metric."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        from fairway.telemetry import log

        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        try:
            for sample in self._ask():
                labels = dict(sample.labels)
                if sample.name not in families:
                    make = CounterMetricFamily if sample.kind == "counter" else GaugeMetricFamily
                    families[sample.name] = make(sample.name, sample.about or sample.name, labels=list(labels))
                families[sample.name].add_metric(list(labels.values()), sample.value)
        except Exception as error:
            log.get("metrics").error("a collector failed", exc_info=error)
        return list(families.values())
