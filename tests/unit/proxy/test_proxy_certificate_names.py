"""The names of a certificate, read without the library that would cost every worker 10 MiB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fairway.proxy import tls
from fairway.proxy.devca import DevelopmentAuthority

NAMES = ["go-api.localhost", "*.shop.localhost"]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return DevelopmentAuthority(tmp_path / "authority").issue(NAMES, tmp_path / "pairs")


def test_both_ways_give_the_same_names(certificate: Path) -> None:
    assert tls._names_of(certificate) == tls._names_by_cryptography(certificate) == NAMES


def test_without_the_interpreters_parser_the_library_is_asked(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("_ssl._test_decode_cert")
    assert tls._names_of(certificate) == NAMES


def test_the_library_is_not_imported(certificate: Path) -> None:
    script = """
import sys
from pathlib import Path
from fairway.proxy.tls import CertificateStore
store = CertificateStore(Path(sys.argv[1]))
assert store.find("go-api.localhost") is store.find("x.shop.localhost")
print("cryptography" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(certificate.parent)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize("content", [b"", b"none", b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.crt").write_bytes(content)
    with pytest.raises((OSError, ValueError)):
        tls._names_of(tmp_path / "x.crt")
