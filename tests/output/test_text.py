"""What is no valid text is written all the same."""

import io

import pytest

from stablepref.output.text import ANY_TEXT


@pytest.mark.parametrize(
    ("text", "encoding", "written"),
    [
        ("a café", "utf-8", b"a caf\xc3\xa9"),
        ("caf\udce9.png", "utf-8", b"caf\xe9.png"),  # as os.fsdecode gives it
        ("a\ud800", "utf-8", rb"a\ud800"),
        ("\udce9\ud800\udce9", "utf-8", b"\xe9\\ud800\xe9"),
        ("\ud800\udc80", "utf-8", b"\\ud800\x80"),
        ("a cat \u2192", "ascii", rb"a cat \u2192"),
    ],
)
def test_bytes_come_back_and_the_rest_is_escaped(text: str, encoding: str, written: bytes) -> None:
    assert text.encode(encoding, ANY_TEXT) == written
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=ANY_TEXT)
    file.write(text)
    file.seek(0)
    assert file.buffer.read() == written


def test_bytes_that_are_no_text_are_read_as_file_names_are() -> None:
    assert b"caf\xe9.png".decode("utf-8", ANY_TEXT) == "caf\udce9.png"
