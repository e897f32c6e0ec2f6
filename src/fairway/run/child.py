"""One piece of work in a Python of its own that ends with it: what it imports never weighs on the caller."""

from __future__ import annotations

import os
import subprocess
import sys

_TIMEOUT = 60.0


def run_module(module: str, *arguments: str, timeout: float = _TIMEOUT) -> str:
    """Run ``python -m MODULE ARGUMENTS…`` to its end; blocks.

    Args:
        module: A module of Fairway's.
        arguments: Its arguments.
        timeout: Seconds that it has, > 0; it is killed then.

    Returns:
        An empty string, or what it said on standard error where it failed.
    """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    try:
        done = subprocess.run(  # noqa: S603  # our own interpreter and module, arguments as a list
            [sys.executable, "-m", module, *arguments],
            env=env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"expected {module} to end within {timeout:g} s, it did not"
    if done.returncode == 0:
        return ""
    return done.stderr.strip() or f"{module} ended with {done.returncode} and said nothing"
