"""Basic authentication: scrypt hashes, compared in constant time, verified once a minute and client.

scrypt is slow on purpose (about 50 ms), far too slow for the data path of every request. A verified pair of user and
password is remembered for `CACHE_S` seconds under a keyed digest, so that neither a password nor anything to guess it
from lies in memory. What failed is remembered the same way, and new guesses beyond `GUESSES_PER_S` a second are
refused unseen, so that guessing cannot stop the door.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections import OrderedDict
from typing import Final

from fairway.proxy.routes import BasicAuth

CACHE_S: Final = 60.0
GUESSES_PER_S: Final = 5
_REMEMBERED: Final = 1024
_MAX_MEMORY: Final = 64 * 1024 * 1024
_KEY: Final = os.urandom(32)


def hash_password(password: str, *, n: int = 16384, r: int = 8, p: int = 1) -> str:
    """Return ``scrypt$n$r$p$salt$hash`` for a route's `BasicAuth.users`.

    Args:
        password: Any text.
        n: CPU and memory cost, a power of two.
        r: Block size.
        p: Parallelisation.
    """
    salt = os.urandom(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=_MAX_MEMORY, dklen=32)
    return f"scrypt${n}${r}${p}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def verify_password(password: bytes, stored: str) -> bool:
    """Check a password against a hash of `hash_password`, in constant time; False for a hash it cannot read."""
    try:
        _, n, r, p, salt, wanted = stored.split("$")
        digest = hashlib.scrypt(
            password, salt=base64.b64decode(salt), n=int(n), r=int(r), p=int(p), maxmem=_MAX_MEMORY, dklen=32
        )
        return hmac.compare_digest(digest, base64.b64decode(wanted))
    except (ValueError, MemoryError, binascii.Error):
        return False


class PasswordCheck:
    """Checks ``Authorization`` fields for one route."""

    __slots__ = ("_decoy", "_guesses", "_known", "_users", "_window", "challenge")

    def __init__(self, spec: BasicAuth) -> None:
        self._users = {name.encode(): stored for name, stored in spec.users.items()}
        self._decoy = hash_password("")
        self._known: OrderedDict[bytes, tuple[float, bool]] = OrderedDict()
        self._window = 0.0
        self._guesses = 0
        self.challenge = b'WWW-Authenticate: Basic realm="%b", charset="UTF-8"\r\n' % spec.realm.encode("ascii")

    def __repr__(self) -> str:
        return f"<PasswordCheck users={len(self._users)}>"

    def allows(self, field: bytes | None, now: float) -> bool:
        """Tell whether an Authorization value names a user with the right password; `now` in monotonic seconds."""
        if field is None or len(field) > 1024 or field[:6].lower() != b"basic ":
            return False
        digest = hashlib.blake2b(field, key=_KEY, digest_size=32).digest()
        known = self._known.get(digest)
        if known is not None and known[0] > now:
            return known[1]
        if now - self._window >= 1.0:
            self._window, self._guesses = now, 0
        self._guesses += 1
        if self._guesses > GUESSES_PER_S:
            return False
        allowed = self._verify(field)
        self._known[digest] = (now + CACHE_S, allowed)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return allowed

    def _verify(self, field: bytes) -> bool:
        try:
            user, colon, password = base64.b64decode(field[6:].strip(), validate=True).partition(b":")
        except (ValueError, binascii.Error):
            return False
        stored = self._users.get(user)
        # An unknown user costs the same scrypt as a known one, so that time tells nobody who exists.
        matches = verify_password(password, stored if stored is not None else self._decoy)
        return bool(colon) and stored is not None and matches
