"""The command line's way to the daemon: HTTP over its Unix socket, blocking, without an event loop."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from fairway.cli.project import Project
from fairway.errors import FairwayError


class Unreachable(FairwayError):
    """No daemon answers."""

    code = "cli.unreachable"
    default_hint = "Start it with `fairway up -d`."


class Answered(FairwayError):
    """The daemon answered with a problem; `code` and `hint` are the problem's own."""

    code = "cli.answered"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """Calls the daemon of one project, or the one at ``FAIRWAY_URL`` with ``FAIRWAY_TOKEN``.

    Args:
        project: Whose daemon.
        timeout: Seconds without an answer after which a call fails; None waits for ever.
    """

    def __init__(self, project: Project, *, timeout: float | None = 30.0) -> None:
        self._project = project
        self._timeout = timeout
        self._url = os.environ.get("FAIRWAY_URL")

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON answer to a GET. Raises `Unreachable` or `Answered`."""
        return self._call("GET", _with_query(path, query))

    def post(self, path: str, body: Any = None) -> Any:
        """Return the JSON answer to a POST, None for an empty one. Raises `Unreachable` or `Answered`."""
        return self._call("POST", path, body)

    def delete(self, path: str) -> Any:
        """Return the JSON answer to a DELETE, None for an empty one. Raises `Unreachable` or `Answered`."""
        return self._call("DELETE", path)

    def is_up(self) -> bool:
        """Say whether a daemon answers."""
        try:
            self.get("/healthz")
        except Unreachable:
            return False
        return True

    def stream(self, method: str, path: str, body: Any = None, **query: Any) -> Iterator[tuple[str, Any]]:
        """Yield (event name, data) of a stream of server-sent events until it ends.

        Raises:
            Unreachable: No daemon, or it went away in the middle.
            Answered: The daemon answered with a problem instead of a stream.
        """
        connection = self._connection(None)
        try:
            response = self._send(connection, method, _with_query(path, query), body, "text/event-stream")
            name = ""
            data: list[str] = []
            for raw in response:
                line = raw.decode("utf-8").rstrip("\r\n")
                if not line:
                    if data:
                        yield name, json.loads("\n".join(data))
                    name, data = "", []
                    continue
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if field == "event":
                    name = value
                elif field == "data":
                    data.append(value)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(
                f"The daemon went away: {_why(error)}.", hint="`fairway logs _fairway` says why."
            ) from None
        finally:
            connection.close()

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        connection = self._connection(self._timeout)
        try:
            response = self._send(connection, method, path, body, "application/json")
            data = response.read()
        except TimeoutError:
            raise Unreachable(
                f"The daemon did not answer within {self._timeout:g} s.", hint="`fairway logs _fairway` may say why."
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"The daemon went away: {_why(error)}.") from None
        finally:
            connection.close()
        return json.loads(data) if data else None

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Any, accept: str
    ) -> http.client.HTTPResponse:
        headers = {"Accept": accept}
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if self._url and (token := os.environ.get("FAIRWAY_TOKEN")):
            headers["Authorization"] = f"Bearer {token}"
        try:
            connection.connect()
        except OSError as error:
            raise self._unreachable(error) from None
        connection.request(method, path, payload, headers)
        response = connection.getresponse()
        if response.status >= 400:
            raise _problem(response)
        return response

    def _connection(self, timeout: float | None) -> http.client.HTTPConnection:
        if not self._url:
            return _UnixConnection(self._project.layout.api_socket, timeout)
        told = urlsplit(self._url)
        kind = http.client.HTTPSConnection if told.scheme == "https" else http.client.HTTPConnection
        if not told.hostname or told.scheme not in {"http", "https"}:
            raise Unreachable(
                f"FAIRWAY_URL is {self._url!r}, expected a URL.", hint="Set it like http://127.0.0.1:7070, or unset it."
            )
        return kind(told.hostname, told.port, timeout=timeout)

    def _unreachable(self, error: OSError) -> Unreachable:
        if self._url:
            return Unreachable(f"No daemon answers at {self._url}: {_why(error)}.", hint="Check FAIRWAY_URL.")
        if not self._project.found:
            return Unreachable(
                f"There is no project in {self._project.root} or above it.",
                hint="Run `fairway add PATH` here, or give the folder with --project.",
            )
        if isinstance(error, PermissionError):
            return Unreachable(
                f"The daemon of {self._project.root} belongs to another user.", hint="Run the command as that user."
            )
        return Unreachable(f"No daemon runs for {self._project.root}.")


def app_path(name: str, rest: str = "") -> str:
    """Return the API's path of an app; whatever the name holds stays one segment."""
    return f"/v1/apps/{quote(name, safe='')}{rest}"


def _with_query(path: str, query: dict[str, Any]) -> str:
    told = {name: value for name, value in query.items() if value not in (None, (), [])}
    return f"{path}?{urlencode(told, doseq=True)}" if told else path


def _problem(response: http.client.HTTPResponse) -> FairwayError:
    data = response.read()
    try:
        told = json.loads(data)
        return Answered(told["detail"], code=told["code"], hint=told.get("hint", ""))
    except (ValueError, KeyError, TypeError):
        return Answered(f"The daemon answered {response.status} {response.reason}.", hint="`fairway doctor` may help.")


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
