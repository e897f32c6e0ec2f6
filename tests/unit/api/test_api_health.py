"""Health over HTTP: an app that nobody knows is not healthy."""

from __future__ import annotations

from typing import Any

import pytest

from fairway.api.app import Services, create_app
from fairway.health.checker import HealthChecker
from fairway.health.probe import ProbeResult, ProbeTarget
from fairway.health.state import Check
from fairway.platform.errors import UnknownApp


class Platform:
    """Knows two apps, of which one runs."""

    def app(self, name: str) -> None:
        if name not in ("shop", "mail"):
            raise UnknownApp(name, ["shop", "mail"])

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"nobody asked for {name}")


async def passes(_: ProbeTarget) -> ProbeResult:
    return ProbeResult(ok=True, seconds=0.001)


@pytest.fixture
def checker() -> HealthChecker:
    checker = HealthChecker(prober=passes, epoch="1")
    checker.watch(Check("shop/web.1", "shop", ProbeTarget("h", 1), interval=1.0, rise=1, fall=1))
    return checker


@pytest.mark.parametrize(("query", "targets"), [("", 1), ("app=shop", 1), ("app=mail", 0), ("app=mail,shop", 1)])
async def test_apps_of_the_registry_are_answered(call: Any, checker: HealthChecker, query: str, targets: int) -> None:
    answer = await call(create_app(Services(health=checker, platform=Platform())), "GET", "/v1/health", query=query)
    assert (answer.status, len(answer.json["targets"])) == (200, targets)


@pytest.mark.parametrize("query", ["app=shp", "app=shop,shp", "app=shp&follow"])
async def test_an_app_that_does_not_exist_is_a_problem(call: Any, checker: HealthChecker, query: str) -> None:
    answer = await call(create_app(Services(health=checker, platform=Platform())), "GET", "/v1/health", query=query)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (404, "app.unknown", "app")
    assert answer.json["hint"] == "Did you mean 'shop'?"


async def test_without_a_platform_what_is_checked_is_known(call: Any, checker: HealthChecker) -> None:
    answer = await call(create_app(Services(health=checker)), "GET", "/v1/health", query="app=shp")
    assert (answer.status, answer.json["hint"]) == (404, "Did you mean 'shop'?")
