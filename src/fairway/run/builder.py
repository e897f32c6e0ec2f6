"""Builds apps: finds out what a folder is, plans, executes the plan, and keeps the result as a release.

A build goes through named steps over one value (`_Job`): snapshot → key → known build? → copy → toolchains → install →
build → start plan → record → release. Everything before the copy is cheap, so that an unchanged app costs a walk over
its files' stamps.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fairway.build.plan import Kind, Layout, Needs, PlanError, Step, Tool
from fairway.command import Command
from fairway.errors import FairwayError
from fairway.run import artifact
from fairway.run.buildkey import key_of
from fairway.run.failure import BuildError, Evidence
from fairway.run.lock import locked
from fairway.run.progress import BuildPhase, BuildProgress
from fairway.run.release import Release, newest_release, release_id
from fairway.run.sources import Sources, copied_path, copy_source
from fairway.run.unchanged import known_build, release_digest, source_of, variables_of

# The planners and what executes their plans are imported where something is built: an unchanged app starts without.
if TYPE_CHECKING:
    from fairway.apps.spec import AppSpec
    from fairway.build import planner
    from fairway.build.docker import ComposeProject
    from fairway.build.facts import Facts
    from fairway.concurrency import Context, SendChan
    from fairway.run.buildlog import BuildLog
    from fairway.run.toolchain import Toolchains

__all__ = ["BuildError", "Builder"]

_LOGS_KEPT = 10
_ANY_PORT = 8000  # of an app that has none of its own, where its Compose file is looked at


class _Job(msgspec.Struct):
    """One build on its way."""

    app: AppSpec
    source: Path
    wishes: planner.Wishes
    log: BuildLog
    say: _Voice
    env: Mapping[str, str]
    folder: Path = Path()
    kind: Kind = "command"
    content: str = ""
    key: str = ""
    tools: dict[str, Tool] = {}
    search_path: str = ""


class _Voice:
    """Tells how one app's build goes; never blocks it."""

    def __init__(self, app: str, progress: SendChan[BuildProgress] | None) -> None:
        self._app = app
        self._progress = progress

    def __call__(self, phase: BuildPhase, message: str, fraction: float | None = None) -> None:
        if self._progress is not None:
            self._progress.try_send(BuildProgress(self._app, phase, message, fraction))


