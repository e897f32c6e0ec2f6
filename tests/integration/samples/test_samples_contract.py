"""The contract of `apps/CONTRACT.md`, over all samples."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.integration

Starter = Callable[..., Any]


def test_index_names_service_language_and_release(serving: Any) -> None:
    answer = serving.get("/")
    assert answer.status == 200
    assert answer.headers["content-type"].split(";")[0] == "application/json"
    sample = serving.sample
    assert answer.json == {"service": sample.name, "language": sample.language, "release": "r42"}


def test_health(serving: Any) -> None:
    answer = serving.get("/healthz")
    assert (answer.status, answer.json) == (200, {"status": "ok"})


def test_slow_waits_as_long_as_told(serving: Any) -> None:
    answer = serving.get("/slow?ms=30", {"X-Request-Id": "slow-30"})
    assert (answer.status, answer.json) == (200, {"slept_ms": 30})
    [line] = serving.wait_for(lambda: serving.requests_logged("slow-30"), 5, "line of the request")
    assert line["duration_ms"] >= 25  # a millisecond clock may round


@pytest.mark.parametrize("query", ["", "?ms=", "?ms=x", "?ms=1.5", "?ms=-1", "?ms=10001", "?ms=99999999999999999999"])
def test_slow_refuses_what_is_out_of_bounds(serving: Any, query: str) -> None:
    answer = serving.get(f"/slow{query}")
    assert answer.status == 400
    assert "ms" in answer.json["error"]


@pytest.mark.parametrize("target", ["/", "/healthz", "/slow?ms=0"])
def test_head_is_get_without_the_body(serving: Any, target: str) -> None:
    answer = serving.get(target, method="HEAD")
    assert answer.status == 200
    assert answer.headers["content-type"].split(";")[0] == "application/json"


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/healthz/", 404),
        ("GET", "/Healthz", 404),
        ("GET", "//healthz", 404),
        ("GET", "/nowhere/../healthz/.", 404),
        ("DELETE", "/healthz", 405),
    ],
)
def test_errors_are_json_sentences(serving: Any, method: str, target: str, status: int) -> None:
    answer = serving.get(target, method=method)
    assert answer.status == status
    assert answer.headers["content-type"].split(";")[0] == "application/json"
    assert status != 405 or answer.headers["allow"] == "GET, HEAD"
    assert list(answer.json) == ["error"]
    assert answer.json["error"]


@pytest.mark.parametrize("given", ["c0ffee", "A.b_c-9", "x" * 128])
def test_request_id_is_kept(serving: Any, given: str) -> None:
    assert serving.get("/", {"X-Request-Id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", 'quo"te', "semi;colon"])
def test_request_id_that_could_do_harm_is_replaced(serving: Any, given: str) -> None:
    made = serving.get("/", {"X-Request-Id": given}).headers["x-request-id"]
    assert made != given
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", made)


@pytest.mark.parametrize(
    ("target", "status", "level"),
    [("/?token=secret", 200, "info"), ("/nowhere?token=secret", 404, "warning"), ("/slow?ms=secret", 400, "warning")],
)
def test_one_json_line_a_request_without_its_query(serving: Any, target: str, status: int, level: str) -> None:
    request_id = f"line-{status}"
    serving.get(target, {"X-Request-Id": request_id})
    serving.wait_for(lambda: serving.requests_logged(request_id), 5, "line of the request")
    # A request later, a second line for the first one would be there too.
    serving.get("/", {"X-Request-Id": f"after-{status}"})
    serving.wait_for(lambda: serving.requests_logged(f"after-{status}"), 5, "line of the next request")
    [line] = serving.requests_logged(request_id)
    assert set(line) == {"time", "level", "method", "path", "status", "duration_ms", "request_id"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert (line["level"], line["method"], line["status"]) == (level, "GET", status)
    assert line["path"] == target.split("?")[0]
    assert isinstance(line["duration_ms"], int | float)
    assert line["duration_ms"] >= 0
    assert "secret" not in serving.stdout.read_text()


def test_connection_is_kept_alive(serving: Any) -> None:
    connection = serving.connect()
    try:
        connection.connect()
        first = connection.sock
        for _ in range(3):
            connection.request("GET", "/")
            assert connection.getresponse().read()
            assert connection.sock is first
    finally:
        connection.close()


def test_binds_loopback_alone(serving: Any) -> None:
    process = psutil.Process(serving.process.pid)
    family = [process, *process.children(recursive=True)]
    listening = {
        connection.laddr.ip
        for member in family
        for connection in member.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_concurrent_requests_do_not_wait_for_each_other(serving: Any) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda i: serving.get("/slow?ms=300", {"X-Request-Id": f"c-{i}"}), range(16)))
    assert [answer.status for answer in answers] == [200] * 16
    lines = [serving.wait_for(lambda i=i: serving.requests_logged(f"c-{i}"), 5, "line")[0] for i in range(16)]
    # One after another they would take 4.8 s.
    assert max(line["duration_ms"] for line in lines) < 3000


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_signal_lets_requests_in_flight_finish(start: Starter, ending: signal.Signals) -> None:
    running = start()
    running.wait_until_it_serves()
    assert running.get("/").json["release"] == "dev"
    idle, busy = running.connect(), running.connect()
    for connection in (idle, busy):  # both are accepted and known to the server
        connection.request("GET", "/healthz")
        assert connection.getresponse().read()
    busy.request("GET", "/slow?ms=700", headers={"X-Request-Id": "in-flight"})
    assert running.get("/healthz").status == 200  # the server has turned to its sockets since
    running.process.send_signal(ending)

    answer = busy.getresponse()
    assert (answer.status, json.loads(answer.read())) == (200, {"slept_ms": 700})
    assert running.process.wait(timeout=10) == 0, running.output()
    assert idle.sock.recv(1) == b""  # closed, not left to time out
    assert [line["status"] for line in running.requests_logged("in-flight")] == [200]
    with pytest.raises(ConnectionRefusedError):
        running.get("/")
    busy.close()
    idle.close()


def test_request_that_outlasts_the_grace_does_not_hold_the_end_up(start: Starter) -> None:
    running = start(SHUTDOWN_TIMEOUT="1")
    running.wait_until_it_serves()
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as client:
        client.sendall(b"GET /slow?ms=10000 HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: cut\r\n\r\n")
        assert running.get("/healthz").status == 200
        running.process.terminate()
        assert running.process.wait(timeout=6) == 0, running.output()
        assert b"slept_ms" not in client.recv(65536)
    assert [line["status"] in (499, 503) for line in running.requests_logged("cut")] == [True], running.output()


@pytest.mark.parametrize(
    ("variable", "value"), [("PORT", "http"), ("PORT", "65536"), ("SHUTDOWN_TIMEOUT", "0")], ids=lambda v: v
)
def test_environment_that_cannot_be_used_is_said(start: Starter, variable: str, value: str) -> None:
    running = start(**{variable: value})
    assert running.process.wait(timeout=20) == 2, running.output()
    [sentence] = running.stderr.read_text().splitlines()
    assert variable in sentence
    assert value in sentence


def test_port_that_is_taken_ends_it(start: Starter) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        running = start(port=taken.getsockname()[1])
        assert running.process.wait(timeout=20) not in (0, 2), running.output()
        assert re.search(r"in use|EADDRINUSE", running.output())
