"""What a planner returns: commands as values, in the order in which `fairway.run` executes them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from fairway.command import Command
from fairway.errors import FairwayError

Kind = Literal["go", "python", "node", "dotnet", "command", "docker", "compose"]
ToolName = Literal["go", "node", "dotnet", "python", "uv", "yarn", "pnpm", "docker", "compose"]
GRACE = "$GRACE"  # a word of `StartPlan.stop` and `clear` that stands for the whole seconds an instance has to end


class PlanError(FairwayError):
    """A folder says too little, or too much, about how to build or start it."""

    code = "build.undetected"
    default_hint: ClassVar[str] = (
        "Say it in the registry entry (`command:`, and `build:` where needed) or in a Procfile (`web: COMMAND`)."
    )


class Tool(msgspec.Struct, frozen=True):
    """A program of a toolchain: its absolute path, its version as numbers, and variables that it needs."""

    path: str
    version: tuple[int, ...] = ()
    env: dict[str, str] = {}

    @property
    def version_text(self) -> str:
        """The version as people write it."""
        return ".".join(map(str, self.version))


class Layout(msgspec.Struct, frozen=True):
    """Where a build happens.

    Attributes:
        source: Copy of the source folder; commands run here and the app's working directory is here.
        output: Folder for what compilers write.
        environment: Folder of the Python environment, where there is one.
    """

    source: Path
    output: Path
    environment: Path | None = None


class Step(msgspec.Struct, frozen=True):
    """One command of a build.

    Attributes:
        title: What it does, for the terminal: ``go build ./cmd/server``.
        command: What runs.
        otherwise: What runs where `command` fails (``npm install`` after an ``npm ci`` without a fitting lock file).
        optional: A failure is noted in the log and the build goes on.
    """

    title: str
    command: Command
    otherwise: Command | None = None
    optional: bool = False


class Needs(msgspec.Struct, frozen=True):
    """Which toolchain a folder wants: its name, the least version as numbers, and where that is said."""

    tool: ToolName
    minimum: tuple[int, ...] = ()
    said_in: str = ""


class BuildPlan(msgspec.Struct, frozen=True):
    """How to get from a source copy to something that can be started.

    Attributes:
        kind: The language or engine.
        steps: Commands, one after the other.
        notes: What a person should know, one sentence each.
    """

    kind: Kind
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()


class Built(msgspec.Struct, frozen=True):
    """What a build left behind, as far as the start needs it.

    Attributes:
        programs: Executables that the dependencies bring, by name, and the file behind each (a ``.bin`` link resolved).
        scripts: Those of `programs` that are text for the language's interpreter rather than binaries.
        outputs: Files in the output folder, relative.
    """

    programs: dict[str, Path] = {}
    scripts: frozenset[str] = frozenset()
    outputs: frozenset[str] = frozenset()


class StartPlan(msgspec.Struct, frozen=True):
    """How to start what was built.

    Attributes:
        processes: Commands by name; ``web`` gets the traffic. ``$PORT`` stands for the instance's port.
        env: Variables that tell frameworks where to listen; the registry entry's own come over them.
        before: Runs once before a release appears (a Procfile's ``release``), or None.
        notes: What a person should know.
        stop: Ends an instance well and for good, whether its own processes run or not, or None where SIGTERM does.
            ``$PORT`` and ``$GRACE`` are put in.
        clear: Removes what an engine still has of an instance whose own processes have ended, before it is started
            again or forgotten, or None. Like `stop`; it finds nothing to do most of the time.
    """

    processes: dict[str, Command]
    env: dict[str, str] = {}
    before: Command | None = None
    notes: tuple[str, ...] = ()
    stop: Command | None = None
    clear: Command | None = None
