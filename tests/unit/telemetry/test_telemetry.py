"""Log lines, metrics, trace context."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from fairway.telemetry import log, trace
from fairway.telemetry.metrics import Metrics, Sample


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    handlers = list(logging.getLogger().handlers)
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers


def written(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object() -> None:
    stream = io.StringIO()
    log.configure(stream=stream)
    log.get("api", port=7070).info("listening\nnow", host="127.0.0.1")
    log.get("api").debug("not shown")
    (line,) = written(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "component": "api",
        "port": 7070,
        "host": "127.0.0.1",
        "level": "info",
        "msg": "listening\nnow",
    }


def test_a_logger_that_was_there_before_obeys_a_new_configuration() -> None:
    early, stream = log.get("early"), io.StringIO()
    log.configure(stream=stream, json=True, level=logging.DEBUG)
    early.debug("heard")
    assert [line["msg"] for line in written(stream)] == ["heard"]


def test_a_traceback_goes_along() -> None:
    stream = io.StringIO()
    log.configure(stream=stream)
    try:
        raise ValueError("why")
    except ValueError as error:
        log.get("x").error("failed", exc_info=error)
    assert "ValueError: why" in written(stream)[0]["exception"]


@pytest.mark.parametrize(
    "key", ["token", "FAIRWAY_TOKEN", "password", "Authorization", "db_secret", "api_key", "cookie"]
)
@pytest.mark.parametrize("json_lines", [True, False])
def test_no_secret_is_written(key: str, json_lines: bool) -> None:
    stream = io.StringIO()
    log.configure(stream=stream, json=json_lines)
    log.get("x").warning("given", **{key: "s3cr3t", "env": {key: "s3cr3t", "deep": {key: "s3cr3t"}}})
    assert "s3cr3t" not in stream.getvalue()
    assert "***" in stream.getvalue()


def test_a_terminal_gets_a_readable_line_and_no_local_variables() -> None:
    stream = io.StringIO()
    log.configure(stream=stream, json=False)
    password = "s3cr3t"
    try:
        raise ValueError(len(password))
    except ValueError as error:
        log.get("x").error("failed", exc_info=error)
    assert "failed" in stream.getvalue()
    assert "ValueError: 6" in stream.getvalue()
    assert "s3cr3t" not in stream.getvalue()


def test_libraries_speak_through_the_same_stream() -> None:
    stream = io.StringIO()
    log.configure(stream=stream)
    logging.getLogger("some.library").warning("careful: %s", "wet")
    logging.getLogger("some.library").info("chatter")
    (line,) = written(stream)
    assert (line["component"], line["level"], line["msg"]) == ("some.library", "warning", "careful: wet")


def test_stderr_is_looked_up_at_each_line(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = io.StringIO()
    monkeypatch.setattr("sys.stderr", gone)
    log.configure()
    now = io.StringIO()
    monkeypatch.setattr("sys.stderr", now)
    gone.close()
    log.get("x").warning("here")
    assert written(now)[0]["msg"] == "here"


def test_metrics_are_rendered_and_asked_for() -> None:
    metrics = Metrics()
    asked = 0

    def ask() -> list[Sample]:
        nonlocal asked
        asked += 1
        return [
            Sample("fairway_app_up", 1.0, {"app": "a"}, "Up."),
            Sample("fairway_app_up", 0.0, {"app": 'b"\n'}, "Up."),
            Sample("fairway_x_total", 3, {}, "X.", "counter"),
        ]

    metrics.collect(ask)
    assert asked == 0
    metrics.counter("fairway_done_total", "Done.", ["queue"]).labels("mail").inc(2)
    metrics.histogram("fairway_wait_seconds", "Waited.").observe(0.02)
    metrics.gauge("fairway_depth", "Depth.").set(5)
    body, content_type = metrics.render()
    text = body.decode()
    assert content_type.startswith("text/plain")
    assert asked == 1
    for line in (
        'fairway_app_up{app="a"} 1.0',
        'fairway_app_up{app="b\\"\\n"} 0.0',
        "fairway_x_total 3.0",
        'fairway_done_total{queue="mail"} 2.0',
        'fairway_wait_seconds_bucket{le="0.025"} 1.0',
        "fairway_depth 5.0",
        "# TYPE fairway_app_up gauge",
        "# TYPE fairway_x_total counter",
    ):
        assert line in text.splitlines()
    assert "_created" not in text
    with pytest.raises(ValueError, match="Duplicated"):
        metrics.gauge("fairway_depth", "Depth.")


def test_a_collector_that_fails_costs_its_samples_only() -> None:
    stream = io.StringIO()
    log.configure(stream=stream)
    metrics = Metrics()
    metrics.collect(lambda: [Sample("fairway_bad", 1 / 0)])
    metrics.collect(lambda: [Sample("fairway_good", 1.0)])
    assert b"fairway_good 1.0" in metrics.render()[0]
    assert "ZeroDivisionError" in stream.getvalue()


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        (" 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00 ", True),
        ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes", True),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", False),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", False),
        ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", False),
        ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.x", False),
        ("", False),
        (None, False),
    ],
)
def test_traceparent(value: str | None, valid: bool) -> None:
    assert (trace.parse(value) is not None) is valid


@given(st.booleans())
def test_a_context_comes_back_and_has_children(sampled: bool) -> None:
    context = trace.start(sampled=sampled)
    assert trace.parse(str(context)) == context
    child = context.child()
    assert (child.trace_id, child.sampled) == (context.trace_id, sampled)
    assert child.span_id != context.span_id


def test_structlog_is_imported_with_the_first_line_only() -> None:
    script = """
import sys
from fairway.telemetry import log
log.configure(stream=sys.stdout, json=True)
assert "structlog" not in sys.modules
log.get("x").info("first")
assert "rich" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["msg"] == "first"
