"""Fixtures that tests of several folders share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
# Run in a shell that has taken over the script's `export` lines; prints what those changed, as JSON.
_DOTNET_SCRIPT = """
set -eu
lines=$("$1/scripts/setup-dotnet.sh")
eval "$lines"
exec "$2" -c 'import json, os; print(json.dumps(dict(os.environ)))'
"""


@pytest.fixture(scope="session")
def dotnet_env() -> Mapping[str, str]:
    """Return the variables under which `dotnet` runs, PATH included; skip where no SDK can be had.

    They come on top of `os.environ`. Without an installed SDK the first use fetches one into ``.cache/dotnet``.
    """
    done = subprocess.run(
        ["bash", "-c", _DOTNET_SCRIPT, "bash", str(REPOSITORY), sys.executable],
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
