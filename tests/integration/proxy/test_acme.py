"""An ACME order over HTTP-01 through a running door, against a small authority of the tests' own."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from door_peers import DoorProcess, ScriptedUpstream, get

from fairway.proxy.acme import AcmeOptions, needs_renewal, obtain_certificate
from fairway.proxy.errors import CertificateError

pytestmark = pytest.mark.integration
pytest.importorskip("acme")

from acme_stub import AcmeStub  # noqa: E402  # needs the extra


def options(stub: AcmeStub, folder: Path) -> AcmeOptions:
    return AcmeOptions(
        directory=stub.url + "/directory",
        challenges=folder / "challenges",
        certificates=folder / "certificates",
        account_key=folder / "account" / "key.pem",
        email="ops@app.test",
        timeout=10.0,
    )


def test_a_certificate_is_ordered_through_the_door(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    door = DoorProcess(
        *("--route", f"app.test=127.0.0.1:{upstream.port}", "--acme-challenges", str(tmp_path / "challenges"))
    )
    stub = AcmeStub(door.port)
    try:
        chosen = options(stub, tmp_path)
        for _ in range(2):  # the second order finds the account that the first one made
            path = obtain_certificate(["app.test", "www.app.test"], chosen)
        assert stub.faults == []
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, path.with_suffix(".key"))
        for file in (path.with_suffix(".key"), chosen.account_key):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert list(chosen.challenges.iterdir()) == []
        assert not needs_renewal(path)
        assert needs_renewal(path, datetime.now(UTC) + timedelta(days=61))
        assert needs_renewal(tmp_path / "none.crt")
        answer = door.ask(get("/.well-known/acme-challenge/unknown"))
        assert answer.body == b"ok", "what is no challenge of ours goes to the app"
        assert door.ask(get("/.well-known/acme-challenge/../account/key.pem")).status == 200
        assert upstream.requests[-1].target == b"/.well-known/acme-challenge/../account/key.pem"
    finally:
        stub.close()
        door.stop()
    assert "Traceback" not in door.errors(), door.errors()


def test_refusals_are_clear(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    stub = AcmeStub(upstream.port)  # looks where the token is not
    try:
        chosen = options(stub, tmp_path)
        with pytest.raises(CertificateError, match=r"app\.test"):
            obtain_certificate(["app.test"], chosen)
        assert list(chosen.challenges.iterdir()) == []
        for names in (["*.app.test"], ["a/b"], ["../x"], []):
            with pytest.raises(CertificateError, match="expected"):
                obtain_certificate(names, chosen)
    finally:
        stub.close()
    with pytest.raises(CertificateError, match="127"):
        obtain_certificate(["app.test"], chosen)
