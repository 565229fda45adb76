"""Text for people: too long for a message, or not valid Unicode, as file names may be."""

from __future__ import annotations

import codecs
import unicodedata
from typing import Final

LONGEST: Final = 200
"""Characters of a name or a value that a message shows."""

_HIDDEN: Final = frozenset({"Cc", "Cf", "Zl", "Zp"})
"""Unicode's categories of control, format, line and paragraph characters."""

ANY_TEXT: Final = "stablepref.output.text"
"""An error handler for codecs, registered when this module is imported.

Bytes of a file name, which Python keeps as U+DC80 to U+DCFF, become those bytes again; any other
character that the encoding lacks, such as half of a pair, becomes its escape, as in `\\ud800`.
Bytes that are not text are read as surrogateescape reads them.
"""


def shorten(text: str) -> str:
    """Cut the middle out of a text that is too long for a message."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]}...{text[-half:]}"


def printable(text: str, *, keep: str = "") -> str:
    r"""A text that others wrote, as a terminal or a page may show it.

    Control characters, among them those that move a cursor or end a line, and marks that turn the
    direction of writing, are shown as escapes, such as ``\x1b`` or ``\u202e``.

    Args:
        text: Any text.
        keep: Characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter in keep or unicodedata.category(letter) not in _HIDDEN else _escape(letter)
        for letter in text
    )


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def _handle(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        return codecs.lookup_error("surrogateescape")(error)
    # One character at a time: of several the first may be a byte and the next none.
    single = UnicodeEncodeError(
        error.encoding, error.object, error.start, error.start + 1, error.reason
    )
    try:
        return codecs.lookup_error("surrogateescape")(single)
    except UnicodeEncodeError:
        return codecs.lookup_error("backslashreplace")(single)


codecs.register_error(ANY_TEXT, _handle)