class Builder:
    """Builds apps into releases below one state folder, a bounded number at a time.

    Args:
        state: The state folder (``.fairway``), created where missing, 0700.
        concurrency: Builds that run at once, >= 1; None means one a CPU.
        step_timeout: Seconds that one build command may take, > 0.
        toolchains: Where tools come from; None takes the process's search path and the user's cache.
    """

    def __init__(
        self,
        state: Path,
        *,
        concurrency: int | None = None,
        step_timeout: float = 900.0,
        toolchains: Toolchains | None = None,
    ) -> None:
        self.state = Path(os.path.abspath(state))
        self._limit = asyncio.Semaphore(concurrency or os.cpu_count() or 1)
        self._step_timeout = step_timeout
        self._given_toolchains = toolchains
        self._sources = Sources(self.state / "cache" / "files")

    def __repr__(self) -> str:
        return f"<Builder {self.state}>"

    @property
    def _toolchains(self) -> Toolchains:
        if self._given_toolchains is None:
            from fairway.run.toolchain import Toolchains

            self._given_toolchains = Toolchains()
        return self._given_toolchains

    async def build(
        self, ctx: Context, app: AppSpec, progress: SendChan[BuildProgress] | None = None, *, force: bool = False
    ) -> Release:
        """Build `app` and return its release; an unchanged app returns the release that exists, without building.

        Atomic: the release appears whole or not at all. Cancelling `ctx` (or the task) kills the build's process
        group and removes what was half built.

        Args:
            ctx: Ends the build when done.
            app: The app, from the registry.
            progress: Where to tell how it goes; sends never block the build (a full channel misses a line).
            force: Build again although nothing has changed.

        Raises:
            BuildError: It cannot be built; names the failing command, its exit status, the log's last lines and path.
            Canceled, DeadlineExceeded: `ctx` is done.
        """
        say = _Voice(app.name, progress)
        async with ctx.bind():
            try:
                return await self._build(app, say, force=force)
            except BuildError as error:
                say("failed", error.message)
                raise
            except FairwayError as error:
                say("failed", error.message)
                raise BuildError(error.message, app=app.name, code=error.code, hint=error.hint) from error
        raise AssertionError("unreachable: a bound block returns or raises")

    async def _build(self, app: AppSpec, say: _Voice, *, force: bool) -> Release:
        source = source_of(app)
        env, secrets, key, newest = await asyncio.to_thread(self._look, app, source)
        builds = self.state / "builds" / app.name
        folder, record = (None, None) if force else await self._known_build(builds, key)
        if folder is None or record is None:
            say("check", f"{app.name} has changed" if builds.is_dir() else f"{app.name} is new")
            async with self._limit, locked(builds, "build"):
                folder, record = (None, None) if force else await self._known_build(builds, key)
                if folder is None or record is None:
                    folder, record = await self._make(app, source, (env, secrets), say)
            cached = False
            newest = newest_release(self.state, app.name)
        else:
            cached = True
        release = await self._release((folder, record), env, secrets, newest, say)
        release = msgspec.structs.replace(release, cached=cached)
        say("cached" if cached else "finish", f"release {release.id}", 1.0)
        return release

    async def _known_build(self, builds: Path, key: str) -> tuple[Path, artifact.BuildRecord] | tuple[None, None]:
        """Return the newest build of a key that can still be started: an image may have been removed meanwhile."""
        folder, record = known_build(builds, key)
        if folder is not None and record is not None and record.kind in ("docker", "compose"):
            from fairway.run.compose import images_of
            from fairway.run.engine import has_image
            from fairway.run.executor import build_environment

            docker, *_, image = record.processes["web"].argv
            images = [image] if record.kind == "docker" else images_of(folder)
            environment = build_environment(self._toolchains.search_path)
            for image in images:
                if not await has_image(docker, image, environment):
                    return None, None
        return folder, record  # type: ignore[return-value]  # both are None, or neither is

    def _look(self, app: AppSpec, source: Path) -> tuple[dict[str, str], tuple[str, ...], str, Release | None]:
        """Return variables, secret values, the build's key and the newest release: all that is read of the disk."""
        env, secrets = variables_of(self.state, app)
        key = key_of(self._sources.digest(app.name, source), app)
        return env, secrets, key, newest_release(self.state, app.name)

    async def _make(
        self,
        app: AppSpec,
        source: Path,
        variables: tuple[dict[str, str], tuple[str, ...]],
        say: _Voice,
    ) -> tuple[Path, artifact.BuildRecord]:
        """Build into a new folder; on any failure the folder is removed and only the log stays."""
        import shutil

        from fairway.run.buildlog import BuildLog

        env, secrets = variables
        wishes = _wishes_of(app, tuple(env))
        builds = self.state / "builds" / app.name
        with BuildLog(self._log_path(app.name), secrets) as log:
            job = _Job(app, source, wishes, log, say, env, search_path=self._toolchains.search_path)
            try:
                await asyncio.to_thread(_sweep, builds)
                say("copy", "copying the source", 0.05)
                job.folder, job.content, job.key = await asyncio.to_thread(_copy, app, source, builds)
                return job.folder, await self._carry_out(job)
            except BaseException as error:
                if job.folder != Path():
                    await asyncio.shield(asyncio.to_thread(shutil.rmtree, job.folder, True))
                # ValueError and RecursionError: a file of the app that some parser could not bear.
                if isinstance(error, (FairwayError, OSError, ValueError, RecursionError)):
                    log.write(f"fairway: {error}")
                    raise _as_build_error(error, app.name, log) from error
                raise

    def _log_path(self, name: str) -> Path:
        folder = self.state / "build-logs" / name
        if folder.is_dir():
            for old in sorted(folder.glob("*.log"))[: -(_LOGS_KEPT - 1)]:
                old.unlink(missing_ok=True)
        return folder / f"{time.time_ns() // 1_000_000}.log"

    async def _carry_out(self, job: _Job) -> artifact.BuildRecord:
        from fairway.build import planner
        from fairway.build.facts import gather
        from fairway.run.toolchain import ToolchainError

        copy = copied_path(job.folder)
        facts = await asyncio.to_thread(gather, job.app.name, copy)
        # Planning reads whole syntax trees and lock files: never on the event loop.
        kind = await asyncio.to_thread(planner.detect, facts, job.wishes)
        job.say("toolchain", f"{kind}: looking for the toolchain", 0.1)
        try:
            await self._tools(job, planner.needs(kind, facts))
        except ToolchainError as error:
            instead = planner.without_toolchain(kind, facts, job.wishes)
            if instead is None or await self._toolchains.find("docker") is None:
                raise
            job.log.write(f"fairway: {error}; going on with {instead}")
            kind = instead
            await self._tools(job, planner.needs(kind, facts))
        # A Compose file may mount folders beside it, which have to be the same ones in every release.
        job.kind = kind
        layout = Layout(job.source if kind == "compose" else copy, job.folder / "output")
        layout.output.mkdir(mode=0o700)
        if kind == "python":
            layout = Layout(layout.source, layout.output, await self._python_environment(job, facts, copy))
        compose = await self._freeze(job, facts, layout) if kind == "compose" else None
        about = planner.Resolution(
            kind, facts, job.wishes, layout, job.tools, job.search_path, self._toolchains.which, job.key, compose
        )
        before = await asyncio.to_thread(artifact.inspect, layout.source, layout.output, layout.environment)
        steps, notes = await asyncio.to_thread(planner.plan_steps, about, before)
        for note in notes:
            job.log.write(f"fairway: {note}")
        for number, step in enumerate(steps):
            await self._step(job, step, 0.2 + 0.7 * number / len(steps))
        built = await asyncio.to_thread(artifact.inspect, layout.source, layout.output, layout.environment)
        start = await asyncio.to_thread(planner.plan_start, about, built)
        commands = [*start.processes.values(), *([start.before] if start.before else [])]
        record = artifact.BuildRecord(
            format=artifact.FORMAT,
            kind=kind,
            key=job.key,
            processes={n: artifact.StoredCommand.of(c) for n, c in start.processes.items()},
            before=artifact.StoredCommand.of(start.before) if start.before else None,
            stop=artifact.StoredCommand.of(start.stop) if start.stop else None,
            clear=artifact.StoredCommand.of(start.clear) if start.clear else None,
            env=start.env,
            environment=str(layout.environment) if layout.environment else None,
            programs=artifact.stamps(commands, _runtime_tools(kind, job.tools)),
            log=str(job.log.path),
        )
        artifact.save_record(job.folder, record)
        return record

    async def _tools(self, job: _Job, wanted: tuple[Needs, ...]) -> None:
        for needs in wanted:
            if needs.tool in ("uv", "yarn", "pnpm"):
                tool = await self._toolchains.find(needs.tool)
            else:
                tool = await self._toolchains.ensure(needs, job.log, lambda m: job.say("toolchain", m, 0.1))
            if tool is not None:
                job.tools[needs.tool] = tool
        folders = [str(Path(t.path).parent) for n, t in job.tools.items() if n != "python"]
        job.search_path = os.pathsep.join(dict.fromkeys([*folders, *job.search_path.split(os.pathsep)]))

    async def _python_environment(self, job: _Job, facts: Facts, copy: Path) -> Path:
        from fairway.run.pyenv import EnvironmentWish, ensure_environment

        wish = EnvironmentWish(facts, job.content, copy, named=bool(job.app.command) or "web" in facts.procfile)
        return await ensure_environment(
            self.state, wish, self._toolchains, lambda s: self._step(job, s, 0.15), lambda m: job.say("build", m)
        )

    async def _freeze(self, job: _Job, facts: Facts, layout: Layout) -> ComposeProject:
        from fairway.build import planner
        from fairway.run.compose import freeze

        project = planner.compose_project(facts, job.wishes, layout)
        port = job.app.backend.port or _ANY_PORT
        return await freeze(
            project, layout.output, job.key, port, docker=job.tools["docker"], run=lambda s: self._step(job, s, 0.15)
        )

    async def _step(self, job: _Job, step: Step, fraction: float) -> None:
        from fairway.run.executor import build_environment, execute

        job.say("build", step.title, fraction)
        tried = [step.command] if step.otherwise is None else [step.command, step.otherwise]
        for number, command in enumerate(tried):
            job.log.write(f"$ {command}")
            # Compose fills the file's ${NAME} from here, before it looks at anything, secrets too.
            own = job.env if job.kind == "compose" else job.app.env
            environment = {**build_environment(job.search_path), **own}
            outcome = await execute(
                command, job.log, environment=environment, timeout=self._step_timeout,
                on_line=lambda line: job.say("build", line[:200], fraction),
            )  # fmt: skip
            if outcome.ok:
                return
            job.log.write(f"fairway: {outcome}")
            if step.optional:
                return
            if number == len(tried) - 1:
                raise BuildError(
                    f"expected `{job.log.redact(str(command))}` to build {job.app.name}, got {outcome}",
                    app=job.app.name, code="build.timeout" if outcome.timed_out else "build.failed",
                    hint="The log's last lines say why.",
                    evidence=Evidence(job.log.redact(str(command)), outcome.status, job.log.tail, job.log.path),
                )  # fmt: skip

    async def _release(
        self,
        known: tuple[Path, artifact.BuildRecord],
        env: Mapping[str, str],
        secrets: tuple[str, ...],
        newest: Release | None,
        say: _Voice,
    ) -> Release:
        """Return the newest release if it is this very state, else make one, its `before` command run first."""
        folder, record = known
        name = folder.parent.name
        full = {**record.env, **env}
        digest = release_digest(folder, full)
        if newest is not None and newest.digest == digest:
            return newest
        async with self._limit, locked(self.state / "builds" / name, "build"):
            created_at = max(time.time(), newest.created_at + 0.001 if newest else 0.0)
            release = _compose(self.state, name, known, full, (created_at, digest))
            if release.before is not None:
                await self._before(release, release.before, secrets, say)
            await asyncio.to_thread(release.save)
        return release

    async def _before(self, release: Release, command: Command, secrets: tuple[str, ...], say: _Voice) -> None:
        """Run what has to be done before a release may serve, such as migrations; without it there is no release."""
        say("finish", f"running {command}"[:200], 0.95)
        from fairway.run.buildlog import BuildLog
        from fairway.run.executor import build_environment, execute

        with BuildLog(self._log_path(release.app), secrets) as log:
            log.write(f"$ {command}")
            environment = {**build_environment(self._toolchains.search_path), **release.env}
            environment |= {"FAIRWAY_APP": release.app, "FAIRWAY_RELEASE": release.id}
            outcome = await execute(
                command, log, environment=environment, timeout=self._step_timeout,
                on_line=lambda line: say("finish", line[:200], 0.95),
            )  # fmt: skip
            if not outcome.ok:
                raise BuildError(
                    f"expected `{log.redact(str(command))}` to prepare {release.app} for its release, got {outcome}",
                    app=release.app, code="build.before", hint="It is the Procfile's `release`.",
                    evidence=Evidence(log.redact(str(command)), outcome.status, log.tail, log.path),
                )  # fmt: skip


