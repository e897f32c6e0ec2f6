"""Sites as text: a tree of files, relative path to content, for one NGINX version."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fairway.nginx.errors import UnsafeValueError
from fairway.nginx.site import Location, Options, Site
from fairway.nginx.version import NginxVersion

if TYPE_CHECKING:
    from jinja2 import Environment

_ROOT = re.compile(r"/[A-Za-z0-9._~/+@-]*\Z")


@dataclass(frozen=True, slots=True)
class _Listener:
    """One server block of a domain: the port, and whose locations it includes (``*.http``, ``*.grpc`` or both)."""

    port: int
    kind: str
    http2: bool
    grpc: bool


def render(sites: Iterable[Site], options: Options, version: NginxVersion, root: Path, state: Path) -> dict[str, str]:
    """Render the whole tree.

    An app owns exactly the files named after it (``apps/APP.conf`` and ``locations/DOMAIN/APP.*``), so that one that
    NGINX refuses can be taken out without touching another.

    Args:
        sites: What to serve, from `fairway.nginx.site.plan`.
        options: What holds for all.
        version: The NGINX that will read it.
        root: Absolute folder that the tree will lie in; included files are named by it.
        state: Absolute folder for the pid file and the logs.

    Returns:
        Relative path to content; the same input gives the same bytes.

    Raises:
        UnsafeValueError: `root` or `state` could not be written into a configuration safely.
    """
    for what, path in (("root", root), ("state", state)):
        if not _ROOT.match(str(path)):
            raise UnsafeValueError(
                f"expected an absolute {what} folder of letters, digits and ._~/+@-, got {str(path)!r}",
                hint="choose another folder with --out",
            )
    environment = _environment()

    def fill(template: str, **values: object) -> str:
        text = environment.get_template(template).render(
            options=options, version=version, root=root, state=state, **values
        )
        return text if text.endswith("\n") else text + "\n"

    tree: dict[str, str] = {}
    kinds: dict[str, set[str]] = {}
    for site in sites:
        tree[f"apps/{site.app}.conf"] = fill("upstreams.conf.j2", site=site)
        for domain, locations in site.domains.items():
            for kind in ("http", "grpc"):
                chosen = [location for location in locations if location.grpc == (kind == "grpc")]
                if chosen:
                    kinds.setdefault(domain, set()).add(kind)
                    tree[f"locations/{folder(domain)}/{site.app}.{kind}"] = fill(
                        "locations.conf.j2", app=site.app, domain=domain, matches=list(_matches(chosen))
                    )
    for domain, found in kinds.items():
        tree[f"domains/{folder(domain)}.conf"] = fill(
            "domain.conf.j2", domain=domain, folder=folder(domain), servers=_listeners(found, options)
        )
    grpc_plain = options.tls is None and any("grpc" in found for found in kinds.values())
    for name in ("nginx", "http", "proxy", "grpc"):
        tree[f"{name}.conf"] = fill(f"{name}.conf.j2", grpc_plain=grpc_plain)
    return dict(sorted(tree.items()))


def owner(path: str) -> str | None:
    """Return the app that a file of the tree belongs to, or None for a shared one."""
    parts = Path(path).parts
    if len(parts) == 2 and parts[0] == "apps":
        return Path(path).stem
    if len(parts) == 3 and parts[0] == "locations":
        return Path(path).stem
    return None


def folder(domain: str) -> str:
    """Return the domain as a file name; the star of a wildcard is spelled out."""
    return domain.replace("*", "_wildcard")


def _matches(locations: Iterable[Location]) -> Iterator[tuple[str, Location]]:
    # A prefix ends at a slash: /api serves /api and /api/x, never /apix.
    for location in sorted(locations, key=lambda found: found.path):
        if location.path == "/":
            yield "/", location
        else:
            bare = location.path.rstrip("/")
            yield f"= {bare}", location
            yield f"^~ {bare}/", location


def _listeners(kinds: set[str], options: Options) -> list[_Listener]:
    grpc = "grpc" in kinds
    if options.tls:
        kind = "*" if len(kinds) == 2 else next(iter(kinds))
        return [_Listener(options.listen_tls, kind, http2=True, grpc=grpc)]
    listeners = []
    if "http" in kinds:
        listeners.append(_Listener(options.listen, "http", http2=False, grpc=False))
    if grpc:
        listeners.append(_Listener(options.listen_grpc, "grpc", http2=True, grpc=True))
    return listeners


def _listen_address(address: str) -> str:
    return f"[{address}]" if ":" in address else address


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # HTML escaping would be wrong here; site.py lets no value through that needs any.
    environment = Environment(  # noqa: S701
        loader=PackageLoader("fairway.nginx"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["listen_address"] = _listen_address
    return environment
