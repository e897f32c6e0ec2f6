"""Makes a line from a stranger safe to print on a terminal.

A log line may carry escape sequences that move the cursor, rename the window, write to the clipboard or hide text
behind a link. Colour (SGR) can be let through; everything else that is not printable is shown, not obeyed.
"""

from __future__ import annotations

import re

# ESC [ parameters m, with nothing but digits, semicolons and colons between: sets colours, moves nothing.
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
# C0 without tab, DEL, C1, line and paragraph separators, bidirectional overrides, zero-width and tag characters.
_HOSTILE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]"
)


def neutralise(text: str, *, colours: bool = False) -> str:
    """Return `text` with control characters written out: ESC becomes ``\\x1b``, a right-to-left override ``\\u202e``.

    Args:
        text: One line.
        colours: Let colour sequences through; whoever prints has to reset colours after the line.
    """
    if _HOSTILE.search(text) is None:
        return text
    if not colours:
        return _HOSTILE.sub(_written_out, _COLOUR.sub("", text))
    parts: list[str] = []
    at = 0
    for match in _COLOUR.finditer(text):
        parts += [_HOSTILE.sub(_written_out, text[at : match.start()]), match[0]]
        at = match.end()
    parts.append(_HOSTILE.sub(_written_out, text[at:]))
    return "".join(parts)


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
