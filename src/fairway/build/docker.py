"""Plans for Dockerfiles and Compose files; the engine's client runs in the foreground as the instance.

The client is only a messenger: the engine runs the containers, and goes on with them when the client is killed. So
``docker run`` comes with a `clear` that removes a container whose client has ended. ``docker compose up`` comes with a
`stop` instead: started again it attaches to the containers that still run, and told to end by a signal it would leave
their last lines unread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fairway.build.facts import COMPOSE_NAMES, Facts
from fairway.build.plan import GRACE, BuildPlan, Layout, StartPlan, Step, Tool
from fairway.command import Command

_EXPOSE = re.compile(r"^\s*EXPOSE\s+(\d+)", re.MULTILINE | re.IGNORECASE)
_NAMES_PORT = re.compile(r"\bPORT\b")
# Colours and cursor movements do not belong in a log.
_PLAIN = {"NO_COLOR": "1", "TERM": "dumb", "COMPOSE_ANSI": "never", "COMPOSE_PROGRESS": "plain"}


def image_name(app: str, digest: str) -> str:
    """Return the image that a build of this content is called."""
    return f"fairway/{app}:{digest[:16]}"


def compose_file(facts: Facts) -> str | None:
    """Return the Compose file of a folder, in the order in which Compose itself looks, or None."""
    return next((n for n in COMPOSE_NAMES if facts.has(n)), None)


def plan_image(facts: Facts, layout: Layout, docker: Tool, digest: str) -> BuildPlan:
    """Return the ``docker build`` of a folder with a Dockerfile."""
    argv = (docker.path, "build", "--tag", image_name(facts.app, digest), ".")
    return BuildPlan("docker", (Step("docker build", Command(argv, {}, layout.source)),))


def start_image(facts: Facts, layout: Layout, docker: Tool, digest: str, names: tuple[str, ...]) -> StartPlan:
    """Return the ``docker run`` of a built image, its port published on the loopback address only.

    The container is called after its port, which no two have at once. It is never pulled: an image of that name in a
    registry is somebody else's.

    Args:
        facts: The folder.
        layout: Where it was built.
        docker: The engine's client.
        digest: Digest that the image is tagged with.
        names: Variables handed into the container; by name only, so that no value stands in the process list.
    """
    text = facts.texts.get("Dockerfile", "")
    exposed = _EXPOSE.search(text)
    inside = exposed[1] if exposed and not _NAMES_PORT.search(text) else "$PORT"
    container = f"fairway-{facts.app}-$PORT"
    argv = [docker.path, "run", "--rm", "--init", "--pull", "never", "--name", container]
    argv += ["--publish", f"127.0.0.1:$PORT:{inside}", "--env", f"PORT={inside}"]
    if "HOST" not in names:
        argv += ["--env", "HOST=0.0.0.0"]  # inside a container the loopback address reaches nobody
    for name in (*names, "FAIRWAY_APP", "FAIRWAY_RELEASE", "FAIRWAY_URL", "FAIRWAY_TOKEN"):
        argv += ["--env", name]
    start = Command((*argv, image_name(facts.app, digest)), {}, layout.source)
    return StartPlan({"web": start}, clear=Command((docker.path, "rm", "--force", "--volumes", container)))


def limited(argv: tuple[str, ...], memory: int | None, cpus: float | None) -> tuple[str, ...]:
    """Return a ``docker run`` with an app's limits, which the engine has to enforce: the client's own would do nothing.

    Args:
        argv: From `start_image`.
        memory: Bytes, or None.
        cpus: Processors, or None.
    """
    flags = [f"--memory={memory}b"] if memory is not None else []
    flags += [f"--cpus={cpus:g}"] if cpus is not None else []
    return (*argv[:2], *flags, *argv[2:])


def run_once(argv: tuple[str, ...], words: tuple[str, ...], *, terminal: bool) -> tuple[str, ...]:
    """Return the ``docker run`` of one command in an app's image, with the app's variables and no port.

    Args:
        argv: From `start_image`.
        words: The command, at least one word.
        terminal: Whether a person types into it.
    """
    *flags, image = argv[2:]
    kept: list[str] = []
    pairs = zip(flags, [*flags[1:], ""], strict=True)
    dropped = {i + k for i, (flag, value) in enumerate(pairs) for k in (0, 1) if _is_an_instances(flag, value)}
    kept += [flag for i, flag in enumerate(flags) if i not in dropped]
    kept += ["--interactive", *(["--tty"] if terminal else []), "--entrypoint", words[0]]
    return (*argv[:2], *kept, image, *words[1:])


def _is_an_instances(flag: str, value: str) -> bool:
    return flag in ("--name", "--publish") or (flag == "--env" and value.startswith("PORT="))


@dataclass(frozen=True, slots=True)
class ComposeProject:
    """A Compose file of an app.

    Attributes:
        app: Name of the app; the project is ``fairway-APP``, so that its volumes stay the same from release to release.
        directory: What the file's paths are relative to, and where its ``.env`` lies.
        files: The file, and what comes over it.
    """

    app: str
    directory: Path
    files: tuple[Path, ...]

    def command(self, docker: Tool, *words: str, env: Mapping[str, str] = _PLAIN) -> Command:
        """Return a command of ``docker compose`` for this project."""
        argv = [docker.path, "compose", "--project-name", f"fairway-{self.app}"]
        argv += ["--project-directory", str(self.directory)]
        for file in self.files:
            argv += ["--file", str(file)]
        return Command((*argv, *words), env, self.directory)

    def step(self, docker: Tool, *words: str, port: int = 8000, optional: bool = False) -> Step:
        """Return a step of the build: Compose fills in the file's ``${NAME}`` first, where no instance has values yet.

        Args:
            docker: The engine's client.
            words: Command of ``docker compose``.
            port: What ``${PORT}`` stands for.
            optional: Whether the build goes on where it fails.
        """
        env = {**_PLAIN, "PORT": str(port), "FAIRWAY_APP": self.app, "FAIRWAY_RELEASE": "build"}
        return Step(f"docker compose {words[0]}", self.command(docker, *words, env=env), optional=optional)


def service_image(app: str, service: str, digest: str) -> str:
    """Return the image that a service of a Compose file is built into."""
    return f"fairway/{app}-{service.lower()}:{digest[:16]}"


def plan_compose(project: ComposeProject, docker: Tool) -> BuildPlan:
    """Return the steps of a Compose file: build what it builds, and fetch what is not here yet.

    Fetching may fail, because ``up`` tries again; done here, it does not count as the time to start.
    """
    build = project.step(docker, "build")
    pull = project.step(docker, "pull", "--ignore-buildable", "--policy", "missing", optional=True)
    return BuildPlan("compose", (build, pull))


def start_compose(project: ComposeProject, docker: Tool) -> StartPlan:
    """Return the ``docker compose up`` in the foreground, and the ``down`` that ends it and keeps volumes."""
    flags = ("--no-build", "--no-color", "--no-log-prefix", "--abort-on-container-exit", "--remove-orphans")
    down = project.command(docker, "down", "--remove-orphans", "--timeout", GRACE)
    return StartPlan({"web": project.command(docker, "up", *flags)}, stop=down)
