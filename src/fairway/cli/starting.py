"""Starts what `fairway up` was told to: the daemon in this process, or in one of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairway.cli.project import Project, ProjectError

if TYPE_CHECKING:
    from fairway.cli.upoptions import UpOptions


def start(project: Project, told: UpOptions) -> int:
    """Run the daemon of a project, or with `detach` start it and wait until it is ready; return the exit status.

    Raises:
        click.UsageError: Options that do not go together.
        ProjectError: There is no app yet.
    """
    door = told.door()
    _check_registry(project)
    if told.detach:
        from fairway.cli import detached

        root = door.tls.root if door.tls is not None else None
        return detached.start(project, told.words(), frozenset(told.apps), as_json=told.as_json, root=root)
    from fairway.cli import foreground
    from fairway.platform.config import DaemonConfig

    config = DaemonConfig(
        registry=project.registry,
        state_dir=project.layout.root,
        door_host=told.listen[0],
        door_port=told.listen[1],
        door_workers=told.workers,
        door=door,
        api_host=told.api[0],
        api_port=told.api[1],
        apps=told.apps,
        watch=told.watch,
    )
    return foreground.run(project, config, background=told.background)


def _check_registry(project: Project) -> None:
    folder = project.registry
    if any(path.suffix in {".yaml", ".yml"} for path in (folder.iterdir() if folder.is_dir() else ())):
        return
    raise ProjectError(
        f"There is no app in {folder} yet." if project.found else f"There is no app in {project.root} yet.",
        hint="`fairway add ./myapp` writes the entry of a folder, then `fairway up` starts it.",
    )
