"""`fairway nginx`: write, test and swap the NGINX configuration of the registry."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from fairway.cli import output
from fairway.cli.client import Client, Unreachable
from fairway.cli.project import Project, current

if TYPE_CHECKING:
    from fairway.nginx.site import Options, Server
    from fairway.platform.nginx_tree import Applied


@click.group()
def nginx() -> None:
    """Serve the registry with NGINX: TLS, HTTP/2 and gRPC to clients."""


@nginx.command()
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write to; .fairway/nginx by default.")
@click.option("--reload", "reloading", is_flag=True, help="Tell a running NGINX to take the new configuration.")
@click.option("--watch", is_flag=True, help="Stay, and do it again whenever the registry or the instances change.")
@click.option(
    "--via",
    type=click.Choice(["door", "apps"]),
    default="door",
    show_default=True,
    help="Proxy to Fairway's door, which goes on deploying without downtime, or straight to the instances.",
)
@click.option(
    "--door", metavar="HOST:PORT", default="127.0.0.1:8080", show_default=True, help="Where the door listens."
)
@click.option("--listen", type=click.IntRange(1, 65535), default=80, show_default=True, help="Port for HTTP.")
@click.option("--listen-tls", type=click.IntRange(1, 65535), default=443, show_default=True, help="Port for HTTPS.")
@click.option("--listen-grpc", type=click.IntRange(1, 65535), default=50051, show_default=True, help="gRPC, no TLS.")
@click.option("--address", default="0.0.0.0", show_default=True, help="Address to listen on.")  # noqa: S104  # public
@click.option("--tls-cert", type=click.Path(path_type=Path, exists=True), help="Certificate for every domain.")
@click.option("--tls-key", type=click.Path(path_type=Path, exists=True), help="Its key.")
@click.option("--body-limit", metavar="SIZE", default="10M", show_default=True, help="Largest request body; 0 for any.")
@click.option("--trusted", multiple=True, metavar="CIDR", help="Network whose X-Forwarded-For counts; repeatable.")
@click.option("--nginx", "binary", default="nginx", show_default=True, help="The program that tests and reloads.")
@click.option("--for-version", metavar="X.Y.Z", help="Write for this version without testing, where none is installed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def generate(**flags: Any) -> None:
    """Write the configuration, test it with NGINX, and put it in place in one step.

    An app that NGINX refuses is left out and named; the others are served. Nothing changes where the whole is refused.
    """
    asyncio.run(_generate(current(), flags))


async def _generate(project: Project, flags: dict[str, Any]) -> None:
    from fairway.nginx.version import NginxVersion
    from fairway.platform.nginx_tree import NginxTree
    from fairway.run.nginx import Nginx

    options = _options(flags)
    program = None if flags["for_version"] else Nginx(flags["binary"])
    text = flags["for_version"] if program is None else await program.version()
    out = (flags["out"] or project.layout.root / "nginx").absolute()
    tree = NginxTree(out, program, NginxVersion.parse(text))
    applied = await _apply(project, tree, options, flags)
    _report(applied, flags["as_json"])
    if flags["watch"]:
        await _watch(project, tree, options, flags)


async def _apply(project: Project, tree: Any, options: Options, flags: dict[str, Any]) -> Applied:
    from fairway.apps.registry import load
    from fairway.nginx.site import plan
    from fairway.platform.nginx_tree import Applied

    registry = load(project.registry)
    for problem in registry.problems:
        click.echo(f"{problem}", err=True)
    servers = _through_door(registry.apps, flags["door"]) if flags["via"] == "door" else _instances(project)
    applied: Applied = await tree.apply(plan(registry.apps.values(), servers), options)
    if flags["reloading"] and tree.reload_due:
        applied = Applied(**{**_fields(applied), "reloaded": await tree.reload()})
    return applied


def _fields(applied: Applied) -> dict[str, Any]:
    return {name: getattr(applied, name) for name in ("conf", "served", "left_out", "changed", "tested", "reloaded")}


async def _watch(project: Project, tree: Any, options: Options, flags: dict[str, Any]) -> None:
    """Apply again after each change of the registry, within a second and a half as one, and of the instances.

    What is wrong at the moment (a file half written, the daemon restarting) is told, and the old tree goes on serving.
    """
    from watchfiles import awatch

    from fairway.errors import FairwayError

    via_apps, served, told = flags["via"] == "apps", None, ""
    changes = awatch(project.registry, debounce=1500, step=200, rust_timeout=2000, yield_on_timeout=via_apps)
    async for files in changes:
        try:
            if via_apps and not files:
                found = await asyncio.to_thread(_instances, project)
                if found == served:
                    continue
                served = found
            applied = await _apply(project, tree, options, flags)
        except FairwayError as error:
            if str(error) != told:
                click.echo(f"{output.paint('unchanged', 'yellow')} {error}", err=True)
            told, served = str(error), None
            continue
        told = ""
        if applied.changed:
            _report(applied, flags["as_json"])


def _options(flags: dict[str, Any]) -> Options:
    from fairway.nginx.site import Options, Tls

    certificate, key = flags["tls_cert"], flags["tls_key"]
    if (certificate is None) != (key is None):
        raise click.UsageError("--tls-cert and --tls-key go together.")
    return Options(
        listen=flags["listen"],
        listen_tls=flags["listen_tls"],
        listen_grpc=flags["listen_grpc"],
        address=flags["address"],
        body_limit=_size(flags["body_limit"]),
        trusted=tuple(flags["trusted"]),
        tls=Tls(certificate.absolute(), key.absolute()) if certificate else None,
    )


def _size(text: str) -> int:
    from fairway.apps import values

    try:
        return 0 if text == "0" else values.size(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}, or 0 for any, got {text!r}", param_hint="--body-limit") from None


def _through_door(apps: Any, door: str) -> dict[str, tuple[Server, ...]]:
    from fairway.nginx.site import Server

    host, _, port = door.rpartition(":")
    if not host or not port.isdigit():
        raise click.BadParameter(f"expected HOST:PORT, got {door!r}", param_hint="--door")
    return dict.fromkeys(apps, (Server(host, int(port)),))


def _instances(project: Project) -> dict[str, tuple[Server, ...]]:
    """Where the instances that serve listen now, as the daemon tells."""
    from fairway.nginx.site import Server

    try:
        apps = Client(project).get("/v1/apps")["apps"]
    except Unreachable as error:
        raise Unreachable(f"{error.message} --via apps needs it.", hint="`fairway up -d`, or --via door.") from None
    return {
        app["name"]: tuple(
            Server("127.0.0.1", instance["port"])
            for instance in app["instances"]
            if instance["process"] == "web" and instance["state"] in {"running", "healthy"} and instance.get("port")
        )
        for app in apps
    }


def _report(applied: Applied, as_json: bool) -> None:
    if as_json:
        left_out = [{"app": refused.app, "reason": str(refused.error)} for refused in applied.left_out]
        output.as_json(msgspec.to_builtins({**_fields(applied), "conf": str(applied.conf), "left_out": left_out}))
        return
    for refused in applied.left_out:
        click.echo(f"{output.paint('left out', 'yellow')} {refused.error}", err=True)
    tested = "tested with nginx" if applied.tested else "not tested: no nginx was asked"
    changed = "written" if applied.changed else "unchanged"
    apps = f"{len(applied.served)} {'app' if len(applied.served) == 1 else 'apps'}"
    click.echo(f"{applied.conf}: {changed}, {apps}, {tested}.")
    if applied.reloaded:
        click.echo("NGINX was told to reload.")
    elif applied.changed:
        click.echo(f"Serve it with `nginx -c {applied.conf}`, or include {applied.conf.with_name('http.conf')}.")
