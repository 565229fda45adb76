"""What is no valid text is written all the same."""

import io

import pytest

from stablepref.output.text import ANY_TEXT, printable


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a red fox, ünïcode ☃", "a red fox, ünïcode ☃"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("over\rwritten\n", r"over\rwritten\n"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("bell\x07 next\x85line\u2028end", r"bell\x07 next\x85line\u2028end"),
    ],
)
def test_what_would_move_the_cursor_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_some_characters_may_stay() -> None:
    assert printable("a\nb\tc", keep="\n") == "a\nb\\tc"
