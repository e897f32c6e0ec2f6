"""Certificates from files: one context a pair, chosen by SNI, read again without a restart.

HTTP/2 is not spoken here: NGINX in front speaks it to clients where it is wanted, and the door is told so by ALPN.
"""

from __future__ import annotations

import _ssl
import ssl
from pathlib import Path

from fairway.proxy.errors import CertificateError


class CertificateStore:
    """The pairs ``NAME.crt`` and ``NAME.key`` of a folder.

    `context` is what a listener is opened with; the pair of each connection is chosen in its handshake, so that
    `reload` takes effect for the next connection and disturbs none.

    Args:
        folder: Where the pairs are. ``.crt`` holds the certificate and its chain in PEM.

    Raises:
        CertificateError: If there is no usable pair.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_name: dict[str, ssl.SSLContext] = {}
        self._default: ssl.SSLContext | None = None
        self.context = _new_context()
        self.context.sni_callback = self._choose
        self.reload()

    def __repr__(self) -> str:
        return f"<CertificateStore {self._folder} names={sorted(self._by_name)}>"

    def reload(self) -> int:
        """Read every pair again; return how many are in force. A pair that cannot be read leaves all as they were.

        Raises:
            CertificateError: If a pair cannot be used, or there is none.
        """
        by_name: dict[str, ssl.SSLContext] = {}
        default: ssl.SSLContext | None = None
        count = 0
        for certificate in sorted(self._folder.glob("*.crt")):
            key = certificate.with_suffix(".key")
            context = _new_context()
            try:
                context.load_cert_chain(certificate, key)
                names = _names_of(certificate)
            except (OSError, ssl.SSLError, ValueError) as error:
                raise CertificateError(
                    f"expected a certificate and its key at {certificate} and {key.name}, got: {error}"
                ) from error
            count += 1
            default = default or context
            for name in names:
                by_name[name] = context
        if default is None:
            raise CertificateError(f"expected NAME.crt and NAME.key in {self._folder}, got no .crt file")
        self._by_name, self._default = by_name, default
        return count

    def find(self, name: str | None) -> ssl.SSLContext | None:
        """Return the context for a server name: exact, then wildcard, then the first pair."""
        if name:
            lower = name.lower().rstrip(".")
            found = self._by_name.get(lower) or self._by_name.get("*." + lower.partition(".")[2])
            if found is not None:
                return found
        return self._default

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        chosen = self.find(name)
        if chosen is not None:
            connection.context = chosen


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


def _names_of(certificate: Path) -> list[str]:
    """Return the DNS names of a certificate in PEM. Raises `OSError` or `ValueError` where it is none."""
    decode = getattr(_ssl, "_test_decode_cert", None)
    if decode is None:
        return _names_by_cryptography(certificate)
    # Not public, but in every CPython since 2.6; cryptography, which says the same, costs each worker 10 MiB.
    alternatives: tuple[tuple[str, str], ...] = decode(str(certificate)).get("subjectAltName", ())
    return [name.lower() for kind, name in alternatives if kind == "DNS"]


def _names_by_cryptography(certificate: Path) -> list[str]:
    from cryptography import x509

    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in names.get_values_for_type(x509.DNSName)]
