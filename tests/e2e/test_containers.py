"""Apps in containers, by the engine of this machine: skipped where none answers.

No registry is needed: the images are made of nothing but a static program of the Go sample. The samples' own
Dockerfiles are tried where their base images are at hand (CI pulls them).
"""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from whole_fairway import Daemon, Project, free_ports, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = "FROM scratch\nCOPY app /app\nENV HOST=0.0.0.0 PORT=8001\nEXPOSE 8001\nENTRYPOINT [{}]\n"
COMPOSE = """
services:
  web:
    build: .
    ports: ["127.0.0.1:${{PORT:?}}:8001"]
    environment: {{PORT: "8001", FAIRWAY_RELEASE: "{version}"}}
    restart: unless-stopped
"""


def docker(*words: str, check: bool = True, **env: str) -> str:
    """Run the engine's client and return what it prints."""
    done = subprocess.run(
        ["docker", *words], capture_output=True, text=True, check=False, timeout=280, env={**os.environ, **env}
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def engine() -> None:
    """Skip where no engine answers, or Compose is missing."""
    if shutil.which("docker") is None:
        pytest.skip("no docker here")
    if not docker("version", "--format", "{{.Server.Version}}", check=False):
        pytest.skip("a docker client is here, no engine answers it")
    if "version" not in docker("compose", "version", check=False):
        pytest.skip("docker is here without its Compose plugin")


@pytest.fixture(scope="module")
def program(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go sample as one static file."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go toolchain here, to make an image's only file with")
    built = tmp_path_factory.mktemp("program") / "app"
    argv = [go, "build", "-trimpath", "-ldflags=-s -w", "-o", str(built), "."]
    subprocess.run(argv, cwd=REPOSITORY / "apps/go-api", env={**os.environ, "CGO_ENABLED": "0"}, check=True)
    return built


class Boxes:
    """A project with an app of each kind of container beside a plain process.

    Attributes:
        compose: Name of an app with a Compose file.
        image: Name of one with a Dockerfile, two instances of it.
    """

    def __init__(self, root: Path, program: Path) -> None:
        mark = secrets.token_hex(4)  # the engine is everybody's
        self.compose, self.image = f"boxed-{mark}", f"image-{mark}"
        self.project = Project(root)
        self.program = program
        self.project.app("plain")
        for name in (self.compose, self.image):
            folder = root / "apps" / name
            folder.mkdir(parents=True)
            shutil.copy2(program, folder / "app")
            (folder / "Dockerfile").write_text(DOCKERFILE.format('"/app"'))
        self.version("one")
        source = f"source: ../../apps/{self.compose}\nruntime: compose\n"
        self.project.entry(self.compose, f"name: {self.compose}\n{source}health: {{path: /healthz}}\n")
        more = "replicas: 2\nlimits: {memory: 64M, cpus: 0.5}\n"
        self.project.entry(self.image, f"name: {self.image}\nsource: ../../apps/{self.image}\n{more}")
        self.daemon = Daemon(self.project, options=("--no-watch",))

    def version(self, version: str) -> None:
        (self.project.root / "apps" / self.compose / "compose.yaml").write_text(COMPOSE.format(version=version))

    def containers(self, app: str, *, every: bool = False) -> list[str]:
        flags = ("--all",) if every else ()
        return docker("ps", *flags, "--filter", f"name=fairway-{app}", "--format", "{{.ID}}").split()

    def answers(self, app: str) -> bool:
        return bool(self.daemon.get(app)[0] == 200)

    def clean(self) -> None:
        self.daemon.stop()
        for app in (self.compose, self.image):
            for container in self.containers(app, every=True):
                docker("rm", "--force", container, check=False)
            for image in docker("images", "--format", "{{.Repository}}:{{.Tag}}").split():
                if image.startswith(f"fairway/{app}"):
                    docker("image", "rm", "--force", image, check=False)


@pytest.fixture(scope="module")
def boxes(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boxes]:
    made = Boxes(tmp_path_factory.mktemp("boxes"), program)
    try:
        made.daemon.start()
        yield made
    finally:
        made.clean()


def test_both_kinds_serve_through_the_door(boxes: Boxes) -> None:
    assert boxes.daemon.get(boxes.compose) == (200, {"service": "go-api", "language": "go", "release": "one"})
    release = boxes.daemon.app(boxes.image)["release"]
    assert boxes.daemon.get(boxes.image)[1]["release"] == release
    assert boxes.daemon.get("plain")[0] == 200
    assert boxes.daemon.app(boxes.compose)["runtime"] == "compose"


def test_limits_are_the_containers(boxes: Boxes) -> None:
    containers = boxes.containers(boxes.image)
    assert len(containers) == 2
    for container in containers:
        limits = docker("inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}", container)
        assert limits == f"{64 << 20} 500000000"


def test_log_lines_of_requests_and_of_the_end_are_kept(boxes: Boxes) -> None:
    boxes.daemon.do(boxes.compose, "restart")
    said = boxes.daemon.logged(boxes.compose)
    assert any('"message":"stopped"' in line for line in said), said
    assert not any(line.startswith("\x1b[3") for line in said)


@pytest.mark.parametrize("kind", ["compose", "image"])
def test_a_killed_container_is_back(boxes: Boxes, kind: str) -> None:
    app = getattr(boxes, kind)
    restarts = sum(i["restarts"] for i in boxes.daemon.app(app)["instances"])
    docker("kill", *boxes.containers(app))
    until(lambda: sum(i["restarts"] for i in boxes.daemon.app(app)["instances"]) > restarts, what="a restart")
    until(lambda: boxes.daemon.app(app)["state"] == "running", what="its return")
    assert boxes.answers(app)
    assert boxes.daemon.get("plain")[0] == 200


def test_a_killed_client_leaves_no_container_behind(boxes: Boxes) -> None:
    before = set(boxes.containers(boxes.image))
    for instance in boxes.daemon.app(boxes.image)["instances"]:
        os.kill(instance["pid"], signal.SIGKILL)
    until(lambda: not before & set(boxes.containers(boxes.image)), what="the end of the old containers")
    until(lambda: boxes.daemon.app(boxes.image)["state"] == "running", what="its return")
    assert len(boxes.containers(boxes.image)) == 2


def test_rollback_of_a_compose_app_brings_its_file_and_images_back(boxes: Boxes) -> None:
    first = boxes.daemon.app(boxes.compose)["release"]
    boxes.version("two")
    boxes.daemon.do(boxes.compose, "deploy")
    assert boxes.daemon.get(boxes.compose)[1]["release"] == "two"
    boxes.daemon.do(boxes.compose, "rollback", {"release": first})
    assert boxes.daemon.get(boxes.compose)[1]["release"] == "one"
    boxes.daemon.do(boxes.compose, "deploy")
    assert boxes.daemon.get(boxes.compose)[1]["release"] == "two"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("services: [", "exit status"),
        ("services: {web: {image: x, prots: []}}\n", "exit status"),
        ("services: {web: {build: ., ports: ['8009:80']}}\n", "found 8009"),
    ],
)
def test_a_faulty_compose_file_leaves_what_serves(boxes: Boxes, text: str, said: str) -> None:
    file = boxes.project.root / "apps" / boxes.compose / "compose.yaml"
    good = file.read_text()
    file.write_text(text)
    try:
        status, answer = boxes.daemon.call("POST", f"/v1/apps/{boxes.compose}:deploy")
    finally:
        file.write_text(good)
    assert status >= 400
    assert said in json.dumps(answer)
    assert boxes.answers(boxes.compose)


