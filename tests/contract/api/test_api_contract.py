"""The OpenAPI document against the running application: whatever is sent, the answer is one that the document names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fairway.api.app import Services, create_app
from fairway.api.guard import GuardPolicy
from fairway.apps.problem import Mark, Problem
from fairway.concurrency import Chan, RecvChan
from fairway.health.checker import HealthChecker
from fairway.health.probe import ProbeTarget
from fairway.health.state import Check
from fairway.logs.service import LogService
from fairway.platform.errors import InvalidRequest, UnknownApp, UnknownRelease
from fairway.platform.status import AppStatus, DeployResult, InstanceStatus, Progress, ReleaseStatus
from fairway.telemetry.metrics import Metrics

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


class FakePlatform:
    """A platform with two apps that does what it is told, at once."""

    def __init__(self) -> None:
        one = InstanceStatus(id="web.1", app="go-api", process="web", number=1, state="healthy", release="r1", pid=7)
        self.known = {
            "go-api": AppStatus(name="go-api", state="running", url="http://go-api.localhost", instances=(one,)),
            "broken": AppStatus(name="broken", state="failed", message="broken: exit 1"),
        }

        self.problems = [Problem(file=Path("/x/bad.yaml"), mark=Mark(1, 2), field="nope", message="unknown field")]

    def apps(self) -> list[AppStatus]:
        return list(self.known.values())

    def app(self, name: str) -> AppStatus:
        if name not in self.known:
            raise UnknownApp(name, self.known)
        return self.known[name]

    def pending(self) -> list[str]:
        return []

    def releases(self, name: str) -> list[ReleaseStatus]:
        return [ReleaseStatus(id="r1", app=self.app(name).name, created_at=1.0, current=True)]

    async def deploy(self, name: str, *, plan: bool = False) -> DeployResult:
        return DeployResult(app=self.app(name).name, action="deploy", planned=plan)

    async def restart(self, name: str) -> DeployResult:
        return DeployResult(app=self.app(name).name, action="restart")

    async def scale(self, name: str, n: int) -> DeployResult:
        if not 0 <= n <= 100:
            raise InvalidRequest(f"expected 0 to 100 instances, got {n}")
        return DeployResult(app=self.app(name).name, action="scale")

    async def rollback(self, name: str, release: str | None = None) -> DeployResult:
        if release not in {None, "r1"}:
            raise UnknownRelease(f"expected a release of {name}, got {release!r}")
        return DeployResult(app=self.app(name).name, action="rollback")

    async def stop(self, name: str) -> DeployResult:
        return DeployResult(app=self.app(name).name, action="stop")

    async def start_app(self, name: str) -> DeployResult:
        return DeployResult(app=self.app(name).name, action="start")

    async def reload(self, *, everything: bool = False, wait: bool = True) -> None:
        return None

    def subscribe(self) -> RecvChan[Progress]:
        chan: Chan[Progress] = Chan(4)
        chan.try_send(Progress(app="go-api", phase="done"))
        chan.close()
        return chan

    def unsubscribe(self, chan: RecvChan[Progress]) -> None:
        """The channel ended by itself."""


class File(NamedTuple):
    path: Path
    app: str
    process: str
    number: int


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("logs")
    path = folder / "web.1.log"
    path.write_bytes(b'{"level":"info","msg":"hi"}\nplain \xff\n')
    health = HealthChecker()
    health.watch(Check("go-api/web.1", "go-api", ProbeTarget("127.0.0.1", 1)))
    metrics = Metrics()
    services = Services(
        platform=FakePlatform(),
        health=health,
        logs=LogService(lambda: [File(path, "go-api", "web", 1)]),
        metrics=metrics,
    )
    app = create_app(services, policy=GuardPolicy(hosts=frozenset({"testserver"})))
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def operations(schema: Any) -> list[Any]:
    return [result.ok() for result in schema.get_all_operations()]


def test_every_operation_is_in_the_document(schema: Any) -> None:
    named = {f"{operation.method.upper()} {operation.path}" for operation in operations(schema)}
    assert {"GET /v1/apps", "POST /v1/apps/{app}:deploy", "GET /v1/logs", "GET /v1/health", "GET /metrics"} <= named
    assert len(named) >= 16


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_answers_are_those_that_the_document_names(schema: Any, mode: GenerationMode) -> None:
    for operation in operations(schema):
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
            continue  # nothing in it can be wrong

        @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy(generation_mode=mode))
        def exercise(case: Any) -> None:
            # A stream that follows has no end: that is tested against a server.
            if case.query:
                case.query.pop("follow", None)
            response = case.call()
            case.validate_response(response, checks=CHECKS)

        exercise()
