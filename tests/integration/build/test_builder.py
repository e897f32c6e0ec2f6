"""The builder with real toolchains: what is built runs, what is unchanged is not built, what fails leaves nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from fairway.apps.spec import AppSpec
from fairway.concurrency import Canceled, Chan, background, with_cancel
from fairway.run.builder import Builder, BuildError
from fairway.run.executor import build_environment
from fairway.run.progress import BuildProgress
from fairway.run.release import Release, list_releases, prune_releases, with_port
from fairway.run.toolchain import Toolchains

pytestmark = pytest.mark.integration

Sources = dict[str, Path]


def spec(source: Path, name: str = "shop", **fields: object) -> AppSpec:
    return AppSpec(name=name, file=source / "entry.yaml", source=source, **fields)  # type: ignore[arg-type]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def answer(release: Release) -> bytes:
    """Start the release's web process as the platform does and return what it answers."""
    port, command = free_port(), release.processes["web"]
    env = {**build_environment(os.environ["PATH"]), **release.env, **command.env, "PORT": str(port)}
    process = await asyncio.create_subprocess_exec(
        *(with_port(word, port) for word in command.argv),
        env={name: with_port(value, port) for name, value in env.items()}, cwd=command.cwd,
    )  # fmt: skip
    try:
        until = time.monotonic() + 20
        while True:
            try:
                return await asyncio.to_thread(lambda: urlopen(f"http://127.0.0.1:{port}/", timeout=5).read())
            except OSError:
                assert process.returncode is None, "it ended by itself"
                assert time.monotonic() < until, "no answer in 20 s"
                await asyncio.sleep(0.02)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
