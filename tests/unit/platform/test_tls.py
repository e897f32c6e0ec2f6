"""Which certificates the door gets, and when."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fairway.platform.tls import Certificates, TlsConfig, TlsError, authority_folder, is_public, retry_pause
from fairway.proxy.devca import DevelopmentAuthority
from fairway.proxy.errors import CertificateError
from fairway.proxy.tls import CertificateStore


@pytest.fixture
def given(tmp_path: Path) -> TlsConfig:
    made = DevelopmentAuthority(tmp_path / "own").issue(["a.localhost"], tmp_path / "site")
    return TlsConfig(certificate=made, key=made.with_suffix(".key"))


def test_names_under_localhost_are_covered_once(tmp_path: Path) -> None:
    certificates = Certificates(TlsConfig(authority=tmp_path / "authority"), tmp_path / "tls")
    certificates.prepare()
    assert certificates.needs(["a.localhost", "shop.example.com", "localhost"]) == ["a.localhost"]
    assert certificates.cover(["a.localhost", "shop.example.com"])
    assert not certificates.cover(["a.localhost"])
    assert certificates.needs(["a.localhost"]) == []
    assert "'a.localhost', 'localhost'" in repr(CertificateStore(certificates.folder))
    for path in (certificates.folder, certificates.challenges, certificates.folder.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    root = certificates.config.root
    assert root == tmp_path / "authority" / "authority.crt"
    assert root.exists()


def test_a_new_authority_signs_anew(tmp_path: Path) -> None:
    config = TlsConfig(authority=tmp_path / "authority")
    for _ in range(2):
        Certificates(config, tmp_path / "tls").prepare()
    pair = tmp_path / "tls" / "development" / "localhost.crt"
    first = pair.read_bytes()
    Certificates(config, tmp_path / "tls").prepare()
    assert pair.read_bytes() == first
    assert config.root is not None
    config.root.unlink()
    Certificates(config, tmp_path / "tls").prepare()
    assert pair.read_bytes() != first
    assert pair.read_bytes().endswith(config.root.read_bytes())


def test_the_operators_pair_is_taken_over_whole(given: TlsConfig, tmp_path: Path) -> None:
    assert given.certificate is not None
    assert given.key is not None
    assert given.root is None
    certificates = Certificates(given, tmp_path / "tls")
    certificates.check()
    certificates.prepare()
    copied = certificates.folder / "given.key"
    assert stat.S_IMODE(copied.stat().st_mode) == 0o600
    assert not certificates.changed()
    assert certificates.needs(["b.localhost"]) == []
    assert not certificates.cover(["b.localhost"])

    old = copied.read_bytes()
    other = DevelopmentAuthority(tmp_path / "own").issue(["b.localhost"], tmp_path / "other")
    given.key.write_bytes(other.with_suffix(".key").read_bytes())
    assert not certificates.changed(), "the key does not fit the certificate yet"
    assert copied.read_bytes() == old
    given.certificate.write_bytes(other.read_bytes())
    assert certificates.changed()
    assert copied.read_bytes() != old
    assert not certificates.changed()
    os.unlink(given.certificate)
    assert not certificates.changed()


def test_files_that_cannot_be_used_are_named(given: TlsConfig, tmp_path: Path) -> None:
    nothing = TlsConfig(certificate=tmp_path / "none.crt", key=given.key)
    with pytest.raises(TlsError, match=r"none\.crt"):
        Certificates(nothing, tmp_path / "tls").check()
    with pytest.raises(TlsError, match="key beside"):
        Certificates(TlsConfig(certificate=given.certificate), tmp_path / "tls").check()


def test_public_names_are_due_at_first_and_after_a_pause(tmp_path: Path) -> None:
    certificates = Certificates(TlsConfig(acme="a@example.com", authority=tmp_path / "authority"), tmp_path / "tls")
    hosts = ["shop.example.com", "a.localhost", "localhost", "10.0.0.1", "*.example.com", "*", "internal"]
    assert certificates.due(hosts, 0.0) == ["shop.example.com"]
    assert [is_public(host) for host in ("example.com", "::1", "1.2.3.4")] == [True, False, False]


@pytest.mark.parametrize(("failures", "minutes"), [(1, 5), (2, 10), (3, 20), (8, 360), (1000, 360)])
def test_a_failed_order_waits_ever_longer(failures: int, minutes: int) -> None:
    assert retry_pause(failures) == minutes * 60.0


def test_the_authority_is_the_users_own() -> None:
    assert authority_folder({"HOME": "/HOME"}) == Path("/HOME/.local/share/fairway/authority")
    assert authority_folder({"HOME": "/HOME", "XDG_DATA_HOME": "/d"}) == Path("/d/fairway/authority")


def test_certificates_are_made_elsewhere(tmp_path: Path) -> None:
    """In the daemon itself, the library would stay in memory for good."""
    script = """
import sys
from pathlib import Path
from fairway.platform.tls import Certificates, TlsConfig
found = Certificates(TlsConfig(authority=Path(sys.argv[1]) / "own"), Path(sys.argv[1]) / "tls")
assert found.cover(["a.localhost", "b.localhost"])
print("cryptography" in sys.modules, sorted(path.name for path in found.folder.iterdir()))
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "False ['a.localhost.crt', 'a.localhost.key', 'b.localhost.crt', 'b.localhost.key']\n"


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "development").touch()
    certificates = Certificates(TlsConfig(authority=tmp_path / "own"), tmp_path / "tls")
    with pytest.raises(CertificateError, match="expected to write a certificate"):
        certificates.cover(["a.localhost"])
