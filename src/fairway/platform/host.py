"""What instances are run with on this machine: one value that everything in the platform is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fairway.platform.background import Background
from fairway.platform.headstart import HeadStart
from fairway.platform.machine import WEB, Machine, app_environment, fixed_port, launch_digest, runs_once
from fairway.platform.progress import ProgressHub

if TYPE_CHECKING:
    from fairway.health.probe import Prober, ProbeResult, ProbeTarget

__all__ = ["WEB", "Host", "app_environment", "fixed_port", "launch_digest", "runs_once"]


async def _probe(target: ProbeTarget) -> ProbeResult:
    from fairway.health.probe import probe

    return await probe(target)


class Host(Machine):
    """The machine and the services around instances.

    Attributes:
        background: Tasks that outlive calls.
        progress: Who is told how work goes.
        prober: What the deploy gate asks with.
        head_start: Instances that run already and wait to be taken by the start of their apps.
    """

    background: Background = msgspec.field(default_factory=Background)
    progress: ProgressHub = msgspec.field(default_factory=ProgressHub)
    prober: Prober = _probe
    head_start: HeadStart = msgspec.field(default_factory=HeadStart)
