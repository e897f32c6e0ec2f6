"""A door as a process of its own, a scripted upstream, and a client that sends bytes as they are."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

TIMEOUT = 5.0
HEADER_TIMEOUT = 1.0
BODY_LIMIT = 100_000


@dataclass
class Received:
    """One request as the upstream saw it."""

    start: bytes
    head: bytes
    body: bytes
    complete: bool
    connection: int
    trailers: bytes = b""
    arrived: float = field(default_factory=time.monotonic)

    @property
    def target(self) -> bytes:
        return self.start.split(b" ")[1]

    def values(self, name: str) -> list[bytes]:
        wanted = name.lower().encode()
        found = []
        for line in self.head.split(b"\r\n")[1:]:
            key, colon, value = line.partition(b":")
            if colon and key.lower() == wanted:
                found.append(value.strip())
        return found

    def value(self, name: str) -> bytes | None:
        values = self.values(name)
        assert len(values) <= 1, values
        return values[0] if values else None


class UpstreamPeer:
    """The upstream's end of one connection, for scripts."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self.buffer = b""

    def read_head(self) -> bytes | None:
        while b"\r\n\r\n" not in self.buffer:
            data = self._recv()
            if not data:
                return None
            self.buffer += data
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head

    def _recv(self) -> bytes:
        try:
            return self.sock.recv(65536)
        except OSError:
            return b""

    def read_exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            data = self._recv()
            if not data:
                break
            self.buffer += data
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def read_line(self) -> bytes | None:
        while b"\r\n" not in self.buffer:
            data = self._recv()
            if not data:
                return None
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def read_body(self, head: bytes) -> tuple[bytes, bytes, bool]:
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        if re.search(rb"\r\ntransfer-encoding: *chunked", head, re.IGNORECASE):
            body, trailers = b"", b""
            while True:
                line = self.read_line()
                if line is None or not re.fullmatch(rb"[0-9A-Fa-f]+", line):
                    return body, trailers, False
                size = int(line, 16)
                if size == 0:
                    while line := self.read_line():
                        trailers += line + b"\r\n"
                    return body, trailers, line is not None
                body += self.read_exactly(size)
                if self.read_line() != b"":
                    return body, trailers, False
        if length is None:
            return b"", b"", True
        body = self.read_exactly(int(length[1]))
        return body, b"", len(body) == int(length[1])

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def closed_by_door(self, timeout: float = TIMEOUT) -> bool:
        """Wait until the door closes this connection."""
        self.sock.settimeout(timeout)
        try:
            while self.sock.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def delay(seconds: float) -> None:
    """Take time on purpose: a slow peer is what is tested, not what is waited for."""
    threading.Event().wait(seconds)


