"""Plans for Dockerfiles and Compose files; the engine's client runs in the foreground as the instance."""

from __future__ import annotations

import re
from pathlib import Path

from fairway.build.facts import COMPOSE_NAMES, Facts
from fairway.build.plan import BuildPlan, Layout, StartPlan, Step, Tool
from fairway.command import Command

_EXPOSE = re.compile(r"^\s*EXPOSE\s+(\d+)", re.MULTILINE | re.IGNORECASE)


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

    Args:
        facts: The folder.
        layout: Where it was built.
        docker: The engine's client.
        digest: Digest that the image is tagged with.
        names: Variables handed into the container; by name only, so that no value stands in the process list.
    """
    text = facts.texts.get("Dockerfile", "")
    exposed = _EXPOSE.search(text)
    inside = exposed[1] if exposed and "PORT" not in text.replace("EXPOSE", "") else "$PORT"
    argv = [docker.path, "run", "--rm", "--init", "--publish", f"127.0.0.1:$PORT:{inside}", "--env", f"PORT={inside}"]
    for name in (*names, "FAIRWAY_APP", "FAIRWAY_RELEASE", "FAIRWAY_URL", "FAIRWAY_TOKEN"):
        argv += ["--env", name]
    command = Command((*argv, image_name(facts.app, digest)), {}, layout.source)
    return StartPlan({"web": command})


def plan_compose(app: str, file: Path, docker: Tool) -> BuildPlan:
    """Return the ``docker compose build`` of a Compose file."""
    argv = (docker.path, "compose", "--file", str(file), "--project-name", f"fairway-{app}", "build")
    return BuildPlan("compose", (Step("docker compose build", Command(argv, {}, file.parent)),))


def start_compose(app: str, file: Path, docker: Tool) -> StartPlan:
    """Return the ``docker compose up`` in the foreground: stopped by SIGTERM, it stops its containers."""
    argv = (docker.path, "compose", "--file", str(file), "--project-name", f"fairway-{app}",
            "up", "--no-color", "--no-log-prefix", "--abort-on-container-exit")  # fmt: skip
    return StartPlan({"web": Command(argv, {}, file.parent)})
