"""The Go module's clients against Fairway's own API: what both sides took from the same contract has to agree."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fairway.api.app import Services, create_app
from fairway.api.server import serve
from fairway.events import EventBus
from fairway.jobs.opening import open_store
from fairway.jobs.service import JobService

pytestmark = pytest.mark.integration

MODULE = Path(__file__).parents[3] / "pkg" / "go-tools"


@pytest.mark.parametrize("package", ["jobs", "events"])
async def test_client_and_api_agree(
    package: str, toolchain_env: Callable[[str], Mapping[str, str]], tmp_path: Path
) -> None:
    tool = await asyncio.to_thread(toolchain_env, "go")
    async with JobService(open_store(f"sqlite:///{tmp_path / 'jobs.db'}")) as jobs, EventBus("memory://") as events:
        app = create_app(Services(jobs=jobs, events=events, token="administrator", app_token="hosted"))
        async with serve(app, host="127.0.0.1", port=0) as (host, port):
            process = await asyncio.create_subprocess_exec(
                "go", "test", "-count=1", "-run", "^TestLive$", "-v", f"./{package}",
                cwd=MODULE,
                env={**os.environ, **tool, "FAIRWAY_URL": f"http://{host}:{port}", "FAIRWAY_TOKEN": "hosted"},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    assert "--- PASS: TestLive" in output