Script = Callable[[UpstreamPeer, Received], bool | None]
"""Answers one request; returns True to go on with the connection."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class ScriptedUpstream:
    """Answers each path by its script (called with the head read, the body not); other paths get ``ok``."""

    def __init__(self) -> None:
        self.scripts: dict[bytes, Script] = {}
        self.requests: list[Received] = []
        self.connections = 0
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def on(self, path: str, script: Script | bytes) -> None:
        if isinstance(script, bytes):
            answer = script

            def send(peer: UpstreamPeer, request: Received) -> bool:
                _, _, complete = peer.read_body(request.head)
                peer.send(answer)
                return complete

            self.scripts[path.encode()] = send
        else:
            self.scripts[path.encode()] = script

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._open.add(sock)
            threading.Thread(target=self._serve, args=(UpstreamPeer(sock, self.connections),), daemon=True).start()

    def _serve(self, peer: UpstreamPeer) -> None:
        with contextlib.closing(peer.sock), contextlib.suppress(OSError):
            while (head := peer.read_head()) is not None:
                start = head.partition(b"\r\n")[0]
                request = Received(start, head, b"", False, peer.number)
                script = self.scripts.get(start.split(b" ")[1].partition(b"?")[0])
                if script is not None:
                    self._note(request)
                    if not script(peer, request):
                        return
                    continue
                request.body, request.trailers, request.complete = peer.read_body(head)
                self._note(request)
                if not request.complete:
                    return
                peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" if start.startswith(b"HEAD") else OK)
            self._open.discard(peer.sock)

    def _note(self, request: Received) -> None:
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    def wait_for(self, path: str, count: int = 1, timeout: float = TIMEOUT) -> list[Received]:
        """Wait until `count` requests of a path have come; return them."""
        wanted = path.encode()

        def found() -> list[Received]:
            return [r for r in self.requests if r.target.partition(b"?")[0] == wanted]

        with self._changed:
            self._changed.wait_for(lambda: len(found()) >= count, timeout)
            return found()

    def seen(self, path: str) -> list[Received]:
        with self._changed:
            return [r for r in self.requests if r.target.partition(b"?")[0] == path.encode()]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept(), which would serve one more
        self.listener.close()
        for sock in list(self._open):
            sock.close()


class Client:
    """A raw connection to the door."""

    def __init__(self, port: int, timeout: float = TIMEOUT) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def fill(self) -> bool:
        """Read once; False at the end of the stream (a reset counts as one)."""
        try:
            data = self.sock.recv(65536)
        except ConnectionError:
            return False
        self.buffer += data
        return bool(data)

    def until(self, mark: bytes) -> bytes:
        """Read up to and with `mark`."""
        while mark not in self.buffer:
            assert self.fill(), f"closed before {mark!r}: {self.buffer[:300]!r}"
        cut = self.buffer.index(mark) + len(mark)
        data, self.buffer = self.buffer[:cut], self.buffer[cut:]
        return data

    def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            assert self.fill(), f"closed after {len(self.buffer)} of {size}"
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def to_end(self) -> bytes:
        """Read to the end of the stream."""
        while self.fill():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def answer(self, method: str = "GET") -> Answer:
        """Read one answer."""
        head = self.until(b"\r\n\r\n")
        start, *lines = head[:-4].split(b"\r\n")
        fields = [(k.lower().decode(), v.strip()) for k, _, v in (line.partition(b":") for line in lines)]
        status = int(start.split(b" ")[1])
        answer = Answer(status, start, fields, b"", head)
        if method == "HEAD" or status in {101, 204, 304} or status < 200:
            return answer
        if answer.value("transfer-encoding") == b"chunked":
            while size := int(self.until(b"\r\n").partition(b";")[0], 16):
                answer.body += self.exactly(size)
                assert self.exactly(2) == b"\r\n"
            while (line := self.until(b"\r\n")) != b"\r\n":
                answer.trailers += line
        elif (length := answer.value("content-length")) is not None:
            answer.body = self.exactly(int(length))
        else:
            answer.body = self.to_end()
        return answer

    def ended(self) -> bool:
        """Wait for the end of the stream; False if something else comes."""
        try:
            return not self.fill()
        except TimeoutError:
            return False


@dataclass
class Answer:
    status: int
    start: bytes
    fields: list[tuple[str, bytes]]
    body: bytes
    head: bytes
    trailers: bytes = b""

    def values(self, name: str) -> list[bytes]:
        return [value for key, value in self.fields if key == name]

    def value(self, name: str) -> bytes | None:
        values = self.values(name)
        assert len(values) <= 1, values
        return values[0] if values else None


class DoorProcess:
    """A door in a process of its own."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fairway.proxy", *("--listen", "127.0.0.1:0"), *arguments],
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
        assert self.process.stderr is not None
        self.lines: list[bytes] = []
        self.ports: list[int] = []
        wanted = 1 + ("--tls-listen" in arguments)
        while len(self.ports) < wanted:
            line = self.process.stderr.readline()
            if not line:
                self.process.wait(10)
                self.process.stderr.close()
                raise AssertionError(b"".join(self.lines).decode())
            self.lines.append(line)
            if match := re.search(rb"listening on .*:(\d+)", line):
                self.ports.append(int(match[1]))
        self.port = self.ports[0]
        self._reader = threading.Thread(target=self._drain_errors, daemon=True)
        self._reader.start()

    def _drain_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    def connect(self, timeout: float = TIMEOUT) -> Client:
        return Client(self.port, timeout)

    def ask(self, data: bytes, method: str = "GET") -> Answer:
        """Send bytes on a fresh connection, read one answer."""
        with self.connect() as client:
            client.send(data)
            return client.answer(method)

    def refused(self, data: bytes, timeout: float = TIMEOUT) -> Answer:
        """Send bytes on a fresh connection, read one answer, and hold the door to closing behind it."""
        with self.connect(timeout) as client:
            client.send(data)
            answer = client.answer()
            assert answer.value("connection") == b"close", answer.head
            assert client.ended(), "the connection stays open"
            assert not client.buffer
            return answer

    def rss_bytes(self) -> int:
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def errors(self) -> str:
        return b"".join(self.lines[len(self.ports) :]).decode()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return self.process.returncode


def get(path: str, *fields: bytes | str, method: str = "GET", version: str = "1.1", host: str = "app.test") -> bytes:
    """Render a request."""
    lines = [f"{method} {path} HTTP/{version}".encode(), b"Host: " + host.encode()]
    lines.extend(item.encode("latin-1") if isinstance(item, str) else item for item in fields)
    return b"\r\n".join(lines) + b"\r\n\r\n"
