"""Runs the nginx program: its version, its test, its reload."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

from fairway.errors import FairwayError


class NginxTimeoutError(FairwayError):
    """nginx did not answer in time; it was killed."""

    code = "nginx.timeout"
    default_hint = "an upstream's name that takes long to resolve is the usual cause"


class NginxMissingError(FairwayError):
    """There is no nginx to run."""

    code = "nginx.missing"
    default_hint = "install it (apt-get install nginx, brew install nginx), or name it with --nginx"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Exit status and everything that was printed."""

    status: int
    output: str


class Nginx:
    """One nginx program.

    Args:
        binary: Name on PATH or a path. Debian keeps it in ``/usr/sbin``, which is searched too.
        timeout: Seconds that one call may take.

    Raises:
        NginxMissingError: There is no such program.
    """

    def __init__(self, binary: str = "nginx", *, timeout: float = 20.0) -> None:
        found = shutil.which(binary) or shutil.which(binary, path="/usr/sbin:/usr/local/sbin")
        if found is None:
            raise NginxMissingError(f"expected the program {binary!r} on PATH or in /usr/sbin, found none")
        self.binary = found
        self.timeout = timeout

    async def version(self) -> str:
        """Return what ``nginx -v`` prints."""
        return (await self._run("-v")).output

    async def test(self, conf: Path, prefix: Path) -> Outcome:
        """Run ``nginx -t`` on a configuration; status 0 means that NGINX accepts it."""
        return await self._run("-t", "-q", "-c", str(conf), "-p", str(prefix), "-e", "stderr")

    async def reload(self, conf: Path | None, prefix: Path | None) -> Outcome:
        """Tell the running NGINX to read its configuration again; without `conf`, the system's own."""
        own = ["-c", str(conf), "-p", str(prefix), "-e", "stderr"] if conf is not None else []
        return await self._run("-s", "reload", *own)

    async def start(self, conf: Path, prefix: Path) -> Outcome:
        """Start an NGINX of its own on a configuration; it puts itself into the background."""
        return await self._run("-c", str(conf), "-p", str(prefix), "-e", "stderr")

    async def _run(self, *arguments: str) -> Outcome:
        if "-e" in arguments and not await self._has_error_log_option():
            at = arguments.index("-e")
            arguments = (*arguments[:at], *arguments[at + 2 :])
        process = await asyncio.create_subprocess_exec(
            self.binary,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(self.timeout):
                _, output = await process.communicate()
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise NginxTimeoutError(
                f"expected {' '.join((self.binary, *arguments))} to end within {self.timeout:g} s; it was killed"
            ) from error
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        return Outcome(process.returncode or 0, output.decode(errors="replace"))

    async def _has_error_log_option(self) -> bool:
        # -e came with 1.19.5; an older one refuses it as unknown.
        text = (await self._run("-v")).output
        digits = text.rpartition("/")[2].split()[0].split(".") if "/" in text else []
        return tuple(int(part) for part in digits[:3] if part.isdigit()) >= (1, 19, 5)
