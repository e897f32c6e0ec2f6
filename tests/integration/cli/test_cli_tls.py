"""HTTPS, and what a registry entry asks of the door, as a user of `fairway up` meets them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from cli_project import Project, free_ports, until

from fairway.proxy.devca import DevelopmentAuthority

pytestmark = pytest.mark.integration


class Answer:
    """One answer of the door: status, header fields in lower case, body."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        self.status = int(line.split()[1])
        self.fields = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}


def ask(
    port: int, host: str, path: str = "/", *, root: Path | None = None, head: str = "", method: str = "GET"
) -> Answer:
    """Ask the door at `port` for a host, over TLS that is checked against `root` where that is given."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        context = ssl.create_default_context(cafile=root) if root is not None else None
        link = context.wrap_socket(plain, server_hostname=host) if context is not None else plain
        link.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{head}\r\n".encode())
        raw = b""
        while piece := link.recv(65536):
            raw += piece
        if context is not None:
            link.close()
    return Answer(raw)


def scrape(project: Project) -> str:
    token = (project.root / ".fairway/token").read_text().strip()
    request = urllib.request.Request(
        f"http://127.0.0.1:{project.api}/metrics", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def hash_of(project: Project, password: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fairway", "door", "hash"],
        input=f"{password}\n",
        env=project.env,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_https_and_the_doors_section(project: Project) -> None:
    (tls,) = free_ports(1)
    project.add("hello")
    entry = project.root / "compose/app-registry/hello.yaml"
    plain = entry.read_text()
    hashed = hash_of(project, "open sesame")
    section = {
        "aliases": ["www.hello.localhost", "other.test"],
        "redirect": ["https", "aliases"],
        "basic_auth": {"ann": hashed},
        "methods": ["GET"],
    }
    entry.write_text(f"{plain}door: {json.dumps(section)}\n")
    shown = project.fairway("up", "-d", "--tls", f"--tls-listen=127.0.0.1:{tls}", "--workers=2", *project.listen)
    assert f"https://hello.localhost:{tls}" in shown
    root = project.root / ".data/fairway/authority/authority.crt"
    assert f"curl --cacert {root}" in shown

    ann = "Authorization: Basic " + base64.b64encode(b"ann:open sesame").decode() + "\r\n"
    right = ask(tls, "hello.localhost", "/x", root=root, head=ann)
    assert (right.status, json.loads(right.body)["path"]) == (200, "/x")
    assert ask(tls, "hello.localhost", root=root).status == 401
    assert ask(tls, "hello.localhost", root=root, head=ann, method="DELETE").status == 404
    moved = ask(project.door, "hello.localhost", "/a?b=c")
    assert (moved.status, moved.fields["location"]) == (308, f"https://hello.localhost:{tls}/a?b=c")
    for alias in ("www.hello.localhost", "other.test"):
        moved = ask(project.door, alias, "/a")
        assert (moved.status, moved.fields["location"]) == (308, f"https://hello.localhost:{tls}/a")
    assert ask(tls, "www.hello.localhost", root=root).status == 308
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(
            tls,
            "hello.localhost",
            root=Path(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"),
        )

    for private in (root.with_suffix(".key"), *(project.root / ".fairway/tls").rglob("*.key")):
        assert stat.S_IMODE(private.stat().st_mode) == 0o600, private
    assert stat.S_IMODE((project.root / ".fairway/tls").stat().st_mode) == 0o700
    until(lambda: '"target":"/x"' in project.fairway("logs", "_door", "--raw"))
    assert "/x" not in project.fairway("logs", "hello", "--grep", "_door")
    assert '"route":' not in project.fairway("logs"), "the door's own log is shown to those who ask for it"
    text = scrape(project)
    samples = [line for line in text.splitlines() if line.startswith("fairway_door_requests_total{")]
    served = [line for line in samples if 'route="hello"' in line and 'status="2xx"' in line]
    assert sum(float(line.split()[-1]) for line in served) == 1.0
    for worker in (0, 1):
        assert f'fairway_door_latency_seconds_bucket{{le="+Inf",route="hello",worker="{worker}"}}' in text
    assert text.count("# TYPE fairway_door_latency_seconds histogram") == 1

    # The section changes without a restart of the app.
    before = project.json("ps", "-a")[0]["instances"]
    entry.write_text(f"{plain}door: {{rate: 0.1, burst: 2}}\n")
    until(lambda: ask(tls, "hello.localhost", root=root).status == 429)
    assert [i["pid"] for i in project.json("ps", "-a")[0]["instances"]] == [i["pid"] for i in before]


def test_a_certificate_of_ones_own_is_read_again_when_it_changes(project: Project) -> None:
    (tls,) = free_ports(1)
    authority = DevelopmentAuthority(project.root / "own")
    certificate, key = project.root / "site.crt", project.root / "site.key"

    def issue(name: str) -> None:
        made = authority.issue([name], project.root / name)
        shutil.copy(made.with_suffix(".key"), key)
        shutil.copy(made, certificate)

    issue("a.localhost")
    project.add("hello")
    given = [f"--tls-listen=127.0.0.1:{tls}", f"--tls-cert={certificate}", f"--tls-key={key}"]
    shown = project.fairway("up", "-d", *given, *project.listen)
    assert f"https://hello.localhost:{tls}" in shown
    assert "--cacert" not in shown
    root = authority.certificate_path
    assert ask(tls, "a.localhost", root=root).status == 404
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(tls, "b.localhost", root=root)
    key.write_text("half of a ")  # changes nothing
    issue("b.localhost")

    def changed() -> bool:
        try:
            return ask(tls, "b.localhost", root=root).status == 404
        except ssl.SSLCertVerificationError:
            return False

    until(changed)
    assert project.fairway("down") == "Stopped.\n"

    key.write_text("no key")
    project.fairway("up", "-d", *given, *project.listen, status=1)
    project.fairway("up", "-d", f"--tls-cert={certificate}", *project.listen, status=2)
    assert project.fairway("down").startswith("Nothing runs")


def test_a_public_name_gets_its_certificate_over_acme(project: Project) -> None:
    pytest.importorskip("acme")
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "proxy"))
    from acme_stub import AcmeStub

    (tls,) = free_ports(1)
    project.add("hello")
    entry = project.root / "compose/app-registry/hello.yaml"
    entry.write_text(entry.read_text() + "backend: {domain: shop.example.test}\ndoor: {redirect: [https]}\n")
    stub = AcmeStub(project.door)
    try:
        project.fairway(
            *("up", "-d", "--acme=ops@example.test", f"--acme-directory={stub.url}/directory"),
            *(f"--tls-listen=127.0.0.1:{tls}", *project.listen),
        )
        pair = project.root / ".fairway/tls/acme/shop.example.test.crt"
        until(pair.exists)
        assert stub.faults == []

        def served() -> bool:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the stub's root is in no store
            with socket.create_connection(("127.0.0.1", tls), timeout=10) as plain:
                with context.wrap_socket(plain, server_hostname="shop.example.test") as link:
                    return ssl.DER_cert_to_PEM_cert(link.getpeercert(True) or b"").strip() in pair.read_text()

        until(served)
        assert ask(project.door, "shop.example.test").status == 308
        assert ask(tls, "localhost", root=project.root / ".data/fairway/authority/authority.crt").status == 404
    finally:
        stub.close()
