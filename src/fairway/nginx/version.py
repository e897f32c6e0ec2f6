"""The NGINX that will read the configuration, and what it understands."""

from __future__ import annotations

import re
from typing import NamedTuple

from fairway.nginx.errors import NginxError

_VERSION = re.compile(r"nginx version: [^/\s]+/(\d+)\.(\d+)\.(\d+)|^(\d+)\.(\d+)(?:\.(\d+))?$", re.MULTILINE)


class NginxVersion(NamedTuple):
    """An NGINX version; compares as a tuple.

    Source: the changes of each release, https://nginx.org/en/CHANGES.
    """

    major: int
    minor: int
    patch: int = 0

    @classmethod
    def parse(cls, text: str) -> NginxVersion:
        """Read the output of ``nginx -v``, or a bare ``1.22`` or ``1.22.1``.

        Raises:
            NginxError: The text names no version, or one before 1.18.
        """
        match = _VERSION.search(text.strip())
        if match is None:
            raise NginxError(f"expected a version such as 1.22.1 or the output of nginx -v, got {text.strip()[:80]!r}")
        numbers = [int(group) for group in match.groups() if group is not None]
        version = cls(*numbers)
        if version < OLDEST:
            raise NginxError(
                f"nginx {version} is older than {OLDEST}, the oldest that the generated configuration is tested with",
                hint="install a newer nginx, or serve with Fairway's own door",
            )
        return version

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def has_http2_directive(self) -> bool:
        """``http2 on;`` (1.25.1) replaced the parameter of ``listen``, which warns since then."""
        return self >= (1, 25, 1)

    @property
    def rejects_handshakes(self) -> bool:
        """``ssl_reject_handshake`` (1.19.4): an unknown name gets no certificate at all."""
        return self >= (1, 19, 4)

    @property
    def has_keepalive_time(self) -> bool:
        """``keepalive_time`` (1.19.10) bounds the age of a connection."""
        return self >= (1, 19, 10)


OLDEST = NginxVersion(1, 18, 0)
