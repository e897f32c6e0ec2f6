"""Certificates from an ACME authority over HTTP-01, by certbot's own library (the ``acme`` extra).

The library speaks the protocol; this file lays its answers where the door serves and reads them: tokens into the
challenge folder, the certificate and its key into the certificate folder. It blocks: call it in a thread or a process
of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from fairway.proxy.devca import write_private
from fairway.proxy.errors import CertificateError

RENEW_BEFORE: Final = timedelta(days=30)
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")
_NAME: Final = re.compile(r"(?!-)[a-z0-9.-]{1,253}\Z")


class AcmeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where to ask and where to put things.

    Attributes:
        directory: URL of the authority's directory.
        challenges: Folder that the door serves (its ``--acme-challenges``).
        certificates: Folder that the door reads (its ``--certificates``).
        account_key: PEM file of the account's key, made on first use.
        email: Contact for the account, or None.
        trust: PEM file with the authority's own TLS root, for private ones, or None for the system's.
        timeout: Seconds for the whole order.
    """

    directory: str = "https://acme-v02.api.letsencrypt.org/directory"
    challenges: Path
    certificates: Path
    account_key: Path
    email: str | None = None
    trust: Path | None = None
    timeout: float = 120.0


def needs_renewal(certificate: Path, now: datetime | None = None) -> bool:
    """Tell whether a certificate is missing, unreadable or ends within 30 days."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError):
        return True
    return found.not_valid_after_utc - (now or datetime.now(UTC)) < RENEW_BEFORE


def obtain_certificate(names: Sequence[str], options: AcmeOptions) -> Path:
    """Order a certificate for `names`; return its path, ``FIRST_NAME.crt``, once it and its key are in place.

    Tokens are removed from the challenge folder whether it works or not. Tell the door to reload afterwards.

    Raises:
        CertificateError: If a name cannot be ordered, the authority refuses, or the ``acme`` extra is missing.
    """
    for name in names:
        if not _NAME.match(name) or ".." in name or name.startswith("*"):
            raise CertificateError(f"expected host names that HTTP-01 can prove (no wildcard), got {name!r}")
    if not names:
        raise CertificateError("expected at least one host name, got none")
    try:
        from acme import client, errors, messages
        from requests.exceptions import RequestException
    except ImportError as error:
        raise CertificateError("the acme library is not installed", hint="pip install 'fairway[acme]'") from error
    laid: list[Path] = []
    try:
        key = _account_key(options.account_key)
        verify: Any = str(options.trust) if options.trust else True  # requests takes a file here too
        network = client.ClientNetwork(key, user_agent="fairway", verify_ssl=verify)
        directory = client.ClientV2.get_directory(options.directory, network)
        authority = client.ClientV2(directory, network)
        contact = (f"mailto:{options.email}",) if options.email else ()
        _register(authority, messages.NewRegistration(contact=contact, terms_of_service_agreed=True), errors)
        private, request = _signing_request(names)
        order = authority.new_order(request)
        for authorization in order.authorizations:
            _answer(authority, authorization, key, options.challenges, laid)
        deadline = datetime.now() + timedelta(seconds=options.timeout)  # the library compares naively
        done = authority.poll_and_finalize(order, deadline=deadline)
    except (errors.Error, RequestException, OSError, ValueError) as error:
        wanted = ", ".join(names)
        raise CertificateError(f"expected a certificate for {wanted} from {options.directory}: {error}") from error
    finally:
        for path in laid:
            path.unlink(missing_ok=True)
    options.certificates.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = options.certificates / f"{names[0]}.crt"
    write_private(path.with_suffix(".key"), private)
    write_private(path, done.fullchain_pem.encode("ascii"))
    return path


def _account_key(path: Path) -> Any:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from josepy.jwk import JWKRSA

    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(path, pem)
    return JWKRSA(key=serialization.load_pem_private_key(path.read_bytes(), password=None))


def _register(authority: Any, registration: Any, errors: Any) -> None:
    try:
        authority.new_account(registration)
    except errors.ConflictError as known:
        # The key has an account already: the library wants to be told where it is.
        from acme import messages

        found = messages.RegistrationResource(uri=known.location, body=messages.Registration())
        authority.net.account = authority.query_registration(found)


def _signing_request(names: Sequence[str]) -> tuple[bytes, bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, request.public_bytes(serialization.Encoding.PEM)


def _answer(authority: Any, authorization: Any, key: Any, folder: Path, laid: list[Path]) -> None:
    from acme import challenges, messages

    if authorization.body.status == messages.STATUS_VALID:
        return
    for offered in authorization.body.challenges:
        if isinstance(offered.chall, challenges.HTTP01):
            token = offered.chall.encode("token")
            if not _TOKEN.match(token):
                raise CertificateError(f"expected a challenge token of URL-safe characters, got {token!r}")
            response, validation = offered.response_and_validation(key)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = folder / token
            laid.append(path)
            write_private(path, validation.encode("ascii"))
            authority.answer_challenge(offered, response)
            return
    raise CertificateError(f"expected an HTTP-01 challenge for {authorization.body.identifier.value}, got none")
