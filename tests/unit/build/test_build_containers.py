"""Plans for a container engine: strings, nothing is asked and nothing runs."""

from __future__ import annotations

from pathlib import Path

from fairway.build import docker, planner
from fairway.build.facts import Facts
from fairway.build.plan import Built, Layout, StartPlan, Tool
from fairway.build.planner import Resolution, Wishes
from fairway.command import Command


def folder(texts: dict[str, str]) -> Facts:
    return Facts("shop", tuple(sorted(texts)), texts)


def resolution(facts: Facts, wishes: Wishes | None = None) -> Resolution:
    wishes = wishes or Wishes()
    layout, tools = Layout(Path("/b/source"), Path("/b/output")), {"docker": Tool("/t/docker", (28,))}
    return Resolution(planner.detect(facts, wishes), facts, wishes, layout, tools, "/usr/bin", lambda _: None, "d" * 64)


def start(facts: Facts, wishes: Wishes | None = None) -> StartPlan:
    return planner.plan_start(resolution(facts, wishes), Built())


def web(facts: Facts, wishes: Wishes | None = None) -> Command:
    return start(facts, wishes).processes["web"]


def test_an_image_listens_on_the_loopback_address_only() -> None:
    facts = folder({"Dockerfile": "FROM x\nEXPOSE 3000\n"})
    command = web(facts, Wishes(env=("API_KEY",)))
    assert "127.0.0.1:$PORT:3000" in command.argv
    at = command.argv.index("API_KEY")
    assert command.argv[at - 1 : at + 1] == ("--env", "API_KEY")
    assert command.argv[-1] == f"fairway/shop:{'d' * 16}"
    assert "127.0.0.1:$PORT:$PORT" in web(folder({"Dockerfile": "CMD x --port $PORT\nEXPOSE 3000\n"})).argv


def test_compose_runs_in_the_foreground() -> None:
    facts = folder({"docker-compose.yml": ""})
    project = ("/t/docker", "compose", "--project-name", "fairway-shop", "--project-directory", "/b/source")
    file = ("--file", "/b/source/docker-compose.yml")
    plan = start(facts)
    assert plan.processes["web"].argv[:9] == (*project, *file, "up")
    assert plan.stop is not None
    assert plan.stop.argv == (*project, *file, "down", "--remove-orphans", "--timeout", "$GRACE")
    steps, _ = planner.plan_steps(resolution(facts, Wishes(compose_file=Path("/x/c.yml"))), Built())
    assert steps[0].command.argv[4:] == ("--project-directory", "/x", "--file", "/x/c.yml", "build")
    assert [s.optional for s in steps] == [False, True]


def test_limits_are_the_engines() -> None:
    argv = web(folder({"Dockerfile": "CMD x"})).argv
    bounded = docker.limited(argv, 256 << 20, 0.5)
    assert bounded[:4] == ("/t/docker", "run", "--memory=268435456b", "--cpus=0.5")
    assert bounded[4:] == argv[2:]
    assert docker.limited(argv, None, None) == argv


def test_one_command_in_an_image() -> None:
    argv = web(folder({"Dockerfile": "CMD x"}), Wishes(env=("API_KEY",))).argv
    once = docker.run_once(argv, ("sh", "-c", "x"), terminal=False)
    assert once[:5] == ("/t/docker", "run", "--rm", "--init", "--pull")
    assert once[-5:] == ("--entrypoint", "sh", argv[-1], "-c", "x")
    assert not any("PORT" in word or word in ("--name", "--publish", "--tty") for word in once)
    assert "API_KEY" in once
    assert "--tty" in docker.run_once(argv, ("sh",), terminal=True)


def test_a_container_is_reached_from_outside_and_never_pulled() -> None:
    plan = start(folder({"Dockerfile": "EXPOSE 3000\n# no SUPPORT here\n"}))
    argv = plan.processes["web"].argv
    assert "HOST=0.0.0.0" in argv
    assert argv[argv.index("--pull") + 1] == "never"
    assert "127.0.0.1:$PORT:3000" in argv
    assert plan.clear is not None
    assert plan.clear.argv == ("/t/docker", "rm", "--force", "--volumes", argv[argv.index("--name") + 1])
    own = web(folder({"Dockerfile": "CMD x"}), Wishes(env=("HOST",))).argv
    assert "HOST=0.0.0.0" not in own
    assert "HOST" in own
