"""Runs the commands of a build: no shell, a process group each, output into the log, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping

import msgspec

from fairway.command import Command
from fairway.run.buildlog import BuildLog

_GRACE = 2.0  # seconds between SIGTERM and SIGKILL for a build that is cancelled or over its time
_DRAIN = 1.0  # seconds for output that is still in the pipe once the command has ended
_LINE_LIMIT = 64 * 1024
_KEPT = frozenset(
    {
        "HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER", "SSL_CERT_DIR", "SSL_CERT_FILE",
        "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
        "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy", "LD_LIBRARY_PATH", "CC", "CXX",
        "SSH_AUTH_SOCK", "NETRC", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
    }
)  # fmt: skip
_KEPT_PREFIXES = (
    "LC_", "GO", "npm_config_", "NPM_CONFIG_", "PIP_", "UV_", "DOTNET_", "NUGET_", "NuGet", "YARN_", "PNPM_", "DOCKER_",
    "BUILDKIT_", "CGO_", "COREPACK_", "GIT_SSL_",
)  # fmt: skip


class Outcome(msgspec.Struct, frozen=True):
    """How a command ended: its exit status (negative: the signal that ended it), and whether its time ran out."""

    status: int
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        """True for exit status 0."""
        return self.status == 0 and not self.timed_out

    def __str__(self) -> str:
        if self.timed_out:
            return "its time ran out"
        if self.status < 0:
            try:
                return f"ended by {signal.Signals(-self.status).name}"
            except ValueError:
                return f"ended by signal {-self.status}"
        return f"exit status {self.status}"


def build_environment(search_path: str, source: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what a build command inherits: locations, proxies and the package managers' own settings, nothing else.

    Other variables of the daemon may be the secrets of some app, and a build script is code that somebody else wrote.
    """
    source = os.environ if source is None else source
    kept = {n: v for n, v in source.items() if n in _KEPT or n.startswith(_KEPT_PREFIXES)}
    kept["PATH"] = search_path
    kept["TERM"] = "dumb"
    kept["NO_COLOR"] = "1"
    kept["GIT_TERMINAL_PROMPT"] = "0"
    return kept


async def execute(
    command: Command,
    log: BuildLog,
    *,
    environment: Mapping[str, str],
    timeout: float,
    on_line: Callable[[str], None] | None = None,
) -> Outcome:
    """Run one command to its end, its output into the log.

    Cancelling it ends the whole process group (SIGTERM, then SIGKILL) before `asyncio.CancelledError` goes on. What a
    command leaves running in its group when it ends is killed too.

    Args:
        command: What to run; its `env` comes over `environment`.
        log: Where its output goes.
        environment: The rest of its environment.
        timeout: Seconds it may take, > 0.
        on_line: Called with every line that is not blank, as it stands in the log.

    Raises:
        OSError: The program cannot be started.
    """
    # A pipe of our own: with asyncio's, the exit is only told once every process that holds it has closed it.
    read_end, write_end = os.pipe()
    stream, transport = await _reader(read_end)
    try:
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            env={**environment, **command.env},
            cwd=command.cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=write_end,
            stderr=write_end,
            start_new_session=True,
        )
    except BaseException:
        transport.close()
        raise
    finally:
        os.close(write_end)
    pump = asyncio.create_task(_pump(stream, log, on_line))
    timed_out = False
    try:
        async with asyncio.timeout(timeout):
            await process.wait()
    except TimeoutError:
        timed_out = True
    finally:
        try:
            if process.returncode is None:
                await _end(process)
        finally:
            _signal_group(process.pid, signal.SIGKILL)
            try:
                await _finish(pump)
            finally:
                transport.close()
    return Outcome(process.returncode if process.returncode is not None else -signal.SIGKILL, timed_out)


async def _reader(fd: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamReader(limit=_LINE_LIMIT, loop=loop)
    file = os.fdopen(fd, "rb", 0)  # the transport closes it
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream, loop=loop), file)
    return stream, transport


async def _end(process: asyncio.subprocess.Process) -> None:
    _signal_group(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(_GRACE):
            await process.wait()
    except TimeoutError:
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()


def _signal_group(pgid: int, number: int) -> None:
    # A group that is gone, or (macOS) holds nothing but a zombie, is what was wanted.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, number)


async def _finish(pump: asyncio.Task[None]) -> None:
    """Wait for the last output, but not for a stranger that holds the pipe open."""
    done, _ = await asyncio.wait({pump}, timeout=_DRAIN)
    if not done:
        pump.cancel()
        await asyncio.wait({pump})
    elif (error := pump.exception()) is not None:
        raise error


async def _pump(stream: asyncio.StreamReader, log: BuildLog, on_line: Callable[[str], None] | None) -> None:
    """Copy lines into the log; a line longer than the limit is cut into pieces."""
    while True:
        try:
            data = await stream.readuntil(b"\n")
        except asyncio.IncompleteReadError as rest:
            if rest.partial:
                _emit(rest.partial, log, on_line)
            return
        except asyncio.LimitOverrunError as over:
            data = await stream.read(max(over.consumed, 1))
        _emit(data, log, on_line)


def _emit(data: bytes, log: BuildLog, on_line: Callable[[str], None] | None) -> None:
    text = log.write(data.decode("utf-8", "replace"))
    if on_line is not None and text.strip():
        on_line(text.strip())
