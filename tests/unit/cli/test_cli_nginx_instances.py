"""`fairway nginx generate --via apps`: where the instances listen, by the API's own answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairway.cli import nginx
from fairway.cli.project import Project
from fairway.nginx.site import Server


def test_only_web_instances_that_serve_are_upstreams(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def instance(process: str, state: str, port: int | None) -> dict[str, Any]:
        return {"process": process, "state": state, "port": port}

    found = [instance("web", "healthy", 9001), instance("web", "starting", 9002), instance("mail", "running", None)]

    class Answers:
        def __init__(self, project: Project) -> None:
            self.project = project

        def get(self, path: str) -> Any:
            assert path == "/v1/apps"
            return {"apps": [{"name": "shop", "instances": found}, {"name": "idle", "instances": []}], "problems": []}

    monkeypatch.setattr(nginx, "Client", Answers)
    assert nginx._instances(Project(tmp_path, found=True)) == {"shop": (Server("127.0.0.1", 9001),), "idle": ()}
