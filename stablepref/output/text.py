"""Text that need not be valid Unicode: file names, and prompts that were cut apart."""

from __future__ import annotations

import codecs
from typing import Final

ANY_TEXT: Final = "stablepref.output.text"
"""An error handler for codecs, registered when this module is imported.

Bytes of a file name, which Python keeps as U+DC80 to U+DCFF, become those bytes again; any other
character that the encoding lacks, such as half of a pair, becomes its escape, as in `\\ud800`.
Bytes that are no text are read as surrogateescape reads them.
"""


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
