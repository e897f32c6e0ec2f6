"""A certificate authority for development on this machine: ``https://app.localhost`` without a warning.

The authority's certificate has to be added to the browser's or the system's trust store by hand, once; nothing here
does that. It is constrained to ``localhost`` names, so that a stolen key is of no use against other sites. Each host is
named: OpenSSL and browsers take no wildcard directly under a top-level name such as ``*.localhost``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fairway.proxy.errors import CertificateError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

AUTHORITY_DAYS: Final = 3650
LEAF_DAYS: Final = 397
_RENEW_BEFORE: Final = timedelta(days=30)


class DevelopmentAuthority:
    """A folder with ``authority.crt`` and ``authority.key``, made on first use; keys are 0600, the folder 0700."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.certificate_path = folder / "authority.crt"
        self._key_path = folder / "authority.key"

    def __repr__(self) -> str:
        return f"<DevelopmentAuthority {self._folder}>"

    def issue(self, names: Sequence[str], folder: Path) -> Path:
        """Write ``NAME.crt`` and ``NAME.key`` for `names` into `folder`; return the certificate's path.

        A pair of this authority that names all of them and lasts another 30 days is left alone. ``*.`` in a file name
        becomes ``_.``.

        Raises:
            CertificateError: If a name is not ``localhost`` or under it, or files cannot be written.
        """
        for name in names:
            bare = name.removeprefix("*.")
            if bare != "localhost" and not bare.endswith(".localhost"):
                raise CertificateError(f"expected names under localhost, got {name!r}")
        if not names:
            raise CertificateError("expected at least one name, got none")
        path = folder / (names[0].replace("*", "_") + ".crt")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            authority = self._load_or_make()
            if not _covers(path, names, authority[0]):
                self._write_leaf(names, path, authority)
        except (OSError, ValueError) as error:
            raise CertificateError(f"expected to write a certificate to {folder}, got: {error}") from error
        return path

    @staticmethod
    def _write_leaf(
        names: Sequence[str], path: Path, signer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey]
    ) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        authority, authority_key = signer
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]))
            .issuer_name(authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=LEAF_DAYS))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
        )
        leaf = builder.sign(authority_key, hashes.SHA256())
        write_private(path.with_suffix(".key"), _pem(key))
        chain = leaf.public_bytes(serialization.Encoding.PEM) + authority.public_bytes(serialization.Encoding.PEM)
        write_private(path, chain)

    def _load_or_make(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        if self.certificate_path.exists() and self._key_path.exists():
            loaded = serialization.load_pem_private_key(self._key_path.read_bytes(), password=None)
            if not isinstance(loaded, ec.EllipticCurvePrivateKey):
                raise CertificateError(f"expected an elliptic-curve key at {self._key_path}")
            return x509.load_pem_x509_certificate(self.certificate_path.read_bytes()), loaded
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Fairway development authority")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.NameConstraints(permitted_subtrees=[x509.DNSName("localhost")], excluded_subtrees=None),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_signing_only(), critical=True)
            .sign(key, hashes.SHA256())
        )
        write_private(self._key_path, _pem(key))
        write_private(self.certificate_path, certificate.public_bytes(serialization.Encoding.PEM))
        return certificate, key


def write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 in one step, so that no reader sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _signing_only() -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _covers(path: Path, names: Sequence[str], authority: x509.Certificate) -> bool:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    if not path.exists() or not path.with_suffix(".key").exists():
        return False
    found = x509.load_pem_x509_certificate(path.read_bytes())
    if found.not_valid_after_utc - datetime.now(UTC) < _RENEW_BEFORE:
        return False
    try:
        found.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False  # of an authority that was there before
    alternative = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names) <= set(alternative.get_values_for_type(x509.DNSName))


def main(arguments: Sequence[str]) -> int:
    """Make certificates: ``python -m fairway.proxy.devca AUTHORITY FOLDER NAME…``, one pair a name; return the status.

    Args:
        arguments: Folder of the authority, folder of the pairs, names.
    """
    authority, folder, *names = arguments
    try:
        for name in names:
            DevelopmentAuthority(Path(authority)).issue([name], Path(folder))
    except CertificateError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
