"""The task of Fairway's own workers in the benchmark: the same no-op, counted by the peers' meter."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from peers import Meter

from fairway.jobs import Tasks

tasks = Tasks()
meter = Meter()


@tasks.task
async def noop(n: int, text: str) -> int:
    """Count, and return something that has to be stored."""
    meter(n, text)
    return n


if os.environ.get("BENCH_SWITCH_S"):
    sys.setswitchinterval(float(os.environ["BENCH_SWITCH_S"]))
