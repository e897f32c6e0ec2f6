"""What a hosted process finds in its environment: a short list from the daemon's own, then what the release says."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # `typing` takes longer to import than all of this; see `fairway.cli.ahead`
if TYPE_CHECKING:
    from collections.abc import Mapping

MARKER = "FAIRWAY_INSTANCE"
"""Environment variable that marks every process of an instance; children inherit it even over setsid."""

_KEPT = frozenset(
    {
        "HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER",
        "SSL_CERT_DIR", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE",
        "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
        "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY",
        "DOTNET_ROOT", "XDG_RUNTIME_DIR",
    }
)  # fmt: skip
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def inherited(source: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what a hosted process inherits of the daemon's environment.

    Only what programs need to run at all: the rest may hold the secrets of somebody else, and would make a release
    depend on the shell that `fairway up` was typed in.
    """
    source = os.environ if source is None else source
    kept = {name: value for name, value in source.items() if name in _KEPT or name.startswith("LC_")}
    kept.setdefault("PATH", _PATH)
    return kept


def compose(*layers: Mapping[str, str], marker: str) -> dict[str, str]:
    """Return the environment of one process: `layers` over what is inherited, later ones win, and the marker.

    ``PYTHONUNBUFFERED`` is set unless a layer says otherwise: a Python program that is killed would else take the
    last lines of its output with it.
    """
    env = inherited()
    env["PYTHONUNBUFFERED"] = "1"
    for layer in layers:
        env.update(layer)
    env[MARKER] = marker
    return env


def of_module(marker: str) -> dict[str, str]:
    """Return the environment of a module of Fairway's that runs as a process: it finds what this process finds."""
    return compose({"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}, marker=marker)