def test_a_container_that_ends_at_once_fails_its_deploy(boxes: Boxes) -> None:
    file = boxes.project.root / "apps" / boxes.image / "Dockerfile"
    good = file.read_text()
    file.write_text(good + 'CMD ["x"]\nENV PORT=none\nENTRYPOINT ["/nothing"]\n')
    try:
        status, answer = boxes.daemon.call("POST", f"/v1/apps/{boxes.image}:deploy")
    finally:
        file.write_text(good)
    assert status >= 400
    assert "/nothing" in json.dumps(answer)
    assert boxes.answers(boxes.image)


def test_one_compose_project_is_one_instance(boxes: Boxes) -> None:
    status, answer = boxes.daemon.call("POST", f"/v1/apps/{boxes.compose}:scale", {"replicas": 2})
    assert status == 422
    assert "Compose project" in answer["detail"]


def test_the_daemon_and_the_clients_are_killed(boxes: Boxes) -> None:
    clients = [i["pid"] for app in (boxes.compose, boxes.image) for i in boxes.daemon.app(app)["instances"] if i["pid"]]
    old = set(boxes.containers(boxes.image))
    boxes.daemon.kill()
    for pid in clients:
        os.killpg(pid, signal.SIGKILL)
    boxes.daemon.start()
    for app in (boxes.compose, boxes.image, "plain"):
        until(lambda app=app: boxes.answers(app), what=f"an answer of {app}")
    until(lambda: not old & set(boxes.containers(boxes.image)), what="the end of containers that nobody knows")


