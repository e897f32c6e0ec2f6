"""A small ACME authority (RFC 8555) for tests: it checks signatures, nonces and the HTTP-01 answer, and signs."""

from __future__ import annotations

import base64
import hashlib
import http.client
import itertools
import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID


def unpack(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def pack(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class AcmeStub:
    """One account, one order at a time. `door_port` is where it looks for the challenge."""

    def __init__(self, door_port: int) -> None:
        self.door_port = door_port
        self.token = pack(hashlib.sha256(b"token").digest())
        self._numbers = itertools.count()
        self.nonces: set[str] = set()
        self.account: dict[str, Any] | None = None
        self.names: list[str] = []
        self.validated = False
        self.chain = ""
        self.faults: list[str] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                stub.reply(self, 200, stub.directory())

            def do_HEAD(self) -> None:
                stub.reply(self, 200, None)

            def do_POST(self) -> None:
                stub.post(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    def directory(self) -> dict[str, Any]:
        return {
            "newNonce": f"{self.url}/nonce",
            "newAccount": f"{self.url}/account",
            "newOrder": f"{self.url}/order",
            "revokeCert": f"{self.url}/revoke",
            "keyChange": f"{self.url}/key",
            "meta": {},
        }

    def reply(self, handler: Any, status: int, body: Any, **fields: str) -> None:
        nonce = pack(b"%09d" % next(self._numbers))
        self.nonces.add(nonce)
        data = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Replay-Nonce", nonce)
        handler.send_header("Content-Length", str(len(data)))
        kind = "application/pem-certificate-chain" if isinstance(body, str) else "application/json"
        handler.send_header("Content-Type", "application/problem+json" if status >= 400 else kind)
        for name, value in fields.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    def post(self, handler: Any, message: dict[str, str]) -> None:
        head = json.loads(unpack(message["protected"]))
        payload = json.loads(unpack(message["payload"]) or b"null")
        if head["nonce"] not in self.nonces or head["url"] != self.url + handler.path:
            self.faults.append(f"bad nonce or URL at {handler.path}")
        self.nonces.discard(head["nonce"])
        jwk = head.get("jwk") or (self.account or {}).get("jwk")
        number = rsa.RSAPublicNumbers(*(int.from_bytes(unpack(jwk[name]), "big") for name in ("e", "n")))
        signed = f"{message['protected']}.{message['payload']}".encode()
        number.public_key().verify(unpack(message["signature"]), signed, padding.PKCS1v15(), hashes.SHA256())
        getattr(self, "on_" + handler.path.strip("/"))(handler, payload, jwk)

    def on_account(self, handler: Any, payload: Any, jwk: dict[str, str]) -> None:
        known = self.account is not None
        self.account = {"jwk": jwk}
        self.reply(handler, 200 if known else 201, {"status": "valid", "contact": []}, Location=f"{self.url}/account1")

    def on_account1(self, handler: Any, payload: Any, jwk: dict[str, str]) -> None:
        self.reply(handler, 200, {"status": "valid"}, Location=f"{self.url}/account1")

    def order(self) -> dict[str, Any]:
        order: dict[str, Any] = {
            "status": "valid" if self.chain else ("ready" if self.validated else "pending"),
            "identifiers": [{"type": "dns", "value": name} for name in self.names],
            "authorizations": [f"{self.url}/authorization"],
            "finalize": f"{self.url}/finalize",
        }
        if self.chain:
            order["certificate"] = f"{self.url}/certificate"
        return order

    def on_order(self, handler: Any, payload: Any, jwk: dict[str, str]) -> None:
        self.names = [each["value"] for each in payload["identifiers"]]
        self.validated, self.chain = False, ""
        self.reply(handler, 201, self.order(), Location=f"{self.url}/order1")

    def on_order1(self, handler: Any, payload: Any, jwk: dict[str, str]) -> None:
        self.reply(handler, 200, self.order(), Location=f"{self.url}/order1")

    def challenge(self) -> dict[str, Any]:
        status = "valid" if self.validated else ("invalid" if self.faults else "pending")
        challenge: dict[str, Any] = {
            "type": "http-01",
            "url": f"{self.url}/challenge",
            "status": status,
            "token": self.token,
        }
        if self.faults:
            challenge["error"] = {"type": "urn:ietf:params:acme:error:unauthorized", "detail": self.faults[-1]}
        return challenge

    def on_authorization(self, handler: Any, payload: Any, jwk: dict[str, str]) -> None:
        body = {
            "status": "valid" if self.validated else ("invalid" if self.faults else "pending"),
            "identifier": {"type": "dns", "value": self.names[0]},
            "challenges": [self.challenge()],
        }
        self.reply(handler, 200, body)

    def on_challenge(self, handler: Any, payload: Any, jwk: dict[str, str]) -> None:
        thumbprint = json.dumps({name: jwk[name] for name in ("e", "kty", "n")}, separators=(",", ":")).encode()
        wanted = f"{self.token}.{pack(hashlib.sha256(thumbprint).digest())}".encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.door_port, timeout=5)
        connection.request("GET", f"/.well-known/acme-challenge/{self.token}", headers={"Host": self.names[0]})
        answer = connection.getresponse()
        came = answer.read()
        connection.close()
        self.validated = answer.status == 200 and came == wanted
        if not self.validated:
            self.faults.append(f"challenge answered with {answer.status} {came!r}")
        self.reply(handler, 200, self.challenge(), Link=f'<{self.url}/authorization>;rel="up"')

    def on_finalize(self, handler: Any, payload: Any, jwk: dict[str, str]) -> None:
        if not self.validated:
            problem = {"type": "urn:ietf:params:acme:error:orderNotReady", "detail": "not proved", "status": 403}
            self.reply(handler, 403, problem)
            return
        request = x509.load_der_x509_csr(unpack(payload["csr"]))
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stub")]))
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=90))
        )
        for extension in request.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        signed = builder.sign(key, hashes.SHA256())
        self.chain = signed.public_bytes(serialization.Encoding.PEM).decode()
        self.reply(handler, 200, self.order(), Location=f"{self.url}/order1")

    def on_certificate(self, handler: Any, payload: Any, jwk: dict[str, str]) -> None:
        self.reply(handler, 200, self.chain)
