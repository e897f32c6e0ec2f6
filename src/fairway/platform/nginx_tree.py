"""The generated NGINX tree on disk: staged, tested, swapped in one step, reloaded.

What fails and what then happens:

- A file that NGINX refuses belongs to an app: that app is taken out (quarantined) and the rest is tested again.
- A refused file belongs to all: nothing is swapped, the tree that was there goes on serving.
- Killed between any two steps: `current` is a symbolic link that one rename replaces, so it names a whole tree.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fairway.nginx.diagnosis import diagnose
from fairway.nginx.errors import NginxError
from fairway.nginx.render import owner, render
from fairway.nginx.site import Options, Refused, Site, Sites
from fairway.nginx.version import NginxVersion
from fairway.run.nginx import Nginx

_KEPT_TREES = 3


@dataclass(frozen=True, slots=True)
class Applied:
    """What was put in place.

    Attributes:
        conf: The configuration to start NGINX with.
        served: Apps in the tree. ``left_out``: apps that are not, each with the reason.
        changed: Whether the tree differs from the one before.
        tested: Whether ``nginx -t`` has accepted it; false only where no nginx is installed.
        reloaded: Whether a running NGINX was told.
    """

    conf: Path
    served: tuple[str, ...]
    left_out: tuple[Refused, ...]
    changed: bool
    tested: bool
    reloaded: bool = False


class NginxTree:
    """The folder that the generator owns: ``trees/DIGEST/``, ``current`` → one of them, and NGINX's own state.

    Args:
        out: Absolute folder; created, 0755: NGINX's workers may run as another user.
        nginx: The program, or None to write without a test.
        version: What to write for; the program's own where there is one.
    """

    def __init__(self, out: Path, nginx: Nginx | None, version: NginxVersion) -> None:
        self.out = out
        self.nginx = nginx
        self.version = version

    @property
    def current(self) -> Path:
        """The link to the tree that serves."""
        return self.out / "current"

    @property
    def reload_due(self) -> bool:
        """Whether no running NGINX has been told of this tree: it is new, or an earlier reload failed or was killed."""
        try:
            return (self.out / "reloaded").read_text(encoding="utf-8") != os.readlink(self.current)
        except OSError:
            return True

    async def apply(self, planned: Sites, options: Options) -> Applied:
        """Stage, test, quarantine, swap.

        Raises:
            NginxError: NGINX refuses a part that every app shares, or the folder cannot be written; nothing changed.
        """
        try:
            for folder in (self.out, self.out / "trees", self.out / "acme"):
                folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                return await self._apply(planned, options)
        except OSError as error:
            raise NginxError(
                f"expected to write to {self.out}: {error.strerror or error}", hint="choose another folder with --out"
            ) from error

    async def _apply(self, planned: Sites, options: Options) -> Applied:
        sites, refused = planned.sites, list(planned.refused)
        if self.nginx is not None:
            sites, quarantined = await self._accepted(sites, options)
            refused += quarantined
        tree = render(sites, options, self.version, self.current, self.out)
        changed = self._swap(tree)
        return Applied(
            conf=self.current / "nginx.conf",
            served=tuple(site.app for site in sites),
            left_out=tuple(refused),
            changed=changed,
            tested=self.nginx is not None,
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other generators out of the folder, and sweep up what a killed one left half written."""
        with (self.out / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise NginxError(
                    f"another `fairway nginx generate` is at work in {self.out}", hint="wait for it, or use --out"
                ) from error
            for left in (*self.out.glob("staged-*"), *self.out.glob("new-*")):
                shutil.rmtree(left, ignore_errors=True)
            yield

    async def reload(self) -> bool:
        """Tell the NGINX that serves this tree, else the system's own.

        Returns:
            Whether one was running and was told.

        Raises:
            NginxError: It was there and refused.
        """
        if self.nginx is None:
            return False
        own = _alive(self.out / "nginx.pid")
        if not own and not any(_alive(Path(path)) for path in ("/run/nginx.pid", "/var/run/nginx.pid")):
            return False
        tree = os.readlink(self.current)
        outcome = await self.nginx.reload(self.current / "nginx.conf" if own else None, self.out if own else None)
        if outcome.status != 0:
            raise NginxError(f"nginx refused to reload: {outcome.output.strip()[-500:]}")
        (self.out / "reloaded").write_text(tree, encoding="utf-8")
        return True

    async def _accepted(self, sites: tuple[Site, ...], options: Options) -> tuple[tuple[Site, ...], list[Refused]]:
        assert self.nginx is not None
        refused: list[Refused] = []
        while True:
            with tempfile.TemporaryDirectory(prefix="staged-", dir=self.out) as name:
                staged = Path(name)
                _write(staged, render(sites, options, self.version, staged, self.out))
                outcome = await self.nginx.test(staged / "nginx.conf", self.out)
                if outcome.status == 0:
                    return sites, refused
                found = diagnose(outcome.output, staged)
            app = owner(found.file) if found.file else None
            if app is None or app not in {site.app for site in sites}:
                raise NginxError(
                    f"nginx refuses the configuration: {found}", hint="nothing was changed; the old one goes on serving"
                )
            refused.append(Refused(app, NginxError(f"{app}: nginx refuses its part: {found}")))
            sites = tuple(site for site in sites if site.app != app)

    def _swap(self, tree: Mapping[str, str]) -> bool:
        digest = hashlib.sha256("\0".join(f"{path}\0{text}" for path, text in tree.items()).encode()).hexdigest()[:16]
        target = self.out / "trees" / digest
        before = os.readlink(self.current) if self.current.is_symlink() else None
        if before == f"trees/{digest}" and target.is_dir():
            return False
        with tempfile.TemporaryDirectory(prefix="new-", dir=self.out) as name:
            fresh = Path(name) / "tree"
            fresh.mkdir()
            _write(fresh, tree)
            if target.exists():
                shutil.rmtree(target)
            fresh.rename(target)
            link = Path(name) / "current"
            link.symlink_to(f"trees/{digest}")
            link.replace(self.current)
        trees = sorted((self.out / "trees").iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in trees[_KEPT_TREES:]:
            if old.name != digest:
                shutil.rmtree(old)
        return True


def _write(folder: Path, tree: Mapping[str, str]) -> None:
    for sub in ("apps", "domains", "locations"):
        (folder / sub).mkdir(exist_ok=True)
    for name, text in tree.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _alive(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True