def test_one_command_runs_in_the_image(boxes: Boxes) -> None:
    # The image has nothing but its program: another one is asked for, and the engine says that it is not inside.
    words = boxes.daemon.words("run", boxes.image, "--", "/missing", "--flag")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "/missing" in done.stderr
    words = boxes.daemon.words("run", boxes.compose, "--", "sh")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"docker compose --project-name fairway-{boxes.compose} exec SERVICE sh" in done.stderr


def test_stopped_is_gone(boxes: Boxes) -> None:
    for app in (boxes.compose, boxes.image):
        boxes.daemon.do(app, "stop")
        assert not boxes.containers(app, every=True)
        boxes.daemon.do(app, "start")
        assert boxes.answers(app)
    assert boxes.daemon.stop() == 0
    for app in (boxes.compose, boxes.image):
        assert not boxes.containers(app, every=True)
    assert f"fairway-{boxes.compose}" not in docker("network", "ls", "--format", "{{.Name}}")


SAMPLES = {"go-api": ("go", 8001), "fastapi-api": ("python", 8002), "express-api": ("javascript", 8003),
           "csharp-api": ("csharp", 8004)}  # fmt: skip


@pytest.fixture(params=sorted(SAMPLES))
def sample(request: pytest.FixtureRequest, engine: None) -> str:
    """A sample whose base images are here."""
    text = (REPOSITORY / "apps" / request.param / "Dockerfile").read_text()
    for image in re.findall(r"^ARG \w*IMAGE=(\S+)", text, re.MULTILINE):
        if not docker("image", "inspect", "--format", "{{.Id}}", image, check=False):
            pytest.skip(f"no image {image} here; `docker pull {image}` fetches it")
    return str(request.param)


def test_a_sample_by_its_own_compose_file(sample: str) -> None:
    language, _ = SAMPLES[sample]
    [port] = free_ports(1)
    file = REPOSITORY / "apps" / sample / "docker-compose.yml"
    project = ("compose", "--project-name", f"fairway-test-{secrets.token_hex(4)}", "--file", str(file))
    try:
        docker(*project, "up", "--build", "--detach", PORT=str(port), FAIRWAY_RELEASE="r1")
        answer = until(lambda: _ask(port), what=f"an answer of {sample}")
        assert answer == {"service": sample, "language": language, "release": "r1"}
        container = docker(*project, "ps", "--quiet")
        user, readonly = docker(
            "inspect", "--format", "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}}", container
        ).split()
        assert (user, readonly) == ("65532:65532", "true")
        docker(*project, "stop")
        assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"
        lines = [json.loads(line) for line in docker("logs", container).splitlines()]
        assert any(line.get("path") == "/" and line["status"] == 200 for line in lines)
    finally:
        docker(*project, "down", "--volumes", "--rmi", "local", check=False)


def _ask(port: int) -> object:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