def _compose(
    state: Path, name: str, known: tuple[Path, artifact.BuildRecord], env: dict[str, str], stamp: tuple[float, str]
) -> Release:
    folder, record = known
    created_at, digest = stamp
    identity = release_id(created_at, digest)
    return Release(
        id=identity,
        app=name,
        directory=state / "releases" / name / identity,
        processes={n: c.command() for n, c in record.processes.items()},
        before=record.before.command() if record.before else None,
        stop=record.stop.command() if record.stop else None,
        clear=record.clear.command() if record.clear else None,
        env=env,
        digest=digest,
        created_at=created_at,
        kind=record.kind,
        build_directory=folder,
        log_path=Path(record.log) if record.log else None,
    )


def _wishes_of(app: AppSpec, names: tuple[str, ...]) -> planner.Wishes:
    from fairway.build import planner

    return planner.Wishes(app.runtime, app.compose_file, app.command, app.build, dict(app.processes), names)


def _sweep(builds: Path) -> None:
    """Remove what killed builds have left; the caller holds the app's lock, so none of it is in use."""
    import shutil

    for entry in builds.iterdir():
        if entry.is_dir() and not (entry / artifact.FILE).exists():
            shutil.rmtree(entry, ignore_errors=True)


def _copy(app: AppSpec, source: Path, builds: Path) -> tuple[Path, str, str]:
    """Copy the source to its place; return the folder, the digest of what was copied, and the key."""
    import shutil
    import tempfile

    staged = Path(tempfile.mkdtemp(prefix=".new-", dir=builds))
    try:
        content = copy_source(source, staged)
        key = key_of(content, app)
        numbered = (builds / (key[:16] if n == 0 else f"{key[:16]}-{n}") for n in range(10))
        folder = next((f for f in numbered if not f.exists()), None)
        if folder is None:
            raise BuildError(f"expected fewer than 10 forced builds of one state of {app.name}, got more", app=app.name)
        staged.rename(folder)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return folder, content, key


def _runtime_tools(kind: Kind, tools: Mapping[str, Tool]) -> list[Tool]:
    return [tools[n] for n in ("node", "dotnet") if n in tools and n == kind]


def _as_build_error(error: FairwayError | OSError | ValueError | RecursionError, app: str, log: BuildLog) -> BuildError:
    if isinstance(error, BuildError):
        return error
    if isinstance(error, OSError):
        return BuildError(
            f"expected to build {app}, got: {error.strerror or error} ({error.filename})",
            app=app, code="build.failed", evidence=Evidence(tail=log.tail, log_path=log.path),
        )  # fmt: skip
    if not isinstance(error, FairwayError):
        message = f"expected files of {app} that can be read, got: {type(error).__name__}: {str(error)[:200]}"
        return BuildError(message, app=app, code="build.source", evidence=Evidence(tail=log.tail, log_path=log.path))
    from fairway.apps.dotenv import EnvFileError

    code = "build.config" if isinstance(error, EnvFileError) else error.code
    known = isinstance(error, PlanError) or code.startswith("build.")
    evidence = Evidence(tail=log.tail, log_path=log.path)
    return BuildError(
        error.message, app=app, code=code if known else "build.failed", hint=error.hint, evidence=evidence
    )
