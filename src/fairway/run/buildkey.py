"""The key of a build: equal keys, equal results, so that an unchanged app is not built again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from fairway.apps.spec import AppSpec

# Part of every key: a change of the planners that alters what they return for the same folder raises it.
_PLANNERS = 5


def key_of(content: str, app: AppSpec) -> str:
    """Return the key of a build: content, the entry's own words on building, and the planners' version.

    Args:
        content: Digest of the source folder.
        app: The app, from the registry.
    """
    words = [
        _PLANNERS, content, app.name, app.runtime, str(app.compose_file or ""), app.command, app.build,
        sorted(app.processes.items()), sorted(app.env.items()), sorted(app.secrets), *_compose_words(app),
    ]  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(words)).hexdigest()


def _compose_words(app: AppSpec) -> list[object]:
    """Return what of a Compose file the content of the source folder does not say: its text where it lies elsewhere."""
    file, source = app.compose_file, app.source
    if file is None or app.runtime == "process" or source is None or file.is_relative_to(source):
        return [app.backend.port] if app.runtime == "compose" else []
    try:
        return [app.backend.port, hashlib.sha256(file.read_bytes()).hexdigest()]
    except OSError:
        return [app.backend.port]
