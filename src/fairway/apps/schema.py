"""The JSON Schema of a registry file: ``python -m fairway.apps.schema`` prints it, editors complete by it."""

from __future__ import annotations

from typing import Any

import msgspec

from fairway.apps.form import EntryForm

IDENTIFIER = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """Return the schema of one registry file as plain data."""
    found = msgspec.json.schema(EntryForm)
    definitions = found.pop("$defs")
    root = definitions.pop(EntryForm.__name__)
    return {
        "$schema": IDENTIFIER,
        "title": "Fairway app",
        **{k: v for k, v in root.items() if k != "title"},
        # At least one of the two says where the app is.
        "anyOf": [{"required": ["source"]}, {"required": ["compose_file"]}],
        "$defs": definitions,
    }


def text() -> str:
    """Return the schema as the repository keeps it: two blanks of indent, a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n"


if __name__ == "__main__":
    print(text(), end="")