def language(
    request: pytest.FixtureRequest,
    toolchain_env: Callable[[str], Mapping[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """Return the language asked for, with its toolchain on the path, fetched where this machine has none."""
    name = str(request.param)
    if name != "python":
        for key, value in toolchain_env(name).items():
            monkeypatch.setenv(key, value)
    return name


@pytest.mark.parametrize("language", ["go", "python", "node"], indirect=True)
async def test_an_app_is_built_started_and_not_built_again(language: str, sources: Sources, builder: Builder) -> None:
    app = spec(sources[language])
    first = await builder.build(background(), app)
    assert not first.cached
    assert await answer(first) == b"one"
    again = await Builder(builder.state).build(background(), app)
    assert (again.cached, again.id) == (True, first.id)
    for file in sources[language].iterdir():
        file.write_text(file.read_text().replace("one", "two"))
    second = await builder.build(background(), app)
    assert second.id > first.id
    assert await answer(second) == b"two"
    assert await answer(first) == b"one", "an edit leaves the earlier release alone"


async def test_progress_ends_with_the_outcome(sources: Sources, builder: Builder) -> None:
    for expected in ("finish", "cached"):
        progress: Chan[BuildProgress] = Chan(100)
        await builder.build(background(), spec(sources["command"]), progress.sender)
        progress.close()
        seen = [line async for line in progress]
        assert seen[-1].phase == expected
        assert seen[-1].fraction == 1.0
        assert {line.app for line in seen} == {"shop"}
    full: Chan[BuildProgress] = Chan(0)
    await builder.build(background(), spec(sources["command"]), full.sender, force=True)


async def test_a_procfile_with_a_worker(sources: Sources, builder: Builder) -> None:
    (sources["command"] / "work").chmod(0o755)
    release = await builder.build(background(), spec(sources["command"]))
    assert release.kind == "command"
    assert list(release.processes) == ["web", "worker"]
    assert release.processes["worker"].argv == (str(release.build_directory / "source" / "work"), "--port", "${PORT}")
    assert Release.load(release.directory) == release


async def test_the_release_process_runs_once_before_a_release_appears(
    sources: Sources, builder: Builder, state: Path, tmp_path: Path
) -> None:
    source, ran = sources["command"], tmp_path / "ran"
    line = f"release: sh -c 'echo $FAIRWAY_APP $WORD >> {ran}; test $WORD != bad'\n"
    (source / "Procfile").write_text(f"web: python3 -c pass\n{line}")
    first = await builder.build(background(), spec(source, env={"WORD": "good"}))
    assert "release" not in first.processes
    again = await builder.build(background(), spec(source, env={"WORD": "good"}))
    assert (again.id, ran.read_text()) == (first.id, "shop good\n")
    with pytest.raises(BuildError, match="exit status 1") as caught:
        await builder.build(background(), spec(source, env={"WORD": "bad"}))
    assert caught.value.code == "build.before"
    assert [r.id for r in list_releases(state, "shop")] == [first.id]


async def test_another_environment_is_another_release(sources: Sources, builder: Builder, state: Path) -> None:
    source = sources["command"]
    (source.parent / "vars.env").write_text("TOKEN=hunter2hunter2\n")
    plain = await builder.build(background(), spec(source))
    secret = await builder.build(background(), spec(source, env_file=source.parent / "vars.env"))
    assert secret.id > plain.id
    assert secret.env["TOKEN"] == "hunter2hunter2"
    assert secret.build_directory == plain.build_directory, "nothing had to be built for it"
    assert secret.cached
    assert "hunter2" not in repr(secret)
    assert (secret.directory / "release.json").stat().st_mode & 0o777 == 0o600
    assert secret.directory.stat().st_mode & 0o777 == 0o700
    # Back to the first state: a new release of the same build, so that the newest is always the current.
    back = await builder.build(background(), spec(source))
    assert back.id > secret.id
    assert [r.id for r in list_releases(state, "shop")] == [back.id, secret.id, plain.id]


async def test_secrets_come_from_the_environment_or_the_file_and_stand_in_no_log(
    sources: Sources, builder: Builder, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = spec(
        sources["command"], secrets=("API_KEY",), build=((sys.executable, "-c", "print('x-' + 'key-12345678')"),)
    )
    with pytest.raises(BuildError, match="expected the secret API_KEY") as caught:
        await builder.build(background(), app)
    assert caught.value.code == "build.config"
    state.mkdir(exist_ok=True)
    (state / "secrets.env").write_text("API_KEY=key-12345678\n")
    release = await builder.build(background(), app)
    assert release.env["API_KEY"] == "key-12345678"
    assert release.log_path is not None
    text = release.log_path.read_text()
    assert "x-***" in text
    assert "key-12345678" not in text
    monkeypatch.setenv("API_KEY", "key-of-the-environment")
    assert (await builder.build(background(), app)).env["API_KEY"] == "key-of-the-environment"


async def test_a_failed_build_says_what_failed_and_leaves_the_old_release(
    sources: Sources, builder: Builder, state: Path
) -> None:
    source = sources["command"]
    old = await builder.build(background(), spec(source))
    script = "print('\\x1b[31mreason one'); raise SystemExit(3)"
    with pytest.raises(BuildError) as caught:
        await builder.build(background(), spec(source, build=((sys.executable, "-c", script),)))
    error = caught.value
    assert (error.code, error.status, error.app) == ("build.failed", 3, "shop")
    assert "exit status 3" in error.message
    assert "reason one" in error.tail
    assert error.log_path is not None
    assert "reason one" in error.log_path.read_text()
    assert [r.id for r in list_releases(state, "shop")] == [old.id]
    assert len(list((state / "builds" / "shop").glob("[!.]*"))) == 1, "nothing half built is left"


async def test_a_command_over_its_time_is_ended(sources: Sources, state: Path) -> None:
    app = spec(sources["command"], build=((sys.executable, "-c", "import time; time.sleep(60)"),))
    with pytest.raises(BuildError, match="its time ran out") as caught:
        await Builder(state, step_timeout=0.3).build(background(), app)
    assert caught.value.code == "build.timeout"


async def test_cancelling_kills_the_group_and_leaves_nothing(
    sources: Sources, builder: Builder, state: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "pids"
    script = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"mark = {str(mark)!r}\n"
        "open(mark + '.new', 'w').write(f'{os.getpid()} {child.pid}'); os.rename(mark + '.new', mark)\n"
        "time.sleep(60)\n"
    )
    ctx = with_cancel(background())
    build = asyncio.create_task(builder.build(ctx, spec(sources["command"], build=((sys.executable, "-c", script),))))
    until = time.monotonic() + 20
    while not mark.exists():
        assert time.monotonic() < until
        await asyncio.sleep(0.02)
    ctx.cancel()
    with pytest.raises(Canceled):
        await build
    while any(_runs(pid) for pid in map(int, mark.read_text().split())):
        assert time.monotonic() < until, "it still runs"
        await asyncio.sleep(0.02)
    assert list((state / "builds" / "shop").glob("[!.]*")) == []
    assert list_releases(state, "shop") == []
    # And it can be built afterwards.
    assert (await builder.build(background(), spec(sources["command"]))).app == "shop"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_what_a_killed_build_left_is_swept(sources: Sources, builder: Builder, state: Path) -> None:
    half = state / "builds" / "shop" / "0123456789abcdef"
    (half / "source").mkdir(parents=True)
    (state / "builds" / "shop" / ".new-x").mkdir()
    release = await builder.build(background(), spec(sources["command"]))
    assert [p.name for p in (state / "builds" / "shop").iterdir() if p.is_dir()] == [release.build_directory.name]


async def test_a_damaged_or_vanished_build_is_built_again(sources: Sources, builder: Builder) -> None:
    first = await builder.build(background(), spec(sources["command"]))
    (first.build_directory / "build.json").write_text("{")
    second = await builder.build(background(), spec(sources["command"]))
    assert not second.cached
    forced = await builder.build(background(), spec(sources["command"]), force=True)
    assert not forced.cached
    assert forced.build_directory != second.build_directory


async def test_old_releases_and_their_builds_are_pruned(sources: Sources, builder: Builder, state: Path) -> None:
    made = []
    for number in range(4):
        (sources["command"] / "work").write_text(str(number))
        made.append(await builder.build(background(), spec(sources["command"])))
    removed = prune_releases(state, "shop", keep=2, in_use=frozenset({made[0].id}))
    assert removed == [made[1].id]
    assert [r.id for r in list_releases(state, "shop")] == [made[3].id, made[2].id, made[0].id]
    assert not made[1].build_directory.exists()
    assert made[0].build_directory.exists()


async def test_dependencies_are_installed_once_for_equal_files(sources: Sources, builder: Builder, state: Path) -> None:
    first = await builder.build(background(), spec(sources["python"], "one"))
    other = shutil.copytree(sources["python"], sources["python"].parent / "other")
    (other / "more.py").write_text("x = 1\n")
    second = await builder.build(background(), spec(other, "two"))
    assert first.processes["web"].argv[0] == second.processes["web"].argv[0]
    assert len(list((state / "venvs").glob("[!.]*"))) == 1


async def test_an_environment_that_nothing_needs_goes_after_a_day(
    sources: Sources, builder: Builder, state: Path
) -> None:
    used = await builder.build(background(), spec(sources["python"]))
    fresh, old = state / "venvs" / "fresh", state / "venvs" / "old"
    for folder in (fresh, old):
        folder.mkdir()
        (folder / ".fairway-complete").touch()
    os.utime(old / ".fairway-complete", (1, 1))
    os.utime(Path(used.processes["web"].argv[0]).parent.parent / ".fairway-complete", (1, 1))
    for text in ("1", "2"):
        (sources["command"] / "work").write_text(text)
        await builder.build(background(), spec(sources["command"], "other"))
    prune_releases(state, "other", keep=1)
    assert fresh.is_dir()
    assert not old.is_dir()
    assert Path(used.processes["web"].argv[0]).exists()


async def test_builds_at_once_are_bounded(tmp_path: Path, state: Path) -> None:
    running = tmp_path / "running"
    running.mkdir()
    script = (
        "import os, sys, time\n"
        f"mine = {str(running)!r} + '/' + str(os.getpid()); open(mine, 'w').close()\n"
        f"print('AT ONCE', len(os.listdir({str(running)!r}))); time.sleep(0.2); os.unlink(mine)\n"
    )
    builder = Builder(state, concurrency=2)
    apps = []
    for number in range(5):
        folder = tmp_path / f"a{number}"
        folder.mkdir()
        (folder / "Procfile").write_text("web: python3 -c pass")
        apps.append(spec(folder, f"a{number}", build=((sys.executable, "-c", script),)))
    releases = await asyncio.gather(*(builder.build(background(), app) for app in apps))
    logs = "".join(r.log_path.read_text() for r in releases if r.log_path)
    counts = {int(line.split()[-1]) for line in logs.splitlines() if line.startswith("AT ONCE")}
    assert counts
    assert max(counts) <= 2


@contextmanager
def only(*programs: str) -> Iterator[str]:
    """Give a search path on which nothing but these programs is found."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for program in programs:
            (Path(folder) / program).symlink_to(shutil.which(program) or "/bin/false")
        yield folder


async def test_a_missing_toolchain_is_a_clear_error(tmp_path: Path, state: Path) -> None:
    folder = tmp_path / "cs"
    folder.mkdir()
    (folder / "App.csproj").write_text('<Project Sdk="Microsoft.NET.Sdk.Web"></Project>')
    with only("sh") as search_path:
        builder = Builder(state, toolchains=Toolchains(search_path))
        with pytest.raises(BuildError, match="expected dotnet on the search path") as caught:
            await builder.build(background(), spec(folder))
        assert caught.value.code == "build.toolchain_missing"
        assert "dotnet.microsoft.com" in caught.value.hint
        (folder / "App.csproj").rename(folder / "Dockerfile")
        with pytest.raises(BuildError, match="expected docker") as caught:
            await builder.build(background(), spec(folder))
        assert caught.value.code == "build.engine_missing"


async def test_a_missing_source_and_an_empty_one(tmp_path: Path, builder: Builder) -> None:
    with pytest.raises(BuildError, match="found none") as caught:
        await builder.build(background(), spec(tmp_path / "none"))
    assert caught.value.code == "build.source"
    (tmp_path / "empty").mkdir()
    with pytest.raises(BuildError, match=r"expected go\.mod") as caught:
        await builder.build(background(), spec(tmp_path / "empty"))
    assert caught.value.code == "build.undetected"


@pytest.mark.usefixtures("language")
@pytest.mark.parametrize("language", ["go"], indirect=True)
async def test_a_module_beside_the_app_is_copied_with_it(tmp_path: Path, builder: Builder) -> None:
    (tmp_path / ".git").mkdir()
    library, app = tmp_path / "pkg" / "greet", tmp_path / "apps" / "hello"
    library.mkdir(parents=True)
    app.mkdir(parents=True)
    (library / "go.mod").write_text("module example.com/greet\n\ngo 1.21\n")
    (library / "greet.go").write_text('package greet\n\nfunc Word() string { return "one" }\n')
    (app / "go.mod").write_text(
        "module example.com/hello\n\ngo 1.21\n\nrequire example.com/greet v0.0.0\n\n"
        "replace example.com/greet => ../../pkg/greet\n"
    )
    (app / "main.go").write_text(
        'package main\n\nimport (\n\t"net/http"\n\t"os"\n\n\t"example.com/greet"\n)\n\nfunc main() {\n'
        '\thttp.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(greet.Word())) })\n'
        '\thttp.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil)\n}\n'
    )
    assert await answer(await builder.build(background(), spec(app))) == b"one"
    (library / "greet.go").write_text('package greet\n\nfunc Word() string { return "two" }\n')
    assert await answer(await builder.build(background(), spec(app))) == b"two"


async def test_four_unchanged_apps_are_checked_in_well_under_150_ms(sources: Sources, state: Path) -> None:
    apps = [spec(sources["command"], f"app{n}") for n in range(4)]
    for app in apps:
        await Builder(state).build(background(), app)
    times = []
    for _ in range(3):
        builder = Builder(state)
        start = time.perf_counter()
        releases = await asyncio.gather(*(builder.build(background(), app) for app in apps))
        times.append(time.perf_counter() - start)
        assert all(r.cached for r in releases)
    assert min(times) < 0.15
