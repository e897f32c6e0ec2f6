"""The gate of a deploy: an instance gets through once it is *itself* listening and well, twice in a row."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from fairway.health.probe import Prober, ProbeTarget, probe
from fairway.platform.errors import PlatformError
from fairway.run import ports

if TYPE_CHECKING:
    from fairway.run.process import Process

# A look is made when a twentieth of the time so far has gone by: what comes up at once is seen at once, and what takes
# a minute is not asked a thousand times.
_FIRST_PAUSE, _LAST_PAUSE, _SHARE = 0.005, 0.25, 0.05


_listeners = ports.Listeners()  # one look serves every gate: many apps start at once


class GateFailed(PlatformError):
    """An instance did not become healthy; the message says which probe saw what last."""

    code = "deploy.unhealthy"


class Gate(msgspec.Struct, frozen=True):
    """What an instance has to pass.

    Attributes:
        target: What to probe.
        timeout: Seconds that it has, > 0.
        passes: Passes in a row that are needed, >= 1.
        check_owner: Believe no probe before the listener is known to belong to the instance's own process tree: an
            orphan of an earlier release on the same port would pass any. Not possible where a container listens.
    """

    target: ProbeTarget
    timeout: float = 60.0
    passes: int = 2
    check_owner: bool = True


async def wait_ready(process: Process, gate: Gate, *, prober: Prober = probe) -> None:
    """Wait until `process` passes the gate; fails the moment it exits.

    Raises:
        GateFailed: It exited, or did not pass in time.
    """
    seen = _Seen()
    polling = asyncio.create_task(_poll(process, gate, prober, seen))
    exiting = asyncio.create_task(process.wait())
    try:
        async with asyncio.timeout(gate.timeout):
            await asyncio.wait({polling, exiting}, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        raise GateFailed(f"did not become healthy within {gate.timeout:g} s: {_explain(process, gate, seen)}") from None
    finally:
        polling.cancel()
        exiting.cancel()
        await asyncio.wait({polling, exiting})
    if process.exit is not None:
        raise GateFailed(f"ended with {process.exit} before it was healthy", code="deploy.exited")
    polling.result()


class _Seen(msgspec.Struct):
    """What the last round saw, for the message."""

    listener: bool | None = None
    probe: str = ""


async def _poll(process: Process, gate: Gate, prober: Prober, seen: _Seen) -> None:
    loop, passes = asyncio.get_running_loop(), 0
    began = loop.time()
    owned = not gate.check_owner
    while True:
        if not owned and _listeners.has(gate.target.port):
            seen.listener = ports.listener_among(gate.target.port, process.members())
            owned = seen.listener is True
        if owned:
            result = await prober(gate.target)
            seen.probe = result.error
            passes = passes + 1 if result.ok else 0
            if passes >= gate.passes:
                return
        waited = loop.time() - began
        await asyncio.sleep(_FIRST_PAUSE if passes else min(max(waited * _SHARE, _FIRST_PAUSE), _LAST_PAUSE))


def _explain(process: Process, gate: Gate, seen: _Seen) -> str:
    if seen.probe:
        hint = "" if gate.check_owner else "; a container has to publish ${PORT}, or backend.port has to name its port"
        return f"{gate.target}: {seen.probe}{hint if 'nothing listens' in seen.probe else ''}"
    port = gate.target.port
    if seen.listener is False:
        return f"port {port} is held by {ports.holder(port) or 'another process'}, which is not part of the instance"
    elsewhere = sorted(ports.listening_ports(process.members()) - {port})
    if elsewhere:
        return f"it listens on {', '.join(map(str, elsewhere))} instead of $PORT, which is {port}"
    return f"nothing listens on port {port}, which it was given in $PORT"
