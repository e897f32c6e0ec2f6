"""What has to be done so that an app runs what is wanted: a list of named steps, decided here, carried out elsewhere.

Pure: from the instances there are and the ones wanted to a `Plan`. `fairway deploy --plan` prints it, `deploy` runs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from fairway.apps.spec import CanarySpec, Strategy
from fairway.platform.host import WEB


class Unit(msgspec.Struct, frozen=True):
    """One instance as the planner sees it: process, number, digest of what it was started with."""

    process: str
    number: int
    launch: str

    @property
    def id(self) -> str:
        """``<process>.<number>``."""
        return f"{self.process}.{self.number}"


class Wanted(msgspec.Struct, frozen=True):
    """What an app should run.

    Attributes:
        release: Id of the release.
        launch: Digest that its instances have.
        counts: Instances by process name.
        strategy: ``rolling`` or ``recreate``.
        canary: Watched first share, or None.
        drain: Seconds for requests in flight.
        grace: Seconds between SIGTERM and SIGKILL.
        fresh: Replace instances that would do, too (a restart).
    """

    release: str
    launch: str
    counts: Mapping[str, int]
    strategy: Strategy = "rolling"
    canary: CanarySpec | None = None
    drain: float = 10.0
    grace: float = 10.0
    fresh: bool = False


class Hold(msgspec.Struct, frozen=True):
    """The door keeps requests waiting."""

    def __str__(self) -> str:
        return "hold new requests in the door"


class Start(msgspec.Struct, frozen=True):
    """New instances, each on a fresh port."""

    process: str
    count: int
    release: str

    def __str__(self) -> str:
        what = "instance" if self.count == 1 else "instances"
        return f"start {self.count} {what} of {self.process} from release {self.release}"


class Probe(msgspec.Struct, frozen=True):
    """New instances pass the gate; the first to fail ends the deploy."""

    def __str__(self) -> str:
        return "wait until every new instance is healthy twice in a row; on failure the old ones stay as they are"


class Canary(msgspec.Struct, frozen=True):
    """A share of the requests goes to the new release, watched."""

    spec: CanarySpec

    def __str__(self) -> str:
        latency = f" or {self.spec.max_latency:g} s a request" if self.spec.max_latency is not None else ""
        return (
            f"send {self.spec.weight} % of requests to it for {self.spec.watch:g} s; roll back beyond "
            f"{self.spec.max_error_rate:.1%} errors{latency}"
        )


class Swap(msgspec.Struct, frozen=True):
    """The door sends every new request to the instances that stay and the new ones, from one moment on."""

    release: str

    def __str__(self) -> str:
        return f"route all requests to release {self.release}, in one step"


class Drain(msgspec.Struct, frozen=True):
    """Requests in flight to instances that go are finished."""

    units: tuple[Unit, ...]
    timeout: float

    def __str__(self) -> str:
        return f"let {_names(self.units)} finish requests in flight, at most {self.timeout:g} s"


class Stop(msgspec.Struct, frozen=True):
    """Instances end."""

    units: tuple[Unit, ...]
    grace: float

    def __str__(self) -> str:
        return f"stop {_names(self.units)}: SIGTERM, {self.grace:g} s, SIGKILL"


Step = Hold | Start | Probe | Canary | Swap | Drain | Stop


class Plan(msgspec.Struct, frozen=True):
    """Steps in order, and the instances that stay; no steps mean that all is as wanted."""

    steps: tuple[Step, ...]
    kept: tuple[Unit, ...] = ()

    def __str__(self) -> str:
        return "\n".join(f"{i}. {step}" for i, step in enumerate(self.steps, 1)) or "nothing to do"


def plan(current: Sequence[Unit], wanted: Wanted, *, serving: str | None = None) -> Plan:
    """Decide how to get from `current` to `wanted`.

    Args:
        current: Instances that serve now.
        wanted: What should run.
        serving: Id of the release that serves now, or None.

    Rolling: start beside, probe, (canary,) swap, drain, stop. Recreate, where two releases must never run at once:
    hold, drain, stop, start, probe, swap. Instances started with the very same things stay; the newest go first.
    """
    kept: list[Unit] = []
    starts: list[Start] = []
    for process, count in wanted.counts.items():
        fit = sorted(
            (u for u in current if u.process == process and u.launch == wanted.launch and not wanted.fresh),
            key=lambda u: u.number,
        )[:count]
        kept += fit
        if count > len(fit):
            starts.append(Start(process, count - len(fit), wanted.release))
    gone = tuple(u for u in current if u not in kept)
    if not starts and not gone:
        return Plan((), tuple(kept))
    ends = _ends(gone, wanted)
    swap = Swap(wanted.release)
    if wanted.strategy == "recreate" and gone and starts:
        return Plan((Hold(), *ends, *starts, Probe(), swap), tuple(kept))
    begin: tuple[Step, ...] = (*starts, Probe()) if starts else ()
    watched = (
        wanted.canary is not None and serving not in {None, wanted.release} and any(u.process == WEB for u in gone)
    )
    watch: tuple[Step, ...] = (Canary(wanted.canary),) if watched and wanted.canary is not None else ()
    return Plan((*begin, *watch, swap, *ends), tuple(kept))


def _ends(gone: tuple[Unit, ...], wanted: Wanted) -> tuple[Step, ...]:
    if not gone:
        return ()
    web = tuple(u for u in gone if u.process == WEB)
    drain: tuple[Step, ...] = (Drain(web, wanted.drain),) if web else ()
    return (*drain, Stop(gone, wanted.grace))


def _names(units: tuple[Unit, ...]) -> str:
    return ", ".join(u.id for u in units)
